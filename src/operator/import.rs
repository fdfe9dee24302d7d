//! Makes rows of what a client's `mcp.json` holds: its servers, a namespace and an endpoint.
//!
//! Doing it again changes nothing: what is there stays as it is, and only what is new is added.

use std::collections::BTreeMap;

use super::DEFAULT;
use crate::{
    identity::secret::Secret,
    import::{Imported, ImportedServer, Transport},
    store::{
        Membership, Namespace, Naming, NewEndpoint, NewNamespace, NewServer, ServerKind, Status,
        Store, StoreError, Timeouts,
    },
};

/// What became of each entry.
#[derive(Debug, Default)]
pub struct Imports {
    pub made: Vec<String>,
    pub kept: Vec<String>,
    /// The entry's name and why it was not taken.
    pub refused: Vec<(String, String)>,
    /// The entry's name and what is to be known of it.
    pub warnings: Vec<(String, String)>,
}

/// Makes the rows that are missing. One bad entry fails alone.
pub async fn apply(store: &Store, imported: Imported) -> Result<Imports, StoreError> {
    let mut imports = Imports::default();
    let file_warnings = imported.warnings.iter();
    imports
        .warnings
        .extend(file_warnings.map(|warning| (warning.field.clone(), warning.text.clone())));
    let mut servers = Vec::new();
    for entry in imported.entries {
        for warning in entry.warnings {
            imports
                .warnings
                .push((entry.name.clone(), format!("{}: {}", warning.field, warning.text)));
        }
        let server = match entry.outcome {
            Ok(server) => server,
            Err(refusal) => {
                imports.refused.push((entry.name, refusal.to_string()));
                continue;
            }
        };
        let name = server.name.clone();
        match store.server(&name).await {
            Ok(known) => {
                imports.kept.push(name);
                servers.push(known.uuid);
                continue;
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        match store.create_server(new_server(server)).await {
            Ok(made) => {
                imports.made.push(name);
                servers.push(made.uuid);
            }
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => imports.refused.push((entry.name, error.to_string())),
        }
    }
    let namespace = namespace_with(store, &servers).await?;
    match store.endpoint(DEFAULT).await {
        Ok(_) => {}
        Err(StoreError::NotFound { .. }) => {
            store.create_endpoint(NewEndpoint::new(DEFAULT, namespace.uuid)).await?;
        }
        Err(error) => return Err(error),
    }
    Ok(imports)
}

/// The namespace `default`, with these servers added to those that it has.
async fn namespace_with(store: &Store, servers: &[uuid::Uuid]) -> Result<Namespace, StoreError> {
    let member = |server: &uuid::Uuid| Membership { server: *server, status: Status::Active };
    match store.namespace(DEFAULT).await {
        Ok(namespace) => {
            let known = namespace.servers.iter();
            let mut members: Vec<Membership> = known
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
        Err(StoreError::NotFound { .. }) => {
            let new = NewNamespace {
                name: DEFAULT.into(),
                description: None,
                naming: Naming::Always,
                default_tool_status: Status::Active,
                user_id: None,
                servers: servers.iter().map(member).collect(),
            };
            store.create_namespace(new).await
        }
        Err(error) => Err(error),
    }
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
    new.timeouts = Timeouts { call: imported.call_timeout, ..Timeouts::default() };
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
        }
    }
    new
}
