//! What servers ask of clients, and say to them, outside of answers: it reaches the client whose call
//! it is about, and no other; and whoever asks is always answered.

use std::path::PathBuf;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, SseClient, TestGateway,
    client::{Exchange, call, request},
    events::{Arrival, Event},
    fixtures::without_python,
    gateway::Start,
    python, wait_until, within,
};

/// The upstream `asking` behind the endpoint `all`; a gateway, a key, and the file of its diary.
async fn asking() -> Option<(TestGateway, String, PathBuf)> {
    asking_in(Start::new()).await
}

async fn asking_in(start: Start) -> Option<(TestGateway, String, PathBuf)> {
    if without_python() {
        return None;
    }
    let gateway = start.run().await;
    let diary = gateway.scratch().join("diary");
    gateway.stdio("asking", &python("asking.py", &[&diary.display().to_string()])).await;
    gateway.publish("all", &["asking"]).await;
    gateway.ready("asking").await;
    let key = gateway.key("suite").await;
    Some((gateway, key, diary))
}

/// A client that can be asked everything.
async fn able(gateway: &TestGateway, key: &str) -> Client {
    let all = json!({
        "roots": {"listChanged": true}, "sampling": {"tools": {}, "context": {}},
        "elicitation": {"form": {}, "url": {}},
    });
    Client::that_can(&gateway.endpoint_url("all"), key, all).await
}

fn elicit(message: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "default": 7}}});
    json!({"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}})
}

/// Accepts with what it was asked.
fn accept(question: &Value) -> Value {
    let content = json!({"said": question["params"]["message"]});
    json!({"result": {"action": "accept", "content": content, "unknown": [1.50]}})
}

/// What the tool was answered, and after how many seconds.
fn told(outcome: &Value) -> (Value, f64) {
    let text = outcome["result"]["content"][0]["text"].as_str();
    let text = text.unwrap_or_else(|| panic!("no text: {outcome}"));
    let told: Value = serde_json::from_str(text).expect("JSON");
    (told["answer"].clone(), told["seconds"].as_f64().expect("seconds"))
}

async fn diary_has(diary: &PathBuf, what: impl Fn(&Value) -> bool) -> Value {
    wait_until("a note in the diary", SOON, async || {
        let text = std::fs::read_to_string(diary).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).find(|note| what(note))
    })
    .await
}

#[tokio::test]
async fn a_question_comes_in_the_stream_of_the_call_and_its_answer_reaches_the_server() {
    let Some((gateway, key, _)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let (answer, heard) = client.call_answering("asking__ask", elicit("who?"), accept).await;
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["params"], elicit("who?")["params"], "not a byte of it is changed");
    let (told, _) = told(&answer);
    assert_eq!(told["result"], accept(&heard[0])["result"]);
    assert!(told["id"].as_str().is_some_and(|id| id.starts_with("ask-")), "{told}");

    let sample =
        json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}});
    let error = |_: &Value| json!({"error": {"code": -1, "message": "the person said no"}});
    let (answer, _) = client.call_answering("asking__ask", sample, error).await;
    assert_eq!(self::told(&answer).0["error"], error(&Value::Null)["error"]);
}

#[tokio::test]
async fn a_server_that_all_share_is_told_of_everything_but_roots() {
    let Some((gateway, key, _)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let declared: Value =
        serde_json::from_str(&client.text_of("asking__declared", json!({})).await).expect("JSON");
    assert!(declared.get("sampling").is_some() && declared.get("elicitation").is_some());
    assert!(declared.get("roots").is_none(), "{declared}");
    let roots = json!({"method": "roots/list", "params": {}});
    let (answer, heard) = client.call_answering("asking__ask", roots, accept).await;
    assert_eq!((heard.len(), &told(&answer).0["error"]["code"]), (0, &json!(-32601)));
}

#[tokio::test]
async fn two_clients_of_a_shared_server_are_never_asked_what_may_be_the_others() {
    let Some((gateway, key, _)) = asking().await else { return };
    let (first, second) = (able(&gateway, &key).await, able(&gateway, &key).await);
    let ask = |message: &str| {
        let mut arguments = elicit(message);
        arguments["among"] = json!(2);
        arguments
    };
    let (a, b) = tokio::join!(
        first.call_answering("asking__ask", ask("first"), accept),
        second.call_answering("asking__ask", ask("second"), accept),
    );
    // The one whose question came when the other's call had ended may have been asked.
    let mut refused = 0;
    for ((answer, heard), own) in [(a, "first"), (b, "second")] {
        let (told, seconds) = told(&answer);
        assert!(heard.iter().all(|question| question["params"]["message"] == own), "{heard:?}");
        match told.get("error") {
            Some(error) => {
                refused += 1;
                assert_eq!((&error["code"], heard.len()), (&json!(-32603), 0), "{error}");
                assert!(seconds < 1.0, "it was told after {seconds} s");
            }
            None => assert_eq!(told["result"]["content"]["said"], own),
        }
    }
    assert!(refused >= 1, "both cannot have been certain");
    let (answer, _) = first.call_answering("asking__ask", elicit("alone"), accept).await;
    assert_eq!(told(&answer).0["result"]["content"]["said"], "alone");
}

#[tokio::test]
async fn who_cannot_be_asked_is_not_and_the_server_hears_so_at_once() {
    let Some((gateway, key, _)) = asking().await else { return };
    let url = gateway.endpoint_url("all");
    let by_url = json!({"method": "elicitation/create", "params": {"mode": "url", "url": "https://x.example", "elicitationId": "e", "message": "m"}});
    for (capabilities, question, code) in [
        (json!({}), elicit("?"), -32601),
        (json!({"elicitation": {}}), by_url, -32602),
        (json!({"roots": {}}), json!({"method": "sampling/createMessage", "params": {}}), -32601),
    ] {
        let client = Client::that_can(&url, &key, capabilities).await;
        let (answer, heard) = client.call_answering("asking__ask", question, accept).await;
        let (told, seconds) = told(&answer);
        assert_eq!((&told["error"]["code"], heard.len()), (&json!(code), 0), "{told}");
        assert!(seconds < 1.0, "it was told after {seconds} s");
    }
    // One that reads no streams cannot hear a question.
    let client = able(&gateway, &key).await;
    let body = call(json!(1), "asking__ask", elicit("?"));
    let mut post = gateway.http.post(&url).bearer_auth(&key).body(body);
    for (name, value) in [
        ("content-type", "application/json"),
        ("accept", "application/json"),
        ("mcp-session-id", client.session.as_deref().expect("a session")),
    ] {
        post = post.header(name, value);
    }
    let answer = post.send().await.expect("an answer").text().await.expect("a body");
    let (told, seconds) = told(&serde_json::from_str(&answer).expect("JSON"));
    assert_eq!(told["error"]["code"], -32603);
    assert!(seconds < 1.0, "it was told after {seconds} s");
}

#[tokio::test]
async fn a_question_over_sse_comes_by_the_sessions_stream() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let client =
        SseClient::that_can(&gateway.sse_url("all"), &key, json!({"elicitation": {}})).await;
    let posted = client.post(&call(json!(1), "asking__ask", elicit("sse?"))).await;
    assert_eq!(posted, StatusCode::ACCEPTED);
    let question = client.heard("the question", |message| message["method"].is_string()).await;
    let mut response = accept(&question);
    response["jsonrpc"] = json!("2.0");
    response["id"] = question["id"].clone();
    assert_eq!(client.post(&response.to_string()).await, StatusCode::ACCEPTED);
    let answer = client.heard("the answer", |message| message["id"] == 1).await;
    assert_eq!(told(&answer).0["result"]["content"]["said"], "sse?");

    // When the stream ends, so does the session, and with it what was asked.
    client.post(&call(json!(2), "asking__leave_open", elicit("gone?"))).await;
    client.heard("the question", |message| message["params"]["message"] == "gone?").await;
    drop(client);
    let note = diary_has(&diary, |note| note.get("result").is_some()).await;
    assert_eq!(note["result"]["action"], "cancel");
}

#[tokio::test]
async fn a_question_outlives_the_call_that_it_came_with_and_can_still_be_answered() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let mut exchange = client.open(&call(json!(1), "asking__leave_open", elicit("later?"))).await;
    let question =
        exchange.events.find("the question", SOON, |one| one["method"].is_string()).await;
    exchange
        .events
        .find("the answer", SOON, |one| one["id"] == 1 && one["result"].is_object())
        .await;
    let response = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}});
    assert_eq!(client.post(&response.to_string()).await.status, StatusCode::ACCEPTED);
    let note = diary_has(&diary, |note| note.get("result").is_some()).await;
    assert_eq!(note["result"]["action"], "decline");
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_is_asked_is_answered_for() {
    let start = Start::new().settings("[sessions]\naway_max = \"100ms\"");
    let Some((gateway, key, diary)) = asking_in(start).await else { return };
    let client = able(&gateway, &key).await;
    let asked = async |message: &str| {
        let mut exchange =
            client.open(&call(json!(1), "asking__ask_noting", elicit(message))).await;
        exchange.events.find("the question", SOON, |one| one["method"].is_string()).await;
        exchange
    };
    let noted = async |message: &str| {
        let note = diary_has(&diary, |note| note["asked"] == message).await;
        assert_eq!(note["answer"]["result"], json!({"action": "cancel"}), "{note}");
    };
    drop(asked("the connection breaks").await);
    noted("the connection breaks").await;

    let mut exchange = asked("the session ends").await;
    client.end().await;
    noted("the session ends").await;
    let answer = exchange.events.find("an answer", SOON, |one| one["id"] == 1).await;
    assert_eq!(answer["error"]["data"]["reason"], "session_ended", "{answer}");
}

#[tokio::test]
async fn who_comes_back_too_late_to_answer_sees_that_and_no_question_that_it_was_never_asked() {
    let settings = "[sessions]\naway_max = \"100ms\"\nheartbeat = \"50ms\"";
    let Some((gateway, key, diary)) = asking_in(Start::new().settings(settings)).await else {
        return;
    };
    let client = able(&gateway, &key).await;
    let noted = async |message: &str| diary_has(&diary, |note| note["asked"] == message).await;
    let first_id = async |exchange: &mut Exchange| {
        let first = within("the first event", SOON, exchange.events.arrival()).await;
        let Some(Arrival::Event(Event { id: Some(id), .. })) = first else { panic!("{first:?}") };
        id
    };
    let rest_after = async |id: &str| -> Vec<Value> {
        let mut back = client.listen_after(id).await;
        assert_eq!(back.status, StatusCode::OK);
        within("the rest", SOON, back.events.rest()).await.iter().map(Event::json).collect()
    };

    let mut exchange = client.open(&call(json!(1), "asking__ask_noting", elicit("seen"))).await;
    let begin = first_id(&mut exchange).await;
    let asked = |one: &Value| one["method"] == "elicitation/create";
    let question = exchange.events.find("the question", SOON, asked).await;
    drop(exchange);
    noted("seen").await;
    let rest = rest_after(&begin).await;
    assert_eq!(rest.len(), 3, "{rest:?}");
    assert_eq!(rest[0], question);
    assert_eq!(rest[1]["method"], "notifications/cancelled");
    assert_eq!(rest[1]["params"]["requestId"], question["id"]);
    assert!(rest[2]["result"].is_object(), "{rest:?}");

    let now = gateway.scratch().join("now");
    let mut late = elicit("never seen");
    late["until"] = json!(now);
    let mut exchange = client.open(&call(json!(2), "asking__ask_noting", late)).await;
    let begin = first_id(&mut exchange).await;
    let mut witness = client.open(&call(json!(3), "asking__ask_noting", elicit("witness"))).await;
    witness.events.find("the question", SOON, asked).await;
    drop(exchange);
    drop(witness);
    // A reader that went no sooner has been gone for as long as it may be, so the other has too.
    noted("witness").await;
    std::fs::write(&now, "").expect("a file");
    noted("never seen").await;
    let rest = rest_after(&begin).await;
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert!(rest[0]["result"].is_object(), "{rest:?}");
}

#[tokio::test]
async fn a_call_that_is_taken_back_takes_its_question_with_it() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let mut exchange = client.open(&call(json!("c"), "asking__ask_noting", elicit("still?"))).await;
    let question =
        exchange.events.find("the question", SOON, |one| one["method"].is_string()).await;
    client.notify("notifications/cancelled", json!({"requestId": "c"})).await;
    let rest = within("the end of the stream", SOON, exchange.events.rest()).await;
    let rest: Vec<Value> = rest.iter().map(|event| event.json()).collect();
    assert_eq!(rest.len(), 1, "{rest:?}");
    assert_eq!(rest[0]["method"], "notifications/cancelled");
    assert_eq!(rest[0]["params"]["requestId"], question["id"]);
    let note = diary_has(&diary, |note| note["asked"] == "still?").await;
    assert_eq!(note["answer"]["result"], json!({"action": "cancel"}), "{note}");
    let (answer, _) = client.call_answering("asking__ask", elicit("next"), accept).await;
    assert_eq!(told(&answer).0["result"]["content"]["said"], "next");
}

#[tokio::test]
async fn a_server_that_dies_while_it_asks_ends_its_call_and_frees_its_client() {
    let Some((gateway, key, _)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let (answer, heard) = {
        let mut exchange = client.open(&call(json!(9), "asking__die", elicit("dying"))).await;
        let mut heard = Vec::new();
        let answer = loop {
            let message = exchange.events.expect("the answer", SOON).await.json();
            if message["id"] == 9 && message.get("method").is_none() {
                break message;
            }
            heard.push(message);
        };
        (answer, heard)
    };
    assert_eq!(answer["error"]["data"]["reason"], "upstream_ended", "{answer}");
    assert_eq!(heard[0]["params"]["message"], "dying");
    gateway.ready("asking").await;
    // An answer that comes too late is nobody's, least of all the new process's.
    let late = json!({"jsonrpc": "2.0", "id": heard[0]["id"], "result": {"action": "accept"}});
    assert_eq!(client.post(&late.to_string()).await.status, StatusCode::ACCEPTED);
    let (answer, _) = client.call_answering("asking__ask", elicit("again"), accept).await;
    assert_eq!(told(&answer).0["result"]["content"]["said"], "again");
}

#[tokio::test]
async fn a_server_takes_its_question_back_under_the_clients_id_and_hears_of_progress_before() {
    let Some((gateway, key, _)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    let question = json!({"method": "sampling/createMessage", "params": {
        "messages": [], "maxTokens": 5, "_meta": {"progressToken": "theirs"},
    }});
    let mut exchange = client.open(&call(json!(1), "asking__take_back", question)).await;
    let asked = exchange.events.find("the question", SOON, |one| one["method"].is_string()).await;
    let token = &asked["params"]["_meta"]["progressToken"];
    assert_eq!(*token, asked["id"]);
    client.notify("notifications/progress", json!({"progressToken": token, "progress": 1})).await;
    let taken_back = |one: &Value| one["method"] == "notifications/cancelled";
    let cancelled = exchange.events.find("its end", SOON, taken_back).await;
    assert_eq!(cancelled["params"]["requestId"], asked["id"]);
    exchange.events.find("the answer", SOON, |one| one["id"] == 1).await;
}

#[tokio::test]
async fn a_daemon_that_stops_leaves_no_question_and_no_call_without_an_outcome() {
    let start = Start::new().settings("[server]\ndrain_grace = \"200ms\"");
    let Some((mut gateway, key, diary)) = asking_in(start).await else { return };
    let client = able(&gateway, &key).await;
    let mut open = client.open(&call(json!(1), "asking__leave_open", elicit("open"))).await;
    open.events.find("the answer", SOON, |one| one["id"] == 1 && one["result"].is_object()).await;
    let mut asked = client.open(&call(json!(2), "asking__ask", elicit("stopping"))).await;
    asked.events.find("the question", SOON, |one| one["method"].is_string()).await;
    gateway.signal(rustix::process::Signal::TERM);
    let answer = asked.events.find("an answer", SOON, |one| one["id"] == 2).await;
    assert_eq!(answer["error"]["data"]["reason"], "stopping", "{answer}");
    assert_eq!(gateway.ended().await.code, Some(0));
    let note = diary_has(&diary, |note| note.get("result").is_some()).await;
    assert_eq!(note["result"]["action"], "cancel", "the server heard it before it was stopped");
}

#[tokio::test]
async fn a_url_that_must_be_visited_is_told_in_words_that_the_client_knows() {
    let Some((gateway, key, _)) = asking().await else { return };
    let newest = able(&gateway, &key).await;
    let answer = newest.call("asking__need_url", json!({"id": "e1"})).await;
    let elicitation = &answer["error"]["data"]["elicitations"][0];
    assert_eq!((&answer["error"]["code"], &elicitation["odd"]), (&json!(-32042), &json!(1.5)));

    let mut older = Client::new(&gateway.endpoint_url("all"), Some(&key));
    older.initialize("2025-06-18").await;
    let answer = older.call("asking__need_url", json!({"id": "e2"})).await;
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
    assert!(text.contains("https://sign.example/in"), "{text}");
}

#[tokio::test]
async fn that_an_elicitation_is_complete_is_told_to_the_one_that_was_asked() {
    let Some((gateway, key, _)) = asking().await else { return };
    let url = gateway.sse_url("all");
    let by_url = json!({"elicitation": {"url": {}}});
    let asked = SseClient::that_can(&url, &key, by_url.clone()).await;
    let other = SseClient::that_can(&url, &key, by_url).await;
    asked.call(json!(1), "asking__need_url", json!({"id": "e1"})).await;
    // The other's call brings the news, which is not for it.
    let mut news = other.stream().await;
    other.post(&call(json!(2), "asking__complete", json!({"id": "e1"}))).await;
    let first = news.expect("the answer", SOON).await.json();
    assert_eq!(first["id"], 2, "{first}");
    let complete = asked.heard("the news", |one| one["method"].is_string()).await;
    assert_eq!(complete["method"], "notifications/elicitation/complete");
    assert_eq!(complete["params"]["elicitationId"], "e1");
}

#[tokio::test]
async fn each_client_has_the_log_messages_of_its_own_calls_at_its_own_level() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let (quiet, loud) = (able(&gateway, &key).await, able(&gateway, &key).await);
    let set = async |client: &Client, level: &str| {
        let answer = client.request("logging/setLevel", json!({"level": level})).await;
        assert_eq!(answer["result"], json!({}), "{answer}");
    };
    set(&quiet, "error").await;
    diary_has(&diary, |level| level == "error").await;
    set(&loud, "info").await;
    diary_has(&diary, |level| level == "info").await;
    let levels = json!({"levels": ["debug", "info", "warning", "error"], "n": 1});
    let logged = async |client: &Client| -> Vec<Value> {
        let (_, heard) = client.call_answering("asking__log", levels.clone(), accept).await;
        heard.iter().map(|message| message["params"]["level"].clone()).collect()
    };
    assert_eq!(logged(&quiet).await, ["error"]);
    assert_eq!(logged(&loud).await, ["info", "warning", "error"]);
    let silent = able(&gateway, &key).await;
    assert_eq!(logged(&silent).await.len(), 4, "who says nothing hears all of its own");

    // When the one that wanted most has gone, the server is told that less will do.
    loud.end().await;
    wait_until("the server to be told", SOON, async || {
        let text = std::fs::read_to_string(&diary).unwrap_or_default();
        (text.lines().last() == Some("\"error\"")).then_some(())
    })
    .await;
    let refused = quiet.request("logging/setLevel", json!({"level": "loud"})).await;
    assert_eq!(refused["error"]["code"], -32602);
}

#[tokio::test]
async fn a_level_is_in_force_upstream_by_the_time_that_its_client_is_answered() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    for level in ["emergency", "debug", "warning", "info"] {
        client.request("logging/setLevel", json!({"level": level})).await;
        let noted = std::fs::read_to_string(&diary).unwrap_or_default();
        assert_eq!(noted.lines().last(), Some(&*format!("\"{level}\"")), "what it was told last");
    }
}

#[tokio::test]
async fn a_log_message_that_may_be_about_either_of_two_clients_is_heard_by_neither() {
    let Some((gateway, key, _)) = asking().await else { return };
    let (waiting, logging) = (able(&gateway, &key).await, able(&gateway, &key).await);
    let params = json!({"name": "asking__wait", "arguments": {}, "_meta": {"progressToken": "t"}});
    let mut wait = waiting.open(&request(json!(1), "tools/call", params)).await;
    let begun = |one: &Value| one["method"] == "notifications/progress";
    wait.events.find("its begin", SOON, begun).await;
    let (_, heard) =
        logging.call_answering("asking__log", json!({"levels": ["error"]}), accept).await;
    assert!(heard.is_empty(), "{heard:?}");
    let first = wait.events.expect("the answer", SOON).await.json();
    assert_eq!(first["id"], 1, "{first}");
}

#[tokio::test]
async fn the_level_is_told_again_to_a_server_that_starts_anew() {
    let Some((gateway, key, diary)) = asking().await else { return };
    let client = able(&gateway, &key).await;
    client.request("logging/setLevel", json!({"level": "alert"})).await;
    diary_has(&diary, |level| level == "alert").await;
    std::fs::remove_file(&diary).expect("the diary");
    gateway.admin(reqwest::Method::POST, "mcp-servers/asking/restart", None).await;
    diary_has(&diary, |level| level == "alert").await;
}

#[tokio::test]
async fn what_nobody_was_asked_is_not_answered_by_anybody() {
    let Some((gateway, key, _)) = asking().await else { return };
    let (asked, other) = (able(&gateway, &key).await, able(&gateway, &key).await);
    let mut exchange = asked.open(&call(json!(1), "asking__ask", elicit("mine"))).await;
    let question =
        exchange.events.find("the question", SOON, |one| one["method"].is_string()).await;
    let forged = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"said": "forged"}}});
    assert_eq!(other.post(&forged.to_string()).await.status, StatusCode::ACCEPTED);
    assert_eq!(other.post(&request(json!(5), "ping", json!({}))).await.status, StatusCode::OK);
    let own = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "decline"}});
    asked.post(&own.to_string()).await;
    let answer = exchange.events.find("the answer", SOON, |one| one["id"] == 1).await;
    assert_eq!(told(&answer).0["result"], json!({"action": "decline"}));
}
