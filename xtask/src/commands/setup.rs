//! Installs what is missing, after showing the exact commands.

use anyhow::Result;
use serde_json::json;

use super::Context;
use super::doctor::{self, Standing, standing};
use crate::exec::{env, parallel};
use crate::model::failure::Failure;
use crate::report::Outcome;
use crate::tools::catalog::{Source, Tool};
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
    let wanted = doctor::wanted(args.purpose.as_deref())?;
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

/// The commands for Debian: its packages first, then what they don't have, into a folder of ours.
fn debian(missing: &[&Tool]) -> Option<Vec<Invocation>> {
    which::which("apt-get").ok()?;
    let has = |program: &str| which::which(program).is_ok();
    let as_root = rustix::process::geteuid().is_root();
    Some(commands(missing, &env::tools_folder().to_string_lossy(), as_root, has))
}

fn commands(missing: &[&Tool], folder: &str, as_root: bool, has: impl Fn(&str) -> bool) -> Vec<Invocation> {
    let limit = std::time::Duration::from_secs(1800);
    let mut packages = Vec::new();
    let mut others = Vec::new();
    for tool in missing {
        match tool.debian {
            Source::Packages(names) => packages.extend(names.split(' ')),
            Source::Npm(name) => {
                packages.extend((!has("npm")).then_some("npm"));
                others.push(line!("npm install --global --no-fund --no-audit --prefix {folder} {name}").limit(limit));
            }
            Source::Go(package) => {
                packages.extend((!has("go")).then_some("golang-go"));
                others.push(line!("env GOBIN={folder}/bin go install {package}").limit(limit));
            }
        }
    }
    if packages.is_empty() {
        return others;
    }
    // The stand-in package set copies certificates and time zones too.
    packages.extend(["ca-certificates", "tzdata"]);
    packages.sort_unstable();
    packages.dedup();
    let sudo = (!as_root).then_some("sudo");
    let program = sudo.unwrap_or("apt-get");
    let rest = sudo.map(|_| "apt-get");
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let update = line!("{program} {rest...} update --quiet").limit(limit);
    let install = line!("{program} {rest...} install --yes --no-install-recommends {packages...}");
    [update, install.limit(limit).env(&quiet)].into_iter().chain(others).collect()
}

fn by_hand(missing: &[&Tool]) -> Failure {
    let lines = missing
        .iter()
        .map(|tool| format!("{}: NixOS {}, macOS {}, mise {}", tool.program, tool.nixos, tool.macos, tool.mise));
    Failure::environment("this machine has no apt-get: install these by hand").tail(lines.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalog::TOOLS;

    fn lines(programs: &[&str], as_root: bool, has: &[&str]) -> Vec<String> {
        let tools: Vec<&Tool> = TOOLS.iter().filter(|tool| programs.contains(&tool.program)).collect();
        commands(&tools, "/t", as_root, |program| has.contains(&program)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn packages_come_first_and_only_what_is_missing() {
        assert_eq!(
            lines(&["skopeo", "mise", "actionlint"], true, &["npm"]),
            [
                "apt-get update --quiet",
                "apt-get install --yes --no-install-recommends ca-certificates golang-go skopeo tzdata",
                "env 'GOBIN=/t/bin' go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.7",
                "npm install --global --no-fund --no-audit --prefix /t @jdxcode/mise",
            ]
        );
        assert_eq!(lines(&["skopeo"], false, &[])[0], "sudo apt-get update --quiet");
        assert_eq!(lines(&["actionlint"], true, &["go"]).len(), 1);
    }
}
