//! What is read of tasks, and what is changed, as tables of messages.

#![allow(clippy::unwrap_used)]

use super::*;

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 32).unwrap()
}

fn call(params: &str) -> Frame {
    frame(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#))
}

fn result(result: &str) -> Frame {
    frame(&format!(r#"{{"jsonrpc":"2.0","id":1,"result":{result}}}"#))
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn only_an_object_makes_a_request_a_task() {
    for (params, rest) in [
        (r#"{"name":"t","task":{}}"#, Some(r#"{"name":"t"}"#)),
        (r#"{"task":{"ttl":1.0},"name":"t"}"#, Some(r#"{"name":"t"}"#)),
        (r#"{"t\u0061sk":{},"name":"t"}"#, Some(r#"{"name":"t"}"#)),
        (r#"{"name":"t","task":null}"#, None),
        (r#"{"name":"t","arguments":{"task":{}}}"#, None),
        (r#"{"name":"task"}"#, None),
        ("[]", None),
    ] {
        let frame = call(params);
        let cut = augmentation(&frame).map(|cut| text(frame.splice(&mut [(cut, b"")])));
        let rest = rest.map(|rest| text(call(rest).bytes().clone()));
        assert_eq!(cut, rest, "{params}");
    }
}

#[test]
fn a_request_is_made_a_task_without_another_change() {
    let frame = call(r#"{ "name" : "t", "n":1.50 }"#);
    let (place, member) = augmenting(&frame, Duration::from_secs(2)).unwrap();
    let spliced = text(frame.splice(&mut [(place, &member)]));
    assert!(spliced.ends_with(r#""params":{"task":{"ttl":2000}, "name" : "t", "n":1.50 }}"#));
    let bare = frame_without_params();
    assert_eq!(augmenting(&bare, Duration::ZERO), None);
}

fn frame_without_params() -> Frame {
    frame(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#)
}

#[test]
fn a_task_is_read_as_its_server_describes_it() {
    let task =
        r#"{"taskId":"t\u0031","status":"working","ttl":null,"pollInterval":250.0,"n":1.50}"#;
    let whole = result(&format!(r#"{{"_meta":{{}},"task":{task}}}"#));
    let read = created(&whole).unwrap();
    assert_eq!((&*read.id, read.status), ("t1", Some(Status::Working)));
    assert_eq!((read.ttl, read.poll_interval), (None, Some(Duration::from_millis(250))));
    assert_eq!(read.object, task);
    assert_eq!(whole.get(read.id_span), br#""t\u0031""#);
    assert_eq!(&read.object[read.id_within.start as usize..][..2], b"\"t");

    let got = result(r#"{"taskId":"x","status":"failed","ttl":60000}"#);
    let read = described(&got).unwrap();
    assert!(read.status.unwrap().is_over());
    assert_eq!(read.ttl, Some(Duration::from_secs(60)));
    let told = frame(
        r#"{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"x","status":"odd"}}"#,
    );
    assert_eq!(described(&told).unwrap().status, None);
    for not_one in
        [r#"{"content":[]}"#, r#"{"task":{"status":"working"}}"#, r#"{"task":{"taskId":1}}"#]
    {
        assert_eq!(created(&result(not_one)), None, "{not_one}");
    }
    assert_eq!(described(&result(r#"{"task":{"taskId":"x"}}"#)), None);
}

#[test]
fn which_task_a_message_belongs_to_is_found_and_can_be_taken_out() {
    let meta = |more: &str| {
        format!(
            r#"{{"_meta":{{{more}"io.modelcontextprotocol/related-task":{{"taskId":"x"}}}},"n":1.0}}"#
        )
    };
    for (message, rest) in [
        (result(&meta("")), result(r#"{"_meta":{},"n":1.0}"#)),
        (result(&meta(r#""a":1,"#)), result(r#"{"_meta":{"a":1},"n":1.0}"#)),
        (call(&meta(r#""progressToken":7,"#)), call(r#"{"_meta":{"progressToken":7},"n":1.0}"#)),
    ] {
        let found = related(&message).unwrap();
        assert_eq!((&*found.id, message.get(found.id_span)), ("x", &br#""x""#[..]));
        assert_eq!(message.splice(&mut [(found.cut, b"")]), rest.bytes());
    }
    let slashed = result(r#"{"_meta":{"io.modelcontextprotocol\/related-task":{"taskId":"y"}}}"#);
    assert_eq!(&*related(&slashed).unwrap().id, "y");
    for none in [r#"{"n":"related-task"}"#, r#"{"_meta":{"related-task":{"taskId":"x"}}}"#] {
        assert_eq!(related(&result(none)), None, "{none}");
    }
}

#[test]
fn an_answer_is_made_to_belong_to_a_task() {
    let related = r#""io.modelcontextprotocol/related-task":{"taskId":"t\"1"}"#;
    for (before, after) in [
        ("{}".to_owned(), format!(r#"{{"_meta":{{{related}}}}}"#)),
        (r#"{"a":1}"#.to_owned(), format!(r#"{{"_meta":{{{related}}},"a":1}}"#)),
        (r#"{"_meta":{}}"#.to_owned(), format!(r#"{{"_meta":{{{related}}}}}"#)),
        (r#"{"_meta":{"k":1}}"#.to_owned(), format!(r#"{{"_meta":{{{related},"k":1}}}}"#)),
        (
            r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"ours"}}}"#.to_owned(),
            format!(r#"{{"_meta":{{{related}}}}}"#),
        ),
    ] {
        let answer = result(&before);
        let (span, bytes) = relating(&answer, "t\"1").unwrap();
        assert_eq!(answer.splice(&mut [(span, &bytes)]), result(&after).bytes(), "{before}");
    }
    assert_eq!(relating(&result(r#"{"_meta":7}"#), "x"), None);
}

#[test]
fn a_call_with_other_arguments_becomes_a_task_and_is_kept_from_being_one() {
    let sent = |frame: &Frame, more: (Span, Bytes)| {
        let (span, _) = frame.arguments().unwrap();
        let name = frame.name_span().unwrap();
        let mut edits = [(name, &b"\"own\""[..]), (span, &b"{}"[..]), (more.0, &more.1[..])];
        let text = String::from_utf8(frame.splice(&mut edits).to_vec()).unwrap();
        text.split_once(r#""params":"#).unwrap().1.strip_suffix('}').unwrap().to_owned()
    };
    for params in [
        r#"{"name":"n","arguments":{"input":{}},"task":{"ttl":1}}"#,
        r#"{"task":{"ttl":1},"name":"n","arguments":{"input":{}}}"#,
        r#"{"name":"n","task":{"ttl":1},"arguments":{"input":{}}}"#,
    ] {
        let frame = call(params);
        let cut = augmentation(&frame).unwrap();
        assert_eq!(
            sent(&frame, (cut, Bytes::new())),
            r#"{"name":"own","arguments":{}}"#,
            "{params}"
        );
    }
    let plain = call(r#"{"arguments":{"input":{}},"name":"n"}"#);
    let made = sent(&plain, augmenting(&plain, Duration::from_secs(1)).unwrap());
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let expected = serde_json::json!({"task": {"ttl": 1000}, "arguments": {}, "name": "own"});
    assert_eq!(made, expected);
}
