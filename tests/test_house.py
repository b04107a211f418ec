"""The house: style, types, imports in one line, nothing heavy before it is needed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=lambda command: "-".join(command[:2]),
)
def test_checker_finds_nothing(command: list[str]) -> None:
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


HEAVY = ("timm", "open_clip", "transformers", "faiss", "gradio", "torch")


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import bind", ()),
        ("import serve.cli.commands", ()),
        (
            "import preprocess.decoding.pool; from preprocess.readers import audio, image, imu, video",
            (),
        ),
        ("import bind.zoo, bind.index.index, bind.model.model", ("torch",)),
        ("import bind; bind.load; bind.Index; bind.combine", ("torch",)),
    ],
)
def test_imports_nothing_heavy(statement: str, allowed: tuple[str, ...]) -> None:
    program = f"import sys; {statement}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    loaded = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, text=True).split()
    assert set(loaded) <= set(allowed)


def test_help_answers_within_a_second() -> None:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run([BIN / "crossbind", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(once() for _ in range(5)) < 1.0


def test_every_dependency_has_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    assert not [line for line in lines if line and not line.startswith("#") and "==" not in line]
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [Requirement(line) for group in groups for line in group]
    here = [entry for entry in requirements if entry.marker is None or entry.marker.evaluate()]
    names = {entry.name.lower().replace("_", "-") for entry in here} - {"crossbind"}  # extras that include others
    assert names <= pinned


def test_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text
