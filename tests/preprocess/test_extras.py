"""A missing optional package is one sentence with the command to run: each lazy import, with its module hidden."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from bind.modalities import spec
from preprocess import extras
from preprocess.decoding.protocol import read_here
from preprocess.extras import MissingExtra, needs
from preprocess.source import Limits, MediaError, Source

HERE = Path(__file__).parents[2]


def hide(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Makes Python say that `module` is not installed."""
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)


def test_names_what_needs_it_the_package_and_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "peft")
    with pytest.raises(MissingExtra) as caught, needs("train", "LoRA"):
        import peft  # noqa: F401
    sentence = "LoRA needs the package peft, which is not installed; run: pip install 'crossbind[train]'"
    assert str(caught.value) == sentence


def test_faults_of_our_own_stay_what_they_are() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'bind\.nothing'"), needs("train", "LoRA"):
        import bind.nothing  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize(
    ("module", "name", "content", "modality"),
    [
        ("OpenEXR", "a.exr", b"\x76\x2f\x31\x01" + bytes(60), "depth"),
        ("pyarrow", "a.csv", b"time,ax,ay,az,gx,gy,gz\n0,0,0,9,0,0,0\n", "imu"),
    ],
)
def test_a_medium_is_skipped_with_the_command(
    module: str, name: str, content: bytes, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = spec(modality)
    hide(monkeypatch, module)
    with pytest.raises(MediaError) as caught:
        read_here(found.read, Source(content, name), found.config(), Limits(), "whole")
    assert "pip install 'crossbind[sensors]'" in caught.value.reason
    assert "decoded" not in caught.value.reason


def test_open_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    import bind

    hide(monkeypatch, "open_clip")
    with pytest.raises(MissingExtra, match=r"pip install 'crossbind\[clip\]'"):
        bind.load("clip-vit-l14", weights="random")


def test_faiss_is_needed_beyond_flat_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import bind

    hide(monkeypatch, "faiss")
    monkeypatch.setattr(extras, "is_installed", lambda name: False)
    index = bind.Index("space", 8)
    index.add([1], bind.Embeddings(np.eye(1, 8, dtype=np.float32), "space"), "image")
    with pytest.raises(MissingExtra, match=r"needs the package faiss.*pip install 'crossbind\[cpu\]'"):
        bind.Index("space", 8, "HNSW32")


def test_two_packages_of_faiss_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import bind

    monkeypatch.setattr(extras, "is_installed", lambda name: name in ("faiss-cpu", "faiss-gpu"))
    with pytest.raises(MissingExtra, match="pip uninstall --yes faiss-cpu faiss-gpu && pip install"):
        bind.Index("space", 8, "HNSW32")


def test_plot_and_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from serve.library.projection import lay_out
    from train.evaluate.report import plot

    hide(monkeypatch, "matplotlib")
    hide(monkeypatch, "sklearn")
    with pytest.raises(MissingExtra, match=r"matplotlib.*crossbind\[train\]"):
        plot("small", [], tmp_path / "a.svg")
    with pytest.raises(MissingExtra, match=r"sklearn.*crossbind\[page\]"):
        lay_out(np.random.default_rng(0).normal(size=(20, 8)), ["image"] * 20)


@pytest.mark.parametrize(
    ("hidden", "arguments", "sentence"),
    [
        ("uvicorn", ["serve", "--library", "x", "--create"], "crossbind serve needs the package uvicorn"),
        ("gradio", ["serve", "--library", "x", "--create", "--port", "0"], "the web page needs the package gradio"),
    ],
)
def test_the_command_line_says_it_in_one_line(hidden: str, arguments: list[str], sentence: str, tmp_path: Path) -> None:
    program = (
        f"import sys; sys.modules[{hidden!r}] = None; sys.argv[0] = 'crossbind'; from serve.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode in (1, 2), done.stderr
    assert sentence in done.stderr
    assert "pip install 'crossbind[" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    import serve

    monkeypatch.delitem(sys.modules, "serve.client", raising=False)
    hide(monkeypatch, "httpx")
    with pytest.raises(MissingExtra, match=r"serve\.Client needs the package httpx.*crossbind\[serve\]"):
        _ = serve.Client


def test_doctor_names_what_an_extra_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.cli import doctor

    monkeypatch.setattr(
        metadata, "requires", lambda _: ["numpy>=2", "peft>=0.15; extra == 'train'", "x; extra == 'docs'"]
    )
    monkeypatch.setattr(doctor, "provided_extras", lambda: ["docs", "train"])
    monkeypatch.setattr(doctor, "is_installed", lambda name: name != "peft")
    found = doctor.extras()
    assert [(check.name, check.state, check.detail) for check in found] == [
        ("extra train", "optional", "without peft; pip install 'crossbind[train]'")
    ]


def test_every_extra_that_is_named_exists() -> None:
    """Each `needs("...")` in the packages names an extra of pyproject.toml."""
    import re
    import tomllib

    known = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    for package in extras.OWN_PACKAGES:
        for file in (HERE / package).rglob("*.py"):
            named |= set(re.findall(r'needs\(\s*"(\w+)"|crossbind\[(\w+)\]', file.read_text()))
    names = {name for pair in named for name in pair if name}
    assert names >= {"serve", "page", "clip", "sensors", "train"}
    assert names <= set(known)
