//! Images: ours exist, are pinned, and were released.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::model::config;
use crate::model::finding::Finding;
use crate::model::image::{Home, split_reference};
use crate::model::kustomization::ImageEntry;
use crate::model::name::ContainerName;
use crate::model::source::Place;
use crate::model::tag::{GitTag, ImageTag};
use crate::model::world::{App, World};
use crate::model::yaml::Node;

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "image-floating",
        about: "A workload names an image that stays the same: a version, not `latest` and not a placeholder.",
        why: "What runs changes with the next restart, or never starts because no such image exists.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "    newTag: v1.0.0-nix\n", ""),
        check: floating,
    },
    Rule {
        code: "image-unknown",
        about: "An image under our own registry and namespace has a folder in containers/.",
        why: "Nothing builds it, so nothing can be pulled.",
        breaks: ("argocd/manifests/web/deployment.yaml", "blumeops/web:kustomized", "blumeops/wep:v1.0.0"),
        check: unknown,
    },
    Rule {
        code: "image-tag",
        about: "The pinned tag of one of our images is a release, vX.Y.Z or vX.Y.Z-nix.",
        why: "No release brings another tag into the registry.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "v1.0.0-nix", "1.0.0-nix"),
        check: tag_grammar,
    },
    Rule {
        code: "image-not-released",
        about: "The pinned tag of one of our images has its release tag in git.",
        why: "A pin to a tag that was never released is a pod that never starts.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "v1.0.0-nix", "v1.0.9-nix"),
        check: not_released,
    },
    Rule {
        code: "image-unpinned",
        about: "One of our images is used where an entry of a kustomization pins it.",
        why: "A release moves the entries; a tag in a manifest stays behind.",
        breaks: (
            "argocd/manifests/web/kustomization.yaml",
            "  - name: registry.example/blumeops/web\n    newTag: v1.0.0-nix\n",
            "  - name: other\n    newTag: v1\n",
        ),
        check: unpinned,
    },
    Rule {
        code: "image-users-disagree",
        about: "All users of one of our images pin the same tag.",
        why: "One of them was forgotten.",
        breaks: ("argocd/manifests/job/kustomization.yaml", "newTag: v1.0.0-nix", "newTag: v0.9.0-nix"),
        check: users_disagree,
    },
];

fn floating(world: &World, findings: &mut Vec<Finding>) {
    for (app, object) in world.objects() {
        let pinned = pinned_by(app);
        for image in object.containers().into_iter().filter_map(|container| container.get("image")) {
            let Some(reference) = image.text().filter(|reference| !reference.contains('@')) else { continue };
            let (name, tag) = split_reference(reference);
            if pinned.contains(&name) {
                continue;
            }
            let what = match tag {
                None => format!("{name} has no tag, which means latest"),
                Some("latest") => format!("{name} is at latest"),
                Some(tag @ ("kustomized" | "placeholder" | "TODO" | "CHANGEME")) => {
                    format!("{name} is at the placeholder `{tag}`: no kustomization pins it")
                }
                Some(_) => continue,
            };
            findings.push(Finding::error("image-floating", what).at(image.place()));
        }
    }
}

/// The images to which an Application itself gives another tag or name.
fn pinned_by(app: &App) -> Vec<&str> {
    let images = app.node.path(&["spec", "source", "kustomize", "images"]).map_or(&[][..], Node::items);
    let name = |image: &'_ str| split_reference(image.split('=').next().unwrap_or(image)).0.len();
    images.iter().filter_map(Node::text).map(|image| &image[..name(image)]).collect()
}

/// The container that `image` would be of, if it is under our home.
fn own<'a>(world: &World, image: &'a str) -> Option<(Home, &'a str)> {
    let home = world.repo.home().ok()?;
    let name = image.strip_prefix(&format!("{home}/"))?;
    Some((home, name))
}

/// Every image that bears our home's name: what follows it, and where it is named.
fn own_images(world: &World) -> Vec<(String, Place)> {
    let entries = world.repo.kustomizations.iter().flat_map(|kustomization| {
        kustomization.images.iter().map(move |entry| (entry.image(), entry.place(&kustomization.source)))
    });
    let uses = world.repo.uses.iter().map(|used| (used.image.as_str(), used.place.clone()));
    let own = |(image, place)| own(world, image).map(|(_, name)| (name.to_owned(), place));
    entries.chain(uses).filter_map(own).collect()
}

fn unknown(world: &World, findings: &mut Vec<Finding>) {
    let known = || world.repo.containers.iter().map(|container| container.name.as_str());
    // A repository without any has its images built elsewhere.
    for (name, place) in own_images(world).into_iter().filter(|_| !world.repo.containers.is_empty()) {
        if !known().any(|known| known == name) {
            let finding = Finding::error("image-unknown", format!("there is no containers/{name}")).at(place);
            findings.push(finding.did_you_mean(&name, known()));
        }
    }
}

/// What can't be known of our images where what they are built from is not here.
pub(super) fn unbuilt(world: &World) -> Option<String> {
    let names: BTreeSet<String> = own_images(world).into_iter().map(|(name, _)| name).collect();
    let is_unknown = world.repo.containers.is_empty() && !names.is_empty();
    is_unknown.then(|| format!("what {} images of ours are built from: there is no containers/", names.len()))
}

/// The pins of our images: container, tag and where it is written.
fn pins(world: &World) -> Vec<(ContainerName, &ImageEntry, String, Place)> {
    let mut pins = Vec::new();
    for kustomization in &world.repo.kustomizations {
        for entry in &kustomization.images {
            let name = own(world, entry.image()).and_then(|(_, name)| name.parse::<ContainerName>().ok());
            if let (Some(name), Some(tag)) = (name, entry.tag())
                && world.repo.container(&name).is_ok()
            {
                pins.push((name, entry, tag.to_owned(), entry.place(&kustomization.source)));
            }
        }
    }
    pins
}

fn tag_grammar(world: &World, findings: &mut Vec<Finding>) {
    let pins = pins(world);
    let wrong = pins.iter().filter_map(|(_, _, tag, place)| Some((tag.parse::<ImageTag>().err()?, place)));
    let wrong: Vec<_> = wrong.collect();
    // Who has not taken up this tool may number in another way.
    let is_foreign = world.repo.file(config::PATH).is_none() && wrong.len() * 2 > pins.len();
    for (why, place) in wrong.into_iter().filter(|_| !is_foreign) {
        findings.push(Finding::error("image-tag", why).at(place.clone()));
    }
}

fn not_released(world: &World, findings: &mut Vec<Finding>) {
    let Some(tags) = &world.facts.tags else { return };
    for (container, _, tag, place) in pins(world) {
        let Ok(image_tag) = tag.parse::<ImageTag>() else { continue };
        let git_tag = GitTag { container, version: image_tag.version };
        if !tags.contains(&git_tag) {
            let message = format!("there is no tag {git_tag} in git");
            findings
                .push(Finding::error("image-not-released", message).at(place).help("git fetch --tags, or release it"));
        }
    }
}

fn unpinned(world: &World, findings: &mut Vec<Finding>) {
    let Ok(home) = world.repo.home() else { return };
    // Who has not taken up this tool may write tags into manifests, all of them.
    if world.repo.file(config::PATH).is_none() && pins(world).is_empty() {
        return;
    }
    for container in &world.repo.containers {
        for used in world.repo.users(&home.image(&container.name)).unpinned {
            let message = format!("{} is used without an entry that pins it", container.name);
            let help = format!("add `- name: {}` under images in the kustomization", home.image(&container.name));
            findings.push(Finding::error("image-unpinned", message).at(used.place.clone()).help(help));
        }
    }
}

fn users_disagree(world: &World, findings: &mut Vec<Finding>) {
    let mut first = BTreeMap::<ContainerName, (String, Place)>::new();
    for (container, _, tag, place) in pins(world) {
        match first.get(&container) {
            Some((other, there)) if *other != tag => {
                let message = format!("{container} is pinned to {tag} here and to {other} elsewhere");
                findings
                    .push(Finding::error("image-users-disagree", message).at(place).also(there.clone(), "pinned here"));
            }
            Some(_) => {}
            None => drop(first.insert(container, (tag, place))),
        }
    }
}
