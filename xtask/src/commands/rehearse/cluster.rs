//! A real Kubernetes of one node: etcd, API server, controllers, scheduler, kubelet, proxy, containerd, DNS.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use base64::Engine as _;

use super::enclosure::{self, RINGTAIL};
use super::pki::{self, Authority};
use crate::commands::Context;
use crate::exec::process;
use crate::exec::service::Service;
use crate::exec::signal;
use crate::exec::workspace::Workspace;
use crate::model::digest::Digest;
use crate::model::failure::{Failure, Kind};
use crate::model::image::Architecture;
use crate::tools::kubernetes::{self, Layout};
use crate::tools::{Invocation, line};

/// Runs until dropped.
pub(super) struct Cluster {
    /// Each with its name.
    services: Vec<(String, Service)>,
}

/// What the cluster has to know of the rehearsal around it.
pub(super) struct Wanted<'a> {
    /// The contexts of production, all of which lead here.
    pub(super) contexts: Vec<&'a str>,
    /// Where the images are named, and the port of the registry that has them.
    pub(super) registry: (&'a str, u16),
    /// The port outside by which the API server is reached.
    pub(super) door: u16,
}

impl Cluster {
    /// Starts everything; the node is ready when this returns.
    pub(super) fn start(cx: &Context, ws: &Workspace, authority: &Authority, wanted: &Wanted<'_>) -> Result<Self> {
        let (folder, cgroup) = (ws.text(""), ws.name());
        let folder = folder.trim_end_matches('/');
        let layout = Layout { folder, address: RINGTAIL, cgroup: &cgroup };
        write_files(ws, authority, &layout, wanted)?;
        let mut cluster = Self { services: Vec::new() };
        let [store, api, node, rest] = programs(&layout);
        cluster.run(cx, ws, &store)?;
        cluster.run(cx, ws, &api)?;
        cluster.until(cx, &kubernetes::import(&ws.text("host.tar")), "containerd does not take an image")?;
        cluster.until(cx, &ask(ws, &["get", "--raw", "/readyz"]), "the API server does not get ready")?;
        cluster.run(cx, ws, &node)?;
        cluster.run(cx, ws, &rest)?;
        cluster.until(cx, &node_ready(ws), "the node does not get ready")?;
        cluster.services.push(("door".to_owned(), enclosure::door(cx, ws)?));
        Ok(cluster)
    }

    /// The way to somebody's cluster in place of one of our own, with a DNS that knows its Services.
    pub(super) fn borrow(cx: &Context, ws: &Workspace, contexts: &[&str]) -> Result<Self> {
        std::fs::create_dir_all(ws.path("log")).context("can't make log")?;
        let folder = ws.text("");
        let layout = Layout { folder: folder.trim_end_matches('/'), address: RINGTAIL, cgroup: "" };
        pki::private(ws, "kubeconfig", &borrowed_kubeconfig(contexts))?;
        ws.write("Corefile", &layout.corefile(contexts.first().copied().unwrap_or_default()))?;
        let mut cluster = Self { services: Vec::new() };
        cluster.run(cx, ws, &[("door", enclosure::door_to(ws)), ("coredns", layout.coredns())])?;
        cluster.until(cx, &ask(ws, &["get", "--raw", "/readyz"]), "the API server can't be reached")?;
        Ok(cluster)
    }

    fn run(&mut self, cx: &Context, ws: &Workspace, programs: &[(&str, Invocation)]) -> Result<()> {
        for (name, invocation) in programs {
            let service = Service::start(&cx.system, invocation, &ws.path(&format!("log/{name}.log")))?;
            self.services.push(((*name).to_owned(), service));
        }
        Ok(())
    }

    /// Repeats a command until it succeeds, for a minute, or until one of the programs has ended.
    fn until(&self, cx: &Context, invocation: &Invocation, what: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let output = cx.system.output(invocation)?;
            if output.success() {
                return Ok(());
            }
            if let Some((name, service)) = self.services.iter().find(|(_, service)| !service.is_alive()) {
                return Err(Failure::environment(format!("{what}: {name} has ended")).tail(service.tail()).into());
            }
            if started.elapsed() > Duration::from_secs(60) {
                let failure = cx.system.failed(invocation, &output, what);
                return Err(Failure { kind: Kind::Environment, ..failure }.into());
            }
            signal::sleep(Duration::from_millis(100))?;
        }
    }
}

/// kubectl outside has the credentials, and adds them to what comes through the door.
pub(super) fn borrowed_kubeconfig(contexts: &[&str]) -> String {
    Layout::kubeconfig(&format!("http://127.0.0.1:{}", kubernetes::API_PORT), None, contexts)
}

/// What a cluster is made of, in the order that it starts in.
pub(super) fn programs(layout: &Layout<'_>) -> [[(&'static str, Invocation); 2]; 4] {
    [
        [("etcd", layout.etcd()), ("containerd", layout.containerd())],
        [("kube-apiserver", layout.api_server()), ("coredns", layout.coredns())],
        [("kubelet", layout.kubelet()), ("kube-controller-manager", layout.controllers())],
        [("kube-scheduler", layout.scheduler()), ("kube-proxy", layout.proxy())],
    ]
}

/// Waits for the node.
pub(super) fn node_ready(workspace: &Workspace) -> Invocation {
    let node = format!("node/{}", kubernetes::NODE);
    ask(workspace, &["wait", "--for=condition=Ready", &node, "--timeout=5s"])
}

/// kubectl in the rehearsed cluster.
pub(super) fn ask(workspace: &Workspace, args: &[&str]) -> Invocation {
    let kubeconfig = format!("--kubeconfig={}", workspace.text("kubeconfig"));
    line!("kubectl {kubeconfig} {args...}")
}

fn write_files(ws: &Workspace, authority: &Authority, layout: &Layout<'_>, wanted: &Wanted<'_>) -> Result<()> {
    for folder in ["log", "cni", "etcd"] {
        std::fs::create_dir_all(ws.path(folder)).with_context(|| format!("can't make {folder}"))?;
    }
    authority.issue(ws, "apiserver", &["127.0.0.1", "10.96.0.1", RINGTAIL, "kubernetes.default.svc"], None)?;
    authority.issue(ws, "kubelet-client", &["apiserver"], Some("system:masters"))?;
    let accounts = rcgen::KeyPair::generate().context("no key")?;
    pki::private(ws, "pki/accounts.key", &accounts.serialize_pem())?;
    ws.write("pki/accounts.pub", &accounts.public_key_pem())?;
    let token = token()?;
    pki::private(ws, "pki/tokens.csv", &format!("{token},admin,admin,system:masters\n"))?;
    let encoded = base64::engine::general_purpose::STANDARD.encode(authority.pem());
    let config = |port: u16| {
        Layout::kubeconfig(&format!("https://127.0.0.1:{port}"), Some((&encoded, &token)), &wanted.contexts)
    };
    pki::private(ws, "kubeconfig", &config(kubernetes::API_PORT))?;
    pki::private(ws, "kubeconfig-outside", &config(wanted.door))?;
    ws.write("containerd.toml", &layout.containerd_configuration())?;
    ws.write("kubelet.yaml", &layout.kubelet_configuration())?;
    ws.write("cni/10-stage.conflist", &layout.network())?;
    ws.write("Corefile", &layout.corefile(wanted.contexts.first().copied().unwrap_or_default()))?;
    let (registry, port) = wanted.registry;
    ws.write(&format!("registries/{registry}/hosts.toml"), &Layout::mirror(registry, port))?;
    write_image(ws)
}

/// 256 bits of the system's randomness, in hexadecimal.
pub(super) fn token() -> Result<String> {
    process::random().context("no randomness")
}

/// The image of pause containers: catatonit, which is one static file, and nothing else.
fn write_image(ws: &Workspace) -> Result<()> {
    let program = crate::exec::run::find("catatonit").ok_or_else(|| crate::tools::catalog::missing("catatonit"))?;
    let program = std::fs::read(program).context("catatonit can't be read")?;
    let layer = archive(&[("pause", &program, 0o755)])?;
    let architecture = Architecture::here().as_str();
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {"Entrypoint": ["/pause", "-P"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer).as_str()]},
    });
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [kubernetes::PAUSE], "Layers": ["layer.tar"]}]);
    let files = [
        ("config.json", config.to_string().into_bytes(), 0o644),
        ("manifest.json", manifest.to_string().into_bytes(), 0o644),
        ("layer.tar", layer, 0o644),
    ];
    let files: Vec<(&str, &Vec<u8>, u32)> = files.iter().map(|(name, bytes, mode)| (*name, bytes, *mode)).collect();
    std::fs::File::create(ws.path("host.tar"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &archive(&files).unwrap_or_default()))
        .context("the image can't be written")
}

fn archive(files: &[(&str, &Vec<u8>, u32)]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, bytes.as_slice()).context("an archive in memory")?;
    }
    builder.into_inner().context("an archive in memory")
}
