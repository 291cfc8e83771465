//! The whole repository as one program: does it agree with itself?

mod decoded;
mod online;
mod repair;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::json;

use super::{Context, diff, render};
use crate::checks::{self, Checked, Rule};
use crate::exec::{env, fs};
use crate::model::config;
use crate::model::failure::Failure;
use crate::model::finding::{Finding, Severity};
use crate::model::fix;
use crate::model::repo::Repo;
use crate::model::tag::GitTag;
use crate::model::workflow;
use crate::model::world::{Facts, World, is_yaml};
use crate::report::{Format, Outcome, findings, formats};
use crate::tools::{catalog, git};

/// Check that the repository agrees with itself, from images to documentation
#[derive(clap::Args, Debug, Default)]
#[command(
    after_help = "Examples:\n  cargo xtask check\n  cargo xtask check authentik\n  cargo xtask check service-port docs/\n  cargo xtask check --since origin/main\n  cargo xtask check --fix --dry-run\n  cargo xtask check --online\n  cargo xtask check --format sarif > check.sarif"
)]
pub(crate) struct Args {
    /// Only these rules, Applications or paths
    #[arg(value_name = "PATH|APP|RULE")]
    pub(crate) only: Vec<String>,
    /// Only what has come since this commit
    #[arg(long, value_name = "REV")]
    pub(crate) since: Option<String>,
    /// Repair what needs no judgement, show what was changed, and check again
    #[arg(long)]
    pub(crate) fix: bool,
    /// Show what --fix would change, as a diff that git apply takes
    #[arg(long, requires = "fix")]
    pub(crate) dry_run: bool,
    /// Ask the registry for the images that are pinned
    #[arg(long)]
    pub(crate) online: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let examined = examine(cx, args)?;
    let repairs = if args.fix { fix::repairs(&examined.checked.findings) } else { Vec::new() };
    if args.dry_run {
        return Ok(repair::shown(&examined.checked.findings, &repairs));
    }
    let repaired = repair::apply(cx, &repairs)?;
    if repaired.is_empty() {
        return outcome(cx, &examined, &repaired);
    }
    let again = cx.at(cx.system.root.clone())?;
    outcome(cx, &examine(&again, args)?, &repaired)
}

/// A world and what the rules say of it.
struct Examined {
    world: World,
    checked: Checked,
    objects: usize,
    references: usize,
    not_checked: Vec<String>,
}

fn examine(cx: &Context, args: &Args) -> Result<Examined> {
    let mut world = world(cx)?;
    if args.online {
        online::ask(cx, &mut world)?;
    }
    let (rules, places) = split(&world, &args.only)?;
    let wanted = |rule: &Rule| rules.is_empty() || rules.contains(rule.code);
    let (mut checked, (not_checked, references)) = std::thread::scope(|scope| {
        let beside = scope.spawn(|| (not_checked(&world), checks::references(&world)));
        (checks::run(&world, wanted), beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    if checked.clean.contains("object-schema") {
        decoded::remember(&world);
    }
    if let Some(revision) = &args.since {
        let before = diff::world_at(cx, revision)?;
        let known = checks::run(&before, wanted).findings;
        checked.findings.retain(|finding| !is_known(finding, &known, &before, &world));
    }
    if !places.is_empty() {
        checked.findings.retain(|finding| is_in(finding, &places));
    }
    let objects = world.objects().count();
    if objects == 0 && world.repo.containers.is_empty() && world.repo.files.is_empty() {
        return Err(Failure::refused("nothing was examined: there is nothing here that a rule looks at").into());
    }
    Ok(Examined { world, checked, objects, references, not_checked })
}

/// Was it there before: in the same file, wherever in it, or in a file that now has another name?
fn is_known(finding: &Finding, known: &[Finding], before: &World, now: &World) -> bool {
    let path = |finding: &Finding| finding.place.as_ref().map(|place| place.source.path.clone());
    let has = |world: &World, path: &str| world.repo.files.iter().any(|file| *file.path == *path);
    let (new, same) =
        (path(finding), |other: &&Finding| other.code == finding.code && other.message == finding.message);
    known.iter().filter(same).any(|other| match (path(other), &new) {
        (Some(old), Some(new)) => old == *new || (!has(now, &old) && !has(before, new)),
        (old, new) => old == *new,
    })
}

/// The repository with all that has to be asked for.
pub(crate) fn world(cx: &Context) -> Result<World> {
    world_with(cx, || tags(cx))
}

/// As [`world`], where the release tags are those of another checkout.
pub(crate) fn world_with(cx: &Context, tags: impl FnOnce() -> Option<BTreeSet<GitTag>> + Send) -> Result<World> {
    let repo = cx.repo.clone();
    let (paths, tags, rendered, grammar) = std::thread::scope(|scope| {
        let (paths, tags) = (scope.spawn(|| paths(cx)), scope.spawn(tags));
        let (rendered, grammar) = (render::render(cx, &render::folders(cx)), (cx.grammar)());
        (paths.join().unwrap_or_default(), tags.join().unwrap_or_default(), rendered, Some(grammar))
    });
    let unread = unread(&paths, &repo);
    let rendered = rendered?;
    let is_decoded = decoded::is_known(&repo, &rendered);
    let facts = Facts { paths, tags, rendered, published: BTreeMap::new(), grammar, is_decoded };
    let mut world = World::new(repo, facts);
    world.not_checked.extend(unread);
    if !world.repo.kustomizations.is_empty() && render::program().is_none() {
        let finding = Finding::environment("tool-missing", "kustomize is not installed: no kustomization was rendered");
        world.findings.push(finding.help(catalog::install_hint("kustomize")));
    }
    Ok(world)
}

/// Files that rules would look at, had they been readable.
fn unread(paths: &BTreeSet<String>, repo: &Repo) -> Vec<String> {
    let read: BTreeSet<&str> = repo.files.iter().map(|file| &*file.path).collect();
    let wanted = |path: &&String| {
        let is_text = is_yaml(path) || path.rsplit('.').next() == Some("md");
        let folders = ["argocd/", "ansible/", "docs/", workflow::FOLDER];
        let is_alone = [config::PATH, ".mise.toml", "README.md"].contains(&path.as_str());
        is_alone || is_text && folders.iter().any(|folder| path.starts_with(folder))
    };
    let missing = paths.iter().filter(wanted).filter(|path| !read.contains(path.as_str()));
    missing.map(|path| format!("{path}: it is larger than 4 MB, not UTF-8, a link, or not checked out")).collect()
}

/// What git knows or would add and is here; without git, what is here.
fn paths(cx: &Context) -> BTreeSet<String> {
    let listed = cx.system.output(&git::files()).ok().filter(crate::exec::run::Output::success);
    listed.map_or_else(|| fs::paths(&cx.system.root), |output| git::parse_files(&output.stdout))
}

pub(crate) fn tags(cx: &Context) -> Option<BTreeSet<GitTag>> {
    let output = cx.system.output(&git::local_tags("*")).ok().filter(crate::exec::run::Output::success)?;
    let tags: BTreeSet<_> = git::parse_local_tags(&output.stdout).into_keys().collect();
    // A clone without any was made without them.
    (!tags.is_empty()).then_some(tags)
}

/// The rules and the places that the arguments mean.
fn split(world: &World, only: &[String]) -> Result<(BTreeSet<&'static str>, Vec<String>)> {
    let (mut rules, mut places) = (BTreeSet::new(), Vec::new());
    for word in only {
        if let Some(rule) = checks::rules().find(|rule| rule.code == word) {
            rules.insert(rule.code);
        } else if let Some(app) = world.apps.iter().find(|app| app.name == *word) {
            places.push(app.file.path.to_string());
            places.extend(app.path.clone());
        } else {
            let path = word.trim_start_matches("./").trim_end_matches('/').to_owned();
            if !world.repo.files.iter().any(|file| *file.path == path || file.path.starts_with(&format!("{path}/"))) {
                return Err(Failure::environment(format!("{word} is no rule, Application or path here"))
                    .next("cargo xtask explain lists the rules")
                    .into());
            }
            places.push(path);
        }
    }
    Ok((rules, places))
}

fn is_in(finding: &Finding, places: &[String]) -> bool {
    let Some(place) = &finding.place else { return false };
    let path = &*place.source.path;
    places.iter().any(|wanted| path == wanted || path.starts_with(&format!("{wanted}/")))
}

fn not_checked(world: &World) -> Vec<String> {
    let mut not_checked = world.not_checked.clone();
    not_checked.extend(checks::not_checked(world));
    let unknown = checks::schema::unknown_kinds(world);
    not_checked
        .extend(unknown.into_iter().map(|(kind, count)| format!("the fields of {count} {kind}: no schema is at hand")));
    if world.facts.tags.is_none() {
        not_checked.push("whether pinned tags were released: this clone has no release tags".to_owned());
    }
    not_checked.sort();
    not_checked.dedup();
    not_checked
}

fn outcome(cx: &Context, examined: &Examined, repaired: &[String]) -> Result<Outcome> {
    let Examined { world, checked: Checked { findings: found, rules, waived, .. }, .. } = examined;
    let Examined { objects, references, not_checked, .. } = examined;
    let counts = format!(
        "{} files, {objects} objects of {} Applications, {} containers, {references} references resolved, {rules} rules: {} findings, {waived} waived",
        world.repo.files.len(),
        world.apps.len(),
        world.repo.containers.len(),
        found.len()
    );
    let mut human: String = found.iter().map(|finding| findings::human(finding) + "\n").collect();
    human.extend([&counts, "\n"]);
    for what in not_checked {
        human.extend(["not checked: ", what, "\n"]);
    }
    if let Some(file) = env::var("GITHUB_STEP_SUMMARY") {
        let text = cx.report.redactor.clean(&formats::summary("cargo xtask check", found, (&counts, not_checked)));
        fs::append(file.as_ref(), &text)?;
    }
    let list: Vec<_> = found.iter().map(findings::finding_json).collect();
    let value = json!({
        "findings": list, "files": world.repo.files.len(), "objects": objects, "applications": world.apps.len(),
        "containers": world.repo.containers.len(), "references": references, "rules": rules, "waived": waived, "not_checked": not_checked,
        "fixed": repaired,
    });
    let environment = found.iter().any(|finding| finding.severity == Severity::Environment);
    let code = if environment { 2 } else { u8::from(!found.is_empty()) };
    let other = match cx.report.format {
        Format::Sarif => Some(formats::sarif("cargo xtask check", checks::rules().map(|rule| rule.code), found)),
        Format::Junit => Some(formats::junit(found, *rules)),
        Format::Github => Some(formats::github(found)),
        _ => None,
    };
    Ok(Outcome { human, json: value, code, other })
}
