//! Ansible: inventory, preflight and plays. Every command runs in `ansible/`, where its configuration is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{Invocation, line};
use crate::model::ansible::{FOLDER, Word};

/// Ansible refuses to start where text is not UTF-8.
pub(crate) const UTF8: [(&str, &str); 2] =
    [("LC_ALL", ""), ("LC_CTYPE", if cfg!(target_os = "macos") { "UTF-8" } else { "C.UTF-8" })];

/// Tells what happens as lines of JSON; Ansible loads it by this name.
pub(crate) const EVENTS: &str = include_str!("ansible_events.py");
pub(crate) const EVENTS_NAME: &str = "xtask_events";

/// Starts each line that is an event.
const MARK: char = '\x1e';

/// A host that does not answer is given up after this, and so is a connection that hangs.
const ANSWER: Duration = Duration::from_secs(20);
const CONNECT: &str = "8";

/// Building a system takes its time.
const PLAY: Duration = Duration::from_secs(4 * 3600);

/// Options that decide which hosts there are, how they are reached, and all others that take a value or none.
const INVENTORY: [&str; 7] =
    ["-i", "--inventory", "-e", "--extra-vars", "--vault-id", "--vault-password-file", "--vault-pass-file"];
const CONNECTION: [&str; 11] = [
    "-u",
    "--user",
    "-c",
    "--connection",
    "-T",
    "--timeout",
    "--private-key",
    "--key-file",
    "--ssh-common-args",
    "--ssh-extra-args",
    "--scp-extra-args",
];
const VALUE: [&str; 9] = [
    "-f",
    "--forks",
    "-M",
    "--module-path",
    "--become-method",
    "--become-user",
    "--become-password-file",
    "--skip-tags",
    "--start-at-task",
];
const NO_VALUE: [&str; 8] = ["-b", "--become", "--force-handlers", "--flush-cache", "-v", "-vv", "-vvv", "-vvvv"];

/// What is handed on to Ansible, sorted by who has to know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct More {
    inventory: Vec<String>,
    connection: Vec<String>,
    play: Vec<String>,
}

impl More {
    /// Takes what follows `--`.
    ///
    /// # Errors
    /// What would reach another host or playbook, needs somebody at the keyboard, or is no option.
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let mut more = Self::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            let (option, joined) = split(word);
            let (list, takes_value) = if INVENTORY.contains(&option) {
                (&mut more.inventory, true)
            } else if CONNECTION.contains(&option) {
                (&mut more.connection, true)
            } else if VALUE.contains(&option) {
                (&mut more.play, true)
            } else if NO_VALUE.contains(&option) {
                (&mut more.play, false)
            } else {
                return Err(refusal(word));
            };
            if joined && !takes_value {
                return Err(format!("{word} is not handed on"));
            }
            list.push(word.clone());
            if takes_value && !joined {
                list.push(rest.next().ok_or_else(|| format!("{word} wants a value"))?.clone());
            }
        }
        Ok(more)
    }

    /// Is another inventory named, or a variable that may say how hosts are reached?
    pub(crate) fn changes_inventory(&self) -> bool {
        !self.inventory.is_empty()
    }

    /// Is this machine meant, whatever the host is called?
    pub(crate) fn is_local(&self) -> bool {
        let words: Vec<&str> = self.connection.iter().map(String::as_str).collect();
        words.iter().any(|word| matches!(*word, "--connection=local" | "-clocal"))
            || words.windows(2).any(|pair| matches!(pair, ["-c" | "--connection", "local"]))
    }
}

/// The option in a word, and whether its value is in it too.
fn split(word: &str) -> (&str, bool) {
    match word.split_once('=') {
        Some((option, _)) if word.starts_with("--") => (option, true),
        None if word.starts_with("--") => (word, false),
        _ if word.starts_with("-v") => (word, false),
        _ => word.split_at_checked(2).map_or((word, false), |(option, value)| (option, !value.is_empty())),
    }
}

fn refusal(word: &str) -> String {
    match split(word).0 {
        "-l" | "--limit" => "--limit is decided by HOST".to_owned(),
        "-t" | "--tags" | "-C" | "--check" | "-D" | "--diff" => format!("{word} stands before `--`"),
        "-k" | "-K" | "-J" | "--ask-pass" | "--ask-become-pass" | "--step" => {
            format!("{word} asks at the keyboard, which a play started from here does not have")
        }
        option if option.starts_with('-') => format!("{word} is not handed on"),
        _ => format!("{word} is no option; the playbook is found by HOST"),
    }
}

/// One run of a playbook.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Play<'a> {
    /// Relative to `ansible/`.
    pub(crate) playbook: &'a str,
    pub(crate) host: &'a Word,
    pub(crate) tags: &'a [Word],
    pub(crate) more: &'a More,
}

/// Only look, or do it; with or without the changed lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode {
    pub(crate) check: bool,
    pub(crate) diff: bool,
}

impl Play<'_> {
    pub(crate) fn run(&self, mode: Mode) -> Invocation {
        let Self { playbook, host, tags, more } = self;
        let host = host.as_str();
        let tags = tags.iter().flat_map(|tag| ["--tags", tag.as_str()]);
        let modes = [("--check", mode.check), ("--diff", mode.diff)];
        let modes = modes.into_iter().filter(|(_, wanted)| *wanted).map(|(flag, _)| flag);
        let More { inventory, connection, play } = more;
        line!(
            "ansible-playbook {playbook} --limit {host} {tags...} {modes...} {inventory...} {connection...} {play...}"
        )
        .env(&[("ANSIBLE_NOCOLOR", "1"), ("ANSIBLE_FORCE_COLOR", "0"), ("ANSIBLE_STDOUT_CALLBACK", EVENTS_NAME)])
        .limit(PLAY)
    }

    /// Which tags its playbook has; those of tasks that only run when they are asked for are wanted too.
    pub(crate) fn list_tags(&self) -> Invocation {
        let Self { playbook, more: More { inventory, .. }, .. } = self;
        line!("ansible-playbook {playbook} --list-tags --tags all,never {inventory...}")
    }

    /// Reaches the host as the play will, and runs Python there.
    pub(crate) fn ping(&self) -> Invocation {
        let (host, More { inventory, connection, .. }) = (self.host.as_str(), self.more);
        line!("ansible {host} --module-name ansible.builtin.ping --one-line --timeout {CONNECT} {inventory...} {connection...}")
            .limit(ANSWER)
    }
}

/// Which hosts there are: with nothing handed on those of the repository.
pub(crate) fn inventory(more: &More) -> Invocation {
    let words = &more.inventory;
    line!("ansible-inventory --list {words...}")
}

/// In the folder that Ansible's configuration is in.
pub(crate) fn inside(root: &Path, invocation: Invocation) -> Invocation {
    Invocation { folder: Some(root.join(FOLDER)), ..invocation.env(&UTF8) }
}

/// What an inventory says of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) groups: Vec<String>,
    /// Where it is reached.
    pub(crate) address: String,
    pub(crate) is_local: bool,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    children: Vec<String>,
}

/// Reads `ansible-inventory --list`: every host by name. Variables are looked at, not kept: some are secrets.
///
/// # Errors
/// It is not what Ansible writes.
pub(crate) fn parse_inventory(output: &str) -> Result<BTreeMap<String, Host>, String> {
    let values: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(output).map_err(|error| error.to_string())?;
    let variables = values.get("_meta").and_then(|meta| meta.get("hostvars"));
    let groups: BTreeMap<&str, Group> = values
        .iter()
        .filter(|(name, _)| *name != "_meta")
        .filter_map(|(name, value)| Some((name.as_str(), Group::deserialize(value).ok()?)))
        .collect();
    let mut hosts = BTreeMap::new();
    for host in groups.values().flat_map(|group| &group.hosts) {
        let variable = |name: &str| variables.and_then(|all| all.get(host)?.get(name)?.as_str()).map(str::to_owned);
        let value = Host {
            groups: groups_of(host, &groups),
            address: variable("ansible_host").unwrap_or_else(|| host.clone()),
            is_local: variable("ansible_connection").as_deref() == Some("local"),
        };
        hosts.insert(host.clone(), value);
    }
    Ok(hosts)
}

/// The groups that hold `host`, through others too.
fn groups_of(host: &str, groups: &BTreeMap<&str, Group>) -> Vec<String> {
    let mut found = vec!["all".to_owned()];
    loop {
        let more = groups.iter().find(|(name, group)| {
            !found.iter().any(|known| known == *name)
                && (group.hosts.iter().any(|own| own == host)
                    || group.children.iter().any(|child| child != "ungrouped" && found[1..].contains(child)))
        });
        match more {
            Some((name, _)) => found.push((*name).to_owned()),
            None => return found,
        }
    }
}

/// Reads `--list-tags`.
pub(crate) fn parse_tags(output: &str) -> Vec<String> {
    let lists = output.lines().filter_map(|line| line.split_once("TAGS: [")?.1.trim_end().strip_suffix(']'));
    let mut tags: Vec<String> = lists.flat_map(|list| list.split(", ")).map(str::to_owned).collect();
    tags.retain(|tag| !tag.is_empty());
    tags.sort();
    tags.dedup();
    tags
}

/// What a ping says when it fails: the host's answer, without the name in front.
pub(crate) fn parse_ping(output: &str) -> Answer {
    let line = output.lines().find(|line| line.contains(" | ")).unwrap_or_default();
    let rest = line.split_once(" | ").map_or("", |(_, rest)| rest);
    let reason = |text: &str| text.split_once("=> ").or(text.split_once(": ")).map_or(text, |(_, why)| why).to_owned();
    if rest.starts_with("SUCCESS") {
        Answer::Pong
    } else if rest.starts_with("UNREACHABLE") {
        Answer::Unreachable(reason(rest))
    } else {
        Answer::NoPython(reason(rest))
    }
}

/// What became of a ping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Pong,
    Unreachable(String),
    /// It is reached, but nothing can be run there.
    NoPython(String),
}

/// How a task ended on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Ok,
    Changed,
    Skipped,
    Ignored,
    Failed,
    Unreachable,
}

/// Ansible's own count for a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Counts {
    pub(crate) ok: u32,
    pub(crate) changed: u32,
    pub(crate) failures: u32,
    pub(crate) unreachable: u32,
    pub(crate) skipped: u32,
}

/// One thing that happens in a play.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(crate) enum Event {
    Play { name: String },
    Task { name: String },
    Result(TaskResult),
    Diff { host: String, task: String, text: String },
    Notify(Notice),
    Stats { hosts: BTreeMap<String, Counts> },
}

/// How a task ended, and why where it did not go well.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct TaskResult {
    pub(crate) host: String,
    pub(crate) task: String,
    pub(crate) state: State,
    #[serde(default)]
    pub(crate) lines: Vec<String>,
    /// Its output is shown to nobody.
    #[serde(default)]
    pub(crate) hidden: bool,
    /// The call of `op` that it is, as the playbook has it.
    pub(crate) calls: Option<String>,
    /// File and line.
    pub(crate) place: Option<String>,
}

/// A handler that will run at the end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Notice {
    pub(crate) host: String,
    pub(crate) handler: String,
    /// Its command, where it is one.
    pub(crate) runs: Option<String>,
}

/// Reads a line of stderr; nothing where it is Ansible's own talk.
pub(crate) fn parse_event(line: &str) -> Option<Event> {
    serde_json::from_str(line.strip_prefix(MARK)?).ok()
}

/// Is it a line of our own making, understood or not?
pub(crate) fn is_event(line: &str) -> bool {
    line.starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn more(words: &str) -> Result<More, String> {
        More::parse(&shell_words::split(words).unwrap())
    }

    #[test]
    fn what_is_handed_on_reaches_no_other_host() {
        for (words, why) in [
            ("--limit all", "decided by HOST"),
            ("-lall", "decided by HOST"),
            ("playbooks/other.yml", "found by HOST"),
            ("-v playbooks/other.yml", "found by HOST"),
            ("--step", "keyboard"),
            ("--tags=x", "before `--`"),
            ("-i", "wants a value"),
            ("--inventory-file x", "not handed on"),
            ("-bK", "not handed on"),
        ] {
            assert!(more(words).unwrap_err().contains(why), "{words}");
        }
    }

    #[test]
    fn command_lines() {
        let more = more("--inventory /x/hosts.yml -e@v.yml --become -c local --skip-tags=a").unwrap();
        assert!(more.is_local() && more.changes_inventory());
        let (host, tags) = ("indri".parse().unwrap(), ["caddy".parse().unwrap()]);
        let play = Play { playbook: "playbooks/indri.yml", host: &host, tags: &tags, more: &more };
        let lines = [play.run(Mode { check: true, diff: true }), play.ping(), play.list_tags(), inventory(&more)];
        assert_eq!(
            lines.map(|line| line.to_string()),
            [
                "ansible-playbook playbooks/indri.yml --limit indri --tags caddy --check --diff --inventory /x/hosts.yml -e@v.yml -c local --become --skip-tags\\=a",
                "ansible indri --module-name ansible.builtin.ping --one-line --timeout 8 --inventory /x/hosts.yml -e@v.yml -c local",
                "ansible-playbook playbooks/indri.yml --list-tags --tags all,never --inventory /x/hosts.yml -e@v.yml",
                "ansible-inventory --list --inventory /x/hosts.yml -e@v.yml",
            ]
            .map(|line| shell_words::join(shell_words::split(line).unwrap()))
        );
    }

    #[test]
    fn inventories_name_hosts_with_all_their_groups() {
        let output = r#"{"_meta":{"hostvars":{"a":{"ansible_host":"a.example","secret":"x"},"b":{"ansible_connection":"local"}}},
            "all":{"children":["ungrouped","web"]},"ungrouped":{"hosts":["b"]},"web":{"children":["inner"]},"inner":{"hosts":["a"]}}"#;
        let hosts = parse_inventory(output).unwrap();
        assert_eq!(hosts["a"].groups, ["all", "inner", "web"]);
        assert_eq!((hosts["a"].address.as_str(), hosts["a"].is_local), ("a.example", false));
        assert_eq!((hosts["b"].address.as_str(), hosts["b"].is_local), ("b", true));
        assert!(parse_inventory("[WARNING]").is_err());
        assert!(parse_inventory("{}").unwrap().is_empty());
    }

    #[test]
    fn tags_pings_and_events_are_read() {
        let tags = "\nplaybook: p.yml\n\n  play #1 (indri): Configure\tTAGS: []\n      TASK TAGS: [borgmatic, caddy]\n";
        assert_eq!(parse_tags(tags), ["borgmatic", "caddy"]);
        assert_eq!(parse_ping("a | SUCCESS => {\"ping\": \"pong\"}\n"), Answer::Pong);
        assert_eq!(
            parse_ping("a | UNREACHABLE!: Failed to connect: refused\n"),
            Answer::Unreachable("Failed to connect: refused".to_owned())
        );
        assert_eq!(
            parse_ping("a | FAILED! => {\"msg\": \"no python\"}"),
            Answer::NoPython("{\"msg\": \"no python\"}".to_owned())
        );
        assert_eq!(parse_ping(""), Answer::NoPython(String::new()));
        let event = "\x1e{\"event\": \"result\", \"host\": \"a\", \"task\": \"t\", \"state\": \"ok\"}";
        assert!(matches!(parse_event(event), Some(Event::Result(TaskResult { state: State::Ok, .. }))));
        assert_eq!(parse_event("[WARNING]: x"), None);
        assert!(is_event("\x1e{") && parse_event("\x1e{").is_none());
    }
}
