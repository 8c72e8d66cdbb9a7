//! The `call_exporter` function: see the library beside it.

use std::convert::Infallible;
use std::time::Duration;

use call_exporter::{Exporter, handle};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use shared::logging;
use shared::storage::Invocation;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: shared::Allocator = shared::Allocator;

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "the edge: environment and clock are read here and passed in")]
async fn main() -> Result<(), Error> {
    let lookup = |name: &str| std::env::var(name).ok();
    logging::init_json(&lookup)?;
    let exporter = Exporter::from_environment(&lookup)?;
    let exporter = &exporter;
    run(service_fn(async move |event: LambdaEvent<Invocation>| {
        let left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or(Duration::ZERO);
        Ok::<_, Infallible>(handle(exporter, event.payload, Instant::now() + left).await)
    }))
    .await
}
