//! Objects: every reference between them finds what it means.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::model::finding::Finding;
use crate::model::world::{App, Object, Ref, World};

const DEPLOYMENT: &str = "argocd/manifests/web/deployment.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "selector-labels",
        about: "A workload's selector matches the labels of its own pods.",
        why: "The API server refuses it.",
        breaks: (DEPLOYMENT, "matchLabels: {app: web}", "matchLabels: {app: wep}"),
        check: selector_labels,
    },
    Rule {
        code: "service-pods",
        about: "A Service's selector matches the pods of a workload beside it.",
        why: "It has no endpoints, and whoever asks it gets nothing.",
        breaks: ("argocd/manifests/web/service.yaml", "selector: {app: web}", "selector: {app: wep}"),
        check: service_pods,
    },
    Rule {
        code: "service-port",
        about: "A Service's target port is one of its pods' ports.",
        why: "Connections are refused.",
        breaks: ("argocd/manifests/web/service.yaml", "targetPort: http", "targetPort: htpp"),
        check: service_port,
    },
    Rule {
        code: "port-number",
        about: "A container's port is a number from 1 to 65535, and its name is its own.",
        why: "The API server refuses it.",
        breaks: (DEPLOYMENT, "containerPort: 8000", "containerPort: http"),
        check: port_number,
    },
    Rule {
        code: "network-policy",
        about: "A NetworkPolicy's selectors match pods of its namespace, and its ports are theirs.",
        why: "It protects nothing, or shuts out those it was meant to let in.",
        breaks: (
            "argocd/manifests/web/policy.yaml",
            "podSelector: {matchLabels: {app: web}}",
            "podSelector: {matchLabels: {app: wep}}",
        ),
        check: network_policy,
    },
    Rule {
        code: "probe-port",
        about: "A probe asks a port that its container has.",
        why: "The pod never gets ready, or is restarted for ever.",
        breaks: (
            DEPLOYMENT,
            "readinessProbe: {httpGet: {path: /, port: http}}",
            "readinessProbe: {httpGet: {path: /, port: 8001}}",
        ),
        check: probe_port,
    },
    Rule {
        code: "ingress-backend",
        about: "An Ingress names a Service of its namespace and a port that the Service has.",
        why: "Every request ends in 502.",
        breaks: ("argocd/manifests/web/ingress.yaml", "port: {name: http}", "port: {number: 8000}"),
        check: ingress_backend,
    },
    Rule {
        code: "ingress-host",
        about: "A Tailscale Ingress has exactly one TLS host, and nothing else in the tailnet has that name.",
        why: "The operator takes one of two at best.",
        breaks: ("argocd/manifests/web/ingress.yaml", "tls: [{hosts: [web]}]", "tls: [{hosts: [web, other]}]"),
        check: ingress_host,
    },
    Rule {
        code: "volume-mount",
        about: "A container mounts volumes that its pod has.",
        why: "The API server refuses it.",
        breaks: (DEPLOYMENT, "{name: data, mountPath: /data}", "{name: date, mountPath: /data}"),
        check: volume_mount,
    },
    Rule {
        code: "volume-source",
        about: "A volume's ConfigMap or claim is among the objects of its namespace.",
        why: "The pod waits for it for ever.",
        breaks: (DEPLOYMENT, "claimName: web-data", "claimName: web-date"),
        check: volume_source,
    },
    Rule {
        code: "claim-unused",
        about: "A PersistentVolumeClaim is mounted by somebody.",
        why: "It is a renamed or forgotten one, and the data is somewhere else.",
        breaks: (DEPLOYMENT, "persistentVolumeClaim: {claimName: web-data}", "emptyDir: {}"),
        check: claim_unused,
    },
    Rule {
        code: "service-account",
        about: "A pod's ServiceAccount is among the objects of its namespace.",
        why: "No pod is created.",
        breaks: (DEPLOYMENT, "serviceAccountName: web", "serviceAccountName: wep"),
        check: service_account,
    },
    Rule {
        code: "duplicate-object",
        about: "An object is defined once in a cluster.",
        why: "Two Applications overwrite each other's.",
        breaks: ("argocd/manifests/web/kustomization.yaml", "  - claim.yaml\n", "  - claim.yaml\n  - twin.yaml\n"),
        check: duplicate_object,
    },
];

/// Key and value of a mapping of scalars.
fn labels(value: Option<Ref<'_>>) -> BTreeMap<String, String> {
    let entries = value.map_or_else(Vec::new, Ref::entries).into_iter();
    entries.filter_map(|(key, value)| Some((key.to_owned(), value.text()?.to_owned()))).collect()
}

fn matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn pod_labels(object: &Object) -> Option<BTreeMap<String, String>> {
    Some(labels(object.pod_template()?.at(&["metadata", "labels"])))
}

fn selector_labels(world: &World, findings: &mut Vec<Finding>) {
    for (_, object) in world.objects() {
        let Some(selector) = object.at(&["spec", "selector", "matchLabels"]) else { continue };
        let Some(own) = pod_labels(object) else { continue };
        for (key, value) in selector.entries() {
            if value.text().is_some_and(|text| own.get(key).is_none_or(|label| label != text)) {
                let message =
                    format!("the pods of {} have no label {key}: {}", object.name, value.text().unwrap_or_default());
                let finding = Finding::error("selector-labels", message).at(value.place());
                let label = object.pod_template().and_then(|pod| pod.at(&["metadata", "labels", key]));
                findings.push(match label {
                    Some(label) => finding.also(label.place(), "its pods' label"),
                    None => finding,
                });
            }
        }
    }
}

/// The workloads in the namespace of `service` that its selector could mean.
fn selected<'a>(world: &'a World, app: &'a App, service: &'a Object) -> (BTreeMap<String, String>, Vec<&'a Object>) {
    let selector = labels(service.at(&["spec", "selector"]));
    let beside =
        world.objects().filter(|(other, object)| other.cluster == app.cluster && object.namespace == service.namespace);
    let workloads = beside.map(|(_, object)| object).filter(|object| object.pod_template().is_some());
    (selector, workloads.collect())
}

fn service_pods(world: &World, findings: &mut Vec<Finding>) {
    for (app, service) in world.closed().filter(|(_, object)| object.kind == "Service") {
        let (selector, workloads) = selected(world, app, service);
        let all: Vec<_> = workloads.iter().filter_map(|workload| pod_labels(workload)).collect();
        // Pods that an operator makes carry labels that no workload here knows.
        let ours = all.iter().any(|labels| selector.keys().any(|key| labels.contains_key(key)));
        if !selector.is_empty() && ours && !all.iter().any(|labels| matches(&selector, labels)) {
            let whole = service.at(&["spec", "selector"]);
            // The one without which the rest would match.
            let odd = selector.keys().find(|key| {
                let rest =
                    selector.iter().filter(|(other, _)| other != key).map(|(k, v)| (k.clone(), v.clone())).collect();
                selector.len() > 1 && all.iter().any(|labels| matches(&rest, labels))
            });
            let at = odd.and_then(|key| whole?.get(key)).or(whole);
            let place = at.map_or_else(|| service.place(), Ref::place);
            let message = format!("the selector of Service {} matches no pods", service.name);
            findings.push(Finding::error("service-pods", message).at(place));
        }
    }
}

/// The ports of a container: names and numbers.
fn ports(container: Ref<'_>) -> BTreeSet<String> {
    let ports = container.get("ports").map_or_else(Vec::new, Ref::items);
    let both = |port: Ref<'_>| ["name", "containerPort"].map(|key| port.text_at(&[key]).map(str::to_owned));
    ports.into_iter().flat_map(both).flatten().collect()
}

fn service_port(world: &World, findings: &mut Vec<Finding>) {
    for (app, service) in world.objects().filter(|(_, object)| object.kind == "Service") {
        let (selector, workloads) = selected(world, app, service);
        let pods = workloads.into_iter().filter(|workload| {
            !selector.is_empty() && pod_labels(workload).is_some_and(|labels| matches(&selector, &labels))
        });
        let ports: BTreeSet<String> = pods.flat_map(Object::containers).flat_map(ports).collect();
        if ports.is_empty() {
            continue;
        }
        for port in service.at(&["spec", "ports"]).map_or_else(Vec::new, Ref::items) {
            let Some(target) = port.get("targetPort").or(port.get("port")) else { continue };
            let text = target.text().unwrap_or_default();
            if !ports.contains(text) {
                let message = format!("the pods of Service {} have no port {text}", service.name);
                let finding = Finding::error("service-port", message).at(target.place());
                findings.push(finding.did_you_mean(text, ports.iter().map(String::as_str)));
            }
        }
    }
}

fn port_number(world: &World, findings: &mut Vec<Finding>) {
    for container in world.objects().flat_map(|(_, object)| object.containers()) {
        let mut names = BTreeSet::new();
        for port in container.get("ports").map_or_else(Vec::new, Ref::items) {
            if let Some(number) = port.get("containerPort")
                && number
                    .text()
                    .is_none_or(|text| text.parse::<u16>().is_ok_and(|port| port == 0) || text.parse::<u16>().is_err())
            {
                let message = format!("{} is no port", number.text().unwrap_or("this"));
                findings.push(Finding::error("port-number", message).at(number.place()));
            }
            if let Some(name) = port.get("name").filter(|name| !names.insert(name.text())) {
                findings
                    .push(Finding::error("port-number", "two ports of the container have this name").at(name.place()));
            }
        }
    }
}

fn network_policy(world: &World, findings: &mut Vec<Finding>) {
    for (app, policy) in world.closed().filter(|(_, object)| object.kind == "NetworkPolicy") {
        let (_, workloads) = selected(world, app, policy);
        // Without a workload of ours beside it, it speaks of somebody else's pods.
        if workloads.is_empty() {
            continue;
        }
        let matching = |selector: Option<Ref<'_>>| {
            let wanted = labels(selector);
            workloads
                .iter()
                .copied()
                .filter(move |workload| pod_labels(workload).is_some_and(|own| matches(&wanted, &own)))
        };
        let own = policy.at(&["spec", "podSelector", "matchLabels"]);
        let peers = ["ingress", "egress"].into_iter().filter_map(|key| policy.at(&["spec", key])).flat_map(Ref::items);
        let rules: Vec<Ref<'_>> = peers.collect();
        let others =
            rules.iter().flat_map(|rule| ["from", "to"].map(|key| rule.get(key))).flatten().flat_map(Ref::items);
        let others = others.filter(|peer| peer.get("namespaceSelector").is_none());
        let others = others.filter_map(|peer| peer.at(&["podSelector", "matchLabels"]));
        for selector in own.into_iter().chain(others) {
            if matching(Some(selector)).next().is_none() {
                findings.push(Finding::error("network-policy", "no pod here has these labels").at(selector.place()));
            }
        }
        let known: BTreeSet<String> = matching(own).flat_map(Object::containers).flat_map(ports).collect();
        let incoming = policy.at(&["spec", "ingress"]).map_or_else(Vec::new, Ref::items);
        let incoming = incoming.into_iter().filter_map(|rule| rule.get("ports")).flat_map(Ref::items);
        for port in incoming.filter_map(|port| port.get("port")).filter(|_| !known.is_empty()) {
            let text = port.text().unwrap_or_default();
            if !known.contains(text) {
                let finding =
                    Finding::error("network-policy", format!("the pods have no port {text}")).at(port.place());
                findings.push(finding.did_you_mean(text, known.iter().map(String::as_str)));
            }
        }
    }
}

fn probe_port(world: &World, findings: &mut Vec<Finding>) {
    for (_, object) in world.objects() {
        for container in object.containers() {
            let ports = ports(container);
            let probes =
                ["livenessProbe", "readinessProbe", "startupProbe"].into_iter().filter_map(|key| container.get(key));
            let asked = probes.flat_map(|probe| ["httpGet", "tcpSocket", "grpc"].map(|key| probe.at(&[key, "port"])));
            for port in asked.flatten() {
                let text = port.text().unwrap_or_default();
                let is_name = text.parse::<u16>().is_err();
                if !ports.contains(text) && (is_name || !ports.is_empty()) {
                    let message =
                        format!("container {} has no port {text}", container.text_at(&["name"]).unwrap_or("?"));
                    let finding = Finding::error("probe-port", message).at(port.place());
                    findings.push(finding.did_you_mean(text, ports.iter().map(String::as_str)));
                }
            }
        }
    }
}

fn backends(ingress: &Object) -> Vec<Ref<'_>> {
    let default = ingress.at(&["spec", "defaultBackend", "service"]);
    let rules = ingress.at(&["spec", "rules"]).map_or_else(Vec::new, Ref::items);
    let paths = rules.into_iter().filter_map(|rule| rule.at(&["http", "paths"])).flat_map(Ref::items);
    default.into_iter().chain(paths.filter_map(|path| path.at(&["backend", "service"]))).collect()
}

fn ingress_backend(world: &World, findings: &mut Vec<Finding>) {
    for (app, ingress) in world.closed().filter(|(_, object)| object.kind == "Ingress") {
        for backend in backends(ingress) {
            let Some(name) = backend.get("name") else { continue };
            let text = name.text().unwrap_or_default();
            let services: Vec<&Object> = world.beside(app, ingress, "Service").collect();
            let Some(service) = services.iter().find(|service| service.name == text) else {
                let message = format!("there is no Service {text} in namespace {}", ingress.namespace);
                let finding = Finding::error("ingress-backend", message).at(name.place());
                findings.push(finding.did_you_mean(text, services.iter().map(|service| service.name.as_str())));
                continue;
            };
            let Some((key, port)) =
                ["name", "number"].into_iter().find_map(|key| Some((key, backend.at(&["port", key])?)))
            else {
                continue;
            };
            let field = if key == "name" { "name" } else { "port" };
            let known = service.at(&["spec", "ports"]).map_or_else(Vec::new, Ref::items);
            let known: Vec<&str> = known.into_iter().filter_map(|port| port.text_at(&[field])).collect();
            let wanted = port.text().unwrap_or_default();
            if !known.contains(&wanted) {
                let message = format!("Service {text} has no port {wanted}: it has {}", known.join(", "));
                let finding = Finding::error("ingress-backend", message).at(port.place());
                findings.push(finding.also(service.place(), "the Service"));
            }
        }
    }
}

fn ingress_host(world: &World, findings: &mut Vec<Finding>) {
    let mut seen = BTreeMap::new();
    for (_, object) in world.objects().filter(|(_, object)| object.kind == "Service") {
        let Some(name) = object.at(&["metadata", "annotations", "tailscale.com/hostname"]) else { continue };
        if let Some(there) = seen.insert(name.text().unwrap_or_default().to_owned(), name.place()) {
            let message = format!("the tailnet's name {} is given twice", name.text().unwrap_or_default());
            findings.push(Finding::error("ingress-host", message).at(name.place()).also(there, "the other one"));
        }
    }
    for (_, object) in world.objects().filter(|(_, object)| object.kind == "Ingress") {
        if object.at(&["spec", "ingressClassName"]).and_then(Ref::text) != Some("tailscale") {
            continue;
        }
        let tls = object.at(&["spec", "tls"]).map_or_else(Vec::new, Ref::items);
        let hosts: Vec<_> = tls.into_iter().filter_map(|tls| tls.get("hosts")).flat_map(Ref::items).collect();
        if hosts.len() != 1 {
            let place = object.at(&["spec", "tls"]).map_or_else(|| object.place(), Ref::place);
            let message = format!("Ingress {} has {} TLS hosts, not one", object.name, hosts.len());
            findings.push(Finding::error("ingress-host", message).at(place));
        }
        for host in hosts {
            let Some(text) = host.text() else { continue };
            if let Some(there) = seen.insert(text.to_owned(), host.place()) {
                let message = format!("the tailnet's name {text} is given twice");
                findings.push(Finding::error("ingress-host", message).at(host.place()).also(there, "the other one"));
            }
        }
    }
}

fn volume_mount(world: &World, findings: &mut Vec<Finding>) {
    for (_, object) in world.objects() {
        let volumes =
            object.pod_template().and_then(|pod| pod.at(&["spec", "volumes"])).map_or_else(Vec::new, Ref::items);
        let claims = object.at(&["spec", "volumeClaimTemplates"]).map_or_else(Vec::new, Ref::items);
        let names = volumes.iter().filter_map(|volume| volume.text_at(&["name"]));
        let names: Vec<&str> =
            names.chain(claims.iter().filter_map(|claim| claim.text_at(&["metadata", "name"]))).collect();
        let mounts = object.containers().into_iter().filter_map(|container| container.get("volumeMounts"));
        for name in mounts.flat_map(Ref::items).filter_map(|mount| mount.get("name")) {
            let text = name.text().unwrap_or_default();
            if !names.contains(&text) {
                let finding = Finding::error("volume-mount", format!("the pod has no volume {text}")).at(name.place());
                findings.push(finding.did_you_mean(text, names.iter().copied()));
            }
        }
    }
}

fn volume_source(world: &World, findings: &mut Vec<Finding>) {
    for (app, object) in world.closed() {
        let volumes =
            object.pod_template().and_then(|pod| pod.at(&["spec", "volumes"])).map_or_else(Vec::new, Ref::items);
        for volume in volumes {
            let kinds =
                [("ConfigMap", "configMap", "name"), ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName")];
            for (kind, key, field) in kinds {
                let Some(source) = volume.get(key) else { continue };
                let Some(name) = source.get(field) else { continue };
                let text = name.text().unwrap_or_default();
                let known: Vec<&str> = world.beside(app, object, kind).map(|object| object.name.as_str()).collect();
                // Every namespace has this one.
                let given = text == "kube-root-ca.crt" || source.text_at(&["optional"]) == Some("true");
                if !known.contains(&text) && !given {
                    let message = format!("there is no {kind} {text} in namespace {}", object.namespace);
                    let finding = Finding::error("volume-source", message).at(name.place());
                    findings.push(finding.did_you_mean(text, known));
                }
            }
        }
    }
}

fn claim_unused(world: &World, findings: &mut Vec<Finding>) {
    for (app, claim) in world.closed().filter(|(_, object)| object.kind == "PersistentVolumeClaim") {
        let mut used = false;
        for (other, object) in world.objects() {
            if other.cluster == app.cluster && object.namespace == claim.namespace && object.kind != claim.kind {
                object.root().scalars(&mut |value| used |= value.text() == Some(claim.name.as_str()));
            }
        }
        if !used {
            let message = format!("nothing mounts PersistentVolumeClaim {}", claim.name);
            findings.push(Finding::error("claim-unused", message).at(claim.place()));
        }
    }
}

fn service_account(world: &World, findings: &mut Vec<Finding>) {
    for (app, object) in world.closed() {
        let Some(name) = object.pod_template().and_then(|pod| pod.at(&["spec", "serviceAccountName"])) else {
            continue;
        };
        let text = name.text().unwrap_or_default();
        let known: Vec<&str> = world.beside(app, object, "ServiceAccount").map(|object| object.name.as_str()).collect();
        if text != "default" && !known.contains(&text) {
            let message = format!("there is no ServiceAccount {text} in namespace {}", object.namespace);
            let finding = Finding::error("service-account", message).at(name.place());
            findings.push(finding.did_you_mean(text, known));
        }
    }
}

fn duplicate_object(world: &World, findings: &mut Vec<Finding>) {
    let mut seen = BTreeMap::new();
    for (app, object) in world.objects() {
        let group = object.at(&["apiVersion"]).and_then(Ref::text).unwrap_or_default();
        let group = group.split_once('/').map_or("", |(group, _)| group).to_owned();
        let key = (app.cluster.clone(), group, object.kind.clone(), object.namespace.clone(), object.name.clone());
        // The namespace itself may be named by everyone who lives in it.
        if object.kind == "Namespace" {
            continue;
        }
        if let Some(there) = seen.insert(key, object.place()) {
            let message = format!("{} {} is defined twice in cluster {}", object.kind, object.name, app.cluster);
            findings.push(Finding::error("duplicate-object", message).at(object.place()).also(there, "and here"));
        }
    }
}
