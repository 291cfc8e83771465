//! What has been verified: for people, for a pull request, for CI, and as evidence.

use serde_json::{Value, json};

use crate::commands::Context;
use crate::probes::Bad;
use crate::probes::verify::{Point, State};
use crate::report::formats::xml;
use crate::report::health::suite;
use crate::tools::git;

/// Everything that a record says.
pub(super) struct Record<'a> {
    pub(super) service: &'a str,
    pub(super) commit: Option<String>,
    pub(super) time: String,
    pub(super) states: &'a [(Point, State)],
}

/// The commit that is checked out, marked where files differ from it.
pub(super) fn commit(cx: &Context) -> Option<String> {
    let output = cx.system.output(&git::describe()).ok()?;
    Some(output.stdout.trim().to_owned()).filter(|text| output.success() && !text.is_empty())
}

/// A point for programs.
pub(super) fn value(point: Point, state: &State) -> Value {
    let (word, seen) = (word(state), seen(state));
    let (see, log) = match state {
        State::Failed(Bad { log, .. }, see) => (Some(see), log.as_slice()),
        _ => (None, &[][..]),
    };
    json!({"point": point.title(), "number": number(point), "state": word, "seen": seen, "see": see, "log": log})
}

fn number(point: Point) -> usize {
    Point::ALL.iter().position(|known| *known == point).map_or(0, |at| at + 1)
}

fn word(state: &State) -> &'static str {
    match state {
        State::Passed(_) => "passed",
        State::Failed(..) => "failed",
        State::NotAsked(_) => "not asked",
    }
}

fn seen(state: &State) -> String {
    match state {
        State::Passed(seen) | State::Failed(Bad { seen, .. }, _) => seen.clone(),
        State::NotAsked(because) => format!("not asked: because of «{}»", because.title()),
    }
}

impl Record<'_> {
    fn passed(&self) -> usize {
        self.states.iter().filter(|(_, state)| matches!(state, State::Passed(_))).count()
    }

    fn end(&self) -> String {
        format!("{}: {} of {} points passed", self.service, self.passed(), self.states.len())
    }

    pub(super) fn human(&self) -> String {
        let mut text = String::new();
        for (point, state) in self.states {
            let mark = match state {
                State::Passed(_) => "\x1b[32m✓\x1b[0m",
                State::Failed(..) => "\x1b[31m✗\x1b[0m",
                State::NotAsked(_) => "\x1b[2m-\x1b[0m",
            };
            text += &format!("{mark} {}. {}\n    {}\n", number(*point), point.title(), seen(state));
            if let State::Failed(bad, see) = state {
                text += &if see.is_empty() { String::new() } else { format!("    see  {see}\n") };
                text.extend(bad.log.iter().map(|line| format!("    | {line}\n")));
            }
        }
        text + &self.end() + "\n"
    }

    /// Ticked boxes.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("### {}\n\n", self.end());
        for (point, state) in self.states {
            let tick = if matches!(state, State::Passed(_)) { "x" } else { " " };
            let seen = seen(state).replace(['\n', '\r'], " ");
            text += &format!("- [{tick}] **{}. {}**: {seen}\n", number(*point), point.title());
            if let State::Failed(bad, _) = state
                && !bad.log.is_empty()
            {
                text += "\n  ```text\n";
                text.extend(bad.log.iter().map(|line| format!("  {}\n", line.replace("```", "'''"))));
                text += "  ```\n\n";
            }
        }
        text
    }

    /// The same with commit and time.
    pub(super) fn evidence(&self) -> String {
        let commit = self.commit.as_deref().unwrap_or("no commit");
        format!("# Verification of {}\n\nAt {}, commit {commit}.\n\n{}", self.service, self.time, self.markdown())
    }

    pub(super) fn junit(&self) -> String {
        let mut cases = String::new();
        for (point, state) in self.states {
            let head = format!(
                "    <testcase classname=\"{}\" name=\"{}. {}\"",
                xml(self.service),
                number(*point),
                xml(point.title())
            );
            cases += &match state {
                State::Passed(_) => format!("{head}/>\n"),
                State::NotAsked(_) => format!("{head}><skipped message=\"{}\"/></testcase>\n", xml(&seen(state))),
                State::Failed(bad, see) => format!(
                    "{head}><failure message=\"{}\">see {}\n{}</failure></testcase>\n",
                    xml(&bad.seen),
                    xml(see),
                    xml(&bad.log.join("\n"))
                ),
            };
        }
        let count = |word_: &str| self.states.iter().filter(|(_, state)| word(state) == word_).count();
        let name = format!("cargo xtask verify {}", xml(self.service));
        suite(&name, (self.states.len(), count("failed"), count("not asked")), &cases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::Outlook;

    #[test]
    fn ticked_boxes_and_reasons() {
        let bad =
            Bad { seen: "0 of 1 <ready>".into(), outlook: Outlook::Hopeless, culprit: None, log: vec!["boom".into()] };
        let states = [
            (Point::Builds, State::Passed("both".into())),
            (Point::Pods, State::Failed(bad, "kubectl x".into())),
            (Point::Page, State::NotAsked(Point::Pods)),
        ];
        let record = Record { service: "a", commit: Some("abc".into()), time: "now".into(), states: &states };
        let text = record.evidence();
        assert!(
            text.contains("At now, commit abc.") && text.contains("- [x] **1. Container builds**: both\n"),
            "{text}"
        );
        assert!(text.contains("- [ ] **3. Pods running and ready**: 0 of 1 <ready>\n\n  ```text\n  boom\n"), "{text}");
        assert!(text.contains("not asked: because of «Pods running and ready»"), "{text}");
        let text = record.junit();
        assert!(text.contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{text}");
        assert!(text.contains("message=\"0 of 1 &lt;ready&gt;\">see kubectl x\nboom<"), "{text}");
    }
}
