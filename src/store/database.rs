//! Connects to SQLite in the data directory or to PostgreSQL, and brings the schema up to date.
//!
//! SQLite has one connection that writes and a pool that only reads. A schema newer than ours is
//! refused before anything is touched. Who may use the data directory is settled before.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use migration::{Migrator, MigratorTrait};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection};
use serde::Deserialize;

use super::error::StoreError;
use super::place::Place;
use crate::identity::secret::Secret;

/// How long a writer waits for the one before it.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

const FILE: &str = "metamcpd.db";
/// Held while the schema is changed, so that two daemons on one PostgreSQL take turns.
const MIGRATION_LOCK: i64 = 0x6d65_7461_6d63_7001;
const PING_IF_IDLE_FOR: Duration = Duration::from_secs(30);

/// Where the database is and how much of it we use.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatabaseOptions {
    /// `postgres://…`, or nothing for SQLite in the data directory. Secret: it holds a password.
    pub url: Option<Secret>,
    /// Connections at most; on SQLite those that read.
    pub connections_max: u32,
    /// How long a question waits for a free connection.
    #[serde(with = "humantime_serde")]
    pub acquire_timeout: Duration,
    /// How long an operator's request waits for all that it asks.
    #[serde(with = "humantime_serde")]
    pub answer_timeout: Duration,
    /// How long the journal waits for one transaction, and a connection that was given up for a sign of
    /// life, before it is dropped.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
}

impl Default for DatabaseOptions {
    fn default() -> DatabaseOptions {
        DatabaseOptions {
            url: None,
            connections_max: 8,
            acquire_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_millis(5_500),
            write_timeout: Duration::from_secs(10),
        }
    }
}

/// The connections to read and to write by; on PostgreSQL they are the same pool. And where SQLite's file is.
pub async fn open(
    options: &DatabaseOptions,
    data_dir: &Path,
) -> Result<(DatabaseConnection, DatabaseConnection, Option<Place>), StoreError> {
    let url = options.url.as_ref().filter(|url| !url.expose().is_empty());
    match url {
        None => open_sqlite(options, data_dir).await,
        Some(url) => {
            let pool = open_postgres(options, url).await?;
            Ok((pool.clone(), pool, None))
        }
    }
}

async fn open_sqlite(
    options: &DatabaseOptions,
    data_dir: &Path,
) -> Result<(DatabaseConnection, DatabaseConnection, Option<Place>), StoreError> {
    let path = data_dir.join(FILE);
    let unavailable = |error: io::Error| StoreError::Unavailable(Box::new(error));
    make_private(data_dir, &path).map_err(unavailable)?;

    let writer = connect_sqlite(options, &path, 1, |sqlite| sqlite).await?;
    migrate(&writer, Some(data_dir)).await?;
    let reader = connect_sqlite(options, &path, options.connections_max, |sqlite| {
        sqlite.pragma("query_only", "ON")
    })
    .await?;
    let place = Place::of(path).map_err(unavailable)?;
    Ok((reader, writer, Some(place)))
}

/// One connection that cannot write, to a database that is there already.
pub async fn open_to_read(
    options: &DatabaseOptions,
    data_dir: &Path,
) -> Result<DatabaseConnection, StoreError> {
    let url = options.url.as_ref().filter(|url| !url.expose().is_empty());
    match url {
        None => {
            let path = data_dir.join(FILE);
            connect_sqlite(options, &path, 1, |sqlite| {
                sqlite.create_if_missing(false).pragma("query_only", "ON")
            })
            .await
        }
        Some(url) => {
            let parsed = postgres_options(url)?;
            let parsed = parsed.options([("default_transaction_read_only", "on")]);
            connect_postgres(options, &parsed, 1).await
        }
    }
}

async fn connect_sqlite(
    options: &DatabaseOptions,
    path: &Path,
    connections_max: u32,
    also: impl Fn(SqliteConnectOptions) -> SqliteConnectOptions + Send + Sync + 'static,
) -> Result<DatabaseConnection, StoreError> {
    let path = path.to_owned();
    let mut connect = ConnectOptions::new("sqlite:file");
    connect
        .max_connections(connections_max.max(1))
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .record_stmt_in_spans(false)
        .sqlx_logging(false)
        .map_sqlx_sqlite_pool_opts(|pool| {
            // A COMMIT that failed, on a full disk for one, leaves its transaction open. What the next one
            // on this connection wrote would become part of it, and be confirmed and never kept.
            pool.after_release(|connection, _| {
                Box::pin(async move {
                    // What was begun to be rolled back has been, once this is answered.
                    connection.ping().await?;
                    Ok(!connection.is_in_transaction())
                })
            })
        })
        .map_sqlx_sqlite_opts(move |sqlite| {
            also(
                sqlite
                    .filename(&path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Normal)
                    .foreign_keys(true)
                    .busy_timeout(LOCK_TIMEOUT),
            )
        });
    Ok(Database::connect(connect).await?)
}

async fn open_postgres(
    options: &DatabaseOptions,
    url: &Secret,
) -> Result<DatabaseConnection, StoreError> {
    let parsed = postgres_options(url)?;
    let alone = connect_postgres(options, &parsed, 1).await?;
    let migrated = migrate_in_turn(&alone).await;
    alone.close().await?;
    migrated?;
    connect_postgres(options, &parsed, options.connections_max.max(2)).await
}

fn postgres_options(url: &Secret) -> Result<PgConnectOptions, StoreError> {
    let url = url.expose();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let reason = "database.url has to begin with postgres:// or postgresql://".to_owned();
        return Err(StoreError::Options { reason });
    }
    let parsed = PgConnectOptions::from_str(url).map_err(|error| StoreError::Options {
        reason: format!("database.url cannot be read: {error}"),
    })?;
    Ok(parsed.application_name("metamcpd").disable_statement_logging())
}

async fn connect_postgres(
    options: &DatabaseOptions,
    parsed: &PgConnectOptions,
    connections_max: u32,
) -> Result<DatabaseConnection, StoreError> {
    let (parsed, sign_of_life) = (parsed.clone(), options.write_timeout);
    // The driver traces the URL it is given, so it gets one without a password.
    let mut connect = ConnectOptions::new("postgres://localhost");
    connect
        .max_connections(connections_max)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire_if_idle_for(PING_IF_IDLE_FOR)
        .record_stmt_in_spans(false)
        .map_sqlx_postgres_pool_opts(move |pool| {
            // As above: a transaction whose end failed is nobody's any more. And a server that has stopped
            // answers nothing at all: what waited for it and gave up is not to keep its place for ever.
            pool.after_release(move |connection, _| {
                let is_clean = !connection.is_in_transaction();
                Box::pin(async move {
                    match tokio::time::timeout(sign_of_life, connection.ping()).await {
                        Ok(answered) => answered.map(|()| is_clean),
                        Err(_elapsed) => Err(sea_orm::sqlx::Error::PoolTimedOut),
                    }
                })
            })
        })
        .map_sqlx_postgres_opts(move |_| parsed.clone());
    Ok(Database::connect(connect).await?)
}

/// The lock belongs to the connection: it is given back when that closes, whatever happened.
async fn migrate_in_turn(alone: &DatabaseConnection) -> Result<(), StoreError> {
    alone.execute_unprepared(&format!("SELECT pg_advisory_lock({MIGRATION_LOCK})")).await?;
    migrate(alone, None).await?;
    alone.execute_unprepared(&format!("SELECT pg_advisory_unlock({MIGRATION_LOCK})")).await?;
    Ok(())
}

async fn migrate(
    connection: &DatabaseConnection,
    copy_to: Option<&Path>,
) -> Result<(), StoreError> {
    let known = migration::known();
    let applied: Vec<String> = Migrator::get_migration_models(connection)
        .await?
        .into_iter()
        .map(|change| change.version)
        .collect();
    if let Some(found) = applied.iter().filter(|change| !known.contains(change)).max() {
        return Err(StoreError::NewerSchema {
            found: found.clone(),
            known: known.last().cloned().unwrap_or_default(),
        });
    }
    let Some(next) = known.iter().find(|change| !applied.contains(change)) else { return Ok(()) };
    if let Some(data_dir) = copy_to.filter(|_| !applied.is_empty()) {
        copy_sqlite(connection, &data_dir.join(format!("{FILE}.before-{next}"))).await?;
    }
    Ok(Migrator::up(connection, None).await?)
}

/// A copy to go back to. One that an interrupted start left behind is made again.
async fn copy_sqlite(connection: &DatabaseConnection, copy: &Path) -> Result<(), StoreError> {
    make_private_file(copy, true).map_err(|error| StoreError::Unavailable(Box::new(error)))?;
    let quoted = copy.to_string_lossy().replace('\'', "''");
    connection.execute_unprepared(&format!("VACUUM INTO '{quoted}'")).await?;
    Ok(())
}

/// The files beside the database (`-wal`, `-shm`) inherit its mode.
fn make_private(data_dir: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    make_private_file(path, false)
}

fn make_private_file(path: &Path, empty: bool) -> io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(empty).mode(0o600).open(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
}
