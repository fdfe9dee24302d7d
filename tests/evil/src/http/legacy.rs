//! The legacy era over HTTP: sessions, their standing streams, and streams that are fetched later.

use std::{
    collections::HashMap, io, net::Shutdown, sync::atomic::Ordering, thread, time::Duration,
};

use serde_json::{Value, json};

use super::{Shared, line::Line, request::Request};
use crate::{
    fault::{Condition, Fault},
    script::encoded,
    stdio::paced,
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A client's session.
#[derive(Debug, Default)]
pub struct Session {
    calls: u64,
    /// Answers that wait to be fetched, by the number of their stream.
    kept: HashMap<u64, Vec<u8>>,
}

pub fn serve(shared: &Shared, request: &Request, line: &mut Line) -> io::Result<()> {
    match request.method.as_str() {
        "POST" => post(shared, request, line),
        "GET" => get(shared, request, line),
        "DELETE" => {
            let id = request.header("mcp-session-id").unwrap_or_default();
            let known = shared.sessions().remove(id).is_some();
            line.answer(if known { 200 } else { 404 }, &[], b"")
        }
        _ => line.answer(405, &[("allow", "POST, GET, DELETE")], b""),
    }
}

fn post(shared: &Shared, request: &Request, line: &mut Line) -> io::Result<()> {
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        return refuse(line, 400, &Value::Null, -32700, "this is no JSON");
    };
    let method = message["method"].as_str().unwrap_or_default();
    let id = &message["id"];
    if shared.character.now().contains(&Fault::ModernOnly) {
        let supported = json!({"supported": [crate::offer::MODERN], "requested": "2025-11-25"});
        let error = json!({"code": -32022, "message": "unsupported version", "data": supported});
        let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
        return line.answer(400, &[JSON], &encoded(&body));
    }
    if method == "initialize" {
        return begin(shared, &message, line);
    }
    let Some(session) = session_of(shared, request, line)? else { return Ok(()) };
    if id.is_null() || method.is_empty() {
        return line.answer(202, &[], b"");
    }
    if method != "tools/call" {
        if method.ends_with("/list") && shared.character.now().contains(&Fault::HangList) {
            return hang(line);
        }
        let refusal = shared.character.now().iter().find_map(|fault| match fault {
            Fault::ListStatus(code) if method.ends_with("/list") => Some(*code),
            _ => None,
        });
        if let Some(code) = refusal {
            return super::call::status(code, shared.character.now(), line);
        }
        let answer = shared.answer(method, &message["params"]).message(id);
        return line.answer(200, &[JSON], &encoded(&answer));
    }
    if is_spent(shared, &session) {
        return refuse(line, 404, id, -32001, "the session has ended");
    }
    let streams = shared.character.conditions.contains(&Condition::Stream);
    let resumable = shared.character.conditions.contains(&Condition::Resumable);
    if resumable && request.takes_events() {
        return keep(shared, &session, &message, line);
    }
    super::call::serve(shared, &message, streams && request.takes_events(), line)
}

/// Begins a session.
fn begin(shared: &Shared, message: &Value, line: &mut Line) -> io::Result<()> {
    shared.hellos.fetch_add(1, Ordering::Relaxed);
    if shared.character.now().contains(&Fault::HangInit) {
        return hang(line);
    }
    let answer = shared.answer("initialize", &message["params"]).message(&message["id"]);
    if shared.character.now().contains(&Fault::NoSession) {
        return line.answer(200, &[JSON], &encoded(&answer));
    }
    let id = shared.fresh();
    shared.sessions().insert(id.clone(), Session::default());
    line.answer(200, &[JSON, ("mcp-session-id", &id)], &encoded(&answer))
}

/// The session of a request; `None` where it was refused for want of one.
fn session_of(shared: &Shared, request: &Request, line: &mut Line) -> io::Result<Option<String>> {
    if shared.character.now().contains(&Fault::NoSession) {
        return Ok(Some(String::new()));
    }
    let Some(id) = request.header("mcp-session-id") else {
        refuse(line, 400, &Value::Null, -32600, "a session is needed")?;
        return Ok(None);
    };
    if shared.sessions().contains_key(id) {
        return Ok(Some(id.to_owned()));
    }
    refuse(line, 404, &Value::Null, -32001, "there is no such session")?;
    Ok(None)
}

/// Counts a call of a session, and ends the session where it has had too many.
fn is_spent(shared: &Shared, session: &str) -> bool {
    let limit = shared.character.now().iter().find_map(|fault| match fault {
        Fault::Expire(calls) => Some(*calls),
        _ => None,
    });
    let mut sessions = shared.sessions();
    let Some(known) = sessions.get_mut(session) else { return false };
    known.calls += 1;
    let spent = limit.is_some_and(|limit| known.calls > limit);
    if spent {
        sessions.remove(session);
    }
    spent
}

/// Answers by a stream that ends before the answer.
fn keep(shared: &Shared, session: &str, message: &Value, line: &mut Line) -> io::Result<()> {
    let stream = shared.streams.fetch_add(1, Ordering::Relaxed);
    let answer = super::call::answer(shared, message);
    if let Some(known) = shared.sessions().get_mut(session) {
        known.kept.insert(stream, answer);
    }
    line.stream(&[])?;
    line.chunk(format!("id: {stream}-0\nretry: 50\ndata:\n\n").as_bytes())?;
    line.finish()
}

/// A standing stream, or one that is taken up again.
fn get(shared: &Shared, request: &Request, line: &mut Line) -> io::Result<()> {
    let Some(session) = session_of(shared, request, line)? else { return Ok(()) };
    if let Some(last) = request.header("last-event-id") {
        let stream = last.split('-').next().and_then(|number| number.parse::<u64>().ok());
        let kept = stream.and_then(|stream| {
            Some((stream, shared.sessions().get(&session)?.kept.get(&stream)?.clone()))
        });
        if let Some((stream, answer)) = kept {
            line.stream(&[])?;
            let again = shared.character.now().contains(&Fault::DuplicateEvents);
            for _ in 0..=u32::from(again) {
                line.event(Some(&format!("{stream}-1")), &answer)?;
            }
            return line.finish();
        }
    }
    line.stream(&[])?;
    line.chunk(b": standing\n\n")?;
    let floods: Vec<(u64, Value)> = shared.character.now().iter().filter_map(flood).collect();
    let Some((per_second, message)) = floods.into_iter().next() else { return hang(line) };
    let bytes = encoded(&message);
    paced(per_second as f64, || line.event(None, &bytes).is_ok());
    Ok(())
}

/// What is said unasked on a standing stream, and how often in a second.
fn flood(fault: &Fault) -> Option<(u64, Value)> {
    let (rate, method, params) = match fault {
        Fault::FloodListChanged(rate) => (rate, "notifications/tools/list_changed", json!({})),
        Fault::FloodLog(rate) => {
            (rate, "notifications/message", json!({"level": "error", "data": "again"}))
        }
        Fault::FloodUpdated(rate) => {
            (rate, "notifications/resources/updated", json!({"uri": "evil://evil/state"}))
        }
        _ => return None,
    };
    Some((rate.0, json!({"jsonrpc": "2.0", "method": method, "params": params})))
}

/// Says nothing more until the client goes.
pub fn hang(line: &Line) -> io::Result<()> {
    while line.rest(Duration::from_millis(200)) {
        thread::yield_now();
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

pub fn refuse(
    line: &mut Line,
    status: u16,
    id: &Value,
    code: i64,
    message: &str,
) -> io::Result<()> {
    let error = json!({"code": code, "message": message});
    let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
    line.answer(status, &[JSON], &encoded(&body))
}

/// Closes a connection from outside.
pub fn close(socket: &std::net::TcpStream) {
    drop(socket.shutdown(Shutdown::Both));
}
