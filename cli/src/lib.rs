//! The `hookswitch` command. `main` reads the arguments and the environment; what the commands do is here, so that the
//! tests run the same.

pub mod brief;
pub mod call;
pub mod calls;
pub mod console;
pub mod cost;
pub mod dev;
pub mod doctor;
pub mod endpoints;
pub mod erase;
pub mod events;
pub mod export;
pub mod paint;
pub mod prices;
pub mod profile;
pub mod quarantine;
pub mod rebuild;
pub mod recordings;
pub mod replay;
pub mod secret;
pub mod sender;
pub mod simulate;
pub mod stack;
pub mod stats;
pub mod tail;
pub mod target;
pub mod template;
pub mod undelivered;
pub mod urls;

use std::error::Error;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

/// What went wrong, in one line for the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl From<shared::config::ConfigError> for Failure {
    fn from(error: shared::config::ConfigError) -> Self {
        Self(error.to_string())
    }
}

/// What a service answered instead of what it was asked for, without the request and the raw answer: both may hold
/// secrets.
pub(crate) fn why<E: Error + ProvideErrorMetadata + 'static, R: std::fmt::Debug + 'static>(
    error: &SdkError<E, R>,
) -> String {
    if let Some((code, message)) = error.as_service_error().and_then(|error| error.code().zip(error.message())) {
        return format!("{code}: {message}");
    }
    let (mut said, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

/// Rows as lines, each column as wide as its widest cell.
pub(crate) fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// A client for the functions' URLs, local or deployed.
pub fn http_client() -> Result<reqwest::Client, Failure> {
    // That one is installed already is what this wants.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(30)).build();
    client.map_err(|error| Failure(format!("no HTTP client: {error}")))
}
