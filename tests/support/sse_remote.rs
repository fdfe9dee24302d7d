//! An HTTP+SSE upstream inside the test, with knobs: it can break its streams, forget who they are,
//! send its client elsewhere, and it remembers everything that it was sent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{HttpRequest, HttpResponse, dev::ServerHandle, http::Method, web};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::remote::{self, Bearers, Seen, lock};

/// What may be turned while the upstream runs.
#[derive(Clone, Debug)]
pub struct SseKnobs {
    /// The bearer token without which everything is refused.
    pub bearer: Option<String>,
    /// Those without one of which everything is refused.
    pub bearers: Option<Bearers>,
    /// Where messages go; `{id}` is the session. Nothing: the stream does not say.
    pub endpoint: Option<String>,
    /// The status of a POST that was taken.
    pub taken: u16,
    /// How long a POST waits for its status; the answer on the stream does not.
    pub taken_delay: Duration,
    /// How a session is answered that is not known (any more).
    pub forgotten: (u16, String),
    pub line_end: &'static str,
    pub names_events: bool,
    pub tools: Vec<String>,
}

impl Default for SseKnobs {
    fn default() -> SseKnobs {
        SseKnobs {
            bearer: None,
            bearers: None,
            endpoint: Some("/message?sessionId={id}".to_owned()),
            taken: 202,
            taken_delay: Duration::ZERO,
            forgotten: (404, "Could not find session".to_owned()),
            line_end: "\n",
            names_events: true,
            tools: ["echo", "steps"].map(str::to_owned).to_vec(),
        }
    }
}

#[derive(Debug)]
pub struct SseRemote {
    /// Where the stream is.
    pub url: String,
    state: Arc<State>,
    handle: ServerHandle,
}

type Stream = mpsc::UnboundedSender<Bytes>;

#[derive(Debug)]
struct State {
    knobs: Mutex<SseKnobs>,
    seen: Mutex<Vec<Seen>>,
    streams: Mutex<BTreeMap<String, Stream>>,
    /// Streams that are open and whose session is forgotten.
    nameless: Mutex<Vec<Stream>>,
    opened: Mutex<u64>,
}

impl SseRemote {
    /// Listens on a free port of loopback, in a thread of its own.
    pub fn start(knobs: SseKnobs) -> SseRemote {
        let state = Arc::new(State {
            knobs: Mutex::new(knobs),
            seen: Mutex::default(),
            streams: Mutex::default(),
            nameless: Mutex::default(),
            opened: Mutex::default(),
        });
        let shared = web::Data::from(Arc::clone(&state));
        let (port, handle) = remote::listen(0, move |config| {
            config.app_data(shared.clone()).default_service(web::to(serve));
        });
        SseRemote { url: format!("http://127.0.0.1:{port}/sse"), state, handle }
    }

    pub fn turn(&self, how: impl FnOnce(&mut SseKnobs)) {
        how(&mut lock(&self.state.knobs));
    }

    /// The streams that are open and whose client still reads.
    pub fn streams(&self) -> usize {
        let mut streams = lock(&self.state.streams);
        streams.retain(|_, stream| !stream.is_closed());
        streams.len()
    }

    /// How many streams were ever opened.
    pub fn opened(&self) -> u64 {
        *lock(&self.state.opened)
    }

    /// Ends every stream.
    pub fn break_streams(&self) {
        lock(&self.state.streams).clear();
    }

    /// Knows no session any more; the streams stay open.
    pub fn forget_sessions(&self) {
        let forgotten = std::mem::take(&mut *lock(&self.state.streams));
        lock(&self.state.nameless).extend(forgotten.into_values());
    }

    /// Says something on every stream; how many took it.
    pub fn push_message(&self, message: &Value) -> usize {
        let event = event(&lock(&self.state.knobs), message);
        let streams = lock(&self.state.streams);
        streams.values().filter(|stream| stream.send(event.clone()).is_ok()).count()
    }

    /// Everything that came in so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// What came in so far with this JSON-RPC method.
    pub fn seen_of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }
}

impl Drop for SseRemote {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

async fn serve(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let knobs = lock(&state.knobs).clone();
    let seen = Seen::of(&request, &body);
    let message = seen.body.clone();
    let authorized = remote::may_enter(&seen, knobs.bearer.as_ref(), knobs.bearers.as_ref());
    lock(&state.seen).push(seen);
    if !authorized {
        return HttpResponse::Unauthorized().finish();
    }
    match (request.method(), request.path()) {
        (&Method::GET, "/sse") => open(&state, &knobs),
        (&Method::POST, "/message") => take(&request, &message, &state, &knobs).await,
        _ => HttpResponse::MethodNotAllowed().finish(),
    }
}

fn open(state: &State, knobs: &SseKnobs) -> HttpResponse {
    let id = {
        let mut opened = lock(&state.opened);
        *opened += 1;
        format!("stream-{opened}")
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    let end = knobs.line_end;
    let first = match &knobs.endpoint {
        Some(endpoint) => {
            let place = endpoint.replace("{id}", &id);
            format!(": hello{end}event: endpoint{end}data: {place}{end}{end}")
        }
        None => format!(": hello{end}{end}"),
    };
    drop(sender.send(Bytes::from(first)));
    lock(&state.streams).insert(id, sender);
    remote::stream_of(receiver)
}

async fn take(
    request: &HttpRequest,
    message: &Value,
    state: &web::Data<State>,
    knobs: &SseKnobs,
) -> HttpResponse {
    let query = request.query_string();
    let id = query.split('&').find_map(|pair| pair.strip_prefix("sessionId=")).unwrap_or_default();
    if !lock(&state.streams).contains_key(id) {
        let (status, body) = knobs.forgotten.clone();
        return HttpResponse::build(remote::status_of(status)).body(body);
    }
    if message.get("id").is_some() && message.get("method").is_some() {
        let (message, knobs, state) = (message.clone(), knobs.clone(), state.clone());
        let id = id.to_owned();
        actix_web::rt::spawn(async move {
            for answer in answers(&message, &knobs).await {
                // Held by nobody else, so that it can be broken meanwhile.
                if let Some(stream) = lock(&state.streams).get(&id) {
                    drop(stream.send(event(&knobs, &answer)));
                }
            }
        });
    }
    tokio::time::sleep(knobs.taken_delay).await;
    HttpResponse::build(remote::status_of(knobs.taken)).finish()
}

/// What is said on the stream about a request: progress, and the answer.
async fn answers(message: &Value, knobs: &SseKnobs) -> Vec<Value> {
    let id = &message["id"];
    if message["method"] == "initialize" {
        let result = json!({
            "protocolVersion": "2024-11-05",
            "capabilities": {"tools": {"listChanged": true}},
            "serverInfo": {"name": "old", "version": "1"},
        });
        return vec![json!({"jsonrpc": "2.0", "id": id, "result": result})];
    }
    let mut said = remote::progress(&message["params"]);
    said.push(remote::response(message, &knobs.tools, Duration::ZERO).await);
    said
}

fn event(knobs: &SseKnobs, message: &Value) -> Bytes {
    let end = knobs.line_end;
    let name = if knobs.names_events { format!("event: message{end}") } else { String::new() };
    Bytes::from(format!(": so{end}{name}data: {message}{end}{end}"))
}
