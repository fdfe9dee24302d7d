//! The certificate authorities that a server is trusted by, where it names its own: text in, certificates
//! or what is wrong with them out.
//!
//! What is here is trusted in the place of the machine's store, never beside it. A server's
//! own certificate may be named, unless it is marked as an authority's. The dates of what signs are not looked
//! at in a handshake (RFC 5280, section 6.1), only those of what was signed.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer,
        pem::{PemObject, SectionKind},
    },
};
use time::{OffsetDateTime, PrimitiveDateTime, format_description::StaticFormatDescription};

/// One server's certificates. More are a machine's, and belong into its store.
pub const CERTIFICATES_MAX: usize = 32;
/// Of the text as a whole.
pub const BYTES_MAX: usize = 64 * 1024;

/// What may be there, for whoever has written something else.
pub const ACCEPTED: &str =
    "PEM with 1 to 32 certificates and nothing else, at most 65536 bytes; or null";

/// Certificates that are trusted, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
}

/// Why a text names none. It never repeats what may be secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAuthorities {
    #[error("has more than {BYTES_MAX} bytes")]
    TooLong,
    #[error("has more than {CERTIFICATES_MAX} certificates")]
    TooMany,
    #[error("holds a private key, which is nobody's but the server's own; have it made anew")]
    PrivateKey,
    #[error("holds something else than certificates")]
    Foreign,
    #[error("is not PEM")]
    NotPem,
    #[error("holds no certificate")]
    Empty,
    #[error("the {number}. certificate cannot be read")]
    Unreadable { number: usize },
}

impl Authorities {
    /// Reads PEM. Text between the certificates is passed over, as RFC 7468 has it.
    ///
    /// # Errors
    /// The first thing that is wrong; a private key before all else.
    pub fn parse(text: &str) -> Result<Authorities, BadAuthorities> {
        let labels =
            || text.lines().filter_map(|line| line.trim_start().strip_prefix("-----BEGIN "));
        if labels().any(|label| label.contains("PRIVATE KEY")) {
            return Err(BadAuthorities::PrivateKey);
        }
        if text.len() > BYTES_MAX {
            return Err(BadAuthorities::TooLong);
        }
        if text.contains('\0') {
            return Err(BadAuthorities::NotPem);
        }
        if labels().any(|label| label.trim_end() != "CERTIFICATE-----") {
            return Err(BadAuthorities::Foreign);
        }
        let mut certificates = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
            let (_, der) = section.map_err(|_| BadAuthorities::NotPem)?;
            if certificates.len() == CERTIFICATES_MAX {
                return Err(BadAuthorities::TooMany);
            }
            certificates.push(CertificateDer::from(der));
            let number = certificates.len();
            let can_be_trusted = certificates.last().is_some_and(is_readable);
            if !can_be_trusted {
                return Err(BadAuthorities::Unreadable { number });
            }
        }
        match (certificates.is_empty(), text.trim().is_empty()) {
            (false, _) => Ok(Authorities { certificates }),
            (true, true) => Err(BadAuthorities::Empty),
            (true, false) => Err(BadAuthorities::NotPem),
        }
    }

    /// Which of them have expired, counted from 1, and when.
    pub fn expired(&self, now: OffsetDateTime) -> Vec<(usize, OffsetDateTime)> {
        let ends = self.certificates.iter().map(|certificate| valid_until(certificate));
        let numbered = ends.enumerate().filter_map(|(index, end)| Some((index + 1, end?)));
        numbered.filter(|(_, end)| *end < now).collect()
    }

    /// What is to be said of `text` at `now`, if it names authorities that will not do, or not for long.
    pub fn complaint(text: &str, now: OffsetDateTime) -> Option<String> {
        let authorities = match Authorities::parse(text) {
            Ok(authorities) => authorities,
            Err(error) => return Some(format!("`ca_certificates` {error}")),
        };
        let (number, end) = authorities.expired(now).into_iter().next()?;
        let end = end.date();
        Some(format!("the {number}. certificate of `ca_certificates` expired on {end}"))
    }

    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// TLS that trusts these alone. Its sessions are nobody else's: one that is resumed is not judged again.
    pub(super) fn tls(&self) -> Result<ClientConfig, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.certificates {
            roots.add(certificate.clone())?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

fn is_readable(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

/// `notAfter` of a certificate (RFC 5280, section 4.1).
fn valid_until(certificate: &[u8]) -> Option<OffsetDateTime> {
    const VERSION: u8 = 0xa0;
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    const DATE: StaticFormatDescription =
        time::macros::format_description!("[year][month][day][hour][minute][second]Z");

    let (_, certificate, _) = element(certificate)?;
    let (_, signed, _) = element(certificate)?;
    let mut rest = match element(signed)? {
        (VERSION, _, rest) => rest,
        _ => signed,
    };
    for _serial_algorithm_issuer in 0..3 {
        (_, _, rest) = element(rest)?;
    }
    let (_, validity, _) = element(rest)?;
    let (_, _, rest) = element(validity)?;
    let (tag, text, _) = element(rest)?;
    let text = std::str::from_utf8(text).ok()?;
    let text = match tag {
        GENERALIZED_TIME => text.to_owned(),
        // Two digits of the year: from 1950 to 2049.
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        _ => return None,
    };
    PrimitiveDateTime::parse(&text, DATE).ok().map(PrimitiveDateTime::assume_utc)
}

/// The first element of DER: its tag, what it holds, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // More bytes of length than four are no certificate's.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((tag, inside, after))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use time::macros::datetime;

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn only_certificates_are_taken_and_the_rest_says_what_it_is() {
        let good = certificate(|_| {});
        let key = KeyPair::generate().unwrap().serialize_pem();
        let line = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let cut = good.replace("-----END CERTIFICATE-----", "");
        use BadAuthorities::*;
        for (name, text, expected) in [
            ("one", good.clone(), Ok(1)),
            ("two", format!("{good}{good}"), Ok(2)),
            (
                "with words between them",
                format!("# Our CA\nsubject=x\n{good}\n\n# ü\n{good}"),
                Ok(2),
            ),
            ("lines as Windows ends them", good.replace('\n', "\r\n"), Ok(1)),
            ("as many as may be", good.repeat(CERTIFICATES_MAX), Ok(CERTIFICATES_MAX)),
            ("too many", good.repeat(CERTIFICATES_MAX + 1), Err(TooMany)),
            ("too long", format!("{good}{}", "#".repeat(BYTES_MAX)), Err(TooLong)),
            ("nothing", String::new(), Err(Empty)),
            ("blank", " \n\t\n".into(), Err(Empty)),
            ("words", "trust everybody".into(), Err(NotPem)),
            ("a path", "/etc/ssl/ca.pem".into(), Err(NotPem)),
            ("cut off", cut, Err(NotPem)),
            ("no base64", good.replace("MII", "M!I"), Err(NotPem)),
            ("a NUL", format!("{good}\0"), Err(NotPem)),
            ("no certificate inside", line("CERTIFICATE"), Err(Unreadable { number: 1 })),
            (
                "a bad second one",
                format!("{good}{}", line("CERTIFICATE")),
                Err(Unreadable { number: 2 }),
            ),
            ("a key", key.clone(), Err(PrivateKey)),
            ("a key behind it", format!("{good}{key}"), Err(PrivateKey)),
            ("an old key", line("RSA PRIVATE KEY"), Err(PrivateKey)),
            ("a locked key", line("ENCRYPTED PRIVATE KEY"), Err(PrivateKey)),
            ("a key after too much", format!("{}\n{key}", "#".repeat(BYTES_MAX)), Err(PrivateKey)),
            ("a request", line("CERTIFICATE REQUEST"), Err(Foreign)),
            ("what only openssl reads", line("TRUSTED CERTIFICATE"), Err(Foreign)),
        ] {
            let parsed = Authorities::parse(&text);
            assert_eq!(parsed.map(|parsed| parsed.certificates.len()), expected, "{name}");
        }
    }

    #[test]
    fn those_that_have_expired_are_found_with_their_date() {
        let until = |year: i32| certificate(|params| params.not_after = date_time_ymd(year, 6, 1));
        // Dates to 2049 and from 2050 on are written in two ways.
        let text = [2001, 2049, 2050, 2900].map(until).concat();
        let authorities = Authorities::parse(&text).unwrap();
        let first = (1, datetime!(2001-06-01 0:00 UTC));
        assert_eq!(authorities.expired(datetime!(2026-01-01 0:00 UTC)), [first]);
        let expired = authorities.expired(datetime!(2051-01-01 0:00 UTC));
        let later = [(2, datetime!(2049-06-01 0:00 UTC)), (3, datetime!(2050-06-01 0:00 UTC))];
        assert_eq!(expired, [&[first][..], &later].concat());
    }

    #[test]
    fn what_will_not_do_is_complained_of() {
        let old = certificate(|params| params.not_after = date_time_ymd(2001, 6, 1));
        let good = certificate(|_| {});
        for (text, expected) in [
            (good.clone(), None),
            (
                format!("{good}{old}"),
                Some("the 2. certificate of `ca_certificates` expired on 2001-06-01"),
            ),
            ("x".to_owned(), Some("`ca_certificates` is not PEM")),
        ] {
            let complaint = Authorities::complaint(&text, datetime!(2026-01-01 0:00 UTC));
            assert_eq!(complaint.as_deref(), expected);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_date() {
        let authorities = Authorities::parse(&certificate(|_| {})).unwrap();
        let whole: &[u8] = &authorities.certificates[0];
        assert!(valid_until(whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(valid_until(&whole[..end]), None, "{end}");
        }
        assert_eq!(valid_until(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(valid_until(&[0x30, 0x80]), None);
    }
}
