//! A task that is seen through for its client, before a server that is played by the test; time is
//! virtual.

#![allow(clippy::unwrap_used)]

use tokio::sync::mpsc;
use uuid::Uuid;

use super::*;
use crate::{
    access::Principal,
    upstream::{
        board::Remembered,
        dialogue::{Dialogue, Scope},
        link::Link,
        pipe::Pipe,
        task_talk::TaskTalk,
        testing,
    },
    wire::capabilities::ClientCapabilities,
};

const SECOND: Duration = Duration::from_secs(1);

struct Scene {
    board: Arc<Board>,
    pipe: Arc<Pipe>,
    lines: mpsc::Receiver<Bytes>,
    driving: Driving,
}

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 32).unwrap()
}

/// A call under way, whose server has not answered it.
async fn scene(inactivity: Duration, total: Duration) -> Scene {
    let mut spec = testing::spec(1);
    spec.limits = CallLimits { inactivity, total, reset_on_progress: true };
    let board = Board::new(
        spec,
        Remembered::default(),
        testing::calls(),
        &testing::brakes(),
        Arc::new(testing::Deaf),
    );
    let talk = TaskTalk::new(board.port.tasks.clone(), SessionKey::Shared, Uuid::nil());
    let dialogue = Dialogue::new(Scope::Everyone, testing::calls().dialogue()).with_tasks(talk);
    let (pipe, lines) = Pipe::new("test".into(), 8, Arc::new(dialogue));
    board.port.open(Link::Pipe(pipe.clone()));
    let (board, session) = (Arc::new(board), "s".into());
    let (principal, capabilities) = (&Principal::Anonymous, ClientCapabilities::ALL);
    let caller = Caller { session: &session, principal, capabilities, log_level: None };
    let call = frame(
        r#"{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{"_meta":{"progressToken":"tok"},"name":"t"}}"#,
    );
    let driving =
        Driving::begin(board.clone(), call, Vec::new(), &caller, CancellationToken::new()).await;
    Scene { board, pipe, lines, driving: driving.unwrap() }
}

impl Scene {
    /// Goes on until something is sent, or the client is to hear something.
    async fn until_sent(&mut self) -> (u64, Frame) {
        let line = tokio::select! {
            biased;
            line = self.lines.recv() => line.unwrap(),
            _ = self.driving.next() => panic!("its client hears something"),
        };
        let frame = frame(std::str::from_utf8(&line).unwrap());
        let id = frame.id().map_or(0, |id| std::str::from_utf8(id).unwrap().parse().unwrap());
        (id, frame)
    }

    /// The next request, which has to be this, is answered so.
    async fn answers(&mut self, method: &str, result: &str) {
        let (id, request) = self.until_sent().await;
        assert_eq!(request.method().as_deref(), Some(method));
        self.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},{result}}}"#));
    }

    fn says(&self, text: &str) {
        self.pipe.hear(frame(text));
    }
}

fn task(word: &str, more: &str) -> String {
    format!(r#"{{"taskId":"t\"1","status":"{word}"{more}}}"#)
}

fn created(more: &str) -> String {
    format!(r#""result":{{"task":{}}}"#, task("working", more))
}

fn got(word: &str) -> String {
    format!(r#""result":{}"#, task(word, ""))
}

#[tokio::test(start_paused = true)]
async fn a_task_is_made_asked_after_at_its_pace_and_its_result_is_the_answer() {
    let mut scene = scene(60 * SECOND, 600 * SECOND).await;
    let (id, call) = scene.until_sent().await;
    assert_eq!(
        call.bytes(),
        &format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"task":{{"ttl":600000}},"_meta":{{"progressToken":{id}}},"name":"t"}}}}"#
        )
    );
    scene.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},{}}}"#, created(r#","pollInterval":3000"#)));
    let began = Instant::now();
    scene.answers("tasks/get", &got("working")).await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    // It is heard as the call that it is.
    scene.says(&format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":1.50,"_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"t\"1"}}}}}}}}"#
    ));
    let Step::Event(event) = scene.driving.next().await else { panic!("it is no progress") };
    assert_eq!(
        event,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"tok","progress":1.50,"_meta":{}}}"#
    );
    // One that says nothing of a pace is asked at ours.
    let began = Instant::now();
    scene.answers("tasks/get", &got("completed")).await;
    assert_eq!(began.elapsed(), POLL_EVERY);
    let (id, request) = scene.until_sent().await;
    assert_eq!(task::named(&request).unwrap().1, "t\"1");
    scene.says(&format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[],"n":1.50,"_meta":{{"io.modelcontextprotocol/related-task":{{"taskId":"t\"1"}}}}}}}}"#
    ));
    let Step::End(Ok(answer)) = scene.driving.next().await else { panic!("it has no result") };
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"q","result":{"content":[],"n":1.50,"_meta":{}}}"#);
    let tasks = scene.board.port.tasks.clone();
    assert!(tasks.place(&SessionKey::Shared, "t\"1").is_some());
    drop(scene);
    assert!(tasks.place(&SessionKey::Shared, "t\"1").is_none(), "nothing is left of it");
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_kept_within_limits_and_below_what_counts_as_silence() {
    for (wanted, inactivity, expected) in [
        (0, 60, SECOND / 10),
        (2_000, 60, 2 * SECOND),
        (60_000, 60, 5 * SECOND),
        (60_000, 4, 2 * SECOND),
    ] {
        let mut scene = scene(inactivity * SECOND, 600 * SECOND).await;
        scene.answers("tools/call", &created(&format!(r#","pollInterval":{wanted}"#))).await;
        let began = Instant::now();
        scene.answers("tasks/get", &got("working")).await;
        assert_eq!(began.elapsed(), expected, "{wanted} of {inactivity}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_a_sign_of_life_and_silence_or_the_end_of_the_time_cancels_the_task() {
    let mut scene = scene(4 * SECOND, 600 * SECOND).await;
    scene.answers("tools/call", &created("")).await;
    for _ in 0..20 {
        scene.answers("tasks/get", &got("working")).await;
    }
    let local = tokio::task::LocalSet::new();
    let (_, asked) = scene.until_sent().await;
    assert_eq!(asked.method().as_deref(), Some("tasks/get"));
    let began = Instant::now();
    let ended = local.run_until(scene.driving.next()).await;
    assert!(matches!(ended, Step::End(Err(CallError::Inactive { .. }))));
    assert!(began.elapsed() < 4 * SECOND + POLL_EVERY);
    local
        .run_until(async {
            loop {
                let line = scene.lines.recv().await.unwrap();
                if line.windows(12).any(|part| part == b"tasks/cancel") {
                    break;
                }
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_server_answers_at_once_or_does_not_know_any_more_is_the_answer() {
    let mut scene_at_once = scene(60 * SECOND, 600 * SECOND).await;
    scene_at_once.answers("tools/call", r#""result":{"content":[]}"#).await;
    let Step::End(Ok(answer)) = scene_at_once.driving.next().await else { panic!("no answer") };
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"q","result":{"content":[]}}"#);

    let mut scene = scene(60 * SECOND, 600 * SECOND).await;
    scene.answers("tools/call", &created("")).await;
    scene.answers("tasks/get", r#""error":{"code":-32602,"message":"gone"}"#).await;
    let Step::End(Ok(answer)) = scene.driving.next().await else { panic!("no answer") };
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"q","error":{"code":-32602,"message":"gone"}}"#);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_is_the_end_of_the_call() {
    let mut scene = scene(60 * SECOND, 600 * SECOND).await;
    scene.answers("tools/call", &created("")).await;
    scene.until_sent().await;
    let (server, reason) = ("test".into(), crate::upstream::Reason::Exited);
    scene.pipe.close(CallError::Ended { server, reason, detail: None });
    let Step::End(Err(error)) = scene.driving.next().await else { panic!("it goes on") };
    assert!(matches!(error, CallError::Ended { .. }), "{error}");
}

/// A process that tasks end with, in the place of whatever there was.
fn starts(board: &Arc<Board>) -> (Arc<Pipe>, mpsc::Receiver<Bytes>) {
    let talk = TaskTalk::new(board.port.tasks.clone(), SessionKey::Shared, Uuid::now_v7());
    let dialogue = Dialogue::new(Scope::Everyone, testing::calls().dialogue()).with_tasks(talk);
    let (pipe, lines) = Pipe::new("test".into(), 8, Arc::new(dialogue));
    board.port.open(Link::Pipe(pipe.clone()));
    (pipe, lines)
}

#[tokio::test(start_paused = true)]
async fn what_a_process_was_at_work_on_is_never_asked_of_the_one_after_it() {
    let mut scene = scene(60 * SECOND, 600 * SECOND).await;
    (scene.pipe, scene.lines) = starts(&scene.board);
    let (session, principal) = ("s".into(), &Principal::Anonymous);
    let capabilities = ClientCapabilities::ALL;
    let caller = Caller { session: &session, principal, capabilities, log_level: None };
    let call = frame(r#"{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{"name":"t"}}"#);
    let cancel = CancellationToken::new();
    let begun = Driving::begin(scene.board.clone(), call, Vec::new(), &caller, cancel).await;
    scene.driving = begun.unwrap();
    scene.answers("tools/call", &created("")).await;
    scene.answers("tasks/get", &got("working")).await;

    // Between two questions it ends, and another begins, which may give the same id to another's task.
    let reason = crate::upstream::Reason::Exited;
    let (_pipe, mut lines) = starts(&scene.board);
    scene.pipe.close(CallError::Ended {
        server: "test".into(),
        reason,
        detail: Some("code 3".into()),
    });
    let Step::End(Err(error)) = scene.driving.next().await else { panic!("no end") };
    let CallError::Ended { detail, .. } = &error else { panic!("{error}") };
    assert_eq!(detail.as_deref(), Some("code 3"));
    assert!(lines.try_recv().is_err(), "the next process is asked");
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_rest_between_two_questions_after_a_task() {
    use crate::upstream::{
        Reason,
        outlook::{Absence, Outlook},
        status::StateWord,
    };

    let mut scene = scene(60 * SECOND, 600 * SECOND).await;
    let resting = || {
        let (state, reason) = (StateWord::Stopped, Reason::Idle);
        Outlook::Resting(Absence { state, reason, detail: None, failed_by: None })
    };
    scene.answers("tools/call", &created("")).await;
    scene.answers("tasks/get", &got("working")).await;
    drop(tokio::time::timeout(SECOND / 10, scene.driving.next()).await);
    assert!(!scene.board.port.rest(resting()), "it is at work");
    scene.answers("tasks/get", &got("completed")).await;
    let (id, _result) = scene.until_sent().await;
    assert!(!scene.board.port.rest(resting()), "its result is waited for");
    scene.says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    let Step::End(Ok(_)) = scene.driving.next().await else { panic!("no end") };
    drop(scene.driving);
    assert!(scene.board.port.rest(resting()), "nobody needs it");
}
