//! Property tests of the join, and examples of what deliveries are read into.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, btree_set};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::session::Provider;

fn instants() -> impl Strategy<Value = Option<Instant>> {
    // Few, so that equal ones meet; `57Z` beside `57.9Z`, so that their texts are compared.
    select(vec![
        None,
        Instant::parse("2025-07-16T11:40:57Z"),
        Instant::parse("2025-07-16T11:40:57.9Z"),
        Instant::parse("2025-07-16T11:41:00.000001Z"),
        Instant::parse("2024-02-29T23:59:59.999999Z"),
    ])
}

fn said() -> impl Strategy<Value = Said> {
    let values = prop_oneof![
        select(vec!["1", "2.12", "127", "+919876543210", "{\"a\":1}"]).prop_map(str::to_owned),
        "[a-z]{1,3}"
    ];
    (instants(), values).prop_map(|(at, value)| Said { at, value })
}

/// Arbitrary calls of one platform as deliveries and stored items have them.
pub(crate) fn calls(provider: Provider) -> impl Strategy<Value = Call> {
    let state = prop_oneof![8 => Just(State::InProgress), 8 => Just(State::Ended), 1 => Just(State::Erased)];
    let fields = btree_map(select(Field::ALL.to_vec()), said(), 0..6);
    let insights = btree_map(select(vec!["sentiment", "summary", "new_type"]), said(), 0..3);
    let flags = (any::<bool>(), any::<bool>());
    let revision =
        option::of(select(vec!["webhook#1#a".to_owned(), "webhook#2#b".to_owned(), "reconciler#3#c".to_owned()]));
    let bots = btree_set(select(vec!["bot-1".to_owned(), "bot-2".to_owned(), "bot-3".to_owned()]), 0..3);
    (state, instants(), bots, flags, revision, fields, insights).prop_map(
        move |(state, started_at, bots, (transfer_requested, test), revision, mut fields, insights)| {
            let key = SessionKey::new(provider, "s1").unwrap();
            if provider == Provider::Exotel {
                // It never says a duration.
                fields.remove(&Field::DurationSeconds);
            }
            let insights = insights.into_iter().map(|(kind, said)| (kind.to_owned(), said)).collect();
            let call = Call {
                key: key.clone(),
                state,
                started_at,
                bots,
                transfer_requested,
                test,
                revision,
                fields,
                insights,
            };
            // An erased call holds nothing else.
            if state == State::Erased { Call { state, ..Call::new(key) } } else { call }
        },
    )
}

/// Two or three calls of one platform.
fn several() -> impl Strategy<Value = (Call, Call, Call)> {
    let of = |provider| (calls(provider), calls(provider), calls(provider));
    prop_oneof![of(Provider::Exotel), of(Provider::Vocobase)]
}

proptest! {
    #[test]
    fn join_does_not_care_which_came_first((one, two, _) in several()) {
        prop_assert_eq!(one.clone().join(&two), two.clone().join(&one));
    }

    #[test]
    fn join_does_not_care_how_deliveries_are_grouped((one, two, three) in several()) {
        let left = one.clone().join(&two).join(&three);
        let right = one.join(&two.join(&three));
        prop_assert_eq!(left, right);
    }

    #[test]
    fn join_takes_a_repetition_without_a_trace((one, two, _) in several()) {
        let joined = one.clone().join(&two);
        prop_assert_eq!(joined.clone().join(&two), joined.clone());
        prop_assert_eq!(joined.clone().join(&one), joined);
    }

    #[test]
    fn equal_calls_have_equal_digests_and_different_ones_do_not((one, two, _) in several()) {
        prop_assert_eq!(one.digest() == two.digest(), one == two);
    }

    #[test]
    fn the_join_of_deliveries_does_not_care_for_their_order(
        bodies in proptest::collection::vec(deliveries(), 1..6),
        turned in 0_usize..6,
    ) {
        let said: Vec<Call> = bodies.iter().map(|body| exotel(Webhook::InsightsEvents, body).call).collect();
        let join = |order: &mut dyn Iterator<Item = &Call>| order.fold(Call::new(said[0].key.clone()), Call::join);
        let forward = join(&mut said.iter());
        prop_assert_eq!(&join(&mut said.iter().rev()), &forward);
        let (late, early) = said.split_at(turned % said.len());
        prop_assert_eq!(&join(&mut early.iter().chain(late).chain(early)), &forward);
    }
}

/// Requests as Exotel sends them, disagreeing about everything.
fn deliveries() -> impl Strategy<Value = String> {
    let time = select(vec!["null", r#""2025-07-16T11:40:57Z""#, r#""2025-07-16T11:40:57.9Z""#, r#""soon""#]);
    let text = select(vec!["null", r#""""#, r#""a""#, r#""b""#, "7", "{}"]);
    let parameters = select(vec!["null", "{}", r#"{"tier":"gold"}"#, r#""{\"tier\":\"gold\"}""#, "[1]"]);
    (time.clone(), time.clone(), text.clone(), text, parameters, time).prop_map(
        |(start, end, contact, bot, parameters, found)| {
            format!(
                r#"{{"session_id":"s1","start_time":{start},"end_time":{end},"contact_uri":{contact},"bot_id":{bot},
                "custom_parameters":{parameters},"events":[{{"event_type":"sentiment","event_data":{{"value":{contact},"timestamp":{found}}}}}]}}"#
            )
        },
    )
}

fn exotel(webhook: Webhook, body: &str) -> Delivery {
    super::exotel::read(webhook, serde_json::from_str(body).unwrap(), Country::INDIA).unwrap()
}

fn vocobase(body: &str) -> Delivery {
    super::vocobase::read(serde_json::from_str(body).unwrap(), body.as_bytes(), Source::Webhook, Country::INDIA)
        .unwrap()
}

#[test]
fn decimals_are_written_as_the_store_gives_them_back() {
    for (text, expected) in [
        ("2.12", "2.12"),
        ("2.10", "2.1"),
        ("0.0", "0"),
        ("-0", "0"),
        ("007", "7"),
        (".5", "0.5"),
        ("100", "100"),
        ("1e5", "1e5"),
        ("12345678901234567890123456789012345678.9", "12345678901234567890123456789012345678.9"),
    ] {
        assert_eq!(decimal(text), expected);
    }
}

#[test]
fn empty_is_absent_and_odd_shapes_are_not_said() {
    let delivery = exotel(
        Webhook::SessionStart,
        r#"{"session_id":"s1","contact_uri":"","landing_number":{"a":1},"external_id":42,"custom_parameters":{},
            "metadata":null,"events":null,"start_time":"soon","network_type":["sip"]}"#,
    );
    let said: BTreeMap<_, _> =
        delivery.call.fields.iter().map(|(field, said)| (field.name(), said.value.as_str())).collect();
    assert_eq!(said, BTreeMap::from([("external_id", "42")]));
    assert_eq!(delivery.occurred_at, None);
}

#[test]
fn all_spellings_of_in_progress_are_one_and_a_missing_status_is_completed() {
    for (status, expected) in [
        (r#""inprogress""#, "in_progress"),
        (r#""in_progress""#, "in_progress"),
        (r#""In-Progress""#, "in_progress"),
        (r#""COMPLETED""#, "completed"),
        ("null", "completed"),
        (r#""paused""#, "paused"),
    ] {
        let body = format!(
            r#"{{"session_id":"s1","bot_id":"b1","events":[{{"event_type":"transcript","event_data":{{"transcripts":[
                {{"sequence":1,"status":{status},"transcript_segments":[{{"speaker":"assistant","text":"Hi"}}]}}]}}}}]}}"#
        );
        let delivery = exotel(Webhook::TranscriptEvents, &body);
        assert_eq!(delivery.turns[0].status, expected);
        assert_eq!(delivery.turns[0].key, "000001#b1");
    }
}

#[test]
fn the_transcript_shape_seen_on_live_calls_is_read_too() {
    let body = |is_final: bool, start: &str| {
        format!(
            r#"{{"session_id":"s1","bot_id":"b1","events":[{{"event_type":"transcript","event_data":{{"is_final":{is_final},
            "transcript_segments":[{{"speaker":"customer","text":"Hi"{start}}}]}}}}]}}"#
        )
    };
    let partial =
        &exotel(Webhook::TranscriptEvents, &body(false, r#","start_timestamp":"2025-10-31T21:27:44.330756Z""#)).turns
            [0];
    assert_eq!((partial.key.as_str(), partial.status.as_str()), ("t1761946064330756#b1", "in_progress"));
    let whole =
        &exotel(Webhook::TranscriptEvents, &body(true, r#","start_timestamp":"2025-10-31T21:27:44.330756Z""#)).turns[0];
    assert!(whole.rank > partial.rank);
    // Without sequence and times only what was said tells turns apart.
    assert!(exotel(Webhook::TranscriptEvents, &body(true, "")).turns[0].key.starts_with('x'));
}

#[test]
fn a_turn_says_nothing_new_of_the_call() {
    let turn = |end: &str| {
        format!(
            r#"{{"session_id":"s1","bot_id":"b1","start_time":"2025-10-31T21:27:40Z","contact_uri":"+1","events":[
            {{"event_type":"transcript","event_data":{{"transcripts":[{{"sequence":1,"transcript_segments":[
            {{"text":"Hi","end_timestamp":"{end}"}}]}}]}}}}]}}"#
        )
    };
    let first = exotel(Webhook::TranscriptEvents, &turn("2025-10-31T21:27:45Z"));
    let second = exotel(Webhook::TranscriptEvents, &turn("2025-10-31T21:27:55Z"));
    assert_eq!(first.call, second.call);
    assert!(first.occurred_at < second.occurred_at);
}

#[test]
fn of_two_insights_in_one_delivery_each_is_as_old_as_it_says() {
    let delivery = exotel(
        Webhook::InsightsEvents,
        r#"{"session_id":"s1","start_time":"2025-07-16T11:40:57Z","events":[
            {"event_type":"sentiment","event_data":{"value":"happy","timestamp":"2025-07-16T11:41:30Z"}},
            {"event_type":"sentiment","event_data":{"value":"angry","timestamp":"2025-07-16T11:41:10Z"}},
            {"event_type":"mood","event_data":{"value":"new words are kept"}},
            {"event_type":"summary","event_data":{}}]}"#,
    );
    assert_eq!(delivery.call.insights["sentiment"].value, r#"{"timestamp":"2025-07-16T11:41:30Z","value":"happy"}"#);
    assert_eq!(delivery.call.insights["mood"].at, Instant::parse("2025-07-16T11:41:30Z"));
    assert!(!delivery.call.insights.contains_key("summary"));
}

#[test]
fn a_call_that_never_says_when_it_began_is_as_old_as_what_is_known_of_it() {
    let delivery = exotel(
        Webhook::TranscriptEvents,
        r#"{"session_id":"s1","events":[
            {"event_type":"intent","event_data":{"value":"buy","timestamp":"2025-07-16T11:41:10Z"}},
            {"event_type":"transcript","event_data":{"transcripts":[{"sequence":1,"transcript_segments":[
            {"text":"Hi","start_timestamp":"2025-07-16T11:41:05Z","end_timestamp":"2025-07-16T11:41:06Z"}]}]}}]}"#,
    );
    assert_eq!(delivery.call.started_at, Instant::parse("2025-07-16T11:41:05Z"));
    let said = exotel(
        Webhook::SessionEnd,
        r#"{"session_id":"s1","start_time":"2025-07-16T11:41:30Z","end_time":"2025-07-16T11:41:00Z"}"#,
    );
    assert_eq!(said.call.started_at, Instant::parse("2025-07-16T11:41:30Z"));
}

#[test]
fn the_platforms_test_button_is_marked() {
    for (body, test) in [
        (r#"{"session_id":"s1","external_id":"CAxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#, true),
        (r#"{"session_id":"<voicebot session id>"}"#, true),
        (r#"{"session_id":"s1","external_id":"CA0123456789abcdef0123456789abcdef"}"#, false),
        (r#"{"session_id":"s1","external_id":"CAxx"}"#, false),
    ] {
        assert_eq!(exotel(Webhook::SessionStart, body).call.test, test, "{body}");
    }
}

#[test]
fn both_generations_of_the_vocobase_payload_are_read() {
    let older = vocobase(
        r#"{"event":"session.completed","timestamp":"2026-03-15T14:32:08.000Z","data":{"session_id":"v1","agent_id":"a1",
            "duration_seconds":127,"credits_used":2.12,"transcript":[
            {"role":"bot","content":"Hello","timestamp":"2026-03-15T14:30:01.000Z"}],
            "recording_url":"https://b.s3.amazonaws.com/r.wav?X-Amz-Signature=...","latency":{"min_ms":450},
            "call":{"from_number":"+14155551234","to_number":"+919876543210","direction":"outbound","status":"completed"}}}"#,
    );
    assert_eq!(older.call.get(Field::CreditsUsed), Some("2.12"));
    assert_eq!(older.call.get(Field::Contact), Some("+919876543210"));
    assert_eq!(older.call.get(Field::EndedAt), Some("2026-03-15T14:32:08.000000Z"));
    assert_eq!(older.call.started_at, Instant::parse("2026-03-15T14:30:01Z"));
    assert_eq!(older.call.get(Field::RecordingState), Some("pending"));
    let newer = vocobase(
        r#"{"event":"session.completed","timestamp":"2026-03-15T14:32:08.000Z","data":{"session_id":"v1","duration_seconds":60,
            "processing_complete":true,"variables":{"b":1,"a":2},"extraction":{"status":"success","values":{"x":1.50}},
            "recording_url":null,"call":{"from_number":"+1","to_number":"+2","direction":"inbound","disposition":"voicemail",
            "answered_by":"machine"}}}"#,
    );
    assert_eq!(newer.call.get(Field::Variables), Some(r#"{"a":2,"b":1}"#));
    assert_eq!(newer.call.get(Field::Extraction), Some(r#"{"status":"success","values":{"x":1.50}}"#));
    assert_eq!(newer.call.get(Field::Contact), Some("+1"));
    assert_eq!(newer.call.get(Field::AnsweredBy), Some("machine"));
    assert_eq!(newer.call.started_at, Instant::parse("2026-03-15T14:31:08Z"));
    assert_eq!(newer.recording, None);
    let no_call = vocobase(
        r#"{"timestamp":"2026-03-15T14:32:08Z","data":{"session_id":"v1","call":null,"latency":null,"transcript":null}}"#,
    );
    assert_eq!(no_call.call.get(Field::Contact), None);
    assert!(no_call.transcript.unwrap().segments.is_empty());
}

#[test]
fn an_event_of_a_kind_to_come_is_put_aside_and_not_taken_for_an_end() {
    let read = |body: &str| {
        super::vocobase::read(serde_json::from_str(body).unwrap(), body.as_bytes(), Source::Webhook, Country::INDIA)
    };
    let unknown = read(r#"{"event":"session.started","data":{"session_id":"v1"}}"#);
    assert!(matches!(unknown, Err(NotADelivery::UnknownEvent)));
    assert!(read(r#"{"data":{"session_id":"v1"}}"#).is_ok());
}

#[test]
fn an_object_that_comes_as_its_text_is_that_object() {
    let parameters = |json: &str| {
        let body = format!(r#"{{"session_id":"s1","custom_parameters":{json}}}"#);
        exotel(Webhook::SessionEnd, &body).call.get(Field::CustomParameters).map(str::to_owned)
    };
    assert_eq!(parameters(r#""{}""#), None);
    assert_eq!(parameters(r#""{\"b\":1, \"a\":2}""#).as_deref(), Some(r#"{"a":2,"b":1}"#));
    assert_eq!(parameters(r#""plain text""#).as_deref(), Some(r#""plain text""#));
    assert_eq!(parameters(r#""{not json""#).as_deref(), Some(r#""{not json""#));
}

#[test]
fn a_clock_that_says_zero_says_nothing() {
    let body = r#"{"session_id":"s1","start_time":"1970-01-01T00:00:00Z","end_time":"0001-01-01T00:00:00Z"}"#;
    assert_eq!(exotel(Webhook::SessionStart, body).occurred_at, None);
}

#[test]
fn a_contact_that_no_index_can_hold_is_not_said() {
    let body = |length| format!(r#"{{"session_id":"s1","contact_uri":"{}"}}"#, "9".repeat(length));
    assert_eq!(exotel(Webhook::SessionStart, &body(2049)).call.get(Field::Contact), None);
    assert_eq!(exotel(Webhook::SessionStart, &body(2048)).call.get(Field::Contact).map(str::len), Some(2048));
}

#[test]
fn a_webhook_outranks_the_reconciler_whatever_the_time() {
    let body = r#"{"timestamp":"2026-03-15T14:32:08Z","data":{"session_id":"v1"}}"#;
    let read = |source| {
        super::vocobase::read(serde_json::from_str(body).unwrap(), body.as_bytes(), source, Country::INDIA).unwrap()
    };
    assert!(read(Source::Webhook).call.revision > read(Source::Reconciler).call.revision);
}

#[test]
fn a_body_is_read_as_its_webhooks_platform_sends_it() {
    let read = |webhook, body: &str| {
        Delivery::read(webhook, &crate::auth::Verified::known(body.as_bytes()), Source::Webhook, Country::INDIA)
            .map(|delivery| delivery.call.key.to_string())
            .map_err(|why| why.to_string())
    };
    assert_eq!(read(Webhook::SessionEnd, r#"{"session_id":"s1"}"#).as_deref(), Ok("exotel#s1"));
    assert_eq!(read(Webhook::SessionCompleted, r#"{"data":{"session_id":"v1"}}"#).as_deref(), Ok("vocobase#v1"));
    let missing = Err("the session id is missing or empty".to_owned());
    assert_eq!(read(Webhook::SessionEnd, r#"{"data":{"session_id":"v1"}}"#), missing);
    assert!(read(Webhook::SessionCompleted, r#"{"session_id":"s1"}"#).is_err());
}

#[test]
fn a_call_is_over_once_anything_says_so() {
    use Webhook::{InsightsEvents, PreAgentTransfer, SessionEnd, SessionStart};
    for (webhook, said, state, transfer) in [
        (SessionStart, "", State::InProgress, false),
        (SessionStart, r#","session_state":"session_start","trigger_reason":"start""#, State::InProgress, false),
        (
            InsightsEvents,
            r#","session_state":"session_in_progress","trigger_reason":"timer""#,
            State::InProgress,
            false,
        ),
        (SessionEnd, "", State::Ended, false),
        (InsightsEvents, r#","end_time":"2025-07-16T11:41:00Z""#, State::Ended, false),
        (InsightsEvents, r#","session_state":"Session-End""#, State::Ended, false),
        (InsightsEvents, r#","trigger_reason":"end""#, State::Ended, false),
        (PreAgentTransfer, "", State::InProgress, true),
        (InsightsEvents, r#","trigger_reason":"PreAgentTransfer""#, State::InProgress, true),
    ] {
        let call = exotel(webhook, &format!(r#"{{"session_id":"s1"{said}}}"#)).call;
        assert_eq!((call.state, call.transfer_requested), (state, transfer), "{webhook:?} {said}");
    }
}

#[test]
fn of_what_two_deliveries_say_the_right_one_counts() {
    let key = SessionKey::new(Provider::Vocobase, "s1").unwrap();
    let [early, late] = ["2025-07-16T11:40:57Z", "2025-07-16T11:40:57.9Z"].map(Instant::parse);
    let mut one = Call { started_at: late, revision: Some("webhook#1#a".into()), ..Call::new(key.clone()) };
    one.say(Field::BotName, early, Some("Zoe".into()));
    one.say(Field::CallStatus, late, Some("busy".into()));
    one.bots.insert("b1".into());
    let mut two = Call { started_at: early, revision: Some("webhook#2#b".into()), ..Call::new(key.clone()) };
    two.say(Field::BotName, late, Some("Ann".into()));
    two.say(Field::CallStatus, late, Some("failed".into()));
    two.say(Field::CallId, None, Some(String::new()));
    two.bots.insert("b2".into());
    two.insights.insert("mood".into(), Said { at: None, value: "1".into() });
    (two.state, two.transfer_requested, two.test) = (State::Ended, true, true);

    let call = one.clone().join(&two);
    assert_eq!((call.started_at, call.revision.as_deref()), (early, Some("webhook#2#b")));
    assert_eq!((call.get(Field::BotName), call.get(Field::CallStatus)), (Some("Ann"), Some("failed")));
    assert_eq!((call.bots.len(), call.insights["mood"].value.as_str()), (2, "1"));
    assert_eq!((call.state, call.transfer_requested, call.test), (State::Ended, true, true));
    assert_eq!(call.fields.len(), 2, "what is empty is not said");
    assert_eq!(Call::new(key.clone()).join(&call), call);
    let erased = Call { state: State::Erased, ..Call::new(key) };
    assert_eq!(call.join(&erased), erased);
}

#[test]
fn how_long_a_call_was_is_derived_where_nobody_says_it() {
    let lasted = |body: &str| exotel(Webhook::SessionEnd, body).call.derived_duration_seconds();
    let both = r#"{"session_id":"s1","start_time":"2025-07-16T11:40:57Z","end_time":"2025-07-16T11:43:04.250Z"}"#;
    assert_eq!(lasted(both).as_deref(), Some("127.25"));
    let turned = r#"{"session_id":"s1","start_time":"2025-07-16T11:43:04Z","end_time":"2025-07-16T11:40:57Z"}"#;
    assert_eq!(lasted(turned).as_deref(), Some("0"));
    assert_eq!(lasted(r#"{"session_id":"s1","start_time":"2025-07-16T11:40:57Z"}"#), None);
    let said = vocobase(r#"{"timestamp":"2026-03-15T14:32:08Z","data":{"session_id":"v1","duration_seconds":60}}"#);
    assert_eq!(said.call.derived_duration_seconds(), None);
}

#[test]
fn turns_are_told_apart_and_ranked_by_what_was_said() {
    let turn = |text: &str| {
        let body = format!(
            r#"{{"session_id":"s1","events":[{{"event_type":"transcript","event_data":{{"transcript_segments":[{{"text":"{text}"}}]}}}}]}}"#
        );
        exotel(Webhook::TranscriptEvents, &body).turns.remove(0)
    };
    assert_eq!(turn("one"), turn("one"));
    assert_ne!(turn("one").key, turn("two").key);
    assert_ne!(turn("one").rank, turn("two").rank);
    assert!(turn("one").rank < turn("three").rank, "the longer one");
}

#[test]
fn the_latest_of_several_insights_counts_wherever_it_stands() {
    let insight = |second: u8| {
        format!(r#"{{"event_type":"mood","event_data":{{"at":{second},"timestamp":"2025-07-16T11:41:{second}Z"}}}}"#)
    };
    for order in [[10, 20, 30], [30, 20, 10], [20, 30, 10]] {
        let events = order.map(insight).join(",");
        let call = exotel(Webhook::InsightsEvents, &format!(r#"{{"session_id":"s1","events":[{events}]}}"#)).call;
        assert_eq!(call.insights["mood"].at, Instant::parse("2025-07-16T11:41:30Z"), "{order:?}");
    }
}

#[test]
fn an_insight_that_says_its_time_twice_is_as_old_as_what_is_kept_of_it() {
    let call = exotel(
        Webhook::InsightsEvents,
        r#"{"session_id":"s1","events":[{"event_type":"mood","event_data":
            {"timestamp":"2025-07-16T11:41:30Z","timestamp":"2025-07-16T11:41:10Z"}}]}"#,
    )
    .call;
    assert_eq!(call.insights["mood"].value, r#"{"timestamp":"2025-07-16T11:41:10Z"}"#);
    assert_eq!(call.insights["mood"].at, Instant::parse("2025-07-16T11:41:10Z"));
}

#[test]
fn what_was_fetched_is_said_before_everything() {
    let body = r#"{"timestamp":"2026-03-15T14:32:08Z","data":{"session_id":"v1","agent_name":"Zoe"}}"#;
    let said_at = |source| {
        let read = super::vocobase::read(serde_json::from_str(body).unwrap(), body.as_bytes(), source, Country::INDIA)
            .unwrap();
        read.call.fields[&Field::BotName].at
    };
    assert_eq!(said_at(Source::Webhook), Instant::parse("2026-03-15T14:32:08Z"));
    assert_eq!(said_at(Source::Reconciler), None);
}

#[test]
fn names_of_states_fields_and_sources_read_back() {
    let states = [State::InProgress, State::Ended, State::Erased];
    assert_eq!(states.map(State::name), ["in_progress", "ended", "erased"]);
    assert_eq!(states.map(|state| State::from_name(state.name())), states.map(Some));
    let sources = [Source::Reconciler, Source::Webhook];
    assert_eq!(sources.map(Source::name), ["reconciler", "webhook"]);
    assert_eq!(sources.map(|source| Source::from_name(source.name())), sources.map(Some));
    assert!(Field::ALL.iter().all(|field| Field::from_name(field.name()) == Some(*field)));
    assert_eq!((State::from_name(""), Source::from_name(""), Field::from_name("")), (None, None, None));
}

#[test]
fn half_a_placeholder_is_an_id() {
    for (id, test) in [("<id>", true), ("<id", false), ("id>", false), ("cAXXXXXXXX", true), ("CAxxxxxxxy", false)] {
        assert_eq!(is_placeholder(Some(id)), test, "{id}");
    }
    assert!(!is_placeholder(None));
}

#[test]
fn what_was_said_is_in_no_debug_output() {
    let said = Said { at: None, value: "hunter2".into() };
    let segment = Segment { text: Some("hunter2".into()), ..Segment::default() };
    assert_eq!(format!("{said:?}"), "[redacted] at None");
    assert_eq!(format!("{segment:?}"), "Segment { None..None, text: [redacted] }");
}
