//! What was done about a tool, in words for operators.

use std::collections::BTreeSet;

use bytes::Bytes;

/// What a tool is for the clients of one profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    AsItCame,
    Repaired {
        /// The tool as these clients see it.
        definition: Bytes,
        repairs: Repairs,
        /// The one member of the arguments that holds what the tool itself takes, where its root had to
        /// be wrapped.
        wrapped_in: Option<Box<str>>,
    },
    Hidden(Unusable),
}

pub type Repairs = BTreeSet<Repair>;

/// One kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Repair {
    /// A member of the tool that was `null` or of the wrong type is left out.
    FieldDropped,
    /// It had no `inputSchema`, so it takes an object.
    InputSchemaAdded,
    /// `$schema` and its like are left out.
    DialectDropped,
    /// What a `$ref` refers to stands in its place.
    RefInlined,
    /// A `$ref` that leads in a circle, too far or nowhere became a type without details.
    RefCut,
    /// The root says now that it is an object.
    RootTyped,
    /// `allOf` at the root became one object.
    RootFlattened,
    /// The root became the one member of a new root; arguments are unwrapped on their way.
    RootWrapped,
    /// An array says what it is of.
    ItemsAdded,
    /// Several types became alternatives of one type each, or `nullable`.
    TypesSplit,
    /// The same said in other words, such as those of a newer draft.
    Reworded,
    /// A rule that these clients have no words for is left out.
    KeywordDropped,
    /// A note without a rule that these clients do not know is left out.
    NoteDropped,
    /// The `outputSchema` could not be used. Results keep their `structuredContent`, which no schema
    /// speaks of any more.
    OutputSchemaDropped,
}

impl Repair {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FieldDropped => "field_dropped",
            Self::InputSchemaAdded => "input_schema_added",
            Self::DialectDropped => "dialect_dropped",
            Self::RefInlined => "ref_inlined",
            Self::RefCut => "ref_cut",
            Self::RootTyped => "root_typed",
            Self::RootFlattened => "root_flattened",
            Self::RootWrapped => "root_wrapped",
            Self::ItemsAdded => "items_added",
            Self::TypesSplit => "types_split",
            Self::Reworded => "reworded",
            Self::KeywordDropped => "keyword_dropped",
            Self::NoteDropped => "note_dropped",
            Self::OutputSchemaDropped => "output_schema_dropped",
        }
    }
}

/// Why a tool cannot be shown to these clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Unusable {
    #[error("its name has characters, or a length, that these clients refuse: override it")]
    Name,
    #[error("its `inputSchema` allows no object, and arguments are always one")]
    RootNotObject,
    #[error("its `inputSchema` is not a schema")]
    Malformed,
    #[error("its `inputSchema` is too large (`lists.schema_max`)")]
    TooLarge,
    #[error("its `inputSchema` is nested too deeply")]
    TooDeep,
    #[error("its `inputSchema` takes too much work for its size")]
    TooComplex,
}

impl Unusable {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name_not_accepted",
            Self::RootNotObject => "root_not_object",
            Self::Malformed => "schema_malformed",
            Self::TooLarge => "schema_too_large",
            Self::TooDeep => "schema_too_deep",
            Self::TooComplex => "schema_too_complex",
        }
    }
}
