//! Which fields of which items in the vault the repository needs, and what clusters say of having fetched them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::source::Place;
use super::world::{Object, Ref, World};

/// One field of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) vault: String,
    pub(crate) item: String,
    pub(crate) field: String,
    pub(crate) place: Place,
    /// The Application whose `ExternalSecret` it is; nothing for a host's.
    pub(crate) app: Option<String>,
}

/// What stands before a reference of `op`.
const SCHEME: &str = "op://";

/// Every need, of Applications and of hosts.
pub(crate) fn of(world: &World) -> Vec<Need> {
    let mut needs = references(world);
    let vault = vault(&needs);
    for (app, object) in world.objects().filter(|(_, object)| object.kind == "ExternalSecret") {
        let vault = store(object).unwrap_or_else(|| vault.clone());
        for (item, field, place) in fetched(object) {
            needs.push(Need { vault: vault.clone(), item, field, place, app: Some(app.name.clone()) });
        }
    }
    needs.sort_by(|a, b| (&a.vault, &a.item, &a.field).cmp(&(&b.vault, &b.item, &b.field)));
    needs.dedup_by(|a, b| (&a.vault, &a.item, &a.field, &a.app) == (&b.vault, &b.item, &b.field, &b.app));
    needs
}

/// `op://vault/item/field`, and with a section in between, wherever Ansible names one.
fn references(world: &World) -> Vec<Need> {
    let mut needs = Vec::new();
    for file in world.repo.files.iter().filter(|file| file.path.starts_with("ansible/")) {
        for (start, _) in file.text.match_indices(SCHEME) {
            let rest = &file.text[start + SCHEME.len()..];
            let text = rest.split(['"', '\'', '\n', '`', '}']).next().unwrap_or_default().trim_end();
            let parts: Vec<&str> = text.split('/').collect();
            let ([vault, item, field] | [vault, item, _, field]) = parts[..] else { continue };
            let place = file.place(start, start + SCHEME.len() + text.len());
            let (vault, item, field) = (vault.to_owned(), item.to_owned(), field.to_owned());
            needs.push(Need { vault, item, field, place, app: None });
        }
    }
    needs
}

/// The vault that most references name.
fn vault(needs: &[Need]) -> String {
    let mut votes = BTreeMap::<&str, usize>::new();
    for need in needs {
        *votes.entry(&need.vault).or_default() += 1;
    }
    votes.into_iter().max_by_key(|&(_, count)| count).map(|(vault, _)| vault.to_owned()).unwrap_or_default()
}

/// The vault that a store is named after, as in `onepassword-blumeops`.
fn store(object: &Object) -> Option<String> {
    let name = object.at(&["spec", "secretStoreRef", "name"])?.text()?;
    name.strip_prefix("onepassword-").map(str::to_owned)
}

fn fetched(object: &Object) -> Vec<(String, String, Place)> {
    let list = |key: &str| object.at(&["spec", key]).map_or_else(Vec::new, Ref::items);
    let one = list("data").into_iter().filter_map(|item| item.get("remoteRef"));
    let read = |reference: Ref<'_>| {
        let item = reference.text_at(&["key"])?.to_owned();
        // Without a property the provider takes the field `password`.
        let field = reference.text_at(&["property"]).unwrap_or("password").to_owned();
        Some((item, field, reference.place()))
    };
    one.filter_map(read).collect()
}

/// What a cluster says of an `ExternalSecret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) ready: bool,
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct RawList {
    items: Vec<RawSecret>,
}

#[derive(Deserialize)]
struct RawSecret {
    metadata: RawMetadata,
    #[serde(default)]
    status: RawStatus,
}

#[derive(Deserialize)]
struct RawMetadata {
    name: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawStatus {
    conditions: Vec<RawCondition>,
}

#[derive(Deserialize)]
struct RawCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

/// Reads a list of them: the Ready condition by name. One without any is not ready.
///
/// # Errors
/// It is no such list.
pub(crate) fn conditions(json: &str) -> Result<BTreeMap<String, Condition>, String> {
    let list: RawList =
        serde_json::from_str(json).map_err(|error| format!("kubectl wrote what is no list: {error}"))?;
    let read = |raw: RawSecret| {
        let ready = raw.status.conditions.into_iter().find(|condition| condition.kind == "Ready");
        let condition = ready.map_or_else(
            || Condition { ready: false, reason: "no status yet".to_owned(), message: String::new() },
            |raw| Condition { ready: raw.status == "True", reason: raw.reason, message: raw.message },
        );
        (raw.metadata.name, condition)
    };
    Ok(list.items.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::repo::tests::repo;
    use crate::model::source::Source;
    use crate::model::world::{Facts, Rendered};

    #[test]
    fn hosts_and_applications_need_fields() {
        let text = "
//- ansible/playbooks/a.yml
- command: op read \"op://vault/gandi/api-token\"
- command: op read 'op://vault/x/section/field'
- command: op read op://vault
//- argocd/apps/a.yaml
kind: Application
metadata: {name: a}
spec: {source: {path: m/a}, destination: {server: s, namespace: n}}
";
        let secret = "kind: ExternalSecret\nmetadata: {name: s}\nspec: {secretStoreRef: {name: onepassword-other}, data: [{remoteRef: {key: 'A (b)', property: p}}, {remoteRef: {key: C}}]}";
        let mut facts = Facts::default();
        facts.paths.insert("m/a/x.yaml".to_owned());
        facts.rendered.insert("m/a".to_owned(), Rendered::Text(Source::new("m/a", secret)));
        let world = World::new(repo(text), facts);
        let shown: Vec<String> = of(&world)
            .iter()
            .map(|need| format!("{}/{}/{} {}", need.vault, need.item, need.field, need.app.as_deref().unwrap_or("-")))
            .collect();
        assert_eq!(shown, ["other/A (b)/p a", "other/C/password a", "vault/gandi/api-token -", "vault/x/field -"]);
    }

    #[test]
    fn a_secret_without_status_is_not_ready() {
        let list = r#"{"items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"},"status":{"conditions":[{"type":"Ready","status":"True","reason":"SecretSynced"}]}}]}"#;
        let conditions = conditions(list).unwrap();
        assert!(!conditions["a"].ready && conditions["b"].ready);
        assert!(super::conditions("{").is_err());
    }
}
