"""The documentation builds strictly, and what its pages show is run: files are written, commands and Python executed.

On a page, a block whose fence has a `title` is a file, `console` has commands behind `$`, `python` is run in one
namespace a page. `{.python .gpu}` needs CUDA. Blocks without a language are commands that do not end (`serve`) or need
a GPU: their options are checked against the command line.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer.main

from serve.cli.commands import app
from serve.demo import samples

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
BIN = Path(sys.executable).parent
HTTP = "reference/http.md"
"""Its examples need a server: test_http.py runs them."""
_BLOCK = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True)
class Block:
    """A fenced block: the words behind its fence, and its lines."""

    kind: str
    body: str


def blocks(page: Path) -> list[Block]:
    return [Block(match["kind"].strip(), match["body"]) for match in _BLOCK.finditer(page.read_text())]


def runnable(block: Block) -> bool:
    return "title=" in block.kind or block.kind in ("python", "console")


RUN = sorted(
    str(page.relative_to(PAGES))
    for page in PAGES.rglob("*.md")
    if str(page.relative_to(PAGES)) != HTTP and any(block.kind in ("python", "console") for block in blocks(page))
)


@pytest.fixture(scope="session")
def samples_and_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: `media`, `photos`, single files, and `my-library` over `media`."""
    folder = tmp_path_factory.mktemp("docs")
    samples.assemble(folder / "media")
    shutil.copytree(folder / "media" / "photos", folder / "photos")
    for name, sample in (("dog.jpg", samples.EVERYDAY[0]), ("cat.png", samples.EVERYDAY[1])):
        shutil.copyfile(sample.path, folder / name)
    (depth,) = (folder / "media" / "depth").glob("*.depth.png")
    shutil.copyfile(depth, folder / "room.png")
    run("crossbind index media --library my-library", folder)
    return folder


def run(commands: str, folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", ROOT / "docs" / "mkdocs.yml", "-d", tmp_path],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?:)?//', page.read_text())
        assert not loaded, f"{page}: loads something from another host"


_MINUTES = ("tutorials/bind-your-sensor.md",)
"""Pages that train for a minute or more: `make test-all` runs them."""


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.slow) if page in _MINUTES else page for page in RUN]
)
def test_what_a_page_shows_runs(page: str, tmp_path: Path, samples_and_library: Path) -> None:
    folder = tmp_path / "work"
    shutil.copytree(samples_and_library, folder)
    printed = ""
    script = ""
    exported: list[str] = []
    for block in blocks(PAGES / page):
        if title := _TITLE.search(block.kind):
            (folder / title[1]).parent.mkdir(parents=True, exist_ok=True)
            (folder / title[1]).write_text(block.body)
        elif block.kind == "python":
            script += block.body
        elif block.kind == "console":
            commands = re.findall(r"^\$ (.*)$", block.body, re.MULTILINE)
            assert commands, f"{page}: a console block without a command"
            printed += run("\n".join([*exported, *commands]), folder)
            exported += [command for command in commands if command.startswith("export ")]
    if script:
        (folder / "page.py").write_text(script)
        run(f"{sys.executable} page.py", folder)
    if page.endswith("bind-your-sensor.md"):
        check_light((PAGES / page).read_text(), printed)


def check_light(shown: str, printed: str) -> None:
    """The figures of the tutorial are those shown, give or take."""

    def rows(text: str) -> dict[str, tuple[str, float]]:
        found = re.findall(r"retrieval +(\w+ -> \w+) +(\w+) +recall@10 +([\d.]+)", text)
        return {pair: (kind, float(value)) for pair, kind, value in found}

    expected, found = rows(shown), rows(printed)
    assert len(expected) == 6
    for pair, (kind, value) in expected.items():
        assert found[pair][0] == kind
        assert abs(found[pair][1] - value) < 0.1, (pair, found[pair], value)
    assert found["light -> image"][1] > 2.5 * 10 / 104
    assert "104 image, 104 light" in printed
    assert re.search(r"1 +light +\S+\.light\.npy", printed)


@pytest.mark.parametrize("page", sorted(str(page.relative_to(PAGES)) for page in PAGES.rglob("*.md")))
def test_commands_that_are_not_run_have_options_that_exist(page: str) -> None:
    group = typer.main.get_command(app)
    for block in blocks(PAGES / page):
        for line in block.body.splitlines() if not block.kind else ():
            if line.startswith("crossbind "):
                name, *arguments = shlex.split(line.partition("  #")[0])[1:]
                command = group.commands[name]  # type: ignore[attr-defined]
                command.make_context(name, arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("page", ["tutorials/gpu.md"])
def test_python_for_a_gpu_runs(page: str) -> None:
    for block in blocks(PAGES / page):
        if ".gpu" in block.kind:
            exec(compile(block.body, page, "exec"), {})
