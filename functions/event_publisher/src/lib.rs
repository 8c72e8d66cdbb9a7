//! Turns changes of calls into events on an EventBridge bus, for whatever else its users run.
//!
//! One function for the streams of three tables: a new delivery in `events`, a call's new state in `sessions`, the end
//! of a job in `recordings`. Every event comes at least once. Its id is a function of what happened, so that whoever
//! receives it twice can tell, in whatever order the deliveries came and however often a record is brought.
//!
//! What the bus does not take is brought again by the stream; what it refuses for good, or has not taken for
//! [`PATIENCE_SECONDS`], is kept in the bucket under `undelivered/`, and `hookswitch undelivered resend` sends it again.

pub mod bus;
pub mod event;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use sha2::{Digest, Sha256};
use shared::auth::Verified;
use shared::call::{Call, Delivery, Field, NotADelivery, State, data, number};
use shared::config::{self, ConfigError, Lookup};
use shared::json::Json;
use shared::logging::printable;
use shared::metrics::Metrics;
use shared::recording::State as Recording;
use shared::storage::{
    Change, Clients, Invocation, Item, ItemFailure, Report, Store, StoreError, Tables, connect, read_event, text,
};
use shared::{Clock, Country, Instant, SessionKey, Webhook};
use tokio::time;

use crate::bus::{Bus, Entry, NotTaken};
use crate::event::{Event, Kind, is_complete};

/// How long the stream brings an event again before it is put aside.
pub const PATIENCE_SECONDS: i64 = 15 * 60;
/// Before each further offer of what the bus did not take, within one invocation.
const WAITS: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(800), Duration::from_millis(3200)];
/// What it takes to put aside what the bus did not take, when time runs out.
const NOTE_TIME: Duration = Duration::from_secs(10);
/// Records that are read at once.
const PARALLEL: usize = 8;

/// The metrics' words.
const PUBLISHED: &str = "published";
const UNDELIVERED: &str = "undelivered";

/// What the function is built from, once per instance.
pub struct Publisher {
    store: Store,
    clients: Clients,
    tables: Tables,
    /// `DEFAULT_COUNTRY`.
    country: Country,
    bus: Bus,
    /// The events' `source`: `hookswitch/<stack>`.
    source: String,
    metrics: Metrics,
    clock: Clock,
}

/// Why a record's events cannot be told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("a record has no call's key")]
    NoSession,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a stored delivery cannot be read: {0}")]
    Unreadable(#[from] NotADelivery),
}

/// An event on its way, and the record that it is of.
struct Due {
    record: usize,
    kind: Kind,
    id: String,
    session: SessionKey,
    entry: Entry,
}

impl Publisher {
    /// Builds it from its environment: `EVENT_BUS_NAME`, `STACK_NAME` and where things are kept.
    pub fn from_environment(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let stack = lookup("STACK_NAME").filter(|name| !name.is_empty()).ok_or(ConfigError::Missing("STACK_NAME"))?;
        let (storage, clients, bus) = (config::Storage::read(lookup)?, connect(lookup)?, Bus::connect(lookup)?);
        let parts = Self::new(storage, clients, bus, &stack, Arc::new(Instant::now));
        Ok(Self { metrics: Metrics::read(lookup), ..parts })
    }

    /// Builds it from its parts, without metrics.
    pub fn new(storage: config::Storage, clients: Clients, bus: Bus, stack: &str, clock: Clock) -> Self {
        Self {
            tables: storage.tables.clone(),
            country: storage.default_country,
            // Without a cache: nothing may be said of a call that was erased a moment ago.
            store: Store::without_cache(clients.clone(), storage),
            clients,
            bus,
            source: format!("{}/{stack}", bus::SOURCE),
            metrics: Metrics::default(),
            clock,
        }
    }

    /// What a change of an item says has happened.
    async fn told(&self, change: &Change) -> Result<Vec<Event>, Untold> {
        if change.table == self.tables.events {
            self.told_by_delivery(change).await
        } else if change.table == self.tables.sessions {
            self.told_by_call(change).await
        } else if change.table == self.tables.recordings {
            self.told_by_recording(change).await
        } else {
            Ok(Vec::new())
        }
    }

    /// The call as it is now, with what is `said` besides; `None` where nothing may be said of it: it is erased, no
    /// call but a test, or a trial of `hookswitch doctor`.
    async fn public(&self, said: Call, now: Instant) -> Result<Option<Call>, StoreError> {
        let call = match self.store.call(&said.key, now).await? {
            Some(call) => call.join(&said),
            None => said,
        };
        Ok(Some(call).filter(|call| call.state != State::Erased && !call.test && !call.key.is_trial()))
    }

    /// A new delivery: that a call began, what was found out, that a human is asked for.
    async fn told_by_delivery(&self, change: &Change) -> Result<Vec<Event>, Untold> {
        let webhook = text(&change.after, "webhook").and_then(|name| name.parse().ok());
        let says = [Webhook::SessionStart, Webhook::SessionEnd, Webhook::InsightsEvents, Webhook::PreAgentTransfer];
        let Some(webhook) = webhook.filter(|webhook| change.is_new && says.contains(webhook)) else {
            return Ok(Vec::new());
        };
        // What is in quarantine belongs to no call.
        if key(&change.keys).is_none() {
            return Ok(Vec::new());
        }
        let stored = read_event(&self.clients, &change.after).await?;
        let delivery = Delivery::read(webhook, &Verified::known(&stored.body), stored.source, self.country)?;
        let Some(call) = self.public(delivery.call.clone(), stored.received_at).await? else { return Ok(Vec::new()) };
        let at = delivery.occurred_at.unwrap_or(stored.received_at);
        let mut events = Vec::new();
        if webhook == Webhook::SessionStart {
            let began = delivery.call.started_at.unwrap_or(at);
            events.push(Event::new(Kind::CallStarted, &call, &[], began));
        }
        let mut told = BTreeSet::new();
        for insight in &delivery.insights {
            let (kind, said) = (insight.kind.as_str(), &insight.said);
            let digest = hex::encode(Sha256::digest(&said.value));
            if told.insert((kind, digest.clone())) {
                let event = Event::new(Kind::CallInsight, &call, &[kind, &digest], said.at.unwrap_or(at));
                let event = event.with("insight_type", Some(Json::text(kind)));
                events.push(event.with("insight", Some(data(&said.value))));
            }
        }
        if webhook == Webhook::PreAgentTransfer {
            let which = text(&change.keys, "event").unwrap_or_default();
            // What it says is the same whenever the record is brought: the first brief of this delivery is kept.
            let Some(brief) = self.store.hand_over(&delivery, stored.received_at).await? else { return Ok(Vec::new()) };
            // The platform does not say when: what the delivery speaks of is the call's start.
            let event = Event::new(Kind::CallTransferRequested, &call, &[which], stored.received_at);
            events.push(event.with("bot", delivery.bot.as_deref().map(Json::text)).with("brief", Some(brief)));
        }
        Ok(events)
    }

    /// A call's new state: that it is over, and that nothing more is waited for.
    async fn told_by_call(&self, change: &Change) -> Result<Vec<Event>, Untold> {
        let key = key(&change.keys).ok_or(Untold::NoSession)?;
        let call = |item: &Item| shared::storage::item_to_call(&key, item);
        let Some(after) = call(&change.after) else { return Ok(Vec::new()) };
        let before = call(&change.before);
        let is_new = |is: &dyn Fn(&Call) -> bool| is(&after) && !before.as_ref().is_some_and(is);
        let ended = is_new(&|call| call.state == State::Ended);
        let completed = is_new(&is_complete);
        if !ended && !completed {
            return Ok(Vec::new());
        }
        let changed_at = change.at.unwrap_or_else(|| (self.clock)());
        let ended_at = after.get(Field::EndedAt).and_then(Instant::parse).unwrap_or(changed_at);
        let Some(call) = self.public(after, changed_at).await? else { return Ok(Vec::new()) };
        let ended = ended.then(|| Event::new(Kind::CallEnded, &call, &[], ended_at));
        let completed = completed.then(|| Event::new(Kind::CallCompleted, &call, &[], changed_at));
        Ok(ended.into_iter().chain(completed).collect())
    }

    /// The end of a recording's job.
    async fn told_by_recording(&self, change: &Change) -> Result<Vec<Event>, Untold> {
        let key = key(&change.keys).ok_or(Untold::NoSession)?;
        let said = |name: &str| text(&change.after, name);
        let Some(state) = said("state").and_then(Recording::from_name) else { return Ok(Vec::new()) };
        let ended = |kind, parts: &[&str]| Some((kind, parts.iter().map(|part| (*part).to_owned()).collect()));
        let which: Option<(Kind, Vec<String>)> = match state {
            Recording::Archived => ended(Kind::RecordingArchived, &[said("sha256").unwrap_or_default()]),
            Recording::Expired | Recording::Rejected | Recording::Failed => {
                ended(Kind::RecordingFailed, &[state.name(), said("source").unwrap_or_default()])
            }
            Recording::Pending | Recording::Copying => None,
        };
        let Some((kind, parts)) = which else { return Ok(Vec::new()) };
        let changed_at = change.at.unwrap_or_else(|| (self.clock)());
        let Some(call) = self.public(Call::new(key), changed_at).await? else { return Ok(Vec::new()) };
        let at = said("archived_at").filter(|_| kind == Kind::RecordingArchived).and_then(Instant::parse);
        let mut recording = BTreeMap::from([("state".to_owned(), Json::text(state.name()))]);
        let mut tell = |name: &str, value: Option<Json>| recording.extend(value.map(|value| (name.to_owned(), value)));
        if kind == Kind::RecordingArchived {
            tell("uri", said("s3_key").map(|key| Json::text(&self.store.s3_uri(key))));
            tell("bytes", said("bytes").map(number));
            tell("sha256", said("sha256").map(Json::text));
            tell("content_type", said("content_type").map(Json::text));
        } else {
            // Words for an operator, without the URL.
            tell("reason", said("last_error").map(Json::text));
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let event = Event::new(kind, &call, &parts, at.unwrap_or(changed_at));
        Ok(vec![event.with("recording", Some(Json::object(&recording)))])
    }

    /// Offers events to the bus, again while there is time; why each that is left was not taken.
    async fn publish(&self, due: Vec<Due>, until: time::Instant) -> Vec<(Due, NotTaken)> {
        let mut left: Vec<(Due, NotTaken)> =
            due.into_iter().map(|due| (due, NotTaken::NotNow("no time was left".to_owned()))).collect();
        let mut refused = Vec::new();
        for wait in [Duration::ZERO].into_iter().chain(WAITS) {
            if left.is_empty() || time::Instant::now() + wait >= until {
                break;
            }
            time::sleep(wait).await;
            let entries: Vec<&Entry> = left.iter().map(|(due, _)| &due.entry).collect();
            let Ok(results) = time::timeout_at(until, self.bus.put(&entries)).await else { break };
            let offered = left.into_iter().zip(results);
            let not_taken = offered.filter_map(|((due, _), result)| Some((due, result.err()?)));
            let (for_good, for_now): (Vec<_>, Vec<_>) = not_taken.partition(|(_, why)| !why.is_for_later());
            refused.extend(for_good);
            left = for_now;
        }
        refused.extend(left);
        refused
    }
}

fn key(keys: &Item) -> Option<SessionKey> {
    text(keys, "session")?.parse().ok()
}

/// Handles one invocation, which ends at `deadline`: publishes what the records tell, and reports which are to be
/// brought again.
pub async fn handle(publisher: &Publisher, invocation: Invocation, deadline: time::Instant) -> Report {
    let records = invocation.records;
    let told: Vec<_> = records.iter().map(|change| publisher.told(change).boxed()).collect();
    let told: Vec<Result<Vec<Event>, Untold>> = stream::iter(told).buffered(PARALLEL).collect().await;
    let mut failed = BTreeSet::new();
    let mut due = Vec::new();
    for (record, told) in told.into_iter().enumerate() {
        match told {
            Ok(events) => due.extend(events.into_iter().map(|event| Due {
                record,
                kind: event.kind,
                id: event.id.clone(),
                session: event.session.clone(),
                entry: Entry { kind: event.kind.name(), event: event.into_json(&publisher.source) },
            })),
            Err(error) => {
                let session = text(&records[record].keys, "session").map(printable).unwrap_or_default();
                tracing::error!(session, %error, "what a change of a call says cannot be told");
                failed.insert(record);
            }
        }
    }
    let mut counts: BTreeMap<(Kind, &str), u32> = BTreeMap::new();
    for due in &due {
        *counts.entry((due.kind, PUBLISHED)).or_default() += 1;
    }
    for (due, why) in publisher.publish(due, deadline - NOTE_TIME).await {
        let Due { record, kind, id, session, entry } = due;
        *counts.entry((kind, PUBLISHED)).or_default() -= 1;
        let now = (publisher.clock)();
        let age = records[record].at.map_or(0, |at| now.millis_since(at) / 1000);
        let session = printable(session.as_str());
        if why.is_for_later() && age < PATIENCE_SECONDS {
            tracing::warn!(session, %id, kind = kind.name(), %why, "an event is not published yet");
            failed.insert(record);
            continue;
        }
        match publisher.store.put_undelivered(&now.day(), &id, entry.event).await {
            Ok(()) => {
                tracing::error!(session, %id, kind = kind.name(), %why, "an event is put aside, undelivered");
                *counts.entry((kind, UNDELIVERED)).or_default() += 1;
            }
            Err(error) => {
                tracing::error!(session, %id, kind = kind.name(), %why, %error, "an event cannot be put aside");
                failed.insert(record);
            }
        }
    }
    let now = (publisher.clock)();
    for ((kind, outcome), count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        tracing::info!(kind = kind.name(), outcome, count, "events");
        publisher.metrics.events(kind.name(), outcome, count, now);
    }
    let failure = |record: usize| ItemFailure { item_identifier: records[record].sequence_number.clone() };
    Report { batch_item_failures: failed.into_iter().map(failure).collect() }
}
