//! `hookswitch brief`: what whoever takes over a call should know.

use std::io::Write;

use serde_json::Value;
use shared::logging::printable;
use shared::storage::Brief;
use shared::{Instant, Provider, SessionKey};

use crate::Failure;
use crate::events::session_key;
use crate::target::Target;

/// Print what a human who takes over a call should know.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch brief exotel#s1234567                 who calls, why, what was said last
  hookswitch brief s1234567 --json --stack prod    the same as the event call.transfer_requested carries it

The brief is built when a bot asks for a human, and kept. If none is kept, one is built from what is
stored now; standard error says which it is. It holds the caller's number and words.

Exit code: 0, or 1 if the call is unknown or erased.")]
pub struct Options {
    /// The call: `exotel#<session id>`, `vocobase#<session id>`, or the session id alone.
    session: String,
    /// As one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Runs the command.
pub async fn run(options: &Options, now: Instant, mut out: impl Write) -> Result<(), Failure> {
    let session = &options.session;
    // A session id alone may be of either platform.
    let keys = [Provider::Exotel, Provider::Vocobase].map(|provider| session_key(session, provider));
    let mut keys: Vec<SessionKey> = keys.into_iter().collect::<Result<_, _>>()?;
    keys.dedup();
    let store = options.target.open().await?.store()?;
    for key in keys {
        let brief = store.brief(&key, now).await.map_err(|error| Failure(error.to_string()))?;
        let (brief, whence) = match brief {
            Brief::Kept(brief) => (brief, "as it was kept when a human was asked for"),
            Brief::Built(brief) => (brief, "none is kept: built from what is stored now"),
            Brief::Erased => return Err(Failure(format!("{key} is erased: nothing of it is kept"))),
            Brief::Unknown => continue,
        };
        let _ = writeln!(std::io::stderr(), "{}", printable(&format!("{key}: {whence}")));
        // A closed pipe is a reader that has seen enough.
        let mut print = |line: &str| drop(writeln!(out, "{line}"));
        if options.json {
            print(brief.as_str());
        } else {
            let document = serde_json::from_str(brief.as_str()).unwrap_or_default();
            for line in lines(&document) {
                print(&printable(&line));
            }
        }
        return Ok(());
    }
    Err(Failure(format!("no call {session} is stored")))
}

/// For a person who has a few seconds.
fn lines(brief: &Value) -> Vec<String> {
    const ABOUT: [&str; 10] = [
        "contact",
        "landing_number",
        "bot_name",
        "bot",
        "started_at",
        "requested_at",
        "seconds",
        "reason",
        "summary",
        "session",
    ];
    let row = |name: &str, value: &str| format!("{name:<16} {value}").trim_end().to_owned();
    let about = ABOUT.iter().filter(|name| !brief[**name].is_null()).map(|name| row(name, &spoken(&brief[*name])));
    let mut lines: Vec<String> = about.collect();
    let mut part = |heading: &str, rows: Vec<String>| {
        if !rows.is_empty() {
            lines.extend([String::new(), heading.to_owned()]);
            lines.extend(rows.into_iter().map(|row| format!("  {row}")));
        }
    };
    let members = |name: &str| brief[name].as_object().into_iter().flatten();
    let insight = |(kind, insight): (&String, &Value)| {
        let notes = ["score", "confidence"].map(|name| (name, spoken(&insight[name])));
        let notes = notes.into_iter().filter(|(_, value)| !value.is_empty());
        let mut notes: Vec<String> = notes.map(|(name, value)| format!("{name} {value}")).collect();
        notes.extend(Some(spoken(&insight["reason"])).filter(|reason| !reason.is_empty()));
        let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
        row(kind, &format!("{}{notes}", spoken(&insight["value"])))
    };
    part("Insights", members("insights").map(insight).collect());
    part(
        "Custom parameters",
        match &brief["custom_parameters"] {
            Value::Object(members) => members.iter().map(|(name, value)| row(name, &spoken(value))).collect(),
            Value::Null => Vec::new(),
            other => vec![spoken(other)],
        },
    );
    let turn = |turn: &Value| {
        // The time of day: the date is above.
        let at = turn["at"].as_str().and_then(|at| at.get(11..19)).unwrap_or_default();
        format!("{at:<8}  {:<10} {}", spoken(&turn["speaker"]), spoken(&turn["text"]))
    };
    part("Said last", brief["turns"].as_array().into_iter().flatten().map(turn).collect());
    let cut: Vec<String> = brief["cut"].as_array().into_iter().flatten().map(spoken).collect();
    if !cut.is_empty() {
        lines.extend([String::new(), format!("Not all of it: {}", cut.join(", "))]);
    }
    lines
}

/// A text as it is, anything else as JSON.
fn spoken(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
