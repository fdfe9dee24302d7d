//! Secrets that can be found again: each unique, and sought in every form in which it might get out.

use base64::{
    Engine, engine::general_purpose::STANDARD_NO_PAD, engine::general_purpose::URL_SAFE_NO_PAD,
};
use evil_mcp::dice::mixed;
use memchr::memmem;

/// A secret that was put somewhere.
#[derive(Clone, Debug)]
pub struct Canary {
    /// Which way it went in.
    pub way: String,
    pub value: String,
    /// The STDIO server whose own process is given it.
    pub child: Option<String>,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    pub fn of(way: impl Into<String>, value: impl Into<String>) -> Canary {
        let (way, value) = (way.into(), value.into());
        let forms = forms(&value);
        Canary { way, value, child: None, forms }
    }

    /// The form in which it stands in these bytes, if it does.
    pub fn form_in(&self, bytes: &[u8]) -> Option<&'static str> {
        let found = self.forms.iter().find(|(_, form)| memmem::find(bytes, form).is_some());
        found.map(|(name, _)| *name)
    }
}

/// All of them, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Canaries {
    pub all: Vec<Canary>,
    seed: u64,
}

impl Canaries {
    pub fn new(seed: u64) -> Canaries {
        Canaries { all: Vec::new(), seed }
    }

    /// A new one. It looks like nothing in particular, so that no rule for known kinds of secrets helps.
    pub fn make(&mut self, way: impl Into<String>) -> String {
        let number = self.all.len() as u64;
        let value = format!("kestrel+{:016x}/{number:02}", mixed(self.seed ^ number << 8));
        self.all.push(Canary::of(way, value.clone()));
        value
    }

    /// One that a child's own process may hold.
    pub fn make_for(&mut self, child: &str, way: impl Into<String>) -> String {
        let value = self.make(way);
        if let Some(last) = self.all.last_mut() {
            last.child = Some(child.to_owned());
        }
        value
    }

    /// One that somebody else made.
    pub fn note(&mut self, way: &str, value: &str) {
        self.all.push(Canary::of(way, value));
    }
}

fn forms(value: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = value.as_bytes();
    let mut forms = vec![
        ("as it is", bytes.to_vec()),
        ("in a URL", in_url(value).into_bytes()),
        ("in a URL", in_url(value).to_lowercase().into_bytes()),
        ("with escaped slashes", value.replace('/', "\\/").into_bytes()),
        ("in hex", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()),
        ("in hex", bytes.iter().map(|byte| format!("{byte:02X}")).collect::<String>().into()),
    ];
    for before in 0..3 {
        // What stands before it moves it within the groups of three; what neighbours share is cut off.
        let shifted: Vec<u8> =
            std::iter::repeat_n(0, before).chain(bytes.iter().copied()).collect();
        let first = (before * 8).div_ceil(6);
        let last = shifted.len() * 8 / 6;
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let text = engine.encode(&shifted);
            forms.push(("in base64", text.as_bytes()[first..last].to_vec()));
        }
    }
    forms
}

/// With everything but letters and digits as `%XX`.
pub fn in_url(value: &str) -> String {
    let one = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn a_canary_is_found_in_every_form() {
        let value = Canaries::new(7).make("somewhere");
        let canary = Canary::of("somewhere", value.clone());
        assert_eq!(canary.form_in(format!("token={value};").as_bytes()), Some("as it is"));
        assert_eq!(canary.form_in(format!("?k={}&", in_url(&value)).as_bytes()), Some("in a URL"));
        for before in ["", "u", "us", "use", "user"] {
            let packed = STANDARD.encode(format!("{before}{value}:rest"));
            assert_eq!(canary.form_in(packed.as_bytes()), Some("in base64"), "{before}");
        }
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(canary.form_in(hex.as_bytes()), Some("in hex"));
        assert_eq!(canary.form_in(b"kestrel+0000000000000000/00"), None);
    }
}
