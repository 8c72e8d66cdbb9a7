//! What the platforms send, read leniently: unknown members are passed over (the event keeps the body verbatim),
//! unknown words are kept, scalars may come as text or number, and `null`, `""` and a member of an unexpected shape
//! are all "not said".

pub mod exotel;
pub mod vocobase;

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
    Ok(text(deserializer)?.and_then(|text| Instant::parse(&text)))
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

/// Any JSON that says something.
fn json<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Ok(Some(Json::deserialize(deserializer)?).filter(|json| !json.is_empty()))
}

/// A list; `null` is an empty one.
fn list<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}
