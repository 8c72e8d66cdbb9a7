//! The names of things: which platform, which webhook, which call.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

/// The platform that runs the bot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Provider {
    /// Exotel VoiceBot: five webhooks during and after a call.
    Exotel,
    /// Vocobase: one webhook when a session is over.
    Vocobase,
}

impl Provider {
    /// `exotel` or `vocobase`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exotel => "exotel",
            Self::Vocobase => "vocobase",
        }
    }
}

/// One webhook type. Its name is also the name of the function that receives it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Webhook {
    /// Exotel: a call begins, and the platform waits for the answer.
    SessionStart,
    /// Exotel: the conversation is over.
    SessionEnd,
    /// Exotel: the bot is about to hand over to a human, and the platform waits for the answer.
    PreAgentTransfer,
    /// Exotel: sentiment, summary, intent, entity, outcome.
    InsightsEvents,
    /// Exotel: a turn as heard so far.
    TranscriptEvents,
    /// Vocobase: everything about a finished session.
    SessionCompleted,
}

impl Webhook {
    /// Every webhook.
    pub const ALL: [Self; 6] = [
        Self::SessionStart,
        Self::SessionEnd,
        Self::PreAgentTransfer,
        Self::InsightsEvents,
        Self::TranscriptEvents,
        Self::SessionCompleted,
    ];

    /// The name in URLs, keys and logs, such as `session_start`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SessionStart => "session_start",
            Self::SessionEnd => "session_end",
            Self::PreAgentTransfer => "pre_agent_transfer",
            Self::InsightsEvents => "insights_events",
            Self::TranscriptEvents => "transcript_events",
            Self::SessionCompleted => "session_completed",
        }
    }

    /// Who sends it.
    pub const fn provider(self) -> Provider {
        match self {
            Self::SessionCompleted => Provider::Vocobase,
            _ => Provider::Exotel,
        }
    }
}

impl FromStr for Webhook {
    type Err = UnknownWebhook;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|webhook| webhook.name() == name).ok_or(UnknownWebhook)
    }
}

/// A name that is no webhook's.
#[derive(Debug, thiserror::Error)]
#[error("no such webhook")]
pub struct UnknownWebhook;

/// The key of a call in every table: `exotel#<session id>` or `vocobase#<session id>`.
///
/// The platform's id is opaque and may hold anything, `#` included: the first `#` ends the provider's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey {
    provider: Provider,
    key: String,
}

/// What `DynamoDB` takes as a partition key, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 2048;

/// How the ids of the sessions begin that `hookswitch doctor` makes up.
pub const TRIAL_PREFIX: &str = "doctor-";
/// What follows: so many random letters and digits.
pub const TRIAL_LENGTH: usize = 12;

/// What an object's key may hold as it is; the rest of a session's id is percent-encoded.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
/// A longer name is a digest instead: some stores keep an object in a file named after all of its key.
const MAX_NAME_BYTES: usize = 100;

impl SessionKey {
    /// Refuses ids that cannot be a key: empty, or over 2048 bytes with the provider's name.
    pub fn new(provider: Provider, id: &str) -> Result<Self, BadSessionId> {
        if id.is_empty() {
            return Err(BadSessionId::Empty);
        }
        let key = format!("{}#{id}", provider.name());
        if key.len() > MAX_KEY_BYTES { Err(BadSessionId::TooLong) } else { Ok(Self { provider, key }) }
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.key
    }

    /// The platform's own id.
    pub fn id(&self) -> &str {
        &self.key[self.provider.name().len() + 1..]
    }

    /// What the objects of this call are named, below a prefix that tells the platform: the platform's own id, as any
    /// store takes it. It never begins with a dot or an underscore: Athena passes such objects over.
    pub fn object_name(&self) -> String {
        let plain = utf8_percent_encode(self.id(), PLAIN).to_string();
        let name = match plain.as_bytes() {
            [b'.', ..] => format!("%2E{}", &plain[1..]),
            [b'_', ..] => format!("%5F{}", &plain[1..]),
            _ => plain,
        };
        if name.len() > MAX_NAME_BYTES { hex::encode(Sha256::digest(self.id())) } else { name }
    }

    /// Whether it is one that `hookswitch doctor` made up: [`TRIAL_PREFIX`] and [`TRIAL_LENGTH`] letters and digits.
    pub fn is_trial(&self) -> bool {
        let random = self.id().strip_prefix(TRIAL_PREFIX);
        random.is_some_and(|id| id.len() == TRIAL_LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    }

    /// One of `of` shards, always the same for the same call.
    pub fn shard(&self, of: u8) -> u8 {
        self.key.bytes().fold(0_u8, u8::wrapping_add) % of
    }

    /// The platform.
    pub const fn provider(&self) -> Provider {
        self.provider
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl FromStr for SessionKey {
    type Err = BadSessionId;

    fn from_str(key: &str) -> Result<Self, Self::Err> {
        let (provider, id) = key.split_once('#').ok_or(BadSessionId::NoProvider)?;
        let provider = [Provider::Exotel, Provider::Vocobase].into_iter().find(|known| known.name() == provider);
        Self::new(provider.ok_or(BadSessionId::NoProvider)?, id)
    }
}

/// Why a text cannot name a call.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSessionId {
    /// No id at all.
    #[error("the session id is missing or empty")]
    Empty,
    /// More than a key can hold.
    #[error("the session id is over {MAX_KEY_BYTES} bytes")]
    TooLong,
    /// A key that does not begin with a provider.
    #[error("a session key begins with exotel# or vocobase#")]
    NoProvider,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_hold_anything_but_must_fit_a_key() {
        let key = SessionKey::new(Provider::Exotel, "a#b\n").unwrap();
        assert_eq!((key.as_str(), key.id()), ("exotel#a#b\n", "a#b\n"));
        assert_eq!("exotel#a#b\n".parse(), Ok(key));
        assert_eq!(SessionKey::new(Provider::Exotel, ""), Err(BadSessionId::Empty));
        assert_eq!(SessionKey::new(Provider::Vocobase, &"x".repeat(2040)), Err(BadSessionId::TooLong));
        assert!(SessionKey::new(Provider::Vocobase, &"x".repeat(2039)).is_ok());
    }

    #[test]
    fn names_are_what_keys_and_urls_hold() {
        for (webhook, name, provider) in [
            (Webhook::SessionStart, "session_start", Provider::Exotel),
            (Webhook::SessionEnd, "session_end", Provider::Exotel),
            (Webhook::PreAgentTransfer, "pre_agent_transfer", Provider::Exotel),
            (Webhook::InsightsEvents, "insights_events", Provider::Exotel),
            (Webhook::TranscriptEvents, "transcript_events", Provider::Exotel),
            (Webhook::SessionCompleted, "session_completed", Provider::Vocobase),
        ] {
            assert_eq!((webhook.name(), webhook.provider()), (name, provider));
            assert_eq!(name.parse().ok(), Some(webhook));
        }
        assert!("".parse::<Webhook>().is_err() && "sessions".parse::<Webhook>().is_err());
        let key: SessionKey = "vocobase#v1".parse().unwrap();
        assert_eq!((key.provider(), key.to_string().as_str()), (Provider::Vocobase, "vocobase#v1"));
        for key in ["", "s1", "exotel", "#s1", "Exotel#s1"] {
            assert_eq!(key.parse::<SessionKey>(), Err(BadSessionId::NoProvider), "{key}");
        }
    }

    #[test]
    fn an_object_has_a_name_that_any_store_takes_and_athena_looks_at() {
        let name = |id: &str| SessionKey::new(Provider::Vocobase, id).unwrap().object_name();
        assert_eq!(name("s1234567-abcd"), "s1234567-abcd");
        assert_eq!(name("a/../b"), "a%2F..%2Fb");
        assert_eq!((name(".."), name("_s1")), ("%2E.".to_owned(), "%5Fs1".to_owned()));
        assert_eq!((name(&"x".repeat(100)).len(), name(&"x".repeat(101)).len()), (100, 64));
    }

    #[test]
    fn a_call_is_always_in_the_same_shard_and_calls_are_spread() {
        let shard = |id: &str| SessionKey::new(Provider::Exotel, id).unwrap().shard(4);
        // The bytes of "exotel#" add up to 692, "a" is 97.
        assert_eq!(["a", "b", "c", "d"].map(shard), [1, 2, 3, 0]);
    }
}
