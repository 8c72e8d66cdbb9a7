//! The page of events that the bus did not take.

use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use minijinja::context;
use shared::SessionKey;

use super::quarantine::{SHOWN, SINCE};
use super::{Asked, Console, PATH, Problem, Reply, call_path, query, with_type};
use crate::events::since;
use crate::sender::PARALLEL;
use crate::undelivered::{Event, Id, list, read};

/// The page.
pub(super) async fn page(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let period = asked.get("since").unwrap_or(SINCE);
    let from = since(period).map_err(|why| Problem::Unclear(format!("“{period}” is {why}.")))?;
    let mut ids = list(&console.opened, from, console.now()).await?;
    let count = ids.len();
    // The latest days first: whole events are read, which the list of all may be too long for.
    ids.reverse();
    ids.truncate(SHOWN);
    let row = async |id: Id| {
        let (Event { kind, subject, time }, _) = read(&console.opened, &id).await?;
        let href = subject.parse::<SessionKey>().ok().map(|key| call_path(&key));
        let body = format!("{PATH}undelivered/body{}", query("id", &id.to_string()));
        Ok::<_, Problem>((time.clone(), context! { time, kind, subject, href, body }))
    };
    let mut rows: Vec<_> = stream::iter(ids).map(row).buffered(PARALLEL).try_collect().await?;
    rows.sort_by(|(one, _), (two, _)| two.cmp(one));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    let context = context! { title => "Undelivered", rows, count, since => period };
    Ok(Reply::Page(StatusCode::OK, "undelivered.html", context))
}

/// One event as it would have been sent.
pub(super) async fn body(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let id = asked.get("id").and_then(|id| id.parse::<Id>().ok());
    let id = id.ok_or(Problem::NotFound("The address names no event."))?;
    // It may have been sent a moment ago.
    let gone = |_| Problem::NotFound("There is no such event.");
    let (_, event) = read(&console.opened, &id).await.map_err(gone)?;
    Ok(Reply::Other(with_type(StatusCode::OK, "text/plain; charset=utf-8", event)))
}
