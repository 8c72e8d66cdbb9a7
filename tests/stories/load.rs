//! More than can be taken: what finds no room is told to come again, who sends slowly takes nobody's place, and hours of
//! load leave nothing behind but what was delivered.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as Stopwatch};

use cli::dev::{Apps, CONNECTIONS, DELIVERIES};
use cli::endpoints::Endpoints;
use cli::simulate::calls::{Planned, plan};
use cli::simulate::check::{check, check_recordings};
use cli::simulate::recordings::Recordings;
use cli::target::Opened;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use shared::storage::Clients;
use shared::{Instant, Webhook};
use tests::{LocalProcess, World, http_client, now, send};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Longer than any answer may take, and shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(30);

/// A road to a server that is closed at first: connections are taken, and nothing comes through.
struct Road {
    url: String,
    open: watch::Sender<bool>,
}

impl Road {
    async fn to(url: &str) -> Self {
        let to = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, opened) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                let (to, mut opened) = (to.clone(), opened.clone());
                tokio::spawn(async move {
                    // Whoever gave up meanwhile has no connection to forward.
                    if opened.wait_for(|open| *open).await.is_ok()
                        && let Ok(mut to) = TcpStream::connect(to).await
                    {
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        });
        Self { url, open }
    }

    fn open(&self) {
        self.open.send_replace(true);
    }

    fn before(&self, clients: &Clients) -> Clients {
        let dynamodb = clients.dynamodb.config().to_builder().endpoint_url(&self.url).build();
        Clients { dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb), ..clients.clone() }
    }
}

/// The functions of a world behind URLs of their own, with a road between them and the tables.
struct Scene {
    world: World,
    endpoints: Endpoints,
    road: Road,
    _stop: watch::Sender<bool>,
}

impl Scene {
    async fn with(environment: &[(&str, &str)]) -> Self {
        let world = World::with(environment, now()).await;
        let road = Road::to(&world.stores().dynamodb).await;
        let instance = |webhook| (webhook, world.instance(webhook, |clients| road.before(clients), now()));
        let apps: Apps = Webhook::ALL.into_iter().map(instance).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let mut endpoints = world.endpoints().clone();
        for url in endpoints.functions.values_mut() {
            *url = url.replace(&world.run.base, &base);
        }
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(cli::dev::serve(listener, apps, None, endpoints.clone(), stopped));
        Self { world, endpoints, road, _stop: stop }
    }

    /// Every delivery at once; the answers as they come.
    fn crowd<'a>(&'a self, deliveries: &'a [Planned]) -> FuturesUnordered<impl Future<Output = (&'a Planned, Answer)>> {
        let answer = async |delivery| (delivery, answer(&self.world.http, &self.endpoints, delivery).await);
        deliveries.iter().map(answer).collect()
    }

    /// A few at a time; all of them are stored.
    async fn deliver(&self, deliveries: &[Planned]) {
        stream::iter(deliveries)
            .for_each_concurrent(4, async |delivery| {
                let answer = answer(&self.world.http, &self.endpoints, delivery).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            })
            .await;
    }

    /// The tables hold exactly these.
    async fn assert_kept(&self, deliveries: &[Planned]) {
        assert_eq!(self.world.items("events").await.len(), deliveries.len());
        let opened = self.world.stores().open().unwrap();
        let checked = check(deliveries, &opened, || ()).await.unwrap();
        assert_eq!(checked.differences, [] as [String; 0]);
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
    json: Value,
}

async fn answer(http: &reqwest::Client, endpoints: &Endpoints, delivery: &Planned) -> Answer {
    let response = send(http, endpoints, delivery).await.expect("an answer, whatever it is");
    let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    let json = serde_json::from_slice(&response.bytes().await.expect("all of it")).expect("JSON");
    Answer { status, retry_after, json }
}

/// So many deliveries of whole calls.
fn deliveries(count: usize) -> Vec<Planned> {
    let calls = u32::try_from(count).unwrap();
    plan(1, calls, Instant::now(), &|_| None).into_iter().flatten().take(count).collect()
}

fn assert_turned_away(answer: &Answer) {
    assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{answer:?}");
    let error = json!({ "error_code": "HS503", "message": "Service unavailable",
        "description": "Too many deliveries at once: send it again" });
    assert_eq!(answer.json, json!({ "http_code": 503, "response": { "data": null, "error_data": error } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_finds_no_room_is_told_when_to_come_again_and_then_all_of_it_is_kept() {
    let scene = Scene::with(&[("DEADLINE_MS", "10000")]).await;
    let deliveries = deliveries(DELIVERIES + 40);
    let mut answers = scene.crowd(&deliveries);
    // Those that found room wait for the tables, so that the first to be answered are the others.
    let mut turned_away = Vec::new();
    for _ in 0..40 {
        let (delivery, answer) = answers.next().await.unwrap();
        assert_turned_away(&answer);
        turned_away.push(delivery.clone());
    }
    scene.road.open();
    let mut kept = Vec::new();
    while let Some((delivery, answer)) = answers.next().await {
        assert_eq!(answer.status, 200, "{answer:?}");
        kept.push(delivery.clone());
    }
    assert_eq!(kept.len(), DELIVERIES);
    // Nothing of what was turned away was kept: it was not half answered.
    scene.assert_kept(&kept).await;
    scene.deliver(&turned_away).await;
    scene.assert_kept(&deliveries).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_stand_still_fill_it_up_until_the_deadline_and_then_it_takes_everything_again() {
    // Before the SDK gives up by itself.
    let scene = Scene::with(&[("DEADLINE_MS", "1500")]).await;
    let deliveries = deliveries(DELIVERIES + 40);
    let mut statuses = BTreeMap::new();
    let mut answers = scene.crowd(&deliveries);
    while let Some((_, answer)) = answers.next().await {
        if answer.status == 503 {
            assert_turned_away(&answer);
        }
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(503, 40), (504, DELIVERIES)]));
    scene.road.open();
    scene.deliver(&deliveries).await;
    scene.assert_kept(&deliveries).await;
}

/// A connection that has said so much of a request.
async fn connection(endpoints: &Endpoints, said: &str) -> TcpStream {
    let url = &endpoints.functions["session_end"];
    let (_, rest) = url.split_once("//").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let mut connection = TcpStream::connect(authority).await.unwrap();
    connection.write_all(said.replace("PATH", path).as_bytes()).await.unwrap();
    connection
}

/// Goes on sending, a byte now and then, until the other side has had enough; what it said.
async fn drip(connection: TcpStream) -> String {
    let (mut read, mut write) = connection.into_split();
    let dripping = async {
        while write.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut heard = Vec::new();
    tokio::select! {
        // That it closes without having read everything is its right.
        _ = read.read_to_end(&mut heard) => {}
        () = dripping => {}
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_takes_nobodys_place_and_not_for_ever() {
    let world = World::new().await;
    let endpoints = world.endpoints();
    let slow_body = "POST /PATH HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n{";
    let slow_head = "POST /PATH HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Header:";
    let dripping = async |said| tokio::spawn(drip(connection(endpoints, said).await));

    let mut bodies = Vec::new();
    for _ in 0..=DELIVERIES {
        bodies.push(dripping(slow_body).await);
    }
    let deliveries = deliveries(3);
    assert_eq!(answer(&world.http, endpoints, &deliveries[0]).await.status, 200);
    assert!(bodies.iter().all(|body| !body.is_finished()), "it was not kept waiting for them");

    // And when they have all connections that there are, it is a matter of seconds.
    let mut heads = Vec::new();
    for said in [slow_head, ""].into_iter().cycle().take(CONNECTIONS) {
        heads.push(dripping(said).await);
    }
    let newcomer = http_client();
    let answered = tokio::time::timeout(PATIENCE, answer(&newcomer, endpoints, &deliveries[1])).await;
    assert_eq!(answered.expect("it is not kept for ever").status, 200);
    for body in bodies {
        let heard = tokio::time::timeout(PATIENCE, body).await.expect("it ends").unwrap();
        assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("connection: close"), "{heard}");
    }
    for head in heads {
        tokio::time::timeout(PATIENCE, head).await.expect("it ends").unwrap();
    }
    assert_eq!(answer(&world.http, endpoints, &deliveries[2]).await.status, 200);
    assert_eq!(world.items("events").await.len(), 3);
}

/// How many deliveries are under way while it soaks.
const WORKERS: usize = 16;
/// How many deliver at once when it is to be too much: more than there are connections.
const CROWD: usize = 5 * DELIVERIES;

/// What is delivered: pairs of calls, one of each platform, every tenth with a recording.
struct Calls {
    start: Instant,
    recordings: Recordings,
    next: AtomicU64,
}

impl Calls {
    fn pair(&self, number: u64) -> Vec<Planned> {
        let expires_at = self.start.plus_seconds(24 * 60 * 60);
        let recording = |id: &str| number.is_multiple_of(10).then(|| self.recordings.url(id, expires_at));
        plan(number, 2, self.start, &recording).into_iter().flatten().collect()
    }

    fn next(&self) -> Vec<Planned> {
        self.pair(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Every call so far is in the tables as it was delivered, and its recording in the bucket; how many deliveries that
    /// were.
    async fn assert_kept(&self, opened: &Opened) -> usize {
        let counts = stream::iter(0..self.next.load(Ordering::Relaxed)).map(async |number| {
            let deliveries = self.pair(number);
            let recordings = check_recordings(&deliveries, &self.recordings, opened, 3 * PATIENCE, |_| ()).await;
            let tables = check(&deliveries, opened, || ()).await.unwrap();
            assert_eq!([recordings.unwrap().differences, tables.differences], [[], []] as [[String; 0]; 2]);
            tables.events
        });
        counts.buffer_unordered(8).fold(0, async |sum, count| sum + count).await
    }
}

/// One answer: when, after how long, and what.
struct Heard {
    at: Duration,
    took: Duration,
    status: u16,
}

#[allow(clippy::disallowed_methods, reason = "the edge: how long to soak is said by who runs the tests")]
fn soak_seconds() -> u64 {
    std::env::var("HOOKSWITCH_SOAK_SECONDS").map_or(10, |text| text.parse().expect("a number"))
}

/// Delivers pair after pair, several at a time, for so long; what was heard.
async fn soak(endpoints: &Endpoints, calls: &Calls, began: Stopwatch, enough: Duration) -> Vec<Heard> {
    let (http, heard) = (http_client(), Mutex::new(Vec::new()));
    stream::iter(0..WORKERS)
        .for_each_concurrent(None, async |_| {
            while began.elapsed() < enough {
                for delivery in calls.next() {
                    let (sent, answer) = (Stopwatch::now(), answer(&http, endpoints, &delivery).await);
                    let (at, took, status) = (began.elapsed(), sent.elapsed(), answer.status);
                    heard.lock().unwrap().push(Heard { at, took, status });
                }
            }
        })
        .await;
    heard.into_inner().unwrap()
}

/// The memory of a process, in KiB.
fn resident(process: u32) -> u64 {
    let said = std::process::Command::new("ps").args(["-o", "rss=", "-p", &process.to_string()]).output().unwrap();
    String::from_utf8(said.stdout).unwrap().trim().parse().expect("a number")
}

fn bytes(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with("dynamodb"))
        .map(|file| file.metadata().unwrap().len())
        .sum()
}

/// Answers a second, from then on for so long.
#[allow(clippy::cast_precision_loss, reason = "few enough")]
fn rate(heard: &[Heard], from: Duration, within: Duration) -> f64 {
    heard.iter().filter(|heard| (from..from + within).contains(&heard.at)).count() as f64 / within.as_secs_f64()
}

fn percentiles(heard: &[Heard]) -> String {
    let mut millis: Vec<f64> = heard.iter().map(|heard| heard.took.as_secs_f64() * 1000.0).collect();
    millis.sort_by(f64::total_cmp);
    let at = |percent: usize| millis[(millis.len() * percent / 100).min(millis.len() - 1)];
    format!("p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", at(50), at(99), at(100))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_loses_nothing_and_too_much_of_it_is_turned_away_and_comes_again() {
    let enough = Duration::from_secs(soak_seconds());
    let window = Duration::from_mins(1).min(enough / 3);
    let folder = tempfile::tempdir().unwrap();
    let process = LocalProcess::start(&["--data", folder.path().to_str().unwrap()]).await;
    let endpoints = &process.endpoints;
    let opened = endpoints.stores.as_ref().unwrap().open().unwrap();
    let recordings = Recordings::serve(10_000, 0.0).await.unwrap();
    let calls = Calls { start: Instant::now(), recordings, next: AtomicU64::new(0) };

    let began = Stopwatch::now();
    let sampling = async {
        let mut samples = Vec::new();
        let mut tick = tokio::time::interval((window / 6).max(Duration::from_millis(500)));
        loop {
            tick.tick().await;
            samples.push((began.elapsed(), resident(process.id()), bytes(folder.path())));
            if samples.last().is_some_and(|(at, ..)| *at >= enough) {
                return samples;
            }
        }
    };
    let (heard, samples) = futures_util::future::join(soak(endpoints, &calls, began, enough), sampling).await;
    for (at, memory, data) in &samples {
        println!("{:>6.0} s  {:>7} KiB in memory  {:>8} KiB of tables", at.as_secs_f64(), memory, data / 1024);
    }
    let mean = |from: Duration, to: Duration| {
        let within = samples.iter().filter(|(at, ..)| (from..=to).contains(at)).map(|(_, memory, _)| *memory);
        let (count, sum) = within.fold((0, 0), |(count, sum), memory| (count + 1, sum + memory));
        sum / count
    };
    let (first, middle) = (mean(Duration::ZERO, window), mean(enough / 2, enough / 2 + window));
    let last = mean(enough.saturating_sub(window), 2 * enough);
    println!("{} deliveries of {} calls", heard.len(), 2 * calls.next.load(Ordering::Relaxed));
    println!(
        "a second    {:.0}; in the first {window:?} {:.0}, in the last {:.0}",
        rate(&heard, Duration::ZERO, enough),
        rate(&heard, Duration::ZERO, window),
        rate(&heard, enough.saturating_sub(window), window)
    );
    println!("answered    {}", percentiles(&heard));
    println!(
        "memory      {first} KiB in the first {window:?}, {middle} KiB after half the time, {last} KiB in the last"
    );
    assert!(heard.iter().all(|heard| heard.status == 200), "there was room for all");
    // At first the functions' caches of calls fill up.
    assert!(4 * last < 5 * middle, "memory grows: {middle} KiB, then {last} KiB");
    let kept = calls.assert_kept(&opened).await;
    assert_eq!(kept, heard.len(), "every delivery that was answered 2xx is there");
    println!("kept        {kept} deliveries, exactly what was sent");

    // Now more than there is room for.
    let crowd: Vec<Vec<Planned>> = (0..CROWD).map(|_| calls.next().into_iter().take(3).collect()).collect();
    let (began, http) = (Stopwatch::now(), http_client());
    let (heard, turned_away) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    stream::iter(&crowd)
        .for_each_concurrent(None, async |deliveries| {
            for delivery in deliveries {
                let (sent, answer) = (Stopwatch::now(), answer(&http, endpoints, delivery).await);
                heard.lock().unwrap().push(Heard { at: began.elapsed(), took: sent.elapsed(), status: answer.status });
                if answer.status != 200 {
                    assert_turned_away(&answer);
                    turned_away.lock().unwrap().push(delivery);
                }
            }
        })
        .await;
    let (heard, turned_away) = (heard.into_inner().unwrap(), turned_away.into_inner().unwrap());
    let (count, refused) = (heard.len(), turned_away.len());
    println!("{CROWD} at once: {count} deliveries, {refused} of them answered 503, {}", percentiles(&heard));
    assert!(refused > 0, "it was not too much");
    stream::iter(turned_away)
        .for_each_concurrent(WORKERS, async |delivery| assert_eq!(answer(&http, endpoints, delivery).await.status, 200))
        .await;
    let checked = check(&crowd.concat(), &opened, || ()).await.unwrap();
    assert_eq!((checked.differences, checked.events), (vec![], count), "what was turned away came again");
    let log = process.log();
    assert!(log.contains("too many deliveries at once"));
    let counts = log.lines().filter_map(|line| line.split_once("turned_away=")?.1.trim().parse::<usize>().ok());
    assert_eq!(counts.sum::<usize>(), refused, "the log says how many");
}
