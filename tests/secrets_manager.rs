//! AWS Secrets Manager as far as a function needs it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The secret's ARN.
pub const ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:s-AbCdEf";

/// Secrets Manager as far as a function needs it: one secret, or a fault. Source: AWS's page on `GetSecretValue`.
#[derive(Clone)]
pub struct SecretsManager {
    /// Its endpoint.
    pub url: String,
    value: Arc<Mutex<Result<String, u16>>>,
    reads: Arc<AtomicUsize>,
    /// What each answer waits for.
    gate: Arc<Mutex<Option<watch::Receiver<bool>>>>,
}

impl SecretsManager {
    /// Holds `value`; an empty one is a secret that was never set.
    pub async fn holding(value: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let this = Self {
            url,
            value: Arc::new(Mutex::new(Ok(value.to_owned()))),
            reads: Arc::default(),
            gate: Arc::default(),
        };
        let served = this.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let served = served.clone();
                let serve = service_fn(move |request| {
                    let served = served.clone();
                    async move { Ok::<_, Infallible>(served.answer(request).await) }
                });
                tokio::spawn(async move {
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve).await);
                });
            }
        });
        this
    }

    /// It answers only while this is so.
    #[must_use]
    pub fn only_while(self, gate: watch::Receiver<bool>) -> Self {
        *self.gate.lock().expect("not poisoned") = Some(gate);
        self
    }

    /// From now on it holds this.
    pub fn hold(&self, value: &str) {
        *self.value.lock().expect("not poisoned") = Ok(value.to_owned());
    }

    /// From now on it answers this status.
    pub fn fail(&self, status: u16) {
        *self.value.lock().expect("not poisoned") = Err(status);
    }

    /// How often the secret was asked for, attempts that failed included.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        assert_eq!(request.headers()["x-amz-target"], "secretsmanager.GetSecretValue");
        let asked = request.into_body().collect().await.expect("a body").to_bytes();
        let asked: Value = serde_json::from_slice(&asked).expect("JSON");
        assert_eq!(asked["SecretId"], ARN);
        self.reads.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.lock().expect("not poisoned").clone();
        if let Some(mut gate) = gate {
            gate.wait_for(|open| *open).await.expect("the test holds the other end");
        }
        let held = self.value.lock().expect("not poisoned").clone();
        let (status, body) = match held {
            Err(status) => (status, json!({ "__type": "AccessDeniedException", "message": "no" })),
            Ok(value) if value.is_empty() => (400, json!({ "__type": "ResourceNotFoundException", "message": "no" })),
            Ok(value) => (200, json!({ "ARN": ARN, "Name": "s", "VersionId": "v", "SecretString": value })),
        };
        let body = Full::new(Bytes::from(body.to_string()));
        Response::builder().status(status).body(body).expect("a response")
    }
}
