//! What the functions ask of AWS, answered at once from memory and counted, so that what is left is their own cost.
//!
//! `DynamoDB` as far as the functions speak it: items are kept, conditions hold or fail, and writes cost the units that
//! the service would count, indices included. Source: Amazon `DynamoDB` Developer Guide, "Capacity unit consumption for
//! write operations", "`DynamoDB` item sizes and formats" and "Using Global Secondary Indexes".

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::error::Error;
use std::sync::{Arc, Mutex};

use ::tests::units::item_bytes;
use bytes::Bytes;
use cli::template::LOCAL_STACK;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Map, Value, json};
use tokio_rustls::TlsAcceptor;

use super::units::{self, Indices};

/// An item as the wire has it.
pub type Item = Map<String, Value>;

/// What was asked for since it was last taken.
#[derive(Clone, Default, Debug)]
pub struct Asked {
    /// Requests by operation, such as `PutItem` or `s3:PUT`.
    pub calls: BTreeMap<String, u64>,
    /// Of requests' bodies.
    pub bytes: u64,
    pub write_units: f64,
    pub read_units: f64,
    /// Those whose condition did not hold: their units are in `write_units`.
    pub failed_conditions: u64,
}

impl Asked {
    pub fn add(&mut self, more: Self) {
        for (operation, calls) in more.calls {
            *self.calls.entry(operation).or_default() += calls;
        }
        self.bytes += more.bytes;
        self.write_units += more.write_units;
        self.read_units += more.read_units;
        self.failed_conditions += more.failed_conditions;
    }
}

/// AWS on this machine.
#[derive(Clone)]
pub struct Aws {
    /// Where it is, over TLS.
    pub url: String,
    /// What it is to be trusted by, as PEM.
    pub authority: String,
    kept: Arc<Mutex<Kept>>,
}

struct Kept {
    indices: Indices,
    items: HashMap<(String, String), Item>,
    objects: HashMap<String, Bytes>,
    secret: String,
    asked: Asked,
}

impl Aws {
    /// Serves it on loopback until the process ends. Secrets Manager holds `secret`.
    pub async fn serve(secret: &str) -> Result<Self, Box<dyn Error>> {
        let kept = Arc::new(Mutex::new(Kept {
            indices: Indices::of(LOCAL_STACK)?,
            items: HashMap::new(),
            objects: HashMap::new(),
            secret: secret.to_owned(),
            asked: Asked::default(),
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let (authority, tls) = certified()?;
        let serving = Arc::clone(&kept);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, kept) = (tls.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    drop(socket.set_nodelay(true));
                    let Ok(socket) = tls.accept(socket).await else { return };
                    let serve = service_fn(|request| answer(Arc::clone(&kept), request));
                    drop(
                        Builder::new(TokioExecutor::new())
                            .http1_only()
                            .serve_connection(TokioIo::new(socket), serve)
                            .await,
                    );
                });
            }
        });
        Ok(Self { url, authority, kept })
    }

    /// What was asked for since this was last called.
    pub fn take(&self) -> Asked {
        std::mem::take(&mut self.kept().asked)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// An authority of this run's own, and a server that it vouches for.
fn certified() -> Result<(String, TlsAcceptor), Box<dyn Error>> {
    let mut authority = CertificateParams::new([])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for self-signed.
    authority.distinguished_name.push(DnType::CommonName, "bench");
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?;
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(["localhost".to_owned()])?;
    let certificate = params.signed_by(&key, &Issuer::new(authority, authority_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((root.pem(), TlsAcceptor::from(Arc::new(config))))
}

async fn answer(kept: Arc<Mutex<Kept>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let target = head.headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
    let mut kept = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let operation = target.map_or_else(|| format!("s3:{}", head.method), str::to_owned);
    *kept.asked.calls.entry(operation.clone()).or_default() += 1;
    kept.asked.bytes += body.len() as u64;
    let (status, said) = if target.is_some() {
        let (status, said) = kept.asked(&operation, &serde_json::from_slice(&body).unwrap_or_default());
        (status, Bytes::from(said.to_string()))
    } else {
        kept.object(&head.method, head.uri.path(), body)
    };
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .header("etag", "\"9b2cf535f27731c974343645a3985328\"");
    Ok(response.body(Full::new(said)).unwrap_or_default())
}

impl Kept {
    fn object(&mut self, method: &http::Method, path: &str, body: Bytes) -> (u16, Bytes) {
        match *method {
            http::Method::PUT => {
                self.objects.insert(path.to_owned(), body);
                (200, Bytes::new())
            }
            _ => self.objects.get(path).map_or((404, Bytes::new()), |object| (200, object.clone())),
        }
    }

    fn asked(&mut self, operation: &str, request: &Value) -> (u16, Value) {
        let table = request["TableName"].as_str().unwrap_or_default();
        match operation {
            "GetSecretValue" => (200, json!({ "SecretString": self.secret, "VersionId": "1" })),
            "PutEvents" => {
                let entries = request["Entries"].as_array().map_or(0, Vec::len);
                (200, json!({ "FailedEntryCount": 0, "Entries": vec![json!({ "EventId": "1" }); entries] }))
            }
            "GetItem" => {
                let item = self.items.get(&place(table, &request["Key"])).cloned();
                self.read(item.as_ref(), request["ConsistentRead"] == true);
                (200, item.map_or_else(|| json!({}), |item| json!({ "Item": item })))
            }
            "BatchGetItem" => {
                let mut responses = Map::new();
                for (table, asked) in request["RequestItems"].as_object().into_iter().flatten() {
                    let keys = asked["Keys"].as_array().into_iter().flatten();
                    let found: Vec<Option<Item>> =
                        keys.map(|key| self.items.get(&place(table, key)).cloned()).collect();
                    for item in &found {
                        self.read(item.as_ref(), asked["ConsistentRead"] == true);
                    }
                    responses.insert(table.clone(), found.into_iter().flatten().map(Value::Object).collect());
                }
                (200, json!({ "Responses": responses, "UnprocessedKeys": {} }))
            }
            // Nothing here is asked for what it has not been told of by its key.
            "Query" => {
                self.read(None, false);
                (200, json!({ "Items": [], "Count": 0, "ScannedCount": 0 }))
            }
            "PutItem" => {
                let item = request["Item"].as_object().cloned().unwrap_or_default();
                self.write(table, &request["Item"], request, |_| item)
            }
            "UpdateItem" => {
                let key = request["Key"].as_object().cloned().unwrap_or_default();
                let change = |before: Option<&Item>| updated(before.cloned().unwrap_or(key), request);
                self.write(table, &request["Key"], request, change)
            }
            _ => (400, json!({ "__type": "com.amazon.coral.service#UnknownOperationException" })),
        }
    }

    fn read(&mut self, item: Option<&Item>, consistent: bool) {
        let units = item.map_or(1.0, |item| units::blocks(item_bytes(item), 4096));
        self.asked.read_units += if consistent { units } else { units / 2.0 };
    }

    fn write(
        &mut self,
        table: &str,
        key: &Value,
        request: &Value,
        change: impl FnOnce(Option<&Item>) -> Item,
    ) -> (u16, Value) {
        let place = place(table, key);
        let before = self.items.get(&place);
        let condition = request["ConditionExpression"].as_str().unwrap_or_default();
        let Some(holds) = holds(condition, before, request) else {
            return (
                400,
                json!({ "__type": "com.amazon.coral.validate#ValidationException",
                "message": format!("this stub does not know the condition {condition}") }),
            );
        };
        if !holds {
            self.asked.failed_conditions += 1;
            self.asked.write_units += before.map_or(1.0, |item| units::blocks(item_bytes(item), 1024));
            let mut said = json!({ "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
                "message": "The conditional request failed" });
            if let (Some(item), "ALL_OLD") =
                (before, request["ReturnValuesOnConditionCheckFailure"].as_str().unwrap_or(""))
            {
                said["Item"] = json!(item);
            }
            return (400, said);
        }
        let after = change(before);
        self.asked.write_units += self.indices.write(table, before, &after);
        self.items.insert(place, after);
        (200, json!({}))
    }
}

/// Where an item is: its table, and its key.
fn place(table: &str, key: &Value) -> (String, String) {
    let part = |name: &str| key[name]["S"].as_str().unwrap_or_default().to_owned();
    // `id` is that of an idempotency table.
    let parts = ["session", "event", "turn", "profile", "id"].map(part);
    (table.to_owned(), parts.join("\n"))
}

/// An attribute's name behind its placeholder.
fn named<'a>(name: &'a str, request: &'a Value) -> &'a str {
    request["ExpressionAttributeNames"][name].as_str().unwrap_or(name)
}

/// Whether a condition holds, of those that the functions and Powertools write. `None` if it is another.
fn holds(condition: &str, item: Option<&Item>, request: &Value) -> Option<bool> {
    if condition.is_empty() {
        return Some(true);
    }
    // Every term is looked at, so that none is overlooked that is not known.
    let all = |all: &str| {
        let terms: Option<Vec<bool>> =
            outside(all, " AND ").into_iter().map(|text| term(text, item, request)).collect();
        terms.map(|terms| !terms.contains(&false))
    };
    let any: Option<Vec<bool>> = outside(condition, " OR ").into_iter().map(all).collect();
    any.map(|any| any.contains(&true))
}

fn term(text: &str, item: Option<&Item>, request: &Value) -> Option<bool> {
    let attribute = |name: &str| item.and_then(|item| item.get(named(name, request)));
    let inside = |function: &str| text.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')');
    if let Some(condition) = inside("") {
        return holds(condition, item, request);
    }
    if let Some(name) = inside("attribute_not_exists") {
        return Some(attribute(name).is_none());
    }
    if let Some(name) = inside("attribute_exists") {
        return Some(attribute(name).is_some());
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [name, comparison, value] = words[..] else { return None };
    let (found, value) = (attribute(name), &request["ExpressionAttributeValues"][value]);
    let number = |value: &Value| value["N"].as_str()?.parse::<f64>().ok();
    match comparison {
        "=" => Some(found == Some(value)),
        "<" => Some(found.is_some_and(|found| match (number(found), number(value)) {
            (Some(found), Some(value)) => found < value,
            _ => found["S"].as_str().unwrap_or_default() < value["S"].as_str().unwrap_or_default(),
        })),
        _ => None,
    }
}

/// The parts of a text between separators that are in no brackets.
fn outside<'a>(text: &'a str, separator: &str) -> Vec<&'a str> {
    let (mut parts, mut began, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= began && text[at..].starts_with(separator) => {
                parts.push(&text[began..at]);
                began = at + separator.len();
            }
            _ => {}
        }
    }
    parts.push(&text[began..]);
    parts
}

/// An item after an update: `SET a = :a, b = if_not_exists(b, :b) REMOVE c, d`.
fn updated(mut item: Item, request: &Value) -> Item {
    let expression = request["UpdateExpression"].as_str().unwrap_or_default();
    let (set, remove) = expression.split_once("REMOVE ").unwrap_or((expression, ""));
    let set = set.trim().strip_prefix("SET ").unwrap_or_default();
    // The comma of `if_not_exists(b, :b)` is none between two changes.
    for change in set.replace(", :", "|:").split(", ") {
        let Some((name, value)) = change.split_once(" = ") else { continue };
        let name = named(name, request).to_owned();
        let (keep, value) = match value.split_once('|') {
            Some((_, value)) => (true, value.trim_end_matches(')')),
            None => (false, value),
        };
        if !(keep && item.contains_key(&name)) {
            item.insert(name, request["ExpressionAttributeValues"][value].clone());
        }
    }
    for name in remove.split(", ").filter(|name| !name.is_empty()) {
        item.remove(named(name.trim(), request));
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_hold_as_the_database_has_them_and_an_unknown_one_is_refused() {
        let request = json!({ "ExpressionAttributeNames": { "#id": "id", "#until": "until" },
            "ExpressionAttributeValues": { ":now": { "N": "10" }, ":merged": { "S": "b" } } });
        let item = json!({ "id": { "S": "a" }, "until": { "N": "9" }, "merged": { "S": "a" } });
        let item = item.as_object().unwrap();
        for (condition, there, not_there) in [
            ("attribute_not_exists(#id)", Some(false), Some(true)),
            ("attribute_not_exists(#id) OR #until < :now", Some(true), Some(true)),
            ("attribute_not_exists(#id) OR (#until = :now AND attribute_exists(#id))", Some(false), Some(true)),
            ("merged = :merged", Some(false), Some(false)),
            ("merged < :merged", Some(true), Some(false)),
            ("begins_with(#id, :merged)", None, None),
            ("attribute_not_exists(#id) OR #until >= :now", None, None),
        ] {
            assert_eq!(holds(condition, Some(item), &request), there, "{condition}");
            assert_eq!(holds(condition, None, &request), not_there, "{condition}");
        }
    }
}
