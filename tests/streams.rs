//! What a table's stream tells, as Lambda would bring it.

use serde_json::{Value, json};

use crate::World;

/// What the tables' service answers, as it is on the wire.
pub async fn ask(world: &World, operation: &str, asked: Value) -> Value {
    let signed = "AWS4-HMAC-SHA256 Credential=hookswitch/20261122/us-east-1/dynamodb/aws4_request, SignedHeaders=host, \
                  Signature=00";
    let request = world
        .http
        .post(&world.stores().dynamodb)
        .header("x-amz-target", operation)
        .header("content-type", "application/x-amz-json-1.0")
        .header("authorization", signed)
        .header("x-amz-date", "20261122T000000Z");
    let answer = crate::answer(request.body(asked.to_string())).await;
    assert_eq!(answer.status, 200, "{operation}: {}", answer.json);
    answer.json
}

/// Everything that a table's stream has told since the table was made.
pub async fn records(world: &World, table: &str) -> Vec<Value> {
    let ask =
        async |operation: &str, asked: Value| ask(world, &format!("DynamoDBStreams_20120810.{operation}"), asked).await;
    let streams = ask("ListStreams", json!({ "TableName": world.stores().tables[table] })).await;
    let arn = streams["Streams"][0]["StreamArn"].clone();
    let described = ask("DescribeStream", json!({ "StreamArn": arn })).await;
    let shard = &described["StreamDescription"]["Shards"][0]["ShardId"];
    let start = json!({ "StreamArn": arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON" });
    let mut iterator = ask("GetShardIterator", start).await["ShardIterator"].clone();
    let mut all: Vec<Value> = Vec::new();
    loop {
        let mut read = ask("GetRecords", json!({ "ShardIterator": iterator })).await;
        let Value::Array(records) = read["Records"].take() else { panic!("no records") };
        if records.is_empty() {
            return all;
        }
        all.extend(records.into_iter().map(|mut record| {
            record["eventSourceARN"] = arn.clone();
            record
        }));
        iterator = read["NextShardIterator"].take();
    }
}
