//! Names that end up in paths, tags and command lines, and are therefore checked once.

use std::fmt;
use std::str::FromStr;

/// Longer names do not fit a DNS label, which a Service or a host made of one needs.
const LONGEST: usize = 63;

/// A folder under `containers/`, an image of the same name, the first half of a git tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerName(String);

impl ContainerName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() {
            return Err("a container's name is not empty".to_owned());
        }
        if text.len() > LONGEST {
            return Err(format!("a container's name has at most {LONGEST} characters, this one has {}", text.len()));
        }
        if let Some(odd) = text.chars().find(|&c| !allowed(c)) {
            return Err(format!("a container's name is made of a-z, 0-9 and '-'; {odd:?} is not allowed"));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err("a container's name starts and ends with a letter or a digit".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_do_harm_are_refused() {
        let long = "a".repeat(300);
        for text in ["", "../x", "a;b", "-rf", "a b", "A", "a/b", "a\n", "é", "a-", ".", "$(x)", &long] {
            assert!(text.parse::<ContainerName>().is_err(), "{text:?}");
        }
        for text in ["authentik", "a", "kiwix-serve", "7zip", "a-v1"] {
            assert!(text.parse::<ContainerName>().is_ok(), "{text:?}");
        }
    }
}
