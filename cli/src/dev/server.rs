//! The functions behind their URLs, as a Lambda function URL would call them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use lambda_http::Body;
use serde_json::json;
use shared::Webhook;
use shared::webhook::App;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::Apps;
use super::http::{READ_TIME, is_local};
use crate::console::{self, Console};
use crate::endpoints::Endpoints;

/// What a function URL takes. Source: AWS Lambda quotas, "Invocation payload", synchronous: 6 MB.
const MAX_EVENT_BYTES: usize = 6_291_456;

/// Deliveries that functions work on at once; a further one is answered 503. More would be no faster, as the embedded
/// database writes one thing at a time; so many are answered within the deadline where only 20 a second can be stored.
pub const DELIVERIES: usize = 64;
/// Connections at once, and so bodies in memory.
pub const CONNECTIONS: usize = 256;

struct Server {
    apps: Apps,
    console: Option<Console>,
    endpoints: Endpoints,
    room: Semaphore,
    /// Deliveries answered 503 since there was room.
    turned_away: AtomicUsize,
}

/// Serves functions behind their URLs, and the console, until `stopped` says so.
pub async fn serve(
    listener: TcpListener,
    apps: Apps,
    console: Option<Console>,
    endpoints: Endpoints,
    stopped: watch::Receiver<bool>,
) {
    let (room, turned_away) = (Semaphore::new(DELIVERIES), AtomicUsize::new(0));
    let server = Arc::new(Server { apps, console, endpoints, room, turned_away });
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    super::http::serve(listener, CONNECTIONS, service, stopped).await;
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<console::Body> {
        let path = request.uri().path().to_owned();
        if let Some(console) = self.console.as_ref().filter(|_| path == "/console" || path.starts_with(console::PATH)) {
            // Boxed for the same reason as a delivery.
            return console.answer(request).boxed().await;
        }
        let response = self.route(request, &path).await;
        if matches!(
            response.status(),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT
        ) {
            // Such a request reaches no function, which would log it.
            tracing::warn!(status = response.status().as_u16(), "a request that no function receives");
        }
        response.map(|body| body.map_err(|never| match never {}).boxed())
    }

    async fn route(&self, request: Request<Incoming>, path: &str) -> Response<Full<Bytes>> {
        let (first, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
        match first {
            "health" => own(request.method(), || json(StatusCode::OK, &json!({ "status": "ok" }))),
            // It tells secrets: a page that makes a browser resolve its own name to this machine must not read it.
            "endpoints" if !is_local(&request) => {
                json(StatusCode::FORBIDDEN, &json!({ "error": "ask as 127.0.0.1 or localhost" }))
            }
            "endpoints" => own(request.method(), || json(StatusCode::OK, &json!(self.endpoints))),
            name => match name.parse::<Webhook>().ok().and_then(|webhook| self.apps.get_key_value(&webhook)) {
                Some((webhook, app)) => self.deliver(*webhook, app, request, rest).await,
                None => {
                    let functions: Vec<&String> = self.endpoints.functions.keys().collect();
                    json(StatusCode::NOT_FOUND, &json!({ "error": "no such function", "functions": functions }))
                }
            },
        }
    }

    /// Calls a function as its URL would: the whole body at once, the path below the function's own.
    async fn deliver(
        &self,
        webhook: Webhook,
        app: &App,
        request: Request<Incoming>,
        path: &str,
    ) -> Response<Full<Bytes>> {
        let (mut parts, body) = request.into_parts();
        let body = match timeout(READ_TIME, Limited::new(body, MAX_EVENT_BYTES).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                // AWS answers this itself, before the function is asked.
                return json(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "message": "Request Too Long" }));
            }
            Ok(Err(_)) => return json(StatusCode::BAD_REQUEST, &json!({ "message": "the body was cut short" })),
            Err(_) => return closing(json(StatusCode::REQUEST_TIMEOUT, &json!({ "message": "the body is too slow" }))),
        };
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        match format!("/{path}{query}").parse() {
            Ok(uri) => parts.uri = uri,
            Err(_) => return json(StatusCode::BAD_REQUEST, &json!({ "message": "the URL cannot be read" })),
        }
        // Only now, so that who sends slowly takes nobody's place.
        let Ok(place) = self.room.try_acquire() else { return self.turn_away() };
        let request = Request::from_parts(parts, Body::from(body.to_vec()));
        // Boxed: the SDK's futures are deep, and the compiler counts.
        let response = call(webhook, app, request).boxed().await;
        drop(place);
        if self.room.available_permits() > DELIVERIES / 2 {
            let turned_away = self.turned_away.swap(0, Ordering::Relaxed);
            if turned_away > 0 {
                tracing::warn!(turned_away, "there is room for deliveries again");
            }
        }
        full(response)
    }

    /// One line when it begins, and one with the number when it is over: a flood must not be one of the log, too.
    fn turn_away(&self) -> Response<Full<Bytes>> {
        if self.turned_away.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(at_once = DELIVERIES, "too many deliveries at once: further ones are answered 503");
        }
        // Its connection may be the one that another delivery waits for.
        closing(full(shared::webhook::busy()))
    }
}

fn full(response: Response<Body>) -> Response<Full<Bytes>> {
    response.map(|body| Full::new(Bytes::copy_from_slice(body.as_ref())))
}

fn closing(mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}

fn own(method: &Method, answer: impl FnOnce() -> Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if method == Method::GET || method == Method::HEAD {
        return answer();
    }
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only GET is answered here" }));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    response
}

/// Calls the function that receives `webhook`.
pub async fn call(webhook: Webhook, app: &App, request: lambda_http::Request) -> Response<Body> {
    match webhook {
        Webhook::SessionStart => session_start::handle(app, request).await,
        Webhook::SessionEnd => session_end::handle(app, request).await,
        Webhook::PreAgentTransfer => pre_agent_transfer::handle(app, request).await,
        Webhook::InsightsEvents => insights_events::handle(app, request).await,
        Webhook::TranscriptEvents => transcript_events::handle(app, request).await,
        Webhook::SessionCompleted => session_completed::handle(app, request).await,
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
