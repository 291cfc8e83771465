//! Applications: what they deploy exists, from main, into a cluster where its names resolve.

use std::collections::BTreeSet;

use super::Rule;
use crate::model::finding::Finding;
use crate::model::fix;
use crate::model::kustomization::Kustomization;
use crate::model::source::Source;
use crate::model::world::{App, Object, Ref, World, is_yaml};
use crate::model::yaml::Node;

const APP: &str = "argocd/apps/web.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "app-path",
        about: "An Application's path is a folder of the repository.",
        why: "ArgoCD reports a comparison error and deploys nothing.",
        breaks: (APP, "path: argocd/manifests/web", "path: argocd/manifests/wep"),
        check: path,
    },
    Rule {
        code: "app-cluster",
        about: "An Application's destination is a cluster that the configuration names.",
        why: "ArgoCD knows no such cluster, or deploys to the wrong one.",
        breaks: (APP, "https://ringtail.example:6443", "https://ringtail.example:6444"),
        check: cluster,
    },
    Rule {
        code: "app-revision",
        about: "An Application follows main.",
        why: "It was left on a branch, and merged changes never arrive.",
        breaks: (APP, "targetRevision: main", "targetRevision: feature/web"),
        check: revision,
    },
    Rule {
        code: "app-repository",
        about: "An Application of this repository names it as the others do.",
        why: "ArgoCD can't fetch it.",
        breaks: (APP, "repoURL: ssh://forge.example/blumeops.git", "repoURL: ssh://forge.example/blumeop.git"),
        check: repository,
    },
    Rule {
        code: "app-project",
        about: "An Application's project exists and allows its repository.",
        why: "ArgoCD refuses to sync it.",
        breaks: ("argocd/apps/job.yaml", "project: tools", "project: toolz"),
        check: project,
    },
    Rule {
        code: "app-namespace",
        about: "What an Application deploys lives in its destination's namespace.",
        why: "Names that were meant to meet are in two namespaces.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "namespace: web", "namespace: wep"),
        check: namespace,
    },
    Rule {
        code: "object-namespace",
        about: "What an Application deploys has a namespace, from its manifest or the Application's destination.",
        why: "ArgoCD says that the namespace is missing and syncs nothing.",
        breaks: ("argocd/apps/plain.yaml", ", namespace: plain}", "}"),
        check: no_namespace,
    },
    Rule {
        code: "manifests-without-app",
        about: "Every folder of manifests is deployed by an Application.",
        why: "It looks deployed and is not.",
        breaks: (APP, "path: argocd/manifests/web", "path: argocd/manifests/job"),
        check: without_app,
    },
    Rule {
        code: "kustomization-complete",
        about: "A kustomization lists every manifest beside it.",
        why: "The file is there, and nothing of it is deployed.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "  - claim.yaml\n", ""),
        check: complete,
    },
    Rule {
        code: "dns-name",
        about: "A cluster-local name is that of a Service in the same cluster.",
        why: "It does not resolve: the Service has another name, or moved to the other cluster.",
        breaks: (
            "argocd/manifests/web/deployment.yaml",
            "http://web.web.svc.cluster.local",
            "http://wep.web.svc.cluster.local",
        ),
        check: dns_name,
    },
];

/// The place of a field of an Application, or of its name.
fn at(app: &App, keys: &[&str]) -> crate::model::source::Place {
    app.node.path(keys).or(app.node.path(&["metadata", "name"])).unwrap_or(&app.node).place(&app.file)
}

fn path(world: &World, findings: &mut Vec<Finding>) {
    for app in &world.apps {
        // The root is always there.
        let Some(path) = app.path.as_ref().filter(|path| *path != ".") else { continue };
        let below = format!("{path}/");
        if !world.facts.paths.iter().any(|file| file.starts_with(&below)) {
            let message =
                if path.is_empty() { "no folder is named".to_owned() } else { format!("there is no folder {path}") };
            let finding = Finding::error("app-path", message);
            let folders: BTreeSet<&str> =
                world.repo.kustomizations.iter().map(|kustomization| kustomization.source.folder()).collect();
            let finding = finding.at(at(app, &["spec", "source", "path"]));
            findings.push(finding.did_you_mean(path, folders));
        }
    }
}

fn cluster(world: &World, findings: &mut Vec<Finding>) {
    let clusters = &world.repo.config.clusters;
    for app in world.apps.iter().filter(|_| !clusters.is_empty()) {
        if !clusters.iter().any(|cluster| cluster.name == app.cluster) {
            let known = clusters.iter().map(|cluster| format!("{} ({})", cluster.server, cluster.name));
            let message = match app.cluster.as_str() {
                "" => "no cluster is named".to_owned(),
                address => format!("no cluster has the address {address}"),
            };
            let finding = Finding::error("app-cluster", message);
            let finding = finding.at(at(app, &["spec", "destination", "server"]));
            findings.push(finding.help(format!("there are: {}", known.collect::<Vec<_>>().join(", "))));
        }
    }
}

fn revision(world: &World, findings: &mut Vec<Finding>) {
    let main = &world.repo.config.forge.branch;
    for app in world.apps.iter().filter(|app| app.path.is_some()) {
        let keys = ["spec", "source", "targetRevision"];
        let Some(revision) = app.node.path(&keys).and_then(Node::text) else { continue };
        if revision != main && revision != "HEAD" && revision != "master" {
            let message = format!("{} follows {revision}, not {main}", app.name);
            let fix = app.node.path(&keys).and_then(|node| fix::scalar(&app.file, node, main));
            findings.push(Finding::error("app-revision", message).at(at(app, &keys)).fixed_by(fix));
        }
    }
}

fn repository(world: &World, findings: &mut Vec<Finding>) {
    let keys = ["spec", "source", "repoURL"];
    let url = |app: &App| app.node.path(&keys).and_then(Node::text).map(str::to_owned);
    let own = || world.apps.iter().filter(|app| app.path.is_some());
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for url in own().filter_map(url) {
        *counts.entry(url).or_default() += 1;
    }
    for app in own() {
        let Some(text) = url(app).filter(|text| counts.get(text) == Some(&1)) else { continue };
        // Another scheme or user may lead to the same place; a slip does not.
        let is_slip = |(known, count): &(&String, &usize)| {
            **count > 1
                && (1..=2).contains(&strsim::damerau_levenshtein(&text, known))
                && known.trim_end_matches(".git").trim_end_matches('/')
                    != text.trim_end_matches(".git").trim_end_matches('/')
        };
        if let Some((known, _)) = counts.iter().find(is_slip) {
            let finding = Finding::error("app-repository", format!("no other Application comes from {text}"));
            findings.push(finding.at(at(app, &keys)).help(format!("did you mean `{known}`?")));
        }
    }
}

/// Does a pattern of a project, where `*` is anything, match?
fn allows(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    for part in &parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || parts.last() == Some(&"")
}

fn project(world: &World, findings: &mut Vec<Finding>) {
    let projects: Vec<_> = world.objects().filter(|(_, object)| object.kind == "AppProject").collect();
    for app in world.apps.iter().filter(|_| !projects.is_empty() && world.knows_all()) {
        let keys = ["spec", "project"];
        let Some(name) = app.node.path(&keys).and_then(Node::text).filter(|name| *name != "default") else { continue };
        let Some((_, project)) = projects.iter().find(|(_, project)| project.name == name) else {
            let finding = Finding::error("app-project", format!("there is no AppProject {name}"));
            let known = projects.iter().map(|(_, project)| project.name.as_str());
            findings.push(finding.at(at(app, &keys)).did_you_mean(name, known));
            continue;
        };
        let keys = ["spec", "source", "repoURL"];
        let Some(url) = app.node.path(&keys).and_then(Node::text) else { continue };
        let allowed = project.at(&["spec", "sourceRepos"]).map_or_else(Vec::new, Ref::items);
        let mut allowed = allowed.into_iter().filter_map(Ref::text);
        // A pattern that forbids leaves too much to say.
        if !allowed.clone().any(|pattern| pattern.starts_with('!') || allows(pattern, url)) && allowed.next().is_some()
        {
            let finding = Finding::error("app-project", format!("project {name} does not allow {url}"));
            findings.push(finding.at(at(app, &keys)).also(project.place(), "the project"));
        }
    }
}

fn namespace(world: &World, findings: &mut Vec<Finding>) {
    for app in world.apps.iter().filter(|app| !app.namespace.is_empty()) {
        // Applications of Applications live in ArgoCD's namespace, wherever what they deploy goes: only a slip is one.
        let is_slip = |object: &Object| strsim::damerau_levenshtein(&object.namespace, &app.namespace) == 1;
        let own = app.objects.iter().filter(|object| !object.kind.starts_with("App") || is_slip(object));
        let mut named = own.filter(|object| object.names_its_namespace()).map(|object| &object.namespace);
        let Some(other) = named.next().filter(|_| !named.clone().any(|namespace| *namespace == app.namespace)) else {
            continue;
        };
        if *other != app.namespace {
            let message = format!("{} is for namespace {}, its objects are in {other}", app.name, app.namespace);
            let finding = Finding::error("app-namespace", message).at(at(app, &["spec", "destination", "namespace"]));
            let written = app.path.as_ref().and_then(|path| world.repo.kustomization(path));
            findings.push(match written {
                Some(kustomization) => finding.also(kustomization.source.find("namespace:"), "set here"),
                None => finding,
            });
        }
    }
}

/// Kinds that live in a namespace, of those that people deploy.
const NAMESPACED: [&str; 15] = [
    "ConfigMap",
    "CronJob",
    "DaemonSet",
    "Deployment",
    "ExternalSecret",
    "Ingress",
    "Job",
    "PersistentVolumeClaim",
    "Pod",
    "Role",
    "RoleBinding",
    "Secret",
    "Service",
    "ServiceAccount",
    "StatefulSet",
];

fn no_namespace(world: &World, findings: &mut Vec<Finding>) {
    for app in world.apps.iter().filter(|app| app.namespace.is_empty()) {
        let is_nowhere = |object: &&Object| object.namespace.is_empty() && NAMESPACED.contains(&object.kind.as_str());
        if let Some(object) = app.objects.iter().find(is_nowhere) {
            let message = format!("{} {} of {} is in no namespace", object.kind, object.name, app.name);
            let finding = Finding::error("object-namespace", message).at(at(app, &["spec", "destination"]));
            let help = "write spec.destination.namespace, or namespace into the kustomization";
            findings.push(finding.also(object.place(), "the first of them").help(help));
        }
    }
}

/// What ArgoCD makes something of.
const MAKERS: [&str; 3] = ["Application", "ApplicationSet", "AppProject"];

fn without_app(world: &World, findings: &mut Vec<Finding>) {
    // Where Applications are made elsewhere, their absence says nothing.
    if world.apps.is_empty() || world.not_checked.iter().any(|why| why.contains("ApplicationSet")) {
        return;
    }
    let mut deployed = BTreeSet::new();
    for path in world.apps.iter().filter_map(|app| app.path.as_deref()) {
        deployed.extend(world.repo.inputs(path));
    }
    for kustomization in &world.repo.kustomizations {
        if !deployed.contains(&*kustomization.source.path) && !is_first(world, kustomization) {
            let message = format!("no Application deploys {}", kustomization.source.folder());
            findings.push(Finding::error("manifests-without-app", message).at(kustomization.source.place(0, 0)));
        }
    }
}

/// Is it ArgoCD itself, or what its Applications begin with? Somebody puts these there by hand.
fn is_first(world: &World, kustomization: &Kustomization) -> bool {
    let inputs = world.repo.inputs(kustomization.source.folder());
    let files = world.repo.files.iter().filter(|file| inputs.contains(&*file.path));
    let documents = files.filter_map(|file| file.documents().as_ref().ok()).flatten();
    let kinds: BTreeSet<&str> = documents.filter_map(|node| node.get("kind").and_then(Node::text)).collect();
    let runs = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"].iter().any(|kind| kinds.contains(kind));
    let only_makes = !runs && MAKERS.iter().any(|kind| kinds.contains(kind));
    kustomization.source.text.contains("argoproj/argo-cd") || only_makes
}

fn complete(world: &World, findings: &mut Vec<Finding>) {
    for kustomization in &world.repo.kustomizations {
        // A folder below belongs to it as well, unless it has a kustomization of its own.
        let folder = kustomization.source.folder();
        let owner = |file: &Source| {
            let above = file.path.match_indices('/').map(|(at, _)| &file.path[..at]).collect::<Vec<_>>();
            above.into_iter().rev().find(|folder| world.repo.kustomization(folder).is_some()).map(str::to_owned)
        };
        let beside = world.repo.files.iter().filter(|file| {
            file.path.starts_with(folder) && is_yaml(&file.path) && owner(file).as_deref() == Some(folder)
        });
        for file in beside.filter(|file| file.path != kustomization.source.path) {
            let documents = crate::model::yaml::parse(file).unwrap_or_default();
            let name = &file.path[(folder.len() + 1).min(file.path.len())..];
            let is_manifest = documents.iter().any(|document| {
                document.get("apiVersion").is_some()
                    && document.get("kind").is_some()
                    && document.get("metadata").is_some()
            });
            let is_listed = |listed: &String| **listed == *file.path || file.path.starts_with(&format!("{listed}/"));
            if is_manifest && !kustomization.names.iter().any(is_listed) {
                let message = format!("{name} is in no list of {}", kustomization.source.path);
                let finding = Finding::error("kustomization-complete", message).at(file.place(0, 0));
                let finding = finding.also(kustomization.source.find("resources:"), "the list");
                findings.push(finding.fixed_by(fix::added_to_list(&kustomization.source, "resources", name)));
            }
        }
    }
}

/// `service.namespace.svc…` in a text: service and namespace.
fn local_names(text: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let words = text.split(|c: char| !is_part(c));
    words
        .filter_map(|word| {
            let (name, _) =
                word.split_once(".svc").filter(|(_, rest)| rest.is_empty() || rest.starts_with(".cluster.local"))?;
            let (service, namespace) = name.rsplit_once('.')?;
            // A pod of a StatefulSet has one more part in front.
            Some((service.rsplit('.').next()?, namespace))
        })
        .collect()
}

fn dns_name(world: &World, findings: &mut Vec<Finding>) {
    let services: Vec<(&str, &str, &str)> = world
        .objects()
        .filter(|(_, object)| object.kind == "Service")
        .map(|(app, object)| (app.cluster.as_str(), object.namespace.as_str(), object.name.as_str()))
        .collect();
    for (app, object) in world.objects() {
        object.root().scalars(&mut |value: Ref<'_>| {
            for (service, namespace) in value.text().map_or_else(Vec::new, local_names) {
                let there: Vec<_> = services.iter().filter(|(_, other, _)| *other == namespace).collect();
                let is_here = there.iter().any(|(cluster, _, name)| *cluster == app.cluster && *name == service);
                // A namespace that nothing here deploys to is somebody else's.
                let known = world.knows_all_of(&app.cluster, namespace);
                if is_here || there.is_empty() || !known || made_by_an_operator(world, app, namespace, service) {
                    continue;
                }
                let message = match there.iter().find(|(_, _, name)| *name == service) {
                    Some((cluster, ..)) => {
                        format!("{service}.{namespace} is a Service of cluster {cluster}; this runs in {}", app.cluster)
                    }
                    None => format!("namespace {namespace} has no Service {service}"),
                };
                let place = world.place_of(app, value, &format!("{service}.{namespace}"));
                findings.push(Finding::error("dns-name", message).at(place));
            }
        });
    }
}

/// CloudNativePG makes three Services for each Cluster.
fn made_by_an_operator(world: &World, app: &App, namespace: &str, service: &str) -> bool {
    world.objects().any(|(other, object)| {
        let suffix = service.strip_prefix(object.name.as_str());
        other.cluster == app.cluster
            && object.namespace == namespace
            && object.kind == "Cluster"
            && matches!(suffix, Some("-rw" | "-ro" | "-r"))
    })
}
