//! Every container: how it is built, its versions, where it is pinned, and what disagrees.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::parallel;
use crate::model::failure::{Failure, Kind};
use crate::model::repo::Container;
use crate::model::tag::{GitTag, ImageTag};
use crate::report::{Outcome, table};
use crate::tools::git;

/// List containers with versions, registry tags, pins and what disagrees
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask containers\n  cargo xtask containers --offline --format json")]
pub(crate) struct Args {
    /// Do not ask the registry
    #[arg(long)]
    pub(crate) offline: bool,
}

/// One line of the list.
struct Row {
    kinds: Vec<String>,
    tag: Option<GitTag>,
    image: Option<ImageTag>,
    pins: Vec<(String, String)>,
    disagreements: Vec<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    if cx.repo.containers.is_empty() {
        return Err(Failure::refused("there is no containers/<name>/default.nix or Dockerfile in this checkout").into());
    }
    let rows = parallel::map(&cx.repo.containers, 8, |container| row(cx, container, args.offline));
    let rows = rows.into_iter().collect::<Result<Vec<_>>>()?;
    let lines: Vec<Vec<String>> =
        cx.repo.containers.iter().zip(&rows).map(|(container, row)| human(container, row)).collect();
    let values: Vec<Value> =
        cx.repo.containers.iter().zip(&rows).map(|(container, row)| value(container, row)).collect();
    let mut text = table(&["CONTAINER", "BUILDS", "GIT TAG", "REGISTRY", "PINNED"], &lines);
    for (container, row) in cx.repo.containers.iter().zip(&rows) {
        for what in &row.disagreements {
            text.extend(["! ", container.name.as_str(), ": ", what, "\n"]);
        }
    }
    Ok(Outcome::ok(text, json!({"containers": values})))
}

fn row(cx: &Context, container: &Container, offline: bool) -> Result<Row> {
    let pattern = format!("{}-v*", container.name);
    let local = cx
        .system
        .output(&git::local_tags(&pattern))
        .map(|output| git::parse_local_tags(&output.stdout))
        .unwrap_or_default();
    let tag = local.into_keys().filter(|tag| tag.container == container.name).max_by_key(|tag| tag.version);
    let mut disagreements = Vec::new();
    let home = cx.repo.home();
    let mut image = None;
    let mut tags = Vec::new();
    if let (Ok(home), false) = (&home, offline) {
        match cx.registry()?.tags(&home.repository(&container.name)) {
            Ok(found) => {
                tags = found;
                image = tags.iter().filter_map(|tag| tag.parse::<ImageTag>().ok()).max_by_key(|tag| tag.version);
            }
            Err(error) if error.downcast_ref::<Failure>().is_some_and(|failure| failure.kind == Kind::Interrupted) => {
                return Err(error);
            }
            Err(error) => disagreements.push(format!("not asked: {error}")),
        }
    }
    let pins = home.map(|home| pins(cx, &home.image(&container.name), &mut disagreements)).unwrap_or_default();
    if !offline && image.is_some() {
        let absent = pins.iter().filter(|(_, tag)| !tags.contains(tag));
        disagreements.extend(absent.map(|(path, tag)| format!("{path} pins {tag}, which the registry does not have")));
    }
    Ok(Row { kinds: container.kinds.iter().map(ToString::to_string).collect(), tag, image, pins, disagreements })
}

/// Path and tag of every pin.
fn pins(cx: &Context, image: &str, disagreements: &mut Vec<String>) -> Vec<(String, String)> {
    let users = cx.repo.users(image);
    let pins: Vec<(String, String)> = users
        .entries
        .iter()
        .filter_map(|(kustomization, entry)| {
            Some((entry.place(&kustomization.source).to_string(), entry.tag()?.to_owned()))
        })
        .collect();
    if pins.windows(2).any(|pair| pair[0].1 != pair[1].1) {
        disagreements.push(format!(
            "pinned to different tags: {}",
            pins.iter().map(|(path, tag)| format!("{path} {tag}")).collect::<Vec<_>>().join(", ")
        ));
    }
    disagreements.extend(
        pins.iter()
            .filter(|(_, tag)| tag.parse::<ImageTag>().is_err())
            .map(|(path, tag)| format!("{path} pins {tag}, which is no release tag")),
    );
    disagreements.extend(users.unpinned.iter().map(|used| {
        format!(
            "{} names it with tag {} and no kustomization pins it",
            used.place,
            used.tag.as_deref().unwrap_or("(none)")
        )
    }));
    pins
}

fn human(container: &Container, row: &Row) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let pins = row.pins.iter().map(|(path, tag)| format!("{tag} {path}")).collect::<Vec<_>>().join(", ");
    vec![
        container.name.to_string(),
        row.kinds.join(" "),
        or_dash(row.tag.as_ref().map(|tag| tag.version.to_string())),
        or_dash(row.image.as_ref().map(ToString::to_string)),
        if pins.is_empty() { "-".to_owned() } else { pins },
    ]
}

fn value(container: &Container, row: &Row) -> Value {
    let pins: Vec<Value> = row.pins.iter().map(|(place, tag)| json!({"place": place, "tag": tag})).collect();
    json!({
        "name": container.name.as_str(), "builds": row.kinds, "git_tag": row.tag.as_ref().map(ToString::to_string),
        "registry_tag": row.image.as_ref().map(ToString::to_string), "pins": pins, "disagreements": row.disagreements,
    })
}
