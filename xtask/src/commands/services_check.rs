//! Is everything that the repository promises there and well?

mod ask;

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;

use super::{Context, check};
use crate::exec::{env, signal};
use crate::model::expectation::duration;
use crate::model::failure::Failure;
use crate::model::world::World;
use crate::probes::select::select;
use crate::probes::{Checked, expect};
use crate::report::{Format, Outcome, Reader, health};

pub(crate) use ask::{Asking, all, list, patient, visit};

/// Check that everything the repository promises is there and well
#[derive(clap::Args, Debug, Default)]
#[command(
    after_help = "Examples:\n  cargo xtask services-check\n  cargo xtask services-check authentik\n  cargo xtask services-check ringtail --only-failed\n  cargo xtask services-check --watch --interval 1m\n  cargo xtask services-check --format prometheus"
)]
pub(crate) struct Args {
    /// Only what is about these services, hosts or checks, and what they depend on
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Leave out what is well
    #[arg(long)]
    pub(crate) only_failed: bool,
    /// Again and again, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
    /// How long to wait before the next time
    #[arg(long, default_value = "30s", value_parser = duration, requires = "watch")]
    pub(crate) interval: Duration,
    /// How long one answer may take, retries included
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// List the checks, ask nobody
    #[arg(long)]
    pub(crate) list: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let world = check::world(cx)?;
    let asking = Asking { timeout: args.timeout };
    if args.list {
        return listed(&world, &args.names);
    }
    if !args.watch {
        let started = Instant::now();
        let all = once(cx, &world, &args.names, &asking)?;
        return Ok(outcome(cx.report.format, all, args.only_failed, started.elapsed()));
    }
    let mut known = None;
    loop {
        let started = Instant::now();
        let all = once(cx, &world, &args.names, &asking)?;
        let states: Vec<bool> = all.iter().map(Checked::fails).collect();
        // After the first time only what has changed is news.
        if known.as_ref() != Some(&states) || cx.report.format != Format::Human {
            let outcome = outcome(cx.report.format, all, args.only_failed, started.elapsed());
            let json = || json!({"ok": outcome.code == 0, "exit": outcome.code, "result": outcome.json}).to_string();
            let reader = match (cx.report.format, &outcome.other) {
                (Format::Human, _) => cx.report.data(&format!("{}\n{}", env::now(), outcome.human)),
                (_, Some(text)) => cx.report.data(text),
                (_, None) => cx.report.data(&json()),
            };
            if reader == Reader::Gone {
                return Ok(Outcome { human: String::new(), other: None, ..outcome });
            }
        }
        known = Some(states);
        signal::sleep(args.interval)?;
    }
}

/// Asks everything that `names` select, once.
///
/// # Errors
/// There is nothing to ask, the configuration is wrong, a program is missing, or interrupted.
pub(crate) fn once(cx: &Context, world: &World, names: &[String], asking: &Asking) -> Result<Vec<Checked>> {
    let checks = selected(world, names)?;
    ask::all(cx, world, checks, asking)
}

fn selected(world: &World, names: &[String]) -> Result<Vec<crate::probes::Check>> {
    let expected = expect::all(world);
    if !expected.findings.is_empty() {
        return Err(Failure::of_findings("nobody was asked", expected.findings).into());
    }
    let unread = world.repo.findings.iter().chain(&world.findings).cloned().collect::<Vec<_>>();
    if !unread.is_empty() {
        return Err(Failure::of_findings("nobody was asked: not all that is expected is known", unread).into());
    }
    let checks = select(expected.checks, names).map_err(Failure::refused)?;
    if checks.is_empty() {
        return Err(Failure::refused("nothing is expected: a check of nothing does not pass")
            .next("deploy an Application, or write [[checks]] into xtask/blumeops.toml")
            .into());
    }
    Ok(checks)
}

fn listed(world: &World, names: &[String]) -> Result<Outcome> {
    let checks = selected(world, names)?;
    let rows: Vec<Vec<String>> = checks.iter().map(|it| vec![it.name.clone(), it.expected.clone()]).collect();
    let values: Vec<_> = checks
        .iter()
        .map(|it| json!({"name": it.name, "where": it.group, "expected": it.expected, "see": it.see, "about": it.tags}))
        .collect();
    Ok(Outcome::ok(crate::report::table(&["CHECK", "EXPECTED"], &rows), json!({"checks": values})))
}

fn outcome(format: Format, all: Vec<Checked>, only_failed: bool, took: Duration) -> Outcome {
    let failed = all.iter().filter(|checked| checked.fails()).count();
    let human = health::human(&all, only_failed, took.as_secs_f32());
    let count = all.len();
    let shown: Vec<Checked> = all.into_iter().filter(|checked| !only_failed || !checked.verdict.is_fine()).collect();
    let values: Vec<_> = shown.iter().map(health::value).collect();
    let json = json!({"checks": values, "count": count, "failed": failed, "seconds": took.as_secs_f64()});
    Outcome { human, json, code: u8::from(failed > 0), other: health::other(format, "services-check", &shown) }
}
