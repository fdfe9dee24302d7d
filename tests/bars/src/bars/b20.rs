//! B20: whoever sends slowly, or nothing, is let go in time, and those who do not are served as ever.

use std::{
    thread,
    time::{Duration, Instant},
};

use evil_mcp::Character;
use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Bar, Run};
use crate::{
    Outcome, Plan,
    report::Report,
    rig::{
        Client, host,
        load::paced,
        stats::percentile,
        stream::{connect, head},
        with_one,
    },
};

pub const BAR: Bar = Bar {
    name: "B20",
    about: "clients that drip their requests, or send none, are let go and hinder nobody",
    run: |plan, report| -> Run<'_> { Box::pin(take(plan, report)) },
};

/// `server.header_timeout` and `server.body_timeout`, the defaults, and a second.
const HEAD_WITHIN: Duration = Duration::from_secs(6);
const BODY_WITHIN: Duration = Duration::from_secs(16);

/// How long an attacker goes on where nobody lets it go.
const PATIENCE: Duration = Duration::from_secs(45);

/// The pace of its bytes.
const DRIP: Duration = Duration::from_millis(500);

const CLIENTS: usize = 4;
const EVERY: Duration = Duration::from_millis(10);

/// How long the others are measured: as long as the attack lasts where it is met as it should be.
const LASTS: Duration = Duration::from_secs(16);

async fn take(plan: &Plan, report: &mut Report) -> Outcome<()> {
    let (heads, bodies, idle) = (plan.size(100, 500), plan.size(100, 500), plan.size(40, 200));
    let (daemon, _admin, client) = with_one(plan, "", &Character::good()).await?;
    let port = daemon.port;
    // A request of somebody whom the daemon knows: a stranger's is refused at its head.
    let head = head(&client, "POST", port)?;
    let key = client.headers["authorization"].to_str()?.trim_start_matches("Bearer ").to_owned();
    let mut healthy = vec![client];
    for _ in 1..CLIENTS {
        healthy.push(Client::connect(&daemon, "all", &key).await?);
    }
    // Once for the connections, which is not counted.
    paced(&mut healthy, "evil__echo", EVERY, Duration::from_millis(500)).await?;
    let alone = paced(&mut healthy, "evil__echo", EVERY, LASTS / 4).await?;

    let descriptors = host::descriptors(daemon.pid());
    let dripping_head = format!("{head}x-slow: ");
    let dripping_body = format!("{head}content-length: 1000\r\n\r\n{{");
    let attacks = [(heads, dripping_head), (bodies, dripping_body), (idle, String::new())];
    // By a thread of its own, so that it slows the daemon and not those who measure.
    let attack = thread::spawn(move || -> Outcome<Vec<Vec<Option<Duration>>>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let each = attacks.iter().map(async |(count, opening)| {
                join_all((0..*count).map(|_| attacked(port, opening))).await.into_iter().collect()
            });
            join_all(each).await.into_iter().collect()
        })
    });
    let beside = paced(&mut healthy, "evil__echo", EVERY, LASTS).await;
    let times = attack.join().map_err(|_| "the attack panicked")??;

    let kinds = [
        ("slow heads", HEAD_WITHIN),
        ("slow bodies", BODY_WITHIN),
        ("who send nothing", HEAD_WITHIN),
    ];
    for ((name, within), times) in kinds.iter().zip(&times) {
        let closed: Vec<Duration> = times.iter().filter_map(|time| *time).collect();
        report.never(format!("{name}: not closed"), times.len() - closed.len(), times.len());
        report.percentile(&format!("{name}: closed after"), &closed, 1.0, *within);
    }
    let calls = CLIENTS * usize::try_from(LASTS.as_millis() / EVERY.as_millis())?;
    // A call that failed, or was answered wrongly, ends all of it.
    report.never("calls of others that failed", usize::from(beside.is_err()), calls);
    let (alone, beside) = (percentile(&alone, 0.99), percentile(&beside?, 0.99));
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    report.at_most("p99 of others meanwhile, of that alone", ratio, 2.0, "x");
    let now = host::descriptors(daemon.pid());
    report.note(format!(
        "p99 {beside:.1?}, alone {alone:.1?}; descriptors of the daemon: {descriptors} before, {now} after",
    ));
    Ok(())
}

/// One attacker: how long it took until its connection was closed, if it was.
async fn attacked(port: u16, opening: &str) -> Outcome<Option<Duration>> {
    let mut socket = connect(port, None).await?;
    let began = Instant::now();
    socket.write_all(opening.as_bytes()).await?;
    let is_silent = opening.is_empty();
    let closed = tokio::time::timeout(PATIENCE, drip(&mut socket, is_silent)).await;
    Ok(closed.is_ok().then(|| began.elapsed()))
}

/// Goes on byte by byte, whatever it is told, until the connection is closed.
async fn drip(socket: &mut TcpStream, is_silent: bool) {
    let (mut input, mut output) = socket.split();
    let mut piece = [0; 1_024];
    loop {
        tokio::select! {
            read = input.read(&mut piece) => {
                if matches!(read, Ok(0) | Err(_)) {
                    return;
                }
            }
            () = tokio::time::sleep(DRIP) => {
                if !is_silent && output.write_all(b"x").await.is_err() {
                    return;
                }
            }
        }
    }
}
