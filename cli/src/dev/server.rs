//! The functions behind their URLs, as a Lambda function URL would call them.

use std::convert::Infallible;
use std::sync::Arc;

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
use tokio::sync::watch;

use super::Apps;
use super::http::is_local;
use crate::endpoints::Endpoints;

/// What a function URL takes. Source: AWS Lambda quotas, "Invocation payload", synchronous: 6 MB.
const MAX_EVENT_BYTES: usize = 6_291_456;

struct Server {
    apps: Apps,
    endpoints: Endpoints,
}

/// Serves functions behind their URLs until `stopped` says so.
pub async fn serve(listener: TcpListener, apps: Apps, endpoints: Endpoints, stopped: watch::Receiver<bool>) {
    let server = Arc::new(Server { apps, endpoints });
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    super::http::serve(listener, service, stopped).await;
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path().to_owned();
        let response = self.route(request, &path).await;
        if matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::PAYLOAD_TOO_LARGE) {
            // Such a request reaches no function, which would log it.
            tracing::warn!(status = response.status().as_u16(), "a request that no function receives");
        }
        response
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
                Some((webhook, app)) => deliver(*webhook, app, request, rest).await,
                None => {
                    let functions: Vec<&String> = self.endpoints.functions.keys().collect();
                    json(StatusCode::NOT_FOUND, &json!({ "error": "no such function", "functions": functions }))
                }
            },
        }
    }
}

fn own(method: &Method, answer: impl FnOnce() -> Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    if method == Method::GET || method == Method::HEAD {
        return answer();
    }
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "only GET is answered here" }));
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET"));
    response
}

/// Calls a function as its URL would: the whole body at once, the path below the function's own.
async fn deliver(webhook: Webhook, app: &App, request: Request<Incoming>, path: &str) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_EVENT_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            // AWS answers this itself, before the function is asked.
            return json(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "message": "Request Too Long" }));
        }
        Err(_) => return json(StatusCode::BAD_REQUEST, &json!({ "message": "the body was cut short" })),
    };
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    match format!("/{path}{query}").parse() {
        Ok(uri) => parts.uri = uri,
        Err(_) => return json(StatusCode::BAD_REQUEST, &json!({ "message": "the URL cannot be read" })),
    }
    let request = Request::from_parts(parts, Body::from(body.to_vec()));
    // Boxed: the SDK's futures are deep, and the compiler counts.
    let response = call(webhook, app, request).boxed().await;
    response.map(|body| Full::new(Bytes::copy_from_slice(body.as_ref())))
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
