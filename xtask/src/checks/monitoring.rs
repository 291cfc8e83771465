//! Monitoring: what has metrics is scraped, and dashboards show what is.

use std::collections::BTreeSet;

use super::Rule;
use crate::model::finding::Finding;
use crate::model::world::{Object, Ref, World};

const SCRAPES: &str = "argocd/manifests/web/scrapes.yaml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "metrics-scraped",
        about: "A Service's port called metrics is the target of a scrape.",
        why: "It is written and never read; the alert on it never fires.",
        breaks: (SCRAPES, "web.web.svc.cluster.local:9300", "web.web.svc.cluster.local:9301"),
        check: scraped,
    },
    Rule {
        code: "dashboard-job",
        about: "A dashboard asks for jobs that are scraped.",
        why: "Its panels stay empty, which looks like silence.",
        breaks: (SCRAPES, "up{job=\"web\"}", "up{job=\"wep\"}"),
        check: dashboard,
    },
];

/// The texts of all objects in which scrapes are configured.
pub(crate) fn configurations(world: &World) -> Vec<&str> {
    let mut texts = Vec::new();
    for (_, object) in world.objects().filter(|(_, object)| object.kind == "ConfigMap") {
        object.root().scalars(&mut |value: Ref<'_>| texts.extend(value.text()));
    }
    texts.retain(|text| text.contains("scrape"));
    texts
}

fn scraped(world: &World, findings: &mut Vec<Finding>) {
    // What is scraped may stand in the values of a chart.
    if !world.knows_all() {
        return;
    }
    let configurations = configurations(world);
    for (_, service) in world.objects().filter(|(_, object)| object.kind == "Service") {
        let ports = service.at(&["spec", "ports"]).map_or_else(Vec::new, Ref::items);
        let annotated = service.at(&["metadata", "annotations", "prometheus.io/scrape"]).is_some();
        for port in ports.into_iter().filter(|port| port.text_at(&["name"]) == Some("metrics")) {
            let number = port.text_at(&["port"]).unwrap_or_default();
            let mut names = vec![
                format!("{}.{}.svc", service.name, service.namespace),
                format!("{}.{}:", service.name, service.namespace),
            ];
            let published = service.at(&["metadata", "annotations", "tailscale.com/hostname"]).and_then(Ref::text);
            names.extend(published.map(|name| format!("{name}.")));
            let ours = |text: &&str| {
                names.iter().any(|name| {
                    text.split(char::is_whitespace)
                        .any(|word| word.contains(name) && word.contains(&format!(":{number}")))
                })
            };
            // Who has no scrape configuration in the repository scrapes in another way.
            if !configurations.is_empty() && !annotated && !configurations.iter().any(ours) {
                let message = format!("nothing scrapes {}.{}:{number}", service.name, service.namespace);
                findings.push(Finding::error("metrics-scraped", message).at(port.place()));
            }
        }
    }
}

/// The names behind `marker`, up to the next quote or blank.
fn words<'a>(text: &'a str, marker: &str) -> Vec<&'a str> {
    let rest = text
        .match_indices(marker)
        .map(|(at, _)| text[at + marker.len()..].trim_start_matches([' ', '=', '"', '\\', ':']));
    rest.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && !"-_./".contains(c)).next())
        .filter(|word| !word.is_empty())
        .collect()
}

fn dashboard(world: &World, findings: &mut Vec<Finding>) {
    let is_dashboard = |object: &Object| object.at(&["metadata", "labels", "grafana_dashboard"]).is_some();
    for (app, object) in world.objects().filter(|(_, object)| is_dashboard(object)) {
        for (name, value) in object.at(&["data"]).map_or_else(Vec::new, Ref::entries) {
            let text = value.text().filter(|_| name.rsplit('.').next() == Some("json")).unwrap_or("{}");
            if let Err(why) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
                let line = text.lines().nth(why.line().saturating_sub(1)).map(str::trim).filter(|line| line.len() > 3);
                let finding = Finding::error("dashboard-job", format!("{name} is not JSON: {why}"));
                findings.push(finding.at(world.place_of(app, value, line.unwrap_or(name))));
            }
        }
    }
    let jobs: BTreeSet<&str> = configurations(world).into_iter().flat_map(|text| words(text, "job_name")).collect();
    for (app, object) in world.objects().filter(|_| !jobs.is_empty() && world.knows_all()) {
        if !is_dashboard(object) {
            continue;
        }
        object.root().scalars(&mut |value: Ref<'_>| {
            for job in value.text().map_or_else(Vec::new, |text| words(text, "{job=")) {
                if !jobs.contains(job) {
                    let finding = Finding::error("dashboard-job", format!("no scrape is called {job}"));
                    let finding = finding.at(world.place_of(app, value, job));
                    findings.push(finding.did_you_mean(job, jobs.iter().copied()));
                }
            }
        });
    }
}
