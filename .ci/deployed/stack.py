"""The emulator, the stack deployed to it as a user deploys it, and what can be asked of both."""

import hashlib
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import boto3
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError
from source import HOST

ROOT = Path(__file__).resolve().parents[2]
NAME, REGION, PORT = "hookswitch", "us-east-1", 4566
ENDPOINT = f"http://127.0.0.1:{PORT}"


class Failed(Exception):
    """What was to be shown is not so."""


def expect(condition, otherwise):
    if not condition:
        raise Failed(otherwise)


def until(wanted, seconds, otherwise):
    """What `wanted` gives, once it gives something."""
    end = time.monotonic() + seconds
    while not (found := wanted()):
        expect(time.monotonic() < end, f"{otherwise}, within {seconds} s")
        time.sleep(0.1)
    return found


def environment(folder):
    """Of every process here: nothing of the caller's account, configuration or caches."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "LANG": "C.UTF-8",
            "AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "SAM_CLI_TELEMETRY": "0"}


def client(service, id="test", secret="test"):
    return boto3.client(service, endpoint_url=ENDPOINT, region_name=REGION, aws_access_key_id=id,
                        aws_secret_access_key=secret, config=Config(retries={"total_max_attempts": 1}))


class Emulator:
    """ministack, with what launch.py adds."""

    def __init__(self, folder):
        self.log, self.ahead, self.aged = folder / "emulator.log", folder / "ahead", folder / "aged"
        self.ahead.write_text("0")
        self.aged.write_text("0")
        # The functions inherit this environment.
        own = {"AUTH": "true", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(PORT), "MINISTACK_HOST": "127.0.0.1",
               "RECORDING_CA_FILE": str(folder / "authority.pem"), "SSL_CERT_FILE": str(folder / "authority.pem")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, Path(__file__).with_name("launch.py"), folder],
                                            env={**environment(folder), **own}, stdout=log, stderr=log)

    def wait(self):
        until(self.answers, 60, "the emulator does not start")

    def answers(self):
        expect(self.process.poll() is None, "the emulator has ended")
        try:
            return client("sts").get_caller_identity()
        except EndpointConnectionError:
            return None

    def let_the_schedules_fire(self):
        """A quarter of an hour passes, for the schedules alone."""
        self.ahead.write_text(str(int(self.ahead.read_text()) + 900))

    def age_the_streams(self, seconds):
        """What streams bring is older by that."""
        self.aged.write_text(str(seconds))


class Stack:
    def __init__(self, folder):
        self.folder = folder
        self.cloudformation, self.dynamodb, self.s3 = client("cloudformation"), client("dynamodb"), client("s3")
        self.secrets, self.functions, self.iam = client("secretsmanager"), client("lambda"), client("iam")
        self.queues, self.workflows = client("sqs"), client("stepfunctions")

    def deploy(self, **parameters):
        """Deploys the template as it is; whether that succeeded, and what was said."""
        return self.sam_deploy("infra/template.yaml", {"RecordingHosts": HOST, **parameters})

    def deploy_example(self, name, **parameters):
        """Deploys one of infra/examples as its first lines say; its outputs."""
        stack_name = f"{NAME}-{name}"
        more = ["--stack-name", stack_name, "--capabilities", "CAPABILITY_IAM"]
        succeeded, said = self.sam_deploy(f"infra/examples/{name}.yaml", parameters, *more)
        expect(succeeded, f"sam deploy of {name}.yaml failed:\n{said}")
        return self.outputs_of(stack_name)

    def sam_deploy(self, template, parameters, *more):
        overrides = [f"{name}='{value}'" for name, value in parameters.items()]
        command = ["sam", "deploy", "-t", template, "--no-confirm-changeset", *more, "--parameter-overrides", *overrides]
        done = subprocess.run(command, cwd=ROOT, env=environment(self.folder), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode == 0, done.stdout

    def outputs_of(self, stack_name):
        [found] = self.cloudformation.describe_stacks(StackName=stack_name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    def must_deploy(self, **parameters):
        succeeded, said = self.deploy(**parameters)
        expect(succeeded, f"sam deploy failed:\n{said}")
        self.outputs = self.outputs_of(NAME)
        resources = self.cloudformation.describe_stack_resources(StackName=NAME)["StackResources"]
        self.physical = {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in resources}

    def delete(self, stack_name):
        self.cloudformation.delete_stack(StackName=stack_name)
        self.cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack_name, WaiterConfig={"Delay": 1})

    @contextmanager
    def without(self, role, action):
        """While an action is taken from a role, whose statement holds no other."""
        name = self.physical[role]
        [policy] = self.iam.list_role_policies(RoleName=name)["PolicyNames"]
        whole = self.iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        left = [statement for statement in whole["Statement"] if statement["Action"] != action]
        expect(len(left) < len(whole["Statement"]), f"{role} has no statement of {action} alone")
        try:
            self.put_policy(name, policy, {**whole, "Statement": left})
            yield
        finally:
            self.put_policy(name, policy, whole)

    def put_policy(self, role, policy, document):
        self.iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=json.dumps(document))

    def restart(self, function):
        """Ends the function's instances, and with them whatever they have cached."""
        name = f"{NAME}-{function}"
        timeout = self.functions.get_function_configuration(FunctionName=name)["Timeout"]
        self.functions.update_function_configuration(FunctionName=name, Timeout=timeout)

    def secret(self, output):
        return self.secrets.get_secret_value(SecretId=self.outputs[output])["SecretString"]

    def has_value(self, output):
        if not output.endswith("Secret"):
            return False
        try:
            return self.secret(output)
        except self.secrets.exceptions.ResourceNotFoundException:
            return None

    def put_secret(self, output, value):
        self.secrets.put_secret_value(SecretId=self.outputs[output], SecretString=value)

    def put(self, table, item):
        item = {name: TypeSerializer().serialize(value) for name, value in item.items()}
        self.dynamodb.put_item(TableName=self.outputs[table], Item=item)

    def stored(self, table, session):
        """The items of a session, in DynamoDB's own form."""
        found = self.dynamodb.query(TableName=self.outputs[table], KeyConditionExpression="#session = :session",
                                    ExpressionAttributeNames={"#session": "session"}, ConsistentRead=True,
                                    ExpressionAttributeValues={":session": {"S": session}})
        return found["Items"]

    def stream(self, table):
        return self.dynamodb.describe_table(TableName=self.outputs[table])["Table"]["LatestStreamArn"]

    def item(self, table, key):
        found = self.dynamodb.get_item(TableName=self.outputs[table], Key={"session": {"S": key}}, ConsistentRead=True)
        return plain(found.get("Item", {}))

    def items(self, table):
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.outputs[table], ConsistentRead=True)
        return [plain(item) for page in pages for item in page["Items"]]

    def object(self, key):
        return self.s3.get_object(Bucket=self.outputs["RecordingsBucket"], Key=key)["Body"].read()

    def contents(self):
        """Everything that is kept: items, objects, values of secrets. Not the documents of calls, which follow from it."""
        kept = {table: sorted(map(repr, self.items(table))) for table in self.outputs if table.endswith("Table")}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.outputs["RecordingsBucket"])
        keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        keys = [key for key in keys if not key.startswith("calls/")]
        kept["objects"] = {key: hashlib.sha256(self.object(key)).hexdigest() for key in keys}
        return kept | {secret: self.secret(secret) for secret in self.outputs if self.has_value(secret)}


def plain(item):
    return {name: TypeDeserializer().deserialize(value) for name, value in sorted(item.items())}
