//! Exotel `insights_events`: sentiment, summary, intent, entity, outcome, on a timer. Answered with nothing.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, Nothing, receive};

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::InsightsEvents, request, async |_| Nothing {}).await
}
