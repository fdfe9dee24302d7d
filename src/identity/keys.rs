//! API keys: making one, recognising one, and the ring of all that are known.
//!
//! Only hashes are kept, so a lookup compares what no presented key can steer: its timing tells
//! nothing. What a key opens is decided in `access`; keeping its row is left to the store.

use std::{collections::HashMap, fmt};

use sha2::{Digest, Sha256};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::access::{KeyFacts, KeyKind};

/// What every key that we make begins with.
pub const PREFIX: &str = "sk_mt_";
/// The fewest characters of a key that an operator chooses.
pub const CHOSEN_MIN: usize = 32;
/// The id of the admin key from the settings, which has no row.
pub const SETTINGS_KEY: Uuid = Uuid::nil();

const RANDOM_BYTES: usize = 32;

/// The text of a key. It is wiped when dropped, and cannot be printed or serialised by accident.
#[derive(Clone)]
pub struct KeyText(Zeroizing<String>);

/// A new key: its text is to be shown once and then forgotten.
#[derive(Debug)]
pub struct Minted {
    pub text: KeyText,
    pub hash: KeyHash,
    /// Enough of the key for its owner to recognise it.
    pub hint: String,
}

/// SHA-256 of a key. Keys are 256 random bits, so a slow hash would guard nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

/// Everything known of a key but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRecord {
    pub uuid: Uuid,
    pub name: String,
    pub kind: KeyKind,
    /// The owner; `None` for a public key.
    pub user_id: Option<String>,
    pub is_active: bool,
}

/// All known keys: an immutable map that is replaced as a whole when one of them changes.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    records: HashMap<KeyHash, KeyRecord>,
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system has no random numbers to make a key of")]
pub struct MintError(#[source] getrandom::Error);

/// Text that is not the hash of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hash of a key is not 64 hexadecimal digits")]
pub struct BadHash;

/// Why a key that an operator chose is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakKey {
    #[error("the key has {length} characters and needs at least {CHOSEN_MIN}")]
    TooShort { length: usize },
    #[error("the key holds a character that is not printable ASCII, or a space")]
    Unprintable,
}

/// Makes a new key of 256 random bits.
pub fn mint() -> Result<Minted, MintError> {
    let mut random = Zeroizing::new([0; RANDOM_BYTES]);
    getrandom::fill(random.as_mut_slice()).map_err(MintError)?;
    // Reserved in one piece: a text that grows leaves copies of the secret behind.
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * RANDOM_BYTES));
    text.push_str(PREFIX);
    push_hex(&mut text, &*random);
    let text = KeyText(text);
    Ok(Minted { hash: KeyHash::of(text.expose()), hint: hint(text.expose()), text })
}

/// Enough of a key to recognise it by, too little to guess the rest: `sk_mt_ab…wxyz`.
pub fn hint(text: &str) -> String {
    let (prefix, secret) = text.strip_prefix(PREFIX).map_or(("", text), |secret| (PREFIX, secret));
    let chars: Vec<char> = secret.chars().collect();
    // Six characters of a short key would be too much of it.
    let (first, last) = if chars.len() < CHOSEN_MIN { (0, 0) } else { (2, 4) };
    let head: String = chars[..first].iter().collect();
    let tail: String = chars[chars.len() - last..].iter().collect();
    format!("{prefix}{head}…{tail}")
}

impl KeyText {
    /// Takes a key that an operator chose: `CHOSEN_MIN` printable ASCII characters or more, and no
    /// space, since a header could not carry one at either end.
    pub fn chosen(text: String) -> Result<KeyText, WeakKey> {
        let text = Zeroizing::new(text);
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WeakKey::Unprintable);
        }
        if text.len() < CHOSEN_MIN {
            return Err(WeakKey::TooShort { length: text.len() });
        }
        Ok(KeyText(text))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyText(…)")
    }
}

impl KeyHash {
    pub fn of(presented: &str) -> KeyHash {
        KeyHash(Sha256::digest(presented).into())
    }

    /// Reads what [`KeyHash::to_hex`] wrote.
    pub fn from_hex(hex: &str) -> Result<KeyHash, BadHash> {
        let (pairs, []) = hex.as_bytes().as_chunks::<2>() else { return Err(BadHash) };
        let mut bytes = [0; 32];
        if pairs.len() != bytes.len() {
            return Err(BadHash);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(KeyHash(bytes))
    }

    /// Lower-case hexadecimal, as the database keeps it.
    pub fn to_hex(self) -> String {
        let mut hex = String::with_capacity(64);
        push_hex(&mut hex, &self.0);
        hex
    }
}

impl KeyRecord {
    /// What `access` needs to decide.
    pub fn facts(&self) -> KeyFacts {
        let KeyRecord { uuid, user_id, kind, is_active, name: _ } = self;
        KeyFacts { uuid: *uuid, user_id: user_id.clone(), kind: *kind, is_active: *is_active }
    }

    /// Whether the holder of this key is the operator.
    pub fn is_operator(&self) -> bool {
        self.is_active && self.kind == KeyKind::Admin
    }
}

impl KeyRing {
    pub fn new(records: impl IntoIterator<Item = (KeyHash, KeyRecord)>) -> KeyRing {
        KeyRing { records: records.into_iter().collect() }
    }

    /// Adds the admin key from the settings. It wins over a row of the same text: who sets it must
    /// get in, whatever the database says.
    pub fn with_settings_key(mut self, key: &KeyText) -> KeyRing {
        let record = KeyRecord {
            uuid: SETTINGS_KEY,
            name: "METAMCPD_ADMIN_KEY".to_owned(),
            kind: KeyKind::Admin,
            user_id: None,
            is_active: true,
        };
        self.records.insert(KeyHash::of(key.expose()), record);
        self
    }

    /// The record of a key that is known by its row.
    pub fn by_uuid(&self, uuid: Uuid) -> Option<&KeyRecord> {
        self.records.values().find(|record| record.uuid == uuid)
    }

    /// The record of a presented key, active or not.
    pub fn find(&self, presented: &str) -> Option<&KeyRecord> {
        self.records.get(&KeyHash::of(presented))
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for nibble in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(nibble.into(), 16));
        }
    }
}

fn digit(char: u8) -> Result<u8, BadHash> {
    let value = char::from(char).to_digit(16).ok_or(BadHash)?;
    u8::try_from(value).map_err(|_| BadHash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn record(name: &str, kind: KeyKind, is_active: bool) -> KeyRecord {
        let (uuid, name) = (Uuid::from_u128(1), name.to_owned());
        KeyRecord { uuid, name, kind, user_id: None, is_active }
    }

    #[test]
    fn a_minted_key_is_recognised_by_its_hash_alone() {
        let minted = mint().unwrap();
        let row = KeyHash::from_hex(&minted.hash.to_hex()).unwrap();
        let ring = KeyRing::new([(row, record("mine", KeyKind::Client, true))]);

        assert_eq!(ring.find(minted.text.expose()).unwrap().name, "mine");
        assert_eq!(ring.find(&minted.text.expose()[1..]), None);
        assert_eq!(ring.find(&minted.hash.to_hex()), None);
        assert_eq!(ring.find(""), None);
    }

    #[test]
    fn a_minted_key_has_the_shape_that_clients_know() {
        let minted = mint().unwrap();
        let text = minted.text.expose();
        let secret = text.strip_prefix(PREFIX).unwrap();
        assert_eq!(secret.len(), 64);
        assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        assert_eq!(minted.hint, format!("sk_mt_{}…{}", &secret[..2], &secret[60..]));
        assert_ne!(mint().unwrap().text.expose(), text);
    }

    #[test]
    fn the_text_of_a_key_is_never_printed() {
        let minted = mint().unwrap();
        assert!(!format!("{minted:?}").contains(&minted.text.expose()[PREFIX.len()..]));
    }

    #[test]
    fn a_hint_shows_little() {
        let secret = "0123456789abcdefghijklmnopqrstuvwxyz";
        for (text, expected) in [
            (format!("sk_mt_{secret}"), "sk_mt_01…wxyz"),
            (secret.to_owned(), "01…wxyz"),
            ("sk_mt_short".to_owned(), "sk_mt_…"),
            (String::new(), "…"),
        ] {
            assert_eq!(hint(&text), expected);
        }
    }

    #[test]
    fn a_hash_is_64_hexadecimal_digits() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").to_hex(), known);
        assert_eq!(KeyHash::from_hex(known), Ok(KeyHash::of("abc")));
        assert_eq!(KeyHash::from_hex(&known.to_uppercase()), Ok(KeyHash::of("abc")));
        for bad in ["", "ba", &known[1..], &known[2..], &known.replace('b', "g"), &"é".repeat(32)]
        {
            assert_eq!(KeyHash::from_hex(bad), Err(BadHash), "{bad}");
        }
    }

    #[test]
    fn a_chosen_key_is_long_and_printable() {
        let too_short = WeakKey::TooShort { length: 31 };
        for (text, expected) in [
            ("x".repeat(32), None),
            ("~!".repeat(20), None),
            ("x".repeat(31), Some(too_short)),
            (format!("{} ", "x".repeat(32)), Some(WeakKey::Unprintable)),
            (format!("{}\n", "x".repeat(32)), Some(WeakKey::Unprintable)),
            ("é".repeat(32), Some(WeakKey::Unprintable)),
        ] {
            assert_eq!(KeyText::chosen(text.clone()).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn the_key_from_the_settings_is_an_admin_key_even_over_a_row_of_the_same_text() {
        let key = KeyText::chosen("k".repeat(32)).unwrap();
        let row = (KeyHash::of(key.expose()), record("row", KeyKind::Client, false));
        let ring = KeyRing::new([row]).with_settings_key(&key);
        let found = ring.find(key.expose()).unwrap();
        assert!(found.is_operator());
        assert_eq!(found.uuid, SETTINGS_KEY);
    }

    #[test]
    fn only_an_active_admin_key_is_the_operators() {
        assert!(record("a", KeyKind::Admin, true).is_operator());
        assert!(!record("a", KeyKind::Admin, false).is_operator());
        assert!(!record("a", KeyKind::Client, true).is_operator());
    }
}
