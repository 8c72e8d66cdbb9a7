//! What writes cost. Source: Amazon `DynamoDB` Developer Guide, "Capacity unit consumption for write operations",
//! "`DynamoDB` item sizes and formats" and "Using Global Secondary Indexes", "Write capacity units".

use std::collections::BTreeMap;

use ::tests::units::item_bytes;
use cli::Failure;
use serde_json::Value;

use super::aws::Item;

/// The keys of each table's indices, by the table's name.
pub struct Indices(BTreeMap<String, Vec<Vec<String>>>);

impl Indices {
    /// As `infra/template.yaml` has them, of the stack with this name.
    pub fn of(stack: &str) -> Result<Self, Failure> {
        let tables = cli::template::tables()?;
        let keys = tables.values().map(|table| Ok((table.physical_name(stack)?, table.index_keys())));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The units of a write that makes `after` of `before`.
    pub fn write(&self, table: &str, before: Option<&Item>, after: &Item) -> f64 {
        let larger = before.map_or(0, item_bytes).max(item_bytes(after));
        // What lacks a part of an index's key is not in it.
        let entry = |of: Option<&Item>, key: &[String]| -> Option<Vec<Value>> {
            key.iter().map(|name| of?.get(name).cloned()).collect()
        };
        let moved =
            self.0.get(table).into_iter().flatten().map(|key| match (entry(before, key), entry(Some(after), key)) {
                (before, after) if before == after => 0.0,
                (Some(_), Some(_)) => 2.0,
                _ => 1.0,
            });
        blocks(larger, 1024) + moved.sum::<f64>()
    }
}

/// Started blocks, at least one.
#[allow(clippy::cast_precision_loss, reason = "an item has at most 400 KB")]
pub fn blocks(bytes: usize, block: usize) -> f64 {
    bytes.div_ceil(block).max(1) as f64
}
