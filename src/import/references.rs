//! Turns the references that editors put into values into ours: `${VAR}` and `${VAR:-default}`.
//!
//! Nothing is resolved here. A reference that only an editor can fill is refused: left as it is, it
//! would reach a server as a nonsensical secret or path.

use super::{Refusal, Warning};

const ACCEPTED: &str = "the value itself, or a variable of the daemon's environment as `${VAR}`";

/// Mends the references in the value of `field`.
pub(super) fn mend(
    field: &str,
    text: &str,
    warnings: &mut Vec<Warning>,
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
            Meaning::EditorsOwn => {
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
        Some(("input" | "command" | "config" | "file" | "workspaceFolder", _)) => {
            Meaning::EditorsOwn
        }
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
    fn what_only_an_editor_can_fill_is_refused() {
        for text in ["${input:token}", "a ${workspaceFolder}/b", "${command:x}"] {
            let refusal = mend("f", text, &mut Vec::new()).unwrap_err();
            assert_eq!(refusal.field, "f");
        }
    }
}
