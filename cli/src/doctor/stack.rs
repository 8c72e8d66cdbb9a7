//! What is around a deployed stack's functions: secrets, the stream to the archiver, alarms.

use std::collections::BTreeMap;

use aws_sdk_cloudwatch::types::StateValue;
use shared::auth::exotel::Tokens;
use shared::auth::{Secret, vocobase};

use super::Finding;
use crate::stack::{Purpose, Stack, camel_case};
use crate::{Failure, why};

pub(super) fn state(stack: &Stack) -> Finding {
    match stack.status() {
        status @ ("CREATE_COMPLETE" | "UPDATE_COMPLETE" | "IMPORT_COMPLETE") => Finding::Good(status.to_owned()),
        "UPDATE_ROLLBACK_COMPLETE" => {
            Finding::Warning("the last deployment failed and was rolled back: the one before is in place".to_owned())
        }
        status if status.ends_with("_IN_PROGRESS") => {
            Finding::Warning(format!("{status}: look again when the deployment is over"))
        }
        status => Finding::Wrong(format!("{status}: its events in CloudFormation say why")),
    }
}

pub(super) fn exotel_secret(tokens: Result<Tokens, Failure>) -> Finding {
    match tokens {
        Err(failure) => failure.into(),
        Ok(tokens) => {
            let kids: Vec<&str> = tokens.secrets.iter().map(|(kid, _)| kid.as_str()).collect();
            let (first, others) = kids.split_first().map_or(("", &[][..]), |(first, others)| (*first, others));
            let others =
                if others.is_empty() { String::new() } else { format!("; also accepted: {}", others.join(", ")) };
            Finding::Good(format!("the key {first} makes the tokens{others}"))
        }
    }
}

/// What Vocobase signs with, if that can be had, and what to tell of it.
pub(super) async fn vocobase_secret(stack: &Stack) -> (Option<Secret>, Finding) {
    let held = match stack.secret(Purpose::Vocobase).await {
        Err(failure) => return (None, failure.into()),
        Ok(None) => {
            let set = format!("hookswitch secret set vocobase --stack {}", stack.name);
            return (None, Finding::Warning(format!("not set, so nothing of Vocobase's is accepted: {set}")));
        }
        Ok(Some(held)) => held,
    };
    match vocobase::secrets(&held.text) {
        Err(wrong) => (None, Finding::Wrong(format!("the secret {wrong}"))),
        Ok(secrets) => {
            let finding = Finding::Good(format!("set; {} accepted", secrets.len()));
            (secrets.into_iter().next(), finding)
        }
    }
}

/// Whether the reconciler can ask the platform.
pub(super) async fn vocobase_api_key(stack: &Stack) -> Finding {
    match stack.secret(Purpose::VocobaseApi).await {
        Err(failure) => failure.into(),
        Ok(None) => Finding::Skipped(format!(
            "not set, so calls whose webhook never came are not looked for: hookswitch secret set vocobase-api-key \
             --stack {}",
            stack.name
        )),
        Ok(Some(_)) => Finding::Good("set: calls whose webhook never came are looked for".to_owned()),
    }
}

/// A function that tables' streams feed, and what comes of it when they do not.
struct Fed {
    function: &'static str,
    /// What it is called.
    name: &'static str,
    /// Short names.
    tables: &'static [&'static str],
    nothing: &'static str,
    waits: &'static str,
    lost: &'static str,
}

const ARCHIVER: Fed = Fed {
    function: "recording_archiver",
    name: "the archiver",
    tables: &["recordings"],
    nothing: "nothing brings new recordings to the archiver, they wait for its sweep",
    waits: "new recordings wait for the archiver's sweep",
    lost: "a recording that cannot be worked on",
};
const PUBLISHER: Fed = Fed {
    function: "event_publisher",
    name: "the publisher",
    tables: &["events", "sessions", "recordings"],
    nothing: "nothing brings changes of a table to the publisher, and their events are not told",
    waits: "events wait",
    lost: "a change that cannot be told",
};

const EXPORTER: Fed = Fed {
    function: "call_exporter",
    name: "the exporter",
    tables: &["sessions", "transcripts"],
    nothing: "nothing brings changes of a table to the exporter, and documents of calls are not up to date",
    waits: "documents of calls wait",
    lost: "a call that cannot be exported",
};

/// The mapping from the recordings table's stream to the archiver.
pub(super) async fn stream(stack: &Stack) -> Result<Finding, Failure> {
    fed(stack, &ARCHIVER).await
}

/// The mappings from the tables' streams to the publisher.
pub(super) async fn events(stack: &Stack) -> Result<Finding, Failure> {
    fed(stack, &PUBLISHER).await
}

/// The mappings from the tables' streams to the exporter.
pub(super) async fn exports(stack: &Stack) -> Result<Finding, Failure> {
    fed(stack, &EXPORTER).await
}

async fn fed(stack: &Stack, of: &Fed) -> Result<Finding, Failure> {
    let client = aws_sdk_lambda::Client::new(&stack.config);
    let function = stack.output(&camel_case(of.function, "Function"))?;
    let answer = client.list_event_source_mappings().function_name(function).send().await;
    let answer = answer.map_err(|error| Failure(format!("the mapping cannot be looked up: {}", why(&error))))?;
    let tables = stack.open()?.tables;
    let mut last = "none yet";
    for table in of.tables {
        let of_table = format!(":table/{}/", tables.get(*table).map_or("", String::as_str));
        let is_stream = |arn: Option<&str>| arn.is_some_and(|arn| arn.contains(&of_table));
        let Some(mapping) = answer.event_source_mappings().iter().find(|mapping| is_stream(mapping.event_source_arn()))
        else {
            return Ok(Finding::Wrong(format!("{}: deploy again", of.nothing)));
        };
        let destination = mapping.destination_config().and_then(|config| config.on_failure()?.destination());
        last = mapping.last_processing_result().unwrap_or(last);
        match mapping.state().unwrap_or_default() {
            state @ ("Creating" | "Enabling" | "Updating") => {
                return Ok(Finding::Warning(format!("{state}: look again in a minute")));
            }
            "Enabled" if destination.is_none() => {
                return Ok(Finding::Wrong(format!(
                    "{} is lost without a trace: the mapping has no destination for failures; deploy again",
                    of.lost
                )));
            }
            "Enabled" if last.starts_with("PROBLEM") => {
                let log = format!("the log group /aws/lambda/{}-{} says more", stack.name, of.function);
                return Ok(Finding::Wrong(format!("{}'s last call failed ({last}): {log}", of.name)));
            }
            "Enabled" => {}
            state => {
                return Ok(Finding::Wrong(format!(
                    "{state}, so {}: aws lambda update-event-source-mapping --enabled --uuid {}",
                    of.waits,
                    mapping.uuid().unwrap_or_default()
                )));
            }
        }
    }
    Ok(Finding::Good(format!("enabled, failures go to the queue; last result: {last}")))
}

/// The stack's alarms: there, with the topic among their actions, and silent.
pub(super) async fn alarms(stack: &Stack) -> Result<Finding, Failure> {
    let failed = |why: String| Failure(format!("the alarms cannot be looked up: {why}"));
    let resources = aws_sdk_cloudformation::Client::new(&stack.config).list_stack_resources().stack_name(&stack.name);
    let resources = resources.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
    // Physical → logical name.
    let names: BTreeMap<String, String> = resources
        .map_err(|error| failed(why(&error)))?
        .into_iter()
        .filter(|resource| resource.resource_type() == Some("AWS::CloudWatch::Alarm"))
        .filter_map(|resource| Some((resource.physical_resource_id?, resource.logical_resource_id?)))
        .collect();
    if names.is_empty() {
        return Ok(Finding::Wrong("the stack has none: deploy again".to_owned()));
    }
    let asked = aws_sdk_cloudwatch::Client::new(&stack.config).describe_alarms();
    let answer = asked.set_alarm_names(Some(names.keys().cloned().collect())).send().await;
    let answer = answer.map_err(|error| failed(why(&error)))?;
    let topic = stack.output("AlarmTopic")?;
    let mut troubles = Vec::new();
    for (physical, logical) in &names {
        let Some(alarm) = answer.metric_alarms().iter().find(|alarm| alarm.alarm_name() == Some(physical)) else {
            troubles.push(format!("{logical} is gone"));
            continue;
        };
        if !alarm.actions_enabled().unwrap_or_default() || !alarm.alarm_actions().iter().any(|action| action == topic) {
            troubles.push(format!("{logical} tells nobody, its action is missing or disabled: deploy again"));
        }
        if alarm.state_value() == Some(&StateValue::Alarm) {
            troubles.push(format!("{logical} is in ALARM: {}", alarm.alarm_description().unwrap_or_default()));
        }
    }
    if !troubles.is_empty() {
        return Ok(Finding::Wrong(troubles.join("; ")));
    }
    let told = match stack.parameter("AlarmEmail") {
        Some(email) if !email.is_empty() => "AlarmEmail is told, once the subscription is confirmed",
        _ => "AlarmEmail is empty, so nobody is told by e-mail",
    };
    Ok(Finding::Good(format!("{} alarms, all silent; {told}", names.len())))
}
