//! What we hold to act as an OAuth client of upstreams: put in by an operator, and renewed since.
//!
//! Every value is sealed, whether it is secret or not: whoever could write another token endpoint into the
//! row would be sent the rest.

use std::collections::{BTreeMap, HashMap};

use entity::json::StringMap;
use entity::{mcp_server, oauth_session};
use sea_orm::ActiveValue::Set;
use sea_orm::{ActiveModelTrait, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::error::StoreError;
use super::record::Record;
use super::rules::Problem;
use super::server::{NewServer, ServerPatch};
use super::words::{AuthMethod, ServerKind};
use super::{Store, now, oauth_rules};
use crate::identity::secret::Secret;
use crate::identity::vault::{Place, Vault};

const TABLE: &str = "oauth_sessions";
const WHAT: &str = "OAuth session of the server";

/// The OAuth session of one server.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuthSession {
    pub uuid: Uuid,
    pub server: Uuid,
    pub client: ClientInformation,
    pub tokens: OAuthTokens,
    /// What does not open any more, in the manner of `tokens.refresh_token`. It is missing above.
    pub unreadable: Vec<String>,
    pub created_at: OffsetDateTime,
    /// When it was put in, or last renewed.
    pub updated_at: OffsetDateTime,
}

/// Who we are to the authorization server (RFC 7591, 2).
#[derive(Clone, Debug, PartialEq)]
pub struct ClientInformation {
    pub client_id: String,
    pub client_secret: Option<Secret>,
    pub token_endpoint_auth_method: AuthMethod,
    pub token_endpoint: String,
    /// What the tokens are for (RFC 8707); none for the server's own URL.
    pub resource: Option<String>,
}

/// Bearer tokens (RFC 6749, 5.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OAuthTokens {
    pub access_token: Option<Secret>,
    pub refresh_token: Option<Secret>,
    pub expires_at: Option<OffsetDateTime>,
    pub scope: Option<String>,
}

/// A session to be put in.
#[derive(Clone, Debug, PartialEq)]
pub struct NewOAuthSession {
    pub client: ClientInformation,
    pub tokens: OAuthTokens,
}

/// Values as they lie in a column.
pub type Sealed = BTreeMap<String, String>;

impl Store {
    /// The session of a server.
    pub async fn oauth_session(&self, server: Uuid) -> Result<OAuthSession, StoreError> {
        let row = of_server(self.reader(), server).await?;
        let row = row.ok_or_else(|| StoreError::not_found(WHAT, server))?;
        opened(row, self.vault())
    }

    /// Puts a session in, in the place of the one there was.
    ///
    /// # Errors
    /// `Invalid` with every problem that was found: of the session, or of a server that cannot have one.
    pub async fn put_oauth_session(
        &self,
        server: Uuid,
        new: NewOAuthSession,
    ) -> Result<OAuthSession, StoreError> {
        let mut problems = oauth_rules::problems(&new);
        let transaction = self.write().await?;
        let row = mcp_server::Entity::find_by_id(server)
            .one(&transaction)
            .await?
            .ok_or_else(|| StoreError::not_found("server", server))?;
        if row.r#type == ServerKind::Stdio.as_str() {
            problems.push(
                Problem::new("type", "a STDIO server has no OAuth session")
                    .accepted("a server of the type STREAMABLE_HTTP or SSE"),
            );
        }
        if row.bearer_token.is_some() {
            problems.push(
                Problem::new("bearer_token", "the server has one, and would be sent only one")
                    .accepted("a server whose `bearer_token` is null"),
            );
        }
        if !problems.is_empty() {
            return Err(StoreError::Invalid(problems));
        }
        delete_of(&transaction, server).await?;
        let (uuid, vault, at) = (Uuid::now_v7(), self.vault(), now());
        let client = seal(vault, uuid, "client_information", client_fields(&new.client))?;
        let tokens = seal(vault, uuid, "tokens", token_fields(&new.tokens)?)?;
        let row = oauth_session::ActiveModel {
            uuid: Set(uuid),
            mcp_server_uuid: Set(server),
            client_information: Set(StringMap(client)),
            tokens: Set(Some(StringMap(tokens))),
            code_verifier: Set(None),
            created_at: Set(at),
            updated_at: Set(at),
        };
        let row = row.insert(&transaction).await?;
        transaction.commit().await?;
        opened(row, vault)
    }

    pub async fn delete_oauth_session(&self, server: Uuid) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let deleted = delete_of(&transaction, server).await?;
        transaction.commit().await?;
        match deleted {
            0 => Err(StoreError::not_found(WHAT, server)),
            _ => Ok(()),
        }
    }

    /// Tokens as the row of a session keeps them, to be written behind.
    pub fn seal_oauth_tokens(
        &self,
        session: Uuid,
        tokens: &OAuthTokens,
    ) -> Result<Sealed, StoreError> {
        seal(self.vault(), session, "tokens", token_fields(tokens)?)
    }
}

/// All sessions, by server.
pub(super) async fn all(
    connection: &impl ConnectionTrait,
    vault: &Vault,
) -> Result<HashMap<Uuid, OAuthSession>, StoreError> {
    let rows = oauth_session::Entity::find().all(connection).await?.into_iter();
    rows.map(|row| Ok((row.mcp_server_uuid, opened(row, vault)?))).collect()
}

/// Writes what was renewed, of a batch. A session that was replaced meanwhile has another uuid.
pub(super) async fn renew(
    connection: &impl ConnectionTrait,
    records: &[Record],
) -> Result<(), StoreError> {
    for record in records {
        if let Record::OAuthTokens { session, sealed } = record {
            oauth_session::Entity::update_many()
                .set(oauth_session::ActiveModel {
                    tokens: Set(Some(StringMap(sealed.clone()))),
                    updated_at: Set(now()),
                    ..Default::default()
                })
                .filter(oauth_session::Column::Uuid.eq(*session))
                .exec(connection)
                .await?;
        }
    }
    Ok(())
}

/// What a change of a server means for its session: a process has none, and a server is sent only one
/// credential.
pub(super) async fn follow(
    connection: &impl ConnectionTrait,
    server: Uuid,
    patch: &ServerPatch,
    after: &NewServer,
) -> Result<(), StoreError> {
    if after.kind == ServerKind::Stdio {
        delete_of(connection, server).await?;
    } else if matches!(patch.bearer_token, Some(Some(_)))
        && of_server(connection, server).await?.is_some()
    {
        return Err(StoreError::invalid(
            Problem::new("bearer_token", "the server has an OAuth session")
                .accepted("null, unless its `oauth-session` is deleted first"),
        ));
    }
    Ok(())
}

async fn of_server(
    connection: &impl ConnectionTrait,
    server: Uuid,
) -> Result<Option<oauth_session::Model>, StoreError> {
    let query = oauth_session::Entity::find();
    Ok(query.filter(oauth_session::Column::McpServerUuid.eq(server)).one(connection).await?)
}

async fn delete_of(connection: &impl ConnectionTrait, server: Uuid) -> Result<u64, StoreError> {
    let deleted = oauth_session::Entity::delete_many()
        .filter(oauth_session::Column::McpServerUuid.eq(server))
        .exec(connection)
        .await?;
    Ok(deleted.rows_affected)
}

// === How it lies in its columns ===

type Fields = Vec<(&'static str, Option<String>)>;

fn client_fields(client: &ClientInformation) -> Fields {
    let secret = client.client_secret.as_ref();
    vec![
        ("client_id", Some(client.client_id.clone())),
        ("client_secret", secret.map(|secret| secret.expose().to_owned())),
        ("token_endpoint_auth_method", Some(client.token_endpoint_auth_method.as_str().to_owned())),
        ("token_endpoint", Some(client.token_endpoint.clone())),
        ("resource", client.resource.clone()),
    ]
}

fn token_fields(tokens: &OAuthTokens) -> Result<Fields, StoreError> {
    let exposed = |token: &Option<Secret>| token.as_ref().map(|token| token.expose().to_owned());
    let expires_at = tokens.expires_at.map(|at| at.format(&Rfc3339)).transpose();
    let expires_at = expires_at.map_err(|error| StoreError::Internal(error.into()))?;
    Ok(vec![
        ("access_token", exposed(&tokens.access_token)),
        ("token_type", Some("Bearer".to_owned())),
        ("refresh_token", exposed(&tokens.refresh_token)),
        ("expires_at", expires_at),
        ("scope", tokens.scope.clone()),
    ])
}

fn seal(vault: &Vault, session: Uuid, column: &str, fields: Fields) -> Result<Sealed, StoreError> {
    let mut sealed = Sealed::new();
    for (key, value) in fields {
        if let Some(value) = value {
            let place = Place { table: TABLE, row: session, column, key: Some(key) };
            sealed.insert(key.to_owned(), vault.seal(&value, &place)?);
        }
    }
    Ok(sealed)
}

fn opened(row: oauth_session::Model, vault: &Vault) -> Result<OAuthSession, StoreError> {
    let mut unreadable = Vec::new();
    let mut open = |column: &'static str, values: Sealed| {
        let mut found = HashMap::new();
        for (key, text) in values {
            let place = Place { table: TABLE, row: row.uuid, column, key: Some(&key) };
            match vault.open_sealed(&text, &place) {
                Ok(value) => drop(found.insert(key, value)),
                Err(error) => {
                    let field = format!("{column}.{key}");
                    tracing::error!(server = %row.mcp_server_uuid, field, %error, "a secret cannot be read");
                    unreadable.push(field);
                }
            }
        }
        found
    };
    let mut client = open("client_information", row.client_information.0);
    let mut tokens = open("tokens", row.tokens.map(|tokens| tokens.0).unwrap_or_default());
    let text = |value: Option<Secret>| value.map(|value| value.expose().to_owned());
    let method = text(client.remove("token_endpoint_auth_method"));
    let expires_at = text(tokens.remove("expires_at"));
    Ok(OAuthSession {
        uuid: row.uuid,
        server: row.mcp_server_uuid,
        client: ClientInformation {
            client_id: text(client.remove("client_id")).unwrap_or_default(),
            client_secret: client.remove("client_secret"),
            token_endpoint_auth_method: method
                .map(|word| {
                    AuthMethod::stored("client_information.token_endpoint_auth_method", &word)
                })
                .transpose()?
                .unwrap_or(AuthMethod::None),
            token_endpoint: text(client.remove("token_endpoint")).unwrap_or_default(),
            resource: text(client.remove("resource")),
        },
        tokens: OAuthTokens {
            access_token: tokens.remove("access_token"),
            refresh_token: tokens.remove("refresh_token"),
            expires_at: expires_at.and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok()),
            scope: text(tokens.remove("scope")),
        },
        unreadable,
        created_at: row.created_at,
        updated_at: row.updated_at,
    })
}

#[cfg(test)]
#[path = "oauth_sessions_tests.rs"]
mod tests;
