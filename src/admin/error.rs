//! What the admin API answers when it does not do what was asked: the one place where causes become
//! statuses.
//!
//! The rooms below speak no HTTP. Callers learn what they can mend; causes that are ours are logged
//! here, once, and answered without detail.

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{self, HeaderValue},
    },
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::{Problem, StoreError};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// How long whoever finds the database away is asked to wait.
const RETRY_AFTER_SECS: &str = "1";

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{message}")]
    BadRequest { message: String, details: Vec<Problem> },
    #[error("an admin key is needed, as `Authorization: Bearer`")]
    Unauthorized,
    #[error("the key opens endpoints, not the admin API: an admin key is needed")]
    Forbidden,
    #[error("{what}")]
    NotFound { what: String },
    #[error("this is not done to this path; it takes {allow}")]
    MethodNotAllowed { allow: String },
    #[error("{what}")]
    Conflict { what: String },
    #[error("{what}")]
    Ambiguous { what: String },
    #[error("the body has more than {max} bytes")]
    TooLarge { max: usize },
    #[error("the body came too slowly (`server.body_timeout`, `server.body_rate_min`)")]
    TooSlow,
    #[error("the body has to be sent as application/json")]
    UnsupportedMediaType,
    #[error("a file is not sent as this kind; accepted: {accepted}")]
    UnsupportedFile { accepted: String },
    /// Never empty.
    #[error("not valid: {}", listed(.0))]
    Invalid(Vec<Problem>),
    #[error("{what} will come with a later version")]
    NotImplemented { what: String },
    #[error("{what}")]
    Unavailable { what: &'static str },
    #[error("the request could not be carried out; the log has the cause")]
    Internal(#[source] Cause),
}

/// Every answer that is not a success has this body.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// One of `bad_request`, `unauthorized`, `forbidden`, `not_found`, `method_not_allowed`,
    /// `conflict`, `ambiguous`, `too_large`, `too_slow`, `unsupported_media_type`, `invalid`,
    /// `internal`, `not_implemented` and `unavailable`.
    code: &'static str,
    /// For people; its wording may change.
    message: String,
    /// The fields that are not as they have to be; empty where no field is to blame.
    details: Vec<Problem>,
}

impl ApiError {
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::BadRequest { message: message.into(), details: Vec::new() }
    }

    pub fn not_found(what: &str, id: &str) -> Self {
        Self::NotFound { what: format!("there is no {what} `{id}`") }
    }

    pub fn invalid(problem: Problem) -> Self {
        Self::Invalid(vec![problem])
    }

    pub fn not_implemented(what: impl Into<String>) -> Self {
        Self::NotImplemented { what: what.into() }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound { .. } => "not_found",
            Self::MethodNotAllowed { .. } => "method_not_allowed",
            Self::Conflict { .. } => "conflict",
            Self::Ambiguous { .. } => "ambiguous",
            Self::TooLarge { .. } => "too_large",
            Self::TooSlow => "too_slow",
            Self::UnsupportedMediaType | Self::UnsupportedFile { .. } => "unsupported_media_type",
            Self::Invalid(_) => "invalid",
            Self::NotImplemented { .. } => "not_implemented",
            Self::Unavailable { .. } => "unavailable",
            Self::Internal(_) => "internal",
        }
    }

    fn details(&self) -> Vec<Problem> {
        match self {
            Self::Invalid(problems) | Self::BadRequest { details: problems, .. } => {
                problems.clone()
            }
            _ => Vec::new(),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict { .. } | Self::Ambiguous { .. } => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType | Self::UnsupportedFile { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotImplemented { .. } => StatusCode::NOT_IMPLEMENTED,
            Self::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        if let Self::Internal(cause) = self {
            tracing::error!(error = &**cause as &dyn std::error::Error, "an admin request failed");
        }
        let mut answer = HttpResponse::build(self.status_code());
        answer.insert_header((header::CACHE_CONTROL, "no-store"));
        answer.insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        match self {
            Self::Unauthorized => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
            }
            Self::MethodNotAllowed { allow } => {
                if let Ok(allow) = HeaderValue::from_str(allow) {
                    answer.insert_header((header::ALLOW, allow));
                }
            }
            Self::Unavailable { .. } => {
                answer.insert_header((header::RETRY_AFTER, RETRY_AFTER_SECS));
            }
            _ => {}
        }
        answer.json(ErrorBody {
            code: self.code(),
            message: self.to_string(),
            details: self.details(),
        })
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        match error {
            StoreError::Unavailable(cause) => {
                tracing::warn!(error = &*cause as &dyn std::error::Error, "{what}");
                Self::Unavailable { what: "the database is not available" }
            }
            // Told in the log where it is noticed.
            StoreError::Displaced(_) => Self::Unavailable {
                what: "the file of the database was taken away or replaced (move the very same file back, or start \
                       metamcpd again): nothing can be changed just now",
            },
            StoreError::NotFound { .. } => Self::NotFound { what },
            StoreError::Conflict { .. } | StoreError::ToolNameTaken { .. } => {
                Self::Conflict { what }
            }
            StoreError::Ambiguous { .. } => Self::Ambiguous { what },
            // Those two stand in the query, where the contract has another word for it.
            StoreError::Invalid(details) if details.iter().all(is_of_the_query) => {
                Self::BadRequest { message: what, details }
            }
            StoreError::Invalid(problems) => Self::Invalid(problems),
            StoreError::NewerSchema { .. }
            | StoreError::Damaged(_)
            | StoreError::Options { .. }
            | StoreError::Vault(_)
            | StoreError::Internal(_) => Self::Internal(Box::new(error)),
        }
    }
}

fn is_of_the_query(problem: &Problem) -> bool {
    matches!(&*problem.field, "cursor" | "limit")
}

fn listed(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}
