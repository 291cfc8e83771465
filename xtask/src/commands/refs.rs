//! Everything that mentions a thing, by layer: what a rename would have to touch.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::model::failure::Failure;
use crate::model::source::{Place, Source};
use crate::report::Outcome;

/// Where folders stand, from what is built to what is told.
const LAYERS: [(&str, &str); 7] = [
    ("containers/", "image"),
    ("argocd/apps/", "application"),
    ("argocd/", "manifest"),
    ("ansible/", "provisioning"),
    (".forgejo/", "workflow"),
    ("xtask/", "configuration"),
    ("docs/", "documentation"),
];

/// List everything that mentions a host, service, image, secret, path, port or cluster
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask refs authentik\n  cargo xtask refs pg.ops.eblu.me\n  cargo xtask refs 9300"
)]
pub(crate) struct Args {
    /// What to look for, as a whole word
    pub(crate) thing: String,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    if args.thing.trim().is_empty() {
        return Err(Failure::environment("name something to look for").into());
    }
    let mut layers = BTreeMap::<usize, Vec<Place>>::new();
    for file in &cx.repo.files {
        let layer = LAYERS.iter().position(|(folder, _)| file.path.starts_with(folder)).unwrap_or(LAYERS.len());
        layers.entry(layer).or_default().extend(mentions(file, &args.thing));
    }
    let mut human = String::new();
    let mut values: Vec<Value> = Vec::new();
    for (layer, places) in layers.into_iter().filter(|(_, places)| !places.is_empty()) {
        let name = LAYERS.get(layer).map_or("other", |(_, name)| name);
        human.extend([name, "\n"]);
        for place in places {
            let (line, column) = place.line_column();
            let text = place.source.text.lines().nth(line - 1).unwrap_or_default().trim();
            human.extend(["  ", &place.to_string(), "  ", text, "\n"]);
            values.push(
                json!({"layer": name, "path": &*place.source.path, "line": line, "column": column, "text": text}),
            );
        }
    }
    if values.is_empty() {
        return Err(Failure::refused(format!("nothing mentions {}", args.thing)).into());
    }
    Ok(Outcome::ok(human, json!({"references": values})))
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
