"""What reaches the disk whole: listings of checksums, and folders that change places."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bind.files import SUMS, exchange, format_sums, parse_sums, sha256


def test_a_listing_is_that_of_sha256sum(tmp_path: Path) -> None:
    for name in ("a.bin", "with space.bin"):
        (tmp_path / name).write_text(name)
    sums = {name: sha256(tmp_path / name) for name in ("a.bin", "with space.bin")}
    (tmp_path / SUMS).write_bytes(format_sums(sums))
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=tmp_path, check=True, capture_output=True)
    written = subprocess.check_output(["sha256sum", "--binary", "a.bin", "with space.bin"], cwd=tmp_path)
    assert parse_sums(written) == parse_sums(format_sums(sums)) == sums


@pytest.mark.parametrize("damage", [b"\xff", b"short  a.bin", b"0" * 64, b"0" * 66 + b" a"])
def test_a_damaged_listing_is_refused(damage: bytes) -> None:
    with pytest.raises(ValueError, match=r"line 2|UTF-8"):
        parse_sums(format_sums({"a": "0" * 64}) + damage)


def test_two_folders_change_places(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if exchange(tmp_path / "one", tmp_path / "other"):
        assert (tmp_path / "one" / "other").exists() and (tmp_path / "other" / "one").exists()
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "one", tmp_path / "none")
