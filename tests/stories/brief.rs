//! The brief for whoever takes over: built when a human is asked for, kept, the same whoever asks again.

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::future::join_all;
use serde_json::{Value, json};
use shared::auth::Verified;
use shared::call::{Delivery, Source};
use shared::storage::Store;
use shared::{Country, Instant, Webhook};
use tests::control_plane::Aws;
use tests::faults::between;
use tests::units::Units;
use tests::{Item, World, at, text};

const START: &str = "2025-07-16T11:40:57.000Z";

fn request(id: &str, reason: &str, events: &Value) -> Value {
    json!({ "session_id": id, "start_time": START, "landing_number": "+918047000000", "contact_uri": "+919876543210",
        "session_state": "session_in_progress", "trigger_reason": reason, "bot_id": "b1", "bot_name": "Support bot",
        "custom_parameters": { "plan": "gold" }, "events": events })
}

fn transfer(id: &str) -> Value {
    request(id, "pre_agent_transfer", &json!([]))
}

fn insight(kind: &str, value: &Value) -> Value {
    json!({ "event_type": kind, "event_id": "e", "event_data": { "value": value, "score": 90, "confidence": 0.85,
        "reason": "said so", "status": "changed", "timestamp": "2025-07-16T11:41:30Z" } })
}

fn turn(sequence: usize, text: &str, second: i64) -> Value {
    let start = Instant::parse(START).unwrap().plus_seconds(second);
    let segment =
        json!({ "speaker": "user", "text": text, "start_timestamp": start, "end_timestamp": start.plus_seconds(1) });
    json!([{ "event_type": "transcript", "event_data": { "transcripts": [{ "sequence": sequence, "status": "completed",
        "transcript_segments": [segment] }] } }])
}

fn store(world: &World) -> Store {
    world.stores().open().unwrap().store().unwrap()
}

fn delivery(body: &Value) -> Delivery {
    let body = body.to_string();
    Delivery::read(Webhook::PreAgentTransfer, &Verified::known(body.as_bytes()), Source::Webhook, Country::default())
        .unwrap()
}

/// What is handed over for a delivery that was received then.
async fn hand_over(store: &Store, body: &Value, received_at: &str) -> Option<Value> {
    let brief = store.hand_over(&delivery(body), Instant::parse(received_at).unwrap()).await.unwrap();
    brief.map(|brief| serde_json::from_str(brief.as_str()).unwrap())
}

async fn deliver(world: &World, webhook: Webhook, body: &Value) {
    let answer = world.deliver(webhook, body.to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn call(world: &World, session: &str) -> Item {
    world.items_of("sessions", session).await.pop().expect("a call")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_says_who_calls_why_and_what_was_said_last() {
    let world = World::new().await;
    deliver(&world, Webhook::SessionStart, &request("s1", "start", &json!([]))).await;
    for (nth, said) in ["Where is my order?", "It is on its way.", "A human, please."].into_iter().enumerate() {
        let second = i64::try_from(nth).unwrap() * 10;
        deliver(&world, Webhook::TranscriptEvents, &request("s1", "turn_complete", &turn(nth + 1, said, second))).await;
    }
    let insights = json!([
        insight("intent", &json!("order_status")),
        insight("summary", &json!("Asks where the order is.")),
        insight("mood", &json!({ "calm": true }))
    ]);
    deliver(&world, Webhook::InsightsEvents, &request("s1", "timer", &insights)).await;
    deliver(&world, Webhook::PreAgentTransfer, &transfer("s1")).await;
    let told = |value: &Value| json!({ "value": value, "score": 90, "confidence": 0.85, "reason": "said so", "at": "2025-07-16T11:41:30.000000Z" });
    let said =
        |at: &str, text: &str| json!({ "speaker": "user", "at": format!("2025-07-16T11:{at}.000000Z"), "text": text });
    let expected = json!({
        "version": 1, "session": "exotel#s1", "contact": "+919876543210", "landing_number": "+918047000000",
        "bot": "b1", "bot_name": "Support bot", "started_at": "2025-07-16T11:40:57.000000Z",
        "requested_at": "2025-07-16T11:42:00.000000Z", "seconds": 63, "reason": "pre_agent_transfer",
        "summary": "Asks where the order is.",
        "insights": { "intent": told(&json!("order_status")), "mood": told(&json!({ "calm": true })) },
        "custom_parameters": { "plan": "gold" },
        "turns": [said("40:57", "Where is my order?"), said("41:07", "It is on its way."), said("41:17", "A human, please.")],
    });
    assert_eq!(hand_over(&store(&world), &transfer("s1"), "2025-07-16T11:42:00Z").await, Some(expected.clone()));
    let kept: Value = serde_json::from_str(text(&call(&world, "exotel#s1").await, "brief")).unwrap();
    assert_eq!(kept, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_gives_what_was_kept_and_a_later_transfer_what_is_known_by_then() {
    let world = World::new().await;
    let store = store(&world);
    // The first that is heard of the call, and its publisher was quicker than its function.
    let first = hand_over(&store, &transfer("s1"), "2025-07-16T11:42:00Z").await.unwrap();
    assert_eq!((&first["seconds"], first.get("turns"), first.get("insights")), (&json!(63), None, None));
    deliver(&world, Webhook::PreAgentTransfer, &transfer("s1")).await;
    let insights = json!([insight("summary", &json!("Wants a refund."))]);
    deliver(&world, Webhook::InsightsEvents, &request("s1", "timer", &insights)).await;
    deliver(&world, Webhook::TranscriptEvents, &request("s1", "turn_complete", &turn(1, "Hello?", 70))).await;
    let before = call(&world, "exotel#s1").await;
    assert_eq!(hand_over(&store, &transfer("s1"), "2025-07-16T11:42:00Z").await, Some(first.clone()));
    assert_eq!(call(&world, "exotel#s1").await, before, "a repetition writes nothing");
    // The human gave the caller back to a bot, and that asks once more: of the same start, and nothing else.
    let again = hand_over(&store, &transfer("s1"), "2025-07-16T11:45:00Z").await.unwrap();
    assert_eq!((&again["summary"], &again["turns"][0]["text"]), (&json!("Wants a refund."), &json!("Hello?")));
    assert_eq!(again["seconds"], 243);
    // What comes late to the first transfer finds the second's: never an older one.
    assert_eq!(hand_over(&store, &transfer("s1"), "2025-07-16T11:42:00Z").await, Some(again));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_ask_at_once_are_told_the_same() {
    let world = World::new().await;
    deliver(&world, Webhook::SessionStart, &request("s1", "start", &json!([]))).await;
    let stores: Vec<Store> = (0..8).map(|_| store(&world)).collect();
    let body = transfer("s1");
    let asked = stores.iter().enumerate().map(async |(nth, store)| {
        // What each of them knows differs: turns come meanwhile.
        let turn = request("s1", "turn_complete", &turn(nth + 1, "Hello", i64::try_from(nth).unwrap()));
        deliver(&world, Webhook::TranscriptEvents, &turn).await;
        hand_over(store, &body, "2025-07-16T11:42:00Z").await.expect("a brief")
    });
    let told = join_all(asked).await;
    assert!(told.iter().all(|brief| *brief == told[0]), "{told:?}");
    let kept: Value = serde_json::from_str(text(&call(&world, "exotel#s1").await, "brief")).unwrap();
    assert_eq!(kept, told[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_turns_are_the_last_by_time_whichever_bot_counted_them() {
    let world = World::new().await;
    for nth in 0..30 {
        let body = request("s1", "turn_complete", &turn(nth + 1, &format!("first {nth}"), i64::try_from(nth).unwrap()));
        deliver(&world, Webhook::TranscriptEvents, &body).await;
    }
    // Another bot counts from 1 again.
    for nth in 0..2 {
        let second = 100 + i64::try_from(nth).unwrap();
        let mut body = request("s1", "turn_complete", &turn(nth + 1, &format!("second {nth}"), second));
        body["bot_id"] = json!("b2");
        deliver(&world, Webhook::TranscriptEvents, &body).await;
    }
    let mut asks = transfer("s1");
    (asks["bot_id"], asks["bot_name"]) = (json!("b2"), json!("Billing bot"));
    let brief = hand_over(&store(&world), &asks, "2025-07-16T11:45:00Z").await.unwrap();
    let turns: Vec<&str> =
        brief["turns"].as_array().unwrap().iter().map(|turn| turn["text"].as_str().unwrap()).collect();
    assert_eq!((turns.len(), turns[0], turns[19]), (20, "first 12", "second 1"));
    assert_eq!(
        (&brief["bot"], &brief["bot_name"], &brief["cut"]),
        (&json!("b2"), &json!("Billing bot"), &json!(["turns"]))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_erased_call_nothing_is_said_and_no_brief_is_left() {
    let world = World::new().await;
    let store = store(&world);
    assert!(hand_over(&store, &transfer("s1"), "2025-07-16T11:42:00Z").await.is_some());
    let erased = [("session", "exotel#s1"), ("state", "erased"), ("merged", "0123456789abcdef")];
    let erased: Item =
        erased.into_iter().map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))).collect();
    let table = &world.stores().tables["sessions"];
    world.clients.dynamodb.put_item().table_name(table).set_item(Some(erased.clone())).send().await.unwrap();
    for received_at in ["2025-07-16T11:42:00Z", "2025-07-16T11:45:00Z"] {
        assert_eq!(hand_over(&store, &transfer("s1"), received_at).await, None);
    }
    assert_eq!(world.items("sessions").await, [erased]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_is_printed_kept_or_built_and_of_no_call_without_one() {
    let world = World::with(&[], at("2025-07-16T11:45:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    let port = world.run.base.rsplit_once(':').unwrap().1.to_owned();
    let run = async |arguments: &[&str]| {
        let output = aws.run(&[&["brief"], arguments].concat(), "").await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    deliver(&world, Webhook::SessionStart, &request("s1", "start", &json!([]))).await;
    let hello = turn(1, "Hello?\u{1b}[2J", 3);
    deliver(&world, Webhook::TranscriptEvents, &request("s1", "turn_complete", &hello)).await;
    let (code, out, err) = run(&["s1", "--port", &port]).await;
    assert_eq!((code, err.as_str()), (Some(0), "exotel#s1: none is kept: built from what is stored now\n"));
    for line in
        ["contact          +919876543210\n", "11:41:00  user       Hello?\\u{1b}[2J\n", "  plan             gold\n"]
    {
        assert!(out.contains(line), "{out}");
    }
    let kept = hand_over(&store(&world), &transfer("s1"), "2025-07-16T11:42:00Z").await.unwrap();
    let (code, out, err) = run(&["exotel#s1", "--json", "--stack", "prod"]).await;
    assert_eq!((code, err.as_str()), (Some(0), "exotel#s1: as it was kept when a human was asked for\n"));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), kept);

    // Vocobase asks for no human, but its calls can be looked at the same way: only the transcript that counts.
    for (sent_at, words) in [("2026-03-15T14:32:08Z", "Hi"), ("2026-03-15T14:33:08Z", "Hi again")] {
        let session = json!({ "event": "session.completed", "timestamp": sent_at, "data": { "session_id": "v1",
            "agent_id": "a1", "duration_seconds": 60, "call": { "from_number": "+14155551234" },
            "transcript": [{ "role": "user", "content": words, "timestamp": "2026-03-15T14:31:00Z" }] } });
        deliver(&world, Webhook::SessionCompleted, &session).await;
    }
    let (_, out, _) = run(&["v1", "--json", "--port", &port]).await;
    let brief: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (&brief["session"], &brief["bot"], &brief["seconds"]),
        (&json!("vocobase#v1"), &json!("a1"), &json!(60))
    );
    let turns = json!([{ "speaker": "user", "text": "Hi again", "at": "2026-03-15T14:31:00.000000Z" }]);
    assert_eq!(brief["turns"], turns);

    for (session, why) in [("nobody", "no call nobody is stored"), ("exotel#s9", "no call exotel#s9 is stored")] {
        let (code, out, err) = run(&[session, "--port", &port]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains(why), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_keeps_the_brief_and_finds_nothing_amiss_in_it() {
    let world = World::new().await;
    deliver(&world, Webhook::SessionStart, &request("s1", "start", &json!([]))).await;
    deliver(&world, Webhook::PreAgentTransfer, &transfer("s1")).await;
    let store = store(&world);
    let received_at = "2025-07-16T11:42:00Z";
    hand_over(&store, &transfer("s1"), received_at).await.unwrap();
    let key = "exotel#s1".parse().unwrap();
    let now = Instant::parse(received_at).unwrap();
    let deliveries = [(delivery(&request("s1", "start", &json!([]))), now), (delivery(&transfer("s1")), now)];
    assert!(store.compare(&key, &deliveries, now).await.unwrap().is_none());
    // What is missing beside it comes back, and it stays.
    let mut late = transfer("s1");
    late["network_type"] = json!("pstn");
    let found = store.compare(&key, &[(delivery(&late), now)], now).await.unwrap().expect("a difference");
    assert_eq!(found.differences[0].changes.as_deref(), Some(["network_type".to_owned()].as_slice()));
    store.rebuild(found).await.unwrap();
    let call = call(&world, "exotel#s1").await;
    assert!(call.contains_key("brief") && text(&call, "network_type") == "pstn");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_brief_costs_is_bounded_by_its_size() {
    let world = World::new().await;
    let units = Units::default();
    let opened = world.stores().open().unwrap();
    let storage = shared::config::Storage::read(&|name| world.environment().get(name).cloned()).unwrap();
    let store = Store::without_cache(between(&opened.clients, &units), storage);
    let end = |id: &str| {
        let mut end = request(id, "end", &json!([]));
        end["end_time"] = json!("2025-07-16T11:50:00Z");
        end
    };
    let long = "परीक्षा ".repeat(40);
    let summary = |words: &str| json!([insight("summary", &json!(words)), insight("intent", &json!("order_status"))]);
    let limits = [("short", "Where is it?".to_owned(), 3, 3.0), ("long", long, 40, 6.0)];
    for (id, words, turns, limit) in limits {
        deliver(&world, Webhook::InsightsEvents, &request(id, "timer", &summary(&words))).await;
        for nth in 0..turns {
            let body = request(id, "turn_complete", &turn(nth + 1, &words, i64::try_from(nth).unwrap()));
            deliver(&world, Webhook::TranscriptEvents, &body).await;
        }
        units.take();
        hand_over(&store, &transfer(id), "2025-07-16T11:42:00Z").await.unwrap();
        let kept = units.take();
        let bytes = text(&call(&world, &format!("exotel#{id}")).await, "brief").len();
        let instance = world.instance(Webhook::SessionEnd, |clients| between(clients, &units), tests::now());
        let request = world.request(Webhook::SessionEnd, end(id).to_string().as_bytes());
        let answer = tests::read(&cli::dev::call(Webhook::SessionEnd, &instance, request).await);
        assert_eq!(answer.status, 200);
        let later = units.take();
        println!("{id}: a brief of {bytes} bytes; keeping it {kept:?}; the end of the call {later:?}");
        assert!(kept.units <= limit && later.units <= limit + 1.0, "{id}: {kept:?}, {later:?}");
    }
}

#[test]
fn every_member_of_a_brief_is_documented() {
    let docs = include_str!("../../docs/profiles.md");
    let source = include_str!("../../shared/src/brief.rs");
    let document = source.split("struct Document").nth(1).unwrap().split("\n}\n").next().unwrap();
    let names = document.lines().filter_map(|line| line.trim().split_once(": ")).map(|(name, _)| name);
    let mut members: Vec<&str> = names.filter(|name| !name.starts_with("#[")).collect();
    assert_eq!(members.len(), 15, "{members:?}");
    members.retain(|name| !docs.contains(&format!("`{name}`")));
    assert!(members.is_empty(), "docs/profiles.md does not say {members:?}");
}
