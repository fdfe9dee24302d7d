//! Remote upstreams over TLS: one whose certificate is good is used, and any other is not, and says why.
//! None of them hears a word of HTTP. An upstream that names its authorities is trusted by those alone.

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
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
    TestGateway,
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

/// A gateway on a machine that trusts this authority alone, and does not wait long between its tries.
async fn trusting(authority: &Authority) -> TestGateway {
    let folder = tempfile::tempdir().expect("a directory");
    let trusted = folder.path().join("trusted.pem");
    std::fs::write(&trusted, &authority.pem).expect("the certificate of the authority");
    Start::new()
        .settings(
            "[supervision]\nbackoff_max = \"100ms\"\nfailures_burst = 1000\nfailures_slow = 1000",
        )
        .environment("SSL_CERT_FILE", &trusted.display().to_string())
        .run_in(folder)
        .await
}

fn url(address: SocketAddr) -> String {
    format!("https://localhost:{}/mcp", address.port())
}

/// Makes an upstream that names its authorities.
async fn named(gateway: &TestGateway, name: &str, address: SocketAddr, authorities: &str) {
    let row = json!({
        "name": name, "type": "STREAMABLE_HTTP", "url": url(address), "ca_certificates": authorities,
    });
    let made = gateway.create("mcp-servers", row).await;
    assert_eq!(made["ca_certificates"], authorities, "it is no secret");
}

/// Waits until it is not trusted, and says why in these words.
async fn refused(gateway: &TestGateway, name: &str, words: &str) {
    let is_refused = |server: &Value| {
        let why = server["runtime"]["last_error"].as_str().unwrap_or_default();
        server["error_status"] != "NONE" && why.contains(words)
    };
    gateway.server_until(name, words, is_refused).await;
    let history = gateway.history(name).await;
    assert!(history.iter().any(|row| row["reason"] == "tls_failed"), "{name}: {history:?}");
}

#[tokio::test]
async fn only_a_certificate_that_is_good_is_trusted_and_every_other_says_why_not() {
    let authority = Authority::new("the authority of this test");
    let gateway = trusting(&authority).await;

    let good = Remote::start(Knobs::default());
    let address = before(&good, authority.certify("localhost", |_| {})).await;
    gateway.remote("good", &url(address)).await;

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
        gateway.remote(name, &url(*address)).await;
    }
    for (name, _, words) in &cases {
        refused(&gateway, name, words).await;
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

#[tokio::test]
async fn an_upstream_that_names_its_authorities_is_trusted_by_those_and_no_other_is() {
    let (machines, own) = (Authority::new("the machine's"), Authority::new("its own"));
    let gateway = trusting(&machines).await;
    let server = Remote::start(Knobs::default());
    let address = before(&server, own.certify("localhost", |_| {})).await;

    named(&gateway, "named", address, &own.pem).await;
    gateway.ready("named").await;
    let client = gateway.client_of(&["named"]).await;
    let calls = (0..32).map(|_| client.text_of("named__echo", json!({"value": "hi"})));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer, "hi");
    }
    // The same server, to which there are connections now.
    gateway.remote("unnamed", &url(address)).await;
    refused(&gateway, "unnamed", "signed by nobody that this machine trusts").await;
    named(&gateway, "foreign", address, &machines.pem).await;
    refused(&gateway, "foreign", "signed by none of those in `ca_certificates`").await;
    let of_machine = before(&server, machines.certify("localhost", |_| {})).await;
    named(&gateway, "no_longer", of_machine, &own.pem).await;
    refused(&gateway, "no_longer", "signed by none of those in `ca_certificates`").await;
    gateway.remote("usual", &url(of_machine)).await;
    gateway.ready("usual").await;
    assert_eq!(client.text_of("named__echo", json!({"value": "still"})).await, "still");
}

#[tokio::test]
async fn authorities_that_are_added_heal_and_those_that_are_taken_away_are_missed() {
    let (machines, own) = (Authority::new("the machine's"), Authority::new("its own"));
    let gateway = trusting(&machines).await;
    let server = Remote::start(Knobs::default());
    let address = before(&server, own.certify("localhost", |_| {})).await;
    gateway.remote("it", &url(address)).await;
    refused(&gateway, "it", "signed by nobody that this machine trusts").await;

    let change =
        async |to: Value| gateway.change("mcp-servers/it", json!({"ca_certificates": to})).await;
    change(json!(own.pem)).await;
    gateway.ready("it").await;
    let client = gateway.client_of(&["it"]).await;
    assert_eq!(client.text_of("it__echo", json!({"value": "hi"})).await, "hi");

    // Whoever trusts others from now on has to be asked again.
    let before = server.seen_of("initialize").len();
    change(json!(format!("{}{}", machines.pem, own.pem))).await;
    gateway
        .server_until("it", "connected anew", |row| {
            row["runtime"]["state"] == "READY" && server.seen_of("initialize").len() > before
        })
        .await;
    assert_eq!(client.text_of("it__echo", json!({"value": "hi"})).await, "hi");

    let cleared = change(Value::Null).await;
    assert_eq!(cleared["ca_certificates"], Value::Null);
    refused(&gateway, "it", "signed by nobody that this machine trusts").await;
}

#[tokio::test]
async fn under_the_right_authority_a_bad_certificate_stays_bad() {
    let (machines, own) = (Authority::new("the machine's"), Authority::new("its own"));
    let gateway = trusting(&machines).await;
    let unheard = Remote::start(Knobs::default());
    let expired = own.certify("localhost", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let another = own.certify("elsewhere.example", |_| {});
    let (params, key) = wanted("localhost", |_| {});
    let itself = params.self_signed(&key).expect("a certificate");
    let (itself, itself_pem) = ((itself.der().clone(), secret(&key)), itself.pem());
    for (name, certified, words) in [
        ("expired", expired, "its certificate has expired"),
        ("another", another, "its certificate is for another host"),
    ] {
        named(&gateway, name, before(&unheard, certified).await, &own.pem).await;
        refused(&gateway, name, words).await;
    }
    assert!(unheard.seen().is_empty(), "nothing is said to who is not trusted");

    // A server that is signed by nobody can be named itself.
    let server = Remote::start(Knobs::default());
    named(&gateway, "itself", before(&server, itself).await, &itself_pem).await;
    gateway.ready("itself").await;
    let client = gateway.client_of(&["itself"]).await;
    assert_eq!(client.text_of("itself__echo", json!({"value": "hi"})).await, "hi");
}

#[tokio::test]
async fn what_names_no_authorities_is_refused_with_its_reason() {
    let own = Authority::new("its own");
    let gateway = TestGateway::start().await;
    let key = KeyPair::generate().expect("a key").serialize_pem();
    let https =
        json!({"type": "STREAMABLE_HTTP", "url": "https://localhost:9/mcp", "enabled": false});
    let http = json!({"type": "STREAMABLE_HTTP", "url": "http://localhost:9/mcp"});
    let process = json!({"type": "STDIO", "command": "cat"});
    for (row, authorities, words) in [
        (&https, "trust everybody".to_owned(), "is not PEM"),
        (&https, String::new(), "holds no certificate"),
        (&https, key.clone(), "holds a private key"),
        (&https, format!("{}{key}", own.pem), "holds a private key"),
        (&https, own.pem.repeat(33), "more than 32 certificates"),
        (&https, format!("{}{}", own.pem, "#".repeat(65536)), "more than 65536 bytes"),
        (&http, own.pem.clone(), "not https"),
        (&process, own.pem.clone(), "a STDIO server"),
    ] {
        let mut row = row.clone();
        row["name"] = json!("it");
        row["ca_certificates"] = json!(authorities);
        let (status, error) = gateway.admin(Method::POST, "mcp-servers", Some(row)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{words}: {error}");
        let details = error["details"].as_array().expect("details");
        let [detail] = &details[..] else { panic!("{words}: {error}") };
        assert_eq!(detail["field"], "ca_certificates", "{error}");
        assert!(
            detail["reason"].as_str().is_some_and(|why| why.contains(words)),
            "{words}: {error}"
        );
        assert!(detail["accepted"].is_string(), "{error}");
        assert!(!error.to_string().contains(&key[30..60]), "{error}");
    }

    let mut row = https.clone();
    row["name"] = json!("it");
    row["ca_certificates"] = json!(own.pem);
    gateway.create("mcp-servers", row).await;
    let to_process = json!({"type": "STDIO", "command": "cat"});
    let process = gateway.change("mcp-servers/it", to_process).await;
    assert_eq!(process["ca_certificates"], Value::Null, "a process has no certificate");
}
