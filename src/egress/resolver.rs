//! Looks names up, and lets through only the addresses that may be connected to.
//!
//! Both HTTP clients use it and connect to nothing but what it returns, so that a name which
//! resolves differently the next time gains nothing. Addresses that a URL spells out never come
//! here; the door judges them.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tower_service::Service;

use super::error::{Cause, NotResolved, WhyNotResolved};
use super::policy::AddressPolicy;

#[derive(Clone, Copy, Debug)]
pub struct JudgingResolver {
    policy: AddressPolicy,
}

type Lookup = Pin<Box<dyn Future<Output = Result<vec::IntoIter<SocketAddr>, NotResolved>> + Send>>;

impl JudgingResolver {
    pub fn new(policy: AddressPolicy) -> JudgingResolver {
        JudgingResolver { policy }
    }

    fn look_up(self, name: String) -> Lookup {
        Box::pin(async move {
            // The port is the connector's to fill in.
            let allowed = match tokio::net::lookup_host((name.as_str(), 0)).await {
                Ok(addresses) => self.allowed(addresses),
                Err(error) => Err(unknown(&error)),
            };
            allowed.map(Vec::into_iter).map_err(|why| NotResolved { name, why })
        })
    }

    fn allowed(
        self,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Result<Vec<SocketAddr>, WhyNotResolved> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in addresses {
            match self.policy.verdict(address.ip()) {
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
        let addresses = addresses.iter().map(|address| address.parse().unwrap());
        JudgingResolver::new(policy).allowed(addresses)
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
