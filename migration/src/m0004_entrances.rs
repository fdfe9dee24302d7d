//! Where clients come in, the keys they come in with, and the settings changed at run time.

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
        dialect::drop_tables(manager, &["endpoints", "api_keys", "config"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE endpoints (
    uuid {uuid} NOT NULL PRIMARY KEY,
    name text NOT NULL CONSTRAINT endpoints_name_unique UNIQUE,
    description text,
    namespace_uuid {uuid} NOT NULL REFERENCES namespaces (uuid) ON DELETE CASCADE,
    enable_api_key_auth boolean NOT NULL DEFAULT true,
    enable_oauth boolean NOT NULL DEFAULT false,
    use_query_param_auth boolean NOT NULL DEFAULT false,
    enable_max_rate boolean NOT NULL DEFAULT false,
    enable_client_max_rate boolean NOT NULL DEFAULT false,
    max_rate integer,
    max_rate_seconds integer,
    client_max_rate integer,
    client_max_rate_seconds integer,
    client_max_rate_strategy text,
    client_max_rate_strategy_key text,
    user_id text REFERENCES users (id) ON DELETE CASCADE,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT endpoints_name_url_compatible_check CHECK ({letters:name}),
    CONSTRAINT endpoints_rates_check CHECK (
        max_rate > 0 AND max_rate_seconds > 0
        AND client_max_rate > 0 AND client_max_rate_seconds > 0
    )
);
CREATE INDEX endpoints_namespace_uuid_idx ON endpoints (namespace_uuid);
CREATE INDEX endpoints_user_id_idx ON endpoints (user_id);

CREATE TABLE api_keys (
    uuid {uuid} NOT NULL PRIMARY KEY,
    name text NOT NULL,
    key text NOT NULL CONSTRAINT api_keys_key_unique UNIQUE,
    hint text NOT NULL DEFAULT '',
    kind text NOT NULL DEFAULT 'CLIENT',
    user_id text REFERENCES users (id) ON DELETE CASCADE,
    is_active boolean NOT NULL DEFAULT true,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT api_keys_name_check CHECK (length(name) BETWEEN 1 AND 100),
    -- The length of a hash, which no key has: a key in clear cannot land here.
    CONSTRAINT api_keys_key_hash_check CHECK (length(key) = 64),
    CONSTRAINT api_keys_kind_check CHECK (kind IN ('CLIENT', 'ADMIN'))
);
CREATE UNIQUE INDEX api_keys_name_per_user_idx
    ON api_keys (user_id, name) WHERE user_id IS NOT NULL;
CREATE UNIQUE INDEX api_keys_name_public_unique_idx
    ON api_keys (name) WHERE user_id IS NULL;
CREATE INDEX api_keys_is_active_idx ON api_keys (is_active);

CREATE TABLE config (
    id text NOT NULL PRIMARY KEY,
    value text NOT NULL,
    description text,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"#;
