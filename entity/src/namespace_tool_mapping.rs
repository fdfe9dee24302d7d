//! Whether a tool is used in a namespace, and what it is called there.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "namespace_tool_mappings")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub namespace_uuid: Uuid,
    pub tool_uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// `ACTIVE` or `INACTIVE`.
    pub status: String,
    pub override_name: Option<String>,
    pub override_title: Option<String>,
    pub override_description: Option<String>,
    pub override_annotations: Option<Json>,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
