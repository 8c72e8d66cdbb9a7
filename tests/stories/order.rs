//! The promise: any order of a call's deliveries, with any repetitions and arriving at once at several instances,
//! leaves the same items.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use shared::Webhook;
use shared::webhook::App;
use tests::faults::{Fault, Place, When};
use tests::odd_calls::{Odd, odd_call};
use tests::{Item, World, at, read};

/// Shortly after the odd calls.
const NOW: &str = "2025-07-16T12:00:00Z";

/// Several instances of every function, each with a cache of its own.
struct Instances<'a> {
    world: &'a World,
    instances: Vec<BTreeMap<Webhook, App>>,
}

impl<'a> Instances<'a> {
    fn of(world: &'a World, count: usize) -> Self {
        let instance = |webhook| (webhook, world.instance(webhook, Clone::clone, at(NOW)));
        let instances = (0..count).map(|_| Webhook::ALL.into_iter().map(instance).collect()).collect();
        Self { world, instances }
    }

    async fn deliver(&self, instance: usize, delivery: &Odd) {
        let app = &self.instances[instance % self.instances.len()][&delivery.webhook];
        let request = self.world.request(delivery.webhook, &delivery.body);
        let answer = read(&cli::dev::call(delivery.webhook, app, request).await);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// A first attempt that fails somewhere, as a platform's first attempts do.
async fn stumble(world: &World, delivery: &Odd, rng: &mut SmallRng) {
    let place = Place::ALL[rng.random_range(0..Place::ALL.len())];
    let when = if rng.random_bool(0.5) { When::Before } else { When::After };
    let fault = Fault::new(place, when, rng.random_range(0..3));
    let app = world.instance(delivery.webhook, |clients| fault.in_clients(clients), at(NOW));
    let answer = read(&cli::dev::call(delivery.webhook, &app, world.request(delivery.webhook, &delivery.body)).await);
    assert_eq!(answer.status == 200, !fault.happened(), "{fault:?}: {answer:?}");
}

/// Shuffled, partly twice, four at a time, through instances whose caches differ, after failed first attempts.
async fn deliver_wildly(seed: u64, call: &[Odd], instances: &Instances<'_>) {
    let mut rng = SmallRng::seed_from_u64(seed.wrapping_mul(31));
    let mut deliveries: Vec<Odd> = call.to_vec();
    for delivery in call {
        if rng.random_bool(0.15) {
            stumble(instances.world, delivery, &mut rng).await;
        }
        if rng.random_bool(0.4) {
            deliveries.push(delivery.clone());
        }
    }
    deliveries.shuffle(&mut rng);
    stream::iter(deliveries.iter().enumerate())
        .for_each_concurrent(4, async |(index, delivery)| instances.deliver(index, delivery).await)
        .await;
}

async fn deliver_in_order(call: &[Odd], instances: &Instances<'_>) {
    for delivery in call {
        instances.deliver(0, delivery).await;
    }
}

/// Items by call, without when they were received.
fn by_call(items: Vec<Item>) -> BTreeMap<String, Vec<Item>> {
    let mut calls: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for mut item in items {
        item.remove("received_at");
        calls.entry(tests::text(&item, "session").to_owned()).or_default().push(item);
    }
    calls
}

#[allow(clippy::disallowed_methods, reason = "the edge: how much to test is said by who runs the tests")]
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    match number("HOOKSWITCH_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("HOOKSWITCH_CASES").unwrap_or(200)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn order_repetition_and_failed_attempts_leave_the_same_items() {
    // With a retention, so that what expires when is part of what must agree.
    let environment = [("RETENTION_DAYS", "365")];
    // In order always in the embedded tables: if the others are elsewhere, the two must agree.
    let (tidy, wild) = (World::embedded(&environment, at(NOW)).await, World::with(&environment, at(NOW)).await);
    let seeds = seeds();
    let (tidy_instances, wild_instances) = (Instances::of(&tidy, 1), Instances::of(&wild, 3));
    stream::iter(&seeds)
        .for_each_concurrent(3, async |seed| {
            let call = odd_call(*seed);
            deliver_in_order(&call, &tidy_instances).await;
            deliver_wildly(*seed, &call, &wild_instances).await;
        })
        .await;
    for table in ["sessions", "transcripts", "recordings", "events"] {
        let (in_order, wildly) = (by_call(tidy.items(table).await), by_call(wild.items(table).await));
        for seed in &seeds {
            for key in [format!("exotel#odd-{seed}"), format!("vocobase#odd-{seed}")] {
                assert_eq!(
                    in_order.get(&key),
                    wildly.get(&key),
                    "{table} differs: HOOKSWITCH_SEED={seed} plays this call alone"
                );
            }
        }
        assert!(in_order.keys().all(|session| !session.starts_with("quarantine")), "every odd call can be read");
        let every_call = matches!(table, "sessions" | "events");
        assert!(!every_call || in_order.len() == seeds.len(), "{table} holds every call");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_deliveries_at_once_to_eight_instances_are_all_in_the_call() {
    let world = World::with(&[], at(NOW)).await;
    let instances = Instances::of(&world, 8);
    let insight = |number: usize| {
        let event = serde_json::json!({ "event_type": format!("type-{number}"), "event_data": { "value": number } });
        let body = serde_json::json!({ "session_id": "s1", "bot_id": format!("bot-{number:02}"), "events": [event] });
        Odd { webhook: Webhook::InsightsEvents, body: body.to_string().into_bytes() }
    };
    stream::iter(0..40).for_each_concurrent(40, async |number| instances.deliver(number, &insight(number)).await).await;
    let call = world.items("sessions").await.pop().expect("a call");
    assert_eq!(call["bots"].as_ss().expect("a set").len(), 40);
    assert_eq!(call["insights"].as_m().expect("a map").len(), 40);
}
