//! What docs/scaling.md multiplies: deliveries, write units, index writes and stream records of whole calls, and how
//! evenly calls spread over the keys that many of them share.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use shared::storage::DAY_SHARDS;
use shared::{Provider, SessionKey, Webhook};
use tests::faults::between;
use tests::source::{Content, Source};
use tests::streams;
use tests::units::Units;

use super::recordings::{Scene, key, limits, signed, soon};
use super::units::{Meter, exotel, insight, session, turn};

/// Writes to an index of these attributes that a table's stream tells of. A changed key is a deletion and an insertion.
/// Sources: Amazon DynamoDB Developer Guide, "Using Global Secondary Indexes", write capacity.
fn index_writes(records: &[Value], keys: [&str; 2], projected: &[&str]) -> usize {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut writes = 0;
    for record in records {
        let (session, new) = (record["dynamodb"]["Keys"].to_string(), &record["dynamodb"]["NewImage"]);
        let entry = |item: &Value| keys.iter().all(|name| !item[*name].is_null());
        let old = seen.insert(session, new.clone()).unwrap_or_default();
        let differ = |names: &[&str]| names.iter().any(|name| old[*name] != new[*name]);
        writes += match (entry(&old), entry(new)) {
            (true, true) if differ(&keys) => 2,
            (true, true) => usize::from(differ(projected)),
            (old, new) => usize::from(old || new),
        };
    }
    writes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_20_turns_and_4_insights_costs_what_the_page_on_scaling_multiplies() {
    let meter = Meter::new().await;
    let (mut deliveries, mut units) = (0, 0.0);
    let mut deliver = async |webhook, state, reason, end: Value, events: Value| {
        let cost = meter.cost(webhook, &exotel(state, reason, &end, &events)).await;
        assert_eq!(cost.failed_conditions, 0, "{reason}");
        deliveries += 1;
        units += cost.units;
    };
    let going = "session_in_progress";
    deliver(Webhook::SessionStart, "session_start", "start", Value::Null, json!([])).await;
    for n in 1..=20_u32 {
        for (status, reason, second) in [("in_progress", "turn_progress", 1), ("completed", "turn_complete", 4)] {
            let heard = turn(n, status, &format!("2025-07-16T11:41:{:02}.{n:06}Z", second + n));
            deliver(Webhook::TranscriptEvents, going, reason, Value::Null, heard).await;
        }
        if n % 5 == 0 {
            let heard = insight(&format!("2025-07-16T11:42:{n:02}Z"));
            deliver(Webhook::InsightsEvents, going, "timer", Value::Null, heard).await;
        }
    }
    deliver(Webhook::SessionEnd, "session_end", "end", json!("2025-07-16T11:44:00.000Z"), json!([])).await;
    let [events, transcripts, sessions] = [
        streams::records(&meter.world, "events").await,
        streams::records(&meter.world, "transcripts").await,
        streams::records(&meter.world, "sessions").await,
    ];
    let by_day = index_writes(&sessions, ["day", "started_at"], &[]);
    let by_contact = index_writes(&sessions, ["contact", "started_at"], &[]);
    println!(
        "exotel: {deliveries} deliveries, {units} write units; stream records: events {}, transcripts {}, sessions {}; \
         index writes: by_day {by_day}, by_contact {by_contact}",
        events.len(),
        transcripts.len(),
        sessions.len()
    );
    assert_eq!((deliveries, events.len(), transcripts.len(), sessions.len()), (46, 46, 40, 6));
    assert_eq!((by_day, by_contact), (1, 1), "the indices are written when a call begins, and never after");
    assert!(units <= 95.0, "{units}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vocobase_call_writes_its_tables_and_indices_as_the_page_on_scaling_multiplies() {
    let meter = Meter::new().await;
    let cost = meter.cost(Webhook::SessionCompleted, &session(20)).await;
    let mut told = Vec::new();
    for table in ["events", "transcripts", "sessions", "recordings"] {
        told.push(streams::records(&meter.world, table).await.len());
    }
    println!("vocobase: 1 delivery, {cost:?}; stream records of events, transcripts, sessions, recordings: {told:?}");
    assert_eq!(told, [1, 1, 1, 1]);
    assert!(cost.units <= 14.0, "{cost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_costs_its_job_a_claim_and_an_end() {
    let scene = Scene::new().await;
    let source = Source::of(&Content::wav(1000, 77)).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 3600)).await;
    let units = Units::default();
    let archiver = scene.archiver_with(limits(), between(&scene.clients(), &units));
    archiver.archive(&key("s1"), "worker", soon()).await.unwrap();
    let (cost, jobs) = (units.take(), streams::records(&scene.world, "recordings").await);
    let projected = ["next_attempt_at", "lease_until", "received_at"];
    let unfinished = index_writes(&jobs, ["unfinished", "source_expires_at"], &projected);
    println!("recording: the archiver's {cost:?}; stream records {}, index writes {unfinished}", jobs.len());
    assert_eq!(jobs.len(), 3, "a job begins, is claimed, and ends");
    assert_eq!(unfinished, 3, "the index is written as often");
    assert_eq!(cost.failed_conditions, 0);
    assert!(cost.units <= 8.0, "{cost:?}");
}

#[test]
fn calls_are_spread_over_the_shards_of_a_day_whatever_their_ids_are_like() {
    let calls = 100_000_u64;
    let random = |n: u64| tests::sha256(&n.to_le_bytes())[..32].to_owned();
    let ids: [(&str, &dyn Fn(u64) -> String); 3] =
        [("random", &random), ("counted", &|n| format!("call-{n}")), ("counted, eight digits", &|n| format!("{n:08}"))];
    for (what, id) in ids {
        let mut shards = BTreeMap::<u8, u64>::new();
        for n in 0..calls {
            *shards.entry(SessionKey::new(Provider::Exotel, &id(n)).unwrap().shard(DAY_SHARDS)).or_default() += 1;
        }
        println!("{what}: {shards:?}");
        let fullest = shards.values().max().unwrap();
        assert!(fullest * u64::from(DAY_SHARDS) * 100 <= calls * 102, "{what}: {shards:?}");
    }
}
