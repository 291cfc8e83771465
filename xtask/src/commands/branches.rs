//! Applications that ArgoCD follows elsewhere than git says, and the way back.

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::parallel;
use crate::model::failure::{Failure, Kind};
use crate::model::repo::Repo;
use crate::model::yaml::{self, Node};
use crate::report::{Outcome, table};
use crate::tools::argocd;
use crate::tools::git;

/// List Applications that were left on a branch, and put them back
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  cargo xtask branches\n  cargo xtask branches --restore --dry-run")]
pub(crate) struct Args {
    /// Put them back to what git says, and sync
    #[arg(long)]
    pub(crate) restore: bool,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What became of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Merged,
    /// Its changes are in one commit, as after a squash.
    Squashed,
    /// Each of its commits has a copy there, as after a rebase.
    Rebased,
    NotMerged,
    /// The remote has no such branch any more.
    Gone,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::Merged => "merged",
            Self::Squashed => "merged, squashed",
            Self::Rebased => "merged, rebased",
            Self::NotMerged => "not merged",
            Self::Gone => "gone from the remote",
        }
    }
}

/// One Application that is elsewhere.
struct Stray {
    name: String,
    revision: String,
    /// What its file in git says.
    wanted: String,
    fate: Fate,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    Context::preflight(&["argocd", "git"])?;
    let argocd = cx.argocd()?;
    let question = argocd.list();
    let answer = cx.system.output(&question)?;
    if !answer.success() {
        let failure = cx.system.failed(&question, &answer, "ArgoCD does not answer");
        return Err(Failure { kind: Kind::Environment, ..failure }.into());
    }
    let unreadable = |why| Failure::environment(format!("argocd wrote what can't be read: {why}"));
    let states = argocd::parse_list(&answer.stdout).map_err(unreadable)?;
    let wanted = wanted(&cx.repo);
    if states.is_empty() || wanted.is_empty() {
        let what = if states.is_empty() { "ArgoCD lists no Application" } else { "this repository has no Application" };
        return Err(Failure::refused(format!("nothing was compared: {what}")).into());
    }
    let known = |name: &str| wanted.iter().find(|(own, _)| own == name).map(|(_, revision)| revision.clone());
    let mut strays: Vec<(String, String, String)> = Vec::new();
    let mut compared = 0;
    for state in states {
        let (Some(wanted), Some(revision)) = (known(&state.name), state.revision) else { continue };
        compared += 1;
        if wanted != revision {
            strays.push((state.name, revision, wanted));
        }
    }
    // What brings the others comes first.
    strays.sort_by_key(|(name, ..)| !is_parent(&cx.repo, name));
    let fates = parallel::map(&strays, 4, |(_, revision, wanted)| fate(cx, revision, wanted));
    let mut found = Vec::new();
    for ((name, revision, wanted), fate) in strays.into_iter().zip(fates) {
        found.push(Stray { name, revision, wanted, fate: fate? });
    }
    if args.restore || args.dry_run {
        return restore(cx, &argocd, &found, args.dry_run);
    }
    Ok(outcome(&found, compared))
}

/// Name and revision of every Application in git.
fn wanted(repo: &Repo) -> Vec<(String, String)> {
    let files = repo.files.iter().filter(|file| file.path.starts_with("argocd/"));
    let documents = files.flat_map(|file| yaml::parse(file).unwrap_or_default());
    let application = |node: Node| {
        let text = |keys: &[&str]| node.path(keys).and_then(Node::text).map(str::to_owned);
        let name = text(&["metadata", "name"]).filter(|_| text(&["kind"]).as_deref() == Some("Application"))?;
        Some((name, text(&["spec", "source", "targetRevision"]).unwrap_or_else(|| "HEAD".to_owned())))
    };
    documents.filter_map(application).collect()
}

fn is_parent(repo: &Repo, name: &str) -> bool {
    let file = repo
        .files
        .iter()
        .find(|file| file.path.starts_with("argocd/") && file.text.contains(&format!("name: {name}\n")));
    file.is_some_and(|file| {
        repo.applications
            .iter()
            .any(|app| app.path == file.folder() && file.text.contains(&format!("path: {}", app.path)))
    })
}

fn fate(cx: &Context, revision: &str, main: &str) -> Result<Fate> {
    let remote = &cx.repo.config.forge.remote;
    let mut commits = Vec::new();
    for branch in [revision, main] {
        let answer = cx.system.stdout(&git::ls_remote(remote, branch, "no-tag"), "the remote can't be asked")?;
        let Some(commit) = git::parse_ls_remote(&answer).branch else { return Ok(Fate::Gone) };
        cx.system.stdout(&git::fetch_objects(remote, branch), "the remote does not give its commits")?;
        commits.push(commit);
    }
    let (branch, main) = (&commits[0], &commits[1]);
    if cx.system.output(&git::is_ancestor(branch, main))?.success() {
        return Ok(Fate::Merged);
    }
    let what = "comparing the branch with main";
    if git::all_are_there(&cx.system.stdout(&git::cherry(main, branch), what)?) {
        return Ok(Fate::Rebased);
    }
    let base = cx.system.output(&git::merge_base(main, branch))?;
    // Without a common commit nothing can have been merged.
    if !base.success() {
        return Ok(Fate::NotMerged);
    }
    let base = base.stdout.trim();
    let paths = git::parse_names(&cx.system.stdout(&git::changed(base, branch, &[]), what)?);
    let patch = cx.system.stdout(&git::patch(base, branch), what)?;
    let squashed = git::changes(&patch);
    let since = cx.system.stdout(&git::patches(base, main, &paths), what)?;
    let is_there = !squashed.is_empty() && since.split('\0').any(|patch| git::changes(patch) == squashed);
    Ok(if is_there { Fate::Squashed } else { Fate::NotMerged })
}

fn restore(cx: &Context, argocd: &argocd::Argocd, strays: &[Stray], dry_run: bool) -> Result<Outcome> {
    let commands = |stray: &Stray| [argocd.set_revision(&stray.name, &stray.wanted), argocd.sync(&stray.name)];
    let lines: Vec<String> = strays.iter().flat_map(commands).map(|line| line.to_string()).collect();
    if dry_run {
        return Ok(Outcome::ok(lines.join("\n"), json!({"commands": lines})));
    }
    let mut done: Vec<&str> = Vec::new();
    for stray in strays {
        let stage = cx.report.stage("restore");
        for command in commands(stray) {
            cx.system.stdout(&command, "it can't be put back").map_err(|error| match error.downcast::<Failure>() {
                Ok(failure) => failure.left(format!("put back: {}", done.join(", "))).into(),
                Err(error) => error,
            })?;
        }
        stage.done(&format!("{} follows {} again", stray.name, stray.wanted));
        done.push(&stray.name);
    }
    let human = if done.is_empty() {
        "every Application is where git says".to_owned()
    } else {
        format!("put back: {}", done.join(", "))
    };
    Ok(Outcome::ok(human, json!({"restored": done})))
}

fn outcome(strays: &[Stray], compared: usize) -> Outcome {
    let rows: Vec<Vec<String>> = strays
        .iter()
        .map(|stray| {
            vec![stray.name.clone(), stray.revision.clone(), stray.fate.word().to_owned(), stray.wanted.clone()]
        })
        .collect();
    let values: Vec<Value> = strays
        .iter()
        .map(|stray| json!({"name": stray.name, "revision": stray.revision, "branch": stray.fate.word(), "git": stray.wanted}))
        .collect();
    let human = if strays.is_empty() {
        format!("all {compared} Applications are where git says\n")
    } else {
        table(&["APPLICATION", "FOLLOWS", "THE BRANCH IS", "GIT SAYS"], &rows)
            + "`cargo xtask branches --restore` puts them back\n"
    };
    Outcome {
        human,
        json: json!({"compared": compared, "elsewhere": values}),
        code: u8::from(!strays.is_empty()),
        other: None,
    }
}
