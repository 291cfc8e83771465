//! The two tags of a release: in git `<container>-vX.Y.Z`, in the registry `vX.Y.Z[-<sha7>][-nix]`.

use std::fmt;
use std::str::FromStr;

use super::name::ContainerName;
use super::version::Version;

/// How an image is built; it shows in the image's tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BuildKind {
    /// From `default.nix`; tag `vX.Y.Z-nix`.
    Nix,
    /// From `Dockerfile`; tag `vX.Y.Z`.
    Dockerfile,
}

impl fmt::Display for BuildKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nix => "nix",
            Self::Dockerfile => "dockerfile",
        })
    }
}

/// The git tag that triggers a build.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GitTag {
    pub(crate) container: ContainerName,
    pub(crate) version: Version,
}

impl fmt::Display for GitTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.container, self.version)
    }
}

impl FromStr for GitTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = "expected <container>-vX.Y.Z, as in authentik-v1.0.0";
        let (container, version) = text.rsplit_once('-').ok_or(shape)?;
        let reason = |why: String| format!("{shape}: {why}");
        Ok(Self { container: container.parse().map_err(reason)?, version: version.parse().map_err(reason)? })
    }
}

/// The tag of one of our images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageTag {
    pub(crate) version: Version,
    pub(crate) commit: Option<String>,
    pub(crate) kind: BuildKind,
}

impl ImageTag {
    /// What a release of `version` is published as.
    pub(crate) fn release(version: Version, kind: BuildKind) -> Self {
        Self { version, commit: None, kind }
    }
}

impl fmt::Display for ImageTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        if let Some(commit) = &self.commit {
            write!(f, "-{commit}")?;
        }
        f.write_str(if self.kind == BuildKind::Nix { "-nix" } else { "" })
    }
}

impl FromStr for ImageTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, kind) = match text.strip_suffix("-nix") {
            Some(rest) => (rest, BuildKind::Nix),
            None => (text, BuildKind::Dockerfile),
        };
        let (version, commit) = match rest.split_once('-') {
            Some((version, commit)) => (version, Some(commit)),
            None => (rest, None),
        };
        let is_short_sha = |sha: &str| sha.len() == 7 && sha.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if commit.is_some_and(|sha| !is_short_sha(sha)) {
            return Err("expected vX.Y.Z, vX.Y.Z-nix or vX.Y.Z-<sha7>[-nix]".to_owned());
        }
        Ok(Self { version: version.parse()?, commit: commit.map(str::to_owned), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn git_tags_round_trip(name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", v: [u16; 3]) {
            let version = Version { major: v[0].into(), minor: v[1].into(), patch: v[2].into() };
            let tag = GitTag { container: name.parse().unwrap(), version };
            prop_assert_eq!(tag.to_string().parse(), Ok(tag));
        }

        #[test]
        fn image_tags_round_trip(v: [u16; 3], sha in proptest::option::of("[0-9a-f]{7}"), nix: bool) {
            let version = Version { major: v[0].into(), minor: v[1].into(), patch: v[2].into() };
            let kind = if nix { BuildKind::Nix } else { BuildKind::Dockerfile };
            let tag = ImageTag { version, commit: sha, kind };
            prop_assert_eq!(tag.to_string().parse(), Ok(tag));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in ".{0,40}") {
            if let Ok(tag) = text.parse::<GitTag>() { prop_assert_eq!(tag.to_string(), text.clone()); }
            if let Ok(tag) = text.parse::<ImageTag>() { prop_assert_eq!(tag.to_string(), text); }
        }
    }

    #[test]
    fn a_name_may_itself_look_like_a_version() {
        let tag: GitTag = "a-v1-v2.0.0".parse().unwrap();
        assert_eq!((tag.container.as_str(), tag.version.major), ("a-v1", 2));
    }
}
