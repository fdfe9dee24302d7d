//! Groups of servers: their members, what is used of each tool, and the names they are shown by.

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
        dialect::drop_tables(
            manager,
            &["namespaces", "namespace_server_mappings", "namespace_tool_mappings", "shown_names"],
        )
        .await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE namespaces (
    uuid {uuid} NOT NULL PRIMARY KEY,
    name text NOT NULL,
    description text,
    naming text NOT NULL DEFAULT 'ALWAYS',
    user_id text REFERENCES users (id) ON DELETE CASCADE,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT namespaces_name_regex_check CHECK ({letters:name}),
    CONSTRAINT namespaces_naming_check
        CHECK (naming IN ('ALWAYS', 'ON_CONFLICT', 'NEVER'))
);
CREATE UNIQUE INDEX namespaces_name_user_unique_idx
    ON namespaces (name, user_id) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX namespaces_name_public_unique_idx
    ON namespaces (name) WHERE user_id IS NULL;
CREATE INDEX namespaces_user_id_idx ON namespaces (user_id);

CREATE TABLE namespace_server_mappings (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'ACTIVE',
    position integer NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT namespace_server_mappings_unique_idx UNIQUE (namespace_uuid, mcp_server_uuid),
    CONSTRAINT namespace_server_mappings_status_check CHECK (status IN ('ACTIVE', 'INACTIVE'))
);
CREATE INDEX namespace_server_mappings_server_idx ON namespace_server_mappings (mcp_server_uuid);
CREATE INDEX namespace_server_mappings_status_idx ON namespace_server_mappings (status);

CREATE TABLE namespace_tool_mappings (
    uuid {uuid} NOT NULL PRIMARY KEY,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    tool_uuid {uuid} NOT NULL REFERENCES tools (uuid) ON DELETE CASCADE,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    status text NOT NULL DEFAULT 'ACTIVE',
    override_name text,
    override_title text,
    override_description text,
    override_annotations {json},
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT namespace_tool_mappings_unique_idx UNIQUE (namespace_uuid, tool_uuid),
    CONSTRAINT namespace_tool_mappings_status_check CHECK (status IN ('ACTIVE', 'INACTIVE'))
);
CREATE INDEX namespace_tool_mappings_tool_idx ON namespace_tool_mappings (tool_uuid);
CREATE INDEX namespace_tool_mappings_server_idx ON namespace_tool_mappings (mcp_server_uuid);
CREATE INDEX namespace_tool_mappings_status_idx ON namespace_tool_mappings (status);

CREATE TABLE shown_names (
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
CREATE INDEX shown_names_server_idx ON shown_names (mcp_server_uuid);
"#;
