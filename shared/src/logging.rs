//! One line a delivery, written at the edge. At any level below `trace` only the bundle's own crates speak, and they
//! never say a body, a token, a number or a recording's URL.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, Lookup};

/// The crates whose lines are wanted; all others are heard at `trace` only, since an HTTP client's debug output holds
/// whole requests.
const OURS: [&str; 10] = [
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
