//! Which calls: the same words on the command line and in the console.

use clap::builder::PossibleValuesParser;
use clap::{Parser, ValueEnum};
use serde_json::Value;
use shared::call::{Call, Field, State};
use shared::contact::normalised;
use shared::recording;
use shared::storage::{Order, Place, Store, StoreError, Window};
use shared::{Country, Instant, Provider};

use crate::events::since;

const SECONDS_A_DAY: i64 = 24 * 60 * 60;
/// How far back a list goes that is not told.
const DAYS: i64 = 30;
/// Calls read at a time where most of them may be left out.
const READ_AT_ONCE: usize = 200;
/// So many calls are read for one page, at most, where no index knows the answer.
pub const BUDGET: usize = 2_000;

/// Which calls.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Calls that began since then: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d [default: 30d]
    #[arg(long, value_name = "T", value_parser = since)]
    pub since: Option<Instant>,
    /// Calls that began before then.
    #[arg(long, value_name = "T", value_parser = since)]
    pub until: Option<Instant>,
    /// Calls of this platform.
    #[arg(long, value_parser = provider())]
    pub provider: Option<String>,
    /// Calls that have come so far.
    #[arg(long, value_parser = PossibleValuesParser::new([State::InProgress.name(), State::Ended.name()]))]
    pub state: Option<String>,
    /// Calls of this bot, by its id or name.
    #[arg(long)]
    pub bot: Option<String>,
    /// Calls of this number, in any usual spelling.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub contact: Option<String>,
    /// Calls by their recording: `any`, `none`, or how far it has come.
    #[arg(long, value_name = "STATE", value_parser = recording())]
    pub recording: Option<String>,
    /// Calls in which a human was asked for; `--transferred=false`: in which none was.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub transferred: Option<bool>,
    /// Calls whose latest sentiment this is, such as negative.
    #[arg(long)]
    pub sentiment: Option<String>,
    /// Test calls too: what the platforms' own test buttons send.
    #[arg(long)]
    pub tests: bool,
}

/// A platform's name.
pub(crate) fn provider() -> PossibleValuesParser {
    PossibleValuesParser::new([Provider::Exotel, Provider::Vocobase].map(Provider::name))
}

fn recording() -> PossibleValuesParser {
    PossibleValuesParser::new(["any", "none"].into_iter().chain(recording::State::ALL.map(recording::State::name)))
}

/// The filter alone, to be read from elsewhere than the command line.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Alone {
    #[command(flatten)]
    filter: Filter,
}

/// The order of a list.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// When it began.
    Started,
    /// How long it was.
    Duration,
    /// How long the bot took to answer, on the mean.
    Latency,
    /// What the platform took for it.
    Credits,
}

impl Sort {
    /// What calls are compared by; `None` sorts last, whichever way.
    pub fn value(self, call: &Call) -> Option<f64> {
        match self {
            Self::Started => None,
            Self::Duration => duration_seconds(call),
            Self::Latency => number(call, Field::LatencyAvgMs),
            Self::Credits => number(call, Field::CreditsUsed),
        }
    }
}

/// Calls that were found.
pub struct Found {
    /// In order.
    pub calls: Vec<Call>,
    /// Where it goes on; `None` after the last one.
    pub next: Option<Place>,
    /// How many calls were read for it.
    pub looked_at: usize,
}

impl Filter {
    /// A filter of names and values, as the parts of a URL's query have them; empty values say nothing.
    ///
    /// # Errors
    /// What is wrong with it, in words for who typed it.
    pub fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let said = pairs.into_iter().filter(|(_, value)| !value.is_empty());
        let arguments = said.map(|(name, value)| match (name, value) {
            ("tests", _) => "--tests".to_owned(),
            (name, value) => format!("--{name}={value}"),
        });
        let alone = Alone::try_parse_from(arguments);
        let first = |error: clap::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
        alone.map(|alone| alone.filter).map_err(|error| first(error).trim_start_matches("error: ").to_owned())
    }

    /// The time it is about. Platforms' clocks may be ahead of ours.
    pub fn window(&self, now: Instant) -> Window {
        let since = self.since.unwrap_or_else(|| now.plus_seconds(-DAYS * SECONDS_A_DAY));
        Window { since, until: self.until.unwrap_or_else(|| now.plus_seconds(SECONDS_A_DAY)) }
    }

    /// Whether a call is among those, its time apart.
    pub fn has(&self, call: &Call, country: Country) -> bool {
        let is = |wanted: &Option<String>, has: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(has);
        let named = |name: &str| call.bots.contains(name) || call.get(Field::BotName) == Some(name);
        let contact = |number: &str| {
            call.get(Field::Contact).is_some_and(|contact| contact == normalised(number.to_owned(), country))
        };
        let recording = |wanted: &str| match (wanted, call.get(Field::RecordingState)) {
            ("any", state) => state.is_some(),
            ("none", state) => state.is_none(),
            (wanted, state) => state == Some(wanted),
        };
        call.state != State::Erased
            && (self.tests || !call.test)
            && is(&self.provider, &|name| call.key.provider().name() == name)
            && is(&self.state, &|name| call.state.name() == name)
            && is(&self.bot, &named)
            && is(&self.contact, &contact)
            && is(&self.recording, &recording)
            && self.transferred.is_none_or(|wanted| call.transfer_requested == wanted)
            && is(&self.sentiment, &|wanted| sentiment(call).is_some_and(|said| said.eq_ignore_ascii_case(wanted)))
    }

    /// Whether every call of the window is likely to be among those.
    fn takes_most(&self) -> bool {
        let Self { since: _, until: _, contact: _, tests: _, provider, state, bot, recording, transferred, sentiment } =
            self;
        [provider, state, bot, recording, sentiment].into_iter().all(Option::is_none) && transferred.is_none()
    }
}

/// Up to `most` calls after that place. A contact's calls are found by their index; what no index knows is looked for
/// among the calls of the window, in their order, and not among more than `budget` of them: then `next` says where to go
/// on.
pub async fn find(
    store: &Store,
    filter: &Filter,
    country: Country,
    window: &Window,
    order: Order,
    after: Option<&Place>,
    (most, budget): (usize, usize),
) -> Result<Found, StoreError> {
    let mut found = Found { calls: Vec::new(), next: after.cloned(), looked_at: 0 };
    let contact = filter.contact.clone().map(|number| normalised(number, country));
    let at_once = if filter.takes_most() { most } else { READ_AT_ONCE.max(most) };
    loop {
        let after = found.next.take();
        let page = match &contact {
            Some(contact) => store.list_of(contact, window, order, after.as_ref(), at_once).await?,
            None => store.list(window, order, after.as_ref(), at_once).await?,
        };
        found.looked_at += page.calls.len();
        found.next = page.next;
        let room = most - found.calls.len();
        let mut those = page.calls.into_iter().filter(|call| filter.has(call, country));
        found.calls.extend(those.by_ref().take(room));
        if those.next().is_some() {
            // More of this page's calls than there is room for: the next page begins among them.
            found.next = found.calls.last().and_then(place);
        }
        if found.next.is_none() || found.calls.len() >= most || found.looked_at >= budget {
            return Ok(found);
        }
    }
}

fn place(call: &Call) -> Option<Place> {
    Some(Place { started_at: call.started_at?, key: call.key.clone() })
}

/// A field's number.
pub fn number(call: &Call, field: Field) -> Option<f64> {
    call.get(field)?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// How long a call was, said or derived.
pub fn duration_seconds(call: &Call) -> Option<f64> {
    let derived = || call.derived_duration_seconds()?.parse().ok();
    number(call, Field::DurationSeconds).or_else(derived)
}

/// The value of an insight, such as `negative` of the type `sentiment`.
pub fn insight(call: &Call, kind: &str) -> Option<String> {
    let data: Value = serde_json::from_str(&call.insights.get(kind)?.value).ok()?;
    match &data["value"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// The latest sentiment.
pub fn sentiment(call: &Call) -> Option<String> {
    insight(call, "sentiment")
}

#[cfg(test)]
mod tests {
    use shared::call::Said;

    use super::*;

    fn call() -> Call {
        let mut call = Call::new("exotel#s1".parse().unwrap());
        call.bots.insert("b1".to_owned());
        call.say(Field::BotName, None, Some("Support".to_owned()));
        call.say(Field::Contact, None, Some("+919876543210".to_owned()));
        call.say(Field::RecordingState, None, Some("archived".to_owned()));
        let value = r#"{"value":"negative","score":7}"#.to_owned();
        call.insights.insert("sentiment".to_owned(), Said { at: None, value });
        call
    }

    fn has(pairs: &[(&str, &str)]) -> bool {
        Filter::read(pairs.iter().copied()).unwrap().has(&call(), Country::INDIA)
    }

    #[test]
    fn each_filter_takes_what_it_says_and_leaves_the_rest() {
        for (name, takes, leaves) in [
            ("provider", "exotel", "vocobase"),
            ("state", "in_progress", "ended"),
            ("bot", "b1", "b2"),
            ("bot", "Support", "support"),
            ("contact", "098765 43210", "+919876543211"),
            ("recording", "archived", "failed"),
            ("recording", "any", "none"),
            ("transferred", "false", "true"),
            ("sentiment", "Negative", "positive"),
        ] {
            assert!(has(&[(name, takes)]), "{name}={takes}");
            assert!(!has(&[(name, leaves)]), "{name}={leaves}");
            let other = if name == "provider" { ("state", "ended") } else { ("provider", "vocobase") };
            assert!(!has(&[(name, takes), other]), "{name}={takes} and another");
        }
    }

    #[test]
    fn empty_words_say_nothing_and_wrong_ones_are_named() {
        assert!(has(&[("state", ""), ("contact", "")]));
        let wrong = Filter::read([("state", "over")]).unwrap_err();
        assert!(wrong.contains("'over'") && !wrong.contains('\n'), "{wrong}");
        assert!(Filter::read([("colour", "red")]).is_err());
        assert!(Filter::read([("since", "yesterday")]).is_err());
    }

    #[test]
    fn test_calls_and_erased_ones_are_left_out() {
        let test = Call { test: true, ..call() };
        assert!(!Filter::default().has(&test, Country::INDIA));
        assert!(Filter { tests: true, ..Filter::default() }.has(&test, Country::INDIA));
        let erased = Call { state: State::Erased, ..call() };
        assert!(!Filter { tests: true, ..Filter::default() }.has(&erased, Country::INDIA));
    }
}
