"""The page in a real browser, over a real server, model and library. Pictures of it are left in `artifacts/page`."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from bind import zoo
from bind.model.model import BindModel
from serve.demo import samples
from serve.engine.jobs import Busy
from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.http import server
from serve.http.api import create_app
from serve.library.library import Library

ARTIFACTS = Path(os.environ.get("CROSSBIND_ARTIFACTS", Path(__file__).parents[3] / "artifacts")) / "page"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_MS = 20_000
HACK = "<img src=x onerror=window.hacked=1>"
CAT_FROM_S = 10.0
NO_LICENCE_STATED = ("motorcycle_left.png", "bikes.mp4", "carphone_pristine.mp4")
MINUS = "\N{MINUS SIGN}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.fail(f"no browser ({', '.join(BROWSERS)}): install Chromium, on Debian `apt-get install chromium`")
    fake_devices = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=found, args=[*fake_devices, "--autoplay-policy=no-user-gesture-required"]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def model() -> BindModel:
    return zoo.load("small")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = samples.assemble(tmp_path_factory.mktemp("page") / "media")
    pictures = folder / "photos"
    _film(folder / "clips" / "gravel then cat.mp4", pictures / "gravel.png", pictures / "chelsea.png")
    (folder / "notes").mkdir()
    (folder / "notes" / f"{HACK}.txt").write_text(f"The name of this note wants to run. {HACK} ${{window.hacked=2}}")
    (folder / "notes" / f"{HACK}.txt.json").write_text('{"caption": "\\"><script>window.hacked=3</script>", "a<b>": 1}')
    return folder


@pytest.fixture(scope="module")
def service(model: BindModel, media: Path) -> Iterator[Service]:
    with Library.open(media.parent / "library", model) as library:
        library.index(media)
        yield Service(library, Settings(port=0))


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    with _serving(service) as found:
        yield found


class Visit:
    """One browser window. What it asked for, and what went wrong in it, is looked at in the end."""

    def __init__(self, browser: Browser, address: str, **context: Any) -> None:
        self.address = address
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | context))
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("request", self._look_at)
        self.page.on("pageerror", lambda error: self.faults.append(f"error in the page: {error}"))
        self.page.on("console", self._listen)

    def _look_at(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.faults.append(f"asked another host: {request.url}")

    def _listen(self, said: Any) -> None:
        # Before anybody has signed in, the page's icon is refused as everything else is.
        if said.type == "error" and not ("401" in said.text and said.location["url"].endswith("/favicon.ico")):
            self.faults.append(f"console: {said.text} {said.location}")

    def open(self) -> Page:
        self.page.goto(self.address)
        expect(self.page.locator(".state").first).to_be_visible()
        return self.page

    def close(self) -> None:
        self.context.close()
        assert not self.faults, "\n".join(self.faults)


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    visits: list[Visit] = []

    def begin(**context: Any) -> Page:
        visits.append(Visit(browser, address, **context))
        return visits[-1].open()

    yield begin
    for each in visits:
        each.close()


def test_words_pictures_and_subtraction(visit: Callable[..., Page], media: Path) -> None:
    page = visit()
    page.fill(".words", "a cup of coffee")
    page.keyboard.press("Enter")
    expect(cards(page).first).to_have_attribute("data-name", "coffee.png")
    expect(cards(page).first.locator(".score")).to_contain_text("match")
    photograph(page, "words")

    page.fill(".words", "")
    page.set_input_files(".file", media / "photos" / "chelsea.png")
    expect(page.locator(".term .label")).to_have_text("chelsea.png")
    expect(card(page, "chelsea.png").locator(".tip")).to_contain_text(
        re.compile(r"0\.9\d|1\.00")
    )  # no longer the words'
    same = cosine(card(page, "chelsea.png"))
    assert same > 0.98  # the same picture: what is uploaded is read as what was indexed

    page.fill(".words", "a cat")
    page.click("[data-do=minus]")
    expect(page.locator(".term.negative .label")).to_have_text("“a cat”")
    expect(card(page, "chelsea.png").locator(".tip")).not_to_contain_text(f"{same:.2f}")
    subtracted = cosine(card(page, "chelsea.png"))
    assert subtracted < same - 0.02
    photograph(page, "subtracted")

    slider = page.locator(".term.negative .weight")
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".term output").nth(1)).to_have_text(f"{MINUS}0.2")
    expect(card(page, "chelsea.png").locator(".tip")).not_to_contain_text(f"{subtracted:.2f}")
    assert subtracted < cosine(card(page, "chelsea.png")) < same

    slider.focus()
    page.keyboard.press("Delete")
    expect(page.locator(".term")).to_have_count(1)
    expect(card(page, "chelsea.png").locator(".tip")).to_contain_text(f"{same:.2f}")


def test_a_film_starts_where_it_matches(visit: Callable[..., Page]) -> None:
    page = visit()
    page.click(".kind.m-video")
    page.fill(".words", "a cat")
    page.keyboard.press("Enter")
    found = card(page, "gravel then cat.mp4")
    expect(found).to_be_visible()
    film = found.locator("video")
    assert f"#t={CAT_FROM_S:.2f}," in (film.get_attribute("src") or "")
    film.evaluate("v => v.addEventListener('playing', () => { window.startedAt = v.currentTime }, { once: true })")
    found.locator(".play").click()
    page.wait_for_function("window.startedAt !== undefined")
    assert CAT_FROM_S - 0.1 <= page.evaluate("window.startedAt") < CAT_FROM_S + 1
    page.wait_for_function(f"document.querySelector('[data-name^=gravel] video').currentTime > {CAT_FROM_S + 0.3}")
    photograph(page, "film")


def test_filters(visit: Callable[..., Page]) -> None:
    page = visit()
    page.click(".kind.m-video")
    page.fill(".words", "a machine")
    page.keyboard.press("Enter")
    expect(cards(page).first).to_have_attribute("data-modality", "video")
    assert {each.get_attribute("data-modality") for each in cards(page).all()} == {"video"}
    page.click(".more summary")
    page.fill(".where", "folder lik 'x'")
    page.locator(".where").press("Enter")
    expect(page.locator(".where-error")).to_contain_text("expected one of")
    photograph(page, "filter-wrong")
    page.fill(".where", "name = 'bikes.mp4'")
    page.locator(".where").press("Enter")
    expect(page.locator(".where-error")).to_be_hidden()
    expect(cards(page)).to_have_count(1)
    page.fill(".where", "name = 'nothing'")
    page.locator(".where").press("Enter")
    expect(page.locator(".state.nothing")).to_contain_text("only videos and only where name = 'nothing'")
    photograph(page, "nothing")
    page.click(".state.nothing button")
    expect(cards(page)).to_have_count(12)


def test_more_less_and_add(visit: Callable[..., Page]) -> None:
    page = visit()
    page.fill(".words", "a motorcycle")
    page.keyboard.press("Enter")
    card(page, "motorcycle_left.png").locator("[data-do=more]").click()
    expect(page.locator(".term .label")).to_have_text("motorcycle_left.png")
    expect(card(page, "motorcycle_left.png")).to_have_count(0)  # itself is no answer
    expect(page.locator(".words")).to_have_value("")
    pictures = page.locator(".card[data-name$='.png']")
    added = pictures.first.get_attribute("data-name") or ""
    pictures.first.locator("[data-do=add]").click()
    expect(page.locator(".term")).to_have_count(2)
    expect(card(page, added)).to_have_count(0)
    removed = pictures.first.get_attribute("data-name") or ""
    pictures.first.locator("[data-do=less]").click()
    expect(page.locator(".term.negative .label")).to_have_text(removed)
    expect(page.locator(".term output")).to_have_text(["+1.0", "+1.0", f"{MINUS}0.5"])
    photograph(page, "composed")


def test_with_the_keyboard_alone(visit: Callable[..., Page]) -> None:
    page = visit()
    page.keyboard.press("/")
    expect(page.locator(".words")).to_be_focused()
    page.keyboard.type("a flower")
    page.keyboard.press("Enter")
    expect(cards(page).first).to_have_attribute("data-name", "flower.jpg")
    page.keyboard.press("ArrowDown")
    expect(cards(page).first).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(cards(page).nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".dialog h2")).to_have_text("flower.jpg")
    photograph(page, "details")
    page.keyboard.press("Escape")
    expect(page.locator(".dialog")).to_be_hidden()
    expect(cards(page).first).to_be_focused()
    page.keyboard.press("m")
    expect(page.locator(".term .label")).to_have_text("flower.jpg")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('.crossbind :is(button, input, select, video, audio, a)')]
        .filter(e => e.checkVisibility())
        .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')))
        .map(e => e.outerHTML)"""
    )
    assert unnamed == []


def test_on_a_phone(visit: Callable[..., Page], media: Path) -> None:
    page = visit(viewport={"width": 375, "height": 812}, has_touch=True, is_mobile=True)
    assert fits(page)
    photograph(page, "phone-start")
    page.fill(".words", "a cat")
    page.keyboard.press("Enter")
    expect(cards(page)).to_have_count(12)
    page.set_input_files(".file", media / "photos" / "flower.jpg")
    expect(page.locator(".term")).to_have_count(1)
    page.click(".more summary")
    assert fits(page)
    page.click(".more summary")
    photograph(page, "phone-results")
    card(page, "flower.jpg").locator(".name").click()
    expect(page.locator(".dialog")).to_be_visible()
    assert fits(page)
    page.click(".dialog .close")
    for tab, inside in (("explore", ".map"), ("about", ".sheets")):
        page.click(f"#tab-{tab}")
        expect(page.locator(inside)).to_be_visible()
        assert fits(page)
        photograph(page, f"phone-{tab}")


def test_in_the_dark_and_without_motion(visit: Callable[..., Page], service: Service) -> None:
    page = visit(color_scheme="dark", reduced_motion="reduce")
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(red, green, blue) < 60
    with _delayed(service) as release:
        page.fill(".words", "a temple")
        page.keyboard.press("Enter")
        expect(page.locator(".skeleton")).to_be_visible()
        expect(page.locator(".status")).to_contain_text("earching")
        moving = page.evaluate("getComputedStyle(document.querySelector('.skeleton .card')).animationDuration")
        assert moving == "0s"
        release()
    expect(cards(page).first).to_be_visible()
    photograph(page, "dark")


def test_explore_and_about(visit: Callable[..., Page], service: Service) -> None:
    page = visit()
    page.click("#tab-explore")
    points = page.locator(".map circle")
    expect(points).to_have_count(sum(service.counts().values()))
    points.first.focus()
    expect(page.locator(".map-tip")).to_be_visible()
    across = [float(point.get_attribute("cx") or 0) for point in points.all()]
    page.keyboard.press("ArrowLeft" if across[0] > sum(across) / len(across) else "ArrowRight")
    expect(points.first).not_to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator(".dialog h2")).to_be_visible()
    page.keyboard.press("Escape")
    photograph(page, "explore")
    page.click("#tab-about")
    expect(page.locator(".sheets")).to_contain_text(service.model.space)
    expect(page.locator(".sheets")).to_contain_text(service.about().license)
    photograph(page, "about")


def test_every_example_finds_something(visit: Callable[..., Page]) -> None:
    page = visit()
    photograph(page, "start")
    count = page.locator(".example").count()
    assert count >= 4
    for place in range(count):
        page.locator(".example").nth(place).click()
        expect(cards(page).first).to_be_visible()
        page.fill(".words", "")
        while page.locator(".term").count():
            page.locator(".term .remove").first.click()
        page.keyboard.press("Enter")
        if not page.locator(".example").count():
            page.locator(".words").press("Enter")
        expect(page.locator(".example")).to_have_count(count)


def test_a_bad_upload_leaves_the_query_alone(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit()
    page.fill(".words", "a cat")
    page.keyboard.press("Enter")
    expect(cards(page).first).to_be_visible()
    bad = tmp_path / f"{HACK[:-1]}.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    page.set_input_files(".file", bad)
    expect(page.locator(".notice")).to_contain_text("could not be used")
    expect(page.locator(".notice")).to_contain_text("decoded")
    expect(page.locator(".term")).to_have_count(0)
    expect(page.locator(".words")).to_have_value("a cat")
    expect(cards(page)).to_have_count(12)
    photograph(page, "bad-upload")
    page.locator(".notice .remove").click()
    expect(page.locator(".notice")).to_have_count(0)
    assert page.evaluate("window.hacked") is None


def test_names_and_captions_cannot_run(visit: Callable[..., Page]) -> None:
    page = visit()
    page.click(".kind.m-text")
    page.fill(".words", "the name of this note wants to run")
    page.keyboard.press("Enter")
    found = cards(page).first
    expect(found.locator(".name")).to_have_text(f"{HACK}.txt")
    expect(found.locator(".caption")).to_have_text('"><script>window.hacked=3</script>')
    expect(found.locator("blockquote")).to_contain_text("${window.hacked=2}")
    found.locator(".name").click()
    expect(page.locator(".dialog h2")).to_have_text(f"{HACK}.txt")
    page.locator(".dialog [data-do=add]").click()
    expect(page.locator(".term .label")).to_have_text(f"{HACK}.txt")
    page.click("#tab-explore")
    expect(page.locator(".map circle").first).to_be_attached()
    assert page.evaluate("window.hacked") is None


def test_a_busy_server_is_asked_again(
    visit: Callable[..., Page], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit()
    real, refusals = service.search, [Busy(1)]

    async def busy_once(*arguments: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await real(*arguments, **named)

    monkeypatch.setattr(service, "search", busy_once)
    page.fill(".words", "a cat")
    page.keyboard.press("Enter")
    expect(page.locator(".state.busy")).to_contain_text("The server is busy")
    expect(page.locator(".status")).to_contain_text("Searching again in")
    photograph(page, "busy")
    expect(cards(page)).to_have_count(12)


def test_a_camera_and_a_microphone(visit: Callable[..., Page], service: Service) -> None:
    page = visit()
    page.click("[data-do=camera]")
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".term .label")).to_have_text("camera.jpg")
    expect(cards(page).first).to_be_visible()
    microphone = page.locator("[data-do=microphone]")
    if "audio" not in service.model.modalities:
        expect(microphone).to_be_hidden()  # the model could not use it
        return
    microphone.click()
    expect(page.locator(".recorder")).to_contain_text("Recording 1 s")
    page.get_by_role("button", name="Stop and search").click()
    expect(page.locator(".term .label")).to_have_text(["camera.jpg", "recording.weba"])
    expect(page.locator(".spin")).to_have_count(0)
    expect(page.locator(".notice")).to_have_count(0)


def test_an_empty_library_says_what_to_do_and_notices(
    browser: Browser, model: BindModel, tmp_path: Path, media: Path
) -> None:
    with (
        Library.open(tmp_path / "library", model) as library,
        _serving(Service(library, Settings(port=0))) as address,
        closing(Visit(browser, address)) as window,
    ):
        page = window.open()
        expect(page.locator(".state.empty")).to_contain_text("This library is empty")
        expect(page.locator(".state.empty code")).to_contain_text(str(tmp_path / "library"))
        photograph(page, "empty")
        library.index(media / "science")
        expect(page.locator(".example").first).to_be_visible()


def test_signing_in_with_a_key(browser: Browser, service: Service) -> None:
    key = "a key of more than sixteen characters".replace(" ", "-")
    guarded = Service(service.library, Settings(port=0, api_keys=(key,)))
    with _serving(guarded) as address, closing(Visit(browser, address)) as window:
        window.page.goto(address)
        window.page.get_by_label("API key").fill(key)
        window.page.get_by_role("button", name="Sign in").click()
        expect(window.page.locator(".example").first).to_be_visible()
        window.page.fill(".words", "a cup of coffee")
        window.page.keyboard.press("Enter")
        expect(cards(window.page).first).to_have_attribute("data-name", "coffee.png")
        window.page.wait_for_function("document.querySelector('.card img').naturalWidth > 0")


def test_the_picture_in_the_readme(browser: Browser, model: BindModel, tmp_path: Path, media: Path) -> None:
    """Shows only media that may be shown again: see README.md for where they are from."""
    for name in ("photos", "clips", "thermal", "motion"):
        shutil.copytree(media / name, tmp_path / "media" / name, ignore=shutil.ignore_patterns(*NO_LICENCE_STATED))
    with (
        Library.open(tmp_path / "library", model) as library,
        _serving(Service(library, Settings(port=0))) as address,
        closing(Visit(browser, address, viewport={"width": 1180, "height": 860})) as window,
    ):
        library.index(tmp_path / "media")
        page = window.open()
        page.set_input_files(".file", media / "photos" / "chelsea.png")
        alone = cosine(card(page, "chelsea.png"))
        page.fill(".words", "a flower")
        page.click("[data-do=plus]")
        expect(card(page, "chelsea.png").locator(".tip")).not_to_contain_text(f"{alone:.2f}")
        page.locator("h1").hover()
        page.locator(".words").blur()
        photograph(page, "readme")


def test_the_watch_over_a_visit_sees_other_hosts(browser: Browser, address: str) -> None:
    window = Visit(browser, address)
    page = window.open()
    page.evaluate("fetch('http://198.51.100.1/').catch(() => 0)")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        window.close()


def cards(page: Page) -> Locator:
    return page.locator(".results .card[data-id]")


def card(page: Page, name: str) -> Locator:
    return page.locator(f'.results .card[data-name="{name}"]')


def cosine(found: Locator) -> float:
    return float((found.locator(".tip").text_content() or "").rpartition("Cosine ")[2].rstrip("."))


def fits(page: Page) -> bool:
    """Whether nothing sticks out to the side."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth && innerWidth <= 375"))


def photograph(page: Page, name: str) -> None:
    """Leaves a picture of the page, with its images loaded."""
    page.wait_for_function("scrollTo(0, 0) || [...document.images].every(i => i.complete || i.loading === 'lazy')")
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png")


@contextmanager
def _serving(service: Service) -> Iterator[str]:
    """The service on a free port, as `crossbind serve` runs it, in a thread of its own."""
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
def _delayed(service: Service) -> Iterator[Callable[[], None]]:
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


def _film(path: Path, first: Path, second: Path) -> None:
    """A film of two stills, `CAT_FROM_S` seconds each, in a format that browsers play."""
    import av

    rate = 4
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.options = {"g": str(rate)}
        for still in (first, second):
            frame = np.asarray(Image.open(still).convert("RGB").resize((320, 240)))
            for _ in range(round(CAT_FROM_S * rate)):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode(None))
