//! What a rule is for.

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::checks;
use crate::model::failure::Failure;
use crate::model::suggest::nearest;
use crate::report::{Outcome, diff, table};

/// Say what a rule is for, what breaks it, and how to waive it
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without a rule it lists them all.\n\nExamples:\n  cargo xtask explain\n  cargo xtask explain service-port"
)]
pub(crate) struct Args {
    /// Which rule
    pub(crate) rule: Option<String>,
}

pub(crate) fn run(_: &Context, args: &Args) -> Result<Outcome> {
    let Some(code) = &args.rule else {
        let rows: Vec<Vec<String>> =
            checks::rules().map(|rule| vec![rule.code.to_owned(), rule.about.to_owned()]).collect();
        let values: Vec<_> = checks::rules().map(|rule| json!({"code": rule.code, "about": rule.about})).collect();
        return Ok(Outcome::ok(table(&["RULE", "WHAT HOLDS"], &rows), json!({"rules": values})));
    };
    let Some((about, why)) = checks::meaning(code) else {
        let failure = Failure::environment(format!("there is no rule {code}"));
        let others = checks::OTHERS.iter().map(|(code, ..)| *code);
        let near = nearest(code, checks::rules().map(|rule| rule.code).chain(others));
        return Err(failure
            .next(near.map_or("cargo xtask explain".to_owned(), |near| format!("did you mean `{near}`?")))
            .into());
    };
    let Some(rule) = checks::rules().find(|rule| rule.code == code) else {
        let human = format!("{code}: {about}\n\nWhy: {why}\n\n{}", waive(code));
        return Ok(Outcome::ok(human, json!({"code": code, "about": about, "why": why, "breaks": null})));
    };
    let (path, from, to) = rule.breaks;
    let change = match to.split_once("//") {
        Some((_, "TWIN\n")) => "a second page with the name of another".to_owned(),
        Some((_, "GONE")) => format!("{path} removed"),
        Some((_, rename)) if rename.starts_with("RENAME ") => format!("{path} renamed to {}", &rename[7..]),
        _ => diff(path, &line(from), &line(to)),
    };
    let human = format!("{code}: {about}\n\nWhy: {why}\n\nThis change breaks it:\n\n{change}\n{}", waive(code));
    Ok(Outcome::ok(
        human,
        json!({"code": code, "about": about, "why": why, "breaks": {"path": path, "from": from, "to": to}}),
    ))
}

fn waive(code: &str) -> String {
    if crate::checks::parity::CODES.iter().any(|(own, ..)| *own == code) {
        return "To accept it, write the line that the finding prints into the service's file in xtask/parity, with the reason.\n".to_owned();
    }
    format!(
        "To waive it, write at the line or above it, with the reason:\n\n  # waive {code}: <reason>\n\nor in xtask/blumeops.toml:\n\n  [[waivers]]\n  rule = \"{code}\"\n  path = \"<file or folder>\"\n  reason = \"<reason>\"\n"
    )
}

fn line(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}
