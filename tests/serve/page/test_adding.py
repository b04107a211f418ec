"""What happens to the page when the server is gone, slow, empty, or asks for a key; and adding from the page."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.page.browsing import (
    Visit,
    photograph,
    search,
    serving,
    tile,
    tiles,
    violations,
)

SAID_WITHIN_S = 10.0  # five on an idle machine
LOST = ("ERR_", "Failed to load resource", "net::")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    for number in range(8):  # of so few, any may be what was asked for
        tiny.picture(tmp_path / "media" / f"{number:02}.png", number)
    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.index(tmp_path / "media")
        yield Service(library, Settings(port=0))


def drop(page: Page, *files: Path) -> None:
    """Drops files on the page, as from a file manager."""
    contents = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
    page.evaluate(
        """files => {
        const data = new DataTransfer();
        for (const [name, text] of files) {
            const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
            data.items.add(new File([bytes], name, { type: name.endsWith('.png') ? 'image/png' : '' }));
        }
        for (const kind of ['dragover', 'drop']) {
            document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));
        }
        }""",
        contents,
    )


def test_a_server_that_is_gone_is_said_and_nothing_stale_stays(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    with serving(service) as address:
        window = Visit(browser, address)
        window.expected = LOST
        page = window.open()
        search(page, "a dog")
        expect(tiles(page).first).to_be_visible()
    began = time.monotonic()
    page.fill(".words", "a cat")
    page.locator(".words").press("Enter")
    expect(page.locator(".banner")).to_contain_text("The server does not answer")
    assert time.monotonic() - began < SAID_WITHIN_S
    expect(page.locator(".panel")).to_contain_text("Your query stays as it is")
    expect(tiles(page)).to_have_count(0)  # nothing of the other query
    expect(page.locator(".words")).to_have_value("a cat")
    expect(page.locator(".panel pre")).to_be_hidden()
    page.locator(".panel summary").click()
    expect(page.locator(".panel pre")).to_contain_text("v1/search")
    assert violations(page) == []
    photograph(page, "server-gone")
    with Library.open(service.library.folder, tiny.model()) as library:
        again = Service(library, Settings(port=int(address.rpartition(":")[2])))
        with serving(again):
            expect(page.locator(".banner")).to_be_hidden()
            expect(tiles(page).first).to_be_visible()  # the page went on by itself
            window.close()


def test_a_slow_server_is_said_and_can_be_given_up(
    visit: Callable[..., Page], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    page.context.route("**/v1/search", lambda route: None)  # never answered
    began = time.monotonic()
    page.fill(".words", "a cat")
    page.locator(".words").press("Enter")
    expect(page.locator(".banner")).to_contain_text("has not answered for 4 seconds")
    assert time.monotonic() - began < SAID_WITHIN_S
    photograph(page, "server-slow")
    page.locator(".banner").get_by_role("button", name="Cancel").click()
    expect(page.locator(".panel")).to_contain_text("The search was cancelled")
    expect(page.locator(".banner")).to_be_hidden()
    page.context.unroute("**/v1/search")
    page.get_by_role("button", name="Search again").click()
    expect(tiles(page).first).to_be_visible()


def test_offline_is_said_and_the_page_goes_on(visit: Callable[..., Page]) -> None:
    page = visit(expected=LOST)
    page.context.set_offline(True)
    expect(page.locator(".banner")).to_contain_text("You are offline")
    page.fill(".words", "a cat")
    page.locator(".words").press("Enter")
    expect(page.locator(".panel")).to_contain_text("You are offline")
    assert violations(page) == []
    photograph(page, "offline")
    page.context.set_offline(False)
    expect(page.locator(".banner")).to_be_hidden()
    expect(tiles(page).first).to_be_visible()


def test_an_answer_that_is_no_json_is_told_in_words(visit: Callable[..., Page]) -> None:
    page = visit(expected=("502",))
    page.context.route("**/v1/search", lambda route: route.fulfill(status=502, body="<html>Bad Gateway</html>"))
    search(page, "a cat")
    expect(page.locator(".panel")).to_contain_text("Something went wrong in the server")
    assert "SyntaxError" not in page.locator("body").inner_text()


def test_dropped_files_are_asked_about_once(visit: Callable[..., Page], service: Service, tmp_path: Path) -> None:
    page = visit(expected=("422",))
    new = tiny.picture(tmp_path / "new one.png", 500)
    drop(page, new)
    expect(page.locator(".question")).to_contain_text("new one.png")
    assert violations(page) == []
    photograph(page, "dropped")
    page.locator(".question").get_by_role("button", name="Search with it").click()
    expect(page.locator(".term .label")).to_have_text("new one.png")
    expect(tiles(page).first.or_(page.locator(".panel.nothing"))).to_be_visible()
    assert len(service.library) == 8

    bad = tmp_path / "broken.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    drop(page, new, bad)
    page.locator(".question").get_by_role("button", name="Add it to the library").click()
    expect(page.locator(".uploads .added")).to_contain_text("new one.png")
    expect(page.locator(".uploads .failed")).to_contain_text("cannot be used")
    expect(page.locator(".uploads .summary")).to_have_text("1 file added, 1 file could not be used")
    assert len(service.library) == 9
    assert violations(page) == []
    photograph(page, "adding")
    bad.write_bytes(b"")
    page.get_by_role("button", name="Try again broken.png").click()
    expect(page.locator(".uploads .failed")).to_be_visible()
    page.get_by_role("button", name="Delete new one.png").click()
    expect(page.locator(".uploads .added")).to_have_count(0)
    assert len(service.library) == 8


def test_what_was_added_can_be_removed_from_its_details(
    visit: Callable[..., Page], service: Service, tmp_path: Path
) -> None:
    with open(tiny.picture(tmp_path / "mine.png", 501), "rb") as file:
        service.library.add(file, "mine.png")
    page = visit()
    tile(page, "mine.png").hover()
    tile(page, "mine.png").locator(".pick").click()
    page.locator(".selection").get_by_role("button", name="Remove").click()
    page.locator(".question").get_by_role("button", name="Remove").click()
    expect(tile(page, "mine.png")).to_have_count(0)
    expect(page.locator(".status")).to_contain_text("1 item was removed")
    assert len(service.library) == 8


def test_a_read_only_server_offers_no_change(browser: Browser, service: Service) -> None:
    guarded = Service(service.library, Settings(port=0, read_only=True))
    with serving(guarded) as address, closing(Visit(browser, address)) as window:
        page = window.open("#view=add")
        expect(page.locator(".panel")).to_contain_text("cannot be changed")


def test_an_empty_library_says_what_to_do_and_notices(browser: Browser, tmp_path: Path) -> None:
    tiny.picture(tmp_path / "media" / "first.png", 1)
    with (
        Library.open(tmp_path / "library", tiny.model()) as library,
        serving(Service(library, Settings(port=0))) as address,
        closing(Visit(browser, address)) as window,
    ):
        page = window.open()
        expect(page.locator(".panel")).to_contain_text("This library is empty")
        expect(page.locator(".panel code")).to_contain_text(str(tmp_path / "library"))
        assert violations(page) == []
        photograph(page, "empty")
        library.index(tmp_path / "media")
        expect(tile(page, "first.png")).to_be_visible()


def test_signing_in_and_out(browser: Browser, service: Service) -> None:
    key = "a-key-of-more-than-sixteen-characters"
    guarded = Service(service.library, Settings(port=0, api_keys=(key,)))
    with serving(guarded) as address, closing(Visit(browser, address)) as window:
        window.expected = ("401",)
        page = window.page
        page.goto(address)
        assert page.title() == "Sign in to Crossbind"
        assert violations(page) == []
        photograph(page, "sign-in")
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not a key of this server.")
        assert violations(page) == []
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Sign in").click()
        expect(tiles(page).first).to_be_visible()
        assert page.title() == "Crossbind" and page.locator('link[rel="icon"]').get_attribute("href")
        page.click('.places [data-view="about"]')
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("API key")).to_be_visible()
        page.goto(address)
        expect(page.get_by_label("API key")).to_be_visible()


def test_pages_of_results_follow_each_other(browser: Browser, tmp_path: Path) -> None:
    """Results come page by page while one scrolls, each item once."""
    tiny.pictures(tmp_path / "media", 250)
    with (
        Library.open(tmp_path / "library", tiny.model()) as library,
        serving(Service(library, Settings(port=0))) as address,
        closing(Visit(browser, address)) as window,
    ):
        library.index(tmp_path / "media")
        page = window.open("#q=a+dog&nearest=1")
        expect(tiles(page).first).to_be_visible()
        fold = page.locator(".fold-button")
        if fold.count():
            fold.click()
        seen: dict[str, Any] = {}
        for _ in range(40):
            for label in page.locator(".tile .pick input").evaluate_all("all => all.map(e => e.ariaLabel)"):
                seen[label] = True
            page.mouse.wheel(0, 700)
            page.wait_for_timeout(60)
        assert len(seen) == 250
