"""Asks the named queries of infra/template.yaml over simulated calls, and compares the answers with what was simulated.

The queries are taken as they are, and put from Athena's words into DuckDB's by sqlglot. They are asked three times: over
the documents that the exporter left in the bucket, read as the template's table says, and over the NDJSON and the Parquet
files of `hookswitch export`. The answers are worked out from the deliveries that were made, and from nothing else.
Usage: analysis.py, with what .ci/requirements/analysis.txt names.
"""

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import duckdb
import sqlglot
import yaml

ROOT = Path(__file__).parent.parent
STORY = ["cargo", "test", "--quiet", "--workspace", "--test", "stories", "--", "--ignored", "--exact",
         "export::writes_what_is_analysed"]
TYPES = {"string": "VARCHAR", "double": "DOUBLE", "bigint": "BIGINT", "boolean": "BOOLEAN"}


class Loader(yaml.SafeLoader):
    """Takes CloudFormation's short forms for what they stand before."""


Loader.add_multi_constructor("!", lambda loader, tag, node: getattr(loader, f"construct_{node.id}")(node))


def main():
    template = yaml.load((ROOT / "infra/template.yaml").read_text(encoding="utf-8"), Loader)
    resources = template["Resources"].values()
    queries = {query["Properties"]["Name"]: query["Properties"]["QueryString"] for query in resources
               if query["Type"] == "AWS::Athena::NamedQuery"}
    table = template["Resources"]["CallsTable"]["Properties"]["TableInput"]
    with tempfile.TemporaryDirectory(prefix="hookswitch-") as temporary:
        subprocess.run(STORY, cwd=ROOT, check=True, env={**os.environ, "TMPDIR": temporary}, stdout=subprocess.DEVNULL)
        folder = Path(temporary) / "hookswitch-analysis"
        calls = simulated(folder / "planned.ndjson")
        answers = expected(calls)
        assert queries.keys() == answers.keys(), f"queries {sorted(queries)}, answers {sorted(answers)}"
        assert all(answers.values()), f"a question has no answer: {answers}"
        for name, files in {"documents": documents(folder, table), "NDJSON": ndjson(folder, table),
                            "Parquet": f"read_parquet('{folder}/parquet/**/*.parquet', hive_partitioning = true)"}.items():
            # As Athena has it, a day is a text.
            view = f"CREATE VIEW calls AS SELECT * REPLACE (CAST(dt AS VARCHAR) AS dt) FROM {files}"
            database = duckdb.connect()
            database.execute(view)
            rows = database.execute("SELECT count(*) FROM calls").fetchone()[0]
            assert rows == len(calls), f"{name}: {rows} calls of {len(calls)}"
            for query, text in queries.items():
                found = database.execute(sqlglot.transpile(text, read="athena", write="duckdb")[0]).fetchall()
                assert found == answers[query], f"{query} over {name}:\n{found}\ninstead of\n{answers[query]}"
            print(f"{name}: {', '.join(f'{query} {len(answers[query])} rows' for query in queries)}, as simulated")


def documents(folder, table):
    """As the template's table has them: columns, and partitions from the place."""
    return json_files(f"{folder}/documents/calls/**/*.json", table)


def ndjson(folder, table):
    return json_files(f"{folder}/ndjson/**/*.ndjson", table)


def json_files(files, table):
    columns = {column["Name"]: duckdb_type(column["Type"]) for column in table["StorageDescriptor"]["Columns"]}
    columns = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    return f"read_json('{files}', format = 'newline_delimited', columns = {{{columns}}}, hive_partitioning = true)"


def duckdb_type(kind):
    """One of Glue's types in DuckDB's words."""
    if whole := re.fullmatch("array<(.*)>", kind):
        return duckdb_type(whole[1]) + "[]"
    if whole := re.fullmatch("struct<(.*)>", kind):
        members = (member.split(":") for member in whole[1].split(","))
        # In quotation marks: some of the names are words of SQL.
        return "STRUCT(" + ", ".join(f'"{name}" {duckdb_type(inner)}' for name, inner in members) + ")"
    return TYPES[kind]


def simulated(file):
    """What was delivered of each call."""
    calls = defaultdict(list)
    for line in file.read_text(encoding="utf-8").splitlines():
        planned = json.loads(line)
        body = planned["body"]
        calls[body.get("session_id") or body["data"]["session_id"]].append((planned["webhook"], body))
    return [of_vocobase(sent[0][1]) if sent[0][0] == "session_completed" else of_exotel(sent) for sent in calls.values()]


def of_exotel(sent):
    began = sent[0][1]["start_time"]
    end = next(body["end_time"] for webhook, body in sent if webhook == "session_end")
    moods = [event["event_data"] for _, body in sent for event in body["events"] if event["event_type"] == "sentiment"]
    return {"provider": "exotel", "session": f"exotel#{sent[0][1]['session_id']}", "day": began[:10],
            # As the bundle has it: whole milliseconds.
            "seconds": Decimal(millis(end) - millis(began)) / 1000, "bot": sent[0][1]["bot_id"],
            "transferred": any(webhook == "pre_agent_transfer" for webhook, _ in sent), "latencies": [],
            "mood": max(moods, key=lambda mood: mood["timestamp"])["value"] if moods else None, "failed": None}


def of_vocobase(body):
    session = body["data"]
    url = session["recording_url"]
    latencies = [line["latency_ms"] for line in session["transcript"] if line["latency_ms"] is not None]
    return {"provider": "vocobase", "session": f"vocobase#{session['session_id']}",
            "day": session["transcript"][0]["timestamp"][:10], "seconds": Decimal(session["duration_seconds"]),
            "bot": session["agent_id"], "transferred": False, "latencies": latencies, "mood": None,
            "failed": "rejected" if url and "elsewhere.example" in url else None}


def millis(instant):
    moment = datetime.fromisoformat(instant)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def rounded(number):
    return float(number.quantize(Decimal("0.1"), ROUND_HALF_UP))


def expected(calls):
    days, bots, moods, latencies = defaultdict(list), defaultdict(list), Counter(), defaultdict(list)
    for call in calls:
        days[call["day"], call["provider"]].append(call)
        bots[call["bot"]].append(call)
        latencies[call["bot"]] += call["latencies"]
        if call["mood"]:
            moods[call["bot"], call["mood"]] += 1
    volume = [(*day, len(some), rounded(sum(call["seconds"] for call in some) / 60)) for day, some in sorted(days.items())]
    containment = []
    for bot, some in sorted(bots.items()):
        transferred = sum(call["transferred"] for call in some)
        alone = len(some) - transferred
        containment.append((bot, len(some), alone, transferred, rounded(Decimal(100 * alone) / len(some))))
    latency = []
    for bot, some in sorted(latencies.items()):
        some = sorted(some)
        if some:
            ranks = [some[math.ceil(len(some) * share / 100) - 1] for share in (50, 90, 99)]
            latency.append((bot, len(some), *ranks, some[-1]))
    failed = sorted((call["day"], call["session"], call["failed"]) for call in calls if call["failed"])
    return {"volume": volume, "containment": containment, "sentiment": [(*mood, count) for mood, count in sorted(moods.items())],
            "latency": latency, "failed-recordings": failed}


if __name__ == "__main__":
    sys.exit(main())
