//! What each family of clients takes, as data, and what is known of the keywords of JSON Schema.
//!
//! The facts are those that users of such clients have reported; each line says what happens otherwise.

/// What one family takes.
#[derive(Debug)]
pub struct Rules {
    pub name: fn(&str) -> bool,
    /// Whether `$ref` is replaced by what it refers to.
    pub inlines_refs: bool,
    pub types: Types,
    pub items: Items,
    /// Whether `true` and `false` may stand for schemas.
    pub has_booleans: bool,
    /// The only keywords that are taken; `None` where unknown ones are let be.
    pub vocabulary: Option<&'static [&'static str]>,
}

/// What becomes of a list of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    Keep,
    /// `anyOf` with one type each.
    Alternatives,
    /// The same, but `nullable` in the place of `null`.
    Nullable,
}

/// What has to be said of the elements of an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Items {
    Keep,
    /// There has to be `items`, whatever it says.
    Present,
    /// `items` has to say which type.
    Concrete,
}

/// For all: a root that is not `type: object` (the official SDKs reject the whole list), or that has
/// alternatives (the models' APIs reject the request, or some clients drop the tool without a word); a
/// `$schema` of another draft (the whole request is rejected).
pub const STRICT_COMMON: Rules = Rules {
    name: is_common_name,
    inlines_refs: true,
    types: Types::Alternatives,
    items: Items::Concrete,
    has_booleans: false,
    vocabulary: None,
};

/// Takes all of 2020-12 below the root.
pub const CLAUDE: Rules = Rules {
    name: is_plain_name,
    inlines_refs: false,
    types: Types::Keep,
    items: Items::Keep,
    has_booleans: true,
    vocabulary: None,
};

/// An array without `items` is an error of the whole request.
pub const OPENAI: Rules = Rules { items: Items::Present, ..CLAUDE };

/// An array whose `items` are missing or say nothing is an error of the whole request; `$ref` is not
/// followed for every model.
pub const VSCODE: Rules =
    Rules { inlines_refs: true, items: Items::Concrete, has_booleans: false, ..CLAUDE };

/// Takes the words of its own schema and no other: each unknown one is an error of the whole request.
pub const GEMINI: Rules = Rules {
    name: is_gemini_name,
    inlines_refs: true,
    types: Types::Nullable,
    items: Items::Concrete,
    has_booleans: false,
    vocabulary: Some(&[
        "anyOf",
        "default",
        "description",
        "enum",
        "example",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "propertyOrdering",
        "required",
        "title",
        "type",
    ]),
};

/// Of an `outputSchema`, by which clients judge results: nothing may be narrowed.
pub const RESULTS: Rules = Rules { name: |_| true, ..CLAUDE };

/// The formats that Gemini knows.
pub const GEMINI_FORMATS: &[&str] = &["date-time", "double", "enum", "float", "int32", "int64"];

/// What may not stand at the root of a schema of arguments.
pub const ROOT_UNIONS: &[&str] =
    &["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "enum", "const"];

/// In the place of a schema that says nothing, where it has to say something.
pub const ANY_VALUE: &[&str] = &["string", "number", "boolean", "object"];

/// Bytes that the models' APIs allow a name.
const NAME_MAX: usize = 64;

fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    name.len() <= NAME_MAX && name.bytes().all(is_plain)
}

fn is_gemini_name(name: &str) -> bool {
    let is_taken =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b':');
    name.len() <= NAME_MAX && name.bytes().all(is_taken) && begins_with_letter(name)
}

fn is_common_name(name: &str) -> bool {
    is_plain_name(name) && begins_with_letter(name)
}

fn begins_with_letter(name: &str) -> bool {
    name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
}

/// What the value of a keyword has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Any,
    Text,
    Truth,
    Number,
    /// A number of 0 or more that is whole.
    Count,
    List,
    /// Texts, none of them twice.
    Texts,
    Types,
    Schema,
    /// Schemas, at least one.
    Schemas,
    SchemaMap,
    /// For each name a list of texts.
    TextsMap,
}

/// A keyword of 2020-12, what its value has to be, and whether it is a rule for values rather than a
/// note.
pub struct Keyword {
    pub name: &'static str,
    pub shape: Shape,
    pub is_rule: bool,
}

const fn rule(name: &'static str, shape: Shape) -> Keyword {
    Keyword { name, shape, is_rule: true }
}

const fn note(name: &'static str, shape: Shape) -> Keyword {
    Keyword { name, shape, is_rule: false }
}

const KEYWORDS: &[Keyword] = &[
    rule("type", Shape::Types),
    rule("enum", Shape::List),
    rule("const", Shape::Any),
    rule("properties", Shape::SchemaMap),
    rule("patternProperties", Shape::SchemaMap),
    rule("additionalProperties", Shape::Schema),
    rule("unevaluatedProperties", Shape::Schema),
    rule("propertyNames", Shape::Schema),
    rule("required", Shape::Texts),
    rule("minProperties", Shape::Count),
    rule("maxProperties", Shape::Count),
    rule("dependentRequired", Shape::TextsMap),
    rule("dependentSchemas", Shape::SchemaMap),
    rule("items", Shape::Schema),
    rule("prefixItems", Shape::Schemas),
    rule("unevaluatedItems", Shape::Schema),
    rule("contains", Shape::Schema),
    rule("minContains", Shape::Count),
    rule("maxContains", Shape::Count),
    rule("minItems", Shape::Count),
    rule("maxItems", Shape::Count),
    rule("uniqueItems", Shape::Truth),
    rule("minLength", Shape::Count),
    rule("maxLength", Shape::Count),
    rule("pattern", Shape::Text),
    rule("minimum", Shape::Number),
    rule("maximum", Shape::Number),
    rule("exclusiveMinimum", Shape::Number),
    rule("exclusiveMaximum", Shape::Number),
    rule("multipleOf", Shape::Number),
    rule("allOf", Shape::Schemas),
    rule("anyOf", Shape::Schemas),
    rule("oneOf", Shape::Schemas),
    rule("not", Shape::Schema),
    rule("if", Shape::Schema),
    rule("then", Shape::Schema),
    rule("else", Shape::Schema),
    rule("$ref", Shape::Text),
    rule("$dynamicRef", Shape::Text),
    note("$defs", Shape::SchemaMap),
    note("definitions", Shape::SchemaMap),
    note("$id", Shape::Text),
    note("$anchor", Shape::Text),
    note("$dynamicAnchor", Shape::Text),
    note("$comment", Shape::Text),
    note("title", Shape::Text),
    note("description", Shape::Text),
    note("format", Shape::Text),
    note("contentEncoding", Shape::Text),
    note("contentMediaType", Shape::Text),
    note("contentSchema", Shape::Schema),
    note("default", Shape::Any),
    note("examples", Shape::List),
    note("deprecated", Shape::Truth),
    note("readOnly", Shape::Truth),
    note("writeOnly", Shape::Truth),
];

/// `None` for what is no keyword, and so a note of somebody's own.
pub fn keyword(name: &str) -> Option<&'static Keyword> {
    KEYWORDS.iter().find(|keyword| keyword.name == name)
}

pub fn is_rule(name: &str) -> bool {
    keyword(name).is_some_and(|keyword| keyword.is_rule)
}

/// The type that a keyword speaks of; it holds for values of no other.
pub fn type_of(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "properties"
        | "patternProperties"
        | "additionalProperties"
        | "unevaluatedProperties"
        | "propertyNames"
        | "required"
        | "minProperties"
        | "maxProperties"
        | "dependentRequired"
        | "dependentSchemas"
        | "propertyOrdering" => "object",
        "items" | "prefixItems" | "unevaluatedItems" | "contains" | "minContains"
        | "maxContains" | "minItems" | "maxItems" | "uniqueItems" => "array",
        "minLength" | "maxLength" | "pattern" => "string",
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" | "multipleOf" => "number",
        _ => return None,
    })
}
