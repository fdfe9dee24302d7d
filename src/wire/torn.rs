//! What can still be told of a message that was too long to be kept: how long it was, and which
//! request it answered.

use bytes::Bytes;

/// Bytes that are kept of its beginning and of its end. An envelope is shorter than both.
const KEPT: usize = 512;

/// The two ends of a line that was thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Torn {
    pub bytes: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Torn {
    pub fn extend(&mut self, piece: &[u8]) {
        self.bytes += piece.len();
        let room = KEPT.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(&piece[..room]);
        self.tail.extend_from_slice(&piece[piece.len().saturating_sub(KEPT)..]);
        let surplus = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..surplus);
    }

    /// The id of ours that this was the answer to, as far as its ends say so for certain: it stands
    /// before what is long, or after it. A wrong id would end the call of somebody else.
    pub fn id(&self) -> Option<u64> {
        let place = |key: &str| memchr::memmem::find(&self.head, key.as_bytes());
        let long = [place("\"result\""), place("\"error\"")].into_iter().flatten().min()?;
        let before = &self.head[..long];
        // What has a method is no answer, whatever its parameters have.
        if has_method(before) {
            return None;
        }
        let before = id_after(before).filter(|_| is_outermost(before));
        before.map(|(id, _)| id).or_else(|| {
            let start = memchr::memmem::rfind(&self.tail, b"\"id\"")?;
            let (outside, tail) = self.tail.split_at(start);
            let closed = outside.iter().rposition(|byte| matches!(byte, b'}' | b']'));
            let outside = &outside[closed.map_or(0, |closed| closed + 1)..];
            if outside.last() == Some(&b'\\') || has_method(outside) {
                return None;
            }
            let (id, rest) = id_after(tail)?;
            // Nothing but the envelope may follow, or it is an id within the result.
            let closes = rest.iter().filter(|byte| matches!(byte, b'}' | b']')).count();
            let opens = rest.iter().any(|byte| matches!(byte, b'{' | b'['));
            (closes == 1 && !opens && !has_method(rest)).then_some(id)
        })
    }
}

fn has_method(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"\"method\"").is_some()
}

/// Whether nothing but the message itself has been opened, and no quote escaped that could be taken
/// for that of a key.
fn is_outermost(text: &[u8]) -> bool {
    let opened = text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    opened == 1 && !text.contains(&b'\\')
}

impl From<&Bytes> for Torn {
    fn from(line: &Bytes) -> Self {
        let mut torn = Self::default();
        torn.extend(line);
        torn
    }
}

/// The number after the key `"id"`, and what follows it.
fn id_after(text: &[u8]) -> Option<(u64, &[u8])> {
    let start = memchr::memmem::find(text, b"\"id\"")? + 4;
    let value = text[start..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let length = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = value.split_at(length);
    let ends = rest.first().is_none_or(|next| matches!(next, b',' | b'}' | b' '));
    let id = std::str::from_utf8(digits).ok()?.parse().ok()?;
    ends.then_some((id, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_at_either_end_and_nowhere_between() {
        let long = "x".repeat(10_000);
        for (line, id) in [
            (format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":"{long}"}}}}"#), Some(7)),
            (format!(r#"{{ "id" : 7 , "error":{{"a":"{long}"}}}}"#), Some(7)),
            (format!(r#"{{"result":{{"a":"{long}"}},"jsonrpc":"2.0","id":7}}"#), Some(7)),
            (format!(r#"{{"result":{{"a":"{long}"}},"id":7,"jsonrpc":"2.0"}}"#), Some(7)),
            (format!(r#"{{"result":{{"a":"{long}","id":7}}}}"#), None),
            (format!(r#"{{"result":{{"id":7,"a":"{long}"}}}}"#), None),
            (format!(r#"{{"jsonrpc":"2.0","id":"7","result":{{"a":"{long}"}}}}"#), None),
            (format!(r#"{{"jsonrpc":"2.0","id":7.5,"result":{{"a":"{long}"}}}}"#), None),
            (format!(r#"{{"jsonrpc":"2.0","id":7,"method":"x","params":{{"a":"{long}"}}}}"#), None),
            (format!(r#"{{"id":7,"params":{{"result":"{long}"}},"method":"x"}}"#), None),
            (format!(r#"{{"params":{{"result":"{long}"}},"method":"x","id":7}}"#), None),
            (format!(r#"{{"params":{{"result":"{long}"}},"id":7,"method":"x"}}"#), None),
            (format!(r#"{{"x":{{"id":5}},"id":7,"result":"{long}"}}"#), None),
            (format!(r#"{{"x":{{"id":5}},"result":"{long}","id":7}}"#), Some(7)),
            (format!(r#"{{"\"id":5,"id":7,"result":"{long}"}}"#), None),
            (long.clone(), None),
        ] {
            let ends = format!("{}…{}", &line[..30.min(line.len())], &line[line.len() - 30..]);
            for size in [1, 100, 100_000] {
                let mut torn = Torn::default();
                line.as_bytes().chunks(size).for_each(|piece| torn.extend(piece));
                assert_eq!((torn.id(), torn.bytes), (id, line.len()), "{ends} by {size}");
            }
        }
    }
}
