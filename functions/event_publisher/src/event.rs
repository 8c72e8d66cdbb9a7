//! An event: a CloudEvent whose id is a function of what happened, and nothing else. `docs/events/` describes each type
//! to those who receive it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::call::{Call, Field, State};
use shared::json::Json;
use shared::{Instant, SessionKey};

/// What an event may be at most, in bytes: what EventBridge and the queues behind it take (262,144), less what they
/// wrap it in.
pub const MAX_BYTES: usize = 250_000;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A call began.
    CallStarted,
    /// Something was found out about it.
    CallInsight,
    /// It is to be handed to a human.
    CallTransferRequested,
    /// It is over.
    CallEnded,
    /// It is over, and so is what became of its recording.
    CallCompleted,
    /// Its recording is in the bucket.
    RecordingArchived,
    /// Its recording is given up.
    RecordingFailed,
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::CallStarted,
        Self::CallInsight,
        Self::CallTransferRequested,
        Self::CallEnded,
        Self::CallCompleted,
        Self::RecordingArchived,
        Self::RecordingFailed,
    ];

    /// The event's `type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallStarted => "call.started",
            Self::CallInsight => "call.insight",
            Self::CallTransferRequested => "call.transfer_requested",
            Self::CallEnded => "call.ended",
            Self::CallCompleted => "call.completed",
            Self::RecordingArchived => "recording.archived",
            Self::RecordingFailed => "recording.failed",
        }
    }

    /// The event's `dataschema`: the `$id` of its schema in `docs/events/`.
    pub fn schema(self) -> String {
        format!("urn:hookswitch:event:{}:1", self.name())
    }
}

/// Something that happened to a call, to be published.
pub struct Event {
    /// What happened.
    pub kind: Kind,
    /// The same for the same happening, whenever and however often it is seen.
    pub id: String,
    /// To which call.
    pub session: SessionKey,
    /// When, as far as is known.
    pub time: Instant,
    call: BTreeMap<String, Json>,
    more: BTreeMap<&'static str, Json>,
}

impl Event {
    /// An event of a call. `parts` tell it from others of its type and call.
    pub fn new(kind: Kind, call: &Call, parts: &[&str], time: Instant) -> Self {
        let parts: Vec<&str> = [kind.name(), call.key.as_str()].iter().chain(parts).copied().collect();
        let id = hex::encode(&Sha256::digest(json!(parts).to_string())[..16]);
        Self { kind, id, session: call.key.clone(), time, call: call.told(), more: BTreeMap::new() }
    }

    /// With another member of its data, if there is something to say.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<Json>) -> Self {
        self.more.extend(value.map(|value| (name, value)));
        self
    }

    /// The event as JSON of [`MAX_BYTES`] at most: while it is longer, it loses its largest member, and says so.
    pub fn into_json(mut self, source: &str) -> String {
        let mut truncated = Vec::new();
        loop {
            let event = self.whole(source, &truncated);
            if event.len() <= MAX_BYTES || !self.lose_the_largest(&mut truncated) {
                return event;
            }
        }
    }

    fn whole(&self, source: &str, truncated: &[String]) -> String {
        let schema = self.kind.schema();
        let envelope = Envelope {
            specversion: "1.0",
            id: &self.id,
            source,
            kind: self.kind.name(),
            subject: self.session.as_str(),
            time: self.time,
            datacontenttype: "application/json",
            dataschema: &schema,
            data: Data {
                session: self.session.as_str(),
                session_id: self.session.id(),
                provider: self.session.provider().name(),
                call: &self.call,
                more: &self.more,
                truncated,
            },
        };
        // Every value in it is JSON already: there is no failing case.
        serde_json::to_string(&envelope).unwrap_or_default()
    }

    /// Of equally large ones the first by name. `false` if there is nothing left to lose.
    fn lose_the_largest(&mut self, truncated: &mut Vec<String>) -> bool {
        let of_the_call = self.call.iter().map(|(name, value)| (value.as_str().len(), format!("call.{name}")));
        let others = self.more.iter().map(|(name, value)| (value.as_str().len(), (*name).to_owned()));
        let largest = of_the_call.chain(others).max_by(|one, two| one.0.cmp(&two.0).then(two.1.cmp(&one.1)));
        let Some((_, name)) = largest else { return false };
        match name.strip_prefix("call.") {
            Some(member) => drop(self.call.remove(member)),
            None => drop(self.more.remove(name.as_str())),
        }
        truncated.push(name);
        true
    }
}

/// Redacted: it holds what callers said.
impl std::fmt::Debug for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Event {{ {} {}, [redacted] }}", self.kind.name(), self.id)
    }
}

/// Source: CloudEvents 1.0.2, "Context attributes"; "JSON Event Format".
#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: Instant,
    datacontenttype: &'static str,
    dataschema: &'a str,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    session: &'a str,
    session_id: &'a str,
    provider: &'static str,
    call: &'a BTreeMap<String, Json>,
    #[serde(flatten)]
    more: &'a BTreeMap<&'static str, Json>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    truncated: &'a [String],
}

/// Whether a call is over and nothing more is waited for.
pub fn is_complete(call: &Call) -> bool {
    use shared::recording::State as Recording;
    let recording = call.get(Field::RecordingState).map(Recording::from_name);
    let settled = [Recording::Archived, Recording::Expired, Recording::Rejected, Recording::Failed];
    call.state == State::Ended && recording.is_none_or(|state| state.is_some_and(|state| settled.contains(&state)))
}

#[cfg(test)]
mod tests {
    use shared::Provider;
    use shared::call::Said;

    use super::*;

    fn call() -> Call {
        Call::new(SessionKey::new(Provider::Exotel, "s1").unwrap())
    }

    fn now() -> Instant {
        Instant::parse("2026-03-15T14:30:00Z").unwrap()
    }

    fn read(event: Event) -> serde_json::Value {
        serde_json::from_str(&event.into_json("hookswitch/prod")).unwrap()
    }

    #[test]
    fn an_id_is_what_happened_and_can_be_worked_out_by_anybody() {
        let id = |kind, parts: &[&str]| Event::new(kind, &call(), parts, now()).id;
        let digest = hex::encode(Sha256::digest(r#"["call.insight","exotel#s1","sentiment","00ff"]"#));
        assert_eq!(id(Kind::CallInsight, &["sentiment", "00ff"]), digest[..32]);
        assert_ne!(id(Kind::CallInsight, &["sentiment", "00ff"]), id(Kind::CallInsight, &["sentiment\",\"00ff"]));
        assert_ne!(id(Kind::CallStarted, &[]), id(Kind::CallEnded, &[]));
    }

    #[test]
    fn what_is_known_is_told_as_what_it_is() {
        let mut call = call();
        call.started_at = Instant::parse("2026-03-15T14:29:58.5Z");
        call.say(Field::EndedAt, None, Some("2026-03-15T14:30:00.000000Z".to_owned()));
        call.say(Field::CreditsUsed, None, Some("12345678901234567890.5".to_owned()));
        call.say(Field::LatencyMinMs, None, Some("fast".to_owned()));
        call.say(Field::CustomParameters, None, Some(r#"{"n":1e400}"#.to_owned()));
        call.say(Field::Variables, None, Some("{by hand".to_owned()));
        call.insights.insert("sentiment".to_owned(), Said { at: None, value: r#"{"score":7}"#.to_owned() });
        let json = Event::new(Kind::CallEnded, &call, &[], now()).into_json("hookswitch/prod");
        for part in [
            r#""duration_seconds":1.5"#,
            r#""credits_used":12345678901234567890.5"#,
            r#""latency_min_ms":"fast""#,
            r#""custom_parameters":{"n":1e400}"#,
            r#""variables":"{by hand""#,
            r#""insights":{"sentiment":{"score":7}}"#,
        ] {
            assert!(json.contains(part), "{part} is not in {json}");
        }
    }

    #[test]
    fn what_is_too_long_loses_its_largest_members_and_says_so() {
        let mut call = call();
        for (field, length) in [(Field::Metadata, 120_000), (Field::Variables, 120_000)] {
            call.say(field, None, Some(json!("x".repeat(length)).to_string()));
        }
        let event = Event::new(Kind::CallTransferRequested, &call, &[], now());
        let id = event.id.clone();
        let event = read(event.with("brief", Some(Json::text(&"y".repeat(70_000)))));
        // Of the two that are equally large, the first by name is enough.
        let data = &event["data"];
        assert_eq!(data["truncated"], json!(["call.metadata"]));
        assert!(data["call"].get("metadata").is_none() && data["call"].get("variables").is_some());
        assert!(data.get("brief").is_some() && event["id"] == id);
    }

    #[test]
    fn whatever_its_size_it_fits() {
        let mut call = call();
        for field in Field::ALL.iter().filter(|field| **field != Field::Contact) {
            call.say(*field, None, Some("\u{1}".repeat(60_000)));
        }
        let json = Event::new(Kind::CallEnded, &call, &[], now()).into_json("hookswitch/prod");
        assert!(json.len() <= MAX_BYTES, "{}", json.len());
        let small = Event::new(Kind::CallStarted, &self::call(), &[], now());
        assert!(read(small)["data"].get("truncated").is_none());
    }

    #[test]
    fn a_call_is_complete_once_nothing_is_waited_for() {
        let ended = |recording: Option<&str>| {
            let mut call = Call { state: State::Ended, ..call() };
            call.say(Field::RecordingState, None, recording.map(str::to_owned));
            call
        };
        for settled in [None, Some("archived"), Some("expired"), Some("rejected"), Some("failed")] {
            assert!(is_complete(&ended(settled)), "{settled:?}");
            assert!(!is_complete(&Call { state: State::InProgress, ..ended(settled) }), "{settled:?}");
        }
        for waiting in ["pending", "copying", "a word to come"] {
            assert!(!is_complete(&ended(Some(waiting))), "{waiting}");
        }
    }

    #[test]
    fn no_content_is_in_debug_output() {
        let mut call = call();
        call.say(Field::Contact, None, Some("+919876543210".to_owned()));
        let printed = format!("{:?}", Event::new(Kind::CallStarted, &call, &[], now()));
        assert!(!printed.contains("9876543210") && printed.contains("call.started"), "{printed}");
    }
}
