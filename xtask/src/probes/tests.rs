//! What clusters answer, and what is made of it.
