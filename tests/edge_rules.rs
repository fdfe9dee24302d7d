//! What a message may be at the edge, as a table with the code for each rule (decision 1), and that what
//! may be comes through with every byte.

use futures_util::join;
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{Client, TestGateway, client::call, fixtures::without_python, python};

/// A gateway whose tool `s__t` gives back the line that it was called by.
async fn echoing() -> (TestGateway, Client) {
    let gateway = TestGateway::start().await;
    let tools = r#"[{"name":"t","inputSchema":{"type":"object"}},null,{"title":"nameless"},7,{"name":"t"}]"#;
    std::fs::write(gateway.scratch().join("tools"), tools).unwrap();
    let directory = gateway.scratch().display().to_string();
    gateway.stdio("s", &python("raw_list.py", &[&directory])).await;
    let client = gateway.client_of(&["s"]).await;
    (gateway, client)
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// A call of the tool with these arguments.
fn with(id: &str, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"s__t","arguments":{arguments}}}}}"#
    )
}

#[tokio::test]
async fn each_rule_of_the_edge_has_its_code() {
    if without_python() {
        return;
    }
    let (_gateway, client) = echoing().await;
    // The envelope, `params`, its `arguments` and the array in them: three of the depth are around it.
    let too_deep = with("1", &format!(r#"{{"a":{}}}"#, nested(510)));
    let request =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{params}}}"#);
    let table = [
        ("a raw line feed in a text", -32700, with("1", "{\"a\":\"x\ny\"}")),
        ("a raw tab in a text", -32700, with("1", "{\"a\":\"x\ty\"}")),
        ("a raw NUL in a key", -32700, with("1", "{\"a\u{0}\":1}")),
        ("a raw control character in an id", -32700, with("\"\u{1}\"", "{}")),
        ("two messages", -32700, format!("{} {}", with("1", "{}"), with("2", "{}"))),
        ("a null id", -32600, with("null", "{}")),
        ("a broken id", -32600, with("1.5", "{}")),
        ("an id with an exponent", -32600, with("1e3", "{}")),
        ("an id that is true", -32600, with("true", "{}")),
        ("an id that is a list", -32600, with("[1]", "{}")),
        ("nested deeper than wire.depth_max", -32600, too_deep),
        (
            "a member of the envelope twice",
            -32600,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"ping"}"#.to_owned(),
        ),
        (
            "the same, written in another way",
            -32600,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","m\u0065thod":"ping"}"#.to_owned(),
        ),
        ("a member of params twice", -32600, request(r#"{"x":1,"x":1}"#)),
        ("a member of _meta twice", -32600, request(r#"{"_meta":{"k":1,"k":1}}"#)),
    ];
    for (rule, code, body) in table {
        let reply = client.post(&body).await;
        assert_eq!(reply.json()["error"]["code"], code, "{rule}: {reply:?}");
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{rule}");
    }
    let pong = client.request("ping", json!({})).await;
    assert_eq!(pong["result"], json!({}), "the session goes on");
}

#[tokio::test]
async fn what_may_be_comes_through_with_every_byte() {
    if without_python() {
        return;
    }
    let (_gateway, client) = echoing().await;
    let deepest = format!(r#"{{"a":{}}}"#, nested(509));
    for (what, arguments) in [
        ("a member twice", r#"{"a":1,"a":2,"\u0061":3}"#),
        ("escapes", r#"{"a":"\n\u0000\ud800 é"}"#),
        ("numbers", r#"{"n":[1.50,-0,1E+2,1e400,12345678901234567890123]}"#),
        ("as deep as may be", &deepest),
        ("spaces", "{ \"a\" :\t1 }"),
    ] {
        let answer = client.post(&with("1", arguments)).await.answer_to(&json!(1));
        let line = answer["result"]["content"][0]["text"].as_str().expect(what);
        let expected = format!(r#""arguments":{arguments}"#);
        assert!(line.contains(&expected), "{what}: {line:.300}");
    }
    // A pipe has one line for a message, so that line breaks between tokens become blanks there.
    let spread = with("1", "{\"a\":\r\n1,\n\"b\":2\n}");
    let answer = client.post(&spread).await.answer_to(&json!(1));
    let line = answer["result"]["content"][0]["text"].as_str().expect("a line");
    assert!(line.contains("\"arguments\":{\"a\":  1, \"b\":2 }"), "{line}");
}

#[tokio::test]
async fn any_id_of_a_call_comes_back_byte_for_byte_and_is_told_from_others() {
    if without_python() {
        return;
    }
    let (_gateway, client) = echoing().await;
    let ids = [
        "1",
        "\"1\"",
        "-1",
        "0",
        "-0",
        "12345678901234567890123",
        "-98765432109876543210987",
        "\"\"",
        "\"caf\\u00e9\\/\\\"\"",
        "\"12345678901234567890123\"",
    ];
    for id in ids {
        let reply = client.post(&with(id, "{}")).await;
        let answer = reply.messages.last().expect("an answer");
        assert!(answer.contains(&format!(r#""id": {id},"#)), "{id}: {answer}");
    }
    // At once, a number and the text that looks like it are two calls, each with its own answer.
    let number = with("1", r#"{"of":"number"}"#);
    let text = with("\"1\"", r#"{"of":"text"}"#);
    let (number, text) = join!(client.post(&number), client.post(&text));
    assert!(number.answer_to(&json!(1)).to_string().contains("number"), "{number:?}");
    assert!(text.answer_to(&json!("1")).to_string().contains("text"), "{text:?}");
}

#[tokio::test]
async fn a_malformed_tool_falls_out_alone_and_is_reported() {
    if without_python() {
        return;
    }
    let (gateway, client) = echoing().await;
    assert_eq!(client.tools().await, ["s__t"]);
    let answer = client.post(&call(json!(1), "s__t", json!({}))).await.answer_to(&json!(1));
    assert!(answer["result"].is_object(), "{answer}");
    let server = gateway.server("s").await;
    let malformed = server["runtime"]["malformed"].to_string();
    for part in ["not a JSON object", "no `name`", "`t` was listed before"] {
        assert!(malformed.contains(part), "{part}: {malformed}");
    }
    assert_eq!(server["error_status"], "NONE", "{server}");
}
