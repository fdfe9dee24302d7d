//! What a server says of the credential that it wants: `WWW-Authenticate` (RFC 9110, section 11.6.1), as far as
//! it is about bearer tokens (RFC 6750, section 3; RFC 9728, section 5.1).
//!
//! It is a stranger's text. What is taken of it is bounded, and has no characters but those that the words of
//! people and of programs are made of.

use std::iter::from_fn;

/// Headers of a response that are looked at.
const HEADERS_MAX: usize = 8;
/// Bytes of one of them.
const HEADER_MAX: usize = 8 * 1024;
/// Schemes and parameters together, of one of them.
const PIECES_MAX: usize = 64;
/// Bytes of an error, a description or a scope that are kept.
const TEXT_MAX: usize = 300;
/// Bytes of a URL, which is kept as a whole or not at all.
const URL_MAX: usize = 2048;

/// What is wanted of a bearer token. Each is `None` where it is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Why the last one was refused: `invalid_token`, `insufficient_scope` and the like.
    pub error: Option<String>,
    /// The same in words for people.
    pub error_description: Option<String>,
    /// The scopes that are needed, with blanks between them.
    pub scope: Option<String>,
    /// Where it is described who gives such tokens. A URL of the server's choice.
    pub resource_metadata: Option<String>,
}

/// The code of RFC 6750 for a token that is good, and not good for this.
const INSUFFICIENT_SCOPE: &str = "insufficient_scope";

impl Challenge {
    /// Reads the values of all the `WWW-Authenticate` headers of a response. Of several challenges to bring a
    /// bearer token the first that names an error counts, or else the first.
    pub fn of<'a>(headers: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut first = None;
        for header in headers.into_iter().take(HEADERS_MAX) {
            for challenge in bearers(&header[..header.len().min(HEADER_MAX)]) {
                if challenge.error.is_some() {
                    return Some(challenge);
                }
                first.get_or_insert(challenge);
            }
        }
        first
    }

    /// Whether a 403 with it says that other rights are needed, rather than another credential.
    pub fn is_about_scope(&self) -> bool {
        match &self.error {
            Some(error) => error == INSUFFICIENT_SCOPE,
            None => self.scope.is_some(),
        }
    }

    /// What the server says, for operators: ``invalid_token (The token has expired), for the scope `files` ``.
    pub fn in_words(&self) -> Option<String> {
        let error = match (&self.error, &self.error_description) {
            (Some(error), Some(description)) => Some(format!("{error} ({description})")),
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let scope = self.scope.as_ref().map(|scope| format!("for the scope `{scope}`"));
        let parts: Vec<String> = [error, scope].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        let (place, value) = if is("error") {
            (&mut self.error, text(value))
        } else if is("error_description") {
            (&mut self.error_description, text(value))
        } else if is("scope") {
            (&mut self.scope, scope(value))
        } else if is("resource_metadata") {
            (&mut self.resource_metadata, url(value))
        } else {
            return;
        };
        // Twice is a fault (RFC 9110, section 11.2); the first is as good as the second.
        if place.is_none() {
            *place = value;
        }
    }
}

/// A foreign text as far as it can be shown.
fn text(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let can_be_shown = |c: &char| c.is_ascii_graphic() || *c == ' ' || c.is_alphanumeric();
    let mut text: String = text.chars().filter(can_be_shown).collect();
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// As many whole scopes as may be shown.
fn scope(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let is_scope = |word: &&str| word.bytes().all(|byte| byte.is_ascii_graphic());
    let mut kept = String::new();
    for word in text.split_ascii_whitespace().filter(is_scope) {
        if kept.len() + 1 + word.len() > TEXT_MAX {
            break;
        }
        if !kept.is_empty() {
            kept.push(' ');
        }
        kept.push_str(word);
    }
    Some(kept).filter(|kept| !kept.is_empty())
}

fn url(value: &[u8]) -> Option<String> {
    let is_good = value.len() <= URL_MAX && value.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(value).ok().filter(|text| is_good && !text.is_empty());
    text.map(str::to_owned)
}

/// The challenges of one header to bring a bearer token.
fn bearers(header: &[u8]) -> Vec<Challenge> {
    let mut bearers = Vec::new();
    let mut is_bearer = false;
    let mut rest = Rest(header);
    for piece in from_fn(|| rest.piece()).take(PIECES_MAX) {
        match piece {
            Piece::Scheme(scheme) => {
                is_bearer = scheme.eq_ignore_ascii_case(b"Bearer");
                if is_bearer {
                    bearers.push(Challenge::default());
                }
            }
            Piece::Parameter(name, value) => {
                if let Some(challenge) = bearers.last_mut().filter(|_| is_bearer) {
                    challenge.take(name, &value);
                }
            }
        }
    }
    bearers
}

enum Piece<'a> {
    Scheme(&'a [u8]),
    Parameter(&'a [u8], Vec<u8>),
}

/// What is still to be read of a header.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// The next scheme or parameter; nothing at the end, and nothing more behind what is neither.
    fn piece(&mut self) -> Option<Piece<'a>> {
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b','));
        let word = self.word(is_token);
        if word.is_empty() {
            return None;
        }
        let behind = Rest(self.0);
        self.blanks();
        if self.0.first() == Some(&b'=') {
            self.0 = &self.0[1..];
            self.blanks();
            return Some(Piece::Parameter(word, self.value()?));
        }
        *self = behind;
        self.token68();
        Some(Piece::Scheme(word))
    }

    /// A token, or what stands between quotes. One that is not closed is none.
    fn value(&mut self) -> Option<Vec<u8>> {
        let Some(quoted) = self.0.strip_prefix(b"\"") else {
            // What ought to have been quoted, and was not: many write a URL so.
            return Some(self.word(|byte| byte.is_ascii_graphic() && byte != b',').to_vec());
        };
        let mut value = Vec::new();
        let mut bytes = quoted.iter();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => value.push(*bytes.next()?),
                byte => value.push(*byte),
            }
        }
        self.0 = bytes.as_slice();
        Some(value)
    }

    /// Passes over the other form that a challenge can have: one word of base64, and no parameters.
    fn token68(&mut self) {
        let mut ahead = Rest(self.0);
        ahead.blanks();
        let is_68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let word = ahead.word(is_68);
        ahead.skip(|byte| byte == b'=');
        ahead.blanks();
        if !word.is_empty() && ahead.0.first().is_none_or(|byte| *byte == b',') {
            *self = ahead;
        }
    }

    fn blanks(&mut self) {
        self.skip(|byte| matches!(byte, b' ' | b'\t'));
    }

    fn skip(&mut self, is_skipped: impl Fn(u8) -> bool) {
        self.word(is_skipped);
    }

    fn word(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !belongs(*byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        word
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// What is said, as `error|error_description|scope|resource_metadata`.
    fn said(headers: &[&str]) -> Option<String> {
        let challenge = Challenge::of(headers.iter().map(|header| header.as_bytes()))?;
        let Challenge { error, error_description, scope, resource_metadata } = challenge;
        let all = [error, error_description, scope, resource_metadata];
        Some(all.map(Option::unwrap_or_default).join("|"))
    }

    #[test]
    fn a_challenge_is_read_in_every_form_that_it_may_have() {
        for (headers, expected) in [
            (
                &[r#"Bearer error="insufficient_scope", scope="files:write""#][..],
                Some("insufficient_scope||files:write|"),
            ),
            (&[r#"bearer realm="x",error=invalid_token"#], Some("invalid_token|||")),
            (&["BEARER\tError = \"a\" ,\t, ScOpE\t=\tb"], Some("a||b|")),
            (&["Bearer"], Some("|||")),
            (&["Bearer, Basic realm=\"x\""], Some("|||")),
            // Quoted: commas, other schemes, quotes.
            (
                &[r#"Bearer error_description="no, \"Basic realm=x\", error=\"y\"", error="z""#],
                Some(r#"z|no, "Basic realm=x", error="y"||"#),
            ),
            (&[r#"Bearer error_description="a\\b", scope="a  b""#], Some(r"|a\b|a b|")),
            (
                &[
                    r#"Bearer resource_metadata="https://x.example/.well-known/oauth-protected-resource?a=b,c""#,
                ],
                Some("|||https://x.example/.well-known/oauth-protected-resource?a=b,c"),
            ),
            (
                &["Bearer resource_metadata=https://x.example/a?b=c, scope=d"],
                Some("||d|https://x.example/a?b=c"),
            ),
            // Several challenges, in one header and in several.
            (
                &[
                    r#"Basic realm="error", charset="UTF-8", Bearer error="e", scope="s", DPoP error="f""#,
                ],
                Some("e||s|"),
            ),
            (&["Negotiate YWJj/+=, Bearer scope=s"], Some("||s|")),
            (&["Negotiate YWJj==", "Newauth a=b, c = \"d\"", "Bearer error=e"], Some("e|||")),
            (&["Bearer scope=one", "Bearer scope=two, error=e"], Some("e||two|")),
            (&["Bearer scope=one, Bearer scope=two"], Some("||one|")),
            // Of others nothing is taken.
            (&["Basic realm=\"x\", scope=s"], None),
            (&["DPoP error=invalid_token"], None),
            (&[], None),
            (&["", " , ,"], None),
            // Malformed: what came before it counts.
            (&[r#"Bearer scope=s, error="not closed"#], Some("||s|")),
            (&[r#"Bearer scope=s, error="ends in \"#], Some("||s|")),
            (&["Bearer scope=s, =x, error=e"], Some("||s|")),
            (&["\"Bearer\" scope=s"], None),
            (&["Bearer scope=, error=e"], Some("e|||")),
            (&["Bearer scope=one, scope=two"], Some("||one|")),
            // A stranger's text is made harmless.
            (
                &[
                    "Bearer error=\"a\u{1b}[31mb\u{202e}\r\n\u{7f}c\", scope=\"ok \u{7}bell x\u{e9} fine\"",
                ],
                Some("a[31mbc||ok fine|"),
            ),
            (
                &[
                    "Bearer error_description=\"sch\u{f6}n\", resource_metadata=\"https://x/\u{f6}\"",
                ],
                Some("|sch\u{f6}n||"),
            ),
        ] {
            assert_eq!(said(headers).as_deref(), expected, "{headers:?}");
        }
    }

    #[test]
    fn no_more_is_read_or_kept_than_may_be() {
        let long = "a".repeat(TEXT_MAX + 1);
        let description = said(&[&format!("Bearer error_description=\"{long}\"")]).unwrap();
        assert_eq!(description, format!("|{}||", &long[..TEXT_MAX]));
        let words = said(&[&format!("Bearer scope=\"{}\"", "word ".repeat(100))]).unwrap();
        assert!(words.len() < TEXT_MAX + 4 && words.ends_with("word|"), "{words}");
        let url = format!("Bearer resource_metadata=\"https://{}\"", "a".repeat(URL_MAX));
        assert_eq!(said(&[&url]).as_deref(), Some("|||"));

        let late = format!("Bearer {} error=e", "a=b,".repeat(PIECES_MAX));
        assert_eq!(said(&[&late]).as_deref(), Some("|||"));
        let behind = format!("Basic realm=\"{}\", Bearer error=e", "a".repeat(HEADER_MAX));
        assert_eq!(said(&[&behind]), None);
        let mut headers = vec!["Basic realm=x"; HEADERS_MAX];
        headers.push("Bearer error=e");
        assert_eq!(said(&headers), None);
    }

    #[test]
    fn whether_rights_are_missing_and_what_is_said_of_it_is_told_in_words() {
        for (header, is_about_scope, words) in [
            (
                "Bearer error=insufficient_scope, scope=\"a b\"",
                true,
                Some("insufficient_scope, for the scope `a b`"),
            ),
            ("Bearer error=insufficient_scope", true, Some("insufficient_scope")),
            ("Bearer scope=a", true, Some("for the scope `a`")),
            (
                "Bearer error=invalid_token, scope=a",
                false,
                Some("invalid_token, for the scope `a`"),
            ),
            (
                "Bearer error=invalid_token, error_description=\"It is old\"",
                false,
                Some("invalid_token (It is old)"),
            ),
            ("Bearer error_description=\"It is old\"", false, Some("It is old")),
            ("Bearer realm=x", false, None),
        ] {
            let challenge = Challenge::of([header.as_bytes()]).unwrap();
            assert_eq!(challenge.is_about_scope(), is_about_scope, "{header}");
            assert_eq!(challenge.in_words().as_deref(), words, "{header}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_and_bounded(headers: Vec<Vec<u8>>) {
            let challenge = Challenge::of(headers.iter().map(Vec::as_slice));
            for text in challenge.into_iter().flat_map(|challenge| [challenge.error, challenge.scope]).flatten() {
                prop_assert!(!text.is_empty() && text.len() <= TEXT_MAX);
                prop_assert!(!text.chars().any(char::is_control));
            }
        }

        #[test]
        fn what_is_quoted_comes_back_as_it_was(words in proptest::collection::vec("[!-~]{1,20}", 1..5)) {
            let scope = words.join(" ");
            let quoted: String =
                scope.chars().flat_map(|c| (matches!(c, '"' | '\\')).then_some('\\').into_iter().chain([c])).collect();
            let header = format!("Basic realm=\"x, y\", Bearer realm=\"z\", scope=\"{quoted}\"");
            let challenge = Challenge::of([header.as_bytes()]).unwrap();
            prop_assert_eq!(challenge.scope, Some(scope));
        }
    }
}
