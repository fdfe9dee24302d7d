//! Looks names up, and lets through only the addresses that may be connected to.
//!
//! Both HTTP clients use it and connect to nothing but what it returns, so that a name which
//! resolves differently the next time gains nothing. Addresses that a URL spells out never come
//! here; the door judges them. Who is asked how often, and what is remembered, is `lookups`' affair.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tower_service::Service;

use super::EgressOptions;
use super::error::{Cause, NotResolved, WhyNotResolved};
use super::lookups::{Ask, Failure, Lookups};
use super::policy::AddressPolicy;

/// Clones look up together.
#[derive(Clone, Debug)]
pub struct JudgingResolver {
    policy: AddressPolicy,
    lookups: Lookups,
}

type Lookup = Pin<Box<dyn Future<Output = Result<vec::IntoIter<SocketAddr>, NotResolved>> + Send>>;

impl JudgingResolver {
    pub fn new(options: &EgressOptions) -> JudgingResolver {
        // The port is the connector's to fill in.
        JudgingResolver::asking(options, |name| Ok((name, 0).to_socket_addrs()?.collect()))
    }

    fn asking(options: &EgressOptions, ask: Ask) -> JudgingResolver {
        JudgingResolver { policy: options.policy(), lookups: Lookups::new(options, ask) }
    }

    fn look_up(&self, name: String) -> Lookup {
        let resolver = self.clone();
        Box::pin(async move {
            let found = resolver.lookups.addresses(&name).await;
            let allowed = match found {
                // What is remembered is judged like what is new.
                Ok(addresses) => resolver.policy.allowed(addresses.iter().copied()),
                Err(failure) => Err(unknown(&failure)),
            };
            allowed.map(Vec::into_iter).map_err(|why| NotResolved { name, why })
        })
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
        let no_addresses = || {
            let text = "no addresses".to_owned();
            WhyNotResolved::Unknown { kind: io::ErrorKind::NotFound, text }
        };
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

fn unknown(failure: &Failure) -> WhyNotResolved {
    WhyNotResolved::Unknown { kind: failure.kind, text: failure.text.clone() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::egress::Refusal;

    fn allowed(addresses: &[&str]) -> Result<Vec<SocketAddr>, WhyNotResolved> {
        let policy = AddressPolicy { allow_loopback: false, allow_private: false };
        policy.allowed(addresses.iter().map(|address| address.parse().unwrap()))
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_in_time_is_given_up_and_says_so() {
        let patience = Duration::from_millis(20);
        let options = EgressOptions { resolve_timeout: patience, ..Default::default() };
        let mute = JudgingResolver::asking(&options, |_| {
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
    async fn an_address_that_is_remembered_is_judged_again() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
        static IS_DOWN: AtomicBool = AtomicBool::new(false);
        let mut resolver =
            JudgingResolver::asking(&EgressOptions::default(), |_| match IS_DOWN.load(SeqCst) {
                true => Err(io::ErrorKind::TimedOut.into()),
                false => Ok(vec!["127.0.0.1:0".parse().unwrap()]),
            });
        assert_eq!(resolver.look_up("a.example".into()).await.unwrap().count(), 1);
        IS_DOWN.store(true, SeqCst);
        assert_eq!(resolver.look_up("a.example".into()).await.unwrap().count(), 1);
        resolver.policy.allow_loopback = false;
        let refused = resolver.look_up("a.example".into()).await.unwrap_err();
        let is_loopback =
            matches!(refused.why, WhyNotResolved::Refused { why: Refusal::Loopback, .. });
        assert!(is_loopback, "{refused:?}");
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
