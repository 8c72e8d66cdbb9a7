//! Where everything of a running bundle is: what `GET /endpoints` answers and what the other commands read.

use std::collections::BTreeMap;

use event_publisher::bus::Bus;
use serde::{Deserialize, Deserializer, Serialize};
use shared::auth::exotel::Tokens;
use shared::{Country, Provider, Webhook};

use crate::target::Opened;

/// `GET /endpoints`. On a deployed bundle only the functions and the secret are known.
#[derive(Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// Function name → its URL, token included.
    #[serde(flatten, deserialize_with = "functions")]
    pub functions: BTreeMap<String, String>,
    /// What Vocobase signs with, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocobase_secret: Option<String>,
    /// Where deliveries are kept, if that can be looked into.
    #[serde(flatten)]
    pub stores: Option<Stores>,
}

/// Of all members those that are functions' URLs.
fn functions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let members = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let url = |(name, value): (String, serde_json::Value)| {
        name.parse::<Webhook>().ok()?;
        Some((name, value.as_str()?.to_owned()))
    };
    Ok(members.into_iter().filter_map(url).collect())
}

/// A function's URL as it is pasted: with a token that is good for every session, if its platform has such.
pub fn with_token(url: &str, webhook: Webhook, tokens: &Tokens) -> String {
    match (webhook.provider(), tokens.function_token(webhook)) {
        (Provider::Exotel, Some(token)) => format!("{url}?token={token}"),
        _ => url.to_owned(),
    }
}

/// The stores and the keys to them.
#[derive(Clone, Serialize, Deserialize)]
pub struct Stores {
    /// The endpoint of DynamoDB.
    pub dynamodb: String,
    /// The endpoint of S3.
    pub s3: String,
    /// The endpoint of EventBridge.
    #[serde(default)]
    pub eventbridge: String,
    /// The region that requests are signed for.
    pub region: String,
    /// Of the credentials.
    pub access_key_id: String,
    /// Of the credentials.
    pub secret_access_key: String,
    /// The bucket for recordings and large bodies.
    pub bucket: String,
    /// The event bus.
    #[serde(default)]
    pub event_bus: String,
    /// `events` → `hookswitch-events` and so on.
    pub tables: BTreeMap<String, String>,
    /// `DEFAULT_COUNTRY`.
    #[serde(default)]
    pub default_country: Country,
}

impl Stores {
    /// SDK clients for these stores.
    pub fn connect(&self) -> Result<shared::storage::Clients, crate::Failure> {
        let lookup = |name: &str| {
            let value = match name {
                "AWS_REGION" => &self.region,
                "AWS_ACCESS_KEY_ID" => &self.access_key_id,
                "AWS_SECRET_ACCESS_KEY" => &self.secret_access_key,
                "AWS_ENDPOINT_URL_DYNAMODB" => &self.dynamodb,
                "AWS_ENDPOINT_URL_S3" => &self.s3,
                _ => return None,
            };
            Some(value.clone())
        };
        Ok(shared::storage::connect(&lookup)?)
    }

    /// The event bus.
    pub fn bus(&self) -> Result<Bus, crate::Failure> {
        let environment = self.environment();
        Ok(Bus::connect(&|name: &str| environment.get(name).cloned())?)
    }

    /// The stores, to look into.
    pub fn open(&self) -> Result<Opened, crate::Failure> {
        let (clients, tables, bucket) = (self.connect()?, self.tables.clone(), self.bucket.clone());
        // Nothing expires in the local run.
        Ok(Opened { clients, tables, bucket, retention_days: None, default_country: self.default_country })
    }

    /// What a function finds in its environment, apart from secrets.
    pub fn environment(&self) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = self
            .tables
            .iter()
            .map(|(name, physical)| (format!("{}_TABLE", name.to_uppercase()), physical.clone()))
            .collect();
        for (name, value) in [
            ("RECORDINGS_BUCKET", &self.bucket),
            ("AWS_REGION", &self.region),
            ("AWS_ACCESS_KEY_ID", &self.access_key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_access_key),
            ("AWS_ENDPOINT_URL_DYNAMODB", &self.dynamodb),
            ("AWS_ENDPOINT_URL_S3", &self.s3),
            ("AWS_ENDPOINT_URL_EVENTBRIDGE", &self.eventbridge),
            ("EVENT_BUS_NAME", &self.event_bus),
        ] {
            environment.insert(name.to_owned(), value.clone());
        }
        environment
    }
}
