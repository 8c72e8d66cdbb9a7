"""Drives the console in a real browser: `hookswitch dev` with simulated calls, Debian's Chromium, every page.

The argument is the folder where axe-core is kept between runs. Screenshots are left in target/ci/screenshots.
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

import axe
import stories
from bundle import Bundle

SCREENSHOTS = Path("target/ci/screenshots")


def main():
    rules = axe.install(Path(sys.argv[1]))
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    told = [story for name, story in vars(stories).items() if name.startswith("it_")]
    with Bundle() as bundle, sync_playwright() as playwright:
        # As root there is no sandbox. Sound needs no gesture here: who tests has none.
        flags = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        print(f"Chromium {browser.version}", flush=True)
        for story in told:
            with stories.Visit(browser, bundle, SCREENSHOTS) as visit:
                story(visit)
            print(f"ok  {story.__name__.replace('_', ' ')}", flush=True)
        checked = axe.check(browser, bundle, rules, stories.pages(browser, bundle), SCREENSHOTS)
        print(f"ok  no serious finding of axe-core on {checked} views", flush=True)
        browser.close()
    print(f"{len(told) + 1} stories")


if __name__ == "__main__":
    main()
