//! What the tables must hold after deliveries were made, worked out from the deliveries alone, and how they differ.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};
use shared::auth::{Secret, vocobase};
use shared::call::{Call, Delivery, Segment, Source};
use shared::storage::{Clients, event_key, item_to_call, item_to_segments};
use shared::{Instant, SessionKey};

use super::calls::Planned;
use crate::Failure;
use crate::endpoints::Stores;

type Item = std::collections::HashMap<String, AttributeValue>;

/// What one call must have come to.
struct Expected {
    call: Call,
    events: BTreeSet<String>,
    /// Exotel: the turn's key → its rank and segments.
    turns: BTreeMap<String, (String, Vec<Segment>)>,
    /// Vocobase: revision → segments.
    transcripts: BTreeMap<String, Vec<Segment>>,
    recording: Option<String>,
}

/// What the tables hold, and where that is not what was sent.
#[derive(serde::Serialize, Default, Debug)]
pub struct Checked {
    /// Calls looked up.
    pub sessions: usize,
    /// Events found.
    pub events: usize,
    /// Items of the `transcripts` table found.
    pub transcript_items: usize,
    /// Recording jobs found.
    pub recordings: usize,
    /// One line for each difference, naming call and table.
    pub differences: Vec<String>,
}

/// Reads a body as its function would.
pub fn read(delivery: &Planned) -> Result<Delivery, Failure> {
    let unreadable = |why: &dyn std::fmt::Display| Failure(format!("a simulated delivery cannot be read: {why}"));
    // Only verified bytes can be read, so they are signed and verified, with a secret of no importance.
    let secret = Secret::new("simulated");
    let now = Instant::from_unix_seconds(0).ok_or_else(|| unreadable(&"no time"))?;
    let timestamp = now.to_string();
    let signature = vocobase::sign(&secret, &timestamp, &delivery.body);
    let signatures = vocobase::Signatures { secrets: vec![secret], tolerance_seconds: 1 };
    let verified = signatures.verify(Ok(&signature), Ok(&timestamp), &delivery.body, now);
    let verified = verified.map_err(|error| unreadable(&error))?;
    Delivery::read(delivery.webhook, &verified, Source::Webhook).map_err(|error| unreadable(&error))
}

fn expect(deliveries: &[Planned]) -> Result<BTreeMap<SessionKey, Expected>, Failure> {
    let mut calls: BTreeMap<SessionKey, Expected> = BTreeMap::new();
    for planned in deliveries {
        let delivery = read(planned)?;
        let key = delivery.call.key.clone();
        let expected = calls.entry(key.clone()).or_insert_with(|| Expected {
            call: Call::new(key),
            events: BTreeSet::new(),
            turns: BTreeMap::new(),
            transcripts: BTreeMap::new(),
            recording: None,
        });
        expected.events.insert(event_key(
            planned.webhook,
            delivery.occurred_at,
            &hex::encode(Sha256::digest(&planned.body)),
        ));
        expected.call = expected.call.clone().join(&delivery.call);
        for turn in delivery.turns {
            let better = (turn.rank, turn.segments);
            let known = expected.turns.entry(turn.key).or_insert_with(|| better.clone());
            if known.0 < better.0 {
                *known = better;
            }
        }
        if let Some(transcript) = delivery.transcript {
            expected.transcripts.insert(transcript.revision, transcript.segments);
        }
        expected.recording = expected.recording.take().max(delivery.recording.map(|wanted| wanted.rank()));
    }
    Ok(calls)
}

/// Looks up every call that was sent and compares it with what was sent. `progress` hears of each call.
pub async fn check(
    deliveries: &[Planned],
    clients: &Clients,
    stores: &Stores,
    mut progress: impl FnMut(),
) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    for (key, expected) in expect(deliveries)? {
        let session = query(clients, &stores.tables["sessions"], &key).await?;
        let events = query(clients, &stores.tables["events"], &key).await?;
        let transcripts = query(clients, &stores.tables["transcripts"], &key).await?;
        let recordings = query(clients, &stores.tables["recordings"], &key).await?;
        let mut differ = |same: bool, what: &str| {
            if !same {
                checked.differences.push(format!("{key}: {what}"));
            }
        };
        let call = session.first().and_then(|item| item_to_call(&key, item));
        differ(call.is_some(), "sessions has no such call");
        differ(call.is_none_or(|call| call == expected.call), "sessions has something else than was sent");
        let found: BTreeSet<String> = events.iter().map(|item| text(item, "event")).collect();
        let (missing, extra) = (expected.events.difference(&found).count(), found.difference(&expected.events).count());
        differ(missing == 0, &format!("events lacks {missing} deliveries"));
        differ(extra == 0, &format!("events has {extra} deliveries that were not sent"));
        differ(same_transcripts(&expected, &transcripts), "transcripts has something else than was sent");
        let wanted = recordings.first().map(|item| text(item, "wanted"));
        differ(wanted == expected.recording, "recordings has something else than was sent");
        checked.sessions += session.len();
        checked.events += events.len();
        checked.transcript_items += transcripts.len();
        checked.recordings += recordings.len();
        progress();
    }
    Ok(checked)
}

/// Items come in the order of their keys, so that a revision's chunks follow each other.
fn same_transcripts(expected: &Expected, items: &[Item]) -> bool {
    let mut turns = BTreeMap::new();
    let mut transcripts: BTreeMap<String, Vec<Segment>> = BTreeMap::new();
    for item in items {
        let Ok(segments) = item_to_segments(item) else { return false };
        let key = text(item, "turn");
        if item.contains_key("rank") {
            turns.insert(key, (text(item, "rank"), segments));
        } else {
            let revision = key.rsplit_once('#').map_or(key.as_str(), |(revision, _)| revision);
            transcripts.entry(revision.to_owned()).or_default().extend(segments);
        }
    }
    let spoken = expected.transcripts.iter().filter(|(_, segments)| !segments.is_empty());
    turns == expected.turns && spoken.eq(transcripts.iter())
}

fn text(item: &Item, name: &str) -> String {
    item.get(name).and_then(|value| value.as_s().ok()).cloned().unwrap_or_default()
}

async fn query(clients: &Clients, table: &str, key: &SessionKey) -> Result<Vec<Item>, Failure> {
    let pages = clients
        .dynamodb
        .query()
        .table_name(table)
        .key_condition_expression("#session = :session")
        .expression_attribute_names("#session", "session")
        .expression_attribute_values(":session", AttributeValue::S(key.as_str().to_owned()))
        .consistent_read(true)
        .into_paginator()
        .items()
        .send();
    pages.collect::<Result<Vec<_>, _>>().await.map_err(|error| {
        Failure(format!("{table} cannot be read: {}", aws_sdk_dynamodb::error::DisplayErrorContext(error)))
    })
}
