//! What a play did, from its events: pure.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::model::failure::Failure;
use crate::report::table;
use crate::tools::ansible::{Counts, Event, Notice, State, TaskResult};

/// Everything that is worth telling at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Recap {
    pub(super) counts: BTreeMap<String, Counts>,
    /// Host and task, in order.
    pub(super) changed: Vec<(String, String)>,
    pub(super) failed: Vec<TaskResult>,
    pub(super) notices: Vec<Notice>,
    /// Host and changed lines.
    pub(super) diffs: Vec<(String, String)>,
}

impl Recap {
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Result(result) => match result.state {
                State::Changed => self.changed.push((result.host, result.task)),
                State::Failed | State::Unreachable => self.failed.push(result),
                State::Ok | State::Skipped | State::Ignored => {}
            },
            Event::Notify(notice) => self.notices.push(notice),
            Event::Diff { host, task, text } => self.diffs.push((format!("{host}: {task}"), text)),
            Event::Stats { hosts } => self.counts = hosts,
            Event::Play { .. } | Event::Task { .. } => {}
        }
    }

    /// For people.
    pub(super) fn human(&self, check: bool) -> String {
        let number = |count: u32| count.to_string();
        let rows: Vec<Vec<String>> = self
            .counts
            .iter()
            .map(|(host, counts)| {
                let numbers = [counts.ok, counts.changed, counts.skipped, counts.failures, counts.unreachable];
                std::iter::once(host.clone()).chain(numbers.map(number)).collect()
            })
            .collect();
        let mut text = table(&["HOST", "OK", "CHANGED", "SKIPPED", "FAILED", "UNREACHABLE"], &rows);
        let (changed, runs) = if check { ("would change", "would then run") } else { ("changed", "was told to run") };
        for (host, task) in &self.changed {
            text += &format!("{changed} on {host}: {task}\n");
        }
        for Notice { host, handler, runs: command } in &self.notices {
            let command = command.as_ref().map(|command| format!(" ({command})")).unwrap_or_default();
            text += &format!("{runs} on {host}: {handler}{command}\n");
        }
        if self.changed.is_empty() {
            text += if check { "nothing would change\n" } else { "nothing changed\n" };
        }
        text
    }

    pub(super) fn value(&self, check: bool) -> Value {
        let hosts: BTreeMap<&str, Value> = self.counts.iter().map(|(host, c)| (host.as_str(), json!({"ok": c.ok, "changed": c.changed, "skipped": c.skipped, "failed": c.failures, "unreachable": c.unreachable}))).collect();
        let changed: Vec<Value> = self.changed.iter().map(|(host, task)| json!({"host": host, "task": task})).collect();
        let handlers: Vec<Value> = self
            .notices
            .iter()
            .map(|notice| json!({"host": notice.host, "handler": notice.handler, "runs": notice.runs}))
            .collect();
        let diffs: Vec<Value> = self.diffs.iter().map(|(what, text)| json!({"what": what, "diff": text})).collect();
        json!({"check": check, "hosts": hosts, "changed": changed, "handlers": handlers, "diffs": diffs})
    }

    /// What had been done when it ended before its time.
    pub(super) fn left(&self, check: bool) -> String {
        let tasks: Vec<&str> = self.changed.iter().map(|(_, task)| task.as_str()).collect();
        match tasks.len() {
            _ if check => "nothing was changed, it only looked".to_owned(),
            0 => "nothing had been changed".to_owned(),
            _ => format!("changed before it: {}; the same command again goes on", tasks.join(", ")),
        }
    }

    /// The failure of the first task that failed.
    pub(super) fn failure(&self) -> Option<Failure> {
        let first = self.failed.first()?;
        let summary = match first.state {
            State::Unreachable => format!("{} can't be reached any more, at «{}»", first.host, first.task),
            _ => format!("«{}» failed on {}", first.task, first.host),
        };
        let failure = match first.state {
            State::Unreachable => Failure::environment(summary),
            _ => Failure::refused(summary),
        };
        let lines = if first.hidden {
            vec!["its output is hidden: it is about a secret".to_owned()]
        } else {
            first.lines.clone()
        };
        let next = match (&first.calls, &first.place) {
            (Some(call), _) => format!("run it where nobody else reads: {call}"),
            (None, Some(place)) => format!("the task is at {place}"),
            (None, None) => "--format json has all that is known".to_owned(),
        };
        Some(failure.tail(lines).next(next))
    }
}

/// Tasks that changed in both of two runs that should not differ.
pub(super) fn again(before: &[(String, String)], now: &[(String, String)]) -> Vec<(String, String)> {
    let before: BTreeSet<_> = before.iter().collect();
    now.iter().filter(|task| before.contains(task)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(task: &str, state: State) -> TaskResult {
        let (host, task) = ("indri".to_owned(), task.to_owned());
        TaskResult { host, task, state, lines: vec!["no".to_owned()], hidden: false, calls: None, place: None }
    }

    #[test]
    fn a_check_says_what_would_restart_what() {
        let mut recap = Recap::default();
        recap.take(Event::Result(result("Write the Caddyfile", State::Changed)));
        recap.take(Event::Result(result("Gather", State::Ok)));
        let (host, handler) = ("indri".to_owned(), "Restart Caddy".to_owned());
        recap.take(Event::Notify(Notice { host, handler, runs: Some("launchctl kickstart".to_owned()) }));
        recap.take(Event::Stats {
            hosts: BTreeMap::from([("indri".to_owned(), Counts { ok: 2, changed: 1, ..Counts::default() })]),
        });
        let text = recap.human(true);
        assert!(text.contains("would change on indri: Write the Caddyfile\n"), "{text}");
        assert!(text.contains("would then run on indri: Restart Caddy (launchctl kickstart)\n"), "{text}");
        assert!(recap.failure().is_none());
        assert_eq!(recap.left(false), "changed before it: Write the Caddyfile; the same command again goes on");
    }

    #[test]
    fn a_failure_shows_its_reason_and_a_hidden_one_does_not() {
        let mut recap = Recap::default();
        recap.take(Event::Result(result("Write", State::Failed)));
        assert_eq!(recap.failure().unwrap().tail, ["no"]);
        recap.failed[0].hidden = true;
        recap.failed[0].calls = Some("op read x".to_owned());
        let failure = recap.failure().unwrap();
        assert_eq!(failure.tail, ["its output is hidden: it is about a secret"]);
        assert!(failure.next.unwrap().ends_with("op read x"));
        recap.failed[0].state = State::Unreachable;
        assert_eq!(recap.failure().unwrap().exit_code(), 2);
    }

    #[test]
    fn only_what_changed_twice_is_not_settled() {
        let task = |name: &str| ("a".to_owned(), name.to_owned());
        assert_eq!(again(&[task("x"), task("y")], &[task("y"), task("z")]), [task("y")]);
        assert!(again(&[], &[task("z")]).is_empty());
    }
}
