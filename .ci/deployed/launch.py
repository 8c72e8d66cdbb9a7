"""Starts ministack, the AWS emulator that the stack is deployed to, with what it lacks for that: `launch.py FOLDER`.

What ministack 1.5.33 does itself: CloudFormation with the SAM transform, rollback and retention; execution roles'
policies and bucket policies at every request (AUTH=true); function URLs; functions as warm processes over the Runtime
API; the polling and filtering of a stream mapping; the schedule; tables, bucket, secrets, queue.

What is added here, each where ministack would do something else than AWS:

- Function URLs answer at their own names, over TLS on port 443. (It serves plain HTTP only, or TLS only.)
- Requests count as made over TLS, since the functions trust no other roots than Amazon's and so speak plain HTTP to it.
  One that says `x-forwarded-proto: http` is a plain one still.
- A stream mapping brings a record again that the function reports or fails on, MaximumRetryAttempts times, then sends
  its place to the OnFailure queue, with the function's own role. (It takes a reported failure for success, and brings
  a record that a function fails on for ever.)
- A filter of a mapping that wants a value to be absent matches where all that would hold it is absent. (It does not.)
- The schedule's clock, and nothing else's, is ahead by the seconds in FOLDER/ahead.
- A secret is generated without punctuation where asked to be, and has no value where none is given. (It ignores
  ExcludePunctuation, and gives an empty value.)
- An alarm of several metrics is kept, if never evaluated. (It refuses it.)
- Concurrency cannot be reserved, as in a new AWS account. (It ignores it.)
"""

import functools
import json
import os
import string
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import boto3
import hypercorn.asyncio
from ministack import app
from ministack.core.lambda_runtime import execution_credentials
from ministack.services import lambda_svc, scheduler, secretsmanager
from ministack.services.cloudformation import provisioners

FOLDER = Path(sys.argv.pop())


def replace(names, name):
    """Puts the decorated function in the place of ministack's, which it is given first."""
    original = names[name]

    def put(function):
        names[name] = functools.wraps(original)(functools.partial(function, original))

    return put


@replace(vars(hypercorn.asyncio), "serve")
def serve(original, application, config):
    async def over_tls(scope, receive, send):
        await application({**scope, "scheme": "https"} if scope["type"] == "http" else scope, receive, send)

    config.insecure_bind, config.bind = config.bind, ["127.0.0.1:443"]
    config.certfile, config.keyfile = FOLDER / "cert.pem", FOLDER / "key.pem"
    config.alpn_protocols = ["http/1.1"]
    return original(over_tls, config)


mappings = threading.local()


@replace(vars(lambda_svc), "_poll_dynamodb_streams")
def poll(original):
    mappings.poll = True
    try:
        return original()
    finally:
        mappings.poll = False


@replace(vars(lambda_svc), "_execute_function")
def execute(original, function, event):
    if not getattr(mappings, "poll", False):
        return original(function, event)
    [record] = event["Records"]  # of a mapping with BatchSize 1, which has nothing to bisect either
    config = function["config"]
    name, stream = config["FunctionName"], record["eventSourceARN"]
    mapping = next(mapping for mapping in lambda_svc._esms.values()
                   if (mapping["FunctionName"], mapping["EventSourceArn"]) == (name, stream))
    retries = mapping["MaximumRetryAttempts"]
    for _ in range(1 + retries):
        result = original(function, event)
        reported = "ReportBatchItemFailures" in mapping["FunctionResponseTypes"]
        if not result.get("error") and not (reported and (result["body"] or {}).get("batchItemFailures")):
            return result
    try:
        send_to_failure_queue(mapping["DestinationConfig"]["OnFailure"]["Destination"], config, record, 1 + retries)
    except Exception as error:
        print(f"{name}: {mapping['UUID']}: the failure cannot be sent: {error}", file=sys.stderr)
    return {"body": {}}  # so the poller goes on


def send_to_failure_queue(arn, config, record, invocations):
    """Source: AWS Lambda Developer Guide, "Retain discarded records for a DynamoDB event source", example."""
    def iso(moment):
        return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    change = record["dynamodb"]
    body = {
        "requestContext": {"functionArn": config["FunctionArn"], "condition": "RetryAttemptsExhausted",
                           "approximateInvokeCount": invocations},
        "responseContext": {"statusCode": 200, "executedVersion": config["Version"], "functionError": "Unhandled"},
        "version": "1.0", "timestamp": iso(time.time()),
        "DDBStreamBatchInfo": {
            "shardId": "shardId-00000000000000000000-00000000", "streamArn": record["eventSourceARN"], "batchSize": 1,
            "startSequenceNumber": change["SequenceNumber"], "endSequenceNumber": change["SequenceNumber"],
            "approximateArrivalOfFirstRecord": iso(change["ApproximateCreationDateTime"]),
            "approximateArrivalOfLastRecord": iso(change["ApproximateCreationDateTime"]),
        },
    }
    _, _, _, region, account, queue = arn.split(":")
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    credentials = {name.lower(): value for name, value in execution_credentials(config).items()}
    sqs = boto3.client("sqs", region_name=region, endpoint_url=endpoint, **credentials)
    sqs.send_message(QueueUrl=f"{endpoint}/{account}/{queue}", MessageBody=json.dumps(body))


@replace(vars(lambda_svc), "_match_esm_filter")
def matches(original, record, pattern):
    empty = {name: {} for name, wanted in pattern.items() if isinstance(wanted, dict)}
    return original({**empty, **record}, pattern)


scheduler._SCHEDULE_TICK_INTERVAL = 1
scheduler.time = SimpleNamespace(time=lambda: time.time() + int((FOLDER / "ahead").read_text()), sleep=time.sleep)


@replace(provisioners._RESOURCE_HANDLERS["AWS::SecretsManager::Secret"], "create")
def create_secret(original, logical_id, props, stack_name):
    name, attributes = original(logical_id, props, stack_name)
    if "GenerateSecretString" not in props:
        secretsmanager._secrets[name]["Versions"].clear()
    return name, attributes


@replace(vars(provisioners), "_sm_secret_string")
def secret_string(original, props):
    generate = props.get("GenerateSecretString", {})
    if generate.get("ExcludePunctuation"):
        props = {**props, "GenerateSecretString": {**generate, "ExcludeCharacters": string.punctuation}}
    return original(props)


@replace(vars(provisioners), "_cw_metric_alarm_record")
def alarm(original, name, props):
    if "Metrics" not in props:
        return original(name, props)
    single = {key: value for key, value in props.items() if key != "Metrics"}
    return original(name, {**single, "Namespace": "several", "MetricName": "several"})


@replace(provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"], "create")
def create_function(original, logical_id, props, stack_name):
    if "ReservedConcurrentExecutions" in props:
        raise ValueError("Specified ReservedConcurrentExecutions for function decreases account's "
                         "UnreservedConcurrentExecution below its minimum value of [10].")
    return original(logical_id, props, stack_name)


if __name__ == "__main__":
    app.main()
