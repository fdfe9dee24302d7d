//! What makes an OAuth session valid. Every problem is found, not only the first, and none repeats a
//! secret.

use url::{Host, Url};

use super::oauth_sessions::NewOAuthSession;
use super::rules::Problem;
use super::words::AuthMethod;
use crate::identity::secret::Secret;
use crate::upstream::oauth::{TOKEN_MAX, is_token};

/// Bytes of a URL, of a client's id and secret, and of a scope.
const TEXT_MAX: usize = 4_096;

pub fn problems(new: &NewOAuthSession) -> Vec<Problem> {
    let NewOAuthSession { client, tokens } = new;
    let mut problems = Vec::new();
    let mut refuse = |field: &str, reason: &str, accepted: String| {
        problems.push(Problem::new(field, reason).accepted(accepted));
    };
    if let Some(reason) = refuse_endpoint(&client.token_endpoint) {
        let accepted =
            "an https:// URL without user, password or fragment; http:// only for loopback";
        refuse("token_endpoint", reason, accepted.to_owned());
    }
    let visible = format!("1 to {TEXT_MAX} visible ASCII characters");
    if !is_visible(&client.client_id) {
        refuse("client_id", "not a client's id", visible.clone());
    }
    if client.client_secret.as_ref().is_some_and(|secret| !is_visible(secret.expose())) {
        refuse("client_secret", "not a client's secret", visible.clone());
    }
    match (client.token_endpoint_auth_method, &client.client_secret) {
        (AuthMethod::Basic | AuthMethod::Post, None) => {
            refuse("client_secret", "the `token_endpoint_auth_method` needs one", visible.clone());
        }
        (AuthMethod::None, Some(_)) => refuse(
            "token_endpoint_auth_method",
            "a client with a secret says it",
            "client_secret_basic or client_secret_post".to_owned(),
        ),
        (AuthMethod::Basic | AuthMethod::Post, Some(_)) | (AuthMethod::None, None) => {}
    }
    if client.resource.as_deref().is_some_and(|resource| !is_resource(resource)) {
        let accepted = format!("an absolute URI without fragment, of at most {TEXT_MAX} bytes");
        refuse("resource", "not what a token can be for", accepted);
    }
    let is_bad = |token: &Option<Secret>| token.as_ref().is_some_and(|one| !is_token(one.expose()));
    for (field, token) in
        [("access_token", &tokens.access_token), ("refresh_token", &tokens.refresh_token)]
    {
        if is_bad(token) {
            let accepted = format!("1 to {TOKEN_MAX} visible ASCII characters without blanks");
            refuse(field, "not a token", accepted);
        }
    }
    if tokens.access_token.is_none() && tokens.refresh_token.is_none() {
        let accepted = "a refresh token, an access token, or both".to_owned();
        refuse("refresh_token", "there is no token at all", accepted);
    }
    if tokens.access_token.is_none() && tokens.expires_at.is_some() {
        let accepted = "nothing without an `access_token`".to_owned();
        refuse("expires_at", "there is no access token that could expire", accepted);
    }
    if tokens.scope.as_deref().is_some_and(|scope| !is_visible(scope)) {
        refuse("scope", "not a scope", visible);
    }
    problems
}

fn refuse_endpoint(text: &str) -> Option<&'static str> {
    let Ok(url) = Url::parse(text) else { return Some("not a URL") };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return Some("names no host"),
    };
    if text.len() > TEXT_MAX || text.contains(|char: char| char.is_whitespace() || !char.is_ascii())
    {
        Some("not a URL as it has to be written")
    } else if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback) {
        Some("tokens would travel in clear")
    } else if !url.username().is_empty() || url.password().is_some() {
        Some("holds a user or a password")
    } else if url.fragment().is_some() {
        Some("holds a fragment, which no server is sent")
    } else {
        None
    }
}

/// RFC 8707, 2.
fn is_resource(text: &str) -> bool {
    is_visible(text) && Url::parse(text).is_ok_and(|url| url.fragment().is_none())
}

/// RFC 6749, appendix A: visible characters, and blanks between them.
fn is_visible(text: &str) -> bool {
    let is_kept = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    (1..=TEXT_MAX).contains(&text.len()) && text.trim() == text && text.bytes().all(is_kept)
}
