//! One page of a list, and the opaque cursor to the next.
//!
//! A cursor is the key of the last row that was shown, so that rows which come and go between two
//! pages shift nothing. It carries no rights and is only checked for its shape.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::StoreError;
use super::rules::Problem;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 1_000;

/// Which page is asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PageRequest {
    /// How many rows at most: 1 to 1000, 100 when not given.
    pub limit: Option<u64>,
    /// The `next_cursor` of the page before.
    pub cursor: Option<String>,
}

/// A page, oldest row first unless the list says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// None when nothing follows.
    pub next_cursor: Option<String>,
}

impl PageRequest {
    pub(super) fn limit(&self) -> Result<u64, StoreError> {
        match self.limit {
            None => Ok(LIMIT_DEFAULT),
            Some(limit @ 1..=LIMIT_MAX) => Ok(limit),
            Some(_) => Err(StoreError::invalid(
                Problem::new("limit", "out of range").accepted(format!("1 to {LIMIT_MAX}")),
            )),
        }
    }

    /// The key after which the page begins.
    pub(super) fn after<const N: usize>(&self) -> Result<Option<[u8; N]>, StoreError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let key = BASE64.decode(cursor).ok().and_then(|bytes| bytes.try_into().ok());
        match key {
            Some(key) => Ok(Some(key)),
            None => Err(StoreError::invalid(
                Problem::new("cursor", "not a cursor of this list").accepted("a next_cursor"),
            )),
        }
    }
}

impl<T> Page<T> {
    /// Makes a page of rows that were asked for with one more than the limit, which tells whether
    /// another page follows.
    pub(super) fn cut<const N: usize>(
        mut rows: Vec<T>,
        limit: u64,
        key: impl Fn(&T) -> [u8; N],
    ) -> Page<T> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| BASE64.encode(key(last)));
        Page { items: rows, next_cursor }
    }

    pub(super) fn try_map<U>(
        self,
        change: impl Fn(T) -> Result<U, StoreError>,
    ) -> Result<Page<U>, StoreError> {
        let items = self.items.into_iter().map(change).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: self.next_cursor })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_cursor_of_a_page_leads_to_its_last_row() {
        let page = Page::cut(vec![1_u8, 2, 3], 2, |row| [*row]);
        assert_eq!(page.items, [1, 2]);

        let request = PageRequest { cursor: page.next_cursor, limit: None };
        assert_eq!(request.after::<1>().unwrap(), Some([2]));
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(Page::cut(vec![1_u8, 2], 2, |row| [*row]).next_cursor, None);
        assert_eq!(Page::cut(Vec::<u8>::new(), 2, |row| [*row]).next_cursor, None);
    }

    #[test]
    fn limits_and_cursors_that_make_no_sense_are_refused() {
        for limit in [0, 1_001, u64::MAX] {
            let request = PageRequest { limit: Some(limit), cursor: None };
            assert!(matches!(request.limit(), Err(StoreError::Invalid(_))), "{limit}");
        }
        for cursor in ["", "x", "????", "AAAA"] {
            let request = PageRequest { limit: None, cursor: Some(cursor.to_owned()) };
            assert!(matches!(request.after::<16>(), Err(StoreError::Invalid(_))), "{cursor}");
        }
    }
}
