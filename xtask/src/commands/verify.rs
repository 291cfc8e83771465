//! The checklist of a deployed service, point by point.

mod points;
mod record;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Context, check};
use crate::exec::{env, fs, signal};
use crate::model::expectation::duration;
use crate::model::failure::Failure;
use crate::model::suggest::nearest;
use crate::probes::Outlook;
use crate::probes::verify::{Point, Service, State, in_vain, service};
use crate::report::{Format, Outcome};
use points::Asked;

/// How long before a point that may pass is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// Verify a deployed service: builds, database, pods, ingress, page, login, metrics, services
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask verify authentik --wait 10m\n  cargo xtask verify authentik --format markdown\n  cargo xtask verify dex --services dex --record=dex.md"
)]
pub(crate) struct Args {
    /// Which service, by its Application
    pub(crate) service: String,
    /// How long to wait for points that may yet pass
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) wait: Option<Duration>,
    /// What the last point checks; default: everything
    #[arg(long, value_name = "NAME", num_args = 1..)]
    pub(crate) services: Vec<String>,
    /// Write the evidence, with commit and time, as Markdown
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) record: Option<String>,
}

impl Args {
    /// One service, once, with everything.
    pub(crate) fn of(service: &str) -> Self {
        Self { service: service.to_owned(), wait: None, services: Vec::new(), record: None }
    }
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let world = check::world(cx)?;
    let Some(app) = world.apps.iter().find(|app| app.name == args.service) else {
        let names: Vec<&str> = world.apps.iter().map(|app| app.name.as_str()).collect();
        let near = nearest(&args.service, names.iter().copied());
        let next =
            near.map_or_else(|| format!("there are: {}", names.join(", ")), |near| format!("did you mean `{near}`?"));
        return Err(Failure::refused(format!("there is no Application {}", args.service)).next(next).into());
    };
    let service = service(&world, app);
    let asked = Asked { cx, world: &world, service: &service, services: &args.services };
    asked.preflight()?;
    let states = ask(&asked, &service, args.wait.unwrap_or_default())?;
    let record =
        record::Record { service: &args.service, commit: record::commit(cx), time: env::now(), states: &states };
    let markdown = record.markdown();
    // What was asked for in ten minutes is not lost with a full disk: it is shown all the same.
    let unwritten = keep(cx, args, &record).err().map(|error| format!("{error:#}"));
    if let Some(why) = &unwritten {
        cx.report.say(&format!("error: the evidence is not kept: {why}"));
    }
    let failed = states.iter().filter(|(_, state)| !matches!(state, State::Passed(_))).count();
    let points: Vec<Value> = states.iter().map(|(point, state)| record::value(*point, state)).collect();
    let json = json!({"service": args.service, "commit": record.commit, "time": record.time, "points": points, "failed": failed});
    let other = match cx.report.format {
        Format::Markdown => Some(markdown),
        Format::Junit => Some(record.junit()),
        _ => None,
    };
    let code = match (failed, unwritten) {
        (0, None) => 0,
        (0, Some(_)) => 2,
        _ => 1,
    };
    Ok(Outcome { human: record.human(), json, code, other })
}

/// Writes what was found to where CI and `--record` want it.
fn keep(cx: &Context, args: &Args, record: &record::Record<'_>) -> Result<()> {
    if let Some(summary) = env::var("GITHUB_STEP_SUMMARY") {
        fs::append(&PathBuf::from(summary), &cx.system.redactor.clean(&record.markdown()))?;
    }
    if let Some(file) = &args.record {
        let file = if file.is_empty() { format!("verify-{}.md", args.service) } else { file.clone() };
        let path = std::env::current_dir().unwrap_or_default().join(&file);
        fs::write(&path, &cx.system.redactor.clean(&record.evidence()))?;
        cx.report.say(&format!("the evidence is in {file}"));
    }
    Ok(())
}

/// Asks the points in their order; those that may pass again, until the time is over or one is hopeless.
fn ask(asked: &Asked<'_>, service: &Service<'_>, wait: Duration) -> Result<Vec<(Point, State)>> {
    let points = service.points();
    let end = Instant::now() + wait;
    let mut states: Vec<(Point, State)> = Vec::new();
    loop {
        let known = std::mem::take(&mut states);
        let mut hopeless = false;
        for point in &points {
            signal::check().map_err(|error| interrupted(&error, &states))?;
            let passed = known.iter().find(|(at, state)| at == point && matches!(state, State::Passed(_)));
            let state = match (passed, in_vain(*point, &states)) {
                (Some((_, state)), _) => state.clone(),
                (None, Some(because)) => State::NotAsked(because),
                (None, None) => asked.point(*point).map_err(|error| interrupted(&error, &states))?,
            };
            hopeless |= matches!(&state, State::Failed(bad, _) if bad.outlook == Outlook::Hopeless);
            states.push((*point, state));
        }
        let open = states.iter().any(|(_, state)| !matches!(state, State::Passed(_)));
        if !open || hopeless || Instant::now() >= end {
            return Ok(states);
        }
        let count = states.iter().filter(|(_, state)| matches!(state, State::Passed(_))).count();
        asked.cx.report.say(&format!(
            "{count} of {} points passed; asking again in {} s",
            points.len(),
            PAUSE.as_secs()
        ));
        signal::sleep(PAUSE.min(end.saturating_duration_since(Instant::now())))
            .map_err(|error| interrupted(&error, &states))?;
    }
}

/// An interruption says what had passed by then.
fn interrupted(error: &anyhow::Error, states: &[(Point, State)]) -> anyhow::Error {
    match error.downcast_ref::<Failure>() {
        Some(failure) if failure.kind == crate::model::failure::Kind::Interrupted => {
            let passed = states.iter().filter(|(_, state)| matches!(state, State::Passed(_)));
            let passed: Vec<&str> = passed.map(|(point, _)| point.title()).collect();
            let passed = if passed.is_empty() { "no point".to_owned() } else { passed.join(", ") };
            failure.clone().left(format!("passed by then: {passed}; nothing was changed")).into()
        }
        Some(failure) => failure.clone().into(),
        None => Failure::environment(format!("{error:#}")).into(),
    }
}
