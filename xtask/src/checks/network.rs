//! Network: what Caddy serves has the domain and something behind it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::model::finding::Finding;
use crate::model::names::{expand, services, tailscale_host};
use crate::model::source::{Place, Source};
use crate::model::suggest::nearest;
use crate::model::world::{Object, Ref, World};
use crate::model::yaml::{self, Node};

const ENABLED: &str = "gethomepage.dev/enabled";
const CADDY: &str = "ansible/roles/caddy/defaults/main.yml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "caddy-host",
        about: "A Caddy service's host is one name under the domain, and no other has it.",
        why: "The name alone matches nothing: the answer is 404 Unknown service.",
        breaks: (CADDY, "host: \"web.{{ caddy_domain }}\"", "host: web"),
        check: host,
    },
    Rule {
        code: "caddy-backend",
        about: "A backend in the tailnet is the name of a Tailscale Ingress or Service, or listed as being elsewhere.",
        why: "Caddy answers 502.",
        breaks: (CADDY, "https://web.{{ caddy_tailnet }}", "https://wep.{{ caddy_tailnet }}"),
        check: backend,
    },
    Rule {
        code: "ingress-published",
        about: "A Tailscale Ingress that an annotation publishes under the domain has a Caddy service.",
        why: "The link on the home page ends in 404.",
        breaks: (
            CADDY,
            "  - {name: web, host: \"web.{{ caddy_domain }}\", backend: \"https://web.{{ caddy_tailnet }}\"}\n",
            "",
        ),
        check: published,
    },
    Rule {
        code: "homepage-group",
        about: "An entry of the home page is in one of its groups.",
        why: "It appears in a group of its own at the end, or nowhere.",
        breaks: ("argocd/manifests/web/ingress.yaml", "gethomepage.dev/group: Apps", "gethomepage.dev/group: Aps"),
        check: homepage_group,
    },
    Rule {
        code: "homepage-visible",
        about: "An entry of the home page is in the cluster that Homepage runs in.",
        why: "Homepage reads its own cluster alone, and the entry is never shown.",
        breaks: ("argocd/apps/homepage.yaml", "https://ringtail.example:6443", "https://kubernetes.default.svc"),
        check: homepage_visible,
    },
];

/// Where Homepage runs: its Applications' clusters and namespaces.
fn home_pages(world: &World) -> Vec<(&str, &str)> {
    let is_it = |object: &Object| {
        let images = object.containers().into_iter().filter_map(|container| container.text_at(&["image"]));
        images.into_iter().any(|image| image.contains("gethomepage/homepage"))
    };
    let found = world.objects().filter(|(_, object)| is_it(object));
    found.map(|(app, object)| (app.cluster.as_str(), object.namespace.as_str())).collect()
}

/// What can't be checked because Homepage is somebody else's.
pub(super) fn unknown_home_page(world: &World) -> Option<String> {
    let entries =
        world.objects().filter(|(_, object)| object.at(&["metadata", "annotations", ENABLED]).is_some()).count();
    let is_unknown = entries > 0 && home_pages(world).is_empty();
    is_unknown
        .then(|| format!("the groups of {entries} entries of the home page: no Application here deploys Homepage"))
}

/// The groups that the settings and services of Homepage name.
fn groups(world: &World) -> BTreeSet<String> {
    let mut groups = BTreeSet::new();
    let here = home_pages(world);
    let configured = world.objects().filter(|(app, object)| {
        object.kind == "ConfigMap" && here.contains(&(app.cluster.as_str(), object.namespace.as_str()))
    });
    for (_, object) in configured {
        let file = |name: &str| {
            let text = object.at(&["data", name])?.text()?;
            yaml::parse(&Source::new(name, text)).ok()?.into_iter().next()
        };
        let layout = file("settings.yaml").and_then(|settings| settings.get("layout").cloned());
        for node in [layout, file("services.yaml")].into_iter().flatten() {
            let lists = node.items().iter().chain([&node]);
            let mappings = lists
                .filter_map(|node| if let yaml::Value::Mapping(entries) = &node.value { Some(entries) } else { None });
            groups.extend(
                mappings.flat_map(|entries| entries.iter()).filter_map(|(key, _)| key.text()).map(str::to_owned),
            );
        }
    }
    groups
}

fn homepage_group(world: &World, findings: &mut Vec<Finding>) {
    let known = groups(world);
    for (_, object) in world.objects().filter(|_| !known.is_empty()) {
        let Some(group) = object.at(&["metadata", "annotations", "gethomepage.dev/group"]) else { continue };
        let text = group.text().unwrap_or_default();
        if !known.contains(text) {
            let finding = Finding::error("homepage-group", format!("the home page has no group {text}"));
            findings.push(finding.at(group.place()).did_you_mean(text, known.iter().map(String::as_str)));
        }
    }
}

fn homepage_visible(world: &World, findings: &mut Vec<Finding>) {
    let here = home_pages(world);
    for (app, object) in world.objects().filter(|_| !here.is_empty()) {
        let Some(enabled) = object.at(&["metadata", "annotations", ENABLED]) else { continue };
        if enabled.text() == Some("true") && !here.iter().any(|(cluster, _)| *cluster == app.cluster) {
            let message = format!("the home page reads cluster {} and does not see {}", here[0].0, app.cluster);
            let finding = Finding::error("homepage-visible", message).at(enabled.place());
            findings.push(finding.help("write the entry into its own services"));
        }
    }
}

fn host(world: &World, findings: &mut Vec<Finding>) {
    let Some((file, document, services)) = services(world) else { return };
    let Some(domain) = document.get("caddy_domain").and_then(Node::text) else { return };
    let mut seen = BTreeMap::new();
    for host in services.iter().filter_map(|service| service.get("host")) {
        let full = expand(host.text().unwrap_or_default(), &document);
        let place = host.place(file);
        let name = full.strip_suffix(&format!(".{domain}")).unwrap_or_default();
        if name.is_empty() || name.contains('.') {
            let finding =
                Finding::error("caddy-host", format!("{full} is not one name under {domain}")).at(place.clone());
            findings.push(finding.help("write \"<name>.{{ caddy_domain }}\""));
        }
        if let Some(there) = seen.insert(full.clone(), place.clone()) {
            let finding = Finding::error("caddy-host", format!("{full} is served twice")).at(place);
            findings.push(finding.also(there, "the other one"));
        }
    }
}

/// The names that this repository gives things in the tailnet.
pub(super) fn tailnet_names(world: &World) -> Vec<&str> {
    let services = world.objects().filter(|(_, object)| object.kind == "Service");
    let services =
        services.filter_map(|(_, object)| object.at(&["metadata", "annotations", "tailscale.com/hostname"])?.text());
    let elsewhere = world.repo.config.elsewhere.iter().map(String::as_str);
    world.objects().filter_map(|(_, object)| tailscale_host(object)?.text()).chain(services).chain(elsewhere).collect()
}

fn backend(world: &World, findings: &mut Vec<Finding>) {
    let Some((file, document, services)) = services(world) else { return };
    let names = tailnet_names(world);
    let layer4 = document.get("caddy_layer4").map_or(&[][..], Node::items);
    for backend in services.iter().chain(layer4).filter_map(|service| service.get("backend")) {
        let full = expand(backend.text().unwrap_or_default(), &document);
        let address = full.split("://").nth(1).unwrap_or(&full).split([':', '/']).next().unwrap_or_default();
        let Some((name, zone)) = address.split_once('.') else { continue };
        let is_tailnet = document
            .get("caddy_tailnet")
            .and_then(Node::text)
            .map_or(zone.ends_with(".ts.net"), |tailnet| tailnet == zone);
        if is_tailnet && is_nowhere(world, &names, name) {
            let finding =
                Finding::error("caddy-backend", format!("nothing here is called {address}")).at(backend.place(file));
            let finding = finding.did_you_mean(name, names.iter().copied());
            let near = nearest(name, names.iter().copied());
            findings.push(match near.and_then(|near| tailnet_place(world, near)) {
                Some(place) => finding.also(place, "the nearest name"),
                None => finding,
            });
        }
    }
}

/// Is nothing in the tailnet called so? Where the configuration does not say what else is in it, only a slip is certain.
pub(super) fn is_nowhere(world: &World, names: &[&str], name: &str) -> bool {
    let most = if name.len() < 5 { 1 } else { 2 };
    let is_slip = names.iter().any(|known| strsim::damerau_levenshtein(known, name) <= most);
    let is_certain = is_slip || !world.repo.config.elsewhere.is_empty();
    world.knows_all() && !names.is_empty() && !names.contains(&name) && is_certain
}

/// Where a thing gets its name in the tailnet.
fn tailnet_place(world: &World, name: &str) -> Option<Place> {
    let annotation = |object| Object::at(object, &["metadata", "annotations", "tailscale.com/hostname"]);
    let named = world.objects().filter_map(|(_, object)| tailscale_host(object).or_else(|| annotation(object)));
    named.into_iter().find(|value| value.text() == Some(name)).map(Ref::place)
}

/// Every host that Caddy serves.
pub(super) fn hosts(world: &World) -> Vec<String> {
    let Some((_, document, services)) = services(world) else { return Vec::new() };
    services.iter().filter_map(|service| service.get("host")?.text()).map(|host| expand(host, &document)).collect()
}

fn published(world: &World, findings: &mut Vec<Finding>) {
    let Some((file, document, services)) = services(world) else { return };
    let Some(domain) = document.get("caddy_domain").and_then(Node::text) else { return };
    let hosts: Vec<String> =
        services.iter().filter_map(|service| service.get("host")?.text()).map(|host| expand(host, &document)).collect();
    for (_, object) in world.objects().filter(|(_, object)| tailscale_host(object).is_some()) {
        let Some(link) = object.at(&["metadata", "annotations", "gethomepage.dev/href"]) else { continue };
        let text = link.text().unwrap_or_default();
        let host = text.split("://").nth(1).unwrap_or(text).split('/').next().unwrap_or_default();
        if host.ends_with(&format!(".{domain}")) && !hosts.iter().any(|known| known == host) {
            let list = document.get("caddy_services").map_or_else(|| file.place(0, 0), |list| list.place(file));
            let finding = Finding::error("ingress-published", format!("Caddy does not serve {host}"));
            findings.push(finding.at(Ref::place(link)).also(list, "its services"));
        }
    }
}
