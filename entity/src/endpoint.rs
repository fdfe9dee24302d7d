//! A public name bound to one namespace, and who may come in by it.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "endpoints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub uuid: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub namespace_uuid: Uuid,
    pub enable_api_key_auth: bool,
    pub enable_oauth: bool,
    pub use_query_param_auth: bool,
    pub enable_max_rate: bool,
    pub enable_client_max_rate: bool,
    pub max_rate: Option<i32>,
    pub max_rate_seconds: Option<i32>,
    pub client_max_rate: Option<i32>,
    pub client_max_rate_seconds: Option<i32>,
    pub client_max_rate_strategy: Option<String>,
    pub client_max_rate_strategy_key: Option<String>,
    pub user_id: Option<String>,
    pub schema_profile: String,
    pub created_at: TimeDateTimeWithTimeZone,
    pub updated_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
