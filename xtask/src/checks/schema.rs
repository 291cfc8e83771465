//! Schemas: every object is decoded into the type that the API server has for it.

use kinds::{Mistake, decoder};
use serde_json::Value;

use super::Rule;
use super::custom::{self, Schemas};
use crate::model::finding::Finding;
use crate::model::source::{Place, Source};
use crate::model::world::{Object, Ref, World};
use crate::model::yaml::{self, Node};

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[Rule {
    code: "object-schema",
    about: "An object has the fields that its kind has, of their types, and those that must be there.",
    why: "The API server refuses it, or drops the field that is misspelt without a word.",
    breaks: ("argocd/manifests/web/deployment.yaml", "volumeMounts: [", "volumeMount: ["),
    check: schema,
}];

/// The kinds without a schema, each with the number of its objects.
pub(crate) fn unknown_kinds(world: &World) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    let schemas = Schemas::of(world);
    let encrypted = world.objects().filter(|(_, object)| is_encrypted(object)).count();
    if encrypted > 0 {
        counts.insert("objects that SOPS has encrypted".to_owned(), encrypted);
    }
    for (_, object) in world.objects() {
        let version = object.at(&["apiVersion"]).and_then(Ref::text).unwrap_or_default();
        if decoder(version, &object.kind).is_none() && !schemas.has(version, &object.kind) {
            *counts.entry(format!("{} of {version}", object.kind)).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

fn schema(world: &World, findings: &mut Vec<Finding>) {
    if world.facts.is_decoded {
        return;
    }
    let schemas = Schemas::of(world);
    for (_, object) in world.objects().filter(|(_, object)| !is_encrypted(object)) {
        let version = object.at(&["apiVersion"]).and_then(Ref::text).unwrap_or_default();
        let mistakes = mistakes(&schemas, (version, &object.kind), object.typed()).unwrap_or_default();
        findings.extend(mistakes.into_iter().map(|mistake| finding(object, &mistake)));
    }
    written(world, &schemas, findings);
}

/// Is it what SOPS has made of an object? Whoever deploys it has a plugin that decrypts.
fn is_encrypted(object: &Object) -> bool {
    object.at(&["sops", "mac"]).is_some()
}

/// What an object is not; nothing where there is no schema for its kind.
pub(super) fn mistakes(schemas: &Schemas, (version, kind): (&str, &str), mut value: Value) -> Option<Vec<Mistake>> {
    let Some(decode) = decoder(version, kind) else {
        return Some(custom::decode(&*schemas.get(version, kind)?, &value));
    };
    let mut mistakes = Vec::new();
    quantities(&mut value);
    match decode(value.clone()) {
        Ok(back) => compare(&value, &back, &mut Vec::new(), &mut mistakes),
        Err(mistake) => mistakes.push(mistake),
    }
    Some(mistakes)
}

/// What nothing renders: Applications that nothing deploys, and the kustomizations themselves.
fn written(world: &World, schemas: &Schemas, findings: &mut Vec<Finding>) {
    let is_rendered =
        |name: &str| world.objects().any(|(_, object)| object.kind == "Application" && object.name == name);
    let version = |node: &Node| node.get("apiVersion").and_then(Node::text).unwrap_or_default().to_owned();
    let apps = world.apps.iter().filter(|app| !is_rendered(&app.name));
    let apps = apps.filter_map(|app| {
        let schema = schemas.get(&version(&app.node), "Application")?;
        Some((&app.file, app.node.clone(), schema, format!("Application {}", app.name)))
    });
    let kustomizations = world.repo.kustomizations.iter().filter_map(|kustomization| {
        let node = yaml::parse(&kustomization.source).ok()?.into_iter().next()?;
        let schema = schemas.get("kustomize.config.k8s.io/v1beta1", "Kustomization")?;
        Some((&kustomization.source, node, schema, "Kustomization".to_owned()))
    });
    for (file, node, schema, name) in apps.chain(kustomizations) {
        for mistake in custom::decode(&schema, &node.typed()) {
            let message = format!("{name}: {}: {}", mistake.path.join("."), mistake.what);
            findings.push(Finding::error("object-schema", message).at(place(file, &node, &mistake)));
        }
    }
}

/// Where a mistake is written in a document.
pub(super) fn place(file: &Source, node: &Node, mistake: &Mistake) -> Place {
    let mut at = node;
    for (depth, step) in mistake.path.iter().enumerate() {
        if let Some((key, _)) = at.entry(step).filter(|_| mistake.is_key && depth + 1 == mistake.path.len()) {
            return key.place(file);
        }
        let position = step.parse::<usize>().ok();
        let Some(next) = at.get(step).or(position.and_then(|position| at.items().get(position))) else { break };
        at = next;
    }
    file.first_line(at.start, at.end)
}

fn finding(object: &Object, mistake: &Mistake) -> Finding {
    let path = mistake.path.join(".");
    let finding = Finding::error("object-schema", format!("{} {}: {path}: {}", object.kind, object.name, mistake.what));
    let mut at = object.root();
    for (depth, step) in mistake.path.iter().enumerate() {
        if mistake.is_key && depth + 1 == mistake.path.len() {
            return finding.at(at.key_place(step));
        }
        let position = step.parse::<usize>().ok();
        let Some(next) = at.get(step).or_else(|| at.items().get(position?).copied()) else { break };
        at = next;
    }
    finding.at(at.place())
}

/// The API server takes numbers where it wants quantities.
fn quantities(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(quantities),
        Value::Object(entries) => {
            for (key, value) in entries {
                match (key.as_str(), &mut *value) {
                    ("requests" | "limits" | "capacity" | "hard" | "allocatable", Value::Object(amounts)) => {
                        amounts.values_mut().for_each(as_text);
                    }
                    ("sizeLimit" | "divisor", amount) => as_text(amount),
                    _ => quantities(value),
                }
            }
        }
        _ => {}
    }
}

fn as_text(value: &mut Value) {
    if value.is_number() {
        *value = value.to_string().into();
    }
}

/// Fields the server fills in itself.
const DEFAULTED: [&str; 2] = ["apiGroup", "metadata"];

fn compare(given: &Value, back: &Value, path: &mut Vec<String>, mistakes: &mut Vec<Mistake>) {
    match (given, back) {
        (Value::Object(given), Value::Object(back)) => {
            for (key, value) in given.iter().filter(|(_, value)| !is_empty(value)) {
                path.push(key.clone());
                match back.get(key) {
                    Some(other) => compare(value, other, path, mistakes),
                    None => mistakes.push(Mistake {
                        path: path.clone(),
                        what: "there is no such field".to_owned(),
                        is_key: true,
                    }),
                }
                path.pop();
            }
            // What a StatefulSet claims need not say that it is a claim.
            let is_claim = path.iter().any(|key| key == "volumeClaimTemplates");
            let is_filled = |key: &str| DEFAULTED.contains(&key) || (is_claim && matches!(key, "apiVersion" | "kind"));
            for key in back.keys().filter(|key| !given.contains_key(*key) && !is_filled(key)) {
                mistakes.push(Mistake { path: path.clone(), what: format!("{key} is missing"), is_key: false });
            }
        }
        (Value::Array(given), Value::Array(back)) => {
            for (position, (value, other)) in given.iter().zip(back).enumerate() {
                path.push(position.to_string());
                compare(value, other, path, mistakes);
                path.pop();
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mistakes(kind: (&str, &str), value: Value) -> Vec<String> {
        let mut value = value;
        quantities(&mut value);
        let mut found = Vec::new();
        match decoder(kind.0, kind.1).unwrap()(value.clone()) {
            Ok(back) => compare(&value, &back, &mut Vec::new(), &mut found),
            Err(mistake) => found.push(mistake),
        }
        found.into_iter().map(|mistake| format!("{}: {}", mistake.path.join("."), mistake.what)).collect()
    }

    #[test]
    fn unknown_fields_wrong_types_and_missing_ones() {
        let service = |port: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [port]}});
        let kind = ("v1", "Service");
        assert_eq!(mistakes(kind, service(json!({"port": 80, "targetPort": "http"}))), Vec::<String>::new());
        assert_eq!(
            mistakes(kind, service(json!({"port": 80, "targetPrt": 1}))),
            ["spec.ports.0.targetPrt: there is no such field"]
        );
        assert_eq!(mistakes(kind, service(json!({"name": "http"}))), ["spec.ports.0: port is missing"]);
        let wrong = mistakes(kind, service(json!({"port": "eighty"})));
        assert!(wrong[0].starts_with("spec.ports.0.port: invalid type"), "{wrong:?}");
    }

    #[test]
    fn a_quantity_may_be_a_number() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
            {"name": "a", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}});
        assert_eq!(mistakes(("v1", "Pod"), pod), Vec::<String>::new());
    }
}
