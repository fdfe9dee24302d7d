//! What an upstream makes of the news of its worker: its lists, its words, and that it is ready.

use std::sync::Arc;

use actix::prelude::*;
use time::OffsetDateTime;

use super::{
    Exit, Reason,
    actor::Upstream,
    lifecycle::{Event, State},
    status::{CatalogueChange, ListingReport},
    worker::News,
};
use crate::catalogue::{
    changes::Changes,
    item::{BadItem, Item},
    kind::Kind,
};

impl Upstream {
    pub(super) fn hear(&mut self, news: News, ctx: &mut Context<Self>) {
        match news {
            News::Running { pid } => {
                let mut runtime = self.board.runtime();
                runtime.pid = Some(pid);
                self.board.set_runtime(runtime);
            }
            News::Listed { kind, items, dropped } => self.take_list(kind, &items, &dropped),
            News::NotListed { kind, why } => {
                let why: Arc<str> = self.board.stderr.hidden(&why).into();
                self.listener.not_listed(self.board.id, &self.board.spec().name, kind, &why);
                let mut runtime = self.board.runtime();
                runtime.listings[kind].error = Some(match kind {
                    Kind::Tool => why.to_string(),
                    other => format!("{}s: {why}", other.noun()),
                });
                self.board.set_runtime(runtime);
                self.board.settle(kind);
                self.board.refresh[kind].end(Err(why));
            }
            News::Reintroduced { version, instructions } => {
                self.take_instructions(instructions);
                let mut runtime = self.board.runtime();
                if runtime.protocol_version.is_some_and(|before| before != version) {
                    tracing::info!(server = %self.board.spec().name, version, "the upstream speaks another revision of MCP now");
                    runtime.protocol_version = Some(version);
                    self.board.set_runtime(runtime);
                }
            }
            News::Ready { link, version, instructions } => {
                self.take_instructions(instructions);
                self.step(Event::WorkerReady, Exit::of(Reason::Ready), ctx);
                if matches!(self.lifecycle.state, State::Ready { .. }) {
                    self.board.set_is_fetched(true);
                    self.board.port.breaker.forgive();
                    let mut runtime = self.board.runtime();
                    runtime.protocol_version = Some(version);
                    self.board.set_runtime(runtime);
                    self.board.port.open(link);
                    self.watch_for_rest(ctx);
                }
            }
        }
    }

    fn take_instructions(&mut self, instructions: Option<String>) {
        if self.board.instructions().as_deref() != instructions.as_ref() {
            self.board.set_instructions(instructions.clone().map(Arc::new));
            self.listener.instructed(self.board.id, instructions.as_deref());
        }
    }

    fn take_list(&mut self, kind: Kind, items: &Arc<Vec<Item>>, dropped: &[BadItem]) {
        let at = OffsetDateTime::now_utc();
        let mut runtime = self.board.runtime();
        runtime.listings[kind] = ListingReport::new(kind, items.len(), dropped);
        if kind == Kind::Tool {
            runtime.listed_at = Some(at);
        }
        self.board.set_runtime(runtime);

        let known = self.board.list(kind);
        let before = known.as_deref().map_or(&[][..], Vec::as_slice);
        let Changes { added, removed, changed } = Changes::between(before, items);
        let change = Arc::new(CatalogueChange {
            mcp_server_uuid: self.board.id,
            name: self.board.spec().name.clone(),
            at,
            kind: kind.noun(),
            count: items.len(),
            tools: self.board.runtime().tools(),
            added: added.as_slice().into(),
            removed: removed.as_slice().into(),
            changed: changed.as_slice().into(),
        });
        if known.is_none_or(|known| known != *items) {
            self.board.set_list(kind, items.clone());
            self.listener.listed(self.board.id, kind, items);
        }
        if !change.is_empty() {
            tracing::info!(
                server = %change.name, added = change.added.count, removed = change.removed.count,
                changed = change.changed.count, "the {}s of `{}` have changed", change.kind, change.name,
            );
            self.listener.changed(&change);
        }
        self.board.refresh[kind].end(Ok(change));
    }
}
