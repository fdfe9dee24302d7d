//! A network that fails: it stands before a server, and cuts, delays, stalls or refuses what passes.
//!
//! What becomes of the n-th connection is decided by a seed alone ([`Schedule`]), so that a run can be
//! had again; what becomes of all of them from now on is ordered by a test ([`Proxy::order`]).

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::sockopt;

use crate::{Outcome, dice::Dice};

/// How a connection is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Everything takes so much longer, each way.
    Latency(Duration),
    /// The connection is closed once so many bytes came back.
    CutAfter(u64),
    /// The same by a reset.
    ResetAfter(u64),
    /// Nothing passes any more once so many bytes came back; the connection stays.
    StallAfter(u64),
    /// What the client sends vanishes, and it never hears of it.
    HalfOpen,
    /// What comes back comes by so many bytes a second.
    Drip(u64),
    /// The connection is closed before anything passes.
    Hangup,
}

/// Which weather the connections have, one after the other.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// The same for all.
    Always(Weather),
    /// By a seed: so many of a thousand connections have bad weather of a kind that the seed chooses.
    Seeded { seed: u64, bad: u64 },
}

impl Schedule {
    /// The weather of a connection, by its number.
    pub fn of(&self, number: u64) -> Weather {
        let (seed, bad) = match self {
            Schedule::Always(weather) => return *weather,
            Schedule::Seeded { seed, bad } => (*seed, *bad),
        };
        let mut dice = Dice::new(seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        if dice.below(1_000) >= bad {
            return Weather::Fair;
        }
        let bytes = dice.below(4_096);
        match dice.below(7) {
            0 => Weather::Latency(Duration::from_millis(1 + dice.below(100))),
            1 => Weather::CutAfter(bytes),
            2 => Weather::ResetAfter(bytes),
            3 => Weather::StallAfter(bytes),
            4 => Weather::HalfOpen,
            5 => Weather::Drip(256 + dice.below(4_096)),
            _ => Weather::Hangup,
        }
    }
}

/// What is ordered for all connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Everything passes, by its own weather.
    Pass,
    /// Nothing passes, either way, until another order.
    Stall,
    /// Nobody listens on the port.
    Refuse,
}

/// How the connections that are open end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Close,
    Reset,
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    address: SocketAddr,
    schedule: Schedule,
    order: Mutex<(Order, bool)>,
    changed: Condvar,
    open: Mutex<Vec<Arc<Pair>>>,
    accepted: AtomicU64,
}

/// A connection of a client, and the one that was made for it.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Whether it is to end by a reset, before which nothing else may be said of its end.
    is_reset: AtomicBool,
}

/// A running proxy. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

impl Proxy {
    /// Starts one before `target`, on a port of its own.
    pub fn start(target: SocketAddr, schedule: Schedule) -> Outcome<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            address: listener.local_addr()?,
            schedule,
            order: Mutex::new((Order::Pass, false)),
            changed: Condvar::new(),
            open: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(listener, &accepting));
        Ok(Proxy { shared })
    }

    /// Where clients are to connect.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Sends connections that come from now on elsewhere: to a server that was started anew.
    pub fn aim(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Orders what becomes of everything from now on.
    pub fn order(&self, order: Order) {
        let before = std::mem::replace(&mut self.shared.order().0, order);
        self.shared.changed.notify_all();
        if order == Order::Refuse && before != Order::Refuse {
            self.shared.wake();
        }
    }

    /// Ends every connection that is open.
    pub fn end_all(&self, ending: Ending) {
        let open = std::mem::take(&mut *self.shared.open());
        open.iter().for_each(|pair| pair.end(ending));
        self.shared.changed.notify_all();
    }

    /// How many connections it was given.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.order().1 = true;
        self.shared.changed.notify_all();
        self.shared.wake();
        self.end_all(Ending::Close);
    }
}

impl Pair {
    fn end(&self, ending: Ending) {
        self.is_reset.store(ending == Ending::Reset, Ordering::SeqCst);
        for socket in [&self.client, &self.server] {
            let how = match ending {
                Ending::Close => Shutdown::Both,
                // Whoever reads from it wakes without a word to the other side, which hears of the end by
                // the reset that comes when the last handle is dropped.
                Ending::Reset => {
                    sockopt::set_socket_linger(socket, Some(Duration::ZERO)).ok();
                    Shutdown::Read
                }
            };
            // It may have ended by itself.
            socket.shutdown(how).ok();
        }
    }
}

impl Shared {
    fn order(&self) -> MutexGuard<'_, (Order, bool)> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Vec<Arc<Pair>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever accepts, so that it looks at the order.
    fn wake(&self) {
        TcpStream::connect(self.address).ok();
    }

    /// Waits while an order holds; whether the proxy goes on.
    fn wait_while(&self, order: Order) -> bool {
        let mut now = self.order();
        while now.0 == order && !now.1 {
            now = self.changed.wait(now).unwrap_or_else(PoisonError::into_inner);
        }
        !now.1
    }
}

fn accept(listener: TcpListener, shared: &Arc<Shared>) {
    let mut listener = Some(listener);
    loop {
        if shared.order().1 {
            return;
        }
        if shared.order().0 == Order::Refuse {
            drop(listener.take());
            if !shared.wait_while(Order::Refuse) {
                return;
            }
        }
        let Some(listening) = &listener else {
            // The port is our own, but whoever was just refused may still be in its way.
            listener = TcpListener::bind(shared.address).ok();
            thread::sleep(Duration::from_millis(u64::from(listener.is_none()) * 5));
            continue;
        };
        let Ok((client, _)) = listening.accept() else { return };
        if shared.order().0 == Order::Refuse || shared.order().1 {
            continue;
        }
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        let (weather, shared) = (shared.schedule.of(number), Arc::clone(shared));
        thread::spawn(move || join(&shared, client, weather));
    }
}

/// Joins a client to the server for as long as both live.
fn join(shared: &Arc<Shared>, client: TcpStream, weather: Weather) {
    if weather == Weather::Hangup {
        return;
    }
    let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(server) = TcpStream::connect(target) else { return };
    // Where even that fails the connection is a little slower.
    client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).ok();
    let pair = Arc::new(Pair { client, server, is_reset: AtomicBool::new(false) });
    shared.open().push(Arc::clone(&pair));
    let (there, back) = (Arc::clone(&pair), Arc::clone(&pair));
    let (one, other) = (Arc::clone(shared), Arc::clone(shared));
    let sending = thread::spawn(move || carry(&one, &there, weather, true));
    carry(&other, &back, weather, false);
    drop(back);
    drop(sending.join());
    shared.open().retain(|open| !Arc::ptr_eq(open, &pair));
}

/// Carries bytes one way until either side ends. `there` is the way to the server.
fn carry(shared: &Shared, pair: &Pair, weather: Weather, there: bool) {
    let (mut from, mut to) = match there {
        true => (&pair.client, &pair.server),
        false => (&pair.server, &pair.client),
    };
    let limit = match weather {
        Weather::CutAfter(bytes) | Weather::ResetAfter(bytes) | Weather::StallAfter(bytes)
            if !there =>
        {
            Some(bytes)
        }
        _ => None,
    };
    let mut passed = 0_u64;
    let mut buffer = [0_u8; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !shared.wait_while(Order::Stall) {
            break;
        }
        let mut bytes = &buffer[..count];
        if weather == Weather::HalfOpen {
            continue;
        }
        if let Some(limit) = limit {
            let left = usize::try_from(limit - passed).unwrap_or(usize::MAX);
            bytes = &bytes[..left.min(count)];
        }
        if !send(&mut to, bytes, weather, there) {
            break;
        }
        passed += bytes.len() as u64;
        if limit == Some(passed) {
            match weather {
                Weather::ResetAfter(_) => {
                    sockopt::set_socket_linger(to, Some(Duration::ZERO)).ok();
                    to.shutdown(Shutdown::Read).ok();
                    from.shutdown(Shutdown::Both).ok();
                    return;
                }
                // It reads on, and says nothing.
                Weather::StallAfter(_) => while let Ok(1..) = from.read(&mut buffer) {},
                _ => {
                    from.shutdown(Shutdown::Both).ok();
                    break;
                }
            }
        }
    }
    if !pair.is_reset.load(Ordering::SeqCst) {
        to.shutdown(Shutdown::Both).ok();
    }
}

/// Sends bytes on as the weather has it; whether they could be sent.
fn send(to: &mut &TcpStream, bytes: &[u8], weather: Weather, there: bool) -> bool {
    match weather {
        Weather::Latency(more) => {
            thread::sleep(more);
            to.write_all(bytes).is_ok()
        }
        Weather::Drip(rate) if !there => {
            // In steps that a thread can wake for.
            let step = usize::try_from(rate / 100).unwrap_or(1).max(1);
            bytes.chunks(step).all(|piece| {
                thread::sleep(Duration::from_millis(10));
                to.write_all(piece).is_ok()
            })
        }
        _ => to.write_all(bytes).is_ok(),
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
