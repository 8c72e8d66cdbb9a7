//! AWS Secrets Manager, as far as functions read it.

use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::ProvideErrorMetadata;

use crate::config::{ConfigError, Lookup, set};
use crate::storage::aws;

/// All the attempts of one read: a caller may be waiting.
const READ_TIME: Duration = Duration::from_millis(1500);

/// Why a secret cannot be had. Never says anything of its value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// There is a secret, but it was never given a value.
    #[error("it holds no value")]
    Empty,
    /// The service's error code, or what else went wrong.
    #[error("{0}")]
    Failed(String),
}

/// Reads secrets.
pub struct Secrets(Client);

impl Secrets {
    /// From what `shared::storage::connect` takes and, where it is not AWS's own, `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    pub fn connect(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let mut config = aws_sdk_secretsmanager::config::Builder::from(&aws(lookup)?);
        if let Some(url) = set(lookup, "AWS_ENDPOINT_URL_SECRETS_MANAGER") {
            config = config.endpoint_url(url);
        }
        Ok(Self(Client::from_conf(config.build())))
    }

    /// The secret's current text.
    pub async fn read(&self, arn: &str) -> Result<String, Unread> {
        let asked = self.0.get_secret_value().secret_id(arn).send();
        match tokio::time::timeout(READ_TIME, asked).await {
            Err(_) => Err(Unread::Failed("it did not come in time".to_owned())),
            Ok(Ok(output)) => output.secret_string.filter(|text| !text.trim().is_empty()).ok_or(Unread::Empty),
            Ok(Err(error)) => match error.code() {
                Some("ResourceNotFoundException") => Err(Unread::Empty),
                code => Err(Unread::Failed(code.unwrap_or("no answer").to_owned())),
            },
        }
    }
}
