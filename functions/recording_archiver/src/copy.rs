//! One recording from its source into the bucket: streamed, a few parts in memory whatever its size, hashed on the way,
//! resumed where a connection broke.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use md5::Md5;
use sha2::{Digest, Sha256};
use shared::storage::{Archived, Claimed, Part, Store, StoreError};
use tokio::time::{Instant, sleep, timeout_at};

use crate::media;
use crate::source::{Digests, Sources, Trouble, Version};

/// S3 takes parts from 5 MiB on and at most 10,000 of them.
pub const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way to the bucket while the next one fills.
const PARTS_IN_FLIGHT: usize = 2;
/// How often a broken connection is taken up again within one attempt.
const RESUMES: u32 = 5;
/// How often a source that changed in the middle is read from the beginning again within one attempt.
const RESTARTS: u32 = 2;

/// Why a recording was not copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source's fault.
    #[error(transparent)]
    Source(#[from] Trouble),
    /// The bucket's or a table's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another worker has the job by now, or another recording is wanted.
    #[error("the job was taken over")]
    LeaseLost,
    /// The time that there was is over.
    #[error("there was not enough time for the whole recording")]
    OutOfTime,
}

/// Copies the recording of `job`; `prefix` is its object's key without the extension, which the content decides.
pub async fn copy(
    store: &Store,
    sources: &Sources,
    job: &Claimed,
    prefix: &str,
    until: Instant,
) -> Result<Archived, CopyError> {
    let mut restarts = 0;
    loop {
        let mut sink = Sink::new(store, job, prefix);
        let copied = timeout_at(until, stream(sources, job, &mut sink)).await.unwrap_or(Err(CopyError::OutOfTime));
        let Err(error) = copied else { return copied };
        sink.abort().await;
        match error {
            CopyError::Source(Trouble::Changed) if restarts < RESTARTS => restarts += 1,
            error => return Err(error),
        }
    }
}

/// Reads the source to its end, taking up broken connections where they broke.
async fn stream(sources: &Sources, job: &Claimed, sink: &mut Sink<'_>) -> Result<Archived, CopyError> {
    let mut version: Option<Version> = None;
    let mut resumes = 0;
    loop {
        let broken = match sources.open(&job.url, sink.received, version.as_ref()).await {
            Ok(mut body) => {
                let version = version.get_or_insert_with(|| body.version.clone());
                loop {
                    match body.next().await {
                        Ok(Some(bytes)) => sink.write(bytes, version.content_type.as_deref()).await?,
                        Ok(None) => match version.length {
                            Some(length) if sink.received < length => break Trouble::Cut,
                            _ => {
                                let digests = sink.digests();
                                version.verify(&digests)?;
                                return sink.finish(version.content_type.as_deref(), digests).await;
                            }
                        },
                        Err(trouble) => break trouble,
                    }
                }
            }
            Err(trouble) => trouble,
        };
        // What is asked for again at once; everything else waits for the next attempt, or for good.
        let again = matches!(broken, Trouble::Cut) && version.is_some() && resumes < RESUMES;
        if !again {
            return Err(broken.into());
        }
        resumes += 1;
        sleep(Duration::from_millis(100 << resumes)).await;
    }
}

/// Where the bytes go.
struct Sink<'a> {
    store: &'a Store,
    job: &'a Claimed,
    prefix: &'a str,
    received: u64,
    sha256: Sha256,
    md5: Md5,
    filling: BytesMut,
    upload: Option<Upload>,
}

struct Upload {
    key: String,
    id: String,
    content_type: String,
    parts: Vec<Part>,
    next_number: i32,
}

impl<'a> Sink<'a> {
    fn new(store: &'a Store, job: &'a Claimed, prefix: &'a str) -> Self {
        Self {
            store,
            job,
            prefix,
            received: 0,
            sha256: Sha256::new(),
            md5: Md5::new(),
            filling: BytesMut::new(),
            upload: None,
        }
    }

    async fn write(&mut self, mut bytes: Bytes, declared: Option<&str>) -> Result<(), CopyError> {
        self.received += bytes.len() as u64;
        self.sha256.update(&bytes);
        self.md5.update(&bytes);
        while self.filling.len() + bytes.len() >= PART_BYTES * PARTS_IN_FLIGHT {
            self.filling.extend_from_slice(&bytes.split_to(PART_BYTES * PARTS_IN_FLIGHT - self.filling.len()));
            self.flush(declared).await?;
        }
        self.filling.extend_from_slice(&bytes);
        Ok(())
    }

    /// Sends what has filled, a few parts side by side.
    async fn flush(&mut self, declared: Option<&str>) -> Result<(), CopyError> {
        if self.upload.is_none() {
            let media = media::of(&self.filling, declared);
            let key = format!("{}.{}", self.prefix, media.extension);
            let id = self.store.begin_upload(&key, &media.content_type).await?;
            let noted = self.store.note_upload(self.job, &key, &id).await;
            self.upload = Some(Upload {
                key: key.clone(),
                id,
                content_type: media.content_type,
                parts: Vec::new(),
                next_number: 1,
            });
            if !noted? {
                return Err(CopyError::LeaseLost);
            }
        }
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let mut filled = std::mem::take(&mut self.filling).freeze();
        let mut puts = FuturesUnordered::new();
        while !filled.is_empty() {
            let part = filled.split_to(filled.len().min(PART_BYTES));
            puts.push(self.store.put_part(&upload.key, &upload.id, upload.next_number, part));
            upload.next_number += 1;
        }
        while let Some(part) = puts.next().await {
            upload.parts.push(part?);
        }
        Ok(())
    }

    fn digests(&mut self) -> Digests {
        let (sha256, md5) = (std::mem::take(&mut self.sha256), std::mem::take(&mut self.md5));
        Digests { sha256: sha256.finalize().into(), md5: md5.finalize().into() }
    }

    async fn finish(&mut self, declared: Option<&str>, digests: Digests) -> Result<Archived, CopyError> {
        if self.upload.is_some() && !self.filling.is_empty() {
            self.flush(declared).await?;
        }
        let (s3_key, content_type) = match &mut self.upload {
            Some(upload) => {
                let mut parts = std::mem::take(&mut upload.parts);
                parts.sort_by_key(Part::part_number);
                self.store.complete_upload(&upload.key, &upload.id, parts).await?;
                (upload.key.clone(), upload.content_type.clone())
            }
            None => {
                let media = media::of(&self.filling, declared);
                let key = format!("{}.{}", self.prefix, media.extension);
                let body = std::mem::take(&mut self.filling).freeze();
                self.store.put_recording(&key, &media.content_type, body).await?;
                (key, media.content_type)
            }
        };
        self.upload = None;
        Ok(Archived { s3_key, bytes: self.received, sha256: hex::encode(digests.sha256), content_type })
    }

    /// Leaves no parts behind. If that fails too, the next worker does it: the job knows the upload.
    async fn abort(self) {
        if let Some(upload) = self.upload
            && let Err(error) = self.store.abort_upload(&upload.key, &upload.id).await
        {
            tracing::warn!(%error, "an upload could not be aborted");
        }
    }
}
