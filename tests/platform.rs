//! Vocobase as the bundle meets it: calls, the webhook that it sends of each, and its API (v2) over HTTP on loopback.
//! The API does as documented until a script says otherwise, and keeps a log of what it was asked. Source: Vocobase's
//! "API Reference", "List calls", "Get call", "Get recording URL", and "Webhook Payloads".

pub mod deliveries;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use shared::Instant;
use tokio::sync::{Notify, watch};

/// The key that the API takes.
pub const KEY: &str = "rg_live_marker-api-key";

/// The API allows no larger page.
const MOST_A_PAGE: usize = 100;
/// Below this everything is.
const BASE: &str = "/api/v2";

/// A call, and what came of it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Names the call.
    pub call_id: String,
    /// The agent that made it.
    pub agent_id: String,
    /// `outbound`.
    pub direction: String,
    /// Who called.
    pub from_number: String,
    /// Who was called.
    pub to_number: String,
    /// `pending`, `ringing`, `in_progress`, `completed`, `failed`, `no_answer`, `busy` or `canceled`.
    pub status: String,
    /// Newer: how it ended.
    pub disposition: Option<String>,
    /// Newer: who answered.
    pub answered_by: Option<String>,
    /// When it was made.
    pub created_at: Instant,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// A session in a browser is no telephone call: the API does not know it, and its webhook says `"call": null`.
    pub telephone: bool,
    /// What it led to, if anybody answered.
    pub session: Option<Session>,
}

/// What was said in a call.
#[derive(Clone, Debug)]
pub struct Session {
    /// Names the session.
    pub session_id: String,
    /// The agent's name; only webhooks say it.
    pub agent_name: String,
    /// How long it was.
    pub duration_seconds: u32,
    /// A decimal, with its digits.
    pub credits_used: String,
    /// In order.
    pub transcript: Vec<Line>,
    /// Fastest, slowest and mean answer of the bot, in milliseconds.
    pub latency: Option<[u32; 3]>,
    /// As webhook and API give it.
    pub recording_url: Option<String>,
    /// When it began.
    pub started_at: Instant,
    /// When it ended.
    pub ended_at: Option<Instant>,
    /// When its webhook was made.
    pub sent_at: Instant,
    /// Newer: whether the platform is done with it.
    pub processing_complete: Option<bool>,
    /// Newer: what it was started with; only webhooks say it.
    pub variables: Option<Value>,
    /// Newer: what was found in it.
    pub extraction: Option<Value>,
}

/// One turn.
#[derive(Clone, Debug)]
pub struct Line {
    /// `bot` or `user`.
    pub role: String,
    /// What was said.
    pub content: String,
    /// When.
    pub timestamp: Instant,
    /// How long the bot took to answer.
    pub latency_ms: Option<u32>,
}

impl Call {
    /// Call `c-<name>` with session `s-<name>`: answered at once, 127 seconds long, in the older form.
    pub fn completed(name: &str, created_at: Instant) -> Self {
        let line = |(seconds, role, content, latency_ms): (i64, &str, &str, Option<u32>)| Line {
            role: role.to_owned(),
            content: content.to_owned(),
            timestamp: created_at.plus_seconds(seconds),
            latency_ms,
        };
        let ended_at = created_at.plus_seconds(1 + 127);
        let transcript = [
            (1, "bot", "Hello! How can I help you today?", None),
            (4, "user", "Hi, I'm interested in your enterprise plan.", None),
            (6, "bot", "Great choice!", Some(700)),
        ];
        Self {
            call_id: format!("c-{name}"),
            agent_id: "a1b2c3d4".to_owned(),
            direction: "outbound".to_owned(),
            from_number: "+14155551234".to_owned(),
            to_number: "+919876543210".to_owned(),
            status: "completed".to_owned(),
            disposition: None,
            answered_by: None,
            created_at,
            ended_at: Some(ended_at),
            telephone: true,
            session: Some(Session {
                session_id: format!("s-{name}"),
                agent_name: "Sales Assistant".to_owned(),
                duration_seconds: 127,
                credits_used: "2.12".to_owned(),
                transcript: transcript.map(line).to_vec(),
                latency: Some([450, 1200, 680]),
                recording_url: None,
                started_at: created_at.plus_seconds(1),
                ended_at: Some(ended_at),
                sent_at: ended_at.plus_seconds(2),
                processing_complete: None,
                variables: None,
                extraction: None,
            }),
        }
    }

    /// The same in the newer form.
    #[must_use]
    pub fn newer(self) -> Self {
        let session = self.session.map(|session| Session {
            latency: None,
            processing_complete: Some(true),
            variables: Some(json!({ "plan": "enterprise", "name": "Asha" })),
            extraction: Some(json!({ "status": "success", "values": { "interested": true, "budget": 125_000.5 } })),
            ..session
        });
        Self { disposition: Some("completed".to_owned()), answered_by: Some("human".to_owned()), session, ..self }
    }

    /// The same with a recording.
    #[must_use]
    pub fn recorded(self, url: &str) -> Self {
        let session = self.session.map(|session| Session { recording_url: Some(url.to_owned()), ..session });
        Self { session, ..self }
    }

    /// A call that nobody answered.
    pub fn unanswered(name: &str, created_at: Instant) -> Self {
        Self { status: "no_answer".to_owned(), session: None, ..Self::completed(name, created_at) }
    }

    /// Its session, which must be there.
    pub fn session(&self) -> &Session {
        self.session.as_ref().expect("the call led to a session")
    }

    /// Its session, which must be there.
    pub fn session_mut(&mut self) -> &mut Session {
        self.session.as_mut().expect("the call led to a session")
    }

    /// The body of the webhook that the platform sends of it, once the session is over.
    pub fn webhook(&self) -> Vec<u8> {
        let session = self.session();
        let call = json!({
            "call_id": self.call_id, "from_number": self.from_number, "to_number": self.to_number,
            "direction": self.direction, "status": self.status,
        });
        let call = with(
            call,
            [("disposition", text(self.disposition.as_ref())), ("answered_by", text(self.answered_by.as_ref()))],
        );
        let data = json!({
            "session_id": session.session_id, "agent_id": self.agent_id, "agent_name": session.agent_name,
            "duration_seconds": session.duration_seconds, "credits_used": null, "transcript": session.transcript(),
            "recording_url": session.recording_url, "latency": session.latency(),
            "call": if self.telephone { call } else { Value::Null },
        });
        let newer = [
            ("processing_complete", session.processing_complete.map(Value::Bool)),
            ("variables", session.variables.clone()),
            ("extraction", session.extraction.clone()),
        ];
        let body = json!({ "event": "session.completed", "timestamp": session.sent_at, "data": with(data, newer) });
        session.with_credits(&body).into_bytes()
    }

    /// As it is listed.
    pub fn listed(&self) -> Value {
        json!({
            "call_id": self.call_id, "agent_id": self.agent_id,
            "session_id": self.session.as_ref().map(|session| &session.session_id), "direction": self.direction,
            "from_number": self.from_number, "to_number": self.to_number, "status": self.status,
            "provider": "telephony", "duration_seconds": self.session.as_ref().map(|session| session.duration_seconds),
            "error_message": null, "started_at": self.session.as_ref().map(|session| session.started_at),
            "ended_at": self.ended_at, "created_at": self.created_at,
        })
    }

    /// As it is told of alone.
    fn told(&self, with_everything: bool) -> String {
        let Some(session) = &self.session else {
            return success(&with(self.listed(), [("session", Some(Value::Null))]));
        };
        let told = json!({
            "session_id": session.session_id, "duration_seconds": session.duration_seconds, "credits_used": null,
            "transcript": session.transcript(), "latency": session.latency(), "recording_url": session.recording_url,
            "status": "completed", "started_at": session.started_at, "ended_at": session.ended_at,
        });
        let newer = [
            ("processing_complete", session.processing_complete.map(Value::Bool)),
            ("extraction", session.extraction.clone()),
        ];
        let mut told = with(told, newer);
        let mut call = self.listed();
        if with_everything {
            told =
                with(told, [("agent_name", Some(json!(session.agent_name))), ("variables", session.variables.clone())]);
            call = with(
                call,
                [("disposition", text(self.disposition.as_ref())), ("answered_by", text(self.answered_by.as_ref()))],
            );
        }
        session.with_credits(&json!({ "success": true, "data": with(call, [("session", Some(told))]) }))
    }
}

impl Session {
    fn transcript(&self) -> Value {
        let line = |line: &Line| {
            json!({
                "role": line.role, "content": line.content, "timestamp": line.timestamp, "latency_ms": line.latency_ms,
            })
        };
        self.transcript.iter().map(line).collect()
    }

    fn latency(&self) -> Value {
        self.latency.map_or(Value::Null, |[min, max, avg]| json!({ "min_ms": min, "max_ms": max, "avg_ms": avg }))
    }

    /// A float would not keep the digits.
    fn with_credits(&self, body: &Value) -> String {
        body.to_string().replace(r#""credits_used":null"#, &format!(r#""credits_used":{}"#, self.credits_used))
    }
}

fn text(value: Option<&String>) -> Option<Value> {
    value.cloned().map(Value::String)
}

/// `object` with further members; those that are `None` are absent.
fn with<const N: usize>(mut object: Value, members: [(&str, Option<Value>); N]) -> Value {
    for (name, value) in members.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        object[name] = value;
    }
    object
}

fn success(data: &Value) -> String {
    json!({ "success": true, "data": data }).to_string()
}

/// A request to the API.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path and query, below the API's base.
    pub path: String,
    /// Whether it had the right key.
    pub authorised: bool,
    /// When it came.
    pub at: tokio::time::Instant,
}

/// What the API does instead of answering as documented.
#[derive(Clone, Debug)]
pub enum Instead {
    /// Answers with this status.
    Status(u16),
    /// Answers with this status and `Retry-After`.
    Busy(u16, &'static str),
    /// Answers 200 and this.
    Says(String),
    /// Answers 302 and this place.
    Redirects(String),
    /// Answers 200 and so many spaces.
    Spaces(usize),
    /// Answers nothing, and does not hang up either.
    Hangs,
    /// Hangs up.
    HangsUp,
    /// Answers as documented, but not before it is told to.
    Waits(Arc<Notify>),
}

type Script = dyn Fn(usize, &Asked) -> Option<Instead> + Send + Sync;
type Mint = dyn Fn(&str, usize) -> Option<String> + Send + Sync;

struct Held {
    /// By when they were made.
    calls: Vec<Call>,
    places: HashMap<String, usize>,
    oldest_first: bool,
    page_limit: usize,
    with_everything: bool,
    script: Arc<Script>,
    mint: Arc<Mint>,
    minted: HashMap<String, usize>,
    minted_members: &'static [&'static str],
}

/// A running platform. It ends with the test.
#[derive(Clone)]
pub struct Platform {
    /// The base of its API.
    pub url: String,
    held: Arc<Mutex<Held>>,
    log: Arc<watch::Sender<Vec<Asked>>>,
}

impl Platform {
    /// Starts it, without calls.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let held = Held {
            calls: Vec::new(),
            places: HashMap::new(),
            oldest_first: false,
            page_limit: MOST_A_PAGE,
            with_everything: false,
            script: Arc::new(|_, _| None),
            mint: Arc::new(|_, _| None),
            minted: HashMap::new(),
            minted_members: &["recording_url"],
        };
        let this = Self {
            url: format!("http://{}{BASE}", listener.local_addr().expect("an address")),
            held: Arc::new(Mutex::new(held)),
            log: Arc::new(watch::Sender::new(Vec::new())),
        };
        let served = this.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let served = served.clone();
                let serve = service_fn(move |request| {
                    let served = served.clone();
                    async move { served.answer(request).await }
                });
                // That the other side hangs up in the middle is its right.
                tokio::spawn(async move {
                    drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), serve).await);
                });
            }
        });
        this
    }

    /// Makes a call, after those that there are.
    pub fn make(&self, call: Call) {
        let mut held = self.held();
        let place = held.calls.len();
        assert!(held.places.insert(call.call_id.clone(), place).is_none(), "{} is there already", call.call_id);
        held.calls.push(call);
    }

    /// Changes a call.
    pub fn change(&self, call_id: &str, change: impl FnOnce(&mut Call)) {
        let mut held = self.held();
        let place = held.places[call_id];
        change(&mut held.calls[place]);
    }

    /// A call.
    pub fn call(&self, call_id: &str) -> Call {
        let held = self.held();
        held.calls[held.places[call_id]].clone()
    }

    /// All calls, in the order in which they were made.
    pub fn calls(&self) -> Vec<Call> {
        self.held().calls.clone()
    }

    /// From now on it lists the oldest calls first.
    pub fn list_oldest_first(&self) {
        self.held().oldest_first = true;
    }

    /// From now on no page has more calls than this, whatever is asked for.
    pub fn limit_pages(&self, calls: usize) {
        self.held().page_limit = calls;
    }

    /// From now on it tells of a single call all that its webhook says, and not only what is documented.
    pub fn tell_everything(&self) {
        self.held().with_everything = true;
    }

    /// From now on `script` says what it does instead of answering the n-th request, counted from 0; `None` is as
    /// documented. It may make calls: they are there when the request is answered.
    pub fn script(&self, script: impl Fn(usize, &Asked) -> Option<Instead> + Send + Sync + 'static) {
        self.held().script = Arc::new(script);
    }

    /// From now on `mint` gives the URLs of recordings: for a call's id the n-th one, counted from 0; `None` is 404.
    pub fn mint(&self, mint: impl Fn(&str, usize) -> Option<String> + Send + Sync + 'static) {
        self.held().mint = Arc::new(mint);
    }

    /// From now on URLs of recordings are in these members.
    pub fn mint_as(&self, members: &'static [&'static str]) {
        self.held().minted_members = members;
    }

    /// What it was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.log.borrow().clone()
    }

    /// The paths of what it was asked so far.
    pub fn paths(&self) -> Vec<String> {
        self.log.borrow().iter().map(|asked| asked.path.clone()).collect()
    }

    /// The paths of what it was asked so far, which is forgotten.
    pub fn take_paths(&self) -> Vec<String> {
        self.log.send_replace(Vec::new()).into_iter().map(|asked| asked.path).collect()
    }

    /// Waits until it was asked so often.
    pub async fn asked(&self, times: usize) {
        self.log.subscribe().wait_for(|log| log.len() >= times).await.expect("the platform runs");
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, &'static str> {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        let Some(path) = path.strip_prefix(BASE) else {
            return Ok(response(404, "text/html", "<html><body>Not found</body></html>"));
        };
        let key = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let asked = Asked {
            path: path.to_owned(),
            authorised: key == Some(&format!("Bearer {KEY}")),
            at: tokio::time::Instant::now(),
        };
        // Held until the script has spoken, so that it meets the requests in their order.
        let mut nth = 0;
        self.log.send_modify(|log| {
            nth = log.len();
            log.push(asked.clone());
        });
        let script = Arc::clone(&self.held().script);
        match script(nth, &asked) {
            None => {}
            Some(Instead::Waits(go_on)) => go_on.notified().await,
            Some(Instead::Status(status)) => return Ok(failure(status, "as scripted")),
            Some(Instead::Busy(status, retry_after)) => {
                let mut busy = failure(status, "as scripted");
                busy.headers_mut().insert(http::header::RETRY_AFTER, retry_after.parse().expect("a header"));
                return Ok(busy);
            }
            Some(Instead::Says(text)) => return Ok(response(200, "application/json", text)),
            Some(Instead::Redirects(to)) => {
                let mut redirect = response(302, "text/html", "");
                redirect.headers_mut().insert(http::header::LOCATION, to.parse().expect("a header"));
                return Ok(redirect);
            }
            Some(Instead::Spaces(count)) => return Ok(response(200, "application/json", vec![b' '; count])),
            Some(Instead::Hangs) => std::future::pending().await,
            Some(Instead::HangsUp) => return Err("the platform hangs up"),
        }
        Ok(if asked.authorised { self.as_documented(&asked.path) } else { failure(401, "Invalid API key") })
    }

    fn as_documented(&self, path: &str) -> Response<Full<Bytes>> {
        let mut held = self.held();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let segments: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let found = |call_id: &str| {
            let place = *held.places.get(call_id)?;
            Some(&held.calls[place]).filter(|call| call.telephone)
        };
        match segments[..] {
            ["calls"] => held.list(query),
            ["calls", call_id] => match found(call_id) {
                Some(call) => response(200, "application/json", call.told(held.with_everything)),
                None => failure(404, "Call not found"),
            },
            ["calls", call_id, "recording-url"] if found(call_id).is_some() => {
                let nth = held.minted.entry(call_id.to_owned()).or_default();
                *nth += 1;
                let nth = *nth - 1;
                match (held.mint)(call_id, nth) {
                    Some(url) => {
                        let data: Value =
                            held.minted_members.iter().map(|name| ((*name).to_owned(), json!(url))).collect();
                        response(200, "application/json", success(&data))
                    }
                    None => failure(404, "Recording not found"),
                }
            }
            _ => failure(404, "Not found"),
        }
    }
}

impl Held {
    fn list(&self, query: &str) -> Response<Full<Bytes>> {
        let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str, default: usize| parameter(name).map_or(Some(default), |text| text.parse().ok());
        let (Some(limit @ 1..=MOST_A_PAGE), Some(offset)) = (number("limit", 20), number("offset", 0)) else {
            return failure(400, "limit or offset is not what it must be");
        };
        let status = parameter("status");
        let mut calls: Vec<&Call> = self
            .calls
            .iter()
            .filter(|call| call.telephone && status.is_none_or(|status| call.status == status))
            .collect();
        calls.sort_by_key(|call| call.created_at);
        if !self.oldest_first {
            calls.reverse();
        }
        let limit = limit.min(self.page_limit);
        let page: Vec<Value> = calls.iter().skip(offset).take(limit).map(|call| call.listed()).collect();
        let data = json!({ "calls": page, "total": calls.len(), "limit": limit, "offset": offset });
        response(200, "application/json", success(&data))
    }
}

fn failure(status: u16, message: &str) -> Response<Full<Bytes>> {
    response(status, "application/json", json!({ "success": false, "error": { "message": message } }).to_string())
}

fn response(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header(http::header::CONTENT_TYPE, content_type);
    response.body(Full::new(body.into())).expect("a response")
}
