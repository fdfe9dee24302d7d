//! Keeps the lists of an upstream fresh for as long as its worker lives.
//!
//! Each kind is listed on its own: the tools before the first call, and whatever else is offered
//! behind it, so that a slow list holds up none of the others.

use std::sync::Arc;

use futures_util::{FutureExt, future::select_all};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Assignment, News};
use crate::{
    catalogue::{
        item::Item,
        kind::{Kind, PerKind},
    },
    upstream::{
        CallError, Exit, Reason,
        link::Link,
        lists::{self, ListOptions, Listed},
        nesting::Nested,
    },
    wire::Topic,
};

/// What an upstream has said of changes, until it is acted on.
#[derive(Default)]
pub struct Announcements(PerKind<Notify>);

impl Announcements {
    /// Takes note that lists have changed.
    pub fn hear(&self, topic: Topic) {
        for kind in Kind::of_topic(topic) {
            self.0[kind].notify_one();
        }
    }

    /// Takes note that any list may have changed without our hearing of it.
    pub fn presume_all(&self) {
        self.0.iter().for_each(|(_, changed)| changed.notify_one());
    }
}

/// The list that comes before the first call: that of the tools.
///
/// Where an earlier list is known it is good enough to begin with: one that is slow to come is asked
/// for again behind, and one that fails is told of and tried again.
pub async fn first(assignment: &Assignment, link: &Link) -> Result<(), Exit> {
    let board = &assignment.board;
    let listing = list(assignment, link, Kind::Tool);
    match board.list(Kind::Tool).is_some() {
        true => {
            match timeout(assignment.workshop.lists.first_wait, listing).await {
                Ok(Err(NotListed::Unusable(exit))) => return Err(exit),
                Ok(Ok(()) | Err(NotListed::Failed(_))) => {}
                Err(_elapsed) => {
                    tracing::warn!(server = %board.spec().name, "the tools are slow to be listed; the last list serves meanwhile");
                    board.refresh[Kind::Tool].ask();
                }
            }
            Ok(())
        }
        false => listing.await.map_err(|not_listed| match not_listed {
            NotListed::Failed(exit) => exit,
            NotListed::Unusable(exit) => exit,
        }),
    }
}

/// Lists everything but the tools, and everything again: at once where somebody asks for it, when
/// the upstream says that it has changed, after a failure, and at a pace where it would not say so.
/// Never more than one listing of a kind at a time. Returns when the upstream is found to be of no
/// use.
pub async fn keep_listed(assignment: &Assignment, link: &Link, changed: &Announcements) -> Exit {
    let kinds =
        Kind::ALL.map(|kind| Box::pin(keep_kind_listed(assignment, link, kind, &changed.0[kind])));
    let (exit, ..) = select_all(kinds).await;
    exit
}

async fn keep_kind_listed(
    assignment: &Assignment,
    link: &Link,
    kind: Kind,
    changed: &Notify,
) -> Exit {
    let lists = &assignment.workshop.lists;
    let refresh = &assignment.board.refresh[kind];
    let mut began = Instant::now();
    if kind != Kind::Tool
        && let Err(NotListed::Unusable(exit)) = list(assignment, link, kind).await
    {
        return exit;
    }
    loop {
        tokio::select! {
            biased;
            () = refresh.wanted() => {}
            () = announced(changed, lists, began) => {
                // Whoever announces some has some, whatever was said in the handshake.
                refresh.set_is_offered(true);
            }
            () = due(link, lists, kind, refresh.has_failed()) => {}
        }
        began = Instant::now();
        // A failure is told and kept there; the next round goes by it.
        if let Err(NotListed::Unusable(exit)) = list(assignment, link, kind).await {
            return exit;
        }
    }
}

/// Waits for an announcement, and then until those that come close to it have come too.
async fn announced(changed: &Notify, lists: &ListOptions, last_began: Instant) {
    changed.notified().await;
    let rested = last_began + lists.refresh_rest;
    sleep_until(rested.max(Instant::now() + lists.debounce)).await;
    // One that came meanwhile is answered by the listing that now begins.
    changed.notified().now_or_never();
}

/// Waits until it is time to look without having been told to.
async fn due(link: &Link, lists: &ListOptions, kind: Kind, has_failed: bool) {
    if has_failed {
        return sleep(lists.retry_every).await;
    }
    if lists.refresh_every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(lists.refresh_every).await;
        if !link.announces(kind) {
            return;
        }
    }
}

/// Why there is no new list.
enum NotListed {
    Failed(Exit),
    /// There must not be one, nor may the upstream be called.
    Unusable(Exit),
}

/// One listing, told to the supervisor, whatever comes of it. The known list stays when it fails.
async fn list(assignment: &Assignment, link: &Link, kind: Kind) -> Result<(), NotListed> {
    let Assignment { board, workshop, tell, .. } = assignment;
    let refresh = &board.refresh[kind];
    refresh.begin();
    if !refresh.is_offered() {
        refresh.set_has_failed(false);
        tell(News::Listed { kind, items: Arc::default(), dropped: Vec::new() });
        return Ok(());
    }
    let spec = board.spec();
    let server: Arc<str> = Arc::from(&*spec.name);
    if let Err(exit) = Nested::look(board, link, spec.connect_timeout).await {
        refresh.set_has_failed(true);
        let why = Arc::from(exit.detail.clone().unwrap_or_default());
        tell(News::NotListed { kind, why });
        return Err(NotListed::Unusable(exit));
    }
    let listed = lists::list(link, &server, kind, &workshop.lists, spec.connect_timeout).await;
    refresh.set_has_failed(listed.is_err());
    match listed {
        Ok(Listed { mut items, dropped }) => {
            if kind == Kind::Tool && !board.port.has_tasks() {
                // Of a server that does not declare tasks, clients are to make none, whatever its tools
                // say (basic, "Tasks", "Tool-Level Negotiation"); and we declare them for all.
                items.iter_mut().for_each(Item::forbid_tasks);
            }
            tell(News::Listed { kind, items: Arc::new(items), dropped });
            Ok(())
        }
        Err(error) => {
            let error = error.of(&board.port.facts.load());
            let why: Arc<str> = Arc::from(error.to_string());
            tracing::warn!(%server, %error, "`{}` failed", kind.list_method());
            tell(News::NotListed { kind, why: why.clone() });
            Err(NotListed::Failed(match error {
                // A person has to change something first.
                CallError::InsufficientScope { scope, .. } => Exit::for_want_of(scope),
                CallError::Unauthorized { .. } => Exit::new(Reason::Unauthorized, &*why),
                CallError::NoToken { .. } => Exit::new(Reason::TokenFailed, &*why),
                _ => Exit::new(Reason::ListFailed, &*why),
            }))
        }
    }
}
