//! Any text as a profile's template, over any request: it ends, in time and within its output, or says why it cannot.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use shared::Webhook;
use shared::json::Json;
use shared::profile::{Answer, EXAMPLE_REQUEST, Known, Received, example_history, template};
use shared::storage::ProfileItem;
use tokio::time::{Duration, Instant};

fuzz_target!(|input: (&str, &str)| {
    let (text, body) = input;
    let body = if fuzz::read(Webhook::SessionStart, body.as_bytes()).is_ok() { body } else { EXAMPLE_REQUEST };
    let Ok(delivery) = fuzz::read(Webhook::SessionStart, body.as_bytes()) else { return };
    let received = Some(Received { delivery: &delivery, body: body.as_bytes() });
    let now = shared::Instant::parse("2026-03-15T14:30:00Z").expect("an instant");
    let known = Known { received, now, history: Some(example_history()) };
    let members = vec![("greeting".to_owned(), Json::text(text)), ("memory".to_owned(), Json::text("true"))];
    let profiles = [Arc::new(ProfileItem { name: "default".to_owned(), members })];

    let began = Instant::now();
    let mut answer = Answer::new(&profiles, &known, began + Duration::from_secs(5));
    let said = answer.text("greeting");
    // Far beyond what any template may take: what has no end is meant.
    assert!(began.elapsed() < Duration::from_secs(30));
    if let Some(said) = &said {
        assert!(said.len() <= template::MAX_OUTPUT);
        assert!(template::check(text).is_ok());
    }
    if !template::is_template(text) && text.len() <= template::MAX_SOURCE {
        assert_eq!(said.as_deref(), Some(text).filter(|text| !text.is_empty()));
    }
    // What was wrong with a template is for its author: no line of a log may say it.
    for fallback in &answer.fallbacks {
        let (printed, reason) = (format!("{fallback:?}"), fallback.fault.as_ref().map(|fault| fault.reason.as_str()));
        assert!(reason.is_none_or(|reason| reason.len() < 30 || !printed.contains(reason)));
    }
});
