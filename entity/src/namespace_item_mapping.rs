//! Whether a prompt, a resource or a template is used in a namespace.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "namespace_item_mappings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub namespace_uuid: Uuid,
    pub item_uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `ACTIVE` or `INACTIVE`.
    pub status: String,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
