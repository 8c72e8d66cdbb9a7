//! Exotel `pre_agent_transfer`: the bot is about to hand over to a human. Answered, while the caller waits, with the
//! profile's transfer message.

use lambda_http::{Body, Request, Response};
use serde::Serialize;
use shared::Webhook;
use shared::profile::Answer;
use shared::webhook::{App, receive};

/// The answer's `data`. Source: Exotel's page "VoiceBot Webhooks", "pre_agent_transfer webhook", expected response.
#[derive(Serialize)]
pub struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_transfer_message: Option<Text>,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

/// What the profiles answer.
pub fn reply(answer: &mut Answer<'_>) -> Reply {
    Reply { agent_transfer_message: answer.text("transfer_message").map(|text| Text { text }) }
}

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    let webhook = Webhook::PreAgentTransfer;
    receive(app, webhook, request, async |received| app.answer(webhook, received, reply).await).await
}
