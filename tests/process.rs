//! The real binary, running.

use std::process::{ExitStatus, Stdio};

use cli::endpoints::Endpoints;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// `hookswitch dev` on ports of its own. Killed when dropped.
pub struct LocalProcess {
    /// Where everything is.
    pub endpoints: Endpoints,
    /// The base of all URLs.
    pub base: String,
    child: Child,
    log: tempfile::NamedTempFile,
    // Kept open: a reader that goes away is not what is tested.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl LocalProcess {
    /// Starts it and waits until it says that it is up.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::with(arguments, &[]).await
    }

    /// The same with an environment beside the tests' own.
    pub async fn with(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut child = Command::new(crate::hookswitch())
            .args(["dev", "--port", "0"])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.reopen().expect("the file"))
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let base = loop {
            let line = stdout.next_line().await.expect("text").expect("it says that it is up");
            if let Some((before, _)) = line.split_once("/endpoints says") {
                break before.rsplit_once(' ').expect("a URL").1.to_owned();
            }
        };
        let answer = crate::http_client().get(format!("{base}/endpoints")).send().await.expect("an answer");
        let endpoints = serde_json::from_slice(&answer.bytes().await.expect("a body")).expect("endpoints");
        Self { endpoints, base, child, log, _stdout: stdout }
    }

    /// The process, as the system knows it.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).expect("its log")
    }

    /// Sends it a signal, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.expect("it ends")
    }
}
