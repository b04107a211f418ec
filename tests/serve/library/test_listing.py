"""Files listed in orders, page by page, with filters, against what plain sorting of all files gives."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from serve.library.library import Library
from serve.library.listing import CursorError, FileItem, Order, Sort
from serve.library.where import WhereError
from tests.serve import tiny

PLACES = {"oslo": (59.91, 10.75), "bergen": (60.39, 5.32), "sydney": (-33.87, 151.21)}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    media = tmp_path / "media"
    for number in range(12):
        folder = media / ("a" if number % 3 else "b")
        file = tiny.picture(folder / f"{'Pic' if number % 2 else 'pic'}{number:02}.png", number)
        facts: dict[str, Any] = {"date": f"202{number % 4}-0{1 + number % 3}-1{number % 2}", "camera": f"C{number % 2}"}
        if number < 3:
            name, (latitude, longitude) = list(PLACES.items())[number]
            facts |= {"latitude": latitude, "longitude": longitude, "place": name}
        file.with_name(f"{file.name}.json").write_text(json.dumps(facts))
    shutil.copyfile(media / "b" / "pic00.png", media / "a" / "zcopy.png")
    tiny.clip(media / "film.mp4", seconds=7)
    (media / "note.txt").write_text("a dog barks")
    with Library.open(tmp_path / "library", tiny.seven()) as opened:
        opened.index(media)
        yield opened


def all_pages(library: Library, limit: int = 5, **asked: Any) -> list[FileItem]:
    found: list[FileItem] = []
    cursor = None
    while True:
        page = library.files(limit=limit, cursor=cursor, **asked)
        assert len(page.files) <= limit
        found += page.files
        cursor = page.cursor
        if cursor is None:
            assert page.total == len(found)
            return found


KEYS = {
    "added": lambda file: 0,
    "date": lambda file: file.date,
    "name": lambda file: os.path.basename(file.path).lower(),
    "size": lambda file: file.size_bytes,
    "path": lambda file: file.path.lower(),
}


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("where", [None, "kind = 'image'", "folder = 'a'", "camera = 'C1'", "modality = 'audio'"])
def test_pages_are_all_files_in_order(library: Library, sort: Sort, order: Order, where: str | None) -> None:
    found = all_pages(library, sort=sort, order=order, where=where)
    assert len({file.item_id for file in found}) == len(found)
    keys = [KEYS[sort](file) for file in found]
    assert keys == sorted(keys, reverse=order == "desc")
    whole = library.files(sort=sort, order=order, where=where, limit=1000)
    assert [file.path for file in whole.files] == [file.path for file in found] and whole.cursor is None
    expected = {None: 14, "kind = 'image'": 12, "folder = 'a'": 9, "camera = 'C1'": 6, "modality = 'audio'": 1}
    assert len(found) == expected[where]


@pytest.mark.parametrize("sort", get_args(Sort))
@pytest.mark.parametrize("order", get_args(Order))
@pytest.mark.parametrize("where", [None, "kind = 'image'", "folder = 'a'", "name = 'nothing'"])
def test_a_jump_into_the_list_gives_what_the_pages_before_lead_to(
    library: Library, sort: Sort, order: Order, where: str | None
) -> None:
    whole = [file.path for file in library.files(sort=sort, order=order, where=where, limit=1000).files]
    for offset in range(1, len(whole) + 2):
        page = library.files(sort=sort, order=order, where=where, limit=3, offset=offset)
        assert [file.path for file in page.files] == whole[offset : offset + 3] and page.total == len(whole)
        assert (page.cursor is None) == (offset + 3 >= len(whole))
        if page.cursor is not None:
            rest = library.files(sort=sort, order=order, where=where, limit=1000, cursor=page.cursor)
            assert [file.path for file in rest.files] == whole[offset + 3 :]
    with pytest.raises(ValueError, match="offset"):
        library.files(sort=sort, offset=-1)


def test_months_have_as_many_files_as_the_list_by_date(library: Library, tmp_path: Path) -> None:
    copy = tmp_path / "media" / "b" / "later.png"
    shutil.copyfile(tmp_path / "media" / "a" / "Pic01.png", copy)
    copy.with_name("later.png.json").write_text('{"date": "2031-05-06"}')
    library.index(tmp_path / "media")
    listed = [file.date[:7] for file in all_pages(library, sort="date", order="desc")]
    months = library.facets().months
    assert listed == [month for month, count in months for _ in range(count)] and months[0] == ("2031-05", 1)


def test_equal_files_are_one_and_a_film_is_one(library: Library) -> None:
    by_name = {Path(file.path).name: file for file in all_pages(library, sort="name", order="asc")}
    assert "zcopy.png" not in by_name and [Path(path).name for path in by_name["pic00.png"].also] == ["zcopy.png"]
    last = all_pages(library, sort="name", order="desc")[0]
    assert Path(last.path).name == "zcopy.png", "of equal files the one that comes first in the order is shown"
    copy = all_pages(library, where="folder = 'a' and name like 'z%'")
    assert [Path(file.path).name for file in copy] == ["zcopy.png"]
    film = by_name["film.mp4"]
    assert (film.kind, film.start_s, film.modality) == ("video", None, "video")
    assert film.segments == len(library.related(film.item_id)) > 2
    assert film.duration_s == pytest.approx(7, abs=0.5) and film.size_bytes == os.path.getsize(film.path)


def test_pages_go_on_while_files_come_and_go(library: Library, tmp_path: Path) -> None:
    page = library.files(sort="name", limit=4)
    names = [Path(file.path).name for file in page.files]
    tiny.picture(tmp_path / "media" / "a" / "aaa.png", 99)
    for name in (names[1], names[-1]):
        next((tmp_path / "media").rglob(name)).unlink()
    library.index(tmp_path / "media")
    rest = [Path(file.path).name for file in library.files(sort="name", limit=100, cursor=page.cursor).files]
    assert rest[0].lower() > names[-1].lower() and not set(rest) & set(names)
    assert library.facets().total == library.files(limit=1).total == 13


def test_wrong_orders_cursors_and_filters_are_refused(library: Library) -> None:
    cursor = library.files(sort="name", limit=1).cursor
    for wrong in (cursor, "x", "", "é", "bm8", "A" * 9000):
        with pytest.raises(CursorError):
            library.files(sort="date", cursor=wrong)
    for asked in ({"sort": "colour"}, {"order": "up"}, {"limit": 0}, {"limit": 1001}):
        with pytest.raises(ValueError, match="expected"):
            library.files(**asked)  # type: ignore[arg-type]
    with pytest.raises(WhereError):
        library.files("smell = 1")
    assert len(all_pages(library, where="date >= '2023'", sort="date", order="desc", limit=1)) == 6


def test_facets_count_files_as_the_list_does(library: Library) -> None:
    for where in (None, "camera = 'C0'", "folder = 'a'", "kind = 'video'"):
        facets = library.facets(where)
        assert facets.total == library.files(where, limit=1).total
        also = "" if where is None else f" and {where}"
        pairs = [
            *((f"kind = '{name}'", count) for name, count in facets.kinds),
            *((f"folder = '{name}'", count) for name, count in facets.folders),
            *((f"date between '{name}' and '{name}'", count) for name, count in facets.months),
            *((f"camera = '{name}'", count) for name, count in facets.cameras),
            *((f"place = '{name}'", count) for name, count in facets.places),
        ]
        for expression, count in pairs:
            assert library.files(expression + also, limit=1).total == count > 0, (expression, where)
        assert sum(count for _, count in facets.kinds) == facets.total
    assert dict(library.facets().kinds) == {"image": 12, "text": 1, "video": 1}
    months = [month for month, _ in library.facets().months]
    assert months == sorted(months, reverse=True) and len(library.facets(limit=2).months) == 2


def test_facets_follow_changes(library: Library, tmp_path: Path) -> None:
    before = library.facets()
    (tmp_path / "media" / "note.txt").unlink()
    tiny.picture(tmp_path / "media" / "c" / "new.png", 50)
    library.index(tmp_path / "media")
    after = library.facets()
    assert (before.total, after.total) == (14, 14)
    assert dict(after.kinds) == {"image": 13, "video": 1} and ("c", 1) in after.folders
    with Library.open(library.folder, tiny.seven()) as other:
        assert other.facets() == after, "what is read anew and what followed the changes agree"


def test_near_in_time_and_in_place(library: Library) -> None:
    by_name = {Path(file.path).name: file for file in all_pages(library, sort="path", order="desc")}
    oslo = by_name["pic00.png"]
    near = library.near(oslo.item_id, "place")
    assert [Path(file.path).name for file in near] == ["Pic01.png", "pic02.png"], "Bergen, then Sydney"
    assert library.near(by_name["note.txt"].item_id, "place") == []
    near = library.near(oslo.item_id, "time", limit=3, where="kind = 'image'")
    assert len(near) == 3 and oslo.path not in [file.path for file in near]
    days = [abs(int(file.date[3]) - int(oslo.date[3])) for file in near]
    assert days == sorted(days)
    with pytest.raises(ValueError, match="time or place"):
        library.near(oslo.item_id, "smell")
    with pytest.raises(LookupError):
        library.near(10**6, "time")


def test_duplicates_are_files(library: Library) -> None:
    groups, total = library.duplicate_files(0.99999)
    assert total == 1 and len(groups[0][1]) == 1 and len(groups[0][1][0].also) == 1
    assert [set(group.paths) for group in library.duplicates(0.99999)] == [
        {groups[0][1][0].path, *groups[0][1][0].also}
    ]
    every, total = library.duplicate_files(-1.0)
    files = max((files for _, files in every), key=len)
    assert len(files) > 2
    library.mark([file.item_id for file in files[1:]], hidden=True)
    assert all(files[0].path not in [f.path for f in some] for _, some in library.duplicate_files(-1.0)[0])
    assert library.duplicate_files(-1.0, hidden=True)[1] == total
    assert library.duplicate_files(-1.0, hidden=True, after=total)[0] == []


def test_groups_are_files_that_are_alike(library: Library, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    for number in range(20):  # light and dark pictures, each with a little noise
        noise = np.random.default_rng(number).integers(0, 40, (20, 24, 3), np.uint8)
        place = tmp_path / "media" / "tones" / f"{'dark' if number % 2 else 'light'}{number}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(noise if number % 2 else 255 - noise).save(place)
    library.index(tmp_path / "media")
    groups = library.groups(2, where="folder = 'tones'")
    assert [group.count for group in groups] == [10, 10]
    kinds = [{Path(library.item(number).path).name.strip("0123456789.png") for number in g.item_ids} for g in groups]
    assert sorted(map(sorted, kinds)) == [["dark"], ["light"]] or sorted(map(sorted, kinds)) == [["dark"], ["li"]]
    assert len({group.name for group in groups}) == 2 and all(len(group.words) == 2 for group in groups)
    assert len(groups[0].examples) == 8 and groups[0].examples[0].item_id == groups[0].item_ids[0]
    asked = f"id in ({', '.join(map(str, groups[0].item_ids))})"
    assert library.files(asked, limit=1).total == 10
    assert library.groups(2, where="folder = 'tones'") == groups
    assert sum(group.count for group in library.groups(64)) == library.facets().total
    assert library.groups(3, where="name = 'none'") == []
    for wrong in (0, 65):
        with pytest.raises(ValueError, match="groups"):
            library.groups(wrong)
