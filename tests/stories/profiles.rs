//! Answers that know the caller: what profiles say, word for word, and what is said where they cannot.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::future::join_all;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::contact::caller;
use shared::storage::MOST_COUNTED;
use shared::{Country, Instant, Webhook};
use tests::faults::When;
use tests::faults::layer::{Layer, Mishap, Request};
use tests::lambda::{self, RuntimeApi};
use tests::log::Log;
use tests::{Answer, World, read};
use tracing::instrument::WithSubscriber;

use crate::answers::{put_profile, success};
use crate::simulation::number;

const CALLER: &str = "+919876543210";

/// A `session_start` of this session, bot and caller.
fn start(session: &str, bot: &str, contact: &str) -> Value {
    json!({ "session_id": session, "bot_id": bot, "contact_uri": contact, "start_time": "2026-03-15T14:30:00Z" })
}

async fn starts(world: &World, body: &Value) -> Answer {
    world.deliver(Webhook::SessionStart, body.to_string()).await
}

fn greeting(text: &str) -> Answer {
    success(&json!({ "greeting_message": { "text": text } }))
}

/// A call that went before: who, what about, and how it ended.
async fn earlier_call(world: &World, session: &str, contact: &str, summary: &str) {
    let call = |more: Value| {
        let mut body = start(session, "b0", contact);
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body["start_time"] = json!("2026-03-14T10:00:00Z");
        body.to_string()
    };
    let insight = |kind: &str, value: &str| json!({ "event_type": kind, "event_data": { "value": value, "timestamp": "2026-03-14T10:03:00Z" } });
    let events = [insight("summary", summary), insight("outcome", "unresolved"), insight("sentiment", "negative")];
    for (webhook, body) in [
        (Webhook::SessionStart, call(json!({ "bot_name": "Asha" }))),
        (Webhook::InsightsEvents, call(json!({ "events": events }))),
        (Webhook::PreAgentTransfer, call(json!({}))),
        (Webhook::SessionEnd, call(json!({ "end_time": "2026-03-14T10:04:30Z" }))),
    ] {
        assert_eq!(world.deliver(webhook, body).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_profile_a_call_is_answered_with_nothing() {
    let world = World::new().await;
    assert_eq!(starts(&world, &start("s1", "b1", CALLER)).await, success(&json!({})));
    let transfer = world.deliver(Webhook::PreAgentTransfer, start("s1", "b1", CALLER).to_string()).await;
    assert_eq!(transfer, success(&json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_text_of_a_profile_is_a_template_and_nothing_else_is() {
    let world = World::with(&[], tests::at("2026-03-15T18:40:00Z")).await;
    let profile = json!({
        "greeting": "{% if now.hour < 12 %}Good morning{% else %}Good evening{% endif %} {{ custom_parameters.name|title }}, it is {{ now.weekday }}.",
        "session_constants": {
            "plain": "{ as } it is",
            "number": 2.50,
            "of": { "caller": "{{ contact }}", "list": ["{{ request.bot_id }}", true, null] },
            "{{ names }}": "stay",
        },
        "conversation_assistant_id": "{{ request.network_type }}-assistant",
        "webhooks": {
            "session_end": {},
            "transcript_events": { "url": "https://crm.example/t?call={{ request.session_id|urlencode }}" },
            "insights_events": { "url": "", "trigger_type": "timer", "trigger_interval_sec": 30 },
        },
        "transfer_message": "One moment, {{ custom_parameters.name|default('please') }}.",
        "timezone": "Asia/Kolkata",
    });
    put_profile(&world, "default", &profile).await;
    let mut body = start("a&b", "b1", "098765 43210");
    body["custom_parameters"] = json!({ "name": "ravi KUMAR" });
    body["network_type"] = json!("pstn");

    let own = |webhook: Webhook| {
        let tokens = shared::config::tokens(&|name| {
            (name == "EXOTEL_TOKEN_SECRETS").then(|| cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS.to_owned())
        });
        let base = format!("{}/{}/", world.run.base, webhook.name());
        tokens.unwrap().session_url(&base, webhook, "a&b").unwrap()
    };
    let reply = json!({
        "greeting_message": { "text": "Good morning Ravi Kumar, it is Monday." },
        "session_constants": {
            "plain": "{ as } it is",
            "number": 2.5,
            "of": { "caller": CALLER, "list": ["b1", true, null] },
            "{{ names }}": "stay",
        },
        "conversation_assistant_id": "pstn-assistant",
        "webhook_config": {
            "session_end": { "url": own(Webhook::SessionEnd) },
            "transcript_events": { "url": "https://crm.example/t?call=a%26b" },
            "insights_events": { "url": own(Webhook::InsightsEvents), "trigger_type": "timer", "trigger_interval_sec": 30 },
        },
    });
    assert_eq!(starts(&world, &body).await, success(&reply));
    let transfer = world.deliver(Webhook::PreAgentTransfer, body.to_string()).await;
    assert_eq!(transfer, success(&json!({ "agent_transfer_message": { "text": "One moment, ravi KUMAR." } })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_that_fails_loops_or_prints_ten_megabytes_gives_way_to_the_next_best() {
    let world = World::new().await;
    put_profile(&world, "default", &json!({ "greeting": "Hello.", "session_constants": { "tier": "none" } })).await;
    let many = "{% for a in request.many %}{% for b in request.many %}{% endfor %}{% endfor %}x";
    let long = "{% for a in request.many %}{{ request.long }}{% endfor %}";
    for (bot, text) in [
        ("unclosed", "{{ contact"),
        ("unknown-name", "{{ nobody }}"),
        ("unknown-filter", "{{ contact|shout }}"),
        ("no-instant", "{{ contact|date('%Y') }}"),
        ("no-number", "{{ contact|int|round * 2 - request }}"),
        ("include", "{% include 'file:///etc/passwd' %}"),
        ("endless", many),
        ("ten-megabytes", long),
        ("doubling", "{% set x = contact %}{% set x = x ~ x %}{{ x }}"),
        ("too-long", &"{{ contact }}".repeat(1000)),
    ] {
        put_profile(&world, &format!("bot#{bot}"), &json!({ "greeting": text, "session_constants": { "a": text } }))
            .await;
        let mut body = start("s1", bot, CALLER);
        body["many"] = json!(vec![1; 1000]);
        body["long"] = json!("x".repeat(10_000));
        let reply = json!({ "greeting_message": { "text": "Hello." }, "session_constants": { "tier": "none" } });
        assert_eq!(starts(&world, &body).await, success(&reply), "{bot}");
    }
    // And where there is nothing more general, with nothing.
    let world = World::new().await;
    put_profile(&world, "bot#b1", &json!({ "greeting": long, "transfer_message": "{{" })).await;
    assert_eq!(starts(&world, &start("s1", "b1", CALLER)).await.status, 200);
    let transfer = world.deliver(Webhook::PreAgentTransfer, start("s1", "b1", CALLER).to_string()).await;
    assert_eq!(transfer, success(&json!({})));
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_parameters_can_be_used_in_every_form_that_was_seen() {
    let world = World::new().await;
    let text =
        "{{ custom_parameters.name|default('friend') }}/{{ custom_parameters.visits }}/{{ custom_parameters.vip }}";
    put_profile(&world, "default", &json!({ "greeting": text })).await;
    for (parameters, said) in [
        (json!({ "name": "Ravi", "visits": "3", "vip": "true" }), "Ravi/3/true"),
        (json!({ "name": "Ravi", "visits": 3, "vip": true }), "Ravi/3/true"),
        (json!({ "name": null, "visits": 2.5, "vip": ["a"] }), "friend/2.5/[\"a\"]"),
        (json!("{\"name\":\"Ravi\",\"visits\":3}"), "Ravi/3/"),
        (json!("{}"), "friend//"),
        (json!("no json"), "friend//"),
        (json!(""), "friend//"),
        (json!({}), "friend//"),
        (json!([]), "friend//"),
        (json!(null), "friend//"),
        (json!(7), "friend//"),
    ] {
        let mut body = start("s1", "b1", CALLER);
        body["custom_parameters"] = parameters.clone();
        assert_eq!(starts(&world, &body).await, greeting(said), "{parameters}");
    }
    let mut without = start("s1", "b1", CALLER);
    without.as_object_mut().unwrap().remove("custom_parameters");
    assert_eq!(starts(&world, &without).await, greeting("friend//"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_script_is_said_as_it_is_written() {
    let world = World::new().await;
    put_profile(&world, "default", &json!({ "greeting": "\u{200f}مرحبا {{ custom_parameters.name }}، नमस्ते 🙏" })).await;
    for name in [
        "שלום",
        "محمد",
        "आशा",
        "王小明",
        "👩‍👩‍👧",
        "a\u{301}",
        "\u{202e}abc\u{202c}",
        "\"\\\n\u{1}",
        "<b>&amp;",
        "{{ contact }}",
    ] {
        let mut body = start("s1", "b1", CALLER);
        body["custom_parameters"] = json!({ "name": name });
        // What a caller sends is never a template itself.
        assert_eq!(starts(&world, &body).await, greeting(&format!("\u{200f}مرحبا {name}، नमस्ते 🙏")));
    }
}

/// Says everything that is remembered.
const REMEMBERS: &str = "{% if history.last %}Welcome back: {{ history.calls }}{% if history.more %}+{% endif %}, \
    {{ history.last.days_ago }} days ago, {{ history.last.summary }}, {{ history.last.outcome }}, \
    {{ history.last.sentiment }}, {{ history.last.bot_name }}, {{ history.open_transfer }}{% else %}Namaste{% endif %}";

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_called_before_is_known_in_every_spelling_of_the_number() {
    let world = World::with(&[], tests::at("2026-03-16T12:00:00Z")).await;
    let constants = json!({ "last_summary": "{{ history.last.summary }}" });
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "session_constants": constants, "memory": true }))
        .await;
    put_profile(&world, "bot#forgets", &json!({ "memory": false })).await;
    let reply = |text: &str, summary: &str| {
        success(&json!({ "greeting_message": { "text": text }, "session_constants": { "last_summary": summary } }))
    };
    assert_eq!(starts(&world, &start("first", "b1", CALLER)).await, reply("Namaste", ""));

    let world = World::with(&[], tests::at("2026-03-16T12:00:00Z")).await;
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "session_constants": constants, "memory": true }))
        .await;
    put_profile(&world, "bot#forgets", &json!({ "memory": false })).await;
    earlier_call(&world, "old", CALLER, "asked about an order").await;
    let known = reply(
        "Welcome back: 1, 2 days ago, asked about an order, unresolved, negative, Asha, true",
        "asked about an order",
    );
    for spelling in [CALLER, "09876543210", "+91 98765-43210", "tel:+919876543210", "sip:09876543210@gateway.example"] {
        // The call is this one whenever it is delivered again.
        assert_eq!(starts(&world, &start("new", "b1", spelling)).await, known, "{spelling}");
    }
    for (bot, contact) in [("forgets", CALLER), ("b1", "+919876543211"), ("b1", "")] {
        let answer = starts(&world, &start("another", bot, contact)).await;
        assert_eq!(answer, reply("Namaste", ""), "{bot} {contact}");
    }
    let transfer = json!({ "transfer_message": "{{ history.calls }} calls", "memory": true });
    put_profile(&world, "bot#transfers", &transfer).await;
    let answer = world.deliver(Webhook::PreAgentTransfer, start("new", "transfers", CALLER).to_string()).await;
    assert_eq!(answer, success(&json!({ "agent_transfer_message": { "text": "1 calls" } })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_remembered_whose_number_is_withheld_or_no_number() {
    let world = World::new().await;
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "memory": true })).await;
    for (nth, contact) in [
        "anonymous",
        "Restricted",
        "",
        "+266696687",
        "sip:anonymous@anonymous.invalid",
        "web-client",
        "+910000000000",
        "100",
    ]
    .into_iter()
    .enumerate()
    {
        earlier_call(&world, &format!("old-{nth}"), contact, "a secret").await;
        let answer = starts(&world, &start(&format!("new-{nth}"), "b1", contact)).await;
        assert_eq!(answer, greeting("Namaste"), "{contact}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_the_retention_is_forgotten_though_it_is_not_deleted_yet() {
    let clock = tests::at("2026-03-16T12:00:00Z");
    let world = World::with(&[("RETENTION_DAYS", "3")], clock).await;
    put_profile(&world, "default", &json!({ "greeting": "{{ history.calls }}", "memory": true })).await;
    earlier_call(&world, "old", CALLER, "an order").await;
    let answer = async |days: &str| {
        let mut body = start("new", "b1", CALLER);
        body["day"] = json!(days);
        let world = &world;
        let app = world.instance(Webhook::SessionStart, Clone::clone, tests::at(days));
        read(
            &cli::dev::call(
                Webhook::SessionStart,
                &app,
                world.request(Webhook::SessionStart, body.to_string().as_bytes()),
            )
            .await,
        )
    };
    assert_eq!(answer("2026-03-17T09:59:59Z").await, greeting("1"));
    assert_eq!(answer("2026-03-17T10:00:01Z").await, greeting("0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_with_ten_thousand_calls_costs_one_page_and_is_counted_to_a_hundred() {
    let world = World::with(&[], tests::at("2026-03-16T12:00:00Z")).await;
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "memory": true })).await;
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let table = &world.stores().tables["sessions"];
    let writes: Vec<WriteRequest> = (0..10_000)
        .map(|nth| {
            let began = Instant::parse("2026-03-01T00:00:00Z").unwrap().plus_seconds(nth * 60);
            let put = PutRequest::builder()
                .item("session", s(&format!("exotel#old-{nth}")))
                .item("provider", s("exotel"))
                .item("session_id", s(&format!("old-{nth}")))
                .item("state", s("ended"))
                .item("contact", s(CALLER))
                .item("bot_name", s("Asha"))
                .item("started_at", s(&began.to_string()));
            WriteRequest::builder().put_request(put.build().unwrap()).build()
        })
        .collect();
    for batch in writes.chunks(25) {
        let write = world.clients.dynamodb.batch_write_item().request_items(table, batch.to_vec());
        assert!(write.send().await.unwrap().unprocessed_items.is_none_or(|left| left.is_empty()));
    }
    let layer = Layer::new(|_: &Request| None);
    let app = world.instance(
        Webhook::SessionStart,
        |clients| layer.in_clients(clients, "history"),
        tests::at("2026-03-16T12:00:00Z"),
    );
    let request = world.request(Webhook::SessionStart, start("new", "b1", CALLER).to_string().as_bytes());
    let answer = read(&cli::dev::call(Webhook::SessionStart, &app, request).await);
    assert_eq!(answer, greeting("Welcome back: 100+, 8 days ago, , , , Asha, false"));
    let reads: Vec<String> = layer
        .log()
        .into_iter()
        .map(|attempt| attempt.request.operation)
        .filter(|operation| ["Query", "BatchGetItem", "Scan"].contains(&operation.as_str()))
        .collect();
    // The profiles, the page, and the latest calls of it.
    assert_eq!(reads, ["BatchGetItem", "Query", "BatchGetItem"]);
    assert_eq!(MOST_COUNTED, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_hangs_or_fails_costs_its_time_budget_and_no_more_than_itself() {
    let world = World::new().await;
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "memory": true })).await;
    earlier_call(&world, "old", CALLER, "an order").await;
    let index = |request: &Request| request.operation == "Query" && request.table.ends_with("-sessions");
    for (what, mishap, most) in [
        ("hangs", Mishap::Unanswered(When::Before), Duration::from_millis(300)),
        ("slow", Mishap::Slow(Duration::from_secs(30)), Duration::from_millis(300)),
        ("fails", Mishap::Failed, Duration::from_millis(300)),
    ] {
        let layer = Layer::new(move |request: &Request| index(request).then_some(mishap));
        let app = world.instance(Webhook::SessionStart, |clients| layer.in_clients(clients, what), tests::now());
        let mut longest = Duration::ZERO;
        for nth in 0..5 {
            let body = start(&format!("{what}-{nth}"), "b1", CALLER).to_string();
            let began = tokio::time::Instant::now();
            let answer =
                cli::dev::call(Webhook::SessionStart, &app, world.request(Webhook::SessionStart, body.as_bytes()))
                    .await;
            longest = longest.max(began.elapsed());
            assert_eq!(read(&answer), greeting("Namaste"), "{what}");
        }
        println!("a history that {what}: the longest of 5 answers took {longest:?}");
        // The budget, and what a busy machine takes for the rest.
        assert!(longest < most + Duration::from_millis(1500), "{what}: {longest:?}");
        assert_eq!(world.items_of("sessions", &format!("exotel#{what}-4")).await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_did_not_give_in_time_is_logged_with_its_reason() {
    // Long enough for the SDK's own repetitions.
    let world = World::with(&[("HISTORY_MS", "2000"), ("DEADLINE_MS", "9000")], tests::now()).await;
    put_profile(&world, "default", &json!({ "greeting": REMEMBERS, "memory": true })).await;
    earlier_call(&world, "old", CALLER, "an order").await;
    for (table, operation, mishap, reason, said) in [
        ("sessions", "Query", Mishap::Failed, "history_failed", greeting("Namaste")),
        ("sessions", "Query", Mishap::Slow(Duration::from_secs(30)), "history_slow", greeting("Namaste")),
        ("profiles", "BatchGetItem", Mishap::Failed, "profiles_failed", success(&json!({}))),
        ("profiles", "BatchGetItem", Mishap::Slow(Duration::from_secs(30)), "profiles_slow", success(&json!({}))),
    ] {
        let layer = Layer::new(move |request: &Request| {
            (request.table.ends_with(table) && request.operation == operation).then_some(mishap)
        });
        let app = world.instance(Webhook::SessionStart, |clients| layer.in_clients(clients, reason), tests::now());
        let log = Log::of(&["shared"]);
        let request = world.request(Webhook::SessionStart, start(reason, "b1", CALLER).to_string().as_bytes());
        let answer = cli::dev::call(Webhook::SessionStart, &app, request).with_subscriber(log.dispatch.clone()).await;
        assert_eq!(read(&answer), said, "{reason}");
        let heard = log.heard();
        assert!(heard.contains(&format!("reason=\"{reason}\"")), "{reason}: {heard}");
        assert!(!heard.contains("9876543210") && !heard.contains("an order"), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_are_kept_for_half_a_minute_and_the_last_good_ones_while_they_cannot_be_read() {
    let world = World::new().await;
    let (now, failing) =
        (Arc::new(std::sync::Mutex::new(Instant::now())), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let fails = Arc::clone(&failing);
    let layer = Layer::new(move |request: &Request| {
        let profiles = request.table.ends_with("-profiles");
        (profiles && fails.load(std::sync::atomic::Ordering::SeqCst)).then_some(Mishap::Unanswered(When::Before))
    });
    let clock = {
        let now = Arc::clone(&now);
        Arc::new(move || *now.lock().unwrap())
    };
    let app = world.instance(Webhook::SessionStart, |clients| layer.in_clients(clients, "cache"), clock);
    let says = async || {
        let body = start("s1", "b1", CALLER).to_string();
        let answer =
            cli::dev::call(Webhook::SessionStart, &app, world.request(Webhook::SessionStart, body.as_bytes())).await;
        read(&answer).json["response"]["data"]["greeting_message"]["text"].clone()
    };
    let pass = |seconds: i64| {
        let mut now = now.lock().unwrap();
        *now = now.plus_seconds(seconds);
    };
    let reads = || layer.log().iter().filter(|attempt| attempt.request.table.ends_with("-profiles")).count();

    put_profile(&world, "default", &json!({ "greeting": "one" })).await;
    assert_eq!(says().await, "one");
    put_profile(&world, "default", &json!({ "greeting": "two" })).await;
    pass(29);
    assert_eq!((says().await, reads()), (json!("one"), 1));
    pass(1);
    assert_eq!((says().await, reads()), (json!("two"), 2));

    // The table does not answer: the last good profile does, and only now and then anyone waits for the table.
    failing.store(true, std::sync::atomic::Ordering::SeqCst);
    put_profile(&world, "default", &json!({ "greeting": "three" })).await;
    pass(3600);
    let began = tokio::time::Instant::now();
    assert_eq!(says().await, "two");
    let (first, after_first) = (began.elapsed(), reads());
    for _ in 0..10 {
        assert_eq!(says().await, "two");
    }
    assert_eq!(reads(), after_first, "nobody waits again so soon");
    println!("profiles that hang, an older copy known: the first answer took {first:?}");
    failing.store(false, std::sync::atomic::Ordering::SeqCst);
    pass(5);
    assert_eq!(says().await, "three");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_through_two_bots_is_one_call_with_tokens_that_hold() {
    let world = World::with(&[("EXOTEL_SESSION_TOKENS_ONLY", "true")], tests::now()).await;
    let webhooks =
        json!({ "session_end": {}, "pre_agent_transfer": {}, "insights_events": {}, "transcript_events": {} });
    put_profile(&world, "default", &json!({ "webhooks": webhooks, "memory": true, "greeting": "{{ history.calls }}" }))
        .await;
    put_profile(&world, "bot#second", &json!({ "transfer_message": "From the second bot." })).await;

    let first = starts(&world, &start("s1", "first", CALLER)).await.json["response"]["data"].clone();
    assert_eq!(first["greeting_message"]["text"], "0");
    // The platform keeps the URLs for the session's life, whichever bot speaks.
    let second = starts(&world, &start("s1", "second", CALLER)).await.json["response"]["data"].clone();
    assert_eq!(second, first);
    let post = async |webhook: &str, body: Value| {
        let url = first["webhook_config"][webhook]["url"].as_str().unwrap();
        tests::answer(world.http.post(url).body(body.to_string())).await
    };
    for bot in ["first", "second"] {
        let mut turn = start("s1", bot, CALLER);
        turn["events"] = json!([{ "event_type": "transcript", "event_data": { "transcripts": [
            { "sequence": 1, "transcript_segments": [{ "speaker": "user", "text": format!("to {bot}"), "start_timestamp": "2026-03-15T14:30:05Z" }] }] } }]);
        assert_eq!(post("transcript_events", turn).await, success(&json!({})));
        let mut insight = start("s1", bot, CALLER);
        insight["events"] = json!([{ "event_type": "intent", "event_data": { "value": bot } }]);
        assert_eq!(post("insights_events", insight).await, success(&json!({})));
    }
    let message = json!({ "agent_transfer_message": { "text": "From the second bot." } });
    assert_eq!(post("pre_agent_transfer", start("s1", "second", CALLER)).await, success(&message));
    let mut end = start("s1", "second", CALLER);
    end["end_time"] = json!("2026-03-15T14:34:00Z");
    assert_eq!(post("session_end", end).await, success(&json!({})));
    assert_eq!(post("session_end", start("another", "second", CALLER)).await.status, 401);

    let calls = world.items("sessions").await;
    assert_eq!(calls.len(), 1);
    let bots: BTreeSet<&String> = calls[0]["bots"].as_ss().unwrap().iter().collect();
    assert_eq!(bots.into_iter().collect::<Vec<_>>(), ["first", "second"]);
    // Both bots' first turns are kept.
    assert_eq!(world.items("transcripts").await.len(), 2);
    let next = starts(&world, &start("s2", "first", CALLER)).await;
    assert_eq!(next.json["response"]["data"]["greeting_message"]["text"], "1");
}

/// Each fallback in what the real binary writes: its metric, and its line in the log.
#[tokio::test(flavor = "multi_thread")]
async fn every_fallback_is_counted_and_logged_with_its_reason_and_nothing_private() {
    let world = World::new().await;
    put_profile(
        &world,
        "number#+918047000000",
        &json!({ "greeting": "{{ custom_parameters.name|date('%Y') }}", "timezone": "Mars/Olympus" }),
    )
    .await;
    put_profile(&world, "default", &json!({ "session_constants": "hunter2", "webhooks": { "session_start": {} } }))
        .await;
    let mut api = RuntimeApi::start().await;
    let mut function = lambda::start("session_start", &lambda::environment(&world), &api.address);
    let mut body = start("s1", "b1", CALLER);
    body["landing_number"] = json!("+918047000000");
    body["custom_parameters"] = json!({ "name": "hunter2" });
    let mut long = body.clone();
    long["own"] = json!("x".repeat(40_000));
    for body in [&body, &long] {
        let answer = api.invoke(lambda::event(&world, Webhook::SessionStart, &body.to_string(), false)).await;
        assert_eq!(answer["statusCode"], 200, "{answer}");
    }
    function.start_kill().unwrap();
    let output = function.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let counted =
        |reason: &str| lines.iter().filter(|line| line["Fallbacks"] == 1.0 && line["reason"] == reason).count();
    let logged = |reason: &str| {
        let mut of = lines
            .iter()
            .filter(|line| line["message"] == "an answer is not what its profile asks for" && line["reason"] == reason);
        of.next().cloned().unwrap_or_default()
    };
    for (reason, times) in [
        ("template_failed", 1), // The other request is not seen, and what is not there is no error.
        ("timezone_unknown", 2),
        ("member_unreadable", 2),
        ("webhook_unusable", 2),
        ("request_too_long", 1),
    ] {
        assert_eq!(counted(reason), times, "{reason}: {said}");
        assert_eq!(logged(reason)["webhook"], "session_start", "{reason}: {said}");
    }
    let line = logged("template_failed");
    assert_eq!(
        (&line["profile"], &line["member"], &line["line"]),
        (&json!("number"), &json!("greeting"), &json!(1)),
        "{line}"
    );
    for private in ["hunter2", "9876543210", "8047000000"] {
        assert!(!said.contains(private), "{private}: {said}");
    }
}

/// A number in one of seven spellings. Mobile numbers of India, which are valid whatever their last digits are.
fn spelling(national: &str, how: usize) -> String {
    let (head, tail) = national.split_at(5);
    match how {
        0 => format!("+91{national}"),
        1 => format!("0{national}"),
        2 => national.to_owned(),
        3 => format!("+91 {head} {tail}"),
        4 => format!("+91-{head}-{tail}"),
        5 => format!("tel:+91{national}"),
        _ => format!("sip:0{national}@gateway.example;user=phone"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_different_callers_never_see_each_others_data() {
    let world = World::new().await;
    put_profile(&world, "default", &json!({ "greeting": "{{ history.last.summary }}", "memory": true })).await;
    let seed = number("HOOKSWITCH_SEED").unwrap_or(2_026);
    println!("HOOKSWITCH_SEED={seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut somebody = || format!("98{:08}", random.random_range(0..100_000_000));
    let mut said = Vec::new();
    for nth in 0..usize::try_from(number("HOOKSWITCH_CASES").unwrap_or(24)).unwrap() {
        let (national, neighbour) = (somebody(), somebody());
        // A digit beside it, too: no number that is nearly one's own.
        let mut beside = national.clone().into_bytes();
        beside[9] = b'0' + (beside[9] - b'0' + 1) % 10;
        said.push((national, nth % 7, neighbour, String::from_utf8(beside).unwrap(), nth));
    }
    let callers: BTreeSet<&String> = said.iter().map(|(national, ..)| national).collect();
    let told = |national: &str| format!("the secret of {national}");
    for (national, how, _, _, nth) in &said {
        earlier_call(&world, &format!("old-{nth}"), &spelling(national, *how), &told(national)).await;
    }
    for (nth, (national, how, neighbour, beside, _)) in said.iter().enumerate() {
        for (who, how) in [(national, (how + 3) % 7), (neighbour, *how), (beside, *how)] {
            let contact = spelling(who, how);
            let session = format!("new-{nth}-{how}-{who}");
            let answer = starts(&world, &start(&session, "b1", &contact)).await;
            let expected = if callers.contains(who) { greeting(&told(who)) } else { success(&json!({})) };
            assert_eq!(answer, expected, "{contact}");
            assert_eq!(caller(&shared::contact::normalised(contact, Country::INDIA)), Some(&*format!("+91{who}")));
        }
    }
}

/// What memory costs while a caller waits: two bots, of which one remembers, called in turn, in one run.
#[tokio::test(flavor = "multi_thread")]
async fn memory_on_and_memory_off_are_measured_side_by_side() {
    let world = World::new().await;
    for (bot, memory) in [("on", true), ("off", false)] {
        put_profile(&world, &format!("bot#{bot}"), &json!({ "greeting": REMEMBERS, "memory": memory })).await;
    }
    earlier_call(&world, "old", CALLER, "an order").await;
    let rounds = number("HOOKSWITCH_CASES").unwrap_or(200) / 8;
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        let of_round = (0..8_u64).map(|nth| {
            let (world, memory) = (&world, (round + nth) % 2 == 0);
            async move {
                let bot = if memory { "on" } else { "off" };
                let body = start(&format!("{bot}-{round}-{nth}"), bot, CALLER);
                let began = tokio::time::Instant::now();
                let answer = starts(world, &body).await;
                let took = began.elapsed();
                let text = answer.json["response"]["data"]["greeting_message"]["text"].as_str().unwrap_or_default();
                assert_eq!(text.starts_with("Welcome back"), memory, "{answer:?}");
                (usize::from(memory), took)
            }
        });
        for (memory, one) in join_all(of_round).await {
            took[memory].push(one);
        }
    }
    for took in &mut took {
        took.sort();
    }
    let at =
        |memory: usize, percent: usize| took[memory][(took[memory].len() * percent / 100).min(took[memory].len() - 1)];
    println!(
        "session_start, 8 at once, {} of each: memory off p50 {:?} p99 {:?}, on p50 {:?} p99 {:?}, p99 on/off {:.2}",
        took[0].len(),
        at(0, 50),
        at(0, 99),
        at(1, 50),
        at(1, 99),
        at(1, 99).as_secs_f64() / at(0, 99).as_secs_f64()
    );
}
