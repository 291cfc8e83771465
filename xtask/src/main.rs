//! Parse, find the root, call, report, exit code.

mod checks;
mod cli;
mod commands;
mod exec;
mod forge;
mod model;
mod probes;
mod registry;
mod report;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use serde_json::{Value, json};

use cli::Cli;
use commands::Context;
use exec::redact::Redactor;
use exec::run::System;
use model::failure::Failure;
use model::repo::Repo;
use report::{Format, Outcome, Reporter, findings};
use tools::kubectl;

fn main() -> ExitCode {
    let cli = Cli::parse();
    exec::signal::listen();
    let report = Reporter { format: cli.format, redactor: redactor() };
    let result = run(&cli, &report);
    ExitCode::from(finish(&report, result))
}

fn run(cli: &Cli, report: &Reporter) -> Result<Outcome> {
    if !matches!(cli.format, Format::Human | Format::Json) && !cli.command.formats().contains(&cli.format) {
        return Err(Failure::environment("this command does not have this format")
            .next("--format human or json")
            .into());
    }
    let root = exec::fs::root(cli.root.as_deref()).map_err(Failure::environment)?;
    let mut repo = Repo::load(exec::fs::sources(&root))
        .map_err(|finding| Failure::of_findings("the configuration can't be read", vec![*finding]))?;
    let servers = kubectl::servers(&exec::fs::kubeconfigs());
    repo.config.clusters.iter_mut().for_each(|cluster| cluster.meet(&servers));
    let system = System { root, verbosity: cli.verbose, redactor: report.redactor.clone(), overlay: Vec::new() };
    cli.command.run(&Context { system, report: report.clone(), repo, grammar: cli::grammar })
}

/// Knows what is secret in the environment and in the registry's auth file.
fn redactor() -> Redactor {
    let mut secrets = exec::env::secret_values();
    if let Ok(Some(credentials)) = registry::Credentials::find("") {
        secrets.push(credentials.secret().to_owned());
    }
    Redactor::new(secrets)
}

fn finish(report: &Reporter, result: Result<Outcome>) -> u8 {
    let (code, value): (u8, Value) = match result {
        Ok(outcome) => {
            match (&outcome.other, report.format) {
                (Some(text), _) => _ = report.data(text),
                (None, Format::Human) => _ = report.data(&outcome.human),
                (None, _) => {}
            }
            (outcome.code, json!({"ok": outcome.code == 0, "exit": outcome.code, "result": outcome.json}))
        }
        Err(error) => {
            let failure =
                error.downcast::<Failure>().unwrap_or_else(|error| Failure::environment(format!("{error:#}")));
            report.say(findings::failure(&failure).trim_end());
            (
                failure.exit_code(),
                json!({"ok": false, "exit": failure.exit_code(), "error": findings::failure_json(&failure)}),
            )
        }
    };
    if report.format == Format::Json {
        _ = report.data(&value.to_string());
    }
    code
}
