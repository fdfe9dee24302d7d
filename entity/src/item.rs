//! One prompt, resource or resource template that a server has offered, kept after it vanished so that
//! what was decided about it survives.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "items")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `PROMPT`, `RESOURCE` or `RESOURCE_TEMPLATE`.
    pub kind: String,
    /// The name of a prompt, the URI of a resource, the URI template of a template.
    #[sea_orm(column_type = "Text")]
    pub key: String,
    /// The object as it came, byte for byte.
    #[sea_orm(column_type = "Text")]
    pub definition: String,
    /// Its place in the order of the server.
    pub position: i32,
    pub vanished_at: Option<TimeDateTimeWithTimeZone>,
    pub created_at: TimeDateTimeWithTimeZone,
    pub updated_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
