//! Tells clients that their tools are others when it is the endpoint's schema profile that has changed,
//! and the namespace has not.

use std::{collections::HashMap, sync::Arc};

use super::{Conductor, EndpointEntry};
use crate::{
    catalogue::profiles::{Choice, Profile},
    namespace::published::Published,
    wire::{Topic, message},
};

impl Conductor {
    /// `changed`: endpoints whose profile was another before, with that.
    pub(super) async fn tell_of_profiles(&self, changed: Vec<(Choice, Arc<EndpointEntry>)>) {
        for (before, entry) in changed {
            // Who has not been introduced has seen no list.
            let sessions = self
                .sessions
                .all_where(|session| session.endpoint == entry.id && session.version().is_some());
            let published = entry.namespace.published.load_full();
            let mut told: HashMap<(Profile, Profile), bool> = HashMap::new();
            for session in sessions {
                let own = session.profile();
                let step = (before.for_client(own), entry.schema_profile.for_client(own));
                let is_other = match told.get(&step) {
                    Some(is_other) => *is_other,
                    None => {
                        let is_other = differs(&published, step).await;
                        told.insert(step, is_other);
                        is_other
                    }
                };
                if is_other {
                    session.push(message::notification(Topic::Tools.changed_method(), b""));
                }
            }
        }
    }
}

/// Whether a list made by the one profile is another than by the other. Made aside, since others wait for
/// this thread.
async fn differs(published: &Arc<Published>, (before, now): (Profile, Profile)) -> bool {
    if before == now {
        return false;
    }
    let published = published.clone();
    let list = |published: &Published, profile| {
        let shaped = published.shaped(profile);
        shaped.map_or_else(|| published.routes.list().clone(), |shaped| shaped.list().clone())
    };
    let compared =
        tokio::task::spawn_blocking(move || list(&published, before) != list(&published, now));
    // To be told once too often costs a client one list.
    compared.await.unwrap_or(true)
}
