//! How calls are answered: the `profiles` table's documents, of which the most specific wins, member by member.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::json::Json;
use crate::session::MAX_KEY_BYTES;
use crate::storage::ProfileItem;

/// The merged answer for one call. Every member is optional.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What the bot says first.
    pub greeting: Option<String>,
    /// Passed to the bot as they are.
    pub session_constants: Option<Json>,
    /// Which assistant converses.
    pub conversation_assistant_id: Option<String>,
    /// Where this session's webhooks go; one that is not named is left to the platform's configuration.
    pub webhooks: BTreeMap<String, Override>,
    /// What the bot says before it hands over to a human.
    pub transfer_message: Option<String>,
}

/// Where one webhook of a session goes.
#[derive(Default, Clone, PartialEq, Eq, Deserialize)]
pub struct Override {
    /// Somewhere else; without it, this bundle's own function.
    pub url: Option<String>,
    /// Insights: `timer` or what else the platform offers.
    pub trigger_type: Option<String>,
    /// Insights: seconds.
    pub trigger_interval_sec: Option<u64>,
}

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

impl Profile {
    /// Merges items, the most specific first. A member that cannot be read is passed over, with a line in the log that
    /// names it.
    pub fn merge(items: &[ProfileItem]) -> Self {
        // An empty text says nothing, but it does keep a more general profile from saying something.
        let said = |text: &String| !text.is_empty();
        let mut webhooks: Option<BTreeMap<String, Override>> = first(items, "webhooks");
        for wanted in webhooks.iter_mut().flat_map(BTreeMap::values_mut) {
            wanted.url = wanted.url.take().filter(said);
        }
        Self {
            greeting: first(items, "greeting").filter(said),
            session_constants: first(items, "session_constants").filter(is_map),
            conversation_assistant_id: first(items, "conversation_assistant_id").filter(said),
            webhooks: webhooks.unwrap_or_default(),
            transfer_message: first(items, "transfer_message").filter(said),
        }
    }
}

/// The platform takes constants as an object only.
fn is_map(constants: &Json) -> bool {
    let is_map = constants.as_str().starts_with('{');
    if !is_map {
        tracing::warn!(member = "session_constants", "a member of a profile is no map and is passed over");
    }
    is_map
}

fn first<T: DeserializeOwned>(items: &[ProfileItem], member: &str) -> Option<T> {
    items.iter().find_map(|item| {
        let (_, value) = item.members.iter().find(|(name, _)| name == member)?;
        let read = serde_json::from_str(value.as_str()).ok();
        if read.is_none() {
            // The rest of the name can be a telephone number.
            let kind = item.name.split('#').next().unwrap_or_default();
            tracing::warn!(profile = kind, member, "a member of a profile cannot be read and is passed over");
        }
        read
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(name: &str, members: &[(&str, &str)]) -> ProfileItem {
        let members = members.iter().map(|(name, json)| ((*name).to_owned(), Json::parse(json).unwrap())).collect();
        ProfileItem { name: name.to_owned(), members }
    }

    #[test]
    fn the_most_specific_wins_member_by_member() {
        let profile = Profile::merge(&[
            item("bot#b1", &[("greeting", r#""Hello from b1""#)]),
            item(
                "number#+1",
                &[("greeting", r#""Hello""#), ("session_constants", r#"{"tier":12345678901234567890123}"#)],
            ),
            item("default", &[("transfer_message", r#""One moment""#), ("session_constants", "{}")]),
        ]);
        assert_eq!(profile.greeting.as_deref(), Some("Hello from b1"));
        assert_eq!(profile.session_constants.unwrap().as_str(), r#"{"tier":12345678901234567890123}"#);
        assert_eq!(profile.transfer_message.as_deref(), Some("One moment"));
    }

    #[test]
    fn an_empty_text_is_not_sent_and_an_empty_url_is_the_bundles_own() {
        let profile = Profile::merge(&[
            item("bot#b1", &[("greeting", r#""""#), ("webhooks", r#"{"session_end":{"url":""}}"#)]),
            item("default", &[("greeting", r#""Hi""#)]),
        ]);
        assert_eq!((profile.greeting, profile.webhooks["session_end"].url.as_ref()), (None, None));
    }

    #[test]
    fn a_member_that_cannot_be_read_gives_way_to_the_next_profile() {
        let profile =
            Profile::merge(&[item("bot#b1", &[("greeting", "7")]), item("default", &[("greeting", r#""Hi""#)])]);
        assert_eq!(profile.greeting.as_deref(), Some("Hi"));
    }

    #[test]
    fn names_that_cannot_be_keys_are_left_out() {
        assert_eq!(names(Some(&"b".repeat(3000)), Some("+1")), ["number#+1", "default"]);
        assert_eq!(names(None, None), ["default"]);
    }
}
