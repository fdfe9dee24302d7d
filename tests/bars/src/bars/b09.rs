//! B9: clients that stop reading are let go, with their cause counted, and cost neither memory nor those
//! who read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use evil_mcp::{Character, Fault};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Admin, Client, Daemon, Reply, host,
        host::OWN,
        publish,
        stats::percentile,
        stream::{Stream, TINY},
        until,
    },
};

pub const BAR: Bar = Bar {
    name: "B9",
    about: "clients that do not read are let go (`server.write_timeout` = 25s), and hinder nobody",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// What one who does not read may cost.
const COST: f64 = 300.0 * 1_000.0;
const WITHIN: Duration = Duration::from_secs(35);

/// How long those who read may take to have everything, once all of it was said.
const PATIENCE: Duration = Duration::from_secs(30);

const SLOW_CLOSED: &str = "metamcpd_slow_clients_closed_total";

/// With the default of 60 s nobody could be let go within 35 s; before that time the buffers of the kernel
/// have to be full, or the daemon cannot know that nobody reads. All clients are one principal here. What is
/// kept for them is one and the same, but counted for each of them, and a second's worth is too little for
/// readers on a busy machine.
const SETTINGS: &str = r#"
server = { write_timeout = "25s" }
sessions = { per_principal_max = 10000, streams_per_principal_max = 10000, replay = { events_max = 240, total_bytes_max = 4294967296 } }
"#;

/// The event of this number, and how long it took here.
type Heard = (u64, Duration);

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let (slow, fast) = (plan.size(20, 200), plan.size(80, 800));
    let events = plan.size(1_500, 10_000) as u64;
    let daemon = Daemon::start(plan, SETTINGS).await?;
    let mut admin = daemon.admin().await?;
    admin.stdio(plan, "evil", &Character::good()).await?;
    let key = publish(&mut admin, &["evil".to_owned()]).await?;
    let mut caller = Client::connect(&daemon, "all", &key).await?;
    let mut readers = Vec::with_capacity(fast);
    for _ in 0..fast {
        readers.push(listener(&daemon, &key, None).await?);
    }

    // Once for what is kept of each, and for what starting has left, which is not counted.
    let first = events / 10;
    let hearing = hear(readers, first);
    publish_events(&mut caller, first).await?;
    let (readers, _, _) = heard(hearing, first).await?;

    let solo = events / 5;
    let memory = Most::begin(daemon.pid());
    let hearing = hear(readers, solo);
    publish_events(&mut caller, solo).await?;
    let (readers, alone, missed) = heard(hearing, solo).await?;
    let before = memory.end();
    report.never("events that were missed before", missed, fast * usize::try_from(solo)?);

    let counted = admin.metric(SLOW_CLOSED).await?;
    let mut deaf = Vec::with_capacity(slow);
    for _ in 0..slow {
        deaf.push(listener(&daemon, &key, Some(TINY)).await?);
    }
    let with_all = host::descriptors(daemon.pid());
    let memory = Most::begin(daemon.pid());
    let hearing = hear(readers, events);
    let began = Instant::now();
    publish_events(&mut caller, events).await?;
    let closing = closed(&mut admin, counted, slow, began).await?;
    let (readers, beside, missed) = heard(hearing, events).await?;
    let most = memory.end();
    let left = with_all.saturating_sub(host::descriptors(daemon.pid()));

    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let grown = most.saturating_sub(before);
    report.at_most("memory for them", mib(grown as f64), mib(COST * slow as f64), "MiB");
    report.never("of them not closed with their cause counted", slow - closing.counted, slow);
    report.never("of their connections still open", slow.saturating_sub(left), slow);
    report.time("the last of them closed after", closing.last, WITHIN);
    report.never("events that one who reads missed", missed, fast * usize::try_from(events)?);
    let (alone, beside) = (percentile(&alone, 0.99), percentile(&beside, 0.99));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    report.at_most("p99 of an event beside them, of that without", ratio, 2.0, "x");
    report.note(format!(
        "{} readers: p99 {beside:.1?} and {:.1} MiB, without the {slow} {alone:.1?} and {:.1} MiB",
        readers.len(),
        mib(most as f64),
        mib(before as f64),
    ));
    Ok(())
}

/// A client that wants to hear what the server says to its log.
async fn listener(daemon: &Daemon, key: &str, buffer: Option<u32>) -> Outcome<Stream> {
    let mut client = Client::connect(daemon, "all", key).await?;
    client.request("logging/setLevel", &json!({"level": "debug"})).await?;
    Stream::open(&client, daemon.port, buffer).await
}

/// Has the server begin to say so many events.
async fn publish_events(caller: &mut Client, events: u64) -> Outcome<()> {
    let fault = Fault::Announce(events).to_string();
    match caller.call("evil__echo", &json!({"nonce": "n", "fault": fault})).await? {
        Reply::Text(_) => Ok(()),
        Reply::Error(why) => Err(format!("no events: {why}").into()),
    }
}

/// The most memory of its own that a process had since this was begun.
struct Most {
    bytes: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Most {
    fn begin(pid: u32) -> Most {
        let bytes: Arc<AtomicU64> = Arc::default();
        let seen = Arc::clone(&bytes);
        let looking = tokio::spawn(async move {
            while let Ok(now) = host::memory(pid, OWN) {
                seen.fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Most { bytes, looking }
    }

    fn end(self) -> u64 {
        self.looking.abort();
        self.bytes.load(Ordering::Relaxed)
    }
}

/// How those who do not read were let go.
struct Closing {
    counted: usize,
    last: Duration,
}

async fn closed(admin: &mut Admin, before: f64, slow: usize, began: Instant) -> Outcome<Closing> {
    let mut closing = Closing { counted: 0, last: Duration::ZERO };
    let all = until("all who do not read to be closed", WITHIN * 2, async || {
        let counted = (admin.metric(SLOW_CLOSED).await? - before) as usize;
        if counted > closing.counted {
            (closing.counted, closing.last) = (counted, began.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok((closing.counted >= slow).then_some(()))
    });
    // Those that are left are counted by what is reported.
    drop(all.await);
    closing.counted = closing.counted.min(slow);
    Ok(closing)
}

type Hearing = JoinHandle<(Stream, Vec<Heard>)>;

/// Has each of them read until it has the last event, or its stream ends.
fn hear(readers: Vec<Stream>, last: u64) -> Vec<Hearing> {
    let read = |mut stream: Stream| {
        tokio::spawn(async move {
            let mut heard: Vec<Heard> = Vec::new();
            let patience = Duration::from_millis(last * 10) + PATIENCE;
            let everything = async {
                while heard.last().is_none_or(|(number, _)| *number < last) {
                    let Ok(line) = stream.line().await else { break };
                    heard.extend(event(line));
                }
            };
            // Whoever has not everything by then has missed something.
            drop(tokio::time::timeout(patience, everything).await);
            (stream, heard)
        })
    };
    readers.into_iter().map(read).collect()
}

/// What they heard: the times of all events, and how many are missing.
async fn heard(hearing: Vec<Hearing>, events: u64) -> Outcome<(Vec<Stream>, Vec<Duration>, usize)> {
    let (mut readers, mut times, mut missed) = (Vec::new(), Vec::new(), 0);
    for outcome in join_all(hearing).await {
        let (reader, heard) = outcome?;
        let mut numbers: Vec<u64> = heard.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        missed += usize::try_from(events)?.saturating_sub(numbers.len());
        times.extend(heard.into_iter().map(|(_, took)| took));
        readers.push(reader);
    }
    Ok((readers, times, missed))
}

/// An event as its server made it: read by hand, since most of it is padding, and there are many.
fn event(line: &[u8]) -> Option<Heard> {
    // Both figures stand before the padding, which comes last by its name.
    let head = line.strip_prefix(b"data:")?;
    let head = String::from_utf8_lossy(&head[..head.len().min(200)]);
    let at = after(&head, r#""at":""#)?;
    let number = after(&head, r#""number":"#)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    Some((number, now.saturating_sub(Duration::from_micros(at))))
}

fn after(text: &str, name: &str) -> Option<u64> {
    let (_, rest) = text.split_once(name)?;
    let end = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_by_its_number_and_its_time() {
        let line = br#"data: {"method":"m","params":{"data":{"at":"1000","number":7,"rest":"x"}}}"#;
        let (number, took) = event(line).unwrap();
        assert_eq!(number, 7);
        assert!(took > Duration::from_secs(1_000_000_000), "{took:?}");
        assert_eq!(event(b"data: {}"), None);
        assert_eq!(event(b": still here"), None);
    }
}
