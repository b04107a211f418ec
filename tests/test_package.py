"""The wheel: what lies in it, and that it works from an empty folder, as `uv tool install` and `pipx` use it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PACKAGES = ("preprocess", "bind", "data_manifests", "train", "serve")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the source, so that no `build` folder is left in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    program = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", program, out], cwd=source, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.mark.slow
def test_holds_weights_card_licences_and_tables(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        card = archive.read("bind/zoo/small.md").decode()
        sets = archive.read("data_manifests/README.md").decode()
    wanted = {file.relative_to(ROOT).as_posix() for name in PACKAGES for file in (ROOT / name).rglob("*.py")}
    for pattern in ("bind/zoo/small/*", "bind/zoo/*.toml", "train/runs/*.toml", "serve/page/front/*", "*/py.typed"):
        wanted |= {file.relative_to(ROOT).as_posix() for file in ROOT.glob(pattern) if file.is_file()}
    assert not wanted - names
    assert "licence" in card
    assert "licence" in sets.lower()
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)


@pytest.mark.slow
def test_works_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    place, folder = tmp_path / "tool", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    packages = next(place.glob("lib/python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The installed packages of this test run stand for what an installer would fetch; their editable Crossbind does not
    # come along, because a line of a `.pth` file only adds to the path.
    others = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "others.pth").write_text("\n".join(others))

    def crossbind(*arguments: str) -> str:
        done = subprocess.run(
            [place / "bin" / "python", "-P", "-c", "from serve.cli import main; main()", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "CROSSBIND_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = [place / "bin" / "python", "-P", "-c", "import serve; print(serve.__file__)"]
    assert subprocess.check_output(where, cwd=folder, text=True).startswith(str(packages))
    doctor = {check["name"]: check["state"] for check in json.loads(crossbind("doctor", "--json"))}
    assert doctor["model small"] == "ok"
    assert doctor["decode workers"] == "ok"
    (folder / "media").mkdir()
    Image.new("RGB", (64, 64), "red").save(folder / "media" / "red.png")
    (folder / "media" / "dog.txt").write_text("a dog barks in the yard")
    crossbind("index", "media", "--library", "library")
    hits = json.loads(crossbind("search", "a barking dog", "--library", "library", "--json"))
    assert "dog.txt" in json.dumps(hits)


def test_every_kind_of_file_is_in_the_wheel() -> None:
    """What lies in a package and is no Python must be named in `package-data`, or an installation lacks it."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = table["tool"]["setuptools"]["package-data"]["*"]
    found = {file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file()}
    files = {file for file in found if file.suffix not in (".py", ".pyc") and "__pycache__" not in file.parts}
    assert any(file.suffix == ".svg" for file in files)
    assert [file for file in files if not any(fnmatch(file.name, pattern) for pattern in patterns)] == []
