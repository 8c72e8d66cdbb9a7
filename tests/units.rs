//! Counts at the SDK's boundary: write units, for which every write is made to say what it consumed, indexes included,
//! and operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::operation::put_item::{PutItemInput, PutItemOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemInput, UpdateItemOutput};
use aws_sdk_dynamodb::types::{ConsumedCapacity, ReturnConsumedCapacity};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
    BeforeTransmitInterceptorContextRef,
};

/// What has been consumed so far.
#[derive(Clone, Debug, Default)]
pub struct Units(Arc<Mutex<Counted>>);

/// Write units, and the writes that said nothing because their condition failed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// As the service counts them.
    pub units: f64,
    /// Each costs at least one unit more.
    pub failed_conditions: usize,
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
        if let Some(put) = input.downcast_mut::<PutItemInput>() {
            put.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
        } else if let Some(update) = input.downcast_mut::<UpdateItemInput>() {
            update.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
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
        match context.output_or_error() {
            Ok(output) => {
                let put = output.downcast_ref::<PutItemOutput>().map(|put| put.consumed_capacity());
                let update = output.downcast_ref::<UpdateItemOutput>().map(|update| update.consumed_capacity());
                if let Some(capacity) = put.or(update) {
                    counted.units += capacity.and_then(ConsumedCapacity::capacity_units).ok_or("nothing counted")?;
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
