//! Values that a store refuses, or that nobody thought of: each delivery is answered 200 and is either stored or kept
//! verbatim in quarantine, and long calls come back word for word.

use std::fmt::Write;

use aws_sdk_dynamodb::types::AttributeValue;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use shared::Webhook;
use shared::storage::item_to_segments;
use tests::{Item, World, text};

/// Delivers, and the answer is 200.
async fn deliver(world: &World, webhook: Webhook, body: &[u8], what: &str) {
    assert_eq!(world.deliver(webhook, body).await.status, 200, "{what}");
}

/// The delivery is an event, verbatim, and its call is there; nothing is in quarantine.
async fn stored(world: &World, webhook: Webhook, session: &str, body: &[u8], what: &str) -> Item {
    deliver(world, webhook, body, what).await;
    assert_eq!(world.quarantined().await, [], "{what}");
    let mut kept = Vec::new();
    for event in world.items_of("events", session).await {
        kept.push(world.body(&event).await);
    }
    assert!(kept.iter().any(|kept| kept == body), "{what}: no event is what was sent");
    let mut calls = world.items_of("sessions", session).await;
    let Some(call) = calls.pop() else { panic!("{what}: no call") };
    call
}

/// The delivery is in quarantine, verbatim.
async fn quarantined(world: &World, webhook: Webhook, body: &[u8], what: &str) {
    deliver(world, webhook, body, what).await;
    for item in world.quarantined().await {
        if world.body(&item).await == body {
            assert_eq!(text(&item, "webhook"), webhook.name(), "{what}");
            return;
        }
    }
    panic!("{what}: nothing in quarantine is what was sent");
}

/// As [`stored`], where others are in quarantine already.
async fn stored_beside(world: &World, webhook: Webhook, session: &str, body: &[u8]) -> Item {
    let before = world.quarantined().await;
    deliver(world, webhook, body, session).await;
    assert_eq!(world.quarantined().await, before);
    let mut calls = world.items_of("sessions", session).await;
    let Some(call) = calls.pop() else { panic!("{session}: no call") };
    call
}

/// Text that packs to three quarters at best.
fn noise(seed: u64, length: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut rng = SmallRng::seed_from_u64(seed);
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..64)])).collect()
}

fn nested(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_a_table_cannot_hold_keep_their_digits_as_text() {
    let world = World::new().await;
    let forty = "1234567890123456789012345678901234567890";
    let fraction = "0.123456789012345678901234567890123456789";
    for (index, (digits, kept)) in [
        (forty, AttributeValue::S(forty.into())),
        (fraction, AttributeValue::S(fraction.into())),
        (
            "-12345678901234567890123456789012345678",
            AttributeValue::N("-12345678901234567890123456789012345678".into()),
        ),
        ("2.12", AttributeValue::N("2.12".into())),
        ("0", AttributeValue::N("0".into())),
        ("\"2.12\"", AttributeValue::N("2.12".into())),
    ]
    .into_iter()
    .enumerate()
    {
        let body = format!(r#"{{"data":{{"session_id":"{index}","credits_used":{digits}}}}}"#);
        let session = format!("vocobase#{index}");
        let call = stored(&world, Webhook::SessionCompleted, &session, body.as_bytes(), digits).await;
        assert_eq!(call["credits_used"], kept, "{digits}");
    }
    for digits in ["1e400", "-1e400", "1e-400", "1E5", "9e125", "1e130", "-0", "0.0"] {
        let session = format!("vocobase#{digits}");
        let body = format!(
            r#"{{"data":{{"session_id":"{digits}","credits_used":{digits},"duration_seconds":{digits},
                "latency":{{"min_ms":{digits}}},"transcript":[{{"role":"bot","latency_ms":{digits}}}]}}}}"#
        );
        let call = stored(&world, Webhook::SessionCompleted, &session, body.as_bytes(), digits).await;
        assert_eq!(text(&call, "state"), "ended", "{digits}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insight_keeps_the_digits_of_its_numbers() {
    let world = World::new().await;
    for (index, digits) in ["0.1234567890123456789012345678901234567890", "1e400"].into_iter().enumerate() {
        let body = format!(
            r#"{{"session_id":"{index}","events":[{{"event_type":"sentiment","event_data":{{"confidence":{digits}}}}}]}}"#
        );
        let session = format!("exotel#{index}");
        let call = stored(&world, Webhook::InsightsEvents, &session, body.as_bytes(), digits).await;
        let insight = call["insights"].as_m().unwrap()["sentiment"].as_m().unwrap();
        assert_eq!(text(insight, "data"), format!(r#"{{"confidence":{digits}}}"#));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_levels_are_stored_and_a_hundred_thousand_do_no_harm() {
    let world = World::new().await;
    let body = |levels| format!(r#"{{"session_id":"deep","custom_parameters":{}}}"#, nested(levels));
    let call = stored(&world, Webhook::SessionStart, "exotel#deep", body(40).as_bytes(), "40 levels").await;
    assert_eq!(text(&call, "custom_parameters"), nested(40));

    // What the bundle does not read is no reason to put the rest aside.
    let unread = format!(r#"{{"session_id":"unread","more":{}}}"#, nested(30_000));
    stored(&world, Webhook::SessionStart, "exotel#unread", unread.as_bytes(), "unread levels").await;

    quarantined(&world, Webhook::SessionStart, body(100_000).as_bytes(), "100,000 levels").await;
    quarantined(&world, Webhook::SessionStart, "[".repeat(100_000).as_bytes(), "100,000 open lists").await;
    let values = format!(r#"{{"data":{{"session_id":"s1","extraction":{}}}}}"#, nested(100_000));
    quarantined(&world, Webhook::SessionCompleted, values.as_bytes(), "100,000 levels of extraction").await;
    let insight = nested(100_000);
    let insight = format!(r#"{{"session_id":"s1","events":[{{"event_type":"entity","event_data":{insight}}}]}}"#);
    quarantined(&world, Webhook::InsightsEvents, insight.as_bytes(), "100,000 levels of insight").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn levels_that_fill_the_largest_body_cost_no_more_time_than_there_is() {
    let world = World::new().await;
    let body = format!(r#"{{"session_id":"deep","custom_parameters":{}}}"#, nested(700_000));
    quarantined(&world, Webhook::SessionStart, body.as_bytes(), "700,000 levels").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_too_long_for_a_key_are_kept_verbatim() {
    let world = World::new().await;
    let long = "x".repeat(3 * 1024);
    let body = json!({ "session_id": long }).to_string();
    quarantined(&world, Webhook::SessionStart, body.as_bytes(), "a session id for Exotel").await;
    let body = json!({ "data": { "session_id": long } }).to_string();
    quarantined(&world, Webhook::SessionCompleted, body.as_bytes(), "a session id for Vocobase").await;

    // A turn's key names the bot, the index of callers the number.
    let turn = json!({ "sequence": 1, "transcript_segments": [{ "speaker": "bot", "text": "Hello" }] });
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [turn] } });
    let body = json!({ "session_id": "bot", "bot_id": long, "events": [event] }).to_string();
    quarantined(&world, Webhook::TranscriptEvents, body.as_bytes(), "a bot's id").await;
    // AWS refuses this as a key of an index and the embedded store does not: either way the delivery is there.
    let body = json!({ "session_id": "contact", "contact_uri": long, "start_time": "2026-03-15T14:30:01Z" });
    let body = body.to_string();
    deliver(&world, Webhook::SessionStart, body.as_bytes(), "a contact").await;
    let event = &world.items_of("events", "exotel#contact").await[0];
    assert_eq!(world.body(event).await, body.as_bytes());

    // Where the long bot id is in no key it is only a long word.
    let body = json!({ "session_id": "s1", "bot_id": long }).to_string();
    let call = stored_beside(&world, Webhook::SessionStart, "exotel#s1", body.as_bytes()).await;
    assert_eq!(call["bots"], AttributeValue::Ss(vec![long]));
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_ids_are_kept_verbatim() {
    let world = World::new().await;
    for body in [r#"{"session_id":""}"#, r#"{"session_id":null}"#, r#"{"session_id":{}}"#, "{}"] {
        quarantined(&world, Webhook::SessionStart, body.as_bytes(), body).await;
        let data = format!(r#"{{"data":{body}}}"#);
        quarantined(&world, Webhook::SessionCompleted, data.as_bytes(), &data).await;
    }
    assert_eq!(world.items("sessions").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_may_hold_anything() {
    let world = World::new().await;
    let turn = json!({ "sequence": 1, "transcript_segments": [{ "speaker": "bot", "text": "Hello" }] });
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [turn] } });
    for id in
        ["a#b", "#", "a\u{0}b", "a\nb", "\u{1f4de}", " ", "%00", "../..", "\u{202e}", "\u{feff}", "'\";--", "नमस्ते"]
    {
        let body = json!({ "session_id": id, "bot_id": id, "contact_uri": id, "events": [event] }).to_string();
        let session = format!("exotel#{id}");
        let call = stored(&world, Webhook::TranscriptEvents, &session, body.as_bytes(), id).await;
        assert_eq!((text(&call, "session_id"), text(&call, "contact")), (id, id));
        assert_eq!(call["bots"], AttributeValue::Ss(vec![id.into()]));
        let turns = world.items_of("transcripts", &session).await;
        assert_eq!(turns.iter().map(|turn| text(turn, "turn")).collect::<Vec<_>>(), [format!("000001#{id}")]);

        let said = json!([{ "role": "bot", "content": "Hello" }]);
        let body = json!({ "data": { "session_id": id, "agent_id": id, "transcript": said } }).to_string();
        let session = format!("vocobase#{id}");
        let call = stored(&world, Webhook::SessionCompleted, &session, body.as_bytes(), id).await;
        assert_eq!(text(&call, "session_id"), id);
        assert_eq!(world.items_of("transcripts", &session).await.len(), 1, "{id:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_of_half_a_megabyte_is_stored() {
    let world = World::new().await;
    for (name, said) in [("wordy", "I would like to speak to a person. ".repeat(15_000)), ("noise", noise(1, 500_000))]
    {
        let turn = json!({ "sequence": 1, "transcript_segments": [{ "speaker": "user", "text": said }] });
        let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [turn] } });
        let body = json!({ "session_id": name, "events": [event] }).to_string();
        stored(&world, Webhook::TranscriptEvents, &format!("exotel#{name}"), body.as_bytes(), name).await;
        let transcript = json!([{ "role": "user", "content": said }]);
        let body = json!({ "data": { "session_id": name, "transcript": transcript } }).to_string();
        stored(&world, Webhook::SessionCompleted, &format!("vocobase#{name}"), body.as_bytes(), name).await;
        for provider in ["exotel", "vocobase"] {
            let turns = world.items_of("transcripts", &format!("{provider}#{name}")).await;
            let [turn] = turns.as_slice() else { panic!("{provider} {name}: {} items", turns.len()) };
            let segments = item_to_segments(turn).unwrap();
            assert_eq!(segments.len(), 1);
            assert!(segments[0].text.as_ref() == Some(&said), "{provider} {name}: other words");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_item_can_hold_is_kept_verbatim() {
    let world = World::new().await;
    let (said, letters) = (noise(2, 1_500_000), noise(3, 500_000));
    let turn = json!({ "sequence": 1, "transcript_segments": [{ "speaker": "user", "text": said }] });
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [turn] } });
    let transcript = json!([{ "role": "user", "content": said }]);
    for (what, webhook, body) in [
        ("a turn", Webhook::TranscriptEvents, json!({ "session_id": "s1", "events": [event] })),
        ("a segment", Webhook::SessionCompleted, json!({ "data": { "session_id": "s1", "transcript": transcript } })),
        ("parameters", Webhook::SessionStart, json!({ "session_id": "s2", "custom_parameters": { "all": letters } })),
        ("variables", Webhook::SessionCompleted, json!({ "data": { "session_id": "s2", "variables": [letters] } })),
        ("a name", Webhook::SessionEnd, json!({ "session_id": "s3", "bot_name": letters })),
        ("a word", Webhook::SessionEnd, json!({ "session_id": "s3", "trigger_reason": letters })),
    ] {
        quarantined(&world, webhook, body.to_string().as_bytes(), what).await;
    }
    // A transcript that could not be written whole is not the call's.
    assert_eq!(world.items_of("sessions", "vocobase#s1").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_honest_json_are_stored_or_kept_verbatim() {
    let world = World::new().await;
    let bom = "\u{feff}{\"session_id\":\"s1\"}";
    let bodies: [&[u8]; 16] = [
        b"",
        b" \r\n",
        b"\0",
        bom.as_bytes(),
        b"\xff\xfe{\0}\0",
        b"{\"session_id\":\"s\xff1\"}",
        b"{\"session_id\":\"s1\",\"bot_name\":\"\xc3\x28\"}",
        br#"{"session_id":"\ud800"}"#,
        br#"{"session_id":"s1","bot_name":"\udc00\ud800"}"#,
        br#"{"session_id":"s1","custom_parameters":{"a":"\ud83d"}}"#,
        br#"{"session_id":"s1","session_id":"s2"}"#,
        br#"{"session_id":"s1"}{"session_id":"s2"}"#,
        br#"{"session_id":"s1"},"#,
        br#"{"session_id":"s1",}"#,
        br#"{"session_id":'s1'}"#,
        br#"{"session_id":"s1","bot_name":NaN}"#,
    ];
    for body in bodies {
        let what = String::from_utf8_lossy(body);
        quarantined(&world, Webhook::SessionStart, body, &what).await;
        let data = [br#"{"data":"#.as_slice(), body, b"}"].concat();
        // By the names that Vocobase has for the same.
        let data = replaced(&replaced(&data, b"bot_name", b"agent_name"), b"custom_parameters", b"variables");
        quarantined(&world, Webhook::SessionCompleted, &data, &what).await;
    }
    assert_eq!(world.items("sessions").await, []);
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    match bytes.windows(from.len()).position(|window| window == from) {
        Some(at) => [&bytes[..at], to, &bytes[at + from.len()..]].concat(),
        None => bytes.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_but_honest_is_stored() {
    let world = World::new().await;
    for (id, body) in [
        ("1", br#"{"session_id":1}"#.as_slice()),
        ("2", b"\r\n\t {\"session_id\" : \"2\"}\n"),
        ("\u{1f4de}", br#"{"session_id":"\ud83d\udcde"}"#),
        // Where the bundle does not look, it does not judge.
        ("4", b"{\"session_id\":\"4\",\"more\":\"\xff\"}"),
        ("5", br#"{"session_id":"5","more":"\ud800","more":1}"#),
        ("6", br#"{"session_id":"6","custom_parameters":{"a":1,"a":2}}"#),
    ] {
        let call = stored(&world, Webhook::SessionStart, &format!("exotel#{id}"), body, id).await;
        assert_eq!(text(&call, "session_id"), id);
    }
    let call = &world.items_of("sessions", "exotel#6").await[0];
    assert_eq!(text(call, "custom_parameters"), r#"{"a":2}"#);
}

/// A Vocobase delivery of so many turns, and what they say.
fn long_call(turns: usize, letters: usize) -> (String, Vec<String>) {
    let said: Vec<String> = (0..turns).map(|turn| format!("{turn} {}", noise(turn as u64, letters))).collect();
    let mut transcript = String::new();
    for (turn, said) in said.iter().enumerate() {
        let (role, comma) = (if turn % 2 == 0 { "bot" } else { "user" }, if turn == 0 { "" } else { "," });
        let (minute, second) = (turn / 60 % 60, turn % 60);
        let timestamp = format!("2026-03-15T14:{minute:02}:{second:02}.000Z");
        let _ = write!(transcript, r#"{comma}{{"role":"{role}","content":"{said}","timestamp":"{timestamp}"}}"#);
    }
    let body = format!(
        r#"{{"event":"session.completed","timestamp":"2026-03-15T15:00:08.000Z",
        "data":{{"session_id":"long","duration_seconds":3600,"transcript":[{transcript}]}}}}"#
    );
    (body, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_call_is_stored_within_the_deadline_and_read_back_in_order() {
    for (turns, letters, at_least) in [(300, 100, 45_000), (2_000, 110, 350_000), (4_000, 960, 4_000_000)] {
        let world = World::new().await;
        let (body, said) = long_call(turns, letters);
        assert!(body.len() >= at_least, "{} bytes", body.len());
        let what = format!("{turns} turns");
        let call = stored(&world, Webhook::SessionCompleted, "vocobase#long", body.as_bytes(), &what).await;
        let revision = format!("{}#", text(&call, "revision"));
        let chunks = world.items_of("transcripts", "vocobase#long").await;
        let counting = chunks.iter().filter(|chunk| text(chunk, "turn").starts_with(&revision));
        let segments: Vec<_> = counting.flat_map(|chunk| item_to_segments(chunk).unwrap()).collect();
        assert_eq!(segments.len(), turns);
        assert!(body.len() < 1_000_000 || chunks.len() > 1, "{what} are in one item");
        for (turn, (segment, said)) in segments.iter().zip(&said).enumerate() {
            assert_eq!(segment.text.as_ref(), Some(said), "turn {turn} of {turns}");
            assert_eq!(segment.speaker.as_deref(), Some(if turn % 2 == 0 { "bot" } else { "user" }));
        }
    }
}
