//! One thing that is wrong, where, and what to do about it.

use super::source::Place;
use super::suggest::nearest;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Worth knowing; does not fail anything.
    Note,
    /// Fails the command.
    Error,
    /// The check itself could not be made: a tool or an endpoint is missing.
    Environment,
}

/// One finding. Its message is a fragment in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A stable name for the rule, as in `version-not-newer`.
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) place: Option<Place>,
    /// The other end, and what it is.
    pub(crate) other: Option<Box<(Place, &'static str)>>,
    pub(crate) help: Option<String>,
}

impl Finding {
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), place: None, other: None, help: None }
    }

    pub(crate) fn environment(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Environment, ..Self::error(code, message) }
    }

    pub(crate) fn note(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, message) }
    }

    pub(crate) fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    pub(crate) fn also(self, place: Place, what: &'static str) -> Self {
        Self { other: Some(Box::new((place, what))), ..self }
    }

    /// With the nearest of `names`, where one is near.
    pub(crate) fn did_you_mean<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, names) {
            Some(near) => self.help(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
