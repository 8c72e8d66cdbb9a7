//! `bench run`: what a delivery costs, by the deployed binaries themselves.
//!
//! Lambda's Runtime API and AWS's endpoints are served here, over TLS and at once, so that what is left is the functions'
//! own. Builds take turns a delivery at a time, so that whatever else the machine does falls on all of them alike.

pub mod aws;
pub mod function;
pub mod kinds;
mod peers;
mod share;
mod table;
mod units;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rand::seq::SliceRandom;
use serde::Serialize;
use shared::{Instant, Provider};

use aws::{Asked, Aws};
use function::{Function, Program};
use kinds::{Kind, SECRET};

/// Deliveries before those that count: connections, caches, branches.
const WARM_UP: u64 = 30;
/// A large delivery is sent this many times more rarely.
const RARER: u32 = 20;
/// Lambda deals a share of a core out in periods of 20 ms: one passes between two invocations.
const A_PERIOD: Duration = Duration::from_millis(21);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo lambda build --release && cargo measure run
  cargo measure run --peers --only session_completed
  sudo cargo measure run --throttle --memory-mb 128,512 --large # with Lambda's share of a core
  cargo measure run --base ../before/target/lambda          # another build beside it

A delivery is the first of its call, a later one, the same again, a forged one, or one of many turns. Times are from the
start of the process to its first question for work (init), and from the handing out of an event to its answer (first,
then warm). CPU is the function's own, in user and kernel, all threads. Requests are those to DynamoDB, S3 and Secrets
Manager after the start. Dollars: docs/performance.md says how.

Exit code: 0; 1 if a function does not start or answers something else than it should. Times decide nothing.")]
pub struct Options {
    /// Where the functions are built.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    functions: PathBuf,
    /// Where another build of them is, to be measured beside.
    #[arg(long, value_name = "DIR")]
    base: Option<PathBuf>,
    /// Receivers in Node and Python, too: installs them into target/bench at first.
    #[arg(long)]
    peers: bool,
    /// Only these functions.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    only: Vec<String>,
    /// How many instances of each are started.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    cold: u32,
    /// How many deliveries an instance that runs answers.
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    warm: u32,
    /// Gives each no more of a core than Lambda does for its memory, once it has started. Needs root.
    #[arg(long)]
    throttle: bool,
    /// The functions' memory, in MB; as the template has it if not given. Peers have 256.
    #[arg(long, value_name = "MB,...", value_delimiter = ',')]
    memory_mb: Vec<u32>,
    /// Bodies of thousands of turns, too, more rarely.
    #[arg(long)]
    large: bool,
    /// The results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A program and a kind of delivery.
struct Target {
    /// Who receives: a function's name, `base: ` and one, or a peer's.
    name: String,
    kind: Kind,
    program: Program,
    zip_bytes: Option<u64>,
    cold: Vec<Cold>,
    warm: Vec<Warm>,
    asked: Asked,
    logged: u64,
    peak_mib: f64,
}

#[derive(Clone, Copy)]
struct Cold {
    init: Duration,
    init_cpu: Duration,
    first: Duration,
    first_cpu: Duration,
}

#[derive(Clone, Copy)]
struct Warm {
    after: Duration,
    cpu: Duration,
}

/// Everything of a run.
#[derive(Serialize)]
struct Report {
    /// When it began.
    at: Instant,
    /// Of the processor.
    machine: String,
    cores: usize,
    /// Over a minute, before and after.
    load: [f64; 2],
    throttled: bool,
    rows: Vec<table::Row>,
}

pub async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let (at, before) = (Instant::now(), load());
    let aws = Aws::serve(SECRET).await?;
    let folder = tempfile::tempdir()?;
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, &aws.authority)?;
    let mut targets = targets(options, &aws, &authority)?;
    if targets.is_empty() {
        return Err("none of the functions has such a name".into());
    }
    let mut numbers = 0..;
    for round in 1..=options.cold {
        progress(&format!("start {round} of {}", options.cold));
        for target in shuffled(&mut targets) {
            start(target, options.throttle, &mut numbers).await?;
        }
    }
    aws.take();
    deliver(&mut targets, options, &aws, &mut numbers).await?;
    let rows = targets.iter().map(|target| table::row(target, &targets)).collect();
    let report = Report {
        at,
        machine: machine(),
        cores: std::thread::available_parallelism()?.get(),
        load: [before, load()],
        throttled: options.throttle,
        rows,
    };
    say(&table::table(&report));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One instance from its start to its first answer.
async fn start(
    target: &mut Target,
    throttle: bool,
    numbers: &mut impl Iterator<Item = u64>,
) -> Result<(), Box<dyn Error>> {
    let (_, event) = target.kind.events(numbers.next().ok_or("numbers do not end")?, Instant::now())?;
    let mut function = Function::start(&target.program, throttle).await?;
    if throttle {
        tokio::time::sleep(A_PERIOD).await;
    }
    let first = function.invoke(&event).await.map_err(|error| target.failed(&*error))?;
    target.answered(first.status)?;
    function.settle().await;
    let first_cpu = function.cpu()?.saturating_sub(function.init_cpu);
    target.cold.push(Cold { init: function.init, init_cpu: function.init_cpu, first: first.after, first_cpu });
    target.peak_mib = target.peak_mib.max(function.peak_mib()?);
    function.stop().await
}

/// In an order of chance: what ran before leaves the processor's caches as they are, and whoever often follows itself
/// seems some 6 % cheaper.
fn shuffled<T>(turns: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut turns: Vec<T> = turns.into_iter().collect();
    turns.shuffle(&mut rand::rng());
    turns
}

/// Deliveries to instances that run, one to each in turn.
async fn deliver(
    targets: &mut [Target],
    options: &Options,
    aws: &Aws,
    numbers: &mut impl Iterator<Item = u64>,
) -> Result<(), Box<dyn Error>> {
    let mut functions = Vec::new();
    for target in targets.iter() {
        functions.push(Function::start(&target.program, options.throttle).await?);
    }
    let rounds = WARM_UP + u64::from(options.warm);
    for round in 0..rounds {
        if round % 100 == 0 {
            progress(&format!("delivery {round} of {rounds}"));
        }
        for (target, function) in shuffled(targets.iter_mut().zip(&mut functions)) {
            if target.kind.is_large() && round % u64::from(RARER) != 0 {
                continue;
            }
            let number = numbers.next().ok_or("numbers do not end")?;
            let (prior, event) = target.kind.events(number, Instant::now())?;
            if let Some(prior) = prior {
                function.invoke(&prior).await.map_err(|error| target.failed(&*error))?;
                function.settle().await;
            }
            if options.throttle {
                tokio::time::sleep(A_PERIOD).await;
            }
            aws.take();
            let (cpu, logged) = (function.cpu()?, function.logged());
            let answered = function.invoke(&event).await.map_err(|error| target.failed(&*error))?;
            target.answered(answered.status)?;
            function.settle().await;
            if round < WARM_UP && !target.kind.is_large() {
                continue;
            }
            target.warm.push(Warm { after: answered.after, cpu: function.cpu()?.saturating_sub(cpu) });
            target.logged += function.logged() - logged;
            target.asked.add(aws.take());
        }
    }
    for (target, function) in targets.iter_mut().zip(functions) {
        target.peak_mib = target.peak_mib.max(function.peak_mib()?);
        function.stop().await?;
    }
    Ok(())
}

impl Target {
    fn failed(&self, error: &dyn Error) -> String {
        format!("{}, {}: {error}", self.name, self.kind.name)
    }

    fn answered(&self, status: u64) -> Result<(), String> {
        let expected = self.kind.status();
        if status == expected {
            Ok(())
        } else {
            Err(format!("{}, {}: answered {status}, not {expected}", self.name, self.kind.name))
        }
    }
}

fn targets(options: &Options, aws: &Aws, authority: &Path) -> Result<Vec<Target>, Box<dyn Error>> {
    let (mut targets, mut zips) = (Vec::new(), BTreeMap::new());
    let named = |kind: &Kind| options.only.is_empty() || options.only.iter().any(|name| name == kind.webhook.name());
    let wanted = |kind: &Kind| named(kind) && (options.large || !kind.is_large());
    let builds = [("", Some(&options.functions)), ("base: ", options.base.as_ref())];
    let template = cli::template::Template::read()?;
    for kind in kinds::ALL.into_iter().filter(wanted) {
        let deployed = [template.memory_mb(kind.webhook.name())?];
        for &memory_mb in if options.memory_mb.is_empty() { &deployed[..] } else { &options.memory_mb } {
            for (prefix, folder) in builds {
                let Some(folder) = folder else { continue };
                let bootstrap = folder.join(kind.webhook.name()).join("bootstrap");
                if !bootstrap.is_file() {
                    let missing = bootstrap.display();
                    return Err(format!("{missing} is not there: build it with `cargo lambda build --release`").into());
                }
                let program = Program {
                    command: vec![bootstrap.clone()],
                    folder: None,
                    environment: environment(kind, aws, authority),
                    memory_mb,
                };
                if !zips.contains_key(&bootstrap) {
                    zips.insert(bootstrap.clone(), crate::sizes::zipped(&std::fs::read(&bootstrap)?)?);
                }
                let zip_bytes = zips.get(&bootstrap).copied();
                targets.push(Target::new(format!("{prefix}{}", kind.webhook.name()), kind, program, zip_bytes));
            }
        }
    }
    if options.peers {
        for (name, kind, program) in peers::installed(aws, authority)? {
            if wanted(&kind) {
                targets.push(Target::new(name, kind, program, None));
            }
        }
    }
    Ok(targets)
}

impl Target {
    fn new(name: String, kind: Kind, program: Program, zip_bytes: Option<u64>) -> Self {
        let (cold, warm, asked) = (Vec::new(), Vec::new(), Asked::default());
        Self { name, kind, program, zip_bytes, cold, warm, asked, logged: 0, peak_mib: 0.0 }
    }
}

/// What Lambda and the template set, of a stack whose secrets Secrets Manager holds.
pub fn environment(kind: Kind, aws: &Aws, authority: &Path) -> BTreeMap<String, String> {
    let secret = match kind.webhook.provider() {
        Provider::Exotel => "EXOTEL_TOKEN_SECRET_ARN",
        Provider::Vocobase => "VOCOBASE_SECRET_ARN",
    };
    let mut environment = common(aws);
    for (name, value) in [
        (secret, "arn:aws:secretsmanager:us-east-1:123456789012:secret:bench-AbCdEf"),
        ("EVENTS_TABLE", "hookswitch-events"),
        ("TRANSCRIPTS_TABLE", "hookswitch-transcripts"),
        ("SESSIONS_TABLE", "hookswitch-sessions"),
        ("RECORDINGS_TABLE", "hookswitch-recordings"),
        ("PROFILES_TABLE", "hookswitch-profiles"),
        ("RECORDINGS_BUCKET", "hookswitch-recordings-123456789012-us-east-1"),
        ("RETENTION_DAYS", "365"),
        ("STACK_NAME", "hookswitch"),
        ("SESSION_END_URL", "https://e.lambda-url.us-east-1.on.aws/"),
        ("PRE_AGENT_TRANSFER_URL", "https://p.lambda-url.us-east-1.on.aws/"),
        ("INSIGHTS_EVENTS_URL", "https://i.lambda-url.us-east-1.on.aws/"),
        ("TRANSCRIPT_EVENTS_URL", "https://t.lambda-url.us-east-1.on.aws/"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    environment.insert("AWS_CA_BUNDLE".to_owned(), authority.display().to_string());
    if kind.is_forged() {
        // For so many forgeries it would not read the secret anew, and answer 503 to most: this one has it already.
        environment.remove(secret);
        environment.insert("VOCOBASE_SECRETS".to_owned(), SECRET.to_owned());
    }
    environment
}

/// What Lambda sets for any function. The session token is as long as Lambda's are.
fn common(aws: &Aws) -> BTreeMap<String, String> {
    let set = [
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
        ("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLE/".repeat(35)),
        ("AWS_ENDPOINT_URL", aws.url.clone()),
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LANG", "en_US.UTF-8".to_owned()),
        ("TZ", ":UTC".to_owned()),
    ];
    set.map(|(name, value)| (name.to_owned(), value)).into()
}

#[allow(clippy::print_stdout, reason = "this is the command's own output")]
pub fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr, reason = "this is the command's own output")]
pub fn progress(text: &str) {
    eprintln!("{text}");
}

/// The processor's name. Source: proc(5), `/proc/cpuinfo`.
fn machine() -> String {
    let said = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = said.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown", |(_, name)| name).to_owned()
}

/// Over the last minute. Source: proc(5), `/proc/loadavg`.
fn load() -> f64 {
    let said = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    said.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be made fails")]
mod tests {
    use super::*;

    /// The functions as the tests were built with them.
    fn built() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for webhook in shared::Webhook::ALL {
            let place = folder.path().join(webhook.name());
            std::fs::create_dir(&place).unwrap();
            let binary = ::tests::hookswitch().with_file_name(webhook.name());
            std::os::unix::fs::symlink(binary, place.join("bootstrap")).unwrap();
        }
        folder
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn deliveries_cost_the_units_that_the_stores_count() {
        let folder = built();
        let options = Options {
            functions: folder.path().to_owned(),
            base: Some(folder.path().to_owned()),
            peers: false,
            only: ["session_start", "transcript_events", "session_completed"].map(str::to_owned).into(),
            cold: 1,
            warm: 2,
            throttle: false,
            memory_mb: Vec::new(),
            large: false,
            json: Some(folder.path().join("report.json")),
        };
        assert_eq!(run(&options).await.unwrap(), ExitCode::SUCCESS);
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
        let of = |name: &str, delivery: &str| {
            let mut rows = report["rows"].as_array().unwrap().iter();
            rows.find(|row| row["name"] == name && row["delivery"] == delivery).unwrap().clone()
        };
        // tests/stories/units.rs counts the same by the local database.
        for (name, delivery, write_units, failed_conditions) in [
            ("session_start", "first", 4.0, 0.0),
            ("session_start", "again", 1.0, 1.0),
            ("transcript_events", "later", 3.0, 0.0),
            ("session_completed", "first", 7.0, 0.0),
            ("session_completed", "again", 1.0, 1.0),
            ("session_completed", "forged", 0.0, 0.0),
        ] {
            let row = of(name, delivery);
            assert_eq!(row["write_units"], write_units, "{row}");
            assert_eq!(row["failed_conditions"], failed_conditions, "{row}");
        }
        let row = of("session_completed", "300 turns");
        assert!(row["write_units"].as_f64().unwrap() <= 60.0, "{row}");
        for member in ["init_ms", "first_ms", "warm_p50_us", "cpu_us", "peak_mib", "zip_bytes", "bytes", "log_bytes"] {
            assert!(row[member].as_f64().unwrap() > 0.0, "{member}: {row}");
        }
        // With some 400 bytes of Lambda's own, of START, END and REPORT.
        let logged = report["rows"].as_array().unwrap().iter().map(|row| row["log_bytes"].as_f64().unwrap());
        let most = logged.fold(0.0, f64::max) + 400.0;
        assert!(most <= cli::cost::LOG_BYTES, "{most} bytes are logged, more than `hookswitch cost` takes for it");
        assert!(row["cpu_to_base"].is_array() && of("base: session_completed", "first")["cpu_to_base"].is_null());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_function_that_answers_otherwise_ends_the_run() {
        let aws = Aws::serve("another secret").await.unwrap();
        let folder = built();
        let authority = folder.path().join("authority.pem");
        std::fs::write(&authority, &aws.authority).unwrap();
        let kind = kinds::ALL[0];
        let program = Program {
            command: vec![folder.path().join("session_start/bootstrap")],
            folder: None,
            environment: environment(kind, &aws, &authority),
            memory_mb: 128,
        };
        let mut target = Target::new("session_start".to_owned(), kind, program, None);
        let error = start(&mut target, false, &mut (0..)).await.unwrap_err().to_string();
        assert_eq!(error, "session_start, first: answered 401, not 200");
    }
}
