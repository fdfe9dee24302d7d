//! Turns away, before anything else is done, requests that are not meant for us, and tells the
//! browsers of pages that may call us so (Fetch standard, CORS).

use std::sync::Arc;

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        ConnectionType, Method,
        header::{self, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN},
    },
    middleware::Next,
};

use tokio_util::sync::CancellationToken;

use super::{
    bodies::{self, Pace},
    containing::contained,
    door,
    turn::Turn,
};
use crate::{
    endpoint::{Teller, edge::Edge},
    failpoint,
};

/// What a page may send, beyond what every page may.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, X-API-Key, Mcp-Session-Id, MCP-Protocol-Version, Last-Event-ID",
);

/// What a page may read, beyond what every page may.
const RESPONSE_HEADERS: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After");

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, PATCH, DELETE");

/// What every request is met with.
#[derive(Clone)]
pub struct Reception {
    pub edge: Arc<Edge>,
    pub pace: Pace,
    /// Once this is cancelled, each connection is closed by the answer that it gets.
    pub draining: CancellationToken,
}

impl Reception {
    /// The same for one thread of the server, which asks it about every request.
    pub fn of_thread(&self) -> Self {
        Self { draining: self.draining.child_token(), ..self.clone() }
    }
}

/// The way of every request, in and out, whatever panics on it.
pub async fn judge(
    reception: Reception,
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let is_mcp = request.path().starts_with("/metamcp/");
    let turn = request.conn_data::<Turn>().cloned().unwrap_or_default();
    turn.begin();
    if let Some(teller) = request.conn_data::<Teller>() {
        teller.begin();
    }
    bodies::pace(&mut request, reception.pace, &turn);
    let mut answered = contained(is_mcp, judged(&reception.edge, request, next)).await;
    turn.end();
    if reception.draining.is_cancelled()
        && let Ok(response) = &mut answered
    {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    answered
}

async fn judged(
    edge: &Edge,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    failpoint::pass("edge");
    match door::refusal(&request) {
        Some(refused) => Ok(request.into_response(refused)),
        None => admit(edge, request, next).await,
    }
}

async fn admit(
    edge: &Edge,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let verdict = {
        let values = |name: HeaderName| -> Vec<&str> {
            // What is no text is no host and no origin of ours.
            request.headers().get_all(name).map(|value| value.to_str().unwrap_or("")).collect()
        };
        let mut hosts = values(HOST);
        if let (true, Some(authority)) = (hosts.is_empty(), request.uri().authority()) {
            // HTTP/2 names the host in the request's target.
            hosts.push(authority.as_str());
        }
        edge.judge(&hosts, &values(ORIGIN))
    };
    if let Err(refused) = verdict {
        metrics::counter!("metamcpd_requests_refused_total").increment(1);
        let body = serde_json::json!({
            "code": "forbidden", "message": refused.to_string(), "details": [],
        });
        return Ok(request.into_response(HttpResponse::Forbidden().json(body)));
    }
    let Some(origin) = request.headers().get(ORIGIN).cloned() else {
        return handled(request, next).await;
    };
    let asks_first = request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match asks_first {
        true => request.into_response(HttpResponse::NoContent().finish()),
        false => handled(request, next).await?,
    };
    let headers = response.headers_mut();
    if asks_first {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
    }
    allow(headers, origin);
    Ok(response)
}

async fn handled(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    failpoint::pass("request");
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// Never with credentials: a key is sent by the page itself, and cookies are nothing to us.
fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}
