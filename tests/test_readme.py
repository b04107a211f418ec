"""The README's Python and its figures are true."""

from __future__ import annotations

import itertools
import re
import shutil
from pathlib import Path

import pytest

from bind import zoo
from serve.demo.demo import zero_shot
from serve.demo.samples import EVERYDAY, SCIENTIFIC

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_python_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    first = next(block for block in blocks if "Library" in block)
    media = tmp_path / "media"
    media.mkdir()
    for name, sample in (("dog.jpg", EVERYDAY[0]), ("cat.png", EVERYDAY[1])):
        shutil.copyfile(sample.path, tmp_path / name)
        shutil.copyfile(sample.path, media / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    exec(compile(first, "README.md", "exec"), {})
    assert (tmp_path / "my-library" / "catalogue.sqlite").is_file()


def test_table_of_photographs_is_what_the_model_says() -> None:
    model = zoo.load("small")
    rows = zero_shot(model, (*EVERYDAY, *SCIENTIFIC))
    cells = [cell.strip() for line in README.splitlines() if line.startswith("| ") for cell in line.split("|")]
    for sample, best, _, _ in rows:
        name = re.sub(r"^(an?|the) | in deep space$", "", sample.caption)
        shown = best if best == sample.caption else f"{best} (wrong)"
        pairs = list(itertools.pairwise(cells))
        assert (name, shown) in pairs, (name, shown)
    right = [sum(sample.caption == best for sample, best, _, _ in part) for part in (rows[:13], rows[13:])]
    assert f"{right[0]} of 13 everyday photographs, {right[1]} of 4 scientific ones" in README
    assert model.space in README
