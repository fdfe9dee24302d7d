//! The description of the API, made from the handlers themselves; and what follows from it: which
//! methods a path takes.

use actix_web::{
    App, HttpResponse,
    dev::ResourceDef,
    web::{Bytes, Data},
};
use utoipa::{
    OpenApi, ToSchema,
    openapi::{
        ContentBuilder, OpenApi as Description, PathItem, Ref, RefOr, ResponseBuilder,
        path::Operation,
        security::{Http, HttpAuthScheme, SecurityScheme},
        server::ServerBuilder,
    },
};
use utoipa_actix_web::AppExt;

use super::{ApiError, error::ErrorBody, namespace_items};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "metamcpd",
        description = "The admin API: MCP servers, namespaces, endpoints and keys."
    ),
    components(schemas(ErrorBody)),
    security(("admin_key" = []))
)]
struct Frame;

/// The description, ready to be sent, and the paths in it.
pub struct Document {
    json: Bytes,
    paths: Vec<(ResourceDef, String)>,
}

/// Describes every route of the API. `public_url` is where it is found.
pub fn document(public_url: &str) -> Document {
    let description = describe(public_url);
    let paths = description.paths.paths.iter();
    let paths = paths.map(|(path, item)| {
        // The description leaves out what a place in a path may hold.
        let path = path.replace("{kinds}", namespace_items::KINDS);
        (ResourceDef::new(path.as_str()), allow(item))
    });
    let paths = paths.collect();
    let json = description.to_json().unwrap_or_else(|error| {
        // A value made of our own literals; should it ever happen, only the description is missing.
        tracing::error!(%error, "the description of the API could not be written");
        String::new()
    });
    Document { json: json.into(), paths }
}

pub async fn answer(document: Data<Document>) -> Result<HttpResponse, ApiError> {
    if document.json.is_empty() {
        return Err(ApiError::Internal("there is no description of the API".into()));
    }
    Ok(HttpResponse::Ok().content_type("application/json").body(document.json.clone()))
}

impl Document {
    /// The methods that a path takes, as the header `Allow` has them; `None` for no path of ours.
    pub fn methods_of(&self, path: &str) -> Option<String> {
        let found = self.paths.iter().find(|(pattern, _)| pattern.is_match(path));
        found.map(|(_, allow)| allow.clone())
    }
}

fn describe(public_url: &str) -> Description {
    let (_, mut description) = App::new()
        .into_utoipa_app()
        .openapi(Frame::openapi())
        .configure(super::routes)
        .split_for_parts();
    description.servers = Some(vec![ServerBuilder::new().url(public_url).build()]);
    let components = description.components.get_or_insert_default();
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("admin_key", scheme);
    for (path, item) in &mut description.paths.paths {
        for (method, operation) in operations_of(item) {
            // Handlers of many resources are called alike, and programs are generated from this.
            operation.operation_id = Some(operation_id(method, path));
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    response.description = outcome(status).to_owned();
                }
            }
            operation.responses.responses.insert("default".to_owned(), refusal());
        }
    }
    description
}

/// `get_mcp_servers_id_history` for `GET /api/v1/mcp-servers/{id}/history`.
fn operation_id(method: &str, path: &str) -> String {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let words = path.split(|character: char| !character.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    let words = std::iter::once(method).chain(words);
    words.collect::<Vec<_>>().join("_").to_lowercase()
}

/// What a status says where the operation itself says no more.
fn outcome(status: &str) -> &'static str {
    match status {
        "201" => "It was made",
        "202" => "It was ordered, and goes on behind",
        "204" => "It was done, and there is nothing to show",
        _ => "It was done",
    }
}

/// What every operation may answer instead.
fn refusal() -> RefOr<utoipa::openapi::Response> {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(ErrorBody::name()))).build();
    let response = ResponseBuilder::new()
        .description("It was not done, and why")
        .content("application/json", body)
        .build();
    RefOr::T(response)
}

fn operations_of(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Operation)> {
    let PathItem { get, post, put, patch, delete, .. } = item;
    let all = [("GET", get), ("POST", post), ("PUT", put), ("PATCH", patch), ("DELETE", delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn allow(item: &PathItem) -> String {
    let methods = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    let taken = methods.into_iter().filter(|(_, operation)| operation.is_some());
    taken.map(|(method, _)| method).collect::<Vec<_>>().join(", ")
}
