//! What becomes of a tool that a namespace has not seen before.

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
        dialect::run(manager, "ALTER TABLE namespaces DROP COLUMN default_tool_status").await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
ALTER TABLE namespaces ADD COLUMN default_tool_status text NOT NULL DEFAULT 'ACTIVE'
    CONSTRAINT namespaces_default_tool_status_check
        CHECK (default_tool_status IN ('ACTIVE', 'INACTIVE'));
"#;
