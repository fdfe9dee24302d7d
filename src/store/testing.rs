//! Runs the body of a test on both databases, and holds the words that store tests speak.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::LazyLock;

use sea_orm::{ActiveModelTrait, ConnectionTrait};
use uuid::Uuid;

use super::{
    DatabaseOptions, ErrorStatus, ListedItem, ListedTool, Membership, Naming, NewNamespace,
    NewServer, Problem, Record, Server, ServerKind, Status, Store, StoreError, now, postgres,
};
use crate::identity::secret::Secret;
use crate::identity::vault::Vault;

/// Runs `body` with an empty store on SQLite, and then on PostgreSQL.
pub async fn on_both(body: impl AsyncFn(Store)) {
    on_both_databases(async |options, data_dir| body(open(&options, data_dir).await).await).await;
}

/// The same, for a body that opens the store itself: perhaps twice.
pub async fn on_both_databases(body: impl AsyncFn(DatabaseOptions, &Path)) {
    for url in [None, Some(postgres::fresh_database())] {
        let url = match url {
            None => None,
            Some(None) => return,
            Some(Some(url)) => Some(Secret::new(url)),
        };
        let name = if url.is_some() { "PostgreSQL" } else { "SQLite" };
        // Shown only when the test fails: it tells on which database.
        #[expect(clippy::print_stdout)]
        {
            println!("on {name}");
        }
        let data_dir = tempfile::tempdir().unwrap();
        body(DatabaseOptions { url, ..DatabaseOptions::default() }, data_dir.path()).await;
    }
}

pub async fn open(options: &DatabaseOptions, data_dir: &Path) -> Store {
    let vault = Vault::open(data_dir).unwrap();
    Store::open(options, data_dir, vault).await.unwrap()
}

pub fn process(name: &str) -> NewServer {
    let command = Some("npx".to_owned());
    NewServer { command, ..NewServer::new(name, ServerKind::Stdio) }
}

/// A certificate, always the same.
pub fn authority() -> &'static str {
    static PEM: LazyLock<String> = LazyLock::new(|| {
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()
    });
    &PEM
}

pub fn owned(mut server: NewServer, owner: &str) -> NewServer {
    server.user_id = Some(owner.to_owned());
    server
}

pub fn group(name: &str, servers: &[&Server]) -> NewNamespace {
    NewNamespace {
        name: name.to_owned(),
        description: None,
        naming: Naming::Always,
        uri_naming: Naming::Never,
        default_tool_status: Status::Active,
        user_id: None,
        servers: members(servers),
    }
}

pub fn members(servers: &[&Server]) -> Vec<Membership> {
    servers
        .iter()
        .map(|server| Membership { server: server.uuid, status: Status::Active })
        .collect()
}

pub async fn add_user(store: &Store, id: &str) {
    let user = entity::user::Model {
        id: id.to_owned(),
        name: id.to_owned(),
        email: format!("{id}@example.org"),
        email_verified: true,
        image: None,
        created_at: now(),
        updated_at: now(),
    };
    let transaction = store.write().await.unwrap();
    sea_orm::IntoActiveModel::into_active_model(user).insert(&transaction).await.unwrap();
    transaction.commit().await.unwrap();
}

/// The fields that were refused.
pub fn refused<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> Vec<String> {
    match outcome {
        Err(StoreError::Invalid(problems)) => {
            problems.into_iter().map(|Problem { field, .. }| field).collect()
        }
        other => panic!("expected a refusal, not {other:?}"),
    }
}

pub fn no_one() -> Uuid {
    Uuid::from_u128(0xdead)
}

pub fn listed(name: &str) -> ListedTool {
    ListedTool {
        name: name.to_owned(),
        title: None,
        description: Some(format!("does {name}")),
        input_schema_json: r#"{"type":"object"}"#.to_owned(),
        // The order of keys and the blanks have to survive.
        definition: format!(r#"{{"name":"{name}", "inputSchema":{{"type":"object"}},"a":1}}"#),
    }
}

pub fn listed_item(key: &str) -> ListedItem {
    // The order of keys and the blanks have to survive.
    ListedItem { key: key.to_owned(), definition: format!(r#"{{"z":1.0, "key":"{key}"}}"#) }
}

/// A failure of a server, told apart by its number.
pub fn failure(server: Uuid, number: u64) -> Record {
    Record::Transition {
        server,
        at: now(),
        state: "BACKOFF".to_owned(),
        error_status: ErrorStatus::Error,
        reason: "EXITED".to_owned(),
        message: Some(format!("exit {number}")),
        exit_code: Some(1),
        exit_signal: None,
        restarts: number,
        stderr_tail: None,
    }
}

pub async fn run(store: &Store, sql: &str) -> Result<(), StoreError> {
    let transaction = store.write().await?;
    transaction.execute_unprepared(sql).await?;
    transaction.commit().await?;
    Ok(())
}
