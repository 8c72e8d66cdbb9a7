//! What was measured, in a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use cli::prices::Item;
use serde::Serialize;

use super::{Report, Target};

/// What a request to DynamoDB or S3 is taken to last, in milliseconds, beyond the function's own CPU.
const ROUND_TRIP_MS: f64 = 4.0;
/// With so many megabytes a function has a whole core.
const A_CORE_MB: f64 = 1769.0;

/// A program and a kind of delivery. Medians, if not said otherwise; what one delivery costs is a mean.
#[derive(Serialize)]
pub struct Row {
    pub name: String,
    pub delivery: &'static str,
    pub memory_mb: u32,
    pub init_ms: f64,
    pub init_cpu_ms: f64,
    pub first_ms: f64,
    pub first_cpu_ms: f64,
    /// Of both together.
    pub cold_ms: f64,
    pub warm_p50_us: f64,
    pub warm_p99_us: f64,
    pub cpu_us: f64,
    /// Of the CPU to that of the same with `base: `, pair by pair: the median, and the first and last tenth.
    pub cpu_to_base: Option<[f64; 3]>,
    pub peak_mib: f64,
    pub zip_bytes: Option<u64>,
    pub calls: BTreeMap<String, f64>,
    pub bytes: f64,
    pub write_units: f64,
    pub read_units: f64,
    pub failed_conditions: f64,
    pub log_bytes: f64,
    pub dollars_per_million: f64,
}

#[allow(clippy::cast_precision_loss, reason = "some thousand deliveries")]
pub fn row(target: &Target, all: &[Target]) -> Row {
    let count = target.warm.len().max(1) as f64;
    let each = |sum: f64| sum / count;
    let cold = |of: &dyn Fn(&super::Cold) -> Duration| quantile(target.cold.iter().map(of).map(millis).collect(), 0.5);
    let after = || target.warm.iter().map(|warm| micros(warm.after)).collect::<Vec<f64>>();
    let cpu_us = quantile(target.warm.iter().map(|warm| micros(warm.cpu)).collect(), 0.5);
    let calls: BTreeMap<String, f64> =
        target.asked.calls.iter().map(|(name, calls)| (name.clone(), each(*calls as f64))).collect();
    let (write_units, read_units) = (each(target.asked.write_units), each(target.asked.read_units));
    let log_bytes = each(target.logged as f64);
    let memory_mb = target.program.memory_mb;
    let share = f64::from(memory_mb).min(A_CORE_MB) / A_CORE_MB;
    let waited: f64 = calls.values().sum::<f64>() * ROUND_TRIP_MS;
    let billed_ms = (cpu_us / 1000.0 / share).max(cpu_us / 1000.0 + waited).ceil();
    let puts = calls.get("s3:PUT").copied().unwrap_or_default();
    let dollars = [
        (Item::LambdaRequests, 1.0),
        (Item::LambdaGbSecondsX86, f64::from(memory_mb) / 1024.0 * billed_ms / 1000.0),
        (Item::WriteUnits, write_units),
        (Item::ReadUnits, read_units),
        (Item::BucketPuts, puts),
        (Item::LogGb, log_bytes / 1e9),
    ]
    .map(|(item, amount)| item.dollars(amount));
    let dollars_per_million = dollars.iter().sum::<f64>() * 1e6;
    Row {
        name: target.name.clone(),
        delivery: target.kind.name,
        memory_mb,
        init_ms: cold(&|cold| cold.init),
        init_cpu_ms: cold(&|cold| cold.init_cpu),
        first_ms: cold(&|cold| cold.first),
        first_cpu_ms: cold(&|cold| cold.first_cpu),
        cold_ms: cold(&|cold| cold.init + cold.first),
        warm_p50_us: quantile(after(), 0.5),
        warm_p99_us: quantile(after(), 0.99),
        cpu_us,
        cpu_to_base: base(target, all),
        peak_mib: target.peak_mib,
        zip_bytes: target.zip_bytes,
        bytes: each(target.asked.bytes as f64),
        failed_conditions: each(target.asked.failed_conditions as f64),
        calls,
        write_units,
        read_units,
        log_bytes,
        dollars_per_million,
    }
}

/// Deliveries were made in turns: each is compared with the one beside it.
fn base(target: &Target, all: &[Target]) -> Option<[f64; 3]> {
    let name = format!("base: {}", target.name);
    let same = |other: &&Target| {
        other.name == name && other.kind == target.kind && other.program.memory_mb == target.program.memory_mb
    };
    let base = all.iter().find(same)?;
    let ratios =
        target.warm.iter().zip(&base.warm).map(|(ours, theirs)| micros(ours.cpu) / micros(theirs.cpu).max(1.0));
    let ratios: Vec<f64> = ratios.collect();
    Some([0.5, 0.1, 0.9].map(|at| quantile(ratios.clone(), at)))
}

pub fn table(report: &Report) -> String {
    let mut text = format!(
        "{}, {} cores, {}, load {:.2} before and {:.2} after{}\n\n",
        report.machine,
        report.cores,
        report.at,
        report.load[0],
        report.load[1],
        if report.throttled { ", with Lambda's share of a core" } else { "" }
    );
    text.push_str(
        "| function | delivery | MB | init ms | CPU | first ms | CPU | both | warm p50 us | p99 | CPU us | of base | \
         peak MiB | zip MB | requests | bytes | WU | RU | log B | $ a million |\n",
    );
    text.push_str("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for row in &report.rows {
        let of_base =
            row.cpu_to_base.map_or(String::new(), |[median, low, high]| format!("{median:.2} ({low:.2}-{high:.2})"));
        #[allow(clippy::cast_precision_loss, reason = "some megabytes")]
        let zip = row.zip_bytes.map_or(String::new(), |bytes| format!("{:.2}", bytes as f64 / 1e6));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.0} | {:.0} | {of_base} | {:.1} | {zip} | {:.1} | {:.0} | \
             {:.1} | {:.1} | {:.0} | {:.2} |",
            row.name,
            row.delivery,
            row.memory_mb,
            row.init_ms,
            row.init_cpu_ms,
            row.first_ms,
            row.first_cpu_ms,
            row.cold_ms,
            row.warm_p50_us,
            row.warm_p99_us,
            row.cpu_us,
            row.peak_mib,
            row.calls.values().sum::<f64>() + 0.0,
            row.bytes,
            row.write_units,
            row.read_units,
            row.log_bytes,
            row.dollars_per_million,
        );
    }
    text
}

/// The value that so much of all is at most; 0 of none.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "an index")]
fn quantile(mut values: Vec<f64>, at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * at).round() as usize).copied().unwrap_or_default()
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values = || vec![5.0, 1.0, 4.0, 2.0, 3.0];
        let of = |values: Vec<f64>| [0.0, 0.5, 0.9, 1.0].map(|at| format!("{}", quantile(values.clone(), at)));
        assert_eq!(of(values()), ["1", "3", "5", "5"]);
        assert_eq!(of(Vec::new()), ["0"; 4]);
    }
}
