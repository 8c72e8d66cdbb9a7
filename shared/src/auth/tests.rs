//! Who is let in, and who is not. The codes of the fixed examples were made with Python's `hmac`.

use super::exotel::{Grant, Tokens, secrets};
use super::vocobase::{self, Signatures};
use super::*;
use crate::instant::Instant;
use crate::session::{Provider, Webhook};

const FUNCTION: &str = "k2.1f5037c96dbad72c3e0792783a401470aee753c4c5625bfcdab11f70e8e934ea";
const SESSION: &str = "k2.f9d2ab1ff660766b340130e3aae409f83fd82a285deb164916f6d810b2e41c4b";

fn tokens() -> Tokens {
    Tokens { secrets: secrets("k2:new, k1:old").unwrap(), session_tokens_only: false }
}

/// What `session_end` makes of a URL.
fn opened(path: &str, query: &str) -> Result<Grant, Refused> {
    tokens().verify(Webhook::SessionEnd, path, Some(query), b"{}").map(|(_, grant)| grant)
}

fn only(id: &str) -> Grant {
    Grant::Session(id.to_owned())
}

fn exotel() -> impl Iterator<Item = Webhook> {
    Webhook::ALL.into_iter().filter(|webhook| webhook.provider() == Provider::Exotel)
}

#[test]
fn tokens_are_minted_with_the_first_secret_as_they_always_were() {
    assert_eq!(tokens().function_token(Webhook::SessionEnd).as_deref(), Some(FUNCTION));
    assert_eq!(tokens().session_token(Webhook::SessionEnd, "s1").as_deref(), Some(SESSION));
    let none = Tokens { secrets: Vec::new(), session_tokens_only: false };
    assert_eq!(none.function_token(Webhook::SessionEnd), None);
    assert_eq!(none.session_url("https://f.example/", Webhook::SessionEnd, "s1"), None);
}

#[test]
fn a_token_opens_its_own_webhook_and_no_other() {
    for minted_for in exotel() {
        for webhook in exotel() {
            let function = format!("token={}", tokens().function_token(minted_for).unwrap());
            let session = format!("session=s1&token={}", tokens().session_token(minted_for, "s1").unwrap());
            for query in [function, session] {
                let opened = tokens().verify(webhook, "/", Some(&query), b"{}").map(|(verified, _)| verified.bytes());
                let expected = if webhook == minted_for { Ok(b"{}".as_slice()) } else { Err(Refused::Mismatch) };
                assert_eq!(opened, expected, "{minted_for:?} at {webhook:?}");
            }
        }
    }
}

#[test]
fn a_session_token_opens_its_own_session_only() {
    assert_eq!(opened("/", &format!("session=s1&token={SESSION}")), Ok(only("s1")));
    assert_eq!(opened("/", &format!("session=s2&token={SESSION}")), Err(Refused::Mismatch));
    assert_eq!(opened("/", &format!("session=&token={SESSION}")), Err(Refused::Mismatch));
    assert_eq!(opened("/", &format!("token={SESSION}")), Err(Refused::Mismatch));
    assert_eq!(opened("/", &format!("session=s1&token={FUNCTION}")), Err(Refused::Mismatch));
}

#[test]
fn a_token_is_taken_from_the_query_or_the_path_but_from_one_of_them() {
    for (path, query, expected) in [
        ("/", format!("token={FUNCTION}"), Ok(Grant::AnySession)),
        ("", format!("utm=1&token={FUNCTION}&b"), Ok(Grant::AnySession)),
        (&format!("/{FUNCTION}"), String::new(), Ok(Grant::AnySession)),
        (&format!("//{FUNCTION}/"), "a=b".to_owned(), Ok(Grant::AnySession)),
        (&format!("/s1/{SESSION}"), String::new(), Ok(only("s1"))),
        (&format!("/%731/{SESSION}"), String::new(), Ok(only("s1"))),
        ("/", String::new(), Err(Refused::Missing)),
        ("/", "session=s1".to_owned(), Err(Refused::Missing)),
        ("/", format!("token={FUNCTION}&token={FUNCTION}"), Err(Refused::Repeated)),
        ("/", format!("session=s1&session=s1&token={SESSION}"), Err(Refused::Repeated)),
        (&format!("/{FUNCTION}"), format!("token={FUNCTION}"), Err(Refused::Repeated)),
        (&format!("/{FUNCTION}"), "session=s1".to_owned(), Err(Refused::Malformed)),
        (&format!("/s1/{SESSION}"), "session=s1".to_owned(), Err(Refused::Malformed)),
        (&format!("/a/s1/{SESSION}"), String::new(), Err(Refused::Malformed)),
        (&format!("/%ff/{SESSION}"), String::new(), Err(Refused::Malformed)),
    ] {
        assert_eq!(opened(path, &query), expected, "{path}?{query}");
    }
    assert!(tokens().verify(Webhook::SessionEnd, &format!("/{FUNCTION}"), None, b"").is_ok());
}

#[test]
fn what_is_not_a_token_is_refused_for_what_it_is() {
    let upper = format!("k2.{}", FUNCTION[3..].to_uppercase());
    for (token, expected) in [
        (upper.as_str(), Ok(Grant::AnySession)),
        (&FUNCTION[3..], Err(Refused::Malformed)),
        (&FUNCTION[..FUNCTION.len() - 2], Err(Refused::Malformed)),
        (&format!("{FUNCTION}00"), Err(Refused::Malformed)),
        (&format!("k3.{}", &FUNCTION[3..]), Err(Refused::UnknownKey)),
        (&format!("k1.{}", &FUNCTION[3..]), Err(Refused::Mismatch)),
        (&format!("k2.{}", "00".repeat(32)), Err(Refused::Mismatch)),
        (&format!("k2.{}", "01".repeat(32)), Err(Refused::Mismatch)),
    ] {
        assert_eq!(opened("/", &format!("token={token}")), expected, "{token}");
    }
}

#[test]
fn a_session_id_may_be_long_but_the_url_has_an_end() {
    let id = "s".repeat(10_000);
    let url = tokens().session_url("", Webhook::SessionEnd, &id).unwrap();
    assert_eq!(opened("/", &url[1..]), Ok(only(&id)));
    // Path and query together, whatever is in them.
    let path =
        format!("/{}/{}", "s".repeat(200), tokens().session_token(Webhook::SessionEnd, &"s".repeat(200)).unwrap());
    let query = |length: usize| format!("x={}", "x".repeat(length - 2));
    assert_eq!(opened(&path, &query(200)), Ok(only(&"s".repeat(200))));
    assert_eq!(opened(&path, &query(16 * 1024 - path.len())), Ok(only(&"s".repeat(200))));
    assert_eq!(opened(&path, &query(16 * 1024 - path.len() + 1)), Err(Refused::Malformed));
}

#[test]
fn where_only_session_tokens_are_taken_session_start_still_has_its_own() {
    let strict = Tokens { session_tokens_only: true, ..tokens() };
    for webhook in exotel() {
        let function = format!("token={}", strict.function_token(webhook).unwrap());
        let opened = strict.verify(webhook, "/", Some(&function), b"").map(|(_, grant)| grant);
        let expected =
            if webhook == Webhook::SessionStart { Ok(Grant::AnySession) } else { Err(Refused::SessionTokenRequired) };
        assert_eq!(opened, expected, "{webhook:?}");
        let token = format!("session=s1&token={}", strict.session_token(webhook, "s1").unwrap());
        assert_eq!(
            strict.verify(webhook, "/", Some(&token), b"").map(|(_, grant)| grant),
            Ok(only("s1")),
            "{webhook:?}"
        );
    }
}

#[test]
fn a_url_that_is_handed_out_opens_whatever_the_session_is_called() {
    let id = "a b/ü#&=+%2f";
    for base in ["https://f.example/", "https://f.example/?a=b"] {
        let url = tokens().session_url(base, Webhook::SessionEnd, id).unwrap();
        assert!(url.starts_with(base) && url.matches('?').count() == 1, "{url}");
        let (_, query) = url.split_once('?').unwrap();
        assert_eq!(opened("/", query), Ok(only(id)), "{url}");
    }
}

#[test]
fn exotels_secrets_are_read_with_their_names() {
    let kids =
        |text: &str| secrets(text).map(|secrets| secrets.into_iter().map(|(kid, _)| kid).collect::<Vec<_>>().join(" "));
    assert_eq!(kids("k2:new, k1:old").as_deref(), Ok("k2 k1"));
    assert_eq!(kids("k_1:a:b").as_deref(), Ok("k_1"));
    assert_eq!(kids(" alone ").as_deref(), Ok("k1"));
    for text in ["", " ", ",", "a,b", "k1:a,b"] {
        assert_eq!(kids(text), Err("is not kid:secret,kid:secret,…"), "{text}");
    }
    for text in [":a", "k.1:a", "k-1:a", "k 1:a"] {
        assert_eq!(kids(text), Err("has a kid that is not letters, digits or _"), "{text}");
    }
    assert_eq!(kids("k1:"), Err("has an empty secret"));
    assert_eq!(kids("k1:a,k1:b"), Err("has a kid twice"));
    // One without a name is its text without the white space around it.
    let mint = |text: &str| {
        Tokens { secrets: secrets(text).unwrap(), session_tokens_only: false }.function_token(Webhook::SessionEnd)
    };
    assert_eq!(mint(" alone "), mint("k1:alone"));
}

const SENT: &str = "2026-03-15T14:32:08.000Z";
const BODY: &[u8] = br#"{"data":{}}"#;
const SIGNED: &str = "sha256=0b1106fbc37bd51a091be03687d8668bdd2ca7eb40a80ce60b502f1499026a0b";

fn signatures() -> Signatures {
    Signatures { secrets: vocobase::secrets("whsec_zero, whsec_one").unwrap(), tolerance_seconds: 300 }
}

/// What is made of the two headers and the body, received so many milliseconds after the sending.
fn signed(signature: &str, timestamp: &str, body: &[u8], late: i64) -> Result<(), Refused> {
    let now = Instant::parse(SENT).unwrap().plus_millis(late);
    signatures().verify(Ok(signature), Ok(timestamp), body, now).map(|verified| assert_eq!(verified.bytes(), body))
}

#[test]
fn a_signature_is_for_one_body_at_one_time() {
    assert_eq!(signed(SIGNED, SENT, BODY, 0), Ok(()));
    assert_eq!(vocobase::sign(&signatures().secrets[1], SENT, BODY), SIGNED);
    assert_eq!(signed(SIGNED, SENT, br#"{"data":{} }"#, 0), Err(Refused::Mismatch));
    assert_eq!(signed(SIGNED, "2026-03-15T14:32:08Z", BODY, 0), Err(Refused::Mismatch));
    assert_eq!(signed(&format!("sha256={}", "00".repeat(32)), SENT, BODY, 0), Err(Refused::Mismatch));
    assert_eq!(signed(&format!("sha256={}", "01".repeat(32)), SENT, BODY, 0), Err(Refused::Mismatch));
    for (signature, timestamp) in
        [(&SIGNED[7..], SENT), ("sha256=00", SENT), ("", SENT), (SIGNED, "soon"), (SIGNED, "")]
    {
        assert_eq!(signed(signature, timestamp, BODY, 0), Err(Refused::Malformed), "{signature} {timestamp}");
    }
}

#[test]
fn a_signature_is_good_for_five_minutes_either_way() {
    for (late, expected) in [
        (300_000, Ok(())),
        (300_001, Err(Refused::Stale)),
        (-300_000, Ok(())),
        (-300_001, Err(Refused::Stale)),
        (86_400_000, Err(Refused::Stale)),
    ] {
        assert_eq!(signed(SIGNED, SENT, BODY, late), expected, "{late} ms");
    }
}

#[test]
fn a_header_that_cannot_be_had_is_refused_for_why() {
    let now = Instant::parse(SENT).unwrap();
    let refused = |signature, timestamp| signatures().verify(signature, timestamp, BODY, now).err();
    assert_eq!(refused(Err(Refused::Repeated), Ok(SENT)), Some(Refused::Repeated));
    assert_eq!(refused(Ok(SIGNED), Err(Refused::Missing)), Some(Refused::Missing));
}

#[test]
fn vocobases_secrets_are_the_texts_between_the_commas() {
    assert_eq!(vocobase::secrets(" a ,b").map(|secrets| secrets.len()), Ok(2));
    assert_eq!(vocobase::sign(&vocobase::secrets(" whsec_one ").unwrap()[0], SENT, BODY), SIGNED);
    for text in ["", " ", "a,", ",a", "a,,b"] {
        assert_eq!(vocobase::secrets(text).err(), Some("has an empty secret"), "{text}");
    }
}

#[test]
fn only_a_code_or_a_key_that_is_not_known_may_be_mended_by_newer_keys() {
    for refused in [
        Refused::Missing,
        Refused::Repeated,
        Refused::Malformed,
        Refused::UnknownKey,
        Refused::Mismatch,
        Refused::Stale,
        Refused::SessionTokenRequired,
        Refused::OtherSession,
    ] {
        let expected = matches!(refused, Refused::UnknownKey | Refused::Mismatch);
        assert_eq!(refused.may_be_news(), expected, "{refused:?}");
    }
}

#[test]
fn a_body_that_cannot_be_read_is_told_by_its_place_and_not_by_its_content() {
    let read =
        |body: &[u8]| Verified(body).parse::<crate::wire::exotel::Request>().map(|_| ()).map_err(|why| why.to_string());
    assert_eq!(read(br#"{"session_id":"s1"}"#), Ok(()));
    assert_eq!(read(b"{\"session_id\":\nhunter2"), Err("not JSON, at line 2 column 1".to_owned()));
    assert_eq!(
        read(br#"{"events":"hunter2"}"#),
        Err("JSON that does not fit the webhook, at line 1 column 19".to_owned())
    );
    assert!(read(br#"["hunter2"]"#).is_err());
}

#[test]
fn a_secret_is_in_no_debug_output() {
    assert_eq!(format!("{:?}", Secret::new("hunter2")), "[redacted]");
}
