//! YAML as a tree whose every node knows its place. A thin layer over saphyr's parser.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::finding::Finding;
use super::source::{Place, Source};

/// Deeper than anything that is written by hand, and less than what a stack holds.
const DEEPEST: usize = 200;

/// What aliases may unfold to; more is an attack or an accident.
const MOST_VALUES: usize = 2_000_000;

/// A node and the bytes it stands on. Copies share what is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) value: Value,
    /// A scalar without quotes or tag, whose type is what it looks like.
    plain: bool,
}

/// Scalars stay text: what they mean depends on who reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Scalar(Arc<str>),
    Sequence(Arc<[Node]>),
    Mapping(Arc<[(Node, Node)]>),
}

/// All documents of a text, or where it stops being YAML, and why.
pub(crate) type Documents = Result<Vec<Node>, (usize, String)>;

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

    /// The value with the types that its plain scalars have.
    pub(crate) fn typed(&self) -> serde_json::Value {
        match &self.value {
            Value::Sequence(items) => items.iter().map(Node::typed).collect(),
            Value::Mapping(entries) => {
                let key = |key: &Node| key.text().unwrap_or_default().to_owned();
                serde_json::Value::Object(entries.iter().map(|(k, value)| (key(k), value.typed())).collect())
            }
            Value::Scalar(text) => {
                if self.plain {
                    plain(text)
                } else {
                    (&**text).into()
                }
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
                for (key, value) in entries.iter() {
                    visit(key, value);
                    value.walk(visit);
                }
            }
        }
    }
}

/// All documents of a file; each file is parsed once.
///
/// # Errors
/// A finding at the place where the text stops being YAML; repeated keys are such a place.
pub(crate) fn parse(source: &Source) -> Result<Vec<Node>, Box<Finding>> {
    source.documents().clone().map_err(|(at, why)| {
        Box::new(Finding::error("yaml-syntax", format!("not valid YAML: {why}")).at(source.place(at, at)))
    })
}

/// A scalar without quotes, as Kubernetes reads it: YAML 1.1, where `yes` is true and 0644 is octal.
fn plain(text: &str) -> serde_json::Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => serde_json::Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => true.into(),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => false.into(),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) => number(text),
        _ => text.into(),
    }
}

/// What looks like a number and may be one.
fn number(text: &str) -> serde_json::Value {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text.trim_start_matches('+')), |rest| (-1, rest));
    let digits = digits.replace('_', "");
    let based = [("0x", 16), ("0o", 8), ("0b", 2), ("0", 8)].into_iter().find_map(|(prefix, base)| {
        let rest = digits.strip_prefix(prefix).filter(|rest| rest.starts_with(|c: char| c.is_ascii_hexdigit()))?;
        i64::from_str_radix(rest, base).ok()
    });
    if let Some(value) = based.or_else(|| digits.parse::<i64>().ok()) {
        return (sign * value).into();
    }
    let is_float = digits.contains(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'));
    text.parse::<f64>().ok().filter(|_| is_float).map_or_else(|| text.into(), Into::into)
}

/// Parses `text`, with aliases and merge keys replaced by what they stand for.
pub(crate) fn documents(text: &str) -> Documents {
    let mut builder = Builder { text, offsets: Offsets::new(text), ..Builder::default() };
    for event in Parser::new_from_str(text) {
        let (event, span) =
            event.map_err(|error| (builder.offsets.byte(error.marker().index()), error.info().to_owned()))?;
        builder.take(event, span)?;
    }
    Ok(builder.documents)
}

/// A sequence or mapping that is not complete yet.
struct Open {
    start: usize,
    anchor: usize,
    is_mapping: bool,
    children: Vec<Node>,
    /// How many values were there before it.
    before: usize,
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    offsets: Offsets,
    documents: Vec<Node>,
    open: Vec<Open>,
    /// What each anchor stands for, and how many values that is.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
}

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), (usize, String)> {
        let start = self.offsets.byte(span.start.index());
        let end = self.offsets.byte(span.end.index()).max(start);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none_or(|tag| !is_text(&tag));
                let end = scalar_end(self.text, start, end);
                let node = Node { start, end, value: Value::Scalar(text.into()), plain };
                self.complete(node, anchor, 1)
            }
            Event::SequenceStart(anchor, _) => self.start(start, anchor, false),
            Event::MappingStart(anchor, _) => self.start(start, anchor, true),
            Event::SequenceEnd | Event::MappingEnd => self.end(end),
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, values)) => self.complete(Node { start, end, ..node }, 0, values),
                None => Err((start, "an alias inside of what it stands for".to_owned())),
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn start(&mut self, start: usize, anchor: usize, is_mapping: bool) -> Result<(), (usize, String)> {
        if self.open.len() == DEEPEST {
            return Err((start, format!("more than {DEEPEST} levels deep")));
        }
        self.open.push(Open { start, anchor, is_mapping, children: Vec::new(), before: self.values });
        Ok(())
    }

    fn end(&mut self, end: usize) -> Result<(), (usize, String)> {
        let Some(Open { start, anchor, is_mapping, children, before }) = self.open.pop() else { return Ok(()) };
        let value = if is_mapping { mapping(children)? } else { Value::Sequence(children.into()) };
        let values = self.values - before + 1;
        self.values = before;
        self.complete(Node { start, end: end.max(start), value, plain: false }, anchor, values)
    }

    fn complete(&mut self, node: Node, anchor: usize, values: usize) -> Result<(), (usize, String)> {
        self.values += values;
        if self.values > MOST_VALUES {
            return Err((node.start, format!("its aliases unfold to more than {MOST_VALUES} values")));
        }
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), values));
        }
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.documents.push(node),
        }
        Ok(())
    }
}

/// Is it said to be text, or something that only its reader knows?
fn is_text(tag: &Tag) -> bool {
    !matches!(tag.suffix.as_str(), "int" | "float" | "bool" | "null")
}

/// Keys and values in turn, each key once; `<<` gives what is not written out.
fn mapping(children: Vec<Node>) -> Result<Value, (usize, String)> {
    let mut seen: HashSet<Arc<str>> = HashSet::new();
    let (mut entries, mut merged) = (Vec::with_capacity(children.len() / 2), Vec::new());
    let mut children = children.into_iter();
    while let Some((key, value)) = children.next().zip(children.next()) {
        if key.plain && key.text() == Some("<<") {
            match &value.value {
                Value::Sequence(items) => merged.extend(items.iter().cloned()),
                _ => merged.push(value),
            }
            continue;
        }
        if let Value::Scalar(text) = &key.value
            && !seen.insert(text.clone())
        {
            return Err((key.start, format!("the key {text} is there twice")));
        }
        entries.push((key, value));
    }
    for source in merged {
        let Value::Mapping(more) = source.value else { continue };
        entries.extend(more.iter().filter(|(key, _)| key.text().is_some_and(|text| seen.insert(text.into()))).cloned());
    }
    Ok(Value::Mapping(entries.into()))
}

/// Where a scalar really ends: saphyr's span may reach over the blanks and the comment behind it.
fn scalar_end(text: &str, start: usize, end: usize) -> usize {
    let written = &text[start..end];
    let quote = written.chars().next().filter(|c| matches!(c, '\'' | '"'));
    // What other blanks there are is part of it.
    let Some(quote) = quote else { return start + written.trim_end_matches([' ', '\t', '\n', '\r']).len() };
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
#[derive(Default)]
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
        let (source, node) = only("é: 'ü'\nlist: [ a , \"b\" ]\nplain: v1.0   # why\nodd: v1\u{a0}\u{b} \n");
        let text = |node: &Node| source.text[node.start..node.end].to_owned();
        assert_eq!(text(node.get("é").unwrap()), "'ü'");
        assert_eq!(text(&node.get("list").unwrap().items()[0]), "a");
        assert_eq!(text(&node.get("list").unwrap().items()[1]), "\"b\"");
        assert_eq!(text(node.get("plain").unwrap()), "v1.0");
        assert_eq!(text(node.get("odd").unwrap()), "v1\u{a0}\u{b}");
        assert_eq!(node.get("plain").unwrap().place(&source).to_string(), "a.yaml:3:8");
    }

    #[test]
    fn bad_yaml_is_a_finding_at_its_place() {
        for (text, line) in [("a: 1\nb: [\n", 3), ("a: 1\na: 2\n", 2), ("a: b: c\n", 1)] {
            let finding = parse(&Source::new("a.yaml", text)).unwrap_err();
            assert_eq!(finding.place.unwrap().line_column().0, line, "{text}");
        }
    }

    #[test]
    fn aliases_and_merge_keys_stand_for_what_they_name() {
        let (_, node) =
            only("base: &base {a: 1, b: two}\nmore:\n  <<: *base\n  b: 3\nlist: [*base]\nport: &p 80\nsame: *p\n");
        assert_eq!(node.get("more").unwrap().typed(), serde_json::json!({"a": 1, "b": 3}));
        assert_eq!(node.get("list").unwrap().items()[0].get("b").unwrap().text(), Some("two"));
        assert_eq!(node.get("same").unwrap().typed(), 80);
        let (_, node) = only("a: &a {x: 1}\nb: &b {x: 2, y: 3}\nc: {<<: [*a, *b]}\n");
        assert_eq!(node.get("c").unwrap().typed(), serde_json::json!({"x": 1, "y": 3}));
    }

    #[test]
    fn a_bomb_and_a_tower_are_findings() {
        let line = |n: usize| format!("a{n}: &a{n} [{}]", vec![format!("*a{}", n - 1); 9].join(","));
        let bomb: Vec<String> = (1..12).map(line).collect();
        let finding = parse(&Source::new("a.yaml", &format!("a0: &a0 x\n{}", bomb.join("\n")))).unwrap_err();
        assert!(finding.message.contains("unfold"), "{}", finding.message);
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "a: &a [*a]".to_owned(), "? ".repeat(5000)] {
            parse(&Source::new("a.yaml", &text)).unwrap_err();
        }
    }

    #[test]
    fn plain_scalars_are_what_kubernetes_takes_them_for() {
        let (_, node) =
            only("[yes, Off, 'yes', 0644, 0o17, 0x1F, 1_000, -5, 1.5, 1e3, 1.2.3, 08, ., 1d, !!str 5, ~, .inf]");
        let expected = serde_json::json!([
            true, false, "yes", 420, 15, 31, 1000, -5, 1.5, 1000.0, "1.2.3", 8, ".", "1d", "5", null, ".inf"
        ]);
        assert_eq!(node.typed(), expected);
    }

    #[test]
    fn line_ends_and_marks_of_other_systems_do_not_move_places() {
        let (source, node) = only("a: 1\r\nb: 'x'\r\nc:\r\n  - é\r\n");
        assert_eq!(node.get("b").unwrap().place(&source).to_string(), "a.yaml:2:4");
        assert_eq!(node.get("c").unwrap().items()[0].text(), Some("é"));
        let marked = parse(&Source::new("a.yaml", "\u{feff}kind: A\n")).unwrap();
        assert_eq!(marked[0].get("kind").and_then(Node::text), Some("A"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\- \\n\"'\\[\\]{}&*#|>é,]{0,60}") {
            drop(parse(&Source::new("a.yaml", &text)));
        }
    }
}
