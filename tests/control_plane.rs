//! AWS as the commands ask it about a deployed stack: outputs, secrets, mappings and alarms, over the wire. The stack's
//! functions, tables and bucket are a local run's. Source: the API references of the four services.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cli::endpoints::Endpoints;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use shared::Webhook;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// An account with one stack, `prod`.
pub struct Aws {
    /// Its endpoint.
    pub url: String,
    account: Arc<Mutex<Account>>,
    environment: BTreeMap<String, String>,
}

/// What the account holds.
pub struct Account {
    /// The stack's outputs.
    pub outputs: BTreeMap<String, String>,
    /// The stack's parameters.
    pub parameters: BTreeMap<String, String>,
    /// The stack's status.
    pub status: String,
    /// ARN → value; one without a value was never set.
    pub secrets: BTreeMap<String, String>,
    /// ARN → value that somebody else puts after the secret was read once more.
    pub meanwhile: BTreeMap<String, String>,
    /// Event source mappings of the archiver.
    pub mappings: Vec<Value>,
    /// Event source mappings of the publisher.
    pub event_mappings: Vec<Value>,
    /// Event source mappings of the exporter.
    pub export_mappings: Vec<Value>,
    /// Alarms.
    pub alarms: Vec<Value>,
    /// Operations that the caller may not use.
    pub denied: BTreeSet<&'static str>,
}

/// The ARN of Exotel's secret.
pub const EXOTEL_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:exotel-AbCdEf";
/// The ARN of Vocobase's secret.
pub const VOCOBASE_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:vocobase-AbCdEf";
/// The ARN of the secret that holds a key of Vocobase's API.
pub const VOCOBASE_API_KEY_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:vocobase-api-AbCdEf";
/// The ARN of the alarms' topic.
pub const TOPIC_ARN: &str = "arn:aws:sns:us-east-1:123456789012:prod-AlarmTopic";
/// The ARN of the failure queue.
pub const QUEUE_ARN: &str = "arn:aws:sqs:us-east-1:123456789012:prod-FailureQueue";

impl Aws {
    /// A local run as the stack `prod`, in good order.
    pub async fn of(run: &Endpoints) -> Self {
        let stores = run.stores.as_ref().expect("a local run has stores");
        let mut outputs = BTreeMap::new();
        let mut output = |name: &str, value: &str| drop(outputs.insert(name.to_owned(), value.to_owned()));
        for webhook in Webhook::ALL {
            let url = run.functions[webhook.name()].split('?').next().unwrap_or_default();
            output(&format!("{}Url", camel_case(webhook.name())), url);
        }
        for (table, physical) in &stores.tables {
            output(&format!("{}Table", camel_case(table)), physical);
        }
        for (name, value) in [
            ("RecordingsBucket", stores.bucket.as_str()),
            ("ExotelTokenSecret", EXOTEL_ARN),
            ("VocobaseSecret", VOCOBASE_ARN),
            ("VocobaseApiKeySecret", VOCOBASE_API_KEY_ARN),
            ("RecordingArchiverFunction", "prod-recording_archiver"),
            ("EventPublisherFunction", "prod-event_publisher"),
            ("CallExporterFunction", "prod-call_exporter"),
            ("FailureQueue", "https://sqs.us-east-1.amazonaws.com/123456789012/prod-FailureQueue"),
            ("AlarmTopic", TOPIC_ARN),
        ] {
            output(name, value);
        }
        let alarm = |name: &str| {
            json!({ "AlarmName": format!("prod-{name}-1A2B3C"), "StateValue": "OK", "ActionsEnabled": true,
                "AlarmDescription": format!("{name} went off."), "AlarmActions": [TOPIC_ARN] })
        };
        let mapping = |table: &str| {
            let table = &stores.tables[table];
            json!({ "UUID": "u", "State": "Enabled", "LastProcessingResult": "OK",
                "EventSourceArn": format!("arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/2026"),
                "DestinationConfig": { "OnFailure": { "Destination": QUEUE_ARN } } })
        };
        let account = Account {
            outputs,
            parameters: BTreeMap::from(
                [("AlarmEmail", "ops@example.com"), ("RetentionDays", "365"), ("DefaultCountry", "IN")]
                    .map(|(k, v)| (k.to_owned(), v.to_owned())),
            ),
            status: "UPDATE_COMPLETE".to_owned(),
            secrets: BTreeMap::from([
                (EXOTEL_ARN.to_owned(), cli::dev::DEFAULT_EXOTEL_TOKEN_SECRETS.to_owned()),
                (VOCOBASE_ARN.to_owned(), cli::dev::DEFAULT_VOCOBASE_SECRETS.to_owned()),
                (VOCOBASE_API_KEY_ARN.to_owned(), "rg_live_of-the-account".to_owned()),
            ]),
            meanwhile: BTreeMap::new(),
            mappings: vec![mapping("recordings")],
            event_mappings: ["events", "sessions", "recordings"].map(mapping).to_vec(),
            export_mappings: ["sessions", "transcripts"].map(mapping).to_vec(),
            alarms: vec![alarm("FunctionErrorsAlarm"), alarm("FailureQueueAlarm")],
            denied: BTreeSet::new(),
        };
        let account = Arc::new(Mutex::new(account));
        let served = Arc::clone(&account);
        let url = serve(move |request| {
            let account = Arc::clone(&served);
            async move { answer(&account, request).await }
        })
        .await;
        let mut environment = stores.environment();
        environment.insert("AWS_ENDPOINT_URL".to_owned(), url.clone());
        Self { url, account, environment }
    }

    /// What the account holds, to be changed.
    pub fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().expect("no panic while it is held")
    }

    /// The command with credentials for the account. Killed when dropped.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::hookswitch());
        command.args(arguments).env_clear().envs(&self.environment).env("HOME", "/nonexistent");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs the command with credentials for the account, and what it reads on its standard input.
    pub async fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).spawn().expect("the binary runs");
        let mut stdin = child.stdin.take().expect("it is piped");
        // A command that asks nothing may be gone by then.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.expect("its output")
    }
}

/// Serves on a port of its own for the rest of the test; its URL.
pub async fn serve<F: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
    handle: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let handle = handle.clone();
            let service = service_fn(move |request| {
                let answer = handle(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            tokio::spawn(async move {
                drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), service).await);
            });
        }
    });
    url
}

/// A response of these parts.
pub fn respond(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let response = Response::builder().status(status).header("content-type", content_type);
    // CloudWatch's clients ask for it.
    let response = response.header("smithy-protocol", "rpc-v2-cbor");
    response.body(Full::new(body.into())).expect("a response")
}

async fn answer(account: &Mutex<Account>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let mut account = account.lock().expect("no panic while it is held");
    let path = parts.uri.path();
    if let Some(target) = parts.headers.get("x-amz-target") {
        let operation = target.to_str().expect("text").trim_start_matches("secretsmanager.");
        return account.secrets_manager(operation, &serde_json::from_slice(&body).expect("JSON"));
    }
    if path.ends_with("/DescribeAlarms") {
        return account.describe_alarms();
    }
    if path.ends_with("/event-source-mappings") {
        let of =
            |function: &str| parts.uri.query().is_some_and(|query| query.contains(&format!("FunctionName={function}")));
        if account.denied.contains("ListEventSourceMappings") {
            return denied("ListEventSourceMappings");
        }
        let mappings = [
            ("prod-recording_archiver", &account.mappings),
            ("prod-event_publisher", &account.event_mappings),
            ("prod-call_exporter", &account.export_mappings),
        ];
        let mappings = mappings.into_iter().find(|(function, _)| of(function)).map(|(_, mappings)| mappings);
        let mappings = mappings.unwrap_or_else(|| panic!("no function of the stack: {}", parts.uri));
        let mappings = json!({ "EventSourceMappings": mappings });
        return respond(200, "application/json", mappings.to_string());
    }
    let form = String::from_utf8_lossy(&body).into_owned();
    account.cloudformation(&form)
}

fn denied(operation: &str) -> Response<Full<Bytes>> {
    let message = format!("User: somebody is not authorized to perform: {operation}");
    let body = json!({ "__type": "AccessDeniedException", "message": message, "Message": message });
    let mut response = respond(400, "application/json", body.to_string());
    response.headers_mut().insert("x-amzn-errortype", http::HeaderValue::from_static("AccessDeniedException"));
    response
}

impl Account {
    fn secrets_manager(&mut self, operation: &str, asked: &Value) -> Response<Full<Bytes>> {
        let arn = asked["SecretId"].as_str().expect("an ARN").to_owned();
        match operation {
            "PutSecretValue" => {
                let text = asked["SecretString"].as_str().expect("a text").to_owned();
                self.secrets.insert(arn, text);
                respond(200, "application/json", "{}")
            }
            "GetSecretValue" if self.denied.contains("GetSecretValue") => denied("secretsmanager:GetSecretValue"),
            "GetSecretValue" => {
                let answer = match self.secrets.get(&arn) {
                    Some(text) => {
                        let version = crate::sha256(text.as_bytes());
                        let value = json!({ "ARN": arn, "VersionId": version, "SecretString": text });
                        respond(200, "application/json", value.to_string())
                    }
                    None => {
                        let message =
                            "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT";
                        let error = json!({ "__type": "ResourceNotFoundException", "message": message });
                        respond(400, "application/json", error.to_string())
                    }
                };
                if let Some(text) = self.meanwhile.remove(&arn) {
                    self.secrets.insert(arn, text);
                }
                answer
            }
            other => panic!("{other} is not known"),
        }
    }

    fn cloudformation(&self, form: &str) -> Response<Full<Bytes>> {
        let is = |parameter: &str| form.split('&').any(|given| given == parameter);
        if !is("StackName=prod") {
            let error = "<Code>ValidationError</Code><Message>Stack with id staging does not exist</Message>";
            return respond(400, "text/xml", format!("<ErrorResponse><Error>{error}</Error></ErrorResponse>"));
        }
        let members = |map: &BTreeMap<String, String>, kind: &str| {
            map.iter().fold(String::new(), |mut members, (name, value)| {
                let _ =
                    write!(members, "<member><{kind}Key>{name}</{kind}Key><{kind}Value>{value}</{kind}Value></member>");
                members
            })
        };
        let (operation, result) = if is("Action=ListStackResources") {
            let alarm = |name: &str| {
                format!(
                    "<member><LogicalResourceId>{}</LogicalResourceId><PhysicalResourceId>{name}</PhysicalResourceId>\
                    <ResourceType>AWS::CloudWatch::Alarm</ResourceType>\
                    <LastUpdatedTimestamp>2026-11-22T12:00:00Z</LastUpdatedTimestamp>\
                    <ResourceStatus>CREATE_COMPLETE</ResourceStatus></member>",
                    name.split('-').nth(1).unwrap_or_default()
                )
            };
            let alarms: String =
                ["prod-FunctionErrorsAlarm-1A2B3C", "prod-FailureQueueAlarm-1A2B3C"].map(alarm).concat();
            ("ListStackResources", format!("<StackResourceSummaries>{alarms}</StackResourceSummaries>"))
        } else {
            assert!(is("Action=DescribeStacks"), "{form}");
            let stack = format!(
                "<StackName>prod</StackName><StackStatus>{}</StackStatus>\
                <CreationTime>2026-11-22T12:00:00Z</CreationTime>\
                <Outputs>{}</Outputs><Parameters>{}</Parameters>",
                self.status,
                members(&self.outputs, "Output"),
                members(&self.parameters, "Parameter")
            );
            ("DescribeStacks", format!("<Stacks><member>{stack}</member></Stacks>"))
        };
        let body =
            format!("<{operation}Response><{operation}Result>{result}</{operation}Result></{operation}Response>");
        respond(200, "text/xml", body)
    }

    fn describe_alarms(&self) -> Response<Full<Bytes>> {
        respond(200, "application/cbor", cbor(&json!({ "MetricAlarms": self.alarms, "CompositeAlarms": [] })))
    }
}

/// JSON's values as CBOR, texts and lists of less than 64 KB. Source: RFC 8949, section 3.1.
fn cbor(value: &Value) -> Vec<u8> {
    let head = |major: u8, length: usize| {
        let length = u16::try_from(length).expect("less than 64 KB").to_be_bytes();
        vec![major << 5 | 0x19, length[0], length[1]]
    };
    match value {
        Value::Bool(known) => vec![if *known { 0xf5 } else { 0xf4 }],
        Value::String(text) => [head(3, text.len()), text.as_bytes().to_vec()].concat(),
        Value::Array(values) => [head(4, values.len()), values.iter().flat_map(cbor).collect()].concat(),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| [cbor(&json!(name)), cbor(value)].concat();
            [head(5, members.len()), members.iter().flat_map(member).collect()].concat()
        }
        other => panic!("{other} has no place in these answers"),
    }
}

fn camel_case(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
