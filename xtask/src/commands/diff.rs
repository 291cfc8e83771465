//! What a change does to the clusters: rendered objects now against another commit.

mod live;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Context, check};
use crate::exec::workspace::Workspace;
use crate::model::difference::{self, Change, Difference, Field};
use crate::model::world::World;
use crate::report::Outcome;
use crate::tools::git;

/// Compare the rendered objects with those of another commit or of the clusters, by object and field
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask diff\n  cargo xtask diff v1.0 --markdown\n  cargo xtask diff --live\n  cargo xtask diff --live --app dex"
)]
pub(crate) struct Args {
    /// The commit to compare with
    #[arg(default_value = "HEAD")]
    pub(crate) revision: String,
    /// Write Markdown, for a comment at a pull request
    #[arg(long)]
    pub(crate) markdown: bool,
    /// Ask the clusters what applying would change, by a server-side dry run
    #[arg(long, conflicts_with = "revision")]
    pub(crate) live: bool,
    /// Only this Application; may be given several times
    #[arg(long, requires = "live", value_name = "APP")]
    pub(crate) app: Vec<String>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    if args.live {
        return live::run(cx, args);
    }
    let (before, after) = (world_at(cx, &args.revision)?, check::world(cx)?);
    for (what, world) in [(args.revision.as_str(), &before), ("the work tree", &after)] {
        for finding in world.findings.iter().filter(|finding| finding.code == "app-render") {
            cx.report.say(&format!("not compared, in {what}: {}", finding.message));
        }
    }
    let differences = difference::compare(&difference::objects(&before), &difference::objects(&after));
    let human = written(&differences, args.markdown);
    let values: Vec<Value> = differences.iter().map(value).collect();
    Ok(Outcome::ok(human, json!({"against": args.revision, "differences": values})))
}

/// The world of another commit; its files are gone again when it is returned.
pub(crate) fn world_at(cx: &Context, revision: &str) -> Result<World> {
    let commit = commit_of(cx, revision)?;
    let workspace = Workspace::new("blumeops-commit-", false)?;
    let tree = tree_at(cx, commit.trim(), &workspace)?;
    check::world_with(&cx.at(tree)?, || check::tags(cx))
}

fn commit_of(cx: &Context, revision: &str) -> Result<String> {
    let asked = git::commit_of(revision);
    let output = cx.system.output(&asked)?;
    if output.success() {
        return Ok(output.stdout);
    }
    let failure = cx.system.failed(&asked, &output, &format!("{revision} is no commit here"));
    let shallow = cx.system.output(&git::is_shallow())?;
    Err(if shallow.stdout.trim() == "true" {
        failure.next("this clone is shallow: git fetch --unshallow brings the rest").into()
    } else {
        failure.into()
    })
}

/// The files of a commit, in a workspace.
pub(super) fn tree_at(cx: &Context, commit: &str, workspace: &Workspace) -> Result<PathBuf> {
    let (archive, tree) = (workspace.text(&format!("{commit}.tar")), workspace.path(commit));
    cx.system.stdout(&git::archive(commit, &archive), "reading the commit")?;
    unpack(Path::new(&archive), &tree)?;
    Ok(tree)
}

fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    let file = File::open(archive).context("reading the commit")?;
    tar::Archive::new(file).unpack(folder).context("unpacking the commit")
}

fn written(differences: &[Difference], as_markdown: bool) -> String {
    if as_markdown { markdown(differences) } else { human(differences) }
}

fn sign(field: &Field) -> char {
    match (&field.before, &field.after) {
        (None, _) => '+',
        (_, None) => '-',
        _ => '~',
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if !text.contains('\n') => text.clone(),
        value => value.to_string(),
    }
}

fn line(field: &Field) -> String {
    let values: Vec<String> = [&field.before, &field.after].into_iter().flatten().map(shown).collect();
    let lost = if field.is_loss() { "  (lost)" } else { "" };
    format!("{} {}: {}{lost}", sign(field), field.path, values.join(" → "))
}

fn human(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "nothing changes in any cluster".to_owned();
    }
    let mut text = String::new();
    for Difference { object, change } in differences {
        match change {
            Change::Added => text += &format!("+ {object}\n"),
            Change::Removed => text += &format!("- {object}\n"),
            Change::Fields(fields) => {
                text += &format!("~ {object}\n");
                for field in fields {
                    text += &format!("    {}\n", line(field));
                }
            }
        }
    }
    text
}

fn markdown(differences: &[Difference]) -> String {
    if differences.is_empty() {
        return "Nothing changes in any cluster.\n".to_owned();
    }
    let mut text = format!("### {} objects change\n", differences.len());
    for Difference { object, change } in differences {
        match change {
            Change::Added => text += &format!("\n**new** {object}\n"),
            Change::Removed => text += &format!("\n**gone** {object}\n"),
            Change::Fields(fields) => {
                text += &format!("\n{object}\n\n```diff\n");
                for field in fields {
                    let lost = if field.is_loss() { "  (lost)" } else { "" };
                    for (sign, value) in [('-', &field.before), ('+', &field.after)] {
                        text.extend(
                            value.as_ref().map(|value| format!("{sign} {}: {}{lost}\n", field.path, shown(value))),
                        );
                    }
                }
                text += "```\n";
            }
        }
    }
    text
}

fn value(difference: &Difference) -> Value {
    let Difference { object, change } = difference;
    let (change, fields) = match change {
        Change::Added => ("added", Vec::new()),
        Change::Removed => ("removed", Vec::new()),
        Change::Fields(fields) => ("changed", fields.clone()),
    };
    let fields: Vec<Value> = fields
        .iter()
        .map(|field| json!({"path": field.path, "before": field.before, "after": field.after, "lost": field.is_loss()}))
        .collect();
    json!({
        "cluster": object.cluster, "kind": object.kind, "namespace": object.namespace, "name": object.name,
        "change": change, "fields": fields,
    })
}
