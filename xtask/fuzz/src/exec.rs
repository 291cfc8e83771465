//! Of the door to the system the one part that what is pure knows: how it describes a process.

#[path = "../../src/exec/process.rs"]
pub(crate) mod process;
