//! This program, called by itself as an operator or a runner calls it.

use anyhow::{Context as _, Result};

use super::{Invocation, line};

/// `words` for this executable, ended when we are, however we end.
///
/// # Errors
/// The executable is gone.
pub(crate) fn tethered(words: &[String], more: &[&str]) -> Result<Invocation> {
    Ok(tether(call(words, more)?))
}

/// `words` for this executable.
///
/// # Errors
/// The executable is gone.
pub(crate) fn call(words: &[String], more: &[&str]) -> Result<Invocation> {
    let own = std::env::current_exe().context("this program can't find itself")?;
    let own = own.to_string_lossy().into_owned();
    Ok(line!("{own} {more...} {words...}"))
}

/// A child that gets SIGTERM when its parent is gone, SIGKILL of the parent included.
pub(crate) fn tether(invocation: Invocation) -> Invocation {
    let Invocation { program, args, .. } = &invocation;
    let tether = line!("setpriv --pdeathsig TERM {program} {args...}");
    Invocation { program: tether.program, args: tether.args, ..invocation }
}

/// As a person would type it.
pub(crate) fn shown(words: &[String]) -> String {
    format!("cargo xtask {}", shell_words::join(words))
}
