//! What a complete listing of a server changes in the rows that are kept of it.
//!
//! A row is known by its key. Its uuid survives every listing, since what was decided about it hangs on
//! that; what is no longer offered is marked, not removed, because it may come back.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, IntoActiveModel, QueryFilter};
use time::OffsetDateTime;
use uuid::Uuid;

use super::error::StoreError;

/// Keeps a statement well below the number of parameters either database takes.
const ROWS_AT_ONCE: usize = 500;

/// A row of something that a server offers.
pub(super) trait Offered {
    fn uuid(&self) -> Uuid;

    /// What it is known by among those of its server and kind.
    fn key(&self) -> &str;

    /// The object as it came, and its place in the list.
    fn listed_as(&self) -> (&str, i32);

    fn has_vanished(&self) -> bool;

    /// Whether a listing that brings `listed` leaves nothing of it to be written.
    fn is_as(&self, listed: &Self) -> bool {
        self.listed_as() == listed.listed_as() && !self.has_vanished()
    }
}

/// What has to be written.
#[derive(Debug)]
pub(super) struct Difference<M> {
    pub added: Vec<M>,
    /// The uuids that stay, and what is new about them.
    pub changed: Vec<(Uuid, M)>,
    pub vanished: Vec<Uuid>,
}

/// Of two that were listed with one key the first counts.
pub(super) fn difference<M: Offered>(
    known: Vec<M>,
    listed: impl IntoIterator<Item = M>,
) -> Difference<M> {
    let mut known: HashMap<String, M> =
        known.into_iter().map(|row| (row.key().to_owned(), row)).collect();
    let mut seen = HashSet::new();
    let (mut added, mut changed) = (Vec::new(), Vec::new());
    for listed in listed {
        if !seen.insert(listed.key().to_owned()) {
            continue;
        }
        match known.remove(listed.key()) {
            None => added.push(listed),
            Some(row) if row.is_as(&listed) => {}
            Some(row) => changed.push((row.uuid(), listed)),
        }
    }
    let vanished = known.values().filter(|row| !row.has_vanished()).map(Offered::uuid).collect();
    Difference { added, changed, vanished }
}

pub(super) async fn insert<E, M>(
    connection: &impl ConnectionTrait,
    rows: Vec<M>,
) -> Result<(), StoreError>
where
    E: EntityTrait<Model = M>,
    M: Clone + IntoActiveModel<E::ActiveModel>,
{
    for rows in rows.chunks(ROWS_AT_ONCE) {
        let rows = rows.iter().cloned().map(IntoActiveModel::into_active_model);
        E::insert_many(rows).exec_without_returning(connection).await?;
    }
    Ok(())
}

/// The columns by which a row is marked.
pub(super) struct Marks<C> {
    pub uuid: C,
    pub vanished_at: C,
    pub updated_at: C,
}

pub(super) async fn mark_vanished<E: EntityTrait>(
    connection: &impl ConnectionTrait,
    marks: Marks<E::Column>,
    vanished: &[Uuid],
    at: OffsetDateTime,
) -> Result<(), StoreError> {
    for vanished in vanished.chunks(ROWS_AT_ONCE) {
        E::update_many()
            .col_expr(marks.vanished_at, Expr::value(at))
            .col_expr(marks.updated_at, Expr::value(at))
            .filter(marks.uuid.is_in(vanished.iter().copied()))
            .exec(connection)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Row(u128, &'static str, i32, bool);

    impl Offered for Row {
        fn uuid(&self) -> Uuid {
            Uuid::from_u128(self.0)
        }

        fn key(&self) -> &str {
            self.1
        }

        fn listed_as(&self) -> (&str, i32) {
            ("", self.2)
        }

        fn has_vanished(&self) -> bool {
            self.3
        }
    }

    #[test]
    fn a_row_is_added_changed_or_marked_and_what_is_as_it_was_is_left_alone() {
        let known = vec![
            Row(1, "same", 0, false),
            Row(2, "other", 0, false),
            Row(3, "gone", 0, false),
            Row(4, "gone long ago", 0, true),
            Row(5, "back", 0, true),
        ];
        let listed = [
            Row(11, "same", 0, false),
            Row(12, "other", 1, false),
            Row(13, "new", 0, false),
            Row(14, "new", 1, false),
            Row(15, "back", 0, false),
        ];
        let difference = difference(known, listed.clone());
        assert_eq!(difference.added, [listed[2].clone()]);
        let id = Uuid::from_u128;
        assert_eq!(difference.changed, [(id(2), listed[1].clone()), (id(5), listed[4].clone())]);
        assert_eq!(difference.vanished, [id(3)]);
    }
}
