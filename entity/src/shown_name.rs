//! The name under which a namespace has shown a tool or a prompt, so that it stays the same for ever.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "shown_names")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub namespace_uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `TOOL` or `PROMPT`.
    pub kind: String,
    /// The server's own name for it.
    pub tool_name: String,
    pub shown_name: String,
    /// The naming under which it was given: `ALWAYS`, `ON_CONFLICT` or `NEVER`.
    pub naming: String,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
