//! The console: whom it answers, what it shows, and what it never does with what callers said.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;
use shared::auth::Verified;
use shared::call::{Delivery, Source};
use shared::storage::{Store, undelivered_key};
use shared::{Country, Instant, Webhook};
use tests::control_plane::Aws;
use tests::{Item, LocalProcess, World, text};
use tokio::io::{AsyncBufReadExt, BufReader};

const CONTACT: &str = "+919876500001";
const SAID: &str = "marker-said I owe my sister money";

/// A browser, as far as it asks: it is taken nowhere that it does not see.
struct Browser {
    http: reqwest::Client,
    base: String,
}

impl Browser {
    fn of(base: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { http: client.build().expect("a client"), base: base.to_owned() }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/console/{path}", self.base))
    }

    async fn get(&self, path: &str) -> (u16, String) {
        read(self.ask(Method::GET, path)).await
    }

    async fn page(&self, path: &str) -> String {
        let (status, page) = self.get(path).await;
        assert_eq!(status, 200, "{path}: {page}");
        page
    }

    /// Posts a form from one of the console's own pages.
    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Response {
        let form: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.ask(Method::POST, path).header("origin", &self.base).body(form);
        request.send().await.expect("an answer")
    }
}

async fn read(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

fn location(response: &Response) -> &str {
    response.headers()["location"].to_str().expect("text")
}

fn start(session: &str, at: &str) -> String {
    json!({ "session_id": session, "bot_id": "b1", "contact_uri": CONTACT, "start_time": at }).to_string()
}

/// A call's address: its key, percent-encoded.
fn call(key: &str) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    format!("call/{}", utf8_percent_encode(key, NON_ALPHANUMERIC))
}

/// Puts a recording's job as the archiver leaves it.
async fn job(world: &World, session: &str, members: &[(&str, &str)]) {
    let own = [("session", session), ("wanted", "-#0"), ("source", "0")];
    let item =
        members.iter().chain(&own).map(|(name, value)| ((*name).to_owned(), AttributeValue::S((*value).to_owned())));
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["recordings"]);
    put.set_item(Some(item.collect())).send().await.expect("it is put");
}

async fn archive(world: &World, session: &str, s3_key: &str, content_type: &str, content: &[u8]) {
    let put = world.clients.s3.put_object().bucket(&world.stores().bucket).key(s3_key).content_type(content_type);
    put.body(content.to_vec().into()).send().await.expect("it is put");
    job(world, session, &[("state", "archived"), ("s3_key", s3_key), ("content_type", content_type)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_host_and_no_other_sites_page_is_shown_anything() {
    let world = World::new().await;
    world.deliver(Webhook::SessionStart, start("s1", &Instant::now().to_string())).await;
    let browser = Browser::of(&world.run.base);
    let session = call("exotel#s1");
    for path in ["", &session, "recordings", "quarantine", "undelivered", "totals", "console.js"] {
        for (name, value) in [
            ("host", "evil.example"),
            ("host", "evil.example:9000"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let answer = browser.ask(Method::GET, path).header(name, value).send().await.unwrap();
            assert_eq!(answer.status(), 403, "{path} {name}: {value}");
            assert_eq!(answer.headers().get("access-control-allow-origin"), None);
            let said = answer.text().await.unwrap();
            assert!(!said.contains(CONTACT) && !said.contains("s1"), "{said}");
        }
        assert_eq!(browser.get(path).await.0, 200, "{path}");
    }
    let asked = browser.ask(Method::GET, "").header("sec-fetch-site", "none").send().await.unwrap();
    assert!(asked.text().await.unwrap().contains(CONTACT));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_consoles_own_pages_change_anything() {
    let world = World::new().await;
    world.deliver(Webhook::SessionStart, start("s1", "2026-03-15T14:30:00Z")).await;
    let failed = [("state", "failed"), ("source_url", "https://bucket.s3.amazonaws.com/r.wav"), ("attempts", "5")];
    job(&world, "exotel#s1", &failed).await;
    let browser = Browser::of(&world.run.base);
    let state = async || text(&world.items("recordings").await[0], "state").to_owned();
    let retry = || browser.ask(Method::POST, "recordings/retry").body("only=exotel%23s1");
    for headers in [
        &[][..],
        &[("origin", "http://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "none")],
        &[("origin", &browser.base), ("sec-fetch-site", "same-site")],
        &[("origin", &browser.base), ("host", "evil.example")],
    ] {
        let request = headers.iter().fold(retry(), |request, (name, value)| request.header(*name, *value));
        assert_eq!(request.send().await.unwrap().status(), 403, "{headers:?}");
        assert_eq!(state().await, "failed", "{headers:?}");
    }
    // And not by an address that somebody was made to open.
    assert_eq!(browser.get("recordings/retry?only=exotel%23s1").await.0, 404);
    let done = browser.post("recordings/retry", &[("only", "exotel#s1"), ("from", "call")]).await;
    assert_eq!((done.status().as_u16(), location(&done)), (303, "/console/call/exotel%23s1"));
    assert_eq!(state().await, "pending");
    let ticked = [("session", "exotel#s1"), ("session", "exotel#s2"), ("recording", "failed"), ("since", "7d")];
    let done = browser.post("recordings/retry", &ticked).await;
    assert_eq!(location(&done), "/console/recordings?recording=failed&since=7d&again=1&left=1");
    let page = browser.page("recordings?recording=failed&since=7d&again=1&left=1").await;
    assert!(page.contains("One recording is to be fetched again. 1 has nothing to fetch"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_forbids_what_its_pages_do_not_need() {
    let world = World::new().await;
    world.deliver(Webhook::SessionStart, start("s1", "2026-03-15T14:30:00Z")).await;
    archive(&world, "exotel#s1", "recordings/r.wav", "audio/wav", b"sound").await;
    let browser = Browser::of(&world.run.base);
    let session = call("exotel#s1");
    let paths =
        ["", &session, &format!("{session}/recording"), "recordings", "totals", "style.css", "nowhere", "call/x"];
    for path in paths {
        let answer = browser.ask(Method::GET, path).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap();
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("referrer-policy"), "same-origin", "{path}");
    }
    // Its own pages could not load from elsewhere, and do not ask to, nor do they hold scripts or styles.
    for path in ["", &session, "recordings", "quarantine", "undelivered", "totals"] {
        let page = browser.page(path).await;
        for never in ["http://", "https://", "<style", " style=", " onclick=", "javascript:"] {
            assert!(!page.contains(never), "{path}: {never}");
        }
        assert_eq!(page.matches("<script").count(), 1, "{path}");
    }
    assert_eq!(browser.get("nowhere").await.0, 404);
    let put = browser.ask(Method::PUT, "").header("origin", &browser.base).send().await.unwrap();
    assert_eq!((put.status().as_u16(), put.headers()["allow"].to_str().unwrap()), (405, "GET"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_is_shown_only_to_the_browser_that_followed_the_link() {
    let world = World::new().await;
    world.deliver(Webhook::SessionStart, start("s1", &Instant::now().to_string())).await;
    let aws = Aws::of(world.endpoints()).await;
    let mut process = aws.command(&["console", "--stack", "prod"]).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let link = lines.next_line().await.unwrap().expect("a link");
    let (address, token) = link.split_once("/console/?token=").expect("a link to the console");
    assert!(address.starts_with("http://127.0.0.1:") && token.len() == 32, "{link}");
    let browser = Browser::of(address);

    assert_eq!(browser.get("").await.0, 403);
    assert_eq!(browser.get("style.css").await.0, 403);
    assert_eq!(browser.get("?token=0123456789abcdef0123456789abcdef").await.0, 403);
    // Who leads a name of its own here does not use the link up.
    let opened = |name: &'static str, value: &'static str| {
        read(browser.ask(Method::GET, &format!("?token={token}")).header(name, value))
    };
    assert_eq!(opened("host", "evil.example").await.0, 403);
    assert_eq!(opened("sec-fetch-site", "cross-site").await.0, 403);

    let opened = browser.ask(Method::GET, &format!("?token={token}")).send().await.unwrap();
    assert_eq!((opened.status().as_u16(), location(&opened)), (303, "/console/"));
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/console/; HttpOnly; SameSite=Strict"), "{cookie}");
    let shown = cookie.split(';').next().unwrap().to_owned();
    assert!(!shown.contains(token), "{cookie}");
    let (status, refusal) = browser.get(&format!("?token={token}")).await;
    assert_eq!((status, refusal.contains("It works once")), (403, true), "{refusal}");

    let with_cookie = |method: Method, path: &str| browser.ask(method, path).header("cookie", &shown);
    let (status, page) = read(with_cookie(Method::GET, "")).await;
    assert_eq!((status, page.contains(CONTACT), page.contains("Stack prod")), (200, true, true), "{page}");
    let foreign = with_cookie(Method::GET, "").header("host", "evil.example");
    assert_eq!(read(foreign).await.0, 403);
    let foreign = with_cookie(Method::POST, "recordings/retry").header("origin", "http://evil.example").body("only=x");
    assert_eq!(read(foreign).await.0, 403);
    let unsigned = browser.ask(Method::POST, "recordings/retry").header("origin", address).body("only=exotel%23s1");
    assert_eq!(read(unsigned).await.0, 403);

    let id = process.id().expect("it runs").to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let ended = tokio::time::timeout(Duration::from_mins(1), process.wait_with_output()).await.unwrap().unwrap();
    assert_eq!(ended.status.code(), Some(0));
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(log.contains("status=403") && !log.contains(token) && !log.contains(&shown), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_call_says_is_shown_as_text_and_never_as_markup() {
    const MARKUP: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    let world = World::new().await;
    let now = Instant::now();
    let segment =
        json!({ "speaker": MARKUP, "text": MARKUP, "start_timestamp": now, "end_timestamp": now.plus_seconds(2) });
    let turn = json!({ "transcripts": [{ "sequence": 1, "transcript_segments": [segment] }] });
    let insight = json!({ "value": MARKUP, "reason": MARKUP, "timestamp": now });
    let body = json!({ "session_id": MARKUP, "bot_id": MARKUP, "bot_name": MARKUP, "contact_uri": MARKUP,
        "landing_number": MARKUP, "start_time": now, "trigger_reason": MARKUP,
        "custom_parameters": { MARKUP: { MARKUP: MARKUP } }, "metadata": MARKUP,
        "events": [{ "event_type": "transcript", "event_data": turn }, { "event_type": "summary", "event_data": insight },
            { "event_type": MARKUP, "event_data": insight }] });
    for webhook in [Webhook::SessionStart, Webhook::PreAgentTransfer] {
        assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200);
    }
    world.deliver(Webhook::SessionEnd, format!("{MARKUP} is no JSON")).await;
    hand_over(&world, &body.to_string()).await;
    job(&world, &format!("exotel#{MARKUP}"), &[("state", "failed"), ("last_error", MARKUP)]).await;
    let browser = Browser::of(&world.run.base);
    let session = call(&format!("exotel#{MARKUP}"));
    let encoded: String = url::form_urlencoded::byte_serialize(MARKUP.as_bytes()).collect();
    let mut paths = vec![session.clone(), "totals".to_owned(), "quarantine".to_owned(), format!("?contact={encoded}")];
    paths.extend([format!("totals?bot={encoded}"), format!("?sentiment={encoded}"), format!("?bot={encoded}")]);
    paths.extend([
        String::new(),
        format!("?state={encoded}"),
        format!("?after={encoded}"),
        format!("?since={encoded}"),
    ]);
    for path in &paths {
        let (_, page) = browser.get(path).await;
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{path}: {page}");
    }
    let page = browser.page(&session).await;
    // Speaker, text, names, numbers, insights, parameters, brief.
    assert!(page.matches("&lt;script&gt;alert(1)").count() > 12, "{page}");
    // A body is what came, and no page.
    let body_path = page.split("data-body=\"&#x2f;console&#x2f;").nth(1).or(page.split("data-body=\"/console/").nth(1));
    let body_path = body_path.expect("a delivery").split('"').next().unwrap();
    let body_path = body_path.replace("&#x2f;", "/").replace("&amp;", "&");
    let answer = browser.ask(Method::GET, &body_path).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(answer.text().await.unwrap(), body.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_player_is_given_the_stretch_of_a_recording_that_it_asks_for() {
    let world = World::new().await;
    for (session, content_type) in [("s1", "audio/wav"), ("s2", "text/html")] {
        world.deliver(Webhook::SessionStart, start(session, "2026-03-15T14:30:00Z")).await;
        let s3_key = format!("recordings/exotel/2026/03/15/{session}.wav");
        archive(&world, &format!("exotel#{session}"), &s3_key, content_type, b"0123456789").await;
    }
    let browser = Browser::of(&world.run.base);
    let path = format!("{}/recording", call("exotel#s1"));
    for (range, status, content_range, expected) in [
        (None, 200, None, "0123456789"),
        (Some("bytes=0-"), 206, Some("bytes 0-9/10"), "0123456789"),
        (Some("bytes=4-6"), 206, Some("bytes 4-6/10"), "456"),
        (Some("bytes=-3"), 206, Some("bytes 7-9/10"), "789"),
        (Some("bytes=0-1,4-5"), 200, None, "0123456789"),
        (Some("lines=1-2"), 200, None, "0123456789"),
    ] {
        let request = browser.ask(Method::GET, &path);
        let request = range.into_iter().fold(request, |request, range| request.header("range", range));
        let answer = request.send().await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(
            (answer.status().as_u16(), header("content-range").as_deref()),
            (status, content_range),
            "{range:?}"
        );
        assert_eq!(header("accept-ranges").as_deref(), Some("bytes"));
        assert_eq!(header("content-type").as_deref(), Some("audio/wav"));
        assert_eq!(header("content-length"), Some(expected.len().to_string()));
        assert_eq!(answer.text().await.unwrap(), expected, "{range:?}");
    }
    let beyond = browser.ask(Method::GET, &path).header("range", "bytes=10-").send().await.unwrap();
    assert_eq!(beyond.status(), 416);
    let saved = browser.ask(Method::GET, &format!("{path}?save=1")).send().await.unwrap();
    assert_eq!(saved.headers()["content-disposition"], "attachment; filename=\"s1.wav\"");
    // Whatever a recording's host called it, it is no page.
    let other = browser.ask(Method::GET, &format!("{}/recording", call("exotel#s2"))).send().await.unwrap();
    assert_eq!(other.headers()["content-type"], "application/octet-stream");
    assert_eq!(browser.get(&format!("{}/recording", call("exotel#s3"))).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_where_its_page_ended_and_shows_each_call_once() {
    let world = World::new().await;
    let now = Instant::now();
    let mut expected = BTreeSet::new();
    for number in 0..120_i64 {
        // Some began at the same instant.
        let body = start(&format!("s{number}"), &now.plus_seconds(-(number / 3) * 7_000).to_string());
        assert_eq!(world.deliver(Webhook::SessionStart, body).await.status, 200);
        expected.insert(format!("s{number}"));
    }
    let browser = Browser::of(&world.run.base);
    for filter in ["?since=30d", "?since=30d&provider=exotel&state=in_progress", "?contact=%2B91%2098765%2000001"] {
        let (mut seen, mut path) = (Vec::new(), filter.to_owned());
        for _ in 0..3 {
            let page = browser.page(&path).await;
            let rows =
                page.split("<tr data-key=\"exotel#").skip(1).map(|row| row.split('"').next().unwrap().to_owned());
            let before = seen.len();
            seen.extend(rows);
            assert!(seen.len() - before <= 50, "{path}");
            let older = page.split("rel=\"next\" href=\"/console/").nth(1);
            match older {
                Some(older) => path = older.split('"').next().unwrap().replace("&amp;", "&").replace("&#x2f;", "/"),
                None => path.clear(),
            }
        }
        assert_eq!((seen.len(), path.as_str()), (120, ""), "{filter}");
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected, "{filter}");
    }
    assert!(browser.page("?provider=vocobase").await.contains("No such call"));
    assert_eq!(browser.get("?state=over").await.0, 400);
    // An id alone finds its call, a number its calls.
    let found = browser.ask(Method::GET, "?q=s7").send().await.unwrap();
    assert_eq!(location(&found), "/console/call/exotel%23s7");
    let found = browser.ask(Method::GET, "?q=098765+00001").send().await.unwrap();
    assert_eq!(location(&found), "/console/?contact=098765+00001");
    assert!(browser.page("?contact=098765+00001").await.contains("exotel#s7\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_shown_whole() {
    let world = World::new().await;
    let began = Instant::parse("2026-03-15T14:30:00Z").unwrap();
    let base = json!({ "session_id": "s1", "bot_id": "b1", "contact_uri": CONTACT, "start_time": began });
    let with = |members: serde_json::Value| {
        let mut body = base.clone();
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        body.to_string()
    };
    let segment = |sequence: u32, speaker: &str, said: &str, from: i64, to: i64| {
        let segment = json!({ "speaker": speaker, "text": said, "start_timestamp": began.plus_millis(from),
            "end_timestamp": began.plus_millis(to) });
        json!({ "event_type": "transcript", "event_data": { "transcripts": [{ "sequence": sequence,
            "transcript_segments": [segment] }] } })
    };
    let mood = |value: &str, score: u32, at: i64| {
        json!({ "event_type": "sentiment", "event_data": { "value": value, "score": score,
            "timestamp": began.plus_seconds(at) } })
    };
    let turns = [segment(1, "user", SAID, 500, 3_000), segment(2, "assistant", "I see.", 3_750, 5_000)];
    world.deliver(Webhook::SessionStart, with(json!({ "custom_parameters": { "tier": "gold" } }))).await;
    world.deliver(Webhook::TranscriptEvents, with(json!({ "events": turns }))).await;
    world.deliver(Webhook::InsightsEvents, with(json!({ "events": [mood("negative", 20, 10)] }))).await;
    world.deliver(Webhook::InsightsEvents, with(json!({ "events": [mood("positive", 90, 40)] }))).await;
    let asked = with(json!({ "trigger_reason": "pre_agent_transfer" }));
    world.deliver(Webhook::PreAgentTransfer, asked.clone()).await;
    hand_over(&world, &asked).await;
    world.deliver(Webhook::SessionEnd, with(json!({ "end_time": began.plus_seconds(73) }))).await;
    let page = Browser::of(&world.run.base).page(&call("exotel#s1")).await;
    for expected in [
        CONTACT,
        SAID,
        "data-from=\"0.5\" data-to=\"3.0\"",
        "<span class=\"latency\" title=\"Until the bot answered\">750 ms</span>",
        "1m 13s",
        "To a human",
        "<dt>tier</dt><dd dir=\"auto\">gold</dd>",
        "Hand-over brief",
        "Deliveries <span class=\"count\" data-live=\"delivery-count\">6</span>",
        // The call itself keeps only the latest of each type.
        "<circle class=\"bad\" cx=\"13.7%\"",
        "<circle class=\"good\" cx=\"54.79%\"",
        "sentiment over the call: negative (20), positive (90)",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    // It is over: nothing more is waited for.
    assert!(!page.contains("data-live-page"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_quarantine_is_shown_and_tried_again() {
    let world = World::new().await;
    let readable = start("s1", "2026-03-15T14:30:00Z");
    let body = Verified::known(readable.as_bytes());
    store(&world).quarantine(Webhook::SessionEnd, &body, None, "an older reason", Instant::now()).await.unwrap();
    world.deliver(Webhook::SessionEnd, "no JSON at all").await;
    let browser = Browser::of(&world.run.base);
    let page = browser.page("quarantine").await;
    assert!(page.contains("an older reason"), "{page}");
    let ids =
        page.split("name=\"id\" value=\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("&#x2f;", "/"));
    let ids: Vec<String> = ids.collect();
    assert_eq!(ids.len(), 2, "{page}");
    let bodies: BTreeSet<String> = BTreeSet::from([
        browser.page(&format!("quarantine/body?id={}", ids[0])).await,
        browser.page(&format!("quarantine/body?id={}", ids[1])).await,
    ]);
    assert_eq!(bodies, BTreeSet::from([readable.clone(), "no JSON at all".to_owned()]));
    let form: Vec<(&str, &str)> = ids.iter().map(|id| ("id", id.as_str())).collect();
    let tried = browser.post("quarantine/replay", &form).await.text().await.unwrap();
    assert!(tried.contains("1 of 2 is stored") && tried.contains("stays: "), "{tried}");
    assert_eq!(world.quarantined().await.len(), 1);
    assert_eq!(text(&world.items("sessions").await[0], "session"), "exotel#s1");
    let nothing = browser.post("quarantine/replay", &[]).await;
    assert_eq!(nothing.status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_the_bus_did_not_take_are_shown_as_they_would_have_been_sent() {
    let world = World::new().await;
    let now = Instant::now();
    let event = json!({ "specversion": "1.0", "type": "call.ended", "subject": "exotel#<b>s1</b>", "time": now,
        "data": { "contact": CONTACT } });
    let s3_key = undelivered_key(&now.day(), "0123456789abcdef0123456789abcdef");
    let put = world.clients.s3.put_object().bucket(&world.stores().bucket).key(s3_key);
    put.body(event.to_string().into_bytes().into()).send().await.unwrap();
    let browser = Browser::of(&world.run.base);
    let page = browser.page("undelivered").await;
    assert!(page.contains("call.ended") && page.contains("exotel#&lt;b&gt;s1") && !page.contains("<b>s1"), "{page}");
    let id = format!("{}/0123456789abcdef0123456789abcdef", now.day());
    assert_eq!(browser.page(&format!("undelivered/body?id={id}")).await, event.to_string());
    assert_eq!(browser.get("undelivered/body?id=../../bodies/x").await.0, 404);
    assert_eq!(browser.get(&format!("undelivered/body?id={id}0")).await.0, 404);
    assert!(browser.page("undelivered?since=1h").await.contains("call.ended"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_call_is_shown_nowhere() {
    let world = World::new().await;
    let item = [("session", "exotel#s1"), ("state", "erased"), ("merged", "0")];
    let item: Item = item.map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned()))).into();
    let put = world.clients.dynamodb.put_item().table_name(&world.stores().tables["sessions"]);
    put.set_item(Some(item)).send().await.unwrap();
    let browser = Browser::of(&world.run.base);
    let (status, page) = browser.get(&call("exotel#s1")).await;
    assert_eq!((status, page.contains("is erased")), (404, true), "{page}");
    assert!(browser.page("").await.contains("No calls yet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_nothing_of_the_calls_that_are_looked_at() {
    let process = LocalProcess::with(&["--ephemeral"], &[("LOG_LEVEL", "debug")]).await;
    let browser = Browser::of(&process.base);
    let http = tests::http_client();
    let url = &process.endpoints.functions["session_start"];
    let body = start("marker-session", &Instant::now().to_string());
    http.post(url).body(body).send().await.unwrap();
    let before = process.log().len();
    let session = call("exotel#marker-session");
    let contact = CONTACT.trim_start_matches('+');
    for path in [
        "",
        &session,
        &format!("?contact={contact}"),
        &format!("?q={contact}"),
        &format!("?state={contact}"),
        &format!("{session}/recording"),
        &format!("{session}/delivery?event={contact}"),
        &format!("call/{contact}"),
        &format!("quarantine/body?id={contact}"),
        &format!("?token={contact}"),
    ] {
        browser.get(path).await;
    }
    browser.post("recordings/retry", &[("only", CONTACT)]).await;
    let log = process.log();
    // What was refused or not found is in it, as a number.
    assert!(log[before..].matches("the console did not show").count() >= 5, "{log}");
    for private in [contact, "marker-session"] {
        assert!(!log[before..].contains(private), "{private}: {}", &log[before..]);
    }
}

fn store(world: &World) -> Store {
    let environment = world.environment();
    let storage = shared::config::Storage::read(&|name: &str| environment.get(name).cloned());
    Store::without_cache(world.clients.clone(), storage.expect("names of tables"))
}

/// Keeps a brief, as the publisher does.
async fn hand_over(world: &World, body: &str) {
    let body = Verified::known(body.as_bytes());
    let delivery =
        Delivery::read(Webhook::PreAgentTransfer, &body, Source::Webhook, Country::default()).expect("a delivery");
    assert!(store(world).hand_over(&delivery, Instant::now()).await.expect("it is kept").is_some());
}
