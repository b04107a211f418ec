"""Words in pictures and speech of a library: found, shown with their place, read once, added later, kept consistent."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bind.model.model import BindModel
from preprocess.source import Limits
from serve.library import backup, check, reading
from serve.library.catalogue import Catalogue
from serve.library.errors import DamagedError
from serve.library.library import Library
from serve.library.reading import Channel
from serve.library.schema import sign
from serve.library.where import EVERYTHING
from tests.serve import tiny
from tests.serve.words import WORDS, read

PICTURES = Channel("ocr", "names", ("image",), read, None)
SPEECH = Channel("speech", "names", ("audio", "video"), read, None)


@pytest.fixture(autouse=True)
def recognisers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "words_in_pictures", lambda: PICTURES)
    monkeypatch.setattr(reading, "words_in_speech", lambda name: replace(SPEECH, recogniser=name))


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number in range(4):
        tiny.picture(tmp_path / "media" / f"{number}.png", number)
    return tmp_path / "media"


def found(library: Library, text: str, **more: Any) -> list[str]:
    return [os.path.basename(hit.path) for hit in library.search(text, k=4, **more) if hit.keyword]


def test_channels_are_off_until_they_are_wanted(library: Library, media: Path) -> None:
    assert library.index(media).words == {}
    assert found(library, "revenue") == []


def test_words_are_added_later_once_and_nothing_is_embedded_for_them(library: Library, media: Path) -> None:
    report = library.index(media, ocr=True)
    assert (report.embedded, report.unchanged, report.words) == (0, 4, {"ocr": 3})
    assert report.wordless == [(str(media / "3.png"), "ocr: is too dark")]
    again = library.index(media, ocr=True)
    assert (again.words, again.wordless) == ({"ocr": 0}, [])
    retried = library.index(media, ocr=True, retry=True)
    assert retried.words == {"ocr": 0} and len(retried.wordless) == 1
    tiny.picture(media / "new" / "0.png", 7)
    assert library.index(media, ocr=True).words == {"ocr": 1}


def test_a_root_remembers_what_is_read_in_it_until_it_is_switched_off(library: Library, media: Path) -> None:
    library.index(media, ocr=True, speech="en-us")
    tiny.picture(media / "new" / "0.png", 7)
    tiny.sound(media / "talk.wav", 3)
    assert library.index(media).words == {"ocr": 1, "speech": 1}
    (root,) = library.roots()
    assert (root.ocr, root.speech) == (True, "en-us")
    tiny.picture(media / "new" / "1.png", 8)
    assert library.index(media, ocr=False).words == {"speech": 0}
    assert library.index(media, speech="").words == {}
    assert library.index(media).words == {}
    assert set(found(library, "revenue")) == {"0.png", "1.png"}  # what was read stays


def test_a_remembered_reader_that_is_gone_is_told_and_stops_nothing(
    library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index(media, speech="en-us")

    def gone(name: str) -> Channel:
        raise ValueError(f"{name}: no model")

    monkeypatch.setattr(reading, "words_in_speech", gone)
    tiny.picture(media / "9.png", 9)
    report = library.index(media)
    assert report.added == 1
    assert report.wordless == [(str(media), "speech: en-us: no model; --speech '' switches it off")]
    with pytest.raises(ValueError, match="no model"):
        library.index(media, speech="other")


def test_words_of_an_upload_are_read_as_in_the_folders(library: Library, media: Path, tmp_path: Path) -> None:
    def upload(name: str, seed: int, **how: Any) -> int:
        with tiny.picture(tmp_path / "up" / name, seed).open("rb") as file:
            return library.add(file, name, **how)[0].item_id

    assert library.lines(upload("0.png", 30)) == ()
    library.index(media, ocr=True)
    assert library.lines(upload("0.png", 31)) == WORDS["0.png"]
    assert library.lines(upload("0.png", 32, words=False)) == ()
    assert len([name for name in found(library, "quarterly") if name == "0.png"]) == 2


def test_a_hit_shows_the_words_and_where_they_are(library: Library, media: Path) -> None:
    library.index(media, ocr=True)
    (hit,) = (hit for hit in library.search("QUARTERLIES", k=4) if hit.keyword)
    assert hit.path == str(media / "0.png") and hit.keyword
    assert hit.lines == (WORDS["0.png"][0],)
    assert library.lines(hit.item_id) == WORDS["0.png"]
    assert found(library, "frauen") == ["0.png"]
    assert found(library, "新宿") == ["1.png"]
    assert set(found(library, "revenue")) == {"0.png", "1.png"}
    assert found(library, "revenue", where="name = '1.png'") == ["1.png"]
    assert found(library, "revenue", want=["audio"]) == []
    assert found(library, "revenue", keywords=False) == []


def test_a_name_counts_more_than_a_line(library: Library, media: Path) -> None:
    tiny.picture(media / "revenue.png", 9)
    library.index(media, ocr=True)
    best = next(iter(library._catalogue.matches("revenue", ["image"], EVERYTHING, 10)))
    assert library._catalogue.paths_of(best) == [str(media / "revenue.png")]


def test_speech_has_times_and_another_model_hears_again(library: Library, media: Path, tmp_path: Path) -> None:
    tiny.sound(media / "talk.wav", 3)
    assert library.index(media, speech="first").words == {"speech": 1}
    assert library.index(media, speech="first").words == {"speech": 0}
    assert library.index(media, speech="second").words == {"speech": 1}
    hit = library.search("three", k=1)[0]
    assert [(line.text, line.place) for line in hit.lines] == [("one two three", "1:05.0")]


def test_what_was_read_before_an_interruption_stays(
    library: Library, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def interrupted(future: Any) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(future)
        return own(future)

    own = reading._found
    monkeypatch.setattr(reading, "_found", interrupted)
    with pytest.raises(KeyboardInterrupt):
        library.index(media, ocr=True)
    monkeypatch.setattr(reading, "_found", own)
    with library._catalogue.write() as writer:
        assert writer.connection.execute("SELECT count(*) FROM texts").fetchone()[0] == 2
    assert 1 <= library.index(media, ocr=True).words["ocr"] <= 2


def test_a_file_that_changed_since_it_was_indexed_is_left_to_the_next_run(library: Library, media: Path) -> None:
    with library._catalogue.write() as writer:
        tiny.picture(media / "0.png", 11)
        report = reading.run(writer, library.folder, PICTURES, [str(media)], Limits(), False)
    assert report.words == {"ocr": 2}


def test_words_leave_with_their_content(library: Library, media: Path) -> None:
    library.index(media, ocr=True)
    (media / "0.png").unlink()
    library.index(media)
    assert found(library, "quarterly") == []
    with library._catalogue.write() as writer:
        rows = (
            writer.connection.execute("SELECT count(*) FROM texts"),
            writer.connection.execute("SELECT count(*) FROM written"),
        )
        assert [row.fetchone()[0] for row in rows] == [3, 3]
    item = library.search("costs", k=1)[0].item_id
    library.remove(item)
    assert found(library, "costs") == []


def test_a_backup_has_the_words(library: Library, media: Path, tmp_path: Path, model: BindModel) -> None:
    library.index(media, ocr=True)
    backup.backup(library.folder, tmp_path / "backup.tar")
    backup.restore(tmp_path / "backup.tar", tmp_path / "copy")
    with Library.open(tmp_path / "copy", model) as copy:
        assert found(copy, "quarterly") == ["0.png"]


def test_check_finds_and_repairs_damaged_words(library: Library, media: Path, model: BindModel) -> None:
    library.index(media, ocr=True)
    assert check.check(library.folder).findings == []
    with library._catalogue.write() as writer, writer.transaction():
        writer.connection.execute("UPDATE texts SET lines = '[]' WHERE lines LIKE '%Quarterly%'")
        writer.connection.execute("DELETE FROM written WHERE lines LIKE '%costs%'")
    with pytest.raises(DamagedError):
        library.search("quarterly")
    report = check.check(library.folder, repair=True, open_library=lambda: Library.open(library.folder, model))
    assert report.is_whole and len(report.findings) == 2
    assert check.check(library.folder).findings == []
    assert found(library, "costs") == ["1.png"]
    assert found(library, "quarterly") == []
    assert library.index(media, ocr=True).words == {"ocr": 1}
    assert found(library, "quarterly") == ["0.png"]


def test_a_library_of_the_format_before_gets_the_tables(library: Library, media: Path, model: BindModel) -> None:
    older = library.folder.with_name("older")
    library.close()
    shutil.copytree(library.folder, older)
    with Catalogue(older, model.space, model.dim, "small").write() as writer:
        statements = ["DROP TABLE texts", "DROP TABLE written"]
        for table, column in (("contents", "metadata"), ("segments", "at"), ("files", "date_source")):
            statements.append(f"ALTER TABLE {table} DROP COLUMN {column}")
        tiny.as_format_3(writer.connection)
        for statement in (*statements, "UPDATE facts SET value = 2 WHERE key = 'format'"):
            writer.connection.execute(statement)
        sign(writer.connection, "facts")
    with Library.open(older, model) as opened:
        opened.index(media, ocr=True)
        assert found(opened, "quarterly") == ["0.png"]
