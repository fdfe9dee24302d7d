//! An MCP session that has ended, for as long as its id would be good otherwise. Not a person's sign-in.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "ended_sessions")]
pub struct Model {
    /// The random part of the session's id, which alone opens nothing.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub issued_at: TimeDateTimeWithTimeZone,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
