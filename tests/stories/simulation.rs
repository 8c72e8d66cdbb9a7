//! Thousands of calls under faults in every request to a store, in the sources of recordings and in the functions
//! themselves; and what must hold when they are over. `docs/reliability.md` says what is simulated, and what is not.
//!
//! Calls live in small worlds. A world's time is virtual: the runtime of its functions, platforms and sources stands
//! still while a request is with a store, and jumps to what is due next when nothing else is to be done. So every wait
//! has its true length, costs nothing, and a world repeats exactly.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::reconciler::api::Patience as ApiPatience;
use ::reconciler::{Ended, Reconciler};
use futures_util::{StreamExt, future, stream};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use recording_archiver::Archiver;
use recording_archiver::source::{Hosts, Limits, Sources};
use sha2::{Digest, Sha256};
use shared::auth::Verified;
use shared::call::{Call, Delivery, Field, Source as From, State};
use shared::config::Storage;
use shared::recording::State as JobState;
use shared::storage::{Clients, Store, event_key, item_to_call, item_to_segments, read_event};
use shared::webhook::App;
use shared::{Clock, Country, Instant, Provider, SessionKey, Webhook};
use tests::faults::When;
use tests::faults::layer::{Entry, Layer, Mishap, Request};
use tests::odd_calls::odd_call;
use tests::platform::deliveries::{Patience, is_success};
use tests::platform::{self, KEY, Line, Platform};
use tests::source::{Content, Reply, Source};
use tests::{Item, World, at, read, text};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time;

/// When a world begins.
const BEGIN: &str = "2026-03-15T14:00:00Z";
/// Calls in a world.
const CALLS: u64 = 25;
/// Calls begin within so many seconds of a world's beginning.
const BUSY_SECONDS: u64 = 90;
/// Worlds that are simulated at a time.
const WORLDS_AT_ONCE: usize = 3;

/// What there was.
#[derive(Default, Debug)]
struct Counts {
    calls: u64,
    deliveries: u64,
    attempts: u64,
    answered_2xx: u64,
    answered_5xx: u64,
    unanswered: u64,
    given_up: BTreeMap<&'static str, u64>,
    requests: u64,
    mishaps: BTreeMap<&'static str, u64>,
    source_requests: u64,
    source_mishaps: u64,
    listed: u64,
    recovered: u64,
    renewed: u64,
    half_stored: u64,
    recordings: BTreeMap<String, u64>,
    bytes: u64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.calls += other.calls;
        self.deliveries += other.deliveries;
        self.attempts += other.attempts;
        self.answered_2xx += other.answered_2xx;
        self.answered_5xx += other.answered_5xx;
        self.unanswered += other.unanswered;
        self.requests += other.requests;
        self.source_requests += other.source_requests;
        self.source_mishaps += other.source_mishaps;
        self.listed += other.listed;
        self.recovered += other.recovered;
        self.renewed += other.renewed;
        self.half_stored += other.half_stored;
        self.bytes += other.bytes;
        for (word, count) in other.given_up {
            *self.given_up.entry(word).or_default() += count;
        }
        for (word, count) in other.mishaps {
            *self.mishaps.entry(word).or_default() += count;
        }
        for (state, count) in other.recordings {
            *self.recordings.entry(state).or_default() += count;
        }
    }
}

/// A delivery that a platform brings.
struct Sent {
    webhook: Webhook,
    body: Vec<u8>,
    /// When it is first tried, after the world's beginning.
    at: Duration,
    /// What it says.
    said: Delivery,
    /// The key of its event, below its session.
    event: String,
    /// How many attempts the layer had seen when this was first answered 2xx.
    acknowledged: RefCell<Option<usize>>,
}

/// What becomes of a recording's URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It holds for a day.
    Lasting,
    /// It holds for some minutes; the platform makes another.
    Brief,
    /// There is nothing behind it, and no other.
    Gone,
    /// It points where recordings are not fetched.
    Elsewhere,
}

/// A time in which nothing works.
#[derive(Clone, Copy, Debug)]
struct Outage {
    from: Duration,
    until: Duration,
    of_stores: bool,
}

impl Outage {
    fn is_at(self, moment: Duration) -> bool {
        (self.from..self.until).contains(&moment)
    }
}

/// A number that belongs to `what` in the world of that seed.
fn chance(seed: u64, what: &str, nth: usize) -> u64 {
    let mut digest = Sha256::new_with_prefix(seed.to_be_bytes());
    digest.update(what);
    digest.update((nth as u64).to_be_bytes());
    let digest = digest.finalize();
    u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
}

/// How many of a thousand requests to this place go wrong, such as one item of one table: some always go wrong while the
/// faults last, and some never, so that calls are stored half-way.
fn badness(seed: u64, place: &str) -> u64 {
    [0, 0, 0, 10, 20, 20, 50, 50, 100, 100, 200, 200, 400, 400, 700, 1000]
        [usize::try_from(chance(seed, place, 0) % 16).unwrap()]
}

fn mishap(chance: u64) -> Mishap {
    let when = if chance & 1 == 0 { When::Before } else { When::After };
    match (chance >> 1) % 8 {
        0 => Mishap::Throttled,
        1 => Mishap::Failed,
        2 | 3 => Mishap::Slow(Duration::from_millis((chance >> 8) % 3000)),
        4 => Mishap::Unanswered(when),
        5 | 6 => Mishap::Reset(when),
        _ => Mishap::Partial(usize::try_from((chance >> 8) % 12).unwrap()),
    }
}

/// A world, its platforms, and what is planned to happen.
struct Scene {
    seed: u64,
    /// The functions', platforms' and sources', whose time is virtual.
    time: Runtime,
    /// The stores', whose time is real.
    network: Handle,
    clock: Clock,
    began: time::Instant,
    world: World,
    clients: Clients,
    layer: Layer,
    calm: Arc<AtomicBool>,
    outages: Vec<Outage>,
    instances: Vec<BTreeMap<Webhook, App>>,
    platform: Platform,
    source: Source,
    source_mishaps: Arc<AtomicU64>,
    contents: HashMap<String, (Content, Fate)>,
    sent: Vec<Sent>,
    counts: RefCell<Counts>,
}

fn instant(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

/// Where a world's recordings are. That is part of its deliveries, and a world is to repeat exactly. Below the ports that
/// are given out to whoever asks for any.
fn port(seed: u64) -> u16 {
    20_000 + u16::try_from(seed % 10_000).unwrap()
}

fn soon() -> time::Instant {
    time::Instant::now() + Duration::from_mins(14)
}

/// Lets virtual time pass while something waits for a socket, which virtual time knows nothing of: a hundred times as
/// fast as real time, and slower while there is work.
async fn paced<T>(work: impl Future<Output = T>) -> T {
    let pace = async {
        loop {
            let tick = tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(500)));
            tick.await.unwrap();
            time::advance(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = pace => unreachable!("it never ends"),
    }
}

impl Scene {
    fn new(seed: u64, network: &Handle) -> Self {
        let time = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let began = time.block_on(async { time::Instant::now() });
        let clock: Clock =
            Arc::new(move || instant(BEGIN).plus_millis(i64::try_from(began.elapsed().as_millis()).unwrap()));
        let world = network.block_on(World::with(&[], Arc::clone(&clock)));
        let mut rng = SmallRng::seed_from_u64(seed);
        let outages = outages(&mut rng);
        let calm = Arc::new(AtomicBool::new(false));
        let plan = {
            let (calm, outages) = (Arc::clone(&calm), outages.clone());
            move |request: &Request| {
                if calm.load(Ordering::SeqCst) {
                    return None;
                }
                let chance = request.chance(seed);
                if outages.iter().any(|outage| outage.of_stores && outage.is_at(began.elapsed())) {
                    let all = [
                        Mishap::Failed,
                        Mishap::Throttled,
                        Mishap::Reset(When::Before),
                        Mishap::Unanswered(When::Before),
                    ];
                    return Some(all[usize::try_from(chance % 4).unwrap()]);
                }
                let place = format!("{} {}", request.table, request.key);
                (chance % 1000 < badness(seed, &place)).then(|| mishap(chance / 1000))
            }
        };
        let layer = Layer::with_the_network_in(network.clone(), plan);
        let clients = layer.in_clients(&world.clients, &format!("world {seed} {:p}", Arc::as_ptr(&calm)));
        let instance = |webhook| (webhook, world.instance(webhook, |_| clients.clone(), Arc::clone(&clock)));
        let instances = (0..3).map(|_| Webhook::ALL.into_iter().map(instance).collect()).collect();

        let platform = time.block_on(Platform::start());
        let (contents, source_mishaps) = (Arc::new(Mutex::new(HashMap::new())), Arc::<AtomicU64>::default());
        let script =
            script(seed, Arc::clone(&contents), Arc::clone(&calm), Arc::clone(&source_mishaps), Arc::clone(&clock));
        let source = time.block_on(Source::start_at(port(seed), script));
        let mut sent = Vec::new();
        let mut numbers = Counts { calls: CALLS, ..Counts::default() };
        for nth in 0..CALLS {
            let id = seed * 1000 + nth;
            let starts_at = Duration::from_secs(rng.random_range(0..BUSY_SECONDS));
            if rng.random_bool(0.25) {
                let mut at = starts_at;
                for odd in odd_call(id) {
                    sent.push(Sent::new(odd.webhook, odd.body, at));
                    at += Duration::from_millis(rng.random_range(0..8000));
                }
            } else {
                let made = make_call(id, &mut rng, starts_at, &source.address, &mut contents.lock().unwrap());
                if made.session.is_some() {
                    let over = Duration::from_millis(rng.random_range(0..2000));
                    sent.push(Sent::new(Webhook::SessionCompleted, made.webhook(), starts_at + over));
                }
                platform.make(made);
            }
        }
        // Some come twice, whatever was answered, and some much later than the others.
        for index in 0..sent.len() {
            if rng.random_bool(0.1) {
                let Sent { webhook, body, at, .. } = &sent[index];
                let late = Duration::from_secs(if rng.random_bool(0.5) { 0 } else { rng.random_range(1..60) });
                let again = Sent::new(*webhook, body.clone(), *at + late);
                sent.push(again);
            }
        }
        numbers.deliveries = sent.len() as u64;
        let contents: HashMap<String, (Content, Fate)> = contents.lock().unwrap().clone();
        {
            let contents = contents.clone();
            let (address, clock) = (source.address.clone(), Arc::clone(&clock));
            platform.mint(move |call_id, _| {
                let name = call_id.strip_prefix("c-")?;
                let (_, fate) = contents.get(name)?;
                (*fate == Fate::Brief).then(|| url(&address, name, clock().plus_seconds(24 * 3600)))
            });
        }
        Self {
            seed,
            time,
            network: network.clone(),
            clock,
            began,
            world,
            clients,
            layer,
            calm,
            outages,
            instances,
            platform,
            source,
            source_mishaps,
            contents,
            sent,
            counts: RefCell::new(numbers),
        }
    }

    /// Brings everything that is due before `until`, as the platforms do.
    async fn deliver(&self, which: impl Fn(usize) -> bool) {
        let all = self.sent.iter().enumerate().filter(|(index, _)| which(*index));
        let bring = async |(index, sent): (usize, &Sent)| {
            time::sleep_until(self.began + sent.at).await;
            let patience = Patience::of(sent.webhook.provider());
            let answers = patience.bring(async |nth| self.attempt(index, sent, nth).await).await;
            let given_up = !answers.last().is_some_and(|last| last.is_some_and(is_success));
            let mut counts = self.counts.borrow_mut();
            counts.attempts += answers.len() as u64;
            counts.unanswered += answers.iter().filter(|answer| answer.is_none()).count() as u64;
            if given_up {
                *counts.given_up.entry(sent.webhook.provider().name()).or_default() += 1;
            }
        };
        future::join_all(all.map(bring)).await;
    }

    /// One attempt; what the platform hears.
    async fn attempt(&self, index: usize, sent: &Sent, nth: usize) -> Option<u16> {
        let chance = chance(self.seed, "attempt", index * 8 + nth);
        if self.is_out(false) {
            // No instance starts, or the network swallows it.
            return if chance.is_multiple_of(2) { Some(503) } else { future::pending().await };
        }
        let app = &self.instances[usize::try_from(chance % 3).unwrap()][&sent.webhook];
        let request = self.world.request(sent.webhook, &sent.body);
        let handled = cli::dev::call(sent.webhook, app, request);
        let bad = !self.calm.load(Ordering::SeqCst);
        let answer = if bad && (chance >> 8).is_multiple_of(25) {
            // The instance dies in the middle.
            match time::timeout(Duration::from_millis((chance >> 16) % 1500), handled).await {
                Err(_) => return Some(502),
                Ok(answer) => answer,
            }
        } else {
            handled.await
        };
        let answer = read(&answer);
        if is_success(answer.status) {
            self.counts.borrow_mut().answered_2xx += 1;
            sent.acknowledged.borrow_mut().get_or_insert_with(|| self.layer.len());
        } else {
            assert!(matches!(answer.status, 503 | 504), "{answer:?}");
            assert!(answer.json["response"]["error_data"]["error_code"].is_string(), "{answer:?}");
            self.counts.borrow_mut().answered_5xx += 1;
        }
        // The answer may be lost on its way.
        if bad && (chance >> 32).is_multiple_of(40) { None } else { Some(answer.status) }
    }

    fn is_out(&self, of_stores: bool) -> bool {
        let mut outages = self.outages.iter().filter(|outage| outage.of_stores == of_stores);
        !self.calm.load(Ordering::SeqCst) && outages.any(|outage| outage.is_at(self.began.elapsed()))
    }

    fn archiver(&self) -> Archiver {
        let environment = self.world.environment();
        let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
        let no_names = Arc::new(|_| -> future::BoxFuture<'static, _> {
            Box::pin(async { Err(std::io::Error::other("there are no names here")) })
        });
        let sources = Sources::and_loopback(Hosts::s3(), Limits::default(), no_names).unwrap();
        Archiver::new(storage, self.clients.clone(), sources, Arc::clone(&self.clock))
    }

    fn reconciler(&self) -> Reconciler {
        let mut environment = self.world.environment();
        environment.insert("VOCOBASE_API_URL".to_owned(), self.platform.url.clone());
        environment.insert("VOCOBASE_API_KEY".to_owned(), KEY.to_owned());
        let lookup = |name: &str| environment.get(name).cloned();
        Reconciler::new(&lookup, self.clients.clone(), ApiPatience::default(), Arc::clone(&self.clock)).unwrap()
    }

    /// The jobs' sessions.
    fn jobs(&self) -> Vec<SessionKey> {
        let jobs = self.network.block_on(self.world.items("recordings"));
        jobs.iter().map(|job| text(job, "session").parse().unwrap()).collect()
    }

    /// The stream brings each job, sometimes to two workers at once; and the schedules run. All of it may fail.
    async fn work_badly(&self, jobs: &[SessionKey]) {
        let (one, other) = (self.archiver(), self.archiver());
        let until = soon();
        let stream = stream::iter(jobs.iter().enumerate()).for_each_concurrent(6, async |(index, key)| {
            let first = one.archive(key, "one", until);
            if index % 3 == 0 {
                drop(future::join(first, other.archive(key, "other", until)).await);
            } else {
                drop(first.await);
            }
        });
        let reconciler = self.reconciler();
        let schedules = async {
            drop(future::join(other.sweep("sweep", until), reconciler.reconcile(soon())).await);
        };
        future::join(stream, schedules).await;
    }

    /// What is unfinished is swept until no wait can be left, which is an hour at most.
    fn sweep(&self) {
        let archiver = self.archiver();
        for _ in 0..3 {
            self.time.block_on(async {
                time::advance(Duration::from_mins(61)).await;
                paced(archiver.sweep("sweep", soon())).await.unwrap();
            });
        }
    }

    fn reconcile(&self) {
        let reconciler = self.reconciler();
        let ended = self.time.block_on(paced(async { reconciler.reconcile(soon()).await }));
        let Ended::Complete(found) = ended else { panic!("{ended:?}") };
        let mut counts = self.counts.borrow_mut();
        counts.listed = counts.listed.max(u64::from(found.listed));
        counts.recovered += u64::from(found.recovered);
        counts.renewed += u64::from(found.urls_renewed);
    }

    fn items(&self, table: &str) -> Vec<Item> {
        self.network.block_on(self.world.items(table))
    }
}

impl Sent {
    fn new(webhook: Webhook, body: Vec<u8>, at: Duration) -> Self {
        let said =
            Delivery::read(webhook, &Verified::known(&body), From::Webhook, Country::default()).expect("a delivery");
        let event = event_key(webhook, said.occurred_at, &tests::sha256(&body));
        Self { webhook, body, at, said, event, acknowledged: RefCell::default() }
    }

    fn key(&self) -> &SessionKey {
        &self.said.call.key
    }
}

/// Short ones, which a platform's retries outlast, and long ones, which they do not.
fn outages(rng: &mut SmallRng) -> Vec<Outage> {
    let mut outage = |seconds: std::ops::Range<u64>| {
        let from = Duration::from_secs(rng.random_range(0..BUSY_SECONDS));
        let until = from + Duration::from_secs(rng.random_range(seconds));
        Outage { from, until, of_stores: rng.random_bool(0.5) }
    };
    let (short, long) = (outage(1..6), outage(20..60));
    let mut all = Vec::new();
    if rng.random_bool(0.7) {
        all.push(short);
    }
    if rng.random_bool(0.5) {
        all.push(long);
    }
    all
}

fn url(address: &str, name: &str, expires_at: Instant) -> String {
    format!("http://{address}/{name}.wav?Expires={}&X-Amz-Signature=s", expires_at.unix_seconds())
}

/// A call of the platform that has an API.
fn make_call(
    id: u64,
    rng: &mut SmallRng,
    begin: Duration,
    address: &str,
    contents: &mut HashMap<String, (Content, Fate)>,
) -> platform::Call {
    let name = format!("sim-{id}");
    let ended = instant(BEGIN).plus_seconds(i64::try_from(begin.as_secs()).unwrap());
    let created_at = ended.plus_seconds(-131);
    if rng.random_bool(0.05) {
        return platform::Call::unanswered(&name, created_at);
    }
    let mut call = platform::Call::completed(&name, created_at);
    if rng.random_bool(0.5) {
        call = call.newer();
    }
    // What has no telephone call is not listed, and so lost where the webhook is.
    call.telephone = rng.random_bool(0.95);
    if rng.random_bool(0.1) {
        let line = |second: i64| Line {
            role: if second % 2 == 0 { "bot" } else { "user" }.to_owned(),
            content: format!("{second} {}", "word ".repeat(rng.random_range(0..60))),
            timestamp: created_at.plus_seconds(second),
            latency_ms: None,
        };
        call.session_mut().transcript = (1..120).map(line).collect();
    }
    if rng.random_bool(0.6) {
        let fate = match rng.random_range(0..10) {
            0 | 1 if call.telephone => Fate::Brief,
            2 => Fate::Gone,
            3 => Fate::Elsewhere,
            _ => Fate::Lasting,
        };
        let expires_at = match fate {
            Fate::Brief => ended.plus_seconds(rng.random_range(1..240)),
            Fate::Gone => ended.plus_seconds(1800),
            Fate::Lasting | Fate::Elsewhere => ended.plus_seconds(24 * 3600),
        };
        let url = match fate {
            Fate::Elsewhere => url("recordings.example", &name, expires_at).replace("http:", "https:"),
            _ => url(address, &name, expires_at),
        };
        // Now and then so long that it goes into the bucket in parts.
        let length = if rng.random_ratio(1, 300) { 17 << 20 } else { rng.random_range(1..60_000) };
        contents.insert(name, (Content::wav(length, id), fate));
        call = call.recorded(&url);
    }
    call
}

/// A source that answers badly now and then, and 403 once a URL has expired.
fn script(
    seed: u64,
    contents: Arc<Mutex<HashMap<String, (Content, Fate)>>>,
    calm: Arc<AtomicBool>,
    mishaps: Arc<AtomicU64>,
    clock: Clock,
) -> impl Fn(usize, &tests::source::Asked) -> Reply + Send + Sync {
    let asked_before: Mutex<HashMap<String, usize>> = Mutex::default();
    move |_, asked| {
        let (path, query) = asked.path.split_once('?').expect("a signed URL");
        let name = path.trim_start_matches('/').trim_end_matches(".wav");
        let (content, fate) = contents.lock().unwrap()[name].clone();
        let expires = query.split('&').find_map(|pair| pair.strip_prefix("Expires=")?.parse().ok());
        if fate == Fate::Gone {
            return Reply::status(404);
        }
        if clock() >= Instant::from_unix_seconds(expires.expect("an expiry")).unwrap() {
            return Reply::status(403);
        }
        let mut asked_before = asked_before.lock().unwrap();
        let nth = asked_before.entry(name.to_owned()).or_default();
        *nth += 1;
        let chance = chance(seed, name, *nth);
        if calm.load(Ordering::SeqCst) || chance % 1000 >= badness(seed, name) {
            return content.answer(asked);
        }
        mishaps.fetch_add(1, Ordering::SeqCst);
        content.answer_badly(asked, chance / 1000)
    }
}

/// Plays a world to its end and looks at everything.
fn simulate(seed: u64, network: &Handle) -> Counts {
    let scene = Scene::new(seed, network);
    // A tenth of what comes is brought while recordings are fetched and missing calls are looked for.
    let is_late = |index: usize| chance(seed, "late", index).is_multiple_of(10);
    scene.time.block_on(scene.deliver(|index| !is_late(index)));
    let jobs = scene.jobs();
    scene.time.block_on(paced(future::join(scene.deliver(is_late), scene.work_badly(&jobs))));

    // The faults are over.
    scene.calm.store(true, Ordering::SeqCst);
    scene.sweep();
    let log = scene.layer.log();
    scene.reconcile();
    scene.sweep();
    every_acknowledged_delivery_is_durable_and_merged(&scene, &log);
    every_listed_call_is_there(&scene);
    every_recording_is_where_it_must_be(&scene);
    everything_is_as_without_faults(&scene);

    let mut counts = scene.counts.into_inner();
    counts.requests = log.len() as u64;
    for entry in &log {
        if let Some(mishap) = entry.mishap {
            *counts.mishaps.entry(mishap.word()).or_default() += 1;
        }
    }
    counts.source_requests = scene.source.log().len() as u64;
    counts.source_mishaps = scene.source_mishaps.load(Ordering::SeqCst);
    scene.network.block_on(scene.world.run.stop());
    counts
}

fn by_session(items: Vec<Item>) -> BTreeMap<String, Vec<Item>> {
    let mut sessions: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for item in items {
        sessions.entry(text(&item, "session").to_owned()).or_default().push(item);
    }
    sessions
}

fn key_of(item: &Item) -> SessionKey {
    text(item, "session").parse().unwrap()
}

/// Every delivery that was answered 2xx is in `events`, was there before its answer, and is merged.
fn every_acknowledged_delivery_is_durable_and_merged(scene: &Scene, log: &[Entry]) {
    let mut written: HashMap<(&str, &str), usize> = HashMap::new();
    for (index, Entry { request, applied, .. }) in log.iter().enumerate() {
        if *applied && request.operation == "PutItem" && request.table.ends_with("-events") {
            written.entry((&request.key, &request.sort)).or_insert(index);
        }
    }
    let [events, sessions, transcripts, recordings] =
        ["events", "sessions", "transcripts", "recordings"].map(|table| by_session(scene.items(table)));
    for sent in &scene.sent {
        let Some(answered) = *sent.acknowledged.borrow() else { continue };
        let session = sent.key().as_str();
        let seen = (scene.seed, session, &sent.event);
        let write = written.get(&(session, &sent.event));
        assert!(write.is_some_and(|write| *write < answered), "{seen:?}: answered 2xx without a durable write");
        let of = |table: &BTreeMap<String, Vec<Item>>| table.get(session).cloned().unwrap_or_default();
        assert!(of(&events).iter().any(|event| text(event, "event") == sent.event), "{seen:?}: no event");
        let call = of(&sessions).pop().unwrap_or_else(|| panic!("{seen:?}: no call"));
        let call = item_to_call(sent.key(), &call).unwrap();
        assert_eq!(call.clone().join(&sent.said.call), call, "{seen:?} is not merged");
        for turn in &sent.said.turns {
            let stored = of(&transcripts).into_iter().find(|item| text(item, "turn") == turn.key);
            let stored = stored.unwrap_or_else(|| panic!("{seen:?}: no turn"));
            assert!(text(&stored, "rank") >= turn.rank.as_str(), "{seen:?}: a worse turn");
        }
        if let Some(wanted) = &sent.said.recording {
            let job = of(&recordings).pop().unwrap_or_else(|| panic!("{seen:?}: no recording job"));
            let archived = text(&job, "state") == JobState::Archived.name();
            assert!(archived || text(&job, "wanted") >= wanted.rank().as_str(), "{seen:?}: another URL");
        }
    }
}

/// Every call that the platform lists with a session is in the tables, with every word of it and its recording's job.
fn every_listed_call_is_there(scene: &Scene) {
    let sessions = by_session(scene.items("sessions"));
    let [transcripts, recordings] = ["transcripts", "recordings"].map(|table| by_session(scene.items(table)));
    for call in scene.platform.calls().iter().filter(|call| call.telephone && call.session.is_some()) {
        let key = SessionKey::new(Provider::Vocobase, &call.session().session_id).unwrap();
        let seen = (scene.seed, key.as_str());
        let item =
            &sessions.get(key.as_str()).unwrap_or_else(|| panic!("{seen:?} is listed, but not in the tables"))[0];
        let stored = item_to_call(&key, item).unwrap();
        assert_eq!(stored.state, State::Ended, "{seen:?}");
        assert_eq!(stored.get(Field::CallId), Some(call.call_id.as_str()), "{seen:?}");
        let chunks = transcripts.get(key.as_str()).cloned().unwrap_or_default();
        let revision = stored.revision.unwrap();
        let counts = chunks.iter().filter(|chunk| text(chunk, "turn").starts_with(&format!("{revision}#")));
        let words: Vec<String> = counts
            .flat_map(|chunk| item_to_segments(chunk).unwrap())
            .map(|segment| segment.text.unwrap_or_default())
            .collect();
        let said: Vec<&str> = call.session().transcript.iter().map(|line| line.content.as_str()).collect();
        assert_eq!(words, said, "{seen:?}");
        let recorded = call.session().recording_url.is_some();
        assert_eq!(recordings.contains_key(key.as_str()), recorded, "{seen:?}: its recording");
    }
}

/// Every recording that could be had is in the bucket, byte for byte; every other one says why not.
fn every_recording_is_where_it_must_be(scene: &Scene) {
    let sessions = by_session(scene.items("sessions"));
    for job in scene.items("recordings") {
        let key = key_of(&job);
        let (state, seen) = (text(&job, "state"), (scene.seed, key.as_str()));
        let name = key.id().trim_start_matches("s-");
        let mut counts = scene.counts.borrow_mut();
        *counts.recordings.entry(state.to_owned()).or_default() += 1;
        let Some((content, fate)) = scene.contents.get(name) else {
            // Of nobody's platform: their source has no address.
            assert!(matches!(state, "pending" | "failed" | "expired"), "{seen:?} {state}");
            continue;
        };
        let expected = match fate {
            Fate::Lasting | Fate::Brief => JobState::Archived,
            Fate::Gone => JobState::Expired,
            Fate::Elsewhere => JobState::Rejected,
        };
        assert_eq!(state, expected.name(), "{seen:?} {fate:?}");
        // Of a call that was never acknowledged there may be no more than the job.
        if let Some(call) = sessions.get(key.as_str()).map(|items| item_to_call(&key, &items[0]).unwrap()) {
            assert_eq!(call.get(Field::RecordingState), Some(state), "{seen:?}");
        }
        if expected == JobState::Archived {
            let (s3, bucket) = (&scene.world.clients.s3, &scene.world.stores().bucket);
            let bytes = scene.network.block_on(async {
                let object = s3.get_object().bucket(bucket).key(text(&job, "s3_key")).send().await.unwrap();
                object.body.collect().await.unwrap().into_bytes()
            });
            counts.bytes += bytes.len() as u64;
            assert_eq!(tests::sha256(&bytes), content.sha256(), "{seen:?}");
            assert_eq!(text(&job, "sha256"), content.sha256(), "{seen:?}");
            assert!(!job.contains_key("source_url"), "{seen:?}");
        }
    }
}

/// The same deliveries without faults leave the same items. The same are those that reached `events`: what was never
/// acknowledged may still be there. Of such a call more may be missing, and it is rebuilt from its events first.
///
/// What the archiver says of a recording is not compared here, nor when anything was received.
fn everything_is_as_without_faults(scene: &Scene) {
    let events = scene.items("events");
    let sent: HashMap<(&str, &str), &Sent> =
        scene.sent.iter().map(|sent| ((sent.key().as_str(), sent.event.as_str()), sent)).collect();
    let acknowledged: BTreeSet<(&str, &str)> = scene
        .sent
        .iter()
        .filter(|sent| sent.acknowledged.borrow().is_some())
        .map(|sent| (sent.key().as_str(), sent.event.as_str()))
        .collect();
    let from = |source: &'static str| {
        events.iter().filter(move |event| text(event, "source") == source).map(|event| text(event, "session"))
    };
    let by_webhook: BTreeSet<&str> = from("webhook").collect();
    // A reconciler that failed half-way leaves a call alone whose webhook came meanwhile.
    let mut half_stored: BTreeSet<&str> = from("reconciler").filter(|session| by_webhook.contains(session)).collect();
    for event in events.iter().filter(|event| text(event, "source") == "webhook") {
        let key = (text(event, "session"), text(event, "event"));
        if !acknowledged.contains(&key) {
            half_stored.insert(key.0);
        }
    }
    scene.counts.borrow_mut().half_stored = half_stored.len() as u64;

    scene.network.block_on(async {
        for session in half_stored {
            rebuild(scene, session, &events).await;
        }
        let tidy = World::with(&[], at("2026-03-15T14:05:00Z")).await;
        let apps: BTreeMap<Webhook, App> = Webhook::ALL
            .into_iter()
            .map(|webhook| (webhook, tidy.instance(webhook, Clone::clone, at("2026-03-15T14:05:00Z"))))
            .collect();
        let store = store(&tidy);
        stream::iter(by_session(events.clone()).values())
            .for_each_concurrent(4, async |events| {
                for event in events {
                    let read_back = read_event(&scene.world.clients, event).await.unwrap();
                    if let From::Reconciler = read_back.source {
                        let body = Verified::known(&read_back.body);
                        let delivery =
                            Delivery::read(read_back.webhook, &body, From::Reconciler, Country::default()).unwrap();
                        store.keep(&delivery, &body, From::Reconciler, read_back.received_at).await.unwrap();
                        continue;
                    }
                    let sent = sent[&(text(event, "session"), text(event, "event"))];
                    let request = tidy.request(sent.webhook, &sent.body);
                    let answer = read(&cli::dev::call(sent.webhook, &apps[&sent.webhook], request).await);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            })
            .await;
        for table in ["events", "sessions", "transcripts", "recordings"] {
            let items = async |world: &World| {
                let items = world.items(table).await;
                by_session(items.into_iter().map(|item| comparable(table, item)).collect())
            };
            let (tidy, wild) = (items(&tidy).await, items(&scene.world).await);
            for session in tidy.keys().chain(wild.keys()) {
                let (expected, found) = (tidy.get(session), wild.get(session));
                if table == "sessions" {
                    let call = |items: Option<&Vec<Item>>| items.map(|items| said(&items[0]));
                    assert_eq!(call(found), call(expected), "world {}: {session}", scene.seed);
                } else if table != "recordings" || found.is_none_or(|items| !is_renewed(&items[0])) {
                    assert_eq!(found, expected, "world {}: {table}", scene.seed);
                }
            }
        }
        tidy.run.stop().await;
    });
}

fn store(world: &World) -> Store {
    let environment = world.environment();
    let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
    Store::without_cache(world.clients.clone(), storage)
}

/// As `hookswitch rebuild` does it.
async fn rebuild(scene: &Scene, session: &str, events: &[Item]) {
    let mut deliveries = Vec::new();
    for event in events.iter().filter(|event| text(event, "session") == session) {
        let event = read_event(&scene.world.clients, event).await.unwrap();
        let delivery =
            Delivery::read(event.webhook, &Verified::known(&event.body), event.source, Country::default()).unwrap();
        deliveries.push((delivery, event.received_at));
    }
    deliveries.sort_by_key(|(_, received_at)| *received_at);
    let store = store(&scene.world);
    let now = deliveries[0].1;
    if let Some(rebuild) = store.compare(&session.parse().unwrap(), &deliveries, now).await.unwrap() {
        store.rebuild(rebuild).await.unwrap();
    }
}

/// What the deliveries decide of an item.
fn comparable(table: &str, mut item: Item) -> Item {
    item.remove("received_at");
    if table == "recordings" {
        item.retain(|name, _| {
            ["session", "wanted", "source", "source_expires_at", "reminted"].contains(&name.as_str())
        });
    }
    item
}

/// Whether the reconciler had its URL made anew.
fn is_renewed(job: &Item) -> bool {
    job.contains_key("reminted")
}

/// What the deliveries said of a call.
fn said(item: &Item) -> Call {
    let mut call = item_to_call(&key_of(item), item).unwrap();
    call.fields.retain(|field, _| !matches!(field, Field::RecordingState | Field::Recording));
    call
}

#[allow(clippy::disallowed_methods, reason = "the edge: how much to test is said by who runs the tests")]
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn nothing_acknowledged_is_lost_and_what_is_listed_comes_back() {
    let began = std::time::Instant::now();
    let network = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let calls = number("HOOKSWITCH_CASES").unwrap_or(300);
    let seeds = match number("HOOKSWITCH_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..calls.div_ceil(CALLS),
    };
    let (next, total) = (AtomicU64::new(seeds.start), Mutex::new(Counts::default()));
    std::thread::scope(|scope| {
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if !seeds.contains(&seed) {
                    return;
                }
                let played =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| simulate(seed, network.handle())));
                let Ok(counts) = played else {
                    next.store(u64::MAX / 2, Ordering::SeqCst);
                    panic!("HOOKSWITCH_SEED={seed} plays this world alone");
                };
                let mut total = total.lock().unwrap();
                let before = total.calls / 1000;
                total.add(counts);
                if total.calls / 1000 > before {
                    eprintln!("{} calls in {:?}", total.calls, began.elapsed());
                }
            }
        };
        for _ in 0..WORLDS_AT_ONCE {
            scope.spawn(work);
        }
    });
    let total = total.into_inner().unwrap();
    println!("{total:#?}\nin {:?}", began.elapsed());
    if number("HOOKSWITCH_SEED").is_none() {
        assert!(total.calls >= calls);
    }
    if total.calls >= 300 {
        // It was no fair weather.
        assert!(total.recovered > 0 && total.renewed > 0 && total.half_stored > 0, "{total:?}");
        assert!(total.given_up.len() == 2 && total.mishaps.len() >= 7 && total.source_mishaps > 0, "{total:?}");
    }
}

#[test]
fn a_world_repeats_exactly() {
    let network = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // One whose port is free.
    let is_free = |seed: &u64| std::net::TcpListener::bind(("127.0.0.1", port(*seed))).is_ok();
    let seed = (9000..10_000).find(is_free).unwrap();
    let play = || {
        let scene = Scene::new(seed, network.handle());
        scene.time.block_on(scene.deliver(|_| true));
        scene.layer.log()
    };
    let (first, second) = (play(), play());
    assert!(first.iter().any(|entry| entry.mishap.is_some()));
    for (index, (first, second)) in first.iter().zip(&second).enumerate() {
        assert_eq!(first, second, "attempt {index}");
    }
    assert_eq!(first.len(), second.len());
}
