//! What a run leaves behind for the next one and for the operator, and how a batch of it is written.
//!
//! History keeps every transition; of what only the last counts (a listing, a set of names), only
//! the last of a batch is written. When it is written is the journal's business.

use std::collections::HashMap;
use std::sync::Arc;

use entity::{mcp_server, namespace, upstream_transition as transition};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::ended_sessions::{self, EndedSession};
use super::error::StoreError;
use super::items::{self, ListedItem};
use super::logs;
use super::rules::keepable;
use super::shown_names::{self, ShownName};
use super::tools::{self, ListedTool};
use super::words::{ErrorStatus, ItemKind};
use super::{Store, kept};
use crate::logs::entry::LogEntry;

/// Something that has happened and is to be remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A server went to another state.
    Transition {
        server: Uuid,
        at: OffsetDateTime,
        state: String,
        error_status: ErrorStatus,
        reason: String,
        message: Option<String>,
        exit_code: Option<i32>,
        exit_signal: Option<i32>,
        restarts: u64,
        stderr_tail: Option<String>,
    },
    /// A server has listed all its tools, in this order.
    Tools { server: Uuid, listed: Vec<ListedTool>, at: OffsetDateTime },
    /// A server has listed all it offers of another kind, in this order.
    Items { server: Uuid, kind: ItemKind, listed: Vec<ListedItem>, at: OffsetDateTime },
    /// A server says this of its use.
    Instructions { server: Uuid, text: Option<String> },
    /// These are all the names of a kind that a namespace has given.
    ShownNames { namespace: Uuid, kind: ItemKind, names: Vec<ShownName> },
    /// An entry of the log, and the ids of those that made room for it.
    Log { entry: Arc<LogEntry>, gone: Vec<i64> },
    /// These entries of the log are not to be kept any more.
    LogsGone { ids: Vec<i64> },
    /// An MCP session is over, and is not to be revived.
    SessionEnded(EndedSession),
}

impl Store {
    /// Writes a batch as a whole or not at all. What concerns a server or a namespace that is gone
    /// is left out.
    pub(super) async fn remember(
        &self,
        records: &[Record],
        history_max: u64,
    ) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let servers = health_of(&transaction, records).await?;

        append_history(&transaction, records, &servers).await?;
        for (server, before) in &servers {
            if let Some(report) = report_on(*server, *before, records) {
                report.exec(&transaction).await?;
                trim_history(&transaction, *server, history_max).await?;
            }
        }
        for (server, listed, at) in last_listings(records) {
            if servers.contains_key(&server) {
                tools::upsert(&transaction, server, listed, at).await?;
            }
        }
        for ((server, kind), (listed, at)) in last_items(records) {
            if servers.contains_key(&server) {
                items::upsert(&transaction, server, kind, listed, at).await?;
            }
        }
        for (server, text) in last_instructions(records) {
            if servers.contains_key(&server) {
                items::instruct(&transaction, server, text).await?;
            }
        }
        for ((namespace, kind), names) in last_names(records) {
            if namespace::Entity::find_by_id(namespace).one(&transaction).await?.is_some() {
                shown_names::put(&transaction, namespace, kind, names).await?;
            }
        }
        logs::put(&transaction, records).await?;
        ended_sessions::put(&transaction, records).await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// The servers of the batch that still exist, with what was last reported on each.
async fn health_of(
    connection: &impl ConnectionTrait,
    records: &[Record],
) -> Result<HashMap<Uuid, ErrorStatus>, StoreError> {
    let servers = records.iter().filter_map(|record| match record {
        Record::Transition { server, .. }
        | Record::Tools { server, .. }
        | Record::Items { server, .. }
        | Record::Instructions { server, .. } => Some(*server),
        Record::ShownNames { .. }
        | Record::Log { .. }
        | Record::LogsGone { .. }
        | Record::SessionEnded(_) => None,
    });
    let rows: Vec<(Uuid, String)> = mcp_server::Entity::find()
        .select_only()
        .columns([mcp_server::Column::Uuid, mcp_server::Column::ErrorStatus])
        .filter(mcp_server::Column::Uuid.is_in(servers))
        .into_tuple()
        .all(connection)
        .await?;
    rows.into_iter()
        .map(|(server, status)| {
            Ok((server, ErrorStatus::stored("mcp_servers.error_status", &status)?))
        })
        .collect()
}

async fn append_history(
    connection: &impl ConnectionTrait,
    records: &[Record],
    servers: &HashMap<Uuid, ErrorStatus>,
) -> Result<(), StoreError> {
    let rows: Vec<transition::ActiveModel> = records
        .iter()
        .filter_map(|record| match record {
            Record::Transition {
                server,
                at,
                state,
                error_status,
                reason,
                message,
                exit_code,
                exit_signal,
                restarts,
                stderr_tail: _,
            } if servers.contains_key(server) => Some(transition::ActiveModel {
                id: NotSet,
                mcp_server_uuid: Set(*server),
                at: Set(kept(*at)),
                state: Set(keepable(state)),
                error_status: Set(error_status.as_str().to_owned()),
                reason: Set(keepable(reason)),
                message: Set(message.as_deref().map(keepable)),
                exit_code: Set(*exit_code),
                exit_signal: Set(*exit_signal),
                restarts: Set(i64::try_from(*restarts).unwrap_or(i64::MAX)),
            }),
            _ => None,
        })
        .collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        transition::Entity::insert_many(rows.to_vec()).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// Keeps a statement well below the number of parameters either database takes.
pub(super) const ROWS_AT_ONCE: usize = 500;

/// What the transitions of the batch come to for the server's own row, if there were any.
fn report_on(
    server: Uuid,
    before: ErrorStatus,
    records: &[Record],
) -> Option<UpdateMany<mcp_server::Entity>> {
    let mut status = before;
    let mut report = <mcp_server::ActiveModel as Default>::default();
    for record in records {
        let Record::Transition {
            server: of,
            at,
            error_status,
            reason,
            message,
            exit_code,
            exit_signal,
            stderr_tail,
            ..
        } = record
        else {
            continue;
        };
        if *of != server {
            continue;
        }
        report.error_status = Set(error_status.as_str().to_owned());
        if *error_status != status {
            status = *error_status;
            report.error_at = Set(Some(kept(*at)));
        }
        report.error_reason = Set(match error_status {
            ErrorStatus::None => None,
            ErrorStatus::Error | ErrorStatus::Crashed => Some(keepable(reason)),
        });
        if let Some(message) = message {
            report.last_error = Set(Some(keepable(message)));
        }
        if exit_code.is_some() || exit_signal.is_some() {
            report.last_exit_code = Set(*exit_code);
            report.last_exit_signal = Set(*exit_signal);
        }
        if let Some(stderr_tail) = stderr_tail {
            report.stderr_tail = Set(Some(keepable(stderr_tail)));
        }
    }
    report.error_status.is_set().then(|| {
        mcp_server::Entity::update_many().set(report).filter(mcp_server::Column::Uuid.eq(server))
    })
}

async fn trim_history(
    connection: &impl ConnectionTrait,
    server: Uuid,
    history_max: u64,
) -> Result<(), StoreError> {
    let newest_to_go: Option<i64> = transition::Entity::find()
        .select_only()
        .column(transition::Column::Id)
        .filter(transition::Column::McpServerUuid.eq(server))
        .order_by_desc(transition::Column::Id)
        .offset(history_max)
        .limit(1)
        .into_tuple()
        .one(connection)
        .await?;
    if let Some(newest_to_go) = newest_to_go {
        transition::Entity::delete_many()
            .filter(transition::Column::McpServerUuid.eq(server))
            .filter(transition::Column::Id.lte(newest_to_go))
            .exec(connection)
            .await?;
    }
    Ok(())
}

fn last_listings(
    records: &[Record],
) -> impl Iterator<Item = (Uuid, &[ListedTool], OffsetDateTime)> {
    let mut last = HashMap::new();
    for record in records {
        if let Record::Tools { server, listed, at } = record {
            last.insert(*server, (listed.as_slice(), *at));
        }
    }
    last.into_iter().map(|(server, (listed, at))| (server, listed, at))
}

fn last_items(records: &[Record]) -> HashMap<(Uuid, ItemKind), (&[ListedItem], OffsetDateTime)> {
    let mut last = HashMap::new();
    for record in records {
        if let Record::Items { server, kind, listed, at } = record {
            last.insert((*server, *kind), (listed.as_slice(), *at));
        }
    }
    last
}

fn last_instructions(records: &[Record]) -> HashMap<Uuid, Option<&str>> {
    let mut last = HashMap::new();
    for record in records {
        if let Record::Instructions { server, text } = record {
            last.insert(*server, text.as_deref());
        }
    }
    last
}

fn last_names(records: &[Record]) -> HashMap<(Uuid, ItemKind), &[ShownName]> {
    let mut last = HashMap::new();
    for record in records {
        if let Record::ShownNames { namespace, kind, names } = record {
            last.insert((*namespace, *kind), names.as_slice());
        }
    }
    last
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{failure, group, listed, listed_item, no_one, on_both, process};
    use crate::store::{Naming, PageRequest, Running, now};

    const MANY: u64 = 1_000;

    fn change(server: Uuid, error_status: ErrorStatus, at: OffsetDateTime) -> Record {
        Record::Transition {
            server,
            at,
            state: "SOME".to_owned(),
            error_status,
            reason: "BECAUSE".to_owned(),
            message: None,
            exit_code: None,
            exit_signal: None,
            restarts: 0,
            stderr_tail: None,
        }
    }

    #[tokio::test]
    async fn the_row_reports_the_last_transition_and_history_keeps_them_all() {
        on_both(async |store| {
            let made = store.create_server(process("files")).await.unwrap();
            let server = made.uuid;
            let start = now();
            let at = |seconds: i64| start + time::Duration::seconds(seconds);
            let crash = Record::Transition {
                server,
                at: at(2),
                state: "CRASHED".to_owned(),
                error_status: ErrorStatus::Crashed,
                reason: "INTENSITY".to_owned(),
                message: Some("too\0often".to_owned()),
                exit_code: None,
                exit_signal: Some(9),
                restarts: 3,
                stderr_tail: Some("out of luck".to_owned()),
            };
            let failed = [change(server, ErrorStatus::Error, at(1)), crash];
            store.remember(&failed, MANY).await.unwrap();
            store.remember(&[change(server, ErrorStatus::Crashed, at(3))], MANY).await.unwrap();

            let report = store.server("files").await.unwrap();
            assert_eq!(report.error_status, ErrorStatus::Crashed);
            assert_eq!(report.error_at, Some(at(2)), "since when it is CRASHED");
            assert_eq!(report.error_reason.as_deref(), Some("BECAUSE"));
            assert_eq!(report.last_error.as_deref(), Some("too\u{fffd}often"));
            assert_eq!((report.last_exit_code, report.last_exit_signal), (None, Some(9)));
            assert_eq!(report.stderr_tail.as_deref(), Some("out of luck"));
            assert_eq!(report.updated_at, made.updated_at, "a report is no configuration");

            store.remember(&[change(server, ErrorStatus::None, at(4))], MANY).await.unwrap();
            let healed = store.server("files").await.unwrap();
            assert_eq!(healed.error_status, ErrorStatus::None);
            assert_eq!((healed.error_reason, healed.error_at), (None, Some(at(4))));
            assert_eq!(healed.last_exit_signal, Some(9), "what happened last is still told");

            let history = store.history(server, &PageRequest::default()).await.unwrap();
            let statuses: Vec<&str> =
                history.items.iter().map(|item| item.error_status.as_str()).collect();
            assert_eq!(statuses, ["NONE", "CRASHED", "CRASHED", "ERROR"]);
            assert_eq!(history.items[2].exit_signal, Some(9));
            assert_eq!(history.items[2].at, at(2));
        })
        .await;
    }

    #[tokio::test]
    async fn history_is_bounded_for_each_server() {
        on_both(async |store| {
            let busy = store.create_server(process("busy")).await.unwrap().uuid;
            let calm = store.create_server(process("calm")).await.unwrap().uuid;
            store.remember(&[failure(calm, 1)], 3).await.unwrap();
            for round in 0..4 {
                let records: Vec<Record> =
                    (0..5).map(|number| failure(busy, round * 5 + number)).collect();
                store.remember(&records, 3).await.unwrap();
            }
            let kept = async |server: Uuid| -> Vec<u64> {
                let page = store.history(server, &PageRequest::default()).await.unwrap();
                page.items.into_iter().map(|item| item.restarts).collect()
            };
            assert_eq!(kept(busy).await, [19, 18, 17]);
            assert_eq!(kept(calm).await, [1]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_concerns_something_that_is_gone_is_left_out() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let namespace = store.create_namespace(group("all", &[])).await.unwrap().uuid;
            let kind = ItemKind::Tool;
            let shown = |shown: &str| {
                vec![ShownName {
                    server,
                    kind,
                    tool_name: "a".to_owned(),
                    shown_name: shown.to_owned(),
                    naming: Naming::Always,
                }]
            };
            let at = now();
            let records = [
                failure(no_one(), 1),
                Record::Tools { server: no_one(), listed: vec![listed("x")], at },
                Record::ShownNames { namespace: no_one(), kind, names: shown("x") },
                failure(server, 2),
                Record::Tools { server, listed: vec![listed("old")], at },
                Record::Tools { server, listed: vec![listed("a")], at },
                Record::ShownNames { namespace, kind, names: shown("old") },
                Record::ShownNames { namespace, kind, names: shown("files__a") },
                Record::Items {
                    server,
                    kind: ItemKind::Prompt,
                    listed: vec![listed_item("p")],
                    at,
                },
                Record::Items { server, kind: ItemKind::Resource, listed: Vec::new(), at },
                Record::Items { server: no_one(), kind: ItemKind::Prompt, listed: Vec::new(), at },
                Record::Instructions { server, text: Some("Do.\0".to_owned()) },
                Record::Instructions { server: no_one(), text: None },
            ];

            store.remember(&records, MANY).await.unwrap();

            let wanted = store.everything(&Running::default()).await.unwrap();
            assert_eq!(wanted.catalogues.len(), 1);
            assert_eq!(wanted.catalogues[&server][0].name, "a");
            assert_eq!(wanted.shown_names[&namespace], shown("files__a"));
            let lists = &wanted.lists[&server];
            assert_eq!(lists[&ItemKind::Prompt], [listed_item("p").definition]);
            assert!(lists[&ItemKind::Resource].is_empty());
            assert!(!lists.contains_key(&ItemKind::ResourceTemplate), "it was never listed");
            assert_eq!(wanted.servers[0].instructions.as_deref(), Some("Do.\u{fffd}"));
            let history = store.history(server, &PageRequest::default()).await.unwrap();
            assert_eq!(history.items.len(), 1);
        })
        .await;
    }
}
