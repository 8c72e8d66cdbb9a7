"""Events out: what calls come to on the bus, and what the examples of infra/examples bring of it to a queue, to an HTTPS
endpoint and to Slack. Those are deployed as they are."""

import base64
import hashlib
import json
import random
import time
from collections import Counter

import deliveries
import source
import tls
from jsonschema import Draft202012Validator
from recordings import failures
from stack import NAME, ROOT, expect, until

BUS_ROLE = "EventPublisherRole"
ADDRESS, ENDPOINT_HOST, SLACK_HOST = "52.216.0.3", "crm.deployed.example", "hooks.slack.com"
HEADER = "Bearer of-this-run"
EXAMPLES = ("queue", "http", "slack", "step-functions")
CALLS = 12
PATIENCE, GIVEN_UP = 1000, 30_000  # seconds: beyond what the function waits for the bus, and the mapping for the function
SUMMARY = 'He said "refund\\me", twice.\nNothing else.'


class Receiver:
    """The endpoint and Slack: what was posted to each. One that refuses answers 400."""

    def __init__(self, folder):
        self.posted, self.refuses = {ENDPOINT_HOST: [], SLACK_HOST: []}, False
        receiver = self

        class Handler(tls.Handler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if not receiver.refuses:
                    receiver.posted[self.headers["host"]].append((dict(self.headers), json.loads(body)))
                self.answer(400 if receiver.refuses else 200)

        tls.serve(folder, ADDRESS, Handler)


class Queue:
    """All that has come to the queue of an example so far."""

    def __init__(self, stack, url):
        self.queues, self.url, self.events = stack.queues, url, []

    def drain(self):
        while messages := self.queues.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.events.append(json.loads(message["Body"]))
                self.queues.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return self.events

    def of(self, sessions):
        return [event for event in self.drain() if event["subject"] in sessions]

    def bring(self, ids, seconds, otherwise):
        until(lambda: ids <= {event["id"] for event in self.drain()}, seconds, otherwise)


def subscribe(stack):
    """Deploys the examples; the queue of everything, and of what the endpoint does not take."""
    bus = {"Bus": stack.outputs["EventBus"]}
    parameters = {"queue": {}, "step-functions": {}, "http": {"Endpoint": f"https://{ENDPOINT_HOST}/events", "HeaderValue": HEADER},
                  "slack": {"WebhookUrl": f"https://{SLACK_HOST}/services/of-this-run"}}
    outputs = {name: stack.deploy_example(name, **bus, **parameters[name]) for name in EXAMPLES}
    print(f"  of infra/examples, as they are: {', '.join(EXAMPLES)}")
    queue, stack.workflow = Queue(stack, outputs["queue"]["Queue"]), outputs["step-functions"]["Workflow"]
    queue.earlier = {item["session"] for item in stack.items("SessionsTable")}
    return queue, Queue(stack, outputs["http"]["DeadLetters"])


def show(stack, platforms, queue, dead_letters, receiver):
    before = {event["id"] for event in queue.drain()}
    sent, expected = calls(random.Random(1))
    for webhook, body in sent:
        status, _ = platforms.deliver(webhook, body)
        expect(status == 200, f"{webhook} answered {status}")
    sessions = {key(webhook, body) for webhook, body in sent}
    queue.bring(expected, 120, "not every event came")
    # Whatever else there is comes before the events of a call that begins now.
    last = deliveries.session()
    platforms.deliver("session_start", deliveries.call("session_start", last))
    queue.bring({id_of("call.started", f"exotel#{last}")}, 60, "the event of the last call did not come")
    came = queue.of(sessions)
    unexpected = [event["type"] for event in came if event["id"] not in expected | before]
    expect(not unexpected, f"there are events that should not be: {Counter(unexpected)}")
    for event in came:
        described(event)
    kinds = Counter(event["type"] for event in {event["id"]: event for event in came}.values())
    print(f"  {len(sent)} deliveries of {len(sessions)} calls, shuffled, some twice: {len(expected)} events, each as docs/events")
    print(f"  says, {len(came) - len(expected)} of them again: " + ", ".join(f"{kind} {kinds[kind]}" for kind in sorted(kinds)))
    ended(stack, queue)
    posted(expected, receiver)
    told(came, receiver)
    started(stack, came)
    refused(platforms, dead_letters, receiver)


def calls(rng):
    """Deliveries of calls, in any order and some of them twice, and the ids of what they come to."""
    sent, expected = [], set()
    for number in range(CALLS):
        session = deliveries.session()
        body = {"session_id": session, "bot_id": "deployed-bot", "start_time": "2026-01-02T03:04:05.000000Z",
                "contact_uri": "+919876543210"}
        insights = [insight("sentiment", "good"), insight("summary", SUMMARY if number % 2 else f"Wants {number}.")]
        transfer = {**body, "trigger_reason": "asked"}
        ended = {**body, "end_time": "2026-01-02T03:05:05.000000Z", "events": insights[:1]}
        sent += [("session_start", body), ("insights_events", {**body, "events": insights[:1]}),
                 ("insights_events", {**body, "events": insights}), ("pre_agent_transfer", transfer),
                 ("session_end", ended)]
        of_body = hashlib.sha256(json.dumps(transfer).encode()).hexdigest()[:16]
        call = f"exotel#{session}"
        expected |= {id_of(kind, call) for kind in ("call.started", "call.ended", "call.completed")}
        expected |= {id_of("call.insight", call, said["event_type"], digest(said["event_data"])) for said in insights}
        expected |= {id_of("call.transfer_requested", call, f"pre_agent_transfer#{body['start_time']}#{of_body}")}

        session = deliveries.session()
        call, name = f"vocobase#{session}", f"small-{session}"
        urls = (None, source.url(name), source.url(name, seconds=-60), source.url(name, host=source.FORBIDDEN_HOST))
        url = urls[number % len(urls)]
        sent += [("session_completed", deliveries.call("session_completed", session, url))]
        expected |= {id_of(kind, call) for kind in ("call.ended", "call.completed")}
        place = hashlib.sha256(url.partition("?")[0].encode()).hexdigest()[:16] if url else None
        expected |= [set(), {id_of("recording.archived", call, source.digest(name))},
                     {id_of("recording.failed", call, "expired", place)},
                     {id_of("recording.failed", call, "rejected", place)}][number % len(urls)]
    sent += rng.sample(sent, len(sent) // 3)
    rng.shuffle(sent)
    return sent, expected


def insight(kind, value):
    return {"event_type": kind, "event_data": {"value": value, "timestamp": "2026-01-02T03:04:35.000000Z"}}


def key(webhook, body):
    return f"exotel#{body['session_id']}" if webhook in deliveries.EXOTEL else f"vocobase#{body['data']['session_id']}"


def id_of(*parts):
    """As docs/events says."""
    return hashlib.sha256(compact(parts)).hexdigest()[:32]


def digest(data):
    return hashlib.sha256(compact(data)).hexdigest()


def compact(data):
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def described(event):
    for name, part in (("event", event), (event["type"], event["data"])):
        schema = json.loads((ROOT / f"docs/events/{name}.json").read_text(encoding="utf-8"))
        wrong = [error.message for error in Draft202012Validator(schema).iter_errors(part)]
        expect(not wrong, f"an event of type {event['type']} is not as docs/events/{name}.json says: {wrong}")


def ended(stack, queue):
    """Of whatever else has been simulated, too: each call that is over has said so, and no other."""
    over = {item["session"] for item in stack.items("SessionsTable") if item.get("state") == "ended" and not item.get("test")}

    def missing():
        return over - queue.earlier - {event["subject"] for event in queue.drain() if event["type"] == "call.ended"}

    until(lambda: not missing(), 60, "there are calls that are over, and no event says so")
    ids = {(event["subject"], event["id"]) for event in queue.events if event["type"] == "call.ended"}
    wrong = [subject for subject, id in ids if subject not in over or id != id_of("call.ended", subject)]
    expect(not wrong, f"it is said of {wrong} that they are over")
    print(f"  each of {len(over - queue.earlier)} calls that are over by now has said so, by one id")


def posted(expected, receiver):
    """http.yaml: the same events, at the endpoint."""
    at_endpoint = receiver.posted[ENDPOINT_HOST]
    until(lambda: expected <= {event["id"] for _, event in at_endpoint}, 60, "not every event came to the endpoint")
    for headers, event in at_endpoint:
        described(event)
        headers = {name.lower(): value for name, value in headers.items()}
        expect(headers["authorization"] == HEADER, "the endpoint does not get its header")
        expect(headers["content-type"] == "application/cloudevents+json", f"events are posted as {headers['content-type']}")
    print("  http.yaml: all of them posted to the endpoint, with its header")


def told(came, receiver):
    """slack.yaml: a message of each transfer and of each recording that is lost, in words."""
    wanted = {event["id"]: event for event in came if event["type"] in ("call.transfer_requested", "recording.failed")}

    def messages():
        return [json.dumps(message, ensure_ascii=False) for _, message in receiver.posted[SLACK_HOST]]

    until(lambda: all(any(event["subject"] in said for said in messages()) for event in wanted.values()), 60,
          "Slack is not told of everything")
    for event in wanted.values():
        message = next(message for _, message in receiver.posted[SLACK_HOST] if event["subject"] in json.dumps(message))
        text, data = json.dumps(message, ensure_ascii=False), event["data"]
        words = [data["recording"]["state"]] if event["type"] == "recording.failed" else [data["call"]["contact"]]
        expect(all(word in text for word in words) and "<" not in text, f"Slack is told {text}")
        if summary := data.get("brief", {}).get("summary"):
            expect(message["blocks"][1]["text"]["text"] == summary, f"Slack is told {text}, and not {summary}")
    print(f"  slack.yaml: {len(wanted)} messages, for example: {next(iter(receiver.posted[SLACK_HOST]))[1]['text']}")


def started(stack, came):
    """step-functions.yaml: a workflow for each call that is complete, with the event as its input."""
    pages = stack.workflows.get_paginator("list_executions").paginate(stateMachineArn=stack.workflow)
    arns = [execution["executionArn"] for page in pages for execution in page["executions"]]
    executions = [stack.workflows.describe_execution(executionArn=arn) for arn in arns]
    ids = {json.loads(execution["input"])["id"] for execution in executions if execution["status"] == "SUCCEEDED"}
    wanted = {event["id"] for event in came if event["type"] == "call.completed"}
    expect(wanted <= ids, "not every call that is complete has started a workflow")
    print(f"  step-functions.yaml: {len(wanted)} workflows, each with its call")


def refused(platforms, dead_letters, receiver):
    """What an endpoint refuses is kept in the example's own queue."""
    receiver.refuses = True
    session = deliveries.session()
    platforms.deliver("session_start", deliveries.call("session_start", session))
    dead_letters.bring({id_of("call.started", f"exotel#{session}")}, 60, "what the endpoint refused is lost")
    receiver.refuses = False
    print("  what an endpoint refuses is in the example's dead-letter queue")


def undelivered(stack, platforms, emulator, queue, hookswitch):
    """While the function may not publish, what it has waited for long enough goes into the bucket, and can be sent again."""
    session = deliveries.session()
    id = id_of("call.started", f"exotel#{session}")
    with stack.without(BUS_ROLE, "events:PutEvents"):
        platforms.deliver("session_start", deliveries.call("session_start", session))
        emulator.age_the_streams(PATIENCE)
        name = until(lambda: next((found for found in objects(stack) if id in found), None), 60,
                     "what the bus did not take is not in the bucket")
        emulator.age_the_streams(0)
    described(json.loads(stack.object(name)))
    expect(name.endswith(f"/{id}.json"), f"it is kept as {name}")
    expect(id in hookswitch(stack, "undelivered", "list"), "the list does not name what was not delivered")
    hookswitch(stack, "undelivered", "resend", "--all", "--yes")
    queue.bring({id}, 30, "what was sent again did not come")
    expect(not objects(stack), "what was sent again is still in the bucket")
    print("  what the bus does not take is in the bucket after 15 minutes; `undelivered resend` brings it to the queue")


def objects(stack):
    found = stack.s3.list_objects_v2(Bucket=stack.outputs["RecordingsBucket"], Prefix="undelivered/")
    return [item["Key"] for item in found.get("Contents", [])]


def works(stack, platforms, emulator, action):
    """What the function cannot do of what needs an action, or of everything."""
    special = {"s3:PutObject": kept_aside, "sqs:SendMessage": lost}
    wanted = [special.get(action, published)] if action else [published, *special.values()]
    return next(filter(None, (scenario(stack, platforms, emulator) for scenario in wanted)), None)


def published(stack, platforms, _):
    """A transfer, whose brief is kept on the call, and an insight of a body that is in the bucket."""
    for webhook in ("pre_agent_transfer", "insights_events"):
        body = deliveries.call(webhook, deliveries.session(), large=True)
        body["events"] += [insight("sentiment", "good")]
        if invoke(stack, platforms, webhook, body) != {"batchItemFailures": []}:
            return f"a record of {webhook} is to be brought again"
    return None


def kept_aside(stack, platforms, _):
    """An old record, and a bus that the function may not use."""
    name = f"{NAME}-event_publisher"
    own = stack.functions.get_function_configuration(FunctionName=name)["Environment"]
    other = {"Variables": {**own["Variables"], "EVENT_BUS_NAME": "elsewhere"}}
    stack.functions.update_function_configuration(FunctionName=name, Environment=other)
    report = invoke(stack, platforms, "session_start", deliveries.call("session_start", deliveries.session()), PATIENCE)
    stack.functions.update_function_configuration(FunctionName=name, Environment=own)
    return None if report == {"batchItemFailures": []} else "an event cannot be put aside"


def lost(stack, _, emulator):
    """A record that can never be read, as only somebody who writes into the table himself can make one."""
    failures(stack)
    session = f"exotel#poison-{deliveries.session()}"
    stack.put("EventsTable", {"session": session, "event": "insights_events#-#0", "webhook": "insights_events"})
    emulator.age_the_streams(GIVEN_UP)
    end = time.monotonic() + 15
    while not (found := failures(stack)) and time.monotonic() < end:
        time.sleep(0.5)
    emulator.age_the_streams(0)
    return None if found else "the failure queue has no word of a poison record"


def invoke(stack, platforms, webhook, body, age=0):
    """What the function reports of the record of a delivery."""
    status, _ = platforms.deliver(webhook, body)
    expect(status == 200, f"{webhook} answered {status}")
    [item] = stack.stored("EventsTable", key(webhook, body))
    change = {"Keys": {name: item[name] for name in ("session", "event")}, "NewImage": item, "SequenceNumber": "1",
              "ApproximateCreationDateTime": int(time.time()) - age, "StreamViewType": "NEW_IMAGE"}
    record = {"eventName": "INSERT", "eventSourceARN": stack.stream("EventsTable"), "dynamodb": change}
    payload = json.dumps({"Records": [record]}, default=lambda value: base64.b64encode(value).decode())
    answer = stack.functions.invoke(FunctionName=f"{NAME}-event_publisher", Payload=payload)
    return None if "FunctionError" in answer else json.loads(answer["Payload"].read())
