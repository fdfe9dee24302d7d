//! The doors that calls to a remote upstream leave by: each server thread has connections of its own, so that
//! a call never changes its thread.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Mutex, PoisonError},
    thread::{self, ThreadId},
};

use crate::egress::{Door, Egress, Trust};

thread_local! {
    /// Shared by all upstreams that are trusted as the machine trusts.
    static SHARED: RefCell<Option<Door>> = const { RefCell::new(None) };
}

/// The doors of one connection to an upstream.
pub struct HotDoors {
    egress: Egress,
    /// One for each thread that has called an upstream which is trusted by authorities of its own. They are
    /// this connection's alone, and end with it: what was connected under one trust never serves another.
    own: Mutex<HashMap<ThreadId, Door>>,
}

impl HotDoors {
    pub fn new(egress: Egress) -> Self {
        Self { egress, own: Mutex::default() }
    }

    /// The door of the thread that asks.
    pub fn of_this_thread(&self) -> Door {
        match self.egress.trust() {
            Trust::Machine => {
                SHARED.with_borrow_mut(|door| door.get_or_insert_with(|| self.egress.hot()).clone())
            }
            Trust::Named => {
                let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
                own.entry(thread::current().id()).or_insert_with(|| self.egress.hot()).clone()
            }
        }
    }
}
