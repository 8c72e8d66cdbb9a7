//! A process and what it uses, as Linux counts it. Source: proc(5), `/proc/<pid>/stat` and `/proc/<pid>/status`.

use std::process::{Child, ChildStdout, Command};
use std::time::Duration;

use serde::Serialize;

use super::missing;

/// CPU time and memory of a process.
#[derive(Serialize, Clone, Copy, Default, Debug)]
pub struct Used {
    /// In user and kernel, of all its threads and of the children that it waited for.
    pub cpu_seconds: f64,
    /// The most that was resident at once.
    pub peak_mib: f64,
}

/// A process that is watched, killed when dropped. It is not waited for before it is read: what has ended is still
/// counted as long as nobody has.
pub struct Watched {
    name: &'static str,
    child: Child,
    used: Used,
}

impl Watched {
    pub fn spawn(name: &'static str, command: &mut Command) -> Result<Self, String> {
        let child = command.spawn().map_err(|error| missing(name, &error))?;
        Ok(Self { name, child, used: Used::default() })
    }

    /// Its standard output, once, if that is a pipe.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Reads what it has used until it has ended.
    pub async fn ended(&mut self) {
        while self.look() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Kills it; what it used.
    pub fn stop(mut self) -> Result<Used, String> {
        self.look();
        self.child.kill().map_err(|error| format!("{}: {error}", self.name))?;
        Ok(self.used)
    }

    /// What it used, once it has ended well.
    pub fn succeeded(mut self) -> Result<Used, String> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(self.used),
            Ok(status) => Err(format!("{} failed: {status}", self.name)),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// Reads what it has used; whether it still runs.
    fn look(&mut self) -> bool {
        let read =
            |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", self.child.id())).unwrap_or_default();
        if let Some(kib) = peak_kib(&read("status")) {
            self.used.peak_mib = self.used.peak_mib.max(kib / 1024.0);
        }
        let (ended, cpu_seconds) = stat(&read("stat")).unwrap_or((true, self.used.cpu_seconds));
        self.used.cpu_seconds = cpu_seconds;
        !ended
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // It may have ended, and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The largest resident set so far.
fn peak_kib(status: &str) -> Option<f64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok())
}

/// Whether it has ended, and its CPU time in seconds, its children's included.
fn stat(text: &str) -> Option<(bool, f64)> {
    /// `USER_HZ`, which is 100 on every architecture that Lambda has.
    const TICKS_A_SECOND: f64 = 100.0;
    // The name stands in parentheses and may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<f64>().ok()).sum::<Option<f64>>()?;
    Some((fields[0] == "Z", ticks / TICKS_A_SECOND))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot be made fails")]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn what_linux_says_of_a_process_is_read_whatever_its_name() {
        let text = "17 (a) Z (b) R 1 17 17 0 -1 4194304 100 0 0 0 250 50 3 2 20 0 1 0 5 6 7";
        assert_eq!(stat(text), Some((false, 3.05)));
        assert!(stat(&text.replace(") R ", ") Z ")).unwrap().0, "it has ended");
        assert_eq!(peak_kib("VmPeak:\t    1 kB\nVmHWM:\t    2048 kB\n"), Some(2048.0));
    }

    #[tokio::test]
    async fn a_process_is_counted_to_its_end() {
        let spawn =
            |script: &str| Watched::spawn("sh", Command::new("sh").args(["-c", script]).stdout(Stdio::null())).unwrap();
        let mut busy = spawn("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done");
        busy.ended().await;
        let used = busy.succeeded().unwrap();
        assert!(used.cpu_seconds > 0.0 && used.peak_mib > 0.5, "{} s, {} MiB", used.cpu_seconds, used.peak_mib);
        let mut failed = spawn("exit 3");
        failed.ended().await;
        assert!(failed.succeeded().unwrap_err().starts_with("sh failed"));
    }
}
