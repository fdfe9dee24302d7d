//! Turns what the database remembers into what the rooms are told.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use uuid::Uuid;

use super::runtime::Values;
use crate::{
    access::{self, EndpointFacts},
    catalogue::{
        curation::{Curation, Decision},
        item::Item,
        kind::{Kind, PerKind},
        naming::{KnownNames, Naming},
        overrides::Overrides,
        profiles::{Choice, Profile},
    },
    identity::{
        keys::{KeyHash, KeyRecord},
        secret::Secret,
    },
    namespace::{MemberSpec, NamespaceHandle, NamespaceSpec},
    store::{self, ItemKind, SchemaProfile, Server, ServerKind, StartMode, Wanted},
    upstream::{
        Isolation, UpstreamSpec,
        board::Remembered,
        lifecycle::Patience,
        oauth::{ClientAuth, Grant, OAuthClient, Tokens},
        runners,
        spec::{CallLimits, Remote, Transport, Upkeep},
    },
};

/// What the settings say where neither a row nor the table `config` does.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub connect_timeout: Duration,
    pub prefetch_timeout: Duration,
    pub patience: Patience,
    /// Of what can be changed at run time.
    pub values: Values,
}

impl Defaults {
    /// The upstream that a row describes, with its OAuth session; `values` hold now where it is silent.
    pub fn spec(
        &self,
        server: &Server,
        oauth: Option<Arc<Grant>>,
        values: &Values,
    ) -> UpstreamSpec {
        let exposed =
            |map: &std::collections::BTreeMap<String, crate::identity::secret::Secret>| {
                map.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect()
            };
        let remote = || Remote {
            url: server.url.clone().unwrap_or_default(),
            bearer_token: server.bearer_token.as_ref().map(|token| token.expose().to_owned()),
            headers: exposed(&server.headers),
            ca_certificates: server.ca_certificates.clone(),
            oauth: oauth.clone(),
        };
        let transport = match server.kind {
            ServerKind::Stdio => Transport::Stdio {
                command: server.command.clone().unwrap_or_default(),
                args: server.args.clone(),
                env: exposed(&server.env),
            },
            ServerKind::StreamableHttp => Transport::StreamableHttp(remote()),
            ServerKind::Sse => Transport::Sse(remote()),
        };
        let timeouts = server.timeouts;
        UpstreamSpec {
            id: server.uuid,
            name: server.name.clone(),
            enabled: server.enabled,
            transport,
            isolation: match server.isolation {
                store::Isolation::Shared => Isolation::Shared,
                store::Isolation::Session => Isolation::Session,
                store::Isolation::User => Isolation::User,
            },
            limits: CallLimits {
                inactivity: timeouts.call.unwrap_or(values.call_timeout),
                total: timeouts.call_total.unwrap_or(values.call_total),
                reset_on_progress: values.reset_on_progress,
            },
            connect_timeout: timeouts.connect.unwrap_or(self.connect_timeout),
            // In this version only the operator makes servers, so all of them are the operator's.
            may_use_variables: true,
            upkeep: self.upkeep(server),
        }
    }

    fn upkeep(&self, server: &Server) -> Upkeep {
        let store::Upkeep { start, idle_stop, concurrency_max, profile } = server.upkeep;
        let command = server.command.as_deref().filter(|_| server.kind == ServerKind::Stdio);
        let fetches = command.is_some_and(|command| runners::fetches(command, &server.args));
        // A row that says itself how long a start may take is taken at its word.
        let prefetches = fetches && server.timeouts.connect.is_none();
        Upkeep {
            is_lazy: start == StartMode::Lazy,
            is_strict: profile == store::Profile::Strict,
            idle_stop,
            concurrency_max: concurrency_max.and_then(|max| usize::try_from(max).ok()),
            prefetch: prefetches.then_some(self.prefetch_timeout),
        }
    }
}

/// An OAuth session as its upstream is given it; none where a secret of it does not open any more.
pub fn grant(session: &store::OAuthSession) -> Option<Arc<Grant>> {
    if !session.unreadable.is_empty() {
        return None;
    }
    let exposed = |secret: &Option<Secret>| secret.as_ref().map(|one| one.expose().to_owned());
    let (client, tokens) = (&session.client, &session.tokens);
    Some(Arc::new(Grant {
        id: session.uuid,
        client: OAuthClient {
            id: client.client_id.clone(),
            secret: exposed(&client.client_secret),
            auth: match client.token_endpoint_auth_method {
                store::AuthMethod::Basic => ClientAuth::Basic,
                store::AuthMethod::Post => ClientAuth::Post,
                store::AuthMethod::None => ClientAuth::None,
            },
            token_endpoint: client.token_endpoint.clone(),
            resource: client.resource.clone(),
        },
        tokens: Tokens {
            access_token: exposed(&tokens.access_token),
            refresh_token: exposed(&tokens.refresh_token),
            expires_at: tokens.expires_at,
            scope: tokens.scope.clone(),
        },
    }))
}

/// The keys as the key ring takes them.
pub fn keys(records: &[store::KeyRecord]) -> Vec<(KeyHash, KeyRecord)> {
    let read = |record: &store::KeyRecord| {
        let hash = match KeyHash::from_hex(&record.hash_hex) {
            Ok(hash) => hash,
            Err(error) => {
                tracing::error!(key = %record.name, %error, "a stored key cannot be used");
                return None;
            }
        };
        let kind = match record.kind {
            store::KeyKind::Client => access::KeyKind::Client,
            store::KeyKind::Admin => access::KeyKind::Admin,
        };
        let (uuid, name, user_id) = (record.uuid, record.name.clone(), record.user_id.clone());
        let is_active = record.is_active;
        Some((hash, KeyRecord { uuid, name, kind, user_id, is_active }))
    };
    records.iter().filter_map(read).collect()
}

/// What is remembered of each server, with everything it listed read as it was when it came.
pub fn remembered(wanted: &Wanted) -> HashMap<Uuid, Remembered> {
    let mut remembered: HashMap<Uuid, Remembered> = HashMap::new();
    for server in wanted.servers.iter().filter(|server| server.instructions.is_some()) {
        remembered.entry(server.uuid).or_default().instructions = server.instructions.clone();
    }
    for (server, tools) in &wanted.catalogues {
        let definitions = tools.iter().map(|tool| &tool.definition);
        remembered.entry(*server).or_default().lists[Kind::Tool] =
            Some(read(Kind::Tool, definitions));
    }
    for (server, lists) in &wanted.lists {
        for (stored, definitions) in lists {
            let kind = kind(*stored);
            remembered.entry(*server).or_default().lists[kind] = Some(read(kind, definitions));
        }
    }
    remembered
}

fn read<'a>(kind: Kind, definitions: impl IntoIterator<Item = &'a String>) -> Arc<Vec<Item>> {
    let items = definitions.into_iter().filter_map(|definition| {
        let item = Item::parse(kind, definition.clone().into());
        item.inspect_err(|error| {
            tracing::error!(%definition, %error, "a stored {} cannot be read", kind.noun());
        })
        .ok()
    });
    Arc::new(items.collect())
}

pub fn kind(stored: ItemKind) -> Kind {
    match stored {
        ItemKind::Tool => Kind::Tool,
        ItemKind::Prompt => Kind::Prompt,
        ItemKind::Resource => Kind::Resource,
        ItemKind::ResourceTemplate => Kind::Template,
    }
}

pub fn stored_kind(kind: Kind) -> ItemKind {
    match kind {
        Kind::Tool => ItemKind::Tool,
        Kind::Prompt => ItemKind::Prompt,
        Kind::Resource => ItemKind::Resource,
        Kind::Template => ItemKind::ResourceTemplate,
    }
}

/// The servers of an earlier run that never came to be listed in it. Where other lists are remembered a
/// client has those at once, and does not wait again for what has been waited for before.
pub fn tried_before(wanted: &Wanted, began: OffsetDateTime) -> HashSet<Uuid> {
    let is_cold = wanted.servers.iter().all(|server| server.tools_listed_at.is_none());
    let old = wanted.servers.iter().filter(|server| server.created_at < began);
    old.filter(|server| !is_cold && server.tools_listed_at.is_none())
        .map(|server| server.uuid)
        .collect()
}

pub fn naming(stored: store::Naming) -> Naming {
    match stored {
        store::Naming::Always => Naming::Always,
        store::Naming::OnConflict => Naming::OnConflict,
        store::Naming::Never => Naming::Never,
    }
}

pub fn stored_naming(naming: Naming) -> store::Naming {
    match naming {
        Naming::Always => store::Naming::Always,
        Naming::OnConflict => store::Naming::OnConflict,
        Naming::Never => store::Naming::Never,
    }
}

/// The namespaces with their members, names and policies.
pub fn namespaces(wanted: &Wanted) -> Vec<NamespaceSpec> {
    let describe = |row: &store::Namespace| {
        let members: Vec<MemberSpec> = row
            .servers
            .iter()
            .map(|member| MemberSpec {
                server: member.server,
                active: member.status == store::Status::Active,
            })
            .collect();
        let is_member = |server: Uuid| members.iter().any(|member| member.server == server);
        let mut known = PerKind::<KnownNames>::default();
        for name in wanted.shown_names.get(&row.uuid).into_iter().flatten() {
            let current = match name.kind {
                ItemKind::Tool | ItemKind::Prompt => row.naming,
                ItemKind::Resource | ItemKind::ResourceTemplate => row.uri_naming,
            };
            // A server that has left gives its names back.
            if name.naming == current && is_member(name.server) {
                let known = &mut known[kind(name.kind)];
                known.insert(name.server, &name.tool_name, &name.shown_name);
            }
        }
        let mut curations = PerKind::<Curation>::default();
        curations[Kind::Tool] = Curation::new(row.default_tool_status == store::Status::Active);
        for policy in wanted.policies.get(&row.uuid).into_iter().flatten() {
            // What was decided about a server that has left waits for its return.
            if is_member(policy.server) {
                let curation = &mut curations[Kind::Tool];
                curation.decide(policy.server, &policy.tool_name, decision(policy));
            }
        }
        for policy in wanted.item_policies.get(&row.uuid).into_iter().flatten() {
            if is_member(policy.server) {
                let is_active = policy.status == store::Status::Active;
                let decision = Decision { is_active, name: None, overrides: Overrides::default() };
                curations[kind(policy.kind)].decide(policy.server, &policy.key, decision);
            }
        }
        NamespaceSpec {
            id: row.uuid,
            naming: naming(row.naming),
            uri_naming: naming(row.uri_naming),
            members,
            known,
            curations,
        }
    };
    wanted.namespaces.iter().map(describe).collect()
}

fn decision(policy: &store::ToolPolicy) -> Decision {
    let annotations = policy.override_annotations.as_ref().and_then(serde_json::Value::as_object);
    let annotations = annotations.into_iter().flatten();
    Decision {
        is_active: policy.status == store::Status::Active,
        name: policy.override_name.as_deref().map(Into::into),
        overrides: Overrides {
            title: policy.override_title.clone(),
            description: policy.override_description.clone(),
            annotations: annotations.map(|(key, value)| (key.clone(), value.clone())).collect(),
        },
    }
}

fn choice(stored: SchemaProfile) -> Choice {
    match stored {
        SchemaProfile::Raw => Choice::Fixed(Profile::Raw),
        SchemaProfile::StrictCommon => Choice::Fixed(Profile::StrictCommon),
        SchemaProfile::Claude => Choice::Fixed(Profile::Claude),
        SchemaProfile::OpenAi => Choice::Fixed(Profile::OpenAi),
        SchemaProfile::Gemini => Choice::Fixed(Profile::Gemini),
        SchemaProfile::VsCode => Choice::Fixed(Profile::VsCode),
        SchemaProfile::Auto => Choice::Auto,
    }
}

/// An endpoint as requests find it.
pub struct EndpointEntry {
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub facts: EndpointFacts,
    /// What its tools are made fit for.
    pub schema_profile: Choice,
    pub namespace: NamespaceHandle,
}

impl EndpointEntry {
    pub fn new(row: &store::Endpoint, namespace: NamespaceHandle) -> Self {
        Self {
            id: row.uuid,
            name: row.name.clone(),
            description: row.description.clone(),
            facts: EndpointFacts {
                user_id: row.user_id.clone(),
                enable_api_key_auth: row.enable_api_key_auth,
                use_query_param_auth: row.use_query_param_auth,
                enable_oauth: row.enable_oauth,
            },
            schema_profile: choice(row.schema_profile),
            namespace,
        }
    }
}
