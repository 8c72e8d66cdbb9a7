//! What every function answers: each row of the contract, whole envelopes compared, over HTTP; faults of the stores are
//! made between the SDK and the stores.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use http::header;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use shared::auth::exotel::Tokens;
use shared::auth::vocobase;
use shared::storage::{Clients, item_to_segments};
use shared::{Instant, Provider, Webhook};
use tests::faults::{Fault, Place, When};
use tests::{Answer, EXOTEL, World, text};

const TABLES: [&str; 4] = ["events", "sessions", "transcripts", "recordings"];
const EXOTEL_DOCUMENTED: &str = include_str!("../fixtures/exotel_documented.json");
const VOCOBASE_DOCUMENTED: &str = include_str!("../fixtures/vocobase_documented.json");
const VOCOBASE_NEWER: &str = include_str!("../fixtures/vocobase_newer.json");

/// Everything that a profile can say.
fn full_profile() -> Value {
    json!({
        "greeting": "Namaste! \u{1f64f}",
        "session_constants": { "tier": "gold", "limit": 2.50, "tags": ["a", null, true], "nested": {} },
        "conversation_assistant_id": "a1",
        "webhooks": {
            "session_start": {},
            "session_end": {},
            "transcript_events": { "url": "https://crm.example/t?x=1" },
            "insights_events": { "trigger_type": "timer", "trigger_interval_sec": 30 },
        },
        "transfer_message": "Connecting you to a colleague.",
    })
}

/// A delivery that the webhook can take, of the call `s1`.
fn delivery(webhook: Webhook) -> &'static str {
    match webhook.provider() {
        Provider::Exotel => r#"{"session_id":"s1","bot_id":"b1","start_time":"2025-07-16T11:40:57Z"}"#,
        Provider::Vocobase => r#"{"event":"session.completed","data":{"session_id":"s1"}}"#,
    }
}

/// A delivery as the platform would send it, but to `url`.
fn delivery_to(world: &World, webhook: Webhook, url: &str, body: &str) -> RequestBuilder {
    let request = world.http.post(url);
    let request = match webhook.provider() {
        Provider::Exotel => request,
        Provider::Vocobase => {
            let (timestamp, signature) = world.sign(body.as_bytes(), Instant::now());
            request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature)
        }
    };
    request.body(body.to_owned())
}

/// Sends a request whose answer must be JSON and say so.
async fn send(request: RequestBuilder) -> Answer {
    let Ok(response) = request.send().await else { panic!("no answer") };
    let status = response.status().as_u16();
    assert_eq!(
        response.headers().get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes),
        Some(&b"application/json"[..])
    );
    let body = response.bytes().await.unwrap_or_default();
    let Ok(json) = serde_json::from_slice(&body) else { panic!("the answer is not JSON: {body:?}") };
    Answer { status, json }
}

/// The whole answer that carries `data`.
pub fn success(data: &Value) -> Answer {
    Answer { status: 200, json: json!({ "http_code": 200, "response": { "data": data } }) }
}

/// The answer is the platform's error envelope, with words in it and with nothing else.
#[track_caller]
fn assert_error(answer: &Answer, status: u16, what: &str) {
    let words = ["error_code", "message", "description"].map(|name| {
        let word = answer.json["response"]["error_data"][name].as_str().unwrap_or_default();
        assert!(!word.trim().is_empty(), "{what}: {name} of {answer:?}");
        word
    });
    let error_data = json!({ "error_code": words[0], "message": words[1], "description": words[2] });
    let envelope = json!({ "http_code": status, "response": { "data": null, "error_data": error_data } });
    assert_eq!(*answer, Answer { status, json: envelope }, "{what}");
}

async fn assert_nothing_is_stored(world: &World) {
    for table in TABLES {
        assert_eq!(world.items(table).await, [], "{table}");
    }
}

/// Puts an item into the `profiles` table, its members as native attributes.
pub async fn put_profile(world: &World, name: &str, members: &Value) {
    let mut item = HashMap::from([("profile".to_owned(), AttributeValue::S(name.to_owned()))]);
    let AttributeValue::M(members) = native(members) else { panic!("a profile is an object") };
    item.extend(members);
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["profiles"]).set_item(Some(item));
    assert!(put.send().await.is_ok(), "the profile is put");
}

fn native(value: &Value) -> AttributeValue {
    match value {
        Value::Null => AttributeValue::Null(true),
        Value::Bool(flag) => AttributeValue::Bool(*flag),
        Value::Number(number) => AttributeValue::N(number.to_string()),
        Value::String(text) => AttributeValue::S(text.clone()),
        Value::Array(list) => AttributeValue::L(list.iter().map(native).collect()),
        Value::Object(map) => {
            AttributeValue::M(map.iter().map(|(name, value)| (name.clone(), native(value))).collect())
        }
    }
}

/// What signs the tokens of a world with defaults.
fn tokens() -> Tokens {
    let lookup =
        |name: &str| (name == "EXOTEL_TOKEN_SECRETS").then(|| cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS.to_owned());
    let Ok(tokens) = shared::config::tokens(&lookup) else { panic!("the defaults are tokens") };
    tokens
}

/// This bundle's own URL for one session.
fn own_url(world: &World, webhook: Webhook, session_id: &str) -> String {
    let base = format!("{}/{}/", world.run.base, webhook.name());
    tokens().session_url(&base, webhook, session_id).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_without_its_own_credential_is_answered_401() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        let bare = format!("{}/{}/", world.run.base, webhook.name());
        let wrong = format!("{bare}?token=local.{}", "0".repeat(64));
        let mut requests = vec![
            ("nothing", world.http.post(&bare)),
            ("a wrong token", world.http.post(&wrong)),
            ("a wrong signature", {
                let (timestamp, _) = world.sign(b"", Instant::now());
                let signature = format!("sha256={}", "0".repeat(64));
                world.http.post(&bare).header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature)
            }),
        ];
        if webhook.provider() == Provider::Exotel {
            requests.push(("the token of another session", world.http.post(own_url(&world, webhook, "s2"))));
        }
        for (what, request) in requests {
            let answer = send(request.body(delivery(webhook))).await;
            assert_error(&answer, 401, &format!("{what} for {}", webhook.name()));
        }
    }
    assert_nothing_is_stored(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_method_than_post_is_answered_405() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let url = world.url(webhook).parse().unwrap();
            let mut request = delivery_to(&world, webhook, world.url(webhook), delivery(webhook)).build().unwrap();
            *request.method_mut() = method.parse().unwrap();
            *request.url_mut() = url;
            let response = world.http.execute(request.try_clone().unwrap()).await.unwrap();
            assert_eq!(response.headers()[header::ALLOW], "POST");
            let answer = send(RequestBuilder::from_parts(world.http.clone(), request)).await;
            assert_error(&answer, 405, &format!("{method} {}", webhook.name()));
        }
    }
    assert_nothing_is_stored(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_verified_but_cannot_be_used_is_answered_200_and_kept_verbatim() {
    let exotel = [
        "",
        "not JSON",
        r#"{"session_id":"s1""#,
        "null",
        r#"{"session_id":"s1","events":"none"}"#,
        r#"{"session_id":"s1","events":[7]}"#,
        r#"{"bot_id":"b1"}"#,
        r#"{"session_id":""}"#,
        r#"{"session_id":null}"#,
        r#"{"session_id":{"id":"s1"}}"#,
    ];
    let vocobase = [
        "",
        "not JSON",
        r#"{"data":{"session_id":"s1""#,
        "null",
        r#"{"event":"session.completed"}"#,
        r#"{"data":"s1"}"#,
        r#"{"data":{"session_id":"s1","transcript":"hello"}}"#,
        r#"{"data":{"agent_id":"a1"}}"#,
        r#"{"data":{"session_id":""}}"#,
        r#"{"data":{"session_id":["s1"]}}"#,
    ];
    for webhook in Webhook::ALL {
        let (world, name) = (World::new().await, webhook.name());
        put_profile(&world, "default", &full_profile()).await;
        let reply = match webhook {
            // Without a session there is no URL of this bundle's own to hand out.
            Webhook::SessionStart => json!({
                "greeting_message": { "text": "Namaste! \u{1f64f}" },
                "session_constants": { "tier": "gold", "limit": 2.5, "tags": ["a", null, true], "nested": {} },
                "conversation_assistant_id": "a1",
                "webhook_config": { "transcript_events": { "url": "https://crm.example/t?x=1" } },
            }),
            Webhook::PreAgentTransfer => {
                json!({ "agent_transfer_message": { "text": "Connecting you to a colleague." } })
            }
            _ => json!({}),
        };
        for body in if webhook.provider() == Provider::Exotel { exotel } else { vocobase } {
            let answer = send(delivery_to(&world, webhook, world.url(webhook), body)).await;
            assert_eq!(answer, success(&reply), "{name}: {body}");
            let quarantined = world.quarantined().await;
            let [item] = quarantined.as_slice() else { panic!("{name}: {body} gives {quarantined:?}") };
            assert_eq!(world.body(item).await, body.as_bytes());
            assert_eq!(text(item, "webhook"), name);
            assert!(!text(item, "reason").is_empty());
            let (day, shard) = text(item, "session").rsplit_once('#').unwrap();
            assert_eq!(day, format!("quarantine#{}", &text(item, "received_at")[..10]));
            assert!(shard.parse::<u8>().is_ok(), "{shard}");
            // The same once more is the same item.
            assert_eq!(world.deliver(webhook, body).await, success(&reply));
            assert_eq!(world.quarantined().await.len(), 1, "{name}: {body}");
            let delete = world.clients.dynamodb.delete_item().table_name(&world.stores().tables["events"]);
            delete.key("session", item["session"].clone()).key("event", item["event"].clone()).send().await.unwrap();
        }
        assert_nothing_is_stored(&world).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_no_delivery_whatever_it_lists() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        let lists = match webhook.provider() {
            Provider::Exotel => vec![r#"["s1"]"#],
            Provider::Vocobase => vec![r#"["2026-03-15T14:32:08Z",{"session_id":"s1"}]"#, r#"{"data":["s1"]}"#],
        };
        for list in lists {
            assert_eq!(world.deliver(webhook, list).await, success(&json!({})), "{}", webhook.name());
        }
    }
    // The same list is one item for each of the five, and Vocobase's two.
    assert_eq!(world.items("sessions").await, []);
    assert_eq!(world.quarantined().await.len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_is_stored_is_answered_200_and_so_is_its_repetition() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        for _ in 0..2 {
            let answer = send(delivery_to(&world, webhook, world.url(webhook), delivery(webhook))).await;
            assert_eq!(answer, success(&json!({})), "{}", webhook.name());
        }
    }
    let mut webhooks: Vec<String> =
        world.items("events").await.iter().map(|event| text(event, "webhook").to_owned()).collect();
    let mut all = Webhook::ALL.map(Webhook::name);
    webhooks.sort();
    all.sort_unstable();
    assert_eq!(webhooks, all);
    for session in ["exotel#s1", "vocobase#s1"] {
        assert_eq!(text(&world.items_of("sessions", session).await[0], "state"), "ended");
    }
}

/// Calls an instance of a function beside the local run's own, over HTTP as that.
async fn call(world: &World, webhook: Webhook, body: &str, between: impl FnOnce(&Clients) -> Clients) -> Answer {
    let app = world.instance(webhook, between, std::sync::Arc::new(Instant::now));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let (_running, stopped) = tokio::sync::watch::channel(false);
    let apps = cli::dev::Apps::from([(webhook, app)]);
    let served = tokio::spawn(cli::dev::serve(listener, apps, None, world.endpoints().clone(), stopped));
    let url = world.url(webhook).replacen(&world.run.base, &base, 1);
    let answer = send(delivery_to(world, webhook, &url, body)).await;
    served.abort();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_is_answered_503_and_the_repetition_is_stored() {
    for webhook in Webhook::ALL {
        let (world, name) = (World::new().await, webhook.name());
        for body in [delivery(webhook), "not JSON"] {
            let fault = Fault::new(Place::Table("events"), When::Before, 0);
            let answer = call(&world, webhook, body, |clients| fault.in_clients(clients)).await;
            assert_error(&answer, 503, name);
            assert_nothing_is_stored(&world).await;
        }
        assert_eq!(call(&world, webhook, delivery(webhook), Clients::clone).await, success(&json!({})), "{name}");
        assert_eq!(world.items("sessions").await.len(), 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_is_answered_503_and_the_repetition_is_stored() {
    // No word comes twice, so that it does not pack well and goes to the bucket.
    let noise: String = (0..20_000_u32).map(|n| hex::encode(n.wrapping_mul(2_654_435_761).to_be_bytes())).collect();
    for webhook in [Webhook::SessionEnd, Webhook::SessionCompleted] {
        let (world, name) = (World::new().await, webhook.name());
        let body = delivery(webhook).replacen('{', &format!(r#"{{"unknown":"{noise}","#), 1);
        let fault = Fault::new(Place::Body, When::Before, 0);
        let answer = call(&world, webhook, &body, |clients| fault.in_clients(clients)).await;
        assert_error(&answer, 503, name);
        assert_nothing_is_stored(&world).await;
        assert_eq!(call(&world, webhook, &body, Clients::clone).await, success(&json!({})), "{name}");
        let events = world.items("events").await;
        assert!(text(&events[0], "body_s3").starts_with("s3://"), "{name}");
        assert_eq!(world.body(&events[0]).await, body.as_bytes(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_is_answered_504_at_the_deadline() {
    let world = World::with(&[("DEADLINE_MS", "300")], std::sync::Arc::new(Instant::now)).await;
    // It accepts, by its backlog, and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut stores = world.stores().clone();
    stores.dynamodb = format!("http://{}", silent.local_addr().unwrap());
    for webhook in Webhook::ALL {
        let hanging = stores.connect().unwrap();
        for body in [delivery(webhook), "not JSON"] {
            let answering = call(&world, webhook, body, |_| hanging.clone());
            // Far above the deadline, far below the SDK's own patience.
            let answer = tokio::time::timeout(std::time::Duration::from_millis(1900), answering).await;
            assert_error(&answer.expect("an answer at the deadline"), 504, webhook.name());
        }
    }
    assert_nothing_is_stored(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_starts_is_answered_with_everything_its_profile_says() {
    let world = World::new().await;
    put_profile(&world, "default", &full_profile()).await;
    let session_id = "call/1 ?&=#+é";
    let body = json!({ "session_id": session_id, "bot_id": "b1", "landing_number": "+911140001000" }).to_string();
    let reply = json!({
        "greeting_message": { "text": "Namaste! \u{1f64f}" },
        "session_constants": { "tier": "gold", "limit": 2.5, "tags": ["a", null, true], "nested": {} },
        "conversation_assistant_id": "a1",
        "webhook_config": {
            "session_end": { "url": own_url(&world, Webhook::SessionEnd, session_id) },
            "transcript_events": { "url": "https://crm.example/t?x=1" },
            "insights_events": {
                "url": own_url(&world, Webhook::InsightsEvents, session_id),
                "trigger_type": "timer",
                "trigger_interval_sec": 30,
            },
        },
    });
    let answer = send(delivery_to(&world, Webhook::SessionStart, world.url(Webhook::SessionStart), &body)).await;
    assert_eq!(answer, success(&reply));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bots_profile_comes_before_the_numbers_and_the_numbers_before_the_default_member_by_member() {
    let world = World::new().await;
    put_profile(&world, "bot#b1", &json!({ "greeting": "the bot's" })).await;
    put_profile(
        &world,
        "number#+911140001000",
        &json!({ "greeting": "the number's", "conversation_assistant_id": "the number's" }),
    )
    .await;
    put_profile(
        &world,
        "default",
        &json!({
            "greeting": "the default",
            "conversation_assistant_id": "the default",
            "session_constants": { "from": "the default" },
            "transfer_message": "the default",
        }),
    )
    .await;
    let reply = |greeting: &str, assistant: &str| {
        json!({
            "greeting_message": { "text": greeting },
            "conversation_assistant_id": assistant,
            "session_constants": { "from": "the default" },
        })
    };
    for (bot, number, expected) in [
        ("b1", "+911140001000", reply("the bot's", "the number's")),
        ("b1", "+911140002000", reply("the bot's", "the default")),
        ("b2", "+911140001000", reply("the number's", "the number's")),
        ("b2", "", reply("the default", "the default")),
    ] {
        let body = json!({ "session_id": "s1", "bot_id": bot, "landing_number": number }).to_string();
        assert_eq!(world.deliver(Webhook::SessionStart, body).await, success(&expected), "{bot} {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_transfer_message_is_the_profiles() {
    let world = World::new().await;
    put_profile(&world, "bot#b1", &json!({ "transfer_message": "One moment, please." })).await;
    let message = json!({ "agent_transfer_message": { "text": "One moment, please." } });
    for (bot, data) in [("b1", message), ("b2", json!({}))] {
        let body = json!({ "session_id": "s1", "bot_id": bot }).to_string();
        assert_eq!(world.deliver(Webhook::PreAgentTransfer, body).await, success(&data));
    }
    let call = &world.items_of("sessions", "exotel#s1").await[0];
    assert_eq!(call["transfer_requested"], AttributeValue::Bool(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_urls_that_a_call_is_given_work_for_this_call_only() {
    let world = World::with(&[("EXOTEL_SESSION_TOKENS_ONLY", "true")], std::sync::Arc::new(Instant::now)).await;
    let webhooks = ["session_end", "pre_agent_transfer", "insights_events", "transcript_events"];
    let own = webhooks.into_iter().map(|name| (name.to_owned(), json!({}))).collect::<serde_json::Map<_, _>>();
    put_profile(&world, "default", &json!({ "webhooks": own })).await;
    for session_id in ["s1", "call/1 ?&=#+é%2F", "..", "\u{0}\n"] {
        let body = |id: &str| json!({ "session_id": id }).to_string();
        let answer = world.deliver(Webhook::SessionStart, body(session_id)).await;
        let given = answer.json["response"]["data"]["webhook_config"].clone();
        assert_eq!(given.as_object().map(serde_json::Map::len), Some(4), "{answer:?}");
        for name in webhooks {
            let url = given[name]["url"].as_str().unwrap();
            assert!(url.starts_with(&format!("{}/{name}/?", world.run.base)), "{url}");
            let answer = send(world.http.post(url).body(body(session_id))).await;
            assert_eq!(answer, success(&json!({})), "{url}");
            assert_error(&send(world.http.post(url).body(body("another"))).await, 401, name);
            // Nor is it good for another function.
            let other = url.replace(name, if name == "session_end" { "insights_events" } else { "session_end" });
            assert_error(&send(world.http.post(other).body(body(session_id))).await, 401, name);
        }
        let events = world.items_of("events", &format!("exotel#{session_id}")).await;
        assert_eq!(events.len(), 5, "{session_id:?}");
    }
    assert_eq!(world.items("sessions").await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn exotels_documented_example_is_stored_and_marked_as_a_test() {
    let world = World::new().await;
    for webhook in EXOTEL {
        assert_eq!(world.deliver(webhook, EXOTEL_DOCUMENTED).await, success(&json!({})), "{}", webhook.name());
    }
    let events = world.items_of("events", "exotel#<voicebot session id>").await;
    assert_eq!(events.len(), 5);
    for event in &events {
        assert_eq!(world.body(event).await, EXOTEL_DOCUMENTED.as_bytes());
        assert_eq!(text(event, "occurred_at"), "2025-07-16T11:40:57.000000Z");
        assert_eq!(
            text(event, "trigger_reason"),
            "timer | turn_complete | turn_progress | pre_agent_transfer | start | end"
        );
    }
    let calls = world.items("sessions").await;
    let [call] = calls.as_slice() else { panic!("{calls:?}") };
    for (name, value) in [
        ("session", "exotel#<voicebot session id>"),
        ("provider", "exotel"),
        ("session_id", "<voicebot session id>"),
        ("conversation_id", "<voicebot conversation id>"),
        ("external_id", "CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("state", "ended"),
        ("started_at", "2025-07-16T11:40:57.000000Z"),
        ("contact", "<phone number / endpoint>"),
        ("network_type", "sip | pstn"),
        ("bot_name", "<bot name>"),
        ("metadata", r#"{"call_sid":"CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx","stream_sid":""}"#),
        ("custom_parameters", r#"{"key1":"value1","key2":"value2"}"#),
    ] {
        assert_eq!(text(call, name), value, "{name}");
    }
    assert_eq!(call["test"], AttributeValue::Bool(true));
    assert_eq!(call["transfer_requested"], AttributeValue::Bool(true));
    assert_eq!(call["bots"], AttributeValue::Ss(vec!["<bot uuid>".into()]));
    for absent in ["landing_number", "account_id", "ended_at", "duration_seconds", "insights"] {
        assert!(!call.contains_key(absent), "{absent}");
    }
    assert_eq!(world.items("transcripts").await, []);
    assert_eq!(world.items("recordings").await, []);
}

/// Speaker, text, start and latency of every segment of the revision that counts.
async fn spoken(world: &World, session: &str) -> Vec<[String; 4]> {
    let calls = world.items_of("sessions", session).await;
    let revision = format!("{}#", text(&calls[0], "revision"));
    let chunks = world.items_of("transcripts", session).await;
    let counting = chunks.iter().filter(|chunk| text(chunk, "turn").starts_with(&revision));
    let segments = counting.flat_map(|chunk| item_to_segments(chunk).unwrap_or_default());
    let words = |segment: shared::call::Segment| {
        let start = segment.start.map(|at| at.to_string());
        [segment.speaker, segment.text, start, segment.latency_ms].map(Option::unwrap_or_default)
    };
    segments.map(words).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn vocobases_documented_example_is_stored_with_its_digits_its_words_and_its_recording() {
    let world = World::new().await;
    assert_eq!(world.deliver(Webhook::SessionCompleted, VOCOBASE_DOCUMENTED).await, success(&json!({})));
    let session = "vocobase#s1234567-abcd-1234-abcd-123456789012";
    let events = world.items("events").await;
    assert_eq!(events.len(), 1);
    assert_eq!(text(&events[0], "session"), session);
    assert_eq!(world.body(&events[0]).await, VOCOBASE_DOCUMENTED.as_bytes());

    let call = &world.items_of("sessions", session).await[0];
    let number = |digits: &str| AttributeValue::N(digits.into());
    for (name, value) in [
        ("duration_seconds", number("127")),
        ("credits_used", number("2.12")),
        ("latency_min_ms", number("450")),
        ("latency_max_ms", number("1200")),
        ("latency_avg_ms", number("680")),
        ("bots", AttributeValue::Ss(vec!["a1b2c3d4-e5f6-7890-abcd-ef1234567890".into()])),
    ] {
        assert_eq!(call[name], value, "{name}");
    }
    for (name, value) in [
        ("provider", "vocobase"),
        ("session_id", "s1234567-abcd-1234-abcd-123456789012"),
        ("call_id", "c1234567-abcd-1234-abcd-123456789012"),
        ("bot_name", "Sales Assistant"),
        ("state", "ended"),
        ("contact", "+919876543210"),
        ("landing_number", "+14155551234"),
        ("direction", "outbound"),
        ("call_status", "completed"),
        ("started_at", "2026-03-15T14:30:01.000000Z"),
        ("ended_at", "2026-03-15T14:32:08.000000Z"),
        ("recording_state", "pending"),
    ] {
        assert_eq!(text(call, name), value, "{name}");
    }
    assert!(!call.contains_key("test"));

    let at = |time: &str| format!("2026-03-15T14:30:{time}Z");
    let said = [
        ["bot", "Hello! Thanks for taking my call. How can I help you today?", &at("01.000000"), ""],
        ["user", "Hi, I'm interested in your enterprise plan.", &at("04.500000"), ""],
        [
            "bot",
            "Great choice! Our enterprise plan includes unlimited agents, priority support, and custom voice training.",
            &at("05.200000"),
            "700",
        ],
    ];
    assert_eq!(spoken(&world, session).await, said);
    assert!(text(&world.items("transcripts").await[0], "turn").ends_with("#000000"));

    let recordings = world.items("recordings").await;
    let [job] = recordings.as_slice() else { panic!("{recordings:?}") };
    for (name, value) in [
        ("session", session),
        ("state", "pending"),
        ("source_url", "https://vocobase-recordings.s3.amazonaws.com/rec_abc123.wav?X-Amz-Signature=..."),
        // It does not say, so 24 hours after it was sent.
        ("source_expires_at", "2026-03-16T14:32:08.000000Z"),
    ] {
        assert_eq!(text(job, name), value, "{name}");
    }
    assert!(job.contains_key("unfinished"));
}

#[tokio::test(flavor = "multi_thread")]
async fn vocobases_newer_payload_is_stored_with_what_it_adds() {
    let world = World::new().await;
    assert_eq!(world.deliver(Webhook::SessionCompleted, VOCOBASE_NEWER).await, success(&json!({})));
    let session = "vocobase#5b0c7e7a-2f8f-4a55-9d2c-0c9f5f1d6a11";
    let call = &world.items_of("sessions", session).await[0];
    for (name, value) in [
        ("state", "ended"),
        ("contact", "+919876543210"),
        ("call_status", "completed"),
        ("disposition", "completed"),
        ("answered_by", "human"),
        ("credits_used", "0.7"),
        ("variables", r#"{"customer_name":"Asha","plan":"enterprise"}"#),
        ("extraction", r#"{"status":"success","values":{"budget":125000.5,"interested":true}}"#),
        ("started_at", "2026-06-01T09:14:40.000000Z"),
        ("ended_at", "2026-06-01T09:15:22.000000Z"),
    ] {
        assert_eq!(text(call, name), value, "{name}");
    }
    assert!(!call.contains_key("latency_avg_ms"));
    let said = [
        ["bot", "नमस्ते! Is this a good time?", "2026-06-01T09:14:40.000000Z", ""],
        ["user", "Yes, go on.", "2026-06-01T09:14:43.100000Z", ""],
    ];
    assert_eq!(spoken(&world, session).await, said);
    let job = &world.items("recordings").await[0];
    // Seven days after it was signed, as the URL says.
    assert_eq!(text(job, "source_expires_at"), "2026-06-08T09:15:30.000000Z");
    assert!(text(job, "source_url").starts_with("https://media.vocobase.com/rec_def456.wav?"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_telephone_call_or_a_recording_is_stored_without() {
    let world = World::new().await;
    for (id, rest) in [("old", r#","call":null,"recording_url":null,"transcript":null"#), ("new", "")] {
        let body = format!(r#"{{"event":"session.completed","data":{{"session_id":"{id}"{rest}}}}}"#);
        assert_eq!(world.deliver(Webhook::SessionCompleted, body).await, success(&json!({})));
        let call = &world.items_of("sessions", &format!("vocobase#{id}")).await[0];
        assert_eq!(text(call, "state"), "ended");
        for absent in ["contact", "landing_number", "call_id", "recording_state"] {
            assert!(!call.contains_key(absent), "{id}: {absent}");
        }
    }
    assert_eq!(world.items("recordings").await, []);
    assert_eq!(world.items("transcripts").await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_run_says_that_it_is_well_and_where_everything_is() {
    let world = World::new().await;
    let get = |path: &str| world.http.get(format!("{}/{path}", world.run.base));
    assert_eq!(send(get("health")).await, Answer { status: 200, json: json!({ "status": "ok" }) });

    let found = send(get("endpoints")).await;
    assert_eq!(found.status, 200);
    let mut members: Vec<&str> = found.json.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    let mut expected = Webhook::ALL.map(Webhook::name).to_vec();
    expected.extend(["vocobase_secret", "dynamodb", "s3", "region", "access_key_id", "secret_access_key"]);
    expected.extend(["bucket", "tables", "default_country", "eventbridge", "event_bus"]);
    expected.sort_unstable();
    assert_eq!(members, expected);
    let tables = ["events", "profiles", "recordings", "sessions", "transcripts"];
    let names = tables.map(|name| (name.to_owned(), json!(format!("hookswitch-{name}"))));
    assert_eq!(found.json["tables"], Value::Object(names.into_iter().collect()));

    // What it says is enough to deliver and to look inside.
    let url = found.json["session_start"].as_str().unwrap();
    assert_eq!(send(world.http.post(url).body(r#"{"session_id":"s1"}"#)).await, success(&json!({})));
    let endpoints: cli::endpoints::Endpoints = serde_json::from_value(found.json.clone()).unwrap();
    let stores = endpoints.stores.unwrap();
    let calls = tests::items(&stores.connect().unwrap(), &stores, "sessions").await;
    assert_eq!(text(&calls[0], "session"), "exotel#s1");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_told_to_nobody_who_came_by_another_name() {
    let world = World::new().await;
    for host in ["hookswitch.example", "127.0.0.1.example:9000", "localhost.example", "example:9000", ""] {
        let request = world.http.get(format!("{}/endpoints", world.run.base)).header(header::HOST, host);
        let answer = send(request).await;
        assert_eq!(answer.status, 403, "{host}");
        let told = answer.json.to_string();
        assert!(!told.contains(cli::dev::DEFAULT_VOCOBASE_SECRETS) && !told.contains("token="), "{host}: {told}");
    }
    for host in ["127.0.0.1:9000", "localhost:9000", "localhost"] {
        let request = world.http.get(format!("{}/endpoints", world.run.base)).header(header::HOST, host);
        assert_eq!(send(request).await.status, 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_no_functions_is_answered_404() {
    let world = World::new().await;
    for path in ["", "sessions", "session_star", "session_start2/", "SESSION_START/", "%73ession_start/"] {
        let answer = send(world.http.post(format!("{}/{path}", world.run.base)).body("{}")).await;
        assert_eq!(answer.status, 404, "/{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_what_a_function_url_takes_is_answered_413() {
    let world = World::new().await;
    for webhook in Webhook::ALL {
        let url = format!("{}/{}/", world.run.base, webhook.name());
        let sized = |bytes: usize| world.http.post(&url).body("x".repeat(bytes));
        assert_eq!(send(sized(6_291_457)).await.status, 413, "{}", webhook.name());
        assert_error(&send(sized(6_291_456)).await, 401, webhook.name());
    }
    assert_nothing_is_stored(&world).await;
}
