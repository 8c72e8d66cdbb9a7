//! Looking at calls: lists that page, whatever their size, and the commands over them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::process::{Command, Stdio};

use aws_sdk_dynamodb::types::AttributeValue;
use cli::calls::filter::{BUDGET, Filter, find};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use shared::call::Field;
use shared::storage::{Order, Page, Place, Store, Window};
use shared::{Country, Instant, SessionKey, Webhook};
use tests::control_plane::Aws;
use tests::faults::between;
use tests::units::Operations;
use tests::{Item, LocalProcess, World, hookswitch};

fn instant(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

fn store(world: &World) -> Store {
    world.stores().open().unwrap().store().unwrap()
}

/// Puts a call that began then, as its deliveries would have left it.
async fn put(world: &World, place: &Place, contact: &str) {
    let day = format!("{}#{}", place.started_at.day(), place.key.shard(shared::storage::DAY_SHARDS));
    let texts = [
        ("session", place.key.as_str()),
        ("started_at", &place.started_at.to_string()),
        ("day", &day),
        ("contact", contact),
        ("state", "ended"),
    ];
    let item: Item = texts.iter().map(|(name, value)| ((*name).into(), AttributeValue::S((*value).into()))).collect();
    let table = &world.stores().tables["sessions"];
    world.clients.dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
}

/// Turns page after page until there is none.
async fn pages(turn: impl AsyncFn(Option<&Place>) -> Page) -> Vec<Vec<Place>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = turn(after.as_ref()).await;
        let place = |call: &shared::call::Call| Place { started_at: call.started_at.unwrap(), key: call.key.clone() };
        pages.push(page.calls.iter().map(place).collect());
        assert!(pages.len() < 1000, "it never ends");
        match page.next {
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => return pages,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_call_once_and_in_order() {
    let world = World::new().await;
    let store = store(&world);
    let mut random = StdRng::seed_from_u64(7);
    let mut places = BTreeSet::new();
    let contacts = ["+919876543210", "+919876543211"];
    let mut first_contacts = BTreeSet::new();
    for nth in 0..240 {
        // Many at one instant, many in one day, some days without any, and the edges of days.
        let day = [0, 0, 0, 1, 2, 30, 31][random.random_range(0..7)];
        let millis = [0, 0, 43_200_000, 86_399_999, random.random_range(0..86_400_000)][random.random_range(0..5)];
        let started_at = instant("2026-03-01T00:00:00Z").plus_seconds(day * 86_400).plus_millis(millis);
        let key: SessionKey = format!("{}#s{nth}", ["exotel", "vocobase"][nth % 2]).parse().unwrap();
        let place = Place { started_at, key };
        put(&world, &place, contacts[nth % 3 / 2]).await;
        if nth % 3 / 2 == 0 {
            first_contacts.insert(place.clone());
        }
        places.insert(place);
    }
    let windows = [
        ("2020-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.001Z"),
        ("2026-03-01T12:00:00.001Z", "2026-03-31T00:00:00Z"),
        ("2026-03-10T00:00:00Z", "2026-03-10T00:00:00Z"),
        ("2026-04-10T00:00:00Z", "2026-03-10T00:00:00Z"),
    ];
    for (since, until) in windows {
        let window = Window { since: instant(since), until: instant(until) };
        for (order, most) in [(Order::NewestFirst, 7), (Order::OldestFirst, 50), (Order::NewestFirst, 1000)] {
            let within = |places: &BTreeSet<Place>| {
                let has = |place: &&Place| (window.since..window.until).contains(&place.started_at);
                let mut within: Vec<Place> = places.iter().filter(has).cloned().collect();
                if order == Order::NewestFirst {
                    within.reverse();
                }
                within
            };
            let what = format!("{since} to {until}, {order:?}, {most} a page");
            let found = pages(async |after| store.list(&window, order, after, most).await.unwrap()).await;
            assert!(found[..found.len() - 1].iter().all(|page| page.len() == most), "{what}");
            assert!(found.concat() == within(&places), "{what}");
            let of = pages(async |after| store.list_of(contacts[0], &window, order, after, most).await.unwrap()).await;
            assert!(of.concat() == within(&first_contacts), "{what}");
        }
    }
}

const SINCE: [&str; 2] = ["--since", "2026-03-01"];

/// Three calls that began on one day: one that was handed over, one that goes on, one with a recording that failed.
async fn deliver_three(process: &LocalProcess) {
    let turn = |text: &str, second: u32| {
        let segment = json!({ "speaker": "user", "text": text,
            "start_timestamp": format!("2026-03-15T10:00:{second}Z"), "end_timestamp": format!("2026-03-15T10:00:{second}.5Z") });
        json!({ "event_type": "transcript", "event_data":
            { "transcripts": [{ "sequence": second, "status": "completed", "transcript_segments": [segment] }] } })
    };
    let mood = json!({ "event_type": "sentiment", "event_id": "e1", "event_data":
        { "value": "negative", "score": 12, "reason": "waits too long", "timestamp": "2026-03-15T10:00:40Z" } });
    let exotel = |id: &str, contact: &str, start: &str, end: Option<&str>, events: Value| {
        json!({ "session_id": id, "contact_uri": contact, "start_time": start, "end_time": end, "bot_id": "b1",
            "bot_name": "Support bot", "trigger_reason": "told", "events": events, "custom_parameters": { "plan": "gold" } })
    };
    let handed = exotel("handed", "09876543210", "2026-03-15T10:00:00Z", None, json!([]));
    let words = exotel(
        "handed",
        "09876543210",
        "2026-03-15T10:00:00Z",
        None,
        json!([turn("I want a human", 12), turn("\u{1b}[31mnow", 20)]),
    );
    let insight = exotel("handed", "09876543210", "2026-03-15T10:00:00Z", None, json!([mood]));
    let over = exotel("handed", "09876543210", "2026-03-15T10:00:00Z", Some("2026-03-15T10:01:05Z"), json!([]));
    let going = exotel("going", "+14155550123", "2026-03-15T11:00:00Z", None, json!([]));
    let vocobase = json!({ "event": "session.completed", "timestamp": "2026-03-15T12:10:00Z", "data": {
        "session_id": "voco", "agent_id": "a1", "agent_name": "=2+3", "duration_seconds": 600, "credits_used": 1.5,
        "transcript": [{ "role": "bot", "content": "Namaste", "timestamp": "2026-03-15T12:00:01Z", "latency_ms": 640 }],
        "recording_url": "https://recordings.example.com/r.wav?Signature=top-secret",
        "latency": { "min_ms": 300, "max_ms": 900, "avg_ms": 640 },
        "call": { "call_id": "c1", "from_number": "+14155550100", "to_number": "+919876543211", "direction": "outbound",
            "started_at": "2026-03-15T12:00:00Z", "ended_at": "2026-03-15T12:10:00Z", "status": "completed" } } });
    let deliveries = [
        (Webhook::SessionStart, &handed),
        (Webhook::TranscriptEvents, &words),
        (Webhook::InsightsEvents, &insight),
        (Webhook::PreAgentTransfer, &handed),
        (Webhook::SessionEnd, &over),
        (Webhook::SessionStart, &going),
        (Webhook::SessionCompleted, &vocobase),
    ];
    for (webhook, body) in deliveries {
        let session_id = "any".to_owned();
        let delivery = cli::simulate::calls::Planned { webhook, session_id, body: body.to_string().into_bytes() };
        assert!(tests::post(&tests::http_client(), &process.endpoints, &delivery).await);
    }
}

fn run(port: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(hookswitch()).args(arguments).args(["--port", port]).output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What a command prints, which ends well and says nothing else.
fn printed(port: &str, arguments: &[&str]) -> String {
    let (code, out, err) = run(port, arguments);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}: {out}");
    out
}

fn port_of(process: &LocalProcess) -> &str {
    process.base.rsplit_once(':').expect("a port").1
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_found_by_what_they_are_and_printed_for_people_programs_and_spreadsheets() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    deliver_three(&process).await;
    let port = port_of(&process);
    let list = |arguments: &[&str]| {
        let all = [&["calls", "--json"], &SINCE[..], arguments].concat();
        let sessions = printed(port, &all)
            .lines()
            .map(|line| {
                let call: Value = serde_json::from_str(line).expect("JSON");
                call["session_id"].as_str().expect("an id").to_owned()
            })
            .collect::<Vec<String>>();
        sessions.join(" ")
    };
    for (arguments, found) in [
        (&[] as &[&str], "voco going handed"),
        (&["--reverse"], "handed going voco"),
        (&["--until", "2026-03-15T11:00:00Z"], "handed"),
        (&["--provider", "vocobase"], "voco"),
        (&["--state", "in_progress"], "going"),
        (&["--bot", "b1"], "going handed"),
        (&["--contact", "98765 43210"], "handed"),
        (&["--contact", "+14155550199"], ""),
        (&["--recording", "any"], "voco"),
        (&["--recording", "none"], "going handed"),
        (&["--transferred"], "handed"),
        (&["--transferred=false"], "voco going"),
        (&["--sentiment", "negative"], "handed"),
        (&["--sort", "duration"], "voco handed going"),
        (&["--sort", "duration", "--reverse"], "handed voco going"),
        (&["--sort", "latency", "--limit", "1"], "voco"),
    ] {
        assert_eq!(list(arguments), found, "{arguments:?}");
    }

    let table = printed(port, &[&["calls"], &SINCE[..]].concat());
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("STARTED") && lines.len() == 4, "{table}");
    assert!(lines[3].starts_with("2026-03-15 10:00  1:05") && lines[3].contains("transferred"), "{table}");
    assert!(lines[3].contains("+919876543210  negative") && lines[3].ends_with("exotel#handed"), "{table}");
    assert!(!table.contains('\u{1b}'), "no colours without a terminal");

    let csv = printed(port, &[&["calls", "--csv"], &SINCE[..]].concat());
    let lines: Vec<&str> = csv.lines().collect();
    assert!(lines[0].starts_with("session,provider,started_at,") && lines.len() == 4, "{csv}");
    assert!(lines[1].contains(",a1,'=2+3,+919876543211,"), "a spreadsheet must not take it for a formula: {csv}");

    // Page by page, as the last line says.
    let (code, first, more) = run(port, &["calls", "--json", "--since", "2026-03-01", "--limit", "2"]);
    assert_eq!((code, first.lines().count()), (Some(0), 2));
    let place = more.split('\'').nth(1).expect("a place");
    assert_eq!(list(&["--limit", "2", "--after", place]), "handed", "{more}");
    assert_eq!(list(&["--all"]), "voco going handed");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_call_is_one_screen_and_totals_count_every_call_once() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    deliver_three(&process).await;
    let port = port_of(&process);
    let screen = printed(port, &["call", "handed"]);
    for part in [
        "exotel#handed  ended  1:05  a human was asked for",
        "contact    +919876543210",
        r#"parameters {"plan":"gold"}"#,
        "   +0:12  user       I want a human",
        "sentiment  negative  score 12, waits too long",
        "   +1:05  ended",
        "Deliveries (5)",
    ] {
        assert!(screen.contains(part), "{part} is not in\n{screen}");
    }
    assert!(!screen.contains('\u{1b}') && screen.contains(r"\u{1b}[31mnow"), "{screen}");
    let vocobase = printed(port, &["call", "vocobase#voco"]);
    assert!(vocobase.contains("Namaste  (640 ms)") && !vocobase.contains("top-secret"), "{vocobase}");

    let json: Value = serde_json::from_str(&printed(port, &["call", "handed", "--json"])).expect("JSON");
    let said: Vec<&Value> = json["transcript"].as_array().expect("a list").iter().map(|said| &said["text"]).collect();
    assert_eq!(said, ["I want a human", "\u{1b}[31mnow"]);
    assert_eq!((&json["duration_seconds"], &json["recording_job"]), (&json!(65), &Value::Null));
    assert_eq!(json["deliveries"].as_array().map(Vec::len), Some(5));
    assert_eq!(json["insights"]["sentiment"]["score"], 12);

    let stats: Value =
        serde_json::from_str(&printed(port, &["stats", "--since", "2026-03-01", "--json"])).expect("JSON");
    assert_eq!(stats["all"], json!({ "calls": 3, "transferred": 1, "seconds": 665.0, "credits": 1.5 }));
    assert_eq!((&stats["in_progress"], &stats["days"]["2026-03-15"]["calls"]), (&json!(1), &json!(3)));
    assert_eq!(stats["bots"]["b1"]["calls"], 2);
    assert_eq!(stats["sentiments"], json!({ "negative": 1 }));
    assert_eq!(stats["duration_seconds"]["p50"], 65.0);
    let screen = printed(port, &["stats", "--since", "2026-03-01"]);
    assert!(screen.starts_with("3 calls, 1 in progress, 1 with a human asked for (33 %), 11:05 in all"), "{screen}");
    assert!(screen.contains("2026-03-15       3  ████████████████████████  33 % transferred"), "{screen}");

    // The same of a stack, found by the environment as the AWS CLI finds it.
    let aws = Aws::of(&process.endpoints).await;
    for command in [&["calls", "--since", "2026-03-01"][..], &["call", "handed"], &["stats", "--since", "2026-03-01"]] {
        let output = aws.run(&[command, &["--stack", "prod"]].concat(), "").await;
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed(port, &[command, &["--local"]].concat()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_questions_end_with_a_reason_and_its_exit_code() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    let port = port_of(&process);
    for (arguments, code, why) in [
        (&["call", "nobody"] as &[&str], 1, "no call nobody is stored"),
        (&["calls", "--state", "over"], 2, "invalid value 'over'"),
        (&["calls", "--since", "yesterday"], 2, "neither a date, nor an instant"),
        (&["calls", "--after", "here"], 2, "no place in a list"),
        (&["calls", "--json", "--csv"], 2, "cannot be used with"),
        (&["calls", "--local", "--stack", "prod"], 2, "cannot be used with"),
        (&["tail", "nobody"], 1, "no call nobody is stored"),
    ] {
        let (status, out, err) = run(port, arguments);
        assert_eq!((status, out.as_str()), (Some(code), ""), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    assert_eq!(run("9", &["calls"]).0, Some(1));
    assert!(printed(port, &["calls", "--csv"]).starts_with("session,"), "the names alone");
    assert!(printed(port, &["stats"]).starts_with("0 calls"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_tells_what_happens_once_and_a_pipe_that_closes_ends_it() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    deliver_three(&process).await;
    let arguments =
        ["tail", "--json", "--since", "2026-03-01", "--interval", "0.1", "--last", "1", "--port", port_of(&process)];
    let mut tail = Command::new(hookswitch()).args(arguments).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut lines = std::io::BufReader::new(tail.stdout.take().expect("a pipe")).lines();
    let mut next = || {
        let line: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        format!(
            "{} {} {}",
            line["session"].as_str().unwrap(),
            line["what"].as_str().unwrap(),
            line["word"].as_str().unwrap()
        )
    };
    assert_eq!(next(), "vocobase#voco started +919876543211 a1");
    assert_eq!(next(), "vocobase#voco ended 10:00 completed");
    // The archiver may have been there or not: its host is refused.
    let mut recording = next();
    if recording == "vocobase#voco recording pending" {
        recording = next();
    }
    assert_eq!(recording, "vocobase#voco recording rejected");
    let over =
        json!({ "session_id": "going", "start_time": "2026-03-15T11:00:00Z", "end_time": "2026-03-15T11:00:09Z" });
    for _ in 0..2 {
        let body = over.to_string().into_bytes();
        let delivery =
            cli::simulate::calls::Planned { webhook: Webhook::SessionEnd, session_id: "going".to_owned(), body };
        assert!(tests::post(&tests::http_client(), &process.endpoints, &delivery).await);
    }
    assert_eq!(next(), "exotel#going ended 0:09");
    drop(lines);
    // It notices at the next thing to tell.
    deliver_new(&process).await;
    let status = tail.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
}

async fn deliver_new(process: &LocalProcess) {
    for nth in 0..2 {
        let id = format!("new{nth}");
        let body = json!({ "session_id": id, "start_time": "2026-03-15T13:00:00Z" }).to_string().into_bytes();
        let delivery = cli::simulate::calls::Planned { webhook: Webhook::SessionStart, session_id: id, body };
        assert!(tests::post(&tests::http_client(), &process.endpoints, &delivery).await);
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_closes_early_is_no_failure() {
    let process = LocalProcess::start(&["--ephemeral"]).await;
    deliver_three(&process).await;
    for command in [&["calls", "--all"][..], &["call", "handed"], &["stats"]] {
        let arguments = [command, &["--port", port_of(&process)]].concat();
        let mut child = Command::new(hookswitch())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{command:?}");
    }
}

#[test]
fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(hookswitch()).args(["completions", shell]).output().expect("it runs");
        let script = String::from_utf8(output.stdout).expect("text");
        for word in ["calls", "sentiment", "quarantine"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let bash = Command::new(hookswitch()).args(["completions", "bash"]).output().expect("it runs").stdout;
    let script = format!(
        "{}\nCOMP_WORDS=(hookswitch cal) COMP_CWORD=1; _hookswitch hookswitch cal hookswitch; echo ${{COMPREPLY[@]}}",
        String::from_utf8_lossy(&bash)
    );
    let output = Command::new("bash").args(["--norc", "-c", &script]).output().expect("a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "calls call");
}

#[allow(clippy::disallowed_methods, reason = "a test's own configuration")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Lists, filtered lists and one call, each many times, with what each asked the store for. With `HOOKSWITCH_CASES` as
/// many calls as that.
#[allow(clippy::print_stdout, reason = "a measurement")]
#[tokio::test(flavor = "multi_thread")]
async fn a_page_asks_for_no_more_the_more_calls_there_are() {
    let world = World::new().await;
    let (since, until) = (instant("2026-03-01T00:00:00Z"), instant("2026-03-31T00:00:00Z"));
    let calls = usize::try_from(number("HOOKSWITCH_CASES").unwrap_or(300)).unwrap();
    let began = std::time::Instant::now();
    tests::crowd::fill(&world, calls, since, until).await;
    println!("{calls} calls in {:.0} s", began.elapsed().as_secs_f64());
    let operations = Operations::default();
    let mut opened = world.stores().open().unwrap();
    opened.clients = between(&opened.clients, &operations);
    let store = opened.store().unwrap();
    let rounds = if calls > 1000 { 100 } else { 5 };
    let filtered = [("sentiment", "negative"), ("bot", "agent-2"), ("transferred", "true")];
    for (what, pairs) in [("list", &[][..]), ("filtered list", &filtered[..1]), ("list of a bot", &filtered[1..2])] {
        let filter = Filter::read(pairs.iter().copied()).unwrap();
        let (mut after, mut took, mut most) = (None, Vec::new(), BTreeMap::new());
        for _ in 0..rounds {
            let began = std::time::Instant::now();
            let window = Window { since, until };
            let bounds = (50, BUDGET);
            let found = find(&store, &filter, Country::INDIA, &window, Order::NewestFirst, after.as_ref(), bounds)
                .await
                .unwrap();
            took.push(began.elapsed());
            assert!(found.calls.iter().all(|call| filter.has(call, Country::INDIA)));
            // As the period is, at most: four keys a day, and what the budget buys in hundreds.
            let asked = operations.take();
            assert!(asked.keys().all(|name| name == "Query" || name == "BatchGetItem"), "{asked:?}");
            let (queries, reads) = (asked["Query"], asked.get("BatchGetItem").copied().unwrap_or_default());
            assert!(reads <= 1 + BUDGET / 100 + 2 && queries <= 4 * 31 * reads.max(1), "{what}: {asked:?}");
            if pairs.is_empty() {
                assert_eq!((reads, found.calls.len()), (1, 50.min(calls)));
            }
            for (name, count) in asked {
                let known = most.entry(name).or_insert(0);
                *known = count.max(*known);
            }
            after = found.next;
        }
        report(what, took, &format!("{most:?} at most"));
    }
    let newest = store.list(&Window { since, until }, Order::NewestFirst, None, 50).await.unwrap().calls;
    operations.take();
    let mut took = Vec::new();
    for call in newest.iter().cycle().take(rounds) {
        let began = std::time::Instant::now();
        let whole = cli::call::Whole::read(&opened, &store, &call.key, until).await.unwrap().unwrap();
        took.push(began.elapsed());
        assert!(!whole.conversation.is_empty() && !whole.deliveries.is_empty());
        assert_eq!(operations.take(), BTreeMap::from([("GetItem".to_owned(), 2), ("Query".to_owned(), 2)]));
    }
    report("one call", took, "2 queries, 2 items");

    let key = percent_encoding::utf8_percent_encode(newest[0].key.as_str(), percent_encoding::NON_ALPHANUMERIC);
    let since = "since=2026-03-01&until=2026-03-31";
    for (what, path) in [
        ("page: list", format!("?{since}")),
        ("page: filtered", format!("?{since}&sentiment=negative")),
        ("page: a number", format!("?contact=%2B{}", newest[0].get(Field::Contact).unwrap().trim_start_matches('+'))),
        ("page: one call", format!("call/{key}")),
    ] {
        let mut took = Vec::new();
        for _ in 0..rounds {
            let began = std::time::Instant::now();
            let answer = world.http.get(format!("{}/console/{path}", world.run.base)).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            let page = answer.text().await.unwrap();
            took.push(began.elapsed());
            assert!(page.contains("</html>") && page.len() > 5_000, "{path}: {page}");
        }
        report(what, took, "over HTTP");
    }
}

/// Prints how long something took: this tells, and decides nothing.
#[allow(clippy::print_stdout, reason = "a measurement")]
fn report(what: &str, mut took: Vec<std::time::Duration>, asked: &str) {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1];
    println!("{what:<14} p50 {:>9.1?}  p95 {:>9.1?}  max {:>9.1?}  {asked}", at(50), at(95), at(100));
}
