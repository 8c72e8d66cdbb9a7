//! Events that the bus did not take: kept in the bucket as they would have been sent, to be sent again.

use aws_sdk_s3::primitives::ByteStream;

use super::{Store, StoreError};

/// The prefix of events that the bus did not take.
pub const UNDELIVERED: &str = "undelivered/";

/// Where such an event is: `undelivered/<day on which it was put aside>/<its id>.json`.
pub fn undelivered_key(day: &str, id: &str) -> String {
    format!("{UNDELIVERED}{day}/{id}.json")
}

impl Store {
    /// Keeps an event that the bus did not take. Repeating it is harmless.
    pub async fn put_undelivered(&self, day: &str, id: &str, event: String) -> Result<(), StoreError> {
        let put = self
            .clients
            .s3
            .put_object()
            .bucket(&self.bucket)
            .key(undelivered_key(day, id))
            .content_type("application/cloudevents+json")
            .body(ByteStream::from(event.into_bytes()));
        put.send().await.map(drop).map_err(|error| StoreError::from_sdk("an undelivered event", &error))
    }
}
