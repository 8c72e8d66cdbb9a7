//! The page of deliveries that could not be used, and another try with the present code.

use futures_util::{StreamExt, stream};
use http::StatusCode;
use minijinja::context;

use super::{Asked, Console, PATH, Problem, Reply, call, query};
use crate::Failure;
use crate::events::{since, text};
use crate::quarantine::{Id, find, list, replay as try_again};
use crate::sender::PARALLEL;

/// How far back the page looks, unless it is told.
pub(super) const SINCE: &str = "7d";
/// What is shown at once, the latest first.
pub(super) const SHOWN: usize = 200;

/// The page.
pub(super) async fn page(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let period = asked.get("since").unwrap_or(SINCE);
    let from = since(period).map_err(|why| Problem::Unclear(format!("“{period}” is {why}.")))?;
    let items = list(&console.opened, from, console.now()).await?;
    let count = items.len();
    let row = |(id, item): &(Id, crate::events::Item)| {
        context! {
            id => id.to_string(),
            received_at => text(item, "received_at"),
            webhook => text(item, "webhook"),
            reason => text(item, "reason"),
            body => format!("{PATH}quarantine/body{}", query("id", &id.to_string())),
        }
    };
    let rows: Vec<_> = items.iter().rev().take(SHOWN).map(row).collect();
    let context = context! {
        title => "Quarantine", rows, count, since => period, shown => SHOWN,
        stored => asked.get("stored").and_then(|count| count.parse::<u64>().ok()),
        left => asked.get("left").and_then(|count| count.parse::<u64>().ok()),
    };
    Ok(Reply::Page(StatusCode::OK, "quarantine.html", context))
}

/// One body as it came.
pub(super) async fn body(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let id = asked.get("id").and_then(|id| id.parse::<Id>().ok());
    let id = id.ok_or(Problem::NotFound("The address names no delivery."))?;
    // A replay may have taken it out a moment ago.
    let gone = |_| Problem::NotFound("It is not in quarantine.");
    call::verbatim(console, &find(&console.opened, &id).await.map_err(gone)?).await
}

/// Tries again to store those that the form names, and says what came of it.
pub(super) async fn replay(console: &Console, form: &Asked) -> Result<Reply, Problem> {
    let ids: Result<Vec<Id>, _> = form.all("id").map(str::parse).collect();
    let ids = ids.map_err(|why: &str| Problem::Unclear(format!("The form names a delivery that is {why}.")))?;
    if ids.is_empty() {
        return Err(Problem::Unclear("Tick what is to be tried again.".to_owned()));
    }
    let tried: Vec<(Id, Result<&'static str, Failure>)> = stream::iter(ids)
        .map(async |id| {
            let done = try_again(&console.opened, &console.store, &id).await;
            (id, done)
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let line = |(id, done): &(Id, Result<&'static str, Failure>)| match done {
        Ok(done) => context! { id => id.to_string(), done },
        Err(Failure(why)) => context! { id => id.to_string(), why },
    };
    let stored = tried.iter().filter(|(_, done)| done.is_ok()).count();
    if stored == tried.len() {
        return Ok(Reply::GoTo(format!("{PATH}quarantine?stored={stored}")));
    }
    let tried: Vec<_> = tried.iter().map(line).collect();
    Ok(Reply::Page(StatusCode::OK, "delivery.html", context! { title => "Tried again", tried, stored }))
}
