//! The progress of recording jobs: the archiver's half of the `recordings` table.
//!
//! A job is claimed under a lease, and only who holds the lease writes its progress. A worker that died leaves a lease
//! that runs out.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValue;

use super::attributes::{Item, n, s, text};
use super::{Store, StoreError, UNFINISHED, recordings};
use crate::call::{Call, Field};
use crate::instant::Instant;
use crate::recording::{Job, State, Wanted};
use crate::session::SessionKey;

/// How often the URL of one recording is made anew.
const MOST_REMINTED: u32 = 3;

/// A job that this worker holds.
#[derive(Clone)]
pub struct Claimed {
    /// Whose recording it is.
    pub key: SessionKey,
    /// The presigned URL: a credential.
    pub url: String,
    /// When the URL stops working.
    pub expires_at: Instant,
    /// When a delivery first offered a recording of this call.
    pub wanted_at: Option<Instant>,
    /// How often it has been claimed, this time included.
    pub attempts: u32,
    /// How often its URL was made anew.
    reminted: u32,
    /// An upload that an earlier worker did not finish: key and id.
    pub abandoned: Option<(String, String)>,
    lease: String,
    wanted: String,
    source: String,
}

impl std::fmt::Debug for Claimed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Claimed {{ {}, attempt {}, url: [redacted] }}", self.key, self.attempts)
    }
}

/// What was put into the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archived {
    /// The object's key.
    pub s3_key: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, as hex.
    pub sha256: String,
    /// Of its content.
    pub content_type: String,
}

impl Store {
    /// Takes a job that waits and whose time has come, or whose worker's lease has run out; `None` if it is not to be
    /// had.
    pub async fn claim_recording(
        &self,
        key: &SessionKey,
        lease: &str,
        now: Instant,
        lease_until: Instant,
    ) -> Result<Option<Claimed>, StoreError> {
        let claim = self
            .update_job(key)
            .update_expression("SET #state = :copying, lease_id = :lease, lease_until = :until ADD attempts :one")
            .condition_expression(
                "attribute_exists(source_url) AND (\
                 (#state = :pending AND (attribute_not_exists(next_attempt_at) OR next_attempt_at <= :now)) \
                 OR (#state = :copying AND lease_until < :now))",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":copying", s(State::Copying.name()))
            .expression_attribute_values(":pending", s(State::Pending.name()))
            .expression_attribute_values(":lease", s(lease))
            .expression_attribute_values(":until", s(lease_until.to_string()))
            .expression_attribute_values(":now", s(now.to_string()))
            .expression_attribute_values(":one", n(1))
            .return_values(ReturnValue::AllNew);
        match claim.send().await {
            Ok(output) => Ok(output.attributes.and_then(|item| claimed(key, lease, &item))),
            Err(error) if failed_condition(&error) => Ok(None),
            Err(error) => Err(StoreError::from_sdk("a claim of the recording", &error)),
        }
    }

    /// Notes an upload, so that whoever comes after this worker can abort it; whether the lease still holds.
    pub async fn note_upload(&self, job: &Claimed, s3_key: &str, upload: &str) -> Result<bool, StoreError> {
        let update = self
            .held(job)
            .update_expression("SET s3_key = :key, upload_id = :upload")
            .expression_attribute_values(":key", s(s3_key))
            .expression_attribute_values(":upload", s(upload));
        done("the upload's id", update).await
    }

    /// The end of a job: the call says where its recording is, then the job is done. `false` if another worker took
    /// it meanwhile, or another recording is wanted.
    pub async fn recording_archived(
        &self,
        job: &Claimed,
        archived: &Archived,
        now: Instant,
    ) -> Result<bool, StoreError> {
        self.tell_call(job, State::Archived, Some(self.s3_uri(&archived.s3_key)), now).await?;
        let update = self
            .held(job)
            .update_expression(
                "SET #state = :state, s3_key = :key, #bytes = :bytes, sha256 = :sha256, content_type = :type, \
                 archived_at = :now REMOVE source_url, unfinished, lease_id, lease_until, upload_id, last_error, \
                 next_attempt_at",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#bytes", "bytes")
            .expression_attribute_values(":state", s(State::Archived.name()))
            .expression_attribute_values(":key", s(&archived.s3_key))
            .expression_attribute_values(":bytes", n(archived.bytes))
            .expression_attribute_values(":sha256", s(&archived.sha256))
            .expression_attribute_values(":type", s(&archived.content_type))
            .expression_attribute_values(":now", s(now.to_string()));
        done("the end of a recording", update).await
    }

    /// Lets a job go without a recording, in words for an operator: to be tried again, or for good.
    pub async fn recording_not_archived(
        &self,
        job: &Claimed,
        why: &str,
        next: Next,
        now: Instant,
    ) -> Result<bool, StoreError> {
        if let Next::GiveUp(state) = next {
            // Giving up is final, so the call is told before; and only who holds the job may tell it.
            if !self.still_held(job, why).await? {
                return Ok(false);
            }
            self.tell_call(job, state, None, now).await?;
        }
        let (state, expression) = match next {
            Next::Retry(_) => (
                State::Pending,
                "SET #state = :state, last_error = :why, next_attempt_at = :at REMOVE lease_id, lease_until, upload_id",
            ),
            Next::GiveUp(state) if is_lost(job, state) => (
                state,
                "SET #state = :state, last_error = :why, unfinished = :lost REMOVE lease_id, lease_until, upload_id, \
                 next_attempt_at",
            ),
            Next::GiveUp(state) => (
                state,
                "SET #state = :state, last_error = :why REMOVE unfinished, lease_id, lease_until, upload_id, \
                 next_attempt_at",
            ),
        };
        let mut update = self
            .held_by_url(job)
            .update_expression(expression)
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":state", s(state.name()))
            .expression_attribute_values(":why", s(why));
        match next {
            Next::Retry(at) => update = update.expression_attribute_values(":at", s(at.to_string())),
            Next::GiveUp(state) if is_lost(job, state) => {
                update = update.expression_attribute_values(":lost", s(lost(job.key.shard(recordings::SHARDS))));
            }
            Next::GiveUp(_) => {}
        }
        done("the failure of a recording", update).await
    }

    /// Whether this worker holds the job, of the URL that it claimed; notes why it is about to give up.
    async fn still_held(&self, job: &Claimed, why: &str) -> Result<bool, StoreError> {
        let update = self.held_by_url(job).update_expression("SET last_error = :why");
        done("why a recording is given up", update.expression_attribute_values(":why", s(why))).await
    }

    /// Sets a job whose URL was replaced while it was copied back to waiting, for the new one.
    pub async fn recording_wanted_anew(&self, job: &Claimed) -> Result<bool, StoreError> {
        let update = self
            .update_job(&job.key)
            .update_expression("SET #state = :pending REMOVE lease_id, lease_until, upload_id, next_attempt_at")
            .condition_expression("lease_id = :lease AND wanted <> :wanted")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":pending", s(State::Pending.name()))
            .expression_attribute_values(":lease", s(&job.lease))
            .expression_attribute_values(":wanted", s(&job.wanted));
        done("a recording that is wanted anew", update).await
    }

    /// Sets a job that ended without a recording, or waits for its next attempt, back to its beginning, as an operator
    /// asks; `false` if there is no such job or nothing to fetch.
    pub async fn retry_recording(&self, key: &SessionKey) -> Result<bool, StoreError> {
        let update = self
            .update_job(key)
            .update_expression(
                "SET #state = :pending, unfinished = :shard REMOVE attempts, next_attempt_at, last_error",
            )
            .condition_expression("attribute_exists(source_url) AND #state IN (:pending, :expired, :rejected, :failed)")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":pending", s(State::Pending.name()))
            .expression_attribute_values(":expired", s(State::Expired.name()))
            .expression_attribute_values(":rejected", s(State::Rejected.name()))
            .expression_attribute_values(":failed", s(State::Failed.name()))
            .expression_attribute_values(":shard", s(key.shard(recordings::SHARDS).to_string()));
        done("a retry of the recording", update).await
    }

    /// Jobs that are not finished and whose time has come, soonest expiry first, at most `limit` of each shard.
    pub async fn due_recordings(&self, now: Instant, limit: usize) -> Result<Vec<SessionKey>, StoreError> {
        let mut found: Vec<(String, SessionKey)> = Vec::new();
        for shard in 0..recordings::SHARDS {
            let query = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.tables.recordings)
                .index_name(UNFINISHED)
                .key_condition_expression("unfinished = :shard")
                .filter_expression(
                    "(attribute_not_exists(next_attempt_at) OR next_attempt_at <= :now) \
                     AND (attribute_not_exists(lease_until) OR lease_until < :now)",
                )
                .expression_attribute_values(":shard", s(shard.to_string()))
                .expression_attribute_values(":now", s(now.to_string()));
            let mut items = query.into_paginator().items().send();
            let mut left = limit;
            while left > 0
                && let Some(item) = items.next().await
            {
                let item = item.map_err(|error| StoreError::from_sdk("unfinished recordings", &error))?;
                let job = (text(&item, "source_expires_at"), text(&item, "session").and_then(|key| key.parse().ok()));
                if let (Some(expires_at), Some(key)) = job {
                    found.push((expires_at.to_owned(), key));
                    left -= 1;
                }
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, key)| key).collect())
    }

    /// When the recording that has waited longest was first offered; `None` if none is unfinished.
    pub async fn oldest_unfinished_recording(&self) -> Result<Option<Instant>, StoreError> {
        let mut oldest: Option<String> = None;
        for shard in 0..recordings::SHARDS {
            let query = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.tables.recordings)
                .index_name(UNFINISHED)
                .key_condition_expression("unfinished = :shard")
                .projection_expression("received_at")
                .expression_attribute_values(":shard", s(shard.to_string()));
            let mut items = query.into_paginator().items().send();
            while let Some(item) = items.next().await {
                let item = item.map_err(|error| StoreError::from_sdk("the oldest recording", &error))?;
                if let Some(received_at) = text(&item, "received_at")
                    && oldest.as_deref().is_none_or(|oldest| received_at < oldest)
                {
                    oldest = Some(received_at.to_owned());
                }
            }
        }
        Ok(oldest.as_deref().and_then(Instant::parse))
    }

    /// Jobs that ended `expired` or `failed` and that another URL could mend, of recordings whose URL stopped working
    /// after `since` or still works.
    pub async fn lost_recordings(&self, since: Instant) -> Result<Vec<SessionKey>, StoreError> {
        let mut found = Vec::new();
        for shard in 0..recordings::SHARDS {
            let query = self
                .clients
                .dynamodb
                .query()
                .table_name(&self.tables.recordings)
                .index_name(UNFINISHED)
                .key_condition_expression("unfinished = :lost AND source_expires_at >= :since")
                .expression_attribute_values(":lost", s(lost(shard)))
                .expression_attribute_values(":since", s(since.to_string()));
            let mut items = query.into_paginator().items().send();
            while let Some(item) = items.next().await {
                let item = item.map_err(|error| StoreError::from_sdk("lost recordings", &error))?;
                found.extend(text(&item, "session").and_then(|key| key.parse().ok()));
            }
        }
        Ok(found)
    }

    /// Gives a lost recording's job a URL that was made anew, and so sets it back to `pending`; `false` if it is not
    /// lost any more.
    pub async fn offer_recording(&self, key: &SessionKey, url: String, now: Instant) -> Result<bool, StoreError> {
        let count = self
            .update_job(key)
            .update_expression("ADD reminted :one")
            .condition_expression(
                "#state IN (:expired, :failed) AND (attribute_not_exists(reminted) OR reminted < :most)",
            )
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":expired", s(State::Expired.name()))
            .expression_attribute_values(":failed", s(State::Failed.name()))
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":most", n(MOST_REMINTED))
            .return_values(ReturnValue::AllNew);
        let seen = match count.send().await {
            Ok(output) => output.attributes.as_ref().and_then(recordings::job),
            Err(error) if failed_condition(&error) => None,
            Err(error) => return Err(StoreError::from_sdk("how often a recording's URL was made anew", &error)),
        };
        let Some(seen) = seen else { return Ok(false) };
        let wanted = Wanted::new(url, Some(now));
        // It counts though the old URL may say that it lasts longer; what brought that one stays no news.
        let next = Job {
            state: State::Pending,
            wanted: wanted.rank().max(seen.wanted.clone()),
            source: wanted.source(),
            expires_at: wanted.expires_at,
        };
        Ok(self.swap_job(key, Some(&seen), &next, &wanted, now).await?.is_none())
    }

    /// When a call began, for the place of its recording.
    pub async fn call_started_at(&self, key: &SessionKey, now: Instant) -> Result<Option<Instant>, StoreError> {
        Ok(self.call_as_seen(key, now).await?.and_then(|seen| seen.call.started_at))
    }

    /// Joins what became of its recording into the call.
    async fn tell_call(
        &self,
        job: &Claimed,
        state: State,
        uri: Option<String>,
        now: Instant,
    ) -> Result<(), StoreError> {
        let mut said = Call::new(job.key.clone());
        said.say(Field::RecordingState, Some(now), Some(state.name().to_owned()));
        said.say(Field::Recording, Some(now), uri);
        let seen = self.call_as_seen(&job.key, now).await?;
        self.merge_call(seen, &said, now).await?;
        Ok(())
    }

    fn update_job(&self, key: &SessionKey) -> UpdateItemFluentBuilder {
        self.clients.dynamodb.update_item().table_name(&self.tables.recordings).key("session", s(key.as_str()))
    }

    /// An update by who holds the lease, while no newer URL is wanted: with one, what the old one came to says nothing.
    fn held_by_url(&self, job: &Claimed) -> UpdateItemFluentBuilder {
        self.update_job(&job.key)
            .condition_expression("lease_id = :lease AND wanted = :wanted")
            .expression_attribute_values(":lease", s(&job.lease))
            .expression_attribute_values(":wanted", s(&job.wanted))
    }

    /// An update by who holds the lease, while it is still this recording that is wanted, if perhaps by a newer URL.
    fn held(&self, job: &Claimed) -> UpdateItemFluentBuilder {
        self.update_job(&job.key)
            .condition_expression("lease_id = :lease AND #source = :source")
            .expression_attribute_names("#source", "source")
            .expression_attribute_values(":lease", s(&job.lease))
            .expression_attribute_values(":source", s(&job.source))
    }
}

/// What is next for a job that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It waits until then.
    Retry(Instant),
    /// It ends in this state.
    GiveUp(State),
}

/// Whether another URL could still mend a job that is given up: it stays where the reconciler finds it.
fn is_lost(job: &Claimed, state: State) -> bool {
    matches!(state, State::Expired | State::Failed) && job.reminted < MOST_REMINTED
}

/// The index's key of jobs that another URL could mend.
fn lost(shard: u8) -> String {
    format!("lost#{shard}")
}

async fn done(what: &'static str, update: UpdateItemFluentBuilder) -> Result<bool, StoreError> {
    match update.send().await {
        Ok(_) => Ok(true),
        Err(error) if failed_condition(&error) => Ok(false),
        Err(error) => Err(StoreError::from_sdk(what, &error)),
    }
}

fn failed_condition<R>(error: &SdkError<UpdateItemError, R>) -> bool {
    error.as_service_error().is_some_and(UpdateItemError::is_conditional_check_failed_exception)
}

fn claimed(key: &SessionKey, lease: &str, item: &Item) -> Option<Claimed> {
    let upload = text(item, "s3_key").zip(text(item, "upload_id"));
    Some(Claimed {
        key: key.clone(),
        url: text(item, "source_url")?.to_owned(),
        expires_at: Instant::parse(text(item, "source_expires_at")?)?,
        wanted_at: text(item, "received_at").and_then(Instant::parse),
        attempts: text(item, "attempts")?.parse().ok()?,
        reminted: text(item, "reminted").and_then(|times| times.parse().ok()).unwrap_or_default(),
        abandoned: upload.map(|(key, upload)| (key.to_owned(), upload.to_owned())),
        lease: lease.to_owned(),
        wanted: text(item, "wanted")?.to_owned(),
        source: text(item, "source")?.to_owned(),
    })
}
