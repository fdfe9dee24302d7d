//! `/api/v1/config`: settings that can be changed while the daemon runs, under the names that
//! operators of MetaMCP know.
//!
//! What a key takes and means is known to `conductor::runtime`; here it is translated.

use actix_web::{
    get, put,
    web::{Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};

use super::{AdminState, ApiError, body::Body, paging};
use crate::{
    conductor::{
        RuntimeSettings,
        runtime::{Key, Source},
    },
    store::{Page, Problem},
};

/// Which settings.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ConfigQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    key: Option<String>,
    source: Option<SourceWord>,
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SourceWord {
    /// It was not changed: `default.toml`, the settings file or the environment say so.
    Default,
    /// The table `config` says so.
    Config,
}

/// One setting, and what it comes to.
#[derive(Serialize, ToSchema)]
pub struct ConfigRow {
    key: &'static str,
    /// What holds now.
    value: String,
    /// What holds unless it is changed here.
    default: String,
    source: SourceWord,
    /// The setting of the daemon that the default comes from; null where it is built in.
    setting: Option<&'static str>,
    unit: &'static str,
    accepted: String,
    /// What it is for.
    description: &'static str,
    /// Whether anything in this version goes by it.
    in_use: bool,
    /// What somebody wrote into the table that means nothing, and is not obeyed.
    ignored: Option<IgnoredRow>,
    /// When it was last changed; null for a default.
    #[serde(with = "time::serde::rfc3339::option")]
    updated_at: Option<OffsetDateTime>,
}

#[derive(Serialize, ToSchema)]
pub struct IgnoredRow {
    value: String,
    reason: String,
}

/// What a setting is to be. `null` gives it its default again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigBody {
    /// A text, as the table holds it; or the number or the boolean itself.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(value_type = Option<ConfigInput>)]
    value: Option<serde_json::Value>,
}

/// A value in each form that is taken.
#[derive(ToSchema)]
#[schema(as = ConfigInput)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes the value, which is read by what its key takes")]
pub enum ConfigInput {
    Text(String),
    Number(u64),
    Truth(bool),
}

/// What a setting is now.
#[derive(Serialize, ToSchema)]
pub struct ConfigChanged {
    #[serde(flatten)]
    row: ConfigRow,
    /// What the operator should know about it.
    warnings: Vec<String>,
}

/// Every setting that can be changed at run time, by key.
#[utoipa::path(tag = "config", params(ConfigQuery), responses((status = 200, body = Page<ConfigRow>)))]
#[get("/config")]
pub async fn list(
    state: Data<AdminState>,
    query: Query<ConfigQuery>,
) -> Result<Json<Page<ConfigRow>>, ApiError> {
    let ConfigQuery { limit, cursor, key, source } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let rows = rows(&state).await?;
    let page = paging::cut_where(
        rows,
        &request,
        |row| row.key.to_owned(),
        |row| {
            key.as_ref().is_none_or(|key| key == row.key)
                && source.is_none_or(|source| source == row.source)
        },
    )?;
    Ok(Json(page))
}

#[utoipa::path(tag = "config", responses((status = 200, body = ConfigRow)))]
#[get("/config/{key}")]
pub async fn read(state: Data<AdminState>, key: Path<String>) -> Result<Json<ConfigRow>, ApiError> {
    let key = Key::parse(&key).ok_or_else(|| ApiError::not_found("key of the config", &key))?;
    Ok(Json(row_of(&state, key).await?))
}

/// Sets one. It holds at once, for what begins from then on, and after a restart too.
#[utoipa::path(
    tag = "config",
    request_body = ConfigBody,
    responses((status = 200, body = ConfigChanged))
)]
#[put("/config/{key}")]
pub async fn put(
    state: Data<AdminState>,
    key: Path<String>,
    Body(ConfigBody { value }): Body<ConfigBody>,
) -> Result<Json<ConfigChanged>, ApiError> {
    let key = Key::parse(&key).ok_or_else(|| {
        let known: Vec<&str> = Key::ALL.iter().map(|key| key.name()).collect();
        let problem = Problem::new("key", format!("there is no key `{key}` to be set"));
        ApiError::invalid(problem.accepted(known.join(", ")))
    })?;
    let text = value.map(|value| text_of(key, &value)).transpose()?;
    state.write(|store| async move { store.put_config(key.name(), text.as_deref()).await }).await?;
    let row = row_of(&state, key).await?;
    let warnings = warnings(key, &state.conductor.runtime.load());
    Ok(Json(ConfigChanged { row, warnings }))
}

/// The value as the table holds it, once it is known to mean something.
fn text_of(key: Key, value: &serde_json::Value) -> Result<String, ApiError> {
    let refused =
        |reason: &str| ApiError::invalid(Problem::new("value", reason).accepted(key.accepted()));
    let text = match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => value.to_string(),
        serde_json::Value::Null | serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
            return Err(refused("neither a text nor a number nor a boolean"));
        }
    };
    key.read(&text).map(|value| value.text()).map_err(refused)
}

fn warnings(key: Key, runtime: &RuntimeSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    if !key.is_in_use() {
        warnings.push("it is kept; nothing in this version reads it yet".to_owned());
    }
    let values = &runtime.values;
    let concerns_calls = matches!(key, Key::McpTimeout | Key::McpMaxTotalTimeout);
    if concerns_calls && values.call_timeout >= values.call_total {
        warnings.push(
            "MCP_TIMEOUT is no less than MCP_MAX_TOTAL_TIMEOUT, which ends calls first".into(),
        );
    }
    if concerns_calls {
        warnings.push("a server whose row has a timeout of its own keeps it".to_owned());
    }
    warnings
}

async fn row_of(state: &AdminState, key: Key) -> Result<ConfigRow, ApiError> {
    let rows = rows(state).await?.into_iter();
    rows.into_iter()
        .find(|row| row.key == key.name())
        .ok_or_else(|| ApiError::not_found("key of the config", key.name()))
}

/// Every key as the table has it now, which may be a moment ahead of what the daemon goes by.
async fn rows(state: &AdminState) -> Result<Vec<ConfigRow>, ApiError> {
    let stored = state.store().config().await?;
    let defaults = state.conductor.runtime.load().defaults();
    let texts = stored.iter().map(|(key, row)| (&**key, &*row.value));
    let runtime = RuntimeSettings::new(defaults, texts);
    let row = |key: Key| {
        let source = match runtime.source(key) {
            Source::Settings => SourceWord::Default,
            Source::Config => SourceWord::Config,
        };
        let ignored = runtime.ignored(key.name()).cloned();
        ConfigRow {
            key: key.name(),
            value: runtime.value(key).text(),
            default: runtime.default(key).text(),
            source,
            setting: key.setting(),
            unit: key.unit(),
            accepted: key.accepted(),
            description: key.meaning(),
            in_use: key.is_in_use(),
            ignored: ignored.map(|row| IgnoredRow { value: row.value, reason: row.reason }),
            updated_at: stored.get(key.name()).map(|row| row.updated_at),
        }
    };
    Ok(Key::ALL.into_iter().map(row).collect())
}
