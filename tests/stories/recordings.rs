//! Recordings on their way from an expiring URL into the bucket: from a delivery through the real archiver, out of a
//! source that misbehaves in every way it can.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use recording_archiver::source::{Hosts, Limits, Lookup, Sources};
use recording_archiver::{Archiver, Outcome, PARALLEL, handle};
use serde_json::{Value, json};
use shared::config::Storage;
use shared::recording::{State, Wanted};
use shared::storage::Clients;
use shared::{Clock, Instant, Provider, SessionKey, Webhook};
use tests::faults::layer::{Layer, Mishap, Request};
use tests::faults::{Fault, Place, When, between};
use tests::log::Log;
use tests::source::{Content, Reply, Source};
use tests::{Item, LocalProcess, World, text};
use tokio::process::Command;
use tokio::sync::Notify;
use tracing::instrument::WithSubscriber;

const SENT: &str = "2026-03-15T14:32:08.000Z";
/// When the archiver's clock begins, ten minutes after the URLs were signed.
const BEGIN: &str = "2026-03-15T14:40:00Z";
const SIGNATURE: &str = "marker5ignature";
const PART: u64 = recording_archiver::copy::PART_BYTES as u64;
const LEASE_SECONDS: i64 = 16 * 60;

/// A world, an archiver's clock, and what the archiver does in the bucket.
pub(super) struct Scene {
    pub(super) world: World,
    now: Arc<Mutex<Instant>>,
    uploads: Uploads,
}

/// Uploads in parts that were seen on their way to the bucket: key and id.
#[derive(Clone, Debug, Default)]
struct Uploads(Arc<Mutex<BTreeSet<(String, String)>>>);

impl Intercept for Uploads {
    fn name(&self) -> &'static str {
        "Uploads"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let uri = context.request().uri();
        if let Some((path, query)) = uri.split_once('?')
            && let Some(id) = query.split('&').find_map(|pair| pair.strip_prefix("uploadId="))
        {
            let key = path.split_once("/recordings/").ok_or("an upload is a recording")?.1;
            self.0.lock().unwrap().insert((format!("recordings/{key}"), id.to_owned()));
        }
        Ok(())
    }
}

/// A worker that dies: from one of its requests to the stores on, nothing of it arrives any more.
#[derive(Clone, Debug)]
struct Death {
    from: usize,
    /// Whether that one request still arrives, and only its answer does not.
    when: When,
    seen: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Last(bool);

impl Storable for Last {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Death {
    fn name(&self) -> &'static str {
        "Death"
    }

    fn modify_before_transmit(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let nth = self.seen.fetch_add(1, Ordering::SeqCst);
        let last = nth == self.from && self.when == When::After;
        config.interceptor_state().store_put(Last(last));
        if nth >= self.from && !last { Err("the worker is dead".into()) } else { Ok(()) }
    }

    fn modify_before_deserialization(
        &self,
        _: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if config.load::<Last>().is_some_and(|Last(last)| *last) { Err("the worker is dead".into()) } else { Ok(()) }
    }
}

/// Patient enough for a busy machine.
pub(super) fn limits() -> Limits {
    Limits { max_bytes: 1 << 30, connect: Duration::from_secs(5), stall: Duration::from_secs(10), ..Limits::default() }
}

/// Every name is this machine: a source that may not be asked would be seen to be asked.
fn everything_at(address: &str) -> Lookup {
    let address: SocketAddr = address.parse().unwrap();
    Arc::new(move |_| Box::pin(async move { Ok(vec![address]) }))
}

fn no_names() -> Lookup {
    Arc::new(|name| Box::pin(async move { Err(std::io::Error::other(format!("{name} is not to be looked up"))) }))
}

pub(super) fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_mins(5)
}

pub(super) fn key(id: &str) -> SessionKey {
    SessionKey::new(Provider::Vocobase, id).unwrap()
}

/// Signed at 14:30 for so many seconds.
pub(super) fn signed(address: &str, path: &str, seconds: i64) -> String {
    format!(
        "http://{address}/{path}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=20260315T143000Z&X-Amz-Expires={seconds}&X-Amz-Signature={SIGNATURE}"
    )
}

impl Scene {
    pub(super) async fn new() -> Self {
        let now = Arc::new(Mutex::new(Instant::parse(BEGIN).unwrap()));
        Self { world: World::new().await, now, uploads: Uploads::default() }
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

    pub(super) fn clients(&self) -> Clients {
        between(&self.world.clients, &self.uploads)
    }

    fn build(&self, clients: Clients, sources: Sources) -> Archiver {
        let environment = self.world.stores().environment();
        let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
        Archiver::new(storage, clients, sources, self.clock())
    }

    /// As the local run has it: sources on loopback.
    fn archiver(&self) -> Archiver {
        self.archiver_with(limits(), self.clients())
    }

    pub(super) fn archiver_with(&self, limits: Limits, clients: Clients) -> Archiver {
        self.build(clients, Sources::and_loopback(Hosts::s3(), limits, no_names()).unwrap())
    }

    /// As deployed.
    fn public_archiver(&self, lookup: Lookup) -> Archiver {
        let limits = Limits { connect: Duration::from_millis(500), ..limits() };
        self.build(self.clients(), Sources::public(Hosts::s3(), limits, lookup, None).unwrap())
    }

    /// Delivers a session whose recording is at `url`.
    pub(super) async fn offer(&self, id: &str, url: &str) {
        let data = json!({ "session_id": id, "recording_url": url });
        let body = json!({ "event": "session.completed", "timestamp": SENT, "data": data });
        assert_eq!(self.world.deliver(Webhook::SessionCompleted, body.to_string()).await.status, 200);
    }

    async fn job(&self, id: &str) -> Item {
        let items = self.world.items_of("recordings", key(id).as_str()).await;
        assert_eq!(items.len(), 1, "{items:?}");
        items.into_iter().next().unwrap()
    }

    async fn call(&self, id: &str) -> Item {
        self.world.items_of("sessions", key(id).as_str()).await.into_iter().next().unwrap()
    }

    async fn state_of_job(&self, id: &str) -> String {
        text(&self.job(id).await, "state").to_owned()
    }

    /// The job's state, which is the call's too.
    async fn state(&self, id: &str) -> String {
        let state = text(&self.job(id).await, "state").to_owned();
        assert_eq!(text(&self.call(id).await, "recording_state"), state);
        state
    }

    async fn last_error(&self, id: &str) -> String {
        let job = self.job(id).await;
        let error = text(&job, "last_error").to_owned();
        assert!(!error.contains(SIGNATURE) && !error.contains("://"), "{error}");
        error
    }

    /// Delivers, and works on it once.
    async fn try_once(&self, id: &str, url: &str) -> Outcome {
        self.offer(id, url).await;
        self.again(id).await
    }

    async fn again(&self, id: &str) -> Outcome {
        self.archiver().archive(&key(id), "worker", soon()).await.unwrap()
    }

    async fn sweep_past_the_lease(&self) -> usize {
        self.pass(LEASE_SECONDS + 1);
        self.archiver().sweep("sweeper", soon()).await.unwrap()
    }

    /// The keys of everything in the bucket.
    async fn objects(&self) -> Vec<String> {
        let list = self.world.clients.s3.list_objects_v2().bucket(&self.world.stores().bucket).send().await.unwrap();
        let keys = list.contents().iter().filter_map(|object| object.key().map(str::to_owned));
        keys.filter(|key| key.starts_with("recordings/")).collect()
    }

    /// Uploads in parts that still hold parts.
    async fn orphans(&self) -> Vec<(String, String)> {
        let uploads: Vec<_> = self.uploads.0.lock().unwrap().iter().cloned().collect();
        let mut orphans = Vec::new();
        for (key, id) in uploads {
            let list = self.world.clients.s3.list_parts().bucket(&self.world.stores().bucket).key(&key).upload_id(&id);
            if !list.send().await.unwrap().parts().is_empty() {
                orphans.push((key, id));
            }
        }
        orphans
    }

    /// That the bucket holds this recording once, and that job and call say so and nothing else.
    async fn assert_archived(&self, id: &str, content: &Content, extension: &str, content_type: &str) {
        let job = self.job(id).await;
        assert_eq!(text(&job, "state"), "archived", "{job:?}");
        let s3_key = format!("recordings/vocobase/2026/03/15/{id}.{extension}");
        assert_eq!(text(&job, "s3_key"), s3_key);
        assert_eq!(text(&job, "bytes"), content.length.to_string());
        assert_eq!(text(&job, "sha256"), content.sha256());
        assert_eq!(text(&job, "content_type"), content_type);
        for gone in
            ["source_url", "unfinished", "lease_id", "lease_until", "upload_id", "last_error", "next_attempt_at"]
        {
            assert!(!job.contains_key(gone), "{gone} is still there: {job:?}");
        }
        let call = self.call(id).await;
        assert_eq!(text(&call, "recording_state"), "archived");
        let bucket = &self.world.stores().bucket;
        assert_eq!(text(&call, "recording"), format!("s3://{bucket}/{s3_key}"));
        let object = self.world.clients.s3.get_object().bucket(bucket).key(&s3_key).send().await.unwrap();
        assert_eq!(object.content_type(), Some(content_type));
        let bytes = object.body.collect().await.unwrap().into_bytes();
        assert_eq!((bytes.len() as u64, tests::sha256(&bytes)), (content.length, content.sha256()));
        let mut objects = self.objects().await;
        objects.retain(|key| key.contains(&format!("/{id}.")));
        assert_eq!(objects, [s3_key]);
        assert_eq!(self.orphans().await, []);
    }

    async fn assert_wav(&self, id: &str, content: &Content) {
        self.assert_archived(id, content, "wav", "audio/x-wav").await;
    }
}

fn resumed(content: &Content, from: u64) -> (Option<String>, Option<String>) {
    (Some(format!("bytes={from}-")), Some(content.etag()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_any_length_is_in_the_bucket_byte_for_byte() {
    let scene = Scene::new().await;
    for (length, extension, content_type) in [
        (0, "bin", "application/octet-stream"),
        (1, "bin", "application/octet-stream"),
        (44, "wav", "audio/x-wav"),
        (PART - 1, "wav", "audio/x-wav"),
        (PART, "wav", "audio/x-wav"),
        (2 * PART - 1, "wav", "audio/x-wav"),
        (2 * PART, "wav", "audio/x-wav"),
        (2 * PART + 1, "wav", "audio/x-wav"),
        (40_000_000, "wav", "audio/x-wav"),
    ] {
        let content = Content::wav(length, length);
        let source = Source::of(&content).await;
        let id = format!("s{length}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived, "{length}");
        scene.assert_archived(&id, &content, extension, content_type).await;
        assert_eq!(source.ranges(), [(None, None)]);
        // Another trigger for the same job.
        assert_eq!(scene.again(&id).await, Outcome::NotOurs);
        assert_eq!(source.log().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_is_taken_up_where_it_broke() {
    let scene = Scene::new().await;
    for percent in [10, 50, 99] {
        let content = Content::wav(20_000_000, percent);
        let cut = content.length / 100 * percent;
        let whole = content.clone();
        let source = Source::start(move |nth, asked| match nth {
            0 => whole.answer(asked).cut_at(cut),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("cut{percent}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        assert_eq!(source.ranges(), [(None, None), resumed(&content, cut)]);
        scene.assert_wav(&id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_cuts_in_one_copy_cost_three_resumptions() {
    let scene = Scene::new().await;
    let content = Content::wav(20_000_000, 3);
    let cuts = [2_000_000, 10_000_000, 19_800_000];
    for chunked in [false, true] {
        let whole = content.clone();
        let source = Source::start(move |nth, asked| {
            let reply = whole.answer(asked);
            let reply = if chunked { reply.chunked() } else { reply };
            cuts.get(nth).map_or(reply.clone(), |cut| reply.cut_at(*cut))
        });
        let source = source.await;
        let id = format!("chunked-{chunked}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        let [a, b, c] = cuts.map(|cut| resumed(&content, cut));
        assert_eq!(source.ranges(), [(None, None), a, b, c]);
        scene.assert_wav(&id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_always_breaks_is_left_for_later_and_leaves_nothing_behind() {
    let scene = Scene::new().await;
    let content = Content::wav(3 * PART, 4);
    let whole = content.clone();
    let source = Source::start(move |_, asked| whole.answer(asked).cut_at(2 * PART + 5)).await;
    assert_eq!(scene.try_once("s1", &signed(&source.address, "r.wav", 3600)).await, Outcome::Waiting);
    assert_eq!(scene.state("s1").await, "pending");
    assert_eq!(scene.last_error("s1").await, "the connection to the source broke again and again");
    assert_eq!(scene.objects().await, [] as [String; 0]);
    assert_eq!(scene.uploads.0.lock().unwrap().len(), 1, "it came as far as an upload");
    assert_eq!(scene.orphans().await, []);
    assert!(source.log().len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_is_believed_only_as_far_as_bytes_come() {
    let scene = Scene::new().await;
    let content = Content::wav(1_000_000, 5);

    // Longer than what comes: what is missing is asked for, and there is no such thing.
    let whole = content.clone();
    let source = Source::start(move |_, asked| match asked.range {
        None => whole.whole().announcing(1_000_010),
        Some(_) => Reply::status(416),
    });
    let source = source.await;
    assert_eq!(scene.try_once("longer", &signed(&source.address, "r.wav", 3600)).await, Outcome::Waiting);
    assert_eq!(source.ranges()[1], resumed(&content, 1_000_000));
    assert_eq!(scene.objects().await, [] as [String; 0]);

    // Shorter: HTTP ends the body there, and only a checksum can tell.
    let whole = content.clone();
    let checksum = tests::base64(&hex::decode(content.sha256()).unwrap());
    let source =
        Source::start(move |_, _| whole.whole().announcing(999_990).header("x-amz-checksum-sha256", &checksum));
    let source = source.await;
    assert_eq!(scene.try_once("shorter", &signed(&source.address, "r.wav", 3600)).await, Outcome::Waiting);
    assert_eq!(scene.last_error("shorter").await, "the recording does not have the checksum that the source names");
    assert_eq!(scene.objects().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_without_a_length_is_read_to_its_end() {
    let scene = Scene::new().await;
    let content = Content::wav(17_000_000, 6);
    for (id, chunked) in [("chunked", true), ("unannounced", false)] {
        let whole = content.clone();
        let source =
            Source::start(move |_, _| if chunked { whole.whole().chunked() } else { whole.whole().unannounced() })
                .await;
        assert_eq!(scene.try_once(id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        scene.assert_wav(id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ignores_ranges_is_read_again_from_the_beginning() {
    let scene = Scene::new().await;
    let content = Content::wav(18_000_000, 7);
    let whole = content.clone();
    let source = Source::start(move |nth, _| match nth {
        0 => whole.whole().cut_at(17_000_000),
        _ => whole.whole(),
    });
    let source = source.await;
    assert_eq!(scene.try_once("s1", &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
    assert_eq!(source.ranges(), [(None, None), resumed(&content, 17_000_000), (None, None)]);
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_changes_while_it_is_read_is_the_new_one_throughout() {
    let scene = Scene::new().await;
    let (old, new) = (Content::wav(18_000_000, 8), Content::wav(18_000_000, 9));
    // One source honours `If-Match`, the other does not but says whose bytes it sends.
    for honours in [true, false] {
        let (before, after) = (old.clone(), new.clone());
        let source = Source::start(move |nth, asked| match nth {
            0 => before.whole().cut_at(17_000_000),
            _ if honours => after.answer(asked),
            _ => after.answer(&tests::source::Asked { if_match: None, ..asked.clone() }),
        });
        let source = source.await;
        let id = format!("honours-{honours}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        assert_eq!(source.ranges(), [(None, None), resumed(&old, 17_000_000), (None, None)]);
        scene.assert_wav(&id, &new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_that_nothing_tells_apart_are_never_pieced_together() {
    let scene = Scene::new().await;
    let (old, new) = (Content::wav(1_000_000, 39), Content::wav(1_000_000, 40));
    for (id, tag) in [("none", None), ("weak", Some("W/\"1\""))] {
        let (before, after) = (old.clone(), new.clone());
        let source = Source::start(move |nth, asked| {
            let asked = tests::source::Asked { if_match: None, ..asked.clone() };
            let reply = if nth == 0 { before.answer(&asked).cut_at(500_000) } else { after.answer(&asked) };
            tag.map_or(reply.clone().without("ETag"), |tag| reply.header("ETag", tag))
        });
        let source = source.await;
        assert_eq!(scene.try_once(id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        scene.assert_wav(id, &new).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_waits_until_the_url_has_expired_and_then_ends_the_job() {
    let scene = Scene::new().await;
    for status in [401, 403, 404, 410] {
        let source = Source::start(move |_, _| Reply::status(status)).await;
        let id = format!("s{status}");
        let url = signed(&source.address, "r.wav", 100 + scene.now().unix_seconds() - 1_773_585_000);
        assert_eq!(scene.try_once(&id, &url).await, Outcome::Waiting);
        assert_eq!(scene.state(&id).await, "pending");
        assert_eq!(scene.last_error(&id).await, format!("the source answered {status}"));
        assert_eq!(scene.again(&id).await, Outcome::NotOurs, "it waits");
        assert_eq!(source.log().len(), 1);
        scene.pass(100);
        assert_eq!(scene.again(&id).await, Outcome::GivenUp(State::Expired));
        assert_eq!(scene.state(&id).await, "expired");
        assert!(text(&scene.job(&id).await, "unfinished").starts_with("lost#"), "only another URL could mend it");
        scene.pass(100_000);
        assert_eq!(scene.again(&id).await, Outcome::NotOurs);
        assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 0);
        assert_eq!(source.log().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_source_is_asked_again_when_it_said() {
    let scene = Scene::new().await;
    for status in [429, 503] {
        let content = Content::wav(1000, status.into());
        let whole = content.clone();
        let source = Source::start(move |nth, asked| match nth {
            0 => Reply::status(status).header("Retry-After", "120"),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("s{status}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 86_400)).await, Outcome::Waiting);
        assert_eq!(text(&scene.job(&id).await, "next_attempt_at"), scene.now().plus_seconds(120).to_string());
        assert_eq!(scene.last_error(&id).await, format!("the source is busy: it answered {status}"));
        scene.pass(119);
        assert_eq!(scene.again(&id).await, Outcome::NotOurs);
        assert_eq!(source.log().len(), 1);
        scene.pass(1);
        assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 1);
        scene.assert_wav(&id, &content).await;
        assert_eq!(text(&scene.job(&id).await, "attempts"), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_grow_between_the_attempts_and_end_after_twelve() {
    let scene = Scene::new().await;
    let source = Source::start(|_, _| Reply::status(500)).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 7 * 86_400)).await;
    for attempt in 1..12_u32 {
        assert_eq!(scene.again("s1").await, Outcome::Waiting);
        let next = Instant::parse(text(&scene.job("s1").await, "next_attempt_at")).unwrap();
        let wait = next.unix_seconds() - scene.now().unix_seconds();
        let longest = (30 * (1 << (attempt - 1))).min(3600);
        assert!((longest / 2..=longest).contains(&wait), "attempt {attempt}: {wait}");
        scene.pass(wait);
    }
    assert_eq!(scene.again("s1").await, Outcome::GivenUp(State::Failed));
    assert_eq!(scene.state("s1").await, "failed");
    assert_eq!(source.log().len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_drips_or_says_nothing_is_left_for_later() {
    let scene = Scene::new().await;
    let content = Content::wav(1_000_000, 10);
    let drips = content.clone();
    let dripping = Source::start(move |_, _| drips.whole().dripping(Duration::from_millis(50))).await;
    let hangs = content.clone();
    let hanging = Source::start(move |_, _| hangs.whole().hang_at(500_000)).await;
    let silent = Source::start(|_, _| Reply::status(200).after(&Arc::default())).await;
    let hasty = Limits {
        stall: Duration::from_millis(500),
        slow_span: Duration::from_millis(200),
        slow_bytes: 1000,
        ..limits()
    };
    let hasty = scene.archiver_with(hasty, scene.clients());
    for (id, source, why) in [
        ("drips", &dripping, "the source is too slow"),
        ("hangs", &hanging, "the source is too slow"),
        ("silent", &silent, "the source cannot be reached"),
    ] {
        scene.offer(id, &signed(&source.address, "r.wav", 3600)).await;
        assert_eq!(hasty.archive(&key(id), "worker", soon()).await.unwrap(), Outcome::Waiting);
        assert_eq!(scene.state(id).await, "pending");
        assert_eq!(scene.last_error(id).await, why);
    }
    assert_eq!(scene.objects().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_over_the_limit_is_given_up_announced_or_not() {
    let scene = Scene::new().await;
    let content = Content::wav(3 * PART, 11);
    let small = Limits { max_bytes: 3 * PART - 1, ..limits() };
    for (id, chunked, uploads) in [("announced", false, 0), ("unannounced", true, 1)] {
        let whole = content.clone();
        let source = Source::start(move |_, _| if chunked { whole.whole().chunked() } else { whole.whole() }).await;
        scene.offer(id, &signed(&source.address, "r.wav", 3600)).await;
        let archiver = scene.archiver_with(small, scene.clients());
        let outcome = archiver.archive(&key(id), "worker", soon()).await.unwrap();
        assert_eq!(outcome, Outcome::GivenUp(State::Failed));
        assert_eq!(scene.state(id).await, "failed");
        assert_eq!(scene.last_error(id).await, format!("the recording is over {} bytes", 3 * PART - 1));
        assert_eq!(scene.uploads.0.lock().unwrap().len(), uploads);
        assert_eq!(scene.orphans().await, []);
        assert_eq!(scene.objects().await, [] as [String; 0]);
    }
    // Exactly the limit is none over it.
    let source = Source::of(&content).await;
    scene.offer("exactly", &signed(&source.address, "r.wav", 3600)).await;
    let archiver = scene.archiver_with(Limits { max_bytes: 3 * PART, ..limits() }, scene.clients());
    assert_eq!(archiver.archive(&key("exactly"), "worker", soon()).await.unwrap(), Outcome::Archived);
    scene.assert_wav("exactly", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 12);
    for (hops, outcome) in [(3, Outcome::Archived), (4, Outcome::GivenUp(State::Failed))] {
        let whole = content.clone();
        let source = Source::start(move |nth, asked| match nth {
            nth if nth < hops => Reply::redirect(&format!("/hop{nth}?X-Amz-Signature={SIGNATURE}")),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("hops{hops}");
        assert_eq!(scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await, outcome);
        assert_eq!(source.log().len(), 4);
    }
    scene.assert_wav("hops3", &content).await;
    assert_eq!(scene.last_error("hops4").await, "the source redirects without end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_where_a_recording_must_not_come_from_is_refused_without_a_connection() {
    let scene = Scene::new().await;
    let witness = Source::start(|_, _| Reply::status(200)).await;
    let other = Source::start_on("127.0.0.2", |_, _| Reply::status(200)).await;
    let port = witness.address.rsplit_once(':').unwrap().1.to_owned();
    let targets = [
        format!("http://{}/r.wav", other.address),
        format!("http://localhost:{port}/r.wav"),
        format!("http://[::ffff:127.0.0.1]:{port}/r.wav"),
        format!("https://127.0.0.1:{port}/r.wav"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://169.254.169.254/latest/meta-data/".to_owned(),
        "https://10.0.0.1/r.wav".to_owned(),
        "http://bucket.s3.amazonaws.com/r.wav".to_owned(),
        format!("https://bucket.s3.amazonaws.com:{port}/r.wav"),
        "https://user@bucket.s3.amazonaws.com/r.wav".to_owned(),
        "https://evil.example/r.wav".to_owned(),
        "//evil.example/r.wav".to_owned(),
        "https://evil-s3.amazonaws.com.example/r.wav".to_owned(),
        // An allowed name, but it leads here.
        "https://bucket.s3.amazonaws.com/r.wav".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://bucket.s3.amazonaws.com/r.wav".to_owned(),
    ];
    for (nth, target) in targets.into_iter().enumerate() {
        let to = format!("{target}?X-Amz-Signature={SIGNATURE}");
        let source = Source::start(move |_, _| Reply::redirect(&to)).await;
        let id = format!("s{nth}");
        scene.offer(&id, &signed(&source.address, "r.wav", 3600)).await;
        let sources = Sources::and_loopback(Hosts::s3(), limits(), everything_at(&witness.address)).unwrap();
        let archiver = scene.build(scene.clients(), sources);
        let outcome = archiver.archive(&key(&id), "worker", soon()).await.unwrap();
        assert_eq!(outcome, Outcome::GivenUp(State::Rejected), "{target}");
        assert_eq!(scene.state(&id).await, "rejected");
        scene.last_error(&id).await;
        assert_eq!(source.log().len(), 1);
    }
    assert_eq!((witness.connections(), other.connections()), (0, 0));
    tests::http_client().get(format!("http://{}/", witness.address)).send().await.unwrap();
    assert_eq!(witness.connections(), 1, "it would have been seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_into_a_private_network_is_rejected_without_a_connection() {
    let scene = Scene::new().await;
    let witness = Source::start(|_, _| Reply::status(200)).await;
    let port: u16 = witness.address.rsplit_once(':').unwrap().1.parse().unwrap();
    let leads_to = ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "fd00::1", "::ffff:10.0.0.1", "::1", "0.0.0.0"];
    for (nth, ip) in leads_to.into_iter().enumerate() {
        let id = format!("s{nth}");
        let url = signed("bucket.s3.amazonaws.com", "r.wav", 3600).replace("http:", "https:");
        scene.offer(&id, &url).await;
        let archiver = scene.public_archiver(everything_at(&SocketAddr::new(ip.parse().unwrap(), port).to_string()));
        let outcome = archiver.archive(&key(&id), "worker", soon()).await.unwrap();
        assert_eq!(outcome, Outcome::GivenUp(State::Rejected), "{ip}");
        assert_eq!(scene.last_error(&id).await, "the recording's host bucket.s3.amazonaws.com has no public address");
        assert_eq!(scene.state(&id).await, "rejected");
    }
    assert_eq!(witness.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_changes_between_lookups_never_leads_into_a_private_network() {
    let scene = Scene::new().await;
    let witness = Source::start(|_, _| Reply::status(200)).await;
    let private: SocketAddr = witness.address.parse().unwrap();
    // Public by its range, but nobody's: the 6bone gave it back.
    let public: SocketAddr = "[3ffe::1]:443".parse().unwrap();
    let lookups = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lookups);
    let lookup: Lookup = Arc::new(move |_| {
        let answer = match counted.fetch_add(1, Ordering::SeqCst) {
            0 => vec![public],
            1 => vec![private, public, private],
            _ => vec![private],
        };
        Box::pin(async move { Ok(answer) })
    });
    let archiver = scene.public_archiver(lookup);
    scene.offer("s1", &signed("bucket.s3.amazonaws.com", "r.wav", 3600).replace("http:", "https:")).await;
    for attempt in 0..2 {
        assert_eq!(archiver.archive(&key("s1"), "worker", soon()).await.unwrap(), Outcome::Waiting, "{attempt}");
        assert_eq!(scene.last_error("s1").await, "the source cannot be reached");
        scene.pass(3600);
    }
    let outcome = archiver.archive(&key("s1"), "worker", soon()).await.unwrap();
    assert_eq!(outcome, Outcome::GivenUp(State::Rejected));
    assert_eq!((lookups.load(Ordering::SeqCst), witness.connections()), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployed_function_takes_nothing_from_loopback() {
    let scene = Scene::new().await;
    let witness = Source::start(|_, _| Reply::status(200)).await;
    assert_eq!(scene.world.items("recordings").await.len(), 0);
    scene.offer("s1", &signed(&witness.address, "r.wav", 3600)).await;
    let outcome = scene.public_archiver(no_names()).archive(&key("s1"), "worker", soon()).await.unwrap();
    assert_eq!(outcome, Outcome::GivenUp(State::Rejected));
    assert_eq!(scene.last_error("s1").await, "the recording's URL is not https on port 443");
    assert_eq!(witness.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_workers_on_one_job_one_copies() {
    let scene = Scene::new().await;
    let content = Content::wav(100_000, 13);
    let go_on = Arc::new(Notify::new());
    let (whole, held) = (content.clone(), Arc::clone(&go_on));
    let source = Source::start(move |_, asked| whole.answer(asked).hold_at(50_000, &held)).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 3600)).await;
    let (archiver, s1) = (scene.archiver(), key("s1"));
    let (first, second) = tokio::join!(archiver.archive(&s1, "first", soon()), async {
        source.asked(1).await;
        let second = scene.archiver().archive(&s1, "second", soon()).await;
        assert_eq!(text(&scene.job("s1").await, "state"), "copying");
        go_on.notify_one();
        second
    });
    assert_eq!((first.unwrap(), second.unwrap()), (Outcome::Archived, Outcome::NotOurs));
    assert_eq!(source.log().len(), 1);
    scene.assert_wav("s1", &content).await;

    // And without any order between them.
    let source = Source::of(&content).await;
    scene.offer("s2", &signed(&source.address, "r.wav", 3600)).await;
    let (archivers, s2) = ([scene.archiver(), scene.archiver(), scene.archiver()], key("s2"));
    let workers = archivers.iter().zip(["a", "b", "c"]).map(|(archiver, name)| archiver.archive(&s2, name, soon()));
    let outcomes = futures_util::future::join_all(workers).await;
    assert_eq!(outcomes.into_iter().filter(|outcome| *outcome.as_ref().unwrap() == Outcome::Archived).count(), 1);
    assert_eq!(source.log().len(), 1);
    scene.assert_wav("s2", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_die_at_any_step_and_the_next_one_finishes_its_work() {
    let scene = Scene::new().await;
    // Two parts at once, and one byte more.
    let content = Content::wav(2 * PART + 1, 14);
    let source = Source::of(&content).await;
    let (mut steps, mut stuck) = (0, Vec::new());
    'steps: for from in 0.. {
        for when in [When::Before, When::After] {
            let id = format!("s{from}-{when:?}");
            scene.offer(&id, &signed(&source.address, &format!("{id}.wav"), 86_400 * 7)).await;
            let death = Death { from, when, seen: Arc::default() };
            let dying = scene.archiver_with(limits(), between(&scene.clients(), &death));
            let outcome = dying.archive(&key(&id), "dies", soon()).await;
            if death.seen.load(Ordering::SeqCst) <= from {
                assert_eq!((outcome.unwrap(), when), (Outcome::Archived, When::Before), "this one lived");
                steps = from;
                break 'steps;
            }
            outcome.expect_err("a dead worker says nothing");
            scene.pass(LEASE_SECONDS + 1);
            let next = scene.archiver().archive(&key(&id), "next", soon()).await;
            if scene.state_of_job(&id).await == "archived" {
                scene.assert_wav(&id, &content).await;
            } else {
                stuck.push((id, next));
            }
        }
    }
    assert!(stuck.is_empty(), "{stuck:?}");
    // Claim, day of the call, upload, note of it, three parts, their end, the call, the job's end.
    assert_eq!(steps, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_while_it_reads_leaves_nothing_behind_after_the_sweep() {
    let scene = Scene::new().await;
    let content = Content::wav(3 * PART, 15);
    for hangs_at in [0, 100, 2 * PART + 1] {
        let whole = content.clone();
        let source = Source::start(move |nth, asked| match nth {
            0 if hangs_at == 0 => whole.answer(asked).after(&Arc::default()),
            0 => whole.answer(asked).hang_at(hangs_at),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("s{hangs_at}");
        scene.offer(&id, &signed(&source.address, "r.wav", 86_400)).await;
        let (archiver, job) = (scene.archiver(), key(&id));
        let worker = tokio::spawn(async move { archiver.archive(&job, "killed", soon()).await });
        source.asked(1).await;
        if hangs_at > 2 * PART {
            while scene.orphans().await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        worker.abort();
        assert!(worker.await.unwrap_err().is_cancelled());
        assert_eq!(text(&scene.job(&id).await, "state"), "copying");
        assert_eq!(scene.archiver().sweep("too-early", soon()).await.unwrap(), 0);
        assert_eq!(scene.sweep_past_the_lease().await, 1);
        assert_eq!(text(&scene.job(&id).await, "attempts"), "2");
        scene.assert_wav(&id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_time_is_over_puts_the_job_back_and_takes_its_parts_away() {
    let scene = Scene::new().await;
    let content = Content::wav(3 * PART, 16);
    let whole = content.clone();
    let source = Source::start(move |nth, asked| match nth {
        0 => whole.answer(asked).hang_at(2 * PART + 1),
        _ => whole.answer(asked),
    });
    let source = source.await;
    scene.offer("s1", &signed(&source.address, "r.wav", 86_400)).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    let outcome = scene.archiver().archive(&key("s1"), "late", until).await.unwrap();
    assert_eq!(outcome, Outcome::Waiting);
    assert_eq!(scene.last_error("s1").await, "there was not enough time for the whole recording");
    assert_eq!(scene.orphans().await, []);
    scene.pass(3600);
    assert_eq!(scene.again("s1").await, Outcome::Archived);
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lost_its_lease_changes_nothing_when_it_wakes() {
    let scene = Scene::new().await;
    let content = Content::wav(100_000, 17);
    // What the sleeper finds in the end: the recording, or that its URL has expired.
    for refused in [false, true] {
        let go_on = Arc::new(Notify::new());
        let (whole, held) = (content.clone(), Arc::clone(&go_on));
        let source = Source::start(move |nth, asked| match nth {
            0 if refused => Reply::status(403).after(&held),
            0 => whole.answer(asked).after(&held),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("refused-{refused}");
        scene.offer(&id, &signed(&source.address, "r.wav", 86_400 * 7)).await;
        let (archiver, job) =
            (scene.archiver_with(Limits { stall: Duration::from_mins(1), ..limits() }, scene.clients()), key(&id));
        let sleeper = tokio::spawn(async move { archiver.archive(&job, "sleeper", soon()).await });
        source.asked(1).await;
        assert_eq!(scene.sweep_past_the_lease().await, 1);
        scene.assert_wav(&id, &content).await;
        let (job, call) = (scene.job(&id).await, scene.call(&id).await);
        scene.pass(86_400 * 8);
        go_on.notify_one();
        assert_eq!(sleeper.await.unwrap().unwrap(), Outcome::Waiting);
        assert_eq!(scene.job(&id).await, job);
        for said in ["recording_state", "recording"] {
            assert_eq!(scene.call(&id).await.get(said), call.get(said), "{said} of the call, {id}");
        }
        scene.assert_wav(&id, &content).await;
    }
}

/// A source with two URLs: what it answers for each is the path's matter.
async fn two_urls(content: &Content, other: &Content) -> Source {
    let (content, other) = (content.clone(), other.clone());
    Source::start(move |_, asked| match asked.path.split(['?', '/']).nth(1).unwrap() {
        "r.wav" if asked.path.contains("refused=1") => Reply::status(403),
        "other.wav" => other.answer(asked),
        _ => content.answer(asked),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_that_lasts_longest_is_the_one_that_is_fetched_in_any_order() {
    let scene = Scene::new().await;
    let (content, other) = (Content::wav(1000, 18), Content::wav(2000, 19));
    let source = two_urls(&content, &other).await;
    let old = signed(&source.address, "r.wav", 3600);
    let new = signed(&source.address, "r.wav", 7200);
    for (id, urls) in [("forth", [&old, &new]), ("back", [&new, &old])] {
        for url in urls {
            scene.offer(id, url).await;
        }
        assert_eq!(scene.again(id).await, Outcome::Archived);
        assert!(source.log().last().unwrap().path.contains("X-Amz-Expires=7200"));
        scene.assert_wav(id, &content).await;
        // Neither, nor one that lasts longer still, asks for the same recording again.
        let asked = source.log().len();
        for url in [&old, &new, &signed(&source.address, "r.wav", 10_800)] {
            assert_eq!(scene.try_once(id, url).await, Outcome::NotOurs);
        }
        scene.assert_wav(id, &content).await;
        assert_eq!(source.log().len(), asked);
        // Another recording is another matter.
        assert_eq!(scene.try_once(id, &signed(&source.address, "other.wav", 14_400)).await, Outcome::Archived);
        scene.assert_wav(id, &other).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_url_revives_a_job_that_ended_without_its_recording() {
    let scene = Scene::new().await;
    let (content, other) = (Content::wav(1000, 20), Content::wav(2000, 21));
    let source = two_urls(&content, &other).await;
    let old = format!("{}&refused=1", signed(&source.address, "r.wav", 601));
    let rejected = signed("internal.example", "r.wav", 601);
    scene.offer("expired", &old).await;
    scene.pass(2);
    assert_eq!(scene.again("expired").await, Outcome::GivenUp(State::Expired));
    assert_eq!(scene.try_once("rejected", &rejected).await, Outcome::GivenUp(State::Rejected));
    assert_eq!(scene.last_error("rejected").await, "the recording's URL is not https on port 443");
    for (id, known) in [("expired", &old), ("rejected", &rejected)] {
        assert_eq!(scene.state(id).await, id);
        // The same again, or one that lasted no longer, revives nothing.
        assert_eq!(scene.try_once(id, known).await, Outcome::NotOurs);
        assert_eq!(scene.try_once(id, &signed(&source.address, "r.wav", 500)).await, Outcome::NotOurs);
        scene.pass(60);
        assert_eq!(scene.try_once(id, &signed(&source.address, "r.wav", 7200)).await, Outcome::Archived);
        scene.assert_wav(id, &content).await;
        assert_eq!(scene.try_once(id, known).await, Outcome::NotOurs);
        scene.assert_wav(id, &content).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_url_has_all_the_attempts_that_the_old_one_had() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 37);
    let whole = content.clone();
    let source = Source::start(move |nth, asked| if nth < 13 { Reply::status(500) } else { whole.answer(asked) }).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 86_400)).await;
    let mut outcome = Outcome::Waiting;
    for _ in 0..12 {
        outcome = scene.again("s1").await;
        scene.pass(3600);
    }
    assert_eq!(outcome, Outcome::GivenUp(State::Failed));
    assert_eq!(scene.try_once("s1", &signed(&source.address, "r.wav", 7 * 86_400)).await, Outcome::Waiting);
    scene.pass(30);
    assert_eq!(scene.again("s1").await, Outcome::Archived);
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_url_that_comes_while_the_old_one_is_copied_is_not_lost() {
    let scene = Scene::new().await;
    let (content, other) = (Content::wav(100_000, 22), Content::wav(200_000, 23));
    // Whether the old URL is refused in the end, and what the newer one leads to.
    for (refused, path) in [(false, "r.wav"), (true, "r.wav"), (false, "other.wav"), (true, "other.wav")] {
        let go_on = Arc::new(Notify::new());
        let (whole, another, held) = (content.clone(), other.clone(), Arc::clone(&go_on));
        let source = Source::start(move |nth, asked| match nth {
            0 if refused => Reply::status(403).after(&held),
            0 => whole.answer(asked).hold_at(50_000, &held),
            _ if asked.path.starts_with("/other.wav") => another.answer(asked),
            _ => whole.answer(asked),
        });
        let source = source.await;
        let id = format!("{refused}-{path}").replace('.', "-");
        let seconds = 600 + scene.now().unix_seconds() - 1_773_585_000;
        scene.offer(&id, &signed(&source.address, "r.wav", seconds)).await;
        let (archiver, job) = (scene.archiver(), key(&id));
        let worker = tokio::spawn(async move { archiver.archive(&job, "worker", soon()).await.unwrap() });
        source.asked(1).await;
        scene.offer(&id, &signed(&source.address, path, seconds + 86_400)).await;
        assert_eq!(scene.state_of_job(&id).await, "copying");
        // The old URL has expired by now, and the lease still holds.
        scene.pass(700);
        go_on.notify_one();
        let enough = !refused && path == "r.wav";
        assert_eq!(worker.await.unwrap(), if enough { Outcome::Archived } else { Outcome::Waiting });
        if !enough {
            assert_eq!(scene.state_of_job(&id).await, "pending");
            let said = text(&scene.call(&id).await, "recording_state").to_owned();
            assert_ne!(said, "expired", "what the old URL came to says nothing: {id}");
            scene.pass(60);
            assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 1);
        }
        scene.assert_wav(&id, if path == "r.wav" { &content } else { &other }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_url_that_comes_while_a_failed_one_waits_is_tried_with_the_job() {
    let scene = Scene::new().await;
    let (content, other) = (Content::wav(1000, 24), Content::wav(2000, 25));
    let source = two_urls(&content, &other).await;
    let old = format!("{}&refused=1", signed(&source.address, "r.wav", 3600));
    assert_eq!(scene.try_once("s1", &old).await, Outcome::Waiting);
    scene.offer("s1", &signed(&source.address, "r.wav", 7200)).await;
    assert_eq!(scene.state("s1").await, "pending");
    scene.pass(30);
    assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 1);
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_urls_reach_the_source_as_they_were_signed() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 26);
    let source = Source::of(&content).await;
    let query = format!("X-Amz-Date=20260315T143000Z&X-Amz-Expires=3600&X-Amz-Signature={SIGNATURE}");

    // As JSON may spell an ampersand.
    let url = format!("http://{}/r.wav?{}", source.address, query.replace('&', "\\u0026"));
    let body = format!(
        r#"{{"event":"session.completed","timestamp":"{SENT}","data":{{"session_id":"spelled","recording_url":"{url}"}}}}"#
    );
    assert_eq!(scene.world.deliver(Webhook::SessionCompleted, body).await.status, 200);
    assert_eq!(scene.again("spelled").await, Outcome::Archived);
    assert_eq!(source.log().last().unwrap().path, format!("/r.wav?{query}"));
    scene.assert_wav("spelled", &content).await;

    let long = format!("/r.wav?{query}&X-Amz-Security-Token={}", "IQoJb3JpZ2luX2Vj%2F%2B".repeat(200));
    assert!(long.len() > 4096);
    assert_eq!(scene.try_once("long", &format!("http://{}{long}", source.address)).await, Outcome::Archived);
    assert_eq!(source.log().last().unwrap().path, long);

    let path = "नमस्ते/r é+%2B%20.wav";
    assert_eq!(scene.try_once("named", &format!("http://{}/{path}?{query}", source.address)).await, Outcome::Archived);
    assert_eq!(
        source.log().last().unwrap().path,
        format!("/%E0%A4%A8%E0%A4%AE%E0%A4%B8%E0%A5%8D%E0%A4%A4%E0%A5%87/r%20%C3%A9+%2B%20.wav?{query}")
    );
    scene.assert_wav("named", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_session_ids_make_keys_that_hold_no_path() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 27);
    let source = Source::of(&content).await;
    for (id, name) in [
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd".to_owned()),
        ("a#b c", "a%23b%20c".to_owned()),
        ("..", "%2E.".to_owned()),
        (&"नमस्ते".repeat(20), tests::sha256("नमस्ते".repeat(20).as_bytes())),
    ] {
        assert_eq!(scene.try_once(id, &signed(&source.address, "r.wav", 3600)).await, Outcome::Archived);
        let s3_key = format!("recordings/vocobase/2026/03/15/{name}.wav");
        assert_eq!(text(&scene.job(id).await, "s3_key"), s3_key);
        assert!(scene.objects().await.contains(&s3_key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_source_says_its_checksum_is_must_be_so() {
    let scene = Scene::new().await;
    for length in [1000, 2 * PART + 1] {
        let content = Content::wav(length, 28);
        let sha256 = tests::base64(&hex::decode(content.sha256()).unwrap());
        // Of an empty body.
        let (wrong_sha256, wrong_md5) =
            ("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "\"d41d8cd98f00b204e9800998ecf8427e\"");
        let refused = [
            ("sha256", vec![("x-amz-checksum-sha256", wrong_sha256)]),
            ("md5", vec![("Server", "AmazonS3"), ("ETag", wrong_md5)]),
            ("sse", vec![("Server", "AmazonS3"), ("ETag", wrong_md5), ("x-amz-server-side-encryption", "AES256")]),
        ];
        let taken = [
            ("right", vec![("x-amz-checksum-sha256", sha256.as_str())]),
            ("composite", vec![("x-amz-checksum-sha256", wrong_sha256), ("x-amz-checksum-type", "COMPOSITE")]),
            ("kms", vec![("Server", "AmazonS3"), ("ETag", wrong_md5), ("x-amz-server-side-encryption", "aws:kms")]),
            ("parts", vec![("Server", "AmazonS3"), ("ETag", "\"d41d8cd98f00b204e9800998ecf8427e-3\"")]),
            ("not-s3", vec![("ETag", wrong_md5)]),
        ];
        let all = refused.into_iter().map(|case| (false, case)).chain(taken.into_iter().map(|case| (true, case)));
        for (is_taken, (name, headers)) in all.filter(|(is_taken, _)| length < PART || !is_taken) {
            let reply = headers.iter().fold(content.whole(), |reply, (name, value)| reply.header(name, value));
            let source = Source::start(move |_, _| reply.clone()).await;
            let id = format!("{name}-{length}");
            let outcome = scene.try_once(&id, &signed(&source.address, "r.wav", 3600)).await;
            if is_taken {
                assert_eq!(outcome, Outcome::Archived, "{id}");
                scene.assert_wav(&id, &content).await;
                continue;
            }
            assert_eq!(outcome, Outcome::Waiting, "{id}");
            assert_eq!(scene.last_error(&id).await, "the recording does not have the checksum that the source names");
            assert!(!scene.objects().await.iter().any(|key| key.contains(&id)), "{id}");
            assert_eq!(scene.orphans().await, []);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_presigned_url_is_in_no_job_and_no_call_once_archived_and_in_no_error() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 29);
    let whole = content.clone();
    let source = Source::start(move |nth, asked| match nth {
        0 => Reply::status(500),
        1 => Reply::redirect("http://evil.example/?X-Amz-Signature=marker5ignature"),
        _ => whole.answer(asked),
    });
    let source = source.await;
    assert_eq!(scene.try_once("s1", &signed(&source.address, "r.wav", 3600)).await, Outcome::Waiting);
    scene.last_error("s1").await;
    scene.pass(60);
    assert_eq!(scene.again("s1").await, Outcome::GivenUp(State::Rejected));
    scene.last_error("s1").await;
    scene.pass(60);
    assert_eq!(scene.try_once("s1", &signed(&source.address, "r.wav", 7200)).await, Outcome::Archived);
    scene.assert_wav("s1", &content).await;
    for table in ["recordings", "sessions", "transcripts"] {
        let items = format!("{:?}", scene.world.items(table).await);
        assert!(!items.contains(SIGNATURE), "{table}: {items}");
    }
    // Where nothing listens any more.
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(scene.try_once("s2", &signed(&closed.to_string(), "r.wav", 7200)).await, Outcome::Waiting);
    assert_eq!(scene.last_error("s2").await, "the source cannot be reached");
}

/// A batch of the stream of the table.
fn batch(sessions: &[&str]) -> Value {
    let record = |(nth, session): (usize, &&str)| {
        json!({
            "eventID": nth.to_string(), "eventName": "MODIFY", "eventSource": "aws:dynamodb", "awsRegion": "us-east-1",
            "dynamodb": { "Keys": { "session": { "S": session } }, "SequenceNumber": format!("{nth}00"), "SizeBytes": 26,
                "StreamViewType": "KEYS_ONLY", "ApproximateCreationDateTime": 1_773_585_000 },
        })
    };
    json!({ "Records": sessions.iter().enumerate().map(record).collect::<Vec<_>>() })
}

async fn invoke(archiver: &Archiver, event: Value) -> Value {
    let report = handle(archiver, serde_json::from_value(event).unwrap(), "request-1", soon()).await.unwrap();
    serde_json::to_value(report).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_reports_what_could_not_be_noted_and_nothing_else() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 30);
    let good = Source::of(&content).await;
    let gone = Source::start(|_, _| Reply::status(404)).await;
    scene.offer("good", &signed(&good.address, "r.wav", 3600)).await;
    scene.offer("gone", &signed(&gone.address, "r.wav", 3600)).await;
    scene.offer("rejected", "https://internal.example/r.wav").await;
    let sessions = ["vocobase#gone", "no key", "vocobase#good", "vocobase#", "vocobase#rejected", "vocobase#unknown"];
    let failures = json!({ "batchItemFailures": [{ "itemIdentifier": "100" }, { "itemIdentifier": "300" }] });
    assert_eq!(invoke(&scene.archiver(), batch(&sessions)).await, failures);
    scene.assert_wav("good", &content).await;
    assert_eq!(scene.state("gone").await, "pending");
    assert_eq!(scene.state("rejected").await, "rejected");
    assert_eq!(
        scene.last_error("rejected").await.split(':').next().unwrap(),
        "the recording's host internal.example is not allowed"
    );

    // The stream tells of the archiver's own writes too: they are nothing new.
    let none = json!({ "batchItemFailures": [] });
    assert_eq!(invoke(&scene.archiver(), batch(&["vocobase#gone", "vocobase#good", "vocobase#rejected"])).await, none);
    assert_eq!((good.log().len(), gone.log().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_worked_on_side_by_side() {
    let scene = Scene::new().await;
    let (content, go_on) = (Content::wav(1000, 32), Arc::new(Notify::new()));
    let (held, waits) = (content.clone(), Arc::clone(&go_on));
    let source = Source::start(move |_, _| held.whole().after(&waits)).await;
    let ids: Vec<String> = (0..PARALLEL).map(|n| format!("s{n}")).collect();
    for id in &ids {
        scene.offer(id, &signed(&source.address, "r.wav", 3600)).await;
    }
    let sessions: Vec<String> = ids.iter().map(|id| format!("vocobase#{id}")).collect();
    let sessions: Vec<&str> = sessions.iter().map(String::as_str).collect();
    let archiver = scene.archiver();
    tokio::select! {
        report = invoke(&archiver, batch(&sessions)) => assert_eq!(report, json!({ "batchItemFailures": [] })),
        never = once_as_many_asked_as_may(&source, &go_on) => match never {},
    }
    for id in &ids {
        scene.assert_wav(id, &content).await;
    }
}

/// Lets a source answer that was to give nothing to anyone before, so that it has seen who is copied at once.
async fn once_as_many_asked_as_may(source: &Source, go_on: &Notify) -> Infallible {
    source.asked(PARALLEL).await;
    loop {
        go_on.notify_waiters();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_while_a_shard_is_full() {
    let scene = Scene::new().await;
    let source = Source::of(&Content::wav(1000, 33)).await;
    let ids = (0..).map(|n| format!("s{n}")).filter(|id| key(id).shard(4) == 0).take(60);
    for id in ids {
        scene.offer(&id, &signed(&source.address, "r.wav", 3600)).await;
    }
    assert_eq!(scene.archiver().sweep("worker", soon()).await.unwrap(), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_a_store_fails_is_brought_again() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 31);
    let source = Source::of(&content).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 7200)).await;
    for (place, from) in
        [(Place::Table("recordings"), 0), (Place::Table("recordings"), 1), (Place::Table("sessions"), 0)]
    {
        let fault = Fault::new(place, When::Before, from);
        let archiver = scene.archiver_with(limits(), fault.in_clients(&scene.clients()));
        let failures = json!({ "batchItemFailures": [{ "itemIdentifier": "000" }] });
        assert_eq!(invoke(&archiver, batch(&["vocobase#s1"])).await, failures, "{fault:?}");
        assert!(fault.happened());
        scene.pass(LEASE_SECONDS + 1);
    }
    // Where the job itself can be written, it is let go of: nobody waits for the lease to end.
    assert_eq!(scene.state_of_job("s1").await, "pending");
    // The schedule's event has no records.
    let schedule = json!({ "version": "0", "source": "aws.scheduler", "detail-type": "Scheduled Event", "detail": {} });
    assert_eq!(invoke(&scene.archiver(), schedule).await, json!({ "batchItemFailures": [] }));
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_takes_what_expires_soonest_first_and_begins_nothing_that_it_has_no_time_for() {
    let scene = Scene::new().await;
    let (content, go_on) = (Content::wav(1000, 32), Arc::new(Notify::new()));
    let (held, waits) = (content.clone(), Arc::clone(&go_on));
    let source = Source::start(move |_, _| held.whole().after(&waits)).await;
    for n in [5, 9, 0, 11, 3, 7, 1, 10, 2, 8, 4, 6] {
        let url = signed(&source.address, &format!("{n:02}.wav"), 3600 + n);
        scene.offer(&format!("s{n}"), &url).await;
    }
    let now = tokio::time::Instant::now();
    assert_eq!(scene.archiver().sweep("sweeper", now + Duration::from_secs(10)).await.unwrap(), 0);
    assert_eq!(source.log().len(), 0);
    let archiver = scene.archiver();
    tokio::select! {
        swept = archiver.sweep("sweeper", soon()) => assert_eq!(swept.unwrap(), 12),
        never = once_as_many_asked_as_may(&source, &go_on) => match never {},
    }
    let mut first: Vec<String> = source.log()[..PARALLEL].iter().map(|asked| asked.path[1..3].to_owned()).collect();
    first.sort();
    assert_eq!(first, ["00", "01", "02", "03", "04", "05", "06", "07"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_job_that_a_store_fails_does_not_hold_up_the_others() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 33);
    let source = Source::of(&content).await;
    for (id, seconds) in [("first", 3600), ("second", 7200)] {
        scene.offer(id, &signed(&source.address, "r.wav", seconds)).await;
    }
    // An upload that the bucket will not abort.
    let update = scene.world.clients.dynamodb.update_item().table_name(&scene.world.stores().tables["recordings"]);
    let update = update.key("session", AttributeValue::S("vocobase#first".to_owned()));
    let update = update.update_expression("SET upload_id = :odd, s3_key = :odd");
    update.expression_attribute_values(":odd", AttributeValue::S("recordings/odd".to_owned())).send().await.unwrap();
    let _ = scene.archiver().sweep("sweeper", soon()).await;
    scene.assert_wav("second", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_megabytes_need_little_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "recordings::two_hundred_megabytes_in_this_process", "--ignored", "--nocapture"])
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// Source and archiver; the stores are another process.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures the process that it is in: `two_hundred_megabytes_need_little_memory` starts one for it"]
async fn two_hundred_megabytes_in_this_process() {
    let stores = LocalProcess::start(&["--ephemeral"]).await;
    let stores = stores.endpoints.stores.as_ref().unwrap();
    let clients = stores.connect().unwrap();
    // The local run has an archiver too. It must not take the jobs of this one, so another worker holds them until a
    // time that has come here only.
    let taken_until = Instant::now().plus_seconds(86_400);
    let clock: Clock = Arc::new(move || taken_until.plus_seconds(3600));
    let sources = Sources::and_loopback(Hosts::s3(), limits(), no_names()).unwrap();
    let environment = stores.environment();
    let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
    let archiver = Archiver::new(storage, clients.clone(), sources, clock);

    let mut before = 0;
    for (id, length) in [("warm", 1), ("long", 200_000_000)] {
        let content = Content::wav(length, 34);
        let source = Source::of(&content).await;
        let wanted = Wanted::new(format!("http://{}/r.wav", source.address), Some(taken_until));
        let mut put = clients.dynamodb.put_item().table_name(&stores.tables["recordings"]);
        for (name, value) in [
            ("session", key(id).to_string()),
            ("state", "copying".to_owned()),
            ("lease_id", "nobody".to_owned()),
            ("lease_until", taken_until.to_string()),
            ("wanted", wanted.rank()),
            ("source", wanted.source()),
            ("source_url", wanted.url.clone()),
            ("source_expires_at", wanted.expires_at.unwrap().to_string()),
        ] {
            put = put.item(name, AttributeValue::S(value));
        }
        put.send().await.unwrap();
        before = memory("VmRSS:");
        // Linux: the peak is counted from now on.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        assert_eq!(archiver.archive(&key(id), "worker", soon()).await.unwrap(), Outcome::Archived);
        let grown = memory("VmHWM:").saturating_sub(before);
        println!("{length} bytes: {} MiB more", grown >> 20);
        assert!(grown < 64 << 20, "{grown} bytes more than the {before} before");

        let items = tests::items(&clients, stores, "recordings").await;
        let job = items.iter().find(|item| text(item, "session") == key(id).as_str()).unwrap();
        assert_eq!((text(job, "sha256"), text(job, "bytes")), (&*content.sha256(), &*length.to_string()));
        let object = clients.s3.get_object().bucket(&stores.bucket).key(text(job, "s3_key")).send().await.unwrap();
        let bytes = object.body.collect().await.unwrap().into_bytes();
        assert_eq!(tests::sha256(&bytes), content.sha256());
    }
    assert!(before > 0);
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// A bucket that takes its time over each part.
#[derive(Clone, Debug)]
struct SlowBucket(Duration);

impl Intercept for SlowBucket {
    fn name(&self) -> &'static str {
        "SlowBucket"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.request().uri().contains("partNumber=") {
            std::thread::sleep(self.0);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_bucket_is_not_held_against_the_source() {
    let scene = Scene::new().await;
    let content = Content::wav(18_000_000, 35);
    let source = Source::of(&content).await;
    scene.offer("s1", &signed(&source.address, "r.wav", 3600)).await;
    // The source gives its first 16 MiB well within a span; storing them takes longer than a span.
    let limits = Limits { slow_span: Duration::from_secs(3), slow_bytes: 17 << 20, ..limits() };
    let slow = between(&scene.clients(), &SlowBucket(Duration::from_millis(1700)));
    let outcome = scene.archiver_with(limits, slow).archive(&key("s1"), "worker", soon()).await.unwrap();
    assert_eq!(outcome, Outcome::Archived, "{:?}", scene.job("s1").await.get("last_error"));
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_is_read_while_parts_are_on_their_way_to_the_bucket() {
    let scene = Scene::new().await;
    let content = Content::wav(3 * PART, 39);
    let whole = content.clone();
    // That it breaks after two parts and a half is noticed only by who reads so far.
    let source = Source::start(move |nth, asked| match nth {
        0 => whole.answer(asked).cut_at(2 * PART + PART / 2),
        _ => whole.answer(asked),
    });
    let source = source.await;
    scene.offer("s1", &signed(&source.address, "r.wav", 3600)).await;
    let slow = |request: &Request| (request.operation == "PUT").then_some(Mishap::Slow(Duration::from_secs(5)));
    let layer = Layer::new(slow);
    let archiver = scene.archiver_with(limits(), layer.in_clients(&scene.clients(), "archiver"));
    let worker = tokio::spawn(async move { archiver.archive(&key("s1"), "worker", soon()).await });
    source.asked(2).await;
    let arrived = layer.log().into_iter().filter(|entry| entry.request.operation == "PUT").count();
    assert_eq!(arrived, 0, "the source was read on before the first part had arrived");
    assert_eq!(worker.await.unwrap().unwrap(), Outcome::Archived);
    scene.assert_wav("s1", &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_tells_what_became_of_a_recording_and_never_its_url() {
    let scene = Scene::new().await;
    let content = Content::wav(17_000_000, 36);
    let whole = content.clone();
    let source = Source::start(move |nth, asked| match nth {
        0 => Reply::status(403),
        1 => whole.answer(asked).cut_at(16_900_000),
        2 => Reply::status(503),
        _ => whole.answer(asked),
    });
    let source = source.await;
    let log = Log::of(&["recording_archiver", "shared"]);
    scene.offer("s1", &signed(&source.address, "marker-path.wav", 86_400)).await;
    scene.offer("s2", &signed("marker-user@internal.example", "marker-path.wav", 86_400)).await;
    for outcome in [Outcome::Waiting, Outcome::Waiting, Outcome::Archived] {
        let found = scene.archiver().archive(&key("s1"), "worker", soon()).with_subscriber(log.dispatch.clone()).await;
        assert_eq!(found.unwrap(), outcome);
        scene.pass(3600);
    }
    let found =
        scene.archiver().archive(&key("s2"), "worker", soon()).with_subscriber(log.dispatch.clone()).await.unwrap();
    assert_eq!(found, Outcome::GivenUp(State::Rejected));
    let heard = log.heard();
    assert_eq!(heard.matches("recording not archived").count(), 3, "{heard}");
    assert_eq!(heard.matches("recording archived").count(), 1, "{heard}");
    for secret in [SIGNATURE, "marker-", &source.address, "://"] {
        assert!(!heard.contains(secret), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_that_wait_do_not_hide_one_that_is_due_from_the_sweep() {
    let scene = Scene::new().await;
    let content = Content::wav(1000, 38);
    let source = Source::of(&content).await;
    let same_shard = |id: &String| key(id).as_str().bytes().map(u32::from).sum::<u32>() % 4 == 0;
    let mut ids = (1000..).map(|nth| format!("w{nth}")).filter(same_shard);
    // After an outage there are many of these; all expire before the one that is due.
    for id in ids.by_ref().take(60) {
        scene.offer(&id, &signed(&source.address, "r.wav", 3600)).await;
        let update = scene.world.clients.dynamodb.update_item().table_name(&scene.world.stores().tables["recordings"]);
        let update = update.key("session", AttributeValue::S(key(&id).to_string()));
        let update = update.update_expression("SET next_attempt_at = :at");
        let at = AttributeValue::S(scene.now().plus_seconds(1800).to_string());
        update.expression_attribute_values(":at", at).send().await.unwrap();
    }
    let due = ids.next().unwrap();
    scene.offer(&due, &signed(&source.address, "r.wav", 7200)).await;
    assert_eq!(scene.archiver().sweep("sweeper", soon()).await.unwrap(), 1);
    scene.assert_wav(&due, &content).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_and_call_agree_even_if_a_worker_dies_while_it_gives_up() {
    let scene = Scene::new().await;
    let source = Source::start(|_, _| Reply::status(403)).await;
    let mut disagree = Vec::new();
    'steps: for from in 0.. {
        for when in [When::Before, When::After] {
            let id = format!("s{from}-{when:?}");
            scene.offer(&id, &signed(&source.address, "r.wav", 1)).await;
            let death = Death { from, when, seen: Arc::default() };
            let dying = scene.archiver_with(limits(), between(&scene.clients(), &death));
            let outcome = dying.archive(&key(&id), "dies", soon()).await;
            if death.seen.load(Ordering::SeqCst) <= from {
                assert_eq!(outcome.unwrap(), Outcome::GivenUp(State::Expired), "this one lived");
                break 'steps;
            }
            assert_eq!(scene.sweep_past_the_lease().await, 0);
            let (job, call) = (scene.job(&id).await, scene.call(&id).await);
            let states = (text(&job, "state").to_owned(), text(&call, "recording_state").to_owned());
            if states != ("expired".to_owned(), "expired".to_owned()) {
                disagree.push((id, states));
            }
        }
    }
    assert!(disagree.is_empty(), "{disagree:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_sleeps_past_the_end_of_its_url() {
    let scene = Scene::new().await;
    // It would rather be asked again in an hour; the URL holds for a minute.
    let source = Source::start(|_, _| Reply::status(503).header("Retry-After", "3600")).await;
    let seconds = 60 + scene.now().unix_seconds() - 1_773_585_000;
    scene.offer("s1", &signed(&source.address, "r.wav", seconds)).await;
    let end = scene.now().plus_seconds(60);
    let mut tries = 0;
    while scene.now() < end {
        assert_eq!(scene.again("s1").await, Outcome::Waiting);
        tries += 1;
        let next = Instant::parse(text(&scene.job("s1").await, "next_attempt_at")).unwrap();
        scene.pass(next.millis_since(scene.now()) / 1000);
    }
    assert!(tries >= 3, "{tries} tries in the minute that there was");
}
