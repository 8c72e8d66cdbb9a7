//! The template, the Rust code and the docs say the same, or a test here names what one of them lacks.
//!
//! All three are read as they are now: paths are relative to this package's folder, where cargo runs tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use recording_archiver::Archiver;
use serde_json::{Value, json};
use shared::config::{DEFAULT_DEADLINE_MS, DEFAULT_TOLERANCE_SECONDS, Lookup};
use shared::metrics::{Metrics, NAMESPACE};
use shared::recording::State;
use shared::storage::{BY_CONTACT, BY_DAY, UNFINISHED};
use shared::webhook::App;
use shared::{Instant, Provider, Webhook};

const ARCHIVER: &str = "recording_archiver";
/// AWS's page "Limits that apply to alarms based on metric math expressions".
const METRICS_OF_AN_ALARM: usize = 10;

/// What the functions read and the template leaves alone.
const NOT_SET: [(&str, &str); 14] = [
    ("AWS_REGION", "Lambda sets it"),
    ("AWS_ACCESS_KEY_ID", "Lambda sets it"),
    ("AWS_SECRET_ACCESS_KEY", "Lambda sets it"),
    ("AWS_SESSION_TOKEN", "Lambda sets it"),
    ("AWS_ENDPOINT_URL", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_DYNAMODB", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_S3", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS's own are meant"),
    ("EXOTEL_TOKEN_SECRETS", "Secrets Manager holds them: a template's values can be read by whoever sees the stack"),
    ("VOCOBASE_SECRETS", "Secrets Manager holds them: a template's values can be read by whoever sees the stack"),
    ("DEADLINE_MS", "the default suits both platforms"),
    ("TIMESTAMP_TOLERANCE_SECONDS", "the default suits Vocobase"),
    ("RECORDING_MAX_BYTES", "the default is longer than any call"),
    ("RECORDING_CA_FILE", "recordings are at public hosts"),
];

#[test]
fn every_function_has_its_folder_its_resources_and_its_line_in_the_docs() {
    let template = Template::read();
    let names = functions();
    let webhooks: BTreeSet<String> = Webhook::ALL.iter().map(|webhook| webhook.name().to_owned()).collect();
    let folders = std::fs::read_dir("../functions").unwrap().map(|entry| entry.unwrap());
    assert_eq!(folders.map(|entry| entry.file_name().into_string().unwrap()).collect::<BTreeSet<_>>(), names);
    assert_eq!(
        rows(&read("docs/deploy.md"), "function").iter().map(|row| code(&row[0])).collect::<BTreeSet<_>>(),
        names
    );
    let logical: BTreeSet<String> = names.iter().map(|name| camel_case(name) + "Function").collect();
    assert_eq!(template.of_type("AWS::Serverless::Function").into_keys().collect::<BTreeSet<_>>(), logical);
    for name in &names {
        let camel = camel_case(name);
        let function = &template.resource(&format!("{camel}Function"))["Properties"];
        assert_eq!(function["FunctionName"], sub(&format!("${{AWS::StackName}}-{name}")), "{name}");
        assert_eq!(function["CodeUri"], format!("../target/lambda/{name}/"), "{name}");
        assert_eq!(function["Role"], get(&format!("{camel}Role"), "Arn"), "{name}");
        assert_eq!(function["LoggingConfig"]["LogGroup"], reference(&format!("{camel}LogGroup")), "{name}");
        let log_group = &template.resource(&format!("{camel}LogGroup"))["Properties"];
        let expected = json!({ "LogGroupName": sub(&format!("/aws/lambda/${{AWS::StackName}}-{name}")),
            "RetentionInDays": reference("LogRetentionDays") });
        assert_eq!(*log_group, expected, "{name}");
        let url = if webhooks.contains(name) { json!({ "AuthType": "NONE" }) } else { Value::Null };
        assert_eq!(function["FunctionUrlConfig"], url, "{name}");
    }
}

#[test]
fn a_role_is_one_functions_and_allows_named_actions_on_named_resources_only() {
    let template = Template::read();
    let roles = template.of_type("AWS::IAM::Role");
    assert_eq!(
        roles.keys().cloned().collect::<BTreeSet<_>>(),
        functions().iter().map(|name| camel_case(name) + "Role").collect::<BTreeSet<_>>(),
    );
    for (role, resource) in &roles {
        let properties = &resource["Properties"];
        assert_eq!(properties["ManagedPolicyArns"], Value::Null, "{role}");
        let assumed = &properties["AssumeRolePolicyDocument"]["Statement"];
        assert_eq!(assumed[0]["Principal"], json!({ "Service": "lambda.amazonaws.com" }), "{role}");
        assert_eq!(list(&properties["Policies"]).len(), 1, "{role}");
        let statements = list(&properties["Policies"][0]["PolicyDocument"]["Statement"]);
        for statement in statements {
            let (actions, sid) = (one_or_many(&statement["Action"]), &statement["Sid"]);
            assert!(actions.iter().all(|action| !action.as_str().unwrap().contains('*')), "{role}: {sid}");
            let tracing = actions.iter().all(|action| action.as_str().unwrap().starts_with("xray:"));
            // X-Ray's actions know no resources.
            assert!(tracing || !one_or_many(&statement["Resource"]).contains(&json!("*")), "{role}: {sid}");
            if sid == "WriteLogs" {
                assert_eq!(statement["Resource"], get(&role.replace("Role", "LogGroup"), "Arn"), "{role}");
            }
        }
    }
}

#[test]
fn the_functions_read_what_the_template_sets_and_accept_it() {
    let template = Template::read();
    for name in functions() {
        let set = template.environment(&name);
        let webhook = name.parse::<Webhook>().ok();
        let mut read = BTreeSet::from(["LOG_LEVEL".to_owned()]); // by `main`
        for chosen in template.choices(&set) {
            let value = |variable: &str| match variable {
                "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("as-lambda-says".to_owned()),
                variable => chosen.get(variable).cloned(),
            };
            read.extend(asked_by(webhook, &value).unwrap_or_else(|error| panic!("{name} with {chosen:?}: {error}")));
        }
        let sibling = |variable: &str| variable.ends_with("_URL") && !variable.starts_with("AWS_");
        let other = match webhook.map(Webhook::provider) {
            Some(Provider::Exotel) => "VOCOBASE_",
            Some(Provider::Vocobase) => "EXOTEL_",
            None => "-",
        };
        for variable in set.keys() {
            assert!(read.contains(variable), "{name} is given {variable} and does not read it");
        }
        for variable in read.iter().filter(|variable| !set.contains_key(*variable)) {
            // Only session_start hands the others' URLs out; in the others they would be a circle of dependencies.
            let left_out = NOT_SET.iter().any(|(known, _)| known == variable)
                || variable.starts_with(other)
                || (sibling(variable) && webhook != Some(Webhook::SessionStart));
            assert!(left_out, "{name} reads {variable}, and the template does not set it");
        }
        let siblings = set.keys().filter(|variable| sibling(variable)).count();
        assert_eq!(siblings, if webhook == Some(Webhook::SessionStart) { 4 } else { 0 }, "{name}");
    }
}

#[test]
fn every_variable_that_the_code_names_is_in_the_readme() {
    let readme = rows(&read("README.md"), "variable");
    let documented: BTreeSet<String> = readme.iter().flat_map(|row| codes(&row[0])).collect();
    let variable = |literal: &String| {
        let letters = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        literal.contains('_') && literal.chars().all(letters) && literal != "FULL_OBJECT" // a word of S3's
    };
    let named: BTreeSet<String> = sources().iter().flat_map(|(_, source)| literals(source)).filter(variable).collect();
    assert_eq!(named, documented);
    for (variable, default) in [
        ("DEADLINE_MS", DEFAULT_DEADLINE_MS.to_string()),
        ("TIMESTAMP_TOLERANCE_SECONDS", DEFAULT_TOLERANCE_SECONDS.to_string()),
    ] {
        let row = readme.iter().find(|row| code(&row[0]) == variable).unwrap();
        assert_eq!(row[1], default, "{variable}");
    }
}

#[test]
fn tables_have_the_keys_and_indexes_that_the_code_uses_and_the_readme_names() {
    let template = Template::read();
    let words = |literal: String| {
        let words = literal.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let shared = sources().into_iter().filter(|(path, _)| path.starts_with("../shared/src"));
    let known: BTreeSet<String> = shared.flat_map(|(_, source)| literals(&source)).flat_map(words).collect();
    let (mut keys, mut indexes) = (BTreeMap::new(), BTreeSet::new());
    for (logical, table) in template.of_type("AWS::DynamoDB::Table") {
        let name = logical.strip_suffix("Table").unwrap().to_lowercase();
        let table = &table["Properties"];
        assert_eq!(table["TableName"], sub(&format!("${{AWS::StackName}}-{name}")));
        let attributes = |keys: &Value| list(keys).iter().map(|key| string(&key["AttributeName"])).collect::<Vec<_>>();
        let mut used = attributes(&table["KeySchema"]);
        keys.insert(name, used.clone());
        for index in table["GlobalSecondaryIndexes"].as_array().into_iter().flatten() {
            indexes.insert(string(&index["IndexName"]));
            used.extend(attributes(&index["KeySchema"]));
            used.extend(index["Projection"]["NonKeyAttributes"].as_array().into_iter().flatten().map(string));
        }
        used.extend(table["TimeToLiveSpecification"]["AttributeName"].as_str().map(str::to_owned));
        for attribute in used {
            assert!(known.contains(&attribute), "{logical} has {attribute}, which the code does not know");
        }
    }
    assert_eq!(indexes, BTreeSet::from([BY_DAY, BY_CONTACT, UNFINISHED].map(str::to_owned)));
    let documented = rows(&read("README.md"), "table").into_iter().map(|row| (code(&row[0]), codes(&row[1]))).collect();
    assert_eq!(keys, documented);
    let archiver = &template.resource("RecordingArchiverFunction")["Properties"]["Events"]["Jobs"]["Properties"];
    assert_eq!(archiver["Stream"], get("RecordingsTable", "StreamArn"));
    let pattern: Value =
        serde_json::from_str(archiver["FilterCriteria"]["Filters"][0]["Pattern"].as_str().unwrap()).unwrap();
    assert_eq!(pattern["dynamodb"]["NewImage"]["state"]["S"], json!([State::Pending.name()]));
    let view = &template.resource("RecordingsTable")["Properties"]["StreamSpecification"]["StreamViewType"];
    assert_eq!(view, "NEW_IMAGE", "the filter looks into the new item");
}

#[test]
fn what_holds_data_outlives_the_stack_but_not_a_first_deployment_that_failed() {
    let template = Template::read();
    let data = ["AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret", "AWS::SQS::Queue"];
    let kept: BTreeMap<String, Value> = data.iter().flat_map(|kind| template.of_type(kind)).collect();
    assert_eq!(kept.len(), 9);
    for (logical, resource) in &kept {
        assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate", "{logical}");
        assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{logical}");
    }
    for (logical, table) in template.of_type("AWS::DynamoDB::Table") {
        let table = &table["Properties"];
        assert_eq!(table["DeletionProtectionEnabled"], reference("DeletionProtection"), "{logical}");
        assert_eq!(
            table["PointInTimeRecoverySpecification"],
            json!({ "PointInTimeRecoveryEnabled": true }),
            "{logical}"
        );
        assert_eq!(table["SSESpecification"], json!({ "SSEEnabled": true }), "{logical}");
        let expires = json!({ "AttributeName": "expires_at", "Enabled": true });
        let expected = if logical == "ProfilesTable" { Value::Null } else { expires };
        assert_eq!(table["TimeToLiveSpecification"], expected, "{logical}");
    }
    // With it a first deployment that failed could not be rolled back.
    assert_eq!(template.0["Parameters"]["DeletionProtection"]["Default"], "false");
}

#[test]
fn no_secret_is_in_the_template_and_the_generated_one_is_never_generated_again() {
    let template = Template::read();
    let text = read("infra/template.yaml");
    for way in ["{{resolve:", "SecretString:\n", "SecretString: \"", "SecretString: !", "NoEcho"] {
        assert!(!text.contains(way), "the template holds a secret by {way}");
    }
    // CloudFormation generates another value when any of this changes, and every URL that was pasted is refused.
    let generated = json!({ "PasswordLength": 48, "ExcludePunctuation": true });
    assert_eq!(template.resource("ExotelTokenSecret")["Properties"]["GenerateSecretString"], generated);
    let vocobase = &template.resource("VocobaseSecret")["Properties"];
    assert_eq!(vocobase.as_object().unwrap().keys().collect::<Vec<_>>(), ["Description"], "it is set after deployment");
}

#[test]
fn alarms_look_at_every_function_and_at_metrics_that_are_written() {
    let template = Template::read();
    let written = Written::read();
    for (logical, alarm) in template.of_type("AWS::CloudWatch::Alarm") {
        let alarm = &alarm["Properties"];
        for action in ["AlarmActions", "OKActions"] {
            assert_eq!(alarm[action], json!([reference("AlarmTopic")]), "{logical}");
        }
        // A quiet night is no trouble.
        assert_eq!(alarm["TreatMissingData"], "notBreaching", "{logical}");
        let metrics = metrics_of(alarm);
        assert!(metrics.len() <= METRICS_OF_AN_ALARM, "{logical} has {} metrics", metrics.len());
        let mut looked_at: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for metric in metrics {
            let name = string(&metric["MetricName"]);
            let dimensions: BTreeMap<String, Value> =
                list(&metric["Dimensions"]).iter().map(|pair| (string(&pair["Name"]), pair["Value"].clone())).collect();
            if metric["Namespace"] == NAMESPACE {
                assert_eq!(dimensions["stack"], reference("AWS::StackName"), "{logical}");
                written.check(&logical, &name, &dimensions);
            } else if metric["Namespace"] == "AWS/Lambda" {
                looked_at.entry(name).or_default().insert(string(&dimensions["FunctionName"]["Ref"]));
            } else {
                assert_eq!(dimensions["QueueName"], get("FailureQueue", "QueueName"), "{logical}");
            }
        }
        let all = |wanted: fn(&str) -> bool| {
            functions()
                .iter()
                .filter(|name| wanted(name))
                .map(|name| camel_case(name) + "Function")
                .collect::<BTreeSet<_>>()
        };
        let exotel = |name: &str| name != ARCHIVER && name != Webhook::SessionCompleted.name();
        for (metric, functions) in looked_at {
            let expected = match (logical.as_str(), metric.as_str()) {
                ("ExotelServerErrorRateAlarm", _) => all(exotel),
                ("VocobaseServerErrorRateAlarm", _) => all(|name| name == Webhook::SessionCompleted.name()),
                (_, "IteratorAge") => all(|name| name == ARCHIVER),
                _ => all(|_| true),
            };
            assert_eq!(functions, expected, "{logical}: {metric}");
        }
    }
}

#[test]
fn the_dashboard_shows_every_alarm_and_function_and_metrics_that_are_written() {
    let template = Template::read();
    let written = Written::read();
    let body = string(&template.resource("Dashboard")["Properties"]["DashboardBody"]["Fn::Sub"]);
    let dashboard: Value =
        serde_json::from_str(&body.replace("${!", "{").replace("${AWS::StackName}", "hookswitch")).unwrap();
    let widgets: Vec<&Value> = list(&dashboard["widgets"]).iter().map(|widget| &widget["properties"]).collect();
    let alarms: BTreeSet<String> =
        widgets.iter().flat_map(|widget| widget["alarms"].as_array().into_iter().flatten()).map(string).collect();
    let expected = template.of_type("AWS::CloudWatch::Alarm").into_keys().map(|alarm| format!("${{{alarm}.Arn}}"));
    assert_eq!(alarms, expected.collect());
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for metric in widgets.iter().flat_map(|widget| widget["metrics"].as_array().into_iter().flatten()).map(list) {
        let words: Vec<&str> = metric.iter().map_while(Value::as_str).collect();
        let Some((namespace, rest)) = words.split_first() else {
            let search = string(&metric[0]["expression"]);
            assert!(search.contains("'{Hookswitch,stack,webhook,outcome} MetricName=\"Deliveries\""), "{search}");
            continue;
        };
        if *namespace == "..." {
            continue; // the one before, with another statistic
        }
        let (name, dimensions) = (rest[0], &rest[1..]);
        let dimensions: BTreeMap<String, Value> =
            dimensions.chunks(2).map(|pair| (pair[0].to_owned(), json!(pair[1]))).collect();
        if *namespace == NAMESPACE {
            assert_eq!(dimensions["stack"], "hookswitch");
            written.check("the dashboard", name, &dimensions);
        } else {
            let (_, of) = dimensions.first_key_value().unwrap();
            shown
                .entry(name.to_owned())
                .or_default()
                .insert(of.as_str().unwrap().strip_prefix("hookswitch-").unwrap().to_owned());
        }
    }
    let webhooks: BTreeSet<String> = Webhook::ALL.iter().map(|webhook| webhook.name().to_owned()).collect();
    for (metric, of) in shown {
        match metric.as_str() {
            "Url5xxCount" => assert_eq!(of, webhooks),
            "Errors" | "Throttles" | "ConcurrentExecutions" => assert_eq!(of, functions(), "{metric}"),
            "ConsumedWriteCapacityUnits" => {
                assert!(of.is_subset(&cli::template::tables().unwrap().into_keys().collect()))
            }
            metric => panic!("{metric} is not known here"),
        }
    }
    let query = widgets.iter().find_map(|widget| widget["query"].as_str()).unwrap();
    let log_groups: BTreeSet<&str> = query.split('\'').skip(1).step_by(2).collect();
    assert_eq!(
        log_groups,
        functions()
            .iter()
            .map(|name| format!("/aws/lambda/hookswitch-{name}"))
            .collect::<BTreeSet<_>>()
            .iter()
            .map(String::as_str)
            .collect()
    );
}

#[test]
fn every_metric_outcome_alarm_and_reason_is_explained() {
    let template = Template::read();
    let written = Written::read();
    let operations = read("docs/operations.md");
    let metrics: BTreeSet<(String, String, BTreeSet<String>)> = rows(&operations, "metric")
        .iter()
        .flat_map(|row| row[2].split(';').map(|set| (code(&row[0]), row[1].clone(), codes(set).into_iter().collect())))
        .collect();
    assert_eq!(metrics, written.metrics);
    let outcomes =
        |header: &str| rows(&operations, header).iter().flat_map(|row| codes(&row[0])).collect::<BTreeSet<_>>();
    assert_eq!(outcomes("outcome of a delivery"), written.deliveries);
    assert_eq!(outcomes("outcome of a recording"), written.recordings);

    let alarms = template.of_type("AWS::CloudWatch::Alarm");
    let explained: BTreeMap<&str, &str> =
        section(&operations, "## Alarms").split("\n### ").skip(1).filter_map(|text| text.split_once("\n\n")).collect();
    assert_eq!(explained.keys().copied().collect::<BTreeSet<_>>(), alarms.keys().map(String::as_str).collect());
    for (logical, alarm) in &alarms {
        // What the mail says is found on the page.
        let said = format!("*{}*", string(&alarm["Properties"]["AlarmDescription"]));
        assert!(explained[logical.as_str()].replace('\n', " ").starts_with(&said), "{logical}: {said}");
        for part in ["- **Look**", "- **Do**"] {
            assert!(explained[logical.as_str()].contains(part), "{logical} does not say: {part}");
        }
    }

    let mut reasons = errors("../shared/src/auth/mod.rs", "pub enum Refused {");
    reasons.extend(errors("../shared/src/webhook/answer.rs", "pub(super) enum Problem {"));
    reasons.extend(errors("../shared/src/keyring.rs", "/// The keys cannot be read"));
    reasons.extend(errors("../shared/src/storage/mod.rs", "/// The store did not answer"));
    let documented: BTreeSet<String> = rows(&operations, "reason").iter().flat_map(|row| codes(&row[0])).collect();
    assert_eq!(documented, reasons);

    let logged: BTreeSet<String> = sources().iter().flat_map(|(_, source)| literals(source)).collect();
    let one = operations.split("message = ").skip(1).filter_map(|query| query.split('"').nth(1));
    let several = operations.split("message in [").skip(1).filter_map(|query| query.split(']').next());
    for message in one.chain(several.flat_map(|several| several.split('"').skip(1).step_by(2))) {
        assert!(logged.contains(message), "a query looks for {message:?}, which no function logs");
    }

    let (webhooks, outcomes) = (Webhook::ALL.len(), written.deliveries.len());
    let others = written.metrics.iter().filter(|(_, _, dimensions)| dimensions.len() == 1).count();
    let most = webhooks * outcomes + outcomes + webhooks + written.recordings.len() + others;
    let cost = format!("{most} at most: `Deliveries` {webhooks} webhooks × {outcomes} outcomes and {outcomes} in all");
    assert!(operations.contains(&cost), "{cost}");
    let looked_at: usize = alarms.values().map(|alarm| metrics_of(&alarm["Properties"]).len()).sum();
    let cost = format!("| {looked_at}: {}.{:02} |", looked_at / 10, looked_at % 10 * 10);
    assert!(operations.contains(&cost), "{cost}");
}

#[test]
fn every_parameter_and_output_is_explained_and_offered() {
    let template = Template::read();
    let deploy = read("docs/deploy.md");
    let parameters = template.0["Parameters"].as_object().unwrap();
    let said = |default: &Value| match default.as_str() {
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
        None => format!("`{default}`"),
    };
    let expected: BTreeMap<String, String> =
        parameters.iter().map(|(name, parameter)| (name.clone(), said(&parameter["Default"]))).collect();
    let documented: BTreeMap<String, String> =
        rows(&deploy, "parameter").into_iter().map(|row| (code(&row[0]), row[1].clone())).collect();
    assert_eq!(documented, expected);
    for (name, parameter) in parameters {
        assert!(parameter["Description"].is_string(), "{name}");
    }
    let interface = &template.0["Metadata"]["AWS::CloudFormation::Interface"];
    let grouped: Vec<String> =
        list(&interface["ParameterGroups"]).iter().flat_map(|group| list(&group["Parameters"])).map(string).collect();
    assert_eq!(grouped.iter().collect::<BTreeSet<_>>(), parameters.keys().collect());
    assert_eq!(grouped.len(), parameters.len(), "a parameter is in two groups");
    assert_eq!(
        interface["ParameterLabels"].as_object().unwrap().keys().collect::<BTreeSet<_>>(),
        parameters.keys().collect()
    );
    for overrides in read("infra/samconfig.toml").lines().filter_map(|line| line.strip_prefix("parameter_overrides = "))
    {
        for name in overrides.trim_matches('"').split(' ').filter_map(|pair| pair.split('=').next()) {
            assert!(parameters.contains_key(name), "infra/samconfig.toml sets {name}, which is no parameter");
        }
    }

    let documented: BTreeSet<String> = rows(&deploy, "output").iter().flat_map(|row| codes(&row[0])).collect();
    assert_eq!(documented, template.0["Outputs"].as_object().unwrap().keys().cloned().collect());
    for webhook in Webhook::ALL {
        let camel = camel_case(webhook.name());
        assert_eq!(
            template.0["Outputs"][format!("{camel}Url")]["Value"],
            get(&format!("{camel}FunctionUrl"), "FunctionUrl")
        );
    }
    let anchors: BTreeSet<String> = read("README.md")
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')).map(anchor))
        .collect();
    for link in deploy.split("../README.md#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(anchors.contains(link), "the README has no section {link}");
    }
}

/// Run by [`Written::read`] in a process of its own, since metrics go to standard output.
#[test]
#[ignore = "writes one of each metric, for the other tests to read"]
fn writes_metrics() {
    let metrics = Metrics::read(&|name| (name == "STACK_NAME").then(|| "hookswitch".to_owned()));
    let now = Instant::now();
    metrics.delivery(Webhook::SessionEnd, "stored", Duration::from_millis(5), now);
    metrics.recording("waiting", now);
    metrics.archived(1, Duration::from_secs(1), Some(now), now);
    metrics.oldest_unfinished(None, now);
}

/// What the functions write: each metric's name, unit and dimensions, and the words of its outcomes.
struct Written {
    metrics: BTreeSet<(String, String, BTreeSet<String>)>,
    deliveries: BTreeSet<String>,
    recordings: BTreeSet<String>,
}

impl Written {
    fn read() -> Self {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "template::writes_metrics", "--nocapture"])
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let lines = output
            .lines()
            .filter_map(|line| line.find("{\"").and_then(|at| serde_json::from_str::<Value>(&line[at..]).ok()));
        let mut metrics = BTreeSet::new();
        for line in lines {
            for directive in list(&line["_aws"]["CloudWatchMetrics"]) {
                assert_eq!(directive["Namespace"], NAMESPACE);
                for dimensions in list(&directive["Dimensions"]) {
                    let dimensions: BTreeSet<String> = list(dimensions).iter().map(string).collect();
                    let of = |metric: &Value| (string(&metric["Name"]), string(&metric["Unit"]), dimensions.clone());
                    metrics.extend(list(&directive["Metrics"]).iter().map(of));
                }
            }
        }
        assert!(metrics.len() >= 8, "{output}");
        let source = |path: &str| std::fs::read_to_string(path).unwrap();
        let edge = source("../shared/src/webhook/mod.rs");
        let mut deliveries = literals(between(&edge, "const fn word(", "\n}\n"));
        deliveries.extend(literals(between(&edge, "Ok((\"", "\",")).into_iter().chain(["quarantined".to_owned()]));
        deliveries.extend(literals(between(
            &source("../shared/src/webhook/answer.rs"),
            "const fn outcome(",
            "\n    }\n",
        )));
        let mut recordings: BTreeSet<String> = State::ALL
            .into_iter()
            .filter(|state| !matches!(state, State::Pending | State::Copying))
            .map(|state| state.name().to_owned())
            .collect();
        recordings.insert("waiting".to_owned());
        Self { metrics, deliveries, recordings }
    }

    /// Fails unless the metric is written with just these dimensions, and their values can occur.
    fn check(&self, by: &str, name: &str, dimensions: &BTreeMap<String, Value>) {
        let names: BTreeSet<String> = dimensions.keys().cloned().collect();
        assert!(
            self.metrics.iter().any(|(written, _, dimensions)| written == name && *dimensions == names),
            "{by} looks at {name} by {names:?}, which nobody writes"
        );
        if let Some(outcome) = dimensions.get("outcome").map(string) {
            let words = if name == shared::metrics::DELIVERIES { &self.deliveries } else { &self.recordings };
            assert!(words.contains(&outcome), "{by} looks at {name} of the outcome {outcome}, which there is not");
        }
        if let Some(webhook) = dimensions.get("webhook").map(string) {
            assert!(webhook.parse::<Webhook>().is_ok(), "{by} looks at {name} of {webhook}");
        }
    }
}

/// `infra/template.yaml`, with CloudFormation's short forms written out: `!Ref X` is `{ "Ref": "X" }`.
struct Template(Value);

impl Template {
    fn read() -> Self {
        Self(written_out(serde_yaml_ng::from_str(&read("infra/template.yaml")).unwrap()))
    }

    fn of_type(&self, kind: &str) -> BTreeMap<String, Value> {
        let resources =
            self.0["Resources"].as_object().unwrap().iter().filter(|(_, resource)| resource["Type"] == kind);
        resources.map(|(logical, resource)| (logical.clone(), resource.clone())).collect()
    }

    fn resource(&self, logical: &str) -> &Value {
        let resource = &self.0["Resources"][logical];
        assert!(resource.is_object(), "the template has no {logical}");
        resource
    }

    /// A function's variables, the common ones included.
    fn environment(&self, function: &str) -> BTreeMap<String, Value> {
        let own = &self.resource(&format!("{}Function", camel_case(function)))["Properties"];
        let variables =
            [&self.0["Globals"]["Function"], own].map(|properties| properties["Environment"]["Variables"].as_object());
        variables.into_iter().flatten().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What these variables can be: the parameters' defaults, and each other value that a parameter allows.
    fn choices(&self, variables: &BTreeMap<String, Value>) -> Vec<BTreeMap<String, String>> {
        let parameter = |value: &Value| self.0["Parameters"].get(value["Ref"].as_str()?);
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let default = |(name, value): (&String, &Value)| {
            (
                name.clone(),
                parameter(value)
                    .map_or_else(|| "https://somewhere/".to_owned(), |parameter| text(&parameter["Default"])),
            )
        };
        let defaults: BTreeMap<String, String> = variables.iter().map(default).collect();
        let mut choices = vec![defaults.clone()];
        for (name, value) in variables {
            for allowed in
                parameter(value).and_then(|parameter| parameter["AllowedValues"].as_array()).into_iter().flatten()
            {
                let mut choice = defaults.clone();
                choice.insert(name.clone(), text(allowed));
                choices.push(choice);
            }
        }
        choices
    }
}

fn written_out(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Tagged(tagged) => {
            let value = written_out(tagged.value);
            match tagged.tag.to_string().trim_start_matches('!') {
                "Ref" => json!({ "Ref": value }),
                "GetAtt" => json!({ "Fn::GetAtt": value.as_str().unwrap().split('.').collect::<Vec<_>>() }),
                tag => json!({ format!("Fn::{tag}"): value }),
            }
        }
        Yaml::Sequence(items) => items.into_iter().map(written_out).collect(),
        Yaml::Mapping(members) => {
            members.into_iter().map(|(name, value)| (string(&written_out(name)), written_out(value))).collect()
        }
        plain => serde_json::to_value(plain).unwrap(),
    }
}

fn reference(to: &str) -> Value {
    json!({ "Ref": to })
}

fn get(of: &str, attribute: &str) -> Value {
    json!({ "Fn::GetAtt": [of, attribute] })
}

fn sub(text: &str) -> Value {
    json!({ "Fn::Sub": text })
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn one_or_many(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_else(|| vec![value.clone()])
}

/// The metrics of an alarm, whether it looks at one or at several.
fn metrics_of(alarm: &Value) -> Vec<Value> {
    match alarm["Metrics"].as_array() {
        None => vec![alarm.clone()],
        Some(several) => {
            several.iter().map(|metric| metric["MetricStat"]["Metric"].clone()).filter(Value::is_object).collect()
        }
    }
}

/// The functions: one for each webhook, and the archiver.
fn functions() -> BTreeSet<String> {
    Webhook::ALL.iter().map(|webhook| webhook.name()).chain([ARCHIVER]).map(str::to_owned).collect()
}

/// `session_start` → `SessionStart`.
fn camel_case(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The variables that a function asks for as it starts.
fn asked_by(webhook: Option<Webhook>, value: Lookup<'_>) -> Result<BTreeSet<String>, String> {
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        value(name)
    };
    let started = match webhook {
        Some(webhook) => App::from_environment(webhook, &lookup, Arc::new(Instant::now)).map(drop),
        None => Archiver::from_environment(&lookup).map(drop),
    };
    started.map_err(|error| error.to_string())?;
    let level = value("LOG_LEVEL").unwrap_or_default();
    level.parse::<tracing::Level>().map_err(|_| format!("{level} is no LOG_LEVEL"))?;
    Ok(asked.into_inner())
}

/// A file of the repository.
fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new("..").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What is deployed, without its unit tests.
fn sources() -> Vec<(PathBuf, String)> {
    fn below(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
                let source = std::fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
                found.push((path, code));
            }
        }
    }
    let mut found = Vec::new();
    below(Path::new("../shared/src"), &mut found);
    below(Path::new("../functions"), &mut found);
    found
}

/// The texts between quotation marks, comments left out.
fn literals(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in source.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        found.extend(line.replace("'\"'", "").split('"').skip(1).step_by(2).map(str::to_owned));
    }
    found
}

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, after) = text.split_once(begin).unwrap_or_else(|| panic!("{begin} is gone"));
    after.split(end).next().unwrap_or_default()
}

/// The texts of errors from `begin` to the end of that item, with `...` for what varies.
fn errors(path: &str, begin: &str) -> BTreeSet<String> {
    let source = std::fs::read_to_string(path).unwrap();
    let texts = between(&source, begin, "\n}").split("#[error(\"").skip(1).filter_map(|text| text.split("\")]").next());
    let fixed = |text: &str| {
        text.split(['{', '}']).enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "..." }).collect()
    };
    texts.map(fixed).collect()
}

/// A page's part below a heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    between(page, heading, "\n## ")
}

/// The rows of a page's tables whose first column has this name.
fn rows(page: &str, column: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with(&format!("| {column} |")) {
            inside = true;
        } else if !line.starts_with('|') {
            inside = false;
        } else if inside && !line.starts_with("|---") {
            rows.push(line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect());
        }
    }
    assert!(!rows.is_empty(), "there is no table of {column}");
    rows
}

/// What stands `like this` in a text.
fn codes(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn code(text: &str) -> String {
    codes(text).into_iter().next().unwrap_or_else(|| panic!("{text} names nothing"))
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let letters = heading.to_lowercase().replace(' ', "-");
    letters.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_'].contains(letter)).collect()
}
