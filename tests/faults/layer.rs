//! A layer below the SDK and above the network: every attempt of every request to the stores passes it, the SDK's own
//! repetitions included. A plan says what happens to each, and a log says what did: whether a write was applied is
//! known here, whatever its sender was told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use shared::storage::Clients;
use tokio::runtime::Handle;

use super::When;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// The store says that it is asked too much.
    Throttled,
    /// The store says that it failed.
    Failed,
    /// The answer takes so long.
    Slow(Duration),
    /// There is no answer, and the connection stays.
    Unanswered(When),
    /// The connection breaks.
    Reset(When),
    /// A read of many items answers for so many keys at most and leaves the others to be asked for again, as DynamoDB
    /// does beyond 16 MB, or when it is busy. Other requests are not touched by it.
    Partial(usize),
}

impl Mishap {
    /// A word for counts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Failed => "failed (500)",
            Self::Slow(_) => "slow",
            Self::Unanswered(When::Before) => "unanswered, not applied",
            Self::Unanswered(When::After) => "unanswered, applied",
            Self::Reset(When::Before) => "reset, not applied",
            Self::Reset(When::After) => "reset, applied",
            Self::Partial(_) => "answered in part",
        }
    }
}

/// One attempt of one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// `PutItem`, …; of the bucket its method: `PUT`, ….
    pub operation: String,
    /// The table's physical name; of the bucket nothing.
    pub table: String,
    /// The item's partition key, or the object's.
    pub key: String,
    /// The item's sort key, where it has one.
    pub sort: String,
    /// How often this was asked before, by whomever.
    pub nth: u32,
}

impl Request {
    fn read(request: &HttpRequest) -> Self {
        let Some(operation) = request.headers().get("x-amz-target").and_then(|target| target.split('.').nth(1)) else {
            let path = request.uri().split('?').next().unwrap_or_default();
            let key = path.splitn(5, '/').nth(4).unwrap_or_default();
            return Self {
                operation: request.method().to_owned(),
                table: String::new(),
                key: key.to_owned(),
                sort: String::new(),
                nth: 0,
            };
        };
        let body = body(request);
        let mut this = Self {
            operation: operation.to_owned(),
            table: body["TableName"].as_str().unwrap_or_default().to_owned(),
            key: String::new(),
            sort: String::new(),
            nth: 0,
        };
        let text = |value: &Value| value["S"].as_str().unwrap_or_default().to_owned();
        if let Some((table, wanted)) = body["RequestItems"].as_object().and_then(|tables| tables.iter().next()) {
            this.table.clone_from(table);
            let first = wanted["Keys"][0].as_object().and_then(|key| key.values().next());
            this.key = first.map(text).unwrap_or_default();
            return this;
        }
        let item = if body["Key"].is_object() { &body["Key"] } else { &body["Item"] };
        this.key = text(&item["session"]);
        this.sort = if item["event"].is_object() { text(&item["event"]) } else { text(&item["turn"]) };
        this
    }

    /// A number that this attempt, and no other, has in the world of that seed.
    pub fn chance(&self, seed: u64) -> u64 {
        let mut digest = Sha256::new_with_prefix(seed.to_be_bytes());
        for part in [&self.operation, &self.table, &self.key, &self.sort] {
            digest.update(part);
            digest.update([0]);
        }
        digest.update(self.nth.to_be_bytes());
        let digest = digest.finalize();
        u64::from_be_bytes(std::array::from_fn(|at| digest[at]))
    }
}

/// What became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Which.
    pub request: Request,
    /// What was done to it.
    pub mishap: Option<Mishap>,
    /// Whether the store itself answered 2xx, though the answer may have been lost: it did as it was asked.
    pub applied: bool,
}

type Plan = dyn Fn(&Request) -> Option<Mishap> + Send + Sync;

/// The layer. Clones are the same one.
#[derive(Clone)]
pub struct Layer(Arc<Held>);

struct Held {
    plan: Box<Plan>,
    /// Where the stores are talked to. Without one it is where the SDK runs.
    elsewhere: Option<Handle>,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    entries: Vec<Entry>,
    asked: HashMap<Request, u32>,
}

impl std::fmt::Debug for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Layer")
    }
}

impl Layer {
    /// A layer with a plan.
    pub fn new(plan: impl Fn(&Request) -> Option<Mishap> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Held { plan: Box::new(plan), elsewhere: None, log: Mutex::default() }))
    }

    /// The same for a runtime whose clock is paused: requests are made on another one, and the paused one stands still
    /// meanwhile. So an exchange takes no time, nothing else happens during it, and runs repeat exactly.
    pub fn with_the_network_in(
        handle: Handle,
        plan: impl Fn(&Request) -> Option<Mishap> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Held { plan: Box::new(plan), elsewhere: Some(handle), log: Mutex::default() }))
    }

    /// The same clients with this layer in them, and with a share of retries that is nobody else's: it is kept by name.
    pub fn in_clients(&self, clients: &Clients, name: &str) -> Clients {
        // Waits that nothing but the plan decides.
        let retries = |config: Option<&RetryConfig>| {
            config.cloned().unwrap_or_else(RetryConfig::standard).with_use_static_exponential_base(true)
        };
        let between = |http: Option<SharedHttpClient>| Between {
            layer: self.clone(),
            inner: http.expect("the clients have an HTTP client"),
        };
        let partition = RetryPartition::new(name.to_owned());
        let (dynamodb, s3) = (clients.dynamodb.config(), clients.s3.config());
        let dynamodb = dynamodb
            .to_builder()
            .retry_config(retries(dynamodb.retry_config()))
            .retry_partition(partition.clone())
            .http_client(between(dynamodb.http_client()));
        let s3 = s3
            .to_builder()
            .retry_config(retries(s3.retry_config()))
            .retry_partition(partition)
            .http_client(between(s3.http_client()));
        Clients {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
        }
    }

    /// How many attempts there were so far.
    pub fn len(&self) -> usize {
        self.held().entries.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All attempts so far, in the order in which they ended. One that its sender gave up before it reached the store is
    /// not among them.
    pub fn log(&self) -> Vec<Entry> {
        self.held().entries.clone()
    }

    fn held(&self) -> MutexGuard<'_, Log> {
        self.0.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, request: &Request, mishap: Option<Mishap>, applied: bool) {
        self.held().entries.push(Entry { request: request.clone(), mishap, applied });
    }

    async fn pass(self, inner: SharedHttpConnector, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let mut asked = Request::read(&request);
        asked.nth = {
            let mut log = self.held();
            let count = log.asked.entry(asked.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let mishap = (self.0.plan)(&asked);
        let mishap = mishap.filter(|it| !matches!(it, Mishap::Partial(_)) || asked.operation == "BatchGetItem");
        match mishap {
            Some(Mishap::Throttled) => {
                self.note(&asked, mishap, false);
                return Ok(if asked.table.is_empty() {
                    answer(503, "<Error><Code>SlowDown</Code></Error>".to_owned())
                } else if asked.nth.is_multiple_of(2) {
                    error(400, "ProvisionedThroughputExceededException")
                } else {
                    error(400, "ThrottlingException")
                });
            }
            Some(Mishap::Failed) => {
                self.note(&asked, mishap, false);
                return Ok(if asked.table.is_empty() {
                    answer(500, "<Error><Code>InternalError</Code></Error>".to_owned())
                } else {
                    error(500, "InternalServerError")
                });
            }
            Some(Mishap::Reset(When::Before)) => {
                self.note(&asked, mishap, false);
                return Err(reset());
            }
            Some(Mishap::Unanswered(When::Before)) => {
                self.note(&asked, mishap, false);
                return std::future::pending().await;
            }
            Some(Mishap::Slow(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        let (request, left) = match mishap {
            Some(Mishap::Partial(0)) => {
                self.note(&asked, mishap, false);
                return Ok(answer(
                    200,
                    json!({ "Responses": {}, "UnprocessedKeys": body(&request)["RequestItems"] }).to_string(),
                ));
            }
            Some(Mishap::Partial(keys)) => part(request, keys),
            _ => (request, None),
        };
        let answered = self.exchange(inner, request).await;
        let applied = answered.as_ref().is_ok_and(|response| response.status().is_success());
        self.note(&asked, mishap, applied);
        match mishap {
            Some(Mishap::Reset(When::After)) => Err(reset()),
            Some(Mishap::Unanswered(When::After)) => std::future::pending().await,
            _ => match left {
                Some(left) => Ok(with_unprocessed(&whole(answered?).await?, left)),
                None => answered,
            },
        }
    }

    async fn exchange(&self, inner: SharedHttpConnector, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let Some(elsewhere) = &self.0.elsewhere else { return inner.call(request).await };
        let (answered, answer) = std::sync::mpsc::channel();
        elsewhere.spawn(async move {
            let response = match inner.call(request).await {
                // To the end, for the rest of it would come while the other clock runs.
                Ok(response) => whole(response).await,
                Err(error) => Err(error),
            };
            // Whoever waited may be gone.
            drop(answered.send(response));
        });
        answer.recv().unwrap_or_else(|_| Err(reset()))
    }
}

/// An HTTP client with the layer in it.
#[derive(Clone, Debug)]
struct Between {
    layer: Layer,
    inner: SharedHttpClient,
}

impl HttpClient for Between {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(Connection { layer: self.layer.clone(), inner })
    }
}

#[derive(Debug)]
struct Connection {
    layer: Layer,
    inner: SharedHttpConnector,
}

impl HttpConnector for Connection {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::new(self.layer.clone().pass(self.inner.clone(), request))
    }
}

fn reset() -> ConnectorError {
    ConnectorError::io("the connection was reset".into())
}

fn answer(status: u16, body: String) -> HttpResponse {
    HttpResponse::new(status.try_into().expect("a status"), SdkBody::from(body))
}

fn error(status: u16, code: &str) -> HttpResponse {
    let kind = format!("com.amazonaws.dynamodb.v20120810#{code}");
    answer(status, json!({ "__type": kind, "message": "as planned" }).to_string())
}

async fn whole(response: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = ByteStream::new(response.into_body()).collect().await.map_err(|_| reset())?;
    let mut response = HttpResponse::new(status, SdkBody::from(body.into_bytes()));
    *response.headers_mut() = headers;
    Ok(response)
}

/// A request for the first keys of a read, and what is left of it.
fn part(mut request: HttpRequest, keys: usize) -> (HttpRequest, Option<Value>) {
    let (mut asked, mut left) = (body(&request), json!({}));
    // One table is all that this project reads at once.
    for (table, wanted) in asked["RequestItems"].as_object_mut().into_iter().flatten() {
        let Some(all) = wanted["Keys"].as_array_mut().filter(|all| all.len() > keys) else { continue };
        let rest = all.split_off(keys);
        left[table] = wanted.clone();
        left[table]["Keys"] = Value::Array(rest);
    }
    let asked = asked.to_string();
    request.headers_mut().insert("content-length", asked.len().to_string());
    *request.body_mut() = SdkBody::from(asked);
    (request, Some(left))
}

fn body(request: &HttpRequest) -> Value {
    serde_json::from_slice(request.body().bytes().unwrap_or_default()).unwrap_or_default()
}

fn with_unprocessed(response: &HttpResponse, left: Value) -> HttpResponse {
    let mut body: Value = serde_json::from_slice(response.body().bytes().unwrap_or_default()).unwrap_or_default();
    body["UnprocessedKeys"] = left;
    answer(response.status().as_u16(), body.to_string())
}
