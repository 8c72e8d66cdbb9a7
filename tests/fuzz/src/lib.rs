//! What several fuzz targets ask of the bundle.

use shared::auth::Verified;
use shared::call::{Call, Delivery, Field, NotADelivery, Source};
use shared::json::Json;
use shared::storage::event_key;
use shared::{Country, Instant, Webhook};

/// What DynamoDB takes as a partition key, in bytes.
const PARTITION_KEY: usize = 2048;
/// What DynamoDB takes as a sort key, in bytes.
const SORT_KEY: usize = 1024;

/// Reads a body as the platform's own webhook.
pub fn read(webhook: Webhook, body: &[u8]) -> Result<Delivery, NotADelivery> {
    Delivery::read(webhook, &Verified::known(body), Source::Webhook, Country::default())
}

/// What holds of everything that was read, whatever was sent.
pub fn check_delivery(webhook: Webhook, body: &[u8], delivery: &Delivery) {
    let again = read(webhook, body).expect("what was read once is read again");
    assert_eq!(again.call, delivery.call);
    assert_eq!(again.turns, delivery.turns);
    assert_eq!(again.transcript, delivery.transcript);
    assert_eq!(again.recording, delivery.recording);
    assert_eq!(
        (again.occurred_at, again.trigger_reason, again.bot),
        (delivery.occurred_at, delivery.trigger_reason.clone(), delivery.bot.clone())
    );

    // Other white space, escapes and order of members say the same. A revision is of the very bytes.
    let respelled = std::str::from_utf8(body).ok().and_then(|text| Json::parse(text).ok());
    if let Some(respelled) = respelled {
        let again = read(webhook, respelled.as_str().as_bytes()).expect("it is read in any spelling");
        let plain = |call: &Call| Call { revision: None, ..call.clone() };
        assert_eq!(plain(&again.call), plain(&delivery.call));
        assert_eq!((again.occurred_at, &again.turns), (delivery.occurred_at, &delivery.turns));
    }

    let key = &delivery.call.key;
    assert!(!key.id().is_empty() && key.as_str().len() <= PARTITION_KEY);
    assert_eq!(key.as_str().parse().as_ref(), Ok(key), "a key reads as itself");
    let event = event_key(webhook, delivery.occurred_at, &"0".repeat(64));
    assert!(event.starts_with(webhook.name()) && event.len() <= SORT_KEY);
    delivery.occurred_at.iter().for_each(check_instant);
    assert_ne!(delivery.trigger_reason.as_deref(), Some(""));
    assert_ne!(delivery.bot.as_deref(), Some(""));
    check_call(&delivery.call);

    for turn in &delivery.turns {
        // A bot's id is the platform's: what it makes too long for a key, the store refuses.
        let place = turn.key.strip_suffix(delivery.bot.as_deref().unwrap_or_default()).expect("it ends with the bot");
        let digits = place.strip_suffix('#').expect("then the place").trim_start_matches(['t', 'x']);
        assert!((1..=20).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{place}");
        assert!(!turn.status.is_empty() && !turn.segments.is_empty());
        assert!(turn.rank.starts_with(if turn.status == "completed" { "1#" } else { "0#" }));
        let segments = &turn.segments;
        segments.iter().flat_map(|segment| [segment.start, segment.end]).flatten().for_each(|at| check_instant(&at));
    }
}

/// What holds of every call.
fn check_call(call: &Call) {
    assert_eq!(call.clone().join(call), *call, "a repetition changes nothing");
    assert_eq!(Call::new(call.key.clone()).join(call), *call, "a call is joined into an empty one as it is");
    assert_eq!(call.digest(), call.clone().digest());
    call.started_at.iter().for_each(check_instant);
    assert!(call.bots.iter().all(|bot| !bot.is_empty()));
    for (field, said) in &call.fields {
        assert!(!said.value.is_empty(), "{} is empty", field.name());
        said.at.iter().for_each(check_instant);
    }
    // The key of an index.
    assert!(call.get(Field::Contact).is_none_or(|contact| contact.len() <= PARTITION_KEY));
    for field in [Field::Metadata, Field::CustomParameters, Field::Variables, Field::Extraction] {
        call.get(field).into_iter().for_each(check_json);
    }
    for (kind, said) in &call.insights {
        assert!(!kind.is_empty());
        said.at.iter().for_each(check_instant);
        check_json(&said.value);
    }
}

fn check_json(text: &str) {
    let json = Json::parse(text).expect("what is kept as JSON is JSON");
    assert_eq!(json.as_str(), text, "canonical text is its own canonical text");
    assert!(!json.is_empty());
}

fn check_instant(at: &Instant) {
    let text = at.to_string();
    assert_eq!(text.len(), "2026-03-15T14:32:08.000000Z".len(), "{text} would not sort");
    assert!(("1970-01-01T".."9999-12-31T").contains(&text.as_str()), "{text} is outside 1970 to 9999");
    assert_eq!(Instant::parse(&text), Some(*at));
}
