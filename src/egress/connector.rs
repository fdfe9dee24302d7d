//! Makes connections for the hot door: judged name, TCP, TLS, all within one time limit.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use tokio::net::TcpStream;
use tower_service::Service;

use super::EgressOptions;
use super::authorities::Authorities;
use super::error::Cause;
use super::resolver::JudgingResolver;

/// Clones share the certificate store and the TLS sessions, and nothing else.
#[derive(Clone, Debug)]
pub struct Connector {
    inner: HttpsConnector<HttpConnector<JudgingResolver>>,
    patience: Duration,
}

impl Connector {
    /// Trusts `authorities` alone, and speaks nothing but TLS then; without them, whom the machine trusts.
    pub fn new(
        resolver: JudgingResolver,
        options: &EgressOptions,
        authorities: Option<&Authorities>,
    ) -> io::Result<Connector> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(options.tcp_keepalive));
        tcp.set_keepalive_interval(Some(options.tcp_keepalive_interval));
        tcp.set_keepalive_retries(Some(options.tcp_keepalive_retries));
        tcp.set_tcp_user_timeout(options.user_timeout());
        // Shared out among the addresses of a name, so that a dead first one does not use it up.
        tcp.set_connect_timeout(Some(options.connect_timeout));
        let builder = HttpsConnectorBuilder::new();
        let builder = match authorities {
            Some(authorities) => {
                let config = authorities.tls().map_err(io::Error::other)?;
                builder.with_tls_config(config).https_only()
            }
            // Named here, because where two providers are linked in rustls refuses to choose.
            None => builder
                .with_provider_and_platform_verifier(Arc::new(aws_lc_rs::default_provider()))?
                .https_or_http(),
        };
        let inner = builder.enable_all_versions().wrap_connector(tcp);
        Ok(Connector { inner, patience: options.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Cause;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Cause>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, destination: Uri) -> Self::Future {
        let connection = tokio::time::timeout(self.patience, self.inner.call(destination));
        Box::pin(async move {
            match connection.await {
                Ok(connection) => connection,
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rustix::net::sockopt;

    use super::*;

    /// A peer that is gone without a word, by which calls and streams would wait for ever otherwise.
    #[tokio::test]
    async fn the_kernel_is_told_to_notice_a_peer_that_is_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        for user_timeout in [Duration::from_secs(30), Duration::ZERO] {
            let options = EgressOptions { tcp_user_timeout: user_timeout, ..Default::default() };
            let mut connector =
                Connector::new(JudgingResolver::new(&options), &options, None).unwrap();
            let made = connector.call(url.parse().unwrap()).await.unwrap();
            let MaybeHttpsStream::Http(stream) = made else { panic!("it is not secure") };
            let socket = stream.inner();
            assert!(sockopt::socket_keepalive(socket).unwrap());
            assert_eq!(sockopt::tcp_keepidle(socket).unwrap(), Duration::from_secs(30));
            assert_eq!(sockopt::tcp_keepintvl(socket).unwrap(), Duration::from_secs(10));
            assert_eq!(sockopt::tcp_keepcnt(socket).unwrap(), 3);
            let millis = u32::try_from(user_timeout.as_millis()).unwrap();
            assert_eq!(sockopt::tcp_user_timeout(socket).unwrap(), millis);
            assert!(sockopt::tcp_nodelay(socket).unwrap());
        }
    }
}
