//! JSON kept as canonical text: keys sorted, no white space, numbers with their own digits. Equal values have equal
//! text whatever their spelling, and nothing a platform sends is too deep or too precise to be kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What nests deeper is no call's data but somebody's attack on the stack.
const MAX_DEPTH: usize = 128;
/// What is longer no item can hold, which takes 400 KB, and its parts would take many times its length in memory.
const MAX_BYTES: usize = 1024 * 1024;

/// One JSON value as canonical text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Json(String);

impl Json {
    /// Reads a JSON text of 1 MiB at most; the last of duplicate keys counts.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        if text.len() > MAX_BYTES {
            return Err(serde::de::Error::custom("too long"));
        }
        // Checks the grammar, so that what follows may rely on it.
        let raw: &RawValue = serde_json::from_str(text)?;
        Ok(Self(Reader { text: raw.get(), at: 0 }.value(MAX_DEPTH)?))
    }

    /// A text.
    pub fn text(text: &str) -> Self {
        Self(serde_json::Value::from(text).to_string())
    }

    /// A list of these.
    pub fn list<'a>(values: impl IntoIterator<Item = &'a Self>) -> Self {
        let values: Vec<&str> = values.into_iter().map(Self::as_str).collect();
        Self(format!("[{}]", values.join(",")))
    }

    /// An object of these members.
    pub fn object(members: &BTreeMap<String, Self>) -> Self {
        let member = |(name, value): (&String, &Self)| format!("{}:{}", Self::text(name).0, value.0);
        let members: Vec<String> = members.iter().map(member).collect();
        Self(format!("{{{}}}", members.join(",")))
    }

    /// A value as JSON; `null` where it has no JSON.
    pub fn of(value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).ok();
        text.and_then(|text| Self::parse(&text).ok()).unwrap_or_else(|| Self("null".to_owned()))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The canonical text, owned.
    pub fn into_string(self) -> String {
        self.0
    }

    /// The same with every text in it, but no member's name, as `each` gives it.
    pub fn map_texts<E>(&self, mut each: impl FnMut(&str) -> Result<String, E>) -> Result<Self, E> {
        let mut reader = Reader { text: &self.0, at: 0 };
        let mut out = String::with_capacity(self.0.len());
        while let Some(next) = reader.next() {
            if next != b'"' {
                // In canonical text, all that is no text is plain ASCII.
                out.push(char::from(next));
                reader.at += 1;
                continue;
            }
            let token = reader.token();
            if reader.next() == Some(b':') {
                out.push_str(token);
            } else {
                // What is canonical can be read, and any text can be written.
                let text: String = serde_json::from_str(token).unwrap_or_default();
                out.push_str(&serde_json::to_string(&each(&text)?).unwrap_or_default());
            }
        }
        Ok(Self(out))
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

/// Walks once over a text that is known to be JSON.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<String, serde_json::Error> {
        let deeper = || depth.checked_sub(1).ok_or_else(|| serde::de::Error::custom("nested too deep"));
        match self.next() {
            Some(b'{') => {
                let mut members = BTreeMap::new();
                while let Some(b'"') = self.after(b"{,") {
                    let key: String = serde_json::from_str(self.token())?;
                    self.after(b":");
                    members.insert(key, self.value(deeper()?)?);
                }
                self.after(b"}");
                let mut out = String::from("{");
                for (key, value) in members {
                    out.push_str(if out.len() > 1 { "," } else { "" });
                    out.push_str(&serde_json::to_string(&key)?);
                    out.push(':');
                    out.push_str(&value);
                }
                out.push('}');
                Ok(out)
            }
            Some(b'[') => {
                let mut out = String::from("[");
                while self.after(b"[,").is_some_and(|next| next != b']') {
                    out.push_str(if out.len() > 1 { "," } else { "" });
                    out.push_str(&self.value(deeper()?)?);
                }
                self.after(b"]");
                out.push(']');
                Ok(out)
            }
            Some(b'"') => serde_json::to_string(&serde_json::from_str::<String>(self.token())?),
            _ => Ok(self.token().to_owned()),
        }
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte after one of these, if one of these is next.
    fn after(&mut self, skipped: &[u8]) -> Option<u8> {
        if self.next().is_some_and(|next| skipped.contains(&next)) {
            self.at += 1;
        }
        self.next()
    }

    /// The string, number or word that begins here.
    fn token(&mut self) -> &'a str {
        let rest = &self.text.as_bytes()[self.at..];
        let length = if rest.first() == Some(&b'"') {
            let mut escaped = false;
            let closing = rest.iter().skip(1).position(|byte| {
                let closes = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                closes
            });
            closing.map_or(rest.len(), |closing| closing + 2)
        } else {
            let ends = |byte: &u8| matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace();
            rest.iter().position(ends).unwrap_or(rest.len())
        };
        let token = &self.text[self.at..self.at + length];
        self.at += length;
        token
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spelling_does_not_matter_but_digits_do() {
        let one = Json::parse(r#" { "b" : [ 1.10 , "\u00e9" ], "a" : 12345678901234567890123456789012345678901 } "#);
        assert_eq!(one.unwrap().as_str(), r#"{"a":12345678901234567890123456789012345678901,"b":[1.10,"é"]}"#);
    }

    #[test]
    fn what_says_nothing_is_empty() {
        for (text, empty) in [
            ("null", true),
            (" { } ", true),
            ("[ ]", true),
            (r#""""#, true),
            ("0", false),
            ("false", false),
            (r#"" ""#, false),
            ("[null]", false),
        ] {
            assert_eq!(Json::parse(text).unwrap().is_empty(), empty, "{text}");
        }
    }

    #[test]
    fn what_is_put_together_is_canonical_too() {
        let members = [("b", Json::text("\"")), ("a\"", Json::list(&[Json::text("ä"), Json::parse("1.50").unwrap()]))];
        let members = BTreeMap::from(members.map(|(name, value)| (name.to_owned(), value)));
        for json in [Json::object(&members), Json::object(&BTreeMap::new()), Json::list([])] {
            assert_eq!(Json::parse(json.as_str()).unwrap(), json);
        }
        assert_eq!(Json::object(&members).as_str(), r#"{"a\"":["ä",1.50],"b":"\""}"#);
    }

    #[test]
    fn texts_can_be_changed_and_names_and_numbers_stay() {
        let json = Json::parse(r#"{"a":"x","b":["x",{"x":"\"x:"}],"n":1.50,"t":true,"x":null}"#).unwrap();
        let changed = json.map_texts(|text| Ok::<_, ()>(format!("{text}!"))).unwrap();
        assert_eq!(changed.as_str(), r#"{"a":"x!","b":["x!",{"x":"\"x:!"}],"n":1.50,"t":true,"x":null}"#);
        assert_eq!(json.map_texts(|text| if text == "x" { Err(1) } else { Ok(String::new()) }), Err(1));
        assert_eq!(
            Json::parse("\"x\"").unwrap().map_texts(|_| Ok::<_, ()>("\"".to_owned())).unwrap().as_str(),
            r#""\"""#
        );
    }

    #[test]
    fn it_is_in_no_debug_output_and_is_written_as_it_is() {
        let json = Json::parse(r#"{"b":1.50,"a":"hunter2"}"#).unwrap();
        assert_eq!(format!("{json:?}"), "[redacted json]");
        assert_eq!(serde_json::to_string(&json).unwrap(), r#"{"a":"hunter2","b":1.50}"#);
        assert_eq!(serde_json::from_str::<Json>(r#"{ "b":1.50, "a":"hunter2" }"#).unwrap(), json);
        assert_eq!(json.into_string(), r#"{"a":"hunter2","b":1.50}"#);
    }

    #[test]
    fn every_shape_and_every_white_space_is_walked_over() {
        for (text, expected) in [
            (" [ ] ", "[]"),
            ("{ }", "{}"),
            ("[[],{},[ [ ] ,1 ]]", "[[],{},[[],1]]"),
            (" -1.5e+3 ", "-1.5e+3"),
            ("\n[ true ,\tfalse , null ]\r\n", "[true,false,null]"),
            (r#"{"a\"}":"\\","b":"]}{[,:\""}"#, r#"{"a\"}":"\\","b":"]}{[,:\""}"#),
            (r#"{"k":1,"k":{"z":2,"y":[ ]}}"#, r#"{"k":{"y":[],"z":2}}"#),
        ] {
            assert_eq!(Json::parse(text).unwrap().as_str(), expected);
        }
        assert!(Json::parse("[1,]").is_err() && Json::parse("{} {}").is_err() && Json::parse("").is_err());
    }

    proptest! {
        #[test]
        fn canonical_text_says_the_same_and_is_its_own_canonical_text(value in values()) {
            let canonical = Json::parse(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(canonical.as_str()).unwrap(), &value);
            prop_assert_eq!(Json::parse(canonical.as_str()).unwrap(), canonical);
        }
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".*".prop_map(Into::into)
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let object = proptest::collection::btree_map(".*", inner.clone(), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Into::into),
                object.prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn forty_levels_are_kept_and_bombs_are_refused() {
        let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(Json::parse(&deep(40)).unwrap().as_str(), deep(40));
        assert!(Json::parse(&deep(100_000)).is_err());
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        assert!(Json::parse(&long(MAX_BYTES)).is_ok() && Json::parse(&long(MAX_BYTES + 1)).is_err());
    }
}
