#!/usr/bin/env python3
"""How long deliveries take at each memory size: Lambda gives a function a share of a core in proportion to its memory, and
the template's sizes are chosen by this.

    cargo lambda build --release && cargo build -p cli
    sudo bench/memory.py

Each function is the deployed binary, unchanged, in a CPU cgroup with Lambda's share (1,769 MB are one core, in periods of
20 ms; none while it starts, as on Lambda), over the stores of a local run. Prints the CPU time from the start to the first
event, then for the first delivery and for later ones the milliseconds to the answer. Linux, root. Timings of one machine
and one run: compare them with each other, and with the deadline, only.
"""

import hashlib
import hmac
import http.client
import http.server
import json
import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 19600
SECRET = "whsec_bench"
SIZES = [128, 256, 512, 1024, 1769]
PERIOD_MICROS = 20_000
WORDS = "a call about the plan that I asked for yesterday and an invoice which says more than it should have said".split()


def main():
    run = subprocess.Popen([ROOT / "target/debug/hookswitch", "dev", "--ephemeral", "--port", str(PORT)],
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        endpoints = wait_for_endpoints()
        print(f"{'delivery':30}{'MB':>6}{'init CPU ms':>13}{'first ms':>10}{'later p50':>11}{'later max':>11}{'RSS MiB':>9}")
        for name, function, body, later in [
            ("session_start, documented", "session_start", exotel, 20),
            ("transcript_events, documented", "transcript_events", exotel, 20),
            ("session_completed, documented", "session_completed", vocobase, 20),
            ("session_completed, 45 KB", "session_completed", lambda n: vocobase(n, 300, 100), 10),
            ("session_completed, 4 MB", "session_completed", lambda n: vocobase(n, 4000, 960), 3),
        ]:
            for megabytes in SIZES:
                measure(name, function, megabytes, [body(n) for n in range(later + 1)], endpoints)
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait()


def fixture(name):
    return json.loads((ROOT / "tests/fixtures" / f"{name}_documented.json").read_text())


def exotel(n):
    return fixture("exotel") | {"session_id": f"bench-{os.urandom(4).hex()}-{n}"}


def vocobase(n, turns=3, letters=None):
    """The documented delivery, or one with so many turns of so many letters."""
    delivery = fixture("vocobase")
    data = delivery["data"]
    data |= {"session_id": f"bench-{os.urandom(4).hex()}-{n}", "recording_url": None}
    if letters:
        data["transcript"] = [{"role": "user" if turn % 2 else "bot", "content": words(letters),
                               "timestamp": f"2026-03-15T14:{turn // 60 % 60:02}:{turn % 60:02}.000Z"}
                              for turn in range(turns)]
    return delivery


def words(letters):
    text = []
    while sum(map(len, text)) + len(text) < letters:
        text.append(random.choice(WORDS))
    return " ".join(text)[:letters]


def wait_for_endpoints():
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT)
            connection.request("GET", "/endpoints")
            return json.loads(connection.getresponse().read())
        except OSError:
            time.sleep(0.1)
    sys.exit("the local run does not start: is it built?")


def event(function, body):
    """A function URL's event, payload version 2.0."""
    body, headers, query = json.dumps(body), {"content-type": "application/json", "host": "bench"}, ""
    if function == "session_completed":
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers["x-webhook-timestamp"] = now
        headers["x-webhook-signature"] = "sha256=" + sign(f"{now}.{body}")
    else:
        query = f"token=k1.{sign(f'exotel/{function}')}"
    return json.dumps({
        "version": "2.0", "routeKey": "$default", "rawPath": "/", "rawQueryString": query, "headers": headers,
        "requestContext": {"accountId": "anonymous", "apiId": "a", "domainName": "a", "domainPrefix": "a",
                           "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "-", "timeEpoch": 0,
                           "http": {"method": "POST", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "203.0.113.7",
                                    "userAgent": "bench"}},
        "body": body, "isBase64Encoded": False}).encode()


def sign(text):
    return hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).hexdigest()


class Share:
    """A CPU cgroup of version 1 or 2."""

    def __init__(self, megabytes):
        base = Path("/sys/fs/cgroup")
        unified = (base / "cgroup.controllers").exists()
        self.folder = (base if unified else base / "cpu") / f"hookswitch-bench-{os.getpid()}"
        self.folder.mkdir()
        quota = round(PERIOD_MICROS * min(megabytes / 1769, 1))
        if unified:
            (self.folder / "cpu.max").write_text(f"{quota} {PERIOD_MICROS}")
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_MICROS))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota))

    def holds(self, pid):
        (self.folder / "cgroup.procs").write_text(str(pid))

    def remove(self):
        self.folder.rmdir()


def measure(name, function, megabytes, bodies, endpoints):
    asked, events, answers = threading.Event(), queue.Queue(), queue.Queue()

    class RuntimeApi(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def do_GET(self):
            asked.set()
            body = events.get()
            self.send_response(200)
            self.send_header("lambda-runtime-aws-request-id", "bench")
            self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
            self.send_header("lambda-runtime-deadline-ms", str(int(time.time() * 1000) + 60_000))
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            answer = self.rfile.read(int(self.headers["content-length"]))
            answers.put((time.monotonic(), answer))
            self.send_response(202)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
    server.handle_error = lambda *_: None  # the function is killed in the middle of asking
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = {f"{table.upper()}_TABLE": physical for table, physical in endpoints["tables"].items()}
    env |= {"RECORDINGS_BUCKET": endpoints["bucket"], "AWS_REGION": endpoints["region"], "STACK_NAME": "bench",
            "AWS_ACCESS_KEY_ID": endpoints["access_key_id"], "AWS_SECRET_ACCESS_KEY": endpoints["secret_access_key"],
            "AWS_ENDPOINT_URL_DYNAMODB": endpoints["dynamodb"], "AWS_ENDPOINT_URL_S3": endpoints["s3"],
            "EXOTEL_TOKEN_SECRETS": f"k1:{SECRET}", "VOCOBASE_SECRETS": SECRET, "RETENTION_DAYS": "365",
            "DEADLINE_MS": "10000", "AWS_LAMBDA_FUNCTION_NAME": function, "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(megabytes), "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}"}
    share = Share(megabytes)
    process = subprocess.Popen([ROOT / "target/lambda" / function / "bootstrap"], env=env, stdout=subprocess.DEVNULL)
    try:
        if not asked.wait(timeout=10):
            sys.exit(f"{function} does not start")
        time.sleep(0.05)
        init = cpu_millis(process.pid)
        share.holds(process.pid)
        took = []
        for body in bodies:
            time.sleep(0.021)  # a new period, as between invocations
            sent_at = time.monotonic()
            events.put(event(function, body))
            at, answer = answers.get(timeout=60)
            if json.loads(answer)["statusCode"] not in (200, 504):
                sys.exit(f"{function} answered {answer[:200]}")
            took.append((at - sent_at) * 1000)
        first, later = took[0], took[1:]
        print(f"{name:30}{megabytes:6}{init:13.1f}{first:10.1f}{statistics.median(later):11.1f}{max(later):11.1f}"
              f"{peak_mib(process.pid):9.1f}", flush=True)
    finally:
        process.kill()
        process.wait()
        share.remove()
        server.shutdown()


def cpu_millis(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


def peak_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
