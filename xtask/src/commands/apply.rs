//! Does the next steps of a plan that are safe, each shown first, and stops at what is a person's.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::plan::shown::{because, how};
use super::plan::{Plan, asked, services};
use super::{Context, check, pin};
use crate::exec::{signal, terminal};
use crate::model::failure::{Failure, Kind};
use crate::model::plan::{How, Phase, State, Step};
use crate::report::{Outcome, diff};
use crate::tools::own;

/// A release waits an hour for its image, and a deployment for its pods.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Do the next steps of a plan that are safe, and stop at what is yours
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Safe is what changes nothing that runs: files, tags, images, pins. What changes something that runs is done once it is accepted, on a terminal or by --accept. Reality is asked again after each step.\n\nExamples:\n  cargo xtask apply --dry-run\n  cargo xtask apply --next\n  cargo xtask apply containers\n  cargo xtask apply manifests --accept database-there --accept synced"
)]
pub(crate) struct Args {
    /// Only this phase, by number or title
    pub(crate) phase: Option<Phase>,
    /// Only one step
    #[arg(long)]
    pub(crate) next: bool,
    /// Of this service; default: the one that is planned
    #[arg(long, value_name = "NAME")]
    pub(crate) service: Option<String>,
    /// This step may change what runs; can be repeated
    #[arg(long, value_name = "STEP")]
    pub(crate) accept: Vec<String>,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Do(String),
    Ask(String),
    Nothing,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let world = check::world(cx)?;
    let named = services(&world, args.service.as_deref())?;
    let [service] = named.as_slice() else {
        return Err(Failure::environment(format!("several services are planned: {}", named.join(", ")))
            .next("name one with --service")
            .into());
    };
    let mut plan = asked(cx, &world, service)?;
    drop(world);
    let unknown = args.accept.iter().find(|id| !plan.steps.iter().any(|step| step.id == **id));
    if let Some(unknown) = unknown {
        return Err(Failure::environment(format!("the plan of {service} has no step {unknown}"))
            .next(format!("cargo xtask plan {service}"))
            .into());
    }
    if args.dry_run {
        return Ok(dry(cx, &plan.steps, args));
    }
    let (mut tried, mut done) = (BTreeSet::new(), Vec::new());
    loop {
        let (id, is_asked) = match next(&plan.steps, args, &tried) {
            Next::Nothing => break,
            Next::Ask(id) => (id, true),
            Next::Do(id) => (id, false),
        };
        tried.insert(id.clone());
        let Some(step) = plan.steps.iter().find(|step| step.id == id) else { break };
        show(cx, step);
        if is_asked && !agreed(cx)? {
            continue;
        }
        perform(cx, step).map_err(|error| left(error, &done))?;
        let again = again(cx)?;
        plan = asked(&again, &check::world(&again)?, service)?;
        settled(&plan, &id, &done)?;
        done.push(id);
        if args.next {
            break;
        }
    }
    Ok(outcome(&plan, args, &done))
}

/// The checkout, read again. What kubeconfigs say of the clusters was found out once and still holds.
fn again(cx: &Context) -> Result<Context> {
    let mut again = cx.at(cx.system.root.clone())?;
    again.repo.config.clusters.clone_from(&cx.repo.config.clusters);
    Ok(again)
}

fn is_wanted(step: &Step, args: &Args) -> bool {
    // What comes afterwards is only spoken of where it is named.
    args.phase.map_or(step.phase != Phase::Afterwards, |phase| phase == step.phase)
}

/// The steps that one comes after and of which nobody could say how they stand.
fn unsure<'a>(steps: &'a [Step], step: &'a Step) -> Vec<&'a str> {
    let is_meant = |other: &&Step| step.needs.contains(&other.id) && matches!(other.state, State::Unknown(_));
    steps.iter().filter(is_meant).map(|other| other.id.as_str()).collect()
}

/// The first step that can be done.
fn next(steps: &[Step], args: &Args, tried: &BTreeSet<String>) -> Next {
    let is_open = |step: &&Step| {
        is_wanted(step, args)
            && matches!(step.state, State::ToDo(_))
            && !tried.contains(&step.id)
            && unsure(steps, step).is_empty()
    };
    for step in steps.iter().filter(is_open) {
        match &step.how {
            How::Run(_) | How::Change(_) => return Next::Do(step.id.clone()),
            How::Accept(_) if args.accept.contains(&step.id) => return Next::Do(step.id.clone()),
            How::Accept(_) if terminal::is_attended() => return Next::Ask(step.id.clone()),
            How::Accept(_) | How::Person(_) => {}
        }
    }
    Next::Nothing
}

fn show(cx: &Context, step: &Step) {
    cx.report.say(&format!("→ {}: {}\n  {}\n  {}", step.id, step.promise, because(&step.state), how(step)));
    if let How::Change(change) = &step.how {
        cx.report.say(diff(&change.path, &change.before, &change.after).trim_end());
    }
}

fn agreed(cx: &Context) -> Result<bool> {
    cx.report.say("  it changes what runs; do it? [y/N]");
    terminal::says_yes()
}

fn perform(cx: &Context, step: &Step) -> Result<()> {
    match &step.how {
        How::Change(change) => cx.write(&change.path, &change.after),
        How::Run(words) | How::Accept(words) => call(cx, words),
        How::Person(_) => Ok(()),
    }
}

/// This program, as a person would call it; its talk is passed on.
fn call(cx: &Context, words: &[String]) -> Result<()> {
    let invocation = own::tethered(words, &[])?.limit(LIMIT);
    let mut say = |line: &str| cx.report.say(&format!("  {line}"));
    let output = cx.system.stream(&invocation, &mut say)?;
    signal::check()?;
    if output.success() {
        return Ok(());
    }
    let kind = if output.code == Some(2) { Kind::Environment } else { Kind::Refused };
    let failure = Failure::new(kind, format!("`{}` failed, as it says above", own::shown(words)));
    Err(Failure { command: Some(own::shown(words)), ..failure }.into())
}

/// What was done has to be true now.
fn settled(plan: &Plan, id: &str, done: &[String]) -> Result<()> {
    match plan.steps.iter().find(|step| step.id == id).map(|step| &step.state) {
        Some(State::ToDo(seen) | State::Blocked(seen, _)) => {
            let summary = format!("{id} was done, and reality says otherwise: {seen}");
            Err(left(Failure::refused(summary).next(format!("cargo xtask plan {}", plan.service)).into(), done))
        }
        _ => Ok(()),
    }
}

fn left(error: anyhow::Error, done: &[String]) -> anyhow::Error {
    let before = if done.is_empty() { "nothing before it".to_owned() } else { done.join(", ") };
    match error.downcast::<Failure>() {
        Ok(failure) => failure.left(format!("done: {before}; the same command goes on from there")).into(),
        Err(error) => error,
    }
}

/// The commands of every safe step, as if each before it had been done.
fn dry(cx: &Context, steps: &[Step], args: &Args) -> Outcome {
    let mut would: BTreeSet<&str> = BTreeSet::new();
    let mut lines: Vec<String> = Vec::new();
    for step in steps.iter().filter(|step| is_wanted(step, args)) {
        let is_ready = match &step.state {
            State::ToDo(_) => true,
            State::Blocked(_, by) => by.iter().all(|id| would.contains(id.as_str())),
            State::Done(_) | State::Unknown(_) => false,
        };
        let line = match &step.how {
            _ if !is_ready || !unsure(steps, step).is_empty() => continue,
            How::Run(words) => own::shown(words),
            How::Accept(words) if args.accept.contains(&step.id) => own::shown(words),
            How::Change(change) => pin::patch(change),
            How::Accept(_) | How::Person(_) => continue,
        };
        would.insert(&step.id);
        // One command may do several steps.
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    super::build::commands(cx, lines.into_iter())
}

/// What is not done and why apply leaves it: who, step, and what is to be done.
fn open<'a>(steps: &'a [Step], args: &Args) -> Vec<(&'static str, &'a Step, String)> {
    let why = |step: &'a Step| match (&step.state, &step.how) {
        (State::Done(_) | State::Blocked(..), _) => None,
        (State::Unknown(why), _) => Some(("cannot tell", step, why.clone())),
        (State::ToDo(_), _) if !unsure(steps, step).is_empty() => {
            Some(("held back", step, format!("it is not known of {}", unsure(steps, step).join(", "))))
        }
        (State::ToDo(_), How::Person(what)) => Some(("yours", step, what.clone())),
        (State::ToDo(_), How::Accept(_)) => Some(("to accept", step, format!("{}: --accept {}", how(step), step.id))),
        (State::ToDo(_), How::Run(_) | How::Change(_)) => Some(("next", step, how(step))),
    };
    steps.iter().filter(|step| is_wanted(step, args)).filter_map(why).collect()
}

fn outcome(plan: &Plan, args: &Args, done: &[String]) -> Outcome {
    let open = open(&plan.steps, args);
    let mut human = match done {
        [] => "nothing was done\n".to_owned(),
        done => format!("done: {}\n", done.join(", ")),
    };
    for (who, step, what) in &open {
        human += &format!("{who}: {}: {what}\n", step.id);
    }
    let count = plan.steps.iter().filter(|step| is_wanted(step, args) && !step.state.is_done()).count();
    if count == 0 {
        human += "all that is promised is true\n";
    }
    let values: Vec<Value> =
        open.iter().map(|(who, step, what)| json!({"step": step.id, "why": who, "what": what})).collect();
    let json = json!({"service": plan.service, "did": done, "open": values, "left": count});
    let is_fine = count == 0 || (args.next && !done.is_empty());
    Outcome { human, json, code: u8::from(!is_fine), other: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::plan::block;

    fn step(id: &str, needs: &[&str], how: How, state: State) -> Step {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Step { id: id.to_owned(), phase: Phase::Containers, promise: String::new(), needs, how, state }
    }

    fn args(phase: Option<Phase>, accept: &[&str]) -> Args {
        let accept = accept.iter().map(|id| (*id).to_owned()).collect();
        Args { phase, next: false, service: None, accept, dry_run: false }
    }

    #[test]
    fn what_is_safe_comes_next_and_what_is_a_persons_never() {
        let (run, accept) = (|| How::Run(vec!["release".to_owned()]), || How::Accept(vec!["deploy".to_owned()]));
        let to_do = || State::ToDo("no".to_owned());
        let mut steps = vec![
            step("item", &[], How::Person("make it".to_owned()), to_do()),
            step("silent", &[], run(), State::Unknown("nobody".to_owned())),
            step("held", &["silent"], run(), to_do()),
            step("waits", &["item"], run(), to_do()),
            step("deploy", &[], accept(), to_do()),
            step("safe", &[], run(), to_do()),
        ];
        block(&mut steps);
        let none = BTreeSet::new();
        assert_eq!(next(&steps, &args(None, &[]), &none), Next::Do("safe".to_owned()));
        assert_eq!(next(&steps, &args(None, &["deploy"]), &none), Next::Do("deploy".to_owned()));
        assert_eq!(next(&steps, &args(Some(Phase::Networking), &[]), &none), Next::Nothing);
        let plan = Plan { service: "web".to_owned(), steps };
        let outcome = outcome(&plan, &args(None, &[]), &["safe".to_owned()]);
        assert_eq!(outcome.code, 1);
        assert_eq!(
            outcome.human,
            "done: safe\nyours: item: make it\ncannot tell: silent: nobody\nheld back: held: it is not known of silent\nto accept: deploy: cargo xtask deploy: --accept deploy\nnext: safe: cargo xtask release\n"
        );
    }
}
