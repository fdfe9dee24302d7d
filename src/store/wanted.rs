//! Everything the daemon wants to know at its start, and again after a change: one consistent view.
//!
//! It is read and turned into snapshots in memory; nobody asks the database while serving a call.

use std::collections::{BTreeMap, HashMap, HashSet};

use entity::{
    endpoint, item, item_listing, mcp_server, namespace, namespace_tool_mapping as policy,
    shown_name, tool,
};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::Store;
use super::api_keys::{self, KeyRecord};
use super::config::{self, ConfigValue};
use super::endpoints::{Endpoint, endpoint_of};
use super::error::StoreError;
use super::item_policies::{self, ItemPolicy};
use super::namespaces::{self, Namespace};
use super::oauth_sessions::{self, OAuthSession};
use super::policies::{self, ToolPolicy};
use super::server::{Server, server_of};
use super::shown_names::{ShownName, shown_name_of};
use super::tools::StoredTool;
use super::words::{ItemKind, Naming};

/// All that is configured, and the last good catalogues.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Oldest first, like the others.
    pub servers: Vec<Server>,
    /// By server, of those that have one.
    pub oauth_sessions: HashMap<Uuid, OAuthSession>,
    pub namespaces: Vec<Namespace>,
    pub endpoints: Vec<Endpoint>,
    pub keys: Vec<KeyRecord>,
    pub config: BTreeMap<String, ConfigValue>,
    /// By server, in its own order, without what vanished. A server that was never listed is
    /// missing, which is something else than one that offers nothing; so is one that runs.
    pub catalogues: HashMap<Uuid, Vec<StoredTool>>,
    /// The other lists that are known of those servers, by kind: definitions, in the same way.
    pub lists: HashMap<Uuid, HashMap<ItemKind, Vec<String>>>,
    /// By namespace.
    pub item_policies: HashMap<Uuid, Vec<ItemPolicy>>,
    /// By namespace, the earlier first.
    pub policies: HashMap<Uuid, Vec<ToolPolicy>>,
    /// By namespace. Those that run under the same naming are missing.
    pub shown_names: HashMap<Uuid, Vec<ShownName>>,
}

/// What runs already, and so knows its lists and its names better than the rows do.
#[derive(Clone, Debug, Default)]
pub struct Running {
    pub servers: HashSet<Uuid>,
    /// With the `naming` and the `uri_naming` that each goes by.
    pub namespaces: HashMap<Uuid, [Naming; 2]>,
}

impl Store {
    /// Lists and names make up nearly all of the rows, so those of what runs already are left out:
    /// a change of one row is not to cost the reading of thousands.
    pub async fn everything(&self, running: &Running) -> Result<Wanted, StoreError> {
        let snapshot = self.snapshot().await?;

        let servers = mcp_server::Entity::find()
            .order_by_asc(mcp_server::Column::Uuid)
            .all(&snapshot)
            .await?
            .into_iter()
            .map(|row| server_of(row, self.vault()))
            .collect::<Result<Vec<_>, _>>()?;

        let oauth_sessions = oauth_sessions::all(&snapshot, self.vault()).await?;

        let namespaces =
            namespace::Entity::find().order_by_asc(namespace::Column::Uuid).all(&snapshot).await?;
        let namespaces = namespaces::with_members(&snapshot, namespaces).await?;

        let endpoints =
            endpoint::Entity::find().order_by_asc(endpoint::Column::Uuid).all(&snapshot).await?;
        let endpoints = endpoints.into_iter().map(endpoint_of).collect::<Result<Vec<_>, _>>()?;

        let keys = api_keys::records(&snapshot).await?;
        let config = config::values(&snapshot).await?;

        let mut catalogues: HashMap<Uuid, Vec<StoredTool>> = servers
            .iter()
            .filter(|server| server.tools_listed_at.is_some())
            .filter(|server| !running.servers.contains(&server.uuid))
            .map(|server| (server.uuid, Vec::new()))
            .collect();
        let unknown: Vec<Uuid> = catalogues.keys().copied().collect();
        for unknown in unknown.chunks(SERVERS_AT_ONCE) {
            let tools: Vec<(Uuid, String, String)> = tool::Entity::find()
                .select_only()
                .columns([
                    tool::Column::McpServerUuid,
                    tool::Column::Name,
                    tool::Column::Definition,
                ])
                .filter(tool::Column::McpServerUuid.is_in(unknown.iter().copied()))
                .filter(tool::Column::VanishedAt.is_null())
                .order_by_asc(tool::Column::Position)
                .order_by_asc(tool::Column::Uuid)
                .into_tuple()
                .all(&snapshot)
                .await?;
            for (server, name, definition) in tools {
                if let Some(catalogue) = catalogues.get_mut(&server) {
                    catalogue.push(StoredTool { name, definition });
                }
            }
        }

        let unknown: Vec<Uuid> = servers
            .iter()
            .map(|server| server.uuid)
            .filter(|server| !running.servers.contains(server))
            .collect();
        let lists = other_lists(&snapshot, &unknown).await?;
        let item_policies = item_policies::all(&snapshot, None).await?;

        let policies =
            policy::Entity::find().order_by_asc(policy::Column::Uuid).all(&snapshot).await?;
        let policies = policies::of_rows(&snapshot, policies).await?;

        let mut shown_names: HashMap<Uuid, Vec<ShownName>> = HashMap::new();
        let is_unknown = |namespace: &&Namespace| {
            let namings = [namespace.naming, namespace.uri_naming];
            running.namespaces.get(&namespace.uuid) != Some(&namings)
        };
        let unknown = namespaces.iter().filter(is_unknown).map(|namespace| namespace.uuid);
        let rows = shown_name::Entity::find()
            .filter(shown_name::Column::NamespaceUuid.is_in(unknown))
            .order_by_asc(shown_name::Column::Uuid)
            .all(&snapshot)
            .await?;
        for row in rows {
            let namespace = row.namespace_uuid;
            shown_names.entry(namespace).or_default().push(shown_name_of(row)?);
        }

        Ok(Wanted {
            servers,
            oauth_sessions,
            namespaces,
            endpoints,
            keys,
            config,
            catalogues,
            lists,
            item_policies,
            policies,
            shown_names,
        })
    }
}

/// By server and kind, in the order of the server, without what vanished.
async fn other_lists(
    connection: &impl ConnectionTrait,
    servers: &[Uuid],
) -> Result<HashMap<Uuid, HashMap<ItemKind, Vec<String>>>, StoreError> {
    let mut lists: HashMap<Uuid, HashMap<ItemKind, Vec<String>>> = HashMap::new();
    for servers in servers.chunks(SERVERS_AT_ONCE) {
        let listings = item_listing::Entity::find()
            .filter(item_listing::Column::McpServerUuid.is_in(servers.iter().copied()))
            .all(connection)
            .await?;
        for listing in listings {
            let kind = ItemKind::stored("item_listings.kind", &listing.kind)?;
            lists.entry(listing.mcp_server_uuid).or_default().entry(kind).or_default();
        }
        let items: Vec<(Uuid, String, String)> = item::Entity::find()
            .select_only()
            .columns([item::Column::McpServerUuid, item::Column::Kind, item::Column::Definition])
            .filter(item::Column::McpServerUuid.is_in(servers.iter().copied()))
            .filter(item::Column::VanishedAt.is_null())
            .order_by_asc(item::Column::Position)
            .order_by_asc(item::Column::Uuid)
            .into_tuple()
            .all(connection)
            .await?;
        for (server, kind, definition) in items {
            let kind = ItemKind::stored("items.kind", &kind)?;
            lists.entry(server).or_default().entry(kind).or_default().push(definition);
        }
    }
    Ok(lists)
}

/// Keeps a statement well below the number of parameters either database takes.
const SERVERS_AT_ONCE: usize = 500;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::store::testing::{group, listed, on_both, process};
    use crate::store::{
        ItemKind, KeyKind, Naming, NewApiKey, NewEndpoint, Running, ShownName, Status, StoredTool,
        ToolPolicyPatch, now,
    };

    #[tokio::test]
    async fn everything_is_seen_at_once() {
        on_both(async |store| {
            let listed_one = store.create_server(process("files")).await.unwrap();
            let silent = store.create_server(process("silent")).await.unwrap();
            let empty = store.create_server(process("empty")).await.unwrap();
            let servers = [&listed_one, &silent, &empty];
            let namespace = store.create_namespace(group("all", &servers)).await.unwrap();
            let endpoint = NewEndpoint::new("door", namespace.uuid);
            let endpoint = store.create_endpoint(endpoint).await.unwrap();
            let key = NewApiKey {
                name: "one".to_owned(),
                hash_hex: "a".repeat(64),
                hint: "hint".to_owned(),
                kind: KeyKind::Client,
                user_id: None,
            };
            store.create_api_key(key).await.unwrap();
            store.put_config("SESSION_LIFETIME", Some("300000")).await.unwrap();
            let tools = ["b", "gone", "a"].map(listed);
            store.upsert_tools(listed_one.uuid, &tools, now()).await.unwrap();
            store.upsert_tools(listed_one.uuid, &["b", "a"].map(listed), now()).await.unwrap();
            store.upsert_tools(empty.uuid, &[], now()).await.unwrap();
            let tool = store.tools_of(listed_one.uuid).await.unwrap()[0].uuid;
            let patch =
                ToolPolicyPatch { status: Some(Status::Inactive), ..ToolPolicyPatch::default() };
            let policy = store.patch_policy(namespace.uuid, tool, patch).await.unwrap();
            let shown = ShownName {
                server: listed_one.uuid,
                kind: ItemKind::Tool,
                tool_name: "b".to_owned(),
                shown_name: "files__b".to_owned(),
                naming: Naming::Always,
            };
            store.put_shown_names(namespace.uuid, std::slice::from_ref(&shown)).await.unwrap();

            let wanted = store.everything(&Running::default()).await.unwrap();

            let names: Vec<&str> =
                wanted.servers.iter().map(|server| server.name.as_str()).collect();
            assert_eq!(names, ["files", "silent", "empty"]);
            assert_eq!(wanted.namespaces, std::slice::from_ref(&namespace));
            assert_eq!(wanted.endpoints, [endpoint]);
            assert_eq!(wanted.keys, store.all_hashes().await.unwrap());
            assert_eq!(wanted.config["SESSION_LIFETIME"].value, "300000");
            let offered = ["b", "a"]
                .map(listed)
                .map(|tool| StoredTool { name: tool.name, definition: tool.definition });
            assert_eq!(wanted.catalogues[&listed_one.uuid], offered);
            assert_eq!(wanted.catalogues[&empty.uuid], []);
            assert!(!wanted.catalogues.contains_key(&silent.uuid), "it was never listed");
            assert_eq!(wanted.policies[&namespace.uuid], [policy]);
            assert_eq!(wanted.shown_names[&namespace.uuid], [shown]);

            let running = |naming| Running {
                servers: [listed_one.uuid].into(),
                namespaces: [(namespace.uuid, naming)].into(),
            };
            let as_it_is = [Naming::Always, Naming::Never];
            let rest = store.everything(&running(as_it_is)).await.unwrap();
            assert_eq!(rest.catalogues.into_keys().collect::<Vec<_>>(), [empty.uuid]);
            assert!(rest.shown_names.is_empty(), "it knows its names");
            assert_eq!((rest.servers, rest.policies), (wanted.servers, wanted.policies));
            for other in [[Naming::Never, Naming::Never], [Naming::Always, Naming::OnConflict]] {
                let rest = store.everything(&running(other)).await.unwrap();
                assert_eq!(rest.shown_names, wanted.shown_names, "a naming has changed");
            }
        })
        .await;
    }
}
