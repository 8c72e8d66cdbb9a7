//! Who is believed: every way to be refused leaves nothing behind, and a refusal comes before any parsing. The codes
//! of both schemes are fixed by what another tool computes.

use std::sync::Arc;

use http::HeaderValue;
use reqwest::RequestBuilder;
use shared::auth::exotel::{Grant, Tokens};
use shared::auth::vocobase::{self, Signatures};
use shared::auth::{Refused, Secret};
use shared::{Clock, Instant, Webhook};
use tests::{EXOTEL, World, answer, at, text};

const GOOD: &str = r#"{"session_id":"s1","data":{"session_id":"s1"}}"#;
/// Would be kept in quarantine if anybody read it.
const GARBAGE: &str = "not JSON";
const SENT_AT: &str = "2026-03-15T14:32:08.000000Z";

fn now() -> Clock {
    Arc::new(Instant::now)
}

fn sent_at() -> Instant {
    at(SENT_AT)()
}

fn tokens(secrets: &[(&str, &str)]) -> Tokens {
    let secrets = secrets.iter().map(|(kid, secret)| ((*kid).to_owned(), Secret::new(secret))).collect();
    Tokens { secrets, session_tokens_only: false }
}

/// The tokens of a world with [`SECRETS`].
fn known() -> Tokens {
    tokens(&[("k1", "exotel-secret")])
}

const SECRETS: [(&str, &str); 2] = [("EXOTEL_TOKEN_SECRETS", "k1:exotel-secret"), ("VOCOBASE_SECRETS", "whsec_known")];

fn function_token(webhook: Webhook) -> String {
    known().function_token(webhook).unwrap_or_default()
}

fn session_token(webhook: Webhook, session: &str) -> String {
    known().session_token(webhook, session).unwrap_or_default()
}

/// The URL of a function with what comes after its name.
fn url(world: &World, webhook: Webhook, rest: &str) -> String {
    format!("{}/{}/{rest}", world.run.base, webhook.name())
}

async fn status(request: RequestBuilder) -> u16 {
    answer(request).await.status
}

async fn assert_nothing_is_stored(world: &World) {
    for table in ["events", "sessions", "transcripts", "recordings"] {
        assert_eq!(world.items(table).await, [], "{table}");
    }
}

/// Readable or not, the body is not looked at.
async fn assert_refused(world: &World, request: impl Fn() -> RequestBuilder, what: &str) {
    for body in [GOOD, GARBAGE] {
        assert_eq!(status(request().body(body)).await, 401, "{what}, {body}");
    }
    assert_nothing_is_stored(world).await;
}

/// A Vocobase delivery with these values of the two headers, in this order.
fn vocobase_delivery(world: &World, signatures: &[HeaderValue], timestamps: &[HeaderValue]) -> RequestBuilder {
    let mut request = world.http.post(url(world, Webhook::SessionCompleted, ""));
    for signature in signatures {
        request = request.header(vocobase::SIGNATURE, signature);
    }
    for timestamp in timestamps {
        request = request.header(vocobase::TIMESTAMP, timestamp);
    }
    request
}

/// A delivery that says it was sent at `timestamp`, signed with `secret`.
fn signed(world: &World, secret: &str, timestamp: &str, body: &'static str) -> RequestBuilder {
    let signature = vocobase::sign(&Secret::new(secret), timestamp, body.as_bytes());
    let request = world.http.post(url(world, Webhook::SessionCompleted, ""));
    request.header(vocobase::SIGNATURE, signature).header(vocobase::TIMESTAMP, timestamp).body(body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_quite_right_is_refused() {
    let world = World::with(&SECRETS, now()).await;
    for webhook in EXOTEL {
        let token = function_token(webhook);
        let (kid, mac) = token.split_once('.').unwrap();
        let other = if webhook == Webhook::SessionEnd { Webhook::InsightsEvents } else { Webhook::SessionEnd };
        let flipped = format!("{kid}.{}{}", if mac.starts_with('0') { '1' } else { '0' }, &mac[1..]);
        let long = "a".repeat(8 * 1024);
        for rest in [
            String::new(),
            "?token=".to_owned(),
            "?token=k1".to_owned(),
            "?token=k1.".to_owned(),
            format!("?token={mac}"),
            format!("?token=.{mac}"),
            format!("?token=k2.{mac}"),
            format!("?token={flipped}"),
            format!("?token={kid}.{}", &mac[1..]),
            format!("?token={token}0"),
            format!("?token={token}%00"),
            format!("?token=%20{token}"),
            format!("?token={kid}.{}", "g".repeat(64)),
            format!("?token={kid}.{long}"),
            format!("?token={}", function_token(other)),
            format!("?TOKEN={token}"),
            format!("?token={token}&token={token}"),
            format!("?token={token}&token=k1.{}", "0".repeat(64)),
            // What would be right for any session is not what is right for this one, and the other way round.
            format!("?session=s1&token={token}"),
            format!("?token={}", session_token(webhook, "s1")),
            format!("?session=s2&token={}", session_token(webhook, "s1")),
            format!("?session=s1&token={}", session_token(other, "s1")),
            format!("?session=s1&session=s1&token={}", session_token(webhook, "s1")),
            flipped.clone(),
            format!("{token}?token={token}"),
            format!("s1?token={}", session_token(webhook, "s1")),
            format!("s1/{token}"),
            format!("s2/{}", session_token(webhook, "s1")),
            format!("s1/{}?session=s1", session_token(webhook, "s1")),
            format!("x/s1/{}", session_token(webhook, "s1")),
            format!("%ff/{}", session_token(webhook, "s1")),
            "%ff".to_owned(),
            long.clone(),
        ] {
            assert_refused(&world, || world.http.post(url(&world, webhook, &rest)), &rest).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_token_is_believed_in_the_query_and_in_the_path() {
    for webhook in EXOTEL {
        let world = World::with(&SECRETS, now()).await;
        let (function, session) = (function_token(webhook), session_token(webhook, "call/1 é"));
        for (index, rest) in [
            format!("?token={function}"),
            format!("?utm=x&token={function}&y"),
            function.clone(),
            format!("{function}/"),
            format!("?session=call%2F1+%C3%A9&token={session}"),
            format!("?token={session}&session=call/1%20%c3%a9"),
            format!("call%2F1%20%C3%A9/{session}"),
        ]
        .iter()
        .enumerate()
        {
            let body = format!(r#"{{"session_id":"call/1 é","bot_name":"{index}"}}"#);
            assert_eq!(status(world.http.post(url(&world, webhook, rest)).body(body)).await, 200, "{rest}");
            assert_eq!(world.items_of("events", "exotel#call/1 é").await.len(), index + 1, "{rest}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_opens_no_other_session() {
    let world = World::with(&SECRETS, now()).await;
    for webhook in EXOTEL {
        let token = session_token(webhook, "s1");
        for rest in [format!("?session=s1&token={token}"), format!("s1/{token}")] {
            for body in [r#"{"session_id":"s2"}"#, r#"{"session_id":"S1"}"#, r#"{"session_id":"s1 "}"#] {
                assert_eq!(status(world.http.post(url(&world, webhook, &rest)).body(body)).await, 401, "{body}");
            }
        }
    }
    assert_nothing_is_stored(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_out_secret_is_refused_and_the_new_one_mints() {
    let old = tokens(&[("k1", "old")]).function_token(Webhook::SessionEnd).unwrap();
    let new = tokens(&[("k2", "new")]).function_token(Webhook::SessionEnd).unwrap();
    for (secrets, minted, old_is, new_is) in [
        ("k1:old", &old, 200, 401),
        ("k2:new,k1:old", &new, 200, 200),
        ("k1:old,k2:new", &old, 200, 200),
        ("k2:new", &new, 401, 200),
        // The same name for another secret.
        ("k2:new,k1:newer", &new, 401, 200),
    ] {
        let world = World::with(&[("EXOTEL_TOKEN_SECRETS", secrets)], now()).await;
        let pasted = url(&world, Webhook::SessionEnd, &format!("?token={minted}"));
        assert_eq!(world.url(Webhook::SessionEnd), pasted, "{secrets}");
        // The refused one first, while there is nothing yet.
        let mut expected = [(&old, old_is), (&new, new_is)];
        expected.sort_by_key(|(_, status)| std::cmp::Reverse(*status));
        for (token, expected) in expected {
            let request = || world.http.post(url(&world, Webhook::SessionEnd, &format!("?token={token}")));
            if expected == 401 {
                assert_refused(&world, request, secrets).await;
            } else {
                assert_eq!(status(request().body(GOOD)).await, expected, "{secrets}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_session_tokens_only_a_function_token_opens_nothing_but_the_start() {
    let environment = [SECRETS[0], ("EXOTEL_SESSION_TOKENS_ONLY", "true")];
    let world = World::with(&environment, now()).await;
    for webhook in EXOTEL.into_iter().filter(|webhook| *webhook != Webhook::SessionStart) {
        let token = function_token(webhook);
        for rest in [format!("?token={token}"), token] {
            assert_refused(&world, || world.http.post(url(&world, webhook, &rest)), webhook.name()).await;
        }
    }
    for webhook in EXOTEL {
        let rest = match webhook {
            Webhook::SessionStart => format!("?token={}", function_token(webhook)),
            _ => format!("?session=s1&token={}", session_token(webhook, "s1")),
        };
        assert_eq!(status(world.http.post(url(&world, webhook, &rest)).body(GOOD)).await, 200, "{}", webhook.name());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tampered_body_is_refused_and_nothing_is_stored() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    let (timestamp, signature) = world.sign(GOOD.as_bytes(), sent_at());
    let later = sent_at().plus_seconds(1).to_string();
    for (timestamp, body) in [
        (timestamp.as_str(), GOOD.replace("s1", "s2")),
        (&timestamp, format!("{GOOD} ")),
        (&timestamp, String::new()),
        (&timestamp, GARBAGE.to_owned()),
        // The time is signed as well, by its text.
        (&later, GOOD.to_owned()),
        (&timestamp.replace("000000Z", "000Z"), GOOD.to_owned()),
    ] {
        let request = world.http.post(world.url(Webhook::SessionCompleted)).body(body.clone());
        let request = request.header(vocobase::SIGNATURE, &signature).header(vocobase::TIMESTAMP, timestamp);
        assert_eq!(status(request).await, 401, "{timestamp} {body}");
    }
    // Nor can a byte move from the body into the time.
    let moved = format!("{SENT_AT}.{}", &GOOD[..1]);
    let request = world.http.post(world.url(Webhook::SessionCompleted)).body(&GOOD[1..]);
    let request = request.header(vocobase::SIGNATURE, &signature).header(vocobase::TIMESTAMP, moved);
    assert_eq!(status(request).await, 401);
    assert_nothing_is_stored(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_missing_doubled_or_garbled_are_refused() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    let (timestamp, signature) = world.sign(GOOD.as_bytes(), sent_at());
    let mac = signature.strip_prefix("sha256=").unwrap();
    let (good, time) = (value(&signature), value(&timestamp));
    let huge = "a".repeat(8 * 1024);
    let mut cases = vec![
        ("no headers".to_owned(), vec![], vec![]),
        ("no signature".to_owned(), vec![], vec![time.clone()]),
        ("no timestamp".to_owned(), vec![good.clone()], vec![]),
        ("two signatures".to_owned(), vec![good.clone(), good.clone()], vec![time.clone()]),
        ("two timestamps".to_owned(), vec![good.clone()], vec![time.clone(), time.clone()]),
        ("a right and a wrong one".to_owned(), vec![good.clone(), value("sha256=00")], vec![time.clone()]),
        ("a wrong and a right one".to_owned(), vec![value("sha256=00"), good.clone()], vec![time.clone()]),
    ];
    for garbled in [
        "",
        mac,
        "sha256=",
        &format!("sha256={}", &mac[1..]),
        &format!("sha256={mac}00"),
        &format!("sha256= {mac}"),
        &format!("SHA256={mac}"),
        &format!("sha1={mac}"),
        &format!("v1,{mac}"),
        &format!("{signature},{signature}"),
        &format!("sha256={}", "g".repeat(64)),
        &format!("sha256={}", "é".repeat(32)),
        &format!("{signature}é"),
        &format!("sha256={huge}"),
        &huge,
    ] {
        cases.push((format!("the signature {garbled}"), vec![value(garbled)], vec![time.clone()]));
    }
    for garbled in ["", "now", "1773585128", "2026-03-15", "2026-03-15T14:32:08Zé", "٢٠٢٦-03-15T14:32:08Z", &huge]
    {
        // Rightly signed, so that the time alone is to blame.
        let signature = vocobase::sign(&Secret::new("whsec_known"), garbled, GOOD.as_bytes());
        cases.push((format!("the timestamp {garbled}"), vec![value(&signature)], vec![value(garbled)]));
    }
    let not_utf8 = HeaderValue::from_bytes(&[b"sha256=".as_slice(), &[0xff; 64]].concat()).unwrap();
    cases.push(("a signature of no text".to_owned(), vec![not_utf8.clone()], vec![time.clone()]));
    cases.push(("a timestamp of no text".to_owned(), vec![good.clone()], vec![not_utf8]));
    for (what, signatures, timestamps) in &cases {
        assert_refused(&world, || vocobase_delivery(&world, signatures, timestamps), what).await;
    }
    assert_eq!(status(vocobase_delivery(&world, &[good], &[time]).body(GOOD)).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_beyond_what_the_server_reads_are_refused() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    let huge = HeaderValue::try_from(format!("sha256={}", "0".repeat(600_000))).unwrap();
    let time = HeaderValue::from_static(SENT_AT);
    // The server may hang up before all of it is sent.
    if let Ok(response) = vocobase_delivery(&world, &[huge], &[time]).body(GOOD).send().await {
        assert_eq!(response.status().as_u16(), 431);
    }
    assert_nothing_is_stored(&world).await;
    assert_eq!(status(signed(&world, "whsec_known", SENT_AT, GOOD)).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_configured_secret_may_have_signed_and_a_removed_one_may_not() {
    for (secrets, believed, refused) in [
        (
            "whsec_1, whsec_2,whsec_3",
            vec!["whsec_1", "whsec_2", "whsec_3"],
            vec!["whsec_4", "whsec_1, whsec_2,whsec_3"],
        ),
        ("whsec_1,whsec_3", vec!["whsec_1", "whsec_3"], vec!["whsec_2", "whsec_1,whsec_3"]),
        ("whsec_2", vec!["whsec_2"], vec!["whsec_1", "whsec_3", "whsec_", ""]),
    ] {
        let world = World::with(&[("VOCOBASE_SECRETS", secrets)], at(SENT_AT)).await;
        for secret in refused {
            for body in [GOOD, GARBAGE] {
                assert_eq!(status(signed(&world, secret, SENT_AT, body)).await, 401, "{secret} of {secrets}");
            }
        }
        assert_nothing_is_stored(&world).await;
        for secret in believed {
            assert_eq!(status(signed(&world, secret, SENT_AT, GOOD)).await, 200, "{secret} of {secrets}");
        }
        assert_eq!(text(&world.items("sessions").await[0], "session"), "vocobase#s1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_believed_for_five_minutes_before_and_after_it_was_sent() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    let sent = |millis: i64| sent_at().plus_millis(millis).to_string();
    for millis in [-86_400_000, -301_000, -300_001, 300_001, 301_000, 86_400_000] {
        for body in [GOOD, GARBAGE] {
            assert_eq!(status(signed(&world, "whsec_known", &sent(millis), body)).await, 401, "{millis}");
        }
    }
    assert_nothing_is_stored(&world).await;
    for millis in [-300_000, -299_000, 0, 299_000, 300_000] {
        assert_eq!(status(signed(&world, "whsec_known", &sent(millis), GOOD)).await, 200, "{millis}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_which_a_delivery_is_believed_can_be_set() {
    let world = World::with(&[SECRETS[1], ("TIMESTAMP_TOLERANCE_SECONDS", "10")], at(SENT_AT)).await;
    for (seconds, expected) in [(-11, 401), (11, 401), (-9, 200), (9, 200)] {
        let timestamp = sent_at().plus_seconds(seconds).to_string();
        assert_eq!(status(signed(&world, "whsec_known", &timestamp, GOOD)).await, expected, "{seconds}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_that_is_spelled_in_another_way_is_the_same_time() {
    let world = World::with(&SECRETS, at(SENT_AT)).await;
    for timestamp in ["2026-03-15T14:32:08Z", "2026-03-15T14:32:08.000Z", "2026-03-15T20:02:08+05:30"] {
        assert_eq!(status(signed(&world, "whsec_known", timestamp, GOOD)).await, 200, "{timestamp}");
    }
}

// The three codes below come from OpenSSL, which shares nothing with this bundle.

/// ```sh
/// printf '%s' '2026-03-15T14:32:08.000Z.{"event":"session.completed"}' | openssl dgst -sha256 -hmac whsec_vector
/// ```
#[test]
fn a_vocobase_signature_is_what_openssl_computes() {
    const SIGNATURE: &str = "sha256=b4c51ee3d82814f9fdbed24a7dc40e9ee887ebb4f83c8589dd09c3b510eb6ac2";
    let (timestamp, body) = ("2026-03-15T14:32:08.000Z", br#"{"event":"session.completed"}"#);
    assert_eq!(vocobase::sign(&Secret::new("whsec_vector"), timestamp, body), SIGNATURE);
    let signatures = Signatures { secrets: vec![Secret::new("whsec_vector")], tolerance_seconds: 300 };
    let verified = signatures.verify(Ok(SIGNATURE), Ok(timestamp), body, sent_at()).unwrap();
    assert_eq!(verified.bytes(), body);
    let other = SIGNATURE.replace("b4c5", "b4c4");
    assert_eq!(signatures.verify(Ok(&other), Ok(timestamp), body, sent_at()).err(), Some(Refused::Mismatch));
}

/// ```sh
/// printf '%s' 'exotel/session_start' | openssl dgst -sha256 -hmac token-secret
/// ```
#[test]
fn a_function_token_is_what_openssl_computes() {
    const TOKEN: &str = "k1.35ce3da15b48df68e18278ad407c8bff3a9228352095c05554b99d2da433534a";
    let tokens = tokens(&[("k1", "token-secret")]);
    assert_eq!(tokens.function_token(Webhook::SessionStart).as_deref(), Some(TOKEN));
    let query = format!("token={TOKEN}");
    let (_, grant) = tokens.verify(Webhook::SessionStart, "/", Some(&query), b"").unwrap();
    assert_eq!(grant, Grant::AnySession);
    assert_eq!(tokens.verify(Webhook::SessionEnd, "/", Some(&query), b"").err(), Some(Refused::Mismatch));
}

/// ```sh
/// printf '%s' 'exotel/session_end/कॉल/1' | openssl dgst -sha256 -hmac token-secret
/// ```
#[test]
fn a_session_token_is_what_openssl_computes() {
    const TOKEN: &str = "k1.b9308d035973414d9c37bc48aff58a7c0db3435692bcd3180e40a96518e75f14";
    const SESSION: &str = "%E0%A4%95%E0%A5%89%E0%A4%B2%2F1";
    let tokens = tokens(&[("k1", "token-secret")]);
    assert_eq!(tokens.session_token(Webhook::SessionEnd, "कॉल/1").as_deref(), Some(TOKEN));
    let minted = tokens.session_url("https://end.example/", Webhook::SessionEnd, "कॉल/1");
    assert_eq!(minted, Some(format!("https://end.example/?session={SESSION}&token={TOKEN}")));
    for (path, query) in
        [("/".to_owned(), Some(format!("session={SESSION}&token={TOKEN}"))), (format!("/{SESSION}/{TOKEN}"), None)]
    {
        let (_, grant) = tokens.verify(Webhook::SessionEnd, &path, query.as_deref(), b"").unwrap();
        assert_eq!(grant, Grant::Session("कॉल/1".to_owned()));
    }
}
