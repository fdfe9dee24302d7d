//! Whether the file of a SQLite database still lies where it was opened.
//!
//! A file that was taken away can be written to, and everything written is gone with us: so what is to last
//! is refused for as long as another file, or none, is in its place. It opens nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::StoreError;

/// The place of the file that is open.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    file: (u64, u64),
    /// Whether it was found elsewhere when it was looked for last.
    is_left: AtomicBool,
}

impl Place {
    /// Where the file lies that has just been opened by this path.
    pub fn of(path: PathBuf) -> io::Result<Place> {
        let file = number_of(&path)?;
        Ok(Place { path, file, is_left: AtomicBool::new(false) })
    }

    /// # Errors
    /// `Displaced` while the file is not there. Costs one look at a directory.
    pub fn check(&self) -> Result<(), StoreError> {
        let is_left = number_of(&self.path).ok() != Some(self.file);
        let was_left = self.is_left.swap(is_left, Ordering::Relaxed);
        let file = || self.path.display();
        if is_left && !was_left {
            tracing::error!(
                file = %file(),
                "the file of the database was taken away or replaced: calls go on, changes are refused; move \
                 the very same file back, or start again to go on with what is there now",
            );
        }
        if was_left && !is_left {
            tracing::info!(file = %file(), "the file of the database is back in its place");
        }
        match is_left {
            true => Err(StoreError::Displaced(self.path.clone())),
            false => Ok(()),
        }
    }
}

/// What names a file on this machine, whatever its path.
fn number_of(path: &PathBuf) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_the_very_file_that_was_opened_is_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (path, aside) = (folder.path().join("it"), folder.path().join("aside"));
        fs::write(&path, "1").unwrap();
        let place = Place::of(path.clone()).unwrap();
        assert!(place.check().is_ok());
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(place.check(), Err(StoreError::Displaced(there)) if there == path));
        fs::copy(&aside, &path).unwrap();
        assert!(place.check().is_err(), "a copy is another file");
        fs::rename(&aside, &path).unwrap();
        assert!(place.check().is_ok());
    }
}
