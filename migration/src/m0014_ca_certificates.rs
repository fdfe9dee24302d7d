//! Whom a remote server's certificate has to be signed by, where that is not whom the machine trusts.

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

/// What there was goes on trusting whom the machine trusts.
const UP: &str = r#"
ALTER TABLE mcp_servers ADD COLUMN ca_certificates text
    CONSTRAINT mcp_servers_ca_certificates_check CHECK (ca_certificates LIKE '%-----BEGIN CERTIFICATE-----%');
"#;

const DOWN: &str = r#"
ALTER TABLE mcp_servers DROP COLUMN ca_certificates;
"#;
