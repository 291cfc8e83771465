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

use crate::model::finding::{Finding, Severity};
use crate::model::waiver::{self, Waiver};
use crate::model::world::World;

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

/// What the rules would look at and can't know, each with the reason.
pub(crate) fn not_checked(world: &World) -> Vec<String> {
    runtime::unread(world).into_iter().chain(network::unknown_home_page(world)).collect()
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
    let files = world.repo.files.iter().flat_map(Waiver::of_file);
    let waivers: Vec<Waiver> = files.chain(world.repo.config.waivers.iter().cloned()).collect();
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
        } else if !used && (ran.contains(code) || !rules().any(|rule| rule.code == code)) {
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
