//! The limits of a list, and pages of lists that are already in memory.

use actix_web::web::QueryConfig;
use uuid::Uuid;

use super::ApiError;
use crate::store::{Page, PageRequest, Problem};

/// Rows on one page at most.
const LIMIT_MAX: u64 = 500;
const LIMIT_DEFAULT: u64 = 100;

/// Makes a query that no list understands a bad request in the shape of all others.
pub fn queries() -> QueryConfig {
    QueryConfig::default().error_handler(|error, _| {
        let said = error.to_string();
        let said = said.strip_prefix("Query deserialize error: ").unwrap_or(&said);
        ApiError::bad_request(format!("the query is not understood: {said}")).into()
    })
}

/// The page that a query asks for.
///
/// # Errors
/// `BadRequest` when the limit is out of range.
pub fn page(limit: Option<u64>, cursor: Option<String>) -> Result<PageRequest, ApiError> {
    match limit {
        None | Some(1..=LIMIT_MAX) => Ok(PageRequest { limit, cursor }),
        Some(_) => {
            let problem =
                Problem::new("limit", "out of range").accepted(format!("1 to {LIMIT_MAX}"));
            Err(ApiError::BadRequest { message: problem.to_string(), details: vec![problem] })
        }
    }
}

/// The owner that a query asks for: `null` is the word for what is public.
pub fn owner(asked: Option<String>) -> Option<Option<String>> {
    asked.map(|owner| (owner != "null").then_some(owner))
}

/// One page of a list that is known as a whole, of those rows that are asked for. The cursor is the
/// id of the last row shown; it is looked for among all rows, since its own may have ceased to be
/// asked for between two pages.
pub fn cut_where<T>(
    mut items: Vec<T>,
    request: &PageRequest,
    id: impl Fn(&T) -> String,
    is_asked_for: impl Fn(&T) -> bool,
) -> Result<Page<T>, ApiError> {
    let start = match &request.cursor {
        None => 0,
        Some(cursor) => {
            let place = items.iter().position(|item| id(item) == *cursor);
            place.map(|place| place + 1).ok_or_else(bad_cursor)?
        }
    };
    items.drain(..start);
    Ok(page_of(items, request, id, is_asked_for))
}

/// One page of a list in the order of its ids, of which rows may vanish at any time, that of the
/// cursor among them.
pub fn cut_sorted<T>(
    mut items: Vec<T>,
    request: &PageRequest,
    id: impl Fn(&T) -> Uuid,
    is_asked_for: impl Fn(&T) -> bool,
) -> Result<Page<T>, ApiError> {
    if let Some(cursor) = &request.cursor {
        let last = Uuid::try_parse(cursor).map_err(|_| bad_cursor())?;
        items.retain(|item| id(item) > last);
    }
    Ok(page_of(items, request, |item| id(item).to_string(), is_asked_for))
}

fn page_of<T>(
    mut items: Vec<T>,
    request: &PageRequest,
    id: impl Fn(&T) -> String,
    is_asked_for: impl Fn(&T) -> bool,
) -> Page<T> {
    let limit = limit(request);
    items.retain(is_asked_for);
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(id);
    Page { items, next_cursor }
}

/// Rows on the page.
pub fn limit(request: &PageRequest) -> usize {
    usize::try_from(request.limit.unwrap_or(LIMIT_DEFAULT)).unwrap_or(usize::MAX)
}

pub fn bad_cursor() -> ApiError {
    let problem = Problem::new("cursor", "not a cursor of this list").accepted("a next_cursor");
    ApiError::BadRequest { message: problem.to_string(), details: vec![problem] }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
        let mut seen = Vec::new();
        let mut cursor = None;
        loop {
            let request = page(Some(2), cursor).unwrap();
            let page = cut_where(all.clone(), &request, Uuid::to_string, |_| true).unwrap();
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        let stale = PageRequest { limit: None, cursor: Some(Uuid::nil().to_string()) };
        assert!(matches!(
            cut_where(all, &stale, Uuid::to_string, |_| true),
            Err(ApiError::BadRequest { .. })
        ));
    }

    #[test]
    fn a_row_that_is_no_longer_asked_for_or_there_is_still_a_place_to_go_on_from() {
        let all: Vec<Uuid> = (1..=5).map(Uuid::from_u128).collect();
        let request = PageRequest { limit: Some(2), cursor: Some(all[1].to_string()) };
        let is_other = |id: &Uuid| *id != all[1];
        let page = cut_where(all.clone(), &request, Uuid::to_string, is_other).unwrap();
        assert_eq!(page.items, all[2..4]);
        let left: Vec<Uuid> = all.iter().copied().filter(is_other).collect();
        let page = cut_sorted(left, &request, |id| *id, |_| true).unwrap();
        assert_eq!(page.items, all[2..4]);
        let bad = PageRequest { limit: None, cursor: Some("x".to_owned()) };
        assert!(matches!(
            cut_sorted(all, &bad, |id| *id, |_| true),
            Err(ApiError::BadRequest { .. })
        ));
    }

    #[test]
    fn a_limit_is_between_1_and_500() {
        for (limit, is_good) in [(0, false), (1, true), (500, true), (501, false)] {
            assert_eq!(page(Some(limit), None).is_ok(), is_good, "{limit}");
        }
    }
}
