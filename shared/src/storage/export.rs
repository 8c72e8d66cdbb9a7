//! Documents of finished calls in the bucket: read, and replaced only by who has seen what is there.

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::primitives::ByteStream;

use super::{Store, StoreError};
use crate::call::Call;
use crate::document::Document;

/// What is under a key.
pub struct Exported {
    /// Tells it from whatever else may be there later.
    pub etag: String,
    /// The document.
    pub line: Vec<u8>,
}

impl Store {
    /// The document of a call as the tables have it now.
    pub async fn describe(&self, call: &Call) -> Result<Document, StoreError> {
        let reads = futures_util::future::join(self.conversation(call), self.recording(&call.key));
        let (conversation, job) = reads.await;
        Ok(Document::new(call, conversation?, job?.as_ref()))
    }

    /// What is under a document's key; `None` if nothing is.
    pub async fn exported(&self, key: &str) -> Result<Option<Exported>, StoreError> {
        const WHAT: &str = "a read of a document";
        let read = match self.clients.s3.get_object().bucket(&self.bucket).key(key).send().await {
            Ok(read) => read,
            // S3 says 403 where nothing is to who may not list the bucket. If that is wrong, the put will find out.
            Err(error) if matches!(status(&error), Some(403 | 404)) => return Ok(None),
            Err(error) => return Err(StoreError::from_sdk(WHAT, &error)),
        };
        let unreadable = |_| StoreError::Unavailable { what: WHAT, code: "unreadable response".to_owned() };
        let etag = read.e_tag.clone().unwrap_or_default();
        Ok(Some(Exported { etag, line: read.body.collect().await.map_err(unreadable)?.into_bytes().into() }))
    }

    /// Puts a document where `seen` is still as it was seen, or still nothing; whether it was put.
    pub async fn export(&self, key: &str, seen: Option<&str>, line: String) -> Result<bool, StoreError> {
        let put = self.clients.s3.put_object().bucket(&self.bucket).key(key).content_type("application/json");
        let put = match seen {
            Some(etag) => put.if_match(etag),
            None => put.if_none_match("*"),
        };
        match put.body(ByteStream::from(line.into_bytes())).send().await {
            Ok(_) => Ok(true),
            // Another was quicker, or is at it, or has removed it. Source: Amazon S3 User Guide, "How to prevent object
            // overwrites with conditional writes".
            Err(error) if matches!(status(&error), Some(404 | 409 | 412)) => Ok(false),
            Err(error) => Err(StoreError::from_sdk("a document", &error)),
        }
    }

    /// Removes a document, if it is there.
    pub async fn remove_exported(&self, key: &str) -> Result<(), StoreError> {
        let delete = self.clients.s3.delete_object().bucket(&self.bucket).key(key).send().await;
        delete.map(drop).map_err(|error| StoreError::from_sdk("the removal of a document", &error))
    }
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
