//! Lets nobody but the operator through. It stands before every route of the API at once, those that
//! do not exist included, so that no handler can forget it.
//!
//! Which keys there are is known to the key ring; what a key may do on endpoints is none of ours.

use actix_web::{
    Error, HttpRequest, ResponseError,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web::Data,
};
use tokio::time::timeout;

use super::{AdminState, ApiError};
use crate::access::credential::{Offered, Presented, credential};

/// What waits for more than the database.
const LONG: [&str; 2] = ["/import", "/refresh"];

/// The middleware of `/api/v1`.
pub async fn operators_only(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    match check(request.request()) {
        Ok(()) => Ok(next.call(request).await?.map_into_left_body()),
        Err(error) => Ok(request.into_response(error.error_response()).map_into_right_body()),
    }
}

/// Gives up on a request whose database does not answer. A change that is under way goes on to its end, and
/// what takes long by its nature has limits of its own.
pub async fn in_bounded_time(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let is_long = LONG.iter().any(|end| request.path().trim_end_matches('/').ends_with(end));
    let patience = request.app_data::<Data<AdminState>>().map(|state| state.answer_timeout);
    let Some(patience) = patience.filter(|_| !is_long) else { return next.call(request).await };
    match timeout(patience, next.call(request)).await {
        Ok(answered) => answered,
        Err(_elapsed) => Err(ApiError::Unavailable {
            what: "the database does not answer (`database.answer_timeout`); a change may still be made",
        }
        .into()),
    }
}

/// Whether the request carries an admin key that is active, in the one place where it may stand.
///
/// # Errors
/// `Unauthorized` without a good credential, `Forbidden` for a key that opens something else, `Unavailable`
/// where it may be in rows that could not be read yet.
pub fn check(request: &HttpRequest) -> Result<(), ApiError> {
    let state = request.app_data::<Data<AdminState>>().ok_or(ApiError::Unauthorized)?;
    let mut headers = request.headers().get_all(header::AUTHORIZATION);
    // Two of them could be read differently by a proxy before us.
    let (Some(authorization), None) = (headers.next(), headers.next()) else {
        return Err(ApiError::Unauthorized);
    };
    let offered = Offered { authorization: authorization.to_str().ok(), ..Offered::default() };
    let Presented::Key(key) = credential(&offered, false) else {
        return Err(ApiError::Unauthorized);
    };
    let keys = state.conductor.keys.load();
    match keys.find(key).filter(|record| record.is_active) {
        Some(record) if record.is_operator() => Ok(()),
        Some(_of_a_client) => Err(ApiError::Forbidden),
        // Every key there is stands in the snapshot, unless that is older than the rows.
        None if state.conductor.is_behind() => Err(ApiError::Unavailable {
            what: "the database is away, and this key is not known without it",
        }),
        None => Err(ApiError::Unauthorized),
    }
}
