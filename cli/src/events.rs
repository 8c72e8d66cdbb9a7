//! The stored deliveries: which calls have some, and those of one call in the order in which they were received.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Debug;
use std::io::IsTerminal;
use std::pin::Pin;
use std::time::Duration;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::AttributeValue;
use futures_util::{Stream, StreamExt, stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use shared::logging::printable;
use shared::{Instant, Provider, SessionKey};

use crate::recordings::age;
use crate::simulate::check::query;
use crate::target::Opened;
use crate::{Failure, why};

pub(crate) type Item = HashMap<String, AttributeValue>;

/// Which of the stored deliveries.
#[derive(clap::Args, Clone, Debug)]
pub struct Which {
    /// One call: `exotel#<session id>` or `vocobase#<session id>`.
    #[arg(long, value_name = "S", conflicts_with = "since")]
    pub session: Option<SessionKey>,
    /// What was received since then: such as 2026-03-15, 2026-03-15T14:30:00Z, 2h or 3d.
    #[arg(long, value_name = "T", value_parser = since)]
    pub since: Option<Instant>,
}

/// A call's key; a session id alone is this platform's.
pub(crate) fn session_key(session: &str, provider: Provider) -> Result<SessionKey, Failure> {
    let key = session.parse().or_else(|_| SessionKey::new(provider, session));
    key.map_err(|error| Failure(error.to_string()))
}

/// Reads an instant, a date, or how long ago.
pub(crate) fn since(text: &str) -> Result<Instant, String> {
    let ago = || {
        let (now, age) = (Instant::now(), age(text).ok()?);
        // Not from whole seconds: what came in this one is older than 0s.
        Instant::from_unix_seconds(now.unix_seconds().checked_sub(age)?).map(|_| now.plus_seconds(-age))
    };
    let wrong = "neither a date, nor an instant such as 2026-03-15T14:30:00Z, nor an age such as 2h or 3d";
    Instant::parse(text).or_else(ago).ok_or_else(|| wrong.to_owned())
}

impl Which {
    /// The calls that have such deliveries, as the table is read, page by page.
    pub fn calls<'a>(
        &self,
        opened: &'a Opened,
    ) -> Result<impl Stream<Item = Result<SessionKey, Failure>> + use<'a>, Failure> {
        if let Some(key) = &self.session {
            return Ok(stream::iter([Ok(key.clone())]).left_stream());
        }
        let mut scan = opened.clients.dynamodb.scan().table_name(opened.table("events")?);
        scan = scan.projection_expression("#session").expression_attribute_names("#session", "session");
        if let Some(since) = self.since {
            let since = AttributeValue::S(since.to_string());
            scan = scan.filter_expression("received_at >= :since").expression_attribute_values(":since", since);
        }
        let mut items = scan.into_paginator().items().send();
        let items = stream::poll_fn(move |context| Pin::new(&mut items).poll_next(context));
        // The items of one key follow each other.
        let mut last = String::new();
        let calls = items.filter_map(move |item| {
            std::future::ready(match item {
                Err(error) => Some(Err(unreadable(&error))),
                Ok(item) if text(&item, "session") == last => None,
                Ok(item) => {
                    text(&item, "session").clone_into(&mut last);
                    // What is in quarantine belongs to no call.
                    last.parse().ok().map(Ok)
                }
            })
        });
        Ok(calls.right_stream())
    }
}

/// A call's events, in the order in which they were received. What has expired is as good as deleted: its body may be.
pub(crate) async fn events_of(opened: &Opened, key: &SessionKey, now: Instant) -> Result<Vec<Item>, Failure> {
    let mut items = query(opened, "events", key).await?;
    items.retain(|item| text(item, "expires_at").parse().map_or(true, |at: i64| at > now.unix_seconds()));
    items.sort_by_cached_key(|item| (text(item, "received_at").to_owned(), text(item, "event").to_owned()));
    Ok(items)
}

/// Deletes the body of an event, if that is in the bucket.
pub(crate) async fn delete_body(opened: &Opened, event: &Item) -> Result<(), String> {
    let Some((bucket, key)) = text(event, "body_s3").strip_prefix("s3://").and_then(|uri| uri.split_once('/')) else {
        return Ok(());
    };
    let delete = opened.clients.s3.delete_object().bucket(bucket).key(key).send().await;
    delete.map(drop).map_err(|error| why(&error))
}

pub(crate) fn unreadable<E: Error + ProvideErrorMetadata + 'static, R: Debug + 'static>(
    error: &SdkError<E, R>,
) -> Failure {
    Failure(format!("the table events cannot be read: {}", why(error)))
}

/// The text of a text or a number; of what is not there, nothing.
pub(crate) fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    match item.get(name) {
        Some(AttributeValue::S(text) | AttributeValue::N(text)) => text,
        _ => "",
    }
}

/// A line that says what is wrong with a call, or with one of its events.
pub(crate) fn trouble(key: &SessionKey, event: Option<&str>, why: &str, json: bool) -> String {
    if json {
        return json!({ "session": key.as_str(), "event": event, "trouble": why }).to_string();
    }
    let event = event.map(|event| format!("event {event}: ")).unwrap_or_default();
    printable(&format!("{key}: {event}{why}"))
}

/// Counts on the terminal what nobody knows the number of.
pub(crate) fn counter(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, draw_target()).with_message(what);
    let style = ProgressStyle::with_template("{spinner} {pos} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Progress is for who looks on.
pub(crate) fn draw_target() -> ProgressDrawTarget {
    if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_instant_a_date_or_an_age() {
        let since = |text| since(text).map(|at| at.to_string());
        assert_eq!(since("2026-03-15"), Ok("2026-03-15T00:00:00.000000Z".to_owned()));
        assert_eq!(since("2026-03-15T11:40:57+05:30"), Ok("2026-03-15T06:10:57.000000Z".to_owned()));
        assert_eq!(since("3d").unwrap()[..10], Instant::now().plus_seconds(-3 * 86_400).day());
        for text in ["", "yesterday", "2", "-2h", "2026-13-01", "999999d"] {
            assert!(since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_session_id_alone_is_that_of_the_platform_that_is_meant() {
        let key = |text| session_key(text, Provider::Vocobase).map(|key| key.to_string());
        assert_eq!(key("s1").ok().as_deref(), Some("vocobase#s1"));
        assert_eq!(key("exotel#s1").ok().as_deref(), Some("exotel#s1"));
        assert!(key("").is_err());
    }
}
