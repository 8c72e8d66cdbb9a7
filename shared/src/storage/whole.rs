//! All that is stored of one call: what it is now, what was said, what became of its recording.

use super::attributes::{Item, text};
use super::transcripts::in_order;
use super::{Store, StoreError};
use crate::call::{Call, Segment};
use crate::instant::Instant;
use crate::recording::State;
use crate::session::SessionKey;

/// What became of a call's recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Where it stands.
    pub state: State,
    /// When a delivery first offered it.
    pub received_at: Option<Instant>,
    /// When its source's URL stops working, or stopped.
    pub source_expires_at: Option<Instant>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last try failed.
    pub last_error: Option<String>,
    /// When it was put into the bucket.
    pub archived_at: Option<Instant>,
    /// Where in the bucket it is.
    pub s3_key: Option<String>,
    /// Its length.
    pub bytes: Option<u64>,
    /// Of its content, as hex.
    pub sha256: Option<String>,
    /// Of its content.
    pub content_type: Option<String>,
}

impl Store {
    /// The call as it is now, whatever this instance remembers; `None` if there is none.
    pub async fn fresh_call(&self, key: &SessionKey, now: Instant) -> Result<Option<Call>, StoreError> {
        Ok(self.read_call(key, now).await?.map(|seen| seen.call))
    }

    /// All that was said in a call, in the order in which it was said.
    pub async fn conversation(&self, call: &Call) -> Result<Vec<Segment>, StoreError> {
        let Some(query) = self.speech(call) else { return Ok(Vec::new()) };
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().collect().await;
        items.map(|items| in_order(&items)).map_err(|error| StoreError::from_sdk("a read of the transcript", &error))
    }

    /// What became of a call's recording; `None` if none was offered.
    pub async fn recording(&self, key: &SessionKey) -> Result<Option<Recording>, StoreError> {
        Ok(self.job_item(key).await?.as_ref().and_then(recording))
    }
}

fn recording(item: &Item) -> Option<Recording> {
    let at = |name| text(item, name).and_then(Instant::parse);
    let said = |name| text(item, name).map(str::to_owned);
    Some(Recording {
        state: State::from_name(text(item, "state")?)?,
        received_at: at("received_at"),
        source_expires_at: at("source_expires_at"),
        attempts: text(item, "attempts").and_then(|count| count.parse().ok()).unwrap_or_default(),
        last_error: said("last_error"),
        archived_at: at("archived_at"),
        s3_key: said("s3_key"),
        bytes: text(item, "bytes").and_then(|bytes| bytes.parse().ok()),
        sha256: said("sha256"),
        content_type: said("content_type"),
    })
}
