//! One line a delivery, written at the edge. At any level below `trace` only the bundle's own crates speak, and they
//! never say a body, a token, a number or a recording's URL.

use tracing::{Dispatch, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, Lookup};

/// The crates whose lines are wanted; all others are heard at `trace` only, since an HTTP client's debug output holds
/// whole requests.
const OURS: [&str; 12] = [
    "shared",
    "cli",
    "session_start",
    "session_end",
    "pre_agent_transfer",
    "insights_events",
    "transcript_events",
    "session_completed",
    "recording_archiver",
    "reconciler",
    "event_publisher",
    "call_exporter",
];

/// JSON lines on standard output, at `LOG_LEVEL` (default `info`): what CloudWatch Logs reads.
pub fn init_json(lookup: Lookup<'_>) -> Result<(), ConfigError> {
    // A second subscriber in one process is a test's; the first one stays.
    let _ = json(level(lookup)?, std::io::stdout).try_init();
    Ok(())
}

/// The same lines to nowhere, at the level of those that are written. Without any subscriber instead, what is said in its
/// scope for the first time would never be heard again: tracing remembers that nobody listens.
pub fn unheard() -> Dispatch {
    LevelFilter::current().into_level().map_or_else(Dispatch::none, |level| json(level, std::io::sink).into())
}

fn json<W>(level: Level, writer: W) -> impl Subscriber + SubscriberInitExt
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false);
    let lines = lines.with_span_list(false).without_time().with_writer(writer);
    tracing_subscriber::registry().with(filter(level)).with(lines)
}

/// Readable lines on standard error, at `LOG_LEVEL` (default `info`): for a terminal.
pub fn init_readable(lookup: Lookup<'_>, colours: bool) -> Result<(), ConfigError> {
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(filter(level(lookup)?)).with(lines).try_init();
    Ok(())
}

/// One line of text that commands no terminal: what a platform sent may hold line ends and escape sequences.
pub fn printable(text: &str) -> String {
    let commands = |letter: char| letter.is_control() && letter != '\t';
    if !text.contains(commands) {
        return text.to_owned();
    }
    let escaped = |letter: char| {
        if commands(letter) { letter.escape_default().to_string() } else { letter.to_string() }
    };
    text.chars().map(escaped).collect()
}

fn level(lookup: Lookup<'_>) -> Result<Level, ConfigError> {
    match lookup("LOG_LEVEL").filter(|level| !level.is_empty()) {
        None => Ok(Level::INFO),
        Some(level) => {
            level.parse().map_err(|_| ConfigError::Bad("LOG_LEVEL", "is not error, warn, info, debug or trace"))
        }
    }
}

fn filter(level: Level) -> Targets {
    let others = if level == Level::TRACE { LevelFilter::TRACE } else { LevelFilter::ERROR };
    OURS.iter().fold(Targets::new().with_default(others), |targets, target| targets.with_target(*target, level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_heard() {
        let functions = std::fs::read_dir("../functions").unwrap().map(|entry| entry.unwrap().file_name());
        let unheard: Vec<_> = functions.filter(|name| !OURS.iter().any(|ours| name == ours)).collect();
        assert!(unheard.is_empty(), "{unheard:?}");
    }

    #[test]
    fn what_is_printed_is_one_line_and_cannot_command_a_terminal() {
        assert_eq!(printable("नमस्ते\tfrom\r\n\u{1b}[2J\u{9b}1m"), "नमस्ते\tfrom\\r\\n\\u{1b}[2J\\u{9b}1m");
    }
}
