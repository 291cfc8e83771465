//! What the repository says of the service that is rehearsed, as far as the stage has to know it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::enclosure::{INDRI, OUTSIDE, RINGTAIL, TAILNET};
use super::outside::Outside;
use super::stage::Stage;
use crate::commands::{Context, check};
use crate::model::failure::Failure;
use crate::model::image::split_reference;
use crate::model::repo::Repo;
use crate::model::source::Source;
use crate::model::world::{App, Facts as Unasked, Object, Ref, World};
use crate::model::yaml::{self, Node};
use crate::tools::kubernetes;

/// An Application that is deployed.
pub(super) struct Deployed {
    pub(super) name: String,
    /// Its own file, and the folder that it deploys.
    pub(super) file: String,
    pub(super) folder: String,
    pub(super) namespace: String,
}

/// What the repository says of the service that is rehearsed.
pub(super) struct Facts {
    /// The Application that runs its image.
    pub(super) service: String,
    /// The image, as it is pinned.
    pub(super) image: String,
    /// What is deployed: the databases first, then the service.
    pub(super) apps: Vec<Deployed>,
    pub(super) domain: String,
    pub(super) tailnet: String,
    /// Caddy's services, as its role lists them.
    pub(super) entries: Vec<serde_json::Value>,
    /// The host that Caddy's role configures.
    pub(super) host: String,
    pub(super) contexts: Vec<String>,
    pub(super) hosts: Vec<String>,
    /// Item to fields, of everything that a Secret or a playbook reads.
    pub(super) items: BTreeMap<String, BTreeSet<String>>,
    /// Claims that want a volume: namespace, name, size.
    pub(super) claims: Vec<(String, String, String)>,
    /// What is asked for elsewhere.
    pub(super) outside: Outside,
}

impl Deployed {
    /// The last part of its folder, by which `render` knows it.
    pub(super) fn folder(&self) -> &str {
        self.folder.rsplit('/').next().unwrap_or(&self.folder)
    }

    fn of(app: &App) -> Option<Self> {
        let (name, file, namespace) = (app.name.clone(), app.file.path.to_string(), app.namespace.clone());
        Some(Self { name, file, folder: app.path.clone()?, namespace })
    }
}

impl Facts {
    /// What the rehearsal of the image `image` needs to know; nothing where no Application runs it.
    pub(super) fn of(cx: &Context, stage: &Stage<'_>, image: &str) -> Result<Option<Self>> {
        let (system, report) = (stage.system.clone(), cx.report.clone());
        let world = check::world(&Context { system, report, repo: stage.repo.clone(), grammar: cx.grammar })?;
        let runs = |app: &&App| {
            app.objects
                .iter()
                .flat_map(Object::containers)
                .any(|container| container.text_at(&["image"]).is_some_and(|text| split_reference(text).0 == image))
        };
        let Some(service) = world.apps.iter().find(runs) else { return Ok(None) };
        let is_database =
            |app: &&App| app.name != service.name && app.objects.iter().any(|object| object.kind == "Cluster");
        let apps: Vec<&App> = world.apps.iter().filter(is_database).chain([service]).collect();
        Self::from(&world, &stage.system.root, service, (&apps, image)).map(Some)
    }

    /// The same before anything is rendered: what only rendered objects say is missing.
    pub(super) fn beforehand(repo: &Repo, root: &Path, image: &str) -> Result<Option<Self>> {
        let world = World::new(repo.clone(), Unasked::default());
        let users = repo.users(image);
        let runs = |app: &&App| {
            let folders = users.entries.iter().map(|(kustomization, _)| kustomization.source.folder());
            folders.into_iter().any(|folder| app.path.as_deref() == Some(folder))
        };
        let Some(service) = world.apps.iter().find(runs) else { return Ok(None) };
        let is_database = |app: &&App| {
            let files = repo.files.iter().filter(|file| app.path.as_deref() == Some(file.folder()));
            let mut nodes = files.flat_map(|file| yaml::parse(file).unwrap_or_default());
            app.name != service.name && nodes.any(|node| node.get("kind").and_then(Node::text) == Some("Cluster"))
        };
        let apps: Vec<&App> = world.apps.iter().filter(is_database).chain([service]).collect();
        Self::from(&world, root, service, (&apps, image)).map(Some)
    }

    fn from(world: &World, root: &Path, service: &App, (apps, image): (&[&App], &str)) -> Result<Self> {
        let caddy = Caddy::of(world)?;
        let contexts = world.repo.config.clusters.iter().filter_map(|cluster| cluster.context.as_ref());
        let mut contexts: Vec<String> = contexts.map(ToString::to_string).collect();
        if contexts.is_empty() {
            contexts.push("rehearsal".to_owned());
        }
        Ok(Self {
            service: service.name.clone(),
            image: pinned(service, image),
            outside: Outside::of(&world.repo, root, &service.name, &caddy.entries),
            entries: caddy.entries.clone(),
            apps: apps.iter().filter_map(|app| Deployed::of(app)).collect(),
            hosts: caddy.hosts(world),
            domain: caddy.domain,
            tailnet: caddy.tailnet,
            host: caddy.host,
            contexts,
            items: items(world, apps),
            claims: claims(apps),
        })
    }

    /// Where the service runs.
    pub(super) fn namespace(&self) -> &str {
        self.apps.last().map_or("default", |app| app.namespace.as_str())
    }

    /// The name by which pods reach the database.
    pub(super) fn database(&self) -> String {
        format!("pg.{}", self.domain)
    }

    pub(super) fn hosts_file(&self) -> String {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for host in &self.hosts {
            let address = if host.ends_with(&self.domain) { INDRI } else { TAILNET };
            text += &format!("{address} {host}\n");
        }
        text.extend(self.outside.charts.iter().map(|charts| format!("{OUTSIDE} {}\n", charts.host)));
        text += &format!("{RINGTAIL} {}.{}\n{INDRI} {}.{}\n", kubernetes::NODE, self.tailnet, self.host, self.tailnet);
        text
    }
}

/// How the Application names `image`: with tag and digest.
fn pinned(app: &App, image: &str) -> String {
    let containers = app.objects.iter().flat_map(Object::containers);
    let mut images = containers.filter_map(|container| container.text_at(&["image"]));
    images.find(|text| split_reference(text).0 == image).unwrap_or(image).to_owned()
}

/// What Caddy's role says.
struct Caddy {
    pub(super) entries: Vec<serde_json::Value>,
    domain: String,
    tailnet: String,
    host: String,
    names: Vec<String>,
}

impl Caddy {
    fn of(world: &World) -> Result<Self> {
        let missing =
            || Failure::refused("this repository has no Caddy role with caddy_domain and caddy_tailnet to rehearse");
        let files = world.repo.files.iter().filter(|file| file.path.starts_with("ansible/"));
        let documents: Vec<(&Source, Node)> = files
            .flat_map(|file| yaml::parse(file).unwrap_or_default().into_iter().map(move |node| (file, node)))
            .collect();
        let (_, defaults) =
            documents.iter().find(|(_, document)| document.get("caddy_services").is_some()).ok_or_else(missing)?;
        let text = |key: &str| defaults.get(key).and_then(Node::text).map(str::to_owned).ok_or_else(missing);
        let plays = documents.iter().flat_map(|(_, document)| document.items());
        let has_caddy = |play: &&Node| {
            let roles = play.get("roles").map_or(&[][..], Node::items);
            roles.iter().any(|role| role.get("role").unwrap_or(role).text() == Some("caddy"))
        };
        let host = plays.clone().find(has_caddy).and_then(|play| play.get("hosts")?.text().map(str::to_owned));
        let entries = defaults.get("caddy_services").map_or(&[][..], Node::items);
        let names = entries
            .iter()
            .filter_map(|entry| entry.get("host")?.text()?.split(['.', ' ', '{']).next().map(str::to_owned));
        Ok(Self {
            entries: entries.iter().map(Node::typed).collect(),
            domain: text("caddy_domain")?,
            tailnet: text("caddy_tailnet")?,
            host: host.ok_or_else(missing)?,
            names: names.collect(),
        })
    }

    /// Every name that something on the stage may ask for.
    fn hosts(&self, world: &World) -> Vec<String> {
        let mut hosts: BTreeSet<String> = self.names.iter().map(|name| format!("{name}.{}", self.domain)).collect();
        hosts.insert(format!("pg.{}", self.domain));
        for (_, object) in world.objects() {
            let ingress = object.at(&["spec", "tls"]).and_then(|tls| tls.items().first().copied());
            let ingress = ingress.and_then(|tls| tls.get("hosts")?.items().first()?.text());
            let service = object.at(&["metadata", "annotations", "tailscale.com/hostname"]).and_then(Ref::text);
            hosts.extend(ingress.or(service).map(|name| format!("{name}.{}", self.tailnet)));
        }
        hosts.into_iter().collect()
    }
}

/// Everything that is read from the vault: by the `ExternalSecrets` of `apps`, and by playbooks.
fn items(world: &World, apps: &[&App]) -> BTreeMap<String, BTreeSet<String>> {
    let mut items: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for object in apps.iter().flat_map(|app| &app.objects).filter(|object| object.kind == "ExternalSecret") {
        for entry in object.at(&["spec", "data"]).map_or_else(Vec::new, Ref::items) {
            let (Some(key), field) = (entry.text_at(&["remoteRef", "key"]), entry.text_at(&["remoteRef", "property"]))
            else {
                continue;
            };
            items.entry(key.to_owned()).or_default().insert(field.unwrap_or("password").to_owned());
        }
    }
    for file in world.repo.files.iter().filter(|file| file.path.starts_with("ansible/")) {
        for reference in file.text.split("op://").skip(1) {
            let reference = reference.split(['"', '\'', '\n']).next().unwrap_or_default();
            if let [_, item, field] = reference.split('/').collect::<Vec<_>>()[..] {
                items.entry(item.to_owned()).or_default().insert(field.to_owned());
            }
        }
    }
    items
}

fn claims(apps: &[&App]) -> Vec<(String, String, String)> {
    let objects = apps.iter().flat_map(|app| &app.objects).filter(|object| object.kind == "PersistentVolumeClaim");
    let size = |object: &Object| object.at(&["spec", "resources", "requests", "storage"])?.text().map(str::to_owned);
    objects.filter_map(|object| Some((object.namespace.clone(), object.name.clone(), size(object)?))).collect()
}
