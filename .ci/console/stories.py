"""What a person does with the console, one story each."""

import json
import re

from playwright.sync_api import expect

from bundle import CALLS, exotel, instant, turn

ROWS = "table.calls tbody tr"


class Visit:
    """A browser of its own. It fails its story if a page asks another host for anything, or complains."""

    def __init__(self, browser, bundle, screenshots, **options):
        self.browser, self.bundle, self.screenshots, self.options = browser, bundle, screenshots, options
        self.complaints = []

    def __enter__(self):
        options = {"viewport": {"width": 1360, "height": 900}, **self.options}
        self.context = self.browser.new_context(**options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=self.bundle.base)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self.said)
        self.context.on("request", self.asked)
        return self

    def __exit__(self, failed, *_):
        if failed:
            self.page.screenshot(path=self.screenshots / "failed.png")
        self.context.close()
        assert failed or not self.complaints, self.complaints

    def asked(self, request):
        if not request.url.startswith(self.bundle.base + "/console/"):
            self.complaints.append(f"{request.url} was asked for")

    def said(self, line):
        # A body is shown as it is, and names no icon.
        if line.type == "error" and not line.location["url"].endswith("/favicon.ico"):
            self.complaints.append(f"{line.text} {line.location['url']}")

    def open(self, path=""):
        self.page.goto(self.bundle.console + path)
        return self.page

    def another(self, **options):
        return Visit(self.browser, self.bundle, self.screenshots, **options)


def recorded_call(page):
    """Opens a call with a recording that lasts at least as long as the call, and whose caller said something."""
    calls = page.locator(ROWS).filter(has=page.locator(".mark.archived"))
    lengths = [calls.nth(index).locator("td.number").inner_text() for index in range(calls.count())]
    seconds = [sum(int(part[:-1]) * {"s": 1, "m": 60}[part[-1]] for part in length.split()) for length in lengths]
    fitting = max((length, index) for index, length in enumerate(seconds) if length <= 72)[1]
    calls.nth(fitting).locator(".who a").click()
    expect(page.locator(".wave[data-drawn]")).to_be_visible()


def at(page):
    return page.evaluate("document.querySelector('audio').currentTime")


def start_of(page, number):
    return float(page.locator(f"#turn-{number}").get_attribute("data-from"))


def played_beyond(page, seconds):
    """Waits until the sound is beyond this. Playwright's own way of waiting is what the pages' policy forbids: `eval`."""
    until(page, lambda: at(page) > seconds)


def until(page, holds):
    for _ in range(300):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"it is not so: the sound is at {at(page)}")


def pages(browser, bundle):
    """Every page, by a name for its screenshot: its path below the console's."""
    bundle.deliver("session_start", exotel("pages-live", contact_uri="+919876500010"))
    bundle.deliver("session_end", "this is no JSON")
    bundle.recordings.is_up = False
    bundle.completed("pages-lost", bundle.recordings.url("pages-lost"))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(bundle.console + "?provider=vocobase&recording=archived")
        recorded_call(page)
        recorded = page.url
        page.goto(bundle.console + "?transferred=true&sentiment=negative")
        page.locator(ROWS + " .who a").first.click()
        handed_over = page.url
        page.goto(bundle.console + "recordings?recording=expired")
        expect(page.locator("tr[data-key='vocobase#pages-lost']")).to_contain_text("expired")
    below = lambda url: url.removeprefix(bundle.console)
    return {
        "calls": "", "calls-filtered": "?since=24h&provider=exotel&transferred=true", "calls-none": "?bot=nobody",
        "call-recorded": below(recorded), "call-handed-over": below(handed_over), "call-live": "call/exotel%23pages-live",
        "call-lost": "call/vocobase%23pages-lost", "recordings": "recordings",
        "recordings-expired": "recordings?recording=expired", "quarantine": "quarantine",
        "undelivered": "undelivered", "totals": "totals", "not-found": "call/exotel%23nobody",
    }


def it_lists_calls_page_by_page_and_by_filters(visit):
    page = visit.open()
    expect(page.locator(ROWS)).to_have_count(50)
    started = [time.get_attribute("datetime") for time in page.locator(ROWS + " time").all()]
    assert started == sorted(started, reverse=True), started
    first = {row.get_attribute("data-key") for row in page.locator(ROWS).all()}
    page.get_by_role("link", name="Older").click()
    expect(page.locator(ROWS)).to_have_count(CALLS - 50)
    assert not first & {row.get_attribute("data-key") for row in page.locator(ROWS).all()}
    page.get_by_role("link", name="Latest").click()

    page.get_by_label("Platform").select_option("exotel")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(ROWS)).to_have_count(CALLS // 2)
    assert set(page.locator(ROWS + " .platform").all_inner_texts()) == {"Exotel"}
    page.get_by_text("More filters").click()
    page.get_by_label("Sentiment").fill("negative")
    page.get_by_role("button", name="Show").click()
    tones = page.locator(ROWS + " .tone").all_inner_texts()
    assert tones and set(tones) == {"negative"}, tones
    page.get_by_role("link", name="Without sentiment").click()
    expect(page.locator(ROWS)).to_have_count(CALLS // 2)


def it_finds_a_number_and_an_id(visit):
    page = visit.open()
    contact = page.locator(ROWS + " .who a").nth(3).inner_text()
    key = page.locator(ROWS).nth(3).get_attribute("data-key")
    page.get_by_role("searchbox").fill(contact.removeprefix("+91"))
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(ROWS)).to_have_count(1)
    assert page.locator(ROWS + " .who a").inner_text() == contact
    page.get_by_role("searchbox").fill(key.split("#")[1])
    page.get_by_role("searchbox").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(contact)
    page.get_by_role("button", name="Copy the call’s key").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == key


def it_shows_new_calls_without_being_asked_and_leaves_the_reader_where_he_is(visit):
    page = visit.open()
    reading = page.locator(ROWS + " .who a").nth(2)
    reading.focus()
    href = reading.get_attribute("href")
    visit.bundle.deliver("session_start", exotel("live-1", contact_uri="+919876500001", start_time=instant(600)))
    expect(page.locator(ROWS).first).to_contain_text("+919876500001")
    expect(page.get_by_role("status")).to_have_text("One new call")
    assert page.evaluate("document.activeElement.getAttribute('href')") == href
    # And what changes in a call that is shown already.
    expect(page.locator(ROWS).first).to_contain_text("In progress")
    visit.bundle.deliver("session_end", exotel("live-1", contact_uri="+919876500001", start_time=instant(600), end_time=instant(660)))
    expect(page.locator(ROWS).first).to_contain_text("Ended")
    page.get_by_role("button", name="Live").click()
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-pressed", "false")
    with visit.another() as other:
        visit.bundle.deliver("session_start", exotel("live-2", contact_uri="+919876500002", start_time=instant(700)))
        expect(other.open().locator(ROWS).first).to_contain_text("+919876500002")
    page.wait_for_timeout(5000)
    expect(page.locator(ROWS).first).to_contain_text("+919876500001")
    page.get_by_role("button", name="Live").click()
    expect(page.locator(ROWS).first).to_contain_text("+919876500002")


def it_plays_a_recording_beside_its_transcript(visit):
    page = visit.open("?provider=vocobase")
    recorded_call(page)
    turns = page.locator(".turn[data-from]")
    fourth = turns.nth(3)
    fourth.locator(".said").click()
    played_beyond(page, start_of(page, 4) + 0.2)
    expect(fourth).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    played_beyond(page, at(page) + 0.5)
    # The next turn is marked once it is spoken.
    page.evaluate("at => { document.querySelector('audio').currentTime = at }", start_of(page, 5) - 0.3)
    expect(turns.nth(4)).to_have_attribute("aria-current", "true")
    expect(fourth).not_to_have_attribute("aria-current", "true")
    page.screenshot(path=visit.screenshots / "playing.png")
    page.get_by_role("button", name="Pause").click()
    assert page.evaluate("document.querySelector('audio').paused")

    # A click in the waveform, then keys alone.
    box = page.locator(".wave").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    length = page.evaluate("document.querySelector('audio').duration")
    assert abs(at(page) - length / 2) < length / 50, at(page)
    slider = page.get_by_role("slider")
    slider.focus()
    for key, expected in [("Home", 0), ("ArrowRight", 5), ("PageUp", 35), ("ArrowLeft", 30)]:
        slider.press(key)
        until(page, lambda: abs(at(page) - expected) < 0.1)
    assert slider.get_attribute("aria-valuetext").startswith("0:30 of ")
    slider.press("Space")
    played_beyond(page, 30.2)
    slider.press("Space")
    assert page.evaluate("document.querySelector('audio').paused")
    page.get_by_label("Speed").select_option("1.5")
    assert page.evaluate("document.querySelector('audio').playbackRate") == 1.5

    # The waveform is a picture of the sound, in the colours of those who speak.
    colours = page.evaluate("""() => {
        const canvas = document.querySelector('canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        const seen = new Set();
        for (let index = 0; index < data.length; index += 4) if (data[index + 3] > 250) seen.add(data.slice(index, index + 3).join());
        return [...seen];
    }""")
    assert {"66,80,196", "11,116,104"} <= set(colours), colours
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the recording").click()
    assert download.value.suggested_filename.endswith(".wav")


def it_shows_what_was_found_out_and_every_delivery(visit):
    page = visit.open("?transferred=true&sentiment=negative")
    page.locator(ROWS + " .who a").first.click()
    expect(page.get_by_role("heading", name="Hand-over brief")).to_be_visible()
    lane = page.get_by_role("img", name=re.compile("sentiment over the call"))
    listed = page.locator(".found li").filter(has_text="sentiment").count()
    assert lane.locator("circle").count() == listed > 0
    bars = page.get_by_role("group", name="Response latency, turn by turn").get_by_role("link")
    assert bars.count() == page.locator(".turn .latency").count() > 0
    deliveries = page.locator(".deliveries details")
    assert deliveries.count() == int(page.locator("[data-live=delivery-count]").inner_text())
    handed_over = deliveries.filter(has_text="pre_agent_transfer")
    handed_over.locator("summary").click()
    body = handed_over.locator("pre")
    expect(body).to_contain_text('"trigger_reason":"pre_agent_transfer"')
    verbatim = page.request.get(visit.bundle.base + handed_over.get_attribute("data-body")).text()
    assert body.inner_text() == verbatim
    handed_over.get_by_role("button", name="Indent").click()
    assert json.loads(body.inner_text()) == json.loads(verbatim) and "\n  " in body.inner_text()


def it_follows_a_call_that_goes_on(visit):
    visit.bundle.deliver("session_start", exotel("goes-on", contact_uri="+919876500004"))
    page = visit.open("call/exotel%23goes-on")
    expect(page.get_by_text("Nothing was said")).to_be_visible()
    for sequence, speaker, text in [(1, "assistant", "Hello there."), (2, "user", "नमस्ते, मुझे मदद चाहिए।")]:
        event = turn(sequence, speaker, text, sequence * 3)
        visit.bundle.deliver("transcript_events", exotel("goes-on", events=[event]))
        expect(page.locator(".turn .said").nth(sequence - 1)).to_have_text(text)
    expect(page.locator("[data-live=delivery-count]")).to_have_text("3")
    visit.bundle.deliver("session_end", exotel("goes-on", end_time=instant(20)))
    expect(page.locator(".pills")).to_contain_text("Ended")


def it_fetches_a_recording_again(visit):
    host = visit.bundle.recordings
    visit.bundle.completed("lost-1", host.url("lost-1"))
    visit.bundle.completed("lost-2", host.url("lost-2"))
    page = visit.open("recordings?recording=expired")
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator("tbody tr").first).to_contain_text("expired")
    host.is_up = True
    page.locator("tr[data-key='vocobase#lost-1']").get_by_role("button").click()
    expect(page.get_by_text("One recording is to be fetched again.")).to_be_visible()

    # And from the call's own page, which then shows it.
    page = visit.open("call/vocobase%23lost-2")
    expect(page.get_by_text("unless a new URL comes")).to_be_visible()
    page.get_by_role("button", name="Fetch again").click()
    expect(page.locator(".wave[data-drawn]")).to_be_visible()
    page.get_by_role("button", name="Play").click()
    played_beyond(page, 0.3)
    page = visit.open("recordings?recording=archived")
    expect(page.locator("tr[data-key='vocobase#lost-1']")).to_contain_text("archived")


def it_tries_again_what_is_in_quarantine(visit):
    visit.bundle.put_aside(json.dumps(exotel("from-quarantine", contact_uri="+919876500005")))
    page = visit.open("quarantine")
    waiting = page.locator(".deliveries li")
    expect(waiting).to_have_count(1)
    waiting.locator("summary").click()
    expect(waiting.locator("pre")).to_contain_text("from-quarantine")
    page.get_by_role("button", name="Tick all").click()
    page.get_by_role("button", name="Try ticked again").click()
    expect(page.get_by_text("One delivery is stored")).to_be_visible()
    expect(page.get_by_text("Nothing is in quarantine")).to_be_visible()
    expect(visit.open("call/exotel%23from-quarantine").get_by_role("heading", level=1)).to_have_text("+919876500005")


def it_adds_up(visit):
    page = visit.open("totals?bot=bot-1")
    counted = int(page.locator(".tile strong").first.inner_text())
    page = visit.open("?bot=bot-1")
    assert page.locator(ROWS).count() == counted > 0
    page = visit.open("totals")
    page.get_by_text("As a table").click()
    days = [int(cell.inner_text()) for cell in page.locator("details tbody td:nth-child(2)").all()]
    assert sum(days) == int(page.locator(".tile strong").first.inner_text()) >= CALLS


def it_can_be_used_by_keys_alone(visit):
    page = visit.open("?provider=vocobase")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.getElementById('main').contains(document.activeElement)")
    # Whatever has the focus shows it, be it by its own outline or by that of what it covers.
    shown = """() => {
        const visible = (style) => style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2;
        const element = document.activeElement, hit = element.querySelector?.('.hit');
        return visible(getComputedStyle(element)) || visible(getComputedStyle(element, '::after'))
            || Boolean(hit && parseFloat(getComputedStyle(hit).strokeWidth) >= 2);
    }"""
    for _ in range(40):
        assert page.evaluate(shown), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.matches('tbody .who a') && Boolean(document.activeElement.closest('tr').querySelector('.mark.archived'))"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".wave[data-drawn]")).to_be_visible()
    # To the second turn and play it, without a mouse.
    page.locator(".play").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        assert page.evaluate(shown), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("document.activeElement.matches('#turn-2 .seek')"):
            break
    page.keyboard.press("Enter")
    played_beyond(page, start_of(page, 2) + 0.2)
    expect(page.locator("#turn-2")).to_have_attribute("aria-current", "true")


def it_reads_without_javascript(visit):
    with visit.another(java_script_enabled=False) as plain:
        page = plain.open("?provider=vocobase&recording=archived")
        page.locator(ROWS + " .who a").first.click()
        expect(page.locator("audio[controls]")).to_be_visible()
        expect(page.locator(".deck")).to_be_hidden()
        assert page.locator(".turn .said").count() > 0
        page.locator(".deliveries summary").first.click()
        page.get_by_role("link", name="The body as it came").first.click()
        expect(page.locator("body")).to_contain_text("session.completed")


def it_is_dark_where_its_reader_wants_it_dark(visit):
    with visit.another(color_scheme="dark") as dark:
        page = dark.open()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 19, 22)"
    assert visit.open().evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(247, 247, 245)"


def it_shows_times_by_its_readers_clock(visit):
    with visit.another(timezone_id="Asia/Kolkata") as there:
        there.bundle.deliver("session_start", exotel("clock", start_time="2026-03-15T20:30:00Z", contact_uri="+919876500006"))
        page = there.open("?contact=%2B919876500006")
        time = page.locator(ROWS + " time")
        expect(time).to_have_text(re.compile("16 Mar.* 02:00:00"))
        expect(time).to_have_attribute("title", "2026-03-15 20:30:00 UTC")
