"""Pictures of the web page for docs/, taken from the server itself.

    .venv/bin/predilect demo
    .venv/bin/python scripts/page_pictures.py predilect-demo/run/bundle predilect-demo/drawings/images/drawn-00220.jpg foot

Give it a drawn photograph, or one that may be shown. It needs Chromium and the packages of the extra `dev`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def main() -> None:
    """Take the pictures: all in one in the light, with the map in the dark, and a phone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("site", help="where it was taken")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    given = parser.parse_args()
    with served(given.bundle) as url, sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        with answered(browser, url, given.photograph, viewport=DESK) as page:
            give_site(page, given.site)
            page.screenshot(path=given.out / "page.png")
        with answered(browser, url, given.photograph, viewport=DESK, color_scheme="dark") as page:
            page.locator("#strength").fill("70")
            page.evaluate("document.activeElement.blur()")
            page.screenshot(path=given.out / "page-dark.png")
        with answered(browser, url, given.photograph, viewport=PHONE, is_mobile=True, has_touch=True) as page:
            give_site(page, given.site)
            page.evaluate("document.querySelector('#sites').scrollIntoView()")
            page.screenshot(path=given.out / "page-phone.png")


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """`predilect serve`, and its address."""
    process = subprocess.Popen(  # noqa: S603 (this very program)
        [sys.executable, "-m", "predilect", "serve", str(bundle), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "PREDILECT_TOKEN"} | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        yield next(line for line in process.stdout or () if line.startswith("serving")).split()[1]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def answered(browser: Browser, url: str, photograph: Path, **context: object) -> Iterator[Page]:
    """The page with the answer to a photograph."""
    chosen = browser.new_context(reduced_motion="reduce", **context)
    page = chosen.new_page()
    page.goto(url)
    page.locator("#pick-input").set_input_files(photograph)
    expect(page.locator("#start")).to_be_hidden(timeout=60_000)
    yield page
    chosen.close()


def give_site(page: Page, site: str) -> None:
    """As a press of a key on the figure does, so that the mouse points at nothing."""
    page.locator(f'.region[data-site="{site}"]').press("Enter")
    expect(page.locator("#change")).to_be_visible()
    page.evaluate("document.activeElement.blur()")


if __name__ == "__main__":
    main()
