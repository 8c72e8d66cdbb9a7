//! The list of calls: the latest first, page by page, by any of the filters that `hookswitch calls` knows.

use std::collections::BTreeMap;

use http::StatusCode;
use minijinja::context;
use serde::Serialize;
use shared::call::{Call, Field, State};
use shared::storage::{Order, Place};
use shared::{Instant, Provider, SessionKey};

use super::call::{bots, tone};
use super::{Asked, Console, PATH, Problem, Reply, call_path, platform, query};
use crate::calls::filter::{BUDGET, Filter, Found, duration_seconds, find, insight, sentiment};

/// Calls on a page.
pub(super) const MOST: usize = 50;

/// What the address of a list says that is no filter.
const NO_FILTER: [&str; 6] = ["after", "q", "token", "again", "left", "save"];

/// Periods to choose from; any other can be written into the address.
pub(super) const PERIODS: [(&str, &str); 7] = [
    ("1h", "Last hour"),
    ("24h", "Last 24 hours"),
    ("7d", "Last 7 days"),
    ("", "Last 30 days"),
    ("90d", "Last 90 days"),
    ("365d", "Last 12 months"),
    ("1970-01-01", "Ever"),
];

/// A call in a list.
#[derive(Serialize)]
struct Row<'a> {
    key: &'a str,
    href: String,
    started_at: Option<String>,
    contact: Option<&'a str>,
    id: &'a str,
    bot: Option<String>,
    platform: &'static str,
    seconds: Option<f64>,
    state: &'static str,
    status: Option<&'a str>,
    transferred: bool,
    test: bool,
    sentiment: Option<String>,
    tone: &'static str,
    recording: Option<&'a str>,
    /// What it was about, in few words.
    about: Option<String>,
}

/// The page.
pub(super) async fn page(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    if let Some(searched) = asked.get("q") {
        return search(console, searched.trim()).await;
    }
    let (filter, found) = found(console, asked, None).await?;
    let rows: Vec<Row<'_>> = found.calls.iter().map(row).collect();
    let shown = |name: &str| asked.get(name).unwrap_or_default().to_owned();
    let names = [
        ("since", "since"),
        ("until", "before"),
        ("provider", "platform"),
        ("state", "state"),
        ("bot", "bot"),
        ("contact", "number"),
        ("recording", "recording"),
        ("transferred", "human asked for"),
        ("sentiment", "sentiment"),
        ("tests", "test calls"),
    ];
    let chip = |(name, label)| Some((label, asked.get(name)?, asked.with(&[(name, None), ("after", None)])));
    let chips: Vec<_> = names.into_iter().filter_map(chip).collect();
    let chosen: BTreeMap<_, _> = names.into_iter().map(|(name, _)| (name, shown(name))).collect();
    let context = context! {
        title => "Calls",
        rows,
        periods => PERIODS,
        chips,
        chosen,
        more => more_open(&filter),
        is_live => asked.get("after").is_none(),
        newest => asked.get("after").map(|_| asked.with(&[("after", None)])),
        older => found.next.as_ref().map(|next| asked.with(&[("after", Some(&next.to_string()))])),
        next_at => found.next.as_ref().map(|next| next.started_at.to_string()),
        // Not all of a page was found, since few calls are among those that are looked for.
        looked_at => (found.calls.len() < MOST && found.next.is_some()).then_some(found.looked_at),
    };
    Ok(Reply::Page(StatusCode::OK, "list.html", context))
}

/// The calls that an address asks for; `recording` in the place of what it says of recordings.
pub(super) async fn found(
    console: &Console,
    asked: &Asked,
    recording: Option<&str>,
) -> Result<(Filter, Found), Problem> {
    let pairs = asked.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let pairs = pairs.filter(|(name, _)| !NO_FILTER.contains(name) && (recording.is_none() || *name != "recording"));
    let filter = Filter::read(pairs.chain(recording.map(|state| ("recording", state))));
    let mut filter = filter.map_err(|why| Problem::Unclear(format!("The list cannot be had so: {why}.")))?;
    if filter.contact.is_some() && filter.since.is_none() {
        // An index knows a caller's calls: there is no reason to stop at a month.
        filter.since = Instant::from_unix_seconds(0);
    }
    let after = asked.get("after").map(str::parse::<Place>).transpose();
    let after = after.map_err(|_| Problem::Unclear("The address names no place in the list.".to_owned()))?;
    let (now, country) = (console.now(), console.opened.default_country);
    let bounds = (MOST, BUDGET);
    let window = filter.window(now);
    let found = find(&console.store, &filter, country, &window, Order::NewestFirst, after.as_ref(), bounds).await?;
    Ok((filter, found))
}

/// A call by its id, or a caller's calls.
async fn search(console: &Console, searched: &str) -> Result<Reply, Problem> {
    let ids = [Provider::Exotel, Provider::Vocobase].map(|provider| SessionKey::new(provider, searched).ok());
    for key in ids.into_iter().chain([searched.parse().ok()]).flatten() {
        let known = console.store.fresh_call(&key, console.now()).await?;
        if known.is_some_and(|call| call.state != State::Erased) {
            return Ok(Reply::GoTo(call_path(&key)));
        }
    }
    Ok(Reply::GoTo(format!("{PATH}{}", query("contact", searched))))
}

/// Whether a filter is set that is not in the first row.
fn more_open(filter: &Filter) -> bool {
    let Filter { since: _, provider: _, state: _, tests, until, bot, contact, recording, transferred, sentiment } =
        filter;
    *tests
        || until.is_some()
        || transferred.is_some()
        || [bot, contact, recording, sentiment].into_iter().any(Option::is_some)
}

fn row(call: &Call) -> Row<'_> {
    let sentiment = sentiment(call);
    Row {
        key: call.key.as_str(),
        href: call_path(&call.key),
        started_at: call.started_at.map(|at| at.to_string()),
        contact: call.get(Field::Contact),
        id: call.key.id(),
        bot: call.get(Field::BotName).map(str::to_owned).or_else(|| bots(call)),
        platform: platform(call.key.provider()),
        seconds: duration_seconds(call),
        state: call.state.name(),
        status: call.get(Field::CallStatus).filter(|status| *status != "completed"),
        transferred: call.transfer_requested,
        test: call.test,
        tone: sentiment.as_deref().map_or("plain", tone),
        sentiment,
        recording: call.get(Field::RecordingState),
        about: insight(call, "summary").or_else(|| insight(call, "intent")),
    }
}
