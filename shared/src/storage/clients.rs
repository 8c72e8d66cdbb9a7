//! SDK clients as cheap as a cold start can have them: rustls with ring, only the roots that AWS's own endpoints chain
//! to, region and credentials from what Lambda puts into the environment. `docs/decisions.md` says what each saves.

use std::time::Duration;

use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, SharedHttpClient, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

use crate::config::{ConfigError, Lookup};

/// The services that the bundle keeps things in.
#[derive(Clone, Debug)]
pub struct Clients {
    /// Tables.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// The bucket.
    pub s3: aws_sdk_s3::Client,
}

/// Amazon Trust Services' roots, which every AWS endpoint chains to.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Clients from `AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` and, where the stores
/// are not AWS's own, `AWS_ENDPOINT_URL_DYNAMODB` and `AWS_ENDPOINT_URL_S3`.
pub fn connect(lookup: Lookup<'_>) -> Result<Clients, ConfigError> {
    let get = |name: &'static str| lookup(name).filter(|value| !value.is_empty());
    let required = |name: &'static str| get(name).ok_or(ConfigError::Missing(name));
    let region = Region::new(required("AWS_REGION")?);
    let credentials = SharedCredentialsProvider::new(Credentials::new(
        required("AWS_ACCESS_KEY_ID")?,
        required("AWS_SECRET_ACCESS_KEY")?,
        get("AWS_SESSION_TOKEN"),
        None,
        "environment",
    ));
    let http = https()?;
    // One attempt is short and there are several: a lost packet must not cost the platform's whole patience.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(2))
        .build();
    let retries = RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50));

    let mut dynamodb = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http.clone())
        .credentials_provider(credentials.clone())
        .region(region.clone())
        .timeout_config(timeouts.clone())
        .retry_config(retries.clone());
    if let Some(url) = get("AWS_ENDPOINT_URL_DYNAMODB") {
        dynamodb = dynamodb.endpoint_url(url);
    }
    let mut s3 = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .credentials_provider(credentials)
        .region(region)
        .timeout_config(timeouts)
        .retry_config(retries);
    if let Some(url) = get("AWS_ENDPOINT_URL_S3") {
        s3 = s3.endpoint_url(url).force_path_style(true);
    }
    Ok(Clients {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        s3: aws_sdk_s3::Client::from_conf(s3.build()),
    })
}

/// HTTPS as every client here speaks it.
pub fn https() -> Result<SharedHttpClient, ConfigError> {
    let roots = TrustStore::empty().with_pem_certificate(AMAZON_ROOTS);
    let tls = TlsContext::builder().with_trust_store(roots).build();
    let tls = tls.map_err(|_| ConfigError::Bad("the built-in certificates", "cannot be read"))?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}
