//! The `recording_archiver` function: see the library beside it.

use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use recording_archiver::{Archiver, Invocation, handle};
use shared::logging;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: shared::Allocator = shared::Allocator;

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "the edge: environment and clock are read here and passed in")]
async fn main() -> Result<(), Error> {
    let lookup = |name: &str| std::env::var(name).ok();
    logging::init_json(&lookup)?;
    let archiver = Archiver::from_environment(&lookup)?;
    let archiver = &archiver;
    run(service_fn(async move |event: LambdaEvent<Invocation>| {
        let left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or(Duration::ZERO);
        handle(archiver, event.payload, &event.context.request_id, Instant::now() + left).await.map_err(Error::from)
    }))
    .await
}
