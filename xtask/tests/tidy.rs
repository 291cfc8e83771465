//! What the architecture promises of the sources.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Lowest first: a module uses only what stands before it, or beside it in the same group.
const LAYERS: [&[&str]; 9] = [
    &["model"],
    &["checks"],
    &["tools"],
    &["exec"],
    &["registry", "forge", "probes"],
    &["report"],
    &["commands"],
    &["cli"],
    &["main"],
];

/// Longer files want to be two.
const LONGEST: usize = 500;

fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.insert(relative(&path, &root), std::fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

fn relative(path: &Path, root: &PathBuf) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().into_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|group| group.contains(&module))
}

#[test]
fn modules_use_only_lower_layers() {
    let mut count = 0;
    for (path, text) in sources() {
        let own = path.split(['/', '.']).next().unwrap();
        let own_layer = layer(own).unwrap_or_else(|| panic!("{path} is in no layer"));
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (at, _) in code.match_indices("crate::") {
            let used = code[at + 7..].split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            if let Some(used_layer) = layer(used) {
                let fine = used == own || used_layer < own_layer;
                assert!(fine, "{path} uses crate::{used}, which is not below it");
                count += 1;
            }
        }
    }
    assert!(count > 100, "only {count} uses were found");
}

#[test]
fn every_file_says_what_it_is_and_is_short() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path} does not open with a //! line");
        let lines = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(lines <= LONGEST, "{path} has {lines} lines");
    }
}
