//! Store paths as the tarball of a layer, written as it is read.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::model::failure::Failure;
use crate::tools::tarfile::{BLOCK, Kind, RECORD, Stamp, header};

/// What is read at once.
const PIECE: usize = 256 << 10;

/// A store path, and where it is when the store is below a root of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorePath {
    pub(crate) name: String,
    pub(crate) place: PathBuf,
}

/// Takes a piece of a tarball.
pub(crate) type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// Writes the layer of `paths`, byte by byte what nixpkgs writes.
///
/// # Errors
/// What can't be read, and what `take` says.
pub(crate) fn write(paths: &[StorePath], stamp: &Stamp, take: Take<'_>) -> Result<()> {
    let mut writer = Writer { stamp, take, written: 0, piece: vec![0; PIECE] };
    for folder in ["/nix", "/nix/store"] {
        writer.put(&header(folder, Kind::Folder, 0o555, stamp))?;
    }
    for path in paths {
        writer.entry(&path.name, &path.place)?;
    }
    writer.put(&[0; 2 * BLOCK])?;
    let rest = writer.written.next_multiple_of(RECORD as u64) - writer.written;
    writer.put(&vec![0; usize::try_from(rest)?])
}

/// Hands on a file as it is.
///
/// # Errors
/// As [`write`].
pub(crate) fn copy(path: &Path, take: Take<'_>) -> Result<()> {
    let mut file = File::open(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut piece = vec![0; PIECE];
    loop {
        let count = file.read(&mut piece).with_context(|| format!("can't read {}", path.display()))?;
        if count == 0 {
            return Ok(());
        }
        take(piece.get(..count).unwrap_or_default())?;
    }
}

/// About how many bytes a layer of `paths` has.
pub(crate) fn size(paths: &[StorePath]) -> u64 {
    paths.iter().map(|path| size_of(&path.place)).sum()
}

fn size_of(place: &Path) -> u64 {
    let Ok(metadata) = place.symlink_metadata() else { return 0 };
    let inside = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| size_of(&entry.path())).sum::<u64>()
    };
    let own = if metadata.is_file() { metadata.len().next_multiple_of(BLOCK as u64) } else { 0 };
    BLOCK as u64 + own + if metadata.is_dir() { inside(place) } else { 0 }
}

struct Writer<'a> {
    stamp: &'a Stamp,
    take: Take<'a>,
    written: u64,
    piece: Vec<u8>,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        (self.take)(bytes)
    }

    /// A path and what is below it, sorted by name at every level.
    fn entry(&mut self, name: &str, place: &Path) -> Result<()> {
        let unreadable = || format!("can't read {}", place.display());
        let metadata = place.symlink_metadata().with_context(unreadable)?;
        let mode = metadata.permissions().mode();
        if metadata.is_symlink() {
            let target = fs::read_link(place).with_context(unreadable)?;
            let target = target.to_str().ok_or_else(|| unwritable(place))?;
            self.put(&header(name, Kind::Link { target }, 0o777, self.stamp))
        } else if metadata.is_dir() {
            self.put(&header(name, Kind::Folder, mode, self.stamp))?;
            let entries = fs::read_dir(place).with_context(unreadable)?.collect::<Result<Vec<_>, _>>();
            let names = entries.with_context(unreadable)?.into_iter().map(|entry| entry.file_name().into_string());
            let mut names = names.collect::<Result<Vec<_>, _>>().map_err(|_| unwritable(place))?;
            names.sort_unstable();
            names.iter().try_for_each(|inside| self.entry(&format!("{name}/{inside}"), &place.join(inside)))
        } else if metadata.is_file() {
            self.put(&header(name, Kind::File { size: metadata.len() }, mode, self.stamp))?;
            self.content(place, metadata.len())
        } else {
            Err(Failure::refused(format!("{} is neither a file, a folder nor a link", place.display())).into())
        }
    }

    fn content(&mut self, place: &Path, size: u64) -> Result<()> {
        let mut file = File::open(place).with_context(|| format!("can't read {}", place.display()))?;
        let mut piece = std::mem::take(&mut self.piece);
        let mut left = size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            let count = file.read(piece.get_mut(..room).unwrap_or_default());
            let count = count.with_context(|| format!("can't read {}", place.display()))?;
            if count == 0 {
                return Err(
                    Failure::refused(format!("{} has become shorter while it was read", place.display())).into()
                );
            }
            self.put(piece.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
        self.piece = piece;
        let rest = size.next_multiple_of(BLOCK as u64) - size;
        self.put(&vec![0; usize::try_from(rest)?])
    }
}

fn unwritable(place: &Path) -> Failure {
    Failure::refused(format!("{}: a name in it is not UTF-8, and no layer can be made of that", place.display()))
}
