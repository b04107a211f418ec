"""The commands that keep a library in step with folders, as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.serve.command import CROSSBIND, crossbind


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `media` (two pictures, a damaged one, a draft, a thumbnail) and the library over it."""
    place = tmp_path_factory.mktemp("place")
    for name in ("red", "blue", "drafts/green", "@eaDir/red"):
        (place / "media" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), name.rpartition("/")[2]).save(place / "media" / f"{name}.png")
    (place / "media" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = crossbind("index", place / "media", "--library", place / "library", "--exclude", "drafts/", "--strict")
    assert done.returncode == 1
    assert f"skipped {place / 'media' / 'bad.png'}: " in done.stderr
    assert "left out 2 files and folders by rules: --exclude 1, @eaDir 1" in done.stderr
    assert "2 added" in done.stdout
    return place


def test_later_runs_count_what_they_skip(place: Path) -> None:
    done = crossbind("index", place / "media", "--library", place / "library")
    assert (done.returncode, "2 unchanged" in done.stdout) == (0, True)
    assert f"skipped {place}" not in done.stderr.replace(f"crossbind skipped {place}", "")
    assert "1 files are skipped as before (--verbose" in done.stderr
    done = crossbind("index", place / "media", "--library", place / "library", "--json")
    report = json.loads(done.stdout)
    assert (report["skipped"], [path for path, _ in report["skipped_before"]]) == ([], [str(place / "media/bad.png")])
    assert report["excluded"] == {"--exclude": 1, "@eaDir": 1}


def test_roots_and_skipped_need_no_model(place: Path) -> None:
    assert f"{place / 'media'}: 2 files, 1 skipped, there, last run 2" in crossbind("roots", place / "library").stdout
    (root,) = json.loads(crossbind("roots", place / "library", "--json").stdout)
    assert (root["path"], root["files"], root["exclude"]) == (str(place / "media"), 2, ["drafts/"])
    (row,) = json.loads(crossbind("skipped", place / "library", "--json").stdout)["skipped"]
    assert row["path"] == str(place / "media" / "bad.png") and row["reason"]
    assert "1 skipped" in crossbind("skipped", place / "library").stdout
    assert crossbind("roots", place / "nothing").returncode == 2


def test_migrate(place: Path, tmp_path: Path) -> None:
    done = crossbind("migrate", tmp_path / "nothing", "--model", "small")
    assert (done.returncode, "there is no library" in done.stderr) == (2, True) or "does not exist" in done.stderr
    done = crossbind("migrate", place / "library", "--model", "small", "--json")
    assert (done.returncode, json.loads(done.stdout)["files"], json.loads(done.stdout)["embedded"]) == (0, 2, 0)
    done = crossbind("migrate", place / "library", "--model", "no-such-model")
    assert (done.returncode, "no-such-model" in done.stderr) == (2, True)


def test_what_looks_like_a_path_is_said_and_a_file_name_is_found(place: Path) -> None:
    done = crossbind("search", "red.png", "--library", place / "library", "--json")
    assert Path(json.loads(done.stdout)[0]["path"]).name == "red.png"
    assert done.stderr == ""
    done = crossbind("search", "photos/nowhere.png", "--library", place / "library", "--json")
    assert "note: 'photos/nowhere.png' looks like a path, but there is no such file" in done.stderr
    json.loads(done.stdout)


def test_a_missing_folder_loses_nothing_and_can_be_forgotten(place: Path, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    Image.new("RGB", (40, 30), "white").save(tmp_path / "usb" / "white.png")
    assert crossbind("index", tmp_path / "usb", "--library", place / "library").returncode == 0
    (tmp_path / "usb").rename(tmp_path / "away")
    done = crossbind("index", tmp_path / "usb", "--library", place / "library")
    assert (done.returncode, "--allow-removal" in done.stderr) == (1, True)
    assert "missing" in crossbind("roots", place / "library").stdout
    done = crossbind("forget", tmp_path / "usb", "--library", place / "library")
    assert (done.returncode, done.stdout.strip()) == (0, f"{tmp_path / 'usb'}: 1 files forgotten, 2 left")
    assert crossbind("forget", tmp_path / "usb", "--library", place / "library").returncode == 1
    done = crossbind("index", tmp_path / "usb", "--library", place / "library")
    assert (done.returncode, "no such folder" in done.stderr) == (2, True)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_ends_cleanly(place: Path, how: int) -> None:
    child = subprocess.Popen(
        [CROSSBIND, "index", place / "media", "--library", place / "library", "--watch", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert json.loads(child.stdout.readline())["unchanged"] == 2
    os.kill(child.pid, how)
    _, told = child.communicate(timeout=60)
    assert (child.returncode, "Traceback" in told) == (0, False)
    assert "stopped watching" in told
