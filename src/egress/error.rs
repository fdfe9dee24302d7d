//! Why an outbound request failed, and whether the other side can have received any of it.
//!
//! The two HTTP clients wrap a cause in several layers of their own; here it is dug out, so that
//! nobody else needs to know which client was used.

use std::error::Error;
use std::io;
use std::net::IpAddr;

use super::policy::Refusal;

/// What lies behind an error; shown in logs, never to clients.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Whose word a server's certificate has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Of whom the machine trusts.
    Machine,
    /// Of the authorities that were named for it, and of nobody else.
    Named,
}

#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("not connecting to {address}: {why}")]
    Refused { address: IpAddr, why: Refusal },
    #[error("not connecting by `{scheme}`, only by http and https")]
    NotHttp { scheme: String },
    #[error("the URL names no host")]
    NoHost,
    #[error("the request cannot be sent as it is")]
    Unsendable { source: Cause },
    #[error("the name {name} cannot be resolved")]
    Resolve { name: String, source: io::Error },
    #[error("the connection was refused")]
    ConnectRefused,
    #[error("no connection could be made in time")]
    ConnectTimeout,
    #[error("no connection could be made")]
    Connect { source: Cause },
    #[error("no secure connection could be made: {}", distrust(source, *trust))]
    Tls { source: Cause, trust: Trust },
    /// The connection was closed before the request was begun.
    #[error("the connection was closed at once")]
    NotBegun { source: Cause },
    /// The connection broke, or what came over it was not HTTP.
    #[error("the connection broke")]
    Broken { source: Cause },
    #[error("the body has more than {max} bytes")]
    TooLarge { max: usize },
    #[error("the HTTP clients cannot be set up")]
    Setup { source: Cause },
}

impl EgressError {
    /// Whether it is certain that the server has received nothing, so that sending the request
    /// again cannot do anything twice.
    pub fn not_sent(&self) -> bool {
        match self {
            EgressError::Refused { .. }
            | EgressError::NotHttp { .. }
            | EgressError::NoHost
            | EgressError::Unsendable { .. }
            | EgressError::Resolve { .. }
            | EgressError::ConnectRefused
            | EgressError::ConnectTimeout
            | EgressError::Connect { .. }
            | EgressError::Tls { .. }
            | EgressError::NotBegun { .. }
            | EgressError::Setup { .. } => true,
            EgressError::Broken { .. } | EgressError::TooLarge { .. } => false,
        }
    }

    /// Whether it was not sent for a cause that may be gone in a moment: nobody listens, or cannot be
    /// found. What we refuse to do, or to trust, is not.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            EgressError::Resolve { .. }
                | EgressError::ConnectRefused
                | EgressError::ConnectTimeout
                | EgressError::Connect { .. }
                | EgressError::NotBegun { .. }
        )
    }

    pub(super) fn from_hot(error: hyper_util::client::legacy::Error, trust: Trust) -> EgressError {
        if error.is_connect() {
            return EgressError::from_connecting(error.into(), trust);
        }
        EgressError::from_sending(error.into())
    }

    pub(super) fn from_steady(error: reqwest::Error, trust: Trust) -> EgressError {
        // The URL may carry a secret in its query, and the caller knows it anyway.
        let error = error.without_url();
        if error.is_builder() {
            return EgressError::Unsendable { source: error.into() };
        }
        if error.is_connect() && error.is_timeout() {
            return EgressError::ConnectTimeout;
        }
        if error.is_connect() {
            return EgressError::from_connecting(error.into(), trust);
        }
        EgressError::from_sending(error.into())
    }

    /// Of a body: there is a connection.
    pub(super) fn from_steady_body(error: reqwest::Error) -> EgressError {
        EgressError::from_sending(error.without_url().into())
    }

    /// hyper calls canceled what it has not begun to write.
    fn from_sending(error: Cause) -> EgressError {
        let begun = |cause: &hyper::Error| !cause.is_canceled();
        match find::<hyper::Error>(&*error).is_none_or(begun) {
            true => EgressError::Broken { source: error },
            false => EgressError::NotBegun { source: error },
        }
    }

    fn from_connecting(error: Cause, trust: Trust) -> EgressError {
        if let Some(NotResolved { name, why }) = find(&*error) {
            return why.to_error(name);
        }
        let is_distrusted = find::<rustls::Error>(&*error).is_some();
        match last::<io::Error>(&*error).map(|cause| (cause.kind(), cause.raw_os_error())) {
            Some((io::ErrorKind::ConnectionRefused, _)) => EgressError::ConnectRefused,
            Some((io::ErrorKind::TimedOut, _)) => EgressError::ConnectTimeout,
            // Whoever only goes away in the middle of the handshake has said nothing that could not be trusted.
            Some((io::ErrorKind::UnexpectedEof, None)) if !is_distrusted => {
                EgressError::Connect { source: error }
            }
            // Connecting fails by a word of the kernel's. The handshake is all that has words of its
            // own.
            Some((_, None)) => EgressError::Tls { source: error, trust },
            Some((_, Some(_))) | None => EgressError::Connect { source: error },
        }
    }
}

/// The first cause of this type.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

/// The last one: what has gone wrong during the handshake is wrapped in another of its kind.
fn last<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    causes(error).filter_map(|cause| cause.downcast_ref()).last()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn next<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        // What an I/O error wraps is not its source, but has one.
        let wrapped = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match wrapped {
            Some(wrapped) => Some(wrapped),
            None => cause.source(),
        }
    }
    std::iter::successors(Some(error), |cause| next(*cause))
}

/// Why a certificate, or a handshake, is not trusted, in words that say what to mend.
fn distrust(source: &Cause, trust: Trust) -> String {
    use rustls::{CertificateError, Error::InvalidCertificate};
    match find::<rustls::Error>(&**source) {
        Some(InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".into()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet".into()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another host".into()
            }
            CertificateError::UnknownIssuer => match trust {
                Trust::Machine => {
                    "its certificate is signed by nobody that this machine trusts".into()
                }
                Trust::Named => "its certificate is signed by none of those in `ca_certificates`, \
                                 and nobody else is trusted for it"
                    .into(),
            },
            other => format!("its certificate is not accepted: {other}"),
        },
        Some(other) => other.to_string(),
        None => "the handshake failed".into(),
    }
}

/// What our own resolver answers, on its way through the layers of an HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("{name} has no address to connect to")]
pub struct NotResolved {
    pub name: String,
    pub why: WhyNotResolved,
}

#[derive(Debug)]
pub enum WhyNotResolved {
    Refused { address: IpAddr, why: Refusal },
    Unknown { kind: io::ErrorKind, text: String },
}

impl WhyNotResolved {
    fn to_error(&self, name: &str) -> EgressError {
        match self {
            WhyNotResolved::Refused { address, why } => {
                EgressError::Refused { address: *address, why: *why }
            }
            WhyNotResolved::Unknown { kind, text } => EgressError::Resolve {
                name: name.to_owned(),
                source: io::Error::new(*kind, text.clone()),
            },
        }
    }
}
