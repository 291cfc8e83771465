//! Which manifests of a registry nothing uses any more. Pure: what is there and who uses what in, a decision out.

use std::collections::{BTreeMap, BTreeSet};

use super::digest::Digest;
use super::tag::ImageTag;
use super::uses::Uses;
use super::version::Version;

/// What a registry has under the name of one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) tags: BTreeMap<String, Digest>,
    pub(crate) manifests: BTreeMap<Digest, Holding>,
}

/// One manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) config: Option<Digest>,
    /// What an index of several platforms names.
    pub(crate) children: Vec<Digest>,
    /// What a signature or an attestation is attached to.
    pub(crate) subject: Option<Digest>,
}

/// What is to become of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Each with the reason.
    pub(crate) kept: BTreeMap<Digest, String>,
    /// In the order in which they can go: whatever belongs to another first, so that nothing is left that no tag leads to.
    pub(crate) removed: Vec<Removal>,
}

/// A manifest that nothing uses, with the tags that go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) digest: Digest,
    pub(crate) tags: Vec<String>,
}

impl Holdings {
    /// The tags of a manifest.
    pub(crate) fn tags_of(&self, digest: &Digest) -> Vec<String> {
        self.tags.iter().filter(|(_, other)| *other == digest).map(|(tag, _)| tag.clone()).collect()
    }

    /// What a manifest is attached to: by its own word, or by that of a tag as cosign writes them.
    fn subjects(&self, digest: &Digest) -> Vec<Digest> {
        let own = self.manifests.get(digest).and_then(|holding| holding.subject.clone());
        own.into_iter().chain(self.tags_of(digest).iter().filter_map(|tag| attached_to(tag))).collect()
    }
}

/// `sha256-<hex>` and `sha256-<hex>.sig`: the manifest whose signatures are under this tag.
pub(crate) fn attached_to(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?.split('.').next()?;
    format!("sha256:{hex}").parse().ok()
}

/// Decides for one repository; of each kind of release the last `keep` stay whoever uses them.
pub(crate) fn decide(repository: &str, holdings: &Holdings, uses: &Uses, keep: usize) -> Decision {
    let mut kept = roots(repository, holdings, uses, keep);
    loop {
        let mut more = BTreeMap::new();
        for (digest, reason) in &kept {
            let children = holdings.manifests.get(digest).map_or(&[][..], |holding| &holding.children);
            let children = children.iter().filter(|child| holdings.manifests.contains_key(child));
            more.extend(children.map(|child| (child.clone(), format!("part of {}: {reason}", digest.short()))));
        }
        for digest in holdings.manifests.keys() {
            let subject = holdings.subjects(digest).into_iter().find(|subject| kept.contains_key(subject));
            more.extend(subject.map(|subject| (digest.clone(), format!("attached to {}", subject.short()))));
        }
        more.retain(|digest, _| !kept.contains_key(digest));
        if more.is_empty() {
            break;
        }
        kept.extend(more);
    }
    let removed = order(holdings, &kept);
    Decision { kept, removed }
}

/// What is kept for its own sake.
fn roots(repository: &str, holdings: &Holdings, uses: &Uses, keep: usize) -> BTreeMap<Digest, String> {
    let mut roots = BTreeMap::new();
    let last = last(holdings.tags.keys(), keep);
    for (tag, digest) in &holdings.tags {
        if let Some(user) = uses.of_tag(repository, tag) {
            roots.insert(digest.clone(), format!("{tag} is used: {user}"));
        } else if last.contains(tag) {
            roots.entry(digest.clone()).or_insert_with(|| format!("{tag} is one of the last {keep}"));
        } else if tag.parse::<ImageTag>().is_err() && attached_to(tag).is_none() {
            roots.entry(digest.clone()).or_insert_with(|| format!("{tag} is no tag of a release"));
        }
    }
    let own_use = |digest: &Digest| {
        let config = holdings.manifests.get(digest).and_then(|holding| holding.config.as_ref());
        // Some engines call an image by the digest of its configuration.
        uses.of_digest(digest).or_else(|| config.and_then(|config| uses.of_digest(config)))
    };
    for (digest, holding) in &holdings.manifests {
        if let Some(user) = own_use(digest) {
            roots.insert(digest.clone(), format!("used: {user}"));
        } else if let Some(user) = holding.children.iter().find_map(own_use) {
            // Who runs one platform of it may have asked for all.
            roots.insert(digest.clone(), format!("a part of it is used: {user}"));
        }
    }
    roots
}

/// The last `keep` tags of each kind of build; equal versions, as those of several commits, count as one.
fn last<'a>(tags: impl Iterator<Item = &'a String>, keep: usize) -> BTreeSet<&'a String> {
    let mut kinds = BTreeMap::<_, BTreeMap<Version, Vec<&String>>>::new();
    for tag in tags {
        if let Ok(parsed) = tag.parse::<ImageTag>() {
            let kind = (parsed.kind, parsed.commit.is_some());
            kinds.entry(kind).or_default().entry(parsed.version).or_default().push(tag);
        }
    }
    kinds.into_values().flat_map(|versions| versions.into_values().rev().take(keep).flatten()).collect()
}

/// Those that go, each behind what belongs to it.
fn order(holdings: &Holdings, kept: &BTreeMap<Digest, String>) -> Vec<Removal> {
    let mut before = BTreeMap::<&Digest, Vec<&Digest>>::new();
    let goes = |digest: &&Digest| !kept.contains_key(digest);
    let subjects: BTreeMap<&Digest, Vec<Digest>> =
        holdings.manifests.keys().map(|digest| (digest, holdings.subjects(digest))).collect();
    for (digest, holding) in holdings.manifests.iter().filter(|(digest, _)| goes(digest)) {
        before.entry(digest).or_default().extend(holding.children.iter().filter(goes));
        for subject in subjects.get(digest).into_iter().flatten() {
            if let Some((subject, _)) = holdings.manifests.get_key_value(subject) {
                before.entry(subject).or_default().push(digest);
            }
        }
    }
    let (mut seen, mut sorted) = (BTreeSet::new(), Vec::new());
    for digest in holdings.manifests.keys().filter(goes) {
        let mut stack = vec![(digest, false)];
        while let Some((digest, is_ready)) = stack.pop() {
            if is_ready {
                sorted.push(digest);
            } else if holdings.manifests.contains_key(digest) && seen.insert(digest) {
                stack.push((digest, true));
                stack.extend(before.get(digest).into_iter().flatten().map(|first| (*first, false)));
            }
        }
    }
    let removal = |digest: &Digest| Removal { digest: digest.clone(), tags: holdings.tags_of(digest) };
    sorted.into_iter().map(removal).collect()
}

/// What is there now beside what was looked at: a tag that has come or moved, which makes the decision void.
pub(crate) fn moved<'a>(before: &Holdings, now: &'a BTreeMap<String, Digest>) -> Option<&'a String> {
    now.iter().find(|(tag, digest)| before.tags.get(*tag) != Some(digest)).map(|(tag, _)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn holdings(tags: &[(&str, &str)], indexes: &[(&str, &[&str])], attached: &[(&str, &str)]) -> Holdings {
        let mut holdings = Holdings::default();
        let mut add = |name: &str| {
            let config = Some(digest(&format!("config of {name}")));
            holdings.manifests.entry(digest(name)).or_insert(Holding { config, ..Holding::default() });
        };
        for (name, _) in tags.iter().map(|(tag, name)| (name, tag)).chain(attached.iter().map(|(name, of)| (name, of)))
        {
            add(name);
        }
        for (name, children) in indexes {
            add(name);
            for child in *children {
                add(child);
            }
        }
        for (name, children) in indexes {
            let children = children.iter().map(|child| digest(child)).collect();
            holdings.manifests.insert(digest(name), Holding { children, ..Holding::default() });
        }
        for (name, subject) in attached {
            holdings.manifests.insert(digest(name), Holding { subject: Some(digest(subject)), ..Holding::default() });
        }
        holdings.tags = tags.iter().map(|(tag, name)| ((*tag).to_owned(), digest(name))).collect();
        holdings
    }

    fn gone(holdings: &Holdings, uses: &Uses, keep: usize) -> Vec<String> {
        let names = ["a", "b", "c", "d", "i", "j", "s", "t"];
        let name = |removal: &Removal| names.iter().find(|name| digest(name) == removal.digest).unwrap().to_string();
        decide("ops/x", holdings, uses, keep).removed.iter().map(name).collect()
    }

    #[test]
    fn the_last_of_each_kind_stay_and_odd_tags_are_not_judged() {
        let tags = [("v1.0.0-nix", "a"), ("v1.10.0-nix", "b"), ("v1.9.0-nix", "c"), ("latest", "d"), ("v1.0.0", "i")];
        let all = holdings(&tags, &[], &[]);
        let mut both = gone(&all, &Uses::default(), 1);
        both.sort();
        assert_eq!(both, ["a", "c"]);
        assert_eq!(gone(&all, &Uses::default(), 2), ["a"]);
    }

    #[test]
    fn a_digest_goes_only_with_all_of_its_tags() {
        let all = holdings(&[("v1.0.0-nix", "a"), ("v1.1.0-nix", "a"), ("v1.2.0-nix", "b")], &[], &[]);
        let mut uses = Uses::default();
        assert_eq!(gone(&all, &uses, 1), ["a"]);
        uses.add_tag("ops/x", "v1.0.0-nix", "a manifest");
        assert_eq!(gone(&all, &uses, 1), Vec::<String>::new());
        let mut other = Uses::default();
        other.add_tag("ops/y", "v1.0.0-nix", "a manifest of another image");
        assert_eq!(gone(&all, &other, 1), ["a"]);
    }

    #[test]
    fn an_index_keeps_its_parts_and_a_used_part_keeps_its_index() {
        let tags = [("v1.0.0-nix", "i"), ("v1.1.0-nix", "j"), ("v1.2.0-nix", "d")];
        let all = holdings(&tags, &[("i", &["a", "b"]), ("j", &["b", "c"])], &[]);
        let mut uses = Uses::default();
        // Parts go before the index that leads to them.
        let order = gone(&all, &uses, 1);
        let at = |name: &str| order.iter().position(|other| other == name).unwrap();
        assert!(order.len() == 5 && at("a") < at("i") && at("b") < at("i") && at("c") < at("j"), "{order:?}");
        uses.add_digest(digest("a"), "a pod");
        assert_eq!(gone(&all, &uses, 1), ["c", "j"]);
        let mut by_config = Uses::default();
        by_config.add_digest(digest("config of c"), "a pod");
        assert_eq!(gone(&all, &by_config, 1), ["a", "i"]);
    }

    #[test]
    fn what_is_attached_stays_and_goes_with_its_subject() {
        let signature = format!("{}.sig", digest("a").as_str().replace(':', "-"));
        let tags = [("v1.0.0-nix", "a"), (signature.as_str(), "t"), ("v1.2.0-nix", "d")];
        let all = holdings(&tags, &[], &[("s", "a")]);
        let order = gone(&all, &Uses::default(), 1);
        assert!(order.len() == 3 && order[2] == "a", "{order:?}");
        let mut uses = Uses::default();
        uses.add_digest(digest("a"), "a pod");
        assert_eq!(gone(&all, &uses, 1), Vec::<String>::new());
    }

    #[test]
    fn a_tag_that_comes_or_moves_is_seen_and_one_that_goes_is_not() {
        let all = holdings(&[("v1.0.0", "a"), ("v1.1.0", "b")], &[], &[]);
        let mut now = all.tags.clone();
        assert_eq!(moved(&all, &now), None);
        now.remove("v1.0.0");
        assert_eq!(moved(&all, &now), None);
        now.insert("v1.1.0".to_owned(), digest("a"));
        assert_eq!(moved(&all, &now), Some(&"v1.1.0".to_owned()));
        let new = BTreeMap::from([("v1.3.0".to_owned(), digest("a"))]);
        assert_eq!(moved(&all, &new), Some(&"v1.3.0".to_owned()));
    }
}
