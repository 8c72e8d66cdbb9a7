//! A write that fails at any of its places, followed by the platform's retry, leaves the same items as no failure at
//! all; and no 2xx is answered before everything is durable.

use std::sync::Arc;

use serde_json::json;
use shared::{Instant, Webhook};
use tests::faults::{Fault, Place, When};
use tests::{Item, World, read};

fn turn() -> Vec<u8> {
    let segment = json!({ "speaker": "user", "text": "Hello", "start_timestamp": "2025-07-16T11:41:00Z", "end_timestamp": "2025-07-16T11:41:01Z" });
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [{ "sequence": 1, "transcript_segments": [segment] }] } });
    json!({ "session_id": "s1", "bot_id": "b1", "start_time": "2025-07-16T11:40:57Z", "events": [event] })
        .to_string()
        .into_bytes()
}

/// 60 KB that do not compress: its body goes to the bucket, its transcript into several chunks.
fn long_session() -> Vec<u8> {
    let mut random = 7_u64;
    let mut noise = || {
        let hex = (0..40).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            format!("{random:016x}")
        });
        hex.collect::<String>()
    };
    let transcript: Vec<_> = (0..90)
        .map(|turn| json!({ "role": "bot", "content": noise(), "timestamp": format!("2026-03-15T14:{:02}:{:02}Z", turn / 60, turn % 60) }))
        .collect();
    let url = "https://recordings.s3.amazonaws.com/r.wav?X-Amz-Date=20260315T143000Z&X-Amz-Expires=86400";
    let data = json!({ "session_id": "v1", "duration_seconds": 127, "credits_used": 2.12, "transcript": transcript, "recording_url": url });
    json!({ "event": "session.completed", "timestamp": "2026-03-15T14:32:08.000Z", "data": data })
        .to_string()
        .into_bytes()
}

async fn tables(world: &World) -> Vec<Item> {
    let mut all = Vec::new();
    for table in ["events", "sessions", "transcripts", "recordings"] {
        let mut items = world.items(table).await;
        for item in &mut items {
            item.remove("received_at");
        }
        all.extend(items);
    }
    all
}

/// Fails each write to each place in turn; returns the places that were written to.
async fn fail_everywhere(webhook: Webhook, body: Vec<u8>) -> Vec<(Place, usize)> {
    let undisturbed = World::new().await;
    assert_eq!(undisturbed.deliver(webhook, body.clone()).await.status, 200);
    let expected = tables(&undisturbed).await;

    let mut places = Vec::new();
    for place in Place::ALL {
        let mut writes = 0;
        for (from, when) in (0..).flat_map(|from| [(from, When::Before), (from, When::After)]) {
            let world = World::new().await;
            let fault = Fault::new(place, when, from);
            let app = world.instance(webhook, |clients| fault.in_clients(clients), Arc::new(Instant::now));
            let answer = read(&cli::dev::call(webhook, &app, world.request(webhook, &body)).await);
            if !fault.happened() {
                assert_eq!((answer.status, when), (200, When::Before), "what fails before also fails after");
                break;
            }
            writes = from + 1;
            assert_eq!(answer.status, 503, "{fault:?}: no 2xx before everything is durable");
            assert_eq!(answer.json["response"]["error_data"]["error_code"], "HS503");
            // The platform's retry meets another instance, or the same one.
            for retry in 0..2 {
                assert_eq!(world.deliver(webhook, body.clone()).await.status, 200, "{fault:?}, retry {retry}");
                assert_eq!(tables(&world).await, expected, "{fault:?}, retry {retry}");
            }
        }
        if writes > 0 {
            places.push((place, writes));
        }
    }
    places
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_failed_anywhere_is_whole_after_its_retry() {
    let places = fail_everywhere(Webhook::TranscriptEvents, turn()).await;
    assert_eq!(places, [(Place::Table("events"), 1), (Place::Table("sessions"), 1), (Place::Table("transcripts"), 1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_failed_anywhere_is_whole_after_its_retry() {
    let places = fail_everywhere(Webhook::SessionCompleted, long_session()).await;
    assert_eq!(places[..3], [(Place::Body, 1), (Place::Table("events"), 1), (Place::Table("sessions"), 1)]);
    assert!(matches!(places[3], (Place::Table("transcripts"), 4..)), "{places:?}");
    assert_eq!(places[4], (Place::Table("recordings"), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_never_names_a_transcript_that_is_half_written() {
    let world = World::new().await;
    let fault = Fault::new(Place::Table("transcripts"), When::Before, 2);
    let app = world.instance(Webhook::SessionCompleted, |clients| fault.in_clients(clients), Arc::new(Instant::now));
    let request = world.request(Webhook::SessionCompleted, &long_session());
    assert_eq!(read(&cli::dev::call(Webhook::SessionCompleted, &app, request).await).status, 503);
    assert!(fault.happened());
    assert_eq!(world.items("sessions").await, [] as [Item; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_a_retry_mends_is_not_hidden_by_a_refusal() {
    let world = World::new().await;
    // The call is refused for good, for its size; the turn fails for now.
    let mut delivery: serde_json::Value = serde_json::from_slice(&turn()).unwrap();
    delivery["custom_parameters"] = json!({ "notes": "x".repeat(500_000) });
    let body = delivery.to_string();
    let fault = Fault::new(Place::Table("transcripts"), When::Before, 0);
    let app = world.instance(Webhook::TranscriptEvents, |clients| fault.in_clients(clients), Arc::new(Instant::now));
    let request = world.request(Webhook::TranscriptEvents, body.as_bytes());
    assert_eq!(read(&cli::dev::call(Webhook::TranscriptEvents, &app, request).await).status, 503);
    assert_eq!(world.quarantined().await, [] as [Item; 0]);
    // The retry stores the turn, and puts the body aside for what no retry mends.
    assert_eq!(world.deliver(Webhook::TranscriptEvents, body).await.status, 200);
    assert_eq!(world.items("transcripts").await.len(), 1);
    assert_eq!(world.quarantined().await.len(), 1);
}
