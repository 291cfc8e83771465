//! The one door to the system: commands, files, the environment, signals.

pub(crate) mod cgroup;
pub(crate) mod compress;
pub(crate) mod env;
pub(crate) mod fs;
pub(crate) mod http;
pub(crate) mod lock;
pub(crate) mod parallel;
pub(crate) mod pool;
pub(crate) mod process;
pub(crate) mod redact;
pub(crate) mod run;
pub(crate) mod service;
pub(crate) mod signal;
pub(crate) mod tarball;
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod workspace;
