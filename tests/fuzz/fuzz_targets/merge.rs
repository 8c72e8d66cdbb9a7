//! Deliveries of one call that disagree about everything: in whatever order and however often they come, they leave the
//! same call, the same turns and the same recording job.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::Webhook;
use shared::call::{Call, Delivery, State, Turn};
use shared::recording::Job;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    vocobase: bool,
    said: Vec<Said<'a>>,
    /// The order of the other arrival: where the next one is taken from, and whether it comes twice.
    order: Vec<(u8, bool)>,
}

/// A delivery. Texts are chosen from few, so that equal and nearly equal ones meet, or are anything.
#[derive(Arbitrary, Debug)]
struct Said<'a> {
    webhook: u8,
    erased: bool,
    sent: Time,
    start: Time,
    end: Time,
    contact: Text<'a>,
    bot: Text<'a>,
    parameters: Text<'a>,
    kind: Text<'a>,
    sequence: Option<u8>,
    status: Option<bool>,
    segments: Vec<(Time, Time, Text<'a>)>,
    recording: Option<(Time, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Time {
    Missing,
    Text(u8),
}

#[derive(Arbitrary, Debug)]
enum Text<'a> {
    Missing,
    One(u8),
    Any(&'a str),
}

impl Time {
    fn json(&self) -> Value {
        const TIMES: [&str; 6] = [
            "2025-07-16T11:40:57Z",
            "2025-07-16T11:40:57.9Z",
            "2025-07-16T11:40:57.900000Z",
            "2025-07-16T17:10:57.000001+05:30",
            "2024-02-29T23:59:59.999999Z",
            "soon",
        ];
        match self {
            Self::Missing => Value::Null,
            Self::Text(index) => TIMES[usize::from(*index) % TIMES.len()].into(),
        }
    }
}

impl Text<'_> {
    fn json(&self) -> Value {
        let texts =
            [json!(""), json!("a"), json!("b"), json!(7), json!({ "tier": "gold" }), json!("{\"tier\":\"gold\"}")];
        match self {
            Self::Missing => Value::Null,
            Self::One(index) => texts[usize::from(*index) % texts.len()].clone(),
            Self::Any(text) => (*text).into(),
        }
    }
}

impl Said<'_> {
    fn exotel(&self) -> Value {
        let segment = |(start, end, text): &(Time, Time, Text)| json!({ "speaker": "user", "text": text.json(), "start_timestamp": start.json(), "end_timestamp": end.json() });
        let segments: Vec<Value> = self.segments.iter().map(segment).collect();
        let status = self.status.map(|completed| if completed { "completed" } else { "in_progress" });
        json!({
            "session_id": "s1", "start_time": self.start.json(), "end_time": self.end.json(),
            "contact_uri": self.contact.json(), "bot_id": self.bot.json(), "custom_parameters": self.parameters.json(),
            "events": [
                { "event_type": self.kind.json(), "event_data": { "value": self.contact.json(), "timestamp": self.sent.json() } },
                { "event_type": "transcript", "event_data": { "transcripts": [
                    { "sequence": self.sequence, "status": status, "transcript_segments": segments } ] } },
            ],
        })
    }

    fn vocobase(&self) -> Value {
        let entry = |(start, _, text): &(Time, Time, Text)| json!({ "role": "user", "content": text.json(), "timestamp": start.json(), "latency_ms": self.sequence });
        let transcript: Vec<Value> = self.segments.iter().map(entry).collect();
        let recording = self.recording.as_ref().map(|(expiry, name)| {
            let expiry = expiry.json().as_str().unwrap_or_default().replace(['-', ':'], "");
            format!("https://b.s3.amazonaws.com/{name}.wav?X-Amz-Date={expiry}&X-Amz-Expires=60&X-Amz-Signature={name}")
        });
        json!({
            "timestamp": self.sent.json(),
            "data": {
                "session_id": "s1", "agent_id": self.bot.json(), "duration_seconds": self.sequence,
                "variables": self.parameters.json(), "transcript": transcript, "recording_url": recording,
                "call": { "to_number": self.contact.json(), "direction": self.kind.json() },
            },
        })
    }

    fn read(&self, vocobase: bool) -> Delivery {
        let (webhook, body) = if vocobase {
            (Webhook::SessionCompleted, self.vocobase())
        } else {
            (Webhook::ALL[usize::from(self.webhook) % 5], self.exotel())
        };
        let body = body.to_string();
        let mut delivery = fuzz::read(webhook, body.as_bytes()).expect("it has a session id");
        fuzz::check_delivery(webhook, body.as_bytes(), &delivery);
        if self.erased {
            delivery.call = Call { state: State::Erased, ..Call::new(delivery.call.key) };
        }
        delivery
    }
}

/// What is stored of one call after deliveries in some order.
#[derive(PartialEq, Debug)]
struct Stored {
    call: Call,
    turns: BTreeMap<String, Turn>,
    job: Option<Job>,
}

impl Stored {
    fn after<'a>(deliveries: impl IntoIterator<Item = &'a Delivery>, call: Call) -> Self {
        let mut stored = Self { call, turns: BTreeMap::new(), job: None };
        for delivery in deliveries {
            stored.call = stored.call.join(&delivery.call);
            for turn in &delivery.turns {
                let known = stored.turns.entry(turn.key.clone()).or_insert_with(|| turn.clone());
                if known.rank < turn.rank {
                    known.clone_from(turn);
                }
            }
            if let Some(wanted) = &delivery.recording {
                stored.job = Job::want(stored.job.as_ref(), wanted).or(stored.job);
            }
        }
        stored
    }
}

fuzz_target!(|input: Input| {
    let deliveries: Vec<Delivery> = input.said.iter().take(12).map(|said| said.read(input.vocobase)).collect();
    let Some(first) = deliveries.first() else { return };
    let nothing = Call::new(first.call.key.clone());

    let mut left: Vec<&Delivery> = deliveries.iter().collect();
    let mut otherwise = Vec::new();
    for (place, twice) in &input.order {
        if left.is_empty() {
            break;
        }
        let next = left.remove(usize::from(*place) % left.len());
        otherwise.push(next);
        if *twice {
            otherwise.insert(usize::from(*place) % otherwise.len(), next);
        }
    }
    otherwise.extend(left.into_iter().rev());
    let stored = Stored::after(&deliveries, nothing.clone());
    assert_eq!(Stored::after(otherwise, nothing.clone()), stored, "the order shows");

    // However they are grouped.
    let (early, late) = deliveries.split_at(deliveries.len() / 2);
    let [early, late] = [early, late].map(|some| Stored::after(some, nothing.clone()).call);
    assert_eq!(early.clone().join(&late), stored.call);
    assert_eq!(late.join(&early), stored.call);

    // Equal calls have equal digests, and equally ranked turns are the same.
    for one in &deliveries {
        for two in &deliveries {
            assert_eq!(one.call.digest() == two.call.digest(), one.call == two.call);
            for (one, two) in one.turns.iter().zip(&two.turns) {
                assert!(one.rank != two.rank || (&one.segments, &one.status) == (&two.segments, &two.status));
            }
        }
    }
});
