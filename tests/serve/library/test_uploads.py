"""Files that a library keeps itself: all of one is there, or nothing of it, whatever happens."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.source import Limits, MediaError
from serve.library.library import Library
from serve.library.uploads import Uploads, safe_name
from tests.serve import tiny
from tests.serve.add_child import METADATA, NAME

MOMENTS = 24


def test_a_kill_at_any_moment_leaves_all_or_nothing(tmp_path: Path) -> None:
    content = tiny.picture(tmp_path / NAME, 1).read_bytes()
    command = [sys.executable, "-m", "tests.serve.add_child", str(tmp_path), str(MOMENTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    killed = [line.split() for line in done.stdout.splitlines()]
    assert len(killed) == MOMENTS
    assert sum(signal == "9" for _, _, signal in killed) >= MOMENTS - 2, "others may not be the same in every run"
    model = tiny.model()
    outcomes = set()
    for number in range(MOMENTS):
        with Library.open(tmp_path / str(number), model) as library:
            library.tidy()
            kept = library.folder / "files"
            places = list(kept.iterdir()) if kept.is_dir() else []
            found = library.count()
            assert len(places) == found.get("image", 0)
            outcomes.add(bool(places))
            if places:
                assert (places[0] / NAME).read_bytes() == content
                assert METADATA.items() <= library.item(1).metadata.items()
            (item,) = library.add(io.BytesIO(content), NAME, METADATA)
            assert library.count() == {"image": 1} and Path(item.path).read_bytes() == content
    assert outcomes == {True, False}, "both must have happened, or this test says little"


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_stays_in_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe not in ("", ".", "..") and not set(safe) & set('/\\\0<>:"|?*\n\r')
    assert len(safe.encode()) <= 200 and Path("/kept", safe).parent == Path("/kept")
    assert safe_name(safe) == safe


def test_names_keep_what_tells_the_kind() -> None:
    assert safe_name("C:\\photos\\room.depth.png") == "room.depth.png"
    assert safe_name("é" * 300 + ".flac").endswith(".flac")
    assert safe_name(".hidden") == "hidden"


def test_what_is_too_large_or_empty_leaves_nothing(tmp_path: Path) -> None:
    kept = Uploads(tmp_path)
    for content, reason in ((b"", "empty"), (b"x" * 11, "more than 10 bytes")):
        with pytest.raises(MediaError, match=reason):
            kept.put(io.BytesIO(content), "x.png", {}, Limits(max_bytes=10))
    assert not list(kept.folder.iterdir())
    assert kept.put(io.BytesIO(b"x" * 10), "x.png", {}, Limits(max_bytes=10)).read_bytes() == b"x" * 10


def test_only_its_own_files_are_deleted(tmp_path: Path) -> None:
    kept = Uploads(tmp_path)
    own, other = kept.finish(kept.put(io.BytesIO(b"x"), "x.txt", {}, Limits())), tmp_path / "y.txt"
    other.write_text("y")
    kept.drop(other)
    assert other.is_file()
    kept.drop(own)
    assert not own.parent.exists()
