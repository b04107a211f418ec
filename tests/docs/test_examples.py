"""The examples in docstrings are run, each in a folder with a few small files, a model, a library and a server."""

from __future__ import annotations

import ast
import doctest
import importlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bind
from bind.model.model import BindModel
from preprocess.readers import image
from preprocess.source import Limits, Source
from serve.client import Client
from serve.demo import samples
from serve.engine.terms import Term
from serve.library.library import Library
from tests.serve import tiny
from tests.serve.load import served
from tests.train import scenes

ROOT = Path(__file__).parents[2]
PACKAGES = ("preprocess", "data_manifests", "bind", "train", "serve")
RUN = """
name = "depth"
out = "out"
[base]
modalities = ["image"]
[modalities.depth]
preprocess = { size = 32 }
encoder = { widths = [8, 16] }
[train]
steps = 2
[[train.pairs]]
modality = "depth"
manifests = ["scenes/train.jsonl"]
batch_size = 8
"""
ENTRY_POINTS = {
    "bind.arithmetic.combine": "Args Raises Example",
    "bind.index.index.Index": "Args Raises Example",
    "bind.index.index.Index.add": "Args Raises Example",
    "bind.index.index.Index.load": "Args Raises Example",
    "bind.index.index.Index.save": "Args Raises Example",
    "bind.index.index.Index.search": "Args Returns Raises Example",
    "bind.loss.contrastive.info_nce": "Args Raises Example",
    "bind.modalities.ModalitySpec": "Args Example",
    "bind.model.model.BindModel.embed": "Args Raises Example",
    "bind.model.model.BindModel.encode": "Args Raises Example",
    "bind.model.model.BindModel.locate": "Args Raises Example",
    "bind.model.model.BindModel.stream": "Args Yields Example",
    "bind.space.Embeddings": "Args Raises Example",
    "bind.zoo.load": "Args Raises Example",
    "data_manifests.build": "Args Raises Example",
    "preprocess.decoding.pool.DecodePool": "Args Raises Example",
    "preprocess.source.Limits": "Args Raises Example",
    "serve.client.Client": "Args Example",
    "serve.client.Client.add": "Args Raises Example",
    "serve.client.Client.delete": "Args Raises Example",
    "serve.client.Client.embed": "Args Raises Example",
    "serve.client.Client.item": "Args Raises Example",
    "serve.client.Client.locate": "Args Raises Example",
    "serve.client.Client.media": "Args Raises Example",
    "serve.client.Client.models": "Raises Example",
    "serve.client.Client.moments": "Args Raises Example",
    "serve.client.Client.search": "Args Raises Example",
    "serve.client.Client.thumbnail": "Args Raises Example",
    "serve.engine.terms.Term": "Args Raises Example",
    "serve.library.library.Library.add": "Args Raises Example",
    "serve.library.folders.Folders.index": "Args Returns Raises Example",
    "serve.library.library.Library.migrate": "Args Returns Raises Example",
    "serve.library.library.Library.open": "Args Raises Example",
    "serve.library.library.Library.remove": "Args Raises Example",
    "serve.library.finding.Finding.moments": "Args Raises Example",
    "serve.library.finding.Finding.search": "Args Raises Example",
    "train.trainer.loop.train": "Args Raises Example",
    "train.trainer.run.read": "Args Raises Example",
}
"""Public entry points and the sections that their docstrings have behind the first line."""


@dataclass(frozen=True)
class Docstring:
    """The docstring of a module, class or function, and the name of its module."""

    module: str
    text: str


def docstrings() -> dict[str, Docstring]:
    """Dotted name -> docstring, of everything in the packages that has one."""
    found: dict[str, Docstring] = {}

    def visit(node: Any, name: str, module: str) -> None:
        if text := ast.get_docstring(node):
            found[name] = Docstring(module, text)
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                visit(child, f"{name}.{child.name}", module)

    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            visit(ast.parse(file.read_text()), module, module)
    return found


DOCSTRINGS = docstrings()
EXAMPLES = sorted(name for name, docstring in DOCSTRINGS.items() if ">>> " in docstring.text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the examples name."""
    root = tmp_path_factory.mktemp("examples")
    media = root / "media"
    media.mkdir()
    for sample in samples.EVERYDAY[:3]:
        shutil.copyfile(sample.path, media / sample.path.name)
    Image.open(samples.EVERYDAY[4].path).convert("RGB").save(root / "dog.jpg")
    shutil.copyfile(samples.EVERYDAY[1].path, root / "cat.png")
    tiny.sound(root / "rain.wav", 440.0, 2.0)
    tiny.clip(root / "film.mp4", 2.0)
    for name in ("crop_LR_visible", "cropinfrared"):
        (root / "RoadScene-download" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(root / "RoadScene-download" / name / f"{number}.jpg")
    scenes.build(root / "scenes", "train", range(16))
    (root / "depth.toml").write_text(RUN)
    return root


@pytest.fixture(scope="module")
def model() -> BindModel:
    return bind.load("small")


@pytest.fixture(scope="module")
def stored(folder: Path, model: BindModel) -> Path:
    """A library over `media`."""
    with Library.open(folder / "stored", model) as library:
        library.index(folder / "media")
    return folder / "stored"


@pytest.fixture(scope="module")
def address(stored: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of a copy of the library."""
    copy = tmp_path_factory.mktemp("served") / "library"
    shutil.copytree(stored, copy)
    with served(copy) as (host, port, _):
        yield f"http://{host}:{port}"


_numbers = itertools.count()


def run(text: str, names: dict[str, Any]) -> str:
    """Runs the example of a docstring -> a report of what is not as it is shown, empty if all is."""
    test = doctest.DocTestParser().get_doctest(text, names, "example", None, 0)
    assert test.examples, "no example"
    report: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_shows_what_it_does(
    name: str, folder: Path, model: BindModel, stored: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    module = importlib.import_module(DOCSTRINGS[name].module)
    monkeypatch.chdir(folder)
    library_folder = folder / f"library-{next(_numbers)}"
    shutil.copytree(stored, library_folder)
    names = {"read": image.read, "source": Source.from_path("dog.jpg"), "config": image.ImageConfig()}
    names |= {"limits": Limits(), **vars(module)}
    names |= {"bind": bind, "np": np, "torch": torch, "Path": Path, "Term": Term, "model": model}
    with Library.open(library_folder, model) as library:
        names |= {"library": library, "Library": Library}
        if name.startswith(("serve.client", "serve.http_client")):
            url = request.getfixturevalue("address")
            names |= {"address": url, "client": Client(url)}
        report = run(DOCSTRINGS[name].text.replace("http://127.0.0.1:8000", names.get("address", "")), names)
        if "client" in names:
            names["client"].close()
    assert not report, report


def test_an_example_that_shows_something_else_is_reported() -> None:
    assert "Expected:" in run("Example:\n    >>> 1 + 1\n    3\n", {})
    assert "ZeroDivisionError" in run("Example:\n    >>> 1 / 0\n", {})


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_says_what_it_takes_raises_and_does(name: str) -> None:
    text = DOCSTRINGS[name].text
    assert [section for section in ENTRY_POINTS[name].split() if f"\n{section}:\n" not in text] == []
    assert name in EXAMPLES
