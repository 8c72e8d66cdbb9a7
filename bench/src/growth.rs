//! `bench growth`: what a delivery costs when ten and a hundred times as much is stored.
//!
//! The same calls are delivered to the same binaries over stores that hold more and more other calls, a delivery at a time
//! to each in turn, so that whatever else the machine does falls on all of them alike. Between a function and its stores
//! a proxy counts.

mod proxy;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ::tests::World;
use ::tests::lambda::{self, RuntimeApi};
use aws_sdk_dynamodb::types::AttributeValue;
use cli::simulate::calls::{Planned, plan};
use serde::Serialize;
use serde_json::{Value, json};
use shared::{Instant, Provider, Webhook};
use tokio::process::{Child, Command};

use proxy::{Asked, Proxy};

/// When the stored calls were.
const SINCE: &str = "2026-03-01T00:00:00Z";
const UNTIL: &str = "2026-03-31T00:00:00Z";
/// When those are that are delivered.
const NOW: &str = "2026-04-01T00:00:00Z";
/// The calls that are delivered are made from this: other ones than those that are stored.
const SEED: u64 = 11;
/// Who is remembered, and from how many calls.
const CALLER: &str = "+919811111111";
const REMEMBERED: u32 = 8;
/// To an answer, and to read what a function uses after it.
const PATIENCE: Duration = Duration::from_secs(30);
const SETTLED: Duration = Duration::from_millis(20);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo lambda build --release && cargo measure growth
  cargo measure growth --stored 1000,10000 --calls 20

A delivery is the first of its call, a later one, the same once more, or a first one by a caller who is remembered
(profile `memory`). Bytes are those of the bodies to and from the stores. CPU is the function's own, in user and kernel.

Exit code: 0; 1 if a delivery is not answered 200, or takes more calls to the store where more is stored. CPU decides
nothing.")]
pub struct Options {
    /// How many calls are stored.
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1000,10000,100000")]
    stored: Vec<usize>,
    /// How many calls of each platform are delivered.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    calls: u32,
    /// Where the functions are built.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    functions: PathBuf,
    /// The results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A webhook, and which of its deliveries.
type Kind = (&'static str, &'static str);

/// What the deliveries of one kind cost together.
#[derive(Default, Debug, Clone)]
struct Cost {
    deliveries: u64,
    asked: Asked,
    cpu_ns: u64,
}

/// What one delivery of a kind costs in the mean, where so many calls are stored.
#[derive(Serialize, Debug)]
struct Row {
    webhook: &'static str,
    delivery: &'static str,
    stored: usize,
    calls: BTreeMap<String, f64>,
    bytes: f64,
    cpu_us: f64,
}

pub async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let bootstrap = |webhook: Webhook| options.functions.join(webhook.name()).join("bootstrap");
    if let Some(missing) = Webhook::ALL.into_iter().map(bootstrap).find(|path| !path.is_file()) {
        return Err(format!("{} is not there: build it with `cargo lambda build --release`", missing.display()).into());
    }
    let mut stored = options.stored.clone();
    stored.sort_unstable();
    let found = measure(&stored, options.calls, &bootstrap).await?;
    say(&table(&stored, &found));
    if let Some(file) = &options.json {
        let rows: Vec<Row> = found.iter().flat_map(|(kind, costs)| rows(&stored, *kind, costs)).collect();
        std::fs::write(file, serde_json::to_string_pretty(&rows)? + "\n")?;
    }
    let growing = growing(&found);
    if growing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("more calls to the store where more is stored: {}", growing.join(", ")));
    Ok(ExitCode::FAILURE)
}

#[allow(clippy::print_stdout, reason = "this is the command's own output")]
fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr, reason = "this is the command's own output")]
fn progress(text: &str) {
    eprintln!("{text}");
}

/// Each kind's costs, one for each of `stored`.
async fn measure(
    stored: &[usize],
    calls: u32,
    bootstrap: &dyn Fn(Webhook) -> PathBuf,
) -> Result<BTreeMap<Kind, Vec<Cost>>, Box<dyn Error>> {
    let instant = |text: &str| Instant::parse(text).ok_or("an instant");
    let (since, until, now) = (instant(SINCE)?, instant(UNTIL)?, instant(NOW)?);
    let mut scenes = Vec::new();
    for &count in stored {
        let world = World::embedded(&[], ::tests::now()).await;
        let began = std::time::Instant::now();
        ::tests::crowd::fill(&world, count, since, until).await;
        progress(&format!("{count} calls stored in {:.0} s", began.elapsed().as_secs_f64()));
        scenes.push(Scene::over(count, world, bootstrap).await?);
    }
    // Caches and connections are those of an instance that has worked before.
    let played = |seed: u64, calls: u32| plan(seed, calls, now, &|_| None).into_iter().flatten();
    for delivery in played(SEED + 1, 4) {
        everywhere(&mut scenes, ("", ""), &delivery).await?;
    }
    let mut known = std::collections::BTreeSet::new();
    for delivery in played(SEED, 2 * calls) {
        let delivery_is = if known.insert(delivery.session_id.clone()) { "first" } else { "later" };
        for kind in [delivery_is, "the same again"] {
            everywhere(&mut scenes, (delivery.webhook.name(), kind), &delivery).await?;
        }
    }
    // And where a call's own first delivery is late or lost.
    for delivery in played(SEED + 2, 2 * calls) {
        let alone = Planned { session_id: format!("{}-alone-{}", delivery.session_id, known.len()), ..delivery };
        if alone.webhook.provider() == Provider::Exotel && alone.webhook != Webhook::SessionStart {
            known.insert(alone.session_id.clone());
            let alone = with(&alone, "session_id", &alone.session_id)?;
            everywhere(&mut scenes, (alone.webhook.name(), "first"), &alone).await?;
        }
    }
    remembered(&mut scenes, played(SEED + 3, REMEMBERED + 2 * calls)).await?;
    let mut found: BTreeMap<Kind, Vec<Cost>> = BTreeMap::new();
    tokio::time::sleep(SETTLED).await;
    scenes.sort_by_key(|scene| scene.count);
    for mut scene in scenes {
        for function in scene.functions.values_mut() {
            function.settle(&mut scene.costs)?;
        }
        scene.costs.remove(&("", ""));
        for (kind, cost) in scene.costs {
            found.entry(kind).or_default().push(cost);
        }
        scene.world.run.stop().await;
    }
    Ok(found)
}

/// Delivers to each in turn; who comes first, with what else is in the processor's caches, changes every time.
async fn everywhere(scenes: &mut [Scene], kind: Kind, delivery: &Planned) -> Result<(), Box<dyn Error>> {
    scenes.rotate_left(1);
    for scene in scenes {
        scene.deliver(kind, delivery).await?;
    }
    Ok(())
}

/// Calls of one caller, who is remembered: the first few make the history, the others ask for it.
async fn remembered(scenes: &mut [Scene], calls: impl Iterator<Item = Planned>) -> Result<(), Box<dyn Error>> {
    let profile = [
        ("profile", AttributeValue::S("default".to_owned())),
        ("memory", AttributeValue::Bool(true)),
        ("greeting", AttributeValue::S("{{ history.calls }}".to_owned())),
    ];
    for scene in scenes.iter_mut() {
        let put = scene.world.clients.dynamodb.put_item().table_name(&scene.world.stores().tables["profiles"]);
        put.set_item(Some(profile.clone().map(|(name, value)| (name.to_owned(), value)).into())).send().await?;
        // An instance keeps a profile for a while: this one is to know the new one.
        let webhook = Webhook::SessionStart;
        let fresh = Function::start(&scene.world, webhook, &scene.bootstrap[&webhook], &scene.stores).await?;
        if let Some(mut before) = scene.functions.insert(webhook, fresh) {
            before.settle(&mut scene.costs)?;
        }
    }
    let starts = calls.filter(|delivery| delivery.webhook == Webhook::SessionStart);
    for (number, start) in starts.enumerate() {
        let start = with(&start, "contact_uri", CALLER)?;
        let kind = if number < REMEMBERED as usize { ("", "") } else { (start.webhook.name(), "first, remembered") };
        everywhere(scenes, kind, &start).await?;
    }
    Ok(())
}

/// The same delivery with another value of one member.
fn with(delivery: &Planned, member: &str, value: &str) -> Result<Planned, serde_json::Error> {
    let mut body: Value = serde_json::from_slice(&delivery.body)?;
    body[member] = json!(value);
    Ok(Planned { body: body.to_string().into_bytes(), ..delivery.clone() })
}

/// The functions over one set of stores.
struct Scene {
    count: usize,
    world: World,
    stores: [Proxy; 2],
    bootstrap: BTreeMap<Webhook, PathBuf>,
    functions: BTreeMap<Webhook, Function>,
    costs: BTreeMap<Kind, Cost>,
}

impl Scene {
    async fn over(count: usize, world: World, bootstrap: &dyn Fn(Webhook) -> PathBuf) -> Result<Self, Box<dyn Error>> {
        let stores = [Proxy::before(&world.stores().dynamodb).await?, Proxy::before(&world.stores().s3).await?];
        let bootstrap: BTreeMap<Webhook, PathBuf> =
            Webhook::ALL.into_iter().map(|webhook| (webhook, bootstrap(webhook))).collect();
        let mut functions = BTreeMap::new();
        for (&webhook, binary) in &bootstrap {
            functions.insert(webhook, Function::start(&world, webhook, binary, &stores).await?);
        }
        Ok(Self { count, world, stores, bootstrap, functions, costs: BTreeMap::new() })
    }

    async fn deliver(&mut self, kind: Kind, delivery: &Planned) -> Result<(), Box<dyn Error>> {
        let body = String::from_utf8_lossy(&delivery.body);
        let event = lambda::event(&self.world, delivery.webhook, &body, false);
        let function = self.functions.get_mut(&delivery.webhook).ok_or("every webhook has a function")?;
        function.settle(&mut self.costs)?;
        for store in &self.stores {
            store.take();
        }
        let answer = function.invoke(kind, event).await?;
        if answer["statusCode"] != 200 {
            return Err(format!("{} answered {}", delivery.webhook.name(), answer["statusCode"]).into());
        }
        let cost = self.costs.entry(kind).or_default();
        cost.deliveries += 1;
        for store in &self.stores {
            cost.asked.add(&store.take());
        }
        Ok(())
    }
}

/// An instance of a function.
struct Function {
    name: &'static str,
    child: Child,
    api: RuntimeApi,
    /// What the delivery was that it works on or worked on last, and its CPU time before.
    working: Option<(Kind, u64)>,
}

impl Function {
    async fn start(
        world: &World,
        webhook: Webhook,
        binary: &Path,
        [dynamodb, s3]: &[Proxy; 2],
    ) -> Result<Self, Box<dyn Error>> {
        let mut environment = lambda::environment(world);
        for (name, value) in [
            ("AWS_ENDPOINT_URL_DYNAMODB", &dynamodb.url),
            ("AWS_ENDPOINT_URL_S3", &s3.url),
            ("LOG_LEVEL", &"info".into()),
        ] {
            environment.insert(name.to_owned(), value.clone());
        }
        let api = RuntimeApi::start().await;
        let mut child = lambda::spawn(Command::new(binary), webhook.name(), &environment, &api.address);
        if let Some(mut log) = child.stdout.take() {
            tokio::spawn(async move { tokio::io::copy(&mut log, &mut tokio::io::sink()).await });
        }
        Ok(Self { name: webhook.name(), child, api, working: None })
    }

    async fn invoke(&mut self, kind: Kind, event: Value) -> Result<Value, Box<dyn Error>> {
        self.working = Some((kind, self.cpu_ns()?));
        tokio::select! {
            answer = self.api.invoke(event) => Ok(answer),
            _ = self.child.wait() => Err(format!("{} ended before it answered", self.name).into()),
            () = tokio::time::sleep(PATIENCE) => Err(format!("{} does not answer", self.name).into()),
        }
    }

    /// Counts what it used since its last delivery began: what it does after its answer is that one's, too.
    fn settle(&mut self, costs: &mut BTreeMap<Kind, Cost>) -> Result<(), Box<dyn Error>> {
        if let Some((kind, before)) = self.working.take() {
            costs.entry(kind).or_default().cpu_ns += self.cpu_ns()? - before;
        }
        Ok(())
    }

    /// Its CPU time so far: a function has one thread. Source: Linux's documentation, "Scheduler Statistics".
    fn cpu_ns(&self) -> Result<u64, Box<dyn Error>> {
        let id = self.child.id().ok_or_else(|| format!("{} has ended", self.name))?;
        let said = std::fs::read_to_string(format!("/proc/{id}/schedstat"))?;
        Ok(said.split(' ').next().unwrap_or_default().parse()?)
    }
}

/// The kinds that ask the stores for more, or for other things, where more is stored.
fn growing(found: &BTreeMap<Kind, Vec<Cost>>) -> Vec<String> {
    let grows = |costs: &[Cost]| costs.iter().any(|cost| cost.asked.calls != costs[0].asked.calls);
    let growing = found.iter().filter(|(_, costs)| grows(costs));
    growing.map(|((webhook, delivery), _)| format!("{webhook}, {delivery}")).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a few thousand deliveries")]
fn rows(stored: &[usize], (webhook, delivery): Kind, costs: &[Cost]) -> Vec<Row> {
    let row = |(cost, stored): (&Cost, &usize)| {
        let each = |sum: u64| sum as f64 / cost.deliveries as f64;
        let calls = cost.asked.calls.iter().map(|(operation, count)| (operation.clone(), each(*count))).collect();
        let (bytes, cpu_us) = (each(cost.asked.bytes), each(cost.cpu_ns) / 1000.0);
        Row { webhook, delivery, stored: *stored, calls, bytes, cpu_us }
    };
    costs.iter().zip(stored).map(row).collect()
}

/// A line for each kind: calls, bytes and CPU of one delivery, each for every number of stored calls.
fn table(stored: &[usize], found: &BTreeMap<Kind, Vec<Cost>>) -> String {
    let aligned = |cells: Vec<String>| cells.iter().fold(String::new(), |line, cell| format!("{line}{cell:>9}"));
    let head = aligned(stored.iter().map(usize::to_string).collect());
    let width = head.len();
    let (calls, bytes, cpu) = ("calls to the stores", "bytes", "CPU us");
    let mut lines = vec![
        format!("{:38} | {calls:>width$} | {bytes:>width$} | {cpu:>width$}", ""),
        format!("{:38} | {head} | {head} | {head}", "stored calls"),
    ];
    for (kind, costs) in found {
        let rows = rows(stored, *kind, costs);
        let column = |value: &dyn Fn(&Row) -> String| aligned(rows.iter().map(value).collect());
        let calls = column(&|row| format!("{:.2}", row.calls.values().sum::<f64>()));
        let (bytes, cpu) = (column(&|row| format!("{:.0}", row.bytes)), column(&|row| format!("{:.0}", row.cpu_us)));
        lines.push(format!("{:38} | {calls} | {bytes} | {cpu}", format!("{}, {}", kind.0, kind.1)));
    }
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be made fails")]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_delivery_asks_the_stores_for_no_more_where_ten_times_as_many_calls_are_stored() {
        let stored = [100, 1_000];
        let bootstrap = |webhook: Webhook| ::tests::hookswitch().with_file_name(webhook.name());
        let found = measure(&stored, 5, &bootstrap).await.unwrap();
        assert_eq!(growing(&found), [] as [String; 0], "{found:#?}");
        for webhook in Webhook::ALL {
            for delivery in ["first", "the same again"] {
                let costs = &found[&(webhook.name(), delivery)];
                assert_eq!(costs.len(), 2);
                assert!(costs.iter().all(|cost| cost.deliveries > 0 && cost.asked.calls["PutItem"] > 0), "{costs:?}");
                assert!(costs.iter().all(|cost| cost.asked.bytes > 0 && cost.cpu_ns > 0), "{costs:?}");
                let (fewer, more) = (costs[0].asked.bytes, costs[1].asked.bytes);
                assert!(fewer.abs_diff(more) * 100 < fewer, "{webhook:?}, {delivery}: {fewer} and {more} bytes");
            }
        }
        let remembered = &found[&("session_start", "first, remembered")];
        assert!(remembered.iter().all(|cost| cost.asked.calls["Query"] == cost.deliveries), "{remembered:?}");
        let table = table(&stored, &found);
        assert!(table.lines().nth(1).unwrap().contains("stored calls"), "{table}");
        assert_eq!(table.lines().count(), 2 + found.len());

        // What does grow is named.
        let mut grown = found;
        *grown.get_mut(&("session_end", "later")).unwrap()[1].asked.calls.get_mut("PutItem").unwrap() += 1;
        assert_eq!(growing(&grown), ["session_end, later"]);
    }
}
