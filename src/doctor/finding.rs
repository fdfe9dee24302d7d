//! What an examination finds, and how it is told to people and to programs.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// It works, and may not stay so or may not be what was meant.
    Warning,
    /// It does not work, or will not at the next start.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at: `settings`, `data directory`, `database`, `daemon`, `public url`,
    /// ``endpoint `name` `` or ``upstream `name` ``.
    pub about: String,
    pub what: String,
    /// What to do about it. Never there when all is well, and always when it is not.
    pub cure: Option<String>,
}

impl Finding {
    pub fn ok(about: impl Into<String>, what: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, about: about.into(), what: what.into(), cure: None }
    }

    pub fn warning(
        about: impl Into<String>,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        let (about, what, cure) = (about.into(), what.into(), Some(cure.into()));
        Self { severity: Severity::Warning, about, what, cure }
    }

    pub fn error(
        about: impl Into<String>,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Error, ..Self::warning(about, what, cure) }
    }

    /// For people: one line, and the cure on a line of its own.
    pub fn to_text(&self) -> String {
        let word = match self.severity {
            Severity::Ok => "ok     ",
            Severity::Warning => "warning",
            Severity::Error => "error  ",
        };
        let (about, what) = (one_line(&self.about), one_line(&self.what));
        match &self.cure {
            None => format!("{word} {about}: {what}"),
            Some(cure) => format!("{word} {about}: {what}\n        -> {}", one_line(cure)),
        }
    }
}

/// The worst of them; nothing found is well.
pub fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// What servers say of themselves may hold anything.
fn one_line(text: &str) -> String {
    text.split(|letter: char| letter.is_control())
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_and_its_cure_another() {
        let fine = Finding::ok("database", "SQLite, up to date");
        assert_eq!(fine.to_text(), "ok      database: SQLite, up to date");
        let bad = Finding::error("upstream `x`", "said:\n\u{1b}[31moh", "mend it");
        assert_eq!(
            bad.to_text(),
            "error   upstream `x`: said: | [31moh\n        -> mend it",
            "no control character reaches the terminal"
        );
    }

    #[test]
    fn the_worst_finding_decides() {
        let (fine, odd) = (Finding::ok("a", "b"), Finding::warning("a", "b", "c"));
        assert_eq!(worst(&[]), Severity::Ok);
        assert_eq!(worst(&[fine.clone(), odd.clone()]), Severity::Warning);
        assert_eq!(worst(&[Finding::error("a", "b", "c"), odd, fine]), Severity::Error);
    }
}
