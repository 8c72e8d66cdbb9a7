//! A call's page: its recording beside what was said, what was found out, and every delivery of it.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use minijinja::context;
use serde::Serialize;
use serde_json::Value;
use shared::auth::Verified;
use shared::call::{Call, Delivery, Field, Insight, Segment, State};
use shared::recording;
use shared::storage::{event_body, read_event};
use shared::{Instant, Provider, SessionKey};

use super::charts::{Bar, HEIGHT, bars, place};
use super::{Asked, Console, Problem, Reply, call_path, platform, query, with_type};
use crate::calls::filter::{duration_seconds, sentiment};
use crate::events::{Item, events_of, text, unreadable};
use crate::sender::PARALLEL;

/// Above this a browser would need gigabytes to decode a recording: no waveform is drawn.
const MOST_DRAWN_BYTES: u64 = 48 * 1024 * 1024;

/// How the platforms name whoever is no human.
const BOTS: [&str; 5] = ["assistant", "bot", "agent", "system", "ai"];

/// A stretch of speech.
#[derive(Serialize)]
struct Turn {
    number: usize,
    speaker: String,
    is_bot: bool,
    text: String,
    /// Seconds from the call's start.
    from: Option<f64>,
    to: Option<f64>,
    latency_ms: Option<f64>,
}

/// How long the bot took to answer, turn by turn.
#[derive(Serialize)]
struct Latencies {
    bars: Vec<Latency>,
    /// The value at the top of the chart.
    most: f64,
    average: f64,
    average_y: f64,
    slowest: f64,
    /// Whether it is worked out from when speech began and ended.
    is_derived: bool,
}

#[derive(Serialize)]
struct Latency {
    bar: Bar,
    turn: usize,
    millis: f64,
}

/// Something that was found out.
#[derive(Serialize, Clone)]
struct Found {
    kind: String,
    at: Option<String>,
    /// Seconds from the call's start.
    offset: Option<f64>,
    value: String,
    score: Option<f64>,
    confidence: Option<f64>,
    reason: String,
    tone: &'static str,
}

/// The insights of one type over the call.
#[derive(Serialize)]
struct Lane {
    kind: String,
    /// The height of the lane's picture.
    height: f64,
    points: Vec<Point>,
    lines: Vec<Line>,
}

#[derive(Serialize)]
struct Point {
    x: f64,
    y: f64,
    found: Found,
}

#[derive(Serialize)]
struct Line {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
}

/// One delivery.
#[derive(Serialize)]
struct Received {
    at: String,
    /// Of the latest instant that it speaks of: seconds from the call's start.
    offset: Option<f64>,
    webhook: String,
    reason: String,
    source: String,
    digest: String,
    body: String,
}

/// The page.
pub(super) async fn page(console: &Console, key: &SessionKey) -> Result<Reply, Problem> {
    let (now, store) = (console.now(), &console.store);
    let call = store.fresh_call(key, now).await?.ok_or(Problem::NotFound("No such call is stored."))?;
    if call.state == State::Erased {
        return Err(Problem::NotFound("This call is erased: nothing of it is kept."));
    }
    let events = async { events_of(&console.opened, key, now).await.map_err(Problem::from) };
    let conversation = async { store.conversation(&call).await.map_err(Problem::from) };
    let job = async { store.recording(key).await.map_err(Problem::from) };
    let (events, segments, job) = futures_util::try_join!(events, conversation, job)?;
    let insights = insights(console, &call, &events).await?;

    let path = call_path(key);
    let turns = turns(&call, &segments);
    let seconds = duration_seconds(&call);
    let offset = |at: Instant| call.started_at.map(|began| offset(began, at));
    let found: Vec<Found> = insights.iter().map(|insight| found(insight, &offset)).collect();
    let last =
        turns.iter().filter_map(|turn| turn.to.or(turn.from)).chain(found.iter().filter_map(|found| found.offset));
    let length = last.chain(seconds).fold(1.0, f64::max);
    let received = |event: &Item| {
        let body = query("event", text(event, "event"));
        Received {
            at: text(event, "received_at").to_owned(),
            offset: Instant::parse(text(event, "occurred_at")).and_then(offset),
            webhook: text(event, "webhook").to_owned(),
            reason: text(event, "trigger_reason").to_owned(),
            source: text(event, "source").to_owned(),
            digest: text(event, "body_sha256").get(..12).unwrap_or_default().to_owned(),
            body: format!("{path}/delivery{body}"),
        }
    };
    let deliveries: Vec<Received> = events.iter().map(received).collect();
    let archived = job.as_ref().filter(|job| job.state == recording::State::Archived);
    let unfinished =
        job.as_ref().is_some_and(|job| matches!(job.state, recording::State::Pending | recording::State::Copying));
    let latencies = latencies(&turns, segments.iter().all(|segment| segment.latency_ms.is_none()));
    let context = context! {
        // Without the number: browsers remember titles.
        title => format!("Call {}", key.id()),
        id => key.id(),
        path,
        session => key.as_str(),
        platform => platform(key.provider()),
        state => call.state.name(),
        is_live => call.state == State::InProgress || unfinished,
        contact => call.get(Field::Contact),
        bot => call.get(Field::BotName).map(str::to_owned).or_else(|| bots(&call)),
        started_at => call.started_at.map(|at| at.to_string()),
        seconds,
        transferred => call.transfer_requested,
        test => call.test,
        sentiment => sentiment(&call).map(|said| (tone(&said), said)),
        facts => facts(&call),
        documents => documents(&call),
        brief => call.get(Field::Brief).and_then(brief),
        job => job.as_ref().map(|job| context! {
            state => job.state.name(),
            attempts => job.attempts,
            last_error => job.last_error,
            archived_at => job.archived_at.map(|at| at.to_string()),
            sha256 => job.sha256,
            bytes => job.bytes,
            content_type => job.content_type,
            can_retry => can_retry(job.state),
        }),
        audio => archived.map(|job| context! {
            src => format!("{path}/recording"),
            bytes => job.bytes.unwrap_or_default(),
            draw => job.bytes.is_some_and(|bytes| bytes <= MOST_DRAWN_BYTES),
        }),
        turns,
        lanes => lanes(&found, length),
        length,
        found,
        latencies,
        chart_height => HEIGHT,
        deliveries,
    };
    Ok(Reply::Page(StatusCode::OK, "call.html", context))
}

/// A delivery's body as it came.
pub(super) async fn body(console: &Console, key: &SessionKey, asked: &Asked) -> Result<Reply, Problem> {
    let event = asked.get("event").ok_or(Problem::NotFound("The address names no delivery."))?;
    let read = console.opened.clients.dynamodb.get_item().table_name(console.opened.table("events")?);
    let read =
        read.key("session", AttributeValue::S(key.to_string())).key("event", AttributeValue::S(event.to_owned()));
    let item = read.send().await.map_err(|error| unreadable(&error))?.item;
    verbatim(console, &item.ok_or(Problem::NotFound("The call has no such delivery."))?).await
}

/// The body of an event as it came, and as nothing that a browser would do more with than show it.
pub(super) async fn verbatim(console: &Console, event: &Item) -> Result<Reply, Problem> {
    let body = event_body(&console.opened.clients, event).await?;
    Ok(Reply::Other(with_type(StatusCode::OK, "text/plain; charset=utf-8", body)))
}

/// Every insight that a delivery brought, in the order in which they were found.
async fn insights(console: &Console, call: &Call, events: &[Item]) -> Result<Vec<Insight>, Problem> {
    if call.key.provider() == Provider::Vocobase {
        return Ok(Vec::new());
    }
    let country = console.opened.default_country;
    let of_event = async |event: &Item| {
        let event = read_event(&console.opened.clients, event).await?;
        // It could be read when it came.
        let delivery = Delivery::read(event.webhook, &Verified::known(&event.body), event.source, country);
        Ok::<_, Problem>(delivery.map(|delivery| delivery.insights).unwrap_or_default())
    };
    let all: Vec<Vec<Insight>> = stream::iter(events).map(of_event).buffered(PARALLEL).try_collect().await?;
    let mut insights = all.concat();
    let order = |insight: &Insight| (insight.said.at, insight.kind.clone(), insight.said.value.clone());
    insights.sort_by_cached_key(order);
    insights.dedup();
    Ok(insights)
}

fn offset(began: Instant, at: Instant) -> f64 {
    seconds_of(at.millis_since(began).max(0))
}

#[allow(clippy::cast_precision_loss, reason = "no call lasts so long")]
fn seconds_of(millis: i64) -> f64 {
    millis as f64 / 1000.0
}

/// Whether an operator may have the recording fetched again: see `Store::retry_recording`.
pub(super) const fn can_retry(state: recording::State) -> bool {
    use recording::State::{Archived, Copying, Expired, Failed, Pending, Rejected};
    match state {
        Pending | Expired | Rejected | Failed => true,
        Copying | Archived => false,
    }
}

pub(super) fn bots(call: &Call) -> Option<String> {
    let bots: Vec<&str> = call.bots.iter().map(String::as_str).collect();
    (!bots.is_empty()).then(|| bots.join(", "))
}

fn turns(call: &Call, segments: &[Segment]) -> Vec<Turn> {
    let since_start = |at: Option<Instant>| Some(offset(call.started_at?, at?));
    let mut heard_until = None;
    let turn = |(index, segment): (usize, &Segment)| {
        let speaker = segment.speaker.as_deref().unwrap_or("unknown");
        let is_bot = BOTS.contains(&speaker.to_ascii_lowercase().as_str());
        let said = segment.latency_ms.as_deref().and_then(|millis| millis.parse().ok());
        let (from, to) = (since_start(segment.start), since_start(segment.end));
        // From the human's last word to the bot's first.
        let derived = heard_until.take().zip(from).map(|(heard, from): (f64, f64)| ((from - heard) * 1000.0).round());
        if !is_bot {
            heard_until = to;
        }
        let latency_ms = said.or(derived.filter(|millis| is_bot && *millis >= 0.0));
        let text = segment.text.clone().unwrap_or_default();
        Turn { number: index + 1, speaker: speaker.to_owned(), is_bot, text, from, to, latency_ms }
    };
    segments.iter().enumerate().map(turn).collect()
}

fn latencies(turns: &[Turn], is_derived: bool) -> Option<Latencies> {
    let answers: Vec<&Turn> = turns.iter().filter(|turn| turn.is_bot && turn.latency_ms.is_some()).collect();
    let values: Vec<f64> = answers.iter().filter_map(|turn| turn.latency_ms).collect();
    let slowest = values.iter().copied().reduce(f64::max)?;
    #[allow(clippy::cast_precision_loss, reason = "as many as a call has turns")]
    let average = (values.iter().sum::<f64>() / values.len() as f64).round();
    let (columns, most) = bars(&values.iter().copied().map(Some).collect::<Vec<_>>());
    let latency =
        |(bar, turn): (Option<Bar>, &&Turn)| Some(Latency { bar: bar?, turn: turn.number, millis: turn.latency_ms? });
    let bars = columns.into_iter().zip(&answers).filter_map(latency).collect();
    Some(Latencies { bars, most, average, average_y: HEIGHT - average / most * HEIGHT, slowest, is_derived })
}

/// An insight's value, as text.
fn value(data: &str) -> String {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    match data {
        Value::Object(members) => members.get("value").map(spoken).unwrap_or_default(),
        other => spoken(&other),
    }
}

/// A text as it is, anything else as JSON.
fn spoken(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// What a word says of the call, for its colour.
pub(super) fn tone(value: &str) -> &'static str {
    match value.to_ascii_lowercase().as_str() {
        "positive" | "happy" | "satisfied" | "resolved" | "success" => "good",
        "negative" | "angry" | "frustrated" | "unresolved" | "failure" => "bad",
        _ => "plain",
    }
}

fn found(insight: &Insight, offset: &impl Fn(Instant) -> Option<f64>) -> Found {
    let data: Value = serde_json::from_str(&insight.said.value).unwrap_or_default();
    let value = value(&insight.said.value);
    Found {
        kind: insight.kind.clone(),
        at: insight.said.at.map(|at| at.to_string()),
        offset: insight.said.at.and_then(offset),
        tone: tone(&value),
        value,
        score: data["score"].as_f64(),
        confidence: data["confidence"].as_f64(),
        reason: spoken(&data["reason"]),
    }
}

/// One lane for each type; where scores are said, they are as high as the score.
fn lanes(found: &[Found], length: f64) -> Vec<Lane> {
    const LOW: f64 = 24.0;
    const HIGH: f64 = 56.0;
    /// Room for a point above and below.
    const MARGIN: f64 = 8.0;
    let mut kinds: BTreeMap<&str, Vec<&Found>> = BTreeMap::new();
    for found in found {
        kinds.entry(&found.kind).or_default().push(found);
    }
    let lane = |(kind, found): (&str, Vec<&Found>)| {
        let scores: Vec<f64> = found.iter().filter_map(|found| found.score).collect();
        let (lowest, highest) =
            scores.iter().fold((f64::MAX, f64::MIN), |(low, high), score| (low.min(*score), high.max(*score)));
        // A score that is always the same draws no picture.
        let is_scored = scores.len() > 1 && lowest < highest;
        let height = if is_scored { HIGH } else { LOW };
        let most = if highest <= 1.0 { 1.0 } else { highest.max(100.0) };
        let y = |found: &Found| match found.score.filter(|_| is_scored) {
            Some(score) => height - MARGIN - (score / most).clamp(0.0, 1.0) * (height - 2.0 * MARGIN),
            None => height / 2.0,
        };
        let point = |found: &&Found| Point {
            x: place(found.offset.unwrap_or_default(), length),
            y: y(found),
            found: (*found).clone(),
        };
        let points: Vec<Point> = found.iter().map(point).collect();
        let line = |pair: &[Point]| Line { x1: pair[0].x, y1: pair[0].y, x2: pair[1].x, y2: pair[1].y };
        let lines = if is_scored { points.windows(2).map(line).collect() } else { Vec::new() };
        Lane { kind: kind.to_owned(), height, points, lines }
    };
    kinds.into_iter().map(lane).collect()
}

/// What is known of a call and has no better place.
fn facts(call: &Call) -> Vec<(&'static str, String)> {
    const SHOWN: [(&str, Field); 13] = [
        ("Status", Field::CallStatus),
        ("Disposition", Field::Disposition),
        ("Answered by", Field::AnsweredBy),
        ("Direction", Field::Direction),
        ("Network", Field::NetworkType),
        ("Bot's number", Field::LandingNumber),
        ("Credits", Field::CreditsUsed),
        ("Conversation", Field::ConversationId),
        ("Call id", Field::CallId),
        ("External id", Field::ExternalId),
        ("Account", Field::AccountId),
        ("Bot's name", Field::BotName),
        ("Recording", Field::Recording),
    ];
    let said = SHOWN.iter().filter_map(|(name, field)| Some((*name, call.get(*field)?.to_owned())));
    said.chain(bots(call).map(|bots| ("Bots", bots))).collect()
}

/// What came with the call as JSON, member by member.
fn documents(call: &Call) -> Vec<(&'static str, Vec<(String, String)>)> {
    let shown = [
        ("Extraction", Field::Extraction),
        ("Custom parameters", Field::CustomParameters),
        ("Variables", Field::Variables),
        ("Metadata", Field::Metadata),
    ];
    let documents = shown.into_iter().filter_map(|(name, field)| Some((name, members(call.get(field)?))));
    documents.filter(|(_, members)| !members.is_empty()).collect()
}

fn members(json: &str) -> Vec<(String, String)> {
    match serde_json::from_str(json).unwrap_or_default() {
        Value::Object(members) => members.iter().map(|(name, value)| (name.clone(), spoken(value))).collect(),
        other => vec![(String::new(), spoken(&other))],
    }
}

/// What whoever took over the call was told.
fn brief(kept: &str) -> Option<minijinja::Value> {
    let brief: Value = serde_json::from_str(kept).ok()?;
    let insights = brief["insights"].as_object().into_iter().flatten();
    let insights: Vec<(String, String)> =
        insights.map(|(kind, insight)| (kind.clone(), spoken(&insight["value"]))).collect();
    let turn = |turn: &Value| context! { speaker => spoken(&turn["speaker"]), text => spoken(&turn["text"]) };
    let turns: Vec<_> = brief["turns"].as_array().into_iter().flatten().map(turn).collect();
    let cut: Vec<String> = brief["cut"].as_array().into_iter().flatten().map(spoken).collect();
    Some(context! {
        requested_at => brief["requested_at"].as_str(),
        seconds => brief["seconds"].as_f64(),
        reason => spoken(&brief["reason"]),
        summary => spoken(&brief["summary"]),
        insights,
        turns,
        cut => cut.join(", "),
    })
}
