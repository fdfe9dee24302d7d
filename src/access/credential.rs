//! Finds the one credential that a request presents, among the places where it may stand.
//!
//! Whether it is any good is not asked here. Two different ones are refused rather than ranked: the
//! gateway and whatever stands before it could otherwise see two different callers.

/// What a request carried, each value as it came.
#[derive(Clone, Copy, Default)]
pub struct Offered<'a> {
    /// The header `X-API-Key`.
    pub x_api_key: Option<&'a str>,
    /// The header `Authorization`, scheme included.
    pub authorization: Option<&'a str>,
    /// The query parameter `api_key`, decoded.
    pub query_api_key: Option<&'a str>,
    /// The query parameter `apikey`, decoded.
    pub query_apikey: Option<&'a str>,
}

/// The outcome of looking for a credential.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    Nothing,
    /// One credential, in one or several places.
    Key(&'a str),
    /// Credentials that contradict each other.
    Bad,
}

/// Looks in `X-API-Key`, then in `Authorization: Bearer`, and in the query only if `query_allowed`.
///
/// A blank value is no credential, since clients send one where a variable was never set; another
/// scheme than `Bearer` is not meant for us.
pub fn credential<'a>(offered: &Offered<'a>, query_allowed: bool) -> Presented<'a> {
    let query =
        [offered.query_api_key, offered.query_apikey].map(|key| key.filter(|_| query_allowed));
    let mut found = [offered.x_api_key, offered.authorization.and_then(bearer)]
        .into_iter()
        .chain(query)
        .flatten()
        .map(str::trim)
        .filter(|key| !key.is_empty());

    let Some(first) = found.next() else { return Presented::Nothing };
    if found.all(|other| other == first) { Presented::Key(first) } else { Presented::Bad }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim_start().split_once([' ', '\t'])?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(offered: Offered<'_>, query_allowed: bool) -> &str {
        match credential(&offered, query_allowed) {
            Presented::Nothing => "nothing",
            Presented::Key(key) => key,
            Presented::Bad => "bad",
        }
    }

    #[test]
    fn the_header_forms_are_understood() {
        for (authorization, expected) in [
            ("Bearer k", "k"),
            ("bearer k", "k"),
            ("BEARER   k  ", "k"),
            ("Bearer\tk", "k"),
            ("Bearer", "nothing"),
            ("Bearer ", "nothing"),
            ("Basic k", "nothing"),
            ("k", "nothing"),
            ("Bearerk", "nothing"),
        ] {
            let offered = Offered { authorization: Some(authorization), ..Offered::default() };
            assert_eq!(found(offered, false), expected, "{authorization:?}");
        }
        let offered = Offered { x_api_key: Some(" k "), ..Offered::default() };
        assert_eq!(found(offered, false), "k");
        assert_eq!(found(Offered::default(), true), "nothing");
    }

    #[test]
    fn the_query_counts_only_where_it_is_allowed() {
        for offered in [
            Offered { query_api_key: Some("k"), ..Offered::default() },
            Offered { query_apikey: Some("k"), ..Offered::default() },
        ] {
            assert_eq!(found(offered, true), "k");
            assert_eq!(found(offered, false), "nothing");
        }
    }

    #[test]
    fn two_different_credentials_are_refused_and_the_same_one_twice_is_not() {
        let offered = |x_api_key, authorization, query_api_key| Offered {
            x_api_key,
            authorization,
            query_api_key,
            query_apikey: None,
        };
        for (offered, query_allowed, expected) in [
            (offered(Some("a"), Some("Bearer a"), Some("a")), true, "a"),
            (offered(Some("a"), Some("Bearer b"), None), true, "bad"),
            (offered(None, Some("Bearer a"), Some("b")), true, "bad"),
            (offered(None, Some("Bearer a"), Some("b")), false, "a"),
            (offered(Some("a"), Some("Basic b"), None), true, "a"),
            (offered(Some(""), Some("Bearer b"), None), true, "b"),
        ] {
            assert_eq!(found(offered, query_allowed), expected);
        }
    }
}
