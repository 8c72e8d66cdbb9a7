//! An honest deadline: whatever the stores do, a delivery is answered in time, with a 5xx envelope if it is not stored.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use serde_json::json;
use shared::{Instant, Provider, Webhook};
use tests::faults::layer::{Layer, Mishap, Request};
use tests::{Answer, World, read};

/// How long the stores take.
const STORE: Duration = Duration::from_secs(30);
/// What an answer may take beyond the deadline.
const SLACK: Duration = Duration::from_millis(250);
const DEFAULT: Duration = Duration::from_secs(5);

fn delivery(webhook: Webhook, session: &str) -> String {
    match webhook.provider() {
        Provider::Exotel => json!({ "session_id": session, "bot_id": "b1", "start_time": "2025-07-16T11:40:57Z" }),
        Provider::Vocobase => json!({ "event": "session.completed", "data": { "session_id": session } }),
    }
    .to_string()
}

/// What an instance answers whose requests to the stores meet `plan`, and how long that takes.
async fn answers(
    world: &World,
    webhook: Webhook,
    plan: fn(&Request) -> Option<Mishap>,
    times: usize,
) -> Vec<(Answer, Duration)> {
    let layer = Layer::new(plan);
    let name = format!("deadline {}", webhook.name());
    let app = world.instance(webhook, |clients| layer.in_clients(clients, &name), Arc::new(Instant::now));
    let one = async |nth: usize| {
        let request = world.request(webhook, delivery(webhook, &format!("s{nth}")).as_bytes());
        let began = tokio::time::Instant::now();
        let answer = read(&cli::dev::call(webhook, &app, request).await);
        (answer, began.elapsed())
    };
    join_all((0..times).map(one)).await
}

/// Every function under a store that answers after 30 seconds; the longest that any answer took.
async fn every_answer_is_an_error_in_time(world: &World, deadline: Duration) -> Duration {
    let slow = |_: &Request| Some(Mishap::Slow(STORE));
    let all = join_all(Webhook::ALL.map(|webhook| answers(world, webhook, slow, 5))).await;
    let all: Vec<(Answer, Duration)> = all.into_iter().flatten().collect();
    assert_eq!(all.len(), 30);
    for (answer, took) in &all {
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        assert_eq!(answer.json["http_code"], answer.status);
        assert_eq!(answer.json["response"]["error_data"]["error_code"], format!("HS{}", answer.status));
        assert!(*took <= deadline + SLACK, "an answer took {took:?}, the deadline is {deadline:?}");
    }
    all.into_iter().map(|(_, took)| took).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_half_a_minute_costs_no_platform_more_than_the_deadline() {
    for milliseconds in ["400", "1500"] {
        let world = World::with(&[("DEADLINE_MS", milliseconds)], tests::now()).await;
        let deadline = Duration::from_millis(milliseconds.parse().unwrap());
        let longest = every_answer_is_an_error_in_time(&world, deadline).await;
        println!("deadline {deadline:?}: the longest of 30 answers took {longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_more_than_the_default_deadline() {
    let longest = every_answer_is_an_error_in_time(&World::new().await, DEFAULT).await;
    println!("deadline {DEFAULT:?}: the longest of 30 answers took {longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_greeted_in_time_though_its_profile_does_not_come() {
    let world = World::new().await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["profiles"]);
    put.item("profile", text("default")).item("greeting", text("Namaste!")).send().await.unwrap();

    let slow = |request: &Request| request.table.ends_with("-profiles").then_some(Mishap::Slow(STORE));
    let all = answers(&world, Webhook::SessionStart, slow, 20).await;
    for (answer, took) in &all {
        assert_eq!(*answer, Answer { status: 200, json: json!({ "http_code": 200, "response": { "data": {} } }) });
        assert!(*took <= DEFAULT, "{took:?}");
    }
    // It is kept as ever.
    assert_eq!(world.items("sessions").await.len(), 20);
    let longest = all.iter().map(|(_, took)| *took).max().unwrap_or_default();
    println!("profiles that take {STORE:?}: the longest of 20 answers took {longest:?}");

    let quick = |_: &Request| None;
    let (answer, _) = answers(&world, Webhook::SessionStart, quick, 1).await.remove(0);
    assert_eq!(answer.json["response"]["data"]["greeting_message"]["text"], "Namaste!");
}
