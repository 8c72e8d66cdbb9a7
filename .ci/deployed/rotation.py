"""Each platform's secret is rotated while deliveries come: none that is rightly signed is refused or lost."""

import secrets
import threading
import time
from collections import Counter

import deliveries
from deliveries import WEBHOOKS
from stack import expect

SENDERS = 2  # to each webhook, so that it has several instances
BEFORE, AFTER = 3, 6  # seconds
FORGERIES = 8  # to each webhook at a time: more than an instance reads its secret for
RETRIES = (1, 2, 4)  # seconds, as a platform comes again


def show(stack, platforms):
    load = Load(platforms)
    threads = [threading.Thread(target=load.keep_sending, args=[webhook]) for webhook in WEBHOOKS * SENDERS]
    for thread in threads:
        thread.start()
    time.sleep(BEFORE)
    load.forge()
    (name, old), new = platforms.exotel, secrets.token_hex(24)
    stack.put_secret("ExotelTokenSecret", f"rotated:{new},{name}:{old}")
    platforms.exotel = "rotated", new
    load.forge()
    old, new = platforms.vocobase, f"whsec_{secrets.token_hex(24)}"
    stack.put_secret("VocobaseSecret", f"{new},{old}")
    platforms.vocobase = new
    load.forge()
    time.sleep(AFTER)
    load.over.set()
    for thread in threads:
        thread.join()

    expect(not load.trouble, "; ".join(load.trouble[:5]))
    kept = Counter(item["session"].partition("#")[2] for item in stack.items("EventsTable"))
    lost = [session for session in load.sent if kept[session] != 1]
    expect(not lost, f"{len(lost)} of {len(load.sent)} deliveries that were answered 200 are not kept")
    expect(not any(kept[session] for session in load.forged), "a forged delivery is kept")
    said = ", ".join(f"{answer}: {count}" for answer, count in sorted(load.answers.items()))
    print(f"  {len(load.sent)} deliveries while both secrets changed, the new keys in use at once ({said});")
    print("  all that were rightly signed answered 200 and kept, none that was forged")


class Load:
    def __init__(self, platforms):
        self.platforms, self.over = platforms, threading.Event()
        self.sent, self.forged, self.answers, self.trouble = [], [], Counter(), []

    def keep_sending(self, webhook):
        try:
            while not self.over.is_set():
                self.send(webhook)
        except Exception as error:
            self.trouble.append(f"{webhook}: {error!r}")

    def send(self, webhook):
        session = deliveries.session()
        body = deliveries.call(webhook, session)
        for wait in (0, *RETRIES):
            time.sleep(wait)
            status, _ = self.platforms.deliver(webhook, body)
            self.answers[str(status)] += 1
            if status == 200:
                return self.sent.append(session)
            if status != 503:  # that is where the new key cannot be read, or not yet again
                break
        self.trouble.append(f"{webhook} answered {status} to what was rightly signed")

    def forge(self):
        for webhook in WEBHOOKS * FORGERIES:
            session = deliveries.session()
            status, _ = self.platforms.deliver(webhook, deliveries.call(webhook, session), forged=True)
            self.forged.append(session)
            self.answers[f"forged {status}"] += 1
            if status not in (401, 503):
                self.trouble.append(f"{webhook} answered {status} to what was forged")
