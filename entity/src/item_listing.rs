//! That a server has listed all it offers of a kind, though it may have been nothing.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "item_listings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `PROMPT`, `RESOURCE` or `RESOURCE_TEMPLATE`.
    pub kind: String,
    pub listed_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
