//! Any request to any webhook's function, over stores that answer as the input says: the answer is always a valid
//! envelope, nothing is stored for who has not proved himself, and 200 means that every write was acknowledged.
//!
//! Without a network: a connector of the SDK's answers in place of the stores. Time stands still and jumps to whatever is
//! waited for.

#![no_main]

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use lambda_http::{Body, Request, Response};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use shared::auth::vocobase::{SIGNATURE, TIMESTAMP, sign};
use shared::config::Config;
use shared::storage::{Clients, connect};
use shared::webhook::App;
use shared::{Instant, Provider, Webhook};
use tokio::runtime::Runtime;

/// What the input begins with; the rest is the body.
#[derive(Debug)]
struct Input<'a> {
    webhook: Webhook,
    method: &'static str,
    credential: Credential<'a>,
    /// What the stores say to the first, second … request; the last one to all that follow.
    stores: [Said; 4],
    body: &'a [u8],
}

#[derive(Debug)]
enum Credential<'a> {
    /// The function's own, in the query or a header.
    Right,
    /// A token in the path, as its last segment.
    InPath,
    /// For the session that the body names, or `s1`.
    Session,
    /// For another session than the body names.
    OtherSessions,
    /// For another webhook.
    OtherWebhooks,
    /// Whatever can be said without a secret.
    Forged(Forged<'a>),
}

#[derive(Arbitrary, Debug)]
struct Forged<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: Vec<(u8, &'a [u8])>,
}

/// What a store says to a request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Said {
    /// It is done; there is nothing to be read.
    Done,
    /// Its condition does not hold; a read call is erased.
    Not,
    /// It will never take such a value.
    Refused,
    /// It fails.
    Busy,
    /// Something that is no answer.
    Nonsense,
    /// The connection breaks.
    Lost,
    /// Nothing, ever.
    Silence,
}

/// A path, a query and headers.
type Credentials = (String, Option<String>, Vec<(&'static str, Vec<u8>)>);

const METHODS: [&str; 8] = ["POST", "POST", "POST", "GET", "HEAD", "PUT", "OPTIONS", "BREW"];

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> arbitrary::Result<Self> {
        const SAID: [Said; 7] =
            [Said::Done, Said::Not, Said::Refused, Said::Busy, Said::Nonsense, Said::Lost, Said::Silence];
        let mut from = Unstructured::new(data);
        let mut one = |of: usize| Ok(usize::from(from.arbitrary::<u8>()?) % of);
        let (webhook, method, credential) = (one(Webhook::ALL.len())?, one(METHODS.len())?, one(6)?);
        let stores = [SAID[one(7)?], SAID[one(7)?], SAID[one(7)?], SAID[one(7)?]];
        let credential = match credential {
            0 => Credential::Right,
            1 => Credential::InPath,
            2 => Credential::Session,
            3 => Credential::OtherSessions,
            4 => Credential::OtherWebhooks,
            _ => Credential::Forged(from.arbitrary()?),
        };
        let body = from.take_rest();
        Ok(Self { webhook: Webhook::ALL[webhook], method: METHODS[method], credential, stores, body })
    }

    /// The id of the session that the body names.
    fn session(&self) -> Option<String> {
        fuzz::read(self.webhook, self.body).ok().map(|delivery| delivery.call.key.id().to_owned())
    }

    /// The request, unless HTTP has none such.
    fn request(&self) -> Option<Request> {
        let (path, query, headers) = self.credential();
        let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        let mut request = http::Request::builder().method(self.method).uri(target);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.body(Body::from(self.body.to_vec())).ok()
    }

    fn credential(&self) -> Credentials {
        let tokens = &CONFIG.tokens;
        let function = tokens.function_token(self.webhook).expect("a token");
        let named = self.session().unwrap_or_else(|| "s1".to_owned());
        let session_url = |webhook, id: &str| tokens.session_url("", webhook, id).expect("a URL")[1..].to_owned();
        let other = if self.webhook == Webhook::SessionEnd { Webhook::SessionStart } else { Webhook::SessionEnd };
        let (path, query) = match &self.credential {
            Credential::Right => ("/".to_owned(), Some(format!("token={function}"))),
            Credential::InPath => (format!("/{function}"), None),
            Credential::Session => ("/".to_owned(), Some(session_url(self.webhook, &named))),
            Credential::OtherSessions => ("/".to_owned(), Some(session_url(self.webhook, &format!("{named}2")))),
            Credential::OtherWebhooks => ("/".to_owned(), Some(session_url(other, &named))),
            Credential::Forged(Forged { path, query, headers }) => {
                let name = |index: &u8| [SIGNATURE, TIMESTAMP, "content-type"][usize::from(*index) % 3];
                let headers = headers.iter().map(|(index, value)| (name(index), value.to_vec())).collect();
                return (format!("/{path}"), query.map(str::to_owned), headers);
            }
        };
        let secret = match self.credential {
            Credential::OtherWebhooks | Credential::OtherSessions => shared::auth::Secret::new("another endpoint's"),
            _ => CONFIG.signatures.secrets[1].clone(),
        };
        let signature = sign(&secret, NOW, self.body).into_bytes();
        (path, query, vec![(SIGNATURE, signature), (TIMESTAMP, NOW.as_bytes().to_vec())])
    }

    /// Whether the sender has proved himself.
    fn is_authentic(&self) -> bool {
        match self.credential {
            Credential::Right | Credential::InPath | Credential::Session => true,
            // The token itself is a right one: with a body that names no session there is none to compare.
            Credential::OtherSessions => self.webhook.provider() == Provider::Exotel && self.session().is_none(),
            Credential::OtherWebhooks | Credential::Forged(_) => false,
        }
    }
}

const NOW: &str = "2026-03-15T14:32:08.000Z";

static CONFIG: LazyLock<Config> =
    LazyLock::new(|| Config::read(Webhook::SessionStart, &environment).expect("a configuration"));

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "EXOTEL_TOKEN_SECRETS" => "k2:new,k1:old",
        "VOCOBASE_SECRETS" => "whsec_one,whsec_two",
        "AWS_REGION" => "ap-south-1",
        "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => "none",
        "SESSION_END_URL" => "https://session-end.example/",
        "RETENTION_DAYS" => "30",
        "RECORDINGS_BUCKET" => "bucket",
        name if name.ends_with("_TABLE") => name,
        _ => return None,
    };
    Some(value.to_owned())
}

/// In place of the stores.
#[derive(Debug, Default)]
struct Stores {
    says: Mutex<Vec<Said>>,
    /// Every request since: whether it is a write, what it asks, and what was said.
    asked: Mutex<Vec<(bool, Vec<u8>, Said)>>,
}

impl HttpConnector for Stores {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let operation = request.headers().get("x-amz-target").and_then(|target| target.rsplit('.').next());
        let is_write = operation.is_none_or(|operation| operation == "PutItem" || operation == "UpdateItem");
        let is_update = operation == Some("UpdateItem");
        let body = request.body().bytes().unwrap_or_default().to_vec();
        let mut asked = self.asked.lock().expect("no panic before");
        let says = self.says.lock().expect("no panic before");
        let mut said = says[asked.len().min(says.len() - 1)];
        if operation.is_none() && said == Said::Not {
            // A put into the bucket has no condition.
            said = Said::Done;
        }
        asked.push((is_write, body, said));
        let refusal = |name: &str| format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{name}"}}"#);
        let (status, body) = match said {
            Said::Done => (200, if operation.is_none() { String::new() } else { "{}".to_owned() }),
            Said::Not if operation == Some("GetItem") => (200, format!(r#"{{"Item":{ERASED}}}"#)),
            Said::Not if is_update => {
                (400, format!(r#"{{"__type":"x#ConditionalCheckFailedException","Item":{MERGED}}}"#))
            }
            Said::Not if is_write => (400, refusal("ConditionalCheckFailedException")),
            Said::Not => (200, format!(r#"{{"Responses":{{"PROFILES_TABLE":[{PROFILE}]}}}}"#)),
            Said::Refused => (400, refusal("ValidationException")),
            Said::Busy => (500, refusal("InternalServerError")),
            Said::Nonsense => (400, "<html>".to_owned()),
            Said::Lost => return HttpConnectorFuture::ready(Err(ConnectorError::io("lost".into()))),
            Said::Silence => return HttpConnectorFuture::new(std::future::pending()),
        };
        let status = status.try_into().expect("a status");
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, SdkBody::from(body))))
    }
}

const ERASED: &str = r#"{"session":{"S":"-"},"state":{"S":"erased"},"merged":{"S":"1"}}"#;
const MERGED: &str = r#"{"session":{"S":"-"},"state":{"S":"ended"},"merged":{"S":"1"},"wanted":{"S":"-#1"},
    "source":{"S":"1"},"started_at":{"S":"2025-07-16T11:40:57.000000Z"},"bots":{"SS":["b1"]},"insights":{"M":{"a":{"S":""}}}}"#;
const PROFILE: &str = r#"{"profile":{"S":"default"},"greeting":{"S":"Namaste!"},"transfer_message":{"S":"Wait."},
    "session_constants":{"M":{"tier":{"N":"1"}}},"webhooks":{"M":{"session_end":{"M":{}},"nothing":{"N":"1"}}}}"#;

/// What outlives an input: clients hold no state, and are dear to build.
struct World {
    runtime: Runtime,
    stores: Arc<Stores>,
    clients: Clients,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let stores = Arc::new(Stores::default());
    let connector = SharedHttpConnector::new(Shared(Arc::clone(&stores)));
    let http: SharedHttpClient = http_client_fn(move |_, _| connector.clone());
    let clients = connect(&environment).expect("clients");
    // The SDK's budget of retries would be carried from one input to the next.
    let retry = RetryConfig::disabled();
    let dynamodb = clients.dynamodb.config().to_builder().http_client(http.clone()).retry_config(retry.clone()).build();
    let s3 = clients.s3.config().to_builder().http_client(http).retry_config(retry).build();
    let clients =
        Clients { dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb), s3: aws_sdk_s3::Client::from_conf(s3) };
    World { runtime: runtime.expect("a runtime"), stores, clients }
});

#[derive(Debug)]
struct Shared(Arc<Stores>);

impl HttpConnector for Shared {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        self.0.call(request)
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(input) = Input::read(data) else { return Corpus::Reject };
    let Some(request) = input.request() else { return Corpus::Reject };
    let world = &*WORLD;
    *world.stores.says.lock().expect("no panic before") = input.stores.to_vec();
    world.stores.asked.lock().expect("no panic before").clear();
    let now = Instant::parse(NOW).expect("an instant");
    let app = App::new(input.webhook, CONFIG.clone(), world.clients.clone(), Arc::new(move || now));
    let response = world.runtime.block_on(async {
        match input.webhook {
            Webhook::SessionStart => session_start::handle(&app, request).await,
            Webhook::SessionEnd => session_end::handle(&app, request).await,
            Webhook::PreAgentTransfer => pre_agent_transfer::handle(&app, request).await,
            Webhook::InsightsEvents => insights_events::handle(&app, request).await,
            Webhook::TranscriptEvents => transcript_events::handle(&app, request).await,
            Webhook::SessionCompleted => session_completed::handle(&app, request).await,
        }
    });
    check_envelope(&response);
    check_promise(&input, response.status().as_u16(), &world.stores.asked.lock().expect("no panic before"));
    Corpus::Keep
});

/// Exotel's envelope, with nothing in it of why.
fn check_envelope(response: &Response<Body>) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers().contains_key("allow"), status == 405);
    let envelope: Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(envelope["http_code"], status);
    let answer = envelope["response"].as_object().expect("a response");
    if status == 200 {
        assert!(answer.len() == 1 && answer["data"].is_object());
        return;
    }
    assert!(answer.len() == 2 && answer["data"].is_null());
    let error = answer["error_data"].as_object().expect("what went wrong");
    assert_eq!(error["error_code"], format!("HS{status}"));
    assert_eq!(error.len(), 3);
    assert!(error.values().all(|word| word.as_str().is_some_and(|word| !word.is_empty())));
}

fn check_promise(input: &Input, status: u16, asked: &[(bool, Vec<u8>, Said)]) {
    if input.method != "POST" {
        assert_eq!(status, 405);
    } else if input.is_authentic() {
        assert!(matches!(status, 200 | 503 | 504), "a right delivery is answered {status}");
    } else {
        assert_eq!(status, 401);
    }
    if matches!(status, 401 | 405) {
        assert!(asked.is_empty(), "the stores are asked for somebody who has not proved himself");
        return;
    }
    let writes: Vec<_> = asked.iter().filter(|(is_write, ..)| *is_write).collect();
    if status != 200 {
        assert!(asked.iter().any(|(.., said)| *said != Said::Done), "{status} though the stores did all");
        return;
    }
    // By what was asked: a repetition after an answer that did not come would mend it.
    let last: HashMap<&[u8], Said> = writes.iter().map(|(_, body, said)| (body.as_slice(), *said)).collect();
    let kept = |said: Said| matches!(said, Said::Done | Said::Not);
    assert!(last.values().all(|said| kept(*said) || *said == Said::Refused), "200 though a write was not acknowledged");
    let end = writes.last().map_or(Said::Done, |(.., said)| *said);
    assert!(kept(end), "200 though it is kept nowhere");
    // Only an erased call is answered so without a write.
    let erased = input.stores.contains(&Said::Not) && input.session().is_some();
    assert!(!writes.is_empty() || erased, "200 though nothing was written");
}
