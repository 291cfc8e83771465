//! Which version a release is, and whether it may be.

use std::collections::BTreeMap;

use crate::model::finding::Finding;
use crate::model::name::ContainerName;
use crate::model::tag::{GitTag, ImageTag};
use crate::model::version::{Bump, Version};

/// What is known of the versions of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Commits that tags name, in this clone.
    pub(crate) local: BTreeMap<GitTag, String>,
    /// The same on the remote.
    pub(crate) remote: BTreeMap<GitTag, String>,
    pub(crate) registry: Vec<ImageTag>,
}

/// The version to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) version: Version,
    /// The tag exists already and is of what is checked out: the rest of that release is to be done.
    pub(crate) resumes: bool,
}

impl Known {
    /// The commit that the tag names, wherever it is known.
    pub(crate) fn commit(&self, tag: &GitTag) -> Option<&String> {
        self.remote.get(tag).or_else(|| self.local.get(tag))
    }

    /// The newest version that has a git tag.
    pub(crate) fn newest_tag(&self) -> Option<&GitTag> {
        self.local.keys().chain(self.remote.keys()).max_by_key(|tag| tag.version)
    }

    /// The newest version anywhere.
    pub(crate) fn newest(&self) -> Option<Version> {
        let tagged = self.newest_tag().map(|tag| tag.version);
        tagged.max(self.registry.iter().map(|tag| tag.version).max())
    }
}

/// Decides the version. `unchanged` says whether a tag's commit holds the same image inputs as HEAD.
///
/// # Errors
/// Why the version asked for can't be released.
pub(crate) fn choose(
    name: &ContainerName,
    known: &Known,
    asked: Option<Version>,
    bump: Option<Bump>,
    unchanged: impl Fn(&str) -> bool,
) -> Result<Choice, Finding> {
    let tag_of = |version| GitTag { container: name.clone(), version };
    let next = known.newest().map_or(Version::FIRST, |newest| newest.bumped(bump.unwrap_or(Bump::Patch)));
    let Some(version) = asked else {
        let newest = known.newest_tag().filter(|tag| bump.is_none() && Some(tag.version) == known.newest());
        let resumable = newest.filter(|tag| known.commit(tag).is_some_and(|commit| unchanged(commit)));
        return Ok(resumable
            .map_or(Choice { version: next, resumes: false }, |tag| Choice { version: tag.version, resumes: true }));
    };
    let tag = tag_of(version);
    if let (Some(here), Some(there)) = (known.local.get(&tag), known.remote.get(&tag))
        && here != there
    {
        return Err(Finding::error("tag-differs", format!("{tag} is {here} in this clone but {there} on the remote"))
            .help(format!("git tag -d {tag} forgets the one here")));
    }
    if let Some(commit) = known.commit(&tag) {
        if unchanged(commit) {
            return Ok(Choice { version, resumes: true });
        }
        let pushed = known.remote.contains_key(&tag);
        let where_ = if pushed { "on the remote" } else { "in this clone, never pushed" };
        let help = if pushed {
            format!("the next version is {next}")
        } else {
            format!("git tag -d {tag} forgets it; the next version is {next}")
        };
        return Err(Finding::error(
            "tag-elsewhere",
            format!("{tag} already names another commit, {commit} ({where_})"),
        )
        .help(help));
    }
    if known.registry.iter().any(|image| image.version == version) {
        return Err(Finding::error(
            "version-taken",
            format!("the registry already has {name} {version}, which no git tag explains"),
        )
        .help(format!("the next version is {next}")));
    }
    match known.newest() {
        Some(newest) if version <= newest => Err(Finding::error(
            "version-not-newer",
            format!("{version} is not newer than {newest}, the newest of {name}"),
        )
        .help(format!("the next version is {next}"))),
        _ => Ok(Choice { version, resumes: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(local: &[(&str, &str)], remote: &[(&str, &str)], registry: &[&str]) -> Known {
        let map = |tags: &[(&str, &str)]| {
            tags.iter().map(|(tag, commit)| (tag.parse().unwrap(), (*commit).to_owned())).collect()
        };
        Known {
            local: map(local),
            remote: map(remote),
            registry: registry.iter().map(|tag| tag.parse().unwrap()).collect(),
        }
    }

    fn chosen(known: &Known, asked: Option<&str>, bump: Option<Bump>) -> String {
        let name = "redis".parse().unwrap();
        match choose(&name, known, asked.map(|v| v.parse().unwrap()), bump, |commit| commit == "here") {
            Ok(Choice { version, resumes }) => format!("{version}{}", if resumes { " resumed" } else { "" }),
            Err(finding) => finding.code.to_owned(),
        }
    }

    #[test]
    fn the_version_is_new_or_resumes_its_own_tag() {
        let none = known(&[], &[], &[]);
        assert_eq!(chosen(&none, None, None), "v1.0.0");
        assert_eq!(chosen(&none, Some("v0.1.0"), None), "v0.1.0");
        let old = known(&[("redis-v1.0.0", "old")], &[("redis-v1.0.0", "old")], &["v1.0.0-nix"]);
        assert_eq!(chosen(&old, None, None), "v1.0.1");
        assert_eq!(chosen(&old, None, Some(Bump::Major)), "v2.0.0");
        assert_eq!(chosen(&old, Some("v1.0.0"), None), "tag-elsewhere");
        assert_eq!(chosen(&old, Some("v0.9.0"), None), "version-not-newer");
        let same = known(&[], &[("redis-v1.0.0", "here")], &[]);
        assert_eq!(chosen(&same, None, None), "v1.0.0 resumed");
        assert_eq!(chosen(&same, None, Some(Bump::Patch)), "v1.0.1");
        assert_eq!(chosen(&same, Some("v1.0.0"), None), "v1.0.0 resumed");
        assert_eq!(
            chosen(&known(&[("redis-v1.0.0", "here")], &[("redis-v1.0.0", "old")], &[]), Some("v1.0.0"), None),
            "tag-differs"
        );
        let untagged = known(&[], &[], &["v3.0.0-nix"]);
        assert_eq!(chosen(&untagged, Some("v3.0.0"), None), "version-taken");
        assert_eq!(chosen(&untagged, None, None), "v3.0.1");
    }
}
