"""Deliveries as the two platforms make them, signed with whatever keys they hold at that moment."""

import hashlib
import hmac
import http.client
import json
import os
import ssl
import uuid
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

EXOTEL = ("session_start", "transcript_events", "insights_events", "pre_agent_transfer", "session_end")
WEBHOOKS = (*EXOTEL, "session_completed")
# Speaks to somebody who has called before, so that an answer tells that the history could be read.
PROFILE = {"profile": "bot#deployed-bot", "greeting": "{% if history.last %}Welcome back!{% endif %}", "memory": True,
           "transfer_message": "Connecting you {% if history.last %}again{% endif %}."}
# What the profile makes two of the functions answer.
ANSWERS = {"session_start": {"greeting_message": {"text": "Welcome back!"}},
           "pre_agent_transfer": {"agent_transfer_message": {"text": "Connecting you again."}}}


class Platforms:
    """`exotel` is a key's name and the key, `vocobase` a key."""

    def __init__(self, urls, authority, exotel, vocobase):
        self.urls, self.exotel, self.vocobase = urls, exotel, vocobase
        self.tls = ssl.create_default_context(cafile=authority)

    def deliver(self, webhook, body, forged=False):
        """Delivers JSON, with a right signature or a wrong one; the status and the data that are answered."""
        body, query, headers = json.dumps(body).encode(), "", {}
        if webhook in EXOTEL:
            name, key = self.exotel
            query = f"?token={name}.{sign('forged' if forged else key, f'exotel/{webhook}'.encode())}"
        else:
            timestamp = now()
            signature = sign("forged" if forged else self.vocobase, timestamp.encode() + b"." + body)
            headers |= {"x-webhook-timestamp": timestamp, "x-webhook-signature": f"sha256={signature}"}
        return self.post(self.urls[webhook] + query, body, headers)

    def post(self, url, body, headers):
        """The status and the data that are answered."""
        place = urlsplit(url)
        connection = http.client.HTTPSConnection(place.hostname, context=self.tls, timeout=60)
        try:
            connection.request("POST", f"{place.path}?{place.query}", body, {"content-type": "application/json", **headers})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        return response.status, json.loads(answer)["response"]["data"] if response.status == 200 else None


def sign(key, message):
    return hmac.new(key.encode(), message, hashlib.sha256).hexdigest()


def now(seconds=0):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def session():
    return f"deployed-{uuid.uuid4()}"


def camel_case(name):
    return "".join(map(str.capitalize, name.split("_")))


def call(webhook, session_id, recording=None, large=False):
    """A delivery with something said in it; a large one costs least in the bucket."""
    more = {"padding": os.urandom(12_000).hex()} if large else {}
    if webhook in EXOTEL:
        segment = {"speaker": "user", "text": "Hi.", "start_timestamp": now(), "end_timestamp": now()}
        turn = {"sequence": 1, "status": "completed", "transcript_segments": [segment]}
        return {"session_id": session_id, "bot_id": "deployed-bot", "start_time": now(), "contact_uri": "+919876543210",
                "events": [{"event_type": "transcript", "event_data": {"transcripts": [turn]}}], **more}
    return {"event": "session.completed", "timestamp": now(), **more, "data": {
        "session_id": session_id, "agent_id": "deployed-agent", "duration_seconds": 3, "recording_url": recording,
        "transcript": [{"role": "user", "content": "Hi.", "timestamp": now()}],
        "call": {"call_id": f"c-{session_id}", "from_number": "+14155551234", "to_number": "+919876543210",
                 "direction": "outbound", "status": "completed"}}}
