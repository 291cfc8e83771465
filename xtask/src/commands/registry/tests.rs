//! Removing, over real HTTP, from a registry in memory.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use stand_in::{RegistryInMemory, Repository};

#[path = "../../../stand-ins/registry.rs"]
mod stand_in;

const NAME: &str = "ops/x";

/// A plan of one repository: what is pushed, what is tagged, who uses what, all by number.
#[derive(Clone, Debug)]
struct Case {
    images: u8,
    /// Each an index of some of the images.
    indexes: Vec<Vec<u8>>,
    /// Each attached to an image or an index, and by what: its own word, or a tag.
    attached: Vec<(u8, bool)>,
    tags: Vec<(Tag, u8)>,
    used_tags: Vec<u8>,
    used_digests: Vec<u8>,
    used_configs: Vec<u8>,
    keep: usize,
    lists_referrers: bool,
}

#[derive(Clone, Debug)]
enum Tag {
    Nix(u8),
    Docker(u8),
    Commit(u8, u8),
    Odd(u8),
}

impl Tag {
    fn text(&self) -> String {
        match self {
            Self::Nix(n) => format!("v1.{n}.0-nix"),
            Self::Docker(n) => format!("v1.{n}.0"),
            Self::Commit(n, sha) => format!("v1.{n}.0-{sha:07x}-nix"),
            Self::Odd(n) => format!("odd-{n}"),
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let tag = prop_oneof![
        4 => (0..30u8).prop_map(Tag::Nix),
        2 => (0..12u8).prop_map(Tag::Docker),
        2 => (0..6u8, 0..3u8).prop_map(|(n, sha)| Tag::Commit(n, sha)),
        1 => (0..3u8).prop_map(Tag::Odd),
    ];
    let few = || proptest::collection::vec(any::<u8>(), 0..3);
    let shape = (
        1..14u8,
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..4), 0..4),
        proptest::collection::vec((any::<u8>(), any::<bool>()), 0..4),
        proptest::collection::vec((tag, any::<u8>()), 1..24),
    );
    (shape, few(), few(), few(), 1..4usize, any::<bool>()).prop_map(
        |((images, indexes, attached, tags), used_tags, used_digests, used_configs, keep, lists_referrers)| Case {
            images,
            indexes,
            attached,
            tags,
            used_tags,
            used_digests,
            used_configs,
            keep,
            lists_referrers,
        },
    )
}

fn config_of(n: usize) -> Digest {
    Digest::of(format!("config {n}").as_bytes())
}

/// Pushes what the case says; the digests in the order of their numbers.
fn push(case: &Case) -> (Repository, Vec<String>) {
    let mut repository = Repository::default();
    let mut digests = Vec::new();
    let pick = |digests: &[String], n: u8| digests[usize::from(n) % digests.len()].clone();
    for n in 0..usize::from(case.images) {
        digests.push(repository.push(&json!({"config": {"digest": config_of(n).as_str()}, "layers": []})));
    }
    let images = digests.clone();
    for (n, children) in case.indexes.iter().enumerate() {
        let children: BTreeSet<String> = children.iter().map(|child| pick(&images, *child)).collect();
        let list: Vec<_> = children.iter().map(|digest| json!({"digest": digest})).collect();
        digests.push(repository.push(&json!({"manifests": list, "annotations": {"n": n}})));
    }
    let subjects = digests.clone();
    for (n, (subject, by_word)) in case.attached.iter().enumerate() {
        let subject = pick(&subjects, *subject);
        if *by_word {
            digests
                .push(repository.push(&json!({"subject": {"digest": subject}, "layers": [], "annotations": {"n": n}})));
        } else {
            let signature = repository.push(&json!({"layers": [], "annotations": {"signature": n}}));
            repository.tags.insert(format!("{}.sig", subject.replace(':', "-")), signature.clone());
            digests.push(signature);
        }
    }
    for (tag, n) in &case.tags {
        repository.tags.insert(tag.text(), pick(&digests, *n));
    }
    (repository, digests)
}

/// The version of a tag, where it is of one kind of build.
type Kind = fn(&Tag) -> Option<u8>;

/// What has to be there afterwards, told in another way than the code under test does: from each use downwards.
struct Needed {
    digests: BTreeSet<String>,
    tags: BTreeMap<String, String>,
}

fn needed(case: &Case, repository: &Repository, digests: &[String], uses: &mut Uses) -> Needed {
    let mut needed = Needed { digests: BTreeSet::new(), tags: BTreeMap::new() };
    let tags: Vec<(&String, &String)> = repository.tags.iter().collect();
    for n in &case.used_tags {
        let (tag, digest) = tags[usize::from(*n) % tags.len()];
        uses.add_tag(NAME, tag, "a test");
        needed.digests.insert(digest.clone());
        needed.tags.insert(tag.clone(), digest.clone());
    }
    for n in &case.used_digests {
        let digest = &digests[usize::from(*n) % digests.len()];
        uses.add_digest(digest.parse().unwrap(), "a test");
        needed.digests.insert(digest.clone());
    }
    for n in &case.used_configs {
        let n = usize::from(*n) % usize::from(case.images);
        uses.add_digest(config_of(n), "a test");
        needed.digests.insert(digests[n].clone());
    }
    // The newest of each kind of build, as often as was asked for.
    let kinds: [Kind; 3] = [
        |tag| if let Tag::Nix(n) = tag { Some(*n) } else { None },
        |tag| if let Tag::Docker(n) = tag { Some(*n) } else { None },
        |tag| if let Tag::Commit(n, _) = tag { Some(*n) } else { None },
    ];
    for kind in kinds {
        let mut versions: Vec<u8> = case.tags.iter().filter_map(|(tag, _)| kind(tag)).collect();
        versions.sort_unstable();
        versions.dedup();
        let newest = versions.len().saturating_sub(case.keep);
        for (tag, _) in case.tags.iter().filter(|(tag, _)| kind(tag).is_some_and(|n| versions[newest..].contains(&n))) {
            let digest = repository.tags[&tag.text()].clone();
            needed.tags.insert(tag.text(), digest.clone());
            needed.digests.insert(digest);
        }
    }
    // What is needed to run it, and what vouches for it.
    loop {
        let mut more = BTreeSet::new();
        for digest in &needed.digests {
            more.extend(repository.named(digest, "manifests"));
            let signature = format!("{}.sig", digest.replace(':', "-"));
            more.extend(repository.tags.get(&signature).cloned());
            if case.lists_referrers {
                let attached = |other: &&String| repository.named(other, "subject").contains(digest);
                more.extend(repository.manifests.keys().filter(attached).cloned());
            }
        }
        if more.is_subset(&needed.digests) {
            return needed;
        }
        needed.digests.extend(more);
    }
}

fn registry(server: &RegistryInMemory) -> Registry {
    Registry::new(server.url.parse().unwrap(), None)
}

fn clean(registry: &Registry, uses: &Uses, keep: usize) -> Result<usize> {
    let judged = judge(registry, NAME.to_owned(), uses, (&uses.digests().cloned().collect(), keep))?;
    let mut count = 0;
    remove(registry, &judged, &mut |_, _| count += 1)?;
    Ok(count)
}

/// 1,000 random repositories with shared digests, indexes and attestations: nothing that anything uses is removed, all
/// that is kept is whole, what is removed is really unused, and a second run has nothing to do.
#[test]
fn no_digest_that_anything_uses_is_removed_in_1000_random_cases() {
    let server = RegistryInMemory::start();
    let registry = registry(&server);
    let (mut removed, mut shared) = (0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    });
    let counts = std::cell::RefCell::new((&mut removed, &mut shared));
    let run = runner.run(&cases(), |case| {
        let (repository, digests) = push(&case);
        let mut uses = Uses::default();
        let needed = needed(&case, &repository, &digests, &mut uses);
        {
            let mut state = server.state();
            state.repositories.insert(NAME.to_owned(), repository.clone());
            state.lists_referrers = case.lists_referrers.then(|| NAME.to_owned()).into_iter().collect();
        }
        let count = clean(&registry, &uses, case.keep).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let after = server.state().repositories[NAME].clone();
        for digest in &needed.digests {
            prop_assert!(after.manifests.contains_key(digest), "{} was needed", digest);
        }
        for (tag, digest) in &needed.tags {
            prop_assert_eq!(after.tags.get(tag), Some(digest));
        }
        for (tag, digest) in &repository.tags {
            prop_assert!(!tag.starts_with("odd-") || after.tags.get(tag) == Some(digest), "{} is not judged", tag);
        }
        for digest in after.tags.values().chain(&needed.digests) {
            let is_whole = after.named(digest, "manifests").iter().all(|child| after.manifests.contains_key(child));
            prop_assert!(is_whole, "{} has lost a part", digest);
        }
        prop_assert_eq!(repository.manifests.len() - after.manifests.len(), count);
        let again = clean(&registry, &uses, case.keep).map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert_eq!(again, 0, "a second run has nothing to do");
        let mut counts = counts.borrow_mut();
        *counts.0 += count;
        let distinct: BTreeSet<_> = repository.tags.values().collect();
        *counts.1 += usize::from(distinct.len() < repository.tags.len());
        Ok(())
    });
    run.unwrap();
    assert!(removed > 1000 && shared > 500, "{removed} manifests were removed, {shared} cases had shared digests");
}

fn old_and_new(server: &RegistryInMemory) -> Vec<String> {
    let mut repository = Repository::default();
    let digests: Vec<String> =
        (0..4).map(|n| repository.push(&json!({"config": {"digest": config_of(n).as_str()}, "layers": []}))).collect();
    for (n, digest) in digests.iter().enumerate() {
        repository.tags.insert(format!("v1.{n}.0-nix"), digest.clone());
    }
    server.state().repositories.insert(NAME.to_owned(), repository);
    digests
}

#[test]
fn a_tag_that_comes_meanwhile_stops_it() {
    let server = RegistryInMemory::start();
    let digests = old_and_new(&server);
    // After the first removal somebody releases what was to go next.
    server.state().rival = Some((1, |state| {
        let repository = state.repositories.get_mut(NAME).unwrap();
        let left = repository.tags.values().next().unwrap().clone();
        repository.tags.insert("v2.0.0-nix".to_owned(), left);
    }));
    let error = clean(&registry(&server), &Uses::default(), 1).unwrap_err();
    assert!(error.to_string().contains("ops/x:v2.0.0-nix has come or moved since it was looked at"), "{error}");
    let state = server.state();
    assert_eq!(state.deleted.len(), 1);
    assert!(state.repositories[NAME].manifests.len() == 3 && digests.len() == 4);
}

#[test]
fn a_registry_that_removes_nothing_says_how_it_would() {
    let server = RegistryInMemory::start();
    old_and_new(&server);
    server.state().is_read_only = true;
    let error = clean(&registry(&server), &Uses::default(), 1).unwrap_err().downcast::<Failure>().unwrap();
    assert!(error.summary.contains("405") && error.next.as_ref().unwrap().contains("storage.delete.enabled"));
    assert_eq!(server.state().repositories[NAME].manifests.len(), 4);
}

#[test]
fn what_has_lost_its_tags_is_found_by_what_git_has_pinned() {
    let server = RegistryInMemory::start();
    let digests = old_and_new(&server);
    let digest: Digest = digests[0].parse().unwrap();
    server.state().repositories.get_mut(NAME).unwrap().tags.remove("v1.0.0-nix");
    let registry = registry(&server);
    let judge = |pinned: &[&Digest]| {
        let pinned = pinned.iter().map(|digest| (*digest).clone()).collect();
        let judged = judge(&registry, NAME.to_owned(), &Uses::default(), (&pinned, 3)).unwrap();
        judged.decision.removed.into_iter().map(|one| one.digest).collect::<Vec<_>>()
    };
    assert_eq!(judge(&[]), Vec::<Digest>::new());
    assert_eq!(judge(&[&digest, &Digest::of(b"never there")]), [digest]);
}
