//! A service as a graph: from what is built to the name that people type.

use std::collections::{BTreeMap, BTreeSet};

use super::image::split_reference;
use super::world::{App, Object, Ref, World};

/// Where a node stands, from left to right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layer {
    Source,
    Image,
    Workload,
    Service,
    Ingress,
}

impl Layer {
    pub(crate) const ALL: [Self; 5] = [Self::Source, Self::Image, Self::Workload, Self::Service, Self::Ingress];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Source => "made from",
            Self::Image => "images and secrets",
            Self::Workload => "workloads",
            Self::Service => "services",
            Self::Ingress => "names",
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
                    _ if object.pod_template().is_some() => graph.workload(world, object),
                    _ => {}
                }
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

    fn workload(&mut self, world: &World, object: &Object) {
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
            let secrets = container.get("envFrom").map_or_else(Vec::new, Ref::items);
            for name in secrets.into_iter().filter_map(|from| from.text_at(&["secretRef", "name"])) {
                let secret = self.node(Layer::Image, &format!("Secret {name}"));
                self.edge(secret, workload.clone());
            }
        }
    }

    fn secret(&mut self, object: &Object) {
        let target = object.at(&["spec", "target", "name"]).and_then(Ref::text).unwrap_or(&object.name);
        let secret = self.node(Layer::Image, &format!("Secret {target}"));
        let data = object.at(&["spec", "data"]).map_or_else(Vec::new, Ref::items);
        for item in data.into_iter().filter_map(|item| item.text_at(&["remoteRef", "key"])) {
            let item = self.node(Layer::Source, &format!("1Password {item}"));
            self.edge(item, secret.clone());
        }
    }

    fn service(&mut self, app: &App, object: &Object) {
        let service = self.node(Layer::Service, &label(object));
        let selector: BTreeMap<&str, Option<&str>> = labels(object.at(&["spec", "selector"]));
        for workload in app.objects.iter().filter(|other| !selector.is_empty() && other.namespace == object.namespace) {
            let own = labels(workload.pod_template().and_then(|pod| pod.at(&["metadata", "labels"])));
            if selector.iter().all(|(key, value)| own.get(key) == Some(value)) {
                self.edge(label(workload), service.clone());
            }
        }
    }

    fn ingress(&mut self, object: &Object) {
        let ingress = self.node(Layer::Ingress, &label(object));
        if let Some(name) = object.at(&["spec", "defaultBackend", "service", "name"]).and_then(Ref::text) {
            self.edge(format!("Service {name}"), ingress);
        }
    }
}

fn labels(value: Option<Ref<'_>>) -> BTreeMap<&str, Option<&str>> {
    value.map_or_else(Vec::new, Ref::entries).into_iter().map(|(key, value)| (key, value.text())).collect()
}

fn label(object: &Object) -> String {
    format!("{} {}", object.kind, object.name)
}
