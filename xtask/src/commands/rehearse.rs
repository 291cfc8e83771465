//! The whole plan on one machine, with nothing of production in reach: only endpoints differ.

mod adapted;
mod borrowed;
mod breakages;
mod cluster;
mod deployment;
mod enclosure;
mod facts;
mod outline;
mod outside;
mod pki;
mod progress;
mod runner;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::run::{System, tail};
use crate::exec::workspace::Workspace;
use crate::exec::{cgroup, signal};
use crate::model::config::KubeContext;
use crate::model::failure::{Failure, Kind};
use crate::model::image::Home;
use crate::model::name::ContainerName;
use crate::model::repo::{Container, Repo};
use crate::model::workflow::Workflow;
use crate::report::{Outcome, Reporter, bytes, table};
use crate::tools::{linux, nix, own};
use borrowed::Looked;
use deployment::Deployment;
use facts::Facts;
use runner::Runner;
use stage::Stage;

/// How the folder of a rehearsal is called.
const PREFIX: &str = "blumeops-rehearsal-";

/// Programs the rehearsal starts itself; what builds look for is found, or missed, in the stand-in nixpkgs.
const PROGRAMS: [&str; 8] =
    ["git", "nix-instantiate", "nix-build", "nix-store", "skopeo", "docker-registry", "setpriv", "unshare"];

/// What the part with a cluster starts besides.
const CLUSTER_PROGRAMS: [&str; 23] = [
    "ip",
    "mount",
    "iptables",
    "dumb-init",
    "socat",
    "python3",
    "etcd",
    "containerd",
    "ctr",
    "runc",
    "catatonit",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "coredns",
    "kubectl",
    "kustomize",
    "ansible-playbook",
    "caddy",
    "prometheus",
    "postgres",
];

/// Those that a cluster is made of, which somebody may have already.
const NODE_PROGRAMS: [&str; 10] = [
    "etcd",
    "containerd",
    "ctr",
    "runc",
    "catatonit",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
];

/// Rehearse a deployment on this machine: release, Kubernetes, Caddy, metrics, verification, and what breaks it
///
/// Rehearses HEAD. The images that are deployed beside NAME are released as well; then the manifests are applied,
/// untouched, to a real Kubernetes of one node, the host's Caddy is provisioned, and the service is verified; then one
/// thing at a time is broken. Everything lives in namespaces and one folder that are gone afterwards.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask rehearse authentik\n  cargo xtask rehearse authentik --only redis-stopped\n  cargo xtask rehearse authentik --only none --hold\n  cargo xtask rehearse authentik --cluster kind-kind\n  cargo xtask rehearse redis --without-cluster --keep"
)]
pub(crate) struct Args {
    /// Which container
    pub(crate) name: ContainerName,
    /// Stop after the release: no cluster, no root, seconds
    #[arg(long)]
    pub(crate) without_cluster: bool,
    /// Break only this; can be repeated, `none` breaks nothing
    #[arg(long, value_name = "BREAKAGE")]
    pub(crate) only: Vec<String>,
    /// Leave the folder with forge, clone, registry and store, and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
    /// When all is done, or a point is not green, keep everything standing until Ctrl-C
    #[arg(long, conflicts_with = "without_cluster")]
    pub(crate) hold: bool,
    /// Use a cluster that you have (kind, minikube, k3s) in place of one of its own: this context of your kubeconfig
    #[arg(long, value_name = "CONTEXT", conflicts_with = "without_cluster")]
    pub(crate) cluster: Option<KubeContext>,
    /// Use it without asking first
    #[arg(long, requires = "cluster")]
    pub(crate) yes: bool,
    /// With --hold: a Kubernetes with nothing in it; nothing is released or deployed
    #[arg(long, requires = "hold", conflicts_with_all = ["cluster", "keep"])]
    pub(crate) empty: bool,
    /// This is the run inside, in this folder
    #[arg(long, hide = true, value_name = "DIR")]
    pub(crate) enclosed: Option<PathBuf>,
    /// Where the outside reaches the API server
    #[arg(long, hide = true, value_name = "PORT", default_value_t = 0)]
    pub(crate) door: u16,
    /// Where the nodes of somebody's cluster fetch images
    #[arg(long, hide = true, value_name = "ADDRESS")]
    pub(crate) images: Option<String>,
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
    breakages::check_names(&args.only)?;
    if args.dry_run {
        let home = cx.home()?;
        let names = names(cx.repo.deployed_with(&home, container));
        let facts = if args.without_cluster {
            None
        } else {
            Facts::beforehand(&cx.repo, &cx.system.root, &home.image(&args.name))?
        };
        let looked = look(cx, args, facts.as_ref())?;
        let lines = |facts| outline::lines(args, &facts, (&home.host, &cx.system.root), looked.as_ref());
        let outline = facts.map_or_else(Vec::new, lines);
        return Ok(super::build::commands(cx, stage::command_lines(&names, outline).into_iter()));
    }
    // A cluster, a store and their folders are taken down.
    signal::takes_longer();
    if let Some(folder) = &args.enclosed {
        cx.system.stdout(&linux::loopback(), "loopback")?;
        return rehearse(cx, args, &Workspace::of_another(folder));
    }
    let with_cluster = !args.without_cluster && is_deployed(cx, container)?;
    if (args.hold || args.cluster.is_some()) && !with_cluster {
        return Err(
            Failure::environment(format!("no Application runs {}: there is nothing to deploy", args.name)).into()
        );
    }
    let image = cx.home()?.image(&args.name);
    let facts = args.cluster.as_ref().map(|_| Facts::beforehand(&cx.repo, &cx.system.root, &image)).transpose()?;
    let looked = look(cx, args, facts.flatten().as_ref())?;
    preflight(cx, with_cluster, looked.is_some())?;
    looked.as_ref().map(|looked| looked.agree(cx, args)).transpose()?;
    // What a killed one left: all else ended with its namespaces.
    cgroup::sweep(PREFIX);
    let workspace = Workspace::new(PREFIX, args.keep)?;
    let result = match looked {
        Some(looked) => enclosure::enter_with(cx, args, &workspace, looked),
        None if with_cluster => enclosure::enter(cx, args, &workspace),
        None => rehearse(cx, args, &workspace),
    };
    if args.keep {
        cx.report.say(&format!("kept: {}\n  . {}", workspace.text(""), workspace.text(stage::ENVIRONMENT)));
    }
    let folder = workspace.text("");
    let left = match (args.keep, workspace.end()) {
        (true, _) => "the folder named above is kept".to_owned(),
        (false, true) => "nothing: the rehearsal's folder is gone".to_owned(),
        (false, false) => format!("{folder}: the next rehearsal removes it"),
    };
    result.map_err(|error| explained(error, &left))
}

/// The user's cluster, if one is to be used and can be.
fn look(cx: &Context, args: &Args, facts: Option<&Facts>) -> Result<Option<Looked>> {
    args.cluster.as_ref().zip(facts).map(|(context, facts)| Looked::at(cx, context, facts)).transpose()
}

/// Does an Application run it? Else there is nothing to put on a cluster.
fn is_deployed(cx: &Context, container: &Container) -> Result<bool> {
    let users = cx.repo.users(&cx.home()?.image(&container.name));
    let deployed = |folder: &str| cx.repo.applications.iter().any(|application| application.path == folder);
    Ok(users.entries.iter().any(|(kustomization, _)| deployed(kustomization.source.folder())))
}

/// Everything that is missing, at once.
fn preflight(cx: &Context, with_cluster: bool, is_borrowed: bool) -> Result<()> {
    let more = if with_cluster { &CLUSTER_PROGRAMS[..] } else { &[] };
    let needed = |program: &&&str| !is_borrowed || !NODE_PROGRAMS.contains(program);
    let more: Vec<&str> = more.iter().filter(needed).copied().collect();
    Context::preflight(&[&PROGRAMS[..], &more].concat())?;
    check_namespaces(cx)?;
    if with_cluster && !rustix::process::geteuid().is_root() {
        return Err(Failure::environment(
            "a stage with network and mounts of its own needs root, and this is another user",
        )
        .left("nothing was started")
        .next("sudo, or --without-cluster for the release alone")
        .into());
    }
    Ok(())
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

fn explained(error: anyhow::Error, left: &str) -> anyhow::Error {
    match error.downcast::<Failure>() {
        Ok(failure) => {
            let next = failure.next.clone().unwrap_or_else(|| "--keep leaves the folder to look at".to_owned());
            failure.left(left).next(next).into()
        }
        Err(error) => error,
    }
}

fn names(containers: Vec<&Container>) -> Vec<ContainerName> {
    containers.into_iter().map(|container| container.name.clone()).collect()
}

fn rehearse(cx: &Context, args: &Args, workspace: &Workspace) -> Result<Outcome> {
    let name = &args.name;
    let mut stage = Stage::set_up(cx, workspace)?;
    let home = stage.repo.home().map_err(|finding| Failure::of_findings("nothing to rehearse", vec![finding]))?;
    let container =
        stage.repo.container(name).map_err(|finding| Failure::of_findings("HEAD has no such thing", vec![finding]))?;
    let names = names(stage.repo.deployed_with(&home, container));
    if args.empty {
        return empty(cx, args, &stage, (workspace, &home.image(name)));
    }
    // Inside an enclosure alone nobody of production can be asked how far its plan is.
    let enclosed = args.enclosed.as_ref().map(|_| deployment::own_context(cx, &stage, workspace));
    let service = enclosed.as_ref().map(|_| facts::Facts::of(cx, &stage, &home.image(name))).transpose()?.flatten();
    let followed = enclosed.as_ref().zip(service.map(|facts| facts.service));
    let mut progress = Vec::new();
    if let Some((own, service)) = &followed {
        progress.push(progress::at_the_start(own, service)?);
    }
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
    stage.reload()?;
    if let Some((own, service)) = &followed {
        progress.push(progress::once_released(own, service)?);
    }
    let mut outcome = outcome(&released);
    if args.enclosed.is_none() {
        return Ok(outcome);
    }
    outcome.json["plan"] = Value::Array(progress);
    deploy(cx, args, &stage, (workspace, &home.image(name)), outcome)
}

/// The rest of the plan, after its images: deployment, verification, breakages.
fn deploy(
    cx: &Context,
    args: &Args,
    stage: &Stage<'_>,
    (workspace, image): (&Workspace, &str),
    outcome: Outcome,
) -> Result<Outcome> {
    let Some(facts) = Facts::of(cx, stage, image)? else { return Ok(outcome) };
    let deployment = Deployment::set_up(cx, stage, (workspace, args), facts)?;
    let result = breakages::run(cx, &deployment, &args.only, outcome);
    if args.hold {
        match &result {
            Ok(outcome) => cx.report.say(&outcome.human),
            Err(error) => cx.report.say(&format!("  ✗ {error}")),
        }
        hold(cx, workspace, args)?;
    }
    result
}

/// A cluster and nothing else.
fn empty(cx: &Context, args: &Args, stage: &Stage<'_>, (workspace, image): (&Workspace, &str)) -> Result<Outcome> {
    let Some(facts) = Facts::of(cx, stage, image)? else {
        return Err(Failure::refused("no Application runs it: there are no contexts to name").into());
    };
    let own = deployment::own_context(cx, stage, workspace);
    let _cluster = deployment::cluster(cx, &own, stage, (workspace, args), &facts)?;
    hold(cx, workspace, args)
}

/// How the user asks the cluster.
fn kubectl_outside(workspace: &Workspace, args: &Args) -> String {
    let way = match &args.cluster {
        Some(context) => format!("--context={context}"),
        None => format!("--kubeconfig={}", workspace.text("kubeconfig-outside")),
    };
    format!("kubectl {way} get pods -A")
}

/// Leaves everything standing until a signal comes.
fn hold(cx: &Context, workspace: &Workspace, args: &Args) -> Result<Outcome> {
    cx.report.say(&format!("    held until Ctrl-C: {}", kubectl_outside(workspace, args)));
    loop {
        signal::sleep(Duration::from_secs(60))?;
    }
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
    let value = call(&stage.system, Some(&cx.report), &release_words(name))?;
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

/// Runs this program in the clone; its talk is passed on where somebody listens, its result read.
fn call(system: &System, report: Option<&Reporter>, words: &[String]) -> Result<Value> {
    let invocation = own::tethered(words, &["--format", "json"])?.limit(Duration::from_secs(1800));
    let mut said = String::new();
    let output = system.stream(&invocation, &mut |line| {
        said.push_str(line);
        said.push('\n');
        if let (Some(report), false) = (report, line.trim_start().starts_with('…')) {
            report.say(&format!("  {line}"));
        }
    })?;
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    if output.success() {
        return Ok(value.get("result").cloned().unwrap_or_default());
    }
    let kind = if output.code == Some(2) { Kind::Environment } else { Kind::Refused };
    let above = if report.is_some() { ", as it says above" } else { "" };
    let failure = Failure::new(kind, format!("`{}` failed{above}", own::shown(words)));
    let said = if report.is_some() { Vec::new() } else { tail(&said) };
    Err(Failure { command: Some(own::shown(words)), ..failure }.tail(said).into())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalog;

    /// What `setup --for rehearse` does not know of, nobody brings.
    #[test]
    fn setup_knows_every_program_that_a_rehearsal_asks_for() {
        let known: Vec<&str> = catalog::needed_by(Some("rehearse")).iter().map(|tool| tool.program).collect();
        let missing: Vec<&&str> =
            PROGRAMS.iter().chain(&CLUSTER_PROGRAMS).filter(|program| !known.contains(*program)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
