//! Deliveries as the platforms make them: with a token or signed, and made again if they are not answered 2xx.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use shared::auth::{Secret, vocobase};
use shared::{Instant, Provider, Webhook};
use tokio::time::{self, Interval, MissedTickBehavior};

use crate::endpoints::Endpoints;
use crate::{Failure, http_client};

/// Calls whose deliveries are under way at once.
pub const PARALLEL: usize = 16;
/// A delivery that is not answered 2xx is made again, as the platforms do.
const RETRY_AFTER: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Makes deliveries and hears what is answered.
pub struct Sender {
    http: reqwest::Client,
    vocobase_secret: Secret,
    every: Option<tokio::sync::Mutex<Interval>>,
    heard: Mutex<Heard>,
}

/// What was answered.
#[derive(Default)]
pub struct Heard {
    /// How often each status; `no answer` where there was none.
    pub statuses: BTreeMap<String, usize>,
    /// From each delivery to its answer.
    pub millis: Vec<f64>,
    /// Deliveries made again.
    pub retries: usize,
    /// Deliveries that were never answered 2xx.
    pub given_up: usize,
}

impl Sender {
    /// To functions that know the secret of these endpoints, at so many deliveries a second at most.
    pub fn new(endpoints: &Endpoints, rate: Option<f64>) -> Result<Self, Failure> {
        let secret = endpoints.vocobase_secret.as_deref().ok_or_else(|| {
            let set = "`hookswitch secret set vocobase --stack NAME`";
            Failure(format!("Vocobase's calls cannot be signed without its secret: {set} sets that of a stack"))
        })?;
        let every = rate.map(|rate| {
            let mut every = time::interval(Duration::from_secs_f64(1.0 / rate));
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            tokio::sync::Mutex::new(every)
        });
        Ok(Self { http: http_client()?, vocobase_secret: Secret::new(secret), every, heard: Mutex::default() })
    }

    /// Makes one delivery, again if need be; the answer's body, or `None` if it was never answered 2xx.
    pub async fn deliver(
        &self,
        urls: &BTreeMap<String, String>,
        webhook: Webhook,
        body: impl Into<Bytes>,
    ) -> Option<serde_json::Value> {
        if let Some(every) = &self.every {
            every.lock().await.tick().await;
        }
        let (url, body) = (urls.get(webhook.name()).map_or("", String::as_str), body.into());
        for retry_after in RETRY_AFTER.into_iter().map(Some).chain([None]) {
            let mut request = self.http.post(url).header("content-type", "application/json").body(body.clone());
            if webhook.provider() == Provider::Vocobase {
                let timestamp = Instant::now().to_string();
                let signature = vocobase::sign(&self.vocobase_secret, &timestamp, &body);
                request = request.header(vocobase::TIMESTAMP, timestamp).header(vocobase::SIGNATURE, signature);
            }
            let sent_at = time::Instant::now();
            let (status, answer) = match request.send().await {
                Ok(response) => (response.status().as_u16().to_string(), response.bytes().await.unwrap_or_default()),
                Err(_) => ("no answer".to_owned(), Bytes::new()),
            };
            let millis = sent_at.elapsed().as_secs_f64() * 1000.0;
            let done = status.starts_with('2');
            if let Ok(mut heard) = self.heard.lock() {
                *heard.statuses.entry(status).or_default() += 1;
                heard.millis.push(millis);
                heard.retries += usize::from(!done && retry_after.is_some());
                heard.given_up += usize::from(!done && retry_after.is_none());
            }
            match retry_after {
                _ if done => return Some(serde_json::from_slice(&answer).unwrap_or_default()),
                Some(wait) => time::sleep(wait).await,
                None => break,
            }
        }
        None
    }

    /// What was answered to all of them.
    pub fn heard(self) -> Heard {
        self.heard.into_inner().unwrap_or_default()
    }
}

/// Where an answer sends the session's other webhooks. What leads elsewhere than to the bundle is left out: a profile's
/// CRM must not hear of calls that are only played.
pub fn overrides(answer: &serde_json::Value, functions: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let config = answer.pointer("/response/data/webhook_config").and_then(serde_json::Value::as_object);
    let own = |(webhook, target): (&String, &serde_json::Value)| {
        let url = target.get("url")?.as_str()?;
        (origin(url)? == origin(functions.get(webhook)?)?).then(|| (webhook.clone(), url.to_owned()))
    };
    config.into_iter().flatten().filter_map(own).collect()
}

/// Scheme, host and port.
pub(crate) fn origin(url: &str) -> Option<url::Origin> {
    url::Url::parse(url).ok().map(|url| url.origin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_is_followed_within_the_bundle_only() {
        let functions =
            ["session_end", "insights_events"].map(|name| (name.to_owned(), format!("http://127.0.0.1:9000/{name}/")));
        let answer = serde_json::json!({ "response": { "data": { "webhook_config": {
            "session_end": { "url": "http://127.0.0.1:9000/session_end/?session=s1&token=t" },
            "insights_events": { "url": "https://crm.example/insights" } } } } });
        let followed = overrides(&answer, &BTreeMap::from(functions));
        assert_eq!(followed.into_keys().collect::<Vec<_>>(), ["session_end"]);
    }
}
