//! What a call is: the join of everything its deliveries said, in whatever order and however often they said it.
//!
//! [`Call::join`] is pure, commutative, associative and idempotent. A delivery is read into a small [`Call`] that says
//! what this delivery knows, and joined into the stored one; so any order and any repetition leaves the same call.

mod exotel;
mod told;
mod vocobase;

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
pub use told::{data, number};

use crate::contact::Country;
use crate::instant::Instant;
use crate::recording::Wanted;
use crate::session::{BadSessionId, MAX_KEY_BYTES, SessionKey, Webhook};

/// How far a call has come. The greatest wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// It goes on, as far as is known.
    InProgress,
    /// It is over.
    Ended,
    /// Its person asked to be forgotten: nothing is said or kept about it any more.
    Erased,
}

impl State {
    /// `in_progress`, `ended` or `erased`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Ended => "ended",
            Self::Erased => "erased",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::InProgress, Self::Ended, Self::Erased].into_iter().find(|state| state.name() == name)
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal: $kind:ident,)*) => {
        /// Something a delivery says about a call, of which the latest word counts. Its name is the attribute's.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Field {
            $($(#[$doc])* $variant,)*
        }

        impl Field {
            /// Every field.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The attribute's name in the `sessions` table.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How the value is kept.
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

/// How a field's value is kept in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text; JSON is text too.
    Text,
    /// A number, where `DynamoDB` can hold it (38 digits), else text.
    Number,
}

fields! {
    /// The platform's id of the conversation.
    ConversationId = "conversation_id": Text,
    /// The id of the telephone call, as Exotel names it.
    ExternalId = "external_id": Text,
    /// The id of the telephone call, as Vocobase names it.
    CallId = "call_id": Text,
    /// The human's number, in E.164 where it is one.
    Contact = "contact": Text,
    /// The bot's own number.
    LandingNumber = "landing_number": Text,
    /// `sip` or `pstn`.
    NetworkType = "network_type": Text,
    /// `outbound` or `inbound`.
    Direction = "direction": Text,
    /// The platform's account.
    AccountId = "account_id": Text,
    /// The bot's display name.
    BotName = "bot_name": Text,
    /// When the call ended, ISO 8601.
    EndedAt = "ended_at": Text,
    /// Seconds, where the platform says it; else it is derived.
    DurationSeconds = "duration_seconds": Number,
    /// Credits, digits kept.
    CreditsUsed = "credits_used": Number,
    /// The fastest answer of the bot, in milliseconds.
    LatencyMinMs = "latency_min_ms": Number,
    /// The slowest answer of the bot, in milliseconds.
    LatencyMaxMs = "latency_max_ms": Number,
    /// The mean over the bot's answers, in milliseconds.
    LatencyAvgMs = "latency_avg_ms": Number,
    /// The telephone call's final status.
    CallStatus = "call_status": Text,
    /// How it ended, in more detail.
    Disposition = "disposition": Text,
    /// Who answered.
    AnsweredBy = "answered_by": Text,
    /// JSON.
    Metadata = "metadata": Text,
    /// JSON.
    CustomParameters = "custom_parameters": Text,
    /// JSON.
    Variables = "variables": Text,
    /// JSON.
    Extraction = "extraction": Text,
    /// How far the recording has come.
    RecordingState = "recording_state": Text,
    /// Where the recording is kept: `s3://…`.
    Recording = "recording": Text,
    /// What whoever takes over should know, JSON: see [`crate::brief`].
    Brief = "brief": Text,
}

impl Field {
    /// The field of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|field| field.name() == name)
    }
}

/// A value and the instant of the delivery that said it. The greater of two is the later, and of equally late ones
/// the one whose value sorts last: an arbitrary choice, but everywhere the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// When it was said; `None` is before everything.
    pub at: Option<Instant>,
    /// What was said. Never empty: empty is absent.
    pub value: String,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[redacted] at {:?}", self.at)
    }
}

/// What is known of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which call.
    pub key: SessionKey,
    /// The greatest wins.
    pub state: State,
    /// The earliest wins.
    pub started_at: Option<Instant>,
    /// Every bot that was heard of.
    pub bots: BTreeSet<String>,
    /// A human was asked for, once is enough.
    pub transfer_requested: bool,
    /// The platform's own test button, not a call.
    pub test: bool,
    /// Vocobase: the transcript that counts; the greatest wins.
    pub revision: Option<String>,
    /// Of each field the greatest [`Said`].
    pub fields: BTreeMap<Field, Said>,
    /// Of each insight type the greatest [`Said`], as JSON.
    pub insights: BTreeMap<String, Said>,
}

impl Call {
    /// A call of which nothing is known.
    pub const fn new(key: SessionKey) -> Self {
        Self {
            key,
            state: State::InProgress,
            started_at: None,
            bots: BTreeSet::new(),
            transfer_requested: false,
            test: false,
            revision: None,
            fields: BTreeMap::new(),
            insights: BTreeMap::new(),
        }
    }

    /// Everything that either of two says about the same call.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        debug_assert_eq!(self.key, other.key, "two calls have no join");
        self.state = self.state.max(other.state);
        if self.state == State::Erased {
            return Self { state: State::Erased, ..Self::new(self.key) };
        }
        self.started_at = match (self.started_at, other.started_at) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self.bots.extend(other.bots.iter().cloned());
        self.transfer_requested |= other.transfer_requested;
        self.test |= other.test;
        if self.revision < other.revision {
            self.revision.clone_from(&other.revision);
        }
        join_said(&mut self.fields, &other.fields);
        join_said(&mut self.insights, &other.insights);
        self
    }

    /// Adds what was said; an empty value says nothing.
    pub fn say(&mut self, field: Field, at: Option<Instant>, value: Option<String>) {
        // As an index key it would make the store refuse the whole call.
        let fits = |value: &String| field != Field::Contact || value.len() <= MAX_KEY_BYTES;
        if let Some(value) = value.filter(|value| !value.is_empty() && fits(value)) {
            self.fields.insert(field, Said { at, value });
        }
    }

    /// The value of a field.
    pub fn get(&self, field: Field) -> Option<&str> {
        self.fields.get(&field).map(|said| said.value.as_str())
    }

    /// The call's length, where no delivery says it: from its start to its end, in seconds.
    pub fn derived_duration_seconds(&self) -> Option<String> {
        if self.fields.contains_key(&Field::DurationSeconds) {
            return None;
        }
        let ended_at = Instant::parse(self.get(Field::EndedAt)?)?;
        let millis = ended_at.millis_since(self.started_at?).max(0);
        Some(decimal(&format!("{}.{:03}", millis / 1000, millis % 1000)))
    }

    /// 16 hex digits over everything that is known: equal calls have equal digests.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        let instant = |at: Option<Instant>| at.map(|at| at.to_string()).unwrap_or_default();
        add(self.key.as_str());
        add(self.state.name());
        add(&instant(self.started_at));
        for bot in &self.bots {
            add("bot");
            add(bot);
        }
        add(if self.transfer_requested { "transfer_requested" } else { "" });
        add(if self.test { "test" } else { "" });
        add(self.revision.as_deref().unwrap_or_default());
        let fields = self.fields.iter().map(|(field, said)| ("field", field.name(), said));
        let insights = self.insights.iter().map(|(kind, said)| ("insight", kind.as_str(), said));
        for (what, name, said) in fields.chain(insights) {
            add(what);
            add(name);
            add(&instant(said.at));
            add(&said.value);
        }
        hex::encode(&hash.finalize()[..8])
    }
}

fn join_said<K: Ord + Clone>(into: &mut BTreeMap<K, Said>, from: &BTreeMap<K, Said>) {
    for (key, said) in from {
        match into.get_mut(key) {
            Some(known) if *known >= *said => {}
            Some(known) => known.clone_from(said),
            None => {
                into.insert(key.clone(), said.clone());
            }
        }
    }
}

/// A plain decimal as `DynamoDB` gives it back: no needless zeros, `-0` is `0`. What is no plain decimal stays.
pub fn decimal(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        ("", fraction) => format!("{sign}0.{fraction}"),
        (whole, fraction) => format!("{sign}{whole}.{fraction}"),
    }
}

/// One delivery, read: what it says about its call, and what goes beside the call.
#[derive(Debug)]
pub struct Delivery {
    /// Which webhook brought it.
    pub webhook: Webhook,
    /// Why it came, in the platform's word.
    pub trigger_reason: Option<String>,
    /// The latest instant it speaks of.
    pub occurred_at: Option<Instant>,
    /// What it says about the call.
    pub call: Call,
    /// Exotel: turns.
    pub turns: Vec<Turn>,
    /// Exotel: every insight that it brings, old and new. The call keeps the latest of each type.
    pub insights: Vec<Insight>,
    /// Vocobase: the whole transcript.
    pub transcript: Option<Transcript>,
    /// A recording to be fetched.
    pub recording: Option<Wanted>,
    /// The bot that speaks, for the answer.
    pub bot: Option<String>,
}

/// A stretch of speech.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Segment {
    /// In the platform's word.
    pub speaker: Option<String>,
    /// What was said.
    pub text: Option<String>,
    /// When it began.
    pub start: Option<Instant>,
    /// When it ended.
    pub end: Option<Instant>,
    /// Milliseconds until the bot answered.
    pub latency_ms: Option<String>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment {{ {:?}..{:?}, text: [redacted] }}", self.start, self.end)
    }
}

/// One Exotel turn as accumulated by one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its key below the session: `<sequence>#<bot>`.
    pub key: String,
    /// `in_progress`, `completed`, or the platform's own new word.
    pub status: String,
    /// The turn with the greater rank replaces the other.
    pub rank: String,
    /// What was said.
    pub segments: Vec<Segment>,
}

/// What was found out about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insight {
    /// `sentiment`, `summary` and so on, in the platform's word.
    pub kind: String,
    /// When it was found, and its data as canonical JSON.
    pub said: Said,
}

/// A Vocobase transcript.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    /// The greater revision counts: `webhook#<sent at>#<digest>`.
    pub revision: String,
    /// The whole conversation in order.
    pub segments: Vec<Segment>,
}

/// Where a delivery came from. A platform's own webhook outranks what was fetched later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Source {
    /// Fetched from the platform's API because nothing came.
    Reconciler,
    /// Posted by the platform.
    Webhook,
}

impl Source {
    /// `reconciler` or `webhook`: their alphabetical order is their rank, as revisions rely on.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reconciler => "reconciler",
            Self::Webhook => "webhook",
        }
    }

    /// The source of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Reconciler, Self::Webhook].into_iter().find(|source| source.name() == name)
    }
}

/// Why a verified delivery cannot be merged into a call. It is kept aside, verbatim.
#[derive(Debug, thiserror::Error)]
pub enum NotADelivery {
    /// The body cannot be read.
    #[error(transparent)]
    Unreadable(#[from] crate::auth::Unreadable),
    /// The body names no call.
    #[error(transparent)]
    NoSession(#[from] BadSessionId),
    /// More turns and insights than one delivery can store in the time there is.
    #[error("more turns and insights than a call has")]
    TooMany,
    /// A Vocobase event of a kind to come.
    #[error("the event is not session.completed")]
    UnknownEvent,
}

impl From<serde_json::Error> for NotADelivery {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.into())
    }
}

impl Delivery {
    /// Reads a verified body as what `webhook` brings.
    /// `country` is that of telephone numbers that come without its code.
    pub fn read(
        webhook: Webhook,
        body: &crate::auth::Verified<'_>,
        source: Source,
        country: Country,
    ) -> Result<Self, NotADelivery> {
        match webhook {
            Webhook::SessionCompleted => vocobase::read(body.parse()?, body.bytes(), source, country),
            _ => exotel::read(webhook, body.parse()?, country),
        }
    }
}

/// The first 16 hex digits of a SHA-256.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    hex::encode(&Sha256::digest(bytes)[..8])
}

/// The platform's own test button sends its documentation: `CAxxxx…` and `<voicebot session id>` are nobody's call.
fn is_placeholder(id: Option<&str>) -> bool {
    id.is_some_and(|id| {
        let id = id.trim();
        let exes = id.get(..2).filter(|two| two.eq_ignore_ascii_case("ca")).and_then(|_| id.get(2..));
        let is_xs =
            exes.is_some_and(|rest| rest.len() >= 8 && rest.bytes().all(|byte| byte.eq_ignore_ascii_case(&b'x')));
        is_xs || (id.starts_with('<') && id.ends_with('>'))
    })
}

#[cfg(test)]
pub(crate) mod tests;
