//! Keeps one document of each finished call in the bucket, for analysis: `docs/calls/` describes it.
//!
//! The streams of two tables say that a call may have changed: `sessions`, and `transcripts`, since a late turn leaves
//! the call's item as it is. They only say so: a document is made of what the tables hold when it is written.
//!
//! Two runs at once never leave the older document. A run first looks at the document that is there, then reads the
//! tables, and puts its own only in the place of the one it saw: so of two documents the later put is the later read.
//! And after a put it reads the call again: a document may not outlive its call's erasure, nor stay where the call has
//! been filed before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use shared::call::{Call, Field, State};
use shared::config::{self, ConfigError, Lookup};
use shared::document::Document;
use shared::logging::printable;
use shared::metrics::Metrics;
use shared::recording::State as Recording;
use shared::storage::{
    Change, Clients, Invocation, ItemFailure, Report, Store, StoreError, connect, item_to_call, text,
};
use shared::{Clock, Instant, SessionKey};
use tokio::time;

/// Calls that are looked after at once.
const PARALLEL: usize = 8;
/// A document that so many others replace in turn is left to the next change, or to the record being brought again.
const MAX_ATTEMPTS: u32 = 16;
/// What it takes to report, when time runs out.
const NOTE_TIME: Duration = Duration::from_secs(2);
/// The archiver tells the call first, and then notes in the job what it has archived: this long it may take.
const SETTLING: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(600),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];

/// What the function is built from, once per instance.
pub struct Exporter {
    store: Store,
    /// `SESSIONS_TABLE`.
    sessions: String,
    metrics: Metrics,
    clock: Clock,
}

/// What became of a call's document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It says something new.
    Written,
    /// It says the same already.
    Unchanged,
    /// There must be none, and there is none now.
    Removed,
    /// There is none: the call goes on, or is not stored any more.
    None,
}

impl Outcome {
    /// The metrics' word.
    const fn name(self) -> Option<&'static str> {
        match self {
            Self::Written => Some("written"),
            Self::Unchanged => Some("unchanged"),
            Self::Removed => Some("removed"),
            Self::None => None,
        }
    }
}

/// The metrics' word for a call whose records are to be brought again.
const FAILED: &str = "failed";

/// Why a call's document is not as it must be.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others wrote it again and again.
    #[error("others are writing the same document")]
    Contention,
    /// The invocation ends.
    #[error("no time was left")]
    NoTime,
}

impl Exporter {
    /// Builds it from its environment.
    pub fn from_environment(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let parts = Self::new(config::Storage::read(lookup)?, connect(lookup)?, Arc::new(Instant::now));
        Ok(Self { metrics: Metrics::read(lookup), ..parts })
    }

    /// Builds it from its parts, without metrics.
    pub fn new(storage: config::Storage, clients: Clients, clock: Clock) -> Self {
        let sessions = storage.tables.sessions.clone();
        Self { store: Store::without_cache(clients, storage), sessions, metrics: Metrics::default(), clock }
    }

    /// Sees to it that a call's document says what the tables hold, and that there is none under the keys of `earlier`.
    pub async fn export(&self, key: &SessionKey, mut earlier: BTreeSet<String>) -> Result<Outcome, Trouble> {
        for attempt in 0..MAX_ATTEMPTS {
            if attempt > 2 {
                // Many at once: spread them out.
                time::sleep(Duration::from_millis(u64::from(key.shard(16)) + (4 << attempt.min(8)))).await;
            }
            let Some(call) = self.call(key).await? else { return Ok(Outcome::None) };
            if !call.has_document() {
                return self.remove(&call, earlier).await;
            }
            let place = call.document_key();
            let seen = self.store.exported(&place).await?;
            // Only what is read from here on is newer than what is there.
            let Some(call) = self.call(key).await? else { return Ok(Outcome::None) };
            if !call.has_document() || call.document_key() != place {
                earlier.insert(place);
                continue;
            }
            let line = self.describe(&call).await?.to_line();
            let is_news = seen.as_ref().is_none_or(|seen| seen.line != line.as_bytes());
            if is_news {
                let was_put = self.store.export(&place, seen.as_ref().map(|seen| seen.etag.as_str()), line).await?;
                if !was_put || self.call(key).await?.as_ref() != Some(&call) {
                    earlier.insert(place);
                    continue;
                }
            }
            earlier.remove(&place);
            for key in &earlier {
                self.store.remove_exported(key).await?;
            }
            return Ok(if is_news { Outcome::Written } else { Outcome::Unchanged });
        }
        Err(Trouble::Contention)
    }

    /// Removes the documents of a call that must not have one.
    async fn remove(&self, call: &Call, mut places: BTreeSet<String>) -> Result<Outcome, Trouble> {
        if call.state == State::InProgress {
            return Ok(Outcome::None);
        }
        // Nothing is left of an erased call that says where it was.
        if call.state != State::Erased {
            places.insert(call.document_key());
        }
        for key in &places {
            self.store.remove_exported(key).await?;
        }
        Ok(Outcome::Removed)
    }

    async fn call(&self, key: &SessionKey) -> Result<Option<Call>, StoreError> {
        self.store.fresh_call(key, (self.clock)()).await
    }

    /// The document of a call; where its recording is archived, once its job says so too, if that is soon.
    async fn describe(&self, call: &Call) -> Result<Document, StoreError> {
        let is_archived = call.get(Field::RecordingState) == Some(Recording::Archived.name());
        for wait in SETTLING.iter().take_while(|_| is_archived) {
            let job = self.store.recording(&call.key).await?;
            if job.is_none_or(|job| job.state != Recording::Copying) {
                break;
            }
            time::sleep(*wait).await;
        }
        self.store.describe(call).await
    }

    /// Where the document was before a change, or just after it, as far as the stream tells: a run that died may have
    /// left one there, of a call that is erased by now.
    fn earlier(&self, key: &SessionKey, change: &Change) -> impl Iterator<Item = String> {
        let images = [&change.before, &change.after].into_iter().filter(|_| change.table == self.sessions);
        let calls = images.filter_map(|image| item_to_call(key, image)).filter(Call::has_document);
        calls.map(|call| call.document_key())
    }
}

/// Handles one invocation, which ends at `deadline`: looks after the documents of the calls that the records are of, and
/// reports which records are to be brought again.
pub async fn handle(exporter: &Exporter, invocation: Invocation, deadline: time::Instant) -> Report {
    let records = invocation.records;
    let mut calls: BTreeMap<SessionKey, (BTreeSet<String>, Vec<&str>)> = BTreeMap::new();
    for record in &records {
        // What has no call's key is none of ours.
        if let Some(key) = text(&record.keys, "session").and_then(|key| key.parse().ok()) {
            let earlier: Vec<String> = exporter.earlier(&key, record).collect();
            let (places, numbers) = calls.entry(key).or_default();
            places.extend(earlier);
            numbers.push(&record.sequence_number);
        }
    }
    let until = deadline - NOTE_TIME;
    let export = async |(key, (places, numbers)): (SessionKey, (BTreeSet<String>, Vec<&str>))| {
        let done = time::timeout_at(until, exporter.export(&key, places)).await;
        let outcome = done.unwrap_or(Err(Trouble::NoTime));
        (key, numbers.into_iter().map(str::to_owned).collect::<Vec<_>>(), outcome)
    };
    let done: Vec<_> = stream::iter(calls).map(export).buffer_unordered(PARALLEL).collect().await;
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut failures = Vec::new();
    for (key, numbers, outcome) in done {
        let word = match outcome {
            Ok(outcome) => outcome.name(),
            Err(error) => {
                let session = printable(key.as_str());
                tracing::error!(session, %error, "a call cannot be exported");
                failures.extend(numbers.into_iter().map(|number| ItemFailure { item_identifier: number }));
                Some(FAILED)
            }
        };
        if let Some(word) = word {
            *counts.entry(word).or_default() += 1;
        }
    }
    let now = (exporter.clock)();
    for (outcome, count) in counts {
        tracing::info!(outcome, count, "documents");
        exporter.metrics.documents(outcome, count, now);
    }
    Report { batch_item_failures: failures }
}
