//! Calls of this tool, in workflows, tasks and pages.

use super::Rule;
use crate::model::finding::Finding;
use crate::model::grammar::Grammar;
use crate::model::source::{Place, Source};
use crate::model::world::World;

/// The rules of this family.
pub(crate) const RULES: &[Rule] = &[Rule {
    code: "xtask-call",
    about: "A call of this tool in a workflow, task or page names a command that it has, with options it takes.",
    why: "The job fails at the next tag, or the reader at the worst time.",
    breaks: ("docs/how-to/how-to.md", "cargo xtask check --since main", "cargo xtask check --sinc main"),
    check: calls,
}];

const CALL: &str = "cargo xtask ";
const TASK: &str = "mise run ";

/// The words of a call, each with where it starts in the file.
type Words<'a> = Vec<(&'a str, usize)>;

/// The words from `start` to the end of the command, which lies before `end`.
fn words(file: &Source, start: usize, end: usize) -> Words<'_> {
    let mut words = Vec::new();
    let mut at = start;
    for part in file.text[start..end].split(' ') {
        // A quote at either end is the shell's, or the file's around the whole call.
        let word = part.trim_matches(|c: char| c.is_whitespace() || "\"'`,;)(".contains(c));
        let is_end = ["&&", "||", "|", ">", ">>", "\\", "→"].contains(&word)
            || word.starts_with(['#', '>'])
            || word.starts_with("2>");
        if is_end {
            break;
        }
        if !word.is_empty() {
            words.push((word, at + part.find(word).unwrap_or(0)));
        }
        at += part.len() + 1;
        if part.ends_with([';', '`']) || part.ends_with("\",") {
            break;
        }
    }
    words
}

/// Every call that `marker` begins in code: of a page its blocks and spans, of other files every line.
fn called<'a>(file: &'a Source, marker: &str) -> Vec<Words<'a>> {
    let is_page = file.path.ends_with(".md");
    let (mut found, mut start, mut in_block) = (Vec::new(), 0, false);
    if !file.text.contains(marker) {
        return found;
    }
    for line in file.text.split_inclusive('\n') {
        in_block ^= is_page && line.trim_start().starts_with("```");
        for (at, _) in line.match_indices(marker).filter(|_| is_page || !line.trim_start().starts_with('#')) {
            let from = start + at + marker.len();
            let span_end = line[at..].find('`').map(|end| start + at + end);
            // A call is the first thing of its span or command.
            let before = line[..at].trim_end();
            let is_first = before.is_empty()
                || before.ends_with(['$', '`', '"', '\'', '→', '-'])
                || before.ends_with("&&")
                || before.ends_with(':')
                || before.ends_with(')');
            match (is_page && !in_block, span_end) {
                (true, Some(end)) if line[..at].matches('`').count() % 2 == 1 => found.push(words(file, from, end)),
                (false, _) if is_first => found.push(words(file, from, start + line.len())),
                _ => {}
            }
        }
        start += line.len();
    }
    found
}

/// Where calls are looked for. Plans speak of what is to come.
fn is_reader(file: &Source) -> bool {
    let is_page = file.path.starts_with("docs/") && file.path.ends_with(".md") || &*file.path == "README.md";
    let is_plan = file.path.contains("/plans/") || file.path.contains("changelog.d");
    (is_page && !is_plan) || file.path.starts_with(".forgejo/") || &*file.path == ".mise.toml"
}

/// The task's own call of this tool, by its name.
fn tasks(world: &World) -> Vec<(String, Vec<String>)> {
    let file = world.repo.files.iter().find(|file| &*file.path == ".mise.toml");
    let table = file.and_then(|file| file.text.parse::<toml::Table>().ok()).unwrap_or_default();
    let tasks = table.get("tasks").and_then(toml::Value::as_table).into_iter().flatten();
    let call = |task: &toml::Value| {
        let run = task.get("run").unwrap_or(task).as_str()?.strip_prefix(CALL)?;
        Some(run.split_whitespace().map(str::to_owned).collect())
    };
    tasks.filter_map(|(name, task)| Some((name.clone(), call(task)?))).collect()
}

/// In another repository `cargo xtask` is another tool.
fn is_this(world: &World) -> bool {
    world.facts.paths.contains("xtask/src/cli.rs")
}

/// The calls of a tool that is not here.
pub(super) fn unknown(world: &World) -> Option<String> {
    let readers = world.repo.files.iter().filter(|file| is_reader(file));
    let count: usize = readers.map(|file| called(file, CALL).len()).sum();
    (count > 0 && !is_this(world)).then(|| format!("{count} calls of cargo xtask: what it can is not here"))
}

fn calls(world: &World, findings: &mut Vec<Finding>) {
    let Some(grammar) = world.facts.grammar.as_ref().filter(|_| is_this(world)) else { return };
    let tasks = tasks(world);
    for file in world.repo.files.iter().filter(|file| is_reader(file)) {
        for call in called(file, CALL) {
            judge(grammar, file, (&[], &call), findings);
        }
        for call in called(file, TASK) {
            let Some((_, own)) = tasks.iter().find(|(name, _)| call.first().is_some_and(|(word, _)| word == name))
            else {
                continue;
            };
            let rest: Words<'_> = call.into_iter().skip(1).filter(|(word, _)| *word != "--").collect();
            judge(grammar, file, (own, &rest), findings);
        }
    }
}

/// A call that begins with words from elsewhere.
fn judge(grammar: &Grammar, file: &Source, (before, call): (&[String], &Words<'_>), findings: &mut Vec<Finding>) {
    let words: Vec<&str> = before.iter().map(String::as_str).chain(call.iter().map(|(word, _)| *word)).collect();
    let Err(wrong) = grammar.judge(&words) else { return };
    let Some((word, start)) = wrong.word.checked_sub(before.len()).and_then(|at| call.get(at)) else { return };
    let place: Place = file.place(*start, start + word.len());
    let finding = Finding::error("xtask-call", wrong.what).at(place);
    findings.push(finding.did_you_mean(word, wrong.known.iter().map(String::as_str)));
}
