//! Several schemas that hold at once as one, and alternatives in the words of clients that have only
//! `anyOf`, alone.

use std::collections::{HashMap, HashSet};

use super::{
    draft::{Draft, array, elements, quoted, string, strings},
    outcome::{Repair, Unusable},
    rules::{is_rule, type_of},
    typing::{any_types, types_of},
    walk::Walker,
};

/// Two schemas as one.
pub enum Joined {
    /// It takes exactly what both take.
    Whole(Draft<'static>),
    /// Some rule of the second is missing.
    Partly(Draft<'static>),
    /// No value can be of both types.
    Impossible,
}

/// One schema that takes what both take. Where both have a note, that of the first is kept. A member that
/// both speak of becomes one that both allow, by `allOf` where `has_all_of`.
pub fn conjoin(one: &Draft<'_>, other: &Draft<'_>, has_all_of: bool) -> Joined {
    let mut joined = one.clone().into_owned();
    let mut is_whole = !closes_on(one, other) && !closes_on(other, one);
    for (key, value) in other.iter() {
        let Some(mine) = joined.get(key) else {
            joined.set(key, value.to_owned());
            continue;
        };
        if mine == value {
            continue;
        }
        match key {
            "type" => {
                let (Some(mine), Some(theirs)) = (types_of(one), types_of(other)) else {
                    is_whole = false;
                    continue;
                };
                let both: Vec<String> =
                    mine.iter().filter_map(|mine| narrower(mine, &theirs)).collect();
                match &*both {
                    [] => return Joined::Impossible,
                    [only] => joined.set("type", quoted(only)),
                    several => {
                        let several: Vec<String> = several.iter().map(|one| quoted(one)).collect();
                        joined.set("type", array(&several));
                    }
                }
            }
            "properties" => match properties(mine, value, has_all_of) {
                Some((both, are_whole)) => {
                    joined.set("properties", both);
                    is_whole &= are_whole;
                }
                None => is_whole = false,
            },
            "required" => match (strings(mine), strings(value)) {
                (Some(mut all), Some(more)) => {
                    let known: HashSet<String> = all.iter().cloned().collect();
                    all.extend(more.into_iter().filter(|name| !known.contains(name)));
                    let all: Vec<String> = all.iter().map(|name| quoted(name)).collect();
                    joined.set("required", array(&all));
                }
                _ => is_whole = false,
            },
            "nullable" => joined.set("nullable", "false"),
            key if is_rule(key) => is_whole = false,
            _note => {}
        }
    }
    // What may be `null` by one of them only may not.
    if one.has("nullable") != other.has("nullable") {
        joined.remove("nullable");
    }
    if is_whole { Joined::Whole(joined) } else { Joined::Partly(joined) }
}

/// Whether the first allows no members but its own, of which the second may have others.
fn closes_on(first: &Draft<'_>, second: &Draft<'_>) -> bool {
    let is_open = |key| first.get(key).is_none_or(|value| matches!(value, "true" | "{}"));
    !(is_open("additionalProperties") && is_open("unevaluatedProperties"))
        && second.has("properties")
        && first.get("properties") != second.get("properties")
}

fn narrower(mine: &str, theirs: &[String]) -> Option<String> {
    let has = |name: &str| theirs.iter().any(|theirs| theirs == name);
    match mine {
        "number" if !has("number") && has("integer") => Some("integer".to_owned()),
        "integer" if has("number") => Some("integer".to_owned()),
        mine => has(mine).then(|| mine.to_owned()),
    }
}

/// The members of both, and whether one that both have is as both say.
fn properties(mine: &str, theirs: &str, has_all_of: bool) -> Option<(String, bool)> {
    let (mine, theirs) = (Draft::parse(mine)?, Draft::parse(theirs)?);
    let others: HashMap<&str, &str> = theirs.iter().collect();
    let own: HashSet<&str> = mine.iter().map(|(key, _)| key).collect();
    let (mut members, mut are_whole) = (Vec::new(), true);
    for (key, value) in mine.iter() {
        let value = match others.get(key) {
            Some(other) if *other != value && has_all_of => {
                format!(r#"{{"allOf":[{value},{other}]}}"#)
            }
            Some(other) if *other != value => {
                let both = member(value, other);
                are_whole &= both.is_some();
                both.unwrap_or_else(|| value.to_owned())
            }
            _ => value.to_owned(),
        };
        members.push(format!("{}:{value}", quoted(key)));
    }
    let added = theirs.iter().filter(|(key, _)| !own.contains(key));
    members.extend(added.map(|(key, value)| format!("{}:{value}", quoted(key))));
    Some((format!("{{{}}}", members.join(",")), are_whole))
}

/// What both say of one member, without `allOf`.
fn member(mine: &str, other: &str) -> Option<String> {
    let (mine, other) = (Draft::parse(mine)?, Draft::parse(other)?);
    match conjoin(&mine, &other, false) {
        // Alternatives have to stand alone.
        Joined::Whole(both) if !both.has("anyOf") => Some(both.text()),
        Joined::Whole(_) | Joined::Partly(_) | Joined::Impossible => None,
    }
}

impl Walker<'_> {
    /// Says with `anyOf` alone, or without it, what `allOf`, `oneOf` and `anyOf` say beside other
    /// keywords. Its parts are in the client's words already.
    pub(super) fn express(&mut self, draft: &mut Draft<'_>) -> Result<(), Unusable> {
        if let Some(all) = draft.remove("allOf") {
            self.repairs.insert(Repair::Reworded);
            let mut joined = draft.clone().into_owned();
            for part in elements(&all).unwrap_or_default() {
                let Some(part) = Draft::parse(part) else { continue };
                joined = self.joined(&joined, &part)?.unwrap_or(joined);
            }
            self.replace(draft, &joined);
        }
        if let Some(one) = draft.remove("oneOf") {
            let is_same = are_apart(&one);
            self.repairs.insert(if is_same { Repair::Reworded } else { Repair::KeywordDropped });
            match draft.has("anyOf") {
                false => draft.set("anyOf", one.into_owned()),
                true => drop(self.repairs.insert(Repair::KeywordDropped)),
            }
        }
        if let Some(any) = draft.remove("anyOf") {
            let branches = elements(&any).unwrap_or_default();
            let apart = self.distributed(draft, &branches)?;
            self.replace(draft, &apart);
        }
        if !draft.has("anyOf") && !draft.has("type") {
            self.infer_type(draft);
        }
        Ok(())
    }

    /// The alternatives, each with everything that stands beside them.
    fn distributed(
        &mut self,
        beside: &Draft<'_>,
        branches: &[&str],
    ) -> Result<Draft<'static>, Unusable> {
        let beside = beside.clone().into_owned();
        let mut is_nullable = false;
        let mut apart: Vec<Draft<'static>> = Vec::new();
        for branch in branches {
            let Some(branch) = Draft::parse(branch) else { continue };
            let mut branch = branch.into_owned();
            if branch.get("type") == Some(r#""null""#) {
                is_nullable = true;
                continue;
            }
            // Alternatives within an alternative are alternatives.
            let inner = branch.remove("anyOf");
            let inner = inner.as_deref().and_then(elements).unwrap_or_default();
            let parts: Vec<Draft<'_>> = match inner.is_empty() {
                true => vec![branch],
                false => inner.into_iter().filter_map(Draft::parse).collect(),
            };
            for part in parts {
                // The nearer note says more.
                let mut with = beside.clone();
                for key in part.keys().iter().filter(|key| !is_rule(key)) {
                    with.remove(key);
                }
                with.remove("nullable");
                let mut part = part.into_owned();
                is_nullable |= part.remove("nullable").is_some();
                apart.extend(self.joined(&with, &part)?);
            }
        }
        is_nullable &= beside.get("type").is_none() || beside.has("nullable");
        if is_nullable {
            apart.iter_mut().for_each(|one| one.set("nullable", "true"));
        }
        match apart.len() {
            0 if is_nullable => {
                let mut null = Draft::empty();
                null.set("type", r#""null""#);
                Ok(null)
            }
            0 => {
                self.repairs.insert(Repair::KeywordDropped);
                Ok(beside)
            }
            1 => Ok(apart.remove(0)),
            _ => {
                self.repairs.insert(Repair::Reworded);
                let texts: Vec<String> = apart.iter().map(Draft::text).collect();
                let mut any = Draft::empty();
                any.set("anyOf", array(&texts));
                Ok(any)
            }
        }
    }

    /// `None` where no value is of both.
    pub(super) fn joined(
        &mut self,
        one: &Draft<'_>,
        other: &Draft<'_>,
    ) -> Result<Option<Draft<'static>>, Unusable> {
        self.work(size(one) + size(other))?;
        match conjoin(one, other, self.rules.vocabulary.is_none()) {
            Joined::Whole(both) => Ok(Some(both)),
            Joined::Partly(both) => {
                self.repairs.insert(Repair::KeywordDropped);
                Ok(Some(both))
            }
            Joined::Impossible => Ok(None),
        }
    }

    fn replace(&mut self, draft: &mut Draft<'_>, with: &Draft<'static>) {
        for key in draft.keys() {
            if !with.has(&key) {
                draft.remove(&key);
            }
        }
        for (key, value) in with.iter() {
            draft.set(key, value.to_owned());
        }
    }

    /// Each schema has to say its type. What it says of its values tells which; one that says nothing
    /// takes what is commonly meant by anything.
    fn infer_type(&mut self, draft: &mut Draft<'_>) {
        let spoken_of = draft.iter().find_map(|(key, _)| type_of(key));
        let is_text = || draft.get("enum").and_then(strings).is_some();
        let of = spoken_of.or_else(|| is_text().then_some("string"));
        self.repairs.insert(Repair::TypesSplit);
        if let Some(of) = of {
            return draft.set("type", quoted(of));
        }
        let any = any_types();
        let notes = draft.clone().into_owned();
        let branches = elements(&any).unwrap_or_default();
        let texts: Vec<String> = branches
            .into_iter()
            .filter_map(Draft::parse)
            .map(|mut branch| {
                for (key, value) in notes.iter().filter(|(key, _)| *key != "default") {
                    branch.set(key, value.to_owned());
                }
                branch.text()
            })
            .collect();
        self.replace(draft, &Draft::empty());
        draft.set("anyOf", array(&texts));
    }
}

/// Whether no value can match two of these, since each is of a type of its own.
fn are_apart(branches: &str) -> bool {
    let mut seen: Vec<String> = Vec::new();
    let branches = elements(branches).unwrap_or_default();
    branches.len() <= 7
        && branches.into_iter().all(|branch| {
            let of = Draft::parse(branch).and_then(|branch| string(branch.get("type")?));
            let of = of.map(|of| if of == "integer" { "number".to_owned() } else { of });
            match of {
                Some(of) if !seen.contains(&of) => {
                    seen.push(of);
                    true
                }
                _ => false,
            }
        })
}

fn size(draft: &Draft<'_>) -> usize {
    draft.iter().map(|(key, value)| key.len() + value.len() + 4).sum()
}
