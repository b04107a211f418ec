"""The watch of a folder, in a process of its own: what arrives, grows, moves, changes and goes while it runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.library import watching
from serve.library.library import Library
from serve.library.watching import Changed
from tests.serve import tiny

ROOT = Path(__file__).parents[3]
_CHILD = """
import json, signal, sys, threading
from dataclasses import asdict
from tests.serve import tiny
from serve.library.library import Library

def end(*_):
    raise KeyboardInterrupt

def say(report):
    said = {"problem": str(report)} if isinstance(report, Exception) else asdict(report)
    print(json.dumps(said), flush=True)

signal.signal(signal.SIGTERM, end)
try:
    with Library.open(sys.argv[1], tiny.model()) as library:
        library.watch(sys.argv[2], stop=threading.Event(), report=say)
except KeyboardInterrupt:
    print(json.dumps({"ended": True}), flush=True)
"""


class Watcher:
    """A process that watches `media`, what it said, and the library as another process sees it."""

    def __init__(self, place: Path, media: Path) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, place, media], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.said: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        self.until(lambda: self.said)
        self.library = Library.open(place, tiny.model())
        self.media = media

    def _listen(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.said.append(json.loads(line))

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        """Returns as soon as something holds; raises AssertionError after too long."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end and self.child.poll() is None, self.said
            time.sleep(0.05)

    def names(self) -> set[str]:
        """The paths in the library, relative to the media."""
        with self.library._catalogue.snapshot():
            rows = self.library._catalogue._rows("SELECT shown FROM files WHERE content IS NOT NULL")
        return {os.path.relpath(row[0], self.media) for row in rows}

    def on_disk(self) -> set[str]:
        return {str(path.relative_to(self.media)) for path in self.media.rglob("*.png")}

    def total(self, count: str) -> int:
        return sum(said.get(count, 0) for said in self.said)

    def end(self, how: int = signal.SIGTERM) -> None:
        self.child.send_signal(how)
        self._thread.join(60)
        self.library.close()


@pytest.fixture
def media(tmp_path: Path) -> Path:
    for number in range(20):
        tiny.picture(tmp_path / "media" / f"{number % 2}" / f"{number}.png", number)
    return tmp_path / "media"


@pytest.fixture
def watcher(tmp_path: Path, media: Path) -> Iterator[Watcher]:
    watcher = Watcher(tmp_path / "library", media)
    yield watcher
    watcher.end()


def test_files_that_arrive_move_change_and_go(watcher: Watcher, media: Path, tmp_path: Path) -> None:
    assert watcher.names() == watcher.on_disk()
    for number in range(100):
        tiny.picture(media / "new" / f"{number % 10}" / f"{number}.png", 1000 + number)
    watcher.until(lambda: watcher.names() == watcher.on_disk() and watcher.total("added") >= 120)
    assert watcher.total("embedded") == 120

    (media / "new").rename(media / "moved")
    for number in range(0, 20, 2):
        shutil.move(media / "0" / f"{number}.png", media / "1" / f"m{number}.png")
    for number in range(1, 9, 2):
        (media / "1" / f"{number}.png").unlink()
    for number in range(9, 19, 2):
        tiny.picture(media / "1" / f"{number}.png", 2000 + number)
    ended = time.monotonic()
    watcher.until(
        lambda: watcher.names() == watcher.on_disk() and watcher.total("updated") >= 5 <= watcher.total("removed") + 1
    )
    assert time.monotonic() - ended < 30  # 4 s where nothing else runs
    assert watcher.total("renamed") == 110
    assert watcher.total("removed") == 4
    assert watcher.total("embedded") == 125  # nothing that moved
    assert watcher.library.search(str(media / "1" / "9.png"), k=1)[0].cosine == pytest.approx(1, abs=1e-5)
    assert not [said for said in watcher.said if said.get("skipped")]


def test_a_file_that_is_being_written_is_left_alone_and_another_may_write(watcher: Watcher, media: Path) -> None:
    whole = tiny.picture(media.parent / "big.png", 3000).read_bytes()
    with (media / "grows.png").open("wb") as growing:
        for at in range(0, 8):
            growing.write(whole[at * len(whole) // 8 : (at + 1) * len(whole) // 8])
            growing.flush()
            time.sleep(0.3)
            assert "grows.png" not in watcher.names()
            if at == 4:
                watcher.library.save_index()  # takes the right to write
    watcher.until(lambda: "grows.png" in watcher.names())
    assert not [said for said in watcher.said if said.get("skipped")]


@pytest.mark.parametrize("mounted", ["missing", "empty"])
def test_a_share_that_goes_and_comes_back(watcher: Watcher, media: Path, mounted: str) -> None:
    away = media.rename(media.with_name("away"))
    if mounted == "empty":
        media.mkdir()
    watcher.until(lambda: "problem" in watcher.said[-1])
    assert "nothing is removed" in watcher.said[-1]["problem"]
    assert len(watcher.names()) == 20
    if mounted == "empty":
        media.rmdir()
    tiny.picture(away / "new.png", 4000)
    away.rename(media)
    watcher.until(lambda: watcher.total("added") == 21)
    assert "new.png" in watcher.names()
    assert len([said for said in watcher.said if "problem" in said]) == 1
    assert (watcher.total("removed"), watcher.total("embedded")) == (0, 21)


def test_ctrl_c_ends_cleanly(tmp_path: Path, media: Path) -> None:
    watcher = Watcher(tmp_path / "library", media)
    tiny.picture(media / "new.png", 5000)
    watcher.end(signal.SIGINT)
    assert watcher.child.wait(60) == 0
    assert watcher.said[-1] == {"ended": True}
    with Library.open(tmp_path / "library", tiny.model()) as library:
        assert library.index(media).unchanged + library.index(media).added >= 20


def test_a_new_ignore_file_and_a_sidecar_count(watcher: Watcher, media: Path) -> None:
    (media / "0" / "2.png.json").write_text('{"caption": "a palm"}')
    watcher.until(lambda: watcher.total("updated") == 1)
    assert watcher.library.search("palm", k=1)[0].path == str(media / "0" / "2.png")
    (media / "1" / ".crossbindignore").write_text("*")
    watcher.until(lambda: len(watcher.names()) == 10)


def test_all_is_looked_at_again_and_a_stop_ends_it(
    tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "ALL_S", 0.1)
    stop = threading.Event()
    runs = []

    def report(done: object) -> None:
        runs.append(done)
        if len(runs) == 3:
            stop.set()

    with Library.open(tmp_path / "library", tiny.model()) as library:
        library.watch(media, stop=stop, report=report)
    assert [run.unchanged for run in runs] == [0, 20, 20]


class TestChanged:
    def test_a_path_rests_when_it_did_not_change_for_long_enough(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        changed = Changed(tmp_path / "library")
        path.write_bytes(b"1")
        changed.touch(str(path), 0.0)
        changed.touch(str(tmp_path / "gone.png"), 0.0)
        changed.touch(str(tmp_path / "library" / "catalogue.sqlite"), 0.0)
        assert changed.resting(0.9) == []
        path.write_bytes(b"12")
        assert changed.resting(1.1) == []
        assert changed.resting(2.0) == [str(tmp_path / "gone.png")]
        assert changed.resting(2.2) == [str(path), str(tmp_path / "gone.png")]

    def test_places_are_none_in_another_one(self, tmp_path: Path) -> None:
        changed = Changed(tmp_path / "library")
        for name in ("old", "old/a.png", "b.png", "old2/c.png"):
            changed.touch(str(tmp_path / name), 0.0)
        assert changed.settle(changed.resting(9)) == [str(tmp_path / name) for name in ("b.png", "old", "old2/c.png")]
        assert len(changed) == 0

    def test_of_a_folder_that_came_everything_is_looked_at(self, tmp_path: Path) -> None:
        changed = Changed(tmp_path / "library")
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new" / "deep" / "a.png").touch()
        changed.touch(str(tmp_path / "new"), 0.0)
        assert changed.settle(changed.resting(9)) == [str(tmp_path / "new" / "deep" / "a.png")]


def resident_mb(process: int) -> float:
    """The memory of a process and of those that it started, in MiB."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if int(folder.name) == process or parent == process:
                total += int((folder / "statm").read_text().split()[1])
        except OSError:
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def watched_memory(watcher: Watcher, seconds: float) -> list[float]:
    """Files arrive, change, move and go all the time -> the memory of the watching process, once a second."""
    sizes = []
    number = 10_000
    for _ in range(round(seconds)):
        folder = watcher.media / f"busy{number % 3}"
        for _ in range(5):
            number += 1
            tiny.picture(folder / f"{number}.png", number)
        old = sorted(folder.glob("*.png"))[:-40]
        for path in old[::2]:
            path.unlink()
        for path in old[1::2]:
            path.rename(watcher.media / "0" / path.name)
        for path in sorted((watcher.media / "0").glob("1*.png"))[:-40]:
            path.unlink()
        time.sleep(1)
        sizes.append(resident_mb(watcher.child.pid))
    watcher.until(lambda: watcher.names() == watcher.on_disk())
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_memory_stays_flat_for_ten_minutes(watcher: Watcher) -> None:
    sizes = watched_memory(watcher, 600)
    print(f"memory of the watch: {sizes[60]:.0f} MiB after a minute, {sizes[-1]:.0f} at the end")
    assert max(sizes[-60:]) < max(sizes[30:90]) + 30
