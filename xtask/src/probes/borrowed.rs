//! May a rehearsal use a cluster that somebody has? Not one that can be production's, nor one with something in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;

use crate::model::config::{self, Config, host_and_port};
use crate::model::image::Architecture;
use crate::tools::kubectl::borrow::{FOLDER, LABEL, MACHINE, Maker};

/// Namespaces that every cluster has.
const INITIAL: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Marks the storage class of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// What a rehearsal needs of a cluster.
pub(crate) struct Wanted<'a> {
    /// The namespaces that it makes.
    pub(crate) own: &'a BTreeSet<String>,
    /// Those that other Applications deploy to: where one is, somebody may use what it holds.
    pub(crate) others: &'a BTreeSet<String>,
    /// The kinds that it brings, as in `applications.argoproj.io`.
    pub(crate) kinds: &'a [String],
    pub(crate) has_claims: bool,
    pub(crate) architecture: Architecture,
}

/// A cluster that can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Usable {
    /// Where its nodes are.
    pub(crate) nodes: Vec<IpAddr>,
    /// What rehearsals have made in it already, and who they were.
    pub(crate) left: Vec<(String, Maker)>,
}

/// Where `context` leads, unless that is or may be production.
///
/// # Errors
/// Why it is not asked.
pub(crate) fn server<'a>(
    config: &Config,
    contexts: &'a BTreeMap<String, String>,
    context: &str,
) -> Result<&'a str, String> {
    let named = |cluster: &config::Cluster| cluster.context.as_ref().map(ToString::to_string);
    if let Some(cluster) = config.clusters.iter().find(|cluster| named(cluster).as_deref() == Some(context)) {
        return Err(format!("{context} is the context of [clusters.{}] in {}: production", cluster.name, config::PATH));
    }
    let Some(server) = contexts.get(context) else {
        let known: Vec<&str> = contexts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(format!("the kubeconfig has no context {context} with a server; it has: {known}"));
    };
    for cluster in &config.clusters {
        let leads_there =
            |name: &String| contexts.get(name).is_some_and(|there| host_and_port(there) == host_and_port(server));
        if let Some(name) = named(cluster).filter(leads_there) {
            return Err(format!("{context} leads to {server}, and so does production's {name}"));
        }
        if cluster.is_at(server) {
            return Err(format!("{context} leads to {server}, where production's cluster {} is", cluster.name));
        }
    }
    if is_in_a_tailnet(&host_and_port(server).0) {
        return Err(format!("{context} leads to {server}, which is in a tailnet, as production is"));
    }
    Ok(server)
}

/// By name, or by an address of those that Tailscale gives.
fn is_in_a_tailnet(host: &str) -> bool {
    let shared = |address: Ipv4Addr| address.octets()[0] == 100 && (64..128).contains(&address.octets()[1]);
    host.ends_with(".ts.net") || host.parse().is_ok_and(shared) || host.starts_with("[fd7a:115c:a1e0:")
}

/// Whether the cluster of these objects can be used.
///
/// # Errors
/// Everything that is in the way, at once.
pub(crate) fn judge(objects: &[Value], wanted: &Wanted<'_>) -> Result<Usable, Vec<String>> {
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut why = Vec::new();
    let mut nodes = Vec::new();
    for node in of("Node") {
        let (name, architecture) =
            (name(node), node["status"]["nodeInfo"]["architecture"].as_str().unwrap_or_default());
        if architecture != wanted.architecture.as_str() {
            why.push(format!(
                "its node {name} is {architecture}, and images built here are {}",
                wanted.architecture.as_str()
            ));
        }
        let addresses = node["status"]["addresses"].as_array().into_iter().flatten();
        let mut internal = addresses.filter(|address| address["type"] == "InternalIP");
        nodes.extend(internal.find_map(|address| address["address"].as_str()?.parse::<IpAddr>().ok()));
    }
    if nodes.is_empty() {
        why.push("no node of it has an address".to_owned());
    }
    let mut left = Vec::new();
    for namespace in of("Namespace") {
        let name = name(namespace).to_owned();
        match maker(namespace) {
            Some(maker) => left.push((name, maker)),
            None if wanted.own.contains(&name) => {
                why.push(format!("it has the namespace {name} already, and no rehearsal made it"));
            }
            None if wanted.others.contains(&name) && !INITIAL.contains(&name.as_str()) => {
                why.push(format!("it has the namespace {name}, to which an Application of this repository deploys"));
            }
            None => {}
        }
    }
    for kind in of("CustomResourceDefinition").filter(|kind| !is_marked(kind)).map(name) {
        if wanted.kinds.iter().any(|wanted| wanted == kind) {
            why.push(format!("it has the kind {kind} already, and no rehearsal brought it"));
        }
    }
    let is_default = |class: &Value| class["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    if wanted.has_claims && !of("StorageClass").any(is_default) {
        why.push("it has no default StorageClass, and the manifests claim volumes".to_owned());
    }
    if why.is_empty() { Ok(Usable { nodes, left }) } else { Err(why) }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn is_marked(object: &Value) -> bool {
    object["metadata"]["labels"][LABEL.0] == LABEL.1
}

/// Which rehearsal made it, if one did.
fn maker(namespace: &Value) -> Option<Maker> {
    let annotation = |key: &str| namespace["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
    is_marked(namespace).then(|| Maker { machine: annotation(MACHINE), folder: annotation(FOLDER) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::source::Source;
    use crate::tools::kubectl::borrow;
    use serde_json::json;

    fn contexts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, server)| ((*name).to_owned(), (*server).to_owned())).collect()
    }

    #[test]
    fn nothing_that_may_be_production_is_asked() {
        let text = "[clusters.a]\nserver = 'https://a.tail1.ts.net:6443'\narchitecture = 'amd64'\ncontext = 'k3s-a'\n[clusters.b]\nserver = 'https://kubernetes.default.svc'\narchitecture = 'arm64'\ncontext = 'minikube-b'\n[clusters.c]\nserver = 'https://c.example:6443'\narchitecture = 'amd64'\n";
        let config = Config::parse(Some(&Source::new(config::PATH, text))).unwrap();
        let all = contexts(&[
            ("k3s-a", "https://127.0.0.1:1"),
            ("minikube-b", "https://127.0.0.1:50000"),
            ("alias", "https://127.0.0.1:50000"),
            ("short", "https://A:6444"),
            ("c", "https://c.example"),
            ("tailnet", "https://other.tail1.ts.net"),
            ("address", "https://100.100.3.4:6443"),
            ("kind-kind", "https://127.0.0.1:40001"),
            ("minikube", "https://192.168.49.2:8443"),
        ]);
        for (context, why) in [
            ("k3s-a", "[clusters.a]"),
            ("minikube-b", "[clusters.b]"),
            ("alias", "so does production's minikube-b"),
            ("short", "production's cluster a is"),
            ("c", "production's cluster c is"),
            ("tailnet", "in a tailnet"),
            ("address", "in a tailnet"),
            ("gone", "it has: address, alias, c, k3s-a, kind-kind"),
        ] {
            let refused = server(&config, &all, context).unwrap_err();
            assert!(refused.contains(why), "{context}: {refused}");
        }
        assert_eq!(server(&config, &all, "kind-kind"), Ok("https://127.0.0.1:40001"));
        assert_eq!(server(&config, &all, "minikube"), Ok("https://192.168.49.2:8443"));
    }

    #[test]
    fn what_is_in_the_way_is_said_at_once() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let (own, others, kinds) = (set(&["authentik", "argocd"]), set(&["loki", "default"]), ["x.example".to_owned()]);
        let wanted =
            Wanted { own: &own, others: &others, kinds: &kinds, has_claims: true, architecture: Architecture::Amd64 };
        let node = json!({"kind": "Node", "metadata": {"name": "n"}, "status": {
            "nodeInfo": {"architecture": "amd64"},
            "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "172.18.0.2"}],
        }});
        let class = json!({"kind": "StorageClass", "metadata": {"name": "s", "annotations": {DEFAULT_CLASS: "true"}}});
        let maker = Maker { machine: "m".to_owned(), folder: "f".to_owned() };
        let plain = |kind: &str, name: &str| json!({"kind": kind, "metadata": {"name": name}});
        let made = borrow::namespace("authentik", &maker);
        let fine = [node.clone(), class.clone(), made, plain("Namespace", "default"), plain("Namespace", "mine")];
        let usable = Usable { nodes: vec!["172.18.0.2".parse().unwrap()], left: vec![("authentik".to_owned(), maker)] };
        assert_eq!(judge(&fine, &wanted), Ok(usable));
        let mut foreign = node;
        foreign["status"]["nodeInfo"]["architecture"] = "arm64".into();
        let crd = plain("CustomResourceDefinition", "x.example");
        let bad = [foreign, plain("Namespace", "argocd"), plain("Namespace", "loki"), crd];
        let why = judge(&bad, &wanted).unwrap_err();
        for word in ["n is arm64", "namespace argocd already", "namespace loki, to", "kind x.example", "StorageClass"] {
            assert!(why.iter().any(|why| why.contains(word)), "{word}: {why:?}");
        }
        assert_eq!((why.len(), judge(&[class], &wanted)), (5, Err(vec!["no node of it has an address".to_owned()])));
    }
}
