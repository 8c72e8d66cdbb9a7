//! JSON kept as canonical text: keys sorted, no white space, numbers with their own digits. Equal values have equal
//! text whatever their spelling, and nothing a platform sends is too deep or too precise to be kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What nests deeper is no call's data but somebody's attack on the stack.
const MAX_DEPTH: usize = 128;

/// One JSON value as canonical text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Json(String);

impl Json {
    /// Reads a JSON text; the last of duplicate keys counts.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let raw: &RawValue = serde_json::from_str(text)?;
        let mut canonical = String::with_capacity(raw.get().len());
        write_canonical(raw.get(), MAX_DEPTH, &mut canonical)?;
        Ok(Self(canonical))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, owned.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Whether it says nothing: `null`, `{}`, `[]` or `""`.
    pub fn is_empty(&self) -> bool {
        matches!(self.0.as_str(), "null" | "{}" | "[]" | "\"\"")
    }
}

/// Redacted: custom parameters and extractions hold what callers said.
impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted json]")
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

fn write_canonical(text: &str, depth: usize, out: &mut String) -> Result<(), serde_json::Error> {
    let deeper = || depth.checked_sub(1).ok_or_else(|| serde::de::Error::custom("nested too deep"));
    match text.trim_start().as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            write_members(members.iter().map(|(key, value)| (Some(key), value.get())), ('{', '}'), deeper()?, out)
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(text)?;
            write_members(elements.iter().map(|value| (None, value.get())), ('[', ']'), deeper()?, out)
        }
        Some(b'"') => {
            let value: String = serde_json::from_str(text)?;
            out.push_str(&serde_json::to_string(&value)?);
            Ok(())
        }
        _ => {
            out.push_str(text.trim());
            Ok(())
        }
    }
}

fn write_members<'a>(
    members: impl Iterator<Item = (Option<&'a String>, &'a str)>,
    (open, close): (char, char),
    depth: usize,
    out: &mut String,
) -> Result<(), serde_json::Error> {
    out.push(open);
    for (index, (key, value)) in members.enumerate() {
        if index > 0 {
            out.push(',');
        }
        if let Some(key) = key {
            out.push_str(&serde_json::to_string(key)?);
            out.push(':');
        }
        write_canonical(value, depth, out)?;
    }
    out.push(close);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spelling_does_not_matter_but_digits_do() {
        let one = Json::parse(r#" { "b" : [ 1.10 , "\u00e9" ], "a" : 12345678901234567890123456789012345678901 } "#);
        assert_eq!(one.unwrap().as_str(), r#"{"a":12345678901234567890123456789012345678901,"b":[1.10,"é"]}"#);
    }

    #[test]
    fn forty_levels_are_kept_and_bombs_are_refused() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(Json::parse(&deep(40)).unwrap().as_str(), deep(40));
        assert!(Json::parse(&deep(100_000)).is_err());
    }
}
