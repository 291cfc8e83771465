//! Rules: pure functions from values to findings.

pub(crate) mod image;
pub(crate) mod release;
