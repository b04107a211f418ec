"""A report on disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from train.evaluate.report import Report, Score, write


def test_without_matplotlib_the_figures_are_written_and_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    score = Score("m", "retrieval", "a", "b", "emergent", "recall@1", 0.5, 0.4, 0.6, 9)
    with pytest.raises(ValueError, match=r"pip install 'crossbind\[train\]'"):
        write(Report("x", "y", [score]), tmp_path)
    assert "0.500" in (tmp_path / "scores.txt").read_text()
