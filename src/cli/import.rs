//! `metamcpd import`: any client's file, by the running daemon's socket, or by the database when none
//! runs.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Place, say, text_of};
use crate::{
    data_dir::DataDir,
    identity::vault::Vault,
    import,
    operator::{
        self, ImportItem, ImportOutcome, Imports, Wanted,
        socket::{Answer, Order},
    },
    settings::Settings,
    store::{Schema, Store},
};

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file of any MCP client, or an export of MetaMCP's; `-` for stdin.
    file: PathBuf,
    /// Says what would be done, and does nothing.
    #[arg(long)]
    dry_run: bool,
    /// The namespace that is to have the servers. If there is none of this name it is made, with an
    /// endpoint.
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Import {
    pub fn run(self) -> Result<(), Failure> {
        let text = text_of(&self.file).map_err(|why| self.unusable(&why))?;
        // Told before anyone is asked, and in the same words.
        import::read(&text).map_err(|error| self.unusable(&error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Other(error.to_string()))?;
        let imports = runtime.block_on(self.carry_out(text))?;
        tell(&imports);
        let of = |outcome| imports.items.iter().filter(|item| item.outcome == outcome).count();
        match of(ImportOutcome::Failed) {
            0 => Ok(()),
            failed => Err(Failure::Other(format!(
                "{failed} of {} entries failed; what they have to be mended in stands above",
                imports.items.len()
            ))),
        }
    }

    fn unusable(&self, why: &str) -> Failure {
        Failure::Other(format!("{}: {why}", self.file.display()))
    }

    async fn carry_out(&self, text: String) -> Result<Imports, Failure> {
        let (namespace, dry_run, place) = (self.namespace.clone(), self.dry_run, &self.place);
        let order = Order::Import { text: text.clone(), namespace: namespace.clone(), dry_run };
        let asked = operator::socket::ask(&place.data_dir, &order).await;
        match asked.map_err(|error| Failure::Other(format!("the running daemon: {error}")))? {
            Some(Answer::Imported(imports)) => return Ok(imports),
            Some(Answer::Refused(why)) => return Err(Failure::Other(why)),
            Some(Answer::Key(_) | Answer::Report(_)) => {
                return Err(Failure::Other("the running daemon is of another version".into()));
            }
            None => {}
        }
        let imported = import::read(&text).map_err(|error| self.unusable(&error.to_string()))?;
        let settings = Settings::read(place.config.as_deref())?;
        if dry_run {
            return foresee(&settings, place, imported, namespace).await;
        }
        let data = DataDir::open(&place.data_dir)?;
        let vault = Vault::open(data.path()).map_err(|error| Failure::Other(error.to_string()))?;
        let store = Store::open(&settings.database, data.path(), vault).await?;
        let applied = operator::apply(&store, imported, &Wanted { namespace, dry_run }).await;
        store.close().await?;
        Ok(applied?)
    }
}

/// A dry run where no daemon runs. It makes nothing: no directory, no key, no table.
async fn foresee(
    settings: &Settings,
    place: &Place,
    imported: import::Imported,
    namespace: Option<String>,
) -> Result<Imports, Failure> {
    let vault = Vault::existing(&place.data_dir);
    let seen = match vault.map_err(|error| Failure::Other(error.to_string()))? {
        Some(vault) => Some(Store::inspect(&settings.database, &place.data_dir, vault).await?),
        None if settings.database.url.as_ref().is_some_and(|url| !url.expose().is_empty()) => {
            let what =
                "has no secret.key, so it is not the one of this database, or was never used";
            let cure = "name the right one by --data-dir";
            return Err(Failure::Other(format!("{} {what}; {cure}", place.data_dir.display())));
        }
        None => None,
    };
    let store = match seen {
        Some((store, Schema::Current)) => Some(store),
        Some((_, Schema::Behind { .. })) => {
            let why = "the database is of an earlier version, which only a start brings up to date";
            return Err(Failure::Other(why.into()));
        }
        // Before the first start there is nothing.
        Some((_, Schema::Empty)) | None => None,
    };
    let foreseen = operator::foresee(store.as_ref(), imported, namespace).await;
    if let Some(store) = store {
        store.close().await?;
    }
    Ok(foreseen?)
}

/// One fact a line: what became of each entry, and what is to be known of it.
fn tell(imports: &Imports) {
    let would = if imports.dry_run { "would be " } else { "" };
    for item in &imports.items {
        say(&line_of(item, would));
        for warning in &item.warnings {
            say(&format!("  warning {}: {}", warning.field, warning.text));
        }
    }
    for warning in &imports.warnings {
        say(&format!("warning {}: {}", warning.field, warning.text));
    }
    for (what, place) in [("namespace", &imports.namespace), ("endpoint", &imports.endpoint)] {
        if let Some(place) = place {
            let outcome = worded(place.outcome, would);
            say(&format!("{what} {}: {outcome}", place.name));
        }
    }
    let is_any_new = imports.items.iter().any(|item| item.outcome == ImportOutcome::Created);
    if imports.namespace.is_none() && is_any_new {
        say("no namespace has what is new: give --namespace NAME");
    }
}

fn line_of(item: &ImportItem, would: &str) -> String {
    let name = match &item.server {
        Some(server) if *server != item.name => format!("{} as {server}", item.name),
        Some(_) | None => item.name.clone(),
    };
    match item.outcome {
        ImportOutcome::Failed => format!("{name}: failed: {}", item.reason()),
        outcome => format!("{name}: {}", worded(outcome, would)),
    }
}

fn worded(outcome: ImportOutcome, would: &str) -> String {
    match outcome {
        ImportOutcome::Created => format!("{would}created"),
        outcome => outcome.as_str().to_owned(),
    }
}
