//! Every list, filtered by each column that can be asked for, on both databases.

#![allow(clippy::unwrap_used)]

use super::testing::{add_user, failure, group, on_both, process};
use super::{
    ApiKeyFilter, EndpointFilter, HistoryFilter, Isolation, KeyKind, NamespaceFilter, Naming,
    NewApiKey, NewEndpoint, PageRequest, Protocol, ServerFilter, Status,
};

const ANN: Option<Option<&str>> = Some(Some("ann"));
const PUBLIC: Option<Option<&str>> = Some(None);

fn owner(asked: Option<Option<&str>>) -> Option<Option<String>> {
    asked.map(|owner| owner.map(str::to_owned))
}

#[tokio::test]
async fn namespaces_are_found_by_name_and_owner() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        let hers = super::NewNamespace { user_id: Some("ann".into()), ..group("one", &[]) };
        for new in [group("one", &[]), group("two", &[]), hers] {
            store.create_namespace(new).await.unwrap();
        }
        let table = [
            (None, None, 3),
            (Some("one"), None, 2),
            (Some("one"), ANN, 1),
            (None, PUBLIC, 2),
            (Some("three"), None, 0),
        ];
        for (name, asked, count) in table {
            let name = name.map(str::to_owned);
            let filter = NamespaceFilter { name, user_id: owner(asked), ..Default::default() };
            let page = store.namespaces_where(&filter, &PageRequest::default()).await.unwrap();
            assert_eq!(page.items.len(), count, "{filter:?}");
        }
        let none = NamespaceFilter::default;
        for (filter, count) in [
            (NamespaceFilter { naming: Some(Naming::Always), ..none() }, 3),
            (NamespaceFilter { naming: Some(Naming::Never), ..none() }, 0),
            (NamespaceFilter { default_tool_status: Some(Status::Active), ..none() }, 3),
            (NamespaceFilter { default_tool_status: Some(Status::Inactive), ..none() }, 0),
        ] {
            let page = store.namespaces_where(&filter, &PageRequest::default()).await.unwrap();
            assert_eq!(page.items.len(), count, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn endpoints_are_found_by_name_namespace_openness_and_owner() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        let one = store.create_namespace(group("one", &[])).await.unwrap().uuid;
        let two = store.create_namespace(group("two", &[])).await.unwrap().uuid;
        let open = NewEndpoint { enable_api_key_auth: false, ..NewEndpoint::new("b", one) };
        let hers = NewEndpoint { user_id: Some("ann".into()), ..NewEndpoint::new("c", two) };
        for new in [NewEndpoint::new("a", one), open, hers] {
            store.create_endpoint(new).await.unwrap();
        }
        let none = EndpointFilter::default;
        let table = [
            (none(), 3),
            (EndpointFilter { name: Some("a".into()), ..none() }, 1),
            (EndpointFilter { namespace_uuid: Some(one), ..none() }, 2),
            (EndpointFilter { enable_api_key_auth: Some(false), ..none() }, 1),
            (EndpointFilter { enable_oauth: Some(false), ..none() }, 3),
            (EndpointFilter { use_query_param_auth: Some(true), ..none() }, 0),
            (EndpointFilter { user_id: owner(ANN), ..none() }, 1),
            (EndpointFilter { user_id: owner(PUBLIC), ..none() }, 2),
            (EndpointFilter { name: Some("a".into()), namespace_uuid: Some(two), ..none() }, 0),
        ];
        for (filter, count) in table {
            let page = store.endpoints_where(&filter, &PageRequest::default()).await.unwrap();
            assert_eq!(page.items.len(), count, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn keys_are_found_by_name_kind_owner_and_whether_they_are_on() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        for (name, kind, user) in [
            ("a", KeyKind::Client, None),
            ("b", KeyKind::Admin, None),
            ("c", KeyKind::Client, Some("ann")),
        ] {
            let new = NewApiKey {
                name: name.into(),
                hash_hex: name.repeat(64),
                hint: name.into(),
                kind,
                user_id: user.map(str::to_owned),
            };
            let made = store.create_api_key(new).await.unwrap();
            let patch = super::ApiKeyPatch { name: None, is_active: Some(name != "a") };
            store.patch_api_key(made.uuid, patch).await.unwrap();
        }
        let none = ApiKeyFilter::default;
        let table = [
            (none(), 3),
            (ApiKeyFilter { name: Some("a".into()), ..none() }, 1),
            (ApiKeyFilter { kind: Some(KeyKind::Client), ..none() }, 2),
            (ApiKeyFilter { is_active: Some(false), ..none() }, 1),
            (ApiKeyFilter { user_id: owner(ANN), ..none() }, 1),
            (ApiKeyFilter { user_id: owner(PUBLIC), ..none() }, 2),
        ];
        for (filter, count) in table {
            let page = store.api_keys_where(&filter, &PageRequest::default()).await.unwrap();
            assert_eq!(page.items.len(), count, "{filter:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn servers_and_their_history_are_found_by_what_they_are() {
    on_both(async |store| {
        let server = store.create_server(process("files")).await.unwrap().uuid;
        store.remember(&[failure(server, 1), failure(server, 2)], 10).await.unwrap();
        let none = ServerFilter::default;
        for (filter, count) in [
            (ServerFilter { isolation: Some(Isolation::Shared), ..none() }, 1),
            (ServerFilter { isolation: Some(Isolation::User), ..none() }, 0),
            (ServerFilter { protocol: Some(Protocol::Auto), ..none() }, 1),
            (ServerFilter { protocol: Some(Protocol::Modern), ..none() }, 0),
        ] {
            let page = store.servers(&filter, &PageRequest::default()).await.unwrap();
            assert_eq!(page.items.len(), count, "{filter:?}");
            assert!(page.items.iter().all(|server| filter.matches(server)));
        }
        let page = PageRequest::default();
        let row = store.history(server, &page).await.unwrap().items.remove(0);
        let none = HistoryFilter::default;
        for (filter, count) in [
            (HistoryFilter { state: Some(row.state.clone()), ..none() }, 2),
            (HistoryFilter { state: Some("READY".to_owned()), ..none() }, 0),
            (HistoryFilter { error_status: Some(row.error_status), ..none() }, 2),
            (HistoryFilter { reason: Some(row.reason.clone()), ..none() }, 2),
            (HistoryFilter { reason: Some("none of ours".to_owned()), ..none() }, 0),
        ] {
            let found = store.history_where(server, &filter, &page).await.unwrap();
            assert_eq!(found.items.len(), count, "{filter:?}");
        }
    })
    .await;
}
