//! The manual: every command, one line each, and the match that calls it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    Context, apply, branches, build, check, containers, deploy, diff, doctor, explain, graph, logs, mirrors, parity,
    pin, plan, provision, publish, refs, registry, rehearse, release, render, report, secrets, services_check, setup,
    smoke, verify,
};
use crate::model::grammar::{Grammar, Opt};
use crate::report::{Format, Outcome};

/// Check a repository, and build, release and pin its containers.
///
/// stdout is data, stderr is talk. Exit codes: 0 fine, 1 refused or failed, 2 usage or environment, 130 interrupted.
#[derive(Parser, Debug)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How the result is written
    #[arg(long, global = true, value_enum, default_value = "human")]
    pub(crate) format: Format,
    /// The checkout to work on; default: the one around the working directory
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Show commands; twice: their output as well
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    Doctor(doctor::Args),
    Setup(setup::Args),
    Containers(containers::Args),
    Build(build::Args),
    Smoke(smoke::Args),
    Release(release::Args),
    Publish(publish::Args),
    Pin(pin::Args),
    Rehearse(rehearse::Args),
    Check(check::Args),
    Explain(explain::Args),
    Render(render::Args),
    Refs(refs::Args),
    Diff(diff::Args),
    Graph(graph::Args),
    Parity(parity::Args),
    Plan(plan::Args),
    Apply(apply::Args),
    Provision(provision::Args),
    ServicesCheck(services_check::Args),
    Verify(verify::Args),
    Deploy(deploy::Args),
    Branches(branches::Args),
    Secrets(secrets::Args),
    Mirrors(mirrors::Args),
    Registry(registry::Args),
    Logs(logs::Args),
    Report(report::Args),
}

impl Command {
    /// The formats that it has beside those that all have.
    pub(crate) fn formats(&self) -> &'static [Format] {
        match self {
            Self::Check(_) => &[Format::Sarif, Format::Junit, Format::Github],
            Self::ServicesCheck(_) => &[Format::Junit, Format::Tap, Format::Prometheus],
            Self::Verify(_) => &[Format::Junit, Format::Markdown],
            Self::Parity(_) => &[Format::Markdown, Format::Sarif],
            Self::Plan(_) => &[Format::Markdown],
            Self::Smoke(_) => &[Format::Junit],
            _ => &[],
        }
    }

    pub(crate) fn run(&self, cx: &Context) -> Result<Outcome> {
        match self {
            Self::Doctor(args) => doctor::run(cx, args),
            Self::Setup(args) => setup::run(cx, args),
            Self::Containers(args) => containers::run(cx, args),
            Self::Build(args) => build::run(cx, args),
            Self::Smoke(args) => smoke::run(cx, args),
            Self::Release(args) => release::run(cx, args),
            Self::Publish(args) => publish::run(cx, args),
            Self::Pin(args) => pin::run(cx, args),
            Self::Rehearse(args) => rehearse::run(cx, args),
            Self::Check(args) => check::run(cx, args),
            Self::Explain(args) => explain::run(cx, args),
            Self::Render(args) => render::run(cx, args),
            Self::Refs(args) => refs::run(cx, args),
            Self::Diff(args) => diff::run(cx, args),
            Self::Graph(args) => graph::run(cx, args),
            Self::Parity(args) => parity::run(cx, args),
            Self::Plan(args) => plan::run(cx, args),
            Self::Apply(args) => apply::run(cx, args),
            Self::Provision(args) => provision::run(cx, args),
            Self::ServicesCheck(args) => services_check::run(cx, args),
            Self::Verify(args) => verify::run(cx, args),
            Self::Deploy(args) => deploy::run(cx, args),
            Self::Branches(args) => branches::run(cx, args),
            Self::Secrets(args) => secrets::run(cx, args),
            Self::Mirrors(args) => mirrors::run(cx, args),
            Self::Registry(args) => registry::run(cx, args),
            Self::Logs(args) => logs::run(cx, args),
            Self::Report(args) => report::run(cx, args),
        }
    }
}

/// The command line as data.
pub(crate) fn grammar() -> Grammar {
    let mut command = Cli::command();
    command.build();
    grammar_of(&command)
}

fn grammar_of(command: &clap::Command) -> Grammar {
    let mut grammar = Grammar { most: Some(0), ..Grammar::default() };
    for argument in command.get_arguments() {
        if argument.is_positional() {
            let most = argument.get_num_args().map_or(1, |range| range.max_values());
            grammar.most = grammar.most.filter(|_| most < usize::MAX).map(|count| count + most);
            continue;
        }
        let values = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let option = Opt { takes_value: argument.get_action().takes_values(), values };
        let long =
            argument.get_long_and_visible_aliases().unwrap_or_default().into_iter().map(|name| format!("--{name}"));
        let short =
            argument.get_short_and_visible_aliases().unwrap_or_default().into_iter().map(|name| format!("-{name}"));
        grammar.options.extend(long.chain(short).map(|name| (name, option.clone())));
    }
    let commands = command.get_subcommands();
    grammar.commands = commands.map(|command| (command.get_name().to_owned(), grammar_of(command))).collect();
    grammar
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use clap::error::ErrorKind;
    use clap::{CommandFactory as _, Parser as _};

    use super::Cli;

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                files(&entry.path(), found);
            } else {
                found.push(entry.path());
            }
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The reference is generated: `UPDATE_REFERENCE=1 cargo test` writes it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test writes the page")]
    fn the_reference_is_up_to_date() {
        let page = root().join("docs/reference/cargo-xtask.md");
        let current = reference();
        if std::env::var("UPDATE_REFERENCE").is_ok() {
            std::fs::write(&page, &current).unwrap();
        }
        assert!(
            std::fs::read_to_string(&page).unwrap_or_default() == current,
            "docs/reference/cargo-xtask.md is stale: UPDATE_REFERENCE=1 cargo test"
        );
    }

    fn reference() -> String {
        let mut text = "---\ntitle: cargo xtask\nmodified: 2026-11-24\ntags: [reference, tools]\n---\n\n# cargo xtask\n\nGenerated by `UPDATE_REFERENCE=1 cargo test`.\n".to_owned();
        let mut cli = Cli::command().term_width(100);
        cli.build();
        let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in names.iter().filter(|name| *name != "help") {
            let command = cli.find_subcommand_mut(name).unwrap();
            let help = command.render_long_help().to_string();
            let help: String = help.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
            text.extend(["\n## ", name, "\n\n```text\n", help.trim_start(), "```\n"]);
        }
        text
    }

    /// Every line of ours that calls the tool is a call that it understands.
    #[test]
    fn what_documentation_tasks_and_workflows_call_exists() {
        let mut found = vec![root().join("README.md"), root().join(".mise.toml")];
        files(&root().join("docs/how-to"), &mut found);
        files(&root().join(".forgejo/workflows"), &mut found);
        let mut calls = 0;
        for file in found {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in text.lines().filter_map(call) {
                let words = crate::model::workflow::words(line, "redis-v1.0.0").unwrap();
                let parsed = Cli::try_parse_from(std::iter::once("xtask".to_owned()).chain(words));
                // A task gets the rest from whoever types it.
                let is_open = |kind| kind == ErrorKind::MissingRequiredArgument && file.ends_with(".mise.toml");
                assert!(
                    parsed.as_ref().err().is_none_or(|error| is_open(error.kind())),
                    "{}: cargo xtask {line}: {}",
                    file.display(),
                    parsed.err().unwrap()
                );
                calls += 1;
            }
        }
        assert!(calls > 10, "only {calls} calls were found");
    }

    /// The call in a line of a code block, a task or a step; several in one line are joined by `&&`.
    fn call(line: &str) -> Option<&str> {
        let line = line.trim().trim_start_matches("- ");
        let line = line.strip_prefix("run = \"").and_then(|line| line.strip_suffix('"')).unwrap_or(line);
        let line = line.strip_prefix("run: ").unwrap_or(line);
        let line = line.rsplit("&& ").next()?.strip_prefix("cargo xtask ")?;
        Some(line.split(" #").next().unwrap_or(line))
    }
}
