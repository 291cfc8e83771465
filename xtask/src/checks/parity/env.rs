//! The environment that a container really gets, whatever it comes through.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{ENV, Sheet, Side};
use crate::model::source::Place;
use crate::model::world::{Object, Ref};

/// A value as it is shown, and where it is written.
type Value = (String, Place);

/// Known to come from a Secret, and nobody's business.
const SECRET: &str = "(secret)";

pub(super) fn add(sheet: &mut Sheet, sides: (Side<'_>, Side<'_>), container: Ref<'_>, parent: &str) {
    let mut effective = BTreeMap::<String, Value>::new();
    for source in container.list(&["envFrom"]) {
        let prefix = source.text_at(&["prefix"]).unwrap_or_default();
        for (key, kind) in [("secretRef", "Secret"), ("configMapRef", "ConfigMap")] {
            let Some(reference) = source.get(key) else { continue };
            let name = reference.text_at(&["name"]).unwrap_or_default();
            match content(sides, kind, name) {
                // What comes later wins.
                Some(values) => {
                    effective.extend(values.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
                }
                None => sheet.add(ENV, (parent, &format!("env-from/{name}")), kind, reference.place()),
            }
        }
    }
    for variable in container.list(&["env"]) {
        let Some(name) = variable.text_at(&["name"]) else { continue };
        let shown = written(sides, variable, name);
        effective.insert(name.to_owned(), (shown, variable.place()));
    }
    for (name, (shown, place)) in effective {
        sheet.add(ENV, (parent, &format!("env/{name}")), shown, place);
    }
}

/// The value of one entry of `env`.
fn written(sides: (Side<'_>, Side<'_>), variable: Ref<'_>, name: &str) -> String {
    let Some(from) = variable.get("valueFrom") else {
        let text = variable.text_at(&["value"]).unwrap_or_default();
        return if is_secret(name) { "(plain, not shown)".to_owned() } else { text.to_owned() };
    };
    for (key, kind) in [("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")] {
        let Some(reference) = from.get(key) else { continue };
        let text = |key: &str| reference.text_at(&[key]).unwrap_or_default();
        let known = content(sides, kind, text("name")).and_then(|mut values| values.remove(text("key")));
        return match known {
            Some((shown, _)) if kind == "ConfigMap" || !is_secret(name) => shown,
            _ if kind == "Secret" => SECRET.to_owned(),
            _ => format!("({} of ConfigMap {})", text("key"), text("name")),
        };
    }
    let field = from.at(&["fieldRef", "fieldPath"]).or_else(|| from.at(&["resourceFieldRef", "resource"]));
    field.and_then(Ref::text).map_or_else(|| from.typed().to_string(), |field| format!("({field} of the pod)"))
}

/// What a Secret or a `ConfigMap` holds. One that a side only names is looked for on the other: they share it.
fn content(sides: (Side<'_>, Side<'_>), kind: &'static str, name: &str) -> Option<BTreeMap<String, Value>> {
    let all = sides.0.objects.iter().chain(sides.1.objects);
    let mut candidates = all.filter_map(|object| match object.kind.as_str() {
        own if own == kind && object.name == name => Some(plain(object)),
        "ExternalSecret" if kind == "Secret" && object.secret_name() == name => fetched(object),
        _ => None,
    });
    candidates.next()
}

fn plain(object: &Object) -> BTreeMap<String, Value> {
    let entries = ["data", "stringData"].into_iter().flat_map(|key| {
        let entries = object.at(&[key]).map_or_else(Vec::new, Ref::entries);
        entries.into_iter().map(move |(name, value)| (key, name, value))
    });
    let value = |(key, name, value): (&str, &str, Ref<'_>)| {
        let text = value.text().unwrap_or_default();
        let is_encoded = object.kind == "Secret" && key == "data";
        let decoded = || String::from_utf8(STANDARD.decode(text).ok()?).ok();
        let known = if is_encoded { decoded() } else { Some(text.to_owned()) };
        let hidden = object.kind == "Secret" && is_secret(name);
        let shown = known.filter(|_| !hidden).unwrap_or_else(|| SECRET.to_owned());
        (name.to_owned(), (shown, value.place()))
    };
    entries.map(value).collect()
}

/// By the template, or by what is fetched; nothing where only the vault knows the names.
fn fetched(object: &Object) -> Option<BTreeMap<String, Value>> {
    let template = object.at(&["spec", "target", "template", "data"]).map_or_else(Vec::new, Ref::entries);
    let mut values: BTreeMap<String, Value> = template
        .into_iter()
        .map(|(name, value)| {
            let text = value.text().unwrap_or_default();
            let shown = if text.contains("{{") || is_secret(name) { SECRET } else { text };
            (name.to_owned(), (shown.to_owned(), value.place()))
        })
        .collect();
    if values.is_empty() {
        let listed = object.root().list(&["spec", "data"]).into_iter();
        values
            .extend(listed.filter_map(|item| {
                Some((item.text_at(&["secretKey"])?.to_owned(), (SECRET.to_owned(), item.place())))
            }));
    }
    (!values.is_empty()).then_some(values)
}

/// Does its name say that nobody may see it?
pub(super) fn is_secret(name: &str) -> bool {
    let words = ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "CREDENTIAL", "PRIVATE_KEY", "API_KEY", "APIKEY"];
    let name = name.to_ascii_uppercase().replace('-', "_");
    words.iter().any(|word| name.contains(word))
}

/// The Secrets and `ConfigMaps` that the environment of a side's containers is made of.
pub(super) fn sources(side: Side<'_>) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut note = |kind, reference: Option<Ref<'_>>| {
        let name = reference.and_then(|reference| reference.text_at(&["name"]));
        found.extend(name.map(|name| (kind, name.to_owned())));
    };
    for container in side.workloads().into_iter().flat_map(crate::model::world::Object::containers) {
        for source in container.list(&["envFrom"]) {
            note("Secret", source.get("secretRef"));
            note("ConfigMap", source.get("configMapRef"));
        }
        for variable in container.list(&["env"]) {
            note("Secret", variable.at(&["valueFrom", "secretKeyRef"]));
            note("ConfigMap", variable.at(&["valueFrom", "configMapKeyRef"]));
        }
    }
    found
}
