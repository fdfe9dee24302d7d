//! One entry of the log. Rows are only ever added and dropped.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "log_entries")]
pub struct Model {
    /// Given by the daemon: microseconds of the epoch, or one more than the last.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i64,
    pub at: TimeDateTimeWithTimeZone,
    /// `debug`, `info`, `warn`, `error`
    pub level: String,
    pub kind: String,
    /// No reference: an entry outlives its server.
    pub mcp_server_uuid: Option<Uuid>,
    pub server: Option<String>,
    pub message: String,
    pub state: Option<String>,
    pub reason: Option<String>,
    pub tool: Option<String>,
    pub endpoint: Option<String>,
    pub dropped: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
