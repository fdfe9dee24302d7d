//! The name or URI under which a namespace has shown something, so that it stays the same for ever.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "shown_names")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub namespace_uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `TOOL`, `PROMPT`, `RESOURCE` or `RESOURCE_TEMPLATE`.
    pub kind: String,
    /// The server's own name for it; of a resource its URI, of a template that.
    pub tool_name: String,
    pub shown_name: String,
    /// The naming, or of a URI the `uri_naming`, under which it was given: `ALWAYS`, `ON_CONFLICT` or `NEVER`.
    pub naming: String,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
