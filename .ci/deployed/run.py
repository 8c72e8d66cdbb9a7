#!/usr/bin/env python3
"""Deploys the stack, as it is, to an AWS emulator on this machine, and shows that it works there.

    target/ci/venv-ministack/bin/python .ci/deployed/run.py

Needs what .ci/requirements/ministack.txt installs, on the PATH the SAM CLI, which wants other versions of some of that,
target/lambda/*/bootstrap and target/debug/hookswitch, and Linux with iproute2 and openssl. Everything runs in
namespaces of its own, which end with all their processes when this one does: there a recording's source has a public
address, and the function URLs have their own names. launch.py says what the emulator does itself and what is added.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import deliveries
import events
import exports
import privileges
import reconciler
import recordings
import rotation
import source
import vocobase
from botocore.exceptions import ClientError
from deliveries import PROFILE, WEBHOOKS, Platforms
from stack import NAME, ROOT, Emulator, Failed, Stack, client, environment, expect


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.inside:
        return inside(options.inside)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="hookswitch-") as folder:
        apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        apart += [] if os.geteuid() == 0 else ["--map-root-user"]
        done = subprocess.run([*apart, sys.executable, __file__, "--inside", folder])
    sys.exit(done.returncode)


def inside(folder):
    began = time.monotonic()
    run("ip", "link", "set", "lo", "up")
    for address in (source.ADDRESS, vocobase.ADDRESS, events.ADDRESS):
        run("ip", "address", "add", f"{address}/32", "dev", "lo")
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{source.ADDRESS} {source.HOST} {source.FORBIDDEN_HOST}\n"
                     f"{vocobase.ADDRESS} {vocobase.HOST}\n"
                     f"{events.ADDRESS} {events.ENDPOINT_HOST} {events.SLACK_HOST}\n")
    run("mount", "--bind", hosts, "/etc/hosts")
    certificates(folder)
    source.serve(folder)
    api, receiver = vocobase.Api(folder), events.Receiver(folder)
    emulator, stack = Emulator(folder), Stack(folder)
    try:
        emulator.wait()
        part("a failed first deployment does not block the next", failed_deployment, stack)
        platforms = part("deployment", deployment, stack, hosts)
        queue, dead_letters = part("examples", events.subscribe, stack)
        part("commands", commands, stack, platforms)
        part("simulated calls", simulation, stack)
        part("recordings", recordings.show, stack, platforms, emulator)
        part("what never came", reconciler.show, stack, platforms, emulator, api, hookswitch)
        part("events out", events.show, stack, platforms, queue, dead_letters, receiver)
        part("what the bus does not take", events.undelivered, stack, platforms, emulator, queue, hookswitch)
        part("calls as documents", exports.show, stack, platforms)
        part("a second deployment keeps everything", second_deployment, stack)
        part("rotation under load", rotation.show, stack, platforms)
        part("least privilege", privileges.show, stack, platforms, emulator, api)
        part("removal keeps everything", removal, stack)
    except Exception as error:
        print(f"FAILED: {error}" if isinstance(error, Failed) else traceback.format_exc())
        print("\nThe emulator's last words:", *emulator.log.read_text().splitlines()[-40:], sep="\n")
        sys.exit(1)
    print(f"\nin all {time.monotonic() - began:.0f} s")


def part(name, show, *arguments):
    print(f"\n{name}", flush=True)
    began = time.monotonic()
    result = show(*arguments)
    print(f"  {time.monotonic() - began:.0f} s", flush=True)
    return result


def run(*command, **more):
    subprocess.run(command, check=True, **more)


def certificates(folder):
    """An authority of this run, and one certificate for every server and all function URLs."""
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    names = (source.HOST, source.FORBIDDEN_HOST, vocobase.HOST, events.ENDPOINT_HOST, events.SLACK_HOST,
             "*.lambda-url.us-east-1.on.aws")
    (folder / "names").write_text(f"subjectAltName={','.join(f'DNS:{name}' for name in names)}\n")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=this run", "-keyout",
        "authority.key", "-out", "authority.pem", **quiet)
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=its hosts", "-keyout", "key.pem", "-out",
        "request.pem", **quiet)
    run("openssl", "x509", "-req", "-in", "request.pem", "-CA", "authority.pem", "-CAkey", "authority.key",
        "-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "cert.pem", **quiet)


def failed_deployment(stack):
    succeeded, said = stack.deploy(ReservedConcurrency=1)
    expect(not succeeded, "the deployment that was to fail succeeded")
    events = stack.cloudformation.describe_stack_events(StackName=NAME)["StackEvents"]
    reasons = [event.get("ResourceStatusReason", "") for event in events if event["ResourceStatus"] == "CREATE_FAILED"]
    expect(any("below its minimum value" in reason for reason in reasons), f"the deployment failed otherwise:\n{said}")
    buckets = [bucket["Name"] for bucket in stack.s3.list_buckets()["Buckets"]]
    left = [*stack.dynamodb.list_tables()["TableNames"], *(name for name in buckets if name.startswith(NAME)),
            *stack.secrets.list_secrets()["SecretList"], *stack.iam.list_roles()["Roles"]]
    expect(not left, f"the failed deployment left {left}")
    stack.delete(NAME)
    print("  a function could not be created: everything rolled back, no table, bucket, secret or role left")


def deployment(stack, hosts):
    stack.must_deploy()
    urls = {webhook: stack.outputs[deliveries.camel_case(webhook) + "Url"] for webhook in WEBHOOKS}
    names = [re.fullmatch("https://([^/]+)/", url)[1] for url in urls.values()]
    with hosts.open("a") as file:
        file.writelines(f"127.0.0.1 {name}\n" for name in names)
    secret = stack.secret("ExotelTokenSecret")
    expect(re.fullmatch("[A-Za-z0-9]{48}", secret), "the generated secret is not 48 letters and digits")
    platforms = Platforms(urls, stack.folder / "authority.pem", ("k1", secret), "whsec_of_this_run")
    stack.put("ProfilesTable", PROFILE)

    status, _ = platforms.deliver("session_completed", deliveries.call("session_completed", deliveries.session()))
    expect(status == 503, f"session_completed, whose secret has no value yet, answered {status}")
    said = hookswitch(stack, "doctor")
    expect("hookswitch secret set vocobase" in said, f"the doctor does not say that a secret is not set:\n{said}")
    hookswitch(stack, "secret", "set", "vocobase", input=platforms.vocobase)
    for webhook in WEBHOOKS:
        body = deliveries.call(webhook, deliveries.session())
        status, _ = platforms.deliver(webhook, body, forged=True)
        expect(status == 401, f"{webhook} answered {status} to a forged delivery")
        status, _ = platforms.deliver(webhook, body)
        expect(status == 200, f"{webhook} answered {status}")
    tls_only(stack)
    print(f"  {len(stack.physical)} resources; six function URLs answer 200, and 401 to a forged delivery;")
    print("  session_completed answers 503 until its secret has a value; the bucket refuses plain HTTP")
    return platforms


def tls_only(stack):
    """Whoever speaks plain HTTP is refused by the bucket, whatever they are allowed otherwise."""
    allowed = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    stack.iam.create_user(UserName="reader")
    stack.iam.put_user_policy(UserName="reader", PolicyName="reader", PolicyDocument=allowed)
    key = stack.iam.create_access_key(UserName="reader")["AccessKey"]
    s3, bucket = client("s3", key["AccessKeyId"], key["SecretAccessKey"]), stack.outputs["RecordingsBucket"]
    s3.list_objects_v2(Bucket=bucket)
    over_http = ("x-forwarded-proto", "http")
    s3.meta.events.register("before-sign.s3", lambda request, **_: request.headers.add_header(*over_http))
    try:
        s3.list_objects_v2(Bucket=bucket)
    except ClientError as error:
        return expect(error.response["Error"]["Code"] == "AccessDenied", f"plain HTTP: {error}")
    raise Failed("the bucket answers plain HTTP")


def hookswitch(stack, *command, succeeds=True, **more):
    """What a command says of the stack."""
    env = {**environment(stack.folder), "SSL_CERT_FILE": str(stack.folder / "authority.pem")}
    done = subprocess.run([ROOT / "target/debug/hookswitch", *command, "--stack", NAME], env=env, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **more)
    expect((done.returncode == 0) == succeeds, f"hookswitch {command[0]} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def commands(stack, platforms):
    """What a person does with a stack: looks whether all is well, rotates and retires a key, pastes the new URLs."""
    before = stack.contents()
    healthy = hookswitch(stack, "doctor")
    expect("warning" not in healthy, f"the doctor warns of a healthy stack:\n{healthy}")
    expect(stack.contents() == before, "the doctor left something behind")

    hookswitch(stack, "secret", "rotate", "exotel")
    urls = dict(re.findall(r"^  (\w+) +(https://\S+)$", hookswitch(stack, "urls"), re.MULTILINE))
    expect(sorted(urls) == sorted(WEBHOOKS), f"URLs are printed of {sorted(urls)}")
    for webhook in set(WEBHOOKS) - {"session_completed"}:
        status, _ = platforms.post(urls[webhook], json.dumps(deliveries.call(webhook, deliveries.session())), {})
        expect(status == 200, f"{webhook} answered {status} at the URL that was printed")
    hookswitch(stack, "secret", "retire", "exotel", "--yes")
    platforms.exotel = tuple(stack.secret("ExotelTokenSecret").split(":"))

    archiver = f"{NAME}-recording_archiver"
    [mapping] = stack.functions.list_event_source_mappings(FunctionName=archiver)["EventSourceMappings"]
    stack.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
    said = hookswitch(stack, "doctor", succeeds=False)
    wrong = [line for line in said.splitlines() if line.startswith("wrong")]
    expect(len(wrong) == 1 and "stream" in wrong[0], f"the doctor does not see that the stream is disabled:\n{said}")
    stack.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)
    print(f"  {len(healthy.splitlines())} checks of the doctor, all well and nothing left behind; a key rotated, pasted")
    print("  and retired; a disabled stream mapping is found and said")


def simulation(stack):
    said = hookswitch(stack, "simulate", "--calls", "60", "--shuffle", "--duplicate", "0.3")
    print("  " + said.strip().replace("\n", "\n  "))


def second_deployment(stack):
    before = stack.contents()
    stack.must_deploy(LogLevel="warn")
    function = stack.functions.get_function_configuration(FunctionName=f"{NAME}-session_end")
    expect(function["Environment"]["Variables"]["LOG_LEVEL"] == "warn", "the second deployment changed nothing")
    after = stack.contents()
    changed = [what for what, kept in before.items() if kept != after[what]]
    expect(not changed, f"the second deployment changed {', '.join(changed)}")
    items = sum(len(kept) for what, kept in before.items() if what.endswith("Table"))
    print(f"  {items} items, {len(before['objects'])} objects and the values of the secrets are what they were")


def removal(stack):
    before = stack.contents()
    for name in (*(f"{NAME}-{example}" for example in events.EXAMPLES), NAME):
        stack.delete(name)
    left = stack.functions.list_functions()["Functions"]
    expect(not left, f"the stack is deleted, and its functions are not: {[function['FunctionName'] for function in left]}")
    expect(stack.contents() == before, "deleting the stack deleted or changed what it holds")
    print("  the stack is deleted; every item, every object and the values of the secrets are there")


if __name__ == "__main__":
    main()
