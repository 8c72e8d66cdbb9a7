//! Any bytes as the body of an Exotel delivery.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::Webhook;
use shared::call::State;

fuzz_target!(|body: &[u8]| {
    for webhook in [Webhook::TranscriptEvents, Webhook::SessionEnd, Webhook::PreAgentTransfer] {
        let Ok(delivery) = fuzz::read(webhook, body) else { continue };
        fuzz::check_delivery(webhook, body, &delivery);
        assert!(delivery.transcript.is_none() && delivery.recording.is_none());
        assert!(webhook != Webhook::SessionEnd || delivery.call.state == State::Ended);
        assert!(webhook != Webhook::PreAgentTransfer || delivery.call.transfer_requested);
    }
});
