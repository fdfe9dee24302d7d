//! Looks names up, and lets through only the addresses that may be connected to.
//!
//! Both HTTP clients use it and connect to nothing but what it returns, so that a name which
//! resolves differently the next time gains nothing. Addresses that a URL spells out never come
//! here; the door judges them.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tower_service::Service;

use super::EgressOptions;
use super::error::{Cause, NotResolved, WhyNotResolved};
use super::policy::AddressPolicy;

/// Asks the operating system, which may take its time.
type Ask = fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Clones ask so many names at once together.
#[derive(Clone, Debug)]
pub struct JudgingResolver {
    policy: AddressPolicy,
    patience: Duration,
    /// Each takes a thread until it is answered, whether anybody waits for it or not.
    turns: Arc<Semaphore>,
    ask: Ask,
}

type Lookup = Pin<Box<dyn Future<Output = Result<vec::IntoIter<SocketAddr>, NotResolved>> + Send>>;

impl JudgingResolver {
    pub fn new(options: &EgressOptions) -> JudgingResolver {
        JudgingResolver {
            policy: options.policy(),
            patience: options.resolve_timeout,
            turns: Arc::new(Semaphore::new(options.resolves_max)),
            // The port is the connector's to fill in.
            ask: |name| Ok((name, 0).to_socket_addrs()?.collect()),
        }
    }

    fn look_up(&self, name: String) -> Lookup {
        let resolver = self.clone();
        Box::pin(async move {
            let found = match timeout(resolver.patience, resolver.addresses(&name)).await {
                Ok(found) => found,
                Err(_elapsed) => {
                    metrics::counter!("metamcpd_limit_hit_total", "limit" => "egress.resolve_timeout")
                        .increment(1);
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
                }
            };
            let allowed = match found {
                Ok(addresses) => resolver.policy.allowed(addresses),
                Err(error) => Err(unknown(&error)),
            };
            allowed.map(Vec::into_iter).map_err(|why| NotResolved { name, why })
        })
    }

    async fn addresses(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        let turn = self.turns.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (ask, name) = (self.ask, name.to_owned());
        let asking = tokio::task::spawn_blocking(move || {
            let found = ask(&name);
            drop(turn);
            found
        });
        asking.await.map_err(io::Error::other)?
    }
}

impl AddressPolicy {
    fn allowed(
        self,
        addresses: impl IntoIterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, WhyNotResolved> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.verdict(address.ip()) {
                Ok(()) => allowed.push(address),
                Err(why) => {
                    refused.get_or_insert(WhyNotResolved::Refused { address: address.ip(), why });
                }
            }
        }
        if !allowed.is_empty() {
            return Ok(allowed);
        }
        let no_addresses = || unknown(&io::Error::new(io::ErrorKind::NotFound, "no addresses"));
        Err(refused.unwrap_or_else(no_addresses))
    }
}

impl Service<Name> for JudgingResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = NotResolved;
    type Future = Lookup;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), NotResolved>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Lookup {
        self.look_up(name.as_str().to_owned())
    }
}

impl Resolve for JudgingResolver {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let lookup = self.look_up(name.as_str().to_owned());
        Box::pin(async move {
            let addresses: Addrs = Box::new(lookup.await.map_err(Cause::from)?);
            Ok(addresses)
        })
    }
}

fn unknown(error: &io::Error) -> WhyNotResolved {
    WhyNotResolved::Unknown { kind: error.kind(), text: error.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::egress::Refusal;

    fn allowed(addresses: &[&str]) -> Result<Vec<SocketAddr>, WhyNotResolved> {
        let policy = AddressPolicy { allow_loopback: false, allow_private: false };
        policy.allowed(addresses.iter().map(|address| address.parse().unwrap()))
    }

    fn slow(patience: Duration, ask: Ask) -> JudgingResolver {
        let options =
            EgressOptions { resolve_timeout: patience, resolves_max: 2, ..Default::default() };
        JudgingResolver { ask, ..JudgingResolver::new(&options) }
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_in_time_is_given_up_and_says_so() {
        let mute = slow(Duration::from_millis(20), |_| {
            std::thread::sleep(Duration::from_millis(500));
            Ok(Vec::new())
        });
        let began = tokio::time::Instant::now();
        let NotResolved { name, why } = mute.look_up("mute.example".into()).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_millis(450), "{:?}", began.elapsed());
        assert_eq!(name, "mute.example");
        let WhyNotResolved::Unknown { kind, text } = why else { panic!("{why:?}") };
        assert_eq!((kind, &*text), (io::ErrorKind::TimedOut, "no answer in time"));
    }

    #[tokio::test]
    async fn names_that_are_slow_take_no_more_threads_than_they_may() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        static AT_ONCE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let resolver = slow(Duration::from_secs(10), |_| {
            MOST.fetch_max(AT_ONCE.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(20));
            AT_ONCE.fetch_sub(1, SeqCst);
            Ok(vec!["127.0.0.1:0".parse().unwrap()])
        });
        let lookups = (0..8).map(|number| resolver.look_up(format!("{number}.example")));
        for found in futures_util::future::join_all(lookups).await {
            assert_eq!(found.unwrap().count(), 1);
        }
        assert_eq!(MOST.load(SeqCst), 2);
    }

    #[test]
    fn a_name_with_good_and_bad_addresses_keeps_the_good_ones() {
        let kept = allowed(&["127.0.0.1:0", "93.184.215.14:0", "[::1]:0", "8.8.8.8:0"]).unwrap();
        assert_eq!(kept, ["93.184.215.14:0".parse().unwrap(), "8.8.8.8:0".parse().unwrap()]);
    }

    #[test]
    fn a_name_with_only_bad_addresses_is_refused_by_the_first() {
        let refused = allowed(&["169.254.169.254:0", "[::1]:0"]);
        assert!(matches!(
            refused,
            Err(WhyNotResolved::Refused { address, why: Refusal::LinkLocal })
                if address.to_string() == "169.254.169.254"
        ));
    }

    #[test]
    fn a_name_without_addresses_is_unknown() {
        assert!(matches!(allowed(&[]), Err(WhyNotResolved::Unknown { .. })));
    }
}
