//! A call over HTTP, with everything that can go wrong with its answer.

use std::io;

use serde_json::{Value, json};

use super::{Shared, legacy::hang, line::Line, packed};
use crate::{
    fault::Fault,
    offer::{self, Answer},
    process,
    script::{Step, encoded, script},
    stdio::paced,
};

const JSON: (&str, &str) = ("content-type", "application/json");
const PAGE: &[u8] = b"<!doctype html><title>Bad gateway</title><h1>We will be back soon</h1>";

/// Answers a call of the legacy era.
pub fn serve(shared: &Shared, message: &Value, streams: bool, line: &mut Line) -> io::Result<()> {
    play(shared, message, offer::call(&message["params"]), streams, line)
}

/// Answers a call of the modern era.
pub fn serve_modern(
    shared: &Shared,
    message: &Value,
    streams: bool,
    line: &mut Line,
) -> io::Result<()> {
    let mut answer = offer::call(&message["params"]);
    answer.said = answer.said.map(|result| offer::modern(&shared.character, "tools/call", result));
    play(shared, message, answer, streams, line)
}

/// The answer to a call that is fetched later.
pub fn answer(shared: &Shared, message: &Value) -> Vec<u8> {
    shared.count(offer::nonce(&message["params"]));
    encoded(&offer::call(&message["params"]).message(&message["id"]))
}

fn play(
    shared: &Shared,
    message: &Value,
    answer: Answer,
    streams: bool,
    line: &mut Line,
) -> io::Result<()> {
    let (id, params) = (&message["id"], &message["params"]);
    let number = shared.count(offer::nonce(params));
    let mut faults = shared.character.towards(number).to_vec();
    let asked = params["arguments"]["fault"].as_str().and_then(Fault::read);
    faults.extend(asked.and_then(Result::ok));

    if answer.steps > 0 {
        line.stream(&[])?;
    }
    for step in 1..=answer.steps.max(1) {
        if !line.rest(answer.takes / u32::try_from(answer.steps.max(1)).unwrap_or(u32::MAX)) {
            shared.note_gone(offer::nonce(params));
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let token = &params["_meta"]["progressToken"];
        if answer.steps > 0 && !token.is_null() {
            let params = json!({"progressToken": token, "progress": step});
            let said =
                json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            line.event(None, &encoded(&said))?;
        }
    }
    let whole = answer.message(id);
    if spoilt(&faults, &whole, line)? {
        return Ok(());
    }
    let steps = script(&faults, number, id, &whole);
    said(shared, &steps, streams, line)
}

/// Answers by something that is no answer; whether that was done.
fn spoilt(faults: &[Fault], whole: &Value, line: &mut Line) -> io::Result<bool> {
    let body = encoded(whole);
    for fault in faults {
        match fault {
            Fault::Status(code) => status(*code, faults, line)?,
            Fault::Redirect(url) => line.answer(307, &[("location", url)], b"")?,
            Fault::ContentType(kind) => line.answer(200, &[("content-type", kind)], &body)?,
            Fault::Html => line.answer(200, &[("content-type", "text/html")], PAGE)?,
            Fault::Empty => line.answer(200, &[JSON], b"")?,
            Fault::Accepted => line.answer(202, &[], b"")?,
            Fault::Truncated => line.answer(200, &[JSON], &body[..body.len() / 2])?,
            Fault::GzipBomb(bytes) => {
                let packed = packed::bomb(bytes.0, &body);
                line.answer(200, &[JSON, ("content-encoding", "gzip")], &packed)?;
            }
            Fault::Reset => return line.reset().map(|()| true),
            Fault::Stall => {
                line.head(200, &[JSON], Some(body.len()))?;
                return hang(line).map(|()| true);
            }
            Fault::Cut(bytes) => {
                line.cut_after(bytes.0);
                continue;
            }
            _ => continue,
        }
        return Ok(true);
    }
    Ok(false)
}

/// Answers with a status, and with what belongs to it.
pub fn status(code: u64, faults: &[Fault], line: &mut Line) -> io::Result<()> {
    let after = faults.iter().find_map(|fault| match fault {
        Fault::RetryAfter(secs) => Some(secs.to_string()),
        _ => None,
    });
    let mut headers = vec![("content-type", "text/plain")];
    headers.extend(after.as_deref().map(|secs| ("retry-after", secs)));
    headers.extend(match code {
        401 => Some(("www-authenticate", "Bearer realm=\"evil\"")),
        403 => Some(("www-authenticate", "Bearer error=\"insufficient_scope\", scope=\"more\"")),
        _ => None,
    });
    line.answer(u16::try_from(code).unwrap_or(500), &headers, b"no")
}

/// Says the steps: the only message as JSON, more than one as a stream.
fn said(shared: &Shared, steps: &[Step], streams: bool, line: &mut Line) -> io::Result<()> {
    let one = matches!(steps, [Step::Say(_) | Step::Dribble(..)]);
    if !one || streams {
        line.stream(&[])?;
    }
    for step in steps {
        match step {
            Step::Say(bytes) if line.is_streaming() => line.event(None, bytes)?,
            Step::Say(bytes) => line.answer(200, &[JSON], bytes)?,
            Step::Dribble(bytes, rate) => {
                if !line.is_streaming() {
                    line.head(200, &[JSON], Some(bytes.len()))?;
                    let mut rest = bytes.iter();
                    paced(rate.0 as f64, || {
                        rest.next().is_some_and(|byte| line.body(&[*byte]).is_ok())
                    });
                    continue;
                }
                let event = [b"data: ", bytes.as_slice(), b"\n\n"].concat();
                let mut rest = event.iter();
                paced(rate.0 as f64, || {
                    rest.next().is_some_and(|byte| line.chunk(&[*byte]).is_ok())
                });
            }
            Step::Blurt(bytes) => line.chunk(bytes)?,
            Step::Babble(bytes) => {
                let piece = vec![b'x'; 64 << 10];
                line.chunk(b"data: ")?;
                for _ in 0..bytes.div_ceil(piece.len() as u64) {
                    line.chunk(&piece)?;
                }
            }
            Step::Rest(time) => {
                if !line.rest(*time) {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
            // Behind an answer over HTTP there is nothing.
            Step::Announce(_) => {}
            Step::CloseOutput | Step::CloseInput => return line.cut(),
            Step::End(how) => match shared.is_alone {
                true => process::end(*how),
                false => {
                    shared.end();
                    return line.cut();
                }
            },
        }
    }
    // One that is never answered holds its client.
    if steps.is_empty() {
        return hang(line);
    }
    match line.is_streaming() {
        true => line.finish(),
        false => Ok(()),
    }
}
