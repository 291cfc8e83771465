//! Everything that mentions a thing, by layer: what a rename would have to touch.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Context, check};
use crate::exec::fs;
use crate::model::failure::Failure;
use crate::model::repo::Repo;
use crate::model::source::{Place, Source};
use crate::model::world::is_yaml;
use crate::model::yaml;
use crate::model::{area, port, relative};
use crate::report::Outcome;
use crate::tools::git;

/// List everything that mentions a host, service, image, secret, path, port or cluster
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask refs authentik\n  cargo xtask refs pg.ops.eblu.me\n  cargo xtask refs 9300\n  cargo xtask refs docs/reference/services/redis.md"
)]
pub(crate) struct Args {
    /// What to look for, as a whole word
    pub(crate) thing: String,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let thing = args.thing.trim().trim_end_matches('/');
    if thing.is_empty() {
        return Err(Failure::environment("name something to look for").into());
    }
    let names = aliases(&cx.repo, thing);
    let layers = layers(cx, thing, &names)?;
    let mut human = String::new();
    let mut values: Vec<Value> = Vec::new();
    for (layer, mut places) in layers.into_iter().filter(|(_, places)| !places.is_empty()) {
        let name = area::name(layer);
        human.extend([name, "\n"]);
        places.sort_by(|(a, _), (b, _)| (&a.source.path, a.start).cmp(&(&b.source.path, b.start)));
        for (place, alias) in places {
            let (line, column) = place.line_column();
            let text = place.source.text.lines().nth(line - 1).unwrap_or_default().trim();
            let shown: String = text.chars().take(LONGEST).collect();
            human.extend(["  ", &place.to_string(), "  ", &shown]);
            if alias != thing {
                human.extend(["  (as ", &alias, ")"]);
            }
            human.push('\n');
            values.push(json!({
                "layer": name, "path": &*place.source.path, "line": line, "column": column, "text": shown, "as": alias,
            }));
        }
    }
    if values.is_empty() {
        return Err(Failure::refused(format!("nothing mentions {thing}")).into());
    }
    let also: Vec<&String> = names.iter().filter(|name| *name != thing).collect();
    if !also.is_empty() {
        let names: Vec<&str> = also.iter().map(|name| name.as_str()).collect();
        cx.report.say(&format!("{thing} is also {}", names.join(", ")));
    }
    Ok(Outcome::ok(human, json!({"thing": thing, "also": also, "references": values})))
}

/// Every mention by layer, with what it says instead of the thing itself; one for each line.
fn layers(cx: &Context, thing: &str, names: &[String]) -> Result<BTreeMap<usize, Vec<(Place, String)>>> {
    let rest = unmodelled(cx);
    let files = || cx.repo.files.iter().chain(&rest);
    let below = format!("{thing}/");
    let is_path = files().any(|file| *file.path == *thing || file.path.starts_with(&below));
    let mut found = Vec::new();
    for file in files() {
        for name in names {
            found.extend(mentions(file, name).into_iter().map(|place| (place, name.clone())));
        }
        if is_path {
            let written = |place: Place| (place.clone(), place.source.text[place.start..place.end].to_owned());
            found.extend(relative::mentions(file, thing).into_iter().map(written));
        }
    }
    if thing.parse::<u16>().is_ok() {
        found.extend(port::uses(&check::world(cx)?, thing));
    }
    let mut layers = BTreeMap::<usize, Vec<(Place, String)>>::new();
    let mut seen = BTreeSet::new();
    for (place, alias) in found {
        let path = &place.source.path;
        if seen.insert((path.clone(), place.line_column().0)) {
            layers.entry(area::of(path)).or_default().push((place, alias));
        }
    }
    Ok(layers)
}

/// A line of a generated file can be as long as the file.
const LONGEST: usize = 160;

/// Text files of the checkout that no rule looks at: the README, the tool's own stand-ins.
fn unmodelled(cx: &Context) -> Vec<Source> {
    let known: BTreeSet<&str> = cx.repo.files.iter().map(|file| &*file.path).collect();
    let listed = cx.system.output(&git::files()).ok().filter(crate::exec::run::Output::success);
    let names = listed.map(|output| git::parse_files(&output.stdout)).unwrap_or_default();
    let wanted = names.iter().filter(|name| !known.contains(name.as_str()) && !name.ends_with("Cargo.lock"));
    wanted.filter_map(|name| fs::source(&cx.system.root, &cx.path(name))).collect()
}

/// The thing, and what else it is called: a cluster by its address and context, a host by the template that makes it,
/// an image by its folder, a cluster-local name by its short form.
fn aliases(repo: &Repo, thing: &str) -> Vec<String> {
    let mut names = vec![thing.to_owned()];
    for cluster in &repo.config.clusters {
        let context = cluster.context.as_ref().map(ToString::to_string);
        let all = [Some(cluster.name.clone()), Some(cluster.server.clone()), context];
        if all.iter().flatten().any(|name| name == thing) {
            names.extend(all.into_iter().flatten());
        }
    }
    for (variable, value) in variables(repo) {
        if let Some(prefix) = thing.strip_suffix(&format!(".{value}")) {
            names.push(format!("{prefix}.{{{{ {variable} }}}}"));
        }
    }
    if let Ok(home) = repo.home() {
        for container in &repo.containers {
            let both = [home.image(&container.name), container.folder()];
            if both.iter().any(|name| name == thing) {
                names.extend(both);
            }
        }
    }
    if let Some(short) = thing.strip_suffix(".cluster.local").or(Some(thing)).and_then(|name| name.strip_suffix(".svc"))
    {
        names.push(short.to_owned());
    }
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Variables of Ansible whose value is a domain.
fn variables(repo: &Repo) -> Vec<(String, String)> {
    let files = repo.files.iter().filter(|file| file.path.starts_with("ansible/") && is_yaml(&file.path));
    let mut variables = Vec::new();
    for document in files.flat_map(|file| yaml::parse(file).unwrap_or_default()) {
        document.walk(&mut |key, value| {
            if let (Some(key), Some(value)) = (key.text(), value.text().filter(|text| is_domain(text))) {
                variables.push((key.to_owned(), value.to_owned()));
            }
        });
    }
    variables
}

fn is_domain(text: &str) -> bool {
    text.contains('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
}

/// The first mention on each line.
fn mentions(file: &Source, thing: &str) -> Vec<Place> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let mut places: Vec<Place> = Vec::new();
    for (at, _) in file.text.match_indices(thing) {
        let (before, after) = (file.text[..at].chars().next_back(), file.text[at + thing.len()..].chars().next());
        if is_word(before) || is_word(after) {
            continue;
        }
        let place = file.place(at, at + thing.len());
        if places.last().is_none_or(|last| last.line_column().0 != place.line_column().0) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_once_a_line() {
        let file = Source::new("a", "redis redis\nredis-data\nmy-redis\n- redis:6379\n");
        let lines: Vec<usize> = mentions(&file, "redis").iter().map(|place| place.line_column().0).collect();
        assert_eq!(lines, [1, 4]);
    }
}
