//! `hookswitch tail`: calls as they happen.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use serde_json::json;
use shared::call::{Call, Field, Segment, State};
use shared::logging::printable;
use shared::storage::{Order, Store, Window};
use shared::{Clock, Instant};

use crate::Failure;
use crate::calls::filter::{BUDGET, Filter, duration_seconds, find, sentiment};
use crate::calls::length;
use crate::paint::{Colour, Paint};
use crate::simulate::positive;
use crate::target::Target;

/// Print what happens in calls as it happens: they begin, ask for a human, end, get a recording.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch tail                                  every call
  hookswitch tail --provider exotel --bot b1       one bot's calls
  hookswitch tail exotel#s1234567                  one call: what is said in it
  hookswitch tail --stack prod --json | jq -c 'select(.what == \"transfer\")'

It looks every two seconds at the calls of the last hours, and tells what has changed. On a deployed stack a look costs
two read units and one for each 8 KB of calls that it shows. Ctrl-C stops.

Exit code: 0 when nobody reads any more, 1 if the stores cannot be read.")]
pub struct Options {
    /// One call instead: its conversation.
    session: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// How many of the calls there are to tell first.
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "session")]
    last: usize,
    /// Seconds between looks.
    #[arg(long, value_name = "S", default_value_t = 2.0, value_parser = positive)]
    interval: f64,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Calls that are watched, the latest first.
const WATCHED: usize = 200;
/// A call that began longer ago is watched no more.
const SECONDS_BACK: i64 = 6 * 60 * 60;
/// Platforms' clocks may be ahead of ours.
const SECONDS_AHEAD: i64 = 24 * 60 * 60;

/// Runs the command, until nobody reads.
pub async fn run(options: &Options, clock: Clock, out: impl Write, coloured: bool) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let store = opened.store()?;
    let mut printer = Printer { out, json: options.json, paint: Paint(coloured), open: true };
    let interval = Duration::from_secs_f64(options.interval);
    if let Some(session) = &options.session {
        let key = crate::call::find(&opened, &store, session, clock()).await?.call.key;
        let mut told = Vec::new();
        while printer.open {
            let call = store.fresh_call(&key, clock()).await.map_err(|error| Failure(error.to_string()))?;
            let Some(call) = call.filter(|call| call.state != State::Erased) else {
                return Err(Failure(format!("{key} is no longer there")));
            };
            follow(&store, &call, &mut told, &mut printer).await?;
            printer.rest(interval).await;
        }
        return Ok(());
    }
    let mut watched: Option<HashMap<String, Call>> = None;
    while printer.open {
        let now = clock();
        let since = options.filter.since.unwrap_or_else(|| now.plus_seconds(-SECONDS_BACK));
        let until = options.filter.until.unwrap_or_else(|| now.plus_seconds(SECONDS_AHEAD));
        let bounds = (WATCHED, BUDGET);
        let window = Window { since, until };
        let found =
            find(&store, &options.filter, opened.default_country, &window, Order::NewestFirst, None, bounds).await;
        let mut calls = found.map_err(|error| Failure(error.to_string()))?.calls;
        calls.reverse();
        let known = watched.get_or_insert_with(|| {
            // What there is already is told once, the last of it.
            let before = calls.len().saturating_sub(options.last);
            calls[..before].iter().map(|call| (call.key.to_string(), call.clone())).collect()
        });
        for call in calls {
            for change in changes(known.get(call.key.as_str()), &call) {
                printer.change(&change, &call);
            }
            known.insert(call.key.to_string(), call);
        }
        known.retain(|_, call| call.started_at >= Some(since));
        printer.rest(interval).await;
    }
    Ok(())
}

/// What happened to a call: when, what, and a word on it.
struct Change {
    at: Option<Instant>,
    what: &'static str,
    word: String,
}

fn changes(before: Option<&Call>, now: &Call) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut tell = |at: Option<Instant>, what, word: String| changes.push(Change { at, what, word });
    let get = |field: Field| now.get(field).unwrap_or_default().to_owned();
    if before.is_none() {
        let bots: Vec<&str> = now.bots.iter().map(String::as_str).collect();
        tell(now.started_at, "started", format!("{} {}", get(Field::Contact), bots.join(" ")).trim().to_owned());
    }
    if now.transfer_requested && !before.is_some_and(|before| before.transfer_requested) {
        tell(None, "transfer", "a human is asked for".to_owned());
    }
    let mood = sentiment(now);
    if mood.is_some() && before.and_then(sentiment) != mood {
        let at = now.insights.get("sentiment").and_then(|said| said.at);
        tell(at, "sentiment", mood.unwrap_or_default());
    }
    if now.state == State::Ended && before.is_none_or(|before| before.state != State::Ended) {
        let at = now.get(Field::EndedAt).and_then(Instant::parse);
        let word = format!("{} {}", duration_seconds(now).map(length).unwrap_or_default(), get(Field::CallStatus));
        tell(at, "ended", word.trim().to_owned());
    }
    let recording = now.get(Field::RecordingState);
    if recording.is_some() && before.and_then(|before| before.get(Field::RecordingState)) != recording {
        tell(None, "recording", get(Field::RecordingState));
    }
    changes
}

/// Tells what is new in a conversation: turns grow while they are spoken.
async fn follow<W: Write>(
    store: &Store,
    call: &Call,
    told: &mut Vec<Segment>,
    printer: &mut Printer<W>,
) -> Result<(), Failure> {
    let said = store.conversation(call).await.map_err(|error| Failure(error.to_string()))?;
    for segment in said.iter().filter(|segment| !told.contains(segment)) {
        printer.segment(segment);
    }
    *told = said;
    Ok(())
}

struct Printer<W> {
    out: W,
    json: bool,
    paint: Paint,
    /// Whether somebody reads.
    open: bool,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, line: &str) {
        self.open = self.open && writeln!(self.out, "{line}").is_ok() && self.out.flush().is_ok();
    }

    fn change(&mut self, change: &Change, call: &Call) {
        let Change { at, what, word } = change;
        if self.json {
            let line = json!({ "at": at, "what": what, "word": word, "session": call.key.as_str(),
                "started_at": call.started_at, "state": call.state.name() });
            return self.print(&line.to_string());
        }
        let at = at.map(|at| at.to_string()[11..19].to_owned()).unwrap_or_default();
        let colour = match *what {
            "started" => Colour::Green,
            "transfer" => Colour::Yellow,
            "ended" => Colour::Bold,
            _ => Colour::Dim,
        };
        let what = self.paint.on(colour, &format!("{what:<9}"));
        self.print(&format!("{at:<8}  {what}  {}  {}", printable(call.key.as_str()), printable(word)));
    }

    fn segment(&mut self, segment: &Segment) {
        let (speaker, text) = (segment.speaker.as_deref().unwrap_or("?"), segment.text.as_deref().unwrap_or_default());
        if self.json {
            let line = json!({ "at": segment.start, "what": "said", "speaker": speaker, "text": text });
            return self.print(&line.to_string());
        }
        let at = segment.start.map(|at| at.to_string()[11..19].to_owned()).unwrap_or_default();
        let colour = if crate::call::is_bot(segment) { Colour::Cyan } else { Colour::Bold };
        let speaker = self.paint.on(colour, &format!("{:<10}", printable(speaker)));
        self.print(&format!("{at:<8}  {speaker}  {}", printable(text)));
    }

    /// Waits for the next look. That the reader is gone shows only when it is written to: at the next change.
    async fn rest(&self, interval: Duration) {
        if self.open {
            tokio::time::sleep(interval).await;
        }
    }
}
