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

/// One page of a list that is known as a whole. The cursor is the id of the last row shown.
pub fn cut<T>(
    items: Vec<T>,
    request: &PageRequest,
    id: impl Fn(&T) -> Uuid,
) -> Result<Page<T>, ApiError> {
    let start = match &request.cursor {
        None => 0,
        Some(cursor) => {
            let last = Uuid::try_parse(cursor).ok();
            let place = items.iter().position(|item| Some(id(item)) == last);
            place.map(|place| place + 1).ok_or_else(bad_cursor)?
        }
    };
    let limit = limit(request);
    let more = items.len() - start > limit;
    let items: Vec<T> = items.into_iter().skip(start).take(limit).collect();
    let next_cursor = items.last().filter(|_| more).map(|last| id(last).simple().to_string());
    Ok(Page { items, next_cursor })
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
            let page = cut(all.clone(), &request, |id| *id).unwrap();
            seen.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
        let stale = PageRequest { limit: None, cursor: Some(Uuid::nil().to_string()) };
        assert!(matches!(cut(all, &stale, |id| *id), Err(ApiError::BadRequest { .. })));
    }

    #[test]
    fn a_limit_is_between_1_and_500() {
        for (limit, is_good) in [(0, false), (1, true), (500, true), (501, false)] {
            assert_eq!(page(Some(limit), None).is_ok(), is_good, "{limit}");
        }
    }
}
