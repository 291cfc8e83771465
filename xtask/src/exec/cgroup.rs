//! Control groups that a killed rehearsal leaves: nothing else outlives its namespaces.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Every hierarchy: one with version 2, one to a controller with version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.procs").is_file() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").is_file()).collect()
}

/// Makes the group `name` in every hierarchy.
///
/// # Errors
/// They can't be written: this needs root.
pub(crate) fn make(name: &str) -> std::io::Result<()> {
    for hierarchy in hierarchies() {
        std::fs::create_dir_all(hierarchy.join(name))?;
        // With version 1 a new group of this controller starts without any processor or memory to use.
        for file in ["cpuset.cpus", "cpuset.mems"].map(|file| (hierarchy.join(file), hierarchy.join(name).join(file))) {
            if let (Ok(value), Ok(mut file)) = (std::fs::read(&file.0), OpenOptions::new().write(true).open(&file.1)) {
                file.write_all(&value)?;
            }
        }
    }
    Ok(())
}

/// Removes the groups whose name starts with `prefix` and whose processes have ended.
pub(crate) fn sweep(prefix: &str) {
    for hierarchy in hierarchies() {
        for entry in std::fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                remove(&entry.path());
            }
        }
    }
}

/// The innermost first. A group with a process in it refuses, and stays.
fn remove(group: &Path) {
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    std::fs::remove_dir(group).unwrap_or_default();
}
