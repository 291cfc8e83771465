//! A cluster that somebody has, seen from outside the enclosure: may it be used, the doors to it, and nothing left in it.

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpListener};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Args;
use super::facts::Facts;
use crate::commands::Context;
use crate::exec::service::Service;
use crate::exec::workspace::{self, Workspace};
use crate::exec::{fs, process, signal, terminal};
use crate::model::config::KubeContext;
use crate::model::failure::{Failure, Kind};
use crate::model::image::Architecture;
use crate::model::repo::Repo;
use crate::model::source::Source;
use crate::model::world::{Facts as Unasked, World};
use crate::model::yaml::{self, Node};
use crate::probes::borrowed::{self, Usable, Wanted};
use crate::tools::kubectl::{self, borrow};
use crate::tools::{Invocation, docker_registry, own};

/// What the stand-ins bring.
pub(super) const KINDS: &str = "xtask/stand-ins/cluster/crds.yaml";

/// The socket that the API server is at, as its folder has it.
pub(super) const API: &str = "api";

/// A cluster that can be used, before anything is made in it.
pub(super) struct Looked {
    context: KubeContext,
    server: String,
    /// By which address its nodes reach this machine.
    address: IpAddr,
    namespaces: BTreeSet<String>,
    left: Vec<(String, borrow::Maker)>,
}

/// A cluster in use, until dropped.
pub(super) struct Borrowed<'a> {
    cx: &'a Context,
    context: KubeContext,
    namespaces: BTreeSet<String>,
    doors: Vec<Service>,
}

impl Looked {
    /// Asks the cluster whether it can be used for what `facts` say. Nothing is changed.
    pub(super) fn at(cx: &Context, context: &KubeContext, facts: &Facts) -> Result<Self> {
        Context::preflight(&["kubectl"])?;
        let refused = |why: String| Failure::refused(why).left("nothing was asked of it, and nothing was done");
        let contexts = kubectl::servers(&fs::kubeconfigs());
        let server = borrowed::server(&cx.repo.config, &contexts, &context.to_string()).map_err(refused)?.to_owned();
        let seen = cx.system.output(&borrow::seen(context))?;
        if !seen.success() {
            let failure = cx.system.failed(&borrow::seen(context), &seen, &format!("{context} can't be asked"));
            return Err(Failure { kind: Kind::Environment, ..failure }.left("nothing was done").into());
        }
        let objects = kubectl::parse_objects(&seen.stdout).map_err(Failure::environment)?;
        let namespaces = made(facts);
        let others =
            World::new(cx.repo.clone(), Unasked::default()).apps.into_iter().map(|app| app.namespace).collect();
        let kinds = fs::source(&cx.system.root, &cx.path(KINDS)).map(|file| names(&file)).unwrap_or_default();
        let wanted = Wanted {
            own: &namespaces,
            others: &others,
            kinds: &kinds,
            has_claims: facts.apps.iter().any(|app| has_claims(&cx.repo, &app.folder)),
            architecture: Architecture::here(),
        };
        let mut why = borrowed::judge(&objects, &wanted);
        if !cx.system.output(&borrow::may_all(context))?.success() {
            let rights = "its credentials may not do everything in it, as making namespaces and kinds needs".to_owned();
            why = Err(why.err().into_iter().flatten().chain([rights]).collect());
        }
        let Usable { nodes, left } = why.map_err(|why| {
            let next = "a fresh cluster of kind, minikube or k3s has none of these";
            Failure::refused(format!("{context} can't be used")).tail(why).left("nothing was done").next(next)
        })?;
        left.iter().try_for_each(|(_, maker)| unused(context, maker))?;
        let node = nodes.first().copied().ok_or_else(|| Failure::refused(format!("{context} has no node")))?;
        let address =
            process::address_for(node).with_context(|| format!("this machine has no way to the node {node}"))?;
        Ok(Self { context: context.clone(), server, address, namespaces, left })
    }

    pub(super) fn context(&self) -> &KubeContext {
        &self.context
    }

    /// What is going to happen there.
    pub(super) fn told(&self) -> String {
        let namespaces: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        format!(
            "{} at {}: the namespaces {} and the kinds of {KINDS} are made there and removed at the end; its nodes fetch images from this machine at {}",
            self.context,
            self.server,
            namespaces.join(", "),
            self.address
        )
    }

    /// Somebody has to agree, by a flag or when asked.
    pub(super) fn agree(&self, cx: &Context, args: &Args) -> Result<()> {
        cx.report.say(&format!("  {}", self.told()));
        if args.yes {
            return Ok(());
        }
        let nothing = |why: &str| Failure::environment(why).left("nothing was done").next("--yes agrees beforehand");
        if !terminal::is_attended() {
            return Err(nothing("nobody is there to be asked").into());
        }
        cx.report.say("go on? [y/N]");
        if terminal::says_yes()? { Ok(()) } else { Err(nothing("not agreed to").into()) }
    }

    /// The commands that open and close it, for who only wants to know.
    pub(super) fn outline(&self, workspace: &Workspace) -> [Vec<String>; 2] {
        let shown = |line: Invocation| line.to_string();
        let file = |name: &str| workspace.text(&format!("borrowed/{name}"));
        let mut open = vec![self.told()];
        if !self.left.is_empty() {
            open.push(shown(borrow::remove_and_wait(&self.context)));
        }
        open.push(shown(borrow::create(&self.context, &file("namespace.json"))));
        open.push(format!("{} &", borrow::proxy(&self.context, &workspace.text(API))));
        open.push(format!("{} &", docker_registry::serve(&file("registry.yml"))));
        open.extend(
            [borrow::create(&self.context, &file("registry.json")), borrow::node_port(&self.context)].map(shown),
        );
        [open, vec![shown(borrow::remove_and_wait(&self.context))]]
    }

    /// Takes the cluster: what a killed rehearsal left goes first.
    pub(super) fn open<'a>(self, cx: &'a Context, workspace: &Workspace) -> Result<(Borrowed<'a>, String)> {
        if !self.left.is_empty() {
            let stage = cx.report.stage("left");
            cx.system.stdout(&borrow::remove_and_wait(&self.context), "what a rehearsal left can't be removed")?;
            stage.done(&format!("{} namespaces of a rehearsal that was killed are gone", self.left.len()));
        }
        let maker = maker(workspace);
        let mark = borrow::namespace(borrow::NAMESPACE, &maker);
        workspace.write("borrowed/namespace.json", &mark.to_string())?;
        let Self { context, address, namespaces, .. } = self;
        // Of two that start at once the second fails here, and has made nothing that it would remove.
        let create = borrow::create(&context, &workspace.text("borrowed/namespace.json"));
        cx.system.stdout(&create, "the cluster can't be taken")?;
        let mut borrowed = Borrowed { cx, context, namespaces, doors: Vec::new() };
        let images = borrowed.serve(workspace, address)?;
        Ok((borrowed, images))
    }
}

impl Borrowed<'_> {
    /// Opens the doors: to the API server for who is inside, to the images for the nodes. Says what nodes call the latter.
    fn serve(&mut self, workspace: &Workspace, address: IpAddr) -> Result<String> {
        let port = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
        let port = port.with_context(|| format!("no free port at {address}"))?.port();
        let configuration = docker_registry::read_only(&workspace.path("registry"), (address, port).into());
        workspace.write("borrowed/registry.yml", &configuration)?;
        let file = workspace.text("borrowed/registry.yml");
        for (name, line) in
            [("proxy", borrow::proxy(&self.context, &workspace.text(API))), ("images", docker_registry::serve(&file))]
        {
            let log = workspace.path(&format!("borrowed/{name}.log"));
            self.doors.push(Service::start(&self.cx.system, &own::tether(line), &log)?);
        }
        workspace.write("borrowed/registry.json", &borrow::registry(address, port).to_string())?;
        let create = borrow::create(&self.context, &workspace.text("borrowed/registry.json"));
        self.cx.system.stdout(&create, "the nodes' way to the images")?;
        let port = self.cx.system.stdout(&borrow::node_port(&self.context), "the nodes' way to the images")?;
        Ok(format!("127.0.0.1:{}", port.trim()))
    }
}

impl Drop for Borrowed<'_> {
    /// Has everything go that was made; waits for it, but not through a signal.
    fn drop(&mut self) {
        self.doors.clear();
        let Self { cx, context, namespaces, .. } = self;
        cx.system.clean_up(&borrow::remove(context));
        let see =
            format!("kubectl --context={context} get namespaces --selector={}={}", borrow::LABEL.0, borrow::LABEL.1);
        if signal::interrupted() {
            cx.report.say(&format!("  {context} removes by itself what was made in it; until then it is in: {see}"));
            return;
        }
        let stage = cx.report.stage("removed");
        for namespace in namespaces.iter() {
            cx.system.clean_up(&borrow::hurry(context, namespace));
        }
        match cx.system.stdout(&borrow::remove_and_wait(context), "the cluster") {
            Ok(_) => stage.done(&format!("nothing of the rehearsal is left in {context}")),
            Err(error) => stage.failed(&format!("{context}: {error}; what is left is in: {see}")),
        }
    }
}

/// Whose the things are that a rehearsal in `workspace` makes.
pub(super) fn maker(workspace: &Workspace) -> borrow::Maker {
    borrow::Maker { machine: process::machine(), folder: workspace.text("").trim_end_matches('/').to_owned() }
}

/// The namespaces that are made.
fn made(facts: &Facts) -> BTreeSet<String> {
    let apps = facts.apps.iter().map(|app| app.namespace.clone());
    apps.chain(["argocd", borrow::NAMESPACE].map(str::to_owned)).collect()
}

/// Do the files of a folder claim volumes?
fn has_claims(repo: &Repo, folder: &str) -> bool {
    let files = repo.files.iter().filter(|file| file.folder() == folder);
    let mut nodes = files.flat_map(|file| yaml::parse(file).unwrap_or_default());
    nodes.any(|node| node.get("kind").and_then(Node::text) == Some("PersistentVolumeClaim"))
}

/// The names of the kinds that a file brings.
fn names(file: &Source) -> Vec<String> {
    let documents = yaml::parse(file).unwrap_or_default();
    documents.iter().filter_map(|node| node.path(&["metadata", "name"])?.text().map(str::to_owned)).collect()
}

/// Is the rehearsal over that has made something?
fn unused(context: &KubeContext, maker: &borrow::Maker) -> Result<()> {
    let used = |by: &str, next: String| {
        Err(Failure::refused(format!("{context} is used by {by}")).left("nothing was done").next(next).into())
    };
    if maker.machine != process::machine() {
        let next = format!("if none runs there any more: {}", borrow::remove_and_wait(context));
        return used(&format!("a rehearsal on {}", maker.machine), next);
    }
    if workspace::is_in_use(Path::new(&maker.folder)) {
        return used(&format!("the rehearsal of {}", maker.folder), "one at a time".to_owned());
    }
    Ok(())
}

/// The Services of the cluster that have a name in the tailnet, and their addresses.
pub(super) fn tailnet_names(services: &Value) -> impl Iterator<Item = (&str, &str)> {
    let items = services["items"].as_array().into_iter().flatten();
    items.filter_map(|service| {
        let name = service["metadata"]["annotations"]["tailscale.com/hostname"].as_str()?;
        Some((name, service["spec"]["clusterIP"].as_str()?))
    })
}
