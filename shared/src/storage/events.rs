//! The `events` table: every delivery verbatim, each body where it costs least.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::primitives::ByteStream;
use sha2::{Digest, Sha256};

use super::attributes::{Item, b, gunzip, gzip, n, s, text};
use super::{Clients, Store, StoreError};
use crate::auth::Verified;
use crate::call::{Delivery, Source};
use crate::instant::Instant;
use crate::session::Webhook;

/// The prefix of bodies in the bucket. A body's key is the SHA-256 of what it holds.
pub const BODIES: &str = "bodies/";

/// What an S3 PUT costs in write units ($5 against $0.625 a million).
const S3_PUT_UNITS: usize = 8;
/// Names and values beside the body, generously.
const ITEM_OVERHEAD: usize = 420;
/// A day's quarantine is spread over this many keys, by the first byte of the body's SHA-256.
pub const QUARANTINE_SHARDS: u8 = 4;

/// Where a body is kept.
enum Body<'a> {
    Plain(&'a str),
    Gzip(Vec<u8>),
    InBucket(Vec<u8>),
}

impl<'a> Body<'a> {
    /// The cheapest place; among equally cheap ones the most readable.
    fn place(bytes: &'a [u8]) -> Self {
        let units = |length: usize| (length + ITEM_OVERHEAD).div_ceil(1024);
        let text = std::str::from_utf8(bytes).ok();
        let plain = text.map(|text| (units(bytes.len()), Self::Plain(text)));
        if let Some((1, plain)) = plain {
            return plain;
        }
        let packed = gzip(bytes);
        match (plain, units(packed.len())) {
            (_, packed_units) if packed_units > 1 + S3_PUT_UNITS => Self::InBucket(packed),
            (Some((plain_units, plain)), packed_units) if plain_units <= packed_units => plain,
            _ => Self::Gzip(packed),
        }
    }
}

/// The key of an event below its session: `<webhook>#<occurred at, or ->#<16 hex of the body's SHA-256>`.
pub fn event_key(webhook: Webhook, occurred_at: Option<Instant>, sha256: &str) -> String {
    let at = occurred_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    format!("{}#{at}#{}", webhook.name(), &sha256[..16])
}

/// Where a day's quarantined bodies are: `quarantine#<day>#<shard>`.
pub fn quarantine_key(day: &str, shard: u8) -> String {
    format!("quarantine#{day}#{}", shard % QUARANTINE_SHARDS)
}

impl Store {
    /// Whether the event is new.
    pub(super) async fn put_event(
        &self,
        delivery: &Delivery,
        body: &Verified<'_>,
        source: Source,
        received_at: Instant,
    ) -> Result<bool, StoreError> {
        let sha256 = hex::encode(Sha256::digest(body.bytes()));
        let mut item = Item::from([
            ("session".into(), s(delivery.call.key.as_str())),
            ("event".into(), s(event_key(delivery.webhook, delivery.occurred_at, &sha256))),
            ("webhook".into(), s(delivery.webhook.name())),
            ("source".into(), s(source.name())),
        ]);
        if let Some(reason) = &delivery.trigger_reason {
            item.insert("trigger_reason".into(), s(reason));
        }
        if let Some(at) = delivery.occurred_at {
            item.insert("occurred_at".into(), s(at.to_string()));
        }
        self.put_body(item, body.bytes(), &sha256, received_at).await
    }

    /// Keeps a verified body that cannot be merged, verbatim and aside. `granted` is the only session that its sender
    /// may speak of, if there is one: what the body says is known only once it can be read.
    pub async fn quarantine(
        &self,
        webhook: Webhook,
        body: &Verified<'_>,
        granted: Option<&str>,
        reason: &str,
        received_at: Instant,
    ) -> Result<(), StoreError> {
        let digest = Sha256::digest(body.bytes());
        let sha256 = hex::encode(digest);
        let mut item = Item::from([
            ("session".into(), s(quarantine_key(&received_at.day(), digest[0]))),
            ("event".into(), s(event_key(webhook, None, &sha256))),
            ("webhook".into(), s(webhook.name())),
            ("source".into(), s(Source::Webhook.name())),
            ("reason".into(), s(reason)),
        ]);
        if let Some(session_id) = granted {
            item.insert("granted_session_id".into(), s(session_id));
        }
        self.put_body(item, body.bytes(), &sha256, received_at).await?;
        Ok(())
    }

    /// Puts `item` with its body, unless it is there already.
    async fn put_body(
        &self,
        mut item: Item,
        body: &[u8],
        sha256: &str,
        received_at: Instant,
    ) -> Result<bool, StoreError> {
        item.insert("received_at".into(), s(received_at.to_string()));
        item.insert("body_sha256".into(), s(sha256));
        if let Some(expiry) = self.expiry(None, received_at) {
            item.insert("expires_at".into(), n(expiry));
        }
        match Body::place(body) {
            Body::Plain(text) => item.insert("body".into(), s(text)),
            Body::Gzip(packed) => item.insert("body_gz".into(), b(packed)),
            Body::InBucket(packed) => item.insert("body_s3".into(), self.put_in_bucket(packed, sha256).await?),
        };
        let put = self
            .clients
            .dynamodb
            .put_item()
            .table_name(&self.tables.events)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(#session)")
            .expression_attribute_names("#session", "session");
        match put.send().await {
            Ok(_) => Ok(true),
            Err(SdkError::ServiceError(error))
                if matches!(error.err(), PutItemError::ConditionalCheckFailedException(_)) =>
            {
                Ok(false)
            }
            Err(error) => Err(StoreError::from_sdk("the event", &error)),
        }
    }

    /// Puts a packed body; its attribute is the URI. The key is the content's own digest: repeating it is harmless.
    async fn put_in_bucket(&self, packed: Vec<u8>, sha256: &str) -> Result<AttributeValue, StoreError> {
        let key = format!("{BODIES}{sha256}.json.gz");
        let put = self
            .clients
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(&key)
            .content_type("application/json")
            .content_encoding("gzip")
            .body(ByteStream::from(packed));
        put.send().await.map_err(|error| StoreError::from_sdk("the body", &error))?;
        Ok(s(format!("s3://{}/{key}", self.bucket)))
    }
}

/// The body of an item of the `events` table, wherever it is kept.
///
/// # Errors
/// When the bucket cannot be read, or the body is not as it was put.
pub async fn event_body(clients: &Clients, item: &Item) -> Result<Vec<u8>, StoreError> {
    let damaged = || StoreError::Unavailable { what: "a read of the body", code: "not as it was put".to_owned() };
    let packed = match (item.get("body"), item.get("body_gz"), item.get("body_s3")) {
        (Some(AttributeValue::S(text)), ..) => return Ok(text.clone().into_bytes()),
        (_, Some(AttributeValue::B(packed)), _) => packed.clone().into_inner(),
        (.., Some(AttributeValue::S(uri))) => {
            let place = uri.strip_prefix("s3://").and_then(|place| place.split_once('/'));
            let (bucket, key) = place.ok_or_else(damaged)?;
            let read = clients.s3.get_object().bucket(bucket).key(key).send().await;
            let read = read.map_err(|error| StoreError::from_sdk("a read of the body", &error))?;
            read.body.collect().await.map_err(|_| damaged())?.to_vec()
        }
        _ => return Err(damaged()),
    };
    gunzip(&packed).map_err(|_| damaged())
}

/// A delivery as it was kept.
pub struct Event {
    /// Which webhook brought it.
    pub webhook: Webhook,
    /// Where it came from.
    pub source: Source,
    /// In quarantine: the only session, by its platform's id, that its sender may speak of; `None` for any.
    pub granted: Option<String>,
    /// When it was first received.
    pub received_at: Instant,
    /// As it came.
    pub body: Vec<u8>,
}

/// The delivery of an item of the `events` table, from quarantine or not.
///
/// # Errors
/// When the bucket cannot be read, or the item or its body is not as it was put.
pub async fn read_event(clients: &Clients, item: &Item) -> Result<Event, StoreError> {
    let damaged = |what| StoreError::Unavailable { what, code: "not as it was put".to_owned() };
    let body = event_body(clients, item).await?;
    if text(item, "body_sha256") != Some(&hex::encode(Sha256::digest(&body))) {
        return Err(damaged("a read of the body"));
    }
    let read = || {
        Some(Event {
            webhook: text(item, "webhook")?.parse().ok()?,
            source: Source::from_name(text(item, "source")?)?,
            granted: text(item, "granted_session_id").map(str::to_owned),
            received_at: Instant::parse(text(item, "received_at")?)?,
            body,
        })
    };
    read().ok_or_else(|| damaged("a read of the event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_goes_where_it_costs_least() {
        let small = "x".repeat(600);
        assert!(matches!(Body::place(small.as_bytes()), Body::Plain(_)));
        let wordy = "hello world ".repeat(300);
        assert!(matches!(Body::place(wordy.as_bytes()), Body::Gzip(_)));
        assert!(matches!(Body::place(b"\xff\xfe"), Body::Gzip(_)));
        // Digests do not compress below half.
        let noise: String = (0..400).map(|seed: u32| hex::encode(Sha256::digest(seed.to_be_bytes()))).collect();
        assert!(matches!(Body::place(noise.as_bytes()), Body::InBucket(_)));
    }
}
