//! Seals what we give away and are to recognise again: a token that says to us what it is about, and
//! to everybody else nothing.
//!
//! XChaCha20-Poly1305 under a key of its own for each purpose, derived from the key of the data
//! directory. What a token holds, and for how long it is good, is decided by whoever gives it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::vault::VaultError;

const NONCE_BYTES: usize = 24;

/// Longer texts are none of ours, and are not even decoded. The longest are ids of tasks, which hold
/// those of gateways behind us.
const TEXT_MAX: usize = 2_048;

/// Seals and opens the tokens of one purpose. Cheap to clone.
#[derive(Clone)]
pub struct Sealer {
    cipher: Arc<XChaCha20Poly1305>,
    purpose: &'static str,
}

/// A token that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Visible ASCII that may stand in headers and URLs.
    pub text: String,
    /// 128 random bits of it, to know it by where the text itself must not lie about.
    pub mark: Uuid,
}

/// A token that proved to be ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub plain: Vec<u8>,
    pub mark: Uuid,
}

impl Sealer {
    pub(super) fn new(
        key: &Zeroizing<[u8; 32]>,
        purpose: &'static str,
    ) -> Result<Self, VaultError> {
        let cipher = XChaCha20Poly1305::new_from_slice(key.as_slice())
            .map_err(|_| VaultError::NotSealable)?;
        Ok(Self { cipher: Arc::new(cipher), purpose })
    }

    pub fn seal(&self, plain: &[u8]) -> Result<Token, VaultError> {
        let mut sealed = vec![0; NONCE_BYTES];
        getrandom::fill(&mut sealed).map_err(VaultError::NoRandomness)?;
        let mark = mark_of(&sealed).ok_or(VaultError::NotSealable)?;
        let nonce = XNonce::try_from(sealed.as_slice()).map_err(|_| VaultError::NotSealable)?;
        let payload = Payload { msg: plain, aad: self.purpose.as_bytes() };
        let ciphertext =
            self.cipher.encrypt(&nonce, payload).map_err(|_| VaultError::NotSealable)?;
        sealed.extend_from_slice(&ciphertext);
        Ok(Token { text: BASE64.encode(sealed), mark })
    }

    /// Whether a text is short enough to be opened.
    pub fn takes(&self, text: &str) -> bool {
        text.len() <= TEXT_MAX
    }

    /// What a token holds; `None` for every text that is not, letter by letter, one of ours.
    pub fn open(&self, text: &str) -> Option<Opened> {
        if !self.takes(text) {
            return None;
        }
        let sealed = BASE64.decode(text).ok()?;
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_BYTES)?;
        let mark = mark_of(nonce)?;
        let nonce = XNonce::try_from(nonce).ok()?;
        let payload = Payload { msg: ciphertext, aad: self.purpose.as_bytes() };
        let plain = self.cipher.decrypt(&nonce, payload).ok()?;
        Some(Opened { plain, mark })
    }
}

fn mark_of(nonce: &[u8]) -> Option<Uuid> {
    nonce.first_chunk::<16>().map(|random| Uuid::from_bytes(*random))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::identity::vault::Vault;

    fn sealer() -> Sealer {
        let dir = tempfile::tempdir().unwrap();
        Vault::open(dir.path()).unwrap().sealer("tests").unwrap()
    }

    #[test]
    fn a_token_opens_after_a_restart_and_each_is_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = || Vault::open(dir.path()).unwrap().sealer("tests").unwrap();
        let token = sealer().seal(b"what it is about").unwrap();
        let opened = sealer().open(&token.text).unwrap();
        assert_eq!((&*opened.plain, opened.mark), (&b"what it is about"[..], token.mark));
        assert_ne!(sealer().seal(b"what it is about").unwrap(), token);
    }

    #[test]
    fn a_token_of_another_purpose_or_of_another_key_is_none_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        let token = vault.sealer("tests").unwrap().seal(b"x").unwrap();
        assert_eq!(vault.sealer("others").unwrap().open(&token.text), None);
        assert_eq!(sealer().open(&token.text), None);
    }

    proptest! {
        #[test]
        fn a_token_that_was_tampered_with_is_none_of_ours(
            plain in proptest::collection::vec(any::<u8>(), 0..80),
            place in any::<prop::sample::Index>(),
            letter in "[A-Za-z0-9_-]",
        ) {
            let sealer = sealer();
            let text = sealer.seal(&plain).unwrap().text;
            let place = place.index(text.len());
            let mut other = text.clone();
            other.replace_range(place..=place, &letter);
            prop_assert_eq!(sealer.open(&other).is_some(), other == text);
            prop_assert_eq!(sealer.open(&text[..place]), None);
            prop_assert_eq!(sealer.open(&format!("{text}{letter}")), None);
        }

        #[test]
        fn no_text_at_all_is_taken_for_a_token(text in ".{0,2100}") {
            prop_assert_eq!(sealer().open(&text), None);
        }
    }
}
