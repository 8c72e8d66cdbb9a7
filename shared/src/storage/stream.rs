//! What a table's stream tells: one change of one item. Source: AWS Lambda Developer Guide, "Using AWS Lambda with
//! Amazon DynamoDB", example event; DynamoDB API Reference, "`StreamRecord`" and "`AttributeValue`".

use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::attributes::{Item, b};
use crate::instant::Instant;

/// What a function is invoked with by the streams of tables.
#[derive(Deserialize)]
pub struct Invocation {
    /// Source: AWS Lambda Developer Guide, "Using AWS Lambda with Amazon DynamoDB", example event.
    #[serde(rename = "Records")]
    pub records: Vec<Change>,
}

/// A record of a table's stream.
pub struct Change {
    /// The table's physical name.
    pub table: String,
    /// Whether the item is new.
    pub is_new: bool,
    /// The item's key.
    pub keys: Item,
    /// The item after the change; empty if it is gone.
    pub after: Item,
    /// The item before the change, as far as the stream tells; empty if there was none.
    pub before: Item,
    /// Where the stream stands with this record.
    pub sequence_number: String,
    /// When the item was changed, about.
    pub at: Option<Instant>,
}

/// Which records of an invocation are to be brought again.
#[derive(Debug, Serialize, PartialEq, Eq, Default)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Source: AWS Lambda Developer Guide, "Configuring partial batch response with DynamoDB and Lambda".
    pub batch_item_failures: Vec<ItemFailure>,
}

/// One of them.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ItemFailure {
    /// Its sequence number.
    pub item_identifier: String,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "eventName")]
    name: String,
    #[serde(rename = "eventSourceARN")]
    arn: String,
    dynamodb: Images,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Images {
    #[serde(default)]
    keys: Map<String, Value>,
    #[serde(default)]
    new_image: Map<String, Value>,
    #[serde(default)]
    old_image: Map<String, Value>,
    sequence_number: String,
    /// Seconds since 1970.
    #[serde(default)]
    approximate_creation_date_time: Option<f64>,
}

impl<'de> Deserialize<'de> for Change {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Record { name, arn, dynamodb } = Record::deserialize(deserializer)?;
        let wrong = |what: &str| serde::de::Error::custom(format!("a stream's record has {what}"));
        // arn:aws:dynamodb:<region>:<account>:table/<name>/stream/<label>
        let table = arn.split_once(":table/").and_then(|(_, rest)| rest.split('/').next());
        let table = table.ok_or_else(|| wrong("the ARN of no table"))?.to_owned();
        let item = |image| item(image).ok_or_else(|| wrong("an attribute that cannot be read"));
        #[allow(clippy::cast_possible_truncation, reason = "a float becomes the nearest i64: whole seconds will do")]
        let at = dynamodb.approximate_creation_date_time.and_then(|at| Instant::from_unix_seconds(at as i64));
        Ok(Self {
            table,
            is_new: name == "INSERT",
            keys: item(dynamodb.keys)?,
            after: item(dynamodb.new_image)?,
            before: item(dynamodb.old_image)?,
            sequence_number: dynamodb.sequence_number,
            at,
        })
    }
}

fn item(image: Map<String, Value>) -> Option<Item> {
    image.into_iter().map(|(name, value)| Some((name, attribute(value)?))).collect()
}

/// `{"S": "text"}` as the SDK holds it.
fn attribute(value: Value) -> Option<AttributeValue> {
    let Value::Object(value) = value else { return None };
    let (kind, value) = value.into_iter().next()?;
    let texts = |value| serde_json::from_value::<Vec<String>>(value).ok();
    let bytes = |text: &str| STANDARD.decode(text).ok().map(b);
    Some(match (kind.as_str(), value) {
        ("S", Value::String(text)) => AttributeValue::S(text),
        ("N", Value::String(text)) => AttributeValue::N(text),
        ("B", Value::String(text)) => bytes(&text)?,
        ("BOOL", Value::Bool(flag)) => AttributeValue::Bool(flag),
        ("NULL", _) => AttributeValue::Null(true),
        ("M", Value::Object(members)) => AttributeValue::M(item(members)?),
        ("L", Value::Array(values)) => AttributeValue::L(values.into_iter().map(attribute).collect::<Option<_>>()?),
        ("SS", values) => AttributeValue::Ss(texts(values)?),
        ("NS", values) => AttributeValue::Ns(texts(values)?),
        // The bundle keeps none, and passes those of others over.
        ("BS", _) => AttributeValue::Bs(Vec::new()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::attributes::{n, s};
    use super::*;

    #[test]
    fn a_record_is_read_as_lambda_brings_it() {
        let record = json!({
            "eventID": "c4ca4238a0b923820dcc509a6f75849b", "eventName": "INSERT", "eventVersion": "1.1",
            "eventSource": "aws:dynamodb", "awsRegion": "us-east-1",
            "dynamodb": {
                "Keys": { "session": { "S": "exotel#s1" } },
                "NewImage": { "session": { "S": "exotel#s1" }, "bots": { "SS": ["b1"] }, "body_gz": { "B": "AAE=" },
                    "insights": { "M": { "mood": { "L": [{ "N": "1.5" }, { "BOOL": true }, { "NULL": true }] } } } },
                "ApproximateCreationDateTime": 1_773_585_000.0, "SequenceNumber": "4421584500000000017450439091",
                "SizeBytes": 26, "StreamViewType": "NEW_AND_OLD_IMAGES" },
            "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/prod-events/stream/2026-03-15T14:30:00.000",
        });
        let change: Change = serde_json::from_value(record.clone()).unwrap();
        assert_eq!((change.table.as_str(), change.is_new), ("prod-events", true));
        assert_eq!(change.sequence_number, "4421584500000000017450439091");
        assert_eq!(change.at, Instant::parse("2026-03-15T14:30:00Z"));
        assert_eq!(change.keys, Item::from([("session".to_owned(), s("exotel#s1"))]));
        let list = AttributeValue::L(vec![n("1.5"), AttributeValue::Bool(true), AttributeValue::Null(true)]);
        let insights = AttributeValue::M(Item::from([("mood".to_owned(), list)]));
        let expected = [
            ("session".to_owned(), s("exotel#s1")),
            ("bots".to_owned(), AttributeValue::Ss(vec!["b1".to_owned()])),
            ("body_gz".to_owned(), b(vec![0, 1])),
            ("insights".to_owned(), insights),
        ];
        assert_eq!(change.after, Item::from(expected));
        assert_eq!(change.before, Item::new());

        let mut odd = record;
        odd["dynamodb"]["NewImage"]["session"] = json!({ "S": 5 });
        assert!(serde_json::from_value::<Change>(odd).is_err());
    }
}
