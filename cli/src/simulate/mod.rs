//! `hookswitch simulate`: plays whole calls of both platforms against the local run, a stack or any URLs, as the
//! platforms would, and then looks whether the tables hold exactly what was sent.

pub mod calls;
pub mod check;
pub mod recordings;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use shared::Instant;

use self::calls::{Planned, plan};
use self::check::{Archived, Checked};
use self::recordings::Recordings;
use crate::endpoints::{Endpoints, Stores};
use crate::events::draw_target;
use crate::sender::{Heard, PARALLEL, Sender, overrides};
use crate::stack::Stack;
use crate::target::{Opened, Target};
use crate::{Failure, target};

/// Play whole calls of both platforms and check that the tables hold exactly what was sent.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch simulate                                      ten calls to the local run on port 9000
  hookswitch simulate --calls 500 --shuffle --duplicate 0.3
  hookswitch simulate --recording-mb 20 --break 0.5        large recordings over connections that break
  hookswitch simulate --rate 50 --json                     fifty deliveries a second, the summary as JSON
  hookswitch simulate --stack hookswitch                   a deployed stack, with credentials as the AWS CLI finds them
  hookswitch simulate --endpoints staging.json             functions anywhere

A stack's calls have no recordings: its archiver cannot reach this machine. Its calls stay in the tables; their ids
begin with sim-.

An endpoints file is JSON like that of the local run's /endpoints or of `hookswitch urls --json`: function name to URL
with token, and vocobase_secret. Without its dynamodb member the tables are not looked into.

Exit code: 0 if everything was answered 2xx and the tables hold what was sent, else 1.")]
pub struct Options {
    /// How many calls; every other one is Vocobase's.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub calls: u32,
    /// Deliveries a second at most; as fast as they are answered by default.
    #[arg(long, value_parser = positive)]
    pub rate: Option<f64>,
    /// The same seed gives the same calls, apart from their ids and times. Random and printed by default.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Deliver everything in random order instead of call by call.
    #[arg(long)]
    pub shuffle: bool,
    /// The share of deliveries, from 0 to 1, that come twice.
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub duplicate: f64,
    /// The length of each Vocobase call's recording, in megabytes; 0 for none. Only the local run can fetch them.
    #[arg(long, value_name = "MB", default_value_t = 0.1, value_parser = megabytes)]
    pub recording_mb: f64,
    /// The share of connections, from 0 to 1, that break while a recording is fetched.
    #[arg(long = "break", value_name = "P", default_value_t = 0.0, value_parser = share)]
    pub breaks: f64,
    /// The local run or a stack.
    #[command(flatten)]
    pub target: Target,
    /// Where the functions are, instead of the local run.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["port", "stack"])]
    pub endpoints: Option<PathBuf>,
    /// The summary as JSON.
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "not a number from 0 to 1".to_owned())
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|rate| (0.001..=1e6).contains(rate))
        .ok_or_else(|| "not a rate from 0.001 to 1000000".to_owned())
}

fn megabytes(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|mb| (0.0..=4096.0).contains(mb)).ok_or_else(|| "not a number from 0 to 4096".to_owned())
}

/// What came of a simulation.
#[derive(Serialize)]
pub struct Summary {
    /// Gives the same calls again.
    pub seed: u64,
    /// Calls played.
    pub calls: u32,
    /// Deliveries made, repetitions included, retries not.
    pub deliveries: usize,
    /// Deliveries made again because they were not answered 2xx.
    pub retries: usize,
    /// Deliveries that were never answered 2xx.
    pub given_up: usize,
    /// How often each status was answered; `no answer` where there was none.
    pub statuses: BTreeMap<String, usize>,
    /// Milliseconds from a delivery to its answer.
    pub latency_ms: Latency,
    /// What the tables hold; absent where they cannot be looked into.
    pub tables: Option<Checked>,
    /// What became of the recordings; absent where there were none.
    pub recordings: Option<Archived>,
}

impl Summary {
    fn differences(&self) -> impl Iterator<Item = &String> {
        let tables = self.tables.iter().flat_map(|tables| &tables.differences);
        tables.chain(self.recordings.iter().flat_map(|recordings| &recordings.differences))
    }
}

/// Milliseconds.
#[derive(Serialize)]
pub struct Latency {
    /// Half are faster.
    pub p50: f64,
    /// Nine of ten are faster.
    pub p90: f64,
    /// 99 of 100 are faster.
    pub p99: f64,
}

/// How long nothing may happen before recordings are given up: longer than the archiver's first wait after a failure.
const PATIENCE: Duration = Duration::from_secs(90);

/// Plays the calls, writes the summary to `out`.
pub async fn run(options: &Options, mut out: impl Write) -> Result<(), Failure> {
    let (endpoints, opened) = find(options).await?;
    let seed = options.seed.unwrap_or_else(|| rand::random_range(0..1_000_000));
    let summary = play(options, seed, &endpoints, opened.as_ref()).await?;
    // A closed pipe is a reader that has seen enough.
    let _ = if options.json {
        serde_json::to_string_pretty(&summary).map_err(std::io::Error::other).and_then(|json| writeln!(out, "{json}"))
    } else {
        write!(out, "{summary}")
    };
    let differences = summary.differences().count();
    match (summary.given_up, differences) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure(format!("tables or bucket differ from what was sent in {differences} places"))),
        (given_up, _) => Err(Failure(format!("{given_up} deliveries were never answered 2xx"))),
    }
}

/// Where to deliver, and what to look into afterwards.
async fn find(options: &Options) -> Result<(Endpoints, Option<Opened>), Failure> {
    if let Some(stack) = &options.target.stack {
        let stack = Stack::find(stack).await?;
        return Ok((stack.endpoints().await?, Some(stack.open()?)));
    }
    let endpoints = match &options.endpoints {
        None => target::local(options.target.port).await?,
        Some(file) => target::file(file)?,
    };
    let opened = endpoints.stores.as_ref().map(Stores::open).transpose()?;
    Ok((endpoints, opened))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked when it was read")]
fn bytes(megabytes: f64) -> u64 {
    (megabytes * 1_000_000.0) as u64
}

/// Plays the calls and checks the tables.
async fn play(
    options: &Options,
    seed: u64,
    endpoints: &Endpoints,
    opened: Option<&Opened>,
) -> Result<Summary, Failure> {
    let sender = Sender::new(endpoints, options.rate)?;
    let now = Instant::now();
    let start = Instant::from_unix_seconds(now.unix_seconds()).unwrap_or(now);
    // A deployed archiver cannot reach this machine, and must not.
    let served = match &endpoints.stores {
        Some(_) if options.recording_mb > 0.0 => {
            Some(Recordings::serve(bytes(options.recording_mb), options.breaks).await?)
        }
        _ => None,
    };
    let url = |id: &str| Some(served.as_ref()?.url(id, now.plus_seconds(24 * 60 * 60)));
    let plans = plan(seed, options.calls, start, &url);
    let sent: Vec<Planned> = plans.iter().flatten().cloned().collect();
    let lanes = lanes(plans, options, &mut SmallRng::seed_from_u64(seed));
    let deliveries: usize = lanes.iter().map(Vec::len).sum();

    let bar = progress(deliveries, "deliveries");
    stream::iter(lanes)
        .for_each_concurrent(PARALLEL, async |lane| {
            let mut urls = endpoints.functions.clone();
            for delivery in lane {
                let answer = sender.deliver(&urls, delivery.webhook, delivery.body).await;
                // The platform keeps the overrides of an answer for the session's life.
                urls.extend(overrides(&answer.unwrap_or_default(), &endpoints.functions));
                bar.inc(1);
            }
        })
        .await;
    bar.finish_and_clear();

    let mut recordings = None;
    let tables = match opened {
        None => None,
        Some(opened) => {
            if let Some(served) = &served {
                let bar = progress(options.calls.div_euclid(2) as usize, "recordings archived");
                let news = |count| bar.inc(count);
                recordings = Some(check::check_recordings(&sent, served, opened, PATIENCE, news).await?);
                bar.finish_and_clear();
            }
            let bar = progress(usize::try_from(options.calls).unwrap_or(usize::MAX), "calls checked");
            let checked = check::check(&sent, opened, || bar.inc(1)).await?;
            bar.finish_and_clear();
            Some(checked)
        }
    };
    let mut heard = sender.heard();
    heard.millis.sort_by(f64::total_cmp);
    let latency_ms = Latency {
        p50: percentile(&heard.millis, 50),
        p90: percentile(&heard.millis, 90),
        p99: percentile(&heard.millis, 99),
    };
    let Heard { statuses, retries, given_up, .. } = heard;
    Ok(Summary { seed, calls: options.calls, deliveries, retries, given_up, statuses, latency_ms, tables, recordings })
}

/// What is delivered one after another: call by call, or every delivery for itself in random order. Repetitions come
/// some time after the first.
fn lanes(plans: Vec<Vec<Planned>>, options: &Options, rng: &mut SmallRng) -> Vec<Vec<Planned>> {
    let mut lanes = Vec::new();
    for mut lane in plans {
        for index in (0..lane.len()).rev() {
            if rng.random_bool(options.duplicate) {
                let again = lane[index].clone();
                lane.insert(rng.random_range(index..lane.len()) + 1, again);
            }
        }
        if options.shuffle {
            lanes.extend(lane.into_iter().map(|delivery| vec![delivery]));
        } else {
            lanes.push(lane);
        }
    }
    if options.shuffle {
        lanes.shuffle(rng);
    }
    lanes
}

/// The nearest-rank percentile of sorted values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn progress(length: usize, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} ({eta})")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(u64::try_from(length).ok(), draw_target()).with_style(style).with_message(what)
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} calls, {} deliveries, seed {}", self.calls, self.deliveries, self.seed)?;
        let statuses: Vec<String> = self.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
        writeln!(f, "answers     {} ({} retries, {} given up)", statuses.join(", "), self.retries, self.given_up)?;
        let Latency { p50, p90, p99 } = self.latency_ms;
        writeln!(f, "latency     p50 {p50:.1} ms, p90 {p90:.1} ms, p99 {p99:.1} ms")?;
        let Some(tables) = &self.tables else {
            return writeln!(f, "tables      not looked into: the endpoints do not say where they are");
        };
        let Checked { sessions, events, transcript_items, recordings, .. } = tables;
        writeln!(
            f,
            "tables      {sessions} calls, {events} events, {transcript_items} transcript items, {recordings} recordings"
        )?;
        if let Some(Archived { recordings, bytes, .. }) = &self.recordings {
            writeln!(f, "bucket      {recordings} recordings, {bytes} bytes")?;
        }
        let mut same = "exactly what was sent";
        for difference in self.differences() {
            writeln!(f, "difference  {difference}")?;
            same = "NOT what was sent";
        }
        writeln!(f, "            {same}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        let rounded = |values: &[f64], percent| format!("{:.0}", percentile(values, percent));
        assert_eq!([rounded(&values, 50), rounded(&values, 99)], ["100", "198"]);
        assert_eq!([rounded(&[7.0], 99), rounded(&[], 50)], ["7", "0"]);
    }

    #[test]
    fn the_same_seed_plays_the_same_calls() {
        let start = Instant::parse("2026-03-15T14:30:00Z").unwrap();
        let bodies = |seed| {
            plan(seed, 4, start, &|_| None).into_iter().flatten().map(|delivery| delivery.body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(7), bodies(7));
        assert_ne!(bodies(7), bodies(8));
    }
}
