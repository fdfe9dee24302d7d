//! A key that opens endpoints or the admin API. Its value is not here, only a hash of it.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "api_keys")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub name: String,
    /// Lower-case hex SHA-256 of the value.
    pub key: String,
    /// Enough of the value for a person to tell it from others.
    pub hint: String,
    /// `CLIENT` or `ADMIN`.
    pub kind: String,
    pub user_id: Option<String>,
    pub is_active: bool,
    pub created_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
