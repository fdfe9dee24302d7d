//! Accounts of people: who they are, how they sign in, and where they are signed in.

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
        dialect::drop_tables(manager, &["users", "sessions", "accounts", "verifications"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

const UP: &str = r#"
CREATE TABLE users (
    id text NOT NULL PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL CONSTRAINT users_email_unique UNIQUE,
    email_verified boolean NOT NULL DEFAULT false,
    image text,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE sessions (
    id text NOT NULL PRIMARY KEY,
    expires_at {time} NOT NULL,
    token text NOT NULL CONSTRAINT sessions_token_unique UNIQUE,
    ip_address text,
    user_agent text,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX sessions_user_id_idx ON sessions (user_id);

CREATE TABLE accounts (
    id text NOT NULL PRIMARY KEY,
    account_id text NOT NULL,
    provider_id text NOT NULL,
    user_id text NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    access_token text,
    refresh_token text,
    id_token text,
    access_token_expires_at {time},
    refresh_token_expires_at {time},
    scope text,
    password text,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX accounts_user_id_idx ON accounts (user_id);

CREATE TABLE verifications (
    id text NOT NULL PRIMARY KEY,
    identifier text NOT NULL,
    value text NOT NULL,
    expires_at {time} NOT NULL,
    created_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at {time} NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX verifications_identifier_idx ON verifications (identifier);
"#;
