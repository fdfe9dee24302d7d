//! For whom an upstream's words are, in sessions of every scope.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::capabilities::ClientCapabilities;

const OPTIONS: DialogueOptions =
    DialogueOptions { doubt: Duration::from_secs(30), events_max: 2, elicitations_max: 2 };

/// What was answered to the upstream.
type Told = Arc<Mutex<Vec<String>>>;

struct Scene {
    dialogue: Dialogue,
    told: Told,
}

fn scene(scope: Scope) -> Scene {
    Scene { dialogue: Dialogue::new(scope, OPTIONS), told: Told::default() }
}

fn client(name: &str) -> Client {
    name.into()
}

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 16).unwrap()
}

fn request(method: &str, params: &str) -> Frame {
    frame(&format!(r#"{{"jsonrpc":"2.0","id":5,"method":"{method}","params":{params}}}"#))
}

fn note(method: &str, params: &str) -> Frame {
    frame(&format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#))
}

impl Scene {
    fn hear(&self, frame: Frame) -> Aside {
        self.dialogue.hear(frame, || self.say())
    }

    fn say(&self) -> Say {
        let told = self.told.clone();
        Box::new(move |bytes| {
            told.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
        })
    }

    /// In words: who is asked or told this, or what the upstream is answered.
    fn heard(&self, frame: Frame) -> String {
        let words = match self.hear(frame) {
            Aside::Settled => "settled".to_owned(),
            Aside::Say(answer) => {
                format!("say {}", Frame::parse(answer, 16).map_or("?", |frame| outcome(&frame)))
            }
            Aside::ToClient(client, Unasked::Question(_)) => format!("ask {client}"),
            Aside::ToClient(client, Unasked::Note(_) | Unasked::Updated(_)) => {
                format!("tell {client}")
            }
            Aside::Updated(clients, _) => format!("update {}", clients.join(" ")),
            Aside::ToAll(_) => "tell all".to_owned(),
            Aside::TaskStatus(..) => "status".to_owned(),
            Aside::ListChanged(Topic::Tools) => "list".to_owned(),
            Aside::ListChanged(topic) => format!("list {topic:?}"),
        };
        let told = std::mem::take(&mut *self.told.lock().unwrap());
        let told = told.into_iter().map(|text| format!(", told {}", outcome(&self::frame(&text))));
        words + &told.collect::<String>()
    }
}

fn outcome(answer: &Frame) -> &'static str {
    let text = String::from_utf8(answer.bytes().to_vec()).unwrap();
    ["-32601", "-32603", "-32600", "cancel", "{}"]
        .into_iter()
        .find(|part| text.contains(part))
        .unwrap_or("?")
}

#[tokio::test]
async fn a_question_goes_to_the_one_client_that_is_certain_or_is_refused() {
    for (scope, calls, method, expected) in [
        (Scope::Everyone, &[][..], "sampling/createMessage", "settled, told -32603"),
        (Scope::Everyone, &["a", "b"], "elicitation/create", "settled, told -32603"),
        (Scope::Everyone, &["a"], "roots/list", "say -32601"),
        (Scope::Gateway, &[], "roots/list", "settled, told -32603"),
        (Scope::User, &[], "roots/list", "settled, told -32603"),
        (Scope::User, &["a", "b"], "roots/list", "settled, told -32603"),
        // It is given up at once, since nobody holds it here.
        (Scope::Client(client("a")), &[], "roots/list", "ask a, told -32603"),
        (Scope::Client(client("a")), &[], "elicitation/create", "ask a, told cancel"),
        (Scope::Everyone, &[], "ping", "say {}"),
        (Scope::Everyone, &["a"], "tasks/list", "say -32601"),
    ] {
        let scene = scene(scope.clone());
        let mut calls_under_way = Vec::new();
        for (call, name) in (1..).zip(calls) {
            calls_under_way.push(scene.dialogue.begin(call, Some(client(name))));
        }
        assert_eq!(
            scene.heard(request(method, "{}")),
            expected,
            "{method} in {scope:?} with calls of {calls:?}"
        );
    }
}

#[tokio::test]
async fn a_log_message_goes_to_whom_it_is_about_and_to_no_other() {
    for (scope, calls, expected) in [
        (Scope::Everyone, &[][..], "tell all"),
        (Scope::Everyone, &["a"], "settled"),
        (Scope::Everyone, &["a", "b"], "settled"),
        (Scope::User, &[], "settled"),
        (Scope::Client(client("a")), &[], "tell a"),
    ] {
        let scene = scene(scope.clone());
        let mut under_way = Vec::new();
        for (call, name) in (1..).zip(calls) {
            under_way.push(scene.dialogue.begin(call, Some(client(name))));
        }
        let message = note("notifications/message", r#"{"level":"info","data":"secret"}"#);
        assert_eq!(scene.heard(message), expected, "{scope:?} with calls of {calls:?}");
        for listening in &mut under_way {
            use futures_util::FutureExt;
            let hears = matches!(listening.next().now_or_never(), Some(Heard::Said(_)));
            assert_eq!(hears, calls.len() == 1, "{calls:?}");
        }
    }
}

#[tokio::test]
async fn a_complete_elicitation_is_told_to_the_one_that_was_asked() {
    let scene = scene(Scope::Everyone);
    let mut listening = scene.dialogue.begin(1, Some(client("a")));
    let ask = request("elicitation/create", r#"{"mode":"url","elicitationId":"e1"}"#);
    assert_eq!(scene.heard(ask), "settled");
    drop(listening.next().await);
    let required = frame(
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"m","data":{"elicitations":[{"elicitationId":"e2"}]}}}"#,
    );
    scene.dialogue.end(1, &required);
    drop(scene.dialogue.begin(2, Some(client("b"))));
    let complete =
        |id| note("notifications/elicitation/complete", &format!(r#"{{"elicitationId":"{id}"}}"#));
    scene.told.lock().unwrap().clear();
    assert_eq!(scene.heard(complete("e2")), "tell a");
    assert_eq!(scene.heard(complete("e2")), "settled", "it is complete once");
    assert_eq!(scene.heard(complete("e1")), "tell a");
    assert_eq!(scene.heard(complete("unknown")), "settled");
}

#[tokio::test]
async fn an_id_that_waits_for_an_answer_is_not_taken_twice() {
    let scene = scene(Scope::Client(client("a")));
    let held = scene.hear(request("roots/list", "{}"));
    assert_eq!(scene.heard(request("roots/list", "{}")), "say -32600");
    drop(held);
    scene.told.lock().unwrap().clear();
    assert_eq!(scene.heard(request("roots/list", "{}")), "ask a, told -32603");
}

#[test]
fn what_the_gateway_says_itself_is_not_passed_on() {
    let scene = scene(Scope::Client(client("a")));
    for (method, expected) in [
        ("notifications/tools/list_changed", "list"),
        ("notifications/prompts/list_changed", "list Prompts"),
        ("notifications/resources/updated", "settled"),
        ("notifications/cancelled", "settled"),
        ("notifications/of_the_future", "tell a"),
    ] {
        assert_eq!(scene.heard(note(method, "{}")), expected, "{method}");
    }
}

#[test]
fn a_resource_that_changed_is_told_to_its_subscribers_whoever_calls() {
    let subscriptions = Arc::new(Subscriptions::default());
    let declared = ClientCapabilities::default();
    subscriptions.subscribe(&SessionKey::Shared, declared, "u://é", &client("a"));
    subscriptions.subscribe(&SessionKey::User("b".into()), declared, "u://b", &client("b"));
    let dialogue = Dialogue::new(Scope::Everyone, OPTIONS)
        .with_subscriptions(subscriptions, SessionKey::Shared);
    let scene = Scene { dialogue, told: Told::default() };
    let _call = scene.dialogue.begin(1, Some(client("c")));
    for (params, expected) in [
        (r#"{"uri":"u:\/\/\u00e9"}"#, "update a"),
        (r#"{"uri":"u://b"}"#, "settled"),
        (r#"{"uri":"u://"}"#, "settled"),
        (r#"{"uri":7}"#, "settled"),
        ("{}", "settled"),
    ] {
        let updated = || note("notifications/resources/updated", params);
        assert_eq!(scene.heard(updated()), expected, "{params}");
        let own = scene.dialogue.hear_in_call(None, updated(), || scene.say());
        let is_told = matches!(own, InCall::Aside(Aside::Updated(..)));
        assert_eq!(is_told, expected != "settled", "{params}");
    }
}

#[test]
fn what_comes_in_a_calls_own_stream_belongs_to_it_whoever_else_calls() {
    let scene = scene(Scope::Everyone);
    let _calls =
        [("a", 1), ("b", 2)].map(|(name, id)| scene.dialogue.begin(id, Some(client(name))));
    let hear = |frame| scene.dialogue.hear_in_call(Some(&client("a")), frame, || scene.say());
    assert!(matches!(hear(request("elicitation/create", "{}")), InCall::Heard(Heard::Asked(_))));
    assert!(matches!(
        hear(note("notifications/message", r#"{"level":"info"}"#)),
        InCall::Heard(Heard::Said(_))
    ));
    assert!(matches!(hear(request("roots/list", "{}")), InCall::Aside(Aside::Say(_))));
    assert!(matches!(
        hear(note("notifications/tools/list_changed", "{}")),
        InCall::Aside(Aside::ListChanged(Topic::Tools))
    ));
}

#[test]
fn what_comes_in_a_request_of_our_own_is_about_no_client_whoever_calls() {
    let scene = scene(Scope::Everyone);
    let _call = scene.dialogue.begin(1, Some(client("a")));
    let hear = |frame| scene.dialogue.hear_in_call(None, frame, || scene.say());
    for method in ["elicitation/create", "sampling/createMessage", "ping"] {
        assert!(matches!(hear(request(method, "{}")), InCall::Aside(Aside::Say(_))), "{method}");
    }
    let message = note("notifications/message", r#"{"level":"info"}"#);
    assert!(matches!(hear(message), InCall::Aside(Aside::Settled)));
    let changed = note("notifications/tools/list_changed", "{}");
    assert!(matches!(hear(changed), InCall::Aside(Aside::ListChanged(Topic::Tools))));
}
