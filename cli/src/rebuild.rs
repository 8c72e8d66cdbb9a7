//! `hookswitch rebuild`: what the tables lack of the stored events, shown and then put there.

use std::io::Write;
use std::pin::pin;

use futures_util::StreamExt;
use serde_json::json;
use shared::auth::Verified;
use shared::call::Delivery;
use shared::logging::printable;
use shared::storage::{Difference, Store, StoreError, read_event};
use shared::{Instant, SessionKey};

use crate::Failure;
use crate::events::{Item, Which, counter, events_of, text, trouble};
use crate::sender::PARALLEL;
use crate::target::{Opened, Target};

/// Derive sessions, transcripts and recordings from the stored events again.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch rebuild --dry-run                        what every call of the local run lacks, and nothing else
  hookswitch rebuild --session exotel#s1234567        one call: show it, ask, rebuild it
  hookswitch rebuild --since 3d --stack prod          the calls that were heard of in the last three days
  hookswitch rebuild --yes --json --stack prod        every call, without asking, as JSON lines

Each line names an item that is missing, or the attributes that would change in it; never what they
hold. With a question the calls are gone through twice; what came meanwhile is rebuilt as well.

Events are joined onto what is stored, as the deliveries were: what is known better stays, what the
archiver said stays, an erased call stays erased. So it can be interrupted and repeated. Deliveries
may come meanwhile; one that is being stored just then may show as a difference. To derive a call
from nothing, delete its items first, but never those of an erased call.

An event that cannot be read is named and left out; the rest of its call is rebuilt. What is in
quarantine stays there.

Exit code: 0, or 1 if an event could not be read, a call not be rebuilt, or the answer was no.")]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// Only show what is missing and what would change.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// One JSON object a line; the last one counts.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// How many calls, and events that cannot be read.
#[derive(Default)]
struct Counts {
    calls: usize,
    differ: usize,
    rebuilt: usize,
    unread: usize,
    failed: usize,
}

/// What was found of one call.
struct Found {
    key: SessionKey,
    differences: Vec<Difference>,
    /// Events that cannot be read, and why.
    unread: Vec<(String, String)>,
    /// Whether it is as its events have it now.
    rebuilt: Result<bool, StoreError>,
}

/// Runs the command. `ask` answers a question with yes or no.
pub async fn run(
    options: &Options,
    now: Instant,
    mut out: impl Write,
    ask: impl FnOnce(&str) -> bool,
) -> Result<(), Failure> {
    let opened = options.target.open().await?;
    let tables = Tables { store: opened.store()?, opened: &opened, now };
    // A closed pipe is a reader that has seen enough.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    let mut tell = |found: &Found| lines(found, options.json).into_iter().for_each(&mut print);
    let mut counts = tables.pass(&options.which, options.yes, |found| tell(&found)).await?;
    if counts.differ > 0 && !options.yes && !options.dry_run {
        if !ask(&format!("Rebuild {} calls?", counts.differ)) {
            return Err(Failure("nothing was changed".to_owned()));
        }
        // What differs and what cannot be read was shown before.
        let failures = |found: Found| tell(&Found { differences: vec![], unread: vec![], ..found });
        let again = tables.pass(&options.which, true, failures).await?;
        counts = Counts { rebuilt: again.rebuilt, failed: again.failed, ..counts };
    }
    let Counts { calls, differ, rebuilt, unread, failed } = counts;
    print(if options.json {
        json!({ "calls": calls, "differ": differ, "rebuilt": rebuilt, "unread": unread, "failed": failed }).to_string()
    } else {
        format!("{differ} of {calls} calls differ from their events, {rebuilt} are rebuilt")
    });
    match (unread, failed) {
        (0, 0) => Ok(()),
        (unread, 0) => Err(Failure(format!("{unread} events cannot be read"))),
        (unread, failed) => Err(Failure(format!("{failed} calls failed, {unread} events cannot be read"))),
    }
}

/// The tables that are worked on.
struct Tables<'a> {
    opened: &'a Opened,
    store: Store,
    now: Instant,
}

impl Tables<'_> {
    /// Goes through the calls, rebuilds them if that is wanted, tells of each in which there is something to tell.
    async fn pass(&self, which: &Which, apply: bool, mut tell: impl FnMut(Found)) -> Result<Counts, Failure> {
        let mut counts = Counts::default();
        let bar = counter("calls");
        let calls = which.calls(self.opened)?;
        let mut found = pin!(calls.map(|key| self.look(key, apply)).buffer_unordered(PARALLEL));
        while let Some(found) = found.next().await {
            let found = found?;
            counts.calls += 1;
            counts.differ += usize::from(!found.differences.is_empty());
            counts.rebuilt += usize::from(matches!(found.rebuilt, Ok(true)));
            counts.unread += found.unread.len();
            counts.failed += usize::from(found.rebuilt.is_err());
            bar.suspend(|| tell(found));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(counts)
    }

    async fn look(&self, key: Result<SessionKey, Failure>, apply: bool) -> Result<Found, Failure> {
        let key = key?;
        let (mut deliveries, mut unread) = (Vec::new(), Vec::new());
        for item in events_of(self.opened, &key, self.now).await? {
            match self.read(&key, &item).await {
                Ok(delivery) => deliveries.push(delivery),
                Err(why) => unread.push((text(&item, "event").to_owned(), why)),
            }
        }
        let (differences, rebuilt) = match self.store.compare(&key, &deliveries, self.now).await {
            Ok(None) => (Vec::new(), Ok(false)),
            Ok(Some(found)) if !apply => (found.differences, Ok(false)),
            Ok(Some(found)) => (found.differences.clone(), self.store.rebuild(found).await.map(|()| true)),
            Err(error) => (Vec::new(), Err(error)),
        };
        Ok(Found { key, differences, unread, rebuilt })
    }

    /// A stored event as its function would read it, and when it was received.
    async fn read(&self, key: &SessionKey, item: &Item) -> Result<(Delivery, Instant), String> {
        let event = read_event(&self.opened.clients, item).await.map_err(|error| error.to_string())?;
        let read =
            Delivery::read(event.webhook, &Verified::known(&event.body), event.source, self.opened.default_country);
        match read {
            Ok(delivery) if delivery.call.key == *key => Ok((delivery, event.received_at)),
            Ok(_) => Err("its body is another call's".to_owned()),
            Err(why) => Err(why.to_string()),
        }
    }
}

/// What there is to tell of a call.
fn lines(found: &Found, json: bool) -> Vec<String> {
    let Found { key, differences, unread, rebuilt } = found;
    let difference = |Difference { table, item, changes }: &Difference| {
        if json {
            return json!({ "session": key.as_str(), "table": table, "item": item, "changes": changes }).to_string();
        }
        let item = item.as_ref().map(|item| format!(" {item}")).unwrap_or_default();
        let changes = changes.as_ref().map_or("missing".to_owned(), |names| format!("differs in {}", names.join(", ")));
        printable(&format!("{key}: {table}{item}: {changes}"))
    };
    let unread = unread.iter().map(|(event, why)| trouble(key, Some(event), why, json));
    let failed = rebuilt.as_ref().err().map(|error| trouble(key, None, &error.to_string(), json));
    differences.iter().map(difference).chain(unread).chain(failed).collect()
}
