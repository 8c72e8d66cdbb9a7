//! Exotel `VoiceBot` webhooks. Source: Exotel's page "VoiceBot Webhooks" (common request format, insight and
//! transcript event data), and the shapes seen on live calls beyond it: `transcript_segments` without `transcripts`,
//! an `is_final` flag, `custom_parameters` that are text or hold values that are not text.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::instant::Instant;
use crate::json::Json;

/// The request that all five webhooks share.
#[derive(Deserialize)]
pub struct Request {
    /// Names the call. Required.
    #[serde(default, deserialize_with = "super::text")]
    pub session_id: Option<String>,
    /// Names the conversation.
    #[serde(default, deserialize_with = "super::text")]
    pub conversation_id: Option<String>,
    /// When the call began.
    #[serde(default, deserialize_with = "super::instant")]
    pub start_time: Option<Instant>,
    /// When it ended; absent while it goes on.
    #[serde(default, deserialize_with = "super::instant")]
    pub end_time: Option<Instant>,
    /// The number that was called.
    #[serde(default, deserialize_with = "super::text")]
    pub landing_number: Option<String>,
    /// The telephone call's id (`CA…`).
    #[serde(default, deserialize_with = "super::text")]
    pub external_id: Option<String>,
    /// `session_start`, `session_in_progress`, `session_end`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub session_state: Option<String>,
    /// `timer`, `turn_complete`, `turn_progress`, `pre_agent_transfer`, `start`, `end`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub trigger_reason: Option<String>,
    /// The human's number or endpoint.
    #[serde(default, deserialize_with = "super::text")]
    pub contact_uri: Option<String>,
    /// `sip` or `pstn`.
    #[serde(default, deserialize_with = "super::text")]
    pub network_type: Option<String>,
    /// The Exotel account.
    #[serde(default, deserialize_with = "super::text")]
    pub account_id: Option<String>,
    /// The bot that speaks now; a session may pass through several.
    #[serde(default, deserialize_with = "super::text")]
    pub bot_id: Option<String>,
    /// The bot's display name.
    #[serde(default, deserialize_with = "super::text")]
    pub bot_name: Option<String>,
    /// `call_sid`, `stream_sid` and what else is there.
    #[serde(default, deserialize_with = "super::json")]
    pub metadata: Option<Json>,
    /// What the caller of the API passed along.
    #[serde(default, deserialize_with = "super::json")]
    pub custom_parameters: Option<Json>,
    /// Insights and transcripts, old and new.
    #[serde(default, deserialize_with = "super::list")]
    pub events: Vec<Event>,
}

/// One insight or transcript.
#[derive(Deserialize)]
pub struct Event {
    /// `sentiment`, `summary`, `intent`, `entity`, `outcome`, `transcript`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub event_type: Option<String>,
    /// What it says; its shape follows from the type.
    pub event_data: Option<Box<RawValue>>,
}

/// The one member of an insight that the bundle reads; the rest is kept as it is.
#[derive(Deserialize)]
pub struct Insight {
    /// When it was found.
    #[serde(default, deserialize_with = "super::instant")]
    pub timestamp: Option<Instant>,
}

/// The data of a transcript event as documented. Live calls have also sent one [`Transcript`] in its place.
#[derive(Deserialize)]
pub struct Transcripts {
    /// At most one, as documented.
    #[serde(default, deserialize_with = "super::list")]
    pub transcripts: Vec<Transcript>,
}

/// One turn, accumulated so far.
#[derive(Deserialize, Default)]
pub struct Transcript {
    /// The turn's number in the session.
    #[serde(default, deserialize_with = "super::whole")]
    pub sequence: Option<u64>,
    /// `in_progress` in any spelling, or `completed`; absent means completed.
    #[serde(default, deserialize_with = "super::text")]
    pub status: Option<String>,
    /// The undocumented way to say `in_progress`: `false`.
    #[serde(default, deserialize_with = "super::flag")]
    pub is_final: Option<bool>,
    /// What was said.
    #[serde(default, deserialize_with = "super::list")]
    pub transcript_segments: Vec<Segment>,
}

/// A stretch of speech by one speaker.
#[derive(Deserialize)]
pub struct Segment {
    /// `assistant`, `user`, `customer`, `bot`, or a word to come.
    #[serde(default, deserialize_with = "super::text")]
    pub speaker: Option<String>,
    /// What was said.
    #[serde(default, deserialize_with = "super::text")]
    pub text: Option<String>,
    /// When it began.
    #[serde(default, deserialize_with = "super::instant")]
    pub start_timestamp: Option<Instant>,
    /// When it ended, so far.
    #[serde(default, deserialize_with = "super::instant")]
    pub end_timestamp: Option<Instant>,
}
