//! A Streamable HTTP upstream inside the test, with knobs: it can forget its sessions, push changes,
//! refuse, be slow, and it remembers everything that it was sent.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpResponseBuilder, HttpServer,
    dev::ServerHandle,
    http::{Method, StatusCode},
    rt, web,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use super::knobs::{Answers, Bearers, Cuts, Knobs, may_enter};
use super::remote_tasks::RemoteTasks;

/// One HTTP request that came in.
#[derive(Clone, Debug)]
pub struct Seen {
    pub http: String,
    pub headers: Vec<(String, String)>,
    pub at: Instant,
    /// The JSON of the body; `Null` where there is none.
    pub body: Value,
}

#[derive(Debug)]
pub struct Remote {
    pub url: String,
    state: Arc<State>,
    handle: ServerHandle,
}

#[derive(Debug)]
struct State {
    knobs: Mutex<Knobs>,
    seen: Mutex<Vec<Seen>>,
    sessions: Mutex<BTreeSet<String>>,
    streams: Mutex<Vec<mpsc::UnboundedSender<Bytes>>>,
    /// What was said on streams that have ids.
    said: Mutex<Vec<Bytes>>,
    minted: Mutex<u64>,
    tasks: RemoteTasks,
    /// Answers whose stream was closed: the event after which each comes, how often it is still
    /// closed, and the answer.
    owed: Mutex<Vec<(String, usize, String)>>,
}

impl Seen {
    pub fn of(request: &HttpRequest, body: &[u8]) -> Seen {
        let headers = request.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or("?").to_owned()));
        Seen {
            http: request.method().to_string(),
            headers: headers.collect(),
            at: Instant::now(),
            body: serde_json::from_slice(body).unwrap_or(Value::Null),
        }
    }

    pub fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Remote {
    /// Listens on a free port of loopback, in a thread of its own.
    pub fn start(knobs: Knobs) -> Remote {
        Remote::start_on(0, knobs)
    }

    /// Listens on this port of loopback.
    pub fn start_on(port: u16, knobs: Knobs) -> Remote {
        let state = Arc::new(State {
            knobs: Mutex::new(knobs),
            seen: Mutex::default(),
            sessions: Mutex::default(),
            streams: Mutex::default(),
            said: Mutex::default(),
            minted: Mutex::default(),
            tasks: RemoteTasks::default(),
            owed: Mutex::default(),
        });
        let shared = web::Data::from(Arc::clone(&state));
        let (port, handle) = listen(port, move |config| {
            let limit = web::PayloadConfig::new(16 << 20);
            config.app_data(shared.clone()).app_data(limit).default_service(web::to(serve));
        });
        Remote { url: format!("http://127.0.0.1:{port}/mcp"), state, handle }
    }

    pub fn turn(&self, how: impl FnOnce(&mut Knobs)) {
        how(&mut lock(&self.state.knobs));
    }

    /// Answers 404 to every session that exists now.
    pub fn forget_sessions(&self) {
        lock(&self.state.sessions).clear();
    }

    /// Ends every open stream.
    pub fn cut_streams(&self) {
        lock(&self.state.streams).clear();
    }

    /// Answers 400 to every resumption of a stream that was cut so far; how many those are.
    pub fn forget_owed(&self) -> usize {
        lock(&self.state.owed).drain(..).count()
    }

    pub fn tasks(&self) -> &RemoteTasks {
        &self.state.tasks
    }

    pub fn sessions(&self) -> usize {
        lock(&self.state.sessions).len()
    }

    /// Everything that came in so far.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// What came in so far with this JSON-RPC method.
    pub fn seen_of(&self, method: &str) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.method() == method).collect()
    }

    /// How many requests came in so far with this HTTP method.
    pub fn count(&self, http: &str) -> usize {
        self.seen().iter().filter(|seen| seen.http == http).count()
    }

    /// Answers 400 to every resumption of a standing stream.
    pub fn forget_said(&self) {
        lock(&self.state.said).clear();
    }

    /// Sends a notification on every open stream; how many took it.
    pub fn push(&self, method: &str) -> usize {
        self.push_message(&json!({"jsonrpc": "2.0", "method": method}))
    }

    /// Sends a message on every open stream; how many took it.
    pub fn push_message(&self, message: &Value) -> usize {
        let mut event = event(message);
        let knobs = lock(&self.state.knobs).clone();
        if knobs.stream_ids_alike {
            event = [b"id: alike\n", &event[..]].concat().into();
        }
        if knobs.stream_ids {
            let mut said = lock(&self.state.said);
            event = [format!("id: said-{}\n", said.len() + 1).as_bytes(), &event].concat().into();
            said.push(event.clone());
        }
        let mut streams = lock(&self.state.streams);
        streams.retain(|stream| stream.send(event.clone()).is_ok());
        streams.len()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The server's thread ends by itself once this is sent; nobody has to wait for it.
        drop(self.handle.stop(false));
    }
}

/// Serves on this port of loopback, or on a free one for 0, in a thread of its own.
pub fn listen(
    port: u16,
    configure: impl Fn(&mut web::ServiceConfig) + Clone + Send + 'static,
) -> (u16, ServerHandle) {
    let (told, tell) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        rt::System::new().block_on(async move {
            let app = move || App::new().configure(configure.clone());
            let server = HttpServer::new(app).workers(1).disable_signals().shutdown_timeout(0);
            let server = server.bind(("127.0.0.1", port)).expect("a free port");
            let port = server.addrs()[0].port();
            let server = server.run();
            told.send((port, server.handle())).expect("the test waits");
            server.await.expect("the upstream serves");
        });
    });
    tell.recv().expect("the upstream starts")
}

async fn serve(request: HttpRequest, body: Bytes, state: web::Data<State>) -> HttpResponse {
    let knobs = lock(&state.knobs).clone();
    let seen = Seen::of(&request, &body);
    let message = seen.body.clone();
    let authorized = may_enter(&seen, knobs.bearer.as_ref(), knobs.bearers.as_ref());
    let session = seen.header("mcp-session-id").map(str::to_owned);
    let last_event = seen.header("last-event-id").map(str::to_owned);
    let spoken = seen.header("mcp-protocol-version").map(str::to_owned);
    lock(&state.seen).push(seen);
    if !authorized {
        return HttpResponse::Unauthorized().finish();
    }
    if message["method"] == "initialize" {
        let hello = initialize(&message, &state, &knobs);
        tokio::time::sleep(knobs.hello_delay).await;
        return hello;
    }
    let Some(session) = session else { return HttpResponse::BadRequest().body("no session id") };
    if !lock(&state.sessions).contains(&session) {
        let (status, body) = knobs.forgotten;
        return HttpResponse::build(status_of(status)).body(body);
    }
    if knobs.refuses_all || knobs.version.is_some_and(|version| spoken.as_deref() != Some(version))
    {
        // In the words of the TypeScript SDK.
        let words = "Bad Request: Unsupported protocol version (supported versions: others)";
        let error = json!({"code": -32000, "message": words});
        let body = json!({"jsonrpc": "2.0", "error": error, "id": null});
        return HttpResponse::BadRequest().content_type("application/json").body(body.to_string());
    }
    if *request.method() == Method::GET {
        tokio::time::sleep(knobs.stream_delay).await;
    }
    match *request.method() {
        Method::GET if knobs.stream_refusal.is_some() => {
            let (status, words) = knobs.stream_refusal.unwrap_or_default();
            let challenge = ("www-authenticate", "Bearer error=\"invalid_token\"");
            let mut refusal = HttpResponse::build(status_of(status));
            if status == 401 {
                refusal.insert_header(challenge);
            }
            refusal.body(words)
        }
        Method::GET if knobs.stream_ids_alike => standing_stream(&state),
        Method::GET if knobs.stream_ids && last_event.is_some() => {
            said_after(&state, &last_event.unwrap_or_default())
        }
        Method::GET if last_event.is_some() => {
            resumed(&state, &knobs, &last_event.unwrap_or_default())
        }
        Method::GET if knobs.streams => standing_stream(&state),
        Method::DELETE => {
            lock(&state.sessions).remove(&session);
            HttpResponse::NoContent().finish()
        }
        Method::POST if message.get("id").is_none() || message.get("method").is_none() => {
            HttpResponse::build(status_of(knobs.noted)).finish()
        }
        Method::POST if message["method"] == "tools/call" && knobs.trouble.is_some() => {
            let (status, after) = knobs.trouble.unwrap_or_default();
            let mut refusal = HttpResponse::build(status_of(status));
            after.map(|seconds| refusal.insert_header(("retry-after", seconds.to_string())));
            refusal.finish()
        }
        Method::POST => answer(&message, &knobs, &state).await,
        _ => HttpResponse::MethodNotAllowed().finish(),
    }
}

fn initialize(message: &Value, state: &State, knobs: &Knobs) -> HttpResponse {
    let session = {
        let mut minted = lock(&state.minted);
        *minted += 1;
        format!("upstream-session-{minted}")
    };
    lock(&state.sessions).insert(session.clone());
    let mut capabilities = json!({"tools": {"listChanged": true}});
    if knobs.resources {
        capabilities["resources"] = json!({"subscribe": true});
    }
    if knobs.tasks {
        capabilities["tasks"] = json!({"requests": {"tools": {"call": {}}}});
    }
    let result = json!({
        "protocolVersion": knobs.version.map_or(message["params"]["protocolVersion"].clone(), Value::from),
        "capabilities": capabilities,
        "serverInfo": {"name": "remote", "version": "1"},
    });
    let message = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    let mut response = HttpResponse::Ok();
    response.insert_header(("mcp-session-id", session));
    knobs.answers.write(response, &[message])
}

/// Tools: `echo {value, delay_ms}`, `steps {count}` with progress where answers are streams; any
/// other tool of the list says its own name.
async fn answer(message: &Value, knobs: &Knobs, state: &State) -> HttpResponse {
    let mut messages = progress(&message["params"]);
    let method = message["method"].as_str().unwrap_or_default();
    let response = match method.strip_prefix("resources/").filter(|_| knobs.resources) {
        Some(what) => {
            let resource = |uri| json!({"uri": uri, "name": uri});
            let result = match what {
                "list" => json!({"resources": [resource("u://a"), resource("u://b")]}),
                "templates/list" => json!({"resourceTemplates": []}),
                _ => json!({}),
            };
            json!({"jsonrpc": "2.0", "id": message["id"], "result": result})
        }
        None if knobs.tasks => match state.tasks.answer(message).await {
            Some(answer) => answer,
            None => state.tasks.join(response(message, &knobs.tools, knobs.list_delay).await),
        },
        None => response(message, &knobs.tools, knobs.list_delay).await,
    };
    if let Some(cuts) = knobs.cuts.filter(|_| message["method"] == "tools/call") {
        return cut(state, cuts, cuts.times, response.to_string());
    }
    messages.push(response);
    knobs.answers.write(HttpResponse::Ok(), &messages)
}

pub async fn response(message: &Value, tools: &[String], list_delay: Duration) -> Value {
    let id = &message["id"];
    let params = &message["params"];
    let result = match message["method"].as_str().unwrap_or_default() {
        "ping" => json!({}),
        "tools/list" => {
            tokio::time::sleep(list_delay).await;
            let tool = |name| json!({"name": name, "inputSchema": {"type": "object"}});
            json!({"tools": tools.iter().map(tool).collect::<Vec<_>>()})
        }
        "tools/call" if params["name"] == "refused" => {
            let error = json!({"code": -32602, "message": "refused without an id"});
            return json!({"jsonrpc": "2.0", "id": null, "error": error});
        }
        "tools/call" => {
            let arguments = &params["arguments"];
            let delay = arguments["delay_ms"].as_u64().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(delay)).await;
            let text = match params["name"].as_str().unwrap_or_default() {
                "echo" => arguments["value"].as_str().unwrap_or_default(),
                other => other,
            };
            json!({"content": [{"type": "text", "text": text}]})
        }
        _ => {
            let error = json!({"code": -32601, "message": "unknown method"});
            return json!({"jsonrpc": "2.0", "id": id, "error": error});
        }
    };
    json!({"jsonrpc": "2.0", "id": id, "result": result})
}

/// A stream that ends after its priming event, `times` to go.
fn cut(state: &State, cuts: Cuts, times: usize, answer: String) -> HttpResponse {
    let mut owed = lock(&state.owed);
    let id = format!("event-{}", owed.len());
    owed.push((id.clone(), times.saturating_sub(1), answer));
    let retry = cuts.retry.map(|retry| format!("retry: {retry}\n")).unwrap_or_default();
    let id = if cuts.ids { format!("id: {id}\n") } else { String::new() };
    HttpResponse::Ok().content_type("text/event-stream").body(format!("{id}{retry}data: \n\n"))
}

/// What comes after this event: the answer, or the next cut.
fn resumed(state: &State, knobs: &Knobs, last_event: &str) -> HttpResponse {
    let found = lock(&state.owed).iter().find(|(id, _, _)| id == last_event).cloned();
    match (found, knobs.cuts) {
        (Some((_, times @ 1.., answer)), Some(cuts)) => cut(state, cuts, times, answer),
        (Some((_, _, answer)), _) => HttpResponse::Ok()
            .content_type("text/event-stream")
            .body(format!("id: last\ndata: {answer}\n\n")),
        (None, _) => HttpResponse::BadRequest().body("no such event"),
    }
}

/// The progress that `steps` reports.
pub fn progress(params: &Value) -> Vec<Value> {
    let token = &params["_meta"]["progressToken"];
    if params["name"] != "steps" || token.is_null() {
        return Vec::new();
    }
    let count = params["arguments"]["count"].as_u64().unwrap_or(1);
    (1..=count)
        .map(|step| {
            let params = json!({"progressToken": token, "progress": step, "total": count});
            json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
        })
        .collect()
}

impl Answers {
    /// What is said before the answer is left out where only one message can be said.
    fn write(self, mut response: HttpResponseBuilder, messages: &[Value]) -> HttpResponse {
        let last = messages.last().expect("an answer");
        let each = |write: fn(&Value) -> String| messages.iter().map(write).collect::<String>();
        match self {
            Answers::Json => response.content_type("application/json").body(last.to_string()),
            Answers::Bare => {
                let mut response = response.body(last.to_string());
                response.headers_mut().remove("content-type");
                response
            }
            Answers::Charset => response
                .content_type("Application/JSON; charset=UTF-8")
                .body(format!("{last:#}\r\n")),
            Answers::Documents => response
                .content_type("application/json")
                .body(each(|message| format!("{message:#}\n"))),
            Answers::ChunkedDocuments => {
                let text = each(|message| format!("{message}\n"));
                let pieces: Vec<_> =
                    text.into_bytes().chunks(7).map(Bytes::copy_from_slice).collect();
                let pieces = pieces.into_iter().map(Ok::<_, actix_web::Error>);
                response
                    .content_type("application/json")
                    .streaming(futures_util::stream::iter(pieces))
            }
            Answers::Sse => response
                .content_type("text/event-stream")
                .body(each(|message| format!("event: message\ndata: {message}\n\n"))),
            Answers::OddSse => response.content_type("Text/Event-Stream; charset=utf-8").body(
                "\u{feff}: hello\r\n\r\nevent: ping\r\ndata: {}\r\n\r\nid: 7\r\n\r\n".to_owned()
                    + &each(|message| format!(": so\r\ndata:{message}\r\nretry: 9\r\n\r\n")),
            ),
        }
    }
}

fn standing_stream(state: &State) -> HttpResponse {
    let (sender, receiver) = mpsc::unbounded_channel();
    // Something at once, so that whoever opened the stream knows that it is open.
    drop(sender.send(Bytes::from_static(b": open\n\n")));
    lock(&state.streams).push(sender);
    stream_of(receiver)
}

/// What was said from this event on, which is one too early, and what will be said.
fn said_after(state: &State, last_event: &str) -> HttpResponse {
    let said = lock(&state.said).clone();
    let last = last_event.strip_prefix("said-").and_then(|number| number.parse::<usize>().ok());
    let Some(last) = last.filter(|last| (1..=said.len()).contains(last)) else {
        return HttpResponse::BadRequest().body("no such event");
    };
    let (sender, receiver) = mpsc::unbounded_channel();
    for event in &said[last - 1..] {
        drop(sender.send(event.clone()));
    }
    lock(&state.streams).push(sender);
    stream_of(receiver)
}

/// A stream of what is sent.
pub fn stream_of(receiver: mpsc::UnboundedReceiver<Bytes>) -> HttpResponse {
    let body = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, actix_web::Error>(chunk), receiver))
    });
    HttpResponse::Ok().content_type("text/event-stream").streaming(body)
}

fn event(message: &Value) -> Bytes {
    Bytes::from(format!("data: {message}\n\n"))
}

pub fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
