//! A finished call as one document, to ask questions over thousands of them. `docs/calls/` describes it to those who
//! read it, and Athena's table in `infra/template.yaml` has a column for each member.
//!
//! A document is a function of what the tables hold: the same tables give the same bytes.

use serde::Serialize;

use crate::call::{Call, Field, Segment, State};
use crate::instant::Instant;
use crate::recording;
use crate::session::Provider;
use crate::storage::Recording;

/// The prefix of documents in the bucket.
pub const CALLS: &str = "calls/";
/// Goes up when a member changes its meaning or goes; not when one is added.
pub const SCHEMA_VERSION: u32 = 1;
/// The day of a call that never said when it was.
const NO_DAY: &str = "1970-01-01";

/// What is known of a finished call. Every member is always there, `null` or empty where nothing is known.
///
/// Numbers are what a double holds; what a platform sent in the place of a number and is none is left out.
#[derive(Clone, PartialEq, Serialize)]
pub struct Document {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `exotel#<session id>` or `vocobase#<session id>`.
    pub session: String,
    /// The platform's own id.
    pub session_id: String,
    /// `exotel` or `vocobase`.
    pub provider: &'static str,
    /// `ended`.
    pub state: &'static str,
    /// When the call began, UTC.
    pub started_at: Option<Instant>,
    /// When it ended, UTC.
    pub ended_at: Option<String>,
    /// How long it was: as the platform says, else from its start to its end.
    pub duration_seconds: Option<f64>,
    /// Every bot that took part, sorted.
    pub bots: Vec<String>,
    /// The bot's display name.
    pub bot_name: Option<String>,
    /// The platform's id of the conversation.
    pub conversation_id: Option<String>,
    /// The id of the telephone call, as Exotel names it.
    pub external_id: Option<String>,
    /// The id of the telephone call, as Vocobase names it.
    pub call_id: Option<String>,
    /// The human's number, in E.164 where it is one.
    pub contact: Option<String>,
    /// The bot's own number.
    pub landing_number: Option<String>,
    /// `sip` or `pstn`.
    pub network_type: Option<String>,
    /// `outbound` or `inbound`.
    pub direction: Option<String>,
    /// The platform's account.
    pub account_id: Option<String>,
    /// Whether a human was asked for.
    pub transfer_requested: bool,
    /// The telephone call's final status.
    pub call_status: Option<String>,
    /// How it ended, in more detail.
    pub disposition: Option<String>,
    /// Who answered.
    pub answered_by: Option<String>,
    /// What the call cost, in the platform's credits.
    pub credits_used: Option<f64>,
    /// The fastest answer of the bot, in milliseconds.
    pub latency_min_ms: Option<f64>,
    /// The mean over the bot's answers, in milliseconds.
    pub latency_avg_ms: Option<f64>,
    /// The slowest answer of the bot, in milliseconds.
    pub latency_max_ms: Option<f64>,
    /// How many turns there are.
    pub turn_count: usize,
    /// When the first was begun, as far as any says.
    pub first_turn_at: Option<Instant>,
    /// When the last was over, as far as any says.
    pub last_turn_at: Option<Instant>,
    /// What was said, in the order in which it was said.
    pub turns: Vec<Turn>,
    /// The latest insight of each type, by type.
    pub insights: Vec<Insight>,
    /// What became of the recording; `None` if none was offered.
    pub recording: Option<Archive>,
    /// JSON as text.
    pub metadata: Option<String>,
    /// JSON as text.
    pub custom_parameters: Option<String>,
    /// JSON as text.
    pub variables: Option<String>,
    /// JSON as text.
    pub extraction: Option<String>,
}

/// A stretch of speech.
#[derive(Clone, PartialEq, Serialize)]
pub struct Turn {
    /// From 0.
    pub index: usize,
    /// In the platform's word.
    pub speaker: Option<String>,
    /// What was said.
    pub text: Option<String>,
    /// When it began, UTC.
    pub started_at: Option<Instant>,
    /// When it was over, UTC.
    pub ended_at: Option<Instant>,
    /// Until the bot answered, in milliseconds, where the platform says it.
    pub latency_ms: Option<f64>,
}

/// What was found out.
#[derive(Clone, PartialEq, Serialize)]
pub struct Insight {
    /// `sentiment`, `summary` and so on, in the platform's word.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it was found, UTC.
    pub at: Option<Instant>,
    /// JSON as text.
    pub data: String,
}

/// What became of a recording.
#[derive(Clone, PartialEq, Serialize)]
pub struct Archive {
    /// `pending`, `archived`, `expired`, `rejected` or `failed`: what the call was told last.
    pub state: String,
    /// `s3://…`, once it is archived.
    pub uri: Option<String>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Of its content, as hex.
    pub sha256: Option<String>,
    /// Of its content.
    pub content_type: Option<String>,
    /// When it was put into the bucket, UTC.
    pub archived_at: Option<Instant>,
}

/// Redacted: it holds what callers said.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document {{ {}, [redacted] }}", self.session)
    }
}

impl Call {
    /// Whether there is a document of it: it is over, and neither erased nor a test nor a trial.
    pub fn has_document(&self) -> bool {
        self.state == State::Ended && !self.test && !self.key.is_trial()
    }

    /// The day that its document is filed under, such as `2026-03-15`: of its start, else of its end.
    pub fn document_day(&self) -> String {
        let ended_at = || Instant::parse(self.get(Field::EndedAt)?);
        self.started_at.or_else(ended_at).map_or_else(|| NO_DAY.to_owned(), Instant::day)
    }

    /// The key of its document in the bucket: `calls/provider=<provider>/dt=<day>/<session id>.json`.
    pub fn document_key(&self) -> String {
        let partition = partition(self.key.provider(), &self.document_day());
        format!("{CALLS}{partition}/{}.json", self.key.object_name())
    }
}

/// Where the documents of a platform and a day are, below [`CALLS`].
pub fn partition(provider: Provider, day: &str) -> String {
    format!("provider={}/dt={day}", provider.name())
}

impl Document {
    /// The document of a call, of what was said in it and of its recording's job.
    pub fn new(call: &Call, conversation: Vec<Segment>, job: Option<&Recording>) -> Self {
        let said = |field: Field| call.get(field).map(str::to_owned);
        let measured = |field: Field| call.get(field).and_then(number);
        let turns = conversation.into_iter().enumerate().map(|(index, segment)| Turn {
            index,
            latency_ms: segment.latency_ms.as_deref().and_then(number),
            speaker: segment.speaker,
            text: segment.text,
            started_at: segment.start,
            ended_at: segment.end,
        });
        let turns: Vec<Turn> = turns.collect();
        let insights = call.insights.iter().map(|(kind, said)| Insight {
            kind: kind.clone(),
            at: said.at,
            data: said.value.clone(),
        });
        let derived = call.derived_duration_seconds();
        Self {
            schema_version: SCHEMA_VERSION,
            session: call.key.as_str().to_owned(),
            session_id: call.key.id().to_owned(),
            provider: call.key.provider().name(),
            state: call.state.name(),
            started_at: call.started_at,
            ended_at: said(Field::EndedAt),
            duration_seconds: measured(Field::DurationSeconds).or_else(|| number(derived.as_deref()?)),
            bots: call.bots.iter().cloned().collect(),
            bot_name: said(Field::BotName),
            conversation_id: said(Field::ConversationId),
            external_id: said(Field::ExternalId),
            call_id: said(Field::CallId),
            contact: said(Field::Contact),
            landing_number: said(Field::LandingNumber),
            network_type: said(Field::NetworkType),
            direction: said(Field::Direction),
            account_id: said(Field::AccountId),
            transfer_requested: call.transfer_requested,
            call_status: said(Field::CallStatus),
            disposition: said(Field::Disposition),
            answered_by: said(Field::AnsweredBy),
            credits_used: measured(Field::CreditsUsed),
            latency_min_ms: measured(Field::LatencyMinMs),
            latency_avg_ms: measured(Field::LatencyAvgMs),
            latency_max_ms: measured(Field::LatencyMaxMs),
            turn_count: turns.len(),
            first_turn_at: turns.iter().filter_map(|turn| turn.started_at.or(turn.ended_at)).min(),
            last_turn_at: turns.iter().filter_map(|turn| turn.ended_at.or(turn.started_at)).max(),
            insights: insights.collect(),
            recording: archive(call, job),
            metadata: said(Field::Metadata),
            custom_parameters: said(Field::CustomParameters),
            variables: said(Field::Variables),
            extraction: said(Field::Extraction),
            turns,
        }
    }

    /// As one line of JSON, its end included.
    pub fn to_line(&self) -> String {
        // Texts and finite numbers: there is no failing case.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }
}

/// The call says how it stands; what the job knows beside is told if it is of the recording that the call names.
fn archive(call: &Call, job: Option<&Recording>) -> Option<Archive> {
    let (state, uri) = (call.get(Field::RecordingState)?, call.get(Field::Recording));
    let job = job.filter(|_| state == recording::State::Archived.name()).filter(|job| is_of(uri, job));
    Some(Archive {
        state: state.to_owned(),
        uri: uri.map(str::to_owned),
        bytes: job.and_then(|job| job.bytes),
        sha256: job.and_then(|job| job.sha256.clone()),
        content_type: job.and_then(|job| job.content_type.clone()),
        archived_at: job.and_then(|job| job.archived_at),
    })
}

/// Whether a job is done, and the recording is where it put it.
fn is_of(uri: Option<&str>, job: &Recording) -> bool {
    let key = uri.and_then(|uri| uri.strip_prefix("s3://")?.split_once('/')).map(|(_, key)| key);
    job.state == recording::State::Archived && key == job.s3_key.as_deref()
}

/// A number that a double holds.
fn number(digits: &str) -> Option<f64> {
    digits.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Said;
    use crate::session::SessionKey;

    fn call(id: &str) -> Call {
        Call { state: State::Ended, ..Call::new(SessionKey::new(Provider::Vocobase, id).unwrap()) }
    }

    fn at(text: &str) -> Option<Instant> {
        Instant::parse(text)
    }

    #[test]
    fn a_document_is_filed_by_the_day_its_call_began() {
        let mut filed = call("a/b");
        assert_eq!(filed.document_key(), "calls/provider=vocobase/dt=1970-01-01/a%2Fb.json");
        filed.say(Field::EndedAt, None, Some("2026-03-16T00:00:01.000000Z".to_owned()));
        assert_eq!(filed.document_day(), "2026-03-16");
        filed.started_at = at("2026-03-15T23:59:59.9Z");
        assert_eq!(filed.document_key(), "calls/provider=vocobase/dt=2026-03-15/a%2Fb.json");
    }

    #[test]
    fn only_calls_that_are_over_and_were_calls_have_a_document() {
        assert!(call("s1").has_document());
        for other in [State::InProgress, State::Erased] {
            assert!(!Call { state: other, ..call("s1") }.has_document(), "{other:?}");
        }
        assert!(!Call { test: true, ..call("s1") }.has_document());
        assert!(!call("doctor-0123456789ab").has_document());
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let mut odd = call("s1");
        for (value, expected) in
            [("12.50", Some(12.5)), ("fast", None), ("NaN", None), ("1e999", None), ("-3", Some(-3.0))]
        {
            odd.say(Field::CreditsUsed, None, Some(value.to_owned()));
            assert_eq!(Document::new(&odd, Vec::new(), None).credits_used, expected, "{value}");
        }
    }

    #[test]
    fn a_recording_is_told_by_its_call_and_in_full_once_its_job_is_done() {
        let mut told = call("s1");
        let job = |state, key: &str| Recording {
            state,
            received_at: None,
            source_expires_at: None,
            attempts: 1,
            last_error: None,
            archived_at: at("2026-03-15T14:30:00Z"),
            s3_key: Some(key.to_owned()),
            bytes: Some(44),
            sha256: Some("00ff".to_owned()),
            content_type: Some("audio/wav".to_owned()),
        };
        let of = |call: &Call, job: Option<&Recording>| Document::new(call, Vec::new(), job).recording;
        let done = job(recording::State::Archived, "recordings/r.wav");
        assert!(of(&told, Some(&done)).is_none());
        told.say(Field::RecordingState, None, Some("pending".to_owned()));
        assert_eq!(of(&told, Some(&done)).unwrap().bytes, None, "the call does not know yet");
        told.say(Field::RecordingState, None, Some("archived".to_owned()));
        told.say(Field::Recording, None, Some("s3://bucket/recordings/r.wav".to_owned()));
        assert_eq!(of(&told, Some(&done)).unwrap().bytes, Some(44));
        let copying = job(recording::State::Copying, "recordings/r.wav");
        for other in [None, Some(&copying), Some(&job(recording::State::Archived, "recordings/other.wav"))] {
            let recording = of(&told, other).unwrap();
            assert_eq!((recording.uri.as_deref(), recording.bytes), (Some("s3://bucket/recordings/r.wav"), None));
        }
    }

    #[test]
    fn a_document_is_one_line_and_no_debug_output_holds_it() {
        let mut said = call("s1");
        said.insights.insert("summary".to_owned(), Said { at: None, value: "\"two\\nlines\"".to_owned() });
        let segments = [("2026-03-15T14:30:05Z", "late\nlines"), ("2026-03-15T14:30:01Z", "early")]
            .map(|(start, text)| Segment { start: at(start), text: Some(text.to_owned()), ..Segment::default() });
        let document = Document::new(&said, segments.to_vec(), None);
        assert_eq!(document.first_turn_at, at("2026-03-15T14:30:01Z"));
        assert_eq!((document.last_turn_at, document.turn_count), (at("2026-03-15T14:30:05Z"), 2));
        assert_eq!(document.to_line().lines().count(), 1);
        assert_eq!(format!("{document:?}"), "Document { vocobase#s1, [redacted] }");
    }
}
