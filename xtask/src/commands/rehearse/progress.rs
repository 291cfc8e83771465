//! The plan of the service, as it stands at each stage of the rehearsal: nothing released, then released, then all of it.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use crate::commands::Context;
use crate::exec::signal;
use crate::model::failure::Failure;
use crate::tools::{git, own};

/// Steps about what a stage may not have: a chart that is another than its stand-in, a forge elsewhere than behind Caddy.
const OUTSIDE: [&str; 2] = ["parity", "mirror-"];

/// What comes afterwards is another decision.
const AFTERWARDS: u64 = 7;

/// A step and its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) id: String,
    pub(super) state: String,
    seen: String,
}

/// What the plan says of each of its steps on the stage.
pub(super) fn steps(cx: &Context, service: &str) -> Result<Vec<Step>> {
    let words = ["plan", service].map(str::to_owned);
    let invocation = own::call(&words, &["--format", "json"])?.limit(Duration::from_secs(300));
    let output = cx.system.output(&invocation)?;
    let value: Value = serde_json::from_str(&output.stdout).unwrap_or_default();
    let Some(phases) = value.pointer("/result/plans/0/phases").and_then(Value::as_array) else {
        return Err(cx.system.failed(&invocation, &output, "the plan gave no result").into());
    };
    let own = phases.iter().filter(|phase| phase["phase"].as_u64() != Some(AFTERWARDS));
    let steps = own.flat_map(|phase| phase["steps"].as_array().into_iter().flatten());
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    Ok(steps
        .map(|step| Step { id: text(step, "step"), state: text(step, "state"), seen: text(step, "seen") })
        .collect())
}

impl Step {
    pub(super) fn is_done(&self) -> bool {
        self.state == "done"
    }

    /// Tag, image or pin.
    fn is_of_release(&self) -> bool {
        ["tag-", "image-", "pin-"].iter().any(|start| self.id.starts_with(start))
    }

    fn told(&self) -> String {
        format!("{}: {}: {}", self.id, self.state, self.seen)
    }

    fn is_outside(&self) -> bool {
        self.state == "cannot tell" && OUTSIDE.iter().any(|start| self.id.starts_with(start))
    }
}

/// The names of the steps that a stage could do and that are not done.
pub(super) fn open(steps: &[Step]) -> Vec<&str> {
    steps.iter().filter(|step| !step.is_done() && !step.is_outside()).map(|step| step.id.as_str()).collect()
}

fn count(steps: &[Step]) -> String {
    format!("{} of {} steps are done", steps.iter().filter(|step| step.is_done()).count(), steps.len())
}

/// Before anything was released: no tag, no image, no pin is there, and nothing runs.
pub(super) fn at_the_start(cx: &Context, service: &str) -> Result<Value> {
    let shown = cx.report.stage("plan");
    let steps = steps(cx, service)?;
    let early: Vec<&str> = steps
        .iter()
        .filter(|step| {
            let is_late = step.is_of_release()
                || ["synced", "pods", "in-tailnet", "through-caddy", "scraped", "verified"].contains(&step.id.as_str());
            is_late && step.is_done()
        })
        .map(|step| step.id.as_str())
        .collect();
    if !early.is_empty() {
        let summary = format!("nothing was released yet, and the plan says that these are done: {}", early.join(", "));
        return Err(Failure::refused(summary).into());
    }
    shown.done(&format!("{} before the release: what the files tell", count(&steps)));
    Ok(value("start", &steps))
}

/// Once released and merged: every step of the containers is done.
pub(super) fn once_released(cx: &Context, service: &str) -> Result<Value> {
    let shown = cx.report.stage("plan");
    let forge = &cx.repo.config.forge;
    cx.system.stdout(&git::push_head(&forge.remote), "the operator's part: main gets the pins")?;
    let steps = steps(cx, service)?;
    let wanted = |step: &&Step| step.id == "merged" || step.is_of_release();
    let left: Vec<String> = steps.iter().filter(wanted).filter(|step| !step.is_done()).map(Step::told).collect();
    if !left.is_empty() {
        return Err(Failure::refused("released and merged, and the plan says otherwise").tail(left).into());
    }
    shown.done(&format!("{} once released and merged", count(&steps)));
    Ok(value("released", &steps))
}

/// Once deployed: everything that a stage can do is done; what reconciles may take a while.
pub(super) fn at_the_end(cx: &Context, service: &str, patience: Duration) -> Result<Value> {
    let shown = cx.report.stage("plan");
    let until = Instant::now() + patience;
    loop {
        let steps = steps(cx, service)?;
        if open(&steps).is_empty() {
            let outside: Vec<&str> = steps.iter().filter(|step| !step.is_done()).map(|step| step.id.as_str()).collect();
            let rest =
                if outside.is_empty() { String::new() } else { format!("; no stage has {}", outside.join(", ")) };
            shown.done(&format!("{}{rest}", count(&steps)));
            return Ok(value("end", &steps));
        }
        if Instant::now() > until {
            let left = steps.iter().filter(|step| !step.is_done() && !step.is_outside());
            let left = left.map(Step::told).collect();
            return Err(Failure::refused("all is deployed, and the plan says otherwise").tail(left).into());
        }
        signal::sleep(Duration::from_secs(2))?;
    }
}

fn value(at: &str, steps: &[Step]) -> Value {
    let done = steps.iter().filter(|step| step.is_done()).count();
    json!({"at": at, "done": done, "count": steps.len(), "open": open(steps)})
}
