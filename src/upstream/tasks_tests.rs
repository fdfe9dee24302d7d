//! Whose a task is, and for whom what is said of it, before a server that is played by the test; time is
//! virtual.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use super::*;
use crate::{
    upstream::{
        concern::Concerned,
        dialogue::{Aside, Dialogue, Scope, Unasked},
        exchange::Heard,
        task_talk::TaskTalk,
        testing,
    },
    wire::Frame,
};

const SHARED: SessionKey = SessionKey::Shared;

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 16).unwrap()
}

fn created_as(call: u64, task: &str) -> Frame {
    frame(&format!(r#"{{"jsonrpc":"2.0","id":{call},"result":{{"task":{{{task}}}}}}}"#))
}

fn owner(name: u128) -> Owner {
    let principal = Principal::Key { uuid: Uuid::from_u128(name), user_id: None };
    Owner { principal, endpoint: Uuid::from_u128(100) }
}

/// Calls a task by its own name with that of its owner's before it.
fn creates(name: u128) -> Concern {
    let seal: Seal =
        Arc::new(move |theirs, _| (theirs.len() < 9).then(|| format!("{name}-{theirs}").into()));
    Concern::Creates { owner: owner(name), seal }
}

struct Scene {
    tasks: Arc<Tasks>,
    dialogue: Dialogue,
    last: u64,
    /// What was begun and has not ended.
    open: Vec<Concerned>,
}

fn scene(scope: Scope) -> Scene {
    let tasks = Arc::new(Tasks::new(&testing::tasks()));
    let talk = TaskTalk::new(tasks.clone(), SHARED, Uuid::nil());
    let dialogue = Dialogue::new(scope, testing::calls().dialogue()).with_tasks(talk);
    Scene { tasks, dialogue, last: 0, open: Vec::new() }
}

impl Scene {
    fn begin(&mut self, client: &str, concern: Concern) -> u64 {
        self.last += 1;
        let token = Some(Bytes::from_static(b"\"tok\""));
        let concerned =
            Concerned::begin(&self.tasks, &SHARED, self.last, &client.into(), concern, token);
        self.open.push(concerned);
        drop(self.dialogue.begin(self.last, Some(client.into())));
        self.last
    }

    /// A client makes a task, and its call has ended.
    fn make(&mut self, client: &str, name: u128, task: &str) -> u64 {
        let call = self.begin(client, creates(name));
        self.dialogue.end(call, &created_as(call, task));
        self.open.clear();
        call
    }

    fn names(&self, name: u128) -> Vec<String> {
        let mut listed = self.tasks.of(&owner(name));
        listed.sort_unstable_by_key(|listed| listed.number);
        listed.iter().map(|listed| listed.shown.to_string()).collect()
    }

    /// In words: to whom it goes, and the task as that one knows it.
    fn heard(&self, text: &str) -> String {
        let task = |frame: &Frame| {
            let related = crate::wire::task::related(frame).map(|related| related.id);
            related.or_else(|| task::described(frame).map(|task| task.id)).unwrap_or_default()
        };
        match self.dialogue.hear(frame(text), || Box::new(|_| {})) {
            Aside::Settled => "nobody".into(),
            Aside::ToClient(client, Unasked::Question(question)) => {
                format!(
                    "ask {client} of {}",
                    task(&frame(std::str::from_utf8(&question.under(1)).unwrap()))
                )
            }
            Aside::ToClient(client, Unasked::Note(note)) => {
                format!("tell {client} of {}", task(&note))
            }
            Aside::TaskStatus(owner, maker, note) => {
                format!("tell {:x} and {maker} of {}", owner.endpoint.as_u128(), task(&note))
            }
            Aside::Say(_)
            | Aside::ToClient(..)
            | Aside::Updated(..)
            | Aside::ToAll(_)
            | Aside::ListChanged(_) => "else".into(),
        }
    }
}

fn asking(task: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{{"_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"{task}"}}}}}}}}"#
    )
}

fn status(task: &str, word: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{{"taskId":"{task}","status":"{word}"}}}}"#
    )
}

const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info"}}"#;
const PLAIN: &str = r#"{"jsonrpc":"2.0","id":"q","method":"elicitation/create","params":{}}"#;

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_task_is_for_its_owner_by_the_name_that_it_knows() {
    let mut scene = scene(Scope::Everyone);
    scene.make("a", 1, r#""taskId":"t1","status":"working""#);
    scene.make("b", 2, r#""taskId":"t2","status":"working""#);
    assert_eq!(scene.heard(&asking("t1")), "ask a of 1-t1");
    assert_eq!(scene.heard(&asking("t2")), "ask b of 2-t2");
    assert_eq!(scene.heard(&status("t1", "working")), "tell 64 and a of 1-t1");
    // Nobody knows for certain whose that is.
    assert_eq!(scene.heard(&asking("t3")), "nobody");
    assert_eq!(scene.heard(&status("t3", "working")), "nobody");
    // What says of no task may be about either, until one is over.
    assert_eq!(scene.heard(PLAIN), "nobody");
    assert_eq!(scene.heard(LOG), "nobody");
    scene.heard(&status("t2", "completed"));
    assert_eq!(scene.heard(PLAIN), "ask a of ");
    assert_eq!(scene.heard(LOG), "tell a of ");
    scene.heard(&status("t1", "failed"));
    assert_eq!(scene.heard(LOG), "else");
    assert_eq!((scene.names(1), scene.names(2)), (vec!["1-t1".into()], vec!["2-t2".into()]));
}

#[tokio::test(start_paused = true)]
async fn in_a_session_of_one_client_a_task_that_is_not_known_is_that_client_s() {
    let scene = scene(Scope::Client("a".into()));
    assert_eq!(scene.heard(&asking("t1")), "ask a of ");
    assert_eq!(scene.heard(&status("t1", "working")), "nobody");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_result_is_the_one_that_is_asked() {
    let mut scene = scene(Scope::Everyone);
    scene.make("a", 1, r#""taskId":"t1","status":"working""#);
    let known = Known { shown: Some("1-t1".into()), theirs: "t1".into() };
    let call = scene.begin("again", Concern::Awaits(known));
    let mut listening = scene.dialogue.begin(call, Some("again".into()));
    assert_eq!(scene.heard(&asking("t1")), "nobody", "it is in the call");
    assert!(matches!(listening.next().await, Heard::Asked(_)));
    scene.dialogue.end(call, &frame(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#));
    scene.open.clear();
    assert_eq!(scene.heard(&asking("t1")), "ask again of 1-t1");
}

#[tokio::test(start_paused = true)]
async fn what_is_driven_goes_on_as_its_call_though_its_answer_is_heard_of_twice() {
    let mut scene = scene(Scope::Everyone);
    let call = scene.begin("a", Concern::Drives);
    let mut listening = scene.dialogue.begin(call, Some("a".into()));
    let answer = created_as(call, r#""taskId":"t1","status":"working""#);
    scene.dialogue.end(call, &answer);
    scene.dialogue.end(call, &answer);
    assert_eq!(scene.heard(&asking("t1")), "nobody", "it is in the call");
    assert!(matches!(listening.next().await, Heard::Asked(_)));
    scene.open.clear();
    scene.dialogue.end(call, &answer);
    assert_eq!(scene.heard(&asking("t1")), "nobody", "it is not known any more");
    assert_eq!(scene.heard(LOG), "else", "and nobody's call is under way");
}

#[tokio::test(start_paused = true)]
async fn progress_goes_on_under_the_client_s_own_token() {
    let mut scene = scene(Scope::Everyone);
    let call = scene.make("a", 1, r#""taskId":"t1","status":"working""#);
    let progress = |token: u64| {
        frame(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1.50,"_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"t1"}}}}}}}}"#
        ))
    };
    let Aside::ToClient(client, Unasked::Note(note)) = scene.dialogue.progress(progress(call))
    else {
        panic!("it is for nobody")
    };
    assert_eq!(&*client, "a");
    assert_eq!(
        note.bytes(),
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"tok","progress":1.50,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1-t1"}}}}"#
    );
    assert!(matches!(scene.dialogue.progress(progress(99)), Aside::Settled));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_another_s_by_now_is_not_given_to_who_had_it() {
    let mut scene = scene(Scope::Everyone);
    let known = |shown: &str| Known { shown: Some(shown.into()), theirs: "t1".into() };
    let adopt = |scene: &Scene, name: u128, shown: &str| {
        scene.tasks.adopt(&SHARED, &known(shown), &owner(name), &"c".into())
    };
    assert!(adopt(&scene, 1, "1-t1"), "after a restart");
    assert!(adopt(&scene, 1, "1-t1"));
    // The server begins to count again.
    scene.make("b", 2, r#""taskId":"t1","status":"working""#);
    assert!(!adopt(&scene, 1, "1-t1"));
    assert!(scene.names(1).is_empty());
    assert_eq!(scene.heard(&asking("t1")), "ask b of 2-t1");
    // In another session it is another task.
    let other = SessionKey::Client("c".into());
    assert!(scene.tasks.adopt(&other, &known("1-t1"), &owner(1), &"c".into()));
    assert_eq!(scene.tasks.session_of("1-t1"), Some(other));
}

#[tokio::test(start_paused = true)]
async fn room_is_made_by_the_oldest_that_is_over_and_only_of_the_same_principal() {
    let mut scene = scene(Scope::Everyone);
    scene.make("b", 2, r#""taskId":"x","status":"completed""#);
    for (task, word) in [
        ("t1", "working"),
        ("t2", "completed"),
        ("t3", "working"),
        ("t4", "working"),
        ("t5", "working"),
    ] {
        scene.make("a", 1, &format!(r#""taskId":"{task}","status":"{word}""#));
    }
    assert_eq!(scene.names(1), ["1-t3", "1-t4", "1-t5"]);
    assert_eq!(scene.names(2), ["2-x"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_forgotten_when_its_time_is_over() {
    let mut scene = scene(Scope::Everyone);
    scene.make("a", 1, r#""taskId":"t1","status":"working","ttl":5000"#);
    scene.make("a", 1, r#""taskId":"t2","status":"working","ttl":null"#);
    scene.make("a", 1, r#""taskId":"t3","status":"working","ttl":999999999"#);
    assert!(scene.tasks.has_work(&SHARED));
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(scene.names(1), ["1-t2", "1-t3"]);
    scene.heard(&status("t2", "working"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(scene.names(1), ["1-t2"], "it was heard of");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(scene.names(1).is_empty() && !scene.tasks.has_work(&SHARED));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_task_makes_none_and_one_that_cannot_be_named_is_bad() {
    let mut scene = scene(Scope::Everyone);
    let call = scene.begin("a", creates(1));
    let plain = frame(r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#);
    scene.dialogue.end(call, &plain);
    assert_eq!(scene.open.pop().unwrap().translate(&plain), Ok(vec![]));
    let call = scene.begin("a", creates(1));
    let long = created_as(call, r#""taskId":"much-too-long""#);
    scene.dialogue.end(call, &long);
    assert!(scene.open.pop().unwrap().translate(&long).is_err());
    assert!(scene.names(1).is_empty());
    // A call that nobody waits for any more makes no task of another's answer.
    let call = scene.begin("a", creates(1));
    scene.open.clear();
    scene.dialogue.end(call, &created_as(call, r#""taskId":"t1""#));
    assert!(scene.names(1).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_tasks_of_a_process_are_forgotten_with_it() {
    let mut scene = scene(Scope::Everyone);
    scene.make("s", 1, r#""taskId":"t","status":"working""#);
    assert!(scene.tasks.has_work(&SHARED));
    drop(TaskTalk::new(scene.tasks.clone(), SHARED, Uuid::nil()));
    assert!(scene.tasks.has_work(&SHARED), "one that may outlive its connection is at work still");
    drop(TaskTalk::new(scene.tasks.clone(), SHARED, Uuid::from_u128(2)));
    assert!(!scene.tasks.has_work(&SHARED), "another process is at work on none");
    assert!(scene.tasks.of(&owner(1)).is_empty());
}
