//! What the tables must hold after deliveries were made, worked out from the deliveries alone, and how they differ.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_dynamodb::types::AttributeValue;
use sha2::{Digest, Sha256};
use shared::auth::Verified;
use shared::call::{Call, Delivery, Field, Segment, Source};
use shared::storage::{event_body, event_key, item_to_call, item_to_segments};
use shared::{Country, SessionKey};
use tokio::time::{Duration, Instant};

use super::calls::Planned;
use super::recordings::Recordings;
use crate::target::Opened;
use crate::{Failure, why};

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
    let read = Delivery::read(delivery.webhook, &Verified::known(&delivery.body), Source::Webhook, Country::default());
    read.map_err(|error| Failure(format!("a simulated delivery cannot be read: {error}")))
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
pub async fn check(deliveries: &[Planned], opened: &Opened, mut progress: impl FnMut()) -> Result<Checked, Failure> {
    let mut checked = Checked::default();
    for (key, expected) in expect(deliveries)? {
        let session = query(opened, "sessions", &key).await?;
        let events = query(opened, "events", &key).await?;
        let transcripts = query(opened, "transcripts", &key).await?;
        let recordings = query(opened, "recordings", &key).await?;
        let mut differ = |same: bool, what: &str| {
            if !same {
                checked.differences.push(format!("{key}: {what}"));
            }
        };
        let call = session.first().and_then(|item| item_to_call(&key, item));
        differ(call.is_some(), "sessions has no such call");
        differ(
            call.is_none_or(|call| said(call) == said(expected.call.clone())),
            "sessions has something else than was sent",
        );
        let found: BTreeSet<String> = events.iter().map(|item| text(item, "event")).collect();
        let (missing, extra) = (expected.events.difference(&found).count(), found.difference(&expected.events).count());
        differ(missing == 0, &format!("events lacks {missing} deliveries"));
        differ(extra == 0, &format!("events has {extra} deliveries that were not sent"));
        for item in &events {
            let body = event_body(&opened.clients, item).await.map_err(|error| Failure(error.to_string()))?;
            let sha256 = hex::encode(Sha256::digest(&body));
            // The key ends in the digest of what was sent.
            let same = text(item, "event").ends_with(&sha256[..16]) && text(item, "body_sha256") == sha256;
            differ(same, "events has another body than was sent");
        }
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

/// What deliveries say of a call: how far its recording is, the archiver says too, and the brief is derived.
fn said(mut call: Call) -> Call {
    call.fields.remove(&Field::RecordingState);
    call.fields.remove(&Field::Recording);
    call.fields.remove(&Field::Brief);
    call
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

/// Waits until every recording of these calls is finished, then compares what is in the bucket with what was served.
/// `progress` hears how many are finished. Gives up once nothing has finished for `patience`.
pub async fn check_recordings(
    deliveries: &[Planned],
    served: &Recordings,
    opened: &Opened,
    patience: Duration,
    mut progress: impl FnMut(u64),
) -> Result<Archived, Failure> {
    let mut waiting = Vec::new();
    for planned in deliveries {
        let delivery = read(planned)?;
        if delivery.recording.is_some() && !waiting.contains(&delivery.call.key) {
            waiting.push(delivery.call.key);
        }
    }
    let mut archived = Archived::default();
    let mut last_news = Instant::now();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for key in waiting {
            let job = query(opened, "recordings", &key).await?.pop().unwrap_or_default();
            match text(&job, "state").as_str() {
                "archived" => {
                    let session = query(opened, "sessions", &key).await?.pop().unwrap_or_default();
                    let uri = format!("s3://{}/{}", opened.bucket, text(&job, "s3_key"));
                    let (length, sha256) = served.expected(key.id());
                    let (found_length, found_sha256) = object(opened, &text(&job, "s3_key")).await?;
                    let mut differ = |same: bool, what: &str| {
                        if !same {
                            archived.differences.push(format!("{key}: {what}"));
                        }
                    };
                    differ(
                        (found_length, &found_sha256) == (length, &sha256),
                        "the bucket has other bytes than were served",
                    );
                    differ(text(&job, "sha256") == sha256, "the recording's job names another SHA-256");
                    differ(!job.contains_key("source_url"), "the recording's job still has its URL");
                    differ(text(&session, "recording") == uri, "the call does not say where its recording is");
                    differ(
                        text(&session, "recording_state") == "archived",
                        "the call does not say that its recording is archived",
                    );
                    archived.recordings += 1;
                    archived.bytes += found_length;
                }
                state @ ("expired" | "rejected" | "failed") => {
                    archived.differences.push(format!("{key}: the recording is {state}: {}", text(&job, "last_error")));
                }
                _ => {
                    still.push(key);
                    continue;
                }
            }
            last_news = Instant::now();
            progress(1);
        }
        waiting = still;
        if last_news.elapsed() > patience {
            let late = waiting.drain(..).map(|key| format!("{key}: the recording is not archived yet"));
            archived.differences.extend(late);
        }
        if !waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(archived)
}

/// Recordings in the bucket, and where they are not what was served.
#[derive(serde::Serialize, Default, Debug)]
pub struct Archived {
    /// Archived.
    pub recordings: usize,
    /// In all.
    pub bytes: u64,
    /// One line for each difference, naming the call.
    pub differences: Vec<String>,
}

/// The length and SHA-256 of an object.
async fn object(opened: &Opened, key: &str) -> Result<(u64, String), Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure(format!("the recording {key} cannot be read: {error}"));
    let output = opened.clients.s3.get_object().bucket(&opened.bucket).key(key).send().await;
    let mut body = output.map_err(|error| unreadable(&why(&error)))?.body;
    let (mut length, mut hash) = (0, Sha256::new());
    while let Some(bytes) = body.next().await {
        let bytes = bytes.map_err(|error| unreadable(&error))?;
        length += bytes.len() as u64;
        hash.update(&bytes);
    }
    Ok((length, hex::encode(hash.finalize())))
}

/// The items of a table that belong to a call.
pub(crate) async fn query(opened: &Opened, table: &str, key: &SessionKey) -> Result<Vec<Item>, Failure> {
    let pages = opened
        .clients
        .dynamodb
        .query()
        .table_name(opened.table(table)?)
        .key_condition_expression("#session = :session")
        .expression_attribute_names("#session", "session")
        .expression_attribute_values(":session", AttributeValue::S(key.as_str().to_owned()))
        .consistent_read(true)
        .into_paginator()
        .items()
        .send();
    let items = pages.collect::<Result<Vec<_>, _>>().await;
    items.map_err(|error| Failure(format!("the table {table} cannot be read: {}", why(&error))))
}
