//! The `pre_agent_transfer` function: see the library beside it.

use std::sync::Arc;

use lambda_http::{Error, Request, run, service_fn};
use shared::webhook::App;
use shared::{Instant, Webhook, logging};

#[global_allocator]
static ALLOCATOR: shared::Allocator = shared::Allocator;

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::disallowed_methods, reason = "the edge: environment and clock are read here and passed in")]
async fn main() -> Result<(), Error> {
    let lookup = |name: &str| std::env::var(name).ok();
    logging::init_json(&lookup)?;
    let app = App::from_environment(Webhook::PreAgentTransfer, &lookup, Arc::new(Instant::now))?;
    app.warm(Webhook::PreAgentTransfer, pre_agent_transfer::handle).await;
    let app = &app;
    run(service_fn(async move |request: Request| Ok::<_, Error>(pre_agent_transfer::handle(app, request).await))).await
}
