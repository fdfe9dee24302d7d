//! That a server is a member of a namespace, at which place, and whether it is used.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "namespace_server_mappings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub namespace_uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `ACTIVE` or `INACTIVE`.
    pub status: String,
    /// Its place in the order of the namespace.
    pub position: i32,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
