//! What must hold of whatever the parsers of xtask are given. They are taken from its sources as they are: all of
//! them are pure, and nothing here could run a program or ask a server.

#![allow(dead_code, unused_imports, reason = "xtask uses what no target does")]

#[path = "../../src/checks/mod.rs"]
mod checks;
#[path = "../../src/model/mod.rs"]
mod model;
#[path = "../../src/probes/mod.rs"]
mod probes;
#[path = "../../src/tools/mod.rs"]
mod tools;

#[path = "../../src/registry/headers.rs"]
mod headers;

mod archives;
mod exec;
mod expressions;
mod names;
mod outputs;
mod pins;
mod repository;
mod yaml;

use model::source::{Place, Source};

/// Makes the entries of the targets: those for text are given nothing else.
macro_rules! of_text {
    ($($name:ident),*) => {
        $(
            /// One input.
            pub fn $name(bytes: &[u8]) {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    $name::text(text);
                }
            }
        )*
    };
}

of_text!(names, yaml, pins, expressions, repository, outputs);

/// One input.
pub fn archives(bytes: &[u8]) {
    archives::bytes(bytes);
}

/// It can be shown and cut out: a part of its file, from one character to another.
fn assert_within(place: &Place) {
    let (text, (line, column)) = (&place.source.text, place.line_column());
    assert!(text.get(place.start..place.end).is_some(), "{}..{} of {text:?}", place.start, place.end);
    assert!(line >= 1 && column >= 1 && place.to_string().ends_with(&format!(":{line}:{column}")));
}
