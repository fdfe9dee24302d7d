//! Who is at the door of an endpoint: its name and a credential in, the endpoint and a principal
//! out, or the one answer that tells no more than it must.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderName},
};
use serde::{Deserialize, Serialize};

use crate::{
    access::{KeyFacts, Offered, Presented, Principal, Verdict, admit, credential},
    conductor::{Conductor, EndpointEntry},
};

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request that was let in.
pub struct Admitted {
    pub entry: Arc<EndpointEntry>,
    pub principal: Principal,
    /// The key, if it came by the query: who sent it there has no other way.
    pub query_key: Option<String>,
}

/// A request that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential, or none that is good.
    Unauthorized,
    /// There is no such endpoint, or not for this principal.
    NotFound,
    /// The credential is not known here, and may be in rows that could not be read yet.
    Unavailable,
}

#[derive(Default, Deserialize)]
struct Query {
    api_key: Option<String>,
    apikey: Option<String>,
}

/// Finds the endpoint and judges the credential.
///
/// An unknown name asks for a credential like a known one, and a good credential without the right
/// hears what one hears of an unknown name: neither tells which names exist.
pub fn admit_request(
    conductor: &Conductor,
    request: &HttpRequest,
    name: &str,
) -> Result<Admitted, Denied> {
    let entry = conductor.endpoints.load().get(name).cloned();
    let query: Query = serde_urlencoded(request.query_string());
    let header =
        |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let offered = Offered {
        x_api_key: header(X_API_KEY),
        authorization: header(header::AUTHORIZATION),
        query_api_key: query.api_key.as_deref(),
        query_apikey: query.apikey.as_deref(),
    };
    let query_allowed = entry.as_ref().is_some_and(|entry| entry.facts.use_query_param_auth);
    let keys = conductor.keys.load();
    let facts: Option<KeyFacts> = match credential(&offered, query_allowed) {
        Presented::Key(text) => match keys.find(text) {
            // Every key there is stands in the snapshot, unless that is older than the rows.
            None if conductor.is_behind() => return Err(Denied::Unavailable),
            found => found.map(|record| record.facts()),
        },
        Presented::Nothing | Presented::Bad => None,
    };
    let Some(entry) = entry else {
        let is_good =
            facts.is_some_and(|key| key.is_active && key.kind == crate::access::KeyKind::Client);
        return Err(if is_good { Denied::NotFound } else { Denied::Unauthorized });
    };
    match admit(&entry.facts, facts.as_ref()) {
        Verdict::Allowed(principal) => {
            let by_header = offered.x_api_key.is_some() || offered.authorization.is_some();
            let query_key = query.api_key.clone().or(query.apikey.clone());
            let query_key = query_key.filter(|_| query_allowed && !by_header);
            Ok(Admitted { entry, principal, query_key })
        }
        Verdict::Unauthorized => Err(Denied::Unauthorized),
        Verdict::Hidden => Err(Denied::NotFound),
    }
}

/// A malformed query is none.
fn serde_urlencoded(query: &str) -> Query {
    actix_web::web::Query::<Query>::from_query(query)
        .map(|query| query.into_inner())
        .unwrap_or_default()
}

impl Denied {
    pub fn response(self) -> HttpResponse {
        #[derive(Serialize)]
        struct Body {
            error: &'static str,
            error_description: &'static str,
        }
        match self {
            Self::Unauthorized => HttpResponse::Unauthorized()
                .insert_header((header::WWW_AUTHENTICATE, r#"Bearer realm="metamcpd""#))
                .json(Body {
                    error: "unauthorized",
                    error_description: "send an API key as `Authorization: Bearer sk_mt_…` or `X-API-Key`",
                }),
            Self::Unavailable => HttpResponse::ServiceUnavailable()
                .insert_header((header::RETRY_AFTER, "1"))
                .json(Body {
                    error: "temporarily_unavailable",
                    error_description: "the database is away, and this key is not known without it",
                }),
            Self::NotFound => HttpResponse::NotFound().json(Body {
                error: "not_found",
                error_description: "there is no such endpoint",
            }),
        }
    }
}
