//! Which bundle a command looks into: the local run, or a deployed stack.

use std::collections::BTreeMap;
use std::path::Path;

use event_publisher::bus::Bus;
use shared::Country;
use shared::config::Storage;
use shared::storage::{Clients, Tables};

use crate::endpoints::Endpoints;
use crate::stack::Stack;
use crate::{Failure, http_client};

/// Where to look.
#[derive(clap::Args, Clone, Debug)]
pub struct Target {
    /// The port of the local run.
    #[arg(long, default_value_t = 9000)]
    pub port: u16,
    /// The local run: what is meant if nothing is said.
    #[arg(long, conflicts_with = "stack")]
    pub local: bool,
    /// A deployed stack instead, with credentials and region as the AWS CLI finds them.
    #[arg(long, value_name = "NAME", conflicts_with = "port")]
    pub stack: Option<String>,
}

/// A bundle's stores.
pub struct Opened {
    /// Clients for them.
    pub clients: Clients,
    /// `events` → `hookswitch-events` and so on.
    pub tables: BTreeMap<String, String>,
    /// The bucket for recordings and large bodies.
    pub bucket: String,
    /// After how many days items expire, if they do.
    pub retention_days: Option<i64>,
    /// The country of telephone numbers that come without its code.
    pub default_country: Country,
}

impl Target {
    /// Finds the stores.
    pub async fn open(&self) -> Result<Opened, Failure> {
        match &self.stack {
            Some(stack) => Stack::find(stack).await?.open(),
            None => {
                let endpoints = local(self.port).await?;
                let stores = endpoints
                    .stores
                    .ok_or_else(|| Failure("the local run does not say where its stores are".to_owned()))?;
                stores.open()
            }
        }
    }

    /// Finds the event bus.
    pub async fn bus(&self) -> Result<Bus, Failure> {
        match &self.stack {
            Some(stack) => Stack::find(stack).await?.bus(),
            None => {
                let stores = local(self.port).await?.stores;
                stores.ok_or_else(|| Failure("the local run does not say where its bus is".to_owned()))?.bus()
            }
        }
    }
}

/// What the local run says of itself.
pub async fn local(port: u16) -> Result<Endpoints, Failure> {
    at(&format!("http://127.0.0.1:{port}")).await
}

/// What the local run at this base URL says of itself.
pub async fn at(base: &str) -> Result<Endpoints, Failure> {
    let url = format!("{}/endpoints", base.trim_end_matches('/'));
    let unreachable = |_| Failure(format!("nothing answers at {url}: start the local run with `cargo dev`"));
    let response = http_client()?.get(&url).send().await.map_err(unreachable)?;
    read(&url, &response.text().await.map_err(unreachable)?)
}

/// What an endpoints file says.
pub fn file(path: &Path) -> Result<Endpoints, Failure> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| Failure(format!("{} cannot be read: {error}", path.display())))?;
    read(&path.display().to_string(), &text)
}

/// Reads what `/endpoints` answers, from wherever it is.
pub fn read(whence: &str, text: &str) -> Result<Endpoints, Failure> {
    // What is wrong, not what it says: it holds tokens.
    let unreadable = |error: serde_json::Error| {
        let (what, line, column) = (error.classify(), error.line(), error.column());
        Failure(format!("{whence} is no endpoints file: {what:?} at line {line} column {column}"))
    };
    let endpoints: Endpoints = serde_json::from_str(text).map_err(unreadable)?;
    let members: serde_json::Value = serde_json::from_str(text).map_err(unreadable)?;
    let tables = endpoints.stores.as_ref().map(|stores| &stores.tables);
    let whole = tables.is_some_and(|tables| TABLES.iter().all(|table| tables.contains_key(*table)));
    if members.get("dynamodb").is_some() && !whole {
        let wanted = "s3, region, access_key_id, secret_access_key, bucket and tables with all five names";
        return Err(Failure(format!("{whence} has dynamodb, and so must have {wanted}")));
    }
    Ok(endpoints)
}

/// The tables by their short names.
pub const TABLES: [&str; 5] = ["events", "transcripts", "sessions", "recordings", "profiles"];

impl Opened {
    /// A table's physical name.
    pub fn table(&self, name: &str) -> Result<&str, Failure> {
        self.tables.get(name).map(String::as_str).ok_or_else(|| Failure(format!("there is no table {name}")))
    }

    /// The bundle's own store over these tables, for commands that change what is in them.
    pub fn store(&self) -> Result<shared::storage::Store, Failure> {
        let table = |name: &str| self.table(name).map(str::to_owned);
        let tables = Tables {
            events: table("events")?,
            transcripts: table("transcripts")?,
            sessions: table("sessions")?,
            recordings: table("recordings")?,
            profiles: table("profiles")?,
        };
        let (retention_days, default_country) = (self.retention_days, self.default_country);
        let storage = Storage { tables, bucket: self.bucket.clone(), retention_days, default_country };
        Ok(shared::storage::Store::without_cache(self.clients.clone(), storage))
    }
}
