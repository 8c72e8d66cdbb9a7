//! The deliveries that are measured: as documented, each of a call of its own.

use std::error::Error;

use serde_json::{Value, json};
use shared::auth::exotel::Tokens;
use shared::auth::{Secret, vocobase};
use shared::{Instant, Provider, Webhook};
use tests::lambda::function_url_event;

/// What everything is signed with.
pub const SECRET: &str = "whsec_bench";
const EXOTEL: &str = include_str!("../../../tests/fixtures/exotel_documented.json");
const VOCOBASE: &str = include_str!("../../../tests/fixtures/vocobase_documented.json");

/// A kind of delivery, and whether another one of its call comes before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    pub webhook: Webhook,
    pub name: &'static str,
    case: Case,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    First,
    /// After another one that said less.
    Later,
    /// After itself.
    Again,
    Forged,
    /// So many turns.
    Turns(usize),
}

/// Every kind.
pub const ALL: [Kind; 15] = [
    kind(Webhook::SessionStart, "first", Case::First),
    kind(Webhook::SessionStart, "again", Case::Again),
    kind(Webhook::TranscriptEvents, "first", Case::First),
    kind(Webhook::TranscriptEvents, "later", Case::Later),
    kind(Webhook::InsightsEvents, "first", Case::First),
    kind(Webhook::InsightsEvents, "later", Case::Later),
    kind(Webhook::PreAgentTransfer, "first", Case::First),
    kind(Webhook::PreAgentTransfer, "later", Case::Later),
    kind(Webhook::SessionEnd, "first", Case::First),
    kind(Webhook::SessionEnd, "later", Case::Later),
    kind(Webhook::SessionCompleted, "first", Case::First),
    kind(Webhook::SessionCompleted, "again", Case::Again),
    kind(Webhook::SessionCompleted, "forged", Case::Forged),
    kind(Webhook::SessionCompleted, "300 turns", Case::Turns(300)),
    kind(Webhook::SessionCompleted, "4 MB", Case::Turns(22_000)),
];

const fn kind(webhook: Webhook, name: &'static str, case: Case) -> Kind {
    Kind { webhook, name, case }
}

impl Kind {
    /// What the answer to it says.
    pub const fn status(self) -> u64 {
        if self.is_forged() { 401 } else { 200 }
    }

    /// Whether nobody who may has sent it.
    pub const fn is_forged(self) -> bool {
        matches!(self.case, Case::Forged)
    }

    /// Whether it is too large to be sent as often as the others.
    pub const fn is_large(self) -> bool {
        matches!(self.case, Case::Turns(1_000..))
    }

    /// The event of the call with this number, and the one that comes before it.
    pub fn events(self, number: u64, now: Instant) -> Result<(Option<Value>, Value), Box<dyn Error>> {
        let body = |said: usize| match self.webhook.provider() {
            Provider::Exotel => exotel(self.webhook, number, said),
            Provider::Vocobase => session(number, if let Case::Turns(turns) = self.case { turns } else { 3 }),
        };
        let mut event = signed(self.webhook, &body(2)?, now);
        if self.is_forged() {
            event["headers"][vocobase::SIGNATURE] = json!(format!("sha256={}", "00".repeat(32)));
        }
        let before = match self.case {
            Case::Later => Some(signed(self.webhook, &body(1)?, now)),
            Case::Again => Some(event.clone()),
            _ => None,
        };
        Ok((before, event))
    }
}

fn exotel(webhook: Webhook, number: u64, said: usize) -> Result<Value, Box<dyn Error>> {
    let (state, reason) = match webhook {
        Webhook::SessionStart => ("session_start", "start"),
        Webhook::SessionEnd => ("session_end", "end"),
        Webhook::PreAgentTransfer => ("session_in_progress", "pre_agent_transfer"),
        Webhook::InsightsEvents => ("session_in_progress", "timer"),
        _ => ("session_in_progress", "turn_complete"),
    };
    let events = match webhook {
        Webhook::TranscriptEvents => {
            json!([{ "event_type": "transcript", "event_id": "evt_1", "event_data": { "transcripts": [
            { "sequence": said, "status": "completed", "transcript_segments": [{ "speaker": "assistant",
                "text": "Hello! How may I help you?", "start_timestamp": format!("2026-03-15T14:30:0{said}.330756Z"),
                "end_timestamp": format!("2026-03-15T14:30:0{}.100000Z", said + 2) }] }] } }])
        }
        Webhook::InsightsEvents => json!([{ "event_type": "sentiment", "event_id": "evt_2", "event_data": {
            "value": "positive", "confidence": 0.85, "status": "changed", "timestamp": "2026-03-15T14:30:08.000Z",
            "score": 90, "reason": "" } }]),
        _ => json!([]),
    };
    let mut body: Value = serde_json::from_str(EXOTEL)?;
    for (name, value) in [
        ("session_id", json!(format!("0b7f3f0e-6c1f-4a55-9f0e-{number:012x}"))),
        ("conversation_id", json!(format!("5c7b0f52-1d5e-4b5b-8f62-{number:012x}"))),
        ("start_time", json!("2026-03-15T14:30:00.000Z")),
        ("end_time", json!((webhook == Webhook::SessionEnd).then_some("2026-03-15T14:33:00.000Z"))),
        ("landing_number", json!("+918047000000")),
        ("session_state", json!(state)),
        ("trigger_reason", json!(reason)),
        ("contact_uri", json!("+919876543210")),
        ("network_type", json!((said > 1).then_some("pstn"))),
        ("bot_id", json!("9d3c5a50-53a5-4f5e-9c8e-0d6f0e7b1c33")),
        ("bot_name", json!("Support bot")),
        ("events", events),
    ] {
        body[name] = value;
    }
    Ok(body)
}

/// What people say, over and over, and never twice the same.
const WORDS: &str = "the of and to in I that was his he it with is for as had you not be her on at by which have or from \
    this him but all she they were my are me one their so an said them we who would been will no when there if more \
    out up into do any your what has man could other than our some very time upon about may its only now like little \
    then can should made did us such great before must two these see know over much down after first mister good men \
    account number order delivery payment tomorrow morning address street hello thanks please enterprise plan price";

/// The documented session with so many turns, each as long as one of its own, if there are more than it has.
fn session(number: u64, turns: usize) -> Result<Value, Box<dyn Error>> {
    let mut body: Value = serde_json::from_str(VOCOBASE)?;
    body["data"]["session_id"] = json!(format!("s1234567-abcd-1234-abcd-{number:012x}"));
    body["data"]["call"]["call_id"] = json!(format!("c1234567-abcd-1234-abcd-{number:012x}"));
    let documented = body["data"]["transcript"].as_array().cloned().unwrap_or_default();
    if turns > documented.len() {
        let began = Instant::parse("2026-03-15T14:30:00Z").ok_or("an instant")?;
        let words: Vec<&str> = WORDS.split_whitespace().collect();
        // Knuth's multiplier for linear congruential generators, in "MMIX: A RISC Computer".
        let mut state = number;
        let mut word = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).map_or("", |random| words[random % words.len()])
        };
        let turn = |(second, turn): (i64, &Value)| {
            let mut turn = turn.clone();
            turn["timestamp"] = json!(began.plus_seconds(second));
            let mut said = String::new();
            while said.len() < turn["content"].as_str().map_or(0, str::len) {
                said = format!("{said}{} ", word());
            }
            turn["content"] = json!(said.trim_end());
            turn
        };
        body["data"]["transcript"] =
            (0..).zip(documented.iter().cycle()).take(turns).map(turn).collect::<Vec<_>>().into();
    }
    Ok(body)
}

/// A delivery as its platform signs it.
fn signed(webhook: Webhook, body: &Value, now: Instant) -> Value {
    let body = body.to_string();
    let mut headers = json!({ "content-type": "application/json", "host": "abc.lambda-url.us-east-1.on.aws",
        "user-agent": "Apache-HttpClient", "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https" });
    let mut query = String::new();
    match webhook.provider() {
        Provider::Exotel => {
            let tokens = Tokens { secrets: vec![("k1".to_owned(), Secret::new(SECRET))], session_tokens_only: false };
            query = format!("token={}", tokens.function_token(webhook).unwrap_or_default());
        }
        Provider::Vocobase => {
            let timestamp = now.to_string();
            headers[vocobase::SIGNATURE] = json!(vocobase::sign(&Secret::new(SECRET), &timestamp, body.as_bytes()));
            headers[vocobase::TIMESTAMP] = json!(timestamp);
        }
    }
    function_url_event(&query, &headers, &body, false)
}
