//! Workloads: what keeps one from harming the others, and its data from being lost.

use super::Rule;
use crate::model::expectation::Subject;
use crate::model::finding::Finding;
use crate::model::names;
use crate::model::world::{App, Object, Ref, World};

const DEPLOYMENT: &str = "argocd/manifests/web/deployment.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "resources",
        about: "A container says what it needs, where most containers of the repository do.",
        why: "It is scheduled as if it needed nothing, and is the first to go when memory is short.",
        breaks: (DEPLOYMENT, "          resources: {requests: {memory: 64Mi}}\n", ""),
        check: resources,
    },
    Rule {
        code: "data-folder",
        about: "A folder for data that an argument names lies on one of the container's volumes.",
        why: "The volume stays empty, and the data goes with the pod.",
        breaks: (DEPLOYMENT, "args: [--dir, /data]", "args: [--dir, /date]"),
        check: data_folder,
    },
    Rule {
        code: "app-health",
        about: "Every workload that stays up has a probe, where most of the repository have one, or is asked from outside.",
        why: "It is counted as running while it does nothing.",
        breaks: (DEPLOYMENT, "          readinessProbe: {exec: {command: [side, ping]}}\n", ""),
        check: health,
    },
];

/// The parts of a pod that stay: not what runs first and ends.
fn lasting(object: &Object) -> Vec<Ref<'_>> {
    let spec = object.pod_template().and_then(|pod| pod.at(&["spec", "containers"]));
    spec.map_or_else(Vec::new, Ref::items)
}

fn workloads(world: &World) -> impl Iterator<Item = (&App, &Object)> {
    world.objects().filter(|(_, object)| ["Deployment", "StatefulSet", "DaemonSet"].contains(&object.kind.as_str()))
}

fn resources(world: &World, findings: &mut Vec<Finding>) {
    let all: Vec<Ref<'_>> = world.objects().flat_map(|(_, object)| lasting(object)).collect();
    let (with, without): (Vec<_>, Vec<_>) = all.into_iter().partition(|container| container.get("resources").is_some());
    // Who does not do it at all has decided so.
    if with.len() <= without.len() {
        return;
    }
    for container in without {
        let name = container.text_at(&["name"]).unwrap_or("?");
        let place = container.get("name").unwrap_or(container).place();
        findings.push(Finding::error("resources", format!("container {name} has no resources")).at(place));
    }
}

/// Arguments by which programs are told where their data goes.
const FOLDERS: [&str; 6] = ["--dir", "--data-dir", "--datadir", "--data-path", "--storage.tsdb.path", "--storage.path"];

fn data_folder(world: &World, findings: &mut Vec<Finding>) {
    for (_, object) in world.objects() {
        for container in object.containers() {
            let mounts = container.get("volumeMounts").map_or_else(Vec::new, Ref::items);
            let mounts: Vec<&str> = mounts.into_iter().filter_map(|mount| mount.text_at(&["mountPath"])).collect();
            let words = ["command", "args"].into_iter().filter_map(|key| container.get(key));
            let words: Vec<Ref<'_>> = words.flat_map(Ref::items).collect();
            for (at, word) in words.iter().enumerate().filter(|_| !mounts.is_empty()) {
                let text = word.text().unwrap_or_default();
                let (folder, place) = match (text.split_once('='), words.get(at + 1)) {
                    (Some((flag, folder)), _) if FOLDERS.contains(&flag) => (folder, word.place()),
                    (None, Some(next)) if FOLDERS.contains(&text) => (next.text().unwrap_or_default(), next.place()),
                    _ => continue,
                };
                let is_on = |mount: &&str| {
                    let mount = mount.trim_end_matches('/');
                    folder == mount || folder.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))
                };
                if folder.starts_with('/') && !mounts.iter().any(is_on) {
                    let message = format!("{folder} is on no volume: those are at {}", mounts.join(", "));
                    findings.push(Finding::error("data-folder", message).at(place));
                }
            }
        }
    }
}

fn health(world: &World, findings: &mut Vec<Finding>) {
    let is_probed = |(_, object): &(&App, &Object)| {
        let probes = ["readinessProbe", "livenessProbe", "startupProbe"];
        lasting(object).into_iter().any(|container| probes.iter().any(|probe| container.get(probe).is_some()))
    };
    let (with, without): (Vec<_>, Vec<_>) = workloads(world).partition(is_probed);
    if with.len() <= without.len() {
        return;
    }
    for (app, object) in without.into_iter().filter(|(app, object)| !is_asked(world, app, object)) {
        let message = format!("nothing asks {} {} of {} whether it is well", object.kind, object.name, app.name);
        findings.push(Finding::error("app-health", message).at(object.place()).help(HELP));
    }
}

const HELP: &str = "add a readinessProbe, or an entry of [[checks]] that is called after the Application";

/// Is it asked from outside: as the configuration says, or through Caddy or the tailnet, as `services-check` derives?
fn is_asked(world: &World, app: &App, workload: &Object) -> bool {
    let is_configured = world.repo.config.checks.iter().any(|check| {
        let is_caddys = matches!(&check.subject, Subject::Caddy { service, .. } if *service == app.name);
        is_caddys || check.name == app.name || check.name.strip_suffix("-health") == Some(&app.name)
    });
    // An Ingress of the tailnet is asked by its own name, and so is the host of Caddy that leads to it.
    let leads_here = |ingress: &Object| {
        let backends = ingress.backends();
        let names: Vec<&str> = backends.iter().filter_map(|backend| backend.text_at(&["name"])).collect();
        let mut services = world.beside(app, ingress, "Service");
        services.any(|service| names.contains(&service.name.as_str()) && service.selects(workload))
    };
    let knows_tailnet = names::services(world).is_some_and(|(_, document, _)| document.get("caddy_tailnet").is_some());
    let is_reached = |ingress: &&Object| {
        names::tailscale_host(ingress)
            .and_then(Ref::text)
            .is_some_and(|host| knows_tailnet || !names::served(world, host).is_empty())
    };
    is_configured || world.beside(app, workload, "Ingress").filter(is_reached).any(leads_here)
}
