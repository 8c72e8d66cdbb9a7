//! Vocobase `session.completed`: everything about a finished session, in one delivery. The platform reads nothing but the
//! status of the answer; the recording's URL becomes a job for the archiver.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, Nothing, receive};

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::SessionCompleted, request, async |_| Nothing {}).await
}
