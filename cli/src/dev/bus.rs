//! The local event bus: what EventBridge's `PutEvents` is to the publisher. Source: EventBridge API Reference,
//! "`PutEvents`"; the protocol is AWS JSON 1.1.
//!
//! What it takes it prints, or posts to a URL, or both. It keeps nothing.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::http::{UNBOUNDED, is_foreign};

/// What a request may be: 256 KB of events, escaped.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Before each further attempt to post an event.
const WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// Events that wait to be posted; further ones are not taken, and so come again.
const MOST_WAITING: usize = 1000;

/// Where events go.
#[derive(Clone, Debug, Default)]
pub struct Events {
    /// Each event as one line of JSON.
    pub heard: Option<mpsc::UnboundedSender<String>>,
    /// Each event is posted there, one after another.
    pub to: Option<url::Url>,
}

/// Takes events until it is time to stop.
pub(super) async fn serve(
    listener: TcpListener,
    events: Events,
    http: reqwest::Client,
    stopped: watch::Receiver<bool>,
) {
    let (waiting, posts) = mpsc::channel(MOST_WAITING);
    let post = events.to.clone().map(|to| post_all(http, to, posts));
    let bus = Bus { heard: events.heard, waiting: post.is_some().then_some(waiting) };
    let service = service_fn(move |request| {
        let bus = bus.clone();
        async move { Ok::<_, Infallible>(bus.answer(request).await) }
    });
    let posting = async {
        if let Some(post) = post {
            post.await;
        }
    };
    // What is posted ends when nobody can put events any more.
    futures_util::future::join(super::http::serve(listener, UNBOUNDED, service, stopped), posting).await;
}

#[derive(Clone)]
struct Bus {
    heard: Option<mpsc::UnboundedSender<String>>,
    waiting: Option<mpsc::Sender<String>>,
}

#[derive(Deserialize)]
struct PutEvents {
    #[serde(rename = "Entries")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Detail", default)]
    detail: String,
}

impl Bus {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if is_foreign(&request) {
            return failure(StatusCode::FORBIDDEN, "AccessDeniedException");
        }
        if request.headers().get("x-amz-target").is_none_or(|target| target != "AWSEvents.PutEvents") {
            return failure(StatusCode::BAD_REQUEST, "UnknownOperationException");
        }
        let body = Limited::new(request.into_body(), MAX_BYTES).collect().await;
        let put = body.ok().and_then(|body| serde_json::from_slice::<PutEvents>(&body.to_bytes()).ok());
        let Some(put) = put else { return failure(StatusCode::BAD_REQUEST, "ValidationException") };
        let results: Vec<Value> = put.entries.into_iter().map(|entry| self.take(entry.detail)).collect();
        let failed = results.iter().filter(|result| result.get("ErrorCode").is_some()).count();
        let answer = json!({ "FailedEntryCount": failed, "Entries": results });
        response(StatusCode::OK, &answer)
    }

    fn take(&self, event: String) -> Value {
        if !serde_json::from_str::<Value>(&event).is_ok_and(|event| event.is_object()) {
            return json!({ "ErrorCode": "MalformedDetail" });
        }
        if let Some(waiting) = &self.waiting
            && waiting.try_send(event.clone()).is_err()
        {
            return json!({ "ErrorCode": "ThrottlingException" });
        }
        if let Some(heard) = &self.heard {
            // That nobody listens any more is no reason to fail.
            let _ = heard.send(event);
        }
        json!({ "EventId": format!("{:032x}", rand::random::<u128>()) })
    }
}

/// Posts one event after another, each again if it is not answered 2xx.
async fn post_all(http: reqwest::Client, to: url::Url, mut posts: mpsc::Receiver<String>) {
    while let Some(event) = posts.recv().await {
        for wait in WAITS.into_iter().map(Some).chain([None]) {
            let request = http.post(to.clone()).header(header::CONTENT_TYPE, "application/cloudevents+json");
            let answer = request.body(event.clone()).send().await;
            let why = match answer {
                Ok(answer) if answer.status().is_success() => break,
                Ok(answer) => answer.status().as_u16().to_string(),
                Err(_) => "no answer".to_owned(),
            };
            match wait {
                Some(wait) => sleep(wait).await,
                None => {
                    let event: Value = serde_json::from_str(&event).unwrap_or_default();
                    let (id, kind) = (event["id"].as_str(), event["type"].as_str());
                    tracing::error!(id, kind, why, "an event could not be posted and is given up");
                }
            }
        }
    }
}

fn failure(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    response(status, &json!({ "__type": code }))
}

fn response(status: StatusCode, answer: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    *response.status_mut() = status;
    let json = header::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
