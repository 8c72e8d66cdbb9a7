//! The bus: EventBridge, which takes several events at once and may take only some of them. Source: EventBridge API
//! Reference, "`PutEvents`" and "`PutEventsResultEntry`".

use aws_sdk_eventbridge::config::http::HttpResponse;
use aws_sdk_eventbridge::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_eventbridge::operation::put_events::PutEventsError;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};
use aws_sdk_eventbridge::{Client, config};
use shared::config::{ConfigError, Lookup};
use shared::storage::aws;

/// The `Source` of every entry, which rules match.
pub const SOURCE: &str = "hookswitch";
/// What one request takes.
const MOST_ENTRIES: usize = 10;
const MOST_BYTES: usize = 256 * 1024;
/// What an entry counts beside its texts: its time.
const BYTES_BESIDE: usize = 14;

/// An event bus.
#[derive(Clone)]
pub struct Bus {
    client: Client,
    name: String,
}

/// One event for the bus.
#[derive(Clone)]
pub struct Entry {
    /// The event's type.
    pub kind: &'static str,
    /// The event as JSON.
    pub event: String,
}

/// Why the bus did not take an event. Never its message, which can quote values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It will never take this one.
    #[error("refused ({0})")]
    Refused(String),
    /// It may take it later.
    #[error("not now ({0})")]
    NotNow(String),
}

impl NotTaken {
    /// Whether it may be taken later.
    pub const fn is_for_later(&self) -> bool {
        matches!(self, Self::NotNow(_))
    }
}

impl Bus {
    /// The bus that `EVENT_BUS_NAME` names. Where it is not AWS's own, `AWS_ENDPOINT_URL_EVENTBRIDGE` or
    /// `AWS_ENDPOINT_URL` says where.
    pub fn connect(lookup: Lookup<'_>) -> Result<Self, ConfigError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let name = set("EVENT_BUS_NAME").ok_or(ConfigError::Missing("EVENT_BUS_NAME"))?;
        let mut builder = config::Builder::from(&aws(lookup)?);
        if let Some(url) = set("AWS_ENDPOINT_URL_EVENTBRIDGE") {
            builder = builder.endpoint_url(url);
        }
        Ok(Self::new(Client::from_conf(builder.build()), name))
    }

    /// The bus of that name.
    pub fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// Offers events once; what became of each, in their order.
    pub async fn put(&self, entries: &[&Entry]) -> Vec<Result<(), NotTaken>> {
        let mut results = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(fitting(rest));
            results.extend(self.put_batch(batch).await);
            rest = after;
        }
        results
    }

    async fn put_batch(&self, batch: &[&Entry]) -> Vec<Result<(), NotTaken>> {
        match self.request(batch).await {
            Ok(taken) => taken,
            // One of them is wrong: which one, each by itself will tell.
            Err(NotTaken::Refused(_)) if batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for entry in batch {
                    let alone = self.request(&[*entry]).await;
                    results.push(alone.and_then(|taken| taken.into_iter().next().unwrap_or(Ok(()))));
                }
                results
            }
            Err(not_taken) => vec![Err(not_taken); batch.len()],
        }
    }

    async fn request(&self, batch: &[&Entry]) -> Result<Vec<Result<(), NotTaken>>, NotTaken> {
        let entry = |entry: &&Entry| {
            PutEventsRequestEntry::builder()
                .event_bus_name(&self.name)
                .source(SOURCE)
                .detail_type(entry.kind)
                .detail(&entry.event)
                .build()
        };
        let put = self.client.put_events().set_entries(Some(batch.iter().map(entry).collect()));
        let output = put.send().await.map_err(|error| failure(&error))?;
        let results: Vec<_> = output.entries.unwrap_or_default().iter().map(taken).collect();
        // An answer that says nothing of an entry says nothing of any.
        if results.len() == batch.len() { Ok(results) } else { Err(NotTaken::NotNow("unreadable response".to_owned())) }
    }
}

/// How many of these one request takes; one at least.
fn fitting(entries: &[&Entry]) -> usize {
    let sizes = entries.iter().map(|entry| SOURCE.len() + entry.kind.len() + entry.event.len() + BYTES_BESIDE);
    let sums = sizes.scan(0, |sum, size| {
        *sum += size;
        Some(*sum)
    });
    sums.take(MOST_ENTRIES).take_while(|sum| *sum <= MOST_BYTES).count().max(1)
}

fn taken(entry: &PutEventsResultEntry) -> Result<(), NotTaken> {
    match entry.error_code() {
        None => Ok(()),
        // What is wrong with the event itself stays wrong. Who may publish what, somebody can mend.
        Some(code @ ("InvalidArgument" | "MalformedDetail")) => Err(NotTaken::Refused(code.to_owned())),
        Some(code) => Err(NotTaken::NotNow(code.to_owned())),
    }
}

fn failure(error: &SdkError<PutEventsError, HttpResponse>) -> NotTaken {
    let code = match error {
        SdkError::ServiceError(service) => service.err().code().unwrap_or("service error"),
        SdkError::TimeoutError(_) => "timeout",
        SdkError::DispatchFailure(_) => "no connection",
        SdkError::ConstructionFailure(_) => "request not built",
        _ => "unreadable response",
    };
    match code {
        "ValidationException" | "RequestEntityTooLarge" => NotTaken::Refused(code.to_owned()),
        code => NotTaken::NotNow(code.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_takes_ten_events_or_what_fits() {
        let fitting = |lengths: &[usize]| {
            let entries: Vec<Entry> =
                lengths.iter().map(|length| Entry { kind: "call.ended", event: "x".repeat(*length) }).collect();
            super::fitting(&entries.iter().collect::<Vec<_>>())
        };
        let beside = SOURCE.len() + "call.ended".len() + BYTES_BESIDE;
        assert_eq!(fitting(&[1; 25]), 10);
        assert_eq!(fitting(&[1; 3]), 3);
        assert_eq!(fitting(&[MOST_BYTES / 2 - beside; 3]), 2);
        assert_eq!(fitting(&[MOST_BYTES / 2 - beside + 1, MOST_BYTES / 2 - beside, 1]), 1);
        assert_eq!(fitting(&[MOST_BYTES * 2, 1]), 1);
    }

    #[test]
    fn an_entry_is_refused_for_good_only_for_what_it_is() {
        let taken = |code: &str| taken(&PutEventsResultEntry::builder().error_code(code).build());
        for code in ["InvalidArgument", "MalformedDetail"] {
            assert_eq!(taken(code), Err(NotTaken::Refused(code.to_owned())));
        }
        for code in ["InternalFailure", "ThrottlingException", "AccessDeniedException", "A word to come"] {
            assert_eq!(taken(code), Err(NotTaken::NotNow(code.to_owned())));
        }
    }
}
