//! Network: what Caddy serves has the domain and something behind it.

use std::collections::BTreeMap;

use super::Rule;
use super::objects::tailscale_host;
use crate::model::finding::Finding;
use crate::model::source::Source;
use crate::model::world::{Ref, World};
use crate::model::yaml::{self, Node};

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
];

/// The list of services: the file, the whole document and the entries.
fn services(world: &World) -> Option<(&Source, Node, Vec<Node>)> {
    world.repo.files.iter().filter(|file| file.path.starts_with("ansible/")).find_map(|file| {
        let document = yaml::parse(file).ok()?.into_iter().next()?;
        let list = document.get("caddy_services")?.items().to_vec();
        Some((file, document, list))
    })
}

/// `{{ name }}` replaced by the value of a variable of the same file, as often as there is one.
fn expand(text: &str, document: &Node) -> String {
    let mut text = text.to_owned();
    for _ in 0..5 {
        let Some((before, rest)) = text.split_once("{{") else { break };
        let Some((name, after)) = rest.split_once("}}") else { break };
        let Some(value) = document.get(name.trim()).and_then(Node::text) else { break };
        text = format!("{before}{value}{after}");
    }
    text
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
fn tailnet_names(world: &World) -> Vec<&str> {
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
        if is_tailnet && world.knows_all() && !names.is_empty() && !names.contains(&name) {
            let finding =
                Finding::error("caddy-backend", format!("nothing here is called {address}")).at(backend.place(file));
            findings.push(finding.did_you_mean(name, names.iter().copied()));
        }
    }
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
