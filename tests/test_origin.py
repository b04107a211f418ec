"""A folder that is being indexed, or stood in, runs nothing; names of our packages are ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]
PLANTED = "open({mark!r}, 'w').close()\nraise SystemExit('planted')\n"

pytestmark = pytest.mark.attack


@pytest.fixture
def downloads(tmp_path: Path) -> Path:
    """A folder with Python files of the names that Python, our readers and their packages import."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    text = PLANTED.format(mark=str(tmp_path / "ran"))
    for name in ("numpy", "sitecustomize", "usercustomize", "json", "pickle", "socket", "av", "soundfile", "tifffile"):
        (folder / f"{name}.py").write_text(text)
    for name in ("PIL", "scipy", "pyarrow", "encodings"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(text)
    (folder / "note.txt").write_text("a red car")
    return folder


DECODE = """
import io
from PIL import Image
from bind.modalities import spec
from preprocess.decoding.pool import DecodePool
from preprocess.media import Limits, Source
png = io.BytesIO()
Image.new("RGB", (8, 8)).save(png, "PNG")
image = spec("image")
with DecodePool(1) as pool:
    task = pool.submit(image.read, Source(png.getvalue(), "x"), image.config(), Limits(), "whole")
    print(task.result()[0].views.shape)
"""


def run(command: list[object], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


def test_workers_run_nothing_of_the_folder(downloads: Path, tmp_path: Path) -> None:
    script = tmp_path / "script" / "decode.py"
    script.parent.mkdir()
    # Paths of the command's own Python are as they should be; only then the folder is entered.
    script.write_text(
        f"import os, sys; sys.path.append({str(ROOT)!r})\nimport numpy\n"
        + DECODE.replace(
            "with DecodePool", f"os.chdir({str(downloads)!r}); os.environ['PYTHONPATH'] = '.:'\nwith DecodePool"
        )
    )
    done = run([sys.executable, script], tmp_path)
    assert done.stdout == "(1, 224, 224, 3)\n", done.stderr
    assert not (tmp_path / "ran").exists()
    # Without its own start, a worker runs them.
    plain = run([sys.executable, "-c", "import numpy"], downloads)
    assert plain.returncode and (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", [["crossbind", "index", ".", "--library", "../library"], ["crossbind", "doctor"]])
def test_commands_run_nothing_of_the_folder(downloads: Path, tmp_path: Path, command: list[str]) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(downloads / "x.png")
    done = run([BIN / command[0], *command[1:]], downloads)
    assert not (tmp_path / "ran").exists(), done.stderr
    assert "planted" not in done.stdout + done.stderr


def test_processes_that_a_command_starts_leave_the_folder_too(downloads: Path, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.path[0] = {str(ROOT)!r}; import os; os.chdir({str(downloads)!r}); from bind import origin; "
        "{leave}; import subprocess; sys.exit(subprocess.call([sys.executable, '-c', 'import tifffile']))"
    )
    assert run([sys.executable, "-c", program.format(leave="origin.leave_folder()")], tmp_path).returncode == 0
    assert not (tmp_path / "ran").exists()
    assert run([sys.executable, "-c", program.format(leave="pass")], tmp_path).returncode
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["preprocess", "bind", "train", "serve", "data_manifests"])
@pytest.mark.parametrize("as_folder", [False, True])
def test_somebody_elses_module_of_our_name_is_named(tmp_path: Path, name: str, as_folder: bool) -> None:
    theirs = tmp_path / name / "__init__.py" if as_folder else tmp_path / f"{name}.py"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("# the user's own")
    script = tmp_path / "mine.py"
    ask = "import serve; serve.Library" if name in ("bind", "train", "data_manifests") else "import bind; bind.load"
    script.write_text(f"import sys; sys.path.append({str(ROOT)!r})\n{ask}\n")
    done = run([sys.executable, script], tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert "Crossbind cannot start" in last
    assert str(theirs) in last
    command = run([BIN / "crossbind", "models"], tmp_path, PYTHONPATH=str(tmp_path))
    if name != "serve":  # with that name, nothing of ours is asked
        assert command.returncode == 2
        assert "Crossbind cannot start" in command.stderr
        assert "Traceback" not in command.stderr


def test_a_data_folder_of_our_name_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").touch()
    script = tmp_path / "mine.py"
    script.write_text(f"import sys; sys.path.append({str(ROOT)!r})\nimport bind; print(bind.names()[0])\n")
    assert run([sys.executable, script], tmp_path).stdout == "clip-vit-b32\n"


def test_training_refuses_with_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "serve.py").touch()
    done = run([sys.executable, "-P", "-m", "train", "x.toml"], tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "serve.py" in done.stderr
