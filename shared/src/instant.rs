//! Instants as the bundle compares and stores them: UTC, six decimals, so that their text sorts as time does
//! (`57Z` becomes `57.000000Z`, which is less than `57.900000Z`).

use std::fmt;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A moment in UTC with microseconds, between 1970 and 9999.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Timestamp);

/// Where the present comes from. Read at the edge and passed in, so that tests can hold it still.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

impl Instant {
    /// The system's clock. Only `main` functions and the local run call this.
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now() -> Self {
        Self(Timestamp::now()).normalised()
    }

    /// Reads ISO 8601 with any number of decimals up to nine and any offset; a text without an offset is UTC.
    /// `None` for anything else, and for instants outside 1970–9999, whose text would not sort.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let at = text.parse::<Timestamp>().ok().or_else(|| {
            let civil = text.parse::<jiff::civil::DateTime>().ok()?;
            civil.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        })?;
        // Not the seconds: they are zero in the last one of 1969.
        (at >= Timestamp::UNIX_EPOCH).then(|| Self(at).normalised())
    }

    /// Seconds since 1970, or `None` outside 1970–9999.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        Timestamp::from_second(seconds).ok().filter(|_| seconds >= 0).map(Self)
    }

    /// Whole seconds since 1970.
    pub fn unix_seconds(self) -> i64 {
        self.0.as_second()
    }

    /// Microseconds since 1970.
    pub fn unix_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Milliseconds from `earlier` to `self`; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.as_millisecond() - earlier.0.as_millisecond()
    }

    /// `self` moved by `millis`, staying inside the range.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        let moved = self.0.checked_add(jiff::SignedDuration::from_millis(millis)).ok();
        moved.filter(|at| *at >= Timestamp::UNIX_EPOCH).map_or(self, Self)
    }

    /// `self` moved by `seconds`, staying inside the range.
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        self.plus_millis(seconds.saturating_mul(1000))
    }

    /// The same moment by the clocks of a time zone.
    pub fn by_clock(self, zone: TimeZone) -> Zoned {
        self.0.to_zoned(zone)
    }

    /// `2026-03-15`.
    pub fn day(self) -> String {
        let mut text = self.to_string();
        text.truncate(10);
        text
    }

    fn normalised(self) -> Self {
        // Not by the count of microseconds: in the last second there is, that is out of range.
        let nanos = self.0.subsec_nanosecond();
        Timestamp::new(self.0.as_second(), nanos - nanos % 1000).map_or(self, Self)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.0)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an instant"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Instant {
        Instant::parse(text).unwrap_or_else(|| panic!("{text} is an instant"))
    }

    #[test]
    fn fewer_decimals_do_not_sort_after_more() {
        assert!(at("2025-07-16T11:40:57Z") < at("2025-07-16T11:40:57.9Z"));
        assert!(at("2025-07-16T11:40:57Z").to_string() < at("2025-07-16T11:40:57.9Z").to_string());
        assert_eq!(at("2025-07-16T11:40:57Z"), at("2025-07-16T11:40:57.000000Z"));
        assert_eq!(at("2025-07-16T11:40:57.1234567Z").to_string(), "2025-07-16T11:40:57.123456Z");
    }

    #[test]
    fn offsets_are_normalised_and_a_missing_one_is_utc() {
        assert_eq!(at("2025-07-16T17:10:57+05:30"), at("2025-07-16T11:40:57Z"));
        assert_eq!(at("2025-07-16T11:40:57"), at("2025-07-16T11:40:57Z"));
        assert_eq!(at("2025-07-16 11:40:57").day(), "2025-07-16");
    }

    #[test]
    fn what_is_no_instant_or_would_not_sort_is_none() {
        for text in
            ["", "soon", "1752666057", "1969-12-31T23:59:59.5Z", "-009999-01-01T00:00:00Z", "2025-13-01T00:00:00Z"]
        {
            assert_eq!(Instant::parse(text), None, "{text}");
        }
        assert_eq!(Instant::from_unix_seconds(-1), None);
        assert_eq!(Instant::from_unix_seconds(i64::MAX), None);
    }

    #[test]
    fn an_instant_is_counted_and_moved_inside_its_range() {
        let epoch = at("1970-01-01T00:00:00Z");
        let moment = at("2025-07-16T11:40:57.123456Z");
        assert_eq!((moment.unix_seconds(), moment.unix_micros()), (1_752_666_057, 1_752_666_057_123_456));
        assert_eq!(Instant::from_unix_seconds(1_752_666_057), Some(at("2025-07-16T11:40:57Z")));
        assert_eq!(Instant::from_unix_seconds(0), Some(epoch));
        assert_eq!(moment.millis_since(at("2025-07-16T11:40:55Z")), 2_123);
        assert_eq!(at("2025-07-16T11:40:55Z").millis_since(at("2025-07-16T11:40:57Z")), -2_000);
        assert_eq!(moment.plus_millis(-1_123), at("2025-07-16T11:40:56.000456Z"));
        assert_eq!(moment.plus_seconds(86_400), at("2025-07-17T11:40:57.123456Z"));
        // What would leave the range stays.
        assert_eq!(epoch.plus_millis(-1), epoch);
        assert_eq!(at("1970-01-01T00:00:00.5Z").plus_millis(-1_000), at("1970-01-01T00:00:00.5Z"));
        assert_eq!(moment.plus_seconds(i64::MAX), moment);
        assert_eq!(moment.plus_seconds(-1_752_666_057).plus_millis(-123), at("1970-01-01T00:00:00.000456Z"));
    }

    #[test]
    fn what_is_beyond_six_decimals_is_dropped_in_the_last_second_too() {
        let last = at("9999-12-30T22:00:00.9999999Z");
        assert_eq!(last, at("9999-12-30T22:00:00.999999Z"));
        assert_eq!(at(&last.to_string()), last);
    }

    #[test]
    fn an_instant_is_written_one_way() {
        let moment = at("2025-07-16T11:40:57Z");
        assert_eq!(format!("{moment:?}"), "2025-07-16T11:40:57.000000Z");
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, r#""2025-07-16T11:40:57.000000Z""#);
        assert_eq!(serde_json::from_str::<Instant>(&json).unwrap(), moment);
        assert!(serde_json::from_str::<Instant>(r#""soon""#).is_err());
    }
}
