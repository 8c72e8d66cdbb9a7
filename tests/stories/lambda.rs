//! The deployed binaries themselves, started as Lambda starts them: environment, Runtime API, function-URL events.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use shared::auth::vocobase;
use shared::{Instant, Provider, SessionKey, Webhook};
use tests::lambda::{RuntimeApi, environment, event, start};
use tests::platform::{Call, Instead, KEY, Platform};
use tests::{World, text};
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_receives_function_url_events_and_logs_json() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        let mut api = RuntimeApi::start().await;
        let mut function = start(webhook.name(), &environment(&world), &api.address);
        for (base64, id) in [(false, "plain"), (true, "encoded")] {
            let id = format!("{id}-{}", webhook.name());
            let body = match webhook.provider() {
                Provider::Exotel => json!({ "session_id": id, "bot_name": "नमस्ते" }),
                Provider::Vocobase => json!({ "data": { "session_id": id, "agent_name": "नमस्ते" } }),
            };
            let answer = api.invoke(event(&world, webhook, &body.to_string(), base64)).await;
            assert_eq!(answer["statusCode"], 200, "{answer}");
            assert_eq!(answer["headers"]["content-type"], "application/json");
            assert_eq!(answer["body"], r#"{"http_code":200,"response":{"data":{}}}"#);
            let session = &world.items_of("sessions", &format!("{}#{id}", webhook.provider().name())).await[0];
            assert_eq!(text(session, "bot_name"), "नमस्ते");
        }
        let mut forged = event(&world, webhook, "{}", false);
        forged["rawQueryString"] = json!("token=local.00");
        forged["headers"][vocobase::SIGNATURE] = json!("sha256=00");
        assert_eq!(api.invoke(forged).await["statusCode"], 401);
        // A path as the platform may have decoded it.
        let mut odd = event(&world, webhook, "{}", false);
        odd["rawPath"] = json!("/a b/ü%/local.00");
        odd["rawQueryString"] = json!("");
        odd["headers"][vocobase::SIGNATURE] = json!("sha256=00");
        assert_eq!(api.invoke(odd).await["statusCode"], 401);

        function.kill().await.expect("it can be killed");
        let output = function.wait_with_output().await.expect("its output");
        let lines = String::from_utf8(output.stdout).expect("text");
        let token = world.url(webhook).rsplit_once('.').map_or("no token", |(_, mac)| mac);
        for private in ["नमस्ते", token, cli::dev::DEFAULT_VOCOBASE_SECRETS, "hookswitch-local"] {
            assert!(!lines.contains(private), "the log tells {private}: {lines}");
        }
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect();
        let outcomes: Vec<&Value> =
            lines.iter().filter(|line| line["message"] == "delivery").map(|line| &line["outcome"]).collect();
        assert_eq!(outcomes, ["stored", "stored", "refused", "refused"], "{lines:?}");
        // Each delivery is counted once, and CloudWatch is told how to read that.
        let counted: Vec<&Value> = lines.iter().filter(|line| line["Deliveries"].is_number()).collect();
        let outcomes: Vec<&Value> = counted.iter().map(|line| &line["outcome"]).collect();
        assert_eq!(outcomes, ["stored", "stored", "refused", "refused"], "{lines:?}");
        for line in counted {
            assert_eq!(line["_aws"]["CloudWatchMetrics"][0]["Namespace"], "Hookswitch");
            assert_eq!([&line["stack"], &line["webhook"]], ["hookswitch", webhook.name()]);
            assert_eq!(line["Deliveries"], 1.0);
            assert!(line["HandlingTime"].as_f64().is_some_and(|ms| ms > 0.0), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_archivers_binary_sweeps_and_counts_what_became_of_each_recording() {
    let world = World::new().await;
    for (id, url) in [("elsewhere", "https://recordings.example/r.wav"), ("nowhere", "https://b.s3.invalid/r.wav")] {
        let url = format!("{url}?Expires={}", Instant::now().unix_seconds() + 3600);
        let body = json!({ "data": { "session_id": id, "recording_url": url } });
        assert_eq!(world.deliver(Webhook::SessionCompleted, body.to_string()).await.status, 200);
    }
    let mut environment = environment(&world);
    environment.insert("RECORDING_HOSTS".to_owned(), "b.s3.invalid".to_owned());
    let mut api = RuntimeApi::start().await;
    let mut function = start("recording_archiver", &environment, &api.address);
    // What EventBridge Scheduler sends where the template gives it no input of its own.
    let answer = api.invoke(json!({})).await;
    assert_eq!(answer, json!({ "batchItemFailures": [] }));
    function.kill().await.expect("it can be killed");
    let output = function.wait_with_output().await.expect("its output");
    let lines = String::from_utf8(output.stdout).expect("text");
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON lines"));
    let counted: Vec<Value> = lines.filter(|line| line["_aws"].is_object()).collect();
    let mut outcomes: Vec<&str> = counted.iter().filter_map(|line| line["outcome"].as_str()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["rejected", "waiting"], "{counted:?}");
    let oldest = counted.iter().find_map(|line| line["OldestUnfinishedRecording"].as_f64());
    assert!(oldest.is_some_and(|seconds| seconds > 0.0 && seconds < 600.0), "{counted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reconcilers_binary_counts_its_runs_and_what_it_found() {
    let (world, platform) = (World::new().await, Platform::start().await);
    let an_hour_ago = Instant::now().plus_seconds(-3600);
    for name in ["1", "2"] {
        platform.make(Call::completed(name, an_hour_ago));
    }
    for name in ["lost", "hopeless"] {
        let url = format!("https://b.s3.amazonaws.com/marker.wav?Expires={}", an_hour_ago.unix_seconds() + 600);
        let call = Call::completed(name, an_hour_ago).recorded(&url);
        assert_eq!(world.deliver(Webhook::SessionCompleted, call.webhook()).await.status, 200);
        platform.make(call);
        // As the archiver leaves it.
        let session = format!("vocobase#s-{name}");
        let shard: SessionKey = session.parse().expect("a key");
        let update = world.clients.dynamodb.update_item().table_name(&world.stores().tables["recordings"]);
        let update = update.key("session", AttributeValue::S(session));
        let update = update.update_expression("SET #state = :state, unfinished = :lost");
        let update = update.expression_attribute_names("#state", "state");
        let update = update.expression_attribute_values(":state", AttributeValue::S("expired".to_owned()));
        let lost = AttributeValue::S(format!("lost#{}", shard.shard(4)));
        update.expression_attribute_values(":lost", lost).send().await.expect("an update");
    }
    platform.mint(|call_id, _| (call_id == "c-lost").then(|| "https://b.s3.amazonaws.com/marker-new.wav".to_owned()));

    let mut environment = environment(&world);
    environment.insert("VOCOBASE_API_URL".to_owned(), platform.url.clone());
    let runs = async |environment: &BTreeMap<String, String>, scripts: &[Option<Instead>]| {
        let mut api = RuntimeApi::start().await;
        let mut function = start("reconciler", environment, &api.address);
        for instead in scripts {
            let instead = instead.clone();
            platform.script(move |_, _| instead.clone());
            assert_eq!(api.invoke(json!({})).await, Value::Null);
        }
        function.kill().await.expect("it can be killed");
        let output = function.wait_with_output().await.expect("its output");
        let lines = String::from_utf8(output.stdout).expect("text");
        for private in [KEY, "marker", "://"] {
            assert!(!lines.contains(private), "the log tells {private}: {lines}");
        }
        lines.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect::<Vec<Value>>()
    };
    let counted = |lines: &[Value]| {
        let counted = lines.iter().filter(|line| line["_aws"].is_object()).map(|line| {
            assert_eq!(line["stack"], "hookswitch");
            let count = |name| Some((name, line[name].as_f64()?));
            let (name, count) = ["ReconcilerRuns", "Reconciled"].into_iter().find_map(count).expect("a count");
            format!("{name} {} {count}", line["outcome"].as_str().unwrap_or_default())
        });
        counted.collect::<Vec<String>>()
    };
    let told = |lines: &[Value]| {
        let told = lines.iter().filter(|line| line["target"] == "reconciler" && !line["outcome"].is_null());
        told.map(|line| format!("{} {}", line["level"].as_str().unwrap_or_default(), line["outcome"]))
            .collect::<Vec<_>>()
    };

    assert_eq!(counted(&runs(&environment, &[None]).await), ["ReconcilerRuns off 1"], "there is no key");
    environment.insert("VOCOBASE_API_KEY".to_owned(), KEY.to_owned());
    let lines = runs(&environment, &[None, None, Some(Instead::Busy(429, "3600")), Some(Instead::Status(401))]).await;
    let expected = [
        "ReconcilerRuns complete 1",
        "Reconciled recovered 2",
        "Reconciled url_renewed 1",
        "Reconciled not_recovered 1",
        "ReconcilerRuns complete 1",
        "Reconciled not_recovered 1",
        "ReconcilerRuns cut_short 1",
        "ReconcilerRuns failed 1",
    ];
    assert_eq!(counted(&lines), expected, "{lines:?}");
    let expected = [r#"INFO "complete""#, r#"INFO "complete""#, r#"INFO "cut_short""#, r#"ERROR "failed""#];
    assert_eq!(told(&lines), expected, "{lines:?}");
    assert_eq!(world.items("sessions").await.len(), 4);

    environment.insert("VOCOBASE_API_URL".to_owned(), "http://marker.example/".to_owned());
    let api = RuntimeApi::start().await;
    let mut command = Command::new(tests::function("reconciler"));
    command.env_clear().envs(environment).env("AWS_LAMBDA_RUNTIME_API", &api.address);
    let output = command.output().await.expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("VOCOBASE_API_URL"), "{output:?}");
    assert!(!said.contains("marker"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binary_without_its_configuration_says_what_is_missing() {
    let world = World::new().await;
    let api = RuntimeApi::start().await;
    for (missing, webhook) in [
        ("EXOTEL_TOKEN_SECRETS", Webhook::SessionStart),
        ("VOCOBASE_SECRETS", Webhook::SessionCompleted),
        ("EVENTS_TABLE", Webhook::SessionEnd),
    ] {
        let mut environment = environment(&world);
        environment.remove(missing);
        let mut command = Command::new(tests::function(webhook.name()));
        command.env_clear().envs(environment).env("AWS_LAMBDA_RUNTIME_API", &api.address);
        let output = command.output().await.expect("it runs");
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(missing), "{output:?}");
    }
}
