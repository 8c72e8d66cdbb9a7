"""axe-core, which finds what keeps people from using a page, on every page, light and dark, wide and narrow."""

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "axe-core@4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 360, "height": 740}


def install(folder):
    """The rules, as the text of a script."""
    installed = folder / f"{PACKAGE}.js"
    if not installed.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            subprocess.run(["npm", "pack", "--silent", "--ignore-scripts", PACKAGE], cwd=work, check=True, stdout=subprocess.DEVNULL)
            [package] = Path(work).glob("*.tgz")
            if base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode() != SHA512:
                sys.exit(f"{PACKAGE} is not what it was")
            with tarfile.open(package) as archive:
                installed.write_bytes(archive.extractfile("package/axe.min.js").read())
    return installed.read_text()


def findings(page, rules):
    """What is serious or critical, or of WCAG 2.2 AA at all."""
    page.evaluate(rules)
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{one['impact']} {one['id']}: {node['html'][:160]}"
        for one in found
        if one["impact"] in ("serious", "critical") or any(tag.startswith("wcag2") for tag in one["tags"])
        for node in one["nodes"]
    ]


def check(browser, bundle, rules, pages, screenshots):
    # A check that cannot fail is none.
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{bundle.console}totals")
        page.evaluate("document.querySelector('h1').insertAdjacentHTML('afterend', '<img src=\"icon.svg\"><p>')")
        page.evaluate("document.querySelector('h1 + img + p').append('pale')")
        page.evaluate("document.querySelector('h1 + img + p').style.color = '#ddd'")
        kinds = {finding.split()[1] for finding in findings(page, rules)}
        assert {"image-alt:", "color-contrast:"} <= kinds, kinds
    checked, all_found = 0, []
    for scheme in ("light", "dark"):
        for width, viewport in (("wide", WIDE), ("narrow", NARROW)):
            with browser.new_context(viewport=viewport, color_scheme=scheme, reduced_motion="reduce") as context:
                page = context.new_page()
                for name, path in pages.items():
                    page.goto(bundle.console + path)
                    page.wait_for_load_state("networkidle") if not path.count("call/") else page.wait_for_timeout(300)
                    page.screenshot(path=screenshots / f"{name}-{scheme}-{width}.png")
                    for details in page.locator("details:not([open]) > summary").all()[:4]:
                        details.click()
                    view = f"{name}, {scheme}, {width}"
                    all_found += [f"{view}: {finding}" for finding in findings(page, rules)]
                    over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                    all_found += [f"{view}: {over} pixels wider than the screen"] if over > 0 else []
                    checked += 1
    assert not all_found, "\n".join(all_found)
    return checked
