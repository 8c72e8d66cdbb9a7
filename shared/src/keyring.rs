//! The keys that deliveries are verified with: what the environment gives, or what AWS Secrets Manager holds.
//!
//! Those in Secrets Manager are read when the instance starts, then every five minutes, and at once for a delivery
//! that they do not explain, so that a rotation is picked up by the first delivery that needs it. A read that fails
//! leaves the last keys in place; without any keys nothing is accepted.

use std::sync::{Arc, Mutex, PoisonError};

use crate::auth::exotel::{self, Tokens};
use crate::auth::vocobase::{self, Signatures};
use crate::config::{Config, ConfigError, Lookup};
use crate::instant::Instant;
use crate::secrets::Secrets;
use crate::session::Provider;

/// How old keys may be before they are read again.
const FRESH_MILLIS: i64 = 5 * 60 * 1000;
/// After a read that failed, old keys serve for so long before the next.
const PAUSE_MILLIS: i64 = 10 * 1000;
/// Early reads that an instance may make at once, so that a few deliveries with wrong keys are simply refused.
const EARLY_READS: i64 = 10;
/// After those it may make another every so often, so that forged deliveries cannot make it ask without end. Shorter
/// than the platforms go on trying: whichever delivery asks next, it asks for all.
const EARLY_READ_EVERY_MILLIS: i64 = 2000;

/// What deliveries are verified with.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Exotel's tokens.
    pub tokens: Tokens,
    /// Vocobase's signatures.
    pub signatures: Signatures,
}

/// The keys cannot be read, or not yet again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the keys to verify it with cannot be read")]
pub struct Unreadable;

/// Keys, kept up to date.
pub struct Keyring {
    provider: Provider,
    /// As configured: with the secrets, or without them where Secrets Manager holds them.
    configured: Arc<Keys>,
    managed: Option<Managed>,
}

struct Managed {
    secrets: Secrets,
    arn: String,
    held: Mutex<Held>,
    /// One read at a time.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    /// With the time at which their read began.
    keys: Option<(Instant, Arc<Keys>)>,
    failed_at: Option<Instant>,
    /// When all the early reads so far are made up for.
    early_reads_until: Option<Instant>,
}

impl Keyring {
    /// The keyring of a function that receives from `provider`.
    pub fn new(provider: Provider, config: &Config, lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let managed = match &config.secret_arn {
            None => None,
            Some(arn) => Some(Managed {
                secrets: Secrets::connect(lookup)?,
                arn: arn.clone(),
                held: Mutex::default(),
                reading: tokio::sync::Mutex::default(),
            }),
        };
        Ok(Self { managed, ..Self::given(provider, config) })
    }

    /// A keyring of the keys that the configuration itself holds.
    pub fn given(provider: Provider, config: &Config) -> Self {
        let keys = Keys { tokens: config.tokens.clone(), signatures: config.signatures.clone() };
        Self { provider, configured: Arc::new(keys), managed: None }
    }

    /// The keys as they are known now, if there are any.
    pub fn known(&self) -> Option<Arc<Keys>> {
        match &self.managed {
            None => Some(Arc::clone(&self.configured)),
            Some(managed) => managed.held().keys.as_ref().map(|(_, keys)| Arc::clone(keys)),
        }
    }

    /// The keys for a delivery that came at `now`: read again if they are old.
    pub async fn keys(&self, now: Instant) -> Result<Arc<Keys>, Unreadable> {
        let Some(managed) = &self.managed else { return Ok(Arc::clone(&self.configured)) };
        let _one = managed.reading.lock().await;
        let (known, paused) = {
            let held = managed.held();
            let age = |since: Instant| now.millis_since(since);
            match &held.keys {
                Some((read_at, keys)) if (0..FRESH_MILLIS).contains(&age(*read_at)) => return Ok(Arc::clone(keys)),
                known => {
                    let paused = held.failed_at.is_some_and(|failed_at| age(failed_at) < PAUSE_MILLIS);
                    (known.as_ref().map(|(_, keys)| Arc::clone(keys)), paused)
                }
            }
        };
        match known {
            Some(keys) if paused => Ok(keys),
            known => self.read(managed, now).await.or(known.ok_or(Unreadable)),
        }
    }

    /// Keys that were read after a delivery came at `now` which the known ones do not explain; `None` if they were
    /// already. Without such keys nobody can tell whether the delivery is forged.
    pub async fn newer(&self, now: Instant) -> Result<Option<Arc<Keys>>, Unreadable> {
        let Some(managed) = &self.managed else { return Ok(None) };
        let _one = managed.reading.lock().await;
        {
            let mut held = managed.held();
            match &held.keys {
                Some((read_at, _)) if *read_at == now => return Ok(None),
                Some((read_at, keys)) if *read_at > now => return Ok(Some(Arc::clone(keys))),
                _ => {}
            }
            let most = EARLY_READS * EARLY_READ_EVERY_MILLIS;
            // Further ahead it can only be because the clock was set back.
            let until = held.early_reads_until.filter(|until| until.millis_since(now) <= most);
            let until = until.map_or(now, |until| until.max(now));
            if until.millis_since(now) > most - EARLY_READ_EVERY_MILLIS {
                return Err(Unreadable);
            }
            held.early_reads_until = Some(until.plus_millis(EARLY_READ_EVERY_MILLIS));
        }
        self.read(managed, now).await.map(Some)
    }

    async fn read(&self, managed: &Managed, now: Instant) -> Result<Arc<Keys>, Unreadable> {
        let read = match managed.secrets.read(&managed.arn).await {
            Ok(text) => self.parse(&text).map_err(str::to_owned),
            Err(why) => Err(why.to_string()),
        };
        let mut held = managed.held();
        match read {
            Ok(keys) => {
                let keys = Arc::new(keys);
                held.keys = Some((now, Arc::clone(&keys)));
                held.failed_at = None;
                Ok(keys)
            }
            Err(reason) => {
                held.failed_at = Some(now);
                let kept = held.keys.is_some();
                tracing::error!(reason, kept, "the secret cannot be read");
                Err(Unreadable)
            }
        }
    }

    fn parse(&self, text: &str) -> Result<Keys, &'static str> {
        let mut keys = Keys::clone(&self.configured);
        match self.provider {
            Provider::Exotel => keys.tokens.secrets = exotel::secrets(text)?,
            Provider::Vocobase => keys.signatures.secrets = vocobase::secrets(text)?,
        }
        Ok(keys)
    }
}

impl Managed {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Webhook;

    /// A keyring of one instance, with keys that were read at `read_at`. Reading them again would fail.
    fn holding(read_at: Instant) -> Keyring {
        let lookup = |name: &str| match name {
            "EXOTEL_TOKEN_SECRET_ARN" => Some("arn".to_owned()),
            "AWS_ENDPOINT_URL_SECRETS_MANAGER" => Some("http://127.0.0.1:1".to_owned()),
            name => Some(name.to_lowercase())
                .filter(|name| name != "aws_ca_bundle")
                .filter(|_| name.starts_with("AWS_") || name.ends_with("_TABLE") || name.ends_with("_BUCKET")),
        };
        let config = Config::read(Webhook::SessionEnd, &lookup).unwrap();
        let keyring = Keyring::new(Provider::Exotel, &config, &lookup).unwrap();
        let keys = keyring.parse("k1:read").unwrap();
        keyring.managed.as_ref().unwrap().held().keys = Some((read_at, Arc::new(keys)));
        keyring
    }

    #[tokio::test]
    async fn keys_that_were_read_after_a_delivery_came_decide_about_it() {
        let came = Instant::parse("2026-03-15T14:30:00Z").unwrap();
        // Another delivery that came later has asked for them meanwhile.
        let newer = holding(came.plus_millis(1)).newer(came).await.unwrap();
        assert_eq!(newer.unwrap().tokens.secrets[0].0, "k1");
        // These it was refused by.
        assert!(holding(came).newer(came).await.unwrap().is_none());
    }
}
