//! `hookswitch call`: one call on one screen.

use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};
use shared::call::{Call, Field, Segment, State};
use shared::json::Json;
use shared::logging::printable;
use shared::storage::{Recording, Store};
use shared::{Instant, Provider, SessionKey};

use crate::calls::filter::{duration_seconds, insight};
use crate::calls::{length, members};
use crate::events::{events_of, session_key, text};
use crate::paint::{Colour, Paint};
use crate::target::{Opened, Target};
use crate::{Failure, aligned};

/// Show one call: what it is, what happened when, what was said, what was found out, its recording and deliveries.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch call exotel#s1234567                the whole call
  hookswitch call s1234567 --stack prod          a session id alone is enough
  hookswitch call s1234567 --json | jq -r '.transcript[] | \"\\(.speaker): \\(.text)\"'

Times are UTC; those with + count from the start of the call.

Exit code: 0, or 1 if the call is unknown or erased.")]
pub struct Options {
    /// The call: `exotel#<session id>`, `vocobase#<session id>`, or the session id alone.
    session: String,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Everything that is stored of a call, deliveries without their bodies.
pub struct Whole {
    /// What it is now.
    pub call: Call,
    /// What was said, in order.
    pub conversation: Vec<Segment>,
    /// What became of the recording.
    pub recording: Option<Recording>,
    /// What was received, in order.
    pub deliveries: Vec<Received>,
}

/// One delivery of a call.
#[derive(Serialize)]
pub struct Received {
    /// Its key below the call's.
    pub event: String,
    /// Which webhook brought it.
    pub webhook: String,
    /// Why, in the platform's word.
    pub trigger_reason: String,
    /// The latest instant it speaks of, if any.
    pub occurred_at: String,
    /// When it was first received.
    pub received_at: String,
    /// `webhook` or `reconciler`.
    pub source: String,
}

impl Whole {
    /// Reads all of it; `None` if there is no such call.
    pub async fn read(opened: &Opened, store: &Store, key: &SessionKey, now: Instant) -> Result<Option<Self>, Failure> {
        let failed = |error: shared::storage::StoreError| Failure(error.to_string());
        let Some(call) = store.fresh_call(key, now).await.map_err(failed)? else { return Ok(None) };
        let conversation = async { store.conversation(&call).await.map_err(failed) };
        let recording = async { store.recording(key).await.map_err(failed) };
        let events = events_of(opened, key, now);
        let (conversation, recording, events) = futures_util::try_join!(conversation, recording, events)?;
        let deliveries = events.iter().map(|event| {
            let said = |name: &str| text(event, name).to_owned();
            Received {
                event: said("event"),
                webhook: said("webhook"),
                trigger_reason: said("trigger_reason"),
                occurred_at: said("occurred_at"),
                received_at: said("received_at"),
                source: said("source"),
            }
        });
        let deliveries = deliveries.collect();
        Ok(Some(Self { call, conversation, recording, deliveries }))
    }
}

/// Finds a call by its key, or by the session id alone, which may be of either platform.
pub async fn find(opened: &Opened, store: &Store, session: &str, now: Instant) -> Result<Whole, Failure> {
    let keys = [Provider::Exotel, Provider::Vocobase].map(|provider| session_key(session, provider));
    let mut keys: Vec<SessionKey> = keys.into_iter().collect::<Result<_, _>>()?;
    keys.dedup();
    for key in keys {
        match Whole::read(opened, store, &key, now).await? {
            Some(whole) if whole.call.state == State::Erased => {
                return Err(Failure(format!("{key} is erased: nothing of it is kept")));
            }
            Some(whole) => return Ok(whole),
            None => {}
        }
    }
    Err(Failure(format!("no call {session} is stored")))
}

/// Runs the command.
pub async fn run(options: &Options, now: Instant, mut out: impl Write, coloured: bool) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let store = opened.store()?;
    let whole = find(&opened, &store, &options.session, now).await?;
    let lines = if options.json { vec![whole.json().into_string()] } else { whole.screen(Paint(coloured)) };
    // A closed pipe is a reader that has seen enough.
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

impl Whole {
    fn json(&self) -> Json {
        let mut members = members(&self.call);
        let segment = |segment: &Segment| {
            json!({ "speaker": segment.speaker, "text": segment.text, "start": segment.start, "end": segment.end,
                "latency_ms": segment.latency_ms.as_deref().and_then(|digits| digits.parse::<f64>().ok()) })
        };
        let transcript: Vec<Value> = self.conversation.iter().map(segment).collect();
        let recording = self.recording.as_ref().map(|recording| {
            json!({ "state": recording.state.name(), "bytes": recording.bytes, "sha256": recording.sha256,
                "content_type": recording.content_type, "archived_at": recording.archived_at,
                "attempts": recording.attempts, "last_error": recording.last_error, "s3_key": recording.s3_key,
                "source_expires_at": recording.source_expires_at })
        });
        members.insert("transcript".to_owned(), Json::of(&transcript));
        members.insert("recording_job".to_owned(), Json::of(&recording));
        members.insert("deliveries".to_owned(), Json::of(&self.deliveries));
        members.insert("brief".to_owned(), self.brief().unwrap_or_else(|| Json::of(&Value::Null)));
        Json::object(&members)
    }

    /// The brief that was kept for who took over.
    pub fn brief(&self) -> Option<Json> {
        Json::parse(self.call.get(Field::Brief)?).ok()
    }

    fn screen(&self, paint: Paint) -> Vec<String> {
        let mut lines = self.header(paint);
        let mut part = |heading: &str, rows: Vec<String>| {
            if !rows.is_empty() {
                lines.extend([String::new(), paint.on(Colour::Bold, heading)]);
                lines.extend(rows.into_iter().map(|row| format!("  {row}")));
            }
        };
        part("Timeline", self.timeline());
        part("Conversation", self.spoken(paint));
        part("Insights", self.insights());
        part("Recording", self.recorded());
        part(&format!("Deliveries ({})", self.deliveries.len()), self.received());
        lines
    }

    fn header(&self, paint: Paint) -> Vec<String> {
        let call = &self.call;
        let state = match call.state {
            State::InProgress => paint.on(Colour::Green, "in progress"),
            State::Ended | State::Erased => call.state.name().to_owned(),
        };
        let mut title = vec![paint.on(Colour::Bold, &printable(call.key.as_str())), state];
        title.extend(duration_seconds(call).map(length));
        title.extend(call.transfer_requested.then(|| paint.on(Colour::Yellow, "a human was asked for")));
        title.extend(call.test.then(|| "a test, no call".to_owned()));
        let get = |field: Field| call.get(field).unwrap_or_default().to_owned();
        let joined = |parts: &[String]| {
            let said: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
            said.join(", ")
        };
        let bots: Vec<&str> = call.bots.iter().map(String::as_str).collect();
        let milliseconds =
            |name: &str, field: Field| call.get(field).map(|digits| format!("{name} {digits} ms")).unwrap_or_default();
        let latency = joined(&[
            milliseconds("mean", Field::LatencyAvgMs),
            milliseconds("fastest", Field::LatencyMinMs),
            milliseconds("slowest", Field::LatencyMaxMs),
        ]);
        let rows = [
            ("started", call.started_at.map(|at| second(&at.to_string())).unwrap_or_default()),
            ("ended", second(&get(Field::EndedAt))),
            ("contact", joined(&[get(Field::Contact), get(Field::Direction), get(Field::NetworkType)])),
            ("number", get(Field::LandingNumber)),
            ("bot", joined(&[bots.join(" "), get(Field::BotName)])),
            ("outcome", joined(&[get(Field::CallStatus), get(Field::Disposition), get(Field::AnsweredBy)])),
            ("latency", latency),
            ("credits", get(Field::CreditsUsed)),
            ("parameters", get(Field::CustomParameters)),
            ("variables", get(Field::Variables)),
            ("extraction", get(Field::Extraction)),
            ("metadata", get(Field::Metadata)),
            ("other ids", joined(&[get(Field::ConversationId), get(Field::ExternalId), get(Field::CallId)])),
        ];
        let row = |(name, value): (&str, String)| {
            (!value.is_empty())
                .then(|| format!("{} {}", paint.on(Colour::Dim, &format!("{name:<10}")), printable(&value)))
        };
        let mut lines = vec![title.join("  ")];
        lines.extend(rows.into_iter().filter_map(row));
        lines
    }

    /// What happened when.
    fn timeline(&self) -> Vec<String> {
        let call = &self.call;
        let mut moments: Vec<(Instant, String)> = Vec::new();
        let mut moment = |at: Option<Instant>, what: String| moments.extend(at.map(|at| (at, what)));
        moment(call.started_at, "began".to_owned());
        for (nth, said) in [("first", self.conversation.first()), ("last", self.conversation.last())] {
            if let Some(said) = said {
                let who = said.speaker.as_deref().unwrap_or("somebody");
                moment(said.start, format!("the {nth} words, by {who}"));
            }
        }
        for (kind, said) in &call.insights {
            moment(said.at, format!("{kind}: {}", insight(call, kind).unwrap_or_else(|| "found".to_owned())));
        }
        for delivery in self.deliveries.iter().filter(|delivery| delivery.webhook == "pre_agent_transfer") {
            moment(Instant::parse(&delivery.received_at), "a human was asked for".to_owned());
        }
        moment(call.get(Field::EndedAt).and_then(Instant::parse), "ended".to_owned());
        if let Some(recording) = &self.recording {
            moment(recording.received_at, "a recording was offered".to_owned());
            moment(recording.archived_at, "the recording was archived".to_owned());
        }
        moments.sort_by_key(|(at, _)| *at);
        let row = |(at, what): &(Instant, String)| printable(&format!("{:>8}  {what}", self.offset(*at)));
        moments.iter().map(row).collect()
    }

    fn spoken(&self, paint: Paint) -> Vec<String> {
        let said = |segment: &Segment| {
            let at = segment.start.or(segment.end).map(|at| self.offset(at)).unwrap_or_default();
            let speaker = printable(segment.speaker.as_deref().unwrap_or("?"));
            let text = printable(segment.text.as_deref().unwrap_or_default());
            let latency = segment.latency_ms.as_deref().map(|digits| format!("  ({} ms)", printable(digits)));
            let colour = if is_bot(segment) { Colour::Cyan } else { Colour::Bold };
            let latency = latency.map(|text| paint.on(Colour::Dim, &text)).unwrap_or_default();
            format!("{at:>8}  {} {text}{latency}", paint.on(colour, &format!("{speaker:<10}")))
        };
        self.conversation.iter().map(said).collect()
    }

    fn insights(&self) -> Vec<String> {
        let insight = |(kind, said): (&String, &shared::call::Said)| {
            let data: Value = serde_json::from_str(&said.value).unwrap_or_default();
            let note = |name: &str| match &data[name] {
                Value::Null => None,
                Value::String(text) if text.is_empty() => None,
                Value::String(text) => Some(text.clone()),
                other => Some(format!("{name} {other}")),
            };
            let notes: Vec<String> = ["score", "confidence", "reason"].into_iter().filter_map(note).collect();
            let value = insight(&self.call, kind).unwrap_or_else(|| said.value.clone());
            [printable(kind), printable(&value), printable(&notes.join(", "))]
        };
        aligned(&self.call.insights.iter().map(insight).collect::<Vec<_>>())
    }

    fn recorded(&self) -> Vec<String> {
        let Some(recording) = &self.recording else { return Vec::new() };
        let mut row = vec![recording.state.name().to_owned()];
        row.extend(recording.bytes.map(|bytes| indicatif::HumanBytes(bytes).to_string()));
        row.extend(recording.content_type.clone());
        row.extend(recording.last_error.clone());
        let mut lines = vec![printable(&row.join(", "))];
        lines.extend(self.call.get(Field::Recording).map(printable));
        lines.extend(recording.sha256.as_ref().map(|sha256| format!("sha256 {sha256}")));
        lines
    }

    fn received(&self) -> Vec<String> {
        let row = |delivery: &Received| {
            let from = if delivery.source == "webhook" { "" } else { delivery.source.as_str() };
            let at = second(&delivery.received_at);
            [&at, &delivery.webhook, &delivery.trigger_reason, from, &delivery.event].map(printable)
        };
        aligned(&self.deliveries.iter().map(row).collect::<Vec<_>>())
    }

    /// Minutes and seconds since the call began; before it, or without a start, the time of day.
    fn offset(&self, at: Instant) -> String {
        let since = self.call.started_at.map(|started_at| at.millis_since(started_at));
        match since.filter(|millis| *millis >= 0) {
            #[allow(clippy::cast_precision_loss, reason = "no call is so long")]
            Some(millis) => format!("+{}", length((millis / 1000) as f64)),
            None => at.to_string()[11..19].to_owned(),
        }
    }
}

/// Whether the bot speaks, in the platforms' words.
pub fn is_bot(segment: &Segment) -> bool {
    matches!(segment.speaker.as_deref(), Some("assistant" | "bot" | "agent"))
}

/// An instant's text up to the second.
fn second(at: &str) -> String {
    at.get(..19).unwrap_or(at).replacen('T', " ", 1)
}
