//! Our own OAuth server: its clients, and the codes and tokens it gave out.

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
            &["oauth_clients", "oauth_authorization_codes", "oauth_access_tokens"],
        )
        .await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE oauth_clients (
    client_id text NOT NULL PRIMARY KEY,
    client_secret text,
    client_name text NOT NULL,
    redirect_uris {json} NOT NULL DEFAULT '[]',
    grant_types {json} NOT NULL DEFAULT '["authorization_code","refresh_token"]',
    response_types {json} NOT NULL DEFAULT '["code"]',
    token_endpoint_auth_method text NOT NULL DEFAULT 'none',
    scope text DEFAULT 'admin',
    client_uri text,
    logo_uri text,
    contacts {json},
    tos_uri text,
    policy_uri text,
    software_id text,
    software_version text,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE oauth_authorization_codes (
    code text NOT NULL PRIMARY KEY,
    client_id text NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    redirect_uri text NOT NULL,
    scope text NOT NULL DEFAULT 'admin',
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    code_challenge text,
    code_challenge_method text,
    expires_at {time} NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX oauth_authorization_codes_client_id_idx ON oauth_authorization_codes (client_id);
CREATE INDEX oauth_authorization_codes_user_id_idx ON oauth_authorization_codes (user_id);
CREATE INDEX oauth_authorization_codes_expires_at_idx ON oauth_authorization_codes (expires_at);

CREATE TABLE oauth_access_tokens (
    access_token text NOT NULL PRIMARY KEY,
    client_id text NOT NULL REFERENCES oauth_clients (client_id) ON DELETE CASCADE,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    scope text NOT NULL DEFAULT 'admin',
    expires_at {time} NOT NULL,
    refresh_token text CONSTRAINT oauth_access_tokens_refresh_token_unique UNIQUE,
    refresh_token_expires_at {time},
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX oauth_access_tokens_client_id_idx ON oauth_access_tokens (client_id);
CREATE INDEX oauth_access_tokens_user_id_idx ON oauth_access_tokens (user_id);
CREATE INDEX oauth_access_tokens_expires_at_idx ON oauth_access_tokens (expires_at);
"#;
