//! Exotel `session_end`: the conversation is over. Answered with nothing.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, Nothing, receive};

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::SessionEnd, request, async |_| Nothing {}).await
}
