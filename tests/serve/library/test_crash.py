"""Whatever happens to an indexing run, the next one ends with the library that an uninterrupted run makes."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serve.library import catalogue, indexing
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.schema import FILE
from tests.serve import tiny

ROOT = Path(__file__).parents[3]


def content(folder: Path) -> dict[tuple[str, str, float | None, float | None], bytes]:
    """(path, modality, times) -> vector, of all that is in a library. No two may be the same."""
    connection = sqlite3.connect(folder / FILE)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    rows = connection.execute(
        "SELECT f.path, s.modality, s.start_s, s.end_s, v.vector FROM files f JOIN segments s ON s.content = f.content "
        "LEFT JOIN vectors v ON v.segment = s.id"
    ).fetchall()
    counts = [connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("segments", "vectors")]
    connection.close()
    found = {row[:4]: row[4] for row in rows}
    assert len(found) == len(rows)
    assert counts == [len({*found.values()})] * 2  # nothing that no file has, nothing twice
    return found


def assert_equal(folder: Path, whole: Path) -> None:
    one, other = content(folder), content(whole)
    assert one.keys() == other.keys()
    for key, vector in one.items():
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), np.frombuffer(other[key], "<f4"), atol=1e-6)
    found = []
    for place in (folder, whole):  # and the index has the same
        hits = Library.open(place, tiny.model()).search("a dog", k=10_000, keywords=False, every_segment=True)
        found.append({(hit.path, hit.modality, hit.start_s): hit.cosine for hit in hits})
    assert found[0] == pytest.approx(found[1], abs=1e-5)
    assert len(found[0]) == len(one)


def media(folder: Path, files: int) -> Path:
    tiny.pictures(folder, files - 3)
    (folder / "note.txt").write_text("a dog")
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tiny.clip(folder / "film.mp4", 4.0)
    return folder


def run_killed(tmp_path: Path, files: int, moments: int, seed: int) -> list[int]:
    """The signals that ended the runs."""
    folder = media(tmp_path / "media", files)
    command = [sys.executable, "-m", "tests.serve.crash_child", str(folder), str(tmp_path), str(seed), str(moments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(content(tmp_path / "whole")) == files - 1 - 1 + 4  # two stretches of film and two of its sound
    for number in range(moments):
        assert_equal(tmp_path / str(number), tmp_path / "whole")
    return [int(line.split()[3]) for line in done.stdout.splitlines()]


def test_killed_at_any_moment(tmp_path: Path) -> None:
    signals = run_killed(tmp_path, files=60, moments=6, seed=1)
    # The last moments of a run depend on timing, so one of them may not be reached.
    assert signals.count(signal.SIGKILL) >= 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_25_moments_of_500_files(tmp_path: Path) -> None:
    signals = run_killed(tmp_path, files=500, moments=25, seed=2)
    assert signals.count(signal.SIGKILL) >= 22


def test_that_comparison_can_fail(tmp_path: Path) -> None:
    folder = media(tmp_path / "media", 6)
    for name in ("one", "other"):
        Library.open(tmp_path / name, tiny.model()).index(folder)
    assert_equal(tmp_path / "one", tmp_path / "other")
    with sqlite3.connect(tmp_path / "one" / FILE) as connection:
        connection.execute("DELETE FROM vectors WHERE segment = 2")
    with pytest.raises(AssertionError):
        assert_equal(tmp_path / "one", tmp_path / "other")


def test_a_disk_that_is_full_at_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "COMMIT_FILES", 8)
    folder = media(tmp_path / "media", 60)
    model = tiny.model()
    Library.open(tmp_path / "whole", model).index(folder)
    connect = catalogue.connect
    with connect(tmp_path / "whole" / FILE) as connection:
        [[last]] = connection.execute("PRAGMA page_count").fetchall()
    Library.open(tmp_path / "empty", model).close()
    with connect(tmp_path / "empty" / FILE) as connection:
        [[first]] = connection.execute("PRAGMA page_count").fetchall()
    rng = random.Random(3)
    for number, pages in enumerate(sorted(rng.sample(range(first, last), 6))):

        def full(file: Path, pages: int = pages) -> sqlite3.Connection:
            connection = connect(file)
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

        library = Library.open(tmp_path / str(number), model)
        monkeypatch.setattr(catalogue, "connect", full)
        with pytest.raises(LibraryError, match=r"disk is full.*Free some space"):
            library.index(folder)
        monkeypatch.setattr(catalogue, "connect", connect)
        stored = len(library)  # what was committed can be found
        assert len(library.search("a dog", k=100, keywords=False)) == stored
        report = library.index(folder)
        assert report.unchanged == stored
        assert_equal(tmp_path / str(number), tmp_path / "whole")
