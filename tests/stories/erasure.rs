//! A call whose person asked to be forgotten stays forgotten, whatever still arrives.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;
use shared::Webhook;
use tests::{Item, World};

async fn erase(world: &World, session: &str) -> Item {
    let item = Item::from([
        ("session".to_owned(), AttributeValue::S(session.to_owned())),
        ("state".to_owned(), AttributeValue::S("erased".to_owned())),
        ("merged".to_owned(), AttributeValue::S("0123456789abcdef".to_owned())),
    ]);
    let table = &world.stores().tables["sessions"];
    world.clients.dynamodb.put_item().table_name(table).set_item(Some(item.clone())).send().await.expect("it is put");
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_call_is_answered_and_stores_nothing() {
    let world = World::new().await;
    let erased = [erase(&world, "exotel#s1").await, erase(&world, "vocobase#s1").await];
    let turn = json!({ "transcripts": [{ "sequence": 1, "transcript_segments": [{ "text": "Hello" }] }] });
    let exotel = json!({ "session_id": "s1", "contact_uri": "+919876543210",
        "events": [{ "event_type": "transcript", "event_data": turn }] });
    let vocobase = json!({ "data": { "session_id": "s1", "transcript": [{ "role": "user", "content": "Hello" }],
        "recording_url": "https://recordings.s3.amazonaws.com/r.wav" } });
    for webhook in Webhook::ALL {
        let body = if webhook == Webhook::SessionCompleted { &vocobase } else { &exotel };
        assert_eq!(world.deliver(webhook, body.to_string()).await.status, 200);
    }
    for table in ["events", "transcripts", "recordings"] {
        assert_eq!(world.items(table).await, [] as [Item; 0], "{table}");
    }
    assert_eq!(world.items("sessions").await, erased);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_remembers_the_call_does_not_bring_it_back() {
    let world = World::new().await;
    let start = json!({ "session_id": "s1", "contact_uri": "+919876543210" });
    assert_eq!(world.deliver(Webhook::SessionEnd, start.to_string()).await.status, 200);
    let erased = erase(&world, "exotel#s1").await;
    let end = json!({ "session_id": "s1", "end_time": "2025-07-16T11:42:00Z", "contact_uri": "+919876543210" });
    assert_eq!(world.deliver(Webhook::SessionEnd, end.to_string()).await.status, 200);
    assert_eq!(world.items("sessions").await, [erased]);
}
