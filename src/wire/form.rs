//! Whether the members of a message have the form that JSON-RPC and MCP give them, where one that is amiss
//! leaves it a message all the same.

use serde_json::value::RawValue;

/// Whether an id is one that MCP allows: a string or an integer (basic, "Requests").
pub fn is_id(raw: &str) -> bool {
    raw.starts_with('"') || is_integer(raw)
}

fn is_integer(raw: &str) -> bool {
    let digits = raw.strip_prefix('-').unwrap_or(raw);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is amiss with a `result`: it is an object (basic, "Responses"). What is in it is not looked at.
pub fn wrong_result(raw: &str) -> Option<&'static str> {
    (!raw.starts_with('{')).then_some("its `result` is no object")
}

/// What is amiss with an `error`: it is an object with an integer `code` and a `message` (JSON-RPC 2.0,
/// section 5.1).
pub fn wrong_error(raw: &str) -> Option<&'static str> {
    #[derive(serde::Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        code: &'a RawValue,
        #[serde(borrow)]
        message: &'a RawValue,
    }
    // An array would pass for the members in their order.
    let members = Some(raw).filter(|raw| raw.starts_with('{'));
    let members = members.and_then(|raw| serde_json::from_str::<Members>(raw).ok());
    match members {
        Some(Members { code, message })
            if is_integer(code.get()) && message.get().starts_with('"') =>
        {
            None
        }
        Some(_) | None => Some("its `error` is no object with an integer `code` and a `message`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_an_object() {
        for good in ["{}", r#"{"content":[]}"#] {
            assert_eq!(wrong_result(good), None, "{good}");
        }
        for bad in ["null", "[]", r#""{}""#, "1", "true"] {
            assert!(wrong_result(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn an_error_is_an_object_with_a_code_and_a_message() {
        for good in [
            r#"{"code":-32603,"message":"no"}"#,
            r#"{ "data": {"a":1,"a":2}, "message": "\ud800", "code": 0, "more": [] }"#,
            r#"{"code":123456789012345678901234567890,"message":""}"#,
        ] {
            assert_eq!(wrong_error(good), None, "{good}");
        }
        for bad in [
            "null",
            "{}",
            "1",
            r#""no""#,
            r#"[1,"no"]"#,
            r#"{"code":1}"#,
            r#"{"message":"no"}"#,
            r#"{"code":"x","message":5}"#,
            r#"{"code":"1","message":"no"}"#,
            r#"{"code":1.5,"message":"no"}"#,
            r#"{"code":1,"message":null}"#,
            r#"{"code":1,"code":2,"message":"no"}"#,
        ] {
            assert!(wrong_error(bad).is_some(), "{bad}");
        }
    }
}
