//! Calls whose webhook never came, and recordings whose URL stopped working: the platform is asked, and what it says is
//! kept as if nothing had been missing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::reconciler::api::Patience;
use ::reconciler::{Ended, Found, Reconciler};
use aws_sdk_dynamodb::types::AttributeValue;
use cli::dev::{Data, LocalRun, Setup};
use recording_archiver::source::{Hosts, Limits, Sources};
use recording_archiver::{Archiver, Outcome};
use serde_json::{Value, json};
use shared::config::{ConfigError, Storage};
use shared::recording::State;
use shared::storage::{Clients, item_to_segments};
use shared::{Clock, Instant, Provider, SessionKey, Webhook};
use tests::faults::layer::{Layer, Mishap};
use tests::faults::{Fault, Place, When, between};
use tests::log::Log;
use tests::platform::{Call, Instead, KEY, Line, Platform};
use tests::secrets_manager::{ARN, SecretsManager};
use tests::source::{Content, Reply, Source};
use tests::units::Operations;
use tests::{Item, World, text};
use tokio::sync::Notify;
use tokio::time;
use tracing::instrument::WithSubscriber;

/// When the calls are made, unless a story says otherwise. They end 128 seconds later.
const MADE: &str = "2026-03-15T14:30:00Z";
/// When the platform is asked.
const NOW: &str = "2026-03-15T15:00:00Z";
const SIGNATURE: &str = "marker5ignature";
const HOUR: i64 = 60 * 60;

/// A world, a platform with calls, and the clock of both.
struct Scene {
    world: World,
    platform: Platform,
    now: Arc<Mutex<Instant>>,
}

fn instant(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

/// A call that was made at [`MADE`].
fn made(name: &str) -> Call {
    Call::completed(name, instant(MADE))
}

/// One that was made so long before [`NOW`].
fn made_ago(name: &str, seconds: i64) -> Call {
    Call::completed(name, instant(NOW).plus_seconds(-seconds))
}

fn session_of(name: &str) -> String {
    format!("vocobase#s-{name}")
}

fn key(name: &str) -> SessionKey {
    SessionKey::new(Provider::Vocobase, &format!("s-{name}")).unwrap()
}

/// Signed at [`MADE`] for so many seconds.
fn signed(address: &str, path: &str, seconds: i64) -> String {
    format!("http://{address}/{path}?X-Amz-Date=20260315T143000Z&X-Amz-Expires={seconds}&X-Amz-Signature={SIGNATURE}")
}

fn soon() -> time::Instant {
    time::Instant::now() + Duration::from_mins(5)
}

/// Waits that a test has time for; requests have all the time that a busy machine takes.
fn patience() -> Patience {
    Patience { first_wait: Duration::from_millis(10), ..Patience::default() }
}

/// What a run came to that looked at everything.
fn complete(ended: Ended) -> Found {
    match ended {
        Ended::Complete(found) => found,
        other => panic!("{other:?}"),
    }
}

fn found(listed: u32, recovered: u32) -> Found {
    Found { listed, recovered, ..Found::default() }
}

fn lists(paths: &[String]) -> Vec<&str> {
    paths.iter().map(String::as_str).filter(|path| path.starts_with("/calls?")).collect()
}

/// The calls that were asked for alone.
fn details(paths: &[String]) -> Vec<&str> {
    let alone = paths.iter().filter_map(|path| path.strip_prefix("/calls/"));
    alone.filter(|rest| !rest.contains('/')).collect()
}

impl Scene {
    async fn new() -> Self {
        Self::with(&[]).await
    }

    async fn with(environment: &[(&str, &str)]) -> Self {
        let now = Arc::new(Mutex::new(instant(NOW)));
        let clock: Clock = {
            let now = Arc::clone(&now);
            Arc::new(move || *now.lock().unwrap())
        };
        Self { world: World::with(environment, clock).await, platform: Platform::start().await, now }
    }

    /// With calls on the platform.
    async fn of(calls: impl IntoIterator<Item = Call>) -> Self {
        let scene = Self::new().await;
        calls.into_iter().for_each(|call| scene.platform.make(call));
        scene
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.now);
        Arc::new(move || *now.lock().unwrap())
    }

    fn now(&self) -> Instant {
        *self.now.lock().unwrap()
    }

    fn pass(&self, seconds: i64) {
        let mut now = self.now.lock().unwrap();
        *now = now.plus_seconds(seconds);
    }

    fn build(
        &self,
        further: &[(&str, &str)],
        patience: Patience,
        between: impl FnOnce(&Clients) -> Clients,
    ) -> Result<Reconciler, ConfigError> {
        let mut environment = self.world.environment();
        environment.insert("VOCOBASE_API_URL".to_owned(), self.platform.url.clone());
        environment.insert("VOCOBASE_API_KEY".to_owned(), KEY.to_owned());
        environment.extend(further.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let lookup = |name: &str| environment.get(name).cloned();
        Reconciler::new(&lookup, between(&self.world.clients), patience, self.clock())
    }

    fn reconciler(&self) -> Reconciler {
        self.configured(&[])
    }

    fn configured(&self, further: &[(&str, &str)]) -> Reconciler {
        self.build(further, patience(), Clone::clone).unwrap()
    }

    /// Another instance, which looks once.
    async fn reconcile(&self) -> Ended {
        self.reconciler().reconcile(soon()).await
    }

    async fn deliver(&self, call: &Call) {
        assert_eq!(self.world.deliver(Webhook::SessionCompleted, call.webhook()).await.status, 200);
    }

    async fn call(&self, name: &str) -> Item {
        let items = self.world.items_of("sessions", &session_of(name)).await;
        assert_eq!(items.len(), 1, "{name}: {items:?}");
        items.into_iter().next().unwrap()
    }

    async fn job(&self, name: &str) -> Item {
        let items = self.world.items_of("recordings", &session_of(name)).await;
        assert_eq!(items.len(), 1, "{name}: {items:?}");
        items.into_iter().next().unwrap()
    }

    async fn state_of_job(&self, name: &str) -> String {
        text(&self.job(name).await, "state").to_owned()
    }

    /// The calls that are stored.
    async fn stored(&self) -> Vec<String> {
        let calls = self.world.items("sessions").await;
        let mut ids: Vec<String> = calls.iter().map(|call| text(call, "session_id").to_owned()).collect();
        ids.sort();
        ids
    }

    async fn assert_nothing_stored(&self) {
        for table in ["events", "sessions", "transcripts", "recordings"] {
            assert_eq!(self.world.items(table).await, [] as [Item; 0], "{table}");
        }
    }

    /// All that is kept of a call, without what the call's own transcript is not.
    async fn kept(&self, name: &str) -> BTreeMap<&'static str, Vec<Item>> {
        let session = session_of(name);
        let call = self.call(name).await;
        let mut transcripts = self.world.items_of("transcripts", &session).await;
        transcripts.retain(|item| text(item, "turn").starts_with(text(&call, "revision")));
        let recordings = self.world.items_of("recordings", &session).await;
        BTreeMap::from([("sessions", vec![call]), ("transcripts", transcripts), ("recordings", recordings)])
    }

    async fn put(&self, table: &str, attributes: &[(&str, &str)]) {
        let mut put = self.world.clients.dynamodb.put_item().table_name(&self.world.stores().tables[table]);
        for (name, value) in attributes {
            put = put.item(*name, AttributeValue::S((*value).to_owned()));
        }
        put.send().await.unwrap();
    }

    async fn erase(&self, name: &str) {
        self.put("sessions", &[("session", &session_of(name)), ("state", "erased"), ("merged", "0123456789abcdef")])
            .await;
    }

    /// As the local run has it: sources on loopback.
    fn archiver(&self) -> Archiver {
        let environment = self.world.stores().environment();
        let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
        let nowhere: recording_archiver::source::Lookup = Arc::new(|name| {
            Box::pin(async move { Err(std::io::Error::other(format!("{name} is not to be looked up"))) })
        });
        let limits = Limits { connect: Duration::from_secs(5), stall: Duration::from_secs(10), ..Limits::default() };
        let sources = Sources::and_loopback(Hosts::s3(), limits, nowhere).unwrap();
        Archiver::new(storage, self.world.clients.clone(), sources, self.clock())
    }

    async fn archive(&self, name: &str) -> Outcome {
        self.archiver().archive(&key(name), "worker", soon()).await.unwrap()
    }

    /// That the bucket holds this recording, and that job and call say so.
    async fn assert_archived(&self, name: &str, content: &Content) {
        let (job, call) = (self.job(name).await, self.call(name).await);
        assert_eq!([text(&job, "state"), text(&call, "recording_state")], ["archived"; 2], "{name}");
        assert!(!job.contains_key("source_url") && !job.contains_key("unfinished"), "{job:?}");
        let (bucket, s3_key) = (&self.world.stores().bucket, text(&job, "s3_key"));
        assert_eq!(text(&call, "recording"), format!("s3://{bucket}/{s3_key}"));
        let object = self.world.clients.s3.get_object().bucket(bucket).key(s3_key).send().await.unwrap();
        assert_eq!(object.body.collect().await.unwrap().into_bytes(), content.bytes());
    }
}

/// A source whose URLs end in the wrong way or in the right one: `/expired…` answers 403, `/long…` more redirects than
/// are followed, and all else the recording.
async fn source_of(content: &Content) -> Source {
    let content = content.clone();
    Source::start(move |_, asked| match asked.path.split(['?', '.']).next() {
        Some("/expired") => Reply::status(403),
        Some("/long") => Reply::redirect(&asked.path),
        _ => content.answer(asked),
    })
    .await
}

// Calls.

/// Without what says when it was said, and by whom.
fn whatever_said_it(mut item: Item) -> Item {
    for name in ["revision", "merged", "said_at", "said_earlier"] {
        item.remove(name);
    }
    item
}

/// The transcript of a call as it is kept, chunk by chunk, without the revision's name.
fn chunks(kept: &BTreeMap<&str, Vec<Item>>, source: &str) -> Vec<Item> {
    let revision = text(&kept["sessions"][0], "revision");
    assert!(revision.starts_with(&format!("{source}#")), "{revision}");
    let chunk = |mut item: Item| {
        let turn = text(&item, "turn").strip_prefix(revision).unwrap().to_owned();
        item.insert("turn".to_owned(), AttributeValue::S(turn));
        item
    };
    kept["transcripts"].iter().cloned().map(chunk).collect()
}

/// What only webhooks say, by the API's documentation.
const ONLY_WEBHOOKS: [&str; 4] = ["bot_name", "variables", "disposition", "answered_by"];

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_webhook_never_came_is_stored_as_its_webhook_would_have_stored_it() {
    let url = signed("recordings.s3.amazonaws.com", "r.wav", 86_400);
    let mut older = made("1").recorded(&url);
    "2.10".clone_into(&mut older.session_mut().credits_used);
    let newer = made("1").recorded(&url).newer();
    let mut long = older.clone();
    let line = |turn: i64| Line {
        role: ["bot", "user"][usize::from(turn % 2 == 1)].to_owned(),
        content: format!("{turn} {}", "नमस्ते ".repeat(20)),
        timestamp: instant(MADE).plus_seconds(1).plus_millis(turn * 300),
        latency_ms: (turn % 2 == 0).then_some(700),
    };
    long.session_mut().transcript = (0..400).map(line).collect();
    for (call, with_everything) in [(&older, false), (&newer, false), (&newer, true), (&long, false)] {
        let environment = [("RETENTION_DAYS", "30")];
        let (told, asked) = (Scene::with(&environment).await, Scene::with(&environment).await);
        told.deliver(call).await;
        asked.platform.make(call.clone());
        if with_everything {
            asked.platform.tell_everything();
        }
        assert_eq!(complete(asked.reconcile().await), found(1, 1));

        let (mut told, asked_of) = (told.kept("1").await, asked.kept("1").await);
        let chunked = chunks(&asked_of, "reconciler");
        assert_eq!(chunks(&told, "webhook"), chunked);
        assert_eq!(chunked.len() > 1, call.session().transcript.len() > 100, "{} chunks", chunked.len());
        let said: usize = chunked.iter().map(|chunk| item_to_segments(chunk).unwrap().len()).sum();
        assert_eq!(said, call.session().transcript.len());
        let mut expected = whatever_said_it(told.remove("sessions").unwrap().remove(0));
        if !with_everything {
            expected.retain(|name, _| !ONLY_WEBHOOKS.contains(&name.as_str()));
        }
        assert_eq!(whatever_said_it(asked_of["sessions"][0].clone()), expected);
        assert_eq!(text(&expected, "credits_used"), if call.session().extraction.is_some() { "2.12" } else { "2.1" });
        assert!(expected.contains_key("expires_at") && expected.contains_key("day"));
        assert_eq!(told["recordings"], asked_of["recordings"]);

        let events = asked.world.items("events").await;
        assert_eq!(events.len(), 1);
        assert_eq!([text(&events[0], "source"), text(&events[0], "webhook")], ["reconciler", "session_completed"]);
        assert!(text(&events[0], "event").starts_with("session_completed#2026-03-15T14:32:08.000000Z#"));
        let body = String::from_utf8(asked.world.body(&events[0]).await).unwrap();
        assert!(body.contains(&format!(r#""credits_used":{}"#, call.session().credits_used)), "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!([&body["event"], &body["data"]["session_id"]], ["session.completed", "s-1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_known_are_not_asked_for_again() {
    let scene = Scene::new().await;
    for name in ["1", "2", "3", "4", "5"] {
        scene.deliver(&made(name)).await;
        scene.platform.make(made(name));
    }
    let operations = Operations::default();
    let reconciler = scene.build(&[], patience(), |clients| between(clients, &operations)).unwrap();
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(5, 0));
    assert_eq!(scene.platform.take_paths(), ["/calls?limit=100&offset=0"]);
    // One read for the page, and one of each shard for recordings that were lost.
    assert_eq!(operations.take(), BTreeMap::from([("BatchGetItem".to_owned(), 1), ("Query".to_owned(), 4)]));

    // Where a recording is waited for, there is a job; one more read tells.
    let waiting = made("waiting").recorded(&signed("recordings.s3.amazonaws.com", "r.wav", 86_400));
    scene.deliver(&waiting).await;
    scene.platform.make(waiting);
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(6, 0));
    assert_eq!(operations.take(), BTreeMap::from([("BatchGetItem".to_owned(), 2), ("Query".to_owned(), 4)]));
    assert_eq!(scene.platform.take_paths().len(), 1);

    // One that is missing costs one request, once.
    scene.platform.make(made("6"));
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(7, 1));
    assert_eq!(details(&scene.platform.take_paths()), ["c-6"]);
    assert_eq!(complete(scene.reconcile().await), found(7, 0));
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(7, 0));
    assert_eq!(details(&scene.platform.take_paths()), [] as [&str; 0]);
}

/// What the platform says when it is asked is not what its webhook said: some of it is older, and sorts last.
fn not_as_in_its_webhook(call: &Call) -> Call {
    let mut call = call.clone();
    let ahead = i64::from(call.call_id.ends_with('0'));
    let session = call.session_mut();
    "9.99".clone_into(&mut session.credits_used);
    session.extraction = Some(json!({ "status": "zzz" }));
    session.transcript.truncate(2);
    // The webhook is sent when the session ends; and the two clocks need not agree.
    session.ended_at = Some(session.sent_at.plus_seconds(ahead));
    call
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_comes_after_all_leaves_what_it_would_have_left_alone() {
    let url = signed("recordings.s3.amazonaws.com", "r.wav", 86_400);
    let calls = ["10", "11"].map(|name| made(name).recorded(&url).newer());
    let alone = Scene::new().await;
    let (after, before, meanwhile) = (Scene::new().await, Scene::new().await, Scene::new().await);
    for call in &calls {
        alone.deliver(call).await;
        before.deliver(call).await;
        for scene in [&after, &before, &meanwhile] {
            scene.platform.make(not_as_in_its_webhook(call));
            scene.platform.tell_everything();
        }
    }

    assert_eq!(complete(after.reconcile().await), found(2, 2));
    for call in &calls {
        after.deliver(call).await;
    }
    assert_eq!(complete(before.reconcile().await), found(2, 0));
    assert_eq!(details(&before.platform.paths()), [] as [&str; 0]);
    // It comes when the call is known to be missing, and the platform is about to say what it knows.
    let go_on = Arc::new(Notify::new());
    let held = Arc::clone(&go_on);
    meanwhile.platform.script(move |_, asked| {
        (!details(std::slice::from_ref(&asked.path)).is_empty()).then(|| Instead::Waits(Arc::clone(&held)))
    });
    let reconciler = meanwhile.reconciler();
    let run = tokio::spawn(async move { reconciler.reconcile(soon()).await });
    for (nth, call) in calls.iter().rev().enumerate() {
        meanwhile.platform.asked(2 + nth).await;
        meanwhile.deliver(call).await;
        go_on.notify_one();
    }
    assert_eq!(complete(run.await.unwrap()), found(2, 0), "nothing was missing any more");

    for name in ["10", "11"] {
        let expected = alone.kept(name).await;
        for (when, scene) in [("after", &after), ("before", &before), ("meanwhile", &meanwhile)] {
            assert_eq!(scene.kept(name).await, expected, "{name}, {when}");
        }
        let events = after.world.items_of("events", &session_of(name)).await;
        let sources: Vec<&str> = events.iter().map(|event| text(event, "source")).collect();
        assert!(sources.contains(&"reconciler") && sources.contains(&"webhook") && sources.len() == 2, "{sources:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_that_come_while_it_looks_and_their_repetitions_have_the_last_word() {
    let url = signed("recordings.s3.amazonaws.com", "r.wav", 86_400);
    let calls: Vec<Call> = (10..34).map(|nth| made(&nth.to_string()).recorded(&url).newer()).collect();
    let (alone, together) = (Scene::new().await, Scene::new().await);
    for call in &calls {
        alone.deliver(call).await;
        together.platform.make(not_as_in_its_webhook(call));
    }
    together.platform.tell_everything();
    // Two runs at once, as when one is invoked by hand, and the webhooks, each twice.
    let deliver = async |calls: Vec<&Call>| {
        for call in calls {
            together.deliver(call).await;
        }
    };
    let (one, other, (), ()) = tokio::join!(
        together.reconcile(),
        together.reconcile(),
        deliver(calls.iter().collect()),
        deliver(calls.iter().rev().collect())
    );
    complete(one);
    complete(other);
    for call in &calls {
        let name = call.call_id.trim_start_matches("c-");
        assert_eq!(together.kept(name).await, alone.kept(name).await, "{name}");
    }
    together.platform.take_paths();
    assert_eq!(complete(together.reconcile().await), found(24, 0));
    assert_eq!(details(&together.platform.paths()), [] as [&str; 0]);
}

/// Webhooks do not say when a session began. Where nobody spoke, both are guesses, and the earlier one counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_in_which_nobody_spoke_began_when_the_api_says_that_it_ended_less_its_length() {
    let mut call = made("1");
    call.session_mut().transcript.clear();
    let (alone, scene) = (Scene::new().await, Scene::of([call.clone()]).await);
    alone.deliver(&call).await;
    assert_eq!(
        text(&alone.call("1").await, "started_at"),
        "2026-03-15T14:30:03.000000Z",
        "when it was sent, less that"
    );
    complete(scene.reconcile().await);
    let recovered = scene.call("1").await;
    assert_eq!(text(&recovered, "started_at"), "2026-03-15T14:30:01.000000Z");
    assert_eq!(text(&recovered, "ended_at"), "2026-03-15T14:32:08.000000Z");
    scene.deliver(&call).await;
    let (mut expected, mut both) = (alone.call("1").await, scene.call("1").await);
    for item in [&mut expected, &mut both] {
        item.remove("merged");
    }
    expected.insert("started_at".to_owned(), recovered["started_at"].clone());
    assert_eq!(both, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_over_or_led_to_nothing_is_left_alone_until_it_is_over() {
    let scene = Scene::new().await;
    scene.platform.make(Call::unanswered("nobody", instant(MADE)));
    for status in ["pending", "ringing", "in_progress"] {
        scene.platform.make(Call { status: status.to_owned(), ended_at: None, ..made(status) });
    }
    // Its webhook may still be on its way.
    scene.platform.make(made_ago("just", 128 + 110));
    let mut unfinished = made("unfinished").newer();
    unfinished.session_mut().processing_complete = Some(false);
    scene.platform.make(unfinished);
    scene.platform.make(Call { telephone: false, ..made("browser") });
    scene.platform.make(made("erased"));
    scene.erase("erased").await;
    let erased = scene.world.items("sessions").await;

    assert_eq!(complete(scene.reconcile().await), found(7, 0), "the platform does not list what is no telephone call");
    assert_eq!(details(&scene.platform.take_paths()), ["c-unfinished"]);
    assert_eq!(scene.world.items("sessions").await, erased);
    assert_eq!(scene.world.items("events").await, [] as [Item; 0]);

    scene.pass(11);
    scene.platform.change("c-unfinished", |call| call.session_mut().processing_complete = Some(true));
    scene.platform.change("c-ringing", |call| "completed".clone_into(&mut call.status));
    assert_eq!(complete(scene.reconcile().await), found(7, 3));
    let kept = scene.world.items("sessions").await;
    let mut sessions: Vec<&str> = kept.iter().map(|call| text(call, "session")).collect();
    sessions.sort_unstable();
    assert_eq!(sessions, ["erased", "just", "ringing", "unfinished"].map(session_of));
    assert!(kept.contains(&erased[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_erased_while_the_platform_answers_is_not_brought_back() {
    let scene = Scene::of([made("1")]).await;
    let go_on = Arc::new(Notify::new());
    let held = Arc::clone(&go_on);
    scene.platform.script(move |nth, _| (nth == 1).then(|| Instead::Waits(Arc::clone(&held))));
    let reconciler = scene.reconciler();
    let run = tokio::spawn(async move { reconciler.reconcile(soon()).await });
    scene.platform.asked(2).await;
    scene.erase("1").await;
    go_on.notify_one();
    assert_eq!(complete(run.await.unwrap()), found(1, 0));
    assert_eq!(text(&scene.call("1").await, "state"), "erased");
    assert_eq!(scene.world.items("events").await, [] as [Item; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_opaque_to_it() {
    let scene = Scene::new().await;
    for (nth, id) in ["a/b", "a b?c=d&e#f", "ü%2F%", "..\\a"].into_iter().enumerate() {
        let mut call = made(&nth.to_string());
        id.clone_into(&mut call.call_id);
        call.session_mut().session_id = format!("s#{id}");
        scene.platform.make(call);
    }
    // What cannot be a key, and what is no id.
    for id in ["x".repeat(3000), String::new()] {
        let mut call = made(&format!("odd{}", id.len()));
        call.session_mut().session_id = id;
        scene.platform.make(call);
    }
    assert_eq!(complete(scene.reconcile().await), found(6, 4));
    assert_eq!(scene.stored().await, ["s#..\\a", "s#a b?c=d&e#f", "s#a/b", "s#ü%2F%"]);
}

// The list.

#[tokio::test(flavor = "multi_thread")]
async fn how_far_back_it_looks_and_how_much_it_asks_for_at_once_are_configured() {
    let scene = Scene::of([made_ago("old", 25 * HOUR), made_ago("day", 23 * HOUR), made_ago("new", HOUR)]).await;
    let two_hours = scene.configured(&[("RECONCILE_HOURS", "2"), ("RECONCILE_PAGE_SIZE", "2")]);
    assert_eq!(complete(two_hours.reconcile(soon()).await), found(1, 1));
    assert_eq!(lists(&scene.platform.take_paths()), ["/calls?limit=2&offset=0"]);
    assert_eq!(scene.stored().await, ["s-new"]);
    assert_eq!(complete(scene.reconcile().await), found(2, 1), "24 hours unless it is said otherwise");
    assert_eq!(scene.stored().await, ["s-day", "s-new"]);
    assert_eq!(complete(scene.configured(&[("RECONCILE_HOURS", "8760")]).reconcile(soon()).await), found(3, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_used_is_an_error_that_names_its_variable() {
    let scene = Scene::new().await;
    for (name, values) in [
        ("RECONCILE_HOURS", &["0", "-1", "soon", "1.5", "8761", "1000000000"][..]),
        ("RECONCILE_PAGE_SIZE", &["0", "-1", "many", "101"]),
        (
            "VOCOBASE_API_URL",
            &[
                "marker",
                "http://marker.example/api/v2",
                "http://localhost/api/v2",
                "ftp://marker.example",
                "data:marker",
            ],
        ),
        ("VOCOBASE_API_KEY", &["marker key", "marker\nkey", "märker"]),
        ("EVENTS_TABLE", &[""]),
    ] {
        for value in values {
            let error = scene.build(&[(name, value)], patience(), Clone::clone).err().expect(value).to_string();
            assert!(error.contains(name) && !error.contains("marker"), "{error}");
        }
    }
    for url in ["https://api.vocobase.example/api/v2/", "http://127.0.0.1:1", "http://[::1]:1/api"] {
        assert!(scene.build(&[("VOCOBASE_API_URL", url)], patience(), Clone::clone).is_ok(), "{url}");
    }
    // A slash at the end changes nothing.
    let url = format!("{}/", scene.platform.url);
    complete(scene.configured(&[("VOCOBASE_API_URL", &url)]).reconcile(soon()).await);
    assert_eq!(scene.platform.paths(), ["/calls?limit=100&offset=0"]);
}

/// Made one minute apart, the last one at [`MADE`].
fn a_minute_apart(count: i64) -> impl Iterator<Item = Call> {
    (0..count).map(move |nth| Call::completed(&format!("{nth:02}"), instant(MADE).plus_seconds((nth + 1 - count) * 60)))
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_shift_while_calls_arrive_hide_none_and_store_none_twice() {
    for oldest_first in [false, true] {
        let scene = Scene::of(a_minute_apart(30)).await;
        if oldest_first {
            scene.platform.list_oldest_first();
        }
        let (arriving, arrived) = (scene.platform.clone(), AtomicUsize::new(0));
        scene.platform.script(move |nth, asked| {
            if nth > 0 && asked.path.starts_with("/calls?") {
                for _ in 0..3 {
                    let name = format!("new{}", arrived.fetch_add(1, Ordering::SeqCst));
                    let new = Call::completed(&name, instant(NOW));
                    arriving.make(Call { status: "in_progress".to_owned(), ended_at: None, ..new });
                }
            }
            None
        });
        let reconciler = scene.configured(&[("RECONCILE_PAGE_SIZE", "10")]);
        let ended = complete(reconciler.reconcile(soon()).await);
        assert_eq!((ended.recovered, ended.not_recovered), (30, 0), "{ended:?}");
        let paths = scene.platform.paths();
        assert!(lists(&paths).len() > 3, "{paths:?}");
        let mut asked = details(&paths);
        asked.sort_unstable();
        let all: Vec<String> = (0..30).map(|nth| format!("c-{nth:02}")).collect();
        assert_eq!(asked, all, "each once");
        assert_eq!(scene.world.items("events").await.len(), 30);
        assert_eq!(scene.world.items("sessions").await.len(), 30);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_first_it_stops_at_the_windows_edge_and_in_any_other_order_it_reads_everything() {
    // Seven within the hour and the rest before it, as the platform lists them and with pages of any size.
    let calls = || (0..40).map(|nth| made_ago(&format!("{nth:02}"), if nth < 7 { 3000 - nth } else { 7200 + nth }));
    for (oldest_first, size, limit, expected) in [
        (false, "10", 100, 1),
        (false, "7", 100, 2),
        (false, "3", 100, 3),
        (false, "1", 100, 8),
        (false, "10", 2, 4),
        (true, "10", 100, 4),
        (true, "1", 100, 40),
        (true, "10", 1, 40),
    ] {
        let scene = Scene::of(calls()).await;
        scene.platform.limit_pages(limit);
        if oldest_first {
            scene.platform.list_oldest_first();
        }
        let reconciler = scene.configured(&[("RECONCILE_HOURS", "1"), ("RECONCILE_PAGE_SIZE", size)]);
        assert_eq!(complete(reconciler.reconcile(soon()).await), found(7, 7), "{oldest_first} {size} {limit}");
        assert_eq!(lists(&scene.platform.paths()).len(), expected, "{oldest_first} {size} {limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_more_calls_than_were_asked_for_is_read_too() {
    let scene = Scene::of(a_minute_apart(130)).await;
    let calls: Vec<Value> = scene.platform.calls().iter().rev().map(Call::listed).collect();
    let page = json!({ "success": true, "data": { "calls": calls, "total": 130, "limit": 100, "offset": 0 } });
    scene.platform.script(move |nth, _| (nth == 0).then(|| Instead::Says(page.to_string())));
    assert_eq!(complete(scene.reconcile().await), found(130, 130));
}

// What goes wrong between it and the platform.

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_as_long_as_it_is_told_to() {
    for (says, at_least, at_most) in [
        ("2", 2000, 30_000),
        // Less than its own wait, in words that it does not know, and nothing.
        ("0", 10, 2000),
        ("Sun, 15 Mar 2026 16:00:00 GMT", 10, 2000),
        ("", 10, 2000),
    ] {
        let scene = Scene::of([made("1")]).await;
        scene.platform.script(move |nth, _| (nth == 1).then_some(Instead::Busy(429, says)));
        assert_eq!(complete(scene.reconcile().await), found(1, 1));
        let log = scene.platform.log();
        assert_eq!(log.len(), 3);
        let waited = log[2].at.duration_since(log[1].at).as_millis();
        assert!((at_least..at_most).contains(&waited), "{says}: {waited} ms");
    }
    // What it was told once does not make later waits longer.
    let scene = Scene::of([made("1")]).await;
    scene.platform.script(move |nth, _| [Instead::Busy(429, "1"), Instead::Status(503)].get(nth).cloned());
    complete(scene.reconcile().await);
    let log = scene.platform.log();
    let waited = [1, 2].map(|nth| log[nth].at.duration_since(log[nth - 1].at).as_millis());
    assert!(waited[0] >= 1000 && waited[1] < 1000, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_would_outlast_its_time_ends_the_run_and_the_next_one_goes_on() {
    for says in ["301", "86400", "18446744073709551615"] {
        let scene = Scene::of(["1", "2", "3"].map(made)).await;
        scene.platform.script(move |nth, _| (nth >= 2).then_some(Instead::Busy(429, says)));
        let began = time::Instant::now();
        assert_eq!(scene.reconcile().await, Ended::CutShort(found(3, 1)), "{says}");
        assert!(began.elapsed() < Duration::from_mins(1), "it does not wait for nothing");
        scene.platform.script(|_, _| None);
        let asked = details(&scene.platform.take_paths())[0].to_owned();
        assert_eq!(complete(scene.reconcile().await), found(3, 2));
        assert!(!details(&scene.platform.paths()).contains(&asked.as_str()), "what was stored is known");
        assert_eq!(scene.stored().await, ["s-1", "s-2", "s-3"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_nothing_that_it_has_no_time_for_and_ends_in_time_whatever_hangs() {
    let scene = Scene::of([made("1")]).await;
    let patience = Patience::default();
    let short = time::Instant::now() + patience.request + patience.store;
    assert_eq!(scene.reconciler().reconcile(short).await, Ended::CutShort(Found::default()));
    assert_eq!(scene.platform.log().len(), 0);

    let patience = Patience {
        request: Duration::from_secs(2),
        store: Duration::from_millis(500),
        first_wait: Duration::from_millis(10),
    };
    for (hangs_at, listed) in [(0, 0), (1, 1)] {
        scene.platform.take_paths();
        scene.platform.script(move |nth, _| (nth >= hangs_at).then_some(Instead::Hangs));
        let reconciler = scene.build(&[], patience, Clone::clone).unwrap();
        let deadline = time::Instant::now() + Duration::from_secs(4);
        assert_eq!(reconciler.reconcile(deadline).await, Ended::CutShort(found(listed, 0)));
        assert!(time::Instant::now() < deadline);
        assert_eq!(scene.platform.log().len(), hangs_at + 2, "it asked once more");
    }
    scene.assert_nothing_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_that_pass_are_waited_out_five_times() {
    let quick = Patience { request: Duration::from_millis(500), ..patience() };
    for passing in
        [Instead::Status(500), Instead::Status(502), Instead::Busy(503, "0"), Instead::HangsUp, Instead::Hangs]
    {
        let scene = Scene::of([made("1")]).await;
        // Four times for the list, and then four times for the call.
        let fails = passing.clone();
        scene.platform.script(move |nth, _| (nth % 5 < 4).then(|| fails.clone()));
        let reconciler = scene.build(&[], quick, Clone::clone).unwrap();
        assert_eq!(complete(reconciler.reconcile(soon()).await), found(1, 1), "{passing:?}");
        assert_eq!(scene.platform.take_paths().len(), 10);

        let fails = passing.clone();
        scene.platform.script(move |_, _| Some(fails.clone()));
        let ended = reconciler.reconcile(soon()).await;
        assert!(matches!(&ended, Ended::Failed(Found { listed: 0, .. }, _)), "{passing:?}: {ended:?}");
        assert_eq!(scene.platform.paths(), ["/calls?limit=100&offset=0"; 5]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_that_the_platform_cannot_tell_of_does_not_hold_up_the_others() {
    let quick = Patience { request: Duration::from_millis(500), ..patience() };
    let mut other = made("other");
    "s-another".clone_into(&mut other.session_mut().session_id);
    let telling = Scene::of([other]).await;
    let http = tests::http_client();
    let another = http.get(format!("{}/calls/c-other", telling.platform.url)).bearer_auth(KEY).send().await.unwrap();
    let another = another.text().await.unwrap();
    for trouble in [
        Instead::Status(404),
        Instead::Status(400),
        Instead::Status(500),
        Instead::Status(504),
        Instead::Hangs,
        Instead::HangsUp,
        Instead::Says("<html>".to_owned()),
        Instead::Says(r#"{"success":true,"data":{"call_id":"c-2","session":{"transcript":"none"}}}"#.to_owned()),
        Instead::Says(another),
        Instead::Spaces((16 << 20) + 1),
        Instead::Redirects("/api/v2/calls/c-1".to_owned()),
    ] {
        let scene = Scene::of(["1", "2", "3"].map(made)).await;
        let troubled = trouble.clone();
        scene.platform.script(move |_, asked| (asked.path == "/calls/c-2").then(|| troubled.clone()));
        let log = Log::of(&["reconciler", "shared"]);
        let reconciler = scene.build(&[], quick, Clone::clone).unwrap();
        let ended = reconciler.reconcile(soon()).with_subscriber(log.dispatch.clone()).await;
        assert_eq!(complete(ended), Found { not_recovered: 1, ..found(3, 2) }, "{trouble:.60?}");
        assert_eq!(scene.stored().await, ["s-1", "s-3"], "{trouble:.60?}");
        assert_eq!(scene.world.items("events").await.len(), 2);
        let heard = log.heard();
        assert_eq!(heard.matches("WARN").count(), 1, "{heard}");
        assert!(heard.contains("session=vocobase#s-2"), "{heard}");
        // Once it can be told of, it is.
        scene.platform.script(|_, _| None);
        assert_eq!(complete(scene.reconcile().await), found(3, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_does_not_answer_as_it_should_is_one_line_of_the_log_and_stores_nothing() {
    let says = |text: &str| Some(Instead::Says(text.to_owned()));
    let url = "is VOCOBASE_API_URL right?";
    for (instead, base, api_key, reason) in [
        (None, "", "rg_live_marker-other", "the API refuses the key: it answered 401"),
        (Some(Instead::Status(403)), "", KEY, "the API refuses the key: it answered 403"),
        (None, "/v3", KEY, &format!("the API answered 404: {url}")),
        (None, "/../../marker", KEY, &format!("the API answered 404: {url}")),
        (Some(Instead::Status(400)), "", KEY, &format!("the API answered 400: {url}")),
        (
            Some(Instead::Redirects("https://marker.example/login".to_owned())),
            "",
            KEY,
            &format!("the API answered 302: {url}"),
        ),
        (Some(Instead::Status(503)), "", KEY, "the API is busy: it answered 503"),
        (Some(Instead::Busy(429, "0")), "", KEY, "the API is busy: it answered 429"),
        (Some(Instead::HangsUp), "", KEY, "the API cannot be reached"),
        (says("<html>marker</html>"), "", KEY, &format!("the API's answer is not a list of calls: {url}")),
        (says("[]"), "", KEY, &format!("the API's answer is not a list of calls: {url}")),
        (says("{}"), "", KEY, &format!("the API's answer is not a list of calls: {url}")),
        (
            says(r#"{"success":false,"error":"marker"}"#),
            "",
            KEY,
            &format!("the API's answer is not a list of calls: {url}"),
        ),
        (
            says(r#"{"success":false,"data":{"calls":[],"total":0}}"#),
            "",
            KEY,
            &format!("the API's answer is not a list of calls: {url}"),
        ),
        (
            says(r#"{"success":true,"data":{"calls":[{"id":"marker"}],"total":1}}"#),
            "",
            KEY,
            &format!("the API's answer is not a list of calls: {url}"),
        ),
        (
            says(r#"{"success":true,"data":{"calls":[],"#),
            "",
            KEY,
            &format!("the API's answer is not a list of calls: {url}"),
        ),
        (
            Some(Instead::Spaces((16 << 20) + 1)),
            "",
            KEY,
            &format!("the API's answer is not of a length that can be read: {url}"),
        ),
    ] {
        let scene = Scene::of([made("1")]).await;
        // There is a recording too that was lost: it would meet the same.
        let lost = made("lost");
        scene.platform.make(lost.clone());
        scene.deliver(&lost.recorded(&signed("internal.example", "r.wav", 600))).await;
        scene.lose("lost", "expired").await;
        let before = scene.all().await;
        scene.platform.script(move |_, _| instead.clone());
        let url = format!("{}{base}", scene.platform.url);
        let reconciler = scene.configured(&[("VOCOBASE_API_URL", &url), ("VOCOBASE_API_KEY", api_key)]);
        let log = Log::of(&["reconciler", "shared"]);
        reconciler.run(soon()).with_subscriber(log.dispatch.clone()).await;
        let heard = log.heard();
        assert_eq!(heard.lines().count(), 1, "{reason}: {heard}");
        assert!(heard.contains("ERROR reconciler: reconciled outcome=\"failed\""), "{heard}");
        assert!(heard.contains(&format!("reason=\"{reason}\"")), "{reason}: {heard}");
        for private in ["marker", KEY, "://", &scene.platform.url] {
            assert!(!heard.contains(private), "{heard}");
        }
        assert_eq!(scene.all().await, before, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_is_not_there_cannot_be_reached() {
    let scene = Scene::new().await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let ended = scene.configured(&[("VOCOBASE_API_URL", &nobody)]).reconcile(soon()).await;
    assert_eq!(ended, Ended::Failed(Found::default(), "the API cannot be reached".to_owned()));
    // A key is for the platform alone: it is not shown to where a redirect leads.
    let elsewhere = Platform::start().await;
    let to = format!("{}/calls", elsewhere.url);
    scene.platform.script(move |_, _| Some(Instead::Redirects(to.clone())));
    assert!(matches!(scene.reconcile().await, Ended::Failed(..)));
    assert_eq!(elsewhere.log().len(), 0);
}

// The key.

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_it_is_off() {
    let scene = Scene::of([made("1")]).await;
    let empty = SecretsManager::holding("").await;
    let managed = [
        ("VOCOBASE_API_KEY", ""),
        ("VOCOBASE_API_KEY_SECRET_ARN", ARN),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &empty.url),
    ];
    for environment in [&managed[..1], &managed[..]] {
        let log = Log::of(&["reconciler", "shared"]);
        let reconciler = scene.configured(environment);
        assert_eq!(reconciler.reconcile(soon()).await, Ended::Off);
        reconciler.run(soon()).with_subscriber(log.dispatch.clone()).await;
        let heard = log.heard();
        assert_eq!(heard.lines().count(), 1, "{heard}");
        assert!(
            heard.contains(r#" INFO reconciler: no API key is set: nothing is reconciled outcome="off""#),
            "{heard}"
        );
    }
    assert_eq!(scene.platform.log().len(), 0);
    scene.assert_nothing_stored().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_secrets_manager_holds_is_read_at_each_run() {
    let scene = Scene::of([made("1")]).await;
    let manager = SecretsManager::holding(&format!("{KEY}\n")).await;
    let reconciler = scene.configured(&[
        ("VOCOBASE_API_KEY", ""),
        ("VOCOBASE_API_KEY_SECRET_ARN", ARN),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", &manager.url),
    ]);
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(1, 1));
    assert_eq!(manager.reads(), 1);
    scene.platform.make(made("2"));
    let failed = async |reason: &str| {
        assert_eq!(reconciler.reconcile(soon()).await, Ended::Failed(Found::default(), reason.to_owned()));
    };
    manager.hold("rg_live_marker-rotated");
    failed("the API refuses the key: it answered 401").await;
    manager.fail(400);
    failed("the API key's secret cannot be read: AccessDeniedException").await;
    manager.hold("{ \"key\":\n\"marker\" }");
    failed("the API key's secret holds no key").await;
    manager.hold(" \n");
    assert_eq!(reconciler.reconcile(soon()).await, Ended::Off);
    manager.hold(KEY);
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(2, 1));
    assert_eq!(scene.stored().await, ["s-1", "s-2"]);
}

// What goes wrong between it and the stores.

#[tokio::test(flavor = "multi_thread")]
async fn a_local_run_with_a_key_looks_by_itself() {
    let platform = Platform::start().await;
    platform.make(Call::completed("1", Instant::now().plus_seconds(-3600)));
    let lookup = |name: &str| match name {
        "VOCOBASE_API_URL" => Some(platform.url.clone()),
        "VOCOBASE_API_KEY" => Some(KEY.to_owned()),
        _ => None,
    };
    let setup =
        Setup { port: 0, data: Data::Ephemeral, triggers: true, events: cli::dev::Events::default(), dynamodb: None };
    let run = LocalRun::start(&setup, &lookup, tests::now()).await.unwrap();
    platform.asked(2).await;
    let stores = run.endpoints.stores.as_ref().unwrap();
    let clients = stores.connect().unwrap();
    let kept = async {
        while tests::items(&clients, stores, "sessions").await.is_empty() {
            time::sleep(Duration::from_millis(20)).await;
        }
    };
    time::timeout(Duration::from_secs(30), kept).await.expect("the call is stored");
    run.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_a_store_fails_anywhere_is_completed_by_the_next_one() {
    // Its body goes to the bucket, its transcript into several chunks.
    let mut long = made("1").recorded(&signed("recordings.s3.amazonaws.com", "r.wav", 86_400));
    let line = |turn: u64| Line {
        role: "bot".to_owned(),
        content: String::from_utf8(Content::noise(400, turn).bytes().iter().map(|byte| b'a' + byte % 26).collect())
            .unwrap(),
        timestamp: instant(MADE).plus_seconds(1),
        latency_ms: None,
    };
    long.session_mut().transcript = (0..120).map(line).collect();
    let undisturbed = Scene::of([long.clone()]).await;
    complete(undisturbed.reconcile().await);
    let expected = undisturbed.all().await;
    assert!(expected["events"][0].contains_key("body_s3"));
    for place in Place::ALL {
        let mut failures = 0;
        for (from, when) in (0..).flat_map(|from| [(from, When::Before), (from, When::After)]) {
            let scene = Scene::of([long.clone()]).await;
            let fault = Fault::new(place, when, from);
            let reconciler = scene.build(&[], patience(), |clients| fault.in_clients(clients)).unwrap();
            let ended = reconciler.reconcile(soon()).await;
            if !fault.happened() {
                assert_eq!(complete(ended), found(1, 1));
                break;
            }
            failures += 1;
            assert!(matches!(&ended, Ended::Failed(Found { recovered: 0, .. }, _)), "{fault:?}: {ended:?}");
            // The same instance, or another one.
            complete(if from % 2 == 0 { scene.reconcile().await } else { scene.reconciler().reconcile(soon()).await });
            assert_eq!(scene.all().await, expected, "{fault:?}");
        }
        assert!(failures >= 2, "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_was_given_up_half_way_is_completed_too() {
    let content = Content::wav(1000, 58);
    let source = source_of(&content).await;
    for place in
        [Place::Table("events"), Place::Table("transcripts"), Place::Table("sessions"), Place::Table("recordings")]
    {
        let call = made("1").recorded(&signed(&source.address, "r.wav", 7200));
        let scene = Scene::of([call.clone()]).await;
        let fault = Fault::new(place, When::Before, 0);
        let app = scene.world.instance(Webhook::SessionCompleted, |clients| fault.in_clients(clients), scene.clock());
        let request = scene.world.request(Webhook::SessionCompleted, &call.webhook());
        assert_eq!(cli::dev::call(Webhook::SessionCompleted, &app, request).await.status(), 503);
        assert_eq!(complete(scene.reconcile().await), found(1, 1), "{place:?}");
        scene.pass(1);
        assert_eq!(scene.archive("1").await, Outcome::Archived, "{place:?}");
        scene.assert_archived("1", &content).await;
        assert_eq!(complete(scene.reconcile().await), found(1, 0), "{place:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_is_answered_in_part_is_asked_again_for_the_rest() {
    let scene = Scene::of(a_minute_apart(30)).await;
    for call in scene.platform.calls().iter().step_by(2) {
        scene.deliver(call).await;
    }
    let partial = Layer::new(|_| Some(Mishap::Partial(8)));
    let reconciler = scene.build(&[], patience(), |clients| partial.in_clients(clients, "in part")).unwrap();
    assert_eq!(complete(reconciler.reconcile(soon()).await), found(30, 15));
    assert_eq!(details(&scene.platform.paths()).len(), 15);
    // Nothing at all is no progress.
    let nothing = Layer::new(|_| Some(Mishap::Partial(0)));
    let reconciler = scene.build(&[], patience(), |clients| nothing.in_clients(clients, "nothing")).unwrap();
    let ended = reconciler.reconcile(soon()).await;
    assert!(matches!(&ended, Ended::Failed(_, reason) if reason.contains("a read of many calls")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_answer_is_one_line_of_the_log() {
    for (operation, what) in [("BatchGetItem", "a read of many calls"), ("Query", "lost recordings")] {
        let scene = Scene::of([made("1")]).await;
        let unread = Layer::new(move |request| (request.operation == operation).then_some(Mishap::Reset(When::Before)));
        let reconciler = scene.build(&[], patience(), |clients| unread.in_clients(clients, operation)).unwrap();
        let log = Log::of(&["reconciler", "shared"]);
        reconciler.run(soon()).with_subscriber(log.dispatch.clone()).await;
        let heard = log.heard();
        assert_eq!(heard.matches("ERROR").count(), 1, "{heard}");
        assert!(heard.contains(&format!("the store failed on {what}")), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_does_not_make_it_late() {
    let scene = Scene::of([made("1")]).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let hanging = |clients: &Clients| {
        let config = clients.dynamodb.config().to_builder().endpoint_url(url).build();
        Clients { dynamodb: aws_sdk_dynamodb::Client::from_conf(config), ..clients.clone() }
    };
    let patience = Patience { request: Duration::from_secs(1), store: Duration::from_millis(500), ..patience() };
    let reconciler = scene.build(&[], patience, hanging).unwrap();
    let deadline = time::Instant::now() + Duration::from_secs(4);
    assert_eq!(reconciler.reconcile(deadline).await, Ended::CutShort(found(1, 0)));
    assert!(time::Instant::now() < deadline);
    assert_eq!(complete(scene.reconcile().await), found(1, 1));
}

// Recordings.

impl Scene {
    /// Everything that is kept, without when it was received.
    async fn all(&self) -> BTreeMap<&'static str, Vec<Item>> {
        let mut all = BTreeMap::new();
        for table in ["events", "sessions", "transcripts", "recordings"] {
            let mut items = self.world.items(table).await;
            for item in &mut items {
                item.remove("received_at");
            }
            all.insert(table, items);
        }
        all
    }

    /// Delivers a call whose recording the archiver then gives up.
    async fn give_up(&self, name: &str, url: &str) -> State {
        let call = made(name).recorded(url);
        self.platform.make(call.clone());
        self.deliver(&call).await;
        match self.archive(name).await {
            Outcome::GivenUp(state) => state,
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Sets a job to where the archiver would have brought it.
    async fn lose(&self, name: &str, state: &str) {
        let update = self.world.clients.dynamodb.update_item().table_name(&self.world.stores().tables["recordings"]);
        let update = update.key("session", AttributeValue::S(session_of(name)));
        let update = update.update_expression("SET #state = :state, unfinished = :lost");
        let update = update.expression_attribute_names("#state", "state");
        let update = update.expression_attribute_values(":state", AttributeValue::S(state.to_owned()));
        let lost = format!("lost#{}", key(name).shard(4));
        update.expression_attribute_values(":lost", AttributeValue::S(lost)).send().await.unwrap();
    }
}

fn renewed(listed: u32, urls_renewed: u32) -> Found {
    Found { urls_renewed, ..found(listed, 0) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_was_lost_gets_a_new_url_and_comes_into_the_bucket() {
    let content = Content::wav(100_000, 50);
    for members in [&["recording_url"][..], &["url"], &["url", "recording_url"]] {
        let source = source_of(&content).await;
        let address = source.address.clone();
        let scene = Scene::new().await;
        assert_eq!(scene.give_up("expired", &signed(&address, "expired.wav", 600)).await, State::Expired);
        // Its URL would have held for another week, and so for longer than the new one.
        assert_eq!(scene.give_up("failed", &signed(&address, "long.wav", 7 * 86_400)).await, State::Failed);
        assert_eq!(scene.give_up("rejected", "https://internal.example/r.wav").await, State::Rejected);
        let archived = made("archived").recorded(&signed(&address, "r.wav", 3600));
        scene.platform.make(archived.clone());
        scene.deliver(&archived).await;
        assert_eq!(scene.archive("archived").await, Outcome::Archived);
        let untouched = [scene.job("rejected").await, scene.job("archived").await];

        let at = address.clone();
        scene.platform.mint(move |call_id, _| Some(signed(&at, &format!("{call_id}.wav"), 7200)));
        scene.platform.mint_as(members);
        assert_eq!(complete(scene.reconcile().await), renewed(4, 2), "{members:?}");
        let mut paths = scene.platform.take_paths();
        paths.sort();
        let asked = ["/calls/c-expired/recording-url", "/calls/c-failed/recording-url", "/calls?limit=100&offset=0"];
        assert_eq!(paths, asked);
        assert_eq!([scene.job("rejected").await, scene.job("archived").await], untouched);
        for name in ["expired", "failed"] {
            let job = scene.job(name).await;
            assert_eq!(text(&job, "state"), "pending");
            assert_eq!(text(&job, "source_url"), signed(&address, &format!("c-{name}.wav"), 7200));
            assert_eq!(text(&job, "source_expires_at"), "2026-03-15T16:30:00.000000Z");
            assert_eq!(text(&job, "reminted"), "1");
            for gone in ["attempts", "next_attempt_at", "last_error", "lease_id"] {
                assert!(!job.contains_key(gone), "{gone} is still there: {job:?}");
            }
        }
        // The archiver's own sweep finds them.
        scene.pass(1);
        assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 2);
        for name in ["expired", "failed", "archived"] {
            scene.assert_archived(name, &content).await;
        }
        assert_eq!(complete(scene.reconcile().await), renewed(4, 0));
        assert_eq!(scene.platform.take_paths(), ["/calls?limit=100&offset=0"]);
        // What offered them first, once more, is no news.
        for call in scene.platform.calls() {
            scene.deliver(&call).await;
        }
        for name in ["expired", "failed", "archived"] {
            scene.assert_archived(name, &content).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_calls_recording_comes_into_the_bucket_even_if_its_url_has_expired() {
    let content = Content::wav(50_000, 51);
    let source = source_of(&content).await;
    let scene = Scene::of([made("1").recorded(&signed(&source.address, "expired.wav", 600))]).await;
    let address = source.address.clone();
    scene.platform.mint(move |_, _| Some(signed(&address, "r.wav", 7200)));
    assert_eq!(complete(scene.reconcile().await), found(1, 1));
    assert_eq!(scene.archive("1").await, Outcome::Archived);
    scene.assert_archived("1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_call_is_stored_though_its_recording_gets_no_new_url_until_later() {
    let content = Content::wav(50_000, 51);
    let source = source_of(&content).await;
    let scene = Scene::of([made("1").recorded(&signed(&source.address, "expired.wav", 600))]).await;
    assert_eq!(complete(scene.reconcile().await), found(1, 1));
    assert_eq!(scene.archive("1").await, Outcome::GivenUp(State::Expired));
    let address = source.address.clone();
    scene.platform.mint(move |_, _| Some(signed(&address, "r.wav", 7200)));
    assert_eq!(complete(scene.reconcile().await), renewed(1, 1));
    scene.pass(1);
    assert_eq!(scene.archive("1").await, Outcome::Archived);
    scene.assert_archived("1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_is_made_anew_three_times_at_most() {
    let source = source_of(&Content::wav(1000, 52)).await;
    let scene = Scene::new().await;
    scene.give_up("1", &signed(&source.address, "expired.wav", 600)).await;
    let address = source.address.clone();
    scene.platform.mint(move |_, nth| {
        Some(signed(&address, &format!("expired.{nth}.wav"), 1800 + 600 * i64::try_from(nth + 1).unwrap()))
    });
    for nth in 1..=3 {
        assert_eq!(complete(scene.reconcile().await), renewed(1, 1), "{nth}");
        assert_eq!(text(&scene.job("1").await, "reminted"), nth.to_string());
        // It waits for its archiver: there is nothing to be done meanwhile.
        assert_eq!(complete(scene.reconcile().await), renewed(1, 0), "{nth}");
        scene.pass(600);
        assert_eq!(scene.archive("1").await, Outcome::GivenUp(State::Expired), "{nth}");
    }
    scene.platform.take_paths();
    assert_eq!(complete(scene.reconcile().await), renewed(1, 0));
    assert_eq!(scene.platform.take_paths(), ["/calls?limit=100&offset=0"], "the platform is not asked in vain");
    assert_eq!(scene.state_of_job("1").await, "expired");
    assert_eq!(text(&scene.call("1").await, "recording_state"), "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_url_can_be_had_for_is_counted_and_stays_as_it_is() {
    let source = source_of(&Content::wav(1000, 53)).await;
    let url = signed(&source.address, "expired.wav", 600);
    let scene = Scene::new().await;
    // It was no telephone call: there is nothing to ask by.
    let browser = Call { telephone: false, ..made("browser").recorded(&url) };
    scene.platform.make(browser.clone());
    scene.deliver(&browser).await;
    assert_eq!(scene.archive("browser").await, Outcome::GivenUp(State::Expired));
    let before = scene.job("browser").await;
    assert_eq!(complete(scene.reconcile().await), Found { not_recovered: 1, ..found(0, 0) });
    assert_eq!(scene.platform.take_paths(), ["/calls?limit=100&offset=0"]);
    assert_eq!(scene.job("browser").await, before);

    scene.give_up("1", &url).await;
    scene.give_up("2", &url).await;
    let before = scene.all().await;
    let quick = Patience { request: Duration::from_millis(500), ..patience() };
    for trouble in [
        None,
        Some(Instead::Status(500)),
        Some(Instead::Hangs),
        Some(Instead::Says(r#"{"success":true,"data":{}}"#.to_owned())),
        Some(Instead::Says(r#"{"success":true,"data":{"recording_url":null,"url":null}}"#.to_owned())),
        Some(Instead::Says(r#"{"success":true,"data":{"recording_url":"","url":""}}"#.to_owned())),
        Some(Instead::Says(r#"{"success":true,"data":{"recording_url":"r.wav"}}"#.to_owned())),
        Some(Instead::Says(r#"{"success":true,"data":"https://recordings.s3.amazonaws.com/r.wav"}"#.to_owned())),
    ] {
        let troubled = trouble.clone();
        let asked_for = |asked: &str| asked.ends_with("/recording-url");
        scene.platform.script(move |_, asked| troubled.clone().filter(|_| asked_for(&asked.path)));
        let reconciler = scene.build(&[], quick, Clone::clone).unwrap();
        let log = Log::of(&["reconciler", "shared"]);
        let ended = reconciler.reconcile(soon()).with_subscriber(log.dispatch.clone()).await;
        assert_eq!(complete(ended), Found { not_recovered: 3, ..found(2, 0) }, "{trouble:?}");
        assert_eq!(scene.all().await, before, "{trouble:?}");
        let heard = log.heard();
        assert_eq!(heard.matches("a recording's URL cannot be made anew").count(), 2, "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_url_stopped_working_before_the_window_is_let_be() {
    let source = source_of(&Content::wav(1000, 54)).await;
    let scene = Scene::new().await;
    scene.give_up("1", &signed(&source.address, "expired.wav", 600)).await;
    let address = source.address.clone();
    scene.platform.mint(move |_, _| Some(signed(&address, "r.wav", 7 * 86_400)));
    scene.pass(23 * HOUR + 39 * 60 + 59 + HOUR);
    let hours = |hours: &'static str| scene.configured(&[("RECONCILE_HOURS", hours)]);
    assert_eq!(complete(hours("24").reconcile(soon()).await).urls_renewed, 0);
    assert_eq!(complete(hours("25").reconcile(soon()).await).urls_renewed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_with_a_newer_url_that_comes_first_keeps_its_own() {
    let content = Content::wav(1000, 55);
    let source = source_of(&content).await;
    let scene = Scene::new().await;
    scene.give_up("1", &signed(&source.address, "expired.wav", 600)).await;
    let (go_on, address) = (Arc::new(Notify::new()), source.address.clone());
    let held = Arc::clone(&go_on);
    scene.platform.script(move |nth, _| (nth == 1).then(|| Instead::Waits(Arc::clone(&held))));
    scene.platform.mint(move |_, _| Some(signed(&address, "minted.wav", 7200)));
    let reconciler = scene.reconciler();
    let run = tokio::spawn(async move { reconciler.reconcile(soon()).await });
    scene.platform.asked(2).await;
    let mut again = made("1").recorded(&signed(&source.address, "again.wav", 3600));
    again.session_mut().sent_at = scene.now();
    scene.deliver(&again).await;
    let pending = scene.job("1").await;
    assert_eq!(text(&pending, "state"), "pending");
    go_on.notify_one();
    // Nothing is lost any more: it counts neither as help nor as helplessness.
    assert_eq!(complete(run.await.unwrap()), renewed(1, 0));
    assert_eq!(scene.job("1").await, pending);
    scene.pass(1);
    assert_eq!(scene.archive("1").await, Outcome::Archived);
    scene.assert_archived("1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_points_where_it_must_not_is_rejected_and_not_asked_for_again() {
    let source = source_of(&Content::wav(1000, 56)).await;
    let scene = Scene::new().await;
    scene.give_up("1", &signed(&source.address, "expired.wav", 600)).await;
    scene.platform.mint(|_, _| Some(signed("internal.example", "r.wav", 7200)));
    assert_eq!(complete(scene.reconcile().await), renewed(1, 1));
    scene.pass(1);
    assert_eq!(scene.archive("1").await, Outcome::GivenUp(State::Rejected));
    assert_eq!(complete(scene.reconcile().await), renewed(1, 0));
    assert_eq!(text(&scene.call("1").await, "recording_state"), "rejected");
}

// What is said of it.

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_was_found_and_never_a_key_a_url_or_what_was_said() {
    let source = source_of(&Content::wav(1000, 57)).await;
    let scene = Scene::new().await;
    let url = |path: &str| signed(&source.address, &format!("marker-{path}"), 7200);
    scene.give_up("lost", &signed(&source.address, "expired.wav", 600)).await;
    scene.give_up("hopeless", &signed(&source.address, "expired.wav", 601)).await;
    let minted = url("minted.wav");
    scene.platform.mint(move |call_id, _| (call_id == "c-lost").then(|| minted.clone()));
    let mut said = made("1").recorded(&url("r.wav")).newer();
    said.session_mut().transcript[1].content = "marker-said".to_owned();
    said.session_mut().variables = Some(json!({ "name": "marker-variable" }));
    scene.platform.make(said);
    scene.platform.make(made("2"));
    scene.platform.tell_everything();
    scene.platform.script(|_, asked| (asked.path == "/calls/c-2").then(|| Instead::Says("marker-answer".to_owned())));
    let log = Log::of(&["reconciler", "shared"]);
    scene.reconciler().run(soon()).with_subscriber(log.dispatch.clone()).await;
    let heard = log.heard();
    let last = heard.lines().last().unwrap();
    assert!(
        last.ends_with(
            r#" INFO reconciler: reconciled outcome="complete" listed=4 recovered=1 urls_renewed=1 not_recovered=2"#
        ),
        "{heard}"
    );
    assert_eq!(heard.matches(" WARN ").count(), 2, "{heard}");
    for session in ["vocobase#s-1", "vocobase#s-2", "vocobase#s-hopeless"] {
        assert!(heard.contains(&format!("session={session}")), "{heard}");
    }
    for private in
        [KEY, "marker", SIGNATURE, "X-Amz", "://", &source.address, &scene.platform.url, "+919876543210", "14155551234"]
    {
        assert!(!heard.contains(private), "the log says {private}: {heard}");
    }
    assert_eq!(scene.state_of_job("lost").await, "pending");
}
