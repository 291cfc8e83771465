//! One file per external program: its command lines and its output. Nothing here runs anything.

pub(crate) mod ansible;
pub(crate) mod archive;
pub(crate) mod argocd;
pub(crate) mod catalog;
pub(crate) mod curl;
pub(crate) mod docker_registry;
pub(crate) mod docker_tools;
pub(crate) mod engine;
pub(crate) mod git;
pub(crate) mod helm;
pub(crate) mod kubectl;
pub(crate) mod kubernetes;
pub(crate) mod kustomize;
pub(crate) mod linux;
pub(crate) mod nix;
pub(crate) mod op;
pub(crate) mod own;
pub(crate) mod prometheus;
pub(crate) mod psql;
pub(crate) mod skopeo;
pub(crate) mod ssh;
pub(crate) mod tarfile;

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// How long a command that only asks something may take.
pub(crate) const QUERY: Duration = Duration::from_secs(60);

/// A command line, an argv array from the start: no shell ever reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    /// Settings that make the program's output the same everywhere; not part of what is shown.
    pub(crate) quiet_env: Vec<(&'static str, &'static str)>,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) limit: Duration,
    pub(crate) says: Says,
    pub(crate) on_signal: OnSignal,
}

/// What a signal does to a program that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnSignal {
    /// It is told to end.
    Ends,
    /// It is over in a moment and stopped it would leave a lock: it gets that moment.
    Finishes,
}

/// What a program's output may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// Shown where it helps.
    Openly,
    /// Secrets: read by us, shown to nobody.
    Secrets,
}

impl Invocation {
    /// From xshell's `cmd!` notation.
    pub(crate) fn new(command: impl Into<Command>) -> Self {
        let command: Command = command.into();
        let text = |text: &OsStr| text.to_string_lossy().into_owned();
        Self {
            program: text(command.get_program()),
            args: command.get_args().map(text).collect(),
            quiet_env: vec![("LC_ALL", "C")],
            folder: None,
            limit: QUERY,
            says: Says::Openly,
            on_signal: OnSignal::Ends,
        }
    }

    pub(crate) fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Nothing of its output is shown, not even when it fails.
    pub(crate) fn hidden(self) -> Self {
        Self { says: Says::Secrets, ..self }
    }

    /// Not stopped half way: see [`OnSignal::Finishes`].
    pub(crate) fn finishes(self) -> Self {
        Self { on_signal: OnSignal::Finishes, ..self }
    }

    pub(crate) fn env(mut self, pairs: &[(&'static str, &'static str)]) -> Self {
        self.quiet_env.retain(|(name, _)| !pairs.iter().any(|(new, _)| new == name));
        self.quiet_env.extend_from_slice(pairs);
        self
    }
}

/// Ready to paste into a shell.
impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.args);
        f.write_str(&shell_words::join(words))
    }
}

/// Builds an [`Invocation`] in xshell's notation: `line!("git push {remote} {refspec}")`.
macro_rules! line {
    ($text:literal) => {
        $crate::tools::SHELL.with(|shell| $crate::tools::Invocation::new(xshell::cmd!(shell, $text)))
    };
}
pub(crate) use line;

thread_local! {
    /// xshell's notation wants a shell; nothing is ever run through it.
    #[expect(clippy::expect_used, reason = "fails only without a working directory, which main has checked")]
    pub(crate) static SHELL: xshell::Shell = xshell::Shell::new().expect("there is a working directory");
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_shown_can_be_pasted() {
        let message = "two words; $(x) 'q'";
        let invocation = line!("git tag -a x -m {message}");
        assert_eq!(invocation.to_string(), r"git tag -a x -m 'two words; $(x) '\''q'\'''");
        assert_eq!(shell_words::split(&invocation.to_string()).unwrap()[5], message);
    }
}
