//! Which addresses may be connected to, by the longest prefix of a table that was written from the
//! registries of special-purpose addresses, and by what an address carries inside.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use metamcpd::egress::{AddressPolicy, Egress, EgressError, EgressOptions};
use url::Url;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Global,
    Loopback,
    Private,
    Never,
}

use Place::{Global, Loopback, Never, Private};

const V4: &[(&str, u32, Place)] = &[
    ("0.0.0.0", 0, Global),
    ("0.0.0.0", 8, Never),
    ("10.0.0.0", 8, Private),
    ("100.64.0.0", 10, Private),
    ("100.100.100.200", 32, Never),
    ("127.0.0.0", 8, Loopback),
    ("168.63.129.16", 32, Never),
    ("169.254.0.0", 16, Never),
    ("172.16.0.0", 12, Private),
    ("192.0.0.0", 24, Never),
    ("192.0.2.0", 24, Never),
    ("192.88.99.0", 24, Never),
    ("192.168.0.0", 16, Private),
    ("198.18.0.0", 15, Never),
    ("198.51.100.0", 24, Never),
    ("203.0.113.0", 24, Never),
    ("224.0.0.0", 3, Never),
];

const V6: &[(&str, u32, Place)] = &[
    ("::", 0, Never),
    ("::1", 128, Loopback),
    ("2000::", 3, Global),
    ("2001::", 23, Never),
    ("2001:db8::", 32, Never),
    ("3fff::", 20, Never),
    ("fc00::", 7, Private),
    ("fd00:ec2::254", 128, Never),
    ("fd20:ce::254", 128, Never),
];

/// Prefixes under which an address of IPv4 lies, and how many bits from the right.
const CARRIERS: &[(&str, u32, u32)] = &[
    ("::", 96, 0),
    ("::ffff:0:0", 96, 0),
    ("::ffff:0:0:0", 96, 0),
    ("64:ff9b::", 96, 0),
    ("2002::", 16, 80),
];

fn is_below(bits: u128, width: u32, prefix: u128, length: u32) -> bool {
    length == 0 || (bits ^ prefix) >> (width - length) == 0
}

fn place_v4(address: Ipv4Addr) -> Place {
    let bits = u128::from(address.to_bits());
    let prefix = |text: &str| u128::from(text.parse::<Ipv4Addr>().expect("an address").to_bits());
    let fitting = V4.iter().filter(|(text, length, _)| is_below(bits, 32, prefix(text), *length));
    fitting.max_by_key(|(_, length, _)| *length).expect("a row").2
}

/// The places that an address names. Only who may reach each of them may reach it.
fn places_v6(address: Ipv6Addr) -> Vec<Place> {
    let bits = address.to_bits();
    let prefix = |text: &str| text.parse::<Ipv6Addr>().expect("an address").to_bits();
    if bits <= 1 {
        return vec![if bits == 1 { Loopback } else { Never }];
    }
    let carries =
        |(text, length, _): &&(&str, u32, u32)| is_below(bits, 128, prefix(text), *length);
    if let Some((_, _, shift)) = CARRIERS.iter().find(carries) {
        return vec![place_v4(Ipv4Addr::from_bits((bits >> shift) as u32))];
    }
    // Teredo: a server as it is, and a client with every bit turned round.
    if is_below(bits, 128, prefix("2001::"), 32) {
        let parts = [(bits >> 64) as u32, !(bits as u32)];
        return parts.map(|part| place_v4(Ipv4Addr::from_bits(part))).to_vec();
    }
    let fitting = V6.iter().filter(|(text, length, _)| is_below(bits, 128, prefix(text), *length));
    vec![fitting.max_by_key(|(_, length, _)| *length).expect("a row").2]
}

fn may_be_reached(address: IpAddr, allow_loopback: bool, allow_private: bool) -> bool {
    let places = match address {
        IpAddr::V4(address) => vec![place_v4(address)],
        IpAddr::V6(address) => places_v6(address),
    };
    places.into_iter().all(|place| match place {
        Global => true,
        Loopback => allow_loopback,
        Private => allow_private,
        Never => false,
    })
}

/// Every pair of permissions.
const PERMISSIONS: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

fn judge(address: IpAddr) {
    for (allow_loopback, allow_private) in PERMISSIONS {
        let policy = AddressPolicy { allow_loopback, allow_private };
        let expected = may_be_reached(address, allow_loopback, allow_private);
        assert_eq!(policy.verdict(address).is_ok(), expected, "{address} {policy:?}");
    }
}

/// The bytes are an address of IPv6, what is missing of it being zero; and one of IPv4, as it is and
/// in each of its disguises.
pub fn address(bytes: &[u8]) {
    let mut wide = [0; 16];
    let length = bytes.len().min(16);
    wide[..length].copy_from_slice(&bytes[..length]);
    judge(Ipv6Addr::from(wide).into());
    let narrow = Ipv4Addr::new(wide[0], wide[1], wide[2], wide[3]);
    judge(narrow.into());
    let teredo =
        0x2001 << 112 | u128::from(u32::from_be_bytes([wide[4], wide[5], wide[6], wide[7]])) << 64;
    judge(Ipv6Addr::from_bits(teredo | u128::from(!narrow.to_bits())).into());
    for (prefix, _, shift) in CARRIERS {
        let prefix = prefix.parse::<Ipv6Addr>().expect("an address").to_bits();
        judge(Ipv6Addr::from_bits(prefix | u128::from(narrow.to_bits()) << shift).into());
    }
}

/// The door with nothing allowed but the public internet.
static CLOSED: LazyLock<Egress> = LazyLock::new(|| {
    let options =
        EgressOptions { allow_loopback: false, allow_private: false, ..EgressOptions::default() };
    Egress::new(&options).expect("a door")
});

fn is_let_through(url: &Url) -> bool {
    match CLOSED.check(url) {
        Ok(()) => true,
        Err(EgressError::Refused { .. } | EgressError::NotHttp { .. } | EgressError::NoHost) => {
            false
        }
        Err(other) => panic!("{url}: {other}"),
    }
}

/// The bytes are a URL, and an address in every spelling that a URL may have.
pub fn url(bytes: &[u8]) {
    if let Ok(url) = Url::parse(&String::from_utf8_lossy(bytes)) {
        let host = url.host_str().unwrap_or_default();
        let literal =
            host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let expected = matches!(url.scheme(), "http" | "https")
            && literal.parse().map_or(true, |address| may_be_reached(address, false, false));
        assert_eq!(is_let_through(&url), expected, "{url}");
    }
    let mut four = [0; 4];
    let length = bytes.len().min(4);
    four[..length].copy_from_slice(&bytes[..length]);
    let [a, b, c, d] = four;
    let all = u32::from_be_bytes(four);
    let expected = may_be_reached(Ipv4Addr::from(four).into(), false, false);
    for spelt in [
        format!("{a}.{b}.{c}.{d}"),
        format!("0x{a:x}.0{b:o}.{c}.0X{d:X}"),
        format!("{a}.{b}.{}", all & 0xffff),
        format!("{a}.{}", all & 0xff_ffff),
        format!("{all}"),
        format!("0x{all:08x}"),
        format!("0{all:o}."),
        format!("%{:02x}{}", b'0' + a / 100, format_args!("{:02}.{b}.{c}.{d}", a % 100)),
    ] {
        let Ok(url) = Url::parse(&format!("http://{spelt}/")) else { continue };
        // Three digits with a zero before them are octal, which is another address or none.
        if url.host_str() == Some(&*Ipv4Addr::from(four).to_string()) {
            assert_eq!(is_let_through(&url), expected, "{spelt}");
        }
    }
}
