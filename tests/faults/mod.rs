//! Faults between the SDK and the stores: the only thing that is not real. Here is one that is set for one place, above
//! the SDK's repetitions; [`layer`] has all kinds, below them, by a plan.

pub mod layer;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use shared::storage::Clients;

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A body in the bucket.
    Body,
    /// An item of a table, by its short name.
    Table(&'static str),
}

impl Place {
    /// Every place that a delivery is written to.
    pub const ALL: [Self; 5] = [
        Self::Body,
        Self::Table("events"),
        Self::Table("sessions"),
        Self::Table("transcripts"),
        Self::Table("recordings"),
    ];

    fn is_of(self, request: &HttpRequest) -> bool {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        match self {
            Self::Body => request.method() == "PUT" && request.uri().contains("/bodies/"),
            Self::Table(table) => {
                let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
                (target.ends_with(".PutItem") || target.ends_with(".UpdateItem"))
                    && body.contains(&format!(r#""TableName":"hookswitch-{table}""#))
            }
        }
    }
}

/// Whether a failed write was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The request never arrives.
    Before,
    /// The write is applied, and its answer is lost.
    After,
}

/// Every write to one place fails from the `from`-th on, counting from 0.
#[derive(Clone, Debug)]
pub struct Fault {
    place: Place,
    when: When,
    from: usize,
    seen: Arc<AtomicUsize>,
}

impl Fault {
    /// A fault that has not happened yet.
    pub fn new(place: Place, when: When, from: usize) -> Self {
        Self { place, when, from, seen: Arc::default() }
    }

    /// Whether it has happened.
    pub fn happened(&self) -> bool {
        self.seen.load(Ordering::SeqCst) > self.from
    }

    /// The clients with this fault in them.
    pub fn in_clients(&self, clients: &Clients) -> Clients {
        between(clients, self)
    }

    fn strike(&self) -> Result<(), BoxError> {
        let before = self.seen.fetch_add(1, Ordering::SeqCst);
        if before >= self.from { Err("a fault of the test's".into()) } else { Ok(()) }
    }
}

/// Whether a request goes to the fault's place.
#[derive(Debug)]
struct Hit(bool);

impl Storable for Hit {
    type Storer = StoreReplace<Self>;
}

impl Intercept for Fault {
    fn name(&self) -> &'static str {
        "Fault"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let hit = self.place.is_of(context.request());
        // The request is gone by the time its answer is there.
        config.interceptor_state().store_put(Hit(hit));
        if hit && self.when == When::Before { self.strike() } else { Ok(()) }
    }

    fn modify_before_deserialization(
        &self,
        _: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let hit = config.load::<Hit>().is_some_and(|Hit(hit)| *hit);
        if hit && self.when == When::After { self.strike() } else { Ok(()) }
    }
}

/// The same clients with something between them and the stores.
pub fn between(clients: &Clients, interceptor: &(impl Intercept + Clone + 'static)) -> Clients {
    let dynamodb = clients.dynamodb.config().to_builder().interceptor(interceptor.clone()).build();
    let s3 = clients.s3.config().to_builder().interceptor(interceptor.clone()).build();
    Clients { dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb), s3: aws_sdk_s3::Client::from_conf(s3) }
}
