//! SDK clients as cheap as a cold start can have them: rustls with ring, only the roots that AWS's own endpoints chain
//! to, region and credentials from what Lambda puts into the environment. `docs/decisions.md` says what each saves.

use std::time::Duration;

use aws_sdk_dynamodb::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
    retry::RetryConfig, timeout::TimeoutConfig,
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

use aws_types::SdkConfig;

use crate::config::{ConfigError, Lookup, set};

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
/// are not AWS's own, `AWS_ENDPOINT_URL` or `AWS_ENDPOINT_URL_DYNAMODB` and `AWS_ENDPOINT_URL_S3`.
pub fn connect(lookup: Lookup<'_>) -> Result<Clients, ConfigError> {
    let shared = aws(lookup)?;
    let mut dynamodb = aws_sdk_dynamodb::config::Builder::from(&shared);
    // Its bodies are small, and an attempt is cut off anyway.
    dynamodb.set_stalled_stream_protection(Some(StalledStreamProtectionConfig::disabled()));
    if let Some(url) = set(lookup, "AWS_ENDPOINT_URL_DYNAMODB") {
        dynamodb = dynamodb.endpoint_url(url);
    }
    // An endpoint that is not AWS's own has no names for buckets.
    let endpoint = set(lookup, "AWS_ENDPOINT_URL_S3").or_else(|| set(lookup, "AWS_ENDPOINT_URL"));
    let mut s3 = aws_sdk_s3::config::Builder::from(&shared).force_path_style(endpoint.is_some());
    if let Some(url) = endpoint {
        s3 = s3.endpoint_url(url);
    }
    Ok(Clients {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb.build()),
        s3: aws_sdk_s3::Client::from_conf(s3.build()),
    })
}

/// What the clients of all services have in common: region, credentials, `AWS_ENDPOINT_URL`, TLS, timeouts, retries.
pub fn aws(lookup: Lookup<'_>) -> Result<SdkConfig, ConfigError> {
    let required = |name: &'static str| set(lookup, name).ok_or(ConfigError::Missing(name));
    let credentials = Credentials::new(
        required("AWS_ACCESS_KEY_ID")?,
        required("AWS_SECRET_ACCESS_KEY")?,
        set(lookup, "AWS_SESSION_TOKEN"),
        None,
        "environment",
    );
    // One attempt is short and there are several: a lost packet must not cost the platform's whole patience.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(2))
        .build();
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(https(lookup)?)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .region(Region::new(required("AWS_REGION")?))
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(4).with_initial_backoff(Duration::from_millis(50)));
    config.set_endpoint_url(set(lookup, "AWS_ENDPOINT_URL"));
    Ok(config.build())
}

/// HTTPS as every client here speaks it. `AWS_CA_BUNDLE` names a PEM file whose certificates are trusted instead of
/// Amazon's, for services behind a proxy or on this machine.
pub fn https(lookup: Lookup<'_>) -> Result<SharedHttpClient, ConfigError> {
    const NAME: &str = "AWS_CA_BUNDLE";
    let roots = match set(lookup, NAME) {
        Some(path) => std::fs::read(path).map_err(|_| ConfigError::Bad(NAME, "names a file that cannot be read"))?,
        None => AMAZON_ROOTS.to_vec(),
    };
    let trusted = TrustStore::empty().with_pem_certificate(roots);
    let tls = TlsContext::builder().with_trust_store(trusted).build();
    let tls = tls.map_err(|_| ConfigError::Bad(NAME, "holds no certificate that can be read"))?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
}
