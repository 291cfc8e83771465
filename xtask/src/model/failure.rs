//! Why a command stopped, in the user's words.

use std::fmt;

use super::finding::{Finding, Severity};

/// What kind of end a command came to; it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The repository, a build or a remote said no: exit code 1.
    Refused,
    /// The call or the machine is at fault: exit code 2.
    Environment,
    /// Stopped by a signal: exit code 130.
    Interrupted,
}

/// An error that is shown as it is. Every part but the summary may be empty.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) summary: String,
    /// The command that failed, ready to paste.
    pub(crate) command: Option<String>,
    /// The last lines of its output.
    pub(crate) tail: Vec<String>,
    pub(crate) findings: Vec<Finding>,
    /// What was left as it was, or half-way.
    pub(crate) left: Option<String>,
    /// What to do next.
    pub(crate) next: Option<String>,
}

impl Failure {
    pub(crate) fn new(kind: Kind, summary: impl Into<String>) -> Self {
        Self {
            kind,
            summary: summary.into(),
            command: None,
            tail: Vec::new(),
            findings: Vec::new(),
            left: None,
            next: None,
        }
    }

    pub(crate) fn refused(summary: impl Into<String>) -> Self {
        Self::new(Kind::Refused, summary)
    }

    pub(crate) fn environment(summary: impl Into<String>) -> Self {
        Self::new(Kind::Environment, summary)
    }

    /// All of `findings` at once; environment trouble outweighs a refusal, since it hides the rest.
    pub(crate) fn of_findings(summary: impl Into<String>, findings: Vec<Finding>) -> Self {
        let environment = findings.iter().any(|finding| finding.severity == Severity::Environment);
        let kind = if environment { Kind::Environment } else { Kind::Refused };
        Self { findings, ..Self::new(kind, summary) }
    }

    pub(crate) fn left(self, left: impl Into<String>) -> Self {
        Self { left: Some(left.into()), ..self }
    }

    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    pub(crate) fn tail(self, tail: Vec<String>) -> Self {
        Self { tail, ..self }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Refused => 1,
            Kind::Environment => 2,
            Kind::Interrupted => 130,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl std::error::Error for Failure {}
