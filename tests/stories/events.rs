//! Changes of calls as events on a bus: each at least once, with an id that says what happened, and nothing of what must
//! not be told.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::Range;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use cli::simulate::calls::{Planned, plan};
use cli::simulate::recordings::Recordings;
use event_publisher::event::MAX_BYTES;
use event_publisher::{Publisher, handle};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use recording_archiver::Archiver;
use recording_archiver::source::Sources;
use serde_json::{Value, json};
use shared::config::Storage;
use shared::storage::{Invocation, Report};
use shared::{Clock, Instant, SessionKey, Webhook};
use tests::bus::{FaultyBus, Mishap, publisher};
use tests::log::Log;
use tests::streams::records;
use tests::{LocalProcess, World, now, sha256, text};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time;
use tracing::instrument::WithSubscriber;

/// The tables whose streams are published.
const TABLES: [&str; 3] = ["events", "sessions", "recordings"];

/// The id of an event, as `docs/events/` says that it is made.
fn id(parts: &[&str]) -> String {
    sha256(json!(parts).to_string().as_bytes())[..32].to_owned()
}

fn soon() -> time::Instant {
    time::Instant::now() + Duration::from_mins(1)
}

async fn invoke(publisher: &Publisher, records: &[Value]) -> Report {
    let invocation: Invocation = serde_json::from_value(json!({ "Records": records })).unwrap();
    handle(publisher, invocation, soon()).await
}

/// All that the bus has taken so far.
fn taken(heard: &mut UnboundedReceiver<String>) -> Vec<Value> {
    std::iter::from_fn(|| heard.try_recv().ok()).map(|event| serde_json::from_str(&event).unwrap()).collect()
}

fn ids(events: &[Value]) -> BTreeSet<String> {
    events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

/// Publishes what all streams have told, and nothing goes wrong; the events.
async fn published(world: &World, heard: &mut UnboundedReceiver<String>) -> Vec<Value> {
    let publisher = publisher(world, &world.stores().eventbridge, now());
    for table in TABLES {
        assert_eq!(invoke(&publisher, &records(world, table).await).await, Report::default(), "{table}");
    }
    let events = taken(heard);
    for event in &events {
        assert_described(event);
    }
    events
}

/// What a story says besides, of a type.
fn of_type<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn archiver(world: &World, clock: Clock) -> Archiver {
    let environment = world.environment();
    let lookup = |name: &str| environment.get(name).cloned();
    let (hosts, limits) = recording_archiver::rules(&lookup).unwrap();
    let sources = Sources::and_loopback(hosts, limits, recording_archiver::system_lookup()).unwrap();
    Archiver::new(Storage::read(&lookup).unwrap(), world.clients.clone(), sources, clock)
}

/// A schema of `docs/events/`.
fn schema(name: &str) -> Value {
    let path = format!("{}/../docs/events/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))).unwrap()
}

/// That an event is as its schemas say, and has no member that they do not describe.
fn assert_described(event: &Value) {
    static SCHEMAS: Mutex<BTreeMap<String, (Value, jsonschema::Validator)>> = Mutex::new(BTreeMap::new());
    let kind = event["type"].as_str().unwrap();
    let mut schemas = SCHEMAS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (name, part) in [("event", event), (kind, &event["data"])] {
        let (schema, validator) = schemas.entry(name.to_owned()).or_insert_with(|| {
            let schema = schema(name);
            let options = jsonschema::options().should_validate_formats(true);
            let validator = options.build(&schema).expect("a schema");
            (schema, validator)
        });
        let errors: Vec<String> = validator.iter_errors(part).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?} in {event}");
        let described = |value: &Value, schema: &Value| {
            let undescribed = |name: &&String| schema["properties"].get(name.as_str()).is_none();
            let undescribed: Vec<&String> = value.as_object().unwrap().keys().filter(undescribed).collect();
            assert!(undescribed.is_empty(), "{name} does not describe {undescribed:?} of {event}");
        };
        described(part, schema);
        if name == kind {
            assert_eq!(event["dataschema"], schema["$id"]);
            described(&part["call"], &schema["$defs"]["call"]);
            if part.get("recording").is_some() {
                described(&part["recording"], &schema["properties"]["recording"]);
            }
        }
    }
    assert_eq!(event["subject"], event["data"]["session"]);
}

/// What becomes of a call's recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Archived,
    Expired,
    Rejected,
    None,
}

fn fate(session_id: &str) -> Fate {
    let fates = [Fate::Archived, Fate::Archived, Fate::Expired, Fate::Rejected, Fate::None];
    fates[session_id.bytes().map(usize::from).sum::<usize>() % fates.len()]
}

/// Calls of a simulation, and where their recordings are.
struct Calls {
    deliveries: Vec<Planned>,
    recordings: Recordings,
}

impl Calls {
    async fn of(seed: u64, calls: u32) -> Self {
        let recordings = Recordings::serve(20_000, 0.0).await.unwrap();
        let hour = |hours: i64| Instant::now().plus_seconds(hours * 60 * 60);
        let url = |session_id: &str| match fate(session_id) {
            Fate::Archived => Some(recordings.url(session_id, hour(1))),
            Fate::Expired => Some(recordings.url(session_id, hour(-1))),
            Fate::Rejected => Some(format!("https://elsewhere.example/{session_id}.wav?Expires=4000000000")),
            Fate::None => None,
        };
        let deliveries = plan(seed, calls, hour(-2), &url).concat();
        Self { deliveries, recordings }
    }

    /// The ids of every event that these calls must come to: from what was sent, and nothing else.
    fn expected(&self) -> BTreeSet<String> {
        let mut expected = BTreeSet::new();
        let mut expect = |parts: &[&str]| _ = expected.insert(id(parts));
        for planned in &self.deliveries {
            let body: Value = serde_json::from_slice(&planned.body).unwrap();
            let session = format!("{}#{}", planned.webhook.provider().name(), planned.session_id);
            for event in
                body["events"].as_array().into_iter().flatten().filter(|event| event["event_type"] != "transcript")
            {
                let digest = sha256(event["event_data"].to_string().as_bytes());
                expect(&["call.insight", &session, event["event_type"].as_str().unwrap(), &digest]);
            }
            match planned.webhook {
                Webhook::SessionStart => expect(&["call.started", &session]),
                Webhook::PreAgentTransfer => {
                    let began = body["start_time"].as_str().unwrap();
                    let key = format!("pre_agent_transfer#{began}#{}", &sha256(&planned.body)[..16]);
                    expect(&["call.transfer_requested", &session, &key]);
                }
                Webhook::SessionEnd | Webhook::SessionCompleted => {
                    expect(&["call.ended", &session]);
                    expect(&["call.completed", &session]);
                }
                Webhook::InsightsEvents | Webhook::TranscriptEvents => {}
            }
            if let Some(url) = body.pointer("/data/recording_url").and_then(Value::as_str) {
                let place = &sha256(url.split('?').next().unwrap().as_bytes())[..16];
                match fate(&planned.session_id) {
                    Fate::Archived => {
                        let (_, digest) = self.recordings.expected(&planned.session_id);
                        expect(&["recording.archived", &session, &digest]);
                    }
                    Fate::Expired => expect(&["recording.failed", &session, "expired", place]),
                    Fate::Rejected => expect(&["recording.failed", &session, "rejected", place]),
                    Fate::None => {}
                }
            }
        }
        expected
    }

    /// Shuffled, some twice, several at a time; then every recording is fetched as far as it can be.
    async fn deliver(&self, world: &World, rng: &mut SmallRng) {
        let mut deliveries: Vec<&Planned> = self.deliveries.iter().collect();
        let again: Vec<&Planned> = self.deliveries.iter().filter(|_| rng.random_bool(0.3)).collect();
        deliveries.extend(again);
        deliveries.shuffle(rng);
        stream::iter(deliveries)
            .for_each_concurrent(4, async |planned| {
                assert_eq!(world.deliver(planned.webhook, planned.body.clone()).await.status, 200);
            })
            .await;
        fetch(world).await;
    }
}

/// Works on every recording that is wanted.
async fn fetch(world: &World) {
    let archiver = archiver(world, now());
    for job in world.items("recordings").await {
        let key: SessionKey = text(&job, "session").parse().unwrap();
        archiver.archive(&key, "worker", soon()).await.unwrap();
    }
}

/// Requests of which the bus takes nothing.
const OUTAGE: Range<usize> = 6..36;

/// A number that belongs to the n-th request of that seed.
fn chance(seed: u64, nth: usize) -> u64 {
    u64::from_str_radix(&sha256(format!("{seed} {nth}").as_bytes())[..15], 16).unwrap()
}

fn mishap(seed: u64, nth: usize, entries: &[Value]) -> Option<Mishap> {
    let chance = chance(seed, nth);
    // For so long that whole invocations fail.
    if OUTAGE.contains(&nth) {
        return Some(Mishap::Partial((0..entries.len()).collect(), "InternalFailure"));
    }
    match chance % 10 {
        0 => Some(Mishap::Failed(500, "InternalException")),
        1 => Some(Mishap::Failed(400, "ThrottlingException")),
        2 => Some(Mishap::Lost),
        3 | 4 => {
            let which = (0..entries.len()).filter(|index| (chance >> (8 + index)) & 1 == 1).collect();
            Some(Mishap::Partial(which, if chance & 64 == 0 { "InternalFailure" } else { "ThrottlingException" }))
        }
        5 => Some(Mishap::Partial((0..entries.len()).collect(), "ThrottlingException")),
        _ => None,
    }
}

/// Brings a stream's records as Lambda does: in batches, some of them again, and from the first that failed on.
async fn bring(publisher: &Publisher, records: &[Value], mut rng: SmallRng) {
    let mut from = 0;
    let mut invocations = 0;
    while from < records.len() {
        invocations += 1;
        assert!(invocations < 100 + records.len() * 10, "it never ends");
        let to = records.len().min(from + rng.random_range(1..60));
        let report = invoke(publisher, &records[from..to]).await;
        let failed = |record: &Value| {
            let number = record["dynamodb"]["SequenceNumber"].as_str().unwrap();
            report.batch_item_failures.iter().any(|failure| failure.item_identifier == number)
        };
        let first_failed = records[from..to].iter().position(failed);
        from = first_failed.map_or(to, |index| from + index);
        if rng.random_bool(0.2) {
            from = from.saturating_sub(rng.random_range(0..30));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the edge: how much to test is said by who runs the tests")]
fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

async fn undelivered(world: &World) -> Vec<String> {
    let list = world.clients.s3.list_objects_v2().bucket(&world.stores().bucket).prefix("undelivered/");
    let list = list.send().await.unwrap();
    list.contents().iter().map(|object| object.key().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_call_gives_exactly_its_events_whatever_goes_wrong() {
    let (seed, cases) = (from_environment("HOOKSWITCH_SEED", 1), from_environment("HOOKSWITCH_CASES", 40));
    let mut rng = SmallRng::seed_from_u64(seed);
    let (world, mut heard) = World::hearing(now()).await;
    let calls = Calls::of(seed, u32::try_from(cases).unwrap()).await;
    calls.deliver(&world, &mut rng).await;

    let mishaps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&mishaps);
    let bus = FaultyBus::start(&world, move |nth, entries| {
        let mishap = mishap(seed, nth, entries);
        counted.fetch_add(usize::from(mishap.is_some()), Ordering::SeqCst);
        mishap
    });
    let publisher = bus.await.publisher(&world, now());
    let streams = stream::iter(TABLES).map(async |table| records(&world, table).await).buffered(1);
    let streams: Vec<Vec<Value>> = streams.collect().await;
    stream::iter(streams.iter().zip(2..))
        .for_each_concurrent(3, async |(records, nth)| {
            bring(&publisher, records, SmallRng::seed_from_u64(seed.wrapping_mul(nth))).await;
        })
        .await;

    let events = taken(&mut heard);
    let (found, expected) = (ids(&events), calls.expected());
    let described = |ids: BTreeSet<&String>| {
        let of = |id: &&String| events.iter().find(|event| event["id"] == ***id).map(|event| event["type"].to_string());
        ids.iter().map(|id| of(id).unwrap_or_else(|| (*id).clone())).collect::<Vec<_>>()
    };
    assert_eq!(described(expected.difference(&found).collect()), [] as [String; 0], "missing: HOOKSWITCH_SEED={seed}");
    assert_eq!(described(found.difference(&expected).collect()), [] as [String; 0], "too many: HOOKSWITCH_SEED={seed}");
    events.iter().for_each(assert_described);
    assert!(events.iter().all(|event| !event.to_string().contains("Signature=")), "a presigned URL is told");
    assert_eq!(undelivered(&world).await, [] as [String; 0]);
    let kinds: BTreeSet<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    let mishaps = mishaps.load(Ordering::SeqCst);
    assert!(mishaps > 5 && events.len() > expected.len(), "{mishaps} mishaps, {} events", events.len());
    println!("{cases} calls, {} events expected, {} taken, {mishaps} mishaps", expected.len(), events.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_of_the_same_deliveries_gives_the_same_ids() {
    let calls = Calls::of(7, 20).await;
    let mut sets = Vec::new();
    for seed in [1, 2] {
        let (world, mut heard) = World::hearing(now()).await;
        calls.deliver(&world, &mut SmallRng::seed_from_u64(seed)).await;
        sets.push(ids(&published(&world, &mut heard).await));
    }
    assert!(sets[0].len() > 60, "{}", sets[0].len());
    assert_eq!(sets[0], sets[1]);
}

async fn deliver(world: &World, webhook: Webhook, body: &Value) {
    assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200);
}

/// All five deliveries of a small Exotel call.
async fn call(world: &World, session_id: &str, more: &Value) {
    let insight =
        json!({ "event_type": "sentiment", "event_data": { "value": "calm", "timestamp": "2026-03-15T14:30:20Z" } });
    for (webhook, end, events) in [
        (Webhook::SessionStart, None, json!([])),
        (Webhook::InsightsEvents, None, json!([insight])),
        (Webhook::PreAgentTransfer, None, json!([insight])),
        (Webhook::SessionEnd, Some("2026-03-15T14:31:00Z"), json!([])),
    ] {
        let mut body = json!({ "session_id": session_id, "start_time": "2026-03-15T14:30:00Z", "end_time": end,
            "contact_uri": "+919876543210", "events": events, "webhook": webhook.name() });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        deliver(world, webhook, &body).await;
    }
}

/// The types of the events of a small Exotel call.
const OF_A_CALL: [&str; 5] =
    ["call.completed", "call.ended", "call.insight", "call.started", "call.transfer_requested"];

fn kinds(events: &[Value]) -> BTreeSet<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

async fn erase(world: &World, session: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["sessions"]);
    put.item("session", text(session))
        .item("state", text("erased"))
        .item("merged", text("0123456789abcdef"))
        .send()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_tests_of_erased_calls_and_of_what_is_in_quarantine() {
    let (world, mut heard) = World::hearing(now()).await;
    call(&world, "heard", &json!({})).await;
    call(&world, "gone", &json!({})).await;
    // The platform's own test button, and the trial of `hookswitch doctor`.
    call(&world, "pressed", &json!({ "external_id": "CAxxxxxxxxxxxxxxxx" })).await;
    call(&world, "doctor-0123456789ab", &json!({})).await;
    deliver(&world, Webhook::SessionStart, &json!("no call")).await;
    let completed = json!({ "event": "session.to_come", "data": { "session_id": "newer" } });
    deliver(&world, Webhook::SessionCompleted, &completed).await;
    assert_eq!(world.quarantined().await.len(), 2);
    // After its deliveries, before anything was published of them.
    erase(&world, "exotel#gone").await;

    let events = published(&world, &mut heard).await;
    let subjects: BTreeSet<&str> = events.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, BTreeSet::from(["exotel#heard"]));
    assert_eq!(kinds(&events), BTreeSet::from(OF_A_CALL));
    // The insight came twice, once at the insights' webhook and once with the transfer.
    assert_eq!((events.len(), ids(&events).len()), (6, 5));
    let sessions = world.items_of("sessions", "exotel#gone").await;
    assert_eq!(text(&sessions[0], "state"), "erased");
    assert!(!sessions[0].contains_key("brief"), "it is still forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_human_brings_the_same_brief_whenever_it_is_told() {
    let (world, mut heard) = World::hearing(now()).await;
    call(&world, "s1", &json!({ "bot_id": "b1" })).await;
    let once = published(&world, &mut heard).await;
    let later =
        json!({ "event_type": "sentiment", "event_data": { "value": "angry", "timestamp": "2026-03-15T14:30:50Z" } });
    deliver(&world, Webhook::InsightsEvents, &json!({ "session_id": "s1", "events": [later] })).await;
    let again = published(&world, &mut heard).await;
    let transfer = |events: &[Value]| of_type(events, "call.transfer_requested")[0].clone();
    let (once, again) = (transfer(&once), transfer(&again));
    assert_eq!(once["data"]["brief"], again["data"]["brief"]);
    assert_eq!(once["data"]["brief"]["insights"]["sentiment"]["value"], "calm", "{once}");
    assert_eq!((&once["id"], &once["data"]["bot"]), (&again["id"], &json!("b1")));
    // What is told beside it is what is known by then.
    assert_eq!(again["data"]["call"]["insights"]["sentiment"]["value"], "angry");
    let kept = &world.items_of("sessions", "exotel#s1").await[0];
    assert_eq!(serde_json::from_str::<Value>(text(kept, "brief")).unwrap(), once["data"]["brief"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_for_the_bus_comes_without_its_largest_members() {
    let (world, mut heard) = World::hearing(now()).await;
    let start =
        json!({ "session_id": "long", "custom_parameters": { "long": "x".repeat(300_000) }, "bot_name": "short" });
    deliver(&world, Webhook::SessionStart, &start).await;
    let insight = json!({ "event_type": "summary", "event_data": { "value": "y".repeat(300_000) } });
    deliver(&world, Webhook::InsightsEvents, &json!({ "session_id": "wordy", "events": [insight] })).await;

    let events = published(&world, &mut heard).await;
    assert!(events.iter().all(|event| event.to_string().len() <= MAX_BYTES));
    let started = &of_type(&events, "call.started")[0]["data"];
    assert_eq!(started["truncated"], json!(["call.custom_parameters"]));
    assert_eq!((&started["call"]["bot_name"], &started["call"]["custom_parameters"]), (&json!("short"), &Value::Null));
    let found = of_type(&events, "call.insight")[0];
    assert_eq!(found["data"]["truncated"], json!(["call.insights", "insight"]));
    assert_eq!(found["data"]["insight_type"], "summary");
    let digest = sha256(json!({ "value": "y".repeat(300_000) }).to_string().as_bytes());
    assert_eq!(found["id"], id(&["call.insight", "exotel#wordy", "summary", &digest]));
}

/// Runs the command on a world.
async fn hookswitch(world: &World, arguments: &[&str]) -> (bool, String) {
    let port = world.run.base.rsplit_once(':').unwrap().1;
    let mut command = tokio::process::Command::new(tests::hookswitch());
    let output = command.args(arguments).args(["--port", port]).stdin(Stdio::null()).output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_the_bus_refuses_is_put_aside_and_can_be_sent_again() {
    let (world, mut heard) = World::hearing(now()).await;
    call(&world, "good", &json!({})).await;
    call(&world, "bad", &json!({})).await;
    let bus = FaultyBus::start(&world, |_, entries| {
        let bad = |entry: &Value| entry["Detail"].as_str().is_some_and(|event| event.contains("exotel#bad"));
        let which: Vec<usize> = (0..entries.len()).filter(|index| bad(&entries[*index])).collect();
        (!which.is_empty()).then_some(Mishap::Partial(which, "MalformedDetail"))
    });
    let publisher = bus.await.publisher(&world, now());
    for table in TABLES {
        let report = invoke(&publisher, &records(&world, table).await).await;
        assert_eq!(report, Report::default(), "what is refused for good must not come again");
    }
    let events = taken(&mut heard);
    assert_eq!(kinds(&events), BTreeSet::from(OF_A_CALL));
    assert!(events.iter().all(|event| event["subject"] == "exotel#good"));

    let (_, listed) = hookswitch(&world, &["undelivered", "list", "--json"]).await;
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(kinds(&listed), BTreeSet::from(OF_A_CALL));
    let ended = listed.iter().find(|event| event["type"] == "call.ended").unwrap();
    assert_eq!(ended["session"], "exotel#bad");
    let which = ended["id"].as_str().unwrap();
    assert!(which.ends_with(&format!("/{}", id(&["call.ended", "exotel#bad"]))), "{which}");
    let (_, some) = hookswitch(&world, &["undelivered", "list", "--type", "call.ended"]).await;
    assert!(some.starts_with("TIME") && some.contains(which) && some.lines().count() == 2, "{some}");
    let (shown, event) = hookswitch(&world, &["undelivered", "show", which]).await;
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_described(&event);
    assert!(shown && event["data"]["call"]["contact"] == "+919876543210", "{event}");

    let (done, said) = hookswitch(&world, &["undelivered", "resend", "--all"]).await;
    assert!(!done && said.contains("nothing was changed"), "{said}");
    let (done, said) = hookswitch(&world, &["undelivered", "resend", which]).await;
    assert!(done && said.contains(&format!("{which}: sent")), "{said}");
    assert_eq!(taken(&mut heard), [event]);
    // Nothing of an erased call leaves the bundle, however late.
    erase(&world, "exotel#bad").await;
    let (done, said) = hookswitch(&world, &["undelivered", "resend", "--all", "--yes"]).await;
    assert!(done && said.contains("deleted, since its call is erased"), "{said}");
    assert_eq!(taken(&mut heard), [] as [Value; 0]);
    assert_eq!(undelivered(&world).await, [] as [String; 0]);
    let (done, said) = hookswitch(&world, &["undelivered", "resend", which]).await;
    assert!(!done && said.contains("there is no such event"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_bus_is_down_events_come_again_and_after_a_quarter_of_an_hour_they_are_put_aside() {
    let (world, mut heard) = World::hearing(now()).await;
    call(&world, "s1", &json!({})).await;
    let bus = FaultyBus::start(&world, |_, _| Some(Mishap::Failed(503, "ServiceUnavailable"))).await;
    let streams = [records(&world, "events").await, records(&world, "sessions").await];
    let young = bus.publisher(&world, now());
    for records in &streams {
        let report = invoke(&young, records).await;
        let numbers: BTreeSet<&str> =
            records.iter().map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap()).collect();
        assert!(!report.batch_item_failures.is_empty());
        assert!(report.batch_item_failures.iter().all(|failure| numbers.contains(failure.item_identifier.as_str())));
    }
    assert_eq!(undelivered(&world).await, [] as [String; 0]);

    let later: Clock = Arc::new(|| Instant::now().plus_seconds(event_publisher::PATIENCE_SECONDS + 5));
    let old = bus.publisher(&world, later);
    for records in &streams {
        assert_eq!(invoke(&old, records).await, Report::default());
        // Brought once more all the same, they are where they were.
        assert_eq!(invoke(&old, records).await, Report::default());
    }
    assert_eq!(undelivered(&world).await.len(), 5);
    assert_eq!(taken(&mut heard), [] as [Value; 0]);

    let (done, said) = hookswitch(&world, &["undelivered", "resend", "--all", "--yes"]).await;
    assert!(done, "{said}");
    let events = taken(&mut heard);
    assert_eq!(kinds(&events), BTreeSet::from(OF_A_CALL));
    assert_eq!(ids(&events), ids(&published(&world, &mut heard).await), "they have the ids that they always had");
    assert_eq!(undelivered(&world).await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_publisher_holds_nothing_of_what_was_said() {
    let (world, _heard) = World::hearing(now()).await;
    let words = json!({ "custom_parameters": { "note": "marker-parameter" }, "bot_name": "marker-bot" });
    call(&world, "s1", &words).await;
    let log = Log::of(&["event_publisher", "shared"]);
    let later: Clock = Arc::new(|| Instant::now().plus_seconds(event_publisher::PATIENCE_SECONDS + 5));
    for (nth, code) in ["MalformedDetail", "ThrottlingException", ""].into_iter().enumerate() {
        let bus = FaultyBus::start(&world, move |_, entries| {
            (!code.is_empty()).then(|| Mishap::Partial((0..entries.len()).collect(), code))
        });
        let publisher = bus.await.publisher(&world, if nth == 1 { Arc::clone(&later) } else { now() });
        for table in TABLES {
            let records = records(&world, table).await;
            async { invoke(&publisher, &records).await }.with_subscriber(log.dispatch.clone()).await;
        }
    }
    let heard = log.heard();
    for said in ["call.started", "put aside, undelivered", "MalformedDetail", "ThrottlingException", "published"] {
        assert!(heard.contains(said), "{said} is not in {heard}");
    }
    for secret in ["9876543210", "marker", "calm"] {
        assert!(!heard.contains(secret), "{secret} is in {heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_in_a_browser_can_put_events_on_the_local_bus() {
    let (world, mut heard) = World::hearing(now()).await;
    let put = |name: &'static str, value: &'static str| {
        let body = json!({ "Entries": [{ "Detail": "{}", "DetailType": "call.started", "Source": "hookswitch" }] });
        let request = world.http.post(&world.stores().eventbridge).header("x-amz-target", "AWSEvents.PutEvents");
        async move { tests::answer(request.header(name, value).body(body.to_string())).await.status }
    };
    for (name, value) in [("origin", "http://evil.example"), ("host", "evil.example")] {
        assert_eq!(put(name, value).await, 403, "{name}");
    }
    assert_eq!(taken(&mut heard), [] as [Value; 0]);
    assert_eq!(put("accept", "*/*").await, 200);
    assert_eq!(taken(&mut heard), [json!({})]);
}

/// A call through the functions of a running binary.
async fn call_a_process(base: &str) {
    let http = tests::http_client();
    let found = http.get(format!("{base}/endpoints")).send().await.unwrap().bytes().await.unwrap();
    let endpoints: cli::endpoints::Endpoints = serde_json::from_slice(&found).unwrap();
    for (webhook, state) in [(Webhook::SessionStart, "session_start"), (Webhook::SessionEnd, "session_end")] {
        let body = json!({ "session_id": "s1", "session_state": state, "start_time": "2026-03-15T14:30:00Z" });
        let request = http.post(&endpoints.functions[webhook.name()]).body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_events_prints_each_event_as_one_line_and_nothing_else() {
    let mut process = tokio::process::Command::new(tests::hookswitch())
        .args(["dev", "--port", "0", "--ephemeral", "--events"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
    let base = loop {
        let line = said.next_line().await.unwrap().expect("it says that it is up");
        if let Some((before, _)) = line.split_once("/endpoints says") {
            break before.rsplit_once(' ').unwrap().1.to_owned();
        }
    };
    call_a_process(&base).await;
    let mut printed = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut events = Vec::new();
    while events.len() < 3 {
        let line = time::timeout(Duration::from_secs(30), printed.next_line()).await.expect("an event").unwrap();
        events.push(serde_json::from_str::<Value>(&line.expect("it runs")).unwrap());
    }
    events.iter().for_each(assert_described);
    assert_eq!(kinds(&events), BTreeSet::from(["call.started", "call.ended", "call.completed"]));
    assert_eq!(events[0]["source"], "hookswitch/hookswitch");
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_events_to_posts_each_event_again_if_it_is_not_answered_2xx() {
    let (send, mut posted) = tokio::sync::mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let asked = Arc::<AtomicUsize>::default();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (send, asked) = (send.clone(), Arc::clone(&asked));
            let answer = service_fn(move |request: Request<Incoming>| {
                let (send, nth) = (send.clone(), asked.fetch_add(1, Ordering::SeqCst));
                async move {
                    let kind = request.headers()["content-type"].to_str().unwrap().to_owned();
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let event: Value = serde_json::from_slice(&body).unwrap();
                    send.send((kind, event)).unwrap();
                    let status = if nth == 0 { 503 } else { 202 };
                    Ok::<_, Infallible>(Response::builder().status(status).body(Full::new(Bytes::new())).unwrap())
                }
            });
            tokio::spawn(
                Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).into_owned(),
            );
        }
    });
    let process = LocalProcess::start(&["--ephemeral", "--events-to", &url]).await;
    call_a_process(&process.base).await;
    let mut events = Vec::new();
    while events.len() < 4 {
        let (kind, event) = time::timeout(Duration::from_secs(30), posted.recv()).await.expect("an event").unwrap();
        assert_eq!(kind, "application/cloudevents+json");
        events.push(event);
    }
    assert_eq!(events[0], events[1], "it is posted again");
    assert_eq!(kinds(&events), BTreeSet::from(["call.started", "call.ended", "call.completed"]));
}

#[test]
fn the_documentation_shows_an_event_of_every_type() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/events/README.md");
    let page = std::fs::read_to_string(path).unwrap();
    let blocks = page.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
    let events: Vec<Value> = blocks.map(|block| serde_json::from_str(block).unwrap()).collect();
    events.iter().for_each(assert_described);
    let every: BTreeSet<&str> =
        event_publisher::event::Kind::ALL.into_iter().map(event_publisher::event::Kind::name).collect();
    assert_eq!(kinds(&events), every);
    for kind in &every {
        assert!(page.contains(&format!("({kind}.json)")), "the page leads to the schema of {kind}");
        let described = |name: &str| schema(name)["$defs"]["call"].clone();
        assert_eq!(described(kind), described("call.started"), "a call is the same in every event");
        assert_eq!(schema(kind)["$id"], format!("urn:hookswitch:event:{kind}:1"));
    }
    // Their ids are those that the rules beside them give.
    let of = |kind: &str| events.iter().find(|event| event["type"] == kind).unwrap();
    for kind in ["call.started", "call.ended", "call.completed"] {
        assert_eq!(of(kind)["id"], id(&[kind, of(kind)["subject"].as_str().unwrap()]), "{kind}");
    }
    let (insight, archived) = (of("call.insight"), of("recording.archived"));
    let digest = sha256(insight["data"]["insight"].to_string().as_bytes());
    let (session, kind) = (insight["subject"].as_str().unwrap(), insight["data"]["insight_type"].as_str().unwrap());
    assert_eq!(insight["id"], id(&["call.insight", session, kind, &digest]));
    let digest = archived["data"]["recording"]["sha256"].as_str().unwrap();
    assert_eq!(archived["id"], id(&["recording.archived", archived["subject"].as_str().unwrap(), digest]));
}
