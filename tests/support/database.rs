//! Which database a gateway under test uses. The suite runs on embedded SQLite, and on PostgreSQL
//! when `METAMCPD_TEST_DATABASE=postgres` says so.

use sea_orm::ConnectionTrait;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    pub fn of_this_run() -> Database {
        match std::env::var("METAMCPD_TEST_DATABASE").as_deref() {
            Err(_) | Ok("" | "sqlite") => Database::Sqlite,
            Ok("postgres") => Database::Postgres,
            Ok(other) => {
                panic!("METAMCPD_TEST_DATABASE is {other}, which is neither sqlite nor postgres")
            }
        }
    }

    /// The URL of an empty database; `None` for the embedded one, which lives in the data directory.
    pub fn fresh(self) -> Option<String> {
        match self {
            Database::Sqlite => None,
            Database::Postgres => {
                let url = super::postgres::fresh_database();
                Some(url.expect("METAMCPD_TEST_DATABASE=postgres needs an installed PostgreSQL"))
            }
        }
    }
}

impl Database {
    /// Every database there is on this machine.
    pub fn all() -> Vec<Database> {
        match super::postgres::fresh_database() {
            Some(_unused) => vec![Database::Sqlite, Database::Postgres],
            None => vec![Database::Sqlite],
        }
    }
}

impl super::TestGateway {
    /// Writes a row into `users`: there are no resources for people yet.
    pub async fn add_user(&self, id: &str) {
        self.write_behind_its_back(&format!(
            "insert into users (id, name, email, email_verified, created_at, updated_at) \
             values ('{id}', '{id}', '{id}@example.com', false, current_timestamp, current_timestamp)"
        ))
        .await;
    }

    /// Changes the database as somebody else would who has it open.
    pub async fn write_behind_its_back(&self, statement: &str) {
        let file = self.data_dir().join("metamcpd.db");
        let url = match self.database_url() {
            Some(url) => url.to_owned(),
            None => format!("sqlite://{}?mode=rw", file.display()),
        };
        let database = sea_orm::Database::connect(url).await.expect("the daemon's database");
        database.execute_unprepared(statement).await.expect("a change");
        database.close().await.expect("an end");
    }
}
