//! Findings that somebody has decided to live with, and why.

use super::finding::Finding;
use super::fix::{Edit, whole_line};
use super::source::{Place, Source};

/// How a waiver in a file starts, after whatever starts a comment there.
const MARK: &str = "waive ";

/// One waiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiver {
    pub(crate) rule: String,
    /// Empty where none was given.
    pub(crate) reason: String,
    /// The file, or for one of the configuration a path or folder.
    pub(crate) path: String,
    /// The lines it speaks of, from 1; nothing for all of them.
    lines: Option<(usize, usize)>,
    pub(crate) place: Place,
}

impl Waiver {
    /// One of the configuration: everything under `path`.
    pub(crate) fn of_path(rule: &str, path: &str, reason: &str, place: Place) -> Self {
        let path = path.trim_end_matches('/').to_owned();
        Self { rule: rule.to_owned(), reason: reason.to_owned(), path, lines: None, place }
    }

    /// The comments `# waive RULE: reason` of a file: at the line of the finding, or above it.
    pub(crate) fn of_file(source: &Source) -> Vec<Self> {
        let mut waivers = Vec::new();
        if !source.text.contains(MARK) {
            return waivers;
        }
        let mut start = 0;
        for (number, line) in source.text.split_inclusive('\n').enumerate() {
            if let Some(at) = line.find(MARK).filter(|at| is_comment(&source.path, &line[..*at])) {
                let text = line[at + MARK.len()..].trim_end().trim_end_matches("*/").trim_end_matches("-->").trim_end();
                let (rule, reason) = text.split_once(':').unwrap_or((text, ""));
                waivers.push(Self {
                    rule: rule.trim().to_owned(),
                    reason: reason.trim().to_owned(),
                    path: source.path.to_string(),
                    lines: Some((number + 1, number + 2)),
                    place: source.place(start + at, start + line.trim_end().len()),
                });
            }
            start += line.len();
        }
        waivers
    }

    /// Does it speak of `finding`?
    pub(crate) fn covers(&self, finding: &Finding) -> bool {
        let Some(place) = finding.place.as_ref().filter(|_| self.rule == finding.code) else { return false };
        let path = &*place.source.path;
        let same_path = path == self.path || path.strip_prefix(&self.path).is_some_and(|rest| rest.starts_with('/'));
        same_path && self.lines.is_none_or(|(first, last)| (first..=last).contains(&place.line_column().0))
    }
}

/// Takes an unused waiver away: its comment, the line where it is all of it, or its table in the configuration.
pub(crate) fn removal(waiver: &Waiver) -> Option<Edit> {
    let (text, place) = (&waiver.place.source.text, &waiver.place);
    if waiver.lines.is_none() {
        let start = text[..place.start].rfind("[[waivers]]")?;
        let end = text[place.end..].find("\n[").map_or(text.len(), |at| place.end + at + 1);
        // What a comment further down speaks of is not known.
        let is_alone = !text[start..end].contains('#');
        return is_alone.then(|| Edit::new(place.source.place(start, end), ""));
    }
    let line = whole_line(place);
    let before = &text[line.start..place.start];
    let mark = MARKS.iter().find(|mark| before.trim_end().ends_with(**mark))?;
    let code = before.trim_end().strip_suffix(mark)?.trim_end();
    if code.is_empty() {
        return Some(Edit::new(line, ""));
    }
    Some(Edit::new(place.source.place(line.start + code.len(), place.end), ""))
}

/// What starts a comment.
const MARKS: [&str; 4] = ["#", "//", "<!--", "/*"];

fn is_comment(path: &str, before: &str) -> bool {
    // In a page, a line that starts with # is a heading or an example.
    let is_page = matches!(path.rsplit_once('.'), Some((_, "md")));
    let marks: &[&str] = if is_page { &["<!--"] } else { &MARKS };
    marks.iter().any(|mark| before.trim_end().ends_with(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_waives_its_own_line_and_the_next() {
        let source = Source::new("a.yaml", "x: 1\n# waive rule-a: because\ny: 2 # waive rule-b: so\nz: 3\n");
        let waivers = Waiver::of_file(&source);
        assert_eq!(waivers.len(), 2);
        let at = |needle: &str, code| Finding::error(code, "m").at(source.find(needle));
        assert!(waivers[0].covers(&at("y: 2", "rule-a")) && !waivers[0].covers(&at("y: 2", "rule-b")));
        assert!(waivers[1].covers(&at("y: 2", "rule-b")) && !waivers[0].covers(&at("z", "rule-a")));
        assert_eq!((waivers[0].reason.as_str(), waivers[1].reason.as_str()), ("because", "so"));
        let all = Waiver::of_path("rule-a", "docs/", "generated", source.find("x"));
        let finding = Finding::error("rule-a", "m").at(Source::new("docs/a.md", "").find(""));
        assert!(all.covers(&finding));
    }
}
