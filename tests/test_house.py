"""The house: style, types, imports in one line, nothing heavy before it is needed."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import time
import tokenize
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
    names = {entry.name.lower().replace("_", "-") for entry in here} - {"crossbind"}  # extras that include others
    assert names <= pinned


PACKAGES = ("preprocess", "bind", "data_manifests", "train", "serve")
FILES = [file.relative_to(ROOT) for name in PACKAGES for file in sorted((ROOT / name).rglob("*.py"))]

HOMES = {
    "faiss": ("bind/index/",),
    "gradio": ("serve/page/",),
    "open_clip": ("bind/encoders/", "bind/zoo/", "bind/tokenizers.py"),
    "timm": ("bind/encoders/", "bind/zoo/"),
    "transformers": ("bind/encoders/", "bind/zoo/", "bind/published.py"),
}
"""A library that only one room may import, and that room."""


def imported(tree: ast.Module) -> set[str]:
    """The top-level names that a module imports, wherever in it and also through `importlib.import_module("name")`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {str(one.value).partition(".")[0] for one in node.args if isinstance(one, ast.Constant)}
    return found


@pytest.mark.parametrize("library", HOMES)
def test_a_large_library_is_imported_in_one_room(library: str) -> None:
    users = [file.as_posix() for file in FILES if library in imported(ast.parse((ROOT / file).read_text()))]
    assert [user for user in users if not user.startswith(HOMES[library])] == []


def test_the_search_for_imports_sees_them() -> None:
    code = "def f():\n    import a.b\n    from c.d import e\nimportlib.import_module('g.h')\n"
    assert imported(ast.parse(code)) == {"a", "c", "g"}


LONGEST_FILE, LONGEST_FUNCTION = 400, 60
LONG_FILES = {
    "bind/kernels/transformer.py": "one fused encoder block: its kernels share tile sizes and are read together",
    "bind/loss/contrastive.py": "one loss in its plain, chunked and sharded form, which are compared with each other",
    "serve/library/catalogue.py": "every question that is asked of one database, over one set of connections",
    "train/small/composed.py": "one experiment from its data to its numbers",
    "train/small/heads.py": "both heads of one space, which are fitted together",
}
"""Files of more lines than `LONGEST_FILE`, and why each is not split."""
LONG_FUNCTIONS = {
    "bind/kernels/transformer.py:_attention_kernel": "a kernel cannot call a Python function",
    "train/small/tuning.py:tune": "one schedule of an experiment",
}


def test_files_are_short() -> None:
    long = {file.as_posix() for file in FILES if len((ROOT / file).read_text().splitlines()) > LONGEST_FILE}
    assert long <= LONG_FILES.keys()


def test_functions_are_short() -> None:
    found = set()
    for file in FILES:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION:
                    found.add(f"{file.as_posix()}:{node.name}")
    assert found <= LONG_FUNCTIONS.keys()


_CONSTANT = re.compile(r"_{0,2}[A-Z][A-Z0-9_]+")
_DECLARATIONS = ("SPEC", "BUILDER")
"""The constants by which a file registers a modality or a data set: their fields are texts for the reader."""


def unexplained_constants(source: str) -> list[str]:
    """A module -> its UPPER_CASE names with neither a docstring below them nor a comment.

    A comment stands in the line of the constant, or above an unbroken run of assignments that it explains together.
    """
    tree, lines, found = ast.parse(source), source.splitlines(), []
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    commented = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    run_ends = 0  # the last line of a run of assignments below a comment
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        assert node.end_lineno is not None
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [
            name.id
            for target in targets
            for name in (target.elts if isinstance(target, ast.Tuple) else [target])
            if isinstance(name, ast.Name) and _CONSTANT.fullmatch(name.id) and name.id not in _DECLARATIONS
        ]
        above = node.lineno - 1
        is_in_run = lines[above - 1].startswith("#") or above == run_ends
        run_ends = node.end_lineno if is_in_run else 0
        has_docstring = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if names and not (has_docstring or is_in_run or {node.lineno, node.end_lineno} & commented):
            found += names
    return found


def test_every_constant_is_explained() -> None:
    found = {file.as_posix(): unexplained_constants((ROOT / file).read_text()) for file in FILES}
    assert {file: names for file, names in found.items() if names} == {}


def test_an_unexplained_constant_is_found() -> None:
    explained = '"""Module."""\nA1 = 1\n"""Said below."""\nB1 = 2  # said beside\n# said above\nC1 = 3\nD1 = 4\n'
    assert unexplained_constants(explained) == []
    assert unexplained_constants(explained + "\n_LATE, T = 5, 6\nSPEC = 7\n") == ["_LATE"]
    assert unexplained_constants("# of the file\n\nX_S: float = 1\n") == ["X_S"]


def test_the_public_interface_is_the_stored_one() -> None:
    listed = subprocess.check_output([sys.executable, "-m", "tests.public_api"], cwd=ROOT, text=True)
    assert listed == (ROOT / "tests" / "public_api.txt").read_text(), "python -m tests.public_api writes the list anew"


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


def test_no_circle_of_imports() -> None:
    try:
        TopologicalSorter(import_graph(ROOT)).prepare()
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
