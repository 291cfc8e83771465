//! The part with a cluster as a dry run shows it: every stage, with the commands that are known before it starts.

use std::path::Path;

use super::borrowed::Looked;
use super::cluster;
use super::deployment::{self, WAYS};
use super::enclosure::{self, RINGTAIL};
use super::facts::Facts;
use super::{Args, breakages};
use crate::exec::workspace::Workspace;
use crate::tools::kubernetes::{self, Layout};
use crate::tools::{Invocation, line, linux, own, prometheus};

/// Stands for the rehearsal's folder.
const FOLDER: &str = "WORKSPACE";

/// Comments: certificates, tokens and ports are made up on the way, so that no paste could do it.
pub(super) fn lines(
    args: &Args,
    facts: &Facts,
    (registry, root): (&str, &Path),
    looked: Option<&Looked>,
) -> Vec<String> {
    let workspace = &Workspace::of_another(FOLDER.as_ref());
    let [open, close] = looked.map(|looked| looked.outline(workspace)).unwrap_or_default();
    let inside = ("inside: the rest in namespaces and a control group of its own, as root".to_owned(), inside(args));
    let mut stages = vec![inside];
    if looked.is_some() {
        stages.insert(0, ("borrowed: the cluster is taken, and doors to it are opened".to_owned(), open));
        let build = deployment::postgres_build(workspace).to_string();
        let database = vec![build, own::shown(&deployment::postgres_words("BUILT"))];
        stages.push(("database: an image of this machine's PostgreSQL for the nodes".to_owned(), database));
    }
    let (started, claims) = match looked {
        Some(_) => (reached(workspace), "what is rendered, with a kustomization over it"),
        None => (started(workspace, registry), "a volume to each claim, then what is rendered"),
    };
    stages.push((format!("network: {} names of production lead to this stage", facts.domain), network()));
    stages.push((format!("cluster: every context leads to it ({})", facts.contexts.join(", ")), started));
    if args.empty {
        stages.push(("hold: until Ctrl-C".to_owned(), Vec::new()));
        return commented(stages);
    }
    let is_own = looked.is_none();
    stages.push((
        "operators: the kinds that they know, and the stand-ins for what they do".to_owned(),
        operators(workspace, facts),
    ));
    stages.push((format!("apply: each namespace, {claims}"), applied(workspace, facts, is_own)));
    let provision = WAYS.map(|way| own::shown(&deployment::provision_words(workspace, &facts.host, way)));
    stages.push((format!("provision: {} by its role, on this stage", facts.host), provision.to_vec()));
    if deployment::monitored(root).is_some() {
        stages.push(("metrics: Prometheus, and an agent in place of Alloy".to_owned(), metrics(workspace)));
    }
    let verify = own::shown(&deployment::verify_words(facts, breakages::PATIENCE * 2));
    stages.push(("verify: every point must be green".to_owned(), vec![verify.clone()]));
    let broken = breakages::outline(facts, &args.only, workspace);
    if !broken.is_empty() {
        stages
            .push(("break: after each, the same verification: red where it should be, then mended".to_owned(), broken));
    }
    if args.hold {
        stages.push(("hold: until Ctrl-C".to_owned(), Vec::new()));
    }
    if looked.is_some() {
        stages.push(("removed: all that was made in the cluster".to_owned(), close));
    }
    commented(stages)
}

fn commented(stages: Vec<(String, Vec<String>)>) -> Vec<String> {
    let comment = |(title, lines): (String, Vec<String>)| {
        std::iter::once(format!("# {title}")).chain(lines.into_iter().map(|line| format!("#   {line}")))
    };
    let head = format!("# What follows the releases, {FOLDER} being $workspace:");
    std::iter::once(head).chain(stages.into_iter().flat_map(comment)).collect()
}

fn shown(lines: impl IntoIterator<Item = Invocation>) -> Vec<String> {
    lines.into_iter().map(|line| line.to_string()).collect()
}

fn inside(args: &Args) -> Vec<String> {
    let name = args.name.as_str();
    let context = args.cluster.as_ref().map(ToString::to_string);
    let way = match &context {
        Some(context) => vec!["--cluster", context, "--images", "127.0.0.1:NODEPORT"],
        None => vec!["--door", "PORT"],
    };
    shown([linux::enclosed(line!("cargo xtask rehearse {name} --enclosed {FOLDER} {way...}"))])
}

fn network() -> Vec<String> {
    shown(std::iter::once(linux::loopback()).chain(enclosure::network()).chain([linux::empty("/run")]))
}

fn started(workspace: &Workspace, registry: &str) -> Vec<String> {
    let layout = Layout { folder: FOLDER, address: RINGTAIL, cgroup: FOLDER };
    let mut lines = vec![format!("(containerd asks the registry above for the images of {registry})")];
    for (at, programs) in cluster::programs(&layout).into_iter().enumerate() {
        lines.extend(programs.iter().map(|(_, invocation)| format!("{invocation} &")));
        // The API server is there: now the node can join.
        if at == 1 {
            lines.extend(shown([
                kubernetes::import(&workspace.text("host.tar")),
                cluster::ask(workspace, &["get", "--raw", "/readyz"]),
            ]));
        }
    }
    lines.extend(shown([cluster::node_ready(workspace)]));
    lines
}

/// The same with somebody's cluster.
fn reached(workspace: &Workspace) -> Vec<String> {
    let layout = Layout { folder: FOLDER, address: RINGTAIL, cgroup: FOLDER };
    let mut lines: Vec<String> =
        [enclosure::door_to(workspace), layout.coredns()].iter().map(|line| format!("{line} &")).collect();
    lines.extend(shown([cluster::ask(workspace, &["get", "--raw", "/readyz"])]));
    lines
}

fn operators(workspace: &Workspace, facts: &Facts) -> Vec<String> {
    let mut lines = shown(deployment::kinds(workspace));
    lines.push(format!("{} &", deployment::operators(workspace, &facts.tailnet, "REVISION", "POSTGRES")));
    lines.push(format!("{} &", deployment::layer4(&facts.tailnet)));
    lines.extend(facts.outside.lines(workspace).iter().map(ToString::to_string));
    lines
}

fn applied(workspace: &Workspace, facts: &Facts, is_own: bool) -> Vec<String> {
    let one = |app| {
        let render = own::shown(&deployment::render_words(workspace, app));
        let over = (!is_own).then(|| deployment::adaptation(workspace, app).to_string());
        std::iter::once(render).chain(over).chain(shown(deployment::applied(workspace, app)))
    };
    facts.apps.iter().flat_map(one).collect()
}

fn metrics(workspace: &Workspace) -> Vec<String> {
    let configuration = workspace.text("clone/argocd/manifests/prometheus/prometheus.yml");
    let server = prometheus::serve(&configuration, &workspace.text("prometheus"), deployment::PROMETHEUS);
    let agent = prometheus::agent(&workspace.text("agent.yaml"), &workspace.text("agent"), deployment::AGENT);
    [server, agent].iter().map(|line| format!("{line} &")).collect()
}
