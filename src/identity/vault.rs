//! Seals secrets before they are written down, and opens them again.
//!
//! XChaCha20-Poly1305 under a key that lies in the data directory. A sealed text is bound to its
//! place (table, row, column and key), so that a text copied to another place does not open there.
//! Which values are secret is decided by whoever writes them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::sealer::Sealer;
use super::secret::Secret;

/// What every sealed text begins with, version included.
const PREFIX: &str = "sealed:v1:";
const KEY_FILE: &str = "secret.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Seals and opens. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    cipher: Arc<XChaCha20Poly1305>,
    /// What the keys for other purposes are derived from (RFC 5869).
    derivation: Arc<Hkdf<Sha256>>,
}

/// Where a sealed text lies. It opens nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub table: &'a str,
    pub row: Uuid,
    pub column: &'a str,
    /// The name within the column, where that holds a map.
    pub key: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    #[error("the key file {} can be read by others: its mode is {mode:o}, and has to be 600", path.display())]
    KeyExposed { path: PathBuf, mode: u32 },
    #[error("the key file {} does not hold a key: it has to be {KEY_BYTES} bytes", path.display())]
    KeyMalformed { path: PathBuf },
    #[error("the key file {} cannot be used", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("no random bytes are to be had")]
    NoRandomness(#[source] getrandom::Error),
    #[error("the text is not a sealed one")]
    NotSealed,
    #[error(
        "the sealed text does not open here: it was sealed by another key or for another place"
    )]
    DoesNotOpen,
    #[error("the text could not be sealed")]
    NotSealable,
}

impl Vault {
    /// Reads the key of this data directory, and makes one at the first start.
    pub fn open(data_dir: &Path) -> Result<Vault, VaultError> {
        let path = data_dir.join(KEY_FILE);
        let key = match read_key(&path)? {
            Some(key) => key,
            None => make_key(&path)?,
        };
        let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice())
            .map_err(|_| VaultError::KeyMalformed { path })?;
        let derivation = Arc::new(Hkdf::new(None, &key));
        Ok(Vault { cipher: Arc::new(cipher), derivation })
    }

    /// Reads the key of this data directory, and makes none.
    pub fn existing(data_dir: &Path) -> Result<Option<Vault>, VaultError> {
        match data_dir.join(KEY_FILE).exists() {
            true => Vault::open(data_dir).map(Some),
            false => Ok(None),
        }
    }

    /// Seals tokens under a key of their own: what is given away for one purpose opens for no other,
    /// and never as a secret at rest.
    pub fn sealer(&self, purpose: &'static str) -> Result<Sealer, VaultError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        let info = format!("metamcpd sealer v1: {purpose}");
        self.derivation
            .expand(info.as_bytes(), key.as_mut_slice())
            .map_err(|_| VaultError::NotSealable)?;
        Sealer::new(&key, purpose)
    }

    /// A text that only this vault opens, and only for this place.
    pub fn seal(&self, plain: &str, place: &Place<'_>) -> Result<String, VaultError> {
        let mut sealed = vec![0; NONCE_BYTES];
        getrandom::fill(&mut sealed).map_err(VaultError::NoRandomness)?;
        let nonce = XNonce::try_from(sealed.as_slice()).map_err(|_| VaultError::NotSealable)?;
        let payload = Payload { msg: plain.as_bytes(), aad: &place.bound() };
        let ciphertext =
            self.cipher.encrypt(&nonce, payload).map_err(|_| VaultError::NotSealable)?;
        sealed.extend_from_slice(&ciphertext);
        Ok(format!("{PREFIX}{}", BASE64.encode(sealed)))
    }

    pub fn open_sealed(&self, text: &str, place: &Place<'_>) -> Result<Secret, VaultError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(VaultError::NotSealed)?;
        let sealed = BASE64.decode(encoded).map_err(|_| VaultError::NotSealed)?;
        let (nonce, ciphertext) =
            sealed.split_at_checked(NONCE_BYTES).ok_or(VaultError::NotSealed)?;
        let nonce = XNonce::try_from(nonce).map_err(|_| VaultError::NotSealed)?;
        let payload = Payload { msg: ciphertext, aad: &place.bound() };
        let plain = self.cipher.decrypt(&nonce, payload).map_err(|_| VaultError::DoesNotOpen)?;
        let plain = Zeroizing::new(plain);
        let text = std::str::from_utf8(&plain).map_err(|_| VaultError::DoesNotOpen)?;
        Ok(Secret::new(text))
    }
}

impl Place<'_> {
    /// Each part is preceded by its length, so that no two places are written alike.
    fn bound(&self) -> Vec<u8> {
        let row = self.row.as_bytes().as_slice();
        let key = self.key.map(str::as_bytes);
        let mut bound = Vec::new();
        for part in [Some(self.table.as_bytes()), Some(row), Some(self.column.as_bytes()), key] {
            match part {
                Some(part) => {
                    bound.push(1);
                    bound.extend_from_slice(&(part.len() as u64).to_le_bytes());
                    bound.extend_from_slice(part);
                }
                None => bound.push(0),
            }
        }
        bound
    }
}

fn read_key(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
    let broken = |source| VaultError::KeyFile { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken(error)),
    };
    let mode = file.metadata().map_err(broken)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(VaultError::KeyExposed { path: path.to_owned(), mode });
    }
    let mut key = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut key).map_err(broken)?;
    if key.len() != KEY_BYTES {
        return Err(VaultError::KeyMalformed { path: path.to_owned() });
    }
    Ok(Some(key))
}

/// Written beside and renamed, so that a start that is killed leaves no half a key behind.
fn make_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let broken = |source| VaultError::KeyFile { path: path.to_owned(), source };
    let mut key = Zeroizing::new(vec![0; KEY_BYTES]);
    getrandom::fill(&mut key).map_err(VaultError::NoRandomness)?;

    let unfinished = path.with_extension("key.new");
    match fs::remove_file(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(broken(error)),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(broken)?;
    file.write_all(&key).and_then(|()| file.sync_all()).map_err(broken)?;
    fs::rename(&unfinished, path).map_err(broken)?;
    if let Some(directory) = path.parent() {
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(broken)?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ROW: Uuid = Uuid::from_u128(7);
    const PLACE: Place<'_> =
        Place { table: "mcp_servers", row: ROW, column: "env", key: Some("TOKEN") };

    #[test]
    fn what_is_sealed_opens_in_its_place_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let sealed = Vault::open(dir.path()).unwrap().seal("hunter2 ü", &PLACE).unwrap();

        assert!(sealed.starts_with(PREFIX) && !sealed.contains("hunter2"));
        let vault = Vault::open(dir.path()).unwrap();
        assert_eq!(vault.open_sealed(&sealed, &PLACE).unwrap().expose(), "hunter2 ü");
        assert_ne!(vault.seal("hunter2 ü", &PLACE).unwrap(), sealed, "each seal is a new one");
    }

    #[test]
    fn what_is_sealed_opens_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let sealed = vault.seal("hunter2", &PLACE).unwrap();

        let elsewhere = [
            Place { table: "accounts", ..PLACE },
            Place { row: Uuid::from_u128(8), ..PLACE },
            Place { column: "headers", ..PLACE },
            Place { key: Some("OTHER"), ..PLACE },
            Place { key: None, ..PLACE },
        ];
        for place in elsewhere {
            let refused = vault.open_sealed(&sealed, &place);
            assert!(matches!(refused, Err(VaultError::DoesNotOpen)), "{place:?}");
        }
        let stranger = tempfile::tempdir().unwrap();
        let stranger = Vault::open(stranger.path()).unwrap();
        assert!(matches!(stranger.open_sealed(&sealed, &PLACE), Err(VaultError::DoesNotOpen)));
    }

    #[test]
    fn what_was_never_sealed_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        for text in ["", "hunter2", "sealed:v1:", "sealed:v1:!!", "sealed:v1:AAAA", "sealed:v2:AA"]
        {
            let refused = vault.open_sealed(text, &PLACE);
            assert!(matches!(refused, Err(VaultError::NotSealed)), "{text}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Vault::open(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();

        assert!(matches!(Vault::open(dir.path()), Err(VaultError::KeyExposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_start_that_was_killed_while_it_made_the_key_is_recovered_from() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret.key.new"), b"half").unwrap();
        Vault::open(dir.path()).unwrap();
        Vault::open(dir.path()).unwrap();
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::write(&path, [0; 33]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Vault::open(dir.path()), Err(VaultError::KeyMalformed { .. })));
    }
}
