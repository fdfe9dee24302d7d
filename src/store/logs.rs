//! The entries of the log that outlive the daemon.
//!
//! Which are kept is decided by the ring in memory, which is what everybody reads; the table follows it
//! behind, and is read once, at the next start.

use std::collections::HashSet;

use entity::log_entry as log;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::error::StoreError;
use super::record::Record;
use super::rules::keepable;
use super::{Store, kept};
use crate::logs::entry::{Kind, Level, LogEntry, Said};

/// Keeps a statement well below the number of parameters either database takes.
const ROWS_AT_ONCE: usize = 500;

impl Store {
    /// The newest entries that were kept, oldest first, `max` of them at most. Whatever is older was
    /// left behind by a run that could not tidy up, and is forgotten.
    pub async fn kept_logs(&self, max: usize) -> Result<Vec<LogEntry>, StoreError> {
        let transaction = self.write().await?;
        let newest_to_go: Option<i64> = log::Entity::find()
            .select_only()
            .column(log::Column::Id)
            .order_by_desc(log::Column::Id)
            .offset(u64::try_from(max).unwrap_or(u64::MAX))
            .limit(1)
            .into_tuple()
            .one(&transaction)
            .await?;
        if let Some(newest_to_go) = newest_to_go {
            let too_old = log::Column::Id.lte(newest_to_go);
            log::Entity::delete_many().filter(too_old).exec(&transaction).await?;
        }
        let rows = log::Entity::find().order_by_asc(log::Column::Id).all(&transaction).await?;
        transaction.commit().await?;
        Ok(rows.into_iter().filter_map(entry).collect())
    }
}

/// Writes what a batch says of the log. An entry that came and went within it is not written at all.
pub(super) async fn put(
    connection: &impl ConnectionTrait,
    records: &[Record],
) -> Result<(), StoreError> {
    let gone: HashSet<i64> = records.iter().flat_map(gone_by).copied().collect();
    let rows: Vec<log::ActiveModel> = records
        .iter()
        .filter_map(|record| match record {
            Record::Log { entry, .. } if !gone.contains(&entry.id) => Some(row(entry)),
            _ => None,
        })
        .collect();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        // A batch whose outcome was lost is written again.
        let known = OnConflict::column(log::Column::Id).do_nothing().to_owned();
        log::Entity::insert_many(rows.to_vec())
            .on_conflict(known)
            .exec_without_returning(connection)
            .await?;
    }
    let gone: Vec<i64> = gone.into_iter().collect();
    for ids in gone.chunks(ROWS_AT_ONCE) {
        let these = log::Column::Id.is_in(ids.iter().copied());
        log::Entity::delete_many().filter(these).exec(connection).await?;
    }
    Ok(())
}

fn gone_by(record: &Record) -> &[i64] {
    match record {
        Record::Log { gone, .. } => gone,
        Record::LogsGone { ids } => ids,
        Record::Transition { .. }
        | Record::Tools { .. }
        | Record::ShownNames { .. }
        | Record::Items { .. }
        | Record::Instructions { .. }
        | Record::SessionEnded(_)
        | Record::OAuthTokens { .. } => &[],
    }
}

fn row(entry: &LogEntry) -> log::ActiveModel {
    let LogEntry { id, at, said } = entry;
    let text = |text: &Option<String>| Set(text.as_deref().map(keepable));
    log::ActiveModel {
        id: Set(*id),
        at: Set(kept(*at)),
        level: Set(said.level.as_str().to_owned()),
        kind: Set(said.kind.as_str().to_owned()),
        mcp_server_uuid: Set(said.mcp_server_uuid),
        server: text(&said.server),
        message: Set(keepable(&said.message)),
        state: text(&said.state),
        reason: text(&said.reason),
        tool: text(&said.tool),
        endpoint: text(&said.endpoint),
        dropped: Set(i64::try_from(said.dropped).unwrap_or(i64::MAX)),
    }
}

/// `None` for a word that this version does not know.
fn entry(row: log::Model) -> Option<LogEntry> {
    let said = Said {
        level: Level::named(&row.level)?,
        kind: Kind::named(&row.kind)?,
        mcp_server_uuid: row.mcp_server_uuid,
        server: row.server,
        message: row.message,
        state: row.state,
        reason: row.reason,
        tool: row.tool,
        endpoint: row.endpoint,
        dropped: u64::try_from(row.dropped).unwrap_or(0),
    };
    Some(LogEntry { id: row.id, at: row.at, said })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use super::*;
    use crate::logs::entry::About;
    use crate::store::now;
    use crate::store::testing::{no_one, on_both};

    fn written(id: i64) -> LogEntry {
        let about = About { uuid: no_one(), name: "files" };
        let said = Said {
            state: Some("BACKOFF".to_owned()),
            reason: Some("exited".to_owned()),
            tool: Some("read".to_owned()),
            endpoint: Some("all".to_owned()),
            dropped: 3,
            ..Said::new(Level::Warn, Kind::Call, Some(about), format!("entry {id}"))
        };
        LogEntry { id, at: now(), said }
    }

    fn record(entry: &LogEntry, gone: &[i64]) -> Record {
        Record::Log { entry: Arc::new(entry.clone()), gone: gone.to_vec() }
    }

    async fn ids(store: &Store, max: usize) -> Vec<i64> {
        store.kept_logs(max).await.unwrap().into_iter().map(|entry| entry.id).collect()
    }

    #[tokio::test]
    async fn an_entry_is_read_back_as_it_was_also_when_its_server_is_gone() {
        on_both(async |store| {
            let (full, bare) =
                (written(1 << 50), Said::new(Level::Info, Kind::Gateway, None, "x".into()));
            let bare = LogEntry { id: 7, at: now(), said: bare };
            store.remember(&[record(&full, &[]), record(&bare, &[])], 1).await.unwrap();
            // As after a commit whose answer was lost.
            store.remember(&[record(&full, &[])], 1).await.unwrap();
            assert_eq!(store.kept_logs(10).await.unwrap(), [bare, full]);
        })
        .await;
    }

    #[tokio::test]
    async fn the_table_follows_what_is_kept() {
        on_both(async |store| {
            let [one, two, three] = [1, 2, 3].map(written);
            store.remember(&[record(&one, &[]), record(&two, &[])], 1).await.unwrap();
            store.remember(&[record(&three, &[1])], 1).await.unwrap();
            assert_eq!(ids(&store, 10).await, [2, 3]);
            // What came and went within one batch leaves nothing.
            let [four, five] = [4, 5].map(written);
            store.remember(&[record(&four, &[]), record(&five, &[4, 2])], 1).await.unwrap();
            assert_eq!(ids(&store, 10).await, [3, 5]);
            store.remember(&[Record::LogsGone { ids: vec![3, 5, 9] }], 1).await.unwrap();
            assert!(ids(&store, 10).await.is_empty());
        })
        .await;
    }

    #[tokio::test]
    async fn what_a_run_left_behind_beyond_the_limit_is_forgotten_by_the_next() {
        on_both(async |store| {
            let entries: Vec<_> = (1..=1_200).map(written).collect();
            let records: Vec<_> = entries.iter().map(|entry| record(entry, &[])).collect();
            store.remember(&records, 1).await.unwrap();
            assert_eq!(ids(&store, 2).await, [1_199, 1_200]);
            assert_eq!(ids(&store, 10).await, [1_199, 1_200], "the others are gone for good");
        })
        .await;
    }
}
