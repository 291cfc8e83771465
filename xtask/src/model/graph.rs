//! A service as a graph: from what is built to the name that people type.

use std::collections::BTreeSet;

use super::image::split_reference;
use super::names;
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

/// Nodes by layer and label, and the edges between their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Graph {
    pub(crate) nodes: BTreeSet<(Layer, String)>,
    pub(crate) edges: BTreeSet<(String, String)>,
}

impl Graph {
    /// The graph of `apps`.
    pub(crate) fn of(world: &World, apps: &[&App]) -> Self {
        let mut graph = Self::default();
        for app in apps {
            for object in &app.objects {
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

    fn node(&mut self, layer: Layer, label: &str) -> String {
        self.nodes.insert((layer, label.to_owned()));
        label.to_owned()
    }

    fn edge(&mut self, from: String, to: String) {
        self.edges.insert((from, to));
    }

    fn workload(&mut self, world: &World, app: &App, object: &Object) {
        let workload = self.node(Layer::Workload, &label(object));
        for container in object.containers() {
            let Some(image) = container.text_at(&["image"]) else { continue };
            let (name, _) = split_reference(image);
            let image = self.node(Layer::Image, name);
            let short = name.rsplit('/').next().unwrap_or(name);
            let home = world.repo.home().is_ok_and(|home| name.starts_with(&format!("{home}/")));
            if home && world.repo.containers.iter().any(|container| container.name.as_str() == short) {
                let source = self.node(Layer::Source, &format!("containers/{short}"));
                self.edge(source, image.clone());
            }
            self.edge(image, workload.clone());
        }
        for name in secrets(object) {
            let secret = self.node(Layer::Image, &format!("Secret {name}"));
            self.edge(secret, workload.clone());
        }
        for database in world.objects().map(|(_, database)| database) {
            if declared(database).is_some_and(|name| logs_in(app, object, name)) {
                let database = self.database(database);
                self.edge(database.unwrap_or_default(), workload.clone());
            }
        }
    }

    /// A database, made in its cluster.
    fn database(&mut self, object: &Object) -> Option<String> {
        let name = declared(object)?;
        let cluster = object.at(&["spec", "cluster", "name"]).and_then(Ref::text).unwrap_or(&object.name);
        let cluster = self.node(Layer::Source, &format!("Cluster {cluster}"));
        let database = self.node(Layer::Image, &format!("Database {name}"));
        self.edge(cluster, database.clone());
        Some(database)
    }

    fn secret(&mut self, object: &Object) {
        let target = object.at(&["spec", "target", "name"]).and_then(Ref::text).unwrap_or(&object.name);
        let secret = self.node(Layer::Image, &format!("Secret {target}"));
        let items = |key: &str| object.at(&["spec", key]).map_or_else(Vec::new, Ref::items).into_iter();
        let one = items("data").filter_map(|item| item.text_at(&["remoteRef", "key"]));
        let whole = items("dataFrom").filter_map(|item| item.text_at(&["extract", "key"]));
        for item in one.chain(whole) {
            let item = self.node(Layer::Source, &format!("1Password {item}"));
            self.edge(item, secret.clone());
        }
    }

    /// What Caddy serves from it.
    fn hosts(&mut self, world: &World, object: &Object) {
        for (host, _) in names::in_tailnet(object).map_or_else(Vec::new, |name| names::served(world, name)) {
            let host = self.node(Layer::Host, &host);
            self.edge(label(object), host);
        }
    }

    fn service(&mut self, app: &App, object: &Object) {
        let service = self.node(Layer::Service, &label(object));
        for workload in app.objects.iter().filter(|workload| object.selects(workload)) {
            self.edge(label(workload), service.clone());
        }
        if let Some(cluster) = object.at(&["spec", "selector", "cnpg.io/cluster"]).and_then(Ref::text) {
            let cluster = self.node(Layer::Source, &format!("Cluster {cluster}"));
            self.edge(cluster, service);
        }
    }

    fn ingress(&mut self, object: &Object) {
        let ingress = self.node(Layer::Ingress, &label(object));
        for name in object.backends().into_iter().filter_map(|backend| backend.text_at(&["name"])) {
            self.edge(format!("Service {name}"), ingress.clone());
        }
    }
}

/// The Secrets that a workload takes, whole, by key or as files.
fn secrets(object: &Object) -> Vec<&str> {
    let mut names = Vec::new();
    for container in object.containers() {
        names.extend(container.list(&["envFrom"]).into_iter().filter_map(|from| from.text_at(&["secretRef", "name"])));
        let keys = container.list(&["env"]).into_iter();
        names.extend(keys.filter_map(|env| env.text_at(&["valueFrom", "secretKeyRef", "name"])));
    }
    let spec = object.pod_template().and_then(|pod| pod.get("spec"));
    let volumes = spec.map_or_else(Vec::new, |spec| spec.list(&["volumes"]));
    names.extend(volumes.into_iter().filter_map(|volume| volume.text_at(&["secret", "secretName"])));
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
        let target = object.at(&["spec", "target", "name"]).and_then(Ref::text).unwrap_or(&object.name);
        object.kind == "ExternalSecret" && taken.contains(&target)
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
