//! Finds what never came. Vocobase gives a webhook up after four attempts in seven seconds, but keeps the call: this
//! function lists the platform's calls, stores those whose `session.completed` is missing as if it had come, and has
//! the URLs of recordings made anew that expired before they were archived.
//!
//! Sessions without a telephone call are not listed by the platform, so what is lost of them stays lost.

pub mod api;

use std::collections::HashSet;
use std::time::Duration;

use shared::auth::Verified;
use shared::call::{Delivery, Source};
use shared::config::{self, ConfigError, Lookup};
use shared::logging::printable;
use shared::metrics::Metrics;
use shared::secrets::{Secrets, Unread};
use shared::storage::{Clients, Kept, Store, StoreError, connect};
use shared::{Clock, Country, Instant, Provider, SessionKey, Webhook};
use tokio::time;
use url::Url;

use crate::api::{Api, ApiError, Listed, Patience, Told, told};

/// Where the platform's API is.
const DEFAULT_URL: &str = "https://api.vocobase.com/api/v2";
/// How far back calls are looked for, in hours.
const DEFAULT_HOURS: i64 = 24;
/// How many calls are asked for at once; the API allows no more.
const MOST_A_PAGE: usize = 100;
/// A call that ended less than this ago may still be told of by its webhook.
const GRACE_SECONDS: i64 = 120;
/// A window that begins before everything would hold nothing.
const MOST_HOURS: i64 = 365 * 24;
/// What it takes to say how a run ended, when time runs out.
const SAY_TIME: Duration = Duration::from_secs(1);

/// What the function is built from, once per instance.
pub struct Reconciler {
    store: Store,
    api: Api,
    patience: Patience,
    key: Key,
    hours: i64,
    page_size: usize,
    metrics: Metrics,
    clock: Clock,
    /// Of telephone numbers that come without its code.
    default_country: Country,
}

/// The platform's API key. It is a secret: no `Debug`.
enum Key {
    Given(String),
    Managed(Secrets, String),
    None,
}

/// What one run found.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
pub struct Found {
    /// Calls that the platform lists within the window, each once.
    pub listed: u32,
    /// Missing calls that are stored now.
    pub recovered: u32,
    /// Lost recordings that have a new URL now.
    pub urls_renewed: u32,
    /// Missing calls and lost recordings for which there was no help.
    pub not_recovered: u32,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything was looked at.
    Complete(Found),
    /// Time ran out: the next run goes on.
    CutShort(Found),
    /// The platform or a store failed. What was found until then is kept.
    Failed(Found, String),
    /// No key is configured.
    Off,
}

/// Why a run stops.
enum Stop {
    Api(ApiError),
    Store(StoreError),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Reconciler {
    /// Builds it from its environment: `VOCOBASE_API_KEY` or `VOCOBASE_API_KEY_SECRET_ARN`, `VOCOBASE_API_URL`,
    /// `RECONCILE_HOURS`, `RECONCILE_PAGE_SIZE`, and where things are kept.
    pub fn from_environment(lookup: Lookup<'_>, clock: Clock) -> Result<Self, ConfigError> {
        let parts = Self::new(lookup, connect(lookup)?, Patience::default(), clock)?;
        Ok(Self { metrics: Metrics::read(lookup), ..parts })
    }

    /// Builds it from its parts, without metrics.
    pub fn new(lookup: Lookup<'_>, clients: Clients, patience: Patience, clock: Clock) -> Result<Self, ConfigError> {
        const URL: &str = "VOCOBASE_API_URL";
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let base = set(URL).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let base = Url::parse(&base).map_err(|_| ConfigError::Bad(URL, "is no URL"))?;
        if !Api::takes_keys(&base) {
            return Err(ConfigError::Bad(URL, "is not https: the key would be sent in clear"));
        }
        let hours = config::positive(lookup, "RECONCILE_HOURS")?.unwrap_or(DEFAULT_HOURS);
        if hours > MOST_HOURS {
            return Err(ConfigError::Bad("RECONCILE_HOURS", "is more than the 8760 of a year"));
        }
        let key = match (set("VOCOBASE_API_KEY"), set("VOCOBASE_API_KEY_SECRET_ARN")) {
            (Some(key), _) if !is_key(&key) => {
                return Err(ConfigError::Bad("VOCOBASE_API_KEY", "cannot be sent as a key"));
            }
            (Some(key), _) => Key::Given(key),
            (None, Some(arn)) => Key::Managed(Secrets::connect(lookup)?, arn),
            (None, None) => Key::None,
        };
        let page_size = config::positive(lookup, "RECONCILE_PAGE_SIZE")?.and_then(|size| usize::try_from(size).ok());
        let page_size = page_size.unwrap_or(MOST_A_PAGE);
        if page_size > MOST_A_PAGE {
            return Err(ConfigError::Bad("RECONCILE_PAGE_SIZE", "is more than the 100 that the API allows"));
        }
        // That one is installed already is what this wants.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().referer(false);
        let http = http.build().map_err(|_| ConfigError::Bad("TLS", "cannot be set up"))?;
        Ok(Self {
            default_country: config::country(lookup)?,
            store: Store::new(clients, config::Storage::read(lookup)?),
            api: Api::new(http, base, patience),
            patience,
            key,
            hours,
            page_size,
            metrics: Metrics::default(),
            clock,
        })
    }

    /// Looks for everything that is missing, until `deadline` at most. One line of the log says what came of it.
    pub async fn run(&self, deadline: time::Instant) {
        let ended = self.reconcile(deadline).await;
        let (word, found) = match &ended {
            Ended::Complete(found) => ("complete", *found),
            Ended::CutShort(found) => ("cut_short", *found),
            Ended::Failed(found, _) => ("failed", *found),
            Ended::Off => ("off", Found::default()),
        };
        let Found { listed, recovered, urls_renewed, not_recovered } = found;
        match &ended {
            Ended::Off => tracing::info!(outcome = word, "no API key is set: nothing is reconciled"),
            Ended::Failed(_, reason) => {
                tracing::error!(outcome = word, reason, listed, recovered, urls_renewed, not_recovered, "reconciled");
            }
            _ => tracing::info!(outcome = word, listed, recovered, urls_renewed, not_recovered, "reconciled"),
        }
        let counts = [("recovered", recovered), ("url_renewed", urls_renewed), ("not_recovered", not_recovered)];
        self.metrics.reconciled(word, &counts, (self.clock)());
    }

    /// As [`Self::run`], and says how it ended.
    pub async fn reconcile(&self, deadline: time::Instant) -> Ended {
        let mut found = Found::default();
        let managed;
        let key = match &self.key {
            Key::None => return Ended::Off,
            Key::Given(key) => key,
            Key::Managed(secrets, arn) => match secrets.read(arn).await {
                Ok(key) => {
                    managed = key;
                    managed.trim()
                }
                Err(Unread::Empty) => return Ended::Off,
                Err(why) => return Ended::Failed(found, format!("the API key's secret cannot be read: {why}")),
            },
        };
        if !is_key(key) {
            return Ended::Failed(found, "the API key's secret holds no key".to_owned());
        }
        let end = deadline - SAY_TIME;
        let until = end - self.patience.store;
        let run = Run { reconciler: self, key, begin_until: until - self.patience.request, until };
        // Everything that is cut short here is repaired by its repetition.
        match time::timeout_at(end, run.everything(&mut found)).await {
            Ok(Ok(())) => Ended::Complete(found),
            Err(_) | Ok(Err(Stop::Api(ApiError::OutOfTime))) => Ended::CutShort(found),
            Ok(Err(Stop::Api(error @ (ApiError::Status(_) | ApiError::Odd(_))))) => {
                Ended::Failed(found, format!("{error}: is VOCOBASE_API_URL right?"))
            }
            Ok(Err(Stop::Api(error))) => Ended::Failed(found, error.to_string()),
            Ok(Err(Stop::Store(error))) => Ended::Failed(found, error.to_string()),
        }
    }
}

/// Whether a header can carry it: a secret may hold anything.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn read(body: &[u8], country: Country) -> Result<Delivery, ApiError> {
    let read = Delivery::read(Webhook::SessionCompleted, &Verified::known(body), Source::Reconciler, country);
    read.map_err(|_| ApiError::Odd("a call"))
}

/// One run.
struct Run<'a> {
    reconciler: &'a Reconciler,
    key: &'a str,
    /// Nothing is begun after this: one request and one delivery take as long as is left then.
    begin_until: time::Instant,
    /// The platform is not waited for after this.
    until: time::Instant,
}

impl Run<'_> {
    async fn everything(&self, found: &mut Found) -> Result<(), Stop> {
        match self.calls(found).await {
            // What stops one would stop the other.
            Err(stop @ Stop::Api(_)) => Err(stop),
            calls => calls.and(self.recordings(found).await),
        }
    }

    /// Stores what is missing of the calls within the window.
    async fn calls(&self, found: &mut Found) -> Result<(), Stop> {
        let Reconciler { api, page_size, hours, clock, .. } = self.reconciler;
        let now = clock();
        let (since, settled) = (now.plus_seconds(-hours * 3600), now.plus_seconds(-GRACE_SECONDS));
        let (mut seen, mut begun, mut offset) = (HashSet::new(), Vec::new(), 0);
        loop {
            self.time_is_left()?;
            let page = api.page(self.key, *page_size, offset, self.until).await?;
            let on_page = page.calls.len();
            // New calls push the others down while this reads, so a call may come twice; none is passed over.
            let mut calls = page.calls;
            calls.retain(|call| seen.insert(call.call_id.clone()));
            begun.extend(calls.iter().map(|call| call.created_at));
            calls.retain(|call| call.created_at.is_none_or(|at| at >= since));
            found.listed += u32::try_from(calls.len()).unwrap_or(u32::MAX);
            self.store_missing(&calls, settled, found).await?;
            offset += on_page;
            // One call alone, or several of one instant, say nothing of the order.
            let newest_first = begun.is_sorted_by(|a, b| a >= b) && begun.first() > begun.last();
            let left_the_window = newest_first && begun.last().is_some_and(|at| at.is_some_and(|at| at < since));
            if on_page == 0 || left_the_window || offset >= page.total {
                return Ok(());
            }
        }
    }

    async fn store_missing(&self, calls: &[Listed], settled: Instant, found: &mut Found) -> Result<(), Stop> {
        let over = |call: &&Listed| {
            !matches!(call.status.as_deref(), Some("pending" | "ringing" | "in_progress"))
                && call.ended_at.or(call.created_at).is_none_or(|at| at < settled)
        };
        let named = calls.iter().filter(over).filter_map(|call| {
            Some((SessionKey::new(Provider::Vocobase, call.session_id.as_deref()?).ok()?, &call.call_id))
        });
        let named: Vec<(SessionKey, &String)> = named.collect();
        if named.is_empty() {
            return Ok(());
        }
        let keys: Vec<SessionKey> =
            named.iter().map(|(key, _)| key.clone()).collect::<HashSet<_>>().into_iter().collect();
        let missing: HashSet<SessionKey> = self.reconciler.store.not_whole(&keys).await?.into_iter().collect();
        for (key, call_id) in named.into_iter().filter(|(key, _)| missing.contains(key)) {
            self.time_is_left()?;
            match self.store_call(&key, call_id).await {
                Ok(true) => found.recovered += 1,
                Ok(false) => {}
                Err(Stop::Api(error)) if !error.concerns_all() => {
                    found.not_recovered += 1;
                    tracing::warn!(session = %printable(key.as_str()), reason = %error, "a missing call cannot be recovered");
                }
                Err(Stop::Store(error @ StoreError::Refused(_))) => {
                    found.not_recovered += 1;
                    tracing::warn!(session = %printable(key.as_str()), reason = %error, "a missing call cannot be recovered");
                }
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Stores a call as its webhook would have; `false` if there is nothing to store yet, or any more.
    async fn store_call(&self, key: &SessionKey, call_id: &str) -> Result<bool, Stop> {
        let Reconciler { api, store, clock, .. } = self.reconciler;
        let answer = api.call(self.key, call_id, self.until).await?;
        let Told::Delivery(mut body) = told(&answer, None)? else { return Ok(false) };
        let mut delivery = read(&body, self.reconciler.default_country)?;
        if delivery.call.key != *key {
            return Err(ApiError::Odd("the call that was asked for").into());
        }
        let now = clock();
        let expires_at = delivery.recording.as_ref().and_then(|wanted| wanted.expires_at);
        // Without another URL the archiver will say that this one has expired, and the next run asks again.
        if expires_at.is_some_and(|at| at <= now)
            && let Some(url) = self.new_url(key, call_id).await?
            && let Told::Delivery(renewed) = told(&answer, Some(&url))?
        {
            body = renewed;
            delivery = read(&body, self.reconciler.default_country)?;
        }
        let body = Verified::known(&body);
        match store.keep(&delivery, &body, Source::Reconciler, now).await? {
            // A run before this one may have come half the way.
            Kept::Stored | Kept::Duplicate => {
                tracing::info!(session = %printable(key.as_str()), "a call is stored whose webhook never came");
                Ok(true)
            }
            // Meanwhile its webhook came, or it was erased.
            Kept::Superseded | Kept::Erased => Ok(false),
        }
    }

    /// Has the URLs of recordings made anew that were lost within the window.
    async fn recordings(&self, found: &mut Found) -> Result<(), Stop> {
        let Reconciler { store, clock, hours, .. } = self.reconciler;
        let now = clock();
        for key in store.lost_recordings(now.plus_seconds(-hours * 3600)).await? {
            if key.provider() != Provider::Vocobase {
                continue;
            }
            self.time_is_left()?;
            // Only a telephone call has a recording that can be asked for.
            let Some(call_id) = store.call_id(&key, now).await? else {
                found.not_recovered += 1;
                continue;
            };
            match self.new_url(&key, &call_id).await? {
                // Unless it is not lost any more: a webhook may have brought a newer URL meanwhile.
                Some(url) => found.urls_renewed += u32::from(store.offer_recording(&key, url, now).await?),
                None => found.not_recovered += 1,
            }
        }
        Ok(())
    }

    /// A recording's URL, made anew; `None`, and a line of the log, if the platform has none.
    async fn new_url(&self, key: &SessionKey, call_id: &str) -> Result<Option<String>, Stop> {
        match self.reconciler.api.recording_url(self.key, call_id, self.until).await {
            Ok(url) => Ok(Some(url)),
            Err(error) if error.concerns_all() => Err(error.into()),
            Err(error) => {
                let session = printable(key.as_str());
                tracing::warn!(%session, reason = %error, "a recording's URL cannot be made anew");
                Ok(None)
            }
        }
    }

    fn time_is_left(&self) -> Result<(), Stop> {
        if time::Instant::now() < self.begin_until { Ok(()) } else { Err(ApiError::OutOfTime.into()) }
    }
}
