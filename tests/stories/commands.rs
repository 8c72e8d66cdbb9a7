//! `hookswitch recordings` and `hookswitch simulate`, against the local run and as against a stack.

use std::process::{Command, Output};

use serde_json::{Value, json};
use shared::{Instant, Webhook};
use tests::control_plane::Aws;
use tests::{LocalProcess, hookswitch};

/// Delivers a session whose recording is wherever the URL says.
async fn deliver(process: &LocalProcess, session: &str, url: &str) {
    let body = json!({ "event": "session.completed", "timestamp": Instant::now(),
        "data": { "session_id": session, "recording_url": url } });
    let delivery = cli::simulate::calls::Planned {
        webhook: Webhook::SessionCompleted,
        session_id: session.to_owned(),
        body: body.to_string().into_bytes(),
    };
    assert!(tests::post(&tests::http_client(), &process.endpoints, &delivery).await);
}

fn run(arguments: &[&str]) -> Output {
    Command::new(hookswitch()).args(arguments).output().expect("the binary runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Waits until the archiver has looked at a job.
async fn settled(port: &str, session: &str) -> Value {
    for _ in 0..300 {
        let shown = run(&["recordings", "show", session, "--json", "--port", port]);
        let job: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        // While it is copied, a job may already say why it is about to be given up.
        if job["state"] != "copying" && (!job["last_error"].is_null() || job["state"] == "archived") {
            return job;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("nothing became of {session}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_listed_shown_and_fetched_again_and_their_urls_are_never_told() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    // A host that is not allowed, and one that nobody listens at.
    deliver(&process, "elsewhere", "https://recordings.example.com/r.wav?Signature=top-secret").await;
    deliver(&process, "silent", "http://127.0.0.1:9/r.wav?Signature=top-secret").await;
    assert_eq!(settled(port, "elsewhere").await["state"], "rejected");
    assert_eq!(settled(port, "silent").await["state"], "pending");

    let list = run(&["recordings", "list", "--port", port]);
    let lines = text(&list);
    assert!(list.status.success());
    assert!(lines.starts_with("SESSION"), "{lines}");
    assert!(lines.contains("vocobase#elsewhere  rejected"), "{lines}");
    assert!(lines.contains("recordings.example.com is not allowed: add it to RECORDING_HOSTS"), "{lines}");
    assert!(!lines.contains("top-secret"), "{lines}");
    let rejected = run(&["recordings", "list", "--state", "rejected", "--json", "--port", port]);
    let rejected: Vec<Value> = text(&rejected).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rejected.iter().map(|job| &job["session"]).collect::<Vec<_>>(), ["vocobase#elsewhere"]);
    assert_eq!(text(&run(&["recordings", "list", "--older-than", "1h", "--json", "--port", port])), "");
    assert_eq!(text(&run(&["recordings", "list", "--newer-than", "1h", "--json", "--port", port])).lines().count(), 2);

    let show = text(&run(&["recordings", "show", "vocobase#elsewhere", "--port", port]));
    assert!(show.contains("attempts           1") && !show.contains("top-secret"), "{show}");

    // The same as a stack, found by the environment as the AWS CLI finds it.
    let aws = Aws::of(&process.endpoints).await;
    let retry = aws.run(&["recordings", "retry", "--state", "rejected", "--yes", "--stack", "prod"], "").await;
    assert!(retry.status.success(), "{}", text(&retry));
    assert_eq!(text(&retry), "vocobase#elsewhere: pending\n");
    // It is tried at once, and rejected anew.
    let again = settled(port, "elsewhere").await;
    assert_eq!((&again["state"], &again["attempts"]), (&json!("rejected"), &json!(1)));

    let unknown = run(&["recordings", "retry", "nobody", "--port", port]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown).contains("vocobase#nobody: nothing to fetch"), "{}", text(&unknown));
    assert!(text(&run(&["recordings", "show", "nobody", "--port", port])).contains("vocobase#nobody has no recording"));
    assert!(text(&run(&["recordings", "list", "--port", "9"])).contains("start the local run with `cargo dev`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_recordings_come_whole_into_the_bucket_over_connections_that_break() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1;
    let output = run(&["simulate", "--calls", "6", "--recording-mb", "20", "--break", "0.5", "--json", "--port", port]);
    assert!(output.status.success(), "{}", text(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(summary["recordings"], json!({ "recordings": 3, "bytes": 60_000_000, "differences": [] }));
    let none = run(&["simulate", "--calls", "2", "--recording-mb", "0", "--json", "--port", port]);
    let summary: Value = serde_json::from_slice(&none.stdout).expect("JSON");
    assert_eq!((&summary["recordings"], &summary["tables"]["recordings"]), (&Value::Null, &json!(0)));
}
