//! One recording from its source into the bucket: streamed, a few parts in memory whatever its size, hashed on the way,
//! resumed where a connection broke.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
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
    let mut known: Option<(Version, Hashes)> = None;
    let mut resumes = 0;
    loop {
        let version = known.as_ref().map(|(version, _)| version);
        let opening = sources.open(&job.url, sink.received, version);
        let broken = match sink.beside(opening).await? {
            Ok(mut body) => {
                let (version, hashes) =
                    known.get_or_insert_with(|| (body.version.clone(), Hashes::new(body.version.md5.is_some())));
                let declared = version.content_type.as_deref();
                loop {
                    match sink.beside(body.next()).await? {
                        Ok(Some(bytes)) => {
                            hashes.update(&bytes);
                            sink.write(bytes, declared).await?;
                        }
                        Ok(None) => match version.length {
                            Some(length) if sink.received < length => break Trouble::Cut,
                            _ => {
                                let digests = hashes.digests();
                                version.verify(&digests)?;
                                return sink.finish(declared, digests).await;
                            }
                        },
                        Err(trouble) => break trouble,
                    }
                }
            }
            Err(trouble) => trouble,
        };
        // What is asked for again at once; everything else waits for the next attempt, or for good.
        let again = matches!(broken, Trouble::Cut) && known.is_some() && resumes < RESUMES;
        if !again {
            return Err(broken.into());
        }
        resumes += 1;
        sink.beside(sleep(Duration::from_millis(100 << resumes))).await?;
    }
}

/// What is computed on the way.
struct Hashes {
    sha256: Sha256,
    /// Only where the source names it: no instructions of the processor help with it.
    md5: Option<Md5>,
}

impl Hashes {
    fn new(md5: bool) -> Self {
        Self { sha256: Sha256::new(), md5: md5.then(Md5::new) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    fn digests(&mut self) -> Digests {
        let md5 = self.md5.as_mut().map(|md5| md5.finalize_reset().into());
        Digests { sha256: self.sha256.finalize_reset().into(), md5 }
    }
}

/// Where the bytes go.
struct Sink<'a> {
    store: &'a Store,
    job: &'a Claimed,
    prefix: &'a str,
    received: u64,
    filling: BytesMut,
    /// Where parts have been, to be filled again: what is freed the allocator keeps for a while beside what is new.
    spare: Vec<BytesMut>,
    upload: Option<Upload>,
    /// Parts on their way, with what they hold. They get on only while something else is waited for by [`Sink::beside`].
    puts: FuturesUnordered<BoxFuture<'a, (Result<Part, StoreError>, Bytes)>>,
}

struct Upload {
    key: Arc<str>,
    id: Arc<str>,
    content_type: String,
    parts: Vec<Part>,
    next_number: i32,
}

impl<'a> Sink<'a> {
    fn new(store: &'a Store, job: &'a Claimed, prefix: &'a str) -> Self {
        let (spare, puts) = (Vec::new(), FuturesUnordered::new());
        Self { store, job, prefix, received: 0, filling: BytesMut::new(), spare, upload: None, puts }
    }

    /// Waits for the source while parts get on to the bucket; an error is a part's.
    async fn beside<T>(&mut self, source: impl Future<Output = T>) -> Result<T, CopyError> {
        let mut source = pin!(source);
        loop {
            tokio::select! {
                said = &mut source => return Ok(said),
                Some((part, held)) = self.puts.next() => self.arrived(part, held)?,
            }
        }
    }

    fn arrived(&mut self, part: Result<Part, StoreError>, held: Bytes) -> Result<(), CopyError> {
        let part = part?;
        if let Ok(mut place) = held.try_into_mut() {
            place.clear();
            self.spare.push(place);
        }
        if let Some(upload) = &mut self.upload {
            upload.parts.push(part);
        }
        Ok(())
    }

    async fn write(&mut self, mut bytes: Bytes, declared: Option<&str>) -> Result<(), CopyError> {
        self.received += bytes.len() as u64;
        loop {
            // What fits into so many parts goes in one request, if nothing follows.
            let room = if self.upload.is_some() { PART_BYTES } else { PART_BYTES * PARTS_IN_FLIGHT };
            if self.filling.len() + bytes.len() < room {
                self.filling.extend_from_slice(&bytes);
                return Ok(());
            }
            self.filling.extend_from_slice(&bytes.split_to(room - self.filling.len()));
            self.flush(declared).await?;
        }
    }

    /// Puts what has filled on its way, as soon as there is room for it.
    async fn flush(&mut self, declared: Option<&str>) -> Result<(), CopyError> {
        if self.upload.is_none() {
            let media = media::of(&self.filling, declared);
            let key = format!("{}.{}", self.prefix, media.extension);
            let id = self.store.begin_upload(&key, &media.content_type).await?;
            let noted = self.store.note_upload(self.job, &key, &id).await;
            self.upload = Some(Upload {
                key: key.into(),
                id: id.into(),
                content_type: media.content_type,
                parts: Vec::new(),
                next_number: 1,
            });
            if !noted? {
                return Err(CopyError::LeaseLost);
            }
        }
        let next = self.spare.pop().unwrap_or_else(|| BytesMut::with_capacity(PART_BYTES));
        let mut filled = std::mem::replace(&mut self.filling, next).freeze();
        while !filled.is_empty() {
            while self.puts.len() >= PARTS_IN_FLIGHT
                && let Some((part, held)) = self.puts.next().await
            {
                self.arrived(part, held)?;
            }
            let Some(upload) = &mut self.upload else { return Ok(()) };
            let part = filled.split_to(filled.len().min(PART_BYTES));
            let (store, key, id, number) =
                (self.store, Arc::clone(&upload.key), Arc::clone(&upload.id), upload.next_number);
            self.puts.push(async move { (store.put_part(&key, &id, number, part.clone()).await, part) }.boxed());
            upload.next_number += 1;
        }
        Ok(())
    }

    async fn finish(&mut self, declared: Option<&str>, digests: Digests) -> Result<Archived, CopyError> {
        if self.upload.is_some() && !self.filling.is_empty() {
            self.flush(declared).await?;
        }
        while let Some((part, held)) = self.puts.next().await {
            self.arrived(part, held)?;
        }
        let (s3_key, content_type) = match &mut self.upload {
            Some(upload) => {
                let mut parts = std::mem::take(&mut upload.parts);
                parts.sort_by_key(Part::part_number);
                self.store.complete_upload(&upload.key, &upload.id, parts).await?;
                (upload.key.to_string(), upload.content_type.clone())
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
        drop(self.puts);
        if let Some(upload) = self.upload
            && let Err(error) = self.store.abort_upload(&upload.key, &upload.id).await
        {
            tracing::warn!(%error, "an upload could not be aborted");
        }
    }
}
