//! Exotel `pre_agent_transfer`: the bot is about to hand over to a human. Answered, while the caller waits, with the
//! profile's transfer message.

use lambda_http::{Body, Request, Response};
use serde::Serialize;
use shared::Webhook;
use shared::profile::Profile;
use shared::webhook::{App, receive};

/// The answer's `data`. Source: Exotel's page "VoiceBot Webhooks", "pre_agent_transfer webhook", expected response.
#[derive(Serialize)]
struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_transfer_message: Option<Text>,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

impl From<Profile> for Reply {
    fn from(profile: Profile) -> Self {
        Self { agent_transfer_message: profile.transfer_message.map(|text| Text { text }) }
    }
}

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::PreAgentTransfer, request, async |delivery| Reply::from(app.profile(delivery).await)).await
}
