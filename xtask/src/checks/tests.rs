//! Every rule against a small repository: as it stands it breaks none, and each rule's own change breaks that rule.

use std::collections::BTreeMap;

use super::{rules, run};
use crate::model::grammar::{Grammar, Opt};
use crate::model::repo::Repo;
use crate::model::source::Source;
use crate::model::world::{Facts, Rendered, World};

/// A repository in which every rule has something to look at.
pub(crate) const REPOSITORY: &str = include_str!("examples.txt");

/// Files of [`REPOSITORY`]: path to text.
fn files() -> BTreeMap<String, String> {
    let parts = REPOSITORY.split("//- ").skip(1);
    parts
        .map(|part| part.split_once('\n').map(|(path, text)| (path.trim().to_owned(), text.to_owned())).unwrap())
        .collect()
}

/// What kustomize would make of it, for what the examples use: the listed files, the namespace, the tags.
fn render(folder: &str, files: &BTreeMap<String, String>) -> String {
    let kustomization = &files[&format!("{folder}/kustomization.yaml")];
    let field =
        |line: &str, key: &str| line.trim().trim_start_matches("- ").strip_prefix(key).map(|v| v.trim().to_owned());
    let namespace = kustomization.lines().find_map(|line| field(line, "namespace:"));
    let mut text = String::new();
    for name in kustomization.lines().filter_map(|line| line.strip_prefix("  - ")) {
        if let Some(file) = files.get(&format!("{folder}/{name}")) {
            text += &format!("---\n{file}");
        }
    }
    let lines: Vec<&str> = kustomization.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let tag = lines.get(at + 1).and_then(|next| field(next, "newTag:"));
        if let (Some(image), Some(tag)) = (field(line, "name:"), tag) {
            text = text.replace(&format!("{image}:kustomized"), &format!("{image}:{tag}"));
        }
    }
    match namespace {
        Some(namespace) => text.replace("metadata: {name:", &format!("metadata: {{namespace: {namespace}, name:")),
        None => text,
    }
}

/// A tool with one command.
fn grammar() -> Grammar {
    let since = Opt { takes_value: true, values: Vec::new() };
    let check = Grammar { options: [("--since".to_owned(), since)].into(), ..Grammar::default() };
    Grammar { commands: [("check".to_owned(), check)].into(), ..Grammar::default() }
}

fn world(files: &BTreeMap<String, String>) -> World {
    let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
    let folders = files.keys().filter_map(|path| path.strip_suffix("/kustomization.yaml"));
    let rendered = folders
        .map(|folder| (folder.to_owned(), Rendered::Text(Source::new(folder, &render(folder, files)))))
        .collect();
    let tags = ["web-v1.0.0", "web-v0.9.0"].map(|tag| tag.parse().unwrap()).into_iter().collect();
    let pin = ("blumeops/web".to_owned(), "v1.0.0-nix".to_owned());
    let published = BTreeMap::from([(pin, Some(crate::model::digest::Digest::of(b"web")))]);
    let paths = files.keys().cloned().chain(["xtask/src/cli.rs".to_owned()]).collect();
    let facts = Facts { paths, tags: Some(tags), rendered, published, grammar: Some(grammar()), is_decoded: false };
    World::new(Repo::load(sources).unwrap(), facts)
}

fn shown(files: &BTreeMap<String, String>) -> Vec<String> {
    let show = |finding: &crate::model::finding::Finding| {
        let place = finding.place.as_ref().map_or_else(String::new, ToString::to_string);
        format!("{} {place} {}", finding.code, finding.message)
    };
    run(&world(files), |_| true).findings.iter().map(show).collect()
}

#[test]
fn what_is_asked_from_outside_needs_no_probe() {
    let without = |probe: &str| {
        let mut files = files();
        let text = files.get_mut("argocd/manifests/web/deployment.yaml").unwrap();
        let shorter = text.replacen(probe, "", 1);
        assert_ne!(shorter, *text);
        *text = shorter;
        files
    };
    // Through its Ingress, by its name in the tailnet or by Caddy's host.
    let mut files = without("          readinessProbe: {httpGet: {path: /, port: http}}\n");
    assert_eq!(shown(&files), Vec::<String>::new());
    let ingress = files.get_mut("argocd/manifests/web/ingress.yaml").unwrap();
    *ingress = ingress.replace("tls: [{hosts: [web]}]", "tls: []");
    assert!(shown(&files).iter().any(|text| text.starts_with("app-health ")), "{:?}", shown(&files));
    // As the configuration says.
    let mut files = without("          readinessProbe: {exec: {command: [side, ping]}}\n");
    assert!(shown(&files).iter().any(|text| text.starts_with("app-health ")), "{:?}", shown(&files));
    let config = files.get_mut("xtask/blumeops.toml").unwrap();
    config.push_str("\n[[checks]]\nname = \"web-health\"\nurl = \"https://web.ops.example/\"\n");
    assert_eq!(shown(&files), Vec::<String>::new());
}

#[test]
fn a_port_is_used_by_its_name() {
    let uses = crate::model::port::uses(&world(&files()), "8000");
    let shown: Vec<String> = uses.iter().map(|(place, text)| format!("{} {text}", place.source.path)).collect();
    for used in [
        "argocd/manifests/web/deployment.yaml http",
        "argocd/manifests/web/service.yaml http",
        "argocd/manifests/web/ingress.yaml http",
        "ansible/roles/caddy/defaults/main.yml web.ops.example",
    ] {
        assert!(shown.iter().any(|text| text.starts_with(used)), "no {used} in {shown:?}");
    }
    assert!(crate::model::port::uses(&world(&files()), "8001").is_empty());
}

#[test]
fn the_example_breaks_no_rule() {
    assert_eq!(shown(&files()), Vec::<String>::new());
    assert!(world(&files()).objects().count() > 10);
}

#[test]
fn every_rule_finds_what_breaks_it() {
    for rule in rules() {
        let (path, from, to) = rule.breaks;
        let mut files = files();
        let text = files[path].clone();
        assert!(text.contains(from), "{}: {path} does not contain {from}", rule.code);
        match to {
            to if to.starts_with("//RENAME ") => {
                drop(files.remove(path).map(|text| files.insert(to[9..].to_owned(), text)));
            }
            "//GONE" => drop(files.remove(path)),
            to if to.contains("//TWIN") => drop(files.insert("docs/reference/how-to.md".to_owned(), text)),
            to => drop(files.insert(path.to_owned(), text.replacen(from, to, 1))),
        }
        let found = shown(&files);
        assert!(
            found.iter().any(|finding| finding.starts_with(&format!("{} ", rule.code))),
            "{}: {found:?}",
            rule.code
        );
    }
}

#[test]
fn findings_point_to_where_it_is_written() {
    let mut files = files();
    let path = "argocd/manifests/web/service.yaml";
    let text = files[path].replace("targetPort: http", "targetPort: htpp");
    files.insert(path.to_owned(), text);
    assert_eq!(
        shown(&files),
        ["service-port argocd/manifests/web/service.yaml:6:46 the pods of Service web have no port htpp"]
    );
}

#[test]
fn waivers_need_a_reason_and_a_use() {
    let with = |comment: &str| {
        let mut files = files();
        let text = files["argocd/apps/web.yaml"].replace("main", &format!("topic # {comment}"));
        files.insert("argocd/apps/web.yaml".to_owned(), text);
        shown(&files)
    };
    assert_eq!(with("waive app-revision: until it is merged"), Vec::<String>::new());
    assert_eq!(with("waive app-revision").len(), 2);
    assert!(with("waive app-path: why not").iter().any(|finding| finding.starts_with("waiver-unused")));
    assert!(with("waive no-such-rule: why not").iter().any(|finding| finding.starts_with("waiver-unused")));
}

#[test]
fn codes_are_unique_and_every_rule_says_why() {
    let mut codes: Vec<&str> = rules().map(|rule| rule.code).collect();
    codes.sort_unstable();
    let count = codes.len();
    codes.dedup();
    assert_eq!(codes.len(), count);
    assert!(rules().all(|rule| rule.about.ends_with('.') && rule.why.ends_with('.')));
}

proptest::proptest! {
    /// Lines lost, doubled and cut off: whatever comes of it, the rules end with findings.
    #[test]
    fn no_damage_makes_a_rule_panic(cuts in proptest::collection::vec((0usize..400, 0u8..3, 0usize..40), 1..12)) {
        let mut lines: Vec<String> = REPOSITORY.lines().map(str::to_owned).collect();
        for (at, kind, column) in cuts {
            let at = at % lines.len();
            match kind {
                0 if !lines[at].starts_with("//-") => drop(lines.remove(at)),
                1 if !lines[at].starts_with("//-") => lines.insert(at, lines[at].clone()),
                _ if !lines[at].starts_with("//-") => lines[at] = lines[at].chars().take(column).collect(),
                _ => {}
            }
        }
        let text = lines.join("\n") + "\n";
        let parts = text.split("//- ").skip(1).filter_map(|part| part.split_once('\n'));
        let files: BTreeMap<String, String> =
            parts.map(|(path, text)| (path.trim().to_owned(), text.to_owned())).filter(|(path, _)| path != "xtask/blumeops.toml").collect();
        for finding in run(&world(&files), |_| true).findings {
            assert!(finding.place.is_none_or(|place| place.end <= place.source.text.len()));
        }
    }
}
