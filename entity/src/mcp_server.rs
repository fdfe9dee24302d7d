//! One configured MCP server, with the last report on its health.
//! The report columns are written for operators and are never read back to decide anything.

use sea_orm::entity::prelude::*;

use crate::json::{StringList, StringMap};

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "mcp_servers")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    /// `STDIO`, `SSE` or `STREAMABLE_HTTP`.
    pub r#type: String,
    pub command: Option<String>,
    pub args: StringList,
    /// Names in clear, values sealed.
    pub env: StringMap,
    pub url: Option<String>,
    /// Sealed.
    pub bearer_token: Option<String>,
    /// Names in clear, values sealed.
    pub headers: StringMap,
    /// Header of the client to header of the upstream.
    pub forward_headers: StringMap,
    /// PEM. Whom its certificate has to be signed by; without it, whom the machine trusts.
    #[sea_orm(column_type = "Text", nullable)]
    pub ca_certificates: Option<String>,
    pub enabled: bool,
    /// `SHARED`, `SESSION` or `USER`.
    pub isolation: String,
    /// `AUTO`, `LEGACY` or `MODERN`.
    pub protocol: String,
    pub connect_timeout_ms: Option<i64>,
    pub call_timeout_ms: Option<i64>,
    pub call_total_timeout_ms: Option<i64>,
    /// `EAGER` or `LAZY`.
    pub start: String,
    pub idle_stop_ms: Option<i64>,
    pub concurrency_max: Option<i32>,
    /// `STANDARD` or `STRICT`.
    pub profile: String,
    /// `NONE`, `ERROR` or `CRASHED`.
    pub error_status: String,
    pub error_reason: Option<String>,
    pub error_at: Option<TimeDateTimeWithTimeZone>,
    pub last_error: Option<String>,
    pub last_exit_code: Option<i32>,
    pub last_exit_signal: Option<i32>,
    pub stderr_tail: Option<String>,
    pub tools_listed_at: Option<TimeDateTimeWithTimeZone>,
    /// What it says of its use.
    #[sea_orm(column_type = "Text", nullable)]
    pub instructions: Option<String>,
    pub user_id: Option<String>,
    pub created_at: TimeDateTimeWithTimeZone,
    pub updated_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
