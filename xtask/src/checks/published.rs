//! Published: what a registry was asked about the images that are pinned.

use super::Rule;
use crate::model::finding::Finding;
use crate::model::kustomization::ImageEntry;
use crate::model::source::Place;
use crate::model::world::World;

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[Rule {
    code: "image-published",
    about: "With --online: a pinned image is in the registry, and its tag names the pinned digest.",
    why: "The kubelet pulls nothing (ImagePullBackOff), or the tag and the digest are two different programs.",
    breaks: (
        "argocd/manifests/job/kustomization.yaml",
        "newTag: v1.0.0-nix",
        "newTag: v1.0.0-nix\n    digest: sha256:0000000000000000000000000000000000000000000000000000000000000000",
    ),
    check: published,
}];

/// One pin of an image of ours.
pub(crate) struct Pin<'a> {
    image: &'a str,
    /// The repository as its registry knows it.
    repository: String,
    entry: &'a ImageEntry,
    place: Place,
}

impl Pin<'_> {
    /// What to ask for: the repository, and the tag, or the digest where there is no tag.
    pub(crate) fn wanted(&self) -> (String, String) {
        let reference = self.entry.tag().or(self.entry.digest()).unwrap_or_default();
        (self.repository.clone(), reference.to_owned())
    }
}

/// Every pin of an image under our home that says which one it is.
pub(crate) fn pins(world: &World) -> Vec<Pin<'_>> {
    let Ok(home) = world.repo.home() else { return Vec::new() };
    let prefix = format!("{home}/");
    let entries = world.repo.kustomizations.iter().flat_map(|kustomization| {
        kustomization.images.iter().map(move |entry| (entry, entry.place(&kustomization.source)))
    });
    let own = entries.filter_map(|(entry, place)| {
        let name = entry.image().strip_prefix(&prefix)?;
        let repository = format!("{}/{name}", home.namespace);
        (entry.tag().is_some() || entry.digest().is_some()).then(|| Pin {
            image: entry.image(),
            repository,
            entry,
            place,
        })
    });
    own.collect()
}

fn published(world: &World, findings: &mut Vec<Finding>) {
    for pin in pins(world) {
        let Some(answer) = world.facts.published.get(&pin.wanted()) else { continue };
        let (tag, digest) = (pin.entry.tag(), pin.entry.digest());
        let what = match (answer, tag, digest) {
            (None, Some(tag), _) => format!("the registry has no {}:{tag}", pin.image),
            (None, None, digest) => format!("the registry has no {}@{}", pin.image, digest.unwrap_or_default()),
            (Some(there), Some(tag), Some(pinned)) if there.as_str() != pinned => {
                format!("{tag} is {there} in the registry, and {pinned} is pinned")
            }
            _ => continue,
        };
        let help = if answer.is_none() { "release it, or pin one that was built" } else { "cargo xtask pin sets both" };
        findings.push(Finding::error("image-published", what).at(pin.place).help(help));
    }
}
