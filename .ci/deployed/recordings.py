"""Recordings, from expiring URLs into the bucket, or into the state that says why not."""

import hashlib
import json
import uuid

import deliveries
import source
from stack import expect, until


def show(stack, platforms, emulator):
    names = ("small", "large", "busy", "expired", "rejected")
    sessions = {name: deliveries.session() for name in names}
    urls = {name: source.url(f"{name}-{sessions[name]}") for name in names}
    urls["expired"] = source.url("small", seconds=-60)
    urls["rejected"] = source.url("small", host=source.FORBIDDEN_HOST)
    poison(stack)
    for name in names:
        body = deliveries.call("session_completed", sessions[name], urls[name])
        status, _ = platforms.deliver("session_completed", body)
        expect(status == 200, f"the delivery of the {name} recording was answered {status}")
    keys = {name: f"vocobase#{session}" for name, session in sessions.items()}

    for name in ("small", "large"):
        archived(stack, keys[name], f"{name}-{sessions[name]}")
    for state in ("expired", "rejected"):
        ends(stack, keys[state], state)
    print(f"  by the stream: {source.SMALL} and {source.LARGE} bytes archived, as they were at the source;")
    print("  expired and rejected where the URL was too old and where its host is not on the list")

    [message] = until(lambda: failures(stack), 30, "the failure queue has no word of the poison record")
    tried, place = message["requestContext"]["approximateInvokeCount"], message["DDBStreamBatchInfo"]
    expect(tried == 4 and place["batchSize"] == 1 and place["startSequenceNumber"], f"the failure queue has {message}")
    print(f"  a poison record: in the failure queue after {tried} invocations, the records behind it not held up")

    waiting = stack.item("RecordingsTable", keys["busy"])
    expect(waiting["state"] == "pending", f"the recording of a busy source is {waiting['state']}, and not waiting")
    due = waiting["next_attempt_at"][:len("2026-01-01T00:00:00")]
    until(lambda: deliveries.now()[:len(due)] > due, 40, "the busy source's turn does not come")
    emulator.let_the_schedules_fire()
    archived(stack, keys["busy"], f"busy-{sessions['busy']}")
    print("  by the schedule's sweep: archived from a source that was busy at first")


def poison(stack):
    """A record that can never be worked on, as only somebody who writes into the table himself can make one."""
    stack.put("RecordingsTable", {"session": f"poison-{uuid.uuid4()}", "state": "pending"})


def failures(stack):
    """Takes what there is out of the failure queue."""
    queue = stack.outputs["FailureQueue"]
    messages = stack.queues.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", [])
    for message in messages:
        stack.queues.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return [json.loads(message["Body"]) for message in messages]


def ends(stack, key, state):
    until(lambda: stack.item("RecordingsTable", key).get("state") == state, 60, f"a recording does not end {state}")


def archived(stack, key, name):
    ends(stack, key, "archived")
    job, call = stack.item("RecordingsTable", key), stack.item("SessionsTable", key)
    expect(job["sha256"] == source.digest(name) and "source_url" not in job, f"the job says {job}")
    digest = hashlib.sha256(stack.object(job["s3_key"])).hexdigest()
    expect(digest == job["sha256"], f"{job['s3_key']} is not what was fetched")
    expect(call["recording"].endswith(job["s3_key"]), f"the call says that its recording is {call['recording']}")
