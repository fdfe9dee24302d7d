//! Which connections may come in: not so many that none of our own files can be opened any more, and not
//! all of them from one address.
//!
//! A connection that is one too many is answered by a word where it asks something, and cut where even
//! that would take too much.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    os::fd::AsRawFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpResponse, HttpResponseBuilder,
    dev::{Extensions, ServiceRequest},
    http::{StatusCode, header::RETRY_AFTER},
    rt::net::TcpStream,
};
use rustix::net::{Shutdown as Ways, shutdown, sockopt::set_tcp_user_timeout};
use tokio::time::Instant;

use crate::{failpoint, settings::ServerSettings};

/// How often it is logged that connections are refused.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// How many seconds whoever is refused is asked to wait.
const COME_BACK_AFTER: &str = "5";

pub struct Door {
    /// A connection with this file number, or a higher one, is refused.
    refused_from: usize,
    /// One with this number or a higher one is cut.
    cut_from: usize,
    per_address_max: usize,
    /// Addresses that many clients come from.
    proxies: Vec<IpAddr>,
    write_timeout: u32,
    open: Mutex<HashMap<IpAddr, usize>>,
    told: Mutex<Option<Instant>>,
}

/// A connection, for as long as it is open.
struct Visitor {
    refused: Option<Refused>,
    _seat: Option<Seat>,
}

/// A connection that is counted for its address.
struct Seat {
    door: Arc<Door>,
    address: IpAddr,
}

/// Why a connection is served nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// There are hardly any files left.
    Files,
    /// Its address has as many connections as one may.
    Address,
}

impl Door {
    /// `files_max`: how many files this process may have open.
    pub fn new(settings: &ServerSettings, files_max: usize) -> Arc<Self> {
        let reserve = settings.fd_reserve.min(files_max / 2);
        Arc::new(Self {
            refused_from: files_max - reserve,
            cut_from: files_max - reserve / 2,
            per_address_max: settings.connections_per_address_max,
            proxies: settings.proxies.iter().map(|address| address.to_canonical()).collect(),
            write_timeout: u32::try_from(settings.write_timeout.as_millis()).unwrap_or(u32::MAX),
            open: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// Meets a connection before anything was read from it. A panic would end the server thread that it
    /// is met on, and all the connections there: such a one is served without a limit instead.
    pub fn meet(self: &Arc<Self>, stream: &TcpStream, known: &mut Extensions) {
        // Where it happened, the log has already.
        drop(catch_unwind(AssertUnwindSafe(|| self.judge(stream, known))));
    }

    fn judge(self: &Arc<Self>, stream: &TcpStream, known: &mut Extensions) {
        failpoint::pass("door");
        self.limit_writes(stream);
        // The kernel gives the lowest number that is free, so that the number of a new file says how
        // many are open at least.
        let number = usize::try_from(stream.as_raw_fd()).unwrap_or_default();
        if number >= self.refused_from {
            self.tell("server.fd_reserve");
            if number >= self.cut_from
                && let Err(error) = shutdown(stream, Ways::Both)
            {
                tracing::debug!(%error, "a connection too many was gone already");
            }
            known.insert(Visitor { refused: Some(Refused::Files), _seat: None });
            return;
        }
        let address = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        let visitor = match address.filter(|address| !self.proxies.contains(address)) {
            None => Visitor { refused: None, _seat: None },
            Some(address) => match self.seat(network_of(address)) {
                Some(seat) => Visitor { refused: None, _seat: Some(seat) },
                None => {
                    self.tell("server.connections_per_address_max");
                    Visitor { refused: Some(Refused::Address), _seat: None }
                }
            },
        };
        known.insert(visitor);
    }

    fn seat(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Seat { door: self.clone(), address })
    }

    /// Has the kernel cut a connection whose client takes nothing for so long: the server itself waits
    /// for a slow reader without limit, and hears of it only by the connection's end.
    fn limit_writes(&self, stream: &TcpStream) {
        if let Err(error) = set_tcp_user_timeout(stream, self.write_timeout) {
            tracing::debug!(%error, "a connection is served without a limit for slow readers");
        }
    }

    fn tell(&self, limit: &'static str) {
        metrics::counter!("metamcpd_limit_hit_total", "limit" => limit).increment(1);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::warn!(limit, "connections are refused");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.door.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

/// What a connection that is one too many is answered, whatever it asks.
pub fn refusal(request: &ServiceRequest) -> Option<HttpResponse> {
    let refused = request.conn_data::<Visitor>()?.refused?;
    let (status, code, message) = match refused {
        Refused::Files => (
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "as many connections are open as this process may have (`server.fd_reserve`)",
        ),
        Refused::Address => (
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_connections",
            "this address has as many connections as one may (`server.connections_per_address_max`)",
        ),
    };
    let body = serde_json::json!({ "code": code, "message": message, "details": [] });
    let mut response = HttpResponseBuilder::new(status);
    response.insert_header((RETRY_AFTER, COME_BACK_AFTER)).force_close();
    Some(response.json(body))
}

/// Whoever has an IPv6 address has at least 2^64 of them.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::settings::Settings;

    #[test]
    fn one_address_has_so_many_seats_and_gives_them_back() {
        let mut settings = Settings::read(None).unwrap().server;
        settings.connections_per_address_max = 2;
        let door = Door::new(&settings, 1024);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let (first, second) = (door.seat(one), door.seat(one));
        assert!(first.is_some() && second.is_some() && door.seat(one).is_none());
        assert!(door.seat(other).is_some());
        drop(first);
        assert!(door.seat(one).is_some());
        drop(second);
        assert!(door.lock().is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2:3::4"), network("2001:db8:1:2:ffff::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }

    #[test]
    fn the_reserve_never_takes_more_than_half() {
        let settings = Settings::read(None).unwrap().server;
        let door = Door::new(&settings, 100);
        assert_eq!((door.refused_from, door.cut_from), (50, 75));
    }
}
