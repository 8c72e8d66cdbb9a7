//! The tables as `infra/template.yaml` defines them: the local run and the tests create theirs from it, so that they
//! cannot drift from what is deployed.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, Projection, StreamSpecification,
};
use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::Failure;

const TEMPLATE: &str = include_str!("../../infra/template.yaml");

/// The stack's name in the local run, and so the beginning of its tables' names.
pub const LOCAL_STACK: &str = "hookswitch";

/// `AWS::DynamoDB::Table`'s properties, as far as an emulator has them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Table {
    table_name: Value,
    attribute_definitions: Vec<Attribute>,
    key_schema: Vec<Key>,
    #[serde(default)]
    global_secondary_indexes: Vec<Index>,
    stream_specification: Option<Stream>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Key {
    attribute_name: String,
    key_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Index {
    index_name: String,
    key_schema: Vec<Key>,
    projection: IndexProjection,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IndexProjection {
    projection_type: String,
    non_key_attributes: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stream {
    stream_view_type: String,
}

/// The tables by their short names (`events`, …).
pub fn tables() -> Result<BTreeMap<String, Table>, Failure> {
    let unreadable = |error: serde_yaml_ng::Error| Failure(format!("infra/template.yaml cannot be read: {error}"));
    let template: Value = serde_yaml_ng::from_str(TEMPLATE).map_err(unreadable)?;
    let resources = template.get("Resources").and_then(Value::as_mapping).into_iter().flatten();
    let mut tables = BTreeMap::new();
    for (_, resource) in resources {
        if resource.get("Type").and_then(Value::as_str) != Some("AWS::DynamoDB::Table") {
            continue;
        }
        let properties = resource.get("Properties").cloned().unwrap_or_default();
        let table: Table = serde_yaml_ng::from_value(properties).map_err(unreadable)?;
        let name = table.physical_name("")?;
        tables.insert(name.trim_start_matches('-').to_owned(), table);
    }
    Ok(tables)
}

impl Table {
    /// `!Sub ${AWS::StackName}-events` for a stack of that name.
    pub fn physical_name(&self, stack: &str) -> Result<String, Failure> {
        let text = match &self.table_name {
            Value::Tagged(tagged) if tagged.tag == "Sub" => tagged.value.as_str(),
            name => name.as_str(),
        };
        let text = text.ok_or_else(|| Failure("infra/template.yaml has a table without a plain name".to_owned()))?;
        Ok(text.replace("${AWS::StackName}", stack))
    }

    /// Creates the table, unless it is there.
    pub async fn create(&self, client: &Client, name: &str) -> Result<(), Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure(format!("the table {name} cannot be created: {why}"));
        let request = self.request(client.create_table().table_name(name)).map_err(|error| failed(&error))?;
        match request.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception) => {
                Ok(())
            }
            Err(error) => Err(failed(&aws_sdk_dynamodb::error::DisplayErrorContext(error))),
        }
    }

    fn request(
        &self,
        mut request: CreateTableFluentBuilder,
    ) -> Result<CreateTableFluentBuilder, aws_sdk_dynamodb::error::BuildError> {
        request = request.billing_mode(BillingMode::PayPerRequest).set_key_schema(Some(keys(&self.key_schema)?));
        for attribute in &self.attribute_definitions {
            let definition = AttributeDefinition::builder()
                .attribute_name(&attribute.attribute_name)
                .attribute_type(attribute.attribute_type.as_str().into());
            request = request.attribute_definitions(definition.build()?);
        }
        for index in &self.global_secondary_indexes {
            let projection = Projection::builder()
                .projection_type(index.projection.projection_type.as_str().into())
                .set_non_key_attributes(index.projection.non_key_attributes.clone())
                .build();
            let index = GlobalSecondaryIndex::builder()
                .index_name(&index.index_name)
                .set_key_schema(Some(keys(&index.key_schema)?))
                .projection(projection);
            request = request.global_secondary_indexes(index.build()?);
        }
        if let Some(stream) = &self.stream_specification {
            let stream = StreamSpecification::builder()
                .stream_enabled(true)
                .stream_view_type(stream.stream_view_type.as_str().into());
            request = request.stream_specification(stream.build()?);
        }
        Ok(request)
    }
}

fn keys(schema: &[Key]) -> Result<Vec<KeySchemaElement>, aws_sdk_dynamodb::error::BuildError> {
    let element = |key: &Key| {
        KeySchemaElement::builder().attribute_name(&key.attribute_name).key_type(key.key_type.as_str().into()).build()
    };
    schema.iter().map(element).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_names_the_five_tables() {
        let tables = tables().unwrap();
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["events", "profiles", "recordings", "sessions", "transcripts"]);
        assert_eq!(tables["events"].physical_name("hookswitch").unwrap(), "hookswitch-events");
        assert_eq!(tables["sessions"].global_secondary_indexes.len(), 2);
    }
}
