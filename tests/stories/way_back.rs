//! The way back: what could not be used is used after all, tables are derived from their events again, deliveries are
//! sent to another bundle. Each of them may be interrupted and repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use cli::endpoints::Stores;
use cli::simulate::calls::{Planned, plan};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use shared::auth::{Secret, Verified, vocobase};
use shared::call::{Delivery, Source};
use shared::config::Storage;
use shared::storage::{Clients, Store};
use shared::{Clock, Country, Instant, Webhook};
use tests::control_plane::{Aws, respond, serve};
use tests::odd_calls::{Odd, odd_call};
use tests::{Item, LocalProcess, World, at, items, text};
use tokio::process::Child;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

const DERIVED: [&str; 3] = ["sessions", "transcripts", "recordings"];
const STACK: [&str; 2] = ["--stack", "prod"];

/// What a command came to.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    /// Its lines, each a JSON object.
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self
    }

    fn failed(self, says: &str) -> Self {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.err);
        assert!(format!("{}{}", self.out, self.err).contains(says), "{}{}", self.out, self.err);
        self
    }
}

async fn hookswitch(aws: &Aws, arguments: &[&[&str]], input: &str) -> Done {
    let output = aws.run(&arguments.concat(), input).await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn port(world: &World) -> &str {
    world.run.base.rsplit_once(':').expect("a port").1
}

/// A clock that goes on by a second whenever it is asked.
fn ticking(from: &str) -> Clock {
    let seconds = AtomicI64::new(Instant::parse(from).expect("an instant").unix_seconds());
    Arc::new(move || Instant::from_unix_seconds(seconds.fetch_add(1, Ordering::SeqCst)).expect("an instant"))
}

/// Where the tables of a bundle are.
type Tables<'a> = (&'a Clients, &'a Stores);

fn tables(world: &World) -> Tables<'_> {
    (&world.clients, world.stores())
}

/// Items of the derived tables, by table.
async fn derived(world: &World) -> BTreeMap<&'static str, Vec<Item>> {
    let mut tables = BTreeMap::new();
    for table in DERIVED {
        tables.insert(table, world.items(table).await);
    }
    tables
}

async fn everything(world: &World) -> BTreeMap<&'static str, Vec<Item>> {
    let mut tables = derived(world).await;
    tables.insert("events", world.items("events").await);
    tables
}

/// Says which call differs, and not what all of them are.
fn assert_same(found: &BTreeMap<&str, Vec<Item>>, expected: &BTreeMap<&str, Vec<Item>>) {
    let by_call = |items: &[Item]| {
        let mut calls: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for item in items {
            calls.entry(text(item, "session").to_owned()).or_default().push(item.clone());
        }
        calls
    };
    for (table, expected) in expected {
        let (found, expected) = (by_call(&found[table]), by_call(expected));
        for session in found.keys().chain(expected.keys()) {
            assert_eq!(found.get(session), expected.get(session), "{table}");
        }
    }
}

async fn delete((clients, stores): Tables<'_>, table: &str, item: &Item) {
    let delete = clients.dynamodb.delete_item().table_name(&stores.tables[table]);
    let key = |name: &&str| Some(((*name).to_owned(), item.get(*name)?.clone()));
    let key = ["session", "event", "turn"].iter().filter_map(key).collect();
    delete.set_key(Some(key)).send().await.expect("it is deleted");
}

async fn put((clients, stores): Tables<'_>, table: &str, item: &Item) {
    let put = clients.dynamodb.put_item().table_name(&stores.tables[table]);
    put.set_item(Some(item.clone())).send().await.expect("it is put");
}

async fn empty(of: Tables<'_>, tables: &[&str]) {
    for table in tables {
        let all = items(of.0, of.1, table).await;
        stream::iter(&all).for_each_concurrent(8, async |item| delete(of, table, item).await).await;
        assert_eq!(items(of.0, of.1, table).await, [] as [Item; 0]);
    }
}

/// The calls of both platforms that the simulator plays, and the oddest that there are, shuffled.
fn wild_calls(odd: u64) -> Vec<Odd> {
    let start = Instant::parse("2025-07-16T11:40:00Z").expect("an instant");
    let url = |id: &str| Some(format!("https://recordings.s3.amazonaws.com/{id}.wav?X-Amz-Signature=top-secret"));
    let plausible = plan(7, 12, start, &url).into_iter().flatten();
    let plausible = plausible.map(|planned| Odd { webhook: planned.webhook, body: planned.body });
    let mut deliveries: Vec<Odd> = plausible.chain((0..odd).flat_map(odd_call)).collect();
    deliveries.shuffle(&mut SmallRng::seed_from_u64(odd));
    deliveries
}

async fn deliver(world: &World, deliveries: &[Odd]) {
    for delivery in deliveries {
        assert_eq!(world.deliver(delivery.webhook, delivery.body.clone()).await.status, 200);
    }
}

/// A store over the world's tables, to put there what functions of other versions and other sources would.
fn store(world: &World, retention_days: Option<i64>) -> Store {
    let environment = world.stores().environment();
    let storage = Storage::read(&|name| environment.get(name).cloned()).expect("names of tables");
    Store::new(world.clients.clone(), Storage { retention_days, ..storage })
}

/// Puts a body aside, as a version did that could not read it.
async fn put_aside(world: &World, webhook: Webhook, body: &str, received_at: &str) {
    put_aside_for(world, webhook, None, body, received_at).await;
}

/// The same, of a sender that may speak of this session only.
async fn put_aside_for(world: &World, webhook: Webhook, granted: Option<&str>, body: &str, received_at: &str) {
    let received_at = Instant::parse(received_at).expect("an instant");
    let (store, body) = (store(world, None), Verified::known(body.as_bytes()));
    store.quarantine(webhook, &body, granted, "an older reason", received_at).await.expect("it is put aside");
}

fn noise(length: usize) -> String {
    rand::distr::SampleString::sample_string(&rand::distr::Alphanumeric, &mut SmallRng::seed_from_u64(7), length)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_used_is_listed_with_its_reason_and_shown_byte_for_byte() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let none = hookswitch(&aws, &[&["quarantine", "list", "--port", port(&world)]], "").await.succeeded();
    assert_eq!(none.out, "WHEN  WEBHOOK  REASON  ID\n");
    let bodies = [
        (Webhook::SessionEnd, "{\"session_id\": \"s1\",\n\t\x1b[2J +919876543210".to_owned(), "not JSON, at line 2"),
        (Webhook::TranscriptEvents, r#"{"session_id":"s1","events":"Hello!"}"#.to_owned(), "JSON that does not fit"),
        (
            Webhook::SessionCompleted,
            format!(r#"{{"event":"session.begun","data":{{"noise":"{}"}}}}"#, noise(30_000)),
            "the event is",
        ),
    ];
    for (webhook, body, _) in &bodies {
        assert_eq!(world.deliver(*webhook, body.as_bytes()).await.status, 200);
    }
    let list = hookswitch(&aws, &[&["quarantine", "list"], &STACK], "").await.succeeded();
    assert_eq!(list.out.lines().count(), 4, "{}", list.out);
    assert!(!list.out.contains("+919876543210") && !list.out.contains("Hello"), "{}", list.out);
    let lines = hookswitch(&aws, &[&["quarantine", "list", "--json", "--port", port(&world)]], "").await.json();
    for ((webhook, body, reason), line) in bodies.iter().zip(&lines) {
        assert_eq!(line["webhook"], webhook.name());
        assert!(line["reason"].as_str().unwrap().starts_with(reason), "{line}");
        let id = line["id"].as_str().unwrap();
        assert!(list.out.contains(id), "{}", list.out);
        let shown = hookswitch(&aws, &[&["quarantine", "show", id], &STACK], "").await.succeeded();
        assert_eq!(shown.out, *body);
        for known in [webhook.name(), reason, line["received_at"].as_str().unwrap(), &tests::sha256(body.as_bytes())] {
            assert!(shown.err.contains(known), "{}", shown.err);
        }
    }

    let fit = hookswitch(&aws, &[&["quarantine", "list", "--reason", "fit", "--json"], &STACK], "").await.json();
    assert_eq!(fit, [lines[1].clone()]);
    let (day, next) =
        (Instant::now().plus_seconds(-40 * 86_400).day(), Instant::now().plus_seconds(-39 * 86_400).day());
    let midnight = format!("{day}T23:59:59Z");
    put_aside(&world, Webhook::SessionEnd, "long ago", &midnight).await;
    for (since, count) in [(&*day, 4), (&midnight, 4), (&next, 3), ("1h", 3), ("0s", 0)] {
        let list = hookswitch(&aws, &[&["quarantine", "list", "--json", "--since", since], &STACK], "").await;
        assert_eq!(list.json().len(), count, "{since}");
    }
    let unknown = "2026-03-15/session_end/0123456789abcdef";
    hookswitch(&aws, &[&["quarantine", "show", unknown], &STACK], "").await.failed(&format!("{unknown}: is not in"));
    for id in ["s1", "2026-03-15/session_end/0123", "2026-03-15/nothing/0123456789abcdef"] {
        let wrong = hookswitch(&aws, &[&["quarantine", "show", id], &STACK], "").await;
        assert!(wrong.code == Some(2) && wrong.err.contains("not an id as `quarantine list` says it"), "{}", wrong.err);
    }
}

/// Bodies that an older version put aside and this one can read, with when they came.
const READABLE: [(Webhook, &str, &str); 3] = [
    (Webhook::SessionEnd, r#"{"session_id":"s1","end_time":"2025-07-16T11:42:00Z"}"#, "2025-07-16T11:50:00Z"),
    (Webhook::SessionStart, r#"{"session_id":"s1","start_time":"2025-07-16T11:41:00Z"}"#, "2025-07-16T11:50:01Z"),
    (
        Webhook::SessionCompleted,
        r#"{"data":{"session_id":"s2","transcript":[{"role":"user","content":"Hello"}],
            "recording_url":"https://recordings.s3.amazonaws.com/r.wav?Signature=top-secret"}}"#,
        "2025-07-17T00:00:00Z",
    ),
];
const SINCE: [&str; 2] = ["--since", "2025-07-16"];

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_read_by_now_is_stored_as_when_it_came_and_the_rest_stays_with_its_reason() {
    let retention = [("RETENTION_DAYS", "365")];
    let in_time = World::with(&retention, at("2025-07-16T11:50:00Z")).await;
    let world = World::with(&retention, at("2026-01-01T00:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    for (webhook, body, received_at) in READABLE {
        put_aside(&world, webhook, body, received_at).await;
        let app = in_time.instance(webhook, Clone::clone, at(received_at));
        let (timestamp, signature) = in_time.sign(body.as_bytes(), Instant::parse(received_at).unwrap());
        let mut request = in_time.request(webhook, body.as_bytes());
        request.headers_mut().insert(vocobase::TIMESTAMP, timestamp.parse().unwrap());
        request.headers_mut().insert(vocobase::SIGNATURE, signature.parse().unwrap());
        assert_eq!(tests::read(&cli::dev::call(webhook, &app, request).await).status, 200);
    }
    put_aside(&world, Webhook::SessionEnd, r#"{"session_id":""}"#, "2025-07-16T12:00:00Z").await;
    let before = everything(&world).await;
    let all = ["quarantine", "replay", "--all"];

    // Nobody says yes.
    hookswitch(&aws, &[&all, &SINCE, &STACK], "").await.failed("nothing was changed");
    assert_same(&everything(&world).await, &before);

    let replayed = hookswitch(&aws, &[&all, &SINCE, &STACK, &["--yes"]], "").await;
    let replayed = replayed.failed("1 of 4 deliveries cannot be stored");
    assert_eq!(replayed.out.lines().filter(|line| line.ends_with(": stored")).count(), 3, "{}", replayed.out);
    assert!(replayed.out.contains(": stays: the session id is missing or empty"), "{}", replayed.out);
    assert!(!replayed.out.contains("top-secret") && !replayed.err.contains("top-secret"));
    assert_same(&derived(&world).await, &derived(&in_time).await);
    let mut events = world.items("events").await;
    let left = events.iter().position(|item| text(item, "session").starts_with("quarantine#")).expect("one stays");
    let left = events.remove(left);
    assert_eq!((text(&left, "reason"), world.body(&left).await), ("an older reason", br#"{"session_id":""}"#.to_vec()));
    assert_eq!(events, in_time.items("events").await);

    // Again, the one that is left by its id, and the others, which are no longer there.
    let after = everything(&world).await;
    let id = replayed.out.lines().find_map(|line| line.split_once(": stays")).expect("its line").0;
    hookswitch(&aws, &[&["quarantine", "replay", id], &STACK], "").await.failed("1 of 1 deliveries cannot be stored");
    let gone = replayed.out.lines().find_map(|line| line.strip_suffix(": stored")).expect("a line");
    hookswitch(&aws, &[&["quarantine", "replay", gone], &STACK], "").await.failed("is not in quarantine");
    assert_same(&everything(&world).await, &after);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_with_one_sessions_token_is_replayed_into_no_other_session() {
    let world = World::with(&[], at("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    let received_at = "2025-07-16T11:50:00Z";
    let end = Webhook::SessionEnd;
    let body = |id: &str| format!(r#"{{"session_id":"{id}","end_time":"2025-07-16T11:45:00Z"}}"#);
    // As a version put them aside that could not read them: only what they say shows whose they are.
    put_aside_for(&world, end, Some("s1"), &body("s1"), received_at).await;
    put_aside_for(&world, end, Some("s1"), &body("s2"), received_at).await;
    put_aside_for(&world, end, None, &body("s3"), received_at).await;

    let all = ["quarantine", "replay", "--all", "--yes"];
    let replayed = hookswitch(&aws, &[&all, &SINCE, &STACK], "").await;
    let replayed = replayed.failed("1 of 3 deliveries cannot be stored");
    assert!(replayed.out.contains(": stays: the token is another session's"), "{}", replayed.out);
    let calls = world.items("sessions").await;
    assert_eq!(calls.iter().map(|call| text(call, "session")).collect::<Vec<_>>(), ["exotel#s1", "exotel#s3"]);
    let [left] = world.quarantined().await.try_into().expect("one stays");
    assert_eq!((text(&left, "granted_session_id"), world.body(&left).await), ("s1", body("s2").into_bytes()));
    assert_eq!(world.items_of("events", "exotel#s2").await, [] as [Item; 0]);

    // Whose token it was is kept where a body is put aside, whatever it says.
    let tokens = shared::config::tokens(&|name| {
        (name == "EXOTEL_TOKEN_SECRETS").then(|| cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS.to_owned())
    });
    let url = tokens.unwrap().session_url(&format!("{}/session_end/", world.run.base), end, "s4").unwrap();
    let unreadable = r#"{"session_id":"s2","session_id":"s4"}"#;
    assert_eq!(tests::answer(world.http.post(url).body(unreadable)).await.status, 200);
    assert_eq!(world.deliver(end, "not JSON").await.status, 200);
    let granted = |item: &Item| item.get("granted_session_id").map(|id| id.as_s().expect("a text").clone());
    let mut found: Vec<_> = world.quarantined().await.iter().map(granted).collect();
    found.sort();
    assert_eq!(found, [None, Some("s1".to_owned()), Some("s4".to_owned())]);
}

/// The world's database behind a proxy that answers nothing more to this operation once it was asked so often; its
/// URL, and who hears of each request that is not answered.
async fn stalling(world: &World, operation: &'static str, after: usize) -> (String, UnboundedReceiver<()>) {
    let (unanswered, heard) = unbounded_channel();
    let (behind, http, asked) = (world.stores().dynamodb.clone(), world.http.clone(), Arc::new(AtomicUsize::new(0)));
    let proxy = serve(move |request| {
        let (behind, http) = (behind.clone(), http.clone());
        let (asked, unanswered) = (Arc::clone(&asked), unanswered.clone());
        async move {
            let (parts, body) = request.into_parts();
            let is_it = parts.headers["x-amz-target"].to_str().unwrap().ends_with(operation);
            if is_it && asked.fetch_add(1, Ordering::SeqCst) >= after {
                unanswered.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            let mut passed = http.post(behind).body(body.collect().await.unwrap().to_bytes());
            for name in ["x-amz-target", "content-type", "authorization", "x-amz-date"] {
                passed = passed.header(name, parts.headers[name].clone());
            }
            let answer = passed.send().await.unwrap();
            respond(answer.status().as_u16(), "application/x-amz-json-1.0", answer.bytes().await.unwrap())
        }
    });
    (proxy.await, heard)
}

/// Ends it in the middle of what it does. A test that a shell started in the background hands down that it ignores SIGINT.
async fn interrupt(child: &mut Child) {
    let id = child.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(!child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_dies_between_keeping_and_deleting_is_completed_by_the_next() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    for (webhook, body, received_at) in READABLE {
        put_aside(&world, webhook, body, received_at).await;
    }
    let (proxy, mut stalled) = stalling(&world, ".DeleteItem", 0).await;
    let all = [&["quarantine", "replay", "--all", "--yes"][..], &SINCE, &STACK].concat();
    let mut interrupted = aws.command(&all).env("AWS_ENDPOINT_URL_DYNAMODB", proxy).spawn().unwrap();
    for _ in READABLE {
        stalled.recv().await.expect("it comes to the deletion");
    }
    interrupt(&mut interrupted).await;
    // In both places, in none of them never.
    assert_eq!(world.quarantined().await.len(), READABLE.len());
    let kept = derived(&world).await;
    assert_eq!(kept["sessions"].len(), 2);
    let events = world.items("events").await.len();

    let again = hookswitch(&aws, &[&all], "").await.succeeded();
    assert_eq!(again.out.lines().filter(|line| line.ends_with(": stored")).count(), READABLE.len(), "{}", again.out);
    assert_eq!(world.quarantined().await, [] as [Item; 0]);
    assert_same(&derived(&world).await, &kept);
    assert_eq!(world.items("events").await.len(), events - READABLE.len());
    assert_eq!(hookswitch(&aws, &[&all], "").await.succeeded().out, "");
}

/// Marks a call as erased, as an eraser does first.
async fn erase(world: &World, session: &str) -> Item {
    let erased = [("session", session), ("state", "erased"), ("merged", "0123456789abcdef")];
    let item = erased.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))).into();
    put(tables(world), "sessions", &item).await;
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_an_erased_call_is_stored_again_and_its_quarantine_is_emptied() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(20)).await;
    let body = format!(r#"{{"session_id":"s1","contact_uri":"+919876543210","noise":"{}"}}"#, noise(30_000));
    put_aside(&world, Webhook::SessionEnd, &body, "2025-07-16T11:50:00Z").await;
    let mut erased = BTreeSet::from(["exotel#s1".to_owned()]);
    erased.extend(world.items("sessions").await.iter().map(|item| text(item, "session").to_owned()));
    for session in &erased {
        erase(&world, session).await;
    }
    let sessions = world.items("sessions").await;
    empty(tables(&world), &["transcripts", "recordings"]).await;
    let replayed =
        hookswitch(&aws, &[&["quarantine", "replay", "--all", "--yes"], &SINCE, &STACK], "").await.succeeded();
    assert!(replayed.out.ends_with(": deleted, since its call is erased\n"), "{}", replayed.out);
    assert_eq!(world.quarantined().await, [] as [Item; 0]);
    let objects = world.clients.s3.list_objects_v2().bucket(&world.stores().bucket).send().await.unwrap();
    let digest = tests::sha256(body.as_bytes());
    assert!(objects.contents().iter().all(|object| !object.key().unwrap().contains(&digest)), "its body is gone, too");

    let rebuilt = hookswitch(&aws, &[&["rebuild", "--yes", "--json"], &STACK], "").await.succeeded();
    let counts = json!({ "calls": erased.len() - 1, "differ": 0, "rebuilt": 0, "unread": 0, "failed": 0 });
    assert_eq!(rebuilt.json(), [counts]);
    assert_eq!(world.items("sessions").await, sessions);
    assert_eq!((world.items("transcripts").await, world.items("recordings").await), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn emptied_tables_are_rebuilt_to_exactly_the_items_that_were_there() {
    let one_by_one: &[&[&'static str]] = &[&DERIVED, &["sessions"], &["transcripts"], &["recordings"]];
    // While the calls went on, and so long after them that expiry counts from the receipt.
    for (from, rounds) in [("2025-07-16T12:00:00Z", one_by_one), ("2025-10-01T00:00:00Z", &one_by_one[..1])] {
        let world = World::with(&[("RETENTION_DAYS", "3650")], ticking(from)).await;
        let aws = Aws::of(world.endpoints()).await;
        aws.account().parameters.insert("RetentionDays".to_owned(), "3650".to_owned());
        let deliveries = wild_calls(30);
        deliver(&world, &deliveries).await;
        deliver(&world, &deliveries[..20]).await;
        // One turn twice, without a time of its own, so that it expires by the first receipt.
        for contact in ["", "+919876543210"] {
            let said = json!({ "transcripts": [{ "sequence": 1, "transcript_segments": [{ "text": "Hello" }] }] });
            let body = json!({ "session_id": "twice", "contact_uri": contact,
                "events": [{ "event_type": "transcript", "event_data": said }] });
            assert_eq!(world.deliver(Webhook::TranscriptEvents, body.to_string()).await.status, 200);
        }
        keep_as_fetched(&world, "fetched", Instant::parse(from).unwrap()).await;
        put_aside(&world, Webhook::SessionEnd, "not JSON", from).await;
        let before = everything(&world).await;
        let calls = before["sessions"].len();
        for emptied in rounds {
            empty(tables(&world), emptied).await;
            let dry = hookswitch(&aws, &[&["rebuild", "--dry-run", "--json"], &STACK], "").await.succeeded().json();
            let (counts, differences) = dry.split_last().expect("counts");
            assert_eq!(counts["calls"], calls);
            let missing: BTreeSet<_> = differences
                .iter()
                .map(|line| {
                    assert!(line["changes"].is_null(), "{line}");
                    ["table", "session", "item"].map(|name| line[name].as_str().unwrap_or_default().to_owned())
                })
                .collect();
            let was_there = emptied.iter().flat_map(|table| before[table].iter().map(move |item| (table, item)));
            let was_there: BTreeSet<_> = was_there
                .map(|(table, item)| {
                    let turn = item.get("turn").map_or_else(String::new, |turn| turn.as_s().unwrap().clone());
                    [(*table).to_owned(), text(item, "session").to_owned(), turn]
                })
                .collect();
            assert_eq!(missing, was_there);
            assert_eq!(differences.len(), was_there.len(), "each once");
            for table in *emptied {
                assert_eq!(world.items(table).await, [] as [Item; 0], "a dry run changes nothing");
            }

            let rebuilt = hookswitch(&aws, &[&["rebuild", "--yes", "--json"], &STACK], "").await.succeeded().json();
            assert_eq!(rebuilt.last().unwrap()["rebuilt"], counts["differ"]);
            // No archiver worked on the jobs: all of their attributes are the wanted half's.
            assert_same(&everything(&world).await, &before);
            let again = hookswitch(&aws, &[&["rebuild", "--dry-run"], &STACK], "").await.succeeded();
            assert_eq!(again.out, format!("0 of {calls} calls differ from their events, 0 are rebuilt\n"));
        }
    }
}

/// A session that nobody posted, as it is stored when it was fetched from the platform.
async fn keep_as_fetched(world: &World, session: &str, received_at: Instant) {
    let body = json!({ "timestamp": received_at, "data": { "session_id": session,
        "transcript": [{ "role": "user", "content": "Hello", "timestamp": received_at }] } });
    let body = body.to_string();
    let body = Verified::known(body.as_bytes());
    let delivery = Delivery::read(Webhook::SessionCompleted, &body, Source::Reconciler, Country::default()).unwrap();
    store(world, Some(3650)).keep(&delivery, &body, Source::Reconciler, received_at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_change_is_named_and_no_value_told() {
    let world = World::with(&[], at("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(20)).await;
    let before = everything(&world).await;
    // As if a delivery had come to less.
    let mut session = before["sessions"].iter().find(|item| item.contains_key("contact")).unwrap().clone();
    session.retain(|name, _| !["contact", "landing_number"].contains(&name.as_str()));
    put(tables(&world), "sessions", &session).await;
    let mut turn = before["transcripts"].iter().find(|item| item.contains_key("rank")).unwrap().clone();
    turn.insert("rank".to_owned(), AttributeValue::S("0#".to_owned()));
    turn.insert("segments".to_owned(), AttributeValue::L(vec![]));
    put(tables(&world), "transcripts", &turn).await;
    let mut job = before["recordings"][0].clone();
    job.insert("wanted".to_owned(), AttributeValue::S("-#0".to_owned()));
    job.insert("source_url".to_owned(), AttributeValue::S("https://older.example".to_owned()));
    put(tables(&world), "recordings", &job).await;
    let changed = everything(&world).await;

    let dry = hookswitch(&aws, &[&["rebuild", "--dry-run", "--port", port(&world)]], "").await.succeeded();
    let line = |item: &Item, rest: &str| format!("{}: {rest}\n", text(item, "session"));
    for line in [
        line(&session, "sessions: differs in contact, landing_number"),
        line(&turn, &format!("transcripts {}: differs in rank, segments", text(&turn, "turn"))),
        line(&job, "recordings: differs in source_url, wanted"),
    ] {
        assert!(dry.out.contains(&line), "{line} is not in {}", dry.out);
    }
    assert_eq!(dry.out.lines().count(), 4, "{}", dry.out);
    let asked = hookswitch(&aws, &[&["rebuild", "--port", port(&world)]], "n\n").await.failed("nothing was changed");
    let calls = BTreeSet::from([&session, &turn, &job].map(|item| text(item, "session"))).len();
    assert!(asked.err.contains(&format!("Rebuild {calls} calls? [y/N]")), "{}", asked.err);
    assert_same(&everything(&world).await, &changed);

    let rebuilt = hookswitch(&aws, &[&["rebuild", "--port", port(&world)]], "y\n").await.succeeded();
    assert!(rebuilt.out.ends_with(&format!("\n{calls} of 32 calls differ from their events, {calls} are rebuilt\n")));
    assert_same(&everything(&world).await, &before);
    empty(tables(&world), &DERIVED).await;
    let all = hookswitch(&aws, &[&["rebuild", "--json", "--yes", "--port", port(&world)]], "").await.succeeded();
    for told in [dry.out, rebuilt.out, rebuilt.err, all.out, all.err] {
        for private in ["+91", "+1415", "word", "anna", "Anna", "Hello", "gold", "https://", "Signature"] {
            assert!(!told.contains(private), "{private} is told");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_better_than_the_events_say_stays() {
    let world = World::with(&[], at("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(20)).await;
    let events = world.items("events").await;
    let (lost, kept): (Vec<_>, Vec<_>) = events.iter().enumerate().partition(|(index, _)| index % 3 == 0);
    for (_, event) in lost {
        delete(tables(&world), "events", event).await;
    }
    // One under the wrong call says nothing of it.
    let mut strayed = kept.last().unwrap().1.clone();
    strayed.insert("session".to_owned(), AttributeValue::S("exotel#somebody-else".to_owned()));
    put(tables(&world), "events", &strayed).await;
    let before = everything(&world).await;
    let rebuilt = hookswitch(&aws, &[&["rebuild", "--yes"], &STACK], "").await.failed("1 events cannot be read");
    assert!(rebuilt.out.contains("exotel#somebody-else: event "), "{}", rebuilt.out);
    assert!(rebuilt.out.contains(": its body is another call's\n0 of "), "{}", rebuilt.out);
    assert_same(&everything(&world).await, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_archiver_said_comes_back_from_where_it_is_left() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let stores = process.endpoints.stores.as_ref().unwrap();
    let of = (&stores.connect().unwrap(), stores);
    let aws = Aws::of(&process.endpoints).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    hookswitch(&aws, &[&["simulate", "--calls", "6", "--port", port]], "").await.succeeded();
    let url = "https://recordings.example.com/r.wav?Signature=top-secret";
    let body = json!({ "timestamp": Instant::now(), "data": { "session_id": "elsewhere", "recording_url": url } });
    let elsewhere = Planned {
        webhook: Webhook::SessionCompleted,
        session_id: "elsewhere".to_owned(),
        body: body.to_string().into_bytes(),
    };
    assert!(tests::post(&tests::http_client(), &process.endpoints, &elsewhere).await);
    let ended = async || {
        for _ in 0..300 {
            let jobs = items(of.0, of.1, "recordings").await;
            if jobs.iter().all(|job| !job.contains_key("unfinished")) {
                return jobs;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the archiver does not come to an end");
    };
    let jobs = ended().await;
    let states = jobs.iter().map(|job| text(job, "state")).collect::<Vec<_>>();
    assert_eq!(states, ["rejected", "archived", "archived", "archived"]);
    let sessions = items(of.0, of.1, "sessions").await;

    empty(of, &["sessions"]).await;
    hookswitch(&aws, &[&["rebuild", "--yes", "--port", port]], "").await.succeeded();
    // Nothing says any more when a recording was rejected, and with it go what tells instants apart, and the digest.
    let but = |names: &[&str], items: &[Item]| -> Vec<Item> {
        let mut items = items.to_vec();
        for item in &mut items {
            item.retain(|name, _| !names.contains(&name.as_str()));
        }
        items
    };
    let mut rebuilt = items(of.0, of.1, "sessions").await;
    let rejected = rebuilt.iter().position(|item| text(item, "session") == "vocobase#elsewhere").unwrap();
    let instants = ["said_at", "said_earlier", "merged"];
    assert_eq!(but(&instants, &rebuilt[rejected..=rejected]), but(&instants, &sessions[rejected..=rejected]));
    rebuilt[rejected] = sessions[rejected].clone();
    // Nor can a brief be had again as it was: what was known when it was asked for is not told by what is known now.
    let mut without_brief = sessions.clone();
    for (before, after) in without_brief.iter_mut().zip(&mut rebuilt).filter(|(before, _)| before.contains_key("brief"))
    {
        assert!(!after.contains_key("brief"));
        *before = but(&["brief", "said_earlier", "merged"], std::slice::from_ref(before)).remove(0);
        *after = but(&["said_earlier", "merged"], std::slice::from_ref(after)).remove(0);
    }
    assert_eq!(rebuilt, without_brief);

    let sessions = items(of.0, of.1, "sessions").await;
    empty(of, &["recordings"]).await;
    hookswitch(&aws, &[&["rebuild", "--yes", "--port", port]], "").await.succeeded();
    // What was found in the recording, and how often it was tried, no other item tells.
    let found = ["attempts", "bytes", "sha256", "content_type"];
    assert_eq!(but(&found, &ended().await), but(&found, &jobs));
    // Nothing was fetched again but what had been rejected, and no call heard of a recording that expired.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(but(&instants, &items(of.0, of.1, "sessions").await), but(&instants, &sessions));
    let again = hookswitch(&aws, &[&["rebuild", "--dry-run", "--port", port]], "").await.succeeded();
    assert_eq!(again.out, "0 of 7 calls differ from their events, 0 are rebuilt\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_is_interrupted_is_completed_by_the_next() {
    let world = World::with(&[("RETENTION_DAYS", "365")], tests::now()).await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(20)).await;
    let before = everything(&world).await;
    // Of all calls, and of the one whose transcript has the most chunks.
    let chunks = |items: &[Item], call: &Item| {
        let of_it =
            |item: &&Item| item["session"] == call["session"] && text(item, "turn").starts_with(text(call, "revision"));
        items.iter().filter(of_it).count()
    };
    let told = before["sessions"].iter().filter(|call| call.contains_key("revision"));
    let longest = told.max_by_key(|call| chunks(&before["transcripts"], call)).unwrap();
    assert!(chunks(&before["transcripts"], longest) > 1);
    let longest = ["--session", text(longest, "session")];
    for (operation, after, which) in
        [(".PutItem", 7, &[][..]), (".UpdateItem", 7, &[]), (".PutItem", 0, &longest), (".PutItem", 1, &longest)]
    {
        empty(tables(&world), &DERIVED).await;
        let (proxy, mut stalled) = stalling(&world, operation, after).await;
        let rebuild = [&["rebuild", "--yes"], &STACK[..]].concat();
        let interrupted = [&rebuild, which].concat();
        let mut interrupted = aws.command(&interrupted).env("AWS_ENDPOINT_URL_DYNAMODB", proxy).spawn().unwrap();
        stalled.recv().await.expect("it comes so far");
        interrupt(&mut interrupted).await;
        let partly = derived(&world).await;
        assert_ne!(partly["sessions"], before["sessions"]);
        // No call names a transcript that is not whole.
        for call in partly["sessions"].iter().filter(|call| call.contains_key("revision")) {
            assert_eq!(chunks(&partly["transcripts"], call), chunks(&before["transcripts"], call));
        }
        hookswitch(&aws, &[&rebuild], "").await.succeeded();
        assert_same(&everything(&world).await, &before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_may_come_while_tables_are_rebuilt() {
    let now = at("2025-07-16T12:00:00Z");
    let (tidy, world) = (World::with(&[], Arc::clone(&now)).await, World::with(&[], now).await);
    let aws = Aws::of(world.endpoints()).await;
    let deliveries = wild_calls(20);
    deliver(&tidy, &deliveries).await;
    let delivering = stream::iter(&deliveries).for_each_concurrent(4, async |delivery| {
        assert_eq!(world.deliver(delivery.webhook, delivery.body.clone()).await.status, 200);
    });
    let rebuilding = async {
        let mut rebuilt = 0;
        for _ in 0..8 {
            let done =
                hookswitch(&aws, &[&["rebuild", "--yes", "--json", "--port", port(&world)]], "").await.succeeded();
            rebuilt += done.json().last().unwrap()["rebuilt"].as_u64().unwrap();
            // So that there is something to rebuild.
            for session in world.items("sessions").await.iter().step_by(3) {
                delete(tables(&world), "sessions", session).await;
            }
        }
        rebuilt
    };
    let ((), rebuilt) = futures_util::future::join(delivering, rebuilding).await;
    assert!(rebuilt > 0);
    hookswitch(&aws, &[&["rebuild", "--yes", "--port", port(&world)]], "").await.succeeded();
    assert_same(&everything(&world).await, &everything(&tidy).await);
}

/// Changes what the bucket holds of an event's body, or deletes it.
async fn damage(world: &World, event: &Item, body: Option<&[u8]>) {
    let (bucket, key) = text(event, "body_s3").trim_start_matches("s3://").split_once('/').unwrap();
    match body {
        None => drop(world.clients.s3.delete_object().bucket(bucket).key(key).send().await.unwrap()),
        Some(body) => {
            let put = world.clients.s3.put_object().bucket(bucket).key(key).body(body.to_vec().into());
            put.send().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_damaged_is_named_and_does_not_stop_the_others() {
    let (world, other) = (World::new().await, World::new().await);
    let aws = Aws::of(world.endpoints()).await;
    for session in ["damaged", "truncated", "lost", "sound"] {
        let end =
            json!({ "session_id": session, "end_time": "2025-07-16T11:42:00Z", "noise": noise(30_000), "of": session });
        assert_eq!(world.deliver(Webhook::SessionEnd, end.to_string()).await.status, 200);
        let start = json!({ "session_id": session, "start_time": "2025-07-16T11:41:00Z" });
        assert_eq!(world.deliver(Webhook::SessionStart, start.to_string()).await.status, 200);
    }
    let events = world.items("events").await;
    let in_bucket = |session: &str| {
        let is_it = |item: &&Item| text(item, "session") == session && item.contains_key("body_s3");
        events.iter().find(is_it).expect("a large body")
    };
    // Another body, whole in itself.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(br#"{"session_id":"damaged","contact_uri":"+919876543210"}"#).unwrap();
    damage(&world, in_bucket("exotel#damaged"), Some(&gzip.finish().unwrap())).await;
    damage(&world, in_bucket("exotel#truncated"), Some(b"\x1f\x8b")).await;
    damage(&world, in_bucket("exotel#lost"), None).await;
    empty(tables(&world), &DERIVED).await;

    let rebuilt = hookswitch(&aws, &[&["rebuild", "--yes"], &STACK], "").await.failed("3 events cannot be read");
    for (session, why) in [("damaged", "not as it was put"), ("truncated", "not as it was put"), ("lost", "NoSuchKey")]
    {
        let key = format!("exotel#{session}");
        let event = text(in_bucket(&key), "event");
        let line = format!("{key}: event {event}: the store failed on a read of the body ({why})\n");
        assert!(rebuilt.out.contains(&line), "{line} is not in {}", rebuilt.out);
    }
    let states: Vec<_> = world.items("sessions").await.iter().map(|item| text(item, "state").to_owned()).collect();
    // Damaged, lost and truncated calls have their beginning; the sound one also its end.
    assert_eq!(states, ["in_progress", "in_progress", "ended", "in_progress"]);
    assert!(rebuilt.out.ends_with("4 of 4 calls differ from their events, 4 are rebuilt\n"), "{}", rebuilt.out);

    let replayed = hookswitch(&aws, &[&["replay", "--json", "--to", &other.run.base], &STACK], "").await;
    let replayed = replayed.failed("3 events cannot be read").json();
    assert_eq!(replayed.len(), 4);
    let summary =
        json!({ "calls": 4, "deliveries": 5, "retries": 0, "given_up": 0, "unread": 3, "statuses": { "200": 5 } });
    assert_eq!(replayed[3], summary);
    assert_eq!(other.items("events").await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_refuses_is_named_and_does_not_stop_the_rest() {
    let world = World::with(&[("RETENTION_DAYS", "365")], tests::now()).await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(5)).await;
    // A turn's key holds the bot's id, and has no room for this one.
    let transcript = json!({ "sequence": 1, "transcript_segments": [{ "text": "Hello" }] });
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [transcript] } });
    let body = json!({ "session_id": "refused", "bot_id": "b".repeat(2_000), "events": [event] });
    assert_eq!(world.deliver(Webhook::TranscriptEvents, body.to_string()).await.status, 200);
    assert_eq!(world.quarantined().await.len(), 1);
    let before = everything(&world).await;
    empty(tables(&world), &DERIVED).await;
    let rebuilt = hookswitch(&aws, &[&["rebuild", "--yes"], &STACK], "").await.failed("1 calls failed");
    assert!(rebuilt.out.contains("exotel#refused: the store refuses a transcript item\n"), "{}", rebuilt.out);
    assert_same(&everything(&world).await, &before);
    let replayed = hookswitch(&aws, &[&["quarantine", "replay", "--all", "--yes"], &STACK], "").await;
    replayed.failed(": stays: the store refuses a turn");
    assert_same(&everything(&world).await, &before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_or_those_of_late_are_rebuilt_and_what_has_expired_is_left_alone() {
    let world = World::with(&[], ticking("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    for session in ["s1", "s2", "s3"] {
        for webhook in [Webhook::SessionStart, Webhook::SessionEnd] {
            assert_eq!(world.deliver(webhook, json!({ "session_id": session }).to_string()).await.status, 200);
        }
    }
    empty(tables(&world), &DERIVED).await;
    let mut events = world.items_of("events", "exotel#s1").await;
    for event in &mut events {
        event.insert("expires_at".to_owned(), AttributeValue::N("1784203200".to_owned()));
        put(tables(&world), "events", event).await;
    }
    let sessions = async || -> Vec<String> {
        world.items("sessions").await.iter().map(|item| text(item, "session").to_owned()).collect()
    };
    let since = text(&world.items_of("events", "exotel#s3").await[1], "received_at").to_owned();
    for (which, rebuilt) in [
        (vec!["--session", "exotel#nobody"], vec![]),
        (vec!["--session", "exotel#s2"], vec!["exotel#s2"]),
        (vec!["--since", "2h"], vec!["exotel#s2"]),
        // The whole of a call of which one delivery came since then.
        (vec!["--since", &since], vec!["exotel#s2", "exotel#s3"]),
        (vec![], vec!["exotel#s2", "exotel#s3"]),
    ] {
        hookswitch(&aws, &[&["rebuild", "--yes"], &STACK, &which], "").await.succeeded();
        assert_eq!(sessions().await, rebuilt, "{which:?}");
    }
    assert_eq!(text(&world.items("sessions").await[1], "state"), "ended");
    for (wrong, says) in [
        (["--session", "s1"], "a session key begins with exotel# or vocobase#"),
        (["--since", "yesterday"], "neither a date, nor an instant"),
    ] {
        let done = hookswitch(&aws, &[&["rebuild"], &wrong], "").await;
        assert!(done.code == Some(2) && done.err.contains(says), "{}", done.err);
    }
    aws.account().parameters.remove("RetentionDays");
    hookswitch(&aws, &[&["rebuild", "--dry-run"], &STACK], "").await.failed("has no parameter RetentionDays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_is_no_error() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(5)).await;
    assert_eq!(world.deliver(Webhook::SessionEnd, "not JSON").await.status, 200);
    empty(tables(&world), &DERIVED).await;
    let other = World::new().await;
    for command in [
        vec!["quarantine", "list"],
        vec!["rebuild", "--dry-run"],
        vec!["rebuild", "--yes"],
        vec!["replay", "--to", &other.run.base],
    ] {
        let mut child = aws.command(&[&command, &STACK[..]].concat()).spawn().unwrap();
        drop(child.stdout.take());
        assert!(child.wait().await.unwrap().success(), "{command:?}");
    }
    assert_eq!(world.items("sessions").await.len(), other.items("sessions").await.len());
}

/// Items without when they were received.
fn but_received(tables: BTreeMap<&'static str, Vec<Item>>) -> BTreeMap<&'static str, Vec<Item>> {
    let mut tables = tables;
    for item in tables.values_mut().flatten() {
        item.remove("received_at");
    }
    tables
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_another_local_run_gives_equal_tables_and_a_second_one_changes_nothing() {
    let (world, other) = (World::new().await, World::with(&[("VOCOBASE_SECRETS", "whsec_other")], tests::now()).await);
    let aws = Aws::of(world.endpoints()).await;
    deliver(&world, &wild_calls(20)).await;
    put_aside(&world, Webhook::SessionEnd, "not JSON", "2025-07-16T11:50:00Z").await;
    let replay = ["replay", "--port", port(&world), "--json", "--to", &other.run.base];
    let dry = hookswitch(&aws, &[&replay, &["--dry-run"]], "").await.succeeded().json();
    let events = world.items("events").await.len() - 1;
    let calls = world.items("sessions").await.len();
    let nothing =
        json!({ "calls": calls, "deliveries": events, "retries": 0, "given_up": 0, "unread": 0, "statuses": {} });
    assert_eq!(dry, [nothing]);
    assert_eq!(other.items("events").await, [] as [Item; 0]);

    let sent = hookswitch(&aws, &[&replay], "").await.succeeded();
    assert_eq!(sent.json()[0]["statuses"], json!({ "200": events }));
    for secret in ["token=", "whsec", "sha256=", "+91"] {
        assert!(!sent.out.contains(secret) && !sent.err.contains(secret));
    }
    for item in world.quarantined().await {
        delete(tables(&world), "events", &item).await;
    }
    let replayed = everything(&other).await;
    assert_same(&but_received(replayed.clone()), &but_received(everything(&world).await));
    hookswitch(&aws, &[&replay], "").await.succeeded();
    assert_same(&everything(&other).await, &replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_reconciler_fetched_is_rebuilt_as_such_and_replayed_as_a_webhook() {
    let (world, other) = (World::new().await, World::new().await);
    let aws = Aws::of(world.endpoints()).await;
    keep_as_fetched(&world, "fetched", Instant::now()).await;
    let sessions = world.items("sessions").await;
    assert!(text(&sessions[0], "revision").starts_with("reconciler#"));
    empty(tables(&world), &["sessions"]).await;
    hookswitch(&aws, &[&["rebuild", "--yes"], &STACK], "").await.succeeded();
    assert_eq!(text(&world.items("sessions").await[0], "revision"), text(&sessions[0], "revision"));
    hookswitch(&aws, &[&["replay", "--to", &other.run.base], &STACK], "").await.succeeded();
    assert!(text(&other.items("sessions").await[0], "revision").starts_with("webhook#"));
}

/// What a stand-in for a bundle heard: when, which webhook, the signature's headers, the body.
type Heard = Arc<Mutex<Vec<(std::time::Instant, String, Vec<String>, Bytes)>>>;

/// Functions that answer as they are told, one answer after another and then 200, in an endpoints file.
async fn stand_in(answers: Vec<u16>) -> (tempfile::NamedTempFile, Heard) {
    let (heard, answers) = (Heard::default(), Arc::new(Mutex::new(answers.into_iter())));
    let listener = Arc::clone(&heard);
    let url = serve(move |request| {
        let (heard, answers) = (Arc::clone(&listener), Arc::clone(&answers));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let header = |name| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            let headers = vec![header(vocobase::TIMESTAMP), header(vocobase::SIGNATURE)];
            let webhook = parts.uri.path().trim_matches('/').to_owned();
            heard.lock().unwrap().push((std::time::Instant::now(), webhook, headers, body));
            respond(answers.lock().unwrap().next().unwrap_or(200), "application/json", "{}")
        }
    });
    let url = url.await;
    let mut endpoints: BTreeMap<String, String> =
        Webhook::ALL.map(|webhook| (webhook.name().to_owned(), format!("{url}/{}/", webhook.name()))).into();
    endpoints.insert("vocobase_secret".to_owned(), "whsec_other".to_owned());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(json!(endpoints).to_string().as_bytes()).unwrap();
    (file, heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_calls_deliveries_are_replayed_verbatim_in_the_order_in_which_they_were_received() {
    let world = World::with(&[], ticking("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    let mut sent = Vec::new();
    for number in 0..6 {
        let webhook = Webhook::ALL[5 - number];
        let length = if number == 2 { 30_000 } else { number };
        let body = match webhook {
            Webhook::SessionCompleted => r#"{ "data":{"session_id" : "s1"}}"#.to_owned(),
            _ => format!(r#"{{ "session_id" : "s1", "noise":"{}"}}"#, noise(length)),
        };
        assert_eq!(world.deliver(webhook, body.clone()).await.status, 200);
        sent.push((webhook.name().to_owned(), body));
    }
    let (file, heard) = stand_in(vec![]).await;
    let to = ["replay", "--to", file.path().to_str().unwrap()];
    let began = std::time::Instant::now();
    hookswitch(&aws, &[&to, &STACK, &["--rate", "10"]], "").await.succeeded();
    assert!(began.elapsed() >= Duration::from_millis(500), "six at ten a second take half a second");
    let replayed = std::mem::take(&mut *heard.lock().unwrap());
    let (exotel, vocobase): (Vec<_>, Vec<_>) =
        replayed.iter().partition(|(_, webhook, ..)| webhook != "session_completed");
    let bodies = |heard: &[&(_, String, _, Bytes)]| -> Vec<(String, String)> {
        heard.iter().map(|(_, webhook, _, body)| (webhook.clone(), String::from_utf8(body.to_vec()).unwrap())).collect()
    };
    assert_eq!([bodies(&vocobase), bodies(&exotel)].concat(), sent);
    let (_, _, headers, body) = vocobase[0];
    assert_eq!(headers[1], vocobase::sign(&Secret::new("whsec_other"), &headers[0], body));
    let age = Instant::now().millis_since(Instant::parse(&headers[0]).unwrap());
    assert!((0..60_000).contains(&age), "signed now: {age}");

    // Of the call's deliveries only those that came since then.
    let since = text(&world.items_of("events", "exotel#s1").await[3], "received_at").to_owned();
    let later = world.items("events").await.iter().filter(|item| text(item, "received_at") >= since.as_str()).count();
    hookswitch(&aws, &[&to, &STACK, &["--since", &since]], "").await.succeeded();
    assert_eq!(std::mem::take(&mut *heard.lock().unwrap()).len(), later);
    hookswitch(&aws, &[&to, &STACK, &["--session", "vocobase#s1"]], "").await.succeeded();
    assert_eq!(heard.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_answered_2xx_is_replayed_again_and_named_when_it_is_given_up() {
    let world = World::with(&[], ticking("2025-07-16T12:00:00Z")).await;
    let aws = Aws::of(world.endpoints()).await;
    for webhook in [Webhook::SessionStart, Webhook::SessionEnd] {
        assert_eq!(world.deliver(webhook, r#"{"session_id":"s1"}"#).await.status, 200);
    }
    let (file, heard) = stand_in(vec![503, 200, 503, 504, 503, 413]).await;
    let replay = ["replay", "--json", "--to", file.path().to_str().unwrap()];
    let replayed = hookswitch(&aws, &[&replay, &STACK], "").await.failed("1 deliveries were never answered 2xx");
    let [trouble, summary] = &replayed.json()[..] else { panic!("{}", replayed.out) };
    let event = text(&world.items("events").await[0], "event").to_owned();
    assert_eq!(*trouble, json!({ "session": "exotel#s1", "event": event, "trouble": "never answered 2xx" }));
    let statuses = json!({ "200": 1, "413": 1, "503": 3, "504": 1 });
    assert_eq!(
        *summary,
        json!({ "calls": 1, "deliveries": 2, "retries": 4, "given_up": 1, "unread": 0, "statuses": statuses })
    );
    let webhooks: Vec<_> = heard.lock().unwrap().iter().map(|(_, webhook, ..)| webhook.clone()).collect();
    assert_eq!(webhooks, [vec!["session_start"; 2], vec!["session_end"; 4]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_not_replayed_to_itself_by_whatever_name() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(hookswitch(&aws, &[&["urls", "--json"], &STACK], "").await.out.as_bytes()).unwrap();
    let (by_ip, by_name) = (world.run.base.clone(), world.run.base.replace("127.0.0.1", "localhost"));
    for from in [&["--port", port(&world)], &STACK] {
        for to in [&by_ip, &by_name, "stack:prod", file.path().to_str().unwrap()] {
            let refused = hookswitch(&aws, &[&["replay", "--to", to], from], "").await;
            refused
                .failed("these deliveries are stored there already; to derive its tables from them again: hookswitch");
        }
    }
    for (to, says) in [
        ("stack:staging", "the stack staging cannot be looked up"),
        ("http://127.0.0.1:9", "nothing answers at http://127.0.0.1:9/endpoints"),
        ("nowhere.json", "nowhere.json cannot be read"),
    ] {
        hookswitch(&aws, &[&["replay", "--to", to], &STACK], "").await.failed(says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_session_tokens_are_taken_a_replay_uses_those_that_are_handed_out() {
    let world = World::new().await;
    let other = World::with(&[("EXOTEL_SESSION_TOKENS_ONLY", "true")], tests::now()).await;
    let webhooks = ["session_end", "pre_agent_transfer", "insights_events", "transcript_events"];
    let webhooks = webhooks.map(|name| (name.to_owned(), AttributeValue::M(Item::new()))).into();
    let profile = [("profile", AttributeValue::S("default".to_owned())), ("webhooks", AttributeValue::M(webhooks))];
    put(tables(&other), "profiles", &profile.map(|(name, value)| (name.to_owned(), value)).into()).await;
    let aws = Aws::of(world.endpoints()).await;
    for webhook in [Webhook::SessionStart, Webhook::TranscriptEvents, Webhook::SessionEnd] {
        assert_eq!(world.deliver(webhook, r#"{"session_id":"s1"}"#).await.status, 200);
    }
    let replayed = hookswitch(&aws, &[&["replay", "--to", &other.run.base], &STACK], "").await.succeeded();
    assert_eq!(replayed.out, "1 calls, 3 deliveries\nanswers     200: 3 (0 retries, 0 given up)\n");
    assert_same(&but_received(everything(&other).await), &but_received(everything(&world).await));
}
