//! `hookswitch replay`: stored deliveries sent to another bundle, as the platforms sent them to this one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;

use futures_util::StreamExt;
use indicatif::ProgressBar;
use serde::Serialize;
use shared::storage::read_event;
use shared::{Instant, SessionKey, Webhook};

use crate::Failure;
use crate::endpoints::{Endpoints, Stores};
use crate::events::{Which, counter, events_of, text, trouble};
use crate::sender::{Heard, PARALLEL, Sender, origin, overrides};
use crate::simulate::positive;
use crate::stack::Stack;
use crate::target::{self, Opened, Target};

/// Send stored deliveries to another bundle, verbatim, with its tokens and signatures.
#[derive(clap::Args, Clone)]
#[command(after_help = "\
Examples:
  hookswitch replay --to http://127.0.0.1:9100                   from the local run to another one
  hookswitch replay --stack prod --to http://127.0.0.1:9000      from a stack to the local run
  hookswitch replay --stack prod --to stack:staging --since 2h   what was received in the last two hours
  hookswitch replay --to staging.json --session exotel#s1234567  one call, to functions anywhere

A local run is told by its URL, a stack by stack:NAME, anything else by an endpoints file as
`hookswitch urls --json` writes it. A call's deliveries are sent one after another in the order in
which they were received, several calls at once. One that is not answered 2xx is sent again after 1,
2 and 4 seconds, and then given up and named; the next one follows.

The other bundle keeps them as if they came from the platforms: a second replay changes nothing
there, what the reconciler fetched here counts as a webhook there, and its archiver fetches
recordings whose URLs still work. It then holds what real callers said, and their numbers. What is
in quarantine here is not sent.

Exit code: 0 if everything was answered 2xx, else 1.")]
pub struct Options {
    /// Where to: the URL of a local run, stack:NAME, or an endpoints file.
    #[arg(long, value_name = "TARGET")]
    to: Destination,
    #[command(flatten)]
    which: Which,
    /// Deliveries a second at most; as fast as they are answered by default.
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Send nothing, only count.
    #[arg(long)]
    dry_run: bool,
    /// One JSON object a line; the last one is the summary.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What is said of where to replay to.
#[derive(Clone, Debug)]
enum Destination {
    Run(String),
    Stack(String),
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.strip_prefix("stack:") {
            Some(name) => Self::Stack(name.to_owned()),
            None if text.starts_with("http://") || text.starts_with("https://") => Self::Run(text.to_owned()),
            None => Self::File(text.into()),
        })
    }
}

impl Destination {
    async fn endpoints(&self) -> Result<Endpoints, Failure> {
        match self {
            Self::Run(base) => target::at(base).await,
            Self::Stack(name) => Stack::find(name).await?.endpoints().await,
            Self::File(path) => target::file(path),
        }
    }
}

/// What came of a replay.
#[derive(Serialize, Default)]
struct Summary {
    calls: usize,
    deliveries: usize,
    retries: usize,
    /// Never answered 2xx.
    given_up: usize,
    /// Could not be read, and so not be sent.
    unread: usize,
    statuses: BTreeMap<String, usize>,
}

/// From where to where.
struct Replay<'a> {
    options: &'a Options,
    now: Instant,
    opened: Opened,
    endpoints: Endpoints,
    sender: Sender,
    bar: ProgressBar,
}

/// What came of one call.
struct Replayed {
    deliveries: usize,
    unread: usize,
    troubles: Vec<String>,
}

/// Runs the command.
pub async fn run(options: &Options, now: Instant, mut out: impl Write) -> Result<(), Failure> {
    let (opened, own) = source(&options.target).await?;
    let endpoints = options.to.endpoints().await?;
    let is_there = |url| endpoints.functions.values().any(|other| origin(other) == origin(url));
    if own.iter().any(|url| is_there(url)) {
        let instead = "to derive its tables from them again: hookswitch rebuild";
        return Err(Failure(format!("these deliveries are stored there already; {instead}")));
    }
    let sender = Sender::new(&endpoints, options.rate)?;
    let replay = Replay { options, now, opened, endpoints, sender, bar: counter("deliveries") };
    // A closed pipe is a reader that has seen enough.
    let mut print = |line: String| drop(writeln!(out, "{line}"));
    let mut summary = Summary::default();
    {
        let calls = options.which.calls(&replay.opened)?;
        let mut calls = pin!(calls.map(|key| replay.call(key)).buffer_unordered(PARALLEL));
        while let Some(call) = calls.next().await {
            let Replayed { deliveries, unread, troubles } = call?;
            summary.calls += usize::from(deliveries > 0);
            summary.deliveries += deliveries;
            summary.unread += unread;
            replay.bar.suspend(|| troubles.into_iter().for_each(&mut print));
        }
    }
    replay.bar.finish_and_clear();
    let Heard { statuses, retries, given_up, .. } = replay.sender.heard();
    let summary = Summary { retries, given_up, statuses, ..summary };
    if options.json {
        print(serde_json::to_string(&summary).unwrap_or_default());
    } else {
        print(format!("{} calls, {} deliveries", summary.calls, summary.deliveries));
        let status = |(status, count): (&String, &usize)| format!("{status}: {count}");
        let statuses: Vec<String> = summary.statuses.iter().map(status).collect();
        let statuses = if options.dry_run { "none: nothing was sent".to_owned() } else { statuses.join(", ") };
        print(format!("answers     {statuses} ({retries} retries, {given_up} given up)"));
    }
    match (given_up, summary.unread) {
        (0, 0) => Ok(()),
        (given_up, unread) => {
            Err(Failure(format!("{given_up} deliveries were never answered 2xx, {unread} events cannot be read")))
        }
    }
}

/// The stores of the bundle that has the deliveries, and its functions' URLs.
async fn source(source: &Target) -> Result<(Opened, Vec<String>), Failure> {
    match &source.stack {
        None => {
            let endpoints = target::local(source.port).await?;
            let stores = endpoints.stores.as_ref().map(Stores::open).transpose()?;
            let stores = stores.ok_or_else(|| Failure("the local run does not say where its stores are".to_owned()))?;
            Ok((stores, endpoints.functions.into_values().collect()))
        }
        Some(name) => {
            let stack = Stack::find(name).await?;
            let urls = Webhook::ALL.into_iter().map(|webhook| stack.url(webhook).map(str::to_owned));
            Ok((stack.open()?, urls.collect::<Result<_, Failure>>()?))
        }
    }
}

impl Replay<'_> {
    /// Sends a call's deliveries, one after another.
    async fn call(&self, key: Result<SessionKey, Failure>) -> Result<Replayed, Failure> {
        let key = key?;
        let since = self.options.which.since.map(|since| since.to_string());
        let mut urls = self.endpoints.functions.clone();
        let mut replayed = Replayed { deliveries: 0, unread: 0, troubles: Vec::new() };
        for item in events_of(&self.opened, &key, self.now).await? {
            if since.as_deref().is_some_and(|since| text(&item, "received_at") < since) {
                continue;
            }
            let mut trouble = |why: &str| {
                replayed.troubles.push(trouble(&key, Some(text(&item, "event")), why, self.options.json));
            };
            match read_event(&self.opened.clients, &item).await {
                Err(error) => {
                    trouble(&error.to_string());
                    replayed.unread += 1;
                    continue;
                }
                Ok(_) if self.options.dry_run => {}
                Ok(event) => match self.sender.deliver(&urls, event.webhook, event.body).await {
                    None => trouble("never answered 2xx"),
                    // The platform keeps the overrides of an answer for the session's life.
                    Some(answer) => urls.extend(overrides(&answer, &self.endpoints.functions)),
                },
            }
            replayed.deliveries += 1;
            self.bar.inc(1);
        }
        Ok(replayed)
    }
}
