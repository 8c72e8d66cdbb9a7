"""Least privilege: nothing works without what its role is allowed.

Each statement of each role is taken away in turn, and each action of a statement that has several. What needs it must
fail then, and work again once it is back. What the emulator does not ask for is listed here, beside the page of AWS
that does, and must indeed not be missed.
"""

import json
import subprocess
import sys
import time
import uuid

import deliveries
import events
import exports
import reconciler
import source
from deliveries import ANSWERS, WEBHOOKS
from recordings import ends, failures, poison
from stack import NAME, ROOT, expect

BY_STREAM = ("RecordingArchiverRole", "EventPublisherRole", "CallExporterRole")
SCHEDULES = ("RecordingArchiverFunctionSweepRole", "ReconcilerFunctionScheduleRole")
OURS = ("recording_archiver", "reconciler", "event_publisher", "call_exporter")
FUNCTIONS = {f"{deliveries.camel_case(name)}Role": name for name in (*WEBHOOKS, *OURS)}

# Lambda writes a function's logs, sends its traces and reads its stream, all with the function's own role, and
# EventBridge Scheduler invokes with the schedule's.
LOGS = "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html#monitoring-cloudwatchlogs-prereqs"
TRACES = "https://docs.aws.amazon.com/lambda/latest/dg/services-xray.html"
STREAM = ("https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/"
          "iam-policy-example-lamda-process-dynamodb-streams.html")
INVOKE = "https://docs.aws.amazon.com/scheduler/latest/UserGuide/setting-up.html#setting-up-execution-role"
REQUIRED_BY_AWS = {
    **{(role, f"logs:{action}"): LOGS for role in FUNCTIONS for action in ("CreateLogStream", "PutLogEvents")},
    **{(role, f"xray:Put{what}"): TRACES for role in FUNCTIONS for what in ("TraceSegments", "TelemetryRecords")},
    **{(role, f"dynamodb:{action}"): STREAM for role in BY_STREAM
       for action in ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")},
    **{(role, "lambda:InvokeFunction"): INVOKE for role in SCHEDULES},
}
# The caller's history has 300 ms to come, which a busy emulator may need.
HISTORY_ATTEMPTS = 3
# Longer than the four invocations take that a poison record is given.
POISON_SECONDS = 15


def show(stack, platforms, emulator, api):
    expanded = subprocess.run([sys.executable, ".ci/expand.py", "infra/template.yaml"], cwd=ROOT, check=True,
                              stdout=subprocess.PIPE)
    resources = json.loads(expanded.stdout)["Resources"]
    roles = {logical_id: Role(stack, logical_id, resource["Properties"]) for logical_id, resource in resources.items()
             if resource["Type"] == "AWS::IAM::Role"}
    found = {(role.logical_id, action) for role in roles.values() for _, action in role.actions()}
    gone = REQUIRED_BY_AWS.keys() - found
    expect(not gone, f"listed as required by AWS, but not in the template: {sorted(gone)}")
    for logical_id, role in roles.items():
        role.show(needs(logical_id, stack, platforms, emulator, api))


class Role:
    """One with a single policy of its own, as in the template and as deployed."""

    def __init__(self, stack, logical_id, properties):
        self.iam, self.logical_id, self.name = stack.iam, logical_id, stack.physical[logical_id]
        others = self.iam.list_attached_role_policies(RoleName=self.name)["AttachedPolicies"]
        expect(not others, f"{logical_id} has policies that are not its own: {others}")
        [wanted], [self.policy] = properties["Policies"], self.iam.list_role_policies(RoleName=self.name)["PolicyNames"]
        deployed = self.iam.get_role_policy(RoleName=self.name, PolicyName=self.policy)["PolicyDocument"]
        self.statements = [{**statement, "Action": actions(statement)} for statement in deployed["Statement"]]
        wanted = [actions(statement) for statement in wanted["PolicyDocument"]["Statement"]]
        same = wanted == [statement["Action"] for statement in self.statements]
        expect(same, f"{logical_id} is not deployed as in the template")

    def actions(self):
        return [(index, action) for index, statement in enumerate(self.statements) for action in statement["Action"]]

    def show(self, works):
        """`works` says what does not, of what needs one action, or of everything."""
        listed = [(index, action) for index, action in self.actions() if (self.logical_id, action) in REQUIRED_BY_AWS]
        single = [(index, action) for index, action in self.actions() if (index, action) not in listed]
        whole = [[pair for pair in single if pair[0] == index] for index in range(len(self.statements))]
        removals = [[pair] for pair in single] + [pairs for pairs in whole if len(pairs) > 1]
        for taken in removals:
            index, action = taken[0]
            what = f"{' and '.join(action for _, action in taken)} on {self.statements[index]['Resource']}"
            self.put_without(taken)
            expect(works(action), f"nothing needs {what} in {self.logical_id}: delete it, or list the page that does")
            self.put_without([])
            trouble = works(action)
            expect(not trouble, f"{self.logical_id} has {what} back, and yet {trouble}")
        self.put_without(listed)
        trouble = works(None)
        expect(not trouble, f"{self.logical_id} needs what is listed as required by AWS only: without it {trouble}")
        self.put_without([])
        said = f"{len(removals)} removals, each missed; {len(listed)} actions required by AWS only"
        print(f"  {self.logical_id}: {said}", flush=True)

    def put_without(self, taken):
        left = [[action for action in statement["Action"] if (index, action) not in taken]
                for index, statement in enumerate(self.statements)]
        statements = [{**statement, "Action": some} for statement, some in zip(self.statements, left) if some]
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        if statements:
            self.iam.put_role_policy(RoleName=self.name, PolicyName=self.policy, PolicyDocument=document)
        else:
            self.iam.delete_role_policy(RoleName=self.name, PolicyName=self.policy)


def actions(statement):
    return statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]


def needs(role, stack, platforms, emulator, api):
    """What shows that a role has what it needs."""
    if role in SCHEDULES:
        return lambda action: schedule(stack, emulator)
    if FUNCTIONS[role] == "reconciler":
        return lambda action: reconciler.works(stack, api)
    if FUNCTIONS[role] == "event_publisher":
        return lambda action: events.works(stack, platforms, emulator, action)
    if FUNCTIONS[role] == "call_exporter":
        return lambda action: exports.works(stack, emulator, action)
    if FUNCTIONS[role] in WEBHOOKS:
        return lambda action: delivery(stack, platforms, FUNCTIONS[role])
    special = {"dynamodb:Query": sweep, "s3:AbortMultipartUpload": broken, "sqs:SendMessage": poisoned}

    def works(action):
        wanted = [special.get(action, large)] if action else [large, *special.values()]
        return next(filter(None, (scenario(stack) for scenario in wanted)), None)

    return works


def delivery(stack, platforms, webhook):
    """A new instance is given everything at once, and again: a turn, a recording, a body that goes into the bucket."""
    stack.restart(webhook)
    for _ in range(HISTORY_ATTEMPTS):
        body = deliveries.call(webhook, deliveries.session(), source.url("small"), large=True)
        status, data = platforms.deliver(webhook, body)
        # A repetition looks for the recording's job, which a call that was never heard of cannot have.
        again, _ = platforms.deliver(webhook, body)
        if (status, again) != (200, 200):
            return f"a delivery was answered {status}, and its repetition {again}"
        if data == ANSWERS.get(webhook, {}):
            return None
    return "a delivery was not answered as the profile says"


def large(stack):
    report, state = archive(stack, "large")
    fine = report == {"batchItemFailures": []} and state == "archived"
    return None if fine else f"a recording is {state}, and {report} was reported"


def broken(stack):
    """A recording that breaks off for good after its upload has begun."""
    archive(stack, "broken")
    bucket = stack.outputs["RecordingsBucket"]
    uploads = stack.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    for upload in uploads:
        stack.s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    return "an upload was left behind" if uploads else None


def sweep(stack):
    return None if invoke(stack, {}) else "the sweep failed"


def poisoned(stack):
    """A poison record, and one behind it, which is archived beside it while that is tried again."""
    failures(stack)
    poison(stack)
    ends(stack, put_job(stack, "small"), "archived")
    given_up = time.monotonic() + POISON_SECONDS
    while time.monotonic() < given_up:
        if failures(stack):
            return None
        time.sleep(0.5)
    return "the failure queue has no word of a poison record"


def schedule(stack, emulator):
    key = put_job(stack, "small", **WAITED)
    emulator.let_the_schedules_fire()
    ends(stack, key, "archived")


# Of a job that has waited before, the stream tells nobody.
WAITED = {"next_attempt_at": "2026-01-01T00:00:00.000000Z"}


def put_job(stack, name, **more):
    key = f"vocobase#{deliveries.session()}"
    stack.put("RecordingsTable", {
        "session": key, "state": "pending", "unfinished": "0", "source_url": source.url(f"{name}-{uuid.uuid4()}"),
        "source": "-", "wanted": "-", "source_expires_at": "2100-01-01T00:00:00.000000Z", **more})
    return key


def archive(stack, name):
    """What the archiver reports of a job of its own, and what state that is in then."""
    key = put_job(stack, name, **WAITED)
    report = invoke(stack, {"Records": [{"dynamodb": {"Keys": {"session": {"S": key}}, "SequenceNumber": "1"}}]})
    state = stack.item("RecordingsTable", key)["state"]
    stack.dynamodb.delete_item(TableName=stack.outputs["RecordingsTable"], Key={"session": {"S": key}})
    return report, state


def invoke(stack, event):
    answer = stack.functions.invoke(FunctionName=f"{NAME}-recording_archiver", Payload=json.dumps(event))
    return None if "FunctionError" in answer else json.loads(answer["Payload"].read())
