//! Every list, filtered by each column that can be asked for, on both databases.

#![allow(clippy::unwrap_used)]

use super::testing::{add_user, group, on_both};
use super::{
    ApiKeyFilter, EndpointFilter, KeyKind, NamespaceFilter, NewApiKey, NewEndpoint, PageRequest,
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
