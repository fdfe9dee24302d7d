//! What a run leaves behind for the next one and for the operator, and how a batch of it is written.
//!
//! History keeps every transition; of what only the last counts (a listing, a set of names), only
//! the last of a batch is written. When it is written is the journal's business.

use std::collections::HashMap;
use std::ops::Range;

use entity::{mcp_server, namespace};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::items::{self, ListedItem};
use super::record::{Before, Record};
use super::shown_names::{self, ShownName};
use super::tools::{self, ListedTool};
use super::words::{ErrorStatus, ItemKind};
use super::{Store, ended_sessions, logs, oauth_sessions, transitions};

impl Store {
    /// Writes some of a batch, as a whole or not at all. What concerns a server or a namespace that is
    /// gone is left out, and what an earlier try has written stands once.
    pub(super) async fn write_down(
        &self,
        batch: &[Record],
        some: Range<usize>,
        before: Before,
        history_max: u64,
    ) -> Result<(), StoreError> {
        let records = batch.get(some.clone()).unwrap_or_default();
        let transaction = self.write().await?;
        let servers = health_of(&transaction, records).await?;

        transitions::append(&transaction, batch, some, &servers, before).await?;
        for (server, before) in &servers {
            if let Some(report) = transitions::report_on(*server, *before, records) {
                report.exec(&transaction).await?;
                transitions::trim(&transaction, *server, history_max).await?;
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
        oauth_sessions::renew(&transaction, records).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes a batch that was never tried before.
    #[cfg(test)]
    pub(super) async fn remember(
        &self,
        records: &[Record],
        history_max: u64,
    ) -> Result<(), StoreError> {
        self.write_down(records, 0..records.len(), Before::Nothing, history_max).await
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
        | Record::SessionEnded(_)
        | Record::OAuthTokens { .. } => None,
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

/// Keeps a statement well below the number of parameters either database takes.
pub(super) const ROWS_AT_ONCE: usize = 500;

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
