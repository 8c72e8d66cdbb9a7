//! `hookswitch calls`: which calls there were.

pub mod filter;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Value, json};
use shared::call::{Call, Field, State};
use shared::json::Json;
use shared::logging::printable;
use shared::storage::{Order, Place, Store};
use shared::{Country, Instant};

use crate::events::counter;
use crate::paint::{Colour, Paint};
use crate::target::Target;
use crate::{Failure, aligned};
use filter::{BUDGET, Filter, Found, Sort, duration_seconds, find, sentiment};

/// List calls, the latest first: by time, platform, state, bot, number, recording, transfer and sentiment.
#[derive(clap::Args, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(after_help = "\
Examples:
  hookswitch calls                                            the latest 50 of the last 30 days
  hookswitch calls --since 2h --state in_progress             what goes on now
  hookswitch calls --contact '+91 98765 43210' --since 365d   a caller's year
  hookswitch calls --sentiment negative --transferred=false   who was unhappy and reached no human
  hookswitch calls --sort duration --limit 10                 the ten longest
  hookswitch calls --since 2026-03-01 --until 2026-04-01 --all --csv > march.csv
  hookswitch calls --stack prod --json | jq -r .session       one JSON object a line

Times are UTC. Where there are more, the last line on standard error says how to go on. A list by time or number reads
what it shows; other filters read the calls of the time in turn, and --sort by anything but started reads all of them.

Exit code: 0, also if nothing is found; 1 if the stores cannot be read; 2 for wrong arguments.")]
pub struct Options {
    #[command(flatten)]
    filter: Filter,
    /// In which order, the largest or latest first: started, duration, latency (on the mean) or credits.
    // With its values' own help, clap would print every option in its long form.
    #[arg(long, value_enum, default_value = "started", hide_possible_values = true)]
    sort: Sort,
    /// The smallest, or earliest, first.
    #[arg(long)]
    reverse: bool,
    /// So many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// All there are.
    #[arg(long, conflicts_with_all = ["limit", "after"])]
    all: bool,
    /// Go on after this place, as the list before said.
    #[arg(long, value_name = "PLACE", conflicts_with = "sort")]
    after: Option<Place>,
    /// One JSON object a line.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Comma-separated values, with a line of names.
    #[arg(long)]
    csv: bool,
    #[command(flatten)]
    target: Target,
}

/// The columns of CSV: members of the JSON.
const CSV: [&str; 18] = [
    "session",
    "provider",
    "started_at",
    "ended_at",
    "duration_seconds",
    "state",
    "bot",
    "bot_name",
    "contact",
    "landing_number",
    "direction",
    "call_status",
    "transfer_requested",
    "sentiment",
    "latency_avg_ms",
    "credits_used",
    "recording_state",
    "recording",
];

/// Runs the command.
pub async fn run(options: &Options, now: Instant, out: impl Write, coloured: bool) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let (store, country) = (opened.store()?, opened.default_country);
    let mut sheet = Sheet { options, out, paint: Paint(coloured), now, begun: false };
    if options.sort != Sort::Started {
        let sorted = sorted(options, &store, country, now).await?;
        sheet.print(&sorted);
        return Ok(());
    }
    let order = if options.reverse { Order::OldestFirst } else { Order::NewestFirst };
    let window = options.filter.window(now);
    let (progress, mut looked_at) = (counter("calls read"), 0);
    let (mut after, mut left) = (options.after.clone(), if options.all { usize::MAX } else { options.limit as usize });
    // Piece by piece, so that who reads sees the first ones at once, and who has seen enough closes the pipe.
    loop {
        let bounds = (left.min(200), BUDGET);
        let found = find(&store, &options.filter, country, &window, order, after.as_ref(), bounds).await;
        let Found { calls, next, looked_at: more } = found.map_err(|error| Failure(error.to_string()))?;
        (left, looked_at) = (left - calls.len(), looked_at + more as u64);
        progress.set_position(looked_at);
        let open = progress.suspend(|| sheet.print(&calls));
        match next {
            Some(next) if left > 0 && open => after = Some(next),
            next => {
                progress.finish_and_clear();
                if let Some(next) = next.filter(|_| open) {
                    let more = printable(&format!("there may be more: --after '{next}', or --all"));
                    let _ = writeln!(std::io::stderr(), "{more}");
                }
                return Ok(());
            }
        }
    }
}

/// The first calls by something that no index knows.
async fn sorted(options: &Options, store: &Store, country: Country, now: Instant) -> Result<Vec<Call>, Failure> {
    let compare = |one: &Call, two: &Call| match (options.sort.value(one), options.sort.value(two)) {
        (Some(one), Some(two)) if options.reverse => one.total_cmp(&two),
        (Some(one), Some(two)) => two.total_cmp(&one),
        (one, two) => two.is_some().cmp(&one.is_some()),
    };
    let compare = |one: &Call, two: &Call| match compare(one, two) {
        Ordering::Equal => (two.started_at, &two.key).cmp(&(one.started_at, &one.key)),
        unequal => unequal,
    };
    let most = if options.all { usize::MAX } else { options.limit as usize };
    let mut best: Vec<Call> = Vec::new();
    each(store, &options.filter, country, now, |calls| {
        best.extend(calls);
        best.sort_by(compare);
        best.truncate(most);
    })
    .await?;
    Ok(best)
}

/// Reads all calls that the filter takes, some at a time, and shows how far it is.
pub(crate) async fn each(
    store: &Store,
    filter: &Filter,
    country: Country,
    now: Instant,
    mut take: impl FnMut(Vec<Call>),
) -> Result<(), Failure> {
    const AT_ONCE: usize = 1_000;
    let (window, progress) = (filter.window(now), counter("calls read"));
    let mut after = None;
    loop {
        let bounds = (AT_ONCE, AT_ONCE);
        let found = find(store, filter, country, &window, Order::NewestFirst, after.as_ref(), bounds).await;
        let Found { calls, next, looked_at } = found.map_err(|error| Failure(error.to_string()))?;
        progress.inc(looked_at as u64);
        take(calls);
        after = next;
        if after.is_none() {
            progress.finish_and_clear();
            return Ok(());
        }
    }
}

/// What is printed, as it is found.
struct Sheet<'a, W> {
    options: &'a Options,
    out: W,
    paint: Paint,
    now: Instant,
    begun: bool,
}

impl<W: Write> Sheet<'_, W> {
    /// Prints some; `false` once nobody reads.
    fn print(&mut self, calls: &[Call]) -> bool {
        let first = !std::mem::replace(&mut self.begun, true);
        let lines = if self.options.json {
            calls.iter().map(|call| as_json(call).as_str().to_owned()).collect()
        } else if self.options.csv {
            let names = first.then(|| CSV.join(","));
            names.into_iter().chain(calls.iter().map(as_csv)).collect()
        } else {
            table(calls, self.now, self.paint, first)
        };
        lines.iter().all(|line| writeln!(self.out, "{line}").is_ok()) && self.out.flush().is_ok()
    }
}

/// What is known of a call, as one JSON object.
pub fn as_json(call: &Call) -> Json {
    Json::object(&members(call))
}

/// The members of a call's JSON, as `docs/events/` has them.
pub fn members(call: &Call) -> BTreeMap<String, Json> {
    let mut told = call.told();
    let own = [("session", call.key.as_str()), ("session_id", call.key.id()), ("provider", call.key.provider().name())];
    told.extend(own.map(|(name, value)| (name.to_owned(), Json::text(value))));
    told
}

fn as_csv(call: &Call) -> String {
    let told: Value = serde_json::from_str(as_json(call).as_str()).unwrap_or_default();
    let bots: Vec<&str> = call.bots.iter().map(String::as_str).collect();
    let more = json!({ "bot": bots.join(" "), "sentiment": sentiment(call),
        "transfer_requested": call.transfer_requested });
    let column = |name: &&str| {
        let value = if more[*name].is_null() { &told[*name] } else { &more[*name] };
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // A spreadsheet takes what begins so for a formula; a number in E.164 is none.
        let formula = text.starts_with(['=', '@', '-', '+']) && !is_number(&text);
        let text = if formula { format!("'{text}") } else { text };
        if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
    };
    CSV.iter().map(column).collect::<Vec<String>>().join(",")
}

fn is_number(text: &str) -> bool {
    text.strip_prefix(['+', '-']).unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn table(calls: &[Call], now: Instant, paint: Paint, heading: bool) -> Vec<String> {
    let names = ["STARTED", "LENGTH", "STATE", "BOT", "CONTACT", "MOOD", "RECORDING", "CALL"].map(str::to_owned);
    let mut rows: Vec<[String; 8]> = if heading { vec![names] } else { Vec::new() };
    rows.extend(calls.iter().map(|call| row(call, now)));
    // Wide enough for most, so that what comes later lines up.
    let least = [16, 6, 11, 12, 13, 8, 9, 0];
    for row in &mut rows {
        for (cell, least) in row.iter_mut().zip(least) {
            *cell = format!("{:<least$}", printable(cell));
        }
    }
    let lines = aligned(&rows);
    let coloured = |(nth, line): (usize, String)| match calls.get(nth.wrapping_sub(usize::from(heading))) {
        None => paint.on(Colour::Dim, &line),
        Some(call) if call.state == State::InProgress => paint.on(Colour::Green, &line),
        Some(call) if sentiment(call).as_deref() == Some("negative") => paint.on(Colour::Yellow, &line),
        Some(_) => line,
    };
    lines.into_iter().enumerate().map(coloured).collect()
}

fn row(call: &Call, now: Instant) -> [String; 8] {
    let text = |field: Field| call.get(field).unwrap_or_default().to_owned();
    let state = match (call.state, call.transfer_requested) {
        (State::InProgress, false) => "in progress",
        (State::InProgress, true) => "to a human",
        (_, true) => "transferred",
        (state, false) => state.name(),
    };
    let bots: Vec<&str> = call.bots.iter().map(String::as_str).collect();
    [
        call.started_at.map(|at| minute(at, now)).unwrap_or_default(),
        duration_seconds(call).map(length).unwrap_or_default(),
        state.to_owned(),
        if bots.is_empty() { text(Field::BotName) } else { bots.join(" ") },
        text(Field::Contact),
        sentiment(call).unwrap_or_default(),
        text(Field::RecordingState),
        call.key.to_string(),
    ]
}

/// A moment of this day by its time alone.
pub(crate) fn minute(at: Instant, now: Instant) -> String {
    let text = at.to_string();
    let (day, time) = (&text[..10], &text[11..19]);
    if now.day() == day { time.to_owned() } else { format!("{day} {}", &time[..5]) }
}

/// `4:05` or `1:02:03`.
pub fn length(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let seconds = seconds.round().max(0.0) as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
