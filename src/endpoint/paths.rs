//! Which of the paths of an endpoint a request is for.
//!
//! They are told apart by hand: a pattern for each of them costs a request as much as its whole body does.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, header},
    web::{Data, Payload},
};

use super::{EndpointState, answers, sse, streamable};

/// What lies below `/metamcp/{endpoint}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Streamable,
    Sse,
    Message,
    Api,
}

impl Place {
    /// The endpoint's name and the place, of a path behind `/metamcp`.
    fn of(path: &str) -> Option<(&str, Self)> {
        let (name, rest) = path.strip_prefix('/')?.split_once('/')?;
        let place = match rest {
            "mcp" | "mcp/" => Self::Streamable,
            "sse" | "sse/" => Self::Sse,
            "message" => Self::Message,
            other if other.starts_with("api/") => Self::Api,
            _ => return None,
        };
        (!name.is_empty()).then_some((name, place))
    }
}

/// Serves whatever is below `/metamcp`.
pub async fn serve(
    state: Data<EndpointState>,
    request: HttpRequest,
    payload: Payload,
) -> HttpResponse {
    // What is still encoded in it is in no endpoint's name.
    let Some((name, place)) = Place::of(request.match_info().unprocessed()) else {
        return HttpResponse::NotFound().finish();
    };
    match (place, request.method()) {
        (Place::Streamable, &Method::POST) => {
            streamable::post(&state, name, &request, payload).await
        }
        (Place::Streamable, &Method::GET) => streamable::get(&state, name, &request),
        (Place::Streamable, &Method::DELETE) => streamable::delete(&state, name, &request).await,
        (Place::Sse, &Method::GET) => sse::get(&state, name, &request),
        (Place::Message, &Method::POST) => sse::post(&state, name, &request, payload).await,
        (Place::Api, _) => answers::not_implemented(),
        (Place::Streamable, _) => takes_only("POST, GET, DELETE"),
        (Place::Sse, _) => takes_only("GET"),
        (Place::Message, _) => takes_only("POST"),
    }
}

fn takes_only(methods: &'static str) -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, methods)).finish()
}

#[cfg(test)]
mod tests {
    use super::{Place::*, *};

    #[test]
    fn a_path_names_an_endpoint_and_a_place_or_nothing_at_all() {
        for (path, expected) in [
            ("/all/mcp", Some(("all", Streamable))),
            ("/all/mcp/", Some(("all", Streamable))),
            ("/all/sse", Some(("all", Sse))),
            ("/all/sse/", Some(("all", Sse))),
            ("/all/message", Some(("all", Message))),
            ("/all/api/openapi.json", Some(("all", Api))),
            ("/all/api/", Some(("all", Api))),
            ("/mcp/mcp", Some(("mcp", Streamable))),
            ("/a%2Fb/mcp", Some(("a%2Fb", Streamable))),
            ("", None),
            ("/", None),
            ("/all", None),
            ("/all/", None),
            ("//mcp", None),
            ("all/mcp", None),
            ("/all/mcp//", None),
            ("/all/mcpx", None),
            ("/all/MCP", None),
            ("/all/message/", None),
            ("/all/api", None),
            ("/all/all/mcp", None),
        ] {
            assert_eq!(Place::of(path), expected, "{path}");
        }
    }
}
