//! Every way by which a secret goes in today, and what is then asked and broken.

use std::time::Duration;

use bytes::Bytes;
use evil_mcp::{Character, Fault, http::Server, value::Exit};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use http_body_util::BodyExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    Place,
    canary::{Canaries, in_url},
};
use crate::{
    Outcome, Plan,
    rig::{
        Client, Daemon, SOON,
        client::request,
        daemon::ADMIN_KEY,
        host,
        http::{Connection, headers},
        until,
    },
};

/// [`ADMIN_KEY`], as it is sent.
const BEARER: &str = "Bearer bars-admin-key-0123456789-abcdefghijklmnop";

/// How long a stream is listened to.
const LISTEN: Duration = Duration::from_millis(300);

/// Asks, and keeps every answer to be looked through.
struct Asking<'a> {
    port: u16,
    places: &'a mut Vec<Place>,
}

impl Asking<'_> {
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        named: &[(&'static str, &str)],
        body: impl Into<Bytes>,
    ) -> Outcome<(u16, Value)> {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        let accepted = HeaderValue::from_static("application/json, text/event-stream");
        headers.insert("accept", accepted);
        for (name, value) in named {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value)?);
        }
        let mut connection = Connection::new(self.port);
        let opened = connection.open(method.clone(), path, &headers, body.into());
        let (head, mut body) = tokio::time::timeout(SOON, opened).await??.into_parts();
        let (is_stream, mut all) = (is_stream(&head.headers), Vec::new());
        loop {
            // A stream has no end; whatever else has none is cut off late.
            let patience = if is_stream { LISTEN } else { SOON };
            match tokio::time::timeout(patience, body.frame()).await {
                Ok(Some(frame)) => {
                    all.extend_from_slice(frame?.data_ref().unwrap_or(&Bytes::new()))
                }
                Ok(None) | Err(_) => break,
            }
        }
        let value = serde_json::from_slice(&all).unwrap_or(Value::Null);
        // The headers are part of what is said.
        all.extend_from_slice(format!("{:?}", head.headers).as_bytes());
        self.places.push(Place::new("answer", format!("{method} {path} {}", head.status), all));
        Ok((head.status.as_u16(), value))
    }

    async fn admin(&mut self, method: Method, path: &str, body: Value) -> Outcome<(u16, Value)> {
        let path = format!("/api/v1/{path}");
        let text = if body.is_null() { String::new() } else { body.to_string() };
        self.ask(method, &path, &as_admin(), text).await
    }

    /// What has to be taken.
    async fn make(&mut self, path: &str, body: Value) -> Outcome<()> {
        match self.admin(Method::POST, path, body).await? {
            (200..300, _) => Ok(()),
            (status, said) => Err(format!("{path}: {status} {said}").into()),
        }
    }
}

fn is_stream(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event"))
}

/// A server that answers everything with an error and the request that it had.
async fn parrot() -> Outcome<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut heard = vec![0; 16 << 10];
            let Ok(count) = socket.read(&mut heard).await else { continue };
            let said = String::from_utf8_lossy(&heard[..count]).into_owned();
            let answer = format!(
                "HTTP/1.1 500 Oops\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
                 connection: close\r\n\r\n{said}",
                said.len()
            );
            drop(socket.write_all(answer.as_bytes()).await);
        }
    });
    Ok(port)
}

pub async fn drive(
    plan: &Plan,
    daemon: &Daemon,
    canaries: &mut Canaries,
    places: &mut Vec<Place>,
) -> Outcome<()> {
    let mut asking = Asking { port: daemon.port, places };
    let remote = Server::start(Character::good())?;
    let (names, _closed) = make_servers(plan, &mut asking, canaries, &remote.url).await?;
    let mut admin = daemon.admin().await?;
    for ready in ["local", "other", "remote"] {
        admin.until_ready(ready).await?;
    }
    admin.publish("all", &["local", "other", "remote"]).await?;
    admin.change("endpoints/all", json!({"use_query_param_auth": true})).await?;
    import(&mut asking, canaries).await?;
    refused_changes(&mut asking, canaries).await?;

    let mut keys = Vec::new();
    for way in ["Authorization", "X-API-Key", "?api_key="] {
        let key = admin.key(way).await?;
        canaries.note(&format!("an API key, by {way}"), &key);
        keys.push(key);
    }
    clients(daemon, &mut asking, canaries, &keys).await?;
    until("the servers that fail to have failed", SOON, async || {
        let mut failed = true;
        for name in ["teller", "parrot", "closed"] {
            failed &= admin.server(name).await?["runtime"]["state"] != "STARTING";
        }
        Ok(failed.then_some(()))
    })
    .await?;
    host::signal(admin.pid_of("local").await?, Signal::KILL);
    drop(remote);
    let mut client = Client::connect(daemon, "all", &keys[0]).await?;
    for tool in ["local__echo", "remote__echo", "nobody__echo"] {
        // How it ends is of no matter, what is said of it is.
        let answer = client.request("tools/call", &json!({"name": tool, "arguments": {}})).await;
        let said = answer.map_or_else(|problem| problem.to_string(), |answer| answer.to_string());
        asking.places.push(Place::new("answer", format!("a call of {tool}"), said));
    }
    admin.until_ready("local").await?;
    everything_read(&mut asking, &names).await
}

/// Servers of all kinds, some of which fail in ways that would have them tell.
async fn make_servers(
    plan: &Plan,
    asking: &mut Asking<'_>,
    canaries: &mut Canaries,
    url: &str,
) -> Outcome<(Vec<&'static str>, Server)> {
    let mut own = |child: &str, count: usize, more: &[(&str, String)]| -> Value {
        let mut env = json!({"WHOSE": child});
        for number in 0..count {
            let way = format!("env of {child}");
            env[format!("SECRET_{number}")] = canaries.make_for(child, way).into();
        }
        for (name, value) in more {
            env[*name] = value.clone().into();
        }
        env
    };
    let references = [
        ("REFERENCE", "${CANARY_ENV}".to_owned()),
        ("IN_THE_MIDDLE", "user:${CANARY_MIDDLE}@host".to_owned()),
    ];
    let evil = |words: &Character| {
        let mut args = vec!["stdio".to_owned()];
        args.extend(words.words());
        args
    };
    let good = evil(&Character::good());
    let dying = evil(&Character::good().with(Fault::ExitNow(Exit::Code(7))));
    let tell = "echo \"the token is $SECRET_0\" >&2; echo \"{\\\"key\\\":\\\"$SECRET_1\\\"}\" >&2; \
                echo \"$SECRET_2\"; exit 3";
    let (local, other) = (own("local", 6, &references), own("other", 4, &[]));
    let (dies, tells) = (own("dying", 2, &[]), own("teller", 3, &[]));
    for row in [
        json!({"name": "local", "type": "STDIO", "command": plan.evil, "args": good, "env": local}),
        json!({"name": "other", "type": "STDIO", "command": plan.evil, "args": good, "env": other}),
        json!({"name": "dying", "type": "STDIO", "command": plan.evil, "args": dying, "env": dies}),
        json!({"name": "teller", "type": "STDIO", "command": "/bin/sh", "args": ["-c", tell],
            "env": tells}),
        json!({"name": "missing", "type": "STDIO", "command": "/there/is/no/such/program",
            "env": own("missing", 1, &[])}),
    ] {
        asking.make("mcp-servers", row).await?;
    }
    let parrot = parrot().await?;
    let closed = Server::start(Character::good().with(Fault::Closed(401)))?;
    for (name, kind, url) in [
        ("remote", "STREAMABLE_HTTP", format!("{url}?key=${{CANARY_URL}}")),
        ("parrot", "STREAMABLE_HTTP", format!("http://127.0.0.1:{parrot}/mcp?key=${{CANARY_URL}}")),
        ("closed", "STREAMABLE_HTTP", closed.url.clone()),
        ("absent", "SSE", "http://127.0.0.1:1/sse?key=${CANARY_URL}".to_owned()),
    ] {
        let token = match name {
            "absent" => "${CANARY_TOKEN}".to_owned(),
            _ => canaries.make(format!("bearer_token of {name}")),
        };
        let headers = json!({
            "X-Secret": canaries.make(format!("a header of {name}")),
            "X-Other": canaries.make(format!("another header of {name}")),
            "X-Reference": "key ${CANARY_HEADER}",
        });
        let row = json!({"name": name, "type": kind, "url": url, "bearer_token": token,
            "headers": headers});
        asking.make("mcp-servers", row).await?;
    }
    let names = vec![
        "local", "other", "dying", "teller", "missing", "remote", "parrot", "closed", "absent",
    ];
    Ok((names, closed))
}

/// A file of another client, with what it knows; in part good, in part not.
async fn import(asking: &mut Asking<'_>, canaries: &mut Canaries) -> Outcome<()> {
    let mut make = |way: &str| canaries.make(format!("import: {way}"));
    let file = json!({"mcpServers": {
        "from file": {"command": "/there/is/none", "args": ["x"], "env": {"KEY": make("env"),
            "REFERENCE": "${CANARY_IMPORT}"}},
        "from afar": {"type": "http", "url": "http://127.0.0.1:1/mcp",
            "headers": {"Authorization": format!("Bearer {}", make("Authorization"))}},
        "bad kind": {"type": 7, "url": "http://127.0.0.1:1/mcp", "headers": {"X-Key": make("failed")}},
        "bad url": {"url": "no url at all", "headers": {"X-Key": make("failed, too")}},
        "bad env": {"command": "x", "env": [make("a list for a map")]},
    }});
    for path in ["import?dry_run=true", "import"] {
        asking.admin(Method::POST, path, file.clone()).await?;
    }
    let half = format!("{{\"mcpServers\": {{\"x\": {{\"env\": {{\"KEY\": \"{}\"", make("no JSON"));
    asking.ask(Method::POST, "/api/v1/import", &as_admin(), half).await?;
    Ok(())
}

/// Changes of secrets, of which most are not taken.
async fn refused_changes(asking: &mut Asking<'_>, canaries: &mut Canaries) -> Outcome<()> {
    let mut make = |way: &str| canaries.make(format!("change: {way}"));
    for (path, body) in [
        ("mcp-servers/closed", json!({"bearer_token": make("a token that is taken")})),
        ("mcp-servers/closed", json!({"bearer_token": [make("a list for a token")]})),
        (
            "mcp-servers/closed",
            json!({"headers": {"X-Key": format!("{}\n", make("a line's end"))}}),
        ),
        ("mcp-servers/closed", json!({"headers": make("a text for a map")})),
        ("mcp-servers/closed", json!({"headers": {"no header": make("no name of a header")}})),
        ("mcp-servers/other", json!({"env": {"NO=NAME": make("no name of a variable")}})),
        ("mcp-servers/other", json!({"env": make("a text for an environment")})),
        ("mcp-servers/other", json!({"password": make("an unknown field")})),
        ("mcp-servers/other", json!({"bearer_token": make("a token for a child")})),
        ("mcp-servers/nobody", json!({"bearer_token": make("nobody's token")})),
    ] {
        asking.admin(Method::PATCH, path, body).await?;
    }
    let half = format!("{{\"name\": \"x\", \"bearer_token\": \"{}\"", make("no JSON"));
    asking.ask(Method::POST, "/api/v1/mcp-servers", &as_admin(), half).await?;
    Ok(())
}

/// Clients with good keys and with others, by every way that a key can come.
async fn clients(
    daemon: &Daemon,
    asking: &mut Asking<'_>,
    canaries: &mut Canaries,
    keys: &[String],
) -> Outcome<()> {
    let hello = request(
        1,
        "initialize",
        &json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "bars", "version": "1"}}),
    );
    let mut ways: Vec<(String, &'static str, String)> = vec![
        (String::new(), "authorization", format!("Bearer {}", keys[0])),
        (String::new(), "x-api-key", keys[1].clone()),
        (format!("?api_key={}", keys[2]), "x-nothing", "-".to_owned()),
    ];
    let mut make = |way: &str| canaries.make(format!("a stranger: {way}"));
    ways.extend([
        (String::new(), "authorization", format!("Bearer {}", make("Bearer"))),
        (String::new(), "authorization", format!("Basic {}", make("Basic"))),
        (String::new(), "authorization", make("no scheme")),
        (String::new(), "x-api-key", make("X-API-Key")),
        (format!("?api_key={}", in_url(&make("?api_key="))), "x-nothing", "-".to_owned()),
        (String::new(), "cookie", format!("session={}", make("Cookie"))),
        (String::new(), "mcp-session-id", make("Mcp-Session-Id")),
    ]);
    let targets = [
        "/metamcp/all/mcp",
        "/metamcp/all/sse",
        "/metamcp/nothing/mcp",
        "/metrics",
        "/api/v1/mcp-servers",
        "/nothing",
    ];
    for (query, name, value) in &ways {
        for path in targets {
            let path = format!("{path}{query}");
            let is_get = !path.contains("/mcp?") && !path.ends_with("/mcp");
            let method = if is_get { Method::GET } else { Method::POST };
            asking.ask(method, &path, &[(name, value)], hello.clone()).await?;
        }
    }
    // A whole session, with a call.
    let mut client = Client::connect(daemon, "all", &keys[0]).await?;
    for (method, params) in [
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "local__echo", "arguments": {"nonce": "n"}})),
        ("tools/call", json!({"name": "remote__echo", "arguments": {"nonce": "n"}})),
        ("resources/list", json!({})),
        ("prompts/list", json!({})),
    ] {
        let answer = client.request(method, &params).await?;
        asking.places.push(Place::new("answer", method, answer.to_string()));
    }
    Ok(())
}

/// Every path of the API that can be read, as its own description has them.
async fn everything_read(asking: &mut Asking<'_>, servers: &[&str]) -> Outcome<()> {
    let (_, described) = asking.ask(Method::GET, "/api/openapi.json", &as_admin(), "").await?;
    let paths = described["paths"].as_object().ok_or("the API does not describe itself")?;
    let readable = paths.iter().filter(|(_, methods)| methods.get("get").is_some());
    let mut read = 0;
    for (path, _) in readable {
        let ids: Vec<String> = match path.split('/').nth(3) {
            Some("mcp-servers") => servers.iter().map(|name| (*name).to_owned()).collect(),
            Some("namespaces" | "endpoints") => vec!["all".to_owned()],
            Some(list) if path.contains('{') => listed(asking, list).await?,
            _ => vec![String::new()],
        };
        let kinds = if path.contains("{kinds}") { vec!["prompts", "resources"] } else { vec![""] };
        for id in &ids {
            for kind in &kinds {
                let path = path.replace("{id}", id).replace("{key}", id).replace("{kinds}", kind);
                let is_of_many = !path.contains(id.as_str()) || id.is_empty();
                let query = if is_of_many && path.contains("/logs") { "?limit=500" } else { "" };
                asking.ask(Method::GET, &format!("{path}{query}"), &as_admin(), "").await?;
                read += 1;
            }
        }
    }
    if read < 30 {
        return Err(format!("only {read} paths could be read").into());
    }
    let mut listening = headers(ADMIN_KEY)?;
    listening.insert("accept", HeaderValue::from_static("text/event-stream"));
    let mut stream = Connection::new(asking.port);
    let mut body =
        stream.open(Method::GET, "/api/v1/logs", &listening, Bytes::new()).await?.into_body();
    let mut all = Vec::new();
    while let Ok(Some(frame)) = tokio::time::timeout(LISTEN, body.frame()).await {
        all.extend_from_slice(frame?.data_ref().unwrap_or(&Bytes::new()));
    }
    asking.places.push(Place::new("answer", "the stream of the log", all));
    Ok(())
}

fn as_admin() -> [(&'static str, &'static str); 1] {
    [("authorization", BEARER)]
}

/// The ids, or keys, of what a list has.
async fn listed(asking: &mut Asking<'_>, list: &str) -> Outcome<Vec<String>> {
    let (_, all) = asking.admin(Method::GET, list, Value::Null).await?;
    let items = all["items"].as_array().cloned().unwrap_or_default();
    let named = |item: &Value| {
        let name = item.get("uuid").or(item.get("key")).or(item.get("id"))?;
        name.as_str().map(str::to_owned)
    };
    Ok(items.iter().filter_map(named).take(5).collect())
}
