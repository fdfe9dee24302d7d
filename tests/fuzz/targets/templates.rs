//! A template matches what the regular expression matches that means the same.

use metamcpd::catalogue::template::Template;
use regex::bytes::Regex;

/// The template as a regular expression over bytes; `None` where it is none.
fn as_regex(template: &str) -> Option<Regex> {
    let mut pattern = String::from("(?s-u)^");
    let mut rest = template;
    loop {
        let brace = rest.find(['{', '}']);
        let literal = &rest[..brace.unwrap_or(rest.len())];
        for byte in literal.bytes() {
            pattern.push_str(&format!("\\x{byte:02x}"));
        }
        let Some(brace) = brace else { break };
        if rest.as_bytes()[brace] == b'}' {
            return None;
        }
        let length = rest[brace + 1..].find(['{', '}'])?;
        let expression = &rest[brace + 1..][..length];
        if rest.as_bytes()[brace + 1 + length] == b'{' {
            return None;
        }
        pattern.push_str(&values(expression)?);
        rest = &rest[brace + 1 + length + 1..];
    }
    pattern.push('$');
    Some(Regex::new(&pattern).expect("a pattern"))
}

fn values(expression: &str) -> Option<String> {
    let operator = expression.chars().next()?;
    let variables =
        expression.strip_prefix(['+', '#', '.', '/', ';', '?', '&']).unwrap_or(expression);
    if variables.is_empty() {
        return None;
    }
    let has_several = variables.contains([',', '*']);
    let (first, class) = match operator {
        '+' => ("", "."),
        '#' => ("\\x23", "."),
        '/' if has_several => ("/", "[^?\\x23]"),
        '/' => ("/", "[^/]"),
        '.' => ("\\.", "[^/]"),
        ';' => (";", "[^/]"),
        '?' => ("\\?", "[^\\x23]"),
        '&' => ("\\x26", "[^\\x23]"),
        _ => ("", "[^/]"),
    };
    Some(match first {
        "" => format!("{class}+"),
        first => format!("(?:{first}{class}*)?"),
    })
}

/// The bytes are a template and a URI, with a line end between them.
pub fn template(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (template, uri) = text.split_once('\n').unwrap_or((&text, ""));
    let parsed = Template::parse(template);
    let regex = as_regex(template);
    assert_eq!(parsed.is_some(), regex.is_some(), "{template}");
    if let Some((parsed, regex)) = parsed.zip(regex) {
        assert_eq!(parsed.matches(uri), regex.is_match(uri.as_bytes()), "{template} {uri}");
    }
}
