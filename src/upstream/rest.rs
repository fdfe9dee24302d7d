//! Has an upstream rest while nobody needs it, and wakes it for the first who does.
//!
//! A call that finds it resting says so by its port and waits; the port is closed for a rest only
//! while no call is on its way through it, so that none is lost between the two.

use std::time::Duration;

use actix::prelude::*;

use super::{
    Exit, Reason,
    actor::Upstream,
    lifecycle::{Event, State},
    outlook::{Absence, Outlook},
    status::StateWord,
};
use crate::{catalogue::kind::Kind, failpoint};

impl Upstream {
    /// Begins its life: now, or with the first call where that is wanted and its tools are known.
    pub(super) fn begin(&mut self, reason: Reason, ctx: &mut Context<Self>) {
        let is_known = self.board.list(Kind::Tool).is_some();
        match self.board.spec().upkeep.is_lazy && is_known {
            true => self.step(Event::RestRequested, Exit::of(Reason::Idle), ctx),
            false => self.step(Event::StartRequested, Exit::of(reason), ctx),
        }
    }

    /// Wakes it for calls, from now on.
    pub(super) fn heed_calls(&mut self, ctx: &mut Context<Self>) {
        let board = self.board.clone();
        let wanted = async move { board.port.wanted().await };
        ctx.spawn(wanted.into_actor(self).map(|(), upstream, ctx| {
            failpoint::pass("upstream-wanted");
            upstream.step(Event::Wanted, Exit::of(Reason::Wanted), ctx);
            upstream.heed_calls(ctx);
        }));
    }

    /// Looks after a while whether it may rest, if it is to rest at all.
    pub(super) fn watch_for_rest(&mut self, ctx: &mut Context<Self>) {
        if let Some(limit) = self.board.spec().upkeep.idle_stop {
            self.look_for_rest(limit, ctx);
        }
    }

    fn look_for_rest(&mut self, after: Duration, ctx: &mut Context<Self>) {
        if let Some(earlier) = self.rest_look.take() {
            ctx.cancel_future(earlier);
        }
        self.rest_look = Some(ctx.run_later(after, |upstream, ctx| {
            failpoint::pass("upstream-rest");
            let is_ready = matches!(upstream.lifecycle.state, State::Ready { .. });
            let limit = upstream.board.spec().upkeep.idle_stop;
            let Some(limit) = limit.filter(|_| is_ready) else { return };
            let port = &upstream.board.port;
            // What it is still being asked to list, it is to finish.
            let is_listed = Kind::ALL.into_iter().all(|kind| upstream.board.is_settled(kind));
            let idle_for = port.idle_for().filter(|_| is_listed);
            let wait = until_rest(limit, idle_for);
            let (state, reason) = (StateWord::Stopped, Reason::Idle);
            let resting =
                Outlook::Resting(Absence { state, reason, detail: None, failed_by: None });
            if wait.is_zero() && port.rest(resting) {
                return upstream.step(Event::RestRequested, Exit::of(reason), ctx);
            }
            upstream.look_for_rest(if wait.is_zero() { limit } else { wait }, ctx);
        }));
    }
}

/// How long it is until an upstream that has been idle for so long may rest. `None`: it is in use.
fn until_rest(limit: Duration, idle_for: Option<Duration>) -> Duration {
    idle_for.map_or(limit, |idle_for| limit.saturating_sub(idle_for))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_when_it_has_been_idle_for_as_long_as_its_row_says() {
        let secs = Duration::from_secs;
        for (idle_for, wait) in [
            (None, secs(10)),
            (Some(secs(0)), secs(10)),
            (Some(secs(4)), secs(6)),
            (Some(secs(10)), secs(0)),
            (Some(secs(11)), secs(0)),
        ] {
            assert_eq!(until_rest(secs(10), idle_for), wait, "{idle_for:?}");
        }
    }
}
