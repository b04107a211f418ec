"""A library gets another model while it is used."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bind.model.model import BindModel
from serve.engine import thumbnails
from serve.library import check, model_change
from serve.library.backup import restore
from serve.library.errors import LibraryError, MigratedError, WriterBusyError
from serve.library.library import Library
from serve.library.model_check import OtherModelError
from tests.serve import tiny
from tests.serve.library.test_crash import content, media
from tests.serve.migrate_child import new_model

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def old() -> BindModel:
    return tiny.model()


@pytest.fixture(scope="module")
def new() -> BindModel:
    return new_model()


def fill(folder: Path, model: BindModel, files: Path) -> Path:
    """A library over a folder of files, with one upload."""
    with Library.open(folder, model) as library:
        library.index(files)
        picture = tiny.picture(files.parent / "upload.png", 999).read_bytes()
        library.add(io.BytesIO(picture), "upload.png", {"caption": "kept"})
    return folder


def assert_same(folder: Path, whole: Path) -> None:
    one, other = content(folder), content(whole)
    assert one.keys() == other.keys()
    for key, vector in one.items():
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), np.frombuffer(other[key], "<f4"), atol=1e-6)


def test_a_migrated_library_is_a_fresh_one_and_items_keep_their_ids(
    tmp_path: Path, old: BindModel, new: BindModel
) -> None:
    files = media(tmp_path / "media", 12)
    folder = fill(tmp_path / "library", old, files)
    with Library.open(folder, old) as library:
        before = {hit.path: hit.item_id for hit in library.search("a dog", k=100, want=["image"], keywords=False)}
        upload = next(number for path, number in before.items() if path.endswith("upload.png"))
        picture = thumbnails.make(library, [library.item(upload)])[upload]
    calls: list[tuple[int, int]] = []
    report = Library.migrate(folder, new, progress=lambda done, total: calls.append((done, total)))
    assert (report.model, report.files, report.dropped) == (new.origin, len(before) + 2, [])
    assert calls[-1] == (report.embedded, report.embedded) == (len(before) + 2,) * 2
    assert not (folder / model_change.FOLDER).exists()
    assert_same(folder, fill(tmp_path / "fresh", new, files))
    assert check.check(folder).is_whole
    with pytest.raises(OtherModelError):
        Library.open(folder, old)
    with Library.open(folder, new) as library:
        after = {hit.path: hit.item_id for hit in library.search("a dog", k=100, want=["image"], keywords=False)}
        assert after == before
        assert picture.exists() and library.item(upload).metadata["caption"] == "kept"
        assert library.index(files).unchanged == len(before) + 1
        assert library.search("kept")[0].path.endswith("upload.png")
    assert Library.migrate(folder, new).embedded == 0  # nothing is left to do


def test_whoever_has_it_open_goes_on_searching(tmp_path: Path, old: BindModel, new: BindModel) -> None:
    files = media(tmp_path / "media", 8)
    folder = fill(tmp_path / "library", old, files)
    with Library.open(folder, old) as library:

        def answers() -> list[list[tuple[int, float]]]:
            item = library.search("a dog", k=1, want=["image"], keywords=False)[0].item_id
            found = [
                library.search("a dog", k=100, want=["image"], keywords=False),
                library.search("upload", k=3, want=["image"]),
                library.search("a dog", k=3, want=["image"], where="name like '%.bmp'", keywords=False),
                library.similar(item, k=3, want=["image"]),
            ]
            return [[(hit.item_id, round(hit.cosine, 5)) for hit in hits] for hits in found]

        before = answers()
        Library.migrate(folder, new)
        assert answers() == before
        with pytest.raises(MigratedError, match=r"migrated to the model .*open it again"):
            library.index(files)
        with pytest.raises(MigratedError):
            library.add(io.BytesIO(tiny.picture(tmp_path / "x.png", 5).read_bytes()), "x.png")
        assert answers() == before
    with Library.open(folder, new) as library:
        assert library.model.space == new.space


def test_what_comes_to_the_library_meanwhile_is_migrated_too(
    tmp_path: Path, old: BindModel, new: BindModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = media(tmp_path / "media", 6)
    folder = fill(tmp_path / "library", old, files)
    finish = model_change._finish

    def late(*arguments: object) -> object:
        tiny.picture(files / "late.png", 77)
        with Library.open(folder, old) as library:
            assert library.index(files).added == 1
            with pytest.raises(WriterBusyError, match="another migration is running"):
                Library.migrate(folder, tiny.model(2))
        return finish(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(model_change, "_finish", late)
    Library.migrate(folder, new)
    assert_same(folder, fill(tmp_path / "fresh", new, files))


def test_a_file_that_is_gone_stops_the_switch_and_costs_no_work(tmp_path: Path, old: BindModel, new: BindModel) -> None:
    files = media(tmp_path / "media", 6)
    folder = fill(tmp_path / "library", old, files)
    gone = next(files.rglob("*.bmp"))
    gone.unlink()
    with pytest.raises(LibraryError, match=r"1 files of .*The library is as it was"):
        Library.migrate(folder, new)
    with Library.open(folder, old) as library:
        assert str(gone) in {hit.path for hit in library.search("a dog", k=100, keywords=False)}
    report = Library.migrate(folder, new, keep=tmp_path / "old.tar", allow_removal=True)
    assert report.embedded == 0  # the first run did it
    assert [path for path, _ in report.dropped] == [str(gone)]
    with Library.open(folder, new) as library:
        assert str(gone) in dict(library.skipped())
        assert len(library) == report.files
    restore(tmp_path / "old.tar", tmp_path / "restored")
    with Library.open(tmp_path / "restored", old) as library:
        assert len(library) == report.files + 1


def test_a_modality_that_the_new_model_lacks_is_said(tmp_path: Path, old: BindModel) -> None:
    files = media(tmp_path / "media", 6)
    folder = fill(tmp_path / "library", old, files)
    pictures = tiny.model(3, preprocess={"image": tiny.PREPROCESS["image"], "text": tiny.PREPROCESS["text"]})
    with pytest.raises(LibraryError, match=r"film\.mp4: .*video"):
        Library.migrate(folder, pictures)
    # another choice starts anew, and what was embedded for the first model is deleted
    assert Library.migrate(folder, tiny.model(2)).dropped == []
    with pytest.raises(LibraryError, match="there is no library"):
        Library.migrate(tmp_path / "nothing", pictures)
    with pytest.raises(LibraryError, match="expected the name of a new file"):
        Library.migrate(folder, pictures, keep=tmp_path)


def run_killed(tmp_path: Path, old: BindModel, new: BindModel, files: int, moments: int, seed: int) -> list[int]:
    """Kills migrations of libraries that are searched all the time -> the signals."""
    folder = media(tmp_path / "media", files)
    fill(tmp_path / "before", old, folder)
    fill(tmp_path / "after", new, folder)
    names = ["counted", *map(str, range(moments))]
    for name in names:
        shutil.copytree(tmp_path / "before", tmp_path / name)
    opened = [Library.open(tmp_path / name, old) for name in names]
    expected = [hit.path.rpartition("/")[2] for hit in opened[0].search("a dog", want=["image"], keywords=False)]
    command = [sys.executable, "-m", "tests.serve.migrate_child", str(tmp_path), str(seed), str(moments)]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    answered = 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            out, errors = child.communicate(timeout=0.2)
            break
        for library in opened:  # no query is without its answer
            hits = library.search("a dog", want=["image"], keywords=False)
            assert [hit.path.rpartition("/")[2] for hit in hits] == expected
            answered += 1
    assert child.returncode == 0, errors[-3000:]
    assert answered >= 2 * len(opened)
    rows = [[int(value) for value in line.split()] for line in out.splitlines()]
    assert {was_new for _, was_new in rows} == {0, 1} or moments < 10
    return [killed for killed, _ in rows]


def test_killed_at_any_moment(tmp_path: Path, old: BindModel, new: BindModel) -> None:
    assert run_killed(tmp_path, old, new, files=12, moments=6, seed=1).count(signal.SIGKILL) >= 5


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_25_moments(tmp_path: Path, old: BindModel, new: BindModel) -> None:
    assert run_killed(tmp_path, old, new, files=150, moments=25, seed=2).count(signal.SIGKILL) >= 22
