//! One thing that is wrong, where, and what to do about it.

use super::fix::Edit;
use super::source::Place;
use super::suggest::{nearest, only_near};

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
    /// What would settle it without anybody having to think.
    pub(crate) fix: Option<Box<Edit>>,
}

impl Finding {
    pub(crate) fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            place: None,
            other: None,
            help: None,
            fix: None,
        }
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

    /// With the nearest of `names`, where one is near; `word` is what the place says now.
    pub(crate) fn did_you_mean<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: Vec<&str> = names.into_iter().collect();
        let Some(near) = nearest(word, names.iter().copied()) else { return self };
        let only = only_near(word, names).zip(self.place.as_ref());
        let fix = only.and_then(|(only, place)| Edit::rename(place, word, only));
        self.fixed_by(fix).help(format!("did you mean `{near}`?"))
    }

    /// With an edit that settles it, where there is one.
    pub(crate) fn fixed_by(self, fix: Option<Edit>) -> Self {
        Self { fix: fix.map(Box::new).or(self.fix), ..self }
    }

    pub(crate) fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}
