"""The page in a browser, watched: whatever a test does, no other host is asked and the browser has nothing to complain about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from fake_api import FakeApi, drawn
from made_serving import running

TOKEN = "0123456789abcdef"
PHOTOGRAPH = {"name": "forearm.jpg", "mimeType": "image/jpeg", "buffer": drawn(0)}
NO_PHOTOGRAPH = {"name": "notes.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 and no image"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this system")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watch:
    """What a page did.

    Attributes:
        hosts: Of all requests.
        complaints: Of the browser: errors of scripts, violations of the content security policy, files that do not load.
        refusals: Statuses of answers that a test provokes; the browser complains of each, and may.
    """

    hosts: set[str] = field(default_factory=set)
    complaints: list[str] = field(default_factory=list)
    refusals: set[int] = field(default_factory=set)

    def of(self, page: Page) -> Page:
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).netloc))
        page.on("console", lambda message: self.complaints.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def check(self, url: str) -> None:
        assert self.hosts - {""} == {urlsplit(url).netloc}  # blob: and data: have no host
        allowed = tuple(f"Failed to load resource: the server responded with a status of {status}" for status in self.refusals)
        found = [text for text in self.complaints if not allowed or not text.startswith(allowed)]
        assert not found, found


@contextmanager
def opened(browser: Browser, app: Any, *, refusals: tuple[int, ...] = (), **context: Any) -> Iterator[Page]:
    """The page of a server, to be watched until the end of the test.

    Args:
        browser: The browser.
        app: What is served.
        refusals: Statuses that the test provokes.
        context: Of the browser, such as its viewport.
    """
    with running(app) as (_, url), watched(browser, url, refusals=refusals, **context) as page:
        yield page


@contextmanager
def watched(browser: Browser, url: str, *, refusals: tuple[int, ...] = (), **context: Any) -> Iterator[Page]:
    """The same of a server that runs already."""
    watch = Watch(refusals=set(refusals))
    chosen = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce", **context})
    try:
        page = watch.of(chosen.new_page())
        page.set_default_timeout(8000)
        page.goto(url)
        yield page
        watch.check(url)
    finally:
        chosen.close()


def choose(page: Page, file: dict[str, Any] = PHOTOGRAPH) -> None:
    page.locator("#pick-input").set_input_files(file)


@contextmanager
def answered_page(browser: Browser, api: FakeApi, **context: Any) -> Iterator[Page]:
    """With the answer to a photograph on it."""
    with opened(browser, api.app(), **context) as page:
        choose(page)
        expect(page.locator("#start")).to_be_hidden()
        yield page


def region(page: Page, site: str) -> Any:
    return page.locator(f'.region[data-site="{site}"]')


def click_region(page: Page, site: str) -> None:
    """With the mouse, at a point of it that nothing else covers."""
    point = page.evaluate(
        """site => {
            for (const path of document.querySelectorAll(`.region[data-site="${site}"] path`)) {
                const box = path.getBoundingClientRect();
                for (let k = 1; k < 400; k++) {
                    const [x, y] = [box.left + box.width * ((k * 0.618) % 1), box.top + box.height * ((k * 0.377) % 1)];
                    if (document.elementFromPoint(x, y) === path) return [x, y];
                }
            }
        }""",
        site,
    )
    assert point is not None, f"no point of {site} can be clicked"
    page.mouse.click(*point)


def shown_lesions(page: Page) -> list[str]:
    return page.locator("#lesion-list li:not([hidden]) .row").evaluate_all("rows => rows.map(row => row.dataset.name)")


def row(page: Page, name: str) -> Any:
    return page.locator(f'#lesion-list .row[data-name="{name}"]')


def said(page: Page) -> Any:
    """What a screen reader is told."""
    return page.locator("#said")
