//! A rightly signed delivery and whatever can be made of it: only what was signed is taken, and only in time.

#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use shared::Instant;
use shared::auth::vocobase::{Signatures, secrets, sign};
use shared::auth::{Refused, Secret};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// Milliseconds from the sending to the receipt.
    late: i32,
    timestamp: Timestamp<'a>,
    signed_by: u8,
    /// Bytes of the timestamp, then of the body, that the sign between the two is moved by.
    moved: i8,
    changes: Vec<Change>,
    body: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Timestamp<'a> {
    Milliseconds,
    Seconds,
    Offset,
    Text(&'a str),
}

#[derive(Arbitrary, Debug)]
enum Change {
    Signature(u8, u8),
    Timestamp(u8, u8),
    Body(u16, u8),
    Lengthen(u8),
    Shorten,
    UpperCase,
}

const TOLERANCE_SECONDS: i64 = 300;

fuzz_target!(|input: Input| {
    let secrets = secrets("whsec_one, whsec_two").expect("secrets");
    let signatures = Signatures { secrets: secrets.clone(), tolerance_seconds: TOLERANCE_SECONDS };
    let sent_at = Instant::parse("2026-03-15T14:32:08Z").expect("an instant");
    let now = sent_at.plus_millis(input.late.into());
    let timestamp = match input.timestamp {
        Timestamp::Milliseconds => "2026-03-15T14:32:08.000Z",
        Timestamp::Seconds => "2026-03-15T14:32:08Z",
        Timestamp::Offset => "2026-03-15T20:02:08+05:30",
        Timestamp::Text(text) => text,
    };
    let forged = Secret::new("guessed");
    let signer = secrets.get(usize::from(input.signed_by)).unwrap_or(&forged);
    let signature = sign(signer, timestamp, input.body);
    let rightly = usize::from(input.signed_by) < secrets.len();

    let verified = signatures.verify(Ok(&signature), Ok(timestamp), input.body, now).map(|verified| verified.bytes());
    let in_time =
        Instant::parse(timestamp).is_some_and(|sent_at| now.millis_since(sent_at).abs() <= TOLERANCE_SECONDS * 1000);
    assert_eq!(verified.is_ok(), rightly && in_time);
    assert!(verified.is_err() || verified == Ok(input.body));
    let missing = signatures.verify(Err(Refused::Missing), Ok(timestamp), input.body, now);
    assert_eq!(missing.err(), Some(Refused::Missing));

    let signed = [timestamp.as_bytes(), b".", input.body].concat();
    let end = timestamp.len().saturating_add_signed(input.moved.into()).min(signed.len() - 1);
    let (mut stamp, mut body) = (signed[..end].to_vec(), signed[end + 1..].to_vec());
    let mut sent = signature.clone().into_bytes();
    for change in &input.changes {
        let set = |bytes: &mut Vec<u8>, at: usize, to: u8| bytes.get_mut(at).into_iter().for_each(|byte| *byte = to);
        match change {
            Change::Signature(at, to) => set(&mut sent, (*at).into(), *to),
            Change::Timestamp(at, to) => set(&mut stamp, (*at).into(), *to),
            Change::Body(at, to) => set(&mut body, (*at).into(), *to),
            Change::Lengthen(by) => body.push(*by),
            Change::Shorten => drop(body.pop()),
            Change::UpperCase => sent.iter_mut().skip("sha256=".len()).for_each(u8::make_ascii_uppercase),
        }
    }
    // A header that is no text is refused before.
    let (Ok(sent), Ok(stamp)) = (String::from_utf8(sent), String::from_utf8(stamp)) else { return };
    let Ok(verified) = signatures.verify(Ok(&sent), Ok(&stamp), &body, now) else { return };
    assert!(rightly, "taken though nobody signed it");
    assert!(sent.eq_ignore_ascii_case(&signature));
    assert_eq!([stamp.as_bytes(), b".", &body].concat(), signed, "taken though something else was signed");
    let sent_at = Instant::parse(&stamp).expect("an instant");
    assert!(now.millis_since(sent_at).abs() <= TOLERANCE_SECONDS * 1000);
    // The platform's scheme does not say where the timestamp ends: what was signed as `08.000Z` and a body can be sent
    // as `08` and `000Z.` before that body. Such a body is no JSON, and so never more than one in quarantine.
    if stamp != timestamp {
        assert!(verified.parse::<serde_json::Value>().is_err(), "a body that was never sent is read");
    }
});
