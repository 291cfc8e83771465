//! The release transaction: preflight, tag, build, verify, pin. Every step asks reality first whether it is done.

mod gather;
mod wait;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::build;
use super::publish::image::Image;
use super::{Context, pin, publish};
use crate::checks::{image, release::Choice};
use crate::exec::lock;
use crate::exec::run::Output;
use crate::model::failure::Failure;
use crate::model::image::Declared;
use crate::model::name::ContainerName;
use crate::model::repo::Container;
use crate::model::tag::{BuildKind, GitTag, ImageTag};
use crate::model::version::{Bump, Version};
use crate::registry::{Manifest, Registry};
use crate::report::Outcome;
use crate::tools::{Invocation, git, skopeo};
use gather::Facts;

/// Release a container: tag, wait for its image, verify it, pin it
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without a version the newest unfinished release is finished, or the next patch version is released.\n\nExamples:\n  cargo xtask release authentik\n  cargo xtask release authentik v1.1.0 --commit\n  cargo xtask release redis --bump minor --dry-run\n  cargo xtask release redis --here        # CI is down"
)]
pub(crate) struct Args {
    /// Which container
    pub(crate) name: ContainerName,
    /// Which version, vX.Y.Z
    #[arg(conflicts_with = "bump")]
    pub(crate) version: Option<Version>,
    /// Release the next version of this kind
    #[arg(long)]
    pub(crate) bump: Option<Bump>,
    /// Build and push on this machine instead of waiting for the forge
    #[arg(long)]
    pub(crate) here: bool,
    /// How long to wait for the image, as 90s, 30m or 2h
    #[arg(long, default_value = "60m", value_parser = duration)]
    pub(crate) wait: Duration,
    /// Commit the pin; main is never pushed
    #[arg(long)]
    pub(crate) commit: bool,
    /// Release a commit that is not on the remote's main, or behind it; the tag's message says so
    #[arg(long)]
    pub(crate) allow_branch: bool,
    /// Do not pin: nothing uses the image yet
    #[arg(long)]
    pub(crate) no_pin: bool,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// One release, decided.
struct Release<'a> {
    cx: &'a Context,
    args: &'a Args,
    container: &'a Container,
    registry: Registry,
    repository: String,
    image: String,
    tag: GitTag,
    image_tag: String,
    facts: Facts,
    declared: Declared,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let container = cx.container(&args.name)?;
    let mut programs = vec!["git"];
    programs.extend((!args.dry_run).then_some("nix-instantiate"));
    programs.extend((args.here && !args.dry_run).then_some("nix-build"));
    Context::preflight(&programs)?;
    let _lock = if args.dry_run { None } else { Some(one_at_a_time(cx, &args.name)?) };
    let home = cx.home()?;
    let (registry, repository, image) = (cx.registry()?, home.repository(&args.name), home.image(&args.name));
    let stage = cx.report.stage("check");
    let gathered = gather::preflight(cx, args, container, &registry);
    let (choice, facts, declared) = Context::leaving(gathered, "nothing was tagged, pushed or changed")?;
    let Choice { version, resumes } = choice;
    let tag = GitTag { container: args.name.clone(), version };
    let remark = match (resumes, facts.commit == facts.head) {
        (true, _) => " (unfinished or done before)".to_owned(),
        (false, true) => String::new(),
        (false, false) => format!(" at {}'s {}", cx.repo.config.forge.remote, cx.repo.config.forge.branch),
    };
    stage.done(&format!("{tag}{remark}"));
    let image_tag = ImageTag::release(version, pin::pinned_kind(&cx.repo, container, &image)).to_string();
    let release = Release { cx, args, container, registry, repository, image, tag, image_tag, facts, declared };
    if args.dry_run {
        return Ok(build::commands(cx, release.command_lines().into_iter()));
    }
    release.perform()
}

/// Only one release of a container runs in one clone; the remote decides between clones.
fn one_at_a_time(cx: &Context, name: &ContainerName) -> Result<lock::Lock> {
    let folder =
        Context::leaving(cx.system.stdout(&git::common_dir(), "this is not a git checkout"), "nothing was done")?;
    let path = std::path::Path::new(folder.trim()).join(format!("xtask-release-{name}.lock"));
    let taken = lock::take(&path).map_err(|error| {
        Failure::environment(format!("can't lock {}: {error}", path.display())).left("nothing was done")
    })?;
    taken.ok_or_else(|| {
        Failure::refused(format!("another release of {name} is running in this clone"))
            .left("nothing was done")
            .next("wait for it; the same command then finishes or reports it")
            .into()
    })
}

impl Release<'_> {
    fn perform(&self) -> Result<Outcome> {
        let tag = &self.tag;
        let built = Context::leaving(self.build_here(), "nothing was tagged, pushed or changed")?;
        self.push_tag()?;
        Context::pause_point(&format!("{tag} is pushed; its image is not checked yet"))?;
        let manifest = Context::leaving(self.image_in_registry(built), &format!("{tag} is pushed; nothing is pinned"))?;
        Context::pause_point(&format!("{tag} is pushed and its image is in the registry; nothing is pinned yet"))?;
        let there = format!("{tag} is pushed and its image is in the registry");
        Context::leaving(self.verify(&manifest), &format!("{there}; nothing is pinned"))?;
        let pinned = Context::leaving(self.pin(&manifest), &format!("{there}; pins may be there in part"))?;
        let reference = format!("{}:{}@{}", self.image, self.image_tag, manifest.digest);
        let rows = [
            vec!["image".to_owned(), format!("{}:{}", self.image, self.image_tag)],
            vec!["digest".to_owned(), manifest.digest.to_string()],
            vec!["tag".to_owned(), format!("{tag} at {}", self.commit())],
            vec!["pinned".to_owned(), if pinned.is_empty() { "nowhere".to_owned() } else { pinned.join(", ") }],
        ];
        let value = json!({"tag": tag.to_string(), "commit": self.commit(), "image": format!("{}:{}", self.image, self.image_tag), "digest": manifest.digest.as_str(), "reference": reference, "pinned": pinned});
        Ok(Outcome::ok(crate::report::table(&["RELEASED", &tag.to_string()], &rows), value))
    }

    fn commit(&self) -> &str {
        self.facts.known.commit(&self.tag).unwrap_or(&self.facts.commit)
    }

    fn message(&self) -> String {
        let branch = if self.facts.on_main {
            String::new()
        } else {
            format!(
                "\n\nNot on the remote's {}: released from {} with --allow-branch.",
                self.cx.repo.config.forge.branch, self.facts.branch
            )
        };
        let nixpkgs = match self.declared.nixpkgs.as_str() {
            "" => String::new(),
            version => format!("\n\nEvaluated with nixpkgs {version}."),
        };
        format!("{} {}{nixpkgs}{branch}", self.container.name, self.tag.version)
    }

    fn push_tag(&self) -> Result<()> {
        let (cx, tag, remote) = (self.cx, &self.tag, &self.cx.repo.config.forge.remote);
        let stage = cx.report.stage("tag");
        if self.facts.known.remote.contains_key(tag) {
            stage.skipped(&format!("{tag} is on {remote} already"));
            return Ok(());
        }
        if !self.facts.known.local.contains_key(tag) {
            let tagged = cx.system.stdout(&git::tag(tag, &self.message(), &self.facts.commit), "tagging");
            Context::leaving(tagged, &format!("nothing was pushed; {tag} may be tagged here"))?;
        }
        let invocation = git::push_tag(remote, tag);
        let interrupted = |error: anyhow::Error| match error.downcast::<Failure>() {
            Ok(failure) => failure
                .left(format!("{tag} is tagged here; whether {remote} has it is not known"))
                .next("the same command again finishes it")
                .into(),
            Err(error) => error,
        };
        let output = cx.system.output(&invocation).map_err(interrupted)?;
        // What it says is not what has happened: the answer may have got lost.
        if !output.success()
            && !Context::leaving(
                self.has_arrived(),
                &format!("{tag} is tagged here; whether {remote} has it is not known"),
            )?
        {
            return Err(self.not_taken(&invocation, &output)?.into());
        }
        stage.done(&format!("{tag} pushed to {remote}"));
        Ok(())
    }

    /// Has the remote the very tag that is here?
    fn has_arrived(&self) -> Result<bool> {
        let (system, forge) = (&self.cx.system, &self.cx.repo.config.forge);
        let name = self.tag.to_string();
        let ours = system.stdout(&git::object_of(&self.tag), "git rev-parse")?;
        let theirs = system.stdout(&git::ls_remote(&forge.remote, &forge.branch, &name), "asking the remote")?;
        Ok(theirs.lines().any(|line| line == format!("{}\trefs/tags/{name}", ours.trim())))
    }

    /// The remote refused it: here it goes too.
    fn not_taken(&self, invocation: &Invocation, output: &Output) -> Result<Failure> {
        let (cx, tag, remote) = (self.cx, &self.tag, &self.cx.repo.config.forge.remote);
        let removed = cx.system.stdout(&git::delete_tag(tag), "removing the local tag");
        Context::leaving(removed, &format!("{remote} did not take {tag}, which may still be tagged here"))?;
        let failure = cx.system.failed(invocation, output, &format!("{remote} did not take {tag}"));
        let next = if output.stderr.contains("already exists") || output.stderr.contains("cannot lock ref") {
            "another release pushed this tag first: run again to follow or succeed it"
        } else {
            "see the message of the remote above, then run again"
        };
        Ok(failure.left("the local tag was removed; nothing else was changed").next(next))
    }

    /// Before the tag: an image that can't be built leaves no tag behind.
    fn build_here(&self) -> Result<Option<Image>> {
        let wanted = self.args.here && !self.facts.in_registry.contains(&self.image_tag);
        wanted.then(|| build::to_push(self.cx, self.container)).transpose()
    }

    fn image_in_registry(&self, built: Option<Image>) -> Result<Manifest> {
        if let Some(manifest) = self.registry.manifest(&self.repository, &self.image_tag)? {
            self.cx
                .report
                .stage("image")
                .skipped(&format!("{}:{} is in the registry already", self.repository, self.image_tag));
            return Ok(manifest);
        }
        match built {
            Some(built) => {
                let pushed = publish::push(self.cx, &self.registry, &self.repository, &self.image_tag, &built);
                pushed.map(|pushed| pushed.manifest)
            }
            None => wait::for_image(self),
        }
    }

    fn verify(&self, manifest: &Manifest) -> Result<()> {
        let stage = self.cx.report.stage("verify");
        let what = format!("{}:{}", self.repository, self.image_tag);
        let refuse = |summary: String| Failure::refused(summary).left("the tag and the image stay; nothing was pinned");
        let config = manifest
            .config
            .as_ref()
            .ok_or_else(|| refuse(format!("{what} is an index of several platforms, not an image")))?;
        let actual = self.registry.config(&self.repository, config)?;
        let clusters = self.cx.repo.clusters_running(&self.image);
        let architectures: Vec<&str> = clusters.iter().map(|cluster| cluster.architecture.as_str()).collect();
        let findings = build::split_notes(self.cx, image::compare(&self.declared, &actual, &architectures));
        if !findings.is_empty() {
            let failure = Failure::of_findings(
                format!("{what} is not what {} declares; nothing was pinned", self.container.expression()),
                findings,
            );
            return Err(failure
                .left("the tag and the image stay")
                .next("find out who pushed it, then release the next version")
                .into());
        }
        let on = if architectures.is_empty() {
            "no cluster is known to run it".to_owned()
        } else {
            format!("for {}", clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>().join(", "))
        };
        stage.done(&format!("entrypoint, user, ports, environment as declared; {} {on}", actual.architecture));
        Ok(())
    }

    fn pin(&self, manifest: &Manifest) -> Result<Vec<String>> {
        if self.args.no_pin {
            return Ok(Vec::new());
        }
        let tag: ImageTag = self.image_tag.parse().map_err(Failure::refused)?;
        let stage = self.cx.report.stage("pin");
        let edits = pin::edits(&self.cx.repo, &self.image, &tag, &manifest.digest)
            .map_err(|findings| Failure::of_findings("the image is released but not pinned", findings))?;
        let users = self.cx.repo.users(&self.image);
        let paths: Vec<String> =
            users.entries.iter().map(|(kustomization, _)| kustomization.source.path.to_string()).collect();
        if edits.is_empty() {
            stage.skipped(&format!("{} at {tag} already", paths.join(", ")));
        } else {
            pin::apply(self.cx, &edits)?;
            stage.done(&format!("{} at {tag}", paths.join(", ")));
        }
        if self.args.commit {
            self.commit_pin(&paths)?;
        }
        Ok(paths)
    }

    fn commit_pin(&self, paths: &[String]) -> Result<()> {
        let stage = self.cx.report.stage("commit");
        let changed = git::parse_status(&self.cx.system.stdout(&git::status(paths), "git status")?);
        if changed.is_empty() {
            stage.skipped("the pin is committed already");
            return Ok(());
        }
        // All of them, however much of its answer git got out: half of the pins is no commit.
        self.cx.system.stdout(&git::commit(&self.commit_message(), paths), "committing the pin")?;
        stage.done("the pin is committed; push it when you are ready");
        Ok(())
    }

    fn commit_message(&self) -> String {
        format!("Pin {} to {}", self.container.name, self.image_tag)
    }

    /// What is still to be done, as commands.
    fn command_lines(&self) -> Vec<String> {
        let (tag, remote) = (&self.tag, &self.cx.repo.config.forge.remote);
        let mut image = Vec::new();
        if !self.facts.in_registry.contains(&self.image_tag) {
            if self.args.here {
                image = publish::command_lines(self.cx, self.container, &self.repository, &self.image_tag);
            } else {
                image.push(skopeo::wait_line(&self.registry.endpoint, &self.repository, &self.image_tag));
            }
        }
        let mut lines: Vec<String> = Vec::new();
        if self.args.here && !image.is_empty() {
            lines.push(image.remove(0)); // the build, before the tag
        }
        if !self.facts.known.remote.contains_key(tag) {
            if !self.facts.known.local.contains_key(tag) {
                lines.push(git::tag(tag, &self.message(), &self.facts.commit).to_string());
            }
            lines.push(git::push_tag(remote, tag).to_string());
        }
        lines.extend(image);
        if !self.args.no_pin {
            lines.push(format!("cargo xtask pin {} {}", self.container.name, self.tag.version));
            if self.args.commit {
                let paths: Vec<String> = self
                    .cx
                    .repo
                    .users(&self.image)
                    .entries
                    .iter()
                    .map(|(kustomization, _)| kustomization.source.path.to_string())
                    .collect();
                lines.push(git::commit(&self.commit_message(), &paths).to_string());
            }
        }
        lines
    }
}

/// `90s`, `30m`, `2h`
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let shape = || "expected a number and s, m or h, as in 30m".to_owned();
    let unit = text.chars().last().ok_or_else(shape)?;
    let number: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| shape())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(shape()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(shape)
}

/// The kind of image that waiting for the Nix workflow can bring.
pub(crate) fn builds_with_nix(container: &Container) -> bool {
    container.kinds.contains(&BuildKind::Nix)
}
