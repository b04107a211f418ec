"""The library on the page: its timeline, filters, albums, marks and details; in a real browser over a tiny model."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from serve.engine.service import Service
from serve.engine.settings import Settings
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.page.browsing import (
    PHONE,
    Visit,
    fits,
    names,
    photograph,
    tile,
    tiles,
    until,
    violations,
)

RIGHT_TO_LEFT = "שקיעה על הים.png"


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 pictures of 30 months in 3 folders, with cameras and places; a film, a sound, texts and a copy."""
    folder = tmp_path_factory.mktemp("library-view") / "media"
    for number in range(300):
        file = tiny.picture(folder / ("trip", "home", "work")[number % 3] / f"{number:03}.png", number)
        month = number // 10
        facts = {"date": f"{2024 - month // 12}-{12 - month % 12:02}-{10 + number % 10}T12:00:00"}
        facts["camera"] = ("X100", "K-5")[number % 2]
        if number < 20:
            facts |= {"latitude": 59.9 + number / 100, "longitude": 10.7, "place": "Oslo"}  # type: ignore[dict-item]
        file.with_name(f"{file.name}.json").write_text(json.dumps(facts))
    shutil.copyfile(folder / "trip" / "000.png", folder / "home" / "copy of 000.png")
    tiny.picture(folder / "names" / RIGHT_TO_LEFT, 1000)
    tiny.clip(folder / "film.mp4", 6)
    tiny.sound(folder / "tone.wav", 440, 5)
    (folder / "note.txt").write_text("A note about the sea, and what the wind did to it.")
    return folder


@pytest.fixture
def service(media: Path, tmp_path: Path) -> Iterator[Service]:
    """Over a copy of one library for each test, because the tests mark, hide and add."""
    made = media.parent / "library"
    if not made.exists():
        with Library.open(made, tiny.seven()) as library:
            library.index(media)
    shutil.copytree(made, tmp_path / "library")
    with Library.open(tmp_path / "library", tiny.seven()) as library:
        yield Service(library, Settings(port=0))


def columns(page: Page) -> int:
    return len({round(box["x"]) for one in tiles(page).all()[:40] if (box := one.bounding_box())})


def test_the_whole_library_newest_first_under_its_months(visit: Callable[..., Page], service: Service) -> None:
    page = visit()
    expect(page.locator(".status")).to_have_text("304 items")
    assert 8 <= columns(page) <= 10
    expect(page.locator(".part h2").nth(1)).to_contain_text("December 2024")
    assert page.locator(".grid .tile").count() < 160  # only what is near the window is in the document
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(tile(page, "299.png")).to_be_visible()
    expect(page.locator(".part h2").last).to_contain_text("July 2022")
    assert page.locator(".grid .tile").count() < 160
    page.evaluate("scrollTo(0, document.body.scrollHeight / 2)")
    expect(tiles(page).first).to_be_visible()
    listed = [Path(file.path).name for file in service.library.files(sort="date", order="desc", limit=1000).files]
    page.wait_for_timeout(300)
    shown = names(page)
    until(page, "document.querySelectorAll('.tile.waiting').length === 0")
    begin = listed.index(shown[0])
    assert sorted(shown) == sorted(listed[begin : begin + len(shown)])


def test_a_first_load_is_small(browser: Browser, address: str) -> None:
    with closing(Visit(browser, address)) as window:
        sizes: dict[str, int] = {}
        window.page.on("requestfinished", lambda r: sizes.update({r.url: sum(r.sizes()[k] for k in SIZES)}))
        page = window.open()
        page.wait_for_load_state("networkidle")
        own = {url: size for url, size in sizes.items() if not re.search(r"/thumbnail|/figures/", url)}
        assert len(own) <= 15, sorted(own)
        assert sum(own.values()) < 300_000
        print(f"first load: {len(own)} requests, {sum(own.values()):,} bytes; with pictures {sum(sizes.values()):,}")
        again: list[str] = []
        page.on("request", lambda r: again.append(r.url))
        page.reload()
        expect(tiles(page).first).to_be_visible()
        kept = page.evaluate(
            "performance.getEntriesByType('resource').filter(e => e.name.includes('/assets/')).map(e => e.transferSize)"
        )
        assert len(kept) >= 10 and not any(kept)  # everything but the page itself comes from the browser's own store


SIZES = ("responseBodySize", "responseHeadersSize")


def test_the_scrubber_leads_to_a_month(visit: Callable[..., Page]) -> None:
    page = visit()
    scrubber, handle = page.locator(".scrubber"), page.get_by_role("slider", name="Month")
    expect(scrubber.locator(".year").first).to_have_text(re.compile("20"))
    box = scrubber.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 40, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + box["height"] * 0.7, steps=8)
    told = handle.get_attribute("aria-valuetext") or ""
    page.mouse.up()
    assert "2023" in told
    expect(page.locator(".part h2", has_text=told)).to_be_visible()
    photograph(page, "scrubber")
    handle.focus()
    page.keyboard.press("End")
    expect(handle).to_have_attribute("aria-valuetext", "July 2022")
    page.keyboard.press("Home")
    expect(handle).not_to_have_attribute("aria-valuetext", "July 2022")


def test_orders_and_filters_are_in_the_address(visit: Callable[..., Page], address: str) -> None:
    page = visit("#sort=date&order=asc")
    assert names(page)[0] in {f"{number}.png" for number in range(290, 300)}
    page.locator(".sort select").select_option("name asc")
    expect(tile(page, "000.png")).to_be_visible()
    page.click("[data-do=filter]")
    page.get_by_role("checkbox", name="trip").check()
    expect(page.locator(".status")).to_contain_text("100 items")
    page.get_by_role("checkbox", name="K-5").check()
    expect(page.locator(".status")).to_contain_text("50 items")
    page.get_by_role("button", name="2024", exact=True).click()
    expect(page.locator(".status")).to_contain_text("20 items")
    page.locator(".filters summary").click()
    expect(page.locator(".filters .fold")).to_contain_text("camera = 'K-5'")
    photograph(page, "filters")
    assert violations(page) == []
    other = visit(page.url.removeprefix(address).removeprefix("/"))
    expect(other.locator(".status")).to_contain_text("20 items")
    page.get_by_role("button", name="Remove the filter trip").click()
    expect(page.locator(".status")).to_contain_text("60 items")
    page.fill(".filters .where", "name like '00%'")
    page.locator(".filters .where").press("Enter")
    expect(page.locator(".status")).to_contain_text("5 items")
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.locator(".status")).to_contain_text("304 items")
    page.locator(".kind.k-text").click()
    expect(tiles(page)).to_have_count(1)
    expect(tiles(page).locator(".quote")).to_contain_text("A note about the sea")
    page.locator(".kind.k-text").click()
    page.get_by_label("From").fill("2023-03-10")
    page.get_by_label("To", exact=True).fill("2023-03-12")
    expect(page.locator(".status")).to_contain_text("3 items")


def test_details_say_all_there_is(visit: Callable[..., Page], service: Service) -> None:
    page = visit("#where=name+%3D+'002.png'")
    tile(page, "002.png").locator(".open").click()
    facts = page.locator(".facts")
    expect(facts).to_contain_text("X100")
    expect(facts).to_contain_text("12 December 2024, 12:00")
    expect(facts).to_contain_text("media/work/002.png")
    expect(facts).to_contain_text("59.92000, 10.70000")
    for title in ("Similar", "Near in time", "Near in place"):
        expect(facts.locator("h3", has_text=title)).to_be_visible()
    near = facts.locator("section", has=page.locator("h3", has_text="Near in place")).locator("button[title]").first
    assert near.get_attribute("title") in ("001.png", "003.png")
    photograph(page, "library-details")
    assert violations(page) == []
    near.click()
    expect(page.locator(".viewer h2")).not_to_have_text("002.png")


def test_a_picture_is_enlarged_and_moved(visit: Callable[..., Page]) -> None:
    page = visit("#where=name+%3D+'000.png'")
    tiles(page).first.locator(".open").click()
    until(page, "document.querySelector('.viewer img.whole')?.naturalWidth > 0")
    stage = page.locator(".stage")
    box = stage.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 3, box["y"] + box["height"] / 3)
    page.mouse.wheel(0, -300)
    page.mouse.wheel(0, -300)
    until(page, "Number(document.querySelector('.stage').dataset.zoom) > 1.4")
    before = page.locator("img.whole").evaluate("i => i.style.transform")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 3 - 60, box["y"] + box["height"] / 3 - 40, steps=4)
    page.mouse.up()
    assert page.locator("img.whole").evaluate("i => i.style.transform") != before
    page.mouse.dblclick(box["x"] + 100, box["y"] + 300)
    expect(stage).to_have_attribute("data-zoom", "1.00")


def test_favourites_hidden_and_albums(visit: Callable[..., Page], service: Service) -> None:
    page = visit("#where=folder+%3D+'trip'&sort=name&order=asc")
    tile(page, "000.png").locator(".open").focus()
    page.keyboard.press("f")
    expect(page.locator(".status")).to_contain_text("marked as favourite")
    for name in ("003.png", "006.png"):
        tile(page, name).locator(".open").focus()
        page.keyboard.press("x")
    expect(page.locator(".selection")).to_contain_text("2 selected")
    tile(page, "015.png").hover()
    tile(page, "015.png").locator(".pick").click(modifiers=["Shift"])
    expect(page.locator(".selection")).to_contain_text("5 selected")  # 003, 006, 009, 012, 015
    assert violations(page) == []
    photograph(page, "selection")
    page.locator(".selection").get_by_role("button", name="Album").click()
    page.get_by_label("Name of the new album").fill("Best of the trip")
    page.locator(".question").get_by_role("button", name="Add").click()
    expect(page.locator(".selection")).to_be_hidden()
    (album,) = service.library.albums()
    assert (album.name, album.count) == ("Best of the trip", 5)

    tile(page, "009.png").locator(".open").click()
    page.locator(".facts").get_by_role("button", name="Hide").click()
    expect(page.locator(".viewer")).to_be_hidden()
    page.click('.places [data-view="albums"]')
    expect(page.locator(".album")).to_contain_text("Best of the trip")
    photograph(page, "albums")
    assert violations(page) == []
    page.locator(".album").click()
    expect(page.locator(".status")).to_contain_text("4 items")
    page.goto(f"{page.url.partition('#')[0]}#favourites=1")
    expect(tiles(page)).to_have_count(1)
    page.goto(f"{page.url.partition('#')[0]}#hidden=1&where=hidden+%3D+true")
    expect(tile(page, "009.png")).to_be_visible()


def test_a_selection_is_exported(visit: Callable[..., Page]) -> None:
    page = visit("#where=folder+%3D+'trip'&sort=name&order=asc")
    for name in ("000.png", "003.png"):
        tile(page, name).locator(".open").focus()
        page.keyboard.press("x")
    found = {}
    for kind in ("Paths", "CSV", "JSON"):
        page.locator(".selection").get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.locator(".question").get_by_role("button", name=kind).click()
        found[kind] = Path(download.value.path()).read_text()
    assert [Path(line).name for line in found["Paths"].splitlines()] == ["000.png", "003.png"]
    rows = list(csv.DictReader(io.StringIO(found["CSV"])))
    assert [Path(row["path"]).name for row in rows] == ["000.png", "003.png"] and rows[0]["modality"] == "image"
    assert [Path(item["path"]).name for item in json.loads(found["JSON"])] == ["000.png", "003.png"]
    page.keyboard.press("Escape")
    expect(page.locator(".selection")).to_be_hidden()


def test_duplicates_are_shown_and_others_hidden(visit: Callable[..., Page], media: Path) -> None:
    page = visit("#view=duplicates")
    expect(page.locator(".groups .card").first).to_contain_text("copies of one file")
    expect(page.locator(".groups")).to_contain_text("copy of 000.png")
    photograph(page, "duplicates")
    assert violations(page) == []
    assert (media / "home" / "copy of 000.png").exists()


def test_names_that_are_read_from_the_right(visit: Callable[..., Page]) -> None:
    page = visit("#where=folder+%3D+'names'")
    tile(page, RIGHT_TO_LEFT).hover()
    assert tile(page, RIGHT_TO_LEFT).locator(".name").evaluate("e => getComputedStyle(e).direction") == "rtl"
    tile(page, RIGHT_TO_LEFT).locator(".open").click()
    expect(page.locator(".viewer h2")).to_have_text(RIGHT_TO_LEFT)
    assert page.locator(".viewer h2").evaluate("e => getComputedStyle(e).direction") == "rtl"
    assert fits(page)


def test_enlarged_to_200_percent_and_on_a_phone(visit: Callable[..., Page]) -> None:
    large = visit(viewport={"width": 700, "height": 450}, device_scale_factor=2)  # 1400 x 900 at 200 %
    assert fits(large) and violations(large) == []
    large.click("[data-do=filter]")
    expect(large.locator(".filters fieldset").first).to_be_visible()
    assert fits(large)
    photograph(large, "large-200")
    phone = visit(viewport=PHONE, has_touch=True, is_mobile=True)
    assert columns(phone) == 3 and fits(phone) and violations(phone) == []
    photograph(phone, "phone-library")
    phone.evaluate("scrollTo(0, 3000)")
    expect(tiles(phone).last).to_be_attached()
    dark = visit(color_scheme="dark")
    assert violations(dark) == []
    photograph(dark, "dark-library")


def test_the_map_becomes_pictures_and_a_lasso_a_filter(visit: Callable[..., Page]) -> None:
    page = visit("#view=map")
    canvas = page.locator(".chart canvas")
    expect(page.locator(".status")).to_contain_text("on the map")
    assert violations(page) == []
    expect(page.locator(".chart")).to_have_attribute("data-pictures", "no")
    photograph(page, "map")
    box = canvas.bounding_box()
    assert box is not None
    page.get_by_role("button", name="Circle items").click()
    corners = [(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.25)]
    x, y, width, height = box["x"], box["y"], box["width"], box["height"]
    page.mouse.move(x + corners[0][0] * width, y + corners[0][1] * height)
    page.mouse.down()
    for across, down in corners[1:]:
        page.mouse.move(x + across * width, y + down * height, steps=5)
    page.mouse.up()
    expect(page.locator(".chips")).to_contain_text("chosen items")
    expect(tiles(page).first).to_be_visible()
    chosen = int(re.findall(r"(\d+) chosen", page.locator(".chips").inner_text())[0])
    assert 5 < chosen < 304
    page.go_back()
    expect(canvas).to_be_visible()
    for _ in range(5):
        page.get_by_role("button", name="Larger").click()
    expect(page.locator(".chart")).to_have_attribute("data-pictures", "yes")
    photograph(page, "map-pictures")
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator(".viewer h2")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".viewer")).to_be_hidden()


def test_all_other_views_pass_axe(visit: Callable[..., Page]) -> None:
    for scheme in ("light", "dark"):
        page = visit("#view=about", color_scheme=scheme)
        assert violations(page) == []
        photograph(page, f"about-{scheme}")
        page.click('.places [data-view="add"]')
        expect(page.locator(".drop-here")).to_be_visible()
        assert violations(page) == []
        for name in ("film.mp4", "tone.wav", "note.txt"):
            page.goto(f"{page.url.partition('#')[0]}#where=name+%3D+'{name}'")
            tile(page, name).locator(".open").click()
            expect(page.locator(".viewer h2")).to_have_text(name)
            assert violations(page) == []
            page.keyboard.press("Escape")
            expect(page.locator(".viewer")).to_be_hidden()
