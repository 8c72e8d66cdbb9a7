//! A world to tell stories in: the whole bundle as `cargo dev` runs it, on ports of its own, forgotten at the end.
//!
//! Everything is real: the functions, the AWS SDK over HTTP, the embedded stores, the tables of the template. Only
//! faults are made, by an interceptor between the SDK and the stores.

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a world that cannot be made fails its test")]

pub mod bus;
pub mod control_plane;
pub mod crowd;
pub mod faults;
pub mod lambda;
pub mod log;
pub mod odd_calls;
pub mod platform;
mod process;
pub mod secrets_manager;
pub mod source;
pub mod streams;
pub mod units;

pub use process::LocalProcess;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use aws_sdk_dynamodb::types::AttributeValue;
use cli::dev::{Data, Elsewhere, Events, LocalRun, Setup};
use cli::endpoints::{Endpoints, Stores};
use lambda_http::Body;
use sha2::{Digest, Sha256};
use shared::auth::{Secret, vocobase};
use shared::config::Config;
use shared::storage::Clients;
use shared::webhook::App;
use shared::{Clock, Instant, Provider, Webhook};
use tokio::sync::mpsc;

/// An item of a table.
pub type Item = HashMap<String, AttributeValue>;

/// The webhooks whose URL is their credential.
pub const EXOTEL: [Webhook; 5] = [
    Webhook::SessionStart,
    Webhook::SessionEnd,
    Webhook::PreAgentTransfer,
    Webhook::InsightsEvents,
    Webhook::TranscriptEvents,
];

/// A running bundle.
pub struct World {
    /// The local run.
    pub run: LocalRun,
    /// A client for its functions.
    pub http: reqwest::Client,
    /// Clients for its stores.
    pub clients: Clients,
    environment: HashMap<String, String>,
    clock: Clock,
}

/// What a function answered.
#[derive(Debug, PartialEq, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, `null` if it is no JSON.
    pub json: serde_json::Value,
}

/// The real time.
pub fn now() -> Clock {
    Arc::new(Instant::now)
}

/// A clock that stands still.
pub fn at(text: &str) -> Clock {
    let at = Instant::parse(text).expect("an instant");
    Arc::new(move || at)
}

impl World {
    /// With defaults and the real time.
    pub async fn new() -> Self {
        Self::with(&[], now()).await
    }

    /// With an environment and a clock.
    pub async fn with(environment: &[(&str, &str)], clock: Clock) -> Self {
        Self::start(environment, clock, elsewhere(), Events::default()).await
    }

    /// Embedded, and the events that its bus takes. Nothing publishes any by itself.
    pub async fn hearing(clock: Clock) -> (Self, mpsc::UnboundedReceiver<String>) {
        let (heard, events) = mpsc::unbounded_channel();
        let events_out = Events { heard: Some(heard), to: None };
        (Self::start(&[], clock, None, events_out).await, events)
    }

    /// The same with its tables in the embedded DynamoDB, wherever those of others are.
    pub async fn embedded(environment: &[(&str, &str)], clock: Clock) -> Self {
        Self::start(environment, clock, None, Events::default()).await
    }

    async fn start(environment: &[(&str, &str)], clock: Clock, dynamodb: Option<Elsewhere>, events: Events) -> Self {
        let environment: HashMap<String, String> =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let lookup = |name: &str| environment.get(name).cloned();
        // Stories about recordings bring an archiver of their own, and sources that exist.
        let setup = Setup { port: 0, data: Data::Ephemeral, triggers: false, events, dynamodb };
        let run = LocalRun::start(&setup, &lookup, Arc::clone(&clock)).await.expect("the local run starts");
        let clients = run.endpoints.stores.as_ref().expect("a local run has stores").connect().expect("clients");
        Self { run, http: http_client(), clients, environment, clock }
    }

    /// Where everything is.
    pub fn endpoints(&self) -> &Endpoints {
        &self.run.endpoints
    }

    /// Where things are kept.
    pub fn stores(&self) -> &Stores {
        self.run.endpoints.stores.as_ref().expect("a local run has stores")
    }

    /// A function's URL, token included.
    pub fn url(&self, webhook: Webhook) -> &str {
        &self.run.endpoints.functions[webhook.name()]
    }

    /// Delivers as the platform would: Exotel with the function's token, Vocobase signed, both rightly and now.
    pub async fn deliver(&self, webhook: Webhook, body: impl Into<Vec<u8>>) -> Answer {
        let body = body.into();
        let mut request = self.http.post(self.url(webhook));
        if webhook.provider() == Provider::Vocobase {
            let (timestamp, signature) = self.sign(&body, (self.clock)());
            request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
        }
        answer(request.body(body)).await
    }

    /// The two headers of a Vocobase delivery: timestamp and signature.
    pub fn sign(&self, body: &[u8], sent_at: Instant) -> (String, String) {
        let timestamp = sent_at.to_string();
        let signature = vocobase::sign(&signing_secret(&self.run.endpoints), &timestamp, body);
        (timestamp, signature)
    }

    /// All items of a table, by its short name, in the order of their keys.
    pub async fn items(&self, table: &str) -> Vec<Item> {
        items(&self.clients, self.stores(), table).await
    }

    /// The items of a table that belong to a call.
    pub async fn items_of(&self, table: &str, session: &str) -> Vec<Item> {
        let mut items = self.items(table).await;
        items.retain(|item| text(item, "session") == session);
        items
    }

    /// The verified bodies that could not be used.
    pub async fn quarantined(&self) -> Vec<Item> {
        let mut items = self.items("events").await;
        items.retain(|item| text(item, "session").starts_with("quarantine#"));
        items
    }

    /// The body that an item of the `events` table keeps, wherever it is kept.
    pub async fn body(&self, item: &Item) -> Vec<u8> {
        if item.contains_key("body") {
            return text(item, "body").as_bytes().to_vec();
        }
        if let Some(AttributeValue::B(packed)) = item.get("body_gz") {
            return gunzip(packed.as_ref());
        }
        let (bucket, key) = text(item, "body_s3").trim_start_matches("s3://").split_once('/').expect("an S3 URI");
        let object = self.clients.s3.get_object().bucket(bucket).key(key).send().await.expect("the body");
        gunzip(&object.body.collect().await.expect("the body").into_bytes())
    }

    /// What a function finds in its environment, apart from secrets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment = self.stores().environment();
        environment.extend(self.environment.clone());
        environment
    }

    /// Another instance of a function over the same stores: with a cache of its own, and `between` it and the stores.
    pub fn instance(&self, webhook: Webhook, between: impl FnOnce(&Clients) -> Clients, clock: Clock) -> App {
        let mut environment = self.environment();
        for (name, default) in [
            ("VOCOBASE_SECRETS", cli::dev::DEFAULT_VOCOBASE_SECRETS),
            ("EXOTEL_TOKEN_SECRETS", cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS),
        ] {
            environment.entry(name.to_owned()).or_insert_with(|| default.to_owned());
        }
        let config = Config::read(webhook, &|name| environment.get(name).cloned()).expect("a configuration");
        App::new(webhook, config, between(&self.clients), clock)
    }

    /// A request to an instance as the platform would send it, its path below the function's own.
    pub fn request(&self, webhook: Webhook, body: &[u8]) -> lambda_http::Request {
        let query = self.url(webhook).split_once('?').map(|(_, query)| query).unwrap_or_default();
        let mut request = http::Request::post(format!("/?{query}"));
        if webhook.provider() == Provider::Vocobase {
            let (timestamp, signature) = self.sign(body, (self.clock)());
            request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
        }
        request.body(Body::from(body.to_vec())).expect("a request")
    }
}

/// Tables of a world's own in the DynamoDB that `HOOKSWITCH_TEST_DYNAMODB` names, such as `127.0.0.1:8000`.
#[allow(clippy::disallowed_methods, reason = "the edge: what to test on is said by who runs the tests")]
fn elsewhere() -> Option<Elsewhere> {
    let address = std::env::var("HOOKSWITCH_TEST_DYNAMODB").ok()?.parse().expect("an address and a port");
    Some(Elsewhere { address, access_key_id: format!("world{}", rand::random::<u64>()) })
}

/// Sends a request and reads the answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.bytes().await.expect("a body");
    Answer { status, json: serde_json::from_slice(&body).unwrap_or_default() }
}

/// A function's response as an [`Answer`].
pub fn read(response: &lambda_http::Response<Body>) -> Answer {
    Answer { status: response.status().as_u16(), json: serde_json::from_slice(response.body()).unwrap_or_default() }
}

/// All items of a table, by its short name, in the order of their keys.
pub async fn items(clients: &Clients, stores: &Stores, table: &str) -> Vec<Item> {
    let pages = clients.dynamodb.scan().table_name(&stores.tables[table]).into_paginator().items().send();
    let mut items: Vec<Item> = pages.collect::<Result<_, _>>().await.expect("a scan");
    let key = |item: &Item| {
        ["session", "event", "turn", "profile"].map(|name| item.get(name).and_then(|value| value.as_s().ok()).cloned())
    };
    items.sort_by_key(key);
    items
}

/// The text of an attribute, which must be there.
pub fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text,
        other => panic!("{name} is {other:?}"),
    }
}

/// Unpacks gzip.
pub fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut out).expect("this is gzip");
    out
}

/// A client for loopback.
pub fn http_client() -> reqwest::Client {
    cli::http_client().expect("a client")
}

/// The `hookswitch` command, built once per run of the tests as `cargo build` builds it.
pub fn hookswitch() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        // The whole workspace, so that features unify as in `cargo test --workspace` and nothing is built twice.
        cargo.args(["build", "--quiet", "--workspace", "--bins", "--message-format=json-render-diagnostics"]);
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        // What cargo tells the tests about their own package would make build scripts run anew.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(&*name);
            }
        }
        let output = cargo.stderr(std::process::Stdio::inherit()).output().expect("cargo runs");
        assert!(output.status.success(), "hookswitch does not build");
        let mut messages =
            output.stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let executable = |message: serde_json::Value| message["executable"].as_str().map(PathBuf::from);
        let path = messages.find_map(|message| executable(message).filter(|path| path.ends_with("hookswitch")));
        path.expect("cargo says where hookswitch is")
    })
}

/// A function's binary: built with the tests, or, to test what is deployed, of the folder that
/// `HOOKSWITCH_TEST_FUNCTIONS` names, such as `target/lambda`.
#[allow(clippy::disallowed_methods, reason = "the edge: what to test is said by who runs the tests")]
pub fn function(name: &str) -> PathBuf {
    match std::env::var("HOOKSWITCH_TEST_FUNCTIONS") {
        Ok(folder) => Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(folder).join(name).join("bootstrap"),
        Err(_) => hookswitch().with_file_name(name),
    }
}

/// A SHA-256 as hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Base64 as Lambda encodes bodies.
pub fn base64(bytes: &[u8]) -> String {
    aws_smithy_types::base64::encode(bytes)
}

fn signing_secret(endpoints: &Endpoints) -> Secret {
    Secret::new(endpoints.vocobase_secret.as_deref().expect("a local run has a secret"))
}

/// Makes one delivery as its platform would; whether it was answered 2xx.
pub async fn post(http: &reqwest::Client, endpoints: &Endpoints, delivery: &cli::simulate::calls::Planned) -> bool {
    send(http, endpoints, delivery).await.is_ok_and(|response| response.status().is_success())
}

/// Makes one delivery as its platform would.
pub async fn send(
    http: &reqwest::Client,
    endpoints: &Endpoints,
    delivery: &cli::simulate::calls::Planned,
) -> reqwest::Result<reqwest::Response> {
    let mut request = http.post(&endpoints.functions[delivery.webhook.name()]).body(delivery.body.clone());
    if delivery.webhook.provider() == Provider::Vocobase {
        let timestamp = Instant::now().to_string();
        let signature = vocobase::sign(&signing_secret(endpoints), &timestamp, &delivery.body);
        request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
    }
    request.send().await
}
