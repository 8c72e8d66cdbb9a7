//! A delivery that nobody sent and nothing keeps, handled while an instance starts.
//!
//! The first time is slow for any code: its pages are not mapped, its tables not built. Lambda lets an instance start at
//! full speed and then, at 128 MB, gives it 1.4 ms of a core in each 20: what a first delivery has left to do must fit
//! into those, or its caller waits for the next. `docs/performance.md` says what this saves.

use aws_sdk_dynamodb::config::{HttpClient, RuntimeComponents, SharedHttpClient};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use lambda_http::http::{StatusCode, Uri, header};
use lambda_http::{Body, Request, Response};
use serde_json::{Value, json};
use tracing::instrument::WithSubscriber;

use super::App;
use crate::Instant;
use crate::auth::Secret;
use crate::auth::exotel::Tokens;
use crate::auth::vocobase::{self, Signatures};
use crate::config::Config;
use crate::logging::unheard;
use crate::session::{Provider, Webhook};
use crate::storage::Clients;

/// Signs what only the rehearsing application takes.
const SECRET: &str = "rehearsal";

impl App {
    /// Has `handle` answer a delivery by an application like this one, whose stores take everything and keep nothing.
    /// Nothing is counted, and what is logged goes nowhere.
    pub(super) async fn rehearse(
        &self,
        webhook: Webhook,
        handle: impl AsyncFnOnce(&Self, Request) -> Response<Body>,
    ) -> StatusCode {
        let config = Config {
            tokens: Tokens { secrets: vec![("r".to_owned(), Secret::new(SECRET))], session_tokens_only: false },
            signatures: Signatures { secrets: vec![Secret::new(SECRET)], ..self.config.signatures },
            secret_arn: None,
            ..self.config.clone()
        };
        let stage = Self::new(webhook, config, nowhere(self.store.clients()), self.clock.clone());
        let request = request(&stage, webhook, (self.clock)());
        let answer = Box::pin(handle(&stage, request));
        answer.with_subscriber(unheard()).await.status()
    }
}

fn request(stage: &App, webhook: Webhook, now: Instant) -> Request {
    let body = body(webhook, now).to_string();
    let mut request = Request::default();
    *request.method_mut() = lambda_http::http::Method::POST;
    match webhook.provider() {
        Provider::Exotel => {
            let token = stage.config.tokens.function_token(webhook).unwrap_or_default();
            *request.uri_mut() =
                format!("https://rehearsal.invalid/?token={token}").parse().unwrap_or(Uri::from_static("/"));
        }
        Provider::Vocobase => {
            let timestamp = now.to_string();
            let signature = vocobase::sign(&Secret::new(SECRET), &timestamp, body.as_bytes());
            for (name, value) in [(vocobase::TIMESTAMP, timestamp), (vocobase::SIGNATURE, signature)] {
                if let Ok(value) = header::HeaderValue::try_from(value) {
                    request.headers_mut().insert(name, value);
                }
            }
        }
    }
    *request.body_mut() = Body::Text(body);
    request
}

/// As full as the platforms' documented examples are. Numbers are in E.164, as they mostly come: others need tables of
/// 7 MB, which stay unread until then.
fn body(webhook: Webhook, now: Instant) -> Value {
    const ID: &str = "00000000-0000-0000-0000-000000000000";
    let words = "Words that somebody might say, so that there is something to pack.";
    match webhook.provider() {
        Provider::Exotel => json!({
            "session_id": ID, "conversation_id": ID, "start_time": now, "end_time": now, "landing_number": "+918000000000",
            "external_id": ID, "session_state": "session_in_progress", "trigger_reason": "timer",
            "contact_uri": "+918000000001", "network_type": "pstn", "account_id": "rehearsal", "bot_id": ID,
            "bot_name": "rehearsal", "metadata": { "call_sid": ID }, "custom_parameters": { "rehearsal": "true" },
            "events": [
                { "event_type": "sentiment", "event_id": "1", "event_data": { "value": "neutral", "timestamp": now } },
                { "event_type": "transcript", "event_id": "2", "event_data": { "transcripts": [{ "sequence": 1,
                    "status": "completed", "transcript_segments": [{ "speaker": "assistant", "text": words,
                        "start_timestamp": now, "end_timestamp": now }] }] } },
            ],
        }),
        Provider::Vocobase => json!({
            "event": "session.completed", "timestamp": now, "data": { "session_id": ID, "agent_id": ID,
                "agent_name": "rehearsal", "duration_seconds": 1, "credits_used": 0.1,
                "transcript": vec![json!({ "role": "bot", "content": words, "timestamp": now, "latency_ms": 1 }); 5],
                "recording_url": "https://rehearsal.invalid/r.wav?Expires=1", "latency": { "avg_ms": 1 },
                "call": { "call_id": ID, "from_number": "+14150000000", "to_number": "+918000000001",
                    "direction": "outbound", "status": "completed" } } }),
    }
}

/// The same clients, whose requests end before the network and are answered with nothing.
fn nowhere(clients: &Clients) -> Clients {
    let http = SharedHttpClient::new(Nowhere);
    Clients {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(
            clients.dynamodb.config().to_builder().http_client(http.clone()).build(),
        ),
        s3: aws_sdk_s3::Client::from_conf(clients.s3.config().to_builder().http_client(http).build()),
    }
}

#[derive(Debug)]
struct Nowhere;

impl HttpClient for Nowhere {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(Self)
    }
}

impl HttpConnector for Nowhere {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        HttpConnectorFuture::ready(Ok(HttpResponse::new(StatusCode::OK.into(), SdkBody::from("{}"))))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::webhook::{Nothing, receive};

    #[tokio::test]
    async fn every_webhooks_rehearsal_goes_all_the_way_and_asks_no_store() {
        let lookup = |name: &str| match name {
            // Whoever asks here waits for an answer that does not come.
            "AWS_ENDPOINT_URL" => Some("http://127.0.0.1:1".to_owned()),
            "AWS_REGION" => Some("us-east-1".to_owned()),
            "VOCOBASE_SECRET_ARN" | "EXOTEL_TOKEN_SECRET_ARN" => Some("arn".to_owned()),
            "EXOTEL_SESSION_TOKENS_ONLY" => Some("true".to_owned()),
            "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("key".to_owned()),
            name if name.ends_with("_TABLE") || name.ends_with("_BUCKET") => Some(name.to_lowercase()),
            _ => None,
        };
        for webhook in Webhook::ALL {
            let app = App::from_environment(webhook, &lookup, Arc::new(Instant::now)).unwrap();
            let outcome = async |stage: &App, request: Request| {
                receive(stage, webhook, request, async |received| {
                    assert!(received.is_some(), "{webhook:?}: it cannot be read");
                    Nothing {}
                })
                .await
            };
            assert_eq!(app.rehearse(webhook, outcome).await, 200, "{webhook:?}");
        }
    }
}
