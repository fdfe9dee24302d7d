//! Makes each event of the log one line, whatever other people's names and words are in it (CWE-117): what
//! would begin a line of its own, act on a terminal or turn the reading direction around is escaped, and
//! what is too long is cut.

use std::{borrow::Cow, io};

use serde_json::{Map, Value};
use tracing_subscriber::fmt::MakeWriter;

use super::sink::Sink;

/// How the lines of a log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `is_coloured`: for a terminal. Then the escapes that are left in an event are the log's own, since
    /// the formatter has escaped those of others.
    Text {
        is_coloured: bool,
    },
    Json,
}

/// Takes whole events from the formatter.
#[derive(Clone, Debug)]
pub struct Lines {
    pub sink: Sink,
    pub form: Form,
    /// Bytes of one line.
    pub max: usize,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl io::Write for Lines {
    /// The formatter gives an event with its end of line at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let mut line = one_line(text.strip_suffix('\n').unwrap_or(&text), self.form, self.max);
        line.to_mut().push('\n');
        self.sink.line(line.into_owned().into_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn one_line(event: &str, form: Form, max: usize) -> Cow<'_, str> {
    let event = match form {
        Form::Json => shortened(event, max),
        Form::Text { .. } => event.into(),
    };
    let is_bad = |char: char| acts(char) && !(form.is_coloured() && char == '\u{1b}');
    let line: Cow<'_, str> = match event.contains(is_bad) {
        false => event,
        true => {
            let mut line = String::with_capacity(event.len() + 16);
            for char in event.chars() {
                match (is_bad(char), form) {
                    (false, _) => line.push(char),
                    (true, Form::Text { .. }) => line.extend(char.escape_default()),
                    // Only a string can hold it, and a string may hold this instead.
                    (true, Form::Json) => {
                        for unit in char.encode_utf16(&mut [0; 2]) {
                            line.push_str(&format!("\\u{unit:04x}"));
                        }
                    }
                }
            }
            line.into()
        }
    };
    match form {
        Form::Text { is_coloured } if line.len() > max => {
            let (kept, cut) = line.split_at(line.floor_char_boundary(max));
            let plain = if is_coloured { "\u{1b}[0m" } else { "" };
            format!("{kept}{plain}… ({} bytes more)", cut.len()).into()
        }
        Form::Text { .. } | Form::Json => line,
    }
}

/// An object that is too long, with its longest texts cut, so that it stays an object.
fn shortened(event: &str, max: usize) -> Cow<'_, str> {
    if event.len() <= max {
        return event.into();
    }
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(event) else {
        return event.into();
    };
    // Of fields there are few, so that none of them needs to take it all.
    for value in fields.values_mut() {
        if let Value::String(text) = value
            && text.len() > max / 4
        {
            let (kept, cut) = text.split_at(text.floor_char_boundary(max / 4));
            *text = format!("{kept}… ({} bytes more)", cut.len());
        }
    }
    Value::Object(fields).to_string().into()
}

impl Form {
    fn is_coloured(self) -> bool {
        self == Self::Text { is_coloured: true }
    }
}

/// Controls, and what turns the reading direction around or cannot be seen.
fn acts(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const TEXT: Form = Form::Text { is_coloured: false };
    const COLOURED: Form = Form::Text { is_coloured: true };

    #[test]
    fn a_line_of_text_stays_one_line_and_acts_on_nothing() {
        for (event, line) in [
            ("größe=\"3 €\"", "größe=\"3 €\""),
            ("name=a\n2026-01-01 INFO all is well", "name=a\\n2026-01-01 INFO all is well"),
            ("a\r\u{7}\u{9b}2J\u{85}b", "a\\r\\u{7}\\u{9b}2J\\u{85}b"),
            ("\u{202e}gpj.exe\u{2028}\u{e0041}", "\\u{202e}gpj.exe\\u{2028}\\u{e0041}"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
        ] {
            assert_eq!(one_line(event, TEXT, 1000), line);
        }
        assert_eq!(one_line("\u{1b}[31mred\u{9b}", COLOURED, 1000), "\u{1b}[31mred\\u{9b}");
    }

    #[test]
    fn a_line_of_json_stays_an_object_that_says_the_same() {
        let said = "a\u{85}\u{202e}\u{e0041}\u{7f}ü";
        let event = serde_json::json!({ "message": said }).to_string();
        let line = one_line(&event, Form::Json, 1000);
        assert!(!line.contains(acts), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], said);
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let long = "é".repeat(10_000);
        let line = one_line(&long, TEXT, 101);
        assert_eq!(line, format!("{}… (19900 bytes more)", "é".repeat(50)));

        let event = serde_json::json!({ "message": long, "level": "INFO", "n": 1 }).to_string();
        let line = one_line(&event, Form::Json, 400);
        assert!(line.len() < 400, "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&read["level"], &read["n"]), (&"INFO".into(), &1.into()));
    }
}
