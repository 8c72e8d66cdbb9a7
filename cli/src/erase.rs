//! `hookswitch erase`: what a person asks to be forgotten.
//!
//! A call is marked first, so that nothing more of it is stored; then, once no instance can still be storing what it
//! had begun, everything of it is deleted, the events last: while they are there, it is known where to look.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use clap::ArgGroup;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use shared::call::Field;
use shared::contact::normalised;
use shared::document::{CALLS, partition};
use shared::logging::printable;
use shared::recording;
use shared::storage::{CACHE_FOR_MILLIS, QUARANTINE_SHARDS, Store, StoreError, event_body, quarantine_key};
use shared::{Instant, Provider, SessionKey};

use crate::events::{Item, counter, delete_body, session_key, text};
use crate::simulate::check::query;
use crate::target::{Opened, Target};
use crate::{Failure, undelivered, why};

/// Remove calls for good: events, transcript, recording, documents, whatever waits to be sent.
#[derive(clap::Args, Clone)]
#[command(group = ArgGroup::new("whose").required(true), after_help = "\
Examples:
  hookswitch erase --session exotel#s1234567 --dry-run     what there is of it
  hookswitch erase --session exotel#s1234567
  hookswitch erase --contact '+91 98765 43210' --stack prod --yes --json

A call is marked as erased at once, for good: its key stays, with nothing else, and no late delivery, repetition or
reconciler brings it back. What was on its way is waited for (20 s, and while its recording is being copied); then all
of it is deleted. If it is interrupted, run it again: it goes on. A call that is not stored yet can be erased too.

--contact looks through the whole table of calls, and removes from quarantine what names the number.
docs/privacy.md says what backups, streams and logs still hold, and for how long.

Exit code: 0, also if there was nothing; 1 if something is left; 2 for wrong arguments.")]
pub struct Options {
    /// One call: `exotel#<session id>`, `vocobase#<session id>`, or the session id alone.
    #[arg(long, value_name = "S", group = "whose")]
    session: Option<String>,
    /// Every call of this number, in any usual spelling.
    #[arg(long, value_name = "NUMBER", group = "whose", allow_hyphen_values = true)]
    contact: Option<String>,
    /// Only say what would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How long after its mark an instance may still store something of a call: as long as it trusts its copy, and the
/// longest deadline of a delivery.
#[allow(clippy::cast_sign_loss, reason = "it is positive")]
const SETTLED_AFTER: Duration = Duration::from_millis(CACHE_FOR_MILLIS as u64 + 10_000);
/// Between looks at a recording that is being copied.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What was stored meanwhile is found by the next pass.
const PASSES: usize = 3;
/// Where nothing tells when a call was, and nothing expires.
const DAYS_BACK: i64 = 400;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;
const PARALLEL: usize = 16;
/// So many digits of a number are enough to know it, whatever stands before them.
const TELLING_DIGITS: usize = 9;

/// What there is of a call, or was.
#[derive(Default, Serialize, Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Deliveries.
    pub events: usize,
    /// Bodies in the bucket.
    pub bodies: usize,
    /// Turns or chunks.
    pub transcripts: usize,
    /// Recording jobs.
    pub jobs: usize,
    /// Recordings in the bucket.
    pub recordings: usize,
    /// Uploads that were never completed.
    pub uploads: usize,
    /// Documents for analysis.
    pub documents: usize,
    /// Events that the bus did not take.
    pub undelivered: usize,
    /// Deliveries in quarantine.
    pub quarantined: usize,
}

/// Where everything of a call is.
#[derive(Default)]
struct Holdings {
    events: Vec<Item>,
    transcripts: Vec<Item>,
    job: Option<Item>,
    recordings: BTreeSet<String>,
    uploads: Vec<(String, String)>,
    documents: Vec<String>,
    undelivered: Vec<String>,
    quarantined: Vec<Item>,
}

/// Runs the command.
pub async fn run(
    options: &Options,
    clock: shared::Clock,
    mut out: impl Write,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let mut eraser = Eraser { store: opened.store()?, opened, clock, days: BTreeMap::new() };
    let contact = options.contact.as_ref().map(|number| normalised(number.clone(), eraser.opened.default_country));
    let mut keys = match (&options.session, &contact) {
        (Some(session), _) => eraser.named(session).await?,
        (None, Some(contact)) => eraser.of(contact).await?,
        (None, None) => Vec::new(),
    };
    // A closed pipe is a reader that has seen enough, but what was begun is finished.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    let found = eraser.look(&keys, contact.as_deref()).await?;
    if options.dry_run {
        for (key, held) in &found {
            print(line(key, &held.summary(), options.json));
        }
        return Ok(());
    }
    if keys.is_empty() && found.is_empty() {
        let _ = writeln!(std::io::stderr(), "there is nothing to erase");
        return Ok(());
    }
    let things: usize = found.values().map(|held| held.summary().sum()).sum();
    let question = match things {
        0 => format!("Nothing is stored of {} calls. Mark them as erased, so that nothing ever is?", keys.len()),
        _ => format!("Erase {} calls and {things} items and objects of them for good?", keys.len()),
    };
    if !options.yes && !ask(&question) {
        return Err(Failure("nothing was changed".to_owned()));
    }
    let progress = counter("items and objects deleted");
    let (mut gone, mut is_clean): (BTreeMap<String, Summary>, bool) = (BTreeMap::new(), false);
    for _ in 0..PASSES {
        stream::iter(&keys).map(|key| eraser.mark(key)).buffered(PARALLEL).try_collect::<Vec<()>>().await?;
        progress.set_message("items and objects deleted; waiting for what is on its way");
        tokio::time::sleep(SETTLED_AFTER).await;
        eraser.copied(&keys).await?;
        progress.set_message("items and objects deleted");
        let left = eraser.look(&keys, contact.as_deref()).await?;
        let was_clean = left.values().all(|held| held.summary().sum() == 0);
        for (key, held) in left {
            let deleted = eraser.delete(&held, || progress.inc(1)).await?;
            gone.entry(key).or_default().add(&deleted);
        }
        if let Some(contact) = &contact {
            // Calls that began since.
            let now: BTreeSet<SessionKey> = eraser.of(contact).await?.into_iter().collect();
            let new: Vec<SessionKey> = now.into_iter().filter(|key| !keys.contains(key)).collect();
            if !new.is_empty() {
                keys.extend(new);
                continue;
            }
        }
        if was_clean || eraser.look(&keys, contact.as_deref()).await?.values().all(|held| held.summary().sum() == 0) {
            stream::iter(&keys).map(|key| eraser.forget(key)).buffered(PARALLEL).try_collect::<Vec<()>>().await?;
            is_clean = true;
            break;
        }
    }
    progress.finish_and_clear();
    for (key, summary) in &gone {
        print(line(key, summary, options.json));
    }
    if is_clean {
        return Ok(());
    }
    Err(Failure("something of it is stored anew again and again: run this once more".to_owned()))
}

fn line(key: &str, summary: &Summary, json: bool) -> String {
    if json {
        let mut line = serde_json::json!(summary);
        line["session"] = key.into();
        return line.to_string();
    }
    let counts = [
        (summary.events, "events"),
        (summary.bodies, "bodies"),
        (summary.transcripts, "transcript items"),
        (summary.jobs, "recording jobs"),
        (summary.recordings, "recordings"),
        (summary.uploads, "unfinished uploads"),
        (summary.documents, "documents"),
        (summary.undelivered, "undelivered events"),
        (summary.quarantined, "deliveries in quarantine"),
    ];
    let said: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    let said = if said.is_empty() { "nothing but its key".to_owned() } else { said.join(", ") };
    printable(&format!("{key}: {said}"))
}

impl Summary {
    fn sum(&self) -> usize {
        let Self { events, bodies, transcripts, jobs, recordings, uploads, documents, undelivered, quarantined } = self;
        [events, bodies, transcripts, jobs, recordings, uploads, documents, undelivered, quarantined].into_iter().sum()
    }

    fn add(&mut self, more: &Self) {
        self.events += more.events;
        self.bodies += more.bodies;
        self.transcripts += more.transcripts;
        self.jobs += more.jobs;
        self.recordings += more.recordings;
        self.uploads += more.uploads;
        self.documents += more.documents;
        self.undelivered += more.undelivered;
        self.quarantined += more.quarantined;
    }
}

impl Holdings {
    fn summary(&self) -> Summary {
        let in_bucket = |items: &[Item]| items.iter().filter(|item| item.contains_key("body_s3")).count();
        Summary {
            events: self.events.len(),
            bodies: in_bucket(&self.events) + in_bucket(&self.quarantined),
            transcripts: self.transcripts.len(),
            jobs: usize::from(self.job.is_some()),
            recordings: self.recordings.len(),
            uploads: self.uploads.len(),
            documents: self.documents.len(),
            undelivered: self.undelivered.len(),
            quarantined: self.quarantined.len(),
        }
    }
}

struct Eraser {
    opened: Opened,
    store: Store,
    clock: shared::Clock,
    /// The days under which there may be objects of a call, as long as something told them.
    days: BTreeMap<SessionKey, BTreeSet<String>>,
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` gives it")]
fn failed(error: StoreError) -> Failure {
    Failure(error.to_string())
}

impl Eraser {
    /// The call of that key, stored or not; of a session id alone, those that are stored.
    async fn named(&self, session: &str) -> Result<Vec<SessionKey>, Failure> {
        if let Ok(key) = session.parse() {
            return Ok(vec![key]);
        }
        let mut keys = Vec::new();
        for provider in [Provider::Exotel, Provider::Vocobase] {
            let key = session_key(session, provider)?;
            if self.store.fresh_call(&key, (self.clock)()).await.map_err(failed)?.is_some() {
                keys.push(key);
            }
        }
        if keys.is_empty() {
            let which = "to erase one that may still come, say exotel#<session id> or vocobase#<session id>";
            return Err(Failure(format!("no call {session} is stored: {which}")));
        }
        Ok(keys)
    }

    /// Every call of a contact. Not by the index: it lacks calls of which no delivery said when they began.
    async fn of(&self, contact: &str) -> Result<Vec<SessionKey>, Failure> {
        let scan = self.opened.clients.dynamodb.scan().table_name(self.opened.table("sessions")?);
        let scan = scan
            .filter_expression("contact = :contact")
            .projection_expression("#session")
            .expression_attribute_names("#session", "session")
            .expression_attribute_values(":contact", AttributeValue::S(contact.to_owned()))
            .consistent_read(true);
        let (mut pages, mut keys, progress) = (scan.into_paginator().send(), Vec::new(), counter("calls looked at"));
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Failure(format!("the table sessions cannot be read: {}", why(&error))))?;
            progress.inc(u64::try_from(page.scanned_count()).unwrap_or_default());
            keys.extend(page.items().iter().filter_map(|item| text(item, "session").parse::<SessionKey>().ok()));
        }
        progress.finish_and_clear();
        keys.sort();
        Ok(keys)
    }

    /// Marks a call; its number stays until all of it is gone.
    async fn mark(&self, key: &SessionKey) -> Result<(), Failure> {
        let call = self.store.fresh_call(key, (self.clock)()).await.map_err(failed)?;
        let contact = call.as_ref().and_then(|call| call.get(Field::Contact));
        self.store.mark_erased(key, contact).await.map_err(failed)
    }

    /// Leaves nothing but the mark.
    async fn forget(&self, key: &SessionKey) -> Result<(), Failure> {
        self.store.mark_erased(key, None).await.map_err(failed)
    }

    /// Waits until nobody copies a recording of these calls: what a worker puts last it puts before its lease ends.
    async fn copied(&self, keys: &[SessionKey]) -> Result<(), Failure> {
        for key in keys {
            while self.job(key).await?.is_some_and(|job| is_copied(&job, (self.clock)())) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    async fn job(&self, key: &SessionKey) -> Result<Option<Item>, Failure> {
        Ok(query(&self.opened, "recordings", key).await?.pop())
    }

    /// Where everything of these calls is, by their keys, and what is in quarantine of them or of the contact.
    async fn look(
        &mut self,
        keys: &[SessionKey],
        contact: Option<&str>,
    ) -> Result<BTreeMap<String, Holdings>, Failure> {
        let now = (self.clock)();
        let look = async |key: &SessionKey| Ok::<_, Failure>((key.clone(), self.held(key, now).await?));
        let found: Vec<(SessionKey, (Holdings, BTreeSet<String>))> =
            stream::iter(keys).map(look).buffered(PARALLEL).try_collect().await?;
        let mut held = BTreeMap::new();
        for (key, (holdings, days)) in found {
            held.insert(key.to_string(), holdings);
            self.days.entry(key).or_insert(days);
        }
        // A contact's number may be in quarantine since long before the first call that could be stored.
        let told = self.days.values().flatten().min().and_then(|day| Instant::parse(&format!("{day}T00:00:00Z")));
        let since = told.filter(|_| contact.is_none()).unwrap_or_else(|| self.longest_ago(now));
        for (key, object) in self.undelivered(keys, since, now).await? {
            held.entry(key).or_default().undelivered.push(object);
        }
        for (whose, item) in self.quarantined(keys, contact, since, now).await? {
            held.entry(whose).or_default().quarantined.push(item);
        }
        Ok(held)
    }

    /// What there may be of a call whose time nothing tells.
    fn longest_ago(&self, now: Instant) -> Instant {
        now.plus_seconds(-self.opened.retention_days.unwrap_or(DAYS_BACK) * SECONDS_A_DAY)
    }

    /// Where everything of a call is, and the days under which there may be objects of it.
    async fn held(&self, key: &SessionKey, now: Instant) -> Result<(Holdings, BTreeSet<String>), Failure> {
        let call = self.store.fresh_call(key, now).await.map_err(failed)?;
        let (events, transcripts) =
            (query(&self.opened, "events", key).await?, query(&self.opened, "transcripts", key).await?);
        let job = self.job(key).await?;
        let at = |item: &Item, name: &str| Instant::parse(text(item, name));
        // By which of these something was filed is not known any more; a day more, for those that no instant tells.
        let told = events.iter().flat_map(|event| [at(event, "occurred_at"), at(event, "received_at")]);
        let told = told.chain(job.iter().flat_map(|job| [at(job, "received_at"), at(job, "archived_at")]));
        let told = told.chain([call.as_ref().and_then(|call| call.started_at)]).flatten();
        let beside = |at: Instant| [-SECONDS_A_DAY, 0, SECONDS_A_DAY].map(|seconds| at.plus_seconds(seconds).day());
        let told: BTreeSet<String> = told.flat_map(beside).collect();
        let days = match self.days.get(key) {
            Some(days) => days.clone(),
            None if told.is_empty() => days(self.longest_ago(now), now).collect(),
            None => told,
        };
        let mut held = Holdings { events, transcripts, job, ..Holdings::default() };

        let name = key.object_name();
        let recordings =
            days.iter().map(|day| format!("recordings/{}/{}/{name}.", key.provider().name(), day.replace('-', "/")));
        let documents = days.iter().map(String::as_str).chain(["1970-01-01"]);
        let documents = documents.map(|day| format!("{CALLS}{}/{name}.json", partition(key.provider(), day)));
        let is_its = |object: &str| {
            object.rsplit_once('/').and_then(|(_, file)| file.rsplit_once('.')).is_some_and(|(stem, _)| stem == name)
        };
        let objects: Vec<Vec<String>> = stream::iter(recordings.chain(documents).collect::<Vec<_>>())
            .map(|prefix| self.listed(prefix))
            .buffered(PARALLEL)
            .try_collect()
            .await?;
        for object in objects.into_iter().flatten().filter(|object| is_its(object)) {
            if object.starts_with(CALLS) { held.documents.push(object) } else { held.recordings.extend([object]) }
        }
        // A job knows better than the days, and an upload that nobody completes is no object.
        if let Some(job) = &held.job {
            let (object, upload) = (text(job, "s3_key"), text(job, "upload_id"));
            if !object.is_empty() && !self.listed(object.to_owned()).await?.is_empty() {
                held.recordings.insert(object.to_owned());
            }
            if !upload.is_empty() {
                held.uploads.push((object.to_owned(), upload.to_owned()));
            }
        }
        Ok((held, days))
    }

    /// The keys of the objects below a prefix.
    async fn listed(&self, prefix: String) -> Result<Vec<String>, Failure> {
        let list = self.opened.clients.s3.list_objects_v2().bucket(&self.opened.bucket).prefix(prefix);
        let (mut pages, mut keys) = (list.into_paginator().send(), Vec::new());
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Failure(format!("the bucket cannot be listed: {}", why(&error))))?;
            keys.extend(page.contents().iter().filter_map(|object| object.key().map(str::to_owned)));
        }
        Ok(keys)
    }

    /// Events of these calls that the bus did not take: whose, and the object's key.
    async fn undelivered(
        &self,
        keys: &[SessionKey],
        since: Instant,
        now: Instant,
    ) -> Result<Vec<(String, String)>, Failure> {
        let ids = undelivered::list(&self.opened, since, now).await?;
        let read = async |id: undelivered::Id| {
            undelivered::read(&self.opened, &id).await.map(|(event, _)| (event.subject, id.object()))
        };
        let found: Vec<(String, String)> = stream::iter(ids).map(read).buffered(PARALLEL).try_collect().await?;
        Ok(found.into_iter().filter(|(subject, _)| keys.iter().any(|key| key.as_str() == subject)).collect())
    }

    /// What is in quarantine and names one of these calls, or the contact's number: whose, and the item.
    async fn quarantined(
        &self,
        keys: &[SessionKey],
        contact: Option<&str>,
        since: Instant,
        now: Instant,
    ) -> Result<Vec<(String, Item)>, Failure> {
        let places: Vec<String> = days(since, now)
            .flat_map(|day| (0..QUARANTINE_SHARDS).map(move |shard| quarantine_key(&day, shard)))
            .collect();
        let items = async |place: String| {
            let query = self.opened.clients.dynamodb.query().table_name(self.opened.table("events")?);
            let query = query
                .key_condition_expression("#session = :session")
                .expression_attribute_names("#session", "session")
                .expression_attribute_values(":session", AttributeValue::S(place));
            let items: Result<Vec<Item>, _> = query.into_paginator().items().send().collect().await;
            items.map_err(|error| crate::events::unreadable(&error))
        };
        let found: Vec<Vec<Item>> = stream::iter(places).map(items).buffered(PARALLEL).try_collect().await?;
        let number = contact
            .map(|contact| digits(contact.trim_start_matches('+')))
            .filter(|digits| digits.len() >= TELLING_DIGITS);
        let mut of_theirs = Vec::new();
        for item in found.into_iter().flatten() {
            let body = event_body(&self.opened.clients, &item).await.map_err(failed)?;
            let body = String::from_utf8_lossy(&body);
            let names = |key: &&SessionKey| {
                text(&item, "granted_session_id") == key.id() || body.contains(&serde_json::json!(key.id()).to_string())
            };
            let tells = |number: &String| digits(&body).contains(&number[number.len() - TELLING_DIGITS..]);
            let whose = keys.iter().find(names).map(ToString::to_string);
            let whose =
                whose.or_else(|| number.as_ref().filter(|number| tells(number)).map(|_| "quarantine".to_owned()));
            of_theirs.extend(whose.map(|whose| (whose, item.clone())));
        }
        Ok(of_theirs)
    }

    /// Deletes all of it, what tells where the rest is last.
    async fn delete(&self, held: &Holdings, mut done: impl FnMut()) -> Result<Summary, Failure> {
        // The job first: from then on no worker takes it. If one just has, all of it waits for the next pass.
        let deleted = held.summary();
        if let Some(job) = &held.job
            && !self.delete_job(job).await?
        {
            return Ok(Summary::default());
        }
        (0..deleted.jobs).for_each(|_| done());
        for (object, upload) in &held.uploads {
            // That it is gone already is as well.
            let _ = self.store.abort_upload(object, upload).await;
            done();
        }
        for object in held.recordings.iter().chain(&held.documents).chain(&held.undelivered) {
            let delete = self.opened.clients.s3.delete_object().bucket(&self.opened.bucket).key(object).send().await;
            delete.map_err(|error| Failure(format!("an object cannot be deleted: {}", why(&error))))?;
            done();
        }
        self.delete_items("transcripts", &held.transcripts, &["session", "turn"]).await?;
        held.transcripts.iter().for_each(|_| done());
        for event in held.quarantined.iter().chain(&held.events) {
            delete_body(&self.opened, event)
                .await
                .map_err(|why| Failure(format!("a body cannot be deleted: {why}")))?;
        }
        for events in [&held.quarantined, &held.events] {
            self.delete_items("events", events, &["session", "event"]).await?;
            for _ in events {
                done();
            }
        }
        Ok(deleted)
    }

    /// Deletes a job unless a worker holds it.
    async fn delete_job(&self, job: &Item) -> Result<bool, Failure> {
        let delete = self.opened.clients.dynamodb.delete_item().table_name(self.opened.table("recordings")?);
        let delete = delete
            .key("session", AttributeValue::S(text(job, "session").to_owned()))
            .condition_expression("attribute_not_exists(lease_until) OR #state <> :copying OR lease_until < :now")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":copying", AttributeValue::S(recording::State::Copying.name().to_owned()))
            .expression_attribute_values(":now", AttributeValue::S((self.clock)().to_string()));
        match delete.send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error.as_service_error().is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(false)
            }
            Err(error) => Err(Failure(format!("the recording's job cannot be deleted: {}", why(&error)))),
        }
    }

    async fn delete_items(&self, table: &'static str, items: &[Item], key: &[&str]) -> Result<(), Failure> {
        const AT_ONCE: usize = 25;
        let name = self.opened.table(table)?;
        for items in items.chunks(AT_ONCE) {
            let request = |item: &Item| {
                let key = key.iter().filter_map(|name| Some(((*name).to_owned(), item.get(*name)?.clone()))).collect();
                let delete = DeleteRequest::builder().set_key(Some(key)).build();
                delete.map(|delete| WriteRequest::builder().delete_request(delete).build())
            };
            let requests: Result<Vec<WriteRequest>, _> = items.iter().map(request).collect();
            let mut left = requests.map_err(|_| Failure(format!("an item of {table} has no key")))?;
            while !left.is_empty() {
                let asked = left.len();
                let write = self.opened.clients.dynamodb.batch_write_item().request_items(name, left).send().await;
                let cannot = |why: String| Failure(format!("items of the table {table} cannot be deleted: {why}"));
                let output = write.map_err(|error| cannot(why(&error)))?;
                left = output.unprocessed_items.unwrap_or_default().remove(name).unwrap_or_default();
                if left.len() >= asked {
                    return Err(cannot("the table is busy".to_owned()));
                }
            }
        }
        Ok(())
    }
}

/// Whether a worker holds the job.
fn is_copied(job: &Item, now: Instant) -> bool {
    let lease_until = Instant::parse(text(job, "lease_until"));
    text(job, "state") == recording::State::Copying.name() && lease_until.is_some_and(|until| until > now)
}

/// The days from one instant to a day after another: clocks differ.
fn days(since: Instant, now: Instant) -> impl Iterator<Item = String> {
    let last = now.plus_seconds(SECONDS_A_DAY).day();
    let days = std::iter::successors(Some(since), |day| Some(day.plus_seconds(SECONDS_A_DAY)));
    days.map(Instant::day).take_while(move |day| *day <= last)
}

/// The digits of a text, as if nothing stood between those of a number.
fn digits(text: &str) -> String {
    let mut digits = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' => digits.push(letter),
            ' ' | '-' | '(' | ')' | '.' => {}
            _ => {
                if !digits.ends_with('|') {
                    digits.push('|');
                }
            }
        }
    }
    digits
}
