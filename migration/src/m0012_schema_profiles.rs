//! Which family of clients the tools of an endpoint are made fit for.

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
        dialect::run(manager, "ALTER TABLE endpoints DROP COLUMN schema_profile").await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// What is there goes on as it was: its tools are shown as they come.
const UP: &str = r#"
ALTER TABLE endpoints ADD COLUMN schema_profile text NOT NULL DEFAULT 'raw'
    CONSTRAINT endpoints_schema_profile_check CHECK (
        schema_profile IN ('raw', 'strict-common', 'claude', 'openai', 'gemini', 'vscode', 'auto')
    );
"#;
