"""Vocobase's API, at its own name: the calls that it holds, each with what its webhook says or should have said."""

import json
from urllib.parse import parse_qs, urlsplit

import deliveries
import tls

HOST, ADDRESS = "api.vocobase.com", "52.216.0.2"
KEY = "rg_live_of_this_run"


class Api:
    def __init__(self, folder):
        self.calls, self.renewed, self.asked = {}, {}, []
        api = self

        class Handler(tls.Handler):
            def do_GET(self):
                api.asked.append(urlsplit(self.path).path)
                allowed = self.headers["authorization"] == f"Bearer {KEY}"
                data = api.answer(urlsplit(self.path)) if allowed else None
                status = 401 if not allowed else 200 if data else 404
                body = json.dumps({"success": status == 200, "data": data}).encode()
                self.answer(status, body, **{"content-type": "application/json"})

        tls.serve(folder, ADDRESS, Handler)

    def holds(self, body, renewed=None):
        """A call whose webhook says this, and the URL that its recording gets when it is asked for anew."""
        call_id = f"c-{body['data']['session_id']}"
        self.calls[call_id], self.renewed[call_id] = body, renewed

    def answer(self, url):
        path = url.path.removeprefix("/api/v2/calls").strip("/").split("/")
        if path == [""]:
            asked = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            listed = [described(call_id, body) for call_id, body in reversed(self.calls.items())]
            page = listed[asked["offset"]:asked["offset"] + asked["limit"]]
            return {"calls": page, "total": len(listed), **asked}
        call_id, *what = path
        if call_id not in self.calls:
            return None
        if what:
            return self.renewed[call_id] and {"recording_url": self.renewed[call_id]}
        body = self.calls[call_id]
        told = {name: value for name, value in body["data"].items() if name != "call"}
        return {**described(call_id, body), "session": {**told, "processing_complete": True}}


def described(call_id, body):
    """A call that ended five minutes ago: long enough for its webhook to have come."""
    session, at = body["data"], deliveries.now(-300)
    return {**session["call"], "call_id": call_id, "agent_id": session["agent_id"], "session_id": session["session_id"],
            "duration_seconds": session["duration_seconds"], "created_at": at, "ended_at": at}
