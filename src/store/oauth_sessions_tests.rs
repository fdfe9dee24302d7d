//! OAuth sessions on both databases: sealed, replaced whole, renewed in order.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::store::testing::{no_one, on_both, on_both_databases, open, process, refused};
use crate::store::{Journal, JournalOptions, Running, Server};

fn remote() -> NewServer {
    let url = Some("https://search.example/mcp".to_owned());
    NewServer { url, ..NewServer::new("search", ServerKind::StreamableHttp) }
}

fn session() -> NewOAuthSession {
    NewOAuthSession {
        client: ClientInformation {
            client_id: "metamcpd".to_owned(),
            client_secret: Some(Secret::new("canary-client")),
            token_endpoint_auth_method: AuthMethod::Basic,
            token_endpoint: "https://login.example/token".to_owned(),
            resource: None,
        },
        tokens: tokens("1"),
    }
}

fn tokens(mark: &str) -> OAuthTokens {
    OAuthTokens {
        access_token: Some(Secret::new(format!("canary-access-{mark}"))),
        refresh_token: Some(Secret::new(format!("canary-refresh-{mark}"))),
        expires_at: Some(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(3_000_000_000)),
        scope: Some("read write".to_owned()),
    }
}

async fn renewed(store: &Store, session: Uuid, mark: &str) {
    let sealed = store.seal_oauth_tokens(session, &tokens(mark)).unwrap();
    store.remember(&[Record::OAuthTokens { session, sealed }], 1).await.unwrap();
}

#[tokio::test]
async fn a_session_is_found_as_it_was_put_in_and_lies_sealed() {
    on_both(async |store| {
        let server = store.create_server(remote()).await.unwrap();
        let put = store.put_oauth_session(server.uuid, session()).await.unwrap();
        assert_eq!((put.client.clone(), put.tokens.clone()), (session().client, session().tokens));
        assert_eq!(store.oauth_session(server.uuid).await.unwrap(), put);
        let wanted = store.everything(&Running::default()).await.unwrap();
        assert_eq!(wanted.oauth_sessions, [(server.uuid, put)].into());

        let row = oauth_session::Entity::find().one(store.reader()).await.unwrap().unwrap();
        let values = row.client_information.0.into_iter().chain(row.tokens.unwrap().0);
        for (name, value) in values {
            assert!(value.starts_with("sealed:v1:"), "{name}: {value}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_renewed_of_an_earlier_session_is_not_written_to_the_one_in_its_place() {
    on_both(async |store| {
        let server = store.create_server(remote()).await.unwrap();
        let first = store.put_oauth_session(server.uuid, session()).await.unwrap();
        renewed(&store, first.uuid, "2").await;
        assert_eq!(store.oauth_session(server.uuid).await.unwrap().tokens, tokens("2"));

        let second = store.put_oauth_session(server.uuid, session()).await.unwrap();
        assert_ne!(second.uuid, first.uuid);
        renewed(&store, first.uuid, "3").await;
        assert_eq!(store.oauth_session(server.uuid).await.unwrap(), second);
    })
    .await;
}

#[tokio::test]
async fn renewed_tokens_are_written_by_the_journal_in_their_order() {
    on_both(async |store| {
        let server = store.create_server(remote()).await.unwrap();
        let put = store.put_oauth_session(server.uuid, session()).await.unwrap();
        let journal = Journal::start(store.clone(), JournalOptions::default(), None);
        for mark in ["2", "3", "4"] {
            let sealed = store.seal_oauth_tokens(put.uuid, &tokens(mark)).unwrap();
            journal.record(Record::OAuthTokens { session: put.uuid, sealed });
        }
        assert!(journal.flush(Duration::from_secs(10)).await);
        assert_eq!(store.oauth_session(server.uuid).await.unwrap().tokens, tokens("4"));
    })
    .await;
}

#[tokio::test]
async fn a_server_has_one_credential_and_a_process_none() {
    on_both(async |store| {
        let put = async |server: &Server| store.put_oauth_session(server.uuid, session()).await;
        let local = store.create_server(process("files")).await.unwrap();
        assert_eq!(refused(put(&local).await), ["type"]);
        let bearer_token = Some(Secret::new("hunter2"));
        let server = store.create_server(NewServer { bearer_token, ..remote() }).await.unwrap();
        assert_eq!(refused(put(&server).await), ["bearer_token"]);
        let token = |token: Option<&str>| ServerPatch {
            bearer_token: Some(token.map(Secret::new)),
            ..ServerPatch::default()
        };
        store.patch_server(server.uuid, token(None)).await.unwrap();
        put(&server).await.unwrap();
        let refusal = store.patch_server(server.uuid, token(Some("hunter2"))).await;
        assert_eq!(refused(refusal), ["bearer_token"]);
        store.patch_server(server.uuid, token(None)).await.unwrap();

        let to_process = ServerPatch {
            kind: Some(ServerKind::Stdio),
            command: Some(Some("npx".to_owned())),
            ..ServerPatch::default()
        };
        store.patch_server(server.uuid, to_process).await.unwrap();
        let gone = store.oauth_session(server.uuid).await;
        assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
    })
    .await;
}

#[tokio::test]
async fn a_session_goes_with_its_server_and_what_is_not_there_is_not_found() {
    on_both(async |store| {
        let server = store.create_server(remote()).await.unwrap();
        store.put_oauth_session(server.uuid, session()).await.unwrap();
        store.delete_oauth_session(server.uuid).await.unwrap();
        let found = [
            store.delete_oauth_session(server.uuid).await.err(),
            store.oauth_session(server.uuid).await.err(),
            store.put_oauth_session(no_one(), session()).await.err(),
        ];
        for error in found {
            assert!(matches!(error, Some(StoreError::NotFound { .. })), "{error:?}");
        }
        store.put_oauth_session(server.uuid, session()).await.unwrap();
        store.delete_server(server.uuid).await.unwrap();
        let left = oauth_session::Entity::find().all(store.reader()).await.unwrap();
        assert!(left.is_empty());
    })
    .await;
}

#[tokio::test]
async fn what_does_not_open_any_more_is_named() {
    on_both_databases(async |options, data_dir| {
        let store = open(&options, data_dir).await;
        let server = store.create_server(remote()).await.unwrap();
        store.put_oauth_session(server.uuid, session()).await.unwrap();
        store.close().await.unwrap();

        let stranger = tempfile::tempdir().unwrap();
        let vault = Vault::open(stranger.path()).unwrap();
        let store = Store::open(&options, data_dir, vault).await.unwrap();
        let found = store.oauth_session(server.uuid).await.unwrap();
        assert!(found.unreadable.contains(&"tokens.refresh_token".to_owned()), "{found:?}");
        assert_eq!(found.tokens, OAuthTokens::default());
    })
    .await;
}

#[test]
fn every_problem_of_a_session_is_found_and_none_repeats_a_secret() {
    let fields = |change: &dyn Fn(&mut NewOAuthSession)| {
        let mut new = session();
        change(&mut new);
        let problems = oauth_rules::problems(&new);
        assert!(!format!("{problems:?}").contains("canary"), "{problems:?}");
        problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
    };
    for good in [
        "https://login.example/token?a=b",
        "http://127.0.0.1:9/t",
        "http://[::1]/t",
        "http://localhost/",
    ] {
        assert_eq!(fields(&|new| new.client.token_endpoint = good.into()), [""; 0], "{good}");
    }
    let long = format!("https://login.example/{}", "x".repeat(5_000));
    for bad in [
        "",
        "token",
        "http://login.example/token",
        "http://127.0.0.1.example/",
        "https://u@login.example/",
        "https://u:p@login.example/",
        "https://login.example/#a",
        " https://login.example/",
        "ftp://127.0.0.1/",
        "https://",
        &long,
    ] {
        let found = fields(&|new| new.client.token_endpoint = bad.into());
        assert_eq!(found, ["token_endpoint"], "{bad}");
    }
    let found = fields(&|new| {
        new.client.client_id = String::new();
        new.client.client_secret = Some(Secret::new("canary\n"));
        new.client.resource = Some("https://a.example/#b".to_owned());
        new.tokens.access_token = Some(Secret::new("canary canary"));
        new.tokens.refresh_token = Some(Secret::new(""));
        new.tokens.scope = Some("a\0b".to_owned());
    });
    let expected =
        ["client_id", "client_secret", "resource", "access_token", "refresh_token", "scope"];
    assert_eq!(found, expected);
    assert_eq!(fields(&|new| new.client.client_secret = None), ["client_secret"]);
    let no_method = fields(&|new| new.client.token_endpoint_auth_method = AuthMethod::None);
    assert_eq!(no_method, ["token_endpoint_auth_method"]);
    let no_tokens = fields(&|new| new.tokens = OAuthTokens::default());
    assert_eq!(no_tokens, ["refresh_token"]);
    assert_eq!(fields(&|new| new.tokens.access_token = None), ["expires_at"]);
}
