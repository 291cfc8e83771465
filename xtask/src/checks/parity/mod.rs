//! An upstream chart against our manifests, trait by trait: what they mean, not how they are written.

mod access;
mod env;
mod objects;
mod pairs;
mod pod;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::finding::Finding;
use crate::model::parity::Settings;
use crate::model::source::Place;
use crate::model::world::Object;

/// What a comparison finds: code, what it says, what happens.
pub(crate) const CODES: &[(&str, &str, &str)] = &[
    (WORKLOAD, "What the chart runs runs here too, in the same way.", "A component is missing, or one too many runs."),
    (COMMAND, "A container runs what the chart's runs.", "It starts as something else."),
    (PORT, "A container has the chart's ports.", "Whoever expects upstream's port finds nothing."),
    (ENV, "A container gets the chart's environment.", "Upstream's defaults, and what it has renamed, are missed."),
    (PROBE, "A container is probed as the chart probes it.", "It is killed too soon, or kept when it is dead."),
    (RESOURCES, "A container asks for what the chart asks for.", "It is starved, or starves others."),
    (VOLUME, "The chart's volumes are mounted.", "What upstream expects to be writable is not."),
    (SERVICE, "The chart's Services lead to the same ports.", "Clients of upstream's Service find nothing."),
    (SECURITY, "The security context is the chart's.", "A container may more, or less, than upstream needs."),
    (PERMISSION, "The service account may what the chart's may.", "What upstream does through the API server fails."),
    (POD, "A pod's other settings are the chart's.", "It behaves in a way that upstream has not seen."),
    (OBJECT, "The chart's other objects are here, and no others.", "A component has come or gone upstream."),
    ("parity-accepted-unused", "An accepted difference is there.", "The reason speaks of what is no more."),
    ("parity-accepted-reason", "An accepted difference has a reason.", "Nobody knows when it may go."),
];

const WORKLOAD: &str = "parity-workload";
const COMMAND: &str = "parity-command";
const PORT: &str = "parity-port";
const ENV: &str = "parity-env";
const PROBE: &str = "parity-probe";
const RESOURCES: &str = "parity-resources";
const VOLUME: &str = "parity-volume";
const SERVICE: &str = "parity-service";
const SECURITY: &str = "parity-security";
const PERMISSION: &str = "parity-permission";
const POD: &str = "parity-pod";
const OBJECT: &str = "parity-object";

/// One of the two that are compared.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) objects: &'a [Object],
    /// What its names begin with.
    pub(crate) prefix: &'a str,
}

impl<'a> Side<'a> {
    fn of_kind(self, kind: &'static str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    fn workloads(self) -> Vec<&'a Object> {
        self.objects.iter().filter(|object| object.pod_template().is_some()).collect()
    }

    /// A name without what all names of this side begin with.
    fn own_name(self, name: &'a str) -> &'a str {
        name.strip_prefix(self.prefix).and_then(|rest| rest.strip_prefix('-')).unwrap_or(name)
    }
}

/// One thing that an object says, in words that mean the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trait {
    code: &'static str,
    shown: String,
    place: Place,
    /// The trait that it is a part of; where that is on one side only, this one is not told.
    parent: String,
}

/// The traits of one side by path.
#[derive(Default)]
struct Sheet(BTreeMap<String, Trait>);

impl Sheet {
    fn add(&mut self, code: &'static str, (parent, name): (&str, &str), shown: impl Into<String>, place: Place) {
        let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") };
        // Quotes would have to be escaped in the file of accepted differences.
        let shown = one_line(&shown.into()).replace('"', "'").replace('\\', "/");
        self.0.insert(path, Trait { code, shown, place, parent: parent.to_owned() });
    }
}

/// More than this is shortened, with a digest in place of the rest.
const LONGEST: usize = 100;

fn one_line(text: &str) -> String {
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    if text.chars().count() <= LONGEST && !text.contains('\n') {
        return text.to_owned();
    }
    let head: String = text.lines().next().unwrap_or_default().chars().take(LONGEST / 2).collect();
    let digest = crate::model::digest::Digest::of(text.as_bytes());
    format!("{head}… ({})", digest.short())
}

/// A trait that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) chart: Option<Trait>,
    pub(crate) ours: Option<Trait>,
}

/// As it is accepted: `path: chart -> ours`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} -> {}", self.path, shown(self.chart.as_ref()), shown(self.ours.as_ref()))
    }
}

fn shown(side: Option<&Trait>) -> &str {
    side.map_or("none", |side| &side.shown)
}

impl Difference {
    pub(crate) fn code(&self) -> &'static str {
        self.chart.as_ref().or(self.ours.as_ref()).map_or(OBJECT, |side| side.code)
    }

    /// What the chart says, and what we say.
    pub(crate) fn values(&self) -> [Option<&str>; 2] {
        [&self.chart, &self.ours].map(|side| side.as_ref().map(|side| side.shown.as_str()))
    }

    fn message(&self) -> String {
        match self.values() {
            [Some(chart), Some(ours)] => format!("{}: the chart has `{chart}`, here it is `{ours}`", self.path),
            [Some(chart), None] => format!("{}: only the chart has it: `{chart}`", self.path),
            [None, ours] => format!("{}: only here: `{}`", self.path, ours.unwrap_or_default()),
        }
    }
}

/// How many workloads and differences there are.
pub(crate) struct Compared {
    pub(crate) differences: Vec<Difference>,
    /// Workloads of the chart that have one of ours.
    pub(crate) pairs: usize,
}

/// Everything that differs, by path.
pub(crate) fn compare(chart: Side<'_>, ours: Side<'_>) -> Compared {
    let roles = pairs::roles(chart, ours);
    let (left, right) = (sheet(chart, ours, &roles.chart), sheet(ours, chart, &roles.ours));
    let paths: BTreeSet<&String> = left.0.keys().chain(right.0.keys()).collect();
    let is_both = |path: &str| left.0.contains_key(path) && right.0.contains_key(path);
    let is_part_of_one = |one: &Trait| {
        let mut parent = one.parent.as_str();
        while !parent.is_empty() && is_both(parent) {
            parent = left.0.get(parent).map_or("", |one| &one.parent);
        }
        // A parent that is no trait is only a heading.
        !parent.is_empty() && (left.0.contains_key(parent) || right.0.contains_key(parent))
    };
    let difference = |path: &String| {
        let (chart, ours) = (left.0.get(path), right.0.get(path));
        let is_same = chart.map(|side| &side.shown) == ours.map(|side| &side.shown);
        let is_told = chart.is_some() == ours.is_some() || !chart.or(ours).is_some_and(is_part_of_one);
        (!is_same && is_told).then(|| Difference { path: path.clone(), chart: chart.cloned(), ours: ours.cloned() })
    };
    let pairs = roles.chart.iter().filter(|(_, role)| roles.ours.iter().any(|(_, other)| other == role)).count();
    Compared { differences: paths.into_iter().filter_map(difference).collect(), pairs }
}

fn sheet(side: Side<'_>, other: Side<'_>, roles: &[(&Object, String)]) -> Sheet {
    let mut sheet = Sheet::default();
    for (workload, role) in roles {
        pod::add(&mut sheet, (side, other), workload, role);
        objects::add_services(&mut sheet, side, workload, role);
        access::add(&mut sheet, side, workload, role);
    }
    objects::add_rest(&mut sheet, side);
    sheet
}

/// What is to be said of the differences.
pub(crate) struct Judged {
    pub(crate) findings: Vec<Finding>,
    /// Why each difference is accepted, in their order; nothing where it is not.
    pub(crate) reasons: Vec<Option<String>>,
}

/// Holds the differences against what is accepted. `file` is where that is written, `fallback` a place of ours.
pub(crate) fn judge(differences: &[Difference], settings: &Settings, (file, fallback): (&str, &Place)) -> Judged {
    let mut judged = Judged { findings: Vec::new(), reasons: Vec::new() };
    let mut used = vec![false; settings.accepted.len()];
    for difference in differences {
        let line = difference.to_string();
        let (mut reason, mut was) = (None, None);
        for (accepted, used) in settings.accepted.iter().zip(&mut used) {
            if accepted.line == line {
                reason = Some(accepted.reason.clone());
                *used = true;
            } else if accepted.path() == difference.path {
                // It speaks of this difference as it was; that is one finding, not two.
                was = Some(accepted);
                *used = true;
            }
        }
        if reason.is_none() {
            let place = difference.ours.as_ref().map_or(fallback, |ours| &ours.place).clone();
            let mut finding = Finding::error(difference.code(), difference.message()).at(place);
            if let Some(chart) = &difference.chart {
                finding = finding.also(in_template(&chart.place, &difference.path), "in the chart");
            }
            let accept = format!("accept it in {file} with its reason, as \"{line}\"");
            judged.findings.push(finding.help(match was {
                Some(was) => format!("{} accepts it as \"{}\"\n{accept}", was.place, was.line),
                None => accept,
            }));
        }
        judged.reasons.push(reason);
    }
    let one_sided = |path: &str| {
        let is_one_sided = |side: &Difference| side.path == path && side.values().contains(&None);
        differences.iter().any(is_one_sided)
    };
    for (accepted, used) in settings.accepted.iter().zip(used) {
        // Of a part of what is on one side only nothing can be said.
        let is_part = accepted.path().match_indices('/').any(|(at, _)| one_sided(&accepted.path()[..at]));
        if !used && !is_part {
            let message = format!("{} no longer differs, and is accepted as \"{}\"", accepted.path(), accepted.line);
            let finding = Finding::error("parity-accepted-unused", message).at(accepted.place.clone());
            judged.findings.push(finding.help("take the line away"));
        }
    }
    for place in &settings.unreasoned {
        let finding = Finding::error("parity-accepted-reason", "these differences are accepted without a reason");
        judged.findings.push(finding.at(place.clone()));
    }
    judged
}

/// The line of a template that speaks of a trait, where one does.
fn in_template(template: &Place, path: &str) -> Place {
    let parts: Vec<&str> = path.split('/').collect();
    let needle = match parts[..] {
        [.., "probe", name] => format!("{name}Probe"),
        [.., "port", name] => format!("name: {name}"),
        [.., "resources", _, _] => "resources".to_owned(),
        [.., "permission", _, _, resource] => resource.to_owned(),
        [.., "security", key] => key.split('.').next().unwrap_or(key).to_owned(),
        [.., last] => last.rsplit('.').next().unwrap_or(last).to_owned(),
        [] => return template.clone(),
    };
    let is_there = !needle.is_empty() && template.source.text.contains(&needle);
    if is_there { template.source.find(&needle) } else { template.clone() }
}
