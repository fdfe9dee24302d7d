//! What may be written of an MCP server, and how it becomes what the store takes.
//!
//! A secret that comes back as the mask it was shown as means: as it was. What this version does not
//! do is refused here, rather than written and ignored.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    ApiError,
    body::{emptied, given, named, or_empty},
    server_view::MASK,
};
use crate::{
    identity::secret::Secret,
    store::{
        Isolation, NewServer, Problem, Profile, Protocol, Server, ServerKind, ServerPatch,
        StartMode, Timeouts, Upkeep, UpkeepPatch,
    },
};

type Secrets = BTreeMap<String, Secret>;

/// A server to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerBody {
    name: String,
    description: Option<String>,
    r#type: ServerKind,
    /// The program to start; STDIO only. No shell reads it.
    command: Option<String>,
    #[serde(default, deserialize_with = "or_empty")]
    args: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    env: Secrets,
    url: Option<String>,
    #[schema(value_type = Option<String>)]
    bearer_token: Option<Secret>,
    #[serde(default, deserialize_with = "or_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    headers: Secrets,
    #[serde(default, deserialize_with = "or_empty")]
    forward_headers: BTreeMap<String, String>,
    /// PEM: the authorities that its certificate has to be signed by, in the place of those that the
    /// machine trusts. For a `url` of https only.
    ca_certificates: Option<String>,
    enabled: Option<bool>,
    /// SHARED for STDIO, SESSION for the others, unless given.
    isolation: Option<Isolation>,
    protocol: Option<Protocol>,
    connect_timeout_ms: Option<u64>,
    call_timeout_ms: Option<u64>,
    call_total_timeout_ms: Option<u64>,
    /// EAGER unless given; LAZY is started by the first call. STDIO only.
    start: Option<StartMode>,
    /// Stops its process after so long without a call, until the next one. STDIO only.
    idle_stop_ms: Option<u64>,
    /// Calls that it may have in flight.
    concurrency_max: Option<u32>,
    /// STANDARD unless given; STRICT confines its process. STDIO only.
    profile: Option<Profile>,
    user_id: Option<String>,
}

/// The fields that are to change; `null` clears. Lists and maps are replaced as a whole.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerChange {
    #[serde(default, deserialize_with = "given")]
    name: Option<String>,
    #[serde(default, deserialize_with = "named")]
    description: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    r#type: Option<ServerKind>,
    #[serde(default, deserialize_with = "named")]
    command: Option<Option<String>>,
    #[serde(default, deserialize_with = "emptied")]
    args: Option<Vec<String>>,
    /// A value that is `********` stays as it is stored.
    #[serde(default, deserialize_with = "emptied")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    env: Option<Secrets>,
    #[serde(default, deserialize_with = "named")]
    url: Option<Option<String>>,
    #[serde(default, deserialize_with = "named")]
    #[schema(value_type = Option<String>)]
    bearer_token: Option<Option<Secret>>,
    #[serde(default, deserialize_with = "emptied")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Secrets>,
    #[serde(default, deserialize_with = "emptied")]
    forward_headers: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "named")]
    ca_certificates: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    isolation: Option<Isolation>,
    #[serde(default, deserialize_with = "given")]
    protocol: Option<Protocol>,
    #[serde(default, deserialize_with = "named")]
    connect_timeout_ms: Option<Option<u64>>,
    #[serde(default, deserialize_with = "named")]
    call_timeout_ms: Option<Option<u64>>,
    #[serde(default, deserialize_with = "named")]
    call_total_timeout_ms: Option<Option<u64>>,
    #[serde(default, deserialize_with = "given")]
    start: Option<StartMode>,
    #[serde(default, deserialize_with = "named")]
    idle_stop_ms: Option<Option<u64>>,
    #[serde(default, deserialize_with = "named")]
    concurrency_max: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    profile: Option<Profile>,
    #[serde(default, deserialize_with = "named")]
    user_id: Option<Option<String>>,
}

impl ServerBody {
    /// # Errors
    /// `NotImplemented` for what this version does not do, `Invalid` for a mask in place of a secret.
    pub fn into_new(self) -> Result<NewServer, ApiError> {
        let protocol = self.protocol.unwrap_or(Protocol::Auto);
        let new = NewServer {
            name: self.name,
            description: self.description,
            kind: self.r#type,
            command: self.command,
            args: self.args,
            env: self.env,
            url: self.url,
            bearer_token: self.bearer_token,
            headers: self.headers,
            forward_headers: self.forward_headers,
            ca_certificates: self.ca_certificates,
            enabled: self.enabled.unwrap_or(true),
            isolation: self.isolation,
            protocol,
            timeouts: Timeouts {
                connect: self.connect_timeout_ms.map(Duration::from_millis),
                call: self.call_timeout_ms.map(Duration::from_millis),
                call_total: self.call_total_timeout_ms.map(Duration::from_millis),
            },
            upkeep: Upkeep {
                start: self.start.unwrap_or(StartMode::Eager),
                idle_stop: self.idle_stop_ms.map(Duration::from_millis),
                concurrency_max: self.concurrency_max,
                profile: self.profile.unwrap_or(Profile::Standard),
            },
            user_id: self.user_id,
        };
        refuse_unbuilt(protocol, &new.forward_headers)?;

        let mut problems = Vec::new();
        let nothing = Secrets::new();
        let env = unmasked("env", new.env, &nothing, &mut problems);
        let headers = unmasked("headers", new.headers, &nothing, &mut problems);
        let token = new.bearer_token;
        let bearer_token = token
            .and_then(|token| unmasked_one("bearer_token".to_owned(), token, None, &mut problems));
        if problems.is_empty() {
            Ok(NewServer { env, headers, bearer_token, ..new })
        } else {
            Err(ApiError::Invalid(problems))
        }
    }
}

impl ServerChange {
    /// What is to change of `server`.
    ///
    /// # Errors
    /// `NotImplemented` for what this version does not do, `Invalid` for a mask where nothing is
    /// stored.
    pub fn into_patch(self, server: &Server) -> Result<ServerPatch, ApiError> {
        let kind = self.r#type.unwrap_or(server.kind);
        // What is usual for one kind means nothing to another.
        let isolation =
            self.isolation.or_else(|| (kind != server.kind).then(|| usual_isolation(kind)));
        // A row that came here by another way can still be changed in everything else.
        refuse_unbuilt(
            self.protocol.unwrap_or(Protocol::Auto),
            self.forward_headers.as_ref().unwrap_or(&BTreeMap::new()),
        )?;

        // What belongs to a process means nothing to a remote server, nor the other way round: it goes
        // with the old kind, secrets first of all, unless it is named. URL and command the store drops.
        let is_process = |kind| kind == ServerKind::Stdio;
        let leaves_process = is_process(server.kind) && !is_process(kind);
        let becomes_process = !is_process(server.kind) && is_process(kind);
        let args = self.args.or(leaves_process.then(Vec::new));
        let env = self.env.or(leaves_process.then(Secrets::new));
        let headers = self.headers.or(becomes_process.then(Secrets::new));
        let bearer_token = self.bearer_token.or(becomes_process.then_some(None));
        let forward_headers = self.forward_headers.or(becomes_process.then(BTreeMap::new));

        let mut problems = Vec::new();
        let env = env.map(|env| unmasked("env", env, &server.env, &mut problems));
        let headers =
            headers.map(|headers| unmasked("headers", headers, &server.headers, &mut problems));
        let stored = server.bearer_token.as_ref();
        let bearer_token = bearer_token.map(|token| {
            let field = "bearer_token".to_owned();
            token.and_then(|token| unmasked_one(field, token, stored, &mut problems))
        });
        if !problems.is_empty() {
            return Err(ApiError::Invalid(problems));
        }
        let duration = |field: Option<Option<u64>>| field.map(|ms| ms.map(Duration::from_millis));
        Ok(ServerPatch {
            name: self.name,
            description: self.description,
            kind: self.r#type,
            command: self.command,
            args,
            env,
            url: self.url,
            bearer_token,
            headers,
            forward_headers,
            ca_certificates: self.ca_certificates,
            enabled: self.enabled,
            isolation,
            protocol: self.protocol,
            connect_timeout: duration(self.connect_timeout_ms),
            call_timeout: duration(self.call_timeout_ms),
            call_total_timeout: duration(self.call_total_timeout_ms),
            upkeep: UpkeepPatch {
                start: self.start,
                idle_stop: duration(self.idle_stop_ms),
                concurrency_max: self.concurrency_max,
                profile: self.profile,
            },
            user_id: self.user_id,
        })
    }
}

fn usual_isolation(kind: ServerKind) -> Isolation {
    match kind {
        ServerKind::Stdio => Isolation::Shared,
        ServerKind::Sse | ServerKind::StreamableHttp => Isolation::Session,
    }
}

fn refuse_unbuilt(
    protocol: Protocol,
    forward_headers: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    let what = if protocol == Protocol::Modern {
        "the protocol MODERN"
    } else if !forward_headers.is_empty() {
        "the forwarding of headers"
    } else {
        return Ok(());
    };
    Err(ApiError::not_implemented(what))
}

/// The secrets with every mask replaced by what is stored under its name.
fn unmasked(
    column: &str,
    secrets: Secrets,
    stored: &Secrets,
    problems: &mut Vec<Problem>,
) -> Secrets {
    let kept = secrets.into_iter().filter_map(|(name, value)| {
        let field = format!("{column}.{name}");
        let value = unmasked_one(field, value, stored.get(&name), problems)?;
        Some((name, value))
    });
    kept.collect()
}

fn unmasked_one(
    field: String,
    value: Secret,
    stored: Option<&Secret>,
    problems: &mut Vec<Problem>,
) -> Option<Secret> {
    if value.expose() != MASK {
        return Some(value);
    }
    if stored.is_none() {
        let problem = Problem::new(field, "the mask stands for a stored value, and there is none");
        problems.push(problem.accepted("the value itself"));
    }
    stored.cloned()
}
