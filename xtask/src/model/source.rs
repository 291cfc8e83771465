//! Files as text, and places in them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::yaml::{self, Documents};

/// One file of the repository, read once and shared by everything that points into it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: Arc<str>,
    pub(crate) text: Arc<str>,
    /// What it is as YAML, for whoever asks first and everybody after.
    documents: Arc<OnceLock<Documents>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.text == other.text
    }
}

impl Eq for Source {}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), documents: Arc::default() }
    }

    /// Its YAML documents.
    pub(crate) fn documents(&self) -> &Documents {
        self.documents.get_or_init(|| yaml::documents(&self.text))
    }

    /// The folder the file is in, relative to the root.
    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// The place of the bytes from `start` to `end`.
    pub(crate) fn place(&self, start: usize, end: usize) -> Place {
        Place { source: self.clone(), start, end: end.max(start) }
    }

    /// The place of the bytes from `start` to `end`, of several lines the first.
    pub(crate) fn first_line(&self, start: usize, end: usize) -> Place {
        let written = &self.text[start..end.clamp(start, self.text.len())];
        let first = written.lines().next().map_or(0, |line| line.trim_end().len());
        self.place(start, start + first)
    }

    /// The place of the first line that contains `needle`, or of the file's start.
    pub(crate) fn find(&self, needle: &str) -> Place {
        let start = self.text.find(needle);
        self.place(start.unwrap_or(0), start.map_or(0, |start| start + needle.len()))
    }
}

/// A span of bytes in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: Source,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Place {
    /// Line and column, both from 1, the column in characters.
    pub(crate) fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.start.min(self.source.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Is this line of this file in it, or one that it begins or ends in?
    pub(crate) fn has_line(&self, path: &str, line: usize) -> bool {
        if *self.source.path != *path {
            return false;
        }
        let first = self.line_column().0;
        let text = self.source.text.get(self.start..self.end).unwrap_or_default();
        (first..=first + text.trim_end().matches('\n').count()).contains(&line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.source.path)
    }
}
