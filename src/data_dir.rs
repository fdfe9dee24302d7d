//! The directory that holds what a daemon keeps: the database, its keys, its socket, its name.
//!
//! One daemon at a time: the lock is given back by the kernel, however the daemon ends.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, OpenOptionsExt},
            net::SocketAddr,
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use uuid::Uuid;

/// An open data directory. Nobody else has it for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Marks every process that is started for this directory.
    pub instance: String,
    /// Of the file that says so, and of the directory itself: the file may be taken away.
    _locks: [File; 2],
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("another metamcpd is using the data directory {}", .0.display())]
    InUse(PathBuf),
    #[error("the data directory {} cannot be used: {source}", .path.display())]
    Unusable { path: PathBuf, source: io::Error },
}

impl DataDir {
    /// Makes the directory if there is none, and takes it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let unusable = |source| DataDirError::Unusable { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(unusable)?;
        let path = path.canonicalize().map_err(unusable)?;
        let lock = open_private(&path.join("lock")).map_err(unusable)?;
        let directory = File::open(&path).map_err(unusable)?;
        for lock in [&lock, &directory] {
            match flock(lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(DataDirError::InUse(path)),
                Err(error) => return Err(unusable(error.into())),
            }
        }
        let instance = instance_of(&path).map_err(unusable)?;
        Ok(Self { path, instance, _locks: [lock, directory] })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether a daemon has a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Free,
    Held,
}

/// Whether a daemon has this directory; nothing is made or changed by asking.
pub fn used(path: &Path) -> io::Result<Use> {
    for lock in [&*path.join("lock"), path] {
        let lock = match File::open(lock) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match flock(&lock, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(Use::Held),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Use::Free)
}

/// Where the operator's socket of a data directory is.
pub fn socket_path(data_dir: &Path) -> PathBuf {
    data_dir.join("operator.sock")
}

/// The same as a socket's address can say it, for as long as what is returned lives. The kernel takes a hundred
/// bytes or so; a directory that is open has a short name, whatever its own.
pub fn socket_address(data_dir: &Path) -> io::Result<SocketAddress> {
    let path = socket_path(data_dir);
    if SocketAddr::from_pathname(&path).is_ok() {
        return Ok(SocketAddress { path, _directory: None });
    }
    let directory = File::open(data_dir)?;
    let path = socket_path(Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd())));
    Ok(SocketAddress { path, _directory: Some(directory) })
}

/// A path of the operator's socket that is short enough.
#[derive(Debug)]
pub struct SocketAddress {
    pub path: PathBuf,
    /// What the path leads by.
    _directory: Option<File>,
}

/// The name that the directory was given when it was made.
fn instance_of(path: &Path) -> io::Result<String> {
    let mut file = open_private(&path.join("instance"))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    match text.trim().parse::<Uuid>() {
        Ok(instance) => Ok(instance.to_string()),
        Err(_new_or_damaged) => {
            let instance = Uuid::new_v4().to_string();
            file.set_len(0)?;
            io::Seek::rewind(&mut file)?;
            file.write_all(instance.as_bytes())?;
            Ok(instance)
        }
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;

    #[test]
    fn a_directory_is_one_daemons_at_a_time_and_keeps_its_name() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a/b");
        let first = DataDir::open(&path).unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::InUse(_))));
        let instance = first.instance.clone();
        drop(first);
        assert_eq!(DataDir::open(&path).unwrap().instance, instance);
    }

    #[test]
    fn a_directory_whose_lock_was_taken_away_is_still_somebodys() {
        let place = tempfile::tempdir().unwrap();
        let first = DataDir::open(place.path()).unwrap();
        fs::remove_file(place.path().join("lock")).unwrap();
        assert_eq!(used(place.path()).unwrap(), Use::Held);
        assert!(matches!(DataDir::open(place.path()), Err(DataDirError::InUse(_))));
        drop(first);
        assert_eq!(used(place.path()).unwrap(), Use::Free);
    }
}
