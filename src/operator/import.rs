//! Makes rows of what a client's file holds: its servers, and where it is asked for a namespace with
//! an endpoint.
//!
//! Doing it again changes nothing: what is there stays as it is, and only what is new is added. A dry
//! run answers the same and writes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::DEFAULT;
use crate::{
    identity::secret::Secret,
    import::{self, Imported, ImportedServer, Transport},
    store::{
        Membership, Name, Namespace, Naming, NewEndpoint, NewNamespace, NewServer, PageRequest,
        Problem, Server, ServerFilter, ServerKind, Status, Store, StoreError, Timeouts,
    },
};

/// Where the servers go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The namespace that is to have them, by its name; it is made if there is none. `None`: no
    /// namespace is touched.
    pub namespace: Option<String>,
    /// Whether nothing is to be written.
    pub dry_run: bool,
}

/// What became of a file, entry by entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Imports {
    /// Whether this only says what would be done.
    pub dry_run: bool,
    /// In the order of the file.
    pub items: Vec<ImportItem>,
    /// The namespace that has the servers, where one was asked for.
    pub namespace: Option<ImportPlace>,
    /// The endpoint of the same name, where one was made or is there.
    pub endpoint: Option<ImportPlace>,
    /// About the file as a whole.
    pub warnings: Vec<ImportWarning>,
}

/// One entry of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportItem {
    /// Its name in the file.
    pub name: String,
    /// The name of its server here: the same unless our rules do not allow it.
    pub server: Option<String>,
    pub outcome: ImportOutcome,
    /// What is to be mended in an entry that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Problem>,
    /// What was left out, or understood in a way its writer may not have meant.
    pub warnings: Vec<ImportWarning>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportOutcome {
    /// It is made, or would be.
    Created,
    /// A server of this name is there already, and stays as it is.
    Exists,
    /// It is not made. The others are.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportWarning {
    pub field: String,
    pub text: String,
}

/// A namespace or an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportPlace {
    pub name: String,
    pub outcome: ImportOutcome,
}

impl ImportOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Exists => "exists",
            Self::Failed => "failed",
        }
    }
}

impl ImportItem {
    /// Why the entry failed, for people.
    pub fn reason(&self) -> String {
        let problems: Vec<String> = self.details.iter().map(ToString::to_string).collect();
        problems.join("; ")
    }
}

/// Reads a file on a thread apart: a large one takes long enough for others to notice.
///
/// # Errors
/// What makes the whole file unreadable.
pub async fn read_apart(
    file: impl AsRef<[u8]> + Send + 'static,
) -> Result<Imported, import::BadFile> {
    let reading = move || import::decode(file.as_ref()).and_then(|text| import::read(&text));
    match tokio::task::spawn_blocking(reading).await {
        Ok(read) => read,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and whoever waits here with it.
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// Makes the rows that are missing. One bad entry fails alone.
///
/// # Errors
/// `Invalid` for a namespace whose name cannot be; what the database refuses.
pub async fn apply(
    store: &Store,
    imported: Imported,
    wanted: &Wanted,
) -> Result<Imports, StoreError> {
    carry_out(Some(store), imported, wanted).await
}

/// A dry run. `None`: there is no database yet, so nothing is there.
///
/// # Errors
/// As [`apply`].
pub async fn foresee(
    store: Option<&Store>,
    imported: Imported,
    namespace: Option<String>,
) -> Result<Imports, StoreError> {
    carry_out(store, imported, &Wanted { namespace, dry_run: true }).await
}

async fn carry_out(
    store: Option<&Store>,
    imported: Imported,
    wanted: &Wanted,
) -> Result<Imports, StoreError> {
    if let Some(name) = &wanted.namespace {
        // Before anything is written.
        Name::parse(name).map_err(|problem| {
            StoreError::Invalid(vec![Problem { field: "namespace".into(), ..problem }])
        })?;
    }
    let mut imports = Imports { dry_run: wanted.dry_run, ..Imports::default() };
    imports.warnings = imported.warnings.into_iter().map(warning_of).collect();
    let mut members = Vec::new();
    for entry in imported.entries {
        let mut item = ImportItem {
            name: entry.name,
            server: None,
            outcome: ImportOutcome::Failed,
            details: Vec::new(),
            warnings: entry.warnings.into_iter().map(warning_of).collect(),
        };
        match entry.outcome {
            Ok(server) => members.extend(take(store, server, wanted, &mut item).await?),
            Err(refusal) => {
                let problem = Problem::new(refusal.field, refusal.reason);
                item.details.push(problem.accepted(refusal.accepted));
            }
        }
        imports.items.push(item);
    }
    if let Some(name) = &wanted.namespace {
        let (namespace, endpoint) = place(store, name, &members, wanted.dry_run).await?;
        (imports.namespace, imports.endpoint) = (Some(namespace), endpoint);
    }
    Ok(imports)
}

/// Makes one server, unless it is there. Its uuid, where it has one.
async fn take(
    store: Option<&Store>,
    server: ImportedServer,
    wanted: &Wanted,
    item: &mut ImportItem,
) -> Result<Option<Uuid>, StoreError> {
    let name = server.name.clone();
    let new = new_server(server);
    let known = match store {
        Some(store) => public_server(store, &name).await?,
        None => None,
    };
    if let Some(known) = known {
        item.outcome = ImportOutcome::Exists;
        let differs = differences(&known, &new);
        if !differs.is_empty() {
            let text = format!("is different here in {}, and stays so", differs.join(", "));
            item.warnings.push(ImportWarning { field: "server".into(), text });
        }
        item.server = Some(name);
        return Ok(Some(known.uuid));
    }
    let made = match store {
        Some(store) if !wanted.dry_run => {
            store.create_server(new).await.map(|made| Some(made.uuid))
        }
        _ => new.check().map(|()| None),
    };
    match made {
        Ok(uuid) => {
            (item.outcome, item.server) = (ImportOutcome::Created, Some(name));
            Ok(uuid)
        }
        Err(StoreError::Invalid(problems)) => {
            item.details = problems;
            Ok(None)
        }
        Err(error @ StoreError::Conflict { .. }) => {
            item.details.push(Problem::new("name", error.to_string()));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The operator's own server of this name; one that a user has for himself is another.
async fn public_server(store: &Store, name: &str) -> Result<Option<Server>, StoreError> {
    let filter =
        ServerFilter { name: Some(name.to_owned()), user_id: Some(None), ..Default::default() };
    let page = store.servers(&filter, &PageRequest::default()).await?;
    Ok(page.items.into_iter().next())
}

/// In what an entry asks for something else than there is. Secrets are not compared.
fn differences(known: &Server, new: &NewServer) -> Vec<&'static str> {
    [
        ("type", known.kind != new.kind),
        ("command", known.command != new.command),
        ("args", known.args != new.args),
        ("url", known.url != new.url),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(field, _)| field)
    .collect()
}

/// The namespace with these servers added to those that it has, and its endpoint. A namespace that
/// was there has been published by whoever made it, `default` excepted.
async fn place(
    store: Option<&Store>,
    name: &str,
    servers: &[Uuid],
    dry_run: bool,
) -> Result<(ImportPlace, Option<ImportPlace>), StoreError> {
    use ImportOutcome::{Created, Exists};

    let (known, is_published) = match store {
        Some(store) => {
            let endpoint = if_found(store.endpoint(name).await)?;
            (if_found(store.namespace(name).await)?, endpoint.is_some())
        }
        None => (None, false),
    };
    let outcome = if known.is_some() { Exists } else { Created };
    let publishes = !is_published && (known.is_none() || name == DEFAULT);
    if let Some(store) = store.filter(|_| !dry_run) {
        let namespace = namespace_with(store, known, name, servers).await?;
        if publishes {
            store.create_endpoint(NewEndpoint::new(name, namespace.uuid)).await?;
        }
    }
    let endpoint = match (is_published, publishes) {
        (true, _) => Some(Exists),
        (false, true) => Some(Created),
        (false, false) => None,
    };
    let place = |outcome| ImportPlace { name: name.to_owned(), outcome };
    Ok((place(outcome), endpoint.map(place)))
}

fn if_found<T>(row: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match row {
        Ok(row) => Ok(Some(row)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn namespace_with(
    store: &Store,
    known: Option<Namespace>,
    name: &str,
    servers: &[Uuid],
) -> Result<Namespace, StoreError> {
    let member = |server: &Uuid| Membership { server: *server, status: Status::Active };
    let Some(namespace) = known else {
        let new = NewNamespace {
            name: name.to_owned(),
            description: None,
            naming: Naming::Always,
            uri_naming: Naming::Never,
            default_tool_status: Status::Active,
            user_id: None,
            servers: servers.iter().map(member).collect(),
        };
        return store.create_namespace(new).await;
    };
    let mut members: Vec<Membership> = namespace
        .servers
        .iter()
        .map(|known| Membership { server: known.server, status: known.status })
        .collect();
    let count = members.len();
    for server in servers {
        if !members.iter().any(|known| known.server == *server) {
            members.push(member(server));
        }
    }
    match members.len() == count {
        true => Ok(namespace),
        false => store.set_members(namespace.uuid, &members).await,
    }
}

fn warning_of(warning: crate::import::Warning) -> ImportWarning {
    ImportWarning { field: warning.field, text: warning.text }
}

fn new_server(imported: ImportedServer) -> NewServer {
    let secrets = |map: BTreeMap<String, String>| {
        map.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()
    };
    let kind = match &imported.transport {
        Transport::Stdio { .. } => ServerKind::Stdio,
        Transport::StreamableHttp(_) => ServerKind::StreamableHttp,
        Transport::Sse(_) => ServerKind::Sse,
    };
    let mut new = NewServer::new(imported.name, kind);
    new.description = imported.description;
    new.enabled = imported.enabled;
    new.timeouts = Timeouts {
        call: imported.call_timeout,
        connect: imported.connect_timeout,
        ..Timeouts::default()
    };
    match imported.transport {
        Transport::Stdio { command, args, env } => {
            new.command = Some(command);
            new.args = args;
            new.env = secrets(env);
        }
        Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
            new.url = Some(remote.url);
            new.headers = secrets(remote.headers);
            new.bearer_token = remote.bearer_token.map(Secret::new);
            new.ca_certificates = remote.ca_certificates;
        }
    }
    new
}
