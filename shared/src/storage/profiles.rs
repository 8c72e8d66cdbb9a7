//! The `profiles` table: how calls are answered. Items are edited by people, so each member is read on its own and a
//! member that cannot be read is as if it were not there.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValue};

use super::attributes::{Item, n, s, text};
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

    /// Every profile, in the order of their names.
    pub async fn all_profiles(&self) -> Result<Vec<ProfileItem>, StoreError> {
        let pages = self.clients.dynamodb.scan().table_name(&self.tables.profiles).into_paginator().items().send();
        let items: Result<Vec<Item>, _> = pages.collect().await;
        let items = items.map_err(|error| StoreError::from_sdk("a read of the profiles", &error))?;
        let mut profiles: Vec<ProfileItem> = items.iter().map(profile).collect();
        profiles.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(profiles)
    }

    /// Puts a profile in the place of what is there of its name; whether there was one.
    pub async fn put_profile(&self, profile: &ProfileItem) -> Result<bool, StoreError> {
        const WHAT: &str = "the profile";
        let member = |(name, value): &(String, Json)| Some((name.clone(), attribute(value)?));
        let item = profile.members.iter().map(member).collect::<Option<Item>>();
        let mut item = item.ok_or(StoreError::Refused(WHAT))?;
        item.insert("profile".into(), s(&profile.name));
        let put = self.clients.dynamodb.put_item().table_name(&self.tables.profiles).set_item(Some(item));
        let put = put.return_values(ReturnValue::AllOld).send().await;
        let put = put.map_err(|error| StoreError::from_sdk(WHAT, &error))?;
        Ok(put.attributes.is_some_and(|old| !old.is_empty()))
    }

    /// Deletes a profile; whether there was one.
    pub async fn delete_profile(&self, name: &str) -> Result<bool, StoreError> {
        let delete = self.clients.dynamodb.delete_item().table_name(&self.tables.profiles).key("profile", s(name));
        let deleted = delete.return_values(ReturnValue::AllOld).send().await;
        let deleted = deleted.map_err(|error| StoreError::from_sdk("a deletion of the profile", &error))?;
        Ok(deleted.attributes.is_some_and(|old| !old.is_empty()))
    }
}

/// JSON as a native attribute, numbers with their own digits.
fn attribute(value: &Json) -> Option<AttributeValue> {
    let text = value.as_str();
    Some(match text.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, Json> = serde_json::from_str(text).ok()?;
            let member = |(name, value): (String, Json)| Some((name, attribute(&value)?));
            AttributeValue::M(members.into_iter().map(member).collect::<Option<_>>()?)
        }
        b'[' => {
            let values: Vec<Json> = serde_json::from_str(text).ok()?;
            AttributeValue::L(values.iter().map(attribute).collect::<Option<_>>()?)
        }
        b'"' => s(serde_json::from_str::<String>(text).ok()?),
        b't' | b'f' => AttributeValue::Bool(text == "true"),
        b'n' => AttributeValue::Null(true),
        _ => n(text),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_becomes_attributes_and_they_the_same_json() {
        for text in [
            r#"{"a":{"b":[1,"x",null,true,false,{}],"":[]},"n":12345678901234567890123456789012345678,"t":""}"#,
            "[-0.000001,1.5]",
            r#""नमस्ते \" \n""#,
        ] {
            let json = Json::parse(text).unwrap();
            let back = json_text(&attribute(&json).unwrap()).unwrap();
            assert_eq!(Json::parse(&back).unwrap(), json);
        }
        let number = attribute(&Json::parse("12345678901234567890123.5").unwrap());
        assert_eq!(number, Some(n("12345678901234567890123.5")));
    }
}
