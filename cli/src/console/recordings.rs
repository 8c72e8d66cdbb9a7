//! The page of recordings, by how far they have come, and another try.

use futures_util::{StreamExt, TryStreamExt, stream};
use http::StatusCode;
use minijinja::context;
use shared::call::{Call, Field};
use shared::recording::State;

use super::call::can_retry;
use super::list::{MOST, PERIODS, found};
use super::{Asked, Console, PATH, Problem, Reply, call_path, key};
use crate::sender::PARALLEL;

/// The page. A call's own word for its recording finds it; what is shown is the job's.
pub(super) async fn page(console: &Console, asked: &Asked) -> Result<Reply, Problem> {
    let chosen = asked.get("recording").unwrap_or("any");
    let (_, found) = found(console, asked, Some(chosen)).await?;
    let row = async |call: &Call| {
        let job = console.store.recording(&call.key).await?;
        Ok::<_, Problem>(context! {
            key => call.key.as_str(),
            href => call_path(&call.key),
            id => call.key.id(),
            contact => call.get(Field::Contact),
            state => job.as_ref().map_or(call.get(Field::RecordingState), |job| Some(job.state.name())),
            received_at => job.as_ref().and_then(|job| job.received_at).map(|at| at.to_string()),
            attempts => job.as_ref().map(|job| job.attempts),
            bytes => job.as_ref().and_then(|job| job.bytes),
            last_error => job.as_ref().and_then(|job| job.last_error.clone()),
            can_retry => job.as_ref().is_some_and(|job| can_retry(job.state)),
        })
    };
    let rows: Vec<_> = stream::iter(&found.calls).map(row).buffered(PARALLEL).try_collect().await?;
    let tab = |state: &'static str| {
        (state, asked.with(&[("recording", Some(state)), ("after", None), ("again", None), ("left", None)]))
    };
    let number = |name: &str| asked.get(name).and_then(|count| count.parse::<u64>().ok());
    // A call is not told that its recording is being copied: to it, that is pending.
    let states = State::ALL.into_iter().filter(|state| *state != State::Copying).map(State::name);
    let context = context! {
        title => "Recordings",
        rows,
        chosen,
        tabs => std::iter::once("any").chain(states).map(tab).collect::<Vec<_>>(),
        periods => PERIODS,
        since => asked.get("since").unwrap_or_default(),
        is_live => asked.get("after").is_none(),
        newest => asked.get("after").map(|_| asked.with(&[("after", None)])),
        older => found.next.as_ref().map(|next| asked.with(&[("after", Some(&next.to_string()))])),
        next_at => found.next.as_ref().map(|next| next.started_at.to_string()),
        looked_at => (found.calls.len() < MOST && found.next.is_some()).then_some(found.looked_at),
        again => number("again"),
        left => number("left"),
    };
    Ok(Reply::Page(StatusCode::OK, "recordings.html", context))
}

/// Has recordings fetched again: the one whose button was pressed, or those that are ticked.
pub(super) async fn retry(console: &Console, form: &Asked) -> Result<Reply, Problem> {
    let pressed: Vec<&str> = form.all("only").collect();
    let sessions = if pressed.is_empty() { form.all("session").collect() } else { pressed };
    if sessions.is_empty() {
        return Err(Problem::Unclear("Tick what is to be fetched again.".to_owned()));
    }
    let keys = sessions.iter().map(|session| key(session)).collect::<Result<Vec<_>, _>>()?;
    let mut again = 0;
    for key in &keys {
        again += usize::from(console.store.retry_recording(key).await?);
    }
    if let (Some("call"), [key]) = (form.get("from"), keys.as_slice()) {
        return Ok(Reply::GoTo(call_path(key)));
    }
    let list =
        Asked(form.0.iter().filter(|(name, _)| matches!(name.as_str(), "recording" | "since")).cloned().collect());
    let (again, left) = (again.to_string(), (keys.len() - again).to_string());
    Ok(Reply::GoTo(format!("{PATH}recordings{}", list.with(&[("again", Some(&again)), ("left", Some(&left))]))))
}
