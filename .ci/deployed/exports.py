"""Calls as documents: what the exporter leaves in the bucket is what the tables hold, and what Athena is told of it."""

import json
import time

import deliveries
from boto3.dynamodb.types import TypeSerializer
from jsonschema import Draft202012Validator
from recordings import failures
from stack import NAME, ROOT, client, expect, until

FUNCTION, GIVEN_UP = "call_exporter", 30_000  # seconds: beyond what the mapping waits for the function
SCHEMA = json.loads((ROOT / "docs/calls/call.v1.schema.json").read_text(encoding="utf-8"))
# What a trial of the doctor is named.
TRIAL = "#doctor-"


def show(stack, platforms):
    until(lambda: not differing(stack), 180, "the documents do not become what the tables hold")
    count = len(listed(stack))
    print(f"  {count} documents, as the tables have their calls, and as docs/calls says")

    session = next(item for item in stack.items("SessionsTable") if is_exported(item) and item["provider"] == "exotel")
    key, body = session["session"], {"session_id": session["session_id"], "bot_id": "deployed-bot"}
    said = {"speaker": "user", "text": "Late words.", "start_timestamp": deliveries.now(), "end_timestamp": deliveries.now()}
    turn = {"sequence": 9999, "status": "completed", "transcript_segments": [said]}
    status, _ = platforms.deliver("transcript_events", {**body, "events": [
        {"event_type": "transcript", "event_data": {"transcripts": [turn]}}]})
    expect(status == 200, f"a late turn was answered {status}")
    until(lambda: "Late words." in words(stack, key), 120, "a late turn is not in the document")
    before = place(stack.item("SessionsTable", key))
    status, _ = platforms.deliver("session_start", {**body, "start_time": "2020-02-03T04:05:06.000000Z"})
    expect(status == 200, f"an earlier start was answered {status}")
    until(lambda: before not in listed(stack) and not differing(stack), 120, "a call that moved is not where it belongs")
    stack.put("SessionsTable", {"session": key, "state": "erased", "merged": "0"})
    until(lambda: len(listed(stack)) == count - 1 and not differing(stack), 120, "an erased call has a document")
    print("  a late turn is in its document, a call that began earlier than was known has moved, an erased one has none")
    athena(stack)


def athena(stack):
    glue, asked = client("glue"), client("athena")
    table = glue.get_table(DatabaseName=stack.outputs["AnalysisDatabase"], Name="calls")["Table"]
    bucket = stack.outputs["RecordingsBucket"]
    where = table["Parameters"]["storage.location.template"]
    expect(where == f"s3://{bucket}/calls/provider=${{provider}}/dt=${{dt}}/", f"Athena looks into {where}")
    group = asked.get_work_group(WorkGroup=stack.outputs["AnalysisWorkGroup"])["WorkGroup"]["Configuration"]
    expect(int(group["BytesScannedCutoffPerQuery"]) == 10**10 and group["EnforceWorkGroupConfiguration"] in (True, "true"),
           f"the workgroup is {group}")
    ids = asked.list_named_queries(WorkGroup=stack.outputs["AnalysisWorkGroup"])["NamedQueryIds"]
    queries = [asked.get_named_query(NamedQueryId=id)["NamedQuery"] for id in ids]
    expect(all(query["Database"] == stack.outputs["AnalysisDatabase"] for query in queries), f"there are {queries}")
    print(f"  Athena has the table, a limit, and the queries {', '.join(sorted(query['Name'] for query in queries))}")


def is_exported(item):
    return item.get("state") == "ended" and not item.get("test") and TRIAL not in item["session"]


def place(item):
    """As docs/calls says; the ids here are such that a key holds them as they are."""
    day = (item.get("started_at") or item.get("ended_at") or "1970-01-01")[:10]
    return f"calls/provider={item['provider']}/dt={day}/{item['session_id']}.json"


def listed(stack):
    pages = stack.s3.get_paginator("list_objects_v2").paginate(Bucket=stack.outputs["RecordingsBucket"], Prefix="calls/")
    return {found["Key"] for page in pages for found in page.get("Contents", [])}


def document(stack, session):
    return json.loads(stack.object(place(stack.item("SessionsTable", session))))


def words(stack, session):
    return [turn["text"] for turn in document(stack, session)["turns"]]


def differing(stack):
    """The documents that are not what the tables hold; those that are missing or too many."""
    calls = {place(item): item for item in stack.items("SessionsTable") if is_exported(item)}
    found = listed(stack)
    if wrong := found ^ calls.keys():
        return wrong
    turns, jobs = {}, {item["session"]: item for item in stack.items("RecordingsTable")}
    for item in sorted(stack.items("TranscriptsTable"), key=lambda item: item["turn"]):
        turns.setdefault(item["session"], []).append(item)
    return [key for key, item in calls.items()
            if not says(json.loads(stack.object(key)), item, turns.get(item["session"], []), jobs.get(item["session"], {}))]


def says(found, item, turns, job):
    """Whether a document is of these items."""
    wrong = [error.message for error in Draft202012Validator(SCHEMA).iter_errors(found)]
    expect(not wrong, f"a document is not as its schema says: {wrong}")
    wanted = {"schema_version": 1, "bots": sorted(item.get("bots", [])), "transfer_requested": "transfer_requested" in item}
    segments = [segment for turn in turns if turn["turn"].startswith(item.get("revision", "")) for segment in turn["segments"]]
    segments.sort(key=lambda segment: segment["start"])
    wanted["turns"] = [
        {"index": index, "speaker": said.get("speaker"), "text": said.get("text"), "started_at": said.get("start"),
         "ended_at": said.get("end"), "latency_ms": float(said["latency_ms"]) if "latency_ms" in said else None}
        for index, said in enumerate(segments)]
    wanted["turn_count"] = len(segments)
    wanted["first_turn_at"] = min((said["start"] for said in segments), default=None)
    wanted["last_turn_at"] = max((said.get("end", said["start"]) for said in segments), default=None)
    wanted["insights"] = [{"type": kind, "at": said.get("at"), "data": said["data"]}
                          for kind, said in sorted(item.get("insights", {}).items())]
    wanted["recording"] = None
    if "recording_state" in item:
        done = job if item["recording_state"] == "archived" else {}
        wanted["recording"] = {"state": item["recording_state"], "uri": item.get("recording")}
        wanted["recording"] |= {name: done.get(name) for name in ("bytes", "sha256", "content_type", "archived_at")}
    for name, described in SCHEMA["properties"].items():
        if name not in wanted:
            value = item.get(name)
            wanted[name] = float(value) if value is not None and "number" in described["type"] else value
    return found == wanted


def works(stack, emulator, action):
    """What the function cannot do of what needs an action, or of everything."""
    wanted = [lost] if action == "sqs:SendMessage" else [kept] if action else [kept, lost]
    return next(filter(None, (scenario(stack, emulator) for scenario in wanted)), None)


def kept(stack, _):
    """A call that is over, a turn that comes late, and its erasure."""
    session = deliveries.session()
    key = f"exotel#{session}"
    call = {"session": key, "session_id": session, "provider": "exotel", "state": "ended", "merged": "0",
            "started_at": "2026-01-02T03:04:05.000000Z"}
    stack.put("SessionsTable", call)
    if trouble := invoke(stack, key):
        return trouble
    stack.put("TranscriptsTable", {"session": key, "turn": "000001#b", "segments": [{"text": "Late words."}]})
    if trouble := invoke(stack, key):
        return trouble
    if words(stack, key) != ["Late words."]:
        return "a document lacks its turn"
    stack.put("SessionsTable", {"session": key, "state": "erased", "merged": "0"})
    if trouble := invoke(stack, key, call):
        return trouble
    return f"an erased call has its document {place(call)}" if place(call) in listed(stack) else None


def lost(stack, emulator):
    """A record that can never be worked on, since the function is told of a table that is not its own."""
    name, session = f"{NAME}-{FUNCTION}", deliveries.session()
    failures(stack)
    own = stack.functions.get_function_configuration(FunctionName=name)["Environment"]
    other = {"Variables": {**own["Variables"], "SESSIONS_TABLE": "elsewhere"}}
    stack.functions.update_function_configuration(FunctionName=name, Environment=other)
    emulator.age_the_streams(GIVEN_UP)
    stack.put("SessionsTable", {"session": f"exotel#{session}", "session_id": session, "provider": "exotel",
                                "state": "ended", "merged": "0"})
    end = time.monotonic() + 15
    while not (found := [failure for failure in failures(stack) if failure["requestContext"]["functionArn"].endswith(name)]):
        if time.monotonic() > end:
            break
        time.sleep(0.5)
    emulator.age_the_streams(0)
    stack.functions.update_function_configuration(FunctionName=name, Environment=own)
    return None if found else "the failure queue has no word of a poison record"


def invoke(stack, key, before=None):
    """What the function cannot do about a change of a call."""
    change = {"Keys": {"session": {"S": key}}, "SequenceNumber": "1", "StreamViewType": "NEW_AND_OLD_IMAGES"}
    if before:
        change["OldImage"] = {name: TypeSerializer().serialize(value) for name, value in before.items()}
    record = {"eventName": "MODIFY", "eventSourceARN": stack.stream("SessionsTable"), "dynamodb": change}
    answer = stack.functions.invoke(FunctionName=f"{NAME}-{FUNCTION}", Payload=json.dumps({"Records": [record]}))
    said = answer["Payload"].read()
    if "FunctionError" in answer:
        return f"the exporter failed: {said}"
    return None if json.loads(said) == {"batchItemFailures": []} else "a call cannot be exported"
