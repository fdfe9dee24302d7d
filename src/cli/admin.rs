//! `metamcpd admin`: by the running daemon's socket, or by the database when none runs.

use clap::Subcommand;

use super::{Failure, Place, say};
use crate::{
    data_dir::DataDir,
    identity::vault::Vault,
    operator::{
        self,
        socket::{Answer, Kind, Order},
    },
    settings::Settings,
    store::{KeyKind, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum Admin {
    /// Makes a key and prints it. It is not stored, so it cannot be shown again.
    CreateKey {
        /// What to call it; otherwise a name is made up.
        #[arg(long)]
        name: Option<String>,
        /// A key for MCP clients, for every public endpoint, rather than for the operator.
        #[arg(long)]
        client: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Sets a user's password. (Not built yet.)
    ResetPassword { email: String },
    /// Makes a user. (Not built yet.)
    CreateUser { email: String },
}

impl Admin {
    pub fn run(self) -> Result<(), Failure> {
        let (name, client, place) = match self {
            Self::CreateKey { name, client, place } => (name, client, place),
            Self::ResetPassword { .. } | Self::CreateUser { .. } => {
                let why = "users are not built in this version; `admin create-key` makes a key";
                return Err(Failure::NotAvailable(why.into()));
            }
        };
        let kind = if client { Kind::Client } else { Kind::Admin };
        let name = name.unwrap_or_else(|| operator::name_of_key(kind.into()));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Other(error.to_string()))?;
        let key = runtime.block_on(create_key(&place, name, kind))?;
        let word = if client { "api key" } else { "admin key" };
        say(&format!("{word} {key}"));
        Ok(())
    }
}

async fn create_key(place: &Place, name: String, kind: Kind) -> Result<String, Failure> {
    let order = Order::CreateKey { name: name.clone(), kind };
    let asked = operator::socket::ask(&place.data_dir, &order).await;
    match asked.map_err(|error| Failure::Other(format!("the running daemon: {error}")))? {
        Some(Answer::Key(key)) => return Ok(key),
        Some(Answer::Refused(why)) => return Err(Failure::Other(why)),
        Some(Answer::Imported(_) | Answer::Report(_)) => {
            return Err(Failure::Other("the running daemon is of another version".into()));
        }
        None => {}
    }
    let settings = Settings::read(place.config.as_deref())?;
    let data = DataDir::open(&place.data_dir)?;
    let vault = Vault::open(data.path()).map_err(|error| Failure::Other(error.to_string()))?;
    let store = Store::open(&settings.database, data.path(), vault).await?;
    let made = operator::make_key(&store, &name, KeyKind::from(kind)).await;
    store.close().await?;
    made.map(|key| key.expose().to_owned()).map_err(|error| Failure::Other(error.to_string()))
}
