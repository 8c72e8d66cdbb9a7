//! What every command says: its help, an example on a small bundle, and the same as JSON where it has `--json`. One file
//! for each command, under `snapshots/`.
//!
//! A command that is new needs an entry in [`EXAMPLES`]. To accept what commands say now, and look at what has changed:
//! `INSTA_UPDATE=always cargo test --workspace --test stories -- snapshots; git diff tests/stories/snapshots`. Without
//! that variable a difference fails, and is kept as a `.snap.new` beside the file, where `CI` is not set.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Output};

use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use shared::Webhook;
use shared::storage::UNDELIVERED;
use tests::control_plane::{Aws, EXOTEL_ARN};
use tests::{LocalProcess, World, at, hookswitch};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Where an example runs. Each has a bundle of its own.
#[derive(Clone, Copy, PartialEq)]
enum On {
    /// Nowhere: no bundle is asked.
    Nothing,
    /// Calls of 2026-03-15, and a clock that stands still that day: nothing of it varies.
    Calls,
    /// `hookswitch dev --ephemeral`: empty, and with the real time, for what signs with it.
    Process,
}

/// An example: where, what is written after `hookswitch`, what it reads on its standard input, and after how many lines
/// it is stopped, if it does not end by itself (0: it does). The local run is told by `--port` without being said here,
/// `--stack prod` means it, too; `{other}` is the URL of a second bundle, and
/// `{folder}` an empty folder. With `--json`, if the command has it, it is
/// run once more.
struct Example(On, &'static str, &'static str, usize);

const PROFILE: &str = r#"{"greeting":"Hello"}"#;

/// One for every command at least, by their names without options, which they begin with.
const EXAMPLES: &[Example] = &[
    Example(On::Nothing, "--version", "", 0),
    Example(On::Nothing, "dev --port 0 --ephemeral", "", 12),
    Example(On::Process, "simulate --calls 4 --seed 7 --rate 100", "", 0),
    Example(On::Calls, "urls", "", 0),
    Example(On::Calls, "urls --stack prod", "", 0),
    Example(On::Calls, "secret set vocobase --stack prod", "whsec_another-secret", 0),
    Example(On::Calls, "secret rotate exotel --stack prod", "", 0),
    Example(On::Calls, "secret retire exotel --stack prod", "y\n", 0),
    Example(On::Process, "doctor", "", 0),
    Example(On::Process, "doctor --stack prod", "", 0),
    Example(On::Calls, "recordings list", "", 0),
    Example(On::Calls, "recordings show vocobase#voco", "", 0),
    Example(On::Calls, "recordings retry voco", "", 0),
    Example(On::Calls, "brief handed", "", 0),
    Example(On::Calls, "calls --since 2026-03-01", "", 0),
    Example(On::Calls, "calls --since 2026-03-01 --limit 2", "", 0),
    Example(On::Calls, "call handed", "", 0),
    Example(On::Calls, "tail --since 2026-03-01 --last 2", "", 3),
    Example(On::Nothing, "cost --calls 50000 --retention-days 90", "", 0),
    Example(On::Nothing, "cost --prices", "", 0),
    Example(On::Calls, "stats --since 2026-03-01", "", 0),
    Example(On::Calls, "console --stack prod", "", 2),
    Example(On::Calls, "export --since 2026-03-15 --until 2026-03-16 --format ndjson --out {folder}", "", 0),
    Example(On::Calls, "erase --contact 98765-43210 --dry-run", "", 0),
    Example(On::Calls, "erase --session exotel#handed", "n\n", 0),
    Example(On::Nothing, "completions fish", "", 3),
    Example(On::Calls, "profile list", "", 0),
    Example(On::Calls, "profile get default", "", 0),
    Example(On::Calls, "profile put bot#b1 -", PROFILE, 0),
    Example(On::Calls, "profile delete default", "y\n", 0),
    Example(On::Nothing, "profile validate -", r#"{"greetings":"Hello"}"#, 0),
    Example(On::Calls, "profile preview default", "", 0),
    Example(On::Calls, "quarantine list --since 2026-03-01", "", 0),
    Example(On::Calls, "quarantine show 2026-03-15/session_end/4381aba4b8352952", "", 0),
    Example(On::Calls, "quarantine replay --all --since 2026-03-01", "y\n", 0),
    Example(On::Calls, "rebuild --session exotel#damaged", "y\n", 0),
    Example(On::Calls, "replay --session exotel#handed --to {other}", "", 0),
    Example(On::Calls, "undelivered list --since 2026-03-01", "", 0),
    Example(On::Calls, "undelivered show 2026-03-15/0123456789abcdef0123456789abcdef", "", 0),
    Example(On::Calls, "undelivered resend --all --since 2026-03-01", "y\n", 0),
];

/// What varies from run to run: what it looks like, and what stands there instead.
const VARIES: &[(&str, &str)] = &[
    // Ports of the local run and its stores.
    (r"(127\.0\.0\.1):[0-9]+", "$1:[port]"),
    // Tokens of functions.
    (r"token=[A-Za-z0-9._-]+", "token=[token]"),
    (r"hookswitch [0-9]+\.[0-9]+\.[0-9]+", "hookswitch [version]"),
    // The column AGE of `recordings list`, counted to now.
    (r"(vocobase#\S+ +[a-z]+ +)[0-9]+d", "$1[age]"),
    // Latencies of a simulation, of a doctor's deliveries, and of a simulation's JSON.
    (r"[0-9]+\.[0-9] ms", "[latency]"),
    (r"stored in [0-9]+ ms", "stored in [latency]"),
    (r#"("p[0-9]+": )[0-9.]+"#, "$1[latency]"),
    // The session of a doctor's deliveries.
    (r"doctor-[A-Za-z0-9]{12}", "doctor-[random]"),
];

/// A call that was handed over, one that goes on, one with a recording to be fetched; a body in quarantine, an event put
/// aside, a profile, and a call whose item is lost.
async fn calls() -> World {
    let world = World::with(&[], at("2026-03-15T14:00:00Z")).await;
    let exotel = |id: &str, start: &str, more: Value| {
        let mut body = json!({ "session_id": id, "contact_uri": "+919876543210", "start_time": start, "bot_id": "b1",
            "bot_name": "Support bot", "custom_parameters": { "plan": "gold" }, "events": [] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let start = "2026-03-15T10:00:00Z";
    let said = json!({ "event_type": "transcript", "event_data": { "transcripts": [{ "sequence": 1,
        "status": "completed", "transcript_segments": [{ "speaker": "user", "text": "I want a human",
            "start_timestamp": "2026-03-15T10:00:12Z", "end_timestamp": "2026-03-15T10:00:13.5Z" }] }] } });
    let mood = json!({ "event_type": "sentiment", "event_id": "e1", "event_data": { "value": "negative", "score": 12,
        "reason": "waits too long", "timestamp": "2026-03-15T10:00:40Z" } });
    let vocobase = json!({ "event": "session.completed", "timestamp": "2026-03-15T12:10:00Z", "data": {
        "session_id": "voco", "agent_id": "a1", "agent_name": "Reminders", "duration_seconds": 600,
        "credits_used": 1.5, "recording_url": "https://recordings.example.com/r.wav?Signature=top-secret",
        "transcript": [{ "role": "bot", "content": "Namaste", "timestamp": "2026-03-15T12:00:01Z", "latency_ms": 640 }],
        "latency": { "min_ms": 300, "max_ms": 900, "avg_ms": 640 },
        "call": { "call_id": "c1", "from_number": "+14155550100", "to_number": "+919876543211",
            "direction": "outbound", "started_at": "2026-03-15T12:00:00Z", "ended_at": "2026-03-15T12:10:00Z",
            "status": "completed" } } });
    for (webhook, body) in [
        (Webhook::SessionStart, exotel("handed", start, json!({}))),
        (Webhook::TranscriptEvents, exotel("handed", start, json!({ "events": [said] }))),
        (Webhook::InsightsEvents, exotel("handed", start, json!({ "events": [mood] }))),
        (Webhook::PreAgentTransfer, exotel("handed", start, json!({ "trigger_reason": "pre_agent_transfer" }))),
        (Webhook::SessionEnd, exotel("handed", start, json!({ "end_time": "2026-03-15T10:01:05Z" }))),
        (Webhook::SessionStart, exotel("going", "2026-03-15T11:00:00Z", json!({}))),
        (Webhook::SessionStart, exotel("damaged", "2026-03-14T11:00:00Z", json!({}))),
        (Webhook::SessionCompleted, vocobase),
        (Webhook::SessionEnd, json!({ "session_id": "handed", "events": "Hello!" })),
    ] {
        assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200, "{body}");
    }
    let (tables, text) = (&world.stores().tables, |text: &str| AttributeValue::S(text.to_owned()));
    let delete = world.clients.dynamodb.delete_item().table_name(&tables["sessions"]);
    delete.key("session", text("exotel#damaged")).send().await.unwrap();
    let put = world.clients.dynamodb.put_item().table_name(&tables["profiles"]);
    put.item("profile", text("default")).item("greeting", text("Hello")).send().await.unwrap();
    let event = json!({ "specversion": "1.0", "type": "call.ended", "source": "hookswitch", "subject": "exotel#handed",
        "id": "0123456789abcdef0123456789abcdef", "time": "2026-03-15T10:01:05Z", "data": {} });
    let key = format!("{UNDELIVERED}2026-03-15/0123456789abcdef0123456789abcdef.json");
    let put = world.clients.s3.put_object().bucket(&world.stores().bucket).key(key);
    put.body(event.to_string().into_bytes().into()).send().await.unwrap();
    world
}

/// The help of a command, at a width of its own whatever the terminal's is.
fn help(command: &str) -> String {
    let mut help = Command::new(hookswitch());
    let output = help.args(command.split_whitespace()).arg("--help").env("COLUMNS", "120").output().expect("it runs");
    assert!(output.status.success(), "{command}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Every command's help by its name, those below a command included; "" is `hookswitch` itself.
fn commands() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut next = vec![String::new()];
    while let Some(command) = next.pop() {
        let help = help(&command);
        let list = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // What is further in goes on with the line before.
        let names = list.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
            next.push(format!("{command} {name}").trim().to_owned());
        }
        found.insert(command, help);
    }
    assert!(found.len() > 30, "a list of commands is not read: {:?}", found.keys());
    found
}

/// Whether a command has an option, by its help.
fn has_option(help: &str, option: &str) -> bool {
    help.lines().any(|line| line.trim_start().starts_with(option))
}

/// The command that an example is one of: the longest that it begins with.
fn command_of<'a>(commands: &'a BTreeMap<String, String>, example: &str) -> &'a str {
    let is_of = |command: &&String| command.is_empty() || format!("{example} ").starts_with(&format!("{command} "));
    commands.keys().filter(is_of).max_by_key(|command| command.len()).expect("hookswitch itself")
}

/// Runs an example, and writes down what it was, said and ended with.
async fn run(Example(on, example, input, lines): &Example, help: &str, json: bool, other: &World) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().to_str().expect("text");
    let written = example.replace("{other}", &other.run.base).replace("{folder}", folder);
    let written = if json { format!("{written} --json") } else { written };
    let (world, process) = match on {
        On::Nothing => (None, None),
        On::Calls => (Some(calls().await), None),
        On::Process => (None, Some(LocalProcess::start(&["--ephemeral"]).await)),
    };
    let endpoints = world.as_ref().map(World::endpoints).or(process.as_ref().map(|process| &process.endpoints));
    let base = world.as_ref().map(|world| &world.run.base).or(process.as_ref().map(|process| &process.base));
    let aws = Aws::of(endpoints.unwrap_or(other.endpoints())).await;
    if example.starts_with("secret retire") {
        aws.account().secrets.insert(EXOTEL_ARN.to_owned(), "k2:new-secret,k1:old-secret".to_owned());
    }
    let mut arguments: Vec<&str> = written.split_whitespace().collect();
    if let Some(base) = base.filter(|_| has_option(help, "--port") && !example.contains("--stack")) {
        arguments.extend(["--port", base.rsplit_once(':').expect("a port").1]);
    }
    let said = if *lines == 0 {
        let Output { status, stdout, stderr } = aws.run(&arguments, input).await;
        let [stdout, stderr] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).expect("text"));
        let stderr = stderr.lines().fold(String::new(), |lines, line| lines + "stderr: " + line + "\n");
        // A body is printed as it came, without an end of the line.
        let end = if stdout.is_empty() || stdout.ends_with('\n') { "" } else { "\n" };
        format!("{stdout}{end}{stderr}exit code {}\n", status.code().expect("it ends by itself"))
    } else {
        let mut child = aws.command(&arguments).spawn().expect("it runs");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).await.expect("it is taken");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut said = String::new();
        for _ in 0..*lines {
            said += &out.next_line().await.expect("text").expect("as many lines as the example asks for");
            said.push('\n');
        }
        drop(out);
        if let Some(id) = child.id() {
            // It may have ended by itself, since nobody reads any more.
            let _ = Command::new("kill").args(["-TERM", &id.to_string()]).output();
        }
        child.wait().await.expect("it ends");
        format!("{said}(it is not read any further)\n")
    };
    format!("$ hookswitch {written}\n{said}").replace(folder, "[folder]")
}

#[test]
fn every_command_has_an_example_and_every_snapshot_a_command() {
    let commands = commands();
    let shown: BTreeSet<&str> = EXAMPLES.iter().map(|Example(_, example, ..)| command_of(&commands, example)).collect();
    // Those with commands below them do nothing themselves.
    let does = |(command, help): &(&String, &String)| command.is_empty() || !help.contains("\nCommands:\n");
    let missing: Vec<String> = (commands.iter().filter(does))
        .filter(|(command, _)| !shown.contains(command.as_str()))
        .map(|(command, _)| format!("    Example(On::Calls, \"{command} …\", \"\", 0),\n"))
        .collect();
    let missing = missing.concat();
    assert!(missing.is_empty(), "add to EXAMPLES in tests/stories/snapshots.rs, with arguments:\n{missing}");
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/stories/snapshots")).expect("a folder");
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let kept: BTreeSet<String> = names.filter_map(|name| Some(name.strip_suffix(".snap")?.to_owned())).collect();
    let wanted: BTreeSet<String> = commands.keys().map(|command| file(command)).collect();
    let gone: Vec<&String> = kept.difference(&wanted).collect();
    assert!(gone.is_empty(), "snapshots of commands that are no more, to be deleted: {gone:?}");
}

/// The name of a command's snapshot.
fn file(command: &str) -> String {
    format!("hookswitch {command}").trim().replace(' ', "_")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_what_it_said() {
    let commands = commands();
    let other = World::new().await;
    let shown = async |(command, help): (&String, &String)| {
        let mut text = format!("$ {} --help\n{help}", format!("hookswitch {command}").trim());
        for example in EXAMPLES.iter().filter(|Example(_, example, ..)| command_of(&commands, example) == command) {
            for json in [false, true].into_iter().take(1 + usize::from(has_option(help, "--json"))) {
                text.push('\n');
                text += &run(example, help, json, &other).await;
            }
        }
        (command.clone(), text)
    };
    let shown: Vec<(String, String)> = stream::iter(&commands).map(shown).buffered(4).collect().await;
    let mut differ = Vec::new();
    for (command, text) in shown {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        for (pattern, instead) in VARIES {
            settings.add_filter(pattern, *instead);
        }
        let same = || settings.bind(|| insta::assert_snapshot!(file(&command), text));
        if catch_unwind(AssertUnwindSafe(same)).is_err() {
            differ.push(command);
        }
    }
    assert!(
        differ.is_empty(),
        "differ: {differ:?}; how to accept that is said at the head of tests/stories/snapshots.rs"
    );
}
