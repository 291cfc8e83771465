//! What changed between two sets of rendered objects, by object and field.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::world::World;

/// Cluster, kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    pub(crate) cluster: String,
    pub(crate) kind: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{} in {}", self.kind, self.namespace, self.name, self.cluster)
    }
}

/// One object that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) object: Identity,
    pub(crate) change: Change,
}

/// How it changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Added,
    Removed,
    Fields(Vec<Field>),
}

/// One field with what it was and is; nothing where it was not, or is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) path: String,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

impl Field {
    /// Is something gone that others find the object by, or that its program reads?
    pub(crate) fn is_loss(&self) -> bool {
        let kinds = ["labels", "ports", "env", "envFrom", "matchLabels", "selector"];
        let parts = self.path.split(['.', '[', ']']);
        self.after.is_none() && parts.into_iter().any(|part| kinds.contains(&part))
    }
}

/// The objects of a world by what they are.
pub(crate) fn objects(world: &World) -> BTreeMap<Identity, Value> {
    let mut objects: Vec<(Identity, Value)> = world
        .objects()
        .map(|(app, object)| {
            let identity = Identity {
                cluster: app.cluster.clone(),
                kind: object.kind.clone(),
                namespace: object.namespace.clone(),
                name: object.name.clone(),
            };
            (identity, object.typed())
        })
        .collect();
    let generated: BTreeMap<String, String> = objects
        .iter()
        .filter(|(identity, _)| matches!(identity.kind.as_str(), "ConfigMap" | "Secret"))
        .filter_map(|(identity, _)| Some((identity.name.clone(), without_hash(&identity.name)?.to_owned())))
        .collect();
    for (identity, value) in &mut objects {
        rename(value, &generated);
        if let Some(base) = generated.get(&identity.name) {
            identity.name.clone_from(base);
        }
    }
    objects.into_iter().collect()
}

/// The name that kustomize has added a hash of the content to.
fn without_hash(name: &str) -> Option<&str> {
    let (base, hash) = name.rsplit_once('-')?;
    (hash.len() == 10 && hash.chars().all(|c| "bcdfghkmt2456789".contains(c))).then_some(base)
}

/// A changed hash is not a change of its own.
fn rename(value: &mut Value, names: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            if let Some(base) = names.get(text) {
                text.clone_from(base);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, names)),
        Value::Object(entries) => entries.values_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}

/// Written by the API server, by kubectl or by ArgoCD, and no part of what was asked for.
const NOISE: [&str; 6] = ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// Annotations of the same kind.
const BOOKKEEPING: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "argocd.argoproj.io/tracking-id",
    "pv.kubernetes.io/bind-completed",
];

/// Takes out what no manifest says.
pub(crate) fn without_noise(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.remove("status");
    let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.retain(|key, _| !NOISE.contains(&key.as_str()));
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| !BOOKKEEPING.contains(&key.as_str()));
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// Everything that differs, in order.
pub(crate) fn compare(before: &BTreeMap<Identity, Value>, after: &BTreeMap<Identity, Value>) -> Vec<Difference> {
    let all: BTreeSet<&Identity> = before.keys().chain(after.keys()).collect();
    let difference = |object: &Identity| {
        let change = match (before.get(object), after.get(object)) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            (Some(old), Some(new)) => {
                let mut fields = Vec::new();
                fields_of(Some(old), Some(new), "", &mut fields);
                Change::Fields(fields)
            }
        };
        (change != Change::Fields(Vec::new())).then(|| Difference { object: object.clone(), change })
    };
    all.into_iter().filter_map(difference).collect()
}

fn fields_of(before: Option<&Value>, after: Option<&Value>, path: &str, fields: &mut Vec<Field>) {
    let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                fields_of(old.get(key), new.get(key), &inside(key), fields);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            let (old, new) = (keyed(old), keyed(new));
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                fields_of(old.get(key).copied(), new.get(key).copied(), &format!("{path}[{key}]"), fields);
            }
        }
        (before, after) if before == after => {}
        (before, after) => {
            fields.push(Field { path: path.to_owned(), before: before.cloned(), after: after.cloned() });
        }
    }
}

/// Items by their name where all have one of their own, else by position.
fn keyed(items: &[Value]) -> BTreeMap<String, &Value> {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    let names: BTreeSet<String> = items.iter().filter_map(name).collect();
    let by_name = names.len() == items.len();
    let key =
        |(at, item): (usize, &'_ Value)| if by_name { name(item).unwrap_or_default() } else { format!("{at:03}") };
    items.iter().enumerate().map(|(at, item)| (key((at, item)), item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(before: &Value, after: &Value) -> Vec<String> {
        let mut fields = Vec::new();
        fields_of(Some(before), Some(after), "", &mut fields);
        fields.iter().map(|field| format!("{}{}", field.path, if field.is_loss() { " lost" } else { "" })).collect()
    }

    #[test]
    fn one_field_is_one_field_and_order_is_none() {
        let before = json!({"spec": {"containers": [{"name": "a", "image": "x:1"}, {"name": "b"}]}, "metadata": {"labels": {"app": "a"}}});
        let moved = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "b"}, {"image": "x:1", "name": "a"}]}});
        assert_eq!(paths(&before, &moved), Vec::<String>::new());
        let changed =
            json!({"spec": {"containers": [{"name": "a", "image": "x:2"}, {"name": "b"}]}, "metadata": {"labels": {}}});
        assert_eq!(paths(&before, &changed), ["metadata.labels.app lost", "spec.containers[a].image"]);
    }

    #[test]
    fn a_hash_of_kustomize_is_recognised() {
        assert_eq!(without_hash("grafana-datasources-2f6kc4hh7b"), Some("grafana-datasources"));
        assert_eq!([without_hash("grafana-datasources"), without_hash("redis")], [None, None]);
    }
}
