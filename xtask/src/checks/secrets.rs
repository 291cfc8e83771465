//! Secrets: every key that is used is produced, and what is produced is used.

use std::collections::BTreeSet;

use super::Rule;
use crate::model::finding::Finding;
use crate::model::world::{App, Object, Ref, World};

const SECRET: &str = "argocd/manifests/web/external-secret.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "secret-missing",
        about: "A Secret that a pod needs is produced by an ExternalSecret, or is among the objects, of its namespace.",
        why: "The container waits for it for ever.",
        breaks: (
            "argocd/manifests/web/deployment.yaml",
            "secretRef: {name: web-config}",
            "secretRef: {name: web-konfig}",
        ),
        check: missing,
    },
    Rule {
        code: "secret-key",
        about: "A key that is read from a Secret is one that its ExternalSecret produces.",
        why: "The container is not created: CreateContainerConfigError.",
        breaks: (
            "argocd/manifests/web/deployment.yaml",
            "{name: web-config, key: WEB_TOKEN}",
            "{name: web-config, key: WEB_TOKE}",
        ),
        check: key,
    },
    Rule {
        code: "secret-template",
        about: "An ExternalSecret's template uses what its data fetches, and all of it.",
        why: "A missing key is an error of the operator's; one too many is a renamed field.",
        breaks: (SECRET, "{{ .token }}", "{{ .tokn }}"),
        check: template,
    },
    Rule {
        code: "secret-unused",
        about: "A Secret that an ExternalSecret produces is used in its namespace.",
        why: "It was renamed at one end, or is left over.",
        breaks: (SECRET, "  target:\n    name: web-config", "  target:\n    name: web-unused"),
        check: unused,
    },
    Rule {
        code: "secret-literal",
        about: "No Secret stands in the repository with its values.",
        why: "Everyone who can read the repository can read it, for ever.",
        breaks: (
            "argocd/manifests/web/claim.yaml",
            "---\n",
            "---\napiVersion: v1\nkind: Secret\nmetadata: {name: web-literal}\nstringData: {password: hunter2}\n---\n",
        ),
        check: literal,
    },
];

/// The keys of that Secret; nothing where they are only known to the store.
fn produced(object: &Object) -> Option<BTreeSet<String>> {
    if object.at(&["spec", "dataFrom"]).is_some()
        || object.at(&["spec", "target", "template", "templateFrom"]).is_some()
    {
        return None;
    }
    let data = object.at(&["spec", "data"]).map_or_else(Vec::new, Ref::items);
    let fetched = data.into_iter().filter_map(|item| item.text_at(&["secretKey"])).map(str::to_owned);
    let merged = object.at(&["spec", "target", "template", "mergePolicy"]).and_then(Ref::text) == Some("Merge");
    match object.at(&["spec", "target", "template", "data"]) {
        Some(template) => {
            let own = template.entries().into_iter().map(|(key, _)| key.to_owned());
            Some(if merged { own.chain(fetched).collect() } else { own.collect() })
        }
        None => Some(fetched.collect()),
    }
}

fn producer<'a>(world: &'a World, app: &'a App, beside: &'a Object, name: &str) -> Option<&'a Object> {
    world.beside(app, beside, "ExternalSecret").find(|object| object.secret_name() == name)
}

/// Everything in a pod that names a Secret: the name, a key of it where one is meant, and whether it may be absent.
fn used(object: &Object) -> Vec<(Ref<'_>, Option<Ref<'_>>, bool)> {
    let optional = |value: Ref<'_>| value.text_at(&["optional"]) == Some("true");
    let mut used = Vec::new();
    for container in object.containers() {
        for source in container
            .get("envFrom")
            .map_or_else(Vec::new, Ref::items)
            .into_iter()
            .filter_map(|from| from.get("secretRef"))
        {
            used.extend(source.get("name").map(|name| (name, None, optional(source))));
        }
        for source in container
            .get("env")
            .map_or_else(Vec::new, Ref::items)
            .into_iter()
            .filter_map(|env| env.at(&["valueFrom", "secretKeyRef"]))
        {
            used.extend(source.get("name").map(|name| (name, source.get("key"), optional(source))));
        }
    }
    let volumes = object.pod_template().and_then(|pod| pod.at(&["spec", "volumes"])).map_or_else(Vec::new, Ref::items);
    for source in volumes.into_iter().filter_map(|volume| volume.get("secret")) {
        let items = source.get("items").map_or_else(Vec::new, Ref::items);
        let Some(name) = source.get("secretName") else { continue };
        used.push((name, None, optional(source)));
        used.extend(
            items.into_iter().filter_map(|item| item.get("key")).map(|key| (name, Some(key), optional(source))),
        );
    }
    used
}

fn missing(world: &World, findings: &mut Vec<Finding>) {
    for (app, object) in world.closed() {
        let targets: Vec<&str> = world.beside(app, object, "ExternalSecret").map(Object::secret_name).collect();
        // Where no ExternalSecret is at work, Secrets come by another way.
        for (name, _, optional) in used(object).into_iter().filter(|_| !targets.is_empty()) {
            let text = name.text().unwrap_or_default();
            let given = world.beside(app, object, "Secret").any(|secret| secret.name == text);
            if optional || given || targets.contains(&text) || mentioned(world, app, object, text) {
                continue;
            }
            let message = format!("nothing produces Secret {text} in namespace {}", object.namespace);
            let finding = Finding::error("secret-missing", message).at(name.place());
            findings.push(finding.did_you_mean(text, targets.iter().copied()));
        }
    }
}

/// Does another object name it as what it will make, as a Certificate or a database cluster does?
fn mentioned(world: &World, app: &App, beside: &Object, name: &str) -> bool {
    world.objects().any(|(other, object)| {
        let made = other.cluster == app.cluster
            && object.namespace == beside.namespace
            && object.pod_template().is_none()
            && object.kind != "Ingress"
            && object.kind != "ServiceAccount";
        let mut found = made && object.kind == "Cluster" && name.starts_with(&format!("{}-", object.name));
        if made {
            object.root().scalars(&mut |value| found |= value.text() == Some(name));
        }
        found
    })
}

fn key(world: &World, findings: &mut Vec<Finding>) {
    for (app, object) in world.objects() {
        for (name, key, optional) in used(object) {
            let (Some(key), false) = (key, optional) else { continue };
            let Some(secret) = producer(world, app, object, name.text().unwrap_or_default()) else { continue };
            let Some(keys) = produced(secret) else { continue };
            let text = key.text().unwrap_or_default();
            if !keys.contains(text) {
                let message = format!("Secret {} has no key {text}", secret.secret_name());
                let finding =
                    Finding::error("secret-key", message).at(key.place()).also(secret.place(), "produced here");
                findings.push(finding.did_you_mean(text, keys.iter().map(String::as_str)));
            }
        }
    }
}

/// The names that `{{ .name }}` and `{{ index . "name" }}` in a template mean.
fn template_names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for action in text.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
        let words = action.split(|c: char| c.is_whitespace() || "|()".contains(c)).filter(|word| !word.is_empty());
        for word in words {
            let name =
                word.strip_prefix('.').or_else(|| word.strip_prefix('"').and_then(|word| word.strip_suffix('"')));
            names.extend(name.filter(|name| !name.is_empty()));
        }
    }
    names
}

fn template(world: &World, findings: &mut Vec<Finding>) {
    for (_, object) in world.objects().filter(|(_, object)| object.kind == "ExternalSecret") {
        let Some(template) = object.at(&["spec", "target", "template", "data"]) else { continue };
        if object.at(&["spec", "dataFrom"]).is_some() {
            continue;
        }
        let data = object.at(&["spec", "data"]).map_or_else(Vec::new, Ref::items);
        let fetched: Vec<Ref<'_>> = data.into_iter().filter_map(|item| item.get("secretKey")).collect();
        let known: Vec<&str> = fetched.iter().filter_map(|key| key.text()).collect();
        let mut named = BTreeSet::new();
        for (_, value) in template.entries() {
            for name in value.text().map_or_else(Vec::new, template_names) {
                named.insert(name);
                // A word in quotes may be any text; only what nothing is called is wrong.
                let is_field = value.text().is_some_and(|text| text.contains(&format!(".{name}")));
                if is_field && !known.contains(&name) {
                    let message = format!("the template uses {name}, which data does not fetch");
                    let finding = Finding::error("secret-template", message).at(value.place_of(name));
                    findings.push(finding.did_you_mean(name, known.iter().copied()));
                }
            }
        }
        let merged = object.at(&["spec", "target", "template", "mergePolicy"]).and_then(Ref::text) == Some("Merge");
        for key in fetched.into_iter().filter(|key| !merged && !named.contains(key.text().unwrap_or_default())) {
            let message = format!("{} is fetched and not used by the template", key.text().unwrap_or_default());
            findings.push(Finding::error("secret-template", message).at(key.place()));
        }
    }
}

fn unused(world: &World, findings: &mut Vec<Finding>) {
    for (app, secret) in world.closed().filter(|(_, object)| object.kind == "ExternalSecret") {
        let name = secret.secret_name();
        let mut used = false;
        for (other, object) in world.objects() {
            if other.cluster == app.cluster && object.namespace == secret.namespace && object.kind != "ExternalSecret" {
                object.root().scalars(&mut |value| used |= value.text() == Some(name));
            }
        }
        if !used {
            let place = secret.at(&["spec", "target", "name"]).map_or_else(|| secret.place(), Ref::place);
            let message = format!("nothing in namespace {} uses Secret {name}", secret.namespace);
            findings.push(Finding::error("secret-unused", message).at(place));
        }
    }
}

/// Is it encrypted, or does it stand for what a plugin puts in its place?
fn is_elsewhere(text: &str) -> bool {
    let around = [("ENC[", "]"), ("<", ">"), ("${", "}"), ("ref+", "")];
    around.iter().any(|(before, after)| text.starts_with(before) && text.ends_with(after))
}

/// What ArgoCD wants in a Secret to know a repository or cluster by, and what is no secret of it.
fn is_open(secret: &Object, key: &str) -> bool {
    const OPEN: [&str; 7] = ["type", "url", "name", "project", "server", "enableOCI", "insecure"];
    let label = secret.at(&["metadata", "labels"]).and_then(|labels| labels.at(&["argocd.argoproj.io/secret-type"]));
    label.is_some() && OPEN.contains(&key)
}

fn literal(world: &World, findings: &mut Vec<Finding>) {
    for (_, secret) in world.objects().filter(|(_, object)| object.kind == "Secret") {
        for (key, value) in
            ["data", "stringData"].into_iter().filter_map(|key| secret.at(&[key])).flat_map(Ref::entries)
        {
            if value.text().is_some_and(|text| !text.is_empty() && !is_elsewhere(text)) && !is_open(secret, key) {
                // The value itself is never shown.
                let message = format!("Secret {} has a value for {key} in the repository", secret.name);
                findings.push(Finding::error("secret-literal", message).at(secret.place()));
            }
        }
    }
}
