//! What a human who takes over a call should know: one JSON document, built from what is stored of the call.
//!
//! It is the same whenever it is built from the same state, and bounded: 4 KB beside the session's key, since every
//! later write of the call pays for it. What does not fit is cut, with `…` where it is text.
//!
//! | member | what it says |
//! |---|---|
//! | `version` | 1. A member may come to be added; one that changes its meaning changes this. |
//! | `session` | where the whole call is: its key in every table |
//! | `contact`, `landing_number` | the human's number and the bot's |
//! | `bot`, `bot_name` | who hands over |
//! | `started_at`, `requested_at` | when the call began, and when the request for a human was received: UTC |
//! | `seconds` | how long the call had lasted then |
//! | `reason` | why, in the platform's word: the trigger of the delivery |
//! | `summary` | the latest summary, its value |
//! | `insights` | the latest of each other type: `value`, `score`, `confidence`, `reason`, `at` |
//! | `custom_parameters` | what the call was started with |
//! | `turns` | what was said last, in order: `speaker`, `text`, `at` |
//! | `cut` | the names of the members of which something is left out |
//!
//! Only `version` and `session` are always there; what is not known is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::call::{Call, Delivery, Field, Segment};
use crate::instant::Instant;
use crate::json::Json;

/// The whole document beside the session's key, in bytes.
pub const MAX_BYTES: usize = 4096;
/// Who looks at more turns has the time to look at the call.
pub const MAX_TURNS: usize = 20;

/// A number, an id or a name.
const NAME_BYTES: usize = 128;
const SUMMARY_BYTES: usize = 600;
/// The value and the reason of an insight, each.
const INSIGHT_BYTES: usize = 200;
/// All insights together, and all custom parameters: what is left by them is the turns'.
const INSIGHTS_BYTES: usize = 1_000;
const PARAMETERS_BYTES: usize = 600;
const TURN_BYTES: usize = 300;
/// What stands for the rest of a text.
const MARK: char = '…';

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    session: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    contact: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    landing_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bot_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_at: Option<Instant>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    insights: BTreeMap<&'a str, Insight>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_parameters: Option<Json>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    turns: Vec<Turn<'a>>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    cut: BTreeSet<&'static str>,
}

#[derive(Serialize)]
struct Insight {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confidence: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Instant>,
}

#[derive(Serialize)]
struct Turn<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a Instant>,
}

/// Builds the brief of a call as it is known at `at`, for the delivery that asked for a human, if one did. `turns` are
/// in the order in which they were spoken.
pub fn brief(call: &Call, request: Option<&Delivery>, at: Instant, turns: &[Segment]) -> Json {
    let mut cut = Cut::default();
    // Several bots may have spoken in the call: the one that asks is the delivery's.
    let (bot, bot_name) = match request {
        Some(request) => (request.bot.as_deref(), request.call.get(Field::BotName)),
        None => (call.bots.first().filter(|_| call.bots.len() == 1).map(String::as_str), call.get(Field::BotName)),
    };
    let over_at = call.get(Field::EndedAt).and_then(Instant::parse).filter(|_| request.is_none()).unwrap_or(at);
    let parameters = call.get(Field::CustomParameters).and_then(|text| Json::parse(text).ok());
    let mut document = Document {
        version: 1,
        session: call.key.as_str(),
        contact: cut.text("contact", call.get(Field::Contact), NAME_BYTES),
        landing_number: cut.text("landing_number", call.get(Field::LandingNumber), NAME_BYTES),
        bot: cut.text("bot", bot, NAME_BYTES),
        bot_name: cut.text("bot_name", bot_name, NAME_BYTES),
        started_at: call.started_at,
        requested_at: request.map(|_| at),
        seconds: call.started_at.map(|started_at| over_at.millis_since(started_at).max(0) / 1000),
        reason: cut.text("reason", request.and_then(|request| request.trigger_reason.as_deref()), NAME_BYTES),
        summary: summary(call, &mut cut),
        insights: insights(call, &mut cut),
        custom_parameters: parameters.and_then(|parameters| fitting(parameters, &mut cut)),
        turns: Vec::new(),
        cut: BTreeSet::new(),
    };
    // With every name that may come to be among what is cut.
    let room = MAX_BYTES.saturating_sub(length(&document) - length(&document.session) + length(&cut.members) + 40);
    document.turns = last(turns, room, &mut cut);
    document.cut = cut.members;
    Json::of(&document)
}

/// The summary is an insight like others, but the first thing to read.
fn summary(call: &Call, cut: &mut Cut) -> Option<String> {
    let data = members(&call.insights.get("summary")?.value);
    let value = data.get("value").filter(|value| !value.is_empty())?;
    let text = serde_json::from_str(value.as_str()).unwrap_or_else(|_| value.as_str().to_owned());
    cut.text("summary", Some(&text), SUMMARY_BYTES)
}

/// The types that the platform documents come first where not all have room.
fn insights<'a>(call: &'a Call, cut: &mut Cut) -> BTreeMap<&'a str, Insight> {
    const FIRST: [&str; 4] = ["intent", "entity", "outcome", "sentiment"];
    let is_first = |kind: &str| FIRST.contains(&kind);
    let first = FIRST.iter().filter_map(|kind| call.insights.get_key_value(*kind));
    let others = call.insights.iter().filter(|(kind, _)| !is_first(kind) && *kind != "summary");
    let (mut insights, mut filled) = (BTreeMap::new(), 0);
    for (kind, said) in first.chain(others) {
        let mut data = members(&said.value);
        let mut member = |name: &str| {
            let value = data.remove(name).filter(|value| !value.is_empty())?;
            Some(cut.value("insights", value, INSIGHT_BYTES))
        };
        let [value, score, confidence, reason] = ["value", "score", "confidence", "reason"].map(&mut member);
        let insight = Insight { value, score, confidence, reason, at: said.at };
        let length = length(kind) + length(&insight) + 2;
        if filled + length > INSIGHTS_BYTES {
            cut.members.insert("insights");
            continue;
        }
        filled += length;
        insights.insert(kind.as_str(), insight);
    }
    insights
}

/// The members of an insight's data. What is no object is its value.
fn members(data: &str) -> BTreeMap<String, Json> {
    serde_json::from_str(data).unwrap_or_else(|_| {
        let value = Json::parse(data).ok();
        value.into_iter().map(|value| ("value".to_owned(), value)).collect()
    })
}

/// Of custom parameters that are too long as many as have room.
fn fitting(parameters: Json, cut: &mut Cut) -> Option<Json> {
    if parameters.as_str().len() <= PARAMETERS_BYTES {
        return Some(parameters).filter(|parameters| !parameters.is_empty());
    }
    cut.members.insert("custom_parameters");
    let members: BTreeMap<String, Json> = serde_json::from_str(parameters.as_str()).ok()?;
    let (mut kept, mut filled) = (BTreeMap::new(), 2);
    for (name, value) in members {
        let length = length(&name) + value.as_str().len() + 2;
        if filled + length <= PARAMETERS_BYTES {
            filled += length;
            kept.insert(name, value);
        }
    }
    Some(Json::object(&kept)).filter(|kept| !kept.is_empty())
}

/// The last turns that have room together.
fn last<'a>(segments: &'a [Segment], room: usize, cut: &mut Cut) -> Vec<Turn<'a>> {
    let spoken = || segments.iter().rev().filter(|segment| segment.text.as_ref().is_some_and(|text| !text.is_empty()));
    let (mut turns, mut filled) = (Vec::new(), 0);
    for Segment { speaker, text, start, end, .. } in spoken().take(MAX_TURNS) {
        let mut cut_here = Cut::default();
        let turn = Turn {
            speaker: cut_here.text("turns", speaker.as_deref(), NAME_BYTES),
            text: cut_here.text("turns", text.as_deref(), TURN_BYTES),
            at: start.as_ref().or(end.as_ref()),
        };
        filled += length(&turn) + 1;
        if filled > room {
            break;
        }
        cut.members.extend(cut_here.members);
        turns.push(turn);
    }
    if turns.len() < spoken().count() {
        cut.members.insert("turns");
    }
    turns.reverse();
    turns
}

/// Makes texts fit, and notes whose did not.
#[derive(Default)]
struct Cut {
    members: BTreeSet<&'static str>,
}

impl Cut {
    fn text(&mut self, member: &'static str, text: Option<&str>, bytes: usize) -> Option<String> {
        let text = text.filter(|text| !text.is_empty())?;
        // As JSON, between its quotes.
        if length(text) - 2 <= bytes {
            return Some(text.to_owned());
        }
        self.members.insert(member);
        let mut room = bytes - MARK.len_utf8();
        let fits = |letter: &char| {
            let left = room.checked_sub(length(letter) - 2);
            room = left.unwrap_or_default();
            left.is_some()
        };
        Some(text.chars().take_while(fits).chain([MARK]).collect())
    }

    /// A text is cut as one; of anything else the JSON is.
    fn value(&mut self, member: &'static str, value: Json, bytes: usize) -> Json {
        let text: Option<String> = serde_json::from_str(value.as_str()).ok();
        if text.is_none() && value.as_str().len() <= bytes {
            return value;
        }
        let text = text.unwrap_or_else(|| value.into_string());
        Json::text(&self.text(member, Some(&text), bytes).unwrap_or_default())
    }
}

/// Bytes as JSON.
fn length<T: Serialize + ?Sized>(value: &T) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::Country;
    use crate::auth::Verified;
    use crate::call::{Said, Source};
    use crate::session::{Provider, SessionKey, Webhook};

    fn at(text: &str) -> Instant {
        Instant::parse(text).unwrap()
    }

    fn empty() -> Call {
        Call::new(SessionKey::new(Provider::Exotel, "s1").unwrap())
    }

    fn asked(body: &str) -> Delivery {
        let body = Verified::known(body.as_bytes());
        Delivery::read(Webhook::PreAgentTransfer, &body, Source::Webhook, Country::default()).unwrap()
    }

    fn document(call: &Call, request: Option<&Delivery>, turns: &[Segment]) -> Value {
        serde_json::from_str(brief(call, request, at("2025-07-16T11:42:00Z"), turns).as_str()).unwrap()
    }

    fn said(text: &str) -> Segment {
        Segment { text: Some(text.to_owned()), ..Segment::default() }
    }

    fn insight(data: &str) -> Said {
        Said { at: None, value: data.to_owned() }
    }

    #[test]
    fn of_a_call_of_which_nothing_is_known_little_is_said() {
        assert_eq!(document(&empty(), None, &[]), serde_json::json!({ "version": 1, "session": "exotel#s1" }));
        let asked = asked(r#"{"session_id":"s1"}"#);
        let expected = serde_json::json!({ "version": 1, "session": "exotel#s1",
            "requested_at": "2025-07-16T11:42:00.000000Z" });
        assert_eq!(document(&empty(), Some(&asked), &[]), expected);
    }

    #[test]
    fn the_bot_is_the_one_that_asks_or_the_only_one() {
        let mut call = empty();
        call.bots.insert("b1".to_owned());
        assert_eq!(document(&call, None, &[])["bot"], "b1");
        call.bots.insert("b2".to_owned());
        call.say(Field::BotName, None, Some("One".to_owned()));
        assert_eq!(document(&call, None, &[]).get("bot"), None);
        let asked = asked(r#"{"session_id":"s1","bot_id":"b2","bot_name":"Two","trigger_reason":"timer"}"#);
        let brief = document(&call, Some(&asked), &[]);
        assert_eq!(
            (&brief["bot"], &brief["bot_name"], &brief["reason"]),
            (&"b2".into(), &"Two".into(), &"timer".into())
        );
    }

    #[test]
    fn the_time_is_counted_to_the_request_or_to_the_end() {
        let mut call = empty();
        call.started_at = Some(at("2025-07-16T11:40:57.900Z"));
        assert_eq!(document(&call, None, &[])["seconds"], 62);
        call.say(Field::EndedAt, None, Some("2025-07-16T11:41:00.000000Z".to_owned()));
        assert_eq!(document(&call, None, &[])["seconds"], 2);
        // A transfer is before the end, whichever is heard of first.
        assert_eq!(document(&call, Some(&asked(r#"{"session_id":"s1"}"#)), &[])["seconds"], 62);
        call.started_at = Some(at("2025-07-16T12:00:00Z"));
        assert_eq!(document(&call, None, &[])["seconds"], 0);
    }

    #[test]
    fn insights_are_told_whatever_their_form() {
        let mut call = empty();
        for (kind, data) in [
            ("summary", r#"{"value":{"text":"Asks."}}"#),
            ("entity", r#"{"value":["a",1],"score":null,"reason":"","confidence":0.10,"more":1}"#),
            ("mood", "\"calm\""),
            ("nothing", "{}"),
        ] {
            call.insights.insert(kind.to_owned(), insight(data));
        }
        let brief = brief(&call, None, at("2025-07-16T11:42:00Z"), &[]);
        assert!(brief.as_str().contains(
            r#""insights":{"entity":{"confidence":0.10,"value":["a",1]},"mood":{"value":"calm"},"nothing":{}}"#
        ));
        assert!(brief.as_str().contains(r#""summary":"{\"text\":\"Asks.\"}""#));
    }

    #[test]
    fn what_is_too_long_is_cut_at_a_letter_and_said_to_be() {
        let mut call = empty();
        // Three bytes each.
        call.insights.insert("summary".to_owned(), insight(&format!(r#"{{"value":"{}"}}"#, "न".repeat(201))));
        call.insights.insert("intent".to_owned(), insight(&format!(r#"{{"value":[{}1]}}"#, "1,".repeat(200))));
        let long = "x".repeat(700);
        call.say(Field::CustomParameters, None, Some(format!(r#"{{"a":1,"long":"{long}","z":[2.50]}}"#)));
        let turns = [said(""), said(&"🙂".repeat(100)), said("short")];
        let brief = document(&call, None, &turns);
        assert_eq!(brief["summary"].as_str().unwrap(), format!("{}…", "न".repeat(199)));
        let intent = brief["insights"]["intent"]["value"].as_str().unwrap();
        assert!(intent.starts_with("[1,1,") && intent.ends_with('…') && intent.len() == INSIGHT_BYTES, "{intent}");
        assert_eq!(brief["custom_parameters"].to_string(), r#"{"a":1,"z":[2.5]}"#);
        assert_eq!(brief["turns"][0]["text"].as_str().unwrap(), format!("{}…", "🙂".repeat(74)));
        assert_eq!(brief["turns"][1]["text"], "short");
        assert_eq!(brief["cut"], serde_json::json!(["custom_parameters", "insights", "summary", "turns"]));
        // What just fits is whole.
        let turns = [said(&"x".repeat(TURN_BYTES))];
        assert_eq!(document(&empty(), None, &turns).get("cut"), None);
        call.say(Field::CustomParameters, None, Some(format!("\"{long}\"")));
        assert_eq!(document(&call, None, &[]).get("custom_parameters"), None);
    }

    #[test]
    fn the_documented_insights_come_before_others_where_not_all_have_room() {
        let mut call = empty();
        for kind in ["a1", "a2", "a3", "a4", "a5", "sentiment", "intent"] {
            call.insights.insert(kind.to_owned(), insight(&format!(r#"{{"value":"{}"}}"#, "x".repeat(200))));
        }
        let brief = document(&call, None, &[]);
        let kinds: Vec<&String> = brief["insights"].as_object().unwrap().keys().collect();
        assert_eq!(kinds, ["a1", "a2", "intent", "sentiment"]);
        assert_eq!(brief["cut"], serde_json::json!(["insights"]));
    }

    #[test]
    fn the_last_turns_have_the_room_that_is_left() {
        let turns: Vec<Segment> = (0..30).map(|nth| said(&format!("{nth}"))).collect();
        let brief = document(&empty(), None, &turns);
        let told = |brief: &Value| brief["turns"].as_array().unwrap().len();
        assert_eq!(
            (told(&brief), &brief["turns"][0]["text"], &brief["turns"][19]["text"]),
            (20, &"10".into(), &"29".into())
        );
        assert_eq!(brief["cut"], serde_json::json!(["turns"]));
        assert_eq!(document(&empty(), None, &turns[10..]).get("cut"), None);
        // The latest are what there is room for, without gaps.
        let long: Vec<Segment> = (0..20).map(|nth| said(&format!("{nth} {}", "x".repeat(290)))).collect();
        let brief = document(&empty(), None, &long);
        assert_eq!((told(&brief), &brief["turns"][0]["text"].as_str().unwrap()[..2]), (13, "7 "));
    }

    fn words() -> impl Strategy<Value = String> {
        prop_oneof![".{0,900}", "[\\x00-\\x1f\"\\\\]{0,900}", "[a-z]{0,900}", "[\u{900}-\u{97f}🙂]{0,400}"]
    }

    proptest! {
        #[test]
        fn whatever_was_said_it_is_json_and_bounded(
            texts in proptest::collection::vec(words(), 8),
            insights in proptest::collection::btree_map("[a-z]{1,300}|summary|intent|entity|outcome|sentiment", words(), 0..12),
            turns in proptest::collection::vec((words(), words()), 0..40),
        ) {
            let mut call = empty();
            call.started_at = Some(at("2025-07-16T11:40:57Z"));
            let now = at("2025-07-16T11:41:57Z");
            for (field, text) in [Field::Contact, Field::LandingNumber, Field::BotName].into_iter().zip(&texts) {
                call.say(field, Some(now), Some(text.clone()));
            }
            let parameters = serde_json::json!({ "a": texts[3], "b": [texts[4]], (texts[5].clone()): 1 });
            call.say(Field::CustomParameters, Some(now), Some(parameters.to_string()));
            for (kind, value) in insights {
                let value = serde_json::json!({ "value": value, "score": 1.5, "confidence": [value], "reason": value });
                call.insights.insert(kind, Said { at: Some(now), value: value.to_string() });
            }
            let body = serde_json::json!({ "session_id": "s1", "bot_id": texts[6], "trigger_reason": texts[7] });
            let turns: Vec<Segment> = turns
                .into_iter()
                .map(|(speaker, text)| Segment { speaker: Some(speaker), text: Some(text), start: Some(now), ..Segment::default() })
                .collect();
            let made = brief(&call, Some(&asked(&body.to_string())), now, &turns);
            prop_assert!(made.as_str().len() <= MAX_BYTES + "exotel#s1".len(), "{} bytes", made.as_str().len());
            let document: Value = serde_json::from_str(made.as_str()).unwrap();
            prop_assert_eq!(&document["version"], &Value::from(1));
            prop_assert_eq!(made, brief(&call, Some(&asked(&body.to_string())), now, &turns));
        }
    }
}
