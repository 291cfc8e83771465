//! The plan of secrets: what the pages say an item holds is what is read of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Rule;
use crate::model::finding::Finding;
use crate::model::source::{Place, Source};
use crate::model::world::{Object, Ref, World};

const SECRET: &str = "argocd/manifests/web/external-secret.yaml";

/// How a page begins to speak of an item.
const MARK: &str = "1Password item \"";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "secret-plan",
        about: "The fields of a 1Password item that are read are those that a page declares, and all of them.",
        why: "Somebody makes the item by the page, and the ExternalSecret waits for a field that is called otherwise.",
        breaks: (SECRET, "property: token", "property: tokn"),
        check: plan,
    },
    Rule {
        code: "secret-store",
        about: "An ExternalSecret names a store that its cluster has.",
        why: "No Secret is ever made.",
        breaks: (SECRET, "name: onepassword", "name: onepasswort"),
        check: store,
    },
    Rule {
        code: "op-reference",
        about: "An op:// reference has a vault, an item and a field of letters, digits, blanks and - _ . alone.",
        why: "op refuses it; a title with parentheses is read by the item's id.",
        breaks: ("ansible/playbooks/indri.yml", "op://blumeops/web/token", "op://blumeops/Web (blumeops)/token"),
        check: reference,
    },
];

/// An item as a page declares it: its fields, each with where it stands.
struct Item<'a> {
    name: &'a str,
    place: Place,
    fields: BTreeMap<&'a str, Place>,
}

fn items(world: &World) -> Vec<Item<'_>> {
    let pages = world.repo.files.iter().filter(|file| {
        file.path.starts_with("docs/reference/") && file.path.ends_with(".md") && !file.path.contains("/plans/")
    });
    pages.flat_map(items_of).filter(|item| !item.fields.is_empty()).collect()
}

/// In a page, an item's fields are the code spans of the first cells of the table that follows its name, or else those
/// of the rest of the paragraph.
fn items_of(file: &Source) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    for (at, _) in file.text.match_indices(MARK) {
        let start = at + MARK.len();
        let Some(length) = file.text[start..].find('"') else { continue };
        let (name, behind) = (&file.text[start..start + length], start + length + 1);
        let rest = &file.text[behind..];
        let end = [rest.find(MARK), rest.find("\n#")].into_iter().flatten().min().unwrap_or(rest.len());
        let mut fields = BTreeMap::new();
        let paragraph = ["\n\n", "\n\r\n"].into_iter().filter_map(|blank| rest[..end].find(blank)).min().unwrap_or(end);
        spans(file, behind, &rest[..paragraph], &mut fields);
        if fields.is_empty() {
            let mut line_start = behind;
            for line in rest[..end].split_inclusive('\n') {
                let cell = line.trim_start().strip_prefix('|').and_then(|line| line.split('|').next());
                if let Some(cell) = cell {
                    spans(file, line_start + line.find(cell).unwrap_or(0), cell, &mut fields);
                }
                line_start += line.len();
            }
        }
        items.push(Item { name, place: file.place(start, start + length), fields });
    }
    items
}

/// The code spans of `text`, which stands at `start`, that could be the name of a field.
fn spans<'a>(file: &Source, start: usize, text: &'a str, fields: &mut BTreeMap<&'a str, Place>) {
    let mut at = start;
    for (number, part) in text.split('`').enumerate() {
        let is_name = !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if number % 2 == 1 && is_name {
            fields.insert(part, file.place(at, at + part.len()));
        }
        at += part.len() + 1;
    }
}

/// Item, field, and where each is named.
type Read = (String, String, [Place; 2]);

/// Every field that is read, and the items that are read whole.
fn reads(world: &World) -> (Vec<Read>, BTreeSet<String>) {
    let (mut reads, mut whole) = (Vec::new(), BTreeSet::new());
    for (_, object) in world.objects().filter(|(_, object)| object.kind == "ExternalSecret") {
        let list = |key: &str| object.at(&["spec", key]).map_or_else(Vec::new, Ref::items);
        for reference in list("data").into_iter().filter_map(|item| item.get("remoteRef")) {
            let Some(key) = reference.get("key") else { continue };
            // Without a field the provider takes the one called password.
            let field = reference.get("property");
            let name = field.and_then(Ref::text).unwrap_or("password").to_owned();
            reads.push((key.text().unwrap_or_default().to_owned(), name, [key.place(), field.unwrap_or(key).place()]));
        }
        let extracted = list("dataFrom").into_iter().filter_map(|item| item.text_at(&["extract", "key"]));
        whole.extend(extracted.map(str::to_owned));
    }
    for (parts, place) in references(world) {
        if let [_, item, .., field] = parts.as_slice() {
            reads.push((item.clone(), field.clone(), [place.clone(), place]));
        }
    }
    (reads, whole)
}

fn plan(world: &World, findings: &mut Vec<Finding>) {
    let items = items(world);
    let (reads, whole) = reads(world);
    for (name, field, [named, place]) in &reads {
        let declared: Vec<&Item<'_>> = items.iter().filter(|item| item.name.eq_ignore_ascii_case(name)).collect();
        let fields = || declared.iter().flat_map(|item| item.fields.keys().copied());
        match declared.first() {
            Some(item) if !fields().any(|known| known == field) => {
                let finding = Finding::error("secret-plan", format!("no page declares field {field} of {name}"));
                let finding = finding.at(place.clone()).also(item.place.clone(), "the plan");
                findings.push(finding.did_you_mean(field, fields()));
            }
            None => {
                // An item that no page speaks of may be declared elsewhere; one that is nearly called so is a slip.
                if let Some(near) = items.iter().map(|item| item.name).find(|known| is_slip(name, known)) {
                    let finding = Finding::error("secret-plan", format!("no page declares an item {name}"));
                    findings.push(finding.at(named.clone()).help(format!("did you mean `{near}`?")));
                }
            }
            Some(_) => {}
        }
    }
    for item in items.iter().filter(|item| world.knows_all() && !whole.contains(item.name)) {
        let read: BTreeSet<&str> = reads
            .iter()
            .filter(|(name, ..)| name.eq_ignore_ascii_case(item.name))
            .map(|(_, field, _)| field.as_str())
            .collect();
        for (field, place) in item.fields.iter().filter(|(field, _)| !read.is_empty() && !read.contains(*field)) {
            let message = format!("nothing reads field {field} of {}", item.name);
            findings.push(Finding::error("secret-plan", message).at(place.clone()));
        }
    }
}

/// Do they differ by so little that one is meant to be the other?
fn is_slip(word: &str, known: &str) -> bool {
    let distance = strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase());
    (1..=2).contains(&distance) && word.len() > 5
}

/// Is it a store of that kind?
fn is_store(object: &Object, kind: &str) -> bool {
    let version = object.at(&["apiVersion"]).and_then(Ref::text).unwrap_or_default();
    version.starts_with("external-secrets.io/") && object.kind == kind
}

fn store(world: &World, findings: &mut Vec<Finding>) {
    let secrets = || world.objects().filter(|(_, object)| object.kind == "ExternalSecret");
    let named = |object: &Object| object.at(&["spec", "secretStoreRef", "name"]).and_then(Ref::text).map(str::to_owned);
    let mut uses = BTreeMap::<String, usize>::new();
    for name in secrets().filter_map(|(_, object)| named(object)) {
        *uses.entry(name).or_default() += 1;
    }
    for (app, object) in secrets() {
        let Some(name) = object.at(&["spec", "secretStoreRef", "name"]) else { continue };
        let text = name.text().unwrap_or_default();
        let kind = object.at(&["spec", "secretStoreRef", "kind"]).and_then(Ref::text).unwrap_or("SecretStore");
        let stores = world.objects().filter(|(other, store)| {
            let here = kind == "ClusterSecretStore" || store.namespace == object.namespace;
            is_store(store, kind) && other.cluster == app.cluster && here
        });
        let stores: Vec<&str> = stores.map(|(_, store)| store.name.as_str()).collect();
        let is_wrong = if stores.is_empty() {
            // Stores that are made elsewhere are known by the company they keep.
            let mut common = uses.iter().filter(|(_, count)| **count > 1);
            uses.get(text) == Some(&1) && common.any(|(name, _)| is_slip(text, name))
        } else {
            world.knows_all() && !stores.contains(&text)
        };
        if is_wrong {
            let finding = Finding::error("secret-store", format!("cluster {} has no {kind} {text}", app.cluster));
            let known = stores.into_iter().chain(uses.keys().map(String::as_str)).filter(|name| *name != text);
            findings.push(finding.at(name.place()).did_you_mean(text, known.collect::<Vec<_>>()));
        }
    }
}

/// Every `op://` reference in provisioning, workflows and tasks: its parts, and where it stands.
fn references(world: &World) -> Vec<(Vec<String>, Place)> {
    let is_read = |path: &str| path.starts_with("ansible/") || path.starts_with(".forgejo/") || path == ".mise.toml";
    let mut found = Vec::new();
    for file in world.repo.files.iter().filter(|file| is_read(&file.path)) {
        for (at, mark) in file.text.match_indices("op://") {
            let quote = file.text[..at].chars().next_back().filter(|c| ['"', '\'', '`'].contains(c));
            let rest = &file.text[at..];
            let ends =
                |c: char| c == '\n' || quote.map_or(c.is_whitespace() || c == '"' || c == '\'', |quote| c == quote);
            let text = &rest[..rest.find(ends).unwrap_or(rest.len())];
            // What is filled in later is not known.
            if !text.contains(['{', '$', '<']) {
                let parts = text[mark.len()..].split('?').next().unwrap_or_default().split('/');
                found.push((parts.map(str::to_owned).collect(), file.place(at, at + text.len())));
            }
        }
    }
    found
}

fn reference(world: &World, findings: &mut Vec<Finding>) {
    let is_plain =
        |part: &String| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_. ".contains(c));
    for (parts, place) in references(world) {
        let message = if !(3..=4).contains(&parts.len()) {
            "it is not op://vault/item/field or op://vault/item/section/field".to_owned()
        } else if let Some(part) = parts.iter().find(|part| !is_plain(part)) {
            format!("op takes no {part:?} in a reference")
        } else {
            continue;
        };
        findings.push(Finding::error("op-reference", message).at(place).help("use the item's id"));
    }
}
