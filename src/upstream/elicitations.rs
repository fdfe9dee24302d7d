//! Who was asked to visit a URL, until the upstream says that it was done (client features,
//! "Elicitation", "Completion Notifications", 2025-11-25).

use std::collections::VecDeque;

use serde::Deserialize;

use super::attribution::Client;
use crate::wire::{Frame, codes};

/// Elicitations by URL and who was asked, the oldest first.
#[derive(Default)]
pub struct Elicitations(VecDeque<(Box<str>, Client)>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Elicitation {
    elicitation_id: Box<str>,
}

impl Elicitations {
    /// A client is asked. Of more than `max`, the oldest are forgotten.
    pub fn note(&mut self, id: Box<str>, client: Client, max: usize) {
        if self.0.len() >= max.max(1) {
            self.0.pop_front();
        }
        self.0.push_back((id, client));
    }

    /// The call of a client was answered, perhaps by an error that asks for some first.
    pub fn asked_for_by(&mut self, reply: &Frame, client: &Client, max: usize) {
        for id in required(reply).unwrap_or_default() {
            self.note(id, client.clone(), max);
        }
    }

    /// Whom the elicitation was put to that is now complete.
    pub fn complete(&mut self, note: &Frame) -> Option<Client> {
        #[derive(Deserialize)]
        struct Message {
            params: Elicitation,
        }
        let message: Message = serde_json::from_slice(note.bytes()).ok()?;
        let id = message.params.elicitation_id;
        let place = self.0.iter().position(|(known, _)| *known == id)?;
        self.0.remove(place).map(|(_, client)| client)
    }
}

fn required(reply: &Frame) -> Option<Vec<Box<str>>> {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        elicitations: Vec<Elicitation>,
    }
    let error: Error = serde_json::from_slice(&reply.error()?).ok()?;
    let is_meant = error.code == i64::from(codes::URL_ELICITATION_REQUIRED);
    is_meant.then(|| error.data.elicitations.into_iter().map(|one| one.elicitation_id).collect())
}
