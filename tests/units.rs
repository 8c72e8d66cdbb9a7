//! Counts at the SDK's boundary: units of the tables, for which every request is made to say what it consumed, indexes
//! included, requests to the bucket, and operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::operation::batch_get_item::{BatchGetItemInput, BatchGetItemOutput};
use aws_sdk_dynamodb::operation::get_item::{GetItemInput, GetItemOutput};
use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
use aws_sdk_dynamodb::operation::query::{QueryInput, QueryOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemInput, UpdateItemOutput};
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
    BeforeTransmitInterceptorContextRef,
};
use serde_json::{Map, Value};

/// What has been consumed so far.
#[derive(Clone, Debug, Default)]
pub struct Units(Arc<Mutex<Counted>>);

/// What tables and bucket take money for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Write units, as the service counts them.
    pub units: f64,
    /// Writes that said nothing because their condition failed. Each costs at least one unit more.
    pub failed_conditions: usize,
    /// Read units, as the service counts them.
    pub read_units: f64,
    /// Requests that write to the bucket, `PUT` and `POST`.
    pub puts: usize,
    /// Requests that read from it.
    pub gets: usize,
}

impl Units {
    /// What was consumed since the last call of this.
    pub fn take(&self) -> Counted {
        std::mem::take(&mut *self.0.lock().expect("no test panics while it counts"))
    }
}

impl Intercept for Units {
    fn name(&self) -> &'static str {
        "Units"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input_mut();
        let total = Some(ReturnConsumedCapacity::Total);
        if let Some(put) = input.downcast_mut::<PutItemInput>() {
            put.return_consumed_capacity = total;
        } else if let Some(update) = input.downcast_mut::<UpdateItemInput>() {
            update.return_consumed_capacity = total;
        } else if let Some(get) = input.downcast_mut::<GetItemInput>() {
            get.return_consumed_capacity = total;
        } else if let Some(batch) = input.downcast_mut::<BatchGetItemInput>() {
            batch.return_consumed_capacity = total;
        } else if let Some(query) = input.downcast_mut::<QueryInput>() {
            query.return_consumed_capacity = total;
        }
        Ok(())
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        if request.headers().get("x-amz-target").is_none() {
            let mut counted = self.0.lock().expect("no test panics while it counts");
            match request.method() {
                "PUT" | "POST" => counted.puts += 1,
                "GET" | "HEAD" => counted.gets += 1,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let mut counted = self.0.lock().expect("no test panics while it counts");
        let units = |capacity: Option<&ConsumedCapacity>| {
            capacity.and_then(ConsumedCapacity::capacity_units).ok_or("nothing counted")
        };
        match context.output_or_error() {
            Ok(output) => {
                if let Some(put) = output.downcast_ref::<PutItemOutput>() {
                    counted.units += units(put.consumed_capacity())?;
                } else if let Some(update) = output.downcast_ref::<UpdateItemOutput>() {
                    counted.units += units(update.consumed_capacity())?;
                } else if let Some(get) = output.downcast_ref::<GetItemOutput>() {
                    counted.read_units += units(get.consumed_capacity())?;
                } else if let Some(query) = output.downcast_ref::<QueryOutput>() {
                    counted.read_units += units(query.consumed_capacity())?;
                } else if let Some(batch) = output.downcast_ref::<BatchGetItemOutput>() {
                    for capacity in batch.consumed_capacity() {
                        counted.read_units += units(Some(capacity))?;
                    }
                }
            }
            Err(_) => counted.failed_conditions += 1,
        }
        Ok(())
    }
}

/// How often each of DynamoDB's operations was sent, attempts included.
#[derive(Clone, Debug, Default)]
pub struct Operations(Arc<Mutex<BTreeMap<String, usize>>>);

impl Operations {
    /// What was sent since the last call of this.
    pub fn take(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut *self.0.lock().expect("no test panics while it counts"))
    }
}

impl Intercept for Operations {
    fn name(&self) -> &'static str {
        "Operations"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some((_, operation)) =
            context.request().headers().get("x-amz-target").and_then(|target| target.split_once('.'))
        {
            *self.0.lock().expect("no test panics while it counts").entry(operation.to_owned()).or_default() += 1;
        }
        Ok(())
    }
}

/// What an item is counted as, by its form on the wire.
/// Source: Amazon `DynamoDB` Developer Guide, "`DynamoDB` item sizes and formats".
pub fn item_bytes(item: &Map<String, Value>) -> usize {
    item.iter().map(|(name, value)| name.len() + attribute(value)).sum()
}

fn attribute(value: &Value) -> usize {
    let Some((kind, value)) = value.as_object().and_then(|typed| typed.iter().next()) else { return 0 };
    let text = |value: &Value| value.as_str().map_or(0, str::len);
    match kind.as_str() {
        "S" => text(value),
        // Two digits a byte, and one more.
        "N" => value.as_str().map_or(0, |number| number.bytes().filter(u8::is_ascii_digit).count().div_ceil(2) + 1),
        // Base64.
        "B" => text(value) / 4 * 3,
        "SS" => value.as_array().into_iter().flatten().map(text).sum(),
        "L" => 3 + value.as_array().into_iter().flatten().map(|value| 1 + attribute(value)).sum::<usize>(),
        "M" => {
            3 + value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| 1 + name.len() + attribute(value))
                .sum::<usize>()
        }
        _ => 1,
    }
}
