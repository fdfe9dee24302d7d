//! Cuts a body into the JSON documents that follow each other in it, whatever stands between them.
//!
//! Some servers answer one request by several messages with newlines between them and call that
//! `application/json`. Whether a document is valid JSON is found out by who reads it.

use bytes::Bytes;

use super::gathered::Gathered;

/// A document would need more memory than was agreed on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is larger than {max} bytes")]
pub struct TooLarge {
    pub max: usize,
}

/// Collects chunks and gives whole objects and arrays back.
#[derive(Debug)]
pub struct Documents {
    document_max: usize,
    partial: Gathered,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Documents {
    /// `document_max`: bytes that one document may have.
    pub fn new(document_max: usize) -> Self {
        let partial = Gathered::default();
        Self { document_max, partial, depth: 0, in_string: false, escaped: false }
    }

    /// Every document that `chunk` completes. After an error the body cannot be read on.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Bytes>, TooLarge> {
        let mut documents = Vec::new();
        let mut start = 0;
        for (place, byte) in chunk.iter().enumerate() {
            let was_outside = self.depth == 0;
            self.step(*byte);
            match (was_outside, self.depth == 0) {
                (true, false) => start = place,
                (false, true) => {
                    self.keep(&chunk[start..=place])?;
                    documents.push(self.partial.take());
                }
                (true, true) | (false, false) => {}
            }
        }
        if self.depth > 0 {
            self.keep(&chunk[start..])?;
        }
        Ok(documents)
    }

    fn step(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' if self.depth > 0 => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }

    fn keep(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        if self.partial.len() + piece.len() > self.document_max {
            return Err(TooLarge { max: self.document_max });
        }
        self.partial.extend(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn cut(text: &str) -> Vec<Bytes> {
        Documents::new(100).push(text.as_bytes()).unwrap()
    }

    #[test]
    fn documents_are_cut_wherever_they_end() {
        for (text, expected) in [
            (r#"{"a":1}"#, vec![r#"{"a":1}"#]),
            ("\u{feff}{\"a\":1}\r\n\n{\"b\":2}\n", vec![r#"{"a":1}"#, r#"{"b":2}"#]),
            ("{\n \"a\": {\n }\n}{}", vec!["{\n \"a\": {\n }\n}", "{}"]),
            (r#"{"a":"}{\"]"} [{"b":"\\"}]"#, vec![r#"{"a":"}{\"]"}"#, r#"[{"b":"\\"}]"#]),
            (r#"{"a":1"#, vec![]),
            ("<html>\"</html>", vec![]),
            ("}{}", vec!["{}"]),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
    }

    #[test]
    fn a_document_over_the_limit_is_an_error_and_many_below_it_are_none() {
        assert!(Documents::new(8).push(br#"{"a":123}"#).is_err());
        let mut documents = Documents::new(8);
        for _ in 0..10 {
            assert_eq!(documents.push(b"{\"a\":1} ").unwrap().len(), 1);
        }
        assert!(documents.push(b"{\"a\"").is_ok());
        assert!(documents.push(b":\"bcd").is_err());
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_into_chunks_changes_nothing(
            text in r#"([{}\[\]"\\a \n]){0,40}"#, cut_at in 0_usize..40,
        ) {
            let (head, tail) = text.as_bytes().split_at(cut_at.min(text.len()));
            let mut documents = Documents::new(1_000);
            let mut found = documents.push(head).unwrap();
            found.extend(documents.push(tail).unwrap());
            prop_assert_eq!(found, Documents::new(1_000).push(text.as_bytes()).unwrap());
        }

        #[test]
        fn a_flood_takes_no_more_memory_than_the_limit(
            chunks in proptest::collection::vec(r#"([{}\[\]"\\a]){0,40}"#, 0..60),
        ) {
            let mut documents = Documents::new(50);
            for chunk in chunks {
                let read = documents.push(chunk.as_bytes());
                prop_assert!(documents.partial.len() <= 50);
                match read {
                    Ok(found) => prop_assert!(found.iter().all(|one| one.len() <= 50)),
                    Err(_too_large) => break,
                }
            }
        }
    }
}
