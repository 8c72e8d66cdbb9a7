//! `hookswitch undelivered`: the events that the bus did not take, and the way to send them again.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use aws_sdk_s3::operation::get_object::GetObjectError;
use clap::{Args, Subcommand};
use event_publisher::bus::{Bus, Entry};
use event_publisher::event::Kind;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use shared::call::State;
use shared::logging::printable;
use shared::storage::{Store, UNDELIVERED, undelivered_key};
use shared::{Instant, SessionKey};

use crate::events::{counter, since};
use crate::sender::PARALLEL;
use crate::target::{Opened, Target};
use crate::{Failure, aligned, why};

/// List the events that the bus did not take, show one, send them again.
#[derive(Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch undelivered list --stack prod               put aside in the last seven days, oldest first
  hookswitch undelivered list --type call.ended --json
  hookswitch undelivered show 2026-03-15/0123456789abcdef0123456789abcdef
  hookswitch undelivered resend --all --stack prod       once the bus takes events again

`show` prints the event as it would have been sent, callers' words and numbers included.

`resend` sends events as they were put aside, under the same ids: whoever has received one already can
tell. Only what the bus takes is then deleted, so it can be interrupted and repeated. An event of a
call that has been erased since is deleted and not sent.

Exit code: 0, or 1 if something could not be read or sent, is not there, or the answer was no.")]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone)]
enum Command {
    /// List what was put aside, the oldest first.
    List {
        /// Put aside on that day or later: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
        #[arg(long, value_name = "T", value_parser = since, default_value = "7d")]
        since: Instant,
        /// Only events of this type, such as call.ended.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Print one event: callers' words and numbers included.
    Show {
        /// As `list` says it.
        id: Id,
        #[command(flatten)]
        target: Target,
    },
    /// Send events again, and delete those that are taken.
    Resend {
        /// As `list` says them.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        ids: Vec<Id>,
        /// All that were put aside since --since.
        #[arg(long)]
        all: bool,
        /// Put aside on that day or later: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
        #[arg(long, value_name = "T", value_parser = since, default_value = "7d", requires = "all")]
        since: Instant,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        target: Target,
    },
}

/// An event that was put aside: `<day>/<the event's id>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    day: String,
    event: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.day, self.event)
    }
}

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |event: &str| event.len() == 32 && event.bytes().all(|byte| byte.is_ascii_hexdigit());
        let read = text.split_once('/').filter(|(day, event)| {
            Instant::parse(&format!("{day}T00:00:00Z")).is_some_and(|at| at.day() == *day) && is_hex(event)
        });
        let (day, event) =
            read.ok_or("not an id as `undelivered list` says it, such as 2026-03-15/0123456789abcdef0123456789abcdef")?;
        Ok(Self { day: day.to_owned(), event: event.to_owned() })
    }
}

impl Id {
    /// Its object's key.
    pub(crate) fn object(&self) -> String {
        undelivered_key(&self.day, &self.event)
    }
}

/// What a CloudEvent says of itself.
#[derive(Deserialize)]
pub(crate) struct Event {
    #[serde(rename = "type")]
    pub kind: String,
    /// The call's key.
    pub subject: String,
    pub time: String,
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
        Command::List { since, kind, json, target } => {
            let opened = target.open().await?;
            let ids = list(&opened, *since, now).await?;
            let read = async |id: Id| read(&opened, &id).await.map(|(event, _)| (id, event));
            let mut events: Vec<(Id, Event)> = stream::iter(ids).map(read).buffered(PARALLEL).try_collect().await?;
            events.retain(|(_, event)| kind.as_ref().is_none_or(|kind| event.kind == *kind));
            if *json {
                let line = |(id, Event { kind, subject, time }): (Id, Event)| {
                    json!({ "id": id.to_string(), "type": kind, "session": subject, "time": time }).to_string()
                };
                events.into_iter().map(line).for_each(&mut print);
            } else {
                let row = |(id, event): (Id, Event)| {
                    [printable(&event.time), printable(&event.kind), printable(&event.subject), id.to_string()]
                };
                let headings = ["TIME", "TYPE", "SESSION", "ID"].map(str::to_owned);
                let rows: Vec<_> = std::iter::once(headings).chain(events.into_iter().map(row)).collect();
                aligned(&rows).into_iter().for_each(&mut print);
            }
            Ok(())
        }
        Command::Show { id, target } => {
            let (_, event) = read(&target.open().await?, id).await?;
            print(if terminal { printable(&event) } else { event });
            Ok(())
        }
        Command::Resend { ids, all, since, yes, target } => {
            let (opened, bus) = (target.open().await?, target.bus().await?);
            let mut ids = ids.clone();
            if *all {
                ids = list(&opened, *since, now).await?;
                if !ids.is_empty() && !yes && !ask(&format!("Send {} events again?", ids.len())) {
                    return Err(Failure("nothing was changed".to_owned()));
                }
            }
            let (store, bar) = (opened.store()?, counter("events"));
            let mut left = 0;
            let resend = async |id: &Id| resend(&opened, &store, &bus, id, now).await;
            let mut done = stream::iter(&ids).map(resend).buffered(PARALLEL).zip(stream::iter(&ids));
            while let Some((done, id)) = done.next().await {
                bar.inc(1);
                left += usize::from(done.is_err());
                let line = match done {
                    Ok(done) => format!("{id}: {done}"),
                    Err(Failure(why)) => why,
                };
                bar.suspend(|| print(line));
            }
            bar.finish_and_clear();
            match left {
                0 => Ok(()),
                left => Err(Failure(format!("{left} of {} events are not sent", ids.len()))),
            }
        }
    }
}

/// What was put aside on that day or later, the oldest first.
pub(crate) async fn list(opened: &Opened, since: Instant, now: Instant) -> Result<Vec<Id>, Failure> {
    let days = std::iter::successors(Some(since), |day| Some(day.plus_seconds(24 * 60 * 60)));
    // One more: whose clock said the day is not known here.
    let tomorrow = now.plus_seconds(24 * 60 * 60).day();
    let days = days.map(Instant::day).take_while(|day| *day <= tomorrow);
    let of_day = async |day: String| {
        let list = opened.clients.s3.list_objects_v2().bucket(&opened.bucket).prefix(format!("{UNDELIVERED}{day}/"));
        let mut pages = list.into_paginator().send();
        let mut ids = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| Failure(format!("the bucket cannot be listed: {}", why(&error))))?;
            let keys = page.contents().iter().filter_map(|object| object.key());
            let names = keys.filter_map(|key| key.strip_prefix(UNDELIVERED)?.strip_suffix(".json"));
            ids.extend(names.filter_map(|name| name.parse::<Id>().ok()));
        }
        Ok::<_, Failure>(ids)
    };
    let found: Vec<Vec<Id>> = stream::iter(days).map(of_day).buffered(PARALLEL).try_collect().await?;
    Ok(found.concat())
}

/// What an event says of itself, and the whole of it.
pub(crate) async fn read(opened: &Opened, id: &Id) -> Result<(Event, String), Failure> {
    let failed = |why: &dyn fmt::Display| Failure(format!("{id}: cannot be read: {why}"));
    let object = opened.clients.s3.get_object().bucket(&opened.bucket).key(id.object()).send().await;
    let object = object.map_err(|error| {
        let is_gone = error.as_service_error().is_some_and(GetObjectError::is_no_such_key);
        if is_gone { Failure(format!("{id}: there is no such event")) } else { failed(&why(&error)) }
    })?;
    let bytes = object.body.collect().await.map_err(|error| failed(&error))?.into_bytes();
    let text = String::from_utf8(bytes.into()).map_err(|_| failed(&"it is no text"))?;
    // Not what is wrong with it, which would quote it.
    let event = serde_json::from_str(&text).map_err(|_| failed(&"it is no event"))?;
    Ok((event, text))
}

/// Sends an event, and only then deletes it.
async fn resend(opened: &Opened, store: &Store, bus: &Bus, id: &Id, now: Instant) -> Result<&'static str, Failure> {
    let stays = |why: &dyn fmt::Display| Failure(format!("{id}: stays: {why}"));
    let (event, whole) = read(opened, id).await?;
    let key: SessionKey = event.subject.parse().map_err(|_| stays(&"it names no call"))?;
    let kind = Kind::ALL.into_iter().map(Kind::name).find(|kind| *kind == event.kind);
    let kind = kind.ok_or_else(|| stays(&"its type is unknown"))?;
    let call = store.call(&key, now).await.map_err(|error| stays(&error))?;
    let is_erased = call.is_some_and(|call| call.state == State::Erased);
    if !is_erased {
        let taken = bus.put(&[&Entry { kind, event: whole }]).await.pop();
        taken.unwrap_or(Ok(())).map_err(|not_taken| stays(&not_taken))?;
    }
    let delete = opened.clients.s3.delete_object().bucket(&opened.bucket).key(id.object()).send().await;
    delete.map_err(|error| stays(&format_args!("it was sent and cannot be deleted: {}", why(&error))))?;
    Ok(if is_erased { "deleted, since its call is erased" } else { "sent" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_day_and_an_events_id() {
        let id = "2026-03-15/0123456789abcdef0123456789abcdef";
        assert_eq!(id.parse::<Id>().unwrap().to_string(), id);
        for wrong in ["", "2026-03-15", "2026-03-15/../../bodies/x", "26-3-15/0123456789abcdef0123456789abcdef"] {
            assert!(wrong.parse::<Id>().is_err(), "{wrong}");
        }
    }
}
