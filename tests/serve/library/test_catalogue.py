from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.library import where
from serve.library.catalogue import Catalogue
from serve.library.connections import connect
from serve.library.errors import DamagedError, LibraryError
from serve.library.records import ContentKey, NewFile, NewSegment
from serve.library.schema import COMMITTED, FILE, FORMAT, LOCK
from serve.library.text import words_of
from serve.library.where import WhereError
from serve.library.writer import Writer


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
        contents = catalogue.matches(text, modalities, parsed, 10)
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


@pytest.mark.attack
@pytest.mark.parametrize("log", ["", "-wal"])
def test_an_emptied_catalogue_is_not_taken_for_a_new_one(catalogue: Catalogue, log: str) -> None:
    catalogue.close()
    (catalogue.folder / FILE).write_bytes(b"")
    if log:
        (catalogue.folder / f"{FILE}{log}").write_bytes(b"x" * 100)
    for read in (lambda: Catalogue(catalogue.folder, "space", 4, "model"), lambda: Catalogue.peek(catalogue.folder)):
        with pytest.raises(DamagedError, match=r"empty \(0 bytes\).*restore a backup or index into a new library"):
            read()
    assert (catalogue.folder / FILE).read_bytes() == b""


@pytest.mark.attack
def test_a_lost_catalogue_is_not_made_anew(catalogue: Catalogue) -> None:
    catalogue.close()
    (catalogue.folder / FILE).unlink()
    with pytest.raises(DamagedError, match="missing, though something was committed"):
        Catalogue(catalogue.folder, "space", 4, "model")


@pytest.mark.attack
def test_another_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("CREATE TABLE bookmarks (title)")
    with pytest.raises(LibraryError, match="is an SQLite database, but no catalogue"):
        Catalogue(tmp_path, "space", 4, "model")


@pytest.mark.attack
@pytest.mark.parametrize("key", ["format", "space", "dim", "model", "revision"])
def test_missing_and_changed_facts_are_named(catalogue: Catalogue, key: str) -> None:
    with connect(catalogue.folder / FILE) as connection:
        kept = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()[0]
        other = kept + 1 if isinstance(kept, int) and key != "format" else kept if key == "format" else "other"
        connection.execute("UPDATE facts SET value = ?, checksum = checksum WHERE key = ?", (other, key))
        if key == "format":
            connection.execute("UPDATE facts SET checksum = 0 WHERE key = ?", (key,))
    with pytest.raises(DamagedError, match=f"its fact '{key}' does not match its checksum"):
        Catalogue(catalogue.folder, "space", 4, "model")
    with connect(catalogue.folder / FILE) as connection:
        connection.execute("DELETE FROM facts WHERE key = ?", (key,))
    with pytest.raises(DamagedError, match=f"its fact '{key}' is None"):
        Catalogue(catalogue.folder, "space", 4, "model")


@pytest.mark.attack
def test_an_older_copy_and_a_lost_log_are_told(catalogue: Catalogue, tmp_path: Path) -> None:
    shutil.copy(catalogue.folder / FILE, tmp_path / "older")
    held = connect(catalogue.folder / FILE)  # a reader: what is written stays in the log
    held.execute("BEGIN")
    held.execute("SELECT * FROM files").fetchall()
    with catalogue.write() as writer:
        put(writer, "/trip/new.jpg", 7)
    assert (catalogue.folder / f"{FILE}-wal").stat().st_size > 0
    lost = tmp_path / "lost"
    lost.mkdir()
    for name in (FILE, COMMITTED):
        shutil.copy(catalogue.folder / name, lost / name)  # as without -wal
    held.close()
    with pytest.raises(DamagedError, match=r"holds revision 3, but 4 was committed: catalogue.sqlite-wal is lost"):
        Catalogue(lost, "space", 4, "model")
    catalogue.close()
    shutil.copy(tmp_path / "older", catalogue.folder / FILE)
    with pytest.raises(DamagedError, match="an older copy is in its place"):
        Catalogue(catalogue.folder, "space", 4, "model")
    Catalogue(tmp_path / "another", "space", 4, "model").close()
    shutil.copy(tmp_path / "another" / FILE, catalogue.folder / FILE)
    with pytest.raises(DamagedError, match="the catalogue of another library"):
        Catalogue(catalogue.folder, "space", 4, "model")


@pytest.mark.attack
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("UPDATE vectors SET vector = zeroblob(16) WHERE segment = 1", "vector 1 does"),
        ("UPDATE files SET path = CAST('/trip/cat.jpG' AS BLOB) WHERE id = 1", "segment, or the file it is of, 1"),
        ("UPDATE files SET metadata = '{' WHERE id = 1", "segment, or the file it is of, 1"),
        ("UPDATE segments SET end_s = 2 WHERE id = 1", "segment, or the file it is of, 1"),
        ("UPDATE contents SET modality = 'audio' WHERE id = 1", "segment, or the file it is of, 1"),
    ],
)
def test_no_changed_value_is_passed_on(catalogue: Catalogue, change: str, what: str) -> None:
    assert len(catalogue.vectors([1, 2, 3])[0]) == len(catalogue.entries([1, 2, 3])) == 3
    with connect(catalogue.folder / FILE) as connection:
        connection.execute(change)
    with pytest.raises(DamagedError, match=what):
        (catalogue.vectors if "vectors" in change else catalogue.entries)([1, 2, 3])
    assert len(catalogue.vectors([2, 3])[0]) == len(catalogue.entries([2, 3])) == 2  # the others go on


def test_a_library_of_format_1_is_brought_up(tmp_path: Path) -> None:
    folder = tmp_path / "old"
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(FORMAT_1)
    folder.mkdir()
    (tmp_path / FILE).rename(folder / FILE)
    assert Catalogue.peek(folder)["space"] == "space"
    for _ in range(2):
        opened = Catalogue(folder, "space", 4, "model")
        assert opened.facts["format"] == FORMAT
        assert opened.entries([1])[1].path == "/trip/cat.jpg"
        np.testing.assert_array_equal(opened.vectors([1])[1], [[1, 0, 0, 0]])
        assert opened.removed_since(0).tolist() == [7]
        with opened.write() as writer:
            put(writer, "/trip/dog.jpg", 2)
        opened.close()
    with sqlite3.connect(folder / FILE) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_newer_format_is_refused(catalogue: Catalogue) -> None:
    with sqlite3.connect(catalogue.folder / FILE) as connection:
        connection.execute("UPDATE facts SET value = 99 WHERE key = 'format'")
    with pytest.raises(LibraryError, match=f"expected format {FORMAT}, got 99; update"):
        Catalogue(catalogue.folder, "space", 4, "model")


FORMAT_1 = """
PRAGMA journal_mode = WAL;
CREATE TABLE facts (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE contents (
    id INTEGER PRIMARY KEY, digest BLOB NOT NULL, modality TEXT NOT NULL, hints TEXT NOT NULL,
    parts TEXT NOT NULL, duration_s REAL, notes TEXT NOT NULL, UNIQUE (digest, modality, hints)
);
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT, content INTEGER NOT NULL REFERENCES contents, modality TEXT NOT NULL,
    start_s REAL, end_s REAL, born INTEGER NOT NULL
);
CREATE INDEX segments_by_content ON segments (content);
CREATE INDEX segments_by_modality ON segments (modality);
CREATE INDEX segments_by_revision ON segments (born);
CREATE TABLE vectors (segment INTEGER PRIMARY KEY REFERENCES segments, vector BLOB NOT NULL);
CREATE TABLE removed (segment INTEGER PRIMARY KEY, revision INTEGER NOT NULL);
CREATE TABLE files (
    id INTEGER PRIMARY KEY, path BLOB NOT NULL UNIQUE, content INTEGER REFERENCES contents,
    size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sidecar TEXT NOT NULL,
    shown TEXT NOT NULL, name TEXT NOT NULL, folder TEXT NOT NULL, date TEXT NOT NULL, caption TEXT NOT NULL,
    metadata TEXT NOT NULL, reason TEXT, reader TEXT
);
CREATE INDEX files_by_content ON files (content);
CREATE VIRTUAL TABLE words USING fts5 (name, caption, metadata, tokenize = 'porter unicode61 remove_diacritics 2');
INSERT INTO facts VALUES ('format', 1), ('space', 'space'), ('dim', 4), ('model', 'model'), ('revision', 2);
INSERT INTO contents VALUES (1, x'00', 'image', '{}', 'image', NULL, '[]');
INSERT INTO segments VALUES (1, 1, 'image', NULL, NULL, 1);
INSERT INTO vectors VALUES (1, x'0000803f000000000000000000000000');
INSERT INTO removed VALUES (7, 2);
INSERT INTO files VALUES (1, CAST('/trip/cat.jpg' AS BLOB), 1, 10, 5, '', '/trip/cat.jpg', 'cat.jpg', 'trip', '', '',
    '{}', NULL, NULL);
INSERT INTO words (rowid, name, caption, metadata) VALUES (1, 'cat jpg', '', '');
"""
"""What `Catalogue` wrote before its rows had checksums."""
