//! What the operator can do without a key: from the command line, on the daemon's own host.
//!
//! Whoever may open the data directory may do all of this, by the running daemon's socket or by the
//! database itself. The admin API has an import too, and it is this one.

mod import;
pub mod report;
pub mod socket;

pub use import::{
    ImportItem, ImportOutcome, ImportPlace, ImportWarning, Imports, Wanted, apply, foresee,
    read_apart,
};

use uuid::Uuid;

use crate::{
    identity::keys::{self, KeyText, MintError},
    store::{KeyKind, NewApiKey, PageRequest, Store, StoreError},
};

/// The name of the endpoint, the namespace and the key that an import makes.
pub const DEFAULT: &str = "default";

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a public key and stores its hash. Its text is nowhere but in the answer.
pub async fn make_key(store: &Store, name: &str, kind: KeyKind) -> Result<KeyText, KeyError> {
    let minted = keys::mint()?;
    let new = NewApiKey {
        name: name.to_owned(),
        hash_hex: minted.hash.to_hex(),
        hint: minted.hint,
        kind,
        user_id: None,
    };
    store.create_api_key(new).await?;
    Ok(minted.text)
}

/// A name for a key that was given none.
pub fn name_of_key(kind: KeyKind) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("{}-{}", kind.as_str().to_lowercase(), &random[..8])
}

/// Whether there is a key of this kind, active or not.
pub async fn has_key(store: &Store, kind: KeyKind) -> Result<bool, StoreError> {
    let mut page = PageRequest::default();
    loop {
        let keys = store.api_keys(&page).await?;
        if keys.items.iter().any(|key| key.kind == kind) {
            return Ok(true);
        }
        match keys.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => return Ok(false),
        }
    }
}
