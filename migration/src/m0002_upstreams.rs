//! The servers we are a client of, what they offer, and what became of them.
//!
//! A name is unique for each owner, and among what nobody owns: NULLs are distinct in a unique
//! index, so there are two partial ones.

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
            &["mcp_servers", "tools", "oauth_sessions", "upstream_transitions"],
        )
        .await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE mcp_servers (
    uuid {uuid} NOT NULL PRIMARY KEY,
    name text NOT NULL,
    description text,
    type text NOT NULL DEFAULT 'STDIO',
    command text,
    args {json} NOT NULL DEFAULT '[]',
    env {json} NOT NULL DEFAULT '{}',
    url text,
    bearer_token text,
    headers {json} NOT NULL DEFAULT '{}',
    forward_headers {json} NOT NULL DEFAULT '{}',
    enabled boolean NOT NULL DEFAULT true,
    isolation text NOT NULL,
    protocol text NOT NULL DEFAULT 'AUTO',
    connect_timeout_ms bigint,
    call_timeout_ms bigint,
    call_total_timeout_ms bigint,
    error_status text NOT NULL DEFAULT 'NONE',
    error_reason text,
    error_at {time},
    last_error text,
    last_exit_code integer,
    last_exit_signal integer,
    stderr_tail text,
    tools_listed_at {time},
    user_id text REFERENCES users (id) ON DELETE CASCADE,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT mcp_servers_name_regex_check
        CHECK ({letters:name} AND name NOT LIKE '%\_\_%' ESCAPE '\'),
    CONSTRAINT mcp_servers_type_check
        CHECK (type IN ('STDIO', 'SSE', 'STREAMABLE_HTTP')),
    CONSTRAINT mcp_servers_url_check CHECK (
        (type = 'STDIO' AND command IS NOT NULL AND trim(command) <> '')
        OR (type <> 'STDIO' AND url IS NOT NULL
            AND (lower(url) LIKE 'http://_%' OR lower(url) LIKE 'https://_%'))
    ),
    CONSTRAINT mcp_servers_isolation_check
        CHECK (isolation IN ('SHARED', 'SESSION', 'USER')),
    CONSTRAINT mcp_servers_protocol_check
        CHECK (protocol IN ('AUTO', 'LEGACY', 'MODERN')),
    CONSTRAINT mcp_servers_error_status_check
        CHECK (error_status IN ('NONE', 'ERROR', 'CRASHED')),
    CONSTRAINT mcp_servers_timeouts_check
        CHECK (connect_timeout_ms > 0 AND call_timeout_ms > 0 AND call_total_timeout_ms > 0)
);
CREATE UNIQUE INDEX mcp_servers_name_user_unique_idx
    ON mcp_servers (name, user_id) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX mcp_servers_name_public_unique_idx
    ON mcp_servers (name) WHERE user_id IS NULL;
CREATE INDEX mcp_servers_type_idx ON mcp_servers (type);
CREATE INDEX mcp_servers_user_id_idx ON mcp_servers (user_id);
CREATE INDEX mcp_servers_error_status_idx ON mcp_servers (error_status);

CREATE TABLE tools (
    uuid {uuid} NOT NULL PRIMARY KEY,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    name text NOT NULL,
    title text,
    description text,
    tool_schema {json} NOT NULL,
    definition text NOT NULL,
    position integer NOT NULL,
    vanished_at {time},
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT tools_unique_tool_name_per_server_idx UNIQUE (mcp_server_uuid, name)
);

CREATE TABLE oauth_sessions (
    uuid {uuid} NOT NULL PRIMARY KEY,
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    client_information {json} NOT NULL DEFAULT '{}',
    tokens {json},
    code_verifier text,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT oauth_sessions_unique_per_server_idx UNIQUE (mcp_server_uuid)
);

CREATE TABLE upstream_transitions (
    id {serial},
    mcp_server_uuid {uuid} NOT NULL REFERENCES mcp_servers (uuid) ON DELETE CASCADE,
    at {time} NOT NULL,
    state text NOT NULL,
    error_status text NOT NULL,
    reason text NOT NULL,
    message text,
    exit_code integer,
    exit_signal integer,
    restarts bigint NOT NULL,
    CONSTRAINT upstream_transitions_error_status_check
        CHECK (error_status IN ('NONE', 'ERROR', 'CRASHED'))
);
CREATE INDEX upstream_transitions_server_idx ON upstream_transitions (mcp_server_uuid, id);
"#;
