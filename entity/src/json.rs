//! Lists and maps of text in JSON columns. Arrays do not exist on SQLite, so JSON serves on both
//! databases. What the texts mean, and which are sealed, is the store's business.

use std::collections::BTreeMap;

use sea_orm::FromJsonQueryResult;
use serde::{Deserialize, Serialize};

/// A JSON array of strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct StringList(pub Vec<String>);

/// A JSON object whose values are strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, FromJsonQueryResult)]
pub struct StringMap(pub BTreeMap<String, String>);
