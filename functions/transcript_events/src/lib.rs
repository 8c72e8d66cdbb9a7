//! Exotel `transcript_events`: a turn as heard so far, and once more when it is complete. Answered with nothing.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, Nothing, receive};

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::TranscriptEvents, request, async |_| Nothing {}).await
}
