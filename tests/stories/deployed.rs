//! The commands for a deployed stack, against a world that stands for one.

use std::collections::BTreeMap;
use std::process::Output;

use serde_json::{Value, json};
use shared::Webhook;
use tests::control_plane::{Aws, EXOTEL_ARN, VOCOBASE_API_KEY_ARN, VOCOBASE_ARN, respond, serve};
use tests::{EXOTEL, World};

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn all(output: &Output) -> String {
    format!("{}{}", stdout(output), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_are_printed_with_tokens_that_their_functions_accept() {
    let world = World::with(&[("EXOTEL_TOKEN_SECRETS", "k2:new-secret,k1:old-secret")], tests::now()).await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().secrets.insert(EXOTEL_ARN.to_owned(), "k2:new-secret,k1:old-secret".to_owned());
    let printed = aws.run(&["urls", "--stack", "prod"], "").await;
    assert!(printed.status.success(), "{}", all(&printed));
    let printed = stdout(&printed);
    for webhook in EXOTEL {
        let line = printed.lines().find(|line| line.trim_start().starts_with(webhook.name())).expect("a line");
        let url = line.split_whitespace().last().unwrap();
        let answer = tests::answer(world.http.post(url).body(r#"{"session_id":"s1"}"#)).await;
        assert_eq!(answer.status, 200, "{url}");
        assert!(url.contains("?token=k2."), "{url}");
    }
    assert!(printed.contains(world.url(Webhook::SessionCompleted)), "{printed}");
    assert!(printed.contains("Its signing secret is set."), "{printed}");
    for secret in ["new-secret", "old-secret", cli::dev::DEFAULT_VOCOBASE_SECRETS] {
        assert!(!printed.contains(secret), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_stack_made_is_the_key_k1() {
    let world = World::with(&[("EXOTEL_TOKEN_SECRETS", "k1:generated")], tests::now()).await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().secrets.insert(EXOTEL_ARN.to_owned(), "generated".to_owned());
    let printed = aws.run(&["urls", "--stack", "prod", "--json"], "").await;
    let printed: BTreeMap<String, Value> = serde_json::from_slice(&printed.stdout).unwrap();
    for webhook in Webhook::ALL {
        assert_eq!(printed[webhook.name()], world.url(webhook));
    }
    assert_eq!(printed["vocobase_secret"], cli::dev::DEFAULT_VOCOBASE_SECRETS);
    assert_eq!(printed.len(), 7, "{printed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vocobase_secret_that_is_not_set_is_said_with_the_command_that_sets_it() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    // AWS answers that there is no value; an empty one counts as none, too.
    for value in [None, Some("")] {
        aws.account().secrets.remove(VOCOBASE_ARN);
        if let Some(value) = value {
            aws.account().secrets.insert(VOCOBASE_ARN.to_owned(), value.to_owned());
        }
        let printed = stdout(&aws.run(&["urls", "--stack", "prod"], "").await);
        assert!(printed.contains("NOT SET"), "{printed}");
        assert!(printed.contains("hookswitch secret set vocobase --stack prod"), "{printed}");
        let simulated = aws.run(&["simulate", "--stack", "prod", "--calls", "1"], "").await;
        assert_eq!(simulated.status.code(), Some(1));
        assert!(all(&simulated).contains("hookswitch secret set vocobase"), "{}", all(&simulated));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_session_tokens_are_taken_only_session_start_is_pasted() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().parameters.insert("SessionTokensOnly".to_owned(), "true".to_owned());
    let printed = stdout(&aws.run(&["urls", "--stack", "prod"], "").await);
    assert!(printed.contains(world.url(Webhook::SessionStart)), "{printed}");
    assert!(printed.contains("Leave their fields empty"), "{printed}");
    assert_eq!(printed.matches("token=").count(), 1, "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_local_runs_urls_are_printed_the_same_way() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let port = world.run.base.rsplit_once(':').unwrap().1;
    let printed = stdout(&aws.run(&["urls", "--port", port], "").await);
    for webhook in Webhook::ALL {
        assert!(printed.contains(world.url(webhook)), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_that_cannot_be_had_is_an_error_that_says_why() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let missing = aws.run(&["urls", "--stack", "staging"], "").await;
    assert_eq!(missing.status.code(), Some(1));
    assert!(all(&missing).contains("Stack with id staging does not exist"), "{}", all(&missing));
    aws.account().denied.insert("GetSecretValue");
    let denied = aws.run(&["urls", "--stack", "prod"], "").await;
    assert!(all(&denied).contains("not authorized to perform: secretsmanager:GetSecretValue"), "{}", all(&denied));
    aws.account().denied.clear();
    aws.account().outputs.remove("SessionEndUrl");
    let old = aws.run(&["urls", "--stack", "prod"], "").await;
    assert!(all(&old).contains("no output SessionEndUrl"), "{}", all(&old));
    for output in [missing, denied, old] {
        assert_eq!(stdout(&output), "");
        assert_eq!(all(&output).lines().count(), 1, "{}", all(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulation_against_a_stack_compares_its_tables_with_what_was_sent() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let simulate = ["simulate", "--stack", "prod", "--calls", "6", "--shuffle", "--duplicate", "0.5", "--json"];
    let output = aws.run(&simulate, "").await;
    assert!(output.status.success(), "{}", all(&output));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["tables"]["sessions"], 6);
    assert_eq!(summary["tables"]["differences"], json!([]));
    // A stack's archiver cannot reach this machine.
    assert_eq!((&summary["recordings"], &summary["tables"]["recordings"]), (&Value::Null, &json!(0)));

    // Tables that are not the ones that the functions write to.
    let other = World::new().await;
    let elsewhere = Aws::of(other.endpoints()).await;
    for webhook in Webhook::ALL {
        let name: String = webhook.name().split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
        let url = world.url(webhook).split('?').next().unwrap().to_owned();
        elsewhere.account().outputs.insert(format!("{name}Url"), url);
    }
    let output = elsewhere.run(&simulate, "").await;
    assert_eq!(output.status.code(), Some(1));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(summary["tables"]["differences"].as_array().unwrap().len() >= 6, "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_vocobase_secret_comes_first_and_the_one_in_use_stays_accepted() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let set = ["secret", "set", "vocobase", "--stack", "prod"];
    let held = || aws.account().secrets.get(VOCOBASE_ARN).cloned();
    aws.account().secrets.remove(VOCOBASE_ARN);
    let first = aws.run(&set, "whsec_first-secret\n").await;
    assert!(first.status.success(), "{}", all(&first));
    assert_eq!(held().as_deref(), Some("whsec_first-secret"));
    assert!(!all(&first).contains("accepted before"), "{}", all(&first));

    let second = aws.run(&set, "whsec_second-secret").await;
    assert_eq!(held().as_deref(), Some("whsec_second-secret,whsec_first-secret"));
    assert!(all(&second).contains("under way: 1"), "{}", all(&second));
    let again = aws.run(&set, "whsec_second-secret\n").await;
    assert!(again.status.success() && all(&again).contains("nothing was changed"), "{}", all(&again));

    let odd = aws.run(&set, "not-as-they-begin-secret\n").await;
    assert!(odd.status.success() && all(&odd).contains("does not begin with whsec_"), "{}", all(&odd));
    assert_eq!(held().as_deref(), Some("not-as-they-begin-secret,whsec_second-secret,whsec_first-secret"));

    for wrong in ["", "\n", "whsec_a-secret,whsec_b-secret", "whsec_a-secret whsec_b", "whsec_a-secret\nwhsec_b-secret"]
    {
        let refused = aws.run(&set, wrong).await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(all(&refused).contains("nothing was changed") && !all(&refused).contains("-secret"), "{refused:?}");
    }
    for output in [first, second, again, odd] {
        assert!(!all(&output).contains("-secret"), "{}", all(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_turns_the_reconciler_on_a_newer_one_takes_its_place_and_without_one_it_is_off() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let [set, retire] = ["set", "retire"].map(|command| ["secret", command, "vocobase-api-key", "--stack", "prod"]);
    let held = || aws.account().secrets.get(VOCOBASE_API_KEY_ARN).cloned();
    aws.account().secrets.remove(VOCOBASE_API_KEY_ARN);
    let check = "vocobase api key";
    doctor(&world, &aws, &STACK).await.is(check, "skipped", "hookswitch secret set vocobase-api-key --stack prod");

    let first = aws.run(&set, "rg_live_first-key\n").await;
    assert_eq!(held().as_deref(), Some("rg_live_first-key"), "{}", all(&first));
    let second = aws.run(&set, "a-second-key").await;
    assert_eq!(held().as_deref(), Some("a-second-key"), "the first is of no more use");
    assert!(second.status.success() && all(&second).contains("does not begin with rg_live_"), "{}", all(&second));
    doctor(&world, &aws, &STACK).await.is(check, "ok", "set");

    let no = aws.run(&retire, "n\n").await;
    assert_eq!((no.status.code(), held().as_deref()), (Some(1), Some("a-second-key")));
    let yes = aws.run(&[retire.as_slice(), &["--yes"]].concat(), "").await;
    assert!(yes.status.success() && stdout(&yes).contains("the reconciler is off"), "{}", all(&yes));
    doctor(&world, &aws, &STACK).await.is(check, "skipped", "not set");
    let again = aws.run(&retire, "").await;
    assert!(again.status.success() && stdout(&again).contains("nothing to retire"), "{}", all(&again));
    for output in [first, second, no, yes, again] {
        assert!(!all(&output).contains("-key\n") && !all(&output).contains("-second-"), "{}", all(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_makes_a_key_whose_urls_and_the_old_ones_are_accepted() {
    let aws = Aws::of(World::new().await.endpoints()).await;
    aws.account().secrets.insert(EXOTEL_ARN.to_owned(), "generated-by-the-stack".to_owned());
    let urls = ["urls", "--stack", "prod", "--json"];
    let before = stdout(&aws.run(&urls, "").await);
    let rotated = aws.run(&["secret", "rotate", "exotel", "--stack", "prod"], "").await;
    assert!(rotated.status.success() && stdout(&rotated).contains("hookswitch urls --stack prod"), "{rotated:?}");
    let after = stdout(&aws.run(&urls, "").await);
    let held = aws.account().secrets[EXOTEL_ARN].clone();
    let (new, old) = held.split_once(',').unwrap();
    assert_eq!(old, "k1:generated-by-the-stack");
    let secret = new.strip_prefix("k2:").unwrap();
    assert!(secret.len() == 48 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(!all(&rotated).contains(secret) && !all(&rotated).contains("generated"), "{rotated:?}");

    // A function that knows what Secrets Manager holds now.
    let world = World::with(&[("EXOTEL_TOKEN_SECRETS", &held)], tests::now()).await;
    for (urls, kid) in [(before, "k1"), (after, "k2")] {
        let urls: Value = serde_json::from_str(&urls).unwrap();
        let token = urls["session_end"].as_str().unwrap().split_once('?').unwrap().1;
        assert!(token.starts_with(&format!("token={kid}.")));
        let url = format!("{}/session_end/?{token}", world.run.base);
        assert_eq!(tests::answer(world.http.post(url).body(r#"{"session_id":"s1"}"#)).await.status, 200, "{kid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_is_accepted_once_the_others_are_retired() {
    let aws = Aws::of(World::new().await.endpoints()).await;
    for (arn, platform, held, kept) in [
        (EXOTEL_ARN, "exotel", "k3:c-secret,k2:b-secret,k1:a-secret", "k3:c-secret"),
        (VOCOBASE_ARN, "vocobase", "whsec_b-secret,whsec_a-secret", "whsec_b-secret"),
    ] {
        aws.account().secrets.insert(arn.to_owned(), held.to_owned());
        let retire = ["secret", "retire", platform, "--stack", "prod"];
        for answer in ["n\n", ""] {
            let kept_all = aws.run(&retire, answer).await;
            assert_eq!(kept_all.status.code(), Some(1));
            assert!(all(&kept_all).contains("will be refused. [y/N]"), "{}", all(&kept_all));
            assert_eq!(aws.account().secrets[arn], held);
        }
        let retired = aws.run(&[retire.as_slice(), &["--yes"]].concat(), "").await;
        assert!(retired.status.success(), "{}", all(&retired));
        assert_eq!(aws.account().secrets[arn], kept);
        let again = aws.run(&retire, "").await;
        assert!(again.status.success() && stdout(&again).contains("nothing to retire"), "{}", all(&again));
        assert!(!format!("{}{}", all(&retired), all(&again)).contains("-secret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_operator_changed_meanwhile_is_not_overwritten() {
    let aws = Aws::of(World::new().await.endpoints()).await;
    for (arn, arguments) in [
        (EXOTEL_ARN, ["secret", "rotate", "exotel", "--stack", "prod"]),
        (VOCOBASE_ARN, ["secret", "set", "vocobase", "--stack", "prod"]),
    ] {
        aws.account().meanwhile.insert(arn.to_owned(), "whsec_of-the-other".to_owned());
        let refused = aws.run(&arguments, "whsec_of-this-one").await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(all(&refused).contains("changed meanwhile"), "{}", all(&refused));
        assert_eq!(aws.account().secrets[arn], "whsec_of-the-other");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_that_the_command_is_not_for_is_said_with_the_right_command() {
    let aws = Aws::of(World::new().await.endpoints()).await;
    for (command, platform, instead) in [
        ("set", "exotel", "secret rotate exotel"),
        ("rotate", "vocobase", "secret set vocobase "),
        ("rotate", "vocobase-api-key", "secret set vocobase-api-key"),
    ] {
        let refused = aws.run(&["secret", command, platform, "--stack", "prod"], "").await;
        assert_eq!(refused.status.code(), Some(1));
        assert!(all(&refused).contains(instead), "{}", all(&refused));
    }
}

/// What the doctor found: check → result and message.
struct Found {
    code: Option<i32>,
    checks: BTreeMap<String, (String, String)>,
}

impl Found {
    fn is(&self, check: &str, result: &str, says: &str) {
        let (found, message) = &self.checks[check];
        assert!(found == result && message.contains(says), "{check}: {found}: {message}, not {result}: {says}");
    }
}

/// Asks the doctor, who leaves nothing behind and tells no credentials, whatever there is to find.
async fn doctor(world: &World, aws: &Aws, target: &[&str]) -> Found {
    let output = aws.run(&[&["doctor", "--json"], target].concat(), "").await;
    let told = all(&output);
    for secret in [cli::dev::DEFAULT_VOCOBASE_SECRETS, "hookswitch-local", "token=", "sha256="] {
        assert!(!told.contains(secret), "{told}");
    }
    for table in ["events", "sessions", "transcripts", "recordings"] {
        assert!(world.items(table).await.is_empty(), "{table} is not as it was: {told}");
    }
    let objects = world.clients.s3.list_objects_v2().bucket(&world.stores().bucket).send().await.unwrap();
    assert!(objects.contents().is_empty(), "the bucket is not as it was: {told}");
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("a JSON line");
        let member = |name: &str| line[name].as_str().expect(name).to_owned();
        (member("check"), (member("result"), member("message")))
    };
    Found { code: output.status.code(), checks: stdout(&output).lines().map(line).collect() }
}

const STACK: [&str; 2] = ["--stack", "prod"];

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_a_healthy_stack_in_good_order_and_leaves_nothing_behind() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let found = doctor(&world, &aws, &STACK).await;
    assert!(found.checks.values().all(|(result, _)| result == "ok"), "{:?}", found.checks);
    assert_eq!(found.code, Some(0));
    for webhook in EXOTEL {
        found.is(webhook.name(), "ok", "; a wrong token is refused");
    }
    found.is("session_completed", "ok", "; a wrong signature is refused");
    found.is("tables", "ok", "6 events, 2 calls, 2 transcript items");
    // Five events, the Exotel call and its turn; one event, the Vocobase call and its transcript.
    found.is("cleaning up", "ok", "10 items of the session doctor-");
    found.is("alarms", "ok", "2 alarms, all silent");

    let read = aws.run(&["doctor", "--stack", "prod"], "").await;
    assert!(read.status.success());
    assert!(stdout(&read).starts_with("ok       stack                UPDATE_COMPLETE\n"), "{}", stdout(&read));
    assert!(!stdout(&read).contains('\x1b'));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_looks_at_the_local_run_as_far_as_there_is_something_to_look_at() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let port = world.run.base.rsplit_once(':').unwrap().1;
    let found = doctor(&world, &aws, &["--port", port]).await;
    assert_eq!(found.code, Some(0));
    for webhook in Webhook::ALL {
        found.is(webhook.name(), "ok", "is refused");
    }
    found.is("tables", "ok", "exactly what was sent");
    found.is("stream", "skipped", "of a deployed stack only");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_of_each_wrong_answer_what_it_means() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let told = |description: &str| {
        json!({ "response": { "error_data": { "error_code": "HS503", "description": description } } }).to_string()
    };
    // Answers every path with the status that it names, and says of it what its query names.
    let stand_in = serve(move |request| {
        let status = request.uri().path().trim_matches('/').split('/').next().unwrap().parse().unwrap();
        let body = match request.uri().path().trim_matches('/').split('/').nth(1) {
            Some("verified") => told("The delivery could not be verified: send it again"),
            Some("stored") => told("The delivery could not be stored: send it again"),
            _ => r#"{"Message":"from AWS"}"#.to_owned(),
        };
        std::future::ready(respond(status, "application/json", body))
    })
    .await;
    let nobody = "http://127.0.0.1:9/";
    let rounds: [&[(&str, &str, &str)]; 3] = [
        &[
            ("session_start", "403/", "the function URL is not public"),
            ("session_end", "413/", "refused as too large (413)"),
            ("pre_agent_transfer", "429/", "Raise the parameter ReservedConcurrency"),
            (
                "insights_events",
                "502/",
                "the function crashed or ran out of time (502); its log group /aws/lambda/prod-insights_events",
            ),
            ("transcript_events", "404/", "nothing is there (404)"),
            ("session_completed", "403/", "the function URL is not public"),
        ],
        &[
            ("session_start", "503/verified/", "cannot read its secret (503)"),
            ("session_end", "503/stored/", "cannot store (503)"),
            ("pre_agent_transfer", "503/", "AWS itself is not available (503)"),
            ("insights_events", "504/", "could not store in time (504)"),
            ("transcript_events", "401/", "a right token is refused (401)"),
            ("session_completed", "401/", "a right signature is refused (401)"),
        ],
        &[
            ("session_start", "200/", "a WRONG token is accepted"),
            ("session_completed", "200/", "a WRONG signature is accepted"),
            ("session_end", nobody, "no connection ("),
            ("insights_events", "418/", "answered 418; its log group"),
        ],
    ];
    for round in rounds {
        let sound = aws.account().outputs.clone();
        for (webhook, path, _) in round {
            let url = if path.starts_with("http") { (*path).to_owned() } else { format!("{stand_in}/{path}") };
            aws.account().outputs.insert(output_name(webhook), url);
        }
        let found = doctor(&world, &aws, &STACK).await;
        assert_eq!(found.code, Some(1));
        for (webhook, _, says) in round {
            found.is(webhook, "wrong", says);
        }
        for webhook in Webhook::ALL.map(Webhook::name) {
            assert!(round.iter().any(|(wrong, ..)| *wrong == webhook) || found.checks[webhook].0 == "ok");
        }
        aws.account().outputs = sound;
    }
}

fn output_name(webhook: &str) -> String {
    let words = webhook.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.chain(["Url".to_owned()]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_misses_what_was_acknowledged_and_is_not_in_the_tables() {
    let (world, other) = (World::new().await, World::new().await);
    let aws = Aws::of(world.endpoints()).await;
    // This function writes elsewhere.
    let elsewhere = other.url(Webhook::SessionEnd).split('?').next().unwrap().to_owned();
    aws.account().outputs.insert("SessionEndUrl".to_owned(), elsewhere);
    let found = doctor(&world, &aws, &STACK).await;
    assert_eq!(found.code, Some(1));
    found.is("session_end", "ok", "stored");
    found.is("tables", "wrong", "events lacks 1 deliveries");
    found.is("cleaning up", "ok", "9 items");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vocobase_secret_that_is_not_set_is_a_warning_and_no_failure() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().secrets.remove(VOCOBASE_ARN);
    let found = doctor(&world, &aws, &STACK).await;
    assert_eq!(found.code, Some(0));
    found.is("vocobase secret", "warning", "hookswitch secret set vocobase --stack prod");
    found.is("session_completed", "skipped", "without the secret");
    found.is("tables", "ok", "5 events, 1 calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_which_secret_cannot_be_used_and_tries_what_needs_none() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().secrets.insert(EXOTEL_ARN.to_owned(), "k1:hookswitch-local,k1:hookswitch-local".to_owned());
    aws.account().secrets.insert(VOCOBASE_ARN.to_owned(), "hookswitch-local,,".to_owned());
    let found = doctor(&world, &aws, &STACK).await;
    assert_eq!(found.code, Some(1));
    found.is("exotel secret", "wrong", "has a kid twice");
    found.is("vocobase secret", "wrong", "has an empty secret");
    found.is("session_start", "skipped", "without the secret");
    aws.account().denied.insert("GetSecretValue");
    let found = doctor(&world, &aws, &STACK).await;
    found.is("exotel secret", "wrong", "not authorized to perform: secretsmanager:GetSecretValue");
    found.is("vocobase secret", "wrong", "not authorized to perform: secretsmanager:GetSecretValue");
    found.is("cleaning up", "ok", "0 items");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_session_tokens_are_taken_the_doctor_brings_them() {
    let world = World::with(&[("EXOTEL_SESSION_TOKENS_ONLY", "true")], tests::now()).await;
    let aws = Aws::of(world.endpoints()).await;
    aws.account().parameters.insert("SessionTokensOnly".to_owned(), "true".to_owned());
    let found = doctor(&world, &aws, &STACK).await;
    assert!(found.checks.values().all(|(result, _)| result == "ok"), "{:?}", found.checks);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_around_the_functions() {
    let world = World::new().await;
    let aws = Aws::of(world.endpoints()).await;
    let mapping = aws.account().mappings[0].clone();
    let alarms = aws.account().alarms.clone();
    let changed = |value: &Value, member: &str, to: Value| {
        let mut value = value.clone();
        value[member] = to;
        value
    };
    let rounds = [
        ("stream", vec![], alarms.clone(), "nothing brings new recordings to the archiver"),
        (
            "stream",
            vec![changed(&mapping, "State", json!("Disabled"))],
            alarms.clone(),
            "Disabled, so new recordings wait",
        ),
        (
            "stream",
            vec![changed(&mapping, "DestinationConfig", json!({}))],
            alarms.clone(),
            "no destination for failures",
        ),
        (
            "stream",
            vec![changed(&mapping, "LastProcessingResult", json!("PROBLEM: Function call failed"))],
            alarms.clone(),
            "the archiver's last call failed (PROBLEM: Function call failed)",
        ),
        ("alarms", vec![mapping.clone()], alarms[..1].to_vec(), "FailureQueueAlarm is gone"),
        (
            "alarms",
            vec![mapping.clone()],
            vec![changed(&alarms[0], "AlarmActions", json!([])), alarms[1].clone()],
            "FunctionErrorsAlarm tells nobody",
        ),
        (
            "alarms",
            vec![mapping.clone()],
            vec![alarms[0].clone(), changed(&alarms[1], "ActionsEnabled", json!(false))],
            "FailureQueueAlarm tells nobody",
        ),
        (
            "alarms",
            vec![mapping.clone()],
            vec![alarms[0].clone(), changed(&alarms[1], "StateValue", json!("ALARM"))],
            "FailureQueueAlarm is in ALARM: FailureQueueAlarm went off.",
        ),
    ];
    for (check, mappings, alarms, says) in rounds {
        (aws.account().mappings, aws.account().alarms) = (mappings, alarms);
        let found = doctor(&world, &aws, &STACK).await;
        assert_eq!(found.code, Some(1));
        found.is(check, "wrong", says);
        assert_eq!(found.checks.values().filter(|(result, _)| result != "ok").count(), 1, "{:?}", found.checks);
    }
    (aws.account().mappings, aws.account().alarms) = (vec![mapping], alarms);
    let streams = aws.account().event_mappings.clone();
    for (mappings, says) in [
        (streams[..2].to_vec(), "nothing brings changes of a table to the publisher"),
        (
            vec![streams[0].clone(), changed(&streams[1], "State", json!("Disabled")), streams[2].clone()],
            "Disabled, so events wait: aws lambda update-event-source-mapping --enabled --uuid u",
        ),
        (
            vec![changed(&streams[0], "DestinationConfig", json!({})), streams[1].clone(), streams[2].clone()],
            "a change that cannot be told is lost without a trace",
        ),
        (
            vec![
                streams[0].clone(),
                streams[1].clone(),
                changed(&streams[2], "LastProcessingResult", json!("PROBLEM: x")),
            ],
            "the publisher's last call failed (PROBLEM: x)",
        ),
    ] {
        aws.account().event_mappings = mappings;
        let found = doctor(&world, &aws, &STACK).await;
        found.is("event streams", "wrong", says);
        assert_eq!(found.checks.values().filter(|(result, _)| result != "ok").count(), 1, "{:?}", found.checks);
    }
    aws.account().event_mappings = streams;
    let streams = aws.account().export_mappings.clone();
    aws.account().export_mappings = streams[..1].to_vec();
    doctor(&world, &aws, &STACK).await.is(
        "export streams",
        "wrong",
        "nothing brings changes of a table to the exporter",
    );
    aws.account().export_mappings = streams;
    aws.account().status = "UPDATE_ROLLBACK_COMPLETE".to_owned();
    aws.account().denied.insert("ListEventSourceMappings");
    let found = doctor(&world, &aws, &STACK).await;
    found.is("stack", "warning", "rolled back");
    found.is("stream", "wrong", "not authorized to perform: ListEventSourceMappings");
}
