//! What people and programs see. stdout is data, stderr is talk.

pub(crate) mod documents;
pub(crate) mod drawing;
pub(crate) mod findings;
pub(crate) mod formats;
pub(crate) mod health;
pub(crate) mod page;

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::exec::redact::Redactor;
use crate::exec::terminal;

/// How the result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences
    Human,
    /// One JSON document on stdout
    Json,
    /// SARIF 2.1.0 (check, parity)
    Sarif,
    /// JUnit (check, services-check, verify, smoke)
    Junit,
    /// TAP 13 (services-check)
    Tap,
    /// Prometheus' text format, for a textfile (services-check)
    Prometheus,
    /// For a pull request (verify, parity, plan)
    Markdown,
    /// Annotations of a workflow run (check only)
    Github,
}

/// What a command ends with.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) human: String,
    pub(crate) json: serde_json::Value,
    pub(crate) code: u8,
    /// The result in a format that is neither.
    pub(crate) other: Option<String>,
}

impl Outcome {
    pub(crate) fn ok(human: impl Into<String>, json: serde_json::Value) -> Self {
        Self { human: human.into(), json, code: 0, other: None }
    }
}

/// The one place that prints.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) format: Format,
    pub(crate) redactor: Redactor,
}

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    There,
    Gone,
}

/// A stage that is under way.
pub(crate) struct Stage<'a> {
    reporter: &'a Reporter,
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
    said: String,
}

impl Reporter {
    /// Starts a stage; on a terminal it is seen working.
    pub(crate) fn stage(&self, name: &str) -> Stage<'_> {
        let bar = Self::is_live().then(|| {
            let style = ProgressStyle::with_template("  {spinner} {prefix:8} {wide_msg} {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Stage { reporter: self, name: name.to_owned(), started: Instant::now(), bar, said: String::new() }
    }

    /// Is somebody watching?
    pub(crate) fn is_live() -> bool {
        std::io::stderr().is_terminal()
    }

    /// A line of talk.
    pub(crate) fn say(&self, text: &str) {
        terminal::say(&self.redactor.clean(text));
    }

    /// The result. A reader that has gone away is not an error; who goes on and on asks whether there still is one.
    pub(crate) fn data(&self, text: &str) -> Reader {
        let text = self.redactor.clean(text);
        let newline = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        let mut stdout = anstream::stdout();
        match write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()) {
            Ok(()) => Reader::There,
            Err(_) => Reader::Gone,
        }
    }
}

impl Stage<'_> {
    /// What is going on now; off a terminal only what is new is written.
    pub(crate) fn update(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(self.reporter.redactor.clean(text)),
            None if self.said != text => self.reporter.say(&format!("  … {:8} {text}", self.name)),
            None => {}
        }
        text.clone_into(&mut self.said);
    }

    /// A line of talk that stays, above what is going on.
    pub(crate) fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.reporter.say(text)),
            None => self.reporter.say(text),
        }
    }

    pub(crate) fn done(self, text: &str) {
        self.end("\x1b[32m✓\x1b[0m", text);
    }

    /// It came to its end, and not to a good one.
    pub(crate) fn failed(self, text: &str) {
        self.end("\x1b[31m✗\x1b[0m", text);
    }

    /// Reality says that it was done before.
    pub(crate) fn skipped(self, text: &str) {
        self.end("\x1b[2m=\x1b[0m", text);
    }

    fn end(&self, mark: &str, text: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.reporter.say(&format!(
            "  {mark} {:8} {text} \x1b[2m{:.1} s\x1b[0m",
            self.name,
            self.started.elapsed().as_secs_f32()
        ));
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A table without a frame.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head).add_rows(rows);
    table.to_string().lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let count = count as f64;
    match count {
        1e9.. => format!("{:.1} GB", count / 1e9),
        1e6.. => format!("{:.1} MB", count / 1e6),
        _ => format!("{:.1} kB", count / 1e3),
    }
}

/// The change to one file as a unified diff that `git apply` takes.
pub(crate) fn diff(path: &str, before: &str, after: &str) -> String {
    similar::TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header(&format!("a/{path}"), &format!("b/{path}"))
        .to_string()
}
