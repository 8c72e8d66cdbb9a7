//! Whole calls as the platforms would send them: plausible, and the same for the same seed and start.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::{Instant, Webhook};

/// One delivery to be made.
#[derive(Clone)]
pub struct Planned {
    /// Where it goes.
    pub webhook: Webhook,
    /// The platform's id of the call.
    pub session_id: String,
    /// JSON.
    pub body: Vec<u8>,
}

const USER: [&str; 6] = [
    "Hi, I am calling about my order.",
    "Can you tell me when it will arrive?",
    "नमस्ते, मुझे मदद चाहिए।",
    "No, the other address.",
    "Could I speak to a person, please?",
    "Thank you, that is all.",
];
const BOT: [&str; 6] = [
    "Hello! How may I help you?",
    "Let me look that up for you.",
    "It leaves our warehouse tomorrow and is with you on Friday.",
    "I have changed the address as you asked.",
    "Of course, one moment.",
    "Thank you for calling. Goodbye!",
];

/// The calls of a simulation, platforms in turn, each call's deliveries in the order they happen.
///
/// `recording` gives the URL of a Vocobase call's recording, if it has one.
pub fn plan(seed: u64, calls: u32, start: Instant, recording: &dyn Fn(&str) -> Option<String>) -> Vec<Vec<Planned>> {
    let call = |number: u32| {
        let mut rng = SmallRng::seed_from_u64(seed ^ (u64::from(number) << 32));
        let id = format!("sim-{seed}-{}-{number}", start.unix_seconds());
        // Calls begin one after another, a few seconds apart.
        let began = start.plus_millis(i64::from(number) * rng.random_range(500..5_000));
        if number.is_multiple_of(2) {
            exotel(&mut rng, &id, began)
        } else {
            vec![vocobase(&mut rng, &id, began, recording(&id).as_deref())]
        }
    };
    (0..calls).map(call).collect()
}

fn phone(rng: &mut SmallRng) -> String {
    format!("+9198{:08}", rng.random_range(0..100_000_000_u32))
}

fn pick<'a>(rng: &mut SmallRng, texts: &[&'a str]) -> &'a str {
    texts.choose(rng).copied().unwrap_or_default()
}

fn planned(webhook: Webhook, session_id: &str, body: &Value) -> Planned {
    Planned { webhook, session_id: session_id.to_owned(), body: body.to_string().into_bytes() }
}

/// Start, turns with progress, insights on a timer, now and then a hand-over, end.
fn exotel(rng: &mut SmallRng, id: &str, began: Instant) -> Vec<Planned> {
    let contact = phone(rng);
    let call_sid = format!("CA{:032x}", rng.random::<u128>());
    let bot = format!("bot-{}", rng.random_range(1..4));
    let tier = pick(rng, &["gold", "silver"]);
    let request = |state: &str, reason: &str, end: Option<Instant>, events: Vec<Value>| {
        json!({
            "session_id": id, "conversation_id": format!("conversation-{id}"), "start_time": began, "end_time": end,
            "landing_number": "+918047000000", "external_id": call_sid, "session_state": state, "trigger_reason": reason,
            "contact_uri": contact, "network_type": "pstn", "account_id": "simulated", "bot_id": bot,
            "bot_name": "Simulated bot", "metadata": { "call_sid": call_sid, "stream_sid": "" },
            "custom_parameters": { "tier": tier }, "events": events,
        })
    };
    let mut now = began;
    let mut deliveries = vec![planned(Webhook::SessionStart, id, &request("session_start", "start", None, vec![]))];
    let turns = rng.random_range(2..9);
    for sequence in 1..=turns {
        let bot_speaks = sequence % 2 == 1;
        let (speaker, said) = if bot_speaks { ("assistant", pick(rng, &BOT)) } else { ("user", pick(rng, &USER)) };
        let words: Vec<&str> = said.split_inclusive(' ').collect();
        let spoken_from = now.plus_millis(rng.random_range(300..1_200));
        let mut heard = |share: usize, done: bool| {
            let text: String = words[..words.len() * share / 4].concat();
            now = spoken_from.plus_millis(i64::try_from(text.len()).unwrap_or_default() * 60);
            let status = if done { "completed" } else { "in_progress" };
            let segment =
                json!({ "speaker": speaker, "text": text, "start_timestamp": spoken_from, "end_timestamp": now });
            let transcript = json!({ "sequence": sequence, "status": status, "transcript_segments": [segment] });
            let event = json!({ "event_type": "transcript", "event_id": format!("evt_{sequence}_{share}"),
                "event_data": { "transcripts": [transcript] } });
            let reason = if done { "turn_complete" } else { "turn_progress" };
            planned(Webhook::TranscriptEvents, id, &request("session_in_progress", reason, None, vec![event]))
        };
        deliveries.push(heard(2, false));
        deliveries.push(heard(4, true));
        if sequence % 3 == 0 {
            let insight = |kind: &str, value: &str, score: u32| {
                json!({ "event_type": kind, "event_id": format!("evt_{kind}_{sequence}"), "event_data": {
                    "value": value, "confidence": 0.85, "status": "changed", "timestamp": now, "score": score, "reason": "" } })
            };
            let mood = pick(rng, &["positive", "neutral", "negative"]);
            let events =
                vec![insight("sentiment", mood, rng.random_range(0..100)), insight("intent", "order_status", 90)];
            let body = request("session_in_progress", "timer", None, events);
            deliveries.push(planned(Webhook::InsightsEvents, id, &body));
        }
    }
    if rng.random_bool(0.3) {
        let body = request("session_in_progress", "pre_agent_transfer", None, vec![]);
        deliveries.push(planned(Webhook::PreAgentTransfer, id, &body));
    }
    let end = now.plus_millis(rng.random_range(500..3_000));
    deliveries.push(planned(Webhook::SessionEnd, id, &request("session_end", "end", Some(end), vec![])));
    deliveries
}

fn vocobase(rng: &mut SmallRng, id: &str, began: Instant, recording: Option<&str>) -> Planned {
    let mut now = began;
    let mut transcript = Vec::new();
    for turn in 0..rng.random_range(2..40) {
        now = now.plus_millis(rng.random_range(800..6_000));
        let latency = rng.random_range(300..1_500_u32);
        transcript.push(if turn % 2 == 0 {
            json!({ "role": "bot", "content": pick(rng, &BOT), "timestamp": now, "latency_ms": latency })
        } else {
            json!({ "role": "user", "content": pick(rng, &USER), "timestamp": now, "latency_ms": null })
        });
    }
    let seconds = now.millis_since(began) / 1000 + 1;
    let status = pick(rng, &["completed", "completed", "completed", "no_answer", "failed"]);
    let body = json!({
        "event": "session.completed", "timestamp": now.plus_millis(2_000),
        "data": {
            "session_id": id, "agent_id": format!("agent-{}", rng.random_range(1..4)), "agent_name": "Simulated agent",
            "duration_seconds": seconds, "credits_used": f64::from(rng.random_range(1..1_000_u32)) / 100.0,
            "transcript": transcript,
            "recording_url": recording,
            "latency": { "min_ms": 300, "max_ms": 1500, "avg_ms": 680 },
            "call": { "call_id": format!("call-{id}"), "from_number": "+14155550100", "to_number": phone(rng),
                "direction": "outbound", "status": status },
        }
    });
    planned(Webhook::SessionCompleted, id, &body)
}
