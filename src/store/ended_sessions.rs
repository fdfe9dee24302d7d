//! The MCP sessions that have ended, so that the next run does not revive them.
//!
//! They are written by the journal, and dropped once their ids would be too old anyway.

use entity::ended_session;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;
use super::memory::ROWS_AT_ONCE;
use super::record::Record;
use super::{Store, kept};

/// What an ended session is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedSession {
    /// The random part of its id.
    pub id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
}

impl Store {
    /// The ended sessions, the youngest first, and no more than `max` of them.
    pub async fn ended_sessions(&self, max: u64) -> Result<Vec<EndedSession>, StoreError> {
        let rows = ended_session::Entity::find()
            .order_by_desc(ended_session::Column::IssuedAt)
            .order_by_desc(ended_session::Column::Id)
            .limit(max)
            .all(self.reader())
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| EndedSession { id: row.id, issued_at: row.issued_at })
            .collect())
    }

    /// Forgets those that were issued before, and of the others all but the `max` youngest.
    pub async fn forget_ended_sessions(
        &self,
        issued_before: OffsetDateTime,
        max: u64,
    ) -> Result<(), StoreError> {
        let transaction = self.write().await?;
        let oldest_kept: Option<OffsetDateTime> = ended_session::Entity::find()
            .select_only()
            .column(ended_session::Column::IssuedAt)
            .order_by_desc(ended_session::Column::IssuedAt)
            .offset(max.saturating_sub(1))
            .limit(1)
            .into_tuple()
            .one(&transaction)
            .await?;
        let before = oldest_kept.map_or(issued_before, |oldest| oldest.max(issued_before));
        ended_session::Entity::delete_many()
            .filter(ended_session::Column::IssuedAt.lt(kept(before)))
            .exec(&transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }
}

/// Writes those of a batch.
pub(super) async fn put(
    connection: &impl ConnectionTrait,
    records: &[Record],
) -> Result<(), StoreError> {
    let rows: Vec<ended_session::ActiveModel> = records
        .iter()
        .filter_map(|record| match record {
            Record::SessionEnded(EndedSession { id, issued_at }) => {
                Some(ended_session::ActiveModel { id: Set(*id), issued_at: Set(kept(*issued_at)) })
            }
            _ => None,
        })
        .collect();
    // One that an outage had written twice is written once.
    let known = OnConflict::column(ended_session::Column::Id).do_nothing().to_owned();
    for rows in rows.chunks(ROWS_AT_ONCE) {
        ended_session::Entity::insert_many(rows.to_vec())
            .on_conflict(known.clone())
            .exec_without_returning(connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::on_both;

    fn ended(seconds: i64) -> EndedSession {
        let issued_at = OffsetDateTime::from_unix_timestamp(1_700_000_000 + seconds).unwrap();
        EndedSession { id: Uuid::from_u128(seconds.unsigned_abs().into()), issued_at }
    }

    #[tokio::test]
    async fn ended_sessions_are_kept_youngest_first_and_forgotten_by_age_and_number() {
        on_both(async |store| {
            let records: Vec<Record> =
                [3, 1, 4, 2, 4].map(|seconds| Record::SessionEnded(ended(seconds))).to_vec();
            store.remember(&records, 10).await.unwrap();
            store.remember(&records[..1], 10).await.unwrap();

            let all = store.ended_sessions(10).await.unwrap();
            assert_eq!(all, [ended(4), ended(3), ended(2), ended(1)]);
            assert_eq!(store.ended_sessions(2).await.unwrap(), all[..2]);

            store.forget_ended_sessions(ended(2).issued_at, 10).await.unwrap();
            assert_eq!(store.ended_sessions(10).await.unwrap(), all[..3]);
            store.forget_ended_sessions(ended(0).issued_at, 2).await.unwrap();
            assert_eq!(store.ended_sessions(10).await.unwrap(), all[..2]);
        })
        .await;
    }
}
