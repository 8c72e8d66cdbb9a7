"""Runs the commands of README.md against a running `cargo dev` and compares what they print.

The bash block after `<!-- ci:setup -->` is put before all later ones. The bash block after `<!-- ci:curl -->` is run,
and must print the JSON of the next json block. Usage: readme.py README.md
"""

import json
import re
import subprocess
import sys

PIECES = re.compile(r"^<!-- ci:(\w+) -->$|^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

setup, mode, command, compared = "set -euo pipefail\n", None, None, 0
with open(sys.argv[1], encoding="utf-8") as file:
    text = file.read()
for found in PIECES.finditer(text):
    marker, language, block = found.groups()
    if marker:
        assert command is None, f"no json follows\n{command}"
        mode = marker
    elif language == "bash" and mode == "setup":
        setup, mode = setup + block, None
    elif language == "bash" and mode == "curl":
        command, mode = block, None
    elif language == "json" and command:
        done = subprocess.run(["bash", "-c", setup + command], stdout=subprocess.PIPE, text=True, timeout=60)
        if done.returncode != 0 or json.loads(done.stdout or "null") != json.loads(block):
            sys.exit(f"{command}exited {done.returncode} and printed\n{done.stdout}\ninstead of\n{block}")
        command, compared = None, compared + 1
assert command is None and mode is None, "a marker without its blocks"
assert compared >= 8, f"only {compared} commands were found"
print(f"{compared} commands of {sys.argv[1]} print what it says")
