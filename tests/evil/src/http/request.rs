//! One request, read from a connection.

use std::io::{BufRead, Read};

use crate::Outcome;

/// Bytes of a line of a request's head, and of its body, that are read at most.
const LINE_MAX: u64 = 64 << 10;
const BODY_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads the next request; `None` where the connection ended instead.
    pub fn read(from: &mut impl BufRead) -> Outcome<Option<Request>> {
        let Some(first) = line(from)? else { return Ok(None) };
        let mut words = first.split(' ');
        let mut request = Request {
            method: words.next().unwrap_or_default().to_owned(),
            path: words.next().unwrap_or_default().to_owned(),
            ..Request::default()
        };
        while let Some(header) = line(from)?.filter(|header| !header.is_empty()) {
            if let Some((name, value)) = header.split_once(':') {
                request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        if request.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            request.body = chunks(from)?;
        } else if let Some(length) = request.header("content-length") {
            let length: u64 = length.parse()?;
            from.take(length.min(BODY_MAX)).read_to_end(&mut request.body)?;
            if (request.body.len() as u64) < length {
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    /// The value of a header; its name is in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str())
    }

    /// Whether the client would take an event stream.
    pub fn takes_events(&self) -> bool {
        self.header("accept").is_none_or(|accept| accept.contains("text/event-stream"))
    }
}

/// A line without its end; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> Outcome<Option<String>> {
    let mut bytes = Vec::new();
    if from.take(LINE_MAX).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&bytes).trim_end().to_owned()))
}

fn chunks(from: &mut impl BufRead) -> Outcome<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(from)?.ok_or("the body ended early")?;
        let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        from.take(size.min(BODY_MAX)).read_to_end(&mut body)?;
        line(from)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_follow_each_other() {
        let mut bytes = &b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}\
            POST /two HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"[..];
        let first = Request::read(&mut bytes).unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.body.as_slice()), ("/mcp", &b"{}"[..]));
        assert_eq!(first.header("host"), Some("x"));
        let second = Request::read(&mut bytes).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.body.as_slice()), ("/two", &b"abc"[..]));
        assert!(Request::read(&mut bytes).unwrap().is_none());
    }

    #[test]
    fn half_a_request_is_none() {
        let mut bytes = &b"POST /mcp HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"[..];
        assert!(Request::read(&mut bytes).unwrap().is_none());
    }
}
