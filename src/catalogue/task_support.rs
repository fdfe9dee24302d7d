//! Whether a tool can be called as a task (server features, "Tools", `execution.taskSupport`,
//! 2025-11-25), and how it is shown to those who know of no tasks.

use bytes::Bytes;
use memchr::memmem;
use serde_json::value::RawValue;

use crate::wire::object::{Object, splice};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskSupport {
    /// It can only be called plainly; so too where nothing is said.
    #[default]
    Forbidden,
    Optional,
    /// It can only be called as a task.
    Required,
}

impl TaskSupport {
    /// What a tool's definition says.
    pub fn of(definition: &[u8]) -> Self {
        let said = || Object::of(definition)?.object("execution")?.text("taskSupport");
        match memmem::find(definition, b"taskSupport").and_then(|_| said()).as_deref() {
            Some("optional") => Self::Optional,
            Some("required") => Self::Required,
            Some(_) | None => Self::Forbidden,
        }
    }
}

/// A tool's definition with nothing said of tasks. `None` where nothing is.
pub fn hidden(definition: &[u8]) -> Option<Bytes> {
    memmem::find(definition, b"taskSupport")?;
    let tool = Object::of(definition)?;
    let execution = tool.object("execution")?;
    let within = execution.cut("taskSupport")?;
    let cut = match execution.len() {
        1 => tool.cut("execution")?,
        _ => within,
    };
    Some(splice(definition, &mut [(cut, b"")]))
}

/// A JSON array of tools with nothing said of tasks.
pub fn hidden_in(list: &Bytes) -> Bytes {
    if memmem::find(list, b"taskSupport").is_none() {
        return list.clone();
    }
    let Ok(tools) = serde_json::from_slice::<Vec<&RawValue>>(list) else { return list.clone() };
    let shown = tools.iter().map(|tool| {
        let tool = tool.get().as_bytes();
        hidden(tool).unwrap_or_else(|| Bytes::copy_from_slice(tool))
    });
    let shown: Vec<Bytes> = shown.collect();
    [b"[", shown.join(&b","[..]).as_slice(), b"]"].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tool_says_is_understood_and_anything_else_forbids() {
        for (definition, expected) in [
            (r#"{"name":"t"}"#, TaskSupport::Forbidden),
            (r#"{"name":"t","execution":{"taskSupport":"forbidden"}}"#, TaskSupport::Forbidden),
            (r#"{"name":"t","execution":{"taskSupport":"optional"}}"#, TaskSupport::Optional),
            (r#"{"execution":{"x":1,"taskSupport":"required"}}"#, TaskSupport::Required),
            (r#"{"execution":{"taskSupport":"odd"}}"#, TaskSupport::Forbidden),
            (r#"{"execution":{"taskSupport":true}}"#, TaskSupport::Forbidden),
            (r#"{"name":"taskSupport","taskSupport":"required"}"#, TaskSupport::Forbidden),
        ] {
            assert_eq!(TaskSupport::of(definition.as_bytes()), expected, "{definition}");
        }
    }

    #[test]
    fn nothing_but_the_word_about_tasks_is_left_out() {
        let list = Bytes::from_static(
            br#"[{"name":"a","execution":{"taskSupport":"required"},"n":1.50},{"name":"b"},{"execution":{"taskSupport":"optional","x":1}},{"description":"taskSupport"}]"#,
        );
        assert_eq!(
            hidden_in(&list),
            r#"[{"name":"a","n":1.50},{"name":"b"},{"execution":{"x":1}},{"description":"taskSupport"}]"#
        );
        let plain = Bytes::from_static(br#"[ {"name":"a"} ]"#);
        assert_eq!(hidden_in(&plain), plain);
    }
}
