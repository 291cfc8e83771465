//! A service as a graph: from what is built to the name that people type.

use std::collections::{BTreeMap, BTreeSet};

use super::image::split_reference;
use super::names;
use super::source::Place;
use super::world::{App, Object, Ref, World};

/// Where a node stands, from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Source,
    Image,
    Workload,
    Service,
    Ingress,
    Host,
}

impl Layer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Source, Self::Image, Self::Workload, Self::Service, Self::Ingress, Self::Host];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Source => "made from",
            Self::Image => "images, secrets, databases",
            Self::Workload => "workloads",
            Self::Service => "services",
            Self::Ingress => "names in the tailnet",
            Self::Host => "served by Caddy",
        }
    }
}

/// Nodes by layer and label, and the edges between their labels with where they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    pub(crate) nodes: BTreeSet<(Layer, String)>,
    pub(crate) edges: BTreeMap<(String, String), Vec<Place>>,
    /// The nodes that are written somewhere, by label.
    written: BTreeMap<String, Vec<Place>>,
}

impl Graph {
    /// The graph of `apps`.
    pub(crate) fn of(world: &World, apps: &[&App]) -> Self {
        let mut graph = Self::default();
        for app in apps {
            for object in &app.objects {
                graph.written.entry(label(object)).or_default().push(object.root().span());
                match object.kind.as_str() {
                    "Service" => graph.service(app, object),
                    "Ingress" => graph.ingress(object),
                    "ExternalSecret" => graph.secret(object),
                    "Cluster" | "Database" => drop(graph.database(object)),
                    _ if object.pod_template().is_some() => graph.workload(world, app, object),
                    _ => {}
                }
                graph.hosts(world, object);
            }
        }
        graph
    }

    /// The edges that a line of a file is about.
    pub(crate) fn edges_at(&self, path: &str, line: usize) -> Vec<&(String, String)> {
        let about = |(_, places): &(_, &Vec<Place>)| places.iter().any(|place| place.has_line(path, line));
        self.edges.iter().filter(about).map(|(edge, _)| edge).collect()
    }

    /// The nodes that a line of a file is about.
    pub(crate) fn nodes_at(&self, path: &str, line: usize) -> Vec<&str> {
        let about = |(_, places): &(_, &Vec<Place>)| places.iter().any(|place| place.has_line(path, line));
        let is_shown = |label: &&str| self.nodes.iter().any(|(_, node)| node == label);
        self.written.iter().filter(about).map(|(label, _)| label.as_str()).filter(is_shown).collect()
    }

    fn node(&mut self, layer: Layer, label: &str) -> String {
        self.nodes.insert((layer, label.to_owned()));
        label.to_owned()
    }

    fn edge(&mut self, from: String, to: String, written: impl IntoIterator<Item = Place>) {
        self.edges.entry((from, to)).or_default().extend(written);
    }

    fn workload(&mut self, world: &World, app: &App, object: &Object) {
        let workload = self.node(Layer::Workload, &label(object));
        for container in object.containers() {
            let Some(reference) = container.get("image") else { continue };
            let (name, _) = split_reference(reference.text().unwrap_or_default());
            let image = self.node(Layer::Image, name);
            let short = name.rsplit('/').next().unwrap_or(name);
            let home = world.repo.home().is_ok_and(|home| name.starts_with(&format!("{home}/")));
            if home && world.repo.containers.iter().any(|container| container.name.as_str() == short) {
                let source = self.node(Layer::Source, &format!("containers/{short}"));
                let files = world.repo.files.iter().filter(|file| file.folder() == source);
                let whole = files.map(|file| file.place(0, file.text.len())).collect::<Vec<_>>();
                self.edge(source, image.clone(), whole);
            }
            let pins = pins(world, app, name);
            self.edge(image, workload.clone(), pins.into_iter().chain([reference.span()]));
        }
        for (name, written) in secrets(object) {
            let secret = self.node(Layer::Image, &format!("Secret {name}"));
            self.edge(secret, workload.clone(), [written.span()]);
        }
        for database in world.objects().map(|(_, database)| database) {
            if declared(database).is_some_and(|name| logs_in(app, object, name)) {
                let database = self.database(database);
                self.edge(database.unwrap_or_default(), workload.clone(), []);
            }
        }
    }

    /// A database, made in its cluster.
    fn database(&mut self, object: &Object) -> Option<String> {
        let name = declared(object)?;
        let cluster = object.at(&["spec", "cluster", "name"]).and_then(Ref::text).unwrap_or(&object.name);
        let cluster = self.node(Layer::Source, &format!("Cluster {cluster}"));
        let database = self.node(Layer::Image, &format!("Database {name}"));
        self.edge(cluster, database.clone(), [object.root().span()]);
        Some(database)
    }

    fn secret(&mut self, object: &Object) {
        let target = object.secret_name();
        let secret = self.node(Layer::Image, &format!("Secret {target}"));
        let items = |key: &str| object.at(&["spec", key]).map_or_else(Vec::new, Ref::items).into_iter();
        let one = items("data").filter_map(|item| Some((item.text_at(&["remoteRef", "key"])?, item)));
        let whole = items("dataFrom").filter_map(|item| Some((item.text_at(&["extract", "key"])?, item)));
        for (item, written) in one.chain(whole) {
            let item = self.node(Layer::Source, &format!("1Password {item}"));
            self.edge(item, secret.clone(), [written.span()]);
        }
    }

    /// What Caddy serves from it.
    fn hosts(&mut self, world: &World, object: &Object) {
        for (host, backend) in names::in_tailnet(object).map_or_else(Vec::new, |name| names::served(world, name)) {
            let host = self.node(Layer::Host, &host);
            let tls = object.at(&["spec", "tls"]).map(Ref::span);
            self.edge(label(object), host, tls.into_iter().chain([backend]));
        }
    }

    fn service(&mut self, app: &App, object: &Object) {
        let service = self.node(Layer::Service, &label(object));
        let spec = || object.at(&["spec"]).map(Ref::span);
        for workload in app.objects.iter().filter(|workload| object.selects(workload)) {
            self.edge(label(workload), service.clone(), spec());
        }
        if let Some(cluster) = object.at(&["spec", "selector", "cnpg.io/cluster"]).and_then(Ref::text) {
            let cluster = self.node(Layer::Source, &format!("Cluster {cluster}"));
            self.edge(cluster, service, spec());
        }
    }

    fn ingress(&mut self, object: &Object) {
        let ingress = self.node(Layer::Ingress, &label(object));
        for backend in object.backends() {
            let Some(name) = backend.text_at(&["name"]) else { continue };
            self.edge(format!("Service {name}"), ingress.clone(), [backend.span()]);
        }
    }
}

/// Where the kustomizations of an Application pin an image.
fn pins(world: &World, app: &App, image: &str) -> Vec<Place> {
    let kustomization = app.path.as_deref().and_then(|path| world.repo.kustomization(path));
    let Some(kustomization) = kustomization else { return Vec::new() };
    kustomization.entries(image).map(|entry| entry.span(&kustomization.source)).collect()
}

/// The Secrets that a workload takes, whole, by key or as files, and what takes them.
fn secrets<'a>(object: &'a Object) -> Vec<(&'a str, Ref<'a>)> {
    let mut names = Vec::new();
    let mut take = |items: Vec<Ref<'a>>, keys: &[&str]| {
        names.extend(items.into_iter().filter_map(|item| Some((item.text_at(keys)?, item))));
    };
    for container in object.containers() {
        take(container.list(&["envFrom"]), &["secretRef", "name"]);
        take(container.list(&["env"]), &["valueFrom", "secretKeyRef", "name"]);
    }
    let spec = object.pod_template().and_then(|pod| pod.get("spec"));
    take(spec.map_or_else(Vec::new, |spec| spec.list(&["volumes"])), &["secret", "secretName"]);
    names
}

/// The database that an object of CloudNativePG makes.
fn declared(object: &Object) -> Option<&str> {
    let is_cnpg = object.at(&["apiVersion"])?.text()?.starts_with("postgresql.cnpg.io/");
    let keys: &[&str] = match object.kind.as_str() {
        "Database" => &["spec", "name"],
        "Cluster" => &["spec", "bootstrap", "initdb", "database"],
        _ => return None,
    };
    object.at(keys).filter(|_| is_cnpg)?.text()
}

/// Do the settings of a workload name this database, beside a host?
fn logs_in(app: &App, workload: &Object, database: &str) -> bool {
    let own = workload.containers().into_iter().filter_map(|container| container.get("env")).flat_map(Ref::items);
    let own = own.filter_map(|env| Some((env.text_at(&["name"])?, env.text_at(&["value"])?)));
    let taken = secrets(workload);
    let sources = app.objects.iter().filter(|object| {
        let target = object.secret_name();
        object.kind == "ExternalSecret" && taken.iter().any(|(name, _)| *name == target)
    });
    let templates = sources.filter_map(|object| object.at(&["spec", "target", "template", "data"]));
    let made = templates.flat_map(Ref::entries).filter_map(|(key, value)| Some((key, value.text()?)));
    let settings: Vec<(&str, &str)> = own.chain(made).collect();
    settings.iter().filter(|(_, value)| *value == database).any(|(key, _)| {
        let prefix = ["NAME", "DATABASE", "DB"].into_iter().find_map(|suffix| key.strip_suffix(suffix));
        prefix.is_some_and(|prefix| settings.iter().any(|(other, _)| other.strip_prefix(prefix) == Some("HOST")))
    })
}

fn label(object: &Object) -> String {
    format!("{} {}", object.kind, object.name)
}
