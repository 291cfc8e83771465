//! Moves every kustomization that uses an image to one tag and digest.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::model::digest::Digest;
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::model::kustomization::Kustomization;
use crate::model::name::ContainerName;
use crate::model::plan::Change;
use crate::model::repo::{Container, Repo};
use crate::model::tag::{BuildKind, ImageTag};
use crate::model::version::Version;
use crate::report::{Outcome, diff};

/// Set tag and digest in every kustomization that uses an image
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask pin authentik v1.0.1\n  cargo xtask pin authentik v1.0.1 --dry-run")]
pub(crate) struct Args {
    /// Which container
    pub(crate) name: ContainerName,
    /// Which version, vX.Y.Z; the registry must have it
    pub(crate) version: Version,
    /// Print the change as a command, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let container = cx.container(&args.name)?;
    let home = cx.home()?;
    let tag = ImageTag::release(args.version, pinned_kind(&cx.repo, container, &home.image(&args.name)));
    let registry = cx.registry()?;
    let manifest =
        Context::leaving(registry.manifest(&home.repository(&args.name), &tag.to_string()), "nothing was changed")?;
    let missing = || {
        Failure::refused(format!(
            "{} has no {}:{tag}; nothing was changed",
            registry.endpoint,
            home.repository(&args.name)
        ))
        .next(format!("cargo xtask release {} {}", args.name, args.version))
    };
    let digest = manifest.ok_or_else(missing)?.digest;
    let edits = edits(&cx.repo, &home.image(&args.name), &tag, &digest)
        .map_err(|findings| Failure::of_findings("nothing was pinned", findings))?;
    if args.dry_run {
        return Ok(super::build::commands(cx, edits.iter().map(patch)));
    }
    Context::leaving(apply(cx, &edits), "each file is pinned or as it was")?;
    let changed: Vec<&str> = edits.iter().map(|edit| edit.path.as_str()).collect();
    let human = if edits.is_empty() {
        format!("{} is pinned to {tag} already", args.name)
    } else {
        format!("pinned {} to {tag} ({})", args.name, digest.short())
    };
    Ok(Outcome::ok(
        human,
        json!({"image": home.image(&args.name), "tag": tag.to_string(), "digest": digest.as_str(), "changed": changed}),
    ))
}

/// Writes the files and shows what changed.
pub(crate) fn apply(cx: &Context, edits: &[Change]) -> Result<()> {
    for edit in edits {
        cx.write(&edit.path, &edit.after)?;
        cx.report.say(diff(&edit.path, &edit.before, &edit.after).trim_end());
    }
    Ok(())
}

/// A command that makes the edit.
pub(crate) fn patch(edit: &Change) -> String {
    format!("git apply <<'PATCH'\n{}PATCH", diff(&edit.path, &edit.before, &edit.after))
}

/// The changes that pin `image`; none where all is pinned already.
///
/// # Errors
/// Every reason why not all users can be moved together.
pub(crate) fn edits(repo: &Repo, image: &str, tag: &ImageTag, digest: &Digest) -> Result<Vec<Change>, Vec<Finding>> {
    check(repo, image)?;
    let users: BTreeMap<&str, &Kustomization> = repo
        .users(image)
        .entries
        .into_iter()
        .map(|(kustomization, _)| (&*kustomization.source.path, kustomization))
        .collect();
    let mut edits = Vec::new();
    let mut findings = Vec::new();
    for (path, kustomization) in users {
        match kustomization.pinned(image, tag, digest) {
            Ok(after) if *after == *kustomization.source.text => {}
            Ok(after) => {
                edits.push(Change { path: path.to_owned(), before: kustomization.source.text.to_string(), after });
            }
            Err(finding) => findings.push(*finding),
        }
    }
    if findings.is_empty() { Ok(edits) } else { Err(findings) }
}

/// Can `image` be pinned at all?
///
/// # Errors
/// A use without an entry, or no use.
pub(crate) fn check(repo: &Repo, image: &str) -> Result<(), Vec<Finding>> {
    let users = repo.users(image);
    let mut findings: Vec<Finding> = repo.findings.clone();
    findings.extend(users.unpinned.iter().map(|used| {
        Finding::error("no-image-entry", format!("no kustomization pins {image}, which is used here"))
            .at(used.place.clone())
            .help(format!("add to the kustomization of {}:\nimages:\n  - name: {image}", used.place.source.folder()))
    }));
    if users.entries.is_empty() && findings.is_empty() {
        findings.push(
            Finding::error("no-image-entry", format!("no kustomization has an entry for {image}"))
                .help(format!("add to the kustomization that uses it:\nimages:\n  - name: {image}")),
        );
    }
    if findings.is_empty() { Ok(()) } else { Err(findings) }
}

/// The kind of build that is in use, or the container's first.
pub(crate) fn pinned_kind(repo: &Repo, container: &Container, image: &str) -> BuildKind {
    let pinned = repo
        .users(image)
        .entries
        .iter()
        .find_map(|(_, entry)| entry.tag()?.parse::<ImageTag>().ok())
        .map(|tag| tag.kind);
    pinned.filter(|kind| container.kinds.contains(kind)).or(container.kinds.first().copied()).unwrap_or(BuildKind::Nix)
}
