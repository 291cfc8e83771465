//! Rules: pure functions from values to findings.

pub(crate) mod applications;
pub(crate) mod blocks;
pub(crate) mod calls;
pub(crate) mod custom;
pub(crate) mod databases;
pub(crate) mod docs;
pub(crate) mod hosts;
pub(crate) mod image;
pub(crate) mod images;
pub(crate) mod monitoring;
pub(crate) mod network;
pub(crate) mod objects;
pub(crate) mod parity;
pub(crate) mod plan;
pub(crate) mod published;
pub(crate) mod release;
pub(crate) mod runtime;
pub(crate) mod schema;
pub(crate) mod secrets;
#[cfg(test)]
mod tests;
pub(crate) mod workloads;

use std::collections::BTreeSet;

use crate::model::config;
use crate::model::finding::{Finding, Severity};
use crate::model::graph::Graph;
use crate::model::waiver::{self, Waiver};
use crate::model::workflow::FOLDER;
use crate::model::world::{App, World};

/// One rule of the repository.
pub(crate) struct Rule {
    pub(crate) code: &'static str,
    /// What must hold, as a sentence.
    pub(crate) about: &'static str,
    /// What happens where it does not.
    pub(crate) why: &'static str,
    /// A change to the repository of the examples that breaks it: file, what stands there, what comes instead.
    pub(crate) breaks: (&'static str, &'static str, &'static str),
    pub(crate) check: fn(&World, &mut Vec<Finding>),
}

/// Every rule, family by family.
pub(crate) fn rules() -> impl Iterator<Item = &'static Rule> {
    [
        schema::RULES,
        images::RULES,
        published::RULES,
        runtime::RULES,
        objects::RULES,
        workloads::RULES,
        applications::RULES,
        secrets::RULES,
        plan::RULES,
        databases::RULES,
        network::RULES,
        monitoring::RULES,
        hosts::RULES,
        calls::RULES,
        docs::RULES,
        blocks::RULES,
    ]
    .into_iter()
    .flatten()
}

/// What is found before any rule runs: code, what it says, what happens.
pub(crate) const OTHERS: &[(&str, &str, &str)] = &[
    ("yaml-syntax", "A file that says it is YAML is YAML.", "Nothing in it can be read, here or by what it is for."),
    ("toml-syntax", ".mise.toml is TOML.", "mise refuses to run any task."),
    ("app-render", "What an Application deploys renders.", "ArgoCD reports a comparison error and deploys nothing."),
    ("kustomization-image-name", "An entry of images has a name.", "kustomize changes no image by it."),
    ("tool-missing", "Every program that is needed is installed.", "What it would have told is not checked."),
    ("registry-silent", "With --online: the registry answers.", "Whether the pinned images exist is not known."),
    ("waiver-reason", "A waiver says why.", "Nobody knows when it may go."),
    ("waiver-unused", "A waiver waives something.", "It hides the next finding of its rule, which is a new one."),
];

/// What a code stands for, and what happens where it does not hold.
pub(crate) fn meaning(code: &str) -> Option<(&'static str, &'static str)> {
    let rule = rules().find(|rule| rule.code == code).map(|rule| (rule.about, rule.why));
    let others = || OTHERS.iter().chain(parity::CODES);
    rule.or_else(|| others().find(|(other, ..)| *other == code).map(|&(_, about, why)| (about, why)))
}

/// How many references were followed to what they name: between what is deployed, and from pages.
pub(crate) fn references(world: &World) -> usize {
    let apps: Vec<&App> = world.apps.iter().collect();
    Graph::of(world, &apps).edges.len() + docs::resolved(world)
}

/// What the rules would look at and can't know, each with the reason.
pub(crate) fn not_checked(world: &World) -> Vec<String> {
    let unneeded = unjudged(world);
    let waivers = (unneeded > 0)
        .then(|| format!("whether {unneeded} waivers are needed: what they speak of is not here, or not all of it"));
    let more = [
        network::unknown_home_page(world),
        images::unbuilt(world),
        docs::unknown_paths(world),
        calls::unknown(world),
        waivers,
    ]
    .into_iter()
    .flatten();
    runtime::unread(world).into_iter().chain(more).chain(missing_parts(world)).collect()
}

/// Parts of a repository of this layout that are not here, each with what is not checked for that reason.
fn missing_parts(world: &World) -> Vec<String> {
    let has = |folder: &str| world.repo.files.iter().any(|file| file.path.starts_with(folder));
    let parts = [
        ("manifests", !world.apps.is_empty(), "no Application is here that deploys them"),
        ("hosts, Caddy and backups", has("ansible/"), "there is no ansible/"),
        ("documentation", has("docs/"), "there is no docs/"),
        ("workflows", has(FOLDER), "there is no .forgejo/workflows/"),
        ("tasks", has(".mise.toml"), "there is no .mise.toml"),
        ("what is outside of the repository", has(config::PATH), "there is no xtask/blumeops.toml that says it"),
    ];
    let missing = parts.into_iter().filter(|(_, is_here, _)| !is_here);
    missing.map(|(what, _, why)| format!("{what}: {why}")).collect()
}

/// Every waiver: of the files, then of the configuration.
fn waivers(world: &World) -> Vec<Waiver> {
    let files = world.repo.files.iter().flat_map(Waiver::of_file);
    files.chain(world.repo.config.waivers.iter().cloned()).collect()
}

/// Is everything here that could need the waiver? Only then that nothing does means something.
fn is_judged(world: &World, waiver: &Waiver) -> bool {
    let folder = waiver.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let below = |path: &str, folder: &str| {
        folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let is_here = world.facts.paths.iter().any(|path| below(path, folder));
    if !waiver.path.starts_with("argocd/") {
        return is_here && (world.knows_all() || !NEEDING_ALL.contains(&waiver.rule.as_str()));
    }
    let speaks_of = |app: &App| {
        let inputs = app.path.as_deref().map(|path| world.repo.inputs(path)).unwrap_or_default();
        inputs.iter().any(|input| below(input, &waiver.path))
    };
    is_here && !world.apps.is_empty() && world.apps.iter().filter(|app| speaks_of(app)).all(|app| app.is_whole)
}

/// Rules that find something outside of `argocd/` by what is in it.
const NEEDING_ALL: [&str; 5] = ["caddy-backend", "doc-card", "secret-plan", "database-backup", "op-reference"];

/// How many waivers can't be judged.
fn unjudged(world: &World) -> usize {
    waivers(world).iter().filter(|waiver| !is_judged(world, waiver)).count()
}

/// What a check comes to.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) findings: Vec<Finding>,
    pub(crate) rules: usize,
    pub(crate) waived: usize,
    /// The codes of rules that ran and found nothing, waived or not.
    pub(crate) clean: BTreeSet<&'static str>,
}

/// Runs the rules that `wanted` takes, and leaves out what is waived.
pub(crate) fn run(world: &World, wanted: impl Fn(&Rule) -> bool) -> Checked {
    let mut findings: Vec<Finding> = world.repo.findings.iter().chain(&world.findings).cloned().collect();
    let mut ran = BTreeSet::new();
    let rules_wanted: Vec<&Rule> = rules().filter(|rule| wanted(rule)).collect();
    ran.extend(rules_wanted.iter().map(|rule| rule.code));
    findings.extend(found(world, &rules_wanted));
    let waivers = waivers(world);
    let mut used = vec![false; waivers.len()];
    let broken: BTreeSet<&str> = findings.iter().map(|finding| finding.code).collect();
    let before = findings.len();
    findings.retain(|finding| {
        let mut waived = false;
        for (waiver, used) in waivers.iter().zip(&mut used).filter(|(waiver, _)| waiver.covers(finding)) {
            *used = true;
            waived |= !waiver.reason.is_empty();
        }
        !waived
    });
    let waived = before - findings.len();
    for (waiver, used) in waivers.iter().zip(used) {
        let code = waiver.rule.as_str();
        if waiver.reason.is_empty() {
            findings.push(
                Finding::error("waiver-reason", format!("{code} is waived without a reason")).at(waiver.place.clone()),
            );
        } else if !used && is_ours(&ran, code) && is_judged(world, waiver) {
            let finding = Finding::error("waiver-unused", format!("nothing here breaks {code}"));
            findings.push(finding.at(waiver.place.clone()).fixed_by(waiver::removal(waiver)));
        }
    }
    sort(&mut findings);
    Checked {
        findings,
        rules: ran.len(),
        waived,
        clean: ran.into_iter().filter(|code| !broken.contains(code)).collect(),
    }
}

/// Did it run, or is it no rule at all?
fn is_ours(ran: &BTreeSet<&str>, code: &str) -> bool {
    ran.contains(code) || !rules().any(|rule| rule.code == code)
}

/// What rules find, one half of them beside the other: none knows of another.
fn found(world: &World, rules: &[&Rule]) -> Vec<Finding> {
    let work = |rules: Vec<&&Rule>| {
        let mut findings = Vec::new();
        for rule in rules {
            (rule.check)(world, &mut findings);
        }
        findings
    };
    let half = |odd: usize| rules.iter().skip(odd).step_by(2).collect();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| work(half(1)));
        let mut findings = work(half(0));
        match other.join() {
            Ok(others) => findings.extend(others),
            Err(panic) => std::panic::resume_unwind(panic),
        }
        findings
    })
}

/// By place, each once.
fn sort(findings: &mut Vec<Finding>) {
    let key = |finding: &Finding| {
        let place = finding.place.as_ref().map(|place| (place.source.path.clone(), place.start));
        (place, finding.code, finding.message.clone())
    };
    findings.sort_by_key(key);
    findings.dedup_by_key(|finding| key(finding));
    findings.retain(|finding| finding.severity != Severity::Note);
}
