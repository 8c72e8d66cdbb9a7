//! Lists of calls: page by page, by the indices alone, whatever the number of calls that are stored.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::attributes::{Item, s, text};
use super::calls::{BY_CONTACT, BY_DAY, DAY_SHARDS};
use super::{Store, StoreError};
use crate::call::Call;
use crate::instant::Instant;
use crate::session::SessionKey;

const WHAT: &str = "a list of calls";
const SECONDS_A_DAY: i64 = 24 * 60 * 60;
/// Queries under way at once.
const PARALLEL_QUERIES: usize = 16;
/// Days that are asked for at once, where the days before had few calls.
const MOST_DAYS: usize = 16;
/// After so many days without a call there is none before: who asks for a list since 1970 must not wait for each day.
const LONGEST_GAP_DAYS: usize = 400;

/// Calls that started at or after `since` and before `until`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first instant that is in it.
    pub since: Instant,
    /// The first instant after it.
    pub until: Instant,
}

/// In which order calls are listed: by when they started, and equal ones by their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The latest first.
    NewestFirst,
    /// The earliest first.
    OldestFirst,
}

/// A call's place in a list. As text: `<started_at>~<session>`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// When the call started.
    pub started_at: Instant,
    /// Which call.
    pub key: SessionKey,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.started_at, self.key)
    }
}

/// A text that is no place in a list.
#[derive(Debug, thiserror::Error)]
#[error("no place in a list: it is <started_at>~<session>")]
pub struct NoPlace;

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (started_at, key) = text.split_once('~').ok_or(NoPlace)?;
        let started_at = Instant::parse(started_at).ok_or(NoPlace)?;
        Ok(Self { started_at, key: key.parse().map_err(|_| NoPlace)? })
    }
}

/// Some calls of a list.
#[derive(Debug)]
pub struct Page {
    /// As they are stored, in order; test calls are among them.
    pub calls: Vec<Call>,
    /// Where the next page goes on; `None` after the last one.
    pub next: Option<Place>,
}

impl Order {
    fn compare(self, one: &Place, two: &Place) -> Ordering {
        match self {
            Self::NewestFirst => two.cmp(one),
            Self::OldestFirst => one.cmp(two),
        }
    }
}

fn last(places: &[Place]) -> Option<Instant> {
    places.last().map(|place| place.started_at)
}

/// What a page is made of.
struct Wanted<'a> {
    window: Window,
    order: Order,
    after: Option<&'a Place>,
    most: usize,
}

impl Wanted<'_> {
    /// The part of the window that is still to be read.
    fn rest(&self) -> Window {
        let mut rest = self.window;
        match (self.order, self.after) {
            (Order::NewestFirst, Some(after)) => rest.until = rest.until.min(after.started_at.plus_millis(1)),
            (Order::OldestFirst, Some(after)) => rest.since = rest.since.max(after.started_at),
            (_, None) => {}
        }
        rest
    }

    fn has(&self, place: &Place) -> bool {
        let is_after = |after: &&Place| self.order.compare(place, after) == Ordering::Greater;
        (self.window.since..self.window.until).contains(&place.started_at) && self.after.as_ref().is_none_or(is_after)
    }

    /// The days of the rest, in order.
    fn days(&self) -> impl Iterator<Item = String> {
        let Window { since, until } = self.rest();
        let day = |at: Instant| at.unix_seconds() / SECONDS_A_DAY;
        let (first, last) = (day(since), day(until));
        let days = if since < until { last - first + 1 } else { 0 };
        let order = self.order;
        (0..days).filter_map(move |nth| {
            let day = if order == Order::NewestFirst { last - nth } else { first + nth };
            Instant::from_unix_seconds(day * SECONDS_A_DAY).map(Instant::day)
        })
    }
}

impl Store {
    /// The calls of a window, `most` of them, after that place.
    ///
    /// The index is a moment behind the table: a call that came just now may be missing. Going back, a gap of
    /// 400 days ends the list.
    pub async fn list(
        &self,
        window: &Window,
        order: Order,
        after: Option<&Place>,
        most: usize,
    ) -> Result<Page, StoreError> {
        let wanted = Wanted { window: *window, order, after, most };
        let (mut days, mut at_once, mut empty) = (wanted.days(), 1, 0);
        let mut places: Vec<Place> = Vec::new();
        while places.len() <= most && (order == Order::OldestFirst || empty < LONGEST_GAP_DAYS) {
            let some: Vec<String> = days.by_ref().take(at_once).collect();
            if some.is_empty() {
                break;
            }
            at_once = (at_once * 2).min(MOST_DAYS);
            // Collected, and so the future is one that may move between threads: the compiler cannot tell otherwise.
            let keys: Vec<String> =
                some.iter().flat_map(|day| (0..DAY_SHARDS).map(move |shard| format!("{day}#{shard}"))).collect();
            let queries = keys.into_iter().map(|key| self.places(BY_DAY, "day", key, &wanted));
            let found: Vec<Vec<Place>> = stream::iter(queries).buffered(PARALLEL_QUERIES).try_collect().await?;
            let mut found: Vec<Place> = found.into_iter().flatten().collect();
            found.sort_by(|one, two| order.compare(one, two));
            empty = if found.is_empty() { empty + some.len() } else { 0 };
            places.append(&mut found);
        }
        self.page(places, most).await
    }

    /// The calls of one contact in a window: see [`Self::list`]. The number is as it is kept, in E.164.
    pub async fn list_of(
        &self,
        contact: &str,
        window: &Window,
        order: Order,
        after: Option<&Place>,
        most: usize,
    ) -> Result<Page, StoreError> {
        let wanted = Wanted { window: *window, order, after, most };
        let places = self.places(BY_CONTACT, "contact", contact.to_owned(), &wanted).await?;
        self.page(places, most).await
    }

    /// The places below one key of an index, in order: one more than a page has, if there are so many.
    async fn places(
        &self,
        index: &str,
        attribute: &str,
        key: String,
        wanted: &Wanted<'_>,
    ) -> Result<Vec<Place>, StoreError> {
        let Window { since, until } = wanted.rest();
        if since >= until {
            return Ok(Vec::new());
        }
        // What began at the very instant of the place may have been listed already, and costs room.
        let limit = wanted.most.saturating_add(2).min(1000);
        let query = self
            .clients
            .dynamodb
            .query()
            .table_name(&self.tables.sessions)
            .index_name(index)
            .key_condition_expression("#key = :key AND started_at BETWEEN :since AND :until")
            .expression_attribute_names("#key", attribute)
            .expression_attribute_values(":key", s(key))
            .expression_attribute_values(":since", s(since.to_string()))
            .expression_attribute_values(":until", s(until.to_string()))
            .scan_index_forward(wanted.order == Order::OldestFirst)
            .limit(i32::try_from(limit).unwrap_or(i32::MAX));
        let mut pages = query.into_paginator().send();
        let mut places: Vec<Place> = Vec::new();
        // Calls that began at one instant come in no order: all of them, or a page could end before the first of them.
        let cut = |places: &[Place]| places.get(wanted.most).is_some_and(|cut| Some(cut.started_at) != last(places));
        while !cut(&places) {
            let Some(page) = pages.next().await else { break };
            let page = page.map_err(|error| StoreError::from_sdk(WHAT, &error))?;
            let place = |item: &Item| {
                let started_at = Instant::parse(text(item, "started_at")?)?;
                Some(Place { started_at, key: text(item, "session")?.parse().ok()? })
            };
            let found = page.items().iter().filter_map(place);
            places.extend(found.filter(|place| wanted.has(place)));
        }
        places.sort_by(|one, two| wanted.order.compare(one, two));
        Ok(places)
    }

    /// Reads the calls of the first places.
    async fn page(&self, mut places: Vec<Place>, most: usize) -> Result<Page, StoreError> {
        let more = places.len() > most;
        places.truncate(most);
        let keys: Vec<SessionKey> = places.iter().map(|place| place.key.clone()).collect();
        let calls = self.calls(&keys, WHAT).await?;
        Ok(Page { calls, next: if more { places.pop() } else { None } })
    }
}
