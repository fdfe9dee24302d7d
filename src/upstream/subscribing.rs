//! How a client's subscription to a resource comes about and ends: by its own request where it is the
//! first of its upstream session, and without a word where others have come before or stay.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    CallError,
    attribution::Client,
    exchange::SessionKey,
    link::Caller,
    port::{Port, Step},
};
use crate::wire::Frame;

/// How a subscription was answered.
#[derive(Debug)]
pub enum Subscribed {
    /// By the upstream, with a result or an error.
    Answered(Bytes),
    /// Its session was subscribed already.
    Joined,
    /// The upstream of this name does not say that it can be subscribed to.
    NotOffered(Arc<str>),
    /// The client has as many subscriptions as it may.
    TooMany,
}

impl Port {
    /// Subscribes a client to a resource by its own request. `has_room` is asked last, so that what is
    /// under way counts.
    pub async fn subscribe(
        &self,
        frame: Frame,
        uri: &str,
        caller: &Caller<'_>,
        cancel: CancellationToken,
        has_room: impl Fn() -> bool,
    ) -> Result<Subscribed, CallError> {
        let facts = self.facts.load_full();
        let key = caller.key(facts.isolation);
        let turn = self.subscriptions.turn(&key, uri);
        let _ours = tokio::select! {
            turn = turn.lock() => turn,
            () = cancel.cancelled() => return Err(CallError::Cancelled),
        };
        let client = caller.session;
        if !self.subscriptions.subscribers(&key, uri).contains(client) && !has_room() {
            return Ok(Subscribed::TooMany);
        }
        let declared = caller.declared(facts.isolation);
        if !self.subscriptions.subscribe(&key, declared, uri, client) {
            return Ok(Subscribed::Joined);
        }
        // Only the first has to find the upstream up: what was agreed on is said again by itself.
        let answered = match self.link(&facts, Instant::now(), &cancel).await {
            Ok(_link) if self.has_subscriptions() => self.answer(frame, caller, cancel).await,
            Ok(_link) => {
                self.subscriptions.unsubscribe(uri, client);
                return Ok(Subscribed::NotOffered(facts.name.clone()));
            }
            Err(error) => Err(error),
        };
        let is_agreed = answered.as_ref().is_ok_and(|answer| !is_error(answer));
        if is_agreed {
            self.subscriptions.agreed(&key, uri);
        }
        // Whoever went meanwhile, or got no answer, may have left the upstream subscribed.
        let is_uncertain = answered.is_err() || !self.subscriptions.is_wanted(&key, uri);
        if !is_agreed {
            self.subscriptions.unsubscribe(uri, client);
        }
        if is_uncertain {
            self.unsubscribe_session(key, uri.into());
        }
        answered.map(Subscribed::Answered)
    }

    /// A client does not want to hear of a resource any more.
    pub fn unsubscribe(&self, uri: &str, client: &Client) {
        for key in self.subscriptions.unsubscribe(uri, client) {
            self.unsubscribe_session(key, uri.into());
        }
    }

    /// Tells a session of the upstream that a resource is not to be heard of, unless somebody has come
    /// to want it by the time that its turn has come.
    pub(super) fn unsubscribe_session(&self, key: SessionKey, uri: Box<str>) {
        // One that is started anew is not told of it.
        let Some(link) = self.current_link(&key) else { return };
        if !self.has_subscriptions() {
            return;
        }
        let subscriptions = self.subscriptions.clone();
        actix::spawn(async move {
            let turn = subscriptions.turn(&key, &uri);
            let _ours = turn.lock().await;
            if !subscriptions.is_wanted(&key, &uri) {
                link.tell_of_resource(&key, "resources/unsubscribe", &uri).await;
            }
        });
    }

    async fn answer(
        &self,
        frame: Frame,
        caller: &Caller<'_>,
        cancel: CancellationToken,
    ) -> Result<Bytes, CallError> {
        let mut conversation = self.call(frame, Vec::new(), caller, cancel).await?;
        loop {
            match conversation.next().await {
                // A question that is dropped is refused.
                Step::Event(_) | Step::Asked(_) | Step::Said(_) => {}
                Step::End(outcome) => return outcome,
            }
        }
    }
}

fn is_error(answer: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        error: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice(answer).map_or(true, |answer: Answer| answer.error.is_some())
}
