//! The YAML that pages show.

use super::Rule;
use super::custom::Schemas;
use super::schema;
use crate::model::finding::Finding;
use crate::model::source::Source;
use crate::model::world::World;
use crate::model::yaml::{self, Node};

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[Rule {
    code: "doc-yaml",
    about: "YAML in a page is YAML, and an object in it has fields that its kind has.",
    why: "It is copied from there.",
    breaks: ("docs/how-to/how-to.md", "kind: Namespace\nmetadata:", "kind: Namespace\nmetadat: [\nmetadata:"),
    check: blocks,
}];

/// The fenced blocks of a page that are YAML: where each starts, and its text.
fn fenced(file: &Source) -> Vec<(usize, &str)> {
    let (mut found, mut start, mut block) = (Vec::new(), 0, None);
    for line in file.text.split_inclusive('\n') {
        let fence = line.trim_start().strip_prefix("```").map(str::trim);
        match (block, fence) {
            (None, Some(language)) => block = Some((start + line.len(), ["yaml", "yml"].contains(&language))),
            (Some((from, true)), Some(_)) => {
                found.push((from, &file.text[from..start]));
                block = None;
            }
            (Some(_), Some(_)) => block = None,
            _ => {}
        }
        start += line.len();
    }
    found
}

/// What is left out, filled in later or meant to be replaced is no YAML yet.
fn is_open(text: &str) -> bool {
    ["{{", "{%", "...", "…", "<", "$"].iter().any(|mark| text.contains(mark))
}

fn blocks(world: &World, findings: &mut Vec<Finding>) {
    let schemas = Schemas::of(world);
    let is_page =
        |file: &&Source| file.path.starts_with("docs/") && file.path.ends_with(".md") && !file.path.contains("/plans/");
    for file in world.repo.files.iter().filter(is_page) {
        for (start, text) in fenced(file).into_iter().filter(|(_, text)| !is_open(text)) {
            let block = Source::new(&file.path, text);
            match yaml::parse(&block) {
                Ok(documents) => {
                    for node in documents {
                        objects(file, &block, (start, &node), (&schemas, findings));
                    }
                }
                Err(finding) => {
                    let at = start + finding.place.as_ref().map_or(0, |place| place.start);
                    findings.push(Finding::error("doc-yaml", finding.message).at(file.place(at, at)));
                }
            }
        }
    }
}

fn objects(
    file: &Source,
    block: &Source,
    (start, node): (usize, &Node),
    (schemas, findings): (&Schemas, &mut Vec<Finding>),
) {
    let text = |key: &str| node.get(key).and_then(Node::text).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let mistakes = schema::mistakes(schemas, (version, kind), node.typed()).unwrap_or_default();
    // A page may leave out what is beside its point.
    for mistake in mistakes.into_iter().filter(|mistake| !mistake.what.ends_with("is missing")) {
        let place = schema::place(block, node, &mistake);
        let message = format!("{kind}: {}: {}", mistake.path.join("."), mistake.what);
        findings.push(Finding::error("doc-yaml", message).at(file.place(start + place.start, start + place.end)));
    }
}
