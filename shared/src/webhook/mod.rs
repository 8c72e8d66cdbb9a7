//! The webhook edge: one delivery from the HTTP request to the answer, inside the deadline.
//!
//! Method, then who sent it, then what it says, then keeping it, then the answer. 2xx only after every write is
//! acknowledged; bytes that are verified but cannot be used are kept aside and answered 200, because an error would
//! only make the platform throw them away.

mod answer;
mod rehearsal;

use std::sync::Arc;
use std::time::Duration;

use lambda_http::http::{HeaderMap, Method};
use lambda_http::{Body, Request, Response};
use serde::Serialize;

pub use answer::{Nothing, busy, success};
use answer::{Problem, failure};

use crate::auth::exotel::Grant;
use crate::auth::{Refused, Verified, vocobase};
use crate::call::{Delivery, Field, NotADelivery, Source};
use crate::config::{Config, ConfigError, Lookup};
use crate::keyring::{Keyring, Keys};
use crate::logging::printable;
use crate::metrics::Metrics;
use crate::profile::{self, Answer, Cache, Fallback, Known, Reason, Received};
use crate::session::{Provider, Webhook};
use crate::storage::{Clients, History, Kept, ProfileItem, Store, StoreError, connect};
use crate::{Clock, Instant};

/// What a function is built from, once per instance.
pub struct App {
    config: Config,
    keyring: Keyring,
    metrics: Metrics,
    store: Store,
    profiles: Cache,
    clock: Clock,
}

/// A profile that is not there by then is done without: the caller waits.
const PROFILE_TIME: Duration = Duration::from_millis(1500);
/// The same where an older copy is known.
const NEWER_PROFILE_TIME: Duration = Duration::from_millis(300);
/// What all templates of an answer may take together.
const TEMPLATE_TIME: Duration = Duration::from_millis(250);
/// A header of ours is far shorter.
const MAX_HEADER_BYTES: usize = 1024;

impl App {
    /// Builds it from the environment of the function that receives `webhook`.
    pub fn from_environment(webhook: Webhook, lookup: Lookup<'_>, clock: Clock) -> Result<Self, ConfigError> {
        let config = Config::read(webhook, lookup)?;
        let keyring = Keyring::new(webhook.provider(), &config, lookup)?;
        let metrics = Metrics::read(lookup);
        Ok(Self { keyring, metrics, ..Self::new(webhook, config, connect(lookup)?, clock) })
    }

    /// Builds it from its parts, with the keys that the configuration holds and without metrics.
    pub fn new(webhook: Webhook, config: Config, clients: Clients, clock: Clock) -> Self {
        let store = Store::new(clients, config.storage.clone());
        let keyring = Keyring::given(webhook.provider(), &config);
        Self { keyring, metrics: Metrics::default(), store, profiles: Cache::default(), clock, config }
    }

    /// Pays while the instance starts, and not while a platform waits: for the first connections, for the keys, and for
    /// having `handle` run the first time, which waits for nothing and so fits into the others' waiting. Failing here is
    /// harmless: the first delivery tries again.
    pub async fn warm(&self, webhook: Webhook, handle: impl AsyncFnOnce(&Self, Request) -> Response<Body>) {
        let connections = tokio::time::timeout(Duration::from_secs(1), self.store.warm());
        let keys = self.keyring.keys((self.clock)());
        // On the heap: it is as large as the handling of a delivery, and nothing of it outlives the start.
        let rehearsal = Box::pin(self.rehearse(webhook, handle));
        let _ = futures_util::future::join3(connections, keys, rehearsal).await;
    }

    /// This bundle's own URL of `webhook` for one session, with its token; `None` if it has none.
    pub fn session_url(&self, webhook: Webhook, session_id: &str) -> Option<String> {
        let (_, base) = self.config.siblings.iter().find(|(sibling, _)| *sibling == webhook)?;
        self.keyring.known()?.tokens.session_url(base, webhook, session_id)
    }

    /// An answer that its profiles make. Never fails: what cannot be had in time, or cannot be said, is replaced by the
    /// next best, counted, and logged with its reason.
    pub async fn answer<D>(
        &self,
        webhook: Webhook,
        received: Option<Received<'_>>,
        say: impl FnOnce(&mut Answer<'_>) -> D,
    ) -> D {
        let now = (self.clock)();
        let delivery = received.map(|received| received.delivery);
        let (profiles, not_read) = self.profiles_of(delivery, now).await;
        let (history, not_remembered) = match delivery {
            Some(delivery) if profile::remembers(&profiles, webhook) => self.history_of(delivery, now).await,
            _ => (None, None),
        };
        let known = Known { received, now, history };
        let until = tokio::time::Instant::now() + TEMPLATE_TIME.min(self.config.deadline / 8);
        let mut answer = Answer::new(&profiles, &known, until);
        answer.fallbacks.extend([not_read, not_remembered].into_iter().flatten().map(Fallback::from));
        let said = say(&mut answer);
        for Fallback { reason: reason_of, profile, member, fault } in &answer.fallbacks {
            let line = fault.as_ref().and_then(|fault| fault.line);
            let (webhook, reason) = (webhook.name(), reason_of.name());
            let (profile, member) = (profile.as_deref().unwrap_or("-"), member.unwrap_or("-"));
            if *reason_of == Reason::NoProfile {
                tracing::info!(webhook, reason, "an answer without a profile");
            } else {
                tracing::warn!(webhook, reason, profile, member, line, "an answer is not what its profile asks for");
            }
            self.metrics.fallback(reason, now);
        }
        said
    }

    /// The profiles of a delivery, the most specific first, or the default one where there is no delivery.
    async fn profiles_of(&self, delivery: Option<&Delivery>, now: Instant) -> (Vec<Arc<ProfileItem>>, Option<Reason>) {
        let number = delivery.and_then(|delivery| delivery.call.get(Field::LandingNumber));
        let names = profile::names(delivery.and_then(|delivery| delivery.bot.as_deref()), number);
        let (missing, known) = self.profiles.missing(&names, now);
        let mut fallback = None;
        if !missing.is_empty() {
            let time = if known { NEWER_PROFILE_TIME } else { PROFILE_TIME };
            match tokio::time::timeout(time.min(self.config.deadline / 2), self.store.profiles(&missing)).await {
                Ok(Ok(items)) => self.profiles.read(&missing, items, now),
                Ok(Err(error)) => {
                    tracing::warn!(%error, "profiles cannot be read");
                    fallback = Some(Reason::ProfilesFailed);
                }
                Err(_) => fallback = Some(Reason::ProfilesSlow),
            }
        }
        if fallback.is_some() {
            self.profiles.failed(&missing, now);
        }
        (self.profiles.get(&names), fallback)
    }

    /// The caller's earlier calls, if they come in time.
    async fn history_of(&self, delivery: &Delivery, now: Instant) -> (Option<History>, Option<Reason>) {
        let Some(contact) = delivery.call.get(Field::Contact) else { return (None, None) };
        let time = self.config.history_time.min(self.config.deadline / 4);
        match tokio::time::timeout(time, self.store.history(contact, &delivery.call.key, now)).await {
            Ok(Ok(history)) => (Some(history), None),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a caller's history cannot be read");
                (None, Some(Reason::HistoryFailed))
            }
            Err(_) => (None, Some(Reason::HistorySlow)),
        }
    }
}

/// Receives one delivery. `reply` computes the answer's `data` while the delivery is kept; it gets `None` where the
/// body could not be read.
pub async fn receive<D: Serialize>(
    app: &App,
    webhook: Webhook,
    request: Request,
    reply: impl AsyncFnOnce(Option<Received<'_>>) -> D,
) -> Response<Body> {
    let started = tokio::time::Instant::now();
    let mut session = None;
    let handled = tokio::time::timeout(app.config.deadline, handle(app, webhook, &request, reply, &mut session));
    let outcome = handled.await.unwrap_or(Err(Problem::Late));
    let elapsed = started.elapsed();
    let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let word = outcome.as_ref().map_or_else(Problem::outcome, |(word, _)| word);
    app.metrics.delivery(webhook, word, elapsed, (app.clock)());
    let (webhook, session) = (webhook.name(), session.as_deref().unwrap_or("-"));
    match outcome {
        Ok((word, data)) => {
            tracing::info!(webhook, session, status = 200, outcome = word, elapsed_ms, "delivery");
            success(&data)
        }
        Err(problem) => {
            let (status, outcome) = (problem.status().as_u16(), problem.outcome());
            if status >= 500 {
                tracing::error!(webhook, session, status, outcome, elapsed_ms, reason = %problem, "delivery");
            } else {
                tracing::warn!(webhook, session, status, outcome, elapsed_ms, reason = %problem, "delivery");
            }
            failure(&problem)
        }
    }
}

async fn handle<D: Serialize>(
    app: &App,
    webhook: Webhook,
    request: &Request,
    reply: impl AsyncFnOnce(Option<Received<'_>>) -> D,
    session: &mut Option<String>,
) -> Result<(&'static str, D), Problem> {
    if request.method() != Method::POST {
        return Err(Problem::Method);
    }
    let received_at = (app.clock)();
    let (body, grant) = verify(app, webhook, request, received_at).await?;
    let delivery = match Delivery::read(webhook, &body, Source::Webhook, app.config.storage.default_country) {
        Ok(delivery) => delivery,
        Err(why) => return quarantine(app, webhook, &body, &grant, &why, received_at, reply(None)).await,
    };
    if grant.session().is_some_and(|id| id != delivery.call.key.id()) {
        return Err(Refused::OtherSession.into());
    }
    *session = Some(printable(delivery.call.key.as_str()));
    let keep = app.store.keep(&delivery, &body, Source::Webhook, received_at);
    let (kept, data) =
        futures_util::future::join(keep, reply(Some(Received { delivery: &delivery, body: body.bytes() }))).await;
    match kept {
        Ok(kept) => Ok((word(kept), data)),
        Err(StoreError::Refused(what)) => {
            let why = StoreError::Refused(what).to_string();
            put_aside(app, webhook, &body, &grant, &why, received_at).await?;
            Ok(("quarantined", data))
        }
        Err(error) => Err(error.into()),
    }
}

async fn quarantine<D>(
    app: &App,
    webhook: Webhook,
    body: &Verified<'_>,
    grant: &Grant,
    why: &NotADelivery,
    received_at: Instant,
    reply: impl Future<Output = D>,
) -> Result<(&'static str, D), Problem> {
    let why = why.to_string();
    let (kept, data) = futures_util::future::join(put_aside(app, webhook, body, grant, &why, received_at), reply).await;
    kept?;
    Ok(("quarantined", data))
}

async fn put_aside(
    app: &App,
    webhook: Webhook,
    body: &Verified<'_>,
    grant: &Grant,
    why: &str,
    received_at: Instant,
) -> Result<(), StoreError> {
    tracing::warn!(webhook = webhook.name(), reason = why, "a verified body cannot be used: kept in quarantine");
    app.store.quarantine(webhook, body, grant.session(), why, received_at).await
}

const fn word(kept: Kept) -> &'static str {
    match kept {
        Kept::Stored => "stored",
        Kept::Duplicate => "duplicate",
        Kept::Superseded => "superseded",
        Kept::Erased => "erased",
    }
}

/// Refuses a delivery only by keys that were read after it came: those known before may have been rotated away.
async fn verify<'a>(
    app: &App,
    webhook: Webhook,
    request: &'a Request,
    received_at: Instant,
) -> Result<(Verified<'a>, Grant), Problem> {
    let keys = app.keyring.keys(received_at).await?;
    match authenticate(&keys, webhook, request, received_at) {
        Err(refused) if refused.may_be_news() => match app.keyring.newer(received_at).await? {
            None => Err(refused.into()),
            Some(newer) => Ok(authenticate(&newer, webhook, request, received_at)?),
        },
        verified => Ok(verified?),
    }
}

fn authenticate<'a>(
    keys: &Keys,
    webhook: Webhook,
    request: &'a Request,
    now: Instant,
) -> Result<(Verified<'a>, Grant), Refused> {
    let body: &[u8] = request.body().as_ref();
    match webhook.provider() {
        Provider::Exotel => keys.tokens.verify(webhook, request.uri().path(), request.uri().query(), body),
        Provider::Vocobase => {
            let header = |name| single_header(request.headers(), name);
            let (signature, timestamp) = (header(vocobase::SIGNATURE), header(vocobase::TIMESTAMP));
            Ok((keys.signatures.verify(signature, timestamp, body, now)?, Grant::AnySession))
        }
    }
}

fn single_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Refused::Missing)?;
    if values.next().is_some() {
        return Err(Refused::Repeated);
    }
    let text = value.to_str().map_err(|_| Refused::Malformed)?;
    if text.len() > MAX_HEADER_BYTES { Err(Refused::Malformed) } else { Ok(text) }
}
