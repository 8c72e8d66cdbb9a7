#!/usr/bin/env python3
"""Times the recording archiver against `curl | aws s3 cp -`: the same recording, from the same HTTPS source into the same
local S3, in one run.

    cargo build --release -p recording_archiver && cargo build
    sudo bench/recording.py --mb 1024

The archiver is the deployed binary, unchanged: it fetches from public addresses only. So everything runs in a network
namespace of its own (Linux, root, iproute2), where the source has a public address, and trusts the run's own CA through
RECORDING_CA_FILE. Prints for each the seconds, the rate, the CPU time and the peak memory of its processes. Timings of
one machine and one run: compare them with each other only.
"""

import argparse
import hashlib
import http.client
import http.server
import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOST, ADDRESS, NAMESPACE = "recordings.bench.example", "52.216.0.1", "hookswitch-bench"
PORT = 19500


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mb", type=int, default=1024, help="length of the recording in MiB")
    arguments.add_argument("--inside", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.inside:
        return inside(Path(options.inside), options.mb)
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path("/etc/netns") / NAMESPACE
        hosts.mkdir(parents=True)
        (hosts / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {HOST}\n")
        run("ip", "netns", "add", NAMESPACE)
        try:
            within = ("ip", "netns", "exec", NAMESPACE)
            run(*within, "ip", "link", "set", "lo", "up")
            run(*within, "ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
            run(*within, sys.executable, __file__, "--inside", folder, "--mb", str(options.mb))
        finally:
            run("ip", "netns", "delete", NAMESPACE)
            shutil.rmtree(hosts)


def run(*command, **more):
    return subprocess.run(command, check=True, **more)


def inside(folder, mb):
    certificates(folder)
    recording = folder / "recording.wav"
    digest = make(recording, mb)
    serve(folder, recording)
    dev = subprocess.Popen(
        [ROOT / "target/debug/hookswitch", "dev", "--port", str(PORT), "--data", folder / "data"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "RECORDING_HOSTS": HOST},
    )
    try:
        endpoints = wait_for_endpoints()
        print(f"{mb} MiB over TLS 1.3 from {HOST} into the local S3\n")
        print(f"{'':24}{'seconds':>9}{'MiB/s':>9}{'CPU s':>8}{'peak MiB':>10}")
        archiver(folder, endpoints, mb, digest)
        pipe(folder, endpoints, mb, digest)
    finally:
        dev.terminate()
        dev.wait()


def certificates(folder):
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench", "-keyout", "ca.key",
        "-out", "ca.pem", **quiet)
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={HOST}", "-keyout", "key.pem", "-out", "csr.pem",
        **quiet)
    (folder / "names").write_text(f"subjectAltName=DNS:{HOST}\n")
    run("openssl", "x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "names", "-out", "cert.pem", **quiet)


def make(path, mb):
    block, digest = os.urandom(1 << 20), hashlib.sha256()
    with path.open("wb") as file:
        for index in range(mb):
            piece = (b"RIFF\0\0\0\0WAVE" + block[12:]) if index == 0 else block
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def serve(folder, recording):
    """The source: one file, whatever is asked for, in a process of its own."""
    ready_read, ready_write = os.pipe()
    if os.fork() == 0:
        class Source(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send_response(200)
                self.send_header("content-type", "audio/wav")
                self.send_header("content-length", str(recording.stat().st_size))
                self.end_headers()
                with recording.open("rb") as file:
                    shutil.copyfileobj(file, self.wfile, 1 << 18)

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer((ADDRESS, 443), Source)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        os.write(ready_write, b".")
        parent = os.getppid()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(0)
    os.read(ready_read, 1)


def wait_for_endpoints():
    for _ in range(100):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", PORT)
            connection.request("GET", "/endpoints")
            return json.loads(connection.getresponse().read())
        except OSError:
            time.sleep(0.1)
    sys.exit("the local run does not start: is it built?")


def aws(endpoints, *command, **more):
    env = {**os.environ, "AWS_ACCESS_KEY_ID": endpoints["access_key_id"], "AWS_SECRET_ACCESS_KEY": endpoints["secret_access_key"],
           "AWS_DEFAULT_REGION": endpoints["region"]}
    return run("aws", *command, env=env, **more)


def measured(name, mb, work):
    """Runs `work` in a child, so that what its processes used can be told apart."""
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        work()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        Path(f"/tmp/hookswitch-bench-{os.getpid()}").write_text(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss}")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    seconds = time.monotonic() - began
    used = Path(f"/tmp/hookswitch-bench-{child}")
    if status != 0 or not used.exists():
        sys.exit(f"{name} failed")
    cpu, peak = used.read_text().split()
    used.unlink()
    print(f"{name:24}{seconds:9.2f}{mb / seconds:9.0f}{float(cpu):8.2f}{int(peak) / 1024:10.0f}")


def archiver(folder, endpoints, mb, digest):
    # A job whose worker has died, so that the local run's own archiver leaves it to this one.
    url = f"https://{HOST}/recording.wav?Signature=bench"
    job = {"session": "vocobase#bench", "state": "copying", "lease_id": "dead", "lease_until": "2000-01-01T00:00:00.000000Z",
           "source_url": url, "source": "bench", "wanted": "bench", "source_expires_at": "2100-01-01T00:00:00.000000Z",
           "unfinished": "0"}
    item = json.dumps({name: {"S": value} for name, value in job.items()})
    table = endpoints["tables"]["recordings"]
    aws(endpoints, "dynamodb", "put-item", "--table-name", table, "--item", item, "--endpoint-url", endpoints["dynamodb"])
    env = {f"{name.upper()}_TABLE": table for name, table in endpoints["tables"].items()}
    env |= {"RECORDINGS_BUCKET": endpoints["bucket"], "AWS_REGION": endpoints["region"], "RECORDING_HOSTS": HOST,
            "AWS_ACCESS_KEY_ID": endpoints["access_key_id"], "AWS_SECRET_ACCESS_KEY": endpoints["secret_access_key"],
            "AWS_ENDPOINT_URL_DYNAMODB": endpoints["dynamodb"], "AWS_ENDPOINT_URL_S3": endpoints["s3"],
            "RECORDING_CA_FILE": str(folder / "ca.pem"), "AWS_LAMBDA_FUNCTION_NAME": "recording_archiver",
            "AWS_LAMBDA_FUNCTION_VERSION": "1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512"}

    def work():
        answered = threading.Event()

        class RuntimeApi(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                if answered.is_set():
                    time.sleep(3600)
                self.send_response(200)
                self.send_header("lambda-runtime-aws-request-id", "bench")
                self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
                self.send_header("lambda-runtime-deadline-ms", str(int(time.time() * 1000) + 900_000))
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"] or 0))
                answered.set()
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), RuntimeApi)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        function = subprocess.Popen([ROOT / "target/release/recording_archiver"], stdout=subprocess.DEVNULL,
                                    env={**env, "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}"})
        answered.wait(timeout=900)
        function.kill()
        function.wait()

    measured("recording_archiver", mb, work)
    key = json.dumps({"session": {"S": job["session"]}})
    found = aws(endpoints, "dynamodb", "get-item", "--table-name", table, "--key", key, "--endpoint-url",
                endpoints["dynamodb"], "--output", "json", capture_output=True)
    found = json.loads(found.stdout)["Item"]
    if found["state"]["S"] != "archived" or found["sha256"]["S"] != digest:
        sys.exit(f"the archiver did not archive: {found}")


def pipe(folder, endpoints, mb, digest):
    target = f"s3://{endpoints['bucket']}/bench/pipe.wav"

    def work():
        source = subprocess.Popen(["curl", "-sf", "--cacert", folder / "ca.pem", f"https://{HOST}/recording.wav"],
                                  stdout=subprocess.PIPE)
        aws(endpoints, "s3", "cp", "-", target, "--expected-size", str(mb << 20), "--endpoint-url", endpoints["s3"],
            stdin=source.stdout, stdout=subprocess.DEVNULL)
        source.wait()

    measured("curl | aws s3 cp -", mb, work)
    check = subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    aws(endpoints, "s3", "cp", target, "-", "--endpoint-url", endpoints["s3"], stdout=check.stdin)
    check.stdin.close()
    if check.stdout.read().split()[0].decode() != digest:
        sys.exit("the pipe copied something else")


if __name__ == "__main__":
    main()
