//! A call as JSON, for those outside: events, commands, pages.

use std::collections::BTreeMap;

use super::{Call, Field, Kind};
use crate::json::Json;

impl Call {
    /// What is known of a call, each value as what it is: numbers keep their digits, and JSON that the table keeps as text is
    /// JSON again.
    pub fn told(&self) -> BTreeMap<String, Json> {
        let mut told = BTreeMap::from([("state".to_owned(), Json::text(self.state.name()))]);
        let mut tell = |name: &str, value: Json| drop(told.insert(name.to_owned(), value));
        if let Some(at) = self.started_at {
            tell("started_at", Json::text(&at.to_string()));
        }
        if !self.bots.is_empty() {
            let bots: Vec<Json> = self.bots.iter().map(|bot| Json::text(bot)).collect();
            tell("bots", Json::list(&bots));
        }
        if self.transfer_requested {
            tell("transfer_requested", data("true"));
        }
        if let Some(duration) = self.derived_duration_seconds() {
            tell(Field::DurationSeconds.name(), number(&duration));
        }
        // The brief is for who takes over, and comes with the request for one.
        for (field, said) in self.fields.iter().filter(|(field, _)| **field != Field::Brief) {
            let value = match (field, field.kind()) {
                (Field::Metadata | Field::CustomParameters | Field::Variables | Field::Extraction, _) => {
                    data(&said.value)
                }
                (_, Kind::Number) => number(&said.value),
                (_, Kind::Text) => Json::text(&said.value),
            };
            tell(field.name(), value);
        }
        if !self.insights.is_empty() {
            let latest = self.insights.iter().map(|(kind, said)| (kind.clone(), data(&said.value))).collect();
            tell("insights", Json::object(&latest));
        }
        told
    }
}

/// JSON that was kept as text; as text if somebody made it none.
pub fn data(kept: &str) -> Json {
    Json::parse(kept).unwrap_or_else(|_| Json::text(kept))
}

/// A plain decimal as a number, else as text.
pub fn number(digits: &str) -> Json {
    match serde_json::from_str::<serde_json::Number>(digits) {
        Ok(_) => data(digits),
        Err(_) => Json::text(digits),
    }
}
