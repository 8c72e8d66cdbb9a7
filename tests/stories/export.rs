//! One document of each finished call for analysis: it says what the tables hold, however its changes come and however
//! many exporters are at work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use call_exporter::{Exporter, Outcome, handle};
use cli::simulate::calls::{Planned, plan};
use cli::simulate::recordings::Recordings;
use futures_util::{StreamExt, stream};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use recording_archiver::Archiver;
use recording_archiver::source::Sources;
use serde_json::{Value, json};
use shared::config::Storage;
use shared::storage::{Clients, Invocation, Report};
use shared::{Instant, SessionKey, Webhook};
use tests::faults::When;
use tests::faults::layer::{Layer, Mishap, Request};
use tests::log::Log;
use tests::streams::records;
use tests::{LocalProcess, World, now, text};
use tokio::time;
use tracing::instrument::WithSubscriber;

/// The tables whose streams are exported.
const TABLES: [&str; 2] = ["sessions", "transcripts"];

fn soon() -> time::Instant {
    time::Instant::now() + Duration::from_mins(1)
}

fn storage(world: &World) -> Storage {
    let environment = world.environment();
    Storage::read(&|name: &str| environment.get(name).cloned()).unwrap()
}

fn exporter(world: &World, clients: Clients) -> Exporter {
    Exporter::new(storage(world), clients, now())
}

async fn invoke(exporter: &Exporter, records: &[Value]) -> Report {
    let invocation: Invocation = serde_json::from_value(json!({ "Records": records })).unwrap();
    handle(exporter, invocation, soon()).await
}

/// Exports what all streams have told, and nothing goes wrong.
async fn exported(world: &World) {
    let exporter = exporter(world, world.clients.clone());
    for table in TABLES {
        assert_eq!(invoke(&exporter, &records(world, table).await).await, Report::default(), "{table}");
    }
}

async fn archive(world: &World, clients: Clients) {
    let environment = world.environment();
    let lookup = |name: &str| environment.get(name).cloned();
    let (hosts, limits) = recording_archiver::rules(&lookup).unwrap();
    let sources = Sources::and_loopback(hosts, limits, recording_archiver::system_lookup()).unwrap();
    let archiver = Archiver::new(storage(world), clients, sources, now());
    for job in world.items("recordings").await {
        let key: SessionKey = text(&job, "session").parse().unwrap();
        archiver.archive(&key, "worker", soon()).await.unwrap();
    }
}

/// All documents in the bucket, by their keys.
async fn documents(world: &World) -> BTreeMap<String, Value> {
    let (s3, bucket) = (&world.clients.s3, &world.stores().bucket);
    let mut listed = s3.list_objects_v2().bucket(bucket).prefix("calls/").into_paginator().send();
    let mut keys = Vec::new();
    while let Some(page) = listed.next().await {
        keys.extend(page.unwrap().contents().iter().map(|object| object.key().unwrap().to_owned()));
    }
    let mut documents = BTreeMap::new();
    for key in keys {
        let object = s3.get_object().bucket(bucket).key(&key).send().await.unwrap();
        let line = String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap();
        assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
        let document = serde_json::from_str(&line).unwrap();
        assert_described(&document);
        documents.insert(key, document);
    }
    documents
}

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/calls/call.v1.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// That a document is as its schema says, and has no member that it does not describe.
fn assert_described(document: &Value) {
    let schema = schema();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {document}");
    let described = |value: &Value, schema: &Value| {
        for name in value.as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(schema["properties"].get(name).is_some(), "{name} is not described");
        }
    };
    let members = &schema["properties"];
    described(document, &schema);
    described(&document["recording"], &members["recording"]);
    for list in ["turns", "insights"] {
        document[list].as_array().unwrap().iter().for_each(|item| described(item, &members[list]["items"]));
    }
}

/// The documents of these deliveries, by their keys: from what was sent, and nothing else.
fn expected(deliveries: &[Planned], recordings: &Recordings, bucket: &str) -> BTreeMap<String, Value> {
    let mut calls: BTreeMap<(&str, &str), Vec<(Webhook, Value)>> = BTreeMap::new();
    for planned in deliveries {
        let body = serde_json::from_slice(&planned.body).unwrap();
        let call = (planned.webhook.provider().name(), planned.session_id.as_str());
        calls.entry(call).or_default().push((planned.webhook, body));
    }
    let document = |((provider, id), sent): (&(&str, &str), &Vec<(Webhook, Value)>)| {
        let mut document = match *provider {
            "exotel" => of_exotel(sent),
            _ => of_vocobase(&sent[0].1, recordings, bucket),
        };
        let described = schema();
        for name in described["properties"].as_object().unwrap().keys() {
            let absent = if ["turns", "insights", "bots"].contains(&name.as_str()) { json!([]) } else { Value::Null };
            document.as_object_mut().unwrap().entry(name).or_insert(absent);
        }
        document["schema_version"] = json!(1);
        document["state"] = json!("ended");
        document["provider"] = json!(provider);
        document["session_id"] = json!(id);
        document["session"] = json!(format!("{provider}#{id}"));
        document["turn_count"] = json!(document["turns"].as_array().unwrap().len());
        let day = &document["started_at"].as_str().unwrap()[..10];
        (format!("calls/provider={provider}/dt={day}/{id}.json"), document)
    };
    calls.iter().map(document).collect()
}

fn of_exotel(sent: &[(Webhook, Value)]) -> Value {
    let body = &sent[0].1;
    let events: Vec<&Value> = sent.iter().flat_map(|(_, body)| body["events"].as_array().unwrap()).collect();
    let mut turns: BTreeMap<u64, Value> = BTreeMap::new();
    let mut insights: BTreeMap<&str, Value> = BTreeMap::new();
    for event in events {
        let data = &event["event_data"];
        if event["event_type"] == "transcript" {
            let turn = &data["transcripts"][0];
            let segment = &turn["transcript_segments"][0];
            if turn["status"] == "completed" {
                turns.insert(
                    turn["sequence"].as_u64().unwrap(),
                    json!({ "speaker": segment["speaker"], "text": segment["text"], "latency_ms": null,
                        "started_at": segment["start_timestamp"], "ended_at": segment["end_timestamp"] }),
                );
            }
        } else {
            let kind = event["event_type"].as_str().unwrap();
            let insight = json!({ "type": kind, "at": data["timestamp"], "data": data.to_string() });
            let known = insights.entry(kind).or_insert_with(|| insight.clone());
            if known["at"].as_str() < insight["at"].as_str() {
                *known = insight;
            }
        }
    }
    let turns: Vec<Value> = turns.into_values().enumerate().map(|(index, turn)| with(turn, "index", index)).collect();
    let end = sent.iter().find_map(|(_, body)| body["end_time"].as_str()).unwrap();
    let instant = |text: &Value| Instant::parse(text.as_str().unwrap()).unwrap();
    let millis = Instant::parse(end).unwrap().millis_since(instant(&body["start_time"]));
    #[allow(clippy::cast_precision_loss, reason = "a call's length")]
    let seconds = millis as f64 / 1000.0;
    let mut document = json!({
        "started_at": body["start_time"], "ended_at": end, "duration_seconds": seconds, "bots": [body["bot_id"]],
        "transfer_requested": sent.iter().any(|(webhook, _)| *webhook == Webhook::PreAgentTransfer),
        "first_turn_at": turns[0]["started_at"], "last_turn_at": turns.last().unwrap()["ended_at"],
        "turns": turns, "insights": insights.into_values().collect::<Vec<_>>(), "contact": body["contact_uri"],
        "metadata": body["metadata"].to_string(), "custom_parameters": body["custom_parameters"].to_string(),
    });
    for name in ["bot_name", "conversation_id", "external_id", "landing_number", "network_type", "account_id"] {
        document[name] = body[name].clone();
    }
    document
}

fn of_vocobase(body: &Value, recordings: &Recordings, bucket: &str) -> Value {
    let (session, call) = (&body["data"], &body["data"]["call"]);
    let turns = session["transcript"].as_array().unwrap().iter().enumerate().map(|(index, line)| {
        json!({ "index": index, "speaker": line["role"], "text": line["content"], "started_at": line["timestamp"],
            "ended_at": null, "latency_ms": line["latency_ms"].as_f64() })
    });
    let turns: Vec<Value> = turns.collect();
    let began = Instant::parse(turns[0]["started_at"].as_str().unwrap()).unwrap();
    let seconds = session["duration_seconds"].as_f64();
    let id = session["session_id"].as_str().unwrap();
    let recording = session["recording_url"].as_str().map(|url| {
        let day = began.day().replace('-', "/");
        if !url.contains("127.0.0.1") {
            return json!({ "state": "rejected", "uri": null, "bytes": null, "sha256": null, "content_type": null });
        }
        let (bytes, sha256) = recordings.expected(id);
        json!({ "state": "archived", "bytes": bytes, "sha256": sha256, "content_type": "audio/wav",
            "uri": format!("s3://{bucket}/recordings/vocobase/{day}/{id}.wav") })
    });
    json!({
        "started_at": began, "ended_at": began.plus_seconds(session["duration_seconds"].as_i64().unwrap()),
        "duration_seconds": seconds, "bots": [session["agent_id"]], "bot_name": session["agent_name"],
        "call_id": call["call_id"], "contact": call["to_number"], "landing_number": call["from_number"],
        "direction": call["direction"], "transfer_requested": false, "call_status": call["status"],
        "credits_used": session["credits_used"], "latency_min_ms": 300.0, "latency_avg_ms": 680.0,
        "latency_max_ms": 1500.0, "first_turn_at": began, "last_turn_at": turns.last().unwrap()["started_at"],
        "turns": turns, "recording": recording,
    })
}

fn with(mut object: Value, name: &str, value: impl Into<Value>) -> Value {
    object[name] = value.into();
    object
}

/// Deliveries of calls, in the order in which they happen; a third of them without a recording, one in eight refused.
fn planned(seed: u64, calls: u32, recordings: &Recordings) -> Vec<Planned> {
    let hour = |hours: i64| Instant::now().plus_seconds(hours * 60 * 60);
    let url = |session_id: &str| match session_id.bytes().map(usize::from).sum::<usize>() % 8 {
        0 | 1 => None,
        2 => Some(format!("https://elsewhere.example/{session_id}.wav?Expires=4000000000")),
        _ => Some(recordings.url(session_id, hour(1))),
    };
    plan(seed, calls, hour(-2), &url).concat()
}

/// That the bucket holds the documents that were expected, and no others. When a recording was archived is not known
/// before.
fn assert_documents(found: BTreeMap<String, Value>, expected: &BTreeMap<String, Value>, seed: u64) {
    let keys = |documents: &BTreeMap<String, Value>| documents.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(keys(&found), keys(expected), "HOOKSWITCH_SEED={seed}");
    for (key, mut document) in found {
        if let Some(recording) = document["recording"].as_object_mut() {
            let at = recording.remove("archived_at").unwrap();
            assert_eq!(at.is_null(), recording["state"] != "archived", "{key}");
        }
        assert_eq!(document, expected[&key], "{key} HOOKSWITCH_SEED={seed}");
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge: how much to test is said by who runs the tests")]
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Reads and writes of documents, and reads of tables, that are slow or fail.
fn mishap(seed: u64, request: &Request) -> Option<Mishap> {
    let chance = request.chance(seed);
    let document = request.table.is_empty() && request.key.starts_with("calls/");
    match chance % 12 {
        0 | 1 if document => Some(Mishap::Slow(Duration::from_millis(chance / 12 % 400))),
        2 if document => Some(Mishap::Reset(When::After)),
        3 if document => Some(Mishap::Failed),
        4 if !document => Some(Mishap::Slow(Duration::from_millis(chance / 12 % 60))),
        5 if !document && (chance / 12).is_multiple_of(4) => Some(Mishap::Failed),
        _ => None,
    }
}

/// Brings everything that the streams tell, from where it was left off, until nothing fails.
async fn follow(world: &World, exporter: &Exporter, done: &mut [usize; 2]) {
    for (table, from) in TABLES.iter().zip(done) {
        let records = records(world, table).await;
        let mut rounds = 0;
        while *from < records.len() {
            rounds += 1;
            assert!(rounds < 500, "it never ends");
            let to = records.len().min(*from + 25);
            let report = invoke(exporter, &records[*from..to]).await;
            let failed = |record: &Value| {
                let number = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
                report.batch_item_failures.iter().any(|failure| failure.item_identifier == number)
            };
            *from += records[*from..to].iter().position(failed).unwrap_or(to - *from);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_finished_call_has_one_document_that_says_what_was_sent_whatever_goes_wrong() {
    let (seed, cases) = (from_environment("HOOKSWITCH_SEED", 1), from_environment("HOOKSWITCH_CASES", 24));
    let mut rng = SmallRng::seed_from_u64(seed);
    let world = World::embedded(&[], now()).await;
    let recordings = Recordings::serve(20_000, 0.0).await.unwrap();
    let sent = planned(seed, u32::try_from(cases).unwrap(), &recordings);
    let mut deliveries: Vec<&Planned> = sent.iter().collect();
    deliveries.extend(sent.iter().filter(|_| rng.random_bool(0.3)));
    deliveries.shuffle(&mut rng);

    // Two exporters, both brought everything, while deliveries come.
    let layers = [1, 2].map(|nth| Layer::new(move |request| mishap(seed.wrapping_add(nth), request)));
    let exporters =
        [0, 1].map(|nth| exporter(&world, layers[nth].in_clients(&world.clients, &format!("exporter {nth}"))));
    let mut done = [[0; 2]; 2];
    for some in deliveries.chunks(deliveries.len().div_ceil(6)) {
        let delivered = stream::iter(some).for_each_concurrent(4, async |planned| {
            assert_eq!(world.deliver(planned.webhook, planned.body.clone()).await.status, 200);
        });
        let [one, two] = &mut done;
        let followed =
            futures_util::future::join(follow(&world, &exporters[0], one), follow(&world, &exporters[1], two));
        futures_util::future::join(delivered, followed).await;
    }
    let [one, two] = &mut done;
    archive(&world, world.clients.clone()).await;
    futures_util::future::join(follow(&world, &exporters[0], one), follow(&world, &exporters[1], two)).await;

    let expected = expected(&sent, &recordings, &world.stores().bucket);
    assert_eq!(expected.len(), usize::try_from(cases).unwrap());
    assert_documents(documents(&world).await, &expected, seed);
    let entries = layers.iter().flat_map(Layer::log).filter(|entry| entry.request.key.starts_with("calls/"));
    let (mut mishaps, mut refused) = (0, 0);
    for entry in entries {
        mishaps += usize::from(entry.mishap.is_some());
        refused += usize::from(entry.request.operation == "PUT" && entry.mishap.is_none() && !entry.applied);
    }
    assert!(mishaps > 10, "{mishaps} mishaps");
    println!("{cases} calls, {} deliveries, {mishaps} mishaps, {refused} puts refused", deliveries.len());
}

async fn deliver(world: &World, webhook: Webhook, body: &Value) {
    assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200);
}

fn said(sequence: u32, words: &str) -> Value {
    let at = format!("2026-03-15T14:30:{sequence:02}Z");
    let segment = json!({ "speaker": "user", "text": words, "start_timestamp": at, "end_timestamp": at });
    let turn = json!({ "sequence": sequence, "status": "completed", "transcript_segments": [segment] });
    json!([{ "event_type": "transcript", "event_data": { "transcripts": [turn] } }])
}

/// A finished Exotel call of one turn.
async fn call(world: &World, session_id: &str, more: &Value) {
    for (webhook, end, events) in [
        (Webhook::SessionStart, None, json!([])),
        (Webhook::TranscriptEvents, None, said(1, "Hello")),
        (Webhook::SessionEnd, Some("2026-03-15T14:31:00Z"), json!([])),
    ] {
        let mut body = json!({ "session_id": session_id, "start_time": "2026-03-15T14:30:00Z", "end_time": end,
            "contact_uri": "+919876543210", "events": events });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        deliver(world, webhook, &body).await;
    }
}

const S1: &str = "calls/provider=exotel/dt=2026-03-15/s1.json";

fn words(document: &Value) -> Vec<&str> {
    document["turns"].as_array().unwrap().iter().map(|turn| turn["text"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_late_changes_the_document_and_what_says_nothing_new_writes_none() {
    let world = World::embedded(&[], now()).await;
    let start = json!({ "session_id": "s1", "start_time": "2026-03-15T14:30:00Z" });
    deliver(&world, Webhook::SessionStart, &start).await;
    exported(&world).await;
    assert!(documents(&world).await.is_empty(), "the call goes on");
    call(&world, "s1", &json!({})).await;
    exported(&world).await;
    assert_eq!(words(&documents(&world).await[S1]), ["Hello"]);

    // A turn does not touch the call's item.
    deliver(&world, Webhook::TranscriptEvents, &json!({ "session_id": "s1", "events": said(2, "Late") })).await;
    exported(&world).await;
    assert_eq!(words(&documents(&world).await[S1]), ["Hello", "Late"]);
    let mood =
        json!([{ "event_type": "sentiment", "event_data": { "value": "calm", "timestamp": "2026-03-15T14:30:20Z" } }]);
    deliver(&world, Webhook::InsightsEvents, &json!({ "session_id": "s1", "events": mood })).await;
    exported(&world).await;
    let document = documents(&world).await.remove(S1).unwrap();
    assert_eq!(document["insights"][0]["type"], "sentiment");

    let layer = Layer::new(|_| None);
    let exporter = exporter(&world, layer.in_clients(&world.clients, "exporter"));
    for table in TABLES {
        invoke(&exporter, &records(&world, table).await).await;
    }
    assert!(layer.log().iter().all(|entry| entry.request.operation != "PUT"), "{:?}", layer.log());
    assert_eq!(exporter.export(&"exotel#s1".parse().unwrap(), BTreeSet::new()).await.unwrap(), Outcome::Unchanged);
    assert_eq!(exporter.export(&"exotel#s2".parse().unwrap(), BTreeSet::new()).await.unwrap(), Outcome::None);
}

/// An exporter whose first write of a document is late, and what happens meanwhile. By the time the write comes, others
/// are done.
async fn overtaken(world: &World, meanwhile: impl AsyncFnOnce()) -> Outcome {
    let layer = Layer::new(|request| {
        let is_first = request.operation == "PUT" && request.key.starts_with("calls/") && request.nth == 0;
        is_first.then_some(Mishap::Slow(Duration::from_millis(1500)))
    });
    let late = exporter(world, layer.in_clients(&world.clients, "late"));
    let key: SessionKey = "exotel#s1".parse().unwrap();
    let (outcome, ()) = futures_util::future::join(late.export(&key, BTreeSet::new()), async {
        // It has read the call, its turns and its recording, and looks at nothing else before it writes.
        while layer.log().iter().filter(|entry| entry.request.operation != "PUT").count() < 5 {
            time::sleep(Duration::from_millis(5)).await;
        }
        meanwhile().await;
    })
    .await;
    outcome.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_exporters_at_once_the_one_that_read_earlier_does_not_win() {
    let world = World::embedded(&[], now()).await;
    call(&world, "s1", &json!({})).await;
    // First where there is no document yet, then where there is one.
    for (sequence, late) in [(5, "Late"), (9, "Later")] {
        overtaken(&world, async || {
            deliver(&world, Webhook::TranscriptEvents, &json!({ "session_id": "s1", "events": said(sequence, late) }))
                .await;
            exported(&world).await;
        })
        .await;
        assert_eq!(words(&documents(&world).await[S1]).last(), Some(&late));
        deliver(
            &world,
            Webhook::TranscriptEvents,
            &json!({ "session_id": "s1", "events": said(sequence - 2, "More") }),
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_began_a_day_earlier_than_was_known_has_its_document_there_alone() {
    let world = World::embedded(&[], now()).await;
    let earlier = json!({ "session_id": "s1", "start_time": "2026-03-14T23:59:59Z" });
    let there = "calls/provider=exotel/dt=2026-03-14/s1.json";
    call(&world, "s1", &json!({})).await;
    exported(&world).await;
    deliver(&world, Webhook::SessionStart, &earlier).await;
    exported(&world).await;
    assert_eq!(documents(&world).await.into_keys().collect::<Vec<_>>(), [there]);

    // And where an exporter still thinks of the day before.
    let world = World::embedded(&[], now()).await;
    call(&world, "s1", &json!({})).await;
    let outcome = overtaken(&world, async || {
        deliver(&world, Webhook::SessionStart, &earlier).await;
        exported(&world).await;
        assert!(documents(&world).await.contains_key(there));
    });
    assert_eq!(outcome.await, Outcome::Unchanged);
    assert_eq!(documents(&world).await.into_keys().collect::<Vec<_>>(), [there]);
}

async fn erase(world: &World, session: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["sessions"]);
    let put = put.item("session", text(session)).item("state", text("erased"));
    put.item("merged", text("0123456789abcdef")).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_call_a_test_and_a_trial_have_no_document() {
    let world = World::embedded(&[], now()).await;
    for (session_id, more) in [
        ("kept", json!({})),
        ("gone", json!({})),
        ("never", json!({})),
        ("pressed", json!({ "external_id": "CAxxxxxxxxxxxxxxxx" })),
        ("doctor-0123456789ab", json!({})),
    ] {
        call(&world, session_id, &more).await;
    }
    erase(&world, "exotel#never").await;
    exported(&world).await;
    let of = |ids: &[&str]| -> Vec<String> {
        ids.iter().map(|id| format!("calls/provider=exotel/dt=2026-03-15/{id}.json")).collect()
    };
    assert_eq!(documents(&world).await.into_keys().collect::<Vec<_>>(), of(&["gone", "kept"]));
    erase(&world, "exotel#gone").await;
    // That a call is a test may come to light late.
    deliver(&world, Webhook::SessionEnd, &json!({ "session_id": "kept", "external_id": "CAxxxxxxxxxxxxxxxx" })).await;
    exported(&world).await;
    assert_eq!(documents(&world).await.into_keys().collect::<Vec<_>>(), of(&[]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_session_is_called_it_has_a_document_that_athena_looks_at() {
    let world = World::embedded(&[], now()).await;
    let ids = ["_s1".to_owned(), "..".to_owned(), "a/b c#ü%2F".to_owned(), "x".repeat(100), "y".repeat(1000)];
    for id in &ids {
        call(&world, id, &json!({})).await;
    }
    exported(&world).await;
    let documents = documents(&world).await;
    let found: BTreeSet<&str> = documents.values().map(|document| document["session_id"].as_str().unwrap()).collect();
    assert_eq!(found, ids.iter().map(String::as_str).collect());
    for key in documents.keys() {
        let names: Vec<&str> = key.split('/').collect();
        assert!(names.len() == 4 && !names[3].starts_with(['.', '_']), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_written_while_its_call_is_erased_does_not_stay() {
    let world = World::embedded(&[], now()).await;
    call(&world, "s1", &json!({})).await;
    let outcome = overtaken(&world, async || {
        erase(&world, "exotel#s1").await;
        exported(&world).await;
    });
    assert_eq!(outcome.await, Outcome::Removed);
    assert!(documents(&world).await.is_empty());
    // Nor one of a run that died before it could look again: its records are brought again.
    let put = world.clients.s3.put_object().bucket(&world.stores().bucket).key(S1);
    put.body(b"{}".to_vec().into()).send().await.unwrap();
    let records = records(&world, "sessions").await;
    let state = |record: &&Value| record["dynamodb"]["NewImage"]["state"]["S"] == "ended";
    let first: Vec<Value> = records.iter().find(state).cloned().into_iter().collect();
    invoke(&exporter(&world, world.clients.clone()), &first).await;
    assert!(documents(&world).await.is_empty());
    call(&world, "s1", &json!({})).await;
    exported(&world).await;
    assert!(documents(&world).await.is_empty(), "nothing brings it back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_told_in_full_though_the_call_hears_of_it_before_its_job_is_done() {
    let world = World::embedded(&[], now()).await;
    let recordings = Recordings::serve(20_000, 0.0).await.unwrap();
    let url = recordings.url("v1", Instant::now().plus_seconds(3600));
    let body = json!({ "event": "session.completed", "timestamp": "2026-03-15T14:32:00Z",
        "data": { "session_id": "v1", "recording_url": url } });
    deliver(&world, Webhook::SessionCompleted, &body).await;
    exported(&world).await;
    let key = "calls/provider=vocobase/dt=2026-03-15/v1.json";
    let absent = json!({ "state": "pending", "uri": null, "bytes": null, "sha256": null, "content_type": null,
        "archived_at": null });
    assert_eq!(documents(&world).await[key]["recording"], absent);

    // The end of the job is slow.
    let layer = Layer::new(|request| {
        let is_end = request.table.ends_with("-recordings") && request.operation == "UpdateItem" && request.nth >= 1;
        is_end.then_some(Mishap::Slow(Duration::from_millis(1200)))
    });
    let copied = archive(&world, layer.in_clients(&world.clients, "archiver"));
    let exported = async {
        loop {
            let stored = world.items_of("sessions", "vocobase#v1").await;
            if text(&stored[0], "recording_state") == "archived" {
                break exported(&world).await;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
    };
    futures_util::future::join(copied, exported).await;
    let document = documents(&world).await.remove(key).unwrap();
    let (bytes, sha256) = recordings.expected("v1");
    assert_eq!((&document["recording"]["bytes"], &document["recording"]["sha256"]), (&json!(bytes), &json!(sha256)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_brought_again_and_the_others_are_done() {
    let world = World::embedded(&[], now()).await;
    call(&world, "s1", &json!({})).await;
    call(&world, "s2", &json!({})).await;
    let layer = Layer::new(|request| {
        (request.operation == "PUT" && request.key.ends_with("s2.json")).then_some(Mishap::Failed)
    });
    let exporter = exporter(&world, layer.in_clients(&world.clients, "exporter"));
    let records = records(&world, "sessions").await;
    let report = invoke(&exporter, &records).await;
    let of_s2 = records.iter().filter(|record| record["dynamodb"]["Keys"]["session"]["S"] == "exotel#s2");
    let numbers: BTreeSet<&str> = of_s2.map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap()).collect();
    let failed = report.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str());
    assert_eq!(failed.collect::<BTreeSet<_>>(), numbers);
    assert_eq!(documents(&world).await.into_keys().collect::<Vec<_>>(), [S1]);
    exported(&world).await;
    assert_eq!(documents(&world).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_bucket_lets_one_of_many_conditional_writes_through() {
    let world = World::embedded(&[], now()).await;
    let put = |nth: usize| {
        let put = world.clients.s3.put_object().bucket(&world.stores().bucket).key("calls/one.json");
        put.body(format!("{nth}").into_bytes().into())
    };
    let done = stream::iter(0..40).map(async |nth| put(nth).if_none_match("*").send().await.ok());
    let done: Vec<_> = done.buffer_unordered(40).filter_map(async |done| done).collect().await;
    assert_eq!(done.len(), 1);
    let mut etag = done[0].e_tag().unwrap().to_owned();
    for round in 1..6 {
        let done = stream::iter(0..40).map(async |nth| put(round * 100 + nth).if_match(&etag).send().await.ok());
        let done: Vec<_> = done.buffer_unordered(40).filter_map(async |done| done).collect().await;
        assert_eq!(done.len(), 1, "in round {round}");
        etag = done[0].e_tag().unwrap().to_owned();
    }
    assert!(put(0).if_match("\"0123\"").send().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_exporter_holds_nothing_of_what_was_said() {
    let world = World::embedded(&[], now()).await;
    call(&world, "s1", &json!({ "custom_parameters": { "note": "marker" }, "bot_name": "marker" })).await;
    let log = Log::of(&["call_exporter", "shared"]);
    for mishap in [None, Some(Mishap::Failed)] {
        let layer = Layer::new(move |request| mishap.filter(|_| request.operation == "Query"));
        let exporter = exporter(&world, layer.in_clients(&world.clients, "exporter"));
        let records = records(&world, "sessions").await;
        async { invoke(&exporter, &records).await }.with_subscriber(log.dispatch.clone()).await;
    }
    let heard = log.heard();
    for said in ["written", "failed", "a call cannot be exported", "exotel#s1"] {
        assert!(heard.contains(said), "{said} is not in {heard}");
    }
    for secret in ["9876543210", "marker", "Hello"] {
        assert!(!heard.contains(secret), "{secret} is in {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_run_exports_by_itself() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let http = tests::http_client();
    let found = http.get(format!("{}/endpoints", process.base)).send().await.unwrap().bytes().await.unwrap();
    let endpoints: cli::endpoints::Endpoints = serde_json::from_slice(&found).unwrap();
    let stores = endpoints.stores.as_ref().unwrap();
    let s3 = stores.connect().unwrap().s3;
    let post = async |webhook: Webhook, body: Value| {
        let request = http.post(&endpoints.functions[webhook.name()]).body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let exported = async |words: &str| {
        let begun = time::Instant::now();
        while begun.elapsed() < Duration::from_mins(1) {
            if let Ok(object) = s3.get_object().bucket(&stores.bucket).key(S1).send().await
                && String::from_utf8(object.body.collect().await.unwrap().to_vec()).unwrap().contains(words)
            {
                return;
            }
            time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no document says {words}");
    };
    let ended = json!({ "session_id": "s1", "start_time": "2026-03-15T14:30:00Z", "events": said(1, "Hello") });
    post(Webhook::SessionEnd, ended).await;
    exported("Hello").await;
    post(Webhook::TranscriptEvents, json!({ "session_id": "s1", "events": said(2, "Late") })).await;
    exported("Late").await;
}

/// Runs `hookswitch export` on a world: whether it succeeded, its output, and what it said besides.
async fn export(world: &World, arguments: &[&str]) -> (bool, String, String) {
    let port = world.run.base.rsplit_once(':').unwrap().1;
    let mut command = tokio::process::Command::new(tests::hookswitch());
    let output =
        command.arg("export").args(arguments).args(["--port", port]).stdin(Stdio::null()).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

/// The lines of every file of a folder, by the file's place below it.
fn files(folder: &Path) -> BTreeMap<String, Vec<Value>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
                continue;
            }
            let text = std::fs::read_to_string(&entry).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            found.insert(entry.strip_prefix(folder).unwrap().display().to_string(), lines);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_writes_the_same_documents_by_platform_and_day() {
    let world = World::embedded(&[], now()).await;
    for (session_id, began) in [("s1", "2026-03-15T14:30:00Z"), ("s2", "2026-03-15T23:59:59.9Z"), ("s3", "2026-03-17")]
    {
        let body = json!({ "session_id": session_id, "start_time": began, "contact_uri": "+919876543210" });
        deliver(&world, Webhook::SessionEnd, &body).await;
    }
    let vocobase = json!({ "event": "session.completed", "timestamp": "2026-03-15T14:32:00Z",
        "data": { "session_id": "v1", "transcript": [{ "role": "user", "content": "Hello" }] } });
    deliver(&world, Webhook::SessionCompleted, &vocobase).await;
    let goes_on = json!({ "session_id": "s4", "start_time": "2026-03-15T14:30:00Z" });
    deliver(&world, Webhook::SessionStart, &goes_on).await;
    exported(&world).await;
    let documents = documents(&world).await;

    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let period =
        ["--since", "2026-03-15T12:00:00Z", "--until", "2026-03-17T00:00:00Z", "--format", "ndjson", "--out", out];
    let (done, said, wrong) = export(&world, &period).await;
    assert!(done && said.ends_with("3 calls in 2 files\n"), "{said}{wrong}");
    let named = |ids: &[&str], provider: &str| -> Vec<Value> {
        ids.iter().map(|id| documents[&format!("calls/provider={provider}/dt=2026-03-15/{id}.json")].clone()).collect()
    };
    let (exotel, vocobase) =
        ("provider=exotel/dt=2026-03-15/calls.ndjson", "provider=vocobase/dt=2026-03-15/calls.ndjson");
    let expected = [(exotel, named(&["s1", "s2"], "exotel")), (vocobase, named(&["v1"], "vocobase"))];
    assert_eq!(files(folder.path()), expected.map(|(path, lines)| (path.to_owned(), lines)).into());
    for private in ["9876543210", "Hello"] {
        assert!(!format!("{said}{wrong}").contains(private), "{private}");
    }

    // A call that is erased since is in no file of the next export, and a file without calls is removed.
    erase(&world, "exotel#s1").await;
    erase(&world, "vocobase#v1").await;
    let (_, said, _) = export(&world, &[&period[..], &["--json"]].concat()).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["calls"], &said["since"]), (&json!(1), &json!("2026-03-15T00:00:00.000000Z")));
    assert_eq!(said["files"][0]["path"], format!("{out}/{exotel}"));
    assert_eq!(files(folder.path()), [(exotel.to_owned(), named(&["s2"], "exotel"))].into());

    // Another platform's files are let be.
    let (done, said, _) = export(&world, &[&period[..], &["--provider", "vocobase"]].concat()).await;
    assert!(done && said == "0 calls in 0 files\n", "{said}");
    assert_eq!(files(folder.path()).len(), 1);
    std::fs::write(folder.path().join("file"), "").unwrap();
    let nowhere = format!("{out}/file");
    let (done, _, wrong) = export(&world, &[&period[..6], &["--out", &nowhere]].concat()).await;
    assert!(!done && wrong.contains("cannot be written"), "{wrong}");
}

/// Run by `.ci/analysis.py`, which asks the questions of `infra/template.yaml` over what this leaves in a folder.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes simulated calls, their documents and their files, for .ci/analysis.py to read"]
async fn writes_what_is_analysed() {
    let folder = std::env::temp_dir().join("hookswitch-analysis");
    let _ = std::fs::remove_dir_all(&folder);
    let world = World::embedded(&[], now()).await;
    let recordings = Recordings::serve(20_000, 0.0).await.unwrap();
    let sent = planned(1, 120, &recordings);
    let mut deliveries: Vec<&Planned> = sent.iter().collect();
    deliveries.shuffle(&mut SmallRng::seed_from_u64(1));
    stream::iter(deliveries)
        .for_each_concurrent(4, async |planned| {
            assert_eq!(world.deliver(planned.webhook, planned.body.clone()).await.status, 200);
        })
        .await;
    archive(&world, world.clients.clone()).await;
    exported(&world).await;
    let write = |path: PathBuf, text: String| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (key, document) in documents(&world).await {
        write(folder.join("documents").join(key), format!("{document}\n"));
    }
    let planned = sent.iter().map(|planned| {
        let body: Value = serde_json::from_slice(&planned.body).unwrap();
        format!("{}\n", json!({ "webhook": planned.webhook.name(), "body": body }))
    });
    write(folder.join("planned.ndjson"), planned.collect());
    for format in ["ndjson", "parquet"] {
        let out = folder.join(format);
        let (done, said, wrong) =
            export(&world, &["--since", "1d", "--format", format, "--out", out.to_str().unwrap()]).await;
        assert!(done, "{said}{wrong}");
    }
}

#[test]
fn the_documentation_shows_a_document_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/calls/README.md");
    let page = std::fs::read_to_string(path).unwrap();
    let shown = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let document: Value = serde_json::from_str(shown).unwrap();
    assert_described(&document);
    assert_eq!(document["turn_count"], document["turns"].as_array().unwrap().len());
    assert_eq!(schema()["$id"], format!("urn:hookswitch:call:{}", shared::document::SCHEMA_VERSION));
    assert!(page.contains("schema_version` is 1"));
}
