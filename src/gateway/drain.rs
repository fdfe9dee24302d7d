//! The end of a gateway: what was begun is finished or failed in bounded time, and nothing is left.

use std::{cell::Cell, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    signal::unix::Signal,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use super::{Gateway, tending::tend};
use crate::{
    conductor::Conductor, failpoint, fleet::Drain, session::Session,
    upstream::worker::lifeline::Survivors,
};

/// How often it is looked whether calls are still under way.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long answers and ends of streams may take to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long upstreams may take to end, beyond the graces that they are given themselves.
const UPSTREAMS_END: Duration = Duration::from_secs(20);

/// How long what upstreams have left may take to be killed.
const LEFTOVERS_END: Duration = Duration::from_millis(500);

/// How long what is still to be remembered may take.
const JOURNAL_END: Duration = Duration::from_secs(3);

/// How long the database may take to let us go.
const DATABASE_END: Duration = Duration::from_secs(3);

/// The port is served no more, and nobody has asked for that.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP server has ended by itself")]
pub struct Deserted;

impl Gateway {
    /// Reads all rows again whenever somebody asks, as after a change behind our back.
    pub fn read_again_on(&self, asked: Signal) {
        let (conductor, asked) = (self.conductor.clone(), Rc::new(Mutex::new(asked)));
        let is_owed = Rc::new(Cell::new(false));
        tend("signals", move || {
            let (conductor, asked, is_owed) = (conductor.clone(), asked.clone(), is_owed.clone());
            async move {
                // What was asked for before a panic is still to be done.
                while is_owed.get() || asked.lock().await.recv().await.is_some() {
                    is_owed.set(true);
                    failpoint::pass("signals");
                    read_again(&conductor).await;
                    is_owed.set(false);
                }
            }
        });
    }

    /// Serves until `shutdown`, then drains. `hurry` ends the patience with what is under way.
    ///
    /// # Errors
    /// The port is served no more; what was under way has been ended in order all the same.
    pub async fn run_until(
        self,
        shutdown: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), Deserted> {
        tokio::select! {
            () = shutdown => {}
            () = self.tokens.deserted.cancelled() => {}
        }
        tracing::info!("stopping: nothing new begins, what is under way may finish");
        // Whoever still comes is told so, rather than left waiting for a port that nobody serves.
        self.tokens.draining.cancel();
        tokio::select! {
            () = self.calls_finish() => {}
            () = sleep(self.drain_grace) => tracing::warn!("some calls did not finish in time"),
            () = hurry => tracing::warn!("told to hurry: calls that are under way are ended"),
        }
        self.tokens.ending.cancel();
        drop(timeout(FAREWELL, self.calls_finish()).await);
        let sessions = self.conductor.sessions.all_where(|_| true);
        self.conductor.sessions.close();
        // Upstreams hear that nobody will answer them before they are told to end.
        drop(timeout(FAREWELL, questions_end(&sessions)).await);

        let server = timeout(FAREWELL, self.server.stop(true));
        let upstreams = timeout(UPSTREAMS_END, self.fleet.send(Drain));
        let (served, ended) = tokio::join!(server, upstreams);
        if served.is_err() {
            tracing::warn!("some connections were cut");
        }
        if !matches!(ended, Ok(Ok(()))) {
            tracing::warn!("some upstreams did not end in time, and are killed");
        }
        self.end_leftovers().await;
        self.conductor.witness.logbook.gateway("metamcpd has stopped".to_owned());
        self.conductor.journal.close(JOURNAL_END).await;
        match timeout(DATABASE_END, self.conductor.store.clone().close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the database was not closed in order"),
            Err(_elapsed) => tracing::warn!("the database does not answer, and is left as it is"),
        }
        tracing::info!("stopped");
        match self.tokens.deserted.is_cancelled() {
            true => Err(Deserted),
            false => Ok(()),
        }
    }

    /// Whatever the fleet could not end: nothing that we have started is to live on when we are gone.
    async fn end_leftovers(&self) {
        let Survivors { found, left } = self.strays.end_all(LEFTOVERS_END).await;
        if left > 0 {
            tracing::error!(
                left,
                "processes of upstreams were killed and do not end: see what holds them \
                 (`ps -o pid,stat,wchan,cmd`); the next start ends what is still there"
            );
        } else if found > 0 {
            tracing::warn!(
                found,
                "processes of upstreams were still there at the end and were killed"
            );
        }
    }

    async fn calls_finish(&self) {
        let began = Instant::now();
        while self.conductor.sessions.in_flight() > 0 {
            sleep(LOOK_EVERY).await;
        }
        tracing::debug!(waited = ?began.elapsed(), "no call is under way");
    }
}

async fn read_again(conductor: &Conductor) {
    match conductor.reconcile().await {
        Ok(()) => tracing::info!(
            "asked by SIGHUP: the rows were read again; settings are read at a start only"
        ),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "asked by SIGHUP, but the rows could not be read; it is tried again"
        ),
    }
}

async fn questions_end(sessions: &[Arc<Session>]) {
    while sessions.iter().any(|session| session.questions.count() > 0) {
        sleep(LOOK_EVERY).await;
    }
}
