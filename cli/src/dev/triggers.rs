//! What Lambda's event sources do: the stream of the `recordings` table and a schedule call the archiver, another
//! schedule the reconciler.

use std::time::Duration;

use super::http::asked;
use dynoxide::Database;
use dynoxide::actions::describe_stream::DescribeStreamRequest;
use dynoxide::actions::get_records::GetRecordsRequest;
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::actions::list_streams::ListStreamsRequest;
use reconciler::Reconciler;
use recording_archiver::{Archiver, Invocation, handle};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the stream is asked for news.
const POLL: Duration = Duration::from_millis(300);
/// Shorter than the template's ten minutes: who waits here is looking.
const SCHEDULE: Duration = Duration::from_mins(1);
/// How often calls are looked for whose webhook never came: as in the template, since the platform is asked.
const RECONCILE: Duration = Duration::from_mins(15);
/// What an invocation has, as in the template.
const TIMEOUT: Duration = Duration::from_mins(15);

/// Feeds the archiver until it is time to stop. The schedule's first call is at once: it takes up what an earlier run
/// left.
pub(super) async fn archive(archiver: Archiver, database: Database, table: String, mut stopped: watch::Receiver<bool>) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut schedule = interval(SCHEDULE);
    schedule.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut iterator = None;
    loop {
        let scheduled = tokio::select! {
            () = asked(&mut stopped) => return,
            _ = schedule.tick() => true,
            _ = poll.tick() => false,
        };
        let event = if scheduled {
            json!({})
        } else {
            let read = news(database.clone(), table.clone(), iterator.take()).await;
            let Some((records, next)) = read else { continue };
            iterator = next;
            if records.is_empty() {
                continue;
            }
            json!({ "Records": records })
        };
        let worker = format!("local-{}", std::process::id());
        let done = match serde_json::from_value::<Invocation>(event) {
            Ok(invocation) => handle(&archiver, invocation, &worker, Instant::now() + TIMEOUT).await.map(drop),
            Err(error) => {
                tracing::error!(%error, "the stream's records are not as Lambda brings them");
                continue;
            }
        };
        if let Err(error) = done {
            // What could not be noted stays unfinished, and the schedule comes round.
            tracing::error!(%error, "the archiver failed");
        }
    }
}

/// Has the reconciler look, at once and then by its schedule, until it is time to stop.
pub(super) async fn reconcile(reconciler: Reconciler, mut stopped: watch::Receiver<bool>) {
    let mut schedule = interval(RECONCILE);
    schedule.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = asked(&mut stopped) => return,
            _ = schedule.tick() => reconciler.run(Instant::now() + TIMEOUT).await,
        }
    }
}

/// New jobs since the last time, as the template's filter lets them through, and where to go on. `None` where the
/// stream cannot be read now.
async fn news(database: Database, table: String, iterator: Option<String>) -> Option<(Vec<Value>, Option<String>)> {
    let read = move || {
        let iterator = match iterator {
            Some(iterator) => iterator,
            None => latest(&database, table)?,
        };
        let records = database.get_records(GetRecordsRequest { shard_iterator: iterator, limit: Some(100) }).ok()?;
        let values: Vec<Value> =
            records.records.iter().filter_map(|record| serde_json::to_value(record).ok()).collect();
        Some((values.into_iter().filter(is_new_job).collect(), records.next_shard_iterator))
    };
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

/// The end of the table's stream: what came before is the schedule's.
fn latest(database: &Database, table: String) -> Option<String> {
    let list = ListStreamsRequest { table_name: Some(table), ..ListStreamsRequest::default() };
    let stream_arn = database.list_streams(list).ok()?.streams.into_iter().next()?.stream_arn;
    let describe = DescribeStreamRequest { stream_arn: stream_arn.clone(), ..DescribeStreamRequest::default() };
    let shard_id = database.describe_stream(describe).ok()?.stream_description.shards.pop()?.shard_id;
    let start = GetShardIteratorRequest {
        stream_arn,
        shard_id,
        shard_iterator_type: "LATEST".to_owned(),
        sequence_number: None,
    };
    database.get_shard_iterator(start).ok()?.shard_iterator
}

fn is_new_job(record: &Value) -> bool {
    let image = &record["dynamodb"]["NewImage"];
    image["state"]["S"] == "pending" && image["next_attempt_at"].is_null()
}
