//! The upstreams that service cards name, and their mirrors on the forge.

use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::exec::{parallel, signal};
use crate::model::failure::Failure;
use crate::model::upstream::{self, CARDS, ROW, Upstream};
use crate::report::{Outcome, table};
use crate::tools::line;

/// Check the mirrors of upstream repositories
#[derive(clap::Args, Debug)]
#[command(arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(clap::Subcommand, Debug)]
pub(crate) enum Command {
    /// Is every upstream that a service card names mirrored on the forge, not empty, and fresh?
    #[command(after_help = "Examples:\n  cargo xtask mirrors check")]
    Check,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let Command::Check = args.command;
    let upstreams = upstream::all(&cx.repo);
    if upstreams.is_empty() {
        return Err(Failure::refused(format!("nothing was checked: no page below {CARDS} has a row {ROW}")).into());
    }
    let forge = cx.forge()?.ok_or_else(|| {
        Failure::environment("there is no forge to ask")
            .next(format!("write [forge] into {}", crate::model::config::PATH))
    })?;
    let config = &cx.repo.config;
    let owner = config.owner_of_mirrors();
    let mut stage = cx.report.stage("mirrors");
    stage.update(&format!("asking for {} repositories of {owner}", upstreams.len()));
    let answers = parallel::map(&upstreams, 8, |upstream| forge.repository(&owner, &upstream.name));
    signal::check()?;
    let now = SystemTime::now();
    let (mut rows, mut values, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let mut bad = 0;
    for (upstream, answer) in upstreams.iter().zip(answers) {
        let answer = answer?;
        if answer.is_none() {
            missing.push(create(cx, &owner, upstream));
        }
        let wrong =
            answer.map_or_else(|| Some("there is none".to_owned()), |repository| repository.wrong(&upstream.url, now));
        bad += usize::from(wrong.is_some());
        let mirror = format!("{owner}/{}", upstream.name);
        values.push(json!({"upstream": upstream.url, "mirror": mirror, "ok": wrong.is_none(), "wrong": wrong}));
        rows.push(vec![
            upstream.url.clone(),
            mirror,
            wrong.unwrap_or_else(|| "ok".to_owned()),
            upstream.place.to_string(),
        ]);
    }
    stage.done(&format!("{} asked for, {bad} not as they should be", upstreams.len()));
    let mut human = table(&["UPSTREAM", "MIRROR", "STATE", "NAMED AT"], &rows);
    for command in &missing {
        human.extend([command, "\n"]);
    }
    let value: Value = json!({"mirrors": values, "create": missing});
    Ok(Outcome { human, json: value, code: u8::from(bad > 0), other: None })
}

/// What creates a mirror. Who runs it is known to curl from a file that only it reads.
fn create(cx: &Context, owner: &str, upstream: &Upstream) -> String {
    let base = cx.repo.config.forge.url.as_ref().map(ToString::to_string).unwrap_or_default();
    let url = format!("{base}/api/v1/repos/migrate");
    let body = json!({
        "clone_addr": upstream.url, "repo_owner": owner, "repo_name": upstream.name, "mirror": true,
        "mirror_interval": "8h0m0s", "service": "git",
    });
    let body = body.to_string();
    line!("curl --fail --netrc --json {body} {url}").to_string()
}
