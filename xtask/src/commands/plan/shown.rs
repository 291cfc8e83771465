//! A plan for people and programs, from the same values.

use serde_json::{Value, json};

use super::Plan;
use crate::model::plan::{How, Phase, State, Step, is_done, of_phase};
use crate::tools::own;

/// The phases that have steps, with them.
pub(super) fn phases(plan: &Plan) -> Vec<(Phase, Vec<&Step>)> {
    let of = |phase: Phase| plan.steps.iter().filter(|step| step.phase == phase).collect::<Vec<_>>();
    Phase::ALL.into_iter().map(|phase| (phase, of(phase))).filter(|(_, steps)| !steps.is_empty()).collect()
}

/// The command or the act that would do a step.
pub(crate) fn how(step: &Step) -> String {
    match &step.how {
        How::Run(words) | How::Accept(words) => own::shown(words),
        How::Change(change) => format!("a change to {}", change.path),
        How::Person(what) => what.clone(),
    }
}

fn mark(state: &State) -> &'static str {
    match state {
        State::Done(_) => "\x1b[32m✓\x1b[0m",
        State::ToDo(_) => "\x1b[33m○\x1b[0m",
        State::Blocked(..) => "\x1b[2m·\x1b[0m",
        State::Unknown(_) => "\x1b[35m?\x1b[0m",
    }
}

/// Why it is not done.
pub(crate) fn because(state: &State) -> String {
    match state {
        State::Done(seen) => seen.clone(),
        State::ToDo(seen) => format!("to do: {seen}"),
        State::Blocked(seen, by) => format!("blocked by {}: {seen}", by.join(", ")),
        State::Unknown(why) => format!("cannot tell: {why}"),
    }
}

/// How many steps of the phases themselves are done.
pub(crate) fn counts(plan: &Plan) -> (usize, usize) {
    let own = plan.steps.iter().filter(|step| step.phase != Phase::Afterwards);
    (own.clone().filter(|step| step.state.is_done()).count(), own.count())
}

pub(super) fn human(plan: &Plan) -> String {
    let mut text = format!("{}\n", plan.service);
    for (phase, steps) in phases(plan) {
        text += &format!("\n{phase}: {}\n", of_phase(steps.iter().copied()));
        for step in steps {
            text += &format!("  {} {:14} {}\n", mark(&step.state), step.id, step.promise);
            text += &format!("  {:16} \x1b[2m{}\x1b[0m\n", "", because(&step.state));
            if matches!(step.state, State::ToDo(_)) {
                text += &format!("  {:16} {}: {}\n", "", step.how.who(), how(step));
            }
        }
    }
    let (done, count) = counts(plan);
    let end = if is_done(&plan.steps) { ": all that is promised is true" } else { "" };
    text + &format!("\n{done} of {count} steps done{end}\n")
}

pub(super) fn markdown(plan: &Plan) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace(['\r', '\n'], " ");
    let (done, count) = counts(plan);
    let mut text = format!("### {}: {done} of {count} steps done\n", plan.service);
    for (phase, steps) in phases(plan) {
        text += &format!(
            "\n**{phase}: {}**\n\n| step | what is true then | state |\n| --- | --- | --- |\n",
            of_phase(steps.iter().copied())
        );
        for step in steps {
            text += &format!("| {} | {} | {} |\n", step.id, cell(&step.promise), cell(&because(&step.state)));
        }
    }
    text
}

pub(super) fn value(plan: &Plan) -> Value {
    let (done, count) = counts(plan);
    let phase = |(phase, steps): (Phase, Vec<&Step>)| {
        let state = of_phase(steps.iter().copied());
        let steps: Vec<Value> = steps.into_iter().map(step).collect();
        json!({"phase": phase.number(), "title": phase.title(), "state": state, "steps": steps})
    };
    let phases: Vec<Value> = phases(plan).into_iter().map(phase).collect();
    json!({"service": plan.service, "done": done, "count": count, "complete": is_done(&plan.steps), "phases": phases})
}

fn step(step: &Step) -> Value {
    let by = if let State::Blocked(_, by) = &step.state { by.as_slice() } else { &[] };
    json!({
        "step": step.id, "promise": step.promise, "state": step.state.word(), "seen": step.state.seen(),
        "blocked_by": by, "after": step.needs, "who": step.how.who(), "how": how(step),
    })
}
