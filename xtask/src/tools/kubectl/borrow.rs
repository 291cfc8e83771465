//! kubectl in a cluster that somebody has: what is there, the door to it, what a rehearsal makes there and removes.

use std::time::Duration;

use serde_json::{Value, json};

use super::in_cluster;
use crate::model::config::KubeContext;
use crate::tools::{Invocation, line};

/// Whatever a rehearsal makes in such a cluster carries this label, or is in a namespace that does.
pub(crate) const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "blumeops-rehearsal");

/// On a namespace: which machine's rehearsal made it, and which folder of that machine is the rehearsal's.
pub(crate) const MACHINE: &str = "blumeops-rehearsal/machine";
pub(crate) const FOLDER: &str = "blumeops-rehearsal/folder";

/// The namespace of what is in no manifest. Who makes it has the cluster.
pub(crate) const NAMESPACE: &str = "blumeops-rehearsal";

/// How long one request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// How long everything may take to go: pods get a second, and CNI and volumes of a busy machine a while.
const GOING: Duration = Duration::from_secs(180);

/// Who made a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Maker {
    pub(crate) machine: String,
    pub(crate) folder: String,
}

/// All that has to be known before anything is made.
pub(crate) fn seen(context: &KubeContext) -> Invocation {
    let kinds = "nodes,namespaces,storageclasses,customresourcedefinitions";
    in_cluster(context, LIMIT, &["get", kinds, "--output=json"])
}

/// Succeeds for who may do everything.
pub(crate) fn may_all(context: &KubeContext) -> Invocation {
    in_cluster(context, LIMIT, &["auth", "can-i", "*", "*", "--all-namespaces"])
}

/// The API server at a socket, with the rights of `context`: its credentials stay with kubectl.
pub(crate) fn proxy(context: &KubeContext, socket: &str) -> Invocation {
    let (context, socket) = (format!("--context={context}"), format!("--unix-socket={socket}"));
    // It would refuse exec, which is how the database is asked.
    line!("kubectl {context} proxy {socket} --reject-paths=^$")
}

/// Makes what is in `file`, and fails where it is already.
pub(crate) fn create(context: &KubeContext, file: &str) -> Invocation {
    in_cluster(context, LIMIT, &["create", "--filename", file])
}

/// The port of every node by which it fetches images.
pub(crate) fn node_port(context: &KubeContext) -> Invocation {
    let namespace = format!("--namespace={NAMESPACE}");
    in_cluster(
        context,
        LIMIT,
        &["get", "service", "registry", &namespace, "--output=jsonpath={.spec.ports[0].nodePort}"],
    )
}

/// Has everything go that rehearsals made.
pub(crate) fn remove(context: &KubeContext) -> Invocation {
    removal(context, "--wait=false", LIMIT)
}

/// The same, and waits until it is gone.
pub(crate) fn remove_and_wait(context: &KubeContext) -> Invocation {
    removal(context, "--wait=true", GOING)
}

fn removal(context: &KubeContext, wait: &str, limit: Duration) -> Invocation {
    let label = format!("--selector={}={}", LABEL.0, LABEL.1);
    let timeout = format!("--timeout={}s", limit.as_secs());
    let (context, kinds) = (format!("--context={context}"), "namespaces,customresourcedefinitions");
    line!("kubectl {context} delete {kinds} {label} {wait} {timeout}").limit(limit + Duration::from_secs(5))
}

/// The pods of a namespace that goes are not given half a minute each.
pub(crate) fn hurry(context: &KubeContext, namespace: &str) -> Invocation {
    let namespace = format!("--namespace={namespace}");
    in_cluster(context, LIMIT, &["delete", "pods", "--all", &namespace, "--grace-period=1", "--wait=false"])
}

/// A namespace that says who made it.
pub(crate) fn namespace(name: &str, maker: &Maker) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "labels": {LABEL.0: LABEL.1},
            "annotations": {MACHINE: maker.machine, FOLDER: maker.folder},
        },
    })
}

/// A port of every node that leads to the registry at `address` and `port`. Engines speak plain HTTP to their own
/// machine alone, and nothing about a node has to be changed for that.
pub(crate) fn registry(address: std::net::IpAddr, port: u16) -> Value {
    let metadata = json!({
        "name": "registry", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "registry", LABEL.0: LABEL.1},
    });
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"type": "NodePort", "ports": [{"port": 5000}]}},
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": family,
            "ports": [{"port": port}], "endpoints": [{"addresses": [address.to_string()]}],
        },
    ]})
}
