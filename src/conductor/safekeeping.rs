//! Has the tokens that upstreams' connections renewed written down, in the order in which they came.

use std::time::Duration;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::{
    identity::secret::Secret,
    store::{Journal, OAuthTokens, Record, Store},
    upstream::oauth::{TokenKeeper, Tokens},
};

/// By the journal, so that what waits for a database that is away is never written over what is newer.
/// What lies there is sealed already.
pub struct Safekeeping {
    store: Store,
    journal: Journal,
    wait: Duration,
}

impl Safekeeping {
    /// `wait`: how long the database has.
    pub fn new(store: Store, journal: Journal, wait: Duration) -> Self {
        Self { store, journal, wait }
    }
}

impl TokenKeeper for Safekeeping {
    fn keep(&self, grant: Uuid, tokens: Tokens) -> BoxFuture<'static, bool> {
        let Tokens { access_token, refresh_token, expires_at, scope } = tokens;
        let tokens = OAuthTokens {
            access_token: access_token.map(Secret::new),
            refresh_token: refresh_token.map(Secret::new),
            expires_at,
            scope,
        };
        let (journal, wait) = (self.journal.clone(), self.wait);
        let sealed = self.store.seal_oauth_tokens(grant, &tokens);
        Box::pin(async move {
            match sealed {
                Ok(sealed) => {
                    journal.try_record(Record::OAuthTokens { session: grant, sealed })
                        && journal.flush(wait).await
                }
                Err(error) => {
                    tracing::error!(%grant, %error, "renewed tokens could not be sealed");
                    false
                }
            }
        })
    }
}
