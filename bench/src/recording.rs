//! `bench recording`: the archiver beside `curl | aws s3 cp -`. The same recording, from the same HTTPS source into the
//! same local S3, in turns.
//!
//! The archiver is the deployed binary, unchanged: it fetches from public addresses only. So everything runs in a network
//! of its own, where the source has a public address, and trusts the run's own CA through `RECORDING_CA_FILE`.

mod process;
mod source;

use std::error::Error;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use shared::{Provider, SessionKey, Webhook};
use tests::World;
use tests::lambda::RuntimeApi;

use process::{Used, Watched};
use source::Recording;

/// The source, and the public address that it has in the network of the run.
const HOST: &str = "recordings.bench.example";
const ADDRESS: &str = "52.216.0.1";
/// As the template gives it.
const MEMORY_MB: &str = "512";
/// Lambda's longest.
const PATIENCE: Duration = Duration::from_mins(15);

const ARCHIVER: &str = "recording_archiver";
const PIPE: &str = "curl | aws s3 cp -";

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo lambda build --release && cargo measure recording
  cargo measure recording --mib 64 --rounds 1

Both take turns, the first one too. Needs Linux with curl, the AWS CLI, unshare and mount (util-linux) and ip (iproute2),
and where users may not make a network of their own, root.

Exit code: 0; 1 if something is missing, or if what is in the bucket is not the recording. Times decide nothing.")]
pub struct Options {
    /// The length of the recording.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=5000))]
    mib: u64,
    /// How often each has its turn.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where the functions are built.
    #[arg(long, value_name = "DIR", default_value = "target/lambda")]
    functions: PathBuf,
    /// The results as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Already in a network of its own.
    #[arg(long, hide = true)]
    inside: bool,
}

/// One copy of the recording.
#[derive(Serialize, Clone, Copy)]
struct Turn {
    seconds: f64,
    mib_per_second: f64,
    #[serde(flatten)]
    used: Used,
}

/// What a run found.
#[derive(Serialize)]
struct Report {
    mib: u64,
    archiver: Vec<Turn>,
    pipe: Vec<Turn>,
    /// The archiver's rate by the pipe's: the median over the rounds.
    rate_ratio: f64,
}

pub async fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    if options.inside { inside(options).await } else { outside() }
}

/// Runs itself again, in a network of its own that ends with it.
#[allow(clippy::disallowed_methods, reason = "the edge: the command runs itself")]
fn outside() -> Result<ExitCode, Box<dyn Error>> {
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--net", "--mount", "--"]).arg(std::env::current_exe()?);
    let status =
        again.args(std::env::args_os().skip(1)).arg("--inside").status().map_err(|error| missing("unshare", &error))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn missing(command: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => {
            format!("{command} is not on the PATH: `cargo measure recording --help` says what is needed")
        }
        _ => format!("{command}: {error}"),
    }
}

async fn inside(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let bootstrap = options.functions.join(ARCHIVER).join("bootstrap");
    if !bootstrap.is_file() {
        return Err(
            format!("{} is not there: build it with `cargo lambda build --release`", bootstrap.display()).into()
        );
    }
    let folder = tempfile::tempdir()?;
    network(folder.path())?;
    let recording = Recording::new(options.mib);
    let ca = source::serve(recording.clone(), HOST, SocketAddr::new(ADDRESS.parse()?, 443)).await?;
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, ca)?;
    let bench = Bench { world: World::embedded(&[], tests::now()).await, recording, bootstrap, ca_file };

    say(&format!("{} MiB over TLS from {HOST} into the local S3; load {}", options.mib, load()?));
    say(&format!("\n{:22}{:>9}{:>9}{:>8}{:>10}", "", "seconds", "MiB/s", "CPU s", "peak MiB"));
    let (mut archiver, mut pipe) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        // Who goes first has the colder caches.
        for archivers in [round % 2 == 0, round % 2 == 1] {
            let (name, turns) = if archivers { (ARCHIVER, &mut archiver) } else { (PIPE, &mut pipe) };
            let (seconds, used) = if archivers { bench.archive(round).await? } else { bench.pipe().await? };
            #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
            let turn = Turn { seconds, mib_per_second: options.mib as f64 / seconds, used };
            line(name, turn);
            turns.push(turn);
        }
    }
    say("");
    line(&format!("{ARCHIVER}, p50"), median_turn(&archiver));
    line(&format!("{PIPE}, p50"), median_turn(&pipe));
    // Of one round, for the machine does other things in another.
    let rate_ratio = median(archiver.iter().zip(&pipe).map(|(one, other)| other.seconds / one.seconds));
    say(&format!(
        "\nThe archiver's rate is {rate_ratio:.2} of the other's, the median over the rounds; load {}.",
        load()?
    ));
    if let Some(file) = &options.json {
        let report = Report { mib: options.mib, archiver, pipe, rate_ratio };
        std::fs::write(file, serde_json::to_string_pretty(&report)? + "\n")?;
    }
    bench.world.run.stop().await;
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "this is the command's own output")]
fn say(line: &str) {
    println!("{line}");
}

fn line(name: &str, turn: Turn) {
    let Turn { seconds, mib_per_second, used } = turn;
    say(&format!("{name:22}{seconds:>9.2}{mib_per_second:>9.0}{:>8.2}{:>10.0}", used.cpu_seconds, used.peak_mib));
}

/// Each column's own median.
fn median_turn(turns: &[Turn]) -> Turn {
    let middle = |column: &dyn Fn(&Turn) -> f64| median(turns.iter().map(column));
    Turn {
        seconds: middle(&|turn| turn.seconds),
        mib_per_second: middle(&|turn| turn.mib_per_second),
        used: Used { cpu_seconds: middle(&|turn| turn.used.cpu_seconds), peak_mib: middle(&|turn| turn.used.peak_mib) },
    }
}

/// Of at least one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// The machine's load in the last 1, 5 and 15 minutes.
fn load() -> std::io::Result<String> {
    let said = std::fs::read_to_string("/proc/loadavg")?;
    Ok(said.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

/// Gives the source its address and its name.
fn network(folder: &Path) -> Result<(), Box<dyn Error>> {
    let hosts = folder.join("hosts");
    std::fs::write(&hosts, format!("127.0.0.1 localhost\n{ADDRESS} {HOST}\n"))?;
    let hosts = hosts.to_string_lossy();
    let address = format!("{ADDRESS}/32");
    for command in [
        &["ip", "link", "set", "lo", "up"][..],
        &["ip", "address", "add", &address, "dev", "lo"],
        &["mount", "--bind", &hosts, "/etc/hosts"],
    ] {
        let status =
            Command::new(command[0]).args(&command[1..]).status().map_err(|error| missing(command[0], &error))?;
        if !status.success() {
            return Err(format!("`{}` failed", command.join(" ")).into());
        }
    }
    Ok(())
}

struct Bench {
    world: World,
    recording: Recording,
    bootstrap: PathBuf,
    ca_file: PathBuf,
}

impl Bench {
    /// Lets the archiver work on a job that a delivery made, as its stream brings it; from its start to its answer.
    async fn archive(&self, round: u32) -> Result<(f64, Used), Box<dyn Error>> {
        let id = format!("bench-{round}");
        let url = format!("https://{HOST}/recording.wav?Signature=bench");
        let body = json!({ "data": { "session_id": id, "recording_url": url } });
        let answer = self.world.deliver(Webhook::SessionCompleted, body.to_string()).await;
        if answer.status != 200 {
            return Err(format!("a delivery was answered {}", answer.status).into());
        }
        let session = SessionKey::new(Provider::Vocobase, &id)?;
        let event = json!({ "Records": [{ "dynamodb": {
            "Keys": { "session": { "S": session.as_str() } }, "SequenceNumber": "1" } }] });
        let mut api = RuntimeApi::start().await;
        let mut function = Command::new(&self.bootstrap);
        function.env_clear().envs(self.world.stores().environment()).envs([
            ("AWS_LAMBDA_RUNTIME_API", api.address.as_str()),
            ("AWS_LAMBDA_FUNCTION_NAME", ARCHIVER),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", MEMORY_MB),
            ("RECORDING_HOSTS", HOST),
        ]);
        function.env("RECORDING_CA_FILE", &self.ca_file).stdout(Stdio::null());
        let began = Instant::now();
        let mut function = Watched::spawn(ARCHIVER, &mut function)?;
        let answer = tokio::select! {
            answer = api.invoke(event) => answer,
            () = function.ended() => return Err(format!("{ARCHIVER} ended before it answered").into()),
            () = tokio::time::sleep(PATIENCE) => return Err(format!("{ARCHIVER} does not answer").into()),
        };
        let seconds = began.elapsed().as_secs_f64();
        let used = function.stop()?;
        if answer["batchItemFailures"] != json!([]) {
            return Err(format!("{ARCHIVER} answered {answer}").into());
        }
        let items = self.world.items_of("recordings", session.as_str()).await;
        let said = |name: &str| match items.first().and_then(|item| item.get(name)) {
            Some(AttributeValue::S(text)) => Ok(text.clone()),
            _ => Err(format!("the recording's job does not say its {name}")),
        };
        if said("state")? != "archived" || said("sha256")? != self.recording.sha256 {
            let why = said("last_error").unwrap_or_default();
            return Err(format!("the archiver did not archive the recording: it is {}: {why}", said("state")?).into());
        }
        self.check_and_remove(&said("s3_key")?).await?;
        Ok((seconds, used))
    }

    /// Lets curl and the AWS CLI copy it, with their own settings.
    async fn pipe(&self) -> Result<(f64, Used), Box<dyn Error>> {
        const KEY: &str = "bench/pipe.wav";
        let stores = self.world.stores();
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--fail", "--cacert"]).arg(&self.ca_file);
        curl.arg(format!("https://{HOST}/recording.wav")).stdout(Stdio::piped());
        let mut aws = Command::new("aws");
        aws.args(["s3", "cp", "-", &format!("s3://{}/{KEY}", stores.bucket), "--endpoint-url", &stores.s3]);
        aws.args(["--expected-size", &self.recording.length().to_string()]);
        aws.env("AWS_ACCESS_KEY_ID", &stores.access_key_id).env("AWS_SECRET_ACCESS_KEY", &stores.secret_access_key);
        aws.env("AWS_DEFAULT_REGION", &stores.region).stdout(Stdio::null());
        let began = Instant::now();
        let mut curl = Watched::spawn("curl", &mut curl)?;
        if let Some(output) = curl.output() {
            aws.stdin(output);
        }
        let mut aws_runs = Watched::spawn("aws", &mut aws)?;
        // It holds the other end of the pipe.
        drop(aws);
        curl.ended().await;
        aws_runs.ended().await;
        let seconds = began.elapsed().as_secs_f64();
        let (curl, aws) = (curl.succeeded()?, aws_runs.succeeded()?);
        self.check_and_remove(KEY).await?;
        let used = Used { cpu_seconds: curl.cpu_seconds + aws.cpu_seconds, peak_mib: curl.peak_mib.max(aws.peak_mib) };
        Ok((seconds, used))
    }

    /// What is in the bucket is the recording; then it makes room for the next one.
    async fn check_and_remove(&self, key: &str) -> Result<(), Box<dyn Error>> {
        let (s3, bucket) = (&self.world.clients.s3, &self.world.stores().bucket);
        let mut body = s3.get_object().bucket(bucket).key(key).send().await?.body;
        let mut digest = Sha256::new();
        while let Some(bytes) = body.try_next().await? {
            digest.update(&bytes);
        }
        if hex::encode(digest.finalize()) != self.recording.sha256 {
            return Err(format!("{key} is not the recording").into());
        }
        s3.delete_object().bucket(bucket).key(key).send().await?;
        Ok(())
    }
}
