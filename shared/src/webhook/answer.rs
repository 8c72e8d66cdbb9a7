//! The envelope that the platforms expect. Source: Exotel's page "VoiceBot Webhooks", "expected response" and "error
//! response (all webhooks)". Vocobase reads nothing but the status, and gets the same.

use lambda_http::http::{StatusCode, header};
use lambda_http::{Body, Response};
use serde::Serialize;

use crate::auth::Refused;
use crate::keyring::Unreadable;
use crate::storage::StoreError;

/// `data` where there is nothing to say: `{}`.
#[derive(Serialize)]
pub struct Nothing {}

/// Why a delivery is not answered 200. Its text is for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("only POST is received here")]
    Method,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Keys(#[from] Unreadable),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the deadline passed before everything was stored")]
    Late,
}

impl Problem {
    /// Whether the sender should try again is all that the status says.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Refused(_) => StatusCode::UNAUTHORIZED,
            Self::Keys(_) | Self::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::Method | Self::Refused(_) => "refused",
            Self::Keys(_) | Self::Store(_) | Self::Late => "failed",
        }
    }

    /// What the sender is told: code, message, description. Nothing of why.
    const fn told(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Method => ("HS405", "Method not allowed", "Send a POST request"),
            Self::Refused(_) => ("HS401", "Unauthorized", "The token or signature of this delivery is not valid"),
            Self::Keys(_) => ("HS503", "Service unavailable", "The delivery could not be verified: send it again"),
            Self::Store(_) => ("HS503", "Service unavailable", "The delivery could not be stored: send it again"),
            Self::Late => ("HS504", "Gateway timeout", "The delivery was not stored in time: send it again"),
        }
    }
}

#[derive(Serialize)]
struct Envelope<T> {
    http_code: u16,
    response: T,
}

#[derive(Serialize)]
struct Success<'a, D> {
    data: &'a D,
}

#[derive(Serialize)]
struct Failure {
    data: (),
    error_data: ErrorData,
}

#[derive(Serialize)]
struct ErrorData {
    error_code: &'static str,
    message: &'static str,
    description: &'static str,
}

pub(super) fn success<D: Serialize>(data: &D) -> Response<Body> {
    respond(StatusCode::OK, &Envelope { http_code: 200, response: Success { data } })
}

pub(super) fn failure(problem: &Problem) -> Response<Body> {
    let status = problem.status();
    let (error_code, message, description) = problem.told();
    let error_data = ErrorData { error_code, message, description };
    let envelope = Envelope { http_code: status.as_u16(), response: Failure { data: (), error_data } };
    let mut response = respond(status, &envelope);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST"));
    }
    response
}

fn respond<T: Serialize>(status: StatusCode, envelope: &Envelope<T>) -> Response<Body> {
    // Envelopes are texts and numbers: there is no failing case.
    let body = serde_json::to_string(envelope).unwrap_or_default();
    let mut response = Response::new(Body::Text(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
