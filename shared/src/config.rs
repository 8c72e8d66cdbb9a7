//! Configuration, read once at the edge through a lookup, so that nothing else touches the environment. A bad value is
//! an error that names the variable; it never becomes a default.

use crate::auth::exotel::{self, Tokens};
use crate::auth::vocobase::{self, Signatures};
use crate::contact::Country;
use crate::session::{Provider, Webhook};
use crate::storage::Tables;

/// Why the configuration cannot be used. Never says the value: it may be a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Required and not set.
    #[error("{0} is not set")]
    Missing(&'static str),
    /// Set to something it cannot be.
    #[error("{0} {1}")]
    Bad(&'static str, &'static str),
}

/// Looks a variable up, as `std::env::var(name).ok()` does.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How long a delivery may take, in milliseconds, unless `DEADLINE_MS` says otherwise.
pub const DEFAULT_DEADLINE_MS: u64 = 5_000;
/// How long a caller's history may take, in milliseconds, unless `HISTORY_MS` says otherwise.
pub const DEFAULT_HISTORY_MS: u64 = 300;
/// How far a Vocobase timestamp may be from now, unless `TIMESTAMP_TOLERANCE_SECONDS` says otherwise.
pub const DEFAULT_TOLERANCE_SECONDS: i64 = 300;

/// Where things are kept.
#[derive(Debug, Clone)]
pub struct Storage {
    /// `EVENTS_TABLE` and so on.
    pub tables: Tables,
    /// `RECORDINGS_BUCKET`.
    pub bucket: String,
    /// `RETENTION_DAYS`; without it nothing expires.
    pub retention_days: Option<i64>,
    /// `DEFAULT_COUNTRY`, of telephone numbers that come without its code.
    pub default_country: Country,
}

impl Storage {
    /// Reads it.
    pub fn read(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        Ok(Self {
            tables: Tables {
                events: required(lookup, "EVENTS_TABLE")?,
                transcripts: required(lookup, "TRANSCRIPTS_TABLE")?,
                sessions: required(lookup, "SESSIONS_TABLE")?,
                recordings: required(lookup, "RECORDINGS_TABLE")?,
                profiles: required(lookup, "PROFILES_TABLE")?,
            },
            bucket: required(lookup, "RECORDINGS_BUCKET")?,
            retention_days: positive(lookup, "RETENTION_DAYS")?,
            default_country: country(lookup)?,
        })
    }
}

/// `DEFAULT_COUNTRY`, India unless it says otherwise.
pub fn country(lookup: Lookup<'_>) -> Result<Country, ConfigError> {
    const NAME: &str = "DEFAULT_COUNTRY";
    let country = set(lookup, NAME).map_or(Some(Country::INDIA), |text| Country::parse(&text));
    country.ok_or(ConfigError::Bad(NAME, "is not a country's two capital letters, such as IN"))
}

/// What every webhook function needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where things are kept.
    pub storage: Storage,
    /// `DEADLINE_MS`.
    pub deadline: std::time::Duration,
    /// `HISTORY_MS`: what a caller's history may take.
    pub history_time: std::time::Duration,
    /// Exotel's tokens.
    pub tokens: Tokens,
    /// Vocobase's signatures.
    pub signatures: Signatures,
    /// `EXOTEL_TOKEN_SECRET_ARN` or `VOCOBASE_SECRET_ARN`: where Secrets Manager holds the secrets, which are then not
    /// in the environment.
    pub secret_arn: Option<String>,
    /// Where the other Exotel webhooks are (`SESSION_END_URL` and so on); `session_start` hands them out.
    pub siblings: Vec<(Webhook, String)>,
}

impl Config {
    /// Reads it. `webhook` says whose secrets are required.
    pub fn read(webhook: Webhook, lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let tokens = tokens(lookup)?;
        let signatures = signatures(lookup)?;
        let (given, secrets, secret_arn) = match webhook.provider() {
            Provider::Exotel => (!tokens.secrets.is_empty(), "EXOTEL_TOKEN_SECRETS", "EXOTEL_TOKEN_SECRET_ARN"),
            Provider::Vocobase => (!signatures.secrets.is_empty(), "VOCOBASE_SECRETS", "VOCOBASE_SECRET_ARN"),
        };
        let secret_arn = set(lookup, secret_arn).filter(|_| !given);
        if !given && secret_arn.is_none() {
            return Err(ConfigError::Missing(secrets));
        }
        let siblings = [
            (Webhook::SessionEnd, "SESSION_END_URL"),
            (Webhook::PreAgentTransfer, "PRE_AGENT_TRANSFER_URL"),
            (Webhook::InsightsEvents, "INSIGHTS_EVENTS_URL"),
            (Webhook::TranscriptEvents, "TRANSCRIPT_EVENTS_URL"),
        ];
        Ok(Self {
            storage: Storage::read(lookup)?,
            deadline: deadline(webhook.provider(), lookup)?,
            history_time: std::time::Duration::from_millis(
                positive(lookup, "HISTORY_MS")?.map_or(DEFAULT_HISTORY_MS, i64::unsigned_abs),
            ),
            tokens,
            signatures,
            secret_arn,
            siblings: siblings.into_iter().filter_map(|(webhook, name)| Some((webhook, set(lookup, name)?))).collect(),
        })
    }
}

/// `VOCOBASE_SECRETS` (comma-separated) and `TIMESTAMP_TOLERANCE_SECONDS`.
pub fn signatures(lookup: Lookup<'_>) -> Result<Signatures, ConfigError> {
    const NAME: &str = "VOCOBASE_SECRETS";
    let secrets = set(lookup, NAME).map_or(Ok(Vec::new()), |list| vocobase::secrets(&list));
    let tolerance_seconds = positive(lookup, "TIMESTAMP_TOLERANCE_SECONDS")?.unwrap_or(DEFAULT_TOLERANCE_SECONDS);
    Ok(Signatures { secrets: secrets.map_err(|why| ConfigError::Bad(NAME, why))?, tolerance_seconds })
}

/// `EXOTEL_TOKEN_SECRETS` (`kid:secret,…`; the first one mints) and `EXOTEL_SESSION_TOKENS_ONLY`.
pub fn tokens(lookup: Lookup<'_>) -> Result<Tokens, ConfigError> {
    const NAME: &str = "EXOTEL_TOKEN_SECRETS";
    const ONLY: &str = "EXOTEL_SESSION_TOKENS_ONLY";
    let secrets = set(lookup, NAME).map_or(Ok(Vec::new()), |list| exotel::secrets(&list));
    let session_tokens_only = match set(lookup, ONLY).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ConfigError::Bad(ONLY, "is neither true nor false")),
    };
    Ok(Tokens { secrets: secrets.map_err(|why| ConfigError::Bad(NAME, why))?, session_tokens_only })
}

/// `DEADLINE_MS`, never more than the platform waits: an answer that comes later is one that nobody hears.
fn deadline(provider: Provider, lookup: Lookup<'_>) -> Result<std::time::Duration, ConfigError> {
    const NAME: &str = "DEADLINE_MS";
    let millis = positive(lookup, NAME)?.map_or(DEFAULT_DEADLINE_MS, i64::unsigned_abs);
    match provider {
        Provider::Exotel if millis > 15_000 => Err(ConfigError::Bad(NAME, "is more than the 15000 that Exotel waits")),
        Provider::Vocobase if millis > 10_000 => {
            Err(ConfigError::Bad(NAME, "is more than the 10000 that Vocobase waits"))
        }
        _ => Ok(std::time::Duration::from_millis(millis)),
    }
}

/// A variable that is set, and not to nothing.
pub(crate) fn set(lookup: Lookup<'_>, name: &str) -> Option<String> {
    lookup(name).filter(|value| !value.is_empty())
}

fn required(lookup: Lookup<'_>, name: &'static str) -> Result<String, ConfigError> {
    set(lookup, name).ok_or(ConfigError::Missing(name))
}

/// A whole number of 1 or more.
pub fn positive(lookup: Lookup<'_>, name: &'static str) -> Result<Option<i64>, ConfigError> {
    let Some(text) = set(lookup, name) else { return Ok(None) };
    // Bounded, so that no later arithmetic on it can overflow.
    match text.parse::<i64>() {
        Ok(value) if (1..=1_000_000_000).contains(&value) => Ok(Some(value)),
        _ => Err(ConfigError::Bad(name, "is not a whole number of 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "VOCOBASE_SECRETS" => Some("whsec_a, whsec_b".into()),
            "EXOTEL_TOKEN_SECRETS" => Some("k2:new,k1:old".into()),
            "RECORDINGS_BUCKET" => Some("bucket".into()),
            "SESSION_END_URL" => Some("https://end.example/".into()),
            name if name.ends_with("_TABLE") => Some(name.to_lowercase()),
            _ => None,
        }
    }

    fn read_with(name: &'static str, value: &'static str) -> Result<Config, ConfigError> {
        Config::read(Webhook::SessionStart, &move |asked: &str| {
            if asked == name { Some(value.to_owned()) } else { lookup(asked) }
        })
    }

    #[test]
    fn defaults_stand_where_nothing_is_set() {
        let config = Config::read(Webhook::SessionStart, &lookup).unwrap();
        assert_eq!(config.deadline.as_millis(), 5_000);
        assert_eq!(config.signatures.tolerance_seconds, 300);
        assert_eq!(config.signatures.secrets.len(), 2);
        assert_eq!(config.tokens.secrets.iter().map(|(kid, _)| kid.as_str()).collect::<Vec<_>>(), ["k2", "k1"]);
        assert_eq!(config.storage.retention_days, None);
        assert_eq!(config.siblings, [(Webhook::SessionEnd, "https://end.example/".to_owned())]);
    }

    #[test]
    fn a_bad_value_names_its_variable_and_never_its_value() {
        for (name, value) in [
            ("DEADLINE_MS", "soon"),
            ("DEADLINE_MS", "0"),
            ("DEADLINE_MS", "15001"),
            ("RETENTION_DAYS", "-1"),
            ("HISTORY_MS", "0"),
            ("TIMESTAMP_TOLERANCE_SECONDS", "99999999999999999999"),
            ("EXOTEL_TOKEN_SECRETS", "k1:hunter2,k1:b"),
            ("EXOTEL_TOKEN_SECRETS", "k.1:hunter2"),
            ("EXOTEL_TOKEN_SECRETS", "k1:"),
            ("EXOTEL_TOKEN_SECRETS", "k1:hunter2,hunter2"),
            ("EXOTEL_SESSION_TOKENS_ONLY", "yes"),
            ("VOCOBASE_SECRETS", "hunter2,,b"),
            ("EVENTS_TABLE", ""),
            ("DEFAULT_COUNTRY", "India"),
            ("EXOTEL_TOKEN_SECRETS", ""),
        ] {
            let error = read_with(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_deadline_is_never_more_than_the_platform_waits() {
        let read = |webhook, millis: &'static str| {
            Config::read(webhook, &move |asked: &str| {
                if asked == "DEADLINE_MS" { Some(millis.to_owned()) } else { lookup(asked) }
            })
        };
        assert_eq!(read(Webhook::SessionStart, "15000").unwrap().deadline.as_millis(), 15_000);
        assert_eq!(read(Webhook::SessionCompleted, "10000").unwrap().deadline.as_millis(), 10_000);
        let refused = read(Webhook::SessionCompleted, "10001").unwrap_err();
        assert_eq!(refused.to_string(), "DEADLINE_MS is more than the 10000 that Vocobase waits");
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let printed = format!("{:?}", Config::read(Webhook::SessionStart, &lookup).unwrap());
        assert!(!printed.contains("whsec_a") && !printed.contains("new\""), "{printed}");
    }
}
