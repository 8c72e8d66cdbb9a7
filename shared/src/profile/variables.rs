//! What templates can use: the request, the time by the profile's clock, and the caller's earlier calls.
//!
//! `docs/profiles.md` lists it for those who write profiles.

use jiff::tz::TimeZone;
use minijinja::Value;
use serde::Serialize;

use crate::call::{Call, Delivery, Field};
use crate::instant::Instant;
use crate::storage::History;

/// The longest request that templates see, in bytes: they may hand its parts on.
pub const MAX_REQUEST: usize = 32 * 1024;
/// The longest part of an earlier call that templates see, in characters.
const MAX_REMEMBERED: usize = 2_000;

/// A delivery that was read, and its body.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    /// What it says.
    pub delivery: &'a Delivery,
    /// As it came.
    pub body: &'a [u8],
}

/// What is known when a call is answered.
pub struct Known<'a> {
    /// The delivery and its body, if it could be read.
    pub received: Option<Received<'a>>,
    /// The present.
    pub now: Instant,
    /// The caller's earlier calls, if the profile asks for them and they came in time.
    pub history: Option<History>,
}

#[derive(Serialize)]
struct Variables<'a> {
    request: serde_json::Value,
    custom_parameters: serde_json::Value,
    contact: Option<&'a str>,
    now: Now,
    history: Remembered,
}

#[derive(Serialize)]
struct Now {
    iso: String,
    date: String,
    time: String,
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    weekday: String,
    timezone: String,
}

#[derive(Serialize, Default)]
struct Remembered {
    known: bool,
    calls: usize,
    more: bool,
    last: Option<Earlier>,
    recent: Vec<Earlier>,
    open_transfer: bool,
}

#[derive(Serialize, Clone)]
struct Earlier {
    session: String,
    started_at: Option<String>,
    ended_at: Option<String>,
    days_ago: Option<i64>,
    bot_name: Option<String>,
    summary: Option<String>,
    outcome: Option<String>,
    sentiment: Option<String>,
    intent: Option<String>,
    transfer_requested: bool,
}

impl Known<'_> {
    /// Everything under the names that templates use. `with_history: false` leaves out what is remembered.
    pub fn variables(&self, zone: &TimeZone, with_history: bool) -> Value {
        let request = self.received.filter(|received| received.body.len() <= MAX_REQUEST);
        let request = request.and_then(|received| serde_json::from_slice(received.body).ok()).unwrap_or_default();
        let custom_parameters = custom_parameters(&request);
        let history = self.history.as_ref().filter(|_| with_history);
        Value::from_serialize(Variables {
            custom_parameters,
            request,
            contact: self.received.and_then(|received| received.delivery.call.get(Field::Contact)),
            now: now(self.now, zone),
            history: history.map(|history| remembered(history, self.now, zone)).unwrap_or_default(),
        })
    }

    /// Whether the request is longer than templates see.
    pub fn request_is_too_long(&self) -> bool {
        self.received.is_some_and(|received| received.body.len() > MAX_REQUEST)
    }
}

/// The platform sends an object, nothing, or an object as a text.
fn custom_parameters(request: &serde_json::Value) -> serde_json::Value {
    match &request["custom_parameters"] {
        serde_json::Value::String(text) => serde_json::from_str(text).ok(),
        other => Some(other.clone()),
    }
    .filter(serde_json::Value::is_object)
    .unwrap_or_else(|| serde_json::json!({}))
}

fn now(now: Instant, zone: &TimeZone) -> Now {
    let by_clock = now.by_clock(zone.clone());
    Now {
        iso: clock(now, zone),
        date: by_clock.strftime("%Y-%m-%d").to_string(),
        time: by_clock.strftime("%H:%M").to_string(),
        year: by_clock.year(),
        month: by_clock.month(),
        day: by_clock.day(),
        hour: by_clock.hour(),
        minute: by_clock.minute(),
        weekday: by_clock.strftime("%A").to_string(),
        timezone: zone.iana_name().unwrap_or("UTC").to_owned(),
    }
}

/// `2026-03-15T20:00:00`, by the zone's clock.
fn clock(at: Instant, zone: &TimeZone) -> String {
    at.by_clock(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

fn remembered(history: &History, now: Instant, zone: &TimeZone) -> Remembered {
    let recent: Vec<Earlier> = history.recent.iter().map(|call| earlier(call, now, zone)).collect();
    Remembered {
        known: true,
        calls: history.calls,
        more: history.more,
        last: recent.first().cloned(),
        open_transfer: recent.first().is_some_and(|last| last.transfer_requested),
        recent,
    }
}

fn earlier(call: &Call, now: Instant, zone: &TimeZone) -> Earlier {
    const MILLIS_A_DAY: i64 = 24 * 60 * 60 * 1000;
    let short = |text: &str| text.chars().take(MAX_REMEMBERED).collect::<String>();
    let insight = |kind: &str| insight(call, kind).map(|value| short(&value));
    let ended_at = call.get(Field::EndedAt).and_then(Instant::parse);
    Earlier {
        session: call.key.as_str().to_owned(),
        started_at: call.started_at.map(|at| clock(at, zone)),
        ended_at: ended_at.map(|at| clock(at, zone)),
        days_ago: call.started_at.map(|at| (now.millis_since(at) / MILLIS_A_DAY).max(0)),
        bot_name: call.get(Field::BotName).map(short),
        summary: insight("summary"),
        outcome: insight("outcome").or_else(|| call.get(Field::Disposition).map(short)),
        sentiment: insight("sentiment"),
        intent: insight("intent"),
        transfer_requested: call.transfer_requested,
    }
}

/// The value of an insight: a text as it is, anything else as JSON.
fn insight(call: &Call, kind: &str) -> Option<String> {
    let said = call.insights.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind))?.1;
    let data: serde_json::Value = serde_json::from_str(&said.value).ok()?;
    match &data["value"] {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Verified;
    use crate::call::{Said, Source, State};
    use crate::profile::template::render;
    use crate::{Country, Provider, SessionKey, Webhook};

    fn at(text: &str) -> Instant {
        Instant::parse(text).unwrap()
    }

    fn rendered(body: &str, history: Option<History>, zone: &str, text: &str) -> String {
        let delivery =
            Delivery::read(Webhook::SessionStart, &Verified::known(body.as_bytes()), Source::Webhook, Country::INDIA);
        let delivery = delivery.unwrap();
        let received = Some(Received { delivery: &delivery, body: body.as_bytes() });
        let known = Known { received, now: at("2026-03-15T19:00:00Z"), history };
        let variables = known.variables(&TimeZone::get(zone).unwrap(), true);
        let until = tokio::time::Instant::now() + tokio::time::Duration::from_secs(5);
        render(text, &variables, until).unwrap_or_else(|fault| panic!("{}", fault.reason))
    }

    fn earlier_call(id: &str, started_at: &str) -> Call {
        let mut call = Call::new(SessionKey::new(Provider::Exotel, id).unwrap());
        call.started_at = Some(at(started_at));
        call.state = State::Ended;
        call.transfer_requested = true;
        let data = r#"{"value":"asked about her order","score":90}"#.to_owned();
        call.insights.insert("summary".to_owned(), Said { at: None, value: data });
        call.insights.insert("Sentiment".to_owned(), Said { at: None, value: r#"{"value":0.7}"#.to_owned() });
        call
    }

    #[test]
    fn everything_in_the_request_can_be_said_and_custom_parameters_in_every_form() {
        for (parameters, said) in [
            (r#"{"name":"Ravi","visits":3,"vip":true,"none":null,"list":[1,2]}"#, "Ravi 3 true  2"),
            (r#""{\"name\":\"Ravi\",\"visits\":\"3\"}""#, "Ravi 3   0"),
            ("{}", "    0"),
            ("null", "    0"),
            ("\"\"", "    0"),
            ("\"no json\"", "    0"),
            ("[1]", "    0"),
            ("7", "    0"),
        ] {
            let body = format!(r#"{{"session_id":"s1","custom_parameters":{parameters},"own":{{"x":["y"]}}}}"#);
            let text = "{{ custom_parameters.name }} {{ custom_parameters.visits }} {{ custom_parameters.vip }} \
                        {{ custom_parameters.none }} {{ custom_parameters.list|default([])|length }}";
            assert_eq!(rendered(&body, None, "UTC", text), said, "{parameters}");
            assert_eq!(rendered(&body, None, "UTC", "{{ request.own.x[0] }}{{ request.session_id }}"), "ys1");
        }
    }

    #[test]
    fn the_time_is_that_of_the_profiles_zone() {
        let body = r#"{"session_id":"s1"}"#;
        let text = "{{ now.weekday }} {{ now.date }} {{ now.time }} {{ now.hour }} {{ now.timezone }} \
                    {{ now.iso|date('%e %B') }}";
        assert_eq!(rendered(body, None, "Asia/Kolkata", text), "Monday 2026-03-16 00:30 0 Asia/Kolkata 16 March");
        assert_eq!(rendered(body, None, "UTC", text), "Sunday 2026-03-15 19:00 19 UTC 15 March");
    }

    #[test]
    fn a_caller_is_known_by_the_latest_call_and_the_number_of_calls() {
        let text = "{% if history.last %}{{ history.calls }}{% if history.more %}+{% endif %} \
                    {{ history.last.started_at }} {{ history.last.days_ago }} {{ history.last.summary }} \
                    {{ history.last.sentiment }} {{ history.last.outcome }}{{ history.open_transfer }} \
                    {{ history.recent|length }}{% else %}{{ history.known }}{% endif %}";
        let body = r#"{"session_id":"s1"}"#;
        assert_eq!(rendered(body, None, "UTC", text), "false");
        assert_eq!(rendered(body, Some(History::default()), "UTC", text), "true");
        let recent = vec![earlier_call("s8", "2026-03-13T18:00:00Z"), earlier_call("s7", "2026-03-01T18:00:00Z")];
        let history = History { calls: 100, more: true, recent };
        assert_eq!(
            rendered(body, Some(history), "Asia/Kolkata", text),
            "100+ 2026-03-13T23:30:00 2 asked about her order 0.7 true 2"
        );
    }

    #[test]
    fn a_request_that_is_too_long_is_not_seen() {
        let body = format!(r#"{{"session_id":"s1","own":"{}"}}"#, "x".repeat(MAX_REQUEST));
        assert_eq!(rendered(&body, None, "UTC", "[{{ request.own }}]{{ contact }}"), "[]");
    }
}
