"""Modalities and encoders of another package: a distribution on a path of its own, good, broken and clashing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bind import encoders, extensions, modalities

MODULE = """
from dataclasses import dataclass, replace
from bind.modalities import text
SPEC = replace(text.SPEC, name="smell", default_for=frozenset())
"""
ENCODER = "from torch import nn\ndef build(options):\n    return nn.Linear(options['width'], 1)\n"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    for cached in (modalities.specs, extensions.installed):
        cached.cache_clear()
    yield
    for cached in (modalities.specs, extensions.installed):
        cached.cache_clear()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, *lines: str) -> None:
    information = folder / "senses-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: senses\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("\n".join([f"[crossbind.{group}]", *lines]))
    (folder / "senses_of_mine.py").write_text(MODULE)
    (folder / "senses_net.py").write_text(ENCODER)
    monkeypatch.syspath_prepend(str(folder))


def test_a_package_adds_a_modality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "modalities", "smell = senses_of_mine:SPEC")
    assert modalities.spec("smell").name == "smell" and "image" in modalities.specs()
    assert list(modalities.specs()) == sorted(modalities.specs())


def test_a_broken_one_is_named_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ("smell = senses_of_mine:SPEC", "taste = no_such_module:SPEC", "touch = senses_of_mine:SPEC")
    install(tmp_path, monkeypatch, "modalities", *lines)
    with pytest.warns(UserWarning, match="left out") as caught:
        found = modalities.specs()
    assert "smell" in found and "taste" not in found and "touch" not in found
    said = " ".join(str(warning.message) for warning in caught)
    assert "no_such_module:SPEC (senses)" in said and "expected a ModalitySpec named 'touch'" in said


def test_a_clash_of_names_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clash.py").write_text("from bind.modalities.image import SPEC\n")
    install(tmp_path, monkeypatch, "modalities", "image = clash:SPEC")
    with pytest.raises(ValueError, match=r"'image' is both .*image\.py and clash:SPEC \(senses\)"):
        modalities.specs()


def test_a_package_adds_an_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "encoders", "senses = senses_net", "convnet = senses_net", "gone = no_such_module")
    assert "senses" in encoders.names()
    assert encoders.build({"module": "senses", "width": 3}).in_features == 3
    with pytest.raises(ValueError, match=r"convnet\.py and senses_net \(senses\)"):
        encoders.build({"module": "convnet"})
    with pytest.raises(ValueError, match=r"no_such_module \(senses\) cannot be loaded"):
        encoders.build({"module": "gone"})
