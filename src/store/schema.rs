//! Tests that the migrations make on both databases what the entities and the rules expect.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use migration::{Migrator, MigratorTrait};
use sea_orm::{
    ColumnTrait, ConnectionTrait, Database, DatabaseConnection, DbBackend, EntityTrait, Iterable,
    Statement,
};

use super::testing::{on_both, on_both_databases, open, process, run};
use super::{
    DatabaseOptions, ErrorStatus, Isolation, KeyKind, Naming, Profile, Protocol, SchemaProfile,
    ServerKind, StartMode, Status,
};
use super::{Store, StoreError};
use crate::identity::vault::Vault;

#[tokio::test]
async fn every_entity_has_exactly_the_columns_of_its_table() {
    on_both(async |store| {
        let database = store.reader();
        compare::<entity::account::Entity>(database).await;
        compare::<entity::api_key::Entity>(database).await;
        compare::<entity::config::Entity>(database).await;
        compare::<entity::ended_session::Entity>(database).await;
        compare::<entity::endpoint::Entity>(database).await;
        compare::<entity::item::Entity>(database).await;
        compare::<entity::item_listing::Entity>(database).await;
        compare::<entity::log_entry::Entity>(database).await;
        compare::<entity::mcp_server::Entity>(database).await;
        compare::<entity::namespace::Entity>(database).await;
        compare::<entity::namespace_item_mapping::Entity>(database).await;
        compare::<entity::namespace_server_mapping::Entity>(database).await;
        compare::<entity::namespace_tool_mapping::Entity>(database).await;
        compare::<entity::oauth_access_token::Entity>(database).await;
        compare::<entity::oauth_authorization_code::Entity>(database).await;
        compare::<entity::oauth_client::Entity>(database).await;
        compare::<entity::oauth_session::Entity>(database).await;
        compare::<entity::session::Entity>(database).await;
        compare::<entity::shown_name::Entity>(database).await;
        compare::<entity::tool::Entity>(database).await;
        compare::<entity::upstream_transition::Entity>(database).await;
        compare::<entity::user::Entity>(database).await;
        compare::<entity::verification::Entity>(database).await;
    })
    .await;
}

async fn compare<E: EntityTrait>(database: &DatabaseConnection) {
    let table = E::default().table_name().to_owned();
    let expected: BTreeMap<String, bool> = E::Column::iter()
        .map(|column| {
            let name = sea_orm::IdenStatic::as_str(&column).to_owned();
            (name, column.def().is_null())
        })
        .collect();
    assert_eq!(columns_of(database, &table).await, expected, "{table}");
    // Reading proves that the types agree as well, defaults included.
    E::find().all(database).await.unwrap();
}

/// Name to whether it may be NULL.
async fn columns_of(database: &DatabaseConnection, table: &str) -> BTreeMap<String, bool> {
    let sql = match database.get_database_backend() {
        DbBackend::Sqlite => {
            "SELECT name, CAST(\"notnull\" = 0 AS integer) AS nullable FROM pragma_table_info(?)"
        }
        _ => {
            "SELECT column_name::text AS name, (is_nullable = 'YES')::int AS nullable \
             FROM information_schema.columns WHERE table_name = $1"
        }
    };
    let backend = database.get_database_backend();
    let rows = database
        .query_all_raw(Statement::from_sql_and_values(backend, sql, [table.into()]))
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            let name: String = row.try_get("", "name").unwrap();
            let nullable: i32 = row.try_get("", "nullable").unwrap();
            // SQLite calls the key of an INTEGER PRIMARY KEY table nullable, and never stores NULL.
            (name.clone(), nullable == 1 && name != "id")
        })
        .collect()
}

#[tokio::test]
async fn the_migrations_go_down_and_up_again() {
    on_both_databases(async |options, data_dir| {
        let database = match &options.url {
            Some(url) => Database::connect(url.expose()).await.unwrap(),
            None => {
                let url = format!("sqlite://{}?mode=rwc", data_dir.join("other.db").display());
                Database::connect(url).await.unwrap()
            }
        };
        Migrator::up(&database, None).await.unwrap();
        Migrator::down(&database, None).await.unwrap();
        assert!(columns_of(&database, "mcp_servers").await.is_empty());
        Migrator::up(&database, None).await.unwrap();
        assert!(!columns_of(&database, "oauth_access_tokens").await.is_empty());
        database.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_restart_finds_what_was_written() {
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        let made = store.create_server(process("files")).await.unwrap();
        store.close().await.unwrap();

        let store = open(&options, data_dir).await;
        assert_eq!(store.server("files").await.unwrap(), made);
    })
    .await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        run(&store, "INSERT INTO seaql_migrations VALUES ('m9999_flying', 0)").await.unwrap();
        store.close().await.unwrap();

        let refused = Store::open(&options, data_dir, Vault::open(data_dir).unwrap()).await;

        let Err(StoreError::NewerSchema { found, known }) = refused else { panic!("not refused") };
        assert_eq!((found.as_str(), known.as_str()), ("m9999_flying", "m0014_ca_certificates"));
    })
    .await;
}

#[tokio::test]
async fn two_daemons_that_start_at_once_take_turns_to_migrate() {
    on_both_databases(async |options, data_dir| {
        if options.url.is_none() {
            return; // A data directory has one daemon: that is settled before.
        }
        let stores = [(); 4].map(|()| open(&options, data_dir));
        futures_util::future::join_all(stores).await;
    })
    .await;
}

#[tokio::test]
async fn sqlite_is_copied_before_it_is_changed() {
    let data_dir = tempfile::tempdir().unwrap();
    let path = data_dir.path().join("metamcpd.db");
    let database =
        Database::connect(format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    Migrator::up(&database, Some(2)).await.unwrap();
    database.close().await.unwrap();
    let copy = data_dir.path().join("metamcpd.db.before-m0003_namespaces");
    std::fs::write(&copy, "what an interrupted start left").unwrap();

    open(&DatabaseOptions::default(), data_dir.path()).await;

    let copy = Database::connect(format!("sqlite://{}", copy.display())).await.unwrap();
    assert!(!columns_of(&copy, "mcp_servers").await.is_empty());
    assert!(columns_of(&copy, "namespaces").await.is_empty());
}

#[tokio::test]
async fn the_files_of_sqlite_are_private_and_its_pragmas_are_set() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let data_dir = parent.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let store = open(&DatabaseOptions::default(), &data_dir).await;
    store.create_server(process("files")).await.unwrap();

    for file in ["metamcpd.db", "metamcpd.db-wal", "metamcpd.db-shm", "secret.key"] {
        let mode = std::fs::metadata(data_dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    for connection in [&store.inner.writer, &store.inner.reader] {
        let pragmas = "SELECT j.journal_mode || ' ' || f.foreign_keys || ' ' || s.synchronous \
             || ' ' || b.timeout AS answer FROM pragma_journal_mode j, pragma_foreign_keys f, \
             pragma_synchronous s, pragma_busy_timeout b";
        let answer = connection.query_one_raw(statement(connection, pragmas)).await.unwrap();
        let answer: String = answer.unwrap().try_get("", "answer").unwrap();
        assert_eq!(answer, "wal 1 1 5000");
    }
    let refused = store.reader().execute_unprepared("DELETE FROM mcp_servers").await;
    assert!(refused.is_err(), "the pool that reads must not write");
}

#[tokio::test]
async fn a_url_that_is_no_postgres_url_is_refused() {
    let data_dir = tempfile::tempdir().unwrap();
    for url in ["mysql://localhost/x", "sqlite://x.db", "nonsense"] {
        let options = DatabaseOptions { url: Some(url.into()), ..DatabaseOptions::default() };
        let vault = Vault::open(data_dir.path()).unwrap();
        let refused = Store::open(&options, data_dir.path(), vault).await;
        assert!(matches!(refused, Err(StoreError::Options { .. })), "{url}");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_unavailable() {
    let data_dir = tempfile::tempdir().unwrap();
    let url = "postgres://nobody@localhost/x?host=/nonexistent";
    let options = DatabaseOptions { url: Some(url.into()), ..DatabaseOptions::default() };
    let vault = Vault::open(data_dir.path()).unwrap();
    let refused = Store::open(&options, data_dir.path(), vault).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))));
}

/// One for the only namespace there is.
const ENDPOINT: &str = "INSERT INTO endpoints (uuid, name, namespace_uuid) \
     SELECT @uuid, 'e', uuid FROM namespaces";

/// Rows as somebody might write them who does not come by our rules.
#[tokio::test]
async fn the_constraints_refuse_what_the_rules_refuse() {
    const SERVER: &str = "INSERT INTO mcp_servers (uuid, isolation, name, type, command, url) \
         VALUES (@uuid, 'SHARED', ";
    const NAMESPACE: &str = "INSERT INTO namespaces (uuid, name) VALUES (@uuid, ";
    on_both(async |store| {
        let hash = "a".repeat(64);
        let good = [
            format!("{SERVER} 'a_b-9', 'STDIO', 'npx', NULL)"),
            format!("{SERVER} 'b', 'SSE', NULL, 'https://x.example/sse')"),
            format!("{SERVER} 'c', 'STREAMABLE_HTTP', NULL, 'http://localhost:1')"),
            format!("{NAMESPACE} 'a__b')"),
            ENDPOINT.to_owned(),
            format!("INSERT INTO api_keys (uuid, name, key) VALUES (@uuid, 'k', '{hash}')"),
        ];
        for sql in &good {
            insert(&store, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let bad = [
            format!("{SERVER} '', 'STDIO', 'npx', NULL)"),
            format!("{SERVER} 'a b', 'STDIO', 'npx', NULL)"),
            format!("{SERVER} 'ä', 'STDIO', 'npx', NULL)"),
            format!("{SERVER} 'x__y', 'STDIO', 'npx', NULL)"),
            format!("{SERVER} 'd', 'STDIO', NULL, NULL)"),
            format!("{SERVER} 'd', 'STDIO', '  ', NULL)"),
            format!("{SERVER} 'd', 'SSE', 'npx', NULL)"),
            format!("{SERVER} 'd', 'SSE', NULL, 'ftp://x')"),
            format!("{SERVER} 'd', 'SSE', NULL, 'http://')"),
            format!("{SERVER} 'd', 'TELEPATHY', 'npx', 'http://x')"),
            format!("{SERVER} 'b', 'STDIO', 'npx', NULL)"),
            format!("{NAMESPACE} '')"),
            format!("{NAMESPACE} 'a.b')"),
            format!("{NAMESPACE} 'a__b')"),
            "INSERT INTO api_keys (uuid, name, key) VALUES (@uuid, 'l', 'sk_mt_clear')".to_owned(),
            "UPDATE mcp_servers SET isolation = 'ALONE'".to_owned(),
            "UPDATE mcp_servers SET error_status = 'FINE'".to_owned(),
            "UPDATE mcp_servers SET protocol = 'ANCIENT'".to_owned(),
            "UPDATE mcp_servers SET call_timeout_ms = 0".to_owned(),
            "UPDATE mcp_servers SET start = 'SOMEDAY'".to_owned(),
            "UPDATE mcp_servers SET idle_stop_ms = 0".to_owned(),
            "UPDATE mcp_servers SET profile = 'LOOSE'".to_owned(),
            "UPDATE mcp_servers SET concurrency_max = 0".to_owned(),
            "UPDATE mcp_servers SET ca_certificates = 'all of them'".to_owned(),
            "UPDATE namespaces SET naming = 'SOMETIMES'".to_owned(),
            "UPDATE namespaces SET uri_naming = 'SOMETIMES'".to_owned(),
            "UPDATE namespaces SET default_tool_status = 'MAYBE'".to_owned(),
            "UPDATE endpoints SET schema_profile = 'RAW'".to_owned(),
            "UPDATE mcp_servers SET user_id = 'nobody'".to_owned(),
        ];
        for sql in &bad {
            let refused = insert(&store, sql).await;
            assert!(matches!(refused, Err(StoreError::Internal(_))), "{sql}: {refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_constraints_know_every_word_of_the_rules() {
    on_both(async |store| {
        store.create_server(process("files")).await.unwrap();
        insert(&store, "INSERT INTO namespaces (uuid, name) VALUES (@uuid, 'n')").await.unwrap();
        insert(&store, ENDPOINT).await.unwrap();
        let key = "a".repeat(64);
        let sql = format!("INSERT INTO api_keys (uuid, name, key) VALUES (@uuid, 'k', '{key}')");
        insert(&store, &sql).await.unwrap();
        run(&store, "UPDATE mcp_servers SET url = 'http://x'").await.unwrap();

        let words = |of: &str, words: Vec<&'static str>| -> Vec<String> {
            words.into_iter().map(|word| format!("UPDATE {of} = '{word}'")).collect()
        };
        let statements = [
            words("mcp_servers SET type", all(ServerKind::ALL, |word| word.as_str())),
            words("mcp_servers SET isolation", all(Isolation::ALL, |word| word.as_str())),
            words("mcp_servers SET profile", all(Profile::ALL, |word| word.as_str())),
            words("mcp_servers SET start", all(StartMode::ALL, |word| word.as_str())),
            words("mcp_servers SET protocol", all(Protocol::ALL, |word| word.as_str())),
            words("mcp_servers SET error_status", all(ErrorStatus::ALL, |word| word.as_str())),
            words("namespaces SET naming", all(Naming::ALL, |word| word.as_str())),
            words("namespaces SET uri_naming", all(Naming::ALL, |word| word.as_str())),
            words("namespaces SET default_tool_status", all(Status::ALL, |word| word.as_str())),
            words("endpoints SET schema_profile", all(SchemaProfile::ALL, |word| word.as_str())),
            words("api_keys SET kind", all(KeyKind::ALL, |word| word.as_str())),
        ];
        for sql in statements.concat() {
            run(&store, &sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    })
    .await;
}

fn all<W: Copy>(words: &[W], text: impl Fn(W) -> &'static str) -> Vec<&'static str> {
    words.iter().map(|word| text(*word)).collect()
}

/// Runs `sql` with a new uuid for `@uuid`.
async fn insert(store: &Store, sql: &str) -> Result<(), StoreError> {
    let uuid = uuid::Uuid::now_v7();
    let literal = match store.reader().get_database_backend() {
        DbBackend::Sqlite => format!("x'{}'", uuid.simple()),
        _ => format!("'{uuid}'"),
    };
    run(store, &sql.replace("@uuid", &literal)).await
}

fn statement(connection: &DatabaseConnection, sql: &str) -> Statement {
    Statement::from_string(connection.get_database_backend(), sql)
}
