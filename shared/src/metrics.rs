//! What CloudWatch counts, in its embedded metric format: one JSON line on standard output per delivery or recording,
//! and no call to any service. Source: AWS's page "Specification: Embedded metric format".
//!
//! `docs/operations.md` says what each metric means. Every metric has the dimension `stack`.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::config::{Lookup, set};
use crate::instant::Instant;
use crate::session::Webhook;

/// The namespace of every metric.
pub const NAMESPACE: &str = "Hookswitch";
/// Deliveries, by `webhook` and `outcome` and over all webhooks. Count.
pub const DELIVERIES: &str = "Deliveries";
/// From a delivery to its answer, by `webhook`. Milliseconds.
pub const HANDLING_TIME: &str = "HandlingTime";
/// Attempts to archive a recording, by `outcome`. Count.
pub const RECORDINGS: &str = "Recordings";
/// The length of an archived recording. Bytes.
pub const RECORDING_BYTES: &str = "RecordingBytes";
/// How long the successful attempt took. Seconds.
pub const COPY_TIME: &str = "CopyTime";
/// From the delivery that first offered a recording to its end in the bucket. Seconds.
pub const TIME_TO_ARCHIVE: &str = "TimeToArchive";
/// How long the oldest recording that is neither archived nor given up has waited, at each sweep; 0 if there is none.
/// Seconds.
pub const OLDEST_UNFINISHED_RECORDING: &str = "OldestUnfinishedRecording";

/// Answers, or parts of them, that were replaced by the next best, by `reason` ([`Reason::name`]). Count.
///
/// [`Reason::name`]: crate::profile::Reason::name
pub const FALLBACKS: &str = "Fallbacks";
/// Runs of the reconciler, by `outcome`: `complete`, `cut_short`, `failed` or `off`. Count.
pub const RECONCILER_RUNS: &str = "ReconcilerRuns";
/// What the reconciler found missing, by `outcome`: `recovered`, `url_renewed` or `not_recovered`. Count.
pub const RECONCILED: &str = "Reconciled";

/// Events of calls, by `type` and `outcome` (`published` or `undelivered`) and over all types. Count.
pub const EVENTS: &str = "Events";

/// Calls whose document was looked after, by `outcome`: `written`, `unchanged`, `removed` or `failed`. Count.
pub const DOCUMENTS: &str = "Documents";

/// Writes metrics for one stack, or none, as on the local run.
#[derive(Default)]
pub struct Metrics {
    stack: Option<String>,
}

impl Metrics {
    /// Metrics of the stack that `STACK_NAME` names; without it none are written.
    pub fn read(lookup: Lookup<'_>) -> Self {
        Self { stack: set(lookup, "STACK_NAME") }
    }

    /// Counts a delivery and how long it took.
    pub fn delivery(&self, webhook: Webhook, outcome: &str, elapsed: Duration, now: Instant) {
        self.write(
            now,
            &[("webhook", webhook.name()), ("outcome", outcome)],
            &[
                (&[&["stack", "webhook", "outcome"], &["stack", "outcome"]], &[(DELIVERIES, "Count", 1.0)]),
                (&[&["stack", "webhook"]], &[(HANDLING_TIME, "Milliseconds", elapsed.as_secs_f64() * 1000.0)]),
            ],
        );
    }

    /// Counts something in an answer that was replaced by the next best.
    pub fn fallback(&self, reason: &str, now: Instant) {
        self.write(now, &[("reason", reason)], &[(&[&["stack", "reason"]], &[(FALLBACKS, "Count", 1.0)])]);
    }

    /// Counts what became of an attempt to archive a recording: `waiting`, `expired`, `rejected` or `failed`.
    pub fn recording(&self, outcome: &str, now: Instant) {
        self.write(now, &[("outcome", outcome)], &[(&[&["stack", "outcome"]], &[(RECORDINGS, "Count", 1.0)])]);
    }

    /// Counts an archived recording. `wanted_at` is when it was first offered.
    #[allow(clippy::cast_precision_loss, reason = "lengths and times far below 2^52")]
    pub fn archived(&self, bytes: u64, copying: Duration, wanted_at: Option<Instant>, now: Instant) {
        let mut of_the_stack =
            vec![(RECORDING_BYTES, "Bytes", bytes as f64), (COPY_TIME, "Seconds", copying.as_secs_f64())];
        if let Some(wanted_at) = wanted_at {
            of_the_stack.push((TIME_TO_ARCHIVE, "Seconds", now.millis_since(wanted_at) as f64 / 1000.0));
        }
        self.write(
            now,
            &[("outcome", "archived")],
            &[(&[&["stack", "outcome"]], &[(RECORDINGS, "Count", 1.0)]), (&[&["stack"]], &of_the_stack)],
        );
    }

    /// Says how long the oldest unfinished recording has waited.
    #[allow(clippy::cast_precision_loss, reason = "times far below 2^52")]
    pub fn oldest_unfinished(&self, wanted_at: Option<Instant>, now: Instant) {
        let seconds = wanted_at.map_or(0.0, |wanted_at| now.millis_since(wanted_at).max(0) as f64 / 1000.0);
        self.write(now, &[], &[(&[&["stack"]], &[(OLDEST_UNFINISHED_RECORDING, "Seconds", seconds)])]);
    }

    /// Counts a run of the reconciler, and what it found by outcome.
    pub fn reconciled(&self, run: &str, found: &[(&str, u32)], now: Instant) {
        self.write(now, &[("outcome", run)], &[(&[&["stack", "outcome"]], &[(RECONCILER_RUNS, "Count", 1.0)])]);
        for (outcome, count) in found.iter().filter(|(_, count)| *count > 0) {
            let counted = [(RECONCILED, "Count", f64::from(*count))];
            self.write(now, &[("outcome", outcome)], &[(&[&["stack", "outcome"]], &counted)]);
        }
    }

    /// Counts events of one type that came to one outcome.
    pub fn events(&self, kind: &str, outcome: &str, count: u32, now: Instant) {
        let counted = [(EVENTS, "Count", f64::from(count))];
        self.write(
            now,
            &[("type", kind), ("outcome", outcome)],
            &[(&[&["stack", "type", "outcome"], &["stack", "outcome"]], &counted)],
        );
    }

    /// Counts calls whose document came to one outcome.
    pub fn documents(&self, outcome: &str, count: u32, now: Instant) {
        let counted = [(DOCUMENTS, "Count", f64::from(count))];
        self.write(now, &[("outcome", outcome)], &[(&[&["stack", "outcome"]], &counted)]);
    }

    fn write(&self, now: Instant, dimensions: &[(&str, &str)], groups: &[Group<'_>]) {
        let Some(stack) = &self.stack else { return };
        let Ok(mut line) = serde_json::to_vec(&Line { stack, now, dimensions, groups }) else { return };
        line.push(b'\n');
        // A line that cannot be written is lost, and nothing else may be.
        let _ = std::io::stdout().lock().write_all(&line);
    }
}

/// Sets of dimensions, and the metrics that have each of them: name, unit, value.
type Group<'a> = (&'a [&'a [&'a str]], &'a [(&'static str, &'static str, f64)]);

struct Line<'a> {
    stack: &'a str,
    now: Instant,
    dimensions: &'a [(&'a str, &'a str)],
    groups: &'a [Group<'a>],
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        let directives = self.groups.iter().map(|(dimensions, metrics)| Directive {
            namespace: NAMESPACE,
            dimensions,
            metrics: metrics.iter().map(|(name, unit, _)| Named { name, unit }).collect(),
        });
        let about = About { timestamp: self.now.unix_micros() / 1000, directives: directives.collect() };
        line.serialize_entry("_aws", &about)?;
        line.serialize_entry("stack", self.stack)?;
        for (name, value) in self.dimensions {
            line.serialize_entry(name, value)?;
        }
        for (name, _, value) in self.groups.iter().flat_map(|(_, metrics)| *metrics) {
            line.serialize_entry(name, &((value * 1000.0).round() / 1000.0))?;
        }
        line.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct About<'a> {
    timestamp: i64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'a str,
    dimensions: &'a [&'a [&'a str]],
    metrics: Vec<Named<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Named<'a> {
    name: &'a str,
    unit: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_what_cloudwatch_reads() {
        let now = Instant::parse("2026-03-15T14:30:00.5Z").unwrap();
        let groups: &[Group<'_>] = &[
            (&[&["stack", "webhook", "outcome"], &["stack", "outcome"]], &[(DELIVERIES, "Count", 1.0)]),
            (&[&["stack", "webhook"]], &[(HANDLING_TIME, "Milliseconds", 4.207_4)]),
        ];
        let dimensions = &[("webhook", "session_end"), ("outcome", "stored")];
        let said = Line { stack: "hookswitch", now, dimensions, groups };
        assert_eq!(
            serde_json::to_value(said).unwrap(),
            json!({
                "_aws": { "Timestamp": 1_773_585_000_500_i64, "CloudWatchMetrics": [
                    { "Namespace": "Hookswitch", "Dimensions": [["stack", "webhook", "outcome"], ["stack", "outcome"]],
                      "Metrics": [{ "Name": "Deliveries", "Unit": "Count" }] },
                    { "Namespace": "Hookswitch", "Dimensions": [["stack", "webhook"]],
                      "Metrics": [{ "Name": "HandlingTime", "Unit": "Milliseconds" }] },
                ] },
                "stack": "hookswitch", "webhook": "session_end", "outcome": "stored",
                "Deliveries": 1.0, "HandlingTime": 4.207,
            })
        );
    }
}
