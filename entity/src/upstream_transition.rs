//! One change of state of one server. Rows are only ever added and, past a limit, dropped.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "upstream_transitions")]
pub struct Model {
    #[sea_orm(primary_key)]
    pub id: i64,
    pub mcp_server_uuid: Uuid,
    pub at: TimeDateTimeWithTimeZone,
    pub state: String,
    pub error_status: String,
    pub reason: String,
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    pub restarts: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
