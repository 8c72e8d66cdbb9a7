//! `hookswitch cost`: what AWS takes in a month, by what a call was counted to take.

use std::collections::BTreeMap;
use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;
use shared::Provider;

use crate::paint::{Colour, Paint};
use crate::prices::{self, Item};
use crate::template::Template;
use crate::{Failure, aligned};

/// Work out what AWS takes in a month: for each service, and for a call.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch cost                                              10,000 Exotel calls a month
  hookswitch cost --calls 500000 --turns 12 --insights 2       shorter ones, and more
  hookswitch cost --provider vocobase --recording-minutes 5    Vocobase calls with recordings
  hookswitch cost --retention-days 90 --json                   as one JSON object
  hookswitch cost --prices                                     the prices, and the pages that they are from

Requests, units and bytes are those that were counted of simulated calls. How long functions run is assumed: 50 ms for a
delivery, an event's or a document's making, and for a recording a second and 20 MB a second. Each Exotel turn is taken
to be delivered twice, in progress and completed. Calls are spread evenly over the month, as traces have it. Free tiers,
taxes, queries and what leaves AWS are left out.

Exit code: 0, or 2 for wrong arguments.")]
pub struct Options {
    /// The platform.
    #[arg(long, value_enum, default_value = "exotel")]
    provider: Platform,
    /// Calls a month.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    calls: u64,
    /// Turns of a call, the bot's and the caller's.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    turns: u32,
    /// Bytes of text in a turn: a letter of Hindi has three.
    #[arg(long, default_value_t = USUAL_TURN_BYTES, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    turn_bytes: u32,
    /// Deliveries of insights in an Exotel call, each with two of them, such as sentiment and intent.
    #[arg(long, default_value_t = USUAL_INSIGHTS, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    insights: u32,
    /// Minutes of a Vocobase call's recording, of 0.96 MB each; 0 for none. Exotel sends no recordings.
    #[arg(long, default_value_t = 3.0, value_parser = minutes)]
    recording_minutes: f64,
    /// Days for which calls, turns and documents are kept; as the template has it if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    retention_days: Option<u32>,
    /// Days for which recordings are kept; as long as the rest if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    recording_retention_days: Option<u32>,
    /// What the functions are built for.
    #[arg(long, value_enum, default_value = "x86_64")]
    architecture: Architecture,
    /// Show the prices instead.
    #[arg(long)]
    prices: bool,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Who sends the webhooks.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Platform {
    /// Five webhooks, as calls go on.
    Exotel,
    /// One webhook at the end.
    Vocobase,
}

/// What Lambda runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Architecture {
    /// Intel and AMD.
    #[value(name = "x86_64")]
    #[serde(rename = "x86_64")]
    X86,
    /// Graviton.
    #[value(name = "arm64")]
    #[serde(rename = "arm64")]
    Arm,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes: Option<f64> = text.parse().ok();
    minutes
        .filter(|minutes| (0.0..=10_000.0).contains(minutes))
        .ok_or_else(|| "from 0 to 10000, such as 2.5".to_owned())
}

const USUAL_TURN_BYTES: u32 = 80;
const USUAL_INSIGHTS: u32 = 4;

/// What an alarm looks at, over all alarms of the template.
pub const ALARM_METRICS: f64 = 44.0;
/// Custom metrics that are written in a month without trouble.
const METRICS: f64 = 30.0;
const SECRETS: f64 = 3.0;
/// What a run of any function writes to its log, at most; START, END and REPORT of Lambda's own are in it.
pub const LOG_BYTES: f64 = 1_500.0;
/// Between two looks of the archiver for what is unfinished, in minutes.
const SWEEP_MINUTES: f64 = 10.0;

const DAYS_A_MONTH: f64 = 365.0 / 12.0;
const SECONDS_A_MONTH: f64 = DAYS_A_MONTH * 86_400.0;
const GB: f64 = 1_000_000_000.0;

/// Of a run of a function, if nothing else is known.
const RUN_SECONDS: f64 = 0.05;
/// Of a copy, before the first byte and after the last.
const COPY_SECONDS: f64 = 1.0;
const COPY_BYTES_A_SECOND: f64 = 20_000_000.0;
/// Of a turn, with the pause before it.
const TURN_SECONDS: f64 = 6.0;

/// Samples of 16 bits, 8,000 a second.
const RECORDING_BYTES_A_MINUTE: f64 = 960_000.0;
/// A recording goes into the bucket in one request below two parts.
const PART_BYTES: f64 = 8.0 * 1024.0 * 1024.0;

/// What DynamoDB adds to each item where it takes money for storing.
/// Source: Amazon `DynamoDB` pricing page, "data storage": 100 bytes for indexing.
const ITEM_BYTES: f64 = 100.0;
/// Beside the text: the envelope of a platform, and our names.
const EVENT_BYTES: f64 = 760.0;
const TURN_BYTES: f64 = 240.0;
const CALL_BYTES: f64 = 650.0;
const INDEX_BYTES: f64 = 120.0;
const JOB_BYTES: f64 = 720.0;
const SEGMENT_BYTES: f64 = 64.0;
const DOCUMENT_BYTES: f64 = 1_100.0;
/// What packing leaves of a turn's text, and of what is around it.
const PACKED: f64 = 0.45;
const PACKED_SEGMENT_BYTES: f64 = 14.0;
/// Above so many units an event's body goes into the bucket.
const EVENT_UNITS: f64 = 9.0;

/// A call, as far as it matters here.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Call {
    /// The platform's name.
    #[serde(serialize_with = "name")]
    pub provider: Provider,
    /// What was said, one after the other.
    pub turns: f64,
    /// Text of each.
    pub turn_bytes: f64,
    /// Deliveries of two insights each.
    pub insights: f64,
    /// 0 without a recording.
    pub recording_minutes: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn name<S: serde::Serializer>(provider: &Provider, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(provider.name())
}

/// How often a function runs, and for how long each time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Runs {
    /// How often.
    pub count: f64,
    /// Each.
    pub seconds: f64,
}

/// What one call takes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Taken {
    /// Webhooks.
    pub deliveries: f64,
    /// Of all functions together.
    pub write_units: f64,
    /// The same, at most.
    pub read_units: f64,
    /// Requests that write to the bucket.
    pub puts: f64,
    /// Requests that read from it, at most.
    pub gets: f64,
    /// On the bus.
    pub events: f64,
    /// Kept in tables and indices.
    pub table_bytes: f64,
    /// Kept in the bucket for as long: documents and large bodies.
    pub document_bytes: f64,
    /// Kept in the bucket.
    pub recording_bytes: f64,
    /// By function.
    pub runs: BTreeMap<&'static str, Runs>,
}

fn blocks(bytes: f64) -> f64 {
    (bytes / 1024.0).ceil().max(1.0)
}

impl Call {
    /// What it takes, if nothing goes wrong and nothing comes twice. `tests/stories/cost.rs` counts it.
    pub fn taken(&self) -> Taken {
        // Exotel says more of a turn.
        let (mut taken, turn_bytes) = match self.provider {
            Provider::Exotel => (self.by_exotel(), 195.0),
            Provider::Vocobase => (self.by_vocobase(), 120.0),
        };
        taken.document_bytes += DOCUMENT_BYTES + self.turns * (turn_bytes + self.turn_bytes);
        taken
    }

    /// A start, each turn in progress and completed, insights, an end.
    fn by_exotel(&self) -> Taken {
        let Self { turns, turn_bytes, insights, .. } = *self;
        let heard = 2.0 * turns;
        let deliveries = 2.0 + heard + insights;
        let event_bytes = EVENT_BYTES + PACKED * turn_bytes;
        let spoken = blocks(event_bytes) + blocks(TURN_BYTES + turn_bytes);
        // Each delivery is kept, and changes the call or a turn; the first one also puts the call into two indices.
        let write_units = 2.0 * (2.0 + insights) + heard * spoken + 2.0;
        let looks = (turns * TURN_SECONDS / 60.0).ceil();
        let (published, exported) = (3.0 + insights, 1.0);
        let read_units = deliveries + published + looks + 9.0 + turns * (TURN_BYTES + turn_bytes) / 4096.0;
        let runs = [
            ("session_start", 1.0),
            ("transcript_events", heard),
            ("insights_events", insights),
            ("session_end", 1.0),
            ("event_publisher", published),
            ("call_exporter", looks + exported),
        ];
        Taken {
            deliveries,
            write_units,
            read_units,
            puts: exported,
            gets: 2.0,
            events: 3.0 + 2.0 * insights,
            table_bytes: deliveries * (event_bytes + ITEM_BYTES)
                + turns * (TURN_BYTES + turn_bytes + ITEM_BYTES)
                + CALL_BYTES
                + 2.0 * INDEX_BYTES
                + 3.0 * ITEM_BYTES,
            runs: runs.map(|(name, count)| (name, Runs { count, seconds: RUN_SECONDS })).into(),
            ..Taken::default()
        }
    }

    /// Everything at once, and a recording.
    fn by_vocobase(&self) -> Taken {
        let Self { turns, turn_bytes, recording_minutes, .. } = *self;
        let packed = EVENT_BYTES + turns * (PACKED_SEGMENT_BYTES + PACKED * turn_bytes);
        let in_bucket = blocks(packed) > EVENT_UNITS;
        let event_bytes = if in_bucket { EVENT_BYTES } else { packed };
        let speech_bytes = TURN_BYTES + turns * (SEGMENT_BYTES + turn_bytes);
        // The event, what was said, the call and its two indices.
        let mut taken = Taken {
            deliveries: 1.0,
            write_units: blocks(event_bytes) + blocks(speech_bytes) + 3.0,
            read_units: 9.0 + speech_bytes / 4096.0,
            puts: 1.0,
            gets: 2.0,
            events: 2.0,
            table_bytes: event_bytes + speech_bytes + CALL_BYTES + 2.0 * INDEX_BYTES + 5.0 * ITEM_BYTES,
            ..Taken::default()
        };
        if in_bucket {
            taken.puts += 1.0;
            taken.document_bytes += packed;
        }
        let (mut published, mut exported) = (1.0, 1.0);
        if recording_minutes > 0.0 {
            let bytes = recording_minutes * RECORDING_BYTES_A_MINUTE;
            let parts = (bytes / PART_BYTES).ceil();
            published += 2.0;
            exported += 1.0;
            // A job and its index: begun by the delivery, claimed and ended by the archiver, which tells the call.
            taken.write_units += 2.0 + 6.0;
            taken.read_units += 10.0 + speech_bytes / 4096.0;
            taken.puts += 1.0 + if bytes < 2.0 * PART_BYTES { 1.0 } else { parts + 2.0 };
            taken.gets += 1.0;
            taken.events += 1.0;
            taken.table_bytes += JOB_BYTES + ITEM_BYTES;
            taken.recording_bytes = bytes;
            let seconds = COPY_SECONDS + bytes / COPY_BYTES_A_SECOND;
            taken.runs.insert("recording_archiver", Runs { count: 1.0, seconds });
        }
        for (name, count) in [("session_completed", 1.0), ("event_publisher", published), ("call_exporter", exported)] {
            taken.runs.insert(name, Runs { count, seconds: RUN_SECONDS });
        }
        taken
    }
}

/// For how many days something is kept.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Kept {
    /// Calls, turns, deliveries and documents.
    pub days: f64,
    /// Recordings.
    pub recording_days: f64,
    /// Logs.
    pub log_days: f64,
}

/// A line of the bill.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    /// What is paid for.
    pub item: Item,
    /// In words.
    pub unit: &'static str,
    /// How much of it, in a month.
    pub amount: f64,
    /// US dollars a month.
    pub dollars: f64,
    /// Whether it is paid for without any call, too.
    pub standing: bool,
}

/// What a month comes to once as much goes as comes.
pub fn bill(
    call: &Call,
    calls: f64,
    kept: Kept,
    architecture: Architecture,
    template: &Template,
) -> Result<Vec<Line>, Failure> {
    let taken = call.taken();
    let seconds = match architecture {
        Architecture::X86 => Item::LambdaGbSecondsX86,
        Architecture::Arm => Item::LambdaGbSecondsArm,
    };
    let (mut requests, mut gb_seconds, mut traces) = (0.0, 0.0, 0.0);
    for (name, runs) in &taken.runs {
        let runs_a_month = runs.count * calls;
        requests += runs_a_month;
        gb_seconds += runs_a_month * runs.seconds * f64::from(template.memory_mb(name)?) / 1024.0;
        // One a second of each function, and one in twenty of the others.
        let first = runs_a_month.min(SECONDS_A_MONTH);
        traces += first + 0.05 * (runs_a_month - first);
    }
    let months = |days: f64| days / DAYS_A_MONTH;
    let tables = taken.table_bytes * calls / GB * months(kept.days);
    let bucket =
        (taken.document_bytes * months(kept.days) + taken.recording_bytes * months(kept.recording_days)) * calls / GB;
    let logs = requests * LOG_BYTES / GB;
    let sweeps = SECONDS_A_MONTH / 60.0 / SWEEP_MINUTES;
    let by_call = [
        (Item::LambdaRequests, requests),
        (seconds, gb_seconds),
        (Item::WriteUnits, taken.write_units * calls),
        (Item::ReadUnits, taken.read_units * calls),
        (Item::TableGbMonths, tables),
        (Item::RecoveryGbMonths, tables),
        (Item::BucketPuts, taken.puts * calls),
        (Item::BucketGets, taken.gets * calls),
        (Item::BucketGbMonths, bucket),
        (Item::Events, taken.events * calls),
        (Item::LogGb, logs),
        (Item::LogGbMonths, logs * months(kept.log_days)),
        (Item::Traces, traces),
    ];
    let standing = [
        (Item::LambdaRequests, sweeps),
        (seconds, sweeps * COPY_SECONDS * f64::from(template.memory_mb("recording_archiver")?) / 1024.0),
        (Item::Metrics, METRICS),
        (Item::AlarmMetrics, ALARM_METRICS),
        (Item::Dashboards, 1.0),
        (Item::Secrets, SECRETS),
        (Item::SecretReads, SECONDS_A_MONTH / 300.0),
    ];
    let line = |standing: bool| {
        move |(item, amount): (Item, f64)| Line {
            item,
            unit: item.price().unit,
            amount,
            dollars: item.dollars(amount),
            standing,
        }
    };
    let mut lines: Vec<Line> =
        by_call.into_iter().map(line(false)).chain(standing.into_iter().map(line(true))).collect();
    lines.retain(|line| line.amount > 0.0);
    lines.sort_by_key(|line| line.item);
    Ok(lines)
}

/// What so many calls cost as the template has it, their storage until it expires included, and nothing that is paid for
/// without them. Turns take six seconds, and say and tell as much as the command takes for usual.
pub fn dollars(
    provider: Provider,
    calls: f64,
    seconds: f64,
    recorded: bool,
    template: &Template,
) -> Result<f64, Failure> {
    if calls == 0.0 {
        return Ok(0.0);
    }
    let call = Call {
        provider,
        turns: (seconds / calls / TURN_SECONDS).round(),
        turn_bytes: USUAL_TURN_BYTES.into(),
        insights: if provider == Provider::Exotel { USUAL_INSIGHTS.into() } else { 0.0 },
        recording_minutes: if recorded { seconds / calls / 60.0 } else { 0.0 },
    };
    let days = template.default_of("RetentionDays")?;
    let kept = Kept { days, recording_days: days, log_days: template.default_of("LogRetentionDays")? };
    let lines = bill(&call, calls, kept, Architecture::X86, template)?;
    Ok(lines.iter().filter(|line| !line.standing).map(|line| line.dollars).sum())
}

/// Dollars a month.
pub fn total(lines: &[Line]) -> f64 {
    lines.iter().map(|line| line.dollars).sum()
}

/// Runs the command.
pub fn run(options: &Options, mut out: impl Write, coloured: bool) -> Result<(), Failure> {
    let lines = if options.prices { price_list(options.json) } else { worked_out(options, Paint(coloured))? };
    // A closed pipe is a reader that has seen enough.
    for line in lines {
        if writeln!(out, "{line}").is_err() {
            break;
        }
    }
    Ok(())
}

fn price_list(json: bool) -> Vec<String> {
    if json {
        let rows = Item::ALL.map(|item| {
            let price = item.price();
            serde_json::json!({ "item": item, "service": price.service, "unit": price.unit, "dollars": price.dollars,
                "per": price.per, "page": price.page })
        });
        return vec![
            serde_json::json!({ "as_of": prices::AS_OF, "region": prices::REGION, "prices": rows }).to_string(),
        ];
    }
    let rows = Item::ALL.map(|item| {
        let price = item.price();
        let per =
            if price.per > 1.0 { format!("{} {}", grouped(price.per), price.unit) } else { price.unit.to_owned() };
        [price.service.to_owned(), price.dollars.to_string(), per, price.page.to_owned()]
    });
    let mut lines = vec![format!("US dollars in {}, as of {}", prices::REGION, prices::AS_OF), String::new()];
    lines.extend(aligned(&rows));
    lines
}

fn worked_out(options: &Options, paint: Paint) -> Result<Vec<String>, Failure> {
    let template = Template::read()?;
    let provider = match options.provider {
        Platform::Exotel => Provider::Exotel,
        Platform::Vocobase => Provider::Vocobase,
    };
    let exotel = provider == Provider::Exotel;
    let call = Call {
        provider,
        turns: f64::from(options.turns),
        turn_bytes: f64::from(options.turn_bytes),
        insights: if exotel { f64::from(options.insights) } else { 0.0 },
        recording_minutes: if exotel { 0.0 } else { options.recording_minutes },
    };
    let days = options.retention_days.map_or_else(|| template.default_of("RetentionDays"), |days| Ok(days.into()))?;
    let kept = Kept {
        days,
        recording_days: options.recording_retention_days.map_or(days, f64::from),
        log_days: template.default_of("LogRetentionDays")?,
    };
    #[allow(clippy::cast_precision_loss, reason = "there are fewer calls than that")]
    let calls = options.calls as f64;
    let lines = bill(&call, calls, kept, options.architecture, &template)?;
    let taken = call.taken();
    let standing: f64 = lines.iter().filter(|line| line.standing).map(|line| line.dollars).sum();
    let mut services: Vec<(&str, Vec<&Line>)> = Vec::new();
    for line in &lines {
        let service = line.item.price().service;
        match services.last_mut() {
            Some((last, lines)) if *last == service => lines.push(line),
            _ => services.push((service, vec![line])),
        }
    }
    let of = |lines: &[&Line]| lines.iter().map(|line| line.dollars).sum::<f64>();
    if options.json {
        let services: Vec<_> = services
            .iter()
            .map(|(service, lines)| {
                serde_json::json!({ "service": service, "dollars": rounded(of(lines)),
                    "dollars_per_call": rounded(of(lines) / calls), "lines": lines.iter().map(|line| serde_json::json!({
                        "item": line.item, "unit": line.unit, "amount": rounded(line.amount),
                        "dollars": rounded(line.dollars), "standing": line.standing })).collect::<Vec<_>>() })
            })
            .collect();
        let whole = serde_json::json!({ "as_of": prices::AS_OF, "region": prices::REGION, "calls": options.calls,
            "call": call, "kept": kept, "architecture": options.architecture, "call_takes": taken,
            "services": services, "dollars": rounded(total(&lines)), "standing_dollars": rounded(standing),
            "dollars_per_call": rounded(total(&lines) / calls) });
        return Ok(vec![whole.to_string()]);
    }
    let more = match provider {
        Provider::Exotel => format!("{} deliveries of insights", options.insights),
        Provider::Vocobase => format!("a recording of {} minutes", options.recording_minutes),
    };
    let said =
        format!("{} {} calls a month, each of {} turns and {more}", grouped(calls), title(provider), options.turns);
    let mut rows = vec![["", "", "a month", "a call"].map(str::to_owned)];
    let row = |name: String, amount: String, dollars: f64| {
        [name, amount, format!("{dollars:>10.2}"), format!("{:>11.7}", dollars / calls)]
    };
    for (service, lines) in &services {
        rows.push(row((*service).to_owned(), String::new(), of(lines)));
        for line in lines {
            let unit = if line.standing { format!("{}, always", line.unit) } else { line.unit.to_owned() };
            rows.push(row(format!("  {unit}"), format!("{:>15}", grouped(line.amount)), line.dollars));
        }
    }
    rows.push(row("Together".to_owned(), String::new(), total(&lines)));
    let mut table = aligned(&rows);
    // Coloured once the columns are as wide as they are.
    for (line, row) in table.iter_mut().zip(&rows) {
        if !row[0].starts_with(' ') {
            *line = paint.on(Colour::Bold, line);
        }
    }
    let mut text = vec![
        said,
        format!("kept for {} days; {}, US dollars as of {}", kept.days, prices::REGION, prices::AS_OF),
        String::new(),
    ];
    text.extend(table);
    text.extend([String::new(), format!("{standing:.2} of it is paid without any call, too.")]);
    Ok(text)
}

fn title(provider: Provider) -> &'static str {
    match provider {
        Provider::Exotel => "Exotel",
        Provider::Vocobase => "Vocobase",
    }
}

/// Millionths are enough, and hide how fractions are kept.
fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// `1234567.8` as `1,234,568`, and what is small with its fraction.
fn grouped(value: f64) -> String {
    if value < 1_000.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let said = [0.0, 7.0, 999.0, 1_000.0, 1_234_567.8, 0.25].map(grouped);
        assert_eq!(said, ["0", "7", "999", "1,000", "1,234,568", "0.25"]);
    }

    #[test]
    fn what_is_kept_twice_as_long_costs_twice_as_much_and_a_traces_reservoir_is_filled_once() {
        let template = Template::read().unwrap();
        let call =
            Call { provider: Provider::Vocobase, turns: 20.0, turn_bytes: 80.0, insights: 0.0, recording_minutes: 3.0 };
        let amount = |calls: f64, days: f64, item: Item| {
            let kept = Kept { days, recording_days: days, log_days: 30.0 };
            let lines = bill(&call, calls, kept, Architecture::X86, &template).unwrap();
            lines.iter().find(|line| line.item == item && !line.standing).unwrap().amount
        };
        for item in [Item::TableGbMonths, Item::BucketGbMonths] {
            assert!((amount(1e4, 200.0, item) / amount(1e4, 100.0, item) - 2.0).abs() < 1e-9);
        }
        assert!((amount(1e4, 1.0, Item::Traces) - 7e4).abs() < 1.0, "all of few");
        let many = amount(1e9, 1.0, Item::Traces);
        assert!((many - (4.0 * SECONDS_A_MONTH * 0.95 + 7e9 * 0.05)).abs() < 10.0, "{many}");
    }
}
