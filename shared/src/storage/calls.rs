//! The `sessions` table: what each call is now, joined by compare-and-swap on `merged`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::builders::KeysAndAttributesBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::attributes::{Item, n, number_or_text, s, text};
use super::{CACHE_FOR_MILLIS, Cached, Store, StoreError};
use crate::call::{Call, Field, Kind, Said, State, decimal};
use crate::instant::Instant;
use crate::recording;
use crate::session::{Provider, SessionKey};

/// The index of calls by day: `day` (`2026-03-15#<shard>`) and `started_at`.
pub const BY_DAY: &str = "by_day";
/// The index of a caller's calls: `contact` and `started_at`.
pub const BY_CONTACT: &str = "by_contact";
/// Days are spread over this many keys of [`BY_DAY`].
pub const DAY_SHARDS: u8 = 4;

/// `DynamoDB` gives no more items in one answer.
const READ_AT_ONCE: usize = 100;
/// Such reads under way at once.
const READS_AT_ONCE: usize = 8;
/// A call that so many writers change at once is no call.
const MAX_ATTEMPTS: u32 = 64;

/// What merging a call came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Merged {
    Changed,
    Unchanged,
    Erased,
}

impl Store {
    /// The call as last acknowledged: from this instance's cache, or read.
    pub(super) async fn call_as_seen(&self, key: &SessionKey, now: Instant) -> Result<Option<Cached>, StoreError> {
        let cache = self.cache.as_ref().and_then(|cache| cache.lock().ok());
        let cached = cache.and_then(|mut cache| cache.get(key).cloned());
        if let Some(cached) = cached.filter(|cached| now.millis_since(cached.seen_at).abs() < CACHE_FOR_MILLIS) {
            return Ok(Some(cached));
        }
        self.read_call(key, now).await
    }

    /// The call as it is now, whatever this instance remembers.
    pub(super) async fn read_call(&self, key: &SessionKey, now: Instant) -> Result<Option<Cached>, StoreError> {
        let read = self
            .clients
            .dynamodb
            .get_item()
            .table_name(&self.tables.sessions)
            .key("session", s(key.as_str()))
            .consistent_read(true);
        let output = read.send().await.map_err(|error| StoreError::from_sdk("a read of the call", &error))?;
        Ok(output.item.and_then(|item| self.remember(key, &item, now)))
    }

    /// Which of these calls are not known to be over, or lack the job of a recording that they wait for: a delivery that
    /// failed half-way and was not repeated may have told the call of it and no more.
    pub async fn not_whole(&self, keys: &[SessionKey]) -> Result<Vec<SessionKey>, StoreError> {
        const WHAT: &str = "a read of many calls";
        let key = |item: &Item| text(item, "session").map(str::to_owned);
        let names: Vec<&str> = keys.iter().map(SessionKey::as_str).collect();
        let states = |read: KeysAndAttributesBuilder| {
            read.consistent_read(true)
                .projection_expression("#session, #state, recording_state")
                .expression_attribute_names("#session", "session")
                .expression_attribute_names("#state", "state")
        };
        let mut calls = self.read_many(&self.tables.sessions, &names, WHAT, states).await?;
        calls.retain(|call| text(call, "state").and_then(State::from_name) >= Some(State::Ended));
        let waits = |call: &Item| text(call, Field::RecordingState.name()) == Some(recording::State::Pending.name());
        let (waiting, whole): (Vec<Item>, Vec<Item>) = calls.into_iter().partition(waits);
        let waiting: Vec<&str> = waiting.iter().filter_map(|call| text(call, "session")).collect();
        let jobs = self.read_many(&self.tables.recordings, &waiting, WHAT, states).await?;
        let whole: BTreeSet<String> = whole.iter().chain(&jobs).filter_map(key).collect();
        Ok(keys.iter().filter(|key| !whole.contains(key.as_str())).cloned().collect())
    }

    /// Those of many items that there are, in any order. `how` they are read may be consistent, or only in part.
    pub(super) async fn read_many(
        &self,
        table: &str,
        sessions: &[&str],
        what: &'static str,
        how: impl Fn(KeysAndAttributesBuilder) -> KeysAndAttributesBuilder + Copy,
    ) -> Result<Vec<Item>, StoreError> {
        let read = |sessions: Vec<Item>| async move {
            let (mut items, mut left) = (Vec::new(), sessions);
            while !left.is_empty() {
                let asked = left.len();
                let wanted = how(KeysAndAttributes::builder().set_keys(Some(left)));
                let wanted = wanted.build().map_err(|_| StoreError::Refused(what))?;
                let read = self.clients.dynamodb.batch_get_item().request_items(table, wanted).send().await;
                let output = read.map_err(|error| StoreError::from_sdk(what, &error))?;
                items.extend(output.responses.unwrap_or_default().remove(table).unwrap_or_default());
                // Beyond 16 MB, or when it is busy, the store answers in part.
                let unread = output.unprocessed_keys.unwrap_or_default().remove(table);
                left = unread.map(|unread| unread.keys).unwrap_or_default();
                if left.len() >= asked {
                    return Err(StoreError::Unavailable { what, code: "throttled".to_owned() });
                }
            }
            Ok(items)
        };
        let keys = |some: &[&str]| some.iter().map(|key| Item::from([("session".into(), s(*key))])).collect();
        let reads: Vec<_> = sessions.chunks(READ_AT_ONCE).map(|some| read(keys(some))).collect();
        let read: Vec<Vec<Item>> = stream::iter(reads).buffered(READS_AT_ONCE).try_collect().await?;
        Ok(read.into_iter().flatten().collect())
    }

    /// A call as it is now; `None` if there is none.
    pub async fn call(&self, key: &SessionKey, now: Instant) -> Result<Option<Call>, StoreError> {
        Ok(self.call_as_seen(key, now).await?.map(|seen| seen.call))
    }

    /// The platform's own id of a Vocobase call.
    pub async fn call_id(&self, key: &SessionKey, now: Instant) -> Result<Option<String>, StoreError> {
        let seen = self.call_as_seen(key, now).await?;
        Ok(seen.and_then(|seen| seen.call.get(Field::CallId).map(str::to_owned)))
    }

    /// Joins `said` into the stored call.
    pub(super) async fn merge_call(
        &self,
        seen: Option<Cached>,
        said: &Call,
        received_at: Instant,
    ) -> Result<Merged, StoreError> {
        let join = |known: Call| known.join(said);
        self.change_call(seen, &said.key, received_at, join).await.map(|(merged, _)| merged)
    }

    /// Replaces the stored call by what `change` makes of it, and gives back what is stored then. `change` is asked
    /// anew whenever somebody else was quicker.
    pub(super) async fn change_call(
        &self,
        mut seen: Option<Cached>,
        key: &SessionKey,
        received_at: Instant,
        change: impl Fn(Call) -> Call,
    ) -> Result<(Merged, Call), StoreError> {
        for attempt in 0..MAX_ATTEMPTS {
            let known = seen.as_ref().map_or_else(|| Call::new(key.clone()), |seen| seen.call.clone());
            if known.state == State::Erased {
                return Ok((Merged::Erased, known));
            }
            let next = change(known);
            if seen.as_ref().is_some_and(|seen| seen.call == next) {
                return Ok((Merged::Unchanged, next));
            }
            match self.swap_call(seen.as_ref(), &next, received_at).await? {
                None => return Ok((Merged::Changed, next)),
                Some(newer) => seen = self.remember(key, &newer, received_at),
            }
            if attempt > 2 {
                // Many writers at once: spread them out by a hash of what each has to say.
                let spread = next.digest().bytes().map(u64::from).sum::<u64>() % (4 << attempt.min(4));
                tokio::time::sleep(Duration::from_millis(spread)).await;
            }
        }
        Err(StoreError::Unavailable { what: "the call", code: "contention".to_owned() })
    }

    /// Replaces `seen` by `next` if the item is still as it was seen; else gives the item back as it is now, which is
    /// empty if it vanished.
    async fn swap_call(
        &self,
        seen: Option<&Cached>,
        next: &Call,
        received_at: Instant,
    ) -> Result<Option<Item>, StoreError> {
        let merged = next.digest();
        let before = seen.map(|seen| call_to_item(&seen.call)).unwrap_or_default();
        let after = call_to_item(next);
        let mut update = self
            .clients
            .dynamodb
            .update_item()
            .table_name(&self.tables.sessions)
            .key("session", s(next.key.as_str()))
            .expression_attribute_values(":merged", s(&merged))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        update = match seen.filter(|seen| !seen.merged.is_empty()) {
            None => update.condition_expression("attribute_not_exists(merged)"),
            Some(seen) => {
                update.condition_expression("merged = :seen").expression_attribute_values(":seen", s(&seen.merged))
            }
        };
        let mut expression = "SET merged = :merged".to_owned();
        let changed = after.iter().filter(|(name, value)| before.get(*name) != Some(*value));
        for (index, (name, value)) in changed.enumerate() {
            let _ = write!(expression, ", #n{index} = :v{index}");
            update = update
                .expression_attribute_names(format!("#n{index}"), name)
                .expression_attribute_values(format!(":v{index}"), value.clone());
        }
        let began_otherwise = seen.is_none_or(|seen| seen.call.started_at != next.started_at);
        if began_otherwise && let Some(expiry) = self.expiry(next.started_at, received_at) {
            expression.push_str(", expires_at = :expires_at");
            update = update.expression_attribute_values(":expires_at", n(expiry));
        }
        for (index, name) in before.keys().filter(|name| !after.contains_key(*name)).enumerate() {
            let _ = write!(expression, "{} #g{index}", if index == 0 { " REMOVE" } else { "," });
            update = update.expression_attribute_names(format!("#g{index}"), name);
        }
        match update.update_expression(expression).send().await {
            Ok(_) => {
                self.cache_call(next.clone(), merged, received_at);
                Ok(None)
            }
            Err(SdkError::ServiceError(error)) => match error.err() {
                UpdateItemError::ConditionalCheckFailedException(failed) => {
                    Ok(Some(failed.item.clone().unwrap_or_default()))
                }
                _ => Err(StoreError::from_sdk("the call", &SdkError::ServiceError(error))),
            },
            Err(error) => Err(StoreError::from_sdk("the call", &error)),
        }
    }

    /// Caches an item that was read; `None` if there is none.
    fn remember(&self, key: &SessionKey, item: &Item, now: Instant) -> Option<Cached> {
        let call = item_to_call(key, item)?;
        Some(self.cache_call(call, text(item, "merged").unwrap_or_default().to_owned(), now))
    }

    fn cache_call(&self, call: Call, merged: String, seen_at: Instant) -> Cached {
        let cached = Cached { call, merged, seen_at };
        if let Some(Ok(mut cache)) = self.cache.as_ref().map(Mutex::lock) {
            cache.put(cached.call.key.clone(), cached.clone());
        }
        cached
    }
}

/// A call's attributes, without what belongs to the item alone (its key, `merged`, `expires_at`).
///
/// Most of what is known was said at the same instant: `said_at` is the latest, and `said_earlier` names the fields
/// that were last said before.
pub(super) fn call_to_item(call: &Call) -> Item {
    let mut item = Item::from([("state".into(), s(call.state.name()))]);
    if call.state == State::Erased {
        return item;
    }
    item.insert("provider".into(), s(call.key.provider().name()));
    item.insert("session_id".into(), s(call.key.id()));
    if let Some(at) = call.started_at {
        item.insert("started_at".into(), s(at.to_string()));
        item.insert("day".into(), s(format!("{}#{}", at.day(), call.key.shard(DAY_SHARDS))));
    }
    if !call.bots.is_empty() {
        item.insert("bots".into(), AttributeValue::Ss(call.bots.iter().cloned().collect()));
    }
    if call.transfer_requested {
        item.insert("transfer_requested".into(), AttributeValue::Bool(true));
    }
    if call.test {
        item.insert("test".into(), AttributeValue::Bool(true));
    }
    if let Some(revision) = &call.revision {
        item.insert("revision".into(), s(revision));
    }
    if call.key.provider() == Provider::Exotel
        && let Some(duration) = call.derived_duration_seconds()
    {
        item.insert(Field::DurationSeconds.name().into(), n(duration));
    }
    // A brief is the only thing said when its delivery came. As the latest it would put all else among the earlier.
    let others = call.fields.iter().filter(|(field, _)| **field != Field::Brief);
    let latest = others.filter_map(|(_, said)| said.at).max();
    let mut earlier = Item::new();
    for (field, said) in &call.fields {
        let value = match field.kind() {
            Kind::Text => s(&said.value),
            Kind::Number => number_or_text(&said.value),
        };
        item.insert(field.name().into(), value);
        if said.at != latest {
            earlier.insert(field.name().into(), s(said.at.map(|at| at.to_string()).unwrap_or_default()));
        }
    }
    if let Some(at) = latest {
        item.insert("said_at".into(), s(at.to_string()));
    }
    if !earlier.is_empty() {
        item.insert("said_earlier".into(), AttributeValue::M(earlier));
    }
    if !call.insights.is_empty() {
        let insights = call.insights.iter().map(|(kind, said)| {
            let mut insight = Item::from([("data".into(), s(&said.value))]);
            if let Some(at) = said.at {
                insight.insert("at".into(), s(at.to_string()));
            }
            (kind.clone(), AttributeValue::M(insight))
        });
        item.insert("insights".into(), AttributeValue::M(insights.collect()));
    }
    item
}

/// The call of an item of the `sessions` table, `None` for an empty item. Attributes that are not the bundle's are
/// passed over, and what somebody made unreadable by hand is as if it had not been said.
pub fn item_to_call(key: &SessionKey, item: &Item) -> Option<Call> {
    if item.is_empty() {
        return None;
    }
    let mut call = Call::new(key.clone());
    call.state = text(item, "state").and_then(State::from_name).unwrap_or(State::InProgress);
    call.started_at = text(item, "started_at").and_then(Instant::parse);
    if let Some(AttributeValue::Ss(bots)) = item.get("bots") {
        call.bots.extend(bots.iter().cloned());
    }
    call.transfer_requested = item.get("transfer_requested") == Some(&AttributeValue::Bool(true));
    call.test = item.get("test") == Some(&AttributeValue::Bool(true));
    call.revision = text(item, "revision").map(str::to_owned);
    let latest = text(item, "said_at").and_then(Instant::parse);
    let earlier = match item.get("said_earlier") {
        Some(AttributeValue::M(earlier)) => earlier,
        _ => &Item::new(),
    };
    for field in Field::ALL.iter().copied() {
        // Exotel says no duration: what the item has is derived.
        if field == Field::DurationSeconds && key.provider() == Provider::Exotel {
            continue;
        }
        let Some(value) = text(item, field.name()) else { continue };
        let at = text(earlier, field.name()).map_or(latest, Instant::parse);
        let value = if field.kind() == Kind::Number { decimal(value) } else { value.to_owned() };
        call.fields.insert(field, Said { at, value });
    }
    if let Some(AttributeValue::M(insights)) = item.get("insights") {
        call.insights = insights.iter().filter_map(insight).collect::<BTreeMap<_, _>>();
    }
    Some(call)
}

fn insight((kind, value): (&String, &AttributeValue)) -> Option<(String, Said)> {
    let insight = value.as_m().ok()?;
    let at = text(insight, "at").and_then(Instant::parse);
    Some((kind.clone(), Said { at, value: text(insight, "data")?.to_owned() }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::tests::calls;

    proptest! {
        #[test]
        fn an_item_gives_its_call_back(call in prop_oneof![calls(Provider::Exotel), calls(Provider::Vocobase)]) {
            let mut item = call_to_item(&call);
            prop_assert_eq!(item_to_call(&call.key, &item).unwrap(), call.clone());
            item.insert("somebody_elses".into(), s("attribute"));
            prop_assert_eq!(item_to_call(&call.key, &item).unwrap(), call);
        }
    }
}
