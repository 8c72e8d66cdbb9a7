//! URLs that are put together from right and wrong parts: no token opens anything but what it was minted for.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use shared::Webhook;
use shared::auth::exotel::{Grant, Tokens, secrets};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    webhook: u8,
    session_tokens_only: bool,
    session: &'a str,
    path: Vec<Part<'a>>,
    query: Vec<Part<'a>>,
    /// Bytes of the path, then of the query, that are changed at last.
    changes: Vec<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Part<'a> {
    FunctionToken,
    SessionToken,
    /// Of the same session, for another webhook.
    OtherWebhooks,
    /// Of a key that is not configured.
    Forged,
    Session,
    TokenIs,
    SessionIs,
    And,
    Slash,
    Text(&'a str),
}

fuzz_target!(|input: Input| {
    let webhook = EXOTEL[usize::from(input.webhook) % EXOTEL.len()];
    let other = EXOTEL[(usize::from(input.webhook) + 1) % EXOTEL.len()];
    let tokens = Tokens {
        secrets: secrets("k2:one secret,k1:another").expect("secrets"),
        session_tokens_only: input.session_tokens_only,
    };
    let forger = Tokens { secrets: secrets("k2:guessed").expect("secrets"), session_tokens_only: false };
    let write = |parts: &[Part]| {
        let text = |part: &Part| match part {
            Part::FunctionToken => tokens.function_token(webhook).expect("a token"),
            Part::SessionToken => tokens.session_token(webhook, input.session).expect("a token"),
            Part::OtherWebhooks => tokens.session_token(other, input.session).expect("a token"),
            Part::Forged => forger.session_token(webhook, input.session).expect("a token"),
            Part::Session => utf8_percent_encode(input.session, NON_ALPHANUMERIC).to_string(),
            Part::TokenIs => "token=".to_owned(),
            Part::SessionIs => "session=".to_owned(),
            Part::And => "&".to_owned(),
            Part::Slash => "/".to_owned(),
            Part::Text(text) => (*text).to_owned(),
        };
        parts.iter().map(text).collect::<String>()
    };
    let (mut path, mut query) = (write(&input.path).into_bytes(), write(&input.query).into_bytes());
    for (at, byte) in &input.changes {
        let place = path.iter_mut().chain(&mut query).nth(usize::from(*at));
        place.into_iter().for_each(|place| *place = *byte);
    }
    // What is no text never becomes a request.
    let (Ok(path), Ok(query)) = (String::from_utf8(path), String::from_utf8(query)) else { return };

    let body = b"{}";
    let has = |wanted: fn(&Part) -> bool| input.path.iter().chain(&input.query).any(wanted);
    match tokens.verify(webhook, &path, Some(&query), body) {
        Err(_) => {}
        Ok((verified, Grant::AnySession)) => {
            assert!(has(|part| matches!(part, Part::FunctionToken)), "opened by what was not minted for it");
            assert!(!input.session_tokens_only || webhook == Webhook::SessionStart);
            assert_eq!(verified.bytes(), body);
        }
        Ok((verified, Grant::Session(session))) => {
            assert!(has(|part| matches!(part, Part::SessionToken)), "opened by what was not minted for it");
            assert_eq!(session, input.session, "opened for another session");
            assert_eq!(verified.bytes(), body);
        }
    }
    assert!(
        tokens.verify(other, &path, Some(&query), body).is_err() || has(|part| matches!(part, Part::OtherWebhooks))
    );
    assert!(forger.verify(webhook, &path, Some(&query), body).is_err() || has(|part| matches!(part, Part::Forged)));

    // What is handed out opens, unless no URL can be so long.
    let url = tokens.session_url("https://f.example/?a=b", webhook, input.session).expect("a URL");
    let (_, query) = url.split_once('?').expect("a query");
    if query.len() <= 8 * 1024 {
        let opened = tokens.verify(webhook, "/", Some(query), body).map(|(_, grant)| grant);
        assert_eq!(opened, Ok(Grant::Session(input.session.to_owned())));
    }
});

const EXOTEL: [Webhook; 5] = [
    Webhook::SessionStart,
    Webhook::SessionEnd,
    Webhook::PreAgentTransfer,
    Webhook::InsightsEvents,
    Webhook::TranscriptEvents,
];
