//! Finds, makes, changes and removes servers.
//!
//! Names are unique for each owner. Who owns a server may only change while every namespace it is
//! in may still hold it.

use entity::{mcp_server, namespace, namespace_server_mapping};
use sea_orm::ActiveValue::Set;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::error::StoreError;
use super::page::{Page, PageRequest};
use super::rules::Problem;
use super::server::{NewServer, Server, ServerFilter, ServerPatch, server_of};
use super::{Store, now, oauth_sessions, sealing, server_rules, upkeep};

const WHAT: &str = "server";

impl Store {
    /// Oldest first.
    pub async fn servers(
        &self,
        filter: &ServerFilter,
        page: &PageRequest,
    ) -> Result<Page<Server>, StoreError> {
        use mcp_server::Column;

        let limit = page.limit()?;
        let mut query =
            mcp_server::Entity::find().order_by_asc(Column::Uuid).limit(limit.saturating_add(1));
        if let Some(after) = page.after()? {
            query = query.filter(Column::Uuid.gt(Uuid::from_bytes(after)));
        }
        if let Some(name) = &filter.name {
            query = query.filter(Column::Name.eq(name));
        }
        if let Some(kind) = filter.kind {
            query = query.filter(Column::Type.eq(kind.as_str()));
        }
        if let Some(error_status) = filter.error_status {
            query = query.filter(Column::ErrorStatus.eq(error_status.as_str()));
        }
        if let Some(enabled) = filter.enabled {
            query = query.filter(Column::Enabled.eq(enabled));
        }
        if let Some(isolation) = filter.isolation {
            query = query.filter(Column::Isolation.eq(isolation.as_str()));
        }
        if let Some(protocol) = filter.protocol {
            query = query.filter(Column::Protocol.eq(protocol.as_str()));
        }
        match &filter.user_id {
            Some(Some(user_id)) => query = query.filter(Column::UserId.eq(user_id)),
            Some(None) => query = query.filter(Column::UserId.is_null()),
            None => {}
        }
        let rows = query.all(self.reader()).await?;
        Page::cut(rows, limit, |row| row.uuid.into_bytes())
            .try_map(|row| server_of(row, self.vault()))
    }

    /// By uuid or by name.
    ///
    /// # Errors
    /// `Ambiguous` for a name that several owners use.
    pub async fn server(&self, id: &str) -> Result<Server, StoreError> {
        let query = mcp_server::Entity::find();
        let query = match Uuid::try_parse(id) {
            Ok(uuid) => query.filter(mcp_server::Column::Uuid.eq(uuid)),
            Err(_) => query.filter(mcp_server::Column::Name.eq(id)),
        };
        let mut rows = query.limit(2).all(self.reader()).await?;
        match (rows.pop(), rows.pop()) {
            (Some(row), None) => server_of(row, self.vault()),
            (Some(_), Some(_)) => Err(StoreError::Ambiguous { what: WHAT, name: id.to_owned() }),
            (None, _) => Err(StoreError::not_found(WHAT, id)),
        }
    }

    /// Makes a server. It is not started by this.
    pub async fn create_server(&self, new: NewServer) -> Result<Server, StoreError> {
        server_rules::check(&new)?;
        let uuid = Uuid::now_v7();
        let vault = self.vault();
        let bearer_token = new
            .bearer_token
            .as_ref()
            .map(|token| sealing::seal(vault, uuid, "bearer_token", None, token))
            .transpose()?;
        let at = now();
        let mut row = mcp_server::ActiveModel {
            uuid: Set(uuid),
            name: Set(new.name.clone()),
            description: Set(new.description.clone()),
            r#type: Set(new.kind.as_str().to_owned()),
            command: Set(new.command.clone()),
            args: Set(entity::json::StringList(new.args.clone())),
            env: Set(sealing::seal_map(vault, uuid, "env", &new.env)?),
            url: Set(new.url.clone()),
            bearer_token: Set(bearer_token),
            headers: Set(sealing::seal_map(vault, uuid, "headers", &new.headers)?),
            forward_headers: Set(entity::json::StringMap(new.forward_headers.clone())),
            ca_certificates: Set(new.ca_certificates.clone()),
            enabled: Set(new.enabled),
            isolation: Set(new.isolation().as_str().to_owned()),
            protocol: Set(new.protocol.as_str().to_owned()),
            user_id: Set(new.user_id.clone()),
            created_at: Set(at),
            updated_at: Set(at),
            ..Default::default()
        };
        upkeep::write(&new, &mut row);
        let transaction = self.write().await?;
        let row = row
            .insert(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &new.name))?;
        transaction.commit().await?;
        server_of(row, vault)
    }

    /// Changes what the patch names, and only that.
    pub async fn patch_server(&self, uuid: Uuid, patch: ServerPatch) -> Result<Server, StoreError> {
        let transaction = self.write().await?;
        let row = mcp_server::Entity::find_by_id(uuid)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found(WHAT, uuid))?;
        let before = server_of(row, self.vault())?;
        let after = patch.applied_to(&before);
        server_rules::check(&after)?;
        oauth_sessions::follow(&transaction, uuid, &patch, &after).await?;
        if after.user_id != before.user_id {
            self.refuse_stranded(&transaction, uuid, after.user_id.as_deref()).await?;
        }
        let row = self
            .changed(uuid, &patch, &after)?
            .update(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &after.name))?;
        transaction.commit().await?;
        server_of(row, self.vault())
    }

    /// Removes a server with everything that hangs on it: tools, memberships, history.
    pub async fn delete_server(&self, uuid: Uuid) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let deleted = mcp_server::Entity::delete_by_id(uuid).exec(&transaction).await?;
        transaction.commit().await?;
        match deleted.rows_affected {
            0 => Err(StoreError::not_found(WHAT, uuid)),
            _ => Ok(()),
        }
    }

    /// The columns a patch touches. Secrets it does not name stay sealed as they are, so that one
    /// which no longer opens is not lost by a change beside it.
    fn changed(
        &self,
        uuid: Uuid,
        patch: &ServerPatch,
        after: &NewServer,
    ) -> Result<mcp_server::ActiveModel, StoreError> {
        let vault = self.vault();
        let mut row = mcp_server::ActiveModel {
            uuid: sea_orm::ActiveValue::Unchanged(uuid),
            name: Set(after.name.clone()),
            description: Set(after.description.clone()),
            r#type: Set(after.kind.as_str().to_owned()),
            command: Set(after.command.clone()),
            args: Set(entity::json::StringList(after.args.clone())),
            url: Set(after.url.clone()),
            forward_headers: Set(entity::json::StringMap(after.forward_headers.clone())),
            ca_certificates: Set(after.ca_certificates.clone()),
            enabled: Set(after.enabled),
            isolation: Set(after.isolation().as_str().to_owned()),
            protocol: Set(after.protocol.as_str().to_owned()),
            user_id: Set(after.user_id.clone()),
            updated_at: Set(now()),
            ..Default::default()
        };
        upkeep::write(after, &mut row);
        if let Some(env) = &patch.env {
            row.env = Set(sealing::seal_map(vault, uuid, "env", env)?);
        }
        if let Some(headers) = &patch.headers {
            row.headers = Set(sealing::seal_map(vault, uuid, "headers", headers)?);
        }
        if let Some(token) = &patch.bearer_token {
            let token = token
                .as_ref()
                .map(|token| sealing::seal(vault, uuid, "bearer_token", None, token))
                .transpose()?;
            row.bearer_token = Set(token);
        }
        Ok(row)
    }

    /// A private server may be only in its owner's namespaces.
    async fn refuse_stranded(
        &self,
        connection: &impl ConnectionTrait,
        server: Uuid,
        owner: Option<&str>,
    ) -> Result<(), StoreError> {
        let Some(owner) = owner else { return Ok(()) };
        let memberships = namespace_server_mapping::Entity::find()
            .filter(namespace_server_mapping::Column::McpServerUuid.eq(server))
            .all(connection)
            .await?;
        let namespaces = memberships.into_iter().map(|membership| membership.namespace_uuid);
        let namespaces = namespace::Entity::find()
            .filter(namespace::Column::Uuid.is_in(namespaces))
            .all(connection)
            .await?;
        match namespaces.iter().find(|namespace| namespace.user_id.as_deref() != Some(owner)) {
            None => Ok(()),
            Some(namespace) => Err(StoreError::invalid(Problem::new(
                "user_id",
                format!("the namespace `{}` holds it, and belongs to others", namespace.name),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::identity::secret::Secret;
    use crate::identity::vault::Vault;
    use crate::store::testing::{
        add_user, authority, group, no_one, on_both, on_both_databases, open, owned, process,
        refused,
    };
    use crate::store::{ErrorStatus, Isolation, Protocol, ServerKind, Timeouts};

    fn secrets<const N: usize>(values: [(&str, &str); N]) -> BTreeMap<String, Secret> {
        values.map(|(name, value)| (name.to_owned(), Secret::new(value))).into()
    }

    fn remote() -> NewServer {
        NewServer {
            description: Some("finds things".to_owned()),
            url: Some("https://search.example/mcp".to_owned()),
            bearer_token: Some(Secret::new("hunter2")),
            headers: secrets([("x-team", "blue")]),
            forward_headers: [("x-user".to_owned(), "x-end-user".to_owned())].into(),
            ca_certificates: Some(authority().to_owned()),
            env: secrets([("A", "${FROM_ENV}"), ("B", "Bearer ${FROM_ENV}")]),
            args: vec!["--flag".to_owned(), "".to_owned()],
            protocol: Protocol::Legacy,
            timeouts: Timeouts {
                connect: Some(Duration::from_millis(1)),
                call: None,
                call_total: Some(Duration::from_secs(24 * 60 * 60)),
            },
            ..NewServer::new("search", ServerKind::StreamableHttp)
        }
    }

    #[tokio::test]
    async fn a_server_is_found_as_it_was_made() {
        on_both(async |store| {
            let made = store.create_server(remote()).await.unwrap();
            assert_eq!(made.isolation, Isolation::Session);
            assert_eq!(made.bearer_token, Some(Secret::new("hunter2")));
            assert_eq!(made.headers, remote().headers);
            assert_eq!(made.env, remote().env);
            assert_eq!(made.args, remote().args);
            assert_eq!(made.timeouts, remote().timeouts);
            assert_eq!(made.ca_certificates, remote().ca_certificates);
            assert_eq!(made.error_status, ErrorStatus::None);
            assert!(made.enabled && made.tools_listed_at.is_none() && made.unreadable.is_empty());

            assert_eq!(store.server("search").await.unwrap(), made);
            assert_eq!(store.server(&made.uuid.to_string()).await.unwrap(), made);
        })
        .await;
    }

    #[tokio::test]
    async fn no_secret_lies_in_clear() {
        on_both(async |store| {
            store.create_server(remote()).await.unwrap();
            let row = mcp_server::Entity::find().one(store.reader()).await.unwrap().unwrap();
            assert_eq!(row.env.0["A"], "${FROM_ENV}");
            for sealed in [&row.env.0["B"], &row.headers.0["x-team"], &row.bearer_token.unwrap()] {
                assert!(sealed.starts_with("sealed:v1:"), "{sealed}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_secret_that_does_not_open_is_named_and_survives_a_change_beside_it() {
        on_both_databases(async |options, data_dir| {
            let store = open(&options, data_dir).await;
            let made = store.create_server(remote()).await.unwrap();
            store.close().await.unwrap();

            let stranger = tempfile::tempdir().unwrap();
            let vault = Vault::open(stranger.path()).unwrap();
            let store = Store::open(&options, data_dir, vault).await.unwrap();
            let found = store.server("search").await.unwrap();
            assert_eq!(found.unreadable, ["env.B", "headers.x-team", "bearer_token"]);
            assert_eq!(found.env, secrets([("A", "${FROM_ENV}")]));
            let patch = ServerPatch { enabled: Some(false), ..ServerPatch::default() };
            store.patch_server(made.uuid, patch).await.unwrap();
            store.close().await.unwrap();

            let found = open(&options, data_dir).await.server("search").await.unwrap();
            assert_eq!(found, Server { enabled: false, updated_at: found.updated_at, ..made });
        })
        .await;
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_refused_to_the_same_owner_only() {
        on_both(async |store| {
            add_user(&store, "ann").await;
            add_user(&store, "bob").await;
            for owner in [None, Some("ann"), Some("bob")] {
                let new = NewServer { user_id: owner.map(str::to_owned), ..process("files") };
                store.create_server(new.clone()).await.unwrap();
                let taken = store.create_server(new).await;
                assert!(
                    matches!(&taken, Err(StoreError::Conflict { field: "name", value }) if value == "files"),
                    "{owner:?}: {taken:?}"
                );
            }
            let found = store.server("files").await;
            assert!(matches!(found, Err(StoreError::Ambiguous { .. })), "{found:?}");
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        on_both(async |store| {
            let id = no_one();
            let found = [
                store.server("nothing").await.err(),
                store.server(&id.to_string()).await.err(),
                store.patch_server(id, ServerPatch::default()).await.err(),
                store.delete_server(id).await.err(),
            ];
            for error in found {
                assert!(matches!(error, Some(StoreError::NotFound { .. })), "{error:?}");
            }
            assert_eq!(
                refused(store.create_server(owned(process("a"), "ghost")).await),
                ["user_id"]
            );
        })
        .await;
    }

    #[tokio::test]
    async fn a_patch_changes_what_it_names_and_null_clears() {
        on_both(async |store| {
            let made = store.create_server(remote()).await.unwrap();
            let patch = ServerPatch {
                description: Some(None),
                bearer_token: Some(None),
                ca_certificates: Some(None),
                headers: Some(secrets([("x-other", "red")])),
                connect_timeout: Some(None),
                isolation: Some(Isolation::User),
                ..ServerPatch::default()
            };

            let patched = store.patch_server(made.uuid, patch).await.unwrap();

            let expected = Server {
                description: None,
                bearer_token: None,
                ca_certificates: None,
                headers: secrets([("x-other", "red")]),
                timeouts: Timeouts { connect: None, ..made.timeouts },
                isolation: Isolation::User,
                updated_at: patched.updated_at,
                ..made
            };
            assert_eq!(patched, expected);
            assert!(patched.updated_at > patched.created_at);
            assert_eq!(store.server("search").await.unwrap(), expected);
        })
        .await;
    }

    #[tokio::test]
    async fn a_patch_is_judged_by_the_server_it_makes() {
        on_both(async |store| {
            let made = store.create_server(remote()).await.unwrap();
            let to_process =
                ServerPatch { kind: Some(ServerKind::Stdio), ..ServerPatch::default() };
            assert_eq!(
                refused(store.patch_server(made.uuid, to_process.clone()).await),
                ["command"]
            );
            let with_command = ServerPatch { command: Some(Some("npx".to_owned())), ..to_process };
            let patched = store.patch_server(made.uuid, with_command).await.unwrap();
            assert_eq!(patched.url, None, "a process has no URL");
            assert_eq!(patched.ca_certificates, None, "nor a certificate");

            let nameless = ServerPatch { name: Some("".to_owned()), ..ServerPatch::default() };
            assert_eq!(refused(store.patch_server(made.uuid, nameless).await), ["name"]);
        })
        .await;
    }

    #[tokio::test]
    async fn a_server_becomes_private_only_when_no_namespace_of_others_holds_it() {
        on_both(async |store| {
            add_user(&store, "ann").await;
            let server = store.create_server(process("files")).await.unwrap();
            let namespace = store.create_namespace(group("all", &[&server])).await.unwrap();
            let to_ann =
                ServerPatch { user_id: Some(Some("ann".to_owned())), ..ServerPatch::default() };
            let refusal = store.patch_server(server.uuid, to_ann.clone()).await;
            assert_eq!(refused(refusal), ["user_id"]);

            store.set_members(namespace.uuid, &[]).await.unwrap();
            store.patch_server(server.uuid, to_ann).await.unwrap();
        })
        .await;
    }

    #[tokio::test]
    async fn lists_are_filtered_by_column_and_come_in_pages() {
        on_both(async |store| {
            add_user(&store, "ann").await;
            for name in ["a", "b", "c", "d", "e"] {
                store.create_server(process(name)).await.unwrap();
            }
            store.create_server(remote()).await.unwrap();
            let off = NewServer { enabled: false, ..owned(process("f"), "ann") };
            store.create_server(off).await.unwrap();

            let names = async |filter: ServerFilter| -> Vec<String> {
                let page = store.servers(&filter, &PageRequest::default()).await.unwrap();
                page.items.into_iter().map(|server| server.name).collect()
            };
            let any = ServerFilter::default();
            assert_eq!(names(any.clone()).await, ["a", "b", "c", "d", "e", "search", "f"]);
            let name = Some("c".to_owned());
            assert_eq!(names(ServerFilter { name, ..any.clone() }).await, ["c"]);
            let kind = Some(ServerKind::StreamableHttp);
            assert_eq!(names(ServerFilter { kind, ..any.clone() }).await, ["search"]);
            let enabled = Some(false);
            assert_eq!(names(ServerFilter { enabled, ..any.clone() }).await, ["f"]);
            let user_id = Some(Some("ann".to_owned()));
            assert_eq!(names(ServerFilter { user_id, ..any.clone() }).await, ["f"]);
            let user_id = Some(None);
            assert_eq!(names(ServerFilter { user_id, ..any.clone() }).await.len(), 6);
            let error_status = Some(ErrorStatus::Crashed);
            assert_eq!(names(ServerFilter { error_status, ..any.clone() }).await, [""; 0]);

            let mut seen = Vec::new();
            let mut request = PageRequest { limit: Some(3), cursor: None };
            loop {
                let page = store.servers(&any, &request).await.unwrap();
                seen.push(page.items.len());
                match page.next_cursor {
                    Some(cursor) => request.cursor = Some(cursor),
                    None => break,
                }
            }
            assert_eq!(seen, [3, 3, 1]);
        })
        .await;
    }

    /// A command beside the daemon opens the same database.
    #[tokio::test]
    async fn writers_of_two_processes_wait_for_each_other() {
        on_both_databases(async |options, data_dir| {
            let stores = [open(&options, data_dir).await, open(&options, data_dir).await];
            let server = stores[0].create_server(process("files")).await.unwrap();
            let writes = (0..40).map(|number| {
                let description = Some(Some(format!("{number}")));
                let patch = ServerPatch { description, ..ServerPatch::default() };
                stores[number % 2].patch_server(server.uuid, patch)
            });
            for outcome in futures_util::future::join_all(writes).await {
                outcome.unwrap();
            }
        })
        .await;
    }
}
