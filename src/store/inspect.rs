//! Looks at a database without changing it: for examinations while no daemon runs.

use std::path::Path;
use std::sync::Arc;

use sea_orm::{ConnectionTrait, DatabaseConnection, Statement};

use super::{DatabaseOptions, Inner, Store, StoreError, database};
use crate::identity::vault::Vault;

/// How the schema of a database stands to ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    Current,
    /// Nothing of ours is there.
    Empty,
    Behind {
        /// The next change that a start would make.
        next: String,
    },
}

impl Store {
    /// Connects for reading only, and changes nothing. Only a `Current` one can be asked further.
    ///
    /// # Errors
    /// Those of [`Store::open`], and `Unavailable` when there is no database.
    pub async fn inspect(
        options: &DatabaseOptions,
        data_dir: &Path,
        vault: Vault,
    ) -> Result<(Store, Schema), StoreError> {
        let reader = database::open_to_read(options, data_dir).await?;
        let schema = schema_of(&reader).await?;
        let writer = reader.clone();
        Ok((
            Store {
                inner: Arc::new(Inner {
                    reader,
                    writer,
                    place: None,
                    vault,
                    write_timeout: options.write_timeout,
                }),
            },
            schema,
        ))
    }
}

async fn schema_of(reader: &DatabaseConnection) -> Result<Schema, StoreError> {
    let known = migration::known();
    let question = "SELECT version FROM seaql_migrations ORDER BY version";
    let question = Statement::from_string(reader.get_database_backend(), question);
    let rows = match reader.query_all_raw(question).await {
        Ok(rows) => rows,
        Err(error) => {
            // Whether there is no such table, or no database to ask.
            reader.ping().await?;
            tracing::debug!(%error, "there is no table of migrations");
            return Ok(Schema::Empty);
        }
    };
    let mut applied = Vec::with_capacity(rows.len());
    for row in rows {
        applied.push(row.try_get::<String>("", "version")?);
    }
    if let Some(found) = applied.iter().find(|change| !known.contains(change)) {
        let (found, known) = (found.clone(), known.last().cloned().unwrap_or_default());
        return Err(StoreError::NewerSchema { found, known });
    }
    Ok(match known.into_iter().find(|change| !applied.contains(change)) {
        None => Schema::Current,
        Some(_) if applied.is_empty() => Schema::Empty,
        Some(next) => Schema::Behind { next },
    })
}
