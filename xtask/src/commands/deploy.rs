//! A service through ArgoCD: what brings it first, then its databases, then itself, each waited for.

mod plan;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use self::plan::{Goal, Part, Role, Step};
use super::{Context, check};
use crate::exec::run::{self, Output};
use crate::exec::{parallel, signal};
use crate::model::config::{Cluster, KubeContext};
use crate::model::failure::{Failure, Kind};
use crate::model::order;
use crate::model::pods::{self, Trouble};
use crate::model::world::{App, World};
use crate::report::Outcome;
use crate::tools::argocd::{self, Argocd, State};
use crate::tools::{Invocation, git, kubectl};

/// Between two looks at an Application.
const PAUSE: Duration = Duration::from_secs(2);

/// How long the API server may take for a list of pods.
const PODS: Duration = Duration::from_secs(8);

/// So many looks in a row have to see the same trouble: what is being replaced may be sick.
const PATIENCE: u32 = 4;

/// Deploy a service through ArgoCD, in the right order, and wait until it is healthy
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Run again it goes on from what ArgoCD says.\n\nExamples:\n  cargo xtask deploy authentik --branch deploy-authentik\n  cargo xtask deploy authentik --main --dry-run"
)]
pub(crate) struct Args {
    /// An Application of this repository
    pub(crate) service: String,
    /// Follow this branch
    #[arg(long, conflicts_with = "main")]
    pub(crate) branch: Option<String>,
    /// Follow main again
    #[arg(long)]
    pub(crate) main: bool,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How long each Application may take to get healthy, as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = super::release::duration)]
    pub(crate) wait: Duration,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    Context::preflight(&["argocd", "git"])?;
    let argocd = cx.argocd()?;
    let world = check::world(cx)?;
    let service = app(&world, &args.service)?;
    let main = cx.repo.config.forge.branch.clone();
    let goal = match (&args.branch, args.main) {
        (Some(branch), _) => Goal::Revision(branch.clone()),
        (None, true) => Goal::Revision(main.clone()),
        (None, false) => Goal::AsItIs,
    };
    let parts = parts(cx, &argocd, &world, service, &goal)?;
    let steps = plan::plan(&parts, &goal, &main);
    if args.dry_run {
        let lines: Vec<String> =
            steps.iter().flat_map(|step| commands(&argocd, step, args.wait)).map(|line| line.to_string()).collect();
        let human = if lines.is_empty() { "nothing to do".to_owned() } else { lines.join("\n") };
        return Ok(Outcome::ok(human, json!({"commands": lines})));
    }
    let mut done: Vec<String> = Vec::new();
    for step in &steps {
        let app = world.apps.iter().find(|app| app.name == step.name).unwrap_or(service);
        one(cx, &argocd, app, step, args.wait).map_err(|error| left(error, &done, &step.name))?;
        done.push(step.name.clone());
    }
    for part in parts.iter().filter(|part| !done.contains(&part.name)) {
        let words = part.state.as_ref().map_or_else(|| "not there".to_owned(), State::words);
        cx.report.stage("deploy").skipped(&format!("{}: {words}", part.name));
    }
    let human = if done.is_empty() {
        "everything was there already".to_owned()
    } else {
        format!("deployed {}", done.join(", "))
    };
    Ok(Outcome::ok(human, json!({"service": service.name, "deployed": done})))
}

/// The Application called `name`.
pub(super) fn app<'a>(world: &'a World, name: &str) -> Result<&'a App> {
    world.apps.iter().find(|app| app.name == name).ok_or_else(|| {
        let names: Vec<&str> = world.apps.iter().map(|app| app.name.as_str()).collect();
        let next = match crate::model::suggest::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", names.join(", ")),
        };
        Failure::refused(format!("this repository has no Application {name}")).next(next).into()
    })
}

/// The context of the cluster that an Application is deployed to.
pub(super) fn context<'a>(cx: &'a Context, app: &App) -> Result<&'a KubeContext> {
    let cluster = cx.repo.config.clusters.iter().find(|cluster| cluster.name == app.cluster);
    let unknown = || format!("{} names no cluster {}", crate::model::config::PATH, app.cluster);
    cluster.ok_or_else(unknown).and_then(Cluster::context).map_err(|why| {
        Failure::environment(format!("{} can't be asked where it runs: {why}", app.name))
            .next("kubectl config get-contexts")
            .into()
    })
}

fn left(error: anyhow::Error, done: &[String], at: &str) -> anyhow::Error {
    let before = if done.is_empty() { "nothing before it".to_owned() } else { done.join(", ") };
    match error.downcast::<Failure>() {
        Ok(failure) => {
            let left = format!("deployed: {before}; under way: {at}; the same command goes on from there");
            failure.left(left).into()
        }
        Err(error) => error,
    }
}

/// Everything that takes part, each asked for its state.
fn parts(cx: &Context, argocd: &Argocd, world: &World, service: &App, goal: &Goal) -> Result<Vec<Part>> {
    let parent = order::parent(world, service).map(|app| (app, Role::Parent, service.file.path.to_string()));
    let databases = order::databases(world, service).into_iter();
    let databases = databases.map(|app| (app, Role::Database, app.path.clone().unwrap_or_default()));
    let own = (service, Role::Service, service.path.clone().unwrap_or_default());
    let apps: Vec<(&App, Role, String)> = parent.into_iter().chain(databases).chain([own]).collect();
    let main = &cx.repo.config.forge.branch;
    let range = match goal {
        Goal::Revision(revision) if revision != main => Some(fetched(cx, revision)?),
        _ => None,
    };
    let states = parallel::map(&apps, 8, |(app, ..)| state(cx, argocd, &app.name));
    let mut parts = Vec::new();
    for ((app, role, path), state) in apps.into_iter().zip(states) {
        let differs = match &range {
            Some((from, to)) => {
                let question = git::changed(from, to, &[path]);
                !cx.system.stdout(&question, "comparing the branch with main")?.is_empty()
            }
            None => false,
        };
        parts.push(Part { name: app.name.clone(), role, state: state?, differs });
    }
    Ok(parts)
}

/// The commits of main and of `branch` on the remote, both brought here.
fn fetched(cx: &Context, branch: &str) -> Result<(String, String)> {
    let forge = &cx.repo.config.forge;
    let mut commits = Vec::new();
    for name in [&forge.branch, branch] {
        let question = git::ls_remote(&forge.remote, name, "no-tag");
        let answer = cx.system.stdout(&question, "the remote can't be asked for its branches")?;
        let Some(commit) = git::parse_ls_remote(&answer).branch else {
            return Err(Failure::refused(format!("{} has no branch {name}", forge.remote))
                .next(format!("git push {} {name}", forge.remote))
                .into());
        };
        cx.system.stdout(&git::fetch_objects(&forge.remote, name), "the remote does not give its commits")?;
        commits.push(commit);
    }
    let to = commits.pop().unwrap_or_default();
    Ok((commits.pop().unwrap_or_default(), to))
}

fn state(cx: &Context, argocd: &Argocd, name: &str) -> Result<Option<State>> {
    let question = argocd.get(name);
    let answer = cx.system.output(&question)?;
    if !answer.success() {
        let absent = argocd::is_absent(&answer.stderr);
        return if absent { Ok(None) } else { Err(asked(cx, &question, &answer)) };
    }
    let unreadable = |why| Failure::environment(format!("argocd wrote what can't be read about {name}: {why}"));
    Ok(Some(argocd::parse(&answer.stdout).map_err(unreadable)?))
}

fn asked(cx: &Context, question: &Invocation, answer: &Output) -> anyhow::Error {
    let failure = cx.system.failed(question, answer, "ArgoCD does not answer");
    let server = &cx.repo.config.argocd.clone().unwrap_or_default();
    Failure { kind: Kind::Environment, ..failure }.next(format!("argocd login {server} --grpc-web --sso")).into()
}

fn commands(argocd: &Argocd, step: &Step, limit: Duration) -> Vec<Invocation> {
    let set = step.set.as_ref().map(|revision| argocd.set_revision(&step.name, revision));
    set.into_iter().chain([argocd.sync(&step.name), argocd.wait(&step.name, limit)]).collect()
}

fn one(cx: &Context, argocd: &Argocd, app: &App, step: &Step, limit: Duration) -> Result<()> {
    let mut stage = cx.report.stage("deploy");
    if let Some(revision) = &step.set {
        stage.update(&format!("{}: follow {revision}", step.name));
        cx.system.stdout(&argocd.set_revision(&step.name, revision), "the revision can't be set")?;
    }
    let diff = cx.system.output(&argocd.diff(&step.name))?;
    for line in diff.stdout.lines() {
        stage.say(&format!("    {line}"));
    }
    stage.update(&format!("{}: sync", step.name));
    cx.system.stdout(&argocd.sync(&step.name), "the sync does not start")?;
    let deadline = Instant::now() + limit;
    let mut seen = 0;
    loop {
        signal::sleep(PAUSE)?;
        let now =
            state(cx, argocd, &step.name)?.ok_or_else(|| Failure::refused(format!("{} has gone away", step.name)))?;
        if now.is_settled() {
            stage.done(&format!("{}: {}", step.name, now.words()));
            return Ok(());
        }
        stage.update(&format!("{}: {}", step.name, now.words()));
        let trouble = trouble(cx, app)?;
        if let Some(failure) = failed_for_good(&now) {
            return Err(failure.tail(now.reasons).into());
        }
        let sick = trouble.is_some() || now.health == "Degraded";
        seen = if sick { seen + 1 } else { 0 };
        let late = Instant::now() > deadline;
        if seen >= PATIENCE || late {
            return Err(given_up(cx, app, &now, trouble.as_ref(), late).into());
        }
    }
}

/// A sync that ended badly does not get better by waiting.
fn failed_for_good(state: &State) -> Option<Failure> {
    matches!(state.operation.as_str(), "Failed" | "Error")
        .then(|| Failure::refused(format!("the sync of {} failed", state.name)))
}

/// The pod of the Application that will not start, where its cluster can be asked.
fn trouble(cx: &Context, app: &App) -> Result<Option<(String, Trouble)>> {
    let Ok(context) = context(cx, app) else { return Ok(None) };
    if run::find("kubectl").is_none() {
        return Ok(None);
    }
    let question = kubectl::in_cluster(context, PODS, &["get", "pods", "--namespace", &app.namespace, "--output=json"]);
    let answer = match cx.system.output(&question) {
        Ok(answer) if answer.success() => answer.stdout,
        Err(error) if signal::interrupted() => return Err(error),
        // ArgoCD remains the judge where the cluster can't be asked.
        _ => return Ok(None),
    };
    let pods = pods::parse(&answer).unwrap_or_default();
    Ok(pods.into_iter().find_map(|pod| Some((pod.name, pod.trouble?))))
}

fn given_up(cx: &Context, app: &App, state: &State, trouble: Option<&(String, Trouble)>, late: bool) -> Failure {
    let mut lines = state.reasons.clone();
    let mut why = if late { "it took too long".to_owned() } else { format!("it is {}", state.health) };
    let mut next = format!("argocd app get {}", state.name);
    if let (Some((pod, trouble)), Ok(context)) = (trouble, context(cx, app)) {
        let Trouble { container, reason, message } = trouble;
        why = format!("{container} of pod {pod} is in {reason}");
        lines.push(message.clone());
        let words = ["logs", pod, "--namespace", &app.namespace, "--container", container, "--tail=20"];
        let mut log = String::new();
        // The container that has ended says more than the one that has just begun.
        for more in [&["--previous"][..], &[]] {
            let words: Vec<&str> = words.iter().chain(more).copied().collect();
            let question = kubectl::in_cluster(context, PODS, &words);
            next = question.to_string();
            log = cx
                .system
                .output(&question)
                .ok()
                .filter(Output::success)
                .map(|output| output.stdout)
                .unwrap_or_default();
            if !log.trim().is_empty() {
                break;
            }
        }
        lines.extend(run::tail(&log));
    }
    lines.retain(|line| !line.trim().is_empty());
    Failure::refused(format!("{} does not get healthy: {why} ({})", state.name, state.words())).tail(lines).next(next)
}
