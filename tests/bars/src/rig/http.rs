//! One HTTP/1.1 connection that is made anew when it is lost.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::Outcome;

/// A client of the daemon. One request at a time.
#[derive(Debug)]
pub struct Connection {
    port: u16,
    sender: Option<SendRequest<Full<Bytes>>>,
    driver: Option<JoinHandle<()>>,
}

/// An answer that was read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Connection {
    pub fn new(port: u16) -> Connection {
        Connection { port, sender: None, driver: None }
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Outcome<Answer> {
        let response = self.open(method, path, headers, body).await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Sends a request and leaves the body of the answer to be read.
    pub async fn open(
        &mut self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Outcome<http::Response<Incoming>> {
        let ready = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !ready {
            self.connect().await?;
        }
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .body(Full::new(body))?;
        request.headers_mut().extend(headers.clone());
        let sender = self.sender.as_mut().ok_or("no connection")?;
        Ok(sender.send_request(request).await?)
    }

    /// Closes the connection, whatever is under way on it.
    pub fn close(&mut self) {
        self.sender = None;
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
    }

    /// Connects, unless a request is to do it.
    pub async fn connect(&mut self) -> Outcome<()> {
        self.close();
        let socket = TcpStream::connect(("127.0.0.1", self.port)).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // Its end is seen by the next request.
        self.driver = Some(tokio::spawn(async move { drop(connection.await) }));
        self.sender = Some(sender);
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

/// The headers of a request with a JSON body, by the holder of a key.
pub fn headers(key: &str) -> Outcome<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {key}"))?);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let accepted = HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(header::ACCEPT, accepted);
    Ok(headers)
}
