//! The log that outlives the daemon: what servers wrote, and what has failed.

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
        dialect::drop_tables(manager, &["log_entries"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// Why a server failed is worth reading when it has been deleted, too: it is not referred to.
const UP: &str = r#"
CREATE TABLE log_entries (
    id bigint NOT NULL PRIMARY KEY,
    at {time} NOT NULL,
    level text NOT NULL,
    kind text NOT NULL,
    mcp_server_uuid {uuid},
    server text,
    message text NOT NULL,
    state text,
    reason text,
    tool text,
    endpoint text,
    dropped bigint NOT NULL DEFAULT 0,
    CONSTRAINT log_entries_level_check CHECK (level IN ('debug', 'info', 'warn', 'error'))
);
"#;
