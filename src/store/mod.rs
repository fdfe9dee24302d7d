//! What we remember, and the only room that names the database.
//!
//! Its questions are those of the domain and its answers are domain types: no row, no SQL and no
//! driver error leaves. It decides what may be written; it never decides what is done about it,
//! and nothing of it is on the path of a call.

mod database;
mod error;
mod page;
mod place;
mod rules;
mod sealing;
mod words;

mod api_keys;
mod backlog;
mod config;
mod ended_sessions;
mod endpoints;
mod history;
mod inspect;
mod item_policies;
mod items;
mod journal;
mod logs;
mod members;
mod memory;
mod namespaces;
mod oauth_rules;
mod oauth_sessions;
mod offered;
mod policies;
mod record;
mod server;
mod server_bulk;
mod server_rules;
mod servers;
mod shown_names;
mod spill;
mod statuses;
mod tools;
mod transitions;
mod upkeep;
mod wanted;

#[cfg(test)]
mod lists;
#[cfg(test)]
#[path = "../../tests/support/postgres.rs"]
pub mod postgres;
#[cfg(test)]
mod schema;
#[cfg(test)]
pub mod testing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend,
    IsolationLevel, SqliteTransactionMode, TransactionOptions, TransactionTrait,
};
use time::OffsetDateTime;

use crate::identity::vault::Vault;
use place::Place;

pub use api_keys::{ApiKey, ApiKeyFilter, ApiKeyPatch, KeyRecord, NewApiKey};
pub use config::ConfigValue;
pub use database::DatabaseOptions;
pub use ended_sessions::EndedSession;
pub use endpoints::{Endpoint, EndpointFilter, EndpointPatch, NewEndpoint, Rates};
pub use error::StoreError;
pub use history::{HistoryFilter, Transition};
pub use inspect::Schema;
pub use item_policies::ItemPolicy;
pub use items::{Item, ListedItem};
pub use journal::{Journal, JournalOptions};
pub use members::{Member, Membership};
pub use namespaces::{Namespace, NamespaceFilter, NamespacePatch, NewNamespace};
pub use oauth_sessions::{ClientInformation, NewOAuthSession, OAuthSession, OAuthTokens, Sealed};
pub use page::{Page, PageRequest};
pub use policies::{ToolPolicy, ToolPolicyPatch};
pub use record::Record;
pub use rules::{KeyName, Name, Problem, ServerName};
pub use sealing::is_reference;
pub use server::{NewServer, Server, ServerFilter, ServerPatch, Timeouts};
pub use shown_names::ShownName;
pub use spill::Spill;
pub use tools::{ListedTool, StoredTool, Tool, ToolOutline};
pub use upkeep::{Upkeep, UpkeepPatch};
pub use wanted::{Running, Wanted};
pub use words::{
    AuthMethod, ErrorStatus, Isolation, ItemKind, KeyKind, Naming, Profile, Protocol,
    SchemaProfile, ServerKind, StartMode, Status,
};

/// Held in every transaction that writes on PostgreSQL, so that there is one writer at a time as
/// there is on SQLite, and what was read in it stays true until it ends.
const WRITER_LOCK: i64 = 0x6d65_7461_6d63_7002;

/// The database and the key to its secrets. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    reader: DatabaseConnection,
    /// The same pool as `reader` on PostgreSQL; the one connection that writes on SQLite.
    writer: DatabaseConnection,
    /// Of SQLite's file.
    place: Option<Place>,
    vault: Vault,
    /// How long a transaction that is written behind may take.
    write_timeout: Duration,
}

impl Store {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// `NewerSchema` when a later version has been here, `Options` when the URL is none of ours,
    /// `Unavailable` when the database does not answer.
    pub async fn open(
        options: &DatabaseOptions,
        data_dir: &Path,
        vault: Vault,
    ) -> Result<Store, StoreError> {
        let (reader, writer, place) = database::open(options, data_dir).await?;
        let write_timeout = options.write_timeout;
        Ok(Store { inner: Arc::new(Inner { reader, writer, place, vault, write_timeout }) })
    }

    /// Whether the database answers at all, and is the one that lies in the data directory.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.check_place()?;
        Ok(self.inner.reader.ping().await?)
    }

    /// Closes the connections; what is running on them is finished first.
    pub async fn close(self) -> Result<(), StoreError> {
        self.inner.reader.close_by_ref().await?;
        self.inner.writer.close_by_ref().await?;
        Ok(())
    }

    fn check_place(&self) -> Result<(), StoreError> {
        self.inner.place.as_ref().map_or(Ok(()), Place::check)
    }

    fn reader(&self) -> &DatabaseConnection {
        &self.inner.reader
    }

    fn write_timeout(&self) -> Duration {
        self.inner.write_timeout
    }

    fn vault(&self) -> &Vault {
        &self.inner.vault
    }

    /// One consistent view for several questions.
    async fn snapshot(&self) -> Result<DatabaseTransaction, StoreError> {
        self.check_place()?;
        let options = match self.inner.reader.get_database_backend() {
            DbBackend::Postgres => TransactionOptions {
                isolation_level: Some(IsolationLevel::RepeatableRead),
                access_mode: Some(AccessMode::ReadOnly),
                ..TransactionOptions::default()
            },
            _ => TransactionOptions::default(),
        };
        Ok(self.inner.reader.begin_with_options(options).await?)
    }

    /// A transaction that writes. It is rolled back unless it is committed.
    ///
    /// It takes the right to write at once: a transaction that reads first and asks for it later
    /// fails on SQLite without waiting.
    async fn write(&self) -> Result<DatabaseTransaction, StoreError> {
        self.check_place()?;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = self.inner.writer.begin_with_options(options).await?;
        if transaction.get_database_backend() == DbBackend::Postgres {
            let lock = format!(
                "SET LOCAL lock_timeout = '{}ms'; SELECT pg_advisory_xact_lock({WRITER_LOCK})",
                database::LOCK_TIMEOUT.as_millis(),
            );
            transaction.execute_unprepared(&lock).await?;
        }
        Ok(transaction)
    }
}

/// The time, in what both databases can keep: microseconds.
pub(crate) fn now() -> OffsetDateTime {
    kept(OffsetDateTime::now_utc())
}

/// A time as both databases keep it.
fn kept(at: OffsetDateTime) -> OffsetDateTime {
    let nanosecond = at.nanosecond() / 1_000 * 1_000;
    at.replace_nanosecond(nanosecond).unwrap_or(at).to_offset(time::UtcOffset::UTC)
}
