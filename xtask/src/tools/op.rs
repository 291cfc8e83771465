//! op, 1Password's client: which fields an item has, and whether they are set. Nothing it prints is ever shown.

#![allow(dead_code, reason = "the commands that use it come next")]

use std::time::Duration;

use serde::Deserialize;

use super::{Invocation, line};
use crate::model::secret::Secret;

/// It may wait for a fingerprint, but not for ever.
const LIMIT: Duration = Duration::from_secs(60);

/// What is known of an item: labels, no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) fields: Vec<Field>,
}

/// One field of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) label: String,
    /// It holds something.
    pub(crate) set: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    NoItem,
    NoVault,
    NotSignedIn,
    Unknown,
}

#[derive(Deserialize)]
struct RawItem {
    #[serde(default)]
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
struct RawField {
    #[serde(default)]
    label: String,
    value: Option<String>,
}

/// Asks for an item with everything in it; its output is for [`parse`] and [`value`] alone.
pub(crate) fn item(vault: &str, title: &str) -> Invocation {
    line!("op item get {title} --vault {vault} --format json").limit(LIMIT).hidden()
}

/// The fields of an item.
///
/// # Errors
/// It is not an item; the text itself is in no message.
pub(crate) fn parse(json: &str) -> Result<Item, &'static str> {
    let fields = raw(json)?.fields.into_iter();
    let field = |raw: RawField| Field { label: raw.label, set: raw.value.is_some_and(|value| !value.is_empty()) };
    Ok(Item { fields: fields.map(field).collect() })
}

/// The value of the one field called `label`.
///
/// # Errors
/// There is no such field, more than one, or it is empty.
pub(crate) fn value(json: &str, label: &str) -> Result<Secret, &'static str> {
    let mut values = raw(json)?.fields.into_iter().filter(|field| field.label == label);
    match (values.next(), values.next()) {
        (None, _) => Err("has no such field"),
        (_, Some(_)) => Err("has several fields of that name"),
        (Some(RawField { value: Some(value), .. }), None) if !value.is_empty() => Ok(Secret::new(value)),
        _ => Err("has that field, and it is empty"),
    }
}

fn raw(json: &str) -> Result<RawItem, &'static str> {
    serde_json::from_str(json).map_err(|_| "is not what `op item get --format json` prints")
}

/// What its stderr says, as one of the things it may mean.
pub(crate) fn trouble(stderr: &str) -> Trouble {
    let said = |words: &[&str]| words.iter().any(|word| stderr.contains(word));
    if said(&["isn't a vault"]) {
        Trouble::NoVault
    } else if said(&["isn't an item"]) {
        Trouble::NoItem
    } else if said(&["not signed in", "not currently signed in", "authorization", "No accounts configured"]) {
        Trouble::NotSignedIn
    } else {
        Trouble::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"id":"x","title":"Authentik (blumeops)","vault":{"id":"v","name":"blumeops"},"fields":[
        {"id":"notesPlain","type":"STRING","purpose":"NOTES","label":"notesPlain"},
        {"id":"a","type":"CONCEALED","label":"secret-key","value":"k-1","reference":"op://v/x/secret-key"},
        {"id":"b","type":"CONCEALED","label":"empty","value":""},
        {"id":"c","label":"twice","value":"1"},{"id":"d","label":"twice","value":"2"}]}"#;

    #[test]
    fn labels_without_values() {
        let item = parse(ITEM).unwrap();
        let set: Vec<&str> = item.fields.iter().filter(|field| field.set).map(|field| field.label.as_str()).collect();
        assert_eq!(set, ["secret-key", "twice", "twice"]);
        assert!(!format!("{item:?}").contains("k-1"));
        assert!(parse("[ERROR]").is_err());
    }

    #[test]
    fn a_value_is_asked_for_by_its_one_name() {
        assert_eq!(value(ITEM, "secret-key").map_err(drop).unwrap().reveal(), "k-1");
        for (label, why) in [("no", "no such"), ("empty", "empty"), ("twice", "several")] {
            assert!(value(ITEM, label).err().unwrap().contains(why), "{label}");
        }
    }

    #[test]
    fn what_is_wrong_is_recognised() {
        let cases = [
            ("[ERROR] 2026/02/20 \"x\" isn't an item in the \"blumeops\" vault. Specify", Trouble::NoItem),
            ("[ERROR] 2026/02/20 \"y\" isn't a vault in this account.", Trouble::NoVault),
            ("[ERROR] 2026/02/20 account is not signed in", Trouble::NotSignedIn),
            ("panic", Trouble::Unknown),
        ];
        for (stderr, expected) in cases {
            assert_eq!(trouble(stderr), expected, "{stderr}");
        }
        assert_eq!(
            item("blumeops", "Authentik (blumeops)").to_string(),
            "op item get 'Authentik (blumeops)' --vault blumeops --format json"
        );
    }
}
