//! `hookswitch stats`: what a period's calls come to.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;
use shared::call::{Call, Field, State};
use shared::logging::printable;
use shared::recording::State as RecordingState;
use shared::{Instant, Provider};

use crate::calls::filter::{Filter, duration_seconds, insight, number};
use crate::calls::{each, length};
use crate::paint::{Colour, Paint};
use crate::target::Target;
use crate::template::Template;
use crate::{Failure, aligned, cost};

/// Count calls over a period: a day, an outcome, a bot at a time; lengths, latency and credits.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch stats                                  the last 30 days
  hookswitch stats --since 7d --bot support-bot     one bot's week
  hookswitch stats --since 2026-03-01 --until 2026-04-01 --stack prod --json

Every call of the period is read: on a deployed stack, half a read unit for each 4 KB of it. Days are UTC. Credits are
what Vocobase says that it took. What AWS takes is worked out as by `hookswitch cost`, with turns of six seconds, and
with what it takes to keep these calls until they expire.

Exit code: 0, also without any call; 1 if the stores cannot be read; 2 for wrong arguments.")]
pub struct Options {
    #[command(flatten)]
    filter: Filter,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Calls, counted.
#[derive(Default, Serialize, Debug, Clone, PartialEq)]
pub struct Count {
    /// How many.
    pub calls: u64,
    /// In how many of them a human was asked for.
    pub transferred: u64,
    /// How long they were together, as far as is known.
    pub seconds: f64,
    /// What the platform took for them.
    pub credits: f64,
}

/// How a quantity is spread, by nearest rank.
#[derive(Serialize, Debug, Clone, PartialEq)]
pub struct Spread {
    /// How many calls say it.
    pub calls: usize,
    /// The mean.
    pub mean: f64,
    /// Half are no more.
    pub p50: f64,
    /// Nine in ten are no more.
    pub p90: f64,
    /// Ninety-nine in a hundred are no more.
    pub p99: f64,
    /// None is more.
    pub max: f64,
}

/// What calls come to. They are added one by one, in any order.
#[derive(Default, Debug, Clone)]
pub struct Totals {
    /// All of them.
    pub all: Count,
    /// Those that go on.
    pub in_progress: u64,
    /// By the day on which they began.
    pub days: BTreeMap<String, Count>,
    /// By platform.
    pub providers: BTreeMap<String, Count>,
    /// By bot: its id, or else its name.
    pub bots: BTreeMap<String, Count>,
    /// By how they ended: the outcome that was found, or else the telephone call's final status.
    pub outcomes: BTreeMap<String, u64>,
    /// By the latest sentiment.
    pub sentiments: BTreeMap<String, u64>,
    /// By how far the recording has come.
    pub recordings: BTreeMap<String, u64>,
    recorded: Count,
    durations: Vec<f64>,
    latencies: Vec<f64>,
}

impl Totals {
    /// Counts one more call.
    pub fn add(&mut self, call: &Call) {
        let (seconds, credits) = (duration_seconds(call), number(call, Field::CreditsUsed));
        let count = |count: &mut Count| {
            count.calls += 1;
            count.transferred += u64::from(call.transfer_requested);
            count.seconds += seconds.unwrap_or_default();
            count.credits += credits.unwrap_or_default();
        };
        count(&mut self.all);
        self.in_progress += u64::from(call.state == State::InProgress);
        if let Some(at) = call.started_at {
            count(self.days.entry(at.day()).or_default());
        }
        count(self.providers.entry(call.key.provider().name().to_owned()).or_default());
        if call.get(Field::RecordingState) == Some(RecordingState::Archived.name()) {
            count(&mut self.recorded);
        }
        let name = call.get(Field::BotName).map(str::to_owned);
        let bots: Vec<String> =
            if call.bots.is_empty() { name.into_iter().collect() } else { call.bots.iter().cloned().collect() };
        for bot in bots {
            count(self.bots.entry(bot).or_default());
        }
        let status = || call.get(Field::CallStatus).map(str::to_owned);
        let mut one = |of: fn(&mut Self) -> &mut BTreeMap<String, u64>, what: Option<String>| {
            if let Some(what) = what {
                *of(self).entry(what).or_default() += 1;
            }
        };
        one(|totals| &mut totals.outcomes, insight(call, "outcome").or_else(status));
        one(|totals| &mut totals.sentiments, insight(call, "sentiment"));
        one(|totals| &mut totals.recordings, call.get(Field::RecordingState).map(str::to_owned));
        self.durations.extend(seconds);
        self.latencies.extend(number(call, Field::LatencyAvgMs));
    }

    /// How long calls were, in seconds.
    pub fn durations(&self) -> Option<Spread> {
        spread(&self.durations)
    }

    /// How long bots took to answer, in milliseconds: each call's mean.
    pub fn latencies(&self) -> Option<Spread> {
        spread(&self.latencies)
    }

    /// What AWS takes for them, about.
    #[allow(clippy::cast_precision_loss, reason = "there are fewer calls than that")]
    pub fn dollars(&self) -> Result<f64, Failure> {
        let template = Template::read()?;
        let Count { calls, seconds, .. } = self.recorded;
        let mut dollars = cost::dollars(Provider::Vocobase, calls as f64, seconds, true, &template)?;
        for provider in [Provider::Exotel, Provider::Vocobase] {
            let Some(all) = self.providers.get(provider.name()) else { continue };
            let recorded = if provider == Provider::Vocobase { self.recorded.clone() } else { Count::default() };
            let calls = all.calls.saturating_sub(recorded.calls) as f64;
            let seconds = (all.seconds - recorded.seconds).max(0.0);
            dollars += cost::dollars(provider, calls, seconds, false, &template)?;
        }
        Ok(dollars)
    }

    fn json(&self, dollars: f64) -> serde_json::Value {
        let dollars = (dollars * 1e6).round() / 1e6;
        serde_json::json!({ "all": self.all, "dollars": dollars, "in_progress": self.in_progress, "days": self.days,
            "providers": self.providers, "bots": self.bots, "outcomes": self.outcomes, "sentiments": self.sentiments,
            "recordings": self.recordings, "duration_seconds": self.durations(), "latency_ms": self.latencies() })
    }
}

#[allow(clippy::cast_precision_loss, reason = "there are fewer calls than that")]
fn spread(values: &[f64]) -> Option<Spread> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    Some(Spread { calls: sorted.len(), mean, p50: rank(50)?, p90: rank(90)?, p99: rank(99)?, max: rank(100)? })
}

/// Runs the command.
pub async fn run(options: &Options, now: Instant, mut out: impl Write, coloured: bool) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let mut totals = Totals::default();
    let add = |calls: Vec<Call>| calls.iter().for_each(|call| totals.add(call));
    each(&opened.store()?, &options.filter, opened.default_country, now, add).await?;
    let dollars = totals.dollars()?;
    let paint = Paint(coloured);
    let lines = if options.json { vec![totals.json(dollars).to_string()] } else { screen(&totals, dollars, paint) };
    // A closed pipe is a reader that has seen enough.
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

fn screen(totals: &Totals, dollars: f64, paint: Paint) -> Vec<String> {
    let Totals { all, .. } = totals;
    let mut lines = vec![format!(
        "{} calls, {} in progress, {} with a human asked for ({}), {} in all, {:.2} credits",
        paint.on(Colour::Bold, &all.calls.to_string()),
        totals.in_progress,
        all.transferred,
        share(all.transferred, all.calls),
        length(all.seconds),
        all.credits
    )];
    lines.push(format!("AWS takes about {dollars:.4} dollars for them (hookswitch cost)"));
    let spreads = [("length", totals.durations(), true), ("latency", totals.latencies(), false)];
    for (what, spread, is_time) in spreads {
        let Some(spread) = spread else { continue };
        let show = |value: f64| if is_time { length(value) } else { format!("{value:.0} ms") };
        let Spread { calls, mean, p50, p90, p99, max } = spread;
        let said = [("mean", mean), ("p50", p50), ("p90", p90), ("p99", p99), ("longest", max)];
        let said: Vec<String> = said.iter().map(|(name, value)| format!("{name} {}", show(*value))).collect();
        lines.push(format!("{what:<8} {} (of {calls} calls)", said.join(", ")));
    }
    let mut part = |heading: &str, rows: Vec<(String, u64, String)>| {
        if rows.is_empty() {
            return;
        }
        let most = rows.iter().map(|(_, count, _)| *count).max().unwrap_or_default();
        let rows: Vec<[String; 4]> = rows
            .into_iter()
            .map(|(name, count, more)| {
                [format!("  {}", printable(&name)), format!("{count:>6}"), bar(count, most), more]
            })
            .collect();
        lines.extend([String::new(), paint.on(Colour::Bold, heading)]);
        lines.extend(aligned(&rows));
    };
    let counted = |counts: &BTreeMap<String, Count>| {
        let row = |(name, count): (&String, &Count)| {
            let more = format!("{} transferred, {}", share(count.transferred, count.calls), length(count.seconds));
            (name.clone(), count.calls, more)
        };
        counts.iter().map(row).collect::<Vec<_>>()
    };
    let plain = |counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, count)| (name.clone(), *count, share(*count, all.calls))).collect::<Vec<_>>()
    };
    part("Days", counted(&totals.days));
    part("Platforms", counted(&totals.providers));
    part("Bots", counted(&totals.bots));
    part("Outcomes", plain(&totals.outcomes));
    part("Sentiment", plain(&totals.sentiments));
    part("Recordings", plain(&totals.recordings));
    lines
}

fn share(of: u64, all: u64) -> String {
    let percent = (of * 100 + all / 2).checked_div(all).unwrap_or_default();
    format!("{percent} %")
}

/// A bar of at most 24 letters, in eighths.
fn bar(count: u64, most: u64) -> String {
    const WIDTH: u64 = 24;
    let eighths = if most == 0 { 0 } else { (count * WIDTH * 8).div_ceil(most) };
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][usize::try_from(eighths % 8).unwrap_or_default()];
    format!("{}{rest}", "█".repeat(usize::try_from(eighths / 8).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_those_of_values_that_were_there() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let Spread { calls, mean, p50, p90, p99, max } = spread(&values).unwrap();
        assert_eq!((calls, mean, p50, p90, p99, max), (200, 100.5, 100.0, 180.0, 198.0, 200.0));
        let one = Spread { calls: 1, mean: 7.0, p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 };
        assert_eq!((spread(&[7.0]), spread(&[])), (Some(one), None));
    }

    #[test]
    fn the_longest_bar_fills_its_place_and_one_call_is_seen() {
        assert_eq!(bar(10, 10).chars().count(), 24);
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(0, 10), "");
    }
}
