//! Between the publisher and the local bus: a network and a bus that now and then fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use event_publisher::Publisher;
use event_publisher::bus::Bus;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use shared::Clock;
use shared::config::Storage;

use crate::World;

/// What becomes of a request to the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mishap {
    /// None of it arrives, and it is answered with this status and error.
    Failed(u16, &'static str),
    /// These of its entries do not arrive, and are answered with this error.
    Partial(Vec<usize>, &'static str),
    /// It arrives, and its answer does not.
    Lost,
}

/// A bus with mishaps.
#[derive(Clone)]
pub struct FaultyBus {
    url: String,
    asked: Arc<AtomicUsize>,
}

type Script = dyn Fn(usize, &[Value]) -> Option<Mishap> + Send + Sync;

impl FaultyBus {
    /// In front of the world's own. `script` says what becomes of the n-th request, counted from 0.
    pub async fn start(
        world: &World,
        script: impl Fn(usize, &[Value]) -> Option<Mishap> + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (behind, http) = (world.stores().eventbridge.clone(), world.http.clone());
        let (asked, script): (_, Arc<Script>) = (Arc::<AtomicUsize>::default(), Arc::new(script));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (behind, http) = (behind.clone(), http.clone());
                let (script, counted) = (Arc::clone(&script), Arc::clone(&counted));
                let answer = service_fn(move |request| {
                    let nth = counted.fetch_add(1, Ordering::SeqCst);
                    let (behind, http, script) = (behind.clone(), http.clone(), Arc::clone(&script));
                    async move { pass_on(&http, &behind, &*script, nth, request).await }
                });
                tokio::spawn(async move {
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), answer).await);
                });
            }
        });
        Self { url, asked }
    }

    /// A publisher that publishes there.
    pub fn publisher(&self, world: &World, clock: Clock) -> Publisher {
        publisher(world, &self.url, clock)
    }

    /// How many requests came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A publisher of a world that publishes to the bus at that URL.
pub fn publisher(world: &World, url: &str, clock: Clock) -> Publisher {
    let environment = world.environment();
    let lookup = |name: &str| match name {
        "AWS_ENDPOINT_URL_EVENTBRIDGE" => Some(url.to_owned()),
        name => environment.get(name).cloned(),
    };
    let storage = Storage::read(&lookup).expect("a configuration");
    let bus = Bus::connect(&lookup).expect("a bus");
    Publisher::new(storage, world.clients.clone(), bus, "hookswitch", clock)
}

async fn pass_on(
    http: &reqwest::Client,
    behind: &str,
    script: &Script,
    nth: usize,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, &'static str> {
    let target = request.headers().get("x-amz-target").cloned();
    let body = request.into_body().collect().await.map_err(|_| "a body that breaks off")?.to_bytes();
    let mut put: Value = serde_json::from_slice(&body).map_err(|_| "no JSON")?;
    let Value::Array(entries) = put["Entries"].take() else { return Err("no entries") };
    let mishap = script(nth, &entries);
    if let Some(Mishap::Failed(status, code)) = mishap {
        return Ok(response(status, &json!({ "__type": code, "message": "as scripted" })));
    }
    let left_out = |index: usize| matches!(&mishap, Some(Mishap::Partial(which, _)) if which.contains(&index));
    let passed: Vec<&Value> =
        entries.iter().enumerate().filter(|(index, _)| !left_out(*index)).map(|(_, entry)| entry).collect();
    let mut results = Vec::new();
    if !passed.is_empty() {
        let request = http.post(behind).header("x-amz-target", target.ok_or("no target")?);
        let answer = crate::answer(request.body(json!({ "Entries": passed }).to_string())).await;
        let Value::Array(answered) = answer.json["Entries"].clone() else {
            return Ok(response(answer.status, &answer.json));
        };
        results = answered;
    }
    if mishap == Some(Mishap::Lost) {
        return Err("the answer is lost");
    }
    let mut results = results.into_iter();
    let merged: Vec<Value> = (0..entries.len())
        .map(|index| match &mishap {
            Some(Mishap::Partial(_, code)) if left_out(index) => {
                json!({ "ErrorCode": code, "ErrorMessage": "scripted" })
            }
            _ => results.next().expect("a result for each entry"),
        })
        .collect();
    let failed = merged.iter().filter(|result| result.get("ErrorCode").is_some()).count();
    Ok(response(200, &json!({ "FailedEntryCount": failed, "Entries": merged })))
}

fn response(status: u16, body: &Value) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
    response.body(Full::new(Bytes::from(body.to_string()))).expect("a response")
}
