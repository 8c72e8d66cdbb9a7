//! One line a delivery, written at the edge. At any level below `trace` only the bundle's own crates speak, and they
//! never say a body, a token, a number or a recording's URL.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, Lookup};

/// The crates whose lines are wanted; all others are heard at `trace` only, since an HTTP client's debug output holds
/// whole requests.
const OURS: [&str; 11] = [
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
];

/// JSON lines on standard output, at `LOG_LEVEL` (default `info`): what CloudWatch Logs reads.
pub fn init_json(lookup: Lookup<'_>) -> Result<(), ConfigError> {
    let lines =
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false);
    // A second subscriber in one process is a test's; the first one stays.
    let _ = tracing_subscriber::registry().with(filter(lookup)?).with(lines.without_time()).try_init();
    Ok(())
}

/// Readable lines on standard error, at `LOG_LEVEL` (default `info`): for a terminal.
pub fn init_readable(lookup: Lookup<'_>, colours: bool) -> Result<(), ConfigError> {
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_target(false).with_writer(std::io::stderr);
    let _ = tracing_subscriber::registry().with(filter(lookup)?).with(lines).try_init();
    Ok(())
}

/// One line of text that commands no terminal: what a platform sent may hold line ends and escape sequences.
pub fn printable(text: &str) -> String {
    let escaped = |letter: char| {
        if letter.is_control() && letter != '\t' { letter.escape_default().to_string() } else { letter.to_string() }
    };
    text.chars().map(escaped).collect()
}

fn filter(lookup: Lookup<'_>) -> Result<Targets, ConfigError> {
    let level = match lookup("LOG_LEVEL").filter(|level| !level.is_empty()) {
        None => Level::INFO,
        Some(level) => {
            level.parse().map_err(|_| ConfigError::Bad("LOG_LEVEL", "is not error, warn, info, debug or trace"))?
        }
    };
    let others = if level == Level::TRACE { LevelFilter::TRACE } else { LevelFilter::ERROR };
    Ok(OURS.iter().fold(Targets::new().with_default(others), |targets, target| targets.with_target(*target, level)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_and_cannot_command_a_terminal() {
        assert_eq!(printable("नमस्ते\tfrom\r\n\u{1b}[2J\u{9b}1m"), "नमस्ते\tfrom\\r\\n\\u{1b}[2J\\u{9b}1m");
    }
}
