//! Reads Exotel's requests into deliveries.

use std::fmt::Write;

use super::{Call, Delivery, Field, Insight, NotADelivery, Said, Segment, State, Turn, is_placeholder, short_digest};
use crate::contact::{Country, normalised};
use crate::json::Json;
use crate::session::{Provider, SessionKey, Webhook};
use crate::wire::{Object, exotel as wire};

/// Each is stored by itself, and takes a hundred times its length in memory. A call of hours has some thousands.
const MAX_EVENTS: usize = 10_000;

pub(super) fn read(webhook: Webhook, request: wire::Request, country: Country) -> Result<Delivery, NotADelivery> {
    let key = SessionKey::new(Provider::Exotel, request.session_id.as_deref().unwrap_or_default())?;
    let mut turns = Vec::new();
    let mut insights = Vec::new();
    for event in request.events {
        let Some(data) = event.event_data else { continue };
        let kind = event.event_type.unwrap_or_else(|| "unknown".to_owned());
        if kind.eq_ignore_ascii_case("transcript") {
            for transcript in transcripts(data.get())? {
                turns.extend(turn(transcript, request.bot_id.as_deref()));
            }
        } else {
            let value = Json::parse(data.get())?;
            if !value.is_empty() {
                // From what is kept: there the last of duplicate members counts.
                let insight = serde_json::from_str::<Object<wire::Insight>>(value.as_str());
                let at = insight.ok().and_then(|Object(insight)| insight.timestamp);
                insights.push((kind, at, value.into_string()));
            }
        }
        if turns.len() + insights.len() > MAX_EVENTS {
            return Err(NotADelivery::TooMany);
        }
    }

    // The request carries no time of its own, so what it says of the call is as late as the latest instant that it
    // gives for the call. The times of a turn are left out: they would make every turn a write of the call as well.
    let insights_at = insights.iter().filter_map(|(_, at, _)| *at).max();
    let at = request.start_time.max(request.end_time).max(insights_at);
    let insights_from = insights.iter().filter_map(|(_, at, _)| *at).min();
    let turns_from = turns.iter().flat_map(|turn: &Turn| &turn.segments).filter_map(|segment| segment.start).min();
    let turns_at =
        turns.iter().flat_map(|turn: &Turn| &turn.segments).map(|segment| segment.start.max(segment.end)).max();

    let mut call = Call::new(key);
    let says = |word: Option<&str>, expected: &str| word.is_some_and(|word| normal(word) == normal(expected));
    let (state, reason) = (request.session_state.as_deref(), request.trigger_reason.as_deref());
    let over = webhook == Webhook::SessionEnd
        || request.end_time.is_some()
        || says(state, "session_end")
        || says(reason, "end");
    call.state = if over { State::Ended } else { State::InProgress };
    // A call that never says when it began is as old as the first thing that is known of it: lists go by this.
    call.started_at =
        request.start_time.or_else(|| turns_from.into_iter().chain(insights_from).chain(request.end_time).min());
    call.bots.extend(request.bot_id.clone());
    call.transfer_requested = webhook == Webhook::PreAgentTransfer || says(reason, "pre_agent_transfer");
    call.test = is_placeholder(request.session_id.as_deref()) || is_placeholder(request.external_id.as_deref());
    call.say(Field::ConversationId, at, request.conversation_id);
    call.say(Field::ExternalId, at, request.external_id);
    call.say(Field::Contact, at, request.contact_uri.map(|contact| normalised(contact, country)));
    call.say(Field::LandingNumber, at, request.landing_number);
    call.say(Field::NetworkType, at, request.network_type);
    call.say(Field::AccountId, at, request.account_id);
    call.say(Field::BotName, at, request.bot_name);
    call.say(Field::EndedAt, at, request.end_time.map(|end| end.to_string()));
    call.say(Field::Metadata, at, request.metadata.map(Json::into_string));
    call.say(Field::CustomParameters, at, request.custom_parameters.map(Json::into_string));
    let insight = |(kind, found_at, value): (String, Option<_>, _)| {
        let said = Said { at: found_at.or(at), value };
        Insight { kind, said }
    };
    let insights: Vec<Insight> = insights.into_iter().map(insight).collect();
    for Insight { kind, said } in &insights {
        let latest = call.insights.entry(kind.clone()).or_insert_with(|| said.clone());
        if *latest < *said {
            latest.clone_from(said);
        }
    }
    Ok(Delivery {
        webhook,
        trigger_reason: request.trigger_reason,
        occurred_at: at.max(turns_at.flatten()),
        call,
        turns,
        insights,
        transcript: None,
        recording: None,
        bot: request.bot_id,
    })
}

fn transcripts(data: &str) -> Result<Vec<wire::Transcript>, serde_json::Error> {
    let Object(listed) = serde_json::from_str::<Object<wire::Transcripts>>(data)?;
    if !listed.transcripts.is_empty() {
        return Ok(listed.transcripts);
    }
    let Object(direct) = serde_json::from_str(data)?;
    Ok(vec![direct])
}

fn turn(transcript: wire::Transcript, bot: Option<&str>) -> Option<Turn> {
    let segments: Vec<Segment> = transcript
        .transcript_segments
        .into_iter()
        .map(|segment| Segment {
            speaker: segment.speaker,
            text: segment.text,
            start: segment.start_timestamp,
            end: segment.end_timestamp,
            latency_ms: None,
        })
        .collect();
    if segments.is_empty() {
        return None;
    }
    let status = match (transcript.status, transcript.is_final) {
        (Some(word), _) if normal(&word) == "inprogress" => "in_progress".to_owned(),
        (Some(word), _) if normal(&word) == "completed" => "completed".to_owned(),
        (Some(word), _) => word,
        (None, Some(false)) => "in_progress".to_owned(),
        (None, _) => "completed".to_owned(),
    };
    let digest = short_digest(spoken(&segments).as_bytes());
    let first_start = segments.iter().filter_map(|segment| segment.start.or(segment.end)).min();
    let place = match (transcript.sequence, first_start) {
        (Some(sequence), _) => format!("{sequence:06}"),
        (None, Some(start)) => format!("t{}", start.unix_micros()),
        // Nothing tells such turns apart but what they say; together under one key they would overwrite each other.
        (None, None) => format!("x{digest}"),
    };
    let last_end = segments.iter().filter_map(|segment| segment.end.or(segment.start)).max();
    let length: usize =
        segments.iter().filter_map(|segment| segment.text.as_ref()).map(|text| text.chars().count()).sum();
    let rank = format!(
        "{}#{}#{length:09}#{digest}#{status}",
        u8::from(status == "completed"),
        last_end.map_or_else(|| "-".to_owned(), |end| end.to_string()),
    );
    Some(Turn { key: format!("{place}#{}", bot.unwrap_or_default()), status, rank, segments })
}

/// Everything that distinguishes one accumulation of a turn from another.
fn spoken(segments: &[Segment]) -> String {
    let mut text = String::new();
    for Segment { speaker, text: said, start, end, .. } in segments {
        let _ = write!(text, "{speaker:?}{said:?}{start:?}{end:?}");
    }
    text
}

/// A word without case and separators: the platform's page and its calls spell `in_progress` in three ways.
fn normal(word: &str) -> String {
    word.chars().filter(|letter| !matches!(letter, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}
