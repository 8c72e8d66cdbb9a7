//! `hookswitch recordings`: what became of the recordings, and another try.

use std::io::Write;

use aws_sdk_dynamodb::error::DisplayErrorContext;
use aws_sdk_dynamodb::types::AttributeValue;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value};
use shared::logging::printable;
use shared::recording::State;
use shared::{Instant, Provider, SessionKey};

use crate::events::{Item, session_key, text};
use crate::target::{Opened, Target};
use crate::{Failure, aligned};

/// Jobs that are set back at once: after an outage there are many.
const SIDE_BY_SIDE: usize = 32;

/// List recordings by state and age, show one, have them fetched again.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch recordings list --state failed                  what was given up, oldest first
  hookswitch recordings list --older-than 2h --json          what came more than two hours ago, as JSON lines
  hookswitch recordings show vocobase#s1234567               one recording's job
  hookswitch recordings retry vocobase#s1234567              fetch it again, now
  hookswitch recordings retry --state rejected --stack prod  all that were rejected, after the list of hosts was changed

States: pending (to be fetched), copying, archived, expired (the URL stopped working first), rejected (the URL points
where it must not), failed (given up after many attempts).

Exit code: 0, or 1 if there is no such recording, one cannot be fetched again, or the answer was no.")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List jobs, the oldest first.
    List {
        /// Only those in this state; may be given more than once.
        #[arg(long, value_parser = states())]
        state: Vec<String>,
        /// Only those that came longer ago than this, such as 90s, 15m, 2h or 3d.
        #[arg(long, value_name = "AGE", value_parser = age)]
        older_than: Option<i64>,
        /// Only those that came more recently than this.
        #[arg(long, value_name = "AGE", value_parser = age)]
        newer_than: Option<i64>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Show one job, without its URL, which is a credential.
    Show {
        /// The call: vocobase#<session id>, or the session id alone.
        session: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Have recordings fetched again that ended without one.
    Retry {
        /// The calls: vocobase#<session id>, or session ids alone.
        #[arg(required_unless_present = "state", conflicts_with = "state")]
        sessions: Vec<String>,
        /// All jobs in this state; may be given more than once.
        #[arg(long, value_parser = states())]
        state: Vec<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        target: Target,
    },
}

fn states() -> PossibleValuesParser {
    PossibleValuesParser::new(State::ALL.map(State::name))
}

/// Seconds.
pub(crate) fn age(text: &str) -> Result<i64, String> {
    let wrong = || "not an age such as 90s, 15m, 2h or 3d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).filter(|age| *age >= 0).ok_or_else(wrong)
}

/// Runs the command. `ask` answers a question with yes or no.
pub async fn run(
    options: &Options,
    now: Instant,
    mut out: impl Write,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    // A closed pipe is a reader that has seen enough.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    match &options.command {
        Command::List { state, older_than, newer_than, json, target } => {
            let jobs = jobs(&target.open().await?, state, None).await?;
            let jobs: Vec<Item> = jobs
                .into_iter()
                .filter(|job| {
                    let age = seconds_old(job, now);
                    older_than.is_none_or(|limit| age.is_some_and(|age| age > limit))
                        && newer_than.is_none_or(|limit| age.is_some_and(|age| age < limit))
                })
                .collect();
            if *json {
                for job in &jobs {
                    print(as_json(job).to_string());
                }
            } else {
                for line in table(&jobs, now) {
                    print(printable(&line));
                }
            }
            Ok(())
        }
        Command::Show { session, json, target } => {
            let key = session_key(session, Provider::Vocobase)?;
            let opened = target.open().await?;
            let read = opened.clients.dynamodb.get_item().table_name(opened.table("recordings")?);
            let read = read.key("session", AttributeValue::S(key.to_string())).send().await;
            let job = read.map_err(|error| unreadable(&error))?.item;
            let job = job.ok_or_else(|| Failure(format!("{key} has no recording")))?;
            let value = as_json(&job);
            if *json {
                print(value.to_string());
            } else {
                for (name, value) in value.as_object().into_iter().flatten() {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    print(printable(&format!("{name:<18} {value}")));
                }
            }
            Ok(())
        }
        Command::Retry { sessions, state, yes, target } => {
            let opened = target.open().await?;
            let keys = if state.is_empty() {
                sessions
                    .iter()
                    .map(|session| session_key(session, Provider::Vocobase))
                    .collect::<Result<Vec<_>, _>>()?
            } else {
                let jobs = jobs(&opened, state, Some("#session, received_at")).await?;
                let keys: Vec<SessionKey> = jobs.iter().filter_map(|job| text(job, "session").parse().ok()).collect();
                if !keys.is_empty() && !yes && !ask(&format!("Fetch {} recordings again?", keys.len())) {
                    return Err(Failure("nothing was changed".to_owned()));
                }
                keys
            };
            let store = opened.store()?;
            let mut left = 0;
            let retry = |key| {
                let store = &store;
                async move { (key, store.retry_recording(key).await) }
            };
            let mut retried = stream::iter(&keys).map(retry).buffered(SIDE_BY_SIDE);
            while let Some((key, again)) = retried.next().await {
                let again = again.map_err(|error| Failure(error.to_string()))?;
                left += usize::from(!again);
                let done = if again { "pending" } else { "nothing to fetch: archived, being copied, or unknown" };
                print(printable(&format!("{key}: {done}")));
            }
            match left {
                0 => Ok(()),
                left => Err(Failure(format!("{left} of {} recordings cannot be fetched again", keys.len()))),
            }
        }
    }
}

/// The jobs in any of these states, or all, oldest first; of each the whole or what a projection names, as after an
/// outage there may be millions.
async fn jobs(opened: &Opened, states: &[String], projection: Option<&str>) -> Result<Vec<Item>, Failure> {
    let mut scan = opened.clients.dynamodb.scan().table_name(opened.table("recordings")?);
    if let Some(projection) = projection {
        scan = scan.projection_expression(projection).expression_attribute_names("#session", "session");
    }
    if !states.is_empty() {
        let names: Vec<String> = (0..states.len()).map(|index| format!(":s{index}")).collect();
        scan = scan
            .filter_expression(format!("#state IN ({})", names.join(", ")))
            .expression_attribute_names("#state", "state");
        for (name, state) in names.into_iter().zip(states) {
            scan = scan.expression_attribute_values(name, AttributeValue::S(state.clone()));
        }
    }
    let items = scan.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
    let mut jobs = items.map_err(|error| unreadable(&error))?;
    jobs.sort_by_cached_key(|job| (text(job, "received_at").to_owned(), text(job, "session").to_owned()));
    Ok(jobs)
}

fn unreadable<E: std::error::Error>(error: &E) -> Failure {
    Failure(format!("the recordings cannot be read: {}", DisplayErrorContext(error)))
}

fn seconds_old(job: &Item, now: Instant) -> Option<i64> {
    Some(now.millis_since(Instant::parse(text(job, "received_at"))?) / 1000)
}

/// A job without its credential and without what only the machinery needs.
fn as_json(job: &Item) -> Value {
    const HIDDEN: [&str; 4] = ["source_url", "wanted", "source", "unfinished"];
    let mut names: Vec<&String> = job.keys().filter(|name| !HIDDEN.contains(&name.as_str())).collect();
    names.sort();
    let value = |name: &String| match &job[name] {
        AttributeValue::N(number) => serde_json::from_str(number).unwrap_or_else(|_| Value::String(number.clone())),
        _ => Value::String(text(job, name).to_owned()),
    };
    Value::Object(names.into_iter().map(|name| (name.clone(), value(name))).collect::<Map<_, _>>())
}

fn table(jobs: &[Item], now: Instant) -> Vec<String> {
    let headings = ["SESSION", "STATE", "AGE", "ATTEMPTS", "BYTES", "LAST ERROR"].map(str::to_owned);
    let row = |job: &Item| {
        let age = seconds_old(job, now).map(human_age).unwrap_or_default();
        let column = |name: &str| text(job, name).to_owned();
        [column("session"), column("state"), age, column("attempts"), column("bytes"), column("last_error")]
    };
    let rows: Vec<_> = std::iter::once(headings).chain(jobs.iter().map(row)).collect();
    aligned(&rows)
}

fn human_age(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_and_written_in_the_same_units() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("2h", 7_200), ("3d", 259_200)] {
            assert_eq!(age(text), Ok(seconds));
            assert_eq!(human_age(seconds), text);
        }
        for text in ["", "s", "2", "-1s", "2w", "99999999999999999d", "2ħ"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
