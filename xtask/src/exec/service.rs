//! A program that runs beside us: its output in a log, ended when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::run::{self, System};
use super::signal::Group;
use crate::tools::Invocation;

/// Runs until dropped.
pub(crate) struct Service {
    handle: duct::Handle,
    group: Group,
    log: PathBuf,
}

impl Service {
    /// Starts `invocation` with its output in `log`.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub(crate) fn start(system: &System, invocation: &Invocation, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("can't make {}", log.display()))?;
        let expression = system.expression(invocation)?.stderr_to_stdout().stdout_file(file);
        let (handle, group) = run::start(&expression, invocation)?;
        Ok(Self { handle, group, log: log.to_owned() })
    }

    /// Its first process.
    pub(crate) fn process(&self) -> u32 {
        self.handle.pids().first().copied().unwrap_or_default()
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.handle.try_wait(), Ok(None))
    }

    /// The end of what it said.
    pub(crate) fn tail(&self) -> Vec<String> {
        run::tail(&std::fs::read_to_string(&self.log).unwrap_or_default())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        run::stop(&self.handle, &self.group);
    }
}
