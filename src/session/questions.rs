//! What is being asked of one client, and how its answers find those who asked.
//!
//! The ids are the session's own, so that two upstreams may use the same one, and no client can
//! answer what another was asked.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use crate::wire::{Frame, Kind};

/// Reports of progress that wait to be taken to the upstream before some are dropped.
const PROGRESS_MAX: usize = 16;

/// The questions of one session.
pub struct Questions {
    open: Mutex<Open>,
    max: usize,
}

#[derive(Default)]
struct Open {
    asked: HashMap<u64, Asked>,
    last_id: u64,
}

struct Asked {
    answer: oneshot::Sender<Frame>,
    progress: mpsc::Sender<Frame>,
}

/// One question's place. Dropping it means that no answer is waited for any more.
pub struct Place {
    pub id: u64,
    questions: Arc<Questions>,
    answer: oneshot::Receiver<Frame>,
    progress: mpsc::Receiver<Frame>,
}

/// What a client says to a question.
pub enum Said {
    Progress(Frame),
    /// A result or an error, under our id.
    Answer(Frame),
    /// Nothing: the question did not reach it, and will not.
    Unheard,
}

impl Questions {
    /// At most `max` are asked at once.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), max })
    }

    /// A place for one more question. `None` when the client is asked as much as it may be.
    pub fn begin(self: &Arc<Self>) -> Option<Place> {
        let mut open = self.lock();
        if open.asked.len() >= self.max {
            metrics::counter!("metamcpd_limit_hit_total", "limit" => "sessions.questions_max")
                .increment(1);
            return None;
        }
        open.last_id += 1;
        let id = open.last_id;
        let (answer_in, answer) = oneshot::channel();
        let (progress_in, progress) = mpsc::channel(PROGRESS_MAX);
        open.asked.insert(id, Asked { answer: answer_in, progress: progress_in });
        Some(Place { id, questions: self.clone(), answer, progress })
    }

    /// Takes a client's response to the one who asked. One that nobody waits for, or that was given
    /// already, is dropped and counted.
    pub fn answer(&self, response: Frame) {
        let asked = own_id(response.id()).and_then(|id| self.lock().asked.remove(&id));
        if asked.is_none_or(|asked| asked.answer.send(response).is_err()) {
            metrics::counter!("metamcpd_client_unknown_replies_total").increment(1);
        }
    }

    /// Takes a client's report of progress to the one who asked.
    pub fn progress(&self, note: Frame) {
        let token = own_id(note.token_span().map(|span| note.get(span)));
        let progress =
            token.and_then(|id| self.lock().asked.get(&id).map(|asked| asked.progress.clone()));
        if progress.is_none_or(|progress| progress.try_send(note).is_err()) {
            metrics::counter!("metamcpd_progress_dropped_total").increment(1);
        }
    }

    /// What was to be said to the client is lost. Where it was a question, whoever asked hears that
    /// nobody will answer it.
    pub fn lose(&self, message: &Frame) {
        if message.kind() == Kind::Request
            && let Some(id) = own_id(message.id())
        {
            self.lock().asked.remove(&id);
        }
    }

    /// Whether an answer is still waited for.
    pub fn is_open(&self, id: u64) -> bool {
        self.lock().asked.contains_key(&id)
    }

    pub fn count(&self) -> usize {
        self.lock().asked.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // What it holds is whole whenever the lock is free, even after a panic elsewhere.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// What the client says next; not to be asked again after its answer. Safe to be dropped while it
    /// waits.
    pub async fn next(&mut self) -> Said {
        tokio::select! {
            // Progress that came before the answer is told before it.
            biased;
            Some(note) = self.progress.recv() => Said::Progress(note),
            answer = &mut self.answer => match answer {
                Ok(answer) => Said::Answer(answer),
                Err(_lost) => Said::Unheard,
            },
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.questions.lock().asked.remove(&self.id);
    }
}

/// An id or token as we give them out: a number written in digits.
pub(super) fn own_id(raw: Option<&[u8]>) -> Option<u64> {
    std::str::from_utf8(raw?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures_util::FutureExt;

    use super::*;

    fn frame(text: String) -> Frame {
        Frame::parse(text.into(), 8).unwrap()
    }

    fn reply(id: &str, result: &str) -> Frame {
        frame(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#))
    }

    fn progress(token: &str) -> Frame {
        frame(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":1}}}}"#
        ))
    }

    fn answer(said: Said) -> Vec<u8> {
        match said {
            Said::Answer(frame) => frame.result().unwrap().to_vec(),
            Said::Progress(_) | Said::Unheard => panic!("it is no answer"),
        }
    }

    #[tokio::test]
    async fn answers_find_their_questions_whatever_the_order() {
        let questions = Questions::new(4);
        let (mut first, mut second) = (questions.begin().unwrap(), questions.begin().unwrap());
        questions.answer(reply("2", r#""b""#));
        questions.answer(reply("1", r#""a""#));
        assert_eq!(answer(first.next().await), b"\"a\"");
        assert_eq!(answer(second.next().await), b"\"b\"");
    }

    #[tokio::test]
    async fn a_second_answer_an_unknown_one_and_one_of_the_wrong_type_reach_nobody() {
        let questions = Questions::new(4);
        let mut place = questions.begin().unwrap();
        questions.answer(reply("\"1\"", "0"));
        questions.answer(reply("9", "0"));
        assert!(place.next().now_or_never().is_none());
        questions.answer(reply("1", r#""first""#));
        questions.answer(reply("1", r#""second""#));
        assert_eq!(answer(place.next().await), b"\"first\"");
    }

    #[tokio::test]
    async fn progress_comes_before_the_answer_and_only_to_what_it_is_for() {
        let questions = Questions::new(4);
        let (mut place, mut other) = (questions.begin().unwrap(), questions.begin().unwrap());
        questions.progress(progress("1"));
        questions.progress(progress("7"));
        questions.answer(reply("1", "1"));
        assert!(matches!(place.next().await, Said::Progress(_)));
        assert_eq!(answer(place.next().await), b"1");
        assert!(other.next().now_or_never().is_none());
    }

    #[test]
    fn a_client_is_asked_so_much_at_once_and_a_place_given_up_is_free_again() {
        let questions = Questions::new(2);
        let first = questions.begin().unwrap();
        let _second = questions.begin().unwrap();
        assert!(questions.begin().is_none());
        drop(first);
        assert_eq!(questions.begin().unwrap().id, 3, "ids are not used again");
    }
}
