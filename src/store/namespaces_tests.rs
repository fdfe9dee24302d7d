//! Namespaces on both databases.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use entity::namespace_server_mapping as mapping;

use super::*;
use crate::store::testing::{
    add_user, group, members as members_of, no_one, on_both, owned, process, refused,
};
use crate::store::{NewEndpoint, Server};

async fn three(store: &Store) -> [Server; 3] {
    let mut servers = Vec::new();
    for name in ["a", "b", "c"] {
        servers.push(store.create_server(process(name)).await.unwrap());
    }
    servers.try_into().unwrap()
}

fn names(namespace: &Namespace) -> Vec<&str> {
    namespace.servers.iter().map(|member| member.name.as_str()).collect()
}

fn to_owner(owner: Option<&str>) -> NamespacePatch {
    NamespacePatch { user_id: Some(owner.map(str::to_owned)), ..NamespacePatch::default() }
}

#[tokio::test]
async fn a_namespace_holds_its_servers_in_order() {
    on_both(async |store| {
        let [a, b, c] = three(&store).await;
        let made = store.create_namespace(group("all", &[&c, &a, &b])).await.unwrap();
        assert_eq!(names(&made), ["c", "a", "b"]);
        assert_eq!(store.namespace("all").await.unwrap(), made);
        assert_eq!(store.namespace(&made.uuid.to_string()).await.unwrap(), made);
        let page = store.namespaces(&PageRequest::default()).await.unwrap();
        assert_eq!(page.items, [made]);
    })
    .await;
}

#[tokio::test]
async fn a_member_that_stays_keeps_its_row() {
    on_both(async |store| {
        let [a, b, c] = three(&store).await;
        let made = store.create_namespace(group("all", &[&a, &b])).await.unwrap();
        let rows = async || -> HashMap<Uuid, Uuid> {
            let rows = mapping::Entity::find().all(store.reader()).await.unwrap();
            rows.into_iter().map(|row| (row.mcp_server_uuid, row.uuid)).collect()
        };
        let before = rows().await;

        let mut wanted = members_of(&[&c, &b]);
        wanted[1].status = Status::Inactive;
        let set = store.set_members(made.uuid, &wanted).await.unwrap();

        assert_eq!(names(&set), ["c", "b"]);
        assert_eq!(set.servers[1].status, Status::Inactive);
        assert!(set.updated_at > made.updated_at);
        let after = rows().await;
        assert_eq!(after.get(&b.uuid), before.get(&b.uuid));
        assert!(!after.contains_key(&a.uuid) && after.contains_key(&c.uuid));

        let again = store.set_members(made.uuid, &wanted).await.unwrap();
        assert_eq!(again, set, "nothing changed, so nothing was touched");
    })
    .await;
}

#[tokio::test]
async fn a_public_namespace_holds_only_public_servers() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        add_user(&store, "bob").await;
        let public = store.create_server(process("a")).await.unwrap();
        let anns = store.create_server(owned(process("b"), "ann")).await.unwrap();
        let bobs = store.create_server(owned(process("c"), "bob")).await.unwrap();

        let refusal = store.create_namespace(group("x", &[&public, &anns])).await;
        assert_eq!(refused(refusal), ["servers[1].server"]);
        let page = store.namespaces(&PageRequest::default()).await.unwrap();
        assert!(page.items.is_empty(), "what was refused leaves nothing behind");

        let mut private = group("x", &[&public, &anns]);
        private.user_id = Some("ann".to_owned());
        let private = store.create_namespace(private).await.unwrap();
        let refusal = store.set_members(private.uuid, &members_of(&[&public, &bobs])).await;
        assert_eq!(refused(refusal), ["servers[1].server"]);

        let refusal = store.patch_namespace(private.uuid, to_owner(None)).await;
        assert_eq!(refused(refusal), ["user_id"]);
        store.set_members(private.uuid, &members_of(&[&public])).await.unwrap();
        store.patch_namespace(private.uuid, to_owner(None)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn members_that_make_no_sense_are_refused_one_by_one() {
    on_both(async |store| {
        let [a, b, _] = three(&store).await;
        let made = store.create_namespace(group("all", &[&a])).await.unwrap();
        let mut wanted = members_of(&[&b, &b]);
        wanted.push(Membership { server: no_one(), status: Status::Active });
        let refusal = store.set_members(made.uuid, &wanted).await;
        assert_eq!(refused(refusal), ["servers[1].server", "servers[2].server"]);
        assert_eq!(names(&store.namespace("all").await.unwrap()), ["a"]);
    })
    .await;
}

#[tokio::test]
async fn a_public_name_is_really_unique() {
    on_both(async |store| {
        add_user(&store, "ann").await;
        let made = store.create_namespace(group("all", &[])).await.unwrap();
        let taken = store.create_namespace(group("all", &[])).await;
        assert!(matches!(taken, Err(StoreError::Conflict { field: "name", .. })));

        let mut anns = group("all", &[]);
        anns.user_id = Some("ann".to_owned());
        let anns = store.create_namespace(anns).await.unwrap();
        assert!(matches!(store.namespace("all").await, Err(StoreError::Ambiguous { .. })));
        let taken = store.patch_namespace(anns.uuid, to_owner(None)).await;
        assert!(matches!(taken, Err(StoreError::Conflict { .. })));
        assert_eq!(store.namespace(&made.uuid.to_string()).await.unwrap(), made);
    })
    .await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    on_both(async |store| {
        let made = store.create_namespace(group("all", &[])).await.unwrap();
        let patch = NamespacePatch {
            uri_naming: Some(Naming::OnConflict),
            name: Some("some".to_owned()),
            description: Some(Some("a few".to_owned())),
            naming: Some(Naming::Never),
            default_tool_status: Some(Status::Inactive),
            user_id: None,
        };
        let patched = store.patch_namespace(made.uuid, patch).await.unwrap();
        assert_eq!(
            patched,
            Namespace {
                name: "some".to_owned(),
                description: Some("a few".to_owned()),
                naming: Naming::Never,
                uri_naming: Naming::OnConflict,
                default_tool_status: Status::Inactive,
                updated_at: patched.updated_at,
                ..made
            }
        );
        let bad = NamespacePatch { name: Some("a b".to_owned()), ..Default::default() };
        assert_eq!(refused(store.patch_namespace(made.uuid, bad).await), ["name"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_removed_takes_its_memberships_and_endpoints_with_it() {
    on_both(async |store| {
        let [a, b, _] = three(&store).await;
        let made = store.create_namespace(group("all", &[&a, &b])).await.unwrap();
        store.create_endpoint(NewEndpoint::new("door", made.uuid)).await.unwrap();

        store.delete_server(a.uuid).await.unwrap();
        assert_eq!(names(&store.namespace("all").await.unwrap()), ["b"]);
        store.delete_namespace(made.uuid).await.unwrap();

        assert!(matches!(
            store.endpoint("door").await,
            Err(StoreError::NotFound { what: "endpoint", .. })
        ));
        store.server("b").await.unwrap();
        let gone = [
            store.namespace("all").await.err(),
            store.set_members(made.uuid, &[]).await.err(),
            store.patch_namespace(made.uuid, NamespacePatch::default()).await.err(),
            store.delete_namespace(made.uuid).await.err(),
        ];
        for error in gone {
            assert!(matches!(error, Some(StoreError::NotFound { what: "namespace", .. })));
        }
    })
    .await;
}

#[tokio::test]
async fn some_members_get_another_status_all_of_them_or_none() {
    use Status::{Active, Inactive};
    on_both(async |store| {
        let servers = three(&store).await;
        let made = store.create_namespace(group("all", &[&servers[0], &servers[1]])).await.unwrap();
        let [a, b, c] = [0, 1, 2].map(|index: usize| servers[index].uuid);
        let wanted = |rows: &[(Uuid, Status)]| -> Vec<Membership> {
            rows.iter().map(|&(server, status)| Membership { server, status }).collect()
        };
        let changed =
            store.set_member_statuses(made.uuid, &wanted(&[(b, Inactive)])).await.unwrap();
        let seen: Vec<_> =
            changed.servers.iter().map(|member| (member.server, member.status)).collect();
        assert_eq!(seen, [(a, Active), (b, Inactive)]);
        assert!(changed.updated_at > made.updated_at);

        let bad = wanted(&[(a, Inactive), (c, Active), (a, Active)]);
        let refusal = store.set_member_statuses(made.uuid, &bad).await;
        assert_eq!(refused(refusal), ["servers[1].server", "servers[2].server"]);
        let same = store.set_member_statuses(made.uuid, &wanted(&[(b, Inactive)])).await.unwrap();
        assert_eq!(same, changed, "nothing has changed, nor when it was changed");
    })
    .await;
}
