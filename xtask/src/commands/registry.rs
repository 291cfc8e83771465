//! The registry: sending what was built, and removing what nothing uses any more.

mod asked;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use anyhow::Result;
use serde_json::{Value, json};

use self::asked::Asked;
use super::Context;
use super::publish::image::Image;
use super::publish::{self, Missing, Pushed};
use crate::model::cleaning::{self, Decision, Holdings, Removal};
use crate::model::digest::Digest;
use crate::model::failure::Failure;
use crate::model::image::Home;
use crate::model::name::ContainerName;
use crate::model::uses::Uses;
use crate::registry::{Registry, Removed};
use crate::report::{Outcome, bytes, table};
use crate::tools::curl;

/// Look after the registry of our images
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// List the manifests that nothing uses, and remove them with --delete
    ///
    /// Asks this checkout, every branch here and on the remote, main's history and every cluster first; without all of
    /// their answers nothing is listed and nothing removed.
    #[command(
        after_help = "Examples:\n  cargo xtask registry clean\n  cargo xtask registry clean authentik --keep 3\n  cargo xtask registry clean --dry-run\n  cargo xtask registry clean --delete"
    )]
    Clean(Clean),
    /// Push what nix-build has left, as publish does
    ///
    /// Layers that the registry has are neither read nor sent. A tag that names another image is not moved.
    #[command(
        after_help = "Examples:\n  cargo xtask registry push \"$(nix-build --no-out-link containers/redis -A stream.conf)\" blumeops/redis:v1.0.0-nix\n  cargo xtask registry push \"$(nix-build --no-out-link containers/redis)\" blumeops/redis:v1.0.0-nix --dry-run"
    )]
    Push(Push),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Push {
    /// A store path: the list of an image's layers, stream.conf, or its archive
    pub(crate) built: String,
    /// Where to, as <repository>:<tag>
    #[arg(value_name = "IMAGE")]
    pub(crate) to: Place,
    /// Ask the registry what it has and say what would be sent, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// A repository of the registry and a tag in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) repository: String,
    pub(crate) tag: String,
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shape = "expected <repository>:<tag>, as in blumeops/redis:v1.0.0-nix";
        let (repository, tag) = text.split_once(':').ok_or(shape)?;
        let plain = |text: &str, more: &[char]| {
            let fine = |c: char| c.is_ascii_alphanumeric() || ['.', '_', '-'].contains(&c) || more.contains(&c);
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fine)
        };
        let lower = !repository.contains(|c: char| c.is_ascii_uppercase());
        if plain(repository, &['/']) && lower && plain(tag, &[]) {
            Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
        } else {
            Err(shape.to_owned())
        }
    }
}

#[derive(clap::Args, Debug)]
pub(crate) struct Clean {
    /// Only these containers; default: everything below our namespace
    pub(crate) names: Vec<ContainerName>,
    /// How many stay of each: of the newest releases, and of main's last pins
    #[arg(long, value_name = "COUNT", default_value = "5")]
    pub(crate) keep: NonZeroUsize,
    /// Remove what is listed
    #[arg(long)]
    pub(crate) delete: bool,
    /// Print the commands that would remove it, do nothing
    #[arg(long, conflicts_with = "delete")]
    pub(crate) dry_run: bool,
}

/// A repository of the registry, and what is to become of it.
struct Judged {
    repository: String,
    holdings: Holdings,
    decision: Decision,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    match &args.command {
        Command::Clean(args) => clean(cx, args),
        Command::Push(args) => push(cx, args),
    }
}

fn push(cx: &Context, args: &Push) -> Result<Outcome> {
    let Place { repository, tag } = &args.to;
    let registry = cx.registry()?;
    let image = Image::read(&args.built)?.ok_or_else(|| {
        Failure::refused(format!("{}: its layers alone do not make the image", args.built)).next("push its archive")
    })?;
    if args.dry_run {
        let Missing { layers, size } = publish::missing(cx, &registry, repository, tag, &image)?;
        let human = format!("{layers} of {} layers would be read and sent, {}", image.layers.len(), bytes(size));
        return Ok(Outcome::ok(
            human,
            json!({"dry_run": true, "layers": image.layers.len(), "missing": layers, "size": size}),
        ));
    }
    let Pushed { manifest, image_id, sent } = publish::push(cx, &registry, repository, tag, &image)?;
    let human = format!("{}/{repository}:{tag}@{}", registry.endpoint.authority, manifest.digest);
    Ok(Outcome::ok(human, json!({"digest": manifest.digest.as_str(), "image_id": image_id.as_str(), "sent": sent})))
}

fn clean(cx: &Context, args: &Clean) -> Result<Outcome> {
    Context::preflight(&["git", "kubectl"])?;
    let (home, registry) = (cx.home()?, cx.registry()?);
    let keep = args.keep.get();
    let repositories = repositories(cx, &registry, &home, &args.names)?;
    let asked = asked::everybody(cx, &home, keep)?;
    let mut stage = cx.report.stage("registry");
    let mut all = Vec::new();
    // What has lost its tag, and may be used, or be a part of what is.
    let known: BTreeSet<Digest> = asked.pinned.iter().chain(asked.uses.digests()).cloned().collect();
    for repository in repositories {
        stage.update(&repository);
        Context::pause_point("nothing was removed")?;
        all.push(judge(&registry, repository, &asked.uses, (&known, keep))?);
    }
    let manifests: usize = all.iter().map(|judged| judged.holdings.manifests.len()).sum();
    if manifests == 0 {
        return Err(Failure::refused(format!(
            "nothing was judged: {} has no manifest below {home}",
            registry.endpoint
        ))
        .into());
    }
    stage.done(&format!("{manifests} manifests in {} repositories", all.len()));
    if args.dry_run {
        let removals =
            all.iter().flat_map(|judged| judged.decision.removed.iter().map(|one| (&judged.repository, one)));
        let lines =
            removals.map(|(repository, one)| curl::delete(&registry.manifest_url(repository, &one.digest)).to_string());
        return Ok(super::build::commands(cx, lines));
    }
    let removed = if args.delete { remove_all(cx, &registry, &all)? } else { 0 };
    Ok(outcome(cx, args, (&all, removed), &asked))
}

/// What there is to judge: what the registry lists below our namespace, or the containers of this checkout where it
/// lists nothing.
fn repositories(cx: &Context, registry: &Registry, home: &Home, names: &[ContainerName]) -> Result<BTreeSet<String>> {
    if !names.is_empty() {
        return Ok(names.iter().map(|name| home.repository(name)).collect());
    }
    let below = format!("{}/", home.namespace);
    if let Some(all) = registry.repositories()? {
        return Ok(all.into_iter().filter(|name| name.starts_with(&below)).collect());
    }
    cx.report.say("the registry does not list its repositories: only the containers of this checkout are judged");
    Ok(cx.repo.containers.iter().map(|container| home.repository(&container.name)).collect())
}

/// Looks at a repository and decides. `known` are digests that somebody knows, which no tag may lead to any more.
fn judge(
    registry: &Registry,
    repository: String,
    uses: &Uses,
    (known, keep): (&BTreeSet<Digest>, usize),
) -> Result<Judged> {
    let holdings = registry.holdings(&repository, known)?;
    let decision = cleaning::decide(&repository, &holdings, uses, keep);
    Ok(Judged { repository, holdings, decision })
}

fn remove_all(cx: &Context, registry: &Registry, all: &[Judged]) -> Result<usize> {
    let total: usize = all.iter().map(|judged| judged.decision.removed.len()).sum();
    let (mut count, mut stage) = (0, cx.report.stage("remove"));
    for judged in all {
        let mut tell = |removal: &Removal, removed: Removed| {
            count += 1;
            let already = if removed == Removed::Before { ", which was gone already" } else { "" };
            stage.update(&format!("{count} of {total}: {}@{}{already}", judged.repository, removal.digest.short()));
        };
        if let Err(error) = remove(registry, judged, &mut tell) {
            let failure = error.downcast::<Failure>()?;
            let left = format!("{count} of {total} manifests are removed, all others are as they were");
            let next =
                failure.next.clone().unwrap_or_else(|| "the same command again looks again and goes on".to_owned());
            return Err(failure.left(left).next(next).into());
        }
    }
    stage.done(&format!("{count} manifests removed, each looked for afterwards"));
    Ok(count)
}

/// Removes what was decided. Before each removal the tags are asked for again: one that has come or moved since makes
/// the decision void.
fn remove(registry: &Registry, judged: &Judged, tell: &mut dyn FnMut(&Removal, Removed)) -> Result<()> {
    let Judged { repository, holdings, decision } = judged;
    for removal in &decision.removed {
        Context::pause_point("")?;
        let now = registry.tagged(repository)?;
        if let Some(tag) = cleaning::moved(holdings, &now) {
            let failure = Failure::refused(format!("{repository}:{tag} has come or moved since it was looked at"));
            return Err(failure.next("the same command again looks again").into());
        }
        let removed = registry.remove(repository, &removal.digest)?;
        tell(removal, removed);
    }
    Ok(())
}

fn outcome(cx: &Context, args: &Clean, (all, removed): (&[Judged], usize), asked: &Asked) -> Outcome {
    let mut rows = Vec::new();
    let mut kept = String::new();
    for Judged { repository, holdings, decision } in all {
        for removal in &decision.removed {
            let tags = if removal.tags.is_empty() { "-".to_owned() } else { removal.tags.join(" ") };
            rows.push(vec![repository.clone(), removal.digest.short().to_owned(), tags]);
        }
        for (digest, reason) in decision.kept.iter().filter(|_| cx.system.verbosity > 0) {
            let tags = holdings.tags_of(digest).join(" ");
            kept += &format!("kept {repository}@{} {tags}: {reason}\n", digest.short());
        }
    }
    let unused = rows.len();
    let manifests: usize = all.iter().map(|judged| judged.holdings.manifests.len()).sum();
    let mut human = kept;
    if unused > 0 {
        human += &table(&["REPOSITORY", "NOTHING USES", "TAGS"], &rows);
    }
    human += &format!("{manifests} manifests in {} repositories; nothing uses {unused}\n", all.len());
    human += &format!("asked: {}\n", asked.who.join(", "));
    human += match (unused, args.delete) {
        (0, _) => "",
        (_, true) => "they are removed; the registry's own garbage collection frees the space\n",
        (_, false) => "nothing was removed; --delete does\n",
    };
    let list: Vec<Value> = all.iter().map(value).collect();
    Outcome::ok(
        human,
        json!({"repositories": list, "manifests": manifests, "unused": unused, "removed": removed, "asked": asked.who}),
    )
}

fn value(judged: &Judged) -> Value {
    let Judged { repository, holdings, decision } = judged;
    let kept = decision.kept.iter();
    let kept: Vec<Value> = kept
        .map(|(digest, reason)| json!({"digest": digest.as_str(), "tags": holdings.tags_of(digest), "reason": reason}))
        .collect();
    let unused = decision.removed.iter();
    let unused: Vec<Value> = unused.map(|one| json!({"digest": one.digest.as_str(), "tags": one.tags})).collect();
    json!({"name": repository, "kept": kept, "unused": unused})
}
