//! The local run: every function behind the URL it would have, over an embedded DynamoDB and an embedded S3. The
//! functions are the real ones and talk to the stores with the real SDK over HTTP.

mod bus;
mod http;
mod server;
mod stores;
mod triggers;

pub use bus::Events;
pub(crate) use http::{is_local, serve as serve_http};
pub use server::{CONNECTIONS, DELIVERIES, call, serve};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use call_exporter::Exporter;
use event_publisher::Publisher;
use event_publisher::bus::Bus;
use reconciler::Reconciler;
use reconciler::api::Patience;
use recording_archiver::Archiver;
use recording_archiver::source::Sources;
use shared::config::Lookup;
use shared::webhook::App;
use shared::{Clock, Webhook};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::console::Console;
use crate::endpoints::{Endpoints, Stores, with_token};
use crate::template::LOCAL_STACK;
use crate::{Failure, http_client};

/// Signs local Vocobase deliveries unless `VOCOBASE_SECRETS` says otherwise.
pub const DEFAULT_VOCOBASE_SECRETS: &str = "whsec_hookswitch_local";
/// Signs local Exotel tokens unless `EXOTEL_TOKEN_SECRETS` says otherwise.
pub const DEFAULT_EXOTEL_TOKEN_SECRETS: &str = "local:hookswitch-local-tokens";
const ACCESS_KEY_ID: &str = "hookswitch";
const SECRET_ACCESS_KEY: &str = "hookswitch-local";
const REGION: &str = "us-east-1";
const BUCKET: &str = "hookswitch-recordings";
const EVENT_BUS: &str = "hookswitch";

/// How long running requests may take to finish once it is time to stop. Longer than any function's deadline.
const GRACE: Duration = Duration::from_secs(12);

/// Where the local run keeps what it is sent.
#[derive(Clone, Debug)]
pub enum Data {
    /// In this folder, for the next run too.
    Folder(PathBuf),
    /// In memory and a temporary folder, until it stops.
    Ephemeral,
}

/// A local run that is up.
pub struct LocalRun {
    /// Where everything is.
    pub endpoints: Endpoints,
    /// The base of all URLs, `http://127.0.0.1:9000`.
    pub base: String,
    /// What signs the tokens, where that is the default and so no secret.
    pub default_token_secrets: Option<&'static str>,
    stop: watch::Sender<bool>,
    functions: JoinHandle<()>,
    triggered: Vec<JoinHandle<()>>,
    stores: stores::Embedded,
}

/// What a local run is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The functions' port; DynamoDB takes the next, S3 the one after. 0 takes any three that are free.
    pub port: u16,
    /// Where things are kept.
    pub data: Data,
    /// Whether streams and schedules do their work: recordings are fetched, events published, finished calls exported
    /// and, with a key of Vocobase's API, calls are looked for whose webhook never came.
    pub triggers: bool,
    /// Where events go that the local bus takes.
    pub events: Events,
    /// Where the tables are instead of the embedded DynamoDB. Its streams are not read.
    pub dynamodb: Option<Elsewhere>,
}

/// Another DynamoDB on this machine, such as AWS's DynamoDB Local.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// Where it answers.
    pub address: SocketAddr,
    /// Whose tables: DynamoDB Local keeps those of each access key apart. Letters and digits.
    pub access_key_id: String,
}

/// The ports of the functions, `DynamoDB` and S3.
fn ports(base: u16) -> Result<[u16; 3], Failure> {
    if base == 0 {
        return Ok([0; 3]);
    }
    let last = base.checked_add(2).ok_or_else(|| Failure(format!("--port {base} leaves no room for three ports")))?;
    Ok([base, base + 1, last])
}

/// The functions of this run.
pub type Apps = BTreeMap<Webhook, App>;

impl LocalRun {
    /// Starts it. `lookup` is the environment; `clock` is every function's.
    pub async fn start(setup: &Setup, lookup: Lookup<'_>, clock: Clock) -> Result<Self, Failure> {
        // The configuration first: a bad value must not leave a half-made folder behind.
        let set = |name: &str, default: &str| {
            lookup(name).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let vocobase = set("VOCOBASE_SECRETS", DEFAULT_VOCOBASE_SECRETS);
        let exotel = set("EXOTEL_TOKEN_SECRETS", DEFAULT_EXOTEL_TOKEN_SECRETS);
        let with_secrets = |name: &str| match name {
            "VOCOBASE_SECRETS" => Some(vocobase.clone()),
            "EXOTEL_TOKEN_SECRETS" => Some(exotel.clone()),
            _ => lookup(name),
        };
        let tokens = shared::config::tokens(&with_secrets)?;
        shared::config::signatures(&with_secrets)?;

        let (hosts, limits) = recording_archiver::rules(lookup)?;
        let sources = Sources::and_loopback(hosts, limits, recording_archiver::system_lookup());
        let sources = sources.map_err(|error| Failure(error.to_string()))?;

        let ports = ports(setup.port)?;
        // On a port that nobody has to know: `/endpoints` says it.
        let bus = listen(0).await?;
        let [functions, dynamodb, s3] = [listen(ports[0]).await?, listen(ports[1]).await?, listen(ports[2]).await?];
        let url = |listener: &TcpListener| listener.local_addr().map(|address| format!("http://{address}"));
        let unknown = |error: std::io::Error| Failure(format!("a port that was opened has no address: {error}"));
        let base = url(&functions).map_err(unknown)?;
        let (dynamodb_url, s3_url) = (url(&dynamodb).map_err(unknown)?, url(&s3).map_err(unknown)?);
        let bus_url = url(&bus).map_err(unknown)?;

        let (stop, stopped) = watch::channel(false);
        let (elsewhere, access_key_id) = match &setup.dynamodb {
            Some(elsewhere) => (Some(elsewhere.address), elsewhere.access_key_id.as_str()),
            None => (None, ACCESS_KEY_ID),
        };
        let keys = (access_key_id, SECRET_ACCESS_KEY);
        let stores = stores::Embedded::start(&setup.data, elsewhere, dynamodb, s3, keys)?;
        let mut found = Stores {
            dynamodb: dynamodb_url,
            s3: s3_url,
            eventbridge: bus_url,
            region: REGION.to_owned(),
            access_key_id: access_key_id.to_owned(),
            secret_access_key: SECRET_ACCESS_KEY.to_owned(),
            bucket: BUCKET.to_owned(),
            event_bus: EVENT_BUS.to_owned(),
            tables: BTreeMap::new(),
            default_country: shared::config::country(lookup)?,
        };
        found.tables = stores::create(&found, LOCAL_STACK).await?;

        let mut environment = found.environment();
        environment.insert("VOCOBASE_SECRETS".to_owned(), vocobase.clone());
        let default_token_secrets = (exotel == DEFAULT_EXOTEL_TOKEN_SECRETS).then_some(DEFAULT_EXOTEL_TOKEN_SECRETS);
        environment.insert("EXOTEL_TOKEN_SECRETS".to_owned(), exotel);
        let own_url = |webhook: Webhook| format!("{base}/{}/", webhook.name());
        for webhook in Webhook::ALL {
            environment.insert(format!("{}_URL", webhook.name().to_uppercase()), own_url(webhook));
        }
        let function_lookup = |name: &str| environment.get(name).cloned().or_else(|| lookup(name));
        let mut apps = Apps::new();
        for webhook in Webhook::ALL {
            let config = shared::config::Config::read(webhook, &function_lookup)?;
            apps.insert(webhook, App::new(webhook, config, found.connect()?, Arc::clone(&clock)));
        }

        let console = Console::local(&base, found.open()?, Arc::clone(&clock))?;
        let taken = bus::serve(bus, setup.events.clone(), http_client()?, stopped.clone());
        let mut triggered = vec![tokio::spawn(taken)];
        if setup.triggers {
            let storage = shared::config::Storage::read(&function_lookup)?;
            let archiver = Archiver::new(storage.clone(), found.connect()?, sources, Arc::clone(&clock));
            let bus = Bus::connect(&function_lookup)?;
            let publisher = Publisher::new(storage.clone(), found.connect()?, bus, LOCAL_STACK, Arc::clone(&clock));
            let exporter = Exporter::new(storage, found.connect()?, Arc::clone(&clock));
            if let Some(database) = stores.database() {
                let stream = |table: &str| triggers::Stream::open(database.clone(), found.tables[table].clone());
                let jobs = stream("recordings").await;
                triggered.push(tokio::spawn(triggers::archive(archiver, jobs, stopped.clone())));
                let streams = vec![stream("events").await, stream("sessions").await, stream("recordings").await];
                triggered.push(tokio::spawn(triggers::publish(publisher, streams, stopped.clone())));
                let (calls, turns) = (stream("sessions").await, stream("transcripts").await);
                triggered.push(tokio::spawn(triggers::export(exporter, calls, turns, stopped.clone())));
            }
            let reconciler = Reconciler::new(&function_lookup, found.connect()?, Patience::default(), clock)?;
            if !set("VOCOBASE_API_KEY", "").is_empty() {
                triggered.push(tokio::spawn(triggers::reconcile(reconciler, stopped.clone())));
            }
        }

        let url_with_token = |webhook: Webhook| with_token(&own_url(webhook), webhook, &tokens);
        let endpoints = Endpoints {
            functions: Webhook::ALL
                .into_iter()
                .map(|webhook| (webhook.name().to_owned(), url_with_token(webhook)))
                .collect(),
            vocobase_secret: vocobase.split(',').next().map(|secret| secret.trim().to_owned()),
            stores: Some(found),
        };
        let served = server::serve(functions, apps, Some(console), endpoints.clone(), stopped);
        Ok(Self { endpoints, base, default_token_secrets, stop, functions: tokio::spawn(served), triggered, stores })
    }

    /// Takes no more requests, finishes those that run, then closes the stores.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = tokio::time::timeout(GRACE, self.functions).await;
        // A copy that is cut short is taken up by the next run: its lease is the archiver's own. What the reconciler did
        // not come to, it finds again.
        for task in self.triggered {
            task.abort();
            let _ = task.await;
        }
        self.stores.stop(GRACE).await;
    }
}

async fn listen(port: u16) -> Result<TcpListener, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            Failure(format!("port {port} is in use: choose another with --port, which moves all three ports"))
        }
        _ => Failure(format!("port {port} cannot be opened: {error}")),
    })
}
