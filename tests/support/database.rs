//! Which database a gateway under test uses. The suite runs on embedded SQLite, and on PostgreSQL
//! when `METAMCPD_TEST_DATABASE=postgres` says so.

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

impl super::TestGateway {
    /// Writes a row into `users`: there are no resources for people yet.
    pub fn add_user(&self, id: &str) {
        let statement = format!(
            "insert into users (id, name, email, email_verified, created_at, updated_at) \
         values ('{id}', '{id}', '{id}@example.com', false, current_timestamp, current_timestamp)"
        );
        let mut command = match self.database_url() {
            Some(url) => {
                let mut psql = std::process::Command::new("psql");
                psql.args([url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", &statement]);
                psql
            }
            None => {
                let insert = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
db.execute(sys.argv[2])
db.commit()";
                let mut python = std::process::Command::new("python3");
                python
                    .args(["-c", insert])
                    .arg(self.data_dir().join("metamcpd.db"))
                    .arg(&statement);
                python
            }
        };
        assert!(command.status().is_ok_and(|status| status.success()), "{statement}");
    }
}
