//! The manual: every command, one line each, and the match that calls it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::commands::{Context, build, containers, doctor, pin, publish, rehearse, release, setup};
use crate::report::{Format, Outcome};

/// Build, release and pin the containers of a repository.
///
/// stdout is data, stderr is talk. Exit codes: 0 fine, 1 refused or failed, 2 usage or environment, 130 interrupted.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the result is written
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub(crate) format: Format,
    /// The checkout to work on; default: the one around the working directory
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Show commands; twice: their output as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Doctor(doctor::Args),
    Setup(setup::Args),
    Containers(containers::Args),
    Build(build::Args),
    Release(release::Args),
    Publish(publish::Args),
    Pin(pin::Args),
    Rehearse(rehearse::Args),
}

impl Command {
    pub(crate) fn run(&self, cx: &Context) -> Result<Outcome> {
        match self {
            Self::Doctor(args) => Ok(doctor::run(cx, args)),
            Self::Setup(args) => setup::run(cx, args),
            Self::Containers(args) => containers::run(cx, args),
            Self::Build(args) => build::run(cx, args),
            Self::Release(args) => release::run(cx, args),
            Self::Publish(args) => publish::run(cx, args),
            Self::Pin(args) => pin::run(cx, args),
            Self::Rehearse(args) => rehearse::run(cx, args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
