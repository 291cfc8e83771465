//! The repository as one value: containers, kustomizations, image references and Applications.

use std::collections::{BTreeMap, BTreeSet};

use super::config::{Cluster, Config};
use super::finding::Finding;
use super::image::{Compression, Home, split_reference};
use super::kustomization::{FILE_NAMES, ImageEntry, Kustomization};
use super::name::ContainerName;
use super::source::{Place, Source};
use super::suggest::nearest;
use super::tag::BuildKind;
use super::workflow::{self, Workflow};
use super::world::is_yaml;
use super::yaml;

/// One folder under `containers/`.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) name: ContainerName,
    /// In order of preference: Nix first.
    pub(crate) kinds: Vec<BuildKind>,
}

impl Container {
    /// The folder, relative to the root.
    pub(crate) fn folder(&self) -> String {
        format!("containers/{}", self.name)
    }

    /// The Nix expression, relative to the root.
    pub(crate) fn expression(&self) -> String {
        format!("{}/default.nix", self.folder())
    }
}

/// An `image:` in a manifest.
#[derive(Clone, Debug)]
pub(crate) struct ImageUse {
    pub(crate) image: String,
    pub(crate) tag: Option<String>,
    pub(crate) place: Place,
}

/// An Application, as far as releasing needs it.
#[derive(Clone, Debug)]
pub(crate) struct Application {
    pub(crate) path: String,
    pub(crate) server: String,
    /// The repository it comes from.
    pub(crate) url: String,
    pub(crate) files: Files,
}

/// Which files of a folder without a kustomization ArgoCD takes for manifests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Files {
    /// Those in it.
    Own,
    /// Those of its folders too.
    Below,
    /// Those that a pattern of the Application takes, or what a program makes of them.
    Chosen,
}

/// Everything that was read.
#[derive(Clone, Debug)]
pub(crate) struct Repo {
    pub(crate) config: Config,
    pub(crate) containers: Vec<Container>,
    pub(crate) kustomizations: Vec<Kustomization>,
    pub(crate) uses: Vec<ImageUse>,
    pub(crate) applications: Vec<Application>,
    pub(crate) workflows: Vec<Workflow>,
    /// Every file that was read.
    pub(crate) files: Vec<Source>,
    /// What could not be read.
    pub(crate) findings: Vec<Finding>,
}

/// Who uses an image.
pub(crate) struct Users<'a> {
    /// Entries that pin it.
    pub(crate) entries: Vec<(&'a Kustomization, &'a ImageEntry)>,
    /// Manifests that name it with no entry to pin it.
    pub(crate) unpinned: Vec<&'a ImageUse>,
}

impl Repo {
    /// Builds the model from the files of a checkout.
    ///
    /// # Errors
    /// A finding in the configuration; all other findings are collected in the value.
    pub(crate) fn load(files: Vec<Source>) -> Result<Self, Box<Finding>> {
        let config = Config::parse(files.iter().find(|file| &*file.path == super::config::PATH))?;
        let containers = containers(&files);
        let mut repo = Self {
            config,
            containers,
            kustomizations: vec![],
            uses: vec![],
            applications: vec![],
            workflows: vec![],
            files: files.clone(),
            findings: vec![],
        };
        let charts: Vec<String> = files.iter().filter_map(templates).collect();
        // What a chart's templates come to is known once Helm has filled them in.
        for file in files.into_iter().filter(|file| !charts.iter().any(|folder| file.path.starts_with(folder))) {
            if let Err(finding) = repo.read(file) {
                repo.findings.push(*finding);
            }
        }
        Ok(repo)
    }

    fn read(&mut self, file: Source) -> Result<(), Box<Finding>> {
        if file.path.starts_with("argocd/") {
            self.read_manifest(file)?;
        } else if file.path.starts_with(workflow::FOLDER) {
            self.workflows.push(Workflow::parse(&file)?);
        } else if file.path.starts_with("ansible/") && is_yaml(&file.path) && !is_template(&file.path) {
            yaml::parse(&file)?;
        } else if &*file.path == ".mise.toml"
            && let Err(error) = file.text.parse::<toml::Table>()
        {
            let span = error.span().unwrap_or(0..0);
            let finding = Finding::error("toml-syntax", format!("not valid TOML: {}", error.message()));
            return Err(Box::new(finding.at(file.first_line(span.start.min(file.text.len()), span.end))));
        }
        Ok(())
    }

    fn read_manifest(&mut self, file: Source) -> Result<(), Box<Finding>> {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if FILE_NAMES.contains(&name) {
            self.kustomizations.push(Kustomization::parse(file)?);
        } else if is_manifest(&file) {
            for document in yaml::parse(&file)? {
                self.applications.extend(applications(&document));
                document.walk(&mut |key, value| {
                    if let (Some("image"), Some(reference)) = (key.text(), value.text()) {
                        let (image, tag) = split_reference(reference);
                        let (image, tag) = (image.to_owned(), tag.map(str::to_owned));
                        self.uses.push(ImageUse { image, tag, place: value.place(&file) });
                    }
                });
            }
        }
        Ok(())
    }

    /// The container called `name`.
    ///
    /// # Errors
    /// A finding with the nearest name that exists.
    pub(crate) fn container(&self, name: &ContainerName) -> Result<&Container, Finding> {
        if let Some(container) = self.containers.iter().find(|container| &container.name == name) {
            return Ok(container);
        }
        let names = || self.containers.iter().map(|container| container.name.as_str());
        let help = match nearest(name.as_str(), names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if self.containers.is_empty() => "this checkout has no containers/<name>/default.nix".to_owned(),
            None => format!("there are: {}", names().collect::<Vec<_>>().join(", ")),
        };
        Err(Finding::error("no-such-container", format!("there is no container `{name}`")).help(help))
    }

    /// Where our images are named: configured, or the home that most references to our containers share.
    ///
    /// # Errors
    /// A finding when neither is to be had.
    pub(crate) fn home(&self) -> Result<Home, Finding> {
        if let Some(home) = &self.config.home {
            return Ok(home.clone());
        }
        let mut votes = BTreeMap::<Home, usize>::new();
        let entries = self.kustomizations.iter().flat_map(|kustomization| &kustomization.images).map(ImageEntry::image);
        for image in self.uses.iter().map(|used| used.image.as_str()).chain(entries) {
            if let Some(home) = home_of(image, &self.containers) {
                *votes.entry(home).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|&(_, count)| count).map(|(home, _)| home).ok_or_else(|| {
            Finding::environment("no-registry", "it is not known in which registry the images live")
                .help(format!("write [registry] with host and namespace into {}", super::config::PATH))
        })
    }

    /// Everything that decides or needs the tag of `image`.
    pub(crate) fn users(&self, image: &str) -> Users<'_> {
        let pinning = |kustomization: &&Kustomization| kustomization.images.iter().any(|entry| entry.image() == image);
        let pinned: BTreeSet<String> = self.kustomizations.iter().filter(pinning).flat_map(|k| self.reach(k)).collect();
        let entries = self.kustomizations.iter().flat_map(|kustomization| {
            let entries = kustomization.images.iter().filter(|entry| entry.image() == image);
            entries.map(move |entry| (kustomization, entry))
        });
        let is_unpinned = |used: &&ImageUse| {
            used.image == image
                && !pinned.contains(used.place.source.folder())
                && !pinned.contains(&*used.place.source.path)
        };
        Users { entries: entries.collect(), unpinned: self.uses.iter().filter(is_unpinned).collect() }
    }

    /// A file that was read.
    pub(crate) fn file(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| *file.path == *path)
    }

    /// The kustomization in `folder`.
    pub(crate) fn kustomization(&self, folder: &str) -> Option<&Kustomization> {
        self.kustomizations.iter().find(|kustomization| kustomization.source.folder() == folder)
    }

    /// The paths of all files that decide what `folder` renders to: its own, and those of what it names elsewhere.
    pub(crate) fn inputs(&self, folder: &str) -> BTreeSet<&str> {
        let mut inputs = BTreeSet::new();
        let mut queue = vec![folder.to_owned()];
        while let Some(path) = queue.pop() {
            let below = format!("{path}/");
            for file in self.files.iter().filter(|file| *file.path == path || file.path.starts_with(&below)) {
                if inputs.insert(&*file.path)
                    && let Some(kustomization) = self.kustomizations.iter().find(|k| k.source.path == file.path)
                {
                    queue.extend(kustomization.names.iter().filter(|name| !name.starts_with(&below)).cloned());
                }
            }
        }
        inputs
    }

    /// The clusters that run what is under `folder`, as the Applications say.
    pub(crate) fn clusters_of(&self, folder: &str) -> Vec<&Cluster> {
        let servers = self
            .applications
            .iter()
            .filter(|application| application.path == folder)
            .map(|application| &application.server);
        servers.filter_map(|server| self.config.clusters.iter().find(|cluster| &cluster.server == server)).collect()
    }

    /// The clusters that run `image`, each once.
    pub(crate) fn clusters_running(&self, image: &str) -> Vec<&Cluster> {
        let users = self.users(image);
        let mut clusters: Vec<&Cluster> = users
            .entries
            .iter()
            .flat_map(|(kustomization, _)| self.clusters_of(kustomization.source.folder()))
            .collect();
        clusters.sort_by(|a, b| a.name.cmp(&b.name));
        clusters.dedup_by(|a, b| a.name == b.name);
        clusters
    }

    /// What every engine reads that is to run `image`: those of the clusters that use it, of all clusters where none does.
    pub(crate) fn compression(&self, image: &str) -> Compression {
        let mut clusters = self.clusters_running(image);
        if clusters.is_empty() {
            clusters = self.config.clusters.iter().collect();
        }
        let zstd = !clusters.is_empty() && clusters.iter().all(|cluster| cluster.layers == Compression::Zstd);
        if zstd { Compression::Zstd } else { Compression::Gzip }
    }

    /// The containers whose images are pinned beside that of `container`, in order, itself first.
    pub(crate) fn deployed_with<'a>(&'a self, home: &Home, container: &'a Container) -> Vec<&'a Container> {
        let image = home.image(&container.name);
        let beside = self.users(&image).entries.into_iter().flat_map(|(kustomization, _)| &kustomization.images);
        let beside: BTreeSet<&str> = beside.map(ImageEntry::image).collect();
        let others = self.containers.iter().filter(|other| other.name != container.name);
        let others = others.filter(|other| beside.contains(home.image(&other.name).as_str()));
        std::iter::once(container).chain(others).collect()
    }

    /// Paths and folders that `kustomization` renders: its own and, in turn, what it includes.
    fn reach(&self, kustomization: &Kustomization) -> BTreeSet<String> {
        let mut seen = BTreeSet::from([kustomization.source.folder().to_owned()]);
        let mut queue = kustomization.includes.clone();
        while let Some(path) = queue.pop() {
            if let Some(next) = self.kustomizations.iter().find(|k| k.source.folder() == path) {
                queue.extend(next.includes.iter().filter(|path| !seen.contains(*path)).cloned());
            }
            seen.insert(path);
        }
        seen
    }
}

fn containers(files: &[Source]) -> Vec<Container> {
    let mut found = BTreeMap::<ContainerName, BTreeSet<BuildKind>>::new();
    for file in files {
        let Some((folder, kind)) = file.path.strip_prefix("containers/").and_then(|rest| rest.split_once('/')) else {
            continue;
        };
        let kind = match kind {
            "default.nix" => BuildKind::Nix,
            "Dockerfile" => BuildKind::Dockerfile,
            _ => continue,
        };
        if let Ok(name) = folder.parse() {
            found.entry(name).or_default().insert(kind);
        }
    }
    found.into_iter().map(|(name, kinds)| Container { name, kinds: kinds.into_iter().collect() }).collect()
}

/// One for each of its sources that is a folder.
fn applications(document: &yaml::Node) -> Vec<Application> {
    let Some(spec) =
        document.get("spec").filter(|_| document.get("kind").and_then(yaml::Node::text) == Some("Application"))
    else {
        return Vec::new();
    };
    let text = |node: Option<&yaml::Node>| node.and_then(yaml::Node::text).unwrap_or_default().to_owned();
    let destination = spec.get("destination");
    let server = destination.and_then(|to| to.get("server").or(to.get("name")));
    let sources = spec.get("sources").map_or(&[][..], yaml::Node::items).iter().chain(spec.get("source"));
    let folders = sources.filter(|source| source.get("path").is_some());
    let application = |source: &yaml::Node| Application {
        path: folder(&text(source.get("path"))),
        server: text(server),
        url: text(source.get("repoURL")),
        files: files(source.get("directory")),
    };
    folders.map(application).collect()
}

fn files(directory: Option<&yaml::Node>) -> Files {
    let has = |key: &str| directory.is_some_and(|directory| directory.get(key).is_some());
    match directory.and_then(|directory| directory.get("recurse")).and_then(yaml::Node::text) {
        _ if ["include", "exclude", "jsonnet"].into_iter().any(has) => Files::Chosen,
        Some("true") => Files::Below,
        _ => Files::Own,
    }
}

/// A folder as Applications write it, relative to the root.
pub(crate) fn folder(path: &str) -> String {
    path.trim_start_matches("./").trim_matches('/').to_owned()
}

fn home_of(image: &str, containers: &[Container]) -> Option<Home> {
    let (rest, name) = image.rsplit_once('/')?;
    let (host, namespace) = rest.split_once('/')?;
    let ours = host.contains(['.', ':']) && containers.iter().any(|container| container.name.as_str() == name);
    ours.then(|| Home { host: host.to_owned(), namespace: namespace.to_owned() })
}

/// A file of manifests: YAML, or JSON that says it is an object.
pub(crate) fn is_manifest(file: &Source) -> bool {
    let is_json = file.path.rsplit('.').next() == Some("json") && file.text.contains("\"apiVersion\"");
    is_yaml(&file.path) || (is_json && file.documents().is_ok())
}

/// What Ansible fills in, or copies as it is.
fn is_template(path: &str) -> bool {
    ["/templates/", "/files/"].iter().any(|folder| path.contains(folder))
}

/// The folder of templates beside a `Chart.yaml`.
fn templates(file: &Source) -> Option<String> {
    Some(format!("{}templates/", file.path.strip_suffix("Chart.yaml")?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A repository from one string: `//- path` starts each file.
    pub(crate) fn repo(text: &str) -> Repo {
        let files = text.split("//- ").skip(1).map(|part| {
            let (path, body) = part.split_once('\n').unwrap_or((part, ""));
            Source::new(path.trim(), body)
        });
        Repo::load(files.collect()).unwrap()
    }

    const SMALL: &str = "
//- containers/authentik/default.nix
//- containers/redis/Dockerfile
//- containers/redis/default.nix
//- argocd/apps/a.yaml
kind: Application
spec:
  source: {path: argocd/manifests/a}
  destination: {server: https://r:6443}
//- xtask/blumeops.toml
[clusters.ringtail]
server = 'https://r:6443'
architecture = 'amd64'
//- argocd/manifests/a/kustomization.yaml
resources: [../base, d.yaml]
images:
  - name: reg.example/ops/authentik
    newTag: v1.0.0-nix
  - name: reg.example/ops/redis
//- argocd/manifests/base/kustomization.yaml
resources: [d.yaml]
//- argocd/manifests/base/d.yaml
spec: {containers: [{image: reg.example/ops/authentik:kustomized}]}
//- argocd/manifests/b/d.yaml
spec: {containers: [{image: 'reg.example/ops/authentik:v1'}]}
//- argocd/manifests/broken/d.yaml
a: [
";

    #[test]
    fn a_small_repository_is_understood() {
        let repo = repo(SMALL);
        assert_eq!(repo.containers.len(), 2);
        assert_eq!(repo.containers[1].kinds, [BuildKind::Nix, BuildKind::Dockerfile]);
        assert_eq!(repo.home().unwrap().to_string(), "reg.example/ops");
        let users = repo.users("reg.example/ops/authentik");
        assert_eq!(users.entries.len(), 1);
        assert_eq!(
            users.unpinned.iter().map(|u| u.place.to_string()).collect::<Vec<_>>(),
            ["argocd/manifests/b/d.yaml:1:29"]
        );
        let together = repo.deployed_with(&repo.home().unwrap(), &repo.containers[0]);
        assert_eq!(together.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["authentik", "redis"]);
        assert_eq!(repo.clusters_running("reg.example/ops/authentik")[0].name, "ringtail");
        assert_eq!(repo.findings.len(), 1);
    }

    #[test]
    fn a_wrong_name_gets_the_near_one() {
        let finding = repo(SMALL).container(&"autentik".parse().unwrap()).unwrap_err();
        assert_eq!(finding.help.as_deref(), Some("did you mean `authentik`?"));
    }
}
