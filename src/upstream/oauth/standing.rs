//! Decides what is to be done before a request is sent with a token, and after one was answered 401.
//!
//! It reads no clock and asks nobody: the times come with the question, and what came of asking is told
//! to it. A token that was refused is renewed once; one that is new and refused all the same is not,
//! for what is wrong then is no matter of its age.

use std::{sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::{OAuthOptions, Tokens, answer::Answer};
use crate::upstream::lifecycle::Uptime;

/// The times of a question.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub uptime: Uptime,
    /// By the clock on the wall, which `expires_at` goes by.
    pub wall: OffsetDateTime,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// The present token is to be sent.
    Use,
    /// A new one is to be had first.
    Refresh,
    /// No new one is to be had just now, and why.
    Rest(Arc<str>),
    /// None is to be had until a person does something, and why.
    GivenUp(Arc<str>),
}

/// How the tokens of one grant stand.
#[derive(Clone)]
pub struct Standing {
    tokens: Tokens,
    /// Which tokens these are, counted from those that were put in.
    generation: u64,
    /// The longest that the access token is renewed ahead: one that lives shortly is not due from its
    /// beginning.
    ahead_max: Duration,
    /// When the present token was had by a refresh and no request has been accepted with it yet.
    unproven_since: Option<Uptime>,
    /// The token endpoint said that it will give no more.
    dead: Option<Arc<str>>,
    /// Refreshes in a row that came to nothing, until when none is tried, and why.
    failures: u32,
    rest: Option<(Uptime, Arc<str>)>,
}

impl Standing {
    pub fn new(tokens: Tokens) -> Self {
        Self {
            tokens,
            generation: 0,
            ahead_max: Duration::MAX,
            unproven_since: None,
            dead: None,
            failures: 0,
            rest: None,
        }
    }

    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What is to be done before a request is sent or, where `refused` are the tokens that it was
    /// sent with and answered 401, before it is sent once more.
    pub fn need(&self, refused: Option<u64>, now: Moment, options: &OAuthOptions) -> Need {
        let has_token = self.tokens.access_token.is_some();
        match refused {
            Some(generation) if generation != self.generation && has_token => Need::Use,
            Some(_) => self.renewal(now, options),
            None if !has_token => self.renewal(now, options),
            None if self.is_due(now.wall, options) => {
                match self.renewal(now, options) {
                    // It may be good all the same, since clocks differ.
                    Need::Rest(_) | Need::GivenUp(_) => Need::Use,
                    need => need,
                }
            }
            None => Need::Use,
        }
    }

    fn is_due(&self, now: OffsetDateTime, options: &OAuthOptions) -> bool {
        let ahead = options.refresh_ahead.min(self.ahead_max);
        self.tokens.expires_at.is_some_and(|at| now.saturating_add(signed(ahead)) >= at)
    }

    /// Whether new tokens can be had.
    fn renewal(&self, now: Moment, options: &OAuthOptions) -> Need {
        if let Some(why) = &self.dead {
            return Need::GivenUp(why.clone());
        }
        if self.tokens.refresh_token.is_none() {
            return Need::GivenUp("its OAuth session has no refresh token".into());
        }
        let is_new = |since: Uptime| now.uptime.saturating_sub(since) < options.refused_rest;
        if self.unproven_since.is_some_and(is_new) {
            return Need::GivenUp("it refused a token that was just renewed".into());
        }
        match &self.rest {
            Some((until, why)) if now.uptime < *until => Need::Rest(why.clone()),
            Some(_) | None => Need::Refresh,
        }
    }

    /// A request was accepted with these tokens.
    pub fn accepted(&mut self, generation: u64) {
        if generation == self.generation {
            self.unproven_since = None;
        }
    }

    /// Whether that would tell anything new.
    pub fn is_unproven(&self) -> bool {
        self.unproven_since.is_some()
    }

    /// Takes note of what came of a refresh.
    pub fn settle(&mut self, answer: Answer, now: Moment, options: &OAuthOptions) {
        match answer {
            Answer::Granted(tokens) => {
                let lives = tokens.expires_at.map(|at| at - now.wall);
                let lives = lives.map(|lives| Duration::try_from(lives).unwrap_or_default());
                self.ahead_max = lives.unwrap_or(Duration::MAX) / 2;
                self.tokens = tokens;
                self.generation += 1;
                self.unproven_since = Some(now.uptime);
                (self.failures, self.rest) = (0, None);
            }
            Answer::Refused(said) => {
                let why = format!("its OAuth session has ended: the token endpoint said {said}");
                self.dead = Some(why.into());
            }
            Answer::Failed(said) => {
                let doublings = self.failures.min(16);
                let rest = options.retry_min.saturating_mul(1 << doublings).min(options.retry_max);
                self.failures = self.failures.saturating_add(1);
                self.rest = Some((now.uptime.saturating_add(rest), said.into()));
            }
        }
    }

    /// Others have taken its place. What is still sent with it must not use up what they are renewed by.
    pub fn retire(&mut self) {
        self.dead = Some("its OAuth session was replaced".into());
    }

    /// A person asks that it be tried again, whatever came of it before.
    pub fn forgive(&mut self) {
        (self.dead, self.unproven_since) = (None, None);
        (self.failures, self.rest) = (0, None);
    }
}

fn signed(duration: Duration) -> time::Duration {
    duration.try_into().unwrap_or(time::Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn options() -> OAuthOptions {
        OAuthOptions {
            refresh_timeout: SECOND,
            refresh_ahead: 60 * SECOND,
            retry_min: 5 * SECOND,
            retry_max: 15 * SECOND,
            refused_rest: 300 * SECOND,
            persist_wait: SECOND,
            answer_max: 1,
        }
    }

    fn at(seconds: u32) -> Moment {
        let uptime = seconds * SECOND;
        Moment { uptime, wall: OffsetDateTime::UNIX_EPOCH + uptime }
    }

    fn tokens(expires_at: Option<u32>) -> Tokens {
        Tokens {
            access_token: Some("a".into()),
            refresh_token: Some("r".into()),
            expires_at: expires_at.map(|seconds| at(seconds).wall),
            scope: None,
        }
    }

    /// In one word.
    fn need(standing: &Standing, refused: Option<u64>, seconds: u32) -> &'static str {
        match standing.need(refused, at(seconds), &options()) {
            Need::Use => "use",
            Need::Refresh => "refresh",
            Need::Rest(_) => "rest",
            Need::GivenUp(_) => "given up",
        }
    }

    #[test]
    fn a_token_is_renewed_when_it_is_refused_or_its_end_is_near() {
        let without = |change: fn(&mut Tokens)| {
            let mut tokens = tokens(Some(1_000));
            change(&mut tokens);
            tokens
        };
        let nothing = |_: &mut Tokens| {};
        let no_end = |tokens: &mut Tokens| tokens.expires_at = None;
        let no_refresh = |tokens: &mut Tokens| tokens.refresh_token = None;
        let no_access = |tokens: &mut Tokens| tokens.access_token = None;
        for (tokens, refused, seconds, expected) in [
            (without(nothing), None, 939, "use"),
            (without(nothing), None, 940, "refresh"),
            (without(nothing), None, 5_000, "refresh"),
            (without(nothing), Some(0), 1, "refresh"),
            (without(no_end), None, 5_000, "use"),
            (without(no_end), Some(0), 1, "refresh"),
            (without(no_refresh), None, 5_000, "use"),
            (without(no_refresh), Some(0), 1, "given up"),
            (without(no_access), None, 1, "refresh"),
        ] {
            let standing = Standing::new(tokens);
            assert_eq!(need(&standing, refused, seconds), expected, "{refused:?} {seconds}");
        }
    }

    #[test]
    fn who_was_refused_with_an_older_token_takes_the_present_one() {
        let mut standing = Standing::new(tokens(None));
        standing.settle(Answer::Granted(tokens(None)), at(1), &options());
        assert_eq!((need(&standing, Some(0), 1), standing.generation()), ("use", 1));
    }

    #[test]
    fn a_new_token_that_is_refused_is_not_renewed_until_it_has_proved_good_or_is_old() {
        let mut standing = Standing::new(tokens(None));
        standing.settle(Answer::Granted(tokens(None)), at(1), &options());
        assert_eq!(need(&standing, Some(1), 2), "given up");
        assert_eq!(need(&standing, None, 2), "use", "the probe asks the upstream itself");
        assert_eq!(need(&standing, Some(1), 301), "refresh");
        standing.accepted(0);
        assert_eq!(need(&standing, Some(1), 2), "given up", "that was another one");
        standing.accepted(1);
        assert_eq!(need(&standing, Some(1), 2), "refresh");
    }

    #[test]
    fn a_session_that_has_ended_stays_so_until_a_person_asks() {
        let mut standing = Standing::new(tokens(Some(10)));
        standing.settle(Answer::Refused("`invalid_grant`".into()), at(1), &options());
        for seconds in [1, 1_000_000] {
            assert_eq!(need(&standing, Some(0), seconds), "given up");
            assert_eq!(need(&standing, None, seconds), "use", "clocks may differ");
        }
        standing.forgive();
        assert_eq!(need(&standing, Some(0), 1), "refresh");
    }

    #[test]
    fn refreshes_that_come_to_nothing_are_tried_after_growing_rests() {
        let mut standing = Standing::new(tokens(Some(10)));
        let mut now = 100;
        for rest in [5, 10, 15, 15] {
            standing.settle(Answer::Failed("HTTP status 503".into()), at(now), &options());
            assert_eq!(need(&standing, Some(0), now + rest - 1), "rest");
            assert_eq!(need(&standing, None, now), "use", "it may be good all the same");
            now += rest;
            assert_eq!(need(&standing, Some(0), now), "refresh");
        }
        standing.settle(Answer::Granted(tokens(None)), at(now), &options());
        standing.settle(Answer::Failed("HTTP status 503".into()), at(now), &options());
        standing.accepted(1);
        assert_eq!(need(&standing, Some(1), now + 5), "refresh", "it was forgiven");
    }

    #[test]
    fn a_token_that_lives_shortly_is_not_due_from_its_beginning() {
        let mut standing = Standing::new(tokens(None));
        standing.settle(Answer::Granted(tokens(Some(120))), at(100), &options());
        standing.accepted(1);
        assert_eq!((need(&standing, None, 109), need(&standing, None, 110)), ("use", "refresh"));
    }
}
