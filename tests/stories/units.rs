//! Write units are the bill: what each kind of delivery costs, counted by the store at the SDK's boundary.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use shared::webhook::App;
use shared::{Instant, Webhook};
use tests::faults::between;
use tests::units::{Counted, Units};
use tests::{World, read};

pub(super) struct Meter {
    pub(super) world: World,
    units: Units,
    apps: BTreeMap<Webhook, App>,
}

impl Meter {
    pub(super) async fn new() -> Self {
        let world = World::new().await;
        let units = Units::default();
        let instance =
            |webhook| (webhook, world.instance(webhook, |clients| between(clients, &units), Arc::new(Instant::now)));
        let apps = Webhook::ALL.into_iter().map(instance).collect();
        Self { world, units, apps }
    }

    /// What one delivery costs.
    pub(super) async fn cost(&self, webhook: Webhook, body: &[u8]) -> Counted {
        self.units.take();
        let request = self.world.request(webhook, body);
        let answer = read(&cli::dev::call(webhook, &self.apps[&webhook], request).await);
        assert_eq!(answer.status, 200, "{answer:?}");
        self.units.take()
    }
}

/// As full as the documented example is, with real ids.
pub(super) fn exotel(state: &str, reason: &str, end: &Value, events: &Value) -> Vec<u8> {
    json!({
        "session_id": "0b7f3f0e-6c1f-4a55-9f0e-2f6a8f1f3a11", "conversation_id": "5c7b0f52-1d5e-4b5b-8f62-0b7a7f4a9c22",
        "start_time": "2025-07-16T11:40:57.000Z", "end_time": end, "landing_number": "+918047000000",
        "external_id": "CA0123456789abcdef0123456789abcdef", "session_state": state, "trigger_reason": reason,
        "contact_uri": "+919876543210", "network_type": "pstn", "account_id": "exotel1", "bot_id": "9d3c5a50-53a5-4f5e-9c8e-0d6f0e7b1c33",
        "bot_name": "Support bot", "metadata": { "call_sid": "CA0123456789abcdef0123456789abcdef", "stream_sid": "" },
        "custom_parameters": { "key1": "value1", "key2": "value2" }, "events": events,
    })
    .to_string()
    .into_bytes()
}

pub(super) fn turn(sequence: u32, status: &str, end: &str) -> Value {
    json!([{ "event_type": "transcript", "event_id": "evt_1", "event_data": { "transcripts": [{ "sequence": sequence, "status": status,
        "transcript_segments": [{ "speaker": "assistant", "text": "Hello! How may I help you?",
            "start_timestamp": "2025-07-16T11:40:58.330756Z", "end_timestamp": end }] }] } }])
}

pub(super) fn insight(at: &str) -> Value {
    json!([{ "event_type": "sentiment", "event_id": "evt_2", "event_data": { "value": "positive", "confidence": 0.85,
        "status": "changed", "timestamp": at, "score": 90, "reason": "" } }])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exotel_calls_first_delivery_costs_at_most_5_and_each_later_one_at_most_2() {
    let meter = Meter::new().await;
    let cost = async |webhook, body: Vec<u8>| meter.cost(webhook, &body).await;
    let none = || json!([]);
    let first = cost(Webhook::SessionStart, exotel("session_start", "start", &Value::Null, &none())).await;
    println!("first delivery: {first:?}");
    assert_eq!(first.failed_conditions, 0);
    assert!(first.units <= 5.0, "{first:?}");
    let later = [
        (
            "turn so far",
            Webhook::TranscriptEvents,
            turn(1, "in_progress", "2025-07-16T11:40:59Z"),
            "turn_progress",
            Value::Null,
        ),
        (
            "turn complete",
            Webhook::TranscriptEvents,
            turn(1, "completed", "2025-07-16T11:41:01Z"),
            "turn_complete",
            Value::Null,
        ),
        ("insight", Webhook::InsightsEvents, insight("2025-07-16T11:41:05Z"), "timer", Value::Null),
        ("hand-over", Webhook::PreAgentTransfer, none(), "pre_agent_transfer", Value::Null),
        ("end", Webhook::SessionEnd, none(), "end", json!("2025-07-16T11:42:00.000Z")),
    ];
    for (what, webhook, events, reason, end) in later {
        let state = if reason == "end" { "session_end" } else { "session_in_progress" };
        let cost = cost(webhook, exotel(state, reason, &end, &events)).await;
        println!("{what}: {cost:?}");
        assert_eq!(cost.failed_conditions, 0, "{what}");
        assert!(cost.units <= 2.0, "{what}: {cost:?}");
    }
}

pub(super) fn session(turns: usize) -> Vec<u8> {
    let entry = |turn: usize| {
        let (role, content) = [
            ("bot", "Hello! Thanks for taking my call. How can I help you today?"),
            ("user", "Hi, I'm interested in your enterprise plan."),
            (
                "bot",
                "Great choice! Our enterprise plan includes unlimited agents, priority support, and custom voice training.",
            ),
        ][turn % 3];
        let at = Instant::parse("2026-03-15T14:30:00Z")
            .expect("an instant")
            .plus_seconds(i64::try_from(turn).expect("few turns"));
        if turn % 3 == 2 {
            json!({ "role": role, "content": content, "timestamp": at, "latency_ms": 700 })
        } else {
            json!({ "role": role, "content": content, "timestamp": at })
        }
    };
    json!({ "event": "session.completed", "timestamp": "2026-03-15T14:32:08.000Z", "data": {
        "session_id": "s1234567-abcd-1234-abcd-123456789012", "agent_id": "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
        "agent_name": "Sales Assistant", "duration_seconds": 127, "credits_used": 2.12,
        "transcript": (0..turns).map(entry).collect::<Vec<_>>(),
        "recording_url": "https://vocobase-recordings.s3.amazonaws.com/rec_abc123.wav?X-Amz-Signature=...",
        "latency": { "min_ms": 450, "max_ms": 1200, "avg_ms": 680 },
        "call": { "call_id": "c1234567-abcd-1234-abcd-123456789012", "from_number": "+14155551234",
            "to_number": "+919876543210", "direction": "outbound", "status": "completed" } } })
    .to_string()
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_vocobase_call_costs_at_most_8_and_one_of_300_turns_at_most_60() {
    for (turns, limit) in [(3, 8.0), (300, 60.0)] {
        let meter = Meter::new().await;
        let body = session(turns);
        let cost = meter.cost(Webhook::SessionCompleted, &body).await;
        println!("{turns} turns, {} bytes: {cost:?}", body.len());
        assert_eq!(cost.failed_conditions, 0);
        assert!(cost.units <= limit, "{turns} turns: {cost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_writes_nothing_and_fails_no_more_conditions_than_it_must() {
    let meter = Meter::new().await;
    let body = session(300);
    meter.cost(Webhook::SessionCompleted, &body).await;
    let again = meter.cost(Webhook::SessionCompleted, &body).await;
    // The event's own condition is how a repetition is known.
    assert_eq!((again.units, again.failed_conditions), (0.0, 1));
}
