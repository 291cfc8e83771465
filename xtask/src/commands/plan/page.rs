//! The states of a plan in its page: only what the checkout tells, so that the same checkout gives the same page.

use anyhow::Result;
use serde_json::json;

use super::{Args, Plan, services, shown};
use crate::commands::{Context, check};
use crate::model::failure::Failure;
use crate::model::plan::{State, Step};
use crate::report::{Outcome, diff};

const START: &str = "<!-- Written by `cargo xtask plan ";
const END: &str = "<!-- The end of what is written. -->\n";

pub(super) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    // Which tags this clone has is no part of the checkout.
    let world = check::world_with(cx, || None)?;
    if !world.findings.is_empty() {
        return Err(
            Failure::of_findings("nothing was written: not all of the checkout can be read", world.findings).into()
        );
    }
    let (mut changed, mut patches) = (Vec::new(), Vec::new());
    for service in services(&world, args.service.as_deref())? {
        let path = world.repo.config.plans.get(&service).and_then(|promise| promise.page.clone());
        let path = path.ok_or_else(|| {
            let next = format!("write page = \"docs/…\" into [plans.{service}] of xtask/blumeops.toml");
            Failure::refused(format!("no page shows the plan of {service}")).next(next)
        })?;
        let file = world.repo.files.iter().find(|file| *file.path == path);
        let before = file.ok_or_else(|| Failure::refused(format!("there is no {path}")))?.text.to_string();
        let after = replaced(&before, &block(&super::of_checkout(&world, &service))).ok_or_else(|| {
            Failure::refused(format!("{path} has no place for it"))
                .next(format!("put two lines there:\n{START}{service} --write`. -->\n{END}"))
        })?;
        if before != after {
            patches.push(diff(&path, &before, &after));
            if !args.dry_run {
                cx.write(&path, &after)?;
            }
            changed.push(path);
        }
    }
    let human = match (patches.is_empty(), args.dry_run) {
        (true, _) => "the page is as it should be".to_owned(),
        (false, true) => patches.concat(),
        (false, false) => format!("wrote {}", changed.join(", ")),
    };
    let code = u8::from(args.dry_run && !changed.is_empty());
    Ok(Outcome { human, json: json!({"changed": changed}), code, other: None })
}

/// The page with what stands between the two marks replaced.
fn replaced(page: &str, block: &str) -> Option<String> {
    let start = page.find(START)?;
    let end = start + page[start..].find(END)? + END.len();
    Some(format!("{}{block}{}", &page[..start], &page[end..]))
}

fn block(plan: &Plan) -> String {
    let mut text = format!("{START}{} --write`. -->\n", plan.service);
    for (phase, steps) in shown::phases(plan) {
        text += &format!("\n### {phase}\n\n| step | what is true then | in the checkout |\n|---|---|---|\n");
        for step in steps {
            text += &format!("| {} | {} | {} |\n", step.id, cell(&step.promise), cell(&state(step)));
        }
    }
    text + "\n" + END
}

/// A code span in a page that names a path would have to name one that exists.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("[[", "").replace("]]", "").replace('\n', " ")
}

fn state(step: &Step) -> String {
    match &step.state {
        State::Done(_) => "done".to_owned(),
        State::ToDo(why) | State::Blocked(why, _) => format!("to do: {why}"),
        State::Unknown(_) => "is asked outside".to_owned(),
    }
}
