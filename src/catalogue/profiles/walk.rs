//! Goes through one schema from the outside inwards and says it in the words of one family of clients.
//!
//! Work is bounded before it is done: by depth, by the bytes that are read, and by those that are
//! inlined, so that no schema costs more than its size allows.

use std::borrow::Cow;

use super::{
    DEPTH_MAX,
    draft::{Draft, array, elements, quoted, string, strings},
    outcome::{Repair, Repairs, Unusable},
    refs::Refs,
    rules::{GEMINI_FORMATS, Rules, Shape, is_rule, keyword},
    typing,
};

/// How often the bytes of the largest schema may be read. Each level of nesting reads those below it.
const WORK_PER_BYTE: usize = 24;
/// What the smallest schema counts for.
const WORK_MIN: usize = 48;
/// References that lead to references.
const CHAIN_MAX: usize = 24;
/// Below this nothing is inlined any more, so that what is inlined has room for its own depth.
const INLINED_DEPTH_MAX: usize = 20;

/// Keywords that only say which dialect is spoken, or where references lead.
const DIALECT: &[&str] = &["$schema", "$vocabulary"];
const PLACES: &[&str] =
    &["$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$defs", "definitions"];
/// Whether there may be more members or elements than are spoken of.
const OPEN_OR_CLOSED: &[&str] =
    &["additionalProperties", "unevaluatedProperties", "unevaluatedItems"];
/// Read by the steps below although no client of the vocabulary knows them.
const STEPS: &[&str] = &["allOf", "oneOf", "prefixItems"];

pub struct Walker<'a> {
    pub rules: &'static Rules,
    /// Whether `$ref` is replaced by what it refers to.
    pub inlines: bool,
    pub repairs: Repairs,
    refs: Refs<'a>,
    work_left: usize,
    inlinable: usize,
    /// The references that what is read just now stands in the place of.
    in_progress: Vec<String>,
    /// How deep the schema stands that is read as a part of another.
    part_at: Option<usize>,
}

impl<'a> Walker<'a> {
    pub fn new(schema: &'a str, rules: &'static Rules, schema_max: usize) -> Self {
        Self {
            rules,
            inlines: rules.inlines_refs,
            repairs: Repairs::new(),
            refs: Refs::new(schema),
            work_left: schema_max.saturating_mul(WORK_PER_BYTE),
            inlinable: schema_max,
            in_progress: Vec::new(),
            part_at: None,
        }
    }

    /// One schema, whatever it stands in. `false` comes back as it is where no client takes it: for
    /// whoever holds it to leave out.
    pub fn schema<'t>(&mut self, text: &'t str, depth: usize) -> Result<Cow<'t, str>, Unusable> {
        self.work(text.len())?;
        if depth > DEPTH_MAX {
            return Err(Unusable::TooDeep);
        }
        let mut draft = match text {
            "true" | "false" if self.rules.has_booleans => return Ok(text.into()),
            "false" if self.rules.vocabulary.is_some() => return Ok(text.into()),
            "false" => {
                self.repairs.insert(Repair::Reworded);
                return Ok(r#"{"not":{}}"#.into());
            }
            "true" => {
                self.repairs.insert(Repair::Reworded);
                Draft::empty()
            }
            text => Draft::parse(text).unwrap_or_else(|| {
                self.repairs.insert(Repair::KeywordDropped);
                Draft::empty()
            }),
        };
        // Members are looked up one by one, so that very many of them cost more than their bytes.
        self.work(draft.len() * draft.len() / 8)?;
        let progress = self.in_progress.len();
        self.inline(&mut draft, depth)?;
        self.members(&mut draft, depth)?;
        self.in_progress.truncate(progress);
        Ok(draft.text_or(text))
    }

    /// One of several schemas that together say what a value may be.
    pub fn part<'t>(&mut self, text: &'t str, depth: usize) -> Result<Cow<'t, str>, Unusable> {
        let outer = self.part_at.replace(depth);
        let part = self.schema(text, depth);
        self.part_at = outer;
        part
    }

    /// The members of a schema whose own reference was followed already.
    pub fn members(&mut self, draft: &mut Draft<'_>, depth: usize) -> Result<(), Unusable> {
        self.drop_dialect(draft);
        self.say_anew(draft);
        self.drop_malformed(draft);
        self.keep_to_vocabulary(draft, STEPS, depth);
        self.children(draft, depth)?;
        self.say_items(draft);
        self.split_types(draft);
        if self.rules.vocabulary.is_some() {
            self.express(draft)?;
            self.keep_to_vocabulary(draft, &[], depth);
        }
        Ok(())
    }

    /// Takes note of work before it is done.
    pub fn work(&mut self, bytes: usize) -> Result<(), Unusable> {
        let left = self.work_left.checked_sub(bytes.max(WORK_MIN));
        self.work_left = left.ok_or(Unusable::TooComplex)?;
        Ok(())
    }

    /// Puts in the place of a `$ref` what it refers to. One that leads in a circle, nowhere or to too
    /// much becomes its type without details.
    pub fn inline(&mut self, draft: &mut Draft<'_>, depth: usize) -> Result<(), Unusable> {
        if !self.inlines {
            return Ok(());
        }
        for dynamic in ["$dynamicRef", "$recursiveRef"] {
            if draft.remove(dynamic).is_some() {
                self.repairs.insert(Repair::RefCut);
            }
        }
        while let Some(reference) = draft.remove("$ref") {
            let reference = string(&reference).unwrap_or_default();
            let (target, read) = self.refs.resolve(&reference);
            self.work(read)?;
            let is_circle = self.in_progress.contains(&reference);
            let fits = target.as_ref().is_some_and(|target| target.len() <= self.inlinable);
            let is_far = self.in_progress.len() >= CHAIN_MAX || depth >= INLINED_DEPTH_MAX;
            let Some(target) = target.filter(|_| !is_circle && fits && !is_far) else {
                self.cut(draft, &reference)?;
                return Ok(());
            };
            self.inlinable -= target.len();
            self.in_progress.push(reference);
            self.repairs.insert(Repair::RefInlined);
            self.take_in(draft, &target)?;
        }
        Ok(())
    }

    fn take_in(&mut self, draft: &mut Draft<'_>, target: &str) -> Result<(), Unusable> {
        let Some(found) = Draft::parse(target) else {
            match target {
                "true" => {}
                "false" => draft.set("not", "{}"),
                _malformed => drop(self.repairs.insert(Repair::RefCut)),
            }
            return Ok(());
        };
        self.work(target.len())?;
        let has_rules = draft.iter().any(|(key, _)| is_rule(key));
        if has_rules {
            let mut all = draft.get("allOf").and_then(elements).unwrap_or_default();
            all.push(target);
            let all = array(&all);
            draft.set("allOf", all);
            return Ok(());
        }
        for (key, value) in found.iter() {
            if !draft.has(key) {
                draft.set(key, value.to_owned());
            }
        }
        Ok(())
    }

    fn cut(&mut self, draft: &mut Draft<'_>, reference: &str) -> Result<(), Unusable> {
        self.repairs.insert(Repair::RefCut);
        let (target, read) = self.refs.resolve(reference);
        self.work(read)?;
        let target = target.as_deref().and_then(Draft::parse);
        let kind = target.as_ref().and_then(typing::types_of);
        if let Some([only]) = kind.as_deref()
            && !draft.has("type")
        {
            draft.set("type", quoted(only));
        }
        Ok(())
    }

    fn drop_dialect(&mut self, draft: &mut Draft<'_>) {
        for key in DIALECT {
            if draft.remove(key).is_some() {
                self.repairs.insert(Repair::DialectDropped);
            }
        }
        if self.inlines {
            for key in PLACES {
                draft.remove(key);
            }
        }
    }

    /// What older drafts and other dialects say, in the words of 2020-12.
    fn say_anew(&mut self, draft: &mut Draft<'_>) {
        for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")]
        {
            let Some("true" | "false") = draft.get(exclusive) else { continue };
            self.repairs.insert(Repair::Reworded);
            if draft.remove(exclusive).as_deref() == Some("true") {
                draft.rename(limit, exclusive);
            }
        }
        if draft.get("items").is_some_and(|items| items.starts_with('[')) {
            self.repairs.insert(Repair::Reworded);
            match draft.has("prefixItems")
                || draft.get("items").and_then(elements).is_some_and(|all| all.is_empty())
            {
                true => drop(draft.remove("items")),
                false => draft.rename("items", "prefixItems"),
            }
            if draft.has("additionalItems") {
                draft.rename("additionalItems", "items");
            }
        }
        // How a member of draft 3 says that it has to be there.
        if matches!(draft.get("required"), Some("true" | "false")) {
            let is_rule = draft.remove("required").as_deref() == Some("true");
            self.repairs.insert(if is_rule { Repair::KeywordDropped } else { Repair::Reworded });
        }
        if let Some(repair) = typing::mend(draft) {
            self.repairs.insert(repair);
        }
        if self.rules.vocabulary.is_some() {
            self.say_enum(draft);
        }
    }

    /// One text, and lists of texts, are all that an enumeration can hold.
    fn say_enum(&mut self, draft: &mut Draft<'_>) {
        if let Some(only) = draft.get("const").filter(|only| only.starts_with('"')) {
            let only = format!("[{only}]");
            self.repairs.insert(Repair::Reworded);
            draft.remove("const");
            draft.set("enum", only);
        }
        let Some(values) = draft.get("enum").and_then(elements) else { return };
        let texts: Vec<String> = values
            .iter()
            .filter(|value| value.starts_with('"'))
            .map(|value| (*value).to_owned())
            .collect();
        let has_null = values.contains(&"null");
        let others = values.len() - texts.len() - usize::from(has_null);
        let may_be_text = !draft.has("type") || typing::has_type(draft, "string");
        if texts.is_empty() || others > 0 || !may_be_text {
            self.repairs.insert(Repair::KeywordDropped);
            draft.remove("enum");
            return;
        }
        if has_null {
            self.repairs.insert(Repair::Reworded);
            draft.set("enum", array(&texts));
        }
        let may_be_null = !draft.has("type") || typing::has_type(draft, "null");
        if typing::types_of(draft).is_none_or(|types| types.len() > 1) {
            self.repairs.insert(Repair::Reworded);
            draft.set("type", r#""string""#);
            if has_null && may_be_null {
                draft.set("nullable", "true");
            }
        }
    }

    /// A keyword whose value is none of its own makes the whole schema invalid.
    fn drop_malformed(&mut self, draft: &mut Draft<'_>) {
        for key in draft.keys() {
            let Some(known) = keyword(&key) else { continue };
            if draft.get(&key).is_some_and(|value| !fits(known.shape, value)) {
                draft.remove(&key);
                let lost = if known.is_rule { Repair::KeywordDropped } else { Repair::NoteDropped };
                self.repairs.insert(lost);
            }
        }
    }

    fn keep_to_vocabulary(&mut self, draft: &mut Draft<'_>, besides: &[&str], depth: usize) {
        let Some(vocabulary) = self.rules.vocabulary else { return };
        // Models fill in what is declared, so that a closed object is what they take any for. But the
        // parts of a whole may declare what another forbids.
        let is_part = self.part_at == Some(depth)
            || ["allOf", "anyOf", "oneOf"].iter().any(|union| draft.has(union));
        for key in draft.keys() {
            let is_taken = vocabulary.contains(&&*key) || besides.contains(&&*key);
            let is_known = |format: String| GEMINI_FORMATS.contains(&&*format);
            let value = draft.get(&key).unwrap_or_default();
            if is_taken && (key != "format" || string(value).is_some_and(is_known)) {
                continue;
            }
            let closes = OPEN_OR_CLOSED.contains(&&*key)
                && (matches!(value, "true" | "{}") || (value == "false" && !is_part));
            let lost = is_rule(&key) && !closes;
            draft.remove(&key);
            self.repairs.insert(if lost { Repair::KeywordDropped } else { Repair::NoteDropped });
        }
    }

    fn children(&mut self, draft: &mut Draft<'_>, depth: usize) -> Result<(), Unusable> {
        for key in draft.keys() {
            let Some(shape) = keyword(&key).map(|keyword| keyword.shape) else { continue };
            let Some(value) = draft.get(&key).map(str::to_owned) else { continue };
            let new = match shape {
                // Here a boolean is no odd schema but the usual word, and every client knows it.
                Shape::Schema if OPEN_OR_CLOSED.contains(&&*key) && is_boolean(&value) => continue,
                Shape::Schema => {
                    let new = self.schema(&value, depth + 1)?;
                    if new == "false" && !self.rules.has_booleans {
                        draft.remove(&key);
                        self.repairs.insert(Repair::KeywordDropped);
                        continue;
                    }
                    new.into_owned()
                }
                Shape::Schemas => {
                    let mut new: Vec<String> = Vec::new();
                    // Of alternatives each is whole, unless something stands beside them all.
                    let is_part = key == "allOf" || draft.has("properties");
                    for one in elements(&value).unwrap_or_default() {
                        let one = match is_part {
                            true => self.part(one, depth + 1)?,
                            false => self.schema(one, depth + 1)?,
                        };
                        new.push(one.into_owned());
                    }
                    if !self.rules.has_booleans {
                        new.retain(|one| one != "false");
                    }
                    array(&new)
                }
                Shape::SchemaMap => self.map(&value, depth)?,
                _ => continue,
            };
            // Spaces between elements alone are no change.
            if same(&new, &value) {
                continue;
            }
            draft.set(&key, new);
        }
        Ok(())
    }

    fn map(&mut self, text: &str, depth: usize) -> Result<String, Unusable> {
        let Some(map) = Draft::parse(text) else { return Ok("{}".to_owned()) };
        let mut members: Vec<String> = Vec::new();
        let mut is_same = true;
        for (key, value) in map.iter() {
            let new = self.schema(value, depth + 1)?;
            if new == "false" && !self.rules.has_booleans {
                self.repairs.insert(Repair::NoteDropped);
                is_same = false;
                continue;
            }
            is_same &= new == value;
            members.push(format!("{}:{new}", quoted(key)));
        }
        Ok(if is_same {
            map.text_or(text).into_owned()
        } else {
            format!("{{{}}}", members.join(","))
        })
    }
}

/// Whether two texts of arrays hold the same elements, or two other texts are the same.
fn same(one: &str, other: &str) -> bool {
    one == other
        || (one.starts_with('[') && elements(one).is_some_and(|one| elements(other) == Some(one)))
}

fn fits(shape: Shape, value: &str) -> bool {
    let number = || value.parse::<f64>().ok();
    match shape {
        // What is no schema is found to be none when it is read.
        Shape::Any | Shape::Schema => true,
        Shape::Text => value.starts_with('"'),
        Shape::Truth => matches!(value, "true" | "false"),
        Shape::Number => number().is_some(),
        Shape::Count => number().is_some_and(|count| count >= 0.0 && count.fract() == 0.0),
        Shape::List => value.starts_with('['),
        Shape::Texts => is_texts(value),
        Shape::Types => string(value).is_some() || strings(value).is_some(),
        Shape::Schemas => elements(value).is_some_and(|all| !all.is_empty()),
        Shape::SchemaMap => value.starts_with('{'),
        Shape::TextsMap => {
            Draft::parse(value).is_some_and(|map| map.iter().all(|(_, texts)| is_texts(texts)))
        }
    }
}

fn is_boolean(value: &str) -> bool {
    matches!(value, "true" | "false")
}

fn is_texts(value: &str) -> bool {
    strings(value).is_some_and(|mut texts| {
        let count = texts.len();
        texts.sort_unstable();
        texts.dedup();
        texts.len() == count
    })
}
