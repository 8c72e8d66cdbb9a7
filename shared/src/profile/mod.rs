//! How calls are answered: the `profiles` table's documents, of which the most specific wins, member by member.
//!
//! Their texts are templates. Whatever is wrong with one, the caller is answered: with what is left of it, or with the
//! next more general profile, and in the end without.

mod answer;
mod cache;
mod document;
pub mod template;
mod variables;

pub use answer::{Answer, Fallback, OVERRIDABLE, Override, Reason};
pub use cache::Cache;
pub use document::{EXAMPLE_REQUEST, MAX_DOCUMENT, MEMBERS, Problem, check, example_history};
pub use variables::{Known, MAX_REQUEST, Received};

use std::sync::Arc;

use jiff::tz::TimeZone;
use serde::de::DeserializeOwned;

use crate::json::Json;
use crate::session::{MAX_KEY_BYTES, Webhook};
use crate::storage::ProfileItem;

/// The names under which a call's profiles are looked up, the most specific first: `bot#…`, `number#…`, `default`.
pub fn names(bot: Option<&str>, landing_number: Option<&str>) -> Vec<String> {
    let key = |kind: &str, id: Option<&str>| id.map(|id| format!("{kind}#{id}"));
    // A key that DynamoDB would refuse is nobody's profile, and must not cost the call the ones it has.
    let fits = |name: &String| name.len() <= MAX_KEY_BYTES;
    [key("bot", bot), key("number", landing_number), Some("default".to_owned())]
        .into_iter()
        .flatten()
        .filter(fits)
        .collect()
}

/// What a webhook's answer is made of.
const fn said_by(webhook: Webhook) -> &'static [&'static str] {
    match webhook {
        Webhook::SessionStart => &["greeting", "session_constants", "conversation_assistant_id", "webhooks"],
        Webhook::PreAgentTransfer => &["transfer_message"],
        _ => &[],
    }
}

/// Whether an answer needs the caller's history: `memory` is on, and a text mentions it.
pub fn remembers(profiles: &[Arc<ProfileItem>], webhook: Webhook) -> bool {
    let memory: Option<bool> = profiles.iter().find_map(|item| member(item, "memory")?.ok());
    let needs = |(name, value): &(String, Json)| {
        said_by(webhook).contains(&name.as_str()) && template::mentions(value.as_str(), "history")
    };
    memory == Some(true) && profiles.iter().any(|item| item.members.iter().any(needs))
}

/// By whose clock the profile speaks; `Err` where there is no such zone.
fn zone(profiles: &[Arc<ProfileItem>]) -> Result<TimeZone, ()> {
    let name: Option<String> = profiles.iter().find_map(|item| member(item, "timezone")?.ok());
    name.map_or(Ok(TimeZone::UTC), |name| TimeZone::get(&name).map_err(|_| ()))
}

/// A member of a profile, `None` if it has none of that name and `Err` if that is not what it should be.
fn member<T: DeserializeOwned>(item: &ProfileItem, name: &str) -> Option<Result<T, serde_json::Error>> {
    let (_, value) = item.members.iter().find(|(member, _)| member == name)?;
    Some(serde_json::from_str(value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_keys_are_left_out() {
        assert_eq!(names(Some(&"b".repeat(3000)), Some("+1")), ["number#+1", "default"]);
        assert_eq!(names(None, None), ["default"]);
    }

    #[test]
    fn history_is_asked_for_only_where_memory_is_on_and_a_text_needs_it() {
        let item = |members: &[(&str, &str)]| {
            let members = members.iter().map(|(name, json)| ((*name).to_owned(), Json::parse(json).unwrap())).collect();
            Arc::new(ProfileItem { name: "default".to_owned(), members })
        };
        let needs = ("greeting", r#""{{ history.calls }}""#);
        for (members, wants) in [
            (vec![("memory", "true"), needs], true),
            (
                vec![("memory", "true"), ("session_constants", r#"{"a":{"b":"{% if history.last %}x{% endif %}"}}"#)],
                true,
            ),
            (vec![("memory", "true"), ("greeting", r#""our history""#)], false),
            (vec![("memory", "true"), ("transfer_message", r#""{{ history.calls }}""#)], false),
            (vec![("memory", "false"), needs], false),
            (vec![("memory", "\"true\""), needs], false),
            (vec![needs], false),
        ] {
            assert_eq!(remembers(&[item(&members)], Webhook::SessionStart), wants, "{members:?}");
        }
        // The more specific profile decides.
        let profiles = [item(&[("memory", "false")]), item(&[("memory", "true"), needs])];
        assert!(!remembers(&profiles, Webhook::SessionStart));
    }
}
