"""A real browser over a real server: for the tests of the page."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from serve.engine.service import Service
from serve.http import server
from serve.http.api import create_app

ARTIFACTS = Path(os.environ.get("CROSSBIND_ARTIFACTS", Path(__file__).parents[3] / "artifacts")) / "page"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_MS = 20_000
DESKTOP = {"width": 1400, "height": 900}
PHONE = {"width": 390, "height": 844}
_STILL = """document.getAnimations().every(
    one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity)"""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def chromium_path() -> str:
    """Where the browser is. Fails the test where there is none."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"no browser ({', '.join(BROWSERS)}): install Chromium, on Debian `apt-get install chromium`")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    fake_devices = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium_path(), args=[*fake_devices, "--autoplay-policy=no-user-gesture-required"]
        )
        yield opened
        opened.close()


class Visit:
    """One browser window. What it asked for, and what went wrong in it, is looked at in the end."""

    def __init__(self, browser: Browser, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(**({"viewport": DESKTOP, "accept_downloads": True} | context))
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.expected: tuple[str, ...] = ()
        self.page.on("request", self._look_at)
        self.page.on("pageerror", lambda error: self.faults.append(f"error in the page: {error} {error.stack}"))
        self.page.on("console", self._listen)

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asked another host: {request.url}")

    def _listen(self, said: Any) -> None:
        if said.type == "error" and not any(text in said.text for text in self.expected):
            self.faults.append(f"console: {said.text} {said.location}")

    def open(self, hash_: str = "") -> Page:
        """Goes to the page, with what is behind the `#` of its address, and waits until it shows something."""
        self.page.goto(f"{self.address}/{hash_}")
        expect(self.page.locator(".tile:not(.waiting), .panel, .sheet > *").first).to_be_visible()
        return self.page

    def close(self) -> None:
        """Ends the visit; AssertionError where anything went wrong in it."""
        self.context.close()
        assert not self.faults, "\n".join(self.faults)


@contextmanager
def visits(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """A function that opens a window on an address; `expected` are texts of console errors that belong to the test."""
    opened: list[Visit] = []

    def begin(hash_: str = "", expected: tuple[str, ...] = (), **context: Any) -> Page:
        opened.append(Visit(browser, address, **context))
        opened[-1].expected = expected
        return opened[-1].open(hash_)

    yield begin
    for each in opened:
        each.close()


@contextmanager
def serving(service: Service) -> Iterator[str]:
    """The service on a free port, as `crossbind serve` runs it, in a thread of its own -> its address."""
    bound = server.bind(service.settings)
    ready = threading.Event()
    running = server.server(create_app(service), service.settings, ready.set)
    thread = threading.Thread(target=lambda: asyncio.run(running.serve(sockets=[bound])))
    thread.start()
    try:
        assert ready.wait(60), "the server did not start"
        yield server.address(bound)
    finally:
        running.should_exit = True
        thread.join()
        bound.close()


@contextmanager
def delayed(service: Service) -> Iterator[Callable[[], None]]:
    """Searches wait until what this yields is called."""
    real, may_go = service.search, threading.Event()

    async def slow(*arguments: Any, **named: Any) -> Any:
        await asyncio.to_thread(may_go.wait, WAIT_MS / 1000)
        return await real(*arguments, **named)

    service.search = slow  # type: ignore[method-assign]
    try:
        yield may_go.set
    finally:
        may_go.set()
        service.search = real  # type: ignore[method-assign]


def tiles(page: Page) -> Locator:
    """What is shown in the grid."""
    return page.locator(".grid .tile:not(.waiting)")


def tile(page: Page, name: str) -> Locator:
    """The tile of a file in the grid."""
    return page.locator(".grid .tile").filter(has=page.locator(f'.pick input[aria-label="Select {name}"]'))


def names(page: Page) -> list[str]:
    """The names of the files in the grid, in their order."""
    labels = page.locator(".grid .tile .pick input").evaluate_all("all => all.map(e => e.getAttribute('aria-label'))")
    return [label.removeprefix("Select ") for label in labels]


def search(page: Page, words: str) -> None:
    """Searches for words, and waits until there is an answer."""
    page.fill(".words", words)
    page.locator(".words").press("Enter")
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")


def until(page: Page, expression: str) -> None:
    """Waits until an expression is true. Playwright's own wait evaluates text in the page, which its policy forbids."""
    last = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < last, f"it never came true: {expression}"
        page.wait_for_timeout(30)


def violations(page: Page) -> list[str]:
    """What axe finds in the page as it is."""
    until(page, _STILL)
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]})
    return [
        f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]


def fits(page: Page) -> bool:
    """Whether nothing sticks out to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def photograph(page: Page, name: str) -> None:
    """Leaves a picture of the page, with its images loaded."""
    until(page, "[...document.images].every(i => i.complete || i.loading === 'lazy')")
    until(page, _STILL)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")
