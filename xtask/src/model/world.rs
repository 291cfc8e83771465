//! What the clusters are told to run: every Application with its rendered objects, each tied to where it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use super::declaration::Declarations;
use super::digest::Digest;
use super::finding::Finding;
use super::grammar::Grammar;
use super::kustomization::FILE_NAMES;
use super::repo::{Repo, folder, is_manifest};
use super::source::{Place, Source};
use super::tag::GitTag;
use super::yaml::{self, Node, Value};

/// What reading the checkout alone can't tell.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Every file of the checkout, relative to the root.
    pub(crate) paths: BTreeSet<String>,
    /// Release tags; nothing where the clone has none at all.
    pub(crate) tags: Option<BTreeSet<GitTag>>,
    /// Folder to what it renders to.
    pub(crate) rendered: BTreeMap<String, Rendered>,
    /// What a registry says is at (repository, tag); nothing where it was not asked, or did not answer.
    pub(crate) published: BTreeMap<(String, String), Option<Digest>>,
    /// What this tool can be called with.
    pub(crate) grammar: Option<Grammar>,
    /// All that is rendered and written here is known to fit its schemas, from a run before.
    pub(crate) is_decoded: bool,
}

/// What became of a folder.
#[derive(Clone, Debug)]
pub(crate) enum Rendered {
    /// The manifests.
    Text(Source),
    /// It does not render.
    Failed(Box<Finding>),
    /// It can't be rendered here; the reason, as a fragment.
    NotChecked(String),
}

/// Everything that rules look at.
pub(crate) struct World {
    pub(crate) repo: Repo,
    pub(crate) facts: Facts,
    pub(crate) apps: Vec<App>,
    /// What can't be checked, with the reason.
    pub(crate) not_checked: Vec<String>,
    /// What building this value has found.
    pub(crate) findings: Vec<Finding>,
    /// What our images declare, once a rule has asked.
    pub(crate) declarations: OnceLock<Declarations>,
}

/// One Application.
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) file: Source,
    pub(crate) node: Node,
    /// The cluster's name where the configuration knows it, else its address.
    pub(crate) cluster: String,
    pub(crate) namespace: String,
    /// The folder in this repository, if that is where it comes from.
    pub(crate) path: Option<String>,
    pub(crate) objects: Vec<Object>,
    /// Everything it deploys is among its objects: nothing comes from a chart, from elsewhere or from a broken folder.
    pub(crate) is_whole: bool,
}

/// One rendered object.
pub(crate) struct Object {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    node: Node,
    /// The document it was written as.
    origin: Option<(Source, Node)>,
    /// Where to point when that is not known.
    fallback: Place,
}

/// A value of an object, and where it is written.
#[derive(Clone, Copy)]
pub(crate) struct Ref<'a> {
    object: &'a Object,
    node: &'a Node,
    written: Option<&'a Node>,
    /// The nearest enclosing value that is written.
    near: Option<&'a Node>,
}

impl Object {
    pub(crate) fn root(&self) -> Ref<'_> {
        let written = self.origin.as_ref().map(|(_, node)| node);
        Ref { object: self, node: &self.node, written, near: written }
    }

    /// An object that a chart's template has made, which is all that is known of where it is written.
    pub(crate) fn of_template(node: Node, namespace: &str, template: Place) -> Option<Self> {
        let text = |keys: &[&str]| node.path(keys).and_then(Node::text).map(str::to_owned);
        let (kind, name) = (text(&["kind"])?, text(&["metadata", "name"])?);
        let namespace = text(&["metadata", "namespace"]).unwrap_or_else(|| namespace.to_owned());
        Some(Self { kind, name, namespace, node, origin: None, fallback: template })
    }

    /// The value at the end of `keys`.
    pub(crate) fn at(&self, keys: &[&str]) -> Option<Ref<'_>> {
        self.root().at(keys)
    }

    /// Its value, for who wants types.
    pub(crate) fn typed(&self) -> serde_json::Value {
        self.node.typed()
    }

    /// Is its namespace written in it, and not only that of its Application's destination?
    pub(crate) fn names_its_namespace(&self) -> bool {
        self.at(&["metadata", "namespace"]).is_some()
    }

    pub(crate) fn place(&self) -> Place {
        self.at(&["metadata", "name"]).unwrap_or(self.root()).place()
    }

    /// The Secret that an `ExternalSecret` makes.
    pub(crate) fn secret_name(&self) -> &str {
        self.at(&["spec", "target", "name"]).and_then(Ref::text).unwrap_or(&self.name)
    }

    /// The pod that a workload runs, with its labels one level up.
    pub(crate) fn pod_template(&self) -> Option<Ref<'_>> {
        match self.kind.as_str() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => self.at(&["spec", "template"]),
            "CronJob" => self.at(&["spec", "jobTemplate", "spec", "template"]),
            "Pod" => Some(self.root()),
            _ => None,
        }
    }

    /// Is it a Service, or what else has a selector, that these pods are behind?
    pub(crate) fn selects(&self, workload: &Self) -> bool {
        let wanted = self.at(&["spec", "selector"]).map_or_else(Vec::new, Ref::entries);
        let labels = workload.pod_template().and_then(|pod| pod.at(&["metadata", "labels"]));
        let has = |(key, value): &(&str, Ref<'_>)| labels.and_then(|labels| labels.text_at(&[key])) == value.text();
        !wanted.is_empty() && self.namespace == workload.namespace && wanted.iter().all(has)
    }

    /// The Services that an Ingress leads to.
    pub(crate) fn backends(&self) -> Vec<Ref<'_>> {
        let rules = self.root().list(&["spec", "rules"]).into_iter();
        let paths = rules.flat_map(|rule| rule.list(&["http", "paths"]));
        let backends = paths.filter_map(|path| path.at(&["backend", "service"]));
        self.at(&["spec", "defaultBackend", "service"]).into_iter().chain(backends).collect()
    }

    /// Every container of its pod, init containers included.
    pub(crate) fn containers(&self) -> Vec<Ref<'_>> {
        let Some(spec) = self.pod_template().and_then(|template| template.get("spec")) else { return Vec::new() };
        let lists = ["containers", "initContainers"].into_iter().filter_map(|key| spec.get(key));
        lists.flat_map(Ref::items).collect()
    }
}

impl<'a> Ref<'a> {
    pub(crate) fn get(self, key: &str) -> Option<Self> {
        let node = self.node.get(key)?;
        let written = self.written.and_then(|written| written.get(key));
        Some(Self { node, written, near: written.or(self.near), ..self })
    }

    pub(crate) fn at(self, keys: &[&str]) -> Option<Self> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    pub(crate) fn text(self) -> Option<&'a str> {
        self.node.text()
    }

    /// The text at the end of `keys`.
    pub(crate) fn text_at(self, keys: &[&str]) -> Option<&'a str> {
        self.at(keys)?.text()
    }

    /// The items of a list. What is written is matched by position, or by name where positions differ.
    pub(crate) fn items(self) -> Vec<Self> {
        let written = self.written.map_or(&[][..], Node::items);
        let items = self.node.items();
        let same = written.len() == items.len();
        let find = |at: usize, item: &Node| {
            let name = item.get("name").and_then(Node::text);
            if same {
                written.get(at)
            } else {
                written.iter().find(|other| name.is_some() && other.get("name").and_then(Node::text) == name)
            }
        };
        items
            .iter()
            .enumerate()
            .map(|(at, node)| {
                let written = find(at, node);
                Self { node, written, near: written.or(self.near), ..self }
            })
            .collect()
    }

    /// The items of the list at the end of `keys`, if there is one.
    pub(crate) fn list(self, keys: &[&str]) -> Vec<Self> {
        self.at(keys).map_or_else(Vec::new, Self::items)
    }

    /// Keys and values of a mapping.
    pub(crate) fn entries(self) -> Vec<(&'a str, Self)> {
        let Value::Mapping(entries) = &self.node.value else { return Vec::new() };
        let entry = |(key, node): &'a (Node, Node)| {
            let written = self.written.and_then(|written| written.get(key.text()?));
            Some((key.text()?, Self { node, written, near: written.or(self.near), ..self }))
        };
        entries.iter().filter_map(entry).collect()
    }

    /// Calls `visit` with every scalar below.
    pub(crate) fn scalars(self, visit: &mut impl FnMut(Self)) {
        match &self.node.value {
            Value::Scalar(_) => visit(self),
            Value::Sequence(_) => self.items().into_iter().for_each(|item| item.scalars(visit)),
            Value::Mapping(_) => self.entries().into_iter().for_each(|(_, value)| value.scalars(visit)),
        }
    }

    /// Where it is written, or what encloses it there; of several lines the first.
    pub(crate) fn place(self) -> Place {
        let Some(((source, _), node)) = self.object.origin.as_ref().zip(self.written.or(self.near)) else {
            return self.object.fallback.clone();
        };
        source.first_line(node.start, node.end)
    }

    /// All of it, as it is written.
    pub(crate) fn span(self) -> Place {
        match (self.object.origin.as_ref(), self.written) {
            (Some((source, _)), Some(node)) => source.place(node.start, node.end.min(source.text.len())),
            _ => self.place(),
        }
    }

    /// Where `needle` is written in it: of a text of many lines the one that matters.
    pub(crate) fn place_of(self, needle: &str) -> Place {
        let whole = self.place();
        let end = self.written.map_or(whole.end, |node| node.end.min(whole.source.text.len()));
        match whole.source.text.get(whole.start..end).and_then(|text| text.find(needle)) {
            Some(at) => whole.source.place(whole.start + at, whole.start + at + needle.len()),
            None => whole,
        }
    }

    /// Where the key of one of its entries is written, or what encloses it there.
    pub(crate) fn key_place(self, key: &str) -> Place {
        let origin = self.object.origin.as_ref().map(|(source, _)| source);
        match origin.zip(self.written.and_then(|written| written.entry(key))) {
            Some((source, (key, _))) => key.place(source),
            None => self.get(key).unwrap_or(self).place(),
        }
    }

    /// Its value, for who wants types.
    pub(crate) fn typed(self) -> serde_json::Value {
        self.node.typed()
    }
}

impl World {
    pub(crate) fn new(repo: Repo, facts: Facts) -> Self {
        let mut world = Self {
            repo,
            facts,
            apps: Vec::new(),
            not_checked: Vec::new(),
            findings: Vec::new(),
            declarations: OnceLock::new(),
        };
        let files: Vec<Source> = world.repo.files.clone();
        for file in files.iter().filter(|file| file.path.starts_with("argocd/") && is_manifest(file)) {
            for node in yaml::parse(file).unwrap_or_default() {
                match node.get("kind").and_then(Node::text) {
                    Some("Application") => world.add_app(file, node),
                    Some("ApplicationSet") => {
                        world.not_checked.push(format!("{}: an ApplicationSet is not expanded", file.path));
                    }
                    _ => {}
                }
            }
        }
        world
    }

    fn add_app(&mut self, file: &Source, node: Node) {
        let text = |keys: &[&str]| node.path(keys).and_then(Node::text).unwrap_or_default().to_owned();
        let name = text(&["metadata", "name"]);
        let server = text(&["spec", "destination", "server"]);
        let server = if server.is_empty() { text(&["spec", "destination", "name"]) } else { server };
        // ArgoCD's own name for the cluster it runs in.
        let server = if server == "in-cluster" { "https://kubernetes.default.svc".to_owned() } else { server };
        let cluster = self.repo.config.clusters.iter().find(|cluster| cluster.server == server);
        let cluster = cluster.map_or(server, |cluster| cluster.name.clone());
        let namespace = text(&["spec", "destination", "namespace"]);
        let known = self.not_checked.len();
        let path = self.own_path(&name, &node);
        let file = file.clone();
        let mut app =
            App { name, file, node, cluster, namespace, path: path.clone(), objects: Vec::new(), is_whole: true };
        let rendered = path.is_some_and(|path| self.fill(&mut app, &path));
        app.is_whole = rendered && self.not_checked.len() == known;
        self.apps.push(app);
    }

    /// The folder of this repository that an Application deploys.
    fn own_path(&mut self, name: &str, node: &Node) -> Option<String> {
        let spec = node.get("spec")?;
        let sources = match spec.get("sources") {
            Some(sources) => sources.items().to_vec(),
            None => spec.get("source").cloned().into_iter().collect(),
        };
        let mut own = None;
        for source in &sources {
            let path = source.get("path").and_then(Node::text).map(folder);
            let changes = source.get("kustomize").or(source.get("plugin"));
            if changes.is_some_and(|changes| matches!(&changes.value, Value::Mapping(keys) if !keys.is_empty())) {
                self.not_checked.push(format!("{name}: what its Application itself changes in its objects"));
            }
            let exists = |path: &String| self.facts.paths.iter().any(|file| file.starts_with(&format!("{path}/")));
            match path {
                _ if source.get("chart").is_some() => {
                    self.not_checked.push(format!("{name}: a Helm chart from a repository is not rendered"));
                }
                Some(path) if exists(&path) => own = Some(path),
                Some(path) if self.is_own(source) => own = Some(path),
                Some(_) => self.not_checked.push(format!("{name}: comes from another repository")),
                None => {}
            }
        }
        own
    }

    /// Is it the repository that most Applications with an existing path name?
    fn is_own(&self, source: &Node) -> bool {
        let url = source.get("repoURL").and_then(Node::text).unwrap_or_default();
        let mut urls = BTreeMap::<&str, usize>::new();
        for application in &self.repo.applications {
            let folder = format!("{}/", application.path);
            if self.facts.paths.iter().any(|path| path.starts_with(&folder)) {
                *urls.entry(&application.url).or_default() += 1;
            }
        }
        urls.into_iter().max_by_key(|&(_, count)| count).is_none_or(|(most, _)| most == url)
    }

    /// Reads what `path` rendered to, if it did.
    fn fill(&mut self, app: &mut App, path: &str) -> bool {
        let spec = app.node.get("spec");
        let place = spec.and_then(|spec| spec.path(&["source", "path"])).unwrap_or(&app.node).place(&app.file);
        match self.facts.rendered.get(path) {
            Some(Rendered::Text(rendered)) => {
                let documents = match yaml::parse(rendered) {
                    Ok(documents) => documents,
                    Err(finding) => {
                        // Without a kustomization it is the files themselves, and they have been read.
                        match self.repo.kustomization(path) {
                            Some(_) => self.findings.push(*finding),
                            None => self.not_checked.push(format!("{}: not all of {path} is YAML", app.name)),
                        }
                        return false;
                    }
                };
                let origins = self.origins(path);
                let fallback = self.repo.kustomization(path).map_or(place, |k| k.source.place(0, 0));
                app.objects.extend(objects(documents, &origins, (&fallback, &app.namespace)));
                return true;
            }
            Some(Rendered::Failed(finding)) => self.findings.push((**finding).clone()),
            Some(Rendered::NotChecked(why)) => self.not_checked.push(format!("{}: {why}", app.name)),
            None => {
                let below = format!("{path}/");
                let is_known = self.facts.paths.iter().any(|file| file.starts_with(&below));
                // That it is nowhere is a finding of its own.
                self.not_checked.extend(is_known.then(|| format!("{}: nothing of {path} can be read here", app.name)));
            }
        }
        false
    }

    /// Where `needle` of a value is written, which may be a file that a `ConfigMap` is made of.
    pub(crate) fn place_of(&self, app: &App, value: Ref<'_>, needle: &str) -> Place {
        if value.written.is_some() {
            return value.place_of(needle);
        }
        let inputs = app.path.as_deref().map(|path| self.repo.inputs(path)).unwrap_or_default();
        let file = self.repo.files.iter().find(|file| inputs.contains(&*file.path) && file.text.contains(needle));
        file.map_or_else(|| value.place(), |file| file.find(needle))
    }

    /// Is everything known that Applications deploy to a namespace? Only then an absence means something.
    pub(crate) fn knows_all_of(&self, cluster: &str, namespace: &str) -> bool {
        let there = |app: &&App| app.cluster == cluster && (app.namespace == namespace || app.namespace.is_empty());
        self.apps.iter().filter(there).all(|app| app.is_whole)
    }

    /// Is everything known that Applications deploy anywhere?
    pub(crate) fn knows_all(&self) -> bool {
        !self.apps.is_empty() && self.apps.iter().all(|app| app.is_whole)
    }

    /// The objects of namespaces of which everything is known.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (&App, &Object)> {
        self.objects().filter(|(app, object)| self.knows_all_of(&app.cluster, &object.namespace))
    }

    /// The documents that a folder's objects are written as.
    fn origins(&self, path: &str) -> Vec<(Source, Node)> {
        let inputs = self.repo.inputs(path);
        let files = self.repo.files.iter().filter(|file| inputs.contains(&*file.path) && is_manifest(file));
        let parsed = files
            .flat_map(|file| yaml::parse(file).unwrap_or_default().into_iter().map(move |node| (file.clone(), node)));
        parsed.filter(|(_, node)| node.get("kind").is_some()).collect()
    }

    /// The objects of every Application, with it.
    pub(crate) fn objects(&self) -> impl Iterator<Item = (&App, &Object)> {
        self.apps.iter().flat_map(|app| app.objects.iter().map(move |object| (app, object)))
    }

    /// The objects of one kind in the namespace and cluster of `beside`.
    pub(crate) fn beside<'a>(
        &'a self,
        app: &'a App,
        beside: &'a Object,
        kind: &'a str,
    ) -> impl Iterator<Item = &'a Object> {
        self.objects()
            .filter(move |(other, object)| {
                other.cluster == app.cluster && object.namespace == beside.namespace && object.kind == kind
            })
            .map(|(_, object)| object)
    }
}

fn objects(documents: Vec<Node>, origins: &[(Source, Node)], (fallback, namespace): (&Place, &str)) -> Vec<Object> {
    let text = |node: &Node, keys: &[&str]| node.path(keys).and_then(Node::text).map(str::to_owned);
    let built = documents.into_iter().filter_map(|node| {
        let kind = text(&node, &["kind"])?;
        let name = text(&node, &["metadata", "name"])?;
        let same = |(_, other): &&(Source, Node)| {
            text(other, &["kind"]).as_ref() == Some(&kind) && text(other, &["metadata", "name"]).as_ref() == Some(&name)
        };
        let origin = origins.iter().find(same).cloned();
        let namespace = text(&node, &["metadata", "namespace"]).unwrap_or_else(|| namespace.to_owned());
        Some(Object { kind, name, namespace, node, origin, fallback: fallback.clone() })
    });
    built.collect()
}

/// A file whose name says YAML.
pub(crate) fn is_yaml(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    FILE_NAMES.contains(&name) || matches!(name.rsplit_once('.'), Some((_, "yaml" | "yml")))
}
