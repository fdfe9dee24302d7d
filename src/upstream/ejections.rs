//! Of how many remote upstreams the calls may be held back at once.
//!
//! Where more than so many fail together, what they have in common is more likely to be ill than they
//! are: our network, our names, ourselves. Those beyond the limit go on being called.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use uuid::Uuid;

/// Whether the calls of one more may be held back, of so many that are connected. Those of one always
/// may, or a house with few upstreams would have no use of a breaker.
pub fn has_room(ejected: usize, connected: usize, percent_max: usize) -> bool {
    ejected == 0 || (ejected + 1) * 100 <= connected.saturating_mul(percent_max)
}

/// The remote upstreams that are connected, and whether the calls of each are held back. What is not
/// connected is the supervisor's affair, and counts on neither side.
pub struct Ejections {
    percent_max: usize,
    connected: Mutex<HashMap<Uuid, bool>>,
}

impl Ejections {
    pub fn new(percent_max: usize) -> Self {
        Self { percent_max, connected: Mutex::default() }
    }

    /// It can be called from now on, and is.
    pub fn join(&self, id: Uuid) {
        self.lock().insert(id, false);
    }

    /// Its connection has ended.
    pub fn leave(&self, id: Uuid) {
        self.lock().remove(&id);
    }

    /// Has the calls of this one held back, if there is room. Whether they are.
    pub fn eject(&self, id: Uuid) -> bool {
        let mut connected = self.lock();
        if !connected.contains_key(&id) {
            // Its connection has ended meanwhile, and the next one begins with a clean slate.
            return true;
        }
        let ejected = connected.iter().filter(|(one, is_out)| **is_out && **one != id).count();
        let may = has_room(ejected, connected.len(), self.percent_max);
        connected.insert(id, may);
        may
    }

    /// Its calls are let through again.
    pub fn readmit(&self, id: Uuid) {
        if let Some(is_out) = self.lock().get_mut(&id) {
            *is_out = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, bool>> {
        // Whole between any two statements.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_them_may_be_held_back_and_one_always() {
        // Of so many, at 50 %, at 10 %, and at all and none.
        for (connected, [half, tenth, all, none]) in [
            (1, [1, 1, 1, 1]),
            (2, [1, 1, 2, 1]),
            (3, [1, 1, 3, 1]),
            (4, [2, 1, 4, 1]),
            (5, [2, 1, 5, 1]),
            (20, [10, 2, 20, 1]),
        ] {
            for (percent_max, expected) in [(50, half), (10, tenth), (100, all), (0, none)] {
                let ejected = (0..connected)
                    .fold(0, |out, _| out + usize::from(has_room(out, connected, percent_max)));
                assert_eq!(ejected, expected, "{connected} at {percent_max} %");
            }
        }
    }

    #[test]
    fn who_is_let_in_again_or_has_gone_makes_room_and_who_is_out_is_not_counted_twice() {
        let ejections = Ejections::new(50);
        let ids: Vec<Uuid> = (1..=4).map(Uuid::from_u128).collect();
        ids.iter().for_each(|id| ejections.join(*id));
        assert!(ejections.eject(ids[0]) && ejections.eject(ids[1]));
        assert!(ejections.eject(ids[1]), "it is out already");
        assert!(!ejections.eject(ids[2]));
        ejections.readmit(ids[0]);
        assert!(ejections.eject(ids[2]));
        ejections.leave(ids[1]);
        assert!(!ejections.eject(ids[3]), "two of three are too many");
        ejections.leave(ids[2]);
        assert!(ejections.eject(ids[3]));
    }
}
