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

/// What a sender is told: code, message, description. Nothing of why.
type Told = (&'static str, &'static str, &'static str);

/// When a 503 may come again, in seconds. The platforms have retries of their own; others do as it says.
const RETRY_AFTER: &str = "1";

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

    const fn told(&self) -> Told {
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

/// The platforms' envelope around an answer's `data`.
pub fn success<D: Serialize>(data: &D) -> Response<Body> {
    respond(StatusCode::OK, &Envelope { http_code: 200, response: Success { data } })
}

pub(super) fn failure(problem: &Problem) -> Response<Body> {
    refusal(problem.status(), problem.told())
}

/// The answer to a delivery that finds no room where it comes: nothing of it was looked at or kept.
pub fn busy() -> Response<Body> {
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        ("HS503", "Service unavailable", "Too many deliveries at once: send it again"),
    )
}

fn refusal(status: StatusCode, (error_code, message, description): Told) -> Response<Body> {
    let error_data = ErrorData { error_code, message, description };
    let envelope = Envelope { http_code: status.as_u16(), response: Failure { data: (), error_data } };
    let mut response = respond(status, &envelope);
    let more = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "POST")),
        StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, RETRY_AFTER)),
        _ => None,
    };
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_503_says_when_to_come_again() {
        let failed = StoreError::Unavailable { what: "the event", code: "timeout".to_owned() };
        for unavailable in [busy(), failure(&Problem::Store(failed)), failure(&Problem::Keys(Unreadable))] {
            assert_eq!(unavailable.status(), 503);
            assert_eq!(unavailable.headers()[header::RETRY_AFTER], "1");
        }
        for other in [success(&Nothing {}), failure(&Problem::Method), failure(&Problem::Late)] {
            assert_eq!(other.headers().get(header::RETRY_AFTER), None);
        }
    }
}
