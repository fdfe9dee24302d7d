//! What a remote upstream says by 401 and 403 of the credential that we have for it.

use http::{HeaderMap, StatusCode, header};

use super::remote::Remote;
use crate::{
    upstream::{CallError, Exit, Reason},
    wire::challenge::Challenge,
};

/// What it wants of a credential, where it says that.
pub fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    Challenge::of(headers.get_all(header::WWW_AUTHENTICATE).iter().map(|value| value.as_bytes()))
}

/// Whether a request was refused since our credential is good, and not good for that. It was not executed, and
/// nothing that we have would change the answer, so it is not sent again.
pub fn lacks_scope(
    remote: &Remote,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), CallError> {
    let challenge = challenge(headers).filter(|_| status == StatusCode::FORBIDDEN);
    match challenge.filter(Challenge::is_about_scope) {
        None => Ok(()),
        Some(Challenge { scope, .. }) => {
            Err(CallError::InsufficientScope { server: remote.server.clone(), scope })
        }
    }
}

/// Why no session is opened for whoever is answered by 401 or 403.
pub fn refused(status: StatusCode, headers: &HeaderMap) -> Exit {
    let challenge = challenge(headers);
    if status == StatusCode::FORBIDDEN
        && let Some(challenge) = challenge.as_ref().filter(|challenge| challenge.is_about_scope())
    {
        return Exit::for_want_of(challenge.scope.clone());
    }
    let what =
        "the upstream wants another credential: see `bearer_token`, `headers` and `oauth-session`";
    Exit::new(Reason::Unauthorized, with_its_words(what, challenge.as_ref()))
}

/// `what`, and what it says itself.
pub fn with_its_words(what: &str, challenge: Option<&Challenge>) -> String {
    match challenge.and_then(Challenge::in_words) {
        Some(words) => format!("{what}; it says: {words}"),
        None => what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_refusal_tells_what_is_missing_where_it_says_so() {
        for (status, challenge, reason, scope, words) in [
            (
                401,
                None,
                Reason::Unauthorized,
                None,
                "see `bearer_token`, `headers` and `oauth-session`",
            ),
            (
                401,
                Some("Bearer error=invalid_token, error_description=\"It is old\""),
                Reason::Unauthorized,
                None,
                "it says: invalid_token (It is old)",
            ),
            // Of one without any credential the scope is asked too.
            (401, Some("Bearer scope=a"), Reason::Unauthorized, None, "for the scope `a`"),
            (403, None, Reason::Unauthorized, None, "another credential"),
            (403, Some("Bearer error=invalid_token"), Reason::Unauthorized, None, "invalid_token"),
            (
                403,
                Some("Bearer error=insufficient_scope, scope=\"a b\""),
                Reason::InsufficientScope,
                Some("a b"),
                "it asks for the scope `a b`, which our credential lacks",
            ),
            (
                403,
                Some("Bearer error=insufficient_scope"),
                Reason::InsufficientScope,
                None,
                "does not say which",
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(challenge) = challenge {
                headers.insert(header::WWW_AUTHENTICATE, challenge.parse().unwrap());
            }
            let exit = refused(StatusCode::from_u16(status).unwrap(), &headers);
            assert_eq!((exit.reason, exit.scope.as_deref()), (reason, scope), "{challenge:?}");
            let detail = exit.detail.unwrap();
            assert!(detail.contains(words), "{challenge:?}: {detail}");
        }
    }
}
