//! A function's binary, started as Lambda starts it: environment, Runtime API, function-URL events.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use shared::auth::vocobase;
use shared::{Instant, Provider, Webhook};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::World;

/// The Lambda Runtime API as far as a function needs it: `next` hands out events, `response` takes answers. Source:
/// AWS's page "Using the Lambda runtime API for custom runtimes".
pub struct RuntimeApi {
    /// What `AWS_LAMBDA_RUNTIME_API` says.
    pub address: String,
    events: mpsc::UnboundedSender<Value>,
    answers: mpsc::UnboundedReceiver<(String, Value)>,
}

impl RuntimeApi {
    /// Serves it on loopback, for one function.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (events, waiting) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let waiting = Arc::new(tokio::sync::Mutex::new(waiting));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (waiting, answered) = (Arc::clone(&waiting), answered.clone());
                let serve = service_fn(move |request| {
                    let (waiting, answered) = (Arc::clone(&waiting), answered.clone());
                    async move { Ok::<_, Infallible>(runtime_api(request, &waiting, &answered).await) }
                });
                tokio::spawn(async move {
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve).await);
                });
            }
        });
        Self { address, events, answers }
    }

    /// Invokes the function; what it answered.
    pub async fn invoke(&mut self, event: Value) -> Value {
        self.events.send(event).expect("the function asks for events");
        let (path, answer) = self.answers.recv().await.expect("an answer");
        assert!(path.ends_with("/response"), "{path}: {answer}");
        answer
    }
}

async fn runtime_api(
    request: Request<Incoming>,
    waiting: &tokio::sync::Mutex<mpsc::UnboundedReceiver<Value>>,
    answered: &mpsc::UnboundedSender<(String, Value)>,
) -> Response<Full<Bytes>> {
    if request.method() == Method::GET {
        let Some(event) = waiting.lock().await.recv().await else {
            // There will be no further event, as Lambda has none for an idle instance.
            return std::future::pending().await;
        };
        return Response::builder()
            .header("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
            .header("lambda-runtime-deadline-ms", (Instant::now().unix_seconds() * 1000 + 900_000).to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
            .body(Full::new(Bytes::from(event.to_string())))
            .expect("a response");
    }
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    let _ = answered.send((path, serde_json::from_slice(&body).unwrap_or_default()));
    Response::builder().status(202).body(Full::default()).expect("a response")
}

/// Starts a function.
pub fn start(name: &str, environment: &BTreeMap<String, String>, runtime_api: &str) -> Child {
    spawn(Command::new(crate::function(name)), name, environment, runtime_api)
}

/// The same by a command that comes to run the function's binary.
pub fn spawn(mut by: Command, name: &str, environment: &BTreeMap<String, String>, runtime_api: &str) -> Child {
    by.env_clear()
        .envs(environment)
        .env("AWS_LAMBDA_RUNTIME_API", runtime_api)
        .env("AWS_LAMBDA_FUNCTION_NAME", name)
        .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the function's binary runs")
}

/// A delivery as its platform signs it, in a function-URL event.
pub fn event(world: &World, webhook: Webhook, body: &str, base64: bool) -> Value {
    let query = world.url(webhook).split_once('?').map(|(_, query)| query).unwrap_or_default();
    let mut headers = json!({ "content-type": "application/json", "host": "abc.lambda-url.us-east-1.on.aws" });
    if webhook.provider() == Provider::Vocobase {
        let (timestamp, signature) = world.sign(body.as_bytes(), Instant::now());
        headers[vocobase::TIMESTAMP] = json!(timestamp);
        headers[vocobase::SIGNATURE] = json!(signature);
    }
    let sent = if base64 { crate::base64(body.as_bytes()) } else { body.to_owned() };
    function_url_event(query, &headers, &sent, base64)
}

/// A function-URL event, payload version 2.0. Source: AWS's page "Invoking Lambda function URLs".
pub fn function_url_event(query: &str, headers: &Value, body: &str, base64: bool) -> Value {
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": query, "headers": headers,
        "requestContext": { "accountId": "anonymous", "apiId": "abc", "domainName": "abc.lambda-url.us-east-1.on.aws",
            "domainPrefix": "abc", "requestId": "r", "routeKey": "$default", "stage": "$default",
            "time": "22/Nov/2026:00:00:00 +0000", "timeEpoch": 1_795_305_600_000_u64,
            "http": { "method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7", "userAgent": "test" } },
        "body": body, "isBase64Encoded": base64,
    })
}

/// What a function finds in its environment, secrets included.
pub fn environment(world: &World) -> BTreeMap<String, String> {
    let mut environment = world.stores().environment();
    environment.insert("VOCOBASE_SECRETS".to_owned(), cli::dev::DEFAULT_VOCOBASE_SECRETS.to_owned());
    environment.insert("EXOTEL_TOKEN_SECRETS".to_owned(), cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS.to_owned());
    environment.insert("LOG_LEVEL".to_owned(), "debug".to_owned());
    environment.insert("STACK_NAME".to_owned(), "hookswitch".to_owned());
    environment
}
