//! Which namespaces have panicked, and which of them are to be made anew now.
//!
//! One that dies of what it is made of dies again. Until it does not, its clients are served from what it
//! has published last, and nobody is kept busy with it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    catalogue::kind::PerKind, fleet::deaths::Deaths, namespace::NamespaceSpec,
    upstream::lifecycle::Patience,
};

#[derive(Default)]
pub struct Graves {
    all: Mutex<HashMap<Uuid, Grave>>,
}

#[derive(Default)]
struct Grave {
    deaths: Deaths,
    /// What it was to be when it was looked at last, but for the names that it gave.
    wanted: Option<NamespaceSpec>,
}

impl Graves {
    /// Whether any of these, which are dead, is to be made anew now.
    pub fn are_due(&self, dead: impl IntoIterator<Item = Uuid>, patience: &Patience) -> bool {
        let (mut all, now) = (self.lock(), Instant::now());
        let mut is_any = false;
        for id in dead {
            is_any |= all.entry(id).or_default().is_due(id, now, patience);
        }
        is_any
    }

    /// Whether this one, which is dead, is to be made anew now. If so, it counts as done.
    pub fn take(&self, spec: &NamespaceSpec, patience: &Patience) -> bool {
        let (mut all, now) = (self.lock(), Instant::now());
        let grave = all.entry(spec.id).or_default();
        let wanted = NamespaceSpec { known: PerKind::default(), ..spec.clone() };
        // An operator may have changed what it died of.
        if grave.wanted.as_ref().is_some_and(|before| *before != wanted) {
            grave.deaths.hurry();
        }
        grave.wanted = Some(wanted);
        let is_due = grave.is_due(spec.id, now, patience);
        if is_due {
            grave.deaths.revive(now);
        }
        is_due
    }

    /// Forgets all but these.
    pub fn retain(&self, wanted: &HashSet<Uuid>) {
        self.lock().retain(|id, _| wanted.contains(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Grave>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grave {
    fn is_due(&mut self, id: Uuid, now: Instant, patience: &Patience) -> bool {
        if self.deaths.notice(now, patience) && !self.deaths.is_burst() {
            tracing::error!(namespace = %id, "a namespace panicked; it is made anew, for ever, but more and more slowly");
        }
        self.deaths.is_due(now, patience)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::catalogue::naming::Naming;
    use crate::upstream::testing::patience;

    fn spec(naming: Naming) -> NamespaceSpec {
        NamespaceSpec {
            id: Uuid::from_u128(1),
            naming,
            uri_naming: Naming::Never,
            members: Vec::new(),
            known: PerKind::default(),
            curations: PerKind::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_dies_of_what_it_is_rests_until_it_is_another() {
        let minute = Duration::from_secs(60);
        let patience = Patience { backoff_min: minute, backoff_max: minute, ..patience() };
        let (graves, id) = (Graves::default(), Uuid::from_u128(1));
        assert!(graves.are_due([id], &patience));
        assert!(graves.take(&spec(Naming::Always), &patience));
        for _ in 0..3 {
            assert!(!graves.are_due([id], &patience));
            assert!(!graves.take(&spec(Naming::Always), &patience));
            tokio::time::advance(minute - Duration::from_millis(1)).await;
            assert!(!graves.are_due([id], &patience));
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(graves.are_due([id], &patience));
            assert!(graves.take(&spec(Naming::Always), &patience));
        }
        assert!(graves.take(&spec(Naming::Never), &patience), "it is another one");
        assert!(!graves.take(&spec(Naming::Never), &patience));
        graves.retain(&HashSet::new());
        assert!(graves.take(&spec(Naming::Never), &patience), "and of that nothing is known");
    }
}
