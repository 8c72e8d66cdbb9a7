//! What the local run promises beside its functions.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::presigning::PresigningConfig;
use serde_json::json;
use shared::Webhook;
use tests::{LocalProcess, World, hookswitch};
use tokio::io::AsyncReadExt;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn no_page_in_a_browser_can_read_or_write_the_local_database() {
    let world = World::new().await;
    world.deliver(Webhook::SessionEnd, json!({ "session_id": "s1", "contact_uri": "+919876543210" }).to_string()).await;
    let url = world.stores().dynamodb.clone();
    let scan = || {
        let body = json!({ "TableName": "hookswitch-sessions" }).to_string();
        world.http.post(&url).header("x-amz-target", "DynamoDB_20120810.Scan").body(body)
    };
    let signed = "AWS4-HMAC-SHA256 Credential=hookswitch/20261122/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00";
    let scan = || scan().header("authorization", signed).header("x-amz-date", "20261122T000000Z");
    for (name, value) in [("origin", "http://evil.example"), ("host", "evil.example"), ("host", "evil.example:9001")] {
        let answer = scan().header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{name}: {value}");
        assert_eq!(answer.headers().get("access-control-allow-origin"), None);
        assert!(!answer.text().await.unwrap().contains("919876543210"));
    }
    let preflight = world.http.request(reqwest::Method::OPTIONS, &url).header("origin", "http://evil.example");
    assert_eq!(preflight.send().await.unwrap().status(), 403);
    // What asks in its own name is answered: the SDK does so all the time.
    assert_eq!(world.items("sessions").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_in_a_browser_can_read_or_write_the_local_bucket() {
    let world = World::new().await;
    let (bucket, url) = (&world.stores().bucket, world.stores().s3.clone());
    let put =
        world.clients.s3.put_object().bucket(bucket).key("recordings/r.wav").body(b"what was said".to_vec().into());
    put.send().await.unwrap();
    // Everybody knows the local run's keys, so that a page can sign for whatever name it has led here.
    let port = url.rsplit_once(':').unwrap().1;
    let as_named = |name: &str| {
        let config = world.clients.s3.config().to_builder().endpoint_url(format!("http://{name}:{port}"));
        aws_sdk_s3::Client::from_conf(config.force_path_style(true).build())
    };
    let an_hour = || PresigningConfig::expires_in(Duration::from_hours(1)).unwrap();
    let address = url.trim_start_matches("http://").parse().unwrap();
    let led_here = reqwest::Client::builder().no_proxy().resolve("evil.example", address).build().unwrap();
    for (name, origin, expected) in [
        ("127.0.0.1", None, 200),
        ("127.0.0.1", Some("http://evil.example"), 403),
        ("evil.example", None, 403),
        ("evil.example", Some("http://evil.example"), 403),
    ] {
        let s3 = as_named(name);
        let read = s3.get_object().bucket(bucket).key("recordings/r.wav").presigned(an_hour()).await.unwrap();
        let write = s3.put_object().bucket(bucket).key("recordings/planted.wav").presigned(an_hour()).await.unwrap();
        let send = async |request: reqwest::RequestBuilder| {
            let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.headers().get("access-control-allow-origin"), None);
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, body) = send(led_here.get(read.uri())).await;
        assert_eq!((status, body.contains("what was said")), (expected, expected == 200), "{name} {origin:?}");
        assert_eq!(send(led_here.put(write.uri()).body("planted")).await.0, expected, "{name} {origin:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_every_url_and_the_secrets_that_are_its_defaults() {
    let mut process = Command::new(hookswitch())
        .args(["dev", "--port", "0", "--ephemeral"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut printed = String::new();
    let mut stdout = process.stdout.take().unwrap();
    while !printed.contains("Ctrl-C stops.") {
        let mut bytes = [0; 4096];
        let length = tokio::time::timeout(Duration::from_secs(10), stdout.read(&mut bytes)).await.unwrap().unwrap();
        assert!(length > 0, "it ended: {printed}");
        printed.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
    for webhook in Webhook::ALL {
        assert!(printed.contains(&format!("/{}/", webhook.name())), "{printed}");
    }
    assert_eq!(printed.matches("/?token=local.").count(), 5, "{printed}");
    assert!(printed.contains(cli::dev::DEFAULT_VOCOBASE_SECRETS), "{printed}");
    assert!(printed.contains(cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_sends_no_faster_than_its_rate() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = process.base.rsplit_once(':').unwrap().1.to_owned();
    let began = std::time::Instant::now();
    let arguments =
        ["simulate", "--calls", "2", "--seed", "1", "--rate", "20", "--recording-mb", "0", "--json", "--port", &port];
    let output = Command::new(hookswitch()).args(arguments).output().await.unwrap();
    assert!(output.status.success());
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // The first is sent at once. Slower is always possible; faster is what must not be.
    let deliveries = summary["deliveries"].as_u64().unwrap();
    assert!(began.elapsed() >= Duration::from_millis(50 * (deliveries - 1)), "{deliveries} in {:?}", began.elapsed());
    let latency = &summary["latency_ms"];
    let [p50, p90, p99] = ["p50", "p90", "p99"].map(|name| latency[name].as_f64().unwrap());
    assert!(0.0 < p50 && p50 <= p90 && p90 <= p99, "{latency}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoints_file_that_is_half_there_is_refused_and_not_half_believed() {
    let world = World::new().await;
    let whole = serde_json::to_value(world.endpoints()).unwrap();
    for missing in ["bucket", "s3", "tables"] {
        let mut half = whole.clone();
        half.as_object_mut().unwrap().remove(missing);
        let error = cli::target::read("staging.json", &half.to_string()).err().expect(missing).to_string();
        assert!(error.contains("staging.json has dynamodb, and so must have"), "{error}");
    }
    let deployed = json!({ "session_end": "https://abc.lambda-url.us-east-1.on.aws/?token=t", "vocobase_secret": "w" });
    assert!(cli::target::read("deployed.json", &deployed.to_string()).unwrap().stores.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn constants_that_are_no_map_are_not_sent() {
    let world = World::new().await;
    for constants in
        [AttributeValue::Null(true), AttributeValue::S("gold".to_owned()), AttributeValue::N("1".to_owned())]
    {
        let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["profiles"]);
        let put = put.item("profile", AttributeValue::S("default".to_owned())).item("session_constants", constants);
        put.send().await.unwrap();
        let answer = world.deliver(Webhook::SessionStart, r#"{"session_id":"s1"}"#).await;
        assert_eq!(answer.json, json!({ "http_code": 200, "response": { "data": {} } }));
    }
}
