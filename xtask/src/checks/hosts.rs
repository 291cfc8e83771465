//! Provisioning and tasks: playbooks, tags and task names that exist.

use std::collections::BTreeSet;

use super::Rule;
use crate::model::finding::Finding;
use crate::model::source::Source;
use crate::model::world::{World, is_yaml};
use crate::model::yaml::{self, Node};

const PLAYBOOK: &str = "ansible/playbooks/indri.yml";

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "playbook-role",
        about: "A playbook names roles that exist.",
        why: "ansible-playbook ends before it has done anything.",
        breaks: (PLAYBOOK, "role: caddy", "role: cady"),
        check: role,
    },
    Rule {
        code: "playbook-host",
        about: "A playbook's hosts are in the inventory.",
        why: "It runs for nobody and ends well.",
        breaks: (PLAYBOOK, "hosts: indri", "hosts: indrii"),
        check: host,
    },
    Rule {
        code: "playbook-tag",
        about: "A tag that a page tells to use is one of a playbook.",
        why: "Nothing is done, and it looks done.",
        breaks: ("docs/how-to/how-to.md", "--tags caddy", "--tags cady"),
        check: tag,
    },
    Rule {
        code: "ansible-variable",
        about: "A variable that bears its role's name has a value.",
        why: "The play ends in the middle: the variable is undefined.",
        breaks: ("ansible/roles/caddy/templates/Caddyfile.j2", "{{ caddy_domain }}", "{{ caddy_domian }}"),
        check: variable,
    },
    Rule {
        code: "mise-task",
        about: "A task that a page or workflow runs is defined.",
        why: "The reader is left with an error at the worst time.",
        breaks: ("docs/how-to/how-to.md", "mise run provision-indri", "mise run provision-indry"),
        check: task,
    },
];

/// The plays of all playbooks.
pub(crate) fn plays(world: &World) -> Vec<(&Source, Node)> {
    let files = world.repo.files.iter().filter(|file| file.folder() == "ansible/playbooks" && is_yaml(&file.path));
    let plays = files.flat_map(|file| {
        let documents = yaml::parse(file).unwrap_or_default();
        documents.iter().flat_map(Node::items).cloned().map(move |play| (file, play)).collect::<Vec<_>>()
    });
    plays.filter(|(_, play)| play.get("hosts").is_some()).collect()
}

fn role(world: &World, findings: &mut Vec<Finding>) {
    let paths = world.facts.paths.iter().filter_map(|path| path.strip_prefix("ansible/roles/")?.split('/').next());
    let known: BTreeSet<&str> = paths.collect();
    for (file, play) in plays(world) {
        for role in play.get("roles").map_or(&[][..], Node::items) {
            let name = role.get("role").or(role.get("name")).unwrap_or(role);
            // A role of a collection has dots in its name.
            let Some(text) = name.text().filter(|text| !text.contains(['.', '{'])) else { continue };
            if !known.contains(text) {
                let finding = Finding::error("playbook-role", format!("there is no role {text}")).at(name.place(file));
                findings.push(finding.did_you_mean(text, known.iter().copied()));
            }
        }
    }
}

/// Hosts and groups of a YAML inventory.
fn inventory(node: &Node, names: &mut BTreeSet<String>) {
    node.walk(&mut |key, value| {
        if let (Some("hosts" | "children"), yaml::Value::Mapping(entries)) = (key.text(), &value.value) {
            names.extend(entries.iter().filter_map(|(name, _)| name.text()).map(str::to_owned));
        }
    });
}

fn host(world: &World, findings: &mut Vec<Finding>) {
    let mut known = BTreeSet::new();
    for file in world.repo.files.iter().filter(|file| file.path.starts_with("ansible/inventory") && is_yaml(&file.path))
    {
        yaml::parse(file).unwrap_or_default().iter().for_each(|document| inventory(document, &mut known));
    }
    // An inventory of another kind is not read.
    for (file, play) in plays(world).into_iter().filter(|_| !known.is_empty()) {
        let Some(hosts) = play.get("hosts") else { continue };
        let text = hosts.text().unwrap_or_default();
        for name in text.split([',', ':']).map(|name| name.trim().trim_start_matches(['!', '&'])) {
            let given = ["all", "localhost", ""].contains(&name) || name.contains(['*', '{', '[']);
            if !given && !known.contains(name) {
                let finding =
                    Finding::error("playbook-host", format!("the inventory has no {name}")).at(hosts.place(file));
                findings.push(finding.did_you_mean(name, known.iter().map(String::as_str)));
            }
        }
    }
}

/// What stands behind `marker` in pages and workflows, up to the next blank, with its place.
fn used<'a>(world: &'a World, marker: &str) -> Vec<(&'a str, crate::model::source::Place)> {
    let mut found = Vec::new();
    let is_reader = |file: &&Source| {
        (file.path.starts_with("docs/") && !file.path.contains("/plans/") && !file.path.contains("changelog.d"))
            || file.path.starts_with(".forgejo/")
            || &*file.path == "README.md"
    };
    for file in world.repo.files.iter().filter(is_reader) {
        for (at, _) in file.text.match_indices(marker) {
            let start = at + marker.len();
            let rest = &file.text[start..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && !"-_,:".contains(c)).unwrap_or(rest.len());
            if end > 0 {
                found.push((&rest[..end], file.place(start, start + end)));
            }
        }
    }
    found
}

fn tag(world: &World, findings: &mut Vec<Finding>) {
    let mut known = BTreeSet::new();
    for file in world.repo.files.iter().filter(|file| file.path.starts_with("ansible/") && is_yaml(&file.path)) {
        for document in yaml::parse(file).unwrap_or_default() {
            document.walk(&mut |key, value| {
                if key.text() == Some("tags") {
                    known.extend(value.items().iter().filter_map(Node::text).chain(value.text()).map(str::to_owned));
                }
            });
        }
    }
    for (tags, place) in used(world, "--tags ").into_iter().filter(|_| !known.is_empty()) {
        for tag in tags.split(',').filter(|tag| !known.contains(*tag) && !["all", "always", "never"].contains(tag)) {
            let finding = Finding::error("playbook-tag", format!("no playbook has the tag {tag}")).at(place.clone());
            findings.push(finding.did_you_mean(tag, known.iter().map(String::as_str)));
        }
    }
}

/// The names in `{{ … }}` and `{% … %}` that begin with `prefix`, each with where it stands.
fn names<'a>(file: &'a Source, prefix: &str) -> Vec<(&'a str, usize)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found = file.text.match_indices(prefix).filter(|(at, _)| {
        let before = &file.text[..*at];
        let open = before.rfind("{{").max(before.rfind("{%"));
        let shut = before.rfind("}}").max(before.rfind("%}"));
        let is_start = !before.ends_with(|c: char| is_name(c) || ".'\"".contains(c));
        is_start && open.is_some_and(|open| shut.is_none_or(|shut| shut < open))
    });
    found
        .map(|(at, _)| {
            let rest = &file.text[at..];
            (&rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())], at)
        })
        .collect()
}

fn variable(world: &World, findings: &mut Vec<Finding>) {
    let below = |file: &&Source| file.path.starts_with("ansible/");
    // Whatever stands in front of a colon may be a variable, and whatever a task registers or a loop is called.
    let mut given = BTreeSet::new();
    for file in world.repo.files.iter().filter(below).filter(|file| is_yaml(&file.path)) {
        for document in yaml::parse(file).unwrap_or_default() {
            let mut entry = |key: &Node, value: &Node| {
                given.extend(key.text().map(str::to_owned));
                if matches!(key.text(), Some("register" | "loop_var" | "index_var")) {
                    given.extend(value.text().map(str::to_owned));
                }
            };
            document.walk(&mut entry);
            document.items().iter().for_each(|item| item.walk(&mut entry));
        }
    }
    let broken = world.repo.files.iter().filter(below).filter(|file| is_yaml(&file.path) && file.documents().is_err());
    let role = |file: &Source| file.path.match_indices('/').nth(2).map(|(at, _)| file.path[..=at].to_owned());
    let broken: Vec<String> = broken.filter_map(role).collect();
    for file in world.repo.files.iter().filter(below) {
        let Some(role) = file.path.strip_prefix("ansible/roles/").and_then(|path| path.split('/').next()) else {
            continue;
        };
        // What is given in a file that is no YAML is not known.
        if broken.iter().any(|folder| file.path.starts_with(folder)) {
            continue;
        }
        let prefix = format!("{}_", role.replace('-', "_"));
        let own = names(file, &prefix);
        for (name, at) in own {
            let rest = file.text[at + name.len()..].trim_start();
            // With a default, or set right here, it needs no value.
            let is_fine = given.contains(name)
                || rest.starts_with(['=', '('])
                || rest.starts_with("| default")
                || rest.starts_with("|default")
                || rest.starts_with("is ");
            let is_local = ["for ", "set ", "macro "].iter().any(|word| file.text.contains(&format!("{word}{name}")));
            if !is_fine && !is_local {
                let finding = Finding::error("ansible-variable", format!("{name} has no value anywhere"));
                let known: Vec<&str> =
                    given.iter().map(String::as_str).filter(|known| known.starts_with(&prefix)).collect();
                findings.push(finding.at(file.place(at, at + name.len())).did_you_mean(name, known));
            }
        }
    }
}

fn task(world: &World, findings: &mut Vec<Finding>) {
    let Some(file) = world.repo.files.iter().find(|file| &*file.path == ".mise.toml") else { return };
    let Ok(table) = file.text.parse::<toml::Table>() else { return };
    let tasks = table.get("tasks").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys).cloned();
    let scripts = world.facts.paths.iter().filter_map(|path| path.strip_prefix("mise-tasks/"));
    let known: BTreeSet<String> = tasks.chain(scripts.map(|script| script.replace('/', ":"))).collect();
    for (name, place) in used(world, "mise run ") {
        if !known.contains(name) {
            let finding = Finding::error("mise-task", format!("there is no task {name}")).at(place);
            findings.push(finding.did_you_mean(name, known.iter().map(String::as_str)));
        }
    }
}
