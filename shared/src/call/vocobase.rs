//! Reads Vocobase's `session.completed` into a delivery.

use super::{Call, Delivery, Field, NotADelivery, Segment, Source, State, Transcript, decimal, short_digest};
use crate::contact::{Country, normalised};
use crate::instant::Instant;
use crate::json::Json;
use crate::recording::Wanted;
use crate::session::{Provider, SessionKey, Webhook};
use crate::wire::vocobase as wire;

pub(super) fn read(
    sent: wire::SessionCompleted,
    body: &[u8],
    source: Source,
    country: Country,
) -> Result<Delivery, NotADelivery> {
    if sent.event.is_some_and(|event| event != "session.completed") {
        return Err(NotADelivery::UnknownEvent);
    }
    let sent_at = sent.timestamp;
    // What was fetched is said before everything, whatever the platform's clocks say: a webhook that comes after all has
    // the last word.
    let at = sent_at.filter(|_| source == Source::Webhook);
    let session = sent.data;
    let key = SessionKey::new(Provider::Vocobase, session.session_id.as_deref().unwrap_or_default())?;
    let segments: Vec<Segment> = session
        .transcript
        .into_iter()
        .map(|entry| Segment {
            speaker: entry.role,
            text: entry.content,
            start: entry.timestamp,
            end: None,
            latency_ms: entry.latency_ms.as_deref().map(decimal),
        })
        .collect();

    // The payload says how long the session was, but not when it began: the first word is the nearest there is.
    let duration = session.duration_seconds.as_deref().and_then(millis);
    let first_word = segments.iter().filter_map(|segment| segment.start).min();
    let started_at = first_word.or_else(|| Some(sent_at?.plus_millis(-duration?))).or(sent_at);
    let ended_at = started_at.zip(duration).map(|(start, duration)| start.plus_millis(duration)).or(sent_at);

    let mut call = Call::new(key);
    call.state = State::Ended;
    call.started_at = started_at;
    call.bots.extend(session.agent_id.clone());
    let revision = format!(
        "{}#{}#{}",
        source.name(),
        sent_at.map_or_else(|| "-".to_owned(), |at: Instant| at.to_string()),
        short_digest(body)
    );
    call.revision = Some(revision.clone());
    let latency = session.latency.unwrap_or_default();
    let telephone = session.call.unwrap_or_default();
    let (contact, landing_number) = match telephone.direction.as_deref() {
        Some(direction) if direction.eq_ignore_ascii_case("outbound") => (telephone.to_number, telephone.from_number),
        _ => (telephone.from_number, telephone.to_number),
    };
    let number = |text: Option<String>| text.as_deref().map(decimal);
    call.say(Field::BotName, at, session.agent_name);
    call.say(Field::EndedAt, at, ended_at.map(|end| end.to_string()));
    call.say(Field::DurationSeconds, at, number(session.duration_seconds));
    call.say(Field::CreditsUsed, at, number(session.credits_used));
    call.say(Field::LatencyMinMs, at, number(latency.min_ms));
    call.say(Field::LatencyMaxMs, at, number(latency.max_ms));
    call.say(Field::LatencyAvgMs, at, number(latency.avg_ms));
    call.say(Field::CallId, at, telephone.call_id);
    call.say(Field::Contact, at, contact.map(|contact| normalised(contact, country)));
    call.say(Field::LandingNumber, at, landing_number);
    call.say(Field::Direction, at, telephone.direction);
    call.say(Field::CallStatus, at, telephone.status);
    call.say(Field::Disposition, at, telephone.disposition);
    call.say(Field::AnsweredBy, at, telephone.answered_by);
    call.say(Field::Variables, at, session.variables.map(Json::into_string));
    call.say(Field::Extraction, at, session.extraction.map(Json::into_string));
    let recording = session.recording_url.map(|url| Wanted::new(url, sent_at.or(started_at)));
    // Before everything that the archiver will say of it.
    call.say(Field::RecordingState, None, recording.as_ref().map(|_| "pending".to_owned()));
    Ok(Delivery {
        webhook: Webhook::SessionCompleted,
        trigger_reason: None,
        occurred_at: sent_at,
        call,
        turns: Vec::new(),
        insights: Vec::new(),
        transcript: Some(Transcript { revision, segments }),
        recording,
        bot: session.agent_id,
    })
}

#[allow(clippy::cast_possible_truncation, reason = "a float becomes the nearest i64, and absurd durations are dropped")]
fn millis(seconds: &str) -> Option<i64> {
    let seconds: f64 = seconds.parse().ok()?;
    (0.0..=1e9).contains(&seconds).then(|| (seconds * 1000.0).round() as i64)
}
