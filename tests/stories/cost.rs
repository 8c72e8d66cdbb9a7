//! What `hookswitch cost` multiplies, beside what simulated calls take when every request is counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use call_exporter::Exporter;
use cli::cost::Call;
use cli::simulate::calls::{Planned, plan};
use cli::simulate::recordings::Recordings;
use event_publisher::Publisher;
use event_publisher::bus::Bus;
use recording_archiver::Archiver;
use recording_archiver::source::Sources;
use serde_json::{Value, json};
use shared::config::Storage;
use shared::storage::Invocation;
use shared::webhook::App;
use shared::{Instant, Provider, SessionKey, Webhook};
use tests::faults::between;
use tests::streams::{ask, records};
use tests::units::{Counted, Units, item_bytes};
use tests::{World, now, read, text};
use tokio::time;

fn soon() -> time::Instant {
    time::Instant::now() + Duration::from_mins(1)
}

/// The whole bundle, whose every request to tables and bucket is counted.
struct Bundle {
    world: World,
    heard: tokio::sync::mpsc::UnboundedReceiver<String>,
    apps: BTreeMap<Webhook, App>,
    archiver: Archiver,
    publisher: Publisher,
    exporter: Exporter,
    units: Units,
    told: BTreeMap<(&'static str, &'static str), usize>,
}

impl Bundle {
    async fn new() -> Self {
        let (world, heard) = World::hearing(now()).await;
        let units = Units::default();
        let instance =
            |webhook| (webhook, world.instance(webhook, |clients| between(clients, &units), Arc::new(Instant::now)));
        let apps = Webhook::ALL.into_iter().map(instance).collect();
        let environment = world.environment();
        let lookup = |name: &str| match name {
            "AWS_ENDPOINT_URL_EVENTBRIDGE" => Some(world.stores().eventbridge.clone()),
            name => environment.get(name).cloned(),
        };
        let storage = || Storage::read(&lookup).unwrap();
        let clients = || between(&world.clients, &units);
        let (hosts, limits) = recording_archiver::rules(&lookup).unwrap();
        let sources = Sources::and_loopback(hosts, limits, recording_archiver::system_lookup()).unwrap();
        let archiver = Archiver::new(storage(), clients(), sources, now());
        let bus = Bus::connect(&lookup).unwrap();
        let publisher = Publisher::new(storage(), clients(), bus, "hookswitch", now());
        let exporter = Exporter::new(storage(), clients(), now());
        Self { world, heard, apps, archiver, publisher, exporter, units, told: BTreeMap::new() }
    }

    /// What a table's stream has told since this reader asked last.
    async fn unread(&mut self, reader: &'static str, table: &'static str) -> Invocation {
        let all = records(&self.world, table).await;
        let told = self.told.insert((reader, table), all.len()).unwrap_or_default();
        serde_json::from_value(json!({ "Records": all[told..] })).unwrap()
    }

    async fn publish(&mut self) {
        for table in ["events", "sessions", "recordings"] {
            let unread = self.unread("publisher", table).await;
            event_publisher::handle(&self.publisher, unread, soon()).await;
        }
    }

    async fn export(&mut self) {
        for table in ["transcripts", "sessions"] {
            let unread = self.unread("exporter", table).await;
            call_exporter::handle(&self.exporter, unread, soon()).await;
        }
    }

    /// Delivers a call, and brings streams as the template's batches would: once it is over, and once its recording is
    /// there.
    async fn call(&mut self, deliveries: &[Planned]) -> Counted {
        for planned in deliveries {
            let request = self.world.request(planned.webhook, &planned.body);
            let answer = read(&cli::dev::call(planned.webhook, &self.apps[&planned.webhook], request).await);
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        self.publish().await;
        self.export().await;
        for job in self.world.items("recordings").await {
            let key: SessionKey = text(&job, "session").parse().unwrap();
            if key.as_str().ends_with(&deliveries[0].session_id) {
                self.archiver.archive(&key, "worker", soon()).await.unwrap();
                self.publish().await;
                self.export().await;
            }
        }
        self.units.take()
    }

    /// What storing a call is paid for, in tables and indices: its bytes, and 100 for each item and each entry.
    async fn table_bytes(&self, session: &str) -> usize {
        let mut bytes = 0;
        for (name, table) in cli::template::tables().unwrap().into_iter().filter(|(name, _)| name != "profiles") {
            let query = json!({ "TableName": self.world.stores().tables[&name], "KeyConditionExpression": "#s = :s",
                "ExpressionAttributeNames": { "#s": "session" }, "ExpressionAttributeValues": { ":s": { "S": session } } });
            let found = ask(&self.world, "DynamoDB_20120810.Query", query).await;
            for item in found["Items"].as_array().unwrap() {
                let item = item.as_object().unwrap();
                bytes += item_bytes(item) + 100;
                for key in table.index_keys() {
                    // Nothing but keys, its own and the table's.
                    let entry = key.iter().map(|name| Some((name.clone(), item.get(name)?.clone())));
                    if let Some(entry) = entry.collect::<Option<serde_json::Map<_, _>>>() {
                        bytes += item_bytes(&entry) + "session".len() + session.len() + 100;
                    }
                }
            }
        }
        bytes
    }

    async fn document_bytes(&self, session: &str) -> usize {
        let listed = self.world.clients.s3.list_objects_v2().bucket(&self.world.stores().bucket).prefix("calls/");
        let listed = listed.send().await.unwrap();
        let of = listed.contents().iter().filter(|object| object.key().unwrap().contains(session));
        of.map(|object| usize::try_from(object.size().unwrap()).unwrap()).sum()
    }
}

/// A simulated call in the words of the model.
#[allow(clippy::cast_precision_loss, reason = "some hundred")]
fn modelled(deliveries: &[Planned]) -> Call {
    let sent = |webhook: Webhook| deliveries.iter().filter(|planned| planned.webhook == webhook).count() as f64;
    let provider = deliveries[0].webhook.provider();
    let mut said = Vec::new();
    for planned in deliveries {
        let body: Value = serde_json::from_slice(&planned.body).unwrap();
        let spoken = body["data"]["transcript"].as_array().into_iter().flatten().map(|turn| turn["content"].clone());
        said.extend(spoken);
        let heard = body["events"].as_array().into_iter().flatten();
        let heard = heard.flat_map(|event| event["event_data"]["transcripts"].as_array().into_iter().flatten());
        let whole = heard.filter(|turn| turn["status"] == "completed");
        said.extend(whole.map(|turn| turn["transcript_segments"][0]["text"].clone()));
    }
    let bytes: usize = said.iter().map(|text| text.as_str().unwrap().len()).sum();
    Call {
        provider,
        turns: said.len() as f64,
        turn_bytes: bytes as f64 / said.len().max(1) as f64,
        insights: sent(Webhook::InsightsEvents),
        recording_minutes: f64::from(u8::from(provider == Provider::Vocobase)),
    }
}

/// Adds what was counted to what was modelled.
#[derive(Debug, Default)]
struct Sums(BTreeMap<&'static str, (f64, f64)>);

impl Sums {
    fn add(&mut self, what: &'static str, counted: f64, modelled: f64) {
        let sums = self.0.entry(what).or_default();
        *sums = (sums.0 + counted, sums.1 + modelled);
    }

    /// By which factor the model says more.
    fn ratio(&self, what: &str) -> f64 {
        self.0[what].1 / self.0[what].0
    }
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::cast_precision_loss, reason = "some thousand")]
async fn the_model_of_costs_counts_as_simulated_calls_do() {
    let mut bundle = Bundle::new().await;
    let recordings = Recordings::serve(20_000, 0.0).await.unwrap();
    let hour = |hours: i64| Instant::now().plus_seconds(hours * 60 * 60);
    let url = |session: &str| Some(recordings.url(session, hour(1)));
    let mut all = BTreeMap::new();
    for deliveries in plan(8, 24, hour(-2), &url) {
        // What is rare is not in the model.
        let usual = |planned: &Planned| planned.webhook != Webhook::PreAgentTransfer;
        let deliveries: Vec<Planned> = deliveries.into_iter().filter(usual).collect();
        let session = deliveries[0].session_id.clone();
        let (call, counted) = (modelled(&deliveries), bundle.call(&deliveries).await);
        let table_bytes = bundle.table_bytes(&format!("{}#{session}", call.provider.name())).await;
        let mut events = 0.0;
        while bundle.heard.try_recv().is_ok() {
            events += 1.0;
        }
        let taken = call.taken();
        let sums: &mut Sums = all.entry(call.provider.name()).or_default();
        sums.add("deliveries", deliveries.len() as f64, taken.deliveries);
        sums.add("events", events, taken.events);
        sums.add("PUT", counted.puts as f64, taken.puts);
        sums.add("write units", counted.units, taken.write_units);
        sums.add("read units", counted.read_units, taken.read_units);
        sums.add("GET", counted.gets as f64, taken.gets);
        sums.add("table bytes", table_bytes as f64, taken.table_bytes);
        sums.add("document bytes", bundle.document_bytes(&session).await as f64, taken.document_bytes);
        println!("{:?}", (call, counted.units, taken.write_units, table_bytes, taken.table_bytes));
    }
    println!("counted, modelled: {all:#?}");
    for (provider, sums) in &all {
        for (what, least, most) in [
            ("deliveries", 1.0, 1.0),
            ("events", 1.0, 1.0),
            ("PUT", 1.0, 1.0),
            ("write units", 0.98, 1.05),
            // What was really said repeats itself less, and packs worse.
            ("table bytes", 0.95, 1.15),
            ("document bytes", 0.95, 1.05),
            // Of these the model says how many there may be, where instances do not remember calls.
            ("read units", 1.0, 2.0),
            ("GET", 1.0, 1.5),
        ] {
            let ratio = sums.ratio(what);
            assert!((least..=most).contains(&ratio), "{provider}, {what}: {ratio:.3} times what was counted");
        }
    }
}
