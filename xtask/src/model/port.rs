//! Everything that a port's number stands behind: its name in probes and Services, Ingresses and Caddy in front.

use super::names;
use super::source::Place;
use super::world::{App, Object, Ref, World};

/// The uses of port `number` that don't say it, each with what they say.
pub(crate) fn uses(world: &World, number: &str) -> Vec<(Place, String)> {
    let mut uses = Uses { world, found: Vec::new() };
    for (app, object) in world.objects() {
        for container in object.containers() {
            let own = container.list(&["ports"]).into_iter();
            for port in own.filter(|port| port.text_at(&["containerPort"]) == Some(number)) {
                uses.container(container, port);
                uses.services(app, object, (number, port.text_at(&["name"])));
            }
        }
        if object.kind == "Service" {
            for port in ports(object).into_iter().filter(|port| port.text_at(&["port"]) == Some(number)) {
                uses.ingresses(app, object, port);
            }
        }
    }
    uses.found
}

struct Uses<'a> {
    world: &'a World,
    found: Vec<(Place, String)>,
}

impl Uses<'_> {
    /// Its name, and the probes that ask by it.
    fn container(&mut self, container: Ref<'_>, port: Ref<'_>) {
        let Some(name) = port.get("name") else { return };
        self.found.push(shown(name));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            for way in ["httpGet", "tcpSocket", "grpc"] {
                let asked = container.at(&[probe, way, "port"]).filter(|asked| asked.text() == name.text());
                self.found.extend(asked.map(shown));
            }
        }
    }

    /// The Services that lead to it by number or name, and what stands in front of them.
    fn services(&mut self, app: &App, workload: &Object, (number, name): (&str, Option<&str>)) {
        let world = self.world;
        for service in world.beside(app, workload, "Service").filter(|service| service.selects(workload)) {
            for port in ports(service) {
                let target = port.get("targetPort").or(port.get("port"));
                let text = target.and_then(Ref::text);
                if text == Some(number) || (text.is_some() && text == name) {
                    self.found.extend(target.filter(|_| text == name).map(shown));
                    self.ingresses(app, service, port);
                }
            }
        }
    }

    /// The Ingresses to a Service's port, and what Caddy serves through them.
    fn ingresses(&mut self, app: &App, service: &Object, port: Ref<'_>) {
        let world = self.world;
        for ingress in world.beside(app, service, "Ingress") {
            let to = |backend: &Ref<'_>| backend.text_at(&["name"]) == Some(&service.name);
            for backend in ingress.backends().into_iter().filter(to) {
                let named = backend.at(&["port", "name"]).filter(|name| name.text() == port.text_at(&["name"]));
                let numbered = backend.at(&["port", "number"]).filter(|at| at.text() == port.text_at(&["port"]));
                let Some(used) = named.or(numbered) else { continue };
                self.found.push(shown(used));
                let served = names::in_tailnet(ingress).map_or_else(Vec::new, |name| names::served(world, name));
                self.found.extend(served.into_iter().map(|(host, place)| (place, host)));
            }
        }
        if let Some(name) = names::in_tailnet(service) {
            self.found.extend(names::served(world, name).into_iter().map(|(host, place)| (place, host)));
        }
    }
}

fn shown(value: Ref<'_>) -> (Place, String) {
    (value.place(), value.text().unwrap_or_default().to_owned())
}

fn ports(service: &Object) -> Vec<Ref<'_>> {
    service.root().list(&["spec", "ports"])
}
