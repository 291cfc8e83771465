//! Control groups that a killed rehearsal leaves: nothing else outlives its namespaces.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A group in a rehearsal's own, with a process in it for as long as the rehearsal goes on.
const HELD: &str = "held";

/// Every hierarchy: one with version 2, one to a controller with version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.procs").is_file() {
        return vec![root.to_owned()];
    }
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").is_file()).collect()
}

/// Makes the group `name` in every hierarchy. While `process` lives nobody sweeps it away, empty as it may be.
///
/// # Errors
/// They can't be written: this needs root.
pub(crate) fn make(name: &str, process: u32) -> std::io::Result<()> {
    for hierarchy in hierarchies() {
        for (parent, name) in [(&hierarchy, name), (&hierarchy.join(name), HELD)] {
            std::fs::create_dir_all(parent.join(name))?;
            // With version 1 a new group of this controller starts without any processor or memory to use.
            for file in ["cpuset.cpus", "cpuset.mems"].map(|file| (parent.join(file), parent.join(name).join(file))) {
                if let (Ok(value), Ok(mut file)) =
                    (std::fs::read(&file.0), OpenOptions::new().write(true).open(&file.1))
                {
                    file.write_all(&value)?;
                }
            }
        }
        let processes = hierarchy.join(name).join(HELD).join("cgroup.procs");
        OpenOptions::new().write(true).open(processes)?.write_all(process.to_string().as_bytes())?;
    }
    Ok(())
}

/// Removes the groups whose name starts with `prefix` and whose processes have ended.
pub(crate) fn sweep(prefix: &str) {
    for hierarchy in hierarchies() {
        for entry in std::fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            let held = std::fs::read_to_string(entry.path().join(HELD).join("cgroup.procs")).unwrap_or_default();
            if held.is_empty() && entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix)) {
                remove(&entry.path());
            }
        }
    }
}

/// Removes the group `name`, whose processes have ended or are about to.
pub(crate) fn end(name: &str) {
    let gone = |group: &PathBuf| {
        remove(group);
        !group.exists()
    };
    for group in hierarchies().iter().map(|hierarchy| hierarchy.join(name)) {
        let mut left = 20;
        while !gone(&group) && left > 0 {
            std::thread::sleep(Duration::from_millis(10));
            left -= 1;
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
