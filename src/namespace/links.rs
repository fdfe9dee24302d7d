//! Remembers which upstream has spoken of which resource, since no list need have it.
//!
//! It is a help for finding the way and no more: it is bounded, the oldest make room, and it ends
//! with the daemon.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// The resources that results have linked to, of one namespace.
#[derive(Default)]
pub struct Links {
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    servers: HashMap<Box<str>, Uuid>,
    /// In the order in which they were learned.
    order: VecDeque<Box<str>>,
}

impl Links {
    /// Remembers at most `max` of them.
    pub fn new(max: usize) -> Self {
        Self { max, inner: Mutex::default() }
    }

    /// An upstream has spoken of a resource. Who spoke of it last has it.
    pub fn learn(&self, uri: &str, server: Uuid) {
        if self.max == 0 {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = inner.servers.get_mut(uri) {
            *known = server;
            return;
        }
        if inner.order.len() >= self.max
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.servers.remove(&oldest);
        }
        inner.servers.insert(uri.into(), server);
        inner.order.push_back(uri.into());
    }

    pub fn server_of(&self, uri: &str) -> Option<Uuid> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.servers.get(uri).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_the_last_word_counts() {
        let links = Links::new(2);
        let server = Uuid::from_u128;
        for (uri, number) in [("u://a", 1), ("u://b", 1), ("u://a", 2), ("u://c", 3)] {
            links.learn(uri, server(number));
        }
        let known = |uri| links.server_of(uri);
        assert_eq!(known("u://a"), None);
        assert_eq!((known("u://b"), known("u://c")), (Some(server(1)), Some(server(3))));
        links.learn("u://b", server(2));
        assert_eq!(known("u://b"), Some(server(2)));
        let none = Links::new(0);
        none.learn("u://a", server(1));
        assert_eq!(none.server_of("u://a"), None);
    }
}
