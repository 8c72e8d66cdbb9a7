"""Where recordings come from: a server with a public address, of the run's own namespace, a name and a certificate.

A URL is presigned as S3's are, and answered 403 once it has expired. The name of the recording says how it behaves:
`small…` and `large…` come whole, `busy…` only when asked for again, `broken…` half and then no more.
"""

import hashlib
import random
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

import tls

HOST, ADDRESS = "recordings.deployed.example", "52.216.0.1"
FORBIDDEN_HOST = "elsewhere.deployed.example"
LARGE = 17 << 20  # beyond what the archiver puts at once
SMALL = 64 << 10
SIGNED_AT = "%Y%m%dT%H%M%SZ"


def url(name, seconds=24 * 60 * 60, host=HOST):
    """A URL that is good for that many seconds, or has been expired for as many if they are negative."""
    signed_at = datetime.now(timezone.utc) + timedelta(seconds=min(seconds, 0) - 60)
    query = f"X-Amz-Date={signed_at.strftime(SIGNED_AT)}&X-Amz-Expires={max(seconds, 0) + 60}&X-Amz-Signature=0"
    return f"https://{host}/{name}.wav?{query}"


def content(name):
    length = SMALL if name.startswith(("small", "busy")) else LARGE
    return b"RIFF\0\0\0\0WAVE" + random.Random(name).randbytes(length - 12)


def digest(name):
    return hashlib.sha256(content(name)).hexdigest()


def serve(folder):
    asked = {}

    class Source(tls.Handler):
        def do_GET(self):
            parts = urlsplit(self.path)
            name = parts.path.strip("/").removesuffix(".wav")
            asked[name] = asked.get(name, 0) + 1
            if expired(parse_qs(parts.query)):
                return self.tell(403)
            if name.startswith("busy") and asked[name] == 1 or name.startswith("broken") and asked[name] > 1:
                return self.tell(503)
            whole = content(name)
            if name.startswith("broken"):
                self.close_connection = True
                return self.tell(200, whole[:-1], len(whole))
            return self.tell(200, whole)

        def tell(self, status, body=b"", length=None):
            self.answer(status, body, length, **{"etag": '"of-this-run"', "content-type": "audio/wav"})

    tls.serve(folder, ADDRESS, Source)


def expired(query):
    signed_at = datetime.strptime(query["X-Amz-Date"][0], SIGNED_AT).replace(tzinfo=timezone.utc)
    return time.time() > signed_at.timestamp() + int(query["X-Amz-Expires"][0])
