//! Finds, makes, changes and removes namespaces.
//!
//! Names are unique for each owner. Who may be a member is `members`' business, what was decided
//! about single tools `policies`'.

use entity::{endpoint, namespace};
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect,
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::error::StoreError;
use super::members::{self, Member, Membership};
use super::page::{Page, PageRequest};
use super::rules::{Name, Problem, refuse_nul};
use super::statuses;
use super::words::{Naming, Status};
use super::{Store, now};

const WHAT: &str = "namespace";

/// A named group of servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Namespace {
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub naming: Naming,
    /// When the URIs of resources and templates are rewritten: ALWAYS; ON_CONFLICT, where another
    /// server of the namespace had the URI first; or NEVER, where the later is hidden.
    pub uri_naming: Naming,
    /// What a tool is that nothing was decided about here.
    pub default_tool_status: Status,
    /// None for what is public.
    pub user_id: Option<String>,
    /// In the order in which their tools are listed.
    pub servers: Vec<Member>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNamespace {
    pub name: String,
    pub description: Option<String>,
    pub naming: Naming,
    pub uri_naming: Naming,
    pub default_tool_status: Status,
    pub user_id: Option<String>,
    pub servers: Vec<Membership>,
}

/// None leaves a field as it is, `Some(None)` clears it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespacePatch {
    pub name: Option<String>,
    pub description: Option<Option<String>>,
    pub naming: Option<Naming>,
    pub uri_naming: Option<Naming>,
    /// Tools that were seen before keep the status they have.
    pub default_tool_status: Option<Status>,
    pub user_id: Option<Option<String>>,
}

/// Which namespaces are asked for; every field that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceFilter {
    pub name: Option<String>,
    pub naming: Option<Naming>,
    pub uri_naming: Option<Naming>,
    pub default_tool_status: Option<Status>,
    /// `Some(None)` asks for what is public.
    pub user_id: Option<Option<String>>,
}

impl Store {
    /// Oldest first.
    #[cfg(test)]
    pub async fn namespaces(&self, page: &PageRequest) -> Result<Page<Namespace>, StoreError> {
        self.namespaces_where(&NamespaceFilter::default(), page).await
    }

    /// Oldest first.
    pub async fn namespaces_where(
        &self,
        filter: &NamespaceFilter,
        page: &PageRequest,
    ) -> Result<Page<Namespace>, StoreError> {
        let limit = page.limit()?;
        let mut query = namespace::Entity::find()
            .order_by_asc(namespace::Column::Uuid)
            .limit(limit.saturating_add(1));
        if let Some(after) = page.after()? {
            query = query.filter(namespace::Column::Uuid.gt(Uuid::from_bytes(after)));
        }
        if let Some(name) = &filter.name {
            query = query.filter(namespace::Column::Name.eq(name));
        }
        if let Some(naming) = filter.naming {
            query = query.filter(namespace::Column::Naming.eq(naming.as_str()));
        }
        if let Some(naming) = filter.uri_naming {
            query = query.filter(namespace::Column::UriNaming.eq(naming.as_str()));
        }
        if let Some(status) = filter.default_tool_status {
            query = query.filter(namespace::Column::DefaultToolStatus.eq(status.as_str()));
        }
        match &filter.user_id {
            Some(Some(user_id)) => query = query.filter(namespace::Column::UserId.eq(user_id)),
            Some(None) => query = query.filter(namespace::Column::UserId.is_null()),
            None => {}
        }
        let snapshot = self.snapshot().await?;
        let rows = query.all(&snapshot).await?;
        let page = Page::cut(rows, limit, |row| row.uuid.into_bytes());
        let items = with_members(&snapshot, page.items).await?;
        Ok(Page { items, next_cursor: page.next_cursor })
    }

    /// By uuid or by name.
    ///
    /// # Errors
    /// `Ambiguous` for a name that several owners use.
    pub async fn namespace(&self, id: &str) -> Result<Namespace, StoreError> {
        let query = namespace::Entity::find();
        let query = match Uuid::try_parse(id) {
            Ok(uuid) => query.filter(namespace::Column::Uuid.eq(uuid)),
            Err(_) => query.filter(namespace::Column::Name.eq(id)),
        };
        let snapshot = self.snapshot().await?;
        let rows = query.limit(2).all(&snapshot).await?;
        if rows.len() > 1 {
            return Err(StoreError::Ambiguous { what: WHAT, name: id.to_owned() });
        }
        let found = with_members(&snapshot, rows).await?;
        found.into_iter().next().ok_or_else(|| StoreError::not_found(WHAT, id))
    }

    pub async fn create_namespace(&self, new: NewNamespace) -> Result<Namespace, StoreError> {
        check(&new.name, new.description.as_deref(), new.user_id.as_deref())?;
        let at = now();
        let row = namespace::Model {
            uuid: Uuid::now_v7(),
            name: new.name,
            description: new.description,
            naming: new.naming.as_str().to_owned(),
            uri_naming: new.uri_naming.as_str().to_owned(),
            default_tool_status: new.default_tool_status.as_str().to_owned(),
            user_id: new.user_id,
            created_at: at,
            updated_at: at,
        };
        let transaction = self.write().await?;
        let name = row.name.clone();
        let row = row
            .into_active_model()
            .insert(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &name))?;
        members::place(&transaction, &row, &new.servers).await?;
        finished(transaction, row).await
    }

    pub async fn patch_namespace(
        &self,
        uuid: Uuid,
        patch: NamespacePatch,
    ) -> Result<Namespace, StoreError> {
        let transaction = self.write().await?;
        let before = existing(&transaction, uuid).await?;
        let named = |naming: Naming| naming.as_str().to_owned();
        let naming = patch.naming.map_or(before.naming, named);
        let uri_naming = patch.uri_naming.map_or(before.uri_naming, named);
        let default_tool_status = match patch.default_tool_status {
            Some(status) => status.as_str().to_owned(),
            None => before.default_tool_status.clone(),
        };
        let after = namespace::Model {
            uuid,
            name: patch.name.unwrap_or(before.name),
            description: patch.description.unwrap_or(before.description),
            naming,
            uri_naming,
            default_tool_status,
            user_id: patch.user_id.unwrap_or_else(|| before.user_id.clone()),
            created_at: before.created_at,
            updated_at: now(),
        };
        check(&after.name, after.description.as_deref(), after.user_id.as_deref())?;
        if after.user_id != before.user_id {
            refuse_stranded(&transaction, &after).await?;
        }
        if after.default_tool_status != before.default_tool_status {
            statuses::settle(&transaction, uuid, &before.default_tool_status).await?;
        }
        let changed = namespace::ActiveModel {
            uuid: Unchanged(uuid),
            name: Set(after.name.clone()),
            description: Set(after.description),
            naming: Set(after.naming),
            uri_naming: Set(after.uri_naming),
            default_tool_status: Set(after.default_tool_status),
            user_id: Set(after.user_id),
            updated_at: Set(after.updated_at),
            ..Default::default()
        };
        let row = changed
            .update(&transaction)
            .await
            .map_err(|error| StoreError::of_write(error, &after.name))?;
        finished(transaction, row).await
    }

    /// Makes the members exactly these, in this order.
    pub async fn set_members(
        &self,
        uuid: Uuid,
        members: &[Membership],
    ) -> Result<Namespace, StoreError> {
        let transaction = self.write().await?;
        let mut row = existing(&transaction, uuid).await?;
        if members::place(&transaction, &row, members).await? {
            touch(&transaction, &mut row).await?;
        }
        finished(transaction, row).await
    }

    /// Gives some members another status; all others stay as they are.
    pub async fn set_member_statuses(
        &self,
        uuid: Uuid,
        members: &[Membership],
    ) -> Result<Namespace, StoreError> {
        let transaction = self.write().await?;
        let mut row = existing(&transaction, uuid).await?;
        if members::set_statuses(&transaction, uuid, members).await? {
            touch(&transaction, &mut row).await?;
        }
        finished(transaction, row).await
    }

    /// Removes a namespace with its endpoints, memberships and policies. Its servers stay.
    pub async fn delete_namespace(&self, uuid: Uuid) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let deleted = namespace::Entity::delete_by_id(uuid).exec(&transaction).await?;
        transaction.commit().await?;
        match deleted.rows_affected {
            0 => Err(StoreError::not_found(WHAT, uuid)),
            _ => Ok(()),
        }
    }
}

/// Namespaces with their members, in the order of the rows.
pub(super) async fn with_members(
    connection: &impl ConnectionTrait,
    rows: Vec<namespace::Model>,
) -> Result<Vec<Namespace>, StoreError> {
    let mut members = members::of(connection, rows.iter().map(|row| row.uuid)).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Namespace {
                uuid: row.uuid,
                name: row.name,
                description: row.description,
                naming: Naming::stored("namespaces.naming", &row.naming)?,
                uri_naming: Naming::stored("namespaces.uri_naming", &row.uri_naming)?,
                default_tool_status: Status::stored(
                    "namespaces.default_tool_status",
                    &row.default_tool_status,
                )?,
                user_id: row.user_id,
                servers: members.remove(&row.uuid).unwrap_or_default(),
                created_at: row.created_at,
                updated_at: row.updated_at,
            })
        })
        .collect()
}

fn check(name: &str, description: Option<&str>, user_id: Option<&str>) -> Result<(), StoreError> {
    let mut problems = Vec::new();
    problems.extend(Name::parse(name).err());
    problems.extend(refuse_nul("description", description));
    problems.extend(refuse_nul("user_id", user_id));
    if problems.is_empty() { Ok(()) } else { Err(StoreError::Invalid(problems)) }
}

async fn touch(
    connection: &impl ConnectionTrait,
    row: &mut namespace::Model,
) -> Result<(), StoreError> {
    row.updated_at = now();
    namespace::Entity::update_many()
        .col_expr(namespace::Column::UpdatedAt, Expr::value(row.updated_at))
        .filter(namespace::Column::Uuid.eq(row.uuid))
        .exec(connection)
        .await?;
    Ok(())
}

async fn existing(
    connection: &impl ConnectionTrait,
    uuid: Uuid,
) -> Result<namespace::Model, StoreError> {
    namespace::Entity::find_by_id(uuid)
        .one(connection)
        .await?
        .ok_or_else(|| StoreError::not_found(WHAT, uuid))
}

async fn finished(
    transaction: sea_orm::DatabaseTransaction,
    row: namespace::Model,
) -> Result<Namespace, StoreError> {
    let uuid = row.uuid;
    let found = with_members(&transaction, vec![row]).await?;
    transaction.commit().await?;
    found.into_iter().next().ok_or_else(|| StoreError::not_found(WHAT, uuid))
}

/// A change of owner must leave every member and every endpoint in its right place.
async fn refuse_stranded(
    connection: &impl ConnectionTrait,
    after: &namespace::Model,
) -> Result<(), StoreError> {
    let members: Vec<Membership> = members::of(connection, [after.uuid])
        .await?
        .into_values()
        .flatten()
        .map(|member| Membership { server: member.server, status: member.status })
        .collect();
    match members::refuse(connection, after.user_id.as_deref(), &members).await {
        Err(StoreError::Invalid(_)) => {
            return Err(StoreError::invalid(Problem::new(
                "user_id",
                "it holds servers that the new owner may not use",
            )));
        }
        other => other?,
    }
    let Some(owner) = after.user_id.as_deref() else { return Ok(()) };
    let endpoints = endpoint::Entity::find()
        .filter(endpoint::Column::NamespaceUuid.eq(after.uuid))
        .all(connection)
        .await?;
    match endpoints.iter().find(|endpoint| endpoint.user_id.as_deref() != Some(owner)) {
        None => Ok(()),
        Some(endpoint) => Err(StoreError::invalid(Problem::new(
            "user_id",
            format!("the endpoint `{}` leads to it, and belongs to others", endpoint.name),
        ))),
    }
}

#[cfg(test)]
#[path = "namespaces_tests.rs"]
mod tests;
