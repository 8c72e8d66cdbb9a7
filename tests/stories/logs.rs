//! What the log says of a day's deliveries, and what it never says: read from the real binary's standard error at the
//! most talkative level that is not `trace`.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::process::Stdio;

use aws_sdk_dynamodb::types::AttributeValue;
use cli::endpoints::Endpoints;
use serde_json::json;
use shared::auth::exotel::Tokens;
use shared::auth::{Secret, vocobase};
use shared::{Instant, Provider, Webhook};
use tests::{answer, hookswitch, http_client, text};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const VOCOBASE_SECRET: &str = "whsec_marker-vocobase-secret";
const EXOTEL_SECRET: &str = "marker-exotel-secret";

/// Private things, each of which is in some delivery below.
const SAID: &str = "marker-said I owe my sister money";
const PHONE: &str = "+919876500001";
const LANDING: &str = "+918047000002";
const PARAMETER: &str = "marker-parameter";
const NAME: &str = "marker-name";
const RECORDING: &str = "https://marker-bucket.s3.amazonaws.com/marker-recording.wav?X-Amz-Signature=marker-signature";
const PRESENTED: &str = "marker-presented-token";
const PATH: &str = "marker-path";
const GREETING: &str = "marker-greeting";

/// A delivery and what its line in the log must say.
struct Sent {
    webhook: Webhook,
    /// After the function's name in the URL; `None` for the right token.
    rest: Option<String>,
    body: String,
    /// Instead of the right signature.
    signature: Option<String>,
    status: u16,
    outcome: &'static str,
}

fn sent(webhook: Webhook, body: impl Display, status: u16, outcome: &'static str) -> Sent {
    Sent { webhook, rest: None, body: body.to_string(), signature: None, status, outcome }
}

fn tokens() -> Tokens {
    Tokens { secrets: vec![("k1".to_owned(), Secret::new(EXOTEL_SECRET))], session_tokens_only: false }
}

fn turn(words: &str) -> serde_json::Value {
    let segment = json!({ "speaker": "user", "text": words, "start_timestamp": "2025-10-31T21:27:44.330756Z" });
    let data = json!({ "transcripts": [{ "sequence": 1, "transcript_segments": [segment] }] });
    json!({ "event_type": "transcript", "event_data": data })
}

/// Deliveries of every kind: stored, repeated, superseded, refused and unusable in many ways.
fn deliveries() -> Vec<Sent> {
    let start = json!({
        "session_id": "s1", "bot_id": "b1", "bot_name": NAME, "contact_uri": PHONE, "landing_number": LANDING,
        "start_time": "2025-10-31T21:27:40Z", "custom_parameters": { "who": PARAMETER },
    });
    let insight =
        json!({ "event_type": "summary", "event_data": { "value": SAID, "timestamp": "2025-10-31T21:28:00Z" } });
    let transcript = json!([{ "role": "user", "content": SAID, "timestamp": "2026-03-15T14:30:01Z" }]);
    let call = json!({ "from_number": LANDING, "to_number": PHONE, "direction": "outbound" });
    let completed = json!({ "event": "session.completed", "timestamp": "2026-03-15T14:32:08Z", "data": {
        "session_id": "v1", "agent_name": NAME, "variables": { "who": PARAMETER }, "transcript": transcript,
        "recording_url": RECORDING, "call": call,
    } });
    let session_token = tokens().session_token(Webhook::SessionEnd, "s1").unwrap_or_default();
    let long = format!("{PARAMETER}{}", "x".repeat(3000));
    vec![
        sent(Webhook::SessionStart, &start, 200, "stored"),
        sent(Webhook::SessionStart, &start, 200, "duplicate"),
        sent(Webhook::TranscriptEvents, json!({ "session_id": "s1", "events": [turn(SAID)] }), 200, "stored"),
        sent(Webhook::InsightsEvents, json!({ "session_id": "s1", "events": [insight] }), 200, "stored"),
        sent(Webhook::InsightsEvents, json!({ "session_id": "s1", "events": [] }), 200, "superseded"),
        sent(Webhook::PreAgentTransfer, &start, 200, "stored"),
        Sent {
            rest: Some(format!("?session=s1&token={session_token}")),
            ..sent(Webhook::SessionEnd, json!({ "session_id": "s1", "contact_uri": PHONE }), 200, "stored")
        },
        Sent {
            rest: Some(format!("s1/{session_token}")),
            ..sent(Webhook::SessionEnd, json!({ "session_id": "s2", "contact_uri": PHONE }), 401, "refused")
        },
        Sent { rest: Some(format!("?token={PRESENTED}")), ..sent(Webhook::SessionEnd, &start, 401, "refused") },
        Sent { rest: Some(format!("{PATH}/k9.{PRESENTED}")), ..sent(Webhook::SessionStart, SAID, 401, "refused") },
        sent(Webhook::SessionCompleted, &completed, 200, "stored"),
        Sent { signature: Some(PRESENTED.to_owned()), ..sent(Webhook::SessionCompleted, &completed, 401, "refused") },
        sent(Webhook::SessionEnd, SAID, 200, "quarantined"),
        sent(Webhook::SessionStart, json!(SAID), 200, "quarantined"),
        sent(Webhook::TranscriptEvents, json!({ "session_id": "s1", "events": SAID }), 200, "quarantined"),
        sent(Webhook::TranscriptEvents, json!({ "contact_uri": PHONE, "events": [turn(SAID)] }), 200, "quarantined"),
        sent(
            Webhook::SessionCompleted,
            json!({ "data": { "call": PHONE, "recording_url": RECORDING } }),
            200,
            "quarantined",
        ),
        sent(Webhook::SessionCompleted, json!({ "data": { "session_id": long } }), 200, "quarantined"),
        // The store refuses a key that is too long, in words of its own.
        sent(
            Webhook::TranscriptEvents,
            json!({ "session_id": "s3", "bot_id": long, "contact_uri": PHONE, "events": [turn(SAID)] }),
            200,
            "quarantined",
        ),
        sent(Webhook::SessionStart, json!({ "session_id": "s4", "bot_name": NAME.repeat(50_000) }), 200, "quarantined"),
    ]
}

async fn deliver(http: &reqwest::Client, base: &str, endpoints: &Endpoints, sent: &Sent) -> u16 {
    let url = match &sent.rest {
        Some(rest) => format!("{base}/{}/{rest}", sent.webhook.name()),
        None => endpoints.functions[sent.webhook.name()].clone(),
    };
    let mut request = http.post(url).body(sent.body.clone());
    if sent.webhook.provider() == Provider::Vocobase {
        let timestamp = Instant::now().to_string();
        let right = vocobase::sign(&Secret::new(VOCOBASE_SECRET), &timestamp, sent.body.as_bytes());
        let signature = sent.signature.clone().unwrap_or(right);
        request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
    }
    answer(request).await.status
}

/// A profile with members that cannot be read, which the log is to say without saying what they are.
fn profile() -> HashMap<String, AttributeValue> {
    let s = |text: &str| AttributeValue::S(text.to_owned());
    HashMap::from([
        ("profile".to_owned(), s(&format!("number#{LANDING}"))),
        ("greeting".to_owned(), AttributeValue::L(vec![s(GREETING)])),
        ("webhooks".to_owned(), s(RECORDING)),
        ("transfer_message".to_owned(), s(GREETING)),
    ])
}

/// The value of a field in a line of the log, without its quotes.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let Some((_, after)) = line.split_once(&format!(" {name}=")) else { panic!("no {name} in {line}") };
    after.split(' ').next().unwrap_or_default().trim_matches('"')
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_a_line_for_every_delivery_and_nothing_private_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut child = Command::new(hookswitch())
        .args(["dev", "--port", "0", "--ephemeral"])
        .env("LOG_LEVEL", "debug")
        .env("VOCOBASE_SECRETS", VOCOBASE_SECRET)
        .env("EXOTEL_TOKEN_SECRETS", format!("k1:{EXOTEL_SECRET}"))
        .stdout(Stdio::piped())
        .stderr(File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut banner = BufReader::new(child.stdout.take().unwrap()).lines();
    let base = loop {
        let line = banner.next_line().await.unwrap().expect("it says that it is up");
        if let Some((before, _)) = line.split_once("/endpoints says") {
            break before.rsplit_once(' ').unwrap().1.to_owned();
        }
    };
    let http = http_client();
    let found = answer(http.get(format!("{base}/endpoints"))).await.json;
    let endpoints: Endpoints = serde_json::from_value(found).unwrap();
    let stores = endpoints.stores.as_ref().unwrap();
    let clients = stores.connect().unwrap();
    let put = clients.dynamodb.put_item().table_name(&stores.tables["profiles"]).set_item(Some(profile()));
    put.send().await.unwrap();

    let deliveries = deliveries();
    for sent in &deliveries {
        let status = deliver(&http, &base, &endpoints, sent).await;
        assert_eq!(status, sent.status, "{}: {:.200}", sent.webhook.name(), sent.body);
    }
    // Requests that reach no function.
    assert_eq!(answer(http.post(format!("{base}/{PATH}?token={PRESENTED}")).body(SAID)).await.status, 404);
    let elsewhere = http.get(format!("{base}/endpoints")).header(http::header::HOST, format!("{PATH}.example"));
    assert_eq!(answer(elsewhere).await.status, 403);

    // What the markers stand for did arrive.
    let calls = tests::items(&clients, stores, "sessions").await;
    assert!(calls.iter().any(|call| call.contains_key("contact") && text(call, "contact") == PHONE));
    assert_eq!(text(&tests::items(&clients, stores, "recordings").await[0], "source_url"), RECORDING);

    let killed = Command::new("kill").arg("-TERM").arg(child.id().unwrap().to_string()).status().await.unwrap();
    assert!(killed.success());
    assert!(child.wait().await.unwrap().success(), "it ends well");

    let log = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<(&str, &str, &str)> = log
        .lines()
        .filter(|line| line.contains(" delivery ") && line.contains(" elapsed_ms="))
        .map(|line| (field(line, "webhook"), field(line, "status"), field(line, "outcome")))
        .collect();
    let statuses: Vec<String> = deliveries.iter().map(|sent| sent.status.to_string()).collect();
    let expected: Vec<(&str, &str, &str)> = deliveries
        .iter()
        .zip(&statuses)
        .map(|(sent, status)| (sent.webhook.name(), status.as_str(), sent.outcome))
        .collect();
    assert_eq!(lines, expected, "{log}");
    assert!(log.contains("an answer is not what its profile asks for"), "{log}");

    let mut private = vec![
        SAID,
        PHONE,
        LANDING,
        PARAMETER,
        NAME,
        RECORDING,
        PRESENTED,
        PATH,
        GREETING,
        VOCOBASE_SECRET,
        EXOTEL_SECRET,
        "marker",
        "sister",
        "9876500001",
        "8047000002",
        "X-Amz-Signature",
        "sha256=",
        "token=",
        &stores.secret_access_key,
    ];
    let minted: Vec<String> = Webhook::ALL
        .into_iter()
        .flat_map(|webhook| [tokens().function_token(webhook), tokens().session_token(webhook, "s1")])
        .flatten()
        .map(|token| token.trim_start_matches("k1.").to_owned())
        .collect();
    private.extend(minted.iter().map(String::as_str));
    for private in private {
        assert!(!log.to_lowercase().contains(&private.to_lowercase()), "the log says {private}:\n{log}");
    }
}
