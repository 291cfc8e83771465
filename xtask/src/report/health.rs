//! Checks of health, for people and for other programs.

use std::collections::BTreeMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::formats::xml;
use super::{Format, table};
use crate::probes::{Bad, Checked, Verdict};

/// One word for how a check stands.
fn word(checked: &Checked) -> &'static str {
    match (&checked.verdict, &checked.check.waived) {
        (Verdict::Fine(_), _) => "fine",
        (Verdict::Bad(_), None) => "failed",
        (Verdict::Bad(_), Some(_)) => "waived",
    }
}

fn log(checked: &Checked) -> &[String] {
    match &checked.verdict {
        Verdict::Bad(Bad { log, .. }) => log,
        Verdict::Fine(_) => &[],
    }
}

/// What comes in front of an end: everything that fails, and how many there are of each.
pub(crate) fn human(all: &[Checked], only_failed: bool, took: f32) -> String {
    let mut text = String::new();
    let mut groups = BTreeMap::<&str, [usize; 3]>::new();
    for checked in all {
        let column = ["fine", "failed", "waived"].iter().position(|name| *name == word(checked)).unwrap_or(0);
        groups.entry(&checked.check.group).or_default()[column] += 1;
    }
    if !only_failed {
        let row = |(group, counts): (&&str, &[usize; 3])| {
            let count = |at: usize| if counts[at] == 0 { "-".to_owned() } else { counts[at].to_string() };
            vec![(*group).to_owned(), counts.iter().sum::<usize>().to_string(), count(0), count(1), count(2)]
        };
        let rows: Vec<Vec<String>> = groups.iter().map(row).collect();
        text += &(table(&["WHERE", "CHECKS", "FINE", "FAILED", "WAIVED"], &rows) + "\n");
    }
    for checked in all.iter().filter(|checked| !checked.verdict.is_fine()) {
        text += &one(checked);
    }
    let failed = all.iter().filter(|checked| checked.fails()).count();
    let waived = all.iter().filter(|checked| word(checked) == "waived").count();
    let waived = if waived == 0 { String::new() } else { format!(", {waived} waived") };
    let end = if failed == 0 {
        format!("{} checks passed", all.len() - waived_count(all))
    } else {
        format!("{failed} of {} checks failed", all.len())
    };
    text + &format!("{end}{waived} in {took:.1} s\n")
}

fn waived_count(all: &[Checked]) -> usize {
    all.iter().filter(|checked| word(checked) == "waived").count()
}

/// One failure with what there is to know.
pub(crate) fn one(checked: &Checked) -> String {
    let mark = if checked.fails() { "\x1b[31m✗\x1b[0m" } else { "\x1b[33m~\x1b[0m" };
    let check = &checked.check;
    let mut text = format!(
        "{mark} {}\n    expected  {}\n    seen      {}\n    see       {}\n",
        check.name,
        check.expected,
        checked.verdict.seen(),
        check.see
    );
    if let Some(reason) = &check.waived {
        text += &format!("    waived    {reason}\n");
    }
    for line in log(checked) {
        text += &format!("    | {line}\n");
    }
    text
}

/// For programs.
pub(crate) fn value(checked: &Checked) -> Value {
    let check = &checked.check;
    json!({
        "name": check.name, "where": check.group, "state": word(checked), "expected": check.expected,
        "seen": checked.verdict.seen(), "see": check.see, "seconds": seconds(checked), "waived": check.waived,
        "log": log(checked), "about": check.tags,
    })
}

fn seconds(checked: &Checked) -> f64 {
    (checked.took.as_secs_f64() * 1000.0).round() / 1000.0
}

/// The formats that only checks have; nothing for the others.
pub(crate) fn other(format: Format, command: &str, all: &[Checked]) -> Option<String> {
    match format {
        Format::Junit => Some(junit(command, all)),
        Format::Tap => Some(tap(all)),
        Format::Prometheus => Some(prometheus(all)),
        _ => None,
    }
}

fn junit(command: &str, all: &[Checked]) -> String {
    let mut cases = String::new();
    for checked in all {
        let check = &checked.check;
        let head = format!(
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
            xml(&check.group),
            xml(&check.name),
            checked.took.as_secs_f64()
        );
        let seen = xml(checked.verdict.seen());
        cases += &match word(checked) {
            "fine" => format!("{head}/>\n"),
            "waived" => {
                let reason = xml(check.waived.as_deref().unwrap_or_default());
                format!("{head}><skipped message=\"{seen}; waived: {reason}\"/></testcase>\n")
            }
            _ => {
                let log = xml(&log(checked).join("\n"));
                let body = format!("expected {}\nsee {}\n{log}", xml(&check.expected), xml(&check.see));
                format!("{head}><failure message=\"{seen}\">{body}</failure></testcase>\n")
            }
        };
    }
    let failures = all.iter().filter(|checked| checked.fails()).count();
    suite(&format!("cargo xtask {command}"), (all.len(), failures, waived_count(all)), &cases)
}

/// A JUnit document of one suite.
pub(crate) fn suite(name: &str, (tests, failures, skipped): (usize, usize, usize), cases: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{tests}\" failures=\"{failures}\">\n  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\">\n{cases}  </testsuite>\n</testsuites>\n"
    )
}

fn tap(all: &[Checked]) -> String {
    let mut text = format!("TAP version 13\n1..{}\n", all.len());
    for (number, checked) in all.iter().enumerate() {
        let plain = |text: &str| text.replace('#', "\\#").replace('\n', " ");
        let (check, number) = (&checked.check, number + 1);
        let name = plain(&check.name);
        text += &match &check.waived {
            _ if checked.verdict.is_fine() => format!("ok {number} - {name}\n"),
            Some(reason) => format!("not ok {number} - {name} # TODO {}\n", plain(reason)),
            None => format!("not ok {number} - {name}\n"),
        };
        if !checked.verdict.is_fine() {
            let quoted = |text: &str| Value::from(text).to_string();
            text += &format!(
                "  ---\n  expected: {}\n  seen: {}\n  see: {}\n  ...\n",
                quoted(&check.expected),
                quoted(checked.verdict.seen()),
                quoted(&check.see)
            );
        }
    }
    text
}

fn prometheus(all: &[Checked]) -> String {
    let escape = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let label = |checked: &Checked| {
        format!("check=\"{}\",where=\"{}\"", escape(&checked.check.name), escape(&checked.check.group))
    };
    let mut text = "# HELP blumeops_check_up Is it as the repository expects (a waived failure counts as it is)\n# TYPE blumeops_check_up gauge\n".to_owned();
    for checked in all {
        text += &format!("blumeops_check_up{{{}}} {}\n", label(checked), u8::from(checked.verdict.is_fine()));
    }
    text += "# HELP blumeops_check_seconds How long the answer took\n# TYPE blumeops_check_seconds gauge\n";
    for checked in all {
        text += &format!("blumeops_check_seconds{{{}}} {}\n", label(checked), seconds(checked));
    }
    text
}

/// The table that is seen while checks are asked: a line for each place, on a terminal.
pub(crate) struct Board {
    bars: BTreeMap<String, ProgressBar>,
    all: MultiProgress,
}

impl Board {
    /// With a line for each of `groups`, as often as it occurs.
    pub(crate) fn new<'a>(groups: impl Iterator<Item = &'a str>) -> Self {
        let mut counts = BTreeMap::<&str, u64>::new();
        for group in groups {
            *counts.entry(group).or_default() += 1;
        }
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template("  {spinner} {prefix:12} {bar:24} {pos}/{len} {wide_msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = |(group, count): (&str, u64)| {
            let bar = ProgressBar::new(count).with_style(style.clone()).with_prefix(group.to_owned());
            (group.to_owned(), all.add(bar))
        };
        let bars = counts.into_iter().map(bar).collect();
        Self { bars, all }
    }

    /// Some of a group have answered; `last` is what one of them is about.
    pub(crate) fn answered(&self, group: &str, count: u64, last: &str) {
        if let Some(bar) = self.bars.get(group) {
            bar.inc(count);
            bar.set_message(last.to_owned());
        }
    }

    pub(crate) fn tick(&self) {
        self.bars.values().for_each(ProgressBar::tick);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.bars.values().for_each(ProgressBar::finish_and_clear);
        self.all.clear().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::{Check, Question};
    use std::time::Duration;

    fn checked(name: &str, verdict: Verdict, waived: Option<&str>) -> Checked {
        let check = Check {
            name: name.to_owned(),
            group: "ringtail".to_owned(),
            tags: std::collections::BTreeSet::default(),
            question: Question::Nobody(String::new()),
            expected: "<all> well".to_owned(),
            see: "kubectl get x".to_owned(),
            timeout: None,
            waived: waived.map(str::to_owned),
        };
        Checked { check, verdict, took: Duration::from_millis(1500) }
    }

    #[test]
    fn every_format_tells_the_three_apart() {
        let all = [
            checked("a", Verdict::Fine("ok".into()), None),
            checked("b#\"", Verdict::bad("gone & \"lost\""), None),
            checked("c", Verdict::bad("old"), Some("moving")),
        ];
        let text = human(&all, false, 2.0);
        assert!(text.ends_with("1 of 3 checks failed, 1 waived in 2.0 s\n"), "{text}");
        let text = junit("services-check", &all);
        assert!(text.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(text.contains("message=\"gone &amp; &quot;lost&quot;\">expected &lt;all&gt; well"), "{text}");
        let text = tap(&all);
        assert!(
            text.contains("1..3\nok 1 - a\nnot ok 2 - b\\#\"\n") && text.contains("not ok 3 - c # TODO moving"),
            "{text}"
        );
        let text = prometheus(&all);
        assert!(text.contains("blumeops_check_up{check=\"b#\\\"\",where=\"ringtail\"} 0\n"), "{text}");
        assert!(text.contains("blumeops_check_seconds{check=\"a\",where=\"ringtail\"} 1.5\n"), "{text}");
    }
}
