//! The rules of the envelope, as tables; and that splicing keeps every other byte.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;

use super::{Bad, Frame, Kind};

const DEPTH_MAX: usize = 512;

fn parse(text: &str) -> Result<Frame, Bad> {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), DEPTH_MAX)
}

#[test]
fn a_message_is_what_its_members_make_it() {
    for (text, kind) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Kind::Notification),
        (r#"{"jsonrpc":"2.0","id":"a","result":{}}"#, Kind::Result),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":""}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","error":{"code":-1,"message":""}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[1,2]}"#, Kind::Request),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":null}"#, Kind::Request),
        (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":null}}"#, Kind::Request),
    ] {
        assert_eq!(parse(text).unwrap().kind(), kind, "{text}");
    }
}

#[test]
fn what_is_no_message_is_told_apart_from_what_is_no_json() {
    let nested = format!("{}{}", "[".repeat(600), "]".repeat(600));
    let deep = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"x","params":{nested}}}"#);
    for text in [
        r#"{"id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":5}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        r#""text""#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","n\u0061me":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"a":1,"a":2}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":"text"}"#,
        &deep,
    ] {
        assert!(matches!(parse(text), Err(Bad::Invalid { .. })), "{text:.80}");
    }
    for text in [
        "",
        "{",
        "nonsense",
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"} x"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"pi\nng\"}",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"x\",\"params\":{\"arguments\":{\"a\":\"\u{1}\"}}}",
        "\u{feff}{}",
    ] {
        assert!(matches!(parse(text), Err(Bad::Json(_))), "{text}");
    }
    assert!(matches!(Frame::parse(Bytes::from_static(b"{\"\xff\":1}"), 9), Err(Bad::Json(_))));
}

#[test]
fn a_request_whose_id_is_none_is_known_for_one() {
    for id in ["null", "1.5", "{}", "true", "[1]"] {
        let bad = parse(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
        assert!(matches!(bad, Err(Bad::Unanswerable)), "{id}: {bad:?}");
    }
    let answer = parse(r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#);
    assert!(matches!(answer, Err(Bad::Invalid { .. })), "{answer:?}");
}

#[test]
fn a_response_tells_what_is_amiss_with_it() {
    for (members, is_wrong) in [
        (r#""result":{}"#, false),
        (r#""error":{"code":1,"message":"no"}"#, false),
        (r#""result":null"#, true),
        (r#""error":{}"#, true),
        // Of a request that is no business of anybody's.
        (r#""method":"x","result":null"#, false),
    ] {
        let frame = parse(&format!(r#"{{"jsonrpc":"2.0","id":1,{members}}}"#)).unwrap();
        assert_eq!(frame.wrong().is_some(), is_wrong, "{members}");
    }
}

#[test]
fn an_id_that_can_be_read_is_kept_for_the_error() {
    let Err(Bad::Invalid { id, .. }) = parse(r#"{"jsonrpc":"1.0","id":"a\n","method":"x"}"#) else {
        panic!("it has the wrong version");
    };
    assert_eq!(id.unwrap(), r#""a\n""#);
    for (text, wanted) in [
        (r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"_meta":5}}"#, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"x"}"#, None),
    ] {
        let Err(Bad::Invalid { id, .. }) = parse(text) else { panic!("{text} is no message") };
        assert_eq!(id.as_deref(), wanted.map(str::as_bytes), "{text}");
    }
}

#[test]
fn duplicates_and_depth_within_arguments_and_results_pass() {
    let nested = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"arguments":{"a":1,"a":2}}}"#.into(),
        r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#.into(),
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{nested}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "[{".repeat(9_000)),
    ] {
        assert!(parse(&text).is_ok(), "{text:.80}");
    }
}

#[test]
fn ids_numbers_and_odd_strings_are_kept_as_written() {
    for id in ["1", "-7", "18446744073709551616", r#""x\u0041""#, r#""""#] {
        let frame = parse(&format!(r#"{{"jsonrpc":"2.0","id": {id} ,"method":"ping"}}"#)).unwrap();
        assert_eq!(frame.id().unwrap(), id.as_bytes());
    }
    let result = r#"{"n":12345678901234567890123,"e":1e400,"f":1.50,"s":"\ud800"}"#;
    let frame = parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#)).unwrap();
    assert_eq!(frame.result().unwrap(), result);
}

#[test]
fn newlines_between_tokens_become_blanks() {
    let frame = parse("{\r\n\"jsonrpc\":\"2.0\",\n\"id\":1,\"method\":\"ping\"\n}").unwrap();
    assert!(!frame.bytes().contains(&b'\n') && !frame.bytes().contains(&b'\r'));
    assert_eq!(frame.id(), Some(&b"1"[..]));
}

#[test]
fn the_members_of_a_call_are_found_and_exchanged() {
    let frame = parse(
        r#"{"method":"tools/call","params":{"arguments":{"name":"no","_meta":{"progressToken":0}},"_meta":{"progressToken":"t","x":1},"name":"a__b"},"id":"q","jsonrpc":"2.0"}"#,
    )
    .unwrap();
    assert_eq!(frame.method().unwrap(), "tools/call");
    assert_eq!(frame.text(frame.name_span().unwrap()).unwrap(), "a__b");
    let mut edits = [
        (frame.id_span().unwrap(), &b"42"[..]),
        (frame.name_span().unwrap(), &b"\"b\""[..]),
        (frame.meta_token_span().unwrap(), &b"7"[..]),
    ];
    assert_eq!(
        frame.splice(&mut edits),
        r#"{"method":"tools/call","params":{"arguments":{"name":"no","_meta":{"progressToken":0}},"_meta":{"progressToken":7,"x":1},"name":"b"},"id":42,"jsonrpc":"2.0"}"#,
    );
}

#[test]
fn the_members_of_notifications_are_found() {
    let progress = parse(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":5,"progress":2.5e1}}"#,
    )
    .unwrap();
    assert_eq!(progress.get(progress.token_span().unwrap()), b"5");
    assert_eq!(progress.progress(), Some(25.0));
    for other in [r#""inf""#, r#""3""#, "null", "true", "[1]"] {
        let text = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":"#;
        let frame = parse(&format!("{text}{other}}}}}")).unwrap();
        assert_eq!(frame.progress(), None, "{other}");
    }

    let cancelled = parse(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"a","reason":"x"}}"#,
    )
    .unwrap();
    assert_eq!(cancelled.request_id(), Some(&br#""a""#[..]));
}

proptest! {
    #[test]
    fn splicing_keeps_every_other_byte(
        arguments in "[ a-z0-9\u{e9}\u{1F600}]{0,40}", id in 0_u64.., new in "[a-z]{0,12}",
    ) {
        let quoted = serde_json::to_string(&arguments).unwrap();
        let text = |id: &str, name: &str| format!(
            r#" {{"params":{{"a":{quoted},"name":"{name}"}},"id":{id},"x":[{quoted}],"method":"m","jsonrpc":"2.0"}} "#
        );
        let frame = parse(&text(&id.to_string(), "old")).unwrap();
        let name = format!("\"{new}\"");
        let spliced = frame.splice(&mut [
            (frame.name_span().unwrap(), name.as_bytes()),
            (frame.id_span().unwrap(), b"\"other\""),
        ]);
        prop_assert_eq!(spliced, text("\"other\"", &new));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error_and_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..90, with in any::<u8>(),
    ) {
        drop(Frame::parse(Bytes::from(bytes), DEPTH_MAX));
        let mut near = br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"a","_meta":{"progressToken":1}}}"#.to_vec();
        if let Some(byte) = near.get_mut(at) {
            *byte = with;
        }
        if let Ok(frame) = Frame::parse(Bytes::from(near), DEPTH_MAX) {
            prop_assert!(serde_json::from_slice::<serde::de::IgnoredAny>(frame.bytes()).is_ok());
        }
    }
}
