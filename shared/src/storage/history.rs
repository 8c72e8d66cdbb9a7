//! A caller's earlier calls, by the index of contacts.

use std::collections::HashMap;

use super::attributes::{Item, s, text};
use super::calls::{BY_CONTACT, item_to_call};
use super::{Store, StoreError};
use crate::call::{Call, Field, State};
use crate::contact::caller;
use crate::instant::Instant;
use crate::session::SessionKey;

/// Earlier calls that are counted at most.
pub const MOST_COUNTED: usize = 100;
/// Earlier calls that are read at most.
pub const MOST_READ: usize = 5;
const SECONDS_A_DAY: i64 = 24 * 60 * 60;

/// What is known of a caller from before this call.
#[derive(Default)]
pub struct History {
    /// Earlier calls, [`MOST_COUNTED`] at most.
    pub calls: usize,
    /// Whether there are more than that.
    pub more: bool,
    /// The latest of them, [`MOST_READ`] at most, the latest first.
    pub recent: Vec<Call>,
}

impl Store {
    /// The history of a contact that is one person's number, without `this` call: one query of one page, and one read
    /// of the latest. What is over the retention is forgotten, though the store has not deleted it yet.
    pub async fn history(&self, contact: &str, this: &SessionKey, now: Instant) -> Result<History, StoreError> {
        const WHAT: &str = "a read of the caller's history";
        let Some(contact) = caller(contact) else { return Ok(History::default()) };
        let since =
            self.retention_days.and_then(|days| Instant::from_unix_seconds(now.unix_seconds() - days * SECONDS_A_DAY));
        // One more than is counted, and one that may be this call.
        let limit = i32::try_from(MOST_COUNTED + 2).unwrap_or(i32::MAX);
        let mut query = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.tables.sessions)
            .index_name(BY_CONTACT)
            .expression_attribute_values(":contact", s(contact))
            .scan_index_forward(false)
            .limit(limit);
        query = match since {
            None => query.key_condition_expression("contact = :contact"),
            Some(since) => query
                .key_condition_expression("contact = :contact AND started_at >= :since")
                .expression_attribute_values(":since", s(since.to_string())),
        };
        let page = query.send().await.map_err(|error| StoreError::from_sdk(WHAT, &error))?;
        let found = page.items.unwrap_or_default();
        let keys: Vec<SessionKey> = found
            .iter()
            .filter_map(|item| text(item, "session")?.parse().ok())
            .filter(|key: &SessionKey| key != this)
            .collect();
        let latest = &keys[..keys.len().min(MOST_READ)];
        let mut recent = self.calls(latest, WHAT).await?;
        // The index is behind the table: what was erased, or is another's by now, is not theirs.
        recent.retain(|call| call.state != State::Erased && !call.test && call.get(Field::Contact) == Some(contact));
        let gone = latest.len() - recent.len();
        let calls = keys.len() - gone;
        Ok(History { calls: calls.min(MOST_COUNTED), more: calls > MOST_COUNTED, recent })
    }

    /// Those of these calls that there are, in their order.
    pub(super) async fn calls(&self, keys: &[SessionKey], what: &'static str) -> Result<Vec<Call>, StoreError> {
        let names: Vec<&str> = keys.iter().map(SessionKey::as_str).collect();
        let items = self.read_many(&self.tables.sessions, &names, what, |read| read).await?;
        let items: HashMap<&str, &Item> =
            items.iter().filter_map(|item| Some((text(item, "session")?, item))).collect();
        Ok(keys.iter().filter_map(|key| item_to_call(key, items.get(key.as_str())?)).collect())
    }
}
