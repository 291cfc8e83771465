//! Content digests, as registries write them.

use std::fmt;
use std::str::FromStr;

use sha2::Digest as _;

/// `sha256:` and 64 lower-case hex digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Digest(String);

impl Digest {
    /// The digest of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(format!("sha256:{:x}", sha2::Sha256::digest(bytes)))
    }

    /// The first twelve digits: enough for people.
    pub(crate) fn short(&self) -> &str {
        &self.0[..19]
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Digests what comes in pieces.
#[derive(Clone, Default)]
pub(crate) struct Hasher(sha2::Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(self) -> Digest {
        Digest(format!("sha256:{:x}", self.0.finalize()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let valid = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if valid { Ok(Self(text.to_owned())) } else { Err("expected sha256: and 64 hex digits".to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sha256_digests_parse() {
        let digest = Digest::of(b"");
        assert_eq!(digest.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(digest.to_string().parse(), Ok(digest.clone()));
        assert_eq!(digest.short(), "sha256:e3b0c44298fc");
        for text in ["", "sha256:", "sha256:E3", &digest.as_str()[..70], &digest.as_str()[7..]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
