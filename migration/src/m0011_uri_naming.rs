//! Whether a namespace rewrites URIs that several of its servers have, and which of them it has
//! rewritten, beside the names of tools and prompts.

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

const UP: &str = r#"
ALTER TABLE namespaces ADD COLUMN uri_naming text NOT NULL DEFAULT 'NEVER'
    CONSTRAINT namespaces_uri_naming_check
        CHECK (uri_naming IN ('ALWAYS', 'ON_CONFLICT', 'NEVER'));

CREATE TABLE shown_keys (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    kind text NOT NULL DEFAULT 'TOOL',
    tool_name text NOT NULL,
    shown_name text NOT NULL,
    naming text NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT shown_names_key_unique_idx
        UNIQUE (namespace_uuid, mcp_server_uuid, kind, tool_name),
    CONSTRAINT shown_names_shown_key_unique_idx UNIQUE (namespace_uuid, kind, shown_name),
    CONSTRAINT shown_keys_kind_check
        CHECK (kind IN ('TOOL', 'PROMPT', 'RESOURCE', 'RESOURCE_TEMPLATE')),
    CONSTRAINT shown_keys_naming_check
        CHECK (naming IN ('ALWAYS', 'ON_CONFLICT', 'NEVER'))
);
INSERT INTO shown_keys
        (uuid, namespace_uuid, mcp_server_uuid, kind, tool_name, shown_name, naming, created_at)
    SELECT uuid, namespace_uuid, mcp_server_uuid, kind, tool_name, shown_name, naming, created_at
    FROM shown_names;
DROP TABLE shown_names;
ALTER TABLE shown_keys RENAME TO shown_names;
CREATE INDEX shown_names_server_idx ON shown_names (mcp_server_uuid);
"#;

/// Only the names of tools and prompts fit into the shape before.
const DOWN: &str = r#"
CREATE TABLE shown_item_names (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    kind text NOT NULL DEFAULT 'TOOL',
    tool_name text NOT NULL,
    shown_name text NOT NULL,
    naming text NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT shown_names_item_unique_idx
        UNIQUE (namespace_uuid, mcp_server_uuid, kind, tool_name),
    CONSTRAINT shown_names_shown_item_unique_idx UNIQUE (namespace_uuid, kind, shown_name),
    CONSTRAINT shown_item_names_kind_check CHECK (kind IN ('TOOL', 'PROMPT')),
    CONSTRAINT shown_item_names_naming_check
        CHECK (naming IN ('ALWAYS', 'ON_CONFLICT', 'NEVER'))
);
INSERT INTO shown_item_names
        (uuid, namespace_uuid, mcp_server_uuid, kind, tool_name, shown_name, naming, created_at)
    SELECT uuid, namespace_uuid, mcp_server_uuid, kind, tool_name, shown_name, naming, created_at
    FROM shown_names WHERE kind IN ('TOOL', 'PROMPT');
DROP TABLE shown_names;
ALTER TABLE shown_item_names RENAME TO shown_names;
CREATE INDEX shown_names_server_idx ON shown_names (mcp_server_uuid);
ALTER TABLE namespaces DROP COLUMN uri_naming;
"#;
