//! What a host is asked, in one command, and how its answer reads.

use super::Verdict;
use crate::model::expectation::Ask;

/// Run by the far end's `sh`; what is asked for are its arguments, never part of its text.
const SCRIPT: &str = r#"while [ $# -gt 1 ]; do printf "\n@@ %s %s\n" "$1" "$2"
case $1 in
launchd) launchctl print "gui/$(id -u)/$2" 2>&1 | grep -E "state =|last exit code =|Could not find" ;;
systemd) systemctl show --property=LoadState,ActiveState,SubState,Result "$2" 2>&1 ;;
brew) PATH=$PATH:/opt/homebrew/bin:/usr/local/bin brew services info --json "$2" 2>&1 ;;
file) date +now=%s; stat -c mtime=%Y "$2" 2>/dev/null || stat -f mtime=%m "$2" 2>/dev/null || echo missing ;;
tailscale) tailscale status --peers=false --json 2>&1 | grep -E "BackendState|Online" ;;
esac; shift 2; done; printf "\n@@ end -\n""#;

/// Verb and object of a question.
fn words(ask: &Ask) -> (&'static str, &str) {
    match ask {
        Ask::Answers => ("answers", "-"),
        Ask::Launchd { label, .. } => ("launchd", label),
        Ask::Systemd { unit } => ("systemd", unit),
        Ask::Brew { service } => ("brew", service),
        Ask::File { path, .. } => ("file", path),
        Ask::Tailscale => ("tailscale", "-"),
    }
}

/// The command that asks all of it.
pub(crate) fn command<'a>(asks: &[&'a Ask]) -> Vec<&'a str> {
    let mut command = vec!["sh", "-c", SCRIPT, "sh"];
    for (verb, object) in asks.iter().map(|ask| words(ask)) {
        command.extend([verb, object]);
    }
    command
}

/// The command that shows one of it to a person.
pub(crate) fn see(ask: &Ask) -> String {
    let quoted = |text: &str| shell_words::quote(text).into_owned();
    match ask {
        Ask::Answers => "true".to_owned(),
        Ask::Launchd { label, .. } => format!("launchctl print gui/$(id -u)/{}", quoted(label)),
        Ask::Systemd { unit } => format!("systemctl status {}", quoted(unit)),
        Ask::Brew { service } => format!("brew services info {}", quoted(service)),
        Ask::File { path, .. } => format!("ls -l {}", quoted(path)),
        Ask::Tailscale => "tailscale status".to_owned(),
    }
}

/// What is expected, in words.
pub(crate) fn expected(ask: &Ask) -> String {
    match ask {
        Ask::Answers => "answers over ssh".to_owned(),
        Ask::Launchd { scheduled: false, .. } => "running".to_owned(),
        Ask::Launchd { scheduled: true, .. } => "running, or ended with 0".to_owned(),
        Ask::Systemd { .. } => "active".to_owned(),
        Ask::Brew { .. } => "started".to_owned(),
        Ask::File { max_age, .. } => format!("younger than {}", age(max_age.as_secs())),
        Ask::Tailscale => "online".to_owned(),
    }
}

/// Judges the part of the answer that is about `ask`.
pub(crate) fn judge(ask: &Ask, answer: &str) -> Verdict {
    let (verb, object) = words(ask);
    if *ask == Ask::Answers {
        return Verdict::Fine("answers".to_owned());
    }
    let head = format!("@@ {verb} {object}");
    let mut lines = answer.lines().skip_while(|line| *line != head);
    if lines.next().is_none() {
        return Verdict::bad("the host's answer ends before it");
    }
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("@@ ")).map(str::trim).collect();
    let value = |key: &str| lines.iter().find_map(|line| line.strip_prefix(key)).map(str::trim);
    match ask {
        Ask::Answers => Verdict::Fine(String::new()),
        Ask::Launchd { scheduled, .. } => launchd(*scheduled, value("state ="), value("last exit code =")),
        Ask::Systemd { .. } => match (value("LoadState="), value("ActiveState=")) {
            (_, Some("active")) => Verdict::Fine(format!("active ({})", value("SubState=").unwrap_or("?"))),
            (Some("not-found"), _) => Verdict::bad("there is no such unit"),
            (_, Some(state)) => Verdict::bad(format!("{state} ({})", value("Result=").unwrap_or("?"))),
            _ => Verdict::bad(said(&lines)),
        },
        Ask::Brew { .. } => {
            let json: serde_json::Value = serde_json::from_str(&lines.join("\n")).unwrap_or_default();
            match json[0]["status"].as_str() {
                Some("started") => Verdict::Fine("started".to_owned()),
                Some(status) => Verdict::bad(status),
                None => Verdict::bad(said(&lines)),
            }
        }
        Ask::File { max_age, .. } => {
            let number = |key| value(key).and_then(|text| text.parse::<u64>().ok());
            match (number("now="), number("mtime=")) {
                (Some(now), Some(then)) if now.saturating_sub(then) <= max_age.as_secs() => {
                    Verdict::Fine(format!("{} old", age(now.saturating_sub(then))))
                }
                (Some(now), Some(then)) => Verdict::bad(format!("{} old", age(now.saturating_sub(then)))),
                _ => Verdict::bad("there is no such file"),
            }
        }
        Ask::Tailscale => {
            let has = |text: &str| lines.iter().any(|line| line.replace(' ', "").contains(text));
            match (has("\"BackendState\":\"Running\""), has("\"Online\":true")) {
                (true, true) => Verdict::Fine("online".to_owned()),
                (true, false) => Verdict::bad("running, but not online"),
                (false, _) => Verdict::bad(said(&lines)),
            }
        }
    }
}

fn launchd(scheduled: bool, state: Option<&str>, exit: Option<&str>) -> Verdict {
    match (state, exit) {
        (Some("running"), _) => Verdict::Fine("running".to_owned()),
        (Some(state), Some(code)) if scheduled && (code == "0" || code.contains("never")) => {
            Verdict::Fine(format!("{state}, ended with {code}"))
        }
        (Some(state), Some(code)) => Verdict::bad(format!("{state}, ended with {code}")),
        (Some(state), None) => Verdict::bad(state),
        (None, _) => Verdict::bad("launchd knows no such agent"),
    }
}

fn said(lines: &[&str]) -> String {
    let text = lines.join(" ");
    if text.trim().is_empty() { "it said nothing".to_owned() } else { text.chars().take(100).collect() }
}

/// Seconds for people.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        172_800.. => format!("{} days", seconds / 86400),
        7200.. => format!("{} h", seconds / 3600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ANSWER: &str = "
@@ launchd a.b
\tstate = running
@@ launchd c
\tstate = not running
\tlast exit code = 0
@@ launchd gone
Could not find service
@@ systemd runner
LoadState=loaded
ActiveState=failed
SubState=failed
Result=exit-code
@@ systemd fine
LoadState=loaded
ActiveState=active
SubState=running
@@ file /f
now=1000
mtime=400
@@ brew forgejo
[
{\"name\":\"forgejo\",\"status\":\"started\"}
]
@@ tailscale -
  \"BackendState\": \"Running\",
    \"Online\": true,

@@ end -
";

    #[test]
    fn every_answer_is_judged() {
        let agent = |label: &str, scheduled| Ask::Launchd { label: label.into(), scheduled };
        let unit = |unit: &str| Ask::Systemd { unit: unit.into() };
        let file = |seconds| Ask::File { path: "/f".into(), max_age: Duration::from_secs(seconds) };
        let cases = [
            (agent("a.b", false), Some("running")),
            (agent("c", true), Some("not running, ended with 0")),
            (agent("c", false), None),
            (agent("gone", true), None),
            (agent("unasked", true), None),
            (unit("runner"), None),
            (unit("fine"), Some("active (running)")),
            (file(600), Some("10 min old")),
            (file(599), None),
            (Ask::Brew { service: "forgejo".into() }, Some("started")),
            (Ask::Tailscale, Some("online")),
        ];
        for (ask, fine) in cases {
            let verdict = judge(&ask, ANSWER);
            assert_eq!(verdict.is_fine().then(|| verdict.seen()), fine, "{ask:?}: {verdict:?}");
        }
    }

    #[test]
    fn half_an_answer_is_no_pass() {
        let half = &ANSWER[..ANSWER.find("@@ brew").unwrap()];
        assert!(!judge(&Ask::Tailscale, half).is_fine());
        assert!(!judge(&Ask::Brew { service: "forgejo".into() }, half).is_fine());
    }

    #[test]
    fn what_is_asked_for_is_never_part_of_the_script() {
        let ask = Ask::Launchd { label: "$(rm -rf x)".into(), scheduled: false };
        assert_eq!(command(&[&ask])[3..], ["sh", "launchd", "$(rm -rf x)"]);
    }
}
