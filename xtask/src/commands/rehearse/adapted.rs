//! The manifests in a cluster that somebody has: the same but for where images are fetched and where production's names lead.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::facts::Facts;
use crate::model::image::Home;
use crate::model::name::ContainerName;

/// Whatever runs pods by a template.
const WORKLOADS: &str = "Deployment|StatefulSet|DaemonSet|Job";

/// Where a name leads that has nothing behind it: never out of the cluster, to production.
const NOWHERE: &str = "127.0.0.1";

/// What the database's stand-in runs, as it is called in the registry.
pub(super) const POSTGRES: &str = "stand-ins/postgresql:1";

/// A kustomization beside the rendered `manifests`: `images` in place of the registry's host, and production's names
/// in each pod's own list of hosts. `tailnet` are the names that Services have there, and their addresses.
pub(super) fn kustomization<'a>(
    (home, containers): (&Home, &[ContainerName]),
    images: &str,
    facts: &Facts,
    tailnet: impl Iterator<Item = (&'a str, &'a str)>,
) -> Value {
    let renamed = containers.iter().map(|name| {
        let repository = home.repository(name);
        json!({"name": home.image(name), "newName": format!("{images}/{repository}")})
    });
    let known: BTreeMap<&str, &str> = tailnet.collect();
    let leads = |host: &str| {
        // Caddy hands the database's port on, by layer 4, to what has the same name in the tailnet.
        let name =
            host.strip_suffix(&format!(".{}", facts.tailnet)).or_else(|| (host == facts.database()).then_some("pg"));
        name.and_then(|name| known.get(name)).copied().unwrap_or(NOWHERE)
    };
    let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for host in &facts.hosts {
        hosts.entry(leads(host)).or_default().push(host);
    }
    let aliases: Vec<Value> = hosts.iter().map(|(ip, names)| json!({"ip": ip, "hostnames": names})).collect();
    let patch = json!([{"op": "add", "path": "/spec/template/spec/hostAliases", "value": aliases}]);
    json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": ["manifests.yaml"],
        "images": renamed.collect::<Vec<_>>(),
        "patches": [{"target": {"kind": WORKLOADS}, "patch": patch.to_string()}],
    })
}
