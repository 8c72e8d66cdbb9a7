"""What `session_completed` does, as one would write it for Python with AWS's own libraries: verify, store the delivery once,
merge what it says into the call, answer."""

import hashlib
import hmac
import json
import os
from datetime import datetime, timezone
from decimal import Decimal

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.data_classes import LambdaFunctionUrlEvent
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

TOLERANCE_SECONDS = 300

logger = Logger()
resource = boto3.resource("dynamodb")
events = resource.Table(os.environ["EVENTS_TABLE"])
sessions = resource.Table(os.environ["SESSIONS_TABLE"])
secret = os.environ["WEBHOOK_SECRET"].encode()
config = IdempotencyConfig()
persistence = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])


@idempotent_function(data_keyword_argument="body", persistence_store=persistence, config=config)
def store(body: str):
    delivery = json.loads(body, parse_float=Decimal)
    data = delivery["data"]
    session = f"vocobase#{data['session_id']}"
    sha256 = hashlib.sha256(body.encode()).hexdigest()
    events.put_item(
        Item={
            "session": session,
            "event": f"{delivery['event']}#{delivery['timestamp']}#{sha256}",
            "received_at": datetime.now(timezone.utc).isoformat(),
            "body": body,
        }
    )
    members = (
        "agent_id", "agent_name", "duration_seconds", "credits_used", "transcript", "recording_url", "latency", "call",
    )
    call = {name: data[name] for name in members if data.get(name) is not None} | {"state": "ended"}
    sessions.update_item(
        Key={"session": session},
        UpdateExpression="SET " + ", ".join(f"#n{at} = :v{at}" for at in range(len(call))),
        ExpressionAttributeNames={f"#n{at}": name for at, name in enumerate(call)},
        ExpressionAttributeValues={f":v{at}": value for at, value in enumerate(call.values())},
    )
    return {"http_code": 200, "response": {"data": {}}}


def genuine(headers, body):
    timestamp, signature = headers.get("x-webhook-timestamp", ""), headers.get("x-webhook-signature", "")
    try:
        sent = datetime.fromisoformat(timestamp.replace("Z", "+00:00"))
    except ValueError:
        return False
    if abs((datetime.now(timezone.utc) - sent).total_seconds()) > TOLERANCE_SECONDS:
        return False
    expected = "sha256=" + hmac.new(secret, f"{timestamp}.{body}".encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, signature)


def answer(status, body):
    return {"statusCode": status, "headers": {"content-type": "application/json"}, "body": json.dumps(body)}


def handler(event, context):
    config.register_lambda_context(context)
    request = LambdaFunctionUrlEvent(event)
    body = request.decoded_body
    if not genuine(request.headers, body):
        logger.warning("refused")
        return answer(401, {"error": "unauthorized"})
    said = store(body=body)
    logger.info("delivery", outcome="stored")
    return answer(200, said)
