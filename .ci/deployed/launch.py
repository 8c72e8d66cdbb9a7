"""Starts ministack, the AWS emulator that the stack is deployed to, with what it lacks for that: `launch.py FOLDER`.

What ministack 1.5.33 does itself: CloudFormation with the SAM transform, rollback and retention; execution roles'
policies and bucket policies at every request (AUTH=true); function URLs; functions as warm processes over the Runtime
API; the polling and filtering of a stream mapping; the schedule; tables, bucket, secrets, queue.

What is added here, each where ministack would do something else than AWS:

- Function URLs answer at their own names, over TLS on port 443. (It serves plain HTTP only, or TLS only.)
- Requests count as made over TLS, since the functions trust no other roots than Amazon's and so speak plain HTTP to it.
  One that says `x-forwarded-proto: http` is a plain one still.
- A stream mapping brings again what the function reports, or fails on: then half of the batch, and half of that, until
  it is one record. After MaximumRetryAttempts, or once it is older than MaximumRecordAgeInSeconds, the record's place
  goes to the OnFailure queue, with the function's own role. (It takes a reported failure for success, brings a batch
  that a function fails on for ever or gives all of it up, and writes to the queue with no role.)
- The records that streams bring are older by the seconds in FOLDER/aged.
- A filter of a mapping that wants a value to be absent matches where all that would hold it is absent. (It does not.)
- The schedule's clock, and nothing else's, is ahead by the seconds in FOLDER/ahead.
- Connections and API destinations can be deployed. (It has them, but not in CloudFormation.)
- Named queries can be deployed. (It has them, but not in CloudFormation.)
- A rule brings nothing to a queue whose policy does not allow that rule. (It does not look.)
- What an API destination does not take goes to the target's dead-letter queue; after three attempts, where it may take it
  later. (It loses that.)
- A secret is generated without punctuation where asked to be, and has no value where none is given. (It ignores
  ExcludePunctuation, and gives an empty value.)
- An alarm of several metrics is kept, if never evaluated. (It refuses it.)
- Concurrency cannot be reserved, as in a new AWS account. (It ignores it.)
"""

import functools
import json
import math
import os
import string
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import boto3
import hypercorn.asyncio
from ministack import app
from ministack.core.arn import parse_arn
from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
from ministack.core.lambda_runtime import execution_credentials
from ministack.services import athena, eventbridge, lambda_svc, scheduler, secretsmanager, sqs
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
    config, stream = function["config"], event["Records"][0]["eventSourceARN"]
    mapping = next(mapping for mapping in lambda_svc._esms.values()
                   if (mapping["FunctionName"], mapping["EventSourceArn"]) == (config["FunctionName"], stream))
    return Batch(mapping, config, event["Records"]).bring(lambda records: original(function, {"Records": records}))


class Batch:
    """What a mapping has read from its stream. Who fails may be asked again: then what is done is not brought again."""

    done, attempts = set(), Counter()  # by mapping and sequence number

    def __init__(self, mapping, config, records):
        self.mapping, self.config = mapping, config
        self.left = [aged(record) for record in records if self.id(record) not in self.done]

    def id(self, record):
        return self.mapping["UUID"], record["dynamodb"]["SequenceNumber"]

    def bring(self, invoke):
        brought = len(self.left)
        while self.left:
            failed = self.failed(invoke(self.left[:brought]), brought)
            self.finish(self.left[:failed])
            if failed == brought:  # all of them were taken
                brought = len(self.left)
            elif brought > 1:
                brought = 1 if failed else (brought + 1) // 2
            elif not self.gives_up(self.left[0]):
                return {"error": True, "body": {}}  # so the poller comes again, and the other mappings have their turn
            else:
                self.finish(self.left[:1])
                brought = len(self.left)
        return {"body": {}}

    def failed(self, result, brought):
        """How many came before the first that failed."""
        if result.get("error"):
            return 0
        body = result["body"] if "ReportBatchItemFailures" in self.mapping["FunctionResponseTypes"] else None
        reported = {failure["itemIdentifier"] for failure in (body or {}).get("batchItemFailures", [])}
        numbers = [record["dynamodb"]["SequenceNumber"] for record in self.left[:brought]]
        return next((index for index, number in enumerate(numbers) if number in reported), brought)

    def finish(self, records):
        self.done.update(map(self.id, records))
        self.left = self.left[len(records):]

    def gives_up(self, record):
        """Whether a record that failed by itself has come for the last time."""
        self.attempts[self.id(record)] += 1
        attempts, age = self.attempts[self.id(record)], time.time() - record["dynamodb"]["ApproximateCreationDateTime"]
        if attempts > self.mapping.get("MaximumRetryAttempts", math.inf):
            condition = "RetryAttemptsExhausted"
        elif age > self.mapping.get("MaximumRecordAgeInSeconds", math.inf):
            condition = "MaxRecordAgeExceeded"
        else:
            return False
        try:
            queue = self.mapping["DestinationConfig"]["OnFailure"]["Destination"]
            send_to_failure_queue(queue, self.config, record, attempts, condition)
        except Exception as error:
            name = self.config["FunctionName"]
            print(f"{name}: {self.mapping['UUID']}: the failure cannot be sent: {error}", file=sys.stderr)
        return True


def aged(record):
    change = record["dynamodb"]
    at = change["ApproximateCreationDateTime"] - int((FOLDER / "aged").read_text())
    return {**record, "dynamodb": {**change, "ApproximateCreationDateTime": at}}


def send_to_failure_queue(arn, config, record, invocations, condition):
    """Source: AWS Lambda Developer Guide, "Retain discarded records for a DynamoDB event source", example."""
    def iso(moment):
        return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    change = record["dynamodb"]
    body = {
        "requestContext": {"functionArn": config["FunctionArn"], "condition": condition,
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
    client = boto3.client("sqs", region_name=region, endpoint_url=endpoint, **credentials)
    client.send_message(QueueUrl=f"{endpoint}/{account}/{queue}", MessageBody=json.dumps(body))


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


def create_by(create, arn):
    """How CloudFormation creates what EventBridge creates with the same properties."""
    def handler(logical_id, props, stack_name):
        status, _, body = create(props)
        if status >= 400:
            raise ValueError(body)
        return props["Name"], {"Arn": json.loads(body)[arn]}

    return handler


def create_named_query(logical_id, props, stack_name):
    _, _, body = athena._create_named_query(props)
    return json.loads(body)["NamedQueryId"], {}


def delete_by(delete):
    return lambda physical_id, props: delete({"Name": physical_id})


provisioners._RESOURCE_HANDLERS |= {
    "AWS::Events::Connection": {"create": create_by(eventbridge._create_connection, "ConnectionArn"),
                                "delete": delete_by(eventbridge._delete_connection)},
    "AWS::Events::ApiDestination": {"create": create_by(eventbridge._create_api_destination, "ApiDestinationArn"),
                                    "delete": delete_by(eventbridge._delete_api_destination)},
    "AWS::Athena::NamedQuery": {"create": create_named_query, "delete": lambda physical_id, props:
                                athena._delete_named_query({"NamedQueryId": physical_id})},
}


delivering = threading.local()


@replace(vars(eventbridge), "_invoke_target")
def invoke_target(original, target, event, rule, view=None):
    delivering.rule, delivering.target = rule, target
    return original(target, event, rule, view)


@replace(vars(eventbridge), "_dispatch_to_sqs")
def to_queue(original, spec, payload, parameters=None):
    queue, rule = sqs._queue_by_arn(str(spec)), delivering.rule["Arn"]
    asked = EvalContext(principal_arn="events.amazonaws.com", principal_type="Service", principal_account="",
                        action="sqs:SendMessage", resource_arn=str(spec), region=spec.region,
                        service_context={"aws:sourcearn": rule})
    policy = queue and queue["attributes"].get("Policy")
    if evaluate_resource_policy(policy, asked, service="events.amazonaws.com").decision != "Allow":
        return print(f"{spec} does not let {rule} in", file=sys.stderr)
    return original(spec, payload, parameters)


@replace(vars(eventbridge), "_build_api_destination_request")
def build_request(original, destination, connection, parameters, payload):
    """In the thread of the rule, which the thread of the request knows nothing of."""
    return original(destination, connection, parameters, payload) | {"of": (delivering.rule, delivering.target, payload)}


@replace(vars(eventbridge), "_deliver_to_api_destination")
def deliver(original, name, request, connection, token_key):
    """Source: EventBridge User Guide, "API destinations as targets", "How EventBridge retries"."""
    for wait in (0, 1, 1):
        time.sleep(wait)
        headers = eventbridge._connection_auth_headers(connection, token_key)
        try:
            status = eventbridge._api_destination_send_sync(request, headers)
        except OSError as error:
            status = 599
            print(f"{name}: {error}", file=sys.stderr)
        if status < 300:
            return
        if status < 500 and status not in (401, 407, 409, 429):
            break
    delivering.rule, target, payload = request["of"]
    eventbridge._dispatch_to_sqs(parse_arn(target["DeadLetterConfig"]["Arn"]), payload)


if __name__ == "__main__":
    app.main()
