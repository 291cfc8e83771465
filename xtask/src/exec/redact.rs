//! Secrets are taken out of everything that leaves the process, whoever printed them.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::model::secret::Secret;

/// Knows the secrets of the environment, and those that commands have read; all copies know the same.
#[derive(Clone, Default)]
pub(crate) struct Redactor {
    secrets: Arc<RwLock<Vec<String>>>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redactor")
    }
}

impl Redactor {
    /// Hides `secrets`, the longest first, so that one inside another leaves nothing behind.
    pub(crate) fn new(secrets: Vec<String>) -> Self {
        let redactor = Self::default();
        redactor.add(secrets);
        redactor
    }

    /// Hides `secret` from now on, also as base64 and as it is written in JSON.
    pub(crate) fn learn(&self, secret: &Secret) {
        let text = secret.reveal();
        let json = serde_json::Value::from(text).to_string();
        self.add(vec![text.to_owned(), STANDARD.encode(text), json.trim_matches('"').to_owned()]);
    }

    fn add(&self, more: Vec<String>) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.extend(more.into_iter().filter(|secret| secret.len() >= 4));
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        let secrets = self.secrets.read().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learnt_later_is_hidden_everywhere() {
        let redactor = Redactor::default();
        let copy = redactor.clone();
        redactor.learn(&Secret::new("hun\"ter2"));
        assert_eq!(copy.clean(r#"hun"ter2 hun\"ter2 aHVuInRlcjI="#), "[secret] [secret] [secret]");
    }

    #[test]
    fn every_occurrence_goes() {
        let redactor = Redactor::new(vec!["hunter2".into(), "hunter2-longer".into(), "x".into()]);
        assert_eq!(redactor.clean("a hunter2 b hunter2-longer x"), "a [secret] b [secret] x");
    }
}
