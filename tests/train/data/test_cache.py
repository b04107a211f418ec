"""Tables on disk: damage, several writers, and what names their rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.source import Limits, Source
from train.data.cache import Table, content_digest


def digest(number: int) -> bytes:
    return number.to_bytes(32, "little")


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=20), cut=st.integers(0, 10_000))
def test_table_cut_off_anywhere_is_valid_and_only_shorter(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("table")
    rows = [np.full((count, 2, 3), number, np.float16) for number, count in enumerate(counts)]
    with Table(folder, (2, 3), np.dtype(np.float16)) as whole:
        for number, part in enumerate(rows):
            whole.add(digest(number), part)
    assert all((whole[digest(number)] == part).all() for number, part in enumerate(rows))
    for file in (*folder.glob("*.keys"), *folder.glob("*.rows")):
        content = file.read_bytes()
        file.write_bytes(content[: cut % (len(content) + 1)])
    left = Table(folder, (2, 3), np.dtype(np.float16))
    assert len(left) <= len(rows)
    for number, part in enumerate(rows):
        if digest(number) in left:
            np.testing.assert_array_equal(left[digest(number)], part)
    with left:  # and it can be added to
        left.add(digest(99), rows[0])
    np.testing.assert_array_equal(left[digest(99)], rows[0])


def test_two_writers_share_a_table(tmp_path: Path) -> None:
    first, second = (Table(tmp_path, (2,), np.dtype(np.float32)) for _ in range(2))
    with first, second:
        first.add(digest(1), np.ones((1, 2)))
        second.add(digest(2), np.zeros((3, 2)))
    first.refresh()
    assert len(first) == 2
    assert first[digest(2)].shape == (3, 2)
    with pytest.raises(ValueError, match="expected"), first:
        first.add(digest(3), np.ones((1, 3)))


def test_digest_follows_content_and_hints(tmp_path: Path) -> None:
    from preprocess.source import Hints

    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_digest(Source.from_path(tmp_path / name), Limits()) for name in "abc")
    assert a == b != c
    assert content_digest(Source.from_path(tmp_path / "a", Hints(unit="mm")), Limits()) != a
