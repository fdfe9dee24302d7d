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

use super::{AdminState, ApiError};
use crate::access::credential::{Offered, Presented, credential};

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

/// Whether the request carries an admin key that is active, in the one place where it may stand.
///
/// # Errors
/// `Unauthorized` without a good credential, `Forbidden` for a key that opens something else.
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
        None => Err(ApiError::Unauthorized),
    }
}
