//! A deployed stack: what CloudFormation says of it, and the secrets in Secrets Manager.

use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_cloudformation::types::Stack as Described;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use aws_types::service_config::ServiceConfigKey;
use event_publisher::bus::Bus;
use shared::auth::exotel::{self, Tokens};
use shared::storage::{Clients, https};
use shared::{Country, Webhook};

use crate::endpoints::{Endpoints, with_token};
use crate::target::{Opened, TABLES};
use crate::{Failure, why};

/// A stack that is there.
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Region, credentials and endpoints as the AWS CLI finds them.
    pub config: SdkConfig,
    described: Described,
}

/// A stack's secrets, by what they are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Makes and verifies the tokens in Exotel's URLs.
    Exotel,
    /// Verifies Vocobase's signatures.
    Vocobase,
    /// Lets the reconciler ask Vocobase's API.
    VocobaseApi,
}

impl Purpose {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Exotel, Self::Vocobase, Self::VocobaseApi];

    /// As commands name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exotel => "exotel",
            Self::Vocobase => "vocobase",
            Self::VocobaseApi => "vocobase-api-key",
        }
    }
}

/// The text of a secret, and which version of it that is.
#[derive(PartialEq, Eq)]
pub struct Held {
    /// As Secrets Manager holds it. Never to be shown.
    pub text: String,
    version: String,
}

impl Stack {
    /// Asks CloudFormation for it.
    #[allow(clippy::disallowed_methods, reason = "the edge: what aws_config reads comes from the same environment")]
    pub async fn find(name: &str) -> Result<Self, Failure> {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .http_client(https(&|name| std::env::var(name).ok())?)
            .load()
            .await;
        let Some(region) = config.region() else {
            return Err(Failure("no AWS region is configured: set AWS_REGION, or a region in your profile".to_owned()));
        };
        let unknown = |why: &str| Failure(format!("the stack {name} cannot be looked up in {region}: {why}"));
        let client = aws_sdk_cloudformation::Client::new(&config);
        let answer = client.describe_stacks().stack_name(name).send().await;
        let described = answer.map_err(|error| unknown(&why(&error)))?.stacks.and_then(|mut stacks| stacks.pop());
        let described = described.ok_or_else(|| unknown("there is none"))?;
        Ok(Self { name: name.to_owned(), config, described })
    }

    /// Such as `UPDATE_COMPLETE`.
    pub fn status(&self) -> &str {
        self.described.stack_status().map_or("", |status| status.as_str())
    }

    /// One of the template's outputs.
    pub fn output(&self, name: &str) -> Result<&str, Failure> {
        let found = self.described.outputs().iter().find(|output| output.output_key() == Some(name));
        found.and_then(|output| output.output_value()).ok_or_else(|| self.other_template(&format!("output {name}")))
    }

    fn other_template(&self, missing: &str) -> Failure {
        Failure(format!("the stack {} has no {missing}: it is another template's, or an older one", self.name))
    }

    /// The value of one of the template's parameters.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.described.parameters().iter().find(|parameter| parameter.parameter_key() == Some(name));
        found.and_then(|parameter| parameter.parameter_value())
    }

    /// Whether only `session_start` takes a token that is good for every session.
    pub fn session_tokens_only(&self) -> bool {
        self.parameter("SessionTokensOnly") == Some("true")
    }

    /// Its tables and its bucket.
    pub fn open(&self) -> Result<Opened, Failure> {
        let table = |name: &&str| Ok(((*name).to_owned(), self.output(&camel_case(name, "Table"))?.to_owned()));
        let tables = TABLES.iter().map(table).collect::<Result<_, Failure>>()?;
        // An endpoint that is not AWS's own has no names for buckets.
        let key = ServiceConfigKey::builder().service_id("S3").env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
        let services = self.config.service_config();
        let own = key.ok().and_then(|key| services.and_then(|services| services.load_config(key)));
        let s3 = aws_sdk_s3::config::Builder::from(&self.config)
            .force_path_style(own.is_some() || self.config.endpoint_url().is_some());
        let clients = Clients {
            dynamodb: aws_sdk_dynamodb::Client::new(&self.config),
            s3: aws_sdk_s3::Client::from_conf(s3.build()),
        };
        let retention = self.parameter("RetentionDays").and_then(|days| days.parse().ok());
        // Without it, what a command stores would never expire.
        let retention = retention.ok_or_else(|| self.other_template("parameter RetentionDays"))?;
        let bucket = self.output("RecordingsBucket")?.to_owned();
        let country = self.parameter("DefaultCountry").and_then(Country::parse);
        let default_country = country.ok_or_else(|| self.other_template("parameter DefaultCountry"))?;
        Ok(Opened { clients, tables, bucket, retention_days: Some(retention), default_country })
    }

    /// Its event bus.
    pub fn bus(&self) -> Result<Bus, Failure> {
        Ok(Bus::new(aws_sdk_eventbridge::Client::new(&self.config), self.output("EventBus")?.to_owned()))
    }

    /// A function's URL, without a token.
    pub fn url(&self, webhook: Webhook) -> Result<&str, Failure> {
        self.output(&camel_case(webhook.name(), "Url"))
    }

    /// What makes the tokens of Exotel's URLs.
    pub async fn tokens(&self) -> Result<Tokens, Failure> {
        let wrong = |why: &str| Failure(format!("the Exotel secret of the stack {} {why}", self.name));
        let held = self.secret(Purpose::Exotel).await?.ok_or_else(|| wrong("holds no value"))?;
        let secrets = exotel::secrets(&held.text).map_err(wrong)?;
        Ok(Tokens { secrets, session_tokens_only: self.session_tokens_only() })
    }

    /// The functions' URLs, tokens included, and what Vocobase signs with now. The stores are not said: that would
    /// take credentials.
    pub async fn endpoints(&self) -> Result<Endpoints, Failure> {
        let tokens = self.tokens().await?;
        let mut functions = BTreeMap::new();
        for webhook in Webhook::ALL {
            functions.insert(webhook.name().to_owned(), with_token(self.url(webhook)?, webhook, &tokens));
        }
        let held = self.secret(Purpose::Vocobase).await?;
        let first = held.and_then(|held| Some(held.text.split(',').next()?.trim().to_owned()));
        Ok(Endpoints { functions, vocobase_secret: first, stores: None })
    }

    /// One of its secrets; `None` while it holds no value.
    pub async fn secret(&self, purpose: Purpose) -> Result<Option<Held>, Failure> {
        let client = aws_sdk_secretsmanager::Client::new(&self.config);
        let read = client.get_secret_value().secret_id(self.secret_arn(purpose)?).send().await;
        let output = match read {
            Ok(output) => output,
            Err(error)
                if error.as_service_error().is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                return Ok(None);
            }
            Err(error) => {
                return Err(Failure(format!("the {} secret cannot be read: {}", purpose.name(), why(&error))));
            }
        };
        let held =
            Held { text: output.secret_string.unwrap_or_default(), version: output.version_id.unwrap_or_default() };
        Ok(Some(held).filter(|held| !held.text.trim().is_empty()))
    }

    /// Puts a new value in the place of the one that was `seen`, unless somebody else was quicker.
    pub async fn replace_secret(&self, purpose: Purpose, seen: Option<&Held>, text: String) -> Result<(), Failure> {
        if self.secret(purpose).await?.as_ref() != seen {
            let name = purpose.name();
            return Err(Failure(format!("the {name} secret was changed meanwhile: nothing was changed, try again")));
        }
        let client = aws_sdk_secretsmanager::Client::new(&self.config);
        let put = client.put_secret_value().secret_id(self.secret_arn(purpose)?).secret_string(text).send().await;
        put.map_err(|error| Failure(format!("the {} secret cannot be written: {}", purpose.name(), why(&error))))?;
        Ok(())
    }

    fn secret_arn(&self, purpose: Purpose) -> Result<&str, Failure> {
        self.output(match purpose {
            Purpose::Exotel => "ExotelTokenSecret",
            Purpose::Vocobase => "VocobaseSecret",
            Purpose::VocobaseApi => "VocobaseApiKeySecret",
        })
    }
}

/// `session_start` and `Url` → `SessionStartUrl`.
pub(crate) fn camel_case(name: &str, suffix: &str) -> String {
    let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').map(capitalised).chain([suffix.to_owned()]).collect()
}
