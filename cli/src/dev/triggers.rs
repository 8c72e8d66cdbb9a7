//! What Lambda's event sources do: tables' streams call the archiver, the publisher and the exporter, schedules the
//! archiver and the reconciler.

use std::time::Duration;

use super::http::asked;
use call_exporter::Exporter;
use dynoxide::Database;
use dynoxide::actions::describe_stream::DescribeStreamRequest;
use dynoxide::actions::get_records::GetRecordsRequest;
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::actions::list_streams::ListStreamsRequest;
use event_publisher::Publisher;
use reconciler::Reconciler;
use recording_archiver::Archiver;
use serde_json::{Value, json};
use shared::storage::{Invocation, Report};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often a stream is asked for news.
const POLL: Duration = Duration::from_millis(300);
/// Records that one invocation is given.
const BATCH: usize = 100;
/// Shorter than the template's ten minutes: who waits here is looking.
const SCHEDULE: Duration = Duration::from_mins(1);
/// How often calls are looked for whose webhook never came: as in the template, since the platform is asked.
const RECONCILE: Duration = Duration::from_mins(15);
/// What an invocation has, as in the template.
const TIMEOUT: Duration = Duration::from_mins(15);
/// What one of the publisher or of the exporter has.
const SHORT_TIMEOUT: Duration = Duration::from_mins(1);
/// How long they are left alone once something failed, and after how many failures a record is passed over:
/// together longer than the publisher's own patience.
const AFTER_A_FAILURE: Duration = Duration::from_secs(5);
const MOST_FAILURES: u32 = 240;

/// A table's stream from now on: what came before is not told.
pub(super) struct Stream {
    database: Database,
    table: String,
    /// Its ARN and where to go on, once it has been found.
    place: Option<(String, String)>,
}

impl Stream {
    /// The stream of a table that has one. Nothing that is written from now on is missed.
    pub(super) async fn open(database: Database, table: String) -> Self {
        let mut stream = Self { database, table, place: None };
        let (database, table) = (stream.database.clone(), stream.table.clone());
        stream.place = tokio::task::spawn_blocking(move || latest(&database, table)).await.ok().flatten();
        stream
    }

    /// Some of what has changed since the last time, as Lambda brings it. Nothing where the stream cannot be read now.
    async fn news(&mut self) -> Vec<Value> {
        let (database, table, place) = (self.database.clone(), self.table.clone(), self.place.clone());
        let read = move || {
            let (arn, iterator) = place.or_else(|| latest(&database, table))?;
            let request = GetRecordsRequest { shard_iterator: iterator, limit: Some(BATCH) };
            let records = database.get_records(request).ok()?;
            let values = records.records.iter().filter_map(|record| {
                let mut value = serde_json::to_value(record).ok()?;
                value["eventSourceARN"] = json!(arn);
                Some(value)
            });
            Some((values.collect(), records.next_shard_iterator.map(|next| (arn, next))))
        };
        let Some((values, place)) = tokio::task::spawn_blocking(read).await.ok().flatten() else { return Vec::new() };
        self.place = place;
        values
    }
}

/// The end of a table's stream.
fn latest(database: &Database, table: String) -> Option<(String, String)> {
    let list = ListStreamsRequest { table_name: Some(table), ..ListStreamsRequest::default() };
    let stream_arn = database.list_streams(list).ok()?.streams.into_iter().next()?.stream_arn;
    let describe = DescribeStreamRequest { stream_arn: stream_arn.clone(), ..DescribeStreamRequest::default() };
    let shard_id = database.describe_stream(describe).ok()?.stream_description.shards.pop()?.shard_id;
    let start = GetShardIteratorRequest {
        stream_arn: stream_arn.clone(),
        shard_id,
        shard_iterator_type: "LATEST".to_owned(),
        sequence_number: None,
    };
    Some((stream_arn, database.get_shard_iterator(start).ok()?.shard_iterator?))
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Feeds the archiver until it is time to stop. The schedule's first call is at once: it takes up what an earlier run
/// left.
pub(super) async fn archive(archiver: Archiver, mut jobs: Stream, mut stopped: watch::Receiver<bool>) {
    let (mut poll, mut schedule) = (every(POLL), every(SCHEDULE));
    loop {
        let scheduled = tokio::select! {
            () = asked(&mut stopped) => return,
            _ = schedule.tick() => true,
            _ = poll.tick() => false,
        };
        let event = if scheduled {
            json!({})
        } else {
            // As the template's filter lets them through.
            let records: Vec<Value> = jobs.news().await.into_iter().filter(is_new_job).collect();
            if records.is_empty() {
                continue;
            }
            json!({ "Records": records })
        };
        let worker = format!("local-{}", std::process::id());
        let done = match serde_json::from_value(event) {
            Ok(invocation) => {
                let deadline = Instant::now() + TIMEOUT;
                recording_archiver::handle(&archiver, invocation, &worker, deadline).await.map(drop)
            }
            Err(error) => {
                unreadable(&error);
                continue;
            }
        };
        if let Err(error) = done {
            // What could not be noted stays unfinished, and the schedule comes round.
            tracing::error!(%error, "the archiver failed");
        }
    }
}

/// Feeds the publisher from these streams until it is time to stop.
pub(super) async fn publish(publisher: Publisher, streams: Vec<Stream>, mut stopped: watch::Receiver<bool>) {
    let mut poll = every(POLL);
    let mut fed: Vec<Fed> = streams.into_iter().map(Fed::new).collect();
    loop {
        tokio::select! {
            () = asked(&mut stopped) => return,
            _ = poll.tick() => {}
        }
        for fed in &mut fed {
            fed.feed(async |invocation, deadline| event_publisher::handle(&publisher, invocation, deadline).await)
                .await;
        }
    }
}

/// Feeds the exporter from the streams of calls and of turns until it is time to stop.
pub(super) async fn export(exporter: Exporter, calls: Stream, turns: Stream, mut stopped: watch::Receiver<bool>) {
    let mut poll = every(POLL);
    let mut fed = [Fed::new(calls), Fed::new(turns)];
    loop {
        tokio::select! {
            () = asked(&mut stopped) => return,
            _ = poll.tick() => {}
        }
        for fed in &mut fed {
            fed.feed(async |invocation, deadline| call_exporter::handle(&exporter, invocation, deadline).await).await;
        }
    }
}

/// A stream, and how far its function has come with it.
struct Fed {
    stream: Stream,
    waiting: Vec<Value>,
    /// How often the first of them has failed.
    failures: u32,
    not_before: Instant,
}

impl Fed {
    fn new(stream: Stream) -> Self {
        Self { stream, waiting: Vec::new(), failures: 0, not_before: Instant::now() }
    }

    /// One invocation, if there is news. What it reports as failed it is brought again, and what comes after that in
    /// the same stream waits, as with Lambda.
    async fn feed(&mut self, handle: impl AsyncFnOnce(Invocation, Instant) -> Report) {
        if self.waiting.is_empty() {
            self.waiting = self.stream.news().await;
        }
        if self.waiting.is_empty() || Instant::now() < self.not_before {
            return;
        }
        let invocation = match serde_json::from_value(json!({ "Records": self.waiting })) {
            Ok(invocation) => invocation,
            Err(error) => {
                unreadable(&error);
                self.waiting.clear();
                return;
            }
        };
        let report = handle(invocation, Instant::now() + SHORT_TIMEOUT).await;
        let is_failed = |record: &Value| {
            let number = &record["dynamodb"]["SequenceNumber"];
            report.batch_item_failures.iter().any(|failure| *number == failure.item_identifier)
        };
        let Some(done) = self.waiting.iter().position(is_failed) else {
            self.waiting.clear();
            self.failures = 0;
            return;
        };
        self.waiting.drain(..done);
        self.failures = if done > 0 { 1 } else { self.failures + 1 };
        self.not_before = Instant::now() + AFTER_A_FAILURE;
        if self.failures >= MOST_FAILURES {
            tracing::error!("a change of a call is passed over: it failed too often");
            self.waiting.remove(0);
            self.failures = 0;
        }
    }
}

/// Has the reconciler look, at once and then by its schedule, until it is time to stop.
pub(super) async fn reconcile(reconciler: Reconciler, mut stopped: watch::Receiver<bool>) {
    let mut schedule = every(RECONCILE);
    loop {
        tokio::select! {
            () = asked(&mut stopped) => return,
            _ = schedule.tick() => reconciler.run(Instant::now() + TIMEOUT).await,
        }
    }
}

fn is_new_job(record: &Value) -> bool {
    let image = &record["dynamodb"]["NewImage"];
    image["state"]["S"] == "pending" && image["next_attempt_at"].is_null()
}

fn unreadable(error: &serde_json::Error) {
    tracing::error!(%error, "a stream's records are not as Lambda brings them");
}
