//! Secrets that AWS Secrets Manager holds: read when an instance starts, kept for five minutes, and read again for a
//! delivery that they do not explain.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cli::dev::call;
use lambda_http::Body;
use serde_json::json;
use shared::auth::exotel::{self, Tokens};
use shared::auth::{Secret, vocobase};
use shared::webhook::App;
use shared::{Instant, Provider, Webhook};
use tests::World;
use tests::secrets_manager::{ARN, SecretsManager};
use tokio::sync::watch;

/// One instance of a function, as deployed, over the stores of a world and a clock of its own.
struct Instance {
    world: World,
    app: App,
    webhook: Webhook,
    now: Arc<AtomicI64>,
    manager: SecretsManager,
}

impl Instance {
    /// As it is once it has started.
    async fn started(webhook: Webhook, value: &str) -> Self {
        let instance = Self::cold(webhook, SecretsManager::holding(value).await).await;
        instance.warm().await;
        instance
    }

    async fn cold(webhook: Webhook, manager: SecretsManager) -> Self {
        let world = World::new().await;
        let mut environment = world.stores().environment();
        let name = match webhook.provider() {
            Provider::Exotel => "EXOTEL_TOKEN_SECRET_ARN",
            Provider::Vocobase => "VOCOBASE_SECRET_ARN",
        };
        environment.insert(name.to_owned(), ARN.to_owned());
        environment.insert("SESSION_END_URL".to_owned(), "https://end.example/".to_owned());
        environment.insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), manager.url.clone());
        let now = Arc::new(AtomicI64::new(Instant::parse("2026-03-15T14:30:00Z").expect("an instant").unix_seconds()));
        let clock = {
            let now = Arc::clone(&now);
            Arc::new(move || Instant::from_unix_seconds(now.load(Ordering::SeqCst)).expect("an instant"))
        };
        let app = App::from_environment(webhook, &|name| environment.get(name).cloned(), clock).expect("an app");
        Self { world, app, webhook, now, manager }
    }

    async fn warm(&self) {
        self.app.warm(self.webhook, async |app, request| call(self.webhook, app, request).await).await;
    }

    fn seconds_pass(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Delivers, signed with `secret`; the status of the answer.
    async fn deliver(&self, id: &str, secret: &str) -> u16 {
        let mut request = lambda_http::http::Request::post("http://127.0.0.1/");
        let body = match self.webhook.provider() {
            Provider::Exotel => json!({ "session_id": id }),
            Provider::Vocobase => json!({ "data": { "session_id": id } }),
        };
        let body = body.to_string();
        match self.webhook.provider() {
            Provider::Exotel => {
                let secrets = exotel::secrets(secret).expect("a secret");
                let tokens = Tokens { secrets, session_tokens_only: false };
                let token = tokens.function_token(self.webhook).expect("a token");
                request = request.uri(format!("http://127.0.0.1/?token={token}"));
            }
            Provider::Vocobase => {
                let now = Instant::from_unix_seconds(self.now.load(Ordering::SeqCst)).expect("an instant");
                let signature = vocobase::sign(&Secret::new(secret), &now.to_string(), body.as_bytes());
                request = request.header(vocobase::TIMESTAMP, now.to_string()).header(vocobase::SIGNATURE, signature);
            }
        }
        let request = request.body(Body::Text(body)).expect("a request");
        let answer = call(self.webhook, &self.app, request).await;
        answer.status().as_u16()
    }

    async fn stored(&self) -> usize {
        self.world.items("events").await.len()
    }
}

/// The function, its first secret's value, and what signs with the first and with the second secret.
const BOTH: [(Webhook, [&str; 4]); 2] = [
    (Webhook::SessionEnd, ["oldoldold", "k1:oldoldold", "k2:new,k1:oldoldold", "k2:new"]),
    (Webhook::SessionCompleted, ["whsec_old", "whsec_old", "whsec_new,whsec_old", "whsec_new"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_reads_its_secret_when_it_starts_and_then_every_five_minutes() {
    for (webhook, [value, old, ..]) in BOTH {
        let instance = Instance::started(webhook, value).await;
        assert_eq!(instance.manager.reads(), 1);
        for id in ["s1", "s2"] {
            assert_eq!(instance.deliver(id, old).await, 200);
        }
        instance.seconds_pass(299);
        assert_eq!(instance.deliver("s3", old).await, 200);
        assert_eq!(instance.manager.reads(), 1);
        instance.seconds_pass(1);
        assert_eq!(instance.deliver("s4", old).await, 200);
        assert_eq!(instance.deliver("s5", old).await, 200);
        assert_eq!(instance.manager.reads(), 2);
    }
}

/// A cold start waits for the slower of the two, not for their sum.
#[tokio::test(flavor = "multi_thread")]
async fn the_secret_and_the_first_connection_are_had_side_by_side() {
    // The secret is answered only while the store is being asked.
    let (being_asked, gate) = watch::channel(false);
    let manager = SecretsManager::holding("oldoldold").await.only_while(gate);
    let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = store.local_addr().expect("an address");
    tokio::spawn(async move {
        let _asked = store.accept().await;
        let _ = being_asked.send(true);
        // Less than the second after which the function gives the connection up.
        tokio::time::sleep(Duration::from_millis(800)).await;
        let _ = being_asked.send(false);
        std::future::pending::<()>().await;
    });
    let world = World::new().await;
    let mut environment = world.stores().environment();
    environment.insert("EXOTEL_TOKEN_SECRET_ARN".to_owned(), ARN.to_owned());
    environment.insert("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), manager.url.clone());
    environment.insert("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), format!("http://{address}"));
    environment.insert("SESSION_END_URL".to_owned(), "https://end.example/".to_owned());
    let lookup = |name: &str| environment.get(name).cloned();
    let app = App::from_environment(Webhook::SessionStart, &lookup, Arc::new(Instant::now)).expect("an app");
    app.warm(Webhook::SessionStart, async |app, request| call(Webhook::SessionStart, app, request).await).await;
    assert_eq!(manager.reads(), 1);
    assert!(app.session_url(Webhook::SessionEnd, "s1").is_some(), "the secret is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_secret_an_instance_answers_503_and_keeps_nothing_until_it_can_read_it() {
    for (webhook, [value, old, ..]) in BOTH {
        let manager = SecretsManager::holding("").await;
        let instance = Instance::cold(webhook, manager.clone()).await;
        instance.warm().await;
        assert_eq!(instance.deliver("s1", old).await, 503);
        manager.fail(400);
        assert_eq!(instance.deliver("s1", old).await, 503);
        // What nobody can read a key from is as good as no secret.
        manager.hold(if webhook == Webhook::SessionEnd { "k1:a,k1:b" } else { "a,,b" });
        assert_eq!(instance.deliver("s1", old).await, 503);
        assert_eq!(instance.stored().await, 0);
        manager.hold(value);
        assert_eq!(instance.deliver("s1", old).await, 200);
        assert_eq!(instance.stored().await, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_delivery_that_needs_a_new_secret_finds_it() {
    for (webhook, [value, old, both, new]) in BOTH {
        let instance = Instance::started(webhook, value).await;
        assert_eq!(instance.deliver("s1", old).await, 200);
        instance.seconds_pass(1);
        instance.manager.hold(both);
        assert_eq!(instance.deliver("s2", new).await, 200);
        assert_eq!(instance.manager.reads(), 2);
        // The old one is good until it is taken away, and then for five minutes at most.
        assert_eq!(instance.deliver("s3", old).await, 200);
        instance.manager.hold(new);
        assert_eq!(instance.deliver("s4", old).await, 200);
        instance.seconds_pass(300);
        assert_eq!(instance.deliver("s5", old).await, 401);
        assert_eq!(instance.stored().await, 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_cannot_be_read_again_leaves_the_last_one_in_place() {
    for (webhook, [value, old, _, new]) in BOTH {
        let instance = Instance::started(webhook, value).await;
        instance.manager.fail(400);
        instance.seconds_pass(3600);
        let reads = instance.manager.reads();
        // The outage is not asked after by every delivery, but every ten seconds.
        for (id, seconds, asked) in [("s1", 0, 1), ("s2", 0, 1), ("s3", 9, 1), ("s4", 1, 2)] {
            instance.seconds_pass(seconds);
            assert_eq!(instance.deliver(id, old).await, 200);
            assert_eq!(instance.manager.reads(), reads + asked, "{id}");
        }
        // It may be a new secret's, which cannot be had now: not refused for good, and not let in.
        assert_eq!(instance.deliver("s5", new).await, 503);
        assert_eq!(instance.stored().await, 4);
        instance.seconds_pass(10);
        instance.manager.hold(new);
        assert_eq!(instance.deliver("s5", new).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_deliveries_cannot_make_it_ask_without_end_nor_get_a_rightly_signed_one_refused() {
    for (webhook, [value, old, both, new]) in BOTH {
        let instance = Instance::started(webhook, value).await;
        instance.seconds_pass(1);
        let forged = if webhook == Webhook::SessionEnd { "k9:forged" } else { "forged" };
        let mut statuses = Vec::new();
        for _ in 0..40 {
            statuses.push(instance.deliver("s0", forged).await);
            instance.seconds_pass(1);
        }
        // At first as many as come, then one in two seconds. What cannot be checked is not refused for good.
        let refused = statuses.iter().filter(|status| **status == 401).count();
        assert_eq!((instance.manager.reads(), refused), (1 + 29, 29), "{statuses:?}");
        assert_eq!(statuses[..18], [401; 18]);
        assert!(statuses.ends_with(&[401, 503, 401, 503]) || statuses.ends_with(&[503, 401, 503, 401]), "{statuses:?}");
        assert_eq!(instance.deliver("s1", old).await, 200);
        // A rotation in the middle of it: the platform tries again, and is heard, whoever asked for the keys.
        assert_eq!(instance.deliver("s0", forged).await, 401);
        instance.manager.hold(both);
        instance.seconds_pass(1);
        assert_eq!(instance.deliver("s2", new).await, 503);
        instance.seconds_pass(1);
        assert_eq!(instance.deliver("s0", forged).await, 401);
        assert_eq!(instance.deliver("s2", new).await, 200);
        assert_eq!(instance.stored().await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_right_whatever_the_secret_is_refused_without_asking() {
    let instance = Instance::started(Webhook::SessionEnd, "oldoldold").await;
    instance.seconds_pass(1);
    for query in ["", "?token=", "?token=k1", "?token=k1.00", "?token=a&token=b"] {
        let request = lambda_http::http::Request::post(format!("http://127.0.0.1/{query}"));
        let request = request.body(Body::Empty).expect("a request");
        let answer = call(instance.webhook, &instance.app, request).await;
        assert_eq!(answer.status(), 401, "{query}");
    }
    assert_eq!(instance.manager.reads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn session_start_hands_out_urls_of_the_newest_secret() {
    let instance = Instance::started(Webhook::SessionStart, "k1:oldoldold").await;
    let url = || instance.app.session_url(Webhook::SessionEnd, "s1").expect("a URL");
    assert!(url().starts_with("https://end.example/?session=s1&token=k1."), "{}", url());
    instance.seconds_pass(300);
    instance.manager.hold("k2:new,k1:oldoldold");
    assert_eq!(instance.deliver("s1", "k1:oldoldold").await, 200);
    assert!(url().starts_with("https://end.example/?session=s1&token=k2."), "{}", url());
}
