//! The rules of endpoints, on both databases.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::store::testing::{add_user, group, no_one, on_both, refused};
use crate::store::{Namespace, NamespacePatch};

async fn namespace(store: &Store, name: &str, owner: Option<&str>) -> Namespace {
    let mut new = group(name, &[]);
    new.user_id = owner.map(str::to_owned);
    store.create_namespace(new).await.unwrap()
}

#[tokio::test]
async fn an_endpoint_asks_for_a_key_unless_told_otherwise() {
    on_both(async |store| {
        let all = namespace(&store, "all", None).await;
        let made = store.create_endpoint(NewEndpoint::new("door", all.uuid)).await.unwrap();
        assert!(made.enable_api_key_auth && !made.use_query_param_auth && !made.enable_oauth);
        assert_eq!(store.endpoint("door").await.unwrap(), made);
        assert_eq!(store.endpoint(&made.uuid.to_string()).await.unwrap(), made);
        let page = store.endpoints(&PageRequest::default()).await.unwrap();
        assert_eq!(page.items, [made]);
    })
    .await;
}

#[tokio::test]
async fn a_name_is_unique_among_all_owners() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        let all = namespace(&store, "all", None).await;
        store.create_endpoint(NewEndpoint::new("door", all.uuid)).await.unwrap();
        let new =
            NewEndpoint { user_id: Some("ann".to_owned()), ..NewEndpoint::new("door", all.uuid) };
        let taken = store.create_endpoint(new).await;
        assert!(matches!(taken, Err(StoreError::Conflict { field: "name", .. })));
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_leads_only_where_its_owner_may_go() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        add_user(&store, "bob").await;
        let all = namespace(&store, "all", None).await;
        let anns = namespace(&store, "anns", Some("ann")).await;
        let cases = [
            (None, all.uuid, true),
            (Some("ann"), all.uuid, true),
            (Some("ann"), anns.uuid, true),
            (None, anns.uuid, false),
            (Some("bob"), anns.uuid, false),
            (None, no_one(), false),
        ];
        for (number, (owner, namespace, is_good)) in cases.into_iter().enumerate() {
            let new = NewEndpoint {
                user_id: owner.map(str::to_owned),
                ..NewEndpoint::new(format!("door-{number}"), namespace)
            };
            let outcome = store.create_endpoint(new).await;
            if is_good {
                outcome.unwrap();
            } else {
                assert_eq!(refused(outcome), ["namespace"], "{number}");
            }
        }
        let to_ann =
            NamespacePatch { user_id: Some(Some("ann".to_owned())), ..NamespacePatch::default() };
        let refusal = store.patch_namespace(all.uuid, to_ann).await;
        assert_eq!(refused(refusal), ["user_id"], "a public endpoint leads to it");
    })
    .await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_clears() {
    on_both(async |store| {
        let all = namespace(&store, "all", None).await;
        let other = namespace(&store, "other", None).await;
        let new = NewEndpoint {
            rates: Rates {
                enable_max_rate: true,
                max_rate: Some(10),
                max_rate_seconds: Some(60),
                ..Rates::default()
            },
            ..NewEndpoint::new("door", all.uuid)
        };
        let made = store.create_endpoint(new).await.unwrap();
        let patch = EndpointPatch {
            namespace_uuid: Some(other.uuid),
            enable_api_key_auth: Some(false),
            max_rate: Some(None),
            client_max_rate_strategy: Some(Some("ip".to_owned())),
            schema_profile: Some(SchemaProfile::Gemini),
            ..EndpointPatch::default()
        };
        assert_eq!(made.schema_profile, SchemaProfile::Raw, "unless it is asked for");

        let patched = store.patch_endpoint(made.uuid, patch).await.unwrap();

        let expected = Endpoint {
            namespace_uuid: other.uuid,
            enable_api_key_auth: false,
            rates: Rates {
                max_rate: None,
                client_max_rate_strategy: Some("ip".to_owned()),
                ..made.rates.clone()
            },
            schema_profile: SchemaProfile::Gemini,
            updated_at: patched.updated_at,
            ..made
        };
        assert_eq!(patched, expected);
        assert_eq!(store.endpoint("door").await.unwrap(), expected);

        let bad = EndpointPatch {
            name: Some("a/b".to_owned()),
            max_rate: Some(Some(0)),
            ..EndpointPatch::default()
        };
        assert_eq!(refused(store.patch_endpoint(made.uuid, bad).await), ["name", "max_rate"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    on_both(async |store| {
        let all = namespace(&store, "all", None).await;
        let made = store.create_endpoint(NewEndpoint::new("door", all.uuid)).await.unwrap();
        store.delete_endpoint(made.uuid).await.unwrap();
        let gone = [
            store.endpoint("door").await.err(),
            store.patch_endpoint(made.uuid, EndpointPatch::default()).await.err(),
            store.delete_endpoint(made.uuid).await.err(),
        ];
        for error in gone {
            assert!(matches!(error, Some(StoreError::NotFound { what: "endpoint", .. })));
        }
    })
    .await;
}
