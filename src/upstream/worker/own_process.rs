//! One life of a process that a client has to itself: its handshake, what was wanted of the one before
//! it, and its end when nobody calls it any more.
//!
//! How a process is started, spoken to and killed is `stdio`'s affair, for these as for the upstream's
//! own. Who waits for them, and how many there may be, is `processes`'.

use std::sync::Arc;

use tokio::time::sleep_until;

use super::{Assignment, News, Workshop, greet, lifeline::Turn, stdio, watch_answers};
use crate::{
    failpoint,
    upstream::{
        Exit, Isolation, Reason, board::Board, conduct::Conduct, exchange::SessionKey, link::Link,
        own_process::OwnProcess, pipe::Pipe, processes::Starter, spec::Transport, status::Output,
    },
};

/// Has the clients of this upstream get processes of their own, where that is how it is shared. They
/// live on the thread of its actor.
pub fn admit(assignment: &Assignment) {
    let Assignment { board, workshop, .. } = assignment;
    let Some(arbiter) = actix::Arbiter::try_current() else { return };
    if board.spec().isolation == Isolation::Shared {
        return;
    }
    let (place, tools) = (Arc::downgrade(board), workshop.clone());
    let start = move |own: Arc<OwnProcess>| {
        let Some(board) = place.upgrade() else { return false };
        let workshop = tools.clone();
        arbiter.spawn_fn(move || drop(actix::spawn(live(board, workshop, own))))
    };
    let processes = &board.port.processes;
    let (max, patience) = (workshop.options.processes_max, workshop.patience.clone());
    processes.admit(Starter { max, patience, start: Box::new(start) });
    let server = Arc::from(&*board.spec().name);
    for (key, declared) in board.port.subscriptions.sessions() {
        if key != SessionKey::Shared {
            processes.begin(&server, &key, declared);
        }
    }
}

/// From the start of a process until nothing is left of it, and again if something is wanted of it
/// that it has to say by itself.
async fn live(board: Arc<Board>, workshop: Arc<Workshop>, own: Arc<OwnProcess>) {
    let exit = match actix::spawn(work(board.clone(), workshop.clone(), own.clone())).await {
        Ok(exit) => exit,
        Err(error) if error.is_panic() => {
            Exit::new(Reason::Panicked, "what speaks with this process panicked")
        }
        Err(_aborted) => Exit::of(Reason::Asked),
    };
    own.lose(&exit, workshop.patience.load().steady_after);
    // Until nothing is left of the tree.
    drop(own.lease.acquire().await);
    let processes = &board.port.processes;
    let Some(rest) = processes.ended(&own, &exit) else { return };
    metrics::counter!("metamcpd_session_processes_failed_total", "reason" => exit.reason.as_str())
        .increment(1);
    let pid = own.pid().map(|pid| format!(" {pid}")).unwrap_or_default();
    let why = exit.describe_with(last_words(&board, &own));
    let what = format!("the process{pid} {} has ended: {why}", own.whose());
    board.lost_process(exit.reason, &what);

    // Who waits for it to speak will not call it.
    sleep_until(rest).await;
    if board.port.subscriptions.has(&own.key) {
        let server = Arc::from(&*board.spec().name);
        processes.begin(&server, &own.key, own.declared);
    }
}

/// The last line that a process wrote, as it may be read: as much as says why.
fn last_words(board: &Board, own: &OwnProcess) -> Option<String> {
    const LENGTH_MAX: usize = 2_000;
    let mut words = board.stderr.hidden(&own.last_words()?);
    words.truncate(words.floor_char_boundary(LENGTH_MAX));
    Some(words)
}

async fn work(board: Arc<Board>, workshop: Arc<Workshop>, own: Arc<OwnProcess>) -> Exit {
    failpoint::pass("process");
    let Transport::Stdio { command, args, env } = board.spec().transport.clone() else {
        return Exit::of(Reason::Asked);
    };
    let session = match &own.key {
        SessionKey::Client(session) => workshop.clients.public_name(session),
        SessionKey::Shared | SessionKey::User(_) => None,
    };
    let told = own.clone();
    let tell = Box::new(move |news| {
        if let News::Running { pid } = news {
            told.runs(pid, session);
        }
    });
    let (generation, stop) = (own.number(), own.stop());
    let assignment = Assignment { board, generation, workshop, tell, stop, own: Some(own) };
    stdio::work(&assignment, &command, &args, &env).await
}

/// The conduct of the process behind this pipe. What one client's does, or leaves undone, is held against
/// no other.
pub fn conduct(assignment: &Assignment, pipe: &Pipe) -> Arc<Conduct> {
    let port = &assignment.board.port;
    if assignment.own.is_none() {
        return port.conduct.clone();
    }
    let own = Arc::new(Conduct::new(port.options().strikes));
    pipe.count_by(own.clone());
    own
}

/// Shakes hands, has calls come, and returns when it is to end for want of them.
pub async fn serve(
    assignment: &Assignment,
    own: &Arc<OwnProcess>,
    pipe: &Arc<Pipe>,
    conduct: &Conduct,
    turn: Turn,
) -> Exit {
    let board = &assignment.board;
    let link = Link::Pipe(pipe.clone());
    let introduction = match greet(assignment, &link, pipe, own.declared).await {
        Ok(introduction) => introduction,
        Err(exit) => return exit,
    };
    // The next one may start.
    drop(turn);
    own.ready(pipe.clone());
    link.catch_up(&own.key, &board.port.levels);
    let subscriptions = &board.port.subscriptions;
    if introduction.has_subscriptions {
        let (link, subscriptions, key) = (link.clone(), subscriptions.clone(), own.key.clone());
        actix::spawn(async move { link.subscribe_session(&subscriptions, &key).await });
    }
    tokio::select! {
        exit = watch_answers(assignment, &link, conduct) => exit,
        exit = until_idle(assignment, own, pipe) => exit,
    }
}

async fn until_idle(assignment: &Assignment, own: &OwnProcess, pipe: &Pipe) -> Exit {
    let port = &assignment.board.port;
    let (idle, subscriptions) = (assignment.workshop.options.session_idle, &port.subscriptions);
    loop {
        tokio::time::sleep(idle / 4).await;
        if pipe.has_calls() || subscriptions.has(&own.key) || port.tasks.has_work(&own.key) {
            own.touch();
        }
        if own.end_if_idle(idle) {
            return Exit::of(Reason::Asked);
        }
    }
}

/// Whose process it is, for what is kept of its words.
#[derive(Clone)]
pub struct Scribe {
    board: Arc<Board>,
    own: Option<Arc<OwnProcess>>,
}

impl Scribe {
    pub fn of(assignment: &Assignment) -> Self {
        Self { own: assignment.own.clone(), ..Self::of_all(assignment.board.clone()) }
    }

    /// For the upstream's own process.
    pub fn of_all(board: Arc<Board>) -> Self {
        Self { board, own: None }
    }

    /// It has written a line that is no message of the protocol.
    pub fn wrote(&self, output: Output, line: &str) {
        let Some(own) = &self.own else { return self.board.wrote(output, line) };
        let pid = own.pid().unwrap_or_default();
        if output == Output::Stderr {
            own.wrote(line.to_owned());
        }
        self.board.wrote(output, &format!("[{pid}] {line}"));
    }

    /// How it ended, as clients may read it.
    pub fn describe(&self, exit: &Exit) -> String {
        let stderr = &self.board.stderr;
        stderr.hidden(&match &self.own {
            Some(own) => exit.describe_with(last_words(&self.board, own)),
            None => exit.describe(stderr),
        })
    }

    /// It has failed, so that no more calls may have it.
    pub fn lose(&self, exit: &Exit, workshop: &Workshop) {
        if let Some(own) = &self.own {
            own.lose(exit, workshop.patience.load().steady_after);
        }
    }
}
