//! What a workload says of itself, its pod and its containers.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{COMMAND, POD, PORT, PROBE, RESOURCES, SECURITY, Sheet, Side, VOLUME, WORKLOAD, env, pairs};
use crate::model::quantity;
use crate::model::source::Place;
use crate::model::world::{Object, Ref};

/// Fields that have a comparison of their own, or mean nothing beside another name.
const APART: [&str; 6] = ["template", "selector", "jobTemplate", "strategy", "updateStrategy", "serviceName"];
const POD_APART: [&str; 7] = [
    "containers",
    "initContainers",
    "volumes",
    "securityContext",
    "serviceAccountName",
    "serviceAccount",
    "automountServiceAccountToken",
];
const CONTAINER_APART: [&str; 13] = [
    "name",
    "image",
    "command",
    "args",
    "ports",
    "env",
    "envFrom",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "resources",
    "volumeMounts",
    "securityContext",
];

/// What Kubernetes takes where nothing is written.
const POD_DEFAULTS: [(&str, &str); 4] = [
    ("enableServiceLinks", "true"),
    ("terminationGracePeriodSeconds", "30"),
    ("restartPolicy", "Always"),
    ("dnsPolicy", "ClusterFirst"),
];
const CONTAINER_DEFAULTS: [(&str, &str); 1] = [("imagePullPolicy", "IfNotPresent")];
const SECURITY_DEFAULTS: [(&str, &str); 4] = [
    ("allowPrivilegeEscalation", "true"),
    ("privileged", "false"),
    ("readOnlyRootFilesystem", "false"),
    ("runAsNonRoot", "false"),
];

pub(super) fn add(sheet: &mut Sheet, sides: (Side<'_>, Side<'_>), workload: &Object, role: &str) {
    sheet.add(WORKLOAD, ("", role), &*workload.kind, workload.place());
    add_workload(sheet, workload, role);
    let Some(pod) = workload.pod_template().and_then(|pod| pod.get("spec")) else { return };
    add_rest(sheet, (POD, role, "pod/"), pod, (&POD_APART, &POD_DEFAULTS));
    let containers = pod.list(&["containers"]);
    let main = pairs::main_container(&containers, role);
    for (list, kind) in [("containers", "container"), ("initContainers", "init")] {
        for container in pod.list(&[list]) {
            let name = container.text_at(&["name"]).unwrap_or_default();
            let is_main = kind == "container" && main.and_then(|main| main.text_at(&["name"])) == Some(name);
            let parent = if is_main { role.to_owned() } else { format!("{role}/{kind}/{name}") };
            if !is_main {
                let place = container.get("name").unwrap_or(container).place();
                sheet.add(WORKLOAD, (role, &format!("{kind}/{name}")), "a container", place);
            }
            add_container(sheet, &parent, pod, container);
            env::add(sheet, sides, container, &parent);
        }
    }
}

fn add_workload(sheet: &mut Sheet, workload: &Object, role: &str) {
    let Some(spec) = workload.at(&["spec"]) else { return };
    let defaults: &[(&str, &str)] = match workload.kind.as_str() {
        "Deployment" | "StatefulSet" => &[("replicas", "1"), ("revisionHistoryLimit", "10")],
        _ => &[],
    };
    if workload.kind != "Pod" {
        add_rest(sheet, (WORKLOAD, role, ""), spec, (&APART, defaults));
    }
    let strategy = spec.get("strategy").or_else(|| spec.get("updateStrategy"));
    if matches!(workload.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet") {
        let kind = strategy.and_then(|strategy| strategy.text_at(&["type"])).unwrap_or("RollingUpdate");
        let rolling = strategy.and_then(|strategy| strategy.get("rollingUpdate"));
        let shown = rolling.map_or_else(|| kind.to_owned(), |rolling| format!("{kind} {}", value(rolling)));
        sheet.add(WORKLOAD, (role, "strategy"), shown, strategy.unwrap_or(spec).place());
    }
}

/// Fields that nothing else looks at, and the defaults of those that are not written.
fn add_rest(
    sheet: &mut Sheet,
    (code, parent, heading): (&'static str, &str, &str),
    spec: Ref<'_>,
    (apart, defaults): (&[&str], &[(&str, &str)]),
) {
    for (key, field) in spec.entries().into_iter().filter(|(key, _)| !apart.contains(key)) {
        if !is_nothing(&field.typed()) {
            sheet.add(code, (parent, &format!("{heading}{key}")), value(field), field.place());
        }
    }
    for (key, default) in defaults {
        if spec.get(key).is_none_or(|field| is_nothing(&field.typed())) {
            sheet.add(code, (parent, &format!("{heading}{key}")), *default, spec.place());
        }
    }
}

/// Kubernetes reads what is empty as what is not there.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(entries) => entries.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A value in one line; keys in order.
pub(super) fn value(field: Ref<'_>) -> String {
    match field.typed() {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn words(list: &[Ref<'_>]) -> String {
    shell_words::join(list.iter().filter_map(|word| word.text()))
}

fn add_container(sheet: &mut Sheet, parent: &str, pod: Ref<'_>, container: Ref<'_>) {
    for key in ["command", "args"] {
        if let Some(list) = container.get(key).filter(|list| !list.items().is_empty()) {
            sheet.add(COMMAND, (parent, key), words(&list.items()), list.place());
        }
    }
    for port in container.list(&["ports"]) {
        let number = port.text_at(&["containerPort"]).unwrap_or_default();
        let name = port.text_at(&["name"]).unwrap_or(number);
        let protocol = port.text_at(&["protocol"]).unwrap_or("TCP");
        let host = port.text_at(&["hostPort"]).map_or_else(String::new, |host| format!(" on the node's {host}"));
        let place = port.get("containerPort").unwrap_or(port).place();
        sheet.add(PORT, (parent, &format!("port/{name}")), format!("{number}/{protocol}{host}"), place);
    }
    for name in ["startup", "liveness", "readiness"] {
        if let Some(probe) = container.get(&format!("{name}Probe")).filter(|probe| !probe.entries().is_empty()) {
            sheet.add(PROBE, (parent, &format!("probe/{name}")), shown_probe(container, probe), probe.place());
        }
    }
    add_resources(sheet, parent, container);
    add_volumes(sheet, parent, pod, container);
    add_security(sheet, parent, pod, container);
    add_rest(sheet, (POD, parent, ""), container, (&CONTAINER_APART, &CONTAINER_DEFAULTS));
}

/// The name of a port of the container, where it has one.
pub(super) fn port_name<'a>(container: Ref<'a>, port: &'a str) -> &'a str {
    let ports = container.list(&["ports"]);
    let found = ports.iter().find(|candidate| candidate.text_at(&["containerPort"]) == Some(port));
    found.and_then(|port| port.text_at(&["name"])).unwrap_or(port)
}

/// What it does and how patient it is.
fn shown_probe(container: Ref<'_>, probe: Ref<'_>) -> String {
    let port = |action: Ref<'_>| port_name(container, action.text_at(&["port"]).unwrap_or("?")).to_owned();
    let action = if let Some(http) = probe.get("httpGet") {
        let scheme = http.text_at(&["scheme"]).filter(|scheme| *scheme != "HTTP");
        let headers = http.list(&["httpHeaders"]);
        let headers = headers.iter().map(|header| format!(" with {}", header.text_at(&["name"]).unwrap_or_default()));
        let path = http.text_at(&["path"]).unwrap_or("/");
        let scheme = scheme.map_or_else(String::new, |scheme| format!("{scheme} "));
        format!("{scheme}GET {path} on {}{}", port(http), headers.collect::<String>())
    } else if let Some(exec) = probe.get("exec") {
        format!("run {}", words(&exec.list(&["command"])))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("connect to {}", port(tcp))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("gRPC on {} {}", port(grpc), grpc.text_at(&["service"]).unwrap_or_default())
    } else {
        "nothing".to_owned()
    };
    let timings = [
        ("delay", "initialDelaySeconds", "0"),
        ("period", "periodSeconds", "10"),
        ("timeout", "timeoutSeconds", "1"),
        ("success", "successThreshold", "1"),
        ("failure", "failureThreshold", "3"),
    ];
    let timing = |(word, key, default)| format!(", {word} {}", probe.text_at(&[key]).unwrap_or(default));
    action + &timings.map(timing).concat()
}

fn add_resources(sheet: &mut Sheet, parent: &str, container: Ref<'_>) {
    let Some(resources) = container.get("resources") else { return };
    let limits = resources.get("limits").map_or_else(Vec::new, Ref::entries);
    // What is limited and not requested is requested up to its limit.
    let mut all: BTreeMap<String, Ref<'_>> =
        limits.iter().map(|(name, amount)| (format!("requests/{name}"), *amount)).collect();
    for kind in ["requests", "limits"] {
        let amounts = resources.get(kind).map_or_else(Vec::new, Ref::entries);
        all.extend(amounts.into_iter().map(|(name, amount)| (format!("{kind}/{name}"), amount)));
    }
    for (name, amount) in all {
        let resource = name.rsplit('/').next().unwrap_or(&name);
        let shown = quantity::canonical(resource, amount.text().unwrap_or_default());
        sheet.add(RESOURCES, (parent, &format!("resources/{name}")), shown, amount.place());
    }
}

fn add_volumes(sheet: &mut Sheet, parent: &str, pod: Ref<'_>, container: Ref<'_>) {
    let volumes = pod.list(&["volumes"]);
    for mount in container.list(&["volumeMounts"]) {
        let name = mount.text_at(&["name"]);
        let volume = volumes.iter().find(|volume| volume.text_at(&["name"]) == name);
        let path = mount.text_at(&["mountPath"]).unwrap_or_default().trim_end_matches('/');
        let read_only = if mount.text_at(&["readOnly"]) == Some("true") { ", read only" } else { "" };
        let shown = volume.map_or_else(|| "a claim of its own".to_owned(), |volume| shown_volume(*volume));
        sheet.add(VOLUME, (parent, &format!("volume{path}")), shown + read_only, mount.place());
    }
}

/// What kind of volume it is, and how large; names differ between any two releases.
fn shown_volume(volume: Ref<'_>) -> String {
    let Some((kind, source)) = volume.entries().into_iter().find(|(key, _)| *key != "name") else {
        return "emptyDir".to_owned();
    };
    let details = match kind {
        "emptyDir" => ["medium", "sizeLimit"].as_slice(),
        "hostPath" => &["path", "type"],
        "csi" => &["driver"],
        _ => &[],
    };
    let details = details.iter().filter_map(|key| source.text_at(&[key])).filter(|text| !text.is_empty());
    details.fold(kind.to_owned(), |text, detail| format!("{text} {}", quantity::canonical("memory", detail)))
}

/// What holds for the container: its own settings, and the pod's where it has none.
fn add_security(sheet: &mut Sheet, parent: &str, pod: Ref<'_>, container: Ref<'_>) {
    let mut effective = BTreeMap::<String, (String, Place)>::new();
    for (key, default) in SECURITY_DEFAULTS {
        effective.insert(key.to_owned(), (default.to_owned(), container.place()));
    }
    for context in [pod, container].into_iter().filter_map(|level| level.get("securityContext")) {
        for (key, field) in context.entries() {
            flatten(key, field, &mut effective);
        }
    }
    for (key, (shown, place)) in effective {
        sheet.add(SECURITY, (parent, &format!("security/{key}")), shown, place);
    }
}

fn flatten(path: &str, field: Ref<'_>, found: &mut BTreeMap<String, (String, Place)>) {
    let entries = field.entries();
    if entries.is_empty() {
        let mut items: Vec<&str> = field.items().iter().filter_map(|item| item.text()).collect();
        items.sort_unstable();
        let typed = field.typed();
        let shown = if items.is_empty() { value(field) } else { items.join(", ") };
        if !is_nothing(&typed) {
            found.insert(path.to_owned(), (shown, field.place()));
        }
    }
    for (key, inner) in entries {
        flatten(&format!("{path}.{key}"), inner, found);
    }
}
