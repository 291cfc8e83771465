//! How far a deployment is: its phases and steps, each with what reality says of it.

mod ask;
mod page;
pub(crate) mod shown;

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;

use super::{Context, check};
use crate::model::failure::Failure;
use crate::model::plan::{State, Step, is_done};
use crate::model::suggest::nearest;
use crate::model::world::World;
use crate::probes::plan::{Draft, drafts, names, settle};
use crate::report::{Format, Outcome};

/// How far the deployment of a service is, phase by phase, as reality says
#[derive(clap::Args, Debug)]
#[command(
    after_help = "A step is done when what it promises is true now; nothing is remembered. Forge, registry, vault, clusters and hosts are asked at once; who does not answer leaves its steps at `cannot tell`. Exit code 1 while something is not done.\n\nExamples:\n  cargo xtask plan authentik\n  cargo xtask plan authentik --offline\n  cargo xtask plan authentik --write        # the page that shows what the checkout tells\n  cargo xtask plan --format markdown"
)]
pub(crate) struct Args {
    /// Which service; default: those that are planned
    pub(crate) service: Option<String>,
    /// Ask nobody: only what the checkout tells
    #[arg(long)]
    pub(crate) offline: bool,
    /// Write what the checkout tells into the service's page
    #[arg(long)]
    pub(crate) write: bool,
    /// Show what --write would change, as a diff that git apply takes
    #[arg(long, requires = "write")]
    pub(crate) dry_run: bool,
}

/// A service with its steps.
pub(crate) struct Plan {
    pub(crate) service: String,
    pub(crate) steps: Vec<Step>,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    if args.write {
        return page::run(cx, args);
    }
    let world = check::world(cx)?;
    let plans = services(&world, args.service.as_deref())?
        .into_iter()
        .map(|service| if args.offline { Ok(of_checkout(&world, &service)) } else { asked(cx, &world, &service) })
        .collect::<Result<Vec<Plan>>>()?;
    Ok(outcome(cx.report.format, &plans))
}

/// The services that are meant.
///
/// # Errors
/// Nothing here is called so, or nothing is planned.
pub(super) fn services(world: &World, name: Option<&str>) -> Result<Vec<String>> {
    let known = names(world);
    let Some(name) = name else {
        let planned: Vec<String> = world.repo.config.plans.keys().cloned().collect();
        let next = format!("name one of: {}", known.into_iter().collect::<Vec<_>>().join(", "));
        let nothing = || Failure::refused("nothing is planned: xtask/blumeops.toml has no [plans.SERVICE]").next(next);
        return if planned.is_empty() { Err(nothing().into()) } else { Ok(planned) };
    };
    if known.contains(name) {
        return Ok(vec![name.to_owned()]);
    }
    let next = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "there are: {}; [plans.{name}] in xtask/blumeops.toml plans another",
            known.into_iter().collect::<Vec<_>>().join(", ")
        ),
    };
    Err(Failure::refused(format!("there is no Application {name}, and none is planned")).next(next).into())
}

/// Everybody is asked.
///
/// # Errors
/// Interrupted.
pub(super) fn asked(cx: &Context, world: &World, service: &str) -> Result<Plan> {
    let drafts = drafts(world, service);
    let answers = ask::all(cx, world, &drafts, service)?;
    Ok(plan(service, &drafts, &answers))
}

/// Nobody is asked.
fn of_checkout(world: &World, service: &str) -> Plan {
    plan(service, &drafts(world, service), &BTreeMap::new())
}

fn plan(service: &str, drafts: &[Draft], answers: &BTreeMap<String, State>) -> Plan {
    Plan { service: service.to_owned(), steps: settle(drafts, answers) }
}

fn outcome(format: Format, plans: &[Plan]) -> Outcome {
    let human: Vec<String> = plans.iter().map(shown::human).collect();
    let other = (format == Format::Markdown).then(|| plans.iter().map(shown::markdown).collect::<Vec<_>>().join("\n"));
    let values: Vec<_> = plans.iter().map(shown::value).collect();
    let code = u8::from(!plans.iter().all(|plan| is_done(&plan.steps)));
    Outcome { human: human.join("\n"), json: json!({"plans": values}), code, other }
}
