//! The `recordings` table: what is wanted, merged with how far the fetching has come.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure;

use super::attributes::{Item, n, s, text};
use super::{Store, StoreError};
use crate::instant::Instant;
use crate::recording::{ASSUMED_SECONDS, Job, State, Wanted};
use crate::session::SessionKey;

/// The sparse index of jobs to be done: `unfinished` (a shard) and `source_expires_at`.
pub const UNFINISHED: &str = "unfinished";

pub(super) const SHARDS: u8 = 4;
const MAX_ATTEMPTS: u32 = 16;

impl Store {
    /// The job's item.
    pub(super) async fn job_item(&self, key: &SessionKey) -> Result<Option<Item>, StoreError> {
        let read = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.tables.recordings)
            .key("session", s(key.as_str()))
            .consistent_read(true);
        let output = read.send().await.map_err(|error| StoreError::from_sdk("a read of the recording", &error))?;
        Ok(output.item)
    }

    /// Puts a whole job, unless there is one.
    pub(super) async fn put_job(&self, item: Item) -> Result<(), StoreError> {
        let put = self.clients.dynamodb.put_item().table_name(&self.tables.recordings).set_item(Some(item));
        match put.condition_expression("attribute_not_exists(wanted)").send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(PutItemError::is_conditional_check_failed_exception) => {
                Ok(())
            }
            Err(error) => Err(StoreError::from_sdk("the recording", &error)),
        }
    }

    /// Merges a wanted recording into its job; whether that changed it. A job that is `unheard_of` is most likely not
    /// there: looking would cost a read, and writing at once costs a failed condition if it is.
    pub(super) async fn want_recording(
        &self,
        key: &SessionKey,
        wanted: &Wanted,
        unheard_of: bool,
        received_at: Instant,
    ) -> Result<bool, StoreError> {
        let mut seen = if unheard_of { None } else { self.job_item(key).await?.as_ref().and_then(job) };
        for _ in 0..MAX_ATTEMPTS {
            let Some(next) = Job::want(seen.as_ref(), wanted) else { return Ok(false) };
            match self.swap_job(key, seen.as_ref(), &next, wanted, received_at).await? {
                None => return Ok(true),
                Some(newer) => seen = job(&newer),
            }
        }
        Err(StoreError::Unavailable { what: "the recording", code: "contention".to_owned() })
    }

    /// Writes `next` if the job is still as it was seen; else gives the item back as it is now.
    pub(super) async fn swap_job(
        &self,
        key: &SessionKey,
        seen: Option<&Job>,
        next: &Job,
        wanted: &Wanted,
        received_at: Instant,
    ) -> Result<Option<Item>, StoreError> {
        let source_expires_at = next.expires_at.unwrap_or_else(|| received_at.plus_seconds(ASSUMED_SECONDS));
        let mut set = "SET #state = :state, wanted = :wanted, #source = :source, source_url = :source_url, \
                       source_expires_at = :source_expires_at, \
                       received_at = if_not_exists(received_at, :received_at)"
            .to_owned();
        let mut update = self
            .clients
            .dynamodb
            .update_item()
            .table_name(&self.tables.recordings)
            .key("session", s(key.as_str()))
            .expression_attribute_names("#state", "state")
            .expression_attribute_names("#source", "source")
            .expression_attribute_values(":state", s(next.state.name()))
            .expression_attribute_values(":wanted", s(&next.wanted))
            .expression_attribute_values(":source", s(&next.source))
            .expression_attribute_values(":source_url", s(&wanted.url))
            .expression_attribute_values(":received_at", s(received_at.to_string()))
            .expression_attribute_values(":source_expires_at", s(source_expires_at.to_string()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if next.state == State::Pending {
            set.push_str(", unfinished = :shard");
            update = update.expression_attribute_values(":shard", s(key.shard(SHARDS).to_string()));
        }
        if let Some(expiry) = self.expiry(Some(source_expires_at), received_at) {
            set.push_str(", expires_at = :expires_at");
            update = update.expression_attribute_values(":expires_at", n(expiry));
        }
        if next.state == State::Pending && seen.is_some() {
            // A new URL is a new beginning.
            set.push_str(" REMOVE attempts, next_attempt_at, last_error");
        }
        update = match seen {
            None => update.condition_expression("attribute_not_exists(wanted)"),
            Some(seen) => update
                .condition_expression("wanted = :seen_wanted AND #state = :seen_state")
                .expression_attribute_values(":seen_wanted", s(&seen.wanted))
                .expression_attribute_values(":seen_state", s(seen.state.name())),
        };
        match update.update_expression(set).send().await {
            Ok(_) => Ok(None),
            Err(SdkError::ServiceError(error)) => match error.err() {
                UpdateItemError::ConditionalCheckFailedException(failed) => {
                    Ok(Some(failed.item.clone().unwrap_or_default()))
                }
                _ => Err(StoreError::from_sdk("the recording", &SdkError::ServiceError(error))),
            },
            Err(error) => Err(StoreError::from_sdk("the recording", &error)),
        }
    }
}

pub(super) fn job(item: &Item) -> Option<Job> {
    let wanted = text(item, "wanted")?;
    Some(Job {
        state: State::from_name(text(item, "state")?)?,
        wanted: wanted.to_owned(),
        source: text(item, "source")?.to_owned(),
        expires_at: wanted.split('#').next().and_then(Instant::parse),
    })
}
