//! Keeps the list of an upstream's tools fresh for as long as its worker lives.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Assignment, News};
use crate::upstream::{
    Exit, Reason,
    link::Link,
    nesting::Nested,
    tool_list::{self, ListOptions},
};

/// The list that comes before the first call.
///
/// Where an earlier list is known it is good enough to begin with: one that is slow to come is asked
/// for again behind, and one that fails is told of and tried again.
pub async fn first(assignment: &Assignment, link: &Link, has_tools: bool) -> Result<(), Exit> {
    let board = &assignment.board;
    board.refresh.set_has_tools(has_tools);
    let listing = list(assignment, link);
    match board.catalogue().is_some() {
        true => {
            match timeout(assignment.workshop.lists.first_wait, listing).await {
                Ok(Err(NotListed::Unusable(exit))) => return Err(exit),
                Ok(Ok(()) | Err(NotListed::Failed(_))) => {}
                Err(_elapsed) => {
                    tracing::warn!(server = %board.spec().name, "the tools are slow to be listed; the last list serves meanwhile");
                    board.refresh.ask();
                }
            }
            Ok(())
        }
        false => listing.await.map_err(|not_listed| match not_listed {
            NotListed::Failed(why) => Exit::new(Reason::ListFailed, &*why),
            NotListed::Unusable(exit) => exit,
        }),
    }
}

/// Lists the tools again: at once where somebody asks for it, when the upstream says that they have
/// changed, after a failure, and at a pace where it would not say so. Never more than one at a time.
/// Returns when the upstream is found to be of no use.
pub async fn keep_listed(assignment: &Assignment, link: &Link, changed: &Notify) -> Exit {
    let lists = &assignment.workshop.lists;
    let refresh = &assignment.board.refresh;
    let mut began = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = refresh.wanted() => {}
            () = announced(changed, lists, began) => {
                // Whoever announces tools has some, whatever was said in the handshake.
                refresh.set_has_tools(true);
            }
            () = due(link, lists, refresh.has_failed()) => {}
        }
        began = Instant::now();
        // A failure is told and kept there; the next round goes by it.
        if let Err(NotListed::Unusable(exit)) = list(assignment, link).await {
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
async fn due(link: &Link, lists: &ListOptions, has_failed: bool) {
    if has_failed {
        return sleep(lists.retry_every).await;
    }
    if lists.refresh_every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(lists.refresh_every).await;
        if !link.announces() {
            return;
        }
    }
}

/// Why there is no new list.
enum NotListed {
    Failed(Arc<str>),
    /// There must not be one, nor may the upstream be called.
    Unusable(Exit),
}

/// One listing, told to the supervisor, whatever comes of it. The known list stays when it fails.
async fn list(assignment: &Assignment, link: &Link) -> Result<(), NotListed> {
    let Assignment { board, workshop, tell, .. } = assignment;
    board.refresh.begin();
    if !board.refresh.has_tools() {
        board.refresh.set_has_failed(false);
        tell(News::Listed(Arc::default()));
        return Ok(());
    }
    let spec = board.spec();
    let server: Arc<str> = Arc::from(&*spec.name);
    if let Err(exit) = Nested::look(board, link, spec.connect_timeout).await {
        board.refresh.set_has_failed(true);
        tell(News::NotListed(Arc::from(exit.detail.clone().unwrap_or_default())));
        return Err(NotListed::Unusable(exit));
    }
    let listed = tool_list::list_tools(link, &server, &workshop.lists, spec.connect_timeout).await;
    board.refresh.set_has_failed(listed.is_err());
    match listed {
        Ok(tools) => {
            tell(News::Listed(Arc::new(tools)));
            Ok(())
        }
        Err(error) => {
            let why: Arc<str> = Arc::from(error.to_string());
            tracing::warn!(%server, %error, "the tools were not listed");
            tell(News::NotListed(why.clone()));
            Err(NotListed::Failed(why))
        }
    }
}
