//! The names that people and programs reach things by: in the tailnet, and from Caddy.

use super::source::{Place, Source};
use super::world::{Object, Ref, World};
use super::yaml::{self, Node};

/// The list of services: the file, the whole document and the entries.
pub(crate) fn services(world: &World) -> Option<(&Source, Node, Vec<Node>)> {
    world.repo.files.iter().filter(|file| file.path.starts_with("ansible/")).find_map(|file| {
        let document = yaml::parse(file).ok()?.into_iter().next()?;
        let list = document.get("caddy_services")?.items().to_vec();
        Some((file, document, list))
    })
}

/// `{{ name }}` replaced by the value of a variable of the same file, as often as there is one.
pub(crate) fn expand(text: &str, document: &Node) -> String {
    let mut text = text.to_owned();
    for _ in 0..5 {
        let Some((before, rest)) = text.split_once("{{") else { break };
        let Some((name, after)) = rest.split_once("}}") else { break };
        let Some(value) = document.get(name.trim()).and_then(Node::text) else { break };
        text = format!("{before}{value}{after}");
    }
    text
}

/// The first TLS host of a Tailscale Ingress.
pub(crate) fn tailscale_host(object: &Object) -> Option<Ref<'_>> {
    let is_tailscale = object.kind == "Ingress" && object.at(&["spec", "ingressClassName"])?.text()? == "tailscale";
    let tls = object.at(&["spec", "tls"]).filter(|_| is_tailscale)?;
    tls.items().first()?.get("hosts")?.items().first().copied()
}

/// The name in the tailnet of an Ingress or a Service.
pub(crate) fn in_tailnet(object: &Object) -> Option<&str> {
    let annotated = || object.at(&["metadata", "annotations", "tailscale.com/hostname"]);
    tailscale_host(object).or_else(annotated)?.text()
}

/// What Caddy serves from the machine of the tailnet that is called `name`: the host or port, and its backend's place.
pub(crate) fn served(world: &World, name: &str) -> Vec<(String, Place)> {
    let Some((file, document, services)) = services(world) else { return Vec::new() };
    let tailnet = document.get("caddy_tailnet").and_then(Node::text).unwrap_or(".ts.net");
    let plain = document.get("caddy_layer4").map_or(&[][..], Node::items);
    let entry = |entry: &Node| {
        let backend = entry.get("backend")?;
        let full = expand(backend.text()?, &document);
        let address = full.rsplit("://").next()?.split([':', '/']).next()?;
        let (first, zone) = address.split_once('.')?;
        let shown = match (entry.get("host"), entry.get("port")) {
            (Some(host), _) => expand(host.text()?, &document),
            (None, port) => format!("Caddy port {}", port?.text()?),
        };
        (first == name && format!(".{zone}").ends_with(tailnet)).then(|| (shown, backend.place(file)))
    };
    services.iter().chain(plain).filter_map(entry).collect()
}
