//! Profiles that an instance has read: good for half a minute, and kept for as long as they cannot be read again.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use crate::instant::Instant;
use crate::storage::ProfileItem;

/// How long a profile is answered from before it is read again. By the wall clock: a monotonic one stands still while
/// Lambda freezes an instance.
pub const FRESH_MILLIS: i64 = 30_000;
/// How long after a failure nothing is read: each call would wait for it.
const PAUSE_MILLIS: i64 = 5_000;
/// Names come with calls, so there may be any number of them.
const MOST: NonZeroUsize = NonZeroUsize::new(128).unwrap();

/// By name what was last read, which may be that there is none.
pub struct Cache(Mutex<LruCache<String, Known>>);

#[derive(Clone)]
struct Known {
    item: Option<Arc<ProfileItem>>,
    fresh_until: Instant,
}

impl Default for Cache {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MOST)))
    }
}

impl Cache {
    /// Those of the names that have to be read, and whether an older copy of all of them is known.
    pub fn missing(&self, names: &[String], now: Instant) -> (Vec<String>, bool) {
        let known: Vec<Option<Known>> = names.iter().map(|name| self.known(name)).collect();
        let fresh = |known: &Known| {
            let left = known.fresh_until.millis_since(now);
            (1..=FRESH_MILLIS).contains(&left)
        };
        let missing = names.iter().zip(&known).filter(|(_, known)| !known.as_ref().is_some_and(fresh));
        let (names, known): (Vec<&String>, Vec<&Option<Known>>) = missing.unzip();
        (names.into_iter().cloned().collect(), known.iter().all(|known| known.is_some()))
    }

    /// What was read: the items that exist of these names.
    pub fn read(&self, names: &[String], items: Vec<ProfileItem>, now: Instant) {
        let mut items: Vec<Arc<ProfileItem>> = items.into_iter().map(Arc::new).collect();
        let fresh_until = now.plus_millis(FRESH_MILLIS);
        for name in names {
            let found = items.iter().position(|item| item.name == *name);
            self.put(name, Known { item: found.map(|at| items.swap_remove(at)), fresh_until });
        }
    }

    /// That these names could not be read now: what is known of them has to do for a while.
    pub fn failed(&self, names: &[String], now: Instant) {
        for name in names {
            if let Some(known) = self.known(name) {
                self.put(name, Known { fresh_until: now.plus_millis(PAUSE_MILLIS), ..known });
            }
        }
    }

    /// The profiles of these names, in their order, as they were last read.
    pub fn get(&self, names: &[String]) -> Vec<Arc<ProfileItem>> {
        names.iter().filter_map(|name| self.known(name)?.item).collect()
    }

    fn known(&self, name: &str) -> Option<Known> {
        self.0.lock().ok()?.get(name).cloned()
    }

    fn put(&self, name: &str, known: Known) {
        if let Ok(mut cache) = self.0.lock() {
            cache.put(name.to_owned(), known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn item(name: &str) -> ProfileItem {
        ProfileItem { name: name.to_owned(), members: Vec::new() }
    }

    fn found(cache: &Cache, wanted: &[String]) -> Vec<String> {
        cache.get(wanted).iter().map(|item| item.name.clone()).collect()
    }

    #[test]
    fn a_profile_is_read_again_after_half_a_minute_and_so_is_one_that_is_not_there() {
        let (cache, now) = (Cache::default(), Instant::parse("2026-03-15T14:30:00Z").unwrap());
        let wanted = names(&["bot#b1", "default"]);
        assert_eq!(cache.missing(&wanted, now), (wanted.clone(), false));
        cache.read(&wanted, vec![item("default")], now);
        assert_eq!(found(&cache, &wanted), ["default"]);
        let (fresh, old) = (now.plus_millis(FRESH_MILLIS - 1), now.plus_millis(FRESH_MILLIS));
        assert_eq!(cache.missing(&wanted, fresh), (vec![], true));
        assert_eq!(cache.missing(&wanted, old), (wanted.clone(), true));
        // A clock that was set back makes nothing last.
        assert_eq!(cache.missing(&wanted, now.plus_seconds(-3600)), (wanted.clone(), true));
        // A new name has to be read, and nothing is known of it.
        let other = names(&["bot#b2", "default"]);
        assert_eq!(cache.missing(&other, fresh), (names(&["bot#b2"]), false));
    }

    #[test]
    fn the_last_good_one_is_kept_while_reads_fail_which_are_not_made_at_every_call() {
        let (cache, now) = (Cache::default(), Instant::parse("2026-03-15T14:30:00Z").unwrap());
        let wanted = names(&["default"]);
        cache.read(&wanted, vec![item("default")], now);
        let later = now.plus_seconds(3600);
        assert_eq!(cache.missing(&wanted, later), (wanted.clone(), true));
        cache.failed(&wanted, later);
        assert_eq!(found(&cache, &wanted), ["default"]);
        assert_eq!(cache.missing(&wanted, later.plus_millis(PAUSE_MILLIS - 1)).0, Vec::<String>::new());
        assert_eq!(cache.missing(&wanted, later.plus_millis(PAUSE_MILLIS)).0, wanted);
        // And one that was deleted is gone once that can be read.
        cache.read(&wanted, vec![], later);
        assert!(found(&cache, &wanted).is_empty());
    }
}
