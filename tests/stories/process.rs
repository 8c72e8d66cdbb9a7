//! The local run as a process: killed, stopped, and refused what it cannot start with.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::{Duration, Instant as Stopwatch};

use cli::endpoints::Endpoints;
use cli::simulate::calls::{Planned, plan};
use cli::simulate::check::{check, read};
use futures_util::{StreamExt, stream};
use shared::Instant;
use shared::storage::{event_key, item_to_call};
use tests::{LocalProcess, hookswitch, items, text};

/// Delivers everything, 8 at a time, calling `after` with how many were answered 2xx; gives back those.
async fn load(endpoints: &Endpoints, deliveries: &[Planned], after: impl Fn(usize)) -> Vec<Planned> {
    let http = tests::http_client();
    let acknowledged = Mutex::new(Vec::new());
    stream::iter(deliveries)
        .for_each_concurrent(8, async |delivery| {
            if tests::post(&http, endpoints, delivery).await {
                let count = {
                    let mut acknowledged = acknowledged.lock().expect("no panic while it is held");
                    acknowledged.push(delivery.clone());
                    acknowledged.len()
                };
                after(count);
            }
        })
        .await;
    acknowledged.into_inner().expect("no panic while it was held")
}

/// Everything that these deliveries said is in the tables, whatever else is.
async fn assert_kept(endpoints: &Endpoints, deliveries: &[Planned]) {
    let stores = endpoints.stores.as_ref().expect("a local run has stores");
    let clients = stores.connect().expect("clients");
    let mut tables = BTreeMap::new();
    for table in ["events", "sessions", "transcripts", "recordings"] {
        tables.insert(table, items(&clients, stores, table).await);
    }
    for planned in deliveries {
        let delivery = read(planned).expect("a delivery");
        let key = delivery.call.key.as_str();
        let find = |table: &str, sort: &str, value: &str| {
            tables[table]
                .iter()
                .find(|item| text(item, "session") == key && (sort.is_empty() || text(item, sort) == value))
        };
        let event = event_key(planned.webhook, delivery.occurred_at, &tests::sha256(&planned.body));
        assert!(find("events", "event", &event).is_some(), "{key} lacks the event {event}");
        let call = find("sessions", "", "").and_then(|item| item_to_call(&delivery.call.key, item)).expect("a call");
        assert_eq!(call.clone().join(&delivery.call), call, "{key} lacks what a delivery said");
        for turn in &delivery.turns {
            let found = find("transcripts", "turn", &turn.key).expect("the turn");
            assert!(text(found, "rank") >= turn.rank.as_str(), "{key} has an older turn");
        }
        if let Some(wanted) = &delivery.recording {
            assert_eq!(text(find("recordings", "", "").expect("the job"), "wanted"), wanted.rank());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_2xx_survives_kill_9_in_the_middle_of_a_load() {
    let folder = tempfile::tempdir().expect("a folder");
    let deliveries: Vec<Planned> = plan(7, 60, Instant::now(), &|_| None).into_iter().flatten().collect();
    let process = LocalProcess::start(&["--data", folder.path().to_str().expect("a plain path")]).await;
    let kill_at = deliveries.len() / 2;
    let acknowledged = load(&process.endpoints, &deliveries, |count| {
        if count == kill_at {
            process.signal("KILL");
        }
    })
    .await;
    assert!(
        (kill_at..deliveries.len()).contains(&acknowledged.len()),
        "it was killed in the middle: {}",
        acknowledged.len()
    );
    drop(process);

    let process = LocalProcess::start(&["--data", folder.path().to_str().expect("a plain path")]).await;
    assert_kept(&process.endpoints, &acknowledged).await;
    // And the platforms' retries complete what was cut off.
    assert_eq!(load(&process.endpoints, &deliveries, |_| ()).await.len(), deliveries.len());
    let stores = process.endpoints.stores.as_ref().expect("stores");
    let checked = check(&deliveries, &stores.open().expect("clients"), || ()).await.expect("a check");
    assert_eq!(checked.differences, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_has_begun_and_loses_nothing() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["--data", folder.path().to_str().expect("a plain path")];
        let deliveries: Vec<Planned> = plan(8, 40, Instant::now(), &|_| None).into_iter().flatten().collect();
        let mut process = LocalProcess::start(&arguments).await;
        let stop_at = deliveries.len() / 2;
        let acknowledged = load(&process.endpoints, &deliveries, |count| {
            if count == stop_at {
                process.signal(signal);
            }
        })
        .await;
        assert_eq!(process.ended().await.code(), Some(0), "SIG{signal} ends it well");
        let process = LocalProcess::start(&arguments).await;
        assert_kept(&process.endpoints, &acknowledged).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_within_3_seconds_of_the_binary_starting() {
    hookswitch();
    let started = Stopwatch::now();
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let health = tests::answer(tests::http_client().get(format!("{}/health", process.base))).await;
    // A promise of seconds, kept in a fraction of one: not a timing of this machine.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!((health.status, health.json), (200, serde_json::json!({ "status": "ok" })));
}

fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(hookswitch());
    command.arg("dev").args(arguments).envs(environment.iter().copied());
    let Output { status, stderr, .. } = command.output().expect("the binary runs");
    assert!(!status.success(), "{arguments:?} {environment:?}");
    let text = String::from_utf8(stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "one clear line: {text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_cannot_start_with_is_one_clear_line_and_a_failing_exit() {
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = occupied.local_addr().expect("an address").port().to_string();
    assert!(refused(&["--ephemeral", "--port", &port], &[]).contains(&format!("port {port} is in use")));

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "not a folder").expect("a file");
    let below_a_file = file.join("data");
    assert!(
        refused(&["--port", "0", "--data", below_a_file.to_str().expect("plain")], &[]).contains("cannot be written")
    );

    let process = LocalProcess::start(&["--data", folder.path().to_str().expect("plain")]).await;
    assert!(
        refused(&["--port", "0", "--data", folder.path().to_str().expect("plain")], &[])
            .contains("in use by another run")
    );
    drop(process);

    for (name, value) in [
        ("DEADLINE_MS", "soon"),
        ("EXOTEL_TOKEN_SECRETS", "k1:a,no-colon"),
        ("VOCOBASE_SECRETS", "a,,b"),
        ("TIMESTAMP_TOLERANCE_SECONDS", "-1"),
        ("RETENTION_DAYS", "never"),
        ("LOG_LEVEL", "loud"),
    ] {
        assert!(refused(&["--ephemeral", "--port", "0"], &[(name, value)]).contains(name), "{name}");
    }
    assert!(refused(&["--ephemeral", "--port", "65535"], &[]).contains("65535"));
}

#[tokio::test(flavor = "multi_thread")]
async fn simulate_plays_whole_calls_and_finds_exactly_what_it_sent() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').expect("a port").1.to_owned();
    let run = |arguments: &[&str]| {
        Command::new(hookswitch())
            .arg("simulate")
            .args(["--port", &port, "--json"])
            .args(arguments)
            .output()
            .expect("it runs")
    };
    let output = run(&["--calls", "30", "--seed", "5", "--shuffle", "--duplicate", "0.5"]);
    assert!(output.status.success(), "{output:?}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&summary["seed"], &summary["calls"]), (&5.into(), &30.into()));
    assert_eq!(summary["statuses"]["200"], summary["deliveries"]);
    assert_eq!(
        (&summary["tables"]["sessions"], &summary["tables"]["differences"]),
        (&30.into(), &serde_json::json!([]))
    );
    assert!(summary["tables"]["events"].as_u64() < summary["deliveries"].as_u64(), "repetitions are one event");

    // A difference is found, named and fails.
    let endpoints = tests::answer(tests::http_client().get(format!("{}/endpoints", process.base))).await.json;
    let mut wrong = endpoints.clone();
    wrong["tables"]["transcripts"] = endpoints["tables"]["events"].clone();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), wrong.to_string()).expect("written");
    let arguments = ["simulate", "--endpoints", file.path().to_str().expect("plain"), "--calls", "2"];
    let output = Command::new(hookswitch()).args(arguments).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("transcripts has something else than was sent"),
        "{output:?}"
    );
}
