//! The admin API as HTTP, over a real store and a real fleet whose workers only pretend: a server
//! named `broken…` ends at once, every other is ready and offers the tools `a` and `b`; and one named
//! `full…` prompts and resources too.

#![allow(clippy::unwrap_used)]

mod authorisation;
mod bulk;
mod config;
mod curation;
mod entrances;
mod errors;
mod events;
mod items;
mod lists;
mod logs;
mod namespaces;
mod refresh;
mod servers;
mod sessions;

use std::{rc::Rc, time::Duration};

use actix::Actor;
use actix_web::{
    App, Error,
    body::{BoxBody, to_bytes},
    dev::{Service, ServiceResponse},
    http::{Method, header::HeaderMap},
    test::{self, TestRequest},
};
use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{FutureExt, future::LocalBoxFuture};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::{
    catalogue::{item::Item, kind::Kind},
    conductor::{Defaults, Logbook, Parts, Witness, runtime::Values},
    fleet::{Fleet, Roster},
    identity::{keys::KeyText, vault::Vault},
    logs::LogOptions,
    namespace::NamespaceOptions,
    session::{ReplayOptions, SessionOptions, Sessions, TaskIds},
    store::{DatabaseOptions, Journal, JournalOptions, testing},
    upstream::{
        Exit, Reason,
        actor::{Launch, Post},
        lifecycle::Patience,
        link::Link,
        port::CallOptions,
        status::{ExitCode, Output},
        worker::News,
    },
};

const ADMIN_KEY: &str = "an-admin-key-of-more-than-32-characters";
/// What the clients of these tests agreed on.
const AGREED: crate::session::Agreed = crate::session::Agreed {
    version: "2025-11-25",
    capabilities: crate::wire::capabilities::ClientCapabilities::ALL,
    profile: crate::catalogue::profiles::Profile::Raw,
};
const SECOND: Duration = Duration::from_secs(1);
/// A test that waits longer has failed.
const SOON: Duration = Duration::from_secs(10);

type Call = Box<dyn Fn(TestRequest) -> LocalBoxFuture<'static, ServiceResponse<BoxBody>>>;

/// The API with everything below it.
struct House {
    state: Data<AdminState>,
    call: Call,
    _data_dir: TempDir,
}

/// An answer, read to its end.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl House {
    async fn new() -> House {
        House::with(false).await
    }

    async fn with(metrics_open: bool) -> House {
        let house = House::unread(metrics_open).await;
        house.state.conductor.reconcile().await.unwrap();
        house
    }

    /// As it is before the rows have been read.
    async fn unread(metrics_open: bool) -> House {
        let data_dir = tempfile::tempdir().unwrap();
        let store = testing::open(&DatabaseOptions::default(), data_dir.path()).await;
        let state = Data::new(AdminState {
            conductor: conductor(store, data_dir.path()),
            prometheus: PrometheusBuilder::new().build_recorder().handle(),
            metrics_open,
            public_url: "http://gateway.example".to_owned(),
            answer_timeout: SECOND * 20,
            heartbeat: Duration::from_millis(50),
            refresh_wait: SECOND / 2,
            stopping: CancellationToken::new(),
        });
        let configured = state.clone();
        let app = App::new().configure(move |config| configure(config, configured));
        let app = Rc::new(test::init_service(app).await);
        let call: Call = Box::new(move |request| {
            let app = app.clone();
            async move {
                let answer: Result<_, Error> = app.call(request.to_request()).await;
                answer.unwrap().map_into_boxed_body()
            }
            .boxed_local()
        });
        House { state, call, _data_dir: data_dir }
    }

    async fn send(&self, request: TestRequest) -> Answer {
        let answer = (self.call)(request).await;
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, body: to_bytes(answer.into_body()).await.ok().unwrap() }
    }

    /// A request of the operator below `/api/v1/`.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = operator(method, path);
        if let Some(body) = body {
            request = request.set_json(body);
        }
        let answer = self.send(request).await;
        (answer.status, answer.json())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    async fn create(&self, path: &str, body: Value) -> Value {
        let (status, row) = self.ask(Method::POST, path, Some(body)).await;
        assert_eq!(status, 201, "POST {path}: {row}");
        row
    }

    async fn change(&self, path: &str, body: Value) -> Value {
        let (status, row) = self.ask(Method::PATCH, path, Some(body)).await;
        assert_eq!(status, 200, "PATCH {path}: {row}");
        row
    }

    async fn remove(&self, path: &str) {
        let (status, body) = self.ask(Method::DELETE, path, None).await;
        assert_eq!((status, body), (204, Value::Null), "DELETE {path}");
    }

    /// Makes a server that pretends.
    async fn server(&self, name: &str) -> Value {
        self.create("mcp-servers", json!({"name": name, "type": "STDIO", "command": "x"})).await
    }

    /// What is answered where something is refused: the status, the code, and the fields to blame.
    async fn refused(&self, method: Method, path: &str, body: Value) -> (u16, String, Vec<String>) {
        let (status, answer) = self.ask(method, path, Some(body)).await;
        assert!(answer["message"].is_string(), "{path}: {status} {answer}");
        let details = answer["details"].as_array().unwrap();
        let fields = details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned());
        (status, answer["code"].as_str().unwrap().to_owned(), fields.collect())
    }

    /// Reads a path until it looks as wanted.
    async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let look = async {
            loop {
                let seen = self.get(path).await;
                if wanted(&seen) {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, look).await.unwrap()
    }

    async fn close_database(&self) {
        self.state.conductor.store.clone().close().await.unwrap();
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn operator(method: Method, path: &str) -> TestRequest {
    anybody(method, &format!("/api/v1/{path}"))
        .insert_header(("authorization", format!("Bearer {ADMIN_KEY}")))
}

fn anybody(method: Method, path: &str) -> TestRequest {
    TestRequest::default().method(method).uri(path)
}

fn conductor(store: Store, data_dir: &std::path::Path) -> Arc<Conductor> {
    let sealer = Vault::open(data_dir).unwrap().sealer(crate::session::PURPOSE).unwrap();
    let journal = Journal::start(store.clone(), JournalOptions::default(), None);
    let logs = LogOptions {
        entries_max: 1_000,
        bytes_max: 1 << 20,
        per_source_max: 100,
        message_max: 1_000,
        burst: 50,
        rate: 1,
        buffer: 4,
        persist: true,
    };
    let logbook = Logbook::new(logs, journal.clone(), Vec::new());
    let witness = Witness::new(journal.clone(), 4, logbook);
    let patience = Patience {
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(1),
        failures_burst: 1,
        burst_window: SECOND,
        failures_slow: 1,
        slow_window: SECOND,
        panics_burst: 2,
        failures_flapping: 5,
        probe_every: 3600 * SECOND,
        probe_every_max: 3600 * SECOND,
        steady_after: SECOND,
    };
    let calls = CallOptions {
        timeout: SECOND,
        total: SECOND,
        reset_on_progress: true,
        admin_url: Arc::default(),
        in_flight_max: 1,
        waiting_max: 8,
        queue_wait: SECOND,
        ready_wait: SECOND,
        wake_wait: SECOND,
        breaker: crate::upstream::testing::breaker(),
        retries: crate::upstream::testing::retries(),
        strikes: crate::upstream::testing::strikes(),
        events_max: 1,
        queue_max: 1,
        doubt: Duration::from_secs(1),
        elicitations_max: 1,
        tasks: crate::upstream::testing::tasks(),
    };
    let roster = Roster::default();
    let launch: Launch = Rc::new(|post| pretend(post).boxed_local());
    let shared = Arc::new(ArcSwap::from_pointee(patience.clone()));
    let fleet = Fleet::new(shared.clone(), calls, launch, witness.clone(), roster.clone());
    let sessions = SessionOptions {
        idle: SECOND,
        lifetime: SECOND,
        per_principal_max: 16,
        total_max: 16,
        in_flight_max: 8,
        in_flight_per_principal_max: 99,
        streams_per_principal_max: 99,
        subscriptions_max: 4,
        heartbeat: SECOND,
        stream_buffer: 1,
        stream_bytes_max: 9_999,
        revival: false,
        tombstones_max: 1,
        ahead_max: Duration::from_secs(60),
        batch_max: 1,
        replay: ReplayOptions {
            events_max: 1,
            streams_max: 1,
            bytes_max: 1,
            total_bytes_max: 1,
            window: SECOND,
            retry: SECOND,
            retry_spread: Duration::ZERO,
        },
        questions_max: 1,
        question_timeout: Duration::from_secs(1),
        away_max: Duration::from_secs(1),
    };
    let conductor = Conductor::new(Parts {
        store,
        journal,
        roster,
        fleet: fleet.start(),
        patience: shared,
        sessions: Arc::new(Sessions::new(sessions, sealer.clone(), [], Box::new(|_| {}))),
        task_ids: TaskIds::new(sealer),
        witness: witness.clone(),
        settings_key: Some(KeyText::chosen(ADMIN_KEY.to_owned()).unwrap()),
        defaults: Defaults {
            connect_timeout: SECOND,
            prefetch_timeout: SECOND,
            values: Values {
                disable_basic_auth: false,
                disable_signup: false,
                disable_sso_signup: false,
                max_attempts: patience.attempts(),
                call_total: 10 * SECOND,
                reset_on_progress: true,
                call_timeout: SECOND,
                session_lifetime: SECOND,
            },
            patience,
        },
        began: time::OffsetDateTime::now_utc(),
        namespace_options: NamespaceOptions {
            names_max: 48,
            first_wait: SECOND,
            debounce: SECOND / 1000,
            unknown_rest: SECOND,
            instructions_max: 1_000,
            links_max: 8,
            schema_max: 262_144,
        },
    });
    witness.meet(&conductor);
    conductor
}

async fn pretend(post: Post) -> Exit {
    if post.board.spec().name.starts_with("broken") {
        post.board.wrote(Output::Stderr, "out of order");
        let code = Some(ExitCode { code: Some(3), signal: None });
        return Exit { code, ..Exit::new(Reason::Exited, "it ended with the code 3") };
    }
    let (pipe, _outbox) = crate::upstream::testing::pipe(1);
    let lists = |kind: Kind, keys: &[&str]| {
        let field = kind.key_field();
        let item = |key: &&str| {
            let text = match kind {
                Kind::Tool => format!(r#"{{"{field}":"{key}","inputSchema":{{}}}}"#),
                _ => format!(r#"{{"{field}":"{key}","title":"T {key}"}}"#),
            };
            Item::parse(kind, text.into()).unwrap()
        };
        let items = Arc::new(keys.iter().map(item).collect());
        (post.tell)(News::Listed { kind, items, dropped: Vec::new() });
    };
    (post.tell)(News::Running { pid: 4242 });
    lists(Kind::Tool, &["a", "b"]);
    let link = Link::Pipe(pipe);
    (post.tell)(News::Ready { link, version: "2025-11-25", instructions: Some("Do.".into()) });
    if post.board.spec().name.starts_with("full") {
        lists(Kind::Prompt, &["p"]);
        lists(Kind::Resource, &["u://a", "u://b"]);
        lists(Kind::Template, &["u://{x}"]);
    }
    let refresh = &post.board.refresh;
    loop {
        let wanted = Kind::ALL.map(|kind| {
            Box::pin(async move {
                refresh[kind].wanted().await;
                kind
            })
        });
        let kind = tokio::select! {
            () = post.stop.cancelled() => return Exit::of(Reason::Asked),
            (kind, ..) = futures_util::future::select_all(wanted) => kind,
        };
        refresh[kind].begin();
        match (post.board.spec().name.as_str(), kind) {
            ("silent", _) => {}
            ("failing", _) => (post.tell)(News::NotListed { kind, why: "it was refused".into() }),
            (_, Kind::Tool) => lists(kind, &["b", "c"]),
            (_, Kind::Prompt | Kind::Resource | Kind::Template) => lists(kind, &[]),
        }
    }
}
