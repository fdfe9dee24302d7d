//! What a server of the profile `STRICT` cannot do: read the daemon's data, write anywhere but in a home
//! of its own, gain privileges, and take more than its share.
//!
//! The shim puts it on itself before it starts the server, and nothing below it can take it off. It is no
//! container: the server still runs as the daemon's user, sees the network, and reads what everybody may.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, path_beneath_rules,
};
use rustix::{
    fs::Mode,
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What we know of Landlock. An older kernel enforces what it knows of it.
const KNOWN: ABI = ABI::V5;

/// The limits of `upstream.strict` in the settings. Zero: none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StrictOptions {
    /// Bytes of address space of each process.
    pub address_space: u64,
    /// Descriptors of each process.
    pub open_files: u64,
    /// Processes and threads of the daemon's user, all that run included.
    pub processes: u64,
    /// Bytes of one file.
    pub file_size: u64,
}

/// How one server is confined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Where it may write, and where it stands.
    pub home: PathBuf,
    /// What it may not even read, but for its home.
    hidden: PathBuf,
    limits: StrictOptions,
}

impl Confinement {
    /// Makes the home of one upstream, and says how it is confined there.
    pub fn prepare(
        data_dir: &Path,
        upstream: Uuid,
        limits: StrictOptions,
    ) -> io::Result<Confinement> {
        let hidden = data_dir.canonicalize()?;
        let home = hidden.join("homes").join(upstream.to_string());
        let confinement = Confinement { home, hidden, limits };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(confinement.tmp())?;
        Ok(confinement)
    }

    fn tmp(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// Tells the server where its home is, unless the row says otherwise.
    pub fn settle(&self, configured: &mut BTreeMap<String, String>) {
        for (name, place) in [("HOME", self.home.clone()), ("TMPDIR", self.tmp())] {
            let place = place.to_string_lossy().into_owned();
            configured.entry(name.to_owned()).or_insert(place);
        }
    }

    /// Confines this very process and all that it starts from now on, for good.
    pub fn apply(&self) -> io::Result<()> {
        let StrictOptions { address_space, open_files, processes, file_size } = self.limits;
        for (resource, limit) in [
            (Resource::As, address_space),
            (Resource::Nofile, open_files),
            (Resource::Nproc, processes),
            (Resource::Fsize, file_size),
        ] {
            if limit > 0 {
                bound(resource, limit)?;
            }
        }
        // What its memory holds is not to lie about in files.
        bound(Resource::Core, 0)?;
        // What it writes is nobody else's.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        give_up_privileges()?;
        self.shut_out().map_err(io::Error::other)
    }

    /// Where the kernel has no Landlock this does nothing; the daemon says so.
    fn shut_out(&self) -> Result<(), RulesetError> {
        let read = AccessFs::from_read(KNOWN);
        let own = [self.home.as_path(), Path::new("/dev")];
        Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .create()?
            .add_rules(path_beneath_rules(all_but(&self.hidden), read))?
            .add_rules(path_beneath_rules(own, AccessFs::from_all(KNOWN)))?
            .restrict_self()?;
        Ok(())
    }
}

/// Whether the kernel can keep a confined server from the daemon's data.
pub fn has_landlock() -> bool {
    let required = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    required
        .handle_access(AccessFs::from_all(ABI::V1))
        .is_ok_and(|ruleset| ruleset.create().is_ok())
}

/// What is started from now on has no privilege, even as root: so Landlock holds for that too. We keep
/// our own, to end whatever it starts.
fn give_up_privileges() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // Who may not give it up has none to pass on; and not every kernel knows each.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Never above what the daemon has itself.
fn bound(resource: Resource, limit: u64) -> io::Result<()> {
    let limit = getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
    Ok(setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?)
}

/// Every place but `hidden`, and those above it: Landlock knows no exceptions, so that all others are
/// named. What links into it is left out too.
fn all_but(hidden: &Path) -> BTreeSet<PathBuf> {
    let mut places = BTreeSet::new();
    for above in hidden.ancestors().skip(1) {
        let Ok(entries) = fs::read_dir(above) else { continue };
        let real = entries.flatten().filter_map(|entry| entry.path().canonicalize().ok());
        places
            .extend(real.filter(|place| !hidden.starts_with(place) && !place.starts_with(hidden)));
    }
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn every_place_is_named_but_the_hidden_one_and_those_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let hidden = root.join("a/hidden");
        fs::create_dir_all(hidden.join("inner")).unwrap();
        fs::create_dir_all(root.join("a/beside")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&hidden, root.join("a/way-in")).unwrap();
        std::os::unix::fs::symlink(hidden.join("inner"), root.join("deeper")).unwrap();
        let places = all_but(&hidden);
        assert!(places.contains(&root.join("a/beside")) && places.contains(&root.join("file")));
        assert!(places.contains(Path::new("/usr")));
        for place in &places {
            assert!(!hidden.starts_with(place) && !place.starts_with(&hidden), "{place:?}");
        }
    }

    #[test]
    fn a_row_may_name_another_home() {
        let data_dir = tempfile::tempdir().unwrap();
        let limits = StrictOptions { address_space: 0, open_files: 0, processes: 0, file_size: 0 };
        let confinement = Confinement::prepare(data_dir.path(), Uuid::nil(), limits).unwrap();
        let mut configured = BTreeMap::from([("HOME".to_owned(), "/srv".to_owned())]);
        confinement.settle(&mut configured);
        assert_eq!(configured["HOME"], "/srv");
        assert_eq!(Path::new(&configured["TMPDIR"]), confinement.home.join("tmp"));
        assert!(confinement.tmp().is_dir());
    }
}
