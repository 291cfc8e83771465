//! Kustomizations: reading them, and moving a pin in place.

use serde_json::Value;

use crate::assert_within;
use crate::model::digest::Digest;
use crate::model::fix::{self, Edit};
use crate::model::kustomization::Kustomization;
use crate::model::relative::mentions;
use crate::model::source::Source;
use crate::model::tag::ImageTag;
use crate::model::yaml::{Node, documents};

pub(crate) fn text(text: &str) {
    let path = "argocd/manifests/a/kustomization.yaml";
    let source = Source::new(path, text);
    for thing in ["argocd/manifests/a/b.yaml", "argocd/manifests/base", "docs/a.md"] {
        mentions(&source, thing).iter().for_each(assert_within);
    }
    grown(&source);
    let Ok(kustomization) = Kustomization::parse(source.clone()) else { return };
    kustomization.remote.iter().for_each(assert_within);
    for name in kustomization.includes.iter().chain(&kustomization.names) {
        assert!(!name.starts_with('/') && !name.split('/').any(|part| part == ".."), "{name}");
    }
    let tag: ImageTag = "v1.2.3-nix".parse().expect("a tag");
    let digest = Digest::of(b"x");
    for entry in &kustomization.images {
        assert_within(&entry.place(&source));
        assert_within(&entry.span(&source));
        let image = entry.image();
        let Ok(after) = kustomization.pinned(image, &tag, &digest) else { continue };
        let same = |document: &Node| without_pins(document, image);
        let (before, now) = (read(text), read(&after));
        assert_eq!(before.iter().map(same).collect::<Vec<_>>(), now.iter().map(same).collect::<Vec<_>>(), "{after:?}");
        comments(text, &after, &kustomization);
        let again = Kustomization::parse(Source::new(path, &after)).expect("it was read back");
        assert!(again.entries(image).all(|e| e.tag() == Some("v1.2.3-nix") && e.digest() == Some(digest.as_str())));
        assert_eq!(again.pinned(image, &tag, &digest).map_err(|finding| finding.message), Ok(after));
    }
}

fn read(text: &str) -> Vec<Node> {
    documents(text).unwrap_or_else(|why| panic!("{text:?}: {why:?}"))
}

/// The document as if nobody had pinned `image`.
fn without_pins(document: &Node, image: &str) -> Value {
    let mut value = document.typed();
    let images = value.get_mut("images").and_then(Value::as_array_mut).into_iter().flatten();
    // Names are text, whatever they look like.
    let entries = images.zip(document.get("images").map_or(&[][..], Node::items));
    for (entry, node) in entries {
        let text = |key: &str| node.get(key).and_then(Node::text).filter(|text| !matches!(*text, "" | "~"));
        let is_pinned = text("newName").or(text("name")).unwrap_or_default() == image;
        if let Some(entry) = entry.as_object_mut().filter(|_| is_pinned) {
            entry.remove("newTag");
            entry.remove("digest");
        }
    }
    value
}

/// What is said behind a `#` is said as before, in the same order.
fn comments(before: &str, after: &str, kustomization: &Kustomization) {
    let pinned = kustomization.images.iter().flat_map(|entry| [entry.tag(), entry.digest()]).flatten();
    // Inside of a value it is no comment.
    if pinned.clone().any(|value| value.contains(['#', '\n'])) {
        return;
    }
    let said = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split_once(" #")).map(|(_, said)| said.to_owned()).collect()
    };
    assert_eq!(said(before), said(after));
}

/// A list grows by one item, and nothing else changes.
fn grown(source: &Source) {
    let Some(edit) = fix::added_to_list(source, "resources", "new.yaml") else { return };
    assert_within(&edit.place);
    let Edit { place, text } = edit;
    let after = format!("{}{text}{}", &source.text[..place.start], &source.text[place.end..]);
    // What would not be YAML any more is not written; see fix::repairs.
    let (Ok(before), Ok(now)) = (source.documents(), documents(&after)) else { return };
    let [before, now] = [before, &now].map(|all| all.iter().map(Node::typed).collect::<Vec<_>>());
    let (Some(Value::Object(first)), Some(Value::Object(now_first))) = (before.first(), now.first()) else { return };
    let list = |object: &serde_json::Map<String, Value>| {
        object.get("resources").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let mut expected = list(first);
    expected.push("new.yaml".into());
    assert_eq!(list(now_first), expected, "{after:?}");
}
