//! The template, the Rust code and the docs say the same, or a test here names what one of them lacks.
//!
//! All three are read as they are now: paths are relative to this package's folder, where cargo runs tests.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use call_exporter::Exporter;
use event_publisher::Publisher;
use event_publisher::bus::SOURCE;
use event_publisher::event::Kind;
use reconciler::Reconciler;
use recording_archiver::Archiver;
use serde_json::{Value, json};
use shared::config::{DEFAULT_DEADLINE_MS, DEFAULT_TOLERANCE_SECONDS, Lookup};
use shared::metrics::{DELIVERIES, DOCUMENTS, EVENTS, Metrics, NAMESPACE, RECONCILED, RECONCILER_RUNS};
use shared::profile::Reason;
use shared::recording::State;
use shared::storage::{BY_CONTACT, BY_DAY, UNFINISHED};
use shared::webhook::App;
use shared::{Instant, Provider, Webhook};

type Names = BTreeSet<String>;

/// The functions that no platform calls: they have a schedule, or the stream of a table.
const OURS: [&str; 4] = ["recording_archiver", "reconciler", "event_publisher", "call_exporter"];
/// Those that a stream calls.
const BY_STREAM: [&str; 3] = ["recording_archiver", "event_publisher", "call_exporter"];
/// AWS's page "Limits that apply to alarms based on metric math expressions".
const METRICS_OF_AN_ALARM: usize = 10;

/// What the functions read and the template leaves alone.
const NOT_SET: [(&str, &str); 20] = [
    ("AWS_REGION", "Lambda sets it"),
    ("AWS_ACCESS_KEY_ID", "Lambda sets it"),
    ("AWS_SECRET_ACCESS_KEY", "Lambda sets it"),
    ("AWS_SESSION_TOKEN", "Lambda sets it"),
    ("AWS_ENDPOINT_URL", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_DYNAMODB", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_EVENTBRIDGE", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_S3", "AWS's own are meant"),
    ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS's own are meant"),
    ("AWS_CA_BUNDLE", "Amazon's roots are built in"),
    ("EXOTEL_TOKEN_SECRETS", "Secrets Manager holds them: a template's values can be read by whoever sees the stack"),
    ("VOCOBASE_SECRETS", "Secrets Manager holds them: a template's values can be read by whoever sees the stack"),
    ("DEADLINE_MS", "the default suits both platforms"),
    ("HISTORY_MS", "the default leaves time for the answer"),
    ("TIMESTAMP_TOLERANCE_SECONDS", "the default suits Vocobase"),
    ("RECORDING_MAX_BYTES", "the default is longer than any call"),
    ("RECORDING_CA_FILE", "recordings are at public hosts"),
    ("VOCOBASE_API_KEY", "Secrets Manager holds it"),
    ("VOCOBASE_API_URL", "the default is Vocobase's own"),
    ("RECONCILE_PAGE_SIZE", "the default is the most that the API allows"),
];

#[test]
fn every_function_has_its_folder_its_resources_and_its_line_in_the_docs() {
    let template = Template::read();
    let folders = std::fs::read_dir("../functions").unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names(folders.map(|name| name.into_string().unwrap())), functions());
    assert_eq!(names(rows(&read("docs/deploy.md"), "function").iter().map(|row| code(&row[0]))), functions());
    let logical = names(functions().iter().map(|name| camel_case(name) + "Function"));
    assert_eq!(names(template.of_type("AWS::Serverless::Function").into_keys()), logical);
    for name in functions() {
        let camel = camel_case(&name);
        let function = &template.resource(&format!("{camel}Function"))["Properties"];
        assert_eq!(function["FunctionName"], sub(&format!("${{AWS::StackName}}-{name}")));
        assert_eq!(function["CodeUri"], format!("../target/lambda/{name}/"));
        assert_eq!(function["Role"], get(&format!("{camel}Role"), "Arn"));
        assert_eq!(function["LoggingConfig"]["LogGroup"], reference(&format!("{camel}LogGroup")));
        let log_group = &template.resource(&format!("{camel}LogGroup"))["Properties"];
        assert_eq!(log_group["LogGroupName"], sub(&format!("/aws/lambda/${{AWS::StackName}}-{name}")));
        assert_eq!(log_group["RetentionInDays"], reference("LogRetentionDays"));
        let url = if OURS.contains(&name.as_str()) { Value::Null } else { json!({ "AuthType": "NONE" }) };
        assert_eq!(function["FunctionUrlConfig"], url, "{name}");
    }
}

#[test]
fn a_role_is_one_functions_and_allows_named_actions_on_named_resources_only() {
    let roles = Template::read().of_type("AWS::IAM::Role");
    assert_eq!(names(roles.keys()), names(functions().iter().map(|name| camel_case(name) + "Role")));
    for (role, resource) in &roles {
        let properties = &resource["Properties"];
        assert_eq!(properties["ManagedPolicyArns"], Value::Null, "{role}");
        let trusted = &properties["AssumeRolePolicyDocument"]["Statement"][0]["Principal"];
        assert_eq!(*trusted, json!({ "Service": "lambda.amazonaws.com" }), "{role}");
        let statements =
            list(&properties["Policies"]).iter().flat_map(|policy| list(&policy["PolicyDocument"]["Statement"]));
        for statement in statements {
            let (actions, sid) = (names(one_or_many(&statement["Action"]).iter().map(string)), &statement["Sid"]);
            assert!(!actions.iter().any(|action| action.contains('*')), "{role}: {sid}");
            // X-Ray's actions know no resources.
            let anywhere = one_or_many(&statement["Resource"]).contains(&json!("*"));
            assert!(!anywhere || actions.iter().all(|action| action.starts_with("xray:")), "{role}: {sid}");
            if sid == "WriteLogs" {
                assert_eq!(statement["Resource"], get(&role.replace("Role", "LogGroup"), "Arn"));
            }
        }
    }
}

#[test]
fn functions_read_what_the_template_sets_and_accept_every_value_that_its_parameters_allow() {
    let template = Template::read();
    for name in functions() {
        let set = template.environment(&name);
        let webhook = name.parse::<Webhook>().ok();
        let mut read = names(["LOG_LEVEL"]); // by `main`
        for chosen in template.choices(&set) {
            let value = |variable: &str| match variable {
                "AWS_REGION" | "AWS_ACCESS_KEY_ID" | "AWS_SECRET_ACCESS_KEY" => Some("as Lambda says".to_owned()),
                variable => chosen.get(variable).cloned(),
            };
            read.extend(asked_by(&name, &value).unwrap_or_else(|error| panic!("{name} with {chosen:?}: {error}")));
        }
        for variable in set.keys() {
            assert!(read.contains(variable), "{name} is given {variable} and does not read it");
        }
        let sibling = |variable: &str| variable.ends_with("_URL") && !variable.starts_with("AWS_");
        let of_the_other_platform = match webhook.map(Webhook::provider) {
            Some(Provider::Exotel) => "VOCOBASE_",
            Some(Provider::Vocobase) => "EXOTEL_",
            None => "-",
        };
        for variable in read.iter().filter(|variable| !set.contains_key(*variable)) {
            let left_alone = NOT_SET.iter().any(|(known, _)| known == variable)
                || variable.starts_with(of_the_other_platform)
                || (sibling(variable) && webhook != Some(Webhook::SessionStart));
            assert!(left_alone, "{name} reads {variable}, and the template does not set it");
        }
        // Only session_start hands the others' URLs out. In the others they would be a circle of dependencies.
        let siblings = set.keys().filter(|variable| sibling(variable)).count();
        assert_eq!(siblings, if webhook == Some(Webhook::SessionStart) { 4 } else { 0 }, "{name}");
    }
}

#[test]
fn every_variable_that_the_code_names_is_in_the_readme() {
    let readme = rows(&read("README.md"), "variable");
    let is_variable = |literal: &String| {
        let letters = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        literal.contains('_') && literal.chars().all(letters) && literal != "FULL_OBJECT" // a word of S3's
    };
    let named = sources().iter().flat_map(|(_, source)| literals(source)).filter(is_variable).collect::<Names>();
    assert_eq!(names(readme.iter().flat_map(|row| codes(&row[0]))), named);
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
    let not_of_words = |letter: char| !letter.is_alphanumeric() && letter != '_';
    let shared = sources().into_iter().filter(|(path, _)| path.starts_with("../shared/src"));
    let texts = shared.flat_map(|(_, source)| literals(&source)).collect::<Vec<_>>();
    let known = names(texts.iter().flat_map(|text| text.split(not_of_words)));
    let (mut keys, mut indexes) = (BTreeMap::new(), Names::new());
    for (logical, table) in template.of_type("AWS::DynamoDB::Table") {
        let table = &table["Properties"];
        let name = logical.strip_suffix("Table").unwrap().to_lowercase();
        assert_eq!(table["TableName"], sub(&format!("${{AWS::StackName}}-{name}")));
        let attributes = |keys: &Value| list(keys).iter().map(|key| string(&key["AttributeName"])).collect::<Vec<_>>();
        let mut used = attributes(&table["KeySchema"]);
        keys.insert(name, used.clone());
        for index in some_or_none(&table["GlobalSecondaryIndexes"]) {
            indexes.insert(string(&index["IndexName"]));
            used.extend(attributes(&index["KeySchema"]));
            used.extend(some_or_none(&index["Projection"]["NonKeyAttributes"]).map(string));
        }
        used.extend(table["TimeToLiveSpecification"]["AttributeName"].as_str().map(str::to_owned));
        for attribute in used {
            assert!(known.contains(&attribute), "{logical} has {attribute}, which the code does not know");
        }
    }
    assert_eq!(indexes, names([BY_DAY, BY_CONTACT, UNFINISHED]));
    let documented = rows(&read("README.md"), "table").into_iter().map(|row| (code(&row[0]), codes(&row[1])));
    assert_eq!(keys, documented.collect());
}

#[test]
fn the_archiver_is_brought_new_jobs_by_the_stream_of_their_table() {
    let template = Template::read();
    let jobs = &template.resource("RecordingArchiverFunction")["Properties"]["Events"]["Jobs"]["Properties"];
    assert_eq!(jobs["Stream"], get("RecordingsTable", "StreamArn"));
    assert_eq!(jobs["BatchSize"], recording_archiver::PARALLEL, "a larger batch would have jobs wait for each other");
    let pattern = string(&jobs["FilterCriteria"]["Filters"][0]["Pattern"]);
    let image = &serde_json::from_str::<Value>(&pattern).unwrap()["dynamodb"]["NewImage"];
    assert_eq!(image["state"]["S"], json!([State::Pending.name()]));
    let view = &template.resource("RecordingsTable")["Properties"]["StreamSpecification"]["StreamViewType"];
    assert_eq!(view, "NEW_IMAGE", "the filter looks into the new item");
    for (what, expected) in [
        ("FunctionResponseTypes", json!(["ReportBatchItemFailures"])),
        ("BisectBatchOnFunctionError", json!(true)),
        ("MaximumRetryAttempts", json!(3)),
        ("DestinationConfig", json!({ "OnFailure": { "Type": "SQS", "Destination": get("FailureQueue", "Arn") } })),
    ] {
        assert_eq!(jobs[what], expected, "one bad record would hold up its shard");
    }
}

#[test]
fn the_publisher_is_brought_what_it_tells_and_tries_for_longer_than_it_waits_for_the_bus() {
    let template = Template::read();
    let publisher = &template.resource("EventPublisherFunction")["Properties"];
    let events = publisher["Events"].as_object().unwrap();
    let mut patterns = BTreeMap::new();
    for mapping in events.values().map(|event| &event["Properties"]) {
        let table = string(&mapping["Stream"]["Fn::GetAtt"][0]);
        assert_eq!(mapping["Stream"], get(&table, "StreamArn"));
        for (what, expected) in [
            ("FunctionResponseTypes", json!(["ReportBatchItemFailures"])),
            ("BisectBatchOnFunctionError", json!(true)),
            ("MaximumRetryAttempts", Value::Null),
            ("DestinationConfig", json!({ "OnFailure": { "Type": "SQS", "Destination": get("FailureQueue", "Arn") } })),
        ] {
            assert_eq!(mapping[what], expected, "{table}");
        }
        let age = mapping["MaximumRecordAgeInSeconds"].as_i64().unwrap();
        assert!(age > event_publisher::PATIENCE_SECONDS, "{table}: given up before it is put aside");
        let pattern = string(&mapping["FilterCriteria"]["Filters"][0]["Pattern"]);
        patterns.insert(table, serde_json::from_str::<Value>(&pattern).unwrap());
    }
    let view = |table: &str| &template.resource(table)["Properties"]["StreamSpecification"]["StreamViewType"];
    assert_eq!(view("EventsTable"), "NEW_IMAGE", "the filter looks into the new item");
    assert_eq!(view("SessionsTable"), "NEW_AND_OLD_IMAGES", "what is new of a call is told by what it was");

    let deliveries = &patterns["EventsTable"];
    assert_eq!(deliveries["eventName"], json!(["INSERT"]));
    let told = between(&source("../functions/event_publisher/src/lib.rs"), "let says = [", "]").to_owned();
    let told = names(told.split("Webhook::").skip(1).map(|name| name.trim().trim_end_matches(',')));
    let webhooks = list(&deliveries["dynamodb"]["NewImage"]["webhook"]["S"]).iter().map(string);
    let webhooks: Vec<Webhook> = webhooks.map(|name| name.parse().unwrap()).collect();
    assert_eq!(names(webhooks.iter().map(|webhook| camel_case(webhook.name()))), told);
    let session = &deliveries["dynamodb"]["Keys"]["session"]["S"];
    let prefixes = names(webhooks.iter().map(|webhook| format!("{}#", webhook.provider().name())));
    assert_eq!(names(list(session).iter().map(|prefix| string(&prefix["prefix"]))), prefixes);
    let state = |table: &str| names(list(&patterns[table]["dynamodb"]["NewImage"]["state"]["S"]).iter().map(string));
    assert_eq!(state("SessionsTable"), names([shared::call::State::Ended.name()]));
    let is_over = |state: &&State| ![State::Pending, State::Copying].contains(state);
    assert_eq!(state("RecordingsTable"), names(State::ALL.iter().filter(is_over).map(|state| state.name())));
}

#[test]
fn the_exporter_is_brought_calls_that_are_over_and_turns_that_may_be_late_and_tries_as_long_as_the_publisher() {
    let template = Template::read();
    let properties = |function: &str| template.resource(function)["Properties"]["Events"].clone();
    let (exporter, publisher) = (properties("CallExporterFunction"), properties("EventPublisherFunction"));
    let mut patterns = BTreeMap::new();
    for mapping in exporter.as_object().unwrap().values().map(|event| &event["Properties"]) {
        let table = string(&mapping["Stream"]["Fn::GetAtt"][0]);
        for what in [
            "StartingPosition",
            "FunctionResponseTypes",
            "BisectBatchOnFunctionError",
            "MaximumRetryAttempts",
            "MaximumRecordAgeInSeconds",
            "DestinationConfig",
        ] {
            assert_eq!(mapping[what], publisher["Calls"]["Properties"][what], "{table}: {what}");
        }
        let pattern = string(&mapping["FilterCriteria"]["Filters"][0]["Pattern"]);
        patterns.insert(table, serde_json::from_str::<Value>(&pattern).unwrap());
    }
    assert_eq!(names(patterns.keys()), names(["SessionsTable", "TranscriptsTable"]));
    let states = list(&patterns["SessionsTable"]["dynamodb"]["NewImage"]["state"]["S"]).iter().map(string);
    assert_eq!(names(states), names([shared::call::State::Ended.name(), shared::call::State::Erased.name()]));
    let turns = &patterns["TranscriptsTable"];
    let session = &turns["dynamodb"]["Keys"]["session"]["S"];
    assert_eq!(
        *session,
        json!([{ "prefix": format!("{}#", Provider::Exotel.name()) }]),
        "Vocobase's come with the call"
    );
    assert_eq!(turns["eventName"], json!(["INSERT", "MODIFY"]), "a turn that expires is no news");
    let view = |table: &str| &template.resource(table)["Properties"]["StreamSpecification"]["StreamViewType"];
    assert_eq!(view("SessionsTable"), "NEW_AND_OLD_IMAGES", "a call that moves is removed where it was");
    assert_eq!(view("TranscriptsTable"), "KEYS_ONLY", "whose turn it is, and nothing that was said");
}

/// Source: Amazon Athena User Guide, "Set up partition projection".
#[test]
fn athenas_table_has_a_column_for_each_member_of_a_document_and_looks_where_documents_are() {
    fn glue(described: &Value) -> String {
        let kind = described["type"].as_array().map_or(&described["type"], |kinds| &kinds[0]);
        match kind.as_str().unwrap() {
            "object" => {
                let members = list_of_members(&described["properties"]);
                let members = members.iter().map(|(name, member)| format!("{name}:{}", glue(member)));
                format!("struct<{}>", members.collect::<Vec<_>>().join(","))
            }
            "array" => format!("array<{}>", glue(&described["items"])),
            "number" => "double".to_owned(),
            "integer" => "bigint".to_owned(),
            plain => plain.to_owned(),
        }
    }
    fn list_of_members(properties: &Value) -> Vec<(String, Value)> {
        let members = properties.as_object().unwrap();
        members.iter().map(|(name, member)| (name.clone(), member.clone())).collect()
    }
    // The members of a struct have an order in Glue and none in JSON: it is no matter which.
    let sorted = |kind: &str| {
        let (outer, inner) = kind.split_once("struct<").unwrap_or((kind, ""));
        let mut members: Vec<&str> = inner.trim_end_matches('>').split(',').collect();
        members.sort_unstable();
        (outer.to_owned(), members.join(","))
    };
    let schema: Value = serde_json::from_str(&read("docs/calls/call.v1.schema.json")).unwrap();
    let members = list_of_members(&schema["properties"]).into_iter();
    let template = Template::read();
    let table = &template.resource("CallsTable")["Properties"];
    let partitions = list(&table["TableInput"]["PartitionKeys"]).iter().map(|key| string(&key["Name"]));
    let partitions: Vec<String> = partitions.collect();
    let expected = members.filter(|(name, _)| !partitions.contains(name));
    let expected: BTreeMap<_, _> = expected.map(|(name, member)| (name, sorted(&glue(&member)))).collect();
    let columns = list(&table["TableInput"]["StorageDescriptor"]["Columns"]).iter();
    let columns = columns.map(|column| (string(&column["Name"]), sorted(&string(&column["Type"]))));
    assert_eq!(columns.collect::<BTreeMap<_, _>>(), expected);

    let parameters = &table["TableInput"]["Parameters"];
    let place = string(&parameters["storage.location.template"]["Fn::Sub"]);
    let partition = shared::document::partition(Provider::Exotel, "${!dt}").replace("exotel", "${!provider}");
    assert_eq!(place, format!("s3://${{RecordingsBucket}}/{}{partition}/", shared::document::CALLS));
    let providers = [Provider::Exotel, Provider::Vocobase].map(Provider::name).join(",");
    assert_eq!(parameters["projection.provider.values"], providers);
    assert_eq!(
        parameters["projection.dt.range"],
        sub("NOW-${RetentionDays}DAYS,NOW+1DAYS"),
        "as long as they are kept"
    );
    let work_group = &template.resource("AnalysisWorkGroup")["Properties"]["WorkGroupConfiguration"];
    assert_eq!(work_group["EnforceWorkGroupConfiguration"], true, "or a query might set another limit");
    assert_eq!(work_group["BytesScannedCutoffPerQuery"], reference("QueryScanLimit"));
    let results = &work_group["ResultConfiguration"]["OutputLocation"];
    assert_eq!(*results, sub("s3://${RecordingsBucket}/athena/"));
    let rules = &template.resource("RecordingsBucket")["Properties"]["LifecycleConfiguration"]["Rules"];
    let days = |prefix: &str| {
        let rule = list(rules).iter().find(|rule| rule["Prefix"] == prefix).unwrap_or_else(|| panic!("{prefix} stays"));
        rule["ExpirationInDays"].clone()
    };
    assert_eq!((days("calls/"), days("athena/")), (reference("RetentionDays"), json!(1)));
    let queries = template.of_type("AWS::Athena::NamedQuery");
    let explained = rows(&read("docs/calls/README.md"), "query");
    let said = |query: &Value| (string(&query["Properties"]["Name"]), string(&query["Properties"]["Description"]));
    let explained = explained.iter().map(|row| (code(&row[0]), row[1].clone()));
    assert_eq!(explained.collect::<BTreeMap<_, _>>(), queries.values().map(said).collect());
    for (logical, query) in queries {
        assert_eq!(query["Properties"]["WorkGroup"], reference("AnalysisWorkGroup"), "{logical}");
        assert_eq!(query["Properties"]["Database"], reference("AnalysisDatabase"), "{logical}");
    }
}

/// Source: Amazon DynamoDB Developer Guide, "Change data capture for DynamoDB Streams": no more than two processes
/// should read from a shard at a time.
#[test]
fn no_stream_has_more_than_two_readers() {
    let mut readers: BTreeMap<String, u32> = BTreeMap::new();
    for function in Template::read().of_type("AWS::Serverless::Function").values() {
        for event in function["Properties"]["Events"].as_object().into_iter().flatten() {
            if let Some(table) = event.1["Properties"]["Stream"]["Fn::GetAtt"][0].as_str() {
                *readers.entry(table.to_owned()).or_default() += 1;
            }
        }
    }
    assert_eq!(names(readers.keys()), names(["EventsTable", "TranscriptsTable", "SessionsTable", "RecordingsTable"]));
    assert!(readers.values().all(|readers| *readers <= 2), "{readers:?}");
}

#[test]
fn events_have_the_source_types_and_members_that_the_examples_look_at() {
    let bus = Template::read().resource("EventBus")["Properties"]["Name"].clone();
    assert_eq!(bus, reference("AWS::StackName"), "the examples say that the bus has the name of the stack");
    for example in ["queue", "http", "slack", "step-functions"] {
        let text = read(&format!("infra/examples/{example}.yaml"));
        assert!(text.contains(&format!("sam deploy -t infra/examples/{example}.yaml --stack-name hookswitch-")));
        let template = Template(written_out(serde_yaml_ng::from_str(&text).unwrap()));
        for (logical, rule) in template.of_type("AWS::Events::Rule") {
            let (rule, logical) = (&rule["Properties"], format!("{example}: {logical}"));
            assert_eq!(rule["EventBusName"], reference("Bus"), "{logical}");
            assert_eq!(rule["EventPattern"]["source"], json!([SOURCE]), "{logical}");
            let kinds = some_or_none(&rule["EventPattern"]["detail-type"]).map(string).collect::<Vec<_>>();
            assert!(
                kinds.iter().all(|kind| Kind::ALL.map(Kind::name).contains(&kind.as_str())),
                "{logical}: {kinds:?}"
            );
            for target in list(&rule["Targets"]) {
                assert_eq!(target["DeadLetterConfig"]["Arn"], get("DeadLetters", "Arn"), "{logical}");
                let paths = target["InputTransformer"]["InputPathsMap"].as_object().into_iter().flatten();
                for path in paths.map(|(_, path)| string(path)) {
                    for kind in &kinds {
                        assert!(
                            is_described(kind, path.trim_start_matches("$.detail.")),
                            "{logical}: {kind} has no {path}"
                        );
                    }
                }
            }
        }
    }
}

/// Whether `docs/events` describes the member of an event at that path. A member that is described without its own
/// members may have any.
fn is_described(kind: &str, path: &str) -> bool {
    let schema = |name: &str| serde_json::from_str::<Value>(&read(&format!("docs/events/{name}.json"))).unwrap();
    let (mut root, mut path) = (schema("event"), path);
    if let Some(rest) = path.strip_prefix("data.") {
        (root, path) = (schema(kind), rest);
    }
    let mut at = &root;
    for name in path.split('.') {
        if let Some(reference) = at["$ref"].as_str() {
            at = root.pointer(reference.trim_start_matches('#')).unwrap();
        }
        match at.get("properties") {
            Some(members) => at = &members[name],
            None => return !at.is_null(),
        }
    }
    !at.is_null()
}

#[test]
fn what_holds_data_outlives_the_stack_but_not_a_first_deployment_that_failed() {
    let template = Template::read();
    let kinds = ["AWS::DynamoDB::Table", "AWS::S3::Bucket", "AWS::SecretsManager::Secret", "AWS::SQS::Queue"];
    let kept = kinds.iter().flat_map(|kind| template.of_type(kind)).collect::<BTreeMap<_, _>>();
    assert_eq!(kept.len(), 10);
    for (logical, resource) in &kept {
        assert_eq!(resource["DeletionPolicy"], "RetainExceptOnCreate", "{logical}");
        assert_eq!(resource["UpdateReplacePolicy"], "Retain", "{logical}");
    }
    for (logical, table) in template.of_type("AWS::DynamoDB::Table") {
        let profiles = logical == "ProfilesTable"; // which never expire
        let expiry = if profiles { Value::Null } else { json!({ "AttributeName": "expires_at", "Enabled": true }) };
        for (property, expected) in [
            ("DeletionProtectionEnabled", reference("DeletionProtection")),
            ("PointInTimeRecoverySpecification", json!({ "PointInTimeRecoveryEnabled": true })),
            ("SSESpecification", json!({ "SSEEnabled": true })),
            ("TimeToLiveSpecification", expiry),
        ] {
            assert_eq!(table["Properties"][property], expected, "{logical}: {property}");
        }
    }
    // With it a first deployment that failed could not be rolled back.
    assert_eq!(template.0["Parameters"]["DeletionProtection"]["Default"], "false");
}

#[test]
fn no_secret_is_in_the_template_and_the_generated_one_is_never_generated_again() {
    let template = Template::read();
    let text = read("infra/template.yaml");
    for way in ["{{resolve:", " SecretString:", "NoEcho"] {
        assert!(!text.contains(way), "a secret by {way}");
    }
    // CloudFormation generates another value when any of this changes, and every URL that was pasted is refused.
    let generated = &template.resource("ExotelTokenSecret")["Properties"]["GenerateSecretString"];
    assert_eq!(*generated, json!({ "PasswordLength": 48, "ExcludePunctuation": true }));
    for secret in ["VocobaseSecret", "VocobaseApiKeySecret"] {
        let properties = template.resource(secret)["Properties"].as_object().unwrap();
        assert_eq!(names(properties.keys()), names(["Description"]), "the value of {secret} is set after deployment");
    }
}

#[test]
fn alarms_look_at_every_function_and_at_metrics_that_are_written() {
    let written = Written::read();
    for (logical, alarm) in Template::read().of_type("AWS::CloudWatch::Alarm") {
        let alarm = &alarm["Properties"];
        assert_eq!(alarm["AlarmActions"], json!([reference("AlarmTopic")]), "{logical}");
        assert_eq!(alarm["OKActions"], json!([reference("AlarmTopic")]), "{logical}");
        assert_eq!(alarm["TreatMissingData"], "notBreaching", "{logical}: a quiet night is no trouble");
        let metrics = metrics_of(alarm);
        assert!(metrics.len() <= METRICS_OF_AN_ALARM, "{logical} has {} metrics", metrics.len());
        let mut looked_at: BTreeMap<String, Names> = BTreeMap::new();
        for metric in metrics {
            let name = string(&metric["MetricName"]);
            let pairs = list(&metric["Dimensions"]).iter().map(|pair| (string(&pair["Name"]), pair["Value"].clone()));
            let dimensions: BTreeMap<String, Value> = pairs.collect();
            match metric["Namespace"].as_str() {
                Some(NAMESPACE) => {
                    assert_eq!(dimensions["stack"], reference("AWS::StackName"), "{logical}");
                    written.check(&logical, &name, &dimensions);
                }
                Some("AWS/Lambda") => {
                    looked_at.entry(name).or_default().insert(string(&dimensions["FunctionName"]["Ref"]));
                }
                _ => assert_eq!(dimensions["QueueName"], get("FailureQueue", "QueueName"), "{logical}"),
            }
        }
        for (metric, of) in looked_at {
            let wanted = |name: &&String| match (logical.as_str(), metric.as_str(), name.parse().map(Webhook::provider))
            {
                ("ExotelServerErrorRateAlarm", _, provider) => {
                    provider.is_ok_and(|provider| provider == Provider::Exotel)
                }
                ("VocobaseServerErrorRateAlarm", _, provider) => {
                    provider.is_ok_and(|provider| provider == Provider::Vocobase)
                }
                (_, "IteratorAge", _) => BY_STREAM.contains(&name.as_str()),
                _ => true,
            };
            let expected =
                functions().iter().filter(wanted).map(|name| camel_case(name) + "Function").collect::<Names>();
            assert_eq!(of, expected, "{logical}: {metric}");
        }
    }
}

#[test]
fn the_dashboard_shows_every_alarm_and_function_and_metrics_that_are_written() {
    let template = Template::read();
    let written = Written::read();
    let body = string(&template.resource("Dashboard")["Properties"]["DashboardBody"]["Fn::Sub"]);
    let body = body.replace("${AWS::StackName}", "hookswitch").replace("${!", "{");
    let dashboard: Value = serde_json::from_str(&body).unwrap();
    let widgets = list(&dashboard["widgets"]).iter().map(|widget| &widget["properties"]).collect::<Vec<_>>();
    let alarms = names(widgets.iter().flat_map(|widget| some_or_none(&widget["alarms"])).map(string));
    let all = template.of_type("AWS::CloudWatch::Alarm").into_keys().map(|alarm| format!("${{{alarm}.Arn}}"));
    assert_eq!(alarms, all.collect());

    let mut shown: BTreeMap<String, Names> = BTreeMap::new();
    for metric in widgets.iter().flat_map(|widget| some_or_none(&widget["metrics"])).map(list) {
        let words = metric.iter().map_while(Value::as_str).collect::<Vec<_>>();
        match words.as_slice() {
            // A search, by dimensions and name as they are written.
            [] => {
                let search = string(&metric[0]["expression"]);
                let dimensions = between(&search, "{Hookswitch,", "}").split(',');
                let mut dimensions: BTreeMap<_, _> = dimensions.map(|name| (name.to_owned(), Value::Null)).collect();
                dimensions.insert("outcome".to_owned(), json!(between(&search, "outcome=\"", "\"")));
                written.check("the dashboard", between(&search, "MetricName=\"", "\""), &dimensions);
            }
            // The one before, by another statistic.
            ["..."] => {}
            [NAMESPACE, name, dimensions @ ..] => {
                let dimensions = dimensions.chunks(2).map(|pair| (pair[0].to_owned(), json!(pair[1]))).collect();
                written.check("the dashboard", name, &dimensions);
            }
            [_, name, .., of] => {
                shown.entry((*name).to_owned()).or_default().extend([of.replace("hookswitch-", "")]);
            }
            [_] | [_, _] => panic!("{words:?} is no metric"),
        }
    }
    let webhooks = names(Webhook::ALL.map(Webhook::name));
    let tables = cli::template::tables().unwrap().into_keys().filter(|table| table != "profiles").collect();
    assert_eq!(shown.remove("Url5xxCount"), Some(webhooks));
    assert_eq!(shown.remove("ConsumedWriteCapacityUnits"), Some(tables));
    assert_eq!(shown.remove("IteratorAge"), Some(names(BY_STREAM)));
    for (metric, of) in shown {
        assert_eq!(of, functions(), "{metric}");
    }
    let query = widgets.iter().find_map(|widget| widget["query"].as_str()).unwrap();
    let log_groups = functions().iter().map(|name| format!("/aws/lambda/hookswitch-{name}")).collect();
    assert_eq!(names(query.split('\'').skip(1).step_by(2)), log_groups);
}

#[test]
fn every_metric_and_outcome_is_explained_and_counted() {
    let written = Written::read();
    let operations = read("docs/operations.md");
    let metrics = rows(&operations, "metric").into_iter().flat_map(|row| {
        let metric = |set: &str| (code(&row[0]), row[1].clone(), names(codes(set)));
        row[2].split(';').map(metric).collect::<Vec<_>>()
    });
    assert_eq!(metrics.collect::<BTreeSet<_>>(), written.metrics);
    let outcomes = |column: &str| names(rows(&operations, column).iter().flat_map(|row| codes(&row[0])));
    assert_eq!(outcomes("outcome of a delivery"), written.deliveries);
    assert_eq!(outcomes("outcome of a recording"), written.recordings);
    assert_eq!(outcomes("outcome of a run"), written.runs);
    assert_eq!(outcomes("outcome of what was missing"), written.missing);
    assert_eq!(outcomes("outcome of an event"), written.events);
    assert_eq!(outcomes("outcome of a document"), written.documents);
    assert_eq!(outcomes("reason of a fallback"), names(Reason::ALL.map(Reason::name)));

    let (webhooks, outcomes) = (Webhook::ALL.len(), written.deliveries.len());
    let by_stack = written.metrics.iter().filter(|(_, _, dimensions)| dimensions.len() == 1).count();
    let of_schedules = written.recordings.len() + written.runs.len() + written.missing.len();
    let of_documents = written.documents.len();
    let of_events = (Kind::ALL.len() + 1) * written.events.len();
    let most = webhooks * outcomes
        + outcomes
        + webhooks
        + of_schedules
        + of_events
        + of_documents
        + Reason::ALL.len()
        + by_stack;
    let cost = format!("{most} at most: `Deliveries` {webhooks} webhooks × {outcomes} outcomes and {outcomes} in all");
    assert!(operations.contains(&cost), "the costs do not say: {cost}");
    let alarms = Template::read().of_type("AWS::CloudWatch::Alarm");
    let looked_at: usize = alarms.values().map(|alarm| metrics_of(&alarm["Properties"]).len()).sum();
    assert!((cli::cost::ALARM_METRICS - f64::from(u32::try_from(looked_at).unwrap())).abs() < 0.1, "{looked_at}");
    let cost = format!("| {looked_at}: {}.{}0 |", looked_at / 10, looked_at % 10);
    assert!(operations.contains(&cost), "the costs do not say: {cost}");
}

#[test]
fn every_alarm_is_explained_in_the_words_of_its_mail() {
    let alarms = Template::read().of_type("AWS::CloudWatch::Alarm");
    let operations = read("docs/operations.md");
    let sections = between(&operations, "## Alarms", "\n## ").split("\n### ").skip(1);
    let explained: BTreeMap<&str, &str> = sections.map(|section| section.split_once("\n\n").unwrap()).collect();
    assert_eq!(names(explained.keys()), names(alarms.keys()));
    for (logical, alarm) in &alarms {
        let explained = explained[logical.as_str()].replace('\n', " ");
        let said = format!("*{}*", string(&alarm["Properties"]["AlarmDescription"]));
        assert!(explained.starts_with(&said), "{logical} does not begin with {said}");
        for part in ["- **Look**", "- **Do**"] {
            assert!(explained.contains(part), "{logical} lacks {part}");
        }
    }
}

#[test]
fn every_reason_for_an_answer_is_explained_and_every_query_finds_what_is_logged() {
    let operations = read("docs/operations.md");
    let reasons = [
        ("../shared/src/auth/mod.rs", "pub enum Refused {"),
        ("../shared/src/webhook/answer.rs", "pub(super) enum Problem {"),
        ("../shared/src/keyring.rs", "/// The keys cannot be read"),
        ("../shared/src/storage/mod.rs", "/// The store did not answer"),
    ];
    let explained = names(rows(&operations, "reason").iter().flat_map(|row| codes(&row[0])));
    assert_eq!(explained, reasons.into_iter().flat_map(|(path, begin)| errors(path, begin)).collect());

    let logged = sources().iter().flat_map(|(_, source)| literals(source)).collect::<Names>();
    let one = operations.split("message = ").skip(1).filter_map(|query| query.split('"').nth(1));
    let several = operations.split("message in [").skip(1).filter_map(|query| query.split(']').next());
    for message in one.chain(several.flat_map(|several| several.split('"').skip(1).step_by(2))) {
        assert!(logged.contains(message), "a query looks for {message:?}, which no function logs");
    }
}

#[test]
fn every_parameter_and_output_is_explained_and_every_parameter_has_its_place_in_the_console() {
    let template = Template::read();
    let deploy = read("docs/deploy.md");
    let parameters = template.0["Parameters"].as_object().unwrap();
    let default = |parameter: &Value| match parameter["Default"].as_str() {
        Some("") => "empty".to_owned(),
        Some(text) => format!("`{text}`"),
        None => format!("`{}`", parameter["Default"]),
    };
    let explained = rows(&deploy, "parameter").into_iter().map(|row| (code(&row[0]), row[1].clone()));
    let expected = parameters.iter().map(|(name, parameter)| (name.clone(), default(parameter)));
    assert_eq!(explained.collect::<BTreeMap<_, _>>(), expected.collect());
    assert!(parameters.values().all(|parameter| parameter["Description"].is_string()));
    let interface = &template.0["Metadata"]["AWS::CloudFormation::Interface"];
    let grouped = list(&interface["ParameterGroups"]).iter().flat_map(|group| list(&group["Parameters"])).map(string);
    assert_eq!(names(grouped), names(parameters.keys()));
    assert_eq!(names(interface["ParameterLabels"].as_object().unwrap().keys()), names(parameters.keys()));
    let samconfig = read("infra/samconfig.toml");
    let overrides = samconfig.lines().filter_map(|line| line.strip_prefix("parameter_overrides = "));
    for name in overrides.flat_map(|pairs| pairs.trim_matches('"').split(' ')).filter_map(|pair| pair.split('=').next())
    {
        assert!(parameters.contains_key(name), "infra/samconfig.toml sets {name}, which is no parameter");
    }

    let outputs = template.0["Outputs"].as_object().unwrap();
    assert_eq!(names(rows(&deploy, "output").iter().flat_map(|row| codes(&row[0]))), names(outputs.keys()));
    for camel in Webhook::ALL.map(|webhook| camel_case(webhook.name())) {
        assert_eq!(outputs[&format!("{camel}Url")]["Value"], get(&format!("{camel}FunctionUrl"), "FunctionUrl"));
    }
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for page in [
        "README.md",
        "SECURITY.md",
        "docs/commands.md",
        "docs/calls/README.md",
        "docs/console.md",
        "docs/deploy.md",
        "docs/operations.md",
        "docs/privacy.md",
        "docs/security.md",
    ] {
        let text = read(page);
        for link in text.split("](").skip(1).filter_map(|link| link.split(')').next()) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            if file.contains("://") {
                continue;
            }
            let path = Path::new(page).parent().unwrap().join(file);
            if path.extension().is_some_and(|extension| extension == "png") {
                assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(&path).is_file(), "{page} shows {link}");
                continue;
            }
            let target = if file.is_empty() { text.clone() } else { read(path.to_str().unwrap()) };
            let headings = target.lines().filter(|line| line.starts_with('#')).map(anchor);
            assert!(section.is_empty() || names(headings).contains(section), "{page} links to {link}");
        }
    }
}

/// Run by [`Written::read`] in a process of its own, since metrics go to standard output.
#[test]
#[ignore = "writes one of each metric, for the tests above to read"]
fn writes_metrics() {
    let metrics = Metrics::read(&|name| (name == "STACK_NAME").then(|| "hookswitch".to_owned()));
    let now = Instant::now();
    metrics.delivery(Webhook::SessionEnd, "stored", Duration::from_millis(5), now);
    metrics.fallback(Reason::NoProfile.name(), now);
    metrics.recording("waiting", now);
    metrics.archived(1, Duration::from_secs(1), Some(now), now);
    metrics.oldest_unfinished(None, now);
    metrics.reconciled("complete", &[("recovered", 1)], now);
    metrics.events(Kind::CallEnded.name(), "published", 1, now);
    metrics.documents("written", 1, now);
}

/// What the functions write: each metric's name, unit and dimensions, and the words of its outcomes.
struct Written {
    metrics: BTreeSet<(String, String, Names)>,
    deliveries: Names,
    recordings: Names,
    runs: Names,
    missing: Names,
    events: Names,
    documents: Names,
}

impl Written {
    fn read() -> Self {
        let this = std::env::current_exe().unwrap();
        let arguments = ["--ignored", "--exact", "template::writes_metrics", "--nocapture"];
        let output =
            String::from_utf8(std::process::Command::new(this).args(arguments).output().unwrap().stdout).unwrap();
        let mut metrics = BTreeSet::new();
        for line in output.lines().filter_map(|line| serde_json::from_str::<Value>(&line[line.find("{\"")?..]).ok()) {
            for directive in list(&line["_aws"]["CloudWatchMetrics"]) {
                for dimensions in list(&directive["Dimensions"]) {
                    let dimensions = names(list(dimensions).iter().map(string));
                    let of = |metric: &Value| (string(&metric["Name"]), string(&metric["Unit"]), dimensions.clone());
                    metrics.extend(list(&directive["Metrics"]).iter().map(of));
                }
            }
        }
        let of = |path: &str, begin: &str, end: &str| literals(between(&source(path), begin, end));
        let mut deliveries = of("../shared/src/webhook/mod.rs", "const fn word(", "\n}\n");
        deliveries.extend(of("../shared/src/webhook/answer.rs", "const fn outcome(", "\n    }\n"));
        deliveries.extend(of("../shared/src/webhook/mod.rs", "async fn quarantine<", "\n}\n"));
        let mut recordings = of("../functions/recording_archiver/src/lib.rs", "const WAITING", ";");
        let ends = State::ALL.into_iter().filter(|state| ![State::Pending, State::Copying].contains(state));
        recordings.extend(ends.map(|state| state.name().to_owned()));
        let reconciler = "../functions/reconciler/src/lib.rs";
        let runs = of(reconciler, "let (word, found) = match &ended {", "};");
        let missing = of(reconciler, "let counts = [", "];");
        let mut events = of("../functions/event_publisher/src/lib.rs", "const PUBLISHED", ";");
        events.extend(of("../functions/event_publisher/src/lib.rs", "const UNDELIVERED", ";"));
        let exporter = "../functions/call_exporter/src/lib.rs";
        let mut documents = of(exporter, "const fn name(self)", "\n    }\n");
        documents.extend(of(exporter, "const FAILED", ";"));
        Self { metrics, deliveries, recordings, runs, missing, events, documents }
    }

    /// Fails unless the metric is written with just these dimensions, and their values can occur.
    fn check(&self, by: &str, metric: &str, dimensions: &BTreeMap<String, Value>) {
        let by_names = names(dimensions.keys());
        let is_written = self.metrics.iter().any(|(name, _, dimensions)| name == metric && *dimensions == by_names);
        assert!(is_written, "{by} looks at {metric} by {by_names:?}, which nobody writes");
        if let Some(outcome) = dimensions.get("outcome").map(string) {
            let words = match metric {
                DELIVERIES => &self.deliveries,
                RECONCILER_RUNS => &self.runs,
                RECONCILED => &self.missing,
                EVENTS => &self.events,
                DOCUMENTS => &self.documents,
                _ => &self.recordings,
            };
            assert!(words.contains(&outcome), "{by} looks at {metric} of the outcome {outcome}, which there is not");
        }
        if let Some(webhook) = dimensions.get("webhook").and_then(Value::as_str) {
            assert!(webhook.parse::<Webhook>().is_ok(), "{by} looks at {metric} of {webhook}");
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

/// The items of a list that need not be there.
fn some_or_none(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
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

/// The functions: one for each webhook, and ours.
fn functions() -> Names {
    names(Webhook::ALL.map(Webhook::name).into_iter().chain(OURS))
}

fn names(names: impl IntoIterator<Item = impl ToString>) -> Names {
    names.into_iter().map(|name| name.to_string()).collect()
}

/// `session_start` → `SessionStart`.
fn camel_case(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

/// The variables that a function asks for as it starts.
fn asked_by(function: &str, value: Lookup<'_>) -> Result<Names, String> {
    let asked = RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        value(name)
    };
    let clock = Arc::new(Instant::now);
    let started = match function {
        "recording_archiver" => Archiver::from_environment(&lookup).map(drop),
        "reconciler" => Reconciler::from_environment(&lookup, clock).map(drop),
        "event_publisher" => Publisher::from_environment(&lookup).map(drop),
        "call_exporter" => Exporter::from_environment(&lookup).map(drop),
        webhook => {
            let webhook = webhook.parse().map_err(|_| format!("{webhook} is no function"))?;
            App::from_environment(webhook, &lookup, clock).map(drop)
        }
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

fn source(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
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
fn literals(source: &str) -> Names {
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
fn errors(path: &str, begin: &str) -> Names {
    let source = source(path);
    let texts = between(&source, begin, "\n}").split("#[error(\"").skip(1).filter_map(|text| text.split("\")]").next());
    let fixed = |text: &str| {
        text.split(['{', '}']).enumerate().map(|(at, part)| if at % 2 == 0 { part } else { "..." }).collect()
    };
    texts.map(fixed).collect()
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
    let letters = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    letters.chars().filter(|letter| letter.is_alphanumeric() || ['-', '_'].contains(letter)).collect()
}
