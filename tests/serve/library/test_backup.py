"""A library in one file, copied while it is used, and made again from it."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from bind.model.model import BindModel
from serve.library import backup as backups
from serve.library import check
from serve.library.backup import backup, restore
from serve.library.errors import LibraryError
from serve.library.library import Library
from serve.library.schema import FILE
from tests.serve import tiny


@pytest.fixture
def folder(tmp_path: Path, model: BindModel) -> Path:
    tiny.pictures(tmp_path / "media", 5)
    with Library.open(tmp_path / "library", model) as opened:
        opened.index(tmp_path / "media")
        add(opened, 0)
    return tmp_path / "library"


def add(library: Library, number: int) -> int:
    picture = tiny.picture(library.folder.parent / "upload" / "x.png", 1000 + number).read_bytes()
    return library.add(io.BytesIO(picture), f"upload {number}.png", {"caption": f"number {number}"})[0].item_id


def found(folder: Path, model: BindModel) -> set[tuple[str, str]]:
    with Library.open(folder, model) as opened:
        hits = opened.search("a dog", k=1000, keywords=False)
        for hit in hits:
            assert opened.original(hit.item_id).is_file()
        return {(Path(hit.path).name, str(hit.metadata)) for hit in hits}


def test_a_backup_makes_the_library_again(folder: Path, model: BindModel, tmp_path: Path) -> None:
    expected = found(folder, model)
    report = backup(folder, tmp_path / "copy.tar")
    assert (report.files, report.kept) == (6, 1)
    with pytest.raises(LibraryError, match="is there already"):
        restore(tmp_path / "copy.tar", folder)
    shutil.rmtree(folder)
    restore(tmp_path / "copy.tar", folder)
    assert found(folder, model) == expected
    assert check.check(folder).findings == []
    with Library.open(folder, model) as opened:  # it goes on as if nothing had been
        assert opened.index(tmp_path / "media").unchanged == 5
        add(opened, 1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_backup_of_a_library_in_use_is_one_state(folder: Path, model: BindModel, tmp_path: Path) -> None:
    """While uploads come and go: each backup has whole uploads only, and none is known without its file."""
    done = threading.Event()
    failed: list[BaseException] = []

    def upload() -> None:
        try:
            with Library.open(folder, model) as opened:
                for number in range(1, 25):
                    item = add(opened, number)
                    if number % 2:
                        opened.remove(item)
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=upload)
    thread.start()
    count = 0
    try:
        while not done.is_set():
            backup(folder, tmp_path / f"{count}.tar")
            count += 1
    finally:
        thread.join()
    assert not failed
    assert count > 2
    live = tmp_path / "live"
    folder.rename(live)
    counts = []
    for number in range(count):
        restore(tmp_path / f"{number}.tar", folder)
        counts.append(len(found(folder, model)))
        assert check.check(folder).findings == []
        shutil.rmtree(folder)
    live.rename(folder)
    assert counts[-1] > counts[0]


def test_a_file_that_goes_during_the_backup_is_in_neither(
    folder: Path, model: BindModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = backups._copy_catalogue

    def and_then_removed(source: Path, copy: Path) -> None:
        plain(source, copy)
        with Library.open(folder, model) as opened:
            hit = next(hit for hit in opened.search("a dog", k=100) if Path(hit.path).name == "upload 0.png")
            opened.remove(hit.item_id)

    monkeypatch.setattr(backups, "_copy_catalogue", and_then_removed)
    assert backup(folder, tmp_path / "copy.tar").files == 5
    shutil.rmtree(folder)
    restore(tmp_path / "copy.tar", folder)
    assert len(found(folder, model)) == 5
    assert check.check(folder).findings == []


@pytest.mark.attack
def test_a_damaged_or_planted_backup_is_refused(folder: Path, tmp_path: Path) -> None:
    backup(folder, tmp_path / "copy.tar")
    content = bytearray((tmp_path / "copy.tar").read_bytes())
    with tarfile.open(tmp_path / "copy.tar") as archive:
        places = [member.offset_data + member.size // 2 for member in archive if member.size]
    for number, place in enumerate([*places, len(content) // 3]):
        changed = content.copy()
        changed[place] ^= 4
        (tmp_path / "bad.tar").write_bytes(changed)
        with pytest.raises(LibraryError, match=r"damaged|no backup"):
            restore(tmp_path / "bad.tar", tmp_path / f"new-{number}")
        assert not (tmp_path / f"new-{number}").exists()
    for name, kind in (
        ("../x", tarfile.REGTYPE),
        ("/tmp/x", tarfile.REGTYPE),
        ("files/../../x", tarfile.REGTYPE),
        ("files/a/..", tarfile.REGTYPE),
        (FILE, tarfile.SYMTYPE),
        ("files/a/b", tarfile.LNKTYPE),
        ("files/a/b", tarfile.FIFOTYPE),
        ("index/0/CURRENT", tarfile.REGTYPE),
    ):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        with tarfile.open(tmp_path / "bad.tar", "w") as archive:
            archive.addfile(info, io.BytesIO())
        with pytest.raises(LibraryError, match="is no part of a library"):
            restore(tmp_path / "bad.tar", tmp_path / "planted")
        assert not (tmp_path / "planted").exists()
    (tmp_path / "bad.tar").write_bytes(b"no archive")
    with pytest.raises(LibraryError, match="no backup"):
        restore(tmp_path / "bad.tar", tmp_path / "planted")


def test_a_full_disk_leaves_the_last_backup(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backup(folder, tmp_path / "copy.tar")
    before = (tmp_path / "copy.tar").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backups.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        backup(folder, tmp_path / "copy.tar")
    assert (tmp_path / "copy.tar").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".copy")] == []


def test_a_backup_does_not_replace_a_pipe_or_a_device(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LibraryError, match="is no regular file"):
        backup(folder, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
