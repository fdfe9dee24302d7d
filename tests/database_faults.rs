//! The database is away, full, stopped or broken: who is known goes on being served, changes are refused in
//! bounded time, and nothing is damaged.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Stdio, time::Duration};

use migration::{Migrator, MigratorTrait};
use reqwest::Method;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use sea_orm::{ConnectionTrait, Database as Connect, DatabaseConnection, Statement};
use serde_json::{Value, json};

use crate::support::{
    Client, SOON, TestGateway,
    client::http,
    database::Database,
    gateway::{Start, binary},
    outage::Outage,
    postgres, processes, skipped, wait_until, within,
};

/// Calls for as long as `meanwhile` takes; every one of them has to succeed.
async fn served<T>(client: &Client, meanwhile: impl Future<Output = T>) -> T {
    let calls = async {
        for number in 0.. {
            let text = format!("call {number}");
            assert_eq!(client.text_of("demo__echo", json!({"message": text})).await, text);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = meanwhile => done,
        () = calls => unreachable!("there is no end of calls"),
    }
}

/// How a database is away.
#[derive(Clone, Copy)]
enum Away {
    Unwritable,
    Unreadable,
}

/// Within this a change is answered, and a little for the way on a busy machine.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// What becomes of a change, of one with a key that nobody knows, and of who watches.
async fn a_change_is_refused_in_time(gateway: &TestGateway, endpoint: &str, away: Away) {
    let change = gateway.admin(Method::POST, "namespaces", Some(json!({"name": "late"})));
    let (status, body) = within("the refusal", ANSWERED_WITHIN, change).await;
    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("unavailable")), "{body}");
    let stranger = Client::new(endpoint, Some("sk_mt_0000000000000000000000000000000000000000000"));
    let ping = crate::support::client::request(json!(1), "ping", json!({}));
    match away {
        Away::Unwritable => {
            // Its rows can be read, and with them every key there is; until that is done, nobody knows.
            let status = stranger.post(&ping).await.status.as_u16();
            assert!(matches!(status, 401 | 503), "{status}");
        }
        Away::Unreadable => {
            // It may hold a key that nobody here has heard of.
            wait_until("it to be known that the database is away", SOON, async || {
                let refused = stranger.post(&ping).await;
                (refused.status == 503 && refused.header("retry-after").is_some()).then_some(())
            })
            .await;
        }
    }
    let listening = gateway.fact("listening").expect("an address");
    let probe = async |path: &str| {
        let answer = http().get(format!("{listening}{path}")).send().await.expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("a body");
        (status, serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    assert_eq!(probe("/health").await.0, 200);
    let (status, ready) = probe("/ready").await;
    let database = if matches!(away, Away::Unwritable) { "ok" } else { "unavailable" };
    assert_eq!((status, &ready["database"]), (200, &json!(database)), "{ready}");
    let known = gateway.get("mcp-servers").await;
    assert_eq!(known["items"][0]["runtime"]["state"], "READY", "{known}");
}

async fn changes_are_taken_again(gateway: &TestGateway) {
    wait_until("changes to be taken again", SOON, async || {
        let body = Some(json!({"name": "late"}));
        let (status, _) = gateway.admin(Method::POST, "namespaces", body).await;
        matches!(status.as_u16(), 201 | 409).then_some(())
    })
    .await;
}

async fn open(file: &Path) -> DatabaseConnection {
    Connect::connect(format!("sqlite://{}", file.display())).await.expect("the database")
}

/// One word that the database answers.
async fn asked(database: &DatabaseConnection, question: &str) -> String {
    let backend = database.get_database_backend();
    let row = database.query_one_raw(Statement::from_string(backend, question)).await;
    row.unwrap().expect("a row").try_get_by_index::<String>(0).unwrap()
}

async fn is_whole(file: &Path) -> bool {
    let database = open(file).await;
    let word = asked(&database, "pragma integrity_check").await;
    database.close().await.unwrap();
    word == "ok"
}

#[tokio::test]
async fn while_the_database_is_locked_or_lets_nobody_in_no_call_fails() {
    for database in Database::all() {
        let gateway = Start::new().on(database).run().await;
        gateway.demo("demo").await;
        let client = gateway.client_of(&["demo"]).await;
        let outage = Outage::begin(&gateway).await;
        let away = match outage {
            Outage::Locked { .. } => Away::Unwritable,
            Outage::ShutOut { .. } => Away::Unreadable,
        };
        served(&client, a_change_is_refused_in_time(&gateway, &client.url, away)).await;
        // A new session is a matter of memory, too.
        let key = client.headers[0].1.trim_start_matches("Bearer ").to_owned();
        assert!(gateway.client("all", &key).await.tools().await.len() > 1);
        outage.end().await;
        served(&client, changes_are_taken_again(&gateway)).await;
        assert_eq!(gateway.metric("metamcpd_journal_dropped_total").await, None);
    }
}

#[tokio::test]
async fn while_the_disk_is_full_calls_go_on_and_nothing_is_damaged() {
    let mut gateway = Start::new().on(Database::Sqlite).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let pid = i32::try_from(gateway.pid()).ok().and_then(Pid::from_raw);
    let no_limit = prlimit(pid, Resource::Fsize, Rlimit { current: Some(0), maximum: None });
    let before = no_limit.expect("a limit for the daemon's files");

    let refused = a_change_is_refused_in_time(&gateway, &client.url, Away::Unwritable);
    served(&client, refused).await;
    let restarted = gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    assert_eq!(restarted.0, 202, "{restarted:?}");
    gateway.ready("demo").await;

    prlimit(pid, Resource::Fsize, before).expect("the limit is taken back");
    changes_are_taken_again(&gateway).await;
    wait_until("what happened meanwhile to be remembered", SOON, async || {
        let history = gateway.history("demo").await;
        history.iter().any(|one| one["reason"] == "asked").then_some(())
    })
    .await;
    assert_eq!(gateway.metric("metamcpd_journal_dropped_total").await, None);
    // What was confirmed is there for everybody, and would outlive a kill.
    let file = gateway.data_dir().join("metamcpd.db");
    let database = open(&file).await;
    assert_eq!(asked(&database, "select name from namespaces where name = 'late'").await, "late");
    database.close().await.unwrap();
    gateway.kill9().await;
    gateway.restart().await;
    assert_eq!(gateway.get("namespaces/late").await["name"], "late");
    gateway.stop().await;
    assert!(is_whole(&gateway.data_dir().join("metamcpd.db")).await);
}

#[tokio::test]
async fn a_postgresql_that_stops_or_crashes_fails_no_call() {
    let Some(cluster) = postgres::cluster_of_its_own() else {
        skipped("postgres", "a PostgreSQL that stops: no initdb found");
        return;
    };
    let mut gateway = Start::new().on_url(&cluster.fresh_database()).run().await;
    gateway.demo("demo").await;
    let client = gateway.client_of(&["demo"]).await;
    let everybody = |signal| {
        for process in cluster.processes() {
            processes::signal(process, signal);
        }
    };

    everybody(Signal::STOP);
    let refused = a_change_is_refused_in_time(&gateway, &client.url, Away::Unreadable);
    served(&client, refused).await;
    everybody(Signal::CONT);
    served(&client, changes_are_taken_again(&gateway)).await;

    // One that is killed takes all connections with it, and the server begins anew.
    let victim = *cluster.processes().last().expect("a process");
    processes::signal(victim, Signal::KILL);
    served(&client, changes_are_taken_again(&gateway)).await;
    gateway.admin(Method::POST, "mcp-servers/demo/restart", None).await;
    wait_until("the history to go on", SOON, async || {
        // The crash may still be spreading to the connections that are left.
        let path = "mcp-servers/demo/history?reason=asked";
        let (status, page) = gateway.admin(Method::GET, path, None).await;
        (status == 200 && page["items"] != json!([])).then_some(())
    })
    .await;
    everybody(Signal::STOP);
    let exit = gateway.stop().await;
    everybody(Signal::CONT);
    assert_eq!(exit.code, Some(0), "a stop needs no database");
}

#[tokio::test]
async fn a_start_that_is_killed_at_any_point_of_the_changes_is_recovered_from() {
    let known = u32::try_from(migration::known().len()).unwrap();
    for old in [0, 2, known - 1] {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let file = data.join("metamcpd.db");
        if old > 0 {
            let url = format!("sqlite://{}?mode=rwc", file.display());
            let database = Connect::connect(url).await.unwrap();
            Migrator::up(&database, Some(old)).await.unwrap();
            let row = "insert into users (id, name, email, email_verified, created_at, updated_at) \
                values ('old', 'old', 'old@example.com', false, current_timestamp, current_timestamp)";
            database.execute_unprepared(row).await.unwrap();
            database.close().await.unwrap();
        }
        for killed_after in (0..120).step_by(8) {
            let mut daemon = binary();
            daemon.arg("serve").arg("--data-dir").arg(&data);
            daemon.env("METAMCPD__SERVER__BIND", "127.0.0.1:0");
            daemon.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut daemon = daemon.spawn().unwrap();
            // The point of it is where the kill falls; that it falls anywhere is fine.
            tokio::time::sleep(Duration::from_millis(killed_after)).await;
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        let mut gateway = Start::new().on(Database::Sqlite).run_in(directory).await;
        assert_eq!(gateway.get("mcp-servers").await["items"], json!([]));
        gateway.stop().await;
        assert!(is_whole(&file).await, "after {old} changes");
        if old == 0 {
            continue;
        }
        let database = open(&file).await;
        assert_eq!(asked(&database, "select name from users").await, "old");
        database.close().await.unwrap();
        // The first copy is what there was before anything was changed.
        let next = &migration::known()[old as usize];
        let copy = data.join(format!("metamcpd.db.before-{next}"));
        let mode = std::fs::metadata(&copy).expect("a copy").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::copy(&copy, &file).unwrap();
        for left in ["metamcpd.db-wal", "metamcpd.db-shm"] {
            drop(std::fs::remove_file(data.join(left)));
        }
        gateway.restart().await;
        gateway.stop().await;
        let database = open(&file).await;
        assert_eq!(asked(&database, "select name from users").await, "old", "it was restored");
        database.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let garbage = "This was a database once. ".repeat(400);
    std::fs::write(data.join("metamcpd.db"), &garbage).unwrap();
    let serve = binary().arg("serve").arg("--data-dir").arg(&data).output();
    let refused = serve.expect("the daemon ends");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("put a copy of it in its place"), "{said}");
    assert_eq!(std::fs::read_to_string(data.join("metamcpd.db")).unwrap(), garbage);
}
