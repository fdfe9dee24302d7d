//! The port, before a server that is played by the test; time is virtual.

#![allow(clippy::unwrap_used)]

use tokio::sync::mpsc;

use super::*;
use crate::{
    access::Principal,
    upstream::{dialogue::Aside, pipe::Pipe, testing},
    wire::capabilities::ClientCapabilities,
};

const SECOND: Duration = Duration::from_secs(1);

/// A port with a connection, and what its server is given to read.
struct Scene {
    port: Arc<Port>,
    pipe: Arc<Pipe>,
    lines: mpsc::Receiver<Bytes>,
}

fn scene() -> Scene {
    let port = closed_port();
    let (pipe, lines) = testing::pipe(8);
    port.open(Link::Pipe(pipe.clone()));
    Scene { port, pipe, lines }
}

fn closed_port() -> Arc<Port> {
    let options = CallOptions {
        timeout: 10 * SECOND,
        total: 30 * SECOND,
        reset_on_progress: true,
        in_flight_max: 2,
        queue_wait: SECOND,
        ready_wait: 5 * SECOND,
        ..testing::calls()
    };
    let limits =
        CallLimits { inactivity: 10 * SECOND, total: 30 * SECOND, reset_on_progress: true };
    let facts = Facts {
        name: "a".into(),
        isolation: Isolation::Shared,
        limits,
        concurrency_max: None,
        admin: "".into(),
    };
    Port::new(Uuid::nil(), facts, options, &testing::brakes())
}

fn frame(text: &str) -> Frame {
    Frame::parse(Bytes::copy_from_slice(text.as_bytes()), 32).unwrap()
}

fn request() -> Frame {
    frame(
        r#"{"jsonrpc":"2.0","id":"q","method":"tools/call","params":{"name":"a__t","_meta":{"progressToken":"tok"},"arguments":{}}}"#,
    )
}

fn caller(session: &Arc<str>) -> Caller<'_> {
    let capabilities = ClientCapabilities::ALL;
    Caller { session, principal: &Principal::Anonymous, capabilities, log_level: None }
}

async fn call(port: &Port, cancel: &CancellationToken) -> Result<Conversation, CallError> {
    let session = "s".into();
    let caller = caller(&session);
    let edits = vec![(request().name_span().unwrap(), br#""t""#[..].into())];
    port.call(request(), edits, &caller, cancel.clone()).await
}

impl Scene {
    async fn call(&self) -> Conversation {
        call(&self.port, &CancellationToken::new()).await.unwrap()
    }

    fn answers(&self, text: &str) {
        assert!(matches!(self.pipe.hear(frame(text)), Aside::Settled), "{text}");
    }
}

fn absence() -> Absence {
    Absence {
        state: StateWord::Crashed,
        reason: Reason::Exited,
        detail: Some("code 3".into()),
        failed_by: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_carries_our_id_and_token_out_and_the_clients_back() {
    let mut scene = scene();
    let mut conversation = scene.call().await;
    assert_eq!(
        scene.lines.recv().await.unwrap(),
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","_meta":{"progressToken":1},"arguments":{}}}"#
    );
    let progress = |value: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{value}}}}}"#
        )
    };
    // Progress that does not increase is against the protocol and is not passed on.
    for value in [5, 5, 4, 6] {
        scene.answers(&progress(value));
    }
    scene.answers(r#"{"jsonrpc":"2.0","id":1,"result":{"n":1.50}}"#);

    for value in ["5", "6"] {
        let Step::Event(event) = conversation.next().await else { panic!() };
        let event = String::from_utf8(event.to_vec()).unwrap();
        assert!(event.contains(r#""progressToken":"tok""#) && event.contains(value), "{event}");
    }
    let Step::End(Ok(answer)) = conversation.next().await else { panic!() };
    assert_eq!(answer, r#"{"jsonrpc":"2.0","id":"q","result":{"n":1.50}}"#);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_call_and_progress_keeps_it_until_its_total_time() {
    let mut scene = scene();
    let mut silent = scene.call().await;
    let Step::End(Err(CallError::Inactive { after, .. })) = silent.next().await else { panic!() };
    assert_eq!(after, 10 * SECOND);

    let began = Instant::now();
    let mut lively = scene.call().await;
    let mut value = 0;
    let error = loop {
        let step = tokio::time::timeout(8 * SECOND, lively.next()).await;
        match step {
            Ok(Step::End(Err(error))) => break error,
            Ok(Step::Event(_)) => {}
            Ok(Step::End(Ok(_)) | Step::Asked(_) | Step::Said(_)) => {
                panic!("nobody has answered")
            }
            Err(_elapsed) => {
                value += 1;
                scene.answers(&format!(
                    r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":2,"progress":{value}}}}}"#
                ));
            }
        }
    };
    assert!(matches!(error, CallError::TooLong { .. }), "{error}");
    assert_eq!(began.elapsed(), 30 * SECOND);

    let told: Vec<Bytes> = std::iter::from_fn(|| scene.lines.try_recv().ok()).collect();
    let cancelled: Vec<_> = told
        .iter()
        .map(|line| Frame::parse(line.clone(), 32).unwrap())
        .filter_map(|line| line.request_id().map(<[u8]>::to_vec))
        .collect();
    assert_eq!(cancelled, [b"1".to_vec(), b"2".to_vec()], "the server is told, by our own ids");
}

#[tokio::test(start_paused = true)]
async fn progress_keeps_no_call_where_it_is_told_not_to() {
    let scene = scene();
    let facts = |reset_on_progress| {
        let limits = CallLimits { inactivity: 10 * SECOND, total: 30 * SECOND, reset_on_progress };
        Facts {
            name: "a".into(),
            isolation: Isolation::Shared,
            limits,
            concurrency_max: None,
            admin: "".into(),
        }
    };
    scene.port.set_facts(facts(false));
    let began = Instant::now();
    let mut lively = scene.call().await;
    // A call goes by what held when it began.
    scene.port.set_facts(facts(true));
    tokio::time::sleep(8 * SECOND).await;
    scene.answers(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}"#,
    );
    assert!(matches!(lively.next().await, Step::Event(_)));
    let ended = lively.next().await;
    assert!(matches!(ended, Step::End(Err(CallError::Inactive { .. }))));
    assert_eq!(began.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_connection_gets_it_or_hears_why_not() {
    let port = closed_port();
    let cancel = CancellationToken::new();
    let (pipe, _lines) = testing::pipe(1);
    let (waiting, ()) = tokio::join!(call(&port, &cancel), async {
        tokio::time::sleep(SECOND).await;
        port.open(Link::Pipe(pipe));
    });
    assert!(waiting.is_ok());

    port.close(Outlook::Down(absence()));
    let began = Instant::now();
    let Err(CallError::Unavailable { state, detail, .. }) = call(&port, &cancel).await else {
        panic!()
    };
    assert_eq!((state, detail.as_deref()), (StateWord::Crashed, Some("code 3")));
    assert_eq!(began.elapsed(), Duration::ZERO);

    port.close(Outlook::Coming(absence()));
    assert!(matches!(call(&port, &cancel).await, Err(CallError::Unavailable { .. })));
    assert_eq!(began.elapsed(), 5 * SECOND);

    cancel.cancel();
    assert!(matches!(call(&port, &cancel).await, Err(CallError::Cancelled)));
}

#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_sent_goes_to_the_next_connection_and_nothing_else_does() {
    let scene = scene();
    let ended = CallError::Ended { server: "a".into(), reason: Reason::Exited, detail: None };
    let mut sent = scene.call().await;
    scene.pipe.close(ended.clone());
    let Step::End(Err(error)) = sent.next().await else { panic!() };
    assert_eq!(error, ended, "whether it did its work is unknown, so it is not sent again");

    let (unsent, next_lines) = tokio::join!(scene.call(), async {
        let (next, lines) = testing::pipe(8);
        tokio::time::sleep(SECOND).await;
        scene.port.open(Link::Pipe(next));
        lines
    });
    drop(unsent);
    assert_eq!(next_lines.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_limit_wait_their_turn_and_no_longer() {
    let scene = scene();
    let first = scene.call().await;
    let _second = scene.call().await;
    let cancel = CancellationToken::new();
    assert!(matches!(call(&scene.port, &cancel).await, Err(CallError::Busy { .. })));

    // A client that goes leaves its call with the server, which may still be at work.
    drop(first);
    assert!(matches!(call(&scene.port, &cancel).await, Err(CallError::Busy { .. })));
    scene.answers(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(call(&scene.port, &cancel).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_person_may_think_longer_than_an_upstream_may_be_silent() {
    let scene = scene();
    let began = Instant::now();
    let mut conversation = scene.call().await;
    tokio::time::sleep(3 * SECOND).await;
    scene.answers(r#"{"jsonrpc":"2.0","id":"ask","method":"elicitation/create","params":{}}"#);
    let Step::Asked(question) = conversation.next().await else { panic!() };
    let thinking = async {
        tokio::time::sleep(14 * SECOND).await;
        question.answer(&frame(r#"{"jsonrpc":"2.0","id":1,"result":{"action":"accept"}}"#));
    };
    let (step, ()) = tokio::join!(conversation.next(), thinking);
    let Step::End(Err(CallError::Inactive { .. })) = step else { panic!() };
    assert_eq!(began.elapsed(), (3 + 14 + 10) * SECOND, "it is silent from the answer on");
}

#[tokio::test(start_paused = true)]
async fn no_question_keeps_a_call_beyond_its_total_time() {
    let scene = scene();
    let began = Instant::now();
    let mut conversation = scene.call().await;
    scene.answers(r#"{"jsonrpc":"2.0","id":"ask","method":"elicitation/create","params":{}}"#);
    let Step::Asked(_question) = conversation.next().await else { panic!() };
    let Step::End(Err(CallError::TooLong { .. })) = conversation.next().await else { panic!() };
    assert_eq!(began.elapsed(), 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_level_that_is_asked_for_while_the_server_starts_is_told_once_it_is_up() {
    let local = tokio::task::LocalSet::new();
    let told = local.run_until(async {
        let port = closed_port();
        let session = "s".into();
        let (pipe, mut lines) = testing::pipe(8);
        pipe.set_has_logging(true);
        // Its handshake is over, and its tools are being listed.
        port.set_level(&caller(&session), Level::Debug).await;
        port.open(Link::Pipe(pipe));
        tokio::time::timeout(SECOND, lines.recv()).await
    });
    let told = told.await.expect("it is told nothing").unwrap();
    assert!(told.windows(16).any(|window| window == b"logging/setLevel"), "{told:?}");
}

#[tokio::test]
async fn a_call_of_an_upstream_that_needs_a_credential_says_at_once_where_it_is_given_one() {
    let port = closed_port();
    let (state, reason) = (StateWord::NeedsAuth, Reason::Unauthorized);
    port.close(Outlook::Down(Absence { state, reason, detail: None, failed_by: None }));
    let refused = call(&port, &CancellationToken::new()).await;
    let Err(error) = refused else { panic!("there is no connection") };
    let fault = error.fault();
    assert_eq!(fault.data.as_ref().map(|data| data.reason), Some("upstream_unauthorized"));
    let message = error.to_string();
    assert!(
        message.contains("PUT http://gateway.example/api/v1/mcp-servers/a/oauth-session"),
        "{message}"
    );
}
