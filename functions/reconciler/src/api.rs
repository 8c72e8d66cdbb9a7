//! Vocobase's API (v2), as far as it says what webhooks said or should have said. Source: Vocobase's "API Reference",
//! "List calls", "Get call", "Get recording URL".

use std::time::Duration;

use reqwest::{StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use shared::Instant;
use tokio::time;
use url::{Host, Url};

/// How often a request is made that fails for reasons that pass.
const ATTEMPTS: u32 = 5;
/// Longer answers are not read.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why the platform's answer cannot be used. Says nothing of what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 401 or 403.
    #[error("the API refuses the key: it answered {0}")]
    Refused(u16),
    /// Any other answer that will not change.
    #[error("the API answered {0}")]
    Status(u16),
    /// No usable answer in all the attempts.
    #[error("the API cannot be reached")]
    Unreachable,
    /// 429 or 5xx to the end.
    #[error("the API is busy: it answered {0}")]
    Busy(u16),
    /// It is not what the API's documentation says.
    #[error("the API's answer is not {0}")]
    Odd(&'static str),
    /// The run's time is over.
    #[error("there was not enough time")]
    OutOfTime,
}

impl ApiError {
    /// Whether it would be the same for every other request. A single call may well be more than the platform can tell
    /// of, and must not keep the others from being found.
    pub const fn concerns_all(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Busy(429) | Self::OutOfTime)
    }
}

/// How long the API is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one request, its answer read to the end.
    pub request: Duration,
    /// After the first failure that passes; each further one doubles it.
    pub first_wait: Duration,
    /// For what was fetched to be stored.
    pub store: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(15), first_wait: Duration::from_secs(1), store: Duration::from_secs(5) }
    }
}

/// The platform's API.
pub struct Api {
    http: reqwest::Client,
    base: Url,
    patience: Patience,
}

/// A call as it is listed.
#[derive(Debug, Clone, Deserialize)]
pub struct Listed {
    /// Names the call.
    pub call_id: String,
    /// Names the session that it led to; absent if it never connected.
    pub session_id: Option<String>,
    /// `completed`, `failed`, … or a word to come.
    pub status: Option<String>,
    /// When it was made.
    pub created_at: Option<Instant>,
    /// When it ended.
    pub ended_at: Option<Instant>,
}

/// A page of the list.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// Some calls.
    pub calls: Vec<Listed>,
    /// How many there are in all.
    pub total: usize,
}

impl Api {
    /// The API below `base`, which is asked with `http`.
    pub const fn new(http: reqwest::Client, base: Url, patience: Patience) -> Self {
        Self { http, base, patience }
    }

    /// Whether a key may be sent there: over TLS, or to this machine.
    pub fn takes_keys(base: &Url) -> bool {
        let loopback = match base.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        base.scheme() == "https" || (base.scheme() == "http" && loopback)
    }

    /// `limit` calls from the `offset`th on.
    pub async fn page(&self, key: &str, limit: usize, offset: usize, until: time::Instant) -> Result<Page, ApiError> {
        let mut url = self.url(&["calls"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string()).append_pair("offset", &offset.to_string());
        let answer = self.get(key, url, until).await?;
        data(&answer, "a list of calls")
    }

    /// What it says of a call, to be [`told`].
    pub async fn call(&self, key: &str, call_id: &str, until: time::Instant) -> Result<Vec<u8>, ApiError> {
        self.get(key, self.url(&["calls", call_id]), until).await
    }

    /// A recording's URL, made anew.
    pub async fn recording_url(&self, key: &str, call_id: &str, until: time::Instant) -> Result<String, ApiError> {
        const WHAT: &str = "a recording's URL";
        // The documentation does not say which.
        #[derive(Deserialize)]
        struct Minted {
            recording_url: Option<String>,
            url: Option<String>,
        }
        let answer = self.get(key, self.url(&["calls", call_id, "recording-url"]), until).await?;
        let Minted { recording_url, url } = data(&answer, WHAT)?;
        let mut urls = [recording_url, url].into_iter().flatten();
        urls.find(|url| Url::parse(url).is_ok()).ok_or(ApiError::Odd(WHAT))
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn get(&self, key: &str, url: Url, until: time::Instant) -> Result<Vec<u8>, ApiError> {
        let (mut failed, mut wait, mut told) = (ApiError::Unreachable, self.patience.first_wait, Duration::ZERO);
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                // The platform may say anything, even what no clock can hold.
                let awake = time::Instant::now().checked_add(wait.max(told)).filter(|awake| *awake < until);
                time::sleep_until(awake.ok_or(ApiError::OutOfTime)?).await;
                (wait, told) = (wait * 2, Duration::ZERO);
            }
            let request = self.http.get(url.clone()).bearer_auth(key).header(header::ACCEPT, "application/json");
            let patience = until.min(time::Instant::now() + self.patience.request);
            failed = match time::timeout_at(patience, answer(request)).await {
                Err(_) if patience == until => return Err(ApiError::OutOfTime),
                Err(_) | Ok(Err(TooLong::No)) => ApiError::Unreachable,
                Ok(Err(TooLong::Yes)) => return Err(ApiError::Odd("of a length that can be read")),
                Ok(Ok((status, retry_after, body))) => match status.as_u16() {
                    200 => return Ok(body),
                    status @ (401 | 403) => return Err(ApiError::Refused(status)),
                    status @ (429 | 500..) => {
                        told = retry_after.unwrap_or_default();
                        ApiError::Busy(status)
                    }
                    status => return Err(ApiError::Status(status)),
                },
            };
        }
        Err(failed)
    }
}

enum TooLong {
    Yes,
    No,
}

async fn answer(request: reqwest::RequestBuilder) -> Result<(StatusCode, Option<Duration>, Vec<u8>), TooLong> {
    let mut response = request.send().await.map_err(|_| TooLong::No)?;
    let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let (status, mut body) = (response.status(), Vec::new());
    while let Some(piece) = response.chunk().await.map_err(|_| TooLong::No)? {
        body.extend_from_slice(&piece);
        if body.len() > MAX_BYTES {
            return Err(TooLong::Yes);
        }
    }
    Ok((status, retry_after, body))
}

/// `data` of `{ "success": true, "data": … }`.
fn data<'a, T: Deserialize<'a>>(answer: &'a [u8], what: &'static str) -> Result<T, ApiError> {
    #[derive(Deserialize)]
    struct Envelope<T> {
        success: Option<bool>,
        data: T,
    }
    let envelope: Envelope<T> = serde_json::from_slice(answer).map_err(|_| ApiError::Odd(what))?;
    if envelope.success == Some(false) { Err(ApiError::Odd(what)) } else { Ok(envelope.data) }
}

/// What a call's webhook should have told.
pub enum Told {
    /// This delivery.
    Delivery(Vec<u8>),
    /// It led to no session, so there is nothing to tell.
    NoSession,
    /// The platform is not done with it.
    NotYet,
}

/// What the API says of a call, member by member as it stands, so that no digit is lost.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow)]
    call_id: Raw<'a>,
    #[serde(borrow)]
    agent_id: Raw<'a>,
    #[serde(borrow)]
    direction: Raw<'a>,
    #[serde(borrow)]
    from_number: Raw<'a>,
    #[serde(borrow)]
    to_number: Raw<'a>,
    #[serde(borrow)]
    status: Raw<'a>,
    #[serde(borrow)]
    disposition: Raw<'a>,
    #[serde(borrow)]
    answered_by: Raw<'a>,
    #[serde(borrow)]
    ended_at: Raw<'a>,
    #[serde(borrow)]
    session: Option<Session<'a>>,
}

type Raw<'a> = Option<&'a RawValue>;

#[derive(Deserialize)]
struct Session<'a> {
    #[serde(borrow)]
    session_id: Raw<'a>,
    #[serde(borrow)]
    agent_id: Raw<'a>,
    #[serde(borrow)]
    agent_name: Raw<'a>,
    #[serde(borrow)]
    duration_seconds: Raw<'a>,
    #[serde(borrow)]
    credits_used: Raw<'a>,
    #[serde(borrow)]
    transcript: Raw<'a>,
    #[serde(borrow)]
    recording_url: Raw<'a>,
    #[serde(borrow)]
    latency: Raw<'a>,
    #[serde(borrow)]
    variables: Raw<'a>,
    #[serde(borrow)]
    extraction: Raw<'a>,
    processing_complete: Option<bool>,
    #[serde(borrow)]
    ended_at: Raw<'a>,
}

/// `session.completed` in the platform's own form.
#[derive(Serialize)]
struct Delivery<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Raw<'a>,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    session_id: Raw<'a>,
    agent_id: Raw<'a>,
    agent_name: Raw<'a>,
    duration_seconds: Raw<'a>,
    credits_used: Raw<'a>,
    transcript: Raw<'a>,
    recording_url: Raw<'a>,
    latency: Raw<'a>,
    variables: Raw<'a>,
    extraction: Raw<'a>,
    call: Telephone<'a>,
}

#[derive(Serialize)]
struct Telephone<'a> {
    call_id: Raw<'a>,
    from_number: Raw<'a>,
    to_number: Raw<'a>,
    direction: Raw<'a>,
    status: Raw<'a>,
    disposition: Raw<'a>,
    answered_by: Raw<'a>,
}

/// A call, as the webhook that should have told of it; with another URL of its recording, if one is given.
pub fn told(answer: &[u8], recording_url: Option<&str>) -> Result<Told, ApiError> {
    let odd = |_| ApiError::Odd("a call");
    let renewed = recording_url.map(to_raw_value).transpose().map_err(odd)?;
    let call: Call<'_> = data(answer, "a call")?;
    let Some(session) = call.session else { return Ok(Told::NoSession) };
    if session.processing_complete == Some(false) {
        return Ok(Told::NotYet);
    }
    let delivery = Delivery {
        event: "session.completed",
        // When a webhook was, or would have been, sent the API does not say.
        timestamp: session.ended_at.or(call.ended_at),
        data: Data {
            session_id: session.session_id,
            agent_id: session.agent_id.or(call.agent_id),
            agent_name: session.agent_name,
            duration_seconds: session.duration_seconds,
            credits_used: session.credits_used,
            transcript: session.transcript,
            recording_url: renewed.as_deref().or(session.recording_url),
            latency: session.latency,
            variables: session.variables,
            extraction: session.extraction,
            call: Telephone {
                call_id: call.call_id,
                from_number: call.from_number,
                to_number: call.to_number,
                direction: call.direction,
                status: call.status,
                disposition: call.disposition,
                answered_by: call.answered_by,
            },
        },
    };
    serde_json::to_vec(&delivery).map(Told::Delivery).map_err(odd)
}
