from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve import where
from serve.catalogue import (
    FILE,
    LOCK,
    Catalogue,
    ContentKey,
    LibraryError,
    NewFile,
    NewSegment,
    Writer,
    words_of,
)
from serve.where import WhereError


def vector(seed: int, dim: int = 4) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(dim)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def put(writer: Writer, path: str, seed: int, modality: str = "image", **columns: str) -> int:
    key = ContentKey(f"{modality}{seed}".encode(), modality, "{}")
    with writer.transaction():
        content = writer.put_content(key, [modality], [NewSegment(modality, 0.0, float(seed), vector(seed))], [])
        writer.put_file(NewFile(path, path.rsplit("/", 1)[0].strip("/"), (10 * seed, seed, ""), content, **columns))
    return content


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    made = Catalogue(tmp_path / "library", "space", 4, "model")
    with made.write() as writer:
        put(writer, "/trip/cat.jpg", 1, metadata='{"camera": "x100", "place": {"city": "Rome"}, "flash": true}')
        put(writer, "/trip/dog_2024.jpg", 2, caption="a dog on a beach", date="2024-05-01T00:00:00Z")
        put(writer, "/home/beachSunset.mp4", 40, "video", date="2023-01-01T00:00:00Z")
    return made


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("folder = 'trip'", {"cat.jpg", "dog_2024.jpg"}),
        ("folder = 'trip' and duration_s < 2", {"cat.jpg"}),
        ("folder != 'trip' or name like '%dog%'", {"dog_2024.jpg", "beachSunset.mp4"}),
        ("not (folder = 'trip')", {"beachSunset.mp4"}),
        ("NOT folder = \"trip\" AND modality IN ('video', 'audio')", {"beachSunset.mp4"}),
        ("modality not in ('video')", {"cat.jpg", "dog_2024.jpg"}),
        ("name not like '%.jpg'", {"beachSunset.mp4"}),
        ("size_bytes >= 2e1 and size_bytes <> 20", {"beachSunset.mp4"}),
        ("date > '2024' ", {"dog_2024.jpg"}),
        ("camera = 'x100'", {"cat.jpg"}),
        ("place.city = 'Rome' and flash = true", {"cat.jpg"}),
        ("camera is null", {"dog_2024.jpg", "beachSunset.mp4"}),
        ("camera is not null", {"cat.jpg"}),
        ("end_s > 39.5 and start_s == 0", {"beachSunset.mp4"}),
        ("path = '/trip/cat.jpg' or path = '/trip/it''s.jpg'", {"cat.jpg"}),
        ("folder = 'trip' or folder = 'home' and camera = 'none'", {"cat.jpg", "dog_2024.jpg"}),
    ],
)
def test_filters(catalogue: Catalogue, condition: str, expected: set[str]) -> None:
    parsed = where.parse(condition)
    ids = [number for numbers in catalogue.passing(parsed).values() for number in numbers]
    assert {Path(entry.path).name for entry in catalogue.entries(ids).values()} == expected


@pytest.mark.parametrize(
    ("condition", "position"),
    [
        ("folder = trip", 9),
        ("folder", 6),
        ("folder = 'trip", 9),
        ("folder = 'trip' duration_s < 3", 16),
        ("duration_s <", 12),
        ("(folder = 'a'", 13),
        ("folder = 'a')", 12),
        ("folder like 3", 12),
        ("folder in ()", 11),
        ("folder = 'a'; drop table files", 12),
        ("1 = 1", 0),
        ("folder = 'a' -- and so on", 13),
        ("folder = 'a' or (select 1)", 24),
        ("", 0),
        ("duration_s < 30s", 13),
        ("not " * 60 + "folder = 'a'", 200),
        ("folder in (" + "1," * 600 + "1)", 1011),
        ("'a' = 'a'", 0),
        ("folder is 3", 10),
    ],
)
def test_errors_point_at_the_character(condition: str, position: int) -> None:
    with pytest.raises(WhereError) as caught:
        where.parse(condition)
    assert caught.value.position == position
    message = str(caught.value).splitlines()
    assert message[-1].index("^") == position + 2


@pytest.mark.parametrize(
    "value",
    ["'; DROP TABLE files; --", "' OR 1=1 --", "x' UNION SELECT * FROM facts --", "%", "\x00", "\"'", "?1", ":a"],
)
def test_a_value_is_only_a_value(catalogue: Catalogue, value: str) -> None:
    for name in ("folder", "camera"):
        parsed = where.parse(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'")
        assert value not in parsed.sql
        assert catalogue.passing(parsed) == {}
    assert catalogue.count_files() == 3


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("empty") / "library", "space", 4, "model")


@given(condition=st.text(max_size=40) | st.text("folder()'\" =<>!andornotlikein,.;-%_0123", max_size=60))
def test_any_text_is_either_a_filter_that_runs_or_a_filter_error(empty: Catalogue, condition: str) -> None:
    position = 0
    try:
        empty.passing(where.parse(condition))
    except WhereError as error:
        position = error.position
    assert 0 <= position <= len(condition)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("IMG_beachSunset2.jpg", ["IMG", "beach", "Sunset", "2", "jpg"]),
        ("a-red.car", ["a", "red", "car"]),
        ("größeÜber", ["größe", "Über"]),
        ("", []),
    ],
)
def test_names_are_cut_into_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_keywords_look_into_names_captions_and_metadata(catalogue: Catalogue) -> None:
    def found(text: str, modalities: tuple[str, ...] = ("image", "video"), condition: str | None = None) -> list[str]:
        parsed = where.parse(condition) if condition else where.parse("size_bytes >= 0")
        contents = catalogue.keyword_contents(text, modalities, parsed, 10)
        return [Path(catalogue.paths_of(content)[0]).name for content in contents]

    assert set(found("a beach")) == {"dog_2024.jpg", "beachSunset.mp4"}
    assert found("sunsets") == ["beachSunset.mp4"]  # a stem
    assert found("rome") == ["cat.jpg"]
    assert found("beach", ("image",)) == ["dog_2024.jpg"]
    assert found("beach", condition="folder = 'home'") == ["beachSunset.mp4"]
    assert found("the of a") == found('" OR name:*') == found("*") == []


def test_revisions_tell_what_came_and_went(catalogue: Catalogue) -> None:
    before = catalogue.revision
    assert sum(len(ids) for _, ids, _ in catalogue.added_since(0)) == 3
    with catalogue.write() as writer:
        put(writer, "/trip/new.jpg", 7)
        with writer.transaction():
            gone = [number for number, path, _ in writer.files_below("/trip") if path.endswith("cat.jpg")]
            writer.remove_files(gone)
            writer.drop_orphans()
    [(modality, ids, vectors)] = list(catalogue.added_since(before))
    assert (modality, len(ids)) == ("image", 1)
    assert np.array_equal(vectors[0], vector(7))
    assert catalogue.removed_since(before).tolist() == [1]
    assert catalogue.removed_since(catalogue.revision).tolist() == []
    assert catalogue.contents_of([1]) == {}
    assert catalogue.vectors([1])[0].tolist() == []


def test_a_transaction_is_all_or_nothing(catalogue: Catalogue) -> None:
    before = (catalogue.revision, catalogue.count(), catalogue.count_files())

    def interrupted(writer: Writer) -> None:
        with writer.transaction():
            key = ContentKey(b"x", "image", "{}")
            writer.put_content(key, ["image"], [NewSegment("image", None, None, vector(9))], [])
            raise ZeroDivisionError

    with catalogue.write() as writer, pytest.raises(ZeroDivisionError):
        interrupted(writer)
    assert (catalogue.revision, catalogue.count(), catalogue.count_files()) == before


def test_a_second_writer_is_refused_and_a_dead_one_forgotten(catalogue: Catalogue) -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; file = open(sys.argv[1], 'r+'); fcntl.flock(file, fcntl.LOCK_EX);"
            "print('locked', flush=True); sys.stdin.read()",
            str(catalogue.folder / LOCK),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline() == b"locked\n"
    with pytest.raises(LibraryError, match="another process is writing"), catalogue.write():
        pass
    assert catalogue.count_files() == 3  # reading goes on
    child.kill()
    child.communicate()
    with catalogue.write(), pytest.raises(LibraryError, match="another process"), catalogue.write():
        pass


def test_what_is_no_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(LibraryError, match=r"no library and not empty \(it has photo.jpg\)"):
        Catalogue(tmp_path, "space", 4, "model")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / FILE).write_bytes(b"no database at all" * 300)
    with pytest.raises(LibraryError, match="not a database"):
        Catalogue(broken, "space", 4, "model")


def test_an_empty_file_is_a_catalogue_whose_making_was_interrupted(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()
    assert Catalogue(tmp_path, "space", 4, "model").facts["space"] == "space"


def test_a_newer_format_is_refused(catalogue: Catalogue) -> None:
    with sqlite3.connect(catalogue.folder / FILE) as connection:
        connection.execute("UPDATE facts SET value = 99 WHERE key = 'format'")
    with pytest.raises(LibraryError, match="expected format 2, got 99; update"):
        Catalogue(catalogue.folder, "space", 4, "model")
