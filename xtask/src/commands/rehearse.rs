//! The release code on one machine, with nothing of production in reach: only endpoints differ.

mod runner;
mod stage;

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::run::System;
use crate::exec::signal;
use crate::exec::workspace::Workspace;
use crate::model::failure::{Failure, Kind};
use crate::model::image::Home;
use crate::model::name::ContainerName;
use crate::model::repo::{Container, Repo};
use crate::model::workflow::Workflow;
use crate::report::{Outcome, Reporter, bytes, table};
use crate::tools::{nix, own};
use runner::Runner;
use stage::Stage;

/// How the folder of a rehearsal is called.
const PREFIX: &str = "blumeops-rehearsal-";

/// Programs the rehearsal starts itself; what builds look for is found, or missed, in the stand-in nixpkgs.
const PROGRAMS: [&str; 8] =
    ["git", "nix-instantiate", "nix-build", "nix-store", "skopeo", "docker-registry", "setpriv", "unshare"];

/// Rehearse a release on this machine: throw-away clone, forge, registry and Nix store
///
/// Rehearses HEAD. The images that are deployed beside NAME are released as well. Everything lives in one folder that
/// is gone afterwards.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask rehearse authentik\n  cargo xtask rehearse redis --keep")]
pub(crate) struct Args {
    /// Which container
    pub(crate) name: ContainerName,
    /// Leave the folder with forge, clone, registry and store, and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// One image that went all the way.
struct Released {
    image: String,
    digest: String,
    size: u64,
    pinned: Vec<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let container = cx.container(&args.name)?;
    if args.dry_run {
        let names = names(cx.repo.deployed_with(&cx.home()?, container));
        return Ok(super::build::commands(cx, stage::command_lines(&names).into_iter()));
    }
    Context::preflight(&PROGRAMS)?;
    check_namespaces(cx)?;
    let workspace = Workspace::new(PREFIX, args.keep)?;
    let result = rehearse(cx, &args.name, &workspace);
    if args.keep {
        cx.report.say(&format!("kept: {}\n  . {}", workspace.text(""), workspace.text(stage::ENVIRONMENT)));
    }
    result.map_err(|error| explained(error, args.keep))
}

/// Nix builds in namespaces of its own; some containers don't allow them.
fn check_namespaces(cx: &Context) -> Result<()> {
    let output = cx.system.output(&nix::namespaces())?;
    if output.success() {
        return Ok(());
    }
    let failure = cx.system.failed(&nix::namespaces(), &output, "Nix can't build here in a sandbox");
    Err(Failure { kind: Kind::Environment, ..failure }
        .next("rehearse where user namespaces are allowed: not in a chroot, nor in a container without privileges")
        .into())
}

fn explained(error: anyhow::Error, keep: bool) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) => {
            let left = if keep { "the folder named above is kept" } else { "nothing: the rehearsal's folder is gone" };
            let next = failure.next.clone().unwrap_or_else(|| "--keep leaves the folder to look at".to_owned());
            failure.left(left).next(next).into()
        }
        Err(error) => error,
    }
}

fn names(containers: Vec<&Container>) -> Vec<ContainerName> {
    containers.into_iter().map(|container| container.name.clone()).collect()
}

fn rehearse(cx: &Context, name: &ContainerName, workspace: &Workspace) -> Result<Outcome> {
    let stage = Stage::set_up(cx, workspace)?;
    let home = stage.repo.home().map_err(|finding| Failure::of_findings("nothing to rehearse", vec![finding]))?;
    let container =
        stage.repo.container(name).map_err(|finding| Failure::of_findings("HEAD has no such thing", vec![finding]))?;
    let names = names(stage.repo.deployed_with(&home, container));
    let runner = Runner::new(stage.system.clone(), cx.report.clone(), calls(&stage.repo));
    let released = std::thread::scope(|scope| {
        let thread = scope.spawn(|| runner.work(workspace));
        let released = names.iter().map(|name| release(cx, &stage, &home, name)).collect::<Result<Vec<_>>>();
        runner.stop(released.is_err());
        let built = thread.join().unwrap_or_else(|_| Err(Failure::environment("the runner was lost").into()));
        // When the build failed, the release was only the messenger.
        built.and(released)
    })?;
    again(cx, &stage, &names)?;
    Ok(outcome(&released))
}

/// What the forge would run for a tag.
fn calls(repo: &Repo) -> Vec<String> {
    let workflow = repo.workflows.iter().find(|workflow| workflow.name == repo.config.forge.workflow);
    let calls: Vec<String> = workflow.into_iter().flat_map(|workflow: &Workflow| workflow.calls.clone()).collect();
    if calls.is_empty() { vec!["publish $GITHUB_REF_NAME".to_owned()] } else { calls }
}

/// Runs the release as an operator does, and reads what it says it did.
fn release(cx: &Context, stage: &Stage<'_>, home: &Home, name: &ContainerName) -> Result<Released> {
    cx.report.say(&format!("  → {}", own::shown(&release_words(name))));
    let value = call(&stage.system, &cx.report, &release_words(name))?;
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = value.get("pinned").and_then(Value::as_array).cloned().unwrap_or_default();
    let image = text("image");
    let tag = image.rsplit(':').next().unwrap_or_default();
    let manifest = stage.registry.manifest(&home.repository(name), tag)?;
    let manifest = manifest.filter(|manifest| manifest.digest.as_str() == text("digest")).ok_or_else(|| {
        Failure::refused(format!("{image} is not in the rehearsal's registry with the digest that was pinned"))
    })?;
    let pinned = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(Released { image, digest: text("digest"), size: manifest.size, pinned })
}

fn release_words(name: &ContainerName) -> Vec<String> {
    ["release", name.as_str(), "--commit", "--wait", "20m"].map(str::to_owned).to_vec()
}

/// Runs this program in the clone; its talk is passed on, its result read.
fn call(system: &System, report: &Reporter, words: &[String]) -> Result<Value> {
    let invocation = own::tethered(words, &["--format", "json"])?.limit(Duration::from_secs(1800));
    let mut said = String::new();
    let output = system.stream(&invocation, &mut |line| {
        said.push_str(line);
        said.push('\n');
        if !line.trim_start().starts_with('…') {
            report.say(&format!("  {line}"));
        }
    })?;
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    if output.success() {
        return Ok(value.get("result").cloned().unwrap_or_default());
    }
    let kind = if output.code == Some(2) { Kind::Environment } else { Kind::Refused };
    let failure = Failure::new(kind, format!("`{}` failed, as it says above", own::shown(words)));
    Err(Failure { command: Some(own::shown(words)), ..failure }.into())
}

/// A second run of the same commands must find everything done.
fn again(cx: &Context, stage: &Stage<'_>, names: &[ContainerName]) -> Result<()> {
    let shown = cx.report.stage("again");
    let before = stage.state()?;
    for name in names {
        let words = release_words(name);
        let quiet = own::tethered(&words, &["--format", "json"])?.limit(Duration::from_secs(300));
        stage.system.stdout(&quiet, "the second run failed")?;
        signal::check()?;
    }
    let after = stage.state()?;
    if before != after {
        let failure = Failure::refused("a second run of the same release changed something");
        return Err(failure.tail(vec![format!("before: {before}"), format!("after:  {after}")]).into());
    }
    shown.done("released again: nothing was done twice");
    Ok(())
}

fn outcome(released: &[Released]) -> Outcome {
    let rows: Vec<Vec<String>> =
        released.iter().map(|r| vec![r.image.clone(), r.digest.clone(), bytes(r.size), r.pinned.join(", ")]).collect();
    let values: Vec<Value> = released
        .iter()
        .map(|r| json!({"image": r.image, "digest": r.digest, "size": r.size, "pinned": r.pinned}))
        .collect();
    Outcome::ok(table(&["IMAGE", "DIGEST", "SIZE", "PINNED IN"], &rows), json!({"released": values}))
}
