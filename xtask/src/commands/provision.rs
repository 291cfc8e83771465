//! A host as its playbook has it: looked at first, then applied.

mod preflight;
mod recap;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::preflight::Ready;
use self::recap::Recap;
use super::Context;
use crate::exec::run::{self, System};
use crate::exec::workspace::Workspace;
use crate::exec::{env, fs, terminal};
use crate::model::ansible::Word;
use crate::model::digest::Digest;
use crate::model::failure::{Failure, Kind};
use crate::report::{Outcome, Stage};
use crate::tools::ansible::{self, Event, Mode, More, Play, State};

/// Apply a host's playbook, after looking at what it would change
#[derive(clap::Args, Debug)]
#[command(
    after_help = "On a terminal it looks first (--check --diff) and asks; --yes does not ask. Options of ansible-playbook follow `--`.\n\nExamples:\n  cargo xtask provision indri --tags caddy --check --diff\n  cargo xtask provision indri --yes --twice\n  cargo xtask provision indri --yes -- --inventory hosts.yml --extra-vars @vars.yml"
)]
pub(crate) struct Args {
    /// A host of the repository's inventory
    pub(crate) host: Word,
    /// Only tasks with these tags
    #[arg(long, value_delimiter = ',', value_name = "TAG")]
    pub(crate) tags: Vec<Word>,
    /// Only look
    #[arg(long)]
    pub(crate) check: bool,
    /// Show the lines that change
    #[arg(long)]
    pub(crate) diff: bool,
    /// Apply without looking and asking first
    #[arg(long, conflicts_with = "check")]
    pub(crate) yes: bool,
    /// Apply twice; what changes again fails
    #[arg(long, conflicts_with = "check")]
    pub(crate) twice: bool,
    /// Apply what is in no commit too
    #[arg(long)]
    pub(crate) dirty: bool,
    /// Which playbook, where several are for the host
    #[arg(long, value_name = "FILE")]
    pub(crate) playbook: Option<String>,
    /// Print the commands, do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For ansible-playbook
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) more: Vec<String>,
}

/// How far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Look,
    LookAndAsk,
    Apply,
}

pub(crate) fn run(cx: &Context, args: &Args) -> Result<Outcome> {
    Context::preflight(&["ansible-playbook", "git"])?;
    let goal = goal(args, terminal::is_attended())?;
    let more = More::parse(&args.more).map_err(|why| Failure::environment(format!("after `--`: {why}")))?;
    let mut stage = cx.report.stage("ready");
    stage.update(&format!("asking {}", args.host));
    let ready = preflight::run(cx, args, &more, goal != Goal::Look)?;
    let play = Play { playbook: &ready.playbook, host: &args.host, tags: &args.tags, more: &more };
    let modes = modes(goal, args);
    stage.done(&format!("{}, {}", ready.playbook, described(&ready)));
    if args.dry_run {
        let lines: Vec<String> = modes.iter().map(|mode| play.run(*mode).to_string()).collect();
        let value = json!({"commands": lines, "folder": "ansible"});
        return Ok(Outcome::ok(format!("cd ansible\n{}\n", lines.join("\n")), value));
    }
    // Ansible reads its plugins from a folder; this one goes when the command ends.
    let workspace = Workspace::new("blumeops-provision-", false)?;
    workspace.write(&format!("{}.py", ansible::EVENTS_NAME), ansible::EVENTS)?;
    let mut overlay = cx.system.overlay.clone();
    overlay.push(("ANSIBLE_CALLBACK_PLUGINS".to_owned(), Some(workspace.text(""))));
    let system = cx.system.at(cx.system.root.clone(), overlay);
    let mut runs: Vec<(bool, Recap)> = Vec::new();
    for mode in modes {
        if let Some((true, looked)) = runs.last()
            && !mode.check
            && !agreed(cx, looked)?
        {
            return Ok(outcome(args, &ready, &runs, &[]));
        }
        runs.push((mode.check, one(cx, &system, &play, mode)?));
    }
    let unsettled = unsettled(cx, args, &ready, &runs)?;
    Ok(outcome(args, &ready, &runs, &unsettled))
}

fn goal(args: &Args, attended: bool) -> Result<Goal> {
    match args {
        Args { check: true, .. } => Ok(Goal::Look),
        Args { yes: true, .. } => Ok(Goal::Apply),
        _ if attended || args.dry_run => Ok(Goal::LookAndAsk),
        _ => Err(Failure::environment("nobody is there to be asked")
            .next("--check only looks, --yes applies without asking")
            .into()),
    }
}

/// The runs, in order.
fn modes(goal: Goal, args: &Args) -> Vec<Mode> {
    let look = Mode { check: true, diff: args.diff || goal == Goal::LookAndAsk };
    let apply = Mode { check: false, diff: args.diff };
    let mut modes = match goal {
        Goal::Look => vec![look],
        Goal::LookAndAsk => vec![look, apply],
        Goal::Apply => vec![apply],
    };
    modes.extend(args.twice.then_some(apply));
    modes
}

fn described(ready: &Ready) -> String {
    let commit: String = ready.commit.chars().take(12).collect();
    match (commit.as_str(), ready.is_clean) {
        ("", _) => "of no commit".to_owned(),
        (commit, true) => format!("of {commit}"),
        (commit, false) => format!("of {commit} with changes that are in no commit"),
    }
}

fn agreed(cx: &Context, looked: &Recap) -> Result<bool> {
    cx.report.say(looked.human(true).trim_end());
    cx.report.say("apply it? [y/N]");
    let agreed = terminal::says_yes()?;
    if !agreed {
        cx.report.say("nothing was applied");
    }
    Ok(agreed)
}

/// One run, seen while it goes.
fn one(cx: &Context, system: &System, play: &Play<'_>, mode: Mode) -> Result<Recap> {
    let invocation = ansible::inside(&system.root, play.run(mode));
    let mut stage = cx.report.stage(if mode.check { "look" } else { "apply" });
    let mut recap = Recap::default();
    let mut talk = String::new();
    let result = system.stream(&invocation, &mut |line| match ansible::parse_event(line) {
        Some(event) => {
            show(&mut stage, &event, mode);
            recap.take(event);
        }
        None if ansible::is_event(line) || line.trim().is_empty() => {}
        None => {
            stage.say(&format!("    {line}"));
            talk.extend([line, "\n"]);
        }
    });
    let left = recap.left(mode.check);
    let output = result.map_err(|error| match error.downcast::<Failure>() {
        Ok(failure) if failure.kind == Kind::Interrupted => failure.left(&left).into(),
        Ok(failure) => failure.left(&left).into(),
        Err(error) => error,
    })?;
    if !output.success() {
        let failure = recap.failure().unwrap_or_else(|| {
            let status = output.code.map_or("was killed".to_owned(), |code| format!("exited with {code}"));
            Failure::refused(format!("ansible-playbook {status}")).tail(run::tail(&talk))
        });
        let command = Some(system.redactor.clean(&invocation.to_string()));
        return Err(Failure { command, ..failure.left(left) }.into());
    }
    if recap.counts.is_empty() {
        let failure = Failure::refused("the play ran on no host, though it ended well");
        return Err(Failure { command: Some(invocation.to_string()), ..failure }.into());
    }
    stage.done(&format!("{} changed", recap.changed.len()));
    Ok(recap)
}

fn show(stage: &mut Stage<'_>, event: &Event, mode: Mode) {
    match event {
        Event::Task { name } => stage.update(name),
        Event::Diff { text, .. } if mode.diff => {
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let colour = match line.chars().next() {
                    Some('+') => "\x1b[32m",
                    Some('-') => "\x1b[31m",
                    _ => "\x1b[2m",
                };
                stage.say(&format!("    {colour}{line}\x1b[0m"));
            }
        }
        Event::Result(result) => {
            let (mark, word) = match result.state {
                State::Changed if mode.check => ("\x1b[33m~\x1b[0m", "would change"),
                State::Changed => ("\x1b[33m~\x1b[0m", "changed"),
                State::Ignored => ("\x1b[2m!\x1b[0m", "failed, which is ignored"),
                State::Failed => ("\x1b[31m✗\x1b[0m", "failed"),
                State::Unreachable => ("\x1b[31m✗\x1b[0m", "not reached"),
                State::Ok | State::Skipped => return,
            };
            stage.say(&format!("    {mark} {}: {} {word}", result.host, result.task));
        }
        Event::Play { .. } | Event::Diff { .. } | Event::Notify(_) | Event::Stats { .. } => {}
    }
}

/// What the last run of a host changed: kept to notice that the next one changes it again.
#[derive(Serialize, Deserialize)]
struct Last {
    commit: String,
    arguments: Vec<String>,
    changed: Vec<(String, String)>,
}

/// Tasks that change again although nothing is new: in the second of two runs, or as in the last of the same commit.
fn unsettled(cx: &Context, args: &Args, ready: &Ready, runs: &[(bool, Recap)]) -> Result<Vec<(String, String)>> {
    let applied: Vec<&Recap> = runs.iter().filter(|(check, _)| !check).map(|(_, recap)| recap).collect();
    let Some(latest) = applied.last() else { return Ok(Vec::new()) };
    let key = Digest::of(format!("{} {}", cx.system.root.display(), args.host).as_bytes());
    let file = env::cache_folder().join(format!("provision/{}.json", &key.as_str()["sha256:".len()..]));
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let last = serde_json::from_str::<Last>(&text).ok();
    let arguments: Vec<String> = args.tags.iter().map(ToString::to_string).chain(args.more.clone()).collect();
    let is_same = |last: &Last| ready.is_clean && last.commit == ready.commit && last.arguments == arguments;
    let found = match (&applied[..], last.filter(is_same)) {
        ([_, second], _) => second.changed.clone(),
        (_, Some(last)) => recap::again(&last.changed, &latest.changed),
        _ => Vec::new(),
    };
    let next = Last { commit: ready.commit.clone(), arguments, changed: latest.changed.clone() };
    fs::write(&file, &serde_json::to_string(&next)?)?;
    Ok(found)
}

fn outcome(args: &Args, ready: &Ready, runs: &[(bool, Recap)], unsettled: &[(String, String)]) -> Outcome {
    let mut human = runs.last().map(|(check, recap)| recap.human(*check)).unwrap_or_default();
    for (host, task) in unsettled {
        human += &format!("changed again on {host}, with nothing new to apply: {task}\n");
    }
    let values: Vec<Value> = runs.iter().map(|(check, recap)| recap.value(*check)).collect();
    let again: Vec<Value> = unsettled.iter().map(|(host, task)| json!({"host": host, "task": task})).collect();
    let value = json!({
        "host": args.host.as_str(), "playbook": ready.playbook, "commit": ready.commit, "clean": ready.is_clean,
        "runs": values, "changed_again": again,
    });
    // A run alone only reports it; who asks for two wants to know.
    let code = u8::from(args.twice && !unsettled.is_empty());
    Outcome { human, json: value, code, other: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Args {
        /// What the command line has by default.
        pub(super) fn default_for_tests() -> Self {
            Self {
                host: "indri".parse().unwrap(),
                tags: Vec::new(),
                check: false,
                diff: false,
                yes: false,
                twice: false,
                dirty: false,
                playbook: None,
                dry_run: false,
                more: Vec::new(),
            }
        }
    }

    #[test]
    fn it_looks_before_it_applies_unless_told_otherwise() {
        let plain = Args::default_for_tests();
        assert_eq!(goal(&plain, true).unwrap(), Goal::LookAndAsk);
        assert!(goal(&plain, false).is_err());
        let yes = Args { yes: true, twice: true, ..Args::default_for_tests() };
        let goal = goal(&yes, false).unwrap();
        let apply = Mode { check: false, diff: false };
        assert_eq!(modes(goal, &yes), [apply, apply]);
        assert_eq!(modes(Goal::LookAndAsk, &plain), [Mode { check: true, diff: true }, apply]);
    }
}
