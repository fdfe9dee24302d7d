//! What a client is told when its request has no result: the one place that gives errors their
//! JSON-RPC codes.
//!
//! Each says what failed, whose fault it was (`data.fault`), and a word from a closed list
//! (`data.reason`) that programs can rely on.

use bytes::Bytes;
use serde::Serialize;

use super::{codes, frame::Bad};

/// A request's failure, in the words of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: i32,
    pub message: String,
    pub data: Option<Data>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Data {
    /// A word from the closed list that README has.
    pub reason: &'static str,
    pub fault: Blame,
    /// The upstream that was asked, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Whether the same request may succeed later without a change.
    pub retry: bool,
    /// The resource that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The scopes that the gateway's credential lacks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<Box<str>>,
}

/// Whose fault it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Blame {
    Client,
    Upstream,
    Gateway,
}

impl Fault {
    pub fn method_not_found(method: &str) -> Self {
        let message = format!("the method `{method}` is not served here");
        Self { code: codes::METHOD_NOT_FOUND, message, data: None }
    }

    pub fn unknown_tool(name: &str) -> Self {
        let message = format!("unknown tool `{name}`; `tools/list` has the names that are served");
        Self { code: codes::INVALID_PARAMS, message, data: None }
    }

    pub fn unknown_prompt(name: &str) -> Self {
        let message =
            format!("unknown prompt `{name}`; `prompts/list` has the names that are served");
        Self { code: codes::INVALID_PARAMS, message, data: None }
    }

    /// What is to be completed belongs to no upstream.
    pub fn unknown_reference(uri: &str) -> Self {
        let message = format!("no upstream has the resource or the template `{uri}`");
        Self { code: codes::INVALID_PARAMS, message, data: None }
    }

    /// There is no such task, or not for who asks. Nobody is told which.
    pub fn unknown_task() -> Self {
        Self::invalid_params("unknown task; `tasks/list` has the tasks that there are")
    }

    pub fn resource_not_found(uri: &str) -> Self {
        let message = format!("no upstream has the resource `{uri}`");
        let data = Data {
            reason: "resource_not_found",
            fault: Blame::Client,
            server: None,
            retry: false,
            uri: Some(uri.to_owned()),
            scope: None,
        };
        Self { code: codes::RESOURCE_NOT_FOUND, message, data: Some(data) }
    }

    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self { code: codes::INVALID_PARAMS, message: message.into(), data: None }
    }

    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self { code: codes::INVALID_REQUEST, message: message.into(), data: None }
    }

    pub fn session_not_found() -> Self {
        let message = "session not found; send `initialize` to begin a new one".into();
        Self { code: codes::SESSION_NOT_FOUND, message, data: None }
    }

    /// Something failed behind the method, with its cause.
    pub fn internal(message: impl Into<String>, data: Data) -> Self {
        Self { code: codes::INTERNAL_ERROR, message: message.into(), data: Some(data) }
    }

    /// The whole error message. Without an id it is for a request whose id could not be read.
    pub fn to_bytes(&self, id: Option<&[u8]>) -> Bytes {
        #[derive(Serialize)]
        struct ErrorObject<'a> {
            code: i32,
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a Data>,
        }
        let error =
            ErrorObject { code: self.code, message: &self.message, data: self.data.as_ref() };
        // Numbers, strings and booleans cannot fail to be written.
        let error = serde_json::to_vec(&error).unwrap_or_default();
        let id = id.unwrap_or(b"null");
        [br#"{"jsonrpc":"2.0","id":"#, id, br#","error":"#, &error, b"}"].concat().into()
    }
}

impl From<&Bad> for Fault {
    fn from(bad: &Bad) -> Self {
        let code = match bad {
            Bad::Json(_) => codes::PARSE_ERROR,
            Bad::Invalid { .. } | Bad::Unanswerable => codes::INVALID_REQUEST,
        };
        Self { code, message: bad.to_string(), data: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_echoes_the_id_and_names_its_cause() {
        let data = Data {
            reason: "exited",
            fault: Blame::Upstream,
            server: Some("a".into()),
            retry: true,
            uri: None,
            scope: None,
        };
        let fault = Fault::internal("the upstream `a` ended", data);
        assert_eq!(
            fault.to_bytes(Some(b"\"x\"")),
            r#"{"jsonrpc":"2.0","id":"x","error":{"code":-32603,"message":"the upstream `a` ended","data":{"reason":"exited","fault":"upstream","server":"a","retry":true}}}"#
        );
        assert_eq!(
            Fault::resource_not_found("u://a").to_bytes(Some(b"1")),
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"no upstream has the resource `u://a`","data":{"reason":"resource_not_found","fault":"client","retry":false,"uri":"u://a"}}}"#
        );
        assert_eq!(
            Fault::unknown_tool("t").to_bytes(None),
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"unknown tool `t`; `tools/list` has the names that are served"}}"#
        );
    }
}
