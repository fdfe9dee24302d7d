//! What an upstream says of tasks in one of its sessions, in the names that their owners know.
//!
//! A message that belongs to a task says so, and by that it is certain whom it is for. One that belongs
//! to a task that is not known here is for nobody for certain.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::{
    attribution::Client,
    exchange::SessionKey,
    tasks::{Place, Tasks, json},
};
use crate::wire::{Frame, Span, task};

/// The tasks of one session of an upstream.
pub struct TaskTalk {
    tasks: Arc<Tasks>,
    key: SessionKey,
    /// Of the process that its tasks end with; nil where they may outlive us.
    pub life: Uuid,
}

/// A message, with no name in it that only the upstream knows.
pub struct Read {
    pub frame: Frame,
    pub about: About,
}

/// Which task a message belongs to.
pub enum About {
    /// It says of none.
    Nothing,
    Known {
        place: Place,
        /// What its upstream knows it by.
        theirs: Box<str>,
    },
    /// To one that is not known here.
    Unknown,
}

impl TaskTalk {
    /// A process that begins knows nothing of what the one before it was at work on.
    pub fn new(tasks: Arc<Tasks>, key: SessionKey, life: Uuid) -> Self {
        if !life.is_nil() {
            tasks.forget(&key);
        }
        Self { tasks, key, life }
    }

    /// Reads a request or a notification.
    pub fn read(&self, frame: Frame) -> Read {
        match frame.method().as_deref() == Some(task::STATUS) {
            true => self.read_status(frame),
            false => self.read_related(frame),
        }
    }

    fn read_related(&self, frame: Frame) -> Read {
        let Some(related) = task::related(&frame) else {
            return Read { frame, about: About::Nothing };
        };
        let place = self.tasks.place(&self.key, &related.id);
        let shown = place.as_ref().and_then(|place| place.shown.as_ref());
        let edit = match shown {
            Some(shown) => (related.id_span, json(shown)),
            None => (related.cut, Bytes::new()),
        };
        let frame = changed(frame, edit);
        let about = match place {
            Some(place) => About::Known { place, theirs: related.id },
            None => About::Unknown,
        };
        Read { frame, about }
    }

    fn read_status(&self, frame: Frame) -> Read {
        let unknown = |frame| Read { frame, about: About::Unknown };
        let Some(described) = task::described(&frame) else { return unknown(frame) };
        let Some(place) = self.tasks.place(&self.key, &described.id) else { return unknown(frame) };
        self.tasks.saw(&self.key, &described);
        let frame = match &place.shown {
            Some(shown) => changed(frame, (described.id_span, json(shown))),
            None => frame,
        };
        Read { frame, about: About::Known { place, theirs: described.id } }
    }

    /// Progress under the id of a call that has become a task: where it goes, with the token that its
    /// client gave.
    pub fn read_progress(&self, call: u64, frame: Frame) -> Option<(Place, Frame)> {
        let (place, token) = self.tasks.progress_of(&self.key, call)?;
        let span = frame.token_span()?;
        Some((place, changed(frame, (span, token))))
    }

    /// A call was answered. Whether it goes on as a task that it is to hear of.
    pub fn answered(&self, call: u64, answer: &Frame) -> bool {
        self.tasks.answered(&self.key, self.life, call, answer)
    }

    /// Whose tasks it may be that something is said about, where nothing is said of tasks.
    pub fn at_work_for(&self) -> Vec<Client> {
        self.tasks.at_work_for(&self.key)
    }
}

/// One place of a frame changed: a value for a value, or a member for nothing.
fn changed(frame: Frame, (span, new): (Span, Bytes)) -> Frame {
    let spliced = frame.splice(&mut [(span, &new)]);
    // Its other members are as they were, so it can be read as it could before.
    Frame::parse(spliced, usize::MAX).unwrap_or(frame)
}
