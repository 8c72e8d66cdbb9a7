//! What every function of the bundle shares: reading a delivery, proving who sent it, merging it into the call it
//! belongs to, and keeping it.
//!
//! Dependencies inside the crate point one way: [`wire`] knows nothing; [`auth`] and [`call`] know wire models;
//! [`storage`] knows calls: it and [`secrets`] are the only places that name the AWS SDK's operations.
//! [`webhook`], the edge, knows them all and is the only place that names `lambda_http`.

pub mod auth;
pub mod brief;
pub mod call;
pub mod config;
pub mod contact;
pub mod document;
pub mod instant;
pub mod json;
pub mod keyring;
pub mod logging;
pub mod metrics;
pub mod profile;
pub mod recording;
pub mod secrets;
pub mod session;
pub mod storage;
pub mod webhook;
pub mod wire;

/// What the functions allocate with: `docs/performance.md` says what that saves.
pub use mimalloc::MiMalloc as Allocator;

pub use contact::Country;
pub use instant::{Clock, Instant};
pub use session::{Provider, SessionKey, Webhook};
