//! How a server is kept: when it is started and stopped, and how much it is given to do at once.

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
        dialect::run(manager, DOWN).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// What there was stays as it was: started with the daemon, and never stopped for want of work.
const UP: &str = r#"
ALTER TABLE mcp_servers ADD COLUMN start text NOT NULL DEFAULT 'EAGER'
    CONSTRAINT mcp_servers_start_check CHECK (start IN ('EAGER', 'LAZY'));
ALTER TABLE mcp_servers ADD COLUMN idle_stop_ms bigint
    CONSTRAINT mcp_servers_idle_stop_check CHECK (idle_stop_ms > 0);
ALTER TABLE mcp_servers ADD COLUMN concurrency_max integer
    CONSTRAINT mcp_servers_concurrency_check CHECK (concurrency_max > 0);
ALTER TABLE mcp_servers ADD COLUMN profile text NOT NULL DEFAULT 'STANDARD'
    CONSTRAINT mcp_servers_profile_check CHECK (profile IN ('STANDARD', 'STRICT'));
"#;

const DOWN: &str = r#"
ALTER TABLE mcp_servers DROP COLUMN profile;
ALTER TABLE mcp_servers DROP COLUMN concurrency_max;
ALTER TABLE mcp_servers DROP COLUMN idle_stop_ms;
ALTER TABLE mcp_servers DROP COLUMN start;
"#;
