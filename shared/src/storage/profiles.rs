//! The `profiles` table: how calls are answered. Items are edited by people, so each member is read on its own and a
//! member that cannot be read is as if it were not there.

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};

use super::attributes::{Item, s, text};
use super::{Store, StoreError};
use crate::json::Json;

/// An item of the `profiles` table as JSON members, with its name.
pub struct ProfileItem {
    /// `default`, `bot#…` or `number#…`.
    pub name: String,
    /// The members and their values.
    pub members: Vec<(String, Json)>,
}

impl Store {
    /// The profiles of these names that exist, in the order of `names`.
    pub async fn profiles(&self, names: &[String]) -> Result<Vec<ProfileItem>, StoreError> {
        let keys = names.iter().map(|name| Item::from([("profile".into(), s(name))])).collect();
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).build();
        let wanted = wanted.map_err(|_| StoreError::Refused("the names of profiles"))?;
        let read = self.clients.dynamodb.batch_get_item().request_items(&self.tables.profiles, wanted);
        let output = read.send().await.map_err(|error| StoreError::from_sdk("a read of the profiles", &error))?;
        if output.unprocessed_keys.is_some_and(|keys| !keys.is_empty()) {
            return Err(StoreError::Unavailable { what: "a read of the profiles", code: "throttled".to_owned() });
        }
        let items = output.responses.unwrap_or_default().remove(&self.tables.profiles).unwrap_or_default();
        let found = |name: &String| items.iter().find(|item| text(item, "profile") == Some(name)).map(profile);
        Ok(names.iter().filter_map(found).collect())
    }
}

fn profile(item: &Item) -> ProfileItem {
    let members = item
        .iter()
        .filter(|(name, _)| *name != "profile")
        .filter_map(|(name, value)| Some((name.clone(), Json::parse(&json_text(value)?).ok()?)));
    ProfileItem { name: text(item, "profile").unwrap_or_default().to_owned(), members: members.collect() }
}

/// A native attribute as JSON, numbers with their own digits; `None` where it holds bytes.
fn json_text(value: &AttributeValue) -> Option<String> {
    match value {
        AttributeValue::S(text) => serde_json::to_string(text).ok(),
        AttributeValue::N(number) => Some(number.clone()),
        AttributeValue::Bool(flag) => Some(flag.to_string()),
        AttributeValue::Null(_) => Some("null".to_owned()),
        AttributeValue::L(list) => {
            Some(format!("[{}]", list.iter().map(json_text).collect::<Option<Vec<_>>>()?.join(",")))
        }
        AttributeValue::M(map) => {
            let member = |(name, value): (&String, _)| {
                Some(format!("{}:{}", serde_json::to_string(name).ok()?, json_text(value)?))
            };
            Some(format!("{{{}}}", map.iter().map(member).collect::<Option<Vec<_>>>()?.join(",")))
        }
        AttributeValue::Ss(set) => serde_json::to_string(set).ok(),
        AttributeValue::Ns(set) => Some(format!("[{}]", set.join(","))),
        _ => None,
    }
}
