//! YAML as a tree whose every node knows its place. A thin layer over saphyr.

use saphyr::{MarkedYaml, ScanError, YamlData, YamlLoader};
use saphyr_parser::{BufferedInput, Parser};

use super::finding::Finding;
use super::source::{Place, Source};

/// A node and the bytes it stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) value: Value,
}

/// Scalars stay text: what they mean depends on who reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar(String),
    Sequence(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

impl Node {
    /// The value under `key`, if this is a mapping that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// Key and value under `key`.
    pub(crate) fn entry(&self, key: &str) -> Option<(&Node, &Node)> {
        let Value::Mapping(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(name, value)| (name, value))
    }

    /// The value at the end of `keys`, one inside the other.
    pub(crate) fn path(&self, keys: &[&str]) -> Option<&Node> {
        keys.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Value::Scalar(text) = &self.value { Some(text) } else { None }
    }

    /// The items, or nothing where this is no sequence.
    pub(crate) fn items(&self) -> &[Node] {
        if let Value::Sequence(items) = &self.value { items } else { &[] }
    }

    /// The value with the types that its plain scalars have; `source` is where it was parsed from.
    pub(crate) fn typed(&self, source: &Source) -> serde_json::Value {
        match &self.value {
            Value::Sequence(items) => items.iter().map(|item| item.typed(source)).collect(),
            Value::Mapping(entries) => {
                let key = |key: &Node| key.text().unwrap_or_default().to_owned();
                serde_json::Value::Object(entries.iter().map(|(k, value)| (key(k), value.typed(source))).collect())
            }
            Value::Scalar(text) => {
                let is_plain = !source.text[self.start..].starts_with(['"', '\'', '|', '>']) && !text.contains('\n');
                if is_plain { plain(text) } else { text.as_str().into() }
            }
        }
    }

    pub(crate) fn place(&self, source: &Source) -> Place {
        source.place(self.start, self.end)
    }

    /// Calls `visit` with every scalar value below.
    pub(crate) fn scalars<'a>(&'a self, visit: &mut impl FnMut(&'a Node, &'a str)) {
        match &self.value {
            Value::Scalar(text) => visit(self, text),
            Value::Sequence(items) => items.iter().for_each(|item| item.scalars(visit)),
            Value::Mapping(entries) => entries.iter().for_each(|(_, value)| value.scalars(visit)),
        }
    }

    /// Calls `visit` with every key and value of every mapping below.
    pub(crate) fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Node, &'a Node)) {
        match &self.value {
            Value::Scalar(_) => {}
            Value::Sequence(items) => items.iter().for_each(|item| item.walk(visit)),
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    visit(key, value);
                    value.walk(visit);
                }
            }
        }
    }
}

/// All documents of a file.
///
/// # Errors
/// A finding at the place where the text stops being YAML; repeated keys are such a place.
pub(crate) fn parse(source: &Source) -> Result<Vec<Node>, Box<Finding>> {
    let offsets = Offsets::new(&source.text);
    let documents = load(&source.text).map_err(|error| {
        let at = offsets.byte(error.marker().index());
        Box::new(Finding::error("yaml-syntax", format!("not valid YAML: {}", error.info())).at(source.place(at, at)))
    })?;
    Ok(documents.iter().map(|document| convert(document, &source.text, &offsets)).collect())
}

/// A scalar without quotes, as YAML 1.2's core schema reads it.
fn plain(text: &str) -> serde_json::Value {
    match text {
        "" | "~" | "null" => serde_json::Value::Null,
        "true" => true.into(),
        "false" => false.into(),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => text
            .parse::<i64>()
            .map(Into::into)
            .or_else(|_| text.parse::<f64>().map(Into::into))
            .unwrap_or_else(|_| text.into()),
        _ => text.into(),
    }
}

fn load(text: &str) -> Result<Vec<MarkedYaml<'_>>, ScanError> {
    let mut loader = YamlLoader::<MarkedYaml<'_>>::default();
    loader.early_parse(false);
    let mut parser = Parser::new(BufferedInput::new(text.chars()));
    parser.load(&mut loader, true)?;
    match loader.error() {
        Some(error) => Err(error.clone()),
        None => Ok(loader.into_documents()),
    }
}

fn convert(node: &MarkedYaml<'_>, text: &str, offsets: &Offsets) -> Node {
    let start = offsets.byte(node.span.start.index());
    let end = offsets.byte(node.span.end.index());
    let child = |node| convert(node, text, offsets);
    let value = match &node.data {
        YamlData::Representation(scalar, ..) => Value::Scalar(scalar.to_string()),
        YamlData::Sequence(items) => Value::Sequence(items.iter().map(child).collect()),
        YamlData::Mapping(entries) => {
            Value::Mapping(entries.iter().map(|(key, value)| (child(key), child(value))).collect())
        }
        YamlData::Tagged(_, inner) => convert(inner, text, offsets).value,
        YamlData::Value(_) | YamlData::Alias(_) | YamlData::BadValue => Value::Scalar(String::new()),
    };
    let end = if matches!(value, Value::Scalar(_)) { scalar_end(text, start, end.max(start)) } else { end };
    Node { start, end, value }
}

/// Where a scalar really ends: saphyr's span may reach over the blanks and the comment behind it.
fn scalar_end(text: &str, start: usize, end: usize) -> usize {
    let written = &text[start..end];
    let quote = written.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else { return start + written.trim_end().len() };
    let mut characters = written.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && quote == '"' {
            characters.next();
        } else if character == quote {
            // Two single quotes are one that does not end the scalar.
            if quote == '\'' && characters.peek().is_some_and(|&(_, next)| next == quote) {
                characters.next();
            } else {
                return start + at + 1;
            }
        }
    }
    end
}

/// From saphyr's character indexes to byte offsets.
struct Offsets {
    /// Empty for ASCII, where both are the same.
    bytes: Vec<usize>,
    length: usize,
}

impl Offsets {
    fn new(text: &str) -> Self {
        let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
        Self { bytes, length: text.len() }
    }

    fn byte(&self, index: usize) -> usize {
        if self.bytes.is_empty() {
            index.min(self.length)
        } else {
            self.bytes.get(index).copied().unwrap_or(self.length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(text: &str) -> (Source, Node) {
        let source = Source::new("a.yaml", text);
        let node = parse(&source).unwrap().remove(0);
        (source, node)
    }

    #[test]
    fn every_scalar_knows_its_bytes() {
        let (source, node) = only("é: 'ü'\nlist: [ a , \"b\" ]\nplain: v1.0   # why\n");
        let text = |node: &Node| source.text[node.start..node.end].to_owned();
        assert_eq!(text(node.get("é").unwrap()), "'ü'");
        assert_eq!(text(&node.get("list").unwrap().items()[0]), "a");
        assert_eq!(text(&node.get("list").unwrap().items()[1]), "\"b\"");
        assert_eq!(text(node.get("plain").unwrap()), "v1.0");
        assert_eq!(node.get("plain").unwrap().place(&source).to_string(), "a.yaml:3:8");
    }

    #[test]
    fn bad_yaml_is_a_finding_at_its_place() {
        for (text, line) in [("a: 1\nb: [\n", 3), ("a: 1\na: 2\n", 2), ("a: b: c\n", 1)] {
            let finding = parse(&Source::new("a.yaml", text)).unwrap_err();
            assert_eq!(finding.place.unwrap().line_column().0, line, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\- \\n\"'\\[\\]{}&*#|>é,]{0,60}") {
            drop(parse(&Source::new("a.yaml", &text)));
        }
    }
}
