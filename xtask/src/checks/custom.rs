//! Custom resources: the structural schemas of their definitions, and decoding against one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use kinds::Mistake;
use serde_json::{Map, Value};

use crate::model::suggest::nearest;
use crate::model::world::{Ref, World};

macro_rules! bundled {
    ($($file:literal $group:literal $version:literal $kind:literal;)*) => {
        /// File, group and version, kind and text of each schema that comes with the program.
        const BUNDLED: &[(&str, &str, &str, &str)] = &[
            $((
                concat!($group, "/", $file, ".json"),
                concat!($group, "/", $version),
                $kind,
                include_str!(concat!("../../schemas/", $group, "/", $file, ".json")),
            ),)*
        ];
    };
}

bundled! {
    "application_v1alpha1" "argoproj.io" "v1alpha1" "Application";
    "applicationset_v1alpha1" "argoproj.io" "v1alpha1" "ApplicationSet";
    "appproject_v1alpha1" "argoproj.io" "v1alpha1" "AppProject";
    "clusterexternalsecret_v1" "external-secrets.io" "v1" "ClusterExternalSecret";
    "clustersecretstore_v1" "external-secrets.io" "v1" "ClusterSecretStore";
    "externalsecret_v1" "external-secrets.io" "v1" "ExternalSecret";
    "pushsecret_v1alpha1" "external-secrets.io" "v1alpha1" "PushSecret";
    "secretstore_v1" "external-secrets.io" "v1" "SecretStore";
    "kustomization_v1beta1" "kustomize.config.k8s.io" "v1beta1" "Kustomization";
    "backup_v1" "postgresql.cnpg.io" "v1" "Backup";
    "cluster_v1" "postgresql.cnpg.io" "v1" "Cluster";
    "clusterimagecatalog_v1" "postgresql.cnpg.io" "v1" "ClusterImageCatalog";
    "database_v1" "postgresql.cnpg.io" "v1" "Database";
    "imagecatalog_v1" "postgresql.cnpg.io" "v1" "ImageCatalog";
    "pooler_v1" "postgresql.cnpg.io" "v1" "Pooler";
    "scheduledbackup_v1" "postgresql.cnpg.io" "v1" "ScheduledBackup";
    "connector_v1alpha1" "tailscale.com" "v1alpha1" "Connector";
    "dnsconfig_v1alpha1" "tailscale.com" "v1alpha1" "DNSConfig";
    "proxyclass_v1alpha1" "tailscale.com" "v1alpha1" "ProxyClass";
    "proxygroup_v1alpha1" "tailscale.com" "v1alpha1" "ProxyGroup";
    "recorder_v1alpha1" "tailscale.com" "v1alpha1" "Recorder";
}

/// Group and version, and kind.
type Kind = (String, String);

/// Every schema at hand: those of definitions in the repository before those that come with the program.
pub(crate) struct Schemas {
    own: BTreeMap<Kind, Rc<Value>>,
    /// Those that have been needed and therefore parsed.
    parsed: RefCell<BTreeMap<Kind, Rc<Value>>>,
}

impl Schemas {
    pub(crate) fn of(world: &World) -> Self {
        let mut own = BTreeMap::new();
        for (_, object) in world.objects().filter(|(_, object)| object.kind == "CustomResourceDefinition") {
            let text = |keys: &[&str]| object.at(keys).and_then(Ref::text).unwrap_or_default();
            let (group, kind) = (text(&["spec", "group"]), text(&["spec", "names", "kind"]));
            for version in object.at(&["spec", "versions"]).map_or_else(Vec::new, Ref::items) {
                let name = version.text_at(&["name"]).unwrap_or_default();
                if let Some(schema) = version.at(&["schema", "openAPIV3Schema"]) {
                    own.insert((format!("{group}/{name}"), kind.to_owned()), Rc::new(schema.typed()));
                }
            }
        }
        Self { own, parsed: RefCell::default() }
    }

    pub(crate) fn has(&self, version: &str, kind: &str) -> bool {
        bundled(version, kind).is_some() || self.own.contains_key(&(version.to_owned(), kind.to_owned()))
    }

    pub(crate) fn get(&self, version: &str, kind: &str) -> Option<Rc<Value>> {
        let key = (version.to_owned(), kind.to_owned());
        if let Some(schema) = self.own.get(&key).or(self.parsed.borrow().get(&key)) {
            return Some(Rc::clone(schema));
        }
        let schema = Rc::new(serde_json::from_str(bundled(version, kind)?).ok()?);
        self.parsed.borrow_mut().insert(key, Rc::clone(&schema));
        Some(schema)
    }
}

fn bundled(version: &str, kind: &str) -> Option<&'static str> {
    BUNDLED.iter().find(|(_, group, name, _)| *group == version && *name == kind).map(|(.., text)| *text)
}

/// What an object is not, by the schema of its kind. The server itself looks after its `metadata`.
pub(crate) fn decode(schema: &Value, object: &Value) -> Vec<Mistake> {
    let mut found = Found { path: Vec::new(), mistakes: Vec::new() };
    found.value(schema, object);
    found.mistakes
}

struct Found {
    path: Vec<String>,
    mistakes: Vec<Mistake>,
}

impl Found {
    fn add(&mut self, what: String) {
        self.mistakes.push(Mistake { path: self.path.clone(), what, is_key: false });
    }

    fn value(&mut self, schema: &Value, value: &Value) {
        let says = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        // The server drops what is null, as if it had not been written.
        if value.is_null() {
            return;
        }
        if says("x-kubernetes-int-or-string") {
            if !value.is_i64() && !value.is_string() {
                self.add(format!("invalid type: {}, expected a number or a string", shown(value)));
            }
            return;
        }
        let expected = schema.get("type").and_then(Value::as_str).unwrap_or_default();
        let fits = match expected {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0),
            "number" => value.is_number(),
            _ => true,
        };
        if !fits {
            return self.add(format!("invalid type: {}, expected {expected}", shown(value)));
        }
        self.limits(schema, value);
        match value {
            Value::Object(fields) => self.object(schema, fields),
            Value::Array(items) => {
                let Some(schema) = schema.get("items") else { return };
                for (position, item) in items.iter().enumerate() {
                    self.below(&position.to_string(), |found| found.value(schema, item));
                }
            }
            _ => {}
        }
    }

    fn below(&mut self, step: &str, work: impl FnOnce(&mut Self)) {
        self.path.push(step.to_owned());
        work(self);
        self.path.pop();
    }

    fn object(&mut self, schema: &Value, fields: &Map<String, Value>) {
        let says = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        let other = schema.get("additionalProperties");
        let is_open = says("x-kubernetes-preserve-unknown-fields")
            || says("x-kubernetes-embedded-resource")
            || other.is_some()
            || schema.get("type").is_none();
        // The server has checked these before it asks the schema, also where a definition requires them.
        let is_root = self.path.is_empty();
        let is_the_servers = |key: &str| is_root && ["apiVersion", "kind", "metadata"].contains(&key);
        for (key, value) in fields.iter().filter(|(key, _)| !is_the_servers(key)) {
            match properties.get(key).or(other.filter(|other| other.is_object())) {
                Some(schema) => self.below(key, |found| found.value(schema, value)),
                None if is_open => {}
                None => {
                    let near = nearest(key, properties.keys().map(String::as_str));
                    let hint = near.map_or_else(String::new, |near| format!(", but {near}"));
                    self.below(key, |found| {
                        found.add(format!("there is no such field{hint}"));
                        found.mistakes.iter_mut().next_back().into_iter().for_each(|mistake| mistake.is_key = true);
                    });
                }
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        for key in required.filter(|key| !fields.contains_key(*key) && !is_the_servers(key)) {
            if properties.get(key).is_none_or(|schema| schema.get("default").is_none()) {
                self.add(format!("{key} is missing"));
            }
        }
    }

    /// Values that are of the type and still not allowed.
    fn limits(&mut self, schema: &Value, value: &Value) {
        if let Some(allowed) = schema.get("enum").and_then(Value::as_array)
            && !allowed.contains(value)
        {
            let names: Vec<String> = allowed.iter().map(shown).collect();
            self.add(format!("{} is none of {}", shown(value), names.join(", ")));
        }
        let limit = |key: &str| schema.get(key).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "no list or text here is that long")]
        let (size, least, most) = match value {
            Value::Number(number) => (number.as_f64(), "minimum", "maximum"),
            Value::String(text) => (Some(text.chars().count() as f64), "minLength", "maxLength"),
            Value::Array(items) => (Some(items.len() as f64), "minItems", "maxItems"),
            Value::Object(fields) => (Some(fields.len() as f64), "minProperties", "maxProperties"),
            Value::Null | Value::Bool(_) => (None, "", ""),
        };
        let Some(size) = size else { return };
        for (key, is_broken) in [
            (least, limit(least).is_some_and(|limit| size < limit)),
            (most, limit(most).is_some_and(|limit| size > limit)),
        ] {
            if is_broken {
                self.add(format!("{key} is {}", limit(key).unwrap_or_default()));
            }
        }
    }
}

/// A scalar as it is; of anything else its kind. Long texts may be secrets or pages and are cut.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a mapping".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) if text.chars().count() > 40 => {
            format!("{:?}…", text.chars().take(40).collect::<String>())
        }
        scalar => scalar.to_string(),
    }
}

#[cfg(test)]
#[path = "custom_tests.rs"]
mod tests;
