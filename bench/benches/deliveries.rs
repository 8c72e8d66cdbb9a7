//! What a delivery costs before it is stored: to verify it, to parse it, to merge it into its call.
//!
//! `cargo bench --package bench` measures; `cargo test` runs each once.

#![allow(clippy::expect_used, reason = "a fixture that cannot be read ends the benchmark")]

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use serde_json::Value;
use shared::auth::exotel::Tokens;
use shared::auth::vocobase::{Signatures, sign};
use shared::auth::{Secret, Verified};
use shared::call::{Delivery, Source};
use shared::{Country, Instant, Webhook};

const EXOTEL: &[u8] = include_bytes!("../../tests/fixtures/exotel_documented.json");
const VOCOBASE: &[u8] = include_bytes!("../../tests/fixtures/vocobase_documented.json");
const VOCOBASE_NEWER: &[u8] = include_bytes!("../../tests/fixtures/vocobase_newer.json");
const SENT_AT: &str = "2026-03-15T14:32:08.000Z";

/// The documented session with so many turns: its own, again and again.
fn session(turns: usize) -> Vec<u8> {
    let mut session: Value = serde_json::from_slice(VOCOBASE).expect("JSON");
    let documented = session["data"]["transcript"].as_array().expect("a transcript").clone();
    session["data"]["transcript"] = documented.into_iter().cycle().take(turns).collect();
    serde_json::to_vec(&session).expect("JSON")
}

/// Each with its name: as documented, a long one, and about the longest that a function URL carries.
fn bodies() -> [(&'static str, Webhook, Vec<u8>); 5] {
    [
        ("exotel, documented", Webhook::InsightsEvents, EXOTEL.to_vec()),
        ("vocobase, documented", Webhook::SessionCompleted, VOCOBASE.to_vec()),
        ("vocobase, newer", Webhook::SessionCompleted, VOCOBASE_NEWER.to_vec()),
        ("vocobase, 300 turns", Webhook::SessionCompleted, session(300)),
        ("vocobase, 30000 turns", Webhook::SessionCompleted, session(30_000)),
    ]
}

fn read(webhook: Webhook, body: &[u8]) -> Delivery {
    Delivery::read(webhook, &Verified::known(body), Source::Webhook, Country::INDIA).expect("a delivery")
}

fn verify(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verify");
    let secret = || Secret::new("a secret of the benchmark");
    let tokens = Tokens { secrets: vec![("k1".to_owned(), secret())], session_tokens_only: false };
    let token =
        tokens.session_token(Webhook::TranscriptEvents, "0b7f3f0e-6c1f-4a55-9f0e-2f6a8f1f3a11").expect("a token");
    let query = format!("session=0b7f3f0e-6c1f-4a55-9f0e-2f6a8f1f3a11&token={token}");
    group.bench_function("exotel, session token", |bencher| {
        bencher.iter(|| {
            let verified = tokens.verify(Webhook::TranscriptEvents, "/", Some(black_box(&query)), black_box(EXOTEL));
            verified.expect("it is valid").1
        });
    });
    let signatures = Signatures { secrets: vec![secret()], tolerance_seconds: 300 };
    let now = Instant::parse(SENT_AT).expect("an instant");
    for (name, _, body) in bodies().into_iter().skip(1) {
        let signature = sign(&secret(), SENT_AT, &body);
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &body, |bencher, body| {
            bencher.iter(|| {
                let verified = signatures.verify(Ok(black_box(&signature)), Ok(SENT_AT), black_box(body), now);
                verified.expect("it is valid").bytes().len()
            });
        });
    }
    group.finish();
}

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    for (name, webhook, body) in bodies() {
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(name), &body, |bencher, body| {
            bencher.iter_with_large_drop(|| read(webhook, black_box(body)));
        });
    }
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("merge");
    for (name, webhook, body) in bodies() {
        let said = read(webhook, &body).call;
        // Nothing new is the common case of a repetition, and of most of an Exotel call's deliveries.
        let known = said.clone();
        group.bench_function(BenchmarkId::new("join", name), |bencher| {
            bencher.iter_batched(|| known.clone(), |known| known.join(black_box(&said)), BatchSize::SmallInput);
        });
        group.bench_function(BenchmarkId::new("digest", name), |bencher| bencher.iter(|| black_box(&known).digest()));
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    verify(&mut criterion);
    parse(&mut criterion);
    merge(&mut criterion);
    criterion.final_summary();
}
