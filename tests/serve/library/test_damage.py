"""A byte of a library is changed, anywhere: what is found stays the same, or the damage is named or repaired."""

from __future__ import annotations

import io
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bind.model.model import BindModel
from serve.engine import thumbnails
from serve.library import catalogue, check, live_index
from serve.library.connections import connect
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.schema import FILE, LOCK
from tests.serve import tiny

pytestmark = pytest.mark.attack
Answers = list[Any]
QUERIES: list[dict[str, Any]] = [
    {"query": "a dog", "k": 100, "every_segment": True, "keywords": False},
    {"query": "beach holiday", "k": 5},
    {"query": "a dog", "k": 100, "where": "folder = '000' and size_bytes > 10"},
    {"query": "red", "k": 3, "want": ["audio", "video"]},
]


@pytest.fixture(scope="module")
def made(model: BindModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library as `kill -9` leaves it: with an index, uploads, thumbnails, removals, and commits in its log alone."""
    place = tmp_path_factory.mktemp("damage")
    media = place / "media"
    tiny.pictures(media, 24)
    (media / "000" / "00003.bmp.json").write_text('{"caption": "a beach", "camera": "x100"}')
    (media / "note.txt").write_text("a dog")
    tiny.clip(media / "film.mp4", 4.0)
    with Library.open(place / "live", model, factory="HNSW8") as opened:
        opened.index(media)
        for number in range(3):
            picture = io.BytesIO(tiny.picture(place / "upload.png", 1000 + number).read_bytes())
            opened.add(picture, f"holiday {number}.png", {"caption": f"holiday {number}", "place": {"city": "Rome"}})
        (media / "000" / "00005.bmp").unlink()
        opened.index(media)
        held = connect(place / "live" / FILE)  # a reader, for whom the log is kept
        held.execute("BEGIN")
        held.execute("SELECT count(*) FROM files").fetchone()
        tiny.picture(media / "000" / "late.bmp", 77)
        (media / "000" / "00004.bmp").unlink()
        opened.index(media)
        thumbnails.make(opened, opened.search("a dog", k=6))
        shutil.copytree(place / "live", place / "library")
        held.close()
    assert (place / "library" / f"{FILE}-wal").stat().st_size > 10_000
    shutil.rmtree(place / "live")
    return place / "library"


def answers(folder: Path, model: BindModel) -> Answers:
    """All that a user sees: hits with their times, metadata and cosines, and every item's vector."""
    found: Answers = []
    with Library.open(folder, model) as opened:
        found.append(sorted(opened.count().items()))
        found.append(len(opened))
        for query in QUERIES:
            for hit in opened.search(**query):
                path = hit.path.removeprefix(str(folder))
                found.append((path, hit.modality, hit.start_s, hit.end_s, str(hit.metadata), round(hit.cosine, 5)))
    return found


def regular_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != LOCK)


def flip(folder: Path, rng: random.Random) -> str:
    """Changes one byte of one file -> where."""
    file = rng.choice([file for file in regular_files(folder) if file.stat().st_size])
    with open(file, "r+b") as out:
        place = rng.randrange(file.stat().st_size)
        out.seek(place)
        old = out.read(1)[0]
        out.seek(place)
        out.write(bytes([old ^ rng.randrange(1, 256)]))
    return f"{file.relative_to(folder)}:{place}"


@dataclass(frozen=True)
class Whole:
    """A library at its place, where damage is done (paths are part of what is found), a copy, and what is found."""

    place: Path
    original: Path
    answers: Answers
    model: BindModel

    def put(self, copy: Path) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(copy, self.place)

    def open(self) -> Library:
        return Library.open(self.place, self.model)


@pytest.fixture
def whole(made: Path, model: BindModel, tmp_path: Path) -> Iterator[Whole]:
    shutil.copytree(made, tmp_path / "original")
    found = Whole(made, tmp_path / "original", answers(made, model), model)
    assert check.check(made).findings == []
    found.put(found.original)
    yield found
    found.put(found.original)


def suffer(whole: Whole, scratch: Path, seed: int) -> str:
    """One damage -> harmless, named or repaired. Fails where it was silent, or ended in something odd."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(whole.original, scratch)
    where = f"seed {seed}, {flip(scratch, random.Random(seed))}"
    whole.put(scratch)
    try:
        same = answers(whole.place, whole.model) == whole.answers
        refused = False
    except ValueError:  # what a person is told, without a traceback
        same, refused = False, True
    whole.put(scratch)
    report = check.check(whole.place)
    if not report.findings:
        assert same, f"{where}: {'refused, and not found by the check' if refused else 'silently other results'}"
        return "harmless"
    whole.put(scratch)
    repaired = check.check(whole.place, repair=True, open_library=whole.open)
    assert repaired.findings, f"{where}: named only without --repair: {report}"
    lost = [finding for finding in repaired.findings if not finding.repaired or "accepted" in finding.action]
    if lost:
        return f"named: {where.split()[2].split(':')[0].split('/')[0]}"
    assert check.check(whole.place).findings == [], f"{where}: {repaired}"
    assert answers(whole.place, whole.model) == whole.answers, f"{where}: {repaired}"
    return "repaired"


def outcomes(whole: Whole, tmp_path: Path, seeds: range) -> Counter[str]:
    found = Counter(suffer(whole, tmp_path / "scratch", seed) for seed in seeds)
    print(dict(found))
    return found


def test_30_damaged_bytes(whole: Whole, tmp_path: Path) -> None:
    assert outcomes(whole, tmp_path, range(30))["repaired"] >= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_300_damaged_bytes(whole: Whole, tmp_path: Path) -> None:
    assert outcomes(whole, tmp_path, range(1000, 1300))["repaired"] >= 100


def test_damaged_vectors_of_an_index_are_not_searched(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = max(whole.place.rglob("*.vectors"), key=lambda file: file.stat().st_size)
    content = bytearray(vectors.read_bytes())
    content[3] ^= 0x80  # the sign of a number
    vectors.write_bytes(content)
    assert answers(whole.place, whole.model) == whole.answers
    monkeypatch.setattr(live_index, "VERIFY_BYTES", -1)  # without the guard: silently other results
    assert answers(whole.place, whole.model) != whole.answers
    report = check.check(whole.place)
    assert [finding.part.split("/")[0] for finding in report.findings] == ["index"]
    assert check.check(whole.place, repair=True, open_library=whole.open).is_whole
    assert answers(whole.place, whole.model) == whole.answers


@pytest.mark.parametrize("guarded", [True, False])
def test_a_damaged_vector_is_not_searched(whole: Whole, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    shutil.rmtree(whole.place / "index")
    with connect(whole.place / FILE) as connection:
        (vector,) = connection.execute("SELECT vector FROM vectors WHERE segment = 2").fetchone()
        changed = (-np.frombuffer(vector, "<f4")).tobytes()
        connection.execute("UPDATE vectors SET vector = ? WHERE segment = 2", (changed,))
    connection.close()
    if not guarded:
        monkeypatch.setattr(catalogue.Catalogue, "_check", lambda *_: None)
        assert answers(whole.place, whole.model) != whole.answers
        return
    with pytest.raises(LibraryError, match=r"vector 2 does not match its checksum.*; `crossbind check .* --repair`"):
        answers(whole.place, whole.model)
    report = check.check(whole.place, repair=True, open_library=whole.open)
    assert report.is_whole and report.findings[0].action == "read again from its file"
    assert answers(whole.place, whole.model) == whole.answers


def test_a_damaged_vector_whose_file_is_gone_is_named(whole: Whole, tmp_path: Path) -> None:
    with connect(whole.place / FILE) as connection:
        (number,) = connection.execute(
            "SELECT s.id FROM segments s JOIN files f ON f.content = s.content WHERE f.name = '00001.bmp'"
        ).fetchone()
        connection.execute("UPDATE vectors SET vector = zeroblob(128) WHERE segment = ?", (number,))
    connection.close()
    gone = Path(whole.place.parent / "media" / "000" / "00001.bmp")
    kept = gone.rename(tmp_path / "kept.bmp")
    try:
        report = check.check(whole.place, repair=True, open_library=whole.open)
        assert not report.is_whole and "00001.bmp" in report.findings[0].what
        assert "the file is gone" in report.findings[0].action
        assert check.check(whole.place).is_whole
        with whole.open() as opened:
            assert len(opened) == whole.answers[1] - 1
    finally:
        kept.rename(gone)


def test_lost_commits_are_named_and_accepted_by_a_repair(whole: Whole) -> None:
    (whole.place / f"{FILE}-wal").unlink()
    with pytest.raises(LibraryError, match="holds revision"):
        whole.open()
    assert "was committed" in check.check(whole.place).findings[0].what
    check.check(whole.place, repair=True, open_library=whole.open)
    assert check.check(whole.place).findings == []
    with whole.open() as opened:
        opened.index(whole.place.parent / "media")  # what was lost is indexed again
        found = {hit.path.removeprefix(str(whole.place)) for hit in opened.search(**QUERIES[0])}
    assert found == {hit[0] for hit in whole.answers[2:]}


@pytest.mark.parametrize("changed", ["holiday 1.png", "holiday 1.png.json"])
def test_damaged_uploads_are_named_and_their_sidecars_repaired(whole: Whole, changed: str) -> None:
    file = next(whole.place.rglob(changed))
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    report = check.check(whole.place, repair=True, open_library=whole.open)
    assert [finding.part for finding in report.findings] == [f"files/{file.parent.name}"]
    assert report.is_whole == changed.endswith(".json")
    assert check.check(whole.place).is_whole == report.is_whole
    assert answers(whole.place, whole.model) == whole.answers


def test_emptied_and_unreadable_catalogues_are_findings(whole: Whole) -> None:
    for content in (b"", b"x" * 10_000):
        (whole.place / FILE).write_bytes(content)
        for repair in (False, True):
            report = check.check(whole.place, repair)
            assert [(finding.part, finding.repaired) for finding in report.findings] == [(FILE, False)]
    (whole.place / FILE).unlink()
    assert check.check(whole.place).findings
    with pytest.raises(FileNotFoundError):
        check.check(whole.place.parent)
