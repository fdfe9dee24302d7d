//! Decides which addresses may be connected to.
//!
//! Pure. An address that carries another one inside, as the transitions from IPv4 to IPv6 made
//! many, is judged by what it carries. What is in none of these tables and not assigned for
//! global use is refused too. Names are not its business; see the resolver.
//!
//! The ranges are those of the IANA special-purpose registries (RFC 6890 and its updates).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the operator allows beyond the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPolicy {
    /// 127.0.0.0/8 and ::1.
    pub allow_loopback: bool,
    /// RFC 1918, shared address space (RFC 6598) and unique local addresses (RFC 4193).
    pub allow_private: bool,
}

/// Why an address is not connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is this machine's own")]
    Loopback,
    #[error("it is in a private network")]
    Private,
    #[error("it names no machine")]
    Unspecified,
    /// The services that tell a virtual machine its own credentials.
    #[error("it is a cloud's metadata service")]
    Metadata,
    #[error("it is link-local, where a cloud's metadata service may answer")]
    LinkLocal,
    #[error("it is a multicast or broadcast address")]
    Multicast,
    #[error("it is reserved for documentation")]
    Documentation,
    #[error("it is reserved")]
    Reserved,
}

impl AddressPolicy {
    /// Whether `address` may be connected to.
    pub fn verdict(self, address: IpAddr) -> Result<(), Refusal> {
        match address {
            IpAddr::V4(address) => self.verdict_v4(address),
            IpAddr::V6(address) => self.verdict_v6(address),
        }
    }

    fn verdict_v4(self, address: Ipv4Addr) -> Result<(), Refusal> {
        match address.octets() {
            [100, 100, 100, 200] | [168, 63, 129, 16] => Err(Refusal::Metadata),
            [0, ..] => Err(Refusal::Unspecified),
            [127, ..] => self.loopback(),
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => self.private(),
            [169, 254, ..] => Err(Refusal::LinkLocal),
            [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Err(Refusal::Documentation),
            [224..=239, ..] | [255, 255, 255, 255] => Err(Refusal::Multicast),
            // Protocol assignments, the relays of 6to4, benchmarks, and what was never given out.
            [192, 0, 0, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [240..=255, ..] => {
                Err(Refusal::Reserved)
            }
            _ => Ok(()),
        }
    }

    fn verdict_v6(self, address: Ipv6Addr) -> Result<(), Refusal> {
        match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => Err(Refusal::Unspecified),
            [0, 0, 0, 0, 0, 0, 0, 1] => self.loopback(),
            // Mapped, translated (RFC 6052's forebear) and compatible; then NAT64 and 6to4.
            [0, 0, 0, 0, 0, 0xffff, high, low]
            | [0, 0, 0, 0, 0xffff, 0, high, low]
            | [0, 0, 0, 0, 0, 0, high, low]
            | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
            | [0x2002, high, low, ..] => self.verdict_v4(embedded(high, low)),
            // Teredo names its server as it is and its client with every bit turned round.
            [0x2001, 0, server_high, server_low, _, _, high, low] => self
                .verdict_v4(embedded(server_high, server_low))
                .and_then(|()| self.verdict_v4(embedded(!high, !low))),

            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
                Err(Refusal::Metadata)
            }
            [0xfc00..=0xfdff, ..] => self.private(),
            [0xfe80..=0xfebf, ..] => Err(Refusal::LinkLocal),
            [0xff00..=0xffff, ..] => Err(Refusal::Multicast),
            [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Err(Refusal::Documentation),
            // Protocol assignments: benchmarks, identifiers that are not addresses, and the like.
            [0x2001, 0..=0x1ff, ..] => Err(Refusal::Reserved),
            [0x2000..=0x3fff, ..] => Ok(()),
            _ => Err(Refusal::Reserved),
        }
    }

    fn loopback(self) -> Result<(), Refusal> {
        if self.allow_loopback { Ok(()) } else { Err(Refusal::Loopback) }
    }

    fn private(self) -> Result<(), Refusal> {
        if self.allow_private { Ok(()) } else { Err(Refusal::Private) }
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const CLOSED: AddressPolicy = AddressPolicy { allow_loopback: false, allow_private: false };
    const OPEN: AddressPolicy = AddressPolicy { allow_loopback: true, allow_private: true };

    /// First address, last address, closed, open.
    type Row = (&'static str, &'static str, Result<(), Refusal>, Result<(), Refusal>);

    const fn never(why: Refusal) -> (Result<(), Refusal>, Result<(), Refusal>) {
        (Err(why), Err(why))
    }

    const fn row(
        first: &'static str,
        last: &'static str,
        verdicts: (Result<(), Refusal>, Result<(), Refusal>),
    ) -> Row {
        (first, last, verdicts.0, verdicts.1)
    }

    const ALWAYS: (Result<(), Refusal>, Result<(), Refusal>) = (Ok(()), Ok(()));
    const LOOPBACK: (Result<(), Refusal>, Result<(), Refusal>) = (Err(Refusal::Loopback), Ok(()));
    const PRIVATE: (Result<(), Refusal>, Result<(), Refusal>) = (Err(Refusal::Private), Ok(()));

    /// The whole of IPv4, without a gap.
    const V4: &[Row] = &[
        row("0.0.0.0", "0.255.255.255", never(Refusal::Unspecified)),
        row("1.0.0.0", "9.255.255.255", ALWAYS),
        row("10.0.0.0", "10.255.255.255", PRIVATE),
        row("11.0.0.0", "100.63.255.255", ALWAYS),
        row("100.64.0.0", "100.100.100.199", PRIVATE),
        row("100.100.100.200", "100.100.100.200", never(Refusal::Metadata)),
        row("100.100.100.201", "100.127.255.255", PRIVATE),
        row("100.128.0.0", "126.255.255.255", ALWAYS),
        row("127.0.0.0", "127.255.255.255", LOOPBACK),
        row("128.0.0.0", "168.63.129.15", ALWAYS),
        row("168.63.129.16", "168.63.129.16", never(Refusal::Metadata)),
        row("168.63.129.17", "169.253.255.255", ALWAYS),
        row("169.254.0.0", "169.254.255.255", never(Refusal::LinkLocal)),
        row("169.255.0.0", "172.15.255.255", ALWAYS),
        row("172.16.0.0", "172.31.255.255", PRIVATE),
        row("172.32.0.0", "191.255.255.255", ALWAYS),
        row("192.0.0.0", "192.0.0.255", never(Refusal::Reserved)),
        row("192.0.1.0", "192.0.1.255", ALWAYS),
        row("192.0.2.0", "192.0.2.255", never(Refusal::Documentation)),
        row("192.0.3.0", "192.88.98.255", ALWAYS),
        row("192.88.99.0", "192.88.99.255", never(Refusal::Reserved)),
        row("192.88.100.0", "192.167.255.255", ALWAYS),
        row("192.168.0.0", "192.168.255.255", PRIVATE),
        row("192.169.0.0", "198.17.255.255", ALWAYS),
        row("198.18.0.0", "198.19.255.255", never(Refusal::Reserved)),
        row("198.20.0.0", "198.51.99.255", ALWAYS),
        row("198.51.100.0", "198.51.100.255", never(Refusal::Documentation)),
        row("198.51.101.0", "203.0.112.255", ALWAYS),
        row("203.0.113.0", "203.0.113.255", never(Refusal::Documentation)),
        row("203.0.114.0", "223.255.255.255", ALWAYS),
        row("224.0.0.0", "239.255.255.255", never(Refusal::Multicast)),
        row("240.0.0.0", "255.255.255.254", never(Refusal::Reserved)),
        row("255.255.255.255", "255.255.255.255", never(Refusal::Multicast)),
    ];

    const V6: &[Row] = &[
        row("::", "::", never(Refusal::Unspecified)),
        row("::1", "::1", LOOPBACK),
        row("::ffff:127.0.0.1", "::ffff:127.255.255.255", LOOPBACK),
        row("::ffff:169.254.169.254", "::ffff:169.254.169.254", never(Refusal::LinkLocal)),
        row("::ffff:0:10.0.0.1", "::ffff:0:10.0.0.1", PRIVATE),
        row("::7f00:1", "::7f00:1", LOOPBACK),
        row("64:ff9b::a9fe:a9fe", "64:ff9b::a9fe:a9fe", never(Refusal::LinkLocal)),
        row("64:ff9b::808:808", "64:ff9b::808:808", ALWAYS),
        row("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("100::", "100::ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("2001::f7f7:f7f7", "2001::f7f7:f7f7", never(Refusal::Unspecified)),
        row("2001:0:808:808::80ff:fffe", "2001:0:808:808::80ff:fffe", LOOPBACK),
        row("2001:0:7f00:1::f7f7:f7f7", "2001:0:7f00:1::f7f7:f7f7", LOOPBACK),
        row("2001:0:808:808::f7f7:f7f7", "2001:0:808:808::f7f7:f7f7", ALWAYS),
        row("2001:1::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("2001:200::", "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", ALWAYS),
        row("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Documentation)),
        row("2001:db9::", "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ALWAYS),
        row("2002:a9fe:a9fe::1", "2002:a9fe:a9fe::ffff", never(Refusal::LinkLocal)),
        row("2002:7f00:1::", "2002:7f00:1::1", LOOPBACK),
        row("2002:808:808::", "2002:808:808::1", ALWAYS),
        row("2003::", "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ALWAYS),
        row("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Documentation)),
        row("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("fc00::", "fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIVATE),
        row("fd00:ec2::253", "fd00:ec2::253", PRIVATE),
        row("fd00:ec2::254", "fd00:ec2::254", never(Refusal::Metadata)),
        row("fd20:ce::254", "fd20:ce::254", never(Refusal::Metadata)),
        row("fdff::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIVATE),
        row("fe00::", "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::LinkLocal)),
        row("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Reserved)),
        row("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", never(Refusal::Multicast)),
    ];

    #[test]
    fn every_range_is_judged_alike_from_its_first_address_to_its_last() {
        for (first, last, closed, open) in V4.iter().chain(V6) {
            for address in [first, last] {
                let address: IpAddr = address.parse().unwrap();
                assert_eq!(CLOSED.verdict(address), *closed, "{address}");
                assert_eq!(OPEN.verdict(address), *open, "{address}");
            }
        }
    }

    #[test]
    fn one_permission_does_not_give_the_other() {
        let loopback = AddressPolicy { allow_loopback: true, allow_private: false };
        let private = AddressPolicy { allow_loopback: false, allow_private: true };
        let home: IpAddr = "127.0.0.1".parse().unwrap();
        let office: IpAddr = "192.168.1.1".parse().unwrap();
        assert_eq!(loopback.verdict(home), Ok(()));
        assert_eq!(loopback.verdict(office), Err(Refusal::Private));
        assert_eq!(private.verdict(home), Err(Refusal::Loopback));
        assert_eq!(private.verdict(office), Ok(()));
    }

    fn expected_v4(address: Ipv4Addr) -> (Result<(), Refusal>, Result<(), Refusal>) {
        let row = V4.iter().find(|(first, last, ..)| {
            let (first, last): (Ipv4Addr, Ipv4Addr) =
                (first.parse().unwrap(), last.parse().unwrap());
            (first..=last).contains(&address)
        });
        let (_, _, closed, open) = row.unwrap();
        (*closed, *open)
    }

    proptest! {
        #[test]
        fn any_ipv4_address_is_judged_as_the_table_says(bits: u32) {
            let address = Ipv4Addr::from_bits(bits);
            let (closed, open) = expected_v4(address);
            prop_assert_eq!(CLOSED.verdict(address.into()), closed);
            prop_assert_eq!(OPEN.verdict(address.into()), open);
        }

        #[test]
        fn an_ipv4_address_is_judged_alike_in_every_disguise(bits: u32, subnet: u16, host: u64) {
            let [high, low] = [(bits >> 16) as u16, bits as u16];
            // These two are no addresses of IPv4 but of IPv6.
            prop_assume!(bits > 1);
            let disguises = [
                Ipv4Addr::from_bits(bits).to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::from_bits(
                    0x2002 << 112 | u128::from(bits) << 80 | u128::from(subnet) << 64 | u128::from(host)
                ),
                Ipv6Addr::new(0x2001, 0, 0x808, 0x808, subnet, 0, !high, !low),
            ];
            for disguise in disguises {
                prop_assert_eq!(
                    CLOSED.verdict(disguise.into()),
                    CLOSED.verdict(Ipv4Addr::from_bits(bits).into()),
                    "{}", disguise
                );
            }
        }

        #[test]
        fn outside_of_global_unicast_only_what_was_allowed_gets_through(bits: u128) {
            let address = Ipv6Addr::from_bits(bits);
            let global = (0x2000..=0x3fff).contains(&address.segments()[0]);
            prop_assert!(global || address.segments()[0] == 0 || CLOSED.verdict(address.into()).is_err());
        }
    }
}
