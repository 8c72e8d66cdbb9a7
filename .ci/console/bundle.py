"""A local run with simulated calls, what the platforms would send it, and a host of recordings that can be down."""

import datetime
import hashlib
import hmac
import http.server
import json
import math
import re
import struct
import subprocess
import threading
import time
import urllib.request

HOOKSWITCH = "target/debug/hookswitch"
CALLS = 60


def instant(seconds=0.0):
    at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def exotel(session, **members):
    return {"session_id": session, "bot_id": "b1", "bot_name": "Support", "start_time": instant(), **members}


def turn(sequence, speaker, text, start):
    segment = {"speaker": speaker, "text": text, "start_timestamp": instant(start), "end_timestamp": instant(start + 2)}
    transcript = {"sequence": sequence, "status": "completed", "transcript_segments": [segment]}
    return {"event_type": "transcript", "event_data": {"transcripts": [transcript]}}


class Bundle:
    def __enter__(self):
        subprocess.run(["cargo", "build", "--quiet", "--workspace", "--bins"], check=True)
        self.process = subprocess.Popen(
            [HOOKSWITCH, "dev", "--ephemeral", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self.process.stdout:
            if said := re.search(r"(http://127\.0\.0\.1:\d+)/endpoints says", line):
                self.base = said[1]
                break
        self.console = f"{self.base}/console/"
        self.endpoints = json.load(urllib.request.urlopen(f"{self.base}/endpoints"))
        port = self.base.rsplit(":", 1)[1]
        simulate = ["simulate", "--calls", str(CALLS), "--seed", "7", "--recording-mb", "1.2", "--port", port]
        subprocess.run([HOOKSWITCH, *simulate], check=True, stdout=subprocess.DEVNULL)
        self.recordings = Recordings()
        return self

    def __exit__(self, *_):
        self.recordings.stop()
        self.process.terminate()
        self.process.wait()

    def deliver(self, webhook, body):
        """As the platform would; 200 is the only answer that is expected."""
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"content-type": "application/json"}
        if webhook == "session_completed":
            at, secret = instant(), self.endpoints["vocobase_secret"]
            mac = hmac.new(secret.encode(), f"{at}.{text}".encode(), hashlib.sha256).hexdigest()
            headers |= {"x-webhook-timestamp": at, "x-webhook-signature": f"sha256={mac}"}
        request = urllib.request.Request(self.endpoints[webhook], text.encode(), headers)
        assert urllib.request.urlopen(request).status == 200

    def completed(self, session, recording=None):
        """A Vocobase call that is over."""
        said = [("bot", "Hello!", 1, 420), ("user", "Hi.", 4, None), ("bot", "How may I help?", 6, 650)]
        transcript = [
            {"role": role, "content": content, "timestamp": instant(at), "latency_ms": latency}
            for role, content, at, latency in said
        ]
        call = {"call_id": f"c-{session}", "from_number": "+14155550100", "to_number": "+919876500003",
                "direction": "outbound", "status": "completed"}
        data = {"session_id": session, "agent_id": "agent-9", "agent_name": "Recorded agent", "duration_seconds": 9,
                "transcript": transcript, "recording_url": recording, "call": call}
        self.deliver("session_completed", {"event": "session.completed", "timestamp": instant(), "data": data})

    def put_aside(self, body):
        """Puts a body that can be read into quarantine, as a version did that could not. Any signature will do here."""
        digest = hashlib.sha256(body.encode()).hexdigest()
        now = instant()
        item = {
            "session": f"quarantine#{now[:10]}#{int(digest[:2], 16) % 4}", "event": f"session_end#-#{digest[:16]}",
            "webhook": "session_end", "source": "webhook", "reason": "an older reason", "received_at": now,
            "body_sha256": digest, "body": body,
        }
        put = {"TableName": "hookswitch-events", "Item": {name: {"S": value} for name, value in item.items()}}
        signature = "AWS4-HMAC-SHA256 Credential=hookswitch/20261122/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=00"
        headers = {"x-amz-target": "DynamoDB_20120810.PutItem", "authorization": signature,
                   "x-amz-date": "20261122T000000Z", "content-type": "application/x-amz-json-1.0"}
        urllib.request.urlopen(urllib.request.Request(self.endpoints["dynamodb"], json.dumps(put).encode(), headers))


class Recordings:
    """A host of recordings on loopback, which refuses until it is told otherwise."""

    def __init__(self):
        self.is_up = False
        sound = tone(9)
        host = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if host.is_up else 403)
                self.send_header("content-type", "audio/wav")
                self.send_header("content-length", str(len(sound) if host.is_up else 0))
                self.end_headers()
                if host.is_up:
                    self.wfile.write(sound)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, name):
        """One whose time is over: what is refused then is given up at once."""
        return f"http://127.0.0.1:{self.server.server_address[1]}/{name}.wav?Expires={int(time.time()) - 60}"

    def stop(self):
        self.server.shutdown()


def tone(seconds):
    """A WAV file: 8 kHz, 16 bit, mono."""
    samples = (int(6000 * math.sin(index / 6) * abs(math.sin(index / 2500))) for index in range(8000 * seconds))
    data = b"".join(struct.pack("<h", sample) for sample in samples)
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", len(data))
    return head + data
