//! What the platforms send, read leniently: unknown members are passed over (the event keeps the body verbatim),
//! unknown words are kept, scalars may come as text or number, and `null`, `""` and a member of an unexpected shape
//! are all "not said".

pub mod exotel;
pub mod vocobase;

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::instant::Instant;
use crate::json::Json;

/// A text, a number or a boolean as text; anything else and the empty text are `None`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    match raw.get().as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        Some(b'{' | b'[' | b'n') | None => Ok(None),
        Some(_) => Ok(Some(raw.get().to_owned())),
    }
}

/// An instant as [`Instant::parse`] reads it; anything else is `None`.
fn instant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Instant>, D::Error> {
    // Zero is how some clocks say that they do not know.
    Ok(text(deserializer)?.and_then(|text| Instant::parse(&text)).filter(|at| at.unix_micros() > 0))
}

/// A JSON number with its own digits, also when it comes as text; anything else is `None`.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let is_number = |text: &String| serde_json::from_str::<serde_json::Number>(text).is_ok();
    Ok(text(deserializer)?.filter(is_number))
}

/// A whole number of zero or more, also when it comes as text; anything else is `None`.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(text(deserializer)?.and_then(|text| text.parse().ok()))
}

/// A boolean, also when it comes as text; anything else is `None`.
fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    Ok(text(deserializer)?.and_then(|text| text.parse().ok()))
}

/// Any JSON that says something; an object or a list may also come as its text.
fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    let json = Json::deserialize(deserializer)?;
    let inner = serde_json::from_str::<String>(json.as_str()).ok();
    let inner = inner.filter(|text| text.trim_start().starts_with(['{', '[']));
    let json = inner.and_then(|text| Json::parse(&text).ok()).unwrap_or(json);
    Ok(Some(json).filter(|json| !json.is_empty()))
}

/// A list of objects; `null` is an empty one.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let list = Option::<Vec<Object<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(list.into_iter().map(|Object(value)| value).collect())
}

/// An object.
fn object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Object::deserialize(deserializer).map(|Object(value)| value)
}

/// An object or `null`.
fn maybe_object<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|Object(value)| value))
}

/// A value that is read from a JSON object only. A derived struct would also take a list, member by member.
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}
