//! One page of what check, verify, services-check and rehearse have found.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use super::{Context, check, services_check, verify};
use crate::exec::{env, fs, signal};
use crate::model::failure::{Failure, Kind};
use crate::model::graph::Graph;
use crate::model::world::{App, World};
use crate::report::documents::{Origin, section, sections};
use crate::report::drawing::{Drawing, sorted};
use crate::report::page::{Page, Section, State};
use crate::report::{Outcome, findings};
use crate::tools::git;

/// Write a check, a verification or a rehearsal as one HTML page, with the graph and what is broken in it
///
/// The page needs nothing else: no network, no script. Without FILE a check is made now. Exits with 1 when something on
/// the page has failed.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  cargo xtask report --output page.html\n  cargo xtask report --services --verify authentik --output page.html\n  cargo xtask rehearse authentik --format json | cargo xtask report - --output page.html\n  cargo xtask report check.json services.json > page.html"
)]
pub(crate) struct Args {
    /// What check, services-check, verify or rehearse have printed with --format json; `-` is stdin
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// Where the page goes; default: stdout
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Verify this service now; can be repeated
    #[arg(long, value_name = "SERVICE")]
    pub(crate) verify: Vec<String>,
    /// Run services-check now
    #[arg(long)]
    pub(crate) services: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let world = check::world(cx)?;
    let line = |path: &str, line: usize| {
        let file = world.repo.files.iter().find(|file| *file.path == *path)?;
        file.text.lines().nth(line.checked_sub(1)?).map(str::to_owned)
    };
    let mut found = Vec::new();
    for file in &args.files {
        found.extend(given(file, &line)?);
    }
    for call in calls(args) {
        let origin = Origin { source: format!("cargo xtask {}, at {}", call.words(), env::now()), line: &line };
        let document = now(call.run(cx))?;
        found.push(section(document, &origin).map_err(|why| Failure::refused(format!("{}: {why}", origin.source)))?);
    }
    let drawings = drawings(&world, &found);
    let page = Page { made: env::now(), commit: commit(cx), sections: found, drawings };
    let (code, verdict, value) = (u8::from(page.worst() != State::Fine), page.verdict(), value(&page));
    let html = page.html(&cx.system.redactor).map_err(|error| Failure::environment(format!("no page: {error}")))?;
    let Some(output) = &args.output else {
        return Ok(Outcome { human: html, json: value, code, other: None });
    };
    let path = std::env::current_dir().unwrap_or_default().join(output);
    fs::write(&path, &html)?;
    Ok(Outcome { human: format!("{}: {verdict}", output.display()), json: value, code, other: None })
}

/// What is run for the page.
enum Call<'a> {
    Check,
    Services,
    Verify(&'a str),
}

/// What the options ask for; without a file a check as well.
fn calls(args: &Args) -> Vec<Call<'_>> {
    let check = args.files.is_empty().then_some(Call::Check);
    let verify = args.verify.iter().map(|service| Call::Verify(service));
    check.into_iter().chain(verify).chain(args.services.then_some(Call::Services)).collect()
}

impl Call<'_> {
    fn words(&self) -> String {
        match self {
            Self::Check => "check".to_owned(),
            Self::Services => "services-check".to_owned(),
            Self::Verify(service) => format!("verify {service}"),
        }
    }

    fn run(&self, cx: &Context) -> Result<Outcome> {
        match self {
            Self::Check => check::run(cx, &check::Args::default()),
            Self::Services => services_check::run(cx, &services_check::Args::default()),
            Self::Verify(service) => verify::run(cx, &verify::Args::of(service)),
        }
    }
}

/// The document that the command would have printed. An interruption is not a result.
fn now(result: Result<Outcome>) -> Result<Value> {
    match result {
        Ok(outcome) => Ok(json!({"ok": outcome.code == 0, "exit": outcome.code, "result": outcome.json})),
        Err(error) => {
            signal::check()?;
            let failure = error.downcast::<Failure>()?;
            if failure.kind == Kind::Interrupted {
                return Err(failure.into());
            }
            Ok(json!({"ok": false, "exit": failure.exit_code(), "error": findings::failure_json(&failure)}))
        }
    }
}

/// The documents of a file.
fn given(file: &str, line: &dyn Fn(&str, usize) -> Option<String>) -> Result<Vec<Section>> {
    let mut text = String::new();
    let (read, source) = if file == "-" {
        (std::io::stdin().read_to_string(&mut text).map(|_| ()), "stdin".to_owned())
    } else {
        let read = std::fs::read_to_string(file).map(|content| text = content);
        (read, fs::written(file.as_ref()).map_or_else(|| file.to_owned(), |time| format!("{file}, written at {time}")))
    };
    let refused = |why: String| {
        Failure::environment(format!("{file}: {why}"))
            .left("no page was written")
            .next("give what check, services-check, verify or rehearse print with --format json")
    };
    read.map_err(|error| refused(error.to_string()))?;
    sections(&text, &Origin { source, line }).map_err(|why| refused(why).into())
}

/// A graph to each Application, the broken ones first.
fn drawings(world: &World, sections: &[Section]) -> Vec<Drawing> {
    let red = || sections.iter().flat_map(Section::red);
    let draw = |app: &App| Drawing::new(&app.name, &Graph::of(world, &[app]), red());
    sorted(world.apps.iter().map(draw).collect())
}

fn commit(cx: &Context) -> String {
    let output = cx.system.output(&git::describe()).ok().filter(crate::exec::run::Output::success);
    output.map_or_else(|| "no commit".to_owned(), |output| output.stdout.trim().to_owned())
}

fn value(page: &Page) -> Value {
    let items = || page.sections.iter().flat_map(|section| &section.items);
    let count = |state: State| items().filter(|item| item.state == state).count();
    let counts: serde_json::Map<String, Value> =
        State::ALL.into_iter().map(|state| (state.class().to_owned(), count(state).into())).collect();
    let edges = page.drawings.iter().flat_map(|drawing| {
        drawing.bad_edges().map(|edge| json!({"application": drawing.name, "from": edge.from, "to": edge.to}))
    });
    let sections: Vec<&str> = page.sections.iter().map(|section| section.title.as_str()).collect();
    json!({"made": page.made, "commit": page.commit, "sections": sections, "counts": counts, "broken": edges.collect::<Vec<_>>()})
}
