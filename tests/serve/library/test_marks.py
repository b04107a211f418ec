"""Marks, albums and tags: what they change in lists and searches, and that they outlive what happens to files."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bind.space import Embeddings
from serve.library import backup, check
from serve.library.errors import UnknownAlbumError, UnknownItemError
from serve.library.feedback import refined
from serve.library.library import Library
from serve.library.query import Asked
from serve.library.schema import FILE
from serve.library.search import SearchOptions
from serve.library.where import WhereError
from tests.serve import tiny


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    for number in range(6):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    tiny.clip(tmp_path / "media" / "film.mp4")
    with Library.open(tmp_path / "library", tiny.seven()) as opened:
        opened.index(tmp_path / "media")
        yield opened


def ids(library: Library, *names: str) -> list[int]:
    files = {os.path.basename(file.path): file.item_id for file in library.files(hidden=True, limit=1000).files}
    return [files[name] for name in names]


def names(library: Library, where: str | None = None, **asked: Any) -> list[str]:
    return [os.path.basename(file.path) for file in library.files(where, sort="name", **asked).files]


def state(library: Library) -> list[list[str]]:
    """All that people said, by the filters that ask for it."""
    asked = ("favourite = true", "hidden = true", "album = 'mine'", "tag = 'x'")
    return [names(library, where) for where in asked]


def test_hidden_files_are_nowhere_unless_asked_for(library: Library) -> None:
    assert library.mark(ids(library, "1.png", "film.mp4"), hidden=True) == 2
    assert names(library) == ["0.png", "2.png", "3.png", "4.png", "5.png"]
    assert names(library, hidden=True, limit=1000) == [*(f"{n}.png" for n in range(6)), "film.mp4"]
    assert names(library, "hidden = true") == ["1.png", "film.mp4"]
    assert names(library, "hidden = true and kind = 'video'") == ["film.mp4"]
    assert library.facets().total == 5 and library.facets().hidden == 2
    assert {os.path.basename(hit.path) for hit in library.search("film boat", k=20)} == set(names(library))
    assert {os.path.basename(item.path) for item in library.page()[0]} == set(names(library))
    assert "film.mp4" in {os.path.basename(hit.path) for hit in library.search("x", k=20, where="hidden = true")}
    assert library.mark(ids(library, "1.png"), hidden=False) == 1
    assert "1.png" in names(library) and library.facets().hidden == 1


def test_marks_are_independent_of_each_other(library: Library) -> None:
    (one,) = ids(library, "1.png")
    library.mark([one], favourite=True)
    library.mark([one], hidden=True)
    file = library.file(one)
    assert (file.favourite, file.hidden) == (True, True)
    library.mark([one], hidden=False)
    assert names(library, "favourite = true and hidden = false") == ["1.png"]
    assert library.facets().favourites == 1
    library.mark([one], favourite=False)
    assert names(library, "favourite = true") == [] and not library.file(one).favourite
    with closing(sqlite3.connect(library.folder / FILE)) as connection:
        assert connection.execute("SELECT count(*) FROM marks").fetchone() == (0,)
    with pytest.raises(UnknownItemError):
        library.mark([one, 10**6], favourite=True)
    assert names(library, "favourite = true") == [], "all of it or nothing"


def test_albums_are_lists_filters_or_queries(library: Library) -> None:
    made = library.make_album(" mine ", item_ids=ids(library, "1.png", "film.mp4"))
    assert (made.name, made.count) == ("mine", 2)
    assert names(library, "album = 'mine'") == ["1.png", "film.mp4"]
    assert names(library, "album != 'mine' and kind = 'image'") == ["0.png", "2.png", "3.png", "4.png", "5.png"]
    library.make_album("pictures", where="kind = 'image' and name < '3'")
    assert names(library, "album = 'pictures'") == ["0.png", "1.png", "2.png"]
    assert names(library, "album = 'pictures' and not album = 'mine'") == ["0.png", "2.png"]
    assert names(library, "album != 'pictures'") == ["3.png", "4.png", "5.png", "film.mp4"]
    library.make_album("dogs", query="a dog", where="kind = 'image'")
    with pytest.raises(WhereError, match="saved query"):
        library.files("album = 'dogs'")
    assert [(one.name, one.query, one.count) for one in library.albums()] == [
        ("dogs", "a dog", None),
        ("mine", None, 2),
        ("pictures", None, None),
    ]
    changed = library.change_album(made.album_id, name="ours", add=ids(library, "2.png"), remove=ids(library, "1.png"))
    assert (changed.name, changed.count) == ("ours", 2) and names(library, "album = 'ours'") == ["2.png", "film.mp4"]
    assert library.file(ids(library, "2.png")[0]).albums == ("ours",) and library.facets().albums == [("ours", 2)]
    library.delete_album(made.album_id)
    assert names(library, "album = 'ours'") == [] and len(names(library)) == 7
    with pytest.raises(UnknownAlbumError):
        library.delete_album(made.album_id)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"name": ""}, "expected a name"),
        ({"name": "a\nb"}, "expected a name"),
        ({"name": "x" * 201}, "expected a name"),
        ({"name": "taken"}, "already"),
        ({"name": "x", "where": "album = 'taken'"}, "cannot speak of albums"),
        ({"name": "x", "where": "smell = 1"}, "no file has metadata"),
        ({"name": "x", "where": "kind = 'image'", "item_ids": [1]}, "not both"),
    ],
)
def test_albums_that_make_no_sense(library: Library, asked: dict[str, Any], reason: str) -> None:
    library.make_album("taken")
    with pytest.raises(ValueError, match=reason):
        library.make_album(**asked)
    saved = library.make_album("saved", where="kind = 'image'")
    with pytest.raises(ValueError, match="no list to change"):
        library.change_album(saved.album_id, add=[1])
    assert [one.name for one in library.albums()] == ["saved", "taken"]


def put_all(library: Library) -> list[list[str]]:
    library.mark(ids(library, "1.png", "2.png"), favourite=True)
    library.mark(ids(library, "3.png"), hidden=True)
    library.make_album("mine", item_ids=ids(library, "1.png", "film.mp4"))
    tag_all(library, "x", ids(library, "2.png"))
    return [["1.png", "2.png"], ["3.png"], ["1.png", "film.mp4"], ["2.png"]]


def tag_all(library: Library, word: str, item_ids: list[int]) -> None:
    """A tag by hand, because a model of random weights has no calibration."""
    from serve.library import albums

    with library._catalogue.write() as writer, writer.transaction():
        number = albums.put_tag(writer, word, 0.5)
    library.change_album(number, add=item_ids, kind="tag")


def test_marks_outlive_moves_edits_removals_models_and_backups(library: Library, tmp_path: Path) -> None:
    expected = put_all(library)
    media = tmp_path / "media"
    assert state(library) == expected
    (tmp_path / "moved").mkdir()
    for file in media.iterdir():
        shutil.move(file, tmp_path / "moved" / file.name)
    library.index(tmp_path / "moved")
    library.forget(media)
    assert state(library) == expected, "files that moved"
    library.forget(tmp_path / "moved")
    assert state(library) == [[], [], [], []]
    library.index(tmp_path / "moved")
    assert state(library) == expected, "files that were away"
    tiny.picture(tmp_path / "moved" / "1.png", 77)
    tiny.picture(tmp_path / "moved" / "3.png", 78)
    library.index(tmp_path / "moved")
    assert state(library) == expected, "files that were edited"
    backup.backup(library.folder, tmp_path / "kept.tar")
    backup.restore(tmp_path / "kept.tar", tmp_path / "restored")
    assert check.check(tmp_path / "restored").is_whole
    with Library.open(tmp_path / "restored", tiny.seven()) as restored:
        assert state(restored) == expected, "a backup"
    report = Library.migrate(tmp_path / "restored", tiny.model(5, preprocess=tiny.PREPROCESS | tiny.SENSORS))
    assert report.files == 7
    with Library.open(tmp_path / "restored", tiny.model(5, preprocess=tiny.PREPROCESS | tiny.SENSORS)) as migrated:
        assert state(migrated) == expected, "another model"


def test_a_damaged_mark_is_found_and_dropped(library: Library) -> None:
    put_all(library)
    folder = library.folder
    with closing(sqlite3.connect(folder / FILE)) as connection, connection:
        connection.execute("UPDATE marks SET favourite = 0, hidden = 1 WHERE id = 1")
        connection.execute("UPDATE albums SET name = 'other' WHERE kind = 'album'")
    found = check.check(folder)
    assert sorted(finding.what.split(" of ")[1] for finding in found.findings) == [
        "albums is damaged",
        "marks is damaged",
    ]
    assert check.check(folder, repair=True).is_whole and check.check(folder).is_whole
    assert state(library) == [["2.png"], ["3.png"], [], ["2.png"]]


def test_tags_come_from_probabilities_and_may_be_corrected(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    chances = dict(zip(ids(library, "0.png", "1.png", "2.png"), (0.9, 0.6, 0.2), strict=True))
    find = library._search.find

    def likely(asked: Asked, options: SearchOptions) -> list[Any]:
        hits = find(asked, dataclasses.replace(options, min_probability=None))
        marked = [dataclasses.replace(hit, probability=chances.get(hit.item_id, 0.0)) for hit in hits]
        return [hit for hit in marked if (hit.probability or 0) >= (options.min_probability or 0)]

    with pytest.raises(ValueError, match="no probabilities"):
        library.tag(["dog"])
    assert library.tags() == []
    monkeypatch.setattr(library._search, "find", likely)
    (tag,) = library.tag(["dog", " dog"])
    assert (tag.name, tag.count, tag.min_probability) == ("dog", 2, 0.5)
    assert names(library, "tag = 'dog'") == ["0.png", "1.png"]
    library.change_album(tag.album_id, add=ids(library, "5.png"), remove=ids(library, "0.png"), kind="tag")
    assert names(library, "tag = 'dog'") == ["1.png", "5.png"]
    (again,) = library.tag(["dog"], min_probability=0.7)
    assert again.album_id == tag.album_id and names(library, "tag = 'dog'") == ["0.png", "5.png"]
    vectors = np.eye(2, library.model.dim, dtype=np.float32)
    library.tag(["cat", "dog"], min_probability=0.1, embedded=Embeddings(vectors, library.model.space))
    assert names(library, "tag = 'cat'") == ["0.png", "1.png", "2.png"] and library.facets().tags == [
        ("dog", 4),
        ("cat", 3),
    ]
    library.delete_album(tag.album_id, "tag")
    assert [one.name for one in library.tags()] == ["cat"]


def test_thumbs_move_a_query(library: Library) -> None:
    one, two = ids(library, "1.png", "2.png")
    terms = refined([], [one], [two])
    assert [(term.content, term.weight) for term in terms] == [(one, 0.75), (two, -0.15)]
    before = {hit.item_id: hit.cosine for hit in library.search("a dog", k=20, want=["image"], keywords=False)}
    from serve import Term

    moved = refined([Term("a dog")], [one], [two])
    after = {hit.item_id: hit.cosine for hit in library.search(moved, k=20, want=["image"], keywords=False)}
    assert after[one] - before[one] > after[two] - before[two]
    with pytest.raises(ValueError, match="expected a query"):
        refined([], [], [two])
