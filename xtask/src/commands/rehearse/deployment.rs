//! The plan's phases 3 to 5 on the stage: manifests untouched, Caddy by its role, Prometheus by its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::cluster::{self, Cluster, Wanted};
use super::enclosure::{self, INDRI, TAILNET};
use super::facts::{Deployed, Facts};
use super::pki::{self, Authority};
use super::stage::Stage;
use super::{Args, adapted, borrowed};
use crate::commands::Context;
use crate::exec::env;
use crate::exec::service::Service;
use crate::exec::workspace::Workspace;
use crate::model::failure::Failure;
use crate::model::image::Home;
use crate::model::name::ContainerName;
use crate::report::Reporter;
use crate::tools::kubectl::borrow;
use crate::tools::{Invocation, kustomize, line, nix, own, prometheus};

/// Everything that stands on the stage beside the forge, the registry and the store.
pub(super) struct Deployment<'a> {
    pub(super) cx: Context,
    pub(super) workspace: &'a Workspace,
    pub(super) facts: Facts,
    /// Where the nodes fetch images, if the cluster is somebody's.
    images: Option<String>,
    /// Where our images are named, and which there are.
    home: Home,
    containers: Vec<ContainerName>,
    _cluster: Cluster,
    services: Vec<Service>,
}

impl<'a> Deployment<'a> {
    /// Network and names first, the cluster next, then what runs in it and around it.
    pub(super) fn set_up(
        cx: &Context,
        stage: &Stage<'_>,
        (workspace, args): (&'a Workspace, &Args),
        facts: Facts,
    ) -> Result<Self> {
        let own = own_context(cx, stage, workspace);
        // Before the network: with parts of /proc covered, Nix can't make a sandbox any more.
        let postgres = match &args.images {
            None => postgres()?,
            Some(images) => postgres_image(cx, stage, workspace, images)?,
        };
        let cluster = cluster(cx, &own, stage, (workspace, args), &facts)?;
        let mut deployment = Self {
            cx: own,
            workspace,
            facts,
            images: args.images.clone(),
            home: home(stage)?,
            containers: stage.repo.containers.iter().map(|container| container.name.clone()).collect(),
            _cluster: cluster,
            services: Vec::new(),
        };
        deployment.operators(&postgres)?;
        deployment.apply(&cx.report)?;
        deployment.provision(cx, true, None)?;
        deployment.monitoring(&cx.report, stage)?;
        Ok(deployment)
    }

    /// kubectl, in the rehearsed cluster.
    pub(super) fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cx.system.stdout(&cluster::ask(self.workspace, args), "kubectl")
    }

    fn start(&mut self, name: &str, invocation: &Invocation) -> Result<()> {
        let log = self.workspace.path(&format!("log/{name}.log"));
        self.services.push(Service::start(&self.cx.system, invocation, &log)?);
        Ok(())
    }

    /// The vault, and the stand-ins for what makes Secrets, databases, names and statuses.
    fn operators(&mut self, postgres: &str) -> Result<()> {
        let mut vault = BTreeMap::new();
        for (item, fields) in &self.facts.items {
            let values = fields
                .iter()
                .map(|field| Ok((field, format!("x{}", cluster::token()?))))
                .collect::<Result<BTreeMap<_, _>>>()?;
            vault.insert(item, values);
        }
        pki::private(self.workspace, "vault.json", &json!(vault).to_string())?;
        // Caddy takes the stage's authority for its own.
        for (from, to) in [("pki/ca.crt", "root.crt"), ("pki/ca.key", "root.key")] {
            let text = std::fs::read_to_string(self.workspace.path(from)).context("the authority is gone")?;
            pki::private(self.workspace, &format!("indri/data/caddy/pki/authorities/local/{to}"), &text)?;
        }
        std::fs::create_dir_all(self.workspace.path("tailnet")).context("can't make tailnet")?;
        for line in kinds(self.workspace) {
            self.cx.system.stdout(&line, "kubectl")?;
        }
        let head = self.cx.system.stdout(&crate::tools::git::commit_of("HEAD"), "the clone has a commit")?;
        self.start("operators", &operators(self.workspace, &self.facts.tailnet, head.trim(), postgres))?;
        self.start("layer4", &layer4(&self.facts.tailnet))?;
        let outside = self.facts.outside.make(&self.cx, self.workspace)?;
        self.start("outside", &outside)
    }

    /// The rendered manifests, as they are; before them only what their owners would have made.
    fn apply(&self, report: &Reporter) -> Result<()> {
        let shown = report.stage("apply");
        let namespaces: BTreeSet<&str> =
            self.facts.apps.iter().map(|app| app.namespace.as_str()).chain(["argocd"]).collect();
        for namespace in namespaces {
            let manifest = format!("made/namespace-{namespace}.json");
            let object = match &self.images {
                Some(_) => borrow::namespace(namespace, &borrowed::maker(self.workspace)),
                None => json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
            };
            self.workspace.write(&manifest, &object.to_string())?;
            self.kubectl(&["apply", "--server-side", "-f", &self.workspace.text(&manifest)])?;
        }
        // Somebody's cluster has a provisioner.
        if self.images.is_none() {
            self.volumes()?;
        }
        for app in &self.facts.apps {
            self.call(&render_words(self.workspace, app))?;
            if let Some(images) = &self.images {
                self.adapt(images, app)?;
            }
            for line in applied(self.workspace, app) {
                self.cx.system.stdout(&line, "kubectl")?;
            }
        }
        let names: Vec<&str> = self.facts.apps.iter().map(|app| app.name.as_str()).collect();
        let how = self.images.as_ref().map_or("", |_| ", but for where images are fetched and names lead");
        shown.done(&format!("{}, as rendered{how}", names.join(" and ")));
        Ok(())
    }

    /// What was rendered, with the kustomization of somebody's cluster over it.
    fn adapt(&self, images: &str, app: &Deployed) -> Result<()> {
        let services = self.kubectl(&["get", "services", "--all-namespaces", "--output=json"])?;
        let services: serde_json::Value = serde_json::from_str(&services).context("the Services are no JSON")?;
        let names = borrowed::tailnet_names(&services);
        let over = adapted::kustomization((&self.home, &self.containers), images, &self.facts, names);
        let folder = format!("adapted/{}", app.folder());
        let rendered = self.workspace.path(&format!("rendered/{}.yaml", app.folder()));
        let rendered = std::fs::read_to_string(rendered).context("nothing was rendered")?;
        self.workspace.write(&format!("{folder}/manifests.yaml"), &rendered)?;
        self.workspace.write(&format!("{folder}/kustomization.yaml"), &over.to_string())?;
        let manifests = self.cx.system.stdout(&adaptation(self.workspace, app), "kustomize")?;
        self.workspace.write(&format!("rendered/{}.yaml", app.folder()), &manifests)
    }

    /// The image that is rehearsed, as the nodes know it.
    pub(super) fn image(&self) -> String {
        let home = self.images.as_ref().map(|images| self.facts.image.replacen(&self.home.host, images, 1));
        home.unwrap_or_else(|| self.facts.image.clone())
    }

    /// A folder of the machine to each claim: no provisioner comes with a bare Kubernetes.
    fn volumes(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        for (namespace, name, size) in &self.facts.claims {
            let folder = format!("volumes/{namespace}-{name}");
            std::fs::create_dir_all(self.workspace.path(&folder)).context("a volume")?;
            // As k3s' local-path provisioner leaves it.
            std::fs::set_permissions(self.workspace.path(&folder), std::fs::Permissions::from_mode(0o777))?;
            let volume = json!({
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{namespace}-{name}")},
                "spec": {
                    "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"],
                    "hostPath": {"path": self.workspace.text(&folder)},
                    "claimRef": {"namespace": namespace, "name": name},
                },
            });
            let manifest = format!("made/volume-{namespace}-{name}.json");
            self.workspace.write(&manifest, &volume.to_string())?;
            self.kubectl(&["apply", "--server-side", "-f", &self.workspace.text(&manifest)])?;
        }
        Ok(())
    }

    /// Caddy by its role: first what would change, then for real, then again to see that nothing does.
    pub(super) fn provision(&self, cx: &Context, aloud: bool, without: Option<&str>) -> Result<()> {
        let host = &self.facts.host;
        let inventory = json!({"all": {"hosts": {host: {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}}}});
        self.workspace.write("inventory.json", &inventory.to_string())?;
        let mut variables = json!({
            "caddy_binary": crate::exec::run::find("caddy"), "caddy_config": self.workspace.text("indri/Caddyfile"),
            "caddy_environment_file": self.workspace.text("indri/caddy.env"), "caddy_tls": "internal", "caddy_layer4": [],
        });
        if let Some(gone) = without {
            let kept = self.facts.entries.iter().filter(|entry| entry["name"] != gone);
            variables["caddy_services"] = kept.cloned().collect();
        }
        self.workspace.write("variables.json", &variables.to_string())?;
        let shown = aloud.then(|| cx.report.stage("provision"));
        for way in if aloud { &WAYS[..] } else { &WAYS[1..] } {
            self.call(&provision_words(self.workspace, host, way))?;
        }
        if let Some(shown) = shown {
            let domain = &self.facts.domain;
            shown.done(&format!("{host}: looked at, then configured by its role; Caddy serves *.{domain}"));
        }
        Ok(())
    }

    /// Prometheus with the real configuration, and an agent that plays Alloy.
    fn monitoring(&mut self, report: &Reporter, stage: &Stage<'_>) -> Result<()> {
        let shown = report.stage("metrics");
        let Some([configuration, alloy]) = monitored(&stage.system.root) else {
            shown.skipped("this repository has neither Prometheus nor Alloy");
            return Ok(());
        };
        let data = self.workspace.text("prometheus");
        self.start("prometheus", &prometheus::serve(&configuration.to_string_lossy(), &data, PROMETHEUS))?;
        let (program, alloy) = (stand_in(self.workspace, "alloy.py"), alloy.to_string_lossy().into_owned());
        let agent = self.cx.system.stdout(&line!("python3 -B {program} {alloy}"), "the stand-in for Alloy")?;
        self.workspace.write("agent.yaml", &agent)?;
        let (file, data) = (self.workspace.text("agent.yaml"), self.workspace.text("agent"));
        self.start("agent", &prometheus::agent(&file, &data, AGENT))?;
        shown.done("Prometheus by its configuration; a Prometheus agent scrapes and writes what Alloy's says");
        Ok(())
    }

    /// What `verify` says of each point, asked again for at most `wait`.
    pub(super) fn verify(&self, wait: Duration) -> Result<Vec<serde_json::Value>> {
        let invocation =
            own::call(&verify_words(&self.facts, wait), &["--format", "json"])?.limit(Duration::from_secs(900));
        let output = self.cx.system.output(&invocation)?;
        let value: serde_json::Value = serde_json::from_str(&output.stdout).unwrap_or_default();
        match value.pointer("/result/points").and_then(serde_json::Value::as_array) {
            Some(points) => Ok(points.clone()),
            None => Err(self.cx.system.failed(&invocation, &output, "the verification gave no result").into()),
        }
    }

    /// SQL in the primary of the first database cluster.
    pub(super) fn sql(&self, statements: &str) -> Result<()> {
        let primary = [
            "--all-namespaces",
            "--selector=cnpg.io/instanceRole=primary",
            "--output=jsonpath={.items[0].metadata.namespace} {.items[0].metadata.name}",
        ];
        let primary = self.kubectl(&[&["get", "pods"][..], &primary].concat())?;
        let (namespace, pod) = primary.trim().split_once(' ').unwrap_or_default();
        self.kubectl(&[&["--namespace", namespace, "exec", pod, "--"][..], &PSQL, &[statements]].concat())?;
        Ok(())
    }

    /// What the manifests say, over whatever was changed by hand.
    pub(super) fn apply_again(&self) -> Result<()> {
        for app in &self.facts.apps {
            let file = self.workspace.text(&format!("rendered/{}.yaml", app.folder()));
            let force = ["apply", "--server-side", "--force-conflicts", "--namespace", &app.namespace, "-f", &file];
            self.kubectl(&force)?;
        }
        Ok(())
    }

    /// This program in the clone, with the stage's environment.
    pub(super) fn call(&self, words: &[String]) -> Result<serde_json::Value> {
        super::call(&self.cx.system, None, words)
    }
}

/// The network with its names, and the cluster in it.
pub(super) fn cluster(
    cx: &Context,
    own: &Context,
    stage: &Stage<'_>,
    (workspace, args): (&Workspace, &Args),
    facts: &Facts,
) -> Result<Cluster> {
    let authority = Authority::new(workspace)?;
    let shown = cx.report.stage("network");
    enclosure::set_up(own, workspace, &authority.pem(), &facts.hosts_file())?;
    authority.issue(workspace, "tailnet", &[&format!("*.{}", facts.tailnet)], None)?;
    let outside: Vec<&str> = facts.outside.charts.iter().map(|charts| charts.host.as_str()).collect();
    authority.issue(workspace, "outside", &outside, None)?;
    shown.done(&format!("{} names of production lead to this stage, and nowhere else", facts.hosts.len()));
    let shown = cx.report.stage("cluster");
    let contexts: Vec<&str> = facts.contexts.iter().map(String::as_str).collect();
    let all = facts.contexts.join(" and ");
    let cluster = if let Some(context) = &args.cluster {
        let cluster = Cluster::borrow(own, workspace, &contexts)?;
        shown.done(&format!("{context}; {all} all lead to it on this stage"));
        cluster
    } else {
        let wanted = Wanted { contexts, registry: (&home(stage)?.host, stage.port), door: args.door };
        let cluster = Cluster::start(own, workspace, &authority, &wanted)?;
        shown.done(&format!("Kubernetes, one node ready; {all} all lead to it"));
        cluster
    };
    cx.report.say(&format!("    {}", super::kubectl_outside(workspace, args)));
    Ok(cluster)
}

fn home(stage: &Stage<'_>) -> Result<Home> {
    Ok(stage.repo.home().map_err(|finding| Failure::of_findings("nothing to rehearse", vec![finding]))?)
}

/// The configurations of Prometheus and Alloy, where a checkout has both.
pub(super) fn monitored(root: &Path) -> Option<[PathBuf; 2]> {
    let files = ["argocd/manifests/prometheus/prometheus.yml", "argocd/manifests/alloy-ringtail/config.alloy"];
    let files = files.map(|file| root.join(file));
    files.iter().all(|file| file.is_file()).then_some(files)
}

/// Where Prometheus and its agent listen.
pub(super) const PROMETHEUS: &str = "127.0.0.1:9090";
pub(super) const AGENT: &str = "127.0.0.1:9091";

/// How SQL is run in the database's pod.
pub(super) const PSQL: [&str; 6] =
    ["psql", "--username=postgres", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--command"];

/// What the host is provisioned with: first what would change, then for real.
pub(super) const WAYS: [&[&str]; 2] = [&["--check", "--diff"], &["--yes"]];

fn stand_in(workspace: &Workspace, name: &str) -> String {
    workspace.text(&format!("clone/xtask/stand-ins/cluster/{name}"))
}

/// The kinds of the operators.
pub(super) fn kinds(workspace: &Workspace) -> [Invocation; 2] {
    let file = stand_in(workspace, "crds.yaml");
    let wait = ["wait", "--for=condition=Established", "-f", &file, "--timeout=30s"];
    [cluster::ask(workspace, &["apply", "--server-side", "-f", &file]), cluster::ask(workspace, &wait)]
}

/// Builds the image of the database's stand-in.
pub(super) fn postgres_build(workspace: &Workspace) -> Invocation {
    nix::build_to_push(&workspace.path("clone/xtask/stand-ins/cluster/postgresql.nix"))
}

/// Puts it into the stage's registry.
pub(super) fn postgres_words(built: &str) -> Vec<String> {
    ["registry", "push", built, adapted::POSTGRES].map(str::to_owned).to_vec()
}

/// Puts the kustomization of somebody's cluster over what was rendered.
pub(super) fn adaptation(workspace: &Workspace, app: &Deployed) -> Invocation {
    kustomize::build("kustomize", &workspace.text(&format!("adapted/{}", app.folder())))
}

/// What stands in for the operators, with the commit that ArgoCD would report and PostgreSQL's folder.
pub(super) fn operators(workspace: &Workspace, tailnet: &str, head: &str, postgres: &str) -> Invocation {
    let (program, folder) = (stand_in(workspace, "operators.py"), workspace.text("tailnet"));
    line!("python3 -B {program} {folder} {tailnet} {TAILNET} {head} {postgres}")
}

/// Caddy's layer 4 is a module that no package of Debian has.
pub(super) fn layer4(tailnet: &str) -> Invocation {
    let target = format!("TCP:pg.{tailnet}:5432");
    let listen = format!("TCP-LISTEN:5432,bind={INDRI},fork,reuseaddr");
    line!("socat {listen} {target}")
}

pub(super) fn render_words(workspace: &Workspace, app: &Deployed) -> Vec<String> {
    ["render", app.folder(), "--to", &workspace.text("rendered")].map(str::to_owned).to_vec()
}

/// What an Application deploys, once rendered, and the Application.
pub(super) fn applied(workspace: &Workspace, app: &Deployed) -> [Invocation; 2] {
    let apply = |namespace: &str, file: String| {
        cluster::ask(workspace, &["apply", "--server-side", "--namespace", namespace, "-f", &file])
    };
    [
        apply(&app.namespace, workspace.text(&format!("rendered/{}.yaml", app.folder()))),
        apply("argocd", workspace.text(&format!("clone/{}", app.file))),
    ]
}

pub(super) fn provision_words(workspace: &Workspace, host: &str, way: &[&str]) -> Vec<String> {
    let variables = format!("@{}", workspace.text("variables.json"));
    let inventory = workspace.text("inventory.json");
    let words = [&["provision", host, "--tags", "caddy", "--dirty"][..], way].concat();
    let rest = ["--", "--inventory", &inventory, "--extra-vars", &variables];
    words.into_iter().chain(rest).map(str::to_owned).collect()
}

pub(super) fn verify_words(facts: &Facts, wait: Duration) -> Vec<String> {
    let wait = format!("{}s", wait.as_secs());
    let mut words = vec!["verify", &facts.service];
    words.extend((wait != "0s").then_some(["--wait", &wait]).into_iter().flatten());
    words.push("--services");
    words.extend(facts.apps.iter().map(|app| app.name.as_str()));
    words.into_iter().map(str::to_owned).collect()
}

/// This machine's PostgreSQL for nodes that are another machine: built, and put into the stage's registry.
fn postgres_image(cx: &Context, stage: &Stage<'_>, workspace: &Workspace, images: &str) -> Result<String> {
    let shown = cx.report.stage("database");
    let what = "the image of the database's stand-in";
    let built = stage.system.stdout(&postgres_build(workspace), what)?;
    super::call(&stage.system, None, &postgres_words(built.trim()))?;
    shown.done("an image of this machine's PostgreSQL, for the nodes");
    Ok(format!("{images}/{}", adapted::POSTGRES))
}

/// PostgreSQL's own folder on this machine.
fn postgres() -> Result<String> {
    let server = crate::exec::run::find("postgres").ok_or_else(|| crate::tools::catalog::missing("postgres"))?;
    // A link on PATH leads to the folder that has the rest.
    let server = server.canonicalize().context("PostgreSQL's folder is not known")?;
    let folder = server.parent().and_then(|bin| bin.parent()).map(|folder| folder.to_string_lossy().into_owned());
    folder.ok_or_else(|| Failure::environment("PostgreSQL's folder is not known").into())
}

/// The clone, with the stage's variables and stand-in programs first on PATH.
pub(super) fn own_context(cx: &Context, stage: &Stage<'_>, workspace: &Workspace) -> Context {
    let mut overlay = stage.system.overlay.clone();
    // A release has no forge to wait for; here one is behind Caddy.
    overlay.retain(|(name, _)| name != "BLUMEOPS_FORGE_URL");
    overlay.push(("BLUMEOPS_FORGE_URL".to_owned(), None));
    let path = env::var("PATH").unwrap_or_default();
    let stand_ins = workspace.text("clone/xtask/stand-ins/cluster/bin");
    for (name, value) in [
        // The cache is another one inside; what `setup` has built is in the old.
        ("PATH", format!("{stand_ins}:{path}:{}", env::tools_folder().join("bin").display())),
        ("KUBECONFIG", workspace.text("kubeconfig")),
        ("BLUMEOPS_STAND_IN_VAULT", workspace.text("vault.json")),
        ("BLUMEOPS_STAND_IN_INDRI", workspace.text("indri")),
        ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt".to_owned()),
    ] {
        overlay.push((name.to_owned(), Some(value)));
    }
    let system = cx.system.at(stage.system.root.clone(), overlay);
    Context { system, report: cx.report.clone(), repo: stage.repo.clone(), grammar: cx.grammar }
}
