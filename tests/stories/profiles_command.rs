//! `hookswitch profile`: seen, tried and changed with the real command, on the local run and as on a stack.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shared::Webhook;
use shared::profile::template::{FILTERS, VARIABLES};
use shared::profile::{MEMBERS, OVERRIDABLE, Reason, check};
use tests::control_plane::Aws;
use tests::{Item, World, text};

const STACK: [&str; 2] = ["--stack", "prod"];
const SCHEMA: &str = include_str!("../../docs/profile.schema.json");

struct Bundle {
    world: World,
    aws: Aws,
    port: String,
}

/// What a command came to.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn said(self, out: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(0), out), "{}", self.err);
    }

    fn refused(self, out: &str, why: &str) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(1), out, &*format!("hookswitch: {why}\n")));
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{}{}", self.out, self.err))
    }
}

impl Bundle {
    async fn new() -> Self {
        let world = World::new().await;
        let aws = Aws::of(world.endpoints()).await;
        let port = world.run.base.rsplit_once(':').unwrap().1.to_owned();
        Self { world, aws, port }
    }

    async fn run(&self, arguments: &[&str], input: &str) -> Done {
        let output = self.aws.run(&[&["profile"], arguments].concat(), input).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// On the local run.
    async fn local(&self, arguments: &[&str], input: &str) -> Done {
        self.run(&[arguments, &["--port", &self.port]].concat(), input).await
    }

    async fn put(&self, name: &str, document: &Value) {
        self.local(&["put", name, "-"], &document.to_string()).await.said(&format!("{name}: stored\n"));
    }

    async fn item(&self, name: &str) -> Item {
        let mut items = self.world.items("profiles").await;
        items.retain(|item| text(item, "profile") == name);
        items.pop().expect("a profile")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_is_put_seen_replaced_and_deleted() {
    let bundle = Bundle::new().await;
    let document = "{\"timezone\": \"Asia/Kolkata\", \"greeting\": \"नमस्ते\",\n \"memory\": true, \"transfer_message\": \"\",\n\
        \"session_constants\": {\"rate\": 2.5, \"id\": 12345678901234567890123456789, \"on\": false, \"none\": null, \"list\": [1, \"a\"]},\n\
        \"webhooks\": {\"session_end\": {}}}";
    bundle.run(&["put", "default", "-", STACK[0], STACK[1]], document).await.said("default: stored\n");
    // Native attributes: people edit them in a console.
    let item = bundle.item("default").await;
    let constants = item["session_constants"].as_m().unwrap();
    assert_eq!(constants["id"].as_n().map(String::as_str), Ok("12345678901234567890123456789"));
    assert_eq!((text(constants, "rate"), constants["none"].as_null()), ("2.5", Ok(&true)));
    assert_eq!((item["memory"].as_bool(), constants["on"].as_bool()), (Ok(&true), Ok(&false)));
    assert_eq!((constants["list"].as_l().unwrap().len(), item["webhooks"].as_m().unwrap().len()), (2, 1));

    let shown = "{\n  \"greeting\": \"नमस्ते\",\n  \"session_constants\": {\"id\":12345678901234567890123456789,\"list\":[1,\"a\"],\"none\":null,\"on\":false,\"rate\":2.5},\n  \
        \"webhooks\": {\"session_end\":{}},\n  \"transfer_message\": \"\",\n  \"memory\": true,\n  \"timezone\": \"Asia/Kolkata\"\n}\n";
    bundle.local(&["get", "default"], "").await.said(shown);
    // What is shown is what can be put, and comes to the same.
    bundle.local(&["put", "default", "-"], shown).await.said("default: replaced\n");
    assert_eq!(bundle.item("default").await, item);
    // A member that is not in the new document is not kept.
    bundle.local(&["put", "default", "-"], "{}").await.said("default: replaced\n");
    assert_eq!(bundle.item("default").await.len(), 1);
    bundle.local(&["get", "default"], "").await.said("{}\n");

    bundle.put("number#+918047000000", &json!({ "greeting": "Hello" })).await;
    bundle.local(&["list"], "").await.said("PROFILE               SAYS\ndefault\nnumber#+918047000000  greeting\n");
    let listed = "{\"profile\":\"default\"}\n{\"greeting\":\"Hello\",\"profile\":\"number#+918047000000\"}\n";
    bundle.run(&["list", "--json", STACK[0], STACK[1]], "").await.said(listed);

    let declined = bundle.local(&["delete", "default"], "n\n").await;
    assert_eq!((declined.code, declined.err.contains("Delete the profile default? [y/N]")), (Some(1), true));
    assert_eq!(bundle.world.items("profiles").await.len(), 2);
    bundle.local(&["delete", "default", "--yes"], "").await.said("default: deleted\n");
    for arguments in [&["get", "default"][..], &["delete", "default", "--yes"], &["preview", "default"], &["get", ""]] {
        let name = arguments[1];
        bundle.local(arguments, "").await.refused("", &format!("there is no profile {name}"));
    }
    assert_eq!(bundle.world.items("profiles").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_said_is_not_stored_and_its_lines_are_told() {
    let bundle = Bundle::new().await;
    bundle.put("default", &json!({ "greeting": "Hello" })).await;
    let long = "1".repeat(39);
    let document = format!(
        "{{\n  \"greeting\": \"Hello {{{{ nobody }}}}\",\n  \"greting\": 1,\n  \"session_constants\": {{\n    \"a\": {long}\n  }}\n}}\n"
    );
    let told = "-: line 2: greeting: there is no variable nobody: there are request, custom_parameters, contact, now, history\n\
        -: line 3: greting: there is no such member: there are greeting, session_constants, conversation_assistant_id, webhooks, transfer_message, memory, timezone\n\
        -: line 5: a number is stored with 38 digits at most: make it a text\n";
    bundle.local(&["put", "default", "-"], &document).await.refused(told, "nothing was stored");
    bundle.run(&["validate", "-"], &document).await.refused(told, "there are 3 things wrong with -");
    let lines = bundle.run(&["validate", "-", "--json"], &document).await;
    let lines: Vec<Value> = lines.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| &line["line"]).collect::<Vec<_>>(), [2, 3, 5]);
    let loops = "{\"greeting\": \"{% for a in request.many|default('x' * 100) %}{{ a }}{% endfor %}\",\n\"transfer_message\": \"{{ 'x' * 101 }}\"}";
    let refused = bundle.local(&["put", "default", "-"], loops).await;
    assert_eq!((refused.code, refused.out.contains("line 2: transfer_message: ")), (Some(1), true), "{}", refused.out);
    assert_eq!(text(&bundle.item("default").await, "greeting"), "Hello");

    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "{\"greeting\": \"Hi\",}").unwrap();
    let told = format!("{path}: line 1: no JSON: trailing comma (column 19)\n");
    bundle.run(&["validate", path], "").await.refused(&told, &format!("there is something wrong with {path}"));
    std::fs::write(path, "{\"greeting\": \"Hi\"}").unwrap();
    bundle.run(&["validate", path], "").await.said("");
    bundle.local(&["put", "bot#b1", path], "").await.said("bot#b1: stored\n");
    let missing = bundle.run(&["validate", "no-such-file.json"], "").await;
    assert!(missing.code == Some(1) && missing.err.contains("no-such-file.json cannot be read: "), "{}", missing.err);
    let misnamed = bundle.local(&["put", "caller#1", path], "").await;
    assert!(misnamed.code == Some(2) && misnamed.err.contains("not default, bot#"), "{}", misnamed.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_what_the_functions_would_answer() {
    let bundle = Bundle::new().await;
    let default = json!({ "greeting": "Welcome{% if history.last %} back, you called {{ history.calls }} times{% endif %}, {{ custom_parameters.name }}!",
        "session_constants": { "bot": "{{ request.bot_id }}", "rate": 2.5 }, "memory": true,
        "webhooks": { "session_end": {}, "insights_events": { "url": "https://crm.example/{{ contact|urlencode }}", "trigger_type": "timer", "trigger_interval_sec": 30 } },
        "transfer_message": "One moment, it is {{ now.time }}." });
    bundle.put("default", &default).await;
    bundle.put("bot#b1", &json!({ "transfer_message": "One moment." })).await;
    let preview = async |arguments: &[&str], input: &str| {
        bundle.local(&[&["preview"], arguments, &["--json"]].concat(), input).await
    };
    let data = |done: &Done, webhook: &str| done.json()[webhook]["response"]["data"].clone();

    // The example's caller called before.
    let done = preview(&["default"], "").await;
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!((&done.json()["profiles"], &done.json()["fallbacks"]), (&json!(["default"]), &json!([])));
    let end = bundle.world.url(Webhook::SessionEnd).split('?').next().unwrap();
    assert_eq!(
        data(&done, "session_start"),
        json!({
        "greeting_message": { "text": "Welcome back, you called 3 times, Asha!" },
        "session_constants": { "bot": "example-bot", "rate": 2.5 },
        "webhook_config": {
            "session_end": { "url": format!("{end}?session=example%2Dsession&token=[made-for-each-session]") },
            "insights_events": { "url": "https://crm.example/%2B919876543210", "trigger_type": "timer", "trigger_interval_sec": 30 },
        } })
    );
    assert_eq!(
        data(&done, "pre_agent_transfer"),
        json!({ "agent_transfer_message": { "text": "One moment, it is 14:30." } })
    );
    let lines = bundle.local(&["preview", "bot#b1"], "").await;
    let transfer = "pre_agent_transfer   {\"http_code\":200,\"response\":{\"data\":{\"agent_transfer_message\":{\"text\":\"One moment.\"}}}}\n";
    assert!(
        lines.out.starts_with("profiles             bot#b1, default\nsession_start        {\"http_code\":200,"),
        "{}",
        lines.out
    );
    assert!(lines.out.ends_with(transfer), "{}", lines.out);

    // A call that was stored: the preview is, but for tokens, the answer that its function gave.
    let call = |id: &str, at: &str| {
        json!({ "session_id": id, "start_time": at, "bot_id": "b1", "contact_uri": "+919876500000",
        "custom_parameters": "{\"name\":\"Ravi\"}", "session_state": "session_start" })
    };
    for (id, at) in [("s1", "2026-03-14T10:00:00Z"), ("s2", "2026-03-15T10:00:00Z")] {
        let body = call(id, at);
        let answer = bundle.world.deliver(Webhook::SessionStart, body.to_string()).await;
        let mut given = answer.json["response"]["data"].clone();
        let url = given["webhook_config"]["session_end"]["url"].as_str().unwrap();
        let (before, _) = url.split_once("token=").unwrap();
        given["webhook_config"]["session_end"]["url"] = json!(format!("{before}token=[made-for-each-session]"));
        let done = preview(&["bot#b1", "--session", id], "").await;
        assert_eq!(data(&done, "session_start"), given, "{}", done.err);
        let own = bundle.local(&["preview", "bot#b1", "--request", "-", "--json"], &body.to_string()).await;
        assert_eq!(data(&own, "session_start"), given, "{}", own.err);
    }
    for (session, why) in [
        ("s9", "no session_start of exotel#s9 is stored"),
        ("vocobase#v1", "no session_start of vocobase#v1 is stored"),
    ] {
        preview(&["bot#b1", "--session", session], "").await.refused("", why);
    }
    let done = preview(&["bot#b1", "--request", "-"], "{}").await;
    done.refused("", "the request is no session_start: the session id is missing or empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_what_is_not_as_the_profile_asks() {
    let bundle = Bundle::new().await;
    bundle.put("default", &json!({ "greeting": "Hello" })).await;
    // As somebody may have written it by hand.
    crate::answers::put_profile(&bundle.world, "bot#b1", &json!({ "greeting": "{{ broken", "memory": true })).await;
    let done = bundle.local(&["preview", "bot#b1"], "").await;
    assert_eq!((done.code, done.err.as_str()), (Some(1), "hookswitch: an answer is not what its profiles ask for\n"));
    assert!(done.out.contains("{\"greeting_message\":{\"text\":\"Hello\"}}"), "{}", done.out);
    assert!(done.out.contains("\nsession_start: template_failed greeting bot: syntax error: "), "{}", done.out);
    let done = bundle.local(&["preview", "bot#b1", "--json"], "").await;
    let fallback = &done.json()["fallbacks"][0];
    assert_eq!((&fallback["reason"], &fallback["line"]), (&json!("template_failed"), &json!(1)));
}

#[test]
fn the_schema_knows_every_member_and_no_other() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let names = |value: &Value| value["properties"].as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&schema), MEMBERS.map(str::to_owned).into());
    assert_eq!(names(&schema["properties"]["webhooks"]), OVERRIDABLE.map(|webhook| webhook.name().to_owned()).into());
}

#[test]
fn the_schema_takes_and_refuses_what_the_command_does() {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let agree = |document: &Value, good: bool| {
        assert_eq!(validator.is_valid(document), good, "{document}");
        assert_eq!(check(&document.to_string()).is_empty(), good, "{document}: {:?}", check(&document.to_string()));
    };
    for (name, member) in schema["properties"].as_object().unwrap() {
        for example in member["examples"].as_array().into_iter().flatten() {
            agree(&json!({ (name.as_str()): example }), true);
        }
        agree(&json!({ (name.as_str()): ["neither"] }), false);
    }
    for example in schema["$defs"]["url"]["examples"].as_array().unwrap() {
        agree(&json!({ "webhooks": { "session_end": { "url": example } } }), true);
    }
    let webhooks = |webhooks: Value| json!({ "webhooks": webhooks });
    for (document, good) in [
        (json!({}), true),
        (json!({ "memory": false, "timezone": "UTC", "greeting": "", "session_constants": {} }), true),
        (
            webhooks(json!({ "insights_events": { "url": "", "trigger_type": "timer", "trigger_interval_sec": 1 } })),
            true,
        ),
        (webhooks(json!({ "insights_events": { "trigger_interval_sec": 0 } })), false),
        (webhooks(json!({ "insights_events": { "trigger_interval_sec": 1.5 } })), false),
        (webhooks(json!({ "insights_events": { "every": 1 } })), false),
        (webhooks(json!({ "session_end": { "trigger_type": "timer" } })), false),
        (webhooks(json!({ "session_start": {} })), false),
        (webhooks(json!({ "session_end": "https://crm.example/" })), false),
        (json!({ "greting": "x" }), false),
        (json!({ "memory": "true" }), false),
        (json!({ "greeting": "x".repeat(8193) }), false),
        (json!([]), false),
    ] {
        agree(&document, good);
    }
}

const DOCS: &str = include_str!("../../docs/profiles.md");

/// The JSON examples of the documentation: profiles, and one brief.
fn documented() -> Vec<Value> {
    let blocks = DOCS.split("```json\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.map(|block| serde_json::from_str(block).unwrap()).collect()
}

#[test]
fn every_documented_profile_is_good_and_the_documented_example_says_everything() {
    let validator = jsonschema::validator_for(&serde_json::from_str(SCHEMA).unwrap()).expect("a schema");
    let (briefs, profiles): (Vec<Value>, Vec<Value>) =
        documented().into_iter().partition(|document| document.get("version").is_some());
    assert_eq!((briefs.len(), profiles.len()), (1, 7));
    for profile in &profiles {
        assert_eq!(check(&profile.to_string()), [], "{profile}");
        assert!(validator.is_valid(profile), "{profile}");
    }
    let members: BTreeSet<&str> = profiles[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, MEMBERS.into());
}

#[test]
fn every_variable_filter_member_and_reason_is_documented() {
    let said = |name: &str| assert!(DOCS.contains(name), "{name} is not in docs/profiles.md");
    for name in VARIABLES.iter().chain(&MEMBERS) {
        said(&format!("| `{name}` |"));
    }
    for filter in FILTERS.iter().chain(&["urlencode"]) {
        // With its arguments or without.
        assert!(DOCS.contains(&format!("`{filter}`")) || DOCS.contains(&format!("`{filter}(")), "{filter}");
    }
    for reason in Reason::ALL {
        said(&format!("`{}`", reason.name()));
    }
}
