//! The one door for outbound connections, from outside: real sockets on loopback, both ways out.
//!
//! The secure server is openssl's own, and is left out, loudly, where there is no openssl.

#![allow(clippy::unwrap_used)]

use std::env;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use metamcpd::egress::{Begun, Door, Egress, EgressError, EgressOptions, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

const PROXIED: &str = "EGRESS_TEST_SERVER";
const SECURED: &str = "EGRESS_TEST_SECURE_SERVER";
const OUTCOME: &str = "EGRESS_TEST_OUTCOME";

/// Answers every connection with the same bytes, and counts them.
struct Canary {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    async fn answering(answer: &'static str) -> Canary {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let mut head = [0; 4096];
                    if stream.read(&mut head).await.is_ok() {
                        stream.write_all(answer.as_bytes()).await.ok();
                    }
                });
            }
        });
        Canary { port, connections }
    }

    /// Ends every connection by a reset, once something has come on it.
    async fn resetting() -> Canary {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // With some of it unread.
                stream.readable().await.unwrap();
            }
        });
        Canary { port, connections: Arc::default() }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/mcp?a=b", self.port)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn egress(options: EgressOptions) -> Egress {
    Egress::new(&options).unwrap()
}

fn doors(egress: &Egress) -> [(&'static str, Door); 2] {
    [("steady", egress.steady()), ("hot", egress.hot())]
}

fn post(url: &str) -> Request<Bytes> {
    let request = Request::builder().method(Method::POST).uri(url).header("x-api-key", "secret");
    request.body(Bytes::from_static(b"{}")).unwrap()
}

#[tokio::test]
async fn no_spelling_of_loopback_is_connected_to_when_it_is_not_allowed() {
    let canary = Canary::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let egress = egress(EgressOptions { allow_loopback: false, ..EgressOptions::default() });
    let spellings = [
        "127.0.0.1",
        "127.0.0.2",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "127.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[::1]",
        "localhost",
        "LOCALHOST",
        "user:password@127.0.0.1",
    ];
    for spelling in spellings {
        for (door, way) in doors(&egress) {
            let refused = way.send(post(&canary.url(spelling))).await.unwrap_err();
            assert!(
                matches!(refused, EgressError::Refused { why: Refusal::Loopback, .. }),
                "{door} {spelling}: {refused:?}"
            );
            assert!(refused.not_sent());
        }
    }
    for nobody in ["0.0.0.0", "[::]", "0"] {
        for (door, way) in doors(&egress) {
            let refused = way.send(post(&canary.url(nobody))).await.unwrap_err();
            assert!(
                matches!(refused, EgressError::Refused { why: Refusal::Unspecified, .. }),
                "{door} {nobody}: {refused:?}"
            );
        }
    }
    assert_eq!(canary.connections(), 0);
}

#[test]
fn a_url_is_judged_before_anything_is_connected() {
    let egress = egress(EgressOptions { allow_loopback: false, ..EgressOptions::default() });
    let check = |url: &str| egress.check(&Url::parse(url).unwrap());
    for url in ["http://0x7f.1/", "http://2130706433/", "https://127.1:8443/", "http://[::1]/"] {
        assert!(matches!(check(url), Err(EgressError::Refused { .. })), "{url}");
    }
    for url in ["http://169.254.169.254/latest", "http://2852039166/", "http://[fd00:ec2::254]/"] {
        assert!(matches!(check(url), Err(EgressError::Refused { .. })), "{url}");
    }
    for url in ["file:///etc/passwd", "ftp://example.com/", "javascript:alert(1)", "unix:/run/s"] {
        assert!(matches!(check(url), Err(EgressError::NotHttp { .. })), "{url}");
    }
    for url in ["http://example.com/", "https://1.1.1.1/", "http://10.0.0.1:8080/mcp"] {
        assert!(check(url).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn another_scheme_than_http_is_refused() {
    let egress = egress(EgressOptions::default());
    for (door, way) in doors(&egress) {
        let refused = way.send(post("ftp://127.0.0.1/")).await.unwrap_err();
        assert!(matches!(refused, EgressError::NotHttp { .. }), "{door}: {refused:?}");
    }
}

#[tokio::test]
async fn an_answer_comes_back_whole_by_either_door() {
    let canary = Canary::answering(
        "HTTP/1.1 202 Accepted\r\ntransfer-encoding: chunked\r\nmcp-session-id: s\r\n\r\n\
         3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n",
    )
    .await;
    let egress = egress(EgressOptions::default());
    for (door, way) in doors(&egress) {
        let answer = way.send(post(&canary.url("127.0.0.1"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED, "{door}");
        assert_eq!(answer.headers()["mcp-session-id"], "s");
        assert_eq!(answer.into_body().collect(7).await.unwrap(), "abcdefg");

        let answer = way.send(post(&canary.url("localhost"))).await.unwrap();
        let too_large = answer.into_body().collect(6).await.unwrap_err();
        assert!(matches!(too_large, EgressError::TooLarge { max: 6 }), "{door}");
    }
}

#[tokio::test]
async fn a_redirect_is_handed_back_and_not_followed() {
    let target = Canary::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for status in [301, 302, 303, 307, 308] {
        let head = format!(
            "HTTP/1.1 {status} Elsewhere\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n",
            target.url("127.0.0.1")
        );
        let canary = Canary::answering(Box::leak(head.into_boxed_str())).await;
        for (door, way) in doors(&egress(EgressOptions::default())) {
            let answer = way.send(post(&canary.url("127.0.0.1"))).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{door}");
        }
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_failure_tells_its_cause_and_whether_anything_was_sent() {
    let options =
        EgressOptions { connect_timeout: Duration::from_millis(400), ..Default::default() };
    let egress = egress(options);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let plain = Canary::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let rude = Canary::answering("").await;
    let resetting = Canary::resetting().await;
    let garbled = Canary::answering("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").await;
    // Accepted by the kernel, and never answered: a handshake that does not end.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mute = mute.local_addr().map(|address| (mute, address)).unwrap();

    for (door, way) in doors(&egress) {
        let refused = way.send(post(&format!("http://{nobody}/"))).await.unwrap_err();
        assert!(matches!(refused, EgressError::ConnectRefused), "{door}: {refused:?}");
        assert!(refused.not_sent());

        let unknown = way.send(post("http://no-such-name.invalid/")).await.unwrap_err();
        assert!(
            matches!(unknown, EgressError::Resolve { .. } | EgressError::ConnectTimeout),
            "{door}: {unknown:?}"
        );
        assert!(unknown.not_sent());

        let insecure = plain.url("localhost").replace("http:", "https:");
        let insecure = way.send(post(&insecure)).await.unwrap_err();
        assert!(matches!(insecure, EgressError::Tls { .. }), "{door}: {insecure:?}");
        assert!(insecure.not_sent());

        // Whoever goes away before there was a certificate is not there, rather than not trusted.
        for leaving in [&rude, &resetting] {
            let left = way.send(post(&leaving.url("localhost").replace("http:", "https:"))).await;
            let left = left.unwrap_err();
            assert!(matches!(left, EgressError::Connect { .. }), "{door}: {left:?}");
            assert!(left.not_sent() && left.is_passing());
        }

        let late = way.send(post(&format!("https://{}/", mute.1))).await.unwrap_err();
        assert!(matches!(late, EgressError::ConnectTimeout), "{door}: {late:?}");
        assert!(late.not_sent());

        let hung_up = way.send(post(&rude.url("127.0.0.1"))).await.unwrap_err();
        assert!(matches!(hung_up, EgressError::Broken { .. }), "{door}: {hung_up:?}");
        assert!(!hung_up.not_sent());

        let answer = way.send(post(&garbled.url("127.0.0.1"))).await.unwrap();
        let cut = answer.into_body().collect(100).await.unwrap_err();
        assert!(matches!(cut, EgressError::Broken { .. }), "{door}: {cut:?}");
    }
}

#[tokio::test]
async fn a_request_has_begun_when_there_is_a_connection_for_it_and_not_before() {
    let egress = egress(EgressOptions::default());
    // The kernel accepts for it, and its part of the handshake never comes.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let begun = Begun::default();
    let way = egress.hot();
    let unmade = post(&format!("https://{}/", mute.local_addr().unwrap()));
    let given_up =
        tokio::time::timeout(Duration::from_millis(200), way.send_noting(unmade, &begun));
    assert!(given_up.await.is_err());
    assert!(!begun.load(Ordering::SeqCst), "nobody can have received anything");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let made = post(&format!("http://{}/", listener.local_addr().unwrap()));
    let reading = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        begun.load(Ordering::SeqCst)
    };
    tokio::select! {
        answered = way.send_noting(made, &begun) => panic!("{answered:?}"),
        has_begun = reading => assert!(has_begun, "a byte of it has arrived"),
    }
}

#[tokio::test]
async fn a_proxy_named_by_the_environment_is_not_used() {
    let proxy = Canary::answering("HTTP/1.1 418 Proxy\r\ncontent-length: 0\r\n\r\n").await;
    let server = Canary::answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let proxy_url = format!("http://127.0.0.1:{}", proxy.port);
    let mut client = Command::new(env::current_exe().unwrap());
    client.args(["--exact", "the_client_with_a_proxy"]).stdout(Stdio::null());
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    {
        client.env(name, &proxy_url);
    }
    client.env_remove("NO_PROXY").env_remove("no_proxy").env(PROXIED, server.url("127.0.0.1"));

    let status = tokio::task::spawn_blocking(move || client.status()).await.unwrap().unwrap();
    assert!(status.success());
    assert_eq!(server.connections(), 2);
    assert_eq!(proxy.connections(), 0);
}

/// Run as a program of its own by the test above, which sets its environment; otherwise it proves nothing and returns.
#[tokio::test]
async fn the_client_with_a_proxy() {
    let Ok(url) = env::var(PROXIED) else { return };
    for (door, way) in doors(&egress(EgressOptions::default())) {
        assert_eq!(way.send(post(&url)).await.unwrap().status(), StatusCode::OK, "{door}");
    }
}

// === Secure connections ===

#[test]
#[expect(clippy::print_stderr, reason = "a test that proves nothing has to say so")]
fn a_certificate_that_the_machine_trusts_is_accepted_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    if !make_certificate(folder.path()) {
        eprintln!("SKIPPED: there is no openssl on this machine");
        return;
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-cert", "cert.pem", "-key", "key.pem", "-accept"])
        .arg(port.to_string())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(server.try_wait().unwrap().is_none(), "the server ended early");
        std::thread::sleep(Duration::from_millis(5));
    }

    let client = |trusted: &Path, wanted: &str| {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_secure_client", "--nocapture"])
            .env(SECURED, format!("https://localhost:{port}/"))
            .env(OUTCOME, wanted)
            .env("SSL_CERT_FILE", trusted)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap()
    };
    let trusting = client(&folder.path().join("cert.pem"), "accepted");
    let doubting = client(&folder.path().join("other.pem"), "refused");
    server.kill().unwrap();
    server.wait().unwrap();
    for client in [trusting, doubting] {
        assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
    }
}

/// Run as a program of its own by the test above, which sets what it trusts; otherwise it proves nothing and returns.
#[tokio::test]
async fn the_secure_client() {
    let (Ok(url), Ok(wanted)) = (env::var(SECURED), env::var(OUTCOME)) else { return };
    for (door, way) in doors(&egress(EgressOptions::default())) {
        let request = Request::builder().uri(&url).body(Bytes::new()).unwrap();
        match (wanted.as_str(), way.send(request).await) {
            ("accepted", Ok(answer)) => assert_eq!(answer.status(), StatusCode::OK, "{door}"),
            ("refused", Err(EgressError::Tls { .. })) => {}
            (_, found) => panic!("{door}: {wanted}, but {found:?}"),
        }
    }
}

/// One certificate for `localhost`, and another one that vouches for nothing here.
fn make_certificate(folder: &Path) -> bool {
    ["cert.pem", "other.pem"].into_iter().all(|name| {
        let made = Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args([
                "-out",
                name,
                "-keyout",
                if name == "cert.pem" { "key.pem" } else { "other.key" },
            ])
            .current_dir(folder)
            .stderr(Stdio::null())
            .status();
        made.is_ok_and(|status| status.success())
    })
}
