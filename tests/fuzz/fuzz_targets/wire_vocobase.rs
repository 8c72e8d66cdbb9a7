//! Any bytes as the body of a Vocobase delivery.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::auth::Verified;
use shared::call::{Delivery, Field, Kind, Source, State, decimal};
use shared::recording::Job;
use shared::{Country, Webhook};

fuzz_target!(|body: &[u8]| {
    let webhook = Webhook::SessionCompleted;
    let Ok(delivery) = fuzz::read(webhook, body) else { return };
    fuzz::check_delivery(webhook, body, &delivery);
    assert!(delivery.turns.is_empty());
    assert_eq!(delivery.call.state, State::Ended);

    let transcript = delivery.transcript.as_ref().expect("a transcript, if an empty one");
    assert_eq!(delivery.call.revision.as_ref(), Some(&transcript.revision));
    assert!(transcript.revision.len() <= 100, "a chunk's key is this and a number");
    let fetched = Delivery::read(webhook, &Verified::known(body), Source::Reconciler, Country::default())
        .expect("it is read likewise");
    assert!(fetched.call.revision < delivery.call.revision, "a webhook outranks what was fetched");

    for (field, said) in delivery.call.fields.iter().filter(|(field, _)| field.kind() == Kind::Number) {
        assert_eq!(decimal(&said.value), said.value, "{} is written as the store gives it back", field.name());
    }
    assert_eq!(delivery.recording.is_some(), delivery.call.get(Field::RecordingState) == Some("pending"));
    if let Some(wanted) = &delivery.recording {
        assert_eq!(wanted.source().len(), 16);
        assert!(wanted.rank().len() <= 100);
        let job = Job::want(None, wanted).expect("a first offer is a job");
        assert_eq!(Job::want(Some(&job), wanted), None, "a repetition changes nothing");
        assert!(!format!("{wanted:?}").contains(&wanted.url) || wanted.url.len() < 32, "a URL is a credential");
    }
});
