//! A call whose person asked to be forgotten stays forgotten, whatever still arrives.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use cli::endpoints::Stores;
use cli::simulate::recordings::Recordings;
use serde_json::{Value, json};
use shared::storage::Clients;
use shared::{Instant, SessionKey, Webhook};
use tests::source::{Content, Source};
use tests::{Item, LocalProcess, World, gunzip, hookswitch};

/// Marks a call as erased, as an eraser does first.
async fn erase(world: &World, session: &str) -> Item {
    let key: SessionKey = session.parse().unwrap();
    world.stores().open().unwrap().store().unwrap().mark_erased(&key, None).await.unwrap();
    world.items_of("sessions", session).await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_call_is_answered_and_stores_nothing() {
    let world = World::new().await;
    let erased = [erase(&world, "exotel#s1").await, erase(&world, "vocobase#s1").await];
    let turn = json!({ "transcripts": [{ "sequence": 1, "transcript_segments": [{ "text": "Hello" }] }] });
    let exotel = json!({ "session_id": "s1", "contact_uri": "+919876543210",
        "events": [{ "event_type": "transcript", "event_data": turn }] });
    let vocobase = json!({ "data": { "session_id": "s1", "transcript": [{ "role": "user", "content": "Hello" }],
        "recording_url": "https://recordings.s3.amazonaws.com/r.wav" } });
    for webhook in Webhook::ALL {
        let body = if webhook == Webhook::SessionCompleted { &vocobase } else { &exotel };
        assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200);
    }
    for table in ["events", "transcripts", "recordings"] {
        assert_eq!(world.items(table).await, [] as [Item; 0], "{table}");
    }
    assert_eq!(world.items("sessions").await, erased);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_remembers_the_call_does_not_bring_it_back() {
    let world = World::new().await;
    let start = json!({ "session_id": "s1", "contact_uri": "+919876543210" });
    assert_eq!(world.deliver(Webhook::SessionEnd, start.to_string()).await.status, 200);
    let erased = erase(&world, "exotel#s1").await;
    let end = json!({ "session_id": "s1", "end_time": "2025-07-16T11:42:00Z", "contact_uri": "+919876543210" });
    assert_eq!(world.deliver(Webhook::SessionEnd, end.to_string()).await.status, 200);
    assert_eq!(world.items("sessions").await, [erased]);
}

/// The text of an attribute; of what is not there, nothing.
fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    shared::storage::text(item, name).unwrap_or_default()
}

const NUMBER: &str = "9876543210";
const WORDS: &str = "markerwords";

fn run(port: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(hookswitch()).args(arguments).args(["--port", port]).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Everything that the stores of a bundle hold: items by table and object by key, unpacked.
struct Everything {
    items: Vec<(String, Item)>,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Everything {
    async fn of(clients: &Clients, stores: &Stores) -> Self {
        let mut items = Vec::new();
        for table in stores.tables.keys() {
            let found = tests::items(clients, stores, table).await;
            items.extend(found.into_iter().map(|item| (table.clone(), item)));
        }
        items.sort_by_key(|(table, item)| {
            (
                table.clone(),
                text(item, "session").to_owned(),
                text(item, "event").to_owned(),
                text(item, "turn").to_owned(),
            )
        });
        let (s3, bucket) = (&clients.s3, &stores.bucket);
        let mut pages = s3.list_objects_v2().bucket(bucket).into_paginator().send();
        let mut objects = BTreeMap::new();
        while let Some(page) = pages.next().await {
            for key in page.unwrap().contents().iter().filter_map(|object| object.key()) {
                // What is deleted meanwhile is not there.
                let Ok(object) = s3.get_object().bucket(bucket).key(key).send().await else { continue };
                let mut bytes = object.body.collect().await.unwrap().to_vec();
                if bytes.starts_with(&[0x1f, 0x8b]) {
                    bytes = gunzip(&bytes);
                }
                objects.insert(key.to_owned(), bytes);
            }
        }
        Self { items, objects }
    }

    /// Where a text is: in an item's values or name, unpacked, or in an object or its key.
    fn places(&self, needle: &str) -> Vec<String> {
        let holds = |item: &Item| {
            let packed = item.values().filter_map(|value| value.as_b().ok()).map(|blob| gunzip(blob.as_ref()));
            let packed: Vec<String> = packed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
            format!("{item:?}").contains(needle) || packed.iter().any(|text| text.contains(needle))
        };
        let items = self
            .items
            .iter()
            .filter(|(_, item)| holds(item))
            .map(|(table, item)| format!("{table} {}", text(item, "session")));
        let objects = self.objects.iter().filter(|(key, bytes)| {
            key.contains(needle) || bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
        });
        items.chain(objects.map(|(key, _)| key.clone())).collect()
    }

    fn items_of(&self, session: &str) -> Vec<&Item> {
        self.items.iter().map(|(_, item)| item).filter(|item| text(item, "session") == session).collect()
    }
}

/// What one person said in two calls, and another in a third; what could not be read of both, and events that the bus
/// did not take.
fn deliveries(recordings: &Recordings) -> Vec<(Webhook, String)> {
    let exotel = |id: &str, contact: &str, words: &str, end: Option<&str>| {
        // So much noise that the body goes into the bucket.
        let noise: String = (0..600_u32).map(|seed| tests::sha256(&seed.to_be_bytes())[..32].to_owned()).collect();
        let segment = json!({ "speaker": "user", "text": words, "start_timestamp": "2026-03-15T10:00:05Z",
            "end_timestamp": "2026-03-15T10:00:06Z" });
        let turn = json!({ "event_type": "transcript", "event_id": "t", "event_data": { "transcripts":
            [{ "sequence": 1, "status": "completed", "transcript_segments": [segment] }] } });
        let summary = json!({ "event_type": "summary", "event_id": "i", "event_data":
            { "value": words, "timestamp": "2026-03-15T10:00:40Z" } });
        json!({ "session_id": id, "contact_uri": contact, "start_time": "2026-03-15T10:00:00Z", "end_time": end,
            "bot_id": "b1", "events": [turn, summary], "custom_parameters": { "said": words, "noise": noise } })
        .to_string()
    };
    let vocobase = |id: &str, contact: &str, words: &str, sent: &str| {
        json!({ "event": "session.completed", "timestamp": sent, "data": { "session_id": id, "duration_seconds": 60,
            "transcript": [{ "role": "user", "content": words, "timestamp": "2026-03-15T12:00:01Z" }],
            "recording_url": recordings.url(id, Instant::now().plus_seconds(3600)),
            "call": { "call_id": format!("c-{id}"), "from_number": "+14155550100", "to_number": contact,
                "direction": "outbound", "started_at": "2026-03-15T12:00:00Z", "status": "completed" } } })
        .to_string()
    };
    let end = Some("2026-03-15T10:01:00Z");
    vec![
        (Webhook::SessionStart, exotel("mine", "098765 43210", WORDS, None)),
        (Webhook::TranscriptEvents, exotel("mine", "+919876543210", WORDS, None)),
        (Webhook::InsightsEvents, exotel("mine", "tel:+91-98765-43210", WORDS, None)),
        (Webhook::PreAgentTransfer, exotel("mine", "+919876543210", WORDS, None)),
        (Webhook::SessionEnd, exotel("mine", "+919876543210", WORDS, end)),
        (Webhook::SessionCompleted, vocobase("mine-too", "+919876543210", WORDS, "2026-03-15T12:05:00Z")),
        (Webhook::SessionEnd, exotel("theirs", "+919123456789", "otherwords", end)),
        (Webhook::SessionCompleted, vocobase("mine-not", "+919123456789", "otherwords", "2026-03-15T12:05:00Z")),
        (Webhook::SessionEnd, format!("{{ \"session_id\": \"mine\", \"text\": \"{WORDS}\"")),
        (Webhook::SessionEnd, "called from 098765-43210".to_owned()),
        (Webhook::SessionEnd, "called from 091234-56789".to_owned()),
    ]
}

async fn deliver(process: &LocalProcess, deliveries: &[(Webhook, String)]) {
    for (webhook, body) in deliveries {
        let (webhook, body) = (*webhook, body.clone().into_bytes());
        let delivery = cli::simulate::calls::Planned { webhook, session_id: "any".to_owned(), body };
        assert!(tests::post(&tests::http_client(), &process.endpoints, &delivery).await);
    }
}

/// Waits until the stores are as they should be.
async fn until(clients: &Clients, stores: &Stores, is: impl Fn(&Everything) -> bool) -> Everything {
    for _ in 0..300 {
        let everything = Everything::of(clients, stores).await;
        if is(&everything) {
            return everything;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("it never comes to that");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_forgotten_everywhere_and_stays_so_whatever_still_arrives() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    let stores = process.endpoints.stores.as_ref().expect("stores");
    let clients = stores.connect().expect("clients");
    let recordings = Recordings::serve(50_000, 0.0).await.expect("it serves");
    let deliveries = deliveries(&recordings);
    deliver(&process, &deliveries).await;
    for (day, session) in [("2026-03-15", "exotel#mine"), ("2026-03-15", "exotel#theirs")] {
        let event = json!({ "type": "call.ended", "subject": session, "time": "2026-03-15T10:01:00Z",
            "data": { "call": { "contact": if session == "exotel#mine" { NUMBER } else { "9123456789" } } } });
        let id = &tests::sha256(session.as_bytes())[..32];
        let put = clients.s3.put_object().bucket(&stores.bucket).key(format!("undelivered/{day}/{id}.json"));
        put.body(event.to_string().into_bytes().into()).send().await.expect("it is put");
    }
    // Until the archiver, the publisher and the exporter are done with it.
    let before = until(&clients, stores, |all| {
        let count = |prefix: &str| all.objects.keys().filter(|key| key.starts_with(prefix)).count();
        let briefs = all.items_of("exotel#mine").iter().filter(|item| item.contains_key("brief")).count();
        let archived =
            all.items.iter().filter(|(table, item)| table == "recordings" && text(item, "state") == "archived");
        (count("recordings/"), count("calls/"), briefs, archived.count()) == (2, 4, 1, 2)
    })
    .await;
    assert!(before.objects.keys().any(|key| key.starts_with("bodies/")), "the noise goes into the bucket");
    for needle in [NUMBER, WORDS] {
        assert!(before.places(needle).len() >= 8, "{:?}", before.places(needle));
    }

    // Nothing changes by looking.
    let (code, dry, _) = run(port, &["erase", "--contact", "98765 43210", "--dry-run"]);
    assert_eq!(code, Some(0));
    let lines: Vec<&str> = dry.lines().collect();
    assert_eq!(lines.len(), 3, "{dry}");
    assert!(
        lines[0].starts_with("exotel#mine: 5 events, 5 bodies, 1 transcript items, 1 documents, 1 undelivered"),
        "{dry}"
    );
    assert!(lines[0].ends_with("1 deliveries in quarantine"), "{dry}");
    assert_eq!(lines[1], "quarantine: 1 deliveries in quarantine");
    assert_eq!(
        lines[2],
        "vocobase#mine-too: 1 events, 1 transcript items, 1 recording jobs, 1 recordings, 1 documents"
    );
    let looked = Everything::of(&clients, stores).await;
    assert!(looked.items == before.items && looked.objects == before.objects);
    let (code, _, err) = run(port, &["erase", "--contact", NUMBER]);
    assert!(
        code == Some(1) && err.contains("Erase 2 calls and 20 items") && err.contains("nothing was changed"),
        "{err}"
    );

    // Killed once it has marked the calls.
    let mut killed = Command::new(hookswitch())
        .args(["erase", "--contact", NUMBER, "--yes", "--port", port])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let marked = |all: &Everything| {
        ["exotel#mine", "vocobase#mine-too"]
            .iter()
            .all(|key| all.items_of(key).iter().any(|item| text(item, "state") == "erased"))
    };
    until(&clients, stores, marked).await;
    killed.kill().expect("it is killed");
    killed.wait().expect("it ends");
    deliver(&process, &deliveries).await;

    // And again, by the number, although the calls are marked.
    let (code, out, err) = run(port, &["erase", "--contact", NUMBER, "--yes", "--json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let sessions: Vec<&str> = lines.iter().map(|line| line["session"].as_str().unwrap()).collect();
    assert_eq!(sessions, ["exotel#mine", "quarantine", "vocobase#mine-too"]);
    assert_eq!((&lines[0]["events"], &lines[2]["recordings"]), (&json!(5), &json!(1)));

    let nothing = |all: &Everything| {
        for needle in [NUMBER, WORDS, "98765 43210", "98765-43210"] {
            assert_eq!(all.places(needle), [] as [String; 0], "{needle}");
        }
        for key in ["exotel#mine", "vocobase#mine-too"] {
            let items = all.items_of(key);
            let names: Vec<BTreeSet<&str>> =
                items.iter().map(|item| item.keys().map(String::as_str).collect()).collect();
            assert_eq!(names, [BTreeSet::from(["merged", "session", "state"])], "{key}");
        }
    };
    let after = Everything::of(&clients, stores).await;
    nothing(&after);
    for key in ["exotel#theirs", "vocobase#mine-not"] {
        assert_eq!(after.items_of(key), before.items_of(key), "another's call is as it was");
    }
    assert_eq!(after.places("91234").len(), before.places("91234").len());
    assert_eq!(after.places("otherwords").len(), before.places("otherwords").len());

    // Whatever still comes, or is tried again.
    let mut late: Vec<(Webhook, String)> = deliveries[..6].to_vec();
    late.push((Webhook::SessionCompleted, deliveries[5].1.replace("12:05:00Z", "12:09:00Z")));
    late.reverse();
    deliver(&process, &late).await;
    for command in [&["rebuild", "--yes"][..], &["quarantine", "replay", "--all", "--yes"]] {
        run(port, command);
    }
    // Time for whatever a stream would bring.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let later = Everything::of(&clients, stores).await;
    nothing(&later);
    assert!(later.items == after.items && later.objects == after.objects);
    let log = process.log();
    assert!(!log.contains(NUMBER) && !log.contains(WORDS), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_is_being_copied_is_waited_for_and_deleted() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    let stores = process.endpoints.stores.as_ref().expect("stores");
    let clients = stores.connect().expect("clients");
    // Half a minute, during which the archiver has the source's patience.
    let content = Content::wav(64, 1);
    let source = Source::start(move |_, asked| content.answer(asked).dripping(Duration::from_millis(430))).await;
    let body = json!({ "event": "session.completed", "timestamp": Instant::now(),
        "data": { "session_id": "s1", "recording_url": format!("http://{}/r.wav", source.address) } });
    deliver(&process, &[(Webhook::SessionCompleted, body.to_string())]).await;
    until(&clients, stores, |all| all.items_of("vocobase#s1").iter().any(|item| text(item, "state") == "copying"))
        .await;
    let mut erase = Command::new(hookswitch())
        .args(["erase", "--session", "vocobase#s1", "--yes", "--port", port])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    // Longer than it waits for deliveries.
    tokio::time::sleep(Duration::from_secs(23)).await;
    assert!(erase.try_wait().expect("its state").is_none(), "it waits for the copy");
    let status = erase.wait().expect("it ends");
    assert!(status.success());
    let all = Everything::of(&clients, stores).await;
    assert_eq!(all.objects.keys().collect::<Vec<_>>(), [] as [&String; 0]);
    assert_eq!(
        all.items.iter().map(|(table, item)| (table.as_str(), text(item, "state"))).collect::<Vec<_>>(),
        [("sessions", "erased")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_still_to_come_can_be_erased_and_a_wrong_question_changes_nothing() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    for (arguments, code, why) in [
        (&["erase"] as &[&str], 2, "required arguments were not provided"),
        (&["erase", "--session", "exotel#a", "--contact", NUMBER], 2, "cannot be used with"),
        (
            &["erase", "--session", "a", "--yes"],
            1,
            "no call a is stored: to erase one that may still come, say exotel#",
        ),
        (&["erase", "--session", "exotel#a"], 1, "nothing was changed"),
        (&["erase", "--contact", NUMBER], 0, "there is nothing to erase"),
    ] {
        let (status, out, err) = run(port, arguments);
        assert_eq!((status, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    let (code, out, _) = run(port, &["erase", "--session", "exotel#a", "--yes"]);
    assert_eq!((code, out.as_str()), (Some(0), "exotel#a: nothing but its key\n"));
    let start = json!({ "session_id": "a", "contact_uri": "+919876543210", "start_time": "2026-03-15T10:00:00Z" });
    deliver(&process, &[(Webhook::SessionStart, start.to_string())]).await;
    let stores = process.endpoints.stores.as_ref().expect("stores");
    let all = Everything::of(&stores.connect().expect("clients"), stores).await;
    assert_eq!((all.items.len(), all.places(NUMBER).len(), all.objects.len()), (1, 0, 0));
}
