//! The history of one server: every change of state, newest first.
//!
//! Rows are written by the journal. Whoever wants to read what has just happened lets the journal
//! write first.

use entity::{mcp_server, upstream_transition as transition};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Store;
use super::error::StoreError;
use super::page::{Page, PageRequest};
use super::words::ErrorStatus;

/// One change of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Transition {
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The state it went to.
    pub state: String,
    pub error_status: ErrorStatus,
    pub reason: String,
    pub message: Option<String>,
    pub exit_code: Option<i32>,
    pub exit_signal: Option<i32>,
    /// How often it had been restarted by then.
    pub restarts: u64,
}

/// Which changes are asked for; every field that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryFilter {
    /// The state it went to.
    pub state: Option<String>,
    pub error_status: Option<ErrorStatus>,
    pub reason: Option<String>,
}

impl Store {
    #[cfg(test)]
    pub async fn history(
        &self,
        server: Uuid,
        page: &PageRequest,
    ) -> Result<Page<Transition>, StoreError> {
        self.history_where(server, &HistoryFilter::default(), page).await
    }

    pub async fn history_where(
        &self,
        server: Uuid,
        filter: &HistoryFilter,
        page: &PageRequest,
    ) -> Result<Page<Transition>, StoreError> {
        let limit = page.limit()?;
        let before = page.after()?.map(i64::from_be_bytes);
        if mcp_server::Entity::find_by_id(server).one(self.reader()).await?.is_none() {
            return Err(StoreError::not_found("server", server));
        }
        let mut query = transition::Entity::find()
            .filter(transition::Column::McpServerUuid.eq(server))
            .order_by_desc(transition::Column::Id)
            .limit(limit.saturating_add(1));
        if let Some(before) = before {
            query = query.filter(transition::Column::Id.lt(before));
        }
        if let Some(state) = &filter.state {
            query = query.filter(transition::Column::State.eq(state));
        }
        if let Some(error_status) = filter.error_status {
            query = query.filter(transition::Column::ErrorStatus.eq(error_status.as_str()));
        }
        if let Some(reason) = &filter.reason {
            query = query.filter(transition::Column::Reason.eq(reason));
        }
        let rows = query.all(self.reader()).await?;
        Page::cut(rows, limit, |row| row.id.to_be_bytes()).try_map(|row| {
            Ok(Transition {
                at: row.at,
                state: row.state,
                error_status: ErrorStatus::stored(
                    "upstream_transitions.error_status",
                    &row.error_status,
                )?,
                reason: row.reason,
                message: row.message,
                exit_code: row.exit_code,
                exit_signal: row.exit_signal,
                restarts: u64::try_from(row.restarts).unwrap_or(0),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::testing::{failure, no_one, on_both, process};

    #[tokio::test]
    async fn history_comes_newest_first_and_in_pages() {
        on_both(async |store| {
            let server = store.create_server(process("files")).await.unwrap().uuid;
            let other = store.create_server(process("other")).await.unwrap().uuid;
            let mut records: Vec<_> = (1..=5).map(|number| failure(server, number)).collect();
            records.push(failure(other, 9));
            store.remember(&records, 1_000).await.unwrap();

            let mut request = PageRequest { limit: Some(2), cursor: None };
            let mut pages = Vec::new();
            loop {
                let page = store.history(server, &request).await.unwrap();
                pages.push(page.items.iter().map(|item| item.restarts).collect::<Vec<_>>());
                match page.next_cursor {
                    Some(cursor) => request.cursor = Some(cursor),
                    None => break,
                }
            }
            assert_eq!(pages, [vec![5, 4], vec![3, 2], vec![1]]);

            let missing = store.history(no_one(), &PageRequest::default()).await;
            assert!(matches!(missing, Err(StoreError::NotFound { what: "server", .. })));
        })
        .await;
    }
}
