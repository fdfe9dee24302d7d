//! A token our OAuth server gave out, with the one that refreshes it.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "oauth_access_tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub access_token: String,
    pub client_id: String,
    pub user_id: String,
    pub scope: String,
    pub expires_at: TimeDateTimeWithTimeZone,
    pub refresh_token: Option<String>,
    pub refresh_token_expires_at: Option<TimeDateTimeWithTimeZone>,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
