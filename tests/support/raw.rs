//! A connection on which every byte is the test's own: half a head, a body that drips, nothing at all.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{SOON, TestGateway, within};

pub struct Raw {
    stream: TcpStream,
    pub address: String,
}

impl Raw {
    pub async fn connect(gateway: &TestGateway) -> Raw {
        let address = gateway.base.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&address).await.expect("a connection");
        Raw { stream, address }
    }

    /// Whether it was still there to be written to.
    pub async fn send(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok()
    }

    /// One byte at this pace for as long as the other end lets us.
    pub async fn drip(&mut self, byte: &str, pace: std::time::Duration) -> String {
        let (mut reader, mut writer) = self.stream.split();
        let mut heard = Vec::new();
        let dripping = async {
            while writer.write_all(byte.as_bytes()).await.is_ok() {
                tokio::time::sleep(pace).await;
            }
            std::future::pending().await
        };
        let hearing = reader.read_to_end(&mut heard);
        let closed = async {
            tokio::select! { closed = hearing => drop(closed), () = dripping => {} }
        };
        within("the connection to be closed", SOON, closed).await;
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Everything until the other end closes, or resets, the connection.
    pub async fn rest(&mut self) -> String {
        let mut heard = Vec::new();
        let closed = self.stream.read_to_end(&mut heard);
        within("the connection to be closed", SOON, async { drop(closed.await) }).await;
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Whether so much comes before the other end closes the connection.
    pub async fn until(&mut self, is_enough: impl Fn(&str) -> bool) -> bool {
        let mut heard = Vec::new();
        let reading = async {
            while !is_enough(&String::from_utf8_lossy(&heard)) {
                if !matches!(self.stream.read_buf(&mut heard).await, Ok(1..)) {
                    return false;
                }
            }
            true
        };
        within("enough of an answer", SOON, reading).await
    }

    /// What comes until there is an empty line, and what of the body came with it.
    pub async fn head(&mut self) -> String {
        let mut heard = Vec::new();
        let reading = async {
            while !heard.windows(4).any(|end| end == b"\r\n\r\n") {
                match self.stream.read_buf(&mut heard).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => break,
                }
            }
        };
        within("the head of an answer", SOON, reading).await;
        String::from_utf8_lossy(&heard).into_owned()
    }
}
