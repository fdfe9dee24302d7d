//! Tests of the faulty network, against a server that echoes.

use std::io::ErrorKind;

use super::*;

/// A server that sends back what it is sent.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((socket, _)) = listener.accept() {
            thread::spawn(move || {
                let mut writer = socket.try_clone().unwrap();
                std::io::copy(&mut &socket, &mut writer).ok();
            });
        }
    });
    address
}

fn through(weather: Weather) -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo(), Schedule::Always(weather)).unwrap();
    let socket = TcpStream::connect(proxy.address()).unwrap();
    // Only a guard against a test that would hang.
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (proxy, socket)
}

fn ask(mut socket: &TcpStream, words: &[u8]) -> std::io::Result<Vec<u8>> {
    socket.write_all(words)?;
    let mut answer = vec![0; words.len()];
    socket.read_exact(&mut answer).map(|()| answer)
}

#[test]
fn in_fair_weather_everything_passes() {
    let (_proxy, socket) = through(Weather::Fair);
    assert_eq!(ask(&socket, b"hello").unwrap(), b"hello");
}

#[test]
fn a_connection_is_cut_at_the_byte_that_was_said() {
    let (_proxy, mut socket) = through(Weather::CutAfter(3));
    socket.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"hel");
}

#[test]
fn a_reset_is_no_orderly_end() {
    let (_proxy, mut socket) = through(Weather::ResetAfter(3));
    socket.write_all(b"hello").unwrap();
    let mut answer = Vec::new();
    let error = socket.read_to_end(&mut answer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_stall_and_a_half_open_connection_are_silent() {
    for weather in [Weather::StallAfter(0), Weather::HalfOpen] {
        let (_proxy, mut socket) = through(weather);
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket.write_all(b"hello").unwrap();
        let error = socket.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{weather:?}");
    }
}

#[test]
fn orders_hold_for_connections_that_are_open() {
    let (proxy, mut socket) = through(Weather::Fair);
    assert_eq!(ask(&socket, b"one").unwrap(), b"one");

    proxy.order(Order::Stall);
    socket.write_all(b"two").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);

    proxy.order(Order::Pass);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answer = [0; 3];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"two");

    proxy.end_all(Ending::Reset);
    assert_eq!(socket.read(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_port_that_refuses_listens_again() {
    let (proxy, _socket) = through(Weather::Fair);
    proxy.order(Order::Refuse);
    let refused = (0..1_000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        TcpStream::connect(proxy.address())
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
    assert!(refused);

    proxy.order(Order::Pass);
    let back = (0..1_000).any(|_| {
        thread::sleep(Duration::from_millis(5));
        TcpStream::connect(proxy.address())
            .is_ok_and(|socket| ask(&socket, b"hi").is_ok_and(|answer| answer == b"hi"))
    });
    assert!(back);
}

#[test]
fn the_same_seed_has_the_same_weather() {
    let of = |seed| {
        let schedule = Schedule::Seeded { seed, bad: 500 };
        (0..1_000).map(|number| schedule.of(number)).collect::<Vec<Weather>>()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    let fair = of(1).iter().filter(|weather| **weather == Weather::Fair).count();
    assert!((400..600).contains(&fair), "{fair}");
}
