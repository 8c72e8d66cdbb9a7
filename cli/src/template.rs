//! What `infra/template.yaml` defines: the local run and the tests create their tables from it, so that they cannot drift
//! from what is deployed, and costs are worked out with its sizes.

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

/// The whole template.
pub struct Template(Value);

impl Template {
    /// As it was when this was built.
    pub fn read() -> Result<Self, Failure> {
        serde_yaml_ng::from_str(TEMPLATE).map(Self).map_err(|error| unreadable(&error))
    }

    /// The properties of its resources of a type.
    fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let resources = self.0.get("Resources").and_then(Value::as_mapping).into_iter().flatten();
        let of_type = move |resource: &&Value| resource.get("Type").and_then(Value::as_str) == Some(kind);
        resources.map(|(_, resource)| resource).filter(of_type).filter_map(|resource| resource.get("Properties"))
    }

    /// The default of a parameter that is a number.
    pub fn default_of(&self, parameter: &str) -> Result<f64, Failure> {
        let given = self.0.get("Parameters").and_then(|all| all.get(parameter)?.get("Default")?.as_f64());
        given.ok_or_else(|| Failure(format!("infra/template.yaml has no default for {parameter}")))
    }

    /// The memory of a function, in MB.
    pub fn memory_mb(&self, function: &str) -> Result<u32, Failure> {
        let suffix = format!("-{function}");
        let named = |properties: &&Value| {
            let name = properties.get("FunctionName");
            name.is_some_and(|name| substituted(name).is_some_and(|name| name.ends_with(&suffix)))
        };
        let properties = self.of_type("AWS::Serverless::Function").find(named);
        let own = properties.map(|properties| properties.get("MemorySize").and_then(Value::as_u64));
        let usual = || self.0.get("Globals")?.get("Function")?.get("MemorySize")?.as_u64();
        let memory = own.and_then(|own| own.or_else(usual)).and_then(|memory| memory.try_into().ok());
        memory.ok_or_else(|| Failure(format!("infra/template.yaml has no memory for {function}")))
    }
}

fn unreadable(error: &serde_yaml_ng::Error) -> Failure {
    Failure(format!("infra/template.yaml cannot be read: {error}"))
}

/// A plain text, or what `!Sub` is given.
fn substituted(name: &Value) -> Option<&str> {
    match name {
        Value::Tagged(tagged) if tagged.tag == "Sub" => tagged.value.as_str(),
        name => name.as_str(),
    }
}

/// The tables by their short names (`events`, …).
pub fn tables() -> Result<BTreeMap<String, Table>, Failure> {
    let template = Template::read()?;
    let mut tables = BTreeMap::new();
    for properties in template.of_type("AWS::DynamoDB::Table") {
        let table: Table = serde_yaml_ng::from_value(properties.clone()).map_err(|error| unreadable(&error))?;
        let name = table.physical_name("")?;
        tables.insert(name.trim_start_matches('-').to_owned(), table);
    }
    Ok(tables)
}

impl Table {
    /// The attributes of each of its indices' keys.
    pub fn index_keys(&self) -> Vec<Vec<String>> {
        let names = |index: &Index| index.key_schema.iter().map(|key| key.attribute_name.clone()).collect();
        self.global_secondary_indexes.iter().map(names).collect()
    }

    /// `!Sub ${AWS::StackName}-events` for a stack of that name.
    pub fn physical_name(&self, stack: &str) -> Result<String, Failure> {
        let text = substituted(&self.table_name);
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
    fn a_functions_memory_is_its_own_or_that_of_all() {
        let template = Template::read().unwrap();
        let memory = ["session_end", "session_completed"].map(|name| template.memory_mb(name).unwrap());
        assert_eq!(memory, [128, 512]);
        assert!(template.memory_mb("session").is_err());
        assert!(template.default_of("RetentionDays").unwrap() > 0.0);
    }

    #[test]
    fn the_template_names_the_five_tables() {
        let tables = tables().unwrap();
        assert_eq!(tables.keys().collect::<Vec<_>>(), ["events", "profiles", "recordings", "sessions", "transcripts"]);
        assert_eq!(tables["events"].physical_name("hookswitch").unwrap(), "hookswitch-events");
        assert_eq!(tables["sessions"].global_secondary_indexes.len(), 2);
    }
}
