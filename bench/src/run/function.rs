//! One instance of a function: its process, and the Lambda Runtime API that it asks for work.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc};

use super::share::Share;

/// To an answer, at the smallest share of a core.
const PATIENCE: Duration = Duration::from_mins(1);

/// What is started, and how.
#[derive(Clone)]
pub struct Program {
    pub command: Vec<PathBuf>,
    pub folder: Option<PathBuf>,
    pub environment: BTreeMap<String, String>,
    pub memory_mb: u32,
}

/// What the Runtime API saw, and when.
enum Seen {
    Asked(Instant),
    Given(Instant),
    Answered(Instant, Bytes),
}

pub struct Function {
    child: Child,
    events: mpsc::UnboundedSender<Bytes>,
    seen: mpsc::UnboundedReceiver<Seen>,
    share: Option<Share>,
    logged: Arc<std::sync::atomic::AtomicU64>,
    /// From its start to its first question for work.
    pub init: Duration,
    /// What of the CPU that took.
    pub init_cpu: Duration,
}

/// An answer, and how long it took from the handing out of its event.
pub struct Answered {
    pub status: u64,
    pub after: Duration,
}

impl Function {
    /// Starts one and waits until it asks for work; then it has no more of a core than `share` allows.
    pub async fn start(program: &Program, throttle: bool) -> Result<Self, Box<dyn Error>> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let (events, waiting) = mpsc::unbounded_channel::<Bytes>();
        let (saw, mut seen) = mpsc::unbounded_channel();
        let waiting = Arc::new(Mutex::new(waiting));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                drop(socket.set_nodelay(true));
                let (waiting, saw) = (Arc::clone(&waiting), saw.clone());
                let serve = service_fn(move |request| serve(Arc::clone(&waiting), saw.clone(), request));
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(socket), serve).await);
                });
            }
        });
        let (name, arguments) = program.command.split_first().ok_or("a program has a name")?;
        let mut command = Command::new(name);
        if let Some(folder) = &program.folder {
            command.current_dir(folder).env("LAMBDA_TASK_ROOT", folder);
        }
        let began = Instant::now();
        let mut child = command
            .args(arguments)
            .env_clear()
            .envs(&program.environment)
            .env("AWS_LAMBDA_RUNTIME_API", &address)
            .env("AWS_LAMBDA_FUNCTION_NAME", "bench")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", program.memory_mb.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", name.display()))?;
        let logged = Arc::new(std::sync::atomic::AtomicU64::new(0));
        if let Some(mut log) = child.stdout.take() {
            let logged = Arc::clone(&logged);
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(&mut log, &mut buffer).await {
                    logged.fetch_add(read as u64, std::sync::atomic::Ordering::Relaxed);
                }
            });
        }
        let asked = loop {
            tokio::select! {
                saw = seen.recv() => if let Some(Seen::Asked(at)) = saw { break at },
                status = child.wait() => return Err(format!("{} ended as it started: {}", name.display(), status?).into()),
                () = tokio::time::sleep(PATIENCE) => return Err(format!("{} does not start", name.display()).into()),
            }
        };
        let mut function =
            Self { child, events, seen, share: None, logged, init: asked - began, init_cpu: Duration::ZERO };
        function.init_cpu = function.cpu()?;
        if throttle {
            let share = Share::of(program.memory_mb)?;
            share.hold(function.id()?)?;
            function.share = Some(share);
        }
        Ok(function)
    }

    /// Hands it an event and waits for the answer.
    pub async fn invoke(&mut self, event: &Value) -> Result<Answered, Box<dyn Error>> {
        self.events.send(Bytes::from(event.to_string()))?;
        let mut given = None;
        loop {
            tokio::select! {
                saw = self.seen.recv() => match saw {
                    Some(Seen::Given(at)) => given = Some(at),
                    Some(Seen::Answered(at, answer)) => {
                        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                        let status = answer["statusCode"].as_u64().unwrap_or(200);
                        return Ok(Answered { status, after: at - given.ok_or("an answer to nothing")? });
                    }
                    Some(Seen::Asked(_)) => {}
                    None => return Err("the Runtime API ended".into()),
                },
                status = self.child.wait() => return Err(format!("it ended before it answered: {}", status?).into()),
                () = tokio::time::sleep(PATIENCE) => return Err("it does not answer".into()),
            }
        }
    }

    /// Waits until it asks for the next event, so that what it does after an answer is counted as the answer's.
    pub async fn settle(&mut self) {
        let asks = async { while !matches!(self.seen.recv().await, Some(Seen::Asked(_)) | None) {} };
        let _ = tokio::time::timeout(Duration::from_millis(200), asks).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// The CPU time of all its threads so far. Source: Linux's documentation, "Scheduler Statistics".
    pub fn cpu(&self) -> Result<Duration, Box<dyn Error>> {
        let mut nanos = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.id()?))? {
            let said = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
            nanos += said.split(' ').next().and_then(|ran| ran.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// The most that was resident at once, in MiB. Source: proc(5), `VmHWM`.
    pub fn peak_mib(&self) -> Result<f64, Box<dyn Error>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        Ok(peak.ok_or("the process has ended")? / 1024.0)
    }

    /// Bytes of its log so far.
    pub fn logged(&self) -> u64 {
        self.logged.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Ends it.
    pub async fn stop(mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.child.kill().await?)
    }

    /// As the system knows it.
    pub fn id(&self) -> Result<u32, &'static str> {
        self.child.id().ok_or("the process has ended")
    }
}

/// Source: AWS's page "Using the Lambda runtime API for custom runtimes".
async fn serve(
    waiting: Arc<Mutex<mpsc::UnboundedReceiver<Bytes>>>,
    saw: mpsc::UnboundedSender<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::GET {
        let _ = saw.send(Seen::Asked(Instant::now()));
        let Some(event) = waiting.lock().await.recv().await else {
            return std::future::pending().await;
        };
        let _ = saw.send(Seen::Given(Instant::now()));
        let deadline = shared::Instant::now().unix_seconds() * 1000 + 60_000;
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
            .header("lambda-runtime-deadline-ms", deadline.to_string())
            .header(
                "lambda-runtime-trace-id",
                "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
            )
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:bench")
            .header("content-type", "application/json")
            .body(Full::new(event));
        return Ok(response.unwrap_or_default());
    }
    let failed = !request.uri().path().ends_with("/response");
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let answer = if failed {
        super::progress(&format!("an invocation failed: {}", String::from_utf8_lossy(&body)));
        Bytes::from_static(b"{\"statusCode\":502}")
    } else {
        body
    };
    let _ = saw.send(Seen::Answered(Instant::now(), answer));
    Ok(Response::builder().status(202).body(Full::default()).unwrap_or_default())
}
