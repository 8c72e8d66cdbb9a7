//! `bench instructions`: how many instructions a start and each kind of delivery take, compared with what
//! `bench/instructions.json` keeps.
//!
//! Times depend on the machine and on what else it does; instructions hardly do. They are counted by callgrind in the
//! deployed binaries themselves, which writes down what was run since it last did, between one delivery and the next.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shared::{Instant, Webhook};

use crate::run::aws::Aws;
use crate::run::function::{Function, Program};
use crate::run::kinds::{self, Kind, SECRET};
use crate::run::{environment, progress, say};

/// How far a count may be from the kept one. docs/performance.md says how far apart two runs are.
const SLACK: f64 = 0.05;
/// Deliveries of each kind before those that count: connections and caches.
const WARM_UP: u64 = 2;
/// Deliveries of each kind that count: their median does. Hash tables have other seeds in each process, and a packet more
/// or less takes some instructions.
const COUNTED: u64 = 5;
/// Starts that count, likewise.
const STARTS: u64 = 3;
/// How long what a function does after its answer may take, many times slowed down.
const AT_REST: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo lambda build --release && cargo measure instructions
  cargo measure instructions --only session_start
  cargo measure instructions --update    after a change that is meant: its diff is the change of instructions

Needs valgrind, whose version bench/instructions.json names: another one may show the functions another processor, for
which they have other code. A count may be 5 % from what is kept.

Exit code: 0 if all is as kept; 1 if something takes more instructions, or fewer, or a delivery is answered otherwise than
it should be.")]
pub struct Options {
    /// Where the functions are built.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    functions: PathBuf,
    /// Only these functions.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// Keep today's counts.
    #[arg(long)]
    update: bool,
}

/// The counts of a function by what they are of: `init`, which is a start whose stores do not answer, or the name of a
/// kind of delivery.
type Counts = BTreeMap<String, u64>;

/// What is kept.
#[derive(Serialize, Deserialize, Default, Debug, Clone, PartialEq)]
struct Kept {
    /// What `valgrind --version` says.
    counted_by: String,
    functions: BTreeMap<String, Counts>,
}

pub async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json");
    let kept: Kept = match std::fs::read(&file) {
        Ok(kept) => serde_json::from_slice(&kept)?,
        Err(_) => Kept::default(),
    };
    let aws = Aws::serve(SECRET).await?;
    let mut now = Kept { counted_by: version()?, functions: BTreeMap::new() };
    let wanted = |webhook: &Webhook| options.only.is_empty() || options.only.iter().any(|name| name == webhook.name());
    for webhook in Webhook::ALL.into_iter().filter(wanted) {
        progress(webhook.name());
        let bootstrap = options.functions.join(webhook.name()).join("bootstrap");
        if !bootstrap.is_file() {
            let missing = bootstrap.display();
            return Err(format!("{missing} is not there: build it with `cargo lambda build --release`").into());
        }
        now.functions.insert(webhook.name().to_owned(), count(webhook, &bootstrap, &aws).await?);
    }
    if now.functions.is_empty() {
        return Err("none of the functions has such a name".into());
    }
    say(&table(&kept, &now));
    if options.update {
        let mut functions = kept.functions;
        functions.extend(now.functions);
        let kept = Kept { counted_by: now.counted_by, functions };
        std::fs::write(&file, serde_json::to_string_pretty(&kept)? + "\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut faults = differences(&kept, &now);
    if !faults.is_empty() && !kept.counted_by.is_empty() && kept.counted_by != now.counted_by {
        faults.push(format!("the counts that are kept are by {}, these by {}", kept.counted_by, now.counted_by));
    }
    for fault in &faults {
        say(fault);
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn version() -> Result<String, Box<dyn Error>> {
    let said = Command::new("valgrind").arg("--version").output();
    let said = said.map_err(|error| format!("valgrind: {error}: instructions are counted by it"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

/// What a function takes to start, and for each of its kinds of delivery.
async fn count(webhook: Webhook, bootstrap: &Path, aws: &Aws) -> Result<Counts, Box<dyn Error>> {
    let kinds: Vec<Kind> = kinds::ALL.into_iter().filter(|kind| kind.webhook == webhook && !kind.is_large()).collect();
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, &aws.authority)?;
    let environment = environment(kinds[0], aws, &authority);
    let silence = TcpListener::bind("127.0.0.1:0")?;
    let alone = alone(&environment, &silence)?;
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let (function, mut callgrind) = started(bootstrap, alone.clone()).await?;
        starts.push(callgrind.count()?);
        function.stop().await?;
    }
    let mut counts = Counts::from([("init".to_owned(), median(starts))]);
    let (mut function, mut callgrind) = started(bootstrap, environment).await?;
    let mut numbers = 0..;
    for kind in kinds {
        let mut counted = Vec::new();
        for round in 0..WARM_UP + COUNTED {
            let number = numbers.next().ok_or("numbers do not end")?;
            let (prior, event) = kind.events(number, Instant::now())?;
            if let Some(prior) = prior {
                answered(&mut function, kind, &prior, 200).await?;
            }
            callgrind.count()?;
            answered(&mut function, kind, &event, kind.status()).await?;
            if round >= WARM_UP {
                counted.push(callgrind.count()?);
            }
        }
        counts.insert(kind.name.to_owned(), median(counted));
    }
    function.stop().await?;
    Ok(counts)
}

/// The same environment without stores: connections to `silence` are opened, and nobody answers. A function that starts
/// waits for its connections for a second at most, and slowed down as it is here, it would sometimes have them by then
/// and sometimes not.
fn alone(
    environment: &BTreeMap<String, String>,
    silence: &TcpListener,
) -> Result<BTreeMap<String, String>, Box<dyn Error>> {
    let mut alone = environment.clone();
    alone.retain(|name, _| !name.ends_with("_SECRET_ARN"));
    for (name, value) in [
        ("AWS_ENDPOINT_URL", format!("https://{}", silence.local_addr()?)),
        ("EXOTEL_TOKEN_SECRETS", format!("bench:{SECRET}")),
        ("VOCOBASE_SECRETS", SECRET.to_owned()),
    ] {
        alone.insert(name.to_owned(), value);
    }
    Ok(alone)
}

async fn started(
    bootstrap: &Path,
    environment: BTreeMap<String, String>,
) -> Result<(Function, Callgrind), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let option = |name: &str, file: &str| PathBuf::from(format!("--{name}={}", folder.path().join(file).display()));
    let command = vec![
        "valgrind".into(),
        "--tool=callgrind".into(),
        option("callgrind-out-file", "counts"),
        option("log-file", "log"),
        bootstrap.to_owned(),
    ];
    let program = Program { command, folder: None, environment, memory_mb: 128 };
    let function = Function::start(&program, false).await?;
    let callgrind = Callgrind { id: function.id()?, folder, dumps: 0 };
    tokio::time::sleep(AT_REST).await;
    Ok((function, callgrind))
}

async fn answered(
    function: &mut Function,
    kind: Kind,
    event: &serde_json::Value,
    expected: u64,
) -> Result<(), Box<dyn Error>> {
    let (name, delivery) = (kind.webhook.name(), kind.name);
    let answer = function.invoke(event).await.map_err(|error| format!("{name}, {delivery}: {error}"))?;
    if answer.status != expected {
        return Err(format!("{name}, {delivery}: answered {}, not {expected}", answer.status).into());
    }
    function.settle().await;
    tokio::time::sleep(AT_REST).await;
    Ok(())
}

/// A process that callgrind counts in.
struct Callgrind {
    id: u32,
    folder: tempfile::TempDir,
    dumps: u32,
}

impl Callgrind {
    /// The instructions since the last call of this. Source: Valgrind's manual, "Callgrind monitor commands".
    fn count(&mut self) -> Result<u64, Box<dyn Error>> {
        let asked = Command::new("vgdb").arg(format!("--pid={}", self.id)).arg("dump").output()?;
        self.dumps += 1;
        let dump = self.folder.path().join(format!("counts.{}", self.dumps));
        let Ok(dumped) = std::fs::read_to_string(dump) else {
            let why = String::from_utf8_lossy(&asked.stderr).into_owned();
            return Err(format!("callgrind does not say what it counted: {why}").into());
        };
        Ok(totals(&dumped).ok_or("callgrind says no total")?)
    }
}

/// The instructions of a dump of callgrind's. Source: Valgrind's manual, "Callgrind Format Specification".
fn totals(dump: &str) -> Option<u64> {
    dump.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Each count with the one that is kept.
fn table(kept: &Kept, now: &Kept) -> String {
    let mut lines = vec![format!("{:34}{:>12}{:>12}{:>9}", "instructions", "kept", "now", "change")];
    for (function, counts) in &now.functions {
        for (what, now) in counts {
            let before = kept.functions.get(function).and_then(|counts| counts.get(what));
            let shown = before.map_or(String::new(), u64::to_string);
            let change = before.map_or(String::new(), |before| format!("{:+.1} %", change(*before, *now) * 100.0));
            lines.push(format!("{:34}{shown:>12}{now:>12}{change:>9}", format!("{function}, {what}")));
        }
    }
    lines.join("\n")
}

/// What is no longer as it is kept.
fn differences(kept: &Kept, now: &Kept) -> Vec<String> {
    let mut faults = Vec::new();
    for (function, counts) in &now.functions {
        let none = Counts::new();
        let before = kept.functions.get(function).unwrap_or(&none);
        for (what, now) in counts {
            let Some(before) = before.get(what) else {
                faults.push(format!("{function}, {what}: no count is kept: --update keeps it"));
                continue;
            };
            let percent = change(*before, *now) * 100.0;
            if percent > SLACK * 100.0 {
                faults.push(format!("{function}, {what}: {percent:.1} % more instructions than are kept"));
            } else if percent < -SLACK * 100.0 {
                let fewer = -percent;
                faults.push(format!("{function}, {what}: {fewer:.1} % fewer instructions: --update keeps them"));
            }
        }
        let gone = before.keys().filter(|what| !counts.contains_key(*what));
        faults.extend(gone.map(|what| format!("{function}, {what}: a count is kept of what is no longer delivered")));
    }
    faults
}

#[allow(clippy::cast_precision_loss, reason = "some millions")]
fn change(before: u64, now: u64) -> f64 {
    now as f64 / before.max(1) as f64 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(first: u64) -> Kept {
        let counts = Counts::from([("first".to_owned(), first), ("init".to_owned(), 7_000_000)]);
        Kept {
            counted_by: "valgrind-3.19.0".to_owned(),
            functions: BTreeMap::from([("session_end".to_owned(), counts)]),
        }
    }

    #[test]
    fn a_tenth_more_fails_and_so_does_a_tenth_fewer_but_not_what_two_runs_differ_by() {
        let found = |now: u64| differences(&kept(1_000_000), &kept(now));
        assert_eq!(found(1_100_000), ["session_end, first: 10.0 % more instructions than are kept"]);
        assert_eq!(found(900_000), ["session_end, first: 10.0 % fewer instructions: --update keeps them"]);
        for now in [951_000, 1_000_000, 1_049_000] {
            assert_eq!(found(now), [] as [String; 0]);
        }
        assert!(table(&kept(1_000_000), &kept(1_100_000)).contains("+10.0 %"));
    }

    #[test]
    fn what_is_not_kept_or_no_longer_counted_is_told() {
        let mut now = kept(1_000_000);
        let counts = now.functions.get_mut("session_end");
        counts.map(|counts| counts.insert("later".to_owned(), 1).or(counts.remove("init"))).unwrap_or_default();
        assert_eq!(
            differences(&kept(1_000_000), &now),
            [
                "session_end, later: no count is kept: --update keeps it",
                "session_end, init: a count is kept of what is no longer delivered",
            ]
        );
    }

    #[test]
    fn a_dumps_total_is_read() {
        assert_eq!(totals("version: 1\nevents: Ir\n\nfn=(1) f\n3 4\n\ntotals: 1234\n"), Some(1234));
        assert_eq!(totals("version: 1\n"), None);
    }

    #[test]
    fn a_median_is_not_moved_by_one_that_is_far_away() {
        assert_eq!(median(vec![90, 1, 3, 2, 4]), 3);
        assert_eq!(median(Vec::new()), 0);
    }
}
