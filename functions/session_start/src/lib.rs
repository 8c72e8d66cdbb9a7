//! Exotel `session_start`: a call begins. Answered, while the caller waits, with what its profile says: greeting,
//! constants, assistant, and where this session's other webhooks go.

use lambda_http::{Body, Request, Response};
use shared::Webhook;
use shared::webhook::{App, receive};
use std::collections::BTreeMap;

use serde::Serialize;
use shared::json::Json;
use shared::profile::{Override, Profile};

/// The answer's `data`. Source: Exotel's page "VoiceBot Webhooks", "session_start webhook", expected response. Every
/// member is optional, and only what is configured is sent.
#[derive(Serialize)]
struct Reply {
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

impl Reply {
    fn new(profile: Profile, session_id: Option<&str>, app: &App) -> Self {
        let targets = profile.webhooks.into_iter().filter_map(|(name, wanted)| target(&name, wanted, session_id, app));
        Self {
            greeting_message: profile.greeting.map(|text| Text { text }),
            session_constants: profile.session_constants,
            conversation_assistant_id: profile.conversation_assistant_id,
            webhook_config: targets.collect(),
        }
    }
}

/// What the platform lets a session override: everything but `session_start` itself.
const OVERRIDABLE: [Webhook; 4] =
    [Webhook::SessionEnd, Webhook::PreAgentTransfer, Webhook::InsightsEvents, Webhook::TranscriptEvents];

/// Where one webhook of the session goes: where the profile says, or to this bundle's own function with a token for
/// this session only.
fn target(name: &str, wanted: Override, session_id: Option<&str>, app: &App) -> Option<(&'static str, Target)> {
    let named = name.parse().ok().filter(|webhook: &Webhook| OVERRIDABLE.contains(webhook));
    let Some(webhook) = named else {
        tracing::warn!(webhook = name, "a profile names a webhook that cannot be sent elsewhere: passed over");
        return None;
    };
    let url = wanted.url.or_else(|| app.session_url(webhook, session_id?))?;
    let (trigger_type, trigger_interval_sec) = (wanted.trigger_type, wanted.trigger_interval_sec);
    Some((webhook.name(), Target { url, trigger_type, trigger_interval_sec }))
}

/// Receives one delivery.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    receive(app, Webhook::SessionStart, request, async |delivery| {
        let session_id = delivery.map(|delivery| delivery.call.key.id());
        Reply::new(app.profile(delivery).await, session_id, app)
    })
    .await
}
