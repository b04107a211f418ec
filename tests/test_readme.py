"""The README's Python and its figures are true."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bind import zoo
from serve.demo import zero_shot
from serve.samples import EVERYDAY, SCIENTIFIC

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


def test_bind_your_own_sensor_in_an_afternoon(tmp_path: Path) -> None:
    """Every file and every command of that section, in an empty folder; the figures are those shown, give or take."""
    section = README.split("## Bind your own sensor in an afternoon")[1].split("\n## ")[0]
    for name, content in re.findall(r"```\w+\n# (\S+)\n(.*?)```", section, re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    commands = re.findall(r"^    \$ (.*)$", section, re.MULTILINE)
    assert len(commands) == 6
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": path, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr

    def rows(text: str) -> dict[str, tuple[str, float]]:
        found = re.findall(r"retrieval +(\w+ -> \w+) +(\w+) +recall@10 +([\d.]+)", text)
        return {pair: (kind, float(value)) for pair, kind, value in found}

    shown, found = rows(section), rows(done.stdout)
    assert len(shown) == 6
    for pair, (kind, value) in shown.items():
        assert found[pair][0] == kind
        assert abs(found[pair][1] - value) < 0.1, (pair, found[pair], value)
    assert found["light -> image"][1] > 2.5 * 10 / 104
    assert "104 image, 104 light" in done.stdout
    assert re.search(r"1 +light +\S+\.light\.npy", done.stdout)
