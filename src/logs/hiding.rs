//! What is left out of a text before anybody reads it: values that are known to be secret, whatever
//! has the shape of a secret, and what would act on a reader's terminal.

use std::{cmp::Reverse, collections::VecDeque, sync::LazyLock};

use regex::{Captures, Regex};

/// What stands where a secret was.
const HIDDEN: &str = "***";

/// Shorter values are ordinary words, and to hide them would hide the log itself.
const LENGTH_MIN: usize = 6;

/// Values that were renewed and are remembered: an access and a refresh token, four times.
const RENEWED_MAX: usize = 8;

/// The values that one server was given as secrets.
///
/// A server may still write what was configured before a change, since its process ends a moment after
/// it. So the values of one change, and of one start, before the present ones stay hidden.
#[derive(Debug, Default)]
pub struct Secrets {
    configured: Vec<String>,
    configured_before: Vec<String>,
    resolved: Vec<String>,
    resolved_before: Vec<String>,
    /// Tokens that were renewed, newest last. Processes come and go meanwhile.
    renewed: VecDeque<String>,
    /// All of them in every form, longest first, so that replacing one does not uncover the rest of
    /// another.
    forms: Vec<String>,
}

impl Secrets {
    /// What the configuration holds from now on.
    pub fn configure<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) {
        let values: Vec<String> = values.into_iter().map(str::to_owned).collect();
        if values != self.configured {
            self.configured_before = std::mem::replace(&mut self.configured, values);
            self.arrange();
        }
    }

    /// A new process begins: what variables stand for is about to be resolved again.
    pub fn begin(&mut self) {
        self.resolved_before = std::mem::take(&mut self.resolved);
    }

    /// What a `${VAR}` stood for.
    pub fn resolve(&mut self, value: &str) {
        if !self.resolved.iter().any(|known| known == value) {
            self.resolved.push(value.to_owned());
            self.arrange();
        }
    }

    /// Values that were renewed. The last ones before them stay hidden.
    pub fn renew<'a>(&mut self, values: impl IntoIterator<Item = &'a str>) {
        for value in values {
            if self.renewed.iter().any(|known| known == value) {
                continue;
            }
            if self.renewed.len() == RENEWED_MAX {
                self.renewed.pop_front();
            }
            self.renewed.push_back(value.to_owned());
        }
        self.arrange();
    }

    /// The text as it may be read.
    pub fn hide(&self, text: &str) -> String {
        let mut text = harmless(text);
        for form in &self.forms {
            if text.contains(form.as_str()) {
                text = text.replace(form.as_str(), HIDDEN);
            }
        }
        hide_shapes(&text)
    }

    fn arrange(&mut self) {
        let kept =
            [&self.configured, &self.configured_before, &self.resolved, &self.resolved_before];
        let kept = kept.into_iter().flatten().chain(&self.renewed);
        self.forms = kept.flat_map(|value| forms_of(value)).collect();
        self.forms.retain(|form| form.len() >= LENGTH_MIN && form != HIDDEN);
        self.forms.sort_unstable_by(|one, other| {
            (Reverse(one.len()), one).cmp(&(Reverse(other.len()), other))
        });
        self.forms.dedup();
    }
}

/// How a value may be written: as it is, each of its lines, without the scheme before it, and as JSON
/// and URLs write it.
fn forms_of(value: &str) -> Vec<String> {
    let mut forms = vec![harmless(value)];
    let lines = value.lines().map(str::trim);
    forms.extend(lines.map(harmless));
    if let Some((scheme, credential)) = value.split_once(' ')
        && scheme.bytes().all(|byte| byte.is_ascii_alphabetic())
    {
        forms.push(harmless(credential.trim()));
    }
    if let Ok(json) = serde_json::to_string(value) {
        forms.push(json.trim_matches('"').to_owned());
    }
    forms.push(url::form_urlencoded::byte_serialize(value.as_bytes()).collect());
    forms
}

/// Takes out what has the shape of a secret, for texts in which no value is known to be one.
pub fn hide_shapes(text: &str) -> String {
    let hidden = |found: &Captures<'_>| {
        let part = |name| found.name(name).map_or("", |part| part.as_str());
        let before = ["authorization", "bearer", "cookie", "named", "login", "key"].map(part);
        format!("{}{HIDDEN}{}", before.concat(), part("at"))
    };
    // A pattern of ours, which a test builds; should it ever fail, nothing is shown rather than all.
    let Some(shapes) = &*SHAPES else { return HIDDEN.to_owned() };
    shapes.replace_all(text, hidden).into_owned()
}

/// Each alternative names what stays before the secret.
static SHAPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let pattern = r#"(?ix)
        # Authorization: Bearer x, "authorization":"Basic x", authorization=x
        (?<authorization> authorization \\?["']? [\ \t]* [:=] [\ \t]* \\?["']?
            (?: (?: bearer | basic | token | digest | negotiate ) [\ \t]+ )? )
        [^\ \t"'\\,;]{4,}
      | (?<bearer> (?-u:\b) bearer (?: [\ \t]+ | %20 | \+ ) )
        (?: [0-9a-z._~+/=-]{16,} | [a-z._~+/=-]* [0-9] [0-9a-z._~+/=-]* )
      | (?<cookie> cookie \\?["']? [\ \t]* [:=] [\ \t]* ) (?: \\?"[^"]*"? | \\?'[^']*'? | .+ )
        # GITHUB_TOKEN=x, "password": "x", --api-key=x, ?access_token=x
      | (?<named> (?: token | secret | passwd | password | passphrase | credential
            | api [_-]? key | private [_-]? key | access [_-]? key )
            s? \\?["']? [\ \t]* (?: [:=] | %3d ) [\ \t]* )
        (?: \\?"[^"]*"? | \\?'[^']*'? | [^\ \t"'\\,;&]{6,} )
        # https://user:password@host
      | (?<login> :// ) [^\ \t/@:"']* : [^\ \t/@"']+ (?<at> @ )
      | (?<key> sk_mt_ ) [0-9a-z_-]+
        # What others make: JSON Web Tokens, GitHub, GitLab, Slack, AWS, several models
      | (?-u:\b) (?: eyJ [0-9a-z_-]{8,} \. [0-9a-z_-]+ (?: \. [0-9a-z_-]* )?
            | gh[pousr]_ [0-9a-z]{20,} | github_pat_ [0-9a-z_]{20,} | glpat- [0-9a-z_-]{20,}
            | xox[abeprs]- [0-9a-z-]{10,} | AKIA [0-9A-Z]{16} | sk- [0-9a-z_-]{20,} )
    "#;
    Regex::new(pattern).ok()
});

/// Takes out escape sequences, and puts a visible mark for every other character that would do
/// something to a terminal or to the order of what is read.
pub fn harmless(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        match char {
            '\t' => harmless.push(char),
            '\n' => harmless.push(' '),
            '\r' if rest.peek().is_none_or(|next| *next == '\n') => {}
            // ECMA-48: ESC [ or its one-character form begins a control sequence, the others begin a
            // string that ends with BEL or ST.
            '\u{1b}' => match rest.next() {
                Some('[') => skip_sequence(&mut rest),
                Some(']' | 'P' | 'X' | '^' | '_') => skip_string(&mut rest),
                Some(_) | None => {}
            },
            '\u{9b}' => skip_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_string(&mut rest),
            other if acts(other) => harmless.push('\u{fffd}'),
            other => harmless.push(other),
        }
    }
    harmless
}

/// Controls, and what turns the reading direction around or cannot be seen.
fn acts(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn skip_sequence(rest: &mut impl Iterator<Item = char>) {
    rest.find(|char| ('@'..='~').contains(char));
}

fn skip_string(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(char) = rest.next() {
        match char {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' => {
                rest.next_if_eq(&'\\');
                return;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_shape_of_a_secret_is_hidden_wherever_it_stands() {
        for (text, expected) in [
            ("got Authorization: Bearer abc.def-1 today", "got Authorization: Bearer *** today"),
            (r#"{"authorization":"Basic dXNlcjpwYXNz"}"#, r#"{"authorization":"Basic ***"}"#),
            (r#"{\"Authorization\":\"s3cret\"}"#, r#"{\"Authorization\":\"***\"}"#),
            ("sent bearer a1b2c3 upstream", "sent bearer *** upstream"),
            ("Bearer authentication failed", "Bearer authentication failed"),
            ("key sk_mt_0123456789abcdef-XYZ_ end", "key sk_mt_*** end"),
            ("GITHUB_TOKEN=ghx0123456 rest", "GITHUB_TOKEN=*** rest"),
            (r#""password": "two words" rest"#, r#""password": *** rest"#),
            ("GET /a?access_token=0123456&b=1", "GET /a?access_token=***&b=1"),
            ("X-API-Key: 0123456789", "X-API-Key: ***"),
            ("Set-Cookie: sid=1; other=2", "Set-Cookie: ***"),
            ("at postgres://me:pass@host/db", "at postgres://***@host/db"),
            ("jwt eyJhbGciOiJI.eyJzdWIi.sig_-x end", "jwt *** end"),
            ("ghp_0123456789012345678901234567890123456", "***"),
            ("tokens used: 17, the secret of life", "tokens used: 17, the secret of life"),
            ("http://127.0.0.1:12008/metamcp", "http://127.0.0.1:12008/metamcp"),
            ("", ""),
        ] {
            assert_eq!(hide_shapes(text), expected, "{text}");
        }
    }

    #[test]
    fn known_values_are_hidden_in_every_form() {
        let mut secrets = Secrets::default();
        secrets.configure(["first line\nsecond line", "Bearer open-sesame", "a\"b/c d", "short"]);
        for text in [
            "x first line y",
            "x second line y",
            "x open-sesame y",
            r#"x a\"b/c d y"#,
            "x a%22b%2Fc+d y",
        ] {
            assert_eq!(secrets.hide(text), "x *** y", "{text}");
        }
        assert_eq!(secrets.hide("short words"), "short words");
        assert_eq!(secrets.hide("open-\u{1b}[31msesame\u{1b}[0m"), "***", "colours do not save it");
    }

    #[test]
    fn a_longer_value_is_hidden_before_one_that_is_a_part_of_it() {
        let mut secrets = Secrets::default();
        secrets.configure(["abcdef"]);
        secrets.resolve("abcdef-ghijkl");
        assert_eq!(secrets.hide("abcdef-ghijkl abcdef"), "*** ***");
    }

    #[test]
    fn what_was_a_secret_before_a_change_stays_one() {
        let mut secrets = Secrets::default();
        secrets.configure(["configured-old"]);
        secrets.resolve("resolved-old");
        secrets.configure(["configured-new"]);
        secrets.configure(["configured-new"]);
        secrets.begin();
        secrets.resolve("resolved-new");
        let all = "configured-old configured-new resolved-old resolved-new";
        assert_eq!(secrets.hide(all), "*** *** *** ***");
    }

    #[test]
    fn renewed_values_are_hidden_whatever_begins_meanwhile_and_are_not_kept_for_ever() {
        let mut secrets = Secrets::default();
        secrets.renew(["access-one", "refresh-one"]);
        (0..5).for_each(|_| secrets.begin());
        secrets.renew(["access-two", "refresh-one"]);
        assert_eq!(secrets.hide("access-one refresh-one access-two"), "*** *** ***");
        for number in 0..100 {
            secrets.renew([&*format!("access-later-{number}")]);
        }
        assert_eq!(secrets.renewed.len(), RENEWED_MAX);
        assert_eq!(secrets.hide("access-one access-later-99"), "access-one ***");
    }

    #[test]
    fn nothing_acts_on_a_terminal() {
        for (text, expected) in [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("\u{9b}2Jcleared\u{9d}title\u{9c}", "cleared"),
            ("a\u{8}b\0c", "a\u{fffd}b\u{fffd}c"),
            ("safe\u{202e}evil", "safe\u{fffd}evil"),
            ("one\r\ntwo\rthree", "one two\u{fffd}three"),
            ("tab\tstays, ümläute and 漢字 too", "tab\tstays, ümläute and 漢字 too"),
            ("cut \u{1b}", "cut "),
            ("cut \u{1b}[3", "cut "),
        ] {
            assert_eq!(harmless(text), expected, "{text:?}");
        }
    }
}
