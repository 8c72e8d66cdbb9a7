//! The `reconciler` function: see the library beside it.

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use reconciler::Reconciler;
use serde::de::IgnoredAny;
use shared::{Instant, logging};

#[global_allocator]
static ALLOCATOR: shared::Allocator = shared::Allocator;

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "the edge: environment and clock are read here and passed in")]
async fn main() -> Result<(), Error> {
    let lookup = |name: &str| std::env::var(name).ok();
    logging::init_json(&lookup)?;
    let reconciler = Reconciler::from_environment(&lookup, Arc::new(Instant::now))?;
    let reconciler = &reconciler;
    run(service_fn(async move |event: LambdaEvent<IgnoredAny>| {
        let left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or(Duration::ZERO);
        reconciler.run(tokio::time::Instant::now() + left).await;
        Ok::<_, Error>(())
    }))
    .await
}
