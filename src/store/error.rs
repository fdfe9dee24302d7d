//! What can become of a question to the store.
//!
//! The only file that looks into driver errors. Rooms above map these to their own answers and see
//! neither SQL nor a driver.

use std::path::PathBuf;

use sea_orm::sqlx;
use sea_orm::{DbErr, RuntimeErr, SqlErr};

use super::rules::Problem;
use crate::identity::vault::VaultError;

type Cause = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Away, locked, full or shutting down: the same question may succeed later.
    #[error("the database is not available")]
    Unavailable(#[source] Cause),
    /// Somebody has taken the file of the database away. It is as good as away until it is back.
    #[error(
        "the file of the database, {}, was taken away or replaced: move the very same file back, or start \
         metamcpd again to go on with what is there now",
        .0.display()
    )]
    Displaced(PathBuf),
    #[error("there is no {what} `{id}`")]
    NotFound { what: &'static str, id: String },
    #[error("the {field} `{value}` is taken")]
    Conflict { field: &'static str, value: String },
    #[error("the name `{name}` is that of the tool `{tool}` of `{server}`")]
    ToolNameTaken { name: String, server: String, tool: String },
    #[error("several owners have a {what} named `{name}`: its uuid has to be used")]
    Ambiguous { what: &'static str, name: String },
    /// Never empty.
    #[error("not valid: {}", listed(.0))]
    Invalid(Vec<Problem>),
    #[error("the database has the change `{found}`, and this version knows none after `{known}`")]
    NewerSchema { found: String, known: String },
    /// The settings of the database, not its content.
    #[error("the database settings are not valid: {reason}")]
    Options { reason: String },
    /// The file is no database, or has been damaged.
    #[error(
        "the database cannot be read: put a copy of it in its place (`metamcpd.db.before-…` beside it are copies), \
         or move it away to begin with an empty one"
    )]
    Damaged(#[source] Cause),
    #[error("a secret could not be sealed")]
    Vault(#[from] VaultError),
    #[error("the database did not do what was asked")]
    Internal(#[source] Cause),
}

impl StoreError {
    /// Whether the same question may succeed later, without anybody mending it.
    pub fn is_passing(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Displaced(_))
    }

    /// For a question that was given up.
    pub fn late(elapsed: impl std::error::Error + Send + Sync + 'static) -> StoreError {
        StoreError::Unavailable(Box::new(elapsed))
    }

    pub(super) fn not_found(what: &'static str, id: impl ToString) -> StoreError {
        StoreError::NotFound { what, id: id.to_string() }
    }

    pub(super) fn invalid(problem: Problem) -> StoreError {
        StoreError::Invalid(vec![problem])
    }

    /// For a word in a column that the constraint there should have refused.
    pub(super) fn unknown_word(column: &'static str, word: &str) -> StoreError {
        StoreError::Internal(format!("the column {column} holds the unknown word `{word}`").into())
    }

    /// Reads a refused write of a row that has a name and an owner: those are the two things that
    /// can be wrong with it after it was checked.
    pub(super) fn of_write(error: DbErr, name: &str) -> StoreError {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => {
                StoreError::Conflict { field: "name", value: name.to_owned() }
            }
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => StoreError::invalid(
                Problem::new("user_id", "there is no such user").accepted("null or a user's id"),
            ),
            _ => error.into(),
        }
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> StoreError {
        if is_passing(&error) {
            StoreError::Unavailable(Box::new(error))
        } else if is_damage(&error) {
            StoreError::Damaged(Box::new(error))
        } else {
            StoreError::Internal(Box::new(error))
        }
    }
}

fn is_passing(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) => true,
        DbErr::Conn(RuntimeErr::Internal(_)) => true,
        _ => of_driver(error).is_some_and(is_passing_below),
    }
}

fn of_driver(error: &DbErr) -> Option<&sqlx::Error> {
    match error {
        DbErr::Conn(RuntimeErr::SqlxError(error))
        | DbErr::Exec(RuntimeErr::SqlxError(error))
        | DbErr::Query(RuntimeErr::SqlxError(error)) => Some(error),
        _ => None,
    }
}

/// SQLite's primary result codes CORRUPT and NOTADB.
fn is_damage(error: &DbErr) -> bool {
    let Some(sqlx::Error::Database(error)) = of_driver(error) else {
        return false;
    };
    let is_sqlite = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_none();
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    is_sqlite && code.is_some_and(|code| matches!(code & 0xff, 11 | 26))
}

fn is_passing_below(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() => {
                postgres_may_recover(&code)
            }
            Some(code) => code.parse().is_ok_and(sqlite_may_recover),
            None => false,
        },
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => true,
        _ => false,
    }
}

/// SQLSTATE classes for lost connections, rollbacks to be tried again, exhausted resources (a full
/// disk among them), operator intervention and refused logins, and single states for a lock that was
/// waited for too long, a server that is read-only for now, and a database that lets nobody in.
fn postgres_may_recover(code: &str) -> bool {
    const CLASSES: [&str; 6] = ["08", "28", "40", "53", "57", "58"];
    CLASSES.iter().any(|class| code.starts_with(class))
        || matches!(code, "55P03" | "25006" | "55000")
}

/// The primary result codes BUSY, LOCKED, READONLY, IOERR, FULL and CANTOPEN; an extended code
/// carries the primary one in its lowest byte.
fn sqlite_may_recover(code: u32) -> bool {
    matches!(code & 0xff, 5 | 6 | 8 | 10 | 13 | 14)
}

fn listed(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_recover_by_itself_is_told_from_what_will_not() {
        for code in ["08006", "53100", "57P01", "40001", "40P01", "55P03", "25006", "55000"] {
            assert!(postgres_may_recover(code), "{code}");
        }
        for code in ["23505", "42P01", "22P05", "25001"] {
            assert!(!postgres_may_recover(code), "{code}");
        }
        for code in [5, 5 | 2 << 8, 6, 13, 10 | 1 << 8, 8] {
            assert!(sqlite_may_recover(code), "{code}");
        }
        for code in [19, 2067, 1, 11] {
            assert!(!sqlite_may_recover(code), "{code}");
        }
    }
}
