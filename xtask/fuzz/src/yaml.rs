//! YAML: every value knows its bytes, and what is read means the same when it is written as JSON.

use serde_json::Value as Json;

use crate::model::inventory;
use crate::model::manifest::{self, Apply};
use crate::model::names::expand;
use crate::model::source::Source;
use crate::model::waiver::Waiver;
use crate::model::workflow::Workflow;
use crate::model::yaml::{Node, Value, documents};
use crate::tools::{helm, kubectl};
use crate::{assert_within, model::waiver};

/// Aliases make much of little; what is slow is not what is looked for.
const MOST: usize = 10_000;

pub(crate) fn text(text: &str) {
    let source = Source::new("ansible/inventory/fuzz.yaml", text);
    match source.documents() {
        Err((at, why)) => assert!(text.is_char_boundary(*at) && !why.is_empty(), "{at} of {text:?}"),
        Ok(found) if found.iter().map(count).sum::<usize>() < MOST => {
            for document in found {
                spans(document, &source);
                means_the_same(document);
                let expanded = expand(text, document);
                assert!(text.contains("{{") || expanded == text);
            }
            lists(text, &source);
        }
        Ok(_) => {}
    }
    drop(Workflow::parse(&source));
    for waiver in Waiver::of_file(&source) {
        assert_within(&waiver.place);
        if let Some(edit) = waiver::removal(&waiver) {
            assert_within(&edit.place);
        }
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(_) => 1,
        Value::Sequence(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Mapping(entries) => 1 + entries.iter().map(|(key, value)| count(key) + count(value)).sum::<usize>(),
    }
}

fn spans(node: &Node, source: &Source) {
    assert_within(&node.place(source));
    match &node.value {
        Value::Scalar(text) => plain(node, text, source),
        Value::Sequence(items) => items.iter().for_each(|item| spans(item, source)),
        Value::Mapping(entries) => entries.iter().for_each(|(key, value)| {
            spans(key, source);
            spans(value, source);
        }),
    }
}

/// A scalar of one line without quotes, alias or tag is what is written there.
fn plain(node: &Node, text: &str, source: &Source) {
    let written = &source.text[node.start..node.end];
    let is_special = |c: char| "'\"|>*&!\u{feff}".contains(c);
    // A block's first line break is not written in it, and its last may be kept.
    let is_long = written.contains(['\n', '\r']) || text.contains('\n');
    if !matches!(text, "" | "~") && !written.starts_with(is_special) && !is_long {
        assert_eq!(written, text, "at {}..{} of {:?}", node.start, node.end, source.text);
    }
}

/// JSON is YAML, too.
fn means_the_same(document: &Node) {
    let typed = document.typed();
    let again = documents(&typed.to_string()).unwrap_or_else(|why| panic!("{typed}: {why:?}"));
    assert_eq!(again.iter().map(Node::typed).collect::<Vec<Json>>(), [typed]);
}

/// What takes a text of many documents apart.
fn lists(text: &str, source: &Source) {
    let manifests = manifest::split(text, Apply::Client);
    let again = manifest::split(&manifest::joined(&manifests), Apply::Client);
    let kinds = |all: &[manifest::Manifest]| {
        all.iter().map(|one| (one.version.clone(), one.kind.clone(), one.way)).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&again), kinds(&manifests), "{text:?}");
    for host in inventory::hosts(std::slice::from_ref(source)) {
        assert!([&host.name, &host.address].iter().all(|word| !word.is_empty() && !word.starts_with('-')));
    }
    drop(kubectl::servers(std::slice::from_ref(source)));
    for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
        assert!(helm::source_of(text, at).is_none_or(|template| text[..at].contains(template)));
    }
}
