//! A folder that is thrown away, whatever happens: by its owner, or by the next one when that was killed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{fs, lock, parallel, signal};

/// Held open by the owner; a folder whose lock is free has none any more.
const LOCK: &str = "lock";

/// So long after a signal a folder is removed; what is there then, the next owner removes.
const PATIENCE: Duration = Duration::from_millis(900);

/// A folder of our own; removed when dropped, unless kept.
pub(crate) struct Workspace {
    path: PathBuf,
    keep: bool,
    owner: Owner,
}

/// Who removes the folder.
enum Owner {
    Us { _lock: Option<lock::Lock> },
    Another,
}

impl Workspace {
    /// Makes a folder whose name starts with `prefix`, and removes those that killed owners left.
    ///
    /// # Errors
    /// The folder for temporary files can't be written.
    pub(crate) fn new(prefix: &str, keep: bool) -> Result<Self> {
        let parent = std::env::temp_dir().canonicalize().context("no folder for temporary files")?;
        sweep(&parent, prefix);
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&parent)
            .with_context(|| format!("can't make a folder in {}", parent.display()))?
            .keep();
        // Taken under another name: a lock that is there and free would have the folder swept away.
        let new = path.join("lock.new");
        let lock = lock::take(&new)?;
        std::fs::rename(&new, path.join(LOCK)).with_context(|| format!("can't write in {}", path.display()))?;
        Ok(Self { path, keep, owner: Owner::Us { _lock: lock } })
    }

    /// A folder that somebody else made and removes.
    pub(crate) fn of_another(path: &Path) -> Self {
        Self { path: path.to_owned(), keep: false, owner: Owner::Another }
    }

    /// What the folder is called.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// As text, for command lines and variables.
    pub(crate) fn text(&self, relative: &str) -> String {
        self.path(relative).to_string_lossy().into_owned()
    }

    pub(crate) fn write(&self, relative: &str, text: &str) -> Result<()> {
        fs::write(&self.path(relative), text)
    }

    /// As [`Self::write`], and it can be run.
    pub(crate) fn write_executable(&self, relative: &str, text: &str) -> Result<()> {
        self.write(relative, text)?;
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(relative), mode).with_context(|| format!("can't make {relative} executable"))
    }

    /// The names of the files in a folder that may not be there yet, in order.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Is it gone, now that it is not needed any more?
    pub(crate) fn end(self) -> bool {
        let path = self.path.clone();
        drop(self);
        !path.exists()
    }

    pub(crate) fn remove_file(&self, relative: &str) -> Result<()> {
        std::fs::remove_file(self.path(relative)).with_context(|| format!("can't remove {relative}"))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Another) {
            return;
        }
        if self.keep {
            // Without its lock the next owner leaves it alone.
            self.remove_file(LOCK).unwrap_or_default();
        } else if signal::interrupted() {
            let (sender, done) = channel();
            let path = self.path.clone();
            // On a busy disk it takes seconds, and somebody waits for the terminal.
            std::thread::spawn(move || {
                remove(&path);
                sender.send(()).unwrap_or_default();
            });
            done.recv_timeout(signal::left_of(PATIENCE)).unwrap_or_default();
        } else {
            remove(&self.path);
        }
    }
}

/// Does somebody work in `folder`?
pub(crate) fn is_in_use(folder: &Path) -> bool {
    let lock = folder.join(LOCK);
    lock.is_file() && !matches!(lock::take(&lock), Ok(Some(_)))
}

fn sweep(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        // A folder without a lock was kept, or is being made.
        if ours && entry.path().join(LOCK).is_file() && matches!(lock::take(&entry.path().join(LOCK)), Ok(Some(_))) {
            remove(&entry.path());
        }
    }
}

/// Removes a tree in which a Nix store has made folders read-only.
fn remove(path: &Path) {
    if !remove_content(path) {
        make_writable(path);
        // What is left now belongs to somebody else; the next owner tries again.
        if !remove_content(path) {
            return;
        }
    }
    std::fs::remove_dir_all(path).unwrap_or_default();
}

/// All but the lock: without one, a folder that is half removed would count as kept.
fn remove_content(path: &Path) -> bool {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let others: Vec<_> = entries.filter(|entry| entry.file_name() != LOCK).collect();
    let at_once = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let gone = parallel::map(&others, at_once, |entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => std::fs::remove_dir_all(entry.path()).is_ok(),
        _ => std::fs::remove_file(entry.path()).is_ok(),
    });
    gone.into_iter().all(|gone| gone)
}

fn make_writable(folder: &Path) {
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap_or_default();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            make_writable(&entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_makes_one_beside_another_keeps_it() {
        let numbers: Vec<u32> = (0..200).collect();
        let all = crate::exec::parallel::map(&numbers, 8, |_| Workspace::new("xtask-workspace-race-", false).unwrap());
        assert!(all.iter().all(|one| one.path(LOCK).is_file()));
    }

    #[test]
    fn what_a_killed_owner_left_goes_and_what_is_in_use_stays() {
        let prefix = "xtask-workspace-test-";
        let alive = Workspace::new(prefix, false).unwrap();
        let kept = Workspace::new(prefix, true).unwrap().path.clone();
        let left = std::env::temp_dir().join(format!("{prefix}killed"));
        std::fs::create_dir_all(left.join("sealed")).unwrap();
        fs::write(&left.join(LOCK), "").unwrap();
        std::fs::set_permissions(left.join("sealed"), std::fs::Permissions::from_mode(0o500)).unwrap();
        let next = Workspace::new(prefix, false).unwrap();
        assert!(!left.exists() && alive.path.exists() && kept.exists());
        let (a, b) = (alive.path.clone(), next.path.clone());
        drop((alive, next));
        assert!(!a.exists() && !b.exists());
        remove(&kept);
    }
}
