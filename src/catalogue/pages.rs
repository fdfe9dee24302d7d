//! Cuts a list into pages that stay right while the list changes.
//!
//! A page goes on from the place of the last item before it, and the place of an item is made of what
//! it is, its server and its own key, and of nothing around it. So whatever comes, goes, moves or is
//! renamed between two pages, what stays is on one of them, once. In which words a client is given a
//! place is for others to decide.

use bytes::Bytes;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{item::NAME_MAX, kind::Kind};
use crate::wire::members::Named;

/// Bytes of a key that places are ordered by: all of a name, and as much of a URI.
const HEAD_MAX: usize = NAME_MAX;
const DIGEST_BYTES: usize = 16;

/// Where an item stands among all that could ever be listed: by its server, and there by its own key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    server: Uuid,
    /// The beginning of the key.
    head: Box<[u8]>,
    /// Of the whole key, for keys that begin alike.
    digest: [u8; DIGEST_BYTES],
}

impl Place {
    /// `key` is the server's own name, URI or template.
    pub fn of(server: Uuid, key: &str) -> Self {
        let head = &key.as_bytes()[..key.len().min(HEAD_MAX)];
        let whole: [u8; 32] = Sha256::digest(key).into();
        let mut digest = [0; DIGEST_BYTES];
        digest.copy_from_slice(&whole[..DIGEST_BYTES]);
        Self { server, head: head.into(), digest }
    }

    /// At most 160 bytes, whatever the key.
    pub fn to_bytes(&self) -> Vec<u8> {
        [self.server.as_bytes(), &self.digest[..], &self.head].concat()
    }

    /// `None` for what [`Place::to_bytes`] never writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (server, rest) = bytes.split_first_chunk::<16>()?;
        let (digest, head) = rest.split_first_chunk::<DIGEST_BYTES>()?;
        (head.len() <= HEAD_MAX).then(|| Self {
            server: Uuid::from_bytes(*server),
            head: head.into(),
            digest: *digest,
        })
    }
}

/// One list, in the order of the places of its items.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    items: Vec<(Place, Bytes)>,
}

/// A part of a list.
#[derive(Debug)]
pub struct Page<'a> {
    /// Each as it stands in the list.
    pub items: &'a [(Place, Bytes)],
    /// Where the next page goes on, if there is one.
    pub next: Option<&'a Place>,
}

impl Pages {
    /// Cuts up the JSON array of a list. `owner` knows of each shown name, URI or template which
    /// server has it, and what that calls it.
    pub fn of<'a>(
        kind: Kind,
        list: &Bytes,
        owner: impl Fn(&str) -> Option<(Uuid, &'a str)>,
    ) -> Pages {
        let items: Vec<&RawValue> = serde_json::from_slice(list).unwrap_or_default();
        let placed = items.into_iter().map(|item| {
            let shown = key_of(kind, item.get()).unwrap_or_default();
            let place = match owner(&shown) {
                Some((server, key)) => Place::of(server, key),
                // Nothing is left out, whoever it belongs to.
                None => Place::of(Uuid::nil(), &shown),
            };
            (place, list.slice_ref(item.get().as_bytes()))
        });
        let mut items: Vec<(Place, Bytes)> = placed.collect();
        items.sort_by(|(one, _), (other, _)| one.cmp(other));
        Pages { items }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What comes after a place, which need not be that of an item any more: at most `size` items, or
    /// all for 0.
    pub fn after(&self, place: Option<&Place>, size: usize) -> Page<'_> {
        let start = place.map_or(0, |place| self.items.partition_point(|(each, _)| each <= place));
        let rest = &self.items[start..];
        if size == 0 || rest.len() <= size {
            return Page { items: rest, next: None };
        }
        let items = &rest[..size];
        Page { items, next: items.last().map(|(place, _)| place) }
    }
}

fn key_of(kind: Kind, item: &str) -> Option<String> {
    let fields: Named<'_> = serde_json::from_str(item).ok()?;
    let key = fields.only(kind.key_field()).ok()??;
    serde_json::from_str(key.get()).ok()
}

#[cfg(test)]
#[path = "pages_tests.rs"]
mod tests;
