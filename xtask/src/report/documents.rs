//! The documents that commands print as JSON, as sections of a page.

use serde::Deserialize;
use serde_json::Value;

use super::page::{Item, Section, Spot, State};
use crate::checks;
use crate::model::area;

/// Where a document came from.
pub(crate) struct Origin<'a> {
    pub(crate) source: String,
    /// A line of a file as it is in the checkout, where there is one.
    pub(crate) line: &'a dyn Fn(&str, usize) -> Option<String>,
}

#[derive(Deserialize)]
struct Document {
    ok: bool,
    result: Option<Value>,
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    summary: String,
    command: Option<String>,
    #[serde(default)]
    tail: Vec<String>,
    left: Option<String>,
    next: Option<String>,
    #[serde(default)]
    findings: Vec<Finding>,
}

#[derive(Deserialize)]
struct Check {
    findings: Vec<Finding>,
    files: u64,
    objects: u64,
    applications: u64,
    containers: u64,
    rules: u64,
    waived: u64,
    not_checked: Vec<String>,
}

#[derive(Deserialize)]
struct Finding {
    code: String,
    severity: String,
    message: String,
    place: Option<Place>,
    other: Option<Place>,
    help: Option<String>,
}

#[derive(Deserialize)]
struct Place {
    path: String,
    line: usize,
    column: usize,
}

#[derive(Deserialize)]
struct Services {
    checks: Vec<Asked>,
    count: u64,
    seconds: f64,
}

#[derive(Deserialize)]
struct Asked {
    name: String,
    #[serde(rename = "where")]
    place: String,
    state: String,
    expected: String,
    seen: String,
    see: String,
    seconds: f64,
    waived: Option<String>,
    log: Vec<String>,
}

#[derive(Deserialize)]
struct Verification {
    service: String,
    commit: Option<String>,
    time: String,
    points: Vec<Point>,
}

#[derive(Deserialize)]
struct Point {
    #[serde(rename = "point")]
    title: String,
    number: u64,
    state: String,
    seen: String,
    see: Option<String>,
    #[serde(default)]
    log: Vec<String>,
}

#[derive(Deserialize)]
struct Rehearsal {
    released: Vec<Released>,
    #[serde(default)]
    points: Vec<Point>,
    #[serde(default)]
    breakages: Vec<Breakage>,
}

#[derive(Deserialize)]
struct Released {
    image: String,
    digest: String,
    size: u64,
    pinned: Vec<String>,
}

#[derive(Deserialize)]
struct Breakage {
    #[serde(rename = "breakage")]
    name: String,
    red: Vec<u64>,
    reason: String,
}

/// Every document of a text, of each kind the last: a watch prints one after another.
///
/// # Errors
/// What is no JSON, or none of the documents that a page is made of.
pub(crate) fn sections(text: &str, origin: &Origin<'_>) -> Result<Vec<Section>, String> {
    let mut sections: Vec<Section> = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let section = section(value.map_err(|error| format!("it is not JSON: {error}"))?, origin)?;
        sections.retain(|earlier| earlier.title != section.title);
        sections.push(section);
    }
    if sections.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(sections)
}

/// One document as a section.
///
/// # Errors
/// It is none of those that a page is made of.
pub(crate) fn section(value: Value, origin: &Origin<'_>) -> Result<Section, String> {
    let document: Document = parsed(value, "a document of --format json")?;
    let fails = !document.ok;
    if let Some(failed) = document.error {
        return Ok(failed.section(origin));
    }
    let result = document.result.unwrap_or_default();
    let has = |key: &str| result.get(key).is_some();
    let section = if has("rules") && has("findings") {
        parsed::<Check>(result, "of check")?.section(origin)
    } else if has("checks") && has("seconds") {
        parsed::<Services>(result, "of services-check")?.section(origin)
    } else if has("points") && has("service") {
        parsed::<Verification>(result, "of verify")?.section(origin)
    } else if has("released") {
        parsed::<Rehearsal>(result, "of rehearse")?.section(origin)
    } else {
        return Err("it is a document of none of check, services-check, verify and rehearse".to_owned());
    };
    Ok(Section { fails, ..section })
}

fn parsed<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("it is not {what}: {error}"))
}

impl Failed {
    /// A command that did not come to a result.
    fn section(self, origin: &Origin<'_>) -> Section {
        let mut facts = Vec::new();
        facts.extend(self.left.map(|text| ("left", text)));
        facts.extend(self.next.map(|text| ("next", text)));
        let failure = Item {
            facts,
            lines: self.tail.join("\n"),
            see: self.command.unwrap_or_default(),
            ..item(State::Failed, "the command itself", self.summary)
        };
        let findings = self.findings.into_iter().map(|finding| finding.item(origin));
        Section {
            title: "What stopped it".to_owned(),
            source: origin.source.clone(),
            about: "The command ended without a result.".to_owned(),
            items: std::iter::once(failure).chain(findings).collect(),
            fails: true,
        }
    }
}

impl Check {
    fn section(self, origin: &Origin<'_>) -> Section {
        let about = format!(
            "{} rules over {} files, {} objects of {} Applications and {} containers; {} findings waived",
            self.rules, self.files, self.objects, self.applications, self.containers, self.waived
        );
        let open = self.not_checked.into_iter().map(|what| item(State::Open, "not checked", what));
        let items = self.findings.into_iter().map(|finding| finding.item(origin)).chain(open).collect();
        let (title, source) = ("The repository".to_owned(), origin.source.clone());
        Section { title, source, about, items, fails: false }
    }
}

impl Finding {
    fn item(self, origin: &Origin<'_>) -> Item {
        let state = if self.severity == "environment" { State::Open } else { State::Failed };
        let shown = |place: &Place| format!("{}:{}:{}", place.path, place.line, place.column);
        let mut facts = vec![("rule", self.code.clone())];
        facts.extend(self.other.as_ref().map(|place| ("other end", shown(place))));
        facts.extend(self.help.map(|help| ("help", help)));
        facts.extend(checks::meaning(&self.code).map(|(about, why)| ("why", format!("{about} {why}"))));
        let place = self.place.as_ref();
        let line = place.and_then(|place| (origin.line)(&place.path, place.line));
        let spot = |place: &Place| Spot::Line { path: place.path.clone(), line: place.line };
        Item {
            place: place.map(shown).unwrap_or_default(),
            facts,
            lines: line.unwrap_or_default().trim_end().to_owned(),
            spots: place.into_iter().chain(&self.other).map(spot).collect(),
            ..item(state, place.map_or("the machine", |place| area::name(area::of(&place.path))), self.message)
        }
    }
}

impl Services {
    fn section(self, origin: &Origin<'_>) -> Section {
        Section {
            title: "Services".to_owned(),
            source: origin.source.clone(),
            about: format!("{} checks in {:.1} s", self.count, self.seconds),
            items: self.checks.into_iter().map(Asked::item).collect(),
            fails: false,
        }
    }
}

impl Asked {
    fn item(self) -> Item {
        let state = match self.state.as_str() {
            "fine" => State::Fine,
            "waived" => State::Waived,
            _ => State::Failed,
        };
        let place = if state == State::Fine { String::new() } else { self.seen.clone() };
        let mut facts = vec![("expected", self.expected), ("seen", self.seen)];
        facts.extend(self.waived.map(|reason| ("waived", reason)));
        facts.push(("took", format!("{:.1} s", self.seconds)));
        Item {
            place,
            facts,
            lines: self.log.join("\n"),
            see: self.see,
            spots: vec![Spot::Named(self.name.clone())],
            ..item(state, &self.place, self.name)
        }
    }
}

impl Verification {
    fn section(self, origin: &Origin<'_>) -> Section {
        let commit = self.commit.map_or_else(String::new, |commit| format!(", commit {commit}"));
        let passed = self.points.iter().filter(|point| point.state == "passed").count();
        Section {
            title: format!("Verification of {}", self.service),
            source: origin.source.clone(),
            about: format!("{passed} of {} points passed, at {}{commit}", self.points.len(), self.time),
            items: self.points.into_iter().map(|point| point.item(&self.service)).collect(),
            fails: false,
        }
    }
}

impl Point {
    fn item(self, service: &str) -> Item {
        let state = match self.state.as_str() {
            "passed" => State::Fine,
            "failed" => State::Failed,
            _ => State::Open,
        };
        let layer = match self.number {
            1 => "image",
            2 => "database",
            3 => "workload",
            4..=6 => "way in",
            7 => "metrics",
            _ => "services",
        };
        let place = if state == State::Fine { String::new() } else { self.seen.clone() };
        let spot = Spot::Point { service: service.to_owned(), number: self.number, seen: self.seen.clone() };
        Item {
            place,
            facts: vec![("seen", self.seen)],
            lines: self.log.join("\n"),
            see: self.see.unwrap_or_default(),
            spots: vec![spot],
            ..item(state, layer, format!("{}. {}", self.number, self.title))
        }
    }
}

impl Rehearsal {
    fn section(self, origin: &Origin<'_>) -> Section {
        let about = format!(
            "{} images released, {} points verified, {} things broken and mended",
            self.released.len(),
            self.points.len(),
            self.breakages.len()
        );
        let released = self.released.into_iter().map(Released::item);
        let points = self.points.into_iter().map(|point| point.item(""));
        let breakages = self.breakages.into_iter().map(|it| {
            let red = it.red.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
            let facts = vec![("points that turned red, and green again", red), ("because of", it.reason)];
            Item { facts, ..item(State::Fine, "breakages", it.name) }
        });
        Section {
            title: "Rehearsal".to_owned(),
            source: origin.source.clone(),
            about,
            items: released.chain(points).chain(breakages).collect(),
            fails: false,
        }
    }
}

impl Released {
    fn item(self) -> Item {
        let facts =
            vec![("digest", self.digest), ("size", super::bytes(self.size)), ("pinned in", self.pinned.join("\n"))];
        Item { facts, ..item(State::Fine, "image", self.image) }
    }
}

fn item(state: State, layer: &str, title: String) -> Item {
    Item {
        state,
        layer: layer.to_owned(),
        title,
        place: String::new(),
        facts: Vec::new(),
        lines: String::new(),
        see: String::new(),
        spots: Vec::new(),
    }
}
