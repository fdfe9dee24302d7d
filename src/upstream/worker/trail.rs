//! Where a stream of events is, so that after a break the rest can be fetched from there (2025-11-25,
//! "Resumability and Redelivery").

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;

use crate::wire::sse;

/// The limits of `upstream.resume` in the settings.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResumeOptions {
    /// How long after a break the stream is taken up again, where the server does not say.
    #[serde(with = "humantime_serde")]
    pub retry: Duration,
    /// The longest rest that a server can ask for.
    #[serde(with = "humantime_serde")]
    pub retry_max: Duration,
    /// Attempts in a row that bring nothing, after which the call has failed. Zero: never resume.
    pub attempts_max: u32,
}

/// The shortest rest, whatever the server says: a stream that closes at once must not be a loop.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// Events with ids that are remembered of one stream, in case it is resumed too early.
const KNOWN_MAX: usize = 256;

/// What is known of a stream by the events that have come.
pub struct Trail {
    options: ResumeOptions,
    /// Of the last event that had an id: where the rest begins.
    last_event: Option<HeaderValue>,
    /// How long the server wants to be left alone after a break.
    retry: Option<Duration>,
    /// How often in a row the rest was asked for and nothing came.
    pub attempts: u32,
    known: Known,
    /// Whether what comes may have come before: a resumed stream begins with that.
    is_repeating: bool,
}

/// The message of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub data: Bytes,
    /// Whether it came before, in the same words and with the same id.
    pub is_repeated: bool,
}

impl Said {
    /// What was said, unless it came before.
    pub fn once(self) -> Option<Bytes> {
        if self.is_repeated {
            metrics::counter!("metamcpd_upstream_duplicate_events_total").increment(1);
        }
        Some(self.data).filter(|_| !self.is_repeated)
    }
}

/// Which events have come, by their ids and what they say: some servers give the same id to all.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    marks: VecDeque<u64>,
}

impl Known {
    fn mark(&self, id: &str, data: &[u8]) -> u64 {
        self.hasher.hash_one((id, data))
    }

    /// Whether it has come before.
    fn has(&self, id: &str, data: &[u8]) -> bool {
        self.marks.contains(&self.mark(id, data))
    }

    fn remember(&mut self, id: &str, data: &[u8]) {
        if self.marks.len() == KNOWN_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(self.mark(id, data));
    }
}

impl Trail {
    pub fn new(options: ResumeOptions) -> Self {
        let known = Known::default();
        Self { options, last_event: None, retry: None, attempts: 0, known, is_repeating: false }
    }

    /// The message of an event. `None` where it says nothing but where the stream is.
    pub fn follow(&mut self, event: sse::Event) -> Option<Said> {
        let id = event.id.as_deref().filter(|id| !id.is_empty());
        let is_repeated = self.is_repeating && id.is_some_and(|id| self.known.has(id, &event.data));
        if let Some(id) = id.filter(|_| !is_repeated) {
            self.known.remember(id, &event.data);
        }
        if is_repeated {
            // Behind what came after it, where it is itself is no news.
            return Some(Said { data: event.data, is_repeated })
                .filter(|said| !said.data.is_empty());
        }
        // Some servers give the same id to all, or count anew with each stream. What is repeated is at the
        // beginning, behind what may say where the stream is: all else is new, whatever it is like.
        self.is_repeating &= event.data.is_empty();
        self.attempts = 0;
        if let Some(id) = event.id {
            // An empty id takes the last one back (WHATWG HTML, section 9.2.6).
            self.last_event = HeaderValue::from_str(&id).ok().filter(|id| !id.is_empty());
        }
        if let Some(retry) = event.retry {
            let longest = self.options.retry_max.max(RETRY_MIN);
            self.retry = Some(Duration::from_millis(retry).clamp(RETRY_MIN, longest));
        }
        Some(Said { data: event.data, is_repeated }).filter(|said| !said.data.is_empty())
    }

    /// After which event the rest is to be asked for, if it can be.
    pub fn last_event(&self) -> Option<HeaderValue> {
        self.last_event.clone().filter(|_| self.options.attempts_max > 0)
    }

    /// Whether the rest was asked for as often as it may be.
    pub fn is_exhausted(&self) -> bool {
        self.attempts >= self.options.attempts_max
    }

    /// How long the server wants to be left alone after a break, if it has said so.
    pub fn asked_rest(&self) -> Option<Duration> {
        self.retry
    }

    /// How long to wait after a break.
    pub fn rest(&self) -> Duration {
        self.retry.unwrap_or(self.options.retry)
    }

    /// From now on comes the rest, and before it perhaps some of what has come.
    pub fn resumed(&mut self) {
        self.is_repeating = true;
    }

    /// The rest is not to be had: the stream begins anew.
    pub fn lose(&mut self) {
        *self = Self { retry: self.retry, ..Self::new(self.options) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const OPTIONS: ResumeOptions = ResumeOptions {
        retry: Duration::from_secs(1),
        retry_max: Duration::from_secs(30),
        attempts_max: 5,
    };

    fn event(id: Option<&str>, data: &'static str) -> sse::Event {
        sse::Event { id: id.map(str::to_owned), data: data.into(), ..Default::default() }
    }

    /// What is heard of an event for the first time.
    fn news(trail: &mut Trail, id: Option<&str>, data: &'static str) -> Option<Bytes> {
        trail.follow(event(id, data)).and_then(Said::once)
    }

    #[test]
    fn an_event_has_come_before_where_its_id_and_its_words_have() {
        let mut known = Known::default();
        known.remember("1", b"a");
        assert!(known.has("1", b"a"));
        assert!(!known.has("1", b"b"), "some servers give the same id to all");
        assert!(!known.has("2", b"a"));
        for number in 0..KNOWN_MAX {
            known.remember(&format!("later {number}"), b"");
        }
        assert!(!known.has("1", b"a"));
        assert_eq!(known.marks.len(), KNOWN_MAX);
    }

    #[test]
    fn the_rest_begins_after_the_last_event_that_had_an_id() {
        let mut trail = Trail::new(OPTIONS);
        assert_eq!(news(&mut trail, None, "a").unwrap(), "a");
        assert_eq!(trail.last_event(), None, "it cannot be asked for");
        assert_eq!(news(&mut trail, Some("1"), ""), None, "it says where the stream is");
        assert_eq!(news(&mut trail, None, "b").unwrap(), "b");
        assert_eq!(trail.last_event().unwrap(), "1");
        assert_eq!(news(&mut trail, Some("2"), "c").unwrap(), "c");
        trail.resumed();
        assert_eq!(news(&mut trail, Some("2"), "c"), None, "it has come before");
        assert_eq!(news(&mut trail, Some("3"), "c").unwrap(), "c");
        trail.follow(event(Some(""), "d"));
        assert_eq!(trail.last_event(), None, "it was taken back");
        trail.follow(event(Some("4"), "e"));
        trail.lose();
        assert_eq!(trail.last_event(), None);
        assert_eq!(news(&mut trail, Some("4"), "e").unwrap(), "e", "it is another stream");
        let never = Trail::new(ResumeOptions { attempts_max: 0, ..OPTIONS });
        let mut never = never;
        never.follow(event(Some("1"), "a"));
        assert_eq!(never.last_event(), None);
    }

    #[test]
    fn only_what_comes_first_after_a_break_can_have_come_before() {
        // One that gives the same id to all, and one that counts anew with each stream.
        for ids in [["1", "1", "1"], ["1", "2", "3"]] {
            let mut trail = Trail::new(OPTIONS);
            let mut say = |id, data| news(&mut trail, Some(id), data).is_some();
            assert!(
                say(ids[0], "changed") && say(ids[1], "changed"),
                "{ids:?}: it is no repetition"
            );
            trail.resumed();
            let mut say = |id, data| news(&mut trail, Some(id), data).is_some();
            assert!(!say("primed", ""));
            assert!(
                !say(ids[0], "changed") && !say(ids[1], "changed"),
                "{ids:?}: the server repeats"
            );
            assert!(say(ids[2], "other"));
            assert!(say(ids[0], "changed") && say(ids[1], "changed"), "{ids:?}: it is said again");
        }
    }

    #[test]
    fn a_server_asks_for_no_longer_rest_than_it_may() {
        let mut trail = Trail::new(OPTIONS);
        assert_eq!((trail.rest(), trail.asked_rest()), (OPTIONS.retry, None));
        for (retry, rest) in [(0, 100), (500, 500), (1_000_000, 30_000)] {
            trail.follow(sse::Event { retry: Some(retry), ..Default::default() });
            assert_eq!(trail.rest(), Duration::from_millis(rest));
        }
    }
}
