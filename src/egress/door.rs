//! Sends one request and hands back the answer, whatever its status.
//!
//! Two clients stand behind the same door. The hot one does less for each request; the steady one
//! shares its connections with the whole daemon. Neither follows or decodes anything, and what is
//! sent again is only what a connection from the pool had not begun to carry when it was closed.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper_util::client::legacy::Client;

use super::connector::Connector;
use super::error::{EgressError, Trust};
use super::policy::AddressPolicy;
use crate::aside::IN_PLACE_MAX;

type HotClient = Client<Connector, Outbound>;

/// Whether a byte of a request may have been sent.
pub type Begun = Arc<AtomicBool>;

/// The body of a request. It is looked at before the first byte of the request is written, since the head
/// says how long it is; and not before there is a connection.
#[derive(Debug)]
pub(super) struct Outbound {
    whole: Full<Bytes>,
    begun: Begun,
}

impl hyper::body::Body for Outbound {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.begun.store(true, Ordering::Relaxed);
        Pin::new(&mut self.whole).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.begun.store(true, Ordering::Relaxed);
        self.whole.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.begun.store(true, Ordering::Relaxed);
        self.whole.size_hint()
    }
}

/// A way out. Clones share their pool of connections.
#[derive(Clone, Debug)]
pub struct Door {
    policy: AddressPolicy,
    trust: Trust,
    way: Way,
}

#[derive(Clone, Debug)]
enum Way {
    Steady(reqwest::Client),
    Hot(Arc<HotClient>),
}

/// What the server answers, as it comes. Dropping it ends the exchange.
#[derive(Debug)]
pub struct Body {
    source: Source,
    /// Bytes since others had their turn.
    at_once: usize,
}

#[derive(Debug)]
enum Source {
    Steady(reqwest::Body),
    Hot(Incoming),
}

impl Door {
    pub(super) fn steady(policy: AddressPolicy, trust: Trust, client: reqwest::Client) -> Door {
        Door { policy, trust, way: Way::Steady(client) }
    }

    pub(super) fn hot(policy: AddressPolicy, trust: Trust, client: HotClient) -> Door {
        Door { policy, trust, way: Way::Hot(Arc::new(client)) }
    }

    /// Sends the request, whose URI must be absolute, and waits for the head of the answer. There
    /// is no limit of time but the one for connecting.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, EgressError> {
        self.send_noting(request, &Begun::default()).await
    }

    /// The same, and notes when a byte of it may be sent from then on: whoever gives it up before that
    /// knows that nobody has received it.
    pub async fn send_noting(
        &self,
        request: Request<Bytes>,
        begun: &Begun,
    ) -> Result<Response<Body>, EgressError> {
        match &self.way {
            Way::Steady(client) => {
                let request = reqwest::Request::try_from(request)
                    .map_err(|error| EgressError::Unsendable { source: error.into() })?;
                self.policy.check(request.url())?;
                begun.store(true, Ordering::Relaxed);
                let sent = client.execute(request).await;
                let response = sent.map_err(|error| EgressError::from_steady(error, self.trust))?;
                let response = Response::<reqwest::Body>::from(response);
                Ok(response.map(|body| Body::of(Source::Steady(body))))
            }
            Way::Hot(client) => {
                self.check_destination(request.uri())?;
                let request =
                    request.map(|body| Outbound { whole: Full::new(body), begun: begun.clone() });
                let sent = client.request(request).await;
                let response = sent.map_err(|error| EgressError::from_hot(error, self.trust))?;
                Ok(response.map(|body| Body::of(Source::Hot(body))))
            }
        }
    }

    /// The connector takes for an address exactly what parses here, and asks the resolver, which
    /// judges by itself, about everything else: `127.1` and `0x7f.1` too. Parsing the whole URL
    /// once more for each call would cost more than it adds.
    fn check_destination(&self, uri: &Uri) -> Result<(), EgressError> {
        match uri.scheme_str() {
            Some("http" | "https") => {}
            scheme => {
                let scheme = scheme.unwrap_or_default().to_owned();
                return Err(EgressError::NotHttp { scheme });
            }
        }
        let Some(host) = uri.host() else { return Err(EgressError::NoHost) };
        let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match literal.unwrap_or(host).parse::<IpAddr>() {
            Ok(address) => {
                self.policy.verdict(address).map_err(|why| EgressError::Refused { address, why })
            }
            Err(_) => Ok(()),
        }
    }
}

impl Body {
    fn of(source: Source) -> Body {
        Body { source, at_once: 0 }
    }

    /// The next piece, in whatever size it came; `None` at the end. Trailers are passed over. Safe to be
    /// dropped while it waits.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, EgressError>> {
        if self.at_once >= IN_PLACE_MAX {
            // A body may come as fast as it is read, and others wait for this thread.
            self.at_once = 0;
            tokio::task::yield_now().await;
        }
        loop {
            let frame = match &mut self.source {
                Source::Steady(body) => body.frame().await?.map_err(EgressError::from_steady_body),
                Source::Hot(body) => body
                    .frame()
                    .await?
                    .map_err(|error| EgressError::Broken { source: error.into() }),
            };
            match frame.map(|frame| frame.into_data().ok()) {
                Ok(Some(data)) => {
                    self.at_once += data.len();
                    return Some(Ok(data));
                }
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// How many bytes are to come at least, as its sender says.
    fn declared(&self) -> usize {
        let hint = match &self.source {
            Source::Steady(body) => body.size_hint(),
            Source::Hot(body) => body.size_hint(),
        };
        usize::try_from(hint.lower()).unwrap_or(usize::MAX)
    }

    /// Everything that is still to come, if it is no more than `max` bytes.
    pub async fn collect(mut self, max: usize) -> Result<Bytes, EgressError> {
        let declared = self.declared();
        if declared > max {
            return Err(EgressError::TooLarge { max });
        }
        let mut first = Bytes::new();
        let mut rest = BytesMut::new();
        while let Some(chunk) = self.chunk().await {
            let chunk = chunk?;
            if first.len() + rest.len() + chunk.len() > max {
                return Err(EgressError::TooLarge { max });
            }
            // Most answers come in one piece, which then need not be copied.
            if first.is_empty() && rest.is_empty() {
                first = chunk;
                continue;
            }
            if rest.is_empty() {
                // All at once: a buffer that grows is there twice. What is reserved takes no memory before
                // it is used.
                rest.reserve(declared.max(first.len() + chunk.len()));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&chunk);
        }
        Ok(if rest.is_empty() { first } else { rest.freeze() })
    }
}
