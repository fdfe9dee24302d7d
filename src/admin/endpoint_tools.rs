//! `/api/v1/endpoints/{id}/tools`: what the clients of an endpoint see of its namespace's tools, by its
//! schema profile: which are as they came, which were repaired and how, and which are hidden and why.

use std::sync::Arc;

use actix_web::{
    get,
    web::{self, Data, Json, Path, Query},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{AdminState, ApiError, paging};
use crate::{
    catalogue::{
        kind::Kind,
        profiles::{self, Choice, Profile, Unusable},
    },
    conductor::EndpointEntry,
    namespace::published::Published,
    store::{Page, Problem, SchemaProfile},
};

/// Which tools; every filter that is given has to match.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EndpointToolsQuery {
    /// 1 to 500; 100 unless given.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// As clients of this profile would see them: `raw`, `strict-common`, `claude`, `openai`, `gemini`
    /// or `vscode`. Unless given, by the endpoint's own; of `auto` by each of them.
    profile: Option<SchemaProfile>,
    state: Option<ToolState>,
    /// The name that clients see it under.
    name: Option<String>,
}

/// What became of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ToolState {
    AsItCame,
    Repaired,
    Hidden,
}

/// A tool of the endpoint, for the clients of one profile.
#[derive(Serialize, ToSchema)]
pub struct EndpointTool {
    /// The name that clients see it under.
    name: String,
    server: Uuid,
    server_name: String,
    /// The server's own name for it.
    tool: String,
    #[schema(value_type = SchemaProfile)]
    profile: &'static str,
    state: ToolState,
    /// What was done to it, in the words of the manual.
    repairs: Vec<&'static str>,
    /// Why these clients do not see it, and what to do about it.
    hidden: Option<Hiding>,
}

#[derive(Serialize, ToSchema)]
pub struct Hiding {
    /// A word from the list in the manual.
    reason: &'static str,
    message: String,
}

/// Every tool that the endpoint's namespace shows, in the order in which clients see them.
#[utoipa::path(
    tag = "endpoints",
    params(EndpointToolsQuery),
    responses((status = 200, body = Page<EndpointTool>))
)]
#[get("/endpoints/{id}/tools")]
pub async fn list(
    state: Data<AdminState>,
    id: Path<String>,
    query: Query<EndpointToolsQuery>,
) -> Result<Json<Page<EndpointTool>>, ApiError> {
    let EndpointToolsQuery { limit, cursor, profile, state: wanted, name } = query.into_inner();
    let request = paging::page(limit, cursor)?;
    let row = state.store().endpoint(&id).await?;
    let entry = state.conductor.endpoints.load().get(&row.name).cloned();
    let Some(entry) = entry else {
        return Ok(Json(Page { items: Vec::new(), next_cursor: None }));
    };
    let profiles = profiles_of(&entry, profile)?;
    let published = entry.namespace.published.load_full();
    // Schemas of thousands of tools take a while, and others wait for this thread.
    let tools = web::block(move || tools_of(&published, &profiles)).await;
    let tools = tools.map_err(|error| ApiError::Internal(Box::new(error)))?;
    let page = paging::cut_where(
        tools,
        &request,
        |tool| format!("{} {}", tool.profile, tool.name),
        |tool| {
            wanted.is_none_or(|wanted| wanted == tool.state)
                && name.as_ref().is_none_or(|name| *name == tool.name)
        },
    )?;
    Ok(Json(page))
}

fn profiles_of(
    entry: &EndpointEntry,
    asked: Option<SchemaProfile>,
) -> Result<Vec<Profile>, ApiError> {
    match asked {
        Some(word) => Profile::parse(word.as_str()).map(|profile| vec![profile]).ok_or_else(|| {
            let words: Vec<&str> = Profile::ALL.iter().map(|profile| profile.as_str()).collect();
            let problem = Problem::new("profile", "it is not one profile but each client's own");
            let problem = problem.accepted(words.join(", "));
            ApiError::BadRequest { message: problem.to_string(), details: vec![problem] }
        }),
        None => Ok(match entry.schema_profile {
            Choice::Fixed(profile) => vec![profile],
            Choice::Auto => Profile::ALL.to_vec(),
        }),
    }
}

fn tools_of(published: &Arc<Published>, profiles: &[Profile]) -> Vec<EndpointTool> {
    let row =
        |profile: Profile, name: &str, repairs: Vec<&'static str>, hidden: Option<Unusable>| {
            let (board, route) = published.find(name)?;
            Some(EndpointTool {
                name: name.to_owned(),
                server: route.server,
                server_name: board.spec().name.clone(),
                tool: route.key.into(),
                profile: profile.as_str(),
                state: match (&hidden, repairs.is_empty()) {
                    (Some(_), _) => ToolState::Hidden,
                    (None, true) => ToolState::AsItCame,
                    (None, false) => ToolState::Repaired,
                },
                repairs,
                hidden: hidden.map(|why| Hiding { reason: why.as_str(), message: why.to_string() }),
            })
        };
    let mut tools = Vec::new();
    for profile in profiles {
        match published.shaped(*profile) {
            None => {
                let names = profiles::names_in(published.list(Kind::Tool));
                tools.extend(names.iter().filter_map(|name| row(*profile, name, vec![], None)));
            }
            Some(shaped) => tools.extend(shaped.verdicts().iter().filter_map(|verdict| {
                let repairs = verdict.repairs().into_iter().flatten();
                let repairs = repairs.map(|repair| repair.as_str()).collect();
                row(*profile, &verdict.shown_name, repairs, verdict.hidden())
            })),
        }
    }
    tools
}
