//! Documentation: links, frontmatter and paths that hold, cards that agree with what is deployed.

use std::collections::{BTreeMap, BTreeSet};

use super::{Rule, network};
use crate::model::config;
use crate::model::finding::Finding;
use crate::model::fix::Edit;
use crate::model::source::{Place, Source};
use crate::model::world::World;
use crate::model::yaml::{self, Node};

const CARD: &str = "docs/reference/web.md";

/// Folders of the repository that documentation names files in.
const FOLDERS: [&str; 6] = ["argocd/", "ansible/", "containers/", "docs/", "xtask/", ".forgejo/"];

/// What towncrier sorts changes by.
const CHANGES: [&str; 6] = ["feature", "bugfix", "infra", "doc", "ai", "misc"];

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[
    Rule {
        code: "doc-link",
        about: "A wiki-link names a page that exists.",
        why: "The reader ends nowhere.",
        breaks: ("docs/reference/reference.md", "[[web]]", "[[wep]]"),
        check: link,
    },
    Rule {
        code: "doc-name",
        about: "A page's file name is unique.",
        why: "A link to it means one of two.",
        breaks: ("docs/how-to/how-to.md", "tags: [how-to]\n---\n", "tags: [how-to]\n---\n//TWIN\n"),
        check: name,
    },
    Rule {
        code: "doc-frontmatter",
        about: "A page has a title, the date it was modified, and tags.",
        why: "The site shows it without a name and finds it by nothing.",
        breaks: (CARD, "modified: 2026-11-24\n", "modified: yesterday\n"),
        check: frontmatter,
    },
    Rule {
        code: "doc-index",
        about: "Each folder of pages has a page named after it.",
        why: "The site has no way into it.",
        breaks: ("docs/reference/reference.md", "title: Reference", "//GONE"),
        check: index,
    },
    Rule {
        code: "doc-unlisted",
        about: "A page is linked from the index page of its folder, where most pages are.",
        why: "Nobody comes upon it.",
        breaks: ("docs/reference/reference.md", "- [[web]]\n", ""),
        check: unlisted,
    },
    Rule {
        code: "doc-path",
        about: "A path in a code span exists.",
        why: "It was renamed, and the page was left behind.",
        breaks: (CARD, "`argocd/manifests/web/`", "`argocd/manifests/wep/`"),
        check: path,
    },
    Rule {
        code: "doc-card",
        about: "A service card names the namespace, cluster and image that are deployed.",
        why: "At night it sends its reader to the wrong cluster.",
        breaks: (CARD, "| **Cluster** | ringtail |", "| **Cluster** | indri |"),
        check: card,
    },
    Rule {
        code: "changelog-name",
        about: "A changelog fragment is named <change>.<type>.md.",
        why: "It is left out of the changelog.",
        breaks: ("docs/changelog.d/web.feature.md", "", "//RENAME docs/changelog.d/web.news.md"),
        check: changelog,
    },
];

fn pages(world: &World) -> impl Iterator<Item = &Source> {
    world.repo.files.iter().filter(|file| {
        file.path.starts_with("docs/") && file.path.ends_with(".md") && !file.path.starts_with("docs/changelog.d/")
    })
}

/// The file's name without folder and extension.
fn stem(file: &Source) -> &str {
    file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".md")
}

/// Every part of the page's prose between `open` and `close`, on one line and outside of code blocks.
fn spans<'a>(file: &'a Source, open: &str, close: &str) -> Vec<(&'a str, Place)> {
    let mut found = Vec::new();
    let (mut start, mut in_code) = (0, false);
    let first = open.chars().next().unwrap_or_default();
    for line in file.text.split_inclusive('\n') {
        in_code ^= line.trim_start().starts_with("```");
        // Most lines have none, and one character is found far sooner than a word.
        let mut at = if in_code || !line.contains(first) { line.len() } else { 0 };
        while let Some(from) = line[at..].find(open).map(|from| at + from + open.len()) {
            let Some(to) = line[from..].find(close).map(|to| from + to) else { break };
            found.push((&file.text[start + from..start + to], file.place(start + from, start + to)));
            at = to + close.len();
        }
        start += line.len();
    }
    found
}

fn link(world: &World, findings: &mut Vec<Finding>) {
    let names: BTreeSet<&str> = pages(world).map(stem).collect();
    let (right, wrong) = judged_links(world);
    // Brackets that lead nowhere on any page are no links.
    for (target, place) in wrong.into_iter().filter(|_| !right.is_empty()) {
        let finding = Finding::error("doc-link", format!("there is no page {target}")).at(place);
        findings.push(finding.did_you_mean(target, names.iter().copied()));
    }
}

/// A name that a page uses, and where.
type Named<'a> = Vec<(&'a str, Place)>;

/// The wiki-links that lead somewhere, and those that do not.
fn judged_links(world: &World) -> (Named<'_>, Named<'_>) {
    let files = world.facts.paths.iter().filter(|path| path.starts_with("docs/"));
    let files = files.filter_map(|path| path.rsplit('/').next());
    let mut known: BTreeSet<String> = pages(world).map(stem).chain(files).map(slug).collect();
    known.extend(pages(world).flat_map(aliases));
    links(world).into_iter().partition(|(target, _)| known.contains(&slug(target)))
}

/// How many links and paths of pages lead to what they name.
pub(super) fn resolved(world: &World) -> usize {
    judged_links(world).0.len() + judged_paths(world).0.len()
}

/// A name as it is part of an address: a site makes no difference between the names of one slug.
fn slug(name: &str) -> String {
    name.to_lowercase().replace(' ', "-")
}

/// The other names that a page gives itself.
fn aliases(file: &Source) -> Vec<String> {
    let Some(head) = head(file).filter(|head| head.contains("aliases:")) else { return Vec::new() };
    let documents = yaml::documents(head).unwrap_or_default();
    let aliases = documents.first().and_then(|head| head.get("aliases"));
    aliases.map_or(&[][..], Node::items).iter().filter_map(Node::text).map(slug).collect()
}

/// What wiki-links name: a page, without its folder.
fn links(world: &World) -> Vec<(&str, Place)> {
    let spans = pages(world).flat_map(|file| spans(file, "[[", "]]")).filter(|(_, place)| !is_quoted(place));
    let target = |(text, place): (_, Place)| {
        let text: &str = text;
        let target = text.split(['|', '#']).next().unwrap_or_default().trim().trim_end_matches('\\');
        (target.rsplit('/').next().unwrap_or_default(), place)
    };
    spans.map(target).filter(|(target, _)| !target.is_empty()).collect()
}

/// Does it stand in a code span?
fn is_quoted(place: &Place) -> bool {
    let before = &place.source.text[..place.start];
    before.lines().next_back().is_some_and(|line| line.matches('`').count() % 2 == 1)
}

fn name(world: &World, findings: &mut Vec<Finding>) {
    let mut seen = BTreeMap::new();
    for file in pages(world).filter(|file| stem(file) != "index") {
        if let Some(there) = seen.insert(stem(file), file) {
            let finding = Finding::error("doc-name", format!("two pages are called {}", stem(file)));
            findings.push(finding.at(file.place(0, 0)).also(there.place(0, 0), "the other one"));
        }
    }
}

/// The lines between the two `---`, and where they start.
fn head(file: &Source) -> Option<&str> {
    let text = file.text.trim_start_matches('\u{feff}');
    text.strip_prefix("---\n").or(text.strip_prefix("---\r\n"))?.split("\n---").next()
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], [year, month, day] if year.len() == 4 && month.len() == 2 && day.len() == 2)
        && parts.concat().chars().all(|c| c.is_ascii_digit())
}

fn frontmatter(world: &World, findings: &mut Vec<Finding>) {
    // A site where most pages have none does not use it.
    if pages(world).filter(|file| head(file).is_some()).count() * 2 <= pages(world).count() {
        return;
    }
    for file in pages(world) {
        let Some(head) = head(file) else {
            findings.push(Finding::error("doc-frontmatter", "the page has no frontmatter").at(file.place(0, 0)));
            continue;
        };
        if let Err((at, why)) = yaml::documents(head) {
            let at = file.text.find(head).unwrap_or(0) + at;
            let finding = Finding::error("doc-frontmatter", format!("the frontmatter is not YAML: {why}"));
            findings.push(finding.at(file.place(at, at)));
        }
        for key in ["title", "modified", "tags"] {
            let value = head.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim);
            let place = || file.find(&format!("{key}:"));
            match value {
                None => findings
                    .push(Finding::error("doc-frontmatter", format!("the page has no {key}")).at(file.place(0, 3))),
                Some(date) if key == "modified" && !is_date(date.trim_matches(['"', '\''])) => {
                    findings.push(
                        Finding::error("doc-frontmatter", format!("`{date}` is not a date as 2026-01-31")).at(place()),
                    );
                }
                Some(_) => {}
            }
        }
    }
}

fn index(world: &World, findings: &mut Vec<Finding>) {
    let mut folders = BTreeMap::<&str, Vec<&Source>>::new();
    for file in pages(world).filter(|file| file.folder() != "docs") {
        folders.entry(file.folder()).or_default().push(file);
    }
    // Where no folder has one, that is not how this site is made.
    let has = |folder: &str, files: &[&Source]| {
        let own = folder.rsplit('/').next().unwrap_or_default();
        files.iter().any(|file| stem(file) == own || stem(file) == "index")
    };
    if !folders.iter().any(|(folder, files)| has(folder, files)) {
        return;
    }
    for (folder, files) in folders.iter().filter(|(folder, files)| !has(folder, files)) {
        if let Some(file) = files.first() {
            findings.push(Finding::error("doc-index", format!("{folder} has no index page")).at(file.place(0, 0)));
        }
    }
}

/// The pages of each index: those of its folder, and the indexes of the folders in it.
fn unlisted(world: &World, findings: &mut Vec<Finding>) {
    let is_index = |file: &Source| file.folder().rsplit('/').next() == Some(stem(file));
    let (mut listed, mut missing) = (0usize, Vec::new());
    for index in pages(world).filter(|file| is_index(file)) {
        let below = |file: &Source| file.folder().rsplit_once('/').is_some_and(|(above, _)| above == index.folder());
        let is_its = |file: &&Source| {
            if file.folder() == index.folder() { file.path != index.path } else { is_index(file) && below(file) }
        };
        for page in pages(world).filter(is_its) {
            let name = stem(page);
            let ways = [format!("[[{name}]]"), format!("[[{name}|"), format!("[[{name}\\|"), format!("{name}.md)")];
            if ways.iter().any(|way| index.text.contains(way.as_str())) {
                listed += 1;
            } else {
                missing.push((index, page));
            }
        }
    }
    // Where most are not, that is not what these pages are for.
    for (index, page) in missing.iter().filter(|_| listed > missing.len()) {
        let finding = Finding::error("doc-unlisted", format!("{} does not link to {}", index.path, stem(page)));
        findings.push(finding.at(page.place(0, 0)).also(index.place(0, 0), "the index").fixed_by(entry(index, page)));
    }
}

/// An entry behind the last of a list of links; in a table there is more to say than the page's name.
fn entry(index: &Source, page: &Source) -> Option<Edit> {
    let start = index.text.rfind("[[").map(|at| index.text[..at].rfind('\n').map_or(0, |at| at + 1))?;
    let line = index.text[start..].split_inclusive('\n').next().filter(|line| line.starts_with("- [["))?;
    let end = start + line.trim_end_matches(['\r', '\n']).len();
    let title = head(page)?.lines().find_map(|line| line.strip_prefix("title:"))?.trim().trim_matches(['"', '\'']);
    let newline = if line.ends_with("\r\n") { "\r\n" } else { "\n" };
    Some(Edit::new(index.place(end, end), format!("{newline}- [[{}]]: {title}", stem(page))))
}

/// Code spans of pages that are paths of the repository: those that are there, and those that are not.
fn judged_paths(world: &World) -> (Named<'_>, Named<'_>) {
    let paths = &world.facts.paths;
    let is_path = |text: &str| {
        FOLDERS.iter().any(|folder| text.starts_with(folder))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "/.-_".contains(c))
    };
    let spans = pages(world).filter(|file| !file.path.contains("/plans/")).flat_map(|file| spans(file, "`", "`"));
    spans.filter(|(text, _)| is_path(text)).partition(|(text, _)| {
        let below = format!("{}/", text.trim_end_matches('/'));
        // The configuration need not be there: a page tells what to write into it.
        paths.contains(*text) || paths.iter().any(|path| path.starts_with(&below)) || *text == config::PATH
    })
}

fn missing_paths(world: &World) -> Named<'_> {
    judged_paths(world).1
}

/// Is nothing at all here of the part of the repository that `path` is in?
fn is_of_a_missing_part(world: &World, path: &str) -> bool {
    let parts = ["argocd/apps/", "argocd/manifests/"].into_iter().chain(FOLDERS);
    let mut parts = parts.filter(|part| path.starts_with(part) || path == part.trim_end_matches('/'));
    parts.any(|part| !world.facts.paths.iter().any(|file| file.starts_with(part)))
}

fn path(world: &World, findings: &mut Vec<Finding>) {
    for (text, place) in missing_paths(world).into_iter().filter(|(text, _)| !is_of_a_missing_part(world, text)) {
        findings.push(Finding::error("doc-path", format!("there is no {text}")).at(place));
    }
}

/// What pages say of parts that are not here.
pub(super) fn unknown_paths(world: &World) -> Option<String> {
    let count = missing_paths(world).iter().filter(|(text, _)| is_of_a_missing_part(world, text)).count();
    (count > 0).then(|| format!("{count} paths that pages name: nothing is here of the part that they are in"))
}

/// The rows `| **key** | value |` of a card.
fn row<'a>(file: &'a Source, key: &str) -> Option<(&'a str, Place)> {
    let start = file.text.find(&format!("| **{key}** |"))?;
    let line = file.text[start..].lines().next()?;
    let value = line.split('|').nth(2)?.trim().trim_matches('`');
    let at = start + line.find(value)?;
    Some((value, file.place(at, at + value.len())))
}

fn card(world: &World, findings: &mut Vec<Finding>) {
    for file in pages(world) {
        let Some((folder, _)) = row(file, "Manifests") else { continue };
        let folder = folder.trim_end_matches('/');
        let Some(app) = world.apps.iter().find(|app| app.path.as_deref() == Some(folder)) else { continue };
        for (key, actual) in [("Namespace", &app.namespace), ("Cluster", &app.cluster)] {
            // Without a configuration a cluster has no name but its address.
            if actual.contains("://") || actual.is_empty() {
                continue;
            }
            if let Some((value, place)) = row(file, key).filter(|(value, _)| !value.starts_with(actual.as_str())) {
                let written = app.node.path(&["spec", "destination"]).map(|node| node.place(&app.file));
                let fix = Edit::rename(&place, value, actual);
                let message = format!("{} is deployed to {actual}, not {value}", app.name);
                let finding = Finding::error("doc-card", message).at(place).fixed_by(fix);
                findings.push(match written {
                    Some(written) => finding.also(app.file.place(written.start, written.start), "deployed by"),
                    None => finding,
                });
            }
        }
        addresses(world, file, findings);
        let Some((image, place)) = row(file, "Image") else { continue };
        let mut runs = app
            .objects
            .iter()
            .flat_map(crate::model::world::Object::containers)
            .filter_map(|container| container.get("image")?.text());
        if !app.objects.is_empty() && !runs.any(|used| used.starts_with(image)) {
            findings.push(Finding::error("doc-card", format!("{} does not run {image}", app.name)).at(place));
        }
    }
}

/// The two addresses of a card are served: by Caddy, and by a name in the tailnet.
fn addresses(world: &World, file: &Source, findings: &mut Vec<Finding>) {
    let host =
        |url: &str| url.split("://").nth(1).unwrap_or(url).split(['/', ':']).next().unwrap_or_default().to_owned();
    let (hosts, names) = (network::hosts(world), network::tailnet_names(world));
    for (key, is_tailnet) in [("URL", false), ("Tailscale URL", true)] {
        let Some((value, place)) = row(file, key) else { continue };
        let host = host(value);
        let (name, zone) = host.split_once('.').unwrap_or((&host, ""));
        let is_wrong = if is_tailnet {
            zone.ends_with(".ts.net") && network::is_nowhere(world, &names, name)
        } else {
            // Another domain is served by something else.
            hosts.iter().any(|known| known.split_once('.').is_some_and(|(_, domain)| domain == zone))
                && !hosts.contains(&host)
        };
        if is_wrong {
            let finding = Finding::error("doc-card", format!("nothing here serves {host}")).at(place);
            let known = if is_tailnet { names.clone() } else { hosts.iter().map(String::as_str).collect() };
            findings.push(finding.did_you_mean(if is_tailnet { name } else { &host }, known));
        }
    }
}

fn changelog(world: &World, findings: &mut Vec<Finding>) {
    for file in world.repo.files.iter().filter(|file| file.folder() == "docs/changelog.d") {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let parts: Vec<&str> = name.split('.').collect();
        let fine = matches!(parts[..], [_, kind, "md"] if CHANGES.contains(&kind))
            || name.starts_with(['.', '_'])
            || name == "README.md";
        if !fine {
            let finding =
                Finding::error("changelog-name", format!("{name} is not <change>.<type>.md")).at(file.place(0, 0));
            findings.push(finding.help(format!("types are {}", CHANGES.join(", "))));
        }
    }
}
