//! Turns the references that editors put into values into ours: `${VAR}` and `${VAR:-default}`.
//!
//! Nothing is resolved here. A reference that only an editor can fill is refused: left as it is, it
//! would reach a server as a nonsensical secret or path.

use super::{Refusal, Warning};

const ACCEPTED: &str = "the value itself, or a variable of the daemon's environment as `${VAR}`";

/// Mends the references in a value that is kept apart from the command line: the environment,
/// headers, tokens and URLs. Two more spellings are known there: a value that is `$NAME` and nothing
/// else, and `{env:NAME}`.
pub(super) fn mend_value(
    field: &str,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<String, Refusal> {
    if text.contains("{file:") {
        let reason = "refers to a file, which only the client reads";
        return Err(Refusal::new(field, reason, ACCEPTED));
    }
    let mut text = text.to_owned();
    let (word, name) = match text.split_once(' ') {
        Some((word, name)) if word.eq_ignore_ascii_case("bearer") => (format!("{word} "), name),
        _ => (String::new(), text.as_str()),
    };
    if let Some(name) = name.strip_prefix('$').filter(|name| is_upper_variable(name)) {
        let told = format!("refers to `${name}`, taken as `${{{name}}}`");
        warnings.push(Warning::new(field, told));
        text = format!("{word}${{{name}}}");
    }
    mend_with(field, &mend_braces(field, &text, warnings), warnings, true)
}

/// opencode's `{env:NAME}`. `${env:NAME}` is left to `mend_with`.
fn mend_braces(field: &str, text: &str, warnings: &mut Vec<Warning>) -> String {
    const OPENS: &str = "{env:";
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPENS) {
        mended.push_str(before);
        let is_of_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let end = after.find(|char| !is_of_name(char)).unwrap_or(after.len());
        let (name, behind) = after.split_at(end);
        rest = match behind.strip_prefix('}') {
            Some(behind) if !before.ends_with('$') && is_variable(name) => {
                let told = format!("refers to `{{env:{name}}}`, taken as `${{{name}}}`");
                warnings.push(Warning::new(field, told));
                mended.push_str(&format!("${{{name}}}"));
                behind
            }
            _ => {
                mended.push_str(OPENS);
                after
            }
        };
    }
    mended.push_str(rest);
    mended
}

/// Mends the references in an argument, where what the client asks its person for has no place.
pub(super) fn mend(
    field: &str,
    text: &str,
    warnings: &mut Vec<Warning>,
) -> Result<String, Refusal> {
    mend_with(field, text, warnings, false)
}

fn mend_with(
    field: &str,
    text: &str,
    warnings: &mut Vec<Warning>,
    may_ask: bool,
) -> Result<String, Refusal> {
    let mut mended = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inner, behind)) = after.split_once('}') else { break };
        mended.push_str(before);
        match meaning(inner) {
            Meaning::Ours => mended.push_str(&format!("${{{inner}}}")),
            Meaning::Variable(variable) => {
                let text = format!("refers to `${{{inner}}}`, taken as `${{{variable}}}`");
                warnings.push(Warning::new(field, text));
                mended.push_str(&format!("${{{variable}}}"));
            }
            Meaning::Asked(input) if may_ask && variable_for(input).is_some() => {
                let variable = variable_for(input).unwrap_or_default();
                let text = format!(
                    "is asked for by the client (`${{{inner}}}`); set the variable {variable} for the daemon"
                );
                warnings.push(Warning::new(field, text));
                mended.push_str(&format!("${{{variable}}}"));
            }
            Meaning::Asked(_) | Meaning::EditorsOwn => {
                let reason = format!("refers to `${{{inner}}}`, which only an editor can fill");
                return Err(Refusal::new(field, reason, ACCEPTED));
            }
        }
        rest = behind;
    }
    mended.push_str(rest);
    Ok(mended)
}

enum Meaning<'a> {
    /// One of our own references, or no reference at all.
    Ours,
    Variable(&'a str),
    /// The client asks its person for it (VS Code's `inputs`).
    Asked(&'a str),
    EditorsOwn,
}

fn meaning(inner: &str) -> Meaning<'_> {
    if let Some((variable, _)) = inner.split_once(":-")
        && is_variable(variable)
    {
        return Meaning::Ours;
    }
    match inner.split_once(':') {
        Some(("env", variable)) if is_variable(variable) => Meaning::Variable(variable),
        Some(("input", id)) => Meaning::Asked(id),
        Some(("command" | "config" | "file" | "workspaceFolder", _)) => Meaning::EditorsOwn,
        Some(_) => Meaning::Ours,
        None => match inner {
            "userHome" => Meaning::Variable("HOME"),
            "workspaceFolder" | "workspaceFolderBasename" | "workspaceRoot" | "extensionPath" => {
                Meaning::EditorsOwn
            }
            _ => Meaning::Ours,
        },
    }
}

/// The variable that stands for what a client asks for: `github-token` becomes `GITHUB_TOKEN`.
fn variable_for(input: &str) -> Option<String> {
    let letter =
        |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_uppercase() } else { '_' };
    let name: String = input.trim().chars().map(letter).collect();
    is_variable(&name).then_some(name)
}

/// As variables are written by habit, so that a password that begins with `$` is none.
fn is_upper_variable(name: &str) -> bool {
    is_variable(name) && name.len() > 1 && !name.contains(|char: char| char.is_ascii_lowercase())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn references_to_the_environment_become_ours() {
        for (text, expected, warned) in [
            ("plain", "plain", 0),
            ("${TOKEN}", "${TOKEN}", 0),
            ("a${TOKEN:-env:x}b", "a${TOKEN:-env:x}b", 0),
            ("Bearer ${env:TOKEN}!", "Bearer ${TOKEN}!", 1),
            ("${env:A}${B}${env:C}", "${A}${B}${C}", 2),
            ("${userHome}/x", "${HOME}/x", 1),
            ("p${q", "p${q", 0),
            ("$x {y} ${ } ${a b:c}", "$x {y} ${ } ${a b:c}", 0),
        ] {
            let mut warnings = Vec::new();
            assert_eq!(mend("f", text, &mut warnings).unwrap(), expected);
            assert_eq!(warnings.len(), warned, "{text}");
        }
    }

    #[test]
    fn a_value_may_be_written_as_more_clients_write_it() {
        for (text, expected) in [
            ("$TOKEN", "${TOKEN}"),
            ("Bearer $TOKEN", "Bearer ${TOKEN}"),
            ("Bearer {env:TOKEN}", "Bearer ${TOKEN}"),
            ("{env:A}-{env:B}", "${A}-${B}"),
            ("${env:A}-{env:B}", "${A}-${B}"),
            ("{env:a b}{env:}{env:{env:A}", "{env:a b}{env:}{env:${A}"),
            ("${env:TOKEN}", "${TOKEN}"),
            ("${input:github-token}", "${GITHUB_TOKEN}"),
            ("Bearer ${input:key}", "Bearer ${KEY}"),
        ] {
            let mut warnings = Vec::new();
            assert_eq!(mend_value("f", text, &mut warnings).unwrap(), expected);
            assert!(!warnings.is_empty(), "{text}");
        }
        for plain in ["pa$$word", "$ecret", "$X", "cost $FIVE", "{env:a b}", "a{env:"] {
            let mut warnings = Vec::new();
            assert_eq!(mend_value("f", plain, &mut warnings).unwrap(), plain);
            assert!(warnings.is_empty(), "{plain}");
        }
        assert!(mend_value("f", "{file:./secret}", &mut Vec::new()).is_err());
        assert!(mend_value("f", "${input:}", &mut Vec::new()).is_err());
    }

    #[test]
    fn what_only_an_editor_can_fill_is_refused() {
        for text in ["${input:token}", "a ${workspaceFolder}/b", "${command:x}"] {
            let refusal = mend("f", text, &mut Vec::new()).unwrap_err();
            assert_eq!(refusal.field, "f");
        }
    }
}
