//! Installs what is missing, after showing the exact commands.

use anyhow::Result;
use serde_json::json;

use super::Context;
use super::doctor::{Standing, standing};
use crate::exec::parallel;
use crate::model::failure::Failure;
use crate::report::Outcome;
use crate::tools::catalog::{TOOLS, Tool};
use crate::tools::{Invocation, line};

/// Install what is missing, after showing the exact commands
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Without --yes it only shows what it would do.\n\nExamples:\n  cargo xtask setup\n  cargo xtask setup --yes --for rehearse"
)]
pub(crate) struct Args {
    /// Do it
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only what this command needs
    #[arg(long = "for", value_name = "COMMAND")]
    pub(crate) purpose: Option<String>,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    let wanted: Vec<&Tool> = TOOLS
        .iter()
        .filter(|tool| args.purpose.as_deref().is_none_or(|purpose| tool.needed_by.contains(&purpose)))
        .collect();
    if wanted.is_empty() {
        let purposes: std::collections::BTreeSet<_> = TOOLS.iter().flat_map(|tool| tool.needed_by).copied().collect();
        return Err(Failure::environment("--for names no command that needs a program")
            .next(purposes.into_iter().collect::<Vec<_>>().join(", "))
            .into());
    }
    let standings = parallel::map(&wanted, 8, |tool| standing(cx, tool));
    let missing: Vec<&Tool> = wanted
        .iter()
        .zip(standings)
        .filter(|(_, standing)| !matches!(standing, Standing::Fine(_)))
        .map(|(tool, _)| *tool)
        .collect();
    if missing.is_empty() {
        return Ok(Outcome::ok("everything is there", json!({"missing": [], "commands": []})));
    }
    let commands = debian(&missing).ok_or_else(|| by_hand(&missing))?;
    let lines: Vec<String> = commands.iter().map(ToString::to_string).collect();
    let value = json!({"missing": missing.iter().map(|tool| tool.program).collect::<Vec<_>>(), "commands": lines});
    if args.dry_run || !args.yes {
        if !args.dry_run {
            cx.report.say("these commands install what is missing; --yes runs them");
        }
        return Ok(Outcome::ok(lines.join("\n"), value));
    }
    for command in &commands {
        let mut stage = cx.report.stage("setup");
        stage.update(&command.to_string());
        cx.system.stdout(command, "installing failed")?;
        stage.done(&command.to_string());
    }
    let still: Vec<&str> = missing
        .iter()
        .filter(|tool| !matches!(standing(cx, tool), Standing::Fine(_)))
        .map(|tool| tool.program)
        .collect();
    if still.is_empty() {
        return Ok(Outcome::ok(
            format!("installed {}", missing.iter().map(|tool| tool.program).collect::<Vec<_>>().join(", ")),
            value,
        ));
    }
    Err(Failure::environment(format!("installed, but still missing or too old: {}", still.join(", ")))
        .next("cargo xtask doctor")
        .into())
}

/// apt-get for Debian; servers are not started by their packages.
fn debian(missing: &[&Tool]) -> Option<Vec<Invocation>> {
    which::which("apt-get").ok()?;
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.debian).chain(["ca-certificates", "tzdata"]).collect();
    packages.sort_unstable();
    packages.dedup();
    let sudo = if rustix::process::geteuid().is_root() { None } else { Some("sudo") };
    let program = sudo.unwrap_or("apt-get");
    let rest = sudo.map(|_| "apt-get");
    let limit = std::time::Duration::from_secs(1800);
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    Some(vec![
        line!("{program} {rest...} update --quiet").limit(limit),
        line!("{program} {rest...} install --yes --no-install-recommends {packages...}").limit(limit).env(&quiet),
    ])
}

fn by_hand(missing: &[&Tool]) -> Failure {
    let lines = missing
        .iter()
        .map(|tool| format!("{}: NixOS {}, macOS {}, mise {}", tool.program, tool.nixos, tool.macos, tool.mise));
    Failure::environment("this machine has no apt-get: install these by hand").tail(lines.collect())
}
