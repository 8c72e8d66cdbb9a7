"""Where recordings come from: a server with a public address, of the run's own namespace, a name and a certificate.

A URL is presigned as S3's are, and answered 403 once it has expired. The name of the recording says how it behaves:
`small…` and `large…` come whole, `busy…` only when asked for again, `broken…` half and then no more.
"""

import hashlib
import http.server
import random
import ssl
import threading
import time
from datetime import datetime, timedelta, timezone
from urllib.parse import parse_qs, urlsplit

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

    class Source(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            parts = urlsplit(self.path)
            name = parts.path.strip("/").removesuffix(".wav")
            asked[name] = asked.get(name, 0) + 1
            if expired(parse_qs(parts.query)):
                return self.answer(403)
            if name.startswith("busy") and asked[name] == 1 or name.startswith("broken") and asked[name] > 1:
                return self.answer(503)
            whole = content(name)
            if name.startswith("broken"):
                self.close_connection = True
                return self.answer(200, whole[:-1], len(whole))
            return self.answer(200, whole)

        def answer(self, status, body=b"", length=None):
            self.send_response(status)
            self.send_header("etag", '"of-this-run"')
            self.send_header("content-type", "audio/wav")
            self.send_header("content-length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((ADDRESS, 443), Source)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def expired(query):
    signed_at = datetime.strptime(query["X-Amz-Date"][0], SIGNED_AT).replace(tzinfo=timezone.utc)
    return time.time() > signed_at.timestamp() + int(query["X-Amz-Expires"][0])
