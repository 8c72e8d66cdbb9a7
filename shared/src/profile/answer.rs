//! What a call's profiles say, rendered. What cannot be said is replaced by the next best, and noted.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use minijinja::Value;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use url::Url;

use super::template::{self, Fault, mentions};
use super::{Known, member, zone};
use crate::json::Json;
use crate::session::Webhook;
use crate::storage::ProfileItem;

/// Where one webhook of a session goes.
#[derive(Default, Clone, PartialEq, Eq, Deserialize)]
pub struct Override {
    /// Somewhere else; without it, this bundle's own function. A template.
    pub url: Option<String>,
    /// Insights: `timer` or what else the platform offers.
    pub trigger_type: Option<String>,
    /// Insights: seconds.
    pub trigger_interval_sec: Option<u64>,
}

/// What the platform lets a session override: everything but `session_start` itself.
pub const OVERRIDABLE: [Webhook; 4] =
    [Webhook::SessionEnd, Webhook::PreAgentTransfer, Webhook::InsightsEvents, Webhook::TranscriptEvents];

/// Why an answer is not what its profiles ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// There is no profile for the call.
    NoProfile,
    /// The profiles could not be read: the last good ones, or none.
    ProfilesFailed,
    /// The profiles did not come in time: the last good ones, or none.
    ProfilesSlow,
    /// A member is not of its type: the next profile's.
    MemberUnreadable,
    /// A template cannot be rendered: without history, or the next profile's.
    TemplateFailed,
    /// The caller's history could not be read: without.
    HistoryFailed,
    /// The caller's history did not come in time: without.
    HistorySlow,
    /// There is no such time zone: UTC.
    TimezoneUnknown,
    /// The request is longer than templates see: without it.
    RequestTooLong,
    /// A webhook cannot be sent elsewhere, or not there: as the platform is configured.
    WebhookUnusable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::NoProfile,
        Self::ProfilesFailed,
        Self::ProfilesSlow,
        Self::MemberUnreadable,
        Self::TemplateFailed,
        Self::HistoryFailed,
        Self::HistorySlow,
        Self::TimezoneUnknown,
        Self::RequestTooLong,
        Self::WebhookUnusable,
    ];

    /// The word in metrics and logs, such as `template_failed`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoProfile => "no_profile",
            Self::ProfilesFailed => "profiles_failed",
            Self::ProfilesSlow => "profiles_slow",
            Self::MemberUnreadable => "member_unreadable",
            Self::TemplateFailed => "template_failed",
            Self::HistoryFailed => "history_failed",
            Self::HistorySlow => "history_slow",
            Self::TimezoneUnknown => "timezone_unknown",
            Self::RequestTooLong => "request_too_long",
            Self::WebhookUnusable => "webhook_unusable",
        }
    }
}

/// That something was replaced by the next best.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fallback {
    /// Why.
    pub reason: Reason,
    /// The kind of profile: `bot`, `number` or `default`. The rest of its name can be a telephone number.
    pub profile: Option<String>,
    /// Which member.
    pub member: Option<&'static str>,
    /// What is wrong with a template, which may quote the request: for its author, and for no log.
    pub fault: Option<Fault>,
}

impl From<Reason> for Fallback {
    fn from(reason: Reason) -> Self {
        Self { reason, profile: None, member: None, fault: None }
    }
}

/// An answer in the making.
pub struct Answer<'a> {
    profiles: &'a [Arc<ProfileItem>],
    known: &'a Known<'a>,
    zone: TimeZone,
    /// Without and with the caller's history, once a template needs them: most answers are plain texts.
    variables: [OnceCell<Value>; 2],
    until: Instant,
    /// What was replaced so far.
    pub fallbacks: Vec<Fallback>,
}

/// What the next best of something is asked with.
type Said<T> = Result<T, Fault>;

impl<'a> Answer<'a> {
    /// From a call's profiles, the most specific first. After `until` nothing is rendered any more.
    pub fn new(profiles: &'a [Arc<ProfileItem>], known: &'a Known<'a>, until: Instant) -> Self {
        let mut fallbacks: Vec<Fallback> = Vec::new();
        if profiles.is_empty() {
            fallbacks.push(Reason::NoProfile.into());
        }
        let zone = zone(profiles).unwrap_or_else(|()| {
            fallbacks.push(Reason::TimezoneUnknown.into());
            TimeZone::UTC
        });
        if known.request_is_too_long() {
            fallbacks.push(Reason::RequestTooLong.into());
        }
        Self { profiles, known, zone, variables: [OnceCell::new(), OnceCell::new()], until, fallbacks }
    }

    /// A text. An empty one says nothing, but it does keep a more general profile from saying something.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.first(name, |text: &String, render| render(text)).filter(|text| !text.is_empty())
    }

    /// The constants. The platform takes an object only.
    pub fn constants(&mut self) -> Option<Json> {
        let name = "session_constants";
        self.first(name, |constants: &Constants, render| constants.0.map_texts(render))
    }

    /// Where the session's webhooks go.
    pub fn webhooks(&mut self) -> BTreeMap<Webhook, Override> {
        let wanted = self.first("webhooks", |webhooks: &BTreeMap<String, Override>, _| Ok(webhooks.clone()));
        let mut targets = BTreeMap::new();
        for (name, mut target) in wanted.unwrap_or_default() {
            let webhook = name.parse().ok().filter(|webhook: &Webhook| OVERRIDABLE.contains(webhook));
            let url = target.url.take().map(|url| self.render(&url, true)).transpose();
            let usable = |url: &Option<String>| url.as_deref().is_none_or(|url| url.is_empty() || is_usable(url));
            match (webhook, url) {
                (Some(webhook), Ok(url)) if usable(&url) => {
                    target.url = url.filter(|url| !url.is_empty());
                    targets.insert(webhook, target);
                }
                (_, url) => {
                    let (reason, member) = (Reason::WebhookUnusable, Some("webhooks"));
                    self.fallbacks.push(Fallback { reason, profile: None, member, fault: url.err() });
                }
            }
        }
        targets
    }

    /// The member of the most specific profile that has it and whose member can be said.
    fn first<T: DeserializeOwned, R>(
        &mut self,
        name: &'static str,
        say: impl Fn(&T, &dyn Fn(&str) -> Said<String>) -> Said<R>,
    ) -> Option<R> {
        for item in self.profiles {
            let Some(read) = member::<T>(item, name) else { continue };
            let kind = item.name.split('#').next().map(str::to_owned);
            let fallback = |reason, fault| Fallback { reason, profile: kind.clone(), member: Some(name), fault };
            let Ok(value) = read else {
                self.fallbacks.push(fallback(Reason::MemberUnreadable, None));
                continue;
            };
            match say(&value, &|text| self.render(text, true)) {
                Ok(said) => return Some(said),
                Err(fault) => self.fallbacks.push(fallback(Reason::TemplateFailed, Some(fault))),
            }
            let source = item.members.iter().find(|(member, _)| member == name);
            let needs_history = source.is_some_and(|(_, text)| mentions(text.as_str(), "history"));
            if needs_history
                && self.known.history.is_some()
                && let Ok(said) = say(&value, &|text| self.render(text, false))
            {
                return Some(said);
            }
        }
        None
    }

    fn render(&self, text: &str, with_history: bool) -> Said<String> {
        if !template::is_template(text) {
            return template::check(text).map(|()| text.to_owned());
        }
        let variables = &self.variables[usize::from(with_history)];
        let variables = variables.get_or_init(|| self.known.variables(&self.zone, with_history));
        template::render(text, variables, self.until)
    }
}

/// An object.
struct Constants(Json);

impl<'de> Deserialize<'de> for Constants {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(deserializer)?;
        let is_object = json.as_str().starts_with('{');
        is_object.then_some(Self(json)).ok_or_else(|| serde::de::Error::custom("not an object"))
    }
}

/// A platform posts to it what callers say: over TLS, unless it does not leave this machine.
pub(super) fn is_usable(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => true,
        ("http", Some(host)) => ["127.0.0.1", "localhost", "[::1]"].contains(&host),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, members: &[(&str, &str)]) -> Arc<ProfileItem> {
        let members = members.iter().map(|(name, json)| ((*name).to_owned(), Json::parse(json).unwrap())).collect();
        Arc::new(ProfileItem { name: name.to_owned(), members })
    }

    fn answer<T>(profiles: &[Arc<ProfileItem>], say: impl FnOnce(&mut Answer<'_>) -> T) -> (T, Vec<&'static str>) {
        let now = crate::Instant::parse("2026-03-15T14:30:00Z").unwrap();
        let known = Known { received: None, now, history: None };
        let until = Instant::now() + tokio::time::Duration::from_secs(5);
        let mut answer = Answer::new(profiles, &known, until);
        let said = say(&mut answer);
        (said, answer.fallbacks.iter().map(|fallback| fallback.reason.name()).collect())
    }

    #[test]
    fn the_most_specific_wins_member_by_member() {
        let profiles = [
            item("bot#b1", &[("greeting", r#""Hello from b1""#)]),
            item(
                "number#+1",
                &[("greeting", r#""Hello""#), ("session_constants", r#"{"tier":12345678901234567890123}"#)],
            ),
            item("default", &[("transfer_message", r#""One moment""#), ("session_constants", "{}")]),
        ];
        let (said, fallbacks) = answer(&profiles, |answer| {
            (answer.text("greeting"), answer.constants().unwrap().into_string(), answer.text("transfer_message"))
        });
        let constants = r#"{"tier":12345678901234567890123}"#.to_owned();
        assert_eq!(said, (Some("Hello from b1".to_owned()), constants, Some("One moment".to_owned())));
        assert_eq!(fallbacks, Vec::<&str>::new());
    }

    #[test]
    fn an_empty_text_is_not_sent_and_an_empty_url_is_the_bundles_own() {
        let profiles = [
            item("bot#b1", &[("greeting", r#""""#), ("webhooks", r#"{"session_end":{"url":""}}"#)]),
            item("default", &[("greeting", r#""Hi""#)]),
        ];
        let ((greeting, webhooks), _) = answer(&profiles, |answer| (answer.text("greeting"), answer.webhooks()));
        assert_eq!((greeting, webhooks[&Webhook::SessionEnd].url.as_ref()), (None, None));
    }

    #[test]
    fn what_cannot_be_said_gives_way_to_the_next_profile_and_is_noted() {
        for (bot, reason) in [
            ("7", "member_unreadable"),
            (r#""{{ broken""#, "template_failed"),
            (r#""{% for a in 'x' * 100 %}{% for b in request %}{% endfor %}{% endfor %}""#, "template_failed"),
        ] {
            let profiles = [item("bot#b1", &[("greeting", bot)]), item("default", &[("greeting", r#""Hi""#)])];
            let (said, fallbacks) = answer(&profiles, |answer| answer.text("greeting"));
            assert_eq!((said.as_deref(), fallbacks), (Some("Hi"), vec![reason]), "{bot}");
        }
        // One constant that fails takes the others with it: half of them would be a guess.
        let half = item("bot#b1", &[("session_constants", r#"{"a":"x","b":"{{ broken"}"#)]);
        let (said, fallbacks) = answer(&[half], |answer| answer.constants().map(Json::into_string));
        assert_eq!((said, fallbacks), (None, vec!["template_failed"]));
        let (said, fallbacks) = answer(&[], |answer| answer.text("greeting"));
        assert_eq!((said, fallbacks), (None, vec!["no_profile"]));
        let zone = item("default", &[("timezone", r#""Mars/Olympus""#), ("greeting", r#""{{ now.timezone }}""#)]);
        let (said, fallbacks) = answer(&[zone], |answer| answer.text("greeting"));
        assert_eq!((said.as_deref(), fallbacks), (Some("UTC"), vec!["timezone_unknown"]));
    }

    #[test]
    fn a_webhook_goes_only_where_it_can() {
        let webhooks = r#"{"session_end":{"url":"https://crm.example/{{ now.year }}"},"session_start":{},"nonsense":{},
            "pre_agent_transfer":{"url":"ftp://crm.example/"},"insights_events":{"url":"http://crm.example/"},
            "transcript_events":{"url":"http://127.0.0.1:9000/x"}}"#;
        let (targets, fallbacks) = answer(&[item("default", &[("webhooks", webhooks)])], |answer| {
            answer.webhooks().into_iter().collect::<Vec<_>>()
        });
        let urls: Vec<_> = targets.iter().map(|(webhook, target)| (*webhook, target.url.as_deref().unwrap())).collect();
        assert_eq!(
            urls,
            [(Webhook::SessionEnd, "https://crm.example/2026"), (Webhook::TranscriptEvents, "http://127.0.0.1:9000/x")]
        );
        assert_eq!(fallbacks, ["webhook_unusable"; 4]);
    }

    #[test]
    fn without_time_a_template_is_not_said_and_a_plain_text_is() {
        let profiles =
            [item("bot#b1", &[("greeting", r#""{{ now.year }}""#)]), item("default", &[("greeting", r#""Hi""#)])];
        let now = crate::Instant::parse("2026-03-15T14:30:00Z").unwrap();
        let known = Known { received: None, now, history: None };
        let late = Instant::now() - tokio::time::Duration::from_secs(1);
        assert_eq!(Answer::new(&profiles, &known, late).text("greeting").as_deref(), Some("Hi"));
    }
}
