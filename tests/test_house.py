"""The house: style, types, imports in one line, nothing heavy before it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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
    assert {entry.name.lower().replace("_", "-") for entry in here} <= pinned


def test_readme_shows_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert "make demo" in text
    assert "make test" in text


PACKAGES = ("preprocess", "data_manifests", "bind", "train", "serve")


def import_graph(root: Path) -> dict[str, set[str]]:
    """Each module of the packages below `root` -> the modules that it imports, inside functions too.

    Imports for type checkers only (`if TYPE_CHECKING`) do not count, nor does a package's own `__init__`.
    """
    files = {
        file: file.relative_to(root).with_suffix("").parts for name in PACKAGES for file in (root / name).rglob("*.py")
    }
    names = {".".join(parts).removesuffix(".__init__"): file for file, parts in files.items()}
    return {
        name: {found for found in _imports(ast.parse(file.read_bytes()), set(names)) if found != name}
        for name, file in names.items()
    }


def _imports(tree: ast.AST, names: set[str]) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from (found for other in node.orelse for found in _imports(other, names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in names:
                    yield inner
                elif node.module in names:
                    yield str(node.module)
        else:
            yield from _imports(node, names)


# Imports inside functions that close a circle still; the list may only become shorter.
CLOSING = {("serve.library.catalogue", "serve.library.migrations"), ("serve.http.api", "serve.page.app")}


def test_no_circle_of_imports() -> None:
    graph = {
        name: {other for other in found if (name, other) not in CLOSING} for name, found in import_graph(ROOT).items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("modules import each other in a circle: " + " <- ".join(error.args[1]))


def test_a_circle_of_imports_is_found(tmp_path: Path) -> None:
    (tmp_path / "bind").mkdir()
    (tmp_path / "bind" / "one.py").write_text("from bind import two\n")
    (tmp_path / "bind" / "two.py").write_text("def late():\n    from bind.one import name\n")
    with pytest.raises(CycleError):
        TopologicalSorter(import_graph(tmp_path)).prepare()
    (tmp_path / "bind" / "two.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bind.one\n"
    )
    TopologicalSorter(import_graph(tmp_path)).prepare()
