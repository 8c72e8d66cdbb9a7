//! Recordings into the bucket: small ones at once, large ones in parts.

use std::time::Duration;

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::operation::abort_multipart_upload::AbortMultipartUploadError;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;

use super::{Store, StoreError};

/// A part takes longer than an item.
const PART_TIME: Duration = Duration::from_mins(1);

/// A part that is in the bucket.
pub type Part = CompletedPart;

impl Store {
    /// `s3://<bucket>/<key>`.
    pub fn s3_uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    /// Puts a whole recording.
    pub async fn put_recording(&self, key: &str, content_type: &str, body: Bytes) -> Result<(), StoreError> {
        let put = self
            .clients
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .content_type(content_type)
            .body(ByteStream::from(body));
        let put = put.customize().config_override(patient()).send().await;
        put.map(drop).map_err(|error| StoreError::from_sdk("the recording's object", &error))
    }

    /// Begins an upload in parts; its id.
    pub async fn begin_upload(&self, key: &str, content_type: &str) -> Result<String, StoreError> {
        let create = self.clients.s3.create_multipart_upload().bucket(&self.bucket).key(key).content_type(content_type);
        let begun = create.send().await.map_err(|error| StoreError::from_sdk("a new upload", &error))?;
        let no_id = || StoreError::Unavailable { what: "a new upload", code: "no id".to_owned() };
        begun.upload_id.ok_or_else(no_id)
    }

    /// Puts one part; numbers begin at 1.
    pub async fn put_part(&self, key: &str, upload: &str, number: i32, body: Bytes) -> Result<Part, StoreError> {
        let put = self
            .clients
            .s3
            .upload_part()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload)
            .part_number(number)
            .body(ByteStream::from(body));
        let put = put.customize().config_override(patient()).send().await;
        let put = put.map_err(|error| StoreError::from_sdk("a part of the recording", &error))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(put.e_tag).build())
    }

    /// Makes the object of its parts.
    pub async fn complete_upload(&self, key: &str, upload: &str, parts: Vec<Part>) -> Result<(), StoreError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self
            .clients
            .s3
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(key)
            .upload_id(upload)
            .multipart_upload(parts);
        let completed = complete.customize().config_override(patient()).send().await;
        completed.map(drop).map_err(|error| StoreError::from_sdk("the end of an upload", &error))
    }

    /// Forgets an upload and its parts; that there is none is as good.
    pub async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), StoreError> {
        let abort = self.clients.s3.abort_multipart_upload().bucket(&self.bucket).key(key).upload_id(upload);
        match abort.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(AbortMultipartUploadError::is_no_such_upload) => Ok(()),
            Err(error) => Err(StoreError::from_sdk("the abort of an upload", &error)),
        }
    }
}

fn patient() -> aws_sdk_s3::config::Builder {
    let timeouts = TimeoutConfig::builder().operation_attempt_timeout(PART_TIME).build();
    aws_sdk_s3::config::Builder::new().timeout_config(timeouts)
}
