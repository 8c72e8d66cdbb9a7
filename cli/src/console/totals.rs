//! The page of totals: what a period's calls come to, as `hookswitch stats` counts them.

use std::collections::BTreeMap;

use http::StatusCode;
use minijinja::{Value, context};
use shared::Instant;
use shared::storage::Order;

use super::charts::{HEIGHT, bars, place};
use super::list::PERIODS;
use super::pages::{duration, grouped};
use super::{Asked, Console, Problem, Reply};
use crate::calls::filter::{Filter, find};
use crate::stats::{Count, Spread, Totals};

/// A page does not wait for more: `hookswitch stats` counts any number.
const MOST: usize = 10_000;
/// Calls read at a time.
const AT_ONCE: usize = 1_000;
/// Days beside each other.
const DAYS: usize = 120;
/// Rows of a chart of shares: the largest.
const ROWS: usize = 8;

/// The page.
pub(super) async fn page(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let pairs = asked.0.iter().filter(|(name, _)| matches!(name.as_str(), "since" | "until" | "provider" | "bot"));
    let filter = Filter::read(pairs.map(|(name, value)| (name.as_str(), value.as_str())));
    let filter = filter.map_err(|why| Problem::Unclear(format!("The totals cannot be had so: {why}.")))?;
    let (store, country, window) = (&console.store, console.opened.default_country, filter.window(console.now()));
    let (mut totals, mut looked_at, mut after) = (Totals::default(), 0, None);
    loop {
        let bounds = (AT_ONCE, AT_ONCE);
        let found = find(store, &filter, country, &window, Order::NewestFirst, after.as_ref(), bounds).await?;
        found.calls.iter().for_each(|call| totals.add(call));
        looked_at += found.looked_at;
        after = found.next;
        if after.is_none() || looked_at >= MOST {
            break;
        }
    }
    let all = &totals.all;
    let percent = |count: u64| share(count, all.calls);
    let tiles = [
        ("Calls", grouped(all.calls), (totals.in_progress > 0).then(|| format!("{} in progress", totals.in_progress))),
        ("Asked for a human", format!("{}%", percent(all.transferred)), Some(grouped(all.transferred))),
        ("Time together", duration(all.seconds), spread(totals.durations(), duration)),
        (
            "Bot’s answer, on average",
            totals.latencies().map_or_else(|| "–".to_owned(), |spread| format!("{:.0} ms", spread.mean)),
            spread(totals.latencies(), |millis| format!("{millis:.0} ms")),
        ),
    ];
    let shown = |name: &str| asked.get(name).unwrap_or_default().to_owned();
    let context = context! {
        title => "Totals",
        tiles,
        days => days(&totals.days),
        height => HEIGHT,
        shares => [
            ("Outcomes", shares(&totals.outcomes, all.calls)),
            ("Sentiment", shares(&totals.sentiments, all.calls)),
            ("Recordings", shares(&totals.recordings, all.calls)),
            ("Platforms", shares(&counts(&totals.providers), all.calls)),
            ("Bots", shares(&counts(&totals.bots), all.calls)),
        ],
        spreads => [
            ("Length", totals.durations().map(|spread| ranks(&spread, duration))),
            ("Response latency", totals.latencies().map(|spread| ranks(&spread, |millis| format!("{millis:.0} ms")))),
        ],
        periods => PERIODS,
        since => shown("since"),
        provider => shown("provider"),
        bot => shown("bot"),
        cut => after.map(|next| (looked_at, next.started_at.to_string())),
    };
    Ok(Reply::Page(StatusCode::OK, "totals.html", context))
}

fn spread(spread: Option<Spread>, show: impl Fn(f64) -> String) -> Option<String> {
    let Spread { p50, p90, .. } = spread?;
    Some(format!("half below {}, nine in ten below {}", show(p50), show(p90)))
}

fn share(of: u64, all: u64) -> u64 {
    (of * 100 + all / 2).checked_div(all).unwrap_or_default()
}

fn counts(counts: &BTreeMap<String, Count>) -> BTreeMap<String, u64> {
    counts.iter().map(|(name, count)| (name.clone(), count.calls)).collect()
}

/// The latest days, and in each of them the calls in which a human was asked for.
fn days(days: &BTreeMap<String, Count>) -> Value {
    let bound = |day: Option<(&String, &Count)>| day.and_then(|(day, _)| Instant::parse(day));
    let (Some(first), Some(last)) = (bound(days.first_key_value()), bound(days.last_key_value())) else {
        return Value::UNDEFINED;
    };
    // A day without a call has its place, too.
    let back = std::iter::successors(Some(last), |day| Some(day.plus_seconds(-24 * 60 * 60)));
    let mut shown: Vec<(String, Count)> = back
        .take_while(|day| *day >= first)
        .take(DAYS)
        .map(|day| (day.day(), days.get(&day.day()).cloned().unwrap_or_default()))
        .collect();
    shown.reverse();
    let values: Vec<Option<f64>> =
        shown.iter().map(|(_, count)| Some(number(count.calls)).filter(|calls| *calls > 0.0)).collect();
    let (columns, most) = bars(&values);
    let day = |((day, count), bar): ((String, Count), _)| {
        let transferred = number(count.transferred) / most * HEIGHT;
        context! { day, calls => count.calls, transferred => count.transferred, bar => Value::from_serialize(&bar),
        part => transferred, part_y => HEIGHT - transferred }
    };
    let columns: Vec<Value> = shown.into_iter().zip(columns).map(day).collect();
    context! { columns, most }
}

/// The largest of what was counted, each with its share.
fn shares(counts: &BTreeMap<String, u64>, all: u64) -> Vec<Value> {
    let mut rows: Vec<(&String, u64)> = counts.iter().map(|(name, count)| (name, *count)).collect();
    rows.sort_by(|(one_name, one), (two_name, two)| two.cmp(one).then(one_name.cmp(two_name)));
    let row = |(name, count): &(&String, u64)| {
        context! { name, count, percent => share(*count, all), width => place(number(*count), number(all)),
        tone => super::call::tone(name) }
    };
    rows.iter().take(ROWS).map(row).collect()
}

fn ranks(spread: &Spread, show: impl Fn(f64) -> String) -> Value {
    let Spread { calls, mean, p50, p90, p99, max } = *spread;
    let named = [("Average", mean), ("p50", p50), ("p90", p90), ("p99", p99), ("Most", max)];
    let ranks: Vec<_> = named
        .into_iter()
        .map(|(name, value)| context! { name, shown => show(value), width => place(value, max) })
        .collect();
    context! { calls, ranks }
}

#[allow(clippy::cast_precision_loss, reason = "there are fewer calls than that")]
fn number(count: u64) -> f64 {
    count as f64
}
