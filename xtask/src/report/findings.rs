//! Findings and failures: for people with the source line, for programs as values.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::model::failure::Failure;
use crate::model::finding::{Finding, Severity};
use crate::model::source::Place;

/// One finding as a compiler would show it.
pub(crate) fn human(finding: &Finding) -> String {
    let (colour, word) = match finding.severity {
        Severity::Note => ("\x1b[36m", "note"),
        Severity::Error | Severity::Environment => ("\x1b[31m", "error"),
    };
    let mut text = format!("{colour}{word}[{}]\x1b[0m: {}\n", finding.code, finding.message);
    if let Some(place) = &finding.place {
        text.push_str(&snippet(place));
    }
    if let Some((place, what)) = finding.other.as_deref() {
        writeln!(text, "  = {what}:").unwrap_or_default();
        text.push_str(&snippet(place));
    }
    if let Some(help) = &finding.help {
        for line in help.lines() {
            writeln!(text, "  = help: {line}").unwrap_or_default();
        }
    }
    text
}

/// Of a longer line, the part around the place is shown.
const WIDEST: usize = 200;

fn snippet(place: &Place) -> String {
    let (line, column) = place.line_column();
    let source = place.source.text.lines().nth(line - 1).unwrap_or_default();
    let width = place.source.text[place.start..place.end].lines().next().map_or(1, |text| text.chars().count().max(1));
    let gutter = line.to_string().len();
    let is_long = source.chars().nth(WIDEST).is_some();
    let skipped = if is_long { (column - 1).saturating_sub(WIDEST / 4) } else { 0 };
    let shown: String = source.chars().skip(skipped).take(WIDEST).collect();
    let width = width.min(WIDEST - WIDEST / 4);
    let marks = format!("{}{}", " ".repeat(column - 1 - skipped), "^".repeat(width));
    format!("{:gutter$}--> {place}\n{:gutter$} |\n{line} | {shown}\n{:gutter$} | {}\n", "", "", "", marks.trim_end())
}

/// A failure with all its parts.
pub(crate) fn failure(failure: &Failure) -> String {
    let mut text = failure.findings.iter().map(|finding| human(finding) + "\n").collect::<String>();
    writeln!(text, "\x1b[31merror\x1b[0m: {}", failure.summary).unwrap_or_default();
    if let Some(command) = &failure.command {
        writeln!(text, "  command: {command}").unwrap_or_default();
    }
    for line in &failure.tail {
        writeln!(text, "  | {line}").unwrap_or_default();
    }
    for (word, part) in [("left", &failure.left), ("next", &failure.next)] {
        if let Some(part) = part {
            writeln!(text, "  {word}: {part}").unwrap_or_default();
        }
    }
    text
}

/// The same for programs.
pub(crate) fn failure_json(failure: &Failure) -> Value {
    let findings: Vec<Value> = failure.findings.iter().map(finding_json).collect();
    json!({"summary": failure.summary, "command": failure.command, "tail": failure.tail, "left": failure.left, "next": failure.next, "findings": findings})
}

/// One finding as a value.
pub(crate) fn finding_json(finding: &Finding) -> Value {
    let at = |place: &Place| {
        let (line, column) = place.line_column();
        json!({"path": &*place.source.path, "line": line, "column": column})
    };
    let severity = match finding.severity {
        Severity::Note => "note",
        Severity::Error => "error",
        Severity::Environment => "environment",
    };
    json!({"code": finding.code, "severity": severity, "message": finding.message, "place": finding.place.as_ref().map(at), "other": finding.other.as_deref().map(|(place, _)| at(place)), "help": finding.help, "fixable": finding.fix.is_some()})
}
