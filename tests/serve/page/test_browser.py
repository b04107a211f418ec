"""Searching on the page in a real browser, over a real server, model and library."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from bind import zoo
from bind.model.model import BindModel
from serve.demo import samples
from serve.engine.jobs import Busy
from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.serve.page.browsing import (
    PHONE,
    Visit,
    delayed,
    fits,
    names,
    photograph,
    search,
    serving,
    tile,
    tiles,
    until,
    violations,
)

HACK = "<img src=x onerror=window.hacked=1>"
CAT_FROM_S = 10.0
NO_LICENCE_STATED = ("motorcycle_left.png", "bikes.mp4", "carphone_pristine.mp4")
MINUS = "\N{MINUS SIGN}"


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
    with serving(service) as found:
        yield found


def test_words_pictures_and_subtraction(visit: Callable[..., Page], media: Path) -> None:
    page = visit()
    search(page, "a cup of coffee")
    assert names(page)[0] == "coffee.png"
    expect(page.locator(".status")).to_contain_text("best first")
    photograph(page, "words")

    page.fill(".words", "")
    page.set_input_files(".file", media / "photos" / "chelsea.png")
    expect(page.locator(".term .label")).to_have_text("chelsea.png")
    until(page, "location.hash.includes('t=v')")
    search(page, "")
    assert names(page)[0] == "chelsea.png"
    same = cosine(page, "chelsea.png")
    assert same > 0.98  # the same picture: what is uploaded is read as what was indexed

    page.fill(".words", "a cat")
    page.click("[data-do=minus]")
    expect(page.locator(".term.negative .label")).to_have_text("“a cat”")
    subtracted = changed_cosine(page, "chelsea.png", same)
    assert subtracted < same - 0.02
    photograph(page, "subtracted")

    slider = page.locator(".term.negative .weight")
    slider.focus()
    for _ in range(8):
        page.keyboard.press("ArrowRight")
        slider = page.locator(".term.negative .weight")
    expect(page.locator(".term output").nth(1)).to_have_text(f"{MINUS}0.2")
    assert subtracted < changed_cosine(page, "chelsea.png", subtracted) < same

    page.locator(".term.negative .weight").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".term")).to_have_count(1)
    until(page, f"{_CAPTION}('chelsea.png').includes('Cosine {same:.2f}')")


def test_a_film_is_shown_where_it_matches(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+cat&kind=video")
    found = tile(page, "gravel then cat.mp4")
    expect(found.locator(".badge")).to_have_text("0:10")
    found.locator(".open").click()
    film = page.locator(".viewer video")
    expect(film).to_have_attribute("src", re.compile(rf"#t={CAT_FROM_S:.2f}"))
    until(page, "document.querySelector('.viewer video').readyState > 0")
    assert CAT_FROM_S - 0.1 <= film.evaluate("v => v.currentTime") < CAT_FROM_S + 1
    film.evaluate("v => { v.muted = true; return v.play() }")
    until(page, f"document.querySelector('.viewer video').currentTime > {CAT_FROM_S + 0.3}")
    photograph(page, "film")


def test_more_less_and_add(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+motorcycle")
    first = tile(page, "motorcycle_left.png")
    first.hover()
    first.locator("[data-act=more]").click()
    expect(page.locator(".term .label")).to_have_text("motorcycle_left.png")
    expect(first).to_have_count(0)  # itself is no answer
    expect(page.locator(".words")).to_have_value("")
    unfold(page)
    pictures = tiles(page).and_(page.locator(".k-image"))
    added = name_of(pictures.first)
    pictures.first.locator(".open").focus()
    page.keyboard.press("a")
    expect(page.locator(".term")).to_have_count(2)
    expect(tile(page, added)).to_have_count(0)
    unfold(page)
    removed = name_of(pictures.first)
    pictures.first.locator(".open").focus()
    page.keyboard.press("l")
    expect(page.locator(".term.negative .label")).to_have_text(removed)
    expect(page.locator(".term output")).to_have_text(["+1.0", "+1.0", f"{MINUS}0.5"])
    photograph(page, "composed")


def test_results_of_another_query_never_stay(visit: Callable[..., Page], service: Service) -> None:
    page = visit("#q=a+cat", color_scheme="dark", reduced_motion="reduce")
    expect(tile(page, "chelsea.png")).to_be_visible()
    with delayed(service) as release:
        page.fill(".words", "a temple")
        page.keyboard.press("Enter")
        expect(tiles(page)).to_have_count(0)
        expect(page.locator(".skeleton")).to_be_visible()
        expect(page.locator(".status")).to_contain_text("earching")
        moving = page.evaluate("getComputedStyle(document.querySelector('.skeleton i')).animationDuration")
        assert moving == "0s"
        page.get_by_role("button", name="Cancel", exact=True).first.click()
        expect(page.locator(".panel")).to_contain_text("The search was cancelled")
        expect(page.locator(".words")).to_have_value("a temple")
        release()
    page.get_by_role("button", name="Search again").click()
    expect(tiles(page).first).to_be_visible()
    photograph(page, "dark")


def test_every_search_and_item_has_an_address(visit: Callable[..., Page], media: Path, address: str) -> None:
    page = visit()
    search(page, "a flower")
    search(page, "a cat")
    tile(page, "chelsea.png").locator(".open").click()
    expect(page.locator(".viewer h2")).to_have_text("chelsea.png")
    shared = page.url
    page.go_back()
    expect(page.locator(".viewer")).to_be_hidden()
    expect(page.locator(".words")).to_have_value("a cat")
    page.go_back()
    expect(page.locator(".words")).to_have_value("a flower")
    wait(page)
    assert names(page)[0] == "flower.jpg"
    page.go_forward()
    expect(page.locator(".words")).to_have_value("a cat")
    other = visit(shared.removeprefix(address).removeprefix("/"))
    expect(other.locator(".viewer h2")).to_have_text("chelsea.png")
    other.keyboard.press("Escape")
    expect(other.locator(".words")).to_have_value("a cat")

    page.set_input_files(".file", media / "photos" / "coffee.png")
    expect(page.locator(".term .label")).to_have_text("coffee.png")
    until(page, "location.hash.includes('t=v')")
    page.fill(".words", "")
    search(page, "")
    with_a_file = visit(page.url.removeprefix(address).removeprefix("/"))
    expect(with_a_file.locator(".term .label")).to_have_text("coffee.png")
    wait(with_a_file)
    assert names(with_a_file)[0] == "coffee.png" and cosine(with_a_file, "coffee.png") > 0.98


def test_filters_have_words_for_what_is_wrong(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+machine&where=folder+lik+'x'", expected=("400",))
    expect(page.locator(".panel")).to_contain_text("The filter cannot be read")
    expect(page.locator(".where-error")).to_contain_text("expected one of")
    photograph(page, "filter-wrong")
    page.get_by_role("button", name="Clear the filter").click()
    unfold(page)
    expect(tiles(page).first).to_be_visible()
    page.goto(page.url + "&where=name+%3D+'nothing'&kind=video")
    expect(page.locator(".panel")).to_contain_text("Nothing passes these filters")
    photograph(page, "nothing")
    page.get_by_role("button", name="Clear the filters").first.click()
    unfold(page)
    expect(tiles(page).first).to_be_visible()


def test_where_a_picture_shows_it(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+cup+of+coffee")
    tile(page, "coffee.png").locator(".open").click()
    until(page, "document.querySelector('.viewer img.whole')?.naturalWidth > 0")
    page.get_by_role("button", name="Show where").click()
    expect(page.locator(".places-note")).to_contain_text("Click a box, or draw one")
    boxes = page.locator(".viewer .box")
    expect(boxes.first).to_be_visible()
    assert page.locator(".viewer canvas.heat").count() == 1
    inside = page.evaluate(
        """() => { const o = document.querySelector('.overlay').getBoundingClientRect();
        return [...document.querySelectorAll('.box')].every(b => { const r = b.getBoundingClientRect();
        return r.left >= o.left - 1 && r.right <= o.right + 1 && r.top >= o.top - 1 && r.bottom <= o.bottom + 1 }) }"""
    )
    assert inside
    photograph(page, "where")
    boxes.first.click()
    expect(page.locator(".viewer")).to_be_hidden()
    expect(page.locator(".term .label")).to_have_text("part of coffee.png")
    unfold(page)
    assert "coffee.png" in names(page)[:3]


def test_a_part_is_drawn_and_searched_with(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+cat")
    tile(page, "chelsea.png").locator(".open").click()
    until(page, "document.querySelector('.viewer img.whole')?.naturalWidth > 0")
    page.get_by_role("button", name="Show where").click()
    expect(page.locator(".viewer .overlay")).to_be_visible()
    box = page.locator(".viewer .overlay").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.93 * box["width"], box["y"] + 0.9 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.99 * box["width"], box["y"] + 0.98 * box["height"], steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Search with this part").last.click()
    expect(page.locator(".term .label")).to_have_text("part of chelsea.png")


def test_with_the_keyboard_alone(visit: Callable[..., Page]) -> None:
    page = visit()
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("/")
    expect(page.locator(".words")).to_be_focused()
    page.keyboard.type("a flower")
    page.keyboard.press("Enter")
    wait(page)
    assert names(page)[0] == "flower.jpg"
    page.locator(".fold-button").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".fold-button")).to_have_attribute("aria-expanded", "true")
    page.locator(".words").focus()
    page.keyboard.press("ArrowDown")
    expect(tiles(page).first.locator(".open")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    expect(tiles(page).nth(1).locator(".open")).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(page.locator(".viewer h2")).to_have_text("flower.jpg")
    photograph(page, "details")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".viewer h2")).not_to_have_text("flower.jpg")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".viewer h2")).to_have_text("flower.jpg")
    page.locator(".stage").focus()
    page.keyboard.press("+")
    expect(page.locator(".stage")).to_have_attribute("data-zoom", "1.50")
    page.keyboard.press("0")
    expect(page.locator(".stage")).to_have_attribute("data-zoom", "1.00")
    page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()
    expect(tiles(page).first.locator(".open")).to_be_focused()
    page.keyboard.press("m")
    expect(page.locator(".term .label")).to_have_text("flower.jpg")


def test_on_a_phone(visit: Callable[..., Page], media: Path) -> None:
    page = visit("#q=a+cat", viewport=PHONE, has_touch=True, is_mobile=True)
    expect(tiles(page).first).to_be_visible()
    lefts = {round(box["x"]) for one in tiles(page).all()[:9] if (box := one.bounding_box())}
    assert len(lefts) == 3
    page.set_input_files(".file", media / "photos" / "flower.jpg")
    expect(page.locator(".term")).to_have_count(1)
    wait(page)
    assert fits(page)
    photograph(page, "phone-results")
    tile(page, "chelsea.png").locator(".open").click()
    expect(page.locator(".viewer h2")).to_be_visible()
    assert fits(page) and violations(page) == []
    photograph(page, "phone-details")
    page.locator(".viewer .close").click()
    for view, inside in (("map", ".chart"), ("about", ".cards")):
        page.click(f'.places [data-view="{view}"]')
        expect(page.locator(inside)).to_be_visible()
        assert fits(page)
        photograph(page, f"phone-{view}")


def test_every_example_finds_something(visit: Callable[..., Page]) -> None:
    page = visit()
    photograph(page, "start")
    count = page.locator(".example").count()
    assert count >= 4
    for place in range(count):
        page.locator(".example").nth(place).click()
        wait(page)
        expect(tiles(page).first.or_(page.locator(".panel.nothing"))).to_be_visible()
        page.locator(".brand").click()
        expect(page.locator(".example")).to_have_count(count)


def test_a_bad_upload_leaves_the_query_alone(visit: Callable[..., Page], tmp_path: Path) -> None:
    page = visit("#q=a+cat", expected=("422",))
    bad = tmp_path / f"{HACK[:-1]}.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    page.set_input_files(".file", bad)
    expect(page.locator(".notice")).to_contain_text("could not be used")
    expect(page.locator(".notice")).to_contain_text("ecoded")
    expect(page.locator(".notice pre")).to_be_hidden()
    page.locator(".notice summary").click()
    expect(page.locator(".notice pre")).to_contain_text("422")
    expect(page.locator(".term")).to_have_count(0)
    expect(page.locator(".words")).to_have_value("a cat")
    expect(tile(page, "chelsea.png")).to_be_visible()
    photograph(page, "bad-upload")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".notice")).to_have_count(0)
    assert page.evaluate("window.hacked") is None


def test_names_and_captions_cannot_run(visit: Callable[..., Page]) -> None:
    page = visit("#q=the+name+of+this+note+wants+to+run&kind=text")
    found = tiles(page).first
    expect(found.locator(".name")).to_have_text(f"{HACK}.txt")
    expect(found.locator(".quote")).to_contain_text("${window.hacked=2}")
    found.locator(".open").click()
    expect(page.locator(".viewer h2")).to_have_text(f"{HACK}.txt")
    expect(page.locator(".said")).to_have_text('"><script>window.hacked=3</script>')
    expect(page.locator(".reading")).to_contain_text(HACK)
    page.locator(".facts").get_by_role("button", name="Add", exact=True).click()
    expect(page.locator(".term .label")).to_have_text(f"{HACK}.txt")
    page.click('.places [data-view="map"]')
    expect(page.locator(".chart canvas")).to_be_visible()
    assert page.evaluate("window.hacked") is None


def test_a_busy_server_is_asked_again(
    visit: Callable[..., Page], service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = service.search, [Busy(1)]

    async def busy_once(*arguments: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return await real(*arguments, **named)

    monkeypatch.setattr(service, "search", busy_once)
    page = visit("#q=a+cat", expected=("429",))
    expect(page.locator(".panel")).to_contain_text("The server is busy")
    expect(page.locator(".status")).to_contain_text("Searching again in")
    photograph(page, "busy")
    expect(tile(page, "chelsea.png")).to_be_visible()


def test_a_camera_and_a_microphone(visit: Callable[..., Page], service: Service) -> None:
    page = visit()
    page.click("[data-do=camera]")
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".term .label")).to_have_text("camera.jpg")
    page.locator("[data-do=microphone]").click()
    expect(page.locator(".recorder")).to_contain_text("Recording 1 s")
    page.get_by_role("button", name="Stop and search").click()
    expect(page.locator(".term .label")).to_have_text(["camera.jpg", "recording.weba"])
    expect(page.locator(".spin")).to_have_count(0)
    expect(page.locator(".notice")).to_have_count(0)


def test_nothing_here_looks_like_that(visit: Callable[..., Page]) -> None:
    page = visit("#q=an+elephant")
    expect(page.locator(".panel")).to_contain_text("Nothing here looks like that")
    expect(tiles(page)).to_have_count(0)
    assert violations(page) == []
    photograph(page, "nothing-alike")
    page.get_by_role("button", name="Show the nearest").click()
    expect(tiles(page).first).to_be_visible()
    expect(page.locator(".part h2")).to_contain_text("The nearest")
    page.go_back()
    expect(page.locator(".panel")).to_contain_text("Nothing here looks like that")


def test_what_is_probably_not_meant_is_folded_away(visit: Callable[..., Page]) -> None:
    page = visit("#q=a+cat")
    expect(tile(page, "chelsea.png")).to_be_visible()
    fold = page.locator(".fold-button")
    expect(fold).to_contain_text("Probably not")
    shown = tiles(page).count()
    fold.click()
    expect(fold).to_have_attribute("aria-expanded", "true")
    expect(tiles(page).nth(shown)).to_be_visible()
    photograph(page, "probably-not")


def test_the_picture_in_the_readme(browser: Browser, model: BindModel, tmp_path: Path, media: Path) -> None:
    """Shows only media that may be shown again: see README.md for where they are from."""
    for name in ("photos", "clips", "thermal", "motion"):
        shutil.copytree(media / name, tmp_path / "media" / name, ignore=shutil.ignore_patterns(*NO_LICENCE_STATED))
    with (
        Library.open(tmp_path / "library", model) as library,
        serving(Service(library, Settings(port=0))) as address,
        closing(Visit(browser, address, viewport={"width": 1180, "height": 760})) as window,
    ):
        library.index(tmp_path / "media")
        page = window.open("#kind=image")
        page.set_input_files(".file", media / "photos" / "chelsea.png")
        expect(page.locator(".term .label")).to_have_text("chelsea.png")
        until(page, "location.hash.includes('t=v')")
        page.fill(".words", "a flower")
        page.click("[data-do=plus]")
        expect(page.locator(".term")).to_have_count(2)
        unfold(page)
        expect(tiles(page).nth(4)).to_be_visible()
        page.locator(".words").blur()
        photograph(page, "readme")


def test_the_watch_over_a_visit_sees_other_hosts(browser: Browser, address: str) -> None:
    window = Visit(browser, address)
    page = window.open()
    page.evaluate("fetch('http://198.51.100.1/').catch(() => 0)")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        window.close()


_CAPTION = "(name => [...document.querySelectorAll('.caption')].find(c => c.textContent.includes(name))?.title || '')"


def cosine(page: Page, name: str) -> float:
    title = tile(page, name).locator(".caption").get_attribute("title") or ""
    return float(re.findall(r"Cosine (-?[\d.]+\d)", title)[0])


def changed_cosine(page: Page, name: str, before: float) -> float:
    until(page, f"{_CAPTION}('{name}').includes('Cosine') && !{_CAPTION}('{name}').includes('Cosine {before:.2f}')")
    return cosine(page, name)


def name_of(found: Any) -> str:
    return str(found.locator(".pick input").get_attribute("aria-label")).removeprefix("Select ")


def wait(page: Page) -> None:
    expect(page.locator("main")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator(".status")).not_to_have_text(re.compile("^$|earching"))


def unfold(page: Page) -> None:
    """Waits for the results and shows those that are probably not meant, too."""
    wait(page)
    expect(tiles(page).or_(page.locator(".panel, .fold-button")).first).to_be_visible()
    nearest = page.get_by_role("button", name="Show the nearest")
    if nearest.count():
        nearest.click()
        wait(page)
    folded = page.locator(".fold-button[aria-expanded=false]")
    if folded.count():
        folded.first.click()
    expect(tiles(page).first).to_be_visible()


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
