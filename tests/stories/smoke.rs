use shared::Webhook;
use tests::{World, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_starts_is_in_the_tables() {
    let world = World::new().await;
    let answer = world.deliver(Webhook::SessionStart, r#"{"session_id":"s1","bot_id":"b1"}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(text(&world.items_of("sessions", "exotel#s1").await[0], "state"), "in_progress");
}
