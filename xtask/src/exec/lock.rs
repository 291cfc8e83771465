//! One release of a container at a time in one clone. The lock dies with its process.

use std::fs::{File, TryLockError};
use std::path::Path;

/// Held until dropped.
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock at `path`; nothing when somebody else holds it.
///
/// # Errors
/// The file can't be made.
pub(crate) fn take(path: &Path) -> std::io::Result<Option<Lock>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
