//! Checks a profile as its author writes it, before any call meets it: what, where, and why.

use std::collections::BTreeMap;
use std::fmt;

use jiff::tz::TimeZone;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant};

use super::answer::is_usable;
use super::template::{self, Fault};
use super::{Known, OVERRIDABLE, Received};
use crate::Country;
use crate::auth::Verified;
use crate::call::{Call, Delivery, Field, Said, Source, State};
use crate::session::{Provider, SessionKey, Webhook};
use crate::storage::History;

/// What a profile can say.
pub const MEMBERS: [&str; 7] = [
    "greeting",
    "session_constants",
    "conversation_assistant_id",
    "webhooks",
    "transfer_message",
    "memory",
    "timezone",
];
const WEBHOOK_MEMBERS: [&str; 3] = ["url", "trigger_type", "trigger_interval_sec"];

/// What fits an item of 400 KB with room for names and numbers.
pub const MAX_DOCUMENT: usize = 256 * 1024;
/// What one text may take to be rendered here, where nobody waits.
const TIME: Duration = Duration::from_secs(2);

/// A request to try profiles with: the platform's documented example, filled in. A caller with earlier calls.
pub const EXAMPLE_REQUEST: &str = r#"{
  "session_id": "example-session",
  "conversation_id": "example-conversation",
  "start_time": "2026-03-15T14:30:00.000Z",
  "end_time": null,
  "landing_number": "+918047000000",
  "external_id": "CA0123456789abcdef0123456789abcdef",
  "session_state": "session_start",
  "trigger_reason": "start",
  "contact_uri": "+919876543210",
  "network_type": "pstn",
  "account_id": "example-account",
  "bot_id": "example-bot",
  "bot_name": "Example bot",
  "metadata": { "call_sid": "CA0123456789abcdef0123456789abcdef", "stream_sid": "" },
  "custom_parameters": { "name": "Asha", "plan": "gold" },
  "events": []
}"#;

/// What is wrong with a profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Of the document, from 1.
    pub line: usize,
    /// Which member, such as `session_constants.tier`; empty where it is the document.
    pub member: String,
    /// Why it cannot be used.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, member, reason } = self;
        let of = if member.is_empty() { String::new() } else { format!("{member}: ") };
        write!(f, "line {line}: {of}{reason}")
    }
}

/// Everything that is wrong with a document: its JSON, its members, and its templates, which are tried with
/// [`EXAMPLE_REQUEST`] for a caller with an earlier call, and for one without.
pub fn check(document: &str) -> Vec<Problem> {
    let mut checker = Checker { document, problems: Vec::new(), timezone: TimeZone::UTC };
    if document.len() > MAX_DOCUMENT {
        checker.note(document, "", format!("a profile has at most {MAX_DOCUMENT} bytes"));
        return checker.problems;
    }
    match serde_json::from_str::<BTreeMap<String, &RawValue>>(document) {
        Ok(members) => checker.members(&members),
        Err(error) if error.is_data() => {
            checker.problems.push(Problem {
                line: error.line().max(1),
                member: String::new(),
                reason: "a profile is an object: { \"greeting\": \"…\" }".to_owned(),
            });
        }
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            let reason = format!("no JSON: {reason} (column {})", error.column());
            checker.problems.push(Problem { line: error.line(), member: String::new(), reason });
        }
    }
    checker.problems.sort_by_key(|problem| problem.line);
    checker.problems
}

struct Checker<'a> {
    document: &'a str,
    problems: Vec<Problem>,
    timezone: TimeZone,
}

impl<'a> Checker<'a> {
    /// `at` is a part of the document.
    fn note(&mut self, at: &str, member: &str, reason: impl Into<String>) {
        let offset = (at.as_ptr() as usize).saturating_sub(self.document.as_ptr() as usize);
        let before = self.document.get(..offset).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        self.problems.push(Problem { line, member: member.to_owned(), reason: reason.into() });
    }

    fn members(&mut self, members: &BTreeMap<String, &'a RawValue>) {
        // First, since texts speak by its clock.
        if let Some(zone) = members.get("timezone") {
            match serde_json::from_str::<String>(zone.get()).ok().and_then(|name| TimeZone::get(&name).ok()) {
                Some(zone) => self.timezone = zone,
                None => self.note(zone.get(), "timezone", "there is no such time zone: one is \"Asia/Kolkata\""),
            }
        }
        for (name, value) in members {
            match name.as_str() {
                "timezone" => {}
                "greeting" | "transfer_message" | "conversation_assistant_id" => match read::<String>(value) {
                    Some(text) => drop(self.text(value.get(), name, &text)),
                    None => self.note(value.get(), name, "it is a text"),
                },
                "session_constants" if value.get().starts_with('{') => self.constants(value, name),
                "session_constants" => self.note(value.get(), name, "it is an object"),
                "memory" if read::<bool>(value).is_some() => {}
                "memory" => self.note(value.get(), name, "it is true or false"),
                "webhooks" => match read::<BTreeMap<String, &RawValue>>(value) {
                    Some(webhooks) => webhooks.iter().for_each(|(webhook, target)| self.webhook(webhook, target)),
                    None => self.note(value.get(), name, "it is an object"),
                },
                _ => {
                    let known = MEMBERS.join(", ");
                    self.note(value.get(), name, format!("there is no such member: there are {known}"));
                }
            }
        }
    }

    fn constants(&mut self, value: &'a RawValue, path: &str) {
        if let Some(text) = read::<String>(value) {
            self.text(value.get(), path, &text);
        } else if let Some(members) = read::<BTreeMap<String, &RawValue>>(value) {
            for (name, value) in members {
                self.constants(value, &format!("{path}.{name}"));
            }
        } else if let Some(values) = read::<Vec<&RawValue>>(value) {
            for (nth, value) in values.into_iter().enumerate() {
                self.constants(value, &format!("{path}[{nth}]"));
            }
        }
    }

    fn webhook(&mut self, name: &str, target: &'a RawValue) {
        let path = format!("webhooks.{name}");
        let webhook = name.parse().ok().filter(|webhook: &Webhook| OVERRIDABLE.contains(webhook));
        let Some(webhook) = webhook else {
            let known = OVERRIDABLE.map(Webhook::name).join(", ");
            return self.note(target.get(), &path, format!("a session can send elsewhere only {known}"));
        };
        let Some(members) = read::<BTreeMap<String, &RawValue>>(target) else {
            return self.note(target.get(), &path, "it is an object, {} for this bundle's own URL");
        };
        for (member, value) in members {
            let path = format!("{path}.{member}");
            match member.as_str() {
                "url" => match read::<String>(value) {
                    Some(url) => self.url(value.get(), &path, &url),
                    None => self.note(value.get(), &path, "it is a text"),
                },
                "trigger_type" | "trigger_interval_sec" if webhook != Webhook::InsightsEvents => {
                    self.note(value.get(), &path, "only insights_events has it");
                }
                "trigger_type" if read::<String>(value).is_some() => {}
                "trigger_type" => self.note(value.get(), &path, "it is a text, such as \"timer\""),
                "trigger_interval_sec" if read::<u64>(value).is_some_and(|seconds| seconds > 0) => {}
                "trigger_interval_sec" => self.note(value.get(), &path, "it is a whole number of seconds"),
                _ => {
                    let known = WEBHOOK_MEMBERS.join(", ");
                    self.note(value.get(), &path, format!("there is no such member: there are {known}"));
                }
            }
        }
    }

    fn url(&mut self, at: &'a str, path: &str, url: &str) {
        let made = self.text(at, path, url);
        if made.is_some_and(|url| !url.is_empty() && !is_usable(&url)) {
            self.note(at, path, "it is no https:// URL (http:// only on this machine)");
        }
    }

    /// Tries a text; what it says to a caller who called before.
    fn text(&mut self, at: &'a str, path: &str, text: &str) -> Option<String> {
        let mut said = None;
        for history in [History::default(), example_history()] {
            match self.render(text, history) {
                Ok(made) => said = Some(made),
                Err(Fault { line, reason }) => {
                    let line = line.filter(|_| text.lines().count() > 1);
                    let line = line.map_or_else(String::new, |line| format!("line {line} of the text: "));
                    self.note(at, path, format!("{line}{reason}"));
                    return None;
                }
            }
        }
        said
    }

    fn render(&self, text: &str, history: History) -> Result<String, Fault> {
        let body = EXAMPLE_REQUEST.as_bytes();
        let read = Delivery::read(Webhook::SessionStart, &Verified::known(body), Source::Webhook, Country::default());
        let read = read.map_err(|error| Fault { line: None, reason: error.to_string() })?;
        // The example calls when it begins.
        let now = read.occurred_at.ok_or_else(|| Fault { line: None, reason: "it has no time".to_owned() })?;
        let received = Some(Received { delivery: &read, body });
        let known = Known { received, now, history: Some(history) };
        template::render(text, &known.variables(&self.timezone, true), Instant::now() + TIME)
    }
}

fn read<'a, T: serde::Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// Of a caller who called the day before and asked for a human.
pub fn example_history() -> History {
    let Ok(key) = SessionKey::new(Provider::Exotel, "example-earlier-session") else { return History::default() };
    let mut call = Call::new(key);
    call.state = State::Ended;
    call.started_at = crate::Instant::parse("2026-03-14T10:00:00Z");
    call.transfer_requested = true;
    call.say(Field::BotName, None, Some("Example bot".to_owned()));
    call.say(Field::EndedAt, None, Some("2026-03-14T10:04:30.000000Z".to_owned()));
    for (kind, value) in [
        ("summary", "Asked when the order arrives."),
        ("outcome", "unresolved"),
        ("sentiment", "neutral"),
        ("intent", "order_status"),
    ] {
        let value = serde_json::json!({ "value": value }).to_string();
        call.insights.insert(kind.to_owned(), Said { at: None, value });
    }
    History { calls: 3, more: false, recent: vec![call] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(document: &str) -> Vec<String> {
        check(document).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_profile_that_says_everything_has_no_problem() {
        let document = r#"{
            "greeting": "{% if history.last %}Welcome back{% else %}Namaste{% endif %}, {{ custom_parameters.name }}!",
            "session_constants": { "tier": "gold", "limit": 2.50, "last": "{{ history.last.summary }}", "list": ["{{ contact }}", null] },
            "conversation_assistant_id": "a1",
            "webhooks": { "session_end": {}, "pre_agent_transfer": {}, "transcript_events": { "url": "https://crm.example/t?c={{ contact|urlencode }}" },
                          "insights_events": { "trigger_type": "timer", "trigger_interval_sec": 30 } },
            "transfer_message": "Connecting you to a colleague.", "memory": true, "timezone": "Asia/Kolkata"
        }"#;
        assert_eq!(problems(document), Vec::<String>::new());
        assert_eq!(problems("{}"), Vec::<String>::new());
    }

    #[test]
    fn every_problem_is_told_with_its_line_and_its_reason() {
        let document = "{\n\"greeting\": \"{{ contact\",\n\"greting\": \"x\",\n\"transfer_message\": 7,\n\
            \"session_constants\": {\n\"a\": [\"x\",\n\"one\\n{{ nobody }}\"]},\n\"memory\": \"yes\",\n\
            \"timezone\": \"Mars/Olympus\",\n\"webhooks\": {\n\"session_start\": {},\n\
            \"session_end\": {\"url\": \"http://crm.example/\", \"trigger_type\": \"timer\"},\n\
            \"insights_events\": {\"trigger_interval_sec\": 0, \"every\": 1},\n\"transcript_events\": 1}}";
        let expected = [
            "line 2: greeting: syntax error: ",
            "line 3: greting: there is no such member: there are greeting, ",
            "line 4: transfer_message: it is a text",
            "line 7: session_constants.a[1]: line 2 of the text: there is no variable nobody",
            "line 8: memory: it is true or false",
            "line 9: timezone: there is no such time zone",
            "line 11: webhooks.session_start: a session can send elsewhere only session_end, ",
            "line 12: webhooks.session_end.trigger_type: only insights_events has it",
            "line 12: webhooks.session_end.url: it is no https:// URL",
            "line 13: webhooks.insights_events.every: there is no such member",
            "line 13: webhooks.insights_events.trigger_interval_sec: it is a whole number",
            "line 14: webhooks.transcript_events: it is an object",
        ];
        let told = problems(document);
        assert_eq!(told.len(), expected.len(), "{told:#?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.starts_with(expected), "{told}\n{expected}");
        }
    }

    #[test]
    fn what_is_no_json_or_no_object_is_told_where() {
        for (document, told) in [
            ("{\n\"greeting\": \"x\",\n}", "line 3: no JSON: trailing comma (column 1)"),
            ("", "line 1: no JSON: EOF while parsing a value (column 0)"),
            ("[]", "line 1: a profile is an object"),
            ("\"x\"", "line 1: a profile is an object"),
        ] {
            let said = problems(document);
            assert!(said.len() == 1 && said[0].starts_with(told), "{document}: {said:?}");
        }
        let long = format!("{{\"greeting\":\"{}\"}}", "x".repeat(MAX_DOCUMENT));
        assert!(problems(&long)[0].contains("at most 262144 bytes"));
    }

    #[test]
    fn a_text_that_can_be_said_to_one_caller_only_is_a_problem() {
        let document = r#"{"greeting": "{{ history.last.started_at|date('%d') ~ history.calls.x.y }}"}"#;
        assert_eq!(problems(document), Vec::<String>::new());
        let document = r#"{"greeting": "{{ history.last.session|date('%d') }}"}"#;
        assert_eq!(problems(document), ["line 1: greeting: invalid operation: date takes an instant"]);
    }
}
