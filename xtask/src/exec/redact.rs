//! Secrets are taken out of everything that leaves the process, whoever printed them.

/// Knows the secrets of the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Hides `secrets`, the longest first, so that one inside another leaves nothing behind.
    pub(crate) fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= 4);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    pub(crate) fn clean(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "[secret]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_occurrence_goes() {
        let redactor = Redactor::new(vec!["hunter2".into(), "hunter2-longer".into(), "x".into()]);
        assert_eq!(redactor.clean("a hunter2 b hunter2-longer x"), "a [secret] b [secret] x");
    }
}
