//! The history of servers as it is written, and what it comes to in their own rows.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use entity::{mcp_server, upstream_transition as transition};
use sea_orm::ActiveValue::{NotSet, Set};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, UpdateMany,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::kept;
use super::memory::ROWS_AT_ONCE;
use super::record::{Before, Record};
use super::rules::keepable;
use super::words::ErrorStatus;

/// Adds the changes of state in some of a batch. The batch is one whose records are written in their order,
/// so that of each server what stands before a written one is written too, though it may have been pushed
/// out of the history since.
pub(super) async fn append(
    connection: &impl ConnectionTrait,
    batch: &[Record],
    some: Range<usize>,
    servers: &HashMap<Uuid, ErrorStatus>,
    before: Before,
) -> Result<(), StoreError> {
    let written = match before {
        Before::Nothing => HashMap::new(),
        Before::Tried => last_written(batch, already_written(connection, batch).await?),
    };
    let is_written = |server: &Uuid, index| written.get(server).is_some_and(|last| index <= *last);
    let rows: Vec<transition::ActiveModel> = batch
        .iter()
        .enumerate()
        .filter(|(index, _)| some.contains(index))
        .filter_map(|(index, record)| match record {
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
            } if servers.contains_key(server) && !is_written(server, index) => {
                Some(transition::ActiveModel {
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
                })
            }
            _ => None,
        })
        .collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        transition::Entity::insert_many(rows.to_vec()).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// Which of a batch was the last of each server that was written.
fn last_written(batch: &[Record], mut written: HashMap<Change, usize>) -> HashMap<Uuid, usize> {
    let mut last = HashMap::new();
    for (index, record) in batch.iter().enumerate() {
        if let Record::Transition { server, at, state, restarts, .. } = record
            && take_one(&mut written, (*server, kept(*at), keepable(state), *restarts))
        {
            last.insert(*server, index);
        }
    }
    last
}

/// What a change of state is told from others by: one server is in one state at a time.
type Change = (Uuid, OffsetDateTime, String, u64);

/// The changes of a batch that are in the history already, and how often.
async fn already_written(
    connection: &impl ConnectionTrait,
    records: &[Record],
) -> Result<HashMap<Change, usize>, StoreError> {
    let changes = records.iter().filter_map(|record| match record {
        Record::Transition { server, at, .. } => Some((*server, kept(*at))),
        _ => None,
    });
    let changes: Vec<_> = changes.collect();
    let mut times: Vec<_> = changes.iter().map(|(_, at)| *at).collect();
    times.sort_unstable();
    times.dedup();
    let mut written = HashMap::new();
    for times in times.chunks(ROWS_AT_ONCE) {
        let of_these = changes.iter().filter(|(_, at)| times.binary_search(at).is_ok());
        let servers: HashSet<Uuid> = of_these.map(|(server, _)| *server).collect();
        let rows: Vec<(Uuid, OffsetDateTime, String, i64)> = transition::Entity::find()
            .select_only()
            .columns([
                transition::Column::McpServerUuid,
                transition::Column::At,
                transition::Column::State,
                transition::Column::Restarts,
            ])
            .filter(transition::Column::McpServerUuid.is_in(servers))
            .filter(transition::Column::At.is_in(times.iter().copied()))
            .into_tuple()
            .all(connection)
            .await?;
        for (server, at, state, restarts) in rows {
            let restarts = u64::try_from(restarts).unwrap_or_default();
            *written.entry((server, kept(at), state, restarts)).or_default() += 1;
        }
    }
    Ok(written)
}

/// Whether there is one of these, which is one fewer then.
fn take_one(written: &mut HashMap<Change, usize>, change: Change) -> bool {
    match written.get_mut(&change) {
        Some(left @ 1..) => {
            *left -= 1;
            true
        }
        Some(0) | None => false,
    }
}

/// What the transitions of the batch come to for the server's own row, if there were any.
pub(super) fn report_on(
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

/// Forgets the oldest of what there is too much of.
pub(super) async fn trim(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::PageRequest;
    use crate::store::testing::{failure, on_both, process};

    const MANY: u64 = 1_000;

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
    async fn a_batch_whose_outcome_nobody_knows_is_written_once_whatever_it_was() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let other = store.create_server(process("other")).await.unwrap().uuid;
            let batch: Vec<Record> = (0..4).map(|number| failure(server, number)).collect();
            let restarts = async |server: Uuid| -> Vec<u64> {
                let page = store.history(server, &PageRequest::default()).await.unwrap();
                page.items.into_iter().rev().map(|item| item.restarts).collect()
            };
            // It was not written.
            store.write_down(&batch, 0..2, Before::Tried, MANY).await.unwrap();
            assert_eq!(restarts(server).await, [0, 1]);
            // It was, and more has happened to others at the same time.
            let mut batch = batch;
            let Record::Transition { at, .. } = batch[0] else { unreachable!() };
            let mut of_another = failure(other, 0);
            if let Record::Transition { at: then, .. } = &mut of_another {
                *then = at;
            }
            batch.push(of_another);
            store.write_down(&batch, 0..batch.len(), Before::Tried, MANY).await.unwrap();
            store.write_down(&batch, 0..batch.len(), Before::Tried, MANY).await.unwrap();
            assert_eq!(restarts(server).await, [0, 1, 2, 3]);
            assert_eq!(restarts(other).await, [0]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_was_written_and_pushed_out_again_is_not_written_by_another_try() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let batch: Vec<Record> = (0..6).map(|number| failure(server, number)).collect();
            let restarts = async || -> Vec<u64> {
                let page = store.history(server, &PageRequest::default()).await.unwrap();
                page.items.into_iter().rev().map(|item| item.restarts).collect()
            };
            store.write_down(&batch, 0..6, Before::Nothing, 2).await.unwrap();
            store.write_down(&batch, 0..6, Before::Tried, 2).await.unwrap();
            assert_eq!(restarts().await, [4, 5]);
            for index in 0..6 {
                store.write_down(&batch, index..index + 1, Before::Tried, 2).await.unwrap();
            }
            assert_eq!(restarts().await, [4, 5], "nor by one for each of them");

            // One after another, and then from the beginning.
            let batch: Vec<Record> = (6..12).map(|number| failure(server, number)).collect();
            for index in 0..4 {
                store.write_down(&batch, index..index + 1, Before::Tried, 2).await.unwrap();
            }
            store.write_down(&batch, 0..6, Before::Tried, 9).await.unwrap();
            assert_eq!(restarts().await, [8, 9, 10, 11]);
        })
        .await;
    }
}
