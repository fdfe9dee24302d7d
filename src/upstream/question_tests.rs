//! Questions, their ids and their one outcome.

#![allow(clippy::unwrap_used)]

use super::*;

/// What the upstream was told.
type Told = Arc<Mutex<Vec<String>>>;

fn ask(method: &str, params: &str) -> (Question, Told) {
    let told = Told::default();
    let text =
        format!(r#"{{"jsonrpc":"2.0","id":"theirs","method":"{method}","params":{params}}}"#);
    let frame = Frame::parse(text.into(), 16).unwrap();
    let witness = told.clone();
    let say: Say = Box::new(move |bytes| {
        witness.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
    });
    (Question::new(frame, say, Arc::default()), told)
}

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 16).unwrap()
}

#[test]
fn a_question_goes_out_under_our_id_and_its_answer_back_under_theirs() {
    let (question, told) =
        ask(SAMPLING, r#"{"_meta":{"progressToken":"tok","x":1.50},"messages":[]}"#);
    assert_eq!(
        question.under(7),
        r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{"_meta":{"progressToken":7,"x":1.50},"messages":[]}}"#
    );
    question.progress(&frame(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1e0}}"#,
    ));
    question.answer(&frame(r#"{"jsonrpc":"2.0","id":7,"result":{"n":1.50,"unknown":[]}}"#));
    assert_eq!(
        *told.lock().unwrap(),
        [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"tok","progress":1e0}}"#,
            r#"{"jsonrpc":"2.0","id":"theirs","result":{"n":1.50,"unknown":[]}}"#,
        ]
    );
}

#[test]
fn what_belongs_to_a_task_is_answered_by_the_server_s_own_name_for_it() {
    let related = |id: &str| {
        format!(r#""_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"{id}"}}}}"#)
    };
    let params = format!(r#"{{"task":{{"ttl":1}},{},"_":1,"progressToken":0}}"#, related("ours"));
    let (question, told) = ask(SAMPLING, &params);
    let question = question.of_task("theirs");
    let asked = String::from_utf8(question.under(7).to_vec()).unwrap();
    assert!(asked.contains(&related("ours")) && !asked.contains("ttl"), "{asked}");
    let answer = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"n":1.50,{}}}}}"#, related("ours"));
    question.answer(&frame(&answer));
    let expected = answer.replace("ours", "theirs").replace(r#""id":7"#, r#""id":"theirs""#);
    assert_eq!(*told.lock().unwrap(), [expected]);
}

#[test]
fn progress_is_told_only_to_who_asked_for_it() {
    let (question, told) = ask(SAMPLING, "{}");
    question.progress(&frame(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#,
    ));
    assert!(told.lock().unwrap().is_empty());
}

#[test]
fn a_client_is_asked_only_what_it_declared() {
    use Lack::{Feature, Form};
    let declared = |json: serde_json::Value| ClientCapabilities::of(&json);
    let all = ClientCapabilities::ALL;
    let nothing = ClientCapabilities::default();
    let only_url = declared(serde_json::json!({"elicitation": {"url": {}}}));
    let only_forms = declared(serde_json::json!({"elicitation": {}, "sampling": {}}));
    for (method, params, declared, expected) in [
        (ROOTS, "{}", all, None),
        (ROOTS, "{}", nothing, Some(Feature("roots"))),
        (SAMPLING, "{}", nothing, Some(Feature("sampling"))),
        (SAMPLING, "{}", only_forms, None),
        (SAMPLING, r#"{"tools":[]}"#, only_forms, Some(Form("tools in sampling"))),
        (SAMPLING, r#"{"tools":[]}"#, all, None),
        (ELICITATION, "{}", nothing, Some(Feature("elicitation"))),
        (ELICITATION, "{}", only_forms, None),
        (ELICITATION, r#"{"mode":"form"}"#, only_url, Some(Form("elicitation by form"))),
        (ELICITATION, r#"{"mode":"url"}"#, only_url, None),
        (ELICITATION, r#"{"mode":"url"}"#, only_forms, Some(Form("elicitation by URL"))),
    ] {
        let (question, _) = ask(method, params);
        assert_eq!(question.lacks(declared), expected, "{method} {params}");
    }
}

#[test]
fn whatever_becomes_of_a_question_its_upstream_hears_it_once() {
    let cancelled = r#"{"jsonrpc":"2.0","id":"theirs","result":{"action":"cancel"}}"#;
    let (question, told) = ask(ELICITATION, "{}");
    drop(question);
    assert_eq!(*told.lock().unwrap(), [cancelled]);

    let (question, told) = ask(ELICITATION, "{}");
    question.give_up("it took too long", "timeout");
    assert_eq!(*told.lock().unwrap(), [cancelled]);

    let (question, told) = ask(SAMPLING, "{}");
    question.give_up("it took too long", "timeout");
    assert_eq!(
        *told.lock().unwrap(),
        [r#"{"jsonrpc":"2.0","id":"theirs","error":{"code":-32603,"message":"it took too long"}}"#]
    );

    let (question, told) = ask(ROOTS, "{}");
    question.refuse_lack(Lack::Feature("roots"));
    assert_eq!(
        *told.lock().unwrap(),
        [
            r#"{"jsonrpc":"2.0","id":"theirs","error":{"code":-32601,"message":"the client does not support roots"}}"#
        ]
    );
}

#[test]
fn what_its_upstream_took_back_is_not_answered() {
    let (question, told) = ask(ELICITATION, "{}");
    question.withdrawn.cancel();
    drop(question);
    let (forgotten, also_told) = ask(SAMPLING, "{}");
    forgotten.forget();
    assert!(told.lock().unwrap().is_empty() && also_told.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_waits_for_its_client_is_not_silent() {
    let patience = Patience::new();
    let began = Instant::now();
    let (mut question, _) = ask(ELICITATION, "{}");
    question.keep_waiting(&patience);
    let minute = std::time::Duration::from_secs(60);
    tokio::time::advance(minute).await;
    assert_eq!(patience.since(), began + minute);
    drop(question);
    tokio::time::advance(minute).await;
    assert_eq!(patience.since(), began + minute);
}
