//! Sees what happens to upstreams and names, and passes it on to memory, to whoever watches, and
//! to the namespaces.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::broadcast;
use uuid::Uuid;

use super::{
    Conductor, Logbook, relay,
    snapshot::{stored_kind, stored_naming},
};
use crate::{
    catalogue::{
        item::Item,
        kind::Kind,
        naming::{KnownNames, Naming},
        uris,
    },
    failpoint,
    logs::entry::About,
    namespace::{NamesKeeper, shapes::HiddenTool},
    session::Session,
    store::{self, Journal, ListedItem, ListedTool, Record, ShownName},
    upstream::{
        Clients, Listener, Reason,
        dialogue::Unasked,
        status::{CatalogueChange, ErrorStatus, Output, Transition},
        tasks::Owner,
    },
    wire::{Frame, task},
};

/// The one listener of every upstream.
pub struct Witness {
    journal: Journal,
    /// Transitions as they happen. Who reads too slowly is told how many were missed.
    pub transitions: broadcast::Sender<Arc<Transition>>,
    /// Changes of upstreams' lists as they happen, in the same way.
    pub catalogues: broadcast::Sender<Arc<CatalogueChange>>,
    pub logbook: Arc<Logbook>,
    conductor: OnceLock<Weak<Conductor>>,
}

impl Witness {
    /// `buffer`: transitions that a slow watcher may be behind.
    pub fn new(journal: Journal, buffer: usize, logbook: Arc<Logbook>) -> Arc<Self> {
        let (transitions, _) = broadcast::channel(buffer.max(1));
        let (catalogues, _) = broadcast::channel(buffer.max(1));
        Arc::new(Self { journal, transitions, catalogues, logbook, conductor: OnceLock::new() })
    }

    /// Introduces the conductor, which could not be made before its witness.
    pub fn meet(&self, conductor: &Arc<Conductor>) {
        if self.conductor.set(Arc::downgrade(conductor)).is_err() {
            tracing::error!("a witness has met two conductors");
        }
    }

    fn tell_namespaces(&self, server: Uuid) {
        if let Some(conductor) = self.conductor.get().and_then(Weak::upgrade) {
            conductor.upstream_changed(server);
        }
    }
}

impl Listener for Witness {
    fn moved(&self, transition: &Transition) {
        failpoint::pass("upstream");
        let exit = transition.exit.unwrap_or_default();
        let tail = &transition.stderr_tail;
        self.journal.record(Record::Transition {
            server: transition.mcp_server_uuid,
            at: transition.at,
            state: transition.state.as_str().into(),
            error_status: match transition.error_status {
                ErrorStatus::None => store::ErrorStatus::None,
                ErrorStatus::Error => store::ErrorStatus::Error,
                ErrorStatus::Crashed => store::ErrorStatus::Crashed,
            },
            reason: transition.reason.as_str().into(),
            message: transition.message.clone(),
            exit_code: exit.code,
            exit_signal: exit.signal,
            restarts: transition.restarts,
            stderr_tail: (!tail.is_empty()).then(|| tail.join("\n")),
        });
        let state = transition.state.as_str();
        metrics::counter!("metamcpd_transitions_total", "state" => state).increment(1);
        self.logbook.moved(transition);
        // An error only means that nobody watches.
        drop(self.transitions.send(Arc::new(transition.clone())));
    }

    fn listed(&self, server: Uuid, kind: Kind, items: &Arc<Vec<Item>>) {
        let at = OffsetDateTime::now_utc();
        self.journal.record(match kind {
            Kind::Tool => {
                Record::Tools { server, listed: items.iter().map(listed_tool).collect(), at }
            }
            Kind::Prompt | Kind::Resource | Kind::Template => {
                let listed = items.iter().map(listed_item).collect();
                Record::Items { server, kind: stored_kind(kind), listed, at }
            }
        });
        self.tell_namespaces(server);
    }

    fn instructed(&self, server: Uuid, instructions: Option<&str>) {
        let text = instructions.map(str::to_owned);
        self.journal.record(Record::Instructions { server, text });
        self.tell_namespaces(server);
    }

    fn not_listed(&self, server: Uuid, name: &str, kind: Kind, why: &str) {
        self.logbook.not_listed(About { uuid: server, name }, kind.noun(), why);
    }

    fn changed(&self, change: &CatalogueChange) {
        self.logbook.changed(change);
        // An error only means that nobody watches.
        drop(self.catalogues.send(Arc::new(change.clone())));
    }

    fn wrote(&self, server: Uuid, name: &str, output: Output, readable: &dyn Fn() -> String) {
        self.logbook.wrote(About { uuid: server, name }, output, readable);
    }

    fn lost_process(&self, server: Uuid, name: &str, reason: Reason, what: &str) {
        tracing::warn!(server = name, reason = reason.as_str(), "{what}");
        self.logbook.lost_process(About { uuid: server, name }, reason.as_str(), what);
    }
}

impl Clients for Witness {
    fn say(&self, server: Uuid, session: &str, unasked: Unasked) {
        // A question that is dropped is refused.
        let Some(conductor) = self.conductor.get().and_then(Weak::upgrade) else { return };
        let session = conductor.sessions.get(session);
        match (session, unasked) {
            (Some(session), Unasked::Question(question)) => conductor.put(&session, question),
            (Some(session), Unasked::Note(note)) => {
                if relay::is_wanted(&session, &note) && !session.offer(note.bytes().clone()) {
                    metrics::counter!("metamcpd_upstream_notes_dropped_total").increment(1);
                }
            }
            (Some(session), Unasked::Updated(note)) => {
                // Of what is not offered to it any more it hears nothing.
                let shown = shown_update(&conductor, &session, server, &note);
                if !shown.is_some_and(|shown| session.offer(shown)) {
                    metrics::counter!("metamcpd_upstream_notes_dropped_total").increment(1);
                }
            }
            (None, _) => tracing::debug!(%server, "its client has gone"),
        }
    }

    fn say_to_all(&self, server: Uuid, note: &Frame) {
        let Some(conductor) = self.conductor.get().and_then(Weak::upgrade) else { return };
        let endpoints = conductor.endpoints_of(server);
        // Who has not asked for log messages hears only those of its own calls. And what is kept for
        // thousands that never listen would leave no room for what others come back for.
        let wants = |session: &Session| {
            session.log_level().is_some()
                && session.is_listening()
                && endpoints.contains(&session.endpoint)
                && relay::is_wanted(session, note)
        };
        for session in conductor.sessions.all_where(wants) {
            session.offer(note.bytes().clone());
        }
    }

    fn say_to_owner(&self, server: Uuid, owner: &Owner, maker: &str, note: &Frame) {
        let Some(conductor) = self.conductor.get().and_then(Weak::upgrade) else { return };
        // Who made the task may come back for what is said of it; others hear what they listen to.
        let wants = |session: &Session| {
            session.endpoint == owner.endpoint
                && session.principal == owner.principal
                && session.version().is_some_and(|version| version >= task::SINCE)
                && (&*session.id == maker || session.is_listening())
        };
        for session in conductor.sessions.all_where(wants) {
            if !session.offer(note.bytes().clone()) {
                tracing::debug!(%server, "a client did not hear what has become of its task");
                metrics::counter!("metamcpd_upstream_notes_dropped_total").increment(1);
            }
        }
    }

    fn is_listening(&self, session: &str) -> bool {
        let conductor = self.conductor.get().and_then(Weak::upgrade);
        let session = conductor.and_then(|conductor| conductor.sessions.get(session));
        session.is_some_and(|session| session.has_stream())
    }

    fn public_name(&self, session: &str) -> Option<Uuid> {
        let conductor = self.conductor.get().and_then(Weak::upgrade)?;
        conductor.sessions.get(session).map(|session| session.uuid)
    }
}

/// What a session is told of a change of a resource, by the URI that it knows it by; nothing where it
/// would not be given that resource by that upstream.
fn shown_update(
    conductor: &Conductor,
    session: &Session,
    server: Uuid,
    updated: &Frame,
) -> Option<Bytes> {
    let endpoints = conductor.endpoints.load();
    let entry = endpoints.values().find(|entry| entry.id == session.endpoint)?;
    let span = updated.uri_span()?;
    let uri = updated.text(span)?;
    let published = entry.namespace.published.load();
    let prefix = published.prefix_of(server, &uri);
    let shown = format!("{prefix}{uri}");
    let (board, own) = published.find_resource(&shown)?;
    if board.id != server || *own != *uri {
        return None;
    }
    Some(match prefix {
        "" => updated.bytes().clone(),
        prefix => updated.splice(&mut [(span, &uris::prefixed(updated.get(span), prefix))]),
    })
}

impl NamesKeeper for Witness {
    fn named(&self, namespace: Uuid, kind: Kind, naming: Naming, names: &KnownNames) {
        let kind = stored_kind(kind);
        let names = names.iter().map(|(server, tool, shown)| ShownName {
            server,
            kind,
            tool_name: tool.to_owned(),
            shown_name: shown.to_owned(),
            naming: stored_naming(naming),
        });
        self.journal.record(Record::ShownNames { namespace, kind, names: names.collect() });
    }

    fn hid(&self, hidden: HiddenTool<'_>) {
        let HiddenTool { server, tool, profile, why, .. } = hidden;
        let profile = profile.as_str();
        metrics::counter!("metamcpd_profile_tools_hidden_total", "profile" => profile).increment(1);
        let board = self.conductor.get().and_then(Weak::upgrade);
        let Some(board) = board.and_then(|conductor| conductor.board(server)) else { return };
        let spec = board.spec();
        let about = About { uuid: server, name: &spec.name };
        self.logbook.hidden_from(about, tool, profile, why.as_str(), &why.to_string());
    }
}

fn listed_item(item: &Item) -> ListedItem {
    ListedItem {
        key: item.key.to_string(),
        definition: String::from_utf8_lossy(&item.definition).into_owned(),
    }
}

fn listed_tool(tool: &Item) -> ListedTool {
    ListedTool {
        name: tool.key.to_string(),
        title: tool.title(),
        description: tool.description(),
        input_schema_json: tool.input_schema().unwrap_or("{}").to_owned(),
        definition: String::from_utf8_lossy(&tool.definition).into_owned(),
    }
}
