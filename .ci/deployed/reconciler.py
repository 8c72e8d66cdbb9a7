"""What never came: calls that only the platform knows of, and recordings whose URL stopped working."""

import os

import deliveries
import source
from recordings import archived, ends
from stack import NAME, expect, until
from vocobase import KEY


def show(stack, platforms, emulator, api, hookswitch):
    lost, late = deliveries.session(), deliveries.session()
    unheard = deliveries.call("session_completed", lost, source.url(f"small-{lost}"))
    too_old = deliveries.call("session_completed", late, source.url("small", seconds=-60))
    platforms.deliver("session_completed", too_old)
    ends(stack, f"vocobase#{late}", "expired")
    api.holds(unheard)
    api.holds(too_old, renewed=source.url(f"small-{late}"))

    emulator.let_the_schedules_fire()
    invoke(stack)
    expect(not api.asked, "the reconciler asked without a key")
    hookswitch(stack, "secret", "set", "vocobase-api-key", input=KEY)
    emulator.let_the_schedules_fire()
    until(lambda: stack.item("SessionsTable", f"vocobase#{lost}"), 60, "the schedule does not bring what never came")
    for session in (lost, late):
        archived(stack, f"vocobase#{session}", f"small-{session}")
    [event] = [item for item in stack.items("EventsTable") if item["session"] == f"vocobase#{lost}"]
    expect(event["source"] == "reconciler", f"what never came is stored as {event['source']}")
    status, _ = platforms.deliver("session_completed", unheard)
    expect(status == 200, f"the webhook that came after all was answered {status}")
    api.asked.clear()
    invoke(stack)
    again = [path for path in api.asked if lost in path or late in path]
    expect(api.asked and not again, f"what is stored is asked for again: {again}")
    print("  without a key nothing is asked; with one the schedule brings a call whose webhook never came, and its")
    print("  recording; an expired recording gets a new URL and is archived")


def invoke(stack):
    answer = stack.functions.invoke(FunctionName=f"{NAME}-reconciler", Payload=b"{}")
    said = answer["Payload"].read()
    expect("FunctionError" not in answer, f"the reconciler failed: {said}")


def works(stack, api):
    """Everything at once: a call that costs least in the bucket, with a recording, one whose recording's job was never
    made, and a recording with a new URL."""
    stack.restart("reconciler")
    lost, half, late = (deliveries.session() for _ in range(3))
    unheard = deliveries.call("session_completed", lost, source.url(f"small-{lost}"))
    unheard["data"]["transcript"][0]["content"] = os.urandom(12_000).hex()
    known = deliveries.call("session_completed", late)
    api.calls.clear()
    api.holds(unheard)
    api.holds(known, renewed=source.url(f"small-{late}"))
    api.holds(deliveries.call("session_completed", half, source.url(f"small-{half}")))
    # As a delivery leaves it that failed half-way and did not come again.
    stack.put("SessionsTable", {
        "session": f"vocobase#{half}", "merged": "-", "state": "ended", "recording_state": "pending"})
    # As a delivery and the archiver leave them.
    key = f"vocobase#{late}"
    now = deliveries.now()
    stack.put("SessionsTable", {"session": key, "merged": "-", "revision": "-", "call_id": f"c-{late}"})
    stack.put("RecordingsTable", {
        "session": key, "state": "expired", "unfinished": "lost#0", "source": "-", "wanted": "-",
        "source_url": source.url("small", seconds=-60), "source_expires_at": now})
    invoke(stack)
    events = [item for item in stack.items("EventsTable") if item["session"] == f"vocobase#{lost}"]
    turns = [item for item in stack.items("TranscriptsTable") if item["session"] == f"vocobase#{lost}"]
    wanted = {
        "the event": events and "body_s3" in events[0],
        "the transcript": turns,
        "the call": stack.item("SessionsTable", f"vocobase#{lost}"),
        "the recording's job": stack.item("RecordingsTable", f"vocobase#{lost}"),
        "the job of the other call's recording": stack.item("RecordingsTable", f"vocobase#{half}"),
        "the other recording's new URL": stack.item("RecordingsTable", key)["state"] != "expired",
    }
    missing = [what for what, is_there in wanted.items() if not is_there]
    for table, session in (("RecordingsTable", key), ("SessionsTable", key)):
        stack.dynamodb.delete_item(TableName=stack.outputs[table], Key={"session": {"S": session}})
    return f"the reconciler lacks {', '.join(missing)}" if missing else None
