//! Calls as the worst days bring them: everything that was ever seen or feared, from a seed.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::Webhook;

/// One delivery.
#[derive(Clone, Debug)]
pub struct Odd {
    /// Where it goes.
    pub webhook: Webhook,
    /// JSON.
    pub body: Vec<u8>,
}

/// A whole call in the order it happened.
pub fn odd_call(seed: u64) -> Vec<Odd> {
    let mut rng = SmallRng::seed_from_u64(seed);
    if rng.random_bool(0.6) { exotel(&mut rng, seed) } else { vocobase(&mut rng, seed) }
}

fn one<T: Clone>(rng: &mut SmallRng, of: &[T]) -> T {
    of.choose(rng).expect("something to choose").clone()
}

/// Few instants, in every precision that was seen, so that equal and nearly equal ones meet.
fn instant(rng: &mut SmallRng) -> String {
    let second = rng.random_range(50..60);
    let fraction = one(rng, &["Z", ".9Z", ".900Z", ".000000Z", ".000001Z", "+00:00"]);
    format!("2025-07-16T11:40:{second}{fraction}")
}

fn odd(webhook: Webhook, body: &Value) -> Odd {
    Odd { webhook, body: body.to_string().into_bytes() }
}

fn exotel(rng: &mut SmallRng, seed: u64) -> Vec<Odd> {
    let id = format!("odd-{seed}");
    let mut call = Vec::new();
    let starts = [
        json!("2025-07-16T11:40:57Z"),
        json!("2025-07-16T11:40:57.9Z"),
        json!("2025-07-16T11:40:50.000Z"),
        Value::Null,
        json!(""),
    ];
    // A call that mostly agrees with itself about when it began.
    let start = one(rng, &starts);
    let request = |rng: &mut SmallRng, state: &str, reason: &str, end: Value, events: Vec<Value>| {
        let start = if rng.random_bool(0.8) { start.clone() } else { one(rng, &starts) };
        json!({
            "session_id": id, "start_time": start, "end_time": end,
            "landing_number": one(rng, &["", "+918047000000"]),
            "external_id": one(rng, &["", "CA0123456789abcdef0123456789abcdef"]),
            "session_state": state, "trigger_reason": reason,
            "contact_uri": one(rng, &["", "", "+919876543210", "sip:anna@example.com"]),
            "bot_id": one(rng, &["b1", "b1", "b2", ""]), "bot_name": one(rng, &["One", "Two"]),
            "metadata": one(rng, &[json!({}), json!({ "call_sid": "CA1", "stream_sid": "" })]),
            "custom_parameters": one(rng, &[json!({}), json!({ "tier": "gold" }), json!({ "tier": 7 }), json!("{\"tier\":\"gold\"}"), Value::Null]),
            "events": events,
        })
    };
    call.push(odd(Webhook::SessionStart, &request(rng, "session_start", "start", Value::Null, vec![])));
    for _ in 0..rng.random_range(1..5) {
        // Accumulations of one turn: growing, shrinking, completed before they are complete.
        let sequence = rng.random_range(1..4);
        let numbered = rng.random_bool(0.8);
        let timed = rng.random_bool(0.8);
        let began = instant(rng);
        for _ in 0..rng.random_range(1..4) {
            let words = rng.random_range(1..6);
            let mut segment =
                json!({ "speaker": one(rng, &["assistant", "user", "customer"]), "text": "word ".repeat(words) });
            if timed {
                segment["start_timestamp"] = json!(began);
                segment["end_timestamp"] = json!(instant(rng));
            }
            let mut transcript = json!({ "transcript_segments": [segment] });
            if numbered {
                transcript["sequence"] = json!(sequence);
            }
            match rng.random_range(0..5) {
                0 => transcript["status"] = json!(one(rng, &["in_progress", "inprogress", "In-Progress"])),
                1 => transcript["status"] = json!("completed"),
                2 => transcript["status"] = json!("paused"),
                3 => transcript["is_final"] = json!(rng.random_bool(0.5)),
                _ => {}
            }
            let data = if rng.random_bool(0.7) { json!({ "transcripts": [transcript] }) } else { transcript };
            let event = json!({ "event_type": "transcript", "event_id": "evt", "event_data": data });
            let reason = one(rng, &["turn_progress", "turn_complete"]);
            call.push(odd(
                Webhook::TranscriptEvents,
                &request(rng, "session_in_progress", reason, Value::Null, vec![event]),
            ));
        }
    }
    for _ in 0..rng.random_range(0..4) {
        let insights = (0..rng.random_range(1..4)).map(|_| {
            let mut data = json!({ "value": one(rng, &["positive", "negative", "neutral"]), "confidence": 0.85 });
            if rng.random_bool(0.9) {
                data["timestamp"] = json!(instant(rng));
            }
            json!({ "event_type": one(rng, &["sentiment", "summary", "mood"]), "event_data": data })
        });
        let insights = insights.collect();
        call.push(odd(Webhook::InsightsEvents, &request(rng, "session_in_progress", "timer", Value::Null, insights)));
    }
    if rng.random_bool(0.3) {
        call.push(odd(
            Webhook::PreAgentTransfer,
            &request(rng, "session_in_progress", "pre_agent_transfer", Value::Null, vec![]),
        ));
    }
    let ends = rng.random_range(1..3);
    for _ in 0..ends {
        let end = json!(instant(rng));
        call.push(odd(Webhook::SessionEnd, &request(rng, "session_end", "end", end, vec![])));
    }
    if rng.random_bool(0.2) {
        // The end may also be what is heard first.
        call.rotate_right(1);
    }
    call
}

fn vocobase(rng: &mut SmallRng, seed: u64) -> Vec<Odd> {
    let id = format!("odd-{seed}");
    let revisions = rng.random_range(1..4);
    let revision = |_| {
        // From no chunk to many, and now and then enough to be packed.
        let (turns, words) = one(rng, &[(0, 1), (3, 10), (40, 30), (200, 40), (200, 40), (120, 700)]);
        let transcript: Vec<Value> = (0..rng.random_range(0..=turns))
            .map(|turn| {
                let role = if turn % 2 == 0 { "bot" } else { "user" };
                let content = format!("{turn} {}", "word ".repeat(rng.random_range(0..=words)));
                json!({ "role": role, "content": content, "timestamp": instant(rng), "latency_ms": one(rng, &[json!(700), Value::Null, json!(0.5)]) })
            })
            .collect();
        let expires = rng.random_range(1_752_666_000..1_752_666_004_u32);
        let recording = one(
            rng,
            &[
                Value::Null,
                json!(format!("https://recordings.s3.amazonaws.com/{id}.wav?Expires={expires}&X-Amz-Signature=a")),
                json!(format!("https://recordings.s3.amazonaws.com/{id}.wav?X-Amz-Signature=...")),
            ],
        );
        let timestamp = one(
            rng,
            &["2025-07-16T11:41:00Z", "2025-07-16T11:41:00.000Z", "2025-07-16T11:41:00.5Z", "2025-07-16T11:42:00Z"],
        );
        let call = one(
            rng,
            &[
                Value::Null,
                json!({ "call_id": "c1", "from_number": "+14155551234", "to_number": "+919876543210", "direction": "outbound", "status": "completed" }),
                json!({ "from_number": "+14155551234", "to_number": "", "direction": "inbound", "status": "a_new_word" }),
            ],
        );
        let mut data = json!({
            "session_id": id, "agent_id": one(rng, &["a1", "a2"]), "agent_name": "Agent",
            "duration_seconds": one(rng, &[json!(127), json!(127.5), json!(0)]), "credits_used": one(rng, &[json!(2.12), json!("2.10"), json!(3)]),
            "transcript": transcript, "recording_url": recording, "call": call,
        });
        if rng.random_bool(0.5) {
            data["extraction"] = one(
                rng,
                &[json!({ "status": "success", "values": { "b": 1.50, "a": [] } }), json!({ "status": "failed" })],
            );
            data["variables"] = json!({ "name": "Anna" });
        } else {
            data["latency"] = json!({ "min_ms": 450, "max_ms": 1200, "avg_ms": 680.25 });
        }
        odd(Webhook::SessionCompleted, &json!({ "event": "session.completed", "timestamp": timestamp, "data": data }))
    };
    (0..revisions).map(revision).collect()
}
