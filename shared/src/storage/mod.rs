//! Keeping deliveries: the event verbatim, then what it changes. The only place that names the AWS SDK's operations.
//!
//! Every step is idempotent and none is undone: a delivery that failed half-way is repaired by its repetition, and
//! [`Store::keep`] returns only after everything is acknowledged.

mod attributes;
mod briefs;
mod calls;
mod clients;
mod erase;
mod events;
mod export;
mod history;
mod jobs;
mod list;
mod profiles;
mod rebuild;
mod recordings;
mod stream;
mod transcripts;
mod undelivered;
mod uploads;
mod whole;

use std::num::NonZeroUsize;
use std::sync::Mutex;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use lru::LruCache;

pub use attributes::{Item, text};
pub use briefs::Brief;
pub use calls::{BY_CONTACT, BY_DAY, DAY_SHARDS, item_to_call};
pub use clients::{Clients, aws, connect, https};
pub use events::{BODIES, Event, QUARANTINE_SHARDS, event_body, event_key, quarantine_key, read_event};
pub use export::Exported;
pub use history::{History, MOST_COUNTED, MOST_READ};
pub use jobs::{Archived, Claimed, Next};
pub use list::{NoPlace, Order, Page, Place, Window};
pub use profiles::ProfileItem;
pub use rebuild::{Difference, Rebuild};
pub use recordings::UNFINISHED;
pub use stream::{Change, Invocation, ItemFailure, Report};
pub use transcripts::item_to_segments;
pub use undelivered::{UNDELIVERED, undelivered_key};
pub use uploads::Part;
pub use whole::Recording;

use crate::auth::Verified;
use crate::call::{Call, Delivery, Field, Source, State};
use crate::config::Storage;
use crate::instant::Instant;
use crate::session::SessionKey;

/// The physical names of the tables.
#[derive(Debug, Clone)]
pub struct Tables {
    /// `EVENTS_TABLE`.
    pub events: String,
    /// `TRANSCRIPTS_TABLE`.
    pub transcripts: String,
    /// `SESSIONS_TABLE`.
    pub sessions: String,
    /// `RECORDINGS_TABLE`.
    pub recordings: String,
    /// `PROFILES_TABLE`.
    pub profiles: String,
}

/// What keeping a delivery came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It was new and said something new.
    Stored,
    /// It had been received before. All of it is there now, whatever became of the first attempt.
    Duplicate,
    /// It was new, but what it says was known better already.
    Superseded,
    /// Its call is erased: nothing is kept.
    Erased,
}

/// Why something could not be kept.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The store will never take this value: a repetition cannot help.
    #[error("the store refuses {0}")]
    Refused(&'static str),
    /// The store did not answer, or not now: a repetition helps.
    #[error("the store failed on {what} ({code})")]
    Unavailable {
        /// Which write or read.
        what: &'static str,
        /// The service's error code or the kind of failure. Never its message, which can quote values.
        code: String,
    },
}

impl StoreError {
    fn from_sdk<E: ProvideErrorMetadata, R>(what: &'static str, error: &SdkError<E, R>) -> Self {
        let kind = match error {
            SdkError::ServiceError(service) => service.err().code().unwrap_or("service error"),
            SdkError::TimeoutError(_) => "timeout",
            SdkError::DispatchFailure(_) => "no connection",
            SdkError::ConstructionFailure(_) => "request not built",
            _ => "unreadable response",
        };
        if kind == "ValidationException" {
            return Self::Refused(what);
        }
        Self::Unavailable { what, code: kind.to_owned() }
    }
}

/// How long a call's cached copy saves a read, and so how long after a call is marked as erased an instance may still
/// store a delivery of it: an eraser marks, waits for this and a function's deadline, and then deletes.
///
/// By the wall clock: a monotonic one stands still while Lambda freezes an instance.
pub const CACHE_FOR_MILLIS: i64 = 10_000;
const CACHED_CALLS: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// The tables and the bucket.
pub struct Store {
    clients: Clients,
    tables: Tables,
    bucket: String,
    retention_days: Option<i64>,
    cache: Option<Mutex<LruCache<SessionKey, Cached>>>,
}

/// The last acknowledged copy of a call.
#[derive(Clone)]
struct Cached {
    call: Call,
    /// The item's own `merged`, which the next write is conditional on.
    merged: String,
    seen_at: Instant,
}

/// A failure that a repetition mends comes before a refusal, or the repetition would never come.
fn mendable<const N: usize>(failed: [Option<&StoreError>; N]) -> Result<(), StoreError> {
    let mendable = failed.into_iter().flatten().find(|error| matches!(error, StoreError::Unavailable { .. }));
    mendable.map_or(Ok(()), |error| Err(error.clone()))
}

impl Store {
    /// A store over real clients.
    pub fn new(clients: Clients, storage: Storage) -> Self {
        let cache = Some(Mutex::new(LruCache::new(CACHED_CALLS)));
        Self { cache, ..Self::without_cache(clients, storage) }
    }

    /// A store that reads a call whenever it needs one: for deliveries that were received long ago, whose time says
    /// nothing of how old a copy is.
    pub fn without_cache(clients: Clients, storage: Storage) -> Self {
        let Storage { tables, bucket, retention_days, .. } = storage;
        Self { clients, tables, bucket, retention_days, cache: None }
    }

    /// Keeps a delivery: the event, then the merges side by side, except that a Vocobase transcript is put beside the
    /// event, since a call names one only once it is whole.
    pub async fn keep(
        &self,
        delivery: &Delivery,
        body: &Verified<'_>,
        source: Source,
        received_at: Instant,
    ) -> Result<Kept, StoreError> {
        let key = &delivery.call.key;
        let seen = self.call_as_seen(key, received_at).await?;
        if seen.as_ref().is_some_and(|seen| seen.call.state == State::Erased) {
            return Ok(Kept::Erased);
        }
        let speech = async {
            match &delivery.transcript {
                Some(transcript)
                    if seen.as_ref().and_then(|seen| seen.call.revision.as_ref()) != Some(&transcript.revision) =>
                {
                    self.put_transcript(key, transcript, self.expiry(delivery.call.started_at, received_at)).await
                }
                _ => Ok(()),
            }
        };
        let event = self.put_event(delivery, body, source, received_at);
        let (event, speech) = futures_util::future::join(event, speech).await;
        mendable([event.as_ref().err(), speech.as_ref().err()])?;
        let event_is_new = event?;
        speech?;
        let known_of = |seen: &Cached| seen.call.get(Field::RecordingState).is_some();
        let unheard_of = event_is_new && !seen.as_ref().is_some_and(known_of);
        let call = self.merge_call(seen, &delivery.call, received_at);
        let recording = async {
            match &delivery.recording {
                Some(wanted) => self.want_recording(key, wanted, unheard_of, received_at).await,
                None => Ok(false),
            }
        };
        let (call, turns, recording) =
            futures_util::future::join3(call, self.put_turns(delivery, received_at), recording).await;
        mendable([call.as_ref().err(), turns.as_ref().err(), recording.as_ref().err()])?;
        let (call, turns, recording) = (call?, turns?, recording?);
        Ok(match (event_is_new, call, turns || recording) {
            (_, calls::Merged::Erased, _) => Kept::Erased,
            (false, ..) => Kept::Duplicate,
            (true, calls::Merged::Unchanged, false) => Kept::Superseded,
            (true, ..) => Kept::Stored,
        })
    }

    /// What it is a store over.
    pub(crate) fn clients(&self) -> &Clients {
        &self.clients
    }

    /// Opens the connections that a delivery needs at once, with the cheapest read there is.
    pub async fn warm(&self) -> Result<(), StoreError> {
        let read = async || {
            let read = self.clients.dynamodb.get_item().table_name(&self.tables.sessions);
            let read = read.key("session", attributes::s("-")).send().await;
            read.map(|_| ()).map_err(|error| StoreError::from_sdk("the first read", &error))
        };
        let (one, other) = futures_util::future::join(read(), read()).await;
        one.and(other)
    }

    /// When an item may be deleted, in seconds since 1970. It counts from what the delivery speaks of, so that
    /// repetitions agree, unless that is far from the receipt: a platform with a wrong clock loses nothing.
    fn expiry(&self, said: Option<Instant>, received_at: Instant) -> Option<i64> {
        const NEAR_MILLIS: i64 = 30 * 24 * 60 * 60 * 1000;
        let from = said.filter(|said| received_at.millis_since(*said).abs() < NEAR_MILLIS).unwrap_or(received_at);
        Some(from.unix_seconds() + self.retention_days? * 24 * 60 * 60)
    }
}
