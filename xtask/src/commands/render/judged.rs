//! Whether what kustomize printed can be all of what it was to print, and where its errors are written.

use crate::model::repo::is_manifest;
use crate::model::source::{Place, Source};
use crate::model::world::is_yaml;
use crate::model::yaml::Node;

/// Why an output that was called a success is none.
pub(super) fn implausible(output: &Source, files: &[&Source]) -> Option<String> {
    let documents = match output.documents() {
        Ok(documents) => documents,
        Err((_, why)) => return Some(format!("what it printed is not YAML: {why}")),
    };
    let written: Vec<&Node> = documents.iter().filter(|node| !is_empty(node)).collect();
    if let Some(odd) = written.iter().find(|node| !is_object(node)) {
        let line = output.text[odd.start..].lines().next().unwrap_or_default();
        return Some(format!("what it printed is not an object: {line}"));
    }
    let least = least(files);
    match written.len() {
        0 if least > 0 || files.iter().any(|file| has_object(file)) => {
            Some("it printed nothing, and there are objects to print".to_owned())
        }
        0 => None,
        _ if !output.text.ends_with('\n') => Some("what it printed ends in the middle of a line".to_owned()),
        count if count < least => Some(format!("it printed {count} objects, and {least} are listed")),
        _ => None,
    }
}

fn is_empty(node: &Node) -> bool {
    node.text().is_some_and(|text| matches!(text, "" | "~"))
}

fn is_object(node: &Node) -> bool {
    let has = |keys: &[&str]| node.path(keys).is_some();
    let is_named = has(&["metadata", "name"]) || has(&["metadata", "generateName"]);
    has(&["kind"]) && has(&["apiVersion"]) && (is_named || has(&["items"]))
}

fn has_object(file: &Source) -> bool {
    let is_own = file.path.contains("kustomization.") || !is_yaml(&file.path);
    !is_own && file.documents().as_ref().is_ok_and(|documents| documents.iter().any(is_object))
}

/// How many objects there are at least: those of the files that a list of resources names.
fn least(files: &[&Source]) -> usize {
    // A patch may take an object away, and an annotation keeps one from being printed.
    let taken = ["$patch", "config.kubernetes.io/local-config", "op: remove"];
    if files.iter().any(|file| taken.iter().any(|word| file.text.contains(word))) {
        return 0;
    }
    let lists = files.iter().filter(|file| file.path.contains("kustomization."));
    let mut names: Vec<String> = Vec::new();
    for list in lists {
        let documents = list.documents().as_ref().map_or(&[][..], Vec::as_slice);
        let resources = documents.first().and_then(|node| node.get("resources")).map_or(&[][..], Node::items);
        let resources = resources.iter().filter_map(Node::text).map(|name| name.trim_start_matches("./"));
        names.extend(resources.map(|name| format!("{}/{name}", list.folder())));
    }
    let listed = files.iter().filter(|file| names.contains(&file.path.to_string()) && is_manifest(file));
    let count = |file: &&Source| {
        let documents = file.documents().as_ref().map_or(&[][..], Vec::as_slice);
        documents.iter().filter(|node| is_object(node) && node.get("items").is_none()).count()
    };
    listed.map(count).sum()
}

/// Where the entry is written that an error speaks of.
pub(super) fn place(kustomization: &Source, error: &str) -> Place {
    let mut entries = Vec::new();
    if let Some(list) = kustomization.documents().as_ref().ok().and_then(|documents| documents.first()) {
        list.scalars(&mut |node, text| entries.push((text, node)));
    }
    let entry = |quoted: &str| entries.iter().find(|(text, _)| *text == quoted).map(|(_, node)| *node);
    let found = error.split('\'').find_map(entry);
    found.map_or_else(|| kustomization.place(0, 0), |node| node.place(kustomization))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "resources:\n  - ./a.yaml\n  - ../gone\n";
    const TWO: &str =
        "apiVersion: v1\nkind: A\nmetadata: {name: a}\n---\napiVersion: v1\nkind: A\nmetadata: {name: b}\n";

    fn judged(printed: &str, more: &str) -> Option<String> {
        let files = [Source::new("f/kustomization.yaml", &format!("{LIST}{more}")), Source::new("f/a.yaml", TWO)];
        implausible(&Source::new("out", printed), &files.iter().collect::<Vec<_>>())
    }

    #[test]
    fn what_is_cut_off_is_no_success() {
        assert_eq!(judged(TWO, ""), None);
        let one = &TWO[..TWO.find("---").unwrap()];
        for (printed, why) in [
            ("", "printed nothing"),
            ("---\n", "printed nothing"),
            (one, "printed 1 objects, and 2 are listed"),
            (TWO.trim_end(), "ends in the middle of a line"),
            (&TWO[..TWO.len() - 11], "not an object: apiVersion"),
            ("hello\n", "not an object: hello"),
            ("a: [", "not YAML"),
        ] {
            assert!(judged(printed, "").unwrap().contains(why), "{printed}: {:?}", judged(printed, ""));
        }
        // What a patch may have taken away is not missed.
        assert_eq!(judged(one, "patches: [{patch: '$patch: delete'}]\n"), None);
    }

    #[test]
    fn an_error_stands_where_its_entry_does() {
        let list = Source::new("f/kustomization.yaml", LIST);
        let error = "accumulating resources: accumulation err='accumulating resources from '../gone': no such file'";
        assert_eq!(place(&list, error).line_column(), (3, 5));
        assert_eq!(place(&list, "no reason").line_column(), (1, 1));
    }
}
