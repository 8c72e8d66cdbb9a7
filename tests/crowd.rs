//! Very many calls: a few that were really delivered, and copies of their items under other names and times.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use futures_util::{StreamExt, stream};
use shared::Instant;
use shared::storage::DAY_SHARDS;

use crate::{Item, World, post, text};

/// `DynamoDB` takes no more in one request.
const WRITE_AT_ONCE: usize = 25;
const WRITES_UNDER_WAY: usize = 4;
/// Calls that are delivered for each kind of copy.
const DELIVERED: usize = 100;

/// Fills the tables with so many simulated calls, spread evenly over the time from `since` to `until`. Those that are
/// copied have their deliveries and turns too, as the first ones have, whose words and instants theirs are.
pub async fn fill(world: &World, calls: usize, since: Instant, until: Instant) {
    let delivered = calls.min(DELIVERED);
    let planned = cli::simulate::calls::plan(7, u32::try_from(delivered).expect("few"), since, &|_| None);
    for delivery in planned.iter().flatten() {
        assert!(post(&world.http, world.endpoints(), delivery).await);
    }
    let mut tables = Vec::new();
    for table in ["sessions", "transcripts", "events"] {
        tables.push((table, world.items(table).await));
    }
    let copies = calls.div_ceil(delivered);
    let step = until.millis_since(since) / i64::try_from(copies).expect("few");
    for copy in 1..copies {
        let later = step * i64::try_from(copy).expect("few");
        for (table, items) in &tables {
            put(world, table, items.iter().map(|item| copied(item, copy, later)).collect()).await;
        }
    }
}

fn copied(item: &Item, copy: usize, later_millis: i64) -> Item {
    let mut item = item.clone();
    let session = format!("{}-{copy}", text(&item, "session"));
    let key: shared::SessionKey = session.parse().expect("a key");
    let mut put = |name: &str, value: String| drop(item.insert(name.to_owned(), AttributeValue::S(value)));
    put("session", session);
    if let Some(AttributeValue::S(started_at)) = item.get("started_at").cloned() {
        let started_at = Instant::parse(&started_at).expect("an instant").plus_millis(later_millis);
        let contact = format!("+9198{:08}", (copy * 7919 + text(&item, "contact").len()) % 100_000_000);
        let mut put = |name: &str, value: String| drop(item.insert(name.to_owned(), AttributeValue::S(value)));
        put("session_id", key.id().to_owned());
        put("started_at", started_at.to_string());
        put("day", format!("{}#{}", started_at.day(), key.shard(DAY_SHARDS)));
        put("contact", contact);
    }
    item
}

async fn put(world: &World, table: &str, items: Vec<Item>) {
    let name = &world.stores().tables[table];
    let requests: Vec<Vec<WriteRequest>> = items
        .chunks(WRITE_AT_ONCE)
        .map(|items| {
            let put = |item: &Item| PutRequest::builder().set_item(Some(item.clone())).build().expect("an item");
            items.iter().map(|item| WriteRequest::builder().put_request(put(item)).build()).collect()
        })
        .collect();
    let write = |requests: Vec<WriteRequest>| async move {
        let requests = HashMap::from([(name.clone(), requests)]);
        let output = world.clients.dynamodb.batch_write_item().set_request_items(Some(requests)).send().await;
        let left = output.expect("it is written").unprocessed_items.unwrap_or_default();
        assert!(left.is_empty(), "the local store takes all of it");
    };
    stream::iter(requests).map(write).buffer_unordered(WRITES_UNDER_WAY).collect::<Vec<()>>().await;
}
