//! Repairs that need no judgement: what would be written instead, and where.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::source::{Place, Source};
use super::yaml::{self, Node};

/// One span of a file and what comes in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// A file before and after, and how many findings that settles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) source: Source,
    pub(crate) text: String,
    pub(crate) fixes: usize,
}

impl Edit {
    pub(crate) fn new(place: Place, text: impl Into<String>) -> Self {
        Self { place, text: text.into() }
    }

    /// `word` becomes `other` where the place is that word and nothing else, quotes aside.
    pub(crate) fn rename(place: &Place, word: &str, other: &str) -> Option<Self> {
        let written = place.source.text.get(place.start..place.end)?;
        let bare = written.trim_matches(['"', '\'']);
        let at = place.start + written.find(bare)?;
        // A suffix of an address or a link stands for the whole of it where the word is all that can differ.
        let offset = if bare == word { 0 } else { only_word(bare, word)? };
        let place = place.source.place(at + offset, at + offset + word.len());
        Some(Self::new(place, other))
    }
}

/// Where `word` is in `text`, if it is there once, as a whole word.
fn only_word(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let is_whole = |at: &usize| {
        !text[..*at].ends_with(is_part) && !text[at + word.len()..].starts_with(is_part) && !text.contains(['\n', ' '])
    };
    let mut found = text.match_indices(word).map(|(at, _)| at);
    let at = found.next().filter(is_whole)?;
    found.next().is_none().then_some(at)
}

/// Adds `item` to the list `key` of a YAML mapping, in the way the list is written.
pub(crate) fn added_to_list(source: &Source, key: &str, item: &str) -> Option<Edit> {
    // Of several documents the end is not that of the first.
    let [root] = &yaml::parse(source).ok()?[..] else { return None };
    let newline = if source.text.contains("\r\n") { "\r\n" } else { "\n" };
    let Some(list) = root.get(key) else {
        let end = source.text.len();
        let gap = if source.text.ends_with('\n') { "" } else { newline };
        return Some(Edit::new(source.place(end, end), format!("{gap}{key}:{newline}  - {item}{newline}")));
    };
    let final_item = list.items().last()?;
    if source.text[list.start..].starts_with('[') {
        return Some(Edit::new(source.place(final_item.end, final_item.end), format!(", {item}")));
    }
    let line_start = source.text[..final_item.start].rfind('\n').map_or(0, |at| at + 1);
    let lead = &source.text[line_start..final_item.start];
    let rest = &source.text[final_item.end..];
    let end = final_item.end + rest.find(['\r', '\n']).unwrap_or(rest.len());
    let is_one_line = !source.text[final_item.start..final_item.end].contains('\n');
    let is_simple = lead.trim() == "-" && final_item.text().is_some() && is_one_line;
    is_simple.then(|| Edit::new(source.place(end, end), format!("{newline}{lead}{item}")))
}

/// What the fixes of `findings` make of their files. Of two that touch the same bytes the first is made.
pub(crate) fn repairs(findings: &[Finding]) -> Vec<Repair> {
    let mut files = BTreeMap::<&str, (&Source, Vec<&Edit>)>::new();
    for edit in findings.iter().filter_map(|finding| finding.fix.as_deref()) {
        let entry = files.entry(&edit.place.source.path).or_insert((&edit.place.source, Vec::new()));
        // An insertion takes the place it is made at.
        let overlaps = |other: &&Edit| {
            let (a, b) = (&other.place, &edit.place);
            (a.start < b.end && b.start < a.end) || (a.start == b.start && *other.text == edit.text)
        };
        if !entry.1.iter().any(overlaps) {
            entry.1.push(edit);
        }
    }
    files.into_values().filter_map(|(source, edits)| repair(source, edits)).collect()
}

/// Nothing where the file would stop being the YAML that it is.
fn repair(source: &Source, mut edits: Vec<&Edit>) -> Option<Repair> {
    edits.sort_by_key(|edit| edit.place.start);
    let mut text = source.text.to_string();
    for edit in edits.iter().rev() {
        text.replace_range(edit.place.start..edit.place.end, &edit.text);
    }
    let stays = yaml::documents(&text).is_ok() || source.documents().is_err();
    (stays && *text != *source.text).then(|| Repair { source: source.clone(), text, fixes: edits.len() })
}

/// The line of `place`, its line break included.
pub(crate) fn whole_line(place: &Place) -> Place {
    let text = &place.source.text;
    let start = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[place.end..].find('\n').map_or(text.len(), |at| place.end + at + 1);
    place.source.place(start, end)
}

/// The value of `key` in a mapping, renamed where it is `from`.
pub(crate) fn scalar(source: &Source, node: &Node, to: &str) -> Option<Edit> {
    let place = node.place(source);
    Edit::rename(&place, node.text()?, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixed(source: &Source, edits: Vec<Edit>) -> Option<String> {
        let finding = |edit: Edit| Finding::error("a", edit.text.clone()).fixed_by(Some(edit));
        let findings: Vec<Finding> = edits.into_iter().map(finding).collect();
        repairs(&findings).into_iter().next().map(|repair| {
            assert_eq!(repair.source, *source);
            repair.text
        })
    }

    #[test]
    fn lists_grow_in_the_way_they_are_written() {
        for (before, after) in [
            (
                "resources:\n  - a.yaml # first\n\nimages: []\n",
                "resources:\n  - a.yaml # first\n  - b.yaml\n\nimages: []\n",
            ),
            ("resources:\n- a.yaml", "resources:\n- a.yaml\n- b.yaml"),
            ("resources: [a.yaml]\n", "resources: [a.yaml, b.yaml]\n"),
            ("namespace: a", "namespace: a\nresources:\n  - b.yaml\n"),
            ("resources:\r\n  - a.yaml\r\n", "resources:\r\n  - a.yaml\r\n  - b.yaml\r\n"),
        ] {
            let source = Source::new("kustomization.yaml", before);
            let edit = added_to_list(&source, "resources", "b.yaml").unwrap();
            assert_eq!(fixed(&source, vec![edit]).as_deref(), Some(after));
        }
        let odd = Source::new("kustomization.yaml", "resources: *list\n");
        assert_eq!(added_to_list(&odd, "resources", "b.yaml"), None);
        let long = Source::new("kustomization.yaml", "resources:\n  - a\n    b\n");
        assert_eq!(added_to_list(&long, "resources", "b.yaml"), None);
        let two = Source::new("kustomization.yaml", "namespace: a\n---\nnamespace: b\n");
        assert_eq!(added_to_list(&two, "resources", "b.yaml"), None);
    }

    #[test]
    fn a_word_is_renamed_where_nothing_else_can_be_meant() {
        let source = Source::new("a.yaml", "a: 'htpp'\nb: http://wep.web/wep\nc: http://wep.web\nd: wep-x\n");
        let at = |needle: &str| source.find(needle);
        let renamed = |place: &Place, word: &str| fixed(&source, vec![Edit::rename(place, word, "new")?]);
        assert!(renamed(&at("'htpp'"), "htpp").unwrap().starts_with("a: 'new'\n"));
        assert_eq!(renamed(&at("http://wep.web/wep"), "wep"), None);
        assert!(
            renamed(&at("http://wep.web\nd").source.place(35, 49), "wep")
                .is_some_and(|text| text.contains("c: http://new.web\n"))
        );
        assert_eq!(renamed(&at("wep-x"), "wep"), None);
    }

    #[test]
    fn overlapping_edits_are_made_once_and_yaml_stays_yaml() {
        let source = Source::new("a.yaml", "a: one\nb: two\n");
        let one = Edit::new(source.find("one"), "1");
        let same = Edit::new(source.find("one\n"), "x\n");
        let two = Edit::new(source.find("two"), "2");
        assert_eq!(fixed(&source, vec![two, one.clone(), one, same]).as_deref(), Some("a: 1\nb: 2\n"));
        assert_eq!(fixed(&source, vec![Edit::new(source.find("one"), "[")]), None);
    }
}
