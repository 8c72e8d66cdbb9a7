//! The `transcripts` table: Exotel's turns, each replaced only by a better one, and Vocobase's transcripts in
//! insert-only chunks.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{StreamExt, stream};

use super::attributes::{Item, b, gunzip, gzip, n, number_or_text, s, text};
use super::{Store, StoreError};
use crate::call::{Call, Delivery, Segment, Transcript, Turn};
use crate::instant::Instant;
use crate::session::{Provider, SessionKey};

/// A chunk of a Vocobase transcript holds about so much: a page of reading is a few items, and no item is near 400 KB.
const CHUNK_BYTES: usize = 16 * 1024;
/// Above this, segments are packed: a million write units cost more than the time to unpack.
const PACK_ABOVE_BYTES: usize = 256 * 1024;
/// Packed chunks hold more, since they shrink.
const PACKED_CHUNK_BYTES: usize = 512 * 1024;
/// Puts under way at once.
const PARALLEL_PUTS: usize = 16;

impl Store {
    /// Puts each turn unless a better one is there; whether any was put.
    pub(super) async fn put_turns(&self, delivery: &Delivery, received_at: Instant) -> Result<bool, StoreError> {
        self.put_better("a turn", self.turn_items(delivery, received_at)).await
    }

    /// Puts all chunks of a transcript that are not there yet.
    pub(super) async fn put_transcript(
        &self,
        key: &SessionKey,
        transcript: &Transcript,
        expiry: Option<i64>,
    ) -> Result<(), StoreError> {
        self.put_better("a transcript chunk", chunk_items(key, transcript, expiry)).await.map(drop)
    }

    /// Everything that is stored of a call's speech, by the key `turn`.
    pub(super) async fn transcript_items(&self, key: &SessionKey) -> Result<BTreeMap<String, Item>, StoreError> {
        let query = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.tables.transcripts)
            .key_condition_expression("#session = :session")
            .expression_attribute_names("#session", "session")
            .expression_attribute_values(":session", s(key.as_str()))
            .consistent_read(true);
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().collect().await;
        let items = items.map_err(|error| StoreError::from_sdk("a read of the transcript", &error))?;
        Ok(items.into_iter().filter_map(|item| Some((text(&item, "turn")?.to_owned(), item))).collect())
    }

    /// The query for what was said in a call: of Vocobase's revisions the one that counts, `None` without any.
    pub(super) fn speech(&self, call: &Call) -> Option<QueryFluentBuilder> {
        let query = self.clients.dynamodb.query().table_name(&self.tables.transcripts);
        let query = query
            .projection_expression("#turn, #segments, #packed")
            .expression_attribute_names("#session", "session")
            .expression_attribute_names("#turn", "turn")
            .expression_attribute_names("#segments", "segments")
            .expression_attribute_names("#packed", "segments_gz")
            .expression_attribute_values(":session", s(call.key.as_str()))
            .consistent_read(true);
        match (call.key.provider(), &call.revision) {
            (Provider::Exotel, _) => Some(query.key_condition_expression("#session = :session")),
            (Provider::Vocobase, Some(revision)) => Some(
                query
                    .key_condition_expression("#session = :session AND begins_with(#turn, :revision)")
                    .expression_attribute_values(":revision", s(format!("{revision}#"))),
            ),
            (Provider::Vocobase, None) => None,
        }
    }

    /// The items of a delivery's turns.
    pub(super) fn turn_items(&self, delivery: &Delivery, received_at: Instant) -> Vec<Item> {
        let item = |turn: &Turn| {
            let mut item = Item::from([
                ("session".into(), s(delivery.call.key.as_str())),
                ("turn".into(), s(&turn.key)),
                ("status".into(), s(&turn.status)),
                ("rank".into(), s(&turn.rank)),
            ]);
            let pack = size(&turn.segments) > PACK_ABOVE_BYTES;
            put_segments(&mut item, &turn.segments, pack);
            // By the turn alone: the same turn may come in deliveries that disagree about the call.
            let began = turn.segments.iter().filter_map(|segment| segment.start.or(segment.end)).min();
            if let Some(expiry) = self.expiry(began, received_at) {
                item.insert("expires_at".into(), n(expiry));
            }
            item
        };
        delivery.turns.iter().map(item).collect()
    }

    /// Puts each item unless it is there, of a turn unless a better one is there; whether any was put.
    pub(super) async fn put_better(&self, what: &'static str, items: Vec<Item>) -> Result<bool, StoreError> {
        let put = |item: Item| {
            let put = self.clients.dynamodb.put_item().table_name(&self.tables.transcripts);
            let put = put.expression_attribute_names("#turn", "turn");
            let put = match item.get("rank").cloned() {
                None => put.condition_expression("attribute_not_exists(#turn)"),
                Some(rank) => put
                    .condition_expression("attribute_not_exists(#turn) OR #rank < :rank")
                    .expression_attribute_names("#rank", "rank")
                    .expression_attribute_values(":rank", rank),
            };
            put.set_item(Some(item))
        };
        put_all(what, items.into_iter().map(put).collect()).await
    }
}

/// The items of a transcript, one for each chunk.
pub(super) fn chunk_items(key: &SessionKey, transcript: &Transcript, expiry: Option<i64>) -> Vec<Item> {
    let pack = size(&transcript.segments) > PACK_ABOVE_BYTES;
    let limit = if pack { PACKED_CHUNK_BYTES } else { CHUNK_BYTES };
    let item = |(index, segments): (usize, &[Segment])| {
        let mut item = Item::from([
            ("session".into(), s(key.as_str())),
            ("turn".into(), s(format!("{}#{index:06}", transcript.revision))),
            ("status".into(), s("completed")),
        ]);
        put_segments(&mut item, segments, pack);
        if let Some(expiry) = expiry {
            item.insert("expires_at".into(), n(expiry));
        }
        item
    };
    chunks(&transcript.segments, limit).into_iter().enumerate().map(item).collect()
}

/// Sends conditional puts side by side, all of them even if some fail; whether any was needed.
async fn put_all(what: &'static str, puts: Vec<PutItemFluentBuilder>) -> Result<bool, StoreError> {
    let put = async |put: PutItemFluentBuilder| match put.send().await {
        Ok(_) => Ok(true),
        Err(SdkError::ServiceError(error))
            if matches!(error.err(), PutItemError::ConditionalCheckFailedException(_)) =>
        {
            Ok(false)
        }
        Err(error) => Err(StoreError::from_sdk(what, &error)),
    };
    let done: Vec<Result<bool, StoreError>> =
        stream::iter(puts).map(put).buffer_unordered(PARALLEL_PUTS).collect().await;
    let (mut needed, mut refused) = (false, None);
    for done in done {
        match done {
            Ok(new) => needed |= new,
            // What a repetition mends comes first, or the repetition would never come.
            Err(error @ StoreError::Unavailable { .. }) => return Err(error),
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(needed), Err)
}

/// Bytes of speech and what comes with it, roughly as `DynamoDB` counts them.
fn size(segments: &[Segment]) -> usize {
    segments.iter().map(segment_size).sum()
}

fn segment_size(segment: &Segment) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    80 + text(&segment.text) + text(&segment.speaker)
}

/// Consecutive segments of at most `limit` bytes together; a single larger one stands alone.
fn chunks(segments: &[Segment], limit: usize) -> Vec<&[Segment]> {
    let mut chunks = Vec::new();
    let (mut from, mut filled) = (0, 0);
    for (index, segment) in segments.iter().enumerate() {
        let size = segment_size(segment);
        if index > from && filled + size > limit {
            chunks.push(&segments[from..index]);
            (from, filled) = (index, 0);
        }
        filled += size;
    }
    if from < segments.len() {
        chunks.push(&segments[from..]);
    }
    chunks
}

fn put_segments(item: &mut Item, segments: &[Segment], pack: bool) {
    if pack {
        let packed: Vec<_> = segments.iter().map(segment_to_json).collect();
        item.insert("segments_gz".into(), b(gzip(serde_json::Value::Array(packed).to_string().as_bytes())));
    } else {
        let list = segments.iter().map(|segment| AttributeValue::M(segment_to_item(segment))).collect();
        item.insert("segments".into(), AttributeValue::L(list));
    }
}

fn members(segment: &Segment) -> impl Iterator<Item = (&'static str, String)> {
    [
        ("speaker", segment.speaker.clone()),
        ("text", segment.text.clone()),
        ("start", segment.start.map(|at| at.to_string())),
        ("end", segment.end.map(|at| at.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

fn segment_to_item(segment: &Segment) -> Item {
    let mut item: Item = members(segment).map(|(name, value)| (name.to_owned(), s(value))).collect();
    if let Some(latency) = &segment.latency_ms {
        item.insert("latency_ms".into(), number_or_text(latency));
    }
    item
}

fn segment_to_json(segment: &Segment) -> serde_json::Value {
    let latency = segment.latency_ms.iter().map(|latency| ("latency_ms", latency.clone()));
    members(segment).chain(latency).map(|(name, value)| (name.to_owned(), serde_json::Value::String(value))).collect()
}

/// The segments of an item of the `transcripts` table, packed or not.
///
/// # Errors
/// When `segments_gz` holds something else than the bundle puts there.
pub fn item_to_segments(item: &Item) -> std::io::Result<Vec<Segment>> {
    let segment = |text: &dyn Fn(&str) -> Option<String>| Segment {
        speaker: text("speaker"),
        text: text("text"),
        start: text("start").as_deref().and_then(Instant::parse),
        end: text("end").as_deref().and_then(Instant::parse),
        latency_ms: text("latency_ms"),
    };
    if let Some(AttributeValue::B(packed)) = item.get("segments_gz") {
        let values: Vec<serde_json::Value> = serde_json::from_slice(&gunzip(packed.as_ref())?)?;
        let unpack = |value: &serde_json::Value| segment(&|name| value.get(name)?.as_str().map(str::to_owned));
        return Ok(values.iter().map(unpack).collect());
    }
    let Some(AttributeValue::L(list)) = item.get("segments") else { return Ok(Vec::new()) };
    let maps = list.iter().filter_map(|value| value.as_m().ok());
    Ok(maps.map(|map| segment(&|name| text(map, name).map(str::to_owned))).collect())
}

/// The segments of items in the order of their keys, by when they began; what says no time stays behind what it follows.
/// An item that somebody made unreadable says nothing.
pub(super) fn in_order(items: &[Item]) -> Vec<Segment> {
    let segments = items.iter().flat_map(|item| item_to_segments(item).unwrap_or_default());
    let mut latest = None;
    let timed = segments.map(|segment| {
        latest = segment.start.or(segment.end).or(latest);
        (latest, segment)
    });
    let mut timed: Vec<(Option<Instant>, Segment)> = timed.collect();
    timed.sort_by_key(|(at, _)| *at);
    timed.into_iter().map(|(_, segment)| segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Segment {
        Segment {
            speaker: Some("bot".into()),
            text: Some(text.into()),
            start: Instant::parse("2026-03-15T14:30:01Z"),
            end: None,
            latency_ms: Some("700".into()),
        }
    }

    #[test]
    fn chunks_are_consecutive_and_a_long_segment_stands_alone() {
        let segments = [said("a"), said(&"b".repeat(300)), said("c"), said("d")];
        let lengths: Vec<usize> = chunks(&segments, 200).iter().map(|chunk| chunk.len()).collect();
        assert_eq!(lengths, [1, 1, 2]);
        assert!(chunks(&[], 200).is_empty());
    }

    #[test]
    fn packed_segments_are_read_as_they_were() {
        let segments = vec![said("नमस्ते"), Segment { latency_ms: None, ..said("") }];
        for pack in [false, true] {
            let mut item = Item::new();
            put_segments(&mut item, &segments, pack);
            assert_eq!(item_to_segments(&item).unwrap(), segments, "packed: {pack}");
        }
    }
}
