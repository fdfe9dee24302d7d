//! One tool that a server has offered, kept after it vanished so that its policies survive.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tools")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    pub name: String,
    pub title: Option<String>,
    pub description: Option<String>,
    /// The input schema, for queries. JSON columns reorder keys: what clients see is `definition`.
    pub tool_schema: Json,
    /// The tool object as it came, byte for byte.
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
