//! Which MCP sessions have ended, so that no restart revives them.

use sea_orm_migration::prelude::*;

use crate::dialect;

#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::run(manager, UP).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        dialect::drop_tables(manager, &["ended_sessions"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE ended_sessions (
    id {uuid} NOT NULL PRIMARY KEY,
    issued_at {time} NOT NULL
);
CREATE INDEX ended_sessions_issued_at_idx ON ended_sessions (issued_at);
"#;
