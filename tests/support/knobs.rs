//! What a remote upstream that is played can be told to do.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use super::remote::{Seen, lock};

/// Bearer tokens that are good just now, as whoever issues them and whoever accepts them share them.
pub type Bearers = Arc<Mutex<BTreeSet<String>>>;

/// Whether what was sent has the one bearer token that is wanted, or one of those that are.
pub fn may_enter(seen: &Seen, bearer: Option<&String>, bearers: Option<&Bearers>) -> bool {
    let sent = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.is_none_or(|token| sent == Some(token))
        && bearers.is_none_or(|good| sent.is_some_and(|sent| lock(good).contains(sent)))
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answers {
    #[default]
    Json,
    Sse,
    /// JSON without a Content-Type.
    Bare,
    /// JSON with parameters in its Content-Type, over several lines.
    Charset,
    /// Several documents that are called one, on several lines each.
    Documents,
    /// The same, a line each, in small pieces.
    ChunkedDocuments,
    /// Events without a name, with CRLF, comments, foreign events and a priming one.
    OddSse,
}

impl Answers {
    pub const ALL: [Answers; 7] = [
        Answers::Json,
        Answers::Sse,
        Answers::Bare,
        Answers::Charset,
        Answers::Documents,
        Answers::ChunkedDocuments,
        Answers::OddSse,
    ];

    /// Whether it can say anything before the answer.
    pub fn has_progress(self) -> bool {
        !matches!(self, Answers::Json | Answers::Bare | Answers::Charset)
    }
}

/// What may be turned while the upstream runs.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub answers: Answers,
    /// The bearer token without which everything is refused.
    pub bearer: Option<String>,
    /// The only revision of the protocol that it speaks; without it, whichever it is asked for. A request of
    /// another is answered 400.
    pub version: Option<&'static str>,
    /// Refuses every revision of the protocol in that way, the one that it has agreed to as well.
    pub refuses_all: bool,
    /// Those without one of which everything is refused.
    pub bearers: Option<Bearers>,
    /// Whether GET opens a stream; otherwise it is answered 405.
    pub streams: bool,
    /// Whether what is said on them has ids, by which they can be resumed.
    pub stream_ids: bool,
    /// Whether what is said on them has the same id, and none of them is ever taken up again.
    pub stream_ids_alike: bool,
    /// How long a GET waits for its head.
    pub stream_delay: Duration,
    /// How a GET is refused.
    pub stream_refusal: Option<(u16, &'static str)>,
    pub tools: Vec<String>,
    /// How long `initialize` takes.
    pub hello_delay: Duration,
    /// How long `tools/list` takes.
    pub list_delay: Duration,
    /// How a session is answered that is not known (any more).
    pub forgotten: (u16, String),
    /// The status of what needs no answer.
    pub noted: u16,
    /// Whether it has resources, `u://a` and `u://b`, that it can be subscribed to.
    pub resources: bool,
    /// Answers calls of tools with this status, and a `Retry-After` of so many seconds.
    pub trouble: Option<(u16, Option<u64>)>,
    /// Whether it has tasks, and a tool that has to be called as one.
    pub tasks: bool,
    /// Closes the stream of a call before its answer, so often.
    pub cuts: Option<Cuts>,
}

/// How the stream of a call is closed before its answer.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// How often, the first time included.
    pub times: usize,
    /// Whether events have ids, so that the stream can be resumed.
    pub ids: bool,
    /// The `retry` of the priming event, in milliseconds.
    pub retry: Option<u64>,
}

impl Default for Knobs {
    fn default() -> Knobs {
        let tools = ["echo", "steps"].map(str::to_owned).to_vec();
        let (hello_delay, list_delay) = (Duration::ZERO, Duration::ZERO);
        Knobs {
            answers: Answers::Json,
            bearer: None,
            version: None,
            refuses_all: false,
            bearers: None,
            streams: true,
            stream_ids: false,
            stream_ids_alike: false,
            stream_delay: Duration::ZERO,
            stream_refusal: None,
            tools,
            hello_delay,
            list_delay,
            forgotten: (404, "no such session".to_owned()),
            noted: 202,
            trouble: None,
            resources: false,
            tasks: false,
            cuts: None,
        }
    }
}
