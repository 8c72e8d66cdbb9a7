//! Vocobase `session.completed`. Source: Vocobase's pages "Webhook Payloads", "Webhook Setup", "Post-call Extraction".
//! Two generations of the payload are in the field: `call` is null in the older and absent in the newer one, which adds
//! `variables`, `extraction`, `disposition` and `answered_by`.

use serde::Deserialize;

use crate::instant::Instant;
use crate::json::Json;

/// The whole delivery.
#[derive(Deserialize)]
pub struct SessionCompleted {
    /// `session.completed`, the only one there is so far.
    #[serde(default, deserialize_with = "super::text")]
    pub event: Option<String>,
    /// When the webhook was sent: a re-run extraction is sent again, later.
    #[serde(default, deserialize_with = "super::instant")]
    pub timestamp: Option<Instant>,
    /// The session.
    #[serde(deserialize_with = "super::object")]
    pub data: Session,
}

/// `data`.
#[derive(Deserialize)]
pub struct Session {
    /// Names the call; opaque. Required.
    #[serde(default, deserialize_with = "super::text")]
    pub session_id: Option<String>,
    /// The agent that handled the call.
    #[serde(default, deserialize_with = "super::text")]
    pub agent_id: Option<String>,
    /// Its display name at the time of the call.
    #[serde(default, deserialize_with = "super::text")]
    pub agent_name: Option<String>,
    /// Seconds.
    #[serde(default, deserialize_with = "super::number")]
    pub duration_seconds: Option<String>,
    /// A decimal, digits kept.
    #[serde(default, deserialize_with = "super::number")]
    pub credits_used: Option<String>,
    /// In order.
    #[serde(default, deserialize_with = "super::list")]
    pub transcript: Vec<Entry>,
    /// A presigned URL: a credential.
    #[serde(default, deserialize_with = "super::text")]
    pub recording_url: Option<String>,
    /// Response latency over all bot turns.
    #[serde(default, deserialize_with = "super::maybe_object")]
    pub latency: Option<Latency>,
    /// The telephone call, if it was one.
    #[serde(default, deserialize_with = "super::maybe_object")]
    pub call: Option<Call>,
    /// Newer: what the session was started with.
    #[serde(default, deserialize_with = "super::json")]
    pub variables: Option<Json>,
    /// Newer: `status` and `values`.
    #[serde(default, deserialize_with = "super::json")]
    pub extraction: Option<Json>,
}

/// One turn.
#[derive(Deserialize)]
pub struct Entry {
    /// `user`, `bot`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub role: Option<String>,
    /// What was said.
    #[serde(default, deserialize_with = "super::text")]
    pub content: Option<String>,
    /// When it was said.
    #[serde(default, deserialize_with = "super::instant")]
    pub timestamp: Option<Instant>,
    /// Milliseconds from the user's last word to the bot's first.
    #[serde(default, deserialize_with = "super::number")]
    pub latency_ms: Option<String>,
}

/// Milliseconds.
#[derive(Deserialize, Default)]
pub struct Latency {
    /// Fastest.
    #[serde(default, deserialize_with = "super::number")]
    pub min_ms: Option<String>,
    /// Slowest.
    #[serde(default, deserialize_with = "super::number")]
    pub max_ms: Option<String>,
    /// Mean.
    #[serde(default, deserialize_with = "super::number")]
    pub avg_ms: Option<String>,
}

/// The telephone call.
#[derive(Deserialize, Default)]
pub struct Call {
    /// The platform's id of the call.
    #[serde(default, deserialize_with = "super::text")]
    pub call_id: Option<String>,
    /// E.164.
    #[serde(default, deserialize_with = "super::text")]
    pub from_number: Option<String>,
    /// E.164.
    #[serde(default, deserialize_with = "super::text")]
    pub to_number: Option<String>,
    /// `outbound`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub direction: Option<String>,
    /// `completed`, `failed`, `no_answer`, `busy`, `canceled`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub status: Option<String>,
    /// Newer: how it ended.
    #[serde(default, deserialize_with = "super::text")]
    pub disposition: Option<String>,
    /// Newer: `human`, `machine`, `unknown`, `not_answered`.
    #[serde(default, deserialize_with = "super::text")]
    pub answered_by: Option<String>,
}
