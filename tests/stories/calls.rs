//! Looking at calls: lists that page, whatever their size, and the commands over them.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use shared::storage::{Order, Page, Place, Store, Window};
use shared::{Instant, SessionKey};
use tests::{Item, World};

fn instant(text: &str) -> Instant {
    Instant::parse(text).unwrap()
}

fn store(world: &World) -> Store {
    world.stores().open().unwrap().store().unwrap()
}

/// Puts a call that began then, as its deliveries would have left it.
async fn put(world: &World, place: &Place, contact: &str) {
    let day = format!("{}#{}", place.started_at.day(), place.key.shard(shared::storage::DAY_SHARDS));
    let texts = [
        ("session", place.key.as_str()),
        ("started_at", &place.started_at.to_string()),
        ("day", &day),
        ("contact", contact),
        ("state", "ended"),
    ];
    let item: Item = texts.iter().map(|(name, value)| ((*name).into(), AttributeValue::S((*value).into()))).collect();
    let table = &world.stores().tables["sessions"];
    world.clients.dynamodb.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
}

/// Turns page after page until there is none.
async fn pages(turn: impl AsyncFn(Option<&Place>) -> Page) -> Vec<Vec<Place>> {
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = turn(after.as_ref()).await;
        let place = |call: &shared::call::Call| Place { started_at: call.started_at.unwrap(), key: call.key.clone() };
        pages.push(page.calls.iter().map(place).collect());
        assert!(pages.len() < 1000, "it never ends");
        match page.next {
            Some(next) => after = Some(next.to_string().parse().unwrap()),
            None => return pages,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_every_call_once_and_in_order() {
    let world = World::new().await;
    let store = store(&world);
    let mut random = StdRng::seed_from_u64(7);
    let mut places = BTreeSet::new();
    let contacts = ["+919876543210", "+919876543211"];
    let mut first_contacts = BTreeSet::new();
    for nth in 0..240 {
        // Many at one instant, many in one day, some days without any, and the edges of days.
        let day = [0, 0, 0, 1, 2, 30, 31][random.random_range(0..7)];
        let millis = [0, 0, 43_200_000, 86_399_999, random.random_range(0..86_400_000)][random.random_range(0..5)];
        let started_at = instant("2026-03-01T00:00:00Z").plus_seconds(day * 86_400).plus_millis(millis);
        let key: SessionKey = format!("{}#s{nth}", ["exotel", "vocobase"][nth % 2]).parse().unwrap();
        let place = Place { started_at, key };
        put(&world, &place, contacts[nth % 3 / 2]).await;
        if nth % 3 / 2 == 0 {
            first_contacts.insert(place.clone());
        }
        places.insert(place);
    }
    let windows = [
        ("2020-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00.001Z"),
        ("2026-03-01T12:00:00.001Z", "2026-03-31T00:00:00Z"),
        ("2026-03-10T00:00:00Z", "2026-03-10T00:00:00Z"),
        ("2026-04-10T00:00:00Z", "2026-03-10T00:00:00Z"),
    ];
    for (since, until) in windows {
        let window = Window { since: instant(since), until: instant(until) };
        for (order, most) in [(Order::NewestFirst, 7), (Order::OldestFirst, 50), (Order::NewestFirst, 1000)] {
            let within = |places: &BTreeSet<Place>| {
                let has = |place: &&Place| (window.since..window.until).contains(&place.started_at);
                let mut within: Vec<Place> = places.iter().filter(has).cloned().collect();
                if order == Order::NewestFirst {
                    within.reverse();
                }
                within
            };
            let what = format!("{since} to {until}, {order:?}, {most} a page");
            let found = pages(async |after| store.list(&window, order, after, most).await.unwrap()).await;
            assert!(found[..found.len() - 1].iter().all(|page| page.len() == most), "{what}");
            assert_eq!(found.concat(), within(&places), "{what}");
            let of = pages(async |after| store.list_of(contacts[0], &window, order, after, most).await.unwrap()).await;
            assert_eq!(of.concat(), within(&first_contacts), "{what}");
        }
    }
}
