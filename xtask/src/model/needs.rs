//! Which fields of which items in the vault the repository needs.

use std::collections::BTreeMap;
use std::fmt;

use super::source::Place;
use super::world::{Object, Ref, World};

/// One field of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    pub(crate) vault: String,
    pub(crate) item: String,
    /// Nothing where all of the item is taken.
    pub(crate) field: Option<String>,
    pub(crate) place: Place,
    /// The Application whose `ExternalSecret` it is; nothing for a host's.
    pub(crate) app: Option<String>,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vault, item, field, .. } = self;
        match field {
            Some(field) => write!(f, "{vault}/{item}/{field}"),
            None => write!(f, "{vault}/{item}"),
        }
    }
}

/// What stands before a reference of `op`.
const SCHEME: &str = "op://";

/// Every need, of Applications and of hosts.
pub(crate) fn of(world: &World) -> Vec<Need> {
    let mut needs = references(world);
    let vault = vault(&needs);
    for (app, object) in world.objects().filter(|(_, object)| object.kind == "ExternalSecret") {
        for mut need in fetched(object) {
            need.app = Some(app.name.clone());
            if need.vault.is_empty() {
                need.vault.clone_from(&vault);
            }
            needs.push(need);
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
            let (vault, item, field) = (vault.to_owned(), item.to_owned(), Some(field.to_owned()));
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

/// Everything that an `ExternalSecret` takes by name. Its vault is empty where no store is named after one.
fn fetched(object: &Object) -> Vec<Need> {
    let own = object.at(&["spec", "secretStoreRef", "name"]).and_then(Ref::text);
    let need = |entry: Ref<'_>, reference: Ref<'_>, whole: bool| {
        // An entry may name a store of its own. A store is named after its vault, as `onepassword-blumeops`.
        let store = entry.text_at(&["sourceRef", "storeRef", "name"]).or(own);
        let vault = store.and_then(|name| name.strip_prefix("onepassword-")).unwrap_or_default().to_owned();
        let item = reference.text_at(&["key"])?.to_owned();
        // Without a property the provider takes the field `password` of one entry, and every field of a whole item.
        let field = reference.text_at(&["property"]).or((!whole).then_some("password")).map(str::to_owned);
        Some(Need { vault, item, field, place: reference.place(), app: None })
    };
    let one = object.root().list(&["spec", "data"]).into_iter();
    let one = one.filter_map(|entry| need(entry, entry.get("remoteRef")?, false));
    let all = object.root().list(&["spec", "dataFrom"]).into_iter();
    one.chain(all.filter_map(|entry| need(entry, entry.get("extract")?, true))).collect()
}

/// Where an `ExternalSecret` takes whatever fits a pattern: what it needs can't be asked for by name.
pub(crate) fn unnamed(object: &Object) -> Vec<Place> {
    let all = object.root().list(&["spec", "dataFrom"]).into_iter();
    all.filter_map(|entry| entry.get("find")).map(Ref::place).collect()
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
        let secret = "kind: ExternalSecret\nmetadata: {name: s}\nspec: {secretStoreRef: {name: onepassword-other}, data: [{remoteRef: {key: 'A (b)', property: p}}, {remoteRef: {key: C}}], dataFrom: [{extract: {key: D}}, {extract: {key: E, property: p}, sourceRef: {storeRef: {name: onepassword-else}}}, {find: {name: {regexp: x}}}]}";
        let mut facts = Facts::default();
        facts.paths.insert("m/a/x.yaml".to_owned());
        facts.rendered.insert("m/a".to_owned(), Rendered::Text(Source::new("m/a", secret)));
        let world = World::new(repo(text), facts);
        let shown: Vec<String> =
            of(&world).iter().map(|need| format!("{need} {}", need.app.as_deref().unwrap_or("-"))).collect();
        assert_eq!(
            shown,
            [
                "else/E/p a",
                "other/A (b)/p a",
                "other/C/password a",
                "other/D a",
                "vault/gandi/api-token -",
                "vault/x/field -"
            ]
        );
        assert_eq!(world.objects().flat_map(|(_, object)| unnamed(object)).count(), 1);
    }
}
