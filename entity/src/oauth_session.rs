//! What we hold to act as an OAuth client of one upstream.

use sea_orm::entity::prelude::*;

use crate::json::StringMap;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "oauth_sessions")]
pub struct Model {
    /// Another one for each session that is put in, so that what was renewed of an earlier one is never
    /// written to it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub mcp_server_uuid: Uuid,
    /// Names in clear (RFC 7591), values sealed.
    pub client_information: StringMap,
    /// Names in clear (RFC 6749), values sealed.
    pub tokens: Option<StringMap>,
    pub code_verifier: Option<String>,
    pub created_at: TimeDateTimeWithTimeZone,
    pub updated_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
