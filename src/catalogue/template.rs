//! Matches URIs against the templates of resources (RFC 6570), to find who can be asked for one.
//!
//! A template is not taken apart into its variables: its server does that. What is decided is
//! whether a URI can have come of it, leniently, since servers differ in what they let a variable
//! hold; and which of two templates says more about a URI. The time is in proportion to the lengths
//! of both, whatever they hold.

/// A template that URIs can be held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

/// How much a template says about the URIs that match it: the more, the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    literal_bytes: usize,
    /// Expressions, counted down, since fewer of them say more.
    few_expressions: isize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Expression {
        /// What stands before the first value, where the operator has it so. All of it may be
        /// missing then: an undefined variable leaves nothing.
        first: Option<u8>,
        takes: Takes,
    },
}

/// The bytes that the values of an expression may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// `+` and `#`: reserved characters too.
    Everything,
    /// One segment of a path.
    Segment,
    /// Segments of a path.
    Path,
    /// A query, up to a fragment.
    Query,
}

impl Takes {
    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Everything => true,
            Self::Segment => byte != b'/',
            Self::Path => !matches!(byte, b'?' | b'#'),
            Self::Query => byte != b'#',
        }
    }
}

impl Template {
    /// `None` for what is no template: a brace without its other, or nothing between two.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            let (expression, after) = after.split_once('}')?;
            if literal.contains('}') {
                return None;
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            parts.push(Part::expression(expression)?);
            rest = after;
        }
        if rest.contains('}') {
            return None;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Some(Self { parts })
    }

    /// Whether the URI can have come of this template.
    pub fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        // The places of the URI that the parts so far can have brought us to.
        let mut reached = vec![false; uri.len() + 1];
        reached[0] = true;
        for part in &self.parts {
            reached = part.from(&reached, uri);
        }
        reached[uri.len()]
    }

    pub fn specificity(&self) -> Specificity {
        let mut specificity = Specificity { literal_bytes: 0, few_expressions: 0 };
        for part in &self.parts {
            match part {
                Part::Literal(literal) => specificity.literal_bytes += literal.len(),
                Part::Expression { .. } => specificity.few_expressions -= 1,
            }
        }
        specificity
    }
}

impl Part {
    /// Reads what stands between two braces (RFC 6570, section 2.2).
    fn expression(text: &str) -> Option<Self> {
        let operator = text.bytes().next()?;
        let is_operator = b"+#./;?&".contains(&operator);
        let variables = if is_operator { &text[1..] } else { text };
        if variables.is_empty() || variables.contains('{') {
            return None;
        }
        let has_several = variables.contains([',', '*']);
        let (first, takes) = match operator {
            b'+' => (None, Takes::Everything),
            b'#' => (Some(b'#'), Takes::Everything),
            b'.' => (Some(b'.'), Takes::Segment),
            b'/' if has_several => (Some(b'/'), Takes::Path),
            b'/' => (Some(b'/'), Takes::Segment),
            b';' => (Some(b';'), Takes::Segment),
            b'?' | b'&' => (Some(operator), Takes::Query),
            _ => (None, Takes::Segment),
        };
        Some(Self::Expression { first, takes })
    }

    /// The places that this part leads to from those that are reached.
    fn from(&self, reached: &[bool], uri: &[u8]) -> Vec<bool> {
        let mut next = vec![false; reached.len()];
        match self {
            Self::Literal(literal) => {
                let literal = literal.as_bytes();
                for (place, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                    if uri[place..].starts_with(literal) {
                        next[place + literal.len()] = true;
                    }
                }
            }
            Self::Expression { first, takes } => {
                let mut is_within = false;
                for place in 0..reached.len() {
                    // Values begin where the part does, or after its first byte; and a run of them
                    // goes on for as long as its bytes may stand in one.
                    let begins = match first {
                        None => reached[place],
                        Some(_) if place == 0 => false,
                        Some(first) => reached[place - 1] && uri[place - 1] == *first,
                    };
                    let goes_on = is_within && place > 0 && takes.takes(uri[place - 1]);
                    next[place] = goes_on || (first.is_some() && (begins || reached[place]));
                    is_within = begins || goes_on;
                }
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn matches(template: &str, uri: &str) -> bool {
        Template::parse(template).unwrap().matches(uri)
    }

    #[test]
    fn a_uri_matches_what_it_can_have_come_of() {
        for (template, uri, expected) in [
            ("test://{id}/data", "test://123/data", true),
            ("test://{id}/data", "test://a:b@c/data", true),
            ("test://{id}/data", "test://1/2/data", false),
            ("test://{id}/data", "test:///data", false),
            ("test://{id}/data", "test://123/data/", false),
            ("test://{id}", "test://é%20x", true),
            ("test://{a}-{b}", "test://1-2-3", true),
            ("test://{a,b}", "test://1,2", true),
            ("file:///{+path}", "file:///a/b/c.txt?x#y", true),
            ("file:///{+path}", "file:///", false),
            ("file://{/path*}", "file:///a/b", true),
            ("file://{/path*}", "file://", true),
            ("file://{/a}{/b}", "file:///1/2", true),
            ("file://{/a}", "file:///1/2", false),
            ("x://a{?q,r}", "x://a", true),
            ("x://a{?q,r}", "x://a?q=1&r=/", true),
            ("x://a{?q}", "x://ab", false),
            ("x://a?b=1{&q}", "x://a?b=1&q=2", true),
            ("x://a{#f}", "x://a#b/c", true),
            ("x://a{.ext}", "x://a.tar.gz", true),
            ("x://a{;p}", "x://a;p=1", true),
            ("x://a{;p}", "x://a;p=1/b", false),
            ("x://plain", "x://plain", true),
            ("x://plain", "x://plainer", false),
            ("{+all}", "anything://at/all", true),
            ("{+a}{+b}", "x", false),
        ] {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn what_is_no_template_is_none() {
        for text in
            ["x://{", "x://}", "x://{a", "x://a}", "x://{}", "x://{a{b}}", "x://{+}", "{a}}"]
        {
            assert_eq!(Template::parse(text), None, "{text}");
        }
    }

    #[test]
    fn who_says_more_about_a_uri_is_more_specific() {
        let specificity = |text| Template::parse(text).unwrap().specificity();
        for (more, less) in [
            ("test://a/{id}", "test://{+all}"),
            ("test://a/{id}/data", "test://a/{id}"),
            ("test://{a}", "test://{a}{b}"),
        ] {
            assert!(specificity(more) > specificity(less), "{more} {less}");
        }
    }

    /// A template's text, and that of a URI that comes of it.
    fn expansion() -> impl Strategy<Value = (String, String)> {
        let value = "[A-Za-z0-9._~-]{1,5}";
        let part = prop_oneof![
            "[a-z:/]{1,4}".prop_map(|literal| (literal.clone(), literal)),
            value.prop_map(|value| ("{v}".to_owned(), value)),
            (value, value).prop_map(|(one, two)| ("{v,w}".to_owned(), format!("{one},{two}"))),
            "[a-z/?#:]{1,6}".prop_map(|value| ("{+v}".to_owned(), value)),
            value.prop_map(|value| ("{/v}".to_owned(), format!("/{value}"))),
            (value, value).prop_map(|(one, two)| ("{/v*}".to_owned(), format!("/{one}/{two}"))),
            value.prop_map(|value| ("{?v}".to_owned(), format!("?v={value}"))),
            value.prop_map(|value| ("{.v}".to_owned(), format!(".{value}"))),
            Just(("{&v}".to_owned(), String::new())),
            Just(("{#v}".to_owned(), String::new())),
        ];
        prop::collection::vec(part, 0..8).prop_map(|parts| parts.into_iter().unzip())
    }

    proptest! {
        #[test]
        fn what_comes_of_a_template_matches_it((template, uri) in expansion()) {
            prop_assert!(matches(&template, &uri), "{} {}", template, uri);
        }

        #[test]
        fn no_text_makes_it_stumble(template in ".{0,40}", uri in ".{0,40}") {
            if let Some(template) = Template::parse(&template) {
                template.matches(&uri);
            }
        }
    }
}
