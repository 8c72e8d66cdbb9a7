//! `hookswitch quarantine`: the genuine deliveries that could not be used, and another try with the present code.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use aws_sdk_dynamodb::types::AttributeValue;
use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use shared::auth::{Refused, Verified};
use shared::call::Delivery;
use shared::logging::printable;
use shared::storage::{Kept, QUARANTINE_SHARDS, Store, event_key, quarantine_key, read_event};
use shared::{Instant, Webhook};

use crate::events::{Item, delete_body, since, text, unreadable};
use crate::sender::PARALLEL;
use crate::target::{Opened, Target};
use crate::{Failure, aligned, why};

/// List deliveries that could not be used, show one, try again to use them.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch quarantine list --stack prod                          the last seven days, oldest first
  hookswitch quarantine list --since 2026-03-15 --reason fit --json
  hookswitch quarantine show 2026-03-15/session_end/0123456789abcdef > body.json
  hookswitch quarantine replay --all --since 30d --stack prod      after an upgrade

`show` prints what the platform sent, callers' words and numbers included, on its standard output:
byte for byte into a file or a pipe; on a terminal control characters are escaped. What is known
beside the body goes to standard error.

`replay` reads bodies with this version of hookswitch and stores them as their functions would have
when they were received; one that came with a session's token is stored for that session only. Only
what is stored is then taken out of quarantine, so it can be interrupted and repeated. Upgrade the
stack, too: it goes on putting aside what it cannot use.

Exit code: 0, or 1 if something could not be read or stored, is not in quarantine, or the answer was no.")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List what is in quarantine, the oldest first.
    List {
        /// Received since then: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
        #[arg(long, value_name = "T", value_parser = since, default_value = "7d")]
        since: Instant,
        /// Only those whose reason contains this.
        #[arg(long, value_name = "R")]
        reason: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Print one body, verbatim: callers' words and numbers included.
    Show {
        /// As `list` says it.
        id: Id,
        #[command(flatten)]
        target: Target,
    },
    /// Try again to read and store, with this version.
    Replay {
        /// As `list` says them.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<Id>,
        /// All that were received since --since.
        #[arg(long)]
        all: bool,
        /// Received since then: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
        #[arg(long, value_name = "T", value_parser = since, default_value = "7d", requires = "all")]
        since: Instant,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        target: Target,
    },
}

/// What is in quarantine: `<day>/<webhook>/<16 hex of the body's SHA-256>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    day: String,
    webhook: Webhook,
    digest: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.day, self.webhook.name(), self.digest)
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (day, rest) = text.split_once('/')?;
            let (webhook, digest) = rest.split_once('/')?;
            let id = Self { day: day.to_owned(), webhook: webhook.parse().ok()?, digest: digest.to_owned() };
            (digest.len() == 16 && id.shard().is_some()).then_some(id)
        };
        read().ok_or("not an id as `quarantine list` says it, such as 2026-03-15/session_end/0123456789abcdef")
    }
}

impl Id {
    fn of(item: &Item) -> Option<Self> {
        let day = text(item, "session").strip_prefix("quarantine#")?.split('#').next()?.to_owned();
        let (_, digest) = text(item, "event").rsplit_once('#')?;
        Some(Self { day, webhook: text(item, "webhook").parse().ok()?, digest: digest.to_owned() })
    }

    fn shard(&self) -> Option<u8> {
        hex::decode(&self.digest).ok()?.first().copied()
    }

    fn key(&self) -> Item {
        let session = quarantine_key(&self.day, self.shard().unwrap_or_default());
        let event = event_key(self.webhook, None, &self.digest);
        Item::from([("session".to_owned(), AttributeValue::S(session)), ("event".to_owned(), AttributeValue::S(event))])
    }
}

/// Runs the command. `terminal` says whether somebody looks at the output; `ask` answers a question with yes or no.
pub async fn run(
    options: &Options,
    now: Instant,
    mut out: impl Write,
    terminal: bool,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    // A closed pipe is a reader that has seen enough.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    match &options.command {
        Command::List { since, reason, json, target } => {
            let mut items = list(&target.open().await?, *since, now).await?;
            items.retain(|(_, item)| reason.as_ref().is_none_or(|reason| text(item, "reason").contains(reason)));
            let row = |(id, item): &(Id, Item)| {
                let column = |name: &str| text(item, name).to_owned();
                [column("received_at"), column("webhook"), column("reason"), id.to_string()]
            };
            let rows = items.iter().map(row);
            if *json {
                rows.map(|[received_at, webhook, reason, id]| {
                    json!({ "received_at": received_at, "webhook": webhook, "reason": reason, "id": id }).to_string()
                })
                .for_each(&mut print);
            } else {
                let headings = ["WHEN", "WEBHOOK", "REASON", "ID"].map(str::to_owned);
                let rows: Vec<_> = std::iter::once(headings).chain(rows).collect();
                aligned(&rows).into_iter().for_each(&mut print);
            }
            Ok(())
        }
        Command::Show { id, target } => {
            let opened = target.open().await?;
            let failed = |why: &dyn fmt::Display| Failure(format!("{id}: {why}"));
            let item = find(&opened, id).await.map_err(|why| failed(&why))?;
            for name in ["webhook", "source", "received_at", "reason", "body_sha256"] {
                let _ = writeln!(std::io::stderr(), "{name:<12} {}", text(&item, name));
            }
            let event = read_event(&opened.clients, &item).await.map_err(|error| failed(&error))?;
            if terminal {
                String::from_utf8_lossy(&event.body).lines().map(printable).for_each(&mut print);
            } else {
                let _ = out.write_all(&event.body);
            }
            Ok(())
        }
        Command::Replay { ids, all, since, yes, target } => {
            let opened = target.open().await?;
            let mut ids = ids.clone();
            if *all {
                ids = list(&opened, *since, now).await?.into_iter().map(|(id, _)| id).collect();
                if !ids.is_empty() && !yes && !ask(&format!("Try again to store {} deliveries?", ids.len())) {
                    return Err(Failure("nothing was changed".to_owned()));
                }
            }
            let store = opened.store()?;
            let mut left = 0;
            let mut done =
                stream::iter(&ids).map(|id| replay(&opened, &store, id)).buffered(PARALLEL).zip(stream::iter(&ids));
            while let Some((done, id)) = done.next().await {
                left += usize::from(done.is_err());
                print(match done {
                    Ok(done) => format!("{id}: {done}"),
                    Err(Failure(why)) => format!("{id}: {why}"),
                });
            }
            match left {
                0 => Ok(()),
                left => Err(Failure(format!("{left} of {} deliveries cannot be stored", ids.len()))),
            }
        }
    }
}

/// What was put into quarantine since then, without bodies, the oldest first.
pub(crate) async fn list(opened: &Opened, since: Instant, now: Instant) -> Result<Vec<(Id, Item)>, Failure> {
    let days = std::iter::successors(Some(since), |day| Some(day.plus_seconds(24 * 60 * 60)));
    let days = days.map(Instant::day).take_while(|day| *day <= now.day());
    let keys = days.flat_map(|day| (0..QUARANTINE_SHARDS).map(move |shard| quarantine_key(&day, shard)));
    let table = opened.table("events")?;
    let query = async |key: String| {
        let query = opened.clients.dynamodb.query().table_name(table).key_condition_expression("#session = :session");
        let query = query
            .filter_expression("received_at >= :since")
            .projection_expression("#session, #event, webhook, received_at, reason")
            .expression_attribute_names("#session", "session")
            .expression_attribute_names("#event", "event")
            .expression_attribute_values(":session", AttributeValue::S(key))
            .expression_attribute_values(":since", AttributeValue::S(since.to_string()));
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().collect().await;
        items.map_err(|error| unreadable(&error))
    };
    let found: Vec<Vec<Item>> = stream::iter(keys).map(query).buffered(PARALLEL).try_collect().await?;
    let mut found: Vec<(Id, Item)> =
        found.into_iter().flatten().filter_map(|item| Some((Id::of(&item)?, item))).collect();
    found.sort_by_cached_key(|(id, item)| (text(item, "received_at").to_owned(), id.to_string()));
    Ok(found)
}

pub(crate) async fn find(opened: &Opened, id: &Id) -> Result<Item, Failure> {
    let read = opened.clients.dynamodb.get_item().table_name(opened.table("events")?);
    let read = read.set_key(Some(id.key())).consistent_read(true).send().await;
    read.map_err(|error| unreadable(&error))?.item.ok_or_else(|| Failure("is not in quarantine".to_owned()))
}

/// Stores what can be read by now, and only then takes it out of quarantine.
pub(crate) async fn replay(opened: &Opened, store: &Store, id: &Id) -> Result<&'static str, Failure> {
    let stays = |why: &dyn fmt::Display| Failure(format!("stays: {why}"));
    let item = find(opened, id).await?;
    let event = read_event(&opened.clients, &item).await.map_err(|error| stays(&error))?;
    let body = Verified::known(&event.body);
    let delivery =
        Delivery::read(event.webhook, &body, event.source, opened.default_country).map_err(|error| stays(&error))?;
    // Whoever sent it could have been refused only by what it says, and that could not be read.
    if event.granted.as_deref().is_some_and(|id| id != delivery.call.key.id()) {
        return Err(stays(&Refused::OtherSession));
    }
    let kept = store.keep(&delivery, &body, event.source, event.received_at).await.map_err(|error| stays(&error))?;
    let delete = opened.clients.dynamodb.delete_item().table_name(opened.table("events")?);
    delete.set_key(Some(id.key())).send().await.map_err(|error| stays(&why(&error)))?;
    if kept != Kept::Erased {
        return Ok("stored");
    }
    // Nothing else refers to it, and nothing is kept of an erased call.
    delete_body(opened, &item).await.map_err(|why| Failure(format!("its body cannot be deleted: {why}")))?;
    Ok("deleted, since its call is erased")
}
