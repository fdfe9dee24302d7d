//! A named group of servers.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "namespaces")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    /// `ALWAYS`, `ON_CONFLICT` or `NEVER`.
    pub naming: String,
    /// `ALWAYS`, `ON_CONFLICT` or `NEVER`: when URIs are rewritten.
    pub uri_naming: String,
    /// `ACTIVE` or `INACTIVE`: what a tool is that nothing was decided about.
    pub default_tool_status: String,
    pub user_id: Option<String>,
    pub created_at: TimeDateTimeWithTimeZone,
    pub updated_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
