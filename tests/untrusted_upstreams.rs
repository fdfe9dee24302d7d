//! Remote upstreams over TLS: one whose certificate is good is used, and any other is not, and says why.
//! None of them hears a word of HTTP.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use crate::support::{
    gateway::Start,
    remote::{Knobs, Remote},
};

/// Who signs, and whom the daemon is told to trust.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

type Certified = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    fn new(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn certify(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Certified {
        let (params, key) = wanted(host, change);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.der().clone(), secret(&key))
    }
}

fn wanted(host: &str, change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

fn secret(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

/// Ends TLS before a server that speaks plainly.
async fn before(server: &Remote, (certificate, key): Certified) -> SocketAddr {
    let behind: SocketAddr =
        server.url["http://".len()..server.url.len() - "/mcp".len()].parse().expect("an address");
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not trust it hangs up.
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Ok(mut plain) = TcpStream::connect(behind).await else { return };
                drop(copy_bidirectional(&mut stream, &mut plain).await);
            });
        }
    });
    address
}

/// Says these bytes to whoever comes, and hears them out.
async fn blunt(words: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                drop(stream.read(&mut [0; 4096]).await);
                drop(stream.write_all(words).await);
                drop(stream.read(&mut [0; 4096]).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn only_a_certificate_that_is_good_is_trusted_and_every_other_says_why_not() {
    let authority = Authority::new("the authority of this test");
    let folder = tempfile::tempdir().expect("a directory");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, &authority.pem).expect("the certificate of the authority");
    let gateway = Start::new()
        .settings(
            "[supervision]\nbackoff_max = \"100ms\"\nfailures_burst = 1000\nfailures_slow = 1000",
        )
        .environment("SSL_CERT_FILE", &trusted.display().to_string())
        .run()
        .await;

    let good = Remote::start(Knobs::default());
    let address = before(&good, authority.certify("localhost", |_| {})).await;
    gateway.remote("good", &format!("https://localhost:{}/mcp", address.port())).await;

    let unheard = Remote::start(Knobs::default());
    let expired = authority.certify("localhost", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let early = authority.certify("localhost", |params| {
        params.not_before = date_time_ymd(2900, 1, 1);
        params.not_after = date_time_ymd(2901, 1, 1);
    });
    let another = authority.certify("elsewhere.example", |_| {});
    let (params, key) = wanted("localhost", |_| {});
    let own = (params.self_signed(&key).expect("a certificate").der().clone(), secret(&key));
    let foreign = Authority::new("another authority").certify("localhost", |_| {});
    let cases = [
        ("expired", before(&unheard, expired).await, "its certificate has expired"),
        ("early", before(&unheard, early).await, "its certificate is not valid yet"),
        ("another", before(&unheard, another).await, "its certificate is for another host"),
        ("own", before(&unheard, own).await, "signed by nobody that this machine trusts"),
        ("foreign", before(&unheard, foreign).await, "signed by nobody that this machine trusts"),
        // What a server of TLS 1.1 says to who offers only 1.2 and later.
        ("old", blunt(b"\x15\x03\x02\x00\x02\x02\x46").await, "ProtocolVersion"),
        ("plain", blunt(b"HTTP/1.1 400 Bad Request\r\n\r\n").await, "no secure connection"),
    ];
    for (name, address, _) in &cases {
        gateway.remote(name, &format!("https://localhost:{}/mcp", address.port())).await;
    }
    for (name, _, words) in &cases {
        let shown =
            gateway.server_until(name, "refused", |server| server["error_status"] != "NONE").await;
        let history = gateway.history(name).await;
        let is_told = history.iter().any(|row| row["reason"] == "tls_failed");
        assert!(is_told, "{name}: {history:?}");
        let why = shown["runtime"]["last_error"].as_str().unwrap_or_default();
        assert!(why.contains(words), "{name}: {shown}");
    }
    assert!(
        unheard.seen().is_empty(),
        "nothing is said to who is not trusted: {:?}",
        unheard.seen()
    );

    gateway.ready("good").await;
    let client = gateway.client_of(&["good"]).await;
    assert_eq!(client.text_of("good__echo", json!({"value": "hi"})).await, "hi");
}
