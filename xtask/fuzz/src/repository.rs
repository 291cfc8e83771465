//! Whole repositories: a file of any kind wherever files of that kind are, and every rule on what comes of it.

use std::sync::OnceLock;

use crate::assert_within;
use crate::model::ansible::playbooks;
use crate::model::config::{Config, PATH};
use crate::model::finding::Finding;
use crate::model::fix::repairs;
use crate::model::image::Home;
use crate::model::repo::Repo;
use crate::model::source::Source;
use crate::model::world::{Facts, Rendered, World};
use crate::model::{trial, upstream, uses};
use crate::probes::{expect, plan};
use crate::{checks, model::names};

/// The repository of the rules' examples.
const EXAMPLES: &str = include_str!("../../src/checks/examples.txt");

/// Wherever a file is that somebody parses.
const PLACES: [&str; 14] = [
    "docs/reference/services/fuzz.md",
    "docs/how-to/fuzz.md",
    "argocd/apps/fuzz.yaml",
    "argocd/manifests/web/fuzz.yaml",
    "argocd/manifests/fuzz/kustomization.yaml",
    "argocd/manifests/fuzz/prometheus.yml",
    "ansible/roles/caddy/templates/Caddyfile.j2",
    "ansible/roles/caddy/defaults/main.yml",
    "ansible/playbooks/fuzz.yml",
    "ansible/inventory/fuzz.yml",
    ".forgejo/workflows/fuzz.yaml",
    ".mise.toml",
    "containers/web/default.nix",
    "README.md",
];

pub(crate) fn text(text: &str) {
    configuration(text);
    let files: Vec<Source> = examples().iter().cloned().chain(PLACES.map(|path| Source::new(path, text))).collect();
    let mut facts = Facts { paths: files.iter().map(|file| file.path.to_string()).collect(), ..Facts::default() };
    for folder in ["argocd/manifests/fuzz", "argocd/manifests/web"] {
        facts.rendered.insert(folder.to_owned(), Rendered::Text(Source::new(folder, text)));
    }
    let Ok(repo) = Repo::load(files) else { panic!("the configuration of the examples is read") };
    let world = World::new(repo, facts);
    let checked = checks::run(&world, |_| true);
    within(&checked.findings);
    for repair in repairs(&checked.findings) {
        assert_ne!(repair.text, *repair.source.text);
    }
    drop((checks::not_checked(&world), checks::references(&world), expect::all(&world)));
    for name in plan::names(&world) {
        drop(plan::drafts(&world, name));
    }
    upstream::all(&world.repo).iter().for_each(|upstream| assert_within(&upstream.place));
    names::served(&world, "web").iter().for_each(|(_, place)| assert_within(place));
    let home = Home { host: "registry.example".to_owned(), namespace: "blumeops".to_owned() };
    drop(uses::of_repository(&world.repo, &home, ""));
    drop((playbooks(&world.repo), trial::of(&world, "registry.example/blumeops/web", None)));
}

fn examples() -> &'static [Source] {
    static FILES: OnceLock<Vec<Source>> = OnceLock::new();
    FILES.get_or_init(|| {
        let parts = EXAMPLES.split("//- ").skip(1).filter_map(|part| part.split_once('\n'));
        let files = parts.map(|(path, text)| Source::new(path.trim(), text));
        files.filter(|file| !PLACES.contains(&&*file.path)).collect()
    })
}

fn configuration(text: &str) {
    match Config::parse(Some(&Source::new(PATH, text))) {
        Ok(config) => config.waivers.iter().for_each(|waiver| assert_within(&waiver.place)),
        Err(finding) => within(std::slice::from_ref(&finding)),
    }
}

fn within(findings: &[Finding]) {
    for finding in findings {
        let edit = finding.fix.iter().map(|edit| &edit.place);
        let other = finding.other.iter().map(|other| &other.0);
        finding.place.iter().chain(other).chain(edit).for_each(assert_within);
        assert!(!finding.message.is_empty());
    }
}
