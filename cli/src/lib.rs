//! The `hookswitch` command. `main` reads the arguments and the environment; what the commands do is here, so that the
//! tests run the same.

pub mod dev;
pub mod endpoints;
pub mod recordings;
pub mod simulate;
pub mod target;
pub mod template;

/// What went wrong, in one line for the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

impl From<shared::config::ConfigError> for Failure {
    fn from(error: shared::config::ConfigError) -> Self {
        Self(error.to_string())
    }
}

/// A client for the functions' URLs, local or deployed.
pub fn http_client() -> Result<reqwest::Client, Failure> {
    // That one is installed already is what this wants.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(std::time::Duration::from_secs(30)).build();
    client.map_err(|error| Failure(format!("no HTTP client: {error}")))
}
