//! Everything that can be known to be wrong before a play starts, all at once.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Args;
use crate::commands::Context;
use crate::exec::parallel;
use crate::exec::run::{self, Output};
use crate::model::ansible::{self as model, Playbook};
use crate::model::failure::Failure;
use crate::model::finding::Finding;
use crate::tools::ansible::{self, Answer, Host, More, Play};
use crate::tools::{Invocation, git};

/// Tags that Ansible gives a meaning of its own.
const SPECIAL: [&str; 5] = ["all", "always", "never", "tagged", "untagged"];

/// What will be applied.
pub(super) struct Ready {
    /// Relative to `ansible/`.
    pub(super) playbook: String,
    pub(super) commit: String,
    pub(super) is_clean: bool,
}

/// Finds the playbook and asks all that can be asked.
///
/// # Errors
/// Everything that is wrong.
pub(super) fn run(cx: &Context, args: &Args, more: &More, applies: bool) -> Result<Ready> {
    let mut findings = Vec::new();
    let ours = ansible::inventory(&More::default());
    let theirs = more.changes_inventory().then(|| ansible::inventory(more));
    let mut questions: Vec<Invocation> = vec![git::commit_of("HEAD"), git::status(&[model::FOLDER.to_owned()])];
    let inventories = std::iter::once(ours).chain(theirs);
    questions.extend(inventories.map(|question| ansible::inside(&cx.system.root, question)));
    let mut answers = parallel::map(&questions, 4, |question| cx.system.output(question)).into_iter();
    let (head, status) = (answers.next().transpose()?, answers.next().transpose()?);
    let checkout = checkout(head, status);
    let mut hosts = Vec::new();
    for (answer, question) in answers.zip(&questions[2..]) {
        hosts.push(inventory(cx, question, &answer?)?);
    }
    let (own, effective) = (&hosts[0], &hosts[hosts.len() - 1]);
    findings.extend(unknown(args, own, effective));
    let Some(host) = effective.get(args.host.as_str()).filter(|_| findings.is_empty()) else {
        return Err(Failure::of_findings("nothing was done", findings).into());
    };
    let playbook = playbook(cx, args, host)?;
    findings.extend(checkout.judge(args.dirty, applies));
    findings.extend(pushed(cx, &playbook, &checkout, applies)?);
    let play = Play { playbook: &playbook.path, host: &args.host, tags: &args.tags, more };
    findings.extend(ask(cx, &play, host.is_local || more.is_local())?);
    if !findings.is_empty() {
        return Err(Failure::of_findings("nothing was done", findings).into());
    }
    let is_clean = checkout.changed.is_empty();
    Ok(Ready { playbook: playbook.path, commit: checkout.commit.unwrap_or_default(), is_clean })
}

fn inventory(cx: &Context, question: &Invocation, answer: &Output) -> Result<BTreeMap<String, Host>> {
    if !answer.success() {
        return Err(cx.system.failed(question, answer, "the inventory can't be read").into());
    }
    let failure = |why| Failure::environment(format!("ansible-inventory wrote what can't be read: {why}"));
    Ok(ansible::parse_inventory(&answer.stdout).map_err(failure)?)
}

/// The host is one of the repository's, and is reached where the repository says.
fn unknown(args: &Args, own: &BTreeMap<String, Host>, effective: &BTreeMap<String, Host>) -> Option<Finding> {
    let name = args.host.as_str();
    let Some(ours) = own.get(name) else {
        let names = || own.keys().map(String::as_str);
        let known = names().collect::<Vec<_>>().join(", ");
        let finding = Finding::error("host-unknown", format!("the repository's inventory has no host {name}"));
        return Some(finding.help(format!("there are: {known}")).did_you_mean(name, names()));
    };
    let Some(theirs) = effective.get(name) else {
        return Some(Finding::error("host-unknown", format!("the inventory that is handed on has no host {name}")));
    };
    let elsewhere = !theirs.is_local && theirs.address != ours.address;
    elsewhere.then(|| {
        let message =
            format!("{name} is at {} in what is handed on, and at {} in the repository", theirs.address, ours.address);
        Finding::error("host-elsewhere", message)
            .help("another machine can only be this one: ansible_connection: local")
    })
}

fn playbook(cx: &Context, args: &Args, host: &Host) -> Result<Playbook> {
    let all = model::playbooks(&cx.repo);
    let found: Vec<&Playbook> = match &args.playbook {
        Some(path) => all.iter().filter(|playbook| playbook.path.ends_with(path.as_str())).collect(),
        None => model::of_host(&all, &args.host, &host.groups),
    };
    let list = |playbooks: &[&Playbook]| playbooks.iter().map(|own| own.path.as_str()).collect::<Vec<_>>().join(", ");
    match found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Failure::refused(format!("no playbook is for {}", args.host))
            .next(format!("there are: {}", list(&all.iter().collect::<Vec<_>>())))
            .into()),
        _ => Err(Failure::refused(format!("several playbooks are for {}: {}", args.host, list(&found)))
            .next("name one with --playbook")
            .into()),
    }
}

/// Tags, connection and Python: both questions at once.
fn ask(cx: &Context, play: &Play<'_>, is_local: bool) -> Result<Vec<Finding>> {
    let mut questions = vec![play.ping()];
    if !play.tags.is_empty() {
        questions.push(play.list_tags());
    }
    let questions: Vec<Invocation> =
        questions.into_iter().map(|question| ansible::inside(&cx.system.root, question)).collect();
    let mut answers = parallel::map(&questions, 2, |question| cx.system.output(question)).into_iter();
    let mut findings = Vec::new();
    match answers.next().transpose() {
        Ok(answer) => findings.extend(reached(play, is_local, &answer.unwrap_or_else(nothing))),
        Err(error) if crate::exec::signal::interrupted() => return Err(error),
        // It was stopped: an ssh that hangs after connecting.
        Err(error) => findings.push(unreachable(play, &format!("{error:#}"))),
    }
    if let (Some(answer), Some(question)) = (answers.next(), questions.get(1)) {
        let answer = answer?;
        if !answer.success() {
            return Err(cx.system.failed(question, &answer, "the playbook can't be read").into());
        }
        let known = ansible::parse_tags(&answer.stdout);
        let missing = play.tags.iter().map(model::Word::as_str).filter(|tag| !known.iter().any(|own| own == tag));
        findings.extend(missing.filter(|tag| !SPECIAL.contains(tag)).map(|tag| {
            let finding = Finding::error("tag-unknown", format!("{} has no tag {tag}", play.playbook));
            finding.help(format!("there are: {}", known.join(", "))).did_you_mean(tag, known.iter().map(String::as_str))
        }));
    }
    Ok(findings)
}

fn nothing() -> Output {
    Output { code: None, stdout: String::new(), stderr: String::new() }
}

fn reached(play: &Play<'_>, is_local: bool, answer: &Output) -> Option<Finding> {
    let said = if answer.stdout.contains(" | ") { &answer.stdout } else { &answer.stderr };
    match ansible::parse_ping(&answer.stdout) {
        Answer::Pong => None,
        Answer::Unreachable(why) => Some(unreachable(play, &why)),
        Answer::NoPython(why) => {
            let why = if why.is_empty() { run::tail(said).join(" / ") } else { why };
            let place = if is_local { "this machine" } else { play.host.as_str() };
            let message = format!("nothing can be run on {place}: {why}");
            Some(Finding::environment("host-python", message).help("Ansible needs Python 3 there"))
        }
    }
}

fn unreachable(play: &Play<'_>, why: &str) -> Finding {
    let message = format!("{} does not answer: {}", play.host, why.trim());
    Finding::environment("host-unreachable", message).help(format!("see it yourself: (cd ansible && {})", play.ping()))
}

/// The commit, and what below `ansible/` is not of it.
struct Checkout {
    commit: Option<String>,
    changed: Vec<String>,
}

fn checkout(head: Option<Output>, status: Option<Output>) -> Checkout {
    let good = |output: Option<Output>| output.filter(Output::success).map(|output| output.stdout);
    let commit = good(head).map(|commit| commit.trim().to_owned());
    Checkout { commit, changed: git::parse_status(&good(status).unwrap_or_default()) }
}

impl Checkout {
    /// Only what is committed is applied, unless somebody says otherwise.
    fn judge(&self, dirty: bool, applies: bool) -> Option<Finding> {
        if dirty || !applies {
            return None;
        }
        if self.commit.is_none() {
            let finding =
                Finding::error("checkout-unknown", "this is no git checkout: nobody could say what was applied");
            return Some(finding.help("--dirty applies it all the same"));
        }
        let first = self.changed.iter().take(5).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if self.changed.len() > 5 { " …" } else { "" };
        let message = format!("what would be applied is in no commit: {first}{more}");
        let finding = Finding::error("checkout-dirty", message).help("commit it, look with --check, or say --dirty");
        (!self.changed.is_empty()).then_some(finding)
    }
}

/// A role that builds from the forge does not build what is checked out.
fn pushed(cx: &Context, playbook: &Playbook, checkout: &Checkout, applies: bool) -> Result<Option<Finding>> {
    let forge = &cx.repo.config.forge;
    if !applies || !model::builds_from(&cx.repo, playbook, &forge.repository) {
        return Ok(None);
    }
    let question = git::ls_remote(&forge.remote, &forge.branch, "no-tag");
    let answer = cx.system.stdout(&question, "a role builds from what is pushed, and the remote can't be asked")?;
    let there = git::parse_ls_remote(&answer).branch;
    if there.is_some() && there == checkout.commit {
        return Ok(None);
    }
    let short = |commit: Option<&str>| commit.map_or("nothing".to_owned(), |commit| commit.chars().take(12).collect());
    let (here, there) = (short(checkout.commit.as_deref()), short(there.as_deref()));
    let (remote, branch) = (&forge.remote, &forge.branch);
    let message = format!("{} builds from {remote}'s {branch}, which is {there}; checked out is {here}", playbook.path);
    Ok(Some(Finding::error("not-pushed", message).help("push, or check out what is pushed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str, is_local: bool) -> BTreeMap<String, Host> {
        BTreeMap::from([("indri".to_owned(), Host { groups: vec![], address: address.to_owned(), is_local })])
    }

    fn args(host: &str) -> Args {
        Args { host: host.parse().unwrap(), ..Args::default_for_tests() }
    }

    #[test]
    fn a_host_is_where_the_repository_has_it_or_here() {
        let ours = at("indri.example", false);
        assert!(unknown(&args("indri"), &ours, &ours).is_none());
        assert!(unknown(&args("indri"), &ours, &at("indri", true)).is_none());
        assert_eq!(unknown(&args("indri"), &ours, &at("evil.example", false)).unwrap().code, "host-elsewhere");
        assert_eq!(unknown(&args("indri"), &ours, &BTreeMap::new()).unwrap().code, "host-unknown");
        let finding = unknown(&args("indry"), &ours, &ours).unwrap();
        assert_eq!(finding.help.as_deref(), Some("did you mean `indri`?"));
    }

    #[test]
    fn only_a_commit_is_applied() {
        let dirty = Checkout { commit: Some("abc".to_owned()), changed: vec!["ansible/x".to_owned()] };
        assert_eq!(dirty.judge(false, true).unwrap().code, "checkout-dirty");
        assert!(dirty.judge(true, true).is_none() && dirty.judge(false, false).is_none());
        let none = Checkout { commit: None, changed: vec![] };
        assert_eq!(none.judge(false, true).unwrap().code, "checkout-unknown");
        assert!(Checkout { commit: Some("abc".to_owned()), changed: vec![] }.judge(false, true).is_none());
    }
}
