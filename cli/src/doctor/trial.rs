//! Deliveries of a session that never was: made rightly and wrongly, read back, and deleted.

use std::collections::BTreeMap;
use std::time::Instant as Stopwatch;

use rand::distr::{Alphanumeric, SampleString};
use serde_json::{Value, json};
use shared::auth::{Secret, vocobase};
use shared::session::{TRIAL_LENGTH, TRIAL_PREFIX};
use shared::{Instant, Provider, SessionKey, Webhook};

use super::Finding;
use crate::events::delete_body;
use crate::simulate::calls::Planned;
use crate::simulate::check::{check, query};
use crate::target::Opened;
use crate::{Failure, http_client, why};

/// Enough noise that its event is kept in the bucket.
const LARGE: usize = 20_000;

/// A trial of one bundle.
pub struct Trial {
    /// The platform's id of the calls, recognisable and random.
    pub session: String,
    /// Each function's URL, token included, as far as they can be had.
    pub urls: BTreeMap<Webhook, String>,
    /// What Vocobase signs with, if that can be had.
    pub secret: Option<Secret>,
    opened: Opened,
    /// The stack's name; none for the local run.
    stack: Option<String>,
    http: reqwest::Client,
}

/// What came back.
enum Answer {
    Status(u16, Value),
    Nothing(String),
}

impl Trial {
    /// A trial that knows no URLs yet.
    pub fn new(opened: Opened, stack: Option<&str>) -> Result<Self, Failure> {
        let session = format!("{TRIAL_PREFIX}{}", Alphanumeric.sample_string(&mut rand::rng(), TRIAL_LENGTH));
        let (urls, stack) = (BTreeMap::new(), stack.map(str::to_owned));
        Ok(Self { session, urls, secret: None, opened, stack, http: http_client()? })
    }

    /// One for each webhook.
    pub fn deliveries(&self) -> Vec<Planned> {
        let now = Instant::now();
        let exotel = |state: &str, reason: &str, more: Value| {
            let mut body = json!({ "session_id": self.session, "bot_id": "doctor", "session_state": state,
                "trigger_reason": reason, "start_time": now });
            if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
                body.extend(more);
            }
            body
        };
        let segment = json!({ "speaker": "assistant", "text": "This is a test.", "start_timestamp": now,
            "end_timestamp": now });
        let turn = json!([{ "event_type": "transcript", "event_data": { "transcripts": [
            { "sequence": 1, "status": "completed", "transcript_segments": [segment] }] } }]);
        let insight = json!([{ "event_type": "sentiment", "event_id": "evt_1", "event_data": {
            "value": "neutral", "confidence": 1, "status": "changed", "timestamp": now, "score": 50, "reason": "" } }]);
        let noise = Alphanumeric.sample_string(&mut rand::rng(), LARGE);
        let body = |webhook: Webhook| match webhook {
            Webhook::SessionStart => exotel("session_start", "start", json!({})),
            Webhook::PreAgentTransfer => exotel("session_in_progress", "pre_agent_transfer", json!({})),
            Webhook::InsightsEvents => exotel("session_in_progress", "timer", json!({ "events": insight })),
            Webhook::TranscriptEvents => exotel("session_in_progress", "turn_complete", json!({ "events": turn })),
            Webhook::SessionEnd => exotel("session_end", "end", json!({ "end_time": now, "noise": noise })),
            Webhook::SessionCompleted => json!({ "event": "session.completed", "timestamp": now, "data": {
                "session_id": self.session, "agent_id": "doctor", "recording_url": null,
                "transcript": [{ "role": "bot", "content": "This is a test.", "timestamp": now }] } }),
        };
        let planned = |webhook| Planned {
            webhook,
            session_id: self.session.clone(),
            body: body(webhook).to_string().into_bytes(),
        };
        Webhook::ALL.map(planned).into()
    }

    /// Makes a delivery, wrongly and then rightly; also says whether it was acknowledged.
    pub async fn make(&self, delivery: &Planned) -> (Finding, bool) {
        let webhook = delivery.webhook;
        let Some(url) = self.urls.get(&webhook) else {
            return (Finding::Skipped("without the secret there is no token to send".to_owned()), false);
        };
        let (credential, secret) = match (webhook.provider(), &self.secret) {
            (Provider::Exotel, _) => ("token", None),
            (Provider::Vocobase, Some(secret)) => ("signature", Some(secret.clone())),
            // Any will do for a wrong signature.
            (Provider::Vocobase, None) => ("signature", Some(Secret::new(&self.session))),
        };
        let wrong = self.send(url, delivery, secret.as_ref(), other_last_digit).await;
        if let Answer::Status(200..300, _) = wrong {
            let says = format!(
                "a WRONG {credential} is accepted: anybody can write into the tables. This is not the function that \
                 the template deploys: deploy it again"
            );
            return (Finding::Wrong(says), true);
        }
        if webhook.provider() == Provider::Vocobase && self.secret.is_none() {
            let finding = match wrong {
                Answer::Status(401 | 503, _) => Finding::Skipped("without the secret nothing can be signed".to_owned()),
                other => Finding::Wrong(self.explain(webhook, &other)),
            };
            return (finding, false);
        }
        let began = Stopwatch::now();
        let right = self.send(url, delivery, secret.as_ref(), |credential| credential).await;
        let millis = began.elapsed().as_millis();
        let Answer::Status(200..300, _) = right else { return (Finding::Wrong(self.explain(webhook, &right)), false) };
        let stored = format!("stored in {millis} ms");
        let finding = match wrong {
            Answer::Status(401, _) => Finding::Good(format!("{stored}; a wrong {credential} is refused")),
            Answer::Status(status, _) => {
                Finding::Warning(format!("{stored}; a wrong {credential} is answered {status} where 401 was expected"))
            }
            Answer::Nothing(why) => Finding::Warning(format!("{stored}; a wrong {credential} had {why}")),
        };
        (finding, true)
    }

    /// Makes a delivery with what `turn` makes of its token or signature.
    async fn send(&self, url: &str, delivery: &Planned, secret: Option<&Secret>, turn: fn(String) -> String) -> Answer {
        let request = match delivery.webhook.provider() {
            Provider::Exotel => self.http.post(turn(url.to_owned())),
            Provider::Vocobase => {
                let timestamp = Instant::now().to_string();
                let signature = secret.map(|secret| vocobase::sign(secret, &timestamp, &delivery.body));
                let request = self.http.post(url).header(vocobase::TIMESTAMP, timestamp);
                request.header(vocobase::SIGNATURE, turn(signature.unwrap_or_default()))
            }
        };
        let request = request.header("content-type", "application/json").body(delivery.body.clone());
        match request.send().await {
            Ok(response) => {
                let status = response.status().as_u16();
                let body = response.bytes().await.unwrap_or_default();
                Answer::Status(status, serde_json::from_slice(&body).unwrap_or_default())
            }
            Err(error) if error.is_timeout() => Answer::Nothing("no answer within 30 seconds".to_owned()),
            Err(error) => {
                // The URL is a credential.
                let error = error.without_url();
                let mut cause: &dyn std::error::Error = &error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                Answer::Nothing(format!("no connection ({cause})"))
            }
        }
    }

    /// What an answer to a right delivery means, and what to do.
    fn explain(&self, webhook: Webhook, answer: &Answer) -> String {
        let (status, body) = match answer {
            Answer::Status(status, body) => (*status, body),
            Answer::Nothing(why) => return format!("{why}: is this machine online, and the stack the one you mean?"),
        };
        let ours = body.pointer("/response/error_data/description").and_then(Value::as_str);
        let (says, see_log) = match (status, ours) {
            (401, _) if webhook.provider() == Provider::Exotel => (
                "a right token is refused (401): the function knows other keys, or takes session tokens only; keys \
                 that were changed are known to it after five minutes at most",
                false,
            ),
            (401, _) => (
                "a right signature is refused (401): the function knows other secrets (it reads them anew after five \
                 minutes at most), or this machine's clock is wrong by minutes",
                false,
            ),
            (403, _) => (
                "AWS itself refuses (403): the function URL is not public. Everybody needs lambda:InvokeFunctionUrl \
                 and lambda:InvokeFunction on the function, which a deployment restores, and no policy of your \
                 organization may block public function URLs",
                false,
            ),
            (404, _) => (
                "nothing is there (404): the function URL was deleted or made anew; deploy again, then paste what \
                 `hookswitch urls` prints",
                false,
            ),
            (413, _) => (
                "refused as too large (413), although the test is far below the 6 MB that AWS takes: something between \
                 here and AWS, such as a proxy, has a limit of its own",
                false,
            ),
            (429, _) => (
                "throttled (429): no instance was free. Raise the parameter ReservedConcurrency, or the account's \
                 quota of concurrent executions: a new account has only 10",
                false,
            ),
            (502, _) => ("the function crashed or ran out of time (502)", true),
            (503, Some(said)) if said.contains("verified") => {
                ("the function cannot read its secret (503): is it set, and may its role read it?", true)
            }
            (503, Some(_)) => ("the function cannot store (503): do its tables exist, may its role write?", true),
            (503, None) => ("AWS itself is not available (503): try again in a minute", false),
            (504, _) => ("the function could not store in time (504)", true),
            _ => ("", true),
        };
        let says = if says.is_empty() { format!("answered {status}") } else { says.to_owned() };
        match &self.stack {
            _ if !see_log => says,
            Some(stack) => format!("{says}; its log group /aws/lambda/{stack}-{} says more", webhook.name()),
            None => format!("{says}; the terminal of `cargo dev` says more"),
        }
    }

    /// Compares the tables with what was acknowledged.
    pub async fn compare(&self, stored: &[Planned]) -> Finding {
        if stored.is_empty() {
            return Finding::Skipped("nothing was acknowledged".to_owned());
        }
        match check(stored, &self.opened, || ()).await {
            Err(failure) => failure.into(),
            Ok(checked) if checked.differences.is_empty() => Finding::Good(format!(
                "hold exactly what was sent: {} events, {} calls, {} transcript items",
                checked.events, checked.sessions, checked.transcript_items
            )),
            Ok(checked) => Finding::Wrong(format!(
                "not what was acknowledged: {}. Do the functions write to these tables? Look \
                 into their logs, and for quarantine# in the events table",
                checked.differences.join("; ")
            )),
        }
    }

    /// Deletes every item of the trial, and the bodies that went into the bucket.
    pub async fn clean_up(&self) -> Result<Finding, Failure> {
        let mut deleted = 0;
        for provider in [Provider::Exotel, Provider::Vocobase] {
            let key = SessionKey::new(provider, &self.session).map_err(|error| Failure(error.to_string()))?;
            for (table, sort) in [("events", "event"), ("transcripts", "turn"), ("recordings", ""), ("sessions", "")] {
                for mut item in query(&self.opened, table, &key).await? {
                    let left = |why: String| Failure(format!("what {key} left in {table} cannot be deleted: {why}"));
                    delete_body(&self.opened, &item).await.map_err(left)?;
                    item.retain(|name, _| name == "session" || name == sort);
                    let delete = self.opened.clients.dynamodb.delete_item().table_name(self.opened.table(table)?);
                    delete.set_key(Some(item)).send().await.map_err(|error| left(why(&error)))?;
                    deleted += 1;
                }
            }
        }
        Ok(Finding::Good(format!("{deleted} items of the session {} are deleted", self.session)))
    }
}

/// A token or signature, both of which end in hexadecimal digits, with another last digit.
fn other_last_digit(mut credential: String) -> String {
    let last = credential.pop();
    credential.push(if last == Some('0') { '1' } else { '0' });
    credential
}
