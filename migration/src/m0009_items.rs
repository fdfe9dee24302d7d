//! What servers offer besides tools, and what is used of it; and the names of prompts, which are kept
//! beside those of tools.

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
        dialect::run(manager, DOWN).await?;
        dialect::drop_tables(manager, &["items", "item_listings", "namespace_item_mappings"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE items (
    uuid {uuid} NOT NULL PRIMARY KEY,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    kind text NOT NULL,
    key text NOT NULL,
    definition text NOT NULL,
    position integer NOT NULL,
    vanished_at {time},
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT items_unique_key_per_server_idx UNIQUE (mcp_server_uuid, kind, key),
    CONSTRAINT items_kind_check CHECK (kind IN ('PROMPT', 'RESOURCE', 'RESOURCE_TEMPLATE'))
);

CREATE TABLE item_listings (
    uuid {uuid} NOT NULL PRIMARY KEY,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    kind text NOT NULL,
    listed_at {time} NOT NULL,
    CONSTRAINT item_listings_unique_idx UNIQUE (mcp_server_uuid, kind),
    CONSTRAINT item_listings_kind_check
        CHECK (kind IN ('PROMPT', 'RESOURCE', 'RESOURCE_TEMPLATE'))
);

CREATE TABLE namespace_item_mappings (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    item_uuid {uuid} NOT NULL REFERENCES items (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'ACTIVE',
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT namespace_item_mappings_unique_idx UNIQUE (namespace_uuid, item_uuid),
    CONSTRAINT namespace_item_mappings_status_check CHECK (status IN ('ACTIVE', 'INACTIVE'))
);
CREATE INDEX namespace_item_mappings_item_idx ON namespace_item_mappings (item_uuid);
CREATE INDEX namespace_item_mappings_server_idx ON namespace_item_mappings (mcp_server_uuid);

ALTER TABLE mcp_servers ADD COLUMN instructions text;

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
        (uuid, namespace_uuid, mcp_server_uuid, tool_name, shown_name, naming, created_at)
    SELECT uuid, namespace_uuid, mcp_server_uuid, tool_name, shown_name, naming, created_at
    FROM shown_names;
DROP TABLE shown_names;
ALTER TABLE shown_item_names RENAME TO shown_names;
CREATE INDEX shown_names_server_idx ON shown_names (mcp_server_uuid);
"#;

/// Only the names of tools fit into the shape before.
const DOWN: &str = r#"
CREATE TABLE shown_tool_names (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    tool_name text NOT NULL,
    shown_name text NOT NULL,
    naming text NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT shown_names_tool_unique_idx UNIQUE (namespace_uuid, mcp_server_uuid, tool_name),
    CONSTRAINT shown_names_shown_unique_idx UNIQUE (namespace_uuid, shown_name),
    CONSTRAINT shown_names_naming_check
        CHECK (naming IN ('ALWAYS', 'ON_CONFLICT', 'NEVER'))
);
INSERT INTO shown_tool_names
        (uuid, namespace_uuid, mcp_server_uuid, tool_name, shown_name, naming, created_at)
    SELECT uuid, namespace_uuid, mcp_server_uuid, tool_name, shown_name, naming, created_at
    FROM shown_names WHERE kind = 'TOOL';
DROP TABLE shown_names;
ALTER TABLE shown_tool_names RENAME TO shown_names;
CREATE INDEX shown_names_server_idx ON shown_names (mcp_server_uuid);
ALTER TABLE mcp_servers DROP COLUMN instructions;
"#;
