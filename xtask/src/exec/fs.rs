//! Files: read the repository once, write beside and rename.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{env, parallel};
use crate::model::config;
use crate::model::source::Source;
use crate::model::workflow;
use crate::model::world::is_yaml;

/// Larger files hold data, not configuration.
const LARGEST: u64 = 4 << 20;

/// The folder to work on: `given`, or the nearest one upwards that looks like a checkout.
///
/// # Errors
/// There is none.
pub(crate) fn root(given: Option<&Path>) -> Result<PathBuf, String> {
    let looks_right = |folder: &Path| ["containers", "argocd"].iter().any(|name| folder.join(name).is_dir());
    if let Some(given) = given {
        let root = given.canonicalize().map_err(|error| format!("--root {}: {error}", given.display()))?;
        return if looks_right(&root) {
            Ok(root)
        } else {
            Err(format!("--root {}: no containers/ or argocd/ in there", given.display()))
        };
    }
    let here = std::env::current_dir().map_err(|error| format!("no working directory: {error}"))?;
    let found = here.ancestors().find(|folder| looks_right(folder)).map(Path::to_owned);
    found.ok_or_else(|| "this is not inside a checkout with containers/ or argocd/; name one with --root".to_owned())
}

/// The files the model is made of.
pub(crate) fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    walk(root, &root.join("containers"), 2, &mut files);
    walk(root, &root.join("argocd"), 8, &mut files);
    walk(root, &root.join(workflow::FOLDER), 0, &mut files);
    walk(root, &root.join("ansible"), 8, &mut files);
    walk(root, &root.join("docs"), 8, &mut files);
    files.extend(read(root, &root.join(config::PATH)));
    files.extend(read(root, &root.join(".mise.toml")));
    files.extend(read(root, &root.join("README.md")));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    // Whoever asks later finds them parsed.
    let yaml: Vec<&Source> = files.iter().filter(|file| is_yaml(&file.path)).collect();
    let at_once = std::thread::available_parallelism().map_or(2, NonZero::get);
    parallel::map(&yaml, at_once, |file| _ = file.documents());
    files
}

fn walk(root: &Path, folder: &Path, depth: usize, files: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // The type of the link itself: a loop of links is not followed.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth > 0 {
            walk(root, &entry.path(), depth - 1, files);
        } else if kind.is_file() {
            files.extend(read(root, &entry.path()));
        }
    }
}

/// Every file of a checkout that no git knows, relative to its root; what builds and tools keep there is left out.
pub(crate) fn paths(root: &Path) -> BTreeSet<String> {
    let (mut paths, mut folders) = (BTreeSet::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (Ok(kind), path) = (entry.file_type(), entry.path()) else { continue };
            let name = entry.file_name();
            if kind.is_dir() && ![".git", "target", "node_modules"].iter().any(|skipped| name == *skipped) {
                folders.push(path);
            } else if !kind.is_dir()
                && let Ok(relative) = path.strip_prefix(root)
            {
                paths.insert(relative.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths
}

/// What is below `folder` and none of `known`, each with its size and when it was written: it was not read as text.
pub(crate) fn stamps(root: &Path, folder: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let below = paths(&root.join(folder)).into_iter().map(|path| format!("{folder}/{path}"));
    let written = |path: String| {
        let metadata = root.join(&path).metadata().ok()?;
        Some(format!("{path} {} {:?}", metadata.len(), metadata.modified().ok()))
    };
    below.filter(|path| !known.contains(path.as_str())).filter_map(written).collect()
}

/// What kubectl reads to know its contexts.
pub(crate) fn kubeconfigs() -> Vec<Source> {
    let paths = match env::var("KUBECONFIG") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => env::var("HOME").map(|home| PathBuf::from(home).join(".kube/config")).into_iter().collect::<Vec<_>>(),
    };
    paths.iter().filter_map(|path| read(Path::new("/"), path)).collect()
}

/// One file, if it is text of a size that people write; a link is not followed.
pub(crate) fn source(root: &Path, path: &Path) -> Option<Source> {
    if path.is_symlink() { None } else { read(root, path) }
}

fn read(root: &Path, path: &Path) -> Option<Source> {
    // Reading a pipe would wait for somebody to write into it.
    path.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() <= LARGEST)?;
    let text = std::fs::read_to_string(path).ok()?;
    let relative = path.strip_prefix(root).ok()?.to_string_lossy().replace('\\', "/");
    Some(Source::new(&relative, &text))
}

/// When a file was written, to the second.
pub(crate) fn written(path: &Path) -> Option<String> {
    let time = path.metadata().ok()?.modified().ok()?;
    let time = jiff::Timestamp::try_from(time).ok()?;
    jiff::Timestamp::from_second(time.as_second()).ok().map(|time| time.to_string())
}

/// Writes `text` to `path` whole or not at all, keeping the file's permissions.
///
/// # Errors
/// What the file system says.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(|| format!("can't make {}", folder.display()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.new"));
    let mut file = beside_alone(&beside).with_context(|| format!("can't write in {}", folder.display()))?;
    let written = fill(&mut file, path, text)
        .and_then(|()| std::fs::rename(&beside, path))
        .with_context(|| format!("can't replace {}", path.display()));
    if written.is_err() {
        std::fs::remove_file(&beside).unwrap_or_default();
    }
    written
}

/// The file beside another, under one name: what somebody left who was killed is taken up by the next who writes. It is
/// locked, so that of two who write at once the second waits.
fn beside_alone(beside: &Path) -> std::io::Result<std::fs::File> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
    loop {
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = std::fs::File::options();
        let file = options.create(true).truncate(false).write(true).custom_flags(no_link).open(beside)?;
        file.lock()?;
        // Whoever held it may have renamed it meanwhile; then it is not the file beside any more.
        let same = beside.symlink_metadata().is_ok_and(|now| file.metadata().is_ok_and(|ours| ours.ino() == now.ino()));
        if same {
            return Ok(file);
        }
    }
}

fn fill(file: &mut std::fs::File, path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_len(0)?;
    file.write_all(text.as_bytes())?;
    let permissions = path.metadata().map(|metadata| metadata.permissions());
    file.set_permissions(permissions.unwrap_or_else(|_| std::fs::Permissions::from_mode(0o644)))?;
    file.sync_all()
}

/// Appends to a file that somebody else made, as CI's step outputs are.
///
/// # Errors
/// What the file system says.
pub(crate) fn append(path: &Path, text: &str) -> Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("can't open {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("can't append to {}", path.display()))
}
