//! What a call comes to in each of the cases that platforms are known for: in every order, with the first delivery
//! repeated at the end.

use serde_json::{Value, json};
use shared::Webhook;
use shared::storage::item_to_segments;
use tests::{Item, World, text};

/// What a call came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    session: Item,
    transcripts: Vec<Item>,
}

impl Outcome {
    fn said(&self, turn: &str) -> String {
        let item = self.transcripts.iter().find(|item| text(item, "turn") == turn).expect("the turn");
        let segments = item_to_segments(item).expect("segments");
        segments.into_iter().filter_map(|segment| segment.text).collect()
    }

    fn insight(&self, kind: &str) -> Value {
        let insights = self.session["insights"].as_m().expect("a map");
        let data = text(insights[kind].as_m().expect("a map"), "data");
        serde_json::from_str::<Value>(data).expect("JSON")["value"].clone()
    }
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = permutations(count - 1);
    let insert = |at: usize| shorter.iter().map(move |order| [&order[..at], &[count - 1], &order[at..]].concat());
    (0..count).flat_map(insert).collect()
}

/// Delivers in every order; all come to the same, which is given back.
async fn in_every_order(deliveries: &[(Webhook, Value)]) -> Outcome {
    let mut outcomes = Vec::new();
    for order in permutations(deliveries.len()) {
        let world = World::new().await;
        for index in order.iter().chain(&order[..1]) {
            let (webhook, body) = &deliveries[*index];
            assert_eq!(world.deliver(*webhook, body.to_string()).await.status, 200);
        }
        let session = world.items("sessions").await.pop().expect("a call");
        outcomes.push((order, Outcome { session, transcripts: world.items("transcripts").await }));
    }
    let (_, first) = outcomes.remove(0);
    for (order, outcome) in outcomes {
        assert_eq!(outcome, first, "{order:?}");
    }
    first
}

fn request(members: &Value) -> Value {
    let mut request = json!({ "session_id": "s1", "bot_id": "b1", "start_time": "2025-07-16T11:40:57Z" });
    for (name, value) in members.as_object().expect("members") {
        request[name] = value.clone();
    }
    request
}

fn turn(members: &Value, words: &str, end: &str) -> (Webhook, Value) {
    let segment =
        json!({ "speaker": "user", "text": words, "start_timestamp": "2025-07-16T11:41:00Z", "end_timestamp": end });
    let mut transcript = json!({ "transcript_segments": [segment] });
    let mut bot = "b1";
    for (name, value) in members.as_object().expect("members") {
        match name.as_str() {
            "bot_id" => bot = value.as_str().expect("a bot"),
            "start" => transcript["transcript_segments"][0]["start_timestamp"] = value.clone(),
            _ => transcript[name] = value.clone(),
        }
    }
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [transcript] } });
    (Webhook::TranscriptEvents, request(&json!({ "bot_id": bot, "events": [event] })))
}

fn insights(values: &[(&str, &str)]) -> (Webhook, Value) {
    let event = |(value, at): &(&str, &str)| json!({ "event_type": "sentiment", "event_data": { "value": value, "timestamp": at } });
    (Webhook::InsightsEvents, request(&json!({ "events": values.iter().map(event).collect::<Vec<_>>() })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_partial_turn_never_replaces_the_finished_one() {
    let outcome = in_every_order(&[
        turn(&json!({ "sequence": 1, "status": "completed" }), "Hello there", "2025-07-16T11:41:02Z"),
        // Even one that claims to end later.
        turn(&json!({ "sequence": 1, "status": "in_progress" }), "Hello", "2025-07-16T11:41:05Z"),
        turn(&json!({ "sequence": 1, "status": "inprogress" }), "Hel", "2025-07-16T11:41:01Z"),
    ])
    .await;
    assert_eq!(outcome.transcripts.len(), 1);
    assert_eq!(outcome.said("000001#b1"), "Hello there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shorter_accumulation_never_replaces_a_longer_one() {
    let outcome = in_every_order(&[
        turn(&json!({ "sequence": 1, "status": "in_progress" }), "I would like", "2025-07-16T11:41:02Z"),
        turn(&json!({ "sequence": 1, "status": "in_progress" }), "I would like to order", "2025-07-16T11:41:02.000Z"),
        turn(&json!({ "sequence": 1, "status": "in_progress" }), "I", "2025-07-16T11:41:01.9Z"),
    ])
    .await;
    assert_eq!(outcome.said("000001#b1"), "I would like to order");
}

#[tokio::test(flavor = "multi_thread")]
async fn turns_without_a_sequence_are_told_apart_by_their_start() {
    let outcome = in_every_order(&[
        turn(&json!({ "start": "2025-07-16T11:41:00Z" }), "One", "2025-07-16T11:41:01Z"),
        turn(&json!({ "start": "2025-07-16T11:41:00.000000Z" }), "One more", "2025-07-16T11:41:02Z"),
        turn(&json!({ "start": "2025-07-16T11:41:09Z" }), "Two", "2025-07-16T11:41:10Z"),
    ])
    .await;
    assert_eq!(outcome.transcripts.len(), 2);
    assert_eq!(outcome.said("t1752666060000000#b1"), "One more");
    assert_eq!(outcome.said("t1752666069000000#b1"), "Two");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_sequence_from_two_bots_is_two_turns_of_one_call() {
    let outcome = in_every_order(&[
        turn(&json!({ "sequence": 1, "bot_id": "b1" }), "From the first", "2025-07-16T11:41:01Z"),
        turn(&json!({ "sequence": 1, "bot_id": "b2" }), "From the second", "2025-07-16T11:41:02Z"),
    ])
    .await;
    assert_eq!([outcome.said("000001#b1"), outcome.said("000001#b2")], ["From the first", "From the second"]);
    assert_eq!(outcome.session["bots"].as_ss().expect("a set"), &["b1", "b2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_comes_first_and_twice_stays_the_end() {
    let end = |at: &str| (Webhook::SessionEnd, request(&json!({ "session_state": "session_end", "end_time": at })));
    let outcome = in_every_order(&[
        end("2025-07-16T11:42:00Z"),
        end("2025-07-16T11:42:00.5Z"),
        (Webhook::SessionStart, request(&json!({ "session_state": "session_start" }))),
        (Webhook::InsightsEvents, request(&json!({ "session_state": "session_in_progress" }))),
    ])
    .await;
    assert_eq!(text(&outcome.session, "state"), "ended");
    assert_eq!(text(&outcome.session, "ended_at"), "2025-07-16T11:42:00.500000Z");
    assert_eq!(text(&outcome.session, "duration_seconds"), "63.5");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earliest_start_the_filled_contact_and_the_latest_parameters_count() {
    let late_insight =
        json!([{ "event_type": "intent", "event_data": { "value": "buy", "timestamp": "2025-07-16T11:41:30Z" } }]);
    let outcome = in_every_order(&[
        (Webhook::SessionStart, request(&json!({ "start_time": "2025-07-16T11:40:57.9Z", "contact_uri": "", "custom_parameters": { "tier": "silver" } }))),
        (Webhook::InsightsEvents, request(&json!({ "contact_uri": "+919876543210", "custom_parameters": { "tier": "gold" }, "events": late_insight }))),
        (Webhook::SessionEnd, request(&json!({ "start_time": "2025-07-16T11:40:58Z", "contact_uri": "", "custom_parameters": {} }))),
    ])
    .await;
    assert_eq!(text(&outcome.session, "started_at"), "2025-07-16T11:40:57.000000Z");
    assert_eq!(text(&outcome.session, "contact"), "+919876543210");
    assert_eq!(text(&outcome.session, "custom_parameters"), r#"{"tier":"gold"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_insight_that_comes_along_with_a_new_one_does_not_win() {
    let outcome = in_every_order(&[
        insights(&[("neutral", "2025-07-16T11:41:20Z")]),
        insights(&[("negative", "2025-07-16T11:41:10Z"), ("positive", "2025-07-16T11:41:30Z")]),
        insights(&[("happy", "2025-07-16T11:41:29.999999Z")]),
    ])
    .await;
    assert_eq!(outcome.insight("sentiment"), "positive");
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_decimals_are_not_later_and_equal_instants_have_one_winner() {
    let outcome = in_every_order(&[
        insights(&[("by text the last", "2025-07-16T11:40:57Z")]),
        insights(&[("b", "2025-07-16T11:40:57.9Z")]),
        insights(&[("a", "2025-07-16T11:40:57.900Z")]),
    ])
    .await;
    assert_eq!(outcome.insight("sentiment"), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_revision_of_a_transcript_counts_with_more_or_fewer_chunks() {
    let revision = |sent: &str, turns: usize| {
        let transcript: Vec<Value> = (0..turns)
            .map(|turn| json!({ "role": "user", "content": format!("{turn} {}", "word ".repeat(200)) }))
            .collect();
        let data = json!({ "session_id": "s1", "transcript": transcript });
        (Webhook::SessionCompleted, json!({ "event": "session.completed", "timestamp": sent, "data": data }))
    };
    for (early, late) in [(60, 3), (3, 60)] {
        let deliveries = [revision("2026-03-15T14:32:08Z", early), revision("2026-03-15T14:32:08.5Z", late)];
        let outcome = in_every_order(&deliveries).await;
        let named = text(&outcome.session, "revision");
        assert!(named.starts_with("webhook#2026-03-15T14:32:08.500000Z#"), "{named}");
        let chunks: Vec<&Item> =
            outcome.transcripts.iter().filter(|item| text(item, "turn").starts_with(named)).collect();
        assert_eq!(chunks.len(), if late == 60 { 4 } else { 1 });
        let turns: usize = chunks.iter().map(|chunk| item_to_segments(chunk).expect("segments").len()).sum();
        assert_eq!(turns, late);
    }
}
