//! What AWS takes for what the stack uses. This is the one place for prices: when AWS changes one, it is changed here,
//! with [`AS_OF`].

use serde::Serialize;

/// When these were looked up.
pub const AS_OF: &str = "2026-11";
/// Where they apply. Others take up to twice as much.
pub const REGION: &str = "us-east-1";

/// Something that is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// Invocations.
    LambdaRequests,
    /// An invocation's time times its memory, on `x86_64`.
    LambdaGbSecondsX86,
    /// The same on `arm64`.
    LambdaGbSecondsArm,
    /// Writes of 1 KB to a table on demand.
    WriteUnits,
    /// Reads of 4 KB from a table on demand.
    ReadUnits,
    /// What tables and their indices hold.
    TableGbMonths,
    /// What point-in-time recovery keeps of them.
    RecoveryGbMonths,
    /// Requests to the bucket that write or list.
    BucketPuts,
    /// Requests to the bucket that read.
    BucketGets,
    /// What the bucket holds, in S3 Standard.
    BucketGbMonths,
    /// Events on the bus, each of 64 KB at most.
    Events,
    /// Lines of logs that come in.
    LogGb,
    /// Lines of logs that are kept.
    LogGbMonths,
    /// Metrics of our own.
    Metrics,
    /// Metrics that alarms look at.
    AlarmMetrics,
    /// Dashboards.
    Dashboards,
    /// Traces that X-Ray records.
    Traces,
    /// Secrets.
    Secrets,
    /// Reads of secrets.
    SecretReads,
}

/// What one of them costs.
#[derive(Clone, Copy, Debug)]
pub struct Price {
    /// Of which service.
    pub service: &'static str,
    /// What is counted.
    pub unit: &'static str,
    /// US dollars for so many of it.
    pub dollars: f64,
    /// How many.
    pub per: f64,
    /// The page that says so.
    pub page: &'static str,
}

const LAMBDA: &str = "https://aws.amazon.com/lambda/pricing/";
const DYNAMODB: &str = "https://aws.amazon.com/dynamodb/pricing/on-demand/";
const S3: &str = "https://aws.amazon.com/s3/pricing/";
const CLOUDWATCH: &str = "https://aws.amazon.com/cloudwatch/pricing/";
const XRAY: &str = "https://aws.amazon.com/xray/pricing/";
const SECRETS: &str = "https://aws.amazon.com/secrets-manager/pricing/";
const EVENTBRIDGE: &str = "https://aws.amazon.com/eventbridge/pricing/";

const MILLION: f64 = 1_000_000.0;

impl Item {
    /// All of them, as bills list them.
    pub const ALL: [Self; 19] = [
        Self::LambdaRequests,
        Self::LambdaGbSecondsX86,
        Self::LambdaGbSecondsArm,
        Self::WriteUnits,
        Self::ReadUnits,
        Self::TableGbMonths,
        Self::RecoveryGbMonths,
        Self::BucketPuts,
        Self::BucketGets,
        Self::BucketGbMonths,
        Self::Events,
        Self::LogGb,
        Self::LogGbMonths,
        Self::Metrics,
        Self::AlarmMetrics,
        Self::Dashboards,
        Self::Traces,
        Self::Secrets,
        Self::SecretReads,
    ];

    /// What it costs.
    pub const fn price(self) -> Price {
        let (service, unit, dollars, per, page) = match self {
            Self::LambdaRequests => ("Lambda", "requests", 0.20, MILLION, LAMBDA),
            Self::LambdaGbSecondsX86 => ("Lambda", "GB-seconds on x86_64", 16.666_7, MILLION, LAMBDA),
            Self::LambdaGbSecondsArm => ("Lambda", "GB-seconds on arm64", 13.333_4, MILLION, LAMBDA),
            Self::WriteUnits => ("DynamoDB", "write units", 0.625, MILLION, DYNAMODB),
            Self::ReadUnits => ("DynamoDB", "read units", 0.125, MILLION, DYNAMODB),
            Self::TableGbMonths => ("DynamoDB", "GB stored for a month", 0.25, 1.0, DYNAMODB),
            Self::RecoveryGbMonths => ("DynamoDB", "GB of point-in-time recovery for a month", 0.20, 1.0, DYNAMODB),
            Self::BucketPuts => ("S3", "PUT, POST and LIST", 5.00, MILLION, S3),
            Self::BucketGets => ("S3", "GET and HEAD", 0.40, MILLION, S3),
            Self::BucketGbMonths => ("S3", "GB stored for a month", 0.023, 1.0, S3),
            Self::Events => ("EventBridge", "events of up to 64 KB", 1.00, MILLION, EVENTBRIDGE),
            Self::LogGb => ("CloudWatch", "GB of logs", 0.50, 1.0, CLOUDWATCH),
            Self::LogGbMonths => ("CloudWatch", "GB of logs kept for a month", 0.03, 1.0, CLOUDWATCH),
            Self::Metrics => ("CloudWatch", "custom metrics", 0.30, 1.0, CLOUDWATCH),
            Self::AlarmMetrics => ("CloudWatch", "metrics in alarms", 0.10, 1.0, CLOUDWATCH),
            Self::Dashboards => ("CloudWatch", "dashboards", 3.00, 1.0, CLOUDWATCH),
            Self::Traces => ("X-Ray", "traces", 5.00, MILLION, XRAY),
            Self::Secrets => ("Secrets Manager", "secrets", 0.40, 1.0, SECRETS),
            Self::SecretReads => ("Secrets Manager", "reads", 5.00, MILLION, SECRETS),
        };
        Price { service, unit, dollars, per, page }
    }

    /// What so many of it cost, in US dollars.
    pub fn dollars(self, amount: f64) -> f64 {
        let Price { dollars, per, .. } = self.price();
        amount * dollars / per
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_listed_once_beside_its_service() {
        let mut services: Vec<&str> = Item::ALL.iter().map(|item| item.price().service).collect();
        services.dedup();
        let mut once = services.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(services.len(), once.len(), "a service's items are apart: {services:?}");
        assert!(Item::ALL.iter().enumerate().all(|(at, item)| *item as usize == at));
    }

    #[test]
    fn a_million_write_units_cost_what_the_page_says() {
        assert!((Item::WriteUnits.dollars(2_000_000.0) - 1.25).abs() < 1e-9);
    }
}
