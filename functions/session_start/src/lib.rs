//! Exotel `session_start`: a call begins. Answered, while the caller waits, with what its profile says: greeting,
//! constants, assistant, and where this session's other webhooks go.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, receive};
use std::collections::BTreeMap;

use serde::Serialize;
use shared::json::Json;
use shared::profile::{Answer, Override};

/// The answer's `data`. Source: Exotel's page "VoiceBot Webhooks", "session_start webhook", expected response. Every
/// member is optional, and only what is configured is sent.
#[derive(Serialize)]
pub struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting_message: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_constants: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_assistant_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    webhook_config: BTreeMap<&'static str, Target>,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
struct Target {
    url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger_interval_sec: Option<u64>,
}

/// What the profiles answer. `own` is this bundle's own URL of a webhook for this session, with a token.
pub fn reply(answer: &mut Answer<'_>, own: impl Fn(Webhook) -> Option<String>) -> Reply {
    let target = |(webhook, wanted): (Webhook, Override)| {
        let url = wanted.url.or_else(|| own(webhook))?;
        let (trigger_type, trigger_interval_sec) = (wanted.trigger_type, wanted.trigger_interval_sec);
        Some((webhook.name(), Target { url, trigger_type, trigger_interval_sec }))
    };
    Reply {
        greeting_message: answer.text("greeting").map(|text| Text { text }),
        session_constants: answer.constants(),
        conversation_assistant_id: answer.text("conversation_assistant_id"),
        webhook_config: answer.webhooks().into_iter().filter_map(target).collect(),
    }
}

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    let webhook = Webhook::SessionStart;
    receive(app, webhook, request, async |received| {
        let session_id = received.map(|received| received.delivery.call.key.id().to_owned());
        let own = |webhook| app.session_url(webhook, session_id.as_deref()?);
        app.answer(webhook, received, |answer| reply(answer, own)).await
    })
    .await
}
