//! Copies recordings out of expiring URLs into the bucket, before they expire.
//!
//! One function for two triggers: the stream of the `recordings` table brings new jobs at once, and a schedule sweeps
//! up what is unfinished, what expires soonest first. A job is claimed under a lease, so that two workers never hold it.

pub mod copy;
pub mod media;
pub mod source;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use shared::config::{self, ConfigError, Lookup};
use shared::logging::printable;
use shared::metrics::Metrics;
use shared::recording::State;
use shared::storage::{Claimed, Clients, ItemFailure, Next, Report, Store, StoreError, connect};
use shared::{Clock, Instant, SessionKey};
use tokio::time;

use crate::copy::{CopyError, copy};
use crate::source::{Hosts, Limits, Sources, Trouble};

/// A job that failed so often is given up.
const MAX_ATTEMPTS: u32 = 12;
/// The first wait after a failure; each further one doubles it.
const FIRST_WAIT_SECONDS: i64 = 30;
const LONGEST_WAIT_SECONDS: i64 = 60 * 60;
/// Before its URL expires a job is tried at ever shorter waits, but not shorter than this.
const SHORTEST_WAIT_SECONDS: i64 = 5;
/// A lease outlives the longest invocation that Lambda allows, 15 minutes.
const LEASE_SECONDS: i64 = 16 * 60;
/// What it takes to note how far a job came, when time runs out.
const NOTE_TIME: Duration = Duration::from_secs(5);
/// With less time than this a sweep begins no further job.
const WORTH_BEGINNING: Duration = Duration::from_secs(20);
/// Jobs that a sweep looks for at once, at most, of each shard.
const SWEEP: usize = 50;
/// Jobs that an invocation works on side by side. Each has some 48 MB in memory at most, of the function's 512.
pub const PARALLEL: usize = 8;

/// The metrics' word for a recording that will be tried again.
const WAITING: &str = "waiting";

/// What the function is built from, once per instance.
pub struct Archiver {
    store: Store,
    metrics: Metrics,
    sources: Sources,
    clock: Clock,
}

/// What a job came to in this invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The recording is in the bucket.
    Archived,
    /// It is not, and will be tried again.
    Waiting,
    /// It will not be tried again, unless somebody or a newer URL asks for it.
    GivenUp(State),
    /// It was not to be had: finished, not due, or another worker's.
    NotOurs,
}

impl Archiver {
    /// Builds it from its environment: `RECORDING_HOSTS`, `RECORDING_MAX_BYTES`, `RECORDING_CA_FILE` and where things
    /// are kept.
    pub fn from_environment(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let (hosts, limits) = rules(lookup)?;
        let ca = match lookup("RECORDING_CA_FILE").filter(|path| !path.is_empty()) {
            None => None,
            Some(path) => {
                Some(std::fs::read(path).map_err(|_| ConfigError::Bad("RECORDING_CA_FILE", "cannot be read"))?)
            }
        };
        let sources = Sources::public(hosts, limits, system_lookup(), ca.as_deref())
            .map_err(|_| ConfigError::Bad("RECORDING_CA_FILE", "holds no certificate that can be read"))?;
        let parts = Self::new(config::Storage::read(lookup)?, connect(lookup)?, sources, Arc::new(Instant::now));
        Ok(Self { metrics: Metrics::read(lookup), ..parts })
    }

    /// Builds it from its parts, without metrics.
    pub fn new(storage: config::Storage, clients: Clients, sources: Sources, clock: Clock) -> Self {
        Self { store: Store::new(clients, storage), metrics: Metrics::default(), sources, clock }
    }

    /// Works on one job, if it is to be had. `worker` is unlike any other worker's name.
    pub async fn archive(&self, key: &SessionKey, worker: &str, until: time::Instant) -> Result<Outcome, StoreError> {
        let now = (self.clock)();
        let lease = format!("{worker}#{}", now.unix_micros());
        let Some(job) = self.store.claim_recording(key, &lease, now, now.plus_seconds(LEASE_SECONDS)).await? else {
            return Ok(Outcome::NotOurs);
        };
        if let Some((s3_key, upload)) = &job.abandoned
            && let Err(error) = self.store.abort_upload(s3_key, upload).await
        {
            // The bucket's lifecycle removes it in the end; the recording must not wait for that.
            tracing::warn!(session = %printable(key.as_str()), %error, "an abandoned upload could not be aborted");
        }
        let outcome = self.work(&job, now, until).await;
        if let Err(error) = &outcome {
            // The job is let go of, for whoever is brought it next. If this fails too, the lease runs out by itself.
            let now = (self.clock)();
            let wait = Next::Retry(now.plus_seconds(FIRST_WAIT_SECONDS));
            let _ = self.store.recording_not_archived(&job, &error.to_string(), wait, now).await;
            self.metrics.recording(WAITING, now);
        }
        outcome
    }

    /// Works on a job that this worker holds. An error is the store's: what is wrong with a recording is its job's
    /// state.
    async fn work(&self, job: &Claimed, now: Instant, until: time::Instant) -> Result<Outcome, StoreError> {
        let began = time::Instant::now();
        let began_at = self.store.call_started_at(&job.key, now).await?.unwrap_or(now);
        let copied = copy(&self.store, &self.sources, job, &object_prefix(&job.key, began_at), until).await;
        let (now, session) = ((self.clock)(), printable(job.key.as_str()));
        let outcome = match copied {
            Ok(archived) => {
                if self.store.recording_archived(job, &archived, now).await? {
                    tracing::info!(%session, bytes = archived.bytes, attempts = job.attempts, "recording archived");
                    self.metrics.archived(archived.bytes, began.elapsed(), job.wanted_at, now);
                    return Ok(Outcome::Archived);
                }
                Outcome::Waiting
            }
            Err(CopyError::Store(error)) => return Err(error),
            Err(error) => {
                let next = next(job, &error, now);
                tracing::warn!(%session, attempts = job.attempts, reason = %error, "recording not archived");
                if self.store.recording_not_archived(job, &error.to_string(), next, now).await? {
                    let (outcome, word) = match next {
                        Next::Retry(_) => (Outcome::Waiting, WAITING),
                        Next::GiveUp(state) => (Outcome::GivenUp(state), state.name()),
                    };
                    self.metrics.recording(word, now);
                    return Ok(outcome);
                }
                Outcome::Waiting
            }
        };
        // Neither end could be noted: another URL is wanted by now, or another worker holds the job.
        self.store.recording_wanted_anew(job).await?;
        Ok(outcome)
    }

    /// Works on what is unfinished, soonest expiry first, in the time there is; how many were archived.
    pub async fn sweep(&self, worker: &str, until: time::Instant) -> Result<usize, StoreError> {
        let (mut archived, mut failed) = (0, None);
        loop {
            let due = self.store.due_recordings((self.clock)(), SWEEP).await?;
            let (found, mut moved) = (due.len(), false);
            let work = |key: SessionKey| async move {
                if time::Instant::now() + WORTH_BEGINNING > until {
                    return Ok(Outcome::NotOurs);
                }
                self.archive(&key, worker, until).await
            };
            let mut outcomes = stream::iter(due).map(work).buffer_unordered(PARALLEL);
            while let Some(outcome) = outcomes.next().await {
                // One job that the store fails must not hold up the others.
                match outcome {
                    Ok(outcome) => {
                        archived += usize::from(outcome == Outcome::Archived);
                        moved |= outcome != Outcome::NotOurs;
                    }
                    Err(error) => failed = Some(error),
                }
            }
            // More is left behind only if a shard was full; and where nothing moves, looking again would not help.
            if found < SWEEP || !moved {
                break;
            }
        }
        self.metrics.oldest_unfinished(self.store.oldest_unfinished_recording().await?, (self.clock)());
        failed.map_or(Ok(archived), Err)
    }
}

/// `RECORDING_HOSTS` (default `s3`) and `RECORDING_MAX_BYTES`.
pub fn rules(lookup: Lookup<'_>) -> Result<(Hosts, Limits), ConfigError> {
    let hosts = match lookup("RECORDING_HOSTS").filter(|list| !list.is_empty()) {
        None => Hosts::s3(),
        Some(list) => Hosts::parse(&list)
            .ok_or(ConfigError::Bad("RECORDING_HOSTS", "is not a list of host names, *.domains and s3"))?,
    };
    let mut limits = Limits::default();
    if let Some(max_bytes) = config::positive(lookup, "RECORDING_MAX_BYTES")? {
        limits.max_bytes = max_bytes.unsigned_abs();
    }
    Ok((hosts, limits))
}

/// Names as the system resolves them.
pub fn system_lookup() -> source::Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 443)).await?.collect()) }))
}

/// What a failure means for its job.
fn next(job: &Claimed, error: &CopyError, now: Instant) -> Next {
    let retry_after = match error {
        CopyError::Source(trouble) => match trouble {
            Trouble::Rejected(_) => return Next::GiveUp(State::Rejected),
            Trouble::Refused(_) if now >= job.expires_at => return Next::GiveUp(State::Expired),
            Trouble::TooLong(_) | Trouble::Redirects => return Next::GiveUp(State::Failed),
            Trouble::Busy(_, retry_after) => retry_after.and_then(|seconds| i64::try_from(seconds).ok()),
            _ => None,
        },
        _ => None,
    };
    if job.attempts >= MAX_ATTEMPTS {
        return Next::GiveUp(State::Failed);
    }
    let wait = wait_seconds(&job.key, job.attempts).max(retry_after.unwrap_or_default().min(LONGEST_WAIT_SECONDS));
    // Not past the URL's end, or the last chance would be slept through.
    let left = job.expires_at.millis_since(now) / 1000;
    let wait = if left > SHORTEST_WAIT_SECONDS { wait.min((left / 2).max(SHORTEST_WAIT_SECONDS)) } else { wait };
    Next::Retry(now.plus_seconds(wait))
}

/// Doubles with every attempt, less up to half by a hash of the job, so that jobs that failed together do not come
/// back together.
fn wait_seconds(key: &SessionKey, attempts: u32) -> i64 {
    let longest = FIRST_WAIT_SECONDS.saturating_mul(1 << attempts.saturating_sub(1).min(20)).min(LONGEST_WAIT_SECONDS);
    let digest = Sha256::digest(format!("{key}#{attempts}"));
    longest - longest / 2 * i64::from(digest[0]) / 255
}

/// `recordings/<provider>/<yyyy>/<mm>/<dd>/<session id>`.
fn object_prefix(key: &SessionKey, began_at: Instant) -> String {
    let day = began_at.day().replace('-', "/");
    format!("recordings/{}/{day}/{}", key.provider().name(), key.object_name())
}

/// What the function is invoked with: records of the table's stream, or the schedule's event, which has none.
#[derive(Debug, Deserialize)]
pub struct Invocation {
    /// Source: AWS Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB", example event.
    #[serde(default, rename = "Records")]
    pub records: Vec<Record>,
}

/// A change of a job.
#[derive(Debug, Deserialize)]
pub struct Record {
    dynamodb: Change,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Change {
    keys: Keys,
    sequence_number: String,
}

#[derive(Debug, Deserialize)]
struct Keys {
    session: Text,
}

#[derive(Debug, Deserialize)]
struct Text {
    #[serde(rename = "S")]
    text: String,
}

/// Handles one invocation, which ends at `deadline`. What is wrong with a recording is its job's state; only what could
/// not be noted at all is reported, to be brought again.
pub async fn handle(
    archiver: &Archiver,
    invocation: Invocation,
    worker: &str,
    deadline: time::Instant,
) -> Result<Report, StoreError> {
    let until = deadline - NOTE_TIME;
    if invocation.records.is_empty() {
        let swept = archiver.sweep(worker, until).await?;
        tracing::info!(archived = swept, "swept");
        return Ok(Report::default());
    }
    let work = |Record { dynamodb }: Record| async move {
        let outcome = match dynamodb.keys.session.text.parse() {
            Ok(key) => archiver.archive(&key, worker, until).await.map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(shared::session::BadSessionId::to_string(&error)),
        };
        (dynamodb.sequence_number, outcome)
    };
    let mut report = Report::default();
    let mut outcomes = stream::iter(invocation.records).map(work).buffered(PARALLEL);
    while let Some((item_identifier, outcome)) = outcomes.next().await {
        if let Err(reason) = outcome {
            tracing::error!(reason, "a recording job could not be worked on");
            report.batch_item_failures.push(ItemFailure { item_identifier });
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use shared::Provider;

    use super::*;

    #[test]
    fn waits_double_up_to_an_hour_and_jobs_that_failed_together_come_back_apart() {
        let key = |id: &str| SessionKey::new(Provider::Vocobase, id).unwrap();
        for (attempts, longest) in [(1, 30), (2, 60), (5, 480), (8, 3600), (100, 3600)] {
            let wait = wait_seconds(&key("s1"), attempts);
            assert!((longest / 2..=longest).contains(&wait), "{attempts}: {wait}");
        }
        let waits: std::collections::BTreeSet<i64> = (0..50).map(|id| wait_seconds(&key(&id.to_string()), 8)).collect();
        assert!(waits.len() > 30, "{waits:?}");
    }

    #[test]
    fn an_object_is_where_its_call_began() {
        let began_at = Instant::parse("2026-03-15T14:30:01Z").unwrap();
        let prefix = object_prefix(&SessionKey::new(Provider::Vocobase, "a/b").unwrap(), began_at);
        assert_eq!(prefix, "recordings/vocobase/2026/03/15/a%2Fb");
    }
}
